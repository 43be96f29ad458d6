"""Where the predictions that a comparison needs lie, and reading them."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xray_classifier.compared_images import ANSWERS, PredictionTable
from xray_classifier.data.splits import CLASS_NAMES, split_name
from xray_classifier.errors import DataError, UsageError
from xray_classifier.files import printable
from xray_classifier.terminal import command

CLASSIFY_COLUMNS = frozenset(("path", "label", "patient", "logit", "p_sick", "decision"))
REGRESS_COLUMNS = frozenset(("path", "label", "patient", "prediction"))


def find_predictions(path: Path, split: str) -> tuple[str, Path]:
    """The table of predictions that an argument of `compare` means.

    Args:
        path: A run folder, a checkpoint in one, a folder that `evaluate` wrote, or a table in one.
        split: Which evaluation of a run is meant: train, val or test.

    Returns:
        What a person calls it, and the file. Of several evaluations of a run the newest counts.

    Raises:
        UsageError: Nothing there, or a run that was not evaluated on that split.
    """
    if path.is_file() and path.suffix.lower() == ".csv":
        return str(path), path
    if (path / "predictions.csv").is_file():
        return str(path), path / "predictions.csv"
    run = run_folder_of(path)
    if run is None:
        raise UsageError(
            f"{printable(path)} stands in no run folder, so it has no evaluations; write one with "
            f"`{command('evaluate', path, '-o', 'judged')}` and compare the folder `judged`"
        )
    name, split = run.resolve().name, split_name(split) or split
    own = run / "predictions_val.csv"
    if split == "val" and own.is_file():
        return name, own
    found = [folder for folder in _evaluations(run) if _metrics(folder).get("split") == split]
    if not found:
        raise UsageError(
            f"{printable(path)} has no evaluation on the {printable(split)} split; run "
            f"`{command('evaluate', path, '--split', split)}` first, or name the folder that an "
            "evaluation was written into with -o"
        )
    return name, max(found, key=_age) / "predictions.csv"


def run_folder_of(path: Path) -> Path | None:
    """The run that a run folder or a checkpoint means; None for a checkpoint that stands alone.

    Raises:
        UsageError: No such thing; or a checkpoint of a run that is not the one it is judged by.
    """
    from xray_classifier.checkpoint import find_checkpoint
    from xray_classifier.classifier import run_of

    checkpoint = find_checkpoint(path)
    run = run_of(checkpoint)
    if run is not None and checkpoint.name != "best.safetensors":
        raise UsageError(
            f"{printable(path)} is not the model that evaluations of its run judge; name the run "
            f"({printable(run)}) or a folder that `evaluate` wrote"
        )
    return run


def _evaluations(run: Path) -> list[Path]:
    """Folders of finished evaluations of a run."""
    return [
        path.parent
        for path in sorted((run / "eval").glob("*/metrics.json"))
        if (path.parent / "predictions.csv").is_file()
    ]


def _age(folder: Path) -> tuple[int, str]:
    return (folder / "metrics.json").stat().st_mtime_ns, folder.name


def _metrics(folder: Path, name: str = "metrics.json") -> Mapping[str, Any]:
    """What an evaluation says of itself; empty where it says nothing."""
    try:
        content = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{printable(folder / name)} cannot be read; evaluate that model again"
        ) from error
    return content if isinstance(content, dict) else {}


def outdated(table: Path) -> bool:
    """Whether the model of the run that a table stands in was written after the table."""
    for folder in table.absolute().parents[:3]:
        model = folder / "checkpoints" / "best.safetensors"
        if model.is_file() and table.name != "predictions_val.csv":
            return model.stat().st_mtime_ns > table.stat().st_mtime_ns
    return False


def read_predictions(name: str, path: Path) -> PredictionTable:
    """Read a table that `evaluate` wrote, and what metrics.json beside it says of it.

    Args:
        name: What a person calls the model.
        path: The CSV file.

    Raises:
        DataError: It is no such table, holds an image twice, or a cell makes no sense; the message
            names file and line.
    """
    header, rows = _rows(path)
    columns = set(header)
    task = "regress" if "prediction" in columns else "classify"
    needed = REGRESS_COLUMNS if task == "regress" else CLASSIFY_COLUMNS
    if not needed <= columns:
        raise DataError(_no_such_table(path, columns, needed))
    cells = {column: tuple(row[column] for _, row in rows) for column in header}
    _refuse_twice(path, rows)
    empty = ("",) * len(rows)
    beside = _metrics(path.parent)
    score = "prediction" if task == "regress" else "logit"
    decisions = cells.get("decision", empty)
    for (line, row), decision in zip(rows, decisions, strict=True):
        if decision not in ANSWERS or (decision == "") != (row[score] == "" or task == "regress"):
            raise DataError(f"{printable(path)}:{line}: decision {decision!r} makes no sense")
    return PredictionTable(
        name=name,
        where=printable(path),
        task=task,
        split=beside.get("split"),
        threshold=beside.get("threshold"),
        policy=beside.get("threshold_policy"),
        paths=cells["path"],
        targets=np.array([_target(path, line, row["label"], task) for line, row in rows]),
        patients=cells["patient"],
        hashes=cells.get("pixel_hash", empty),
        scores=np.array([_number(path, line, row, score) for line, row in rows]),
        p_sick=np.array([_number(path, line, row, "p_sick") for line, row in rows]),
        decisions=decisions,
        in_training=cells.get("in_training", empty),
    )


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header of a CSV file, and its rows with their line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True, restkey="", restval=None)
            rows = [(reader.line_num, row) for row in reader]
            header = list(reader.fieldnames or ())
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{printable(path)} cannot be read as a CSV table: {error}") from error
    for line, row in rows:
        if "" in row or None in row.values():
            raise DataError(
                f"{printable(path)}:{line}: the number of cells is not that of the header; the "
                "table was changed or cut short, so evaluate that model again"
            )
    if not rows:
        raise DataError(f"{printable(path)} holds no image")
    return header, rows


def _no_such_table(path: Path, columns: set[str], needed: frozenset[str]) -> str:
    missing = ", ".join(sorted(needed - columns))
    if {"path", "status", "reason"} <= columns:
        return (
            f"{printable(path)} was written by `predict`, which knows no truth; compare tables "
            "that `evaluate` wrote"
        )
    return f"{printable(path)} lacks the columns {missing}; compare tables that `evaluate` wrote"


def _refuse_twice(path: Path, rows: list[tuple[int, dict[str, str]]]) -> None:
    first: dict[str, int] = {}
    for line, row in rows:
        if first.setdefault(row["path"], line) != line:
            raise DataError(
                f"{printable(path)}:{line}: {printable(row['path'])} was in line "
                f"{first[row['path']]} already; every image counts once"
            )


def _target(path: Path, line: int, label: str, task: str) -> float:
    if task == "classify":
        if label in CLASS_NAMES:
            return float(CLASS_NAMES.index(label))
        raise DataError(f"{printable(path)}:{line}: label {label!r}; expected healthy or sick")
    return _finite(path, line, "label", label)


def _number(path: Path, line: int, row: Mapping[str, str], column: str) -> float:
    """A number, or NaN for an empty cell or no such column."""
    text = row.get(column, "")
    return math.nan if text == "" else _finite(path, line, column, text)


def _finite(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{printable(path)}:{line}: {column} {text!r} is no finite number")
    return value
