"""Parts of the ROC curve: its left end, and single points of it.

Whoever screens a thousand healthy people for one sick person can only live at few false alarms;
there the whole area under the curve says little. Each measure comes for one split and, from
weights gathered once by `weighted.ranked_weights`, for many resamples.

The points are the best that any threshold reaches on these very images, and so flatter a little;
what a stored threshold reaches is `sensitivity` and `specificity`.
"""

import numpy as np

from xray_classifier.metrics import BoolArray, FloatArray, IntArray, Labels, Scores
from xray_classifier.weighted import Ranked, divide, ranked_weights

MAX_FPR = 0.1
"""Where `partial_auroc` ends: one false alarm among ten healthy images."""
SPECIFICITY = 0.90
"""Of `sensitivity_at_specificity_90`."""
SENSITIVITY = 0.95
"""Of `specificity_at_sensitivity_95`."""


def partial_auroc(labels: Labels, scores: Scores, max_fpr: float = MAX_FPR) -> float:
    """Area under the ROC curve from no false alarms up to `max_fpr`, rescaled.

    The area is stretched so that a useless score gets 0.5 and a perfect one 1, whatever `max_fpr`.
    Between two points of the curve the line is straight.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logit or probability of sick, shape (n_images,); any monotone scale.
        max_fpr: Highest share of the healthy called sick, in (0, 1]; with 1 this is the AUROC.

    Returns:
        At most 1, below 0.5 for a score worse than chance; NaN if only one class is present.

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the two shapes differ.
        ValueError: `max_fpr` is not in (0, 1].

    Source:
        McClish 1989, doi:10.1177/0272989X8900900307.
    """
    return float(partial_auroc_of(_whole(labels, scores), max_fpr)[0])


def partial_auroc_of(ranked: Ranked, max_fpr: float = MAX_FPR) -> FloatArray:
    """As `partial_auroc`, for each resample, shape (n_resamples,)."""
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr is {max_fpr}; expected a share above 0 and at most 1")
    n_sick, n_healthy = ranked.n_sick, ranked.n_healthy
    limit = max_fpr * n_healthy
    inside = ranked.fp <= limit[:, np.newaxis]
    heights = ranked.tp - ranked.sick / 2  # in the middle of each step to the right
    heights *= ranked.healthy
    area = np.einsum("ij,ij->i", heights, inside) + _last_step(ranked, inside, limit)
    least = max_fpr**2 / 2
    reached = divide(area, n_sick * n_healthy)
    return np.asarray(0.5 * (1 + (reached - least) / (max_fpr - least)), dtype=np.float64)


def sensitivity_at_specificity(
    labels: Labels, scores: Scores, specificity: float = SPECIFICITY
) -> float:
    """Highest sensitivity of all thresholds that reach a specificity on these images.

    Images with the same score fall on the same side, so between the points of the ROC curve
    nothing is interpolated.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logit or probability of sick, shape (n_images,); any monotone scale.
        specificity: The least specificity, in [0, 1].

    Returns:
        A fraction in [0, 1]; 0 where only the threshold above all scores is specific enough; NaN
        if only one class is present.

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the two shapes differ.
        ValueError: The specificity is not in [0, 1].
    """
    return float(sensitivity_at_specificity_of(_whole(labels, scores), specificity)[0])


def sensitivity_at_specificity_of(ranked: Ranked, specificity: float = SPECIFICITY) -> FloatArray:
    """As `sensitivity_at_specificity`, for each resample, shape (n_resamples,)."""
    n_sick, n_healthy = ranked.n_sick, ranked.n_healthy
    spare = n_healthy - _least_reaching(specificity, n_healthy)
    n_inside = np.count_nonzero(ranked.fp <= spare[:, np.newaxis], axis=1)
    return divide(np.where(n_healthy > 0, _before(ranked.tp, n_inside), np.nan), n_sick)


def specificity_at_sensitivity(
    labels: Labels, scores: Scores, sensitivity: float = SENSITIVITY
) -> float:
    """Highest specificity of all thresholds that reach a sensitivity on these images.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logit or probability of sick, shape (n_images,); any monotone scale.
        sensitivity: The least sensitivity, in [0, 1].

    Returns:
        A fraction in [0, 1]; NaN if only one class is present.

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the two shapes differ.
        ValueError: The sensitivity is not in [0, 1].
    """
    return float(specificity_at_sensitivity_of(_whole(labels, scores), sensitivity)[0])


def specificity_at_sensitivity_of(ranked: Ranked, sensitivity: float = SENSITIVITY) -> FloatArray:
    """As `specificity_at_sensitivity`, for each resample, shape (n_resamples,)."""
    n_sick, n_healthy = ranked.n_sick, ranked.n_healthy
    needed = _least_reaching(sensitivity, n_sick)
    n_short = np.count_nonzero(ranked.tp < needed[:, np.newaxis], axis=1)
    # The first threshold that reaches it; where nobody needs to be found, none is called at all.
    alarms = _before(ranked.fp, np.where(needed > 0, n_short + 1, 0))
    return divide(np.where(n_sick > 0, n_healthy - alarms, np.nan), n_healthy)


def _whole(labels: Labels, scores: Scores) -> Ranked:
    """The split itself, as one resample."""
    return ranked_weights(labels, scores, np.ones((1, len(labels))))


def _least_reaching(share: float, totals: FloatArray) -> FloatArray:
    """Smallest whole number k with k / total >= share, so that 27 of 30 are 0.9 and not less."""
    if not 0 <= share <= 1:
        raise ValueError(f"share {share}: expected a number from 0 to 1")
    below = np.floor(share * totals)
    return np.where(below / np.maximum(totals, 1.0) >= share, below, below + 1)


def _before(cumulated: FloatArray, n_steps: IntArray) -> FloatArray:
    """Cumulated weight after so many steps, (n_resamples,); 0 after none."""
    rows, width = np.arange(len(cumulated)), cumulated.shape[1]
    if width == 0:
        return np.zeros(len(cumulated))
    taken = cumulated[rows, np.clip(n_steps, 1, width) - 1]
    return np.where(n_steps > 0, taken, 0.0)


def _last_step(ranked: Ranked, inside: BoolArray, limit: FloatArray) -> FloatArray:
    """Area under the part of the curve's next step that still lies left of the limit."""
    n_inside = np.count_nonzero(inside, axis=1)
    start_fp, start_tp = _before(ranked.fp, n_inside), _before(ranked.tp, n_inside)
    width = _before(ranked.fp, n_inside + 1) - start_fp
    rise = _before(ranked.tp, n_inside + 1) - start_tp
    reach = limit - start_fp
    slope = np.divide(rise, width, out=np.zeros_like(width), where=width > 0)
    return reach * (start_tp + slope * reach / 2)
