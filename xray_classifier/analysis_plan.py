"""The plan of an analysis, fixed by a digest before its test set is opened, and whether it held.

Source: the reason for a plan is that of STARD 2015, items 12a, 17 and 18: what was prespecified
must be told from what was explored; doi:10.1136/bmj.h5527.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from xray_classifier.requirements import parse_requirements

FORMAT = "xray_classifier plan"
VERSION = 1


def plan_digest(plan: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a plan without its own digest, 64 hexadecimal characters.

    Canonical: keys sorted, no blanks, ASCII, no NaN.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    content = {key: value for key, value in plan.items() if key != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sealed_plan(content: Mapping[str, Any]) -> dict[str, Any]:
    """A plan with its format and its digest.

    Args:
        content: Plain JSON values, see `planning`.
    """
    plan = {"format": FORMAT, "version": VERSION, **content}
    return {**plan, "sha256": plan_digest(plan)}


def plan_deviations(
    plan: Mapping[str, Any],
    *,
    model_sha256: str,
    split: str,
    threshold: float | None,
    policy: str | None,
    requirements: Sequence[str],
    fingerprint: str | None,
) -> list[str]:
    """In what an analysis differs from its plan; nothing where it was kept.

    Args:
        plan: The content of plan.json.
        model_sha256: Digest that the checkpoint judged carries.
        split: Split judged.
        threshold: As used; None where the model predicts a number.
        policy: How it was chosen, as in metrics.json.
        requirements: As given to `--require`.
        fingerprint: `judged_fingerprint` of the images judged; None: not known.

    Returns:
        One sentence per difference, the altered plan first.
    """
    found = []
    if not _is_intact(plan):
        found.append("plan.json was altered after it was written: its SHA-256 does not match")
    pairs = (
        ("another model", _at(plan, "model", "sha256"), model_sha256),
        ("another split", _at(plan, "data", "split"), split),
        ("another threshold", _at(plan, "threshold", "value"), threshold),
        ("another threshold policy", _at(plan, "threshold", "policy"), policy),
    )
    found += [_differs(what, was, now) for what, was, now in pairs if was != now]
    planned = _at(plan, "data", "fingerprint")
    if fingerprint is not None and planned is not None and planned != fingerprint:
        found.append(_differs("other images", planned, fingerprint))
    return [*found, *_other_requirements(plan, requirements)]


def _is_intact(plan: Mapping[str, Any]) -> bool:
    try:
        return plan.get("format") == FORMAT and plan.get("sha256") == plan_digest(plan)
    except (TypeError, ValueError):
        return False


def _differs(what: str, was: object, now: object) -> str:
    return f"{what}: planned {_shown(was)}, found {_shown(now)}"


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) < 64 else f"{text[:12]}..."


def _other_requirements(plan: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    listed = plan.get("requirements")
    planned = [str(text) for text in listed] if isinstance(listed, (list, tuple)) else []
    asked = [str(requirement) for requirement in parse_requirements(given)]
    left = [
        f"planned requirement {text} was not asked for" for text in planned if text not in asked
    ]
    new = [f"requirement {text} was not planned" for text in asked if text not in planned]
    return [*left, *new]


def _at(plan: Mapping[str, Any], section: str, key: str) -> Any:
    values = plan.get(section)
    return values.get(key) if isinstance(values, Mapping) else None
