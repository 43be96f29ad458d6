"""Which images a run began with, so that what changed until it is resumed can be named.

The checkpoint holds one digest of them all, which says whether anything changed; the table in the
run folder says what. Paths are relative to the root, so a moved root is no change.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from xray_classifier.files import csv_text, printable

FINGERPRINTS = "fingerprints.csv"
"""Name of the table, in the folder `data` of a run."""

COLUMNS = ("path", "label", "split", "digest")
SHOWN = 10

Image = tuple[str, str, str]
"""Label, split and digest of an image, as text."""


def fingerprint_table(
    ids: Iterable[str], targets: Iterable[float], splits: Iterable[str], digests: Iterable[str]
) -> str:
    """The table of a run's images as CSV, sorted by path.

    Args:
        ids: Path of each image below the root.
        targets: 0 healthy, 1 sick, or a number.
        splits: Split of each image; empty where it stands in none.
        digests: Digest of each image's content.
    """
    rows = zip(ids, (repr(float(t)) for t in targets), splits, digests, strict=True)
    return csv_text(COLUMNS, sorted(rows))


def data_changes(before: str, now: str) -> list[str]:
    """What differs between two tables, one line per image, in words.

    An image that has another path and the same content, label and split was renamed. One that
    stands in another split comes last, for adding one image can move many.

    Args:
        before: What `fingerprint_table` gave when the run began.
        now: What it gives now.

    Raises:
        ValueError: A text is no such table.
    """
    old, new = _images(before), _images(now)
    gone, come = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    renamed = _renamed(gone, come, old, new)
    lines = [f"renamed: {printable(a)}, now {printable(b)}" for a, b in renamed.items()]
    lines += [f"removed: {printable(path)}" for path in gone if path not in renamed]
    lines += [f"added: {printable(path)}" for path in come if path not in renamed.values()]
    both = sorted(old.keys() & new.keys())
    lines += [f"edited: {printable(path)}" for path in both if old[path][2] != new[path][2]]
    for index, word in ((0, "relabelled"), (1, "moved")):
        for path in both:
            was, is_now = old[path][index], new[path][index]
            if was != is_now:
                lines.append(f"{word}: {printable(path)}, from {_shown(was)} to {_shown(is_now)}")
    return lines


def changes_in_words(run_dir: Path, now: str) -> str:
    """Up to ten of the images that changed since a run began, as indented lines.

    Args:
        run_dir: The run folder.
        now: What `fingerprint_table` gives now.

    Returns:
        Lines, each beginning with a line break; empty where the table of the run is missing,
        cannot be read or tells no difference.
    """
    try:
        # the bytes, for a lone carriage return may be part of a path
        before = (run_dir / "data" / FINGERPRINTS).read_bytes().decode()
        changes = data_changes(before, now)
    except (OSError, ValueError):
        return ""
    more = len(changes) - SHOWN
    rest = [f"... and {more} more"] if more > 0 else []
    return "".join(f"\n  {line}" for line in [*changes[:SHOWN], *rest])


def _images(table: str) -> dict[str, Image]:
    header, *rows = csv.reader(io.StringIO(table, newline=""))
    if tuple(header) != COLUMNS:
        raise ValueError(f"expected the columns {COLUMNS}, got {header}")
    return {path: (label, split, digest) for path, label, split, digest in rows}


def _renamed(
    gone: Iterable[str], come: Iterable[str], old: dict[str, Image], new: dict[str, Image]
) -> dict[str, str]:
    """Old to new path of images whose content, label and split are found under another path."""
    places: dict[Image, list[str]] = {}
    for path in come:
        places.setdefault(new[path], []).append(path)
    return {path: places[old[path]].pop(0) for path in gone if places.get(old[path])}


def _shown(value: str) -> str:
    return value.removesuffix(".0") or "none"
