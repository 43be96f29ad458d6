#!/usr/bin/env python3
"""Measure how often each 95 % interval that the program prints holds the truth.

    scripts/measure_coverage.py [-o FOLDER] [--simulations N] [--resamples N] [--seed N]

Draws many small test sets from a model whose true AUROC, sensitivity and so on are known, judges
each with `estimates.py`, and counts the intervals that hold the true value. Writes coverage.md and
coverage.png to FOLDER (docs unless given) and prints one line per cell of the grid.

The model: scores are normal in the healthy and, shifted, in the sick; probabilities are the true
ones, so that slope and intercept of the calibration are 1 and 0; the threshold is the prevalence.
Where patients repeat, each has 1 to 5 images of one truth, whose scores correlate by 0.5 within a
class; then about a third of N patients stand behind N images.

Needs this project to be installed. Exit codes: 0 done, 2 usage.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, stats

from xray_classifier.estimates import (
    CLASSIFICATION_METRICS,
    Estimate,
    classification_metrics,
    prevalence_metrics,
)
from xray_classifier.intervals import wilson_interval
from xray_classifier.prevalence import predictive_values_of, threshold_at

LEVEL = 0.95
SIZES = (50, 200, 1000)
PREVALENCES = (0.1, 0.5)
AUROCS = (0.7, 0.9, 0.97)
ELSEWHERE = 0.03
"""Prevalence of `ppv_at_3` and `npv_at_3`."""
SHARES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
"""Of the table of Wilson's interval."""
CORRELATION = 0.5
MOST_IMAGES_EACH = 5
NAMES = (*CLASSIFICATION_METRICS, "ppv_at_3", "npv_at_3", "net_benefit_at_3")
TOLD = {
    "auroc": "AUROC",
    "sensitivity": "sensitivity",
    "ppv_at_3": "PPV at 3 %",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_slope": "calibration slope",
    "sensitivity_at_specificity_90": "sensitivity at specificity 0.90",
    "ece": "ECE (no promise)",
}
"""What the picture and the long table show."""
LEAST_SHOWN = 0.6

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One place of the grid."""

    n: int
    prevalence: float
    auroc: float
    repeats: bool
    """Whether patients have several images."""

    @property
    def distance(self) -> float:
        """Between the mean scores of the classes, in standard deviations."""
        return math.sqrt(2) * float(stats.norm.ppf(self.auroc))


@dataclass
class Count:
    """Of one interval in one cell."""

    given: int = 0
    """Simulations that gave an interval."""
    held: int = 0
    """Those of them whose interval holds the truth."""

    @property
    def coverage(self) -> float:
        return self.held / self.given if self.given else math.nan


def main() -> int:
    """Simulate the grid, print a line per cell, write the table and the picture."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("-o", dest="folder", type=Path, default=Path("docs"), metavar="FOLDER")
    parser.add_argument("--simulations", type=int, default=500, metavar="N")
    parser.add_argument("--resamples", type=int, default=500, metavar="N")
    parser.add_argument("--seed", type=int, default=20261125, metavar="N")
    asked = parser.parse_args()
    if min(asked.simulations, asked.resamples) < 1:
        parser.error("simulations and resamples are counts of at least 1")
    started, found = time.perf_counter(), {}
    for place, (repeats, n, prevalence, auroc) in enumerate(
        product((False, True), SIZES, PREVALENCES, AUROCS)
    ):
        cell = Cell(n, prevalence, auroc, repeats)
        seed = [asked.seed, place]
        found[cell] = counted(cell, asked.simulations, asked.resamples, seed)
        shown = "  ".join(f"{name} {found[cell][name].coverage:.3f}" for name in TOLD)
        print(f"{cell}  {shown}  {time.perf_counter() - started:.0f} s", flush=True)
    asked.folder.mkdir(parents=True, exist_ok=True)
    text = page(found, asked.simulations, asked.resamples, asked.seed)
    (asked.folder / "coverage.md").write_text(text, encoding="utf-8")
    (asked.folder / "coverage.png").write_bytes(picture(found, asked.simulations))
    return 0


def counted(
    cell: Cell, n_simulations: int, n_resamples: int, seed: int | Sequence[int]
) -> dict[str, Count]:
    """How many intervals of each name were given, and held, in one cell."""
    rng, right = np.random.default_rng(seed), truth_of(cell)
    counts = {name: Count() for name in NAMES}
    for _ in range(n_simulations):
        estimates = judged(cell, rng, n_resamples)
        for name, count in counts.items():
            one = estimates[name]
            if not math.isnan(one.ci_low):
                count.given += 1
                count.held += one.ci_low <= right[name] <= one.ci_high
    return counts


def judged(cell: Cell, rng: np.random.Generator, n_resamples: int) -> dict[str, Estimate]:
    """All that the program says of one drawn test set."""
    labels, logits, patients = drawn(cell, rng)
    probabilities = 1 / (1 + np.exp(-logits))
    seed = int(rng.integers(2**31))
    found = classification_metrics(
        *(labels, logits, probabilities, cell.prevalence, patients, seed),
        n_resamples=n_resamples,
        level=LEVEL,
    )
    elsewhere = prevalence_metrics(
        *(labels, probabilities, cell.prevalence, ELSEWHERE, patients, seed),
        calibrated_to=cell.prevalence,
        n_resamples=n_resamples,
        level=LEVEL,
    )
    return found | {f"{name}_at_3": one for name, one in elsewhere.items()}


def drawn(
    cell: Cell, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
    """A test set: labels, logits of the true probability and patients, each (n,)."""
    sizes = rng.integers(1, MOST_IMAGES_EACH + 1, cell.n) if cell.repeats else np.ones(cell.n, int)
    patients = np.repeat(np.arange(cell.n), sizes)[: cell.n]
    labels = (rng.random(cell.n) < cell.prevalence).astype(np.int64)[patients]
    shared = CORRELATION if cell.repeats else 0.0
    own, common = rng.normal(size=cell.n), rng.normal(size=cell.n)[patients]
    scores = math.sqrt(1 - shared) * own + math.sqrt(shared) * common + cell.distance * labels
    return labels, logits_of(cell, scores), patients


def logits_of(cell: Cell, scores: Floats) -> Floats:
    """Logit of the true P(sick) at each score."""
    prior = math.log(cell.prevalence / (1 - cell.prevalence))
    return np.asarray(cell.distance * scores - cell.distance**2 / 2 + prior)


def truth_of(cell: Cell) -> dict[str, float]:
    """What each metric is in endlessly many images of this model."""
    d, share = cell.distance, cell.prevalence
    rate = float(stats.norm.cdf(d / 2))  # sensitivity and specificity where P(sick) = prevalence
    ppv, npv = predictive_values_of(rate, rate, share)
    ppv_at_3, npv_at_3 = predictive_values_of(rate, rate, ELSEWHERE)
    price = threshold_at(share, share, ELSEWHERE)
    brier = mean_over(cell, lambda p: (1 - p) ** 2, lambda p: p**2)
    tp, fp = share * rate, (1 - share) * (1 - rate)
    fn, tn = share - tp, 1 - share - fp
    margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return {
        "auroc": cell.auroc,
        "partial_auroc": partial_area(d, 0.1),
        "loss": mean_over(cell, lambda p: -np.log(p), lambda p: -np.log1p(-p)),
        "brier": brier,
        "brier_skill": 1 - brier / (share * (1 - share)),
        "ece": 0.0,
        "calibration_slope": 1.0,
        "calibration_intercept": 0.0,
        "average_precision": mean_precision(cell),
        "sensitivity_at_specificity_90": float(stats.norm.cdf(d + stats.norm.ppf(0.1))),
        "specificity_at_sensitivity_95": float(stats.norm.cdf(d + stats.norm.ppf(0.05))),
        **dict.fromkeys(("sensitivity", "specificity", "accuracy", "balanced_accuracy"), rate),
        "ppv": ppv,
        "npv": npv,
        "net_benefit": tp - fp * share / (1 - share),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "mcc": (tp * tn - fp * fn) / math.sqrt(margins),
        "ppv_at_3": ppv_at_3,
        "npv_at_3": npv_at_3,
        "net_benefit_at_3": ELSEWHERE * rate - (1 - ELSEWHERE) * (1 - rate) * price / (1 - price),
    }


def mean_over(cell: Cell, of_sick: Any, of_healthy: Any) -> float:
    """Mean over the population of one function of P(sick) for the sick and one for the healthy."""

    def density(score: float) -> float:
        p = 1 / (1 + np.exp(-logits_of(cell, np.array(score))))
        sick = cell.prevalence * stats.norm.pdf(score - cell.distance) * of_sick(p)
        return float(sick + (1 - cell.prevalence) * stats.norm.pdf(score) * of_healthy(p))

    return float(integrate.quad(density, -9, cell.distance + 9, limit=200)[0])


def mean_precision(cell: Cell) -> float:
    """Precision at the score of each sick image, averaged."""

    def density(score: float) -> float:
        found = cell.prevalence * stats.norm.sf(score - cell.distance)
        alarms = (1 - cell.prevalence) * stats.norm.sf(score)
        return float(stats.norm.pdf(score - cell.distance) * found / (found + alarms))

    return float(integrate.quad(density, -9, cell.distance + 9, limit=200)[0])


def partial_area(distance: float, max_fpr: float) -> float:
    """Area under the left end of the ROC curve, rescaled as by McClish 1989."""
    area = integrate.quad(lambda x: stats.norm.cdf(distance + stats.norm.ppf(x)), 0, max_fpr)[0]
    least = max_fpr**2 / 2
    return float(0.5 * (1 + (area - least) / (max_fpr - least)))


def page(
    found: dict[Cell, dict[str, Count]], n_simulations: int, n_resamples: int, seed: int
) -> str:
    """The tables, in Markdown."""
    error = 100 * math.sqrt(LEVEL * (1 - LEVEL) / n_simulations)
    lines = [
        "# How often the 95 % intervals hold the truth",
        "",
        f"Simulated: {n_simulations:,} test sets in each of {len(found)} cells, {n_resamples:,} "
        f"bootstrap resamples each (the program takes 2,000), seed {seed}. A cell of exactly 95 % "
        f"would show {95 - 1.96 * error:.1f} to {95 + 1.96 * error:.1f} %, nineteen times in "
        "twenty. Made by `scripts/measure_coverage.py`, which states the model.",
        "",
        "Coverage is counted among the intervals that were given; where the data support none, "
        "the program prints none. Where patients repeat, each has 1 to 5 images, so that N images "
        "are about N / 3 patients: a tenth of 50 images then is one or two sick patients, from "
        "whom no method can tell much. The ECE of a calibrated model is 0 and every sample shows "
        "more: its interval says how far resampling moves it, and is no promise of coverage.",
        "",
        "![Coverage of eight intervals over the grid](coverage.png)",
        "",
    ]
    for repeats, heading in ((False, "One image per patient"), (True, "Patients repeat")):
        cells = {cell: counts for cell, counts in found.items() if cell.repeats == repeats}
        lines += [f"## {heading}", "", *summary(cells), "", *grid(cells), ""]
    return "\n".join([*lines, *wilson_lines()])


def wilson_lines() -> list[str]:
    """The section on Wilson's interval, whose coverage can be summed without any simulation."""
    lines = [
        "## Wilson's interval at extreme shares",
        "",
        "Not simulated: the chances of all counts of successes whose interval holds the share are "
        "added up. The mean is near 95 %, but with whole counts it swings with the share, most "
        "where less than one failure is expected.",
        "",
        f"| n | {' | '.join(f'share {share}' for share in SHARES)} | mean | lowest |",
        "|---:|" + "---:|" * (len(SHARES) + 2),
    ]
    between = np.arange(0.5, 0.9995, 0.0005)
    for n in (20, *SIZES):
        shown = " | ".join(f"{100 * wilson_coverage(n, share):.1f}" for share in SHARES)
        every = [wilson_coverage(n, float(share)) for share in between]
        lines.append(f"| {n} | {shown} | {100 * np.mean(every):.1f} | {100 * min(every):.1f} |")
    return [*lines, "", "Mean and lowest: over shares of 0.5 to 0.999 in steps of 0.0005.", ""]


def wilson_coverage(n: int, share: float) -> float:
    """Chance that Wilson's interval of n images holds a share."""
    z = stats.norm.ppf((1 + LEVEL) / 2)
    near = np.arange(max(0, int(n * share - 8 * z * n**0.5)), n + 1)
    held = [low <= share <= high for low, high in (wilson(int(count), n) for count in near)]
    return float(stats.binom.pmf(near, n, share)[held].sum())


@cache
def wilson(successes: int, n: int) -> tuple[float, float]:
    """As `wilson_interval`, each asked for once."""
    return wilson_interval(successes, n, LEVEL)


def summary(cells: dict[Cell, dict[str, Count]]) -> list[str]:
    """A table of every interval: over all cells, those of the largest test sets, and the worst."""
    lines = ["| interval of | mean, % | mean at N = 1,000, % | lowest, % | at | given, % |"]
    lines.append("|---|---:|---:|---:|---|---:|")
    for name in NAMES:
        counts = {cell: by_name[name] for cell, by_name in cells.items() if by_name[name].given}
        if not counts:
            continue
        worst = min(counts, key=lambda cell: counts[cell].coverage)
        all_of_them = [count.coverage for count in counts.values()]
        large = [count.coverage for cell, count in counts.items() if cell.n == max(SIZES)]
        given = np.mean([by_name[name].given for by_name in cells.values()])
        total = max(count.given for by_name in cells.values() for count in by_name.values())
        lines.append(
            f"| {TOLD.get(name, name)} | {100 * np.mean(all_of_them):.1f} "
            f"| {100 * np.mean(large):.1f} | {100 * counts[worst].coverage:.1f} "
            f"| N {worst.n}, prevalence {worst.prevalence}, AUROC {worst.auroc} "
            f"| {100 * given / total:.1f} |"
        )
    return lines


def grid(cells: dict[Cell, dict[str, Count]]) -> list[str]:
    """A table of the told intervals in every cell."""
    lines = [f"| N | prevalence | true AUROC | {' | '.join(TOLD.values())} |"]
    lines.append("|---:|---:|---:|" + "---:|" * len(TOLD))
    for cell, counts in cells.items():
        shown = " | ".join(percent(counts[name]) for name in TOLD)
        lines.append(f"| {cell.n} | {cell.prevalence} | {cell.auroc} | {shown} |")
    return lines


def percent(count: Count) -> str:
    """Coverage in per cent; a dash where fewer than ten intervals were given."""
    return f"{100 * count.coverage:.1f}" if count.given >= 10 else "-"


def picture(found: dict[Cell, dict[str, Count]], n_simulations: int) -> bytes:
    """The told intervals against N, PNG: two rows of panels without repeats, two with."""
    from xray_classifier.report.canvas import as_png

    return as_png(figure_of)(found, n_simulations)


def figure_of(found: dict[Cell, dict[str, Count]], n_simulations: int) -> Any:
    """The sheet with all panels."""
    from xray_classifier.report.canvas import new_axes, new_figure

    figure = new_figure(
        *(15.0, 15.2),
        "How often the 95 % intervals hold the truth",
        f"{n_simulations:,} simulated test sets per point; grey: 95 % give or take chance\n"
        f"Triangles at the bottom: below {100 * LEAST_SHOWN:.0f} %",
    )
    for place, (repeats, name) in enumerate(product((False, True), TOLD)):
        row, column = divmod(place, 4)
        box = (0.75 + 3.6 * column, 0.75 + 3.45 * (3 - row), 2.9, 2.45)
        axes = new_axes(figure, box, "images" if row == 3 else "", "coverage, %" * (not column))
        axes.set_title(
            f"{TOLD[name]}\n{'patients repeat' if repeats else 'one image per patient'}",
            fontsize=10,
            loc="left",
        )
        panel(axes, {cell: found[cell][name] for cell in found if cell.repeats == repeats})
        reach = 100 * 1.96 * math.sqrt(LEVEL * (1 - LEVEL) / n_simulations)
        axes.axhspan(100 * LEVEL - reach, 100 * LEVEL + reach, color="#DDDDDD", zorder=0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=3, fontsize=10, frameon=False)
    return figure


def panel(axes: Any, counts: dict[Cell, Count]) -> None:
    """Lines of coverage against N, one for each prevalence and AUROC."""
    from xray_classifier.report.canvas import BLUE, GREEN, VERMILLION

    styles = zip(PREVALENCES, (("--", "o"), ("-", "s")), strict=True)
    for (prevalence, (dash, marker)), (auroc, colour) in product(
        styles, zip(AUROCS, (VERMILLION, BLUE, GREEN), strict=True)
    ):
        line = [
            (cell.n, count.coverage)
            for cell, count in counts.items()
            if (cell.prevalence, cell.auroc) == (prevalence, auroc) and count.given >= 10
        ]
        if not line:
            continue
        sizes, coverages = np.array(line).T
        shown = 100 * np.maximum(coverages, LEAST_SHOWN)
        label = f"AUROC {auroc}, prevalence {prevalence}"
        axes.plot(sizes, shown, dash, marker=marker, ms=4, color=colour, lw=1.3, label=label)
        low = coverages < LEAST_SHOWN
        axes.plot(sizes[low], shown[low], "v", ms=9, color=colour)
    axes.set_xscale("log")
    axes.set_xlim(40, 1250)
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.minorticks_off()
    axes.set_ylim(100 * LEAST_SHOWN - 1, 100.5)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
