"""The numbers behind a curve as a short table, for those who cannot see it or want to copy it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report.words import number_text

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MOST_ROWS = 25


def curve_rows(*columns: ArrayLike, most: int = MOST_ROWS) -> tuple[tuple[str, ...], ...]:
    """Points of a curve from end to end, evenly by place, as rows of texts.

    Args:
        columns: The coordinates, each shape (n_points,).
        most: Rows at most; both ends are always there.

    Raises:
        ValueError: The columns differ in shape.
    """
    table = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    places = np.linspace(0, len(table) - 1, min(most, len(table)))
    chosen = np.unique(np.rint(places).astype(np.int64))
    return tuple(tuple(_text(float(value)) for value in table[row]) for row in chosen)


def _text(value: float) -> str:
    """An infinite threshold, where nobody is called sick, is no missing number."""
    if np.isinf(value):
        return "infinite"
    return f"{value:,.0f}" if value.is_integer() and abs(value) > 1 else number_text(value)
