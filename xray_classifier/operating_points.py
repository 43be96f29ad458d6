"""Which probability parts sick from healthy: threshold policies, and the curve they are solved on.

The curve is made on the validation split and stored in the checkpoint, so that another policy can
be chosen later without touching the data at hand.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xray_classifier.errors import CheckpointError, DataError, UsageError
from xray_classifier.metrics import FloatArray, IntArray, Labels, Scores, check_labels, decide

PolicyKind = Literal["fixed", "sens", "spec", "youden"]

MAX_POINTS = 512
"""Most points of a stored curve."""

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_KINDS: dict[str | None, PolicyKind] = {None: "fixed", "sens": "sens", "spec": "spec"}
_POLICY = re.compile(rf"(?:(sens|spec)=)?({_NUMBER})|youden")


@dataclass(frozen=True, slots=True)
class ThresholdPolicy:
    """How a threshold is chosen; `str(policy)` gives the text that `parse_threshold` reads."""

    kind: PolicyKind
    target: float | None
    """The threshold (fixed), the least sensitivity (sens) or specificity (spec); else None."""

    def __str__(self) -> str:
        if self.kind == "youden":
            return "youden"
        return f"{self.target!r}" if self.kind == "fixed" else f"{self.kind}={self.target!r}"


def parse_threshold(text: str | float) -> ThresholdPolicy:
    """Read a threshold policy: `0.42`, `sens=0.95`, `spec=0.90` or `youden`.

    Args:
        text: The policy, or a plain number in [0, 1]. `auto` is the caller's to resolve.

    Raises:
        UsageError: Anything else; the message lists what is accepted.
    """
    spelled = text.strip() if isinstance(text, str) else str(text)
    match = _POLICY.fullmatch(spelled)
    if match is None:
        raise _not_a_policy(text)
    if spelled == "youden":
        return ThresholdPolicy("youden", None)
    target = float(match[2])
    if target > 1:
        raise _not_a_policy(text)
    return ThresholdPolicy(_KINDS[match[1]], target)


def _not_a_policy(text: object) -> UsageError:
    return UsageError(
        f"{text!r} is no threshold; expected a probability from 0 to 1 (0.42), "
        "the least sensitivity (sens=0.95), the least specificity (spec=0.90), or youden"
    )


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

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers that JSON holds without loss."""
        return {
            "thresholds": list(self.thresholds),
            "sensitivity": list(self.sensitivity),
            "specificity": list(self.specificity),
            "n_sick": self.n_sick,
            "n_healthy": self.n_healthy,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "OperatingCurve":
        """Read what `to_dict` wrote.

        Raises:
            CheckpointError: A part is missing, of the wrong kind, or makes no curve.
        """
        try:
            curve = cls(
                thresholds=tuple(map(float, stored["thresholds"])),
                sensitivity=tuple(map(float, stored["sensitivity"])),
                specificity=tuple(map(float, stored["specificity"])),
                n_sick=int(stored["n_sick"]),
                n_healthy=int(stored["n_healthy"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"the stored operating curve cannot be read: {error}") from error
        if not _is_curve(curve):
            raise CheckpointError("the stored operating curve is no curve from (1, 0) to (0, 1)")
        return curve


def operating_curve(labels: Labels, probabilities: Scores) -> OperatingCurve:
    """Make the curve that threshold policies are solved on.

    Thresholds lie half-way between neighbouring probabilities, so that the last-bit differences
    between two machines move no image across; the first is 0 (all called sick), the last lies
    above the highest probability (none called sick; it exceeds 1 by one rounding step if that
    probability is 1). `decide` on the same probabilities gives exactly the stated counts.

    Up to `MAX_POINTS` thresholds all are kept. Of more, those are kept that answer `youden` and
    every `sens=` and `spec=` target in steps of 0.01 up to 0.9 and of 0.001 from there exactly as
    the whole curve would; another target is still met, by the next stricter of these.

    Args:
        labels: Truth per validation image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick) as the threshold will read it, shape (n_images,), in [0, 1].

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
        kept = _answers(tp, tn, n_sick, n_healthy)
        cuts, tp, tn = cuts[kept], tp[kept], tn[kept]
    return OperatingCurve(
        thresholds=tuple(cuts.tolist()),
        sensitivity=tuple((tp / n_sick).tolist()),
        specificity=tuple((tn / n_healthy).tolist()),
        n_sick=n_sick,
        n_healthy=n_healthy,
    )


def solve(curve: OperatingCurve, policy: ThresholdPolicy) -> float:
    """Turn a policy into a threshold.

    `fixed`: the number itself. `sens=t`: the highest threshold with sensitivity >= t, that is the
    best specificity. `spec=t`: the lowest threshold with specificity >= t. `youden`: the largest
    sensitivity + specificity - 1; of several, the lowest threshold, which misses fewest sick.

    Args:
        curve: From the validation split.
        policy: From `parse_threshold`.

    Returns:
        A probability for `metrics.decide`.
    """
    if policy.target is None:
        tp = np.rint(np.array(curve.sensitivity) * curve.n_sick).astype(np.int64)
        tn = np.rint(np.array(curve.specificity) * curve.n_healthy).astype(np.int64)
        return curve.thresholds[_youden(tp, tn, curve.n_sick, curve.n_healthy)]
    if policy.kind == "fixed":
        return policy.target
    if policy.kind == "sens":
        return curve.thresholds[_last_reaching(np.array(curve.sensitivity), policy.target)]
    return curve.thresholds[_first_reaching(np.array(curve.specificity), policy.target)]


def _cuts(observed: FloatArray) -> FloatArray:
    """One threshold below, between and above the distinct probabilities, shape (n + 1,)."""
    low, high = observed[:-1], observed[1:]
    middle = low + (high - low) / 2
    # Between neighbouring floats there is no middle, and rounding may land on the lower one.
    middle = np.where(middle > low, middle, high)
    top = observed[-1]
    above = max(top + (1.0 - top) / 2, np.nextafter(top, np.inf))
    return np.concatenate(([0.0], middle, [above]))


def _answers(tp: IntArray, tn: IntArray, n_sick: int, n_healthy: int) -> IntArray:
    """Places on the whole curve that the usual policies would pick, ascending, ends included."""
    targets = np.append(np.arange(0, 90) / 100, np.arange(900, 1001) / 1000)
    sensitivity, specificity = tp / n_sick, tn / n_healthy
    picks = {0, len(tp) - 1, _youden(tp, tn, n_sick, n_healthy)}
    picks.update(_last_reaching(sensitivity, target) for target in targets)
    picks.update(_first_reaching(specificity, target) for target in targets)
    return np.array(sorted(picks), dtype=np.int64)


def _youden(tp: IntArray, tn: IntArray, n_sick: int, n_healthy: int) -> int:
    """First place of the largest Youden index; in whole numbers, so that ties are true ties."""
    return int(np.argmax(tp * n_healthy + tn * n_sick))


def _last_reaching(falling: FloatArray, target: float) -> int:
    return int(np.flatnonzero(falling >= target)[-1])


def _first_reaching(rising: FloatArray, target: float) -> int:
    return int(np.flatnonzero(rising >= target)[0])


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
