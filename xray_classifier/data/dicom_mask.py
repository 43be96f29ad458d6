"""Which pixels of a DICOM image are film: neither padding nor behind a shutter.

Source: DICOM PS3.3, C.7.5.1.1.2 (Pixel Padding) and C.7.6.11 (Display Shutter). Rows and columns
of a shutter count from 1 and the shapes hold their edges. Pixels are taken as square, and bitmap
shutters (C.7.6.15) are ignored.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import DecodeError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_VERTICES = 1000
"""Corners of a polygonal shutter."""

MAX_COORDINATE = 2**20
"""Rows, columns and radii of shutters, in pixels either way."""

_Mask = NDArray[np.bool_]


def film_mask(dataset: "Dataset", stored: NDArray[np.int32]) -> _Mask | None:
    """False where the file says that a pixel shows nothing.

    A shutter that would hide the whole image says nothing about it and is ignored. Padding that
    covers all of it is kept: then there is no film.

    Args:
        dataset: With the elements of Pixel Padding and Display Shutter.
        stored: Values as stored, (H, W).

    Returns:
        (H, W) bool; None if all of the image is film.

    Raises:
        DecodeError: unsupported_dicom for a shutter whose shape is not fully given.
    """
    masks = [_padding(dataset, stored), _shutter(dataset, *stored.shape)]
    given = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(given) if given else None


def _padding(dataset: "Dataset", stored: NDArray[np.int32]) -> _Mask | None:
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value is None:
        return None
    signed = dataset.get("PixelRepresentation") == 1
    ends = (_as_stored(int(one), signed) for one in (value, value if limit is None else limit))
    low, high = sorted(ends)
    mask = (stored < low) | (stored > high)
    return None if mask.all() else mask


def _as_stored(value: int, signed: bool) -> int:
    """A 16-bit word by the sign of the pixels, for some writers give the other one."""
    word = value & 0xFFFF
    return word - 2**16 if signed and word >= 2**15 else word


def _shutter(dataset: "Dataset", height: int, width: int) -> _Mask | None:
    """What all shapes together leave visible, (height, width)."""
    shapes = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}
    named = {str(name) for name in _values(dataset, "ShutterShape")}
    masks = [shape(dataset, height, width) for name, shape in shapes.items() if name in named]
    if not masks:
        return None
    mask = np.logical_and.reduce(masks)
    return None if mask.all() or not mask.any() else mask


def _values(dataset: "Dataset", keyword: str) -> list[Any]:
    """The values of an element; none where it is missing or empty."""
    from pydicom.multival import MultiValue

    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        return list(value)
    return [] if value is None or value == "" else [value]


def _places(dataset: "Dataset", keyword: str, counts: range) -> list[int]:
    """Rows, columns or radii of a shutter."""
    places = [int(value) for value in _values(dataset, keyword)]
    if len(places) not in counts or any(abs(place) > MAX_COORDINATE for place in places):
        raise DecodeError(
            "unsupported_dicom", f"{keyword} does not describe a shutter; correct it or remove it"
        )
    return places


def _rectangle(dataset: "Dataset", height: int, width: int) -> _Mask:
    left, right, upper, lower = (
        _places(dataset, keyword, range(1, 2))[0]
        for keyword in (
            "ShutterLeftVerticalEdge",
            "ShutterRightVerticalEdge",
            "ShutterUpperHorizontalEdge",
            "ShutterLowerHorizontalEdge",
        )
    )
    mask = np.zeros((height, width), np.bool_)
    mask[max(upper - 1, 0) : max(lower, 0), max(left - 1, 0) : max(right, 0)] = True
    return mask


def _circle(dataset: "Dataset", height: int, width: int) -> _Mask:
    row, column = _places(dataset, "CenterOfCircularShutter", range(2, 3))
    (radius,) = _places(dataset, "RadiusOfCircularShutter", range(1, 2))
    down, across = (np.arange(1, height + 1) - row) ** 2, (np.arange(1, width + 1) - column) ** 2
    return across[None] <= (radius**2 - down)[:, None]


def _polygon(dataset: "Dataset", height: int, width: int) -> _Mask:
    """Even-odd rule along each row, and whatever lies on an edge."""
    counts = range(6, 2 * MAX_VERTICES + 1, 2)
    places = _places(dataset, "VerticesOfThePolygonalShutter", counts)
    corners = list(zip(places[::2], places[1::2], strict=True))
    turns = np.zeros((height, width + 1), np.bool_)  # where an edge is crossed, from the left
    edges = np.zeros((height, width), np.bool_)
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        _draw_edge(turns, edges, min(start, end), max(start, end))
    return np.logical_xor.accumulate(turns[:, :width], axis=1) | edges


def _draw_edge(turns: _Mask, edges: _Mask, upper: tuple[int, int], lower: tuple[int, int]) -> None:
    """Add one edge, whose first corner is not below the second."""
    height, width = edges.shape
    (top, left), (bottom, right) = upper, lower
    if top == bottom:
        if 1 <= top <= height:
            edges[top - 1, max(left - 1, 0) : max(right, 0)] = True
        return
    rows = np.arange(max(top, 1), min(bottom, height) + 1)
    steps = (rows - top) * (right - left)
    columns = left - (-steps // (bottom - top))  # the first column not left of the edge
    crossed = rows < bottom  # each corner belongs to one of its two edges
    turns[rows[crossed] - 1, np.clip(columns[crossed] - 1, 0, width)] ^= True
    touched = (steps % (bottom - top) == 0) & (columns >= 1) & (columns <= width)
    edges[rows[touched] - 1, columns[touched] - 1] = True
