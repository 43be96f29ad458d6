"""DICOM: the order of the transforms, each formula, what is refused, and that nothing leaks."""

import contextlib
import hashlib
import io
import logging
import struct
import subprocess
import sys
import traceback
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import GREY, REAL, content_of, dicom, lut, real, refusal, written
from numpy.typing import NDArray
from PIL import Image
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalIntraOralXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from xray_classifier.data.decode import decode_file, film_from_array, prepare, read_film
from xray_classifier.data.dicom import is_dicom
from xray_classifier.data.film import Origin
from xray_classifier.errors import DecodeError
from xray_classifier.pseudonyms import pseudonym

CANARY = "Canary4711"


@pytest.fixture(autouse=True)
def private_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the key of patient ids out of the user's folders."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def shown(path: Path) -> NDArray[Any]:
    """Grey as a fraction of white."""
    film = read_film(path)
    return np.asarray(film.pixels / film.full_scale)


# ---- what a film looks like ------------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_scale_comes_from_bits_stored(tmp_path: Path, bits: int) -> None:
    grey = (GREY.astype(int) >> 3).astype(np.uint16)  # up to 511: needs none of these depths
    film = read_film(written(tmp_path / "film.dcm", dicom(grey, bits)))
    np.testing.assert_array_equal(film.pixels, grey)
    assert film.full_scale == 2**bits - 1
    assert film.mask is None


def test_monochrome1_is_turned_once_and_last(tmp_path: Path) -> None:
    plain = written(tmp_path / "2.dcm", dicom())
    negative = dicom(4095 - GREY, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(shown(written(tmp_path / "1.dcm", negative)), shown(plain))
    negative.PresentationLUTShape = "INVERSE"  # says the same again
    np.testing.assert_array_equal(shown(written(tmp_path / "i1.dcm", negative)), shown(plain))
    inverse = dicom(4095 - GREY, PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(shown(written(tmp_path / "i2.dcm", inverse)), shown(plain))
    identity = dicom(PresentationLUTShape="IDENTITY")
    np.testing.assert_array_equal(shown(written(tmp_path / "id.dcm", identity)), shown(plain))


@pytest.mark.parametrize("intensity", ["equalize", "zscore", "minmax", "dataset"])
def test_a_film_is_the_same_as_dicom_png_and_array(tmp_path: Path, intensity: str) -> None:
    Image.fromarray(GREY).save(tmp_path / "film.png")
    deep = GREY.astype(np.uint16) * 16
    paths = [
        tmp_path / "film.png",
        written(tmp_path / "a.dcm", dicom()),
        written(tmp_path / "b", dicom(4095 - GREY, PhotometricInterpretation="MONOCHROME1")),
        written(tmp_path / "c.dcm", dicom(WindowCenter=2048, WindowWidth=4096)),
        written(tmp_path / "d.dcm", dicom(GREY.astype(np.int16) - 2048)),
        written(tmp_path / "e.dcm", dicom(deep, 16, WindowCenter=32760.5, WindowWidth=65521)),
    ]
    expected = prepare(film_from_array(GREY), 8, "center", intensity)
    for path in paths:
        found = decode_file(path, 8, "center", intensity)
        assert np.abs(found.astype(int) - expected).max() <= 1, path.name


def test_eight_bits(tmp_path: Path) -> None:
    grey = (GREY >> 4).astype(np.uint8)
    film = read_film(written(tmp_path / "film.dcm", dicom(grey, 8)))
    np.testing.assert_array_equal(film.pixels, grey)
    assert film.full_scale == 255


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless]
)
def test_lossless_transfer_syntaxes_keep_every_value(tmp_path: Path, syntax: UID) -> None:
    dataset = dicom()
    if syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom")
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = GREY.astype(">u2").tobytes()
        path = tmp_path / "film.dcm"
        pydicom.dcmwrite(path, dataset, little_endian=False, implicit_vr=False)
    else:
        path = written(tmp_path / "film.dcm", dataset)
    np.testing.assert_array_equal(read_film(path).pixels, GREY)


# ---- the transforms --------------------------------------------------------------------------


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -100), (-2.0, 4000.0), (1, -1024)])
def test_rescale_alone_keeps_the_whole_range(
    tmp_path: Path, slope: float, intercept: float
) -> None:
    path = written(tmp_path / "f.dcm", dicom(RescaleSlope=slope, RescaleIntercept=intercept))
    expected = GREY / 4095 if slope > 0 else 1 - GREY / 4095
    np.testing.assert_allclose(shown(path), expected, atol=1e-6)


def test_the_window_applies_to_rescaled_values(tmp_path: Path) -> None:
    elements: dict[str, Any] = {
        "RescaleSlope": 2,
        "RescaleIntercept": -1000,
        "WindowCenter": 1000.5,
    }
    path = written(tmp_path / "f.dcm", dicom(**elements, WindowWidth=2001))
    expected = np.clip((GREY * 2.0 - 1000 - 1000) / 2000 + 0.5, 0, 1)
    np.testing.assert_allclose(shown(path), expected, atol=1e-6)


def test_window_by_the_pseudo_code_of_the_standard(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.2.1, written out pixel by pixel."""
    path = written(tmp_path / "f.dcm", dicom(WindowCenter=100, WindowWidth=3))
    expected = np.zeros(GREY.shape)
    for place, x in np.ndenumerate(GREY):
        if x <= 100 - 0.5 - (3 - 1) / 2:
            expected[place] = 0
        elif x > 100 - 0.5 + (3 - 1) / 2:
            expected[place] = 1
        else:
            expected[place] = (x - (100 - 0.5)) / (3 - 1) + 0.5
    np.testing.assert_allclose(shown(path), expected, atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_voi_lut_functions(tmp_path: Path, function: str) -> None:
    elements: dict[str, Any] = {"WindowCenter": 2000, "WindowWidth": 1000}
    elements |= {"VOILUTFunction": function}
    x = (GREY - 2000.0) / 1000
    expected = np.clip(x + 0.5, 0, 1) if function == "LINEAR_EXACT" else 1 / (1 + np.exp(-4 * x))
    path = written(tmp_path / "f.dcm", dicom(**elements))
    np.testing.assert_allclose(shown(path), expected, atol=1e-6)


def test_the_first_of_several_windows_counts(tmp_path: Path) -> None:
    one = written(tmp_path / "1.dcm", dicom(WindowCenter=900, WindowWidth=700))
    many = dicom(WindowCenter=[900, 2000], WindowWidth=[700, 100])
    np.testing.assert_array_equal(shown(written(tmp_path / "2.dcm", many)), shown(one))


def test_an_empty_window_is_no_window(tmp_path: Path) -> None:
    empty = dicom(WindowCenter=None, WindowWidth=None)
    np.testing.assert_array_equal(read_film(written(tmp_path / "f.dcm", empty)).pixels, GREY)


def test_a_voi_lut_comes_before_the_window(tmp_path: Path) -> None:
    table = [(index * index) >> 12 for index in range(4096)]
    dataset = dicom(VOILUTSequence=lut(table, 0, 12), WindowCenter=10, WindowWidth=5)
    film = read_film(written(tmp_path / "f.dcm", dataset))
    np.testing.assert_array_equal(film.pixels, (GREY.astype(int) ** 2) >> 12)
    assert film.full_scale == 4095


def test_values_outside_a_lut_take_its_ends_and_never_wrap(tmp_path: Path) -> None:
    """A table of 256 entries of 8 bits over 12-bit values; 4095 - 1000 wraps to 23 in 8 bits."""
    table = list(range(255, -1, -1))
    film = read_film(written(tmp_path / "f.dcm", dicom(VOILUTSequence=lut(table, 1000, 8))))
    expected = 255 - np.clip(GREY.astype(int) - 1000, 0, 255)
    np.testing.assert_array_equal(film.pixels, expected)
    assert film.full_scale == 255


def test_a_lut_may_start_below_zero(tmp_path: Path) -> None:
    grey = GREY.astype(np.int16) - 2048
    dataset = dicom(grey, VOILUTSequence=lut(list(range(4096)), -2048, 12))
    np.testing.assert_array_equal(read_film(written(tmp_path / "f.dcm", dataset)).pixels, GREY)


@pytest.mark.parametrize("packing", ["words", "bytes"])
def test_a_modality_lut_feeds_the_window(tmp_path: Path, packing: str) -> None:
    table = [index // 16 for index in range(4096)]
    sequence = lut(table, 0, 8)
    del sequence[0].LUTData
    content = np.array(table, "<u2" if packing == "words" else "u1").tobytes()
    sequence[0].add_new("LUTData", "OW", content)
    dataset = dicom(ModalityLUTSequence=sequence, WindowCenter=100, WindowWidth=101)
    expected = np.clip((GREY // 16 - 99.5) / 100 + 0.5, 0, 1)
    np.testing.assert_allclose(shown(written(tmp_path / "f.dcm", dataset)), expected, atol=1e-6)


def test_pixel_padding_is_left_out(tmp_path: Path) -> None:
    grey = GREY.copy()
    grey[:5] = 0
    path = written(tmp_path / "f.dcm", dicom(grey, PixelPaddingValue=0))
    mask = read_film(path).mask
    assert mask is not None
    np.testing.assert_array_equal(mask, grey != 0)
    ranged = dicom(PixelPaddingValue=500, PixelPaddingRangeLimit=100)
    mask = read_film(written(tmp_path / "r.dcm", ranged)).mask
    np.testing.assert_array_equal(mask, (GREY < 100) | (GREY > 500))
    nowhere = read_film(written(tmp_path / "n.dcm", dicom(PixelPaddingValue=4094)))
    assert (4094 in GREY) == (nowhere.mask is not None)


# ---- one film in many forms ------------------------------------------------------------------

NOISE = np.random.default_rng(0).integers(0, 1024, (40, 31))
"""Ten bits."""


def stored_as(grey: NDArray[Any], bits: int, signed: bool, negative: bool) -> dict[str, Any]:
    """Ten bits of grey, spread over more, turned or moved below zero."""
    values = grey << (bits - 10)
    if negative:
        values = 2**bits - 1 - values
    return {"pixels": (values - signed * 2 ** (bits - 1)).astype(np.int16 if signed else np.uint16)}


@pytest.mark.parametrize("endian", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rescale", [None, (0.5, -100), (-2, 4000), (0.684, 200)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_one_film_gives_one_tensor_however_it_is_stored(
    tmp_path: Path,
    photometric: str,
    rescale: tuple[float, float] | None,
    signed: bool,
    bits: int,
    endian: UID,
) -> None:
    turned = (photometric == "MONOCHROME1") != (rescale is not None and rescale[0] < 0)
    dataset = dicom(**stored_as(NOISE, bits, signed, turned), bits=bits)
    dataset.PhotometricInterpretation = photometric
    if rescale is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = rescale
    dataset.file_meta.TransferSyntaxUID = endian
    path = tmp_path / "film.dcm"
    path.write_bytes(content_of(dataset))
    expected = prepare(film_from_array(NOISE.astype(np.uint16)), 24, "pad", "equalize")
    np.testing.assert_array_equal(decode_file(path, 24, "pad", "equalize"), expected)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.5, -100), (3, 7), (-2, 4000)])
@pytest.mark.parametrize("intensity", ["equalize", "minmax", "zscore", "dataset"])
def test_one_windowed_film_gives_one_tensor_however_it_is_stored(
    tmp_path: Path, intensity: str, slope: float, intercept: float, signed: bool, bits: int
) -> None:
    """The window moves along with the values, by the formula of PS3.3 C.11.2.1.2.1."""
    plain = dicom(NOISE.astype(np.uint16), 10, WindowCenter=400, WindowWidth=602)
    expected = decode_file(written(tmp_path / "plain", plain), 24, "pad", intensity)
    gain = 2 ** (bits - 10) * slope
    offset = intercept - signed * 2 ** (bits - 1) * slope
    dataset = dicom(**stored_as(NOISE, bits, signed, False), bits=bits)
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.WindowCenter = gain * (400 - 0.5) + offset + 0.5
    dataset.WindowWidth = abs(gain) * (602 - 1) + 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if slope < 0 else "MONOCHROME2"
    found = decode_file(written(tmp_path / "film", dataset), 24, "pad", intensity)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_windowed_film_and_its_negative_agree_to_the_last_bit(
    tmp_path: Path, function: str
) -> None:
    """LINEAR is symmetric about half a value below its centre, the others about the centre."""
    for width in (3, 7, 333, 997, 3001):
        elements = {"WindowWidth": width, "VOILUTFunction": function}
        plain = dicom(WindowCenter=1700, **elements)
        shift = 1 if function == "LINEAR" else 0
        negative = dicom(4095 - GREY, WindowCenter=4095 - 1700 + shift, **elements)
        negative.PhotometricInterpretation = "MONOCHROME1"
        expected = read_film(written(tmp_path / "a", plain)).pixels
        found = read_film(written(tmp_path / "b", negative)).pixels
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_luts_and_padding_keep_their_sign_in_every_coding(tmp_path: Path, syntax: UID) -> None:
    grey = GREY.astype(np.int16) - 2048
    dataset = dicom(grey, VOILUTSequence=lut(list(range(4096)), -2048, 12), PixelPaddingValue=-2048)
    dataset["PixelPaddingValue"].VR = "SS"
    dataset.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "film.dcm"
    path.write_bytes(content_of(dataset))
    film = read_film(path)
    np.testing.assert_array_equal(film.pixels, GREY)
    assert film.mask is not None
    np.testing.assert_array_equal(film.mask, GREY != 0)


def test_a_film_that_is_explicit_against_its_syntax_is_read(tmp_path: Path) -> None:
    content = content_of(dicom())
    path = tmp_path / "film.dcm"
    # The shorter name of the implicit syntax is padded to the length of the explicit one.
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"))
    assert path.read_bytes() != content
    np.testing.assert_array_equal(read_film(path).pixels, GREY)


# ---- what is remembered of a film ------------------------------------------------------------


def test_the_origin_tells_how_a_film_was_stored(tmp_path: Path) -> None:
    dataset = dicom(PhotometricInterpretation="MONOCHROME1", BurnedInAnnotation="YES")
    dataset.Manufacturer, dataset.ManufacturerModelName = "ACME ", "Ray 1"
    dataset.StationName, dataset.PatientID = "ROOM7", "4711"
    origin = read_film(written(tmp_path / "f.dcm", dataset)).origin
    scanner = hashlib.blake2b(b"ACME\nRay 1", digest_size=8).hexdigest()
    assert origin == Origin(
        "DICOM", "MONOCHROME1", 12, 0.0, scanner, pseudonym("4711"), burned_in=True
    )
    dataset.StationName, dataset.PatientID, dataset.BurnedInAnnotation = "ROOM8", "4712", "NO"
    other = read_film(written(tmp_path / "g.dcm", dataset)).origin
    assert (other.scanner, other.burned_in) == (scanner, False)
    assert other.patient == pseudonym("4712") != origin.patient
    dataset.ManufacturerModelName = "Ray 2"
    assert read_film(written(tmp_path / "h.dcm", dataset)).origin.scanner != scanner


def test_the_origin_of_a_film_without_names_is_empty(tmp_path: Path) -> None:
    origin = read_film(written(tmp_path / "f.dcm", dicom(PatientID=" "))).origin
    assert origin == Origin("DICOM", "MONOCHROME2", 12)
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize(
    "elements",
    [
        {"PresentationIntentType": "FOR PROCESSING"},
        {"SOPClassUID": DigitalXRayImageStorageForProcessing},
        {"SOPClassUID": DigitalMammographyXRayImageStorageForProcessing},
        {"SOPClassUID": DigitalIntraOralXRayImageStorageForProcessing},
    ],
)
def test_raw_detector_data_is_refused_unless_accepted(
    tmp_path: Path, elements: dict[str, Any]
) -> None:
    path = written(tmp_path / "raw.dcm", dicom(**elements))
    error = refusal(path)
    assert error.reason == "for_processing"
    assert "data.image.for_processing=accept" in error.detail
    np.testing.assert_array_equal(read_film(path, "accept").pixels, GREY)
    shown = dicom(PresentationIntentType="FOR PRESENTATION")
    np.testing.assert_array_equal(read_film(written(tmp_path / "f.dcm", shown)).pixels, GREY)


# ---- detection and refusals ------------------------------------------------------------------


def test_detection_is_by_content(tmp_path: Path) -> None:
    path = written(tmp_path / "IM0001", dicom())
    assert is_dicom(path.read_bytes()[:132])
    Image.fromarray(GREY).save(tmp_path / "wrong.dcm", "PNG")
    assert not is_dicom((tmp_path / "wrong.dcm").read_bytes())
    np.testing.assert_array_equal(read_film(path).pixels, GREY)
    np.testing.assert_array_equal(read_film(tmp_path / "wrong.dcm").pixels, GREY)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"NumberOfFrames": 2, "PixelData": GREY.tobytes() * 2}, "multi_image"),
        ({"Rows": 60000, "Columns": 60000}, "too_large"),
        ({"Rows": 0}, "unreadable"),
        ({"Rows": 200}, "unreadable"),
        ({"PixelData": GREY.tobytes()[:-8]}, "unreadable"),
        ({"PhotometricInterpretation": "RGB"}, "colour_dicom"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour_dicom"),
        ({"BitsAllocated": 32}, "unsupported_dicom"),
        ({"BitsStored": 17}, "unsupported_dicom"),
        ({"WindowCenter": 100, "WindowWidth": 1}, "unsupported_dicom"),
        ({"WindowCenter": 100, "WindowWidth": -5}, "unsupported_dicom"),
        (
            {"WindowCenter": 100, "WindowWidth": 5, "VOILUTFunction": "CUBIC"},
            "unsupported_dicom",
        ),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "unsupported_dicom"),
        ({"VOILUTSequence": lut([0, 5000], 0, 12)}, "unsupported_dicom"),
    ],
)
def test_refusals(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    assert refusal(written(tmp_path / "f.dcm", dicom(**elements))).reason == reason


def test_a_dicom_without_pixels(tmp_path: Path) -> None:
    dataset = dicom()
    del dataset.PixelData
    assert refusal(written(tmp_path / "f.dcm", dataset)).reason == "no_pixels"


def test_unsupported_syntaxes_are_named_and_unknown_ones_not_repeated(tmp_path: Path) -> None:
    video = dicom()
    video.file_meta.TransferSyntaxUID = MPEG2MPML
    video.PixelData = pydicom.encaps.encapsulate([GREY.tobytes()])
    error = refusal(written(tmp_path / "video.dcm", video))
    assert error.reason == "unsupported_syntax"
    assert "MPEG2" in error.detail
    content = written(tmp_path / "f.dcm", dicom()).read_bytes()
    uid = ExplicitVRLittleEndian.encode()
    assert content.count(uid) == 1
    (tmp_path / "f.dcm").write_bytes(content.replace(uid, b"1.2.99999.4321.8765"))
    error = refusal(tmp_path / "f.dcm")
    assert error.reason == "unsupported_syntax"
    assert "4321" not in error.detail


def test_a_deflated_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    stream = io.BytesIO()
    dataset = dicom()
    del dataset.PixelData
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(stream, enforce_file_format=True)
    meta_bytes = struct.unpack_from("<I", stream.getvalue(), 140)[0]  # the first element of group 2
    head = stream.getvalue()[: 144 + meta_bytes]
    packer = zlib.compressobj(9, wbits=-15)
    body = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    (tmp_path / "bomb.dcm").write_bytes(head + body)
    error = refusal(tmp_path / "bomb.dcm")
    assert error.reason == "unsupported_syntax"
    assert "Deflated" in error.detail


def test_every_cut_gives_a_reason(tmp_path: Path) -> None:
    dataset = dicom(VOILUTSequence=lut(list(range(4096)), 0, 12))
    content = written(tmp_path / "whole.dcm", dataset).read_bytes()
    path = tmp_path / "cut.dcm"
    for length in range(132, len(content) - 1, 97):
        path.write_bytes(content[:length])
        assert refusal(path).reason in (
            "truncated",
            "unreadable",
            "no_pixels",
            "unsupported_dicom",
            "unsupported_syntax",
        )


def test_random_damage_gives_a_film_or_a_reason(tmp_path: Path) -> None:
    dataset = dicom(WindowCenter=2000, WindowWidth=3000, PixelPaddingValue=7)
    content = written(tmp_path / "whole.dcm", dataset).read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.dcm"
    reasons = set()
    for _ in range(200):
        damaged = bytearray(content)
        for place in random.integers(132, len(content) - GREY.nbytes, 3):
            damaged[place] = random.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read_film(path)
        except DecodeError as error:
            reasons.add(error.reason)
    assert {"unsupported_dicom", "unreadable"} <= reasons


def test_sequences_nested_beyond_reason_are_an_error_of_the_file(tmp_path: Path) -> None:
    head = written(tmp_path / "f.dcm", dicom()).read_bytes()
    start = b"\x28\x00\x10\x30SQ\0\0\xff\xff\xff\xff"  # VOILUTSequence, undefined length
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    pixels = head.index(b"\xe0\x7f\x10\x00")
    (tmp_path / "f.dcm").write_bytes(head[:pixels] + (start + item) * 5000)
    assert refusal(tmp_path / "f.dcm").reason == "too_large"


def test_nothing_of_the_patient_is_repeated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Values that break their own rules make pydicom warn with the value in the text."""
    canary = "Canary4711"
    dataset = dicom(WindowCenter=2000, WindowWidth=1000, VOILUTFunction=canary.upper())
    dataset.PatientName, dataset.PatientID = canary, canary
    content = written(tmp_path / "f.dcm", dataset).read_bytes()
    # A transfer syntax and a window that are no numbers, an odd code, a file that ends too early.
    syntax = content.replace(ExplicitVRLittleEndian.encode(), b"1.2.840.Canary4711\0")
    (tmp_path / "syntax.dcm").write_bytes(syntax)
    (tmp_path / "code.dcm").write_bytes(content.replace(canary.upper().encode(), canary.encode()))
    window = content.index(b"DS", content.index(b"\x28\x00\x50\x10"))
    after = window + 4 + content[window + 2]
    broken = content[: window + 2] + b"\x0a\x00" + canary.encode() + content[after:]
    (tmp_path / "window.dcm").write_bytes(broken)
    (tmp_path / "cut.dcm").write_bytes(content[:-300])
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        errors = [refusal(tmp_path / f"{name}.dcm") for name in ("syntax", "code", "window", "cut")]
    told = "".join([*capfd.readouterr(), caplog.text, *map(str, errors), *map(str, warned)])
    assert canary.lower() not in told.lower()
    assert [error.__cause__ for error in errors] == [None] * 4


def full_of_canaries(**elements: Any) -> FileDataset:
    """A film with a name in 200 elements, in private ones and inside sequences."""
    item = Dataset()
    item.PatientName, item.OtherPatientNames, item.LUTExplanation = CANARY, CANARY, CANARY
    dataset = dicom(VOILUTSequence=lut(list(range(4096)), 0, 12), **elements)
    dataset.VOILUTSequence[0].LUTExplanation = CANARY
    dataset.ReferencedPatientSequence = Sequence([item])
    dataset.private_block(0x0009, CANARY, create=True).add_new(1, "LO", CANARY)
    dataset.private_block(0x0011, CANARY, create=True).add_new(1, "SQ", Sequence([item]))
    text = [tag for tag, entry in DicomDictionary.items() if entry[0] in ("LO", "PN", "SH", "UT")]
    for tag in [tag for tag in text if 0x00080000 < tag < 0x60000000][:200]:
        dataset.add_new(tag, DicomDictionary[tag][0], CANARY)
    dataset.PatientID = CANARY
    return dataset


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_a_name_in_200_elements_shows_up_nowhere(
    tmp_path: Path, syntax: UID, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = full_of_canaries()
    if syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom")
    dataset.file_meta.TransferSyntaxUID = syntax
    content = content_of(dataset)
    assert content.count(CANARY.encode()) > 200
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "film.dcm"
    path.write_bytes(content)
    told = [repr(read_film(path))]
    random = np.random.default_rng(1)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for length in random.integers(132, len(content), 100):
            path.write_bytes(content[:length])
            told.append("".join(traceback.format_exception(refusal(path))))
        for _ in range(200):
            damaged = bytearray(content)
            damaged[random.integers(132, len(content))] = random.integers(256)
            path.write_bytes(damaged)
            with contextlib.suppress(DecodeError):
                told.append(repr(read_film(path)))
    told += [*capfd.readouterr(), caplog.text, *map(str, warned)]
    assert CANARY.lower() not in "".join(told).lower()
    assert CANARY.encode().hex() not in "".join(told)


# ---- real films ------------------------------------------------------------------------------


def test_one_film_in_five_lossless_encodings_is_one_film() -> None:
    expected = read_film(real("RG3_UNC.dcm")).pixels
    assert expected.shape == (1760, 1760)
    for name in ("J2KR", "JLSL", "JPLL", "RLE"):
        np.testing.assert_array_equal(read_film(real(f"RG3_{name}.dcm")).pixels, expected)


def test_every_real_radiograph_decodes() -> None:
    real("index.csv")
    for path in sorted(REAL.glob("*.dcm")):
        result = decode_file(path, 16, "pad", "equalize")
        assert result.std() > 20, path.name


def test_twelve_bit_jpeg_is_close_to_its_lossless_original() -> None:
    lossy, original = read_film(real("RG2_JPLY.dcm")), read_film(real("RG2_JPLL.dcm"))
    assert np.abs(lossy.pixels - original.pixels).mean() < 0.005
    assert np.corrcoef(lossy.pixels.ravel(), original.pixels.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("name", ["RG1_J2KI", "RG2_JPLL", "6154", "GH133"])
def test_grey_equals_the_reference_transforms_of_pydicom(name: str) -> None:
    dataset = pydicom.dcmread(real(f"{name}.dcm"))
    stored = dataset.pixel_array
    modality = apply_modality_lut(stored, dataset)
    if "VOILUTSequence" in dataset:
        modality = modality.astype(np.uint16)  # slope 1: whole numbers
    grey = apply_voi_lut(modality, dataset).astype(np.float64)
    ends = np.array([0, 2.0**dataset.BitsStored - 1])
    if "VOILUTSequence" not in dataset:
        ends = ends * float(dataset.get("RescaleSlope", 1)) + float(
            dataset.get("RescaleIntercept", 0)
        )
    expected = (grey - ends[0]) / (ends[1] - ends[0])
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        expected = 1 - expected
    film = read_film(real(f"{name}.dcm"))
    np.testing.assert_allclose(film.pixels / film.full_scale, expected, atol=1e-5)


COLD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xray_classifier.data.decode import read_film
files = [Path(name) for name in sys.argv[1:]]
with ThreadPoolExecutor(len(files)) as pool:
    print(sum(film.pixels.size > 0 for film in pool.map(read_film, files)))
"""


def test_threads_that_meet_the_decoders_at_once_all_decode(tmp_path: Path) -> None:
    """In a fresh process, the first import of a package by several threads can fail in some."""
    files = [written(tmp_path / f"{number}.dcm", dicom()) for number in range(8)]
    for number in range(8):
        path = tmp_path / f"{number}.png"
        Image.fromarray(GREY).save(path)
        files.insert(2 * number, path)
    for _ in range(4):
        said = subprocess.run(
            [sys.executable, "-c", COLD, *map(str, files)], capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert said.stdout.strip() == "16", said.stderr[-2000:]
