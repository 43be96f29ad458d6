"""Colours that stand for numbers: a scale with a middle, one without, and the bar beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xray_classifier.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap, LinearSegmentedColormap
    from matplotlib.figure import Figure

RISING = "cividis"
"""From low to high, the same to colour-blind readers (doi:10.1371/journal.pone.0199239)."""


def two_sided() -> LinearSegmentedColormap:
    """Blue below 0, white at 0, vermillion above: for numbers on a symmetric scale."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "two_sided", [canvas.BLUE, canvas.PAPER, canvas.VERMILLION]
    )


def rising() -> Colormap:
    """Dark where low, light where high."""
    from matplotlib import colormaps

    return colormaps[RISING]


def colour_bar(
    figure: Figure,
    drawn: ScalarMappable,
    box_in: tuple[float, float, float, float],
    label: str,
    ticks: list[float] | None = None,
) -> Axes:
    """A bar that says which colour is which number.

    Args:
        figure: The sheet.
        drawn: What carries the colours.
        box_in: Left, bottom, width, height in inches from the lower left corner.
        label: What the numbers are.
        ticks: Where to write numbers; None leaves that to matplotlib.
    """
    axes = canvas.new_axes(figure, box_in, "", "")
    bar = figure.colorbar(drawn, cax=axes)
    bar.outline.set_visible(False)
    if ticks is not None:
        bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
        bar.minorticks_off()
    axes.grid(False)
    axes.set_ylabel(label, color=canvas.INK, fontproperties=canvas.font(10), parse_math=False)
    axes.tick_params(labelsize=9, labelfontfamily="DejaVu Sans", labelcolor=canvas.INK)
    return axes
