"""Decode every image once, in parallel, into one memory-mapped array that later runs open at once.

An entry is a folder named by a key over the images' content and the decode settings:
`images.npy` (N, S, S) uint8, `index.json` with reasons, content digests and the array's checksum.
It is built under a temporary name and renamed, so that a killed build leaves nothing half-made and
two builds at once do not meet.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.decode import decode_file, film_from_array, prepare
from xray_classifier.data.manifest import Manifest, NpzImages
from xray_classifier.data.phantom_workers import drawn_in_order
from xray_classifier.data.phantoms import PHANTOM_RECIPE
from xray_classifier.errors import DecodeError, OutputError
from xray_classifier.files import make_folder, printable, write_json

DECODER_VERSION = 1  # raise it when decoding gives other pixels, so that old entries are not used
WINDOW = 512
ARRAY_NAME = "images.npy"
INDEX_NAME = "index.json"
DIGESTS_NAME = "digests.json"
ENTRY_NAME = re.compile(r"[0-9a-f]{24}|\.[0-9a-f]{24}\..+")

Progress = Callable[[int, int], None]
Decoded = NDArray[np.uint8] | DecodeError


@dataclass(frozen=True)
class CachedImages:
    """All images of a manifest, decoded.

    Attributes:
        images: (N, S, S) uint8 memory map, in manifest order; zeros where decoding failed.
        reasons: Why an image could not be decoded, (N,) texts; empty where it could.
        digests: Content digest per image, (N,) hexadecimal texts; files by their bytes.
        reused: True when an earlier run had decoded everything.
    """

    images: NDArray[np.uint8]
    reasons: tuple[str, ...]
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
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CachedImages:
    """Decoded images of a manifest, from the cache where it has them.

    Args:
        manifest: Which images.
        size: Side S of the result in pixels.
        crop: center, pad or stretch.
        intensity: equalize, zscore, minmax or dataset.
        folder: The cache folder; made when missing.
        workers: Decoding threads; None is one per core.
        progress: Called with (done, total) now and then while decoding.

    Raises:
        OutputError: The cache folder cannot be written.
        DataError: The NPZ file cannot be read.
    """
    make_folder(folder)
    workers = workers or os.cpu_count() or 1
    digests = content_digests(manifest, folder, workers)
    entry = folder / entry_key(digests, size, crop, intensity)
    reused = entry.is_dir()
    shape = (len(manifest), size, size)
    opened = _open_entry(entry, shape)
    if opened is None:
        reused = False
        shutil.rmtree(entry, ignore_errors=True)
        films = _films(manifest, size, crop, intensity, workers)
        _build_entry(entry, films, len(manifest), size, progress)
        opened = _open_entry(entry, shape)
    if opened is None:
        raise OutputError(f"the cache at {printable(entry)} cannot be read back; set data.cache")
    images, reasons = opened
    return CachedImages(images, reasons, digests, reused)


def entry_key(digests: Sequence[str], size: int, crop: str, intensity: str) -> str:
    """Name of a cache entry: a digest of the images' content, their order and the settings."""
    state = hashlib.blake2b(digest_size=12)
    state.update(json.dumps([DECODER_VERSION, size, crop, intensity]).encode())
    for digest in digests:
        state.update(digest.encode() + b"\n")
    return state.hexdigest()


def content_digests(manifest: Manifest, folder: Path, workers: int) -> tuple[str, ...]:
    """A digest per image: of a file's bytes, or of the NPZ file or phantom recipe and the id."""
    if manifest.kind == "files":
        return _file_digests(manifest, folder, workers)
    if manifest.kind == "npz" and manifest.root is not None:
        whole = _digest_file(manifest.root)[0]
    else:
        whole = f"phantoms {PHANTOM_RECIPE} {manifest.phantom_seed}"
    return tuple(_short_digest(f"{whole} {row}".encode()) for row in manifest.ids)


def _short_digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _digest_file(path: Path) -> tuple[str, int, int]:
    """Digest of a file's bytes, its size and time; a digest of its name if it is unreadable."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            state = hashlib.blake2b(digest_size=16)
            while block := file.read(2**20):
                state.update(block)
    except OSError:
        return _short_digest(b"unreadable " + os.fsencode(path)), -1, -1
    return state.hexdigest(), status.st_size, status.st_mtime_ns


def _file_digests(manifest: Manifest, folder: Path, workers: int) -> tuple[str, ...]:
    """Digest every file; files whose size and time are unchanged are not read again."""
    known = _load_known(folder / DIGESTS_NAME)
    status = [_status(path) for path in manifest.files]
    names = [os.fsencode(path).hex() for path in manifest.files]
    stale = [
        row
        for row, name in enumerate(names)
        if status[row] is None or known.get(name, [None])[:2] != status[row]
    ]
    if stale:
        with ThreadPoolExecutor(workers) as pool:
            fresh = pool.map(_digest_file, (manifest.files[row] for row in stale))
            for row, (digest, size_bytes, time_ns) in zip(stale, fresh, strict=True):
                known[names[row]] = [size_bytes, time_ns, digest]
        write_json(folder / DIGESTS_NAME, known)
    return tuple(known[name][2] for name in names)


def _status(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _load_known(path: Path) -> dict[str, list[Any]]:
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {k: v for k, v in known.items() if isinstance(v, list) and len(v) == 3}


def _films(
    manifest: Manifest, size: int, crop: str, intensity: str, workers: int
) -> Iterator[Decoded]:
    """Every image of a manifest as (S, S) uint8, in order, or why there is none."""
    if manifest.kind == "phantoms":
        seed = manifest.phantom_seed or 0
        return drawn_in_order(seed, manifest.phantom_rows, size, crop, intensity, workers)
    if manifest.kind == "files" or manifest.root is None:
        files = manifest.files
        return decode_in_order(
            lambda row: decode_file(files[row], size, crop, intensity), len(manifest), workers
        )
    arrays = NpzImages(manifest.root)
    return decode_in_order(
        lambda row: prepare(film_from_array(arrays.read(manifest.ids[row])), size, crop, intensity),
        len(manifest),
        workers,
    )


def decode_in_order(
    decode: Callable[[int], NDArray[np.uint8]], n: int, workers: int
) -> Iterator[Decoded]:
    """Decode rows 0..n-1 with threads, in order, holding at most a window of results."""

    def attempt(row: int) -> Decoded:
        try:
            return decode(row)
        except DecodeError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, n, WINDOW):
            yield from pool.map(attempt, range(start, min(start + WINDOW, n)))


def _build_entry(
    entry: Path, films: Iterator[Decoded], n: int, size: int, progress: Progress | None
) -> None:
    try:
        building = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    except OSError as error:
        raise OutputError(_cannot_cache(entry.parent, error)) from error
    try:
        reasons, checksum = _write_array(building / ARRAY_NAME, films, n, size, progress)
        write_json(
            building / INDEX_NAME,
            {"checksum": checksum, "reasons": {str(k): v for k, v in reasons.items()}},
        )
        with contextlib.suppress(FileExistsError):
            building.rename(entry)
    except OSError as error:
        if not entry.is_dir():  # else another run finished the same entry first
            raise OutputError(_cannot_cache(entry.parent, error)) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _cannot_cache(folder: Path, error: OSError) -> str:
    return (
        f"cannot write decoded images to {printable(folder)}: {error.strerror}; "
        "free some space or name another folder with data.cache=DIR"
    )


def _write_array(
    path: Path, films: Iterable[Decoded], n: int, size: int, progress: Progress | None
) -> tuple[dict[int, str], str]:
    """Stream films into an .npy file by plain writes: a full disk is an error, not a crash."""
    reasons: dict[int, str] = {}
    state = hashlib.blake2b(digest_size=16)
    blank = bytes(size * size)
    with path.open("wb") as file:
        file.write(_array_header((n, size, size)))
        for row, film in enumerate(films):
            if isinstance(film, DecodeError):
                reasons[row] = film.reason
            content = blank if isinstance(film, DecodeError) else film.tobytes()
            file.write(content)
            state.update(content)
            if progress is not None and (row % 32 == 31 or row == n - 1):
                progress(row + 1, n)
        file.flush()
        os.fsync(file.fileno())
    return reasons, state.hexdigest()


def _array_header(shape: tuple[int, int, int]) -> bytes:
    """What stands before the pixels in an .npy file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


def _open_entry(
    entry: Path, shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], tuple[str, ...]] | None:
    """Open and verify an entry; None when it is missing or damaged."""
    try:
        index = json.loads((entry / INDEX_NAME).read_bytes())
        header = _array_header(shape)
        with (entry / ARRAY_NAME).open("rb") as file:
            if file.read(len(header)) != header:
                return None
        # Copy-on-write, because torch refuses to share read-only memory; nothing writes to it.
        images = np.memmap(entry / ARRAY_NAME, np.uint8, "c", offset=len(header), shape=shape)
        if array_checksum(images) != index["checksum"]:
            return None
        reasons = index["reasons"]
        return images, tuple(str(reasons.get(str(row), "")) for row in range(len(images)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def array_checksum(images: NDArray[np.uint8]) -> str:
    """Digest of an image array's pixels, read a window at a time."""
    state = hashlib.blake2b(digest_size=16)
    for start in range(0, len(images), WINDOW):
        state.update(images[start : start + WINDOW].tobytes())
    return state.hexdigest()


def cache_entries(folder: Path) -> list[tuple[Path, int]]:
    """The entries of a cache folder with their sizes in bytes, largest first."""
    if not folder.is_dir():
        return []
    entries = [p for p in folder.iterdir() if _is_entry(p) and (p / ARRAY_NAME).is_file()]
    sized = [(p, sum(f.stat().st_size for f in p.iterdir())) for p in entries]
    return sorted(sized, key=lambda pair: pair[1], reverse=True)


def _is_entry(path: Path) -> bool:
    """Whether a folder is ours, finished or abandoned; others in the same place are left alone."""
    return bool(ENTRY_NAME.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()


def clear_cache(folder: Path) -> int:
    """Remove every entry, finished or abandoned; returns the bytes freed."""
    freed = sum(size_bytes for _, size_bytes in cache_entries(folder))
    for entry in folder.iterdir() if folder.is_dir() else ():
        if _is_entry(entry):
            shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / DIGESTS_NAME).unlink()
    return freed
