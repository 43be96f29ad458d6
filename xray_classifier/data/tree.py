"""Every file below a folder: one order on every machine, nothing outside it, no endless loop."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

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
    top = os.path.realpath(root)
    waiting = [(top, "")]
    while waiting:
        folder, prefix = waiting.pop()
        for entry in _entries(folder):
            path = prefix + entry.name
            if is_hidden(entry.name):
                tree.hidden[entry.name] += 1
            elif entry.is_symlink():
                _add_link(tree, entry.path, path, top)
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, path + "/"))
            elif entry.is_file(follow_symlinks=False):
                tree.files.append(path)
            else:
                tree.special += 1
    tree.files.sort(key=os.fsencode)
    return tree


def is_inside(path: str, folder: str) -> bool:
    """Whether a path lies below a folder; both absolute and free of links."""
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"cannot list {printable(folder)}: {error.strerror}") from error


def _add_link(tree: Tree, link: str, path: str, top: str) -> None:
    # os.path says False where pathlib raises, as for a link to a name that is too long.
    target = os.path.realpath(link)
    if os.path.isdir(target):  # noqa: PTH112
        tree.folder_links += 1
    elif os.path.isfile(target) and is_inside(target, top):  # noqa: PTH113
        tree.files.append(path)
    else:
        tree.outside += 1
