"""Partial AUROC against scikit-learn, points of the ROC curve against every threshold there is."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from xray_classifier import discrimination, weighted
from xray_classifier.confusion import confusion
from xray_classifier.metrics import auroc

FEW = settings(max_examples=60, deadline=None)
SHARES = st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.95, 1.0])


@st.composite
def splits(draw, least=0):
    """Labels and tied scores in [0, 1]."""
    n = draw(st.integers(least, 30))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    tenths = draw(st.lists(st.integers(0, 10), min_size=n, max_size=n))
    return np.array(labels, int), np.array(tenths, float) / 10


@st.composite
def two_classes(draw):
    labels, scores = draw(splits(least=2))
    labels[:2] = 0, 1
    return labels, scores


@FEW
@given(two_classes(), st.sampled_from([0.05, 0.1, 0.3, 0.7]))
def test_partial_auroc_is_scikit_learns(split, max_fpr):
    found = discrimination.partial_auroc(*split, max_fpr)
    assert found == pytest.approx(roc_auc_score(*split, max_fpr=max_fpr), abs=1e-12)


def test_partial_auroc_of_many_images_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 3000)
    scores = rng.normal(labels)
    found = discrimination.partial_auroc(labels, scores)
    assert found == pytest.approx(roc_auc_score(labels, scores, max_fpr=0.1), abs=1e-12)


@FEW
@given(two_classes())
def test_the_whole_range_gives_the_auroc(split):
    assert discrimination.partial_auroc(*split, 1.0) == pytest.approx(auroc(*split), abs=1e-12)


def every_point(labels, scores):
    """Sensitivity and specificity of every decision that a threshold on these scores can make."""
    outcomes = [confusion(labels, scores, cut) for cut in [*np.unique(scores), 2.0]]
    return [(one.sensitivity, one.specificity) for one in outcomes]


@FEW
@given(two_classes(), SHARES)
def test_points_are_the_best_of_all_thresholds(split, least):
    points = every_point(*split)
    found = discrimination.sensitivity_at_specificity(*split, least)
    assert found == pytest.approx(max(sens for sens, spec in points if spec >= least))
    found = discrimination.specificity_at_sensitivity(*split, least)
    assert found == pytest.approx(max(spec for sens, spec in points if sens >= least))


def test_27_of_30_are_a_specificity_of_090():
    labels = np.repeat([0, 1], [30, 20])
    scores = np.concatenate([np.arange(30) / 100, np.full(20, 0.265)])
    assert discrimination.sensitivity_at_specificity(labels, scores) == 1.0
    scores[30:] = 0.255  # above it lie four of thirty healthy: a specificity of 0.867
    assert discrimination.sensitivity_at_specificity(labels, scores) == 0.0


def test_19_of_20_are_a_sensitivity_of_095():
    labels = np.repeat([0, 1], [10, 20])
    scores = np.concatenate([np.full(10, 0.5), np.full(19, 0.6), [0.1]])
    assert discrimination.specificity_at_sensitivity(labels, scores) == 1.0
    scores[-2] = 0.1
    assert discrimination.specificity_at_sensitivity(labels, scores) == 0.0


def test_images_with_one_score_fall_together():
    labels = np.array([0, 0, 1, 1])
    assert discrimination.sensitivity_at_specificity(labels, np.zeros(4)) == 0.0
    assert discrimination.specificity_at_sensitivity(labels, np.zeros(4)) == 0.0


MEASURES = [
    (discrimination.partial_auroc, discrimination.partial_auroc_of),
    (discrimination.sensitivity_at_specificity, discrimination.sensitivity_at_specificity_of),
    (discrimination.specificity_at_sensitivity, discrimination.specificity_at_sensitivity_of),
]


@pytest.mark.parametrize(("plain", "many"), MEASURES)
@FEW
@given(splits(), st.sampled_from([0.1, 0.5, 0.9]), st.integers(0, 10**6))
def test_a_weight_is_the_image_repeated(plain, many, split, share, seed):
    labels, scores = split
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(labels)))
    found = many(weighted.ranked_weights(labels, scores, weights.astype(float)), share)
    for value, row in zip(found, weights, strict=True):
        expected = plain(np.repeat(labels, row), np.repeat(scores, row), share)
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("plain", "_many"), MEASURES)
@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], []])
def test_one_class_leaves_them_undefined(plain, _many, labels):
    assert math.isnan(plain(np.array(labels, int), np.arange(float(len(labels)))))


@pytest.mark.parametrize(("plain", "_many"), MEASURES)
@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_out_of_range_is_refused(plain, _many, share):
    with pytest.raises(ValueError, match=r"expected a (share|number)"):
        plain(np.array([0, 1]), np.array([0.1, 0.9]), share)
