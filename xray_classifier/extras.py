"""What an evaluation was asked for besides its metrics: looks, plan, other thresholds, stress."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xray_classifier.classifier import Classifier
from xray_classifier.confusion import Confusion, confusion
from xray_classifier.errors import CheckpointError
from xray_classifier.looks import NOT_RECORDED, Looks
from xray_classifier.metrics import Labels, Scores
from xray_classifier.operating_points import OperatingCurve, solve
from xray_classifier.policies import parse_threshold
from xray_classifier.robustness import StressTest

USUAL = ("youden", "sens=0.9", "sens=0.95", "sens=0.99", "spec=0.9", "spec=0.95", "0.5")
"""Policies that `--what-if` tries where none is named."""


@dataclass(frozen=True)
class WhatIf:
    """Another policy, solved on validation as the stored one was, tried on this split.

    Attributes:
        policy: As on the command line.
        threshold: What it came to.
        counts: Decisions on this split.
    """

    policy: str
    threshold: float
    counts: Confusion

    def to_dict(self) -> dict[str, Any]:
        """Plain values for metrics.json."""
        c = self.counts
        names = ("sensitivity", "specificity", "ppv", "npv")
        return {
            "policy": self.policy,
            "threshold": self.threshold,
            "missed": c.fn,
            "false_alarms": c.fp,
            **{name: getattr(c, name) for name in names},
        }


@dataclass(frozen=True)
class TestSet:
    """Which images were judged, and how often they were before.

    Attributes:
        fingerprint: Digest of their pixels, whatever their names and order.
        looks: This look included; None where the record cannot be kept.
    """

    __test__ = False  # no test class of pytest

    fingerprint: str
    looks: Looks | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for metrics.json."""
        looks = self.looks
        counts = {} if looks is None else {"looks": looks.looks, "models": looks.models}
        return {"fingerprint": self.fingerprint, "looks": None, "models": None, **counts}


@dataclass(frozen=True)
class PlanCheck:
    """A plan written before the test set was opened, held against what was done.

    Attributes:
        sha256: Digest of the plan.
        deviations: What was done otherwise, in words; empty where the plan was kept.
        covers: Whether it is about these images at all.
    """

    sha256: str
    deviations: tuple[str, ...]
    covers: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain values for metrics.json."""
        return {
            "sha256": self.sha256,
            "covers": self.covers,
            "kept": self.covers and not self.deviations,
            "deviations": list(self.deviations),
        }


@dataclass(frozen=True)
class Extras:
    """What was asked for besides.

    Attributes:
        what_if: Other policies, exploratory.
        stress: The stress test, or None.
        test_set: None for images that the run itself chose by.
        plan: None where none was written.
        requirements: Conditions of `--require`, as texts.
        unmet: Those that do not hold, in words.
    """

    what_if: tuple[WhatIf, ...] = ()
    stress: StressTest | None = None
    test_set: TestSet | None = None
    plan: PlanCheck | None = None
    requirements: tuple[str, ...] = ()
    unmet: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json holds of it; nothing of what was not asked for."""
        parts = {"stress": self.stress, "test_set": self.test_set, "plan": self.plan}
        found: dict[str, Any] = {
            key: part.to_dict() for key, part in parts.items() if part is not None
        }
        if self.what_if:
            found["what_if"] = [one.to_dict() for one in self.what_if]
        if self.requirements:
            found["requirements"] = {"asked": list(self.requirements), "unmet": list(self.unmet)}
        return found

    def in_words(self) -> list[str]:
        """What a reader must know of it, one text each."""
        words = [_what_if_words(one) for one in self.what_if]
        if self.stress is not None:
            words += self.stress.in_words()
        return words + self.contract_words()

    def contract_words(self) -> list[str]:
        """How often these images were looked at, and whether the plan was kept."""
        words: list[str] = []
        if self.test_set is not None:
            looks = self.test_set.looks
            words.append(NOT_RECORDED if looks is None else _looks_words(looks))
        if self.plan is not None:
            words += _plan_words(self.plan)
        return words


NO_EXTRAS = Extras()


def checked_policies(texts: Sequence[str]) -> tuple[str, ...]:
    """The policies of `--what-if`, each once; `usual` stands for `USUAL`.

    Raises:
        UsageError: One of them is no policy.
    """
    asked = [p for text in texts for p in (USUAL if text == "usual" else (text,))]
    for text in asked:
        parse_threshold(text)
    return tuple(dict.fromkeys(asked))


def what_if(
    classifier: Classifier, labels: Labels, probabilities: Scores, policies: Sequence[str]
) -> tuple[WhatIf, ...]:
    """Try other policies; each is solved on the stored validation curve, never on these images.

    Args:
        classifier: The model.
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: Calibrated P(sick), shape (n_images,).
        policies: From `checked_policies`.

    Raises:
        CheckpointError: The checkpoint stores no curve to solve one on.
    """
    stored = classifier.content.get("operating_curve")
    found = []
    for text in policies:
        policy = parse_threshold(text)
        if policy.kind == "fixed" and policy.target is not None:
            threshold = policy.target
        elif stored is None:
            raise CheckpointError(f"no validation curve is stored to solve {text} on")
        else:
            threshold = solve(OperatingCurve.from_dict(stored), policy)
        found.append(WhatIf(text, threshold, confusion(labels, probabilities, threshold)))
    return tuple(found)


def _what_if_words(one: WhatIf) -> str:
    """One line of another threshold."""
    c = one.counts
    shares = f"{c.sensitivity:.0%} sensitivity, {c.specificity:.0%} specificity"
    wrong = f"{c.fn:,} missed, {c.fp:,} false alarm{'s' * (c.fp != 1)}"
    return f"exploratory, {one.policy}: threshold {one.threshold:.3g}, {shares} ({wrong})"


def _looks_words(looks: Looks) -> str:
    """How often the images were looked at, and what that means."""
    if looks.looks == 1:
        return "this is the first look at exactly these images on this account"
    more = ""
    if looks.models > 1:
        more = "; a model that is chosen by what is seen here is flattered by it"
    return f"these images were {looks.in_words()} on this account, this one included{more}"


def _plan_words(plan: PlanCheck) -> list[str]:
    if not plan.covers:
        return ["a plan was written for other images; this judgement is not covered by it"]
    if not plan.deviations:
        return ["the plan that was written before these images were opened was kept"]
    return [f"the plan was NOT kept: {deviation}" for deviation in plan.deviations]
