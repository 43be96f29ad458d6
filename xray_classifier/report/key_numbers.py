"""The few numbers at the top of a report, each as a card with its interval drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xray_classifier.report.interval_bar import (
    UNIT,
    IntervalBar,
    Measured,
    Scale,
    interval_bar,
    percent_interval,
    percent_text,
)
from xray_classifier.report.metric_words import metric_words
from xray_classifier.report.words import number_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xray_classifier.report.page import MetricRow


class KeyNumber(NamedTuple):
    """One card.

    Args:
        label: Name of the metric.
        value: The number for a reader.
        interval: Its 95 % interval for a reader; "" without one.
        n: What stands behind it, such as "118 sick images".
        bar: The same drawn; None without a scale.
        ends: What the ends of the scale are; two texts.
    """

    label: str
    value: str
    interval: str
    n: str
    bar: IntervalBar | None
    ends: tuple[str, str]


class _Kind(NamedTuple):
    scale: Scale | None
    ends: tuple[str, str]
    counted: str
    percent: bool = False


_PERCENT = ("0 %", "100 %")
_KINDS = {
    "auroc": _Kind(Scale(0.5, 1.0), ("0.5, chance", "1"), "images"),
    "sensitivity": _Kind(UNIT, _PERCENT, "sick", percent=True),
    "specificity": _Kind(UNIT, _PERCENT, "healthy", percent=True),
    "ppv": _Kind(UNIT, _PERCENT, "called sick", percent=True),
    "npv": _Kind(UNIT, _PERCENT, "called healthy", percent=True),
    "brier": _Kind(Scale(0.0, 0.25), ("0, best", "0.25"), "images"),
    "r2": _Kind(UNIT, ("0", "1"), "images"),
    "mae": _Kind(None, ("", ""), "images"),
    "mse": _Kind(None, ("", ""), "images"),
}
"""The metrics that get a card, in order; a report of either task has some of them."""


def key_numbers(metrics: Sequence[MetricRow]) -> tuple[KeyNumber, ...]:
    """The cards of those metrics that lead a report."""
    rows = {row.name: row for row in metrics}
    return tuple(_card(rows[name], kind) for name, kind in _KINDS.items() if name in rows)


def _card(row: MetricRow, kind: _Kind) -> KeyNumber:
    measured = Measured(row.value, row.ci_low, row.ci_high)
    return KeyNumber(
        label=metric_words(row.name).label,
        value=percent_text(row.value) if kind.percent else number_text(row.value),
        interval=percent_interval(measured) if kind.percent else _interval(measured),
        n=f"{row.n:,} {kind.counted}",
        bar=None if kind.scale is None else interval_bar(measured, kind.scale),
        ends=kind.ends,
    )


def _interval(measured: Measured) -> str:
    """`0.826 to 0.943`, or nothing."""
    low, high = number_text(measured.ci_low), number_text(measured.ci_high)
    return "" if "not defined" in (low, high) else f"{low} to {high}"
