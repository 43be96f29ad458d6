"""The first weights of a network as pictures: blue is negative, vermillion positive."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas
from xray_classifier.report.number_grid import signed_shades

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLUMNS = 4
MOST = 16
"""Units that are shown, the first of the layer: the same places from picture to picture."""

_CELL_IN, _GAP_IN, _SIDE_IN = 1.9, 0.14, 0.25
_HEAD_IN = 0.8


def weights_figure(weights: NDArray[np.float64], *, title: str = "First weights") -> Figure:
    """A picture for each unit, all on one scale.

    Args:
        weights: (units, side, side); of more than `MOST` units the first are shown.
        title: One line.

    Raises:
        ValueError: No unit, or no square pictures.
    """
    if weights.ndim != 3 or not len(weights) or weights.shape[1] != weights.shape[2]:
        raise ValueError(f"want (units, side, side), got {weights.shape}")
    shown = weights[:MOST]
    columns = min(COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    step_in = _CELL_IN + _GAP_IN
    width_in = max(columns * step_in - _GAP_IN + 2 * _SIDE_IN, 4.6)
    height_in = lines * step_in + _HEAD_IN + 0.1
    strongest = float(np.abs(shown).max())
    words = f"{len(shown)} of {len(weights)} units, strongest weight {strongest:.3g}"
    figure = canvas.new_figure(width_in, height_in, title, words)
    shades = signed_shades(shown, strongest)
    axes = canvas.new_axes(figure, (0.0, 0.0, width_in, height_in - _HEAD_IN), "", "")
    axes.set_axis_off()
    for place, picture in enumerate(shades):
        line, column = divmod(place, columns)
        left = _SIDE_IN + column * step_in
        top = height_in - _HEAD_IN - line * step_in
        extent = (left, left + _CELL_IN, top - _CELL_IN, top)
        axes.imshow(picture, interpolation="nearest", aspect="auto", extent=extent)
    axes.set_xlim(0, width_in)
    axes.set_ylim(0, height_in - _HEAD_IN)
    return figure
