"""Stored values: their bits, and codestreams that are another picture than the header says."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import GREY, compressed, content_of, dicom, real
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from xray_classifier.data import dicom_pixels
from xray_classifier.data.dicom import read_dicom
from xray_classifier.data.dicom_codestream import MAX_LAYERS, MAX_TILES, check_codestream
from xray_classifier.errors import DecodeError

SHALLOW = (GREY >> 4).astype(np.uint8)
SMOOTH = np.add.outer(np.arange(64), 2 * np.arange(48)).astype(np.uint8)


def shown(content: bytes) -> NDArray[Any]:
    return np.asarray(read_dicom(content, "reject").pixels)


def refusal(content: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        read_dicom(content, "reject")
    return caught.value


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused here must not have reached a decoder."""

    def reached(*_: object) -> None:
        raise DecodeError("blank", "a decoder was called")

    monkeypatch.setattr(dicom_pixels, "_gdcm", reached)
    monkeypatch.setattr(dicom_pixels, "_twelve_bit_jpeg", reached)


# ---- bits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_every_depth_keeps_its_ends(syntax: str, extended: bool, signed: bool, bits: int) -> None:
    """A sign stands in the bits above or does not."""
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(low, low + 2**bits - 1, 320).round().astype(np.int64).reshape(20, 16)
    words = values & 0xFFFF if extended else values & (2**bits - 1)
    dataset = dicom(words.astype(np.uint16), bits, PixelRepresentation=int(signed))
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == RLELossless:
        halves = (literal((words >> shift).astype(np.uint8).tobytes()) for shift in (8, 0))
        content = compressed(syntax, rle(*halves), bits=bits, PixelRepresentation=int(signed))
    else:
        content = content_of(dataset)
    np.testing.assert_array_equal(shown(content), values - low)


def test_bits_above_the_stored_ones_may_hold_an_overlay() -> None:
    """PS3.5 8.1.1 up to 2004; the overlay names its bit."""
    dirty = GREY | (np.arange(320).reshape(20, 16) % 2 << 12).astype(np.uint16)
    error = refusal(content_of(dicom(dirty)))
    assert error.reason == "unsupported_dicom"
    assert "Bits Stored" in error.detail
    for position, group in ((12, 0x6000), (15, 0x601E)):
        dataset = dicom(dirty)
        dataset.add_new((group, 0x0102), "US", position)
        np.testing.assert_array_equal(shown(content_of(dataset)), GREY)
    dataset = dicom(dirty)
    dataset.add_new((0x6000, 0x0102), "US", 0)  # stored elsewhere
    assert refusal(content_of(dataset)).reason == "unsupported_dicom"


@pytest.mark.parametrize("high_bit", [15, 10, 12])
def test_the_high_bit_is_the_last_stored_one(high_bit: int) -> None:
    error = refusal(content_of(dicom(HighBit=high_bit)))
    assert error.reason == "unsupported_dicom"
    assert "High Bit" in error.detail
    dataset = dicom()
    del dataset.HighBit
    np.testing.assert_array_equal(shown(content_of(dataset)), GREY)


@pytest.mark.parametrize("vr", ["OW", "OB"])
def test_bytes_in_big_endian_words_are_put_in_order(vr: str) -> None:
    dataset = dicom(SHALLOW, 8)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    stored = SHALLOW.view("<u2").byteswap().tobytes() if vr == "OW" else SHALLOW.tobytes()
    dataset.PixelData = stored
    dataset["PixelData"].VR = vr
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, little_endian=False, implicit_vr=False)
    np.testing.assert_array_equal(shown(stream.getvalue()), SHALLOW)
    stream.seek(0)
    np.testing.assert_array_equal(pydicom.dcmread(stream).pixel_array, SHALLOW)


@pytest.mark.parametrize(
    ("extra", "fits"), [(-2, False), (0, True), (2, True), (30, True), (32, False), (640, False)]
)
def test_native_pixels_have_the_length_that_the_header_declares(extra: int, fits: bool) -> None:
    """Less than a row of 32 bytes may follow."""
    content = (GREY.tobytes() + bytes(1000))[: GREY.nbytes + extra]
    dataset = dicom(PixelData=content)
    dataset["PixelData"].VR = "OW"
    if fits:
        np.testing.assert_array_equal(shown(content_of(dataset)), GREY)
    else:
        error = refusal(content_of(dataset))
        assert (error.reason, "another size" in error.detail) == ("unreadable", True)


# ---- run lengths -----------------------------------------------------------------------------


def rle(*segments: bytes, count: int | None = None, offsets: list[int] | None = None) -> bytes:
    """A frame of RLE segments, by PS3.5 annex G."""
    ends = np.cumsum([64, *map(len, segments)]).tolist()
    places = ((offsets or ends[:-1]) + [0] * 15)[:15]
    return struct.pack("<16L", count or len(segments), *places) + b"".join(segments)


def literal(content: bytes) -> bytes:
    """PackBits without any run."""
    parts = [content[start : start + 128] for start in range(0, len(content), 128)]
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


UPPER, LOWER = (literal((GREY >> shift).astype(np.uint8).tobytes()) for shift in (8, 0))


def test_run_lengths_by_hand() -> None:
    np.testing.assert_array_equal(shown(compressed(RLELossless, rle(UPPER, LOWER))), GREY)
    runs = b"\xfe\x05" + b"\x80" + b"\x01\x07\x08" + b"\x81\x09" * 2 + b"\xc6\x09" + bytes(1)
    expected = [5] * 3 + [7, 8] + [9] * (256 + 59)
    content = compressed(RLELossless, rle(runs), pixels=SHALLOW, bits=8)
    assert shown(content).ravel().tolist() == expected


def test_real_run_lengths_may_cross_rows() -> None:
    grey = np.full((20, 16), 3, np.uint8)
    frame = rle(b"\x81\x03\x81\x03\xc1\x03")
    np.testing.assert_array_equal(shown(compressed(RLELossless, frame, pixels=grey, bits=8)), grey)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (rle(UPPER, LOWER + b"\x01\0\0"), "unreadable"),  # two bytes too many
        (rle(UPPER, b"\x81\0" * 500_000), "unreadable"),  # 1 MB that inflates to 64 MB
        (rle(b"\x81\0" * 500_000, LOWER), "unreadable"),
        (rle(UPPER, LOWER[:-2]), "truncated"),
        (rle(UPPER, b"\x80" * 1000), "truncated"),
        (rle(UPPER, b""), "truncated"),
        (rle(LOWER), "unreadable"),
        (rle(UPPER, UPPER, LOWER), "unreadable"),
        (rle(UPPER, LOWER, count=0xFFFFFFFF), "unreadable"),
        (rle(UPPER, LOWER, offsets=[64, 0xFFFFFFFF]), "unreadable"),
        (rle(UPPER, LOWER, offsets=[64, 10]), "unreadable"),
        (rle(UPPER, LOWER, offsets=[0, 64]), "unreadable"),
        (b"\2\0\0\0", "unreadable"),
    ],
)
def test_run_lengths_that_are_another_picture_are_refused(frame: bytes, reason: str) -> None:
    assert refusal(compressed(RLELossless, frame)).reason == reason


def test_one_byte_may_make_a_segment_even() -> None:
    frame = rle(UPPER, LOWER + b"\0\0")
    np.testing.assert_array_equal(shown(compressed(RLELossless, frame)), GREY)


# ---- JPEG ------------------------------------------------------------------------------------


def jpeg(grey: NDArray[np.uint8] = SMOOTH, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, kind, **options)
    return stream.getvalue()


def patched(frame: bytes, mark: bytes, offset: int, code: str, *values: int) -> bytes:
    """A codestream with numbers changed behind the first of its markers."""
    changed = bytearray(frame)
    struct.pack_into(code, changed, frame.index(mark) + offset, *values)
    return bytes(changed)


def test_jpeg_baseline_is_what_pillow_sees() -> None:
    frame = jpeg(quality=95)
    for parts in ([frame], [frame[:100], frame[100:301], frame[301:]]):
        found = shown(compressed(JPEGBaseline8Bit, *parts, pixels=SMOOTH, bits=8))
        expected = np.asarray(Image.open(io.BytesIO(frame)))
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_fill_bytes_before_a_marker_are_legal() -> None:
    frame = jpeg().replace(b"\xff\xc0", b"\xff\xff\xff\xc0", 1)
    assert shown(compressed(JPEGBaseline8Bit, frame, pixels=SMOOTH, bits=8)).shape == (64, 48)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    "change",
    [
        lambda frame: patched(frame, b"\xff\xc0", 5, ">HH", 65535, 65535),
        lambda frame: patched(frame, b"\xff\xc0", 5, ">HH", 48, 64),
        lambda frame: patched(frame, b"\xff\xc0", 5, ">HH", 0, 48),  # by a later DNL marker
        lambda frame: patched(frame, b"\xff\xc0", 9, ">B", 3),
        lambda frame: patched(frame, b"\xff\xc0", 4, ">B", 12),
        # The thumbnail inside a segment has the right size, the picture has not.
        lambda frame: b"\xff\xd8\xff\xe1\x00\x0f" + frame_header(64, 48) + with_size(frame),
        lambda frame: frame.replace(b"\xff\xc0", b"\xff\xc9"),
        lambda frame: frame.replace(b"\xff\xc0", b"\xff\xf7"),
        lambda frame: frame[2:],
        lambda frame: b"\xff\xd8" + b"\xff" * 100_000 + frame[2:],
        lambda frame: b"\xff\xd8\xff\xe0\0\0" * 100_000,
        lambda frame: b"\xff\xd8\xff\xd8" + frame[2:],
        # What GDCM's library warns of makes GDCM abort the process.
        lambda frame: patched(frame, b"JFIF", 5, ">B", 168),
        lambda frame: frame.replace(b"\xff\xc4", bytes(9) + b"\xff\xc4", 1),
        lambda frame: frame.replace(b"\xff\xda", b"\1\xff\xda", 1),
        lambda frame: frame.replace(b"\xff\xda", frame_header(64, 48) + b"\xff\xda", 1),
        lambda frame: b"\xff\xd8\xff\xda\0\x02" + frame[2:],
        lambda frame: frame[: frame.index(b"\xff\xc0") + 6],
        lambda frame: b"\0\0",
    ],
)
def test_a_jpeg_that_is_another_picture_is_refused(change: Callable[[bytes], bytes]) -> None:
    error = refusal(compressed(JPEGBaseline8Bit, change(jpeg()), pixels=SMOOTH, bits=8))
    assert error.reason == "unreadable"


def frame_header(rows: int, columns: int) -> bytes:
    return struct.pack(">HHBHHBBBB", 0xFFC0, 11, 8, rows, columns, 1, 1, 0x11, 0)


def with_size(frame: bytes) -> bytes:
    return patched(frame[2:], b"\xff\xc0", 5, ">HH", 640, 480)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("name", ["RG3_JLSL", "RG3_JPLL", "RG2_JPLY"])
@pytest.mark.parametrize("size", [(65535, 65535), (1760, 1761)])
def test_real_films_with_another_size_are_refused(name: str, size: tuple[int, int]) -> None:
    content = real(f"{name}.dcm").read_bytes()
    mark = {"RG3_JLSL": b"\xff\xf7", "RG3_JPLL": b"\xff\xc3", "RG2_JPLY": b"\xff\xc1"}[name]
    changed = patched(content, b"\xff\xd8" + b"\xff", 0, ">H", 0xFFD8)
    start = content.index(b"\xff\xd8\xff", content.index(b"\xe0\x7f\x10\x00"))
    changed = content[:start] + patched(content[start:], mark, 5, ">HH", *size)
    assert "a decoder was called" in refusal(content).detail
    error = refusal(changed)
    assert (error.reason, "another size" in error.detail) == ("unreadable", True)


@pytest.mark.parametrize(
    ("syntax", "marker"), [(JPEGLSLossless, 0xC3), (JPEGLosslessSV1, 0xF7), (JPEGLSLossless, 0xF7)]
)
def test_the_kind_of_jpeg_is_that_of_the_syntax(syntax: str, marker: int) -> None:
    frame = b"\xff\xd8" + struct.pack(">HHBHHBBBB", 0xFF00 | marker, 11, 12, 20, 16, 1, 1, 17, 0)
    frame += b"\xff\xda\0\x08" + bytes(6)
    if (syntax, marker) == (JPEGLSLossless, 0xF7):
        check_codestream(syntax, memoryview(frame), (20, 16), 16)
        return
    with pytest.raises(DecodeError, match="not what the transfer syntax says"):
        check_codestream(syntax, memoryview(frame), (20, 16), 16)


# ---- JPEG 2000 -------------------------------------------------------------------------------


def jpeg_2000(grey: NDArray[Any] = SMOOTH, **options: Any) -> bytes:
    return jpeg(grey, "JPEG2000", no_jp2=True, **options)


@pytest.mark.parametrize(("grey", "bits"), [(SMOOTH, 8), (GREY, 12), (GREY, 16)])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_lossless_jpeg_2000_keeps_every_value(
    grey: NDArray[Any], bits: int, tile: tuple[int, int] | None
) -> None:
    frame = jpeg_2000(grey, tile_size=tile) if tile else jpeg_2000(grey)
    np.testing.assert_array_equal(
        shown(compressed(JPEG2000Lossless, frame, pixels=grey, bits=bits)), grey
    )


LARGE = (10_000, 10_000)


def declared_large(frame: bytes) -> bytes:
    """The same codestream, said to be one tile of 10,000 x 10,000."""
    return patched(frame, b"\xff\x51", 6, ">6L", *LARGE, 0, 0, *LARGE)


def with_tile_style(frame: bytes) -> bytes:
    """Code-blocks of 4 x 4 in the header of the first tile-part alone."""
    place = frame.index(b"\xff\x90")
    (part_bytes,) = struct.unpack_from(">L", frame, place + 6)
    style = b"\xff\x53\x00\x09\x00\x00\x05\x00\x00\x00\x01"
    start = frame[: place + 6] + struct.pack(">L", part_bytes + len(style))
    return start + frame[place + 10 : place + 12] + style + frame[place + 12 :]


def with_precincts(frame: bytes, code: int) -> bytes:
    """Precincts of one size at all six resolutions, in the main header."""
    place = frame.index(b"\xff\x52")
    old = frame[place + 4 : place + 14]
    style = struct.pack(">HHB", 0xFF52, 18, old[0] | 1) + old[1:] + bytes([code]) * 6
    return frame[:place] + style + frame[place + 14 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: patched(frame, b"\xff\x52", 10, ">BB", 0, 0),  # 4 x 4: 2.5 GB
        lambda frame: patched(frame, b"\xff\x52", 10, ">BB", 1, 2),  # 8 x 16
        lambda frame: with_precincts(frame, 0x33),
        lambda frame: with_precincts(frame, 0x44),  # in bands of 8 x 8
        lambda frame: with_precincts(frame, 0x0F),
        with_tile_style,
    ],
)
def test_a_jpeg_2000_in_blocks_without_number_is_refused(change: Callable[[bytes], bytes]) -> None:
    frame = declared_large(change(jpeg_2000()))
    with pytest.raises(DecodeError, match="blocks") as caught:
        check_codestream(JPEG2000Lossless, memoryview(frame), LARGE, 8)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame,
        lambda frame: patched(frame, b"\xff\x52", 10, ">BB", 2, 2),  # 16 x 16
        lambda frame: with_precincts(frame, 0x55),
        lambda frame: jpeg_2000(precinct_size=(256, 256)),  # halved from resolution to resolution
        lambda frame: jpeg_2000(codeblock_size=(32, 32)),
    ],
)
def test_a_jpeg_2000_in_usual_blocks_is_not(change: Callable[[bytes], bytes]) -> None:
    frame = declared_large(change(jpeg_2000()))
    assert check_codestream(JPEG2000Lossless, memoryview(frame), LARGE, 8) == 8


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frame: patched(frame, b"\xff\x51", 6, ">LL", 65535, 65535), "too_large"),
        (
            lambda frame: patched(frame, b"\xff\x51", 6, ">6L", *[65535] * 2, 0, 0, *[65535] * 2),
            "unreadable",
        ),
        (lambda frame: patched(frame, b"\xff\x51", 6, ">LL", 64, 48), "unreadable"),
        (lambda frame: patched(frame, b"\xff\x51", 6, ">4L", 48, 64, 48, 0), "unreadable"),
        (lambda frame: patched(frame, b"\xff\x51", 6, ">4L", 50, 64, 1, 0), "unreadable"),
        (lambda frame: patched(frame, b"\xff\x51", 38, ">H", 3), "unreadable"),
        (lambda frame: patched(frame, b"\xff\x51", 40, ">B", 37), "unreadable"),
        (lambda frame: patched(frame, b"\xff\x51", 41, ">BB", 2, 2), "unreadable"),
        (lambda frame: patched(frame, b"\xff\x51", 22, ">LL", 0, 1), "unreadable"),
        (lambda frame: b"\xff\xd8" + frame, "unreadable"),
        (lambda frame: frame[:30], "unreadable"),
        (lambda frame: jpeg(SMOOTH, "JPEG2000"), "unsupported_dicom"),
    ],
)
def test_a_jpeg_2000_that_is_another_picture_is_refused(
    change: Callable[[bytes], bytes], reason: str
) -> None:
    content = compressed(JPEG2000Lossless, change(jpeg_2000()), pixels=SMOOTH, bits=8)
    assert refusal(content).reason == reason


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    "change",
    [
        lambda frame: patched(frame, b"\xff\x52", 6, ">H", MAX_LAYERS + 1),
        lambda frame: frame[: frame.index(b"\xff\x52")] + b"\xff\x64\0\2" * 30_000,
    ],
)
def test_a_jpeg_2000_in_too_many_parts_is_refused(change: Callable[[bytes], bytes]) -> None:
    frame = change(jpeg_2000())
    error = refusal(compressed(JPEG2000Lossless, frame, pixels=SMOOTH, bits=8))
    assert (error.reason, "JPEG 2000" in error.detail) == ("too_large", True)


@pytest.mark.usefixtures("no_decoder")
def test_the_number_of_jpeg_2000_tiles_is_bounded() -> None:
    side = int(MAX_TILES**0.5)
    grey = np.zeros((side + 1, side), np.uint8)
    one_by_one = patched(jpeg_2000(grey), b"\xff\x51", 22, ">LL", 1, 1)
    error = refusal(compressed(JPEG2000Lossless, one_by_one, pixels=grey, bits=8))
    assert error.reason == "too_large"
    allowed = patched(jpeg_2000(grey[1:]), b"\xff\x51", 22, ">LL", 1, 1)
    content = compressed(JPEG2000Lossless, allowed, pixels=grey[1:], bits=8)
    assert "a decoder was called" in refusal(content).detail


# ---- lossy overshoot -------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "refused"), [(8, False), (7, False), (6, True)])
def test_lossy_values_may_overshoot_by_less_than_a_bit(bits: int, refused: bool) -> None:
    grey = np.where(SMOOTH > 80, 200, SMOOTH).astype(np.uint8)
    content = compressed(JPEGBaseline8Bit, jpeg(grey, quality=95), pixels=grey, bits=bits)
    if refused:
        assert "Bits Stored" in refusal(content).detail
        return
    found = shown(content).astype(int)
    assert np.abs(found - np.minimum(grey, 2**bits - 1)).max() < 12
    assert found.max() <= 2**bits - 1


def test_lossless_values_may_not_overshoot(tmp_path: Path) -> None:
    frame = jpeg_2000(GREY)
    error = refusal(compressed(JPEG2000Lossless, frame, bits=11))
    assert error.reason == "unsupported_dicom"
    assert "Bits Stored" in error.detail
