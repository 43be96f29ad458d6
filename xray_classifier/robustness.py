"""The numbers of a stress test: a model on the same images after each of many changes.

All changes are judged on the same images, so that a fall is a paired difference: the same resamples
of patients stand behind the AUROC before and after.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.bootstrap import (
    bootstrap_values,
    patient_clusters,
    percentile_interval,
)
from xray_classifier.confusion import confusion
from xray_classifier.data.stress import VARIANTS
from xray_classifier.estimates import Estimate
from xray_classifier.intervals import delong_interval, logit_interval
from xray_classifier.metrics import (
    FloatArray,
    IntArray,
    auroc,
    brier_score,
    expected_calibration_error,
)
from xray_classifier.weighted import weighted_auroc

RESAMPLES = 2000
UNCHANGED = "unchanged"


@dataclass(frozen=True)
class StressCell:
    """A model on all images after one change at one strength; NaN where undefined.

    Attributes:
        perturbation: Name of the change; `unchanged` for none.
        level: 1 weak to 5 strong; 0 for none.
        strength: The same in the unit of the change; NaN for none.
        words: The same as one would say it.
        auroc: With DeLong's interval where each image is a patient of its own, else with one of
            resampled patients.
        drop: AUROC without the change minus AUROC with it, with a paired interval.
        brier: Brier score of the calibrated probabilities.
        ece: Expected calibration error of the same, ten bins.
        sensitivity: At the model's own threshold.
        specificity: At the model's own threshold.
    """

    perturbation: str
    level: int
    strength: float
    words: str
    auroc: Estimate
    drop: Estimate
    brier: float
    ece: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class StressTest:
    """How far a model bears what happens to films in daily work.

    Attributes:
        n_sick: Sick images that were tried.
        n_healthy: Healthy images that were tried.
        n_given: Images that might have been tried; more than the sum where `max_images` cut them.
        n_left_out: Images that were drawn but left out, for they or a changed copy of them could
            not be prepared.
        seed: Of the draws and the bootstrap.
        threshold: The model's own, a probability.
        unchanged: The model on the images as they are, brought to the working size.
        cells: Each perturbation from weak to strong, in the order of `VARIANTS`.
        robustness: Mean AUROC over all cells, with an interval of resampled patients.
        robustness_drop: AUROC of `unchanged` minus that mean, with a paired interval.
        shift_mean: Mean distance of the logits of `unchanged` from those of the usual path.
        shift_max: Largest such distance.
        notes: What a reader must know.
    """

    n_sick: int
    n_healthy: int
    n_given: int
    n_left_out: int
    seed: int
    threshold: float
    unchanged: StressCell
    cells: tuple[StressCell, ...]
    robustness: Estimate
    robustness_drop: Estimate
    shift_mean: float
    shift_max: float
    notes: tuple[str, ...]

    @property
    def n(self) -> int:
        """Images that were tried."""
        return self.n_sick + self.n_healthy

    @property
    def worst(self) -> StressCell | None:
        """The cell of the lowest AUROC, the first of several; None where all are undefined."""
        defined = [cell for cell in self.cells if not math.isnan(cell.auroc.value)]
        return min(defined, key=lambda cell: cell.auroc.value, default=None)

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json holds of it; NaN stands for undefined."""
        worst = self.worst
        content = asdict(self)
        content["cells"] = list(content["cells"])
        content["notes"] = list(self.notes)
        return {"n": self.n, **content, "worst": None if worst is None else asdict(worst)}

    def in_words(self) -> list[str]:
        """The result in up to three sentences."""
        worst = self.worst
        if worst is None:
            return [f"stress test on {self.n:,} images: one class only, so AUROC is undefined"]
        before = self.unchanged.auroc.value
        words = [
            f"stress test on {self.n:,} of {self.n_given:,} images: mean AUROC "
            f"{_with_interval(self.robustness)} over {len(self.cells)} changes, "
            f"{before:.3f} without any"
        ]
        if worst.drop.value <= 0:
            return [*words, "no change lowers it"]
        words.append(
            f"AUROC falls most under {worst.words}: {before:.3f} -> "
            f"{_with_interval(worst.auroc)}, a fall of {_with_interval(worst.drop)}"
        )
        return words + self._decision_words()

    def _decision_words(self) -> list[str]:
        """Where the decisions at the model's own threshold suffer most, by their two shares."""
        fallen = []
        for name in ("sensitivity", "specificity"):
            before = getattr(self.unchanged, name)
            lowest = min(self.cells, key=lambda cell: getattr(cell, name))
            after = getattr(lowest, name)
            if after < before:
                fallen.append(f"{name} from {before:.0%} to {after:.0%} under {lowest.words}")
        if not fallen:
            return []
        return [f"at threshold {self.threshold:.3g}, {' and '.join(fallen)}"]


def robustness(
    labels: NDArray[np.int64],
    logits: FloatArray,
    p_sick: FloatArray,
    *,
    threshold: float,
    groups: NDArray[Any],
    usual_logits: FloatArray,
    n_given: int,
    n_left_out: int,
    notes: Sequence[str] = (),
    seed: int = 0,
    n_resamples: int = RESAMPLES,
) -> StressTest:
    """Judge the answers of a model to images and to their changed copies.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        logits: Raw outputs, shape (n_images, 51), in the order of `VARIANTS`.
        p_sick: Calibrated probabilities of the same shape, in [0, 1].
        threshold: Called sick where the probability reaches it.
        groups: Patient of each image, shape (n_images,), as in `patient_clusters`.
        usual_logits: Raw outputs without the detour over a working film, shape (n_images,).
        n_given: See `StressTest`.
        n_left_out: See `StressTest`.
        notes: What a reader must know beside what is found here.
        seed: Of the bootstrap.
        n_resamples: Bootstrap resamples.

    Raises:
        DataError: A logit is NaN, a probability is outside [0, 1], a label is not 0 or 1, or
            shapes differ.
    """
    clusters = patient_clusters(groups, len(labels))
    areas = [auroc(labels, column) for column in logits.T]
    draws = _resampled_areas(labels, logits, clusters, n_resamples, seed)
    alone = len(np.unique(clusters)) == len(clusters)
    cells = []
    for place, (column, area) in enumerate(zip(logits.T, areas, strict=True)):
        estimate = _area(labels, column, area, draws[:, place], alone)
        drop = _resampled(areas[0] - area, draws[:, 0] - draws[:, place], alone, len(labels))
        cells.append(_cell(place, estimate, drop, labels, p_sick[:, place], threshold))
    mean_draws = draws[:, 1:].mean(axis=1)
    mean = float(np.mean(areas[1:]))
    n_sick = int(np.sum(labels))
    shifts = np.abs(logits[:, 0] - usual_logits)
    return StressTest(
        n_sick=n_sick,
        n_healthy=len(labels) - n_sick,
        n_given=n_given,
        n_left_out=n_left_out,
        seed=seed,
        threshold=threshold,
        unchanged=cells[0],
        cells=tuple(cells[1:]),
        robustness=_resampled(mean, mean_draws, alone, len(labels)),
        robustness_drop=_resampled(areas[0] - mean, draws[:, 0] - mean_draws, alone, len(labels)),
        shift_mean=float(shifts.mean()),
        shift_max=float(shifts.max()),
        notes=(*notes, *(() if alone else (_repeated(clusters),))),
    )


def _resampled_areas(
    labels: NDArray[np.int64], logits: FloatArray, clusters: IntArray, n_resamples: int, seed: int
) -> FloatArray:
    """AUROC of each variant in each resample of the patients, (n_resamples, 51)."""

    def statistic(weights: FloatArray) -> FloatArray:
        columns = [weighted_auroc(labels, column, weights) for column in logits.T]
        return np.stack(columns, axis=1)

    return bootstrap_values(statistic, clusters, n_resamples, seed)


def _area(
    labels: NDArray[np.int64], logits: FloatArray, value: float, draws: FloatArray, alone: bool
) -> Estimate:
    if alone:
        method = "extreme_auroc" if value in (0.0, 1.0) else "delong"
        return Estimate(value, *delong_interval(labels, logits), method, len(labels))
    interval = logit_interval(value, float(np.nanvar(draws)))
    return Estimate(value, *interval, "patient_bootstrap", len(labels))


def _resampled(value: float, draws: FloatArray, alone: bool, n: int) -> Estimate:
    """A number with the interval of its resampled values."""
    method = "bootstrap" if alone else "patient_bootstrap"
    return Estimate(value, *percentile_interval(draws), method, n)


def _cell(
    place: int,
    area: Estimate,
    drop: Estimate,
    labels: NDArray[np.int64],
    p_sick: FloatArray,
    threshold: float,
) -> StressCell:
    kind, level = VARIANTS[place]
    counts = confusion(labels, p_sick, threshold)
    return StressCell(
        perturbation=UNCHANGED if kind is None else kind.name,
        level=level,
        strength=math.nan if kind is None else kind.strengths[level - 1],
        words=UNCHANGED if kind is None else kind.in_words(level),
        auroc=area,
        drop=drop,
        brier=brier_score(labels, p_sick),
        ece=expected_calibration_error(labels, p_sick),
        sensitivity=counts.sensitivity,
        specificity=counts.specificity,
    )


def _repeated(clusters: IntArray) -> str:
    n_patients, n_images = len(np.unique(clusters)), len(clusters)
    return (
        f"{n_images:,} images of {n_patients:,} patients: intervals resample patients, for images "
        "of one patient resemble each other"
    )


def _with_interval(estimate: Estimate) -> str:
    if math.isnan(estimate.ci_low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.ci_low:.3f} to {estimate.ci_high:.3f})"
