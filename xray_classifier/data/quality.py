"""Odd images among films: unreadable, blank, inverted, turned, stretched, coloured, written on.

Orientation and inversion are judged against the typical film of the very set, its median; where the
films of a set do not resemble one another, neither is judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.signature import Signatures

ALMOST_BLANK = 0.04
"""Range from the 1st to the 99th percentile, a fraction of full scale, below which a film shows
next to nothing; the lowest of 6,800 chest films was 0.29."""

COLOURED = 0.04
"""Mean channel difference, a fraction of white, above which a picture is coloured; films stored in
three channels were below 0.001."""

INVERTED = -0.2
"""Correlation with the typical film below which a film is inverted; the lowest of 6,800 chest films
was 0.14."""

TURNED_LIKENESS = 0.4
TURNED_MARGIN = 0.25
"""A film is turned where, turned back, it correlates with the typical film at least this well, and
better by this margin; the largest margin of 6,800 upright chest films was 0.17."""

LIKE_ONE_ANOTHER = 0.5
FEWEST_FOR_TYPICAL = 20
"""Below this median correlation, or with fewer films, there is no typical film to compare with."""

LONGEST_ASPECT = 2.5
ASPECT_DEVIATIONS = 8.0
SMALLEST_ASPECT_STEP = 1.5
TYPICAL_SAMPLE = 2000

KINDS = {
    "unreadable": "cannot be decoded",
    "blank": "one grey level only",
    "almost_blank": "shows next to nothing",
    "inverted": "black and white are swapped, compared with the other films",
    "turned": "turned by 90 degrees, or plainly by 180, compared with the other films",
    "unusual_aspect": "much longer or wider than the other films",
    "colour": "a coloured picture among films",
    "burned_in": "DICOM says that text is burned into the pixels; it may name the patient",
}
"""What is looked for, and what each kind means in words."""


@dataclass(frozen=True)
class Oddity:
    """One image that is not like a film of this set.

    Attributes:
        row: Its row.
        kind: One of KINDS.
        detail: A number, or a reason with what to do; never text of the file.
    """

    row: int
    kind: str
    detail: str


def odd_images(
    signatures: Signatures, reasons: Sequence[str], details: Sequence[str] | None = None
) -> tuple[Oddity, ...]:
    """What is odd about which image, by row; an image may be odd in several ways.

    Args:
        signatures: (N,) records of SIGNATURE.
        reasons: Why an image could not be decoded, N codes; `` where it could.
        details: The same in words, N texts; None if there are no words.
    """
    unread = [
        Oddity(
            row,
            "blank" if reason == "blank" else "unreadable",
            f"{reason}: {details[row]}" if details is not None and details[row] else reason,
        )
        for row, reason in enumerate(reasons)
        if reason
    ]
    rows = np.flatnonzero([not reason for reason in reasons])
    seen = signatures[rows]
    found = [*_blank(seen), *_turned(seen), *_stretched(seen), *_coloured(seen), *_written_on(seen)]
    odd = [Oddity(int(rows[o.row]), o.kind, o.detail) for o in found]
    return tuple(sorted([*unread, *odd], key=lambda o: (o.row, list(KINDS).index(o.kind))))


def _blank(seen: Signatures) -> list[Oddity]:
    return [
        Oddity(
            int(row), "almost_blank", f"grey levels span {seen['spread'][row]:.1%} of full scale"
        )
        for row in np.flatnonzero(seen["spread"] < ALMOST_BLANK)
    ]


def _coloured(seen: Signatures) -> list[Oddity]:
    return [
        Oddity(int(row), "colour", f"channels differ by {seen['colour'][row]:.0%} of white")
        for row in np.flatnonzero(seen["colour"] > COLOURED)
    ]


def _written_on(seen: Signatures) -> list[Oddity]:
    return [Oddity(int(row), "burned_in", "") for row in np.flatnonzero(seen["burned_in"])]


def _stretched(seen: Signatures) -> list[Oddity]:
    """Aspect far from that of the others, or beyond what any film has."""
    if not len(seen):
        return []
    aspect = np.log(seen["columns"].astype(float) / seen["rows"])
    distance = np.abs(aspect - np.median(aspect))
    limit = max(ASPECT_DEVIATIONS * float(np.median(distance)), np.log(SMALLEST_ASPECT_STEP))
    odd = (distance > limit) | (np.abs(aspect) > np.log(LONGEST_ASPECT))
    return [
        Oddity(int(row), "unusual_aspect", f"{seen['columns'][row]} x {seen['rows'][row]} pixels")
        for row in np.flatnonzero(odd)
    ]


def _turned(seen: Signatures) -> list[Oddity]:
    """Inverted and turned films, told by their likeness to the typical film."""
    typical = typical_film(seen)
    if typical is None:
        return []
    upright = _likeness(seen["thumb"], typical)
    # a film turned by k quarter turns fits once it is turned back by as many
    back = np.stack([_likeness(np.rot90(seen["thumb"], k, (1, 2)), typical) for k in (1, 2, 3)])
    best = back.max(axis=0)
    turned = (best > TURNED_LIKENESS) & (best - upright > TURNED_MARGIN)
    inverted = (upright < INVERTED) & ~turned
    degrees = 90 * (1 + back.argmax(axis=0))
    return [
        *(
            Oddity(int(row), "inverted", f"correlation {upright[row]:.2f} with the typical film")
            for row in np.flatnonzero(inverted)
        ),
        *(
            Oddity(int(row), "turned", f"by {degrees[row]} degrees clockwise")
            for row in np.flatnonzero(turned)
        ),
    ]


def typical_film(seen: Signatures) -> NDArray[np.float64] | None:
    """The median film of a set, (32, 32); None where the films do not resemble one another."""
    if len(seen) < FEWEST_FOR_TYPICAL:
        return None
    step = -(-len(seen) // TYPICAL_SAMPLE)
    some = seen["thumb"][::step]
    typical = np.median(some, axis=0)
    if np.ptp(typical) == 0 or np.median(_likeness(some, typical)) < LIKE_ONE_ANOTHER:
        return None
    return np.asarray(typical, dtype=np.float64)


def _likeness(thumbs: NDArray[np.uint8], typical: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of each thumbnail (n, 32, 32) with the typical film, (n,); 0 for a flat one."""
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    pattern = (typical - typical.mean()).ravel().astype(np.float32)
    norms = np.linalg.norm(flat, axis=1) * np.linalg.norm(pattern)
    return np.asarray(np.divide(flat @ pattern, norms, out=np.zeros(len(flat)), where=norms > 0))
