"""The folder of a run: dated, named, never overwritten, with a list of all runs beside it."""

import contextlib
import os
import platform
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from xray_classifier.errors import OutputError
from xray_classifier.files import csv_row, csv_text, make_folder, printable

INDEX_COLUMNS = ("run", "status", "stop_reason", "best_epoch", "steps", "elapsed_s")
LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "pandas", "safetensors", "scikit-learn")


def new_run_folder(parent: Path, name: str) -> Path:
    """Make `parent/<date>_<name>`, with -2, -3 ... where that exists.

    Raises:
        OutputError: It cannot be made.
    """
    make_folder(parent)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        folder = parent / (f"{stamp}_{name}" + (f"-{number}" if number > 1 else ""))
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(
                f"cannot make the run folder {printable(folder)}: {error.strerror}; "
                "choose another place with -o DIR"
            ) from error
        make_folder(folder / "checkpoints")
        make_folder(folder / "data")
        _point_latest(parent, folder)
        return folder
    raise OutputError(f"{printable(parent)} holds a thousand runs of this very second")


def _point_latest(parent: Path, folder: Path) -> None:
    """Let `latest` lead to the newest run, where the system lets us make links."""
    latest = parent / "latest"
    with contextlib.suppress(OSError):
        if latest.is_symlink():
            latest.unlink()
        if not latest.exists():
            latest.symlink_to(folder.name, target_is_directory=True)


def add_to_index(folder: Path, summary: Mapping[str, Any]) -> None:
    """Append one line about a run to `index.csv` beside it."""
    index = folder.parent / "index.csv"
    row = csv_row([folder.name, *(summary.get(column) for column in INDEX_COLUMNS[1:])])
    try:
        if not index.exists():
            row = csv_text(INDEX_COLUMNS, []) + row
        with index.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(row)
    except OSError as error:
        raise OutputError(f"cannot write {printable(index)}: {error.strerror}") from error


def environment(device: str, threads: int) -> dict[str, Any]:
    """Where a run happened: versions, machine, device; nothing that names a person.

    Args:
        device: As used, such as cpu or cuda:0.
        threads: CPU threads of PyTorch.
    """
    versions = {}
    for library in ("xray-classifier", *LIBRARIES):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[library] = metadata.version(library)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device": device,
        "threads": threads,
        "versions": versions,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
