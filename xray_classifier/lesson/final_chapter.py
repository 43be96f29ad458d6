"""The last chapter of the tour: one real run, judged once on images that chose nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xray_classifier.files import read_bytes
from xray_classifier.report import formulas
from xray_classifier.report.metric_words import metric_words
from xray_classifier.report.page import ReportFigure, ReportTable
from xray_classifier.report.tour_page import Chapter
from xray_classifier.report.words import interval_text, number_text

SHOWN = ("auroc", "accuracy", "sensitivity", "specificity", "loss")


def final_chapter(
    run_dir: Path,
    out: Path,
    best_epoch: int | None,
    threshold: float | None,
    val: Mapping[str, Any],
    test: Mapping[str, Any],
    roc_png: Path,
) -> Chapter:
    """What the run came to.

    Args:
        run_dir: Folder of the run.
        out: Folder of the tour.
        best_epoch: Whose weights were kept.
        threshold: At or above this probability a film is called sick; chosen on validation.
        val: Validation metrics, as in metrics.json.
        test: Test metrics.
        roc_png: The ROC curve on the test split.
    """
    auroc = test["auroc"]
    place = run_dir.relative_to(out)
    rows = tuple(
        (metric_words(name).label, _with_interval(val[name]), _with_interval(test[name]))
        for name in SHOWN
        if name in val and name in test
    )
    return Chapter(
        name="the-end",
        title="The honest end: images that chose nothing",
        paragraphs=(
            "Now everything together: a stack of two hidden layers, dropout, early stopping. The "
            f"weights of epoch {best_epoch} were kept and the threshold {number_text(threshold)} "
            "chosen on validation. The loss on the test split was drawn on the way, and nothing "
            "was chosen by it; now the kept weights are judged there.",
            f"There the AUROC is {_with_interval(auroc)}. Of all sick films "
            f"{_percent(test['sensitivity'])} are found, of all healthy ones "
            f"{_percent(test['specificity'])} are let pass. The interval says how far such a "
            f"number may be off with {auroc['n']} films; a figure without one says little.",
            "Phantoms are far easier than patients. What carries over to real films is the way "
            "of working, not the number.",
        ),
        figures=_figures(run_dir, roc_png, auroc),
        formulas=(formulas.auroc(),),
        tables=(ReportTable("Validation and test", ("Metric", "Validation", "Test"), rows),),
        keys=("train.early_stopping", "evaluate.threshold", "train.test_curve"),
        sources=(
            "Field & Welsh 2007 (intervals from whole patients drawn again and again), "
            "doi:10.1111/j.1467-9868.2007.00593.x",
            "Hanley & McNeil 1982 (what the AUROC means), doi:10.1148/radiology.143.1.7063747",
            f"This run, ready for evaluate, predict and explain: {place.as_posix()}",
        ),
    )


def _figures(run_dir: Path, roc_png: Path, auroc: Mapping[str, Any]) -> tuple[ReportFigure, ...]:
    return (
        ReportFigure(
            "Loss curves of the run",
            read_bytes(run_dir / "curves.png"),
            "Training, validation and test loss of the run; the best epoch is marked.",
        ),
        ReportFigure(
            "ROC curve on the test split",
            read_bytes(roc_png),
            f"ROC curve on the test split, AUROC {number_text(auroc['value'])}.",
        ),
    )


def _with_interval(metric: Mapping[str, Any]) -> str:
    ends = (metric["ci_low"], metric["ci_high"])
    return number_text(metric["value"]) + interval_text(ends)


def _percent(metric: Mapping[str, Any]) -> str:
    value = metric["value"]
    return "an unknown share" if value is None else f"{100 * value:.0f} %"
