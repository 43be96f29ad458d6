"""DICOM radiographs to grey: modality transform, VOI transform, one inversion at the end.

The order is that of DICOM PS3.3: stored values -> Modality LUT or rescale (C.11.1) -> VOI LUT, else
the first window (C.11.2) -> inversion for MONOCHROME1 or Presentation LUT Shape INVERSE (C.7.6.3,
C.11.6). Pixel Padding (C.7.5.1.1.2) is left out of the film.

Only the elements named in `_TAGS` are read, and no message repeats a value.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.boundary import check_file, check_pixels, decoding, read_bytes
from xray_classifier.data.film import Film
from xray_classifier.errors import DecodeError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# fmt: off
_TAGS = (
    "BitsAllocated", "BitsStored", "Columns", "HighBit", "LossyImageCompression",
    "ModalityLUTSequence", "NumberOfFrames", "PhotometricInterpretation", "PixelData",
    "PixelPaddingRangeLimit", "PixelPaddingValue", "PixelRepresentation", "PlanarConfiguration",
    "PresentationLUTShape", "RescaleIntercept", "RescaleSlope", "Rows", "SamplesPerPixel",
    "VOILUTFunction", "VOILUTSequence", "WindowCenter", "WindowWidth",
)
# fmt: on

_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_RLE = "1.2.840.10008.1.2.5"
_GDCM = tuple(f"1.2.840.10008.1.2.4.{code}" for code in (50, 51, 57, 70, 80, 81, 90, 91))
SYNTAXES = (*_NATIVE, _RLE, *_GDCM)
"""Transfer syntaxes that are decoded. Deflated files are refused: 300 kB of them inflate to 650 MB
before the first element can be read."""

# Grey values with the lowest and highest value that they can take.
_Scale = tuple[NDArray[Any], float, float]


def looks_like_dicom(path: Path) -> bool:
    """Whether the file has the DICOM mark `DICM` behind a preamble of 128 bytes, whatever its name.

    Raises:
        DecodeError: The file cannot be read: not_found, no_permission, not_a_file, empty_file,
            too_large, unreadable.

    Source: DICOM PS3.10, section 7.1.
    """
    return is_dicom(read_bytes(path, 132))


def is_dicom(content: bytes) -> bool:
    """Whether these first bytes of a file, 132 at least, are those of a DICOM file."""
    return content[128:132] == b"DICM"


def read_dicom(path: Path) -> Film:
    """One single-frame grey radiograph.

    12-bit JPEG makes GDCM write three fixed lines to the standard error stream of the process;
    they hold nothing of the file.

    Args:
        path: A DICOM file with preamble, in one of `SYNTAXES`.

    Returns:
        The film as a viewer would show it, black at 0. White is the end of the VOI LUT's or the
        window's output range, else that of Bits Stored behind the modality transform.

    Raises:
        DecodeError: unsupported_dicom, multi_image, no_pixels, too_large, truncated, unreadable,
            or any reason of `looks_like_dicom`.
    """
    check_file(path)
    with decoding():
        from pydicom import dcmread
        from pydicom.filereader import read_file_meta_info

        syntax = _supported(str(read_file_meta_info(path).get("TransferSyntaxUID", "")))
        dataset = dcmread(path, specific_tags=list(_TAGS))
        _check_header(dataset)
        return _as_film(dataset, _stored_values(dataset, syntax))


def _supported(syntax: str) -> str:
    """The transfer syntax itself, if it is one that is decoded."""
    from pydicom.uid import UID

    if syntax in SYNTAXES:
        return syntax
    # Only registered names are repeated: an unknown one is text of the file.
    name = UID(syntax).name if UID(syntax).type else "unknown"
    raise DecodeError("unsupported_dicom", f"transfer syntax not supported: {name}")


def _check_header(dataset: "Dataset") -> None:
    """Refuse by the header what is no single grey film of decent size."""
    if "PixelData" not in dataset:
        raise DecodeError("no_pixels", "the DICOM file holds no image")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DecodeError("multi_image", "the DICOM file holds more than one frame")
    check_pixels(int(dataset.Rows), int(dataset.Columns))
    grey = str(dataset.PhotometricInterpretation) in ("MONOCHROME1", "MONOCHROME2")
    if not grey or dataset.SamplesPerPixel != 1:
        raise DecodeError(
            "unsupported_dicom", "a colour DICOM; expected MONOCHROME1 or MONOCHROME2"
        )
    if dataset.BitsAllocated not in (8, 16):
        raise DecodeError("unsupported_dicom", "expected 8 or 16 bits allocated per pixel")
    if not 1 <= int(dataset.BitsStored) <= dataset.BitsAllocated:
        raise DecodeError("unsupported_dicom", "Bits Stored does not fit Bits Allocated")


def _stored_values(dataset: "Dataset", syntax: str) -> NDArray[Any]:
    """Pixel values as stored, (Rows, Columns) int32."""
    from pydicom.pixels.utils import pixel_array

    if syntax == _JPEG_EXTENDED and dataset.BitsStored > 8:
        return _twelve_bit_jpeg(dataset)
    # Naming the decoder keeps lossy pixels the same on every machine, whatever else is installed.
    plugin = "gdcm" if syntax in _GDCM else "pydicom" if syntax == _RLE else ""
    stored = pixel_array(dataset, raw=True, decoding_plugin=plugin)
    return stored.reshape(dataset.Rows, dataset.Columns).astype(np.int32)


def _twelve_bit_jpeg(dataset: "Dataset") -> NDArray[Any]:
    """GDCM decodes 12-bit JPEG Extended, but pydicom does not pass it on."""
    import gdcm
    from pydicom.encaps import generate_frames

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(str(dataset.PhotometricInterpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(_JPEG_EXTENDED)))
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, signed))
    # GDCM hands bytes over as text, see pydicom's own decoder.
    content = image.GetBuffer().encode("utf-8", "surrogateescape")
    stored = np.frombuffer(content, "<i2" if signed else "<u2")
    return stored.reshape(dataset.Rows, dataset.Columns).astype(np.int32)


def _as_film(dataset: "Dataset", stored: NDArray[Any]) -> Film:
    grey, low, high = _voi(dataset, *_modality(dataset, stored))
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        raise DecodeError("unsupported_dicom", "the rescale or window values give no grey scale")
    if not (float(grey.min()) >= low and float(grey.max()) <= high):
        raise DecodeError("unsupported_dicom", "pixel values exceed their declared range")
    inverse = (
        dataset.PhotometricInterpretation == "MONOCHROME1"
        or dataset.get("PresentationLUTShape") == "INVERSE"
    )
    shown = high - grey if inverse else grey - low
    return Film(shown.astype(np.float32), high - low, _padding_mask(dataset, stored))


def _modality(dataset: "Dataset", stored: NDArray[Any]) -> _Scale:
    """Stored values to modality values, PS3.3 C.11.1.1."""
    if dataset.get("ModalityLUTSequence"):
        return _looked_up(dataset, dataset.ModalityLUTSequence[0], stored)
    bits = int(dataset.BitsStored)
    low = -(2 ** (bits - 1)) if dataset.get("PixelRepresentation") == 1 else 0
    ends = float(low), float(low + 2**bits - 1)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None or (slope == 1 and intercept == 0):
        return stored, *ends
    slope, intercept = float(slope), float(intercept)
    low_end, high_end = sorted(end * slope + intercept for end in ends)
    return stored * slope + intercept, low_end, high_end


def _voi(dataset: "Dataset", grey: NDArray[Any], low: float, high: float) -> _Scale:
    """Modality values to values of interest, PS3.3 C.11.2: the first LUT, else the first window."""
    if dataset.get("VOILUTSequence"):
        return _looked_up(dataset, dataset.VOILUTSequence[0], np.rint(grey).astype(np.int64))
    center, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if center is None or width is None:
        return grey, low, high
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    return _windowed(grey, center, width, function), 0.0, 1.0


def _first(dataset: "Dataset", keyword: str) -> float | None:
    """The first of one or several numbers; None where the element is missing or empty."""
    from pydicom.multival import MultiValue

    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)


def _windowed(grey: NDArray[Any], center: float, width: float, function: str) -> NDArray[Any]:
    """A window as 0 to 1, by the formulae of PS3.3 C.11.2.1.2.1 and C.11.2.1.3."""
    smallest = 1.0 if function == "LINEAR" else 0.0
    if not (width > smallest and math.isfinite(width) and math.isfinite(center)):
        raise DecodeError("unsupported_dicom", "the window has no width")
    if function == "LINEAR":
        return np.clip((grey - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)
    if function == "LINEAR_EXACT":
        return np.clip((grey - center) / width + 0.5, 0.0, 1.0)
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (grey - center) / width, -700.0, 700.0)))
    raise DecodeError("unsupported_dicom", "an unknown VOI LUT Function")


def _looked_up(dataset: "Dataset", item: "Dataset", values: NDArray[Any]) -> _Scale:
    """Values through a LUT; those outside it take its first or last entry.

    pydicom's own functions wrap around where the table is narrower than the values.

    Source: PS3.3 C.11.1.1 and C.11.2.1.1.
    """
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    table = _table(item.LUTData, count or 2**16, bool(dataset.original_encoding[1]))
    if not 8 <= bits <= 16 or int(table.max()) >= 2**bits:
        raise DecodeError("unsupported_dicom", "a LUT whose entries do not fit its descriptor")
    places = np.clip(values.astype(np.int64) - first, 0, len(table) - 1)
    return table[places].astype(np.int32), 0.0, float(2**bits - 1)


def _table(data: Any, count: int, little_endian: bool) -> NDArray[Any]:
    """The entries of a LUT, (count,): words, or bytes where that is all there is."""
    if not isinstance(data, bytes):
        table = np.asarray(data, dtype=np.int64)
    elif len(data) < 2 * count:
        table = np.frombuffer(data, np.uint8)
    else:
        table = np.frombuffer(data, "<u2" if little_endian else ">u2", count)
    if table.ndim != 1 or len(table) < count:
        raise DecodeError("unsupported_dicom", "a LUT with fewer entries than it declares")
    return table[:count]


def _padding_mask(dataset: "Dataset", stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """False where Pixel Padding Value, or the range up to its limit, marks no film."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    mask = (stored < low) | (stored > high)
    return None if mask.all() else mask
