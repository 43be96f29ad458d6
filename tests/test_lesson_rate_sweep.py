"""The range test: slopes of known curves, and a sweep against the limit of a known bowl."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import stack, trainer
from tiny_runs import TINY, Program, program, rows_of

from xray_classifier.lesson.rate_sweep import lines, steepest, sweep_rates, swept_rates, two_digits
from xray_classifier.report.training_figures import sweep_figure

__all__ = ["program"]

DEMO = ("-c", "demo", *TINY)


def test_rates_rise_by_one_factor() -> None:
    rates = swept_rates(1e-4, 1.0, 9)
    np.testing.assert_allclose(rates[1:] / rates[:-1], np.sqrt(10.0))
    assert (rates[0], rates[-1]) == pytest.approx((1e-4, 1.0))


def test_a_line_around_each_point_gives_value_and_slope_per_decade() -> None:
    rates = swept_rates(1e-5, 1.0, 101)
    x = np.log10(rates)
    values, slopes = lines(rates, 3.0 - 0.5 * x)
    np.testing.assert_allclose(values, 3.0 - 0.5 * x)
    np.testing.assert_allclose(slopes, -0.5)


def test_the_suggestion_is_where_a_known_curve_is_steepest() -> None:
    rates = swept_rates(1e-6, 1.0, 601)
    x = np.log10(rates)
    # falls like a logistic curve around 10^-2.3, and rises from 10^-2 on
    losses = 1.0 / (1.0 + np.exp(8 * (x + 2.3))) + np.maximum(0.0, x + 2.0) ** 2
    values, slopes = lines(rates, losses)
    suggested, lowest_at = steepest(rates, values, slopes)
    assert suggested is not None
    assert lowest_at is not None
    assert np.log10(suggested) == pytest.approx(-2.3, abs=0.05)
    assert np.log10(lowest_at) == pytest.approx(x[np.argmin(losses)], abs=0.1)


def test_a_loss_that_only_rises_has_no_suggestion() -> None:
    rates = swept_rates(1e-6, 1.0, 50)
    values, slopes = lines(rates, 1.0 + np.arange(50) / 50)
    assert steepest(rates, values, slopes) == (None, None)
    assert steepest(np.zeros(0), np.zeros(0), np.zeros(0)) == (None, None)


def test_a_sweep_ends_where_the_bowl_has_its_limit() -> None:
    model = stack()  # one linear unit, squared error: steps grow above 2 / largest curvature
    targets = np.random.default_rng(0).normal(size=40)
    one = trainer(model, n=40, n_val=0, batch_size=40, task="regress", targets=targets)
    pixels = one.standardize(one.train_images.store).flatten(1).double()
    inputs = torch.cat([pixels, torch.ones(40, 1)], dim=1)
    limit = 2.0 / float(torch.linalg.eigvalsh(2 * inputs.T @ inputs / 40)[-1])
    found = sweep_rates(one, swept_rates(limit / 1e3, limit * 1e3, 120))
    assert found.diverged_at is not None
    assert limit < found.diverged_at < 12 * limit
    assert found.suggested is not None
    assert found.suggested < 1.5 * limit
    assert len(found.rates) == len(found.losses) == len(found.batch_losses) < 120
    np.testing.assert_allclose(found.batch_losses[1:], found.losses[:-1], rtol=1e-4)  # full batch
    sweep_figure(found, title="a sweep", loss_name="MSE loss")


def test_not_finite_ends_the_sweep() -> None:
    one = trainer(stack((5,)))
    found = sweep_rates(one, swept_rates(1e10, 1e38, 30))
    assert found.diverged_at is not None
    assert np.isfinite(found.losses).all()
    sweep_figure(found, title="a sweep", loss_name="BCE loss")


@pytest.mark.parametrize(("rate", "typed"), [(0.000347, 0.00035), (1.0, 1.0), (94.9, 95.0)])
def test_rates_are_given_with_two_digits(rate: float, typed: float) -> None:
    assert two_digits(rate) == typed


def test_the_verb_suggests_what_can_be_pasted_and_repeats_itself(
    program: Program, tmp_path: Path
) -> None:
    said = program("lr-find", *DEMO, "-o", tmp_path / "one", "--steps", "60", "--json")
    assert said.code == 0, said.err
    found = said.json
    assert found["override"] == f"train.optimizer.lr={found['suggested']:g}"
    assert 1e-6 < found["suggested"] <= found["lowest_at"] < 10
    rows = rows_of(tmp_path / "one" / "lr_find.csv")
    assert len(rows) == found["steps"]
    assert list(rows[0]) == ["step", "lr", "batch_loss", "sample_loss", "smoothed_loss"]
    assert float(rows[0]["lr"]) == pytest.approx(1e-6)
    assert (tmp_path / "one" / "lr_find.png").read_bytes().startswith(b"\x89PNG")
    again = program("lr-find", *DEMO, "-o", tmp_path / "two", "--steps", "60", "--json")
    assert {**again.json, "out": ""} == {**found, "out": ""}
    assert (tmp_path / "one" / "lr_find.csv").read_bytes() == (
        tmp_path / "two" / "lr_find.csv"
    ).read_bytes()
    other = program("lr-find", *DEMO, "-o", tmp_path / "three", "--steps", "60", "--seed", "7")
    assert other.code == 0
    assert rows_of(tmp_path / "three" / "lr_find.csv") != rows
    assert "Next: add train.optimizer.lr=" in other.out
    dry = program("train", *DEMO, found["override"], "--dry-run")
    assert dry.code == 0, dry.err


def test_several_models_are_swept_as_the_first(program: Program, tmp_path: Path) -> None:
    said = program("lr-find", *DEMO, "train.seeds=3", "-o", tmp_path / "a", "--json")
    one = program("lr-find", *DEMO, "-o", tmp_path / "b", "--json")
    assert said.json["suggested"] == one.json["suggested"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--from", "1", "--to", "0.1"], "must rise"),
        (["--from", "0"], "must rise"),
        (["--steps", "3"], "at least 20"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(
    words: list[str], hint: str, program: Program, tmp_path: Path
) -> None:
    said = program("lr-find", *DEMO, "-o", tmp_path / "none", *words)
    assert said.code == 2
    assert hint in said.err
    assert not (tmp_path / "none").exists()
