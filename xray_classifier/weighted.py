"""The metrics of `metrics.py` for many resamples at once, each resample a row of image weights.

Drawing a patient twice counts each of their images twice, so a resample is a row of whole numbers.
Sorting and binning happen once for all rows, which makes thousands of resamples cheap. Each
function takes labels (n_images,), scores (n_images,) and weights (n_resamples, n_images), and gives
one value per resample, NaN where that resample leaves the metric undefined. Errors are those of
the plain metric.
"""

from typing import NamedTuple

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


class Ranked(NamedTuple):
    """Weights at each distinct score, highest first, all of shape (n_resamples, n_distinct)."""

    sick: FloatArray
    """Weight of the sick with this score."""
    healthy: FloatArray
    """Weight of the healthy with this score."""
    tp: FloatArray
    """Weight of the sick with this score or a higher one: called sick at this threshold."""
    fp: FloatArray
    """Weight of the healthy with this score or a higher one."""

    @property
    def n_sick(self) -> FloatArray:
        """Weight of all sick, shape (n_resamples,)."""
        return np.asarray(self.sick.sum(axis=1))

    @property
    def n_healthy(self) -> FloatArray:
        """Weight of all healthy, shape (n_resamples,)."""
        return np.asarray(self.healthy.sum(axis=1))


def ranked_weights(labels: Labels, scores: Scores, weights: FloatArray) -> Ranked:
    """Gather weights by score, once for every metric that reads nothing but the ranking.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logit or probability of sick, shape (n_images,). Scores that already fall spare
            the weights a copy.
        weights: Whole numbers, shape (n_resamples, n_images).

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the two shapes differ.
    """
    sick, values = check_labels(labels, scores)
    if (values[1:] > values[:-1]).any():
        order = np.argsort(-values)
        sick, values, weights = sick[order], values[order], weights[:, order]
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
    sick_at = weights * sick
    healthy_at = weights - sick_at
    if len(starts) < len(values):
        sick_at = np.add.reduceat(sick_at, starts, axis=1)
        healthy_at = np.add.reduceat(healthy_at, starts, axis=1)
    return Ranked(sick_at, healthy_at, np.cumsum(sick_at, axis=1), np.cumsum(healthy_at, axis=1))


def weighted_auroc(labels: Labels, scores: Scores, weights: FloatArray) -> FloatArray:
    """AUROC of each resample, shape (n_resamples,); as `metrics.auroc`."""
    return auroc_of(ranked_weights(labels, scores, weights))


def auroc_of(ranked: Ranked) -> FloatArray:
    """AUROC of each resample, shape (n_resamples,); as `metrics.auroc`."""
    n_sick, n_healthy = ranked.n_sick, ranked.n_healthy
    pairs_won = np.einsum("ij,ij->i", ranked.healthy, ranked.tp)
    pairs_tied = np.einsum("ij,ij->i", ranked.healthy, ranked.sick)
    return divide(pairs_won - pairs_tied / 2, n_sick * n_healthy)


def weighted_average_precision(labels: Labels, scores: Scores, weights: FloatArray) -> FloatArray:
    """Average precision of each resample, shape (n_resamples,); as `metrics.average_precision`."""
    return average_precision_of(ranked_weights(labels, scores, weights))


def average_precision_of(ranked: Ranked) -> FloatArray:
    """Average precision of each resample, shape (n_resamples,); as `metrics.average_precision`."""
    called = ranked.tp + ranked.fp
    np.maximum(called, 1.0, out=called)  # nobody called: no hit either, and 0 / 1 adds nothing
    precision = np.divide(ranked.tp, called, out=called)
    return divide(np.einsum("ij,ij->i", precision, ranked.sick), ranked.n_sick)


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
    return divide(np.abs(weights @ gap_in_bin).sum(axis=1), weights.sum(axis=1))


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


def decision_values(outcomes: NDArray[np.int64]) -> dict[str, FloatArray]:
    """The fractions of `confusion.Confusion` for each resample.

    Args:
        outcomes: Counts tp, fp, tn, fn, shape (n_resamples, 4).

    Returns:
        By name as there, each of shape (n_resamples,), NaN where the denominator is zero.
    """
    tp, fp, tn, fn = outcomes.T.astype(np.float64)
    sensitivity, specificity = divide(tp, tp + fn), divide(tn, tn + fp)
    margins = np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn))
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": divide(tp, tp + fp),
        "npv": divide(tn, tn + fn),
        "accuracy": divide(tp + tn, tp + fp + tn + fn),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "f1": divide(2 * tp, 2 * tp + fp + fn),
        "mcc": divide(tp * tn - fp * fn, margins),
    }


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
    return 1.0 - divide(weights @ (values - truth) ** 2, spread)


def _weighted_mean(terms: FloatArray, weights: FloatArray) -> FloatArray:
    return divide(weights @ terms, weights.sum(axis=1))


def divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """A quotient for each resample, NaN where the denominator is zero."""
    quotient = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient
