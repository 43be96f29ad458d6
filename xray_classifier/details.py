"""What stands behind a judged split: operating point, calibration, patients, baselines."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.answers import Scores
from xray_classifier.baseline import Baseline
from xray_classifier.baseline_comparison import BaselineComparison, baseline_comparison
from xray_classifier.bootstrap import patient_clusters
from xray_classifier.calibration import Calibration
from xray_classifier.classifier import Classifier
from xray_classifier.data.loading import Radiographs
from xray_classifier.estimates import Estimate, prevalence_metrics, summary_metrics
from xray_classifier.patient_level import PatientLevel, patient_level
from xray_classifier.refer import ReferBand, error_with_band
from xray_classifier.subgroups import Subgroup, subgroups

CALIBRATION_METRICS = ("brier", "ece", "calibration_slope", "calibration_intercept")
LABEL_SHIFT = (
    "re-weighting assumes label shift: the sick there look like the sick here, the healthy like "
    "the healthy, and only their shares differ"
)


@dataclass(frozen=True)
class AtPrevalence:
    """The same decisions where another share is sick.

    Attributes:
        stated: Share of sick there, in (0, 1).
        calibrated_to: Share of sick that the probabilities are right for.
        metrics: ppv, npv and net_benefit there.
    """

    stated: float
    calibrated_to: float
    metrics: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for metrics.json."""
        return {**asdict(self), "assumption": LABEL_SHIFT}


@dataclass(frozen=True)
class Details:
    """What stands behind a judged split of a classifier.

    Attributes:
        operating_point: As the checkpoint stores it: value, policy, chosen_on, the sensitivity and
            specificity it showed there, the threshold's own interval.
        calibration: Logits to probabilities.
        before: `CALIBRATION_METRICS` of the plain sigmoid of the logits, on this split.
        after: The same of the calibrated probabilities.
        refer: Probabilities that get no decision, or None.
        stored_refer: Whether the checkpoint stores such a band, used or not.
        refer_error: Share of wrong answers among images outside the band; NaN without one.
        prevalence: Share of sick on this split.
        at_prevalence: For a stated prevalence, or None.
        patients: Where patients have several images, else None.
        subgroups: By column.
        baselines: None where the checkpoint stores none.
    """

    operating_point: Mapping[str, Any]
    calibration: Calibration
    before: Mapping[str, Estimate]
    after: Mapping[str, Estimate]
    refer: ReferBand | None
    stored_refer: bool
    refer_error: float
    prevalence: float
    at_prevalence: AtPrevalence | None
    patients: PatientLevel | None
    subgroups: tuple[Subgroup, ...]
    baselines: BaselineComparison | None

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json holds of it; NaN stands for undefined."""
        moved = self.at_prevalence
        return {
            "operating_point": dict(self.operating_point),
            "calibration": {
                **self.calibration.to_dict(),
                "before": {name: asdict(estimate) for name, estimate in self.before.items()},
                "after": {name: asdict(estimate) for name, estimate in self.after.items()},
            },
            "refer": None
            if self.refer is None
            else {**self.refer.to_dict(), "error_here": self.refer_error},
            "prevalence": {
                "data": self.prevalence,
                "stated": None if moved is None else moved.to_dict(),
            },
            "patients": None if self.patients is None else self.patients.to_dict(),
            "subgroups": [group.to_dict() for group in self.subgroups],
            "baselines": None if self.baselines is None else self.baselines.to_dict(),
        }


def run_details(
    classifier: Classifier,
    radiographs: Radiographs,
    rows: NDArray[np.int64],
    scores: Scores,
    seed: int,
    by: Sequence[str] | None,
) -> Details:
    """Work out what stands behind the answers for some images.

    Args:
        classifier: The model.
        radiographs: The images.
        rows: Those that were scored, shape (n,).
        scores: The answers, each shape (n,).
        seed: Of the bootstrap.
        by: Columns to form subgroups by; None: what the checkpoint's config says, else those that
            part the images into a few groups.

    Raises:
        UsageError: A column of `by` does not exist.
    """
    manifest = radiographs.manifest
    labels = manifest.targets[rows].astype(int)
    groups = np.array([manifest.patients[row] for row in rows], dtype=object)
    clusters = patient_clusters(groups, len(rows))
    several = len(np.unique(clusters)) < len(clusters)
    columns = {name: [cells[row] for row in rows] for name, cells in manifest.columns.items()}
    stored = classifier.content.get("subgroups")
    if by is None and stored is not None:  # other data may lack a column of the run's own
        by = [name for name in stored if name in columns]
    return Details(
        operating_point=classifier.content["threshold"],
        calibration=classifier.calibration,
        before=_calibrated(labels, scores.logits, scores.p_raw, groups, seed),
        after=_calibrated(labels, scores.logits, scores.p_sick, groups, seed),
        refer=classifier.refer,
        stored_refer=classifier.content.get("refer") is not None,
        refer_error=math.nan
        if classifier.refer is None
        else error_with_band(labels, scores.p_sick, classifier.refer, classifier.threshold),
        prevalence=float(labels.mean()),
        at_prevalence=_at_prevalence(classifier, labels, scores, groups, seed),
        patients=patient_level(
            labels, scores.logits, clusters, classifier.calibration, classifier.threshold
        )
        if several
        else None,
        subgroups=subgroups(
            columns,
            by,
            labels,
            scores.logits,
            scores.p_sick,
            classifier.threshold,
            groups,
            seed,
        ),
        baselines=_baselines(classifier, radiographs, rows, labels, scores, clusters),
    )


def _calibrated(
    labels: NDArray[np.int64],
    logits: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    groups: NDArray[Any],
    seed: int,
) -> dict[str, Estimate]:
    """How well probabilities mean what they say."""
    return summary_metrics(
        labels,
        logits,
        probabilities,
        0.5,
        groups,
        seed,
        names=CALIBRATION_METRICS,
        n_resamples=2000,  # as in the table of all metrics, so that both say the same
        min_patients=0,
    )


def _at_prevalence(
    classifier: Classifier,
    labels: NDArray[np.int64],
    scores: Scores,
    groups: NDArray[Any],
    seed: int,
) -> AtPrevalence | None:
    if classifier.prevalence is None:
        return None
    calibrated_to = classifier.calibrated_to
    found = prevalence_metrics(
        labels,
        scores.p_sick,
        classifier.threshold,
        classifier.prevalence,
        groups,
        seed,
        calibrated_to=calibrated_to,
    )
    return AtPrevalence(classifier.prevalence, calibrated_to, found)


def _baselines(
    classifier: Classifier,
    radiographs: Radiographs,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    scores: Scores,
    clusters: NDArray[np.int64],
) -> BaselineComparison | None:
    stored = classifier.content.get("baseline")
    if stored is None:
        return None
    signatures = radiographs.signatures[rows]
    return baseline_comparison(
        Baseline.from_dict(stored), signatures, labels, scores.logits, scores.p_sick, clusters
    )
