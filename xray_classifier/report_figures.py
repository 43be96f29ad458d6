"""The pictures of a judged split, each with the words and numbers that go with it."""

import math

import numpy as np

from xray_classifier.calibration import Calibration
from xray_classifier.curves import precision_recall_curve, reliability_curve, roc_curve
from xray_classifier.estimate_words import with_interval
from xray_classifier.intervals import wilson_interval
from xray_classifier.judgement import Judgement
from xray_classifier.metrics import FloatArray
from xray_classifier.net_benefit import DecisionCurve, decision_curve
from xray_classifier.prevalence import at_prevalence, threshold_at
from xray_classifier.refer import error_with_band, risk_coverage
from xray_classifier.report import figures as draw
from xray_classifier.report.numbers_behind import curve_rows
from xray_classifier.report.page import ReportFigure
from xray_classifier.run_curves import LossCurves

RELIABILITY_BINS = 10
BAND_RESAMPLES = 500


def judgement_figures(judgement: Judgement, curves: LossCurves | None) -> dict[str, ReportFigure]:
    """The pictures by file name, each with the words and numbers that go with it.

    Args:
        judgement: What to draw.
        curves: The run's loss curves; None where the run is not at hand.
    """
    pictures: dict[str, ReportFigure] = {}
    if curves is not None:
        pictures["loss_curves.png"] = loss_picture(curves.png, curves.tested)
    if judgement.task == "regress":
        pictures["scatter.png"] = _scatter_figure(judgement)
        return pictures
    return pictures | {
        "scores.png": _score_figure(judgement),
        "roc.png": _roc_figure(judgement),
        "precision_recall.png": _precision_recall_figure(judgement),
        "reliability.png": _reliability_figure(judgement),
        "confusion.png": _confusion_figure(judgement),
        "decision.png": _decision_figure(judgement),
        "risk_coverage.png": _coverage_figure(judgement),
    }


def loss_picture(curves: bytes, tested: bool) -> ReportFigure:
    """The loss curves of a run, drawn elsewhere.

    Args:
        curves: PNG.
        tested: Whether the curve of the test split is among them.
    """
    test = " The test loss was recorded, plotted, and not used for any choice." if tested else ""
    return ReportFigure(
        "Loss curves",
        curves,
        "Training and validation loss against training iterations; the best epoch is marked."
        + test,
    )


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
    header = ("false positive rate", "sensitivity", "p_sick from")
    cuts = _probabilities(j, curve.thresholds)
    rows = curve_rows(curve.false_positive_rate, curve.sensitivity, cuts)
    return ReportFigure("ROC curve", png, alt, header, rows)


def _probabilities(j: Judgement, logits: FloatArray) -> FloatArray:
    """Calibrated probabilities of logits, shape (n,); an infinite one stays infinite."""
    calibration = Calibration() if j.details is None else j.details.calibration
    return np.where(np.isinf(logits), logits, calibration.apply(logits))


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
    rows = curve_rows(curve.recall, curve.precision, _probabilities(j, curve.thresholds))
    header = ("recall", "precision", "p_sick from")
    return ReportFigure("Precision-recall curve", png, alt, header, rows)


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
    alt = (
        f"Observed share of sick against predicted probability in {RELIABILITY_BINS} bins of equal "
        f"width, ECE {with_interval(e['ece'])}."
    )
    rows = curve_rows(curve.mean_predicted, curve.observed_fraction, curve.counts)
    return ReportFigure("Reliability", png, alt, ("mean p_sick", "share sick", "images"), rows)


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
    edges = np.arange(11) / 10
    counts = [np.histogram(p[chosen], edges)[0] for chosen in (~sick, sick)]
    bins = [f"{low:.1f} to {low + 0.1:.1f}" for low in edges[:-1]]
    rows = tuple((b, str(h), str(s)) for b, h, s in zip(bins, *counts, strict=True))
    return ReportFigure(
        "Probabilities by truth",
        png,
        "Histograms of p_sick for healthy and for sick images.",
        ("p_sick", "healthy", "sick"),
        rows,
    )


def decision_curve_of(
    j: Judgement, calibrated_to: float, prevalence: float | None
) -> DecisionCurve:
    """Net benefit over thresholds on a judged split.

    Args:
        j: The split.
        calibrated_to: Share of sick that the probabilities are right for.
        prevalence: Share of sick to re-weight data and probabilities to; None: as they are.
    """
    p = j.scores.p_sick
    if prevalence is not None:
        p = at_prevalence(p, calibrated_to, prevalence)
    labels = j.targets.astype(int)
    return decision_curve(labels, p, j.groups, prevalence=prevalence, n_resamples=BAND_RESAMPLES)


def _decision_figure(j: Judgement) -> ReportFigure:
    return decision_picture(j, decision_curve_of(j, 0.5, None), j.threshold)


def decision_picture(j: Judgement, curve: DecisionCurve, threshold: float) -> ReportFigure:
    """A decision curve drawn.

    Args:
        j: The split.
        curve: From `decision_curve_of`.
        threshold: The operating threshold at the curve's prevalence.
    """
    png = draw.decision_curve_figure(
        curve.thresholds,
        curve.model,
        curve.treat_all,
        low=curve.low,
        high=curve.high,
        threshold=threshold,
        prevalence=curve.prevalence,
        split=j.split,
    )
    alt = (
        "Net benefit of the model, of calling everybody sick and of calling nobody sick, against "
        f"the threshold probability, at a prevalence of {curve.prevalence:.3g}."
    )
    rows = curve_rows(curve.thresholds, curve.model, curve.treat_all)
    return ReportFigure("Decision curve", png, alt, ("threshold", "model", "everybody"), rows)


def moved_decision_picture(j: Judgement) -> ReportFigure | None:
    """The decision curve at the stated prevalence; None where none was stated."""
    moved = None if j.details is None else j.details.at_prevalence
    if moved is None:
        return None
    curve = decision_curve_of(j, moved.calibrated_to, moved.stated)
    picture = decision_picture(
        j, curve, threshold_at(j.threshold, moved.calibrated_to, moved.stated)
    )
    return picture._replace(title=f"Decision curve at a prevalence of {moved.stated:g}")


def _coverage_figure(j: Judgement) -> ReportFigure:
    labels, p = j.targets.astype(int), j.scores.p_sick
    curve = risk_coverage(labels, p, j.threshold)
    band = None if j.details is None else j.details.refer
    point = None
    if band is not None and not band.inside(p).all():
        share = float((~band.inside(p)).mean())
        point = (share, error_with_band(labels, p, band, j.threshold))
    png = draw.risk_coverage_figure(
        curve.coverage, curve.error, operating_point=point, split=j.split
    )
    alt = (
        "Share of wrong decisions against the share of images decided, the images nearest to the "
        f"threshold given up first; {curve.error[-1]:.1%} where all are decided."
    )
    rows = curve_rows(curve.coverage, curve.error)
    return ReportFigure("Risk and coverage", png, alt, ("share decided", "share wrong"), rows)
