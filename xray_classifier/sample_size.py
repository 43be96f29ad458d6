"""How many images, one per patient, a study needs before its interval is narrow enough to use."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from xray_classifier.intervals import normal_quantile, wilson_interval

HALF_WIDTH = 0.05
"""Five points either way."""
MOST_IMAGES = 10**9
"""Where a search gives up: a half-width that takes more is a slip of the pen."""


@dataclass(frozen=True, slots=True)
class SampleSize:
    """Images to collect, one per patient."""

    metric: Literal["sensitivity", "specificity", "auroc"]
    expected: float
    """The value that the study is expected to find."""
    half_width: float
    """Half the width of the interval, reached with these numbers at the expected value."""
    prevalence: float
    """Share of the sick among the images collected."""
    n_sick: int
    n_healthy: int

    @property
    def n(self) -> int:
        """All images."""
        return self.n_sick + self.n_healthy


def images_for_proportion(
    expected: float, half_width: float = HALF_WIDTH, level: float = 0.95
) -> int:
    """Fewest images that give a proportion a Wilson interval this narrow.

    The interval is that of `expected` x n successes, whole or not, so that the answer does not jump
    with rounding.

    Args:
        expected: The share that is expected, in [0, 1].
        half_width: Most that half the width may be, above 0 and below 0.5.
        level: Confidence, in (0, 1).

    Raises:
        ValueError: A number is out of range, or so small that it takes more than `MOST_IMAGES`.

    Source:
        Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    if not 0 <= expected <= 1:
        raise ValueError(f"expected share {expected}: expected a number from 0 to 1")

    def reached(n: int) -> float:
        low, high = wilson_interval(expected * n, n, level)
        return (high - low) / 2

    return _fewest(reached, half_width)


def sample_size_for_sensitivity(
    expected: float, prevalence: float, half_width: float = HALF_WIDTH, level: float = 0.95
) -> SampleSize:
    """Sick images for a Wilson interval of the sensitivity, and how many healthy come with them.

    Args:
        expected: Sensitivity, in [0, 1].
        prevalence: Share of the sick among the images collected, in (0, 1).
        half_width: As in `images_for_proportion`.
        level: Confidence, in (0, 1).

    Raises:
        ValueError: A number is out of range.
    """
    n_sick = images_for_proportion(expected, half_width, level)
    n_healthy = _others(n_sick, 1 - _inside(prevalence))
    return SampleSize("sensitivity", expected, half_width, prevalence, n_sick, n_healthy)


def sample_size_for_specificity(
    expected: float, prevalence: float, half_width: float = HALF_WIDTH, level: float = 0.95
) -> SampleSize:
    """As `sample_size_for_sensitivity`, with the healthy in place of the sick."""
    n_healthy = images_for_proportion(expected, half_width, level)
    n_sick = _others(n_healthy, _inside(prevalence))
    return SampleSize("specificity", expected, half_width, prevalence, n_sick, n_healthy)


def sample_size_for_auroc(
    expected: float, prevalence: float, half_width: float = HALF_WIDTH, level: float = 0.95
) -> SampleSize:
    """Images for an interval of the AUROC: normal quantile x standard error <= `half_width`.

    Args:
        expected: AUROC, in (0, 1).
        prevalence: Share of the sick among the images collected, in (0, 1).
        half_width: As in `images_for_proportion`.
        level: Confidence, in (0, 1).

    Raises:
        ValueError: A number is out of range.

    Source:
        Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747; see `auroc_variance`.
    """
    scarce = min(_inside(prevalence), 1 - prevalence)

    def counts(n_scarce: int) -> tuple[int, int]:
        many = _others(n_scarce, 1 - scarce)
        return (n_scarce, many) if prevalence <= 0.5 else (many, n_scarce)

    def reached(n_scarce: int) -> float:
        return normal_quantile(level) * math.sqrt(auroc_variance(expected, *counts(n_scarce)))

    n_sick, n_healthy = counts(_fewest(reached, half_width))
    return SampleSize("auroc", expected, half_width, prevalence, n_sick, n_healthy)


def auroc_variance(auroc: float, n_sick: int, n_healthy: int) -> float:
    """Variance that an AUROC of this size has in a study of this size.

    Args:
        auroc: In (0, 1).
        n_sick: At least 1.
        n_healthy: At least 1.

    Raises:
        ValueError: The AUROC is not inside (0, 1), or a class is empty.

    Source:
        Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747, with exponential scores.
    """
    if not 0 < auroc < 1 or min(n_sick, n_healthy) < 1:
        raise ValueError(
            f"AUROC {auroc} with {n_sick} sick and {n_healthy} healthy images: "
            "expected an AUROC between 0 and 1 and images of both"
        )
    two_sick = auroc / (2 - auroc) - auroc**2
    two_healthy = 2 * auroc**2 / (1 + auroc) - auroc**2
    spread = auroc * (1 - auroc) + (n_sick - 1) * two_sick + (n_healthy - 1) * two_healthy
    return spread / (n_sick * n_healthy)


def in_words(size: SampleSize) -> str:
    """One sentence that says what to collect, and why."""
    names = {"sensitivity": "a sensitivity", "specificity": "a specificity", "auroc": "an AUROC"}
    points = f"{100 * size.half_width:g}"
    return (
        f"To know {names[size.metric]} of about {size.expected:g} to within {points} points either "
        f"way takes {size.n_sick:,} sick images and {size.n_healthy:,} healthy ones, "
        f"{size.n:,} in all at a prevalence of {100 * size.prevalence:g} %, one image per patient."
    )


def _fewest(reached: Callable[[int], float], half_width: float) -> int:
    """Smallest n whose interval is narrow enough; widths fall with n, so halving finds it."""
    if not 0 < half_width < 0.5:
        raise ValueError(f"half-width {half_width}: expected a number above 0 and below 0.5")
    enough = 1
    while reached(enough) > half_width:
        enough *= 2
        if enough > MOST_IMAGES:
            raise ValueError(f"half-width {half_width} takes more than {MOST_IMAGES:,} images")
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if reached(middle) > half_width:
            too_few = middle
        else:
            enough = middle
    return enough


def _others(n: int, other_share: float) -> int:
    """Images of the other class that come with n of one, rounded up, rounding noise aside."""
    return math.ceil(n * other_share / (1 - other_share) - 1e-9)


def _inside(prevalence: float) -> float:
    if not 0 < prevalence < 1:
        raise ValueError(f"prevalence {prevalence}: expected a number between 0 and 1")
    return prevalence
