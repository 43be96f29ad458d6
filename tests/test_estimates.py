"""What `metrics.json` holds: the right interval for each metric, and none where none is known."""

import dataclasses
import math

import numpy as np
import pytest

from xray_classifier import estimates, intervals, metrics
from xray_classifier.confusion import confusion
from xray_classifier.errors import DataError

ORDER = [
    *("auroc", "loss", "brier", "ece", "average_precision"),
    *("sensitivity", "specificity", "ppv", "npv", "accuracy", "balanced_accuracy", "f1", "mcc"),
]


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    logits = rng.normal(1.5 * labels - 0.7)
    return labels, logits, metrics.sigmoid(0.8 * logits + 0.1)


@pytest.fixture(scope="module")
def patients():
    return np.array([f"p{i}" for i in np.random.default_rng(1).integers(0, 80, 200)])


def judge(split, groups=None, threshold=0.5, seed=0):
    return estimates.classification_metrics(*split, threshold, groups, seed, n_resamples=300)


def test_the_order_leads_with_ranking_and_ends_with_f1_and_mcc(split):
    assert list(judge(split)) == ORDER


def test_values_are_those_of_the_plain_metrics(split, patients):
    labels, logits, probabilities = split
    counts = confusion(labels, probabilities, 0.4)
    expected = {
        "auroc": metrics.auroc(labels, logits),
        "loss": metrics.log_loss_from_logits(labels, logits),
        "brier": metrics.brier_score(labels, probabilities),
        "ece": metrics.expected_calibration_error(labels, probabilities),
        "average_precision": metrics.average_precision(labels, logits),
        **{name: getattr(counts, name) for name in ORDER[5:]},
    }
    for groups in (None, patients):
        found = judge(split, groups, threshold=0.4)
        assert {name: one.value for name, one in found.items()} == expected


def test_methods_where_every_image_is_its_own_patient(split):
    for groups in (None, np.arange(200), np.array([f"p{i}" for i in range(200)])):
        found = {name: one.method for name, one in judge(split, groups).items()}
        assert found.pop("auroc") == "delong"
        wilson = {"sensitivity", "specificity", "ppv", "npv", "accuracy"}
        assert {name for name, method in found.items() if method == "wilson"} == wilson
        assert {found[name] for name in found.keys() - wilson} == {"bootstrap"}


def test_one_patient_with_two_images_turns_everything_to_patients(split):
    groups = np.arange(200)
    groups[7] = 8
    assert {one.method for one in judge(split, groups).values()} == {"patient_bootstrap"}


def test_intervals_hold_their_value(split, patients):
    for groups in (None, patients):
        for name, one in judge(split, groups).items():
            assert one.ci_low < one.value < one.ci_high or name == "ece", name
            assert one.ci_low <= one.value <= one.ci_high


def test_formulas_get_their_own_denominators(split):
    labels, logits, probabilities = split
    counts = confusion(labels, probabilities, 0.5)
    found = judge(split)
    fractions = {
        "sensitivity": (counts.tp, counts.tp + counts.fn),
        "specificity": (counts.tn, counts.tn + counts.fp),
        "ppv": (counts.tp, counts.tp + counts.fp),
        "npv": (counts.tn, counts.tn + counts.fn),
        "accuracy": (counts.tp + counts.tn, 200),
    }
    for name, (successes, n) in fractions.items():
        one = found[name]
        assert one.n == n
        assert (one.ci_low, one.ci_high) == intervals.wilson_interval(successes, n)
    one = found["auroc"]
    assert (one.ci_low, one.ci_high) == intervals.delong_interval(labels, logits)
    assert found["auroc"].n == found["f1"].n == found["loss"].n == 200


def test_bootstrap_and_formula_agree_where_both_apply(split):
    # One patient with two images hardly changes anything, but turns formulas into resampling.
    groups = np.arange(200)
    groups[7] = 8
    formula = judge(split)
    resampled = estimates.classification_metrics(*split, 0.5, groups, 0)
    for name in ("auroc", "sensitivity", "specificity", "ppv", "npv", "accuracy"):
        for end in ("ci_low", "ci_high"):
            expected = getattr(formula[name], end)
            assert getattr(resampled[name], end) == pytest.approx(expected, abs=0.02), name


def test_the_seed_moves_resampled_intervals_only(split):
    first, same, other = judge(split), judge(split), judge(split, seed=1)
    assert first == same
    moved = {name for name in first if first[name] != other[name]}
    assert moved == {name for name, one in first.items() if one.method == "bootstrap"}


def test_a_perfect_split_of_single_images_is_not_certain():
    labels = np.repeat([0, 1], 20)
    logits = np.where(labels == 1, 3.0, -3.0) + np.linspace(0, 1, 40)
    found = judge((labels, logits, metrics.sigmoid(logits)))
    auroc = found["auroc"]
    assert (auroc.value, auroc.method) == (1.0, "extreme_auroc")
    assert auroc.ci_low == pytest.approx(0.025 ** (1 / 20))
    assert found["sensitivity"].ci_low == pytest.approx(0.8389, abs=5e-5)  # Newcombe: 0/20
    for name in ("average_precision", "balanced_accuracy", "f1", "mcc"):
        assert found[name].value == 1.0
        assert math.isnan(found[name].ci_low)
        assert math.isnan(found[name].ci_high)


def test_a_perfect_split_of_few_patients_counts_patients():
    labels = np.repeat([0, 1], 40)
    logits = np.where(labels == 1, 3.0, -3.0) + np.linspace(0, 1, 80)
    groups = np.repeat(np.arange(40), 2)  # 20 healthy and 20 sick patients, two films each
    found = judge((labels, logits, metrics.sigmoid(logits)), groups)
    assert found["auroc"].ci_low == pytest.approx(0.025 ** (1 / 20))
    sensitivity = found["sensitivity"]
    assert (sensitivity.method, sensitivity.n) == ("wilson_patients", 40)
    assert sensitivity.ci_low == pytest.approx(0.8389, abs=5e-5)
    assert sensitivity.ci_high == 1.0


def test_pairs_share_no_patient():
    # Three patients, each with a sick and a healthy film, make one pair of strangers, not three.
    labels = np.array([0, 0, 0, 1, 1, 1])
    logits = np.array([-3.0, -2, -1, 1, 2, 3])
    found = judge((labels, logits, metrics.sigmoid(logits)), np.array([0, 1, 2, 0, 1, 2]))
    assert found["auroc"].ci_low == pytest.approx(0.025)


def test_one_class_leaves_nan_and_the_rest_stands():
    labels, logits = np.zeros(30, int), np.linspace(-2, 1, 30)
    found = judge((labels, logits, metrics.sigmoid(logits)))
    undefined = {"auroc", "average_precision", "sensitivity", "balanced_accuracy", "mcc"}
    for name, one in found.items():
        assert math.isnan(one.value) == (name in undefined), name
        if math.isnan(one.value):
            assert math.isnan(one.ci_low)
            assert math.isnan(one.ci_high)
    assert found["sensitivity"].n == 0
    assert found["specificity"].value == pytest.approx(20 / 30)


@pytest.mark.parametrize("groups", [None, np.zeros(0)])
def test_an_empty_split_is_all_nan(groups):
    found = judge((np.zeros(0, int), np.zeros(0), np.zeros(0)), groups)
    assert all(math.isnan(one.value) and one.n == 0 for one in found.values())


def test_constant_scores_give_one_half_and_no_interval():
    labels = np.tile([0, 1], 10)
    found = judge((labels, np.zeros(20), np.full(20, 0.5)))
    assert found["auroc"].value == 0.5
    assert math.isnan(found["auroc"].ci_low)


def test_estimates_are_plain_numbers_for_json(split, patients):
    for groups in (None, patients):
        for one in judge(split, groups).values():
            kinds = [type(value) for value in dataclasses.asdict(one).values()]
            assert kinds == [float, float, float, str, int]


def test_broken_scores_are_refused(split):
    labels, logits, probabilities = split
    with pytest.raises(DataError, match="NaN"):
        judge((labels, np.where(labels == 1, np.nan, logits), probabilities))
    with pytest.raises(DataError, match="from 0 to 1"):
        judge((labels, logits, logits))
    with pytest.raises(DataError, match="patients"):
        judge(split, np.arange(3))


def test_regression_holds_its_values_and_methods(patients):
    rng = np.random.default_rng(0)
    targets = rng.normal(60, 12, 200)
    predictions = targets + rng.normal(0, 9, 200)
    for groups, method in ((None, "bootstrap"), (patients, "patient_bootstrap")):
        found = estimates.regression_metrics(targets, predictions, groups, 0, n_resamples=300)
        assert list(found) == ["mse", "mae", "r2"]
        assert found["mse"].value == metrics.mse(targets, predictions)
        assert found["mae"].value == metrics.mae(targets, predictions)
        assert found["r2"].value == metrics.r2(targets, predictions)
        for one in found.values():
            assert (one.method, one.n) == (method, 200)
            assert one.ci_low < one.value < one.ci_high


def test_the_regression_interval_is_that_of_the_normal_law():
    rng = np.random.default_rng(1)
    errors = rng.normal(0, 3, 500)
    found = estimates.regression_metrics(np.zeros(500), errors)
    reach = 1.96 * np.abs(errors).std() / math.sqrt(500)
    assert found["mae"].ci_high - found["mae"].ci_low == pytest.approx(2 * reach, rel=0.08)
    assert math.isnan(found["r2"].value)
    assert math.isnan(found["r2"].ci_low)
