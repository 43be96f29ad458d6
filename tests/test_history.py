"""Best epoch, waiting time and plateaus against brute force; the table to CSV and back."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier.history import (
    COLUMNS,
    Goal,
    History,
    Monitor,
    Run,
    best_index,
    direction,
    epochs_since_best,
    plateau_drops,
)

FEW = settings(max_examples=150, deadline=None)
VALUES = st.lists(
    st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, math.nan]), st.floats(-2, 2)), max_size=15
)
GOALS = st.sampled_from(["min", "max"])
DELTAS = st.sampled_from([0.0, 0.05, 0.3])


def patient_loop(
    values: list[float], goal: Goal, min_delta: float, start_from: int
) -> tuple[int | None, int]:
    """Best epoch and waiting time as a stateful loop would count them, one epoch at a time."""
    best_epoch, best_value, wait = None, math.nan, 0
    for epoch, value in enumerate(values):
        if epoch < start_from:
            continue
        gain = best_value - value if goal == "min" else value - best_value
        first = best_epoch is None and not math.isnan(value)
        if first or gain > min_delta:
            best_epoch, best_value, wait = epoch, value, 0
        else:
            wait += 1
    return best_epoch, wait


@FEW
@given(VALUES, GOALS, DELTAS, st.integers(0, 5))
def test_best_epoch_and_waiting_time_equal_a_stateful_loop(
    values: list[float], goal: Goal, min_delta: float, start_from: int
) -> None:
    # sums and differences round apart, so a gain that is a hair from min_delta may go either way
    judged = [v for v in values[start_from:] if not math.isnan(v)]
    close = any(0 < abs(abs(a - b) - min_delta) < 1e-12 for a in judged for b in judged)
    if close:
        return
    best, wait = patient_loop(values, goal, min_delta, start_from)
    assert best_index(values, goal, min_delta, start_from) == best
    assert epochs_since_best(values, goal, min_delta, start_from) == wait


@FEW
@given(VALUES, GOALS)
def test_without_min_delta_the_best_is_the_first_smallest_or_largest(
    values: list[float], goal: Goal
) -> None:
    clean = [v for v in values if not math.isnan(v)]
    expected = values.index((min if goal == "min" else max)(clean)) if clean else None
    assert best_index(values, goal) == expected


@pytest.mark.parametrize(
    ("values", "best", "waited"),
    [
        ([], None, 0),
        ([math.nan], None, 1),
        ([math.nan, 3.0], 1, 0),
        ([1.0, math.nan, math.nan], 0, 2),
        ([3.0, 2.0, 2.0, 2.5], 1, 2),
        ([math.inf, 2.0], 1, 0),
    ],
)
def test_nan_is_never_best_and_an_equal_value_is_no_improvement(
    values: list[float], best: int | None, waited: int
) -> None:
    assert best_index(values, "min") == best
    assert epochs_since_best(values, "min") == waited


def test_a_gain_must_exceed_min_delta() -> None:
    assert best_index([1.0, 0.5], "min", min_delta=0.5) == 0
    assert best_index([1.0, 0.25], "min", min_delta=0.5) == 1
    # many small gains add up against the best that counted
    assert best_index([1.0, 0.75, 0.375], "min", min_delta=0.5) == 2
    assert best_index([0.0, 0.5, 0.75], "max", min_delta=0.5) == 2


def test_the_first_epochs_can_be_left_unjudged() -> None:
    values = [0.1, 0.9, 0.8, 0.85]
    assert best_index(values, "min", start_from=1) == 2
    assert epochs_since_best(values, "min", start_from=1) == 1
    assert best_index(values, "min", start_from=9) is None
    assert epochs_since_best(values, "min", start_from=9) == 0


@pytest.mark.parametrize(
    ("monitor", "goal"),
    [("val_loss", "min"), ("train_loss", "min"), ("val_auroc", "max"), ("val_r2", "max")],
)
def test_losses_go_down_and_scores_up_unless_told_otherwise(monitor: str, goal: Goal) -> None:
    assert direction(monitor) == goal
    assert direction(monitor, "min") == "min"
    assert direction(monitor, "max") == "max"


@FEW
@given(VALUES, st.integers(1, 4))
def test_plateau_drops_equal_a_count_that_looks_back(values: list[float], patience: int) -> None:
    """A drop falls where the last `patience` epochs since a minimum or a drop brought none."""
    drops, since = 0, 0
    for epoch, value in enumerate(values):
        earlier = [v for v in values[:epoch] if not math.isnan(v)]
        if not math.isnan(value) and value < min(earlier, default=math.inf):
            since = epoch + 1
        elif epoch + 1 - since == patience:
            drops, since = drops + 1, epoch + 1
    assert plateau_drops(values, patience) == drops


def test_plateau_by_hand() -> None:
    assert plateau_drops([], 2) == 0
    assert plateau_drops([1, 2, 2], 2) == 1
    assert plateau_drops([1, 2, 2, 2], 2) == 1
    assert plateau_drops([1, 2, 2, 2, 2], 2) == 2
    assert plateau_drops([1, 2, 0.5, 2, 2], 2) == 1
    assert plateau_drops([math.nan, 1.0, 2.0], 2) == 0


def record(epoch: int, **values: float) -> dict[str, float]:
    blank: dict[str, float] = dict.fromkeys(COLUMNS["classify"], 0.0)
    return blank | {"epoch": epoch, "step": 10 * epoch} | values


@FEW
@given(
    st.lists(
        st.tuples(st.floats(allow_nan=True, allow_infinity=True), st.floats(-1e300, 1e300)),
        max_size=6,
    )
)
def test_a_history_survives_csv_to_the_last_digit(pairs: list[tuple[float, float]]) -> None:
    history = History(COLUMNS["classify"])
    for epoch, (loss, lr) in enumerate(pairs, start=1):
        history.append(record(epoch, val_loss=loss, lr=lr))
    again = History.from_csv(history.to_csv())
    assert again.columns == history.columns
    assert repr(again.column("val_loss")) == repr(history.column("val_loss"))  # repr: NaN is NaN
    assert again.column("lr") == history.column("lr")
    assert again.column("step") == history.column("step")


def test_the_csv_reads_as_promised() -> None:
    history = History(COLUMNS["classify"])
    history.append(record(1, train_loss=0.5, val_loss=math.nan, val_auroc=0.75, lr=0.1))
    assert history.to_csv() == (
        "epoch,step,train_loss,val_loss,val_auroc,lr,elapsed_s\n1,10,0.5,,0.75,0.1,0.0\n"
    )


def test_a_record_must_have_the_columns() -> None:
    history = History(("epoch", "step"))
    for wrong in ({"epoch": 1.0}, {"epoch": 1.0, "step": 1.0, "test_loss": 1.0}):
        with pytest.raises(KeyError):
            history.append(wrong)
    assert history.rows == []


def test_a_record_is_a_copy() -> None:
    history = History(("epoch",))
    row = {"epoch": 1.0}
    history.append(row)
    row["epoch"] = 9.0
    assert history.column("epoch") == [1.0]


def test_a_monitor_reads_its_column() -> None:
    history = History(COLUMNS["classify"])
    for epoch, score in enumerate([0.5, 0.9, 0.8, 0.7], start=1):
        history.append(record(epoch, val_auroc=score, val_loss=-score))
    assert Monitor("val_auroc", "max").best(history) == 1
    assert Monitor("val_auroc", "max").waited(history) == 2
    assert Monitor("val_auroc", "min").best(history) == 0
    assert Monitor("val_auroc", "max", start_from=2).best(history) == 2
    assert Monitor("val_auroc", "max", min_delta=0.5).best(history) == 0
    assert Monitor("val_auroc", "max", min_delta=0.5).waited(history) == 3


def test_the_first_reason_to_stop_is_kept() -> None:
    run = Run(History(("epoch",)), epochs=1, steps_per_epoch=1)
    run.stop("one")
    run.stop("two")
    assert run.stop_reason == "one"


def test_elapsed_time_counts_earlier_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(History(("epoch",)), 1, 1, earlier_s=100.0, started_s=50.0)
    monkeypatch.setattr("time.monotonic", lambda: 57.5)
    assert run.elapsed_s == 107.5
