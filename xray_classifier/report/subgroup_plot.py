"""A model over the groups of its patients: one line a group, each metric a dot with its interval.

The dots of one metric stand below each other, as in a forest plot.
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

from xray_classifier.report.interval_bar import (
    UNIT,
    IntervalBar,
    Measured,
    Scale,
    interval_bar,
    percent_interval,
    percent_text,
)
from xray_classifier.report.words import number_text


class SubgroupRow(NamedTuple):
    """One group of images.

    Args:
        column: What the images were grouped by, such as "view"; "" for all images together, whose
            values the other groups are held against.
        group: The value of the column, such as "AP".
        n: Images in the group.
        n_sick: Sick ones among them.
        auroc: Area under the ROC curve.
        sensitivity: At the stored threshold.
        specificity: At the stored threshold.
        under_diagnosis: Share of the sick that are called healthy.
        warning: Why its numbers say little; "" for nothing.
    """

    column: str
    group: str
    n: int
    n_sick: int
    auroc: Measured = Measured()
    sensitivity: Measured = Measured()
    specificity: Measured = Measured()
    under_diagnosis: Measured = Measured()
    warning: str = ""


class DrawnCell(NamedTuple):
    """One metric of one group as drawn.

    Args:
        title: Name of the metric.
        bar: Its dot and line.
        reference: Where the value of all images stands; None without one.
        text: The value for a reader.
        words: Value and interval, for those who cannot see the bar.
    """

    title: str
    bar: IntervalBar
    reference: str | None
    text: str
    words: str


class DrawnRow(NamedTuple):
    """One group as drawn, with the row it was made from."""

    row: SubgroupRow
    cells: tuple[DrawnCell, ...]


class DrawnColumn(NamedTuple):
    """The groups of one column of the data; without a title, all images."""

    title: str
    rows: tuple[DrawnRow, ...]


class _Panel(NamedTuple):
    title: str
    field: str
    scale: Scale
    ends: tuple[str, str]


PANELS = (
    _Panel("AUROC", "auroc", Scale(0.5, 1.0), ("0.5", "1")),
    _Panel("Sensitivity", "sensitivity", UNIT, ("0", "100 %")),
    _Panel("Specificity", "specificity", UNIT, ("0", "100 %")),
    _Panel("Under-diagnosis", "under_diagnosis", UNIT, ("0", "100 %")),
)
"""The metrics in the order of the page, with what their scales run from and to."""

HEADER = (
    "Group", "Images", "Sick", "AUROC", "95 % interval", "Sensitivity", "95 % interval",
    "Specificity", "95 % interval", "Under-diagnosis", "95 % interval", "Note",
)  # fmt: skip


def drawn_subgroups(rows: tuple[SubgroupRow, ...]) -> tuple[DrawnColumn, ...]:
    """The forest plot, neighbouring rows of one column under one heading."""
    whole = next((row for row in rows if not row.column), None)
    return tuple(
        DrawnColumn(column, tuple(_drawn_row(row, whole) for row in members))
        for column, members in groupby(rows, key=lambda row: row.column)
    )


def subgroup_table(rows: tuple[SubgroupRow, ...]) -> tuple[tuple[str, ...], ...]:
    """The numbers behind the plot, each row as long as `HEADER`."""
    return tuple(_table_row(row) for row in rows)


def _drawn_row(row: SubgroupRow, whole: SubgroupRow | None) -> DrawnRow:
    return DrawnRow(row, tuple(_cell(panel, row, whole) for panel in PANELS))


def _cell(panel: _Panel, row: SubgroupRow, whole: SubgroupRow | None) -> DrawnCell:
    measured: Measured = getattr(row, panel.field)
    everyone = Measured() if whole is None or not row.column else getattr(whole, panel.field)
    value, interval = _texts(panel, measured)
    return DrawnCell(
        title=panel.title,
        bar=interval_bar(measured, panel.scale),
        reference=interval_bar(everyone, panel.scale).dot,
        text=value,
        words=f"{panel.title} {value}" + (f", 95 % interval {interval}" if interval else ""),
    )


def _texts(panel: _Panel, measured: Measured) -> tuple[str, str]:
    """Value and interval in the unit of the panel; "" for a missing interval."""
    if panel.scale == UNIT:
        return percent_text(measured.value), percent_interval(measured)
    low, high = number_text(measured.ci_low), number_text(measured.ci_high)
    return number_text(measured.value), "" if "not defined" in (low, high) else f"{low} to {high}"


def _table_row(row: SubgroupRow) -> tuple[str, ...]:
    name = f"{row.column}: {row.group}" if row.column else row.group
    cells = [text or "-" for p in PANELS for text in _texts(p, getattr(row, p.field))]
    return (name, f"{row.n:,}", f"{row.n_sick:,}", *cells, row.warning)
