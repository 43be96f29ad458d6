"""Rows of the table: what was measured in each round, against what, and whether a goal is reached.

The figure that is judged is taken round by round, ours and the other of one round together, so that
a machine that is busy for a while slows both; the median of the rounds decides.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Rounds = Sequence[float]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was done.
        measured: Seconds, bytes or rates of ours, one a round.
        unit: Of `measured`.
        against: What it is held against; "" where there is nothing.
        other: Its value of the same unit in the same rounds; empty where there is none.
        figure: What is judged, one a round.
        form: How it is written: `x` a ratio, `%` a share, `s` seconds, `` a plain number.
        goal: What the median should be; None is no goal.
        sense: Whether the figure should be at least or at most the goal.
        note: What a reader must know, such as that a value is extrapolated.
    """

    what: str
    measured: tuple[float, ...]
    unit: str
    against: str = ""
    other: tuple[float, ...] = ()
    figure: tuple[float, ...] = ()
    form: Literal["x", "%", "s", ""] = "x"
    goal: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the median of the figure meets the goal; None without a goal or a figure."""
        if self.goal is None or not self.figure:
            return None
        middle = statistics.median(self.figure)
        return middle >= self.goal if self.sense == "at least" else middle <= self.goal

    def as_json(self) -> dict[str, Any]:
        """Everything, with medians and spread; what is not finite is null."""
        return {
            "what": self.what,
            "measured": spread(self.measured) | {"unit": self.unit},
            "against": self.against or None,
            "other": spread(self.other) if self.other else None,
            "figure": spread(self.figure) | {"form": self.form} if self.figure else None,
            "goal": self.goal,
            "sense": self.sense,
            "reached": self.reached,
            "note": self.note or None,
        }


def spread(values: Rounds) -> dict[str, Any]:
    """Median, smallest and largest of some rounds, and each of them.

    Raises:
        ValueError: There are none.
    """
    if not values:
        raise ValueError("no round was measured")
    return {
        "median": _finite(statistics.median(values)),
        "min": _finite(min(values)),
        "max": _finite(max(values)),
        "rounds": [_finite(value) for value in values],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def quotients(above: Rounds, below: Rounds) -> tuple[float, ...]:
    """Round by round, the one over the other.

    Raises:
        ValueError: One has more rounds than the other.
    """
    return tuple(one / other for one, other in zip(above, below, strict=True))


def differences(ours: Rounds, other: Rounds) -> tuple[float, ...]:
    """Round by round, how much more the one is."""
    return tuple(one - base for one, base in zip(ours, other, strict=True))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of the least-squares line through (log size, log cost): 1 is linear, 2 is square.

    Raises:
        ValueError: There are fewer than two sizes, or one is not above 0.
    """
    logs = [math.log(size) for size in sizes]
    return statistics.linear_regression(logs, [math.log(cost) for cost in costs]).slope
