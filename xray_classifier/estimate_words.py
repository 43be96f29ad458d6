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
    """A share and its interval, as `94% (90-97)`; near 0 and 1 with a decimal more."""
    if math.isnan(estimate.value):
        return "undefined"
    ends = (estimate.value, estimate.ci_low, estimate.ci_high)
    digits = int(any(0 < x < 0.015 or 0.985 < x < 1 for x in ends))
    value = f"{estimate.value:.{digits}%}"
    if math.isnan(estimate.ci_low):
        return value
    return f"{value} ({100 * estimate.ci_low:.{digits}f}-{100 * estimate.ci_high:.{digits}f})"
