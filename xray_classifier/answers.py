"""What a model answers, and how an answer stands in a table of predictions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.splits import CLASS_NAMES

OK = "ok"
REFER = "refer"
"""The third decision: left to a person."""
REJECTED = (
    "multi_image",
    "unsupported_mode",
    "unsupported_syntax",
    "colour_dicom",
    "unsupported_dicom",
    "no_pixels",
    "ambiguous_range",
    "for_processing",
    "blank",
    "out_of_scope",
)
"""Reasons for which a sound file is not taken; any other reason means that it failed."""


@dataclass(frozen=True)
class Scores:
    """Answers for n images, in the order of the images.

    Attributes:
        logits: Raw outputs, shape (n,); for regression the predicted numbers, in their own unit.
        p_raw: Plain sigmoid of the logits, in [0, 1].
        p_sick: Calibrated probability, in [0, 1]; what the threshold reads.
        sick: p_sick >= threshold.
        referred: Inside the refer band, so that no decision is given.
    """

    logits: NDArray[np.float64]
    p_raw: NDArray[np.float64]
    p_sick: NDArray[np.float64]
    sick: NDArray[np.bool_]
    referred: NDArray[np.bool_]

    def decision(self, place: int) -> str:
        """sick, healthy or refer, for one of the images."""
        return REFER if self.referred[place] else CLASS_NAMES[int(self.sick[place])]

    def answer(self, place: int, threshold: float) -> tuple[float, str, float, float, float]:
        """p_sick, decision, threshold, p_raw and logit of one of the images."""
        p_sick, p_raw = float(self.p_sick[place]), float(self.p_raw[place])
        return p_sick, self.decision(place), threshold, p_raw, float(self.logits[place])


def answer_columns(task: str, re_weighted: bool) -> tuple[str, ...]:
    """Columns of a table of predictions.

    Args:
        task: classify or regress.
        re_weighted: Whether a prevalence was stated.
    """
    if task == "regress":
        return ("path", "status", "reason", "prediction", "in_training", "ood_score")
    at_prevalence = ("p_at_prevalence",) if re_weighted else ()
    return (
        "path", "status", "reason", "p_sick", "decision", "threshold", "p_raw", "logit",
        *at_prevalence, "in_training", "ood_score",
    )  # fmt: skip


def failure(reason: str, n_columns: int) -> tuple[Any, ...]:
    """What follows the name of an image that has no answer: status, reason, and nothing else."""
    status = "rejected" if reason in REJECTED else "failed"
    return (status, reason, *([None] * (n_columns - 2)))


def refusal(reason: str, ood_score: float, n_columns: int) -> tuple[Any, ...]:
    """What follows the name of an image that the gate refuses: no answer, but how strange it is."""
    return ("rejected", reason, *([None] * (n_columns - 3)), ood_score)


def at_place(values: NDArray[np.float64] | None, place: int) -> tuple[float, ...]:
    """One of some values, or nothing where there are none."""
    return () if values is None else (float(values[place]),)
