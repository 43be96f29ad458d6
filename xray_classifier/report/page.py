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
from typing import TYPE_CHECKING, NamedTuple, Protocol

from xray_classifier.report.words import number_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of control, format and line characters, and of what is no character."""

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
    for figure in content.figures:
        check_picture(f"figure {figure.title!r}", figure.png, figure.alt)
        check_rows(figure.title, figure.header, figure.rows)
    for table in content.tables:
        check_rows(table.title, table.header, table.rows)
    return new_environment().get_template("report.html.jinja").render(content=content)


def new_environment() -> Environment:
    """The templates of this package, with the filters that keep a page safe and whole.

    What a template prints is escaped, on one line; the filter `lines` keeps the lines of a text.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters.update(
        csp_hash=_csp_hash,
        data_uri=_data_uri,
        interval=_interval,
        lines=_lines,
        number=number_text,
        shape=_shape,
    )
    return environment


def check_picture(what: str, png: bytes, alt: str) -> None:
    """Refuse a picture that a browser or a screen reader could not show.

    Args:
        what: Which picture, for the message.
        png: To be the bytes of a PNG file.
        alt: Its alternative text.

    Raises:
        ValueError: It is no PNG, or the alternative text is blank.
    """
    if not png.startswith(_PNG_SIGNATURE):
        raise ValueError(f"{what} holds no PNG file")
    if not alt.strip():
        raise ValueError(f"{what} needs an alternative text")


def check_rows(title: str, header: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> None:
    """Refuse a table whose lines do not fit its header.

    Raises:
        ValueError: A row is not as long as `header`.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"table {title!r} has {len(header)} columns, a row has {len(row)}")


def _visible(value: object) -> object:
    """Escape what a page cannot hold or a reader cannot see, such as `\\x00`, `\\n`, `\\u202e`.

    Direction marks go too: they could make a file name read as another one.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _shown(value)


def _lines(text: str) -> Markup:
    """The same for a text of several lines, which stay lines."""
    from markupsafe import escape

    return escape(_shown(text, kept="\n\t"))


def _shown(text: str, kept: str = "") -> str:
    """The text with escapes for invisible characters other than `kept`."""
    return "".join(
        letter
        if letter in kept or unicodedata.category(letter) not in _UNSEEN
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
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


class _Estimate(Protocol):
    @property
    def ci_low(self) -> float | None: ...
    @property
    def ci_high(self) -> float | None: ...


def _interval(row: _Estimate) -> str:
    """`0.880 to 0.940`, or a hyphen where there is none."""
    ends = (row.ci_low, row.ci_high)
    if any(end is None or not math.isfinite(end) for end in ends):
        return "-"
    return f"{number_text(row.ci_low)} to {number_text(row.ci_high)}"
