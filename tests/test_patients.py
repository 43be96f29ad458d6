"""Patient keys from file names, against names looked at by hand and a table made by others."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_classifier.data.patients import patient_of, patients_of, recognise
from xray_classifier.errors import DataError

SHARED = (Path(__file__).resolve().parents[1] / ".." / "shared" / "data").resolve()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("person1_virus_6.jpeg", "person1_virus"),
        ("person1_bacteria_2.jpeg", "person1_bacteria"),
        ("person1945_bacteria_4872.jpeg", "person1945_bacteria"),
        ("person23_virus_56_2.jpeg", "person23_virus"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0433-0001-0002.jpeg", "IM-0433"),
        ("NORMAL2-IM-0588-0001.jpeg", "NORMAL2-IM-0588"),
        ("NORMAL2-IM-0626-0001-0002.jpeg", "NORMAL2-IM-0626"),
        ("00000002_000.png", "00000002"),
        ("00030805_012.png", "00030805"),
        ("p0007_phantom-000012.png", "p0007"),
    ],
)
def test_names_of_each_known_scheme(name: str, key: str) -> None:
    patients = patients_of([f"train/NORMAL/{name}"], "auto")
    assert patients.keys == (key,)
    assert patients.known
    assert patients.scheme in ("kermany", "nih", "phantoms")
    assert patients.notes[0].startswith("patients: 1 in 1 images")


def test_virus_and_bacteria_numbers_are_different_people() -> None:
    keys = patients_of(["a/person1_virus_6.jpeg", "a/person1_bacteria_2.jpeg"], "auto").keys
    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    "name", ["scan.png", "person1.jpeg", "xIM-0115-0001.jpeg", "0000002_000.png", "a_00000002_000"]
)
def test_other_names_are_recognised_as_nothing(name: str) -> None:
    patients = patients_of([name, "b/" + name], "auto")
    assert patients.keys == (name, "b/" + name)
    assert not patients.known
    assert "each image counts as its own patient" in patients.notes[0]


def test_folders_do_not_make_a_name_match() -> None:
    assert recognise(["00000002_000.png/scan.png"]) is None
    assert recognise([]) is None


def test_nineteen_of_twenty_names_make_a_scheme_and_eighteen_do_not() -> None:
    named = [f"{n:08d}_000.png" for n in range(20)]
    accepted = patients_of([*named[:19], "scan.png"], "auto")
    assert accepted.scheme == "nih"
    assert accepted.keys[-1] == "scan.png"
    assert accepted.notes[1] == "1 images with other names count as a patient each"
    refused = patients_of([*named[:18], "scan.png", "scan2.png"], "auto")
    assert not refused.known
    assert "only 90% of the names look like NIH" in refused.notes[0]


def test_a_pattern_is_searched_in_the_whole_path() -> None:
    patients = patients_of(["sick/pat7/a.png", "healthy/pat12/a.png"], r"/pat(\d+)/")
    assert patients.keys == ("7", "12")
    assert patients.known
    assert patients.scheme is None


@pytest.mark.parametrize("pattern", [r"/pat(\d+)/", r"a(b*)\.png"])
def test_a_pattern_that_misses_an_image_is_refused(pattern: str) -> None:
    with pytest.raises(DataError, match=r"no patient in 1 of 2 paths, for example x/\\na\.png"):
        patients_of(["s/pat7/abb.png", "x/\na.png"], pattern)


def test_no_pattern_makes_each_image_its_own_patient() -> None:
    patients = patients_of(["00000002_000.png", "00000002_001.png"], None)
    assert len(set(patients.keys)) == 2
    assert not patients.known


def test_an_optional_group_that_is_absent_is_no_patient() -> None:
    assert patient_of("scan.png", r"(p\d+)?scan") is None


@given(st.lists(st.text(max_size=30), unique=True, max_size=20))
def test_any_names_give_one_key_each(names: list[str]) -> None:
    assert len(patients_of(names, "auto").keys) == len(names)


def test_agrees_with_the_published_patient_column() -> None:
    table = SHARED / "kermany_fullres" / "metadata.csv"
    if not table.exists():
        pytest.skip("needs ../shared/data/kermany_fullres")
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    keys = patients_of([row["path"] for row in rows], "auto").keys
    ours, theirs = dict.fromkeys(keys), dict.fromkeys(row["patient_id"] for row in rows)
    pairs = {(key, row["patient_id"]) for key, row in zip(keys, rows, strict=True)}
    assert len(pairs) == len(ours) == len(theirs)


def test_every_kermany_name_is_recognised() -> None:
    root = SHARED / "kermany224"
    if not root.exists():
        pytest.skip("needs ../shared/data/kermany224")
    names = [path.name for path in root.glob("*/*.jpeg")]
    assert len(names) == 5216
    assert recognise(names) == ("kermany", 1.0)
