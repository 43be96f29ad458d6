"""Table 1 of a paper, and the way of the images from the folder to the analysis: pure counts.

Source: STARD 2015, items 19 and 20 (flow diagram, characteristics), doi:10.1136/bmj.h5527.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.manifest import Manifest
from xray_classifier.data.splits import SPLITS
from xray_classifier.errors import DataError
from xray_classifier.files import FORMULA_STARTS, printable
from xray_classifier.subgroups import finite_number

LEAK = "leak"
"""The reason of an image that was left out because an earlier split holds its patient or copy."""
MOST_LEVELS = 20
"""A column of more distinct texts is no group but a name, and is not spread out."""
FEWEST_NUMBERS = 7
"""A column of fewer distinct numbers is taken for codes of groups."""
NOT_STATED = frozenset({"", "na", "n/a", "nan", "null", "none"})
HEAD = ("path", "label", "patient", "split", "reason")
"""The columns of data/manifest.csv that are no covariates."""


@dataclass(frozen=True, eq=False)
class Listing:
    """What Table 1 and the flow need of each image; all columns have length n_images.

    Attributes:
        targets: Shape (n_images,): 1.0 sick, 0.0 healthy, or the number to predict.
        patients: Patient per image.
        patients_known: Whether the data name patients.
        splits: train, val, test or `` per image.
        reasons: Why an image takes no part; `` where it does.
        columns: Covariates, one text per image.
        task: classify or regress.
        ids: Name of each image.
    """

    targets: NDArray[np.float64]
    patients: tuple[str, ...]
    patients_known: bool
    splits: tuple[str, ...]
    reasons: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    task: str = "classify"
    ids: tuple[str, ...] = ()

    def members(self, split: str | None) -> NDArray[np.int64]:
        """Rows of a split (None: of any) that take part, ascending, shape (n,)."""
        takes_part = [
            not reason and (name == split if split is not None else bool(name))
            for name, reason in zip(self.splits, self.reasons, strict=True)
        ]
        return np.flatnonzero(takes_part)


class Step(NamedTuple):
    """One station of the images on their way; `depth` tells what it is a part of."""

    name: str
    images: int
    depth: int


def listing_of(manifest: Manifest, reasons: Sequence[str], task: str) -> Listing:
    """The listing of images at hand.

    Args:
        manifest: With splits.
        reasons: Why an image takes no part, length n_images; `` where it does.
        task: classify or regress.
    """
    return Listing(
        targets=manifest.targets,
        patients=manifest.patients,
        patients_known=manifest.patients_known,
        splits=manifest.splits,
        reasons=tuple(reasons),
        columns=manifest.columns,
        task=task,
        ids=manifest.ids,
    )


def read_listing(text: str, sick: Sequence[str], task: str) -> Listing:
    """The listing in the text of data/manifest.csv.

    Args:
        text: The file.
        sick: Class names that mean sick.
        task: classify or regress.

    Raises:
        DataError: It is no such file.
    """
    try:
        first, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        header = [unquoted(name) for name in first]
        if tuple(header[: len(HEAD)]) != HEAD or any(len(row) != len(header) for row in rows):
            raise DataError("data/manifest.csv does not have the columns that a run writes")
        columns = [tuple(unquoted(row[i]) for row in rows) for i in range(len(header))]
        ids, labels, patients, splits, reasons = columns[: len(HEAD)]
        numbers = [float(x in sick) if task == "classify" else float(x) for x in labels]
    except (csv.Error, ValueError) as error:
        raise DataError(f"data/manifest.csv cannot be read: {error}") from error
    return Listing(
        targets=np.array(numbers, dtype=np.float64),
        patients=patients,
        patients_known=patients != ids,
        splits=splits,
        reasons=reasons,
        columns=dict(zip(header[len(HEAD) :], columns[len(HEAD) :], strict=True)),
        task=task,
        ids=ids,
    )


def unquoted(cell: str) -> str:
    """A cell without the quote that keeps spreadsheets from executing it."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS) else cell


def table_one(
    listing: Listing, splits: Sequence[str] = SPLITS
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Counts, patients, sick and covariates by split, over the images that take part.

    Args:
        listing: The images.
        splits: Columns, in order; those without an image are left out. The last column is all.

    Returns:
        Header, and rows of the same length; covariates are counted per image.
    """
    groups = {split: listing.members(split) for split in splits}
    groups = {split: rows for split, rows in groups.items() if len(rows)}
    groups["all"] = listing.members(None)
    rows = list(groups.values())
    lines = [("images", *(f"{len(r):,}" for r in rows)), _patients_line(listing, rows)]
    if listing.task == "classify":
        lines += _sick_lines(listing, rows)
    else:
        texts = [f"{value!r}" for value in listing.targets.tolist()]
        lines.append(_number_line("target", texts, rows))
    for name, column in listing.columns.items():
        lines += _covariate_lines(name, column, rows)
    return ("", *groups), tuple(lines)


def _patients_line(listing: Listing, groups: Sequence[NDArray[np.int64]]) -> tuple[str, ...]:
    if not listing.patients_known:
        return ("patients", *("not known" for _ in groups))
    return ("patients", *(f"{len({listing.patients[r] for r in rows}):,}" for rows in groups))


def _sick_lines(listing: Listing, groups: Sequence[NDArray[np.int64]]) -> list[tuple[str, ...]]:
    """Sick images, and patients with one where patients are known."""
    sick = listing.targets == 1
    lines = [("sick images", *(_share(int(sick[rows].sum()), len(rows)) for rows in groups))]
    if listing.patients_known:
        shares = []
        for rows in groups:
            everyone = {listing.patients[row] for row in rows}
            ill = {listing.patients[row] for row in rows if sick[row]}
            shares.append(_share(len(ill), len(everyone)))
        lines.append(("patients with a sick image", *shares))
    return lines


def _covariate_lines(
    name: str, column: Sequence[str], groups: Sequence[NDArray[np.int64]]
) -> list[tuple[str, ...]]:
    """One line for numbers or names, one per group for anything else; then what is not stated."""
    used = [column[row] for row in groups[-1]]
    stated = Counter(text for text in used if text.strip().casefold() not in NOT_STATED)
    missing = len(used) - stated.total()
    if not stated:
        lines: list[tuple[str, ...]] = []
    elif len(stated) >= FEWEST_NUMBERS and all(finite_number(text) is not None for text in stated):
        lines = [_number_line(name, column, groups)]
    elif len(stated) > MOST_LEVELS:
        lines = [(f"{name}: distinct values", *(f"{len(_stated(column, r)):,}" for r in groups))]
    else:
        levels = sorted(stated, key=lambda text: (finite_number(text) or 0.0, text))
        lines = [(f"{name}: {level}", *_shares(column, groups, level.__eq__)) for level in levels]
    if missing:
        shares = _shares(column, groups, lambda text: text.strip().casefold() in NOT_STATED)
        lines.append((f"{name}: not stated", *shares))
    return lines


def _shares(
    column: Sequence[str], groups: Sequence[NDArray[np.int64]], fits: Callable[[str], bool]
) -> list[str]:
    return [_share(sum(fits(column[row]) for row in rows), len(rows)) for rows in groups]


def _stated(column: Sequence[str], rows: NDArray[np.int64]) -> set[str]:
    texts = {column[row] for row in rows}
    return {text for text in texts if text.strip().casefold() not in NOT_STATED}


def _number_line(
    name: str, column: Sequence[str], groups: Sequence[NDArray[np.int64]]
) -> tuple[str, ...]:
    cells = []
    for rows in groups:
        numbers = [x for row in rows if (x := finite_number(column[row])) is not None]
        if not numbers:
            cells.append("not stated")
            continue
        low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75))
        cells.append(f"{middle:.4g} ({low:.4g} to {high:.4g})")
    return (f"{name}: median (quartiles)", *cells)


def _share(part: int, whole: int) -> str:
    return f"{part:,}" if not whole else f"{part:,} ({part / whole:.1%})"


def flow_counts(
    listing: Listing,
    judged: str | None = None,
    n_scored: int | None = None,
    n_referred: int | None = None,
) -> tuple[Step, ...]:
    """The way of a run's images: found, left out and why, split, scored, referred.

    Args:
        listing: The images of the run.
        judged: Split of the evaluation; None: there is none of these images.
        n_scored: Images with an answer, of that split.
        n_referred: Answers that said neither sick nor healthy; None: the model always says one.
    """
    steps = [Step("images found", len(listing.splits), 0)]
    reasons = Counter(reason for reason in listing.reasons if reason)
    unreadable = {reason: count for reason, count in reasons.items() if reason != LEAK}
    if unreadable:
        steps.append(Step("left out: unreadable", sum(unreadable.values()), 1))
        steps += [Step(reason, n, 2) for reason, n in sorted(unreadable.items())]
    if reasons[LEAK]:
        steps.append(Step("left out: patient or copy in an earlier split", reasons[LEAK], 1))
    for split in (*SPLITS, ""):
        steps += _split_steps(listing, split, judged, n_scored, n_referred)
    return tuple(steps)


def _split_steps(
    listing: Listing,
    split: str,
    judged: str | None,
    n_scored: int | None,
    n_referred: int | None,
) -> list[Step]:
    """The images of one split that take part, and what became of those that were judged."""
    if not split:
        pairs = zip(listing.splits, listing.reasons, strict=True)
        unused = sum(not name and not reason for name, reason in pairs)
        return [Step("in no split", unused, 1)] if unused else []
    n = len(listing.members(split))
    if not n:
        return []
    steps = [Step(f"{split} split", n, 1)]
    if split == judged and n_scored is not None:
        steps.append(Step("scored", n_scored, 2))
        if n_referred is not None:
            steps += [
                Step("answered sick or healthy", n_scored - n_referred, 3),
                Step("referred to a person", n_referred, 3),
            ]
    return steps


def flow_text(steps: Sequence[Step]) -> str:
    """The flow as an indented list of plain text, for a fixed-width block."""
    wide = max(len(f"{step.images:,}") for step in steps)
    lines = []
    for step in steps:
        branch = f"{'   ' * (step.depth - 1)}└─ " if step.depth else ""
        lines.append(f"{step.images:>{wide},}  {branch}{printable(step.name)}")
    return "\n".join(lines)
