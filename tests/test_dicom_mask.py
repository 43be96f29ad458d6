"""Padding and shutters, pixel by pixel against the definitions."""

from typing import Any

import numpy as np
import pytest
from dicom_files import GREY, content_of, dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from xray_classifier.data.dicom import read_dicom
from xray_classifier.data.dicom_mask import MAX_COORDINATE, MAX_VERTICES
from xray_classifier.data.film import Film
from xray_classifier.data.intensity import prepare
from xray_classifier.errors import DecodeError

HEIGHT, WIDTH = GREY.shape
RECTANGLE = {
    "ShutterLeftVerticalEdge": 3,
    "ShutterRightVerticalEdge": 14,
    "ShutterUpperHorizontalEdge": 2,
    "ShutterLowerHorizontalEdge": 19,
}
CIRCLE = {"CenterOfCircularShutter": [10, 8], "RadiusOfCircularShutter": 7}
POLYGON = {"VerticesOfThePolygonalShutter": [1, 1, 1, 12, 15, 16, 20, 4]}

Point = tuple[int, int]


def film(**elements: Any) -> Film:
    return read_dicom(content_of(dicom(**elements)), "reject")


def mask_of(**elements: Any) -> NDArray[np.bool_]:
    mask = film(**elements).mask
    assert mask is not None
    return mask


def by_pixel(holds: Any) -> NDArray[np.bool_]:
    """Ask for each pixel by its row and column, which count from 1."""
    rows, columns = range(1, HEIGHT + 1), range(1, WIDTH + 1)
    return np.array([[holds(row, column) for column in columns] for row in rows])


def in_rectangle(row: int, column: int) -> bool:
    return 3 <= column <= 14 and 2 <= row <= 19


def in_circle(row: int, column: int) -> bool:
    return (row - 10) ** 2 + (column - 8) ** 2 <= 49


def in_polygon(corners: list[Point], row: int, column: int) -> bool:
    """By edges to the right of the point, in whole numbers; an edge holds its points."""
    inside = False
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        (top, left), (bottom, right) = sorted((start, end))
        turn = (right - left) * (row - top) - (column - left) * (bottom - top)
        spans = min(left, right) <= column <= max(left, right)
        if turn == 0 and top <= row <= bottom and spans:
            return True
        if top <= row < bottom and turn > 0:
            inside = not inside
    return inside


def pairs(places: list[int]) -> list[Point]:
    return list(zip(places[::2], places[1::2], strict=True))


def test_a_rectangular_shutter_holds_its_edges() -> None:
    mask = mask_of(ShutterShape="RECTANGULAR", **RECTANGLE)
    np.testing.assert_array_equal(mask, by_pixel(in_rectangle))
    assert mask.sum() == 12 * 18


@pytest.mark.parametrize(("row", "column", "radius"), [(10, 8, 7), (1, 1, 5), (-3, 20, 12)])
def test_a_circular_shutter_is_a_distance(row: int, column: int, radius: int) -> None:
    elements = {"CenterOfCircularShutter": [row, column], "RadiusOfCircularShutter": radius}
    found = mask_of(ShutterShape="CIRCULAR", **elements)
    expected = by_pixel(lambda r, c: np.hypot(r - row, c - column) <= radius)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 28), st.integers(-5, 24)), min_size=3, max_size=8))
def test_a_polygonal_shutter_is_the_even_odd_rule(corners: list[Point]) -> None:
    places = [place for corner in corners for place in corner]
    mask = film(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=places).mask
    expected = by_pixel(lambda row, column: in_polygon(corners, row, column))
    if expected.all() or not expected.any():
        assert mask is None
    else:
        np.testing.assert_array_equal(mask, expected)


def test_a_rectangle_is_the_same_as_a_polygon() -> None:
    corners = [2, 3, 2, 14, 19, 14, 19, 3]
    as_polygon = mask_of(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=corners)
    np.testing.assert_array_equal(as_polygon, by_pixel(in_rectangle))


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_of_several_shutters_the_intersection_is_seen(syntax: str | None) -> None:
    names = ["RECTANGULAR", "CIRCULAR", "POLYGONAL"]
    dataset = dicom(ShutterShape=names, **RECTANGLE, **CIRCLE, **POLYGON)
    dataset.file_meta.TransferSyntaxUID = syntax or dataset.file_meta.TransferSyntaxUID
    corners = pairs(POLYGON["VerticesOfThePolygonalShutter"])
    expected = by_pixel(
        lambda row, column: (
            in_rectangle(row, column)
            and in_circle(row, column)
            and in_polygon(corners, row, column)
        )
    )
    assert 20 < expected.sum() < 200
    mask = read_dicom(content_of(dataset), "reject").mask
    assert mask is not None
    np.testing.assert_array_equal(mask, expected)


def test_padding_and_shutter_are_both_left_out() -> None:
    grey = GREY.copy()
    grey[:5] = 77
    mask = mask_of(pixels=grey, PixelPaddingValue=77, ShutterShape="RECTANGULAR", **RECTANGLE)
    np.testing.assert_array_equal(mask, by_pixel(in_rectangle) & (grey != 77))


def test_what_is_behind_a_shutter_moves_no_grey_of_the_film() -> None:
    plain = film(ShutterShape="CIRCULAR", **CIRCLE)
    grey = np.where(by_pixel(in_circle), GREY, 4095 - GREY).astype(np.uint16)
    other = film(pixels=grey, ShutterShape="CIRCULAR", **CIRCLE)
    for intensity in ("equalize", "minmax", "zscore"):
        expected = prepare(plain, 20, "pad", intensity)
        np.testing.assert_array_equal(prepare(other, 20, "pad", intensity), expected)
    assert not np.array_equal(plain.pixels, other.pixels)


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"ShutterShape": "BITMAP"},
        {"ShutterShape": ""},
        {"ShutterShape": "RECTANGULAR", **RECTANGLE, "ShutterLeftVerticalEdge": 15},
        {"ShutterShape": "RECTANGULAR", **RECTANGLE, "ShutterUpperHorizontalEdge": 21},
        {"ShutterShape": "CIRCULAR", **CIRCLE, "CenterOfCircularShutter": [500, 500]},
        {"ShutterShape": "CIRCULAR", **CIRCLE, "RadiusOfCircularShutter": 500},
    ],
)
def test_shutters_that_hide_all_or_nothing_are_none(elements: dict[str, Any]) -> None:
    assert film(**elements).mask is None


@pytest.mark.parametrize(
    "elements",
    [
        {"ShutterShape": "RECTANGULAR"},
        {"ShutterShape": "RECTANGULAR", **RECTANGLE, "ShutterLeftVerticalEdge": None},
        {"ShutterShape": "RECTANGULAR", **RECTANGLE, "ShutterLeftVerticalEdge": [1, 2]},
        {"ShutterShape": "CIRCULAR", **CIRCLE, "CenterOfCircularShutter": [1, 2, 3]},
        {"ShutterShape": "CIRCULAR", **CIRCLE, "RadiusOfCircularShutter": MAX_COORDINATE + 1},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 9, 9]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 9, 9, 4, 4, 4]},
        {
            "ShutterShape": "POLYGONAL",
            "VerticesOfThePolygonalShutter": [1] * (2 * MAX_VERTICES + 2),
        },
    ],
)
def test_a_shutter_without_a_shape_is_refused(elements: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="does not describe a shutter") as caught:
        film(**elements)
    assert caught.value.reason == "unsupported_dicom"


def test_padding_that_covers_everything_leaves_no_film() -> None:
    mask = mask_of(PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    assert not mask.any()
    with pytest.raises(DecodeError, match="one grey level"):
        prepare(film(PixelPaddingValue=0, PixelPaddingRangeLimit=4095), 8, "pad", "equalize")
