"""How sure an operating point is: the threshold's own interval, and what it holds on new patients.

A threshold solved on some images looks better on these than on others, and so does a calibration.
Cross-fitting undoes that: the patients are dealt into folds, calibration and threshold are fitted
without a fold and used on it, and only these decisions are counted.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xray_classifier.bootstrap import percentile_interval, resample_weights
from xray_classifier.calibration import CalibrationMethod, fit_calibration
from xray_classifier.cross_validation import probe_folds
from xray_classifier.estimates import Estimate
from xray_classifier.intervals import NO_INTERVAL, Interval, wilson_interval
from xray_classifier.metrics import (
    BoolArray,
    FloatArray,
    IntArray,
    Labels,
    Scores,
    check_labels,
    decide,
    ratio,
)
from xray_classifier.operating_points import (
    Units,
    operating_curve,
    resampled_thresholds,
    solve,
)
from xray_classifier.policies import ThresholdPolicy

FOLDS = 5
RESAMPLES = 200
"""Enough for an interval of a threshold, which nobody reads beyond two digits."""


@dataclass(frozen=True, slots=True)
class OperatingEstimate:
    """What an operating point is worth on the images it was chosen on.

    Attributes:
        sensitivity: With its interval; cross-fitted where `n_folds` is above 0.
        specificity: The same.
        threshold_low: Lower end of the threshold's own 95 % interval; NaN for a fixed one.
        threshold_high: Upper end.
        n_folds: Folds of patients that calibration and threshold were fitted without; 0 where
            there are too few patients, so that the figures are those of the fit itself.
    """

    sensitivity: Estimate
    specificity: Estimate
    threshold_low: float
    threshold_high: float
    n_folds: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an undefined one is None."""
        return {
            "sensitivity": estimate_json(self.sensitivity),
            "specificity": estimate_json(self.specificity),
            "threshold_interval": [_number(self.threshold_low), _number(self.threshold_high)],
            "cross_fitted_in_folds": self.n_folds,
        }


def operating_estimate(
    labels: Labels,
    logits: Scores,
    clusters: IntArray,
    method: CalibrationMethod,
    policy: ThresholdPolicy,
    seed: int = 0,
) -> OperatingEstimate:
    """Estimate an operating point from the images that it is chosen on.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy; both are there.
        logits: Raw outputs, shape (n_images,).
        clusters: Patient number of each image, shape (n_images,), from `patient_clusters`.
        method: How logits become probabilities.
        policy: How the threshold is chosen.
        seed: Of folds and resamples.

    Raises:
        DataError: A class is missing, a logit is not finite, or shapes differ.
    """
    called, n_folds = cross_fitted(labels, logits, clusters, method, policy, seed)
    sick, _ = check_labels(labels, logits)
    low, high = threshold_interval(labels, logits, clusters, method, policy, seed)
    return OperatingEstimate(
        sensitivity=_share(called[sick], clusters[sick]),
        specificity=_share(~called[~sick], clusters[~sick]),
        threshold_low=low,
        threshold_high=high,
        n_folds=n_folds,
    )


def cross_fitted(
    labels: Labels,
    logits: Scores,
    clusters: IntArray,
    method: CalibrationMethod,
    policy: ThresholdPolicy,
    seed: int = 0,
) -> tuple[BoolArray, int]:
    """Decisions on each image by a calibration and a threshold fitted without its patient.

    Arguments as in `operating_estimate`.

    Returns:
        True for called sick, shape (n_images,); and the number of folds, 0 where there are too few
        patients and everything was fitted to all images.
    """
    truth, outputs = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    folds = probe_folds([str(c) for c in clusters.tolist()], truth, FOLDS, seed)
    if folds.of_image is None:
        return _decided(truth, outputs, outputs, clusters, method, policy), 0
    called = np.zeros(len(truth), dtype=np.bool_)
    for fold in range(folds.n_folds):
        inside = folds.of_image == fold
        called[inside] = _decided(
            truth[~inside], outputs[~inside], outputs[inside], clusters[~inside], method, policy
        )
    return called, folds.n_folds


def threshold_interval(
    labels: Labels,
    logits: Scores,
    clusters: IntArray,
    method: CalibrationMethod,
    policy: ThresholdPolicy,
    seed: int = 0,
) -> Interval:
    """Where the threshold would lie for other patients: a bootstrap of its choice.

    The calibration is kept, so that this is about the choice alone. Arguments as in
    `operating_estimate`.

    Returns:
        Two probabilities; NaN for a fixed threshold, or where no resample holds both classes.
    """
    if policy.kind == "fixed":
        return Interval(math.nan, math.nan)
    truth = np.asarray(labels)
    probabilities = fit_calibration(truth, logits, method).calibration.apply(logits)
    units = units_of(truth, clusters)
    found = [
        resampled_thresholds(truth, probabilities, weights, policy, units)
        for weights in resample_weights(clusters, RESAMPLES, seed)
    ]
    return percentile_interval(np.concatenate(found))


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """An estimate as plain values for a checkpoint, where an undefined number is None."""
    return {
        key: _number(value) if isinstance(value, float) else value
        for key, value in asdict(estimate).items()
    }


def estimate_of(stored: Mapping[str, Any]) -> Estimate:
    """Read back what `estimate_json` wrote."""
    numbers = (stored[key] for key in ("value", "ci_low", "ci_high"))
    value, low, high = (math.nan if x is None else float(x) for x in numbers)
    return Estimate(value, low, high, str(stored["method"]), int(stored["n"]))


def units_of(labels: Labels, clusters: IntArray) -> Units | None:
    """Sick and healthy patients, where any patient has several images; None: every image counts."""
    if len(np.unique(clusters)) == len(clusters):
        return None
    sick = np.asarray(labels) == 1
    return Units(len(np.unique(clusters[sick])), len(np.unique(clusters[~sick])))


def clustered_wilson(right: BoolArray, clusters: IntArray, level: float = 0.95) -> Interval:
    """Wilson's interval of a share of images that go together by patient.

    The images count for as many as they would be worth if independent: their number over the design
    effect, the ratio of the variance between patients to that of independent images. A share of 0
    or 1 shows no variance, and counts patients.

    Args:
        right: Success per image, shape (n,).
        clusters: Patient number of each image, shape (n,).
        level: Confidence, in (0, 1).

    Source:
        Rao & Scott 1992, doi:10.2307/2532311.
    """
    n = len(right)
    if not n:
        return NO_INTERVAL
    share = ratio(float(right.sum()), n)
    patients = np.unique(clusters)
    if len(patients) == n:
        return wilson_interval(float(right.sum()), n, level)
    if share in (0.0, 1.0) or len(patients) < 2:
        return wilson_interval(share * len(patients), len(patients), level)
    place = np.searchsorted(patients, clusters)
    residuals = np.bincount(place, weights=right - share)
    m = len(patients)
    variance = m / (m - 1) * float(residuals @ residuals) / n**2
    effect = max(variance / (share * (1 - share) / n), 1.0)
    return wilson_interval(share * n / effect, n / effect, level)


def _decided(
    labels: Labels,
    logits: FloatArray,
    others: FloatArray,
    clusters: IntArray,
    method: CalibrationMethod,
    policy: ThresholdPolicy,
) -> BoolArray:
    """Decisions on other logits by what is fitted to these."""
    calibration = fit_calibration(labels, logits, method).calibration
    units = units_of(labels, clusters)
    curve = operating_curve(labels, calibration.apply(logits), policy, units)
    return decide(calibration.apply(others), solve(curve, policy))


def _share(right: BoolArray, clusters: IntArray) -> Estimate:
    value = ratio(float(right.sum()), len(right))
    single = len(np.unique(clusters)) == len(clusters)
    method = "wilson" if single else "wilson_clustered"
    return Estimate(value, *clustered_wilson(right, clusters), method, len(right))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
