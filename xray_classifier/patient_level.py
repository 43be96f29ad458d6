"""One answer for each patient, from the answers for that patient's images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xray_classifier.calibration import Calibration
from xray_classifier.estimates import Estimate, summary_metrics
from xray_classifier.metrics import FloatArray, IntArray, Labels, Scores, check_labels

AGGREGATIONS = {
    "mean": "the mean logit of a patient's images",
    "max": "the highest logit of a patient's images",
    "any": "sick where any image was called sick",
}
METRICS = ("auroc", "sensitivity", "specificity", "ppv", "npv", "brier")


@dataclass(frozen=True)
class PatientLevel:
    """What a model is worth patient by patient.

    Attributes:
        n: Patients.
        n_sick: Patients with a sick image.
        n_mixed: Patients with images of both classes, who count as sick.
        metrics: By aggregation, see AGGREGATIONS, then by metric. `any` decides and ranks nothing,
            so that it has no AUROC and no Brier score.
    """

    n: int
    n_sick: int
    n_mixed: int
    metrics: Mapping[str, Mapping[str, Estimate]]

    def to_dict(self) -> dict[str, Any]:
        """The content of `patients` in metrics.json."""
        return {
            "n": self.n,
            "n_sick": self.n_sick,
            "n_mixed": self.n_mixed,
            "metrics": {
                how: {name: asdict(estimate) for name, estimate in found.items()}
                for how, found in self.metrics.items()
            },
        }


def patient_level(
    labels: Labels,
    logits: Scores,
    clusters: IntArray,
    calibration: Calibration,
    threshold: float,
) -> PatientLevel:
    """Judge a model patient by patient.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy. A patient is sick where
            any image is.
        logits: Raw outputs, shape (n_images,).
        clusters: Patient number of each image, shape (n_images,), 0 to n_patients - 1.
        calibration: Logits to probabilities; that of images, for there is none of patients.
        threshold: Called sick where the probability reaches it.

    Raises:
        DataError: A logit is NaN, a label is not 0 or 1, or shapes differ.
    """
    sick_image, values = check_labels(labels, logits)
    n = int(clusters.max(initial=-1)) + 1
    n_images = np.bincount(clusters, minlength=n)
    n_sick_images = np.bincount(clusters, weights=sick_image, minlength=n)
    sick = (n_sick_images > 0).astype(np.int64)
    highest = np.full(n, -np.inf)
    np.maximum.at(highest, clusters, values)
    mean = np.bincount(clusters, weights=values, minlength=n) / n_images
    return PatientLevel(
        n=n,
        n_sick=int(sick.sum()),
        n_mixed=int(((n_sick_images > 0) & (n_sick_images < n_images)).sum()),
        metrics={
            "mean": _judged(sick, mean, calibration.apply(mean), threshold, METRICS),
            "max": _judged(sick, highest, calibration.apply(highest), threshold, METRICS),
            "any": _judged(sick, highest, calibration.apply(highest), threshold, METRICS[1:5]),
        },
    )


def _judged(
    sick: IntArray, logits: FloatArray, p_sick: FloatArray, threshold: float, names: tuple[str, ...]
) -> dict[str, Estimate]:
    return summary_metrics(sick, logits, p_sick, threshold, names=names, min_patients=0)
