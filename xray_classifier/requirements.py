"""`--require auroc>=0.90`: conditions that a result must meet, for a build that should fail."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xray_classifier.errors import UsageError
from xray_classifier.estimates import CLASSIFICATION_METRICS, REGRESSION_METRICS, Estimate

_FORM = re.compile(r"\s*([a-z0-9_]+)(@lower95|@upper95)?\s*(>=|<=)\s*(-?[0-9.]+(?:e-?[0-9]+)?)\s*")
ENDS = {"": "value", "@lower95": "ci_low", "@upper95": "ci_high"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a metric.

    Attributes:
        metric: Its name in metrics.json.
        end: `` for the value, @lower95 or @upper95 for an end of its interval.
        sign: >= or <=.
        bound: What to reach.
    """

    metric: str
    end: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.end}{self.sign}{self.bound:g}"

    def failure(self, estimates: Mapping[str, Estimate]) -> str | None:
        """What was found instead, in words; None where the condition holds. NaN never does."""
        if self.metric not in estimates:
            return f"{self}: this task has no {self.metric}"
        found: float = getattr(estimates[self.metric], ENDS[self.end])
        if math.isnan(found):
            return f"{self}: undefined"
        holds = found >= self.bound if self.sign == ">=" else found <= self.bound
        return None if holds else f"{self}: found {found:.4f}"


def parse_requirements(texts: Iterable[str]) -> tuple[Requirement, ...]:
    """Read conditions such as `auroc>=0.90`, `brier<=0.1`, `sensitivity@lower95>=0.9`.

    Raises:
        UsageError: A text is no condition, or names no metric.
    """
    return tuple(_requirement(text) for text in texts)


def unmet(
    requirements: Iterable[Requirement], estimates: Mapping[str, Estimate]
) -> tuple[str, ...]:
    """The conditions that do not hold, in words."""
    failures = (requirement.failure(estimates) for requirement in requirements)
    return tuple(failure for failure in failures if failure is not None)


def _requirement(text: str) -> Requirement:
    match = _FORM.fullmatch(text)
    known = (*CLASSIFICATION_METRICS, *REGRESSION_METRICS)
    if match is None:
        raise UsageError(
            f"--require {text!r}: expected a metric, >= or <=, and a number, such as auroc>=0.90 "
            "or sensitivity@lower95>=0.9 for the lower end of the interval; quote it in a shell"
        )
    if match[1] not in known:
        raise UsageError(
            f"--require {text!r}: no metric {match[1]!r}; there are {', '.join(known)}"
        )
    try:
        bound = float(match[4])
    except ValueError as error:
        raise UsageError(f"--require {text!r}: {match[4]!r} is no number") from error
    return Requirement(match[1], match[2] or "", match[3], bound)
