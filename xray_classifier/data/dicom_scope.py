"""Whether a DICOM film is one that a model is meant for, by what its header says of itself.

Four elements are held against the words of `intended_use`: Modality, Body Part Examined, View
Position and Patient's Age. Only a clear contradiction counts: both sides must say something that is
known here, and have nothing in common. No value is kept, returned or quoted.

Source: DICOM PS3.3, C.7.3.1.1.1 (modalities) and C.8.11.5.1.1 (views); PS3.16, annex L (body
parts); PS3.5, 6.2 (age strings).
"""

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xray_classifier.data.boundary import decoding, read_bytes, warm_up
from xray_classifier.data.dicom import is_dicom
from xray_classifier.data.dicom_header import read_header
from xray_classifier.errors import DecodeError

TAGS = {
    0x00080060: "Modality",
    0x00180015: "BodyPartExamined",
    0x00185101: "ViewPosition",
    0x00101010: "PatientAge",
}
"""The only elements that are read, and what `out_of_scope` calls them."""

MARK_BYTES = 132

Groups = Mapping[str, frozenset[str]]


def _groups(lines: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Words and what they mean, from `words: meanings` with spaces between."""
    return {
        word.replace("_", " "): frozenset(meanings.split())
        for words, meanings in lines.items()
        for word in words.split()
    }


MODALITIES = _groups(
    {
        "cr dx dr rg radiography radiograph radiographs x-ray x-rays xray xrays röntgen": "film",
        "mg mammography mammogram mammograms": "breast_film",
        "ct tomography": "ct",
        "mr mri magnetic": "mr",
        "us ultrasound sonography": "us",
        "nm scintigraphy": "nm",
        "pt pet": "pet",
        "xa angiography": "angiography",
        "rf fluoroscopy": "fluoroscopy",
        "io px dental intraoral panoramic": "dental_film",
        "bmd densitometry": "densitometry",
    }
)
"""Codes of Modality and words for them. Plain films are one kind, whatever takes them; codes such
as OT and SC, which say nothing of the technique, are left out."""

BODY_PARTS = _groups(
    {
        "chest thorax thoracic lung lungs heart rib ribs sternum": "chest",
        "abdomen abdominal belly stomach kub": "abdomen",
        "pelvis pelvic": "pelvis",
        "hip hips": "pelvis leg",
        "spine spinal cspine sspine cervical vertebra vertebrae": "spine",
        "tspine": "spine chest",
        "lspine lumbar": "spine abdomen",
        "neck": "spine head",
        "skull head jaw mandible maxilla sinus orbit face facial teeth": "head",
        "breast breasts mamma": "breast",
        "extremity extremities limb limbs": "arm leg",
        "arm hand hands wrist wrists finger fingers thumb elbow elbows forearm humerus radius ulna "
        "shoulder shoulders": "arm",
        "clavicle scapula": "arm chest",
        "leg knee knees patella ankle ankles foot feet toe toes heel calcaneus femur thigh tibia "
        "fibula": "leg",
    }
)
"""Terms of Body Part Examined and words of the trade, by region: a film of the hand shows the wrist
as well, and one of an extremity may show either limb."""

VIEWS = _groups(
    {
        "pa posteroanterior posterior-anterior": "pa",
        "ap anteroposterior anterior-posterior": "ap",
        "frontal": "pa ap",
        "lateral lat ll rl": "lateral",
        "lld rld decubitus": "decubitus",
        "oblique rlo llo rao lao rpo lpo": "oblique",
        "cc craniocaudal": "cc",
        "mlo": "mlo",
    }
)
"""Codes of View Position and words for them."""

IN_YEARS = {"Y": 1.0, "M": 1.0 / 12.0, "W": 7.0 / 365.25, "D": 1.0 / 365.25}
"""Years of one unit of an age string."""

WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
SHORTEST_END = 5
"""A term of so many letters also counts at either end of a word, as CHEST in CHESTABDOMEN."""


def out_of_scope(path: Path, intended_use: Mapping[str, Any]) -> str | None:
    """Which element of a DICOM header contradicts what a model is meant for.

    Args:
        path: Any file.
        intended_use: `body_part`, `view` and `modality` as text, `min_age_years` and
            `max_age_years` as numbers; what is missing or None is not looked at.

    Returns:
        The keyword of the first such element, one of TAGS, never its value. None where nothing
        contradicts, nothing is said, or the file is no DICOM that can be read.
    """
    asked = {key: intended_use.get(key) for key in ("modality", "body_part", "view")}
    ages = tuple(intended_use.get(key) for key in ("min_age_years", "max_age_years"))
    if all(value is None for value in (*asked.values(), *ages)):
        return None
    said = _said(path)
    checks: dict[str, Callable[[str], bool]] = {
        "Modality": lambda text: contradict(MODALITIES, text, asked["modality"]),
        "BodyPartExamined": lambda text: contradict(BODY_PARTS, text, asked["body_part"]),
        "ViewPosition": lambda text: contradict(VIEWS, text, asked["view"]),
        "PatientAge": lambda text: outside_ages(text, *ages),
    }
    return next((tag for tag, wrong in checks.items() if tag in said and wrong(said[tag])), None)


def require_in_scope(path: Path, intended_use: Mapping[str, Any]) -> None:
    """Refuse a film whose header contradicts what a model is meant for; arguments as above.

    Raises:
        DecodeError: out_of_scope.
    """
    tag = out_of_scope(path, intended_use)
    if tag is not None:
        raise DecodeError("out_of_scope", f"{tag} contradicts the intended use of the model")


def _said(path: Path) -> dict[str, str]:
    """What the header says in the elements of TAGS, as text; empty if there is none to read."""
    try:
        if not is_dicom(read_bytes(path, MARK_BYTES)):
            return {}
        content = read_bytes(path)
        warm_up(dicom=True)
        with decoding():
            return _texts(content)
    except DecodeError:
        return {}  # why a file cannot be read is told where it is decoded


def _texts(content: bytes) -> dict[str, str]:
    from pydicom.dataset import Dataset
    from pydicom.filereader import data_element_generator
    from pydicom.multival import MultiValue

    header = read_header(content, frozenset(TAGS))
    stream = io.BytesIO(header.elements)
    elements = data_element_generator(stream, header.implicit, header.little_endian)
    dataset = Dataset({element.tag: element for element in elements})
    found = {}
    for keyword in TAGS.values():
        value = dataset.get(keyword)
        several = value if isinstance(value, MultiValue) else [value]
        found[keyword] = " ".join(str(one) for one in several if one is not None)
    return found


def contradict(groups: Groups, said: str, asked: object) -> bool:
    """Whether two texts speak of known things, and of none in common.

    Args:
        groups: Words and what they mean.
        said: Of the header.
        asked: Of `intended_use`; None asks for nothing.
    """
    if not isinstance(asked, str):
        return False
    theirs, ours = meanings(groups, said), meanings(groups, asked)
    return bool(theirs and ours) and theirs.isdisjoint(ours)


def meanings(groups: Groups, text: str) -> frozenset[str]:
    """All that the known words of a text mean; case and the signs between words do not matter."""
    found: frozenset[str] = frozenset()
    for word in WORD.findall(text.lower().replace("_", " ")):
        parts = [word, word.replace("-", ""), *word.split("-")]
        long_terms = [term for term in groups if len(term) >= SHORTEST_END]
        ends = [t for t in long_terms if parts[1].startswith(t) or parts[1].endswith(t)]
        for term in {*parts, *ends} & groups.keys():
            found |= groups[term]
    return found


def outside_ages(said: str, youngest: object, oldest: object) -> bool:
    """Whether an age string lies outside whole years of age.

    A patient is as old as at the last birthday: 017Y is 17 until the day before 18.

    Args:
        said: Three digits and D, W, M or Y; anything else says nothing.
        youngest: Smallest age in years, or None.
        oldest: Largest age in years, or None: whoever has not turned one more belongs to it.
    """
    parsed = re.fullmatch(r"(\d{3})([DWMY])", said.strip().upper())
    if parsed is None:
        return False
    unit = IN_YEARS[parsed[2]]
    from_years, below_years = int(parsed[1]) * unit, (int(parsed[1]) + 1) * unit
    too_young = isinstance(youngest, (int, float)) and below_years <= youngest
    return too_young or (isinstance(oldest, (int, float)) and from_years >= oldest + 1)
