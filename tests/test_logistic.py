"""The ridge regression against scikit-learn and against its own optimality conditions."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from xray_classifier.errors import DataError
from xray_classifier.logistic import Logistic, logistic_fit
from xray_classifier.metrics import sigmoid


def drawn(seed: int, n: int = 200, d: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) and labels that depend on the first of them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d))
    return features, (features[:, 0] + rng.logistic(size=n) > 0.5).astype(int)


def theirs(features: np.ndarray, labels: np.ndarray, l2: float, weights=None) -> np.ndarray:
    """P(sick) of scikit-learn's optimum."""
    model = LogisticRegression(C=1 / l2, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where rounding ends its line search
        model.fit(features, labels, sample_weight=weights)
    return model.predict_proba(features)[:, 1]


def gradient(fit: Logistic, features: np.ndarray, labels: np.ndarray, l2: float) -> np.ndarray:
    """Slope of the penalised loss in weights and intercept."""
    excess = sigmoid(fit.logits(features)) - labels
    return np.append(features.T @ excess + l2 * fit.weights, excess.sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("l2", [0.01, 1.0, 100.0])
def test_predictions_are_those_of_scikit_learn(seed, l2):
    features, labels = drawn(seed)
    fit = logistic_fit(features, labels, l2=l2)
    expected = theirs(features, labels, l2)
    assert np.abs(sigmoid(fit.logits(features)) - expected).max() < 1e-6


def test_image_weights_are_those_of_scikit_learn():
    features, labels = drawn(0)
    weights = np.random.default_rng(1).uniform(0, 3, len(labels))
    fit = logistic_fit(features, labels, weights)
    expected = theirs(features, labels, 1.0, weights)
    assert np.abs(sigmoid(fit.logits(features)) - expected).max() < 1e-6
    unweighted = logistic_fit(features, labels)
    assert np.abs(sigmoid(unweighted.logits(features)) - expected).max() > 1e-3


def test_more_rows_than_are_summed_at_once_count_once_each():
    features, labels = drawn(3, n=9001, d=3)
    fit = logistic_fit(features, labels)
    expected = theirs(features, labels, 1.0)
    assert np.abs(sigmoid(fit.logits(features)) - expected).max() < 1e-6


def test_a_weight_is_the_image_repeated():
    features, labels = drawn(2, n=60)
    times = np.random.default_rng(0).integers(0, 4, 60)
    fit = logistic_fit(features, labels, times.astype(float))
    repeated = logistic_fit(np.repeat(features, times, axis=0), np.repeat(labels, times))
    assert fit.weights == pytest.approx(repeated.weights, abs=1e-8)
    assert fit.intercept == pytest.approx(repeated.intercept, abs=1e-8)


@pytest.mark.parametrize("l2", [1e-6, 1e-3, 1.0])
def test_separable_classes_end_at_the_optimum(l2):
    features = np.linspace(-1, 1, 40)[:, np.newaxis]
    labels = (features[:, 0] > 0).astype(int)
    fit = logistic_fit(features, labels, l2=l2)
    assert np.isfinite(fit.weights).all()
    assert np.abs(gradient(fit, features, labels, l2)).max() < 1e-6
    assert ((fit.logits(features) > 0) == labels).all()


def test_one_hot_columns_that_sum_to_one_are_no_obstacle():
    rng = np.random.default_rng(0)
    features = np.eye(4)[rng.integers(0, 4, 300)]
    labels = (rng.random(300) < features @ [0.1, 0.4, 0.6, 0.9]).astype(int)
    fit = logistic_fit(np.hstack([features, features]), labels)
    assert fit.weights[:4] == pytest.approx(fit.weights[4:], abs=1e-9)
    expected = theirs(np.hstack([features, features]), labels, 1.0)
    got = sigmoid(fit.logits(np.hstack([features, features])))
    assert np.abs(got - expected).max() < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(2, 40),
    st.integers(0, 8),
    st.sampled_from([1e-4, 0.1, 1.0, 1e4]),
    st.sampled_from([0.01, 1.0, 100.0]),
)
def test_the_slope_vanishes_whatever_the_data(seed, n, d, l2, scale):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) * scale
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    fit = logistic_fit(features, labels, l2=l2)
    steepness = np.append(np.abs(features).sum(axis=0), n)  # the most the slope can be
    assert (np.abs(gradient(fit, features, labels, l2)) <= 1e-5 * steepness + 1e-9).all()


def test_the_start_does_not_move_the_optimum():
    features, labels = drawn(4)
    fit = logistic_fit(features, labels)
    elsewhere = logistic_fit(features, labels, start=Logistic(np.full(5, 30.0), -20.0))
    assert elsewhere.weights == pytest.approx(fit.weights, abs=1e-7)
    assert elsewhere.intercept == pytest.approx(fit.intercept, abs=1e-7)


def test_without_features_the_intercept_is_the_log_odds():
    fit = logistic_fit(np.zeros((10, 0)), np.array([1] * 8 + [0] * 2))
    assert fit.intercept == pytest.approx(np.log(8 / 2))


def test_what_has_no_optimum_is_refused():
    features, labels = drawn(0)
    with pytest.raises(ValueError, match="a class has no weight"):
        logistic_fit(features, np.ones(200, int))
    with pytest.raises(ValueError, match="a class has no weight"):
        logistic_fit(features, labels, labels.astype(float))
    with pytest.raises(ValueError, match="l2 is 0"):
        logistic_fit(features, labels, l2=0.0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        logistic_fit(np.where(features > 2, np.nan, features), labels)
    with pytest.raises(DataError):
        logistic_fit(features, labels + 1)
    with pytest.raises(DataError):
        logistic_fit(features, labels[:-1])
