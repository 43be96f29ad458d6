"""An operating point on the images that chose it, against folds by hand and against new images."""

import math

import numpy as np
import pytest

from xray_classifier.calibration import fit_calibration
from xray_classifier.confusion import confusion
from xray_classifier.cross_validation import probe_folds
from xray_classifier.intervals import wilson_interval
from xray_classifier.operating_estimates import (
    clustered_wilson,
    cross_fitted,
    operating_estimate,
    threshold_interval,
    units_of,
)
from xray_classifier.operating_points import Units, operating_curve, solve
from xray_classifier.policies import parse_threshold, policy_in_words


def sample(rng, n, per_patient=1, gap=1.5):
    patients = np.arange(n) // per_patient
    sick_patient = rng.random(n) < 0.5
    labels = sick_patient[patients].astype(int)
    logits = rng.normal(size=n) + gap * labels + 0.7 * rng.normal(size=n)[patients]
    return labels, logits, patients


def test_cross_fitting_decides_each_fold_by_what_the_others_say():
    labels, logits, patients = sample(np.random.default_rng(1), 120, per_patient=2)
    policy = parse_threshold("sens=0.9")
    called, n_folds = cross_fitted(labels, logits, patients, "platt", policy, seed=3)
    folds = probe_folds([str(p) for p in patients], labels, 5, 3).of_image
    assert n_folds == 5
    for fold in range(5):
        inside = folds == fold
        assert not set(patients[inside]) & set(patients[~inside])
        fit = fit_calibration(labels[~inside], logits[~inside], "platt").calibration
        curve = operating_curve(labels[~inside], fit.apply(logits[~inside]))
        expected = fit.apply(logits[inside]) >= solve(curve, policy)
        np.testing.assert_array_equal(called[inside], expected)


def test_cross_fitting_takes_the_optimism_out_of_youden():
    """On pure noise, any threshold is worth nothing: sensitivity + specificity is 1 on new images.

    Over 200 small samples the choice itself looks good by far more than its standard error.
    """
    rng = np.random.default_rng(0)
    policy = parse_threshold("youden")
    naive, honest = [], []
    for _ in range(200):
        labels = np.repeat([0, 1], 30)
        logits = rng.normal(size=60)
        clusters = np.arange(60)
        threshold = solve(operating_curve(labels, 1 / (1 + np.exp(-logits))), policy)
        own = confusion(labels, 1 / (1 + np.exp(-logits)), threshold)
        naive.append(own.sensitivity + own.specificity - 1)
        found = operating_estimate(labels, logits, clusters, "off", policy)
        honest.append(found.sensitivity.value + found.specificity.value - 1)
    assert np.mean(naive) > 0.1
    assert abs(np.mean(honest)) < 0.06


def test_too_few_patients_are_said_to_be_not_cross_fitted():
    labels, logits = np.array([0, 0, 0, 1, 1, 1]), np.arange(6.0)
    patients = np.array([0, 0, 0, 1, 1, 1])
    found = operating_estimate(labels, logits, patients, "off", parse_threshold("youden"))
    assert found.n_folds == 0
    assert found.sensitivity.value == 1.0


def test_a_fixed_threshold_has_no_interval_of_its_own():
    labels, logits, patients = sample(np.random.default_rng(1), 100)
    low, high = threshold_interval(labels, logits, patients, "off", parse_threshold(0.4))
    assert math.isnan(low)
    assert math.isnan(high)
    estimate = operating_estimate(labels, logits, patients, "off", parse_threshold(0.4))
    assert estimate.to_dict()["threshold_interval"] == [None, None]
    counts = confusion(labels, 1 / (1 + np.exp(-logits)), 0.4)
    assert estimate.sensitivity.value == counts.sensitivity
    assert estimate.sensitivity.n == int(labels.sum())


def test_the_thresholds_interval_holds_the_threshold_of_many_images():
    rng = np.random.default_rng(5)
    policy = parse_threshold("sens=0.9")
    many = sample(rng, 20_000)
    truth = solve(operating_curve(many[0], 1 / (1 + np.exp(-many[1]))), policy)
    held = 0
    for _ in range(60):
        labels, logits, patients = sample(rng, 150)
        low, high = threshold_interval(labels, logits, patients, "off", policy)
        held += low <= truth <= high
    assert held >= 50  # 95 % of 60 is 57; fewer than 50 has a chance below 1e-3


def test_wilson_of_independent_images_is_wilson():
    right = np.array([1, 1, 0, 1, 0, 1, 1, 1], dtype=bool)
    assert clustered_wilson(right, np.arange(8)) == wilson_interval(6, 8)


def test_copies_of_every_image_add_nothing():
    """Each image k times over under one patient is worth as much as the images alone."""
    rng = np.random.default_rng(2)
    right = rng.random(80) < 0.8
    once = clustered_wilson(right, np.arange(80))
    thrice = clustered_wilson(np.repeat(right, 3), np.repeat(np.arange(80), 3))
    # the between-patient variance has n - 1 in its denominator
    assert thrice == pytest.approx(once, abs=2e-3)
    assert clustered_wilson(np.ones(9, dtype=bool), np.arange(9) // 3) == wilson_interval(3, 3)


def test_units_are_patients_only_where_these_repeat():
    labels = np.array([1, 1, 0, 0, 0])
    assert units_of(labels, np.array([0, 0, 1, 2, 2])) == Units(1, 2)
    assert units_of(labels, np.arange(5)) is None


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("fixed", "a fixed number"),
        ("youden", "chosen on validation for the largest sensitivity + specificity"),
        ("sens=0.95", "chosen on validation for 0.95 sensitivity"),
        ("sens=0.95@lower95", "a sensitivity whose 95 % interval lies above 0.95"),
        ("cost=10.0", "a missed sick image counting as 10 false alarms"),
    ],
)
def test_policies_are_put_into_words(policy, words):
    assert words in policy_in_words(policy)
