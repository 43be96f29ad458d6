"""Stopping, checkpoints, records and the line an epoch, against loops that count by hand."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import same_weights, stack, trainer, weights_of
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier import callbacks
from xray_classifier.callbacks import (
    Callback,
    Checkpoints,
    Curves,
    EarlyStopping,
    HistoryWriter,
    Progress,
    Saved,
    TestCurve,
    epoch_line,
    read_test_curve,
)
from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.history import COLUMNS, Goal, History, Monitor, Run
from xray_classifier.terminal import Terminal

NOTHING: Saved = ({"w": torch.zeros(1)}, {})


def blank_run(epochs: int = 100, steps_per_epoch: int = 5, **values: Any) -> Run:
    return Run(History(COLUMNS["classify"]), epochs, steps_per_epoch, **values)


def record(run: Run, **values: float) -> None:
    """Finish an epoch of a run by hand."""
    run.epoch += 1
    run.step = run.epoch * run.steps_per_epoch
    row: dict[str, float] = dict.fromkeys(COLUMNS["classify"], 0.5)
    run.history.append(row | {"epoch": run.epoch, "step": run.step} | values)


def last_epoch(
    losses: list[float], goal: Goal, patience: int, min_delta: float, start_from: int
) -> tuple[int, int | None]:
    """Epochs run and best epoch (from 1) of a loop that counts as it goes."""
    best, best_epoch, wait = math.inf, None, 0
    for epoch, loss in enumerate(losses, start=1):
        value = loss if goal == "min" else -loss
        if epoch <= start_from:
            continue
        if not math.isnan(value) and (best_epoch is None or value < best - min_delta):
            best, best_epoch, wait = value, epoch, 0
        else:
            wait += 1
        if wait >= patience:
            return epoch, best_epoch
    return len(losses), best_epoch


@settings(max_examples=150, deadline=None)
@given(
    losses=st.lists(
        st.sampled_from([math.nan, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0]), min_size=1, max_size=20
    ),
    goal=st.sampled_from(["min", "max"]),
    patience=st.integers(1, 5),
    min_delta=st.sampled_from([0.0, 0.25, 0.5]),
    start_from=st.integers(0, 5),
)
def test_early_stopping_equals_a_loop_that_counts(
    losses: list[float], goal: Goal, patience: int, min_delta: float, start_from: int
) -> None:
    monitor = Monitor("val_loss", goal, min_delta, start_from)
    stopping, run = EarlyStopping(monitor, patience), blank_run()
    stopping.on_train_start(run)
    for loss in losses:
        record(run, val_loss=loss)
        stopping.on_epoch_end(run)
        if run.stop_reason is not None:
            break
    epochs, best = last_epoch(losses, goal, patience, min_delta, start_from)
    assert run.epoch == epochs
    found = monitor.best(run.history)
    assert (None if found is None else found + 1) == best


def test_the_reason_to_stop_names_the_column_and_the_wait() -> None:
    stopping, run = EarlyStopping(Monitor("val_auroc", "max"), 2), blank_run()
    for score in (0.9, 0.8, 0.9):
        record(run, val_auroc=score)
        assert run.stop_reason is None
        stopping.on_epoch_end(run)
    assert run.stop_reason == "val_auroc has not improved for 2 epochs"


class ScriptedLosses(Callback):
    """Puts losses of our choosing into the history before others read it; keeps all weights."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses
        self.weights: list[dict[str, torch.Tensor]] = []
        self.model: torch.nn.Module | None = None

    def on_epoch_end(self, run: Run) -> None:
        run.history.rows[-1]["val_loss"] = self.losses[run.epoch - 1]
        assert self.model is not None
        self.weights.append(weights_of(self.model))


def train_by_script(
    folder: Path, losses: list[float], monitor: Monitor | None, patience: int | None = None
) -> list[dict[str, torch.Tensor]]:
    """Train a small stack while pretending these validation losses; the weights of each epoch."""
    script = ScriptedLosses(losses)
    model = stack((3,), dropout=0.2)
    script.model = model
    made = trainer(model, n=16, n_val=4, batch_size=8, epochs=len(losses))

    def best() -> Saved:
        return model.state_dict(), {"epoch": made.run.epoch}

    keeper = Checkpoints(folder, monitor, best, lambda: NOTHING, None, None)
    made.callbacks = [script, keeper]
    if monitor is not None and patience is not None:
        made.callbacks.append(EarlyStopping(monitor, patience))
    made.fit()
    return script.weights


@pytest.mark.parametrize(
    ("losses", "monitor", "best_epoch"),
    [
        ([3.0, 1.0, 2.0, 1.0, 5.0], Monitor("val_loss", "min"), 2),
        ([3.0, 1.0, 2.0, 1.0, 5.0], Monitor("val_loss", "max"), 5),
        ([math.nan, 4.0, math.nan, 3.0, math.nan], Monitor("val_loss", "min"), 4),
        ([1.0, 0.9, 0.8, 0.4, 0.3], Monitor("val_loss", "min", min_delta=0.5), 4),
        ([0.1, 0.9, 0.5, 0.7, 0.6], Monitor("val_loss", "min", start_from=1), 3),
        ([5.0, 4.0, 3.0], Monitor("val_loss", "min"), 3),
        ([1.0, 2.0, 3.0], Monitor("val_loss", "min"), 1),
        ([1.0, 2.0, 3.0], None, 3),
        ([math.nan, math.nan], Monitor("val_loss", "min"), 2),
        ([1.0, 2.0], Monitor("val_loss", "min", start_from=9), 2),
    ],
)
def test_the_best_file_holds_the_weights_of_the_best_epoch(
    tmp_path: Path, losses: list[float], monitor: Monitor | None, best_epoch: int
) -> None:
    weights = train_by_script(tmp_path, losses, monitor)
    saved = load_checkpoint(tmp_path / "best.safetensors")
    assert saved.content["epoch"] == best_epoch
    same = [same_weights(saved.tensors, w) for w in weights]
    assert same == [epoch == best_epoch for epoch in range(1, len(losses) + 1)]


def test_after_early_stopping_the_best_file_is_that_of_the_best_epoch(tmp_path: Path) -> None:
    losses = [3.0, 1.0, 2.0, 2.0, 0.0]
    weights = train_by_script(tmp_path, losses, Monitor("val_loss", "min"), patience=2)
    assert len(weights) == 4  # the better fifth epoch was never reached
    saved = load_checkpoint(tmp_path / "best.safetensors")
    assert same_weights(saved.tensors, weights[1])


def saved_steps(
    every_steps: int | None, every_s: float | None, clock: list[float], monkeypatch: Any
) -> list[int]:
    """Steps at which the state was saved in a run of 4 epochs of 5 steps; a step lasts 1 s."""
    steps: list[int] = []

    class Clock(Callback):
        def on_step_end(self, run: Run) -> None:
            clock[0] += 1.0

    def state() -> Saved:
        run = made.run
        steps.append(run.step)
        assert run.batch < run.steps_per_epoch  # an epoch's last step waits for its record
        assert len(run.history.rows) == run.step // run.steps_per_epoch
        return NOTHING

    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(callbacks, "save_checkpoint", lambda *args: None)
    made = trainer(n=40, batch_size=8, epochs=4)
    keeper = Checkpoints(
        Path(), Monitor("val_loss", "min"), lambda: NOTHING, state, every_steps, every_s
    )
    made.callbacks = [Clock(), keeper]
    made.fit()
    return steps


@pytest.mark.parametrize(
    ("every_steps", "every_s", "expected"),
    [
        (None, None, [5, 20]),  # the first epoch is saved in any case
        (1, None, [*range(1, 21), 20]),
        (3, None, [3, 6, 9, 12, 15, 18, 20]),
        (5, None, [5, 10, 15, 20, 20]),
        (7, None, [5, 7, 14, 20]),
        (None, 6.0, [5, 11, 17, 20]),
        (None, 1e9, [5, 20]),
    ],
)
def test_the_state_is_saved_when_it_is_due_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
    every_steps: int | None,
    every_s: float | None,
    expected: list[int],
) -> None:
    assert saved_steps(every_steps, every_s, [100.0], monkeypatch) == expected


def test_an_interrupted_run_leaves_its_state_and_no_best_file_of_half_an_epoch(
    tmp_path: Path,
) -> None:
    class Signal(Callback):
        def on_step_end(self, run: Run) -> None:
            if run.step == 7:
                made.request.signal_name = "SIGINT"

    made = trainer()
    made.callbacks = [
        Signal(),
        Checkpoints(tmp_path, None, lambda: NOTHING, lambda: NOTHING, None, None),
    ]
    made.fit()
    names = ["last.safetensors", "previous.safetensors"]  # of steps 7 and 5
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_the_history_file_is_complete_after_each_epoch(tmp_path: Path) -> None:
    path, seen = tmp_path / "history.csv", []

    class Reader(Callback):
        def on_epoch_end(self, run: Run) -> None:
            seen.append(History.from_csv(path.read_text()))

    made = trainer(callbacks=[HistoryWriter(path), Reader()])
    made.fit()
    assert [len(h.rows) for h in seen] == [1, 2, 3]
    assert seen[-1] == made.run.history


def test_the_test_curve_has_a_file_of_its_own_and_goes_on_after_a_break(tmp_path: Path) -> None:
    path = tmp_path / "history_test.csv"
    losses = iter([0.5, 0.25, 0.125, 0.75])
    run, curve = blank_run(), TestCurve(path, lambda: next(losses))
    curve.on_train_start(run)
    for _ in range(3):
        record(run)
        curve.on_epoch_end(run)
    assert path.read_text() == "epoch,step,test_loss\n1,5,0.5\n2,10,0.25\n3,15,0.125\n"

    resumed = blank_run()  # from a state of epoch 2: the third epoch is computed anew
    record(resumed)
    record(resumed)
    again = TestCurve(path, lambda: next(losses))
    again.on_train_start(resumed)
    record(resumed)
    again.on_epoch_end(resumed)
    assert read_test_curve(path) == [(1, 5, 0.5), (2, 10, 0.25), (3, 15, 0.75)]


def test_a_new_run_takes_up_no_old_test_curve(tmp_path: Path) -> None:
    path = tmp_path / "history_test.csv"
    path.write_text("epoch,step,test_loss\n1,5,9.0\n")
    run, curve = blank_run(), TestCurve(path, lambda: 1.0)
    curve.on_train_start(run)
    record(run)
    curve.on_epoch_end(run)
    assert read_test_curve(path) == [(1, 5, 1.0)]


def test_curves_are_redrawn_every_ten_seconds_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    drawn: list[int] = []

    def draw(run: Run) -> bytes:
        drawn.append(run.epoch)
        return b"picture"

    curves, run = Curves(tmp_path / "curves.png", draw), blank_run()
    for _ in range(7):
        clock[0] += 4.0
        record(run)
        curves.on_epoch_end(run)
    assert drawn == [3, 6]
    curves.on_train_end(run)
    assert drawn == [3, 6, 7]
    assert (tmp_path / "curves.png").read_bytes() == b"picture"
    curves.on_train_end(blank_run())
    assert drawn == [3, 6, 7]


def test_the_line_of_an_epoch_reads_as_documented() -> None:
    run, monitor = blank_run(), Monitor("val_loss", "min")
    losses = [0.5] * 8 + [0.3] + [0.341] * 3
    for epoch, loss in enumerate(losses, start=1):
        record(run, train_loss=0.312, val_loss=loss, val_auroc=0.942, elapsed_s=4.1 * epoch)
    assert epoch_line(run, monitor, 10, "val_auroc", 300.0) == (
        "ep  12/100  loss 0.312/0.341  val auroc .942  best 9  wait 3/10  4.1s  eta 5m00s"
    )


def test_the_line_leaves_out_what_is_not_there() -> None:
    run = blank_run(epochs=9, earlier_s=10.0)
    record(run, train_loss=1e-5, val_loss=math.nan, val_auroc=math.nan, elapsed_s=12.0)
    assert epoch_line(run, None, None, "val_auroc", 1.0) == "ep 1/9  loss 1.00e-05  2.0s  eta 1.0s"
    unjudged = Monitor("val_loss", "min")
    assert "best -  wait 1/3" in epoch_line(run, unjudged, 3, "val_auroc", 1.0)


AWKWARD = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([-1e-300, 999.9996, 1e-3, 0.0])
)


@settings(max_examples=200, deadline=None)
@given(
    train_loss=AWKWARD,
    val_loss=AWKWARD,
    score=AWKWARD,
    epochs=st.integers(1, 99_999),
    patience=st.integers(1, 999) | st.none(),
    watched=st.booleans(),
    elapsed_s=st.floats(0, 1e5),
    left_s=st.floats(0, 1e7),
    name=st.sampled_from(["val_auroc", "val_r2"]),
)
def test_the_line_of_an_epoch_fits_80_columns_for_any_values(
    train_loss: float,
    val_loss: float,
    score: float,
    epochs: int,
    patience: int | None,
    watched: bool,
    elapsed_s: float,
    left_s: float,
    name: str,
) -> None:
    columns = COLUMNS["classify" if name == "val_auroc" else "regress"]
    run = Run(History(columns), epochs, 5, epoch=epochs)
    row = {"train_loss": train_loss, "val_loss": val_loss, name: score, "elapsed_s": elapsed_s}
    run.history.append(dict.fromkeys(columns, 0.0) | row)
    monitor = Monitor("val_loss", "min") if watched else None
    line = epoch_line(run, monitor, patience, name, left_s)
    assert len(line) <= 80
    assert line.startswith(f"ep {epochs}/{epochs}  loss ")
    wait = f"wait {int(math.isnan(val_loss))}/{patience}"
    assert (wait in line) == (watched and patience is not None)


def test_a_long_line_gives_up_the_time_of_the_epoch_first() -> None:
    run = Run(History(COLUMNS["classify"]), 1000, 5, epoch=1000)
    row = dict.fromkeys(COLUMNS["classify"], 0.5) | {"val_auroc": 0.9, "elapsed_s": 65.0}
    run.history.append(row)
    assert epoch_line(run, Monitor("val_loss", "min"), 10, "val_auroc", 3000.0) == (
        "ep 1000/1000  loss 0.500/0.500  val auroc .900  best 1  wait 0/10  eta 50m00s"
    )


class FakeTerminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def spoken(stream: io.StringIO, **keys: Any) -> str:
    progress = Progress(Terminal(stream), Monitor("val_loss", "min"), 10, "val_auroc")
    made = trainer(callbacks=[progress], **keys)
    made.fit()
    return stream.getvalue()


def test_a_log_gets_one_line_an_epoch_and_no_bar() -> None:
    text = spoken(io.StringIO())
    lines = text.splitlines()
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert "\r" not in text
    assert all(len(line) <= 80 and "eta" in line and "wait" in line for line in lines)


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end() -> None:
    text = spoken(FakeTerminal())
    assert "epoch 1/3" in text
    assert "\r" in text
    kept = [part.split("\r")[-1] for part in text.split("\n")]
    assert [line.split()[1] for line in kept if line.strip()] == ["1/3", "2/3", "3/3"]


def test_a_log_hears_every_thirty_seconds_that_a_long_epoch_is_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]

    class Slow(Callback):
        def on_loss_known(self, run: Run) -> None:
            clock[0] += 12.0

    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    progress = Progress(Terminal(stream), None, None, "val_auroc")
    made = trainer(n=64, epochs=1, callbacks=[Slow(), progress])
    made.fit()
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines[:-1]] == [
        "  epoch 1: step 3 of 8",
        "  epoch 1: step 6 of 8",
    ]
    assert "loss" in lines[0]
    assert lines[-1].startswith("ep 1/1")


def test_the_time_left_counts_the_epochs_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream, run = io.StringIO(), blank_run(epochs=10)
    for _ in range(4):
        record(run)
    progress = Progress(Terminal(stream), None, None, "val_auroc")
    progress.on_train_start(run)
    clock[0] += 6.0
    record(run)
    progress.on_epoch_end(run)  # 6 s an epoch, 5 to go
    assert stream.getvalue().endswith("eta 30s\n")
