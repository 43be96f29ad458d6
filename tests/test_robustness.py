"""The numbers of a stress test against scikit-learn and against resampling by hand."""

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, confusion_matrix, roc_auc_score

from xray_classifier.bootstrap import patient_clusters, resample_weights
from xray_classifier.data.stress import VARIANTS
from xray_classifier.intervals import logit_interval
from xray_classifier.metrics import sigmoid
from xray_classifier.robustness import StressTest, robustness

N = 60
WORST = 23  # a place in VARIANTS


def planted(seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (60,) and logits (60, 51): a good model that one change blinds, others hurt a bit."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(N) % 3 == 0).astype(np.int64)
    clean = 2.0 * labels - 1.0 + rng.normal(0, 0.8, N)
    logits = clean[:, None] + rng.normal(0, 0.4, (N, len(VARIANTS)))
    logits[:, 0] = clean
    logits[:, WORST] = rng.permutation(clean)
    return labels, logits


def result_of(
    labels: NDArray[np.int64],
    logits: NDArray[np.float64],
    groups: NDArray[np.int64] | None = None,
    n_resamples: int = 200,
) -> StressTest:
    return robustness(
        labels,
        logits,
        sigmoid(logits),
        threshold=0.4,
        groups=np.arange(len(labels)) if groups is None else groups,
        usual_logits=logits[:, 0] + np.where(np.arange(len(labels)) == 4, -0.5, 0.1),
        n_given=99,
        n_left_out=2,
        notes=("a note",),
        seed=3,
        n_resamples=n_resamples,
    )


def test_each_cell_is_what_scikit_learn_says() -> None:
    labels, logits = planted()
    result = result_of(labels, logits)
    cells = [result.unchanged, *result.cells]
    assert len(cells) == 51
    clean = roc_auc_score(labels, logits[:, 0])
    for cell, column, (kind, level) in zip(cells, logits.T, VARIANTS, strict=True):
        area, p_sick = roc_auc_score(labels, column), sigmoid(column)
        assert cell.auroc.value == pytest.approx(area)
        assert cell.drop.value == pytest.approx(clean - area)
        assert cell.brier == pytest.approx(brier_score_loss(labels, p_sick))
        tn, fp, fn, tp = confusion_matrix(labels, p_sick >= 0.4).ravel()
        assert (cell.sensitivity, cell.specificity) == (tp / (tp + fn), tn / (tn + fp))
        assert cell.level == level
        if kind is not None:
            assert (cell.perturbation, cell.strength) == (kind.name, kind.strengths[level - 1])


def test_robustness_is_the_mean_area_and_the_worst_cell_the_lowest() -> None:
    labels, logits = planted()
    result = result_of(labels, logits)
    areas = [roc_auc_score(labels, column) for column in logits.T]
    assert result.robustness.value == pytest.approx(np.mean(areas[1:]))
    assert result.robustness_drop.value == pytest.approx(areas[0] - np.mean(areas[1:]))
    assert result.worst is result.cells[WORST - 1]
    assert result.shift_max == pytest.approx(0.5)
    assert result.shift_mean == pytest.approx((59 * 0.1 + 0.5) / 60)
    assert (result.n, result.n_sick, result.n_given, result.n_left_out) == (60, 20, 99, 2)


def test_intervals_are_those_of_the_same_patients_drawn_for_all_changes() -> None:
    labels, logits = planted()
    groups = np.arange(N) // 2  # two images each, of either class
    result = result_of(labels, logits, groups, n_resamples=40)
    by_hand = []
    for row in np.concatenate(list(resample_weights(patient_clusters(groups, N), 40, 3))):
        images = np.repeat(np.arange(N), row.astype(int))
        by_hand.append([roc_auc_score(labels[images], column[images]) for column in logits.T])
    areas = np.array(by_hand)

    def ends(values: NDArray[np.float64]) -> tuple[float, float]:
        low, high = np.quantile(values, [0.025, 0.975])
        return pytest.approx(low), pytest.approx(high)

    worst = result.cells[WORST - 1]
    area = logit_interval(roc_auc_score(labels, logits[:, WORST]), float(areas[:, WORST].var()))
    assert (worst.auroc.ci_low, worst.auroc.ci_high) == pytest.approx(area)
    paired = areas[:, 0] - areas[:, WORST]
    assert (worst.drop.ci_low, worst.drop.ci_high) == ends(paired)
    mean = areas[:, 1:].mean(axis=1)
    assert (result.robustness.ci_low, result.robustness.ci_high) == ends(mean)
    drop = result.robustness_drop
    assert (drop.ci_low, drop.ci_high) == ends(areas[:, 0] - mean)
    assert drop.method == worst.auroc.method == "patient_bootstrap"
    assert "60 images of 30 patients" in result.notes[-1]


def test_one_image_each_gets_delong_and_no_note_of_its_own() -> None:
    result = result_of(*planted())
    assert {cell.auroc.method for cell in result.cells} == {"delong"}
    assert result.robustness.method == "bootstrap"
    assert result.notes == ("a note",)


def test_a_model_that_nothing_touches_loses_nothing() -> None:
    labels, logits = planted()
    result = result_of(labels, np.repeat(logits[:, :1], len(VARIANTS), axis=1))
    assert result.robustness.value == pytest.approx(result.unchanged.auroc.value)
    assert {cell.drop.value for cell in result.cells} == {0.0}
    assert math.isnan(result.cells[0].drop.ci_low)
    assert "no change lowers it" in result.in_words()


def test_one_class_leaves_areas_undefined_and_says_so() -> None:
    _, logits = planted()
    result = result_of(np.zeros(N, np.int64), logits)
    assert math.isnan(result.robustness.value)
    assert math.isnan(result.unchanged.auroc.value)
    assert result.worst is None
    assert result.to_dict()["worst"] is None
    assert result.cells[0].brier > 0
    assert "one class only" in "\n".join(result.in_words())


def test_the_words_name_the_worst_change_and_its_fall() -> None:
    labels, logits = planted()
    result = result_of(labels, logits)
    said = "\n".join(result.in_words())
    worst = result.cells[WORST - 1]
    kind, level = VARIANTS[WORST]
    assert kind is not None
    assert kind.in_words(level) in said
    assert f"{result.unchanged.auroc.value:.3f} -> {worst.auroc.value:.3f} (" in said
    assert f"mean AUROC {result.robustness.value:.3f} (" in said
    lowest = min(cell.sensitivity for cell in result.cells)
    assert f"sensitivity from {result.unchanged.sensitivity:.0%} to {lowest:.0%}" in said
    assert 2 <= len(result.in_words()) <= 3


def test_what_metrics_json_gets_is_plain() -> None:
    content = json.loads(json.dumps(result_of(*planted()).to_dict()))
    assert len(content["cells"]) == 50
    assert content["worst"] == content["cells"][WORST - 1]
    assert set(content["robustness"]) == {"value", "ci_low", "ci_high", "method", "n"}
    assert set(content["cells"][0]) == {
        "perturbation", "level", "strength", "words", "auroc", "drop", "brier", "ece",
        "sensitivity", "specificity",
    }  # fmt: skip
