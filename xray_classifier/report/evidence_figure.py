"""Which pixels decided, film by film, and how well such maps find lesions whose place is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas
from xray_classifier.report.film_grid import Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from xray_classifier.lesson.map_scores import MapTrial


def evidence_figure(
    films: NDArray[np.uint8],
    maps: Sequence[tuple[str, NDArray[np.floating]]],
    captions: Sequence[str],
    masks: NDArray[np.bool_] | None = None,
    *,
    meaning: str = "Vermillion speaks for sick, blue against.",
) -> Figure:
    """One row for each film: the film, then one kind of map after the other laid over it.

    Args:
        films: (n, S, S) uint8.
        maps: Heading and maps (n, S, S); above 0 raises the output.
        captions: One for each film; up to three lines.
        masks: Lesions to outline, (n, S, S); None outlines nothing. An empty one is left out.
        meaning: What the two colours say.
    """
    subtitle = (
        f"{meaning} Each map has a scale of its own.\n"
        + ("Green: where the lesion of the phantom lies." if masks is not None
           else "What moves the model, not where a disease is.")
    )  # fmt: skip
    columns = ["film", *(name for name, _ in maps)]
    grid = Grid(len(films), columns, "Which pixels decided", subtitle, 3)
    for row, film in enumerate(films):
        for column in range(len(columns)):
            grid.film(row, column, film)
        for column, (_, heat) in enumerate(maps, start=1):
            grid.evidence(row, column, heat[row])
        if masks is not None and masks[row].any():
            for column in range(len(columns)):
                grid.outline(row, column, masks[row])
        grid.caption(row, 0, captions[row])
    return grid.figure


def map_scores_figure(trials: Sequence[MapTrial], *, n: int) -> Figure:
    """AUROC of the maps for lesion pixels: the trained network beside one with random weights.

    Args:
        trials: One for each kind of map.
        n: Films behind them.
    """
    figure = canvas.new_figure(
        8.0,
        2.1 + 0.62 * len(trials),
        "Do the maps find the lesions?",
        f"{n} sick phantoms of the validation split. Bar: 95 % interval over patients.\n"
        "0.5 is chance: a lesion pixel stands out no more than any other.",
    )
    axes = canvas.new_axes(
        figure,
        (2.35, 0.62, 5.4, 0.2 + 0.62 * len(trials)),
        "AUROC of the map for lesion pixels",
        "",
    )
    axes.axvline(0.5, color=canvas.SOFT_INK, linestyle=(0, (4, 3)), linewidth=1.2)
    for place, trial in enumerate(trials):
        y = -place
        axes.plot(trial.auroc_ci, (y, y), color=canvas.BLUE, linewidth=4, solid_capstyle="round")
        axes.plot(
            [trial.trained.mean("auroc")], [y], "o", color=canvas.BLUE, markersize=10,
            markeredgecolor=canvas.PAPER, label="as trained" if place == 0 else "_",
        )  # fmt: skip
        if trial.random is not None:
            axes.plot(
                [trial.random.mean("auroc")], [y], "D", color=canvas.PAPER, markersize=8,
                markeredgecolor=canvas.VERMILLION, markeredgewidth=2,
                label="random weights" if place == 0 else "_",
            )  # fmt: skip
    ends = [value for t in trials for value in (*t.auroc_ci, 0.5)]
    ends += [t.random.mean("auroc") for t in trials if t.random is not None]
    low, high = min(ends), max(ends)
    axes.set_xlim(math.floor(10 * low - 0.3) / 10, math.ceil(10 * high + 0.3) / 10)
    axes.set_ylim(-len(trials) + 0.4, 0.6)
    axes.set_yticks([-place for place in range(len(trials))], [trial.name for trial in trials])
    axes.grid(False, axis="y")
    canvas.add_legend_above(axes, 2)
    return figure
