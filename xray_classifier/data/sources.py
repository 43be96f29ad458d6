"""Images with their class names, as a folder tree or the phantom generator bring them."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xray_classifier.data.splits import split_name
from xray_classifier.data.tree import Tree, list_tree
from xray_classifier.errors import DataError
from xray_classifier.files import printable

IMAGE_SUFFIXES = (
    "png", "jpg", "jpeg", "jpe", "jfif", "tif", "tiff", "bmp", "dcm", "dicom", "webp", "gif", "jp2",
    "j2k", "pgm", "ppm", "pnm",
)  # fmt: skip
LAYOUTS = (
    "expected class folders with images in them (NORMAL/a.png, PNEUMONIA/b.png), with or without "
    "train, val and test folders above (train/NORMAL/a.png)"
)


@dataclass(frozen=True)
class Found:
    """Images and what the data say of each, before any label is given a meaning.

    All columns have one entry per image, length n_images.
    """

    kind: Literal["files", "npz", "phantoms"]
    root: Path | None
    ids: tuple[str, ...]
    """Unique name of each image; for files the posix path below `root`."""
    classes: tuple[str, ...]
    """Class name, or the text of the number to predict."""
    splits: tuple[str, ...]
    """train, val, test, or `` where the data say nothing."""
    files: tuple[Path, ...] = ()
    """Absolute path of each image; empty for other kinds than files."""
    patients: tuple[str, ...] | None = None
    """Patient key, `` where one image lacks it; None if the data have no such column."""
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Other columns of a CSV."""
    lines: tuple[int, ...] = ()
    """Line of each image in a CSV; empty for other sources."""
    notes: tuple[str, ...] = ()
    """What a person should know, one sentence each."""
    phantom_seed: int | None = None
    """Which phantoms; None for other kinds."""
    phantom_rows: tuple[int, ...] = ()
    """Number of each phantom in the series of its seed; empty for other kinds."""


def is_image_name(name: str) -> bool:
    """Whether a file may be an image, by its name.

    Names without a suffix, and names that end in a number as DICOM UIDs do, may be DICOM.
    """
    _, dot, suffix = name.rpartition(".")
    return not dot or suffix.isdigit() or suffix.lower() in IMAGE_SUFFIXES


def find_in_folder(root: Path) -> Found:
    """The images of class folders, with or without split folders above them.

    Args:
        root: An existing folder.

    Returns:
        One entry per image, sorted bytewise by path.

    Raises:
        DataError: There is no image, or none in a class folder.
    """
    tree = list_tree(root)
    images = [path for path in tree.files if is_image_name(path.rpartition("/")[2])]
    placed = [(path, *_place(path)) for path in images]
    rows = [(path, split, label) for path, split, label in placed if label is not None]
    if not rows:
        raise DataError(_nothing_found(root, tree, images))
    top = Path(os.path.realpath(root))
    return Found(
        kind="files",
        root=top,
        ids=tuple(path for path, _, _ in rows),
        classes=tuple(label for _, _, label in rows),
        splits=tuple(split for _, split, _ in rows),
        files=tuple(top / path for path, _, _ in rows),
        notes=(*tree.notes(), *_other_notes(tree, images, len(rows))),
    )


def find_phantoms(n_images: int, seed: int) -> Found:
    """The synthetic films that a seed stands for; none is drawn here."""
    from xray_classifier.data.phantoms import phantom_table

    table = phantom_table(n_images, seed)
    return Found(
        kind="phantoms",
        root=None,
        ids=tuple(table.ids),
        classes=tuple("sick" if label else "healthy" for label in table.labels),
        splits=("",) * len(table.ids),
        patients=tuple(table.patients),
        phantom_seed=seed,
        phantom_rows=tuple(range(len(table.ids))),
    )


def _place(path: str) -> tuple[str, str | None]:
    """The split and class that the folders of a relative path name; class None: no class folder."""
    folders = path.split("/")[:-1]
    split = split_name(folders[0]) if folders else None
    below = folders[1:] if split else folders
    return split or "", below[0] if below else None


def _nothing_found(root: Path, tree: Tree, images: Sequence[str]) -> str:
    where = printable(root)
    seen = "".join(f"; {note}" for note in tree.notes())
    if not images:
        kinds = "".join(f"; {note}" for note in _other_notes(tree, images, 0))
        return f"{where}: no images found{seen}{kinds}; {LAYOUTS}"
    return (
        f"{where}: images found: {len(images)}, for example {printable(images[0])}, but none in a "
        f"class folder{seen}; {LAYOUTS}, or a CSV file with the columns path and label"
    )


def _other_notes(tree: Tree, images: Sequence[str], n_rows: int) -> tuple[str, ...]:
    """Notes on files that are no rows and on folders that may not mean what they seem to."""
    others = Counter(
        "." + path.rpartition(".")[2].lower()
        for path in tree.files
        if not is_image_name(path.rpartition("/")[2])
    )
    kinds = ", ".join(f"{printable(kind)}: {count}" for kind, count in others.most_common(5))
    heads = [path.split("/") for path in images]
    names = {parts[0] for parts in heads if len(parts) > 2 and split_name(parts[0])}
    twice = sorted(n for n in names if sum(split_name(m) == split_name(n) for m in names) > 1)
    inner = sum(len(p) > 2 and not split_name(p[0]) and bool(split_name(p[1])) for p in heads)
    wrapper = _wrapper(heads)
    parts = (
        (others.total(), f"files ignored that are no images: {others.total()} ({kinds})"),
        (len(images) - n_rows, f"images ignored outside any class folder: {len(images) - n_rows}"),
        (twice, f"the folders {', '.join(map(printable, twice))} are read as one split"),
        (
            inner,
            f"images in folders named as a split below another folder: {inner}; only folders "
            "directly below data.path are read as splits",
        ),
        (wrapper, f"all images lie below the folder {printable(wrapper)}: is data.path one short?"),
    )
    return tuple(text for holds, text in parts if holds)


def _wrapper(heads: Sequence[Sequence[str]]) -> str:
    """The one folder that holds all others, such as an archive's own; `` if there is none."""
    tops = {parts[0] for parts in heads}
    inner = {parts[1] for parts in heads if len(parts) > 2}
    top = min(tops, default="")
    alone = len(tops) == 1 and len(inner) > 1 and all(len(parts) > 2 for parts in heads)
    return top if alone and not split_name(top) else ""
