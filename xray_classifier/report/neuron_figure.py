"""What the first perceptrons look for: weights as pictures beside the films they like most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report.film_grid import Grid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from xray_classifier.lesson.neurons import Detectors

_ORDER = ("strongest", "second", "third", "fourth")
_TITLES = {
    "perceptron": "What the perceptron looks for",
    "mlp": "What the first layer looks for",
    "mixer": "What the mixer looks for in a patch",
}


def neuron_figure(
    found: Detectors, films: Mapping[int, NDArray[np.uint8]], labels: Mapping[int, str]
) -> Figure:
    """One row for each perceptron: its weights, then the films that excite it most.

    Args:
        found: The perceptrons.
        films: (S, S) uint8 by row of the manifest.
        labels: What the truth calls each of these films.
    """
    n_films = max(len(one.rows) for one in found.chosen)
    columns = [
        "its weights",
        "what training\nchanged",
        *(f"{_ORDER[n]}\nanswer" for n in range(n_films)),
    ]
    which = (
        "The one weight map." if found.kind == "perceptron"
        else f"{len(found.chosen)} of {found.n_units} units of the first layer."
    )  # fmt: skip
    subtitle = (
        f"{which}\n"
        "Vermillion: bright here raises its sum. Blue: lowers it. Each picture has its own scale.\n"
        f"Right: of {found.n_images:,} films those with the largest sum, before the activation"
        + (", and the patch." if found.kind == "mixer" else ".")
    )
    grid = Grid(len(found.chosen), columns, _TITLES[found.kind], subtitle, 2)
    for row, one in enumerate(found.chosen):
        grid.weights(row, 0, one.weights)
        grid.caption(row, 0, f"unit {one.unit}\nup to ±{np.abs(one.weights).max():.2g}")
        grid.weights(row, 1, one.change)
        grid.caption(row, 1, f"up to ±{np.abs(one.change).max():.2g}")
        for place, (film, total) in enumerate(zip(one.rows.tolist(), one.sums, strict=True)):
            grid.film(row, place + 2, films[film])
            if one.corners:
                side = len(films[film])
                top, left = one.corners[place]
                box = (top / side, left / side, len(one.weights) / side)
                grid.square(row, place + 2, box)
            grid.caption(row, place + 2, f"{labels[film]}\nsum {total:+.2f}")
    return grid.figure
