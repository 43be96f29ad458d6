"""Writing files so that a reader sees the old content or the new, never half of either.

Source: the order write, fsync, rename, fsync of the directory is the one that POSIX needs for a
durable replacement; Pillai et al. 2014, "All File Systems Are Not Created Equal", OSDI.
"""

import contextlib
import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from xray_classifier.errors import OutputError

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the name `path` when the block ends without an error.

    Args:
        path: The final name; its folder must exist. Whatever stands there is replaced.

    Yields:
        A binary file in the same folder. If the block raises, it is removed and `path` untouched.

    Raises:
        OutputError: The operating system refused a step; path and reason are named.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101 - a descriptor-made name, not a Path
        os.replace(temporary, path)  # noqa: PTH105
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(write_refusal(path, error)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable, where the system can do that (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """The permissions that new files are denied; the only way to read it is to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_refusal(path: Path, error: OSError) -> str:
    """Which file the system refused to write, why, and what a person can do about it."""
    advice = {28: "free some space or choose another folder", 30: "choose another folder"}
    what = advice.get(error.errno or 0, "check that the folder exists and may be written to")
    return f"cannot write {printable(path)}: {error.strerror or error}; {what}"


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Replace `path` by some bytes, one part behind the other, durably and at once.

    Raises:
        OutputError: The operating system refused.
    """
    with atomic_file(path) as file:
        for part in parts:
            file.write(part)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_bytes(path: Path) -> bytes:
    """Read a file that the program itself wrote.

    Raises:
        OutputError: It cannot be read any more.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise OutputError(f"cannot read {printable(path)}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` as UTF-8; bytes of a file name that are no UTF-8 are escaped."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON, indented; NaN and infinities become null."""
    write_text(path, to_json(value, indent=2) + "\n")


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON text; NaN and infinities become null, for JSON has no word for them."""
    return json.dumps(without_nan(value), indent=indent, allow_nan=False)


def without_nan(value: Any) -> Any:
    """Plain values with None in place of each NaN and infinity, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return value


def csv_row(cells: Iterable[Any]) -> str:
    """One CSV line with its newline; text that a spreadsheet would execute gets a leading quote.

    Floats keep every digit, None and NaN are empty.
    """
    buffer = io.StringIO()
    # before Python 3.13 only characters of the line's own end are quoted, so both are in it
    csv.writer(buffer, lineterminator="\r\n").writerow([_cell(cell) for cell in cells])
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return repr(float(value))
    text = str(value)
    if isinstance(value, str) and text.startswith(FORMULA_STARTS):
        return "'" + text
    return text


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A whole CSV table as text."""
    return csv_row(header) + "".join(csv_row(row) for row in rows)


def make_folder(path: Path) -> None:
    """Make a folder and its parents; an existing one is fine.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {printable(path)}: {error.strerror}") from error


def printable(name: object) -> str:
    """A file name that is safe on a terminal, in a log and in a message.

    Control characters, line breaks, direction marks and bytes that are no UTF-8 are shown escaped.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(name)
    )
