"""DICOM radiographs to grey: modality transform, VOI transform, one inversion at the end.

The order is that of DICOM PS3.3: stored values -> Modality LUT or rescale (C.11.1) -> VOI LUT, else
the first window (C.11.2) -> inversion for MONOCHROME1 or Presentation LUT Shape INVERSE (C.7.6.3,
C.11.6), which say the same thing. Padding and shutters are left out of the film.

Only the elements named in `_KEYWORDS` are read, and no message repeats a value.
"""

import hashlib
import io
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.boundary import check_pixels, decoding
from xray_classifier.data.dicom_header import Header, read_header
from xray_classifier.data.dicom_mask import film_mask
from xray_classifier.data.dicom_pixels import PixelFormat, stored_values
from xray_classifier.data.film import Film, Origin
from xray_classifier.errors import DecodeError
from xray_classifier.pseudonyms import pseudonym

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# fmt: off
_KEYWORDS = (
    "BitsAllocated", "BitsStored", "BurnedInAnnotation", "CenterOfCircularShutter", "Columns",
    "HighBit", "Manufacturer", "ManufacturerModelName", "ModalityLUTSequence", "NumberOfFrames",
    "PatientID", "PhotometricInterpretation", "PixelPaddingRangeLimit", "PixelPaddingValue",
    "PixelRepresentation", "PresentationIntentType", "PresentationLUTShape",
    "RadiusOfCircularShutter", "RescaleIntercept", "RescaleSlope", "Rows", "SOPClassUID",
    "SamplesPerPixel", "ShutterLeftVerticalEdge", "ShutterLowerHorizontalEdge",
    "ShutterRightVerticalEdge", "ShutterShape", "ShutterUpperHorizontalEdge",
    "SpecificCharacterSet", "VOILUTFunction", "VOILUTSequence", "VerticesOfThePolygonalShutter",
    "WindowCenter", "WindowWidth",
)
# fmt: on

_OVERLAY_BIT_POSITIONS = tuple(0x60000102 + (number << 17) for number in range(16))

_FOR_PROCESSING = tuple(f"1.2.840.10008.5.1.4.1.1.1.{kind}.1" for kind in (1, 2, 3))
"""Digital X-ray, mammography and intra-oral images, as PS3.4 B.5 registers them."""

_STEPS = 2**22
"""Steps of grey behind a window: exact in float32, so a film and its negative stay equal."""

# A grey value for each stored one, with the lowest and highest that these can be.
_Scale = tuple[NDArray[Any], float, float]


def is_dicom(content: bytes) -> bool:
    """Whether a file, of which the first 132 bytes will do, has the mark DICM behind a preamble.

    Source: DICOM PS3.10, section 7.1.
    """
    return content[128:132] == b"DICM"


def read_dicom(content: bytes, for_processing: str) -> Film:
    """One single-frame grey radiograph.

    12-bit JPEG makes GDCM write two fixed lines to the standard error stream of the process; they
    hold nothing of the file.

    Args:
        content: A DICOM file with preamble, in one of `dicom_header.SYNTAXES`.
        for_processing: `reject` or `accept` images that are raw detector data.

    Returns:
        The film as a viewer would show it, black at 0. White is the end of the VOI LUT's or the
        window's output range, else that of Bits Stored behind the modality transform.

    Raises:
        DecodeError: unsupported_dicom, for_processing, multi_image, no_pixels, too_large,
            truncated or unreadable.
    """
    with decoding():
        header = read_header(content, _wanted())
        dataset = _dataset(header)
        _refuse_other_kinds(dataset, for_processing)
        form = _pixel_format(dataset)
        stored = stored_values(header, form)
        shades, full_scale = _shades(dataset, form, header.little_endian)
        mask = film_mask(dataset, stored)
        grey = np.take(shades, stored - form.ends[0])
        return Film(grey, full_scale, mask, _origin(dataset, form))


@lru_cache(maxsize=1)
def _wanted() -> frozenset[int]:
    from pydicom.datadict import tag_for_keyword

    tags = (tag_for_keyword(keyword) for keyword in _KEYWORDS)
    return frozenset(tag for tag in tags if tag is not None) | frozenset(_OVERLAY_BIT_POSITIONS)


def _dataset(header: Header) -> "Dataset":
    """The wanted elements alone; each is parsed when it is asked for."""
    from pydicom.dataset import Dataset
    from pydicom.filereader import data_element_generator

    stream = io.BytesIO(header.elements)
    elements = data_element_generator(stream, header.implicit, header.little_endian)
    return Dataset({element.tag: element for element in elements})


def _refuse_other_kinds(dataset: "Dataset", for_processing: str) -> None:
    """Refuse what is no single grey film for the eye."""
    raw = dataset.get("PresentationIntentType") == "FOR PROCESSING"
    if for_processing != "accept" and (raw or dataset.get("SOPClassUID") in _FOR_PROCESSING):
        raise DecodeError(
            "for_processing",
            "raw detector data (FOR PROCESSING); use the image FOR PRESENTATION, "
            "or set data.image.for_processing=accept",
        )
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DecodeError("multi_image", "more than one frame; save each frame as a film")
    grey = dataset.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    if not grey or dataset.get("SamplesPerPixel") != 1:
        raise DecodeError(
            "colour_dicom",
            "a colour DICOM; save the film as grey (MONOCHROME1 or MONOCHROME2)",
        )


def _pixel_format(dataset: "Dataset") -> PixelFormat:
    """How the pixels are stored, if they are of a decent size and depth."""
    keywords = ("Rows", "Columns", "BitsAllocated", "BitsStored")
    missing = [keyword for keyword in keywords if dataset.get(keyword) is None]
    if missing:
        raise DecodeError("unreadable", f"the DICOM header lacks {', '.join(missing)}")
    rows, columns, allocated, stored = (int(dataset[keyword].value) for keyword in keywords)
    check_pixels(rows, columns)
    if allocated not in (8, 16):
        raise DecodeError(
            "unsupported_dicom", "save the film with 8 or 16 bits allocated per pixel"
        )
    if not 1 <= stored <= allocated or dataset.get("HighBit", stored - 1) != stored - 1:
        raise DecodeError(
            "unsupported_dicom",
            "Bits Stored must fit Bits Allocated, and High Bit be Bits Stored - 1",
        )
    return PixelFormat(
        rows,
        columns,
        allocated,
        stored,
        signed=dataset.get("PixelRepresentation") == 1,
        photometric=str(dataset.PhotometricInterpretation),
        overlays_above=any(_overlay_bit(dataset, tag) for tag in _OVERLAY_BIT_POSITIONS),
    )


def _overlay_bit(dataset: "Dataset", tag: int) -> int:
    """The bit of each pixel that holds an overlay; 0 where it is stored elsewhere."""
    return int(dataset[tag].value or 0) if tag in dataset else 0


def _origin(dataset: "Dataset", form: PixelFormat) -> Origin:
    maker = [
        str(dataset.get(key) or "").strip() for key in ("Manufacturer", "ManufacturerModelName")
    ]
    named = "\n".join(maker).encode("utf-8", "surrogatepass")
    return Origin(
        container="DICOM",
        mode=form.photometric,
        bits=form.stored,
        scanner=hashlib.blake2b(named, digest_size=8).hexdigest() if any(maker) else "",
        patient=pseudonym(str(dataset.get("PatientID") or "")),
        burned_in=dataset.get("BurnedInAnnotation") == "YES",
    )


def _shades(
    dataset: "Dataset", form: PixelFormat, little_endian: bool
) -> tuple[NDArray[Any], float]:
    """What a viewer shows for each value that can be stored, black at 0, and white.

    Returns:
        Shades (2^Bits Stored,) from the lowest value on, and the one that means white.
    """
    grey, low, high = _presented(dataset, form, little_endian)
    inverse = form.photometric == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
    shown, full_scale = high - grey if inverse else grey - low, high - low
    if full_scale == 1.0:
        return shown.astype(np.float32), full_scale
    return shown.astype(np.uint8 if full_scale <= 255 else np.uint16), full_scale


def _presented(dataset: "Dataset", form: PixelFormat, little_endian: bool) -> _Scale:
    """All stored values through modality and VOI transform, before any inversion.

    Of VOI LUTs and windows the first LUT counts, else the first window.

    Source: PS3.3 C.11.1 and C.11.2.
    """
    low, high = (float(end) for end in form.ends)
    grey: NDArray[Any] = np.arange(form.ends[0], form.ends[1] + 1)
    slope, intercept = 1.0, 0.0
    if dataset.get("ModalityLUTSequence"):
        item = dataset.ModalityLUTSequence[0]
        grey, low, high = _looked_up(item, grey, low < 0, little_endian)
    else:
        slope, intercept = _rescale(dataset)
    rescaled = grey * slope + intercept
    if dataset.get("VOILUTSequence"):
        signed = min(low * slope, high * slope) + intercept < 0
        return _looked_up(dataset.VOILUTSequence[0], rescaled, signed, little_endian)
    center, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if center is not None and width is not None:
        function = str(dataset.get("VOILUTFunction") or "LINEAR")
        return _windowed(rescaled, center, width, function), 0.0, 1.0
    # The whole range is shown: a rescale moves its ends along, and can only turn it around.
    return (grey, low, high) if slope > 0 else (-grey, -high, -low)


def _rescale(dataset: "Dataset") -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where they are not given."""
    slope, intercept = _first(dataset, "RescaleSlope"), _first(dataset, "RescaleIntercept")
    if slope is None or intercept is None:
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
        raise DecodeError(
            "unsupported_dicom", "Rescale Slope and Intercept give no grey scale; correct them"
        )
    return slope, intercept


def _first(dataset: "Dataset", keyword: str) -> float | None:
    """The first of one or several numbers; None where the element is missing or empty."""
    from pydicom.multival import MultiValue

    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)


def _windowed(grey: NDArray[Any], center: float, width: float, function: str) -> NDArray[Any]:
    """Values (n,) through a window to 0 to 1, PS3.3 C.11.2.1.2.1 and C.11.2.1.3."""
    smallest = 1.0 if function == "LINEAR" else 0.0
    if not (width > smallest and math.isfinite(width) and math.isfinite(center)):
        raise DecodeError("unsupported_dicom", "the window has no width; correct Window Width")
    if function == "LINEAR":
        shown = np.clip((grey - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)
    elif function == "LINEAR_EXACT":
        shown = np.clip((grey - center) / width + 0.5, 0.0, 1.0)
    elif function == "SIGMOID":
        shown = 1.0 / (1.0 + np.exp(np.clip(-4.0 * (grey - center) / width, -700.0, 700.0)))
    else:
        raise DecodeError("unsupported_dicom", "an unknown VOI LUT Function; correct it")
    return np.asarray(np.rint(shown * _STEPS) / _STEPS)


def _looked_up(item: "Dataset", values: NDArray[Any], signed: bool, little_endian: bool) -> _Scale:
    """Values through a LUT; those outside it take its first or last entry.

    pydicom's own functions wrap around where the table is narrower than the values.

    Args:
        item: Of a Modality or VOI LUT Sequence.
        values: What goes in, (n,); fractions are rounded.
        signed: Values may lie below zero, and so may the first that is mapped.
        little_endian: Byte order of a table that is given as bytes.

    Source: PS3.3 C.11.1.1 and C.11.2.1.1.
    """
    count, first, bits = (int(number) & 0xFFFF for number in item.LUTDescriptor)
    first -= 2**16 if signed and first >= 2**15 else 0
    table = _table(item.LUTData, count or 2**16, little_endian)
    if not 8 <= bits <= 16 or int(table.max()) >= 2**bits:
        raise DecodeError(
            "unsupported_dicom", "a LUT whose entries do not fit its LUT Descriptor; correct it"
        )
    places = np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.int64)
    return table[places].astype(np.int32), 0.0, float(2**bits - 1)


def _table(data: Any, count: int, little_endian: bool) -> NDArray[Any]:
    """The entries of a LUT, (count,): words, or bytes where that is all there is."""
    if not isinstance(data, bytes):
        table = np.asarray(data, dtype=np.int64) & 0xFFFF
    elif len(data) < 2 * count:
        table = np.frombuffer(data, np.uint8)
    else:
        table = np.frombuffer(data, "<u2" if little_endian else ">u2", count)
    if table.ndim != 1 or len(table) < count:
        raise DecodeError(
            "unsupported_dicom", "a LUT with fewer entries than it declares; correct it"
        )
    return table[:count]
