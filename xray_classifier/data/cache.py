"""Decode every image once, into memory-mapped arrays that later runs open at once.

An entry is a folder named by a key over the images' content and the decode settings. It is verified
whenever it is opened. Of several processes that need the same entry, one builds it and the others
wait; a build that was killed goes on where it was.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.cache_build import (
    Progress,
    build_entry,
    lock_of,
    rows_done,
)
from xray_classifier.data.cache_entry import Entry, open_entry
from xray_classifier.data.content import DIGESTS_NAME, content_digests
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.preparing import Settings, prepared_images
from xray_classifier.data.signature import Signatures
from xray_classifier.errors import DataError, OutputError
from xray_classifier.files import make_folder, printable
from xray_classifier.locks import if_free, turn

DECODER_VERSION = 4  # raise it when decoding gives other pixels, so that old entries are not used
TRIES = 3
ENTRY_NAME = re.compile(r"([0-9a-f]{24})|\.([0-9a-f]{24})\..+")


@dataclass(frozen=True)
class CachedImages:
    """All images of a manifest, decoded.

    Attributes:
        images: (N, S, S) uint8 memory map, in manifest order; zeros where decoding failed.
        signatures: (N,) of SIGNATURE, memory map; zeros where decoding failed.
        reasons: Why an image could not be decoded, (N,) codes; empty where it could.
        details: The same in words, with what to do, (N,) texts; nothing in them is of the file.
        digests: Content digest per image, (N,) hexadecimal texts; files by their bytes.
        reused: True when this run decoded nothing.
    """

    images: NDArray[np.uint8]
    signatures: Signatures
    reasons: tuple[str, ...]
    details: tuple[str, ...]
    digests: tuple[str, ...]
    reused: bool


def default_cache_folder() -> Path:
    """The user's cache directory: $XDG_CACHE_HOME, %LOCALAPPDATA% or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "xray_classifier"


def cached_images(
    manifest: Manifest,
    *,
    size: int,
    crop: str,
    intensity: str,
    for_processing: str = "reject",
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
    waiting: Callable[[str], None] | None = None,
) -> CachedImages:
    """Decoded images of a manifest, from the cache where it has them.

    Args:
        manifest: Which images.
        size: Side S of the result in pixels.
        crop: center, pad or stretch.
        intensity: equalize, zscore, minmax or dataset.
        for_processing: `reject` or `accept` DICOM images that are raw detector data.
        folder: The cache folder; made when missing.
        workers: Decoding threads or processes; None is one per core.
        progress: Called with (done, total) now and then while this or another process decodes.
        waiting: Called with a sentence, once, if another process is decoding the same images.

    Raises:
        OutputError: The cache folder cannot be written.
        DataError: The NPZ file cannot be read, or the images change all the time.
    """
    make_folder(folder)
    workers = workers or os.cpu_count() or 1
    settings = Settings(size, crop, intensity, for_processing)
    for _ in range(TRIES):
        digests = content_digests(manifest, folder, workers)
        entry = folder / entry_key(digests, settings)
        opened = open_entry(entry, len(manifest), size, workers)
        reused = opened is not None
        if opened is None:
            with turn(lock_of(entry), _Wait(entry, len(manifest), progress, waiting)):
                opened, reused = _built(entry, manifest, digests, settings, workers, progress)
        if opened is not None:
            told = [opened.reasons.get(str(row), "") for row in range(len(manifest))]
            return CachedImages(
                images=opened.images,
                signatures=opened.signatures,
                reasons=tuple(text.partition("\n")[0] for text in told),
                details=tuple(text.partition("\n")[2] for text in told),
                digests=digests,
                reused=reused,
            )
    raise DataError(
        "images changed while they were decoded, each time of "
        f"{TRIES}; wait until nothing writes to {printable(manifest.root)}"
    )


def is_decoded(manifest: Manifest, settings: Settings, folder: Path, workers: int | None) -> bool:
    """Whether the cache has an entry for these images; it is not verified.

    Raises:
        OutputError: The cache folder cannot be written.
    """
    make_folder(folder)
    digests = content_digests(manifest, folder, workers or os.cpu_count() or 1)
    return (folder / entry_key(digests, settings)).is_dir()


def entry_key(digests: Sequence[str], settings: Settings) -> str:
    """Name of a cache entry: a digest of the images' content, their order and the settings."""
    s = settings
    state = hashlib.blake2b(digest_size=12)
    described = [DECODER_VERSION, s.size, s.crop, s.intensity, s.for_processing]
    state.update(json.dumps(described).encode())
    for digest in digests:
        state.update(digest.encode() + b"\n")
    return state.hexdigest()


class _Wait:
    """What happens while another process builds the entry."""

    def __init__(
        self,
        entry: Path,
        n_images: int,
        progress: Progress | None,
        waiting: Callable[[str], None] | None,
    ) -> None:
        self.entry = entry
        self.n_images = n_images
        self.progress = progress
        self.waiting = waiting

    def __call__(self) -> None:
        if self.waiting is not None:
            self.waiting("another process is decoding the same images; waiting for it")
            self.waiting = None
        if self.progress is not None:
            self.progress(rows_done(self.entry, self.n_images), self.n_images)


def _built(
    entry: Path,
    manifest: Manifest,
    digests: Sequence[str],
    settings: Settings,
    workers: int,
    progress: Progress | None,
) -> tuple[Entry | None, bool]:
    """The entry, and whether another process had built it; None if the data changed meanwhile."""
    opened = open_entry(entry, len(manifest), settings.size, workers)
    if opened is not None:
        return opened, True
    shutil.rmtree(entry, ignore_errors=True)
    done = build_entry(
        entry,
        len(manifest),
        settings.size,
        lambda rows: prepared_images(manifest, rows, settings, workers),
        unchanged=lambda: content_digests(manifest, entry.parent, workers) == digests,
        workers=workers,
        progress=progress,
    )
    if not done:
        return None, False
    opened = open_entry(entry, len(manifest), settings.size, workers)
    if opened is None:
        raise OutputError(f"the cache at {printable(entry)} cannot be read back; set data.cache")
    return opened, False


def cache_entries(folder: Path) -> list[tuple[Path, int]]:
    """The entries of a cache folder with their sizes in bytes, largest first.

    Unfinished ones, whose names begin with a dot, are among them if they take space.
    """
    sized = [(path, _size_bytes(path)) for path in _entry_folders(folder)]
    return sorted((pair for pair in sized if pair[1]), key=lambda pair: pair[1], reverse=True)


def _entry_folders(folder: Path) -> list[Path]:
    """Folders of ours, finished or abandoned; others in the same place are left alone."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return [path for path in inside if _key_of(path) and path.is_dir() and not path.is_symlink()]


def _key_of(path: Path) -> str:
    """The key in the name of an entry, of its unfinished folder or of its lock; `` elsewhere."""
    found = ENTRY_NAME.fullmatch(path.name)
    return "".join(found.groups("")) if found else ""


def _size_bytes(entry: Path) -> int:
    try:
        return sum(file.stat().st_size for file in entry.iterdir())
    except OSError:  # it was renamed or removed meanwhile
        return 0


def clear_cache(folder: Path) -> int:
    """Remove every entry, finished or abandoned, but none that is being built.

    Returns:
        The bytes freed.

    Raises:
        OutputError: The folder cannot be written.
    """
    freed = 0
    for entry in _entry_folders(folder):
        freed += _removed_bytes(entry)
    for path in folder.glob(".*.lock"):
        if _key_of(path):
            with if_free(path):
                pass  # a lock that nobody holds is removed at the end
    with contextlib.suppress(OSError):
        (folder / DIGESTS_NAME).unlink()
    return freed


def _removed_bytes(path: Path) -> int:
    """Remove the folder of an entry unless a process is building it; how much that frees."""
    with if_free(lock_of(path.with_name(_key_of(path)))) as free:
        if not free:
            return 0
        size_bytes = _size_bytes(path)
        shutil.rmtree(path, ignore_errors=True)
        return size_bytes
