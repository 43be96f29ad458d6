"""Which probability parts sick from healthy: the curve that threshold policies are solved on.

The curve is made on the validation split and stored in the checkpoint, so that another policy can
be chosen later without touching the data at hand.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import CheckpointError, DataError
from xray_classifier.metrics import FloatArray, IntArray, Labels, Scores, check_labels, decide
from xray_classifier.policies import ThresholdPolicy

MAX_POINTS = 512
"""Most points of a stored curve."""

_Z95 = NormalDist().inv_cdf(0.975)


class Units(NamedTuple):
    """How many independent sick and healthy stand behind a curve: patients, or images."""

    sick: int
    healthy: int


@dataclass(frozen=True, slots=True)
class OperatingCurve:
    """Sensitivity and specificity on the validation split at thresholds from low to high."""

    thresholds: tuple[float, ...]
    """Probabilities, strictly rising, from 0 to just above the highest probability seen."""
    sensitivity: tuple[float, ...]
    """Share of the sick at or above each threshold, falling from 1 to 0."""
    specificity: tuple[float, ...]
    """Share of the healthy below each threshold, rising from 0 to 1."""
    n_sick: int
    n_healthy: int
    units: Units | None = None
    """Sick and healthy patients, where patients have several images; None: images."""

    @property
    def independent(self) -> Units:
        """How many independent sick and healthy there are."""
        return self.units or Units(self.n_sick, self.n_healthy)

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers that JSON holds without loss."""
        return {
            "thresholds": list(self.thresholds),
            "sensitivity": list(self.sensitivity),
            "specificity": list(self.specificity),
            "n_sick": self.n_sick,
            "n_healthy": self.n_healthy,
            "units": None if self.units is None else list(self.units),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "OperatingCurve":
        """Read what `to_dict` wrote.

        Raises:
            CheckpointError: A part is missing, of the wrong kind, or makes no curve.
        """
        try:
            units = stored.get("units")
            curve = cls(
                thresholds=tuple(map(float, stored["thresholds"])),
                sensitivity=tuple(map(float, stored["sensitivity"])),
                specificity=tuple(map(float, stored["specificity"])),
                n_sick=int(stored["n_sick"]),
                n_healthy=int(stored["n_healthy"]),
                units=None if units is None else Units(*map(int, units)),
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"the stored operating curve cannot be read: {error}") from error
        if not _is_curve(curve):
            raise CheckpointError("the stored operating curve is no curve from (1, 0) to (0, 1)")
        return curve


def operating_curve(
    labels: Labels,
    probabilities: Scores,
    policy: ThresholdPolicy | None = None,
    units: Units | None = None,
) -> OperatingCurve:
    """Make the curve that threshold policies are solved on.

    Thresholds lie half-way between neighbouring probabilities, so that the last-bit differences
    between two machines move no image across; the first is 0 (all called sick), the last lies
    above the highest probability (none called sick; it exceeds 1 by one rounding step if that
    probability is 1). `decide` on the same probabilities gives exactly the stated counts.

    Up to `MAX_POINTS` thresholds all are kept. Of more, those are kept that answer `policy`,
    `youden` and every `sens=` and `spec=` target in steps of 0.01 up to 0.9 and of 0.001 from there
    exactly as the whole curve would; another target is still met, by the next stricter of these,
    and another `cost=` by the best of these.

    Args:
        labels: Truth per validation image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick) as the threshold will read it, shape (n_images,), in [0, 1].
        policy: One that must be answered exactly; None: the usual ones.
        units: Sick and healthy patients, where patients have several images.

    Raises:
        DataError: One class is missing, a probability is NaN or outside [0, 1], shapes differ.
    """
    sick, values = check_labels(labels, probabilities)
    decide(values, 0.0)  # refuses what is no probability
    n_sick, n_healthy = int(sick.sum()), int((~sick).sum())
    if not n_sick or not n_healthy:
        missing = "healthy" if n_sick else "sick"
        raise DataError(
            f"no {missing} image among {len(sick)} validation images: no operating point can be "
            "solved; give evaluate.threshold as a probability, or a validation split of both"
        )
    observed, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    sick_here = np.bincount(place, weights=sick, minlength=len(observed)).astype(np.int64)
    tp = n_sick - np.append(0, np.cumsum(sick_here))
    tn = np.append(0, np.cumsum(counts - sick_here))
    cuts = _cuts(observed)
    if len(cuts) > MAX_POINTS:
        sums = _counts(tp, tn, n_sick, n_healthy, units or Units(n_sick, n_healthy))
        kept = _answers(sums, policy)
        cuts, tp, tn = cuts[kept], tp[kept], tn[kept]
    return OperatingCurve(
        thresholds=tuple(cuts.tolist()),
        sensitivity=tuple((tp / n_sick).tolist()),
        specificity=tuple((tn / n_healthy).tolist()),
        n_sick=n_sick,
        n_healthy=n_healthy,
        units=units,
    )


def solve(curve: OperatingCurve, policy: ThresholdPolicy) -> float:
    """Turn a policy into a threshold.

    `fixed`: the number itself. `sens=t`: the highest threshold with sensitivity >= t, that is the
    best specificity. `spec=t`: the lowest threshold with specificity >= t. With `@lower95` the
    lower end of Wilson's interval must reach t, see `least_share`; where even a share of 1 is too
    little, the threshold is that of `sens=1` or `spec=1`, see `shortfall`. `cost=c`: the threshold
    at which c x missed sick + false alarms is least. `youden`: the largest sensitivity +
    specificity - 1. Of several thresholds the lowest, which misses fewest sick.

    Args:
        curve: From the validation split.
        policy: From `parse_threshold`.

    Returns:
        A probability for `metrics.decide`.
    """
    if policy.kind == "fixed" and policy.target is not None:
        return policy.target
    counts = _counts(
        np.rint(np.array(curve.sensitivity) * curve.n_sick).astype(np.int64),
        np.rint(np.array(curve.specificity) * curve.n_healthy).astype(np.int64),
        curve.n_sick,
        curve.n_healthy,
        curve.independent,
    )
    return curve.thresholds[int(_places(counts, policy)[0])]


def least_share(target: float, n: int) -> float:
    """Share of n from which on the lower end of Wilson's 95 % interval reaches a target.

    The interval holds what a score test does not reject, so that its lower end is at `target` where
    the share lies z standard errors above it: target + z sqrt(target (1 - target) / n).

    Args:
        target: In [0, 1].
        n: Independent trials, at least 1.

    Returns:
        Above 1 where n is too small for any share to do.

    Source:
        Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    return target + _Z95 * math.sqrt(target * (1 - target) / n)


def shortfall(curve: OperatingCurve, policy: ThresholdPolicy) -> str | None:
    """Why a cautious policy cannot be met by so few images, in words; None where it can."""
    if not policy.cautious or policy.target is None:
        return None
    sick = policy.kind == "sens"
    n = curve.independent.sick if sick else curve.independent.healthy
    if least_share(policy.target, n) <= 1 + 1e-12:
        return None
    needed = math.ceil(_Z95**2 * policy.target / (1 - policy.target)) if policy.target < 1 else None
    what = f"{'sick' if sick else 'healthy'} {'images' if curve.units is None else 'patients'}"
    more = "no number of them shows 1.0" if needed is None else f"at least {needed} are needed"
    return (
        f"{policy} cannot be shown by {n} {what}, even with all of them right: {more}; the "
        f"threshold is the one that has all of them right"
    )


def resampled_thresholds(
    labels: Labels,
    probabilities: Scores,
    weights: FloatArray,
    policy: ThresholdPolicy,
    units: Units | None = None,
) -> FloatArray:
    """The thresholds that a policy would have got on resamples of the images.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1].
        weights: How often each image was drawn, whole numbers, shape (n_resamples, n_images).
        policy: Any but `fixed`.
        units: As in `operating_curve`.

    Returns:
        Shape (n_resamples,); NaN where a resample lacks a class.
    """
    sick, values = check_labels(labels, probabilities)
    order = np.argsort(values, kind="stable")
    rising = values[order]
    starts = np.flatnonzero(np.append(True, rising[1:] != rising[:-1]))
    drawn = weights[:, order]
    of_sick = np.add.reduceat(drawn * sick[order], starts, axis=1).astype(np.int64)
    of_all = np.add.reduceat(drawn, starts, axis=1).astype(np.int64)
    n_sick = of_sick.sum(axis=1)
    n_healthy = of_all.sum(axis=1) - n_sick
    nothing = np.zeros((len(weights), 1), dtype=np.int64)
    tp = n_sick[:, np.newaxis] - np.hstack([nothing, np.cumsum(of_sick, axis=1)])
    tn = np.hstack([nothing, np.cumsum(of_all - of_sick, axis=1)])
    both = (n_sick > 0) & (n_healthy > 0)
    found = np.full(len(weights), np.nan)
    if both.any():
        kept = units or Units(int(sick.sum()), int((~sick).sum()))
        counts = _Counts(tp[both], tn[both], n_sick[both], n_healthy[both], kept)
        found[both] = _cuts(rising[starts])[_places(counts, policy)]
    return found


class _Counts(NamedTuple):
    """Outcomes at each threshold of a curve, from low to high, of one or of many sets of images.

    `tp` and `tn` have shape (n_sets, n_thresholds), `n_sick` and `n_healthy` (n_sets,).
    """

    tp: IntArray
    tn: IntArray
    n_sick: IntArray
    n_healthy: IntArray
    units: Units


def _counts(tp: IntArray, tn: IntArray, n_sick: int, n_healthy: int, units: Units) -> _Counts:
    """Those of one set of images."""
    sizes = np.array([n_sick]), np.array([n_healthy])
    return _Counts(tp[np.newaxis], tn[np.newaxis], *sizes, units)


def _places(counts: _Counts, policy: ThresholdPolicy) -> IntArray:
    """Which of the thresholds answers a policy other than `fixed`, shape (n_sets,)."""
    target = policy.target
    n_sick, n_healthy = counts.n_sick[:, np.newaxis], counts.n_healthy[:, np.newaxis]
    if policy.kind == "youden" or target is None:  # whole numbers, so that ties are true ties
        return _first(counts.tp * n_healthy + counts.tn * n_sick)
    if policy.kind == "cost":
        return _first(-(target * (n_sick - counts.tp) + (n_healthy - counts.tn)))
    if policy.cautious:
        n = counts.units.sick if policy.kind == "sens" else counts.units.healthy
        target = min(least_share(target, n), 1.0)
    if policy.kind == "sens":
        return _last_reaching(counts.tp / n_sick, target)
    return _first(counts.tn / n_healthy >= target)


def _cuts(observed: FloatArray) -> FloatArray:
    """One threshold below, between and above the distinct probabilities, shape (n + 1,)."""
    low, high = observed[:-1], observed[1:]
    middle = low + (high - low) / 2
    # Between neighbouring floats there is no middle, and rounding may land on the lower one.
    middle = np.where(middle > low, middle, high)
    top = observed[-1]
    above = max(top + (1.0 - top) / 2, np.nextafter(top, np.inf))
    return np.concatenate(([0.0], middle, [above]))


def _answers(counts: _Counts, policy: ThresholdPolicy | None) -> IntArray:
    """Places on the whole curve that the usual policies would pick, ascending, ends included."""
    targets = np.append(np.arange(0, 90) / 100, np.arange(900, 1001) / 1000).tolist()
    usual = [ThresholdPolicy("youden", None)]
    usual += [ThresholdPolicy("sens", target) for target in targets]
    usual += [ThresholdPolicy("spec", target) for target in targets]
    if policy is not None and policy.kind != "fixed":
        usual.append(policy)
    picks = {int(_places(counts, one)[0]) for one in usual}
    return np.array(sorted(picks | {0, counts.tp.shape[1] - 1}), dtype=np.int64)


def _last_reaching(falling: FloatArray, target: float) -> IntArray:
    """Last place of each row that reaches the target; the first one always does."""
    return np.asarray(falling.shape[1] - 1 - _first(falling[:, ::-1] >= target), dtype=np.int64)


def _first(values: NDArray[Any]) -> IntArray:
    """Place of the first of the largest values of each row."""
    return np.asarray(np.argmax(values, axis=1), dtype=np.int64)


def _is_curve(curve: OperatingCurve) -> bool:
    thresholds = np.array(curve.thresholds)
    sensitivity, specificity = np.array(curve.sensitivity), np.array(curve.specificity)
    if not 2 <= len(thresholds) == len(sensitivity) == len(specificity):
        return False
    if not (1 <= curve.n_sick < 2**31 and 1 <= curve.n_healthy < 2**31):
        return False
    ends = (sensitivity[0], sensitivity[-1], specificity[0], specificity[-1])
    return (
        ends == (1.0, 0.0, 0.0, 1.0)
        and thresholds[0] >= 0
        and bool((np.diff(thresholds) > 0).all())
        and math.isfinite(thresholds[-1])
        and bool((np.diff(sensitivity) <= 0).all())
        and bool((np.diff(specificity) >= 0).all())
    )
