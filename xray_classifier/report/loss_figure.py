"""The loss curves of a run: train, validation and, when allowed, test against iterations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas, words
from xray_classifier.report.loss_frame import HUGE, LossFrame, loss_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

TEST_LABEL = "test (drawn, never used)"
"""What the legend calls the test curve: no choice of the run has read it."""

_FEW_EPOCHS = 40


def loss_figure(
    steps: ArrayLike,
    train_loss: ArrayLike,
    val_loss: ArrayLike | None,
    test_loss: ArrayLike | None = None,
    *,
    best_step: int | None = None,
    stop_step: int | None = None,
    stop_reason: str | None = None,
    loss_name: str = "BCE loss",
    val_auroc: ArrayLike | None = None,
) -> Figure:
    """Loss against training iterations, with the chosen and the stopping epoch marked.

    A value that is not finite (NaN, infinity, None) leaves a gap. `loss_frame` says when the axis
    becomes logarithmic or leaves out an explosion of the first epochs.

    Args:
        steps: Optimizer steps done when each epoch ended, shape (n_epochs,), rising; may be empty.
        train_loss: Mean loss of each epoch, shape (n_epochs,).
        val_loss: The same on validation, or None where the run has no validation split.
        test_loss: The same on test, or None to leave it sealed.
        best_step: Step of the epoch whose weights were kept; None marks none.
        stop_step: Step at which the run stopped; None marks none.
        stop_reason: Why it stopped, one sentence without a full stop.
        loss_name: Label of the loss axis.
        val_auroc: AUROC on validation per epoch, shape (n_epochs,); drawn in a panel below.

    Raises:
        ValueError: A curve and `steps` differ in length.
    """
    x = np.asarray(steps, dtype=np.float64)
    curves = {
        label: _curve(values, x, label)
        for label, values in (
            ("train", train_loss),
            ("validation", val_loss),
            (TEST_LABEL, test_loss),
        )
        if values is not None
    }
    frame = loss_frame(list(curves.values()))
    rank = None if val_auroc is None else _curve(val_auroc, x, "val_auroc")
    subtitle = _subtitle(x, curves, frame, best_step, stop_step, stop_reason)
    heading_in = 1.08 + canvas.SUBTITLE_LINE_IN * subtitle.count("\n")
    height_in = heading_in + (4.1 if rank is None else 5.6)
    figure = canvas.new_figure(9.0, height_in, "Loss against training iterations", subtitle)
    bottom_in = 0.7 if rank is None else 2.35
    x_label = "training iterations (steps)"
    loss_axes = canvas.new_axes(
        figure,
        (0.95, bottom_in, 7.8, height_in - bottom_in - heading_in),
        x_label if rank is None else "",
        f"{loss_name} (mean per image)",
    )
    panels = [loss_axes]
    _scale(loss_axes, frame)
    _draw_curves(loss_axes, x, curves, best_step)
    if rank is not None:
        panels.append(canvas.new_axes(figure, (0.95, 0.7, 7.8, 1.35), x_label, "val AUROC"))
        _draw_rank(panels[-1], x, rank)
    ends = [value for value in (best_step, stop_step) if value is not None]
    _share_x(panels, max([*x.tolist(), *ends], default=1.0))
    _mark(panels, best_step, stop_step)
    if not x.size:
        canvas.write(loss_axes, 0.5, 0.5, "no epoch has ended yet", color=canvas.SOFT_INK)
    return figure


def _curve(values: ArrayLike, x: NDArray[np.float64], label: str) -> NDArray[np.float64]:
    """The values as floats of shape (n_epochs,), NaN where they cannot be drawn."""
    curve = np.asarray(values, dtype=np.float64)
    if curve.shape != x.shape or curve.ndim != 1:
        raise ValueError(f"{label} has shape {curve.shape}, steps has shape {x.shape}")
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(curve) < HUGE, curve, np.nan)


def _subtitle(
    x: NDArray[np.float64],
    curves: dict[str, NDArray[np.float64]],
    frame: LossFrame,
    best_step: int | None,
    stop_step: int | None,
    stop_reason: str | None,
) -> str:
    """How long the run was and what ended it; below it, what the picture leaves out."""
    parts = [f"{x.size:,} epoch{'' if x.size == 1 else 's'}"]
    if best_step is not None:
        parts.append(f"best at step {best_step:,}")
    if stop_step is not None:
        parts.append(f"stopped at step {stop_step:,}")
    first = ", ".join(parts) + (f": {stop_reason}" if stop_reason else "")
    notes = []
    if frame.peak_outside is not None:
        notes.append(
            f"The first epochs reach {words.quantity_text(frame.peak_outside)}, above this axis."
        )
    if any(np.isnan(curve).any() for curve in curves.values()):
        notes.append("Gaps: the loss was not finite or not measured.")
    if frame.log:
        notes.append("Logarithmic loss axis.")
    lines = [" ".join(first.split()), " ".join(notes)]
    return "\n".join(line for line in lines if line)


def _draw_curves(
    axes: Axes,
    x: NDArray[np.float64],
    curves: dict[str, NDArray[np.float64]],
    best_step: int | None,
) -> None:
    """One line per split and a ring at the chosen epoch."""
    looks = {
        "train": (canvas.BLUE, "-", "o"),
        "validation": (canvas.VERMILLION, (0, (5, 1.5)), "s"),
        TEST_LABEL: (canvas.GREEN, (0, (1.2, 1.2)), "^"),
    }
    for label, curve in curves.items():
        if np.isnan(curve).all():
            continue
        color, dash, marker = looks[label]
        axes.plot(
            x,
            curve,
            color=color,
            linestyle=dash,
            linewidth=2.0,
            marker=marker,
            markersize=4.5,
            markevery=_marked(curve),
            label=label,
        )
    chosen = curves.get("validation", curves["train"])
    at_best = np.flatnonzero((x == best_step) & ~np.isnan(chosen))
    if at_best.size:
        axes.plot(
            x[at_best[:1]],
            chosen[at_best[:1]],
            linestyle="none",
            marker="o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=canvas.INK,
            markeredgewidth=1.6,
            label="best epoch",
        )
    if axes.get_legend_handles_labels()[1]:
        canvas.add_legend_above(axes, 4)


def _marked(curve: NDArray[np.float64]) -> list[int]:
    """Positions that get a marker: all of a short run, else those with a gap on both sides."""
    usable = ~np.isnan(curve)
    if curve.size <= _FEW_EPOCHS:
        return [int(position) for position in np.flatnonzero(usable)]
    padded = np.concatenate([[False], usable, [False]])
    alone = usable & ~padded[:-2] & ~padded[2:]
    return [int(position) for position in np.flatnonzero(alone)]


def _draw_rank(axes: Axes, x: NDArray[np.float64], rank: NDArray[np.float64]) -> None:
    """The AUROC panel, from the lowest value (at most 0.5) to 1."""
    axes.plot(
        x,
        rank,
        color=canvas.VERMILLION,
        linestyle=(0, (5, 1.5)),
        linewidth=2.0,
        marker="s",
        markersize=4.5,
        markevery=_marked(rank),
    )
    lowest = min([0.5, *rank[~np.isnan(rank)].tolist()])
    axes.set_ylim(math.floor(lowest * 10) / 10, 1.02)


def _scale(axes: Axes, frame: LossFrame) -> None:
    """Apply the frame, with plain numbers at the ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, ScalarFormatter

    if not frame.log:
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False, useMathText=False))
        axes.set_ylim(frame.low, frame.high)
        return
    axes.set_yscale("log")
    axes.set_ylim(frame.low, frame.high)
    decades = math.log10(frame.high / frame.low)
    subs = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=15))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _share_x(panels: list[Axes], last: float) -> None:
    """Count every panel from step 0 to just beyond the last one."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    for axes in panels:
        axes.set_xlim(0.0, 1.03 * max(last, 1.0))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    for axes in panels[:-1]:
        axes.tick_params(labelbottom=False)


def _mark(panels: list[Axes], best_step: int | None, stop_step: int | None) -> None:
    """Vertical lines through all panels, each with its word at its own height."""
    marks = (("best", best_step, (0, (4, 2)), 0.96), ("stopped", stop_step, "-", 0.88))
    for word, step, dash, height in marks:
        if step is None:
            continue
        for axes in panels:
            axes.axvline(
                step,
                color=canvas.SOFT_INK,
                linestyle=dash,
                linewidth=1.2,
                zorder=1.5,
                label=f"_{word}",
            )
        right = step > 0.5 * panels[0].get_xlim()[1]
        panels[0].annotate(
            f"{word}, step {step:,}",
            (step, height),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if right else 5, 0),
            textcoords="offset points",
            va="center",
            ha="right" if right else "left",
            color=canvas.INK,
            fontproperties=canvas.font(10),
            bbox={"facecolor": canvas.PAPER, "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
        )
