"""Logistic regression with a ridge, in NumPy alone: small enough to run before any training step.

With a ridge the best weights are finite and unique, also where a feature tells the classes apart
without error or where features repeat one another, as one-hot columns do.
"""

from typing import NamedTuple

import numpy as np

from xray_classifier.metrics import FloatArray, Labels, Scores, check_labels, sigmoid

MAX_STEPS = 200
MAX_HALVINGS = 40
PRECISION = 1e-9
"""Stop at a Newton decrement of this many nats per unit of weight; the error left is its square."""
ROWS_AT_ONCE = 4096
"""Rows of features in the Hessian at a time: 4,096 x 128 x 8 bytes = 4 MB stay in the cache."""


class Logistic(NamedTuple):
    """What `logistic_fit` finds."""

    weights: FloatArray
    """Shape (n_features,), in logits per unit of the feature."""
    intercept: float
    """The logit where all features are zero."""

    def logits(self, features: Scores) -> FloatArray:
        """Logit of sick of each image, shape (n_images,)."""
        return np.asarray(features @ self.weights + self.intercept, dtype=np.float64)


def logistic_fit(
    features: Scores,
    labels: Labels,
    weights: Scores | None = None,
    l2: float = 1.0,
    start: Logistic | None = None,
) -> Logistic:
    """Fit a logistic regression: minimise log loss + l2 / 2 x the sum of squared weights.

    The log loss is the sum over images, in nats; the intercept bears no penalty. The optimum is
    that of scikit-learn's `LogisticRegression(C=1 / l2)`. Newton's method, where a step that does
    not pay is halved.

    Args:
        features: Shape (n_images, n_features), finite; on comparable scales, for one penalty
            holds all weights.
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        weights: How much each image counts, shape (n_images,), at least 0; None: 1 each.
        l2: Strength of the ridge, above 0.
        start: Where to begin, such as the fit of much the same images: it saves steps and does not
            move the optimum.

    Raises:
        DataError: A label is not 0 or 1, or `labels` and `features` differ in length.
        ValueError: `l2` is not above 0, a class has no weight, or a feature is NaN or infinite.

    Source:
        Hastie et al. 2009, The Elements of Statistical Learning, section 4.4.1, with a ridge.
    """
    table = np.asarray(features, dtype=np.float64)
    sick, _ = check_labels(labels, np.zeros(len(table)))
    shares = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not l2 > 0:
        raise ValueError(f"l2 is {l2}; expected a number above 0")
    if not (shares[sick].sum() > 0 and shares[~sick].sum() > 0):
        raise ValueError("a class has no weight: the intercept has no optimum")
    if not np.isfinite(table).all():
        raise ValueError("a feature is NaN or infinite")
    begin = np.zeros(table.shape[1] + 1)
    if start is not None:
        begin[:-1], begin[-1] = start
    found = _minimise(_Loss(table, sick.astype(np.float64), shares, l2), begin)
    return Logistic(found[:-1], float(found[-1]))


class _Loss:
    """The penalised log loss as a function of (weights, intercept), shape (n_features + 1,).

    Args:
        table: Features, (n_images, n_features).
        truth: 0.0 or 1.0 per image.
        shares: How much each image counts.
        l2: Strength of the ridge.
    """

    def __init__(self, table: FloatArray, truth: FloatArray, shares: FloatArray, l2: float) -> None:
        self.table = table
        self.truth = truth
        self.shares = shares
        self.ridge = np.full(table.shape[1] + 1, l2)
        self.ridge[-1] = 0.0
        self.total = float(shares.sum())

    def logits(self, place: FloatArray) -> FloatArray:
        return np.asarray(self.table @ place[:-1] + place[-1])

    def value(self, place: FloatArray, logits: FloatArray) -> float:
        losses = np.logaddexp(0.0, logits) - self.truth * logits
        return float(self.shares @ losses + self.ridge @ place**2 / 2)

    def slope(self, place: FloatArray, probabilities: FloatArray) -> FloatArray:
        excess = self.shares * (probabilities - self.truth)
        return np.append(excess @ self.table, excess.sum()) + self.ridge * place

    def curvature(self, probabilities: FloatArray) -> FloatArray:
        """The Hessian, (n_features + 1, n_features + 1)."""
        bends = self.shares * probabilities * (1.0 - probabilities)
        n_features = self.table.shape[1]
        hessian = np.zeros((n_features + 1, n_features + 1))
        for first in range(0, len(bends), ROWS_AT_ONCE):
            rows, bend = self.table[first:][:ROWS_AT_ONCE], bends[first:][:ROWS_AT_ONCE]
            hessian[:-1, :-1] += (rows * bend[:, np.newaxis]).T @ rows
            hessian[-1, :-1] += bend @ rows
        hessian[:-1, -1] = hessian[-1, :-1]
        # Where all probabilities are near 0 or 1 nothing bends the intercept, and no step is found.
        hessian[-1, -1] = bends.sum() + 1e-9 * self.total
        hessian[np.diag_indices(n_features + 1)] += self.ridge
        return hessian


def _minimise(loss: _Loss, place: FloatArray) -> FloatArray:
    """Newton's method from `place` to the one minimum."""
    logits = loss.logits(place)
    value = loss.value(place, logits)
    for _ in range(MAX_STEPS):
        probabilities = sigmoid(logits)
        slope = loss.slope(place, probabilities)
        step = np.asarray(np.linalg.solve(loss.curvature(probabilities), slope), np.float64)
        reach, gain, towards = 1.0, float(slope @ step), loss.logits(step)
        for _ in range(MAX_HALVINGS):
            after = loss.value(place - reach * step, logits - reach * towards)
            if after <= value - 1e-4 * reach * gain:
                break
            reach /= 2
        else:
            return place  # rounding hides any further gain
        place, value, logits = place - reach * step, after, logits - reach * towards
        if gain <= PRECISION * loss.total:
            break
    return place
