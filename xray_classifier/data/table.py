"""Images with their labels, as a CSV file brings them."""

# ruff: noqa: PTH113, PTH114, PTH118
# os.path says False where pathlib raises, as for a name that is too long, and costs a tenth.

import csv
import difflib
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xray_classifier.data.sources import Found
from xray_classifier.data.splits import ALIASES, split_name
from xray_classifier.data.tree import is_inside
from xray_classifier.errors import DataError
from xray_classifier.files import printable

SEPARATORS = (",", ";", "\t")
MOST_SHOWN = 10
PATIENT_NAMES = ("patient", "patient_id", "patientid", "patient id", "subject", "subject_id")


@dataclass(frozen=True)
class Table:
    """A CSV file as text: cells without surrounding blanks, empty lines left out."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Shape (n_rows, n_columns)."""
    lines: tuple[int, ...]
    """Line in the file at which each row starts; the header is line 1."""

    def column(self, name: str, key: str) -> tuple[str, ...]:
        """The cells of one column, length n_rows.

        Args:
            name: Name in the header.
            key: Config key that asks for it, for the message.

        Raises:
            DataError: There is no such column; the message lists those there are.
        """
        if name not in self.header:
            near = difflib.get_close_matches(name, self.header, n=1)
            hint = f"; did you mean {printable(near[0])}?" if near else "."
            raise DataError(
                f"{printable(self.path)}: {key}: no column {printable(name)!r}{hint} The columns "
                f"are: {', '.join(map(printable, self.header))}"
            )
        place = self.header.index(name)
        return tuple(row[place] for row in self.rows)


def read_table(path: Path) -> Table:
    """Read a CSV file in UTF-8, separated by comma, semicolon or tab, whichever its header shows.

    Raises:
        DataError: It cannot be read, is no UTF-8, has no row, has a column twice, or has a row
            with more or fewer cells than the header.
    """
    where = printable(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {where}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no UTF-8 text; save it as 'CSV UTF-8'") from error
    numbered = _numbered_rows(text, where)
    if not numbered:
        raise DataError(f"{where} is empty; expected a header and a row per image")
    (_, header), *body = numbered
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{where}: the column {printable(twice[0])!r} stands twice in the header")
    for line, row in body:
        if len(row) != len(header):
            raise DataError(
                f"{where}:{line}: {len(row)} cells, but the header has {len(header)} columns"
            )
    if not body:
        raise DataError(f"{where} has a header but no rows")
    return Table(path, header, tuple(row for _, row in body), tuple(line for line, _ in body))


def find_in_table(
    path: Path,
    *,
    path_column: str,
    label_column: str,
    patient_column: str | None,
    split_column: str | None,
    guess_patient: bool = False,
    root: Path | None = None,
) -> Found:
    """The images that a CSV file lists, in its order.

    Args:
        path: The CSV file.
        path_column: Column with the image file.
        label_column: Column with the class name or number.
        patient_column: Column with the patient id; None: there is none, or it is to be guessed.
        split_column: Column with the split; None: a column called `split` if there is one.
        guess_patient: Without `patient_column`, take a column whose name says patient.
        root: Folder that image paths are relative to; None: that of the CSV file.

    Returns:
        One entry per row; the columns not named here are kept as they are.

    Raises:
        DataError: A column is missing; a file is missing, listed twice or outside the root; a
            split has an unknown name.
    """
    table = read_table(path)
    if split_column is None and "split" in table.header:
        split_column = "split"
    guessed = _likely_patient(table) if patient_column is None else None
    if guess_patient:
        patient_column = patient_column or guessed
    root = Path(os.path.realpath(root or path.parent))
    cells = table.column(path_column, "data.columns.path")
    labels = table.column(label_column, "data.columns.label")
    files, ids = _resolve(table, cells, root)
    _refuse_twice(table, ids, labels)
    patients = table.column(patient_column, "data.columns.patient") if patient_column else None
    splits = table.column(split_column, "data.columns.split") if split_column else None
    used = {path_column, label_column, patient_column, split_column}
    return Found(
        kind="files",
        root=root,
        ids=ids,
        classes=labels,
        splits=_split_names(table, splits) if splits else ("",) * len(ids),
        files=files,
        patients=patients,
        columns={name: table.column(name, name) for name in table.header if name not in used},
        lines=table.lines,
        notes=_patient_note(guessed, guess_patient),
    )


def numbers(found: Found, label_column: str, where: str) -> list[float]:
    """The labels as finite numbers, length n_images.

    Raises:
        DataError: A label is no finite number; the message names the line.
    """
    values = [_number(text) for text in found.classes]
    wrong = [row for row, value in enumerate(values) if value is None]
    if wrong:
        shown = ", ".join(
            f"line {found.lines[row]} {printable(found.classes[row])!r}"
            for row in wrong[:MOST_SHOWN]
        )
        raise DataError(
            f"{where}: column {printable(label_column)!r}: {len(wrong)} of {len(values)} cells "
            f"are no finite number: {shown}"
        )
    return [value for value in values if value is not None]


def _numbered_rows(text: str, where: str) -> list[tuple[int, tuple[str, ...]]]:
    """Rows that are not blank, each with the line that it starts at."""
    first = text.lstrip().partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = []
    line = 1
    try:
        for row in reader:
            cells = tuple(cell.strip() for cell in row)
            if any(cells):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{where}:{line}: {error}") from error
    return rows


def _resolve(
    table: Table, cells: Sequence[str], root: Path
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Absolute path and id of each image; refuse what is missing or outside the root."""
    real_folders: dict[str, str] = {}
    paths: list[str] = []
    outside: list[str] = []
    missing: list[str] = []
    for line, cell in zip(table.lines, cells, strict=True):
        path, target = _locate(cell, str(root), real_folders)
        if not cell or "\0" in cell or (target == path and path == str(root)):
            missing.append(f"line {line} {printable(cell) or '(empty)'}")
        elif not is_inside(target, str(root)) or not is_inside(path, str(root)):
            outside.append(f"line {line} {printable(cell)}")
        elif not os.path.isfile(target):
            missing.append(f"line {line} {printable(cell)}")
        paths.append(path)
    _refuse_outside(table, outside, root)
    _refuse_missing(table, missing, root)
    return tuple(map(Path, paths)), tuple(Path(p).relative_to(root).as_posix() for p in paths)


def _locate(cell: str, root: str, real_folders: dict[str, str]) -> tuple[str, str]:
    """Where a cell points: free of links but for the last part, and wholly free of links.

    `real_folders` remembers the folders seen, since resolving each row afresh takes long.
    """
    folder, name = os.path.split(os.path.join(root, cell.replace("\0", "")))
    if name in ("", ".", ".."):
        folder, name = os.path.join(folder, name), ""
    if folder not in real_folders:
        real_folders[folder] = os.path.realpath(folder)
    path = os.path.join(real_folders[folder], name) if name else real_folders[folder]
    return path, os.path.realpath(path) if os.path.islink(path) else path


def _refuse_outside(table: Table, outside: Sequence[str], root: Path) -> None:
    if outside:
        raise DataError(
            f"{printable(table.path)}: {len(outside)} paths lead out of the folder "
            f"{printable(root)}: {_first(outside)}; only files below it are read: name a folder "
            "above all images with data.root=DIR, or move the CSV there"
        )


def _refuse_missing(table: Table, missing: Sequence[str], root: Path) -> None:
    if missing:
        slash = "; write / between folders" if all("\\" in text for text in missing) else ""
        raise DataError(
            f"{printable(table.path)}: {len(missing)} of {len(table.rows)} files do not exist "
            f"below {printable(root)}: {_first(missing)}{slash}; if they lie below another folder, "
            "name it with data.root=DIR"
        )


def _refuse_twice(table: Table, ids: Sequence[str], labels: Sequence[str]) -> None:
    """An image counts once: two rows for it would weigh it double, or contradict each other."""
    first: dict[str, int] = {}
    twice = []
    for row, name in enumerate(ids):
        other = first.setdefault(name, row)
        if other != row:
            said = "same label" if labels[row] == labels[other] else "other label"
            twice.append(
                f"{printable(name)} (lines {table.lines[other]} and {table.lines[row]}, {said})"
            )
    if twice:
        raise DataError(
            f"{printable(table.path)}: {len(twice)} images are listed twice: {_first(twice)}; "
            "an image counts once: keep one row for each"
        )


def _split_names(table: Table, cells: Sequence[str]) -> tuple[str, ...]:
    names = [split_name(cell) if cell else "" for cell in cells]
    wrong = [
        f"line {line} {printable(cell)!r}"
        for line, cell, name in zip(table.lines, cells, names, strict=True)
        if name is None
    ]
    if wrong:
        raise DataError(
            f"{printable(table.path)}: {len(wrong)} cells name no split: {_first(wrong)}; write "
            f"one of {', '.join(ALIASES)}, or leave the cell empty"
        )
    return tuple(name or "" for name in names)


def _likely_patient(table: Table) -> str | None:
    """The first column whose name says that it holds patient ids."""
    return next((name for name in table.header if name.casefold() in PATIENT_NAMES), None)


def _patient_note(column: str | None, used: bool) -> tuple[str, ...]:
    """What a person should know about a column that looks like patient ids."""
    if column is None:
        return ()
    name = printable(column)
    if used:
        return (f"patients: from the column {name}",)
    return (f"the column {name} looks like a patient id; data.columns.patient={name} uses it",)


def _number(text: str) -> float | None:
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _first(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - MOST_SHOWN} more" if len(texts) > MOST_SHOWN else ""
    return ", ".join(texts[:MOST_SHOWN]) + more
