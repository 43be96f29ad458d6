"""The paper that every figure is drawn on: sizes, colours, fonts and PNG bytes.

Nothing here touches `pyplot` or the global `rcParams`, so figures may be drawn from any thread.
Colours are those of Okabe & Ito, told apart by colour-blind readers (doi:10.1038/nmeth.1618);
each line also has its own dash, so that a grey print stays readable.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Literal, ParamSpec

import numpy as np

from xray_classifier.report import words

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from numpy.typing import ArrayLike, NDArray

Arguments = ParamSpec("Arguments")
Corner = Literal["upper left", "upper right", "lower left", "lower right"]

BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
INK = "#1A1A1A"
SOFT_INK = "#4D4D4D"
GRID = "#DDDDDD"
PAPER = "#FFFFFF"
SUBTITLE_LINE_IN = 0.22

_DPI = 160
_FAMILY = "DejaVu Sans"
_TITLE_PT, _LABEL_PT, _TICK_PT = 13.0, 11.0, 10.0
_SQUARE_IN = (6.4, 6.4)
_SQUARE_BOX_IN = (0.9, 0.72, 5.2, 4.75)
_MARGIN_IN = 0.25
_CHARACTERS_PER_IN = 12.0


def new_figure(width_in: float, height_in: float, title: str, subtitle: str = "") -> Figure:
    """An empty white sheet with a heading.

    Args:
        width_in: Width in inches; 160 pixels each.
        height_in: Height in inches.
        title: One line, top left, bold.
        subtitle: Smaller text below; each line is cut to the width of the sheet.

    Returns:
        A figure on an Agg canvas, known to nobody else.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, facecolor=PAPER, edgecolor=PAPER)
    FigureCanvasAgg(figure)
    left, top = _MARGIN_IN / width_in, 1 - 0.18 / height_in
    figure.text(
        left,
        top,
        words.drawable(title),
        va="top",
        color=INK,
        parse_math=False,
        fontproperties=font(_TITLE_PT, bold=True),
    )
    columns = int((width_in - 2 * _MARGIN_IN) * _CHARACTERS_PER_IN)
    for row, line in enumerate(subtitle.splitlines()):
        figure.text(
            left,
            1 - (0.47 + row * SUBTITLE_LINE_IN) / height_in,
            words.shortened(words.drawable(line), columns),
            va="top",
            color=SOFT_INK,
            parse_math=False,
            fontproperties=font(_TICK_PT),
        )
    return figure


def new_axes(
    figure: Figure, box_in: tuple[float, float, float, float], x_label: str, y_label: str
) -> Axes:
    """Axes in the house style.

    Args:
        figure: The sheet.
        box_in: Left, bottom, width, height in inches from the lower left corner.
        x_label: What runs to the right, with its unit; "" writes none.
        y_label: What runs upwards, with its unit.
    """
    width_in, height_in = figure.get_size_inches()
    left, bottom, width, height = box_in
    axes = figure.add_axes(
        (left / width_in, bottom / height_in, width / width_in, height / height_in),
        facecolor=PAPER,
    )
    axes.set_xlabel(
        words.drawable(x_label), color=INK, fontproperties=font(_LABEL_PT), parse_math=False
    )
    axes.set_ylabel(
        words.drawable(y_label), color=INK, fontproperties=font(_LABEL_PT), parse_math=False
    )
    axes.tick_params(
        colors=SOFT_INK, labelsize=_TICK_PT, labelfontfamily=_FAMILY, labelcolor=INK, width=0.8
    )
    axes.grid(True, color=GRID, linewidth=0.7, linestyle="-")
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(SOFT_INK)
        spine.set_linewidth(0.8)
    return axes


def unit_axes(axes: Axes, *, x: bool = True, y: bool = True) -> None:
    """Let an axis run from 0 to 1 with a tick every 0.2 and a sliver of room for the line."""
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    labels = [f"{tick:.1f}" for tick in ticks]
    if x:
        axes.set_xlim(-0.015, 1.015)
        axes.set_xticks(ticks, labels)
    if y:
        axes.set_ylim(-0.015, 1.015)
        axes.set_yticks(ticks, labels)


def add_legend(axes: Axes, corner: Corner) -> None:
    """Name the drawn lines in a box in a corner of the axes."""
    legend = axes.legend(
        loc=corner,
        framealpha=0.92,
        facecolor=PAPER,
        edgecolor=GRID,
        fancybox=False,
        labelcolor=INK,
        prop=font(_TICK_PT),
        handlelength=2.6,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def add_legend_above(axes: Axes, columns: int) -> None:
    """Name the drawn lines in one row above the axes, where no line can run below it."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        frameon=False,
        labelcolor=INK,
        prop=font(_TICK_PT),
        borderaxespad=0.2,
        handlelength=2.6,
    )


def write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    ha: str = "center",
    va: str = "center",
    size_pt: float = _TICK_PT,
    bold: bool = False,
    color: str = INK,
    in_axes: bool = True,
) -> None:
    """Put words at a point: in fractions of the axes, or in data units if `in_axes` is False."""
    axes.text(
        x,
        y,
        words.drawable(text),
        ha=ha,
        va=va,
        color=color,
        parse_math=False,
        fontproperties=font(size_pt, bold=bold),
        transform=axes.transAxes if in_axes else axes.transData,
    )


def as_png(draw: Callable[Arguments, Figure]) -> Callable[Arguments, bytes]:
    """Turn a function that draws a figure into one that gives the finished PNG file.

    Equal drawings give equal bytes with one version of matplotlib.
    """

    @functools.wraps(draw)
    def png(*args: Arguments.args, **kwargs: Arguments.kwargs) -> bytes:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        buffer = io.BytesIO()
        canvas = FigureCanvasAgg(draw(*args, **kwargs))
        canvas.print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
        return buffer.getvalue()

    return png


def font(size_pt: float, *, bold: bool = False) -> FontProperties:
    """The one font, which travels with matplotlib."""
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=_FAMILY, size=size_pt, weight="bold" if bold else "normal")


def square_axes(title: str, subtitle: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """A square sheet with one pair of axes."""
    figure = new_figure(*_SQUARE_IN, title, subtitle)
    axes = new_axes(figure, _SQUARE_BOX_IN, x_label, y_label)
    return figure, axes


def pair(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two arrays of one shape (n,)."""
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"the arrays must share one shape (n,), got {first.shape}, {second.shape}")
    return first, second
