"""Small pictures with a number in each pixel: an image, the weights on it, and their products."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xray_classifier.report import canvas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_GRID_IN, _GAP_IN, _LEFT_IN, _BOTTOM_IN = 2.55, 0.5, 0.3, 0.35
_HEAD_IN = 1.15
DARK_SHARE = 0.45
"""Cells darker than this share of white carry white digits."""


class NumberGrid(NamedTuple):
    """One square of numbers.

    Args:
        title: Above it.
        values: (side, side).
        grey: Whether 0 to 1 is black to white; else blue is negative and vermillion positive.
        sign: What stands between it and the next square, such as a plus.
    """

    title: str
    values: NDArray[np.float64]
    grey: bool
    sign: str = ""


def grids_figure(grids: Sequence[NumberGrid], *, title: str, subtitle: str = "") -> Figure:
    """Squares in a row, a number in each cell.

    Args:
        grids: From left to right.
        title: One line.
        subtitle: Smaller, below; may have several lines.
    """
    n = len(grids)
    width_in = 2 * _LEFT_IN + n * _GRID_IN + (n - 1) * _GAP_IN
    height_in = _BOTTOM_IN + _GRID_IN + _HEAD_IN + canvas.SUBTITLE_LINE_IN * subtitle.count("\n")
    figure = canvas.new_figure(width_in, height_in, title, subtitle)
    for number, grid in enumerate(grids):
        left_in = _LEFT_IN + number * (_GRID_IN + _GAP_IN)
        axes = canvas.new_axes(figure, (left_in, _BOTTOM_IN, _GRID_IN, _GRID_IN), "", "")
        axes.set_axis_off()
        axes.set_xlim(-0.5, grid.values.shape[1] - 0.5)
        axes.set_ylim(grid.values.shape[0] - 0.5, -0.5)
        shades = _shades(grid)
        axes.imshow(shades, interpolation="nearest")
        for (row, column), value in np.ndenumerate(grid.values):
            dark = float(shades[row, column] @ (0.299, 0.587, 0.114)) < DARK_SHARE
            canvas.write(
                axes,
                column,
                row,
                _two_decimals(value, signed=not grid.grey),
                color=canvas.PAPER if dark else canvas.INK,
                size_pt=10.5,
                in_axes=False,
            )
        canvas.write(axes, 0.0, 1.03, grid.title, ha="left", va="bottom", bold=True)
        if grid.sign:
            place = 1 + _GAP_IN / _GRID_IN / 2
            canvas.write(axes, place, 0.5, grid.sign, size_pt=18.0, bold=True)
    return figure


def _two_decimals(value: float, *, signed: bool) -> str:
    """0.25, or +0.25; a zero has no sign."""
    text = f"{value:+.2f}" if signed else f"{value:.2f}"
    return text.lstrip("+-") if float(text) == 0 else text


def _shades(grid: NumberGrid) -> NDArray[np.float64]:
    """Red, green and blue of each cell in [0, 1], shape (side, side, 3)."""
    if grid.grey:
        return np.repeat(np.clip(grid.values, 0.0, 1.0)[..., None], 3, axis=2)
    return signed_shades(grid.values, float(np.abs(grid.values).max()))


def signed_shades(values: NDArray[np.float64], strongest: float) -> NDArray[np.float64]:
    """White at 0, towards blue below it and towards vermillion above.

    Args:
        values: Any shape.
        strongest: The absolute value that gets the full colour; 0 leaves all white.

    Returns:
        Red, green and blue in [0, 1], of the same shape with one more axis of 3.
    """
    share = 0.75 * np.clip(np.abs(values)[..., None] / (strongest or 1.0), 0.0, 1.0)
    blue, red = np.array((0.0, 0.447, 0.698)), np.array((0.835, 0.369, 0.0))
    shades: NDArray[np.float64] = 1.0 - share * (1.0 - np.where(values[..., None] < 0, blue, red))
    return shades
