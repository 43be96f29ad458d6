"""The input gate and the intended use in `predict`."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom, written
from test_gated import run, strangers
from tiny_runs import TINY, Program, no_pictures, program, rows_of

__all__ = ["no_pictures", "program", "run", "strangers"]

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
