"""Several processes train as one: same order, same decisions, same weights within a tolerance."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import films, stack
from safetensors.numpy import load as load_arrays

from xray_classifier.data.dataset import Standardize, load_split
from xray_classifier.distributed import Ranks, shard_of
from xray_classifier.history import History
from xray_classifier.losses import BinaryCrossEntropy
from xray_classifier.trainer import split_loss

HERE = Path(__file__).resolve().parent
TOLERANCE = 2e-5
"""Largest difference of a weight after 24 steps; sums in another order round otherwise."""

KEYS = (
    "data.phantoms.n_images=120", "data.image.size=16", "model.hidden=[16,8]", "train.epochs=6",
    "train.device=cpu", "train.threads=1", "train.batch_size=22", "train.early_stopping=null",
    "train.ema=0.9", "train.mixup=0.3", "train.augment.rotate_degrees=10",
    "train.augment.noise=0.05", "train.augment.rotate_degrees=10",
    "train.augment.noise=0.05", "data.workers=1",
)  # fmt: skip

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and /proc are POSIX")


def free_port() -> int:
    """A port of this machine that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# On a busy machine two gloo processes that meet may both wait in `connectFullMesh` until the
# timeout (seen after a restart); that ends them, and torchrun or `done` starts them again.
MEET = "train.timeout_minutes=0.5"


def torchrun(n: int, *words: object, restarts: int = 0) -> list[str]:
    """The command that starts n processes on this machine, listening on loopback alone."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(n),
        "--master-addr", "127.0.0.1", "--master-port", str(free_port()),
        "--max-restarts", str(restarts), "--monitor-interval", "0.2", *map(str, words),
    ]  # fmt: skip


def done(words: Callable[[], list[str]], tries: int = 3) -> "subprocess.CompletedProcess[bytes]":
    """Run a job to its end; a launcher that fails to start or to leave on a busy machine is asked
    again, with another port."""
    for _ in range(tries):
        said = subprocess.run(words(), env=environment(), capture_output=True, timeout=300)
        if said.returncode == 0:
            return said
    raise AssertionError(said.stderr.decode()[-3000:])


def environment() -> dict[str, str]:
    """One thread a process, so that two of them do not fight for the cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}


def train_words(out: Path, *keys: str) -> list[object]:
    """Words that train a tiny network under `out`."""
    return [
        "-m",
        "xray_classifier",
        "train",
        "-c",
        "demo",
        "-o",
        out,
        "--name",
        "tiny",
        *KEYS,
        *keys,
    ]


def run_of(out: Path) -> Path:
    """The one run under a folder."""
    (run,) = [path for path in out.iterdir() if path.name.endswith("_tiny")]
    return run


def weights(run: Path, name: str = "last") -> dict[str, Any]:
    """The tensors of a checkpoint."""
    return dict(load_arrays((run / "checkpoints" / f"{name}.safetensors").read_bytes()))


def largest_difference(one: Path, other: Path, name: str = "last") -> float:
    """Between the floating-point tensors of two runs, by name."""
    a, b = weights(one, name), weights(other, name)
    assert a.keys() == b.keys()
    return max(float(np.abs(a[k] - b[k]).max()) for k in a if a[k].dtype.kind == "f")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    out = tmp_path_factory.mktemp("alone")
    words = [sys.executable, *map(str, train_words(out))]
    subprocess.run(words, env=environment(), check=True, capture_output=True, timeout=300)
    return run_of(out)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by two processes."""
    out = tmp_path_factory.mktemp("pair")
    tries = iter(range(3))
    done(lambda: torchrun(2, *train_words(out / str(next(tries)), MEET)))
    return run_of(sorted(out.iterdir())[-1])


def test_two_processes_reproduce_one(alone: Path, pair: Path) -> None:
    assert largest_difference(alone, pair) < TOLERANCE
    assert largest_difference(alone, pair, "best") < TOLERANCE
    histories = [
        History.from_csv((run / "history.csv").read_text()).column("val_loss")
        for run in (alone, pair)
    ]
    assert histories[0] == pytest.approx(histories[1], abs=1e-6)
    assert len(histories[0]) == 6


def test_only_the_first_process_writes(alone: Path, pair: Path) -> None:
    names = [
        {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
        for run in (alone, pair)
    ]
    assert names[0] == names[1]
    assert (pair / "log.txt").read_text().count("ep 6/6") == 1
    assert "2 processes" in (pair / "log.txt").read_text()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_judging_is_equal_for_any_number_of_processes_and_images(n: int) -> None:
    said = done(lambda: torchrun(n, HERE / "ranks_program.py"))
    answer = json.loads(said.stdout)
    assert answer["size"] == n
    assert answer["total"] == [n * (n + 1) / 2, n]
    assert answer["told"] == {"from": "rank 0", "text": "ü"}
    assert answer["gradient"] == [sum(range(1, n))] * 3  # rank 0 had none
    model = stack((5,), dropout=0.5)
    for count, found in answer["found"].items():
        rng = np.random.default_rng(int(count))
        images = rng.integers(0, 256, (int(count), 6, 6), dtype=np.uint8)
        targets = rng.integers(0, 2, int(count)).astype(np.float64)
        split = load_split(images, targets, np.arange(int(count)), torch.device("cpu"))
        outputs, loss = split_loss(model, Standardize(0.5, 0.25), BinaryCrossEntropy(), split)
        assert found["outputs"] == outputs.tolist()  # bit by bit, each image once
        assert found["loss"] == loss


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_shards_cover_a_batch_once_in_order(size: int) -> None:
    for n in (0, 1, 2, 3, 6, 7, 64, 65):
        index = torch.arange(100, 100 + n)
        parts = [shard_of(index, Ranks(rank, size)) for rank in range(size)]
        assert torch.cat([mine for mine, _ in parts]).tolist() == index.tolist()
        assert torch.cat([places for _, places in parts]).tolist() == list(range(n))
        sizes = [len(mine) for mine, _ in parts]
        assert max(sizes) - min(sizes) <= 1


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def wait_for(what: Callable[[], bool], process: "subprocess.Popen[bytes]", limit_s: float) -> None:
    """Wait until something is so; fail if the process ends first, or it takes too long."""
    began = time.monotonic()
    while not what():
        assert process.poll() is None, "the job ended too early"
        assert time.monotonic() - began < limit_s, "nothing happened"
        time.sleep(0.05)


def epochs_done(out: Path) -> int:
    """Epochs in the history of the run under a folder; 0 before there is one."""
    lines = [path.read_text().count("\n") - 1 for path in out.glob("*_tiny/history.csv")]
    return max(lines, default=0)


LONG = ("train.epochs=60", "train.checkpoint_every={steps: 1}", MEET)


@pytest.mark.slow  # under load torchrun itself fails about 1 time in 20
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_a_killed_process_costs_nothing_where_the_job_may_restart(tmp_path: Path) -> None:
    tries = iter(range(3))
    done(lambda: torchrun(2, *train_words(tmp_path / "whole" / str(next(tries)), *LONG)))
    whole = sorted((tmp_path / "whole").iterdir())[-1]
    out = tmp_path / "killed"
    with subprocess.Popen(
        torchrun(2, *train_words(out, *LONG), restarts=2),
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as job:  # fmt: skip
        wait_for(lambda: epochs_done(out) >= 5, job, 120)
        os.kill(children(job.pid)[1], signal.SIGKILL)
        job.wait(timeout=240)  # its code is that of torchrun; ours is in summary.json
    assert largest_difference(run_of(whole), run_of(out)) == 0.0
    summary = json.loads((run_of(out) / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("finished", 240)


@pytest.mark.slow  # under load torchrun itself fails about 1 time in 20
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_a_terminated_job_saves_leaves_together_and_goes_on(tmp_path: Path, pair: Path) -> None:
    out = tmp_path / "stopped"
    with subprocess.Popen(
        torchrun(2, *train_words(out, "train.epochs=400")),
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as job:  # fmt: skip
        wait_for(lambda: epochs_done(out) >= 2, job, 120)
        os.kill(children(job.pid)[1], signal.SIGTERM)  # the one that does not write
        assert job.wait(timeout=120) != 0
    run = run_of(out)
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"]) == ("interrupted", 75)
    steps = summary["steps"]
    assert steps > 0
    resumed = [sys.executable, "-m", "xray_classifier", "train", "--resume", str(run)]
    epochs = steps // 4 + 2
    said = subprocess.run(
        [*resumed, f"train.epochs={epochs}"], env=environment(), capture_output=True, timeout=240
    )
    assert said.returncode == 0, said.stderr.decode()[-2000:]
    assert f"going on after epoch {steps // 4}, step {steps}" in said.stdout.decode()


@pytest.mark.slow  # under load torchrun itself fails about 1 time in 20
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_a_stuck_process_ends_the_job(tmp_path: Path) -> None:
    out = tmp_path / "stuck"
    with subprocess.Popen(
        torchrun(2, *train_words(out, "train.epochs=4000", "train.timeout_minutes=0.08")),
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as job:  # fmt: skip
        wait_for(lambda: epochs_done(out) >= 2, job, 120)
        stuck = children(job.pid)[1]
        os.kill(stuck, signal.SIGSTOP)
        try:
            assert job.wait(timeout=120) != 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stuck, signal.SIGKILL)
    summary = json.loads((run_of(out) / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"]) == ("failed", 75)


def test_batch_norm_is_refused_in_words(tmp_path: Path) -> None:
    words = torchrun(2, *train_words(tmp_path / "out", "model.norm=batch", "train.mixup=null"))
    said = subprocess.run(words, env=environment(), capture_output=True, timeout=240)
    assert said.returncode != 0
    assert b"model.norm=layer" in said.stderr
    assert not (tmp_path / "out").exists()


def test_a_process_alone_exchanges_nothing() -> None:
    ranks = Ranks()
    assert ranks.first
    assert ranks.sum([1.5, 2.0]) == [1.5, 2.0]
    assert ranks.told({"a": 1}) == {"a": 1}
    values = np.arange(3.0)
    assert ranks.gather(values, 3) is values
    assert films(2).shape[0] == 2
