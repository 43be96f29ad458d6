"""A report with every part, for the tests of the page."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_classifier.report.error_gallery import ErrorFilm, ErrorGroup
from xray_classifier.report.flow_diagram import FlowBox, FlowLevel
from xray_classifier.report.interval_bar import Measured
from xray_classifier.report.page import (
    MetricRow,
    ReportContent,
    ReportFigure,
    ReportSection,
    ReportTable,
)
from xray_classifier.report.subgroup_plot import SubgroupRow
from xray_classifier.report.threshold_tool import ThresholdTool, threshold_tool

THRESHOLD = 0.37


def png(width: int = 30, height: int = 20, grey: int = 200) -> bytes:
    """A grey picture."""
    buffer = io.BytesIO()
    Image.new("L", (width, height), grey).save(buffer, "PNG")
    return buffer.getvalue()


def scored(n: int = 90, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and probabilities that go with them, with ties, each shape (n,)."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.4).astype(np.int64)
    logits = generator.normal(2.0 * labels - 1.0, 1.2)
    return labels, np.round(1 / (1 + np.exp(-logits)), 3)


def tool(
    text: str = "chosen on validation for 0.95 sensitivity", stated: float | None = 0.03
) -> ThresholdTool:
    """The tool of 90 images."""
    labels, p = scored()
    return threshold_tool(labels, p, THRESHOLD, policy=text, split="test", stated_prevalence=stated)


def film(text: str = "a/b_c.png", *, overlay: bool = True) -> ErrorFilm:
    """A wrong answer."""
    marked = png(24, 24, 90) if overlay else None
    return ErrorFilm(png(24, 24), marked, text, 0.0312, "sick", text + " alt", text)


def subgroups(text: str = "view") -> tuple[SubgroupRow, ...]:
    """All images and two groups, one of them without a number."""
    good = Measured(0.8, 0.7, 0.9)
    return (
        SubgroupRow("", "all images", 90, 40, Measured(0.9, 0.85, 0.95), good, good, good),
        SubgroupRow(text, text, 1060, 30, Measured(0.875, 0.8, 0.92), good, good, good, text),
        SubgroupRow(text, "lateral", 30, 0, Measured(), Measured(None), Measured(float("nan"))),
    )


def flow(text: str = "cannot be read") -> tuple[FlowLevel, ...]:
    """From 1,000 images to two answers."""
    splits = (FlowBox("training", 700), FlowBox("validation", 100, text), FlowBox("test", 190))
    return (
        FlowLevel((FlowBox("found", 1000, "400 patients"),), (FlowBox(text, 10),)),
        FlowLevel(splits, (FlowBox("failed", 1), FlowBox("referred", 9)), onward=2),
        FlowLevel((FlowBox("called sick", 80), FlowBox(text, 100))),
    )


def everything(text: str = "words") -> ReportContent:
    """A report with every section, `text` in every place that takes text."""
    table = ReportTable(text, ("Split", text), (("test", text),))
    wide = ReportFigure(text, png(), text + " alt", (text, "n"), ((text, "3"),))
    return ReportContent(
        title=text,
        verdict=(text, "second paragraph"),
        metrics=(
            MetricRow("auroc", 0.9451, 0.91, 0.96, 1312, "delong"),
            MetricRow(text, None, None, None, 0, text),
            MetricRow("sensitivity", 0.788, 0.688, 0.889, 118, "patient_bootstrap"),
            MetricRow("mse", 12345.6, float("nan"), 1.0, 5, ""),
        ),
        figures=(wide, ReportFigure("square", png(20, 20), "a square")),
        tables=(table,),
        details=((text, text),),
        warnings=(text,),
        threshold_tool=tool(text),
        gallery=(
            ErrorGroup(text, (film(text), film("second.png", overlay=False)), 3, text),
            ErrorGroup("Healthy, called sick", (film("third.png"),)),
        ),
        subgroups=subgroups(text),
        sections=(ReportSection(text, (text,), (table,), (wide,)),),
        flow=flow(text),
        table_one=table,
        limits=(text,),
    )
