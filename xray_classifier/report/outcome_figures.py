"""What came out: the confusion matrix, or predicted against true values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

_CONFUSION_BLUES = ("#F2F7FB", "#8FBFE0")


def matrix_figure(tp: int, fp: int, tn: int, fn: int, *, threshold: float, split: str) -> Figure:
    """The confusion matrix in words: counts, and the share of each row.

    Args:
        tp: Sick images called sick.
        fp: Healthy images called sick.
        tn: Healthy images called healthy.
        fn: Sick images called healthy.
        threshold: Smallest probability that is called sick.
        split: Name of the split.
    """
    figure = canvas.new_figure(
        6.4,
        5.6,
        "Confusion matrix",
        f"{words.named(split)}{tp + fp + tn + fn:,} images; "
        f"sick where p_sick >= {words.threshold_text(threshold)}",
    )
    axes = canvas.new_axes(figure, (1.35, 0.85, 4.75, 3.8), "decision", "truth")
    rows = (
        ("healthy", ((tn, "correct"), (fp, "false alarm"))),
        ("sick", ((fn, "missed"), (tp, "correct"))),
    )
    for row, (_, cells) in enumerate(rows):
        total = sum(count for count, _ in cells)
        for column, (count, meaning) in enumerate(cells):
            share = count / total if total else math.nan
            _draw_cell(axes, column, row, count, share, meaning)
    axes.grid(False)
    axes.set_xlim(0, 2)
    axes.set_ylim(2, 0)
    axes.set_xticks([0.5, 1.5], ["called healthy", "called sick"])
    names = [f"{name}\nn = {sum(count for count, _ in cells):,}" for name, cells in rows]
    axes.set_yticks([0.5, 1.5], names)
    axes.tick_params(length=0, labelsize=11)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def regression_figure(
    targets: ArrayLike,
    predictions: ArrayLike,
    *,
    mse: float | None = None,
    mae: float | None = None,
    r2: float | None = None,
    quantity: str = "target",
    split: str | None = None,
) -> Figure:
    """Predicted against true value of each image, with the line on which both are equal.

    Args:
        targets: True values, shape (n_images,), in the unit of the CSV column.
        predictions: Predicted values, shape (n_images,), in the same unit.
        mse: Mean squared error, or None.
        mae: Mean absolute error, or None.
        r2: Coefficient of determination, or None.
        quantity: Name of the CSV column, with its unit if known.
        split: Name of the split, or None.

    Raises:
        ValueError: `targets` and `predictions` differ in shape.
    """
    x, y = canvas.pair(targets, predictions)
    scores = ", ".join(
        f"{name} {words.number_text(value)}"
        for name, value in (("R²", r2), ("MAE", mae), ("MSE", mse))
        if value is not None
    )
    figure, axes = canvas.square_axes(
        "Predicted against true value",
        f"{words.named(split)}{x.size:,} images" + (f"; {scores}" if scores else ""),
        f"true {quantity}",
        f"predicted {quantity}",
    )
    both = np.concatenate([x, y])
    both = both[np.isfinite(both)]
    low, high = (float(both.min()), float(both.max())) if both.size else (0.0, 1.0)
    pad = 0.04 * (high - low) or max(abs(high), 1.0) * 0.1
    axes.plot(
        [low - pad, high + pad],
        [low - pad, high + pad],
        color=canvas.SOFT_INK,
        linestyle=(0, (2, 3)),
        linewidth=1.2,
        label="equal",
    )
    axes.plot(
        x,
        y,
        linestyle="none",
        marker="o",
        markersize=4.5,
        markerfacecolor=canvas.BLUE,
        markeredgecolor="none",
        alpha=0.8 if x.size <= 300 else 0.35,
        label=f"images (n = {x.size:,})",
    )
    axes.set_xlim(low - pad, high + pad)
    axes.set_ylim(low - pad, high + pad)
    canvas.add_legend(axes, "upper left")
    return figure


def _draw_cell(axes: Axes, column: int, row: int, count: int, share: float, meaning: str) -> None:
    """One cell: the fuller its row share, the deeper its blue; black text throughout."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    blues = LinearSegmentedColormap.from_list("", _CONFUSION_BLUES)
    color = "#F4F4F4" if math.isnan(share) else blues(share)
    axes.add_patch(
        Rectangle((column, row), 1, 1, facecolor=color, edgecolor=canvas.PAPER, linewidth=4)
    )
    percent = "no image" if math.isnan(share) else f"{100 * share:.1f} % of the row"
    x = column + 0.5
    canvas.write(axes, x, row + 0.36, f"{count:,}", size_pt=22.0, bold=True, in_axes=False)
    canvas.write(axes, x, row + 0.60, percent, size_pt=11.0, in_axes=False)
    canvas.write(axes, x, row + 0.75, meaning, size_pt=11.0, in_axes=False)
