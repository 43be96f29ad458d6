"""The curves behind the figures: ROC, precision-recall, reliability.

Images with the same score enter a curve together: no threshold can part them.
"""

from typing import NamedTuple

import numpy as np

from xray_classifier.metrics import (
    BoolArray,
    FloatArray,
    IntArray,
    Labels,
    Scores,
    check_labels,
    probability_bins,
)


class RocCurve(NamedTuple):
    """Points of a ROC curve, from (0, 0) to (1, 1), each shape (n_thresholds,)."""

    false_positive_rate: FloatArray
    """1 - specificity at each threshold, rising; NaN throughout if no image is healthy."""
    sensitivity: FloatArray
    """Sensitivity at each threshold, rising; NaN throughout if no image is sick."""
    thresholds: FloatArray
    """Scores, falling; the first is infinite, where no image is called sick."""


def roc_curve(labels: Labels, scores: Scores) -> RocCurve:
    """Sensitivity against false-positive rate at every threshold that changes them.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logit or probability of sick, shape (n_images,).

    Returns:
        One point per distinct score and the start (0, 0); `score >= threshold` is called sick.

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the two shapes differ.
    """
    sick, values = check_labels(labels, scores)
    thresholds, hits, called = _falling(sick, values)
    return RocCurve(
        false_positive_rate=_share(np.append(0.0, called - hits), int((~sick).sum())),
        sensitivity=_share(np.append(0.0, hits), int(sick.sum())),
        thresholds=np.append(np.inf, thresholds),
    )


class PrecisionRecallCurve(NamedTuple):
    """Points of a precision-recall curve, from recall 0 to recall 1, each shape (n_thresholds,)."""

    precision: FloatArray
    """PPV at each threshold; the first point is 1 by convention, where nobody is called sick."""
    recall: FloatArray
    """Sensitivity at each threshold, rising; NaN throughout if no image is sick."""
    thresholds: FloatArray
    """Scores, falling; the first is infinite."""


def precision_recall_curve(labels: Labels, scores: Scores) -> PrecisionRecallCurve:
    """PPV against sensitivity at every distinct score; draw it as steps.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logit or probability of sick, shape (n_images,).

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the two shapes differ.
    """
    sick, values = check_labels(labels, scores)
    thresholds, hits, called = _falling(sick, values)
    return PrecisionRecallCurve(
        precision=np.append(1.0, hits / called),
        recall=_share(np.append(0.0, hits), int(sick.sum())),
        thresholds=np.append(np.inf, thresholds),
    )


class ReliabilityCurve(NamedTuple):
    """Stated against observed risk, each shape (n_bins,); empty bins hold NaN and a count of 0."""

    mean_predicted: FloatArray
    """Mean probability of the images in the bin, in [0, 1]."""
    observed_fraction: FloatArray
    """Share of sick images in the bin, in [0, 1]."""
    counts: IntArray
    """Images in the bin."""


def reliability_curve(labels: Labels, probabilities: Scores, n_bins: int = 10) -> ReliabilityCurve:
    """Hold the stated probability against what was observed, bin by bin.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1].
        n_bins: Bins of equal width, as in `metrics.probability_bins`.

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.
    """
    sick, values = check_labels(labels, probabilities)
    bins = probability_bins(values, n_bins)
    counts = np.bincount(bins, minlength=n_bins)
    images = np.where(counts > 0, counts, np.nan)
    return ReliabilityCurve(
        mean_predicted=np.bincount(bins, weights=values, minlength=n_bins) / images,
        observed_fraction=np.bincount(bins, weights=sick, minlength=n_bins) / images,
        counts=counts,
    )


def _falling(sick: BoolArray, values: FloatArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Distinct scores from the top, the sick at or above each, all images at or above each."""
    falling, place, counts = np.unique(-values, return_inverse=True, return_counts=True)
    hits = np.bincount(place, weights=sick, minlength=len(counts))
    return 0.0 - falling, np.cumsum(hits), np.cumsum(counts)


def _share(counts: FloatArray, total: int) -> FloatArray:
    return counts / total if total else np.full(len(counts), np.nan)
