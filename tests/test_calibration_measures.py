"""Skill, slope and intercept against statsmodels, scikit-learn and hand calculation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression

from xray_classifier import calibration_measures as measures
from xray_classifier.errors import DataError
from xray_classifier.metrics import sigmoid

FEW = settings(max_examples=40, deadline=None)
Z = 1.959963984540054


@pytest.fixture(scope="module")
def split():
    """60 images that need no random generator, and three of each of 20 patients."""
    place = np.arange(60)
    probabilities = 0.02 + 0.96 * (place * 37 % 60) / 59
    labels = (place * 29 % 60 / 59 < 0.15 + 0.6 * probabilities).astype(int)
    return labels, probabilities, place // 3


def errors_of(found):
    """Standard errors of slope and intercept."""
    slope = (found.slope_interval.high - found.slope) / Z
    return slope, (found.intercept_interval.high - found.intercept) / Z


def test_slope_and_intercept_are_those_of_statsmodels(split):
    # statsmodels 0.15.0: Logit(labels, [1, logit]).fit() and
    # GLM(labels, [1], family=Binomial(), offset=logit).fit(): parameters and standard errors.
    labels, probabilities, _ = split
    found = measures.recalibration(labels, probabilities)
    assert found.slope == pytest.approx(0.532776281566488, abs=1e-9)
    assert found.intercept == pytest.approx(-0.19564301802796935, abs=1e-9)
    assert errors_of(found) == pytest.approx((0.1983360151444505, 0.31316520234362476), abs=1e-8)


def test_patients_widen_the_interval_as_in_statsmodels(split):
    # The same fits of GLM with cov_type="cluster" and use_correction=False, times 20 / 19.
    labels, probabilities, patients = split
    found = measures.recalibration(labels, probabilities, patients)
    expected = np.array([0.2324053647579683, 0.3194353239070564]) * math.sqrt(20 / 19)
    assert errors_of(found) == pytest.approx(expected, abs=1e-8)


def test_patients_of_one_image_change_nothing(split):
    labels, probabilities, _ = split
    alone = measures.recalibration(labels, probabilities, np.arange(60))
    assert alone == measures.recalibration(labels, probabilities)


def test_images_given_twice_say_no_more_than_once():
    rng = np.random.default_rng(5)
    probabilities = sigmoid(rng.normal(0, 1.5, 3000))
    labels = (rng.random(3000) < probabilities).astype(int)
    once = errors_of(measures.recalibration(labels, probabilities))
    pairs = np.repeat(labels, 2), np.repeat(probabilities, 2)
    twice = measures.recalibration(*pairs, np.repeat(np.arange(3000), 2))
    assert errors_of(twice) == pytest.approx(once, rel=0.05)  # sandwich against information
    as_if_others = errors_of(measures.recalibration(*pairs))
    assert as_if_others == pytest.approx(np.array(once) / math.sqrt(2), rel=1e-6)


@FEW
@given(st.integers(0, 10**6), st.floats(0.3, 3), st.floats(-2, 2))
def test_the_slope_is_that_of_scikit_learn(seed, scale, shift):
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, 80), [0, 1, 0, 1])
    logits = np.append(scale * rng.normal(1.2 * labels[:80] - 0.5) + shift, [0, 0, 1, 1])
    found = measures.recalibration(labels, sigmoid(logits))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(logits[:, np.newaxis], labels)
    assert found.slope == pytest.approx(model.coef_[0, 0], rel=1e-4, abs=1e-5)


@FEW
@given(st.integers(0, 10**6), st.floats(0, 40))
def test_the_intercept_makes_the_probabilities_add_up(seed, scale):
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, 20), [0, 1])
    logits = np.clip(scale * rng.normal(size=22), -36, 36)
    found = measures.recalibration(labels, sigmoid(logits)).intercept
    expected = brentq(lambda add: sigmoid(logits + add).sum() - labels.sum(), -100, 100)
    if abs(expected) < 30 and scale < 8:  # beyond, sigmoid(logits) itself is rounded
        assert found == pytest.approx(expected, abs=1e-4)
    assert sigmoid(logits + found).sum() == pytest.approx(labels.sum(), abs=0.01)


def test_stretched_and_shifted_logits_are_found_again():
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 1.5, 40_000)
    labels = (rng.random(40_000) < sigmoid(logits)).astype(int)
    right = measures.recalibration(labels, sigmoid(logits))
    assert right.slope == pytest.approx(1, abs=0.03)
    assert right.intercept == pytest.approx(0, abs=0.03)
    extreme = measures.recalibration(labels, sigmoid(2 * logits))
    assert extreme.slope == pytest.approx(right.slope / 2, rel=1e-6)
    low = measures.recalibration(labels, sigmoid(logits - 0.7))
    assert low.intercept == pytest.approx(right.intercept + 0.7, abs=1e-6)


@pytest.mark.parametrize(
    "probabilities",
    [[0.1, 0.2, 0.8, 0.9], [0.9, 0.8, 0.2, 0.1], [0.1, 0.5, 0.5, 0.9], [0.3, 0.3, 0.3, 0.3]],
    ids=["parted", "parted the wrong way", "parted but for a tie", "all equal"],
)
def test_classes_that_a_cut_parts_have_no_slope(probabilities):
    found = measures.recalibration(np.array([0, 0, 1, 1]), np.array(probabilities))
    assert math.isnan(found.slope)
    assert np.isnan(found.slope_interval).all()
    assert math.isfinite(found.intercept)
    assert found.intercept_interval.low < found.intercept < found.intercept_interval.high


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], []])
def test_one_class_leaves_everything_undefined(labels):
    values = np.linspace(0.2, 0.8, len(labels))
    found = measures.recalibration(np.array(labels, int), values)
    assert np.isnan([found.slope, found.intercept]).all()
    assert np.isnan([*found.slope_interval, *found.intercept_interval]).all()
    assert math.isnan(measures.brier_skill(np.array(labels, int), values))


def test_probabilities_of_exactly_0_and_1_have_a_logit():
    labels = np.array([0, 0, 1, 1, 0, 1, 1, 0])
    probabilities = np.array([0.0, 0.2, 1.0, 0.7, 1.0, 0.0, 0.6, 0.4])
    found = measures.recalibration(labels, probabilities)
    assert math.isfinite(found.slope)
    near = np.clip(probabilities, 2.0**-53, 1 - 2.0**-53)
    assert found.slope == pytest.approx(measures.recalibration(labels, near).slope, rel=1e-9)
    assert abs(found.intercept) < 1


def test_saturated_probabilities_that_are_all_wrong_still_end():
    found = measures.recalibration(np.array([0, 1] * 5), np.ones(10))
    assert found.intercept == pytest.approx(-measures.FARTHEST_LOGIT, abs=1e-6)


def test_two_patients_make_no_interval(split):
    labels, probabilities, _ = split
    found = measures.recalibration(labels, probabilities, np.arange(60) // 30)
    assert math.isfinite(found.slope)
    assert np.isnan([*found.slope_interval, *found.intercept_interval]).all()


def test_the_skill_is_what_the_guess_loses():
    labels = np.array([0, 0, 0, 1])
    # Guess 1/4: Brier 3/16. These: (0.01 + 0.01 + 0.04 + 0.09) / 4 = 0.0375.
    found = measures.brier_skill(labels, np.array([0.1, 0.1, 0.2, 0.7]))
    assert found == pytest.approx(1 - 0.0375 / 0.1875)
    assert measures.brier_skill(labels, np.full(4, 0.25)) == pytest.approx(0)
    assert measures.brier_skill(labels, labels.astype(float)) == 1
    assert measures.brier_skill(labels, np.array([1.0, 1, 1, 0])) < 0


@FEW
@given(st.integers(0, 10**6), st.integers(0, 25))
def test_a_weight_is_the_image_repeated(seed, n):
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 2, n), rng.random(n)
    weights = rng.integers(0, 3, (4, n))
    found = measures.weighted_brier_skill(labels, probabilities, weights.astype(float))
    for value, row in zip(found, weights, strict=True):
        expected = measures.brier_skill(np.repeat(labels, row), np.repeat(probabilities, row))
        assert value == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("measure", [measures.recalibration, measures.brier_skill])
def test_what_is_no_probability_is_refused(measure):
    with pytest.raises(DataError, match="from 0 to 1"):
        measure(np.array([0, 1]), np.array([0.5, 1.5]))
    with pytest.raises(DataError, match="expected 0"):
        measure(np.array([0, 2]), np.array([0.5, 0.5]))
