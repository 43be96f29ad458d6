"""`evaluate`: honest numbers on the run's own images or on others, and none tuned on them."""

import csv
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk
from tiny_runs import (
    TINY,
    Program,
    class_folders,
    film,
    metadata_of,
    metrics_apart_from_looks,
    no_pictures,
    own_run,
    program,
    rows_of,
    save_film,
    snapshot,
    tiny_run,
)

from xray_classifier.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["no_pictures", "own_run", "program", "tiny_run"]

pytestmark = pytest.mark.usefixtures("no_pictures")

NAMES = [
    "auroc", "average_precision", "brier", "ece", "loss", "accuracy", "balanced_accuracy",
    "sensitivity", "specificity", "ppv", "npv", "f1", "mcc",
    "partial_auroc", "brier_skill", "calibration_slope", "calibration_intercept", "net_benefit",
    "sensitivity_at_specificity_90", "specificity_at_sensitivity_95",
]  # fmt: skip
COLUMNS = [
    "path",
    "label",
    "patient",
    "split",
    "logit",
    "p_raw",
    "p_sick",
    "decision",
    "in_training",
    "pixel_hash",
    "ood_score",
    "reason",
]


def refuse_constant(text: str) -> float:
    """JSON has no NaN."""
    raise ValueError(text)


def metrics_in(folder: Path) -> dict[str, Any]:
    """metrics.json, read strictly."""
    content = json.loads((folder / "metrics.json").read_text(), parse_constant=refuse_constant)
    assert isinstance(content, dict)
    return content


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Labelled films that no run has seen."""
    return class_folders(tmp_path / "hospital", {"healthy": 14, "sick": 18}, first_seed=1000)


def test_the_test_split_is_judged_whole_and_every_number_is_scikit_learns(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    out = tmp_path / "judged"
    said = program("evaluate", tiny_run, "--split", "test", "-o", out)
    assert said.code == 0
    content = metrics_in(out)
    assert (content["split"], content["n"]) == ("test", 25)
    assert sorted(content["metrics"]) == sorted(NAMES)
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        assert next(csv.reader(file)) == COLUMNS
    rows = rows_of(out / "predictions.csv")
    kept = [r["path"] for r in rows_of(tiny_run / "data" / "manifest.csv") if r["split"] == "test"]
    assert [row["path"] for row in rows] == kept
    assert len(set(kept)) == 25
    truth = np.array([row["label"] == "sick" for row in rows]).astype(int)
    p = np.array([float(row["p_sick"]) for row in rows])
    logits = np.array([float(row["logit"]) for row in rows])
    called = (p >= content["threshold"]).astype(int)
    assert [row["decision"] == "sick" for row in rows] == called.astype(bool).tolist()
    tn, fp, fn, tp = sk.confusion_matrix(truth, called, labels=[0, 1]).ravel()
    expected = {
        "auroc": sk.roc_auc_score(truth, logits),
        "average_precision": sk.average_precision_score(truth, logits),
        "brier": sk.brier_score_loss(truth, p),
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "sensitivity": sk.recall_score(truth, called),
        "specificity": tn / (tn + fp),
        "ppv": sk.precision_score(truth, called),
        "npv": tn / (tn + fn),
        "f1": sk.f1_score(truth, called),
        "mcc": sk.matthews_corrcoef(truth, called),
        "partial_auroc": sk.roc_auc_score(truth, logits, max_fpr=0.1),
        "loss": sk.log_loss(truth, 1 / (1 + np.exp(-logits))),
    }
    for name, value in expected.items():
        assert content["metrics"][name]["value"] == pytest.approx(value, abs=1e-9), name
    counts = {"sensitivity": tp + fn, "specificity": tn + fp, "ppv": tp + fp, "npv": tn + fn}
    counts |= {"sensitivity_at_specificity_90": tp + fn, "specificity_at_sensitivity_95": tn + fp}
    for name, estimate in content["metrics"].items():
        assert set(estimate) == {"value", "ci_low", "ci_high", "method", "n"}
        assert estimate["n"] == counts.get(name, 25), name
        if estimate["ci_low"] is not None:
            assert estimate["ci_low"] <= estimate["value"] <= estimate["ci_high"], name


def test_the_validation_loss_is_the_smallest_of_the_history(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    program("evaluate", tiny_run, "--split", "val", "-o", tmp_path / "judged")
    history = [float(row["val_loss"]) for row in rows_of(tiny_run / "history.csv")]
    loss = metrics_in(tmp_path / "judged")["metrics"]["loss"]["value"]
    assert loss == pytest.approx(min(history), rel=1e-6)
    during = metrics_in(tiny_run)
    assert metrics_in(tmp_path / "judged")["metrics"] == during["metrics"]
    assert (tmp_path / "judged" / "predictions.csv").read_bytes() == (
        tiny_run / "predictions_val.csv"
    ).read_bytes()


def test_without_a_split_the_test_split_is_taken_and_said(own_run: Path, program: Program) -> None:
    said = program("evaluate", own_run)
    assert "evaluating the test split" in said.out
    [folder] = (own_run / "eval").iterdir()
    assert re.fullmatch(r"phantoms-\d{8}-\d{6}", folder.name)
    assert metrics_in(folder)["split"] == "test"


@pytest.mark.parametrize(("spelled", "meant"), [("valid", "val"), ("validation", "val")])
def test_every_spelling_of_a_split_is_understood(
    spelled: str, meant: str, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    assert program("evaluate", tiny_run, "--split", spelled, "-o", tmp_path / "o").code == 0
    assert metrics_in(tmp_path / "o")["split"] == meant


def test_the_answer_goes_straight_into_the_folder_named(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    before = snapshot(tiny_run)
    said = program("evaluate", tiny_run, "-o", tmp_path / "a" / "b", "--json")
    written = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert written == ["metrics.json", "model_card.md", "predictions.csv", "report.html"]
    assert snapshot(tiny_run) == before
    result = said.json
    assert result["out"] == str(tmp_path / "a" / "b")
    assert result["metrics"] == metrics_in(tmp_path / "a" / "b")["metrics"]
    assert "AUROC" in said.err


def test_other_data_need_no_config_and_are_taken_whole(
    tiny_run: Path, hospital: Path, tmp_path: Path, program: Program
) -> None:
    said = program("evaluate", tiny_run, "--data", hospital, "-o", tmp_path / "o")
    assert said.code == 0
    content = metrics_in(tmp_path / "o")
    assert (content["split"], content["n"]) == ("all", 32)
    answers = {
        Path(row["path"]).as_posix(): row["p_sick"]
        for row in rows_of(tmp_path / "o/predictions.csv")
    }
    program("predict", tiny_run, hospital, "-o", tmp_path / "p.csv")
    predicted = {
        Path(row["path"]).relative_to(hospital).as_posix(): row["p_sick"]
        for row in rows_of(tmp_path / "p.csv")
    }
    assert answers == predicted


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_split_folders_of_other_data_are_respected(
    name: str, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    counts = {f"{s}/{c}": n for s, n in (("train", 3), (name, 5)) for c in ("healthy", "sick")}
    data = class_folders(tmp_path / "other", counts, first_seed=2000)
    program("evaluate", tiny_run, "--data", data, "-o", tmp_path / "o")
    content = metrics_in(tmp_path / "o")
    assert (content["split"], content["n"]) == ("val", 10)
    missing = program("evaluate", tiny_run, "--data", data, "--split", "test", "-o", tmp_path / "p")
    assert missing.code == 2
    assert "train, val" in missing.err


def test_a_csv_and_an_npz_are_judged_like_the_folder(
    tiny_run: Path, hospital: Path, tmp_path: Path, program: Program
) -> None:
    files = sorted(hospital.rglob("*.png"))
    with (hospital / "films.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        table.writerows([f.relative_to(hospital).as_posix(), f.parent.name, "test"] for f in files)
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    labels = np.array([[file.parent.name == "sick"] for file in files]).astype(np.uint8)
    np.savez(tmp_path / "films.npz", test_images=images, test_labels=labels)
    program("evaluate", tiny_run, "--data", hospital, "-o", tmp_path / "folder")
    program("evaluate", tiny_run, "--data", hospital / "films.csv", "-o", tmp_path / "csv")
    said = program(
        "evaluate", tiny_run, "--data", tmp_path / "films.npz", "-o", tmp_path / "npz",
        "data.labels={healthy: [0], sick: [1]}",
    )  # fmt: skip
    assert said.code == 0, said.err
    logits = [
        [row["logit"] for row in rows_of(tmp_path / kind / "predictions.csv")]
        for kind in ("folder", "csv", "npz")
    ]
    assert logits[0] == logits[1] == logits[2]
    assert metrics_in(tmp_path / "csv")["split"] == metrics_in(tmp_path / "npz")["split"] == "test"
    assert (
        metrics_in(tmp_path / "folder")["metrics"]["auroc"]["value"]
        == metrics_in(tmp_path / "npz")["metrics"]["auroc"]["value"]
    )


def test_labels_may_be_named_on_the_command_line(
    tiny_run: Path, hospital: Path, tmp_path: Path, program: Program
) -> None:
    program("evaluate", tiny_run, "--data", hospital, "-o", tmp_path / "before")
    (hospital / "healthy").rename(hospital / "Z")
    (hospital / "sick").rename(hospital / "A")
    said = program("evaluate", tiny_run, "--data", hospital, "-o", tmp_path / "refused")
    assert said.code == 3
    assert "A (n=18), Z (n=14)" in said.err
    said = program(
        "evaluate", "data.labels={healthy: [Z], sick: [A]}", tiny_run, "--data", hospital,
        "-o", tmp_path / "after",
    )  # fmt: skip
    assert said.code == 0
    one, two = (metrics_in(tmp_path / n)["metrics"] for n in ("before", "after"))
    for name in NAMES:
        # rows change places, and the bootstrap with them: values may differ in the last bit
        assert one[name]["value"] == pytest.approx(two[name]["value"], abs=1e-12)


def test_a_missing_or_extra_class_never_flips_an_answer(
    tiny_run: Path, hospital: Path, tmp_path: Path, program: Program
) -> None:
    program("evaluate", tiny_run, "--data", hospital, "-o", tmp_path / "whole")
    truth = {
        r["path"]: (r["label"], r["p_sick"]) for r in rows_of(tmp_path / "whole/predictions.csv")
    }
    only = tmp_path / "only"
    shutil.copytree(hospital / "sick", only / "sick")
    said = program("evaluate", tiny_run, "--data", only, "-o", tmp_path / "one")
    if said.code == 0:
        rows = rows_of(tmp_path / "one" / "predictions.csv")
        assert {r["path"]: (r["label"], r["p_sick"]) for r in rows}.items() <= truth.items()
    else:
        assert said.code == 3
        assert "healthy" in said.err
    save_film(hospital / "unsure" / "x.png", 7)
    said = program("evaluate", tiny_run, "--data", hospital, "-o", tmp_path / "extra")
    assert said.code == 3
    assert "unsure" in said.err
    said = program(
        "evaluate", tiny_run, "--data", hospital, "-o", tmp_path / "ignored",
        "data.labels.ignore=[unsure]",
    )  # fmt: skip
    assert said.code == 0
    rows = rows_of(tmp_path / "ignored" / "predictions.csv")
    assert {r["path"]: (r["label"], r["p_sick"]) for r in rows} == truth


@pytest.mark.parametrize(
    "override",
    ["train.epochs=3", "data.image.size=8", "data.split.seed=1", "model.type=mlp", "seed=1"],
)
def test_nothing_else_can_be_overridden(override: str, tiny_run: Path, program: Program) -> None:
    said = program("evaluate", tiny_run, override)
    assert said.code == 2
    assert "travels with the checkpoint" in said.err
    assert "data.labels" in said.err


@pytest.mark.parametrize("policy", ["auto", "0.42", "sens=0.95", "spec=0.90", "youden"])
def test_a_threshold_is_the_same_whatever_the_data(
    policy: str, tiny_run: Path, hospital: Path, tmp_path: Path, program: Program
) -> None:
    thresholds: list[float] = []
    for where in ([], ["--data", hospital], ["--split", "train"]):
        out = tmp_path / str(len(thresholds))
        words = ["evaluate", tiny_run, *where, "--threshold", policy, "-o", out]
        assert program(*words).code == 0
        thresholds.append(metrics_in(out)["threshold"])
    assert thresholds[0] == thresholds[1] == thresholds[2]
    content = metadata_of(tiny_run / "checkpoints" / "best.safetensors")
    curve = content["operating_curve"]
    cuts = curve["thresholds"]
    truth = {
        "auto": content["threshold"]["value"],
        "0.42": 0.42,
        "sens=0.95": max(t for t, s in zip(cuts, curve["sensitivity"], strict=True) if s >= 0.95),
        "spec=0.90": min(t for t, s in zip(cuts, curve["specificity"], strict=True) if s >= 0.9),
    }
    assert thresholds[0] == truth.get(policy, thresholds[0])
    assert thresholds[0] in [*cuts, *truth.values()]


def test_one_class_alone_is_undefined_and_never_nan(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    counts = {"train/healthy": 2, "train/sick": 2, "test/sick": 6}
    data = class_folders(tmp_path / "other", counts, first_seed=3000)
    said = program("evaluate", tiny_run, "--data", data, "-o", tmp_path / "o")
    assert said.code == 0
    metrics = metrics_in(tmp_path / "o")["metrics"]
    assert metrics["auroc"]["value"] is None
    assert metrics["specificity"]["value"] is None
    assert metrics["sensitivity"]["value"] is not None
    assert "nan" not in said.out.lower()
    assert "only one class is here" in said.out
    assert not re.search(r"\bnan\b", (tmp_path / "o" / "report.html").read_text(), re.IGNORECASE)


def test_an_unreadable_image_keeps_its_row_and_the_code_is_4(
    tiny_run: Path, hospital: Path, tmp_path: Path, program: Program
) -> None:
    program("evaluate", tiny_run, "--data", hospital, "-o", tmp_path / "before")
    (hospital / "sick" / "film010.png").write_bytes(b"no image")
    said = program("evaluate", tiny_run, "--data", hospital, "-o", tmp_path / "o", "--json")
    assert said.code == 4
    assert (said.json["n"], said.json["n_unreadable"]) == (31, 1)
    rows = {r["path"]: r for r in rows_of(tmp_path / "o" / "predictions.csv")}
    empty = rows.pop("sick/film010.png")
    named = ["sick/film010.png", "sick", "", "all"]
    assert [empty[c] for c in COLUMNS] == [*named, *[""] * 7, "not_an_image"]
    before = {r["path"]: r for r in rows_of(tmp_path / "before" / "predictions.csv")}
    del before["sick/film010.png"]
    assert rows == before
    assert "1 of 32 images cannot be used and are in no metric (not_an_image: 1)" in said.err


def folder_run(tmp_path: Path, program: Program) -> Path:
    """A run on films in class folders."""
    class_folders(tmp_path / "films", {"healthy": 30, "sick": 30})
    config = tmp_path / "own.yaml"
    config.write_text(
        "data: {path: films, patient: null, image: {size: 12}, cache: cache}\n"
        "model: {type: perceptron}\ntrain: {epochs: 2, device: cpu}\n"
    )
    said = program("train", "-c", config, "-o", tmp_path / "runs", "--json")
    assert said.code == 0, said.err
    return Path(said.json["run_dir"])


def test_data_that_changed_since_training_are_refused(tmp_path: Path, program: Program) -> None:
    run = folder_run(tmp_path, program)
    films = tmp_path / "films"
    words = ("evaluate", run, "--force", "-o", tmp_path / "o")
    assert program(*words).code == 0
    (films / "sick" / "film020.png").touch()
    assert program(*words).code == 0
    whole = (films / "sick" / "film020.png").read_bytes()
    save_film(films / "sick" / "film020.png", 9999)
    said = program(*words)
    assert said.code == 3
    assert "changed since this model was trained" in said.err
    (films / "sick" / "film020.png").write_bytes(whole)
    assert program(*words).code == 0
    (films / "sick" / "film020.png").rename(films / "healthy" / "extra.png")
    assert program(*words).code == 3
    shutil.rmtree(films)
    assert program("evaluate", run, "-o", tmp_path / "o").code == 2


def test_a_config_or_threshold_changed_in_the_run_folder_changes_no_answer(
    own_run: Path, tmp_path: Path, program: Program
) -> None:
    program("evaluate", own_run, "-o", tmp_path / "before")
    (own_run / "config.yaml").write_text("data: {source: phantoms, image: {size: 99}}\n")
    program("evaluate", own_run, "-o", tmp_path / "after")
    before, after = tmp_path / "before", tmp_path / "after"
    assert metrics_apart_from_looks(before) == metrics_apart_from_looks(after)
    tables = [(folder / "predictions.csv").read_bytes() for folder in (before, after)]
    assert tables[0] == tables[1]


def test_a_checkpoint_alone_in_the_world_can_be_judged(
    tiny_run: Path, hospital: Path, tmp_path: Path, program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    alone = tmp_path / "elsewhere" / "model.safetensors"
    alone.parent.mkdir()
    shutil.copy(tiny_run / "checkpoints" / "best.safetensors", alone)
    monkeypatch.chdir(alone.parent)
    said = program("evaluate", alone, "--data", hospital)
    assert said.code == 0
    [folder] = (alone.parent / "eval").iterdir()
    assert folder.name.startswith("hospital-")


def test_no_test_value_is_seen_before_the_test_split_is_judged(tiny_run: Path) -> None:
    sealed = [float(row["test_loss"]) for row in rows_of(tiny_run / "history_test.csv")]
    assert len(sealed) == len(rows_of(tiny_run / "history.csv")) == 3
    assert "test" not in (tiny_run / "history.csv").read_text()
    shown = ("metrics.json", "log.txt", "report.html", "summary.json", "predictions_val.csv")
    for name in ("history.csv", *shown):
        text = (tiny_run / name).read_text(encoding="utf-8")
        for value in sealed:
            assert f"{value:.4f}"[:6] not in re.sub(r"base64,[^\"']*", "", text), name
    content = metadata_of(tiny_run / "checkpoints" / "best.safetensors")
    last = metadata_of(tiny_run / "checkpoints" / "last.safetensors")
    assert "test_loss" not in json.dumps([content, last])


def test_the_test_curve_is_drawn_when_the_test_split_is_judged_and_only_then(
    tiny_run: Path, hospital: Path, tmp_path: Path, program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    drawn: list[Path | None] = []

    def note(history: object, monitor: object, test_path: Path | None, reason: object) -> bytes:
        drawn.append(test_path)
        return b"png"

    monkeypatch.setattr("xray_classifier.evaluation.draw_curves", note)
    for words in (["--split", "val"], ["--split", "test"], ["--data", str(hospital)]):
        assert program("evaluate", tiny_run, *words, "-o", tmp_path / words[1]).code == 0
    assert drawn == [None, tiny_run / "history_test.csv", None]


def test_the_test_loss_cannot_be_monitored(tmp_path: Path, program: Program) -> None:
    said = program(
        "train", "-c", "demo", "-o", tmp_path, *TINY, "train.early_stopping.monitor=test_loss"
    )
    assert said.code == 2
    assert "cannot be monitored" in said.err
    assert list(tmp_path.iterdir()) == []


def test_the_test_loss_of_the_best_epoch_is_that_of_the_test_split(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    program("evaluate", tiny_run, "--split", "test", "-o", tmp_path / "o")
    best = json.loads((tiny_run / "summary.json").read_bytes())["best_epoch"]
    curve = rows_of(tiny_run / "history_test.csv")
    assert metrics_in(tmp_path / "o")["metrics"]["loss"]["value"] == pytest.approx(
        float(curve[best - 1]["test_loss"]), rel=1e-6
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--data", "absent"], 2),
        (["--split", "tset"], 2),
        (["--split", "all"], 2),
        (["--threshold", "high"], 2),
        (["--device", "tpu"], 2),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], code: int, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    said = program("evaluate", tiny_run, *words, "-o", tmp_path / "o")
    assert said.code == code
    assert not (tmp_path / "o").exists()


def test_a_folder_that_is_a_file_is_an_output_error(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "o").write_text("a file")
    assert program("evaluate", tiny_run, "-o", tmp_path / "o").code == 6


def test_the_state_of_a_run_is_no_model_to_judge(tiny_run: Path, program: Program) -> None:
    said = program("evaluate", tiny_run / "checkpoints" / "last.safetensors")
    assert said.code == 5
    assert "best.safetensors" in said.err


def test_a_damaged_checkpoint_is_refused_before_anything_is_decoded(
    own_run: Path, tmp_path: Path, program: Program
) -> None:
    path = own_run / "checkpoints" / "best.safetensors"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    for words in (["evaluate", own_run], ["predict", own_run, own_run, "-o", tmp_path / "p.csv"]):
        said = program(*words)
        assert said.code == 5
        assert "damaged" in said.err


@pytest.mark.parametrize("part", [{}, {"source": "nowhere"}, {"path": 3}, {"image": 7}])
def test_a_checkpoint_whose_data_section_makes_no_sense_is_refused(
    part: dict[str, Any], tiny_run: Path, hospital: Path, tmp_path: Path, program: Program
) -> None:
    loaded = load_checkpoint(tiny_run / "checkpoints" / "best.safetensors")
    content = {k: v for k, v in loaded.content.items() if not k.startswith("format")}
    save_checkpoint(tmp_path / "a.safetensors", loaded.tensors, {**content, "data": part})
    words = ["evaluate", tmp_path / "a.safetensors", "--data", hospital, "-o", tmp_path / "o"]
    assert program(*words).code == 5


def test_a_film_of_another_intensity_is_judged_alike(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    """`equalize` is blind to a monotone change of exposure; no flag was given for that."""
    for name, scale in (("plain", 1.0), ("dark", 0.5)):
        root = class_folders(tmp_path / name, {"healthy": 3, "sick": 3})
        for seed, path in enumerate(sorted(root.rglob("*.png"))):
            grey = film(seed).astype(np.uint16) * 64
            Image.fromarray((grey * scale).astype(np.uint16)).save(path)
        program("evaluate", tiny_run, "--data", root, "-o", tmp_path / f"o_{name}")
    one, two = (
        [float(r["p_raw"]) for r in rows_of(tmp_path / f"o_{name}" / "predictions.csv")]
        for name in ("plain", "dark")
    )
    assert one == pytest.approx(two, abs=2e-3)
    assert not math.isclose(one[0], one[1], abs_tol=1e-6)
