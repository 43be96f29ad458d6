"""What a model must beat to earn its place: a guess, and 64 grey squares.

Both learn from the training images alone and travel in the checkpoint, so that every evaluation can
hold the model against them on the same images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xray_classifier.data.probe_features import thumbnail_features
from xray_classifier.data.signature import Signatures
from xray_classifier.errors import CheckpointError
from xray_classifier.logistic import Logistic, logistic_fit
from xray_classifier.metrics import FloatArray, Labels

FEATURES = 64


@dataclass(frozen=True, eq=False)
class Baseline:
    """The share of sick in the training images, and a logistic regression on 8 x 8 pixels.

    Attributes:
        prevalence: Share of sick, in (0, 1): the guess that knows nothing of an image.
        centre: Mean of each feature over the training images, shape (64,).
        spread: Standard deviation of each, shape (64,); 1 where it is constant.
        fit: Weights for features less `centre` over `spread`.
    """

    prevalence: float
    centre: FloatArray
    spread: FloatArray
    fit: Logistic

    def logits(self, signatures: Signatures) -> FloatArray:
        """Logit of sick of each image by its 8 x 8 pixels, shape (n_images,)."""
        features = thumbnail_features(signatures)
        return self.fit.logits((features - self.centre) / self.spread)

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers that JSON holds without loss."""
        return {
            "prevalence": self.prevalence,
            "centre": self.centre.tolist(),
            "spread": self.spread.tolist(),
            "weights": self.fit.weights.tolist(),
            "intercept": self.fit.intercept,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Baseline":
        """Read what `to_dict` wrote.

        Raises:
            CheckpointError: A part is missing or not what it should be.
        """
        try:
            parts = [np.array(stored[key], float) for key in ("centre", "spread", "weights")]
            prevalence, intercept = float(stored["prevalence"]), float(stored["intercept"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"the stored baseline cannot be read: {error}") from error
        centre, spread, weights = parts
        numbers = np.concatenate([centre.ravel(), spread.ravel(), weights.ravel(), [intercept]])
        whole = all(part.shape == (FEATURES,) for part in parts) and bool((spread > 0).all())
        if not (whole and np.isfinite(numbers).all() and 0 < prevalence < 1):
            raise CheckpointError("the stored baseline is none: wrong shapes or numbers")
        return cls(prevalence, centre, spread, Logistic(weights, intercept))


def fit_baseline(signatures: Signatures, labels: Labels) -> Baseline:
    """Learn both from the training images.

    Args:
        signatures: Of the training images, shape (n_images,).
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy; both are there.
    """
    features = thumbnail_features(signatures)
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    fit = logistic_fit((features - centre) / spread, labels)
    return Baseline(float(np.mean(labels)), centre, spread, fit)
