"""The metrics of a classifier by name: of a split itself, and of many resamples of it at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xray_classifier import discrimination, weighted
from xray_classifier.bootstrap import bootstrap_values
from xray_classifier.calibration_measures import brier_skill, weighted_brier_skill
from xray_classifier.confusion import Confusion, confusion
from xray_classifier.metrics import (
    BoolArray,
    FloatArray,
    IntArray,
    Labels,
    Scores,
    auroc,
    average_precision,
    brier_score,
    decide,
    expected_calibration_error,
    log_loss_from_logits,
)
from xray_classifier.net_benefit import net_benefit, weighted_net_benefit
from xray_classifier.weighted import Ranked

Plain = Callable[[Labels, Scores], float]
Many = Callable[[Labels, Scores, FloatArray], FloatArray]

OF_RANKING: dict[str, tuple[Plain, Callable[[Ranked], FloatArray]]] = {
    "auroc": (auroc, weighted.auroc_of),
    "partial_auroc": (discrimination.partial_auroc, discrimination.partial_auroc_of),
    "average_precision": (average_precision, weighted.average_precision_of),
    "sensitivity_at_specificity_90": (
        discrimination.sensitivity_at_specificity,
        discrimination.sensitivity_at_specificity_of,
    ),
    "specificity_at_sensitivity_95": (
        discrimination.specificity_at_sensitivity,
        discrimination.specificity_at_sensitivity_of,
    ),
}
"""Read the order of the logits."""
OF_PROBABILITIES: dict[str, tuple[Plain, Many]] = {
    "brier": (brier_score, weighted.weighted_brier_score),
    "brier_skill": (brier_skill, weighted_brier_skill),
    "ece": (expected_calibration_error, weighted.weighted_calibration_error),
}
"""Read the calibrated probabilities."""


@dataclass(frozen=True)
class Split:
    """One split and the decision on it; arrays of shape (n_images,)."""

    labels: Labels
    """1 is sick, 0 is healthy."""
    logits: Scores
    """Raw outputs."""
    probabilities: Scores
    """Calibrated P(sick), in [0, 1]."""
    threshold: float
    """The operating point, a probability."""
    clusters: IntArray
    """Patient number of each image, from `bootstrap.patient_clusters`."""

    @cached_property
    def sick(self) -> BoolArray:
        """Where the label is 1."""
        return np.asarray(np.asarray(self.labels) == 1)

    @cached_property
    def called(self) -> BoolArray:
        """Where the decision is sick."""
        return decide(self.probabilities, self.threshold)

    @cached_property
    def counts(self) -> Confusion:
        """The four outcomes."""
        return confusion(self.labels, self.probabilities, self.threshold)

    @cached_property
    def one_image_each(self) -> bool:
        """Whether no patient has two images."""
        return one_image_each(self.clusters)


def one_image_each(clusters: IntArray) -> bool:
    """Whether no patient has two images; clusters (n_images,) from `bootstrap.patient_clusters`."""
    return len(np.unique(clusters)) == len(clusters)


def metric_of(split: Split, name: str) -> float:
    """One metric of the split itself: those of the tables above, `loss`, `net_benefit`, and the
    properties of `Confusion`.

    Raises:
        DataError: A score is NaN, a probability is outside [0, 1], a label is not 0 or 1, or
            shapes differ.
    """
    if name in OF_RANKING:
        return OF_RANKING[name][0](split.labels, split.logits)
    if name in OF_PROBABILITIES:
        return OF_PROBABILITIES[name][0](split.labels, split.probabilities)
    if name == "loss":
        return log_loss_from_logits(split.labels, split.logits)
    if name == "net_benefit":
        return net_benefit(split.counts.tp, split.counts.fp, len(split.sick), split.threshold)
    return float(getattr(split.counts, name))


def resampled_metrics(
    split: Split, names: Sequence[str], n_resamples: int, seed: int
) -> dict[str, FloatArray]:
    """The same metrics over resamples of patients.

    Images are brought into falling order of the logit first, once for all resamples.

    Args:
        split: Of any size.
        names: As for `metric_of`; none draws nothing.
        n_resamples: At least 1.
        seed: Of the draws.

    Returns:
        By name, in that order, each of shape (n_resamples,), NaN where undefined.
    """
    if not names:
        return {}
    order = np.argsort(-np.asarray(split.logits), kind="stable")
    labels, logits = np.asarray(split.labels)[order], np.asarray(split.logits)[order]
    probabilities = np.asarray(split.probabilities)[order]
    ranking = [name for name in names if name in OF_RANKING]
    scoring = [name for name in names if name in OF_PROBABILITIES]
    deciding = set(names) - {*ranking, *scoring, "loss"}

    def statistic(weights: FloatArray) -> FloatArray:
        values: dict[str, FloatArray] = {}
        if ranking:
            ranked = weighted.ranked_weights(labels, logits, weights)
            values |= {name: OF_RANKING[name][1](ranked) for name in ranking}
        for name in scoring:
            values[name] = OF_PROBABILITIES[name][1](labels, probabilities, weights)
        if "loss" in names:
            values["loss"] = weighted.weighted_log_loss(labels, logits, weights)
        if deciding:
            outcomes = weighted.weighted_confusion(labels, probabilities, split.threshold, weights)
            values |= weighted.decision_values(outcomes)
            values["net_benefit"] = weighted_net_benefit(outcomes, split.threshold)
        return np.stack([values[name] for name in names], axis=1)

    drawn = bootstrap_values(statistic, split.clusters[order], n_resamples, seed)
    return dict(zip(names, drawn.T, strict=True))
