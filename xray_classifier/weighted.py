"""The metrics of `metrics.py` for many resamples at once, each resample a row of image weights.

Drawing a patient twice counts each of their images twice, so a resample is a row of whole numbers.
Sorting and binning happen once for all rows, which makes thousands of resamples cheap. Each
function takes labels (n_images,), scores (n_images,) and weights (n_resamples, n_images), and gives
one value per resample, NaN where that resample leaves the metric undefined. Errors are those of
the plain metric.
"""

import numpy as np
from numpy.typing import NDArray

from xray_classifier.metrics import (
    FloatArray,
    Labels,
    Scores,
    brier_terms,
    check_labels,
    check_numbers,
    decide,
    log_loss_terms,
    probability_bins,
)


def weighted_auroc(labels: Labels, scores: Scores, weights: FloatArray) -> FloatArray:
    """AUROC of each resample, shape (n_resamples,); as `metrics.auroc`."""
    sick_at, healthy_at = _by_rising_score(labels, scores, weights)
    healthy_below = np.cumsum(healthy_at, axis=1) - healthy_at / 2
    pairs_won = (sick_at * healthy_below).sum(axis=1)
    return _divide(pairs_won, sick_at.sum(axis=1) * healthy_at.sum(axis=1))


def weighted_average_precision(labels: Labels, scores: Scores, weights: FloatArray) -> FloatArray:
    """Average precision of each resample, shape (n_resamples,); as `metrics.average_precision`."""
    sick_at, healthy_at = (side[:, ::-1] for side in _by_rising_score(labels, scores, weights))
    hits = np.cumsum(sick_at, axis=1)
    precision = _divide(hits, hits + np.cumsum(healthy_at, axis=1), where_zero=0.0)
    return _divide((precision * sick_at).sum(axis=1), sick_at.sum(axis=1))


def weighted_brier_score(labels: Labels, probabilities: Scores, weights: FloatArray) -> FloatArray:
    """Brier score of each resample, shape (n_resamples,); as `metrics.brier_score`."""
    return _weighted_mean(brier_terms(labels, probabilities), weights)


def weighted_log_loss(labels: Labels, logits: Scores, weights: FloatArray) -> FloatArray:
    """Log loss in nats of each resample, shape (n_resamples,); as `log_loss_from_logits`."""
    return _weighted_mean(log_loss_terms(labels, logits), weights)


def weighted_calibration_error(
    labels: Labels, probabilities: Scores, weights: FloatArray, n_bins: int = 10
) -> FloatArray:
    """ECE of each resample, shape (n_resamples,); as `metrics.expected_calibration_error`."""
    sick, values = check_labels(labels, probabilities)
    gap_in_bin = np.zeros((len(values), n_bins))
    gap_in_bin[np.arange(len(values)), probability_bins(values, n_bins)] = values - sick
    return _divide(np.abs(weights @ gap_in_bin).sum(axis=1), weights.sum(axis=1))


def weighted_confusion(
    labels: Labels, probabilities: Scores, threshold: float, weights: FloatArray
) -> NDArray[np.int64]:
    """Counts tp, fp, tn, fn of each resample, shape (n_resamples, 4); as `metrics.confusion`.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1].
        threshold: The operating point, a probability.
        weights: Whole numbers, shape (n_resamples, n_images).
    """
    sick, values = check_labels(labels, probabilities)
    called = decide(values, threshold)
    outcomes = np.stack([sick & called, ~sick & called, ~sick & ~called, sick & ~called], axis=1)
    return np.rint(weights @ outcomes.astype(np.float64)).astype(np.int64)


def weighted_mse(targets: Scores, predictions: Scores, weights: FloatArray) -> FloatArray:
    """Mean squared error of each resample, shape (n_resamples,); as `metrics.mse`."""
    truth, values = check_numbers(targets, predictions)
    return _weighted_mean((values - truth) ** 2, weights)


def weighted_mae(targets: Scores, predictions: Scores, weights: FloatArray) -> FloatArray:
    """Mean absolute error of each resample, shape (n_resamples,); as `metrics.mae`."""
    truth, values = check_numbers(targets, predictions)
    return _weighted_mean(np.abs(values - truth), weights)


def weighted_r2(targets: Scores, predictions: Scores, weights: FloatArray) -> FloatArray:
    """R squared of each resample, shape (n_resamples,); as `metrics.r2`."""
    truth, values = check_numbers(targets, predictions)
    distance = truth - _weighted_mean(truth, weights)[:, np.newaxis]
    spread = (weights * distance**2).sum(axis=1)
    drawn = weights > 0
    highest = np.where(drawn, truth, -np.inf).max(axis=1, initial=-np.inf)
    lowest = np.where(drawn, truth, np.inf).min(axis=1, initial=np.inf)
    spread = np.where(highest > lowest, spread, 0.0)  # rounding leaves a spread of equal targets
    return 1.0 - _divide(weights @ (values - truth) ** 2, spread)


def _by_rising_score(
    labels: Labels, scores: Scores, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weight of the sick and of the healthy at each distinct score, lowest score first.

    Returns:
        Two arrays of shape (n_resamples, n_distinct_scores).
    """
    sick, values = check_labels(labels, scores)
    order = np.argsort(values)
    ordered = weights[:, order]
    rising = values[order]
    starts = np.flatnonzero(np.append(True, rising[1:] != rising[:-1])[: len(rising)])
    sick_at = ordered * sick[order]
    healthy_at = ordered - sick_at
    if len(starts) == len(values):
        return sick_at, healthy_at
    return np.add.reduceat(sick_at, starts, axis=1), np.add.reduceat(healthy_at, starts, axis=1)


def _weighted_mean(terms: FloatArray, weights: FloatArray) -> FloatArray:
    return _divide(weights @ terms, weights.sum(axis=1))


def _divide(
    numerator: FloatArray, denominator: FloatArray, where_zero: float = np.nan
) -> FloatArray:
    quotient = np.full(numerator.shape, where_zero)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient
