"""AUROC and its differences where patients have several images, by formula.

Images of one patient resemble each other, so that fewer facts stand behind them than images.
Where every image is a patient of its own, all of this is DeLong's.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import DataError
from xray_classifier.intervals import (
    NO_INTERVAL,
    Delong,
    Interval,
    delong_covariance,
    delong_interval,
    delong_test,
    expit,
    extreme_auroc_interval,
    normal_quantile,
    placements,
    wald_interval,
)
from xray_classifier.metrics import BoolArray, FloatArray, IntArray, Labels, check_labels

Rows = NDArray[np.floating[Any]]


def clustered_covariance(labels: Labels, scores: Rows, clusters: IntArray) -> Delong:
    """AUROC and its covariance over scores that judge the same images of the same patients.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logits or probabilities, one row per model, shape (n_scores, n_images).
        clusters: Patient number of each image, shape (n_images,), see `patient_clusters`.

    Returns:
        AUROCs, NaN if a class is missing; their covariance, NaN if a class stems from fewer than
        two patients.

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the shapes differ.

    Source:
        Obuchowski 1997, doi:10.2307/2533958.
    """
    rows = np.asarray(scores, dtype=np.float64)
    if rows.ndim != 2 or np.shape(clusters) != rows.shape[1:]:
        shapes = f"{rows.shape} and {np.shape(clusters)}"
        raise DataError(f"scores and patients have shapes {shapes}; expected (k, n) and (n,)")
    sick = check_labels(labels, rows[0])[0]
    _, patients = np.unique(clusters, return_inverse=True)
    undefined = np.full((len(rows), len(rows)), np.nan)
    if not sick.any() or sick.all():
        return Delong(undefined[0], undefined)
    placed = np.empty(rows.shape)
    for place, row in enumerate(rows):
        placed[place, sick], placed[place, ~sick] = placements(*check_labels(labels, row))
    aurocs = placed[:, sick].mean(axis=1)
    excess = placed - aurocs[:, np.newaxis]
    n_patients = int(patients.max()) + 1
    of_sick, n_with_sick = _sums(excess, sick, patients)
    of_healthy, n_with_healthy = _sums(excess, ~sick, patients)
    if min(n_with_sick, n_with_healthy) < 2:
        return Delong(aurocs, undefined)
    crossed = of_sick @ of_healthy.T
    covariance = n_with_sick / (n_with_sick - 1) * of_sick @ of_sick.T
    covariance = covariance + n_with_healthy / (n_with_healthy - 1) * of_healthy @ of_healthy.T
    covariance = covariance + n_patients / (n_patients - 1) * (crossed + crossed.T)
    return Delong(aurocs, covariance)


def _sums(excess: FloatArray, own: BoolArray, patients: IntArray) -> tuple[FloatArray, int]:
    """Sum over each patient's images of one class, divided by the images of that class.

    Returns:
        Shape (n_scores, n_patients), and how many patients have such an image.
    """
    chosen = patients[own]
    n_patients = int(patients.max()) + 1
    sums = [np.bincount(chosen, weights=row[own], minlength=n_patients) for row in excess]
    return np.array(sums) / own.sum(), len(np.unique(chosen))


def clustered_interval(
    labels: Labels, scores: Rows, clusters: IntArray, level: float = 0.95
) -> Interval:
    """Interval of one AUROC on the logit scale, as `delong_interval`, with patients as units.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logit or probability of sick, shape (n_images,).
        clusters: Patient number of each image, shape (n_images,).
        level: Confidence, in (0, 1).

    Returns:
        Two fractions around the AUROC; none where nothing can be said. An AUROC of 0 or 1 gets
        `extreme_auroc_interval`, over pairs that share no patient.

    Raises:
        DataError: As `clustered_covariance`.
    """
    if _one_image_each(clusters):
        return delong_interval(labels, scores, level)
    aurocs, covariance = clustered_covariance(labels, np.asarray(scores)[np.newaxis], clusters)
    area, variance = float(aurocs[0]), float(covariance[0, 0])
    if area in (0.0, 1.0):
        return extreme_auroc_interval(area, _independent_pairs(labels, clusters), level)
    if not variance > 0:
        return NO_INTERVAL
    reach = normal_quantile(level) * math.sqrt(variance) / (area * (1 - area))
    centre = math.log(area / (1 - area))
    return Interval(expit(centre - reach), expit(centre + reach))


def _independent_pairs(labels: Labels, clusters: IntArray) -> int:
    """How many pairs of a sick and a healthy image can be formed that share no patient at all."""
    sick = np.asarray(labels) == 1
    n_with_sick, n_with_healthy = len(np.unique(clusters[sick])), len(np.unique(clusters[~sick]))
    return min(n_with_sick, n_with_healthy, len(np.unique(clusters)) // 2)


class AurocDifference(NamedTuple):
    """AUROC of the second model minus that of the first, on the same images."""

    value: float
    low: float
    """Ends of its interval; NaN where its variance is zero or unknown."""
    high: float
    p_value: float
    """Two-sided; NaN where no test can be made, 1 where the models order the images alike."""
    method: str
    """delong or obuchowski."""


def auroc_difference(
    labels: Labels, first: Rows, second: Rows, clusters: IntArray, level: float = 0.95
) -> AurocDifference:
    """Ask whether two models differ in AUROC on the same images, patients being the units.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        first: Scores of one model, shape (n_images,).
        second: Scores of the other, shape (n_images,).
        clusters: Patient number of each image, shape (n_images,), see `patient_clusters`.
        level: Confidence of the interval, in (0, 1).

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the shapes differ.

    Source:
        Where each image is a patient of its own DeLong et al. 1988, doi:10.2307/2531595, else
        Obuchowski 1997, doi:10.2307/2533958.
    """
    if np.shape(first) != np.shape(second):
        raise DataError(f"scores have shapes {np.shape(first)} and {np.shape(second)}")
    rows = np.stack([first, second])
    alone = _one_image_each(clusters)
    if alone:
        method, (aurocs, covariance) = "delong", delong_covariance(labels, rows)
    else:
        method, (aurocs, covariance) = "obuchowski", clustered_covariance(labels, rows, clusters)
    value = float(aurocs[1] - aurocs[0])
    own = float(np.trace(covariance))
    variance = own - 2 * float(covariance[0, 1])
    if not variance > 1e-12 * own:  # rounding leaves a trace of two that vary as one
        same = value == 0 and not math.isnan(variance)
        return AurocDifference(value, *NO_INTERVAL, 1.0 if same else math.nan, method)
    low, high = wald_interval(value, variance, level)
    if alone:
        p_value = delong_test(labels, second, first).p_value
    else:
        p_value = math.erfc(abs(value) / math.sqrt(2 * variance))
    return AurocDifference(value, max(low, -1.0), min(high, 1.0), p_value, method)


def _one_image_each(clusters: IntArray) -> bool:
    return len(np.unique(clusters)) == len(clusters)
