"""Subgroups: which column makes which groups, and each group's numbers on its own."""

import numpy as np
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from xray_classifier.errors import UsageError
from xray_classifier.subgroups import NOT_STATED, chosen_columns, group_names, subgroups


def test_each_groups_numbers_are_those_of_its_images_alone() -> None:
    rng = np.random.default_rng(0)
    n = 200
    view = rng.choice(["PA", "AP", "lateral"], n, p=[0.6, 0.37, 0.03]).tolist()
    labels = rng.integers(0, 2, n)
    logits = rng.normal(size=n) + labels
    p = 1 / (1 + np.exp(-logits))
    patients = np.arange(n).astype(str)
    found = subgroups({"view": view}, None, labels, logits, p, 0.6, patients)
    assert [g.value for g in found] == ["AP", "PA", "lateral"]
    for group in found[:2]:
        inside = np.array(view) == group.value
        assert (group.n, group.n_sick) == (inside.sum(), labels[inside].sum())
        m = group.metrics
        assert m["auroc"].value == pytest.approx(roc_auc_score(labels[inside], logits[inside]))
        called = p[inside] >= 0.6
        sensitivity = recall_score(labels[inside], called)
        assert m["sensitivity"].value == pytest.approx(sensitivity)
        assert m["under_diagnosis_rate"].value == pytest.approx(1 - sensitivity)
        assert m["under_diagnosis_rate"].ci_low == pytest.approx(1 - m["sensitivity"].ci_high)
    assert "too few to say" in found[2].warning
    assert np.isnan(found[2].metrics["auroc"].ci_low)
    assert found[2].to_dict()["warning"] == found[2].warning


@pytest.mark.parametrize(
    ("column", "cells", "names"),
    [
        ("age", ["17", "18", "39.5", "40", "79", "80", "101", ""],
         ["under 18 years", "18 to 39 years", "18 to 39 years", "40 to 59 years",
          "60 to 79 years", "80 years and over", "80 years and over", NOT_STATED]),
        ("imagery", ["17", "80"], ["17", "80"]),
        ("PatientAge", ["045Y", "006M", "003D"],
         ["40 to 59 years", "under 18 years", "under 18 years"]),
        ("patient_age", ["045Y", "006M", "003D"],
         ["40 to 59 years", "under 18 years", "under 18 years"]),
        ("age", ["young", "old"], ["young", "old"]),
        ("page", ["17", "80"], ["17", "80"]),
        ("sex", ["F", "M", " "], ["F", "M", NOT_STATED]),
    ],
)  # fmt: skip
def test_ages_become_bands_and_texts_stay(column: str, cells: list[str], names: list[str]) -> None:
    assert list(group_names(column, cells)) == names


def test_many_numbers_become_quarters_of_about_equal_size() -> None:
    names = group_names("weight", [f"{x}" for x in range(1, 101)] + [""])
    assert list(dict.fromkeys(names)) == ["1 to 25.75", "25.75 to 50.5", "50.5 to 75.25",
                                          "75.25 to 100", NOT_STATED]  # fmt: skip
    assert [names.count(name) for name in dict.fromkeys(names)] == [25, 25, 25, 25, 1]


def test_unasked_only_columns_of_few_groups_are_taken() -> None:
    columns = {
        "name": [f"n{x}" for x in range(40)],
        "site": ["a", "b"] * 20,
        "constant": ["x"] * 40,
    }
    assert list(chosen_columns(columns, None)) == ["site"]
    assert list(chosen_columns(columns, ["constant"])) == ["constant"]


def test_a_column_that_is_missing_or_a_name_is_refused_with_what_there_is() -> None:
    columns = {"site": ["a", "b"], "sex": ["f", "m"]}
    with pytest.raises(UsageError, match=r"no column sx .*site, sex"):
        chosen_columns(columns, ["sx"])
    with pytest.raises(UsageError, match="40 values"):
        chosen_columns({"name": [f"n{x}" for x in range(40)]}, ["name"])


def test_few_patients_with_many_images_are_few() -> None:
    rng = np.random.default_rng(1)
    labels = np.tile([1, 0], 80)
    logits = rng.normal(size=160) + labels
    patients = np.where(np.arange(160) < 80, np.arange(160) % 4, np.arange(160)).astype(str)
    site = np.where(np.arange(160) < 80, "a", "b").tolist()
    p = 1 / (1 + np.exp(-logits))
    found = subgroups({"site": site}, None, labels, logits, p, 0.5, patients)
    assert found[0].warning == "too few to say: 2 sick and 2 healthy patients"
    assert "too few" not in found[1].warning
