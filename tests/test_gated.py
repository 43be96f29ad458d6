"""The input gate in `evaluate`: warn, refuse, off."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, Program, class_folders, no_pictures, program, rows_of

from xray_classifier.data.phantoms import draw_phantom

__all__ = ["no_pictures", "program"]

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with enough images for a gate."""
    from xray_classifier.cli import main

    out = tmp_path_factory.mktemp("gate")
    keys = (*TINY, "data.phantoms.n_images=500", "train.epochs=2")
    assert main(["train", "-c", "demo", "-q", "-o", str(out), *keys]) == 0
    return next(out.glob("*_demo"))


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """Ten films of new patients and ten smooth pictures that are no films of a thorax."""
    folder = class_folders(tmp_path / "strangers", {"healthy": 5, "sick": 5})
    counts = {0: 0, 1: 0}
    for index in range(200):
        phantom = draw_phantom(99, index)
        label = int(phantom.label)
        if counts[label] < 5:
            name = f"{('healthy', 'sick')[label]}/phantom{counts[label]}.png"
            Image.fromarray(phantom.pixels).save(folder / name)
            counts[label] += 1
    return folder


def test_strange_images_are_counted_and_scored(
    run: Path, strangers: Path, tmp_path: Path, program: Program
) -> None:
    said = program("evaluate", run, "--data", strangers, "-o", tmp_path / "o")
    assert said.code == 0
    assert "unlike the training data" in said.out
    rows = rows_of(tmp_path / "o" / "predictions.csv")
    scores = np.array([float(row["ood_score"]) for row in rows])
    phantoms = np.array(["phantom" in row["path"] for row in rows])
    assert (scores[~phantoms] > 1).all()
    assert (scores[phantoms] > 1).sum() <= 1
    assert all(row["decision"] for row in rows)
    own = tmp_path / "own"
    program("evaluate", run, "-o", own)
    ours = np.array([float(row["ood_score"]) for row in rows_of(own / "predictions.csv")])
    assert np.mean(ours > 1) < 0.1


def test_refused_images_are_in_no_metric_and_in_the_worst_case(
    run: Path, strangers: Path, tmp_path: Path, program: Program
) -> None:
    seen = tmp_path / "seen"
    program("evaluate", run, "--data", strangers, "-o", seen)
    flagged = sum(float(r["ood_score"]) > 1 for r in rows_of(seen / "predictions.csv"))
    said = program("evaluate", run, "--data", strangers, "-o", tmp_path / "o", "--gate", "refuse")
    assert said.code == 4
    content = json.loads((tmp_path / "o" / "metrics.json").read_text())
    covered = content["coverage"]
    assert (content["n"], content["n_unreadable"]) == (20 - flagged, flagged)
    assert covered["rejected"] == flagged
    assert covered["worst_case"]["sensitivity"]["n"] == 10
    refused = [r for r in rows_of(tmp_path / "o" / "predictions.csv") if r["reason"]]
    assert len(refused) == flagged
    assert all(r["decision"] == r["p_sick"] == "" for r in refused)


def test_without_the_gate_nothing_is_looked_at(
    run: Path, strangers: Path, tmp_path: Path, program: Program
) -> None:
    said = program("evaluate", run, "--data", strangers, "-o", tmp_path / "o", "--gate", "off")
    assert "unlike the training data" not in said.out
    rows = rows_of(tmp_path / "o" / "predictions.csv")
    assert {row["ood_score"] for row in rows} == {""}
