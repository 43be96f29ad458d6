"""Folds by patient, logits out of them, and the AUROC within them, against independent truths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xray_classifier.bootstrap import bootstrap_values, patient_clusters, percentile_interval
from xray_classifier.cross_validation import fold_auroc, out_of_fold_logits, probe_folds
from xray_classifier.errors import DataError
from xray_classifier.intervals import delong_interval, extreme_auroc_interval
from xray_classifier.metrics import sigmoid
from xray_classifier.weighted import weighted_auroc

owned = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=1, max_size=60)


def clusters_of(groups: list[str]) -> np.ndarray:
    """Patient numbers."""
    return patient_clusters(np.array(groups, dtype=object), len(groups))


@settings(max_examples=200, deadline=None)
@given(owned, st.integers(2, 6), st.integers(0, 3))
def test_folds_never_split_a_patient_and_hold_both_classes(images, k, seed):
    groups, labels = [f"p{owner}" for owner, _ in images], np.array([sick for _, sick in images])
    folds = probe_folds(groups, labels, k, seed)
    owners = [len({g for g, sick in zip(groups, labels, strict=True) if sick == c}) for c in (0, 1)]
    if folds.of_image is None:
        # Patients of one class each can always be dealt.
        pure = len(set(zip(groups, labels.tolist(), strict=True))) == len(set(groups))
        assert not (pure and min(owners) >= 2)
        assert folds.note
        return
    homes = {}
    for group, fold in zip(groups, folds.of_image.tolist(), strict=True):
        assert homes.setdefault(group, fold) == fold
    assert 2 <= folds.n_folds <= min(k, *owners)
    for fold in range(folds.n_folds):
        assert set(labels[folds.of_image == fold].tolist()) == {0, 1}
    assert (folds.note == "") == (folds.n_folds == k)


def test_folds_hold_their_share_of_each_class():
    rng = np.random.default_rng(0)
    groups = [f"p{owner}" for owner in np.repeat(np.arange(400), rng.integers(1, 5, 400))]
    of_patient = {group: rng.random() < 0.25 for group in set(groups)}
    labels = np.array([of_patient[group] for group in groups]).astype(int)
    folds = probe_folds(groups, labels).of_image
    for truth in (0, 1):
        counts = np.bincount(folds[labels == truth], minlength=5)
        assert np.ptp(counts) <= 1


def test_folds_depend_on_the_seed_but_not_on_the_order_of_rows():
    groups = [f"p{i // 2}" for i in range(100)]
    labels = np.array([i // 2 % 2 for i in range(100)])
    order = np.random.default_rng(0).permutation(100)
    folds = probe_folds(groups, labels, seed=1).of_image
    shuffled = probe_folds([groups[i] for i in order], labels[order], seed=1).of_image
    assert (shuffled == folds[order]).all()
    assert (probe_folds(groups, labels, seed=2).of_image != folds).any()


def test_few_patients_get_fewer_folds_or_none():
    groups = ["a", "b", "c", "x", "y", "z", "u"]
    three = probe_folds(groups, np.array([1, 1, 1, 0, 0, 0, 0]))
    assert three.n_folds == 3
    assert three.note == "3 folds in place of 5: 3 patients with sick images"
    none = probe_folds(groups, np.array([1, 1, 1, 1, 1, 1, 0]))
    assert none.of_image is None
    assert none.note == "1 patient with healthy images: too few to judge a probe on others"
    assert probe_folds([], np.array([], int)).of_image is None


def test_logits_are_those_of_scikit_learn_fold_by_fold():
    rng = np.random.default_rng(0)
    features = np.hstack([rng.normal(size=(300, 4)) * [1, 100, 0.01, 5], np.full((300, 1), 0.1)])
    labels = (features[:, 0] + rng.logistic(size=300) > 1).astype(int)
    folds = rng.integers(0, 4, 300)
    logits = out_of_fold_logits(features, labels, folds, l2=2.0)
    for fold in range(4):
        inside = folds == fold
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.5, class_weight="balanced", tol=1e-10)
        )
        model.fit(features[~inside], labels[~inside])
        expected = model.predict_proba(features[inside])[:, 1]
        assert np.abs(sigmoid(logits[inside]) - expected).max() < 1e-5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 6)), min_size=1))
def test_the_auroc_counts_pairs_within_a_fold(images):
    folds, labels, scores = (np.array(column) for column in zip(*images, strict=True))
    won, pairs = 0.0, 0
    for fold, sick, score in images:
        for other_fold, other_sick, other in images:
            if fold == other_fold and sick and not other_sick:
                won, pairs = won + (score > other) + 0.5 * (score == other), pairs + 1
    expected = won / pairs if pairs else np.nan
    found = fold_auroc(labels, scores.astype(float), folds, np.arange(len(images)))
    assert found.value == pytest.approx(expected, nan_ok=True)


def test_the_auroc_is_the_mean_of_those_of_the_folds_by_pairs():
    rng = np.random.default_rng(0)
    labels, scores, folds = rng.integers(0, 2, 200), rng.random(200), rng.integers(0, 5, 200)
    areas = [roc_auc_score(labels[folds == f], scores[folds == f]) for f in range(5)]
    sick = [labels[folds == f].sum() for f in range(5)]
    pairs = [s * ((folds == f).sum() - s) for f, s in enumerate(sick)]
    found = fold_auroc(labels, scores, folds, np.arange(200))
    assert found.value == pytest.approx(np.average(areas, weights=pairs), abs=1e-12)


def test_one_fold_of_single_images_has_the_interval_of_delong():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 150)
    scores = labels + rng.normal(size=150)
    found = fold_auroc(labels, scores, np.zeros(150, int), np.arange(150))
    assert found.method == "delong"
    assert found.interval == pytest.approx(delong_interval(labels, scores), abs=1e-12)


def patients_with_films(
    seed: int, n_patients: int = 80
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and patients, where films of one patient resemble each other."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(n_patients), rng.integers(1, 7, n_patients))
    labels = (rng.random(len(owners)) < (rng.random(n_patients) < 0.5)[owners] * 0.8).astype(int)
    scores = labels + rng.normal(size=n_patients)[owners] + 0.5 * rng.normal(size=len(owners))
    return labels, scores, owners


def test_the_variance_is_that_of_obuchowski():
    """The published sums, image by image, with patients who have films of both classes."""
    labels, scores, owners = patients_with_films(5, 12)
    sick, healthy = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    order = (scores[sick][:, None] > scores[healthy][None]).astype(float)
    area = order.mean()
    x, y = np.zeros(12), np.zeros(12)
    for place, image in enumerate(sick):
        x[owners[image]] += order[place].mean() - area
    for place, image in enumerate(healthy):
        y[owners[image]] += order[:, place].mean() - area
    m, n = len(sick), len(healthy)
    with_sick, with_healthy = len(set(owners[sick])), len(set(owners[healthy]))
    s10 = with_sick / ((with_sick - 1) * m) * (x**2).sum()
    s01 = with_healthy / ((with_healthy - 1) * n) * (y**2).sum()
    s11 = 12 / 11 * (x * y).sum()
    variance = s10 / m + s01 / n + 2 * s11 / (m * n)
    assert abs(s11) > 0.01
    low, high = fold_auroc(labels, scores, np.zeros(len(labels), int), owners).interval
    log_odds = np.log(np.array([low, high]) / (1 - np.array([low, high])))
    expected = 2 * 1.959963985 * np.sqrt(variance) / (area * (1 - area))
    assert np.ptp(log_odds) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_films_of_one_patient_widen_the_interval_as_resampled_patients_do(seed):
    labels, scores, owners = patients_with_films(seed)
    found = fold_auroc(labels, scores, np.zeros(len(labels), int), owners)
    draws = bootstrap_values(lambda w: weighted_auroc(labels, scores, w), owners, 4000, seed=1)
    low, high = percentile_interval(draws)
    assert found.method == "clustered_delong"
    assert found.interval.high - found.interval.low == pytest.approx(high - low, rel=0.12)
    naive = delong_interval(labels, scores)
    assert found.interval.high - found.interval.low > 1.2 * (naive.high - naive.low)


def test_intervals_of_a_fixed_score_hold_the_truth_in_95_of_100_sets():
    truth = roc_auc_score(*patients_with_films(0, 40_000)[:2])
    held = 0
    for seed in range(400):
        labels, scores, owners = patients_with_films(seed + 1)
        found = fold_auroc(labels, scores, owners % 5, owners).interval
        held += found.low <= truth <= found.high
    assert 0.92 * 400 <= held <= 0.985 * 400


def test_a_perfect_auroc_has_the_interval_of_the_pairs_that_share_no_patient():
    labels = np.array([1, 1, 1, 0, 0, 0, 1, 0])
    folds = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    owners = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    found = fold_auroc(labels, labels.astype(float), folds, owners)
    assert (found.value, found.method) == (1.0, "extreme_auroc")
    assert found.interval == extreme_auroc_interval(1.0, 2 + 1)


def test_equal_scores_have_no_interval():
    found = fold_auroc(np.array([0, 1, 0, 1]), np.zeros(4), np.array([0, 0, 1, 1]), np.arange(4))
    assert found.value == 0.5
    assert np.isnan(found.interval).all()


def test_scores_that_are_nan_are_refused():
    with pytest.raises(DataError):
        fold_auroc(np.array([0, 1]), np.array([0.0, np.nan]), np.zeros(2, int), np.arange(2))


def test_a_useless_feature_gets_one_half_on_average():
    """Pooled over folds, a binary feature of no use gets 0.47 at this size."""
    areas, held = [], 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        labels, features = rng.integers(0, 2, 200), (rng.random((200, 1)) < 0.4).astype(float)
        groups = [str(i) for i in range(200)]
        folds = probe_folds(groups, labels, seed=seed).of_image
        logits = out_of_fold_logits(features, labels, folds)
        found = fold_auroc(labels, logits, folds, clusters_of(groups))
        areas.append(found.value)
        held += found.interval.low <= 0.5 <= found.interval.high
    assert np.mean(areas) == pytest.approx(0.5, abs=0.012)
    assert held >= 0.8 * 120


def test_a_patient_is_not_recognised_across_folds():
    """Labels are the patient's, and so are the features: only images of one patient tell more."""
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(60), 6)
    sick = rng.permutation(np.arange(60) % 2)
    labels, features = sick[owners], np.eye(60)[owners]
    groups = [f"p{owner}" for owner in owners]
    folds = probe_folds(groups, labels).of_image
    found = fold_auroc(labels, out_of_fold_logits(features, labels, folds), folds, owners)
    assert found.value == pytest.approx(0.5, abs=0.02)
    singly = probe_folds([str(i) for i in range(360)], labels).of_image
    leaky = out_of_fold_logits(features, labels, singly)
    assert fold_auroc(labels, leaky, singly, np.arange(360)).value > 0.95
