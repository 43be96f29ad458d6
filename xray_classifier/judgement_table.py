"""predictions.csv of an evaluation: every image of the split once, with truth and answer."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.answers import Scores
from xray_classifier.classifier import Classifier
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.splits import CLASS_NAMES
from xray_classifier.files import csv_text
from xray_classifier.judgement import Judgement

HEAD_COLUMNS = ("path", "label", "patient", "split")
CLASSIFY_COLUMNS = ("logit", "p_raw", "p_sick", "decision")
REGRESS_COLUMNS = ("prediction",)
TAIL_COLUMNS = ("in_training", "pixel_hash", "ood_score", "reason")


def prediction_table(judgement: Judgement, radiographs: Radiographs, classifier: Classifier) -> str:
    """The text of predictions.csv, in manifest order; images that could not be read have no answer.

    `pixel_hash` is equal for equal pictures, in whatever file and for whatever model, so that two
    tables can be held against each other.

    Args:
        judgement: Of one split.
        radiographs: The images.
        classifier: The model; a stated prevalence adds the column `p_at_prevalence`.
    """
    classify = judgement.task == "classify"
    moved = (
        classifier.p_at_prevalence(judgement.scores.p_sick)
        if (classify and classifier.prevalence is not None)
        else None
    )
    answer = (*CLASSIFY_COLUMNS, *(() if moved is None else ("p_at_prevalence",)))
    columns = (*HEAD_COLUMNS, *(answer if classify else REGRESS_COLUMNS), *TAIL_COLUMNS)
    place = {int(row): index for index, row in enumerate(judgement.rows)}
    lines = []
    for row in sorted([*place, *judgement.unscored]):
        head = _head(judgement, radiographs, row)
        if row not in place:
            empty = [None] * (len(columns) - len(head) - 1)
            lines.append((*head, *empty, radiographs.reasons[row]))
            continue
        i = place[row]
        seen = "" if judgement.familiar is None else judgement.familiar.images[i]
        ood = judgement.ood_scores
        score = None if ood is None else float(ood[i])
        code = bytes(radiographs.signatures["pixels"][row]).hex()
        lines.append((*head, *_answer(judgement.scores, i, classify, moved), seen, code, score, ""))
    return csv_text(columns, lines)


def _head(judgement: Judgement, radiographs: Radiographs, row: int) -> tuple[Any, ...]:
    """Path, truth, patient and split of an image."""
    m = radiographs.manifest
    classify = judgement.task == "classify"
    label = CLASS_NAMES[int(m.targets[row])] if classify else float(m.targets[row])
    patient = m.patients[row] if m.patients_known else ""
    return m.ids[row], label, patient, m.splits[row] or judgement.split


def _answer(
    scores: Scores, place: int, classify: bool, moved: NDArray[np.float64] | None
) -> tuple[Any, ...]:
    """What the model says of an image."""
    logit = float(scores.logits[place])
    if not classify:
        return (logit,)
    found = (logit, float(scores.p_raw[place]), float(scores.p_sick[place]), scores.decision(place))
    return found if moved is None else (*found, float(moved[place]))
