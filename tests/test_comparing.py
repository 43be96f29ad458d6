"""`compare`: which predictions are meant, what is refused, what is written, on real runs too."""

import csv
import io
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tiny_runs import TINY, class_folders, no_pictures, rows_of, snapshot

from xray_classifier.cli import main
from xray_classifier.comparing import ComparisonResult, run_compare
from xray_classifier.comparison_sources import find_predictions, read_predictions
from xray_classifier.errors import DataError, OutputError, UsageError
from xray_classifier.terminal import Terminal

__all__ = ["no_pictures"]

HEADER = "path,label,patient,split,logit,p_raw,p_sick,decision,in_training,pixel_hash"


def judged(
    folder: Path, seed: int = 0, n: int = 80, split: str = "test", header: str = HEADER
) -> Path:
    """A folder as `evaluate` writes it, of n made-up answers; image 1 could not be read."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        label = ("healthy", "sick")[i % 2]
        row: dict[str, Any] = {"path": f"a/{i}.png", "label": label, "patient": "", "split": split}
        logit = float(rng.normal(2 * (i % 2) - 1, 1))
        p = 1 / (1 + math.exp(-logit))
        if i != 1:
            row |= {"logit": logit, "p_raw": p, "p_sick": p, "pixel_hash": f"{i:x}"}
            row |= {"decision": "sick" if p >= 0.5 else "healthy", "in_training": "no"}
        rows.append(row)
    folder.mkdir(parents=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, header.split(","), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / "predictions.csv").write_text(text.getvalue())
    about = {"split": split, "n": n - 1, "threshold": 0.5, "threshold_policy": "youden"}
    (folder / "metrics.json").write_text(json.dumps(about))
    return folder


def made_up_run(folder: Path, *evaluations: tuple[str, str, int]) -> Path:
    """A run folder with evaluations of (name, split, age in seconds)."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "history.csv").write_text("epoch\n")
    for name in ("best", "last"):
        (folder / "checkpoints" / f"{name}.safetensors").write_bytes(b"a model")
        os.utime(folder / "checkpoints" / f"{name}.safetensors", (1e9, 1e9))
    for seed, (name, split, age_s) in enumerate(evaluations):
        made = judged(folder / "eval" / name, seed, split=split)
        for file in made.iterdir():
            os.utime(file, (2e9 - age_s, 2e9 - age_s))
    return folder


def said_by(*paths: Path, **given: Any) -> tuple[str, ComparisonResult]:
    """What a person reads, and the result."""
    stream = io.StringIO()
    result = run_compare(paths, Terminal(stream), **given)
    return stream.getvalue(), result


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default folders are made in a place of the test's own."""
    monkeypatch.chdir(tmp_path)


def test_folders_and_tables_of_evaluate_are_taken_as_they_are(tmp_path: Path) -> None:
    one, two = judged(Path("one")), judged(Path("two"), 1)
    said, result = said_by(one, two / "predictions.csv", out=tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "comparison.json", "differing.csv",
    ]  # fmt: skip
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert result.content["out"] == result.out == str(tmp_path / "out")
    assert result.content["n"] == written["n"]
    rows = [
        {r["path"]: r for r in rows_of(f / "predictions.csv") if r["logit"]} for f in (one, two)
    ]
    labels = [row["label"] == "sick" for row in rows[0].values()]
    areas = [roc_auc_score(labels, [float(r["logit"]) for r in t.values()]) for t in rows]
    difference = written["pairs"][0]["differences"]["auroc"]["difference"]
    assert difference == pytest.approx(areas[1] - areas[0])
    assert (written["n"], written["models"][0]["n_unreadable"]) == (79, 1)
    disputed = {p for p in rows[0] if rows[0][p]["decision"] != rows[1][p]["decision"]}
    assert {row["path"] for row in rows_of(tmp_path / "out" / "differing.csv")} == disputed
    assert written["pairs"][0]["words"] in " ".join(said.split())
    assert all(len(line) <= 80 for line in said.splitlines() if not line.startswith("written to"))
    assert "not the ways they were trained" in " ".join(said.split())


def test_a_run_means_its_newest_evaluation_on_the_split(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", ("old", "test", 50), ("new", "test", 10), ("val", "val", 5))
    for path in (run, run / "checkpoints", run / "checkpoints" / "best.safetensors"):
        assert find_predictions(path, "test") == ("run", run / "eval" / "new" / "predictions.csv")
    assert find_predictions(run, "valid")[1] == run / "eval" / "val" / "predictions.csv"
    shutil.copy(run / "eval" / "val" / "predictions.csv", run / "predictions_val.csv")
    assert find_predictions(run, "val")[1] == run / "predictions_val.csv"


def test_an_unfinished_evaluation_does_not_count(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", ("old", "test", 50), ("new", "test", 10))
    (run / "eval" / "new" / "predictions.csv").unlink()
    assert find_predictions(run, "test")[1].parent.name == "old"


def test_a_link_to_a_run_is_called_by_the_name_of_the_run(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "20260101-000000_mlp", ("a", "test", 1))
    (tmp_path / "latest").symlink_to(run)
    assert find_predictions(tmp_path / "latest", "test")[0] == run.name


def test_a_run_without_that_evaluation_is_told_how_to_get_it(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "my run", ("a", "val", 1))
    other = judged(tmp_path / "other")
    with pytest.raises(UsageError, match="has no evaluation on the test split") as error:
        run_compare([run, other], Terminal(io.StringIO()))
    assert f"`xray-classifier evaluate '{run}' --split test`" in str(error.value)
    assert not (tmp_path / "comparisons").exists()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("absent", "does not exist"),
        ("absent.csv", "does not exist"),
        ("empty", "holds no checkpoints"),
        ("alone/best.safetensors", "stands in no run folder"),
        ("run/checkpoints/last.safetensors", "is not the model that evaluations of its run judge"),
    ],
)
def test_what_names_no_predictions_is_refused(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "best.safetensors").write_bytes(b"a model")
    made_up_run(tmp_path / "run")
    with pytest.raises(UsageError, match=hint):
        run_compare([judged(tmp_path / "other"), tmp_path / name], Terminal(io.StringIO()))


def test_one_model_or_the_same_twice_is_no_comparison(tmp_path: Path) -> None:
    one = judged(tmp_path / "one")
    with pytest.raises(UsageError, match="two models"):
        run_compare([one], Terminal(io.StringIO()))
    with pytest.raises(UsageError, match="A and C are the same predictions"):
        run_compare(
            [one, judged(tmp_path / "two"), one / "predictions.csv"], Terminal(io.StringIO())
        )


def test_other_test_sets_end_with_code_3_unless_the_shared_images_are_asked_for(
    tmp_path: Path,
) -> None:
    one, two = judged(tmp_path / "one"), judged(tmp_path / "two", 1, n=60)
    with pytest.raises(DataError, match="20 not in all") as error:
        run_compare([one, two], Terminal(io.StringIO()), out=tmp_path / "out")
    assert error.value.exit_code == 3
    assert not (tmp_path / "out").exists()
    said, result = said_by(one, two, intersect=True)
    assert result.content["n"] == 59
    assert "A: 1 of 80 images could not be read and 20 images are not shared by all" in " ".join(
        said.split()
    )


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = judged(tmp_path / "one"), judged(tmp_path / "two", 1)
    before = snapshot(one)
    with pytest.raises(OutputError, match="holds something already"):
        run_compare([one, two], Terminal(io.StringIO()), out=one)
    with pytest.raises(OutputError, match="holds something already"):
        run_compare([one, two], Terminal(io.StringIO()), out=one / "metrics.json")
    assert snapshot(one) == before
    monkeypatch.setattr("xray_classifier.comparing.time_stamp", lambda: "20260101-000000")
    folders = [said_by(one, two)[1].out for _ in range(3)]
    stamp = str(Path("comparisons") / "20260101-000000")
    assert folders == [stamp, f"{stamp}-2", f"{stamp}-3"]


def test_three_models_get_a_table_for_each_pair_with_the_best(tmp_path: Path) -> None:
    paths = [judged(tmp_path / name, seed) for seed, name in enumerate("xyz")]
    said, result = said_by(*paths, out=tmp_path / "out")
    best = result.content["ranking"][0]
    files = {f"differing_{best}_{other}.csv" for other in "ABC" if other != best}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"comparison.json", *files}
    assert "flattered by the choice" in " ".join(said.split())


def test_older_tables_are_matched_by_path_and_label_alone(tmp_path: Path) -> None:
    old = judged(tmp_path / "old", header=HEADER.removesuffix(",pixel_hash"))
    said, _ = said_by(old, judged(tmp_path / "new", 1))
    assert "A has no pixel_hash to compare the pictures by" in " ".join(said.split())


def test_a_model_that_changed_after_it_was_judged_is_warned_of(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", ("a", "test", 1))
    other = judged(tmp_path / "other", 1)
    fresh, _ = said_by(run, other)
    assert "written after it was judged" not in fresh
    os.utime(run / "checkpoints" / "best.safetensors", (2.1e9, 2.1e9))
    said, _ = said_by(run, other)
    assert "the model of A was written after it was judged" in said


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a/3.png,sick", "a/3.png,ill", r"predictions.csv:5: label 'ill'; expected healthy or"),
        ("a/3.png,", "a/2.png,", r":5: a/2.png was in line 4 already"),
        (",sick,no,3\n", ",unsure,no,3\n", r":5: decision 'unsure' makes no sense"),
        (",sick,no,3\n", ",,no,3\n", r":5: decision '' makes no sense"),
        (",sick,no,3\n", ",sick,no\n", r":5: the number of cells"),
        (",sick,no,3\n", ",sick,no,3,4\n", r":5: the number of cells"),
        ("logit,", "score,", r"lacks the columns logit; compare tables that `evaluate` wrote"),
    ],
)
def test_a_damaged_table_is_named_by_file_and_line(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    table = judged(tmp_path / "one", 3) / "predictions.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_predictions("one", table)


@pytest.mark.parametrize("bad", ["nan", "inf", "high"])
def test_a_score_that_is_no_number_is_named(bad: str, tmp_path: Path) -> None:
    table = judged(tmp_path / "one") / "predictions.csv"
    lines = table.read_text().splitlines()
    cells = lines[4].split(",")
    cells[4] = bad
    table.write_text("\n".join([*lines[:4], ",".join(cells), *lines[5:]]) + "\n")
    with pytest.raises(DataError, match=f":5: logit '{bad}' is no finite number"):
        read_predictions("one", table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no image"),
        (HEADER.encode() + b"\n", "holds no image"),
        (b"\xff\xfe\x00", "cannot be read as a CSV table"),
        (b"path,status,reason,p_sick\na,ok,,0.5\n", "written by `predict`, which knows no truth"),
    ],
)
def test_what_is_no_table_of_evaluate_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_predictions("p", tmp_path / "p.csv")


def test_a_damaged_record_beside_the_table_is_refused(tmp_path: Path) -> None:
    one = judged(tmp_path / "one")
    (one / "metrics.json").write_text("{")
    with pytest.raises(DataError, match=r"metrics\.json cannot be read"):
        read_predictions("one", one / "predictions.csv")
    (one / "metrics.json").unlink()
    alone = read_predictions("one", one / "predictions.csv")
    assert (alone.split, alone.threshold, len(alone.paths)) == (None, None, 80)


def test_tables_of_numbers_are_read_without_decisions(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,{30 + i},p{i // 2},test,{{}},no\n" for i in range(40))
    for name, error in (("one", 6), ("two", 1)):
        (tmp_path / name).mkdir()
        text = rows.format(*(30 + i + (-error if i % 2 else error) for i in range(40)))
        (tmp_path / name / "predictions.csv").write_text(
            "path,label,patient,split,prediction,in_training\n" + text
        )
    said, result = said_by(tmp_path / "one", tmp_path / "two")
    found = result.content["pairs"][0]["differences"]["mae"]
    assert (found["a"], found["b"], found["n_patients"]) == (6.0, 1.0, 20)
    assert "B is better by 5.000 in mean absolute error" in said


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs on the same phantoms, with other seeds of weights and order."""
    out = tmp_path_factory.mktemp("two")
    for seed in ("1", "2"):
        words = ["train", "-c", "demo", "-q", "-o", str(out), "--name", f"s{seed}", *TINY]
        assert main([*words, "--seed", seed, "train.epochs=1"]) == 0
    return sorted(out.glob("*_s?"))


@pytest.mark.usefixtures("no_pictures")
def test_two_real_runs_are_compared_as_their_own_reports_judge_them(two_runs: list[Path]) -> None:
    said, result = said_by(*two_runs, split="val")
    pair = result.content["pairs"][0]["differences"]
    for run, side in zip(two_runs, "ab", strict=True):
        own = json.loads((run / "metrics.json").read_text())["metrics"]
        for name in ("auroc", "accuracy", "sensitivity", "specificity"):
            assert pair[name][side] == pytest.approx(own[name]["value"])
    assert pair["auroc"]["method"] == "obuchowski"
    assert "on the val split" in said
    with pytest.raises(UsageError, match="--split test` first"):
        run_compare(two_runs, Terminal(io.StringIO()))


@pytest.mark.usefixtures("no_pictures")
def test_two_real_runs_are_judged_on_other_images_first(
    two_runs: list[Path], tmp_path: Path
) -> None:
    films = class_folders(tmp_path / "films", {"NORMAL": 14, "ILL": 12}, first_seed=1000)
    labels = ["data.labels={healthy: [NORMAL], sick: [ILL]}"]
    said, result = said_by(*two_runs, data=films, out=tmp_path / "out", overrides=labels)
    assert result.content["n"] == 26
    for place in "AB":
        content = json.loads((tmp_path / "out" / place / "metrics.json").read_text())
        own = next(m for m in result.content["models"] if m["letter"] == place)
        assert own["auroc"]["value"] == pytest.approx(content["metrics"]["auroc"]["value"])
    assert "no pixel_hash" not in said
    with pytest.raises(UsageError, match="with --data name runs or checkpoints"):
        run_compare([two_runs[0], tmp_path / "out" / "A"], Terminal(io.StringIO()), data=films)
    with pytest.raises(UsageError, match="needs --data"):
        run_compare(two_runs, Terminal(io.StringIO()), overrides=labels)
    with pytest.raises(UsageError, match="absent does not exist"):
        run_compare(two_runs, Terminal(io.StringIO()), data=tmp_path / "absent")
