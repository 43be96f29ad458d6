"""The plan of an analysis: its digest, and every way of not keeping it."""

import copy
import hashlib
import json
from typing import Any

import pytest

from xray_classifier.analysis_plan import plan_deviations, plan_digest, sealed_plan
from xray_classifier.errors import UsageError

MODEL, IMAGES = "a" * 64, "f" * 64
PLAN = sealed_plan(
    {
        "created": "2026-11-25T10:00:00Z",
        "model": {"sha256": MODEL},
        "data": {"split": "test", "fingerprint": IMAGES, "n": 10},
        "threshold": {"value": 0.1 + 0.2, "policy": "sens=0.95", "chosen_on": "val"},
        "requirements": ["auroc>=0.9", "sensitivity@lower95>=0.8"],
        "note": "größer",
    }
)
DONE: dict[str, Any] = {
    "model_sha256": MODEL,
    "split": "test",
    "threshold": 0.1 + 0.2,
    "policy": "sens=0.95",
    "requirements": ["sensitivity@lower95 >= 0.80", "auroc>=0.90"],
    "fingerprint": IMAGES,
}


def test_the_digest_is_over_canonical_json() -> None:
    content = {"b": [1, 0.5, None], "a": {"d": True, "c": "ü"}}
    text = '{"a":{"c":"\\u00fc","d":true},"b":[1,0.5,null]}'
    assert plan_digest(content) == hashlib.sha256(text.encode()).hexdigest()
    assert plan_digest({**content, "sha256": "x"}) == plan_digest(content)


def test_the_digest_survives_a_file() -> None:
    again = json.loads(json.dumps(PLAN, indent=2))
    assert plan_digest(again) == PLAN["sha256"]
    assert plan_deviations(again, **DONE) == []


def test_a_plan_that_was_kept_has_no_deviation() -> None:
    assert plan_deviations(PLAN, **DONE) == []
    assert plan_deviations(PLAN, **{**DONE, "fingerprint": None}) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_sha256": "b" * 64}, "another model: planned aaaaaaaaaaaa..., found bbbbbbbbbbbb"),
        ({"split": "val"}, "another split: planned test, found val"),
        ({"threshold": 0.3}, "another threshold: planned 0.30000000000000004, found 0.3"),
        ({"threshold": None}, "another threshold: planned 0.30000000000000004, found none"),
        ({"policy": "youden"}, "another threshold policy: planned sens=0.95, found youden"),
        ({"fingerprint": "e" * 64}, "other images: planned ffffffffffff..., found eeeeeeeeeeee"),
    ],
)
def test_each_difference_is_one_deviation(changed: dict[str, Any], said: str) -> None:
    (deviation,) = plan_deviations(PLAN, **{**DONE, **changed})
    assert deviation.startswith(said)


def test_requirements_left_out_and_added_are_deviations() -> None:
    found = plan_deviations(PLAN, **{**DONE, "requirements": ["auroc>=0.85"]})
    assert found == [
        "planned requirement auroc>=0.9 was not asked for",
        "planned requirement sensitivity@lower95>=0.8 was not asked for",
        "requirement auroc>=0.85 was not planned",
    ]
    with pytest.raises(UsageError, match="expected a metric"):
        plan_deviations(PLAN, **{**DONE, "requirements": ["good"]})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("created",), "2026-11-24T10:00:00Z"),
        (("data", "n"), 11),
        (("note",), None),
        (("more",), 1),
        (("sha256",), "0" * 64),
        (("format",), "another"),
    ],
)
def test_a_plan_altered_afterwards_is_told(path: tuple[str, ...], value: Any) -> None:
    altered = copy.deepcopy(PLAN)
    inside = altered
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    found = plan_deviations(altered, **DONE)
    assert found == ["plan.json was altered after it was written: its SHA-256 does not match"]


def test_a_forged_digest_does_not_hide_a_lower_bar() -> None:
    """Whoever writes the digest anew still differs from what was done."""
    content = {key: value for key, value in PLAN.items() if key not in ("sha256", "requirements")}
    forged = sealed_plan({**content, "requirements": ["auroc>=0.5"]})
    assert forged["sha256"] != PLAN["sha256"]
    assert "planned requirement auroc>=0.5 was not asked for" in plan_deviations(forged, **DONE)


@pytest.mark.parametrize("plan", [{}, {"model": 3, "data": [], "requirements": 7}, {1: 2, "a": 3}])
def test_what_is_no_plan_is_no_crash(plan: Any) -> None:
    found = plan_deviations(plan, **DONE)
    assert found[0].startswith("plan.json was altered")
    assert len(found) == 7
