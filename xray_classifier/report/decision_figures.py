"""What decisions by the model are worth: the decision curve, and risk against coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

_BAND_ALPHA = 0.18


def net_benefit_figure(
    thresholds: ArrayLike,
    model: ArrayLike,
    treat_all: ArrayLike,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    threshold: float | None = None,
    prevalence: float | None = None,
    split: str | None = None,
) -> Figure:
    """Decision curve: net benefit of the model, of calling all sick, and of calling none sick.

    Args:
        thresholds: Threshold probabilities, shape (n_points,), rising, in (0, 1).
        model: Net benefit of the model at each, shape (n_points,), per patient.
        treat_all: Net benefit of calling everyone sick, shape (n_points,).
        low: Lower ends of the 95 % band of the model, shape (n_points,), or None.
        high: Upper ends, shape (n_points,), or None.
        threshold: The stored threshold, a probability, or None.
        prevalence: Share of the sick that the curves are for, or None.
        split: Name of the split, or None.

    Raises:
        ValueError: The arrays differ in shape.

    Source:
        Vickers & Elkin 2006, doi:10.1177/0272989X06295361.
    """
    x, benefit = canvas.pair(thresholds, model)
    _, everyone = canvas.pair(x, treat_all)
    where = "" if prevalence is None else f"prevalence {prevalence:.3g}"
    figure, axes = canvas.square_axes(
        "Decision curve",
        (words.named(split) + where).removesuffix(": "),
        "threshold probability: risk at which one would act",
        "net benefit (true positives per patient)",
    )
    _draw_band(axes, x, low, high)
    axes.plot(x, benefit, color=canvas.BLUE, linewidth=2.2, label="the model")
    axes.plot(
        x,
        everyone,
        color=canvas.VERMILLION,
        linestyle=(0, (5, 1.5)),
        linewidth=1.8,
        label="call everyone sick",
    )
    axes.axhline(
        0.0, color=canvas.SOFT_INK, linestyle=(0, (2, 3)), linewidth=1.4, label="call nobody sick"
    )
    _mark_threshold(axes, threshold)
    canvas.unit_axes(axes, y=False)
    _limit_benefit(axes, benefit, everyone)
    canvas.add_legend(axes, "upper right")
    return figure


def coverage_figure(
    coverage: ArrayLike,
    risk: ArrayLike,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    operating_point: tuple[float, float] | None = None,
    risk_label: str = "share of wrong decisions",
    split: str | None = None,
) -> Figure:
    """Risk-coverage curve: errors among the images that are answered, the surest first.

    Args:
        coverage: Share of the images that get an answer, shape (n_points,), rising, in [0, 1].
        risk: Share of these answers that are wrong, shape (n_points,), in [0, 1].
        low: Lower ends of the 95 % intervals of `risk`, shape (n_points,), or None.
        high: Upper ends, shape (n_points,), or None.
        operating_point: (coverage, risk) with the stored refer band, or None.
        risk_label: What runs upwards.
        split: Name of the split, or None.

    Raises:
        ValueError: The arrays differ in shape.

    Source:
        El-Yaniv & Wiener 2010, Journal of Machine Learning Research 11, 1605-1641.
    """
    x, y = canvas.pair(coverage, risk)
    figure, axes = canvas.square_axes(
        "Risk and coverage",
        f"{words.named(split)}who is answered first: the images the model is surest of",
        "coverage (share of images answered)",
        risk_label,
    )
    _draw_band(axes, x, low, high)
    axes.plot(x, y, color=canvas.BLUE, linewidth=2.2, label="errors among those answered")
    if operating_point is not None:
        answered, wrong = operating_point
        axes.plot(
            [answered],
            [wrong],
            linestyle="none",
            marker="o",
            markersize=10,
            markerfacecolor=canvas.VERMILLION,
            markeredgecolor=canvas.INK,
            label=f"with the refer band: {answered:.3f} answered, {wrong:.3f} wrong",
            zorder=5,
        )
    canvas.unit_axes(axes, y=False)
    axes.set_ylim(0, 1.25 * _largest(y, high) or 1.0)
    canvas.add_legend(axes, "upper left")
    return figure


def _draw_band(
    axes: Axes, x: NDArray[np.float64], low: ArrayLike | None, high: ArrayLike | None
) -> None:
    """The 95 % band of a curve, where there is one."""
    if low is None or high is None:
        return
    floor, ceiling = canvas.pair(low, high)
    canvas.pair(x, floor)
    axes.fill_between(
        x,
        floor,
        ceiling,
        facecolor=canvas.BLUE,
        alpha=_BAND_ALPHA,
        linewidth=0,
        label="95 % interval",
    )


def _mark_threshold(axes: Axes, threshold: float | None) -> None:
    """A line where the stored threshold is."""
    if threshold is not None:
        axes.axvline(
            threshold,
            color=canvas.INK,
            linestyle=(0, (4, 2)),
            linewidth=1.2,
            label=f"stored threshold {words.threshold_text(threshold)}",
        )


def _limit_benefit(axes: Axes, model: NDArray[np.float64], everyone: NDArray[np.float64]) -> None:
    """Leave out the fall of calling everyone sick, which has no floor."""
    top = max(_largest(model, None), _largest(everyone, None), 0.02)
    axes.set_ylim(-0.3 * top, 1.35 * top)


def _largest(values: ArrayLike, others: ArrayLike | None) -> float:
    """The largest finite value, 0 at least."""
    both = [np.asarray(part, dtype=np.float64) for part in (values, others) if part is not None]
    joined = np.concatenate(both)
    return float(np.max(joined[np.isfinite(joined)], initial=0.0))
