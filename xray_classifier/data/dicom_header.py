"""The element headers of a DICOM file, walked before any of it is read.

A reader that trusts its file can be made to recurse through nested sequences, to inflate 300 kB to
650 MB, or to make millions of objects. So the headers are walked here first, without recursion, and
only the bytes of the elements asked for go on to pydicom. No message repeats a value.

Source: DICOM PS3.10, section 7 (file); PS3.5, sections 7.1 (elements), 7.5 (sequences), 6.2.2 (UN)
and A.4 (fragments).
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from xray_classifier.errors import DecodeError

MAX_ELEMENTS = 50_000
"""Headers of elements, items and fragments up to Pixel Data; radiographs have a few hundred."""

MAX_DEPTH = 16
"""Sequences inside one another."""

MAX_VALUE_BYTES = 4 * 2**20
"""Largest element, Pixel Data aside, that is read; a LUT of 65,536 entries has 131,072 bytes."""

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
RLE = "1.2.840.10008.1.2.5"
GDCM = tuple(f"1.2.840.10008.1.2.4.{code}" for code in (50, 51, 57, 70, 80, 81, 90, 91))
SYNTAXES = (*NATIVE, RLE, *GDCM)
"""Transfer syntaxes that are decoded. Deflated files are refused: 300 kB of them inflate to 650 MB
before the first element can be read."""

SEQUENCES = (0x00283000, 0x00283010)
"""Modality LUT and VOI LUT Sequence: read, and so walked also where their length is given."""

_SYNTAX, _PIXEL_DATA = 0x00020010, 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_OPEN = 0xFFFFFFFF  # the length of what a delimiter ends
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


@dataclass(frozen=True, eq=False)
class Header:
    """What is known of a file whose elements were walked.

    Attributes:
        syntax: Transfer syntax, one of `SYNTAXES`.
        implicit: Elements do not state their value representation.
        little_endian: Byte order of everything but compressed pixels.
        elements: The elements asked for, as they stand in the file, one behind the other.
        pixel_vr: Value representation of Pixel Data; `` if implicit.
        pixels: Value of Pixel Data; of compressed pixels the joined fragments.
    """

    syntax: str
    implicit: bool
    little_endian: bool
    elements: bytes
    pixel_vr: str
    pixels: memoryview


class _Form(NamedTuple):
    """How element headers are coded."""

    implicit: bool
    tag: struct.Struct
    short: struct.Struct
    long: struct.Struct


class _Element(NamedTuple):
    tag: int
    vr: bytes
    length: int  # bytes, or _OPEN
    value_at: int


class _Level(NamedTuple):
    """What the walk is inside of: elements, items or fragments, up to `end` at the most."""

    holds: str
    end: int
    open: bool
    form: _Form


def _form(implicit: bool, little_endian: bool) -> _Form:
    order = "<" if little_endian else ">"
    return _Form(implicit, *(struct.Struct(order + code) for code in ("HH", "H", "L")))


def read_header(content: bytes, wanted: frozenset[int]) -> Header:
    """Walk a file up to its pixels, and take the elements asked for.

    Args:
        content: The whole file, with preamble.
        wanted: Tags of the top level, group in the upper 16 bits.

    Raises:
        DecodeError: unsupported_dicom by the transfer syntax; truncated where a length reaches
            beyond the file or a delimiter is missing; unreadable where headers contradict each
            other; too_large beyond MAX_ELEMENTS, MAX_DEPTH or MAX_VALUE_BYTES; no_pixels.
    """
    try:
        syntax, start = _file_meta(content)
        little_endian = syntax != NATIVE[2]
        # Some files are explicit though their syntax is not, or the reverse: the first one tells.
        implicit = not _is_vr(content[start + 4 : start + 6])
        spans, pixels = _walk(content, start, _form(implicit, little_endian), wanted)
        if pixels is None:
            raise DecodeError("no_pixels", "the DICOM file holds no image; leave it out")
        value = _native(content, pixels) if syntax in NATIVE else _fragments(content, pixels)
    except struct.error:
        raise _cut() from None
    elements = b"".join(content[begin:end] for begin, end in spans.values())
    return Header(syntax, implicit, little_endian, elements, pixels.vr.decode("ascii"), value)


def _is_vr(code: bytes) -> bool:
    return len(code) == 2 and 65 <= code[0] <= 90 and 65 <= code[1] <= 90


def _cut() -> DecodeError:
    return DecodeError("truncated", "the DICOM file ends before its elements do")


def _damaged() -> DecodeError:
    return DecodeError("unreadable", "the headers of the DICOM file's elements are damaged")


def _file_meta(content: bytes) -> tuple[str, int]:
    """The transfer syntax, if it is one that is decoded, and where the dataset begins."""
    form = _form(implicit=False, little_endian=True)
    at, uid = 132, b""
    while content[at : at + 2] == b"\2\0":
        element = _element(content, at, form)
        at = element.value_at + element.length
        if at > len(content):
            raise _cut()
        if element.tag == _SYNTAX:
            uid = content[element.value_at : at]
    return _supported(uid.rstrip(b"\0 ").decode("ascii", "replace")), at


def _supported(syntax: str) -> str:
    if syntax in SYNTAXES:
        return syntax
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    # Only registered names are repeated: an unknown one is text of the file.
    uid = UID(syntax, validation_mode=IGNORE)
    name = uid.name if uid.type else "unknown"
    raise DecodeError(
        "unsupported_syntax",
        f"transfer syntax not supported: {name}; save the film as Explicit VR Little Endian",
    )


def _element(content: bytes, at: int, form: _Form) -> _Element:
    """The header of one element, item or delimiter."""
    group, number = form.tag.unpack_from(content, at)
    tag = group << 16 | number
    if form.implicit or group == 0xFFFE:
        return _Element(tag, b"", form.long.unpack_from(content, at + 4)[0], at + 8)
    vr = content[at + 4 : at + 6]
    if vr in _LONG_VRS:
        return _Element(tag, vr, form.long.unpack_from(content, at + 8)[0], at + 12)
    if not _is_vr(vr):
        raise _damaged()
    return _Element(tag, vr, form.short.unpack_from(content, at + 6)[0], at + 8)


def _walk(
    content: bytes, at: int, form: _Form, wanted: frozenset[int]
) -> tuple[dict[int, tuple[int, int]], _Element | None]:
    """Where the wanted elements begin and end, and Pixel Data; what follows it is not looked at."""
    levels = [_Level("elements", len(content), False, form)]
    spans: dict[int, tuple[int, int]] = {}
    current, begin = 0, at
    for _ in range(MAX_ELEMENTS):
        level = levels[-1]
        element = None
        if at < level.end:
            element = _element(content, at, level.form)
        elif level.open:
            raise _cut()
        if len(levels) == 1:
            if current in wanted:
                _add_span(spans, current, begin, at)
            if element is None or element.tag == _PIXEL_DATA:
                return spans, element
            current, begin = element.tag, at
        if element is None:
            levels.pop()
        else:
            at = _step(levels, element)
    raise DecodeError("too_large", f"the DICOM header has more than {MAX_ELEMENTS} elements")


def _add_span(spans: dict[int, tuple[int, int]], tag: int, begin: int, end: int) -> None:
    if tag in spans:
        raise _damaged()  # readers differ in which of two they take
    if end - begin > MAX_VALUE_BYTES:
        raise DecodeError(
            "too_large", f"an element of the header exceeds {MAX_VALUE_BYTES >> 20} MiB"
        )
    spans[tag] = begin, end


def _step(levels: list[_Level], element: _Element) -> int:
    """Enter, leave or pass by one element; where the next header stands."""
    level = levels[-1]
    if element.tag in (_ITEM_END, _SEQUENCE_END):
        closes = _ITEM_END if level.holds == "elements" else _SEQUENCE_END
        if not level.open or element.tag != closes or element.length:
            raise _damaged()
        levels.pop()
        return element.value_at
    if (element.tag == _ITEM) == (level.holds == "elements"):
        raise _damaged()
    is_open = element.length == _OPEN
    end = level.end if is_open else element.value_at + element.length
    if end > level.end:
        raise _cut()
    holds = _held_by(level, element)
    if not holds:
        if is_open:
            raise _damaged()
        return end
    if len(levels) > 2 * MAX_DEPTH:
        raise DecodeError("too_large", f"sequences nested more than {MAX_DEPTH} deep")
    # An unknown VR hides a sequence that was implicit once.
    form = _form(implicit=True, little_endian=True) if element.vr == b"UN" else level.form
    levels.append(_Level(holds, end, is_open, form))
    return element.value_at


def _held_by(level: _Level, element: _Element) -> str:
    """What has to be walked inside an element or item; `` for none."""
    if level.holds != "elements":
        return "elements" if level.holds == "items" else ""
    if element.tag in SEQUENCES or element.length == _OPEN:
        if element.vr in (b"SQ", b"UN", b""):
            return "items"
        if element.vr in (b"OB", b"OW"):
            return "fragments"
        raise _damaged()
    return ""


def _native(content: bytes, pixels: _Element) -> memoryview:
    if pixels.length == _OPEN:
        raise _damaged()
    end = pixels.value_at + pixels.length
    if end > len(content):
        raise _cut()
    return memoryview(content)[pixels.value_at : end]


def _fragments(content: bytes, pixels: _Element) -> memoryview:
    """All fragments of one frame, joined; the offset table before them is not needed."""
    if pixels.length != _OPEN:
        raise _damaged()
    form = _form(implicit=True, little_endian=True)
    at, parts = pixels.value_at, []
    for _ in range(MAX_ELEMENTS):
        item = _element(content, at, form)
        if item.tag == _SEQUENCE_END:
            break
        at = item.value_at + item.length
        if item.tag != _ITEM:
            raise _damaged()
        if at > len(content):
            raise _cut()
        parts.append(memoryview(content)[item.value_at : at])
    else:
        raise DecodeError("too_large", f"the picture has more than {MAX_ELEMENTS} fragments")
    if len(parts) < 2:
        raise DecodeError("no_pixels", "the DICOM file holds no image; leave it out")
    return parts[1] if len(parts) == 2 else memoryview(b"".join(parts[1:]))
