"""Who the errors fall on: the metrics by view, site, sex, age band, or any other column.

A model that is right on average may miss the sick of one group far more often than those of
another: its under-diagnosis rate says so.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import UsageError
from xray_classifier.estimates import MIN_PATIENTS, Estimate, summary_metrics
from xray_classifier.files import printable
from xray_classifier.metrics import Labels, Scores

MOST_GROUPS = 12
"""A column of more distinct texts is no group but a name."""
MOST_COLUMNS = 12
"""So many columns are taken where none is named."""
NOT_STATED = "(not stated)"
AGE_EDGES = (18, 40, 60, 80)
"""Years at which a new band begins."""
_AGE = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*(?:y|years?)?", re.IGNORECASE)
_DICOM_AGE = re.compile(r"(\d{3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@dataclass(frozen=True)
class Subgroup:
    """One group of images and what the model is worth on it.

    Attributes:
        column: Of the manifest.
        value: What the column says, or a band of numbers.
        n: Images.
        n_sick: Sick images among them.
        n_patients: Patients, or images where patients are not known.
        metrics: `SUMMARY_METRICS`; without intervals where there are too few patients.
        warning: Why little can be said; `` where enough can.
    """

    column: str
    value: str
    n: int
    n_sick: int
    n_patients: int
    metrics: Mapping[str, Estimate]
    warning: str

    def to_dict(self) -> dict[str, Any]:
        """One entry of `subgroups` in metrics.json."""
        metrics = {name: asdict(estimate) for name, estimate in self.metrics.items()}
        counts = {"n": self.n, "n_sick": self.n_sick, "n_patients": self.n_patients}
        named = {"column": self.column, "value": self.value}
        return {**named, **counts, "metrics": metrics, "warning": self.warning or None}


def subgroups(
    columns: Mapping[str, Sequence[str]],
    asked: Sequence[str] | None,
    labels: Labels,
    logits: Scores,
    probabilities: Scores,
    threshold: float,
    groups: NDArray[Any],
    seed: int = 0,
) -> tuple[Subgroup, ...]:
    """The metrics of every group of every column.

    Args:
        columns: Columns of the manifest for the images judged, n_images texts each.
        asked: Which of them; None takes those that part the images into a few groups.
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        logits: Raw outputs, shape (n_images,).
        probabilities: Calibrated P(sick), shape (n_images,).
        threshold: Called sick where the probability reaches it.
        groups: Patient of each image, shape (n_images,).
        seed: Of the bootstrap.

    Returns:
        Column by column, values in order.

    Raises:
        UsageError: A column that was asked for does not exist, or has too many values.
    """
    found = []
    for column, values in chosen_columns(columns, asked).items():
        names = np.array(values, dtype=object)
        for value in _in_order(values):
            inside = names == value
            n_sick = int(np.asarray(labels)[inside].sum())
            n_patients = len(set(groups[inside].tolist()))
            metrics = summary_metrics(
                np.asarray(labels)[inside],
                np.asarray(logits)[inside],
                np.asarray(probabilities)[inside],
                threshold,
                groups[inside],
                seed,
            )
            n = int(inside.sum())
            truth, who = np.asarray(labels)[inside], groups[inside]
            per_class = [len(set(who[truth == label].tolist())) for label in (1, 0)]
            warning = _warning(*per_class)
            found.append(Subgroup(column, value, n, n_sick, n_patients, metrics, warning))
    return tuple(found)


def chosen_columns(
    columns: Mapping[str, Sequence[str]], asked: Sequence[str] | None
) -> dict[str, tuple[str, ...]]:
    """The columns to go by, each with the name of its group for every image.

    Args:
        columns: n_images texts each.
        asked: Names of columns; None takes up to `MOST_COLUMNS` with 2 to `MOST_GROUPS` groups.

    Raises:
        UsageError: A column that was asked for does not exist, or has too many values.
    """
    if asked is None:
        banded = {
            name: group_names(name, cells)
            for name, cells in columns.items()
            if len(set(cells)) <= MOST_GROUPS or _is_age(name)
        }
        few = {name: v for name, v in banded.items() if 2 <= len(set(v)) <= MOST_GROUPS}
        return dict(list(few.items())[:MOST_COLUMNS])
    found = {}
    for name in asked:
        if name not in columns:
            there = ", ".join(map(printable, columns)) or "none beside those of path and label"
            raise UsageError(
                f"no column {printable(name)} to form subgroups by; there are: {there}"
            )
        found[name] = group_names(name, columns[name])
        n_groups = len(set(found[name]))
        if n_groups > MOST_GROUPS:
            raise UsageError(
                f"column {printable(name)} has {n_groups} values, and {MOST_GROUPS} subgroups are "
                "the most that can be told apart; put a column of wider groups into the CSV"
            )
    return found


def group_names(column: str, cells: Sequence[str]) -> tuple[str, ...]:
    """The group of each image: the text itself, a band of ages, or a quarter of other numbers.

    Args:
        column: Its name; one with the word age, such as PatientAge, is taken for years, or
            DICOM's 045Y.
        cells: One text per image; a blank one is a group of its own.
    """
    texts = [cell.strip() for cell in cells]
    stated = {text for text in texts if text}
    if _is_age(column) and len(stated) > 1:
        ages = {text: _age(text) for text in stated}
        if all(age is not None for age in ages.values()):
            bands = {text: _age_band(age) for text, age in ages.items() if age is not None}
            return tuple(bands.get(text, NOT_STATED) for text in texts)
    if len(stated) > MOST_GROUPS:
        numbers = {text: finite_number(text) for text in stated}
        if all(number is not None for number in numbers.values()):
            return _quarters([numbers.get(text) for text in texts])
    return tuple(text or NOT_STATED for text in texts)


def _is_age(column: str) -> bool:
    """Whether a column's name holds the word age, as PatientAge and age_years do."""
    return "age" in {word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", column)}


def _age(text: str) -> float | None:
    """Years, or None for what is no age."""
    dicom = _DICOM_AGE.fullmatch(text.upper())
    if dicom is not None:
        return float(dicom[1]) * _YEARS[dicom[2]]
    plain = _AGE.fullmatch(text)
    return None if plain is None else float(plain[1])


def _age_band(age: float) -> str:
    place = int(np.searchsorted(AGE_EDGES, age, side="right"))
    if place == 0:
        return f"under {AGE_EDGES[0]} years"
    if place == len(AGE_EDGES):
        return f"{AGE_EDGES[-1]} years and over"
    return f"{AGE_EDGES[place - 1]} to {AGE_EDGES[place] - 1} years"


def _quarters(numbers: Sequence[float | None]) -> tuple[str, ...]:
    """Which quarter of the stated numbers each lies in, told by its ends."""
    stated = np.array([x for x in numbers if x is not None])
    edges = np.unique(np.quantile(stated, [0, 0.25, 0.5, 0.75, 1]))
    names = [f"{_plain(low)} to {_plain(high)}" for low, high in pairwise(edges)]
    inner = edges[1:-1]
    return tuple(
        NOT_STATED if x is None else names[int(np.searchsorted(inner, x, side="left"))]
        for x in numbers
    )


def _plain(value: float) -> str:
    """A number of any size with up to three digits behind the point."""
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def finite_number(text: str) -> float | None:
    """The number that a text spells, or None for any other text, infinity and NaN."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _in_order(values: Sequence[str]) -> list[str]:
    """Distinct names: numbers and bands by size, texts by name, the blank last."""

    def key(name: str) -> tuple[bool, float, str]:
        number = re.match(r"-?\d+(\.\d+)?(e[-+]?\d+)?", name)
        low = float("-inf") if name.startswith("under ") else float("inf")
        return name == NOT_STATED, float(number[0]) if number else low, name

    return sorted(Counter(values), key=key)


def _warning(n_sick: int, n_healthy: int) -> str:
    """What little so many sick and healthy patients can say."""
    if not n_sick or not n_healthy:
        return "one class only: no AUROC"
    if min(n_sick, n_healthy) < MIN_PATIENTS:
        return f"too few to say: {n_sick} sick and {n_healthy} healthy patients"
    if min(n_sick, n_healthy) < 30:
        return "few: mind the intervals"
    return ""
