"""What `metrics.json` holds: the right interval for each metric, and none where none is known."""

import dataclasses
import math

import numpy as np
import pytest

from xray_classifier import (
    calibration_measures,
    discrimination,
    estimates,
    intervals,
    metrics,
    prevalence,
    weighted,
)
from xray_classifier.bootstrap import (
    cluster_bootstrap_interval,
    patient_clusters,
    resample_weights,
)
from xray_classifier.confusion import confusion
from xray_classifier.errors import DataError
from xray_classifier.resampled_metrics import Split, metric_of, resampled_metrics

ORDER = [
    *("auroc", "loss"),
    *("brier", "ece", "brier_skill", "calibration_slope", "calibration_intercept"),
    *("average_precision", "partial_auroc"),
    *("sensitivity_at_specificity_90", "specificity_at_sensitivity_95"),
    *("sensitivity", "specificity", "ppv", "npv", "accuracy", "balanced_accuracy"),
    *("net_benefit", "f1", "mcc"),
]
OF_COUNTS = {*ORDER[11:]} - {"net_benefit"}
RECALIBRATION = {"calibration_slope", "calibration_intercept"}


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
    cox = calibration_measures.recalibration(labels, probabilities)
    expected = {
        "auroc": metrics.auroc(labels, logits),
        "loss": metrics.log_loss_from_logits(labels, logits),
        "brier": metrics.brier_score(labels, probabilities),
        "ece": metrics.expected_calibration_error(labels, probabilities),
        "average_precision": metrics.average_precision(labels, logits),
        **{name: getattr(counts, name) for name in OF_COUNTS},
        "partial_auroc": discrimination.partial_auroc(labels, logits),
        "sensitivity_at_specificity_90": discrimination.sensitivity_at_specificity(labels, logits),
        "specificity_at_sensitivity_95": discrimination.specificity_at_sensitivity(labels, logits),
        "brier_skill": calibration_measures.brier_skill(labels, probabilities),
        "calibration_slope": cox.slope,
        "calibration_intercept": cox.intercept,
        "net_benefit": counts.tp / 200 - counts.fp / 200 * 0.4 / 0.6,
    }
    for groups in (None, patients):
        found = judge(split, groups, threshold=0.4)
        assert {name: one.value for name, one in found.items()} == pytest.approx(expected)


def test_methods_where_every_image_is_its_own_patient(split):
    for groups in (None, np.arange(200), np.array([f"p{i}" for i in range(200)])):
        found = {name: one.method for name, one in judge(split, groups).items()}
        assert found.pop("auroc") == "delong"
        wilson = {"sensitivity", "specificity", "ppv", "npv", "accuracy"}
        assert {name for name, method in found.items() if method == "wilson"} == wilson
        assert {found.pop(name) for name in RECALIBRATION} == {"wald"}
        assert {found[name] for name in found.keys() - wilson} == {"bootstrap"}


def test_one_patient_with_two_images_turns_everything_to_patients(split):
    groups = np.arange(200)
    groups[7] = 8
    found = {name: one.method for name, one in judge(split, groups).items()}
    assert {found.pop(name) for name in RECALIBRATION} == {"wald_patients"}
    assert {*found.values()} == {"patient_bootstrap"}


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
    assert found["sensitivity_at_specificity_90"].n == counts.tp + counts.fn
    assert found["specificity_at_sensitivity_95"].n == counts.tn + counts.fp


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
    ranking = ("partial_auroc", "sensitivity_at_specificity_90", "specificity_at_sensitivity_95")
    for name in (*ranking, "average_precision", "balanced_accuracy", "f1", "mcc"):
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
    undefined |= {"partial_auroc", "brier_skill", *RECALIBRATION}
    undefined |= {"sensitivity_at_specificity_90", "specificity_at_sensitivity_95"}
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


@pytest.mark.parametrize("threshold", [0.0, 1.0, 1.0 + 1e-9])
def test_a_threshold_without_a_price_has_no_net_benefit(split, threshold):
    one = judge(split, threshold=threshold)["net_benefit"]
    assert np.isnan([one.value, one.ci_low, one.ci_high]).all()


def test_resamples_of_every_metric_are_those_of_repeated_images(split, patients):
    labels, logits, probabilities = split
    clusters = patient_clusters(patients, 200)
    whole = Split(labels, logits, probabilities, 0.4, clusters)
    names = [name for name in ORDER if name not in RECALIBRATION]
    found = resampled_metrics(whole, names, 5, seed=2)
    assert list(found) == names
    for row, weights in enumerate(np.concatenate(list(resample_weights(clusters, 5, 2)))):
        drawn = np.repeat(np.arange(200), weights.astype(int))
        again = (labels[drawn], logits[drawn], probabilities[drawn])
        one = Split(*again, 0.4, np.arange(len(drawn)))
        for name in names:
            assert found[name][row] == pytest.approx(metric_of(one, name), abs=1e-12), name


def test_a_summary_tells_what_the_whole_judgement_tells(split, patients):
    for groups in (None, patients):
        whole = estimates.classification_metrics(*split, 0.5, groups, 3, n_resamples=300)
        found = estimates.summary_metrics(*split, 0.5, groups, 3, n_resamples=300)
        assert list(found) == list(estimates.SUMMARY_METRICS)
        missed = found.pop("under_diagnosis_rate")
        for name, one in found.items():
            assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(whole[name])), name
        sensitivity = whole["sensitivity"]
        assert missed.value == pytest.approx(1 - sensitivity.value)
        assert missed.ci_low == pytest.approx(1 - sensitivity.ci_high)
        assert missed.ci_high == pytest.approx(1 - sensitivity.ci_low)
        assert (missed.method, missed.n) == (sensitivity.method, sensitivity.n)


def test_a_summary_of_the_missed_alone_needs_nothing_else(split, patients):
    for groups in (None, patients):
        whole = estimates.summary_metrics(*split, 0.5, groups, 3)["under_diagnosis_rate"]
        names = ["under_diagnosis_rate"]
        assert estimates.summary_metrics(*split, 0.5, groups, 3, names=names) == {names[0]: whole}


def test_too_few_patients_keep_the_value_and_lose_the_interval():
    # 9 sick and 30 healthy patients, two films each: whatever needs ten sick says nothing.
    rng = np.random.default_rng(4)
    labels, groups = np.repeat([1, 0], [18, 60]), np.arange(78) // 2
    logits = rng.normal(1.5 * labels)
    probabilities = metrics.sigmoid(logits - 0.5)
    names = (*estimates.SUMMARY_METRICS, "calibration_slope")
    found = estimates.summary_metrics(labels, logits, probabilities, 0.5, groups, names=names)
    enough = estimates.summary_metrics(
        labels, logits, probabilities, 0.5, groups, names=names, min_patients=9
    )
    silent = {"auroc", "sensitivity", "under_diagnosis_rate", "calibration_slope"}
    for name in names:
        assert found[name].value == enough[name].value
        assert found[name].n == enough[name].n
        assert math.isnan(found[name].ci_low) == (name in silent), name
        assert not math.isnan(enough[name].ci_low), name


def test_an_unknown_summary_metric_is_refused(split):
    with pytest.raises(ValueError, match="area_under"):
        estimates.summary_metrics(*split, 0.5, names=["auroc", "area_under"])


def test_another_prevalence_of_single_images_follows_the_formula(split):
    labels, _, probabilities = split
    found = estimates.prevalence_metrics(labels, probabilities, 0.4, 0.03, n_resamples=300)
    counts = confusion(labels, probabilities, 0.4)
    expected = prevalence.predictive_values(counts, 0.03)
    assert (found["ppv"].value, found["npv"].value) == (expected.ppv, expected.npv)
    assert (found["ppv"].ci_low, found["ppv"].ci_high) == expected.ppv_interval
    assert (found["npv"].ci_low, found["npv"].ci_high) == expected.npv_interval
    assert {found[name].method for name in ("ppv", "npv")} == {"mercaldo"}
    assert (found["ppv"].n, found["npv"].n) == (counts.tp + counts.fp, counts.tn + counts.fn)
    # At 3 % the cut of 0.4 stands at a lower probability, where a false alarm costs less.
    share = labels.mean()
    odds = 0.4 / 0.6 * (0.03 / 0.97) / (share / (1 - share))
    gain = counts.sensitivity * 0.03 - odds * (1 - counts.specificity) * 0.97
    one = found["net_benefit"]
    assert one.value == pytest.approx(gain)
    assert one.ci_low < one.value < one.ci_high


def test_another_prevalence_with_patients_resamples_them(split, patients):
    labels, _, probabilities = split
    found = estimates.prevalence_metrics(labels, probabilities, 0.4, 0.03, patients, 5)
    assert {one.method for one in found.values()} == {"patient_bootstrap"}

    def ppv(weights):
        tp, fp, tn, fn = weighted.weighted_confusion(labels, probabilities, 0.4, weights).T
        sick, healthy = 0.03 * tp / (tp + fn), 0.97 * fp / (fp + tn)
        return sick / (sick + healthy)

    low, high, _ = cluster_bootstrap_interval(ppv, patients, seed=5)
    assert (found["ppv"].ci_low, found["ppv"].ci_high) == pytest.approx((low, high))


def test_another_prevalence_of_one_class_is_undefined():
    found = estimates.prevalence_metrics(np.zeros(5, int), np.full(5, 0.3), 0.5, 0.1)
    assert all(math.isnan(one.value) and math.isnan(one.ci_low) for one in found.values())


def test_areas_take_the_variance_of_the_resamples_in_logits(split, patients):
    labels, logits, _ = split
    found = judge(split, patients)
    for name, many in (
        ("auroc", weighted.weighted_auroc),
        ("average_precision", weighted.weighted_average_precision),
    ):
        one = found[name]
        weights = np.concatenate(list(resample_weights(patient_clusters(patients, 200), 300, 0)))
        error = many(labels, logits, weights).std() / (one.value * (1 - one.value))
        centre = np.log(one.value / (1 - one.value))
        ends = metrics.sigmoid(centre + 1.959963984540054 * error * np.array([-1, 1]))
        assert (one.ci_low, one.ci_high) == pytest.approx(ends), name


@pytest.mark.parametrize(("n_sick", "n_healthy"), [(20, 10), (19, 10), (20, 9)])
def test_a_point_of_the_curve_needs_patients_enough_to_miss_one(n_sick, n_healthy):
    # Of 19 sick a sensitivity of 0.95 means all of them; of 9 healthy a specificity of 0.90 too.
    rng = np.random.default_rng(2)
    labels = np.repeat([1, 0], [n_sick, n_healthy])
    logits = rng.normal(1.5 * labels)
    groups = np.repeat(np.arange(len(labels)), 2)  # two films each count once
    doubled = np.repeat(labels, 2), np.repeat(logits, 2) + rng.normal(0, 0.1, 2 * len(labels))
    for case, of in (((labels, logits), None), (doubled, groups)):
        found = judge((*case, metrics.sigmoid(case[1])), of)
        at_sensitivity = found["specificity_at_sensitivity_95"]
        at_specificity = found["sensitivity_at_specificity_90"]
        assert math.isnan(at_sensitivity.ci_low) == (n_sick < 20)
        assert math.isnan(at_specificity.ci_low) == (n_healthy < 10)
        assert 0 <= at_sensitivity.value <= 1


def test_ppv_at_a_prevalence_has_an_interval_without_a_false_alarm_too() -> None:
    patients = np.repeat(np.arange(40), 2)
    labels = np.repeat([0, 1], 40)
    p = np.concatenate([np.full(40, 0.1), np.tile([0.9, 0.3], 20)])
    found = estimates.prevalence_metrics(labels, p, 0.5, 0.03, patients)["ppv"]
    assert found.value == 1.0
    assert found.ci_high == 1.0
    assert 0 < found.ci_low < 0.5  # 20 healthy patients say little at 3 %
