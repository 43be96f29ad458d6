"""Distances from a cloud, against scikit-learn, and the same to the last bit in any company."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf, ledoit_wolf

from xray_classifier.mahalanobis import PARTS, Cloud, fit_cloud, shrunk_covariance


def points(n: int, d: int, seed: int = 0) -> NDArray[np.float64]:
    """Correlated features of different size."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 10.0 * np.arange(d)


@pytest.mark.parametrize(("n", "d"), [(12, 40), (60, 73), (500, 20), (4, 1)])
def test_the_shrunk_covariance_is_that_of_scikit_learn(n: int, d: int) -> None:
    centred = points(n, d)
    centred -= centred.mean(axis=0)
    expected, _ = ledoit_wolf(centred, assume_centered=True)
    assert shrunk_covariance(centred) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_with_all_axes_it_is_the_distance_of_scikit_learn() -> None:
    given, asked = points(200, 15), points(30, 15, seed=1)
    cloud = fit_cloud(given)
    model = LedoitWolf(assume_centered=True).fit((given - cloud.mean) / cloud.scale)
    expected = np.sqrt(model.mahalanobis((asked - cloud.mean) / cloud.scale))
    assert cloud.distances(asked) == pytest.approx(expected, rel=1e-4)


def test_axes_that_are_not_kept_share_one_variance() -> None:
    given = points(300, 10)
    cloud = fit_cloud(given, most_axes=3, scaled=False)
    assert cloud.axes.shape == (3, 10)
    assert np.ptp(cloud.scale) == 0.0
    # the covariance that the docstring promises, inverted as a whole
    outside = np.eye(10) - cloud.axes.T @ cloud.axes
    covariance = (cloud.axes.T * cloud.variances) @ cloud.axes + cloud.rest[0] * outside
    away = (points(20, 10, seed=2) - cloud.mean) / cloud.scale
    expected = np.sqrt(np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away))
    assert cloud.distances(points(20, 10, seed=2)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("most_axes", [None, 5])
def test_no_distance_depends_on_its_neighbours(most_axes: int | None) -> None:
    cloud, asked = fit_cloud(points(100, 73), most_axes), points(131, 73, seed=3)
    whole = cloud.distances(asked)
    alone = np.concatenate([cloud.distances(one[None]) for one in asked])
    assert alone.tobytes() == whole.tobytes()
    assert cloud.distances(asked[::-1])[::-1].tobytes() == whole.tobytes()
    assert cloud.distances(asked[:0]).shape == (0,)


def test_constant_features_and_few_points_give_numbers() -> None:
    given = points(3, 6)
    given[:, 2] = 1.0
    assert np.isfinite(fit_cloud(given).distances(points(5, 6, seed=1))).all()
    still = fit_cloud(np.ones((4, 3)))
    assert still.distances(np.ones((1, 3)))[0] == 0.0
    assert still.distances(np.zeros((1, 3)))[0] > 1.0


def test_it_is_read_back_as_it_was() -> None:
    cloud, asked = fit_cloud(points(50, 8), 4), points(9, 8, seed=1)
    other = Cloud.from_arrays(cloud.arrays())
    assert other.distances(asked).tobytes() == cloud.distances(asked).tobytes()


@pytest.mark.parametrize("part", PARTS)
def test_what_is_no_cloud_is_refused(part: str) -> None:
    arrays = dict(fit_cloud(points(50, 8), 4).arrays())
    wrong = {**arrays, part: np.stack([arrays[part], arrays[part]])}
    with pytest.raises(ValueError, match="a cloud"):
        Cloud.from_arrays(wrong)
    with pytest.raises(KeyError):
        Cloud.from_arrays({name: array for name, array in arrays.items() if name != part})
    if part in ("scale", "variances", "rest"):
        with pytest.raises(ValueError, match="a cloud"):
            Cloud.from_arrays({**arrays, part: 0 * arrays[part]})
