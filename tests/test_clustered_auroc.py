"""AUROC with patients as clusters, against loops, DeLong, resampled patients and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from xray_classifier.clustered_auroc import (
    auroc_difference,
    clustered_covariance,
    clustered_interval,
)
from xray_classifier.errors import DataError
from xray_classifier.intervals import delong_covariance, delong_interval, delong_test

FEW = settings(max_examples=50, deadline=None)


def by_loops(labels, first, second, clusters):
    """Obuchowski's covariance of two AUROCs, in the letters of the 1997 paper."""
    sick, healthy = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    big_m, big_n, ids = len(sick), len(healthy), sorted(set(clusters.tolist()))

    def psi(x, y):
        return 1.0 if x > y else 0.5 if x == y else 0.0

    def sums(scores):
        v10 = {j: sum(psi(scores[j], scores[k]) for k in healthy) / big_n for j in sick}
        v01 = {k: sum(psi(scores[j], scores[k]) for j in sick) / big_m for k in healthy}
        area = sum(v10.values()) / big_m
        x, y = {}, {}
        for i in ids:
            mine_sick = [j for j in sick if clusters[j] == i]
            mine_healthy = [k for k in healthy if clusters[k] == i]
            x[i] = sum(v10[j] for j in mine_sick) - len(mine_sick) * area
            y[i] = sum(v01[k] for k in mine_healthy) - len(mine_healthy) * area
        return x, y

    xr, yr = sums(first)
    xl, yl = sums(second)
    i10 = len({clusters[j] for j in sick})
    i01 = len({clusters[k] for k in healthy})
    s10 = i10 / ((i10 - 1) * big_m) * sum(xr[i] * xl[i] for i in ids)
    s01 = i01 / ((i01 - 1) * big_n) * sum(yr[i] * yl[i] for i in ids)
    s11 = len(ids) / (len(ids) - 1) * sum(xr[i] * yl[i] for i in ids)
    s11_other = len(ids) / (len(ids) - 1) * sum(xl[i] * yr[i] for i in ids)
    return s10 / big_m + s01 / big_n + (s11 + s11_other) / (big_m * big_n)


@st.composite
def clustered_sets(draw):
    """Tied scores of two models on images of patients who may be sick and healthy at once."""
    n = draw(st.integers(8, 20))
    labels = draw(st.permutations([1] * (n // 2) + [0] * (n - n // 2)))
    clusters = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    scores = draw(st.lists(st.integers(0, 6), min_size=2 * n, max_size=2 * n))
    return np.array(labels), np.array(scores, float).reshape(2, n), np.array(clusters)


@FEW
@given(clustered_sets())
def test_covariance_equals_the_formula_written_as_loops(case):
    labels, scores, clusters = case
    found = clustered_covariance(labels, scores, clusters)
    for row, area in zip(scores, found.aurocs, strict=True):
        assert area == pytest.approx(roc_auc_score(labels, row), abs=1e-12)
    if min(len(set(clusters[labels == k])) for k in (0, 1)) < 2:
        assert np.isnan(found.covariance).all()
        return
    for i in range(2):
        for j in range(2):
            expected = by_loops(labels, scores[i], scores[j], clusters)
            assert found.covariance[i, j] == pytest.approx(expected, abs=1e-12)


@FEW
@given(clustered_sets())
def test_with_one_image_each_it_is_delong(case):
    labels, scores, _ = case
    alone = np.arange(len(labels)) * 3 + 1  # numbers need not be 0, 1, 2, ...
    expected = delong_covariance(labels, scores)
    found = clustered_covariance(labels, scores, alone)
    np.testing.assert_allclose(found.aurocs, expected.aurocs, atol=1e-12)
    np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-12)
    difference = auroc_difference(labels, scores[0], scores[1], alone)
    test = delong_test(labels, scores[1], scores[0])
    assert difference.method == "delong"
    assert difference.value == pytest.approx(test.difference, abs=1e-12)
    assert difference.p_value == pytest.approx(test.p_value, nan_ok=True)
    np.testing.assert_equal(
        clustered_interval(labels, scores[0], alone), delong_interval(labels, scores[0])
    )


def of_patients(rng, n_patients=60, n_images=4, gap=1.0, spread=1.0, models=2):
    """Labels, scores and patients; what a model makes of a patient runs through all images."""
    clusters = np.repeat(np.arange(n_patients), n_images)
    labels = (clusters % 2).astype(int)
    bias = rng.normal(0, spread, (models, n_patients))[:, clusters]
    return labels, gap * labels + bias + rng.normal(size=bias.shape), clusters


def test_variance_of_a_difference_is_near_that_of_leaving_out_patients():
    labels, scores, clusters = of_patients(np.random.default_rng(0), n_patients=120)
    found = clustered_covariance(labels, scores, clusters).covariance
    left = []
    for patient in range(120):
        rest = clusters != patient
        areas = [roc_auc_score(labels[rest], row[rest]) for row in scores]
        left.append(areas[1] - areas[0])
    jackknife = 119 / 120 * np.sum((np.array(left) - np.mean(left)) ** 2)
    assert found[0, 0] + found[1, 1] - 2 * found[0, 1] == pytest.approx(jackknife, rel=0.05)


def test_variance_is_near_that_of_drawing_patients_anew():
    rng = np.random.default_rng(1)
    labels, scores, clusters = of_patients(rng, n_patients=120, models=1)
    labels = labels ^ (np.arange(len(labels)) % 4 == 0)  # a patient with images of both classes
    images = [np.flatnonzero(clusters == patient) for patient in range(120)]
    areas = []
    for _ in range(800):
        drawn = np.concatenate([images[k] for k in rng.integers(0, 120, 120)])
        areas.append(roc_auc_score(labels[drawn], scores[0][drawn]))
    found = clustered_covariance(labels, scores, clusters).covariance[0, 0]
    assert math.sqrt(found) == pytest.approx(np.std(areas), rel=0.1)


def test_where_patients_repeat_the_test_keeps_its_level_and_delong_does_not():
    rng = np.random.default_rng(2)
    plain, clustered, held = [], [], []
    for _ in range(600):
        labels, scores, clusters = of_patients(rng)
        found = auroc_difference(labels, scores[0], scores[1], clusters)
        assert found.method == "obuchowski"
        clustered.append(found.p_value < 0.05)
        held.append(found.low <= 0 <= found.high)
        plain.append(delong_test(labels, scores[0], scores[1]).p_value < 0.05)
    assert 0.03 <= np.mean(clustered) <= 0.08
    assert np.mean(plain) > 0.15
    assert np.mean(held) == pytest.approx(1 - np.mean(clustered))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    truth = 0.5 * (1 + math.erf(1.5 / 2 / math.sqrt(2)))  # normals 1.5 apart, each of variance 2
    ends = []
    for _ in range(500):
        labels, scores, clusters = of_patients(rng, gap=1.5, models=1)
        ends.append(clustered_interval(labels, scores[0], clusters))
    assert 0.92 <= np.mean([low <= truth <= high for low, high in ends]) <= 0.98


def test_a_better_second_model_has_a_positive_difference():
    rng = np.random.default_rng(4)
    labels, scores, clusters = of_patients(rng, spread=0.3)
    found = auroc_difference(labels, scores[0], scores[1] + 2 * labels, clusters)
    assert found.value > 0.1
    assert 0 < found.low < found.value < found.high <= 1
    assert found.p_value < 0.001


def test_models_that_order_the_images_alike_do_not_differ():
    labels, scores, clusters = of_patients(np.random.default_rng(5))
    for patients in (clusters, np.arange(len(clusters))):
        found = auroc_difference(labels, scores[0], 2 * scores[0] + 1, patients)
        assert (found.value, found.p_value) == (0.0, 1.0)
        assert math.isnan(found.low)


def test_a_perfect_auroc_counts_pairs_that_share_no_patient():
    # Two sick patients with two images each, three healthy ones: two such pairs; 0.025 ** (1/2).
    labels = np.array([1, 1, 1, 1, 0, 0, 0])
    clusters = np.array([0, 0, 1, 1, 2, 3, 4])
    found = clustered_interval(labels, labels.astype(float), clusters)
    assert found == pytest.approx((0.1581, 1.0), abs=5e-5)


def test_one_class_or_one_patient_of_a_class_gives_no_test():
    scores, clusters = np.arange(4.0), np.array([0, 0, 1, 2])
    for labels in (np.ones(4, int), np.array([1, 1, 0, 0])):
        found = auroc_difference(labels, scores, -scores, clusters)
        assert math.isnan(found.p_value)
        assert math.isnan(found.low)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="shapes"):
        clustered_covariance(np.array([0, 1]), np.zeros((1, 2)), np.zeros(3, int))
    with pytest.raises(DataError, match="shapes"):
        auroc_difference(np.array([0, 1]), np.zeros(2), np.zeros(3), np.zeros(2, int))
