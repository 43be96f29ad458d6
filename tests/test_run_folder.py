"""A run folder is dated, named, complete, and never shared or overwritten."""

import csv
import json
import re
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from tiny_runs import Program, program, rows_of, tiny_run

from xray_classifier import run_folder
from xray_classifier.config_file import load_config
from xray_classifier.errors import OutputError
from xray_classifier.run_folder import INDEX_COLUMNS, add_to_index, environment, new_run_folder

__all__ = ["program", "tiny_run"]


class Noon(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: object = None) -> "Noon":
        """Always the same second."""
        return cls(2030, 1, 2, 12, 0, 0)


def test_runs_of_one_second_get_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "datetime", Noon)
    names = [new_run_folder(tmp_path / "runs", "a").name for _ in range(3)]
    stamp = "20300102-120000_a"
    assert names == [stamp, f"{stamp}-2", f"{stamp}-3"]
    assert new_run_folder(tmp_path / "runs", "b").name == "20300102-120000_b"


def test_latest_leads_to_the_newest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "datetime", Noon)
    for _ in range(2):
        newest = new_run_folder(tmp_path, "a")
    assert (tmp_path / "latest").resolve() == newest.resolve()


def test_a_folder_called_latest_of_ones_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "mine.txt").write_text("mine")
    new_run_folder(tmp_path, "a")
    assert (tmp_path / "latest" / "mine.txt").read_text() == "mine"


def test_a_place_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError):
        new_run_folder(tmp_path / "taken", "a")


def test_the_index_gets_one_line_a_run_and_one_header(tmp_path: Path) -> None:
    for number in range(3):
        add_to_index(tmp_path / f"run{number}", {"status": "finished", "steps": number})
    rows = rows_of(tmp_path / "index.csv")
    assert [row["run"] for row in rows] == ["run0", "run1", "run2"]
    assert list(rows[0]) == list(INDEX_COLUMNS)
    assert [row["steps"] for row in rows] == ["0", "1", "2"]


def test_the_environment_names_versions_and_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "dr.canary")
    monkeypatch.setenv("HOME", "/home/dr.canary")
    found = environment("cpu", 1)
    assert found["versions"]["torch"]
    assert "canary" not in json.dumps(found)


EXPECTED = (
    "config.yaml", "config.original.yaml", "env.json", "data/manifest.csv", "data/audit.json",
    "history.csv", "history_test.csv", "curves.png", "checkpoints/best.safetensors",
    "checkpoints/last.safetensors", "predictions_val.csv", "metrics.json", "report.html",
    "log.txt", "summary.json",
)  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_a_finished_run_is_complete(name: str, tiny_run: Path) -> None:
    assert (tiny_run / name).stat().st_size > 0


def test_nothing_temporary_is_left(tiny_run: Path) -> None:
    assert not [p for p in tiny_run.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"]


def test_the_summary_says_how_the_run_ended(tiny_run: Path) -> None:
    summary = json.loads((tiny_run / "summary.json").read_bytes())
    assert set(summary) == {
        "status", "stop_reason", "exit_code", "best_epoch", "steps", "elapsed_s",
    }  # fmt: skip
    assert (summary["status"], summary["exit_code"]) == ("finished", 0)
    history = rows_of(tiny_run / "history.csv")
    assert summary["steps"] == int(history[-1]["step"])
    losses = [float(row["val_loss"]) for row in history]
    assert summary["best_epoch"] == losses.index(min(losses)) + 1


def test_the_history_has_the_columns_that_others_read(tiny_run: Path) -> None:
    with (tiny_run / "history.csv").open() as file:
        header = next(csv.reader(file))
    assert header == ["epoch", "step", "train_loss", "val_loss", "val_auroc", "lr", "elapsed_s"]
    assert [row["epoch"] for row in rows_of(tiny_run / "history.csv")] == ["1", "2", "3"]


def test_the_resolved_config_is_the_run_s_and_the_original_stays(tiny_run: Path) -> None:
    resolved = load_config(tiny_run)
    assert resolved.config.train.epochs == 3
    assert resolved.config.data.image.size == 16
    assert resolved.name == "tiny"
    original = yaml.safe_load((tiny_run / "config.original.yaml").read_text())
    assert original["train"]["epochs"] != 3


def test_the_manifest_lists_every_image_once_with_its_split(tiny_run: Path) -> None:
    rows = rows_of(tiny_run / "data" / "manifest.csv")
    assert len({row["path"] for row in rows}) == len(rows) == 160
    homes: dict[str, set[str]] = {}
    for row in rows:
        homes.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in homes.values())
    audit = json.loads((tiny_run / "data" / "audit.json").read_bytes())
    assert (audit["audit"], audit["images"], audit["left_out"]) == ("strict", 160, {})


def test_the_report_needs_no_other_file(tiny_run: Path) -> None:
    page = (tiny_run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    for attributes in re.findall(r"<script([^>]*)>", page):  # its own code and numbers only
        assert attributes in ("", ' type="application/json" id="threshold-data"')


def test_a_second_run_makes_a_second_folder_and_touches_nothing_of_the_first(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "datetime", Noon)
    words = [
        "train", "-c", "demo", "-o", tmp_path, "-q", "--name", "same", "data.phantoms.n_images=40",
        "data.image.size=8", "model.hidden=[4]", "train.epochs=1", "data.split.val=null",
        "train.early_stopping=null",
    ]  # fmt: skip
    assert program(*words).code == 0
    first = tmp_path / "20300102-120000_same"
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert program(*words).code == 0
    assert (tmp_path / "20300102-120000_same-2" / "summary.json").is_file()
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert [row["run"] for row in rows_of(tmp_path / "index.csv")] == [
        first.name, f"{first.name}-2",
    ]  # fmt: skip
