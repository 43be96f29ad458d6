"""Which of the images judged a model knows from its training, and what it is worth on the rest."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.classifier import Classifier
from xray_classifier.data.loading import Radiographs
from xray_classifier.estimates import Estimate
from xray_classifier.memory import NO, POSSIBLE, YES


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What the model knows of n images.

    Attributes:
        images: yes, possible or no per image, n texts.
        same_patient: Another image of a training patient, shape (n,); images that are `yes` or
            `possible` are left out.
        patients_told: Whether patients could be compared at all.
        other_key: Patients are known on both sides, but were hashed under another key.
    """

    images: tuple[str, ...]
    same_patient: NDArray[np.bool_]
    patients_told: bool
    other_key: bool = False

    @property
    def known(self) -> NDArray[np.bool_]:
        """Images that say too much for the model, shape (n,)."""
        return np.array([seen in (YES, POSSIBLE) for seen in self.images]) | self.same_patient

    def counts(self) -> dict[str, int]:
        """Images that are certainly, possibly, or by their patient in the training data."""
        return {
            "yes": self.images.count(YES),
            "possible": self.images.count(POSSIBLE),
            "same_patient": int(self.same_patient.sum()),
        }


def familiarity(
    classifier: Classifier, radiographs: Radiographs, rows: NDArray[np.int64]
) -> Familiarity | None:
    """What a model knows of some images; None where its memory was taken out.

    Args:
        classifier: The model.
        radiographs: Decoded with the classifier's own settings.
        rows: Which images, shape (n,), all of them readable.
    """
    memory = classifier.memory
    if memory is None:
        return None
    images = memory.images_seen(radiographs.signatures[rows])
    manifest = radiographs.manifest
    told = manifest.patients_known and memory.tells_patients
    same_patient = np.zeros(len(rows), dtype=np.bool_)
    if told:
        same_patient = memory.patients_seen([manifest.patients[row] for row in rows])
        same_patient &= ~np.array([seen in (YES, POSSIBLE) for seen in images])
    other_key = manifest.patients_known and bool(memory.patients) and not told
    return Familiarity(images, same_patient, told, other_key)


def own_familiarity(split: str, n: int, patients_told: bool) -> Familiarity:
    """What a model knows of n images of its own run, where the audit kept the splits apart."""
    seen = YES if split == "train" else NO
    return Familiarity((seen,) * n, np.zeros(n, dtype=np.bool_), patients_told)


def familiarity_json(
    found: Familiarity | None, without: Mapping[str, Estimate] | None
) -> dict[str, Any] | None:
    """What metrics.json says of it.

    Args:
        found: None where the model remembers nothing.
        without: Metrics on the images that the model does not know; None where it knows none of
            them, or all.
    """
    if found is None:
        return None
    return {
        **found.counts(),
        "patients_compared": found.patients_told,
        "n_without": int((~found.known).sum()),
        "metrics_without": None
        if without is None
        else {name: asdict(estimate) for name, estimate in without.items()},
    }


def familiarity_words(found: Familiarity | None) -> str | None:
    """One sentence on images that the model was trained on; None where there are none."""
    if found is None or not found.known.any():
        return None
    counts, n = found.counts(), len(found.images)
    said = []
    if counts["yes"]:
        said.append(f"{counts['yes']} of {n} images were in it")
    if counts["possible"]:
        said.append(f"{counts['possible']} of {n} may have been, for they look like images of it")
    if counts["same_patient"]:
        said.append(f"{counts['same_patient']} of {n} show its patients")
    return f"this model's training data: {', '.join(said)}"
