"""Which images train, validate and test: whole patients only, classes in proportion, seeded.

A patient's place comes from a hash of the seed and the patient key, not from the order of rows or a
random generator: the same patients land in the same split on every machine, and adding images moves
few of them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import DataError

SPLITS = ("train", "val", "calibrate", "test")
UNASSIGNED = ""
ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "calibrate": "calibrate",
    "calibration": "calibrate",
    "test": "test",
    "testing": "test",
}
CLASS_NAMES = ("healthy", "sick")


@dataclass(frozen=True)
class SplitCount:
    """What one split holds; `healthy` and `sick` are None where the task is to predict a number."""

    images: int
    patients: int
    healthy: int | None
    sick: int | None


@dataclass(frozen=True)
class _Group:
    """One patient who may be moved.

    `counts` are the images per stratum, shape (n_strata,); `musts` the same counts where each split
    must hold every stratum, else their sum alone, shape (1,): a split must hold some image.
    """

    patient: str
    counts: tuple[int, ...]
    musts: tuple[int, ...]

    @property
    def mixed(self) -> bool:
        """Whether the images are of more than one stratum."""
        return sum(count > 0 for count in self.counts) > 1


def split_name(text: str) -> str | None:
    """The split that a folder or a CSV cell names, whatever its case; one of SPLITS or None."""
    return ALIASES.get(text.strip().casefold())


def strata_of(
    targets: NDArray[np.float64], task: Literal["classify", "regress"], n_bins: int = 5
) -> tuple[str, ...]:
    """What each image should be balanced by: its class, or the quantile bin of its number.

    Args:
        targets: Truth per image, shape (n_images,); 1 is sick, 0 is healthy, or any finite number.
        task: Which of the two `targets` holds.
        n_bins: Bins of about equal size for `regress`; ties may leave some of them out.

    Returns:
        One name per image: `healthy` and `sick`, or `bin 1` (smallest) to `bin n_bins`.
    """
    if task == "classify":
        return tuple(CLASS_NAMES[int(target)] for target in targets)
    edges = np.quantile(targets, np.arange(1, n_bins) / n_bins) if len(targets) else np.empty(0)
    return tuple(f"bin {1 + place}" for place in np.searchsorted(edges, targets, side="left"))


def carve(
    patients: Sequence[str],
    strata: Sequence[str],
    splits: Sequence[str],
    *,
    val: float | None,
    test: float | None,
    calibrate: float | None = None,
    seed: int,
    every_stratum: bool = True,
) -> tuple[str, ...]:
    """Give every image a split; splits that are asked for and missing are carved out of train.

    What is assigned already stays. Images without a split stand with their patient, or in train.
    A split that no image has yet is filled with whole patients of train: first patients of several
    strata, in the order of their hash, each taken if that brings the counts per stratum closer (in
    squares) to the fraction asked for; then patients of one stratum, who even out the rest. Where
    every patient has one stratum, each count ends within half the largest patient of its goal,
    unless there are so few patients that holding every stratum comes first. Patients who stand in
    another split on disk are never taken. The order of the rows does not matter.

    Args:
        patients: Patient key per image, length n_images.
        strata: What to balance, per image: class names, or bins of a number.
        splits: One of SPLITS or `` (not assigned) per image.
        val: Fraction in (0, 1) of the movable images to carve for validation; None: carve none.
        test: The same for test.
        calibrate: The same for calibration; carved last, so that it moves no other split.
        seed: Which of the many possible carvings.
        every_stratum: Refuse to carve a split, or to leave a train split, that lacks a stratum.

    Returns:
        One of SPLITS per image, in the order given.

    Raises:
        DataError: There are too few patients to fill train and the carved splits.
    """
    placed = _stand_with_patient(patients, splits)
    asked = {"test": test, "val": val, "calibrate": calibrate}
    goals = {name: f for name, f in asked.items() if f is not None and name not in set(splits)}
    if not goals:
        return placed
    names = sorted(set(strata))
    groups = _movable(patients, strata, placed, names, every_stratum)
    _refuse_too_few(groups, names, tuple(goals), every_stratum)
    moved: dict[str, str] = {}
    for done, (name, fraction) in enumerate(goals.items()):
        left = [group for group in groups if group.patient not in moved]
        left.sort(key=lambda group: _rank(group.patient, name, seed))
        picker = _Picker(left, _totals(groups), reserve=len(goals) - done)
        picker.approach([g for g in left if g.mixed], _goal(groups, fraction, mixed_only=True))
        goal = _goal(groups, fraction, mixed_only=False)
        picker.approach([g for g in left if not g.mixed], goal)
        picker.fill_empty(goal)
        if not all(picker.held):
            raise DataError(f"cannot carve a {name} split that holds each of {', '.join(names)}")
        moved |= dict.fromkeys(picker.taken, name)
    return tuple(moved.get(key, split) for key, split in zip(patients, placed, strict=True))


def _stand_with_patient(patients: Sequence[str], splits: Sequence[str]) -> tuple[str, ...]:
    """Give images without a split the split that their patient has on disk, else train."""
    home: dict[str, str] = {}
    for split in reversed(SPLITS):
        home |= {p: split for p, s in zip(patients, splits, strict=True) if s == split}
    return tuple(s or home.get(p, "train") for p, s in zip(patients, splits, strict=True))


def _movable(
    patients: Sequence[str],
    strata: Sequence[str],
    placed: Sequence[str],
    names: Sequence[str],
    every_stratum: bool,
) -> list[_Group]:
    """The patients whose images all stand in train."""
    fixed = {p for p, split in zip(patients, placed, strict=True) if split != "train"}
    column = {name: place for place, name in enumerate(names)}
    counts: dict[str, list[int]] = {}
    for patient, stratum in zip(patients, strata, strict=True):
        if patient not in fixed:
            counts.setdefault(patient, [0] * len(names))[column[stratum]] += 1
    return [
        _Group(patient, tuple(row), tuple(row) if every_stratum else (sum(row),))
        for patient, row in counts.items()
    ]


def _refuse_too_few(
    groups: Sequence[_Group], names: Sequence[str], carved: tuple[str, ...], every_stratum: bool
) -> None:
    """Each split needs a patient of each stratum; say so before any is moved."""
    needed = len(carved) + 1
    what = names if every_stratum else ["the training data"]
    for place, name in enumerate(what):
        sizes = [group.musts[place] for group in groups if group.musts[place]]
        if len(sizes) < needed:
            nulls = " and ".join(f"data.split.{split}=null" for split in carved)
            raise DataError(
                f"cannot carve {' and '.join(carved)} out of train: {name} has {len(sizes)} "
                f"patients there ({sum(sizes)} images), and each of {needed} splits needs one. "
                f"Bring more patients, or carve less: {nulls}"
            )


def _rank(patient: str, split: str, seed: int) -> tuple[bytes, str]:
    """Where a patient stands in the queue for a split: a hash, the same on every machine."""
    text = f"{seed}\n{split}\n{patient}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest(), patient


def _totals(groups: Iterable[_Group]) -> list[int]:
    """Images per stratum over the patients given, shape (n_strata,)."""
    return [sum(column) for column in zip(*(group.counts for group in groups), strict=True)]


def _goal(groups: Sequence[_Group], fraction: float, *, mixed_only: bool) -> list[float]:
    """Images wanted per stratum, shape (n_strata,); counting patients of several strata or all."""
    share = [group for group in groups if group.mixed] if mixed_only else groups
    return [fraction * total for total in _totals(share)] or [0.0] * len(groups[0].counts)


class _Picker:
    """Choose whole patients for one split, leaving enough for the splits to come.

    Args:
        groups: Who may be chosen, in the order of their hash.
        totals: Images per stratum in all, shape (n_strata,); a rare stratum weighs as much as any.
        reserve: Patients of each stratum to leave: one for train, one for each split to come.
    """

    def __init__(self, groups: Sequence[_Group], totals: Sequence[int], reserve: int) -> None:
        self.groups = groups
        self.reserve = reserve
        self.weights = [1 / total if total else 0.0 for total in totals]
        self.sums = [0] * len(totals)
        n_musts = len(groups[0].musts)
        self.held = [0] * n_musts
        self.left = [sum(group.musts[m] > 0 for group in groups) for m in range(n_musts)]
        self.taken: dict[str, None] = {}

    def approach(self, groups: Iterable[_Group], goal: Sequence[float]) -> None:
        """Take each patient, in order, who brings the counts closer to `goal`."""
        for group in groups:
            if self._gain(group, goal) > 0:
                self._take_if_spared(group)

    def fill_empty(self, goal: Sequence[float]) -> None:
        """For each stratum that the split lacks, take the patient who strays least from `goal`."""
        for must in range(len(self.held)):
            holders = [group for group in self.groups if group.musts[must]]
            holders.sort(key=lambda group: -self._gain(group, goal))
            for group in holders:
                if self.held[must]:
                    break
                self._take_if_spared(group)

    def _gain(self, group: _Group, goal: Sequence[float]) -> float:
        """How much nearer to the goal this patient brings the counts, in weighted squares."""
        parts = zip(self.weights, group.counts, goal, self.sums, strict=True)
        return sum(w * n * (2 * (wanted - have) - n) for w, n, wanted, have in parts)

    def _take_if_spared(self, group: _Group) -> None:
        musts = list(zip(group.musts, self.left, strict=True))
        if any(n and left <= self.reserve for n, left in musts):
            return
        self.taken[group.patient] = None
        self.sums = [have + n for have, n in zip(self.sums, group.counts, strict=True)]
        self.held = [have + n for have, n in zip(self.held, group.musts, strict=True)]
        self.left = [left - (n > 0) for n, left in musts]


def split_summary(
    splits: Sequence[str],
    targets: NDArray[np.float64],
    patients: Sequence[str],
    task: Literal["classify", "regress"],
) -> dict[str, SplitCount]:
    """Count images, classes and patients of each split, in the order of SPLITS, then unassigned.

    Args:
        splits: Split per image, length n_images.
        targets: Truth per image, shape (n_images,); 1 is sick, 0 is healthy, or any number.
        patients: Patient key per image.
        task: Whether `targets` holds classes.

    Returns:
        One entry per split that holds an image; `` stands for not assigned.
    """
    rows = np.asarray(splits, dtype=object)
    summary = {}
    for name in (*SPLITS, UNASSIGNED):
        inside = np.flatnonzero(rows == name)
        sick = int(np.sum(targets[inside] == 1.0)) if task == "classify" else None
        if inside.size:
            summary[name] = SplitCount(
                images=inside.size,
                patients=len({patients[row] for row in inside.tolist()}),
                healthy=None if sick is None else inside.size - sick,
                sick=sick,
            )
    return summary
