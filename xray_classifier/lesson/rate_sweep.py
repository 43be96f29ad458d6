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
from xray_classifier.trainer import Trainer

Floats = NDArray[np.float64]

SMOOTHING = 0.9
"""Share of the running mean of the loss that stays at each step."""
DIVERGED = 4.0
"""The sweep ends when the smoothed loss is this many times its lowest value."""
HALF_WINDOW = 4
"""Points on either side over which the slope at a point is taken."""


@dataclass(frozen=True, eq=False)
class RateSweep:
    """One training in which the learning rate rose at each step.

    Attributes:
        rates: Learning rate of each step that was taken, (k,).
        losses: Loss of its batch before the step, (k,).
        smoothed: Running mean of the losses, (k,).
        suggested: Rate at which the smoothed loss falls fastest; None where it never falls.
        diverged_at: Rate at which the sweep ended because the loss grew; None where it did not.
    """

    rates: Floats
    losses: Floats
    smoothed: Floats
    suggested: float | None
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
        doi:10.1109/WACV.2017.58, section 3.3, with rates that rise exponentially.
    """
    trainer.learning_rate = lambda run: float(rates[min(run.step, len(rates) - 1)])
    losses: list[float] = []
    diverged_at = None
    for index in _batches(trainer, len(rates)):
        try:
            losses.append(trainer.step(index))
        except NonFiniteError:
            diverged_at = float(rates[len(losses)])
            break
        smoothed = smooth(np.array(losses))
        trainer.run.step += 1
        if smoothed[-1] > DIVERGED * smoothed.min() + 1e-12:
            diverged_at = float(rates[len(losses) - 1])
            break
    found = np.array(losses)
    taken = rates[: len(found)]
    return RateSweep(taken, found, smooth(found), steepest(taken, smooth(found)), diverged_at)


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


def smooth(losses: Floats) -> Floats:
    """Running mean with exponentially falling weights, without a pull towards 0 at the start.

    Args:
        losses: (k,).

    Source:
        Kingma & Ba 2015, arXiv:1412.6980, section 3: the correction for the start at 0.
    """
    found, mean = np.empty(len(losses)), 0.0
    for step, loss in enumerate(losses.tolist()):
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
        found[step] = mean / (1.0 - SMOOTHING ** (step + 1))
    return found


def steepest(rates: Floats, smoothed: Floats) -> float | None:
    """The rate at which a loss falls fastest, per decade of the rate, before its lowest point.

    The slope at a point is that of the straight line through it and its neighbours.

    Args:
        rates: Rising, (k,).
        smoothed: (k,).

    Returns:
        The rate with two digits; None where the loss never falls.
    """
    if len(smoothed) < 3:
        return None
    x = np.log10(rates)
    lowest = int(np.argmin(smoothed))
    slopes = [
        np.polyfit(x[part], smoothed[part], 1)[0]
        for part in (
            slice(max(0, place - HALF_WINDOW), place + HALF_WINDOW + 1)
            for place in range(lowest + 1)
        )
        if len(x[part]) > 2
    ]
    if not slopes or min(slopes) >= 0:
        return None
    return two_digits(float(rates[int(np.argmin(slopes))]))


def two_digits(rate: float) -> float:
    """A rate as a person types it: 0.000347 becomes 0.00035."""
    return float(f"{rate:.1e}") if math.isfinite(rate) else rate
