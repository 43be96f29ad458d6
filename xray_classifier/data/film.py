"""A film at its native depth, how it was stored, and how an array becomes one."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import DecodeError

CONTAINER_BITS = (10, 12, 14, 16)
LUMA = (0.299, 0.587, 0.114)
LUMA_OF_BYTES = (19595, 38470, 7471)
"""`LUMA` in units of 2^-16: Pillow's own, so that an array is answered like its PNG."""
COLOUR_STEP = 8


@dataclass(frozen=True)
class Origin:
    """How a film was stored: nothing in it is anatomy, and nothing in it names a person.

    Attributes:
        container: Format of the file: PNG, JPEG, TIFF, DICOM, ...; ARRAY for an array.
        mode: Pillow's name of the pixel type, DICOM's photometric interpretation, or NumPy's type.
        bits: Bits per channel that the values need: 8, 10, 12, 14, 16, or 32 for floats.
        colour: Mean difference between the largest and the smallest channel, a fraction of white;
            0 for grey, also where it is stored in three equal channels.
        scanner: Digest of DICOM manufacturer and model; `` where the file does not say.
        patient: Keyed hash of DICOM Patient ID; `` where the file has none.
        burned_in: DICOM says that text is burned into the pixels.
    """

    container: str = "ARRAY"
    mode: str = ""
    bits: int = 8
    colour: float = 0.0
    scanner: str = ""
    patient: str = ""
    burned_in: bool = False


@dataclass(frozen=True, eq=False)
class Film:
    """One grey picture, white at `full_scale`.

    Attributes:
        pixels: Grey values, (H, W) of an unsigned integer or float32, 0 to `full_scale`.
        full_scale: The value that means white, such as 255, 1023, 4095, 65535 or 1.0.
        mask: True where a pixel belongs to the film, (H, W); None: everywhere. False marks padding
            declared by the file and fully transparent pixels.
        origin: How it was stored.
        reduction: How many pixels of the file, either way, one of `pixels` stands for.
        full_shape: Rows and columns in the file where that is more than one; None: as decoded.
    """

    pixels: NDArray[Any]
    full_scale: float
    mask: NDArray[np.bool_] | None = None
    origin: Origin = Origin()
    reduction: int = 1
    full_shape: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the film in pixels of the file."""
        rows, columns = self.full_shape or self.pixels.shape
        return rows, columns


def film_from_array(array: NDArray[Any]) -> Film:
    """A film from an array of the user or of an NPZ file.

    Args:
        array: (H, W), (H, W, 1), (1, H, W) or RGB (H, W, 3), of uint8, uint16 or float in [0, 1].
            Equal channels give exactly that channel, colours their BT.601 luma.

    Returns:
        A film that shares the array's memory where it can. White is 255 for uint8, 1.0 for float,
        and for uint16 the smallest of 10, 12, 14 and 16 bits that holds the array's maximum.

    Raises:
        DecodeError: bad_shape, or ambiguous_range for other types and for floats outside [0, 1].
    """
    array = _known_type(np.asarray(array))
    grey = _grey(array)
    origin = Origin(mode=str(array.dtype), colour=colour_of(array) if array.ndim == 3 else 0.0)
    if grey.dtype == np.uint8:
        return Film(grey, 255.0, origin=origin)
    if grey.dtype == np.uint16:
        full_scale = container_full_scale(grey)
        return Film(grey, full_scale, origin=replace(origin, bits=bits_of(full_scale)))
    return replace(film_from_floats(grey), origin=replace(origin, bits=32))


def _known_type(array: NDArray[Any]) -> NDArray[Any]:
    """The array in this machine's byte order, if its values can be grey levels."""
    kind, n_bytes = array.dtype.kind, array.dtype.itemsize
    if not (kind == "f" or (kind == "u" and n_bytes <= 2)):
        raise DecodeError("ambiguous_range", "expected uint8, uint16 or floats in [0, 1]")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def film_from_floats(grey: NDArray[np.floating]) -> Film:
    """A film from (H, W) floats, white at 1.0.

    Raises:
        DecodeError: ambiguous_range if a value is NaN or outside [0, 1].
    """
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0.0 and high <= 1.0):
        raise DecodeError(
            "ambiguous_range", "floats must lie in [0, 1]; nothing says what is white"
        )
    return Film(grey.astype(np.float32, copy=False), 1.0)


def bits_of(full_scale: float) -> int:
    """Bits of a whole number that goes up to `full_scale`: 8 for 255; 32 for floats up to 1."""
    return 32 if full_scale == 1.0 else int(full_scale).bit_length()


def colour_of(channels: NDArray[Any], step: int = COLOUR_STEP) -> float:
    """How far a picture is from grey: mean of largest minus smallest channel, a fraction of white.

    Args:
        channels: (H, W, C) of an unsigned integer type or of floats up to 1; grey if C is 1 or 2.
        step: Look at every step-th row and column.
    """
    if channels.ndim != 3 or channels.shape[-1] < 3:
        return 0.0
    some = channels[::step, ::step, :3]
    if all(np.array_equal(some[..., 0], some[..., other]) for other in (1, 2)):
        return 0.0  # the common case, ten times as fast
    white = np.iinfo(some.dtype).max if some.dtype.kind == "u" else 1.0
    return float(np.mean(np.ptp(some, axis=-1)) / white)


def container_full_scale(grey: NDArray[np.integer]) -> float:
    """White of a picture in a 16-bit container: 2^b - 1, b the fewest of 10, 12, 14 and 16 bits.

    Detectors give 10 to 16 bits and most formats keep them in 16 without saying how many are used.

    Args:
        grey: Values of the picture, any shape.

    Raises:
        DecodeError: ambiguous_range if a value is negative or above 65535.
    """
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65535:
        raise DecodeError("ambiguous_range", "expected whole numbers from 0 to 65535")
    return float(next(2**bits - 1 for bits in CONTAINER_BITS if high < 2**bits))


def _grey(array: NDArray[Any]) -> NDArray[Any]:
    """(H, W) from any of the accepted shapes."""
    shape = array.shape
    if 0 in shape or array.ndim not in (2, 3):
        raise DecodeError("bad_shape", f"expected one film (H, W), got {shape}")
    if array.ndim == 2:
        return array
    last_is_channels = shape[2] in (1, 3)
    if (shape[0] == 1) == last_is_channels:
        raise DecodeError("bad_shape", f"expected (H, W), (H, W, 1), (1, H, W), got {shape}")
    if shape[0] == 1:
        return np.asarray(array[0])
    red, green, blue = (array[..., channel % shape[2]] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return np.asarray(red)
    if array.dtype == np.uint8:
        weighted = zip(LUMA_OF_BYTES, (red, green, blue), strict=True)
        total = sum(weight * channel.astype(np.uint32) for weight, channel in weighted)
        return np.asarray((total + 2**15) >> 16, np.uint8)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    whole = np.issubdtype(array.dtype, np.integer)
    return np.asarray(np.rint(luma).astype(array.dtype) if whole else luma)
