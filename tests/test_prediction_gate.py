"""The input gate and the intended use in `predict`."""

import json
from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom, written
from test_gated import run, strangers
from tiny_runs import TINY, Program, class_folders, no_pictures, program, rows_of, tiny_run

from xray_classifier import load_classifier

__all__ = ["no_pictures", "program", "run", "strangers", "tiny_run"]

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_warn_scores_and_refuse_gives_a_reason_and_no_answer(
    run: Path, strangers: Path, tmp_path: Path, program: Program
) -> None:
    warned = program("predict", run, strangers, "-o", tmp_path / "w.csv")
    assert warned.code == 0
    assert "unlike the training data" in warned.out
    refused = program("predict", run, strangers, "-o", tmp_path / "r.csv", "--gate", "refuse")
    assert refused.code == 4
    off = program("predict", run, strangers, "-o", tmp_path / "o.csv", "--gate", "off")
    assert off.code == 0
    tables = [rows_of(tmp_path / name) for name in ("w.csv", "r.csv", "o.csv")]
    n_refused = 0
    for w, r, o in zip(*tables, strict=True):
        assert w["path"] == r["path"] == o["path"]
        assert (w["p_sick"], w["decision"]) == (o["p_sick"], o["decision"])
        assert o["ood_score"] == ""
        assert w["ood_score"] == r["ood_score"]
        if float(w["ood_score"]) > 1:
            n_refused += 1
            assert (r["status"], r["p_sick"], r["decision"]) == ("rejected", "", "")
            assert r["reason"]
        else:
            assert r == w
    assert n_refused >= 10


def test_scores_do_not_depend_on_neighbours(
    run: Path, strangers: Path, tmp_path: Path, program: Program
) -> None:
    program("predict", run, strangers, "-o", tmp_path / "all.csv")
    every = {row["path"]: row for row in rows_of(tmp_path / "all.csv")}
    some = sorted(strangers.rglob("*.png"))[::-3]
    program("predict", run, *some, "-o", tmp_path / "some.csv")
    for row in rows_of(tmp_path / "some.csv"):
        assert row == every[row["path"]]


def test_a_header_that_contradicts_the_intended_use_is_out_of_scope(
    tmp_path: Path, program: Program
) -> None:
    program("train", "-c", "demo", "-q", "-o", tmp_path, *TINY, "intended_use.body_part=chest")
    [model] = tmp_path.glob("*_demo")
    films = tmp_path / "films"
    films.mkdir()
    pixels = np.random.default_rng(0).integers(0, 4095, (32, 32)).astype(np.uint16)
    for name, part in (("a.dcm", "CHEST"), ("b.dcm", "HAND"), ("c.dcm", None)):
        more = {} if part is None else {"BodyPartExamined": part}
        written(films / name, dicom(pixels, **more))
    assert program("predict", model, films, "-o", tmp_path / "p.csv").code == 4
    rows = {Path(row["path"]).name: row for row in rows_of(tmp_path / "p.csv")}
    assert (rows["b.dcm"]["status"], rows["b.dcm"]["reason"]) == ("rejected", "out_of_scope")
    assert rows["b.dcm"]["p_sick"] == ""
    assert rows["a.dcm"]["status"] == rows["c.dcm"]["status"] == "ok"
    assert program("predict", model, films, "-o", tmp_path / "q.csv", "--gate", "off").code == 0
    classifier = load_classifier(model, "cpu")
    paths = sorted(films.iterdir())
    assert list(classifier.predict(paths).reason) == ["", "out_of_scope", ""]
    assert list(classifier.predict(paths, gate="off").reason) == ["", "", ""]
    assert classifier.predict([pixels]).status[0] == "ok"  # an array has no header


def test_an_evaluation_leaves_out_what_the_model_is_not_meant_for(
    tmp_path: Path, program: Program
) -> None:
    program("train", "-c", "demo", "-q", "-o", tmp_path, *TINY, "intended_use.max_age_years=70")
    [model] = tmp_path.glob("*_demo")
    ages = {"healthy": ("030Y", "045Y", "071Y"), "sick": ("069Y", "070Y", "099Y")}
    for label, found in ages.items():
        (tmp_path / "films" / label).mkdir(parents=True)
        for place, age in enumerate(found):
            pixels = np.random.default_rng(place).integers(0, 4095, (32, 32)).astype(np.uint16)
            written(
                tmp_path / "films" / label / f"{place}.dcm",
                dicom(pixels, PatientAge=age, PatientID=f"{label}{place}"),
            )
    words = ("evaluate", model, "--data", tmp_path / "films")
    said = program(*words, "-o", tmp_path / "o")
    assert said.code == 4
    assert "2 images are none that this model is meant for" in said.out
    content = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert (content["n"], content["coverage"]["rejected"]) == (4, 2)
    reasons = {r["path"]: r["reason"] for r in rows_of(tmp_path / "o" / "predictions.csv")}
    assert {path for path, why in reasons.items() if why == "out_of_scope"} == {
        "healthy/2.dcm",
        "sick/2.dcm",
    }
    assert program(*words, "-o", tmp_path / "q", "--gate", "off").code == 0


def test_a_model_without_a_gate_promises_no_refusal(
    tiny_run: Path, strangers: Path, tmp_path: Path, program: Program
) -> None:
    from xray_classifier.checkpoint import load_checkpoint, save_checkpoint

    found = load_checkpoint(tiny_run / "checkpoints" / "best.safetensors")
    tensors = {name: t for name, t in found.tensors.items() if not name.startswith("gate.")}
    content = {key: value for key, value in found.content.items() if key != "gate"}
    written_anew = ("format", "format_version")
    bare = tmp_path / "bare.safetensors"
    save_checkpoint(bare, tensors, {k: v for k, v in content.items() if k not in written_anew})
    assert load_classifier(bare, "cpu").gate is None
    for verb in (("predict", bare, strangers), ("evaluate", bare, "--data", strangers)):
        said = program(*verb, "-o", tmp_path / "x", "--gate", "refuse")
        assert said.code == 5
        assert "no input gate" in said.err
    assert program("predict", bare, strangers, "-o", tmp_path / "y.csv").code == 0


def test_what_predict_writes_is_no_input_of_the_next_night(
    tiny_run: Path, strangers: Path, program: Program
) -> None:
    words = ("predict", tiny_run, strangers, "-o", strangers / "p.csv", "--only-new")
    assert program(*words).code == 0
    first = (strangers / "p.csv").read_bytes()
    said = program(*words, "--json")
    assert said.code == 0
    assert said.json["reused"] == said.json["n"] == 20
    assert (strangers / "p.csv").read_bytes() == first


def test_a_copy_that_keeps_size_and_time_is_new(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    import os
    import shutil

    films = class_folders(tmp_path / "films", {"x": 2})
    one, two = films / "x" / "film000.png", films / "x" / "film001.png"
    size = max(one.stat().st_size, two.stat().st_size)
    for path in (one, two):
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, (1_600_000_000, 1_600_000_000))
    words = ("predict", tiny_run, one, "-o", tmp_path / "p.csv", "--only-new", "--json")
    before = rows_of(tmp_path / "p.csv") if program(*words).code == 0 else []
    shutil.copy2(two, one)
    assert program(*words).json["reused"] == 0
    assert rows_of(tmp_path / "p.csv")[0]["p_sick"] != before[0]["p_sick"]


def test_a_table_of_the_same_stem_is_not_ours_to_replace(
    tiny_run: Path, strangers: Path, tmp_path: Path, program: Program
) -> None:
    program("predict", tiny_run, strangers, "-o", tmp_path / "labels.csv")
    (tmp_path / "labels.jsonl").write_text("mine\n")
    said = program("predict", tiny_run, strangers, "-o", tmp_path / "labels.jsonl", "--only-new")
    assert said.code == 6
    assert (tmp_path / "labels.jsonl").read_text() == "mine\n"


def test_the_facts_say_which_gate_was_at_work(
    run: Path, strangers: Path, tmp_path: Path, program: Program
) -> None:
    import json

    program("predict", run, strangers, "-o", tmp_path / "p.csv", "--gate", "refuse")
    facts = json.loads((tmp_path / "p.meta.json").read_text())
    assert facts["gate"]["mode"] == "refuse"
    assert facts["gate"]["off"] is None
    assert facts["gate"]["unlike_the_training_data"] >= 10


def test_a_header_is_not_repeated_where_names_are_hashed(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    table = tmp_path / "l.csv"
    table.write_text("SMITH^JOHN_1960/a.jpeg\nb.jpeg\n")
    said = program("predict", tiny_run, table, "-o", tmp_path / "t.csv", "--hash-names")
    assert said.code == 3
    assert "SMITH" not in said.err + said.out
