"""A manifest in which patients and copies of a picture stand in one split, whole."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.config import DataConfig
from xray_classifier.data.leaks import Copies, joined_groups, mended_splits
from xray_classifier.data.loading import Task, placed
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.splits import SPLITS, split_summary, strata_of
from xray_classifier.data.tree import is_inside
from xray_classifier.errors import OutputError, UsageError
from xray_classifier.files import FORMULA_STARTS, csv_text, make_folder, printable, write_text
from xray_classifier.terminal import Terminal

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
    root = require_files(manifest)
    if any(manifest.splits):
        groups = joined_groups(manifest.patients, copies.near.tolist())
        strata = strata_of(manifest.targets, task)
        mended = manifest.with_splits(mended_splits(groups, manifest.splits, strata))
    else:
        mended = placed(section, task, manifest, copies)
    make_folder(target.absolute().parent)
    folder = Path(os.path.realpath(target.absolute().parent))
    below = str(root) == str(folder) or is_inside(str(root), str(folder))
    write_text(target, _table(mended, folder if below else root))
    pairs = list(zip(manifest.splits, mended.splits, strict=True))
    moved = Counter(pair for pair in pairs if pair[0] and pair[0] != pair[1])
    _say(terminal, target, manifest, mended, moved)
    return {
        "path": str(target),
        "root": None if below else str(root),
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


def require_files(manifest: Manifest) -> Path:
    """The folder of image files that a manifest lists.

    Raises:
        UsageError: The images are no files.
    """
    if manifest.kind != "files" or manifest.root is None:
        raise UsageError(
            "--fix writes a table of image files, and these images are none; data.audit=warn "
            "leaves leaked images out of validation and test"
        )
    return manifest.root


def check_target(target: Path, force: bool) -> None:
    """Refuse, before any work, a manifest that must not or cannot be written.

    Raises:
        UsageError: Its name is not that of a CSV.
        OutputError: It exists, and may not be replaced.
    """
    if target.suffix.lower() != ".csv":
        raise UsageError(f"--fix {printable(target)}: name a .csv file")
    if os.path.lexists(target) and not force:
        raise OutputError(f"{printable(target)} exists; name another file or add --force")


def _say(
    terminal: Terminal,
    target: Path,
    before: Manifest,
    after: Manifest,
    moved: Counter[tuple[str, str]],
) -> None:
    how = ", ".join(f"{count:,} from {old} to {new}" for (old, new), count in sorted(moved.items()))
    made = "no image had to move" if any(before.splits) else "splits were made"
    terminal.say(f"written to {printable(target)}: {how or made}")
    old = split_summary(before.splits, before.targets, before.patients, "classify")
    new = split_summary(after.splits, after.targets, after.patients, "classify")
    for name in (*SPLITS, ""):
        one, other = old.get(name), new.get(name)
        if one is not None or other is not None:
            was, now = (0 if count is None else count.images for count in (one, other))
            terminal.say(f"  {name or 'no split':<9}{was:>7,} -> {now:>7,} images")
    for name in SPLITS:
        if name in old and (name not in new or not (new[name].healthy and new[name].sick)):
            what = "is now empty" if name not in new else "now lacks a class"
            terminal.warn(
                f"the {name} split {what}: give some of its patients back in {printable(target)}, "
                "or take the column out to have splits made anew"
            )
