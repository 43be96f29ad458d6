"""The worst errors film by film: what a gallery of a report holds."""

from __future__ import annotations

from typing import NamedTuple

from xray_classifier.report.templates import check_picture


class ErrorFilm(NamedTuple):
    """One film that was called wrongly.

    Args:
        png: The bytes of a PNG file, as `film_png` makes; 8 KB each keep a page small.
        overlay: The same film with what the answer rests on in colour, or None.
        caption: Its path in the data set; any text.
        p_sick: Probability of sick, in [0, 1].
        label: What it is: sick or healthy.
        alt: What the picture shows, for those who cannot see it; never blank.
        note: What else a reader should know; "" for nothing.
    """

    png: bytes
    overlay: bytes | None
    caption: str
    p_sick: float
    label: str
    alt: str
    note: str = ""


class ErrorGroup(NamedTuple):
    """Errors of one kind, the worst first.

    Args:
        title: Such as "Sick, called healthy".
        films: In order.
        more: How many further ones are not shown.
        text: What one should know about them; "" for nothing.
    """

    title: str
    films: tuple[ErrorFilm, ...]
    more: int = 0
    text: str = ""


def check_gallery(groups: tuple[ErrorGroup, ...]) -> None:
    """Refuse a gallery that a browser or a screen reader could not show.

    Raises:
        ValueError: A picture is no PNG or has no alternative text.
    """
    for film in (film for group in groups for film in group.films):
        check_picture(f"film {film.caption!r}", film.png, film.alt)
        if film.overlay is not None:
            check_picture(f"overlay of {film.caption!r}", film.overlay, film.alt)
