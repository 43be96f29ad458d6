"""The rows as a table: for a terminal of 100 columns, and as Markdown between two comments."""

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks.rows import Row

START, END = "<!-- benchmark table -->\n", "<!-- end of benchmark table -->\n"
WIDTHS = (33, 20, 17, 18, 8, 4)  # 100 columns in all
HEADER = ("what", "measured (min-max)", "against", "figure (min-max)", "goal", "met")
SIGN = {"at least": ">=", "at most": "<="}


def cells(row: Row) -> tuple[str, str, str, str, str, str]:
    """One row in words."""
    goal = "" if row.goal is None else f"{SIGN[row.sense]}{_goal(row.goal, row.form)}"
    met = {True: "yes", False: "no", None: ""}[row.reached]
    against = f"{row.against} {amount(row.other, row.unit)}" if row.other else row.against
    return (
        row.what + (f" ({row.note})" if row.note else ""),
        with_spread(row.measured, row.unit),
        against,
        with_spread(row.figure, row.form) if row.figure else "",
        goal,
        met,
    )


def _goal(value: float, form: str) -> str:
    return f"{value:.0%}" if form == "%" else f"{value:g}{form}"


def number(value: float, unit: str) -> str:
    """A value with its unit, in three digits; a share in per cent."""
    if unit == "%":
        return f"{value:.0%}"
    return f"{_three_digits(value)}{'' if unit in ('', 'x') else ' '}{unit}"


def _three_digits(value: float) -> str:
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def amount(values: Sequence[float], unit: str) -> str:
    """The median alone."""
    return number(statistics.median(values), unit)


def with_spread(values: Sequence[float], unit: str) -> str:
    """The median, and smallest and largest where there are several."""
    middle = amount(values, unit)
    if len(values) == 1:
        return middle
    scale = 100.0 if unit == "%" else 1.0
    low, high = (_three_digits(scale * end) for end in (min(values), max(values)))
    if unit == "%":
        low, high = (f"{scale * end:.0f}" for end in (min(values), max(values)))
    return f"{middle} ({low}-{high})"


def as_text(sections: Mapping[str, Sequence[Row]]) -> str:
    """The table for a terminal, at most 100 columns wide; long cells go on in further lines."""
    lines = [_line(HEADER), "-" * len(_line(HEADER))]
    for title, rows in sections.items():
        lines.append(title)
        for row in rows:
            lines += _wrapped(cells(row))
    return "\n".join(line.rstrip() for line in lines)


def _line(parts: Sequence[str]) -> str:
    return "".join(part.ljust(width) for part, width in zip(parts, WIDTHS, strict=True))


def _wrapped(parts: Sequence[str]) -> list[str]:
    columns = [
        textwrap.wrap(part, width - 1) or [""] for part, width in zip(parts, WIDTHS, strict=True)
    ]
    columns[0] = [f" {text}" if line else text for line, text in enumerate(columns[0])]
    height = max(map(len, columns))
    return [_line([c[i] if i < len(c) else "" for c in columns]) for i in range(height)]


def as_markdown(content: Mapping[str, Any], sections: Mapping[str, Sequence[Row]]) -> str:
    """The table with the machine above it, for a page."""
    machine = content["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{content['date']}, {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, load {machine['load']} at the start; {versions}.",
        *([f"GPU: {described_gpu(gpu)}."] if (gpu := machine.get("gpu")) else []),
        f"Command: `{content['command']}`. {content['rounds_asked']} rounds: median (min-max).",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{'---|' * len(HEADER)}",
    ]
    for title, rows in sections.items():
        lines.append(f"| **{title}** |{' |' * (len(HEADER) - 1)}")
        lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def described_gpu(gpu: Mapping[str, Any]) -> str:
    """A GPU and what drives it, in one line."""
    return (
        f"{gpu['name']}, {gpu['memory_GiB']} GiB, driver {gpu['driver']}, CUDA {gpu['cuda']}, "
        f"cuDNN {gpu['cudnn']}"
    )


def written_into(page: Path, table: str) -> None:
    """Put a table between the two comments of a page.

    Raises:
        ValueError: The page has no such place.
    """
    text = page.read_text(encoding="utf-8")
    head, found, rest = text.partition(START)
    _, closed, tail = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"{page} lacks the lines `{START.strip()}` and `{END.strip()}`")
    page.write_text(f"{head}{START}{table}{END}{tail}", encoding="utf-8")
