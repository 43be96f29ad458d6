"""Whose film an image is, read from its name or its DICOM header.

Known naming schemes:

    kermany   person1_virus_6.jpeg -> person1_virus (virus and bacteria are numbered apart),
              IM-0433-0001-0002.jpeg -> IM-0433, NORMAL2-IM-0588-0001.jpeg -> NORMAL2-IM-0588
    nih       00000002_000.png -> 00000002
    phantoms  p0007_phantom-000012.png -> p0007
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from xray_classifier.errors import DataError
from xray_classifier.files import printable

SCHEMES: dict[str, tuple[str, ...]] = {
    "kermany": (r"(person\d+_(?:virus|bacteria))_\d+", r"((?:NORMAL2-)?IM-\d+)-\d+"),
    "nih": (r"(\d{8})_\d{3}(?!\d)",),
    "phantoms": (r"(p\d{4,})_phantom-\d+",),
}
TITLES = {
    "kermany": "Kermany (person1_virus_6.jpeg)",
    "nih": "NIH ChestX-ray14 (00000002_000.png)",
    "phantoms": "phantoms (p0007_phantom-000012.png)",
}
ACCEPTED_SHARE = 0.95
UNKNOWN = "patients unknown"
LARGEST_SHARE = 0.5
"""Of all images, one DICOM Patient ID may hold this share before it counts as a placeholder."""
REMEDY = "data.patient or data.columns.patient can name them"


@dataclass(frozen=True)
class Patients:
    """The patient of each image, and how we know."""

    keys: tuple[str, ...]
    """Patient key per image; an image whose patient is unknown has its own id as key."""
    known: bool
    """Whether the keys come from the data rather than from the lack of anything better."""
    scheme: str | None
    """Name of the recognised naming scheme, if one was."""
    notes: tuple[str, ...]
    """What a person should know about the keys, one sentence each."""


def patient_of(path: str, pattern: str) -> str | None:
    """The patient that a path names.

    Args:
        path: Posix path of an image, relative to the data.
        pattern: Regular expression, searched anywhere in the path; its first group is the patient.

    Returns:
        The patient key; None where the pattern does not match or its group is empty.
    """
    match = re.search(pattern, path)
    return (match.group(1) or None) if match else None


def recognise(paths: Sequence[str]) -> tuple[str, float] | None:
    """The naming scheme that fits the file names best, and the share of names that it fits.

    Args:
        paths: Posix paths, length n_images; only the part after the last slash is looked at.

    Returns:
        Scheme name and a share in (0, 1]; None if no name fits any scheme.
    """
    if not paths:
        return None
    fits = {name: sum(k is not None for k in _scheme_keys(paths, name)) for name in SCHEMES}
    best = max(fits, key=lambda name: fits[name])
    return (best, fits[best] / len(paths)) if fits[best] else None


def patients_of(paths: Sequence[str], pattern: str | None) -> Patients:
    """The patient of each image from its path.

    Args:
        paths: Unique posix path per image, relative to the data.
        pattern: `auto` to recognise a known naming scheme, a regular expression whose first group
            is the patient, or None: each image is its own patient.

    Returns:
        Keys, whether they are known, the scheme recognised, and notes for a person.

    Raises:
        DataError: The regular expression does not match some path; guessing there would let one
            patient stand in two splits.
    """
    if pattern is None:
        return unknown_patients(paths, "data.patient is null")
    if pattern == "auto":
        return _by_scheme(paths)
    keys = [patient_of(path, pattern) for path in paths]
    missed = [printable(path) for path, key in zip(paths, keys, strict=True) if key is None]
    if missed:
        raise DataError(
            f"data.patient: {pattern!r} matches no patient in {len(missed)} of {len(paths)} paths, "
            f"for example {', '.join(missed[:5])}; widen the pattern, or set data.patient=null if "
            "no patient can be told from the names"
        )
    note = f"patients: {len(set(keys))} in {len(paths)} images, by data.patient"
    return Patients(tuple(key for key in keys if key), True, None, (note,))


def unknown_patients(paths: Sequence[str], reason: str) -> Patients:
    """Each image its own patient, with a note that says why and what that means."""
    note = (
        f"{UNKNOWN} ({reason}): each image counts as its own patient, so that films of one "
        "person may stand in two splits"
    )
    return Patients(tuple(paths), False, None, (note,))


def patients_of_headers(keys: Sequence[str], ids: Sequence[str], demanded: bool) -> Patients | None:
    """The patient of each image from DICOM headers.

    Args:
        keys: Keyed hash of DICOM Patient ID per image; `` where there is none.
        ids: Name of each image; the key of an image whose patient is unknown.
        demanded: `data.patient: dicom` asks for them; else they are taken where they make sense.

    Returns:
        Keys and notes; None where there are no such ids and none are demanded.

    Raises:
        DataError: They are demanded, and there are none.
    """
    counts = Counter(key for key in keys if key)
    if not counts:
        if demanded:
            raise DataError(
                "data.patient is dicom, but no image has a DICOM Patient ID; set data.patient=null "
                "if no patient can be told"
            )
        return None
    largest = max(counts.values())
    if not demanded and largest > 1 and largest > LARGEST_SHARE * len(keys):
        return unknown_patients(
            ids,
            f"{largest} of {len(keys)} images share one DICOM Patient ID, as after anonymising; "
            "data.patient=dicom takes them all the same",
        )
    without = sum(not key for key in keys)
    notes = [f"patients: {len(counts)} in {len(keys)} images, by DICOM Patient ID (keyed hashes)"]
    if without:
        notes.append(f"{without} images have no DICOM Patient ID and count as a patient each")
    found = tuple(key or name for key, name in zip(keys, ids, strict=True))
    return Patients(found, True, "dicom", tuple(notes))


def _by_scheme(paths: Sequence[str]) -> Patients:
    best = recognise(paths)
    if best is None:
        return unknown_patients(paths, f"no known naming scheme; {REMEDY}")
    scheme, share = best
    if share < ACCEPTED_SHARE:
        few = f"only {share:.0%} of the names look like {TITLES[scheme]}"
        return unknown_patients(paths, f"{few}; {REMEDY}")
    found = _scheme_keys(paths, scheme)
    keys = tuple(key or path for key, path in zip(found, paths, strict=True))
    note = f"patients: {len(set(keys))} in {len(paths)} images, names as in {TITLES[scheme]}"
    missed = sum(key is None for key in found)
    also = (f"{missed} images with other names count as a patient each",) if missed else ()
    return Patients(keys, True, scheme, (note, *also))


def _scheme_keys(paths: Sequence[str], scheme: str) -> list[str | None]:
    match = re.compile("|".join(f"(?:{pattern})" for pattern in SCHEMES[scheme])).match
    found = (match(path.rpartition("/")[2]) for path in paths)
    return [hit.group(hit.lastindex or 0) if hit else None for hit in found]
