"""Wilson and DeLong, against published tables, brute force and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier import intervals
from xray_classifier.errors import DataError
from xray_classifier.metrics import auroc

FEW = settings(max_examples=50, deadline=None)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_newcombe_1998_table_1(successes, n, low, high):
    assert intervals.wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@FEW
@given(st.integers(0, 300), st.integers(1, 300), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_ends_are_the_shares_that_a_score_test_just_rejects(successes, n, level):
    successes = min(successes, n)
    low, high = intervals.wilson_interval(successes, n, level)
    z = {0.8: 1.2815515655446004, 0.95: 1.959963984540054, 0.99: 2.5758293035489004}[level]
    seen = successes / n
    assert 0 <= low <= seen <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert abs(seen - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-6)


@FEW
@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_of_failures_mirrors_that_of_successes(successes, n):
    successes = min(successes, n)
    low, high = intervals.wilson_interval(successes, n)
    mirrored = intervals.wilson_interval(n - successes, n)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


def test_wilson_reaches_the_end_where_all_or_none_succeed():
    assert intervals.wilson_interval(0, 7).low == 0.0
    assert intervals.wilson_interval(7, 7).high == 1.0


def test_wilson_without_trials_gives_no_interval():
    assert np.isnan(intervals.wilson_interval(0, 0)).all()


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes"):
        intervals.wilson_interval(successes, n)


def test_wilson_covers_the_truth_about_as_often_as_it_says():
    drawn = np.random.default_rng(0).binomial(40, 0.9, 2000)
    ends = [intervals.wilson_interval(int(k), 40) for k in drawn]
    assert 0.93 <= np.mean([low <= 0.9 <= high for low, high in ends]) <= 0.98


_TABLE = """
    3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0
    1.6 5.6  5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1
    4.3 7.0  4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1
    3.0 4.7  8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1
    3.2 5.1  5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1
    3.5 6.2  5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
    3.6 6.6  5 1
"""
OVARIAN = np.array(_TABLE.split(), dtype=float).reshape(-1, 4)
"""Albumin, total protein, K-G score and outcome of 43 patients: DeLong et al. 1988, as in the
example "Comparing Receiver Operating Characteristic Curves" of the SAS/STAT manual."""
OUTCOME = OVARIAN[:, 3].astype(int)
ALBUMIN, PROTEIN, KG_SCORE = OVARIAN[:, 0], OVARIAN[:, 1], 10 - OVARIAN[:, 2]


def test_delong_equals_the_published_example():
    found = intervals.delong_covariance(OUTCOME, np.stack([ALBUMIN, KG_SCORE, PROTEIN]))
    errors = np.sqrt(np.diag(found.covariance))
    assert found.aurocs == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert errors == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)


@pytest.mark.parametrize(
    ("score", "difference", "chi_square", "p_value"),
    [(ALBUMIN, 0.0108, 0.0127, 0.9102), (PROTEIN, -0.0780, 0.5554, 0.4561)],
)
def test_delong_test_equals_the_published_example(score, difference, chi_square, p_value):
    found = intervals.delong_test(OUTCOME, score, KG_SCORE)
    assert found.difference == pytest.approx(difference, abs=5e-5)
    assert found.z**2 == pytest.approx(chi_square, abs=5e-5)
    assert found.p_value == pytest.approx(p_value, abs=5e-5)


def test_delong_by_hand():
    # Placements of the sick 3, 5, 6, 8 among 1, 2, 4, 5: 2/4, 3.5/4, 1, 1 (variance 43/768);
    # of the healthy: 1, 1, 3/4, 2.5/4 (variance 27/768); (43 + 27) / 768 / 4.
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    found = intervals.delong_covariance(labels, np.array([[3.0, 5, 6, 8, 1, 2, 4, 5]]))
    assert found.aurocs[0] == 0.84375
    assert found.covariance[0, 0] == pytest.approx(70 / 3072, rel=1e-12)


@st.composite
def score_sets(draw):
    """Two or more of each class; three tied scores of each image."""
    n_sick, n_healthy = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    n = n_sick + n_healthy
    labels = draw(st.permutations([1] * n_sick + [0] * n_healthy))
    scores = draw(st.lists(st.integers(0, 6), min_size=3 * n, max_size=3 * n))
    return np.array(labels), np.array(scores, dtype=float).reshape(3, n)


def brute_covariance(labels, scores):
    """DeLong's covariance from all pairs, by the definition of the paper."""
    sick, healthy = scores[:, labels == 1], scores[:, labels == 0]
    left, right = sick[:, :, None], healthy[:, None, :]
    won = (left > right) + 0.5 * (left == right)
    area = won.mean(axis=(1, 2))
    of_sick, of_healthy = won.mean(axis=2), won.mean(axis=1)
    m, n = sick.shape[1], healthy.shape[1]
    s10, s01 = of_sick - area[:, None], of_healthy - area[:, None]
    return area, s10 @ s10.T / (m - 1) / m + s01 @ s01.T / (n - 1) / n


@FEW
@given(score_sets())
def test_fast_delong_equals_all_pairs(split):
    labels, scores = split
    found = intervals.delong_covariance(labels, scores)
    area, covariance = brute_covariance(labels, scores)
    np.testing.assert_allclose(found.aurocs, area, atol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-12)


@FEW
@given(score_sets())
def test_delong_interval_holds_the_auroc_inside_zero_and_one(split):
    labels, scores = split
    area = auroc(labels, scores[0])
    low, high = intervals.delong_interval(labels, scores[0])
    if math.isnan(low):
        assert math.isnan(high)
        assert len(np.unique(scores[0])) == 1
    else:
        assert 0 <= low < high <= 1
        assert low <= area <= high


def test_delong_interval_is_symmetric_on_the_logit_scale():
    low, high = intervals.delong_interval(OUTCOME, ALBUMIN)
    area, error = 0.73655914, 0.09269435
    reach = 1.959963984540054 * error / (area * (1 - area))
    centre = math.log(area / (1 - area))
    expected = [1 / (1 + math.exp(-(centre - reach))), 1 / (1 + math.exp(-(centre + reach)))]
    assert (low, high) == pytest.approx(expected, abs=1e-6)


def test_delong_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 60)
    truth = 0.5 * (1 + math.erf(1.5 / 2))  # two normals 1.5 apart
    ends = [intervals.delong_interval(labels, rng.normal(1.5 * labels)) for _ in range(500)]
    assert 0.92 <= np.mean([low <= truth <= high for low, high in ends]) <= 0.98


def test_a_perfect_auroc_gets_an_exact_lower_end():
    # Three sick, five healthy: three independent pairs, all won; 0.025 ** (1/3) = 0.2924.
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    scores = np.array([9.0, 8, 7, 1, 2, 3, 4, 5])
    assert intervals.delong_interval(labels, scores) == pytest.approx((0.2924, 1.0), abs=5e-5)
    assert intervals.delong_interval(labels, -scores) == pytest.approx((0.0, 0.7076), abs=5e-5)


@pytest.mark.parametrize("truth", [0.7, 0.9])
def test_the_exact_end_is_never_too_bold(truth):
    # Where the interval of a perfect AUROC leaves the truth out, that AUROC must be rare: <= 2.5 %.
    rng = np.random.default_rng(2)
    distance = {0.7: 0.7416, 0.9: 1.8124}[truth]  # of two normals, in standard deviations
    for n in (3, 12, 40):
        low = intervals.extreme_auroc_interval(1.0, n).low
        if low > truth:
            sick = rng.normal(distance, 1, (4000, n)).min(axis=1)
            healthy = rng.normal(0, 1, (4000, n)).max(axis=1)
            assert np.mean(sick > healthy) <= 0.025 + 0.005


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([], []),
        ([1, 1, 1], [0.1, 0.2, 0.3]),
        ([0, 0, 0], [0.1, 0.2, 0.3]),
        ([0, 1, 0], [0.2, 0.2, 0.1]),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_what_cannot_be_said_is_no_interval(labels, scores):
    found = intervals.delong_interval(np.array(labels, int), np.array(scores, float))
    assert np.isnan(found).all()


def test_models_that_rank_alike_do_not_differ():
    found = intervals.delong_test(OUTCOME, ALBUMIN, 3 * ALBUMIN + 1)
    assert found.difference == 0
    assert found.p_value == 1.0


def test_one_class_gives_no_p_value():
    found = intervals.delong_test(np.ones(3, int), np.arange(3.0), np.arange(3.0))
    assert math.isnan(found.p_value)


@pytest.mark.parametrize(
    "scores", [np.zeros(2), np.zeros((1, 3)), np.zeros((1, 1, 2)), np.array([[0.1, np.nan]])]
)
def test_delong_refuses_scores_that_do_not_fit(scores):
    with pytest.raises(DataError):
        intervals.delong_covariance(np.array([0, 1]), scores)


def test_delong_test_refuses_models_of_different_images():
    with pytest.raises(DataError, match="shapes"):
        intervals.delong_test(np.array([0, 1]), np.zeros(2), np.zeros(3))
