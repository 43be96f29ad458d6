"""Overfitting: the loss on few training images falls on while that on other images turns around."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_classifier.history import best_index, epochs_since_best
from xray_classifier.lesson.brief_training import (
    BriefSetting,
    brief_trainer,
    train_briefly,
    with_dropout,
)

Floats = NDArray[np.float64]

TRAIN_IMAGES, HELD_IMAGES = 200, 256
"""Few to learn from, so that they can be learnt by heart."""
EPOCHS, FEWEST_EPOCHS = 40, 12
BATCH = 32
PATIENCE = 5
USUAL_DROPOUT = 0.5
"""Where the run itself has none."""
OPTIMIZER = {"name": "adam", "lr": 3e-4}


@dataclass(frozen=True, eq=False)
class PartingCurves:
    """One short training on few images.

    Attributes:
        dropout: Chance that a hidden unit is silenced; 0 for none.
        train: Loss on the images learnt from, dropout off, at the start and after each epoch, (k,).
        held: Loss on the images held out, (k,).
        best_epoch: Epoch with the smallest loss on the held out until the stop, where early
            stopping keeps the weights; 0 is the start.
        stop_epoch: Where early stopping would have ended the training; None: never.
    """

    dropout: float
    train: Floats
    held: Floats
    best_epoch: int
    stop_epoch: int | None

    @property
    def gap(self) -> float:
        """How far the two losses lie apart at the end."""
        return float(self.held[-1] - self.train[-1])


@dataclass(frozen=True, eq=False)
class Parting:
    """Trainings without and with dropout.

    Attributes:
        trainings: Without dropout, then with; a perceptron has the first alone.
        n_train: Images learnt from.
        n_held: Images held out.
    """

    trainings: tuple[PartingCurves, ...]
    n_train: int
    n_held: int


def measure_parting(setting: BriefSetting, *, dropout: float | None) -> Parting:
    """Train on few images, without and with dropout, from the same weights.

    Args:
        setting: With images held out.
        dropout: Rate of the second training; None: the network has no hidden units to silence.

    Raises:
        ValueError: No images are held out.

    Source:
        Srivastava et al. 2014, "Dropout", JMLR 15:1929; Prechelt 1998, "Early stopping - but
        when?", doi:10.1007/3-540-49430-8_3.
    """
    rates = (0.0,) if dropout is None else (0.0, dropout)
    held = setting.held
    if held is None:
        raise ValueError("no images are held out")
    return Parting(
        tuple(_curves(with_dropout(setting, rate), rate) for rate in rates),
        len(setting.train),
        len(held),
    )


def _curves(setting: BriefSetting, rate: float) -> PartingCurves:
    epochs = max(FEWEST_EPOCHS, int(EPOCHS * setting.thrift))
    trainer = brief_trainer(setting, OPTIMIZER, BATCH, epochs)
    sets = tuple(images for images in (setting.train, setting.held) if images is not None)
    curve = train_briefly(trainer, sets, trainer.run.steps_per_epoch)
    train, held = curve.losses.T
    best, stop = stopping_point(held, PATIENCE)
    return PartingCurves(rate, train, held, best, stop)


def stopping_point(held: Floats, patience: int) -> tuple[int, int | None]:
    """Where early stopping would keep the weights, and where it would stop.

    Args:
        held: Loss at the start and after each epoch, (k,); the start is not judged.
        patience: Epochs without a new best.

    Returns:
        Epoch of the best loss until the stop, and epoch of the stop or None; from 1.
    """
    losses = held[1:].tolist()
    for epoch in range(1, len(losses) + 1):
        if epochs_since_best(losses[:epoch], "min") >= patience:
            return (best_index(losses[:epoch], "min") or 0) + 1, epoch
    return (best_index(losses, "min") or 0) + 1, None
