"""Metrics of a whole split, against scikit-learn, brute force and hand-made cases."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from xray_classifier import metrics
from xray_classifier.confusion import Confusion, confusion
from xray_classifier.errors import DataError

FEW = settings(max_examples=60, deadline=None)


@st.composite
def splits(draw, both_classes=True):
    """Labels and probabilities with many ties: both from a handful of values."""
    n = draw(st.integers(2, 40))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    if both_classes:
        labels[0], labels[1] = 0, 1
    levels = draw(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
    scores = draw(st.lists(st.sampled_from(levels), min_size=n, max_size=n))
    return np.array(labels), np.array(scores, dtype=float)


def random_split(seed, n=500):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return labels, np.round(rng.normal(labels, 1.5), 1)


def test_sigmoid_equals_the_exact_formula_and_survives_any_size():
    logits = np.array([-800.0, -700.0, -3.5, 0.0, 1e-9, 2.0, 800.0, np.inf, -np.inf])
    with np.errstate(all="raise", under="ignore"):
        found = metrics.sigmoid(logits)
    assert found[:2].tolist() == pytest.approx([0.0, math.exp(-700)], rel=1e-12)
    assert found[2:6] == pytest.approx([1 / (1 + math.exp(-x)) for x in logits[2:6]], rel=1e-15)
    assert found[6:].tolist() == [1.0, 1.0, 0.0]


def test_sigmoid_gives_float64_of_any_shape_and_keeps_nan():
    found = metrics.sigmoid(np.array([[0.0, np.nan]], dtype=np.float32))
    assert found.dtype == np.float64
    assert found.shape == (1, 2)
    assert found[0, 0] == 0.5
    assert np.isnan(found[0, 1])


@FEW
@given(st.lists(st.floats(-30, 30), min_size=2, max_size=30))
def test_sigmoid_never_falls(logits):
    assert (np.diff(metrics.sigmoid(np.sort(np.array(logits)))) >= 0).all()


def test_an_image_at_the_threshold_is_called_sick():
    below, at = np.nextafter(0.3, 0), 0.3
    assert metrics.decide(np.array([below, at, 1.0]), 0.3).tolist() == [False, True, True]


@pytest.mark.parametrize("bad", [np.nan, -1e-9, 1.0000001, np.inf])
def test_decide_never_passes_a_broken_probability_as_healthy(bad):
    with pytest.raises(DataError):
        metrics.decide(np.array([0.2, bad]), 0.5)


def test_decide_refuses_a_nan_threshold():
    with pytest.raises(ValueError, match="NaN"):
        metrics.decide(np.array([0.2]), math.nan)


@FEW
@given(splits())
def test_auroc_counts_pairs_with_ties_as_half(split):
    labels, scores = split
    sick, healthy = scores[labels == 1], scores[labels == 0]
    won = sum(Fraction(int(s > h)) + Fraction(int(s == h), 2) for s in sick for h in healthy)
    assert metrics.auroc(labels, scores) == pytest.approx(float(won / (len(sick) * len(healthy))))


@FEW
@given(splits())
def test_ranking_metrics_equal_scikit_learn(split):
    labels, scores = split
    assert metrics.auroc(labels, scores) == pytest.approx(sk.roc_auc_score(labels, scores))
    expected = sk.average_precision_score(labels, scores)
    assert metrics.average_precision(labels, scores) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_ranking_metrics_equal_scikit_learn_on_logits(seed):
    labels, logits = random_split(seed)
    assert metrics.auroc(labels, logits) == pytest.approx(sk.roc_auc_score(labels, logits))
    expected = sk.average_precision_score(labels, logits)
    assert metrics.average_precision(labels, logits) == pytest.approx(expected)


def test_auroc_by_hand():
    # Pairs (sick, healthy): 4>1, 4>3, 2>1, 2<3, 3>1, 3=3: 4.5 of 6.
    assert metrics.auroc(np.array([1, 1, 1, 0, 0]), np.array([4.0, 2, 3, 1, 3])) == 4.5 / 6


@pytest.mark.parametrize("label", [0, 1])
def test_auroc_of_one_class_is_undefined(label):
    assert math.isnan(metrics.auroc(np.full(3, label), np.arange(3.0)))


def test_average_precision_without_a_sick_image_is_undefined():
    assert math.isnan(metrics.average_precision(np.zeros(3, int), np.arange(3.0)))
    assert metrics.average_precision(np.ones(3, int), np.arange(3.0)) == 1.0


@FEW
@given(splits(both_classes=False))
def test_probability_metrics_equal_scikit_learn(split):
    labels, probabilities = split
    expected = sk.brier_score_loss(labels, probabilities, pos_label=1, labels=[0, 1])
    assert metrics.brier_score(labels, probabilities) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_log_loss_equals_scikit_learn_on_probabilities(seed):
    labels, logits = random_split(seed)
    expected = sk.log_loss(labels, 1 / (1 + np.exp(-logits)))
    assert metrics.log_loss_from_logits(labels, logits) == pytest.approx(expected, rel=1e-12)


def test_log_loss_stays_exact_where_probabilities_are_rounded_to_one():
    # A confident mistake at logit 1000 costs 1000 nats; a right answer costs nothing.
    labels, logits = np.array([0, 1]), np.array([1000.0, 1000.0])
    assert metrics.log_loss_from_logits(labels, logits) == 500.0
    assert metrics.log_loss_from_logits(np.array([1]), np.array([0.0])) == pytest.approx(
        math.log(2)
    )


def test_log_loss_refuses_an_infinite_logit():
    with pytest.raises(DataError, match="infinite"):
        metrics.log_loss_from_logits(np.array([1]), np.array([np.inf]))


@FEW
@given(splits(both_classes=False), st.floats(0, 1))
def test_confusion_counts_each_image_once_and_as_scikit_learn(split, threshold):
    labels, probabilities = split
    found = confusion(labels, probabilities, threshold)
    tn, fp, fn, tp = sk.confusion_matrix(labels, probabilities >= threshold, labels=[0, 1]).ravel()
    assert (found.tp, found.fp, found.tn, found.fn) == (tp, fp, tn, fn)
    assert found.tp + found.fp + found.tn + found.fn == len(labels)


@FEW
@given(splits(), st.floats(0, 1))
def test_decision_metrics_equal_scikit_learn(split, threshold):
    labels, probabilities = split
    called = probabilities >= threshold
    found = confusion(labels, probabilities, threshold)
    expected = {
        "sensitivity": sk.recall_score(labels, called),
        "specificity": sk.recall_score(labels, called, pos_label=0),
        "ppv": sk.precision_score(labels, called, zero_division=np.nan),
        "npv": sk.precision_score(labels, called, pos_label=0, zero_division=np.nan),
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "f1": sk.f1_score(labels, called),
        "mcc": sk.matthews_corrcoef(labels, called) if 0 < called.sum() < len(called) else np.nan,
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, nan_ok=True, abs=1e-12), name


def test_decision_metrics_by_hand():
    counts = Confusion(tp=90, fp=30, tn=70, fn=10)
    assert counts.sensitivity == 0.9
    assert counts.specificity == 0.7
    assert counts.ppv == 0.75
    assert counts.npv == 0.875
    assert counts.accuracy == 0.8
    assert counts.balanced_accuracy == pytest.approx(0.8)
    assert counts.f1 == pytest.approx(180 / 220)
    assert counts.mcc == pytest.approx((90 * 70 - 30 * 10) / math.sqrt(120 * 100 * 100 * 80))


def test_decision_metrics_without_images_are_undefined():
    counts = Confusion(0, 0, 0, 0)
    names = [name for name, kind in vars(Confusion).items() if isinstance(kind, property)]
    assert len(names) == 8
    assert all(math.isnan(getattr(counts, name)) for name in names)


def test_mcc_of_large_counts_does_not_overflow():
    assert Confusion(10**9, 0, 10**9, 0).mcc == 1.0


@FEW
@given(splits(both_classes=False), st.integers(1, 15))
def test_calibration_error_equals_a_loop_over_bins(split, n_bins):
    labels, probabilities = split
    total = 0.0
    for i in range(n_bins):
        scaled = probabilities * n_bins
        inside = (scaled >= i) & ((scaled < i + 1) | (i == n_bins - 1))
        if inside.any():
            gap = abs(probabilities[inside].mean() - labels[inside].mean())
            total += inside.mean() * gap
    found = metrics.expected_calibration_error(labels, probabilities, n_bins)
    assert found == pytest.approx(total, abs=1e-12)


def test_calibration_error_by_hand():
    # Bin [0, 0.5): says 0.2, sees 1/2; bin [0.5, 1]: says 0.9, sees 1. (2*0.3 + 2*0.1) / 4 = 0.2.
    labels, probabilities = np.array([0, 1, 1, 1]), np.array([0.1, 0.3, 0.8, 1.0])
    assert metrics.expected_calibration_error(labels, probabilities, 2) == pytest.approx(0.2)


def test_a_bin_holds_its_lower_edge_and_the_last_also_one():
    edges = np.array([0.0, 0.25, np.nextafter(0.5, 0), 0.5, 0.75, 1.0])
    assert metrics.probability_bins(edges, 4).tolist() == [0, 1, 1, 2, 3, 3]


def test_no_bins_is_a_mistake():
    with pytest.raises(ValueError, match="n_bins"):
        metrics.expected_calibration_error(np.array([1]), np.array([0.5]), 0)


@pytest.mark.parametrize("seed", range(3))
def test_regression_metrics_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    targets = rng.normal(60, 12, 200)
    predictions = targets + rng.normal(0, 9, 200)
    expected_mse = sk.mean_squared_error(targets, predictions)
    assert metrics.mse(targets, predictions) == pytest.approx(expected_mse)
    assert metrics.mae(targets, predictions) == pytest.approx(
        sk.mean_absolute_error(targets, predictions)
    )
    assert metrics.r2(targets, predictions) == pytest.approx(sk.r2_score(targets, predictions))


def test_r2_of_equal_targets_is_undefined_also_where_their_mean_is_rounded():
    assert math.isnan(metrics.r2(np.full(3, 0.1), np.array([0.0, 0.1, 0.2])))


BINARY = (
    metrics.auroc,
    metrics.average_precision,
    metrics.brier_score,
    metrics.log_loss_from_logits,
    metrics.expected_calibration_error,
)
NUMERIC = (metrics.mse, metrics.mae, metrics.r2)


@pytest.mark.parametrize("metric", [*BINARY, *NUMERIC])
def test_an_empty_split_leaves_every_metric_undefined(metric):
    assert math.isnan(metric(np.zeros(0, int), np.zeros(0)))


@pytest.mark.parametrize("metric", [*BINARY, *NUMERIC])
def test_a_nan_score_is_refused_with_its_count(metric):
    with pytest.raises(DataError, match="2 of 3"):
        metric(np.array([0, 1, 1]), np.array([0.1, np.nan, np.nan]))


@pytest.mark.parametrize("metric", [*BINARY, *NUMERIC])
@pytest.mark.parametrize("shape", [(2,), (3, 1), (1, 3)])
def test_unequal_shapes_are_refused(metric, shape):
    with pytest.raises(DataError, match="shape"):
        metric(np.array([0, 1, 1]), np.zeros(shape))


@pytest.mark.parametrize("metric", BINARY)
@pytest.mark.parametrize("label", [2, -1])
def test_a_label_that_is_no_class_is_refused(metric, label):
    with pytest.raises(DataError, match=f"label {label}"):
        metric(np.array([0, label]), np.array([0.1, 0.2]))


@pytest.mark.parametrize("metric", [metrics.brier_score, metrics.expected_calibration_error])
def test_a_logit_is_not_taken_for_a_probability(metric):
    with pytest.raises(DataError, match=r"2\.5"):
        metric(np.array([0, 1]), np.array([0.1, 2.5]))


def test_importing_the_metrics_imports_no_heavy_library():
    heavy = "{'scipy', 'sklearn', 'torch', 'pandas', 'matplotlib', 'pydantic'}"
    code = f"import sys, xray_classifier.metrics; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
