"""Another prevalence: against Bayes by counting, a separate derivation, and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xray_classifier import prevalence
from xray_classifier.confusion import Confusion
from xray_classifier.errors import DataError

FEW = settings(max_examples=60, deadline=None)
INSIDE = st.floats(0.001, 0.999)


@FEW
@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 20))
def test_repeating_the_healthy_is_what_the_formula_does(n_sick, n_healthy, times):
    # In a cell of sick and healthy images, P(sick) is a count; so it is with each healthy repeated.
    here = n_sick / (n_sick + n_healthy)
    total_sick, total_healthy = 100, 100
    there = total_sick / (total_sick + times * total_healthy)
    found = prevalence.at_prevalence(np.array([here]), 0.5, there)[0]
    assert found == pytest.approx(n_sick / (n_sick + times * n_healthy))


@FEW
@given(st.floats(0.001, 0.999), INSIDE, INSIDE)
def test_the_way_there_and_back_ends_where_it_began(value, one, other):
    there = prevalence.at_prevalence(np.array([value]), one, other)
    assert prevalence.at_prevalence(there, other, one)[0] == pytest.approx(value, rel=1e-6)


def test_certain_answers_and_the_own_prevalence_change_nothing():
    values = np.array([0.0, 0.25, 1.0])
    assert prevalence.at_prevalence(values, 0.4, 0.01)[[0, 2]].tolist() == [0.0, 1.0]
    assert prevalence.at_prevalence(values, 0.4, 0.4) == pytest.approx(values)
    assert prevalence.at_prevalence(np.array([0.4]), 0.4, 0.01)[0] == pytest.approx(0.01)


def test_the_moved_threshold_decides_as_before():
    values = np.random.default_rng(0).random(500)
    moved = prevalence.at_prevalence(values, 0.5, 0.03)
    cut = prevalence.threshold_at(0.37, 0.5, 0.03)
    assert ((values >= 0.37) == (moved >= cut)).all()


def by_delta_method(counts, share, level=0.95):
    """Logit intervals derived anew: variances of the log rates, each (1 - rate) / (rate n)."""

    def log_rate(successes, n):
        rate = successes / n
        return math.log(rate), (1 - rate) / (rate * n)

    n_sick, n_healthy = counts.tp + counts.fn, counts.tn + counts.fp
    z, odds = stats.norm.ppf((1 + level) / 2), math.log(share / (1 - share))
    ends = []
    for sign, of_sick, of_healthy in ((1, counts.tp, counts.fp), (-1, counts.fn, counts.tn)):
        (sick, sick_variance) = log_rate(of_sick, n_sick)
        (healthy, healthy_variance) = log_rate(of_healthy, n_healthy)
        logit = sign * (odds + sick - healthy)
        reach = z * math.sqrt(sick_variance + healthy_variance)
        ends.append((1 / (1 + math.exp(reach - logit)), 1 / (1 + math.exp(-reach - logit))))
    return ends


@FEW
@given(*[st.integers(1, 300)] * 4, st.floats(0.001, 0.9), st.sampled_from([0.8, 0.95]))
def test_logit_intervals_are_those_of_the_delta_method(tp, fp, tn, fn, share, level):
    counts = Confusion(tp, fp, tn, fn)
    found = prevalence.predictive_values(counts, share, level)
    ppv, npv = by_delta_method(counts, share, level)
    assert found.ppv_interval == pytest.approx(ppv, rel=1e-9)
    assert found.npv_interval == pytest.approx(npv, rel=1e-9)
    sens, spec = counts.sensitivity, counts.specificity
    assert found.ppv == pytest.approx(sens * share / (sens * share + (1 - spec) * (1 - share)))
    npv_of = spec * (1 - share) / (spec * (1 - share) + (1 - sens) * share)
    assert found.npv == pytest.approx(npv_of)


def test_the_datas_own_prevalence_gives_the_plain_fractions():
    counts = Confusion(tp=40, fp=15, tn=85, fn=10)
    found = prevalence.predictive_values(counts, 50 / 150)
    assert found.ppv == pytest.approx(counts.ppv)
    assert found.npv == pytest.approx(counts.npv)


def test_without_a_false_alarm_the_interval_comes_from_adjusted_counts():
    # z^2 / 2 more of each outcome: 1.92 + (30, 0, 50, 4).
    found = prevalence.predictive_values(Confusion(tp=30, fp=0, tn=50, fn=4), 0.1)
    half = stats.norm.ppf(0.975) ** 2 / 2
    (low, _), npv = by_delta_method(Confusion(30 + half, half, 50 + half, 4 + half), 0.1)
    assert found.ppv == 1.0
    assert found.ppv_interval == pytest.approx((low, 1.0))
    assert found.npv_interval == pytest.approx(npv)


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "share", "n_sick", "n_healthy"),
    [(0.9, 0.8, 0.03, 50, 50), (0.7, 0.95, 0.2, 40, 160), (0.97, 0.97, 0.01, 60, 60)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    sensitivity, specificity, share, n_sick, n_healthy
):
    # All outcomes of two binomials with their chances: no chance is left in the coverage itself.
    ppv, npv = prevalence.predictive_values_of(sensitivity, specificity, share)
    held = np.zeros(2)
    for tp in range(n_sick + 1):
        weight = stats.binom.pmf(tp, n_sick, sensitivity)
        if weight < 1e-7:
            continue
        for tn in range(n_healthy + 1):
            chance = weight * stats.binom.pmf(tn, n_healthy, specificity)
            if chance < 1e-8:
                continue
            counts = Confusion(tp, n_healthy - tn, tn, n_sick - tp)
            found = prevalence.predictive_values(counts, share)
            held += chance * np.array(
                [
                    found.ppv_interval.low <= ppv <= found.ppv_interval.high,
                    found.npv_interval.low <= npv <= found.npv_interval.high,
                ]
            )
    assert (held > 0.92).all(), held
    assert (held < 0.99).all(), held


def test_one_class_leaves_everything_undefined():
    for counts in (Confusion(3, 0, 0, 2), Confusion(0, 1, 4, 0), Confusion(0, 0, 0, 0)):
        found = prevalence.predictive_values(counts, 0.1)
        assert np.isnan([found.ppv, found.npv, *found.ppv_interval, *found.npv_interval]).all()


def test_where_nobody_is_called_sick_there_is_no_ppv():
    found = prevalence.predictive_values(Confusion(tp=0, fp=0, tn=20, fn=10), 0.1)
    assert np.isnan([found.ppv, *found.ppv_interval]).all()
    assert found.npv == pytest.approx(0.9)
    assert found.npv_interval.low < 0.9 < found.npv_interval.high


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, math.nan])
def test_a_prevalence_of_nobody_or_everybody_is_refused(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        prevalence.at_prevalence(np.array([0.5]), 0.5, share)
    with pytest.raises(ValueError, match="between 0 and 1"):
        prevalence.at_prevalence(np.array([0.5]), share, 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        prevalence.predictive_values(Confusion(1, 1, 1, 1), share)


def test_what_is_no_probability_is_refused():
    with pytest.raises(DataError, match="from 0 to 1"):
        prevalence.at_prevalence(np.array([1.5]), 0.5, 0.1)
