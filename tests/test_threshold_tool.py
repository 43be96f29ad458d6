"""The counts behind the threshold slider, against a count by hand and scikit-learn."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from report_parts import THRESHOLD, scored, tool
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, roc_curve

from xray_classifier.errors import DataError
from xray_classifier.report.threshold_tool import (
    STATIC_HEADER,
    ThresholdTool,
    roc_path,
    static_rows,
    threshold_tool,
    tool_json,
)


def large(n: int = 10_000, threshold: float = 0.123456789) -> ThresholdTool:
    labels, _ = scored(n)
    p = np.random.default_rng(1).beta(0.5, 2.0, n)
    return threshold_tool(labels, p, threshold, policy="youden", split="test")


def test_each_count_is_that_of_probability_at_or_above_threshold() -> None:
    labels, p = scored()
    made = tool()
    for place, threshold in enumerate(made.thresholds):
        truth = confusion_matrix(labels, p >= threshold)
        counts = made.counts(place)
        assert (counts.tn, counts.fp, counts.fn, counts.tp) == tuple(truth.ravel())


def test_every_threshold_that_changes_a_decision_is_there_for_a_small_set() -> None:
    labels, p = scored()
    made = tool()
    assert set(p) <= set(made.thresholds)
    assert sorted(set(made.thresholds)) == list(made.thresholds)
    assert (made.thresholds[0], made.thresholds[-1]) == (0.0, 1.0)
    assert made.thresholds[made.stored] == THRESHOLD
    assert (made.n_sick, made.n_healthy) == (labels.sum(), len(labels) - labels.sum())


def test_a_large_set_keeps_about_a_thousand_exact_thresholds_with_the_stored_one() -> None:
    labels, _ = scored(10_000)
    p = np.random.default_rng(1).beta(0.5, 2.0, 10_000)
    made = large()
    assert 900 < len(made.thresholds) <= 1000
    assert made.thresholds[made.stored] == 0.123456789
    assert set(np.arange(101) / 100) <= set(made.thresholds)
    for place in (0, 7, made.stored, 500, len(made.thresholds) - 1):
        called = p >= made.thresholds[place]
        assert made.tp[place] == int((labels[called] == 1).sum())
        assert made.fp[place] == int((labels[called] == 0).sum())
    assert len(tool_json(made)) < 60_000


def test_no_step_of_the_slider_jumps_over_many_images_of_a_large_set() -> None:
    made = large()
    called = np.array(made.tp) + np.array(made.fp)
    assert np.max(-np.diff(called)) <= 2 * 10_000 / 890


def test_a_stored_threshold_outside_the_probabilities_is_kept() -> None:
    labels, p = scored()
    made = threshold_tool(labels, p, 1.25, policy="fixed", split="test")
    assert made.thresholds[-1] == 1.25
    assert (made.tp[-1], made.fp[-1]) == (0, 0)


@pytest.mark.parametrize("wrong", [float("nan"), -0.1, 1.5])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(DataError):
        threshold_tool(np.array([0, 1]), np.array([0.5, wrong]), 0.5, policy="", split="test")


def test_a_threshold_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        threshold_tool(np.array([0, 1]), np.array([0.5, 0.6]), math.nan, policy="", split="test")


def test_the_numbers_for_the_script_are_those_of_the_tool() -> None:
    made = tool("</script> & <b>")
    text = str(tool_json(made))
    assert not set("<>&") & set(text)
    read = json.loads(text)
    assert tuple(read["thresholds"]) == made.thresholds
    assert (tuple(read["tp"]), tuple(read["fp"])) == (made.tp, made.fp)
    assert read["policy"] == "</script> & <b>"
    assert read["prevalence"] == made.n_sick / 90
    assert (read["stated_prevalence"], read["threshold"]) == (0.03, THRESHOLD)


def test_without_images_the_prevalence_is_null() -> None:
    nothing = threshold_tool(np.zeros(0, int), np.zeros(0), 0.5, policy="", split="test")
    assert json.loads(tool_json(nothing))["prevalence"] is None


def test_the_table_has_ten_thresholds_with_the_stored_one_and_true_intervals() -> None:
    labels, p = scored()
    rows = static_rows(tool())
    assert len(rows) <= 10
    assert [len(row.cells) for row in rows] == [len(STATIC_HEADER)] * len(rows)
    assert [float(row.cells[0]) for row in rows] == sorted(float(row.cells[0]) for row in rows)
    (stored,) = [row.cells for row in rows if row.stored]
    tn, fp, fn, tp = confusion_matrix(labels, p >= THRESHOLD).ravel()
    interval = binomtest(int(tp), int(tp + fn)).proportion_ci(method="wilson")
    assert stored[0] == "0.37"
    assert stored[1] == f"{100 * tp / (tp + fn):.1f} %"
    assert stored[2] == f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"
    assert stored[3] == f"{100 * tn / (tn + fp):.1f} %"
    assert stored[5] == f"{100 * tp / (tp + fp):.1f} %"
    assert stored[6] == f"{100 * tn / (tn + fn):.1f} %"
    assert stored[7:] == (f"{fn} of {tp + fn}", f"{fp} of {tn + fp}")


def test_the_drawn_curve_is_the_roc_curve() -> None:
    labels, p = scored()
    path = roc_path(tool())
    drawn = {tuple(map(float, pair.split())) for pair in re.split("[ML]", path) if pair}
    rates = zip(*roc_curve(labels, p, drop_intermediate=False)[:2], strict=True)
    for fpr, tpr in rates:
        x, y = 200 * fpr, 200 * (1 - tpr)
        assert min(math.hypot(x - a, y - b) for a, b in drawn) < 0.01
    assert path.startswith("M0.00 200.00L")
    assert path.endswith("L200.00 0.00")


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_curve_and_undefined_shares(label: int) -> None:
    made = threshold_tool(np.full(5, label), np.linspace(0, 1, 5), 0.5, policy="", split="test")
    assert roc_path(made) == ""
    assert "not defined" in static_rows(made)[0].cells
