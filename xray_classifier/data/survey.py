"""A look at data that nobody has described yet: what `init` needs to write a config."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xray_classifier.data.manifest import existing_path, source_of
from xray_classifier.data.npz import find_in_npz
from xray_classifier.data.patients import ACCEPTED_SHARE, recognise
from xray_classifier.data.sources import Found, find_in_folder
from xray_classifier.data.splits import SPLITS, split_name
from xray_classifier.data.table import PATIENT_NAMES, Table, read_table

PATH_NAMES = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "image",
    "image_path",
    "image id",
)
LABEL_NAMES = ("label", "class", "target", "diagnosis", "finding", "finding labels", "y")
SPLIT_NAMES = ("split", "fold", "set", "subset", "partition")
EXAMPLES = 5


@dataclass(frozen=True)
class Survey:
    """What lies at a path."""

    source: Literal["folder", "csv", "npz"]
    n_images: int
    classes: dict[str, int]
    """Images per class name, sorted by name; for a CSV without a likely label column empty."""
    splits: dict[str, int]
    """Images per split that the data bring: train, val, test; empty if they bring none."""
    patient_scheme: str | None
    """Recognised naming scheme: kermany, nih, phantoms, or None."""
    examples: tuple[str, ...]
    """The first ids, up to five."""
    columns: dict[str, str] = field(default_factory=dict)
    """For a CSV the likely column of `path`, `label`, `patient` and `split`, where there is one."""
    notes: tuple[str, ...] = ()
    """What a person should know, such as hidden files passed over."""


def survey(path: Path) -> Survey:
    """Look at a folder, a CSV or an NPZ file without knowing what its classes mean.

    Raises:
        UsageError: There is nothing at the path, or a single image.
        DataError: There are no images, or the file is damaged.
    """
    source = source_of(existing_path(path))
    if source == "csv":
        return _of_table(read_table(path))
    found = find_in_folder(path) if source == "folder" else find_in_npz(path)
    return _of_found(source, found)


def _of_found(source: Literal["folder", "npz"], found: Found) -> Survey:
    return Survey(
        source=source,
        n_images=len(found.ids),
        classes=_counted(found.classes),
        splits=_split_counts(found.splits),
        patient_scheme=_scheme(found.ids),
        examples=found.ids[:EXAMPLES],
        notes=found.notes,
    )


def _of_table(table: Table) -> Survey:
    columns = {
        key: name
        for key, likely in (
            ("path", PATH_NAMES),
            ("label", LABEL_NAMES),
            ("patient", PATIENT_NAMES),
            ("split", SPLIT_NAMES),
        )
        if (name := _likely(table, likely)) is not None
    }
    cells = {key: table.column(name, key) for key, name in columns.items()}
    splits = [split_name(cell) for cell in cells.get("split", ()) if cell]
    if None in splits:
        splits = []
        del columns["split"]
    return Survey(
        source="csv",
        n_images=len(table.rows),
        classes=_counted(cells.get("label", ())),
        splits=_split_counts([name for name in splits if name]),
        patient_scheme=_scheme(cells.get("path", ())),
        examples=cells.get("path", ())[:EXAMPLES],
        columns=columns,
    )


def _likely(table: Table, names: tuple[str, ...]) -> str | None:
    """The column whose name, whatever its case, comes first among the likely ones."""
    folded = {name.casefold(): name for name in reversed(table.header)}
    return next((folded[name] for name in names if name in folded), None)


def _scheme(paths: tuple[str, ...]) -> str | None:
    best = recognise(paths)
    return best[0] if best is not None and best[1] >= ACCEPTED_SHARE else None


def _counted(names: tuple[str, ...]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _split_counts(names: tuple[str, ...] | list[str]) -> dict[str, int]:
    counts = Counter(names)
    return {name: counts[name] for name in SPLITS if counts[name]}
