"""How a page is made: the templates, what keeps a page safe, and what must hold before one is.

A page is allowed its own pictures, the one style block and the scripts of this package, the last
two by their hashes; the content security policy forbids the rest. All text is untrusted.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
import unicodedata
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple, Protocol

from xray_classifier.report.words import number_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of control, format and line characters, and of what is no character."""

_WIDE = 1.3


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
        pieces=_pieces,
        shape=_shape,
    )
    return environment


def script_text(name: str) -> Markup:
    """A script of this package, with the line ends that a browser hashes on any system.

    Args:
        name: File name beside the templates, such as `threshold_tool.js`.
    """
    from markupsafe import Markup

    return Markup((resources.files(__package__) / name).read_text(encoding="utf-8"))


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


def _pieces(path: str) -> list[str]:
    """A path cut where a line may end: after a slash or an underscore."""
    return re.findall(r"[^/_]+[/_]*|[/_]+", path)


def _data_uri(png: bytes) -> str:
    """The picture inside its own address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _csp_hash(block: str) -> str:
    """The source expression that allows exactly this style or script block (W3C CSP Level 3)."""
    digest = hashlib.sha256(block.encode("utf-8")).digest()
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
