"""From a film at native depth to the (S, S) uint8 that a model sees: crop, resize, intensity."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.film import Film
from xray_classifier.errors import DecodeError

BLANK = 1e-6
"""A film whose grey values span less than this fraction of full scale is blank; one step of 16 bits
is 1.5e-5."""

ZSCORE_LIMIT = 3.0
"""Standard deviations from the mean that `zscore` draws black and white."""

Region = tuple[int, int, int, int]
Box = tuple[float, float, float, float]
View = tuple[Region, int, int]
"""Region of a film, and rows and columns at which it is seen."""

Resized = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Grey values, and which of them are film: both of the rows and columns of the view."""


def prepare(film: Film, size: int, crop: str, intensity: str) -> NDArray[np.uint8]:
    """Crop, resize in float, set the intensity and round, in that order.

    `equalize` sees ranks alone, after the resize: any strictly rising map of the resized greys
    leaves its result as it was. On the file's own values that is exact for a map `a x + b`, a > 0,
    and for any rising map where nothing is resized; else a curved map is removed but for what
    averaging neighbours before and after it differs by.

    Args:
        film: The film at native depth.
        size: Side S of the result in pixels.
        crop: `center` keeps the largest central square; of an odd surplus the extra row is cut
            from the bottom, the extra column from the right. `pad` scales the longer side to S,
            the shorter one to the nearest whole pixel, and centres the film on black by the same
            rule. `stretch` scales both sides to S.
        intensity: `equalize`: mean rank of each pixel among the film's pixels, 0 the lowest, 255
            the highest, ties shared. `minmax`: lowest 0, highest 255. `zscore`: mean minus 3
            standard deviations 0, mean plus 3 of them 255, clipped. `dataset`: 0 to
            `full_scale` is 0 to 255.

    Returns:
        (S, S) uint8. Padding is 0 and takes no part in ranks, means and ranges.

    Raises:
        DecodeError: blank, if the film shows one grey level or consists of padding.
    """
    return prepare_view(Views(film), size, crop, intensity)


class Views:
    """One film at several sizes, for several purposes; what two of them need is computed once.

    Args:
        film: The film at native depth.
    """

    def __init__(self, film: Film) -> None:
        self.film = film
        self._resized: dict[View, Resized] = {}
        self._ranks: dict[View, NDArray[Any]] = {}

    def resized(self, view: View) -> Resized:
        """The film in a view: region, rows, columns."""
        if view not in self._resized:
            self._resized[view] = self._looked_at(view)
        return self._resized[view]

    def ranks(self, view: View) -> NDArray[Any]:
        """`ranks` of the pixels of a view that are film, (n,)."""
        if view not in self._ranks:
            grey, valid = self.resized(view)
            self._ranks[view] = ranks(grey[valid])
        return self._ranks[view]

    def _looked_at(self, view: View) -> Resized:
        return resized(self.film, *view)


def prepare_view(views: Views, size: int, crop: str, intensity: str) -> NDArray[np.uint8]:
    """`prepare` a film that is looked at in other ways too."""
    film = views.film
    height, width = film.shape
    region = {"center": _central_square, "pad": _all, "stretch": _all}[crop](height, width)
    rows, columns = _fitted(height, width, size) if crop == "pad" else (size, size)
    view = (region, rows, columns)
    grey, valid = views.resized(view)
    _refuse_blank(grey[valid], film.full_scale)
    shown = views.ranks(view) if intensity == "equalize" else _shades(grey[valid], film, intensity)
    levels = np.zeros((size, size), np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    window = levels[top : top + rows, left : left + columns]
    window[valid] = np.rint(np.clip(shown, 0.0, 1.0) * 255.0)
    return levels


def _central_square(height: int, width: int) -> Region:
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def _all(height: int, width: int) -> Region:
    return 0, 0, height, width


def _fitted(height: int, width: int, size: int) -> tuple[int, int]:
    """Rows and columns of a film whose longer side becomes `size`; none below 1."""
    longer = max(height, width)
    rows, columns = (max(1, (2 * side * size + longer) // (2 * longer)) for side in (height, width))
    return rows, columns


def resized(film: Film, region: Region, rows: int, columns: int) -> Resized:
    """A part of a film at a new size, and which of its pixels are film rather than padding.

    Padding has no weight in the averages; a pixel counts as film if half of its weight does.

    Args:
        film: The film at native depth.
        region: Top, left, height and width of the part, in pixels of the file.
        rows: New height in pixels.
        columns: New width in pixels.

    Returns:
        Grey values (rows, columns) float32 in the film's own units, and (rows, columns) bool.
    """
    if film.reduction > 1:
        return _from_reduced(film, region, rows, columns), np.ones((rows, columns), np.bool_)
    top, left, height, width = region
    part = np.s_[top : top + height, left : left + width]
    grey = film.pixels[part]
    if film.mask is None or film.mask[part].all():
        return _scaled(grey, rows, columns), np.ones((rows, columns), np.bool_)
    weight = film.mask[part].astype(np.float32)
    share = _scaled(weight, rows, columns)
    valid = share >= 0.5
    total = _scaled(grey.astype(np.float32) * weight, rows, columns)
    return np.divide(total, share, out=np.zeros_like(total), where=valid), valid


def _from_reduced(film: Film, region: Region, rows: int, columns: int) -> NDArray[np.float32]:
    """A part of a film that was decoded at a fraction of its size, (rows, columns) float32."""
    top, left, height, width = (length / film.reduction for length in region)
    first_row, first_column = math.floor(top), math.floor(left)
    part = film.pixels[first_row : math.ceil(top + height), first_column : math.ceil(left + width)]
    top, left = top - first_row, left - first_column
    bottom, right = min(top + height, part.shape[0]), min(left + width, part.shape[1])
    return _scaled(part, rows, columns, (left, top, right, bottom))


def _scaled(
    grey: NDArray[Any], rows: int, columns: int, box: Box | None = None
) -> NDArray[np.float32]:
    """The image, or a box (left, top, right, bottom) of it, as (rows, columns) float32.

    A triangle filter over the film pixels under each new one when shrinking, bilinear interpolation
    when growing; Pillow adds up in double precision, so a flat area stays exactly flat.
    """
    if box is None and grey.shape == (rows, columns):
        return grey.astype(np.float32)
    from PIL import Image

    if grey.dtype == np.uint8:  # Pillow makes floats of bytes with one copy less than NumPy does
        image = Image.fromarray(grey).convert("F")
    else:
        image = Image.fromarray(grey.astype(np.float32, copy=False))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR, box))


def _refuse_blank(grey: NDArray[np.float32], full_scale: float) -> None:
    if grey.size == 0 or float(grey.max()) - float(grey.min()) < BLANK * full_scale:
        raise DecodeError("blank", "the film shows one grey level only")


def _shades(grey: NDArray[np.float32], film: Film, intensity: str) -> NDArray[Any]:
    """Grey values (n,) as shades from 0, black, to 1, white, (n,); they may lie beyond."""
    if intensity == "dataset":
        return grey / film.full_scale
    return {"minmax": _min_to_max, "zscore": _standardised}[intensity](grey)


def ranks(grey: NDArray[np.float32]) -> NDArray[Any]:
    """Mean rank of each of n > 1 values (n,), ties sharing theirs: 0 the lowest, 1 the highest."""
    order = np.argsort(grey)
    ordered = grey[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    counts = np.concatenate((starts[1:], [grey.size])) - starts
    ranks = np.empty(grey.size)
    ranks[order] = np.repeat(starts + (counts - 1) / 2, counts)
    return ranks / (grey.size - 1)


def _min_to_max(grey: NDArray[np.float32]) -> NDArray[Any]:
    low, high = grey.min(), grey.max()
    return np.asarray((grey - low) / (high - low))


def _standardised(grey: NDArray[np.float32]) -> NDArray[Any]:
    """z-scores of the film, -3 to 3 drawn as 0 to 1."""
    mean, deviation = grey.mean(dtype=np.float64), grey.std(dtype=np.float64)
    return np.asarray((grey - mean) / (2 * ZSCORE_LIMIT * deviation) + 0.5)
