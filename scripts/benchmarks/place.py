"""Where a benchmark works, and what every subject of it needs."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from scripts.benchmarks.numbers import NETWORK_HIDDEN, Numbers
from scripts.benchmarks.processes import Done, own_environment, program, timed

BATCH = 64
JOB = """name: job
data:
  source: folder
  path: {path}
  labels: {{healthy: [NORMAL], sick: [PNEUMONIA]}}
  split: {{val: null, test: null}}
  image: {{size: 64}}
model: {{type: mlp, hidden: {hidden}, dropout: 0.3}}
train:
  epochs: {epochs}
  batch_size: {batch}
  optimizer: {{name: adam, lr: 1e-3}}
  schedule: {{name: constant}}
  early_stopping: null
"""


@dataclass
class Place:
    """The folders, interpreters and numbers of one run of the benchmark.

    Attributes:
        numbers: How much is measured.
        data: Folder with NORMAL and PNEUMONIA, for the job.
        films: Folder of the same form with films at full resolution.
        scratch: Where anything may be written; removed at the end.
        peers: Interpreter that has the peers; None where they are left out.
    """

    numbers: Numbers
    data: Path
    films: Path
    scratch: Path
    peers: Path | None = None
    _fresh: Iterator[int] = field(default_factory=count)
    _trained: Path | None = None

    def new_folder(self, name: str) -> Path:
        """An empty folder that was never used."""
        folder = self.scratch / f"{name}-{next(self._fresh)}"
        folder.mkdir(parents=True)
        return folder

    def pictures(self) -> list[Path]:
        """The files of the job, in order."""
        return sorted(path for path in self.data.rglob("*") if path.is_file())

    def python(self, peer: str) -> Path | None:
        """The interpreter of a peer: this one where the project itself needs what it needs."""
        return Path(sys.executable) if peer in ("plain PyTorch", "scikit-learn") else self.peers

    def run(self, *words: str | Path) -> Done:
        """Run a command of the program, away from the user's own files.

        Raises:
            FailedProcess: It did not end well.
        """
        return timed(program(*words), self.scratch, own_environment(self.scratch / "home"))

    def train(self, cache: Path, epochs: int, *overrides: str) -> tuple[Done, Path]:
        """Do the job; the process, and the run folder.

        Args:
            cache: Where decoded images are kept.
            epochs: How many.
            overrides: Further keys, `a.b=c`.
        """
        out = self.new_folder("runs")
        words: tuple[str | Path, ...] = ("-o", out, "--json", f"data.cache={cache}", *overrides)
        done = self.run("train", "-c", self.job(epochs), *words)
        self._trained = Path(json.loads(done.out)["run_dir"])
        return done, self.scratch / self._trained

    def job(self, epochs: int) -> Path:
        """The config of the job."""
        path = self.new_folder("job") / "job.yaml"
        text = JOB.format(
            path=json.dumps(str(self.data)), hidden=list(NETWORK_HIDDEN), epochs=epochs, batch=BATCH
        )
        path.write_text(text, encoding="utf-8")
        return path

    def cache(self) -> Path:
        """Decoded images that are there already after the first call of `trained`."""
        return self.scratch / "warm-cache"

    def trained(self) -> Path:
        """Some run of the job, for what needs a checkpoint; its images are in `cache`."""
        if self._trained is None or not self.cache().is_dir():
            self.train(self.cache(), 1)
        if self._trained is None:
            raise RuntimeError("no run folder was told")
        return self.scratch / self._trained


Raw = dict[str, Any]
Rounds = Sequence[Raw]


def column(rounds: Rounds, key: str) -> tuple[float, ...]:
    """One figure of every round; empty where a round lacks it."""
    found = [raw[key] for raw in rounds if raw.get(key) is not None]
    return tuple(found) if len(found) == len(rounds) else ()
