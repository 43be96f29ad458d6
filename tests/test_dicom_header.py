"""Hostile headers are refused by the walk, before anything reads or decodes them."""

import io
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pydicom
import pytest
from dicom_files import GREY, REAL, compressed, content_of, dicom, lut, real
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from xray_classifier.data import dicom as dicom_module
from xray_classifier.data.dicom import read_dicom
from xray_classifier.data.dicom_header import (
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_VALUE_BYTES,
    Header,
    read_header,
)
from xray_classifier.errors import DecodeError

ROWS, VOI_LUT, PRIVATE = 0x00280010, 0x00283010, 0x00091001
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
OPEN = 0xFFFFFFFF


class Coding:
    """Writes element headers in one of the three native transfer syntaxes."""

    def __init__(self, syntax: str) -> None:
        self.syntax = syntax
        self.implicit = syntax == ImplicitVRLittleEndian
        self.order = ">" if syntax == ExplicitVRBigEndian else "<"

    def head(self, tag: int, vr: str, length: int) -> bytes:
        start = struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF)
        if self.implicit or tag >> 16 == 0xFFFE:
            return start + struct.pack(self.order + "L", length)
        if vr in ("OB", "OW", "SQ", "UN", "UT"):
            return start + vr.encode() + struct.pack(self.order + "HL", 0, length)
        return start + vr.encode() + struct.pack(self.order + "H", length)

    def element(self, tag: int, vr: str, value: bytes) -> bytes:
        return self.head(tag, vr, len(value)) + value

    def nested(self, depth: int, tag: int = VOI_LUT) -> bytes:
        """Sequences of undefined length inside one another."""
        start = self.head(tag, "SQ", OPEN) + self.head(ITEM, "", OPEN)
        end = self.head(ITEM_END, "", 0) + self.head(SEQUENCE_END, "", 0)
        return start * depth + end * depth

    def film(self, extra: bytes = b"", at: int = 0x7FE00010) -> bytes:
        """A file with more bytes before the element `at`."""
        dataset = dicom()
        dataset.file_meta.TransferSyntaxUID = self.syntax
        content = content_of(dataset)
        mark = struct.pack(self.order + "HH", at >> 16, at & 0xFFFF)
        assert content.count(mark) == 1
        place = content.index(mark)
        return content[:place] + extra + content[place:]


CODINGS = [
    Coding(syntax)
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
]
each_coding = pytest.mark.parametrize("coding", CODINGS, ids=["explicit", "implicit", "big"])
WANTED = frozenset((ROWS, VOI_LUT))


def refusal(content: bytes) -> DecodeError:
    """By the walk and, for the same reason, by the reader."""
    with pytest.raises(DecodeError) as caught:
        read_header(content, dicom_module._wanted())
    with pytest.raises(DecodeError) as again:
        read_dicom(content, "reject")
    assert again.value.reason == caught.value.reason
    return caught.value


# ---- what is found ---------------------------------------------------------------------------


@each_coding
def test_wanted_elements_are_copied_as_they_stand(coding: Coding) -> None:
    content = coding.film()
    header = read_header(content, WANTED)
    rows = struct.pack(coding.order + "H", 20)
    assert header.elements == coding.element(ROWS, "US", rows)
    assert (header.implicit, header.little_endian) == (coding.implicit, coding.order == "<")
    assert header.syntax == coding.syntax
    assert bytes(header.pixels) == pydicom.dcmread(io.BytesIO(content)).PixelData


@each_coding
@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_are_walked_in_every_length_coding(coding: Coding, undefined: bool) -> None:
    inner = Dataset()
    inner.ReferencedImageSequence = Sequence([Dataset()])
    inner.PatientName = "a"
    dataset = dicom(VOILUTSequence=lut([0] * 300, 0, 12), ReferencedStudySequence=Sequence([inner]))
    dataset["ReferencedStudySequence"].is_undefined_length = undefined
    dataset["VOILUTSequence"].is_undefined_length = undefined
    inner.is_undefined_length_sequence_item = undefined
    dataset.file_meta.TransferSyntaxUID = coding.syntax
    found = elements_of(read_header(content_of(dataset), WANTED))
    assert [int(tag) for tag in found.keys()] == [ROWS, VOI_LUT]  # noqa: SIM118
    assert found.VOILUTSequence[0].LUTDescriptor == [300, 0, 12]


def elements_of(header: Header) -> Dataset:
    generate = pydicom.filereader.data_element_generator
    stream = io.BytesIO(header.elements)
    elements = generate(stream, header.implicit, header.little_endian)
    return Dataset({element.tag: element for element in elements})


def test_an_unknown_element_may_hide_an_implicit_sequence() -> None:
    """PS3.5 6.2.2, note 2."""
    coding, implicit = CODINGS[0], CODINGS[1]
    inner = implicit.head(ITEM, "", OPEN) + implicit.element(0x00100010, "PN", b"ab")
    inner += implicit.head(ITEM_END, "", 0) + implicit.head(SEQUENCE_END, "", 0)
    content = coding.film(coding.head(PRIVATE, "UN", OPEN) + inner, at=ROWS)
    assert elements_of(read_header(content, WANTED)).Rows == 20


def test_pixels_of_an_icon_are_passed_by() -> None:
    coding = CODINGS[0]
    icon = coding.head(0x7FE00011, "OB", OPEN) + coding.element(ITEM, "", b"")
    icon += coding.element(ITEM, "", b"\xff\xd8" * 8) + coding.head(SEQUENCE_END, "", 0)
    item = coding.head(ITEM, "", OPEN) + icon + coding.head(ITEM_END, "", 0)
    sequence = coding.head(0x00880200, "SQ", OPEN) + item + coding.head(SEQUENCE_END, "", 0)
    assert elements_of(read_header(coding.film(sequence), WANTED)).Rows == 20


def test_what_follows_the_pixels_is_not_looked_at() -> None:
    header = read_header(CODINGS[0].film() + b"\xff" * 1001, WANTED)
    assert bytes(header.pixels) == GREY.tobytes()


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_fragments_are_joined(parts: int) -> None:
    fragments = [bytes([number]) * 10 for number in range(parts)]
    header = read_header(compressed(JPEGLosslessSV1, *fragments), WANTED)
    assert bytes(header.pixels) == b"".join(fragments)


def test_every_real_header_agrees_with_pydicom() -> None:
    real("index.csv")
    for path in sorted(REAL.glob("*.dcm")):
        found = elements_of(read_header(path.read_bytes(), dicom_module._wanted()))
        tags = list(dicom_module._KEYWORDS)
        whole = pydicom.dcmread(path, specific_tags=tags, stop_before_pixels=True)
        assert len(found) == len(whole) > 8
        for element in whole:
            assert found[element.tag].value == element.value


# ---- what is refused -------------------------------------------------------------------------


@each_coding
@pytest.mark.parametrize("tag", [VOI_LUT, PRIVATE])
def test_nesting_is_bounded(coding: Coding, tag: int) -> None:
    read_header(coding.film(coding.nested(MAX_DEPTH, tag)), WANTED)
    for depth in (MAX_DEPTH + 1, 300, 20_000):
        error = refusal(coding.film(coding.nested(depth, tag)))
        assert error.reason == "too_large"
        assert "nested" in error.detail


@each_coding
def test_nesting_in_given_lengths_is_bounded(coding: Coding) -> None:
    """pydicom reads sequences of given lengths, too, but only those that are asked for."""
    body = b""
    for _ in range(300):
        body = coding.element(VOI_LUT, "SQ", coding.element(ITEM, "", body))
    assert "nested" in refusal(coding.film(body)).detail
    hidden = coding.element(PRIVATE, "SQ", body[12:])
    assert elements_of(read_header(coding.film(hidden), WANTED)).Rows == 20


@each_coding
def test_the_number_of_elements_is_bounded(coding: Coding) -> None:
    many = coding.element(PRIVATE, "CS", b"") * MAX_ELEMENTS
    error = refusal(coding.film(many))
    assert error.reason == "too_large"
    assert "elements" in error.detail
    few = read_header(coding.film(many[: len(many) // 2]), WANTED)
    assert elements_of(few).Rows == 20


def test_the_number_of_items_and_fragments_is_bounded() -> None:
    coding = CODINGS[0]
    items = coding.head(ITEM, "", 0) * MAX_ELEMENTS
    assert "elements" in refusal(coding.film(coding.element(VOI_LUT, "SQ", items))).detail
    content = compressed(JPEGLosslessSV1, b"\xff\xd8")
    place = content.index(b"\xfe\xff\x00\xe0")
    assert "fragments" in refusal(content[:place] + items + content[place:]).detail


@each_coding
def test_the_size_of_an_element_is_bounded(coding: Coding) -> None:
    large = coding.element(ITEM, "", bytes(8) * (MAX_VALUE_BYTES // 8))
    large = coding.element(
        VOI_LUT, "SQ", coding.element(ITEM, "", coding.element(PRIVATE, "OB", large))
    )
    assert refusal(coding.film(large)).reason == "too_large"
    unread = coding.element(PRIVATE, "OB", bytes(2 * MAX_VALUE_BYTES))
    assert elements_of(read_header(coding.film(unread), WANTED)).Rows == 20


@each_coding
@pytest.mark.parametrize("length", [5000, 0xFFFE, 0x7FFFFFFE, 0xFFFFFFFE])
@pytest.mark.parametrize("vr", ["LO", "UT", "SQ"])
def test_lengths_beyond_the_end_are_refused(coding: Coding, vr: str, length: int) -> None:
    length = length & 0xFFFF if vr == "LO" and not coding.implicit else length
    for tag in (PRIVATE, VOI_LUT):
        extra = coding.head(tag, vr, length)
        reasons = {"truncated"} | ({"unreadable"} if tag == VOI_LUT else set())
        assert refusal(coding.film(extra)).reason in reasons


@each_coding
def test_an_item_may_not_leave_its_sequence(coding: Coding) -> None:
    item = coding.head(ITEM, "", 64)
    error = refusal(coding.film(coding.element(VOI_LUT, "SQ", item)))
    assert error.reason == "truncated"


@each_coding
@pytest.mark.parametrize(
    "build",
    [
        lambda coding: coding.head(ITEM_END, "", 0),
        lambda coding: coding.head(SEQUENCE_END, "", 0),
        lambda coding: coding.element(ITEM, "", b""),
        lambda coding: coding.head(VOI_LUT, "SQ", OPEN) + coding.element(PRIVATE, "LO", b""),
        lambda coding: coding.head(VOI_LUT, "SQ", OPEN) + coding.head(ITEM_END, "", 0),
        lambda coding: coding.head(VOI_LUT, "SQ", OPEN) + coding.head(SEQUENCE_END, "", 8),
        lambda coding: coding.element(VOI_LUT, "SQ", coding.head(SEQUENCE_END, "", 0)),
        lambda coding: coding.element(0x00280010, "US", b"\1\0"),  # Rows once more
    ],
)
def test_headers_that_contradict_each_other_are_refused(
    coding: Coding, build: Callable[[Coding], bytes]
) -> None:
    assert refusal(coding.film(build(coding))).reason == "unreadable"


@each_coding
def test_an_open_sequence_has_to_end(coding: Coding) -> None:
    head = coding.head(VOI_LUT, "SQ", OPEN)
    content = coding.film(head)
    place = content.index(head) + len(head)
    assert refusal(content[:place]).reason == "truncated"
    assert refusal(content[:place] + coding.head(ITEM, "", OPEN)).reason == "truncated"


def test_values_of_no_representation_are_refused() -> None:
    content = CODINGS[0].film(struct.pack("<HH2sH", 9, 1, b"\1\2", 0))
    assert refusal(content).reason == "unreadable"


def test_compressed_pixels_must_be_fragments_and_native_ones_must_not() -> None:
    content = compressed(JPEGLosslessSV1, b"\xff\xd8")
    place = content.index(b"\xe0\x7f\x10\x00OB\0\0") + 8
    assert refusal(content[:place] + struct.pack("<L", 8) + content[place + 4 :]).reason == (
        "unreadable"
    )
    content = CODINGS[0].film()
    place = content.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    assert refusal(content[:place] + struct.pack("<L", OPEN) + content[place + 4 :]).reason == (
        "unreadable"
    )


def test_fragments_must_lie_inside_the_file_and_end() -> None:
    content = compressed(JPEGLosslessSV1, b"\xff\xd8" * 50)
    end = content.rindex(b"\xfe\xff\xdd\xe0")
    assert refusal(content[:end]).reason == "truncated"
    assert refusal(content[: end - 10]).reason == "truncated"
    place = content.index(b"\xff\xd8") - 4
    long = content[:place] + struct.pack("<L", 0xFFFFFFFE) + content[place + 4 :]
    assert refusal(long).reason == "truncated"
    first = content.index(b"\xfe\xff\x00\xe0", place - 20)
    assert refusal(content[:first] + content[end:]).reason == "no_pixels"


@each_coding
def test_every_cut_is_refused(coding: Coding) -> None:
    content = coding.film(coding.nested(2))
    wanted = dicom_module._wanted()
    for length in range(132, len(content)):
        with pytest.raises(DecodeError) as caught:
            read_header(content[:length], wanted)
        assert caught.value.reason in (
            "truncated",
            "unreadable",
            "no_pixels",
            "unsupported_dicom",
            "unsupported_syntax",
        )


def test_deflated_files_are_refused_unread() -> None:
    dataset = dicom()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    error = refusal(content_of(dataset))
    assert error.reason == "unsupported_syntax"
    assert "Deflated" in error.detail
    assert "save the film" in error.detail


def bombs() -> dict[str, bytes]:
    coding = CODINGS[0]
    return {
        "nested": coding.film(coding.nested(200_000)),
        "elements": coding.film(coding.element(PRIVATE, "CS", b"") * 2_000_000),
        "items": coding.film(coding.element(VOI_LUT, "SQ", coding.head(ITEM, "", 0) * 2_000_000)),
    }


@pytest.mark.parametrize("name", ["nested", "elements", "items"])
def test_bombs_take_no_memory(name: str) -> None:
    """16 MB of headers; pydicom makes hundreds of megabytes of objects from them."""
    content = bombs()[name]
    tracemalloc.start()
    try:
        assert refusal(content).reason == "too_large"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


def test_pydicom_sees_nothing_that_was_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    usual: Any = pydicom.filereader.data_element_generator

    def watched(stream: io.BytesIO, *coding: bool) -> Any:
        seen.append(stream.getvalue())
        return usual(stream, *coding)

    monkeypatch.setattr(pydicom.filereader, "data_element_generator", watched)
    read_dicom(content_of(dicom(PatientName="Canary4711", StudyID="Canary4712")), "reject")
    assert len(seen) == 1
    assert b"Canary" not in seen[0]
