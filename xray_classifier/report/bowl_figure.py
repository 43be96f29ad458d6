"""A loss over two weights with gradient descent on it: the bowl, and the valley without an end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas
from xray_classifier.report.colour_scale import rising

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from xray_classifier.lesson.bowl import Bowl, Valley

_PANEL_IN = 2.75
_POINTS = 121
_LEVELS = 12


def bowl_figure(
    bowl: Bowl, loss_at: Callable[[NDArray[np.float64]], NDArray[np.float64]], *, n: int
) -> Figure:
    """One map for each learning rate: the same bowl, the same start, the steps that were taken.

    Args:
        bowl: The descents; four are drawn.
        loss_at: The squared error at weights (..., 2).
        n: Images behind it.
    """
    figure = canvas.new_figure(
        8.1,
        9.3,
        "A unit with two weights: gradient descent in the bowl of the squared error",
        f"{n:,} images. Star: the lowest point, by formula. The largest stable learning rate is\n"
        f"2 / largest curvature = 2 / {bowl.curvatures[0]:.3g} = {bowl.largest_rate:.3g}.",
    )
    reach = 1.12 * float(np.abs(bowl.descents[0].weights - bowl.minimum).max())
    box = np.array([bowl.minimum - reach, bowl.minimum + reach])
    for place, descent in enumerate(bowl.descents[:4]):
        row, column = divmod(place, 2)
        left, bottom = 0.95 + column * 3.85, 4.9 - row * 4.2
        axes = canvas.new_axes(
            figure, (left, bottom, 2.95, 2.95), "weight 1" if row else "", "weight 2"
        )
        _map(axes, box, loss_at)
        share = descent.rate / bowl.largest_rate
        canvas.write(
            axes, 0.0, 1.1, f"learning rate {descent.rate:.3g}", ha="left", va="bottom",
            size_pt=11, bold=True,
        )  # fmt: skip
        canvas.write(
            axes, 0.0, 1.02, f"{share:.3g} x largest stable: {_outcome(bowl, place)}",
            ha="left", va="bottom", size_pt=9.5, color=canvas.SOFT_INK,
        )  # fmt: skip
        _path(axes, descent.weights, canvas.VERMILLION)
        _star(axes, bowl.minimum)
    return figure


def _outcome(bowl: Bowl, place: int) -> str:
    """What a descent came to, from its numbers."""
    losses = bowl.descents[place].losses
    above = (losses[-1] - bowl.lowest) / max(losses[0] - bowl.lowest, 1e-300)
    n = len(losses) - 1
    if above > 1:
        return f"further off after {n} steps"
    if above < 1e-4:
        arrived = int(np.argmax(losses - bowl.lowest < 1e-4 * (losses[0] - bowl.lowest)))
        return f"there in {arrived} steps"
    return f"{100 * above:.2g} % still to go at {n}"


def valley_figure(
    valley: Valley,
    loss_at: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    held_loss_at: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Figure:
    """Cross-entropy on separable images: the map without decay, with it, and |w| by steps.

    Args:
        valley: The two descents.
        loss_at: The cross-entropy at weights (..., 2).
        held_loss_at: The same with weight decay.
    """
    figure = canvas.new_figure(
        11.6,
        5.0,
        "The same unit with cross-entropy, on images that a line parts",
        f"{len(valley.plane.targets):,} of {valley.n_all:,} images, those on which the best line "
        "is right. No formula for the lowest point,\nand without weight decay no lowest point.",
    )
    reach = 1.15 * float(np.abs(valley.free.weights).max())
    box = np.array([[-reach, -reach], [reach, reach]])
    panels = (
        ("without weight decay", loss_at, valley.free.weights),
        (f"with weight decay {valley.decay:g}", held_loss_at, valley.held.weights),
    )
    for place, (title, at, weights) in enumerate(panels):
        axes = canvas.new_axes(
            figure, (0.85 + 3.65 * place, 0.7, _PANEL_IN, _PANEL_IN), "weight 1", "weight 2"
        )
        _map(axes, box, at)
        canvas.write(axes, 0.0, 1.03, title, ha="left", va="bottom", size_pt=11, bold=True)
        _path(axes, weights, canvas.VERMILLION if place == 0 else canvas.BLUE, marks=False)
    _star(axes, valley.minimum)
    _norms(figure, valley)
    return figure


def _norms(figure: Figure, valley: Valley) -> None:
    axes = canvas.new_axes(
        figure, (8.25, 0.7, 3.1, _PANEL_IN), "steps (logarithmic)", "length of the weights |w|"
    )
    steps = np.arange(1, valley.norms.shape[1])
    axes.plot(
        steps, valley.norms[0, 1:], color=canvas.VERMILLION, linewidth=2.2, label="without decay"
    )
    axes.plot(
        steps, valley.norms[1, 1:], color=canvas.BLUE, linewidth=2.2, linestyle=(0, (5, 1.5)),
        label="with decay",
    )  # fmt: skip
    axes.axhline(
        float(np.linalg.norm(valley.minimum)), color=canvas.SOFT_INK, linestyle=(0, (1, 2))
    )
    axes.set_xscale("log")
    axes.set_xlim(1, len(steps))
    axes.set_ylim(0, None)
    canvas.write(
        axes, 0.0, 1.03, "growing without end", ha="left", va="bottom", size_pt=11, bold=True
    )
    canvas.add_legend(axes, "upper left")


def _map(
    axes: Axes,
    box: NDArray[np.float64],
    loss_at: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> None:
    """The loss in colours with lines of equal loss; `box` holds the corners (2, 2)."""
    x = np.linspace(box[0, 0], box[1, 0], _POINTS)
    y = np.linspace(box[0, 1], box[1, 1], _POINTS)
    values = loss_at(np.stack(np.meshgrid(x, y), axis=-1))
    low = float(values.min())
    # lines that crowd where it is steep and still show the bottom
    levels = low + (float(values.max()) - low) * np.linspace(0.0, 1.0, _LEVELS) ** 2
    axes.contourf(x, y, values, levels, cmap=rising(), alpha=0.85)
    axes.contour(x, y, values, levels[1:], colors="white", linewidths=0.6, linestyles="solid")
    axes.grid(False)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])


def _path(axes: Axes, weights: NDArray[np.float64], color: str, *, marks: bool = True) -> None:
    x, y = weights.T
    axes.plot(x, y, color=canvas.PAPER, linewidth=3.4, zorder=3)
    axes.plot(
        x, y, color=color, linewidth=1.7, marker="o" if marks else None, markersize=4.5,
        markeredgecolor=canvas.PAPER, markeredgewidth=0.7, zorder=4,
    )  # fmt: skip


def _star(axes: Axes, at: NDArray[np.float64]) -> None:
    axes.plot(
        at[:1], at[1:], marker="*", markersize=15, color="#FFFFFF", markeredgecolor=canvas.INK,
        zorder=5,
    )  # fmt: skip
