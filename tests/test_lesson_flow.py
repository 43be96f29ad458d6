"""Norms against autograd, dead units against counting, warnings against made-up illness; and a run
that records is, to the last bit, the run that does not."""

import csv
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from builders import layers, output, same_weights, split, stack, trainer, weights_of
from tiny_runs import TINY

from xray_classifier.cli import main
from xray_classifier.data.dataset import Standardize, batch_positions, epoch_order
from xray_classifier.lesson.flow import LayerFlow, flow_warnings, layer_words, measure_flow
from xray_classifier.lesson.recording import LessonRecorder, read_flow, read_snapshots
from xray_classifier.losses import BinaryCrossEntropy
from xray_classifier.model import Architecture, build_network
from xray_classifier.report.flow_figure import flow_figure

STANDARDIZE = Standardize(0.5, 0.29)


def test_norms_are_those_of_backpropagation() -> None:
    model, images, loss = stack((7, 5), dropout=0.5), split(30), BinaryCrossEntropy()
    before = {"hidden.1.linear": layers(model)[1].linear.weight.detach() + 0.5}
    others = {n: m.weight for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    state, random = weights_of(model), torch.get_rng_state()
    model.train()
    found = measure_flow(
        model, STANDARDIZE, loss, images, epoch=3,
        before={n: before.get(n, w.detach()) for n, w in others.items()},
    )  # fmt: skip
    assert model.training
    assert same_weights(state, weights_of(model))
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    pixels, targets = images.gather(torch.arange(30))
    loss(model.eval()(STANDARDIZE(pixels)), targets).backward()
    assert [row.layer for row in found] == ["hidden.0.linear", "hidden.1.linear", "output"]
    for row in found:
        weight = model.get_submodule(row.layer).get_parameter("weight")
        assert weight.grad is not None
        assert row.gradient_norm == pytest.approx(float(weight.grad.norm()), rel=1e-5)
        assert row.weight_norm == pytest.approx(float(weight.detach().norm()), rel=1e-5)
        assert row.epoch == 3
    assert found[1].update_norm == pytest.approx(math.sqrt(0.25 * 35), rel=1e-5)
    assert found[0].update_norm == found[2].update_norm == 0.0
    assert math.isnan(found[2].dead_share)


@pytest.mark.parametrize(
    ("activation", "bias"), [("relu", -99.0), ("sigmoid", 99.0), ("tanh", 99.0)]
)
def test_units_that_never_change_their_answer_are_dead(activation: str, bias: float) -> None:
    model = stack((8,), activation)
    with torch.no_grad():
        layers(model)[0].linear.bias[:3] = bias
    found = measure_flow(model, STANDARDIZE, BinaryCrossEntropy(), split(30), epoch=1)
    assert found[0].dead_share == pytest.approx(3 / 8)


def test_a_mixer_has_its_layers_named_and_measured() -> None:
    keys = {"patch_px": 3, "channels": 8, "blocks": 2, "token_units": 6, "channel_units": 4}
    model = build_network(
        Architecture.from_keys("mixer", 6, (), "relu", 0.1, "none", False, "kaiming", keys), 3
    )
    with torch.no_grad():
        model.get_submodule("blocks.1.channel_mixing.hidden").get_parameter("bias")[:] = -99.0
    found = measure_flow(model, STANDARDIZE, BinaryCrossEntropy(), split(30), epoch=1)
    shares = {layer_words(row.layer): row.dead_share for row in found}
    assert shares["mixer 2, channels, hidden"] == 1.0
    assert shares["mixer 1, patches, hidden"] < 1.0
    assert math.isnan(shares["mixer 1, patches, output"])
    assert next(iter(shares)) == "patch embedding"
    assert list(shares)[-1] == "output unit"


def healthy(epoch: int, layer: str = "hidden.0.linear") -> LayerFlow:
    """A layer without a complaint."""
    return LayerFlow(epoch, layer, 10.0, 1.0, 0.01, 0.1)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"dead_share": 0.7}, "70 % of the units give the same answer"),
        ({"update_norm": 0.5}, "thrown about"),
        ({"update_norm": 1e-6}, "hardly moves"),
        ({"gradient_norm": 1e-6}, "vanished"),
    ],
)
def test_illness_is_said_in_words_with_what_to_do(change: dict[str, float], hint: str) -> None:
    from dataclasses import replace

    last = [healthy(epoch, "output") for epoch in range(1, 6)]
    well = [healthy(epoch) for epoch in range(1, 6)]
    assert flow_warnings([*well, *last]) == []
    (said,) = flow_warnings([*(replace(row, **change) for row in well), *last])
    assert hint in said
    assert "model." in said or "train." in said


def test_a_gradient_that_explodes_once_is_said() -> None:
    from dataclasses import replace

    rows = [healthy(epoch) for epoch in range(1, 8)]
    rows[3] = replace(rows[3], gradient_norm=500.0)
    (said,) = flow_warnings(rows)
    assert "500 times its median" in said
    assert "train.grad_clip" in said


def test_the_recorded_step_is_the_last_one_of_the_epoch(tmp_path: Path) -> None:
    watched = trainer(stack((5,)), epochs=3)
    plain = trainer(stack((5,)), epochs=3)
    recorder = LessonRecorder(tmp_path / "lesson", watched)
    watched.callbacks = (recorder,)
    watched.fit()
    steps: list[float] = []
    first = layers(plain.model)[0].linear.weight  # type: ignore[arg-type]
    for epoch in range(3):
        for index in batch_positions(epoch_order(40, 0, epoch), 8):
            before = first.detach().clone()
            plain.step(index)
            plain.run.step += 1
        steps.append(float((first.detach() - before).norm()))
    assert same_weights(weights_of(watched.model), weights_of(plain.model))
    rows = [row for row in read_flow(tmp_path / "lesson") if row.layer == "hidden.0.linear"]
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert [row.update_norm for row in rows] == pytest.approx(steps, rel=1e-5)


def test_snapshots_stay_below_their_bound_and_evenly_spaced(tmp_path: Path) -> None:
    watched = trainer(stack(), epochs=23, n=16)
    watched.callbacks = (LessonRecorder(tmp_path / "lesson", watched, most_bytes=1),)
    watched.fit()
    snapshots = read_snapshots(tmp_path, watched.model)
    epochs = [s.epoch for s in snapshots]
    assert 2 <= len(epochs) <= 4
    assert epochs[0] == 0
    assert len({b - a for a, b in pairwise(epochs)}) == 1
    first = stack()
    assert torch.equal(snapshots[0].weights["output.weight"], output(first).weight)


def history_of(run: Path) -> list[dict[str, str]]:
    """Records without the time."""
    with (run / "history.csv").open(encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "elapsed_s"} for row in csv.DictReader(file)]


def test_a_run_that_records_is_the_run_that_does_not(tmp_path: Path) -> None:
    runs = []
    for name, more in (("seen", ["train.lesson=true"]), ("plain", [])):
        words = ["train", "-c", "demo", "-q", "-o", str(tmp_path), "--name", name, *TINY, *more]
        assert main([*words, "model.dropout=0.5", "train.augment.rotate_degrees=5"]) == 0
        runs.append(next(tmp_path.glob(f"*_{name}")))
    seen, plain = runs
    assert history_of(seen) == history_of(plain)
    assert (seen / "predictions_val.csv").read_bytes() == (
        plain / "predictions_val.csv"
    ).read_bytes()
    assert not (plain / "lesson").exists()
    rows = read_flow(seen / "lesson")
    assert {row.epoch for row in rows} == {1, 2, 3}
    assert all(math.isfinite(row.update_norm) for row in rows)
    by_layer = {"hidden layer 1": [r for r in rows if r.layer == "hidden.0.linear"]}
    assert len(flow_figure(by_layer, healthy=(1e-5, 1e-2), n=64).axes) == 4


def test_a_resumed_run_goes_on_with_its_record(tmp_path: Path) -> None:
    words = ["train", "-c", "demo", "-q", "-o", str(tmp_path), "--name", "long", *TINY]
    assert main([*words, "train.lesson=true"]) == 0
    run = next(tmp_path.glob("*_long"))
    assert main(["train", "-q", "--resume", str(run), "train.epochs=5"]) == 0
    rows = [row for row in read_flow(run / "lesson") if row.layer == "output"]
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5]
