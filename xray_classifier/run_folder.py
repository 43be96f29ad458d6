"""The folder of a run: dated, named, never overwritten, with a list of all runs beside it."""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from xray_classifier.errors import OutputError
from xray_classifier.files import csv_row, csv_text, make_folder, printable, write_text

STATE_NAMES = ("last.safetensors", "previous.safetensors")
INDEX_COLUMNS = ("run", "status", "stop_reason", "best_epoch", "steps", "elapsed_s")
LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "pandas", "safetensors", "scikit-learn")


def time_stamp() -> str:
    """This second in local time, as folders are named: 20261122-101500."""
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def fresh_folder(parent: Path, name: str) -> Path:
    """Make `parent/name`, with -2, -3 ... where that exists; two processes get two folders.

    Raises:
        OutputError: It cannot be made.
    """
    make_folder(parent)
    for number in range(1, 1000):
        folder = parent / (name + (f"-{number}" if number > 1 else ""))
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {printable(folder)}: {error.strerror}; choose another "
                "place with -o DIR"
            ) from error
        return folder
    raise OutputError(f"{printable(parent)} holds a thousand folders of this very second")


def new_run_folder(parent: Path, name: str) -> Path:
    """Make `parent/<date>_<name>`, with -2, -3 ... where that exists.

    Raises:
        OutputError: It cannot be made.
    """
    folder = fresh_folder(parent, f"{time_stamp()}_{name}")
    make_folder(folder / "checkpoints")
    make_folder(folder / "data")
    _point_latest(parent, folder)
    return folder


def run_of_launch(parent: Path, launch: str | None) -> Path | None:
    """The run under `parent` that a launcher began before it started its processes again.

    Args:
        parent: Folder of run folders.
        launch: As env.json of the run says; None finds nothing.

    Returns:
        The newest such run whose state can be resumed, or None.
    """
    if launch is None or not parent.is_dir():
        return None
    for folder in sorted((p for p in parent.iterdir() if not p.is_symlink()), reverse=True):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            known = json.loads((folder / "env.json").read_bytes()).get("launch")
            states = [folder / "checkpoints" / name for name in STATE_NAMES]
            if known == launch and any(state.is_file() for state in states):
                return folder
    return None


def _point_latest(parent: Path, folder: Path) -> None:
    """Let `latest` lead to the newest run, where the system lets us make links."""
    latest = parent / "latest"
    with contextlib.suppress(OSError):
        if latest.is_symlink():
            latest.unlink()
        if not latest.exists():
            latest.symlink_to(folder.name, target_is_directory=True)


def add_to_index(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write the line of a run in `index.csv` beside it; a resumed run keeps one line."""
    index = folder.parent / "index.csv"
    row = csv_row([folder.name, *(summary.get(column) for column in INDEX_COLUMNS[1:])])
    try:
        known = index.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        known = [csv_text(INDEX_COLUMNS, [])]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise OutputError(f"cannot read {printable(index)}: {reason}; move it away") from error
    others = [line for line in known if not line.startswith(f"{folder.name},")]
    write_text(index, "".join([*others, row]))


def command_line() -> list[str]:
    """The words that started this process, the program without its folder."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


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
    }
