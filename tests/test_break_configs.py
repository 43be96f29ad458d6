"""The configs that break training on purpose: each does what its header promises."""

import math
from pathlib import Path

import pytest
import torch
from tiny_runs import Program, no_pictures, program, rows_of

from xray_classifier.classifier import load_classifier
from xray_classifier.config_file import load_config, shipped_configs

__all__ = ["no_pictures", "program"]

pytestmark = pytest.mark.usefixtures("no_pictures")

HERE = ("train.device=cpu", "train.threads=1", "data.workers=1")
LN2 = math.log(2)
BROKEN = ("break/few_images", "break/leak", "break/wild_lr", "break/zero_init")


def trained(program: Program, out: Path, name: str, *words: str) -> Path:
    """The folder of a run of `-c break/NAME`."""
    said = program("train", "-c", f"break/{name}", "-o", out, "-q", *HERE, *words)
    assert said.code == 0, said.err
    return sorted(out.glob(f"*_{name}*"))[-1]


def last(run: Path, column: str) -> float:
    """The last value of a column of history.csv."""
    return float(rows_of(run / "history.csv")[-1][column])


def test_they_are_listed_and_headed_by_command_and_measurement(program: Program) -> None:
    listed = program("config", "list").out.split()
    assert [name for name in listed if name.startswith("break/")] == list(BROKEN)
    for name in BROKEN:
        text = shipped_configs()[name].read_text(encoding="utf-8")
        header = text.split("name:")[0]
        assert f"xray-classifier train -c {name}" in header
        assert "seeds 0, 1, 2" in header
        assert "EPYC" in header
        assert load_config(name).config.data.source == "phantoms"


def test_a_leak_is_refused_and_flatters_validation_where_one_looks_away(
    tmp_path: Path, program: Program
) -> None:
    small = ("data.phantoms.n_images=600", "train.epochs=40")
    refused = program("train", "-c", "break/leak", "-o", tmp_path, *HERE, *small)
    assert refused.code == 3
    assert "seen in an earlier split" in refused.err
    assert list(tmp_path.glob("*_leak")) == []
    run = trained(program, tmp_path, "leak", *small, "data.audit=off")
    judged = program("evaluate", run, "--split", "test", "-o", tmp_path / "test", "--json")
    flattered, honest = last(run, "val_auroc"), judged.json["metrics"]["auroc"]["value"]
    assert flattered > honest + 0.03


def test_a_leak_that_is_left_out_leaves_the_few_honest_films(
    tmp_path: Path, program: Program
) -> None:
    small = ("data.phantoms.n_images=600", "train.epochs=1", "data.phantoms.leak=0.5")
    run = trained(program, tmp_path, "leak", *small, "data.audit=warn")
    rows = rows_of(run / "data" / "manifest.csv")
    assert [row for row in rows if "-again-" in row["path"] and row["split"]] == []


def test_a_wild_learning_rate_ends_worse_than_knowing_nothing(
    tmp_path: Path, program: Program
) -> None:
    said = program("train", "-c", "break/wild_lr", "-o", tmp_path, "-q", *HERE)
    assert said.code in (0, 7)
    [run] = tmp_path.glob("*_wild_lr")
    if said.code == 0:
        assert float(rows_of(run / "history.csv")[0]["train_loss"]) > 100
        assert last(run, "val_loss") > LN2
        assert last(run, "val_auroc") == 0.5  # every unit answers 0 to every film
    tame = trained(program, tmp_path / "tame", "wild_lr", "train.optimizer.lr=0.03")
    assert last(tame, "val_loss") < 0.6


def test_zero_weights_keep_all_hidden_units_alike(tmp_path: Path, program: Program) -> None:
    run = trained(program, tmp_path, "zero_init")
    model = load_classifier(run).model
    weight = model.get_parameter("hidden.0.linear.weight").detach()
    assert weight.abs().max() > 1e-3  # they did learn
    assert torch.allclose(weight, weight[:1].expand_as(weight), rtol=0, atol=1e-6)
    assert last(run, "val_auroc") > 0.7  # as much as one unit can
    dead = trained(program, tmp_path / "relu", "zero_init", "model.activation=relu")
    assert load_classifier(dead).model.get_parameter("hidden.0.linear.weight").abs().max() == 0
    assert last(dead, "train_loss") == pytest.approx(LN2, abs=2e-3)
    alive = trained(program, tmp_path / "kaiming", "zero_init", "model.init=kaiming")
    weight = load_classifier(alive).model.get_parameter("hidden.0.linear.weight").detach()
    assert (weight - weight.mean(0)).abs().max() > 1e-2


def test_few_images_are_learnt_by_heart_unless_units_drop_out(
    tmp_path: Path, program: Program
) -> None:
    run = trained(program, tmp_path, "few_images", "train.epochs=100")
    assert last(run, "train_loss") < 0.3
    assert last(run, "val_loss") > last(run, "train_loss") + 0.5
    held = trained(
        program, tmp_path / "held", "few_images", "train.epochs=100", "model.dropout=0.5"
    )
    gap = last(held, "val_loss") - last(held, "train_loss")
    assert gap < 0.5 * (last(run, "val_loss") - last(run, "train_loss"))
