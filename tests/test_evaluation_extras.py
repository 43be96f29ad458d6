"""What an evaluation can be asked for: prevalence, other thresholds, conditions, subgroups."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import (
    TINY,
    Program,
    class_folders,
    metadata_of,
    no_pictures,
    program,
    rows_of,
    tiny_run,
)

__all__ = ["no_pictures", "program", "tiny_run"]

pytestmark = pytest.mark.usefixtures("no_pictures")


def metrics_in(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_bytes())


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a calibration split of its own and a refer band."""
    from xray_classifier.cli import main

    out = tmp_path_factory.mktemp("apart")
    keys = ("data.split.calibrate=0.2", "evaluate.refer=0.2", "evaluate.threshold=sens=0.8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "xray_classifier.judgement_files.judgement_figures", lambda judgement, curves: {}
        )
        size = "data.phantoms.n_images=400"
        assert main(["train", "-c", "demo", "-q", "-o", str(out), *TINY, size, *keys]) == 0
    return next(out.glob("*_demo"))


def test_a_calibration_split_chooses_and_shares_no_patient(apart: Path) -> None:
    content = metadata_of(apart / "checkpoints" / "best.safetensors")
    point = content["threshold"]
    assert (point["chosen_on"], point["policy"]) == ("calibrate", "sens=0.8")
    rows = rows_of(apart / "data" / "manifest.csv")
    groups = {s: {r["patient"] for r in rows if r["split"] == s} for s in
              ("train", "val", "calibrate", "test")}  # fmt: skip
    assert point["n"] == sum(r["split"] == "calibrate" for r in rows)
    names = list(groups)
    for k, one in enumerate(names):
        assert groups[one]
        for other in names[k + 1 :]:
            assert not groups[one] & groups[other]


def test_the_stored_threshold_is_that_of_the_calibration_split(
    apart: Path, tmp_path: Path, program: Program
) -> None:
    """Solved again by hand from the predictions on that split."""
    program("evaluate", apart, "--split", "calibrate", "-o", tmp_path / "c")
    rows = rows_of(tmp_path / "c" / "predictions.csv")
    sick = np.array([r["label"] == "sick" for r in rows])
    p = np.array([float(r["p_sick"]) for r in rows])
    threshold = metrics_in(tmp_path / "c")["threshold"]
    assert np.mean(p[sick] >= threshold) >= 0.8
    higher = np.min(p[p >= threshold])
    assert np.mean(p[sick] > higher) < 0.8 or not sick[p == higher].any()
    said = program("evaluate", apart, "--split", "calibrate", "-o", tmp_path / "d").out
    assert "this split chose the calibration and the threshold" in said
    assert "a split of their own, which stopping never saw" in said


def test_carving_a_calibration_split_moves_no_other_image(
    apart: Path, tmp_path: Path, program: Program
) -> None:
    keys = [*TINY, "data.phantoms.n_images=400", "train.epochs=1"]
    assert program("train", "-c", "demo", "-q", "-o", tmp_path, *keys).code == 0
    [plain] = tmp_path.glob("*_demo")
    splits = {r["path"]: r["split"] for r in rows_of(plain / "data" / "manifest.csv")}
    for row in rows_of(apart / "data" / "manifest.csv"):
        now = row["split"]
        assert splits[row["path"]] == ("train" if now == "calibrate" else now)


def test_images_inside_the_band_are_referred_and_counted(
    apart: Path, tmp_path: Path, program: Program
) -> None:
    said = program("evaluate", apart, "-o", tmp_path / "o")
    content = metrics_in(tmp_path / "o")
    band = content["refer"]
    rows = rows_of(tmp_path / "o" / "predictions.csv")
    for row in rows:
        p = float(row["p_sick"])
        expected = "sick" if p >= content["threshold"] else "healthy"
        inside = band["low"] <= p < band["high"]
        assert row["decision"] == ("refer" if inside else expected)
    n_referred = sum(row["decision"] == "refer" for row in rows)
    covered = content["coverage"]
    assert n_referred > 0
    assert (covered["referred"], covered["answered"]) == (n_referred, len(rows) - n_referred)
    sick = [r for r in rows if r["label"] == "sick"]
    found = [r for r in sick if r["decision"] == "sick"]
    assert covered["worst_case"]["sensitivity"]["value"] == len(found) / len(sick)
    assert f"{n_referred} of {len(rows)} images are referred" in said.out


def test_another_threshold_has_no_band(apart: Path, tmp_path: Path, program: Program) -> None:
    program("evaluate", apart, "--threshold", "youden", "-o", tmp_path / "o")
    content = metrics_in(tmp_path / "o")
    assert content["refer"] is None
    assert content["coverage"]["referred"] == 0


def test_predict_refers_too(apart: Path, tmp_path: Path, program: Program) -> None:
    films = class_folders(tmp_path / "films", {"x": 12})
    said = program("predict", apart, films, "-o", tmp_path / "p.csv", "--json").json
    band = metadata_of(apart / "checkpoints" / "best.safetensors")["refer"]
    rows = rows_of(tmp_path / "p.csv")
    assert len(rows) == 12
    for row in rows:
        inside = band["low"] <= float(row["p_sick"]) < band["high"]
        assert (row["decision"] == "refer") == inside
    decisions = [row["decision"] for row in rows]
    assert (said["sick"], said["referred"]) == (decisions.count("sick"), decisions.count("refer"))


def test_a_stated_prevalence_is_a_column_of_its_own_by_bayes(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    films = class_folders(tmp_path / "films", {"x": 5})
    program("evaluate", tiny_run, "-o", tmp_path / "o", "--prevalence", "0.03")
    program("predict", tiny_run, films, "-o", tmp_path / "p.csv", "--prevalence", "0.03")
    content = metadata_of(tiny_run / "checkpoints" / "best.safetensors")
    curve = content["operating_curve"]
    base = curve["n_sick"] / (curve["n_sick"] + curve["n_healthy"])
    if content["calibration"]["method"] == "off":
        train = content["splits"]["train"]
        base = train["sick"] / (train["sick"] + train["healthy"])
    for table in (tmp_path / "o" / "predictions.csv", tmp_path / "p.csv"):
        for row in rows_of(table):
            p = float(row["p_sick"])
            odds = p / (1 - p) * (0.03 / 0.97) / (base / (1 - base))
            assert float(row["p_at_prevalence"]) == pytest.approx(odds / (1 + odds))
    metrics = metrics_in(tmp_path / "o")
    stated = metrics["prevalence"]["stated"]
    assert "label shift" in stated["assumption"]
    se, sp = (metrics["metrics"][name]["value"] for name in ("sensitivity", "specificity"))
    ppv = se * 0.03 / (se * 0.03 + (1 - sp) * 0.97)
    assert stated["metrics"]["ppv"]["value"] == pytest.approx(ppv)


@pytest.mark.parametrize("value", ["0", "1", "1.5", "-0.1", "nan"])
def test_a_prevalence_outside_0_and_1_is_refused(
    tiny_run: Path, tmp_path: Path, program: Program, value: str
) -> None:
    said = program("evaluate", tiny_run, "-o", tmp_path / "o", f"--prevalence={value}")
    assert said.code == 2
    assert "--prevalence" in said.err


def test_what_if_is_solved_on_validation_and_changes_nothing_else(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    program("evaluate", tiny_run, "-o", tmp_path / "plain")
    said = program("evaluate", tiny_run, "-o", tmp_path / "o", "--what-if", "spec=0.8",
                   "--what-if", "0.4")  # fmt: skip
    plain, content = metrics_in(tmp_path / "plain"), metrics_in(tmp_path / "o")
    assert plain["metrics"] == content["metrics"]
    by_policy = {one["policy"]: one for one in content["what_if"]}
    assert list(by_policy) == ["spec=0.8", "0.4"]
    assert "exploratory" in said.out
    again = tmp_path / "again"
    program("evaluate", tiny_run, "-o", again, "--threshold", "spec=0.8")
    other = metrics_in(again)
    assert by_policy["spec=0.8"]["threshold"] == other["threshold"]
    assert by_policy["spec=0.8"]["sensitivity"] == other["metrics"]["sensitivity"]["value"]
    program("evaluate", tiny_run, "-o", tmp_path / "usual", "--what-if", "usual")
    assert len(metrics_in(tmp_path / "usual")["what_if"]) == 7


def test_a_condition_that_fails_ends_with_9_after_all_is_written(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    words = ("evaluate", tiny_run, "--force", "-o", tmp_path / "o")
    assert program(*words, "--require", "auroc>=0.0").code == 0
    said = program(*words, "--require", "auroc>=1.01", "--require", "brier<=0")
    assert said.code == 9
    assert "auroc>=1.01: found" in said.err
    assert "brier<=0: found" in said.err
    asked = metrics_in(tmp_path / "o")["requirements"]
    assert asked["asked"] == ["auroc>=1.01", "brier<=0"]
    assert len(asked["unmet"]) == 2
    assert program(*words, "--require", "auc>=0.9").code == 2


def test_looks_are_counted_by_the_images_whatever_the_run(
    tiny_run: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    first = program("evaluate", tiny_run, "-o", tmp_path / "a")
    assert "the first look at exactly these images" in first.out
    assert "looked at 2 times with 1 model" in program(
        "evaluate", tiny_run, "-o", tmp_path / "b"
    ).out  # fmt: skip
    program("evaluate", tiny_run, "--split", "val", "-o", tmp_path / "c")
    assert "test_set" not in metrics_in(tmp_path / "c")
    a, b = (metrics_in(tmp_path / name)["test_set"] for name in "ab")
    assert a["fingerprint"] == b["fingerprint"]
    assert (a["looks"], b["looks"], b["models"]) == (1, 2, 1)


def test_subgroups_come_from_columns_of_the_csv(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    films = class_folders(tmp_path / "films", {"h": 12, "s": 12})
    lines = [["path", "label", "sex", "note"]]
    for k in range(24):
        name = f"{'h' if k < 12 else 's'}/film{k % 12:03d}.png"
        lines.append([name, "healthy" if k < 12 else "sick", "FM"[k % 2], f"n{k}"])
    with (films / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    words = ("evaluate", tiny_run, "--data", films / "films.csv", "-o")
    assert program(*words, tmp_path / "o").code == 0
    groups = metrics_in(tmp_path / "o")["subgroups"]
    assert [(g["column"], g["value"], g["n"]) for g in groups] == [("sex", "F", 12),
                                                                   ("sex", "M", 12)]  # fmt: skip
    said = program(*words, tmp_path / "p", "--by", "gender")
    assert said.code == 2
    assert "no column gender" in said.err


def test_medmnist_predictions_lie_beside_the_rest(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    program("evaluate", tiny_run, "-o", tmp_path / "o", "--medmnist", "pneumoniamnist")
    [path] = (tmp_path / "o").glob("pneumoniamnist_test_*.csv")
    rows = rows_of(tmp_path / "o" / "predictions.csv")
    stored = [float(line.split(",")[2]) for line in path.read_text().splitlines()]
    assert stored == [float(row["p_sick"]) for row in rows]


def test_the_stress_test_is_part_of_an_evaluation_that_asks_for_it(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    said = program("evaluate", tiny_run, "-o", tmp_path / "o", "--stress")
    assert said.code == 0
    found = metrics_in(tmp_path / "o")["stress"]
    assert len(found["cells"]) == 50
    assert "stress test on 25 of 25 images" in said.out
