"""Too small, right, too large, adaptive: four short trainings that differ in their steps alone."""

from dataclasses import dataclass

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
FEWEST_STEPS = 40
NOTES = 32
LOWEST, HIGHEST = 1e-6, 100.0
SMALLER = 100.0
"""The rate that is too small is this many times smaller than the suggested one."""
LARGER = 10.0
"""The rate that is too large is at least this many times larger."""
ADAPTIVE = {"name": "adam", "lr": 1e-3}


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
        trainings: Too small, right, too large, adaptive.
        n: Training images.
    """

    sweep: RateSweep
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
    sgd = {"name": "sgd", "lr": LOWEST}
    sweep = sweep_rates(
        brief_trainer(setting, sgd, BATCH, 1), swept_rates(LOWEST, HIGHEST, SWEEP_STEPS)
    )
    if sweep.suggested is None:
        return None
    right = sweep.suggested
    large = max(LARGER * right, sweep.diverged_at or 0.0)
    chosen = (
        ("too small", "sgd", two_digits(right / SMALLER)),
        ("right", "sgd", right),
        ("too large", "sgd", two_digits(large)),
        ("adaptive", str(ADAPTIVE["name"]), float(str(ADAPTIVE["lr"]))),
    )
    steps = max(FEWEST_STEPS, int(STEPS * setting.thrift))
    return Rates(
        sweep,
        tuple(
            RateTraining(name, optimizer, rate, _trained(setting, optimizer, rate, steps))
            for name, optimizer, rate in chosen
        ),
        len(setting.train),
    )


def _trained(setting: BriefSetting, optimizer: str, rate: float, steps: int) -> BriefCurve:
    trainer = brief_trainer(setting, {"name": optimizer, "lr": rate}, BATCH, 1)
    trainer.run.epochs = int(np.ceil(steps / trainer.run.steps_per_epoch))
    return train_briefly(trainer, (setting.train,), max(1, steps // NOTES))
