"""A manifest in which patients and copies of a picture stand in one split, whole."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.config import DataConfig
from xray_classifier.data.labels import labels_override
from xray_classifier.data.leaks import Copies, joined_groups, mended_splits
from xray_classifier.data.loading import Task, placed
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.splits import split_summary
from xray_classifier.data.tree import is_inside
from xray_classifier.errors import OutputError, UsageError
from xray_classifier.files import FORMULA_STARTS, csv_text, make_folder, printable, write_text
from xray_classifier.terminal import Terminal, command

COLUMNS = ("path", "label", "patient", "split")


def write_manifest(
    target: Path,
    section: DataConfig,
    task: Task,
    manifest: Manifest,
    copies: Copies,
    usable: NDArray[np.bool_],
    terminal: Terminal,
) -> dict[str, Any]:
    """Write a CSV with the images of a manifest and splits without leaks.

    A group that stands in several splits moves to the one that holds most of it. Where the data
    bring no splits, they are carved as training would.

    Args:
        target: The CSV; whatever stands there is replaced.
        section: How the data were read.
        task: What the targets are.
        manifest: The images with the splits that the data bring.
        copies: Which images show the same picture.
        usable: Which images can be decoded, shape (N,); the others are listed with their split.
        terminal: What the user reads.

    Returns:
        Path, whether paths in it need `data.root`, and how many images were moved.

    Raises:
        UsageError: The images are no files.
        OutputError: It cannot be written, or a name cannot stand in a CSV.
        DataError: There are too few patients to carve splits.
    """
    if manifest.kind != "files" or manifest.root is None:
        raise UsageError(
            f"--fix writes a table of image files, and {printable(section.path)} holds none; "
            "data.audit=warn leaves leaked images out of validation and test"
        )
    if any(manifest.splits):
        groups = joined_groups(manifest.patients, copies.near.tolist())
        mended = manifest.with_splits(mended_splits(groups, manifest.splits))
    else:
        mended = placed(section, task, manifest, copies)
    make_folder(target.absolute().parent)
    folder = Path(os.path.realpath(target.absolute().parent))
    below = str(manifest.root) == str(folder) or is_inside(str(manifest.root), str(folder))
    write_text(target, _table(mended, folder if below else manifest.root))
    pairs = list(zip(manifest.splits, mended.splits, strict=True))
    moved = Counter(pair for pair in pairs if pair[0] and pair[0] != pair[1])
    _say(terminal, target, section, mended, moved, below)
    return {
        "path": str(target),
        "root": None if below else str(manifest.root),
        "images_moved": sum(moved.values()),
        "moves": {f"{old} to {new}": count for (old, new), count in sorted(moved.items())},
        "unreadable": int((~usable).sum()),
    }


def _table(manifest: Manifest, folder: Path) -> str:
    """The CSV, with paths relative to a folder."""
    root = manifest.root or folder
    prefix = os.path.relpath(root, folder)
    paths = [name if prefix == "." else f"{prefix}/{name}" for name in manifest.ids]
    odd = [name for name in paths if not _is_unicode(name)]
    if odd:
        raise OutputError(
            f"{len(odd)} file names are no UTF-8 and cannot stand in a CSV, such as "
            f"{printable(odd[0])}; rename them"
        )
    safe = [f"./{name}" if name.startswith(FORMULA_STARTS) else name for name in paths]
    labels = manifest.classes if any(manifest.classes) else manifest.targets.tolist()
    patients = manifest.patients if manifest.patients_known else ("",) * len(manifest)
    others = {name: cells for name, cells in manifest.columns.items() if name not in COLUMNS}
    columns = [safe, labels, patients, manifest.splits, *others.values()]
    return csv_text((*COLUMNS, *others), zip(*columns, strict=True))


def _is_unicode(name: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in name)


def _say(
    terminal: Terminal,
    target: Path,
    section: DataConfig,
    mended: Manifest,
    moved: Counter[tuple[str, str]],
    below: bool,
) -> None:
    how = ", ".join(f"{count:,} from {old} to {new}" for (old, new), count in sorted(moved.items()))
    terminal.say(f"written to {printable(target)}: {how or 'no image had to move'}")
    counts = split_summary(mended.splits, mended.targets, mended.patients, "classify")
    for name, count in counts.items():
        if name and not (count.healthy and count.sick):
            terminal.warn(f"the {name} split now lacks a class; choose other splits for it")
    root = () if below else (f"data.root={mended.root}",)
    labels = labels_override(section.labels.healthy, section.labels.sick, section.labels.ignore)
    train = command("train", "-c", "mlp", f"data.path={target}", *root)
    terminal.say(f"Next: {train} {labels}")
