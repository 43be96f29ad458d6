"""Which part of the loss axis a picture shows, and on which scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HUGE = 1e100
"""A loss beyond this is treated like infinity: no axis can show it next to others."""

_EXPLOSION = 10.0
_LOG_RANGE = 50.0


class LossFrame(NamedTuple):
    """The part of the loss axis that is shown.

    Args:
        low: Lower end of the axis.
        high: Upper end of the axis.
        log: True where the axis is logarithmic.
        peak_outside: Largest loss above the axis, None where the axis holds everything.
    """

    low: float
    high: float
    log: bool
    peak_outside: float | None


def loss_frame(curves: list[NDArray[np.float64]]) -> LossFrame:
    """Choose the part of the loss axis to show, and its scale.

    - The first fifth of the epochs is left above the frame only where it exploded: its peak is
      more than 10 times the largest later value. The frame then shows 1.5 times that value.
    - The axis is logarithmic only if all values are positive and the largest shown is more than
      50 times the smallest.
    - A linear axis starts at 0 unless all values lie in its upper half (or below 0).

    Args:
        curves: One array per line, each of shape (n_epochs,); not finite values are ignored.
    """
    values = _finite(curves)
    if not values.size:
        return LossFrame(0.0, 1.0, False, None)
    n_epochs = max(curve.size for curve in curves)
    early = math.ceil(n_epochs / 5) if n_epochs >= 3 else 0
    late = _finite([curve[early:] for curve in curves])
    low, peak = float(values.min()), float(values.max())
    later = float(late.max()) if late.size else peak
    exploded = low >= 0 and later > 0 and peak > _EXPLOSION * later
    shown = 1.5 * later if exploded else peak
    log = low > 0 and shown > _LOG_RANGE * low
    # Headroom for the words at the top is a share of the drawn range: a power of it on a log axis.
    if log:
        decades = math.log(shown) - math.log(low)  # of the quotient, which may overflow
        bottom, top = low / 1.3, math.exp(math.log(shown) + 0.2 * decades)
    else:
        start = 0.0 if 0 <= low < 0.5 * shown else low
        span = max(shown - start, 0.02 * abs(shown), 1e-9)
        bottom = start if start == 0.0 and low > 0.05 * shown else start - 0.08 * span
        top = shown + 0.2 * span
    return LossFrame(bottom, top, log, peak if peak > top else None)


def _finite(curves: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """All usable values of all curves, shape (n,)."""
    if not curves:
        return np.empty(0)
    values = np.concatenate(curves)
    return values[np.abs(values) < HUGE]
