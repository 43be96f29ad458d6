"""The simulation of coverage: its truths against a very large sample, and a small tier of it."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from xray_classifier.estimates import summary_metrics

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "measure_coverage.py"
N_SIMULATIONS = 120
TRUSTED = (0.92, 0.98)
"""Coverage that an interval of 95 % may have in the cells below."""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("measure_coverage", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize(("prevalence", "auroc"), [(0.1, 0.9), (0.5, 0.7)])
def test_the_stated_truth_is_that_of_endless_images(script, prevalence, auroc, repeats):
    cell = script.Cell(n=150_000, prevalence=prevalence, auroc=auroc, repeats=repeats)
    truth = script.truth_of(cell)
    found = script.judged(cell, np.random.default_rng(7), n_resamples=30)
    assert set(truth) == set(script.NAMES)
    for name, value in truth.items():
        one = found[name]
        reach = (one.ci_high - one.ci_low) / 2 if math.isfinite(one.ci_low) else 0
        assert one.value == pytest.approx(value, abs=max(2.5 * reach, 0.004)), name


def test_scores_of_one_patient_correlate_as_stated(script):
    cell = script.Cell(n=60_000, prevalence=0.5, auroc=0.9, repeats=True)
    labels, logits, patients = script.drawn(cell, np.random.default_rng(3))
    scores = logits / cell.distance - cell.distance * labels
    first = np.flatnonzero(patients[1:] == patients[:-1])
    assert np.corrcoef(scores[first], scores[first + 1])[0, 1] == pytest.approx(0.5, abs=0.02)
    assert (labels[first] == labels[first + 1]).all()
    assert len(scores) / len(np.unique(patients)) == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize(
    ("n", "repeats"), [(200, False), (600, True)], ids=["single images", "patients repeat"]
)
def test_intervals_of_95_percent_hold_the_truth_about_as_often(script, n, repeats):
    cell = script.Cell(n=n, prevalence=0.5, auroc=0.9, repeats=repeats)
    found = script.counted(cell, N_SIMULATIONS, 200, seed=11)
    least = stats.binom.ppf(1e-4, N_SIMULATIONS, TRUSTED[0])
    most = stats.binom.ppf(1 - 1e-4, N_SIMULATIONS, TRUSTED[1])
    for name in set(script.NAMES) - {"ece"}:
        assert found[name].given == N_SIMULATIONS
        assert least <= found[name].held <= most, name


def test_an_interval_that_forgets_the_patients_is_found_out(script):
    # The same images, each taken for a patient of its own: far too sure of itself.
    cell = script.Cell(n=600, prevalence=0.5, auroc=0.9, repeats=True)
    rng, held, n_simulations = np.random.default_rng(5), 0, 800
    truth = script.truth_of(cell)["sensitivity"]
    for _ in range(n_simulations):
        labels, logits, _ = script.drawn(cell, rng)
        found = summary_metrics(
            *(labels, logits, 1 / (1 + np.exp(-logits)), 0.5), names=["sensitivity"]
        )["sensitivity"]
        held += found.ci_low <= truth <= found.ci_high
    assert held < stats.binom.ppf(1e-4, n_simulations, TRUSTED[0])


def test_wilsons_coverage_is_that_of_the_score_test(script):
    # The interval holds a share where |count - n share| <= z sqrt(n share (1 - share)).
    for n, share in ((20, 0.95), (50, 0.5), (200, 0.99), (1000, 0.9)):
        counts = np.arange(n + 1)
        reach = stats.norm.ppf(0.975) * math.sqrt(n * share * (1 - share))
        held = np.abs(counts - n * share) <= reach
        expected = stats.binom.pmf(counts, n, share)[held].sum()
        assert script.wilson_coverage(n, share) == pytest.approx(expected, abs=1e-9)


def test_the_page_and_the_picture_are_written(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "SIZES", (50,))
    arguments = ["-o", str(tmp_path), "--simulations", "12", "--resamples", "20"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, "--seed", "3"])
    assert script.main() == 0
    text = (tmp_path / "coverage.md").read_text()
    assert "12 test sets in each of 12 cells, 20 bootstrap resamples each" in text
    assert "seed 3" in text
    rows = [line for line in text.splitlines() if line.startswith("| 50 | 0.5 | 0.9 |")]
    counts = script.counted(script.Cell(50, 0.5, 0.9, True), 12, 20, [3, 10])
    assert rows[1].split(" | ")[3:5] == [
        script.percent(counts[n]) for n in ("auroc", "sensitivity")
    ]
    assert (tmp_path / "coverage.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("Cell(n=50") == 12
