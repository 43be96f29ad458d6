"""Short trainings: stopping points by hand, curves against the trainer, rates that do differ."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny_run

from xray_classifier.history import Monitor
from xray_classifier.lesson.brief_training import (
    BriefSetting,
    brief_setting,
    brief_trainer,
    train_briefly,
    with_dropout,
)
from xray_classifier.lesson.parting import measure_parting, stopping_point
from xray_classifier.lesson.rate_sweep import RateSweep, sweep_rates
from xray_classifier.lesson.rates import measure_rates
from xray_classifier.lesson.subject import run_subject, some_of
from xray_classifier.report.training_figures import parting_figure, rates_figure
from xray_classifier.terminal import Terminal
from xray_classifier.trainer import split_loss

__all__ = ["tiny_run"]


@pytest.fixture
def setting(tiny_run: Path) -> BriefSetting:
    """Images and network of the tiny run."""
    subject = run_subject(tiny_run, Terminal(quiet=True), "cpu")
    return brief_setting(subject, some_of(subject.splits["train"], 64), subject.splits["val"])


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([9, 5, 4, 3, 4, 5, 6], 2, (3, 5)),
        ([9, 5, 4, 3, 4, 5, 6], 9, (3, None)),
        (
            [1, 5, 4, 6, 3, 2],
            3,
            (5, None),
        ),  # the start is not judged, and 6 is one epoch of waiting
        ([9, 1, 2, 2, 0], 2, (1, 3)),  # a better one behind the stop is never seen
    ],
)
def test_the_stopping_point_is_that_of_early_stopping(
    losses: list[float], patience: int, expected: tuple[int, int | None]
) -> None:
    assert stopping_point(np.array(losses, float), patience) == expected
    from xray_classifier.history import History

    history = History(("val_loss",))
    monitor = Monitor("val_loss", "min")
    stopped = None
    for epoch, loss in enumerate(losses[1:], start=1):
        history.append({"val_loss": loss})
        if monitor.waited(history) >= patience:
            stopped = epoch
            break
    assert stopped == expected[1]


def test_a_curve_notes_the_losses_of_the_weights_of_the_moment(setting: BriefSetting) -> None:
    optimizer = {"name": "sgd", "lr": 0.01}
    one = brief_trainer(setting, optimizer, 32, 3)
    assert setting.held is not None
    curve = train_briefly(one, (setting.train, setting.held), 2)
    assert curve.steps.tolist() == [0, 2, 4, 6]
    assert not curve.diverged
    other = brief_trainer(setting, optimizer, 32, 3)
    first = split_loss(other.model, other.standardize, other.loss, setting.held)[1]
    other.fit()
    last = split_loss(other.model, other.standardize, other.loss, setting.train)[1]
    assert curve.losses[0, 1] == first
    assert curve.losses[-1, 0] == last


def test_a_training_that_is_no_longer_finite_ends_there(setting: BriefSetting) -> None:
    one = brief_trainer(setting, {"name": "sgd", "lr": 1e30}, 32, 5)
    curve = train_briefly(one, (setting.train,), 1)
    assert curve.diverged
    assert curve.steps[-1] < 10


def test_four_rates_differ_in_what_they_come_to(setting: BriefSetting) -> None:
    found = measure_rates(setting)
    assert found is not None
    small, right, large, _ = found.trainings
    assert [t.optimizer for t in found.trainings] == ["sgd", "sgd", "sgd", "adam"]
    assert small.rate == pytest.approx(right.rate / 100, rel=0.05)
    assert large.rate >= 9.9 * right.rate
    first = right.curve.losses[0, 0]
    assert all(t.curve.losses[0, 0] == first for t in found.trainings)  # the same first weights
    assert right.rate in found.tried
    fell = {t.name: first - t.curve.losses[-1, 0] for t in found.trainings}
    assert fell["right"] > fell["too small"] > 0
    assert large.curve.diverged or large.curve.losses[:, 0].max() > first
    rates_figure(found, loss_name="BCE loss")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_range_test_that_suggests_too_much_is_corrected(
    setting: BriefSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_far(*args: Any) -> RateSweep:
        return replace(sweep_rates(*args), suggested=3.0, lowest_at=30.0)

    monkeypatch.setattr("xray_classifier.lesson.rates.sweep_rates", too_far)
    found = measure_rates(setting)
    assert found is not None
    small, right, _, _ = found.trainings
    assert right.curve.losses[-1, 0] <= small.curve.losses[-1, 0]
    assert right.curve.losses[-1, 0] < right.curve.losses[0, 0]
    assert right.rate in found.tried
    assert small.rate not in found.tried


def test_without_dropout_two_losses_part_and_dropout_is_what_differs(setting: BriefSetting) -> None:
    found = measure_parting(setting, dropout=0.5)
    plain, dropped = found.trainings
    assert (plain.dropout, dropped.dropout) == (0.0, 0.5)
    assert plain.held[0] == dropped.held[0]
    assert len(plain.train) == len(plain.held) == 41
    assert plain.gap == plain.held[-1] - plain.train[-1]
    assert not np.array_equal(plain.train, dropped.train)
    assert (found.n_train, found.n_held) == (64, len(setting.held or ()))
    assert stopping_point(plain.held, 5) == (plain.best_epoch, plain.stop_epoch)
    assert len(parting_figure(found, loss_name="BCE loss").axes) == 2
    assert len(measure_parting(setting, dropout=None).trainings) == 1


def test_dropout_is_set_for_all_hidden_layers(setting: BriefSetting) -> None:
    assert with_dropout(setting, 0.25).architecture.dropout == (0.25,)
