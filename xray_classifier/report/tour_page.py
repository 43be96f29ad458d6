"""The page of the tour: chapters of a lesson, each with pictures, formula, keys and source.

One self-contained HTML file like the report: pictures are data URIs, formulas are MathML, there is
no script, and the content security policy forbids every request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from xray_classifier.report.page import ReportFigure, ReportTable
from xray_classifier.report.templates import check_picture, check_rows, new_environment

if TYPE_CHECKING:
    from markupsafe import Markup


class Formula(NamedTuple):
    """A formula and what its letters mean.

    Args:
        mathml: Markup of `report.mathml`.
        words: One sentence that says the same.
    """

    mathml: Markup
    words: str


@dataclass(frozen=True)
class Chapter:
    """One step of the lesson.

    Args:
        name: Short word of letters and dashes; the target of links within the page.
        title: Heading.
        paragraphs: Two or three plain sentences each.
        figures: Pictures in order.
        formulas: In order.
        tables: Short tables, shown.
        folded: Long tables, folded away.
        keys: Config keys that control what was shown, such as train.optimizer.lr.
        sources: Papers or books, each with its DOI where there is one.
        asides: Where an introduction simplifies, said kindly.
    """

    name: str
    title: str
    paragraphs: tuple[str, ...]
    figures: tuple[ReportFigure, ...] = ()
    formulas: tuple[Formula, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    folded: tuple[ReportTable, ...] = ()
    keys: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    asides: tuple[str, ...] = ()


@dataclass(frozen=True)
class TourContent:
    """Everything the page shows.

    Args:
        title: Heading of the page.
        verdict: The first words, one text per paragraph.
        chapters: In the order in which one learns.
        details: (title, text) of long plain texts, folded away.
    """

    title: str
    verdict: tuple[str, ...]
    chapters: tuple[Chapter, ...]
    details: tuple[tuple[str, str], ...] = field(default=())


def render_tour(content: TourContent) -> str:
    """The whole page as text; write it as UTF-8.

    Raises:
        ValueError: A picture is no PNG or has no alternative text, or a row is not as long as its
            header.
    """
    for chapter in content.chapters:
        for figure in chapter.figures:
            check_picture(f"figure {figure.title!r}", figure.png, figure.alt)
            check_rows(figure.title, figure.header, figure.rows)
        for table in (*chapter.tables, *chapter.folded):
            check_rows(table.title, table.header, table.rows)
    return new_environment().get_template("tour.html.jinja").render(content=content)
