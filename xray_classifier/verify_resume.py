"""Proof on this machine that a stopped run goes on exactly: `doctor --verify-resume`.

A tiny run on phantoms is trained in one go, and again with stops: the state goes to disk, all else
is built anew, the state comes back. All tensors at the two ends must be equal to the last bit.
"""

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xray_classifier.building import run_best_monitor, run_building
from xray_classifier.callbacks import Callback, Checkpoints
from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.config import Config
from xray_classifier.config_file import load_config
from xray_classifier.data.loading import Radiographs, run_loading
from xray_classifier.history import Run
from xray_classifier.resume import newest_state, restore, training_state
from xray_classifier.saving import run_best
from xray_classifier.terminal import Terminal
from xray_classifier.trainer import Trainer

OVERRIDES = (
    "data.phantoms.n_images=80",
    "data.image.size=32",
    "data.workers=1",
    "model.hidden=[48, 24]",
    "model.dropout=0.4",
    "model.norm=batch",
    "train.batch_size=6",
    "train.epochs=6",
    "train.early_stopping.patience=100",
    "train.schedule.warmup_epochs=1.5",
    "train.ema=0.9",
    "train.mixup=0.4",
    "train.augment={rotate_degrees: 10, scale: 0.1, translate: 0.1, noise: 0.05, cutout: 0.2}",
    "train.checkpoint_every={steps: null, minutes: null}",
)
"""Keys on top of the shipped config `demo`; all that is random or has a state of its own is on."""

TENSOR_FILES = ("last.safetensors", "best.safetensors")


@dataclass(frozen=True)
class Comparison:
    """One stopped run beside the unbroken one.

    Attributes:
        stops: Steps after which it was stopped and resumed.
        sha256: Of all tensors at its end.
        differing: Names of the tensors that differ; empty if the two runs are equal.
    """

    stops: tuple[int, ...]
    sha256: str
    differing: tuple[str, ...]


@dataclass(frozen=True)
class ResumeProof:
    """What `verify_resume` found.

    Attributes:
        steps: Steps of the run.
        device: Where it was trained, such as cpu.
        threads: CPU threads of PyTorch.
        sha256: Of all tensors of the unbroken run at its end.
        comparisons: The stopped runs.
        elapsed_s: Seconds it all took.
    """

    steps: int
    device: str
    threads: int
    sha256: str
    comparisons: tuple[Comparison, ...]
    elapsed_s: float

    @property
    def holds(self) -> bool:
        """Whether every stopped run ended like the unbroken one."""
        return not any(comparison.differing for comparison in self.comparisons)


@dataclass
class StopAfter(Callback):
    """Asks to stop after a step, as a signal would."""

    step: int | None
    trainer: Trainer = field(repr=False)

    def on_step_end(self, run: Run) -> None:
        """Raise the flag that the training loop reads."""
        if run.step == self.step:
            self.trainer.request.signal_name = "SIGTERM"


def verify_resume(overrides: Sequence[str] = ()) -> ResumeProof:
    """Train straight and with stops, in a temporary folder, and compare the ends.

    Args:
        overrides: Keys on top of OVERRIDES.
    """
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="xray-classifier-") as name:
        folder = Path(name)
        loaded = load_config("demo", [*OVERRIDES, f"data.cache={folder / 'cache'}", *overrides])
        radiographs = run_loading(loaded.config.data, loaded.config.task, Terminal(quiet=True))
        whole = train_with_stops(loaded.config, radiographs, folder / "whole", ())
        expected = end_tensors(folder / "whole")
        run = whole.run
        comparisons = []
        for number, stops in enumerate(_plans(run.step, run.steps_per_epoch)):
            part = folder / f"stopped{number}"
            train_with_stops(loaded.config, radiographs, part, stops)
            found = end_tensors(part)
            differing = differing_tensors(expected, found)
            comparisons.append(Comparison(stops, digest(found), differing))
    return ResumeProof(
        steps=run.step,
        device=str(whole.train_images.device),
        threads=torch.get_num_threads(),
        sha256=digest(expected),
        comparisons=tuple(comparisons),
        elapsed_s=round(time.monotonic() - start_s, 3),
    )


def _plans(steps: int, per_epoch: int) -> list[tuple[int, ...]]:
    """Where to stop: about the ends of the run and of an epoch, in the middle, after every step."""
    places = (1, per_epoch - 1, per_epoch, per_epoch + 1, steps // 2, steps - 1)
    alone = sorted({place for place in places if 0 < place < steps})
    return [*((place,) for place in alone), tuple(range(1, steps))]


def train_with_stops(
    config: Config, radiographs: Radiographs, folder: Path, stops: Sequence[int]
) -> Trainer:
    """Train a run to its end, building everything anew after each stop.

    Args:
        config: Of the run.
        radiographs: Its images.
        folder: Gets the folder `checkpoints`.
        stops: Steps after which the run is stopped, ascending.

    Returns:
        The trainer that reached the end.
    """
    (folder / "checkpoints").mkdir(parents=True)
    for number, stop in enumerate((*stops, None)):
        trainer = train_part(config, radiographs, folder, resume=number > 0, stop=stop)
    return trainer


def train_part(
    config: Config, radiographs: Radiographs, folder: Path, *, resume: bool, stop: int | None
) -> Trainer:
    """Build a run anew and train it to a step.

    Args:
        config: Of the run.
        radiographs: Its images.
        folder: Holds the folder `checkpoints`.
        resume: Go on from the state in there.
        stop: Step after which to stop; None trains to the end.
    """
    built = run_building(config, radiographs)
    trainer = built.trainer
    trainer.callbacks = [
        Checkpoints(
            folder / "checkpoints",
            run_best_monitor(config.train),
            best=lambda: run_best(config, trainer, built.content, built.memory, built.choosing),
            state=lambda: training_state(trainer),
            every_steps=config.train.checkpoint_every.steps,
            every_s=None,
        ),
        StopAfter(stop, trainer),
    ]
    device = trainer.train_images.device
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if resume:
            restore(trainer, newest_state(folder, lambda text: None))
        trainer.fit()
    return trainer


def end_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a run's last state and best model by name, the name of the file in front."""
    found: dict[str, Tensor] = {}
    for name in TENSOR_FILES:
        tensors = load_checkpoint(folder / "checkpoints" / name).tensors
        found |= {f"{Path(name).stem}: {key}": tensor for key, tensor in tensors.items()}
    return found


def differing_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names whose tensors are not equal in type, shape and every bit, or that only one has."""
    return tuple(
        name
        for name in sorted(one.keys() | other.keys())
        if name not in one or name not in other or _bytes(one[name]) != _bytes(other[name])
    )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode() + b"\0" + _bytes(tensors[name]))
    return total.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()
    head = f"{plain.dtype} {tuple(plain.shape)}\n".encode()
    return head + plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def as_json(proof: ResumeProof) -> dict[str, Any]:
    """The proof as plain values, for `doctor --verify-resume --json`."""
    return {
        "holds": proof.holds,
        "steps": proof.steps,
        "device": proof.device,
        "threads": proof.threads,
        "sha256": proof.sha256,
        "comparisons": [
            {"stops": list(c.stops), "sha256": c.sha256, "differing": list(c.differing)}
            for c in proof.comparisons
        ],
        "elapsed_s": proof.elapsed_s,
    }
