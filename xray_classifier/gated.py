"""The input gate in an evaluation: which images it would refuse, and the split without them."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.classifier import Classifier, GateMode
from xray_classifier.data.dicom_scope import out_of_scope
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.signature import from_dicom

READERS = 4
OUT_OF_SCOPE = "out_of_scope"


@dataclass(frozen=True, eq=False)
class Gated:
    """A data set after the gate.

    Attributes:
        radiographs: With a reason for each image that is refused: where the gate refuses, and where
            a DICOM header contradicts what the model is meant for.
        scores: `ood_score` of each image of the data, (N,); NaN where it was not looked at.
        flagged: How many images it would refuse for their looks, by reason.
        n_out_of_scope: How many were refused for their header.
        mode: What was asked.
        off: Why there is no gate although one was asked; `` where there is one.
    """

    radiographs: Radiographs
    scores: NDArray[np.float64]
    flagged: Mapping[str, int]
    mode: GateMode
    off: str
    n_out_of_scope: int = 0

    def in_words(self) -> list[str]:
        """What a reader must know of it; nothing where all images passed."""
        return [*self._scope_in_words(), *self._looks_in_words()]

    def _scope_in_words(self) -> list[str]:
        if not self.n_out_of_scope:
            return []
        return [
            f"{self.n_out_of_scope:,} images are none that this model is meant for, as their DICOM "
            "headers say (out_of_scope); they are in no metric, unless with --gate off"
        ]

    def _looks_in_words(self) -> list[str]:
        n = sum(self.flagged.values())
        if self.off or not n:
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
    if classifier.gate is None or not len(rows):
        return np.full(len(rows), np.nan)
    images, signatures = radiographs.images[rows], radiographs.signatures[rows]
    return classifier.strangeness(images, signatures, say_why=False).scores


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
    if mode == "off" or not len(rows):
        return Gated(radiographs, scores, {}, mode, "")
    outside = rows_out_of_scope(radiographs, rows, classifier.intended_use)
    radiographs = _refused(radiographs, dict.fromkeys(outside, OUT_OF_SCOPE))
    rows = np.setdiff1d(rows, outside)
    if classifier.gate is None or not len(rows):
        return Gated(radiographs, scores, {}, mode, classifier.gate_off, len(outside))
    found = classifier.strangeness(radiographs.images[rows], radiographs.signatures[rows])
    scores[rows] = found.scores
    strange = {int(row): why for row, why in zip(rows, found.reasons, strict=True) if why}
    if mode == "refuse":
        radiographs = _refused(radiographs, strange)
    return Gated(radiographs, scores, Counter(strange.values()), mode, "", len(outside))


def _refused(radiographs: Radiographs, why: Mapping[int, str]) -> Radiographs:
    """The same images, some of them with a reason that leaves them out."""
    reasons = list(radiographs.reasons)
    for row, reason in why.items():
        reasons[row] = reason
    return replace(radiographs, reasons=tuple(reasons))


def rows_out_of_scope(
    radiographs: Radiographs, rows: NDArray[np.int64], intended_use: Mapping[str, Any] | None
) -> list[int]:
    """Which of some images say in their DICOM header that a model is not meant for them.

    Args:
        radiographs: Decoded images.
        rows: Which of them to look at, (n,).
        intended_use: See `out_of_scope`; None asks for nothing.
    """
    files = radiographs.manifest.files
    if intended_use is None or not len(files):
        return []
    asked = rows[from_dicom(radiographs.signatures[rows])].tolist()
    check = partial(_outside, intended_use=intended_use)
    with ThreadPoolExecutor(READERS) as readers:
        outside = list(readers.map(check, [files[row] for row in asked]))
    return [row for row, is_outside in zip(asked, outside, strict=True) if is_outside]


def _outside(path: Path, intended_use: Mapping[str, Any]) -> bool:
    return out_of_scope(path, intended_use) is not None
