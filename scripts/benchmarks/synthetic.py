"""Noise instead of films: trainers in this process, and files for whole processes."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scripts.measure_memory import SEED, make_npz
from xray_classifier.data.dataset import Standardize, load_split, steps_per_epoch
from xray_classifier.history import COLUMNS, History, Run
from xray_classifier.losses import BinaryCrossEntropy
from xray_classifier.model import Architecture, Network, build_network
from xray_classifier.optimizers import make_optimizer
from xray_classifier.signals import StopRequest
from xray_classifier.trainer import Trainer

DROPOUT = 0.3
RATE = 1e-3


def images_of(n: int, side_px: int) -> NDArray[np.uint8]:
    """Noise, (n, side_px, side_px) uint8."""
    rng = np.random.default_rng(SEED)
    return rng.integers(0, 256, (n, side_px, side_px), dtype=np.uint8)


def targets_of(n: int) -> NDArray[np.float64]:
    """Every second image is sick, (n,)."""
    return (np.arange(n) % 2).astype(np.float64)


def network(side_px: int, hidden: Sequence[int]) -> Network:
    """The stack of the job."""
    return build_network(
        Architecture.from_keys("mlp", side_px, hidden, "relu", DROPOUT, "none", False, "kaiming")
    )


def trainer_of(
    images: NDArray[np.uint8],
    hidden: Sequence[int],
    batch: int,
    precision: str,
    device: torch.device | None = None,
) -> Trainer:
    """A trainer as a run without validation has it, ready for its first step.

    Args:
        images: (n, S, S).
        hidden: Units of the hidden layers.
        batch: Images of a step.
        precision: fp32 or bf16.
        device: Where it trains; None is the CPU.
    """
    n, side_px, _ = images.shape
    device = device or torch.device("cpu")
    model = network(side_px, hidden).to(device)
    rows = np.arange(n)
    return Trainer(
        model=model,
        standardize=Standardize(0.5, 0.29),
        loss=BinaryCrossEntropy(),
        optimizer=make_optimizer(model, "adam", RATE),
        learning_rate=lambda run: RATE,
        train_images=load_split(images, targets_of(n), rows, device),
        val_images=None,
        task="classify",
        batch_size=batch,
        seed=0,
        precision=precision,
        grad_clip=None,
        callbacks=(),
        run=Run(History(COLUMNS["classify"]), 1, steps_per_epoch(n, batch)),
        request=StopRequest(),
        scaler=torch.amp.GradScaler(device.type, enabled=False),
    )


def write_npz(path: Path, n: int, side_px: int) -> None:
    """Noise and labels in one NPZ file."""
    make_npz(n, side_px, path, zipfile.ZIP_STORED)


def write_films(folder: Path, n: int, side_px: int) -> None:
    """JPEG files of noise in two class folders, where there is no data at hand."""
    from PIL import Image

    for row, image in enumerate(images_of(n, side_px)):
        home = folder / ("NORMAL", "PNEUMONIA")[row % 2]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(home / f"{row:05d}.jpeg", quality=90)
