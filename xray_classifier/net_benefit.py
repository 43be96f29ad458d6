"""Whether acting on the model does more good than treating everybody, or nobody.

A threshold t says how many false alarms one found sick person is worth: (1 - t) / t. Net benefit
counts the sick found, less the false alarms at that price, per image judged.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.bootstrap import bootstrap_values, patient_clusters
from xray_classifier.metrics import (
    FloatArray,
    IntArray,
    Labels,
    Scores,
    check_labels,
    decide,
    ratio,
)
from xray_classifier.weighted import divide

THRESHOLDS = tuple(step / 100 for step in range(1, 100))
"""Where a decision curve is drawn: 0.01, 0.02, ... 0.99."""


@dataclass(frozen=True, slots=True)
class DecisionCurve:
    """Net benefit over threshold probabilities; arrays of shape (n_thresholds,)."""

    thresholds: FloatArray
    """Probabilities, in (0, 1), rising."""
    model: FloatArray
    """Acting where `probability >= threshold`; at most the prevalence; NaN where undefined."""
    low: FloatArray
    """Lower end of the pointwise interval of `model`; NaN where the data support none."""
    high: FloatArray
    """Upper end."""
    treat_all: FloatArray
    """Acting on every image."""
    treat_none: FloatArray
    """Acting on no image: 0."""
    prevalence: float
    """Share of the sick that the curve holds for."""


def net_benefit(tp: float, fp: float, n: float, threshold: float) -> float:
    """Net benefit of one decision at the prevalence of the data, per image.

    Args:
        tp: Sick images called sick.
        fp: Healthy images called sick.
        n: All images.
        threshold: The operating threshold, a probability.

    Returns:
        At most the prevalence; NaN without images, and for a threshold outside (0, 1), which sets
        no price on a false alarm.

    Source:
        Vickers & Elkin 2006, doi:10.1177/0272989X06295361.
    """
    return ratio(tp - _price(threshold) * fp, n)


def weighted_net_benefit(outcomes: NDArray[np.int64], threshold: float) -> FloatArray:
    """Net benefit of each resample, shape (n_resamples,).

    Args:
        outcomes: Counts tp, fp, tn, fn from `weighted.weighted_confusion`, (n_resamples, 4).
        threshold: As in `net_benefit`.
    """
    gained = outcomes[:, 0] - _price(threshold) * outcomes[:, 1]
    return divide(gained, outcomes.sum(axis=1).astype(np.float64))


def net_benefit_at(
    sensitivity: float, specificity: float, prevalence: float, threshold: float
) -> float:
    """Net benefit where another share is sick than in the data, per person.

    Sensitivity and specificity are taken to stay as they are.

    Args:
        sensitivity: At the threshold, in [0, 1].
        specificity: At the threshold, in [0, 1].
        prevalence: Share of the sick, in [0, 1].
        threshold: A probability at that prevalence; NaN comes of one outside (0, 1).
    """
    alarms = (1 - specificity) * (1 - prevalence)
    return sensitivity * prevalence - _price(threshold) * alarms


def decision_curve(
    labels: Labels,
    probabilities: Scores,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    prevalence: float | None = None,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> DecisionCurve:
    """Net benefit of the model, of treating all and of treating none, with a band.

    The band holds at each threshold by itself: the middle share of resampled patients.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1]. For a stated prevalence these are the
            probabilities at that prevalence, from `prevalence.at_prevalence`.
        groups: Patient of each image, shape (n_images,), as in `bootstrap.patient_clusters`.
        seed: Of the bootstrap.
        thresholds: Strictly rising, in (0, 1).
        prevalence: Share of the sick to re-weight the data to, in (0, 1); None: as in the data.
        n_resamples: Bootstrap resamples; 0 draws no band.
        level: Confidence of the band, in (0, 1).

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.
        ValueError: Thresholds do not rise within (0, 1), or the prevalence is not inside it.

    Source:
        Vickers & Elkin 2006, doi:10.1177/0272989X06295361; the re-weighting and the band as in
        Vickers et al. 2008, doi:10.1186/1472-6947-8-53.
    """
    sick, values = check_labels(labels, probabilities)
    decide(values, 0.0)  # refuses what is no probability
    cuts = _checked(thresholds, prevalence)
    clusters = patient_clusters(groups, len(sick))
    cells = 2 * np.searchsorted(cuts, values, side="right") + sick
    order = np.argsort(cells, kind="stable")
    curve = _Curve(cells[order], cuts, prevalence)
    model = curve(np.ones((1, len(sick))))[0]
    low, high = np.full((2, len(cuts)), np.nan)
    if n_resamples and len(sick):
        low, high = _band(bootstrap_values(curve, clusters[order], n_resamples, seed), level)
    share = ratio(int(sick.sum()), len(sick)) if prevalence is None else prevalence
    return DecisionCurve(
        thresholds=cuts,
        model=model,
        low=low,
        high=high,
        treat_all=share - (1 - share) * cuts / (1 - cuts),
        treat_none=np.zeros_like(cuts),
        prevalence=share,
    )


class _Curve:
    """Net benefit of many resamples at every threshold, from weights ordered by cell.

    Args:
        cells: 2 x the count of thresholds that the image reaches, plus 1 for sick; not falling.
        cuts: The thresholds.
        prevalence: Share of the sick to re-weight to; None: that of each resample.
    """

    def __init__(self, cells: IntArray, cuts: FloatArray, prevalence: float | None) -> None:
        self.present, self.starts = np.unique(cells, return_index=True)
        self.price = cuts / (1 - cuts)
        self.prevalence = prevalence

    def __call__(self, weights: FloatArray) -> FloatArray:
        """Shape (n_resamples, n_thresholds)."""
        in_cell = np.zeros((len(weights), 2 * len(self.price) + 2))
        if len(self.present):
            in_cell[:, self.present] = np.add.reduceat(weights, self.starts, axis=1)
        reached = np.cumsum(in_cell.reshape(len(weights), -1, 2)[:, ::-1], axis=1)[:, ::-1]
        totals, called = reached[:, :1], reached[:, 1:]
        if self.prevalence is None:
            gained = called[..., 1] - self.price * called[..., 0]
            return divide(gained, totals.sum(axis=2))
        rates = divide(called, totals)
        found, alarms = self.prevalence * rates[..., 1], (1 - self.prevalence) * rates[..., 0]
        return np.asarray(found - self.price * alarms, dtype=np.float64)


def _price(threshold: float) -> float:
    """Found sick that one false alarm costs."""
    return threshold / (1 - threshold) if 0 < threshold < 1 else math.nan


def _checked(thresholds: tuple[float, ...], prevalence: float | None) -> FloatArray:
    cuts = np.asarray(thresholds, dtype=np.float64)
    if not (len(cuts) and cuts[0] > 0 and cuts[-1] < 1 and (cuts[1:] > cuts[:-1]).all()):
        raise ValueError(f"thresholds {thresholds}: expected numbers that rise within (0, 1)")
    if prevalence is not None and not 0 < prevalence < 1:
        raise ValueError(f"prevalence {prevalence}: expected a number between 0 and 1")
    return cuts


def _band(draws: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Middle share at each threshold, undefined resamples left out."""
    defined = draws[~np.isnan(draws).any(axis=1)]
    if 2 * len(defined) < len(draws):
        return np.full(draws.shape[1], np.nan), np.full(draws.shape[1], np.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2], axis=0)
    flat = high - low < 1e-12  # all resamples agree: no band rather than one of no width
    return np.where(flat, np.nan, low), np.where(flat, np.nan, high)
