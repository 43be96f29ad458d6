"""What probabilities and answers are worth where another share of the people is sick.

All of it assumes label shift: the sick here look like the sick there, the healthy like the healthy,
and only their shares differ. Nothing in the data can prove that.
"""

import math
from typing import NamedTuple

import numpy as np

from xray_classifier.confusion import Confusion
from xray_classifier.intervals import NO_INTERVAL, Interval, expit, normal_quantile
from xray_classifier.metrics import FloatArray, Scores, decide


def at_prevalence(probabilities: Scores, calibrated_to: float, prevalence: float) -> FloatArray:
    """P(sick) at another prevalence: the odds times the ratio of the two prior odds.

    Args:
        probabilities: P(sick), any number of them, shape (n_images,), in [0, 1].
        calibrated_to: Share of the sick among the images the probabilities were calibrated on,
            in (0, 1).
        prevalence: Share of the sick where they are to be used, in (0, 1).

    Returns:
        Shape (n_images,), in [0, 1]; 0 stays 0, 1 stays 1, and the order of images stays.

    Raises:
        DataError: A probability is NaN or outside [0, 1].
        ValueError: A prevalence is not inside (0, 1).

    Source:
        Saerens et al. 2002, doi:10.1162/089976602753284446, equation 2.4.
    """
    decide(probabilities, 0.0)  # refuses what is no probability
    values = np.asarray(probabilities, dtype=np.float64)
    sick = _inside(prevalence) / _inside(calibrated_to) * values
    healthy = (1 - prevalence) / (1 - calibrated_to) * (1 - values)
    return np.asarray(sick / (sick + healthy), dtype=np.float64)


def threshold_at(threshold: float, calibrated_to: float, prevalence: float) -> float:
    """The threshold that makes, at another prevalence, the same decisions.

    Args:
        threshold: For the probabilities as they are, in [0, 1].
        calibrated_to: As in `at_prevalence`.
        prevalence: As in `at_prevalence`.
    """
    return float(at_prevalence(np.array([threshold]), calibrated_to, prevalence)[0])


class PredictiveValues(NamedTuple):
    """PPV and NPV of a decision at a stated prevalence."""

    ppv: float
    """Share of those called sick who are; NaN where nobody would be called sick."""
    ppv_interval: Interval
    npv: float
    """Share of those called healthy who are; NaN where nobody would be called healthy."""
    npv_interval: Interval


def predictive_values(
    counts: Confusion, prevalence: float, level: float = 0.95
) -> PredictiveValues:
    """PPV and NPV at a stated prevalence, with intervals on the logit scale.

    Sensitivity and specificity come from the data, the prevalence from elsewhere and without error.
    Where a count is 0 the interval is made from adjusted counts, half a squared normal quantile
    added to each, for the logit would be infinite; it is then stretched to hold the value itself.
    Images must be independent: one per patient.

    Args:
        counts: Outcomes of the decision.
        prevalence: Share of the sick, in (0, 1).
        level: Confidence, in (0, 1).

    Returns:
        All NaN if only one class is present.

    Raises:
        ValueError: The prevalence is not inside (0, 1).

    Source:
        Mercaldo, Lau & Zhou 2007, doi:10.1002/sim.2677: the standard logit intervals, and the
        adjusted ones of their table II.
    """
    _inside(prevalence)
    tp, fn, fp, tn = (float(count) for count in (counts.tp, counts.fn, counts.fp, counts.tn))
    if not tp + fn or not tn + fp:
        return PredictiveValues(math.nan, NO_INTERVAL, math.nan, NO_INTERVAL)
    ppv, npv = predictive_values_of(tp / (tp + fn), tn / (tn + fp), prevalence)
    if min(tp, fn, fp, tn) == 0:
        extra = normal_quantile(level) ** 2 / 2
        tp, fn, fp, tn = tp + extra, fn + extra, fp + extra, tn + extra
    odds = prevalence / (1 - prevalence)
    n_sick, n_healthy = tp + fn, fp + tn
    ppv_logit = math.log(odds * (tp / n_sick) / (fp / n_healthy))
    npv_logit = math.log((tn / n_healthy) / (odds * (fn / n_sick)))
    return PredictiveValues(
        ppv,
        _logit_interval(ppv, ppv_logit, fn / tp / n_sick + tn / fp / n_healthy, level),
        npv,
        _logit_interval(npv, npv_logit, tp / fn / n_sick + fp / tn / n_healthy, level),
    )


def predictive_values_of(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float, float]:
    """PPV and NPV by Bayes' rule; NaN where nobody gets that answer.

    Args:
        sensitivity: In [0, 1].
        specificity: In [0, 1].
        prevalence: In [0, 1].
    """
    found, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    cleared, alarms = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    ppv = found / (found + alarms) if found + alarms > 0 else math.nan
    npv = cleared / (cleared + missed) if cleared + missed > 0 else math.nan
    return ppv, npv


def _logit_interval(value: float, logit: float, variance: float, level: float) -> Interval:
    if math.isnan(value):
        return NO_INTERVAL
    reach = normal_quantile(level) * math.sqrt(variance)
    return Interval(min(expit(logit - reach), value), max(expit(logit + reach), value))


def _inside(prevalence: float) -> float:
    if not 0 < prevalence < 1:
        raise ValueError(f"prevalence {prevalence}: expected a number between 0 and 1")
    return prevalence
