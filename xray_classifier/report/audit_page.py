"""The audit page: what is wrong with a data set, shown film beside film in one HTML file.

Built like the report page: it holds everything it shows and can run nothing, and all text, above
all the file names, is untrusted.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from xray_classifier.report.page import ReportTable
from xray_classifier.report.templates import check_picture, check_rows, new_environment
from xray_classifier.report.words import interval_text, number_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ProbeKind = Literal["acquisition", "covariate", "baseline"]

_KINDS = (
    (
        "acquisition",
        "How the films were taken and stored",
        "This should say nothing about disease. What stands above chance here is a shortcut: a "
        "model can reach this AUROC without looking at the patient, and may fail on films of "
        "another source.",
    ),
    (
        "covariate",
        "Columns that came with the images",
        "A column may be medicine, such as age, or a shortcut, such as the hospital. Only someone "
        "who knows the data can tell which.",
    ),
    (
        "baseline",
        "How little is needed",
        "This does show anatomy, but next to nothing of it. A model that does no better need not "
        "have seen anything finer.",
    ),
)
"""Kinds of probes in the order of the page: key, heading, what it means."""

_TONES = {
    "train": "blue",
    "val": "violet",
    "test": "orange",
    "sick": "red",
    "healthy": "green",
}
"""Colour of a badge by its text; the text says the same to those who see no colour."""

_SCALE_LOW = 0.5
_MARGIN_PERCENT = 3.0


class PageFilm(NamedTuple):
    """One film as a small picture.

    Args:
        png: The bytes of a PNG file, as `film_png` makes; None for a file that cannot be decoded.
        caption: What it is, such as its path in the data set.
        alt: What the picture shows, for those who cannot see it; never blank with a picture.
        badge: The split or the label, shown as a tag; "" for none.
        note: What is odd about it; "" for nothing.
    """

    png: bytes | None
    caption: str
    alt: str
    badge: str = ""
    note: str = ""


class FilmGroup(NamedTuple):
    """Films that belong side by side.

    Args:
        caption: What they have in common; "" for nothing to say.
        films: In order, a film next to its copy.
        more: How many further films of the group are not shown.
    """

    caption: str
    films: tuple[PageFilm, ...]
    more: int = 0


class Gallery(NamedTuple):
    """Groups of films under one heading; without groups, a finding in words.

    Args:
        title: Heading.
        text: What was found and what it means.
        groups: The worst first.
        more: How many further groups are not shown.
    """

    title: str
    text: str = ""
    groups: tuple[FilmGroup, ...] = ()
    more: int = 0


class ProbeRow(NamedTuple):
    """How well one thing other than the film predicts the label.

    Args:
        name: What was looked at, such as "image size".
        kind: Whether it is a shortcut, may be one, or shows some anatomy.
        auroc: A fraction in [0, 1]; None or NaN if there was nothing to judge, see `note`.
        ci_low: Lower end of the 95 % interval, None without one.
        ci_high: Upper end of the 95 % interval, None without one.
        n: How many images stand behind it.
        note: What a person should know; "" for nothing.
        method: How the interval was made; "" for none.
    """

    name: str
    kind: ProbeKind
    auroc: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    note: str = ""
    method: str = ""


@dataclass(frozen=True)
class AuditContent:
    """Everything an audit page shows, as plain values; what is empty leaves no heading.

    Args:
        title: Heading of the page.
        verdict: The result in words, one text per paragraph; the first leads.
        alarm: Whether what was found spoils a training or its judgement.
        unseen: What could not be looked at; without an alarm the page then says "Incomplete".
        leaks: What stands in more than one split, or more than once.
        labels: Contradicting labels, lacking classes, few patients.
        probes: What tells the classes apart without being anatomy, in order within each kind.
        no_probes: Why there are no probes, without a full stop; "" where there are.
        quality: Odd films, their reasons as notes.
        summary: Short tables in order: images by split and class, image sizes.
        details: (title, text) of long plain texts, folded away.
    """

    title: str
    verdict: tuple[str, ...] = ()
    alarm: bool = False
    unseen: tuple[str, ...] = ()
    leaks: tuple[Gallery, ...] = ()
    labels: tuple[Gallery, ...] = ()
    probes: tuple[ProbeRow, ...] = ()
    no_probes: str = ""
    quality: tuple[Gallery, ...] = ()
    summary: tuple[ReportTable, ...] = ()
    details: tuple[tuple[str, str], ...] = ()


def render_audit(content: AuditContent) -> str:
    """The whole page as text; write it as UTF-8.

    Args:
        content: What to show. Any text may hold markup, control characters or bytes of a file name
            that are no UTF-8: they are shown as text, the invisible ones as escapes.

    Raises:
        ValueError: A picture is no PNG or has no alternative text, a probe is of no known kind, or
            a row is not as long as its header.
    """
    for gallery in (*content.leaks, *content.labels, *content.quality):
        for film in (film for group in gallery.groups for film in group.films):
            if film.png is not None:
                check_picture(f"film {film.caption!r}", film.png, film.alt)
    for probe in content.probes:
        if probe.kind not in {kind for kind, _, _ in _KINDS}:
            raise ValueError(f"probe {probe.name!r} is of no known kind: {probe.kind!r}")
    for table in content.summary:
        check_rows(table.title, table.header, table.rows)
    environment = new_environment()
    environment.filters.update(bar=_bar, place=_place, tone=_tone)
    environment.tests["finite"] = _is_number
    return environment.get_template("audit.html.jinja").render(content=content, kinds=_KINDS)


def film_png(image: NDArray[np.uint8]) -> bytes:
    """A film as a PNG file that holds its pixels and nothing else.

    Args:
        image: Shape (S, S) uint8.

    Returns:
        Equal bytes for equal pixels.

    Raises:
        ValueError: Another shape or type.
    """
    from PIL import Image

    if image.ndim != 2 or image.dtype != "uint8" or not image.size:
        raise ValueError(f"want an (S, S) uint8 film, got {image.shape} {image.dtype}")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


class _Bar(NamedTuple):
    """How one probe is drawn on a scale from 0.5 to 1.

    Args:
        low: Lower end of the interval, None without one.
        high: Upper end.
        clipped: Whether something lies below the scale.
        above_chance: Whether all of the interval does not.
        finding: That in words.
        words: The bar for those who cannot see it.
    """

    low: float | None
    high: float | None
    clipped: bool
    above_chance: bool
    finding: str
    words: str


def _bar(row: ProbeRow) -> _Bar:
    """The bar of a probe that has an AUROC."""
    low, high = row.ci_low, row.ci_high
    if not (_is_number(low) and _is_number(high)):
        low = high = None
    clipped = any(value is not None and value < _SCALE_LOW for value in (row.auroc, low))
    above = low is not None and low > _SCALE_LOW
    finding = "above chance" if above else "not above chance"
    if low is None:
        finding = "no interval"
    words = f"AUROC {number_text(row.auroc)}{interval_text((low, high))}, {finding}"
    return _Bar(low, high, clipped, above, finding, words)


def _place(value: float) -> str:
    """Where a value stands from left to right, values off the scale at its ends."""
    share = (min(max(value, _SCALE_LOW), 1.0) - _SCALE_LOW) / (1.0 - _SCALE_LOW)
    return f"{_MARGIN_PERCENT + (100.0 - 2 * _MARGIN_PERCENT) * share:.2f}%"


def _tone(badge: str) -> str:
    """Style class of a badge, with a space before it."""
    return f" {_TONES[badge]}" if badge in _TONES else ""


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
