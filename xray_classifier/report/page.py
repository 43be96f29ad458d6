"""The report page: one HTML file that holds everything it shows and can run nothing.

Pictures are data URIs, the one style block is allowed by its hash, and the content security policy
forbids the rest, so a page may be mailed, archived and opened from a disk. All text is untrusted.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import unicodedata
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

from xray_classifier.report.words import number_text

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WIDE = 1.3


class MetricRow(NamedTuple):
    """One line of the metrics table.

    Args:
        name: Name of the metric as in `metrics.json`.
        value: The number; None or NaN is shown as "not defined".
        ci_low: Lower end of the 95 % interval, None without one.
        ci_high: Upper end of the 95 % interval, None without one.
        n: How many images (or patients) stand behind it.
        method: How the interval was made.
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


@dataclass(frozen=True)
class ReportContent:
    """Everything a report shows, as plain values.

    Args:
        title: Heading of the page.
        verdict: The result in words, one text per paragraph; the first leads.
        metrics: Lines of the metrics table, the most important first.
        figures: Pictures in order.
        tables: Data summary, model, training: short tables in order.
        details: (title, text) of long plain texts, folded away: configuration, environment.
        warnings: What the reader must know before believing the numbers.
    """

    title: str
    verdict: tuple[str, ...] = ()
    metrics: tuple[MetricRow, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def render_report(content: ReportContent) -> str:
    """The whole page as text; write it as UTF-8.

    Args:
        content: What to show. Any text may hold markup, control characters or bytes of a file name
            that are no UTF-8: they are shown as text, the invisible ones as escapes.

    Raises:
        ValueError: A picture is no PNG or has no alternative text, or a row is not as long as
            its header.
    """
    from jinja2 import Environment, StrictUndefined

    for figure in content.figures:
        _check_figure(figure)
    for table in content.tables:
        _check_rows(table.title, table.header, table.rows)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters.update(
        data_uri=_data_uri, csp_hash=_csp_hash, number=number_text, interval=_interval, shape=_shape
    )
    source = resources.files(__package__).joinpath("report.html.jinja").read_text("utf-8")
    return environment.from_string(source).render(content=content)


def _check_figure(figure: ReportFigure) -> None:
    """Refuse a picture that a browser or a screen reader could not show."""
    if not figure.png.startswith(_PNG_SIGNATURE):
        raise ValueError(f"figure {figure.title!r} holds no PNG file")
    if not figure.alt.strip():
        raise ValueError(f"figure {figure.title!r} needs an alternative text")
    _check_rows(figure.title, figure.header, figure.rows)


def _check_rows(title: str, header: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> None:
    """Refuse a table whose lines do not fit its header."""
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"table {title!r} has {len(header)} columns, a row has {len(row)}")


def _visible(value: object) -> object:
    """Escape characters that a page cannot hold or a reader cannot see, such as `\\x00`, `\\u202e`.

    Direction marks go too: they could make a file name read as another one.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(
        letter
        if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs")
        else letter.encode("unicode_escape").decode("ascii")
        for letter in value
    )


def _data_uri(png: bytes) -> str:
    """The picture inside its own address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _csp_hash(style: str) -> str:
    """The source expression that allows exactly this style block (W3C CSP Level 3)."""
    digest = hashlib.sha256(style.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


class _Shape(NamedTuple):
    width: int
    height: int
    wide: bool


def _shape(png: bytes) -> _Shape:
    """Width and height in pixels, read from the IHDR chunk, so that the page need not jump."""
    width, height = struct.unpack(">II", png[16:24])
    return _Shape(width, height, width > _WIDE * height)


def _interval(row: MetricRow) -> str:
    """`0.880 to 0.940`, or a hyphen where there is none."""
    ends = (row.ci_low, row.ci_high)
    if any(end is None or not math.isfinite(end) for end in ends):
        return "-"
    return f"{number_text(row.ci_low)} to {number_text(row.ci_high)}"
