"""How numbers and names are put into words for a figure."""

from __future__ import annotations

import functools
import math
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def drawable(text: str) -> str:
    """The text with `?` for each character that the font lacks or that would not be seen.

    File names reach the figures as captions, and a missing glyph would warn from inside a draw.
    """
    known = _glyphs()
    return "".join(
        letter if letter == "\n" or (letter.isprintable() and ord(letter) in known) else "?"
        for letter in text
    )


@functools.cache
def _glyphs() -> frozenset[int]:
    """Code points that the font can draw."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def shortened(text: str, columns: int) -> str:
    """The line cut to at most `columns` characters, at a word if one ends near by."""
    if len(text) <= columns:
        return text
    cut = textwrap.shorten(text, columns, placeholder=" …")
    return cut if len(cut) > 0.75 * columns else text[: columns - 1] + "…"


def number_text(value: float | None) -> str:
    """Three decimals for a person, `not defined` for NaN or None."""
    if value is None or not math.isfinite(value):
        return "not defined"
    return f"{value:.3f}" if abs(value) < 100 else quantity_text(value)


def quantity_text(value: float) -> str:
    """A large or small number with the digits that a person reads: 1.25, 54,000, 1.2e+09."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}"


def interval_text(interval: Sequence[float | None] | None) -> str:
    """` (95 % CI 0.880 to 0.940)`, or nothing where an end is unknown."""
    if interval is None or any(end is None or not math.isfinite(end) for end in interval):
        return ""
    low, high = interval
    return f" (95 % CI {number_text(low)} to {number_text(high)})"


def threshold_text(threshold: float) -> str:
    """A probability with just enough digits: 0.37, 0.005, 3.2e-05."""
    return f"{threshold:.3g}"


def named(split: str | None) -> str:
    """`test split: `, or nothing."""
    if split is None:
        return ""
    return "all images: " if split == "all" else f"{split} split: "


def counted(split: str | None, n_sick: int, n_healthy: int) -> str:
    """`test split: 195 sick and 117 healthy images`."""
    return f"{named(split)}{n_sick:,} sick and {n_healthy:,} healthy images"
