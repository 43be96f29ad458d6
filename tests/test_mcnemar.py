"""McNemar's tests and the paired interval, against published numbers, SciPy and all sign swaps."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2

from xray_classifier.errors import DataError
from xray_classifier.mcnemar import McNemarTest, mcnemar_test, paired_difference_interval

FEW = settings(max_examples=50, deadline=None)


def of_table(both: int, b: int, c: int, neither: int, exact_below: int = 25) -> McNemarTest:
    """The test of a 2 x 2 table of images that are a patient of their own each."""
    first = np.array([1] * both + [1] * b + [0] * c + [0] * neither, dtype=bool)
    second = np.array([1] * both + [0] * b + [1] * c + [0] * neither, dtype=bool)
    return mcnemar_test(first, second, np.arange(len(first)), exact_below)


@pytest.mark.parametrize(
    ("b", "c", "p_value"),
    [(70, 59, 0.378688), (80, 59, 0.089452), (30, 60, 0.00206), (10, 30, 0.002221), (10, 10, 1.0)],
)
def test_exact_equals_the_vassar_college_calculator(b, c, p_value):
    # as quoted in statsmodels, stats/tests/test_nonparametric.py, test_mcnemar_exact
    found = of_table(101, b, c, 33, exact_below=1000)
    assert found.p_value == pytest.approx(p_value, abs=5e-7)
    assert found.method == "mcnemar_exact"
    assert math.isnan(found.statistic)


@pytest.mark.parametrize(
    ("b", "c", "statistic", "p_value"),
    [
        (121, 59, 21.35556, 3.815136e-06),
        (70, 59, 0.9379845, 0.3327967),
        (80, 59, 3.17266187, 0.07488031),
    ],
)
def test_asymptotic_equals_r_mcnemar_test_without_correction(b, c, statistic, p_value):
    # mcnemar.test of R, as quoted in statsmodels, test_mcnemar_chisquare
    found = of_table(101, b, c, 33)
    assert (found.only_first, found.only_second, found.method) == (b, c, "mcnemar")
    assert found.statistic == pytest.approx(statistic, rel=1e-6)
    assert found.p_value == pytest.approx(p_value, rel=1e-6)


def test_all_three_equal_fagerland_2013_on_airway_hyper_responsiveness():
    # Bentur et al. 2009, the first example of Fagerland et al.: 0.034, mid-p 0.039, exact 0.070
    assert of_table(1, 1, 7, 12, exact_below=0).p_value == pytest.approx(0.034, abs=5e-4)
    exact = of_table(1, 1, 7, 12)
    assert exact.mid_p == pytest.approx(0.039, abs=5e-4)
    assert exact.p_value == pytest.approx(0.070, abs=5e-4)


@FEW
@given(st.integers(0, 12), st.integers(0, 12))
def test_exact_equals_scipy_for_single_images(b, c):
    found = of_table(3, b, c, 4)
    if b + c == 0:
        assert (found.p_value, found.mid_p) == (1.0, 1.0)
        return
    expected = binomtest(b, b + c).pvalue
    seen = math.comb(b + c, b) / 2 ** (b + c) * (1 if b == c else 2)
    assert found.p_value == pytest.approx(expected, rel=1e-9)
    assert found.mid_p == pytest.approx(expected - seen / 2, rel=1e-9)


@st.composite
def decisions_of_patients(draw):
    """Right or wrong of two models on up to six patients with up to four images each."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=6))
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    n = len(clusters)
    right = draw(st.lists(st.booleans(), min_size=2 * n, max_size=2 * n))
    return np.array(right).reshape(2, n), clusters


@FEW
@given(decisions_of_patients())
def test_exact_for_patients_equals_all_ways_to_swap_the_models(case):
    (first, second), clusters = case
    leads = [int(second[clusters == k].sum()) - int(first[clusters == k].sum())
             for k in np.unique(clusters)]  # fmt: skip
    swaps = [sum(s * lead for s, lead in zip(signs, leads, strict=True))
             for signs in itertools.product((-1, 1), repeat=len(leads))]  # fmt: skip
    seen = abs(sum(leads))
    expected = np.mean([abs(total) >= seen for total in swaps])
    equal = np.mean([abs(total) == seen for total in swaps])
    found = mcnemar_test(first, second, clusters)
    assert found.p_value == pytest.approx(expected, rel=1e-9)
    assert found.mid_p == pytest.approx(expected - equal / 2 if any(leads) else 1, rel=1e-9)


@FEW
@given(decisions_of_patients())
def test_clustered_statistic_is_the_squared_difference_over_its_ratio_variance(case):
    # Obuchowski 1998: variances and covariance of the two shares as ratio estimates over patients,
    # around the pooled share that the null hypothesis says.
    (first, second), clusters = case
    found = mcnemar_test(first, second, clusters, exact_below=0)
    n, patients = len(clusters), np.unique(clusters)
    pooled = (first.mean() + second.mean()) / 2
    spread = np.zeros((2, 2))
    for k in patients:
        own = clusters == k
        excess = np.array([first[own].sum(), second[own].sum()]) - own.sum() * pooled
        spread += np.outer(excess, excess)
    factor = 1 if len(patients) == n else len(patients) / (len(patients) - 1)
    covariance = factor * spread / n**2
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance < 1e-12:
        assert found.p_value == 1.0
        return
    expected = (second.mean() - first.mean()) ** 2 / variance
    assert found.statistic == pytest.approx(expected, abs=1e-9)
    assert found.p_value == pytest.approx(chi2.sf(expected, 1), rel=1e-9)


def test_where_patients_repeat_the_clustered_test_keeps_its_level_and_the_plain_one_does_not():
    # Each of 60 patients has 5 images; what a model gets wrong runs in the patient.
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(60), 5)
    plain, clustered = [], []
    for _ in range(800):
        skill = rng.normal(0.8, 1.5, (2, 60))[:, clusters]
        right = rng.normal(size=skill.shape) < skill
        plain.append(mcnemar_test(*right, np.arange(300)).p_value < 0.05)
        clustered.append(mcnemar_test(*right, clusters).p_value < 0.05)
    assert 0.03 <= np.mean(clustered) <= 0.07
    assert np.mean(plain) > 0.15


@pytest.mark.parametrize("exact_below", [0, 25])
def test_models_that_are_never_told_apart_get_a_p_of_one(exact_below):
    right = np.array([True, False, True, True])
    found = mcnemar_test(right, right, np.array([0, 0, 1, 2]), exact_below)
    assert (found.only_first, found.only_second, found.p_value) == (0, 0, 1.0)


def test_decisions_of_different_images_are_refused():
    with pytest.raises(DataError, match="one per image"):
        mcnemar_test(np.ones(3, bool), np.ones(2, bool), np.arange(3))


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        ((59, 16, 6, 80), -0.1186, -0.0046),  # Cavo et al. 2012
        ((1, 7, 1, 12), -0.507, -0.026),  # Bentur et al. 2009
    ],
)
def test_paired_interval_equals_fagerland_lydersen_laake(cells, low, high):
    # "Statistical Analysis of Contingency Tables" (2017), chapter 8, Newcombe square-and-add; the
    # first also in the tests of the R package contingencytables
    assert paired_difference_interval(*cells) == pytest.approx((low, high), abs=5e-4)


@FEW
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_paired_interval_surrounds_the_difference_and_mirrors(both, b, c, neither):
    low, high = paired_difference_interval(both, b, c, neither)
    if both + b + c + neither == 0:
        assert math.isnan(low)
        assert math.isnan(high)
        return
    difference = (c - b) / (both + b + c + neither)
    assert -1 <= low <= difference <= high <= 1
    assert low < high
    mirrored = paired_difference_interval(both, c, b, neither)
    assert mirrored == pytest.approx((-high, -low), abs=1e-12)


def test_paired_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    cells = rng.multinomial(80, [0.7, 0.12, 0.06, 0.12], 2000)
    ends = [paired_difference_interval(*map(int, row)) for row in cells]
    assert 0.93 <= np.mean([low <= -0.06 <= high for low, high in ends]) <= 0.98
