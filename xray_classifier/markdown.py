"""Markdown that holds untrusted text: names and notes stay text and cannot become markup."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from xray_classifier.files import printable

_SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_START = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[#+=-]))")
"""What would begin a heading, a list or a line below a heading."""
_LINKS = ((r":(?=//)", "&#58;"), (r"(?<=www)\.", "&#46;"), (r"@", "&#64;"))
"""What a reader of Markdown may turn into a link, and how to write it so that it stays text."""
_SEAL = re.compile(r"<!-- as written by xray-classifier: ([0-9a-f]{64}) -->\n\Z")


def plain(text: object) -> str:
    """Any text on one line that shows as it is: no markup, no HTML, no link, nothing invisible.

    Args:
        text: File names, the words of a user, whatever comes from outside.

    Source:
        CommonMark 0.31, section 2.4: a backslash before ASCII punctuation makes it literal.
    """
    return _START.sub(r"\1\\", inline(text))


def inline(text: object) -> str:
    """As `plain`, for text that never stands at the start of a line, as in a table."""
    line = printable(" ".join(str(text).split()))
    line = _SPECIAL.sub(r"\\\1", line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for link, shown in _LINKS:
        line = re.sub(link, shown, line, flags=re.IGNORECASE)
    return line


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; ends with a newline.

    Args:
        header: Column names, shape (n_columns,).
        rows: Cells, shape (n_rows, n_columns).

    Raises:
        ValueError: A row is not as long as the header.
    """
    lines = [_row(header), _row(["---"] * len(header))]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{len(row)} cells for {len(header)} columns")
        lines.append(_row(row))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |"


def sealed(text: str) -> str:
    """The text with a digest of itself in a last comment, by which later edits are told."""
    body = text.rstrip("\n") + "\n\n"
    return f"{body}<!-- as written by xray-classifier: {_digest(body)} -->\n"


def was_edited(file: Path) -> bool:
    """Whether a file is there that this program did not write, or that somebody wrote into."""
    if not file.exists():
        return False
    try:
        return not is_untouched(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError):
        return True


def is_untouched(text: str) -> bool:
    """Whether a text is as `sealed` left it, so that nobody's work is lost if it is replaced."""
    found = _SEAL.search(text)
    return found is not None and found[1] == _digest(text[: found.start()])


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()
