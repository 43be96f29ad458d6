"""Finished rows in a file beside the table to come, so that no work is lost and none done twice.

One JSON value a line. The first says what decides the answers; where another question is asked, the
file is of no use. Each further line is a row: name, size of the file in bytes, its time of change
in nanoseconds, and the cells. What a killed process left half-written at the end is dropped.
"""

import hashlib
import json
import os
import re
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import OutputError
from xray_classifier.files import atomic_file, printable, write_refusal

SYNC_S = 1.0
FORMAT = 1
MOST_NAME_BYTES = 255
"""Longest file name that usual file systems take."""

OFFSET_BITS = 44
MOST_OLD_ROWS = 1000
"""Rows beyond twice what a table needs that a file may hold before it is written anew."""

WRITING, WRITTEN = "writing", "written"
"""Lines that say how far the table is: about to be replaced by these rows, or replaced."""

TRANSIENT = (
    "not_found",
    "no_permission",
    "read_error",
    "not_a_file",
    "decoder_timeout",
    "decoder_memory",
)
"""Reasons that may be gone tomorrow though the file is the same: such rows are not kept."""

Cells = Sequence[Any]


class Stamp(NamedTuple):
    """What tells whether a file has changed since: size in bytes and time of change in ns.

    The time is the later one of the content's and the entry's: a copy that keeps the old time of
    its content has a new entry.
    """

    size: int
    changed_ns: int


NO_STAMP = Stamp(-1, -1)


def stamp_of(name: str) -> Stamp:
    """The stamp of a file; NO_STAMP where there is none."""
    try:
        status = os.stat(name)  # noqa: PTH116
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return NO_STAMP
    return Stamp(status.st_size, max(status.st_mtime_ns, status.st_ctime_ns))


def beside(out: Path, ending: str) -> Path:
    """A hidden file next to a table: `.NAME.ENDING`, shortened where that is too long."""
    name = f".{out.name}.{ending}"
    if len(os.fsencode(name)) > MOST_NAME_BYTES:
        digest = hashlib.sha256(os.fsencode(out.name)).hexdigest()[:16]
        name = f".{out.name[:32]}.{digest}.{ending}"
    return out.with_name(name)


def stores_beside(out: Path) -> list[Path]:
    """The files of rows that lie beside a table, one for each process that wrote some."""
    first = beside(out, "rows")
    pattern = re.compile(re.escape(first.name) + r"(\.\d{1,5})?")
    names = sorted(name for name in os.listdir(out.absolute().parent) if pattern.fullmatch(name))  # noqa: PTH208
    return [out.with_name(name) for name in names]


def remove_leftovers(out: Path) -> None:
    """Remove what atomic writers of a table left when they were killed."""
    pattern = re.compile(re.escape(f".{out.name[:64]}.") + "[a-z0-9_]{8}")
    for name in os.listdir(out.absolute().parent):  # noqa: PTH208
        if pattern.fullmatch(name):
            with suppress(OSError):
                out.with_name(name).unlink()


def answers_for(path: Path, key: Mapping[str, Any]) -> bool:
    """Whether a file of rows holds answers to the question that `key` describes."""
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(2**20))
    except (OSError, ValueError):
        return False
    return bool(first == {"rows": FORMAT, "key": json.loads(json.dumps(key))})


def state_of(path: Path) -> str:
    """The last of WRITING and WRITTEN in a file of rows; `` where there is neither."""
    state = ""
    with suppress(OSError), path.open("rb") as file:
        for line in file:
            if line[:2] == b'"w':
                state = line.decode("ascii", "replace").strip().strip('"')
    return state


class RowStore:
    """The rows of all files beside a table, and one of those to add to.

    A place is one number: which file, and where in it.

    Args:
        paths: Files of rows, the same on every process of a job; those that lack are empty.
        own: Which of them this process adds to.
        key: What decides the answers; files that do not answer for it must be gone.

    Raises:
        OutputError: One of them cannot be read, or the own one not be written.
    """

    def __init__(self, paths: Sequence[Path], own: int, key: Mapping[str, Any]) -> None:
        self._paths, self._own = list(paths), own
        self._first = json.dumps({"rows": FORMAT, "key": key}).encode() + b"\n"
        self._n_added = 0
        self._file = self._opened_for_adding()
        self._readers: dict[int, IO[bytes]] = {}
        self._hashes, self._places = self._indexed()
        self._synced_s = time.monotonic()

    def __len__(self) -> int:
        """Rows that were there when it was opened."""
        return len(self._places)

    def find(self, name: str, stamp: Stamp) -> int | None:
        """The place of the row of a file that is still the same; None: it has to be scored."""
        if stamp == NO_STAMP or not len(self._hashes):
            return None
        wanted = hash(name)
        at = int(np.searchsorted(self._hashes, wanted, side="right")) - 1
        while at >= 0 and self._hashes[at] == wanted:
            place = int(self._places[at])
            known, size, changed_ns, cells = self._record(place)
            if known == name:  # the last one that was written
                same = stamp == (size, changed_ns) and cells[1] not in TRANSIENT
                return place if same else None
            at -= 1
        return None

    def row(self, place: int) -> tuple[Any, ...]:
        """The row at a place: its name and its cells."""
        name, _, _, cells = self._record(place)
        return (name, *cells)

    def add(self, rows: Iterable[tuple[str, Stamp, Cells]]) -> list[int]:
        """Write rows, so that they outlast this process; each second so that they outlast the
        machine.

        Returns:
            The place of each.

        Raises:
            OutputError: The disk is full, or fails.
        """
        at, places, lines = self._end, [], []
        for name, stamp, cells in rows:
            line = json.dumps([name, *stamp, list(cells)], allow_nan=False).encode() + b"\n"
            places.append(self._own << OFFSET_BITS | at)
            lines.append(line)
            at += len(line)
        self._n_added += len(lines)
        with _written(self._paths[self._own]):
            self._append(b"".join(lines))
            if time.monotonic() - self._synced_s > SYNC_S:
                os.fsync(self._file.fileno())
                self._synced_s = time.monotonic()
        return places

    def note(self, state: str) -> None:
        """Write down how far the table is: WRITING or WRITTEN."""
        with _written(self._paths[self._own]):
            self._append(json.dumps(state).encode() + b"\n")
            os.fsync(self._file.fileno())

    def compact(self, places: Sequence[int]) -> None:
        """Keep the rows at some places alone, in one file, if that is less than half of all rows.

        Other processes must be done with their files.

        Raises:
            OutputError: The file cannot be written.
        """
        if len(self) + self._n_added <= 2 * len(places) + MOST_OLD_ROWS:
            return
        with atomic_file(self._paths[0]) as file:
            file.write(self._first)
            for place in places:
                file.write(self._line(place))
            file.write(json.dumps(WRITTEN).encode() + b"\n")
        for path in self._paths[1:]:
            with suppress(OSError):
                path.unlink()

    def close(self) -> None:
        """Let go of all files."""
        for file in (self._file, *self._readers.values()):
            file.close()

    def _append(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]
        self._end += len(content)

    def _record(self, place: int) -> Any:
        return json.loads(self._line(place))

    def _line(self, place: int) -> bytes:
        which = place >> OFFSET_BITS
        if which not in self._readers:
            self._readers[which] = _opened(self._paths[which])
        self._readers[which].seek(place & (1 << OFFSET_BITS) - 1)
        return self._readers[which].readline()

    def _opened_for_adding(self) -> IO[bytes]:
        path = self._paths[self._own]
        with _written(path):
            if path.is_symlink():
                raise OutputError(f"{printable(path)} is a link; remove it")
            file = path.open("ab", buffering=0)
            self._end = _whole_bytes(path)
            file.truncate(self._end)
            if not self._end:
                self._file = file
                self._append(self._first)
        return file

    def _indexed(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hashes of all names, sorted, and the place of each; of equal ones the last comes last."""
        hashes, places = array("q"), array("q")
        for which, path in enumerate(self._paths):
            for at, name in _named_lines(path):
                hashes.append(hash(name))
                places.append(which << OFFSET_BITS | at)
        found = np.frombuffer(hashes, np.int64) if hashes else np.zeros(0, np.int64)
        order = np.argsort(found, kind="stable")
        all_places = np.frombuffer(places, np.int64) if places else np.zeros(0, np.int64)
        return found[order], all_places[order]


def _named_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Where each row of a file begins, and its name; what is no row is passed over."""
    if not path.exists():
        return
    at = 0
    with _opened(path) as file:
        for line in file:
            if line.startswith(b"[") and line.endswith(b"\n"):
                with suppress(ValueError):
                    name, _, _, cells = json.loads(line)
                    if isinstance(name, str) and isinstance(cells, list):
                        yield at, name
            at += len(line)


def _whole_bytes(path: Path) -> int:
    """Length of a file up to its last newline."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 2**16)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise OutputError(f"cannot read {printable(path)}: {error.strerror}") from error


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(write_refusal(path, error)) from error
