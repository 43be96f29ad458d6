"""A model held against the baselines of its checkpoint, on the same images."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xray_classifier.baseline import Baseline
from xray_classifier.clustered_auroc import auroc_difference, clustered_interval
from xray_classifier.data.signature import Signatures
from xray_classifier.estimates import Estimate
from xray_classifier.metrics import FloatArray, IntArray, Labels, auroc, brier_score


@dataclass(frozen=True)
class BaselineComparison:
    """What the baselines are worth, and what the model adds.

    Attributes:
        prevalence: Share of sick in the training images: the guess that knows no image.
        guess_brier: Brier score of that guess.
        model_brier: Brier score of the model.
        thumbnail: AUROC of the logistic regression on 8 x 8 pixels.
        gain: AUROC of the model minus that, with the paired interval.
        p_value: Of no difference; NaN where no test can be made.
    """

    prevalence: float
    guess_brier: float
    model_brier: float
    thumbnail: Estimate
    gain: Estimate
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """The content of `baselines` in metrics.json."""
        return {
            "prevalence_guess": {"prevalence": self.prevalence, "brier": self.guess_brier},
            "thumbnail": {
                "auroc": asdict(self.thumbnail),
                "model_minus_thumbnail": {**asdict(self.gain), "p_value": self.p_value},
            },
        }

    def in_words(self) -> str:
        """What the model adds to 64 grey squares, in one sentence."""
        if math.isnan(self.thumbnail.value):
            return "one class only: no AUROC to hold against that of the baselines"
        told = f"a logistic regression on 8 x 8 pixels has AUROC {self.thumbnail.value:.3f}"
        by = f"{abs(self.gain.value):.3f}"
        if math.isnan(self.gain.ci_low):
            return f"{told}; the model differs from it by {self.gain.value:+.3f}"
        ends = f"({self.gain.ci_low:.3f} to {self.gain.ci_high:.3f})"
        if self.gain.ci_low > 0:
            return f"{told}; the model adds {by} {ends}"
        if self.gain.ci_high < 0:
            return f"{told}: BETTER than the model, by {by} ({-self.gain.ci_high:.3f} to " + (
                f"{-self.gain.ci_low:.3f})"
            )
        return f"{told}; that the model adds anything ({self.gain.value:+.3f}, {ends}) is not shown"


def baseline_comparison(
    baseline: Baseline,
    signatures: Signatures,
    labels: Labels,
    logits: FloatArray,
    p_sick: FloatArray,
    clusters: IntArray,
) -> BaselineComparison:
    """Hold a model against its baselines.

    Args:
        baseline: From the checkpoint.
        signatures: Of the images judged, shape (n_images,).
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        logits: Of the model, shape (n_images,).
        p_sick: Of the model, shape (n_images,), in [0, 1].
        clusters: Patient number of each image, shape (n_images,), from `patient_clusters`.
    """
    n = len(logits)
    thumbnail = baseline.logits(signatures)
    difference = auroc_difference(labels, thumbnail, logits, clusters)
    single = len(np.unique(clusters)) == n
    interval = clustered_interval(labels, thumbnail, clusters)
    method = "delong" if single else "obuchowski"
    ends = difference.low, difference.high
    return BaselineComparison(
        prevalence=baseline.prevalence,
        guess_brier=brier_score(labels, np.full(n, baseline.prevalence)),
        model_brier=brier_score(labels, p_sick),
        thumbnail=Estimate(auroc(labels, thumbnail), *interval, method, n),
        gain=Estimate(difference.value, *ends, difference.method, n),
        p_value=difference.p_value,
    )
