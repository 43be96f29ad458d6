"""What the metrics and the methods of their intervals are called on a page, and what they say."""

from __future__ import annotations

from typing import NamedTuple


class MetricWords(NamedTuple):
    """A metric for a reader.

    Args:
        label: Its name.
        meaning: What it says, in a few words; "" for a metric that is not known here.
    """

    label: str
    meaning: str = ""


_METRICS = {
    "auroc": MetricWords(
        "AUROC",
        "how often a random sick image scores above a random healthy one; 0.5 is chance",
    ),
    "partial_auroc": MetricWords(
        "Partial AUROC",
        "the same where at most one healthy image in ten is called sick; 0.5 is chance",
    ),
    "average_precision": MetricWords(
        "Average precision", "area under the precision-recall curve; the prevalence is chance"
    ),
    "sensitivity_at_specificity_90": MetricWords(
        "Sensitivity at 90 % specificity", "found on these images, not at the stored threshold"
    ),
    "specificity_at_sensitivity_95": MetricWords(
        "Specificity at 95 % sensitivity", "found on these images, not at the stored threshold"
    ),
    "loss": MetricWords("Log loss", "cross-entropy of the raw outputs; 0.693 is a coin's"),
    "brier": MetricWords(
        "Brier score", "mean squared error of the probability; 0 is best, 0.25 is a coin's"
    ),
    "brier_skill": MetricWords(
        "Brier skill", "share of a prevalence guess's error that the model saves; 0 saves nothing"
    ),
    "ece": MetricWords(
        "Calibration error (ECE)", "mean gap of predicted and observed risk over bins; 0 is best"
    ),
    "calibration_slope": MetricWords(
        "Calibration slope", "1 is best; below 1 the probabilities are too extreme"
    ),
    "calibration_intercept": MetricWords(
        "Calibration intercept", "0 is best; above 0 the risk is larger than predicted"
    ),
    "sensitivity": MetricWords("Sensitivity", "share of the sick that are called sick"),
    "under_diagnosis_rate": MetricWords(
        "Under-diagnosis", "share of the sick that are called healthy"
    ),
    "specificity": MetricWords("Specificity", "share of the healthy that are called healthy"),
    "ppv": MetricWords("PPV", "share of those called sick who are; moves with the prevalence"),
    "npv": MetricWords("NPV", "share of those called healthy who are; moves with the prevalence"),
    "accuracy": MetricWords("Accuracy", "share of all images called rightly"),
    "balanced_accuracy": MetricWords("Balanced accuracy", "mean of sensitivity and specificity"),
    "net_benefit": MetricWords(
        "Net benefit", "sick found, less false alarms at the threshold's odds, per image"
    ),
    "f1": MetricWords("F1", "harmonic mean of PPV and sensitivity"),
    "mcc": MetricWords("Matthews correlation", "of truth and decision; 0 is chance, 1 is perfect"),
    "mse": MetricWords("Mean squared error", "in the square of the target's unit; 0 is best"),
    "mae": MetricWords("Mean absolute error", "in the target's unit; 0 is best"),
    "r2": MetricWords("R²", "share of the variance that is explained; 1 is best"),
}

_METHODS = {
    "delong": "DeLong",
    "extreme_auroc": "exact, for an AUROC of 0 or 1",
    "wilson": "Wilson",
    "wilson_patients": "Wilson, counting patients",
    "wilson_clustered": "Wilson, widened for repeated patients",
    "wald": "Wald",
    "wald_patients": "Wald, robust to repeated patients",
    "mercaldo": "Mercaldo",
    "bootstrap": "bootstrap over images",
    "patient_bootstrap": "bootstrap over patients",
}


def metric_words(key: str) -> MetricWords:
    """The words for a metric of `metrics.json`; an unknown one is called by its key."""
    return _METRICS.get(key, MetricWords(key))


def method_words(method: str) -> str:
    """How an interval was made; an unknown method in its own words, a key without underscores."""
    return _METHODS.get(method, method.replace("_", " "))
