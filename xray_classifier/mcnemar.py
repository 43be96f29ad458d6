"""Which of two models decides right more often on the same images, where they disagree.

Images on which both are right, or both wrong, say nothing about that; the test looks at the others.
"""

import math
from typing import NamedTuple

import numpy as np

from xray_classifier.errors import DataError
from xray_classifier.intervals import Interval, wilson_interval
from xray_classifier.metrics import BoolArray, FloatArray, IntArray


class McNemarTest(NamedTuple):
    """Two models that were each right or wrong on the same images."""

    only_first: int
    """Images that only the first model got right (the b of the 2 x 2 table)."""
    only_second: int
    """Images that only the second model got right (its c)."""
    statistic: float
    """Chi-square with one degree of freedom; NaN where the test is exact."""
    p_value: float
    """Two-sided; 1 where no image tells the models apart."""
    mid_p: float
    """The exact p less half the chance of what was seen; NaN where the test is not exact."""
    method: str
    """mcnemar, mcnemar_exact, mcnemar_patients or mcnemar_exact_patients."""


def mcnemar_test(
    first_right: BoolArray, second_right: BoolArray, clusters: IntArray, exact_below: int = 25
) -> McNemarTest:
    """Ask whether two models are right equally often on the same images.

    Each patient counts with the images that only the second got right less those that only the
    first did. With few patients in which these differ, the exact chance over all ways to swap the
    two models within each patient; with one image each that is the binomial test. With many, the
    clustered McNemar, which with one image each is McNemar's without continuity correction.

    Args:
        first_right: Whether the first model was right, shape (n_images,).
        second_right: Whether the second was, shape (n_images,).
        clusters: Patient number of each image, shape (n_images,), see `patient_clusters`.
        exact_below: Patients that tell the models apart below which the test is exact.

    Raises:
        DataError: The shapes differ.

    Source:
        McNemar 1947, doi:10.1007/BF02295996; for clusters Obuchowski 1998,
        doi:10.1002/(SICI)1097-0258(19980715)17:13<1495::AID-SIM863>3.0.CO;2-I; exact for clusters
        as the sign test of Fisher 1935, The Design of Experiments, section 21; when to use which,
        and mid-p: Fagerland et al. 2013, doi:10.1186/1471-2288-13-91.
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if not first.shape == second.shape == np.shape(clusters):
        shapes = f"{first.shape}, {second.shape} and {np.shape(clusters)}"
        raise DataError(f"decisions and patients have shapes {shapes}; expected one per image")
    lead = second.astype(np.int64) - first.astype(np.int64)
    of_patient = np.bincount(clusters, weights=lead).astype(np.int64)
    n_patients = len(np.unique(clusters))
    alone = n_patients == len(lead)
    telling = of_patient[of_patient != 0]
    counts = int((first & ~second).sum()), int((second & ~first).sum())
    ending = "" if alone else "_patients"
    if len(telling) < max(exact_below, 1):
        return McNemarTest(*counts, math.nan, *_exact(telling), f"mcnemar_exact{ending}")
    shrink = 1.0 if alone else (n_patients - 1) / n_patients
    statistic = shrink * float(telling.sum() ** 2 / (telling**2).sum())
    p_value = math.erfc(math.sqrt(statistic / 2))
    return McNemarTest(*counts, statistic, p_value, math.nan, f"mcnemar{ending}")


def _exact(leads: IntArray) -> tuple[float, float]:
    """Two-sided p and mid-p of a sum of numbers whose signs are all equally likely either way."""
    reach = int(np.abs(leads).sum())
    if reach == 0:
        return 1.0, 1.0
    chances: FloatArray = np.ones(1)  # of the sums -reach, ..., reach
    for size in np.abs(leads):
        step = np.zeros(2 * int(size) + 1)
        step[0] = step[-1] = 0.5
        chances = np.convolve(chances, step)
    sums = np.arange(-reach, reach + 1)
    seen = abs(int(leads.sum()))
    p_value = float(chances[np.abs(sums) >= seen].sum())
    as_seen = float(chances[np.abs(sums) == seen].sum())
    return min(p_value, 1.0), min(p_value - as_seen / 2, 1.0)


def paired_difference_interval(
    both: int, only_first: int, only_second: int, neither: int, level: float = 0.95
) -> Interval:
    """Interval of share(second right) - share(first right), each image an independent pair.

    The two Wilson intervals, squared and added with regard to their correlation. Has a width even
    where no image tells the models apart.

    Args:
        both: Images that both got right.
        only_first: Images that only the first got right.
        only_second: Images that only the second got right.
        neither: Images that both got wrong.
        level: Confidence, in (0, 1).

    Returns:
        Two numbers in [-1, 1] around the difference; none without images.

    Source:
        Newcombe 1998, doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C,
        method 10.
    """
    n = both + only_first + only_second + neither
    if n == 0:
        return Interval(math.nan, math.nan)
    shares = (both + only_second) / n, (both + only_first) / n
    second, first = (wilson_interval(round(share * n), n, level) for share in shares)
    down = shares[0] - second.low, first.high - shares[1]
    up = second.high - shares[0], shares[1] - first.low
    phi = _phi(both, only_first, only_second, neither)
    difference = (only_second - only_first) / n
    low, high = (
        math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0)) for one, other in (down, up)
    )
    return Interval(max(difference - low, -1.0), min(difference + high, 1.0))


def _phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Correlation of the two models' successes, shrunk towards zero as Newcombe has it."""
    n = both + only_first + only_second + neither
    margins = (both + only_first) * (only_second + neither)
    margins *= (both + only_second) * (only_first + neither)
    if margins == 0:
        return 0.0
    excess = both * neither - only_first * only_second
    if excess > 0:
        return max(excess - n / 2, 0.0) / math.sqrt(margins)
    return excess / math.sqrt(margins)
