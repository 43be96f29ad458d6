"""Every image is counted: coverage and the worst case, by hand and by brute force."""

import itertools

import numpy as np
import pytest

from xray_classifier.coverage import coverage
from xray_classifier.intervals import wilson_interval


def test_counts_and_both_shares_by_hand() -> None:
    #                 called     referred   unreadable
    targets = np.array([1, 1, 0, 0, 1, 0, 1, 0, 1], dtype=float)
    called = np.array([1, 0, 0, 1, 1, 0, 0, 0, 0], dtype=bool)
    answered = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    reasons = ["", "", "", "", "", "", "truncated", "multi_image", "multi_image"]
    found = coverage(targets, called, answered, reasons, None)
    assert (found.n, found.n_answered, found.n_referred, found.n_unread) == (9, 4, 2, 3)
    assert not found.complete
    content = found.to_dict()
    assert content["reasons"] == {"multi_image": 2, "truncated": 1}
    assert (content["rejected"], content["failed"]) == (2, 1)
    assert content["share_answered"] == 4 / 9
    assert found.answered["sensitivity"].value == 1 / 2
    assert found.answered["specificity"].value == 1 / 2
    assert found.worst_case["sensitivity"].value == 1 / 5
    assert found.worst_case["specificity"].value == 1 / 4
    worst = found.worst_case["sensitivity"]
    assert (worst.ci_low, worst.ci_high) == wilson_interval(1, 5)


def test_no_answers_of_the_missing_could_be_worse() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 12).astype(float)
    called = rng.integers(0, 2, 12).astype(bool)
    answered = np.arange(12) < 8
    found = coverage(targets, called, answered, [""] * 12, None)
    sick = targets == 1
    lowest = 1.0
    for guess in itertools.product([False, True], repeat=4):
        full = called.copy()
        full[8:] = guess
        lowest = min(lowest, float((full & sick).sum() / sick.sum()))
    assert found.worst_case["sensitivity"].value == pytest.approx(lowest)


def test_where_all_are_answered_both_shares_agree() -> None:
    targets, called = np.array([1.0, 0.0, 1.0]), np.array([True, False, False])
    found = coverage(targets, called, np.ones(3, dtype=bool), ["", "", ""], None)
    assert found.complete
    assert found.answered == found.worst_case


def test_nothing_answered_is_undefined_and_null() -> None:
    found = coverage(np.array([1.0, 0.0]), np.zeros(2, bool), np.zeros(2, bool), ["", ""], None)
    assert np.isnan(found.answered["sensitivity"].value)
    assert found.to_dict()["among_answered"]["sensitivity"]["value"] is None
    assert found.worst_case["sensitivity"].value == 0.0


def test_shares_get_the_intervals_of_sensitivity_where_patients_repeat() -> None:
    from xray_classifier.estimates import classification_metrics

    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(60), 3).astype(str)
    targets = np.repeat(rng.integers(0, 2, 60), 3)
    logits = rng.normal(size=180) + 1.5 * targets + np.repeat(rng.normal(size=60), 3)
    p = 1 / (1 + np.exp(-logits))
    everyone = np.ones(180, dtype=bool)
    found = coverage(targets.astype(float), p >= 0.5, everyone, [""] * 180, patients)
    metrics = classification_metrics(targets, logits, p, 0.5, patients)
    for name in ("sensitivity", "specificity"):
        ours, theirs = found.worst_case[name], metrics[name]
        assert (ours.value, ours.method, ours.n) == (theirs.value, theirs.method, theirs.n)
        assert ours.ci_low == pytest.approx(theirs.ci_low)
        assert ours.ci_high == pytest.approx(theirs.ci_high)
