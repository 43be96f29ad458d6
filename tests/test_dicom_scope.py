"""Which DICOM headers contradict what a model is meant for, and that no value leaves them."""

from pathlib import Path

import pytest
from dicom_files import dicom, real, written

from xray_classifier.data.dicom_scope import (
    BODY_PARTS,
    MODALITIES,
    TAGS,
    VIEWS,
    contradict,
    out_of_scope,
    outside_ages,
)

CHEST = {
    "modality": "digital radiography",
    "body_part": "chest",
    "view": "PA or AP",
    "min_age_years": 18,
    "max_age_years": 90,
}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm", None),
        ("RG1_J2KI.dcm", None),
        ("RG3_UNC.dcm", "BodyPartExamined"),
        ("RG3_JLSL.dcm", "BodyPartExamined"),
        ("RG2_JPLL.dcm", "BodyPartExamined"),
        ("6154.dcm", "BodyPartExamined"),
        ("GH133.dcm", "Modality"),
        ("NM_Kakadu44_SOTmarkerincons.dcm", "BodyPartExamined"),
        ("CR-ModalitySequenceLUT.dcm", None),
    ],
)
def test_real_radiographs(name: str, found: str | None) -> None:
    # index.csv of the data names what each film shows; ages are those of test patients
    without_ages = {key: CHEST[key] for key in ("modality", "body_part", "view")}
    assert out_of_scope(real(name), without_ages) == found


@pytest.mark.parametrize(
    ("elements", "found"),
    [
        ({"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA"}, None),
        ({"Modality": "CR", "BodyPartExamined": "THORAX", "PatientAge": "045Y"}, None),
        ({"Modality": "MG"}, "Modality"),
        ({"Modality": "CT"}, "Modality"),
        ({"Modality": "OT"}, None),
        ({"Modality": "DX", "BodyPartExamined": "HAND"}, "BodyPartExamined"),
        ({"BodyPartExamined": "CHESTABDOMEN"}, None),
        ({"BodyPartExamined": "WHOLEBODY"}, None),
        ({"BodyPartExamined": ""}, None),
        ({"ViewPosition": "LL"}, "ViewPosition"),
        ({"ViewPosition": "AP"}, None),
        ({"PatientAge": "017Y"}, "PatientAge"),
        ({"PatientAge": "018Y"}, None),
        ({"PatientAge": "091Y"}, "PatientAge"),
        ({"PatientAge": ""}, None),
        ({}, None),
    ],
)
def test_films_made_by_hand(elements: dict[str, str], found: str | None, tmp_path: Path) -> None:
    path = written(tmp_path / "film.dcm", dicom(**elements))
    assert out_of_scope(path, CHEST) == found


def test_where_nothing_is_asked_nothing_contradicts(tmp_path: Path) -> None:
    path = written(tmp_path / "film.dcm", dicom(Modality="CT", BodyPartExamined="HAND"))
    assert out_of_scope(path, {}) is None
    assert out_of_scope(path, dict.fromkeys(CHEST)) is None
    assert out_of_scope(path, {"purpose": "teaching", "body_part": None}) is None


def test_what_is_no_readable_dicom_does_not_contradict(tmp_path: Path) -> None:
    whole = written(tmp_path / "film.dcm", dicom(Modality="CT")).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:300])
    (tmp_path / "text.dcm").write_bytes(b"no film at all")
    for name in ("cut.dcm", "text.dcm", "missing.dcm", "."):
        assert out_of_scope(tmp_path / name, CHEST) is None
    assert out_of_scope(tmp_path / "film.dcm", CHEST) == "Modality"


def test_no_value_of_the_header_is_returned_or_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "CANARY"
    wrong = dicom(PatientName=canary, PatientID=canary, BodyPartExamined="HAND", PatientAge="003Y")
    for key in ("body_part", "min_age_years"):
        found = out_of_scope(written(tmp_path / "film.dcm", wrong), {key: CHEST[key]})
        assert found in TAGS.values()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("groups", "said", "asked", "wrong"),
    [
        (BODY_PARTS, "CHEST", "Thorax", False),
        (BODY_PARTS, "C-SPINE", "chest", True),
        (BODY_PARTS, "CSPINE", "chest", True),
        (BODY_PARTS, "TSPINE", "chest", False),
        (BODY_PARTS, "HIP", "pelvis", False),
        (BODY_PARTS, "WRIST", "hand", False),
        (BODY_PARTS, "EXTREMITY", "wrist", False),
        (BODY_PARTS, "EXTREMITY", "chest", True),
        (BODY_PARTS, "BREAST", "chest of adults", True),
        (BODY_PARTS, "HAND", "anything but teeth or hand", False),
        (BODY_PARTS, "HAND", "liver", False),
        (MODALITIES, "RG", "computed radiography (CR)", False),
        (MODALITIES, "DX", "X-ray", False),
        (MODALITIES, "DX", "mammography", True),
        (MODALITIES, "MG", "digital mammography", False),
        (MODALITIES, "SC", "CT", False),
        (VIEWS, "RL", "lateral", False),
        (VIEWS, "LATERAL", "PA", True),
        (VIEWS, "AP", "PA", True),
        (VIEWS, "AP", "frontal", False),
        (VIEWS, "LL", "PA/lateral", False),
        (VIEWS, "RLD", "PA", True),
        (VIEWS, "HOUSE", "PA", False),
        (VIEWS, "PA", None, False),
    ],
)
def test_only_a_clear_contradiction_counts(
    groups: dict[str, frozenset[str]], said: str, asked: str | None, wrong: bool
) -> None:
    assert contradict(groups, said, asked) is wrong


@pytest.mark.parametrize(
    ("said", "youngest", "oldest", "outside"),
    [
        ("006M", 1, None, True),
        ("011M", 1, None, True),
        ("012M", 1, None, False),
        ("005Y", 1, 5, False),
        ("006Y", 1, 5, True),
        ("003D", None, 0, False),
        ("052W", None, 0, False),
        ("060W", None, 0, True),
        ("017y ", 18, None, True),
        ("", 18, 90, False),
        ("1e3Y", 18, 90, False),
        ("200Y", None, None, False),
    ],
)
def test_ages(said: str, youngest: float | None, oldest: float | None, outside: bool) -> None:
    assert outside_ages(said, youngest, oldest) is outside
