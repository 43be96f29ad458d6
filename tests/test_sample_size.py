"""Sample sizes against a count upward from one, and simulated studies of that size."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xray_classifier import sample_size
from xray_classifier.metrics import auroc

FEW = settings(max_examples=40, deadline=None)


def half_width(expected, n, z=1.959963984540054):
    """Of Wilson's interval, from the score equation's closed form."""
    return z / (1 + z * z / n) * math.sqrt(expected * (1 - expected) / n + z * z / (4 * n * n))


@FEW
@given(st.floats(0.001, 0.999), st.sampled_from([0.03, 0.05, 0.1, 0.2, 0.45]))
def test_the_search_finds_the_first_that_is_narrow_enough(expected, reach):
    found = sample_size.images_for_proportion(expected, reach)
    assert found == next(n for n in range(1, 10**5) if half_width(expected, n) <= reach)


def test_known_sizes():
    # Without Wilson's correction, 0.25 (1.96 / 0.05)^2 = 384.
    assert sample_size.images_for_proportion(0.5) == pytest.approx(0.25 * (1.96 / 0.05) ** 2, abs=5)
    # All found: the interval is [n / (n + z^2), 1], so n = z^2 (1 - 0.1) / 0.1 = 34.6.
    assert sample_size.images_for_proportion(1.0) == 35


def test_sick_and_healthy_come_in_the_ratio_of_the_prevalence():
    sensitivity = sample_size.sample_size_for_sensitivity(0.9, 0.1)
    assert sensitivity.n_sick == sample_size.images_for_proportion(0.9)
    assert sensitivity.n_healthy == 9 * sensitivity.n_sick
    assert sensitivity.n == 10 * sensitivity.n_sick
    specificity = sample_size.sample_size_for_specificity(0.9, 0.1)
    assert specificity.n_healthy == sensitivity.n_sick
    assert specificity.n_sick == math.ceil(specificity.n_healthy / 9)
    even = sample_size.sample_size_for_sensitivity(0.8, 0.5, 0.1)
    assert even.n_sick == even.n_healthy


def by_scipy(area, n_sick, n_healthy):
    """Hanley and McNeil's variance from exponential scores: healthy of rate 1, sick of rate r."""
    rate = (1 - area) / area
    healthy, sick = stats.expon(), stats.expon(scale=1 / rate)
    two_sick = healthy.expect(lambda x: sick.sf(x) ** 2)
    two_healthy = sick.expect(lambda x: healthy.cdf(x) ** 2)
    spread = area * (1 - area) + (n_sick - 1) * (two_sick - area**2)
    return (spread + (n_healthy - 1) * (two_healthy - area**2)) / (n_sick * n_healthy)


@pytest.mark.parametrize("area", [0.6, 0.8, 0.93])
def test_the_variance_is_that_of_exponential_scores(area):
    for n_sick, n_healthy in ((1, 1), (20, 20), (15, 200)):
        found = sample_size.auroc_variance(area, n_sick, n_healthy)
        assert found == pytest.approx(by_scipy(area, n_sick, n_healthy), rel=1e-6)


def test_the_variance_is_that_of_simulated_studies():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 30])
    rate = np.where(labels == 1, 0.25, 1.0)  # AUROC 0.8
    seen = [auroc(labels, rng.exponential(1 / rate)) for _ in range(1500)]
    assert np.var(seen) == pytest.approx(sample_size.auroc_variance(0.8, 30, 60), rel=0.12)


@pytest.mark.parametrize("prevalence", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("area", [0.7, 0.9])
def test_an_auroc_study_is_just_large_enough(area, prevalence):
    size = sample_size.sample_size_for_auroc(area, prevalence)
    assert 1.96 * math.sqrt(by_scipy(area, size.n_sick, size.n_healthy)) <= 0.0501
    fewer = round(0.97 * size.n_sick) - 1, round(0.97 * size.n_healthy) - 1
    assert 1.96 * math.sqrt(by_scipy(area, *fewer)) > 0.05
    assert size.n_sick / size.n == pytest.approx(prevalence, abs=0.01)


def test_one_sentence_says_it():
    said = sample_size.in_words(sample_size.sample_size_for_sensitivity(1.0, 0.01))
    assert said == (
        "To know a sensitivity of about 1 to within 5 points either way takes 35 sick images and "
        "3,465 healthy ones, 3,500 in all at a prevalence of 1 %, one image per patient."
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample_size.images_for_proportion(1.2),
        lambda: sample_size.images_for_proportion(0.9, 0.0),
        lambda: sample_size.images_for_proportion(0.9, math.nan),
        lambda: sample_size.images_for_proportion(0.5, 1e-6),
        lambda: sample_size.sample_size_for_sensitivity(0.9, 0.0),
        lambda: sample_size.sample_size_for_specificity(0.9, 1.0),
        lambda: sample_size.sample_size_for_auroc(1.0, 0.5),
        lambda: sample_size.sample_size_for_auroc(0.8, math.nan),
        lambda: sample_size.auroc_variance(0.8, 0, 5),
    ],
)
def test_what_makes_no_study_is_refused(call):
    with pytest.raises(ValueError, match=r"expected|more than"):
        call()
