"""One split judged: numbers with intervals, for its files, its page and its words."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xray_classifier.answers import Scores
from xray_classifier.classifier import Classifier
from xray_classifier.confusion import Confusion, confusion
from xray_classifier.coverage import Coverage, coverage
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.probes import in_words, worst_shortcuts
from xray_classifier.details import Details, run_details
from xray_classifier.errors import DataError
from xray_classifier.estimates import Estimate, classification_metrics, regression_metrics
from xray_classifier.extras import NO_EXTRAS, Extras
from xray_classifier.familiarity import (
    Familiarity,
    familiarity,
    familiarity_json,
    own_familiarity,
)
from xray_classifier.files import without_nan
from xray_classifier.operating_points import OperatingCurve, shortfall
from xray_classifier.policies import parse_threshold

FEW_PATIENTS = 20
"""With fewer in a class, simulated intervals held the truth in as few as 7 of 10 test sets."""


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
        used_for: What the run used these very images for, a key of `judgement_words.TOO_GOOD`, or
            None.
        estimates: Metrics with intervals, the leading ones first.
        familiar: Which images the model knows from its training; None where nothing tells.
        without: The metrics without those; None where there are none, or no others.
        warnings: What a reader must know.
        groups: Patient of each image, shape (n,), as in `patient_clusters`.
        source: What to call the data, where they are not the run's own.
        ood_scores: How unlike the training images each one is, shape (n,); None: not looked at.
        coverage: What became of every image; None for regress.
        details: Calibration, patients, subgroups, baselines; None for regress.
        extras: What an evaluation was asked for besides.
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
    groups: NDArray[Any] | None = None
    source: str = ""
    ood_scores: NDArray[np.float64] | None = None
    coverage: Coverage | None = None
    details: Details | None = None
    extras: Extras = NO_EXTRAS

    @property
    def counts(self) -> Confusion:
        """Right and wrong decisions at the threshold."""
        return confusion(self.targets.astype(int), self.scores.p_sick, self.threshold)

    @property
    def knows_all(self) -> bool:
        """Whether the model was trained on every image judged."""
        return self.familiar is not None and bool(self.familiar.known.all())

    @property
    def by_contract(self) -> bool:
        """Whether the threshold is the one that the checkpoint stores."""
        return self.details is None or self.details.operating_point.get("value") == self.threshold

    @property
    def chosen_on(self) -> str | None:
        """Which images of the run chose calibration and threshold; None: unknown, or none."""
        point = {} if self.details is None else self.details.operating_point
        found = point.get("chosen_on") or point.get("calibrated_on")
        return None if found is None else str(found)

    def metrics_json(self) -> dict[str, Any]:
        """The content of metrics.json; None stands for undefined."""
        classify = self.task == "classify"
        content = {
            "split": self.split,
            "n": len(self.rows),
            "n_unreadable": len(self.unscored),
            "threshold": self.threshold if classify else None,
            "threshold_policy": self.policy if classify else None,
            "metrics": {name: asdict(estimate) for name, estimate in self.estimates.items()},
            "in_training": familiarity_json(self.familiar, self.without),
            "coverage": None if self.coverage is None else self.coverage.to_dict(),
            **({} if self.details is None else self.details.to_dict()),
            **self.extras.to_dict(),
            "warnings": list(self.warnings),
        }
        plain: dict[str, Any] = without_nan(content)
        return plain


def judge(
    classifier: Classifier,
    radiographs: Radiographs,
    split: str,
    *,
    own: bool,
    seed: int = 0,
    by: Sequence[str] | None = None,
) -> Judgement:
    """Score every readable image of a split once and compute its metrics.

    Args:
        classifier: The model.
        radiographs: Decoded with the classifier's own settings.
        split: train, val, test; `all` takes every image.
        own: True where the images are those of the classifier's own run.
        seed: Of the bootstrap.
        by: Columns to form subgroups by; None takes those that part the images into a few.

    Raises:
        DataError: The split holds no readable image.
        UsageError: A column of `by` does not exist.
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
    covered = details = None
    if classifier.task == "classify":
        covered = split_coverage(radiographs, everything, rows, scores)
        details = run_details(classifier, radiographs, rows, scores, seed, by)
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
            *_warnings(
                classifier,
                targets,
                groups,
                Counter(radiographs.reasons[row] for row in unscored),
                len(everything),
            ),
            *_shortcut_warnings(radiographs, estimates),
        ),
        groups=groups,
        coverage=covered,
        details=details,
    )


def split_coverage(
    radiographs: Radiographs,
    everything: NDArray[np.int64],
    rows: NDArray[np.int64],
    scores: Scores,
) -> Coverage:
    """What became of every image of a split.

    Args:
        radiographs: The images.
        everything: Rows of the split, ascending, shape (n_all,).
        rows: Those that were scored, ascending, shape (n,).
        scores: Their answers, each shape (n,).
    """
    manifest = radiographs.manifest
    place = np.searchsorted(everything, rows)
    called, answered = (np.zeros(len(everything), dtype=np.bool_) for _ in range(2))
    called[place], answered[place] = scores.sick, ~scores.referred
    return coverage(
        manifest.targets[everything],
        called,
        answered,
        [radiographs.reasons[row] for row in everything],
        np.array([manifest.patients[row] for row in everything], dtype=object),
    )


def _used_for(classifier: Classifier, split: str) -> str | None:
    """What a model's own run used the images of a split for; a key of TOO_GOOD."""
    if classifier.folds is not None and split in ("train", "val"):
        return "folds"
    apart = classifier.content["threshold"].get("calibrated_on") == "calibrate"
    val = "stopping" if apart else "choosing"
    val = "choosing a number" if classifier.task == "regress" else val
    return {"train": "training", "val": val, "calibrate": "calibrating"}.get(split)


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
    unread: Mapping[str, int],
    n_all: int,
) -> tuple[str, ...]:
    found = []
    if unread:
        found.append(
            f"{sum(unread.values())} of {n_all} images cannot be used and are in no metric ("
            + ", ".join(f"{reason}: {count}" for reason, count in sorted(unread.items()))
            + "); predictions.csv names them"
        )
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
        else:
            found += _few_patients(targets, groups)
        if classifier.content.get("calibration_note"):
            found.append(str(classifier.content["calibration_note"]))
        found += _unreachable(classifier)
        stored = classifier.content["threshold"]
        if stored.get("note") and classifier.threshold == stored["value"]:
            found.append(str(stored["note"]))
    if len(set(groups.tolist())) < 10:
        found.append("fewer than 10 patients: the intervals mean little")
    return tuple(found)


def _unreachable(classifier: Classifier) -> list[str]:
    """Why a cautious policy that was asked for cannot be met."""
    curve = classifier.content.get("operating_curve")
    stored = classifier.content["threshold"]["policy"]
    if curve is None or classifier.threshold_policy in ("fixed", stored):
        return []
    said = shortfall(OperatingCurve.from_dict(curve), parse_threshold(classifier.threshold_policy))
    return [] if said is None else [said]


def _few_patients(targets: NDArray[np.float64], groups: NDArray[Any]) -> list[str]:
    """Where so few patients stand behind a class that intervals hold the truth too seldom."""
    n_sick, n_healthy = (len(set(groups[targets == label].tolist())) for label in (1, 0))
    if min(n_sick, n_healthy) >= FEW_PATIENTS:
        return []
    return [
        f"{n_sick} sick and {n_healthy} healthy patients are few: 95 % intervals hold the truth "
        "less often than they say (docs/coverage.md)"
    ]


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
    more = ""
    if others:
        more = f"; so {'does' if others == 1 else 'do'} {others} more of these properties"
    return (
        f"SHORTCUT: {in_words(near[0])}, near this model's {own.value:.2f}: it may have learnt how "
        f"the films were taken, not what they show{more} (data/audit.html in the run folder)",
    )
