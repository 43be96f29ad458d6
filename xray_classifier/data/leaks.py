"""Leaks between splits: what a model saw in training must not be what it is judged on.

Three kinds: the same patient, the same pixels in whatever container, and a near copy that was
re-encoded, resized or re-windowed. All work on labels per image, so that equal labels mean "the
same": patient keys, groups of equal pixels, connected components of near pairs.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.neighbours import Details, connected, correlated, near_pairs
from xray_classifier.data.signature import Signatures
from xray_classifier.data.splits import SPLITS

SPLIT_ORDER = {name: place for place, name in enumerate(SPLITS)}


@dataclass(frozen=True)
class Copies:
    """Which images show the same picture.

    Attributes:
        exact: (N,) int64; equal for images with equal decoded pixels, in any container.
        near: (N,) int64; equal for images that near copies connect, exact ones included.

    A label is the first row of its group. An image that could not be decoded equals only itself.
    """

    exact: NDArray[np.int64]
    near: NDArray[np.int64]


SAME_NAME_CORRELATION = 0.985
"""Thumbnails of files of one name that correlate so well show one picture, whatever their hashes
say: a film with next to no structure, shrunk and compressed, keeps its looks but not its hash."""
SAME_NAME_MOST = 20
"""A name that more files than this share, such as image.png, says nothing."""


def find_copies(
    signatures: Signatures, usable: NDArray[np.bool_], names: Sequence[str] = ()
) -> Copies:
    """Exact and near copies among images.

    Args:
        signatures: (N,) records of SIGNATURE.
        usable: Which images were decoded, shape (N,).
        names: Path of each image; files of one name are compared by their looks alone. May be
            empty.
    """
    rows = np.flatnonzero(usable)
    known = signatures if usable.all() else signatures[rows]  # a copy of all may not fit
    exact = np.arange(len(signatures), dtype=np.int64)
    near = exact.copy()
    if len(rows):
        whole = np.ascontiguousarray(known["pixels"]).view(np.uint64)[:, 0]
        _, first, group = np.unique(whole, return_index=True, return_inverse=True)
        exact[rows] = rows[first[group]]
        sides = np.minimum(known["rows"], known["columns"])
        details = Details(known["detail"], sides)
        pairs = near_pairs(known["perceptual"], known["thumb"], details=details)
        same = np.stack([first[group], np.arange(len(rows))], axis=1)
        named = _of_one_name(known["thumb"], [names[row] for row in rows.tolist()] if names else ())
        near[rows] = rows[connected(len(rows), np.concatenate([pairs, same, named]))]
    return Copies(exact, near)


def _of_one_name(thumbs: NDArray[np.uint8], names: Sequence[str]) -> NDArray[np.int64]:
    """Pairs of images that look alike and whose files have one name, the ending apart; (n, 2)."""
    stems = [name.rpartition("/")[2].rpartition(".")[0] for name in names]
    pairs = [
        pair
        for stem, rows in _groups(stems)
        if stem and len(rows) <= SAME_NAME_MOST
        for pair in combinations(rows, 2)
    ]
    if not pairs:
        return np.empty((0, 2), np.int64)
    ends = np.array(pairs, dtype=np.int64)
    alike = correlated(thumbs, ends[:, 0], ends[:, 1], SAME_NAME_CORRELATION)
    return np.asarray(ends[alike])


@dataclass(frozen=True)
class Group:
    """Images that must stand in one split.

    Attributes:
        key: The patient they share; `` where they share a picture.
        rows: Their rows, ascending.
    """

    key: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Leaks:
    """Groups of two images or more, the largest first.

    Attributes:
        patients: Patients who stand in more than one split.
        exact: Pictures that stand, pixel by pixel, in more than one split.
        near: Near copies in more than one split, exact copies included.
        exact_inside: Pictures that stand more than once, but in one split only.
        near_inside: Near copies in one split only, groups of exact copies alone left out.
        later: Rows whose patient or picture stands in an earlier split (validation after train,
            test after both), also by way of another patient's copy, ascending.
    """

    patients: tuple[Group, ...]
    exact: tuple[Group, ...]
    near: tuple[Group, ...]
    exact_inside: tuple[Group, ...]
    near_inside: tuple[Group, ...]
    later: tuple[int, ...]

    @property
    def across(self) -> bool:
        """Whether anything stands in more than one split."""
        return bool(self.patients or self.exact or self.near)

    @property
    def near_rows(self) -> tuple[int, ...]:
        """Rows whose near or exact copy stands in another split, ascending."""
        return tuple(sorted(row for group in self.near for row in group.rows))


def find_leaks(patients: Sequence[str], copies: Copies, splits: Sequence[str]) -> Leaks:
    """What stands in more than one split, and what stands more than once in one.

    Args:
        patients: Patient key per image; the image's own id where the patient is unknown.
        copies: Which images show the same picture.
        splits: train, val or test per image; images in none (``) leak nothing.
    """
    exact, near = copies.exact.tolist(), copies.near.tolist()
    same_patient = _groups(patients)
    same_pixels, same_looks = _groups(exact), _groups(near)
    torn_patients = [(key, rows) for key, rows in same_patient if _torn(rows, splits)]
    torn_pixels = [rows for _, rows in same_pixels if _torn(rows, splits)]
    torn_looks = [rows for _, rows in same_looks if _torn(rows, splits)]
    # A chain counts: who shares a picture with a patient of an earlier split is known as well.
    joined = _groups(joined_groups(patients, near))
    later = {row for _, rows in joined if _torn(rows, splits) for row in _later(rows, splits)}
    return Leaks(
        patients=_largest_first([(str(key), rows) for key, rows in torn_patients]),
        exact=_largest_first([("", rows) for rows in torn_pixels]),
        near=_largest_first([("", _placed(rows, splits)) for rows in torn_looks]),
        exact_inside=_largest_first(
            [("", rows) for _, rows in same_pixels if not _torn(rows, splits)]
        ),
        near_inside=_largest_first(
            [
                ("", rows)
                for _, rows in same_looks
                if not _torn(rows, splits) and len({exact[row] for row in rows}) > 1
            ]
        ),
        later=tuple(sorted(later)),
    )


def joined_groups(patients: Sequence[str], pictures: Sequence[Hashable]) -> tuple[str, ...]:
    """Patients joined where they share a picture: what must never be torn apart by a split.

    Args:
        patients: Patient key per image.
        pictures: Equal for images that show the same picture, one per image.

    Returns:
        A group key per image: the smallest patient key of its connected component.
    """
    parent = {patient: patient for patient in patients}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    first_with: dict[Hashable, str] = {}
    for patient, picture in zip(patients, pictures, strict=True):
        one, other = root(patient), root(first_with.setdefault(picture, patient))
        parent[max(one, other)] = min(one, other)
    return tuple(root(patient) for patient in patients)


def mended_splits(
    groups: Sequence[str], splits: Sequence[str], strata: Sequence[str]
) -> tuple[str, ...]:
    """The splits after each group that is torn has moved, whole, to one of its splits.

    The largest groups choose first, and each takes the split that lacks most, class by class, of
    what it held before; so the splits keep their sizes as well as whole groups allow.

    Args:
        groups: Group key per image, as `joined_groups` gives.
        splits: train, val, test or `` per image.
        strata: What to keep in proportion, per image: class names, or bins of a number.

    Returns:
        A split per image. An image without one follows its group if that was torn. Ties go to the
        earlier split in the order train, val, test.
    """
    moved = list(splits)
    torn = [rows for _, rows in _groups(groups) if _torn(rows, splits)]
    lacking: Counter[tuple[str, str]] = Counter()
    for rows in torn:
        lacking.update((splits[row], strata[row]) for row in _placed(rows, splits))
    for rows in sorted(torn, key=lambda rows: (-len(rows), rows)):
        counts = Counter(strata[row] for row in rows)
        homes = sorted({splits[row] for row in _placed(rows, splits)}, key=SPLIT_ORDER.__getitem__)

        def gain(split: str, counts: Counter[str] = counts) -> int:
            return sum(n * (2 * lacking[split, name] - n) for name, n in counts.items())

        home = max(homes, key=gain)
        for row in rows:
            moved[row] = home
            lacking[home, strata[row]] -= 1
    return tuple(moved)


def contradictions(
    labels: Sequence[Hashable], targets: NDArray[np.floating]
) -> tuple[tuple[int, ...], ...]:
    """Groups of images with one label and more than one target, as rows, in order.

    Args:
        labels: Equal for images that show the same picture, one per image.
        targets: Truth per image, shape (n_images,).
    """
    return tuple(
        rows for _, rows in _groups(labels) if len({float(targets[row]) for row in rows}) > 1
    )


def _groups(labels: Sequence[Hashable]) -> list[tuple[Hashable, tuple[int, ...]]]:
    """Labels that more than one image has, with their rows, in order of the first row."""
    members: dict[Hashable, list[int]] = {}
    for row, label in enumerate(labels):
        members.setdefault(label, []).append(row)
    return [(label, tuple(rows)) for label, rows in members.items() if len(rows) > 1]


def _placed(rows: Sequence[int], splits: Sequence[str]) -> tuple[int, ...]:
    return tuple(row for row in rows if splits[row] in SPLIT_ORDER)


def _torn(rows: Sequence[int], splits: Sequence[str]) -> bool:
    return len({splits[row] for row in _placed(rows, splits)}) > 1


def _later(rows: Sequence[int], splits: Sequence[str]) -> list[int]:
    placed = _placed(rows, splits)
    earliest = min(SPLIT_ORDER[splits[row]] for row in placed)
    return [row for row in placed if SPLIT_ORDER[splits[row]] > earliest]


def _largest_first(groups: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[Group, ...]:
    ordered = sorted(groups, key=lambda group: (-len(group[1]), group[1]))
    return tuple(Group(key, rows) for key, rows in ordered)
