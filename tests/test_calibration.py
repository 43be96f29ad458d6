"""Platt and temperature, against scikit-learn, SciPy and data with a known miscalibration."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from xray_classifier.calibration import Calibration, fit_calibration, smoothed_targets
from xray_classifier.errors import CheckpointError, DataError
from xray_classifier.metrics import auroc, expected_calibration_error, log_loss_from_logits, sigmoid


def overconfident(seed, n=600, factor=3.0, shift=1.0):
    """Labels drawn at the true risk, and logits `factor` times too large and shifted."""
    rng = np.random.default_rng(seed)
    true_logits = rng.normal(0.3, 1.5, n)
    labels = (rng.random(n) < sigmoid(true_logits)).astype(int)
    return labels, factor * true_logits + shift


def cross_entropy(line, logits, targets):
    scores = line[0] * logits + (line[1] if len(line) > 1 else 0.0)
    return float((np.logaddexp(0, scores) - targets * scores).sum())


def test_smoothed_targets_by_hand():
    found = smoothed_targets(np.array([True, True, True, False]))
    assert found == pytest.approx([4 / 5, 4 / 5, 4 / 5, 1 / 3])


@pytest.mark.parametrize("seed", range(3))
def test_platt_equals_unpenalised_logistic_regression(seed):
    labels, logits = overconfident(seed)
    targets = smoothed_targets(labels == 1)
    # A target t counts as the label 1 with weight t and the label 0 with weight 1 - t.
    twice = np.concatenate([logits, logits])[:, None]
    truth = np.repeat([1, 0], len(labels))
    weights = np.concatenate([targets, 1 - targets])
    model = LogisticRegression(C=1e12, tol=1e-12, max_iter=10_000).fit(twice, truth, weights)
    found = fit_calibration(labels, logits, "platt")
    assert found.reason is None
    assert found.calibration.slope == pytest.approx(model.coef_[0, 0], rel=1e-5)
    assert found.calibration.intercept == pytest.approx(model.intercept_[0], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_temperature_equals_a_general_optimiser(seed):
    labels, logits = overconfident(seed, shift=0.0)
    targets = smoothed_targets(labels == 1)
    best = minimize(cross_entropy, [1.0], args=(logits, targets), method="BFGS", tol=1e-10)
    found = fit_calibration(labels, logits, "temperature").calibration
    assert found.slope == pytest.approx(best.x[0], rel=1e-5)
    assert found.intercept == 0.0


@pytest.mark.parametrize("method", ["platt", "temperature"])
@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1e-6, 1e-2, 1.0, 1e3, 1e6]),
    st.sampled_from([0.0, 1.0, -50.0]),
)
def test_no_step_from_the_fit_lowers_the_loss(method, seed, scale, shift):
    labels, logits = overconfident(seed, n=60, factor=scale, shift=scale * shift)
    found = fit_calibration(labels, logits, method)
    if found.reason is None:
        targets = smoothed_targets(labels == 1)
        slope, intercept = found.calibration.slope, found.calibration.intercept
        scores = slope * logits + intercept
        residual = sigmoid(scores) - targets
        # At a minimum both parts of the gradient vanish, the slope's in units of the logits' size.
        assert abs(residual @ logits) / np.abs(logits).max() < 1e-5
        if method == "platt":
            assert abs(residual.sum()) < 1e-5


def test_newton_steps_that_overshoot_are_cut_back():
    # Three far outliers among logits near zero: plain Newton steps run off to a slope of 1e14.
    logits = np.repeat([0.0034, -0.0003, 1.0, 0.0034], [48, 1308, 3, 16])
    labels = np.repeat([1, 0, 1, 0], [48, 1308, 3, 16])
    targets = smoothed_targets(labels == 1)
    fit = fit_calibration(labels, logits, "platt")
    assert fit.reason is None
    line = (fit.calibration.slope, fit.calibration.intercept)
    start = [100.0, -1.0]
    best = minimize(cross_entropy, start, (logits, targets), method="Nelder-Mead", tol=1e-12)
    assert cross_entropy(line, logits, targets) == pytest.approx(best.fun, rel=1e-9)


def test_a_known_miscalibration_is_undone():
    labels, logits = overconfident(0, n=20_000, factor=3.0, shift=1.0)
    found = fit_calibration(labels, logits, "platt").calibration
    assert found.slope == pytest.approx(1 / 3, rel=0.05)
    assert found.intercept == pytest.approx(-1 / 3, abs=0.05)


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_other_images_are_better_calibrated_afterwards(method):
    labels, logits = overconfident(1, n=4000)
    fit = fit_calibration(labels[:2000], logits[:2000], method).calibration
    labels, logits = labels[2000:], logits[2000:]
    calibrated = fit.slope * logits + fit.intercept
    assert log_loss_from_logits(labels, calibrated) < 0.8 * log_loss_from_logits(labels, logits)
    before = expected_calibration_error(labels, sigmoid(logits))
    assert expected_calibration_error(labels, fit.apply(logits)) < 0.5 * before


@pytest.mark.parametrize("method", ["platt", "temperature", "off"])
@pytest.mark.parametrize("seed", range(3))
def test_calibration_changes_no_ranking(method, seed):
    labels, logits = overconfident(seed, n=300)
    fit = fit_calibration(labels, logits, method).calibration
    assert auroc(labels, fit.apply(logits)) == auroc(labels, logits)


@pytest.mark.parametrize("method", ["platt", "temperature"])
@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_a_split_without_mistakes_gets_a_finite_slope(method, size):
    labels = np.repeat([0, 1], 50)
    logits = size * np.where(labels == 1, 4.0, -4.0)
    fit = fit_calibration(labels, logits, method)
    assert fit.reason is None
    # The smoothed targets are 51/52 and 1/52: no more certainty than 50 right answers can buy.
    assert fit.calibration.slope * size == pytest.approx(math.log(51) / 4, rel=1e-6)
    assert fit.calibration.intercept == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("method", ["platt", "temperature"])
@pytest.mark.parametrize(
    ("labels", "logits", "why"),
    [
        ([1] * 40, np.arange(40.0), "0 healthy and 40 sick"),
        ([0] * 40, np.arange(40.0), "40 healthy and 0 sick"),
        ([0] * 31 + [1] * 9, np.arange(40.0), "31 healthy and 9 sick"),
        ([0, 1] * 20, np.full(40, 0.7), "same logit"),
        ([0] * 20 + [1] * 20, np.linspace(2, -2, 40), "higher logit"),
    ],
)
def test_what_cannot_be_fitted_leaves_the_logits_and_says_why(method, labels, logits, why):
    fit = fit_calibration(np.array(labels), logits, method)
    assert fit.calibration == Calibration("off", 1.0, 0.0)
    assert why in fit.reason


def test_the_least_number_of_images_may_be_chosen():
    labels, logits = np.array([0, 0, 1, 1]), np.array([-1.0, 0.5, 0.0, 1.0])
    assert fit_calibration(labels, logits, "platt").reason is not None
    assert fit_calibration(labels, logits, "platt", min_per_class=2).reason is None


def test_off_fits_nothing_and_complains_of_nothing():
    labels, logits = overconfident(0, n=50)
    assert fit_calibration(labels, logits, "off") == (Calibration(), None)
    np.testing.assert_array_equal(Calibration().apply(logits), sigmoid(logits))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(bad):
    with pytest.raises(DataError):
        fit_calibration(np.array([0, 1]), np.array([0.0, bad]), "platt")


def test_applying_by_hand_on_any_shape():
    found = Calibration("platt", 2.0, -1.0).apply(np.array([[0.5], [1.0]], dtype=np.float32))
    assert found.dtype == np.float64
    assert found.tolist() == [[0.5], [pytest.approx(1 / (1 + math.exp(-1)))]]


def test_a_calibration_survives_json_to_the_last_bit():
    fitted = fit_calibration(*overconfident(0), "platt").calibration
    text = json.dumps(fitted.to_dict(), allow_nan=False)
    assert Calibration.from_dict(json.loads(text)) == fitted


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"method": "platt", "slope": 1.0},
        {"method": "isotonic", "slope": 1.0, "intercept": 0.0},
        {"method": "platt", "slope": 0.0, "intercept": 0.0},
        {"method": "platt", "slope": -1.0, "intercept": 0.0},
        {"method": "platt", "slope": float("nan"), "intercept": 0.0},
        {"method": "platt", "slope": 1.0, "intercept": float("inf")},
        {"method": "platt", "slope": 10**400, "intercept": 0.0},
        {"method": "platt", "slope": None, "intercept": 0.0},
        {"method": "temperature", "slope": 0.5, "intercept": 0.1},
        {"method": "off", "slope": 0.5, "intercept": 0.0},
    ],
)
def test_a_damaged_calibration_is_refused(stored):
    with pytest.raises(CheckpointError, match="calibration"):
        Calibration.from_dict(stored)
