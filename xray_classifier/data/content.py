"""What tells an image from any other: a digest of its file's bytes, or of how it is made.

Digests of files are kept in the cache folder with size and time of the file, so that a file is read
again only when one of them has changed.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from xray_classifier.data.manifest import Manifest
from xray_classifier.data.phantoms import PHANTOM_RECIPE
from xray_classifier.files import write_json

DIGESTS_NAME = "digests.json"
SAVED_EVERY = 10_000  # files; what an interrupted pass over the files loses at most
BLOCK_BYTES = 2**20
TOGETHER = 64
"""Most files in one task of a thread; handing over a task takes longer than reading a film."""


def content_digests(manifest: Manifest, folder: Path, workers: int) -> tuple[str, ...]:
    """A digest per image: of a file's bytes, or of the NPZ file or phantom recipe and the id.

    Args:
        manifest: Which images.
        folder: Where the digests of files are kept; it must exist.
        workers: Threads that read files.

    Returns:
        Hexadecimal texts, (N,). A file that cannot be read has the digest of its name.

    Raises:
        OutputError: The digests cannot be kept.
    """
    if manifest.kind == "files":
        return _file_digests(manifest.files, folder, workers)
    if manifest.kind == "npz" and manifest.root is not None:
        whole = _file_digests((manifest.root,), folder, workers)[0]
    else:
        whole = f"phantoms {PHANTOM_RECIPE} {manifest.phantom_seed}"
    return tuple(_short_digest(f"{whole} {row}".encode()) for row in manifest.ids)


def _short_digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _digest_file(path: Path) -> tuple[str, int, int]:
    """Digest of a file's bytes, its size and time; a digest of its name if it is unreadable."""
    try:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            state = hashlib.blake2b(digest_size=16)
            while block := file.read(BLOCK_BYTES):
                state.update(block)
    except OSError:
        return _short_digest(b"unreadable " + os.fsencode(path)), -1, -1
    return state.hexdigest(), status.st_size, status.st_mtime_ns


def _file_digests(files: Sequence[Path], folder: Path, workers: int) -> tuple[str, ...]:
    known = _load_known(folder / DIGESTS_NAME)
    status = [_status(path) for path in files]
    names = [os.fsencode(path).hex() for path in files]
    stale = [
        row
        for row, name in enumerate(names)
        if status[row] is None or known.get(name, [None])[:2] != status[row]
    ]
    for start in range(0, len(stale), SAVED_EVERY):
        rows = stale[start : start + SAVED_EVERY]
        fresh = _digest_all([files[row] for row in rows], workers)
        for row, (digest, size_bytes, time_ns) in zip(rows, fresh, strict=True):
            known[names[row]] = [size_bytes, time_ns, digest]
        write_json(folder / DIGESTS_NAME, known)
    return tuple(known[name][2] for name in names)


def _digest_all(files: Sequence[Path], workers: int) -> Iterator[tuple[str, int, int]]:
    """`_digest_file` of each, in order; many to a task, but enough tasks for every thread."""
    together = max(1, min(TOGETHER, len(files) // (4 * workers)))
    some = [files[start : start + together] for start in range(0, len(files), together)]
    with ThreadPoolExecutor(workers) as pool:
        for digests in pool.map(lambda part: [_digest_file(path) for path in part], some):
            yield from digests


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
