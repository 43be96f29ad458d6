"""Cross-validation: train and validation images shared out into folds, whole patients only.

Each fold in turn validates one model while the others train it. As in `splits`, a patient's place
comes from a hash of the seed and the patient key, not from the order of rows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from xray_classifier.errors import DataError

POOL = ("train", "val")
"""Splits whose images are shared out; test stays what it is."""


@dataclass(frozen=True)
class _Group:
    """Images that must stand in one fold; `counts` per stratum, shape (n_strata,)."""

    key: str
    counts: tuple[int, ...]

    @property
    def mixed(self) -> bool:
        """Whether the images are of more than one stratum."""
        return sum(count > 0 for count in self.counts) > 1


def fold_splits(
    groups: Sequence[str],
    strata: Sequence[str],
    splits: Sequence[str],
    *,
    fold: int,
    folds: int,
    seed: int,
    every_stratum: bool = True,
) -> tuple[str, ...]:
    """The splits of one round of cross-validation: one fold validates, the others train.

    Args:
        groups: What must never be torn apart, per image, as `joined_groups` gives; length n_images.
        strata: What to balance, per image: class names, or bins of a number.
        splits: train, val, test or `` per image; the first two are pooled, the rest stays.
        fold: Which fold validates, 1 to `folds`.
        folds: Number of folds, 2 or more.
        seed: Which of the many possible foldings.
        every_stratum: Refuse folds that lack a stratum.

    Returns:
        A split per image, in the order given.

    Raises:
        DataError: There are too few groups for so many folds.
        ValueError: There is no such fold.
    """
    if not 1 <= fold <= folds:
        raise ValueError(f"fold {fold} of {folds}")
    rows = [row for row, split in enumerate(splits) if split in POOL]
    places = fold_numbers(
        [groups[row] for row in rows],
        [strata[row] for row in rows],
        folds=folds,
        seed=seed,
        every_stratum=every_stratum,
    )
    placed = list(splits)
    for row, number in zip(rows, places, strict=True):
        placed[row] = "val" if number == fold else "train"
    return tuple(placed)


def fold_numbers(
    groups: Sequence[str],
    strata: Sequence[str],
    *,
    folds: int,
    seed: int,
    every_stratum: bool = True,
) -> tuple[int, ...]:
    """Share images out into folds of about equal size and class balance.

    Groups of several strata come first, then those of the rarest stratum, large ones before small
    ones, in the order of their hash; each goes to the fold that it brings closest (in squares) to
    an equal share of each stratum. Where every group has one stratum, two folds differ in each
    stratum by no more than its largest group.

    Args:
        groups: Group key per image, length n_images.
        strata: Stratum per image.
        folds: Number of folds, 2 or more.
        seed: Which of the many possible foldings.
        every_stratum: Refuse folds that lack a stratum.

    Returns:
        1 to `folds` per image; the order of the images does not matter.

    Raises:
        DataError: There are too few groups for so many folds.
    """
    names = sorted(set(strata))
    members = _counted(groups, strata, names)
    holders = [sum(group.counts[s] > 0 for group in members) for s in range(len(names))]
    _refuse_too_few(members, names, holders, folds, every_stratum)
    rarest = sorted(range(len(names)), key=lambda s: (holders[s], s))
    ordered = sorted(members, key=lambda group: _turn(group, rarest, seed))
    sharing = _Sharing(folds, [sum(g.counts[s] for g in members) for s in range(len(names))])
    home = {group.key: sharing.place(group) for group in ordered}
    if every_stratum and not all(count for have in sharing.have for count in have):
        raise DataError(
            f"cannot share the images out into {folds} folds that each hold "
            f"{' and '.join(names)}; lower train.folds"
        )
    return tuple(home[group] + 1 for group in groups)


class _Sharing:
    """Folds as they fill.

    Args:
        folds: How many.
        totals: Images per stratum in all, shape (n_strata,); a rare stratum weighs as much as any.
    """

    def __init__(self, folds: int, totals: Sequence[int]) -> None:
        self.goal = [total / folds for total in totals]
        self.weights = [1 / total for total in totals]
        self.have = [[0] * len(totals) for _ in range(folds)]

    def place(self, group: _Group) -> int:
        """Put a group into the fold that needs it most; returns that fold, from 0."""
        best = max(range(len(self.have)), key=lambda fold: self._need(fold, group))
        self.have[best] = [a + b for a, b in zip(self.have[best], group.counts, strict=True)]
        return best

    def _need(self, fold: int, group: _Group) -> tuple[float, int, int]:
        """How much a group balances a fold, then how small that is; the first fold of ties."""
        have = self.have[fold]
        parts = zip(self.weights, group.counts, self.goal, have, strict=True)
        gain = sum(w * n * (2 * (goal - h) - n) for w, n, goal, h in parts)
        return gain, -sum(have), -fold


def _counted(groups: Sequence[str], strata: Sequence[str], names: Sequence[str]) -> list[_Group]:
    """The groups with their images per stratum."""
    column = {name: place for place, name in enumerate(names)}
    counts: dict[str, list[int]] = {}
    for group, stratum in zip(groups, strata, strict=True):
        counts.setdefault(group, [0] * len(names))[column[stratum]] += 1
    return [_Group(key, tuple(row)) for key, row in counts.items()]


def _refuse_too_few(
    members: Sequence[_Group],
    names: Sequence[str],
    holders: Sequence[int],
    folds: int,
    every_stratum: bool,
) -> None:
    """Each fold needs a group, of each stratum where that is asked; say so at the start."""
    counted = dict(zip(names, holders, strict=True)) if every_stratum else {}
    counted = counted or {"the training data": len(members)}
    for name, count in counted.items():
        if count < folds:
            raise DataError(
                f"train.folds is {folds}, but {name} has only {count} patients outside the test "
                "split (copies of a picture count as one), and each fold needs one; lower "
                "train.folds or bring more patients"
            )


def _turn(group: _Group, rarest: Sequence[int], seed: int) -> tuple[bool, int, int, bytes, str]:
    """When a group is placed; sizes count in powers of two, so that the seed still decides."""
    rank = next(place for place, s in enumerate(rarest) if group.counts[s])
    size = sum(group.counts).bit_length()
    text = f"{seed}\nfold\n{group.key}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return not group.mixed, rank, -size, digest, group.key
