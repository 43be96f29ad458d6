"""One split judged: numbers with intervals, tables, pictures and plain words, and their files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xray_classifier.classifier import CLASS_NAMES, Classifier, Scores
from xray_classifier.confusion import Confusion, confusion
from xray_classifier.curves import precision_recall_curve, reliability_curve, roc_curve
from xray_classifier.data.loading import Radiographs
from xray_classifier.errors import DataError
from xray_classifier.estimates import Estimate, classification_metrics, regression_metrics
from xray_classifier.files import csv_text, printable, write_bytes, write_json, write_text
from xray_classifier.intervals import wilson_interval
from xray_classifier.report import figures as draw
from xray_classifier.report.page import (
    MetricRow,
    ReportContent,
    ReportFigure,
    ReportTable,
    render_report,
)

CLASSIFY_COLUMNS = ("path", "label", "patient", "split", "logit", "p_raw", "p_sick", "decision")
REGRESS_COLUMNS = ("path", "label", "patient", "split", "prediction")
RELIABILITY_BINS = 10


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
        chosen_on_this: True when the threshold was chosen on this very split.
        estimates: Metrics with intervals, the leading ones first.
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
    chosen_on_this: bool
    estimates: Mapping[str, Estimate]
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
            "warnings": list(self.warnings),
        }

    def in_words(self) -> list[str]:
        """The result as one would say it: ranking, calibration, operating point, warnings."""
        words = _regression_words(self) if self.task == "regress" else _classification_words(self)
        return words + [f"warning: {warning}" for warning in self.warnings]


def judge(classifier: Classifier, radiographs: Radiographs, split: str, seed: int = 0) -> Judgement:
    """Score every readable image of a split once and compute its metrics.

    Args:
        classifier: The model.
        radiographs: Decoded with the classifier's own settings.
        split: train, val, test; `all` takes every image.
        seed: Of the bootstrap.

    Raises:
        DataError: The split holds no readable image.
    """
    manifest = radiographs.manifest
    everything = np.arange(len(manifest)) if split == "all" else radiographs.rows(split)
    readable = np.array([not radiographs.reasons[row] for row in everything], dtype=bool)
    rows = everything[readable]
    if not len(rows):
        raise DataError(f"the {split} split holds no readable image")
    images = torch.from_numpy(radiographs.images)
    scores = classifier.score(images, torch.from_numpy(rows))
    targets = manifest.targets[rows]
    groups = np.array([manifest.patients[row] for row in rows], dtype=object)
    if classifier.task == "regress":
        estimates = regression_metrics(targets, scores.logits, groups, seed)
    else:
        estimates = classification_metrics(
            targets.astype(int), scores.logits, scores.p_sick, classifier.threshold, groups, seed
        )
    stored = classifier.content["threshold"]
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
        chosen_on_this=split == "val" and stored["chosen_on"] == "val",
        estimates=estimates,
        warnings=_warnings(classifier, targets, groups, len(unscored), len(everything)),
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
        if classifier.content["threshold"]["chosen_on"] is None:
            found.append("no validation split chose the threshold; it is the plain 0.5")
    if len(set(groups.tolist())) < 10:
        found.append("fewer than 10 patients: the intervals mean little")
    return tuple(found)


def _classification_words(j: Judgement) -> list[str]:
    e, c = j.estimates, j.counts
    chosen = _policy_words(j.policy)
    n_healthy, n_sick = c.tn + c.fp, c.tp + c.fn
    words = [
        f"{_where(j)}: {len(j.rows):,} images, {n_healthy:,} healthy and {n_sick:,} sick",
        f"AUROC {_with_interval(e['auroc'])}: the chance that a random sick image scores above a "
        "random healthy one",
        f"calibration: Brier score {_with_interval(e['brier'])}, "
        f"expected calibration error {_with_interval(e['ece'])}",
        f"at threshold {j.threshold:.3g}, {chosen}: {_percent(e['sensitivity'])} sensitivity and "
        f"{_percent(e['specificity'])} specificity: {c.fn:,} sick images missed of {n_sick:,}, "
        f"{c.fp:,} false alarms among {n_healthy:,} healthy",
    ]
    if j.chosen_on_this:
        words.append(
            "this split chose the best epoch, the calibration and the threshold, so these figures "
            "are too good; a test split tells more"
        )
    return words


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
        f"{_where(j)}: {len(j.rows):,} images",
        f"mean absolute error {_with_interval(e['mae'])}, R2 {_with_interval(e['r2'])}",
    ]


def _with_interval(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "undefined"
    if math.isnan(estimate.ci_low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.ci_low:.3f} to {estimate.ci_high:.3f})"


def _percent(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "undefined"
    return f"{estimate.value:.0%} ({100 * estimate.ci_low:.0f}-{100 * estimate.ci_high:.0f})"


def prediction_table(judgement: Judgement, radiographs: Radiographs) -> str:
    """predictions.csv: every image of the split once, in manifest order; unreadable ones empty."""
    m, s = radiographs.manifest, judgement.scores
    place = {int(row): index for index, row in enumerate(judgement.rows)}
    lines = []
    for row in sorted([*place, *judgement.unscored]):
        classify = judgement.task == "classify"
        label = CLASS_NAMES[int(m.targets[row])] if classify else float(m.targets[row])
        split = m.splits[row] or judgement.split
        head = (m.ids[row], label, m.patients[row] if m.patients_known else "", split)
        i = place.get(row)
        if i is None:
            lines.append((*head, *([None] * (4 if classify else 1))))
        elif classify:
            answer = (float(s.logits[i]), float(s.p_raw[i]), float(s.p_sick[i]))
            lines.append((*head, *answer, CLASS_NAMES[int(s.sick[i])]))
        else:
            lines.append((*head, float(s.logits[i])))
    columns = CLASSIFY_COLUMNS if judgement.task == "classify" else REGRESS_COLUMNS
    return csv_text(columns, lines)


def judgement_figures(judgement: Judgement, curves: bytes | None) -> dict[str, ReportFigure]:
    """The pictures by file name, each with the words and numbers that go with it.

    Args:
        judgement: What to draw.
        curves: PNG of the run's loss curves; None where the run is not at hand.
    """
    pictures: dict[str, ReportFigure] = {}
    if curves is not None:
        pictures["loss_curves.png"] = ReportFigure(
            "Loss curves", curves, "Training and validation loss against training iterations."
        )
    if judgement.task == "regress":
        pictures["scatter.png"] = _scatter_figure(judgement)
        return pictures
    return pictures | {
        "roc.png": _roc_figure(judgement),
        "precision_recall.png": _precision_recall_figure(judgement),
        "reliability.png": _reliability_figure(judgement),
        "confusion.png": _confusion_figure(judgement),
        "scores.png": _score_figure(judgement),
    }


def _scatter_figure(j: Judgement) -> ReportFigure:
    e = j.estimates
    png = draw.scatter_figure(
        j.targets,
        j.scores.logits,
        mse=e["mse"].value,
        mae=e["mae"].value,
        r2=e["r2"].value,
        split=j.split,
    )
    return ReportFigure(
        "Predicted against true",
        png,
        f"Scatter of {len(j.rows)} predictions, R2 {e['r2'].value:.3f}.",
    )


def _roc_figure(j: Judgement) -> ReportFigure:
    curve, c, e = roc_curve(j.targets.astype(int), j.scores.logits), j.counts, j.estimates["auroc"]
    png = draw.roc_curve_figure(
        curve.false_positive_rate,
        curve.sensitivity,
        auroc=e.value,
        ci=(e.ci_low, e.ci_high),
        n_sick=c.tp + c.fn,
        n_healthy=c.tn + c.fp,
        operating_point=_point(1 - c.specificity, c.sensitivity),
        threshold=j.threshold,
        split=j.split,
    )
    alt = f"ROC curve with AUROC {_with_interval(e)}; the operating point is marked."
    return ReportFigure("ROC curve", png, alt)


def _precision_recall_figure(j: Judgement) -> ReportFigure:
    curve = precision_recall_curve(j.targets.astype(int), j.scores.logits)
    c, e = j.counts, j.estimates["average_precision"]
    png = draw.precision_recall_figure(
        curve.recall,
        curve.precision,
        average_precision=e.value,
        ci=(e.ci_low, e.ci_high),
        n_sick=c.tp + c.fn,
        n_healthy=c.tn + c.fp,
        operating_point=_point(c.sensitivity, c.ppv),
        threshold=j.threshold,
        split=j.split,
    )
    alt = f"Precision-recall curve, average precision {_with_interval(e)}."
    return ReportFigure("Precision-recall curve", png, alt)


def _point(x: float, y: float) -> tuple[float, float] | None:
    return None if math.isnan(x) or math.isnan(y) else (x, y)


def _reliability_figure(j: Judgement) -> ReportFigure:
    curve = reliability_curve(j.targets.astype(int), j.scores.p_sick, RELIABILITY_BINS)
    sick = np.nan_to_num(curve.observed_fraction * curve.counts)
    intervals = np.array(
        [wilson_interval(float(k), float(n)) for k, n in zip(sick, curve.counts, strict=True)]
    )
    e = j.estimates
    png = draw.reliability_figure(
        curve.mean_predicted,
        curve.observed_fraction,
        curve.counts,
        ece=e["ece"].value,
        brier=e["brier"].value,
        low=intervals[:, 0],
        high=intervals[:, 1],
        edges=np.linspace(0, 1, RELIABILITY_BINS + 1),
        split=j.split,
    )
    alt = f"Observed share of sick against predicted probability, ECE {_with_interval(e['ece'])}."
    return ReportFigure("Reliability", png, alt)


def _confusion_figure(j: Judgement) -> ReportFigure:
    c = j.counts
    png = draw.confusion_figure(c.tp, c.fp, c.tn, c.fn, threshold=j.threshold, split=j.split)
    alt = (
        f"{c.tp} sick called sick, {c.fn} sick missed, {c.tn} healthy called healthy, "
        f"{c.fp} false alarms."
    )
    rows = (("healthy", str(c.tn), str(c.fp)), ("sick", str(c.fn), str(c.tp)))
    return ReportFigure(
        "Confusion matrix", png, alt, ("truth", "called healthy", "called sick"), rows
    )


def _score_figure(j: Judgement) -> ReportFigure:
    sick = j.targets == 1
    p = j.scores.p_sick
    png = draw.score_histogram_figure(p[~sick], p[sick], j.threshold, split=j.split)
    return ReportFigure(
        "Probabilities by truth", png, "Histograms of p_sick for healthy and for sick images."
    )


def write_judgement(
    folder: Path,
    judgement: Judgement,
    classifier: Classifier,
    radiographs: Radiographs,
    predictions_name: str = "predictions.csv",
    curves: bytes | None = None,
) -> list[Path]:
    """Write metrics.json, the predictions, the figures and report.html into an existing folder.

    Returns:
        The files written.
    """
    write_json(folder / "metrics.json", judgement.metrics_json())
    write_text(folder / predictions_name, prediction_table(judgement, radiographs))
    pictures = judgement_figures(judgement, curves)
    for name, picture in pictures.items():
        if picture.png is not curves or not (folder / "curves.png").exists():
            write_bytes(folder / name, picture.png)
    page = render_report(report_content(judgement, classifier, tuple(pictures.values())))
    write_text(folder / "report.html", page)
    return [folder / n for n in ("metrics.json", predictions_name, *pictures, "report.html")]


def report_content(
    judgement: Judgement, classifier: Classifier, pictures: Sequence[ReportFigure]
) -> ReportContent:
    """What the report page shows about one judged split."""
    content = classifier.content
    metrics = tuple(
        MetricRow(name, e.value, e.ci_low, e.ci_high, e.n, e.method)
        for name, e in judgement.estimates.items()
    )
    splits = tuple(
        (name, *(str("" if count[key] is None else count[key]) for key in SPLIT_KEYS))
        for name, count in content.get("splits", {}).items()
    )
    words = [line for line in judgement.in_words() if not line.startswith("warning: ")]
    return ReportContent(
        title=f"Report on {_where(judgement)} by {printable(_model_name(classifier))}",
        verdict=tuple(words),
        metrics=metrics,
        figures=tuple(pictures),
        tables=(
            ReportTable("Images this model was trained with", ("split", *SPLIT_KEYS), splits),
            ReportTable("Model", ("key", "value"), _pairs(content["architecture"])),
            ReportTable("Image preparation", ("key", "value"), _pairs(content["image"])),
        ),
        details=(("Environment of the training", "\n".join(_lines(content["environment"]))),),
        warnings=judgement.warnings,
    )


SPLIT_KEYS = ("images", "patients", "healthy", "sick")


def _where(j: Judgement) -> str:
    return "all images" if j.split == "all" else f"the {j.split} split"


def _model_name(classifier: Classifier) -> str:
    return classifier.path.absolute().parent.parent.name


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, printable(value)) for key, value in values.items())


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {printable(value)}" for key, value in values.items()]
