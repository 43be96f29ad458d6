"""The model card: all sections, the run's own numbers, marks where there are none."""

import re
from dataclasses import replace

import pytest
from evaluated_runs import CONTENT, FACTS, LISTING, METRICS, NASTY, poisoned, with_metrics

from xray_classifier.markdown import is_untouched
from xray_classifier.model_card import EXTRA, TO_FILL_IN, flat, model_card
from xray_classifier.run_facts import Facts

SECTIONS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
]
"""Mitchell et al. 2019, figure 1, in its order."""


def section(heading: str, facts: Facts = FACTS) -> str:
    """The text of one section."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", model_card(facts), re.M | re.S)
    assert found is not None
    return found[1]


def test_the_sections_are_those_of_the_paper() -> None:
    assert re.findall(r"^## (.*)$", model_card(FACTS), re.M) == SECTIONS


def test_a_card_of_nothing_is_whole_and_invents_nothing() -> None:
    text = model_card(Facts())
    assert re.findall(r"^## (.*)$", text, re.M) == SECTIONS
    assert "No evaluation is at hand." in text
    assert text.count(TO_FILL_IN) > 25
    assert not re.search(r"\b0\.\d\d\d\b", text)


def test_intended_use_is_the_author_s() -> None:
    said = section("Intended use")
    assert "| purpose | second reader |" in said
    assert "| youngest patients (years) | 18 |" in said
    assert f"| oldest patients (years) | {TO_FILL_IN} |" in said
    assert "| not meant for | children |" in said
    assert said.count(TO_FILL_IN) == 3


def test_intended_use_may_be_added_after_training() -> None:
    content = {key: value for key, value in CONTENT.items() if key != "intended_use"}
    config = {**(FACTS.config or {}), "intended_use": {"purpose": "triage", "min_age_years": 0.0}}
    said = section("Intended use", replace(FACTS, content=content, config=config))
    assert "| purpose | triage |" in said
    assert "| youngest patients (years) | 0 |" in said
    assert "| youngest patients (years) | 18 |" in section("Intended use")  # the checkpoint first


def test_an_age_of_zero_is_an_age() -> None:
    content = {**CONTENT, "intended_use": {"min_age_years": 0.0}}
    said = section("Intended use", replace(FACTS, content=content, config=None))
    assert "| youngest patients (years) | 0 |" in said


def test_metrics_stand_with_their_intervals() -> None:
    said = section("Quantitative analyses")
    assert "| AUROC | 0.875 | 0.750 to 0.950 | 5 | DeLong" in said
    assert "| Sensitivity | 0.667 | 0.208 to 0.939 | 3 | Wilson" in said
    assert "| Specificity | undefined | - | 0 | Wilson" in said
    assert "| healthy | 1 | 1 |" in said
    assert "| sick | 1 | 2 |" in said


def test_training_data_are_counted() -> None:
    said = section("Training data")
    assert "| patients | 3 | 5 | 8 |" in said
    assert "10  images found" in said
    assert "1 left out: truncated" in said


def test_what_was_not_computed_is_said() -> None:
    said = section("Quantitative analyses")
    for heading in EXTRA.values():
        assert f"{heading}: not computed." in said
    assert "none was written before the test" in section("Metrics")
    said = section("Quantitative analyses", with_metrics(refer=None, subgroups=[]))
    assert "Referred images: none." in said
    assert "Subgroups: none." in said


def test_optional_parts_are_shown() -> None:
    auroc = {"value": 0.9, "ci_low": 0.8, "ci_high": 0.95, "method": "delong", "n": 12}
    groups = [
        {"column": "sex", "value": "F", "n": 12, "n_sick": 4, "metrics": {"auroc": auroc}},
        {"column": "sex", "value": "M", "n": 3, "n_sick": 1, "metrics": {}, "warning": "few"},
    ]
    stress = {"score": 0.8125, "n": 400, "cells": [{"kind": "blur", "auroc": 0.7}]}
    facts = with_metrics(
        subgroups=groups,
        stress=stress,
        test_set={"fingerprint": "x", "looks": 7, "models": 2},
        plan={"sha256": "c" * 64, "kept": False, "deviations": ["another split"]},
    )
    said = section("Quantitative analyses", facts)
    assert "| sex: F | 12 | 4 | 0.90 (0.80 to 0.95) |  |" in said
    assert "| sex: M | 3 | 1 | - | few |" in said
    assert "| score | 0.8125 |" in said
    assert "blur" not in said
    assert "looked at 7 times, models: 2" in section("Metrics", facts)
    assert "not kept: another split" in section("Metrics", facts)


def test_long_parts_are_cut() -> None:
    facts = with_metrics(coverage={f"reason {i}": i for i in range(100)})
    said = section("Quantitative analyses", facts)
    assert "| reason 59 | 59 |" in said
    assert "| reason 60 |" not in said
    assert "and 40 more in metrics.json" in said


def test_nested_values_are_laid_flat() -> None:
    estimate = {"value": 0.5, "ci_low": 0.25, "ci_high": 0.75, "method": "m", "n": 9}
    value = {
        "a": {"b": estimate, "c": None, "d": 1, "e": 0, "f": True, "g": False, "h": 0.123456},
        "curve": [0.1, 0.2, 0.3, 0.4, 0.5],
        "ends": [0.25, 0.75],
        "empty": [],
        "list": [{"name": "x", "kind": "y", "n": 2}],
    }
    assert flat(value) == [
        ("a, b", "0.500 (95 % CI 0.250 to 0.750)"),
        ("a, c", "none"),
        ("a, d", "1"),
        ("a, e", "0"),
        ("a, f", "yes"),
        ("a, g", "no"),
        ("a, h", "0.1235"),
        ("curve", "5 numbers, in metrics.json"),
        ("ends", "0.25, 0.75"),
        ("empty", "none"),
        ("list: x: y, name", "x"),
        ("list: x: y, kind", "y"),
        ("list: x: y, n", "2"),
    ]


def test_warnings_are_caveats() -> None:
    said = section("Caveats and recommendations")
    assert "- 2 healthy and 3 sick images are few" in said
    live = replace(FACTS, config={"train": {"test_curve": "live"}})
    assert "test loss was in sight" in section("Caveats and recommendations", live)
    assert "test loss was in sight" not in said
    other = replace(live, own=False)
    assert "test loss was in sight" not in section("Caveats and recommendations", other)


@pytest.mark.parametrize("nasty", [NASTY, "```\n</script><script>", "a|b|c", "*to be*"])
def test_hostile_texts_stay_text(nasty: str) -> None:
    facts = replace(
        FACTS,
        content={**poisoned(CONTENT, nasty), "task": "classify"},
        config=poisoned(FACTS.config, nasty),
        audit=poisoned(FACTS.audit, nasty),
        metrics={**poisoned(METRICS, nasty), "coverage": {nasty: [nasty, {nasty: nasty}]}},
        listing=replace(LISTING, reasons=("",) * 9 + (nasty,), columns={nasty: (nasty, "x") * 5}),
        model_name=nasty,
    )
    text = model_card(facts)
    outside = re.sub(r"```text\n.*?\n```\n", "", text, flags=re.DOTALL)
    assert "<" not in re.sub(r"<!-- as written by [^>]*-->", "", outside)
    assert text.count("```") == 2
    assert re.findall(r"^## (.*)$", text, re.M) == SECTIONS
    assert not re.search(r"(?<!\\)\[a(?<!\\)\]\(", outside)


def test_a_card_tells_whether_it_was_edited() -> None:
    text = model_card(FACTS)
    assert is_untouched(text)
    assert not is_untouched(text.replace(TO_FILL_IN, "Dr Who", 1))
