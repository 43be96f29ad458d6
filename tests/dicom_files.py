"""DICOM films made by hand, for tests."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    generate_uid,
)

from xray_classifier.data.decode import read_film
from xray_classifier.errors import DecodeError

REAL = (Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "dicom").resolve()
GREY = (np.arange(20 * 16).reshape(20, 16) * 4095 // 319).astype(np.uint16)
"""A 12-bit ramp from 0 to 4095."""


def dicom(pixels: NDArray[Any] = GREY, bits: int = 12, **elements: Any) -> FileDataset:
    """A single-frame MONOCHROME2 film; `elements` replace or add what they name."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def written(path: Path, dataset: FileDataset) -> Path:
    """The path of a file with this film."""
    dataset.save_as(path, enforce_file_format=True)
    return path


def lut(entries: list[int], first: int, bits: int) -> Sequence:
    """A LUT Sequence of one item."""
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = entries
    item["LUTData"].VR = "US"
    return Sequence([item])


def content_of(dataset: FileDataset) -> bytes:
    """A film as the bytes of its file; native pixels are given in little endian."""
    stream = io.BytesIO()
    big_endian = dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    if big_endian:
        words = np.frombuffer(dataset.PixelData, f"<u{dataset.BitsAllocated // 8}")
        dataset.PixelData = words.byteswap().tobytes()
        pydicom.dcmwrite(stream, dataset, little_endian=False, implicit_vr=False)
    else:
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def compressed(syntax: str, *fragments: bytes, **elements: Any) -> bytes:
    """A file whose frame is the given codestream, in as many fragments; 12 bits of 20 x 16."""
    dataset = dicom(**elements)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([b"".join(fragments)], fragments_per_frame=len(fragments))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return content_of(dataset)


def refusal(path: Path) -> DecodeError:
    """What reading this file is refused with."""
    with pytest.raises(DecodeError) as caught:
        read_film(path)
    return caught.value


def real(name: str) -> Path:
    """A real radiograph, or the test is skipped."""
    if not (REAL / name).is_file():
        pytest.skip("no DICOM radiographs in ../shared/data")
    return REAL / name
