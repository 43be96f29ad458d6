"""A contact sheet: a few films side by side with a caption under each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_CELL_IN = 1.75
_GAP_IN = 0.12
_LINE_IN = 0.19
_CAPTION_COLUMNS = 22
_CAPTION_LINES = 3


def sheet_figure(
    images: NDArray[np.uint8], captions: Sequence[str], *, columns: int = 5, title: str = "Films"
) -> Figure:
    """Films in reading order, black at 0 and white at 255 in all of them.

    Args:
        images: Films, shape (n, S, S) uint8, n at least 1.
        captions: One text per film; up to three lines of 22 characters each, the rest is cut.
        columns: Films per row.
        title: Heading; the number of films is added.

    Raises:
        ValueError: No film, another shape or type, or not one caption per film.
    """
    n = len(images)
    if images.ndim != 3 or images.dtype != np.uint8 or n == 0 or len(captions) != n or columns < 1:
        raise ValueError(
            f"want (n, S, S) uint8 films with n captions, got {images.shape} {images.dtype} "
            f"with {len(captions)} captions in {columns} columns"
        )
    lines = [
        [words.shortened(line, _CAPTION_COLUMNS) for line in caption.splitlines()[:_CAPTION_LINES]]
        for caption in captions
    ]
    columns = min(columns, n)
    step_in = _CELL_IN + _GAP_IN
    row_in = step_in + _LINE_IN * max(len(caption) for caption in lines) + 0.06
    width_in = max(columns * step_in - _GAP_IN + 0.5, 4.0)
    body_in = math.ceil(n / columns) * row_in
    height_in = body_in + 0.75
    figure = canvas.new_figure(
        width_in, height_in, title, f"{n} film{'' if n == 1 else 's'}, grey 0 to 255"
    )
    # One pair of axes in inches for all films is many times faster than one pair for each.
    axes = canvas.new_axes(figure, (0.0, 0.0, width_in, body_in), "", "")
    axes.set_axis_off()
    for position, (image, caption) in enumerate(zip(images, lines, strict=True)):
        row, column = divmod(position, columns)
        left, top = 0.25 + column * step_in, body_in - row * row_in
        axes.imshow(
            image,
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="antialiased",
            aspect="auto",
            extent=(left, left + _CELL_IN, top - _CELL_IN, top),
        )
        canvas.write(
            axes,
            left,
            top - _CELL_IN - 0.05,
            "\n".join(caption),
            ha="left",
            va="top",
            size_pt=9.0,
            in_axes=False,
        )
    axes.set_xlim(0, width_in)
    axes.set_ylim(0, body_in)
    return figure
