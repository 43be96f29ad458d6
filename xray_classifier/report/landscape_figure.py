"""The loss over two directions in weight space, as a map with lines of equal loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas, words
from xray_classifier.report.colour_scale import colour_bar, rising

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xray_classifier.lesson.landscape import Landscape

_PANEL_IN = 4.3
_STEP_IN = 6.15
_LEVELS = 14
_LABELLED = 6
_HIGHEST = 1e3
"""A loss this many times the lowest gets the colour of the highest."""
_NAMES = {"train": "training", "val": "validation"}


def landscape_figure(found: Sequence[Landscape], *, title: str, loss_name: str) -> Figure:
    """Maps of the loss side by side, dark where it is low.

    Args:
        found: One or two landscapes over the same directions.
        title: Heading.
        loss_name: Such as BCE loss.
    """
    width_in = 0.85 + _STEP_IN * len(found) - 0.3
    subtitle = _subtitle(found[0])
    figure = canvas.new_figure(width_in, 6.3, title, subtitle)
    for place, one in enumerate(found):
        left = 0.85 + place * _STEP_IN
        x_label, y_label = _labels(one)
        axes = canvas.new_axes(figure, (left, 0.7, _PANEL_IN, _PANEL_IN), x_label, y_label)
        axes.grid(False)
        _draw(figure, axes, one, left, loss_name)
    return figure


def _subtitle(one: Landscape) -> str:
    if one.kind == "random":
        return (
            "Two random directions, each unit's part as long as its weights\n"
            "(filter-normalised). Dark is low. Lines: equal loss."
        )
    shares = sum(one.explained)
    return (
        f"The two main directions of the training path: {100 * shares:.0f} % of its squared "
        "distances lie in this plane.\nDark is low. Lines: equal loss."
    )


def _labels(one: Landscape) -> tuple[str, str]:
    if one.kind == "random":
        return "direction 1 (in norms of the weights)", "direction 2 (in norms of the weights)"
    first, second = (f"{100 * share:.0f} %" for share in one.explained)
    return f"main direction 1 ({first})", f"main direction 2 ({second})"


def _draw(figure: Figure, axes: Axes, one: Landscape, left: float, loss_name: str) -> None:
    values = np.where(np.isfinite(one.loss), one.loss, np.inf)
    low = max(float(values.min()), 1e-6)
    high = min(float(np.where(np.isfinite(values), values, low).max()), _HIGHEST * low)
    shown = np.clip(values, low, max(high, 1.001 * low))
    levels = np.geomspace(low, max(high, 1.001 * low), _LEVELS)
    drawn = axes.contourf(one.x, one.y, np.log10(shown), np.log10(levels), cmap=rising())
    axes.contour(
        one.x,
        one.y,
        np.log10(shown),
        np.log10(levels),
        colors="white",
        linewidths=0.5,
        linestyles="solid",
        alpha=0.6,
    )
    axes.set_xlim(one.x[0], one.x[-1])
    axes.set_ylim(one.y[0], one.y[-1])
    name = _NAMES[one.split]
    counted = f"{one.n:,} of {one.n_split:,}" if one.n < one.n_split else f"{one.n:,}"
    canvas.write(
        axes, 0.0, 1.03, f"{name} loss, {counted} images", ha="left", va="bottom", size_pt=11,
        bold=True,
    )  # fmt: skip
    if len(one.path):
        _draw_path(axes, one)
    _star(axes, one)
    box = (left + _PANEL_IN + 0.15, 0.7, 0.16, _PANEL_IN)
    bar = colour_bar(figure, drawn, box, f"{loss_name} (logarithmic colours)")
    chosen = levels[:: max(1, _LEVELS // _LABELLED)]
    bar.set_yticks(np.log10(chosen), [words.quantity_text(float(f"{v:.2g}")) for v in chosen])


def _draw_path(axes: Axes, one: Landscape) -> None:
    """The snapshots, joined in the order of training, with a few epochs written beside them."""
    x, y = one.path.T
    axes.plot(x, y, color=canvas.PAPER, linewidth=3.6, zorder=3)
    axes.plot(
        x, y, color=canvas.VERMILLION, linewidth=1.8, marker="o", markersize=5,
        markeredgecolor=canvas.PAPER, markeredgewidth=0.8, zorder=4,
    )  # fmt: skip
    ends = {0: f"start, loss {one.path_loss[0]:.3g}", len(x) - 1: f"epoch {one.epochs[-1]}"}
    for place, text in ends.items():
        right = x[place] > float(one.x.mean())
        _label(axes, float(x[place]), float(y[place]), text, right=right, below=place > 0)


def _star(axes: Axes, one: Landscape) -> None:
    axes.plot(
        [0], [0], marker="*", markersize=15, color="#FFFFFF", markeredgecolor=canvas.INK, zorder=5
    )
    right = float(one.x.mean()) < 0
    _label(axes, 0.0, 0.0, f"kept weights, loss {one.centre:.3g}", right=right, below=False)


def _label(axes: Axes, x: float, y: float, text: str, *, right: bool, below: bool) -> None:
    axes.annotate(
        text,
        (x, y),
        xytext=(-8 if right else 8, -14 if below else 12),
        textcoords="offset points",
        ha="right" if right else "left",
        va="center",
        color=canvas.INK,
        fontproperties=canvas.font(9.5),
        bbox={"facecolor": canvas.PAPER, "edgecolor": "none", "pad": 1.2, "alpha": 0.85},
        zorder=6,
    )
