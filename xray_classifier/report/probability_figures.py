"""Whether the probabilities can be believed, and how they are spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray


def calibration_figure(
    mean_predicted: ArrayLike,
    observed: ArrayLike,
    counts: ArrayLike,
    *,
    ece: float | None,
    brier: float | None,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    edges: ArrayLike | None = None,
    split: str | None = None,
) -> Figure:
    """Share of sick images against the probability they were given, and how many stand behind it.

    Args:
        mean_predicted: Mean probability of sick per bin, shape (n_bins,); NaN in an empty bin.
        observed: Share of sick images per bin, shape (n_bins,); NaN in an empty bin.
        counts: Images per bin, shape (n_bins,).
        ece: Expected calibration error, or None.
        brier: Brier score, or None.
        low: Lower ends of the 95 % intervals of `observed`, shape (n_bins,), or None.
        high: Upper ends, shape (n_bins,), or None.
        edges: Borders of the bins, shape (n_bins + 1,); None draws the counts at the means.
        split: Name of the split, or None.

    Raises:
        ValueError: The arrays differ in shape.
    """
    x, y = canvas.pair(mean_predicted, observed)
    n_images = np.asarray(counts, dtype=np.float64)
    if n_images.shape != x.shape:
        raise ValueError(f"counts has shape {n_images.shape}, mean_predicted {x.shape}")
    scores = f"ECE {words.number_text(ece)}, Brier score {words.number_text(brier)}"
    figure = canvas.new_figure(
        6.4,
        7.2,
        "Reliability of the probabilities",
        f"{words.named(split)}{int(n_images.sum()):,} images\n{scores}",
    )
    axes = canvas.new_axes(figure, (0.9, 2.05, 5.2, 4.1), "", "observed share of sick (fraction)")
    bars = canvas.new_axes(figure, (0.9, 0.72, 5.2, 1.1), "predicted probability of sick", "images")
    axes.plot(
        [0, 1],
        [0, 1],
        color=canvas.SOFT_INK,
        linestyle=(0, (2, 3)),
        linewidth=1.2,
        label="perfect calibration",
    )
    filled = ~(np.isnan(x) | np.isnan(y))
    if low is not None and high is not None:
        floor, ceiling = canvas.pair(low, high)
        axes.vlines(
            x[filled],
            floor[filled],
            ceiling[filled],
            color=canvas.BLUE,
            linewidth=1.6,
            label="95 % interval",
        )
    axes.plot(
        x[filled],
        y[filled],
        color=canvas.BLUE,
        linewidth=1.4,
        marker="o",
        markersize=6.5,
        label="bins of this split",
    )
    _draw_counts(bars, x, n_images, edges)
    canvas.unit_axes(axes)
    canvas.unit_axes(bars, y=False)
    axes.tick_params(labelbottom=False)
    canvas.add_legend(axes, "upper left")
    return figure


def histogram_figure(
    p_healthy: ArrayLike, p_sick: ArrayLike, threshold: float | None, *, split: str | None = None
) -> Figure:
    """How the probabilities of healthy and of sick images are spread.

    Each class is drawn as a share of itself, so that a rare class stays visible.

    Args:
        p_healthy: Probability of sick of each healthy image, shape (n_healthy,), in [0, 1].
        p_sick: Probability of sick of each sick image, shape (n_sick,), in [0, 1].
        threshold: Smallest probability that is called sick, or None.
        split: Name of the split, or None.
    """
    healthy = np.asarray(p_healthy, dtype=np.float64)
    sick = np.asarray(p_sick, dtype=np.float64)
    figure = canvas.new_figure(
        9.0, 4.6, "Probability of sick, by truth", words.counted(split, sick.size, healthy.size)
    )
    axes = canvas.new_axes(
        figure, (0.95, 0.72, 7.8, 2.78), "predicted probability of sick", "share of the class (%)"
    )
    borders = np.linspace(0, 1, 41)
    looks = (
        ("healthy", healthy, canvas.BLUE, "#BFDCEC", ""),
        ("sick", sick, canvas.VERMILLION, "none", "////"),
    )
    for name, values, color, fill, hatch in looks:
        counts, _ = np.histogram(values, bins=borders)
        axes.stairs(
            100 * counts / max(values.size, 1),
            borders,
            fill=True,
            facecolor=fill,
            edgecolor=color,
            linewidth=1.6,
            hatch=hatch,
            label=f"{name} (n = {values.size:,})",
        )
    if threshold is not None:
        axes.axvline(
            threshold,
            color=canvas.INK,
            linestyle=(0, (4, 2)),
            linewidth=1.5,
            label=f"threshold {words.threshold_text(threshold)}",
        )
    canvas.unit_axes(axes, y=False)
    axes.set_ylim(bottom=0)
    canvas.add_legend_above(axes, 3)
    return figure


def _draw_counts(
    axes: Axes, x: NDArray[np.float64], n_images: NDArray[np.float64], edges: ArrayLike | None
) -> None:
    """Bars over the bins, or thick sticks at the mean where the borders are unknown."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    if edges is not None:
        axes.stairs(
            n_images,
            np.asarray(edges, dtype=np.float64),
            fill=True,
            facecolor="#BFDCEC",
            edgecolor=canvas.BLUE,
            linewidth=1.2,
        )
    else:
        filled = ~np.isnan(x)
        axes.vlines(x[filled], 0, n_images[filled], color=canvas.BLUE, linewidth=6)
    axes.set_ylim(0, 1.1 * max([1.0, *n_images.tolist()]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
