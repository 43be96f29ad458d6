"""From a judged split to everything that its report page shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.bootstrap import patient_clusters
from xray_classifier.classifier import Classifier, run_of
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.splits import SPLITS
from xray_classifier.details_words import CHOSEN_ON
from xray_classifier.error_films import error_groups
from xray_classifier.estimates import Estimate
from xray_classifier.files import printable, read_bytes
from xray_classifier.judgement import Judgement
from xray_classifier.judgement_words import images_judged, verdict_words
from xray_classifier.policies import policy_in_words
from xray_classifier.report.flow_diagram import FlowBox, FlowLevel
from xray_classifier.report.interval_bar import Measured
from xray_classifier.report.page import MetricRow, ReportContent, ReportFigure, ReportTable
from xray_classifier.report.subgroup_plot import SubgroupRow
from xray_classifier.report.threshold_tool import ThresholdTool, threshold_tool
from xray_classifier.report_sections import report_sections
from xray_classifier.table_one import LEAK, listing_of, table_one

SPLIT_KEYS = ("images", "patients", "healthy", "sick")
SPLIT_TITLES = {"train": "Training", "val": "Validation", "calibrate": "Calibration",
                "test": "Test", "": "In no split"}  # fmt: skip
LIMITS = (
    "These figures are about this checkpoint on these images, not about the method that made it: "
    "another seed or another split gives another checkpoint.",
    "What is called sick here is what the labels called sick; errors of the labels are in every "
    "figure.",
    "Films of another hospital, device, age group or view may look otherwise; nothing here says "
    "how the model would do on them.",
    "Intervals tell how far chance alone may have moved a figure. They know nothing of how the "
    "images were chosen.",
)
FOLD_LIMIT = "The spread over folds or seeds is no confidence interval: its members share images."


def report_content(
    judgement: Judgement,
    classifier: Classifier,
    radiographs: Radiographs,
    pictures: Sequence[ReportFigure],
    films: int,
) -> ReportContent:
    """What the report page shows about one judged split.

    Args:
        judgement: The split.
        classifier: The model.
        radiographs: The images.
        pictures: Figures, in order.
        films: Errors of each kind to show as films; 0 shows none.
    """
    content = classifier.content
    classify = judgement.task == "classify"
    metrics = tuple(
        MetricRow(name, e.value, e.ci_low, e.ci_high, e.n, e.method)
        for name, e in judgement.estimates.items()
    )
    listing = listing_of(radiographs.manifest, radiographs.reasons, judgement.task)
    header, rows = table_one(listing)
    limits = (*LIMITS, FOLD_LIMIT) if content.get("ensemble") else LIMITS
    return ReportContent(
        title=f"Report on {images_judged(judgement)} by {printable(_model_name(classifier))}",
        verdict=tuple(verdict_words(judgement)),
        metrics=metrics,
        figures=tuple(pictures),
        tables=_tables(content, own=radiographs.audit is not None),
        details=_details(classifier),
        warnings=judgement.warnings,
        threshold_tool=_tool(judgement, classifier) if classify else None,
        gallery=error_groups(judgement, classifier, radiographs, films) if classify else (),
        subgroups=_subgroup_rows(judgement),
        sections=report_sections(judgement, classifier, radiographs),
        flow=_flow(judgement, radiographs),
        table_one=ReportTable("Images, patients and covariates by split", header, rows),
        limits=limits,
    )


def _tables(content: Mapping[str, Any], own: bool) -> tuple[ReportTable, ...]:
    """Model and preparation; for images from elsewhere also what the model was trained with."""
    trained = ReportTable(
        "Images this model was trained with", ("split", *SPLIT_KEYS), _split_rows(content)
    )
    return (
        *(() if own else (trained,)),
        ReportTable("Model", ("key", "value"), _pairs(_described(content["architecture"]))),
        ReportTable("Image preparation", ("key", "value"), _pairs(content["image"])),
    )


def _tool(j: Judgement, classifier: Classifier) -> ThresholdTool | None:
    """The threshold slider; None where a class is missing, for it could show nothing."""
    labels = j.targets.astype(int)
    if labels.min() == labels.max():
        return None
    clusters = patient_clusters(j.groups, len(labels))
    stored = classifier.content["threshold"]
    return threshold_tool(
        labels,
        j.scores.p_sick,
        float(stored["value"]),
        policy=policy_in_words(
            str(stored["policy"]), CHOSEN_ON.get(j.chosen_on or "val", "validation")
        ),
        split=j.split,
        stated_prevalence=classifier.prevalence,
        repeated_patients=len(np.unique(clusters)) < len(clusters),
    )


def _subgroup_rows(j: Judgement) -> tuple[SubgroupRow, ...]:
    """All images, then every group of every column; nothing where there is no group."""
    if j.details is None or not j.details.subgroups:
        return ()
    whole = dict(j.estimates)
    sensitivity = whole["sensitivity"]
    missed = Measured(1 - sensitivity.value, 1 - sensitivity.ci_high, 1 - sensitivity.ci_low)
    n_sick = int(j.targets.sum())
    first = SubgroupRow(
        "", "all images", len(j.targets), n_sick,
        _measured(whole["auroc"]), _measured(sensitivity), _measured(whole["specificity"]), missed,
    )  # fmt: skip
    return (
        first,
        *(
            SubgroupRow(
                group.column,
                group.value,
                group.n,
                group.n_sick,
                _measured(group.metrics["auroc"]),
                _measured(group.metrics["sensitivity"]),
                _measured(group.metrics["specificity"]),
                _measured(group.metrics["under_diagnosis_rate"]),
                group.warning,
            )
            for group in j.details.subgroups
        ),
    )


def _measured(estimate: Estimate) -> Measured:
    return Measured(estimate.value, estimate.ci_low, estimate.ci_high)


def _flow(j: Judgement, radiographs: Radiographs) -> tuple[FlowLevel, ...]:
    """The way of the images: found, shared out, judged, answered."""
    reasons, splits = radiographs.reasons, radiographs.manifest.splits
    places = [""] if j.split == "all" else [name for name in (*SPLITS, "") if name in set(splits)]
    used = [
        FlowBox(
            "Judged" if j.split == "all" else SPLIT_TITLES[name],
            sum(split == name and not reason for split, reason in zip(splits, reasons, strict=True))
            if j.split != "all"
            else len(j.rows),
        )
        for name in places
    ]
    unread = sum(bool(reason) and reason != LEAK for reason in reasons)
    leaked = sum(reason == LEAK for reason in reasons)
    gone = [
        FlowBox(words, n)
        for words, n in (("cannot be used", unread), ("patient or copy in another split", leaked))
        if n
    ]
    found = FlowLevel((FlowBox("Found", len(reasons)),), tuple(gone))
    boxes = [box for box in used if box.n]
    kept = [name for name, box in zip(places, used, strict=True) if box.n]
    onward = kept.index(j.split) if j.split in kept else 0
    if j.task != "classify":
        return (found, FlowLevel(tuple(boxes)))
    n_referred = int(j.scores.referred.sum())
    left = (FlowBox("referred to a person", n_referred),) if n_referred else ()
    decided = ~j.scores.referred
    sick, called = j.targets[decided] == 1, j.scores.sick[decided]
    return (
        found,
        FlowLevel(tuple(boxes), left, onward),
        FlowLevel(_answers(sick, called)),
    )


def _answers(sick: NDArray[np.bool_], called: NDArray[np.bool_]) -> tuple[FlowBox, FlowBox]:
    """Images called healthy and called sick, with the wrong ones among them."""
    missed, alarms = int((sick & ~called).sum()), int((~sick & called).sum())
    return (
        FlowBox("Called healthy", int((~called).sum()), f"{missed:,} of them sick"),
        FlowBox("Called sick", int(called.sum()), f"{alarms:,} of them healthy"),
    )


def _details(classifier: Classifier) -> tuple[tuple[str, str], ...]:
    """Long texts, folded away: the config of the run where it is at hand, and the environment."""
    run = run_of(classifier.path)
    environment = "\n".join(_lines(classifier.content["environment"]))
    found = [("Environment of the training", environment)]
    if run is not None and (run / "config.yaml").is_file():
        text = read_bytes(run / "config.yaml").decode("utf-8", "replace")
        found.insert(0, ("Config of the run", text))
    return tuple(found)


def _split_rows(content: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (name, *(str("" if count[key] is None else count[key]) for key in SPLIT_KEYS))
        for name, count in content.get("splits", {}).items()
    )


def _described(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """An architecture without what it does not have, such as the patches of a mixer."""
    return {key: value for key, value in architecture.items() if value not in (0, [])}


def _model_name(classifier: Classifier) -> str:
    return classifier.path.resolve().parent.parent.name


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, printable(value)) for key, value in values.items())


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}: {printable(value)}" for key, value in values.items()]
