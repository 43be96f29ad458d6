"""The shipped configs on real radiographs, as a user runs them; skipped where these are absent."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

from xray_classifier import evaluate, predict, train

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
KERMANY = SHARED / "kermany224"
FULL_SIZE = SHARED / "kermany_fullres"
PNEUMONIAMNIST = SHARED / "pneumoniamnist" / "pneumoniamnist_trainval.npz"
NIH = SHARED / "nih1000"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no real radiographs in ../shared/data")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


def _trained(place: Path, config: str, data: Path, epochs: int, *overrides: str) -> Any:
    return train(
        config,
        f"data.path={data}",
        f"data.cache={place / 'cache'}",
        f"train.epochs={epochs}",
        *overrides,
        out=place / "runs",
        quiet=True,
    )


@pytest.fixture(scope="module")
def kermany(place: Path) -> Any:
    return _trained(place, "kermany", KERMANY, epochs=5)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_kermany_reaches_098_on_patients_it_has_not_seen(kermany: Any) -> None:
    manifest = _rows(Path(kermany.run_dir) / "data" / "manifest.csv")
    assert len(manifest) == 5216
    splits: dict[str, set[str]] = {}
    for row in manifest:
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    rows = _rows(Path(kermany.run_dir) / "predictions_val.csv")
    truth = [row["label"] == "sick" for row in rows]
    area = roc_auc_score(truth, [float(row["p_sick"]) for row in rows])
    assert area >= 0.98
    assert kermany.metrics["auroc"]["value"] == pytest.approx(area, abs=1e-9)


def test_kermany_is_evaluated_on_its_sealed_test_split(kermany: Any, place: Path) -> None:
    result = evaluate(kermany.run_dir, out=place / "test", quiet=True)
    assert result.split == "test"
    assert result.n == 782
    stored = json.loads((place / "test" / "metrics.json").read_text())
    auroc = stored["metrics"]["auroc"]
    assert auroc["value"] >= 0.97
    assert auroc["ci_low"] < auroc["value"] < auroc["ci_high"]


def test_full_size_films_are_predicted_in_order(kermany: Any, place: Path) -> None:
    out = place / "full.csv"
    result = predict(kermany.run_dir, FULL_SIZE, out, quiet=True)
    rows = _rows(out)
    names = [row["path"] for row in rows]
    assert names == sorted(names)
    images = [row for row in rows if row["status"] == "ok"]
    assert len(images) == result.ok == 205
    assert [row["reason"] for row in rows if row["status"] != "ok"] == ["not_an_image"]
    truth = ["PNEUMONIA" in row["path"] for row in images]
    assert roc_auc_score(truth, [float(row["p_sick"]) for row in images]) > 0.95


def test_pneumoniamnist_leaves_out_the_validation_images_that_stand_in_train(place: Path) -> None:
    run = _trained(place, "pneumoniamnist", PNEUMONIAMNIST, 3, "train.seeds=1")
    manifest = _rows(Path(run.run_dir) / "data" / "manifest.csv")
    assert len(manifest) == 4708 + 524
    left_out = [row["path"] for row in manifest if row["reason"] == "leak"]
    assert len(left_out) == 8
    assert all(path.startswith("val_images/") for path in left_out)
    assert run.metrics["auroc"]["n"] == 524 - 8
    assert run.metrics["auroc"]["value"] > 0.95
    judged = evaluate(run.run_dir, PNEUMONIAMNIST, split="val", out=place / "mnist", quiet=True)
    assert judged.n == 524


def test_nih_leaves_out_the_76_validation_images_of_known_patients(place: Path) -> None:
    run = _trained(place, "nih1000", NIH, epochs=3)
    manifest = _rows(Path(run.run_dir) / "data" / "manifest.csv")
    assert sum(row["reason"] == "leak" for row in manifest) == 76
    assert run.metrics["auroc"]["n"] == 200 - 76
    result = predict(run.run_dir, NIH / "valid", place / "nih.csv", quiet=True)
    assert result.ok == result.n == 200
