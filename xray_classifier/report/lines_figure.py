"""Several runs on one picture: one line each, told apart by colour and by dash."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xray_classifier.report import canvas

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

LOOKS = (
    (canvas.BLUE, "-"),
    (canvas.VERMILLION, (0, (5, 1.5))),
    (canvas.GREEN, (0, (1.2, 1.2))),
    ("#CC79A7", (0, (5, 1.5, 1.2, 1.5))),
    ("#56B4E9", (0, (8, 2))),
)
"""Colours of Okabe & Ito and a dash for each, in the order of the lines."""

_SIZE_IN = (9.0, 4.9)
_BOX_IN = (0.95, 0.7, 7.8, 2.95)


class Line(NamedTuple):
    """One line of the picture.

    Args:
        label: What the legend calls it.
        x: Where, shape (n,).
        y: Values, shape (n,); what is not finite leaves a gap.
        pair: Lines of one pair number share a colour; the second of them is dashed.
    """

    label: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    pair: int | None = None


def lines_figure(
    lines: Sequence[Line],
    *,
    title: str,
    subtitle: str = "",
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    level: tuple[float, str] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Draw lines against a common axis.

    Args:
        lines: At most as many as there are `LOOKS`, each pair counting once.
        title: One line.
        subtitle: Smaller, below.
        x_label: With its unit.
        y_label: With its unit.
        y_range: What the axis shows; lines leave it above or below. None shows all.
        level: A value to mark with a horizontal line, and its name.
        marks: Places to mark with a vertical line, each with its word.
    """
    figure = canvas.new_figure(*_SIZE_IN, title, subtitle)
    axes = canvas.new_axes(figure, _BOX_IN, x_label, y_label)
    seen: list[int] = []
    for number, line in enumerate(lines):
        key = number if line.pair is None else line.pair
        color, dash = LOOKS[key % len(LOOKS)]
        if line.pair is not None:
            dash = "-" if key not in seen else (0, (5, 1.5))
        seen.append(key)
        axes.plot(line.x, line.y, color=color, linestyle=dash, linewidth=2.0, label=line.label)
    if y_range is not None:
        axes.set_ylim(*y_range)
    if level is not None:
        _draw_level(axes, *level, float(lines[0].x[-1]))
    _draw_marks(axes, marks)
    canvas.add_legend_above(axes, 2 if len(lines) in (2, 4) else 3)
    return figure


def _draw_level(axes: Axes, value: float, name: str, x: float) -> None:
    """A dashed line across, its name above it, ending at `x`."""
    axes.axhline(value, color=canvas.SOFT_INK, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.annotate(
        name,
        (x, value),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=canvas.INK,
        fontproperties=canvas.font(10),
    )


def _draw_marks(axes: Axes, marks: Sequence[tuple[float, str]]) -> None:
    """Lines upwards, each with its word at its own height."""
    for number, (place, word) in enumerate(marks):
        axes.axvline(place, color=canvas.SOFT_INK, linewidth=1.2, linestyle="-", zorder=1.5)
        axes.annotate(
            word,
            (place, 0.97 - 0.09 * number),
            xycoords=("data", "axes fraction"),
            xytext=(5, 0),
            textcoords="offset points",
            va="top",
            color=canvas.INK,
            fontproperties=canvas.font(10),
            bbox={"facecolor": canvas.PAPER, "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
        )
