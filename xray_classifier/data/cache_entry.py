"""A cache entry on disk: decoded images and their signatures, and checksums to trust them by.

`images.npy` (N, S, S) uint8 and `signatures.npy` (N,) of SIGNATURE are plain NPY files. They are
verified in windows of 512 images. `index.json` holds a checksum per window, the reasons of images
that could not be decoded, and a digest of itself.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.signature import SIGNATURE, Signatures
from xray_classifier.files import write_bytes
from xray_classifier.pseudonyms import key_id

WINDOW = 512
ARRAY_NAME = "images.npy"
SIGNATURES_NAME = "signatures.npy"
INDEX_NAME = "index.json"
BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Part:
    """One array of an entry.

    Attributes:
        name: Of the file.
        dtype: Type of a value.
        shape: Images first.
        header: What stands before the values.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    header: bytes

    @property
    def row_bytes(self) -> int:
        """Size of one image's share."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    @property
    def file_bytes(self) -> int:
        """Size of the whole file."""
        return self.place(self.shape[0])

    def place(self, row: int) -> int:
        """Where a row begins in the file."""
        return len(self.header) + row * self.row_bytes


def parts_of(n_images: int, size: int) -> tuple[Part, Part]:
    """The arrays of an entry: images (N, S, S), and signatures (N,)."""
    shapes: list[tuple[str, np.dtype[Any], tuple[int, ...]]] = [
        (ARRAY_NAME, np.dtype(np.uint8), (n_images, size, size)),
        (SIGNATURES_NAME, SIGNATURE, (n_images,)),
    ]
    images, signatures = (Part(*shape, _npy_header(*shape[1:])) for shape in shapes)
    return images, signatures


def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


def windows(n_images: int) -> list[range]:
    """The rows of each window."""
    return [range(s, min(s + WINDOW, n_images)) for s in range(0, n_images, WINDOW)]


@dataclass(frozen=True)
class WindowRecord:
    """What is known of one decoded window.

    Attributes:
        number: Which window.
        checksum: Of its images, then its signatures.
        reasons: Why an image could not be decoded, by row.
        key: Name of the key of its pseudonyms; None if it holds none.
    """

    number: int
    checksum: str
    reasons: dict[str, str]
    key: str | None


@dataclass(frozen=True, eq=False)
class Entry:
    """A verified entry: `images` and `signatures` as memory maps, `reasons` by row."""

    images: NDArray[np.uint8]
    signatures: Signatures
    reasons: dict[str, str]


def sealed(content: dict[str, Any]) -> bytes:
    """One line of JSON that ends in a digest of itself; the same content gives the same bytes."""
    digest = hashlib.blake2b(_canonical(content), digest_size=16).hexdigest()
    return _canonical({**content, "~": digest}) + b"\n"


def unsealed(line: bytes) -> dict[str, Any] | None:
    """What was sealed; None if a byte of it is another one."""
    try:
        content = json.loads(line)
        content.pop("~")
        return dict(content) if sealed(content) == line else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def write_index(folder: Path, records: Iterable[WindowRecord]) -> None:
    """Write `index.json` from the records of all windows, in order.

    Raises:
        OutputError: It cannot be written.
    """
    records = list(records)
    reasons: dict[str, str] = {}
    for record in records:
        reasons.update(record.reasons)
    keys = {record.key for record in records} - {None}
    content = {
        "checksums": [record.checksum for record in records],
        "key": keys.pop() if keys else None,
        "reasons": reasons,
    }
    write_bytes(folder / INDEX_NAME, sealed(content))


def open_entry(folder: Path, n_images: int, size: int, workers: int) -> Entry | None:
    """Open and verify an entry.

    Args:
        folder: The entry.
        n_images: How many images it should hold.
        size: Their side in pixels.
        workers: Threads that read.

    Returns:
        None when it is missing or damaged, or names patients under another key.
    """
    parts = parts_of(n_images, size)
    try:
        index = unsealed((folder / INDEX_NAME).read_bytes())
        if index is None or not is_current(index["key"]) or not all_fit(folder, parts):
            return None
        checksums = verified(folder, parts, range(len(windows(n_images))), workers)
        if checksums != index["checksums"]:
            return None
        images, signatures = (_mapped(folder, part) for part in parts)
    except (OSError, ValueError):
        return None
    return Entry(images, signatures, index["reasons"])


def is_current(key: str | None) -> bool:
    """Whether pseudonyms made under a key match those that would be made now.

    Without pseudonyms the key is not asked for, because that would make one.
    """
    return key is None or key == key_id()


def all_fit(folder: Path, parts: Iterable[Part]) -> bool:
    """Whether each array has its size and header."""
    return all(_fits(folder / part.name, part) for part in parts)


def _fits(path: Path, part: Part) -> bool:
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        return size_bytes == part.file_bytes and file.read(len(part.header)) == part.header


def verified(
    folder: Path, parts: Sequence[Part], numbers: Sequence[int], workers: int
) -> list[str]:
    """Checksum of each window asked for, from what is on disk."""
    every = windows(parts[0].shape[0])
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda k: _window_checksum(folder, parts, every[k]), numbers))


def _window_checksum(folder: Path, parts: Sequence[Part], rows: range) -> str:
    """Read in blocks rather than from a memory map, where a failing disk would end the process."""
    state = new_checksum()
    for part in parts:
        with (folder / part.name).open("rb") as file:
            file.seek(part.place(rows.start))
            left = part.row_bytes * len(rows)
            while block := file.read(min(left, BLOCK_BYTES)):
                state.update(block)
                left -= len(block)
    return state.hexdigest()


def new_checksum() -> "hashlib.blake2b":
    """What a window's checksum is made with."""
    return hashlib.blake2b(digest_size=16)


def _mapped(folder: Path, part: Part) -> Any:
    # Copy-on-write, because torch refuses to share read-only memory; nothing writes to it.
    return np.memmap(folder / part.name, part.dtype, "c", len(part.header), part.shape)
