"""Images in one NPZ file, laid out as MedMNIST does: `train_images`, `train_labels`, `val_...`.

Nothing is unpickled: an array of Python objects is refused.
"""

import math
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.sources import Found
from xray_classifier.data.splits import split_name
from xray_classifier.errors import DataError
from xray_classifier.files import printable

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
        shapes = {key: _shape(path, key) for key in keys}
        labels = {key: _label_texts(path, key, keys[key]) for key in keys}
    for key, shape in shapes.items():
        _check_shape(path, key, shape, len(labels[key]))
    ids = tuple(f"{key}/{row}" for key in keys for row in range(shapes[key][0]))
    if not ids:
        raise DataError(f"{printable(path)} holds no images; {LAYOUT}")
    splits = {key: split_name(key.removesuffix("images").rstrip("_")) or "" for key in keys}
    return Found(
        kind="npz",
        root=path.absolute(),
        ids=ids,
        classes=tuple(text for key in keys for text in labels[key]),
        splits=tuple(splits[key] for key in keys for _ in range(shapes[key][0])),
    )


class NpzImages:
    """Single images of an NPZ file; each array is read when its first image is asked for.

    Safe to share between threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays: dict[str, NDArray[Any]] = {}
        self._lock = threading.Lock()

    def read(self, image_id: str) -> NDArray[Any]:
        """One image.

        Args:
            image_id: `train_images/12`: the array and the row in it.

        Returns:
            Shape (H, W), or (H, W, 3) for colour, in the type that the file stores.

        Raises:
            DataError: The file is damaged or holds no such image.
        """
        key, _, row = image_id.rpartition("/")
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = self._load(key)
            images = self._arrays[key]
        if not row.isdecimal() or int(row) >= len(images):
            raise DataError(f"{printable(self.path)} has no image {printable(image_id)}")
        image: NDArray[Any] = images[int(row)]
        return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image

    def _load(self, key: str) -> NDArray[Any]:
        with _damage_told(self.path):
            _check_shape(self.path, key, _shape(self.path, key), None)
            return _array(self.path, key)


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


def _shape(path: Path, key: str) -> tuple[int, ...]:
    """The shape of an array, from its header alone; objects and false sizes are refused."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        if version not in HEADER_READERS:
            raise ValueError(f"{key}: NPY version {version} is not read")
        shape, _, dtype = HEADER_READERS[version](stream)
        size = archive.getinfo(f"{key}.npy").file_size - stream.tell()
    if dtype.kind not in "buif":
        raise ValueError(f"{key}: values of type {dtype} are no grey levels")
    if size != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{key}: its header promises another size than it has")
    return tuple(int(side) for side in shape)


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


def _check_shape(path: Path, key: str, shape: tuple[int, ...], n_labels: int | None) -> None:
    grey = len(shape) == 3
    colour = len(shape) == 4 and shape[3] in (1, 3)
    if not (grey or colour) or 0 in shape[1:]:
        raise DataError(f"{printable(path)}: {printable(key)} has shape {shape}; {LAYOUT}")
    if n_labels is not None and n_labels != shape[0]:
        raise DataError(
            f"{printable(path)}: {printable(key)} holds {shape[0]} images, but there are "
            f"{n_labels} labels"
        )
