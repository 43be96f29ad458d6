"""Every file below a folder: one order on every machine, nothing outside it, no endless loop."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from xray_classifier.errors import DataError
from xray_classifier.files import printable

HIDDEN_NAMES = ("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin")


@dataclass
class Tree:
    """What `list_tree` saw."""

    files: list[str] = field(default_factory=list)
    """Posix path of each regular file relative to the root, sorted bytewise."""
    hidden: Counter[str] = field(default_factory=Counter)
    """Hidden files and folders passed over, by name; a hidden folder counts once."""
    outside: int = 0
    """Links to files outside the root, and broken links: not followed."""
    folder_links: int = 0
    """Links to folders: not followed, for they may lead outside or in a circle."""
    special: int = 0
    """Pipes, sockets and devices: never opened."""

    def notes(self) -> tuple[str, ...]:
        """What was passed over, one sentence each."""
        if not self.hidden:
            return self.skipped()
        names = ", ".join(f"{printable(n)}: {k}" for n, k in sorted(self.hidden.items())[:5])
        more = f", and {len(self.hidden) - 5} more names" if len(self.hidden) > 5 else ""
        count = self.hidden.total()
        return (f"hidden files or folders ignored: {count} ({names}{more})", *self.skipped())

    def skipped(self) -> tuple[str, ...]:
        """What was passed over although nothing hides it, one sentence each."""
        parts = (
            ("links ignored that lead nowhere or out of the folder", self.outside),
            ("links to folders not followed", self.folder_links),
            ("pipes, sockets or devices ignored", self.special),
        )
        return tuple(f"{what}: {count}" for what, count in parts if count)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is an operating system's or editor's own (`.DS_Store`, ...)."""
    return name.startswith(".") or name.casefold() in HIDDEN_NAMES


class Entry(NamedTuple):
    """One thing that `walk` found.

    Attributes:
        path: Posix path relative to the root; `` for the root itself. Names that are no UTF-8 hold
            surrogate escapes.
        error: Why the folder of that name cannot be looked into; None: it is a file.
    """

    path: str
    error: OSError | None = None


def list_tree(root: Path) -> Tree:
    """List the files below a folder.

    Links to files inside the root are files like any other; no other link is followed.

    Args:
        root: An existing folder.

    Returns:
        The files and what was passed over. Names that are no UTF-8 hold surrogate escapes.

    Raises:
        DataError: A folder cannot be listed.
    """
    tree = Tree()
    for entry in walk(root, tree):
        if entry.error is not None:
            folder = os.path.join(os.path.realpath(root), entry.path).rstrip(os.sep)  # noqa: PTH118
            why = entry.error.strerror
            raise DataError(f"cannot list {printable(folder)}: {why}") from entry.error
        tree.files.append(entry.path)
    return tree


def walk(root: Path, tree: Tree, follow_links: bool = False) -> Iterator[Entry]:
    """The files below a folder one by one, bytewise by path; a folder at a time is in memory.

    Args:
        root: An existing folder.
        tree: Where what is passed over is counted; its `files` are left alone.
        follow_links: Follow links that lead out of the root as well. A folder inside the root is
            never entered through a link, and one outside through one link only, so that every loop
            ends and no link makes a file come twice.
    """
    walker = _Walker(os.path.realpath(root), tree, follow_links)
    waiting = [walker.entries("")]
    while waiting:
        if not waiting[-1]:
            waiting.pop()
            continue
        name, error = waiting[-1].pop()
        if error is None and name.endswith("/"):
            waiting.append(walker.entries(name))
        else:
            yield Entry(name.removesuffix("/"), error)


def is_inside(path: str, folder: str) -> bool:
    """Whether a path lies below a folder; both absolute and free of links."""
    return path.startswith(folder.rstrip(os.sep) + os.sep)


class _Walker:
    """Looks into one folder after the other below a root."""

    def __init__(self, top: str, tree: Tree, follow_links: bool) -> None:
        self._top, self._tree, self._follow_links = top, tree, follow_links
        self._followed: set[str] = set()

    def entries(self, folder: str) -> list[tuple[str, OSError | None]]:
        """Files and, ending in a slash, folders inside a folder, last one first.

        Args:
            folder: Relative to the root: `` or a path that ends in a slash.
        """
        try:
            with os.scandir(os.path.join(self._top, folder)) as found:  # noqa: PTH118
                entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            return [(folder, error)]
        names = [folder + end for entry in entries if (end := self._end(entry))]
        # With its slash a folder stands where all that is in it stands.
        names.sort(key=os.fsencode, reverse=True)
        return [(name, None) for name in names]

    def _end(self, entry: "os.DirEntry[str]") -> str:
        """The last part of a path, with a slash for a folder; `` for what is passed over."""
        if is_hidden(entry.name):
            self._tree.hidden[entry.name] += 1
        elif entry.is_symlink():
            return self._end_of_link(entry)
        elif entry.is_dir(follow_symlinks=False):
            return entry.name + "/"
        elif entry.is_file(follow_symlinks=False):
            return entry.name
        else:
            self._tree.special += 1
        return ""

    def _end_of_link(self, entry: "os.DirEntry[str]") -> str:
        # os.path says False where pathlib raises, as for a link to a name that is too long.
        target = os.path.realpath(entry.path)
        inside = target == self._top or is_inside(target, self._top)
        if os.path.isdir(target):  # noqa: PTH112
            if self._follow_links and not inside and self._is_new(target):
                return entry.name + "/"
            self._tree.folder_links += 1
        elif os.path.isfile(target) and (inside or self._follow_links):  # noqa: PTH113
            return entry.name
        else:
            self._tree.outside += 1
        return ""

    def _is_new(self, target: str) -> bool:
        """Whether a folder has not been entered through a link, nor holds the root."""
        if target in self._followed or is_inside(self._top, target):
            return False
        self._followed.add(target)
        return True
