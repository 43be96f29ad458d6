"""The report page: one HTML file that holds everything it shows.

Pictures are data URIs, and the two small scripts, which only recompute and enlarge what the page
holds, are allowed by their hashes; the content security policy forbids the rest, so a page may be
mailed, archived and opened from a disk. All text is untrusted. Nothing is lost without scripts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from xray_classifier.report.error_gallery import ErrorGroup, check_gallery
from xray_classifier.report.flow_diagram import FlowLevel, check_flow, flow_drawing, flow_words
from xray_classifier.report.interval_bar import percent_text
from xray_classifier.report.key_numbers import key_numbers
from xray_classifier.report.metric_words import method_words, metric_words
from xray_classifier.report.subgroup_plot import (
    HEADER,
    PANELS,
    SubgroupRow,
    drawn_subgroups,
    subgroup_table,
)
from xray_classifier.report.templates import (
    check_picture,
    check_rows,
    new_environment,
    script_text,
)
from xray_classifier.report.threshold_tool import (
    STATIC_HEADER,
    ThresholdTool,
    roc_path,
    static_rows,
    tool_json,
)
from xray_classifier.report.words import threshold_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


class MetricRow(NamedTuple):
    """One line of the metrics table.

    Args:
        name: Name of the metric as in `metrics.json`; the page adds what it is called in words.
        value: The number; None or NaN is shown as "not defined".
        ci_low: Lower end of the 95 % interval, None without one.
        ci_high: Upper end of the 95 % interval, None without one.
        n: How many images (or patients) stand behind it.
        method: How the interval was made, as in `metrics.json` or in words.
    """

    name: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    method: str


class ReportFigure(NamedTuple):
    """One picture with the numbers behind it.

    Args:
        title: Heading.
        png: The bytes of a PNG file.
        alt: What the picture shows, in words, for those who cannot see it; never blank.
        header: Column names of the numbers behind the picture; empty shows none.
        rows: One tuple of texts per line, each as long as `header`.
    """

    title: str
    png: bytes
    alt: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


class ReportTable(NamedTuple):
    """A table of texts; the first column names its line.

    Args:
        title: Heading.
        header: Column names.
        rows: One tuple of texts per line, each as long as `header`.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class ReportSection(NamedTuple):
    """What belongs under one heading of its own, such as calibration or a stress test.

    Args:
        title: Heading.
        paragraphs: Plain words, shown first.
        tables: Tables in order, shown last.
        figures: Pictures in order.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    figures: tuple[ReportFigure, ...] = ()


@dataclass(frozen=True)
class ReportContent:
    """Everything a report shows, as plain values; what is empty leaves no heading.

    Args:
        title: Heading of the page.
        verdict: The result in words, one text per paragraph; the first leads.
        metrics: Lines of the metrics table, the most important first; those that lead a report
            are also drawn at its top.
        figures: Pictures in order.
        tables: Data summary, model, training: short tables in order.
        details: (title, text) of long plain texts, folded away: configuration, environment.
        warnings: What the reader must know before believing the numbers.
        threshold_tool: The outcomes at many thresholds, for the reader to try.
        gallery: The worst errors as films.
        subgroups: The groups of each column next to each other, all images first.
        sections: Further parts in order.
        flow: The way of the images from the folder to the analysis.
        table_one: Images, patients and covariates by split.
        limits: What the model and this judgement cannot do or say.
    """

    title: str
    verdict: tuple[str, ...] = ()
    metrics: tuple[MetricRow, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    threshold_tool: ThresholdTool | None = None
    gallery: tuple[ErrorGroup, ...] = ()
    subgroups: tuple[SubgroupRow, ...] = ()
    sections: tuple[ReportSection, ...] = ()
    flow: tuple[FlowLevel, ...] = ()
    table_one: ReportTable | None = None
    limits: tuple[str, ...] = ()


def render_report(content: ReportContent) -> str:
    """The whole page as text; write it as UTF-8.

    Args:
        content: What to show. Any text may hold markup, control characters or bytes of a file name
            that are no UTF-8: they are shown as text, the invisible ones as escapes.

    Raises:
        ValueError: A picture is no PNG or has no alternative text, a row is not as long as its
            header, or a flow diagram has a level without boxes.
    """
    _check(content)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            content=content,
            contents=_contents(content),
            keys=key_numbers(content.metrics),
            scripts=_scripts(content),
            static_header=STATIC_HEADER,
            subgroup_columns=drawn_subgroups(content.subgroups),
            subgroup_header=HEADER,
            subgroup_table=subgroup_table(content.subgroups),
            panels=PANELS,
            flow_drawing=flow_drawing(content.flow),
            flow_words=flow_words(content.flow),
        )
    )


def _check(content: ReportContent) -> None:
    """Refuse what a browser or a screen reader could not show."""
    in_sections = [section.figures for section in content.sections]
    for figure in (*content.figures, *(figure for found in in_sections for figure in found)):
        check_picture(f"figure {figure.title!r}", figure.png, figure.alt)
        check_rows(figure.title, figure.header, figure.rows)
    tables = [*content.tables, *(table for part in content.sections for table in part.tables)]
    for table in [*tables, *([content.table_one] if content.table_one else [])]:
        check_rows(table.title, table.header, table.rows)
    check_gallery(content.gallery)
    check_flow(content.flow)


def _environment() -> Environment:
    """The templates with what this page puts into words."""
    environment = new_environment()
    environment.filters.update(
        method_words=method_words,
        metric_words=metric_words,
        percent=percent_text,
        roc_path=roc_path,
        static_rows=static_rows,
        threshold=threshold_text,
        tool_json=tool_json,
    )
    return environment


def _scripts(content: ReportContent) -> tuple[Markup, ...]:
    """The scripts that this page has a use for."""
    names = {"threshold_tool.js": content.threshold_tool, "error_gallery.js": content.gallery}
    return tuple(script_text(name) for name, used in names.items() if used)


def _contents(content: ReportContent) -> tuple[tuple[str, str], ...]:
    """Target and title of each part that is there, in the order of the page."""
    parts = (
        ("thresholds", "Try a threshold", content.threshold_tool),
        ("figures", "Figures", content.figures),
        ("errors", "Where it errs", content.gallery),
        ("subgroups", "Subgroups", content.subgroups),
        ("metrics", "All metrics", content.metrics),
        *((f"section-{i}", part.title, part) for i, part in enumerate(content.sections, start=1)),
        ("images", "The images", content.flow or content.table_one),
        ("summary", "Data, model and training", content.tables),
        ("limits", "Limits", content.limits),
        ("details", "Details", content.details),
    )
    return tuple((name, title) for name, title, there in parts if there)
