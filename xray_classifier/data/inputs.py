"""What `predict` is asked to read: folders, files, lists and tables of files, one name at a time.

Nothing is held in memory but a folder at a time; the names go into a file, so that a million of
them can be counted, read twice and shared out.
"""

# ruff: noqa: PTH100, PTH112, PTH113, PTH118, PTH120
# os.path keeps names as they are given, and says False where pathlib raises.

import csv
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from xray_classifier.data.table import SEPARATORS
from xray_classifier.data.tree import Tree, is_inside, walk
from xray_classifier.errors import DataError, UsageError
from xray_classifier.files import printable

LIST_MARK = "@"
PATH_COLUMN = "path"
CHUNK_BYTES = 2**16
MOST_NAME_BYTES = 2**16
"""Longest line of a list; the longest path that systems take has 4,096 bytes."""

PLACES_EVERY = 4096
FOLDER_REASONS = {
    errno.EACCES: "no_permission",
    errno.EPERM: "no_permission",
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
}


class Item(NamedTuple):
    """One row to come.

    Attributes:
        name: What the column `path` says, and the path that is read.
        reason: Why nothing is read, one of `REASONS`; `` where it is.
    """

    name: str
    reason: str = ""


def items_of(
    inputs: Iterable[Path],
    tree: Tree,
    *,
    follow_links: bool = False,
    shown: Callable[[object], str] = printable,
) -> Iterator[Item]:
    """Every file that the arguments mean, in order.

    A folder is searched to the bottom, bytewise by path. `@list.txt` names files line by line, or
    between null bytes, relative to the folder of the list. A CSV file names them in its column
    `path`; what leads out of the folder of the CSV is not read.

    Args:
        inputs: As given on the command line.
        tree: Where what is passed over in folders is counted.
        follow_links: Follow links that lead out of folders.
        shown: What stands for the name of an input in a message.

    Raises:
        UsageError: An input does not exist.
        DataError: A list or table cannot be read.
    """
    for given in inputs:
        path = str(given)
        if path.startswith(LIST_MARK) and len(path) > 1:
            yield from _listed(path[1:], shown)
        elif os.path.isdir(path):
            yield from _in_folder(path, tree, follow_links)
        elif not os.path.lexists(path):
            raise UsageError(f"{shown(path)} does not exist")
        elif path.lower().endswith(".csv") and os.path.isfile(path):
            yield from _in_table(path, follow_links, shown)
        else:
            yield Item(path)


def _in_folder(folder: str, tree: Tree, follow_links: bool) -> Iterator[Item]:
    for entry in walk(Path(folder), tree, follow_links):
        if entry.error is None:
            yield Item(_joined(folder, entry.path))
        else:
            reason = FOLDER_REASONS.get(entry.error.errno or 0, "read_error")
            yield Item(_joined(folder, entry.path.rstrip("/")), reason)


def _joined(folder: str, relative: str) -> str:
    """As pathlib joins, which leaves out a leading `./`."""
    if not relative:
        return folder or os.curdir
    return relative if folder in ("", os.curdir) else os.path.join(folder, relative)


def _listed(path: str, shown: Callable[[object], str]) -> Iterator[Item]:
    folder = os.path.dirname(path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            for name in _names(file, shown(path)):
                yield Item(_joined(folder, os.fsdecode(name)))
    except OSError as error:
        raise UsageError(f"cannot read the list {shown(path)}: {error.strerror}") from error


def _names(file: IO[bytes], where: str) -> Iterator[bytes]:
    """What stands between newlines, or between null bytes if there are any at the beginning."""
    rest = file.read(CHUNK_BYTES).removeprefix(b"\xef\xbb\xbf")
    end = b"\0" if b"\0" in rest else b"\n"
    while rest:
        *whole, rest = rest.split(end)
        if len(rest) > MOST_NAME_BYTES:
            raise DataError(f"{where} is no list of paths, one a line")
        yield from _not_empty(whole, end)
        more = file.read(CHUNK_BYTES)
        if not more:
            break
        rest += more
    yield from _not_empty([rest], end)


def _not_empty(names: Sequence[bytes], end: bytes) -> Iterator[bytes]:
    for name in names:
        kept = name if end == b"\0" else name.removesuffix(b"\r")
        if kept:
            yield kept


def _in_table(path: str, follow_links: bool, shown: Callable[[object], str]) -> Iterator[Item]:
    folder = os.path.dirname(path)
    root = os.path.realpath(folder or os.curdir)
    try:
        with open(  # noqa: PTH123
            path, encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as file:
            for cell in _cells(file, shown(path)):
                outside = _leads_out(cell, root, follow_links)
                yield Item(_joined(folder, cell), "outside_root" if outside else "")
    except OSError as error:
        raise DataError(f"cannot read {shown(path)}: {error.strerror}") from error


def _cells(file: IO[str], where: str) -> Iterator[str]:
    """The column `path` of a CSV file, row by row."""
    first = file.readline(MOST_NAME_BYTES)
    file.seek(0)
    reader = csv.reader(file, delimiter=max(SEPARATORS, key=first.count), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if header.count(PATH_COLUMN) != 1:
            raise DataError(
                f"{where}: expected one column {PATH_COLUMN!r} among {len(header)}; to score the "
                "files of a plain list, write @LIST"
            )
        place = header.index(PATH_COLUMN)
        for row in reader:
            if any(row):
                yield row[place] if place < len(row) else ""
    except csv.Error as error:
        raise DataError(f"{where}:{reader.line_num}: {error}") from error


def _leads_out(cell: str, root: str, follow_links: bool) -> bool:
    """Whether a cell names something that does not lie below a folder, by its words or by links."""
    path = os.path.join(root, cell.replace("\0", ""))
    if not is_inside(os.path.abspath(path), root):
        return True
    return not follow_links and not is_inside(os.path.realpath(path), root)


class Listing:
    """Names and reasons in a file: counted, and read from any place on.

    Args:
        file: Empty and open for reading and writing; it is closed by `close`.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: list[int] = []
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def extend(self, items: Iterable[Item]) -> None:
        """Write down items, behind those there are."""
        self._file.seek(0, os.SEEK_END)
        for item in items:
            self._file.write(json.dumps(item).encode() + b"\n")
        self._file.flush()

    def count(self) -> None:
        """Count what is written, and note where it stands."""
        self._places, self._n, at = [], 0, 0
        self._file.seek(0)
        for line in self._file:
            if self._n % PLACES_EVERY == 0:
                self._places.append(at)
            self._n += 1
            at += len(line)

    def items(self, part: slice) -> Iterator[Item]:
        """Items from `part.start` up to `part.stop`, in order; one reader at a time."""
        start, stop, _ = part.indices(self._n)
        if start >= stop:
            return
        self._file.seek(self._places[start // PLACES_EVERY])
        lines = islice(self._file, start % PLACES_EVERY, start % PLACES_EVERY + stop - start)
        yield from (Item(*json.loads(line)) for line in lines)
