"""Every metric of a split with the interval that suits it: what `metrics.json` holds."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier import weighted
from xray_classifier.bootstrap import (
    bootstrap_values,
    patient_clusters,
    percentile_interval,
    reflected_interval,
)
from xray_classifier.calibration_measures import recalibration
from xray_classifier.confusion import Confusion
from xray_classifier.discrimination import SENSITIVITY, SPECIFICITY
from xray_classifier.intervals import (
    NO_INTERVAL,
    Interval,
    delong_interval,
    extreme_auroc_interval,
    logit_interval,
    wilson_interval,
)
from xray_classifier.metrics import (
    BoolArray,
    FloatArray,
    IntArray,
    Labels,
    Scores,
    check_labels,
    check_numbers,
    mae,
    mse,
    r2,
    ratio,
)
from xray_classifier.net_benefit import net_benefit_at
from xray_classifier.prevalence import predictive_values, predictive_values_of, threshold_at
from xray_classifier.resampled_metrics import Split, metric_of, one_image_each, resampled_metrics

SCORE_METRICS = (
    *("auroc", "loss"),
    *("brier", "ece", "brier_skill", "calibration_slope", "calibration_intercept"),
    *("average_precision", "partial_auroc"),
    *("sensitivity_at_specificity_90", "specificity_at_sensitivity_95"),
)
PROPORTIONS = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
DECISION_METRICS = (*PROPORTIONS, "balanced_accuracy", "net_benefit", "f1", "mcc")
CLASSIFICATION_METRICS = (*SCORE_METRICS, *DECISION_METRICS)
"""In the order of a summary: AUROC, calibration, the rest of ranking, operating point; F1 and MCC
last."""
AREAS = ("average_precision", "partial_auroc")
RECALIBRATION = ("calibration_slope", "calibration_intercept")
SUMMARY_METRICS = (
    *("auroc", "sensitivity", "specificity", "ppv", "npv", "brier", "under_diagnosis_rate"),
)
"""What is told of each subgroup."""
_OF_ANOTHER = {"under_diagnosis_rate": "sensitivity"}
"""One minus which share."""
REGRESSION_METRICS = ("mse", "mae", "r2")
MIN_PATIENTS = 10
"""Fewer of these in the denominator, or in a class for AUROC, say nothing of a subgroup."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric and how far it may be off; NaN where undefined, which JSON writers turn to null."""

    value: float
    ci_low: float
    ci_high: float
    method: str
    """How the interval was made: delong, extreme_auroc, wilson, wilson_patients, wald,
    wald_patients, mercaldo, bootstrap or patient_bootstrap."""
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
    independent, and everything gets a bootstrap over patients. Calibration slope and intercept get
    Wald's interval, of images or of patients. No bootstrap can say how far a perfect value is off:
    an AUROC of 0 or 1 gets `extreme_auroc_interval`, a proportion of 0 or 1 Wilson's interval, both
    with patients counted in place of images, and the rest no interval.

    A bootstrap interval is the middle share of the resamples, but for three: areas under a curve
    get `logit_interval` with the variance of the resamples, which holds the truth more often where
    patients are few; the ECE gets the mirrored one, see `reflected_interval`; and a point of the
    ROC curve gets none where so few patients stand behind its side condition that, short of all of
    them, none can be missed.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        logits: Raw outputs, shape (n_images,): what ranks images, and the loss, read these.
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
    split = _checked(labels, logits, probabilities, threshold, groups)
    return _judge(split, CLASSIFICATION_METRICS, seed, n_resamples, level)


def summary_metrics(
    labels: Labels,
    logits: Scores,
    probabilities: Scores,
    threshold: float,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    *,
    names: Sequence[str] = SUMMARY_METRICS,
    n_resamples: int = 1000,
    level: float = 0.95,
    min_patients: int = MIN_PATIENTS,
) -> dict[str, Estimate]:
    """Judge a classifier on one of many subgroups: a few metrics, no more work than they need.

    As `classification_metrics`, with `under_diagnosis_rate` besides: the share of the sick who were
    called healthy, 1 - sensitivity.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        logits: Raw outputs, shape (n_images,).
        probabilities: Calibrated P(sick), shape (n_images,).
        threshold: Called sick where the probability reaches it.
        groups: Patient of each image, shape (n_images,), as in `patient_clusters`, or None.
        seed: Of the bootstrap.
        names: Of `CLASSIFICATION_METRICS` or `SUMMARY_METRICS`.
        n_resamples: Bootstrap resamples.
        level: Confidence, in (0, 1).
        min_patients: With fewer patients in the denominator, or in either class for a metric that
            both classes make, a metric keeps its value but has no interval.

    Returns:
        The metrics named, in that order.

    Raises:
        DataError: As `classification_metrics`.
        ValueError: A name is unknown.
    """
    unknown = set(names) - {*CLASSIFICATION_METRICS, *SUMMARY_METRICS}
    if unknown:
        raise ValueError(f"no metric is called {', '.join(sorted(unknown))}")
    split = _checked(labels, logits, probabilities, threshold, groups)
    few = {name for name in names if _too_few(split, name, min_patients)}
    return _judge(split, names, seed, n_resamples, level, few)


def prevalence_metrics(
    labels: Labels,
    probabilities: Scores,
    threshold: float,
    prevalence: float,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    *,
    calibrated_to: float | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """PPV, NPV and net benefit of the same decisions where another share of the people is sick.

    Assumes label shift, as all of `prevalence.py`. PPV and NPV get the logit intervals of Mercaldo
    et al., or a bootstrap over patients where any has several images; net benefit a bootstrap. The
    net benefit's threshold is the one that makes these decisions at the stated prevalence.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: Calibrated P(sick), shape (n_images,), in [0, 1].
        threshold: Called sick where the probability reaches it.
        prevalence: Share of the sick there, in (0, 1).
        groups: Patient of each image, shape (n_images,), as in `patient_clusters`, or None.
        seed: Of the bootstrap.
        calibrated_to: Share of the sick that the probabilities are calibrated to, in (0, 1); None:
            that of these images.
        n_resamples: Bootstrap resamples.
        level: Confidence, in (0, 1).

    Returns:
        `ppv`, `npv` and `net_benefit`; all NaN if only one class is present.

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.
        ValueError: A prevalence is not inside (0, 1).
    """
    split = _checked(labels, probabilities, probabilities, threshold, groups)
    method, formula = _resampling(split), predictive_values(split.counts, prevalence, level)
    base = ratio(int(split.sick.sum()), len(split.sick)) if calibrated_to is None else calibrated_to
    price = threshold_at(threshold, base, prevalence) if 0 < base < 1 else threshold
    draws = resampled_metrics(split, ("sensitivity", "specificity"), n_resamples, seed)
    rates = list(zip(draws["sensitivity"].tolist(), draws["specificity"].tolist(), strict=True))
    values = np.array([predictive_values_of(*pair, prevalence) for pair in rates])
    gains = np.array([net_benefit_at(*pair, prevalence, price) for pair in rates])
    ppv, npv = formula.ppv_interval, formula.npv_interval
    if not split.one_image_each:
        of_patients = predictive_values(_patient_counts(split), prevalence, level)
        ppv, npv = (
            _widened(percentile_interval(column, level), instead, value)
            for column, instead, value in zip(
                values.T,
                (of_patients.ppv_interval, of_patients.npv_interval),
                (formula.ppv, formula.npv),
                strict=True,
            )
        )
    gain = net_benefit_at(split.counts.sensitivity, split.counts.specificity, prevalence, price)
    by = "mercaldo" if split.one_image_each else method
    n_called = int(split.called.sum())
    return {
        "ppv": Estimate(formula.ppv, *ppv, by, n_called),
        "npv": Estimate(formula.npv, *npv, by, len(split.sick) - n_called),
        "net_benefit": Estimate(gain, *percentile_interval(gains, level), method, len(split.sick)),
    }


def share_estimate(
    right: BoolArray,
    among: BoolArray,
    clusters: IntArray,
    seed: int = 0,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """A share of some of the images with the interval that sensitivity would get.

    Args:
        right: Success per image, shape (n_images,).
        among: The images that it is a share of, shape (n_images,).
        clusters: Patient number of each image, shape (n_images,).
        seed: Of the bootstrap over patients.
        n_resamples: Bootstrap resamples.
        level: Confidence, in (0, 1).
    """
    n, n_right = int(among.sum()), int((right & among).sum())
    value = ratio(n_right, n)
    if one_image_each(clusters):
        return Estimate(value, *_wilson(value, n, level), "wilson", n)
    if value in (0.0, 1.0) or not n:
        n_patients = len(np.unique(clusters[among]))
        return Estimate(value, *_wilson(value, n_patients, level), "wilson_patients", n)
    counted = np.stack([right & among, among], axis=1).astype(np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        hits, images = (weights @ counted).T
        return weighted.divide(hits, images)

    draws = bootstrap_values(statistic, clusters, n_resamples, seed)
    return Estimate(value, *percentile_interval(draws, level), "patient_bootstrap", n)


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
    how = "bootstrap" if one_image_each(clusters) else "patient_bootstrap"
    found = (mse(truth, values), mae(truth, values), r2(truth, values))
    return {
        name: Estimate(value, *percentile_interval(draws, level), how, len(truth))
        for name, value, draws in zip(REGRESSION_METRICS, found, resampled.T, strict=True)
    }


def _patient_counts(split: Split) -> Confusion:
    """Outcomes as if each patient had one image: those of the images, scaled class by class."""
    c, sick = split.counts, split.sick
    if sick.all() or not sick.any():
        return c
    per_sick, per_healthy = (
        ratio(len(np.unique(split.clusters[part])), int(part.sum())) for part in (sick, ~sick)
    )
    return Confusion(
        tp=round(c.tp * per_sick), fp=round(c.fp * per_healthy),
        tn=round(c.tn * per_healthy), fn=round(c.fn * per_sick),
    )  # fmt: skip


def _widened(found: Interval, instead: Interval, value: float) -> Interval:
    """An interval, or where the resamples all agree the one instead, stretched to the value."""
    if not np.isnan(found.low) or np.isnan(instead.low):
        return found
    return Interval(min(instead.low, value), max(instead.high, value))


def _checked(
    labels: Labels,
    logits: Scores,
    probabilities: Scores,
    threshold: float,
    groups: NDArray[Any] | None,
) -> Split:
    """The split, once its parts were found to fit together."""
    sick, _ = check_labels(labels, logits)
    check_labels(labels, probabilities)
    return Split(labels, logits, probabilities, threshold, patient_clusters(groups, len(sick)))


def _judge(
    split: Split,
    names: Sequence[str],
    seed: int,
    n_resamples: int,
    level: float,
    without: Collection[str] = (),
) -> dict[str, Estimate]:
    """The metrics named, each with the interval that suits it, those in `without` with none."""
    drawn = [_OF_ANOTHER.get(name, name) for name in names if name not in without]
    formulas = {*RECALIBRATION, *(("auroc", *PROPORTIONS) if split.one_image_each else ())}
    drawn = [name for name in dict.fromkeys(drawn) if name not in formulas]
    draws = resampled_metrics(split, drawn, n_resamples, seed)
    recalibrated = _recalibrated(split, level) if {*RECALIBRATION} & {*names} else {}
    found = {}
    for name in names:
        one = recalibrated.get(name) or _estimate(split, _OF_ANOTHER.get(name, name), draws, level)
        one = _mirrored(one) if name in _OF_ANOTHER else one
        found[name] = replace(one, ci_low=nan, ci_high=nan) if name in without else one
    return found


def _estimate(split: Split, name: str, draws: dict[str, FloatArray], level: float) -> Estimate:
    """One metric with the interval of a formula or of the resamples."""
    value, images = metric_of(split, name), _denominator(split, name)
    resampled = draws.get(name, np.zeros(0)) if _told_from_all(split, name) else np.zeros(0)
    if name == "auroc":
        method, interval = _auroc_interval(split, value, resampled, level)
    elif name in PROPORTIONS:
        method, interval = _proportion_interval(split, value, images, resampled, level)
    elif name in AREAS:
        method, interval = _resampling(split), _area_interval(value, resampled, level)
    elif name == "ece":
        method, interval = _resampling(split), reflected_interval(value, resampled, level)
    else:
        method, interval = _resampling(split), percentile_interval(resampled, level)
    return Estimate(value, *interval, method, int(images.sum()))


def _recalibrated(split: Split, level: float) -> dict[str, Estimate]:
    """Calibration slope and intercept."""
    found = recalibration(split.labels, split.probabilities, split.clusters, level)
    method = "wald" if split.one_image_each else "wald_patients"
    n = len(split.sick)
    return {
        "calibration_slope": Estimate(found.slope, *found.slope_interval, method, n),
        "calibration_intercept": Estimate(found.intercept, *found.intercept_interval, method, n),
    }


def _mirrored(one: Estimate) -> Estimate:
    """One minus a share."""
    return Estimate(1 - one.value, 1 - one.ci_high, 1 - one.ci_low, one.method, one.n)


def _denominator(split: Split, name: str) -> BoolArray:
    """The images that a metric is a share of, shape (n_images,)."""
    among = {
        "sensitivity": split.sick,
        "sensitivity_at_specificity_90": split.sick,
        "specificity": ~split.sick,
        "specificity_at_sensitivity_95": ~split.sick,
        "ppv": split.called,
        "npv": ~split.called,
    }
    return among.get(name, np.ones(len(split.sick), dtype=np.bool_))


def _told_from_all(split: Split, name: str) -> bool:
    """Whether a side condition such as "specificity 0.90" allows for a single missed patient."""
    conditions = {
        "sensitivity_at_specificity_90": (~split.sick, SPECIFICITY),
        "specificity_at_sensitivity_95": (split.sick, SENSITIVITY),
    }
    if name not in conditions:
        return True
    side, share = conditions[name]
    return len(np.unique(split.clusters[side])) >= round(1 / (1 - share))


def _too_few(split: Split, name: str, min_patients: int) -> bool:
    """Whether a subgroup holds too few patients for an interval."""
    parts = [_denominator(split, _OF_ANOTHER.get(name, name))]
    if name not in (*PROPORTIONS, *_OF_ANOTHER, "brier", "loss", "ece"):
        parts = [split.sick, ~split.sick]
    return any(len(np.unique(split.clusters[part])) < min_patients for part in parts)


def _auroc_interval(
    split: Split, value: float, draws: FloatArray, level: float
) -> tuple[str, Interval]:
    if value in (0.0, 1.0):
        n_pairs = _independent_pairs(split.clusters[split.sick], split.clusters[~split.sick])
        return "extreme_auroc", extreme_auroc_interval(value, n_pairs, level)
    if split.one_image_each:
        return "delong", delong_interval(split.labels, split.logits, level)
    return "patient_bootstrap", _area_interval(value, draws, level)


def _area_interval(value: float, draws: FloatArray, level: float) -> Interval:
    """Interval of an area under a curve from the variance of its resamples."""
    if np.isnan(percentile_interval(draws, level).low):
        return NO_INTERVAL
    return logit_interval(value, float(np.nanvar(draws)), level)


def _proportion_interval(
    split: Split, value: float, images: BoolArray, draws: FloatArray, level: float
) -> tuple[str, Interval]:
    """Interval of a share of these images."""
    if split.one_image_each:
        return "wilson", _wilson(value, int(images.sum()), level)
    if value in (0.0, 1.0):
        n_patients = len(np.unique(split.clusters[images]))
        return "wilson_patients", _wilson(value, n_patients, level)
    return "patient_bootstrap", percentile_interval(draws, level)


def _wilson(share: float, n: int, level: float) -> Interval:
    return wilson_interval(round(share * n), n, level) if n else NO_INTERVAL


def _independent_pairs(sick: IntArray, healthy: IntArray) -> int:
    """How many pairs of a sick and a healthy image can be formed that share no patient at all."""
    n_patients = len(np.union1d(sick, healthy))
    return min(len(np.unique(sick)), len(np.unique(healthy)), n_patients // 2)


def _resampling(split: Split) -> str:
    return "bootstrap" if split.one_image_each else "patient_bootstrap"
