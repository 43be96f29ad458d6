"""Decoding: depth, colour, orientation, crop, resize, intensity, and all that can go wrong."""

import ast
import errno
import io
import logging
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

import xray_classifier.data as data_package
from xray_classifier.data import boundary
from xray_classifier.data.decode import (
    REASONS,
    Film,
    decode_file,
    film_from_array,
    prepare,
    read_film,
)
from xray_classifier.data.film import Origin, bits_of, colour_of
from xray_classifier.errors import DecodeError

INTENSITIES = ("equalize", "zscore", "minmax", "dataset")
CROPS = ("center", "pad", "stretch")


def radiograph(height: int = 40, width: int = 32) -> NDArray[np.uint8]:
    """A bright oval with ribs and noise, (height, width), using 0 and 255."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    noise = np.random.default_rng(0).normal(0, 0.03, (height, width))
    grey = np.exp(-2 * (x**2 + y**2)) + 0.15 * np.sin(12 * y) + noise
    scaled = (grey - grey.min()) / (grey.max() - grey.min())
    return np.asarray(np.rint(scaled * 255), np.uint8)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def refusal(path: Path) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode_file(path, 8, "center", "equalize")
    assert caught.value.reason in REASONS
    return caught.value


# ---- colour and depth ------------------------------------------------------------------------


def _palette(grey: NDArray[np.uint8]) -> Image.Image:
    """A palette image whose indices run against the greys."""
    image = Image.fromarray(255 - grey).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([255 - index for index in range(256) for _ in "RGB"])
    return image


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_eight_bit_grey_is_exact_in_every_lossless_container(
    tmp_path: Path, suffix: str, mode: str
) -> None:
    if suffix in ("bmp", "webp") and mode in ("LA", "P"):
        pytest.skip("the format has no such mode")
    grey = radiograph()
    image = _palette(grey) if mode == "P" else Image.fromarray(grey).convert(mode)
    options = {"lossless": True} if suffix == "webp" else {}
    film = read_film(saved(tmp_path / f"film.{suffix}", image, **options))
    np.testing.assert_array_equal(film.pixels, grey)
    assert film.full_scale == 255
    assert film.mask is None


@pytest.mark.parametrize("shape", ["hw", "hw1", "1hw", "hw3"])
def test_arrays_of_every_accepted_shape_are_the_same_film(shape: str) -> None:
    grey = radiograph()
    array = {
        "hw": grey,
        "hw1": grey[..., None],
        "1hw": grey[None],
        "hw3": np.stack([grey] * 3, axis=-1),
    }[shape]
    np.testing.assert_array_equal(film_from_array(array).pixels, grey)


@pytest.mark.parametrize("intensity", INTENSITIES)
def test_one_film_gives_one_picture_in_every_container_of_its_depth(
    tmp_path: Path, intensity: str
) -> None:
    grey = radiograph()
    expected = prepare(film_from_array(grey), 16, "center", intensity)
    deep = grey.astype(np.uint16) * 257  # 255 becomes 65535
    unit = (grey / 255).astype(np.float32)
    films = [
        read_film(saved(tmp_path / "a.png", Image.fromarray(grey).convert("RGBA"))),
        read_film(saved(tmp_path / "b.png", Image.fromarray(deep))),
        read_film(saved(tmp_path / "c.tif", Image.fromarray(deep), compression="tiff_lzw")),
        read_film(saved(tmp_path / "d.tif", Image.fromarray(unit))),
        film_from_array(deep),
        film_from_array(unit),
        film_from_array(unit.astype(np.float64)),
    ]
    for film in films:
        found = prepare(film, 16, "center", intensity)
        # Rounding of the resized floats may tip a value across a border between two levels.
        assert np.abs(found.astype(int) - expected).max() <= 1
    jpeg = saved(tmp_path / "e.jpg", Image.fromarray(grey), quality=100)
    found = decode_file(jpeg, 16, "center", intensity)
    assert np.abs(found.astype(int) - expected).max() <= 3


def test_jpeg_of_grey_as_rgb_equals_its_luma(tmp_path: Path) -> None:
    grey = radiograph()
    rgb = saved(tmp_path / "rgb.jpg", Image.fromarray(grey).convert("RGB"), quality=95)
    luma = np.asarray(Image.open(rgb).convert("L"))
    np.testing.assert_array_equal(read_film(rgb).pixels, luma)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_colour_becomes_its_bt601_luma(tmp_path: Path, suffix: str) -> None:
    colours = np.zeros((16, 48, 3), np.uint8)
    colours[:, :16], colours[:, 16:32], colours[:, 32:] = (
        (200, 50, 50),
        (50, 200, 90),
        (10, 60, 220),
    )
    path = saved(tmp_path / f"c.{suffix}", Image.fromarray(colours), quality=100, subsampling=0)
    expected = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_film(path).pixels - expected).max() <= 1.0
    assert np.abs(film_from_array(colours).pixels - expected).max() <= 0.5


@pytest.mark.parametrize(
    ("highest", "full_scale"),
    [
        (200, 1023),
        (1023, 1023),
        (1024, 4095),
        (4095, 4095),
        (4096, 16383),
        (16383, 16383),
        (16384, 65535),
        (65535, 65535),
    ],
)
@pytest.mark.parametrize("container", ["png", "tif", "big-endian tif", "array"])
def test_sixteen_bit_white_is_the_smallest_depth_that_holds_the_maximum(
    tmp_path: Path, container: str, highest: int, full_scale: int
) -> None:
    grey = np.linspace(0, highest, 20 * 20).round().astype(np.uint16).reshape(20, 20)
    if container == "array":
        film = film_from_array(grey)
    else:
        image = Image.fromarray(grey)
        if container.startswith("big"):
            image = Image.frombytes("I;16B", (20, 20), grey.astype(">u2").tobytes())
        film = read_film(saved(tmp_path / f"f.{container[-3:]}", image))
    np.testing.assert_array_equal(film.pixels, grey)
    assert film.full_scale == full_scale
    shown = prepare(film, 20, "center", "dataset")
    np.testing.assert_array_equal(shown, np.rint(grey / full_scale * 255))


def test_twelve_bits_in_a_sixteen_bit_container_keep_their_levels(tmp_path: Path) -> None:
    grey = (np.arange(64 * 64).reshape(64, 64)).astype(np.uint16)
    path = saved(tmp_path / "twelve.png", Image.fromarray(grey))
    for intensity in INTENSITIES:
        levels, counts = np.unique(decode_file(path, 64, "center", intensity), return_counts=True)
        assert len(levels) > 140
        assert counts.max() < 64  # a conversion that clips puts 94 % of the pixels on white


def test_sixteen_bit_tiff_with_white_at_zero_is_turned(tmp_path: Path) -> None:
    grey = radiograph().astype(np.uint16) * 257
    content = saved(tmp_path / "film.tif", Image.fromarray(65535 - grey)).read_bytes()
    tag = struct.pack("<HHI", 262, 3, 1)
    assert content.count(tag + b"\1\0") == 1
    path = tmp_path / "white_is_zero.tif"
    path.write_bytes(content.replace(tag + b"\1\0", tag + b"\0\0"))
    np.testing.assert_array_equal(read_film(path).pixels, grey)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0.0, 1.5]]),
        np.array([[-0.1, 0.5]]),
        np.array([[0.0, np.nan]]),
        np.array([[0.0, np.inf]]),
        np.array([[0, 1]], dtype=np.int64),
        np.array([[False, True]]),
        np.array([["a", "b"]]),
        np.array([[0, 1]], dtype=complex),
    ],
)
def test_arrays_whose_white_is_unknown_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        film_from_array(array)
    assert caught.value.reason == "ambiguous_range"


@pytest.mark.parametrize(
    "shape", [(), (4,), (0, 4), (4, 0), (3, 5, 5), (5, 5, 4), (5, 5, 2), (2, 1, 4, 4), (1, 5, 3)]
)
def test_arrays_that_are_not_one_film_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DecodeError) as caught:
        film_from_array(np.zeros(shape, np.uint8))
    assert caught.value.reason == "bad_shape"


def test_float_tiff_outside_the_unit_range_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(radiograph().astype(np.float32))
    assert refusal(saved(tmp_path / "f.tif", image)).reason == "ambiguous_range"


def test_negative_tiff_values_are_refused(tmp_path: Path) -> None:
    image = Image.fromarray(radiograph().astype(np.int32) - 1)
    assert refusal(saved(tmp_path / "f.tif", image)).reason == "ambiguous_range"


# ---- what is remembered of the file ----------------------------------------------------------

TINTED = np.stack([radiograph() // 2 + 100, radiograph() // 2 + 40, radiograph() // 2], axis=-1)
"""Largest minus smallest channel is 100 of 255 everywhere."""

DEEP = radiograph().astype(np.uint16) * 8  # up to 2040: eleven bits


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("a.png", Image.fromarray(radiograph()), ("PNG", "L", 8)),
        ("a.png", Image.fromarray(radiograph()).convert("RGB"), ("PNG", "RGB", 8)),
        ("a.png", Image.fromarray(radiograph()).convert("RGBA"), ("PNG", "RGBA", 8)),
        ("a.png", Image.fromarray(radiograph()).convert("LA"), ("PNG", "LA", 8)),
        ("a.png", Image.fromarray(radiograph()).convert("1"), ("PNG", "1", 8)),
        ("a.png", _palette(radiograph()), ("PNG", "P", 8)),
        ("a.png", Image.fromarray(DEEP), ("PNG", "I;16", 12)),
        ("a.png", Image.fromarray(DEEP * 32), ("PNG", "I;16", 16)),
        ("a.jpg", Image.fromarray(radiograph()), ("JPEG", "L", 8)),
        ("a.jpg", Image.fromarray(radiograph()).convert("RGB"), ("JPEG", "RGB", 8)),
        ("a.tif", Image.fromarray(radiograph()), ("TIFF", "L", 8)),
        ("a.tif", Image.fromarray(DEEP), ("TIFF", "I;16", 12)),
        ("a.tif", Image.fromarray((radiograph() / 255).astype(np.float32)), ("TIFF", "F", 32)),
        ("a.bmp", Image.fromarray(radiograph()), ("BMP", "L", 8)),
        ("a.jp2", Image.fromarray(radiograph()), ("JPEG2000", "L", 8)),
    ],
)
def test_the_origin_tells_container_type_and_depth(
    tmp_path: Path, name: str, image: Image.Image, expected: tuple[str, str, int]
) -> None:
    origin = read_film(saved(tmp_path / name, image)).origin
    assert (origin.container, origin.mode, origin.bits) == expected
    assert origin.colour == pytest.approx(0.0, abs=0.004)  # a JPEG rounds its channels
    assert (origin.scanner, origin.patient, origin.burned_in) == ("", "", False)


@pytest.mark.parametrize(
    ("array", "mode", "bits"),
    [
        (radiograph(), "uint8", 8),
        (np.stack([radiograph()] * 3, axis=-1), "uint8", 8),
        (DEEP, "uint16", 12),
        (DEEP // 2, "uint16", 10),
        (DEEP * 32, "uint16", 16),
        (radiograph() / 255, "float64", 32),
        ((radiograph() / 255).astype(np.float16), "float16", 32),
    ],
)
def test_the_origin_of_an_array_is_its_type(array: NDArray[Any], mode: str, bits: int) -> None:
    assert film_from_array(array).origin == Origin("ARRAY", mode, bits)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.jpg"])
def test_the_origin_tells_colour_from_grey(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(TINTED)
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if name == "a.jpg" else {}
    tolerance = 0.02 if name == "a.jpg" else 1e-6
    colour = read_film(saved(tmp_path / name, image, **options)).origin.colour
    assert colour == pytest.approx(100 / 255, abs=tolerance)
    if name == "a.png":
        assert read_film(saved(tmp_path / name, image.convert("P"))).origin.colour > 0.3
        assert read_film(saved(tmp_path / name, image.convert("RGBA"))).origin.colour == colour


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_origin_of_an_array_tells_colour_from_grey(dtype: type) -> None:
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    colour = film_from_array((TINTED * np.float64(scale)).astype(dtype)).origin.colour
    assert colour == pytest.approx(100 / 255, abs=1e-6)


@pytest.mark.parametrize(("step", "shape"), [(1, (20, 30)), (8, (20, 30)), (3, (7, 5))])
def test_colour_is_the_mean_span_of_the_channels(step: int, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 4), np.uint8)
    seen = [
        int(max(pixels[row, column, :3])) - int(min(pixels[row, column, :3]))
        for row in range(0, shape[0], step)
        for column in range(0, shape[1], step)
    ]
    assert colour_of(pixels, step) == pytest.approx(sum(seen) / len(seen) / 255)
    assert colour_of(pixels[..., :2], step) == colour_of(pixels[..., 0], step) == 0.0


@pytest.mark.parametrize(
    ("full_scale", "bits"), [(255.0, 8), (1023.0, 10), (4095.0, 12), (65535.0, 16), (1.0, 32)]
)
def test_depth_follows_from_white(full_scale: float, bits: int) -> None:
    assert bits_of(full_scale) == bits


# ---- transparency ----------------------------------------------------------------------------


def _with_clear_block(tmp_path: Path, kind: str) -> tuple[Path, NDArray[np.uint8]]:
    """A film with an 8 x 8 block that is transparent, and its grey values."""
    grey = np.maximum(radiograph(32, 32), 1)
    grey[:8, :8] = 0
    alpha = np.full_like(grey, 255)
    alpha[:8, :8] = 0
    alpha[20, 20] = 100  # half transparent: counts
    path = tmp_path / "clear.png"
    if kind in ("RGBA", "LA"):
        bands = [grey, alpha] if kind == "LA" else [grey, grey, grey, alpha]
        Image.fromarray(np.stack(bands, axis=-1), kind).save(path)
    elif kind == "palette":
        image = Image.frombytes("P", (32, 32), grey.tobytes())
        image.putpalette([level for level in range(256) for _ in "RGB"])
        image.save(path, transparency=0)
    elif kind == "tRNS RGB":
        Image.fromarray(grey).convert("RGB").save(path, transparency=(0, 0, 0))
    elif kind == "tRNS 16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
        _add_chunk(path, b"tRNS", b"\0\0")
    else:
        Image.fromarray(grey).save(path, transparency=0)
    return path, grey


def _add_chunk(path: Path, name: bytes, body: bytes) -> None:
    """Put a chunk before the first IDAT of a PNG."""
    content = path.read_bytes()
    at = content.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(content[:at] + chunk + content[at:])


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "tRNS L", "tRNS RGB", "tRNS 16"])
def test_transparent_pixels_are_padding(tmp_path: Path, kind: str) -> None:
    path, grey = _with_clear_block(tmp_path, kind)
    film = read_film(path)
    mask = np.ones((32, 32), bool)
    mask[:8, :8] = False
    assert film.mask is not None
    np.testing.assert_array_equal(film.mask, mask)
    shown = decode_file(path, 32, "center", "equalize")
    assert not shown[:8, :8].any()
    expected = (rankdata(grey[mask]) - 1) / (mask.sum() - 1) * 255
    np.testing.assert_array_equal(shown[mask], np.rint(expected))


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_a_film_that_is_all_transparent_is_blank(tmp_path: Path) -> None:
    grey = radiograph()
    image = Image.fromarray(np.stack([grey, np.zeros_like(grey)], axis=-1), "LA")
    assert refusal(saved(tmp_path / "clear.png", image)).reason == "blank"


def test_padding_does_not_bleed_into_the_film_when_shrinking() -> None:
    pixels = np.full((32, 32), 255, np.uint8)
    mask = np.ones((32, 32), bool)
    mask[:, 21:] = False
    pixels[:, :21] = 80
    pixels[16:, :21] = 120
    shown = prepare(Film(pixels, 255.0, mask), 8, "center", "dataset")
    np.testing.assert_array_equal(np.unique(shown[:3, :5]), [80])
    np.testing.assert_array_equal(np.unique(shown[5:, :5]), [120])
    np.testing.assert_array_equal(np.unique(shown[:, 6:]), [0])


# ---- orientation -----------------------------------------------------------------------------

# Where the first stored row and the first stored column are seen (Exif 2.3, 4.6.4 A).
SEEN = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def _seen(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Place every stored pixel where the Exif table says that it is seen."""
    rows, columns = stored.shape
    row_side, column_side = SEEN[orientation]
    turned = row_side in ("left", "right")
    shown = np.zeros((columns, rows) if turned else (rows, columns), stored.dtype)
    for row in range(rows):
        for column in range(columns):
            along_row = rows - 1 - row if row_side in ("bottom", "right") else row
            along_column = columns - 1 - column if column_side in ("bottom", "right") else column
            place = (along_column, along_row) if turned else (along_row, along_column)
            shown[place] = stored[row, column]
    return shown


@pytest.mark.parametrize("orientation", sorted(SEEN))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "lzw.tif", "16.png", "16.tif"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = radiograph(12, 20)
    image = Image.fromarray(stored.astype(np.uint16) * 257 if "16" in suffix else stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    special: dict[str, Any] = {"lzw.tif": {"compression": "tiff_lzw"}, "jpg": {"quality": 100}}
    path = saved(tmp_path / f"o.{suffix}", image, exif=exif, **special.get(suffix, {}))
    scale = 257 if "16" in suffix else 1
    seen = _seen(stored, orientation).astype(int) * scale
    film = read_film(path)
    assert np.abs(film.pixels.astype(int) - seen).max() <= (2 if suffix == "jpg" else 0)


def test_a_turned_jpeg_is_the_upright_one(tmp_path: Path) -> None:
    upright = np.asarray(Image.fromarray(radiograph()).resize((403, 301)))
    stored = np.rot90(upright)  # seen upright by turning it right: orientation 6
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = saved(tmp_path / "plain.jpg", Image.fromarray(upright), quality=95)
    turned = saved(tmp_path / "turned.jpg", Image.fromarray(stored), quality=95, exif=exif)
    a = decode_file(plain, 16, "center", "equalize").astype(int)
    b = decode_file(turned, 16, "center", "equalize").astype(int)
    assert np.abs(a - b).mean() < 0.5


# ---- crop and resize -------------------------------------------------------------------------


def _shown(array: NDArray[np.uint8], size: int, crop: str) -> list[list[int]]:
    listed: list[list[int]] = prepare(film_from_array(array), size, crop, "dataset").tolist()
    return listed


def test_center_keeps_the_middle_and_cuts_an_odd_surplus_at_the_far_side() -> None:
    wide = np.arange(10, dtype=np.uint8).reshape(2, 5)
    assert _shown(wide, 2, "center") == [[1, 2], [6, 7]]
    assert _shown(wide.T, 2, "center") == [[1, 6], [2, 7]]
    assert _shown(wide[:, :4], 2, "center") == [[1, 2], [6, 7]]


def test_pad_centres_the_film_on_black() -> None:
    wide = np.arange(1, 9, dtype=np.uint8).reshape(2, 4)
    black = [0, 0, 0, 0]
    assert _shown(wide, 4, "pad") == [black, [1, 2, 3, 4], [5, 6, 7, 8], black]
    assert _shown(wide[:1], 4, "pad") == [black, [1, 2, 3, 4], black, black]
    assert _shown(wide[:1].T, 4, "pad") == [[0, n, 0, 0] for n in (1, 2, 3, 4)]


def test_pad_keeps_a_sliver_of_a_very_long_film() -> None:
    sliver = np.arange(200, dtype=np.uint8)[None]
    shown = prepare(film_from_array(sliver), 8, "pad", "minmax")
    assert shown[3].any()
    assert not np.delete(shown, 3, axis=0).any()


def test_stretch_scales_both_sides_to_the_square() -> None:
    column_wise = np.array([[10, 10, 20, 20]] * 2, dtype=np.uint8)
    shown = prepare(film_from_array(column_wise), 2, "stretch", "dataset")
    # The triangle filter reaches half a new pixel across: weights 3/8, 3/8, 1/8 (and none outside).
    assert shown.tolist() == [[11, 19], [11, 19]]


@pytest.mark.parametrize("crop", CROPS)
def test_a_square_film_of_the_right_size_is_not_touched(crop: str) -> None:
    grey = radiograph(24, 24)
    np.testing.assert_array_equal(prepare(film_from_array(grey), 24, crop, "dataset"), grey)


def _triangle_weights(old: int, new: int) -> NDArray[np.float64]:
    """Weight of each old pixel in each new one, (new, old): a triangle two new pixels wide."""
    weights = np.zeros((new, old))
    reach = max(old / new, 1.0)
    for row in range(new):
        middle = (row + 0.5) * old / new
        for column in range(old):
            weights[row, column] = max(0.0, 1 - abs(column + 0.5 - middle) / reach)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 64), (50, 41, 16), (97, 31, 40)])
def test_resizing_is_a_triangle_filter(height: int, width: int, size: int) -> None:
    grey = radiograph(height, width)
    expected = _triangle_weights(height, size) @ grey @ _triangle_weights(width, size).T
    shown = prepare(film_from_array(grey), size, "stretch", "dataset")
    assert np.abs(shown - expected).max() <= 0.501


def test_shrinking_averages_rather_than_samples() -> None:
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 200
    stripes[0, 0] = 255  # else the result would be blank
    shown = prepare(film_from_array(stripes), 16, "center", "dataset")
    inner = shown[1:-1, 1:-1]
    assert inner.min() == inner.max() == 100


@settings(max_examples=30, deadline=None)
@given(
    level=st.floats(0.0, 1.0, width=32),
    height=st.integers(3, 70),
    width=st.integers(3, 70),
    size=st.integers(4, 40),
)
def test_a_flat_area_stays_exactly_flat(level: float, height: int, width: int, size: int) -> None:
    """Else rounding noise would break ties and equalize would draw it as texture."""
    grey = np.full((2 * height, width), level, np.float32)
    grey[height:] = np.linspace(0, 1, width)
    shown = prepare(film_from_array(grey), size, "stretch", "equalize")
    step = 2 * height / size  # film pixels per new one; a triangle reaches one step, or one pixel
    middles = (np.arange(size) + 0.5) * step
    flat = shown[middles + max(step, 1.0) <= height]
    assert flat.size == 0 or flat.min() == flat.max()


# ---- intensity -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(grey=arrays(np.uint8, (6, 6), elements=st.integers(0, 12)))
def test_equalize_is_the_mean_rank(grey: NDArray[np.uint8]) -> None:
    if grey.min() == grey.max():
        with pytest.raises(DecodeError, match="one grey level"):
            prepare(film_from_array(grey), 6, "center", "equalize")
        return
    expected = np.rint((rankdata(grey) - 1) / (grey.size - 1) * 255).reshape(6, 6)
    found = prepare(film_from_array(grey), 6, "center", "equalize")
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(
    grey=arrays(np.uint8, (6, 6), elements=st.integers(0, 40), unique=True),
    steps=st.lists(st.integers(1, 1500), min_size=41, max_size=41),
)
def test_equalize_is_blind_to_any_rising_map_at_native_size(
    grey: NDArray[np.uint8], steps: list[int]
) -> None:
    curve = (np.cumsum(steps) - steps[0]).astype(np.uint16)
    plain = prepare(film_from_array(grey), 6, "center", "equalize")
    mapped = prepare(film_from_array(curve[grey]), 6, "center", "equalize")
    np.testing.assert_array_equal(plain, mapped)


@pytest.mark.parametrize("crop", CROPS)
def test_equalize_is_blind_to_gain_and_offset_also_when_resizing(crop: str) -> None:
    grey = radiograph(50, 37).astype(np.uint16)
    plain = prepare(film_from_array(grey), 16, crop, "equalize")
    mapped = prepare(film_from_array(grey * 64 + 777), 16, crop, "equalize")
    assert np.abs(plain.astype(int) - mapped).max() <= 1


def test_equalize_of_the_negative_is_the_negative() -> None:
    grey = radiograph(24, 24)
    plain = prepare(film_from_array(grey), 24, "center", "equalize").astype(int)
    negative = prepare(film_from_array(255 - grey), 24, "center", "equalize").astype(int)
    assert np.abs(255 - plain - negative).max() <= 1  # halves round to even


def test_equalize_uses_all_levels_evenly() -> None:
    grey = np.random.default_rng(0).permutation(64 * 64).astype(np.uint16).reshape(64, 64)
    shown = prepare(film_from_array(grey), 64, "center", "equalize")
    counts = np.bincount(shown.ravel(), minlength=256)
    assert counts[1:-1].min() >= 16
    assert counts.max() <= 17
    assert counts[[0, -1]].min() >= 8  # the outer levels collect half an interval


def _by_hand(values: NDArray[np.float64], full_scale: float, intensity: str) -> NDArray[Any]:
    """Levels 0 to 255 of the film's own pixels, by the definitions."""
    if intensity == "equalize":
        levels = (rankdata(values) - 1) / (len(values) - 1) * 255
    elif intensity == "minmax":
        levels = (values - min(values)) / (max(values) - min(values)) * 255
    elif intensity == "zscore":
        z = (values - values.mean()) / np.sqrt(((values - values.mean()) ** 2).mean())
        levels = (np.clip(z, -3, 3) + 3) / 6 * 255
    else:
        levels = values / full_scale * 255
    return np.asarray(np.rint(levels))


@pytest.mark.parametrize("intensity", INTENSITIES)
def test_padding_takes_no_part_in_the_intensity(intensity: str) -> None:
    grey = radiograph(16, 9).astype(np.uint16) * 10 + 300  # up to 2850: twelve bits
    grey[0, 0] = 4000  # an outlier, for zscore to clip
    shown = prepare(film_from_array(grey), 16, "pad", intensity)
    inside = shown[:, 3:12]
    expected = _by_hand(grey.ravel().astype(float), 4095, intensity).reshape(16, 9)
    assert np.abs(inside - expected).max() <= (1 if intensity == "zscore" else 0)
    assert not np.delete(shown, np.s_[3:12], axis=1).any()


@pytest.mark.parametrize("intensity", INTENSITIES)
@pytest.mark.parametrize("level", [0, 37, 255])
def test_a_blank_film_is_refused(intensity: str, level: int) -> None:
    with pytest.raises(DecodeError) as caught:
        prepare(film_from_array(np.full((20, 30), level, np.uint8)), 8, "pad", intensity)
    assert caught.value.reason == "blank"


# ---- what can go wrong -----------------------------------------------------------------------


def _encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(radiograph(48, 48))
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "JPEG2000"])
def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path: Path, kind: str) -> None:
    content = _encoded(kind)
    path = tmp_path / "cut"
    reasons = set()
    for length in np.linspace(1, len(content) * 0.98, 40).astype(int):
        path.write_bytes(content[:length])
        reasons.add(refusal(path).reason)
    assert reasons <= {"truncated", "unreadable", "not_an_image"}
    path.write_bytes(content[: len(content) * 2 // 3])
    assert refusal(path).reason in ("truncated", "unreadable")


def test_a_jpeg_cut_in_half_says_truncated(tmp_path: Path) -> None:
    content = _encoded("JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: len(content) // 2])
    assert refusal(path).reason == "truncated"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", b"", "empty_file"),
        ("text.png", b"This is no image.\n" * 20, "not_an_image"),
        ("zeros.jpg", bytes(5000), "not_an_image"),
        ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", "not_an_image"),
        ("archive.zip", b"PK\x03\x04" + bytes(100), "not_an_image"),
        ("head.png", b"\x89PNG\r\n\x1a\n", "unreadable"),
        ("head.jpg", b"\xff\xd8\xff\xe0", "unreadable"),
    ],
)
def test_files_that_are_no_image(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(path).reason == reason


def test_paths_that_are_no_readable_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing.png").reason == "not_found"
    assert refusal(tmp_path).reason == "not_a_file"
    assert refusal(tmp_path / "null\0byte.png").reason == "not_found"
    assert refusal(tmp_path / ("a" * 300 + ".png")).reason == "not_found"
    (tmp_path / "file").write_bytes(b"x")
    assert refusal(tmp_path / "file" / "below.png").reason == "not_found"


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_failing_drive_is_no_damaged_film(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "film.png", Image.new("L", (4, 4)))
    opened = Path.open

    def failing(path: Path, *words: Any, **more: Any) -> Any:
        if path.suffix == ".png":
            raise OSError(error, os.strerror(error))
        return opened(path, *words, **more)

    monkeypatch.setattr(Path, "open", failing)
    assert refusal(tmp_path / "film.png").reason == "read_error"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert refusal(tmp_path / "pipe.png").reason == "not_a_file"


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "locked.png", Image.fromarray(radiograph()))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert refusal(path).reason == "no_permission"


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(boundary.MAX_FILE_BYTES + 1)
    assert refusal(path).reason == "too_large"


def _png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    packed = zlib.compress(rows)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_001, 13_400, 60_000])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    """The three sides stand below, between and above Pillow's own two limits."""
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(side, side, 8, 0, bytes(1000)))
    assert refusal(path).reason == "too_large"


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_colour_is_refused_rather_than_cut_to_eight(
    tmp_path: Path, colour: int, channels: int
) -> None:
    row = b"\0" + bytes(range(8 * channels * 2))
    path = tmp_path / "deep.png"
    path.write_bytes(_png(8, 8, 16, colour, row * 8))
    assert refusal(path).reason == "unsupported_mode"


def test_a_colour_space_without_luma_is_refused(tmp_path: Path) -> None:
    image = Image.frombytes("LAB", (8, 8), bytes(range(192)))
    assert refusal(saved(tmp_path / "lab.tif", image)).reason == "unsupported_mode"


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp", "mpo"])
def test_files_with_several_pictures_are_refused(tmp_path: Path, suffix: str) -> None:
    pages = [Image.fromarray(radiograph()), Image.fromarray(255 - radiograph())]
    path = saved(tmp_path / f"pages.{suffix}", pages[0], save_all=True, append_images=pages[1:])
    assert refusal(path).reason == "multi_image"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_is_many_images(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "set.npz", train_images=np.zeros((5, 8, 8), np.uint8))
    assert refusal(tmp_path / "set.npz").reason == "multi_image"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "GIF", "JPEG2000", "WEBP", "PPM"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_a_damaged_file_gives_a_picture_or_a_reason(
    tmp_path: Path, kind: str, edits: list[tuple[float, int]]
) -> None:
    content = bytearray(_encoded(kind))
    for place, value in edits:
        content[int(place * (len(content) - 1))] = value
    path = tmp_path / "damaged"
    path.write_bytes(bytes(content))
    reason = ""
    try:
        shown = decode_file(path, 8, "pad", "equalize")
        assert shown.shape == (8, 8)
        assert shown.dtype == np.uint8
    except DecodeError as error:
        reason = error.reason
    assert reason in ("", *REASONS)


def test_every_reason_that_is_raised_is_listed_and_every_listed_one_is_raised() -> None:
    folder = Path(data_package.__path__[0])
    raised = set()
    for name in sorted(path.stem for path in folder.glob("*.py")):
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DecodeError":
                reason = node.args[0]
                assert isinstance(reason, ast.Constant)
                raised.add(reason.value)
    assert raised | {"outside_root", "out_of_scope"} == set(REASONS)  # told by `predict` alone
    assert len(REASONS) == len(set(REASONS))


# ---- silence and threads ---------------------------------------------------------------------


def test_nothing_that_the_file_says_is_repeated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "DOE^JANE"
    exif = Image.Exif()
    exif[0x010E] = canary
    image = Image.fromarray(radiograph())
    whole = [
        saved(tmp_path / "a.png", image, exif=exif),
        saved(tmp_path / "b.jpg", image, exif=exif, comment=canary),
        saved(tmp_path / "c.tif", image, description=canary, compression="tiff_lzw"),
    ]
    _add_chunk(whole[0], b"tEXt", b"Patient\0" + canary.encode())
    caplog.set_level(logging.DEBUG)
    details = []
    for path in whole:
        assert canary.encode() in path.read_bytes()
        decode_file(path, 8, "center", "equalize")
        path.write_bytes(path.read_bytes()[:-200])
        details.append(str(refusal(path)))
    printed = "".join(capfd.readouterr())
    assert canary not in printed + caplog.text + "".join(details)


def test_quiet_decoders_leave_filters_and_loggers_as_they_were() -> None:
    before = list(warnings.filters)
    rounds = range(200)

    def warn(_: int) -> None:
        with boundary.quiet_decoders():
            warnings.warn("a decoder's warning", UserWarning, stacklevel=1)
            logging.getLogger("pydicom").error("a decoder's error")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(warn, rounds))
    assert warnings.filters == before
    assert not any(logging.getLogger(name).disabled for name in boundary.DECODER_LOGGERS)
    with pytest.warns(UserWarning, match="ours"):
        warnings.warn("ours", UserWarning, stacklevel=1)


def test_threads_give_what_one_thread_gives(tmp_path: Path) -> None:
    paths = []
    for number in range(24):
        grey = np.roll(radiograph(), number, axis=1)
        suffix = ("png", "jpg", "tif")[number % 3]
        paths.append(saved(tmp_path / f"{number}.{suffix}", Image.fromarray(grey)))
    paths.append(tmp_path / "missing.png")

    def attempt(path: Path) -> bytes | str:
        try:
            return decode_file(path, 16, "pad", "equalize").tobytes()
        except DecodeError as error:
            return error.reason

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(attempt, paths * 4)) == [attempt(path) for path in paths] * 4
