"""The physics of a film: attenuation, scatter, noise, development."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier.data.phantom_film import (
    FILM_LEVELS,
    add_scatter,
    blur,
    detect,
    develop,
    expose,
    transmission,
)


def test_a_half_value_layer_lets_half_of_the_quanta_pass() -> None:
    mu_per_cm = 0.217
    layers = np.arange(5) * np.log(2.0) / mu_per_cm
    np.testing.assert_allclose(transmission(mu_per_cm * layers), 0.5 ** np.arange(5))


@given(first=st.floats(0, 20), second=st.floats(0, 20))
def test_layers_multiply_their_transmissions(first: float, second: float) -> None:
    together, apart = transmission(np.array([first + second])), transmission(np.array([first]))
    assert together[0] == pytest.approx(apart[0] * transmission(np.array([second]))[0])


@pytest.mark.parametrize("mean", [30.0, 400.0, 20000.0])
def test_noise_has_the_mean_variance_and_skewness_of_the_poisson_law(mean: float) -> None:
    counts = detect(np.full((600, 600), mean), np.random.default_rng(0))
    n = counts.size
    centred = (counts - counts.mean()) / counts.std()
    assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / n))
    assert counts.var() == pytest.approx(mean, rel=5 * np.sqrt(2.0 / n) + 0.06 / mean)
    assert (centred**3).mean() == pytest.approx(mean**-0.5, abs=5 * np.sqrt(6.0 / n))


def test_electronic_noise_adds_its_variance() -> None:
    counts = detect(np.full((600, 600), 400.0), np.random.default_rng(0), electronic_sd=20.0)
    assert counts.var() == pytest.approx(800.0, rel=0.02)


def test_blur_keeps_a_flat_image_and_spreads_a_point_as_a_gaussian() -> None:
    np.testing.assert_allclose(blur(np.full((32, 32), 3.0), 4.0), 3.0)
    point = np.zeros((65, 65))
    point[32, 32] = 1.0
    spread = blur(point, 3.0)
    at = np.arange(65) - 32
    assert spread.sum() == pytest.approx(1.0, abs=1e-6)
    assert (spread.sum(axis=0) * at**2).sum() == pytest.approx(9.0, rel=1e-3)
    assert (spread.sum(axis=1) * at**2).sum() == pytest.approx(9.0, rel=1e-3)


def test_scatter_adds_its_share_of_a_flat_field() -> None:
    np.testing.assert_allclose(add_scatter(np.full((16, 16), 0.5), 0.3, 2.0), 0.65)


@given(
    bend=st.floats(-0.8, 0.8),
    low=st.floats(-12, -6),
    reach=st.floats(0.5, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_fewer_quanta_are_never_darker(bend: float, low: float, reach: float, seed: int) -> None:
    counts = np.sort(np.random.default_rng(seed).uniform(0, 60000, 256))[::-1].reshape(16, 16)
    film = develop(counts.copy(), low, low + reach, bend)
    assert film.dtype == np.uint16
    assert (np.diff(film.ravel().astype(int)) >= 0).all()
    assert film.max() < FILM_LEVELS


def test_the_window_goes_from_black_to_white_and_a_straight_tone_curve_is_straight() -> None:
    counts = np.exp(-np.array([[-9.0, -8.0, -7.0, -6.0, -5.0]]))
    film = develop(counts, -8.0, -6.0, 0.0)
    np.testing.assert_array_equal(film, [[0, 0, 2048, 4095, 4095]])


def test_denser_parts_come_out_brighter() -> None:
    depth = np.full((64, 64), 2.0)
    depth[:, 32:] = 3.5
    film = expose(depth, np.random.default_rng(0)).astype(float)
    assert film[:, 40:].mean() > film[:, :24].mean() + 500


def test_a_wide_blur_that_skips_pixels_agrees_with_one_that_reads_all() -> None:
    at = np.arange(128)
    image = np.exp(-np.hypot(at[:, None] - 40.0, 1.3 * (at[None, :] - 70.0)) / 30.0)
    sigma = 15.0
    full = np.exp(-0.5 * ((at[:, None] - at[None, :]) / sigma) ** 2)
    full /= full.sum(axis=1, keepdims=True)
    found, expected = blur(image, sigma), full @ image @ full.T
    np.testing.assert_allclose(found[30:98, 30:98], expected[30:98, 30:98], rtol=0.005)
    np.testing.assert_allclose(found, expected, rtol=0.05)
