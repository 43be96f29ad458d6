"""`predict`: one row per file, in order, whatever is wrong with the file."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import (
    Program,
    film,
    metadata_of,
    program,
    rows_in,
    rows_of,
    save_film,
    snapshot,
    tiny_run,
)

from xray_classifier import scoring
from xray_classifier.classifier import Classifier, load_classifier
from xray_classifier.data.boundary import REASONS
from xray_classifier.signals import StopNow

__all__ = ["program", "tiny_run"]

NUMBERS = ["p_sick", "threshold", "p_raw", "logit"]
COLUMNS = [
    "path", "status", "reason", "p_sick", "decision", *NUMBERS[1:], "in_training", "ood_score",
]  # fmt: skip


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """Good films, bad files and odd names, in folders."""
    root = tmp_path / "batch"
    for number, name in enumerate(("b/1.png", "a/1.png", "B.png", "a/z.png", "é.png", "a b.png")):
        save_film(root / name, number)
    (root / "a" / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_text("no image")
    whole = (root / "B.png").read_bytes()
    (root / "cut.png").write_bytes(whole[:-30])
    np.savez(root / "set.npz", train_images=np.zeros((2, 4, 4)))
    frames = [Image.fromarray(film(number)) for number in range(3)]
    frames[0].save(root / "film.gif", save_all=True, append_images=frames[1:])
    Image.new("L", (20, 20), 7).save(root / "blank.png")
    save_film(root / ".hidden" / "x.png", 9)
    (root / ".DS_Store").write_bytes(b"x")
    return root


def visible(root: Path) -> list[str]:
    """Every file that is not hidden, bytewise by relative path."""
    files = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
    shown = [f for f in files if not any(part.startswith(".") for part in f.split("/"))]
    return sorted(shown, key=os.fsencode)


def test_every_file_has_one_row_in_bytewise_order(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    out = tmp_path / "p.csv"
    said = program("predict", tiny_run, batch, "-o", out)
    assert said.code == 4
    assert out.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    rows = rows_of(out)
    assert [row["path"] for row in rows] == [str(batch / name) for name in visible(batch)]
    status = {Path(row["path"]).relative_to(batch).as_posix(): row for row in rows}
    assert {n: (r["status"], r["reason"]) for n, r in status.items() if r["status"] != "ok"} == {
        "a/empty.png": ("failed", "empty_file"),
        "blank.png": ("rejected", "blank"),
        "cut.png": ("failed", "truncated"),
        "film.gif": ("rejected", "multi_image"),
        "notes.txt": ("failed", "not_an_image"),
        "set.npz": ("rejected", "multi_image"),
    }
    assert all(not r["reason"] or r["reason"] in REASONS for r in rows)
    for row in rows:
        empty = [not row[c] for c in COLUMNS[3:-1]]
        assert empty == [row["status"] != "ok"] * len(empty)
    assert "2 hidden ones passed over" in said.out
    assert "3 failed and 3 rejected" in said.out
    assert "truncated: 1" in said.out


def test_the_numbers_are_those_of_the_checkpoint_and_of_python(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    program("predict", tiny_run, batch, "-o", tmp_path / "p.csv")
    content = metadata_of(tiny_run / "checkpoints" / "best.safetensors")
    c, threshold = content["calibration"], content["threshold"]["value"]
    rows = [row for row in rows_of(tmp_path / "p.csv") if row["status"] == "ok"]
    assert len(rows) == 6
    for row in rows:
        logit, p_sick = float(row["logit"]), float(row["p_sick"])
        assert float(row["p_raw"]) == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-12)
        calibrated = 1 / (1 + np.exp(-(c["slope"] * logit + c["intercept"])))
        assert p_sick == pytest.approx(calibrated, rel=1e-12)
        assert float(row["threshold"]) == threshold
        assert row["decision"] == ("sick" if p_sick >= threshold else "healthy")
    table = load_classifier(tiny_run, "cpu").predict([row["path"] for row in rows])
    assert list(table.columns) == COLUMNS
    assert [repr(p) for p in table["p_sick"].tolist()] == [row["p_sick"] for row in rows]


def test_a_film_is_scored_as_evaluate_scores_it(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    """Not one probability for all: two different films, two different answers."""
    for number in range(6):
        save_film(tmp_path / "in" / f"{number}.png", number)
    program("predict", tiny_run, tmp_path / "in", "-o", tmp_path / "p.csv")
    answers = {row["p_sick"] for row in rows_of(tmp_path / "p.csv")}
    assert len(answers) == 6
    assert all(0 < float(p) < 1 for p in answers)


def test_paths_are_as_given_in_the_order_given(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = program(
        "predict", tiny_run, "batch/é.png", "batch/b", "batch/a", "batch/b/1.png", "-o", "-"
    )
    assert said.code == 4
    rows = rows_in(said.out)
    assert [row["path"] for row in rows] == [
        "batch/é.png", "batch/b/1.png", "batch/a/1.png", "batch/a/empty.png", "batch/a/z.png",
        "batch/b/1.png",
    ]  # fmt: skip
    same = [row["p_sick"] for row in rows if row["path"].endswith("/1.png")]
    assert same[0] == same[2] != same[1]


def test_bad_files_change_nothing_for_their_neighbours(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    program("predict", tiny_run, batch, "-o", tmp_path / "dirty.csv")
    for row in rows_of(tmp_path / "dirty.csv"):
        if row["status"] != "ok":
            Path(row["path"]).unlink()
    assert program("predict", tiny_run, batch, "-o", tmp_path / "clean.csv").code == 0
    dirty = [row for row in rows_of(tmp_path / "dirty.csv") if row["status"] == "ok"]
    assert rows_of(tmp_path / "clean.csv") == dirty


@pytest.mark.parametrize("window", [1, 3])
def test_answers_do_not_depend_on_windows_threads_or_order(
    window: int,
    batch: Path,
    tiny_run: Path,
    tmp_path: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program("predict", tiny_run, batch, "-o", tmp_path / "whole.csv", "-j", 1)
    monkeypatch.setattr(scoring, "INFERENCE_ROWS", window)
    program("predict", tiny_run, batch, "-o", tmp_path / "parts.csv", "-j", 3)
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    backwards = [batch / name for name in reversed(visible(batch))]
    program("predict", tiny_run, *backwards, "-o", tmp_path / "back.csv")
    assert rows_of(tmp_path / "back.csv") == rows_of(tmp_path / "whole.csv")[::-1]


def test_an_existing_table_is_kept_unless_forced(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    out = tmp_path / "p.csv"
    out.write_text("precious")
    said = program("predict", tiny_run, batch / "B.png", "-o", out)
    assert said.code == 6
    assert "--force" in said.err
    assert out.read_text() == "precious"
    assert program("predict", tiny_run, batch / "B.png", "-o", out, "--force").code == 0
    assert len(rows_of(out)) == 1


def test_standard_output_holds_the_table_alone(
    batch: Path, tiny_run: Path, program: Program
) -> None:
    said = program("predict", tiny_run, batch, "-o", "-")
    assert said.out.startswith(",".join(COLUMNS) + "\n")
    assert len(rows_in(said.out)) == 12
    assert "scored" in said.err
    both = program("predict", tiny_run, batch, "-o", "-", "--json")
    assert both.code == 2
    assert both.json["error"]["exit_code"] == 2


def test_json_counts_files_and_keeps_prose_off_standard_output(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    said = program("predict", tiny_run, batch, "-o", tmp_path / "p.csv", "--json")
    rows = rows_of(tmp_path / "p.csv")
    assert said.json == {
        "out": str(tmp_path / "p.csv"),
        "meta": str(tmp_path / "p.meta.json"),
        "n": 12,
        "ok": 6,
        "failed": 3,
        "rejected": 3,
        "sick": sum(row["decision"] == "sick" for row in rows),
        "referred": 0,
        "reused": 0,
        "exit_code": 4,
    }
    assert "12 files" in said.err


def test_jsonl_says_what_csv_says(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    program("predict", tiny_run, batch, "-o", tmp_path / "p.csv")
    program("predict", tiny_run, batch, "-o", tmp_path / "p.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    rows = rows_of(tmp_path / "p.csv")
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert list(line) == COLUMNS
        shown = {
            k: "" if v is None else v if isinstance(v, str) else repr(v) for k, v in line.items()
        }
        assert shown == row
    flagged = program("predict", tiny_run, batch, "-o", "-", "--format", "jsonl")
    assert flagged.out == (tmp_path / "p.jsonl").read_text()


def test_parquet_says_what_csv_says(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    pytest.importorskip("pyarrow", reason="the extra [parquet] is not installed")
    import pandas

    program("predict", tiny_run, batch, "-o", tmp_path / "p.csv")
    program("predict", tiny_run, batch, "-o", tmp_path / "p.parquet")
    frame = pandas.read_parquet(tmp_path / "p.parquet")
    assert list(frame.columns) == COLUMNS
    rows = rows_of(tmp_path / "p.csv")
    assert frame["path"].tolist() == [row["path"] for row in rows]
    for name in NUMBERS:
        expected = [float(row[name]) if row[name] else np.nan for row in rows]
        np.testing.assert_array_equal(frame[name].to_numpy(float), expected)
    said = program("predict", tiny_run, batch, "-o", "-", "--format", "parquet")
    assert said.code == 2


@pytest.mark.skipif(os.name == "nt", reason="such names cannot be made on Windows")
def test_hostile_names_are_rows_like_any_other(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    root = tmp_path / "in"
    names = [
        b"=HYPERLINK(1).png", b"line\nbreak.png", b"cr\rx.png", b"bad\xff.png", b"\x1b[31m.png",
        b"-1.png", b'q"uote.png', b"a,b.png", "x\u202egnp".encode(), b"l" * 251 + b".png",
    ]  # fmt: skip
    for number, name in enumerate(names):
        root.mkdir(exist_ok=True)
        Image.fromarray(film(number)).save(tmp_path / "film.png")
        (tmp_path / "film.png").rename(root / os.fsdecode(name))
    said = program("predict", tiny_run, root, "-o", tmp_path / "p.csv")
    assert said.code == 0
    rows = rows_of(tmp_path / "p.csv")
    expected = [
        str(root / os.fsdecode(name)).encode("utf-8", "backslashreplace").decode()
        for name in sorted(names)
    ]
    assert [row["path"] for row in rows] == expected
    assert {row["status"] for row in rows} == {"ok"}
    inside = Path.cwd()
    os.chdir(root)
    try:
        said = program("predict", tiny_run, "./=HYPERLINK(1).png", "--", "-1.png", "-o", "-")
        said = program("predict", tiny_run, "-o", "-", "--", "=HYPERLINK(1).png", "-1.png")
    finally:
        os.chdir(inside)
    assert [row["path"] for row in rows_in(said.out)] == ["'=HYPERLINK(1).png", "'-1.png"]
    program("predict", tiny_run, root, "-o", tmp_path / "p.jsonl")
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(names)
    assert "\x1b" not in (tmp_path / "p.jsonl").read_text(encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="such names cannot be made on Windows")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_standard_output_takes_any_name_in_any_encoding(
    encoding: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xray_classifier.cli import main

    Image.fromarray(film(0)).save(tmp_path / "film.png")
    (tmp_path / "film.png").rename(tmp_path / os.fsdecode(b"b\xff\xc3\xa9.png"))
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, errors="strict"))
    assert main(["predict", str(tiny_run), str(tmp_path), "-o", "-"]) == 0
    assert b"b\\udcff" in raw.getvalue()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_links_and_loops_are_not_followed(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    root = tmp_path / "in"
    save_film(root / "a.png", 0)
    save_film(tmp_path / "outside" / "secret.png", 1)
    os.mkfifo(root / "pipe.png")
    (root / "loop").symlink_to(root)
    (root / "out.png").symlink_to(tmp_path / "outside" / "secret.png")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "dangling.png").symlink_to(root / "nowhere")
    program("predict", tiny_run, root, "-o", tmp_path / "p.csv")
    assert [row["path"] for row in rows_of(tmp_path / "p.csv")] == [str(root / "a.png")]
    said = program("predict", tiny_run, root / "pipe.png", root / "dangling.png", "-o", "-")
    assert said.code == 4
    assert [r["reason"] for r in rows_in(said.out)] == ["not_a_file", "not_found"]


def interrupted_at(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the second window of files end in an error."""
    monkeypatch.setattr(scoring, "INFERENCE_ROWS", 4)
    rows = Classifier.rows
    calls: list[int] = []

    def once(self: Classifier, names: list[str], prepared: list[Any], gate: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return rows(self, names, prepared, gate)

    monkeypatch.setattr(Classifier, "rows", once)


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (StopNow("SIGTERM"), 75), (RuntimeError("a bug"), 1)],
)
def test_an_end_in_the_middle_leaves_no_table_and_loses_no_row(
    error: BaseException,
    code: int,
    batch: Path,
    tiny_run: Path,
    tmp_path: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    program("predict", tiny_run, batch, "-o", tmp_path / "whole.csv")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # the log of a bug
    with monkeypatch.context() as patched:
        interrupted_at(patched, error)
        said = program("predict", tiny_run, batch, "-o", target / "p.csv")
    assert said.code == code
    assert code == 1 or "the same command goes on" in said.err
    assert [path.name for path in target.iterdir()] == [".p.csv.rows"]
    said = program("predict", tiny_run, batch, "-o", target / "p.csv", "--json")
    assert said.code == 4
    assert said.json["reused"] == 4
    assert sorted(path.name for path in target.iterdir()) == ["p.csv", "p.meta.json"]
    assert (target / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_end_in_the_middle_keeps_the_old_table(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.csv"
    out.write_text("yesterday")
    interrupted_at(monkeypatch, KeyboardInterrupt())
    assert program("predict", tiny_run, batch, "-o", out, "--force").code == 130
    assert out.read_text() == "yesterday"


@pytest.mark.parametrize("out", ["absent/p.csv", ".", "l" * 300])
def test_a_table_that_cannot_be_written_is_refused_at_once(
    out: str, batch: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    said = program("predict", tiny_run, batch, "-o", tmp_path / out)
    assert said.code == 6
    assert said.err.startswith("error: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_device_is_never_replaced_by_a_file(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    os.mkfifo(tmp_path / "pipe")
    said = program("predict", tiny_run, batch, "-o", tmp_path / "pipe", "--force")
    assert said.code == 6
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["absent", "l" * 300, "a\nb"])
def test_an_input_that_does_not_exist_is_a_usage_error(
    name: str, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    said = program("predict", tiny_run, tmp_path / name, "-o", tmp_path / "p.csv")
    assert said.code == 2
    assert "does not exist" in said.err
    assert not (tmp_path / "p.csv").exists()


def test_a_folder_without_files_is_a_data_error(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "in").mkdir()
    assert program("predict", tiny_run, tmp_path / "in", "-o", tmp_path / "p.csv").code == 3


def test_a_threshold_of_ones_own_moves_the_decision_and_no_probability(
    batch: Path, tiny_run: Path, program: Program
) -> None:
    low, high = (
        rows_in(program("predict", tiny_run, batch, "-o", "-", "--threshold", t).out)
        for t in ("0", "1")
    )
    assert {row["decision"] for row in low} == {"sick", ""}
    assert {row["decision"] for row in high} == {"healthy", ""}
    assert [row["p_sick"] for row in low] == [row["p_sick"] for row in high]


def test_mutated_images_are_rows_and_never_tracebacks(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "in"
    root.mkdir()
    wholes = []
    for suffix in ("png", "jpg", "tif", "bmp", "gif"):
        Image.fromarray(film(1)).save(tmp_path / f"a.{suffix}")
        wholes.append((suffix, (tmp_path / f"a.{suffix}").read_bytes()))
    for number in range(120):
        suffix, whole = wholes[number % len(wholes)]
        raw = bytearray(whole)
        for place in rng.integers(0, len(raw), rng.integers(1, 9)):
            raw[place] = rng.integers(256)
        (root / f"{number:03d}.{suffix}").write_bytes(raw)
    said = program("predict", tiny_run, root, "-o", tmp_path / "p.csv")
    assert said.code in (0, 4)
    rows = rows_of(tmp_path / "p.csv")
    assert len(rows) == 120
    assert {row["reason"] for row in rows if row["status"] != "ok"} <= set(REASONS)
    assert len({row["status"] for row in rows}) > 1


def test_nothing_is_written_beside_the_inputs_or_the_run(
    batch: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    before = snapshot(batch), snapshot(tiny_run)
    program("predict", tiny_run, batch, "-o", tmp_path / "p.csv")
    assert (snapshot(batch), snapshot(tiny_run)) == before
