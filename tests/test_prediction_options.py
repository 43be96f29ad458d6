"""Every format says the same under every option; names and patients go where they were asked to."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import dicom, written
from test_distributed import environment
from tiny_runs import Program, film, metadata_of, program, rows_in, rows_of, save_film, tiny_run

from xray_classifier import __version__, load_classifier
from xray_classifier.files import csv_row
from xray_classifier.prediction_facts import is_within
from xray_classifier.prediction_options import Prediction, name_hash
from xray_classifier.pseudonyms import pseudonym
from xray_classifier.run_facts import model_digest
from xray_classifier.scoring import Job, Scorer
from xray_classifier.studies import Studies

__all__ = ["program", "tiny_run"]

QUICK = "--no-isolate"
OPTIONS = ("--prevalence=0.1", "--hash-names", "--patient", "--study")
POSIX = pytest.mark.skipif(os.name == "nt", reason="such names cannot be made on Windows")
STUDIES = {"1.2.3": ("ANNA^CANARY", 2), "1.2.4": ("BERTA^CANARY", 1)}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, DICOM films of two studies and of none, and files that are no film."""
    root = tmp_path_factory.mktemp("films")
    for number, name in enumerate(("=1+1.png", "a,b.png", "é.png", 'q"uote.png')):
        save_film(root / name, number)
    seed = 10
    for study, (patient, count) in STUDIES.items():
        for number in range(count):
            seed += 1
            film_12_bits = film(seed).astype(np.uint16) * 16
            elements = {"StudyInstanceUID": study, "SOPInstanceUID": f"{study}.{number}"}
            dataset = dicom(film_12_bits, PatientID=patient, **elements)
            written(root / f"{study}.{number}.dcm", dataset)
    two_frames = dicom(
        film(3).astype(np.uint16), PatientID="ANNA^CANARY", StudyInstanceUID="1.2.3",
        SOPInstanceUID="1.2.3.9", NumberOfFrames=2,
    )  # fmt: skip
    written(root / "frames.dcm", two_frames)
    (root / "notes.txt").write_text("no film")
    return root


def truth(run: Path, films: Path, options: tuple[str, ...]) -> list[dict[str, Any]]:
    """What the rows must say, from the model itself and from what the films were made of."""
    files = sorted(films.iterdir(), key=lambda path: os.fsencode(path.name))
    prevalence = 0.1 if OPTIONS[0] in options else None
    table = load_classifier(run, "cpu", prevalence=prevalence).predict(files)
    rows = []
    for path, answer in zip(files, table.to_dict("records"), strict=True):
        row = {k: None if v != v else v for k, v in answer.items()}
        row["path"] = name_hash(str(path)) if "--hash-names" in options else str(path)
        study = next((uid for uid in STUDIES if path.name.startswith(uid)), "")
        study = "1.2.3" if path.name == "frames.dcm" else study
        if "--patient" in options:
            row["patient"] = pseudonym(STUDIES[study][0]) if study else ""
        if "--study" in options:
            sop = "1.2.3.9" if path.name == "frames.dcm" else path.stem
            row |= {"study_uid": study, "sop_uid": sop if study else ""}
        rows.append(row)
    return rows


def as_csv(rows: list[dict[str, Any]]) -> str:
    return csv_row(rows[0]) + "".join(csv_row(row.values()) for row in rows)


@pytest.mark.parametrize(
    "options",
    [some for n in range(len(OPTIONS) + 1) for some in itertools.combinations(OPTIONS, n)],
    ids=lambda options: "+".join(options) or "none",
)
def test_every_format_says_the_same_under_every_option(
    options: tuple[str, ...], films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    expected = truth(tiny_run, films, options)
    words = ("predict", tiny_run, films, QUICK, *options, "-o")
    for name in ("p.csv", "p.jsonl", "p.parquet"):
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow", reason="the extra [parquet] is not installed")
        assert program(*words, tmp_path / name, "--force").code == 4
    assert (tmp_path / "p.csv").read_text(encoding="utf-8") == as_csv(expected)
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected
    assert program(*words, "-").out == as_csv(expected)
    shown = program(*words, "-", "--format", "jsonl").out
    assert [json.loads(line) for line in shown.splitlines()] == expected
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pylist() == expected


def test_numbers_are_numbers_in_every_format(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra [parquet] is not installed")
    import pyarrow.parquet as parquet

    program("predict", tiny_run, films, "-o", tmp_path / "p.parquet", QUICK, "--study")
    kinds = {f.name: f.type for f in parquet.read_schema(tmp_path / "p.parquet")}
    numbers = {name for name, kind in kinds.items() if kind == pyarrow.float64()}
    assert numbers == {"p_sick", "threshold", "p_raw", "logit", "ood_score"}
    assert {kind for name, kind in kinds.items() if name not in numbers} == {pyarrow.string()}


@POSIX
def test_names_come_back_from_json_lines_to_the_last_byte(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    names = [
        b"bad\xff\xfe.png",
        b"line\nbreak",
        b"\x1b[31m",
        b"\xc3\xa9",
        b"=1+1",
        b" end ",
        b"\x7f",
    ]
    (tmp_path / "in").mkdir()
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/" + name)).touch()
    program("predict", tiny_run, tmp_path / "in", "-o", tmp_path / "p.jsonl", QUICK)
    text = (tmp_path / "p.jsonl").read_bytes()
    assert text.isascii()
    assert b"\x1b" not in text
    found = [os.fsencode(json.loads(line)["path"]) for line in text.splitlines()]
    assert found == [os.fsencode(tmp_path) + b"/in/" + name for name in sorted(names)]


@POSIX
@pytest.mark.parametrize("more", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_any_name_in_the_plainest_locale(
    more: dict[str, str], tiny_run: Path, tmp_path: Path
) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/in")  # noqa: PTH102 - a name in bytes
    path = os.fsencode(tmp_path) + b"/in/\xc3\xa9\xff\n.png"
    save_film(tmp_path / "film.png", 1).rename(os.fsdecode(path))
    words = ["predict", tiny_run, tmp_path / "in", "-o", "-", "--format", "jsonl", "-q"]
    said = subprocess.run(
        [sys.executable, "-m", "xray_classifier", *map(str, words)],
        env=environment() | {"PYTHONCOERCECLOCALE": "0"} | more,
        capture_output=True,
    )
    assert (said.returncode, said.stderr) == (0, b"")
    [row] = [json.loads(line) for line in said.stdout.splitlines()]
    assert row["status"] == "ok"
    assert row["path"].endswith("\udcff\n.png")


@POSIX
def test_hashed_names_stand_nowhere(
    tiny_run: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the table, the facts, the kept rows, what is said, or an error."""
    root = tmp_path / "CANARY"
    save_film(root / "CANARY-1.png", 1)
    (root / "CANARY.txt").write_text("x")
    (root / "CANARY.lnk").symlink_to(root / "CANARY-gone")
    (tmp_path / "CANARY.list").write_text("CANARY/CANARY-1.png\n")
    (tmp_path / "CANARY.csv").write_text("path\nCANARY/CANARY-1.png\n../CANARY\n")
    (tmp_path / "bad-CANARY.csv").write_text("file\nx\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    inputs = ("CANARY", "@CANARY.list", "CANARY.csv")
    words = ("predict", tiny_run, *inputs, "-o", "out/p.csv", "--hash-names", "--only-new", QUICK)
    said = program(*words)
    assert said.code == 4
    for file in (tmp_path / "out").iterdir():
        assert "CANARY" not in file.read_text(), file.name
    assert "CANARY" not in said.out + said.err
    rows = rows_of(tmp_path / "out" / "p.csv")
    assert rows[0]["path"] == name_hash("CANARY/CANARY-1.png") == rows[2]["path"]
    assert len({row["path"] for row in rows}) == 3
    meta = json.loads((tmp_path / "out" / "p.meta.json").read_text())
    assert meta["command"][3:6] == [
        name_hash("CANARY"), "@" + name_hash("CANARY.list"), name_hash("CANARY.csv"),
    ]  # fmt: skip
    for wrong in ("CANARY-none", "@CANARY-none", "bad-CANARY.csv"):
        said = program("predict", tiny_run, wrong, "-o", "out/q.csv", "--hash-names")
        assert said.code in (2, 3)
        assert "CANARY" not in said.out + said.err


def test_hashes_of_names_tell_blanks_and_patients_apart() -> None:
    names = ["a", "a ", " a", "a\n", "", "A"]
    assert len({name_hash(name) for name in names}) == len(names)
    assert name_hash("a") == name_hash("a")
    assert name_hash("a") != pseudonym("a")


def test_no_patient_stands_in_what_is_written_or_said(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    words = ("--patient", "--study", "--only-new", QUICK)
    said = program("predict", tiny_run, films, "-o", tmp_path / "p.csv", *words)
    assert "CANARY" not in said.out + said.err
    for file in tmp_path.iterdir():
        assert "CANARY" not in file.read_text(), file.name
    patients = {row["patient"] for row in rows_of(tmp_path / "p.csv")} - {""}
    assert patients == {pseudonym(patient) for patient, _ in STUDIES.values()}


@pytest.mark.parametrize(
    ("pattern", "path", "patient"),
    [
        (r"/(p\d+)/", "x/p12/a.png", "p12"),
        (r"/(p\d+)/", "x/q12/a.png", None),
        ("auto", "x/person1_virus_6.jpeg", "person1_virus"),
        ("auto", "x/IM-0433-0001-0002.jpeg", "IM-0433"),
        ("auto", "x/00000002_000.png", "00000002"),
        ("auto", "x/photo.png", None),
        ("nih", "x/00000002_000.png", "00000002"),
        ("dicom", "x/00000002_000.png", None),
        (None, "x/00000002_000.png", None),
    ],
)
def test_a_patient_may_stand_in_the_path(
    pattern: str | None, path: str, patient: str | None, tiny_run: Path
) -> None:
    classifier = load_classifier(tiny_run, "cpu")
    classifier.content["data"]["patient"] = pattern  # type: ignore[index]
    found = Scorer(classifier, patient=True)._named_patient(path)
    assert found == patient
    assert Job(0, path, path, "", (0, 0)).path == path  # type: ignore[arg-type]


def test_studies_are_added_up(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    words = ("--study", "--threshold", "0.5", QUICK)
    program("predict", tiny_run, films, "-o", tmp_path / "p.csv", *words)
    rows = [row for row in rows_of(tmp_path / "p.csv") if row["study_uid"]]
    studies = {row["study_uid"]: row for row in rows_of(tmp_path / "p.studies.csv")}
    assert list(studies) == ["1.2.3", "1.2.4"]
    for uid, study in studies.items():
        own = [row for row in rows if row["study_uid"] == uid]
        scores = [float(row["p_sick"]) for row in own if row["status"] == "ok"]
        assert int(study["images"]) == len(own)
        assert int(study["ok"]) == len(scores)
        assert float(study["p_sick_mean"]) == pytest.approx(np.mean(scores))
        assert float(study["p_sick_max"]) == max(scores)
    assert studies["1.2.3"]["images"] == "3"
    assert studies["1.2.3"]["ok"] == "2"


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        (["healthy", "sick"], "sick"),
        (["healthy", "healthy"], "healthy"),
        (["healthy", "refer"], "refer"),
        (["sick", "refer", None], "sick"),
        (["healthy", None], "refer"),
        ([None, None], None),
    ],
)
def test_a_study_is_sick_where_any_film_is(
    decisions: list[str | None], expected: str | None
) -> None:
    """A film without an answer keeps a study from being called healthy."""
    studies = Studies(("path", "status", "p_sick", "decision", "study_uid"))
    for decision in decisions:
        ok = decision is not None
        studies.add(("x", "ok" if ok else "failed", 0.5 if ok else None, decision, "1.2"))
    studies.add(("x", "ok", 0.9, "sick", ""))
    assert [row[-1] for row in studies.rows()] == [expected]


def test_studies_of_a_model_that_predicts_a_number() -> None:
    studies = Studies(("path", "status", "prediction", "study_uid"))
    for number in (1.0, 4.0, None):
        studies.add(("x", "failed" if number is None else "ok", number, "1.2"))
    assert dict(zip(studies.columns, studies.rows()[0], strict=True)) == {
        "study_uid": "1.2", "images": 3, "ok": 2, "prediction_mean": 2.5, "prediction_max": 4.0,
    }  # fmt: skip


def test_the_facts_say_what_answered_and_how_it_went(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    out = tmp_path / "p.csv"
    said = program("predict", tiny_run, films, "-o", out, "--threshold", "0.4", QUICK)
    meta = json.loads((tmp_path / "p.meta.json").read_text())
    content = metadata_of(tiny_run / "checkpoints" / "best.safetensors")
    model = meta["model"]
    assert model["path"] == str(tiny_run)
    assert model["sha256"] == model_digest(tiny_run / "checkpoints" / "best.safetensors")
    assert model["threshold"] == {"value": 0.4, "policy": "fixed"}
    assert model["calibration"] == content["calibration"]
    rows = rows_of(out)
    assert (meta["version"], meta["n"], meta["exit_code"]) == (__version__, len(rows), said.code)
    for column in ("status", "reason", "decision"):
        values = [row[column] for row in rows if row[column]]
        assert meta["counts"][column] == {value: values.count(value) for value in set(values)}
    assert meta["columns"] == list(rows[0])
    assert meta["command"] == [
        "xray-classifier", "predict", str(tiny_run), str(films), "-o", str(out), "--threshold",
        "0.4", QUICK,
    ]  # fmt: skip
    assert meta["started"] <= meta["finished"]
    assert meta["finished"].endswith("+00:00")


@pytest.mark.parametrize(
    ("count", "n", "limit", "within"),
    [
        (0, 0, "0", True), (1, 9, "0", False), (5, 9, "5", True), (6, 9, "5", False),
        (1, 10, "10%", True), (2, 10, "10%", False), (1, 3, "33.4%", True), (1, 3, "33.3%", False),
        (0, 0, "10%", True), (7, 7, "100%", True),
    ],
)  # fmt: skip
def test_limits_are_numbers_or_shares(count: int, n: int, limit: str, within: bool) -> None:
    assert is_within(count, n, limit) == within


def test_a_gate_gives_its_score_and_refuses(tiny_run: Path) -> None:
    classifier = load_classifier(tiny_run, "cpu")
    films = [classifier.attempt(film(number)) for number in range(3)]

    def gate(images: Any, signatures: Any) -> tuple[list[float], list[str]]:
        assert len(images) == len(signatures) == 3
        return [0.1, 2.5, 0.3], ["", "out_of_distribution", ""]

    rows = [
        dict(zip(classifier.columns, row, strict=True))
        for row in classifier.rows("abc", films, gate)
    ]
    assert [row["ood_score"] for row in rows] == [0.1, 2.5, 0.3]
    assert [row["status"] for row in rows] == ["ok", "rejected", "ok"]
    assert rows[1]["reason"] == "out_of_distribution"
    assert rows[1]["p_sick"] is rows[1]["decision"] is None
    plain = [
        dict(zip(classifier.columns, row, strict=True)) for row in classifier.rows("abc", films)
    ]
    assert [row["ood_score"] for row in plain] == [None] * 3
    assert rows[0] == plain[0] | {"ood_score": 0.1}


def test_a_name_is_shown_as_asked() -> None:
    assert Prediction().row_name("a\nb") == "a\nb"
    assert Prediction().shown("a\nb") == "a\\nb"
    assert Prediction(hash_names=True).row_name("a") == name_hash("a")
    assert len(rows_in("a,b\n1,2\n")) == 1
