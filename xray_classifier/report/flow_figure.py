"""Weights, gradients, steps and dead units of each layer over the epochs of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas
from xray_classifier.report.colour_scale import rising

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xray_classifier.lesson.flow import LayerFlow

_PANEL_IN = (3.55, 2.15)
_MOST_NAMED = 8


def flow_figure(
    layers: Mapping[str, Sequence[LayerFlow]],
    *,
    healthy: tuple[float, float],
    n: int,
) -> Figure:
    """Four panels over the epochs, or over the layers where there is one epoch alone.

    Args:
        layers: Records of each layer by its name for a person, oldest first.
        healthy: Update by weight norm between which a step is no warning.
        n: Images of the batch that was measured.
    """
    epochs = max(len(rows) for rows in layers.values())
    if epochs == 1:
        return _bars(layers, n)
    named = min(len(layers), _MOST_NAMED)
    legend_in = 0.26 * ((named + 2) // 3) + 0.1
    height_in = 6.5 + legend_in
    figure = canvas.new_figure(
        9.0, height_in, "How gradients flow",
        f"One batch of {n} training images after each epoch, dropout off; the step is the last of "
        "the epoch.",
    )  # fmt: skip
    panels: tuple[tuple[str, Callable[[LayerFlow], float], bool], ...] = (
        ("norm of the weights", lambda row: row.weight_norm, True),
        ("norm of the gradient", lambda row: row.gradient_norm, True),
        ("step / weights", lambda row: row.update_norm / max(row.weight_norm, 1e-300), True),
        ("dead units (%)", lambda row: 100 * row.dead_share, False),
    )
    for place, (label, value, log) in enumerate(panels):
        row, column = divmod(place, 2)
        axes = canvas.new_axes(
            figure,
            (0.95 + column * 4.45, 3.4 - row * 2.75 + 0.05, *_PANEL_IN),
            "epochs" if row else "",
            label,
        )
        if place == 2:
            axes.axhspan(*healthy, color=canvas.GREEN, alpha=0.1, linewidth=0)
        _lines(axes, layers, value, log)
        if place == 0:
            axes.legend(
                loc="lower left", bbox_to_anchor=(0.0, 1.02), ncols=3, frameon=False,
                labelcolor=canvas.INK, prop=canvas.font(9), borderaxespad=0.2, handlelength=2.4,
            )  # fmt: skip
    return figure


def _lines(
    axes: Axes,
    layers: Mapping[str, Sequence[LayerFlow]],
    value: Callable[[LayerFlow], float],
    log: bool,
) -> None:
    """One line for each layer, from dark (first) to light (last)."""
    shades = rising()(np.linspace(0.05, 0.85, len(layers)))
    dashes = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (4, 1.5, 1, 1.5)))
    for place, (name, rows) in enumerate(layers.items()):
        y = np.array([value(row) for row in rows])
        if np.isfinite(y).any():
            axes.plot(
                [row.epoch for row in rows], y, color=shades[place], linewidth=2.0,
                linestyle=dashes[place % 4], label=name if place < _MOST_NAMED else "_",
            )  # fmt: skip
        elif place < _MOST_NAMED:
            axes.plot([], [], color=shades[place], linestyle=dashes[place % 4], label=name)
    if log:
        _log_scale(axes)
    else:
        axes.set_ylim(-2, 102)


def _log_scale(axes: Axes) -> None:
    """A logarithmic axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high < 50 * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=15))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _bars(layers: Mapping[str, Sequence[LayerFlow]], n: int) -> Figure:
    """Weights, gradients and dead units of each layer at one moment."""
    count = len(layers)
    figure = canvas.new_figure(
        9.0, 1.75 + 0.34 * count, "How gradients flow, at the kept weights",
        f"One batch of {n} training images, dropout off.",
    )  # fmt: skip
    panels: tuple[tuple[str, Callable[[LayerFlow], float]], ...] = (
        ("norm of the weights", lambda row: row.weight_norm),
        ("norm of the gradient", lambda row: row.gradient_norm),
        ("dead units (%)", lambda row: 100 * row.dead_share),
    )
    places = -np.arange(count)
    for number, (label, value) in enumerate(panels):
        axes = canvas.new_axes(
            figure, (2.3 + 2.25 * number, 0.65, 1.95, 0.2 + 0.34 * count), label, ""
        )
        values = np.nan_to_num([value(rows[-1]) for rows in layers.values()])
        axes.barh(places, values, height=0.62, color=canvas.BLUE)
        axes.set_yticks(places, list(layers) if number == 0 else [""] * count)
        axes.set_ylim(-count + 0.4, 0.6)
        axes.grid(False, axis="y")
        if number == 2:
            axes.set_xlim(0, 100)
        axes.tick_params(axis="x", labelsize=8.5)
    return figure
