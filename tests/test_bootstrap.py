"""Resampled patients: weights against repeated images, intervals against theory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier import bootstrap, metrics, weighted
from xray_classifier.confusion import confusion
from xray_classifier.errors import DataError

FEW = settings(max_examples=40, deadline=None)


@st.composite
def weighted_splits(draw):
    """Labels, tied probabilities, and how often each image was drawn (often never)."""
    n = draw(st.integers(1, 20))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    tenths = draw(st.lists(st.integers(0, 10), min_size=n, max_size=n))
    rows = draw(st.lists(st.integers(0, 3), min_size=3 * n, max_size=3 * n))
    return np.array(labels), np.array(tenths) / 10, np.array(rows, float).reshape(3, n)


PAIRS = [
    (metrics.auroc, weighted.weighted_auroc),
    (metrics.average_precision, weighted.weighted_average_precision),
    (metrics.brier_score, weighted.weighted_brier_score),
    (metrics.log_loss_from_logits, weighted.weighted_log_loss),
    (metrics.expected_calibration_error, weighted.weighted_calibration_error),
    (metrics.mse, weighted.weighted_mse),
    (metrics.mae, weighted.weighted_mae),
    (metrics.r2, weighted.weighted_r2),
]


@pytest.mark.parametrize(("plain", "many"), PAIRS)
@FEW
@given(weighted_splits())
def test_a_weight_is_the_image_repeated(plain, many, split):
    labels, scores, weights = split
    found = many(labels, scores, weights)
    for value, row in zip(found, weights.astype(int), strict=True):
        expected = plain(np.repeat(labels, row), np.repeat(scores, row))
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


@FEW
@given(weighted_splits(), st.integers(0, 10))
def test_weighted_outcomes_are_those_of_repeated_images(split, tenths):
    labels, scores, weights = split
    found = weighted.weighted_confusion(labels, scores, tenths / 10, weights)
    for counts, row in zip(found.tolist(), weights.astype(int), strict=True):
        one = confusion(np.repeat(labels, row), np.repeat(scores, row), tenths / 10)
        assert counts == [one.tp, one.fp, one.tn, one.fn]


def test_equal_targets_leave_r2_undefined_also_where_their_mean_is_rounded():
    targets, predictions = np.array([0.1, 0.1, 0.1, 0.7]), np.array([0.2, 0.3, 0.1, 0.5])
    weights = np.array([[1.0, 1, 1, 0], [3, 0, 0, 0], [1, 1, 1, 1]])
    found = weighted.weighted_r2(targets, predictions, weights)
    assert np.isnan(found[:2]).all()
    assert found[2] == pytest.approx(metrics.r2(targets, predictions))


@pytest.mark.parametrize(("plain", "many"), PAIRS)
def test_no_images_leave_every_resample_undefined(plain, many):
    assert np.isnan(many(np.zeros(0, int), np.zeros(0), np.zeros((2, 0)))).all()


def test_patients_are_numbered_and_a_missing_one_stands_alone():
    ids = np.array(["b", None, "a", "b", "", float("nan"), None, 7, "7"], dtype=object)
    assert bootstrap.patient_clusters(ids, 9).tolist() == [0, 1, 2, 0, 3, 4, 5, 6, 6]
    assert bootstrap.patient_clusters(None, 3).tolist() == [0, 1, 2]


def test_patients_of_other_images_are_refused():
    with pytest.raises(DataError, match="one per image"):
        bootstrap.patient_clusters(np.array(["a", "b"]), 3)


def test_each_resample_draws_as_many_patients_as_there_are_and_whole():
    clusters = np.array([0, 1, 1, 2, 2, 2, 3])
    blocks = list(bootstrap.resample_weights(clusters, 130, seed=5))
    weights = np.concatenate(blocks)
    assert weights.shape == (130, 7)
    first_image = [0, 1, 3, 6]
    assert (weights == weights[:, first_image][:, clusters]).all()
    assert (weights[:, first_image].sum(axis=1) == 4).all()


def test_patients_are_drawn_evenly_and_independently():
    weights = np.concatenate(list(bootstrap.resample_weights(np.arange(5), 8000, seed=0)))
    assert weights.mean(axis=0) == pytest.approx(1.0, abs=0.05)
    assert weights.var(axis=0) == pytest.approx(0.8, abs=0.06)  # binomial(5, 1/5)
    assert np.corrcoef(weights.T)[0, 1] == pytest.approx(-0.25, abs=0.05)


def mean_of(values):
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    values = np.random.default_rng(0).normal(10, 2, 400)
    found = bootstrap.cluster_bootstrap_interval(mean_of(values), np.arange(400), seed=1)
    reach = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - reach, abs=0.03)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.03)
    assert found.n_undefined == 0


def test_copies_of_a_patients_image_add_no_certainty():
    values = np.random.default_rng(0).normal(size=100)
    patients = np.arange(100)
    once = bootstrap.cluster_bootstrap_interval(mean_of(values), patients, seed=2)
    copied = bootstrap.cluster_bootstrap_interval(
        mean_of(np.repeat(values, 4)), np.repeat(patients, 4), seed=2
    )
    assert copied == pytest.approx(once)
    as_if_alone = bootstrap.cluster_bootstrap_interval(
        mean_of(np.repeat(values, 4)), np.arange(400), seed=2
    )
    assert as_if_alone.high - as_if_alone.low < 0.6 * (once.high - once.low)


def test_the_seed_alone_decides():
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (
        bootstrap.cluster_bootstrap_interval(mean_of(values), np.arange(50), 200, seed=seed)
        for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_undefined_resamples_are_left_out_and_counted():
    labels, scores = np.array([1, 0, 0, 0, 0]), np.array([0.5, 0.4, 0.3, 0.9, 0.6])
    found = bootstrap.cluster_bootstrap_interval(
        lambda weights: weighted.weighted_auroc(labels, scores, weights), np.arange(5), seed=0
    )
    # The one sick image is absent from (4/5)^5 = 33 % of resamples, no healthy one is drawn in 0 %.
    assert found.n_undefined / 2000 == pytest.approx(0.328, abs=0.04)
    assert 0 <= found.low < 0.5 < found.high <= 1


@pytest.mark.parametrize(
    "values",
    [
        np.full(100, np.nan),
        np.append(np.arange(49.0), np.full(51, np.nan)),
        np.full(100, 1.0),
        np.zeros(0),
    ],
)
def test_resamples_that_say_nothing_give_no_interval(values):
    assert np.isnan(bootstrap.percentile_interval(values)).all()
    assert np.isnan(bootstrap.reflected_interval(1.0, values)).all()


def test_percentiles_by_hand():
    found = bootstrap.percentile_interval(np.append(np.arange(101.0), np.nan), level=0.9)
    assert found == pytest.approx((5.0, 95.0))


@pytest.mark.parametrize(
    ("value", "low", "high"), [(50.0, 5.0, 95.0), (20.0, 0.0, 35.0), (2.0, 0.0, 2.0)]
)
def test_mirrored_percentiles_by_hand(value, low, high):
    found = bootstrap.reflected_interval(value, np.arange(101.0), level=0.9)
    assert found == pytest.approx((low, high))


def test_the_mirrored_interval_of_the_calibration_error_is_nearer_the_truth():
    rng = np.random.default_rng(0)
    # Risks spread evenly over [0, 1], always stated 0.15 too high or, from 0.85 on, as 1.
    risk = rng.random(10**6)
    stated = np.minimum(risk + 0.15, 1.0)
    truth = float(np.mean(stated - risk))
    hits = {"mirrored": 0, "percentile": 0}
    for seed in range(60):
        risk = rng.random(60)
        labels, said = (rng.random(60) < risk).astype(int), np.minimum(risk + 0.15, 1.0)
        value = metrics.expected_calibration_error(labels, said)
        values = bootstrap.bootstrap_values(
            lambda weights, y=labels, p=said: weighted.weighted_calibration_error(y, p, weights),
            np.arange(60),
            200,
            seed,
        )
        for name, (low, high) in {
            "mirrored": bootstrap.reflected_interval(value, values),
            "percentile": bootstrap.percentile_interval(values),
        }.items():
            hits[name] += low <= truth <= high
            assert name == "percentile" or low <= value <= high
    assert hits["mirrored"] > hits["percentile"]
