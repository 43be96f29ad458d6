"""How far a proportion or an AUROC may be off, by formula: Wilson and DeLong.

An interval that the data cannot support is (NaN, NaN), never one of zero width: twenty right
answers in a row do not make a model certain.
"""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import DataError
from xray_classifier.metrics import BoolArray, FloatArray, Labels, check_labels, midranks


class Interval(NamedTuple):
    """Two ends of a confidence interval; both NaN where the data support none."""

    low: float
    high: float


NO_INTERVAL = Interval(math.nan, math.nan)


def normal_quantile(level: float) -> float:
    """Standard errors on each side of a two-sided interval: 1.96 for a level of 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson_interval(successes: float, n: float, level: float = 0.95) -> Interval:
    """Score interval of a proportion.

    Args:
        successes: Between 0 and n.
        n: Independent trials; with 0 there is no interval.
        level: Confidence, in (0, 1).

    Returns:
        Two fractions in [0, 1] around successes / n.

    Raises:
        ValueError: `successes` is not between 0 and n.

    Source:
        Wilson 1927, doi:10.1080/01621459.1927.10502953; without continuity correction, method 3
        of Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return NO_INTERVAL
    z = normal_quantile(level)
    failures = n - successes
    centre = successes + z * z / 2
    reach = z * math.sqrt(successes * failures / n + z * z / 4)
    low = (centre - reach) / (n + z * z) if successes else 0.0
    high = (centre + reach) / (n + z * z) if failures else 1.0
    return Interval(max(low, 0.0), min(high, 1.0))


def wald_interval(value: float, variance: float, level: float = 0.95) -> Interval:
    """An estimate give or take its standard errors.

    Args:
        value: The estimate, any unit.
        variance: Of the estimate, in that unit squared.
        level: Confidence, in (0, 1).

    Returns:
        None where the value is NaN or the variance is not above 0.
    """
    if math.isnan(value) or not 0 < variance < math.inf:
        return NO_INTERVAL
    reach = normal_quantile(level) * math.sqrt(variance)
    return Interval(value - reach, value + reach)


def logit_interval(share: float, variance: float, level: float = 0.95) -> Interval:
    """An area or a share give or take its standard errors, reckoned in logits.

    The logit scale keeps both ends inside (0, 1) and follows the skew near 1.

    Args:
        share: The estimate, a fraction.
        variance: Of the estimate.
        level: Confidence, in (0, 1).

    Returns:
        None where the share is not inside (0, 1) or the variance is not above 0.

    Source:
        Pepe 2003, The Statistical Evaluation of Medical Tests, section 5.2.5.
    """
    if not 0 < share < 1:
        return NO_INTERVAL
    centre = math.log(share / (1 - share))
    low, high = wald_interval(centre, variance / (share * (1 - share)) ** 2, level)
    return NO_INTERVAL if math.isnan(low) else Interval(expit(low), expit(high))


class Delong(NamedTuple):
    """AUROC of several scores on the same images, and how these vary together."""

    aurocs: FloatArray
    """Shape (n_scores,), fractions in [0, 1]; NaN if a class is missing."""
    covariance: FloatArray
    """Shape (n_scores, n_scores); NaN if a class has fewer than two images."""


def delong_covariance(labels: Labels, scores: NDArray[np.floating[Any]]) -> Delong:
    """AUROC and its covariance over scores that judge the same images, in O(n log n).

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logits or probabilities, one row per model, shape (n_scores, n_images).

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the shapes differ.

    Source:
        DeLong et al. 1988, doi:10.2307/2531595; with midranks as in
        Sun & Xu 2014, doi:10.1109/LSP.2014.2337313.
    """
    rows = np.asarray(scores, dtype=np.float64)
    if rows.ndim != 2:
        raise DataError(f"scores have shape {rows.shape}; expected (n_scores, n_images)")
    placed = [placements(*check_labels(labels, row)) for row in rows]
    of_sick = np.array([sick for sick, _ in placed])
    of_healthy = np.array([healthy for _, healthy in placed])
    n_sick, n_healthy = of_sick.shape[1], of_healthy.shape[1]
    if min(n_sick, n_healthy) == 0:
        return Delong(np.full(len(rows), np.nan), np.full((len(rows), len(rows)), np.nan))
    covariance = np.full((len(rows), len(rows)), np.nan)
    if min(n_sick, n_healthy) > 1:
        covariance = np.atleast_2d(np.cov(of_sick)) / n_sick
        covariance = covariance + np.atleast_2d(np.cov(of_healthy)) / n_healthy
    return Delong(of_sick.mean(axis=1), covariance)


def delong_interval(
    labels: Labels, logits: NDArray[np.floating[Any]], level: float = 0.95
) -> Interval:
    """Interval of the AUROC from DeLong's variance, by `logit_interval`.

    Images must be independent: one per patient.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        logits: Logit or probability of sick, shape (n_images,).
        level: Confidence, in (0, 1).

    Returns:
        Two fractions around the AUROC. An AUROC of exactly 0 or 1 has no variance and gets
        `extreme_auroc_interval`. None with one class, with a class of one image (unless the
        AUROC is 0 or 1), or when all scores are equal.

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the two shapes differ.

    Source:
        DeLong et al. 1988, doi:10.2307/2531595.
    """
    aurocs, covariance = delong_covariance(labels, np.asarray(logits)[np.newaxis])
    area, variance = float(aurocs[0]), float(covariance[0, 0])
    if area in (0.0, 1.0):
        n_sick = int(np.sum(labels))
        return extreme_auroc_interval(area, min(n_sick, len(labels) - n_sick), level)
    return logit_interval(area, variance, level)


def extreme_auroc_interval(area: float, n_pairs: int, level: float = 0.95) -> Interval:
    """Exact, cautious interval of an AUROC that came out as 0 or 1.

    Of m sick and n healthy, min(m, n) pairs can be formed that share no image and are thus
    independent; each is won with a chance equal to the true AUROC A, so that an AUROC of 1 is seen
    with a chance of at most A^min(m, n). The interval holds each A for which that chance is at
    least half of 1 - level, as Clopper and Pearson have it.

    Args:
        area: 0.0 or 1.0.
        n_pairs: Pairs of one sick and one healthy that share no patient.
        level: Confidence, in (0, 1).
    """
    if n_pairs == 0:
        return NO_INTERVAL
    reach = ((1 - level) / 2) ** (1 / n_pairs)
    return Interval(reach, 1.0) if area == 1.0 else Interval(0.0, 1.0 - reach)


class DelongTest(NamedTuple):
    """Two models on the same images."""

    difference: float
    """AUROC of the first minus AUROC of the second."""
    z: float
    """The difference in standard errors; NaN where its variance is zero or unknown."""
    p_value: float
    """Two-sided; NaN where z is, but 1 where the two models order the images alike."""


def delong_test(
    labels: Labels, first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]
) -> DelongTest:
    """Ask whether two models differ in AUROC on the same, independent images.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        first: Scores of one model, shape (n_images,).
        second: Scores of the other, shape (n_images,).

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the shapes differ.

    Source:
        DeLong et al. 1988, doi:10.2307/2531595.
    """
    if np.shape(first) != np.shape(second):
        raise DataError(f"scores have shapes {np.shape(first)} and {np.shape(second)}")
    aurocs, covariance = delong_covariance(labels, np.stack([first, second]))
    difference = float(aurocs[0] - aurocs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    scale = float(covariance[0, 0] + covariance[1, 1])
    if not variance > 1e-12 * scale:
        same = difference == 0 and not math.isnan(variance)
        return DelongTest(difference, math.nan, 1.0 if same else math.nan)
    z = difference / math.sqrt(variance)
    return DelongTest(difference, z, math.erfc(abs(z) / math.sqrt(2)))


def placements(sick: BoolArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How well each image is placed: a tie counts one half.

    Args:
        sick: Truth per image, shape (n_images,).
        scores: Shape (n_images,), no NaN.

    Returns:
        Share of the healthy that each sick image beats, shape (n_sick,), and share of the sick that
        each healthy one loses to, shape (n_healthy,).

    Source:
        Sun & Xu 2014, doi:10.1109/LSP.2014.2337313.
    """
    n_sick, n_healthy = int(sick.sum()), int((~sick).sum())
    ranks = midranks(scores)
    beaten = ranks[sick] - midranks(scores[sick])
    above = n_sick - (ranks[~sick] - midranks(scores[~sick]))
    return beaten / max(n_healthy, 1), above / max(n_sick, 1)


def expit(value: float) -> float:
    """Probability of one logit: 1 / (1 + exp(-value)), safe at any size."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
