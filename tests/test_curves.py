"""ROC, precision-recall and reliability curves, against scikit-learn and areas of their own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import calibration as sk_calibration
from sklearn import metrics as sk

from xray_classifier import curves, metrics
from xray_classifier.errors import DataError

FEW = settings(max_examples=50, deadline=None)


@st.composite
def splits(draw):
    n = draw(st.integers(2, 40))
    labels = [0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))]
    scores = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    return np.array(labels), np.array(scores) / 4


@FEW
@given(splits())
def test_roc_curve_equals_scikit_learn(split):
    found = curves.roc_curve(*split)
    expected = sk.roc_curve(*split, drop_intermediate=False)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs)


@FEW
@given(splits())
def test_area_under_the_roc_curve_is_the_auroc(split):
    found = curves.roc_curve(*split)
    area = np.trapezoid(found.sensitivity, found.false_positive_rate)
    assert area == pytest.approx(metrics.auroc(*split))


@FEW
@given(splits())
def test_precision_recall_curve_equals_scikit_learn(split):
    found = curves.precision_recall_curve(*split)
    precision, recall, thresholds = sk.precision_recall_curve(*split)
    np.testing.assert_allclose(found.precision, precision[::-1])
    np.testing.assert_allclose(found.recall, recall[::-1])
    np.testing.assert_allclose(found.thresholds, np.append(np.inf, thresholds[::-1]))


@FEW
@given(splits())
def test_steps_under_the_precision_recall_curve_are_the_average_precision(split):
    found = curves.precision_recall_curve(*split)
    area = float(np.diff(found.recall) @ found.precision[1:])
    assert area == pytest.approx(metrics.average_precision(*split))


def test_a_missing_class_leaves_its_axis_undefined():
    only_healthy = curves.roc_curve(np.zeros(2, int), np.array([0.1, 0.2]))
    assert np.isnan(only_healthy.sensitivity).all()
    assert only_healthy.false_positive_rate.tolist() == [0.0, 0.5, 1.0]
    recall = curves.precision_recall_curve(np.zeros(2, int), np.array([0.1, 0.2])).recall
    assert np.isnan(recall).all()


def test_reliability_equals_scikit_learn_off_the_edges():
    rng = np.random.default_rng(0)
    probabilities = rng.random(400) ** 3
    labels = (rng.random(400) < probabilities).astype(int)
    found = curves.reliability_curve(labels, probabilities, 7)
    observed, predicted = sk_calibration.calibration_curve(labels, probabilities, n_bins=7)
    filled = found.counts > 0
    np.testing.assert_allclose(found.observed_fraction[filled], observed)
    np.testing.assert_allclose(found.mean_predicted[filled], predicted)
    assert found.counts.sum() == 400


def test_reliability_by_hand_with_an_empty_bin():
    probabilities = np.array([0.1, 0.3, 0.9, 1.0])
    found = curves.reliability_curve(np.array([0, 1, 1, 1]), probabilities, 4)
    assert found.counts.tolist() == [1, 1, 0, 2]
    np.testing.assert_allclose(found.mean_predicted, [0.1, 0.3, np.nan, 0.95])
    np.testing.assert_allclose(found.observed_fraction, [0, 1, np.nan, 1])


def test_gaps_of_the_reliability_curve_make_up_the_calibration_error():
    rng = np.random.default_rng(1)
    labels, probabilities = rng.integers(0, 2, 300), rng.random(300)
    curve = curves.reliability_curve(labels, probabilities, 10)
    gaps = np.abs(curve.mean_predicted - curve.observed_fraction)
    expected = float(np.nansum(gaps * curve.counts)) / 300
    assert metrics.expected_calibration_error(labels, probabilities, 10) == pytest.approx(expected)


@pytest.mark.parametrize(
    "curve", [curves.roc_curve, curves.precision_recall_curve, curves.reliability_curve]
)
def test_a_nan_score_is_refused(curve):
    with pytest.raises(DataError):
        curve(np.array([0, 1]), np.array([0.1, np.nan]))
