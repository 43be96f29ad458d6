"""Decision curves against counting by hand, and their band against the plain bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier import bootstrap, net_benefit, weighted
from xray_classifier.confusion import confusion
from xray_classifier.errors import DataError

FEW = settings(max_examples=40, deadline=None)
CUTS = (0.05, 0.2, 0.3, 0.5, 0.75, 0.9)


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    probabilities = rng.beta(1.2, 2.5, 300)
    return (rng.random(300) < probabilities).astype(int), probabilities


def test_ten_false_alarms_at_a_threshold_of_one_in_ten_cost_a_little_more_than_one_found():
    # 20 found, 90 false alarms, 1 in 10: (20 - 90 / 9) / 200.
    assert net_benefit.net_benefit(20, 90, 200, 0.1) == pytest.approx(0.05)
    assert net_benefit.net_benefit(20, 0, 200, 0.9) == pytest.approx(0.1)
    assert net_benefit.net_benefit(0, 0, 200, 0.3) == 0


@pytest.mark.parametrize("threshold", [0.0, 1.0, 1.5, -0.1])
def test_a_threshold_that_sets_no_price_gives_no_benefit(threshold):
    assert math.isnan(net_benefit.net_benefit(1, 1, 4, threshold))
    assert math.isnan(net_benefit.net_benefit_at(0.9, 0.9, 0.1, threshold))


def test_no_images_give_no_benefit():
    assert math.isnan(net_benefit.net_benefit(0, 0, 0, 0.5))


@FEW
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=40))
def test_the_curve_is_what_each_threshold_counts(images):
    labels, twentieths = np.array(images).T
    probabilities = twentieths / 20  # many lie on a threshold, which counts as called
    curve = net_benefit.decision_curve(labels, probabilities, thresholds=CUTS, n_resamples=0)
    n, sick = len(labels), labels.sum()
    for place, cut in enumerate(CUTS):
        counts = confusion(labels, probabilities, cut)
        expected = counts.tp / n - counts.fp / n * cut / (1 - cut)
        assert curve.model[place] == pytest.approx(expected, abs=1e-12)
        everyone = sick / n - (n - sick) / n * cut / (1 - cut)
        assert curve.treat_all[place] == pytest.approx(everyone, abs=1e-12)
    assert not curve.treat_none.any()
    assert curve.prevalence == sick / n


def test_another_prevalence_counts_each_healthy_image_more_often(split):
    # Repeating every healthy image k times changes the share of the sick and nothing else.
    labels, probabilities = split
    times = np.where(labels == 1, 1, 7)
    more = np.repeat(labels, times), np.repeat(probabilities, times)
    expected = net_benefit.decision_curve(*more, n_resamples=0)
    found = net_benefit.decision_curve(*split, prevalence=expected.prevalence, n_resamples=0)
    assert found.model == pytest.approx(expected.model, abs=1e-12)
    assert found.treat_all == pytest.approx(expected.treat_all, abs=1e-12)
    counts = confusion(*split, 0.2)
    at_once = net_benefit.net_benefit_at(
        counts.sensitivity, counts.specificity, expected.prevalence, 0.2
    )
    assert at_once == pytest.approx(found.model[19], abs=1e-12)


def test_treating_all_gains_nothing_at_a_threshold_of_the_prevalence():
    curve = net_benefit.decision_curve(
        np.array([0, 1]), np.array([0.2, 0.6]), prevalence=0.25, n_resamples=0
    )
    assert curve.treat_all[24] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("prevalence", [None, 0.03])
def test_the_band_is_that_of_resampled_patients(split, prevalence):
    labels, probabilities = split
    patients = np.arange(300) // 3

    def at_a_fifth(weights):
        outcomes = weighted.weighted_confusion(labels, probabilities, 0.2, weights)
        if prevalence is None:
            return net_benefit.weighted_net_benefit(outcomes, 0.2)
        tp, fp, tn, fn = outcomes.T
        return prevalence * tp / (tp + fn) - (1 - prevalence) * fp / (fp + tn) * 0.25

    expected = bootstrap.cluster_bootstrap_interval(at_a_fifth, patients, 500, seed=4)
    curve = net_benefit.decision_curve(
        labels, probabilities, patients, 4, prevalence=prevalence, n_resamples=500
    )
    assert curve.low[19] == pytest.approx(expected.low, abs=1e-12)
    assert curve.high[19] == pytest.approx(expected.high, abs=1e-12)
    drawn = ~np.isnan(curve.low)
    assert drawn[:80].all()
    assert (curve.low[drawn] <= curve.model[drawn]).all()
    assert (curve.model[drawn] <= curve.high[drawn]).all()


def test_where_nobody_is_called_there_is_a_value_and_no_band():
    labels, probabilities = np.tile([0, 1], 20), np.full(40, 0.3)
    curve = net_benefit.decision_curve(labels, probabilities, n_resamples=100)
    assert curve.model[50] == 0
    assert math.isnan(curve.low[50])
    assert curve.low[10] < curve.model[10] < curve.high[10]


def test_no_images_and_no_sick_ones_leave_nan():
    curve = net_benefit.decision_curve(np.zeros(0, int), np.zeros(0))
    assert np.isnan(curve.model).all()
    healthy = np.zeros(5, int), np.full(5, 0.4)
    assert np.isnan(net_benefit.decision_curve(*healthy, prevalence=0.1).model).all()
    assert (net_benefit.decision_curve(*healthy).model <= 0).all()


@FEW
@given(st.integers(0, 10**6), st.integers(1, 20))
def test_a_weight_is_the_image_repeated(seed, n):
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 2, n), rng.random(n)
    weights = rng.integers(0, 3, (3, n))
    outcomes = weighted.weighted_confusion(labels, probabilities, 0.4, weights.astype(float))
    found = net_benefit.weighted_net_benefit(outcomes, 0.4)
    for value, row in zip(found, weights, strict=True):
        one = confusion(np.repeat(labels, row), np.repeat(probabilities, row), 0.4)
        expected = net_benefit.net_benefit(one.tp, one.fp, int(row.sum()), 0.4)
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("thresholds", [(), (0.0, 0.5), (0.5, 1.0), (0.5, 0.2), (math.nan,)])
def test_thresholds_that_do_not_rise_inside_0_and_1_are_refused(thresholds):
    with pytest.raises(ValueError, match="rise within"):
        net_benefit.decision_curve(np.array([0, 1]), np.array([0.2, 0.6]), thresholds=thresholds)


def test_a_prevalence_of_nobody_and_broken_probabilities_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        net_benefit.decision_curve(np.array([0, 1]), np.array([0.2, 0.6]), prevalence=0.0)
    with pytest.raises(DataError, match="from 0 to 1"):
        net_benefit.decision_curve(np.array([0, 1]), np.array([0.2, 1.6]))
