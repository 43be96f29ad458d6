"""The four outcomes of a decision, and the fractions made of them."""

import math
from dataclasses import dataclass

from xray_classifier.metrics import Labels, Scores, check_labels, decide, ratio


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of images by truth and decision at one threshold.

    Each property is a fraction (`mcc` lies in [-1, 1]) and NaN where its denominator is zero.
    """

    tp: int
    """Sick and called sick."""
    fp: int
    """Healthy but called sick."""
    tn: int
    """Healthy and called healthy."""
    fn: int
    """Sick but called healthy."""

    @property
    def sensitivity(self) -> float:
        """Share of the sick that were called sick (recall)."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """Share of the healthy that were called healthy."""
        return ratio(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float:
        """Share of those called sick who are (precision); moves with the prevalence."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> float:
        """Share of those called healthy who are; moves with the prevalence."""
        return ratio(self.tn, self.tn + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of all images decided rightly."""
        return ratio(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity; NaN with one class."""
        return (self.sensitivity + self.specificity) / 2

    @property
    def f1(self) -> float:
        """Harmonic mean of PPV and sensitivity; NaN if none is sick and none was called sick."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def mcc(self) -> float:
        """Matthews correlation of truth and decision; NaN if either never varies.

        Source:
            Matthews 1975, doi:10.1016/0005-2795(75)90109-9.
        """
        tp, fp, tn, fn = self.tp, self.fp, self.tn, self.fn
        margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return ratio(tp * tn - fp * fn, math.sqrt(margins))


def confusion(labels: Labels, probabilities: Scores, threshold: float) -> Confusion:
    """Count the four outcomes of `probability >= threshold`.

    Args:
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        probabilities: P(sick), shape (n_images,), in [0, 1].
        threshold: The operating point, a probability.

    Raises:
        DataError: A probability is NaN or outside [0, 1], a label is not 0 or 1, shapes differ.
    """
    sick, values = check_labels(labels, probabilities)
    called = decide(values, threshold)
    return Confusion(
        tp=int((sick & called).sum()),
        fp=int((~sick & called).sum()),
        tn=int((~sick & ~called).sum()),
        fn=int((sick & ~called).sum()),
    )
