"""What a page needs to let its reader try thresholds: counts at each, and how to draw them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xray_classifier.confusion import Confusion
from xray_classifier.intervals import wilson_interval
from xray_classifier.metrics import BoolArray, FloatArray, Labels, Scores, check_labels, decide
from xray_classifier.report.interval_bar import Measured, percent_interval, percent_text
from xray_classifier.report.words import threshold_text

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_THRESHOLDS = 1000
_GRID = np.arange(101) / 100
_STATIC_ROWS = 10
_ROC_SIDE = 200.0


@dataclass(frozen=True)
class ThresholdTool:
    """The outcomes of one split at many thresholds; `probability >= threshold` is called sick.

    Args:
        thresholds: Rising, the stored one among them; from 0 to 1 at least.
        tp: Sick images called sick at each threshold, as many numbers.
        fp: Healthy images called sick at each threshold.
        n_sick: Sick images.
        n_healthy: Healthy images.
        threshold: The stored one.
        policy: How it was chosen, in words, such as "chosen on validation for 0.95 sensitivity".
        split: Name of the split.
        stated_prevalence: Share of the sick where the model is to be used, in (0, 1), or None.
        repeated_patients: Whether a patient has several images: the intervals of the tool, which
            count each image as a patient of its own, are then too narrow.
    """

    thresholds: tuple[float, ...]
    tp: tuple[int, ...]
    fp: tuple[int, ...]
    n_sick: int
    n_healthy: int
    threshold: float
    policy: str
    split: str
    stated_prevalence: float | None = None
    repeated_patients: bool = False

    @property
    def prevalence(self) -> float:
        """Share of the sick among these images; NaN without images."""
        n = self.n_sick + self.n_healthy
        return self.n_sick / n if n else math.nan

    @property
    def stored(self) -> int:
        """Where the stored threshold stands among the thresholds, counted from 0."""
        return self.thresholds.index(self.threshold)

    def counts(self, place: int) -> Confusion:
        """The four outcomes at a threshold, counted from 0."""
        tp, fp = self.tp[place], self.fp[place]
        return Confusion(tp=tp, fp=fp, tn=self.n_healthy - fp, fn=self.n_sick - tp)


def threshold_tool(
    labels: Labels,
    p_sick: Scores,
    threshold: float,
    *,
    policy: str,
    split: str,
    stated_prevalence: float | None = None,
    repeated_patients: bool = False,
    most: int = MOST_THRESHOLDS,
) -> ThresholdTool:
    """Count the outcomes of a split at each threshold that changes them.

    Every hundredth is kept and the stored threshold, and of the probabilities themselves as many,
    evenly by rank, as `most` leaves room for. The counts at what is kept are exact.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        p_sick: Probability of sick, shape (n_images,), in [0, 1].
        threshold: The stored operating point.
        policy: How it was chosen, in words.
        split: Name of the split.
        stated_prevalence: Share of the sick where the model is to be used, in (0, 1), or None.
        repeated_patients: Whether a patient has several images.
        most: Thresholds to keep at most, more than 110.

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.
        ValueError: The threshold is NaN.
    """
    sick, values = check_labels(labels, p_sick)
    decide(values, threshold)  # refuses what is no probability, and a threshold that is NaN
    kept = _kept(values, float(threshold), most)
    return ThresholdTool(
        thresholds=tuple(kept.tolist()),
        tp=_called(values, sick, kept),
        fp=_called(values, ~sick, kept),
        n_sick=int(sick.sum()),
        n_healthy=int((~sick).sum()),
        threshold=float(threshold),
        policy=policy,
        split=split,
        stated_prevalence=stated_prevalence,
        repeated_patients=repeated_patients,
    )


def tool_json(tool: ThresholdTool) -> Markup:
    """What the script of the page reads; no text in it can end the block that it stands in."""
    from markupsafe import Markup

    values = asdict(tool) | {"prevalence": tool.prevalence}
    known = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}
    text = json.dumps(known, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


class StaticRow(NamedTuple):
    """One threshold in the table that needs no script; texts, and whether it is the stored one."""

    cells: tuple[str, ...]
    stored: bool


STATIC_HEADER = (
    "Threshold", "Sensitivity", "95 % interval", "Specificity", "95 % interval", "PPV", "NPV",
    "Missed sick", "False alarms",
)  # fmt: skip


def static_rows(tool: ThresholdTool) -> tuple[StaticRow, ...]:
    """Up to ten thresholds, each as long as `STATIC_HEADER`.

    They are the stored one and those at which a tenth, two tenths, ... of the images are called
    sick.
    """
    called = np.array(tool.tp) + np.array(tool.fp)
    n_images = tool.n_sick + tool.n_healthy
    places = {tool.stored}
    for tenths in range(1, _STATIC_ROWS):
        places.add(int(np.flatnonzero(called >= n_images * tenths / _STATIC_ROWS)[-1]))
    return tuple(_static_row(tool, place) for place in sorted(places))


def roc_path(tool: ThresholdTool) -> str:
    """SVG path data of the ROC curve in a square of 200 units; "" where a class is missing."""
    if not (tool.n_sick and tool.n_healthy):
        return ""
    points = zip(reversed(tool.fp), reversed(tool.tp), strict=True)
    texts = [
        f"{_ROC_SIDE * fp / tool.n_healthy:.2f} {_ROC_SIDE * (1 - tp / tool.n_sick):.2f}"
        for fp, tp in dict.fromkeys(points)
    ]
    return "M" + "L".join(texts)


def _kept(values: FloatArray, threshold: float, most: int) -> FloatArray:
    """The thresholds to keep, rising, shape (n_kept,)."""
    distinct = np.unique(values)
    room = most - len(_GRID) - 1
    if len(distinct) > room:
        places = np.linspace(0, len(distinct) - 1, room)
        distinct = distinct[np.unique(np.rint(places).astype(np.int64))]
    return np.unique(np.concatenate([_GRID, distinct, [threshold]]))


def _called(values: FloatArray, chosen: BoolArray, thresholds: FloatArray) -> tuple[int, ...]:
    """How many of the chosen images reach each threshold."""
    rising = np.sort(values[chosen])
    below = np.searchsorted(rising, thresholds, side="left")
    return tuple((len(rising) - below).tolist())


def _static_row(tool: ThresholdTool, place: int) -> StaticRow:
    c = tool.counts(place)
    sensitivity = Measured(c.sensitivity, *wilson_interval(c.tp, tool.n_sick))
    specificity = Measured(c.specificity, *wilson_interval(c.tn, tool.n_healthy))
    cells = (
        threshold_text(tool.thresholds[place]),
        percent_text(sensitivity.value),
        percent_interval(sensitivity) or "-",
        percent_text(specificity.value),
        percent_interval(specificity) or "-",
        percent_text(c.ppv),
        percent_text(c.npv),
        f"{c.fn:,} of {tool.n_sick:,}",
        f"{c.fp:,} of {tool.n_healthy:,}",
    )
    return StaticRow(cells, place == tool.stored)
