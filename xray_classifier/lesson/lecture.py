"""What a chapter of the tour is made of: what the page shows, and the numbers that it rests on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from xray_classifier.lesson.experiment import Experiment, Floats
from xray_classifier.report.canvas import as_png
from xray_classifier.report.lines_figure import Line, lines_figure
from xray_classifier.report.page import ReportFigure
from xray_classifier.report.tour_page import Chapter

draw_lines = as_png(lines_figure)


class Lecture(NamedTuple):
    """One chapter.

    Args:
        chapter: What the page shows.
        numbers: Plain values behind it, for tour.json.
    """

    chapter: Chapter
    numbers: Mapping[str, Any]


def record(experiment: Experiment) -> dict[str, Any]:
    """The numbers of one run: what was changed, each epoch's record, what ended it."""
    return {
        "overrides": list(experiment.overrides),
        "history": [dict(row) for row in experiment.rows],
        "test_loss": experiment.test_loss.tolist(),
        "failure": experiment.failure,
    }


def last(experiment: Experiment, column: str) -> float:
    """The value of a history column after the last finished epoch; NaN where none was finished."""
    return float(experiment.rows[-1][column]) if experiment.rows else float("nan")


def curve_figure(
    title: str,
    alt: str,
    lines: Sequence[Line],
    *,
    y_range: tuple[float, float] | None = None,
    level: tuple[float, str] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    subtitle: str = "",
    x_label: str = "epochs (passes over the training images)",
    y_label: str = "BCE loss (mean per image)",
) -> ReportFigure:
    """Curves over the epochs, with the numbers behind them in a table that can be opened."""
    png = draw_lines(
        lines,
        title=title,
        subtitle=subtitle,
        x_label=x_label,
        y_label=y_label,
        y_range=y_range,
        level=level,
        marks=marks,
    )
    header, rows = _numbers_behind(lines)
    return ReportFigure(title, png, alt, header, rows)


def epochs(values: Floats) -> Floats:
    """1, 2, 3 ... for values of one run, (n,)."""
    import numpy as np

    counted: Floats = np.arange(1, len(values) + 1, dtype=np.float64)
    return counted


MOST_ROWS = 40


def _numbers_behind(lines: Sequence[Line]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """One row per place on the x axis, thinned to at most `MOST_ROWS`; empty where a line ended."""
    values = [{float(x): float(y) for x, y in zip(line.x, line.y, strict=True)} for line in lines]
    places = sorted({place for found in values for place in found})
    step = -(-len(places) // MOST_ROWS)
    chosen = sorted({*places[::step], *places[-1:]})
    rows = tuple(
        (f"{place:g}", *(f"{found[place]:.4f}" if place in found else "" for found in values))
        for place in chosen
    )
    return ("Place", *(line.label for line in lines)), rows
