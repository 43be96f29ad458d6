"""One linear unit with two weights: a loss that can be drawn whole, and gradient descent on it.

With the squared error the loss over two weights is a bowl: its lowest point is known in closed form
and its steepness says which learning rate is too large. With the cross-entropy there is no formula
for the lowest point, and where a line parts the classes there is no lowest point at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CELLS = 4
"""The two features are mean greys of cells of a grid of this many a side."""
RATE_SHARES = (0.05, 0.45, 0.95, 1.05)
"""Learning rates of the picture, as parts of the largest stable one."""
MSE_STEPS = 40
BCE_STEPS = 4000
WEIGHT_DECAY = 0.02
"""Of the second descent on the cross-entropy: the L2 term 0.02/2 * |w|^2."""
FAR = 1e6
"""A descent that has come this far from the middle ends there."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Two features of some images, and what a unit with two weights is to answer.

    Attributes:
        features: Standardised, (n, 2).
        targets: 0 or 1, or standardised numbers, (n,).
        cells: Row and column of the cells that the features are the mean grey of.
    """

    features: Floats
    targets: Floats
    cells: tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Descent:
    """Gradient descent from one point.

    Attributes:
        rate: Learning rate.
        weights: Before the first step and after each, (k, 2); shorter where it ran away.
        losses: Loss at each, (k,).
    """

    rate: float
    weights: Floats
    losses: Floats


@dataclass(frozen=True, eq=False)
class Bowl:
    """The squared error over two weights.

    Attributes:
        plane: Features and targets.
        minimum: Weights of the smallest loss, (2,), by the normal equations.
        lowest: That loss.
        curvatures: Eigenvalues of the Hessian, largest first.
        largest_rate: 2 / the largest eigenvalue; above it steps grow.
        descents: One for each rate.
    """

    plane: Plane
    minimum: Floats
    lowest: float
    curvatures: tuple[float, float]
    largest_rate: float
    descents: tuple[Descent, ...]


@dataclass(frozen=True, eq=False)
class Valley:
    """The cross-entropy over the same two weights, on images that a line through 0 parts.

    Attributes:
        plane: The images that a line parts; signs as the line says.
        n_all: Images of which these are some.
        free: Descent without weight decay: it never arrives.
        held: Descent with weight decay.
        decay: Of `held`.
        minimum: Where `held` goes to, (2,), by Newton's method.
        norms: |w| of `free` and of `held` after each step, (2, k).
        overlapping: Weights of the smallest cross-entropy on all images, (2,); None where the line
            parts them all.
    """

    plane: Plane
    n_all: int
    free: Descent
    held: Descent
    decay: float
    minimum: Floats
    norms: Floats
    overlapping: Floats | None


def two_features(images: NDArray[np.uint8], targets: Floats) -> Plane:
    """The two cells of the films that say most of the target together, as mean greys.

    The first is the cell whose mean grey goes best with the target, the second the one that goes
    best with what the first leaves unexplained.

    Args:
        images: (n, S, S) uint8, S at least 4.
        targets: (n,).
    """
    greys = _cell_greys(images)
    spread = greys.std(axis=0)
    scaled = (greys - greys.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    centred = targets - targets.mean()
    first = int(np.argmax(np.abs(scaled.T @ centred)))
    left = centred - scaled[:, first] * (scaled[:, first] @ centred) / len(centred)
    own = scaled - np.outer(scaled[:, first], scaled.T @ scaled[:, first] / len(centred))
    size = np.linalg.norm(own, axis=0)
    gain = np.where(size > 1e-9, np.abs(own.T @ left) / np.maximum(size, 1e-9), -1.0)
    gain[first] = -1.0
    second = int(np.argmax(gain))
    return Plane(scaled[:, [first, second]], targets, (divmod(first, CELLS), divmod(second, CELLS)))


def _cell_greys(images: NDArray[np.uint8]) -> Floats:
    """Mean grey of each cell, (n, CELLS * CELLS), row by row."""
    edges = np.linspace(0, images.shape[1], CELLS + 1).astype(int)
    return np.stack(
        [
            images[:, edges[r] : edges[r + 1], edges[c] : edges[c + 1]].mean(axis=(1, 2))
            for r in range(CELLS)
            for c in range(CELLS)
        ],
        axis=1,
    )


def mse_at(plane: Plane, weights: Floats) -> Floats:
    """Mean squared error of the unit, against centred targets, at weights (..., 2)."""
    centred = plane.targets - plane.targets.mean()
    answers = weights @ plane.features.T
    return np.asarray(((answers - centred) ** 2).mean(axis=-1))


def mse_gradient(plane: Plane, weights: Floats) -> Floats:
    """2/n X^T (X w - y), (2,)."""
    centred = plane.targets - plane.targets.mean()
    wrong = plane.features @ weights - centred
    return np.asarray(2.0 * plane.features.T @ wrong / len(wrong))


def bce_at(plane: Plane, weights: Floats, decay: float = 0.0) -> Floats:
    """Mean binary cross-entropy at weights (..., 2), with decay/2 |w|^2 added."""
    logits = weights @ plane.features.T
    losses = np.logaddexp(0.0, logits) - plane.targets * logits
    return np.asarray(losses.mean(axis=-1) + 0.5 * decay * (weights**2).sum(axis=-1))


def bce_gradient(plane: Plane, weights: Floats, decay: float = 0.0) -> Floats:
    """1/n X^T (p - y) + decay w, (2,), with p the sigmoid of X w."""
    p = 1.0 / (1.0 + np.exp(-np.clip(plane.features @ weights, -500.0, 500.0)))
    wrong = p - plane.targets
    return np.asarray(plane.features.T @ wrong / len(wrong) + decay * weights)


def measure_bowl(plane: Plane, shares: Sequence[float] = RATE_SHARES) -> Bowl:
    """The bowl, its lowest point, and gradient descent with several learning rates.

    A step multiplies the distance to the lowest point, along each axis of the bowl, by 1 - rate *
    curvature. So the distance shrinks only while rate < 2 / largest curvature.

    Args:
        plane: At least two images whose features are not proportional.
        shares: Learning rates as parts of the largest stable one.

    Source:
        Boyd & Vandenberghe 2004, "Convex optimization", section 9.3; LeCun et al. 1998,
        "Efficient backprop", doi:10.1007/3-540-49430-8_2, section 5.
    """
    x, n = plane.features, len(plane.targets)
    hessian = 2.0 * x.T @ x / n
    minimum = np.linalg.solve(hessian, 2.0 * x.T @ (plane.targets - plane.targets.mean()) / n)
    small, large = np.linalg.eigvalsh(hessian)
    start = _start(hessian, minimum)
    descents = []
    for share in shares:
        rate = share * 2.0 / float(large)
        weights = _descend(lambda w: mse_gradient(plane, w), start, rate, MSE_STEPS)
        descents.append(Descent(rate, weights, mse_at(plane, weights)))
    return Bowl(
        plane,
        minimum,
        float(mse_at(plane, minimum)),
        (float(large), float(small)),
        2.0 / float(large),
        tuple(descents),
    )


def _start(hessian: Floats, minimum: Floats) -> Floats:
    """A start that is off the lowest point along both axes of the bowl, and higher than at 0."""
    _, axes = np.linalg.eigh(hessian)
    size = max(float(np.linalg.norm(minimum)), 0.1)
    return np.asarray(minimum + 2.5 * size * axes[:, 0] + 1.5 * size * axes[:, 1])


def _descend(
    gradient: Callable[[Floats], Floats], start: Floats, rate: float, steps: int
) -> Floats:
    """Weights before the first step and after each, (k, 2)."""
    path = [start]
    for _ in range(steps):
        now = path[-1] - rate * gradient(path[-1])
        path.append(now)
        if not np.abs(now).max() < FAR:
            break
    return np.array(path)


def parted_by_a_line(plane: Plane) -> Plane:
    """The images on which the best linear unit through 0 is right: these a line parts.

    Args:
        plane: With targets 0 and 1.
    """
    centred = plane.targets - plane.targets.mean()
    best = np.linalg.lstsq(plane.features, centred, rcond=None)[0]
    margin = plane.features @ best * np.where(plane.targets > 0, 1.0, -1.0)
    right = margin > 0
    return Plane(plane.features[right], plane.targets[right], plane.cells)


def measure_valley(plane: Plane, decay: float = WEIGHT_DECAY) -> Valley | None:
    """Cross-entropy on images that a line parts, without and with weight decay.

    Scaling weights that part the classes makes every answer surer and the loss smaller, for ever:
    the weights grow like the logarithm of the steps. Weight decay makes the growth cost something.

    Args:
        plane: With targets 0 and 1.
        decay: Above 0.

    Returns:
        The two descents; None where the line is right on images of one class only.

    Source:
        Soudry et al. 2018, JMLR 19(70), arXiv:1710.10345: on separable data gradient descent
        grows |w| like log t, in the direction of the largest margin.
    """
    parted = parted_by_a_line(plane)
    if not 0 < parted.targets.sum() < len(parted.targets):
        return None
    curvature = float(np.linalg.eigvalsh(parted.features.T @ parted.features)[-1])
    rate = 1.0 / (0.25 * curvature / len(parted.targets) + decay)  # below 2 / largest curvature
    start = np.zeros(2)
    free = _descend(lambda w: bce_gradient(parted, w), start, rate, BCE_STEPS)
    held = _descend(lambda w: bce_gradient(parted, w, decay), start, rate, BCE_STEPS)
    return Valley(
        parted,
        len(plane.targets),
        Descent(rate, free, bce_at(parted, free)),
        Descent(rate, held, bce_at(parted, held, decay)),
        decay,
        bce_minimum(parted, decay),
        np.stack([np.linalg.norm(free, axis=1), np.linalg.norm(held, axis=1)]),
        bce_minimum(plane, 0.0) if len(parted.targets) < len(plane.targets) else None,
    )


def bce_minimum(plane: Plane, decay: float) -> Floats:
    """Weights of the smallest cross-entropy with weight decay, (2,), by damped Newton steps.

    Args:
        plane: With targets 0 and 1.
        decay: Above 0, or the classes must overlap.
    """
    weights = np.zeros(2)
    for _ in range(200):
        p = 1.0 / (1.0 + np.exp(-plane.features @ weights))
        curved = (plane.features.T * (p * (1 - p))) @ plane.features / len(p) + decay * np.eye(2)
        step = np.linalg.solve(curved, bce_gradient(plane, weights, decay))
        size = 1.0
        while size > 1e-6 and bce_at(plane, weights - size * step, decay) > bce_at(
            plane, weights, decay
        ):
            size *= 0.5
        weights = weights - size * step
        if np.abs(step).max() < 1e-12:
            break
    return weights
