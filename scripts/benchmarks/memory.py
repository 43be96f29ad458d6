"""Peak anonymous memory of a training process, beyond that after `import torch`."""

import sys
from pathlib import Path

from scripts.benchmarks.counting import batch_bytes, state_bytes
from scripts.benchmarks.place import BATCH, Place, Raw, Rounds, column
from scripts.benchmarks.processes import ROOT, own_environment, timed
from scripts.benchmarks.rows import Row, quotients
from scripts.benchmarks.synthetic import write_npz

TITLE = "peak memory of train, beyond import torch"
EVERY_ROUND = False
FEW_BATCHES = 4
MIB = 2.0**20
JOB = """name: memory
data:
  source: npz
  path: {path}
  labels: {{healthy: ['0'], sick: ['1']}}
  patient: null
  split: {{val: null, test: null}}
  image: {{size: {side}}}
  cache: {cache}
model: {{type: mlp, hidden: {hidden}, dropout: 0.3}}
train:
  epochs: 2
  optimizer: {{name: adam, lr: 1e-3}}
  early_stopping: null
"""


def measure(place: Place) -> Raw:
    """Peak bytes of each training, its cache made before and found again."""
    raw: Raw = {}
    for n, side in place.numbers.memory:
        name = name_of(n, side)
        home = place.new_folder("memory")
        write_npz(home / "noise.npz", n, side)
        job = home / "job.yaml"
        hidden = list(place.numbers.hidden)
        text = JOB.format(path=home / "noise.npz", side=side, cache=home / "cache", hidden=hidden)
        job.write_text(text, encoding="utf-8")
        raw[f"{name}, cold"] = peak_bytes(job, home, place.scratch)
        raw[name] = peak_bytes(job, home, place.scratch)
        widths = (side * side, *hidden, 1)
        raw[f"{name} needed"] = state_bytes(widths) + FEW_BATCHES * batch_bytes(widths, BATCH)
    return raw


def name_of(n: int, side_px: int) -> str:
    """How a training is called in the table."""
    return f"{n:,} images, {side_px} px"


def peak_bytes(job: Path, home: Path, scratch: Path) -> float:
    """Of one `train`, in a process that looks at itself.

    Raises:
        FailedProcess: It failed.
    """
    probe = (sys.executable, "-m", "scripts.benchmarks.memory_probe")
    command: list[str | Path] = [*probe, "train", "-c", job, "-o", home / "runs"]
    done = timed(command, ROOT, own_environment(scratch / "home"))
    return float(done.last_json()["peak_bytes"])


def rows(rounds: Rounds) -> list[Row]:
    """Each training against what it must hold, and the largest N against the smallest."""
    names = [key.removesuffix(" needed") for key in rounds[0] if key.endswith(" needed")]
    found = []
    for name in names:
        needed = _mib(rounds, f"{name} needed")
        for key, what in ((name, f"{name}, warm"), (f"{name}, cold", f"{name}, cold")):
            ours, goal = _mib(rounds, key), 1.5 if key == name else None
            ratio = quotients(ours, needed)
            against = "weights x 4 + 4 batches"
            found.append(Row(what, ours, "MiB", against, needed, ratio, "x", goal, "at most"))
    alike = [name for name in names if name.endswith(names[0].partition(",")[2])]
    if "," in names[0] and len(alike) > 1:
        few, many = _mib(rounds, alike[0]), _mib(rounds, alike[-1])
        ratio = quotients(many, few)
        found.append(Row("flat in N", many, "MiB", alike[0], few, ratio, "x", 1.1, "at most"))
    return found


def _mib(rounds: Rounds, key: str) -> tuple[float, ...]:
    return tuple(value / MIB for value in column(rounds, key))
