"""What happens besides training: records, checkpoints, curves, stopping, and the line an epoch."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from xray_classifier.checkpoint import STATES, save_checkpoint
from xray_classifier.errors import NonFiniteError
from xray_classifier.files import csv_text, read_bytes, write_bytes, write_text
from xray_classifier.history import Monitor, Run
from xray_classifier.terminal import HEARTBEAT_S, Terminal, seconds_in_words

CURVES_EVERY_S = 10.0
LINE_COLUMNS = 80

Saved = tuple[Mapping[str, Tensor], Mapping[str, Any]]


class Callback:
    """Told about a run as it goes. Each method does nothing until a child says otherwise."""

    def on_train_start(self, run: Run) -> None:
        """Before the first step."""

    def on_step_end(self, run: Run) -> None:
        """After each step of the optimizer; on a GPU its loss may not be known yet."""

    def on_loss_known(self, run: Run) -> None:
        """When the loss of a step is known: before `on_step_end`, or on a GPU some steps later.

        The run's counters and `loss_sum` are those of that step; the weights may have moved on.
        """

    def on_epoch_end(self, run: Run) -> None:
        """After each epoch, when its record stands in the history."""

    def on_train_end(self, run: Run) -> None:
        """After the last step, also when the run was stopped."""

    def on_train_abort(self, run: Run) -> None:
        """When an error ends the run."""


class HistoryWriter(Callback):
    """Keep history.csv complete on disk after each epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_epoch_end(self, run: Run) -> None:
        """Write all records."""
        write_text(self.path, run.history.to_csv())


class EarlyStopping(Callback):
    """Ask the run to stop when the monitored column has not improved for `patience` epochs.

    Holds no state: it reads the history, so a resumed run waits exactly as long as an unbroken one.

    Args:
        monitor: Which column, which direction, which change counts.
        patience: Epochs without improvement.
    """

    def __init__(self, monitor: Monitor, patience: int) -> None:
        self.monitor = monitor
        self.patience = patience

    def on_train_start(self, run: Run) -> None:
        """A finished run that is resumed may have waited long enough already."""
        if run.history.rows:
            self.on_epoch_end(run)

    def on_epoch_end(self, run: Run) -> None:
        """Count the epochs since the best."""
        waited = self.monitor.waited(run.history)
        if waited >= self.patience:
            run.stop(f"{self.monitor.column} has not improved for {waited} epochs")


class Checkpoints(Callback):
    """Save the best weights the moment the history says so, and the whole state now and then.

    Args:
        folder: Where best.safetensors, last.safetensors and, one save older,
            previous.safetensors go.
        monitor: Decides what is best; None: the last weights are.
        best: Gives what prediction needs.
        state: Gives what resuming needs.
        every_steps: Save the state after this many steps; None: not by steps.
        every_s: Save the state after this many seconds; None: not by time.
    """

    def __init__(
        self,
        folder: Path,
        monitor: Monitor | None,
        best: Callable[[], Saved],
        state: Callable[[], Saved],
        every_steps: int | None,
        every_s: float | None,
    ) -> None:
        self.folder = folder
        self.monitor = monitor
        self.best = best
        self.state = state
        self.every_steps = every_steps
        self.every_s = every_s
        self._saved_step = 0
        self._saved_s = time.monotonic()

    def on_step_end(self, run: Run) -> None:
        """Save the state when it is due; an epoch's last step waits for its record."""
        by_steps = self.every_steps is not None and run.step % self.every_steps == 0
        by_time = self.every_s is not None and time.monotonic() - self._saved_s >= self.every_s
        if (by_steps or by_time) and run.batch < run.steps_per_epoch:
            self._save_state(run)

    def on_epoch_end(self, run: Run) -> None:
        """Save the best weights if this epoch is the best; the state when it is due."""
        if self.monitor is not None and self.monitor.best(run.history) == run.epoch - 1:
            self._save(run, "best.safetensors", self.best)
        if self._saved_step == 0:  # from the first epoch on there is something to go on with
            self._save_state(run)
            return
        by_time = self.every_s is not None and time.monotonic() - self._saved_s >= self.every_s
        by_steps = self.every_steps is not None and run.step - self._saved_step >= self.every_steps
        if by_time or by_steps:
            self._save_state(run)

    def on_train_end(self, run: Run) -> None:
        """Save the state, and the last weights as the best where nothing is monitored."""
        self._save_state(run)
        whole = run.epoch > 0 and run.batch == 0  # else the validation outputs are older
        if whole and (self.monitor is None or self.monitor.best(run.history) is None):
            self._save(run, "best.safetensors", self.best)

    def _save_state(self, run: Run) -> None:
        last, previous = STATES
        self._save(run, last, self.state, self.folder / previous)
        self._saved_step = run.step
        self._saved_s = time.monotonic()

    def _save(
        self, run: Run, name: str, content: Callable[[], Saved], keep: Path | None = None
    ) -> None:
        tensors, values = content()
        try:
            save_checkpoint(self.folder / name, tensors, values, keep)
        except NonFiniteError as error:
            raise NonFiniteError(f"after epoch {run.epoch}, step {run.step}: {error}") from error


class TestCurve(Callback):
    """Keep the test loss of each epoch in a file of its own, where nothing can select on it.

    Args:
        path: history_test.csv of the run.
        test_loss: Computes the loss of the test split with the weights of the moment.
    """

    __test__ = False  # its name is not a test's

    def __init__(self, path: Path, test_loss: Callable[[], float]) -> None:
        self.path = path
        self.test_loss = test_loss
        self.rows: list[tuple[int, int, float]] = []

    def on_train_start(self, run: Run) -> None:
        """Take up what an interrupted run had computed."""
        if run.history.rows and self.path.is_file():
            self.rows = [r for r in read_test_curve(self.path) if r[0] <= run.epoch]

    def on_epoch_end(self, run: Run) -> None:
        """Compute and write."""
        self.rows.append((run.epoch, run.step, self.test_loss()))
        write_text(self.path, csv_text(("epoch", "step", "test_loss"), self.rows))


def read_test_curve(path: Path) -> list[tuple[int, int, float]]:
    """Records of history_test.csv: epoch, step and test loss."""
    lines = read_bytes(path).decode().splitlines()[1:]
    cells = (line.split(",") for line in lines if line)
    return [(int(epoch), int(step), float(loss)) for epoch, step, loss in cells]


class Curves(Callback):
    """Redraw curves.png while training, at most every 10 s, and at the end.

    Args:
        path: The picture.
        draw: Makes PNG bytes from the run.
    """

    def __init__(self, path: Path, draw: Callable[[Run], bytes]) -> None:
        self.path = path
        self.draw = draw
        self._drawn_s = time.monotonic()

    def on_epoch_end(self, run: Run) -> None:
        """Draw if the last picture is old enough."""
        if time.monotonic() - self._drawn_s >= CURVES_EVERY_S:
            self._write(run)

    def on_train_end(self, run: Run) -> None:
        """Draw the final picture."""
        if run.history.rows:
            self._write(run)

    def _write(self, run: Run) -> None:
        write_bytes(self.path, self.draw(run))
        self._drawn_s = time.monotonic()


class Progress(Callback):
    """One line an epoch; a bar inside it on a terminal, a heartbeat each 30 s in a log.

    Args:
        terminal: Where to.
        monitor: For "best" and "wait"; None leaves them out.
        patience: For "wait"; None leaves it out.
        score: Second validation column to show, such as val_auroc.
    """

    def __init__(
        self, terminal: Terminal, monitor: Monitor | None, patience: int | None, score: str
    ) -> None:
        self.terminal = terminal
        self.monitor = monitor
        self.patience = patience
        self.score = score
        self._spoke_s = time.monotonic()
        self._began_s = time.monotonic()
        self._first_epoch = 0
        self._bar: Any = None
        self._advance: Callable[[int], None] | None = None

    def on_train_start(self, run: Run) -> None:
        """Note where this process begins, for the time left."""
        self._first_epoch = run.epoch
        self._began_s = self._spoke_s = time.monotonic()

    def on_step_end(self, run: Run) -> None:
        """Move the bar."""
        if self.terminal.interactive:
            self._move_bar(run)

    def on_loss_known(self, run: Run) -> None:
        """Say in a log that the run is alive."""
        if not self.terminal.interactive and time.monotonic() - self._spoke_s >= HEARTBEAT_S:
            self._spoke_s = time.monotonic()
            self.terminal.say(
                f"  epoch {run.epoch + 1}: step {run.batch} of {run.steps_per_epoch}, "
                f"loss {run.loss_sum / run.images_seen:.3f}"
            )

    def on_epoch_end(self, run: Run) -> None:
        """Say the line of this epoch."""
        self._drop_bar()
        self._spoke_s = time.monotonic()
        self.terminal.say(epoch_line(run, self.monitor, self.patience, self.score, self._left(run)))

    def on_train_end(self, run: Run) -> None:
        """Leave the terminal clean."""
        self._drop_bar()

    def on_train_abort(self, run: Run) -> None:
        """Leave the terminal clean for the message."""
        self._drop_bar()

    def _left(self, run: Run) -> float:
        done = run.epoch - self._first_epoch
        return (time.monotonic() - self._began_s) / done * (run.epochs - run.epoch)

    def _move_bar(self, run: Run) -> None:
        if self._advance is None:
            label = f"epoch {run.epoch + 1}/{run.epochs}"
            self._bar = self.terminal.bar(label, run.steps_per_epoch, "step")
            self._advance = self._bar.__enter__()
        self._advance(run.batch)

    def _drop_bar(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
        self._bar = self._advance = None


def epoch_line(
    run: Run, monitor: Monitor | None, patience: int | None, score: str, left_s: float
) -> str:
    """The line of the last epoch, within 80 columns.

    For example `ep 12/100  loss 0.312/0.341  val auroc .942  best 9  wait 3/10  4.1s  eta 5m00s`:
    training and validation loss, score, best epoch, epochs waited of the patience, seconds of this
    epoch, time left if no epoch is saved by stopping. Where that is too long, the times are left
    out first, then the score and the best epoch.
    """
    row = run.history.rows[-1]
    before_s = run.history.rows[-2]["elapsed_s"] if len(run.history.rows) > 1 else run.earlier_s
    losses = f"loss {_short(row['train_loss'])}"
    scores, best, wait = "", "", ""
    if row["val_loss"] == row["val_loss"]:  # not NaN: there is a validation split
        losses += f"/{_short(row['val_loss'])}"
        figure = f"{row[score]:.3f}" if abs(row[score]) < 1e3 else f"{row[score]:.2e}"
        scores = f"{score.replace('_', ' ')} {figure}".replace(" 0.", " .")
    if monitor is not None:
        index = monitor.best(run.history)
        best = f"best {'-' if index is None else index + 1}"
        wait = "" if patience is None else f"wait {monitor.waited(run.history)}/{patience}"
    took = seconds_in_words(max(0.0, row["elapsed_s"] - before_s))
    left = f"eta {seconds_in_words(left_s)}"
    number = f"ep {run.epoch:>{len(str(run.epochs))}}/{run.epochs}"
    parts = [part for part in (number, losses, scores, best, wait, took, left) if part]
    for spare in (took, left, scores, best):
        if len("  ".join(parts)) > LINE_COLUMNS and spare in parts:
            parts.remove(spare)
    return "  ".join(parts)


def _short(value: float) -> str:
    plain = value == 0 or 1e-3 <= abs(value) < 1e3
    return f"{value:.3f}" if plain else f"{value:.2e}"
