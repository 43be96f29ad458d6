"""How good a score is, as plain numbers over one whole split.

Every function takes all images of a split at once, each image once, and gives one value. Nothing
but NumPy is imported, so that training can use them without paying for SciPy or scikit-learn.

A metric that the data leave undefined (AUROC of a single class, PPV when no image was called sick)
is NaN here; whoever writes JSON turns NaN into null.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import DataError

Labels = NDArray[np.integer[Any]]
Scores = NDArray[np.floating[Any]]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def sigmoid(logits: Scores) -> FloatArray:
    """Probability that belongs to each logit: 1 / (1 + exp(-logit)), safe at any size.

    Args:
        logits: Any shape, any real number; a NaN stays NaN.

    Returns:
        The same shape, float64, in [0, 1]; exactly 1 from a logit of about 37 on.
    """
    values = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def decide(probabilities: Scores, threshold: float) -> BoolArray:
    """Call an image sick where its probability reaches the threshold: `probability >= threshold`.

    Args:
        probabilities: P(sick), shape (n_images,), in [0, 1].
        threshold: The operating point; 0 calls every image sick.

    Returns:
        True for sick, shape (n_images,).

    Raises:
        DataError: A probability is NaN or outside [0, 1]: it must not pass for healthy.
        ValueError: The threshold is NaN.
    """
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN")
    return _check_probabilities(probabilities) >= threshold


def check_labels(labels: Labels, scores: Scores) -> tuple[BoolArray, FloatArray]:
    """Refuse labels and scores that no metric can be computed from.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: One number per image, shape (n_images,).

    Returns:
        `sick`, shape (n_images,), True where the label is 1; and the scores as float64.

    Raises:
        DataError: Shapes differ or are not (n_images,), a label is not 0 or 1, a score is NaN.
    """
    truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    _check_shapes(truth, values, "labels", "scores")
    sick = truth == 1
    strange = truth[~(sick | (truth == 0))]
    if len(strange):
        raise DataError(f"label {strange[0]}: expected 0 (healthy) or 1 (sick)")
    _refuse_nan(values, "scores")
    return sick, values


def auroc(labels: Labels, scores: Scores) -> float:
    """Area under the ROC curve of one split.

    The chance that a random sick image scores above a random healthy one, a tie counting one half.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logit or probability of sick, shape (n_images,); any monotone scale. Prefer the
            logit: far from zero, different logits share the probability 1.0.

    Returns:
        A fraction in [0, 1]; NaN if only one class is present, for then no pair exists to compare.

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the two shapes differ.

    Source:
        Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747, the rank-sum form.
    """
    sick, values = check_labels(labels, scores)
    n_sick, n_healthy = int(sick.sum()), int((~sick).sum())
    pairs_won = float(midranks(values)[sick].sum()) - n_sick * (n_sick + 1) / 2
    return ratio(pairs_won, n_sick * n_healthy)


def midranks(values: FloatArray) -> FloatArray:
    """Rank of each value from 1 up; equal values share the mean of the ranks they span.

    Args:
        values: Shape (n,), no NaN.

    Returns:
        Ranks in [1, n], shape (n,), multiples of one half.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank_of_value = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(rank_of_value[place], dtype=np.float64)


def ratio(numerator: float, denominator: float) -> float:
    """A quotient, or NaN where the denominator is zero."""
    return float(numerator / denominator) if denominator else math.nan


def average_precision(labels: Labels, scores: Scores) -> float:
    """Mean of the precision at each sick image, going down from the highest score.

    The step-wise area under the precision-recall curve, without interpolation; images with the
    same score enter together. A useless score gets the prevalence.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        scores: Logit or probability of sick, shape (n_images,).

    Returns:
        A fraction in (0, 1]; NaN if no image is sick.

    Raises:
        DataError: A score is NaN, a label is not 0 or 1, or the two shapes differ.

    Source:
        The definition of `sklearn.metrics.average_precision_score`.
    """
    sick, values = check_labels(labels, scores)
    _, place, called = np.unique(-values, return_inverse=True, return_counts=True)
    hits = np.bincount(place, weights=sick, minlength=len(called))
    precision = np.cumsum(hits) / np.cumsum(called)
    return ratio(float(precision @ hits), float(hits.sum()))


def brier_score(labels: Labels, probabilities: Scores) -> float:
    """Mean squared distance between the probability and what happened (0 or 1).

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1].

    Returns:
        A number in [0, 1], smaller is better; NaN without images.

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.

    Source:
        Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2, for one of two classes.
    """
    return _mean(brier_terms(labels, probabilities))


def brier_terms(labels: Labels, probabilities: Scores) -> FloatArray:
    """What each image adds to the Brier score: (probability - label)^2, shape (n_images,).

    Raises:
        DataError: As `brier_score`.
    """
    sick, values = check_labels(labels, probabilities)
    return (_check_probabilities(values) - sick) ** 2


def log_loss_from_logits(labels: Labels, logits: Scores) -> float:
    """Mean binary cross-entropy of the raw logits: the loss of `BCEWithLogitsLoss`.

    Unweighted and without label smoothing, whatever training used, so that runs can be compared.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        logits: Shape (n_images,), before any calibration.

    Returns:
        The mean in nats, at least 0; log(2) for a model that says 0.5; NaN without images.

    Raises:
        DataError: A logit is NaN or infinite, a label is not 0 or 1, or the two shapes differ.
    """
    return _mean(log_loss_terms(labels, logits))


def log_loss_terms(labels: Labels, logits: Scores) -> FloatArray:
    """What each image adds to the log loss, in nats, shape (n_images,).

    Raises:
        DataError: As `log_loss_from_logits`.
    """
    sick, values = check_labels(labels, logits)
    if np.isinf(values).any():
        raise DataError("a logit is infinite: the loss would be too, or hide that it is")
    return np.logaddexp(0.0, np.where(sick, -values, values))


def expected_calibration_error(labels: Labels, probabilities: Scores, n_bins: int = 10) -> float:
    """Mean distance between stated probability and observed frequency, over bins of probability.

    Within each bin of `probability_bins`, the mean probability is held against the fraction of
    sick images; the distances are averaged with the share of images in each bin as weight. Noise
    in small bins makes the value too large, so compare it between splits of similar size only.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1].
        n_bins: How many bins of equal width.

    Returns:
        A fraction in [0, 1], smaller is better; NaN without images.

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.

    Source:
        Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602, for the probability of one class.
    """
    sick, values = check_labels(labels, probabilities)
    gaps = np.bincount(probability_bins(values, n_bins), weights=values - sick, minlength=n_bins)
    return ratio(float(np.abs(gaps).sum()), len(values))


def probability_bins(probabilities: Scores, n_bins: int) -> IntArray:
    """Which of `n_bins` bins of equal width each probability falls in.

    Bin i holds [i / n_bins, (i + 1) / n_bins); the last bin holds 1.0 too.

    Args:
        probabilities: P(sick), shape (n_images,), in [0, 1].
        n_bins: At least 1.

    Returns:
        Bin of each image, 0 to n_bins - 1, shape (n_images,).

    Raises:
        DataError: A probability is NaN or outside [0, 1].
        ValueError: `n_bins` is below 1.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins}")
    scaled = np.floor(_check_probabilities(probabilities) * n_bins).astype(np.int64)
    return np.minimum(scaled, n_bins - 1)


def mse(targets: Scores, predictions: Scores) -> float:
    """Mean squared error, in the square of the target's unit.

    Args:
        targets: True number per image, shape (n_images,).
        predictions: Predicted number per image, shape (n_images,), same unit.

    Returns:
        At least 0, smaller is better; NaN without images.

    Raises:
        DataError: A number is NaN or infinite, or the two shapes differ.
    """
    truth, values = check_numbers(targets, predictions)
    return _mean((values - truth) ** 2)


def mae(targets: Scores, predictions: Scores) -> float:
    """Mean absolute error, in the target's unit; arguments, returns and errors as `mse`."""
    truth, values = check_numbers(targets, predictions)
    return _mean(np.abs(values - truth))


def r2(targets: Scores, predictions: Scores) -> float:
    """Coefficient of determination: 1 - squared error / squared error of the targets' mean.

    Args:
        targets: True number per image, shape (n_images,).
        predictions: Predicted number per image, shape (n_images,), same unit.

    Returns:
        At most 1; 0 is no better than always saying the mean; NaN if all targets are equal.

    Raises:
        DataError: A number is NaN or infinite, or the two shapes differ.
    """
    truth, values = check_numbers(targets, predictions)
    if len(truth) == 0 or float(np.ptp(truth)) == 0.0:
        return math.nan
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1.0 - float(((values - truth) ** 2).sum()) / spread


def check_numbers(targets: Scores, predictions: Scores) -> tuple[FloatArray, FloatArray]:
    """Refuse targets and predictions that no regression metric can be computed from.

    Returns:
        Both as float64, shape (n_images,).

    Raises:
        DataError: A number is NaN or infinite, or the two shapes differ.
    """
    truth = np.asarray(targets, dtype=np.float64)
    values = np.asarray(predictions, dtype=np.float64)
    _check_shapes(truth, values, "targets", "predictions")
    for name, numbers in (("targets", truth), ("predictions", values)):
        n_bad = int((~np.isfinite(numbers)).sum())
        if n_bad:
            raise DataError(f"{n_bad} of {len(numbers)} {name} are NaN or infinite")
    return truth, values


def _check_shapes(left: NDArray[Any], right: NDArray[Any], name: str, other: str) -> None:
    if left.ndim != 1 or left.shape != right.shape:
        raise DataError(
            f"{name} have shape {left.shape} and {other} {right.shape}; "
            "expected one of each per image, both (n_images,)"
        )


def _check_probabilities(probabilities: Scores) -> FloatArray:
    values = np.asarray(probabilities, dtype=np.float64)
    _refuse_nan(values, "probabilities")
    outside = values[(values < 0) | (values > 1)]
    if outside.size:
        raise DataError(f"probability {outside.flat[0]}: expected a number from 0 to 1")
    return values


def _refuse_nan(values: FloatArray, name: str) -> None:
    n_nan = int(np.isnan(values).sum())
    if n_nan:
        raise DataError(f"{n_nan} of {values.size} {name} are NaN; no metric can be computed")


def _mean(terms: FloatArray) -> float:
    return float(terms.mean()) if len(terms) else math.nan
