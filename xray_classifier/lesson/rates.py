"""Too small, right, too large, adaptive: four short trainings that differ in their steps alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from xray_classifier.lesson.brief_training import (
    BriefCurve,
    BriefSetting,
    brief_trainer,
    train_briefly,
)
from xray_classifier.lesson.rate_sweep import RateSweep, sweep_rates, swept_rates, two_digits

BATCH = 32
STEPS, SWEEP_STEPS = 128, 100
FEWEST_STEPS, FEWEST_POINTS = 30, 60
NOTES, FEWEST_NOTES = 32, 12
LOWEST, HIGHEST = 1e-6, 100.0
SMALLER = 100.0
"""The rate that is too small is this many times smaller than the suggested one."""
FAR_BELOW = 10.0
"""A rate this many times below the suggested one is tried too: the range test raises the rate while
the weights move, and may suggest one that fresh weights cannot bear."""
LARGER = 10.0
"""The rate that is too large is at least this many times larger."""
ADAPTIVE = ("adam", 1e-3)


@dataclass(frozen=True, eq=False)
class RateTraining:
    """One of the four trainings.

    Attributes:
        name: too small, right, too large or adaptive.
        optimizer: sgd or adam.
        rate: Learning rate.
        curve: Loss on all training images of the setting, in its one column.
    """

    name: str
    optimizer: str
    rate: float
    curve: BriefCurve


@dataclass(frozen=True, eq=False)
class Rates:
    """Four trainings and the sweep that chose their rates.

    Attributes:
        sweep: Range test with plain gradient steps (sgd).
        tried: Rates from below the steepest to the lowest point of the sweep that were trained with
            and, where one far below did better, that one; the one with the smallest loss at the
            end is the right one.
        trainings: Too small, right, too large, adaptive.
        n: Training images.
    """

    sweep: RateSweep
    tried: tuple[float, ...]
    trainings: tuple[RateTraining, ...]
    n: int


def measure_rates(setting: BriefSetting) -> Rates | None:
    """Find a rate for plain gradient descent by a range test, and train with it and with others.

    All four begin with the same weights and see the same batches in the same order.

    Args:
        setting: Network and training images.

    Returns:
        The trainings; None where the loss falls at no rate.
    """
    sgd: dict[str, Any] = {"name": "sgd", "lr": LOWEST}
    points = max(FEWEST_POINTS, int(SWEEP_STEPS * setting.thrift))
    sweep = sweep_rates(brief_trainer(setting, sgd, BATCH, 1), swept_rates(LOWEST, HIGHEST, points))
    if sweep.suggested is None or sweep.lowest_at is None:
        return None
    steps = max(FEWEST_STEPS, int(STEPS * setting.thrift))
    tried = {
        rate: _trained(setting, "sgd", rate, steps)
        for rate in sorted({
            two_digits(sweep.suggested / FAR_BELOW),
            sweep.suggested,
            two_digits(float(np.sqrt(sweep.suggested * sweep.lowest_at))),
            sweep.lowest_at,
        })
    }  # fmt: skip
    right = min(tried, key=lambda rate: _final(tried[rate]))
    small = two_digits(right / SMALLER)
    tried[small] = _trained(setting, "sgd", small, steps)
    while _final(tried[small]) < _final(tried[right]):
        right, small = small, two_digits(small / SMALLER)
        tried[small] = _trained(setting, "sgd", small, steps)
    large = two_digits(max(LARGER * right, sweep.diverged_at or 0.0))
    adam, adam_rate = ADAPTIVE
    trainings = (
        RateTraining("too small", "sgd", small, tried[small]),
        RateTraining("right", "sgd", right, tried[right]),
        RateTraining("too large", "sgd", large, _trained(setting, "sgd", large, steps)),
        RateTraining("adaptive", adam, adam_rate, _trained(setting, adam, adam_rate, steps)),
    )
    return Rates(sweep, tuple(sorted({*tried} - {small})), trainings, len(setting.train))


def _final(curve: BriefCurve) -> float:
    """The last loss; infinite where the training did not get there."""
    last = float(curve.losses[-1, 0])
    return float("inf") if curve.diverged or not np.isfinite(last) else last


def _trained(setting: BriefSetting, optimizer: str, rate: float, steps: int) -> BriefCurve:
    trainer = brief_trainer(setting, {"name": optimizer, "lr": rate}, BATCH, 1)
    trainer.run.epochs = int(np.ceil(steps / trainer.run.steps_per_epoch))
    notes = max(FEWEST_NOTES, int(NOTES * setting.thrift))
    return train_briefly(trainer, (setting.train,), max(1, steps // notes))
