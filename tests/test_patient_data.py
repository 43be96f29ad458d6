"""Nothing that names a patient leaves the image file: a canary in every header shows up nowhere."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)
from test_leaks import picture
from tiny_runs import Program, no_pictures, program, rows_of

from xray_classifier.data.dicom import is_dicom
from xray_classifier.pseudonyms import pseudonym

__all__ = ["no_pictures", "program"]

CANARY = "CANARYZQX"
TEXT_TAGS = (
    "PatientName", "PatientID", "OtherPatientNames", "PatientBirthName", "PatientAddress",
    "PatientTelephoneNumbers", "PatientMotherBirthName", "PatientComments",
    "ReferringPhysicianName", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy",
    "OperatorsName", "PhysiciansOfRecord", "RequestingPhysician", "InstitutionName",
    "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "StudyDescription",
    "SeriesDescription", "ProtocolName", "AccessionNumber", "StudyID", "AdmissionID",
    "IssuerOfPatientID", "MedicalRecordLocator", "EthnicGroup", "Occupation",
    "AdditionalPatientHistory", "MedicalAlerts", "Allergies", "CountryOfResidence",
    "RegionOfResidence", "PatientReligiousPreference", "ImageComments", "DerivationDescription",
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions",
    "WindowCenterWidthExplanation", "DetectorID", "DetectorDescription",
    "AcquisitionDeviceProcessingDescription", "BodyPartExamined", "ViewPosition",
)  # fmt: skip


def hostile_dicom(pixels: NDArray[np.uint16], patient: str, damaged: bool = False) -> bytes:
    """A 12-bit film with a canary in over two hundred elements, private and nested ones too.

    A damaged one says it where a number is due, so that pydicom warns, with the value in its words.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    for keyword in TEXT_TAGS:
        setattr(dataset, keyword, CANARY)
    for element in range(0x1010, 0x1010 + 160):
        dataset.add_new((0x0009, element), "LO", CANARY)
    dataset.add_new((0x0009, 0x0010), "LO", CANARY)
    nested = Dataset()
    nested.PatientName = CANARY
    nested.RequestedProcedureDescription = CANARY
    dataset.RequestAttributesSequence = Sequence([nested])
    dataset.PatientID = f"{CANARY}-{patient}"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    if damaged:
        dataset.add_new((0x0028, 0x1051), "LO", CANARY)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def png_with_text(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG with a canary in its text chunks and its EXIF."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Patient", CANARY)
    notes.add_itxt("Author", CANARY, zip=True)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x010E] = exif[0x013B] = CANARY
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=notes, exif=exif)
    return buffer.getvalue()


def jpeg_with_text(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG with a canary in its EXIF and its comment."""
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x010E] = exif[0x013B] = CANARY
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, comment=CANARY, quality=95)
    return buffer.getvalue()


def tiff_with_text(pixels: NDArray[np.uint8]) -> bytes:
    """A TIFF with a canary in its description, artist and copyright."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, "TIFF", description=CANARY, artist=CANARY, copyright=CANARY
    )
    return buffer.getvalue()


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Films of every format with a canary in each header, some of them damaged."""
    root = tmp_path / "films"
    for number in range(48):
        grey = picture(number, 64)
        kind, content = (
            ("dcm", hostile_dicom(grey.astype(np.uint16) * 16, f"P{number // 2}")),
            ("png", png_with_text(grey)),
            ("jpg", jpeg_with_text(grey)),
            ("tif", tiff_with_text(grey)),
        )[number % 4 if number >= 24 else 0]
        path = root / ("sick" if number % 2 else "healthy") / f"film{number:02d}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    broken = hostile_dicom(picture(90, 64).astype(np.uint16) * 16, "P90")
    odd = hostile_dicom(picture(92, 64).astype(np.uint16) * 16, "P92", damaged=True)
    (root / "sick" / "odd.dcm").write_bytes(odd)
    (root / "sick" / "cut.dcm").write_bytes(broken[: len(broken) - 900])
    rows = broken.index(struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 2)) + 8
    wrong = broken[:rows] + struct.pack("<H", 60000) + broken[rows + 2 :]
    (root / "sick" / "wrong.dcm").write_bytes(wrong)
    (root / "sick" / "cut.png").write_bytes(png_with_text(picture(91, 64))[:900])
    return root


def test_a_canary_in_every_header_shows_up_nowhere(
    films: Path,
    tmp_path: Path,
    program: Program,
    no_pictures: None,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sum(CANARY.encode() in path.read_bytes() for path in films.rglob("*.*")) > 40
    assert is_dicom((films / "sick" / "cut.dcm").read_bytes())
    monkeypatch.chdir(tmp_path)
    cache = f"data.cache={tmp_path / 'cache'}"
    keys = (
        f"data.path={films}", cache, "data.unreadable=exclude", "data.image.size=16",
        "data.labels={healthy: [healthy], sick: [sick]}", "model.hidden=[8]", "train.epochs=2",
        "train.device=cpu", "train.threads=1",
    )  # fmt: skip
    said = [
        program("check", films, "-o", tmp_path / "check", cache, "--fix", tmp_path / "m.csv"),
        program("train", "-c", "mlp", "-v", "-o", tmp_path / "runs", *keys),
    ]
    assert [one.code for one in said] == [4, 0], said[1].err
    run = next(path for path in (tmp_path / "runs").iterdir() if path.name.endswith("_mlp"))
    said += [
        program("evaluate", run, "-o", tmp_path / "judged"),
        program("evaluate", run, "--data", films, "-o", tmp_path / "other", "--json"),
        *(
            program("predict", run, films, "-o", tmp_path / f"p.{kind}")
            for kind in ("csv", "jsonl", "parquet")
        ),
        program("predict", run, films / "sick" / "wrong.dcm", "-o", "-"),
        program("export", run, "-o", tmp_path / "shared.safetensors", "--strip-memory"),
        program("init", tmp_path / "my.yaml", "--data", films),
    ]
    assert {one.code for one in said} <= {0, 4}
    everything = "".join(one.out + one.err for one in said)
    everything += caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert CANARY not in everything
    written = [p for p in tmp_path.rglob("*") if p.is_file() and films not in p.parents]
    assert len(written) > 20
    found = [path for path in written if CANARY.encode() in path.read_bytes()]
    assert found == []


def test_dicom_patients_are_split_whole_under_their_pseudonyms(
    films: Path, tmp_path: Path, program: Program
) -> None:
    said = program(
        "check", films, "-o", tmp_path / "check", f"data.cache={tmp_path / 'cache'}",
        "--fix", tmp_path / "fixed.csv",
    )  # fmt: skip
    assert "by DICOM Patient ID (keyed hashes)" in said.out
    rows = {Path(row["path"]).name: row for row in rows_of(tmp_path / "fixed.csv")}
    for number in range(0, 24, 2):
        one, other = rows[f"film{number:02d}.dcm"], rows[f"film{number + 1:02d}.dcm"]
        assert one["patient"] == other["patient"] == pseudonym(f"{CANARY}-P{number // 2}")
        assert one["split"] == other["split"]
