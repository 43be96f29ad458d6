"""Following a run live: what trackers are told, read back with TensorBoard's own reader."""

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TINY, Program, no_pictures, program, rows_of

import xray_classifier
from xray_classifier.errors import NonFiniteError, UsageError
from xray_classifier.history import COLUMNS, History, Run
from xray_classifier.model import Architecture, build_network
from xray_classifier.report.number_grid import signed_shades
from xray_classifier.step_losses import StepLosses
from xray_classifier.tracking import Tracker, Tracking, first_layer_pictures

__all__ = ["no_pictures", "program"]

LIVE = ("train.track=tensorboard", "train.early_stopping=null")


class Notebook:
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.numbers: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[tuple[int, str, bytes]] = []
        self.closed = 0

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        assert not self.closed
        self.numbers.append((step, dict(values)))

    def picture(self, step: int, name: str, png: bytes) -> None:
        assert not self.closed
        self.pictures.append((step, name, png))

    def close(self) -> None:
        self.closed += 1


def test_a_tracker_of_ones_own_is_told_each_step_each_epoch_and_the_report(tmp_path: Path) -> None:
    notebook = Notebook()
    assert isinstance(notebook, Tracker)
    result = xray_classifier.train("demo", *TINY, out=tmp_path, quiet=True, trackers=[notebook])
    history = rows_of(Path(result.run_dir) / "history.csv")
    steps = [values["step_loss"] for _, values in notebook.numbers if "step_loss" in values]
    assert len(steps) == int(history[-1]["step"])
    epochs = [(step, values) for step, values in notebook.numbers if "epoch" in values]
    for row, (step, values) in zip(history, epochs, strict=True):
        assert step == int(row["step"])
        for name in ("train_loss", "val_loss", "val_auroc", "lr"):
            assert values[name] == pytest.approx(float(row[name]), rel=1e-12)
    names = {name for _, name, _ in notebook.pictures}
    assert {"curves", "first_weights", "report/roc", "report/reliability"} <= names
    report = {name: png for _, name, png in notebook.pictures}["report/roc"]
    assert report == (Path(result.run_dir) / "roc.png").read_bytes()
    assert notebook.closed == 1


def test_the_losses_of_the_steps_average_to_that_of_the_epoch(tmp_path: Path) -> None:
    notebook = Notebook()
    words = (*TINY, "train.batch_size=50")
    result = xray_classifier.train("demo", *words, out=tmp_path, quiet=True, trackers=[notebook])
    first = rows_of(Path(result.run_dir) / "history.csv")[0]
    n_train = sum(
        row["split"] == "train" for row in rows_of(Path(result.run_dir) / "data" / "manifest.csv")
    )
    sizes = [50] * (n_train // 50) + ([n_train % 50] if n_train % 50 else [])
    losses = [values["step_loss"] for _, values in notebook.numbers if "step_loss" in values]
    mean = np.average(losses[: len(sizes)], weights=sizes)
    assert mean == pytest.approx(float(first["train_loss"]), rel=1e-9)


def test_a_resumed_run_inside_an_epoch_knows_the_loss_of_its_first_step() -> None:
    run = Run(History(COLUMNS["classify"]), 2, 4, batch=2, step=2, loss_sum=30.0, images_seen=20)
    losses = StepLosses()
    losses.on_train_start(run)
    run.batch, run.step, run.loss_sum, run.images_seen = 3, 3, 37.0, 30
    losses.on_loss_known(run)
    assert losses.values == [pytest.approx(0.7)]
    run.batch, run.step, run.loss_sum, run.images_seen = 1, 5, 5.0, 10
    losses.on_loss_known(run)
    assert losses.values[-1] == pytest.approx(0.5)


def test_a_run_that_fails_closes_its_trackers(tmp_path: Path) -> None:
    notebook = Notebook()
    wild = "train.optimizer={name: sgd, lr: 1e30}"
    with pytest.raises(NonFiniteError):
        xray_classifier.train("demo", *TINY, wild, out=tmp_path, quiet=True, trackers=[notebook])
    assert notebook.closed == 1


def test_several_models_refuse_one_tracker(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trackers follow one model"):
        xray_classifier.train("demo", *TINY, "train.seeds=2", out=tmp_path, trackers=[Notebook()])
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboard_the_pip_line_is_given_before_anything_is_written(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xray_classifier.tensorboard_tracker.find_spec", lambda name: None)
    said = program("train", "-c", "demo", "-o", tmp_path / "runs", *TINY, *LIVE)
    assert said.code == 2
    assert "pip install 'xray-classifier[track]'" in said.err
    assert not (tmp_path / "runs").exists()


def test_a_tensorboard_that_does_not_load_is_as_good_as_none(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xray_classifier.tensorboard_tracker.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it fails
    said = program("train", "-c", "demo", "-o", tmp_path / "runs", *TINY, *LIVE)
    assert said.code == 2
    assert "does not load" in said.err
    assert "pip install 'xray-classifier[track]'" in said.err
    assert not (tmp_path / "runs").exists()


def test_by_default_nothing_is_tracked(tmp_path: Path) -> None:
    result = xray_classifier.train("demo", *TINY, out=tmp_path, quiet=True)
    assert not (Path(result.run_dir) / "track").exists()


def test_the_pictures_are_the_first_weights_themselves() -> None:
    model = build_network(Architecture("mlp", 4, 1, (3,), "relu", (0.0,)), seed=1)
    pictures = first_layer_pictures(model, 4)
    assert pictures is not None
    weight = dict(model.named_parameters())["hidden.0.linear.weight"]
    np.testing.assert_allclose(pictures.reshape(3, 16), weight.detach().numpy(), rtol=1e-7)
    assert first_layer_pictures(model, 5) is None


def test_a_weight_is_blue_below_zero_vermillion_above_and_white_at_zero() -> None:
    blue, white, red = signed_shades(np.array([-2.0, 0.0, 2.0]), 2.0)
    assert white.tolist() == [1.0, 1.0, 1.0]
    assert blue[2] > blue[0]
    assert red[0] > red[2]


def test_pictures_come_at_the_end_even_of_a_short_run() -> None:
    notebook = Notebook()
    run = Run(History(COLUMNS["classify"]), 1, 1)
    row = dict.fromkeys(COLUMNS["classify"], 0.5)
    tracking = Tracking([notebook], lambda run: b"png", lambda: None)
    run.history.append({**row, "val_auroc": float("nan")})
    tracking.on_epoch_end(run)
    tracking.on_train_end(run)
    assert [name for _, name, _ in notebook.pictures] == ["curves", "curves"]
    assert "val_auroc" not in notebook.numbers[0][1]


def accumulated(folder: Path) -> Any:
    """The event files of a folder as TensorBoard reads them."""
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    found = module.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def test_tensorboard_reads_back_the_history_and_the_pictures(
    tmp_path: Path, program: Program
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    assert program("train", "-c", "demo", "-q", "-o", tmp_path, *TINY, *LIVE).code == 0
    [run] = tmp_path.glob("*_demo")
    found = accumulated(run / "track")
    history = rows_of(run / "history.csv")
    for name in ("train_loss", "val_loss", "val_auroc", "lr"):
        events = found.Scalars(name)
        assert [event.step for event in events] == [int(row["step"]) for row in history]
        expected = [float(row[name]) for row in history]
        assert [event.value for event in events] == pytest.approx(expected, rel=1e-6)
    assert [event.step for event in found.Scalars("step_loss")] == list(
        range(1, int(history[-1]["step"]) + 1)
    )
    [roc] = found.Images("report/roc")
    with (
        Image.open(run / "roc.png") as file,
        Image.open(io.BytesIO(roc.encoded_image_string)) as ours,
    ):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(file.convert("RGB")))
    assert {"curves", "first_weights"} <= set(found.Tags()["images"])


@pytest.mark.usefixtures("no_pictures")
def test_a_resumed_run_goes_on_in_the_same_stream(tmp_path: Path, program: Program) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    assert program("train", "-c", "demo", "-q", "-o", tmp_path, *TINY, *LIVE).code == 0
    [run] = tmp_path.glob("*_demo")
    from xray_classifier.tensorboard_tracker import TensorBoardTracker

    last = int(rows_of(run / "history.csv")[-1]["step"])
    stray = TensorBoardTracker(run / "track", last)  # a process killed after its last save
    stray.scalars(last + 1, {"step_loss": 99.0})
    stray.close()
    assert program("train", "--resume", run, "-q", "train.epochs=5").code == 0
    found = accumulated(run / "track")
    history = rows_of(run / "history.csv")
    assert len(history) == 5
    losses = found.Scalars("step_loss")
    assert [event.step for event in losses] == list(range(1, int(history[-1]["step"]) + 1))
    assert max(event.value for event in losses) < 99.0
    values = [event.value for event in found.Scalars("val_loss")]
    assert values == pytest.approx([float(row["val_loss"]) for row in history], rel=1e-6)
