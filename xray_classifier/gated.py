"""The input gate in an evaluation: which images it would refuse, and the split without them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xray_classifier.classifier import Classifier, GateMode
from xray_classifier.data.loading import Radiographs


@dataclass(frozen=True, eq=False)
class Gated:
    """A data set after the gate.

    Attributes:
        radiographs: With a reason for each image that is refused, where the gate refuses.
        scores: `ood_score` of each image of the data, (N,); NaN where it was not looked at.
        flagged: How many images it would refuse, by reason.
        mode: What was asked.
        off: Why there is no gate although one was asked; `` where there is one.
    """

    radiographs: Radiographs
    scores: NDArray[np.float64]
    flagged: Mapping[str, int]
    mode: GateMode
    off: str

    def in_words(self) -> list[str]:
        """What a reader must know of it; nothing where all images passed."""
        if self.off:
            return []
        n = sum(self.flagged.values())
        if not n:
            return []
        told = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(self.flagged.items()))
        if self.mode == "refuse":
            return [f"the input gate refused {n:,} images ({told}); they are in no metric"]
        return [
            f"the input gate finds {n:,} images unlike the training data ({told}); --gate refuse "
            "leaves them out"
        ]


def ood_scores(
    classifier: Classifier, radiographs: Radiographs, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How unlike the training images some images are, shape (n,); NaN without a gate.

    Args:
        classifier: The model.
        radiographs: Decoded with the classifier's own settings.
        rows: Readable images, (n,).
    """
    return gated(classifier, radiographs, rows, "warn").scores[rows]


def gated(
    classifier: Classifier, radiographs: Radiographs, rows: NDArray[np.int64], mode: GateMode
) -> Gated:
    """Look at images before they are judged.

    Args:
        classifier: The model.
        radiographs: Decoded with the classifier's own settings.
        rows: Readable images that are to be judged, (n,).
        mode: `refuse` takes strange images out, `warn` counts them, `off` does not look.

    Raises:
        CheckpointError: `refuse` is asked of a model without a gate.
    """
    classifier.require_gate(mode)
    scores = np.full(len(radiographs.manifest), np.nan)
    if mode == "off" or classifier.gate is None or not len(rows):
        off = classifier.gate_off if mode != "off" and classifier.gate is None else ""
        return Gated(radiographs, scores, {}, mode, off)
    found = classifier.strangeness(radiographs.images[rows], radiographs.signatures[rows])
    scores[rows] = found.scores
    strange = {int(row): why for row, why in zip(rows, found.reasons, strict=True) if why}
    if mode == "refuse":
        reasons = list(radiographs.reasons)
        for row, why in strange.items():
            reasons[row] = why
        radiographs = replace(radiographs, reasons=tuple(reasons))
    return Gated(radiographs, scores, Counter(strange.values()), mode, "")
