"""How the AUROC falls as films get worse: one small chart per kind of change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xray_classifier.report import canvas, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 2
_WIDTH_IN = 6.4
_LEFT_IN, _GAP_IN, _RIGHT_IN = 0.68, 0.5, 0.2
_PANEL_IN = (2.55, 1.15)
_ROW_IN = 2.0
_HEAD_IN = 0.95
_FOOT_IN = 0.1
_LOWEST = 0.45


class StressPanel(NamedTuple):
    """One kind of change.

    Args:
        name: Heading of the chart.
        unit: What its axis counts.
        ticks: One strength per place, weak to strong.
        aurocs: AUROC at each, in [0, 1]; NaN where undefined.
        lows: Lower ends of the 95 % intervals; NaN without one.
        highs: Upper ends.
    """

    name: str
    unit: str
    ticks: tuple[str, ...]
    aurocs: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


def stress_figure(
    panels: Sequence[StressPanel],
    *,
    unchanged: float | None,
    robustness: float | None,
    ci: Sequence[float | None] | None = None,
    n_sick: int,
    n_healthy: int,
    split: str | None = None,
) -> Figure:
    """AUROC against the strength of each change, the most harmful change first.

    Args:
        panels: The kinds of change, at least one.
        unchanged: AUROC on the films as they are; None or NaN where undefined.
        robustness: Mean AUROC over all changes and strengths.
        ci: Ends of its 95 % interval, or None.
        n_sick: Sick images that were tried.
        n_healthy: Healthy images that were tried.
        split: Name of the split, or None.

    Raises:
        ValueError: There is no panel, or one whose columns differ in length.
    """
    _check(panels)
    before = math.nan if unchanged is None else unchanged
    score = f"mean AUROC {words.number_text(robustness)}{words.interval_text(ci)}"
    rows = math.ceil(len(panels) / _COLUMNS)
    height_in = _HEAD_IN + rows * _ROW_IN + _FOOT_IN
    figure = canvas.new_figure(
        _WIDTH_IN,
        height_in,
        "Stress test: AUROC as films get worse",
        f"{words.counted(split, n_sick, n_healthy)}\n"
        f"{score}; dashed: unchanged, {words.number_text(before)}",
    )
    floor = _floor(panels, before)
    for place, panel in enumerate(sorted(panels, key=_lowest)):
        row, column = divmod(place, _COLUMNS)
        left_in = _LEFT_IN + column * (_PANEL_IN[0] + _GAP_IN)
        bottom_in = height_in - _HEAD_IN - (row + 1) * _ROW_IN + (_ROW_IN - _PANEL_IN[1] - 0.28)
        axes = canvas.new_axes(figure, (left_in, bottom_in, *_PANEL_IN), panel.unit, "")
        _draw(axes, panel, before, floor, worst=place == 0)
    return figure


def _check(panels: Sequence[StressPanel]) -> None:
    if not panels:
        raise ValueError("a stress figure needs at least one panel")
    for panel in panels:
        if len({len(column) for column in panel[2:]}) != 1:
            raise ValueError(f"panel {panel.name!r}: its columns differ in length")


def _lowest(panel: StressPanel) -> float:
    """The lowest AUROC of a change; changes without one come last."""
    defined = [value for value in panel.aurocs if not math.isnan(value)]
    return min(defined, default=math.inf)


def _floor(panels: Sequence[StressPanel], before: float) -> float:
    """Where the AUROC axes of all charts begin: a round number below everything drawn."""
    drawn = [before, *(value for panel in panels for value in (*panel.aurocs, *panel.lows))]
    lowest = min((value for value in drawn if not math.isnan(value)), default=_LOWEST)
    return max(0.0, math.floor(lowest * 10 - 0.2) / 10)


def _draw(axes: Axes, panel: StressPanel, before: float, floor: float, *, worst: bool) -> None:
    color = canvas.VERMILLION if worst else canvas.BLUE
    x = np.arange(1, len(panel.ticks) + 1)
    y, low, high = (np.array(column, np.float64) for column in panel[3:])
    if not math.isnan(before):
        axes.axhline(before, color=canvas.SOFT_INK, linestyle=(0, (4, 3)), linewidth=1.2)
    if floor < 0.5:
        axes.axhline(0.5, color=canvas.SOFT_INK, linestyle=(0, (1, 2)), linewidth=1.2)
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(x, y, color=color, linewidth=2.2, marker="o", markersize=5)
    axes.set_xlim(0.7, len(panel.ticks) + 0.3)
    axes.set_xticks(x, panel.ticks)
    axes.set_ylim(floor, 1.0 + 0.02 * (1.0 - floor))
    axes.grid(False, axis="x")
    canvas.write(axes, 0.0, 1.08, panel.name, ha="left", va="bottom", size_pt=11, bold=True)
    last = "undefined" if math.isnan(y[-1]) else f"{y[-1]:.2f} at {panel.ticks[-1]}"
    canvas.write(axes, 1.0, 1.08, last, ha="right", va="bottom", size_pt=10, color=color)
