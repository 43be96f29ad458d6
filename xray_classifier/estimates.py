"""Every metric of a split with the interval that suits it: what `metrics.json` holds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier import weighted
from xray_classifier.bootstrap import (
    Statistic,
    bootstrap_values,
    patient_clusters,
    percentile_interval,
    reflected_interval,
)
from xray_classifier.confusion import Confusion, confusion
from xray_classifier.intervals import (
    NO_INTERVAL,
    Interval,
    delong_interval,
    extreme_auroc_interval,
    wilson_interval,
)
from xray_classifier.metrics import (
    FloatArray,
    IntArray,
    Labels,
    Scores,
    auroc,
    average_precision,
    brier_score,
    check_labels,
    check_numbers,
    decide,
    expected_calibration_error,
    log_loss_from_logits,
    mae,
    mse,
    r2,
)

SCORE_METRICS = ("auroc", "loss", "brier", "ece", "average_precision")
PROPORTIONS = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
DECISION_METRICS = (*PROPORTIONS, "balanced_accuracy", "f1", "mcc")
CLASSIFICATION_METRICS = (*SCORE_METRICS, *DECISION_METRICS)
"""In the order of a summary: ranking, calibration, operating point; F1 and MCC last."""
REGRESSION_METRICS = ("mse", "mae", "r2")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric and how far it may be off; NaN where undefined, which JSON writers turn to null."""

    value: float
    ci_low: float
    ci_high: float
    method: str
    """How the interval was made: delong, extreme_auroc, wilson, wilson_patients, bootstrap or
    patient_bootstrap."""
    n: int
    """Images in the denominator: the sick for sensitivity, all for AUROC, and so on."""


def classification_metrics(
    labels: Labels,
    logits: Scores,
    probabilities: Scores,
    threshold: float,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Judge a classifier on one split.

    Where every image is a patient of its own, AUROC gets DeLong's interval, proportions get
    Wilson's, the rest a bootstrap over images. Where any patient has several images, these are not
    independent, and everything gets a bootstrap over patients. No bootstrap can say how far a
    perfect value is off: an AUROC of 0 or 1 gets `extreme_auroc_interval`, a proportion of 0 or 1
    Wilson's interval, both with patients counted in place of images, and the rest no interval. The
    ECE gets the mirrored bootstrap interval, see `reflected_interval`.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        logits: Raw outputs, shape (n_images,): AUROC, average precision and loss read these.
        probabilities: Calibrated P(sick), shape (n_images,): the rest reads these.
        threshold: Called sick where the probability reaches it.
        groups: Patient of each image, shape (n_images,), as in `patient_clusters`, or None.
        seed: Of the bootstrap.
        n_resamples: Bootstrap resamples.
        level: Confidence, in (0, 1).

    Returns:
        `CLASSIFICATION_METRICS`, in that order.

    Raises:
        DataError: A score is NaN, a probability is outside [0, 1], a label is not 0 or 1, or
            shapes differ.
    """
    sick, _ = check_labels(labels, logits)
    clusters = patient_clusters(groups, len(sick))
    values = _classification_values(labels, logits, probabilities, threshold)
    resampled = bootstrap_values(
        _classification_statistic(labels, logits, probabilities, threshold),
        clusters,
        n_resamples,
        seed,
    )
    called = decide(probabilities, threshold)
    among = {"sensitivity": sick, "specificity": ~sick, "ppv": called, "npv": ~called}
    estimates = {}
    for name, value, draws in zip(CLASSIFICATION_METRICS, values, resampled.T, strict=True):
        images = among.get(name, np.ones(len(sick), dtype=np.bool_))
        if name == "auroc":
            method, interval = _auroc_interval(labels, logits, value, clusters, draws, level)
        elif name in PROPORTIONS:
            method, interval = _proportion_interval(value, clusters[images], clusters, draws, level)
        elif name == "ece":
            method, interval = _resampling(clusters), reflected_interval(value, draws, level)
        else:
            method, interval = _resampling(clusters), percentile_interval(draws, level)
        estimates[name] = Estimate(value, *interval, method, int(images.sum()))
    return estimates


def regression_metrics(
    targets: Scores,
    predictions: Scores,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Judge a regression on one split; intervals resample images, or patients where any repeats.

    Args:
        targets: True number per image, shape (n_images,).
        predictions: Predicted number per image, shape (n_images,), same unit.
        groups: Patient of each image, shape (n_images,), as in `patient_clusters`, or None.
        seed: Of the bootstrap.
        n_resamples: Bootstrap resamples.
        level: Confidence, in (0, 1).

    Returns:
        `REGRESSION_METRICS`, in that order.

    Raises:
        DataError: A number is NaN or infinite, or shapes differ.
    """
    truth, values = check_numbers(targets, predictions)
    clusters = patient_clusters(groups, len(truth))

    def statistic(weights: FloatArray) -> FloatArray:
        columns = [
            weighted.weighted_mse(truth, values, weights),
            weighted.weighted_mae(truth, values, weights),
            weighted.weighted_r2(truth, values, weights),
        ]
        return np.stack(columns, axis=1)

    resampled = bootstrap_values(statistic, clusters, n_resamples, seed)
    found = (mse(truth, values), mae(truth, values), r2(truth, values))
    return {
        name: Estimate(value, *percentile_interval(draws, level), _resampling(clusters), len(truth))
        for name, value, draws in zip(REGRESSION_METRICS, found, resampled.T, strict=True)
    }


def _classification_values(
    labels: Labels, logits: Scores, probabilities: Scores, threshold: float
) -> tuple[float, ...]:
    """`CLASSIFICATION_METRICS` of the split itself."""
    counts = confusion(labels, probabilities, threshold)
    return (
        auroc(labels, logits),
        log_loss_from_logits(labels, logits),
        brier_score(labels, probabilities),
        expected_calibration_error(labels, probabilities),
        average_precision(labels, logits),
        *_of_counts(counts),
    )


def _classification_statistic(
    labels: Labels, logits: Scores, probabilities: Scores, threshold: float
) -> Statistic:
    """`CLASSIFICATION_METRICS` of many resamples, shape (rows, n_metrics)."""

    def statistic(weights: FloatArray) -> FloatArray:
        scores = [
            weighted.weighted_auroc(labels, logits, weights),
            weighted.weighted_log_loss(labels, logits, weights),
            weighted.weighted_brier_score(labels, probabilities, weights),
            weighted.weighted_calibration_error(labels, probabilities, weights),
            weighted.weighted_average_precision(labels, logits, weights),
        ]
        outcomes = weighted.weighted_confusion(labels, probabilities, threshold, weights)
        decisions = [_of_counts(Confusion(*row)) for row in outcomes.tolist()]
        return np.hstack([np.stack(scores, axis=1), np.array(decisions)])

    return statistic


def _of_counts(counts: Confusion) -> list[float]:
    return [getattr(counts, name) for name in DECISION_METRICS]


def _auroc_interval(
    labels: Labels,
    logits: Scores,
    value: float,
    clusters: IntArray,
    draws: FloatArray,
    level: float,
) -> tuple[str, Interval]:
    if value in (0.0, 1.0):
        sick = np.asarray(labels) == 1
        n_pairs = _independent_pairs(clusters[sick], clusters[~sick])
        return "extreme_auroc", extreme_auroc_interval(value, n_pairs, level)
    if _one_image_each(clusters):
        return "delong", delong_interval(labels, logits, level)
    return "patient_bootstrap", percentile_interval(draws, level)


def _proportion_interval(
    value: float, patients: IntArray, clusters: IntArray, draws: FloatArray, level: float
) -> tuple[str, Interval]:
    """Interval of a share of the images whose patients are given."""
    if _one_image_each(clusters):
        return "wilson", _wilson(value, len(patients), level)
    if value in (0.0, 1.0):
        return "wilson_patients", _wilson(value, len(np.unique(patients)), level)
    return "patient_bootstrap", percentile_interval(draws, level)


def _wilson(share: float, n: int, level: float) -> Interval:
    return wilson_interval(round(share * n), n, level) if n else NO_INTERVAL


def _independent_pairs(sick: IntArray, healthy: IntArray) -> int:
    """How many pairs of a sick and a healthy image can be formed that share no patient at all."""
    n_patients = len(np.union1d(sick, healthy))
    return min(len(np.unique(sick)), len(np.unique(healthy)), n_patients // 2)


def _one_image_each(clusters: IntArray) -> bool:
    return len(np.unique(clusters)) == len(clusters)


def _resampling(clusters: IntArray) -> str:
    return "bootstrap" if _one_image_each(clusters) else "patient_bootstrap"
