"""A run that was stopped goes on as if it had not been: equal to the last bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import same_weights, stack, trainer, weights_of

from xray_classifier.building import run_learning_rate
from xray_classifier.callbacks import Callback, Checkpoints, EarlyStopping
from xray_classifier.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from xray_classifier.config import TrainConfig
from xray_classifier.errors import CheckpointError, UsageError
from xray_classifier.history import Monitor, Run
from xray_classifier.resume import load_for_resume, newest_unfinished, restore, training_state
from xray_classifier.trainer import Trainer

KINDS: dict[str, dict[str, Any]] = {
    "momentum": {
        "optimizer": {"name": "sgd", "lr": 0.2, "momentum": 0.9},
        "schedule": {"name": "constant"},
    },
    "adamw": {
        "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "amsgrad": True},
        "schedule": {"name": "exponential", "factor": 0.7},
    },
    "plateau": {
        "optimizer": {"name": "adam", "lr": 0.05},
        "schedule": {"name": "plateau", "patience": 1, "factor": 0.3},
    },
    "cosine": {
        "optimizer": {"name": "nadam", "lr": 0.02},
        "schedule": {"name": "cosine", "warmup_epochs": 1.5},
    },
}
EPOCHS, STEPS = 4, 20  # 5 batches an epoch


def made(kind: str, callbacks: tuple[Callback, ...] = (), epochs: int = EPOCHS) -> Trainer:
    """A fresh trainer with dropout and running statistics, the same each time."""
    train = TrainConfig.model_validate(KINDS[kind])
    return trainer(
        stack((12, 12), dropout=0.4, norm="batch", residual=True),
        epochs=epochs,
        optimizer=KINDS[kind]["optimizer"],
        learning_rate=run_learning_rate(train),
        callbacks=callbacks,
        grad_clip=1.0,
    )


class StopAt(Callback):
    """Raises the flag after a step, as a signal would."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.trainer: Trainer | None = None

    def on_step_end(self, run: Run) -> None:
        if run.step == self.step and self.trainer is not None:
            self.trainer.request.signal_name = "SIGTERM"


def stopped(kind: str, step: int, start_from: Path | None, path: Path) -> None:
    """Train up to a step in a trainer of its own and save the state."""
    flag = StopAt(step)
    part = made(kind, (flag,))
    flag.trainer = part
    if start_from is not None:
        restore(part, load_checkpoint(start_from))
    part.fit()
    assert part.run.step == step
    save_checkpoint(path, *training_state(part))


def outcome(of: Trainer) -> tuple[dict[str, torch.Tensor], Any, list[dict[str, float]]]:
    """Weights, optimizer state and history, without the time it took."""
    rows = [{k: v for k, v in row.items() if k != "elapsed_s"} for row in of.run.history.rows]
    return weights_of(of.model), of.optimizer.state_dict()["state"], rows


def assert_equal(one: Trainer, other: Trainer) -> None:
    (weights, state, rows), (weights_2, state_2, rows_2) = outcome(one), outcome(other)
    assert same_weights(weights, weights_2)
    assert rows == rows_2
    assert state.keys() == state_2.keys()
    for index, values in state.items():
        for key, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(state_2[index][key])), key


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_at_any_step_ends_like_an_unbroken_one(kind: str, tmp_path: Path) -> None:
    whole = made(kind)
    whole.fit()
    assert whole.run.step == STEPS
    for step in (1, 4, 5, 6, 12, 15, 19, 20):  # 5, 15, 20 are the last of an epoch
        stopped(kind, step, None, tmp_path / "last.safetensors")
        second = made(kind)
        restore(second, load_checkpoint(tmp_path / "last.safetensors"))
        second.fit()
        assert_equal(second, whole)


def test_many_stops_in_a_row_change_nothing(tmp_path: Path) -> None:
    path, start = tmp_path / "last.safetensors", None
    for step in range(1, STEPS, 2):
        stopped("plateau", step, start, path)
        start = path
    last, whole = made("plateau"), made("plateau")
    restore(last, load_checkpoint(path))
    last.fit()
    whole.fit()
    assert_equal(last, whole)
    assert len(set(whole.run.history.column("lr"))) > 1  # the plateau did drop the rate


def test_a_finished_run_can_be_extended(tmp_path: Path) -> None:
    short, longer, whole = made("momentum", epochs=2), made("momentum"), made("momentum")
    short.fit()
    save_checkpoint(tmp_path / "last.safetensors", *training_state(short))
    restore(longer, load_checkpoint(tmp_path / "last.safetensors"))
    longer.fit()
    whole.fit()
    assert_equal(longer, whole)


def test_a_resumed_run_waits_exactly_as_long(tmp_path: Path) -> None:
    def stopping(path: Path | None) -> Trainer:
        patient = EarlyStopping(Monitor("val_loss", "min"), patience=3)
        of = made("momentum", (patient,), epochs=60)
        if path is not None:
            restore(of, load_checkpoint(path))
        of.fit()
        return of

    whole = stopping(None)
    assert 3 < whole.run.epoch < 60
    stopped("momentum", 7, None, tmp_path / "last.safetensors")
    assert_equal(stopping(tmp_path / "last.safetensors"), whole)
    save_checkpoint(tmp_path / "end.safetensors", *training_state(whole))
    assert_equal(stopping(tmp_path / "end.safetensors"), whole)


def test_a_finished_run_that_is_resumed_keeps_its_validation_outputs(tmp_path: Path) -> None:
    """The best checkpoint is written once more at the end, and its threshold rests on them."""
    whole = made("momentum")
    whole.fit()
    save_checkpoint(tmp_path / "state.safetensors", *training_state(whole))
    again = made("momentum")
    saved: list[Any] = []

    def best() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        saved.append(again.run.val_outputs)
        return again.model.state_dict(), {}

    again.callbacks = [Checkpoints(tmp_path, None, best, lambda: training_state(again), None, None)]
    restore(again, load_checkpoint(tmp_path / "state.safetensors"))
    again.fit()
    assert whole.run.val_outputs is not None
    assert len(saved) == 1
    assert np.array_equal(saved[0], whole.run.val_outputs)


def test_time_spent_before_counts(tmp_path: Path) -> None:
    first, second = made("adamw"), made("adamw")
    first.run.earlier_s = 5000.0
    save_checkpoint(tmp_path / "last.safetensors", *training_state(first))
    restore(second, load_checkpoint(tmp_path / "last.safetensors"))
    assert 5000.0 <= second.run.elapsed_s < 5100.0


def state_of(kind: str, tmp_path: Path) -> Checkpoint:
    of = made(kind, epochs=1)
    of.fit()
    save_checkpoint(tmp_path / "last.safetensors", *training_state(of))
    return load_checkpoint(tmp_path / "last.safetensors")


def test_a_state_of_another_network_or_a_best_file_is_refused(tmp_path: Path) -> None:
    state = state_of("adamw", tmp_path)
    with pytest.raises(CheckpointError, match="does not fit"):
        restore(trainer(stack((3,)), optimizer=KINDS["adamw"]["optimizer"]), state)
    best = Checkpoint(state.tensors, {**state.content, "kind": "best"}, state.path)
    with pytest.raises(CheckpointError, match="no state that can be resumed"):
        restore(made("adamw"), best)
    without = {k: v for k, v in state.content.items() if k != "counters"}
    with pytest.raises(CheckpointError, match="counters"):
        restore(made("adamw"), Checkpoint(state.tensors, without, state.path))


def run_folder(path: Path, status: str | None, state: bool = True) -> Path:
    """A folder that looks like a run's."""
    (path / "checkpoints").mkdir(parents=True)
    if status is not None:
        (path / "summary.json").write_text(json.dumps({"status": status}))
    if state:
        (path / "checkpoints" / "last.safetensors").write_bytes(b"")
    return path


def test_the_newest_unfinished_run_of_a_name_is_found(tmp_path: Path) -> None:
    assert newest_unfinished(tmp_path, "mlp") is None
    assert newest_unfinished(tmp_path / "nowhere", "mlp") is None
    old = run_folder(tmp_path / "20260101-000000_mlp", "interrupted")
    run_folder(tmp_path / "20260103-000000_mlp", "finished")
    run_folder(tmp_path / "20260104-000000_mlp_big", "interrupted")
    run_folder(tmp_path / "20260105-000000_mlp", "running", state=False)
    run_folder(tmp_path / "20260106-000000_mlp", None)
    (run_folder(tmp_path / "20260107-000000_mlp", "x") / "summary.json").write_text("{")
    assert newest_unfinished(tmp_path, "mlp") == old
    newer = run_folder(tmp_path / "20260102-000000_mlp-2", "failed")
    assert newest_unfinished(tmp_path, "mlp") == newer


@pytest.mark.parametrize(
    ("first", "second"),
    [("20260101-000000_m", "20260101-000000_m-2"), ("20260101-000000_m-2", "20260101-000000_m-10")],
)
def test_of_two_runs_of_one_second_the_later_number_is_newer(
    tmp_path: Path, first: str, second: str
) -> None:
    run_folder(tmp_path / first, "interrupted")
    newer = run_folder(tmp_path / second, "interrupted")
    assert newest_unfinished(tmp_path, "m") == newer


CONFIG = "data: {source: phantoms}\ntrain: {epochs: 3}\n"


def resumed_epochs(folder: Path) -> Callable[[str], int]:
    (folder / "config.yaml").write_text(CONFIG)
    return lambda override: load_for_resume(folder, [override]).config.train.epochs


def test_only_keys_that_leave_the_past_alone_may_change(tmp_path: Path) -> None:
    epochs = resumed_epochs(run_folder(tmp_path / "run", "interrupted"))
    assert epochs("train.epochs=200") == 200
    assert epochs("train.early_stopping.patience=50") == 3
    for wrong in ("train.optimizer.lr=1", "seed=1", "train.epochsx=3", "train=null"):
        with pytest.raises(UsageError, match="cannot change when a run is resumed"):
            epochs(wrong)


def test_a_run_without_a_state_cannot_be_resumed(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "running", state=False)
    (folder / "config.yaml").write_text("data: {source: phantoms}\n")
    with pytest.raises(CheckpointError, match=r"last\.safetensors"):
        load_for_resume(folder, [])
