"""A film at its native depth, and how an array becomes one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import DecodeError

CONTAINER_BITS = (10, 12, 14, 16)
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, eq=False)
class Film:
    """One grey picture, white at `full_scale`.

    Attributes:
        pixels: Grey values, (H, W) of an unsigned integer or float32, 0 to `full_scale`.
        full_scale: The value that means white, such as 255, 1023, 4095, 65535 or 1.0.
        mask: True where a pixel belongs to the film, (H, W); None: everywhere. False marks padding
            declared by the file and fully transparent pixels.
        shrink: Film pixels per stored pixel along each side: 2, 4 or 8 for a JPEG decoded at
            reduced size, else 1.
    """

    pixels: NDArray[Any]
    full_scale: float
    mask: NDArray[np.bool_] | None = None
    shrink: int = 1


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
    grey = _grey(np.asarray(array))
    if grey.dtype == np.uint8:
        return Film(grey, 255.0)
    if grey.dtype == np.uint16:
        return Film(grey, container_full_scale(grey))
    if np.issubdtype(grey.dtype, np.floating):
        return film_from_floats(grey)
    raise DecodeError("ambiguous_range", "expected uint8, uint16 or floats in [0, 1]")


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
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    whole = np.issubdtype(array.dtype, np.integer)
    return np.asarray(np.rint(luma).astype(array.dtype) if whole else luma)
