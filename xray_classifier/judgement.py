"""One split judged: numbers with intervals, tables, pictures and plain words, and their files."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xray_classifier.classifier import Classifier, Scores
from xray_classifier.confusion import Confusion, confusion
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.probes import in_words, worst_shortcuts
from xray_classifier.errors import DataError
from xray_classifier.estimates import Estimate, classification_metrics, regression_metrics
from xray_classifier.familiarity import (
    Familiarity,
    familiarity,
    familiarity_json,
    familiarity_words,
    own_familiarity,
)

OTHER_KEY = (
    "patients could not be compared with those of the training data: their hashes were made with "
    "another key (patient.key in the config directory)"
)
TOO_GOOD = {
    "training": "the model was trained on these very images, so these figures say nothing about "
    "others; a test split does",
    "choosing": "this split chose the best epoch, the calibration and the threshold, so these "
    "figures are too good; a test split tells more",
    "folds": "each of these images trained all models of this ensemble but those of its own fold, "
    "so these figures say nothing about others; a test split does",
}


@dataclass(frozen=True)
class Judgement:
    """What a model is worth on one split.

    Attributes:
        split: train, val, test, or `all` for data without splits.
        task: classify or regress.
        rows: Rows of the manifest that were scored, shape (n,).
        unscored: Rows of the split that could not be read.
        targets: Truth, shape (n,); 1 is sick, or the number.
        scores: Answers, each shape (n,).
        threshold: As used.
        policy: How the threshold was chosen.
        used_for: What the run used these very images for: training, choosing, folds (both, by
            turns), or None.
        estimates: Metrics with intervals, the leading ones first.
        familiar: Which images the model knows from its training; None where nothing tells.
        without: The metrics without those; None where there are none, or no others.
        warnings: What a reader must know.
    """

    split: str
    task: str
    rows: NDArray[np.int64]
    unscored: tuple[int, ...]
    targets: NDArray[np.float64]
    scores: Scores
    threshold: float
    policy: str
    used_for: str | None
    estimates: Mapping[str, Estimate]
    familiar: Familiarity | None
    without: Mapping[str, Estimate] | None
    warnings: tuple[str, ...]

    @property
    def counts(self) -> Confusion:
        """Right and wrong decisions at the threshold."""
        return confusion(self.targets.astype(int), self.scores.p_sick, self.threshold)

    def metrics_json(self) -> dict[str, Any]:
        """The content of metrics.json; NaN stands for undefined."""
        return {
            "split": self.split,
            "n": len(self.rows),
            "n_unreadable": len(self.unscored),
            "threshold": self.threshold if self.task == "classify" else None,
            "threshold_policy": self.policy if self.task == "classify" else None,
            "metrics": {name: asdict(estimate) for name, estimate in self.estimates.items()},
            "in_training": familiarity_json(self.familiar, self.without),
            "warnings": list(self.warnings),
        }

    def in_words(self) -> list[str]:
        """The result as one would say it: ranking, calibration, operating point, warnings."""
        words = _regression_words(self) if self.task == "regress" else _classification_words(self)
        if self.used_for is not None:
            words.append(TOO_GOOD[self.used_for])
        words += _familiar_words(self)
        return words + [f"warning: {warning}" for warning in self.warnings]


def judge(
    classifier: Classifier, radiographs: Radiographs, split: str, *, own: bool, seed: int = 0
) -> Judgement:
    """Score every readable image of a split once and compute its metrics.

    Args:
        classifier: The model.
        radiographs: Decoded with the classifier's own settings.
        split: train, val, test; `all` takes every image.
        own: True where the images are those of the classifier's own run.
        seed: Of the bootstrap.

    Raises:
        DataError: The split holds no readable image.
    """
    manifest = radiographs.manifest
    everything = np.arange(len(manifest)) if split == "all" else radiographs.members(split)
    readable = np.array([not radiographs.reasons[row] for row in everything], dtype=bool)
    rows = everything[readable]
    if not len(rows):
        raise DataError(f"the {split} split holds no readable image")
    images = torch.from_numpy(radiographs.images)
    scores = classifier.score(images, torch.from_numpy(rows))
    targets = manifest.targets[rows]
    groups = np.array([manifest.patients[row] for row in rows], dtype=object)
    everyone = np.ones(len(rows), dtype=np.bool_)
    estimates = _estimates(classifier, targets, scores, groups, everyone, seed)
    used_for = _used_for(classifier, split) if own else None
    if own and radiographs.audit is not None:  # the run itself kept its splits apart
        familiar: Familiarity | None = own_familiarity(
            "train" if used_for == "folds" else split, len(rows), manifest.patients_known
        )
    else:
        familiar = familiarity(classifier, radiographs, rows)
    new = everyone if familiar is None else ~familiar.known
    without = None
    if new.any() and not new.all():
        without = _estimates(classifier, targets, scores, groups, new, seed)
    unscored = tuple(int(row) for row in everything[~readable])
    return Judgement(
        split=split,
        task=classifier.task,
        rows=rows,
        unscored=unscored,
        targets=targets,
        scores=scores,
        threshold=classifier.threshold,
        policy=classifier.threshold_policy,
        used_for=used_for,
        estimates=estimates,
        familiar=familiar,
        without=without,
        warnings=(
            *_warnings(classifier, targets, groups, len(unscored), len(everything)),
            *_shortcut_warnings(radiographs, estimates),
        ),
    )


def _used_for(classifier: Classifier, split: str) -> str | None:
    """What a model's own run used the images of a split for; a key of TOO_GOOD."""
    if classifier.folds is not None and split in ("train", "val"):
        return "folds"
    return {"train": "training", "val": "choosing"}.get(split)


def _estimates(
    classifier: Classifier,
    targets: NDArray[np.float64],
    scores: Scores,
    groups: NDArray[Any],
    chosen: NDArray[np.bool_],
    seed: int,
) -> dict[str, Estimate]:
    """The metrics of some of the images, all arrays of shape (n,)."""
    truth, logits = targets[chosen], scores.logits[chosen]
    if classifier.task == "regress":
        return regression_metrics(truth, logits, groups[chosen], seed)
    return classification_metrics(
        truth.astype(int), logits, scores.p_sick[chosen], classifier.threshold, groups[chosen], seed
    )


def _warnings(
    classifier: Classifier,
    targets: NDArray[np.float64],
    groups: NDArray[Any],
    n_unscored: int,
    n_all: int,
) -> tuple[str, ...]:
    found = []
    if n_unscored:
        found.append(f"{n_unscored} of {n_all} images cannot be read and are in no metric")
    if classifier.task == "classify":
        n_sick = int(targets.sum())
        n_healthy = len(targets) - n_sick
        if not n_sick or not n_healthy:
            found.append(
                f"only one class is here ({n_healthy} healthy, {n_sick} sick): AUROC and others "
                "are undefined"
            )
        elif min(n_sick, n_healthy) < 30:
            found.append(
                f"{n_healthy} healthy and {n_sick} sick images are few: mind the intervals"
            )
        if classifier.content.get("calibration_note"):
            found.append(str(classifier.content["calibration_note"]))
        stored = classifier.content["threshold"]
        if stored.get("note") and classifier.threshold == stored["value"]:
            found.append(str(stored["note"]))
    if len(set(groups.tolist())) < 10:
        found.append("fewer than 10 patients: the intervals mean little")
    return tuple(found)


def _shortcut_warnings(
    radiographs: Radiographs, estimates: Mapping[str, Estimate]
) -> tuple[str, ...]:
    """What is no anatomy and yet predicts the label about as well as the model does."""
    own = estimates.get("auroc")
    if radiographs.audit is None or own is None or math.isnan(own.value):
        return ()
    low = None if math.isnan(own.ci_low) else own.ci_low
    near = worst_shortcuts(radiographs.audit.shortcuts, own.value, low)
    if not near:
        return ()
    others = len(near) - 1
    more = f"; so {'does' if others == 1 else 'do'} {others} more" if others else ""
    return (
        f"SHORTCUT: {in_words(near[0])}, near this model's {own.value:.2f}: it may have learnt how "
        f"the films were taken, not what they show{more} (data/audit.json in the run folder)",
    )


def _classification_words(j: Judgement) -> list[str]:
    e, c = j.estimates, j.counts
    chosen = _policy_words(j.policy)
    n_healthy, n_sick = c.tn + c.fp, c.tp + c.fn
    words = [
        f"{images_judged(j)}: {len(j.rows):,} images, {n_healthy:,} healthy and {n_sick:,} sick",
        f"AUROC {with_interval(e['auroc'])}: the chance that a random sick image scores above a "
        "random healthy one",
        f"calibration: Brier score {with_interval(e['brier'])}, "
        f"expected calibration error {with_interval(e['ece'])}",
        f"at threshold {j.threshold:.3g}, {chosen}: {_percent(e['sensitivity'])} sensitivity and "
        f"{_percent(e['specificity'])} specificity: {c.fn:,} sick images missed of {n_sick:,}, "
        f"{c.fp:,} false alarms among {n_healthy:,} healthy",
    ]
    return words


def _familiar_words(j: Judgement) -> list[str]:
    """What the model knows already, and its main figure without that."""
    if j.familiar is None:
        return ["this copy of the model remembers no training images, so none can be recognised"]
    words = [OTHER_KEY] if j.familiar.other_key else []
    said = familiarity_words(j.familiar)
    if said is None or j.used_for in ("training", "folds"):
        return words
    left = int((~j.familiar.known).sum())
    if j.without is None:
        return [f"{said}: these figures say nothing about others", *words]
    name, label = ("r2", "R2") if j.task == "regress" else ("auroc", "AUROC")
    others = f"on the {left:,} others {label} is {with_interval(j.without[name])}"
    return [f"{said}; {others}", *words]


def _policy_words(policy: str) -> str:
    if policy == "fixed":
        return "a fixed number"
    if policy == "youden":
        return "chosen on validation for the largest sensitivity + specificity"
    kind, _, target = policy.partition("=")
    name = {"sens": "sensitivity", "spec": "specificity"}.get(kind, kind)
    try:
        return f"chosen on validation for {float(target):.3g} {name}"
    except ValueError:
        return f"chosen as {policy}"


def _regression_words(j: Judgement) -> list[str]:
    e = j.estimates
    return [
        f"{images_judged(j)}: {len(j.rows):,} images",
        f"mean absolute error {with_interval(e['mae'])}, R2 {with_interval(e['r2'])}",
    ]


def images_judged(judgement: Judgement) -> str:
    """Which images were judged, as one would say it."""
    return "all images" if judgement.split == "all" else f"the {judgement.split} split"


def with_interval(estimate: Estimate) -> str:
    """A value and its interval, as `0.940 (0.910 to 0.960)`; an undefined one says so."""
    if math.isnan(estimate.value):
        return "undefined"
    if math.isnan(estimate.ci_low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.ci_low:.3f} to {estimate.ci_high:.3f})"


def _percent(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "undefined"
    return f"{estimate.value:.0%} ({100 * estimate.ci_low:.0f}-{100 * estimate.ci_high:.0f})"
