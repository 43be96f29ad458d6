"""Batches of predictions go on where they stopped, score only what is new, and share out."""

import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from test_distributed import environment, torchrun
from tiny_runs import Program, film, program, rows_of, save_film, tiny_run

from xray_classifier.cli import main
from xray_classifier.errors import OutputError
from xray_classifier.locks import if_free
from xray_classifier.row_store import RowStore, beside
from xray_classifier.terminal import Terminal

__all__ = ["program", "tiny_run"]

QUICK = "--no-isolate"
KILLS = 20
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Twelve films, one of them in a folder, and two files that are none."""
    root = tmp_path / "films"
    for number in range(11):
        save_film(root / f"{number:02d}.png", number)
    save_film(root / "sub" / "a.png", 99)
    (root / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_text("no film")
    return root


def night(program: Program, run: Path, films: Path, out: Path, *words: object) -> dict[str, Any]:
    """What a nightly job says."""
    said = program("predict", run, films, "-o", out, "--only-new", "--json", QUICK, *words)
    found = said.json
    assert isinstance(found, dict)
    assert said.code == found.get("exit_code", said.code)
    return found


def test_only_what_changed_is_scored_and_the_table_is_that_of_a_full_run(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    out = tmp_path / "night.csv"

    def full() -> bytes:
        program("predict", tiny_run, films, "-o", tmp_path / "full.csv", "--force", QUICK)
        return (tmp_path / "full.csv").read_bytes()

    assert night(program, tiny_run, films, out)["reused"] == 0
    assert night(program, tiny_run, films, out)["reused"] == 14
    save_film(films / "new.png", 50)
    save_film(films / "03.png", 51)
    (films / "04.png").unlink()
    (films / "empty.png").write_bytes((films / "05.png").read_bytes())
    found = night(program, tiny_run, films, out)
    assert (found["n"], found["reused"], found["ok"]) == (14, 11, 13)
    assert out.read_bytes() == full()
    os.utime(films / "06.png", ns=(1, 1))
    assert night(program, tiny_run, films, out)["reused"] == 13
    assert out.read_bytes() == full()


def test_how_many_were_reused_is_said(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    for _ in range(2):
        words = ("predict", tiny_run, films, "-o", tmp_path / "p.csv", "--only-new", QUICK)
        said = program(*words, "--max-failed", 2)
    assert said.code == 0
    assert "14 reused from an earlier run" in said.out
    assert "14 rows = 12 ok + 2 failed + 0 rejected" in said.out


@pytest.mark.parametrize(
    "words", [("--threshold", "0.9"), ("--prevalence", "0.1"), ("--hash-names",), ("--study",)]
)
def test_another_question_scores_everything_anew(
    words: tuple[str, ...], films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    out = tmp_path / "night.csv"
    night(program, tiny_run, films, out)
    said = program("predict", tiny_run, films, "-o", out, "--only-new", QUICK, *words)
    assert "scored anew" in said.out
    assert "reused" not in said.out
    full = tmp_path / "full.csv"
    program("predict", tiny_run, films, "-o", full, QUICK, *words)
    assert out.read_bytes() == full.read_bytes()


def test_only_new_replaces_no_table_but_its_own(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    out = tmp_path / "night.csv"
    out.write_text("precious")
    said = program("predict", tiny_run, films, "-o", out, "--only-new", QUICK)
    assert said.code == 6
    assert out.read_text() == "precious"
    assert program("predict", tiny_run, films, "-o", out, "--only-new", "--force", QUICK).code == 4
    assert len(rows_of(out)) == 14
    beside(out, "rows").unlink()  # somebody cleaned up; the facts still say whose table it is
    assert night(program, tiny_run, films, out)["reused"] == 0
    said = program("predict", tiny_run, films, "-o", out, QUICK)
    assert said.code == 6, "a plain run replaces nothing"


def test_facts_or_studies_of_somebody_else_are_not_replaced(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "p.meta.json").write_text('{"program": "other"}')
    assert program("predict", tiny_run, films, "-o", tmp_path / "p.csv", QUICK).code == 6
    assert (tmp_path / "p.meta.json").read_text() == '{"program": "other"}'
    (tmp_path / "q.studies.csv").write_text("mine")
    assert program("predict", tiny_run, films, "-o", tmp_path / "q.csv", QUICK).code == 4
    said = program("predict", tiny_run, films, "-o", tmp_path / "q2.csv", "--study", QUICK)
    assert said.code == 4
    (tmp_path / "q3.studies.csv").write_text("mine")
    said = program("predict", tiny_run, films, "-o", tmp_path / "q3.csv", "--study", QUICK)
    assert said.code == 6


def test_a_second_process_leaves_at_once(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    out = tmp_path / "p.csv"
    with if_free(beside(out, "lock")) as free:
        assert free
        said = program("predict", tiny_run, films, "-o", out, QUICK)
    assert said.code == 6
    assert "another process writes" in said.err
    assert program("predict", tiny_run, films, "-o", out, QUICK).code == 4


def test_a_full_disk_is_told_and_the_same_command_goes_on(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.csv"
    program("predict", tiny_run, films, "-o", tmp_path / "whole.csv", QUICK)
    monkeypatch.setattr("xray_classifier.scoring.INFERENCE_ROWS", 3)
    append, calls = RowStore._append, []

    def full(self: RowStore, content: bytes) -> None:
        calls.append(1)
        if len(calls) == 4:
            append(self, content[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, content)

    with monkeypatch.context() as patched:
        patched.setattr(RowStore, "_append", full)
        said = program("predict", tiny_run, films, "-o", out, QUICK)
    assert said.code == 6
    assert "No space left" in said.err
    assert not out.exists()
    said = program("predict", tiny_run, films, "-o", out, QUICK, "--json")
    assert said.json["reused"] == 6
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("step", ["write_meta", "write_rows"])
def test_an_end_while_the_table_is_written_is_mended_by_the_same_command(
    step: str,
    films: Path,
    tiny_run: Path,
    tmp_path: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also between the table and its facts, when the table is there already."""
    out = tmp_path / "p.csv"
    program("predict", tiny_run, films, "-o", tmp_path / "whole.csv", QUICK)

    def stopped(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"xray_classifier.prediction.{step}", stopped)
        assert program("predict", tiny_run, films, "-o", out, QUICK).code == 130
    assert out.exists() == (step == "write_meta")
    changed = program("predict", tiny_run, films, "-o", out, QUICK, "--threshold", "0.9")
    if step == "write_meta":
        assert changed.code == 6, "another question is another table"
    again = () if step == "write_meta" else ("--force",)
    said = program("predict", tiny_run, films, "-o", out, QUICK, "--json", *again)
    assert said.code == 4
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not beside(out, "rows").exists()


@pytest.mark.parametrize(
    ("failed", "rejected", "code"),
    [
        ("0", "0", 4),
        ("2", "0", 4),
        ("2", "1", 0),
        ("1", "9", 4),
        ("20%", "10%", 0),
        ("19%", "10%", 4),
        ("100%", "9.9%", 4),
    ],
)
def test_limits_decide_when_some_bad_files_are_no_failure(
    failed: str, rejected: str, code: int, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    """Ten files: two fail and one is rejected."""
    root = tmp_path / "in"
    for number in range(7):
        save_film(root / f"{number}.png", number)
    (root / "a.txt").write_text("x")
    (root / "b.png").write_bytes(b"")
    from PIL import Image

    Image.new("L", (9, 9), 3).save(root / "blank.png")
    limits = ("--max-failed", failed, "--max-rejected", rejected)
    said = program("predict", tiny_run, root, "-o", tmp_path / "p.csv", "--json", QUICK, *limits)
    assert said.code == said.json["exit_code"] == code
    assert json.loads((tmp_path / "p.meta.json").read_text())["exit_code"] == code


@pytest.mark.parametrize("limit", ["-1", "x", "101%", "5 %", "1.5", "%", "٣", "1e2%"])
def test_a_limit_that_cannot_be_meant_is_refused(
    limit: str, films: Path, tiny_run: Path, program: Program
) -> None:
    said = program("predict", tiny_run, films, "-o", "-", f"--max-failed={limit}")
    assert said.code == 2
    assert "10%" in said.err


def predicting(run: Path, *words: object) -> list[str]:
    """The command in a process of its own."""
    return [sys.executable, "-m", "xray_classifier", "predict", *map(str, (run, *words))]


@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_ends_in_words_and_the_same_command_goes_on(
    number: int, code: int, films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "list").write_text("".join(f"{films}/{i % 11:02d}.png\n" for i in range(20_000)))
    out = tmp_path / "p.csv"
    words = predicting(tiny_run, f"@{tmp_path / 'list'}", "-o", out, "-q")
    with subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE) as process:
        rows = beside(out, "rows")
        deadline = time.monotonic() + 60
        while not (rows.exists() and rows.stat().st_size > 5000):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"the same command goes on" in said
    assert b"Traceback" not in said
    assert not out.exists()


@POSIX
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_table(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    """Each kill comes at a random moment; what was scored before is not scored again."""
    rng = random.Random(0)
    for number in range(800):
        save_film(tmp_path / "in" / f"{number:03d}.png", number)
    listed = [f"in/{number:03d}.png" for number in range(800)]
    (tmp_path / "list").write_text("\n".join(listed))
    words = [str(tiny_run), f"@{tmp_path / 'list'}", "-o"]
    whole, out = tmp_path / "whole.csv", tmp_path / "p.csv"
    assert main(["predict", *words, str(whole), "-q", QUICK]) == 0
    kept = [0]
    for _ in range(KILLS):
        command = [sys.executable, "-m", "xray_classifier", "predict", *words, str(out), "-q",
                   QUICK, "-j", "1"]  # fmt: skip
        with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as child:
            deadline = time.monotonic() + 120
            while rows_kept(out) < kept[-1] + 16 and child.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.02))
            child.kill()
        assert not out.exists() or out.read_bytes() == whole.read_bytes()
        kept.append(rows_kept(out))
    assert kept == sorted(kept), "no row that was kept is lost"
    assert len(set(kept)) > 5, "the kills came while it worked"
    assert main(["predict", *words, str(out), "-q", QUICK]) == 0
    assert out.read_bytes() == whole.read_bytes()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["in", "list", "p.csv", "p.meta.json", "whole.csv", "whole.meta.json"]


def rows_kept(out: Path) -> int:
    """Whole rows beside a table."""
    rows = beside(out, "rows")
    return max(0, rows.read_bytes().count(b"\n") - 1) if rows.exists() else 0


@POSIX
@pytest.mark.parametrize("words", [(), ("--only-new", "--hash-names")])
def test_several_processes_write_the_table_of_one(
    words: tuple[str, ...], films: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    listed = [f"films/{number % 11:02d}.png" for number in range(30)] + ["films/notes.txt", "gone"]
    (tmp_path / "list").write_text("\n".join(listed))
    asked = [f"@{tmp_path / 'list'}", films, *words, QUICK, "--max-failed", "5"]
    one, many = tmp_path / "one.jsonl", tmp_path / "many.jsonl"
    program("predict", tiny_run, *asked, "-o", one)
    job = torchrun(2, "-m", "xray_classifier", "predict", tiny_run, *asked, "-o", many, "--json")
    said = subprocess.run(job, env=environment(), capture_output=True, timeout=300)
    assert said.returncode == 0, said.stderr.decode()[-3000:]
    assert many.read_bytes() == one.read_bytes()
    found = json.loads(said.stdout)
    assert (found["n"], found["exit_code"], found["reused"]) == (46, 0, 0)
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".many")}
    assert left == ({".many.jsonl.rows", ".many.jsonl.rows.1"} if words else set())
    if words:  # alone it takes over what several have done
        said_alone = program("predict", tiny_run, *asked, "-o", many, "--json")
        assert said_alone.json["reused"] == 45
        assert many.read_bytes() == one.read_bytes()


def test_a_size_without_a_launcher_is_refused(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    said = program("predict", tiny_run, films, "-o", tmp_path / "p.csv")
    assert said.code == 2
    assert "RANK" in said.err


def test_standard_output_is_for_one_process(
    films: Path, tiny_run: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = program("predict", tiny_run, films, "-o", "-", "--only-new")
    assert said.code == 2
    assert "--only-new" in said.err


@POSIX
def test_a_closed_pipe_is_a_quiet_end(tiny_run: Path, films: Path) -> None:
    (films / "list").write_text("".join(f"{films}/{i % 11:02d}.png\n" for i in range(20_000)))
    words = predicting(tiny_run, f"@{films / 'list'}", "-o", "-", QUICK)
    with subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"path,")
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(60) == 0
    assert b"Traceback" not in said
    assert b"BrokenPipe" not in said


def test_a_key_that_cannot_be_kept_is_refused(
    films: Path, tiny_run: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    said = program("predict", tiny_run, films, "-o", tmp_path / "p.csv", "--hash-names")
    assert said.code == OutputError.exit_code
    assert "XDG_CONFIG_HOME" in said.err


def test_memory_does_not_grow_with_the_batch(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    """A few bytes a row stay: where it is kept. What is in work at a time takes some megabytes."""
    peaks = []
    for n in (1_000, 1_000, 25_000):
        (tmp_path / "list").write_text("".join(f"{number:08d}.png\n" for number in range(n)))
        tracemalloc.start()
        words = ("predict", tiny_run, f"@{tmp_path / 'list'}", "-o", tmp_path / "p.csv", "--force")
        assert program(*words, "-q").code == 4
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 12_000_000


def test_what_a_log_says_of_a_long_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xray_classifier.terminal.HEARTBEAT_S", 0.0)
    stream = io.StringIO()
    with Terminal(stream).bar("predicting", 100, "file") as bar:
        time.sleep(0.01)
        bar(25, "3 not ok")
    assert stream.getvalue().startswith("predicting: 25 of 100 file, ")
    assert " a second, " in stream.getvalue()
    assert stream.getvalue().endswith(" left, 3 not ok\n")


def test_films_of_one_seed_are_one_film() -> None:
    """What the tests above rely on."""
    assert (film(3) == film(3)).all()
    assert (film(3) != film(4)).any()
