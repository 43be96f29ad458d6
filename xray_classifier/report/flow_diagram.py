"""The way of the images from the folder to the analysis, as boxes and arrows (STARD 2015, item 19).

Everything is placed here, in units of the drawing, so that the template only writes it down.

Source:
    Bossuyt et al. 2015, doi:10.1136/bmj.h5527.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

_WIDTH = 754.0
_GAP = 20.0
_BOX_WIDTH = 173.0
_SIDE_WIDTH = 230.0
_SIDE_GAP = 36.0
_LINE = 19.0
_PADDING = 12.0
_DROP = 38.0
_CHARACTER = 7.6


class FlowBox(NamedTuple):
    """Images that are together at one point.

    Args:
        label: What they are, such as "Test".
        n: How many.
        detail: One more line, such as "141 patients"; "" for none.
    """

    label: str
    n: int
    detail: str = ""


class FlowLevel(NamedTuple):
    """Boxes side by side.

    Args:
        boxes: All come from the box that goes on in the level above.
        left_out: Images that leave on the way to the next level.
        onward: Which of the boxes the next level comes from, counted from 0.
    """

    boxes: tuple[FlowBox, ...]
    left_out: tuple[FlowBox, ...] = ()
    onward: int = 0


class PlacedBox(NamedTuple):
    """A box on the drawing; its lines of text are centred."""

    x: float
    y: float
    width: float
    height: float
    lines: tuple[tuple[float, str, bool], ...]
    """(y, text, whether it is the number) of each line."""
    side: bool
    """Whether its images leave here."""


class FlowDrawing(NamedTuple):
    """The whole drawing.

    Args:
        width: In units; one is about a pixel.
        height: The same.
        boxes: In reading order.
        arrows: SVG path data of the lines.
        heads: SVG path data of the arrow heads.
    """

    width: float
    height: float
    boxes: tuple[PlacedBox, ...]
    arrows: tuple[str, ...]
    heads: tuple[str, ...]


def flow_drawing(levels: tuple[FlowLevel, ...]) -> FlowDrawing:
    """Place the boxes level by level, each row under the box it comes from."""
    boxes: list[PlacedBox] = []
    arrows: list[str] = []
    heads: list[str] = []
    centre, y = _WIDTH / 2, 1.0
    parent: PlacedBox | None = None
    for level in levels:
        row = _row(level.boxes, centre, y)
        for box in row if parent is not None else ():
            _join(parent, box, arrows, heads)
        parent = row[level.onward]
        centre = parent.x + parent.width / 2
        side = _sides(level.left_out, centre, parent.y + parent.height + _GAP)
        for box in side:
            _branch(centre, box, arrows, heads)
        boxes += [*row, *side]
        y = max(box.y + box.height for box in [*row, *side]) + _DROP
    height = max((box.y + box.height for box in boxes), default=0.0) + 1.0
    return FlowDrawing(_WIDTH, height, tuple(boxes), tuple(arrows), tuple(heads))


def flow_words(levels: tuple[FlowLevel, ...]) -> tuple[str, ...]:
    """The drawing for those who cannot see it, one text a level."""
    texts: list[str] = []
    source = ""
    for level in levels:
        start = f"From {source}: " if source else ""
        texts.append(start + ", ".join(_said(box) for box in level.boxes))
        if level.left_out:
            texts.append("Left out: " + ", ".join(_said(box) for box in level.left_out))
        source = level.boxes[level.onward].label
    return tuple(texts)


def check_flow(levels: tuple[FlowLevel, ...]) -> None:
    """Refuse a diagram that cannot be drawn.

    Raises:
        ValueError: A level has no box, or `onward` names none of them.
    """
    for level in levels:
        if not 0 <= level.onward < len(level.boxes):
            raise ValueError(f"a level of {len(level.boxes)} boxes goes on from {level.onward}")


def _said(box: FlowBox) -> str:
    return f"{box.label} {box.n:,}" + (f" ({box.detail})" if box.detail else "")


def _row(boxes: tuple[FlowBox, ...], centre: float, y: float) -> list[PlacedBox]:
    """Boxes of one height side by side, as near below `centre` as the drawing allows."""
    width = min(_BOX_WIDTH, (_WIDTH - 2 - _GAP * (len(boxes) - 1)) / len(boxes))
    whole = width * len(boxes) + _GAP * (len(boxes) - 1)
    left = min(max(centre - whole / 2, 1.0), _WIDTH - 1.0 - whole)
    height = max(_height(_texts(box, width)) for box in boxes)
    return [
        _placed(box, left + place * (width + _GAP), y, width, height, side=False)
        for place, box in enumerate(boxes)
    ]


def _sides(boxes: tuple[FlowBox, ...], centre: float, y: float) -> list[PlacedBox]:
    """Boxes of what is left out, below each other, beside the line at `centre`."""
    left = centre + _SIDE_GAP
    if left + _SIDE_WIDTH > _WIDTH - 1.0:
        left = centre - _SIDE_GAP - _SIDE_WIDTH
    placed = []
    for box in boxes:
        height = _height(_texts(box, _SIDE_WIDTH))
        placed.append(_placed(box, left, y, _SIDE_WIDTH, height, side=True))
        y += height + _GAP / 2
    return placed


def _placed(
    box: FlowBox, x: float, y: float, width: float, height: float, *, side: bool
) -> PlacedBox:
    texts = _texts(box, width)
    top = y + (height - _LINE * len(texts)) / 2 + 0.75 * _LINE
    lines = tuple((top + i * _LINE, text, bold) for i, (text, bold) in enumerate(texts))
    return PlacedBox(x, y, width, height, lines, side)


def _texts(box: FlowBox, width: float) -> list[tuple[str, bool]]:
    """The lines of a box: the label, the number (True) and the detail."""
    columns = int((width - _PADDING) / _CHARACTER)
    label, detail = textwrap.wrap(box.label, columns), textwrap.wrap(box.detail, columns)
    return [
        *((line, False) for line in label),
        (f"{box.n:,}", True),
        *((line, False) for line in detail),
    ]


def _height(texts: list[tuple[str, bool]]) -> float:
    return _LINE * len(texts) + 2 * _PADDING


def _join(parent: PlacedBox | None, child: PlacedBox, arrows: list[str], heads: list[str]) -> None:
    """Down from the parent, across above the child, and down to it."""
    if parent is None:
        return
    start, x = parent.x + parent.width / 2, child.x + child.width / 2
    middle = child.y - _DROP / 2
    bottom = parent.y + parent.height
    arrows.append(f"M{start:.1f} {bottom:.1f}V{middle:.1f}H{x:.1f}V{child.y - 7:.1f}")
    heads.append(f"M{x:.1f} {child.y:.1f}l-5 -9h10z")


def _branch(centre: float, side: PlacedBox, arrows: list[str], heads: list[str]) -> None:
    """From the line at `centre` across to a box of what is left out."""
    y = side.y + side.height / 2
    right = side.x > centre
    edge, turn = (side.x, -1) if right else (side.x + side.width, 1)
    arrows.append(f"M{centre:.1f} {y:.1f}H{edge + 7 * turn:.1f}")
    heads.append(f"M{edge:.1f} {y:.1f}l{9 * turn} -5v10z")
