"""Which study and patient a DICOM file belongs to, by three elements of its header.

Source: DICOM PS3.3, C.7.1.1 (Patient ID), C.7.2.1 (Study Instance UID) and C.12.1 (SOP Instance
UID); PS3.5, 9.1 (a UID: digits and full stops, 64 at most).
"""

import io
import re
from pathlib import Path
from typing import NamedTuple

from xray_classifier.data.boundary import decoding, read_bytes, warm_up
from xray_classifier.data.dicom import is_dicom
from xray_classifier.data.dicom_header import read_header
from xray_classifier.errors import DecodeError
from xray_classifier.pseudonyms import pseudonym

MARK_BYTES = 132
PATIENT_ID, STUDY_UID, SOP_UID = 0x00100020, 0x0020000D, 0x00080018
UID = re.compile(r"[0-9.]{1,64}")


class Identity(NamedTuple):
    """What a header says; `` where it says nothing.

    Attributes:
        patient: Keyed hash of Patient ID.
        study_uid: Study Instance UID.
        sop_uid: SOP Instance UID.
    """

    patient: str = ""
    study_uid: str = ""
    sop_uid: str = ""


def identity_of(path: Path) -> Identity:
    """Read the three elements of a file; all empty where it is no DICOM that can be read."""
    try:
        if not is_dicom(read_bytes(path, MARK_BYTES)):
            return Identity()
        content = read_bytes(path)
        warm_up(dicom=True)
        with decoding():
            return _identity(content)
    except DecodeError:
        return Identity()  # why a file cannot be read is told where it is decoded


def _identity(content: bytes) -> Identity:
    from pydicom.dataset import Dataset
    from pydicom.filereader import data_element_generator

    header = read_header(content, frozenset({PATIENT_ID, STUDY_UID, SOP_UID}))
    stream = io.BytesIO(header.elements)
    elements = data_element_generator(stream, header.implicit, header.little_endian)
    dataset = Dataset({element.tag: element for element in elements})
    study, sop = (_uid(dataset.get(keyword)) for keyword in ("StudyInstanceUID", "SOPInstanceUID"))
    return Identity(pseudonym(str(dataset.get("PatientID") or "")), study, sop)


def _uid(value: object) -> str:
    """A UID as it should be; `` for anything else, which could be a name."""
    text = str(value or "").strip("\0 ")
    return text if UID.fullmatch(text) else ""
