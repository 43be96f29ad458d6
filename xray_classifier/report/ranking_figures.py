"""How well the scores rank: the ROC and the precision-recall curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray


def roc_figure(
    fpr: ArrayLike,
    tpr: ArrayLike,
    *,
    auroc: float | None,
    ci: Sequence[float | None] | None = None,
    n_sick: int,
    n_healthy: int,
    operating_point: tuple[float, float] | None = None,
    threshold: float | None = None,
    split: str | None = None,
) -> Figure:
    """Sensitivity against the false positive rate over all thresholds.

    Args:
        fpr: False positive rate, 1 - specificity, shape (n_points,), in [0, 1].
        tpr: Sensitivity at the same thresholds, shape (n_points,), in [0, 1].
        auroc: Area under the curve, None or NaN where it is not defined.
        ci: Ends of its 95 % interval, or None.
        n_sick: Sick images in the split.
        n_healthy: Healthy images in the split.
        operating_point: (false positive rate, sensitivity) at `threshold`, or None.
        threshold: The stored threshold, a probability, or None.
        split: Name of the split, or None.

    Raises:
        ValueError: `fpr` and `tpr` differ in shape.
    """
    x, y = canvas.pair(fpr, tpr)
    figure, axes = canvas.square_axes(
        "ROC curve",
        words.counted(split, n_sick, n_healthy),
        "false positive rate, 1 - specificity (fraction of healthy)",
        "sensitivity (fraction of sick)",
    )
    canvas.unit_axes(axes)
    axes.plot(
        [0, 1],
        [0, 1],
        color=canvas.SOFT_INK,
        linestyle=(0, (2, 3)),
        linewidth=1.2,
        label="chance (AUROC 0.5)",
    )
    label = f"AUROC {words.number_text(auroc)}{words.interval_text(ci)}"
    axes.plot(x, y, color=canvas.BLUE, linewidth=2.2, label=label)
    if operating_point is not None:
        false_positive, sensitivity = operating_point
        reached = f"sensitivity {sensitivity:.3f}, specificity {1 - false_positive:.3f}"
        _operating_point(axes, operating_point, threshold, reached)
    _say_if_undefined(axes, y, "one class only: no ROC curve")
    canvas.add_legend(axes, "lower right")
    return figure


def pr_figure(
    recall: ArrayLike,
    precision: ArrayLike,
    *,
    average_precision: float | None,
    ci: Sequence[float | None] | None = None,
    n_sick: int,
    n_healthy: int,
    operating_point: tuple[float, float] | None = None,
    threshold: float | None = None,
    split: str | None = None,
) -> Figure:
    """Precision against recall, above the prevalence that a blind guess would reach.

    The curve is drawn in steps: points between two thresholds cannot be reached
    (Davis & Goadrich 2006, doi:10.1145/1143844.1143874).

    Args:
        recall: Sensitivity, shape (n_points,), in [0, 1], in either order.
        precision: PPV at the same thresholds, shape (n_points,), in [0, 1].
        average_precision: Area under the steps, None or NaN where it is not defined.
        ci: Ends of its 95 % interval, or None.
        n_sick: Sick images in the split.
        n_healthy: Healthy images in the split.
        operating_point: (recall, precision) at `threshold`, or None.
        threshold: The stored threshold, a probability, or None.
        split: Name of the split, or None.

    Raises:
        ValueError: `recall` and `precision` differ in shape.
    """
    x, y = canvas.pair(recall, precision)
    figure, axes = canvas.square_axes(
        "Precision and recall",
        words.counted(split, n_sick, n_healthy),
        "recall = sensitivity (fraction of sick)",
        "precision = PPV (fraction of calls of sick)",
    )
    canvas.unit_axes(axes)
    label = f"average precision {words.number_text(average_precision)}{words.interval_text(ci)}"
    rising = x.size < 2 or x[0] <= x[-1]
    axes.plot(
        x,
        y,
        color=canvas.BLUE,
        linewidth=2.2,
        label=label,
        drawstyle="steps-pre" if rising else "steps-post",
    )
    if n_sick + n_healthy:
        prevalence = n_sick / (n_sick + n_healthy)
        axes.axhline(
            prevalence,
            color=canvas.SOFT_INK,
            linestyle=(0, (2, 3)),
            linewidth=1.2,
            label=f"blind guess (prevalence {prevalence:.3f})",
        )
    if operating_point is not None:
        reached = f"recall {operating_point[0]:.3f}, precision {operating_point[1]:.3f}"
        _operating_point(axes, operating_point, threshold, reached)
    _say_if_undefined(axes, y, "no sick image: no precision-recall curve")
    poor = average_precision is not None and average_precision < 0.5
    canvas.add_legend(axes, "upper right" if poor else "lower left")
    return figure


def _operating_point(
    axes: Axes, point: tuple[float, float], threshold: float | None, reached: str
) -> None:
    """A black-rimmed dot where the stored threshold sits, explained in the legend."""
    at = "" if threshold is None else f"threshold {words.threshold_text(threshold)}: "
    axes.plot(
        [point[0]],
        [point[1]],
        linestyle="none",
        marker="o",
        markersize=10,
        markerfacecolor=canvas.VERMILLION,
        markeredgecolor=canvas.INK,
        markeredgewidth=1.4,
        label=f"{at}{reached}",
        clip_on=False,
        zorder=5,
    )


def _say_if_undefined(axes: Axes, y: NDArray[np.float64], why: str) -> None:
    """Explain an empty frame."""
    if not np.isfinite(y).any():
        canvas.write(axes, 0.5, 0.6, why, color=canvas.SOFT_INK, size_pt=11)
