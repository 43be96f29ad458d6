"""Whether probabilities mean what they say, as numbers with an interval: skill, slope, intercept.

Calibration is fitted and stored by `calibration.py`; here it is judged on other images. A slope
below 1 says that probabilities are too extreme, as after overfitting; an intercept above 0 that
sick images are more frequent than the probabilities say.
"""

import math
from typing import NamedTuple

import numpy as np

from xray_classifier.intervals import NO_INTERVAL, Interval, wald_interval
from xray_classifier.metrics import (
    BoolArray,
    FloatArray,
    IntArray,
    Labels,
    Scores,
    brier_score,
    brier_terms,
    check_labels,
    ratio,
    sigmoid,
)
from xray_classifier.weighted import divide, weighted_brier_score

FARTHEST_LOGIT = 53 * math.log(2)
"""Logit of 1 - 2^-53, the highest probability below 1 that a double holds; about 36.7."""
MIN_PATIENTS = 3
"""Fewer patients with several images have no variance."""
MAX_STEPS = 100
PRECISION = 1e-10
"""Stop where a Newton step moves slope and intercept by less than this."""


def brier_skill(labels: Labels, probabilities: Scores) -> float:
    """Share of the prevalence guess's Brier score that the probabilities save.

    The guess says, of every image, the share of sick images in this split.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1].

    Returns:
        At most 1; 0 is no better than the guess; NaN if only one class is present.

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.

    Source:
        Steyerberg et al. 2010, doi:10.1097/EDE.0b013e3181c30fb2, the scaled Brier score.
    """
    share = ratio(int(np.sum(np.asarray(labels) == 1)), len(labels))
    guess = share * (1 - share)
    return 1 - ratio(brier_score(labels, probabilities), guess)


def weighted_brier_skill(labels: Labels, probabilities: Scores, weights: FloatArray) -> FloatArray:
    """Brier skill of each resample against its own prevalence, shape (n_resamples,)."""
    sick, _ = check_labels(labels, probabilities)
    share = divide(weights @ sick.astype(np.float64), weights.sum(axis=1))
    score = weighted_brier_score(labels, probabilities, weights)
    return np.asarray(1 - divide(score, share * (1 - share)), dtype=np.float64)


class Recalibration(NamedTuple):
    """What a logistic regression of the truth on the logit of the probabilities says."""

    slope: float
    """1 where right, below 1 where probabilities are too extreme; NaN where none can be fitted."""
    slope_interval: Interval
    intercept: float
    """Calibration in the large, in logits: what must be added to every logit, the slope kept at 1,
    so that the probabilities add up to the count of the sick; 0 where right, NaN with one class."""
    intercept_interval: Interval


def recalibration(
    labels: Labels, probabilities: Scores, clusters: IntArray | None = None, level: float = 0.95
) -> Recalibration:
    """Calibration slope and calibration in the large, with Wald intervals.

    Where a patient has several images the variance is that of whole patients (sandwich form).
    A probability nearer to 0 or 1 than 2^-53 is taken as 2^-53 away from it, so that a probability
    of exactly 0 or 1 has a logit.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1].
        clusters: Patient number of each image from `bootstrap.patient_clusters`; None: every image
            is a patient of its own.
        level: Confidence, in (0, 1).

    Returns:
        The slope is NaN where one probability parts the classes without error, or all are equal:
        no finite slope is the best then.

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.

    Source:
        Cox 1958, doi:10.1093/biomet/45.3-4.562; Van Calster et al. 2019,
        doi:10.1186/s12916-019-1466-7; patients as in Rogers 1993, Stata Technical Bulletin 13:19.
    """
    brier_terms(labels, probabilities)  # refuses what is no probability
    sick, values = check_labels(labels, probabilities)
    if sick.all() or not sick.any():
        return Recalibration(math.nan, NO_INTERVAL, math.nan, NO_INTERVAL)
    logits = _logits(values)
    ones = np.ones((len(logits), 1))
    shift, shift_variance = _fit(ones, logits, sick, clusters)
    slope, slope_variance = math.nan, math.nan
    if _overlap(sick, logits):
        table = np.hstack([ones, logits[:, np.newaxis]])
        fitted, variance = _fit(table, np.zeros_like(logits), sick, clusters)
        slope, slope_variance = float(fitted[1]), float(variance[1, 1])
    intercept, intercept_variance = float(shift[0]), float(shift_variance[0, 0])
    return Recalibration(
        slope,
        wald_interval(slope, slope_variance, level),
        intercept,
        wald_interval(intercept, intercept_variance, level),
    )


def _logits(probabilities: FloatArray) -> FloatArray:
    """Logit of each probability, no farther out than `FARTHEST_LOGIT`."""
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) - np.log1p(-probabilities)
    return np.asarray(np.clip(logits, -FARTHEST_LOGIT, FARTHEST_LOGIT))


def _overlap(sick: BoolArray, logits: FloatArray) -> bool:
    """Whether no cut parts the classes, be it with ties on the cut itself.

    Source:
        Albert & Anderson 1984, doi:10.1093/biomet/71.1.1: the best slope is finite only then.
    """
    above = logits[sick].min() >= logits[~sick].max()
    below = logits[sick].max() <= logits[~sick].min()
    return not (above or below)


def _fit(
    table: FloatArray, offset: FloatArray, sick: BoolArray, clusters: IntArray | None
) -> tuple[FloatArray, FloatArray]:
    """Best weights of sick ~ sigmoid(offset + table @ weights), (k,), and their variance, (k, k).

    Newton's method; a step that does not raise the likelihood is halved.
    """
    weights = np.zeros(table.shape[1])
    loss = _loss(offset, sick)
    for _ in range(MAX_STEPS):
        gap, bread = _slopes(table, offset + table @ weights, sick)
        step = np.linalg.lstsq(bread, table.T @ gap)[0]
        while (tried := _loss(offset + table @ (weights + step), sick)) > loss + 1e-12 * abs(loss):
            step /= 2
        weights, loss = weights + step, tried
        if float(np.abs(step).max()) < PRECISION:
            break
    else:
        return np.full_like(weights, np.nan), np.full_like(bread, np.nan)
    gap, bread = _slopes(table, offset + table @ weights, sick)
    inverse = np.asarray(np.linalg.pinv(bread), dtype=np.float64)
    if clusters is None or len(np.unique(clusters)) == len(clusters):
        return weights, inverse
    return weights, inverse @ _meat(table * gap[:, np.newaxis], clusters) @ inverse


def _loss(logits: FloatArray, sick: BoolArray) -> float:
    return float(np.logaddexp(0.0, np.where(sick, -logits, logits)).sum())


def _slopes(
    table: FloatArray, logits: FloatArray, sick: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Truth minus probability of each image, and the information matrix."""
    probabilities = sigmoid(logits)
    bends = probabilities * sigmoid(-logits)  # 1 - probability would be 0 from a logit of 37 on
    return np.asarray(sick - probabilities), np.asarray((table.T * bends) @ table)


def _meat(scores: FloatArray, clusters: IntArray) -> FloatArray:
    """Variance of the summed scores of whole patients, (k, k), with n / (n - 1) of n patients.

    Of two patients the summed scores cancel, and would make a variance of 0.
    """
    n_patients = int(clusters.max()) + 1
    sums = np.stack(
        [np.bincount(clusters, column, minlength=n_patients) for column in scores.T], axis=1
    )
    n_drawn = len(np.unique(clusters))
    if n_drawn < MIN_PATIENTS:
        return np.full((len(sums.T), len(sums.T)), np.nan)
    return np.asarray(sums.T @ sums * (n_drawn / (n_drawn - 1)), dtype=np.float64)
