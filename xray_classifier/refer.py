"""The third answer, "refer": which images are better left to a person, and what the rest gains.

A band of probabilities around the threshold is left undecided. It is chosen on the images that the
threshold is chosen on, as narrow as the wanted error allows.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from xray_classifier.errors import CheckpointError
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
from xray_classifier.operating_points import MAX_POINTS, OperatingCurve


@dataclass(frozen=True, slots=True)
class ReferBand:
    """Probabilities that get no decision: `low <= p_sick < high`.

    Attributes:
        low: Below it an image is called healthy; at most the threshold.
        high: From it on an image is called sick; at least the threshold.
        target_error: Largest share of wrong answers that was asked for.
        share_referred: Share of the images it was chosen on that fall inside.
        error: Share of wrong answers among the others of these; NaN where none is left.
        met: Whether `error` reaches the target; where it does not, all images are referred.
    """

    low: float
    high: float
    target_error: float
    share_referred: float
    error: float
    met: bool

    def inside(self, probabilities: Scores) -> BoolArray:
        """Which images are referred, shape (n_images,)."""
        values = np.asarray(probabilities, dtype=np.float64)
        return (values >= self.low) & (values < self.high)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "error": None if math.isnan(self.error) else self.error}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "ReferBand":
        """Read what `to_dict` wrote.

        Raises:
            CheckpointError: A part is missing, of the wrong kind, or the band is upside down.
        """
        try:
            error = stored["error"]
            band = cls(
                low=float(stored["low"]),
                high=float(stored["high"]),
                target_error=float(stored["target_error"]),
                share_referred=float(stored["share_referred"]),
                error=math.nan if error is None else float(error),
                met=bool(stored["met"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as problem:
            raise CheckpointError(f"the stored refer band cannot be read: {problem}") from problem
        if not (0 <= band.low <= band.high and math.isfinite(band.high)):
            raise CheckpointError("the stored refer band is no range of probabilities")
        return band


def solve_band(
    labels: Labels, probabilities: Scores, threshold: float, target_error: float
) -> ReferBand:
    """The band around a threshold that refers fewest images and leaves few enough errors.

    Both ends move on their own: every pair of cuts below and above the threshold is tried; where
    there are more than `MAX_POINTS` distinct probabilities, as many cuts spread evenly over them.
    Of several pairs that refer as few, the one with fewest errors, then fewest missed sick, is
    taken.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1].
        threshold: Of the decision.
        target_error: Largest share of wrong answers among those given, in [0, 1).

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.
    """
    sick, values = check_labels(labels, probabilities)
    decide(values, threshold)  # refuses what is no probability
    cuts = _cuts(values)
    lows = np.append(cuts[cuts < threshold], threshold)
    highs = np.append(threshold, cuts[cuts > threshold])
    rising = np.sort(values)
    rising_sick = np.sort(values[sick])
    called_healthy = np.searchsorted(rising, lows)
    missed = np.searchsorted(rising_sick, lows)
    called_sick = len(values) - np.searchsorted(rising, highs)
    false_alarms = called_sick - (len(rising_sick) - np.searchsorted(rising_sick, highs))
    answered = called_healthy[:, np.newaxis] + called_sick
    wrong = missed[:, np.newaxis] + false_alarms
    good = (wrong <= target_error * answered) & (answered > 0)
    if not good.any():
        return ReferBand(0.0, float(highs[-1]), target_error, 1.0, math.nan, False)
    # more answers first, then fewer errors, then fewer missed
    order = np.lexsort(
        (np.broadcast_to(missed[:, np.newaxis], wrong.shape)[good], wrong[good], -answered[good])
    )
    low, high = (int(axis[order[0]]) for axis in np.nonzero(good))
    given = int(answered[low, high])
    return ReferBand(
        low=float(lows[low]),
        high=float(highs[high]),
        target_error=target_error,
        share_referred=1 - given / len(values),
        error=float(wrong[low, high] / given),
        met=True,
    )


class RiskCoverage(NamedTuple):
    """What is gained by answering less, from the surest images to all, each shape (n_points,)."""

    coverage: FloatArray
    """Share of the images that get an answer, rising to 1."""
    error: FloatArray
    """Share of wrong answers among these."""


def risk_coverage(labels: Labels, probabilities: Scores, threshold: float) -> RiskCoverage:
    """Error against coverage, where the images nearest to the threshold are given up first.

    Near means on the logit scale. Images that are equally near leave together.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1].
        threshold: Of the decision.

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.

    Source:
        El-Yaniv & Wiener 2010, JMLR 11:1605.
    """
    sick, values = check_labels(labels, probabilities)
    wrong = decide(values, threshold) != sick
    distance = np.abs(_logit(values) - float(_logit(np.array([threshold]))[0]))
    distance = np.round(distance, 9)  # 0.3 and 0.7 are equally far from 0.5
    _, place, counts = np.unique(-distance, return_inverse=True, return_counts=True)
    errors = np.bincount(place, weights=wrong, minlength=len(counts))
    answered: IntArray = np.cumsum(counts)
    return RiskCoverage(answered / max(len(values), 1), np.cumsum(errors) / answered)


def error_with_band(
    labels: Labels, probabilities: Scores, band: ReferBand, threshold: float
) -> float:
    """Share of wrong answers among images that a band leaves to the model; NaN where none is."""
    sick, values = check_labels(labels, probabilities)
    given = ~band.inside(values)
    wrong = decide(values, threshold) != sick
    return ratio(float((wrong & given).sum()), float(given.sum()))


def curve_prevalence(curve: OperatingCurve) -> float:
    """Share of sick among the images that an operating curve was made on."""
    return curve.n_sick / (curve.n_sick + curve.n_healthy)


def _cuts(values: FloatArray) -> FloatArray:
    """Thresholds between neighbouring probabilities, from 0 to above the highest, rising."""
    observed = np.unique(values)
    middle = observed[:-1] + (observed[1:] - observed[:-1]) / 2
    middle = np.where(middle > observed[:-1], middle, observed[1:])
    cuts = np.concatenate(([0.0], middle, [np.nextafter(observed[-1], np.inf)]))
    if len(cuts) <= MAX_POINTS:
        return cuts
    return cuts[np.unique(np.linspace(0, len(cuts) - 1, MAX_POINTS).astype(np.int64))]


def _logit(values: FloatArray) -> FloatArray:
    floor = 1e-12
    return np.asarray(np.log(np.maximum(values, floor)) - np.log(np.maximum(1 - values, floor)))
