"""How a threshold is chosen, in the words of `evaluate.threshold` and `--threshold`."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from xray_classifier.errors import UsageError

PolicyKind = Literal["fixed", "sens", "spec", "cost", "youden"]

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_KINDS: dict[str | None, PolicyKind] = {
    None: "fixed",
    "sens": "sens",
    "spec": "spec",
    "cost": "cost",
}
_LONG = {"sensitivity": "sens", "specificity": "spec", " >= ": "=", ">=": "="}
_POLICY = re.compile(rf"(?:(sens|spec|cost)=)?({_NUMBER})(@lower95)?|youden")


@dataclass(frozen=True, slots=True)
class ThresholdPolicy:
    """How a threshold is chosen; `str(policy)` gives the text that `parse_threshold` reads."""

    kind: PolicyKind
    target: float | None
    """The threshold (fixed), the least sensitivity (sens) or specificity (spec), how many false
    alarms one missed sick image is worth (cost); else None."""
    cautious: bool = False
    """Whether the lower end of the 95 % interval must reach the target, not the share itself."""

    def __str__(self) -> str:
        if self.kind == "youden":
            return "youden"
        if self.kind == "fixed":
            return f"{self.target!r}"
        return f"{self.kind}={self.target!r}{'@lower95' if self.cautious else ''}"


def parse_threshold(text: str | float) -> ThresholdPolicy:
    """Read a threshold policy.

    Args:
        text: `0.42` or any number in [0, 1]; `sens=0.95` (or `sensitivity >= 0.95`), `spec=0.90`,
            either with `@lower95` behind for the lower end of its 95 % interval; `cost=10`;
            `youden`. `auto` is the caller's to resolve.

    Raises:
        UsageError: Anything else; the message lists what is accepted.
    """
    spelled = text.strip() if isinstance(text, str) else str(text)
    for long, short in _LONG.items():
        spelled = spelled.replace(long, short)
    match = _POLICY.fullmatch(spelled)
    if match is None:
        raise _not_a_policy(text)
    if spelled == "youden":
        return ThresholdPolicy("youden", None)
    kind, target, cautious = _KINDS[match[1]], float(match[2]), match[3] is not None
    in_range = 0 < target < math.inf if kind == "cost" else target <= 1
    if not in_range or (cautious and kind not in ("sens", "spec")):
        raise _not_a_policy(text)
    return ThresholdPolicy(kind, target, cautious)


def _not_a_policy(text: object) -> UsageError:
    return UsageError(
        f"{text!r} is no threshold; expected a probability from 0 to 1 (0.42), "
        "the least sensitivity (sens=0.95), the least specificity (spec=0.90), either with "
        "@lower95 for the lower end of its interval, how many false alarms a missed sick image is "
        "worth (cost=10), or youden"
    )


def policy_in_words(policy: str, chosen_on: str = "validation") -> str:
    """What a policy means, to follow "at threshold 0.37, ".

    Args:
        policy: As `str(ThresholdPolicy)` writes it, or `fixed`.
        chosen_on: Which images it was solved on.
    """
    if policy == "fixed":
        return "a fixed number"
    try:
        found = parse_threshold(policy)
    except UsageError:
        return f"chosen as {policy}"
    return f"chosen on {chosen_on} for {_aim(found)}"


def _aim(policy: ThresholdPolicy) -> str:
    if policy.kind == "youden" or policy.target is None:
        return "the largest sensitivity + specificity"
    if policy.kind == "cost":
        return f"the least cost, a missed sick image counting as {policy.target:g} false alarms"
    name = {"sens": "sensitivity", "spec": "specificity"}.get(policy.kind, policy.kind)
    if policy.cautious:
        return f"a {name} whose 95 % interval lies above {policy.target:g}"
    return f"{policy.target:g} {name}"
