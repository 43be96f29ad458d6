"""Leaks between splits: what a model saw in training must not be what it is judged on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPLIT_ORDER = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class Leak:
    """Images that stand in two splits at once.

    Attributes:
        kind: `patient` or `picture`.
        groups: Number of patients, or of pictures, that stand in more than one split.
        rows: Rows of the later split (validation after train, test after both), ascending.
    """

    kind: str
    groups: int
    rows: tuple[int, ...]


def picture_hashes(images: NDArray[np.uint8]) -> tuple[str, ...]:
    """A digest of each image's decoded pixels, whatever file format they came in.

    Args:
        images: (N, S, S) uint8, as the model sees them.
    """
    return tuple(hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images)


def joined_groups(patients: Sequence[str], pictures: Sequence[str]) -> tuple[str, ...]:
    """Patients joined where they share a picture: what must never be torn apart by a split.

    Args:
        patients: Patient key per image.
        pictures: Digest of the decoded pixels per image.

    Returns:
        A group key per image: the smallest patient key of its connected component.
    """
    parent = {patient: patient for patient in patients}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    first_with: dict[str, str] = {}
    for patient, picture in zip(patients, pictures, strict=True):
        one, other = root(patient), root(first_with.setdefault(picture, patient))
        parent[max(one, other)] = min(one, other)
    return tuple(root(patient) for patient in patients)


def find_leaks(
    patients: Sequence[str], pictures: Sequence[str], splits: Sequence[str]
) -> tuple[Leak, ...]:
    """Patients and pictures that stand in more than one split.

    Args:
        patients: Patient key per image.
        pictures: Digest of the decoded pixels per image.
        splits: train, val or test per image; others are not looked at.
    """
    leaks = (_leak("patient", patients, splits), _leak("picture", pictures, splits))
    return tuple(leak for leak in leaks if leak.groups)


def _leak(kind: str, keys: Sequence[str], splits: Sequence[str]) -> Leak:
    earliest: dict[str, int] = {}
    homes: dict[str, set[str]] = {}
    for key, split in zip(keys, splits, strict=True):
        if split in SPLIT_ORDER:
            earliest[key] = min(earliest.get(key, 9), SPLIT_ORDER[split])
            homes.setdefault(key, set()).add(split)
    rows = [
        row
        for row, (key, split) in enumerate(zip(keys, splits, strict=True))
        if split in SPLIT_ORDER and SPLIT_ORDER[split] > earliest[key]
    ]
    return Leak(kind, sum(len(places) > 1 for places in homes.values()), tuple(rows))


def contradicting_pictures(pictures: Sequence[str], targets: NDArray[np.floating]) -> list[int]:
    """Rows whose very pixels stand under another label elsewhere, ascending."""
    labels: dict[str, set[float]] = {}
    for picture, target in zip(pictures, targets.tolist(), strict=True):
        labels.setdefault(picture, set()).add(target)
    return [row for row, picture in enumerate(pictures) if len(labels[picture]) > 1]
