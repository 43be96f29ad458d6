"""Figures of short trainings: the rate sweep, four learning rates, and two losses that part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xray_classifier.lesson.parting import Parting
    from xray_classifier.lesson.rate_sweep import RateSweep
    from xray_classifier.lesson.rates import Rates

PURPLE = "#8A4FA0"
_TALLEST = 2.5
"""The loss axis ends at this many times the first loss; what lies above has left the picture."""


def sweep_figure(sweep: RateSweep, *, title: str, loss_name: str) -> Figure:
    """Loss against learning rate, with the suggestion and where the loss began to grow.

    Args:
        sweep: The range test.
        title: Heading.
        loss_name: Such as BCE loss.
    """
    suggested = (
        "the loss falls at no rate" if sweep.suggested is None
        else f"lowest at {sweep.lowest_at:g}, steepest close below at {sweep.suggested:g}"
    )  # fmt: skip
    end = (
        "no divergence" if sweep.diverged_at is None
        else f"diverged at {sweep.diverged_at:.2g}"
    )  # fmt: skip
    figure = canvas.new_figure(8.0, 4.8, title, f"{len(sweep.rates)} steps: {suggested}; {end}.")
    axes = canvas.new_axes(figure, (0.95, 0.7, 6.8, 3.1), "learning rate (logarithmic)", loss_name)
    axes.plot(
        sweep.rates, sweep.batch_losses, color="#BBBBBB", linewidth=1.2, label="of each batch"
    )
    axes.plot(sweep.rates, sweep.losses, ".", color=canvas.BLUE, markersize=5, label="of a sample")
    axes.plot(sweep.rates, sweep.smoothed, color=canvas.BLUE, linewidth=2.2, label="smoothed")
    axes.set_xscale("log")
    if len(sweep.losses):
        highest = float(max(sweep.losses.max(), sweep.batch_losses.max()))
        axes.set_ylim(0, min(_TALLEST * float(sweep.losses[0]), 1.08 * highest))
        axes.set_xlim(sweep.rates[0] / 1.3, sweep.rates[-1] * 1.3)
    if sweep.suggested is not None:
        _upright(axes, sweep.suggested, f"suggested {sweep.suggested:g}", canvas.GREEN)
    canvas.add_legend_above(axes, 3)
    return figure


def _upright(axes: Axes, x: float, text: str, color: str) -> None:
    """A vertical line with its words at the top."""
    axes.axvline(x, color=color, linewidth=1.6, linestyle=(0, (4, 2)))
    low, high = axes.get_xlim()
    right = x > (low * high) ** 0.5  # the axis is logarithmic
    axes.annotate(
        text, (x, 0.95), xycoords=("data", "axes fraction"), xytext=(-6 if right else 6, 0),
        textcoords="offset points", ha="right" if right else "left", va="top", color=canvas.INK,
        fontproperties=canvas.font(10),
        bbox={"facecolor": canvas.PAPER, "edgecolor": "none", "pad": 1.2, "alpha": 0.85},
    )  # fmt: skip


def rates_figure(found: Rates, *, loss_name: str) -> Figure:
    """Loss against steps for the four trainings.

    Args:
        found: The trainings.
        loss_name: Such as BCE loss.
    """
    steps = max(int(t.curve.steps[-1]) for t in found.trainings)
    figure = canvas.new_figure(
        8.0, 5.2, "Four learning rates on one problem",
        f"{found.n} training images, up to {steps} steps, the same first weights and batches.\n"
        "Loss on all of these images, dropout off. A cross marks where a line leaves the picture.",
    )  # fmt: skip
    axes = canvas.new_axes(
        figure, (0.95, 0.7, 6.8, 3.05), "training iterations (steps)", f"{loss_name}"
    )
    top = _TALLEST * float(found.trainings[0].curve.losses[0, 0])
    looks = (
        (canvas.BLUE, (0, (1.2, 1.2))), (canvas.GREEN, "-"),
        (canvas.VERMILLION, (0, (5, 1.5))), (PURPLE, (0, (4, 1.5, 1, 1.5))),
    )  # fmt: skip
    highest = 0.0
    for training, (color, dash) in zip(found.trainings, looks, strict=True):
        loss = np.minimum(training.curve.losses[:, 0], 10 * top)
        axes.plot(
            training.curve.steps, loss, color=color, linestyle=dash, linewidth=2.3,
            label=f"{training.name}: {training.optimizer} {training.rate:g}",
        )  # fmt: skip
        gone = np.flatnonzero(loss > top)
        if gone.size or training.curve.diverged:
            place = int(gone[0]) if gone.size else len(loss) - 1
            y = min(float(loss[place]), 0.97 * top)
            axes.plot(
                [training.curve.steps[place]], [y], "x", color=color, markersize=11,
                markeredgewidth=3, zorder=5,
            )  # fmt: skip
            highest = max(highest, y / 0.95)
        highest = max(highest, float(loss[loss <= top].max()))
    axes.set_xlim(0, 1.02 * steps)
    axes.set_ylim(0, min(top, 1.08 * highest))
    canvas.add_legend_above(axes, 2)
    return figure


def parting_figure(found: Parting, *, loss_name: str) -> Figure:
    """Loss on the images learnt from and on others, a panel for each training, one scale.

    Args:
        found: The trainings.
        loss_name: Such as BCE loss.
    """
    n = len(found.trainings)
    figure = canvas.new_figure(
        1.2 + 4.6 * n if n > 1 else 6.6, 4.95, "Two losses that part",
        f"{found.n_train} images to learn from, {found.n_held} others; dropout off for both lines.",
    )  # fmt: skip
    highest = max(float(max(t.train.max(), t.held.max())) for t in found.trainings)
    first = max(float(t.held[0]) for t in found.trainings)
    for place, training in enumerate(found.trainings):
        axes = canvas.new_axes(
            figure, (0.95 + 4.7 * place, 0.7, 4.1 if n > 1 else 5.3, 3.0), "epochs",
            loss_name if place == 0 else "",
        )  # fmt: skip
        name = f"dropout {training.dropout:g}" if training.dropout else "without dropout"
        canvas.write(axes, 0.0, 1.13, name, ha="left", va="bottom", size_pt=11, bold=True)
        epochs = np.arange(len(training.train))
        axes.plot(epochs, training.train, color=canvas.BLUE, linewidth=2.2, label="learnt from")
        axes.plot(
            epochs, training.held, color=canvas.VERMILLION, linewidth=2.2,
            linestyle=(0, (5, 1.5)), label="others",
        )  # fmt: skip
        axes.fill_between(
            epochs, training.train, training.held, where=training.held > training.train,
            color=canvas.VERMILLION, alpha=0.1, linewidth=0,
        )  # fmt: skip
        axes.set_xlim(0, len(training.train) - 1)
        axes.set_ylim(0, 1.05 * min(highest, _TALLEST * first))
        _stop(
            axes,
            training.best_epoch,
            training.stop_epoch,
            float(training.held[training.best_epoch]),
        )
        canvas.add_legend_above(axes, 2)
    return figure


def _stop(axes: Axes, best: int, stop: int | None, loss: float) -> None:
    """A ring where early stopping keeps the weights, and a line where it stops."""
    axes.plot(
        [best], [loss], "o", markersize=12, markerfacecolor="none", markeredgecolor=canvas.INK,
        markeredgewidth=1.8, zorder=5,
    )  # fmt: skip
    words = f"kept: epoch {best}"
    if stop is not None:
        axes.axvline(stop, color=canvas.SOFT_INK, linewidth=1.4, linestyle=(0, (4, 2)))
        words += f"\nstop: epoch {stop}"
    x = best if stop is None else stop
    right = x > 0.55 * axes.get_xlim()[1]
    axes.annotate(
        words, (x, 0.96), xycoords=("data", "axes fraction"), xytext=(-7 if right else 7, 0),
        textcoords="offset points", ha="right" if right else "left", va="top", color=canvas.INK,
        fontproperties=canvas.font(9.5),
        bbox={"facecolor": canvas.PAPER, "edgecolor": "none", "pad": 1.2, "alpha": 0.85},
    )  # fmt: skip
