"""Images in one NPZ file, laid out as MedMNIST does: `train_images`, `train_labels`, `val_...`.

Nothing is unpickled: an array of Python objects is refused.
"""

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.boundary import MAX_PIXELS
from xray_classifier.data.sources import Found
from xray_classifier.data.splits import split_name
from xray_classifier.errors import DataError
from xray_classifier.files import printable

BLOCK_BYTES = 2**20
MAX_FORTRAN_BYTES = 2**28
LAYOUT = (
    "expected train_images (N, H, W) or (N, H, W, 3) and train_labels (N,) or (N, 1), the same "
    "with val_ and test_, or images and labels alone"
)
HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def find_in_npz(path: Path) -> Found:
    """The images of an NPZ file; their pixels stay on disk.

    Args:
        path: The NPZ file.

    Returns:
        One entry per image, `train_images/12` and the like; classes are the label codes as text.

    Raises:
        DataError: The file is damaged, or its arrays do not fit the layout.
    """
    with _damage_told(path):
        keys = _image_keys(path)
        with zipfile.ZipFile(path) as archive:
            headers = {key: _header(archive, key) for key in keys}
        labels = {key: _label_texts(path, key, keys[key]) for key in keys}
    for key, header in headers.items():
        _check_images(path, key, header, len(labels[key]))
    n_images = {key: header.shape[0] for key, header in headers.items()}
    ids = tuple(f"{key}/{row}" for key in keys for row in range(n_images[key]))
    if not ids:
        raise DataError(f"{printable(path)} holds no images; {LAYOUT}")
    splits = {key: split_name(key.removesuffix("images").rstrip("_")) or "" for key in keys}
    return Found(
        kind="npz",
        root=path.absolute(),
        ids=ids,
        classes=tuple(text for key in keys for text in labels[key]),
        splits=tuple(splits[key] for key in keys for _ in range(n_images[key])),
    )


class NpzImages:
    """The images of an NPZ file, read from front to back, one in memory at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def verify(self, ids: Iterable[str]) -> None:
        """Read to its end every array that holds one of the images, for its checksum is compared.

        Raises:
            DataError: The file is damaged or lacks an array.
        """
        with _damage_told(self.path), zipfile.ZipFile(self.path) as archive:
            for key in _arrays_of(ids):
                with archive.open(f"{key}.npy") as stream:
                    read_bytes = sum(map(len, iter(lambda: stream.read(BLOCK_BYTES), b"")))
                if read_bytes != archive.getinfo(f"{key}.npy").file_size:
                    raise EOFError(f"{key}: shorter than it says")

    def largest_bytes(self, ids: Iterable[str]) -> int:
        """Size of the largest of some images in bytes.

        Raises:
            DataError: The file is damaged or lacks an array.
        """
        with _damage_told(self.path), zipfile.ZipFile(self.path) as archive:
            headers = [_header(archive, key) for key in _arrays_of(ids)]
        return max((header.image_bytes for header in headers), default=0)

    def rows(self, ids: Iterable[str]) -> Iterator[NDArray[Any]]:
        """Some images, in the order given; one pass over the file if each array's rows ascend.

        Args:
            ids: `train_images/12` and the like: the array and the row in it.

        Yields:
            Shape (H, W), or (H, W, 3) for colour, in the type that the file stores.

        Raises:
            DataError: The file is damaged or holds no such image.
        """
        arrays: dict[str, _OpenArray] = {}
        with _damage_told(self.path), zipfile.ZipFile(self.path) as archive, ExitStack() as stack:
            for image_id in ids:
                key, _, row = image_id.rpartition("/")
                if key not in arrays:
                    arrays[key] = stack.enter_context(_OpenArray(self.path, archive, key))
                if not row.isdecimal() or int(row) >= arrays[key].header.shape[0]:
                    raise DataError(f"{printable(self.path)} has no image {printable(image_id)}")
                image = arrays[key].read(int(row))
                yield image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def _arrays_of(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(image_id.rpartition("/")[0] for image_id in ids))


class _OpenArray(AbstractContextManager["_OpenArray"]):
    """One array of images in an open NPZ file; rows are read where they lie."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, key: str) -> None:
        self.header = _header(archive, key)
        _check_images(path, key, self.header, None)
        # Only in C order do the bytes of an image lie together.
        self._whole = _array(path, key) if self.header.fortran else None
        self._stream = archive.open(f"{key}.npy")

    def __exit__(self, *raised: object) -> None:
        self._stream.close()

    def read(self, row: int) -> NDArray[Any]:
        """One image, in the byte order of this machine."""
        stored = self._stored(row) if self._whole is None else self._whole[row]
        native = self.header.dtype.newbyteorder("=")
        return np.ascontiguousarray(stored.astype(native, copy=False))

    def _stored(self, row: int) -> NDArray[Any]:
        # On a compressed stream a step forward reads what lies between, a step back starts anew.
        self._stream.seek(self.header.header_bytes + row * self.header.image_bytes)
        content = self._stream.read(self.header.image_bytes)
        if len(content) != self.header.image_bytes:
            raise EOFError("an array ends before its last image")
        return np.frombuffer(content, self.header.dtype).reshape(self.header.shape[1:])


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn what the zip and NumPy readers raise on a damaged file into one kind of error."""
    damage = (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        SyntaxError,
        OverflowError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    )
    try:
        yield
    except damage as error:
        detail = f"{type(error).__name__}: {printable(error)}"
        raise DataError(f"cannot read {printable(path)} as an NPZ file ({detail})") from error


def _image_keys(path: Path) -> dict[str, str]:
    """The name of each array of images, with that of its labels, in the order of the splits."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    order = {"train": 0, "val": 1, "test": 2, None: 3}
    stems = [name.removesuffix("images") for name in names if name.endswith("images")]
    known = [stem for stem in stems if not stem or split_name(stem.rstrip("_"))]
    known.sort(key=lambda stem: (order[split_name(stem.rstrip("_"))], stem))
    keys = {f"{stem}images": f"{stem}labels" for stem in known}
    lacking = [label for label in keys.values() if label not in names]
    if not keys or lacking:
        missing = f"no {', '.join(map(printable, lacking))}" if lacking else "no images array"
        found = ", ".join(map(printable, names)) or "nothing"
        raise DataError(f"{printable(path)}: {missing}; {LAYOUT}; found {found}")
    return keys


@dataclass(frozen=True)
class _Header:
    """What stands before the values of an array.

    Attributes:
        shape: Images first.
        dtype: Type of a value.
        fortran: The first index varies fastest.
        header_bytes: Where the values start.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    header_bytes: int

    @property
    def image_bytes(self) -> int:
        """Size of one image."""
        return self.dtype.itemsize * math.prod(self.shape[1:])


def _header(archive: zipfile.ZipFile, key: str) -> _Header:
    """The header of an array; objects and false sizes are refused."""
    with archive.open(f"{key}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        if version not in HEADER_READERS:
            raise ValueError(f"{key}: NPY version {version} is not read")
        shape, fortran, dtype = HEADER_READERS[version](stream)
        start = stream.tell()
    if dtype.kind not in "buif":
        raise ValueError(f"{key}: values of type {dtype} are no grey levels")
    if archive.getinfo(f"{key}.npy").file_size - start != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{key}: its header promises another size than it has")
    return _Header(tuple(int(side) for side in shape), dtype, bool(fortran), start)


def _array(path: Path, key: str) -> NDArray[Any]:
    with np.load(path, allow_pickle=False) as arrays:
        array: NDArray[Any] = arrays[key]
    return array


def _label_texts(path: Path, key: str, label_key: str) -> list[str]:
    """The label code of each image as text; `1`, `1.0` and True are one code."""
    codes = _array(path, label_key)
    if codes.ndim == 2 and codes.shape[1] == 1:
        codes = codes[:, 0]
    if codes.ndim != 1:
        raise DataError(
            f"{printable(path)}: {printable(label_key)} has shape {codes.shape}; expected one "
            "label per image, (N,) or (N, 1); several findings per image are not read"
        )
    if codes.dtype.kind == "U":
        return [str(code) for code in codes]
    if codes.dtype.kind not in "buif" or not np.all(codes == np.floor(codes)):
        raise DataError(
            f"{printable(path)}: {printable(label_key)} holds {codes.dtype} values that are no "
            "whole numbers and no text"
        )
    return [str(int(code)) for code in codes]


def _check_images(path: Path, key: str, header: _Header, n_labels: int | None) -> None:
    shape = header.shape
    where = f"{printable(path)}: {printable(key)}"
    grey = len(shape) == 3
    colour = len(shape) == 4 and shape[3] in (1, 3)
    if not (grey or colour) or 0 in shape[1:]:
        raise DataError(f"{where} has shape {shape}; {LAYOUT}")
    if n_labels is not None and n_labels != shape[0]:
        raise DataError(f"{where} holds {shape[0]} images, but there are {n_labels} labels")
    if shape[1] * shape[2] > MAX_PIXELS:
        raise DataError(
            f"{where}: images of {shape[2]} x {shape[1]} pixels are more than "
            f"{MAX_PIXELS // 10**6} million"
        )
    if header.fortran and shape[0] * header.image_bytes > MAX_FORTRAN_BYTES:
        raise DataError(
            f"{where} is in Fortran order, which is read as a whole and up to "
            f"{MAX_FORTRAN_BYTES >> 20} MiB; save np.ascontiguousarray of it"
        )
