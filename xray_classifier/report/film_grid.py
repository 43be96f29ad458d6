"""Pictures in rows and columns on one sheet: films, weights, and films with colour laid over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas, words
from xray_classifier.report.colour_scale import two_sided

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

CELL_IN = 1.5
_GAP_IN = 0.14
_LINE_IN = 0.185
_CAPTION_COLUMNS = 19
_FULL = 99.5
"""Percentile of a map's sizes that gets the full colour: one pixel alone shall not dim the rest."""
_OPACITY = 0.8


class Grid:
    """A sheet of square cells with a heading over each column and a caption under each cell.

    Args:
        rows: Number of rows.
        columns: Heading of each column; up to two lines.
        title: Heading of the sheet.
        subtitle: Smaller text below.
        caption_lines: Lines of text under each cell.
    """

    def __init__(
        self, rows: int, columns: Sequence[str], title: str, subtitle: str, caption_lines: int
    ) -> None:
        self.step_in = CELL_IN + _GAP_IN
        self.row_in = self.step_in + _LINE_IN * caption_lines + 0.04
        lines = subtitle.count("\n") + 1
        heads = max(column.count("\n") + 1 for column in columns) if any(columns) else 0
        self.width_in = max(len(columns) * self.step_in - _GAP_IN + 0.5, 6.4)
        self.body_in = rows * self.row_in + _LINE_IN * heads + 0.05
        height_in = self.body_in + 0.62 + canvas.SUBTITLE_LINE_IN * lines
        self.figure: Figure = canvas.new_figure(self.width_in, height_in, title, subtitle)
        # One pair of axes in inches for all cells is many times faster than one pair for each.
        box = (0.0, 0.0, self.width_in, self.body_in)
        self.axes: Axes = canvas.new_axes(self.figure, box, "", "")
        self.axes.set_axis_off()
        self.axes.set_xlim(0, self.width_in)
        self.axes.set_ylim(0, self.body_in)
        self.top_in = self.body_in - _LINE_IN * heads - 0.05
        for number, column in enumerate(columns):
            canvas.write(
                self.axes, 0.25 + number * self.step_in, self.top_in + 0.05, column, ha="left",
                va="bottom", size_pt=9.5, bold=True, in_axes=False,
            )  # fmt: skip

    def extent(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of a cell in inches."""
        left, top = 0.25 + column * self.step_in, self.top_in - row * self.row_in
        return left, left + CELL_IN, top - CELL_IN, top

    def film(self, row: int, column: int, image: NDArray[np.uint8]) -> None:
        """Draw a film (S, S), black at 0 and white at 255."""
        self.axes.imshow(
            image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased", aspect="auto",
            extent=self.extent(row, column),
        )  # fmt: skip

    def weights(self, row: int, column: int, values: NDArray[np.floating]) -> None:
        """Draw numbers (p, p) on a symmetric scale of their own: blue, white at 0, vermillion."""
        limit = float(np.abs(values).max()) or 1.0
        self.axes.imshow(
            values, cmap=two_sided(), vmin=-limit, vmax=limit, interpolation="nearest",
            aspect="auto", extent=self.extent(row, column),
        )  # fmt: skip

    def evidence(self, row: int, column: int, heat: NDArray[np.floating]) -> None:
        """Lay a map (S, S) over the film of a cell, as colour that is clear where it is small."""
        limit = float(np.percentile(np.abs(heat), _FULL)) or float(np.abs(heat).max()) or 1.0
        share = np.clip(heat / limit, -1.0, 1.0)
        self.axes.imshow(
            np.sign(share), cmap=two_sided(), vmin=-1, vmax=1, alpha=_OPACITY * np.abs(share),
            interpolation="nearest", aspect="auto", extent=self.extent(row, column),
        )  # fmt: skip

    def outline(self, row: int, column: int, mask: NDArray[np.bool_]) -> None:
        """Draw the border of a region (S, S) in green."""
        left, right, bottom, top = self.extent(row, column)
        n = len(mask)
        centres = (np.arange(n) + 0.5) / n
        self.axes.contour(
            left + centres * (right - left), top - centres * (top - bottom),
            mask.astype(np.float64), [0.5], colors=["#4BE3B0"], linewidths=1.3,
        )  # fmt: skip

    def square(self, row: int, column: int, box: tuple[float, float, float]) -> None:
        """Frame a part of a cell: top, left and side as shares of the cell."""
        from matplotlib.patches import Rectangle

        left, right, bottom, top = self.extent(row, column)
        down, across, side = box
        self.axes.add_patch(
            Rectangle(
                (left + across * (right - left), top - (down + side) * (top - bottom)),
                side * (right - left), side * (top - bottom), fill=False,
                edgecolor=canvas.VERMILLION, linewidth=1.8,
            )
        )  # fmt: skip

    def caption(self, row: int, column: int, text: str) -> None:
        """Write under a cell; each line is cut to its width."""
        left, _, bottom, _ = self.extent(row, column)
        lines = [words.shortened(line, _CAPTION_COLUMNS) for line in text.splitlines()]
        canvas.write(
            self.axes, left, bottom - 0.04, "\n".join(lines), ha="left", va="top", size_pt=8.5,
            in_axes=False,
        )  # fmt: skip
