"""How far a point lies from the middle of a cloud, in units of the cloud's own spread.

Source: Mahalanobis 1936; the shrinkage of the covariance is that of Ledoit & Wolf 2004,
doi:10.1016/S0047-259X(03)00096-4; the common variance of the axes that are not kept is that of
probabilistic principal components, Tipping & Bishop 1999, doi:10.1111/1467-9868.00196.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NARROWEST = 1e-6
"""Smallest spread that is divided by: of a feature that is constant, and of an axis."""

POINTS_AT_ONCE = 64
PARTS = ("mean", "scale", "axes", "variances", "rest")


@dataclass(frozen=True, eq=False)
class Cloud:
    """The middle and the spread of many points of d features.

    Attributes:
        mean: (d,).
        scale: What each feature is divided by, (d,).
        axes: Directions of the largest spread, (k, d), orthonormal.
        variances: Along them, (k,), shrunk.
        rest: Variance along every other direction, (1,).
    """

    mean: Floats
    scale: Floats
    axes: Floats
    variances: Floats
    rest: Floats

    def distances(self, points: Floats) -> Floats:
        """Mahalanobis distance of each point, (n,); each is the same in any company.

        Args:
            points: (n, d).
        """
        parts = [
            self._squared(points[first : first + POINTS_AT_ONCE])
            for first in range(0, len(points), POINTS_AT_ONCE)
        ]
        return np.sqrt(np.concatenate(parts)) if parts else np.zeros(0)

    def _squared(self, points: Floats) -> Floats:
        # no matrix product: the last bit of one depends on how many rows it has
        away = np.ascontiguousarray((points - self.mean) / self.scale)
        along = (away[:, None, :] * self.axes[None]).sum(axis=2)
        inside = (along**2 / self.variances).sum(axis=1)
        if len(self.axes) == len(self.mean):
            return np.asarray(inside)
        outside = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        return np.asarray(inside + outside / self.rest[0])

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Its numbers by name; exact, for they were rounded to float32 when they were fitted."""
        return {name: getattr(self, name).astype(np.float32) for name in PARTS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.floating]]) -> "Cloud":
        """Read back `arrays`.

        Raises:
            ValueError: They are none of a cloud.
            KeyError: One is missing.
        """
        cloud = cls(*(np.array(arrays[name], dtype=np.float64, order="C") for name in PARTS))
        d, k = len(np.atleast_1d(cloud.mean)), len(np.atleast_1d(cloud.variances))
        shapes = tuple(getattr(cloud, name).shape for name in PARTS)
        if shapes != ((d,), (d,), (k, d), (k,), (1,)) or not 0 < k <= d:
            raise ValueError(f"a cloud of shapes {shapes}")
        spreads = np.concatenate([cloud.scale, cloud.variances, cloud.rest])
        if not (np.isfinite(spreads).all() and (spreads > 0).all()):
            raise ValueError("a cloud without spread")
        return cloud


def fit_cloud(points: Floats, most_axes: int | None = None, scaled: bool = True) -> Cloud:
    """The cloud of many points.

    Args:
        points: (n, d), n at least 2.
        most_axes: Keep no more than these axes; None keeps all.
        scaled: Divide each feature by its own standard deviation; else all by their common one.
    """
    mean = _stored(points.mean(axis=0))
    spread = points.std(axis=0)
    if not scaled:
        spread = np.full(len(mean), np.sqrt(np.mean(spread**2)))
    scale = _stored(np.where(spread > NARROWEST, spread, 1.0))
    variances, axes = np.linalg.eigh(shrunk_covariance((points - mean) / scale))
    variances, axes = np.maximum(variances[::-1], NARROWEST), axes[:, ::-1].T
    kept = min(most_axes or len(mean), len(mean))
    rest = variances[kept:].mean() if kept < len(mean) else variances[-1]
    return Cloud(
        mean, scale, _stored(axes[:kept]), _stored(variances[:kept]), _stored(np.array([rest]))
    )


def _stored(numbers: Floats) -> Floats:
    """Numbers as a checkpoint will hold them."""
    # in C order, for sums over arrays of another order differ in their last bits
    return np.ascontiguousarray(numbers.astype(np.float32), dtype=np.float64)


def shrunk_covariance(centred: Floats) -> Floats:
    """The covariance of centred points, drawn towards a sphere as far as they are few.

    Args:
        centred: (n, d), of mean 0.

    Returns:
        (d, d).

    Source:
        Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4, equations 14 to 18.
    """
    n, d = centred.shape
    covariance = centred.T @ centred / n
    sphere = np.trace(covariance) / d
    distance = np.sum(covariance**2) - d * sphere**2  # d times the paper's squared norms
    noise = (np.sum(np.sum(centred**2, axis=1) ** 2) / n - np.sum(covariance**2)) / n
    share = 0.0 if distance <= 0 else min(max(noise, 0.0) / distance, 1.0)
    shrunk = (1.0 - share) * covariance
    shrunk[np.diag_indices(d)] += share * sphere
    return np.asarray(shrunk)
