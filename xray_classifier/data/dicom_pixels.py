"""Stored values of one DICOM frame, decoded only once its length or codestream has been measured.

Source: DICOM PS3.5, section 8 (native pixels), annex A.4 (compressed ones) and annex G (RLE).
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.boundary import check_pixels
from xray_classifier.data.dicom_codestream import another_size, check_codestream
from xray_classifier.data.dicom_header import NATIVE, RLE, Header
from xray_classifier.errors import DecodeError

_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_LOSSY = tuple(f"1.2.840.10008.1.2.4.{code}" for code in (50, 51, 81, 91))


@dataclass(frozen=True)
class PixelFormat:
    """What the header says of a grey frame.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        allocated: Bits Allocated, 8 or 16.
        stored: Bits Stored, 1 to `allocated`.
        signed: Values are in two's complement.
        photometric: MONOCHROME1 or MONOCHROME2.
        overlays_above: An overlay plane lies in the bits above the stored ones.
    """

    rows: int
    columns: int
    allocated: int
    stored: int
    signed: bool
    photometric: str
    overlays_above: bool

    @property
    def ends(self) -> tuple[int, int]:
        """The lowest and the highest value that can be stored."""
        low = -(2 ** (self.stored - 1)) if self.signed else 0
        return low, low + 2**self.stored - 1


def stored_values(header: Header, form: PixelFormat) -> NDArray[np.int32]:
    """Decode one grey frame.

    Bits above Bits Stored are no part of a value: they are dropped where they hold a sign or an
    overlay plane that the header declares (as DICOM allowed until 2004), and refused otherwise,
    for then Bits Stored is wrong. Lossy decoders may overshoot by less than one bit; that is cut
    off.

    Args:
        header: With the pixels.
        form: What the elements say of them.

    Returns:
        Values as stored, (rows, columns) int32, within `form.ends`.

    Raises:
        DecodeError: too_large or unreadable where the pixels are not those that the header
            declares; unsupported_dicom for values above Bits Stored.
    """
    check_pixels(form.rows, form.columns)
    if header.syntax in NATIVE:
        raw = _native(header, form)
    elif header.syntax == RLE:
        raw = _run_lengths(header.pixels, form)
    else:
        size = form.rows, form.columns
        bits = check_codestream(header.syntax, header.pixels, size, form.allocated)
        frame = bytes(header.pixels)
        twelve_bits = header.syntax == _JPEG_EXTENDED and bits > 8
        decode = _twelve_bit_jpeg if twelve_bits else _gdcm
        raw = decode(header.syntax, frame, form, bits)
    return _within_bits_stored(raw.astype(np.int32), form, header.syntax in _LOSSY)


def _within_bits_stored(
    raw: NDArray[np.int32], form: PixelFormat, lossy: bool
) -> NDArray[np.int32]:
    low, high = form.ends
    smallest, largest = int(raw.min()), int(raw.max())
    if low <= smallest and largest <= high:
        return raw
    if lossy and not form.signed and largest <= 2 * high:
        return np.minimum(raw, high)
    values = raw & (2**form.stored - 1)
    whole = form.overlays_above or bool((values == raw).all())
    values = np.where(values > high, values - 2**form.stored, values)
    if not whole:
        raise DecodeError(
            "unsupported_dicom", "pixel values exceed Bits Stored; correct Bits Stored in the file"
        )
    return np.asarray(values, np.int32)


def _native(header: Header, form: PixelFormat) -> NDArray[Any]:
    """Uncompressed values; less than a row of bytes behind them is padding."""
    n_bytes = form.allocated // 8
    row_bytes = form.columns * n_bytes
    frame_bytes = form.rows * row_bytes
    if not frame_bytes <= len(header.pixels) < frame_bytes + max(row_bytes, 2):
        raise another_size()
    order = "<" if header.little_endian else ">"
    pixels: memoryview | bytes = header.pixels
    if n_bytes == 1 and not header.little_endian and header.pixel_vr == "OW":
        # Words were swapped, and hold two pixels each.
        even = pixels[: len(pixels) // 2 * 2]
        pixels = np.frombuffer(even, "<u2").byteswap().tobytes()
    kind = np.dtype(f"{order}{'i' if form.signed else 'u'}{n_bytes}")
    return np.frombuffer(pixels, kind, form.rows * form.columns).reshape(form.rows, form.columns)


def _gdcm(syntax: str, frame: bytes, form: PixelFormat, bits: int) -> NDArray[Any]:
    """Decode by the bits of the codestream: GDCM aborts the process where it is told others.

    Naming the decoder keeps lossy pixels the same on every machine, whatever is installed.
    """
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    options: dict[str, Any] = {
        "rows": form.rows,
        "columns": form.columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "photometric_interpretation": form.photometric,
        "bits_allocated": 8 if bits <= 8 else 16,
        "bits_stored": bits,
        "pixel_representation": int(form.signed),
        "pixel_keyword": "PixelData",
        "correct_unused_bits": False,
    }
    source = encapsulate([frame], has_bot=False)
    decoder = get_decoder(syntax)
    return np.asarray(decoder.as_array(source, raw=True, decoding_plugin="gdcm", **options)[0])


def _twelve_bit_jpeg(syntax: str, frame: bytes, form: PixelFormat, bits: int) -> NDArray[Any]:
    """GDCM decodes 12-bit JPEG Extended, but pydicom does not pass it on."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((form.columns, form.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(form.photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, int(form.signed)))
    # GDCM hands bytes over as text, see pydicom's own decoder.
    content = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(content, "<i2" if form.signed else "<u2").reshape(form.rows, form.columns)


def _run_lengths(frame: memoryview, form: PixelFormat) -> NDArray[Any]:
    """RLE: one segment per byte of a value, the upper byte first."""
    n_bytes, n_pixels = form.allocated // 8, form.rows * form.columns
    count, *offsets = struct.unpack_from("<16L", frame)
    starts = offsets[:n_bytes]
    ends = [*starts[1:], len(frame)]
    in_order = all(start <= end for start, end in zip(starts, ends, strict=True))
    if count != n_bytes or starts[0] != 64 or not in_order:
        raise DecodeError("unreadable", "the RLE header contradicts the DICOM header")
    words = np.zeros((n_pixels, n_bytes), np.uint8)
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        words[:, place] = np.frombuffer(_unpacked(bytes(frame[start:end]), n_pixels), np.uint8)
    kind = np.dtype(f">{'i' if form.signed else 'u'}{n_bytes}")
    return words.view(kind).reshape(form.rows, form.columns)


def _unpacked(segment: bytes, n_bytes: int) -> bytes:
    """One PackBits segment of exactly `n_bytes`, or one byte more that makes it even.

    Pillow's decoder stops at the size it is given, so a segment cannot inflate beyond it.
    """
    if _inflated(segment, n_bytes + 2) is not None:
        raise another_size()
    content = _inflated(segment, n_bytes)
    if content is None:
        raise DecodeError("truncated", "the RLE segments end before their picture does")
    return content


def _inflated(segment: bytes, n_bytes: int) -> bytes | None:
    """The first `n_bytes` of an inflated segment; None if it has fewer."""
    from PIL import Image

    try:
        return Image.frombytes("L", (n_bytes, 1), segment, "packbits", "L").tobytes()
    except ValueError:
        return None
