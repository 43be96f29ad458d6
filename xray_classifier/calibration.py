"""From logits to probabilities that mean what they say.

A calibration is fitted once, on the validation split, and stored. It is a rising function of the
logit, so that it changes no ranking and no AUROC.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from xray_classifier.errors import CheckpointError, DataError
from xray_classifier.metrics import BoolArray, FloatArray, Labels, Scores, check_labels, sigmoid

CalibrationMethod = Literal["platt", "temperature", "off"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probability of sick = sigmoid(slope * logit + intercept).

    Raises:
        ValueError: The slope is not above 0, a number is not finite, the method is unknown, or
            it leaves no room for these numbers (temperature has no intercept, off has neither).
    """

    method: CalibrationMethod = "off"
    slope: float = 1.0
    """Above 0; for temperature scaling 1 / temperature."""
    intercept: float = 0.0
    """Added after the slope, a logit."""

    def __post_init__(self) -> None:
        if self.method not in get_args(CalibrationMethod):
            raise ValueError(f"calibration method {self.method!r}")
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope > 0):
            raise ValueError(f"calibration slope {self.slope}, intercept {self.intercept}")
        if self.method != "platt" and self.intercept != 0:
            raise ValueError(f"calibration {self.method} with an intercept of {self.intercept}")
        if self.method == "off" and self.slope != 1:
            raise ValueError(f"calibration off with a slope of {self.slope}")

    def apply(self, logits: Scores) -> FloatArray:
        """Calibrated P(sick) of each logit: same shape, float64, in [0, 1]; a NaN stays NaN."""
        return sigmoid(self.slope * np.asarray(logits, dtype=np.float64) + self.intercept)

    def to_dict(self) -> dict[str, str | float]:
        """Plain values that JSON holds without loss."""
        return {"method": self.method, "slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Calibration":
        """Read what `to_dict` wrote.

        Raises:
            CheckpointError: A part is missing, of the wrong kind or out of range.
        """
        try:
            return cls(stored["method"], float(stored["slope"]), float(stored["intercept"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"the stored calibration cannot be read: {error}") from error


class CalibrationFit(NamedTuple):
    """A calibration, and why it is not the one asked for."""

    calibration: Calibration
    reason: str | None
    """One sentence to warn with where the logits were left as they are; None if all went well."""


def fit_calibration(
    labels: Labels, logits: Scores, method: CalibrationMethod, min_per_class: int = 10
) -> CalibrationFit:
    """Fit slope and intercept (platt) or slope alone (temperature) by maximum likelihood.

    The targets are not 1 and 0 but (n_sick + 1) / (n_sick + 2) and 1 / (n_healthy + 2), so that a
    validation split without a single mistake does not push the slope to infinity.

    Args:
        labels: Truth per validation image, shape (n_images,); 1 is sick, 0 is healthy.
        logits: Raw outputs of the network, shape (n_images,).
        method: `platt`, `temperature`, or `off` for none.
        min_per_class: Fewer images of either class than this fit nothing.

    Returns:
        The calibration and None; or the identity (method `off`) and a reason, where a class has
        too few images, all logits are equal, or a higher logit does not mean a higher risk.

    Raises:
        DataError: A logit is NaN or infinite, a label is not 0 or 1, or the two shapes differ.

    Source:
        Platt 1999, Probabilistic outputs for support vector machines; the targets and the guarded
        Newton steps of Lin et al. 2007, doi:10.1007/s10994-007-5018-6; one temperature as in
        Guo et al. 2017, arXiv:1706.04599.
    """
    sick, values = check_labels(labels, logits)
    if not np.isfinite(values).all():
        raise DataError("a logit is infinite: no calibration can be fitted")
    if method == "off":
        return CalibrationFit(Calibration(), None)
    n_sick, n_healthy = int(sick.sum()), int((~sick).sum())
    if min(n_sick, n_healthy) < min_per_class:
        return _uncalibrated(
            f"the validation split has {n_healthy} healthy and {n_sick} sick images, "
            f"and a fit takes {min_per_class} of each"
        )
    if float(np.ptp(values)) == 0.0:
        return _uncalibrated("all validation images have the same logit")
    slope, intercept = _fit_line(values, smoothed_targets(sick), with_intercept=method == "platt")
    if not (slope > 0 and math.isfinite(slope) and math.isfinite(intercept)):
        return _uncalibrated("on the validation split a higher logit does not mean a higher risk")
    return CalibrationFit(Calibration(method, slope, intercept), None)


def smoothed_targets(sick: BoolArray) -> FloatArray:
    """What to fit to instead of 0 and 1: the class fractions seen, with one pseudo-image of each.

    Args:
        sick: Truth per image, shape (n_images,).

    Returns:
        (n_sick + 1) / (n_sick + 2) for sick and 1 / (n_healthy + 2) for healthy, (n_images,).
    """
    n_sick, n_healthy = int(sick.sum()), int((~sick).sum())
    return np.where(sick, (n_sick + 1) / (n_sick + 2), 1 / (n_healthy + 2))


def _uncalibrated(why: str) -> CalibrationFit:
    return CalibrationFit(Calibration(), f"probabilities are not calibrated: {why}")


def _fit_line(
    logits: FloatArray, targets: FloatArray, *, with_intercept: bool
) -> tuple[float, float]:
    """Slope and intercept of least cross-entropy; logits are brought to size 1 meanwhile."""
    centre = float(logits.mean()) if with_intercept else 0.0
    size = float(np.abs(logits - centre).max())
    inputs = ((logits - centre) / size)[:, np.newaxis]
    if with_intercept:
        inputs = np.hstack([inputs, np.ones_like(inputs)])
    fitted = np.append(_newton(inputs, targets), 0.0)
    slope = float(fitted[0]) / size
    return slope, float(fitted[1]) - slope * centre


def _newton(inputs: FloatArray, targets: FloatArray) -> FloatArray:
    """Weights of least cross-entropy; the problem is strictly convex, so there is one minimum."""
    weights = np.zeros(inputs.shape[1])
    loss = _cross_entropy(inputs @ weights, targets)
    for _ in range(100):
        probabilities = sigmoid(inputs @ weights)
        gradient = inputs.T @ (probabilities - targets)
        curvature = (inputs.T * (probabilities * (1 - probabilities))) @ inputs
        curvature[np.diag_indices_from(curvature)] += 1e-12
        step = np.linalg.solve(curvature, gradient)
        gain = float(gradient @ step)
        share = 1.0
        while share > 1e-10:
            tried = _cross_entropy(inputs @ (weights - share * step), targets)
            if tried <= loss - 1e-4 * share * gain:
                break
            share /= 2
        else:
            return weights  # no step lowers the loss any further: this is the minimum
        weights, loss = weights - share * step, tried
        if gain < 1e-14 * len(targets):
            return weights
    return weights


def _cross_entropy(logits: FloatArray, targets: FloatArray) -> float:
    return float((np.logaddexp(0.0, logits) - targets * logits).sum())
