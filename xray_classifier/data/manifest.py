"""The table of labelled images that everything else works on, and how it is found.

folder, CSV, NPZ or phantoms -> Found (names as the data have them) -> Manifest (0 and 1)
"""

import difflib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.labels import class_targets, listed
from xray_classifier.data.npz import NpzImages, find_in_npz
from xray_classifier.data.patients import Patients, patients_of, unknown_patients
from xray_classifier.data.phantom_leak import with_leak
from xray_classifier.data.sources import Found, find_in_folder, find_phantoms, is_image_name
from xray_classifier.data.table import find_in_table, numbers
from xray_classifier.errors import UsageError
from xray_classifier.files import printable

__all__ = ["Manifest", "NpzImages", "build_manifest", "existing_path", "source_of"]

ZIP_START = b"PK\x03\x04"


@dataclass(frozen=True, eq=False)
class Manifest:
    """One row per image, in an order that is the same on every machine.

    All columns have length n_images.
    """

    kind: Literal["files", "npz", "phantoms"]
    """Where pixels come from."""
    root: Path | None
    """The folder that ids are relative to, the NPZ file, or None for phantoms."""
    ids: tuple[str, ...]
    """Unique: posix path below `root`, `train_images/12`, or the phantom's name. A file name that
    is no UTF-8 keeps its bytes as surrogate escapes."""
    files: tuple[Path, ...]
    """Absolute path per image; empty unless `kind` is files."""
    targets: NDArray[np.float64]
    """Shape (n_images,): 0.0 healthy, 1.0 sick, or the number to predict."""
    classes: tuple[str, ...]
    """Class name as the data have it; `` for numbers."""
    patients: tuple[str, ...]
    """Patient key; the image's own id where the patient is unknown."""
    patients_known: bool
    """Whether the data name patients at all."""
    splits: tuple[str, ...]
    """train, val, test, or `` (not assigned)."""
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The other columns of a CSV, for subgroups."""
    notes: tuple[str, ...] = ()
    """What a person should know, one sentence each."""
    phantom_seed: int | None = None
    """Which phantoms; None for other kinds."""
    phantom_rows: tuple[int, ...] = ()
    """Number of each phantom in the series of its seed; empty for other kinds."""

    def __post_init__(self) -> None:
        columns: dict[str, Sequence[str]] = {
            "classes": self.classes,
            "patients": self.patients,
            "splits": self.splits,
            **self.columns,
        }
        wrong = [name for name, column in columns.items() if len(column) != len(self.ids)]
        if wrong or self.targets.shape != (len(self.ids),):
            raise ValueError(f"columns of unequal length: {', '.join(wrong) or 'targets'}")
        if self.files and len(self.files) != len(self.ids):
            raise ValueError("columns of unequal length: files")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("ids are not unique")

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int] | NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Self:
        """The manifest of some rows, in the order given.

        Args:
            rows: Indices, or a mask of shape (n_images,).
        """
        chosen = np.asarray(rows)
        if chosen.dtype == np.bool_:
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.intp)
        places = chosen.tolist()
        return replace(
            self,
            ids=_pick(self.ids, places),
            files=tuple(self.files[place] for place in places) if self.files else (),
            targets=self.targets[chosen],
            classes=_pick(self.classes, places),
            patients=_pick(self.patients, places),
            splits=_pick(self.splits, places),
            columns={name: _pick(column, places) for name, column in self.columns.items()},
            phantom_rows=tuple(self.phantom_rows[place] for place in places)
            if self.phantom_rows
            else (),
        )

    def with_splits(self, splits: Sequence[str]) -> Self:
        """The same images with other splits, one per image."""
        return replace(self, splits=tuple(splits))


def build_manifest(
    *,
    source: Literal["auto", "folder", "csv", "npz", "phantoms"],
    path: Path | None,
    task: Literal["classify", "regress"],
    healthy: Sequence[str],
    sick: Sequence[str],
    ignore: Sequence[str],
    path_column: str,
    label_column: str,
    patient_column: str | None,
    split_column: str | None,
    patient: str | None,
    phantom_images: int,
    phantom_seed: int,
    root: Path | None = None,
    need_all: bool = True,
    phantom_leak: float | None = None,
) -> Manifest:
    """Find labelled images and say what each label means.

    Args:
        source: What `path` is; `auto` looks.
        path: A folder, a CSV or an NPZ file; None for phantoms only.
        task: classify takes class names, regress the numbers of a CSV column.
        healthy: Class names that mean 0.
        sick: Class names that mean 1.
        ignore: Class names of images to leave out.
        path_column: CSV column with the image file.
        label_column: CSV column with the class name or number.
        patient_column: CSV column with the patient id; None: with `patient` auto, a column whose
            name says patient; else patients are read from the path.
        split_column: CSV column with the split; None: one called `split` if there is one.
        patient: `auto`, a regular expression for the relative path, or None (see `patients_of`);
            `dicom` leaves patients unknown here, see `with_dicom_patients`.
        phantom_images: How many phantoms.
        phantom_seed: Which phantoms.
        root: Folder that the paths of a CSV are relative to; None: that of the CSV.
        need_all: Whether each class name must be found, see `class_targets`.
        phantom_leak: Share of the validation phantoms that are training phantoms once more; None:
            none, and no splits.

    Returns:
        Images in bytewise order of their path (folder) or the order of the file (CSV, NPZ). Splits
        are those that the data bring, `` elsewhere.

    Raises:
        UsageError: The path does not exist, or cannot be what `source` says.
        DataError: The data hold no usable images, or their labels do not fit.
    """
    if source == "phantoms":
        found = find_phantoms(phantom_images, phantom_seed)
        if phantom_leak is not None:
            found = with_leak(found, phantom_leak, phantom_seed)
    else:
        place = existing_path(path)
        found = _find(
            source_of(place) if source == "auto" else source,
            place,
            path_column=path_column,
            label_column=label_column,
            patient_column=patient_column,
            guess_patient=patient == "auto",
            split_column=split_column,
            root=root,
        )
    where = printable(path) if source != "phantoms" else "phantoms"
    if task == "regress":
        return _with_numbers(found, label_column, patient, where)
    targets = class_targets(
        found.classes,
        healthy=healthy,
        sick=sick,
        ignore=ignore,
        where=where,
        notes=found.notes,
        need_all=need_all,
    )
    return _with_classes(found, targets, patient)


def existing_path(path: Path | None, key: str = "data.path") -> Path:
    """The path, if there is something at it.

    Args:
        path: What was asked for.
        key: The config key that names it, for the message.

    Raises:
        UsageError: It is None or does not exist; names that are spelled alike are suggested.
    """
    if path is None:
        raise UsageError(f"{key} is missing: name a folder, a CSV or an NPZ file")
    if os.path.exists(path):  # noqa: PTH110  (False where pathlib raises: a name that is too long)
        return path
    parent = path.absolute().parent
    try:
        beside = sorted(entry.name for entry in os.scandir(parent))
    except OSError:
        raise UsageError(
            f"{printable(path)} does not exist, nor does the folder {printable(parent)}"
        ) from None
    near = difflib.get_close_matches(path.name, beside, n=3)
    hint = (
        f"; did you mean {' or '.join(printable(path.parent / n) for n in near)}?" if near else ""
    )
    raise UsageError(f"{printable(path)} does not exist{hint}")


def source_of(path: Path) -> Literal["folder", "csv", "npz"]:
    """What an existing path is: by its suffix, else by its first bytes.

    Raises:
        UsageError: It is a single image, or cannot be read.
    """
    if path.is_dir():
        return "folder"
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return "npz"
    if suffix in (".csv", ".tsv"):
        return "csv"
    if suffix and is_image_name(path.name):
        raise UsageError(
            f"{printable(path)} is one image; labelled data are a folder, a CSV or an NPZ file"
        )
    try:
        with path.open("rb") as stream:
            start = stream.read(len(ZIP_START))
    except OSError as error:
        raise UsageError(f"cannot read {printable(path)}: {error.strerror}") from error
    return "npz" if start == ZIP_START else "csv"


def _find(
    source: Literal["folder", "csv", "npz"],
    path: Path,
    *,
    path_column: str,
    label_column: str,
    patient_column: str | None,
    guess_patient: bool,
    split_column: str | None,
    root: Path | None,
) -> Found:
    if path.is_dir() != (source == "folder"):
        what = "a folder" if path.is_dir() else "a file"
        raise UsageError(f"data.source is {source}, but {printable(path)} is {what}")
    if root is not None:
        if source != "csv":
            raise UsageError(f"data.root is for CSV files only; {printable(path)} is none")
        root = existing_path(root, "data.root")
    if source == "folder":
        return find_in_folder(path)
    if source == "npz":
        return find_in_npz(path)
    return find_in_table(
        path,
        path_column=path_column,
        label_column=label_column,
        patient_column=patient_column,
        guess_patient=guess_patient,
        split_column=split_column,
        root=root,
    )


def _with_numbers(found: Found, label_column: str, pattern: str | None, where: str) -> Manifest:
    if not found.lines:
        raise UsageError(f"{where}: task: regress takes its numbers from a column of a CSV file")
    targets = np.array(numbers(found, label_column, where), dtype=np.float64)
    return _assembled(replace(found, classes=("",) * len(targets)), targets, pattern, ())


def _with_classes(found: Found, targets: NDArray[np.float64], pattern: str | None) -> Manifest:
    """Leave out the classes ignored."""
    left_out = np.isnan(targets)
    notes = [f"left out on purpose: {_ignored(found, left_out)}"] if left_out.any() else []
    whole = _assembled(found, targets, pattern, notes)
    return whole.select(~left_out) if left_out.any() else whole


def _ignored(found: Found, left_out: NDArray[np.bool_]) -> str:
    return listed(Counter(found.classes[row] for row in np.flatnonzero(left_out).tolist()))


def _assembled(
    found: Found, targets: NDArray[np.float64], pattern: str | None, notes: Sequence[str]
) -> Manifest:
    patients = _patients(found, pattern)
    return Manifest(
        kind=found.kind,
        root=found.root,
        ids=found.ids,
        files=found.files,
        targets=targets,
        classes=found.classes,
        patients=patients.keys,
        patients_known=patients.known,
        splits=found.splits,
        columns=found.columns,
        notes=(*found.notes, *patients.notes, *notes),
        phantom_seed=found.phantom_seed,
        phantom_rows=found.phantom_rows,
    )


def _patients(found: Found, pattern: str | None) -> Patients:
    """Patients from the data's own column, else from the names."""
    if found.patients is not None:
        lacking = sum(not key for key in found.patients)
        if lacking == len(found.patients):
            return unknown_patients(found.ids, "the column of patients is empty")
        keys = tuple(key or name for key, name in zip(found.patients, found.ids, strict=True))
        note = f"{lacking} images name no patient and count as a patient each"
        return Patients(keys, True, None, (note,) if lacking else ())
    if pattern == "dicom":
        return Patients(found.ids, False, None, ())
    if found.kind == "npz" and pattern == "auto":
        return unknown_patients(found.ids, "an NPZ file does not name them")
    return patients_of(found.ids, pattern)


def _pick(column: Sequence[str], places: Sequence[int]) -> tuple[str, ...]:
    return tuple(column[place] for place in places)
