"""Estimates in words."""

import math

from xray_classifier.estimates import Estimate


def with_interval(estimate: Estimate) -> str:
    """A value and its interval, as `0.940 (0.910 to 0.960)`; an undefined one says so."""
    if math.isnan(estimate.value):
        return "undefined"
    if math.isnan(estimate.ci_low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.ci_low:.3f} to {estimate.ci_high:.3f})"


def percent(estimate: Estimate) -> str:
    """A share and its interval, as `94% (90-97)`."""
    if math.isnan(estimate.value):
        return "undefined"
    if math.isnan(estimate.ci_low):
        return f"{estimate.value:.0%}"
    return f"{estimate.value:.0%} ({100 * estimate.ci_low:.0f}-{100 * estimate.ci_high:.0f})"
