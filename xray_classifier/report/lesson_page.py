"""The lesson as one HTML page: picture, plain words, formula, config key and source, part by part.

Built like the report page: it holds everything it shows and can run nothing, and all text is
untrusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xray_classifier.report.page import ReportFigure, ReportTable
from xray_classifier.report.templates import check_picture, check_rows, new_environment


@dataclass(frozen=True)
class LessonPart:
    """One subject of the lesson.

    Attributes:
        name: Short, for links and file names: lower case letters and underscores.
        title: Heading.
        sentences: Two or three plain sentences on what the pictures show, one paragraph each.
        figures: Pictures in order.
        formula: What is computed, as one line or several; `` shows none.
        keys: Config keys that control it; `` where none does.
        source: Where it comes from, with DOI.
        warnings: What is unhealthy in this run.
        notes: Where the lesson simplifies, or what is missing and how to get it.
        tables: Numbers that need no picture.
        numbers: What was measured, for explain.json; plain values.
    """

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    formula: str = ""
    keys: str = ""
    source: str = ""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """The pictures as PNG files by name."""
        single = len(self.figures) == 1
        return {
            f"{self.name}.png" if single else f"{self.name}_{number}.png": figure.png
            for number, figure in enumerate(self.figures, start=1)
        }


@dataclass(frozen=True)
class LessonContent:
    """A page of lessons.

    Attributes:
        title: Heading of the page.
        verdict: What the page is, one text per paragraph; the first leads.
        parts: In order.
        details: (title, text) of long plain texts, folded away.
    """

    title: str
    verdict: tuple[str, ...]
    parts: tuple[LessonPart, ...]
    details: tuple[tuple[str, str], ...] = ()


def render_lesson(content: LessonContent) -> str:
    """The whole page as text; write it as UTF-8.

    Args:
        content: What to show.

    Raises:
        ValueError: A picture is no PNG or has no alternative text, a row is not as long as its
            header, or two parts have one name.
    """
    names = [part.name for part in content.parts]
    if len(set(names)) != len(names):
        raise ValueError(f"two parts have one name: {', '.join(names)}")
    for part in content.parts:
        for figure in part.figures:
            check_picture(f"figure {figure.title!r}", figure.png, figure.alt)
            check_rows(figure.title, figure.header, figure.rows)
        for table in part.tables:
            check_rows(table.title, table.header, table.rows)
    return new_environment().get_template("lesson.html.jinja").render(content=content)
