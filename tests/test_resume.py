"""A run that was stopped goes on as if it had not been: equal to the last bit."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import same_weights, stack, trainer, weights_of

from xray_classifier.building import run_learning_rate
from xray_classifier.callbacks import Callback, Checkpoints, EarlyStopping
from xray_classifier.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    NewerVersionError,
    load_checkpoint,
    save_checkpoint,
)
from xray_classifier.config import TrainConfig
from xray_classifier.config_file import load_config
from xray_classifier.data.loading import run_loading
from xray_classifier.errors import CheckpointError, OutputError, UsageError
from xray_classifier.history import Monitor, Run
from xray_classifier.resume import (
    INDEX_LEFTOVER_AGE_S,
    load_for_resume,
    newest_state,
    newest_unfinished,
    restore,
    tidy_run,
    training_state,
)
from xray_classifier.terminal import Terminal
from xray_classifier.trainer import Trainer
from xray_classifier.verify_resume import differing_tensors, end_tensors, train_part

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
        "optimizer": {"name": "adam", "lr": 0.3},
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


SIXTY_STEPS = (
    "data.phantoms.n_images=160",
    "data.image.size=16",
    "data.workers=1",
    "model.hidden=[12]",
    "train.batch_size=12",
    "train.epochs=6",
    "train.early_stopping.patience=100",
    "train.schedule.warmup_epochs=1.5",
    "train.checkpoint_every={steps: null, minutes: null}",
    "train.device=cpu",
    "train.threads=1",
)
RANDOM_KEYS: dict[str, tuple[str, ...]] = {
    "dropout": ("model.dropout=0.4", "model.norm=batch"),
    "everything": (
        "model.dropout=0.4",
        "train.ema=0.9",
        "train.mixup=0.4",
        "train.augment={rotate_degrees: 10, scale: 0.1, translate: 0.1, noise: 0.05, cutout: 0.2}",
    ),
}
"""Keys by what they switch on: all that draws random numbers or carries a state of its own."""


@pytest.mark.parametrize("what", RANDOM_KEYS)
def test_resume_is_exact_for_every_step_of_sixty(what: str, tmp_path: Path) -> None:
    """One run is stopped after each step; from each of these states another goes to the end."""
    config = load_config("demo", [*SIXTY_STEPS, *RANDOM_KEYS[what]]).config
    radiographs = run_loading(config.data, config.task, Terminal(quiet=True))
    folders = [tmp_path / name for name in ("whole", "chain", "branch")]
    whole, chain, branch = folders
    for folder in (whole, chain):
        (folder / "checkpoints").mkdir(parents=True)
    run = train_part(config, radiographs, whole, resume=False, stop=None).run
    assert run.step == 60
    expected = end_tensors(whole)
    for step in range(1, 60):
        part = train_part(config, radiographs, chain, resume=step > 1, stop=step)
        assert part.run.step == step
        shutil.copytree(chain, branch)
        other = train_part(config, radiographs, branch, resume=True, stop=None).run
        assert differing_tensors(expected, end_tensors(branch)) == (), step
        assert rows_of_run(other) == rows_of_run(run)
        shutil.rmtree(branch)


def rows_of_run(run: Run) -> list[dict[str, float]]:
    """The history without the time it took."""
    return [{k: v for k, v in row.items() if k != "elapsed_s"} for row in run.history.rows]


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


def saved_twice(run_dir: Path) -> tuple[Path, Path]:
    """States of steps 5 and 10 in a run folder, as a run saves them."""
    of = made("momentum", epochs=2)
    (run_dir / "checkpoints").mkdir(parents=True)
    nothing: Any = ({}, {})
    of.callbacks = [
        Checkpoints(
            run_dir / "checkpoints", None, lambda: nothing, lambda: training_state(of), 5, None
        )
    ]
    of.fit()
    save_checkpoint(
        run_dir / "checkpoints" / "previous.safetensors", *state_at(5)
    )  # the end saves step 10 twice
    last, previous = (run_dir / "checkpoints" / f"{n}.safetensors" for n in ("last", "previous"))
    return last, previous


def state_at(step: int) -> Any:
    """The state of the same run after a step."""
    flag = StopAt(step)
    part = made("momentum", (flag,), epochs=2)
    flag.trainer = part
    part.fit()
    return training_state(part)


def step_of(state: Checkpoint) -> int:
    return int(state.content["counters"]["step"])


def test_the_last_state_is_taken_where_it_is_sound(tmp_path: Path) -> None:
    saved_twice(tmp_path)
    said: list[str] = []
    assert step_of(newest_state(tmp_path, said.append)) == 10
    assert said == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "missing"])
def test_a_damaged_or_missing_state_falls_back_to_the_one_before_and_says_so(
    damage: str, tmp_path: Path
) -> None:
    last, previous = saved_twice(tmp_path)
    spoil(last, damage)
    said: list[str] = []
    state = newest_state(tmp_path, said.append)
    assert step_of(state) == 5
    assert len(said) == 1
    assert "last.safetensors" in said[0]
    assert "previous.safetensors of step 5, is taken instead" in said[0]
    # the next save must not push the only sound state out
    assert tidy_run(tmp_path, state) == []
    assert not last.exists()
    assert last.with_name("damaged.safetensors").exists() == (damage != "missing")
    save_checkpoint(last, *state_at(6), previous)
    assert [step_of(load_checkpoint(p)) for p in (last, previous)] == [6, 5]


def spoil(path: Path, damage: str) -> None:
    """Damage a file in one of four ways."""
    raw = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
        return
    if damage == "flipped":
        raw[-3] ^= 0x10
    path.write_bytes({"flipped": raw, "cut": raw[:-1], "empty": b""}[damage])


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_where_no_state_is_sound_both_are_named(damage: str, tmp_path: Path) -> None:
    last, previous = saved_twice(tmp_path)
    spoil(last, damage)
    spoil(previous, "cut")
    with pytest.raises(CheckpointError) as caught:
        newest_state(tmp_path, print)
    assert "last.safetensors" in str(caught.value)
    assert "previous.safetensors" in str(caught.value)
    assert caught.value.exit_code == 5
    assert previous.exists()


def test_a_state_of_a_newer_version_is_not_passed_over(tmp_path: Path) -> None:
    last, _ = saved_twice(tmp_path)
    tensors, content = state_at(10)
    save_checkpoint(last, tensors, {**content, "format_version": FORMAT_VERSION + 1})
    with pytest.raises(NewerVersionError):
        newest_state(tmp_path, print)
    assert last.exists()


def test_a_damaged_state_that_cannot_be_set_aside_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, _ = saved_twice(tmp_path)
    spoil(last, "cut")

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    state = newest_state(tmp_path, lambda text: None)
    with pytest.raises(OutputError, match=r"last\.safetensors: Permission denied"):
        tidy_run(tmp_path, state)


def test_a_run_whose_last_state_is_gone_is_still_found(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "20260101-000000_mlp", "interrupted")
    (run / "checkpoints" / "last.safetensors").rename(run / "checkpoints" / "previous.safetensors")
    assert newest_unfinished(tmp_path, "mlp") == run
    assert resumed_epochs(run)("train.epochs=9") == 9


def test_what_a_killed_process_left_unfinished_is_removed_and_nothing_else(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", "running")
    (run / "data").mkdir()
    (run / "notes").mkdir()
    old = [".summary.json.k3x_9ab1", "checkpoints/.last.safetensors.0123abcd"]
    old += ["data/.manifest.csv.aaaaaaaa", "../.index.csv.zzzzzzzz"]
    kept = [
        "notes/.draft.txt.abcdefgh",
        ".hidden",
        ".nfs000000001",
        "summary.json",
        "a.json.abcdefgh",
    ]
    kept += ["../.index.csv.yyyyyyyy", "../.other.abcdefgh"]
    for name in (*old, *kept):
        (run / name).write_text("x")
    an_hour_ago = time.time() - 2 * INDEX_LEFTOVER_AGE_S
    os.utime(run / "../.index.csv.zzzzzzzz", (an_hour_ago, an_hour_ago))
    state = Checkpoint({}, {}, run / "checkpoints" / "last.safetensors")
    gone = tidy_run(run, state)
    assert state.path.exists()
    assert sorted(p.name for p in gone) == sorted(Path(name).name for name in old)
    assert not [name for name in old if (run / name).exists()]
    assert all((run / name).exists() for name in kept)
