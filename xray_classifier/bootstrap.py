"""How far any other number may be off: resample the patients and look.

The patient is the unit that is drawn, for images of one patient resemble each other; with one image
each this is the plain bootstrap over images.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import DataError
from xray_classifier.intervals import NO_INTERVAL, Interval
from xray_classifier.metrics import FloatArray, IntArray

RESAMPLES_AT_ONCE = 64
"""Rows of weights in memory together: 64 x 10,000 images x 8 bytes = 5 MB."""

Statistic = Callable[[FloatArray], FloatArray]
"""Weights (rows, n_images) to values (rows,) or (rows, n_values), NaN where undefined."""


def patient_clusters(groups: NDArray[Any] | None, n_images: int) -> IntArray:
    """Number the patients 0, 1, 2, ...

    Args:
        groups: Patient id per image, shape (n_images,), texts or numbers; an image whose id is
            missing (None, NaN or "") is a patient of its own. None: every image is.
        n_images: How many images there are.

    Returns:
        Patient number of each image, shape (n_images,).

    Raises:
        DataError: The shape is not (n_images,).
    """
    if groups is None:
        return np.arange(n_images, dtype=np.int64)
    ids = np.asarray(groups, dtype=object)
    if ids.shape != (n_images,):
        raise DataError(f"patients have shape {ids.shape}; expected one per image, ({n_images},)")
    numbers: dict[object, int] = {}
    return np.array(
        [
            numbers.setdefault((i,) if _is_missing(g) else str(g), len(numbers))
            for i, g in enumerate(ids)
        ],
        dtype=np.int64,
    )


class BootstrapInterval(NamedTuple):
    """Interval of a statistic from resampled patients."""

    low: float
    high: float
    n_undefined: int
    """Resamples in which the statistic was undefined, and which were left out."""


def cluster_bootstrap_interval(
    statistic: Statistic,
    groups: NDArray[Any],
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> BootstrapInterval:
    """Percentile interval of a statistic when images of one patient go together.

    Args:
        statistic: Values of many resamples at once; see `weighted.py`, with labels and scores
            bound: `lambda weights: weighted_auroc(labels, logits, weights)`.
        groups: Patient of each image, shape (n_images,), as in `patient_clusters`.
        n_resamples: How often to draw all patients anew, with replacement.
        seed: Same seed, same interval.
        level: Confidence, in (0, 1).

    Returns:
        As `percentile_interval`, with the count of undefined resamples.

    Source:
        Efron 1979, doi:10.1214/aos/1176344552; whole clusters as in Field & Welsh 2007,
        doi:10.1111/j.1467-9868.2007.00593.x.
    """
    clusters = patient_clusters(groups, len(groups))
    values = bootstrap_values(statistic, clusters, n_resamples, seed)
    n_undefined = int(np.isnan(values).sum())
    return BootstrapInterval(*percentile_interval(values, level), n_undefined)


def bootstrap_values(
    statistic: Statistic, clusters: IntArray, n_resamples: int, seed: int
) -> FloatArray:
    """Values of a statistic over resamples of patients.

    Args:
        statistic: Weights (rows, n_images) to values, shape (rows,) or (rows, n_values).
        clusters: From `patient_clusters`.
        n_resamples: At least 1.
        seed: Of the draws.

    Returns:
        Shape (n_resamples,) or (n_resamples, n_values).
    """
    rows = resample_weights(clusters, n_resamples, seed)
    return np.concatenate([statistic(weights) for weights in rows])


def resample_weights(clusters: IntArray, n_resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each image was drawn, for blocks of resamples, each (rows, n_images)."""
    generator = np.random.default_rng(seed)
    n_clusters = int(clusters.max(initial=-1)) + 1
    for start in range(0, n_resamples, RESAMPLES_AT_ONCE):
        rows = min(RESAMPLES_AT_ONCE, n_resamples - start)
        drawn = generator.integers(0, max(n_clusters, 1), size=(rows, n_clusters))
        drawn += np.arange(rows)[:, np.newaxis] * n_clusters
        times = np.bincount(drawn.ravel(), minlength=rows * n_clusters)
        yield times.reshape(rows, n_clusters)[:, clusters].astype(np.float64)


def percentile_interval(values: FloatArray, level: float = 0.95) -> Interval:
    """The middle share of resampled values, undefined ones left out.

    Args:
        values: Shape (n_resamples,), NaN where undefined.
        level: Share between the two ends, in (0, 1).

    Returns:
        No interval if fewer than half the resamples are defined, or if all agree: a resample of
        images that are all right is all right again, and says nothing of other images.
    """
    defined = values[np.isfinite(values)]
    if not len(defined) or 2 * len(defined) < len(values) or float(np.ptp(defined)) < 1e-12:
        return NO_INTERVAL
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))


def reflected_interval(value: float, values: FloatArray, level: float = 0.95) -> Interval:
    """The middle share of resampled values, mirrored at the value itself (the basic bootstrap).

    For a statistic that noise makes too large and resampling larger still, such as the ECE: the
    percentile interval would lie above the truth, and at times above the value itself.

    Args:
        value: The statistic on the split itself, at least 0.
        values: Shape (n_resamples,), NaN where undefined.
        level: Share between the two ends, in (0, 1).

    Returns:
        Two ends with 0 <= low <= value <= high; none where `percentile_interval` gives none.

    Source:
        Davison & Hinkley 1997, Bootstrap Methods and their Application, section 5.2.1.
    """
    low, high = percentile_interval(values, level)
    if math.isnan(low):
        return NO_INTERVAL
    return Interval(max(0.0, min(value, 2 * value - high)), max(value, 2 * value - low))


def _is_missing(group: object) -> bool:
    return group is None or group == "" or (isinstance(group, float) and math.isnan(group))
