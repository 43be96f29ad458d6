"""The files of a judged split: metrics, predictions, pictures and the report page."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xray_classifier.classifier import Classifier
from xray_classifier.curves import precision_recall_curve, reliability_curve, roc_curve
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.probes import ProbeResult
from xray_classifier.estimate_words import with_interval
from xray_classifier.files import printable, write_bytes, write_json, write_text
from xray_classifier.intervals import wilson_interval
from xray_classifier.judgement import Judgement
from xray_classifier.judgement_table import prediction_table
from xray_classifier.judgement_words import images_judged, in_words
from xray_classifier.report import figures as draw
from xray_classifier.report.page import (
    MetricRow,
    ReportContent,
    ReportFigure,
    ReportTable,
    render_report,
)

SPLIT_KEYS = ("images", "patients", "healthy", "sick")
RELIABILITY_BINS = 10


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
    alt = f"ROC curve with AUROC {with_interval(e)}; the operating point is marked."
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
    alt = f"Precision-recall curve, average precision {with_interval(e)}."
    return ReportFigure("Precision-recall curve", png, alt)


def _point(x: float, y: float) -> tuple[float, float] | None:
    return None if math.isnan(x) or math.isnan(y) else (x, y)


def _reliability_figure(j: Judgement) -> ReportFigure:
    curve = reliability_curve(j.targets.astype(int), j.scores.p_sick, RELIABILITY_BINS)
    sick = np.rint(np.nan_to_num(curve.observed_fraction * curve.counts))
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
    alt = f"Observed share of sick against predicted probability, ECE {with_interval(e['ece'])}."
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
    table = prediction_table(judgement, radiographs, classifier)
    write_text(folder / predictions_name, table)
    pictures = judgement_figures(judgement, curves)
    drawn = (folder / "curves.png").exists()  # by the run itself
    names = [n for n, picture in pictures.items() if not (drawn and picture.png is curves)]
    for name in names:
        write_bytes(folder / name, pictures[name].png)
    found = tuple(pictures.values())
    page = render_report(report_content(judgement, classifier, radiographs, found))
    write_text(folder / "report.html", page)
    return [folder / n for n in ("metrics.json", predictions_name, *names, "report.html")]


def report_content(
    judgement: Judgement,
    classifier: Classifier,
    radiographs: Radiographs,
    pictures: Sequence[ReportFigure],
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
    words = [line for line in in_words(judgement) if not line.startswith("warning: ")]
    return ReportContent(
        title=f"Report on {images_judged(judgement)} by {printable(_model_name(classifier))}",
        verdict=tuple(words),
        metrics=metrics,
        figures=tuple(pictures),
        tables=(
            ReportTable("Images this model was trained with", ("split", *SPLIT_KEYS), splits),
            *_shortcut_table(radiographs),
            ReportTable("Model", ("key", "value"), _pairs(_described(content["architecture"]))),
            ReportTable("Image preparation", ("key", "value"), _pairs(content["image"])),
            *_familiar_table(judgement),
        ),
        details=(("Environment of the training", "\n".join(_lines(content["environment"]))),),
        warnings=judgement.warnings,
    )


def _described(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """An architecture without what it does not have, such as the patches of a mixer."""
    return {key: value for key, value in architecture.items() if value not in (0, [])}


def _shortcut_table(radiographs: Radiographs) -> tuple[ReportTable, ...]:
    """How well other things than anatomy predict the label; none where that was not looked at."""
    if radiographs.audit is None or not radiographs.audit.shortcuts:
        return ()
    rows = tuple(
        (printable(probe.name), probe.kind, _number(probe.auroc), _range(probe))
        for probe in radiographs.audit.shortcuts
    )
    title = "What else predicts the label (all splits, patients kept apart)"
    return (ReportTable(title, ("from", "kind", "AUROC", "95 % interval"), rows),)


def _familiar_table(judgement: Judgement) -> tuple[ReportTable, ...]:
    """The metrics with and without images that the model was trained on."""
    if judgement.without is None:
        return ()
    rows = tuple(
        (name, with_interval(estimate), with_interval(judgement.without[name]))
        for name, estimate in judgement.estimates.items()
    )
    header = ("metric", "all images", "unknown ones")
    return (ReportTable("With and without images of its training data", header, rows),)


def _number(value: float | None) -> str:
    return "no variation" if value is None else f"{value:.2f}"


def _range(probe: ProbeResult) -> str:
    if probe.ci_low is None or probe.ci_high is None:
        return "-"
    return f"{probe.ci_low:.2f} to {probe.ci_high:.2f}"


def _model_name(classifier: Classifier) -> str:
    return classifier.path.absolute().parent.parent.name


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, printable(value)) for key, value in values.items())


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {printable(value)}" for key, value in values.items()]
