"""What happened in each epoch, and what follows from it: best epoch, waiting time, direction."""

import csv
import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xray_classifier.files import csv_text

Goal = Literal["min", "max"]

COLUMNS = {
    "classify": ("epoch", "step", "train_loss", "val_loss", "val_auroc", "lr", "elapsed_s"),
    "regress": ("epoch", "step", "train_loss", "val_loss", "val_r2", "lr", "elapsed_s"),
}
UPWARD = ("val_auroc", "val_r2")


def direction(monitor: str, mode: Literal["auto", "min", "max"] = "auto") -> Goal:
    """Whether smaller or larger values of a history column are better.

    Args:
        monitor: Column name, such as val_loss.
        mode: min and max decide; auto takes max for scores (val_auroc, val_r2), min for the rest.
    """
    if mode != "auto":
        return mode
    return "max" if monitor in UPWARD else "min"


def best_index(
    values: Sequence[float], goal: Goal, min_delta: float = 0.0, start_from: int = 0
) -> int | None:
    """Where the best value stands, in the way early stopping counts it.

    A value is a new best when it beats the best so far by more than `min_delta`; NaN never does.

    Args:
        values: One value per epoch, oldest first.
        goal: Whether smaller or larger is better.
        min_delta: A change of this size or smaller is no improvement.
        start_from: Number of leading epochs that are not judged.

    Returns:
        An index into `values`, or None when no value could be judged.
    """
    best: int | None = None
    sign = 1.0 if goal == "min" else -1.0
    for index, value in enumerate(values):
        if index < start_from or math.isnan(value):
            continue
        if best is None or sign * value < sign * values[best] - min_delta:
            best = index
    return best


def epochs_since_best(
    values: Sequence[float], goal: Goal, min_delta: float = 0.0, start_from: int = 0
) -> int:
    """Judged epochs since the best one; 0 when the last epoch is the best or none was judged."""
    best = best_index(values, goal, min_delta, start_from)
    if best is None:
        return max(0, len(values) - start_from)
    return len(values) - 1 - best


def plateau_drops(values: Sequence[float], patience: int) -> int:
    """How often a plateau schedule has dropped the rate after these validation losses.

    Each time `patience` epochs pass without a new minimum the rate drops and the count starts anew.
    """
    drops = 0
    waited = 0
    best = math.inf
    for value in values:
        if value < best:
            best, waited = value, 0
            continue
        waited += 1
        if waited >= patience:
            drops, waited = drops + 1, 0
    return drops


@dataclass
class History:
    """One record per finished epoch; the columns never change during a run."""

    columns: tuple[str, ...]
    rows: list[dict[str, float]] = field(default_factory=list)

    def append(self, row: dict[str, float]) -> None:
        """Add one epoch.

        Raises:
            KeyError: The record's keys are not the columns.
        """
        if set(row) != set(self.columns):
            raise KeyError(f"expected {self.columns}, got {tuple(row)}")
        self.rows.append(dict(row))

    def column(self, name: str) -> list[float]:
        """All values of one column, oldest first."""
        return [row[name] for row in self.rows]

    def to_csv(self) -> str:
        """The table as CSV text; undefined values are empty."""
        counts = ("epoch", "step")
        return csv_text(
            self.columns,
            ([int(row[c]) if c in counts else row[c] for c in self.columns] for row in self.rows),
        )

    @classmethod
    def from_csv(cls, text: str) -> "History":
        """Read back what `to_csv` wrote; empty cells are NaN."""
        table = csv.reader(io.StringIO(text))
        columns = tuple(next(table, ()))
        rows = [
            {c: float(cell) if cell else math.nan for c, cell in zip(columns, cells, strict=True)}
            for cells in table
        ]
        return cls(columns, rows)


@dataclass(frozen=True)
class Monitor:
    """The history column that decides which epoch is best.

    Attributes:
        column: Such as val_loss.
        goal: Whether smaller or larger is better.
        min_delta: A change of this size or smaller is no improvement.
        start_from: Leading epochs that are not judged.
    """

    column: str
    goal: Goal
    min_delta: float = 0.0
    start_from: int = 0

    def best(self, history: History) -> int | None:
        """Index of the best epoch so far; None when none was judged."""
        return best_index(history.column(self.column), self.goal, self.min_delta, self.start_from)

    def waited(self, history: History) -> int:
        """Epochs since the best one."""
        values = history.column(self.column)
        return epochs_since_best(values, self.goal, self.min_delta, self.start_from)


@dataclass
class Run:
    """Where a training run stands. Callbacks read it; all they may do to it is `stop`.

    Attributes:
        history: Finished epochs.
        epochs: Planned epochs.
        steps_per_epoch: Batches in an epoch.
        epoch: Finished epochs.
        batch: Steps taken in the unfinished epoch.
        step: Steps taken in all.
        loss_sum: Sum of the training loss over the images seen in the unfinished epoch; on a GPU
            some steps behind, but complete in `Callback.on_loss_known` and `on_epoch_end`.
        images_seen: Number of those images.
        val_outputs: Raw outputs on the validation split after the last epoch, shape (n_val,).
        earlier_s: Seconds spent before this process took over.
        started_s: When this process began, on the monotonic clock.
        ended_s: When the last step was done, on the same clock; None while it goes on.
        stop_reason: Why the run ended; None while it goes on.
        interrupted_by: SIGINT, SIGTERM or SIGUSR1, when that is why.
    """

    history: History
    epochs: int
    steps_per_epoch: int
    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images_seen: int = 0
    val_outputs: NDArray[np.float64] | None = None
    earlier_s: float = 0.0
    started_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None
    stop_reason: str | None = None
    interrupted_by: str | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, over all processes that worked on this run."""
        now = time.monotonic() if self.ended_s is None else self.ended_s
        return self.earlier_s + now - self.started_s

    def count(self, n_images: int, steps: int = 1) -> None:
        """Steps were taken on so many images in all; negative numbers take that back."""
        self.images_seen += n_images
        self.batch += steps
        self.step += steps

    def stop(self, reason: str) -> None:
        """Ask the loop to end after this epoch; the first reason given is kept."""
        if self.stop_reason is None:
            self.stop_reason = reason
