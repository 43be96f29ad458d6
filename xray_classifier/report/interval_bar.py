"""A value and its interval as a dot on a line, placed in percent so that it fits any screen."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

_MARGIN_PERCENT = 3.0
"""Room at both ends, so that a dot at an end is whole."""


class Measured(NamedTuple):
    """A number with its 95 % interval; None or NaN where undefined."""

    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


class Scale(NamedTuple):
    """What a bar runs from and to."""

    low: float
    high: float


class IntervalBar(NamedTuple):
    """Where the parts of a bar stand, from the left, such as `12.50%`; None for a missing part."""

    low: str | None
    high: str | None
    dot: str | None


UNIT = Scale(0.0, 1.0)


def interval_bar(measured: Measured, scale: Scale = UNIT) -> IntervalBar:
    """The bar of a number; what lies off the scale stands at its end."""
    ends = (measured.ci_low, measured.ci_high)
    drawn = is_number(measured.value) and all(is_number(end) for end in ends)
    low, high = (_place_or_none(end, scale) if drawn else None for end in ends)
    return IntervalBar(low, high, _place_or_none(measured.value, scale))


def place(value: float, scale: Scale = UNIT) -> str:
    """Where a value stands from left to right in percent of the width."""
    share = (min(max(value, scale.low), scale.high) - scale.low) / (scale.high - scale.low)
    return f"{_MARGIN_PERCENT + (100.0 - 2 * _MARGIN_PERCENT) * share:.2f}%"


def is_number(value: float | None) -> bool:
    """False for None and NaN."""
    return value is not None and math.isfinite(value)


def percent_text(value: float | None) -> str:
    """A fraction as a person says it, `78.8 %`; `not defined` for None or NaN."""
    if value is None or not math.isfinite(value):
        return "not defined"
    return f"{_tenths(value)} %"


def percent_interval(measured: Measured) -> str:
    """`68.8 to 88.9 %`, or nothing where an end is undefined."""
    low, high = measured.ci_low, measured.ci_high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{_tenths(low)} to {_tenths(high)} %"


def _tenths(value: float) -> Decimal:
    """Percent to one decimal, a half up as the script of the page rounds."""
    return Decimal(100 * value).quantize(Decimal("0.1"), ROUND_HALF_UP)


def _place_or_none(value: float | None, scale: Scale) -> str | None:
    return place(value, scale) if value is not None and math.isfinite(value) else None
