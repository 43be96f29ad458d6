"""The learning rate range test: raise the rate from tiny to huge and watch the loss.

At a tiny rate nothing happens, then the loss falls, faster and faster, then it stops falling and at
last it explodes. A good rate lies where it falls fastest.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xray_classifier.data.dataset import batch_positions, epoch_order
from xray_classifier.errors import NonFiniteError
from xray_classifier.lesson.subject import some_of
from xray_classifier.trainer import Trainer, split_loss

Floats = NDArray[np.float64]

SAMPLE = 256
"""Training images on which the loss is taken after each step; the same ones each time."""
DIVERGED = 4.0
"""The sweep ends when the loss is this many times the larger of its first and lowest value."""
DECADES = 0.5
"""How far below the rate of the lowest loss the steepest fall is looked for."""
HALF_WINDOW = 0.3
"""Decades of the rate on either side over which the line at a point is laid."""


@dataclass(frozen=True, eq=False)
class RateSweep:
    """One training in which the learning rate rose at each step.

    Attributes:
        rates: Learning rate of each step that was taken, (k,).
        batch_losses: Loss of its batch before the step, dropout on, (k,).
        losses: Loss on the same sample of training images after the step, dropout off, (k,).
        smoothed: `losses`, each replaced by the line through its neighbours, (k,).
        suggested: Rate at which the smoothed loss falls fastest, within half a decade below the
            lowest point; None where it never falls.
        lowest_at: Rate at which the smoothed loss is lowest; None where it never falls.
        diverged_at: Rate at which the sweep ended because the loss grew; None where it did not.
    """

    rates: Floats
    batch_losses: Floats
    losses: Floats
    smoothed: Floats
    suggested: float | None
    lowest_at: float | None
    diverged_at: float | None


def swept_rates(lowest: float, highest: float, steps: int) -> Floats:
    """Rates that rise by one factor from step to step, (steps,).

    Args:
        lowest: Above 0.
        highest: Above `lowest`.
        steps: At least 2.
    """
    return np.geomspace(lowest, highest, steps)


def sweep_rates(trainer: Trainer, rates: Floats) -> RateSweep:
    """Train one step at each rate and suggest one.

    Args:
        trainer: Fresh; its weights are of no use afterwards.
        rates: Rising, (k,).

    Source:
        Smith 2017, "Cyclical learning rates for training neural networks",
        doi:10.1109/WACV.2017.58, section 3.3, with rates that rise exponentially, and the loss of
        one sample of images, for that of the batches is too noisy to take a slope of.
    """
    trainer.learning_rate = lambda run: float(rates[min(run.step, len(rates) - 1)])
    sample = some_of(trainer.train_images, SAMPLE)
    batch_losses: list[float] = []
    losses: list[float] = []
    diverged_at = None
    for index in _batches(trainer, len(rates)):
        rate = float(rates[len(losses)])
        try:
            before = trainer.step_and_wait(index)
        except NonFiniteError:
            diverged_at = rate
            break
        after = split_loss(trainer.model, trainer.standardize, trainer.loss, sample)[1]
        if not math.isfinite(after):
            diverged_at = rate
            break
        batch_losses.append(before)
        losses.append(after)
        trainer.run.step += 1
        if after > DIVERGED * max(losses[0], min(losses)):
            diverged_at = rate
            break
    found, taken = np.array(losses), rates[: len(losses)]
    values, slopes = lines(taken, found)
    suggested, lowest_at = steepest(taken, values, slopes)
    return RateSweep(
        taken, np.array(batch_losses), found, values, suggested, lowest_at, diverged_at
    )


def _batches(trainer: Trainer, steps: int) -> Iterator[Tensor]:
    """Batches of one epoch after the other, `steps` in all."""
    taken = 0
    while taken < steps:
        order = epoch_order(len(trainer.train_images), trainer.seed, trainer.run.epoch)
        for index in batch_positions(order, trainer.batch_size):
            yield index
            taken += 1
            if taken == steps:
                return
        trainer.run.epoch += 1


def lines(rates: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Value and slope, per decade of the rate, of the best straight line around each point.

    Args:
        rates: Rising, (k,).
        losses: (k,).

    Returns:
        Values (k,) and slopes (k,); with fewer than three neighbours the loss itself and 0.
    """
    x = np.log10(rates)
    values, slopes = losses.copy(), np.zeros(len(losses))
    for place, centre in enumerate(x.tolist()):
        near = np.abs(x - centre) <= HALF_WINDOW
        if near.sum() > 2:
            slopes[place], values[place] = np.polyfit(x[near] - centre, losses[near], 1)
    return values, slopes


def steepest(rates: Floats, smoothed: Floats, slopes: Floats) -> tuple[float | None, float | None]:
    """The rate at which a loss falls fastest close below its lowest point, and that point's rate.

    Further below, a network corrects the first guess of its random weights, which is steep too and
    says little of the rate.

    Args:
        rates: Rising, (k,).
        smoothed: Loss, (k,).
        slopes: Of the loss, per decade, (k,).

    Returns:
        Both with two digits; None where the loss never falls.
    """
    if not len(smoothed):
        return None, None
    lowest = int(np.argmin(smoothed))
    close = np.flatnonzero(rates[: lowest + 1] >= rates[lowest] / 10**DECADES)
    if slopes[: lowest + 1].min() >= 0 or smoothed[lowest] >= smoothed[0]:
        return None, None
    return two_digits(float(rates[close[np.argmin(slopes[close])]])), two_digits(
        float(rates[lowest])
    )


def two_digits(rate: float) -> float:
    """A rate as a person types it: 0.000347 becomes 0.00035."""
    return float(f"{rate:.1e}") if math.isfinite(rate) else rate
