"""`compare`: two or more models on the same images, and whether they differ more than by chance."""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_classifier.compared_images import PredictionTable, letter, listed, shared_images
from xray_classifier.comparison import Comparison, compare
from xray_classifier.comparison_files import comparison_json, differing_table
from xray_classifier.comparison_sources import (
    find_predictions,
    outdated,
    read_predictions,
    run_folder_of,
)
from xray_classifier.comparison_words import (
    decision_line,
    images_line,
    methods_line,
    model_lines,
    pair_table,
    ranking_table,
    referring_lines,
    verdict,
    warning_lines,
    without_line,
)
from xray_classifier.errors import OutputError, UsageError
from xray_classifier.files import make_folder, printable, write_json, write_text
from xray_classifier.run_folder import time_stamp
from xray_classifier.terminal import Terminal

COLUMNS = 80
ONE_CHECKPOINT = (
    "this compares these checkpoints, not the ways they were trained: another seed may turn it "
    "round"
)


@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison comes to: its folder, and the content of comparison.json for `--json`."""

    out: str
    content: Mapping[str, Any]


def run_compare(
    paths: Sequence[Path],
    terminal: Terminal,
    *,
    split: str | None = None,
    data: Path | None = None,
    intersect: bool = False,
    out: Path | None = None,
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> ComparisonResult:
    """Compare models on the images that all of them judged, and write what was found.

    Args:
        paths: Two or more: run folders, checkpoints in them, folders or tables of `evaluate`.
        terminal: What the user reads.
        split: Which evaluation of a run counts; None takes test. With `data`, as in `evaluate`.
        data: Evaluate all of them, runs or checkpoints, on these images first.
        intersect: Where the models judged different images, take those that all of them judged.
        out: Folder to write into, new or empty; None makes one under `comparisons`.
        device: Where to compute; only with `data`.
        overrides: As in `evaluate`, such as `data.labels=...`; only with `data`.

    Raises:
        UsageError: Fewer than two models, or one without an evaluation.
        DataError: The models were not judged on the same images, or a table cannot be used.
        OutputError: The folder holds something already.
    """
    if len(paths) < 2:
        raise UsageError("compare needs two models or more")
    if data is None and overrides:
        raise UsageError(f"{overrides[0]} says how to read images; it needs --data PATH")
    folder = _free_folder(out)
    if data is None:
        found = [find_predictions(path, split or "test") for path in paths]
    else:
        judge = _judge_of(terminal, data, split, device, overrides)
        found = _evaluated(paths, terminal, judge, folder)
    _refuse_same([table for _, table in found])
    tables = [read_predictions(name, table) for name, table in found]
    comparison = compare(shared_images(tables, intersect))
    warnings = [*_about_age([table for _, table in found]), *warning_lines(comparison, tables)]
    said = [*_in_words(comparison, tables), *(f"warning: {w}" for w in warnings), ONE_CHECKPOINT]
    terminal.say("\n".join(_wrapped(said)))
    content = comparison_json(comparison, tables, warnings)
    written = _write(folder, comparison, content)
    terminal.say(f"written to {printable(folder)}: {', '.join(path.name for path in written)}")
    return ComparisonResult(str(folder), {"out": str(folder), **content})


def _free_folder(out: Path | None) -> Path:
    """A folder that holds nothing; it is made when there is something to write."""
    if out is None:
        parent, stamp = Path("comparisons"), time_stamp()
        names = (stamp, *(f"{stamp}-{number}" for number in range(2, 1000)))
        return next(parent / name for name in names if not (parent / name).exists())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{printable(out)} holds something already; name another folder with -o")
    return out


def _judge_of(
    terminal: Terminal, data: Path, split: str | None, device: str, overrides: Sequence[str]
) -> Callable[[Path, Path], object]:
    """What judges a model on the given images, called with the model and a folder to write into.

    Raises:
        UsageError: There are no such images.
    """
    from xray_classifier.evaluation import run_evaluation

    if not data.exists():
        raise UsageError(f"--data {printable(data)} does not exist")
    return lambda model, out: run_evaluation(
        model, terminal, data=data, split=split, out=out, device=device, overrides=overrides
    )


def _evaluated(
    paths: Sequence[Path],
    terminal: Terminal,
    judge: Callable[[Path, Path], object],
    folder: Path,
) -> list[tuple[str, Path]]:
    """Judge every model anew, below the comparison's own folder."""
    for path in paths:
        if (path / "predictions.csv").is_file() or path.suffix.lower() == ".csv":
            raise UsageError(
                f"{printable(path)} holds predictions; with --data name runs or checkpoints"
            )
    runs = [run_folder_of(path) for path in paths]
    found = []
    for place, (path, run) in enumerate(zip(paths, runs, strict=True)):
        name = str(path) if run is None else run.resolve().name
        terminal.say(f"{letter(place)}: {printable(name)}")
        judged = folder / letter(place)
        judge(path, judged)
        terminal.say()
        found.append((name, judged / "predictions.csv"))
    return found


def _refuse_same(tables: Sequence[Path]) -> None:
    first: dict[Path, int] = {}
    for place, table in enumerate(tables):
        before = first.setdefault(table.resolve(), place)
        if before != place:
            raise UsageError(
                f"{letter(before)} and {letter(place)} are the same predictions: {printable(table)}"
            )


def _about_age(tables: Sequence[Path]) -> list[str]:
    old = [letter(place) for place, table in enumerate(tables) if outdated(table)]
    if not old:
        return []
    return [f"the model of {listed(old)} was written after it was judged; evaluate it again"]


def _in_words(comparison: Comparison, tables: Sequence[PredictionTable]) -> Iterator[str]:
    """The comparison as lines: the models, the numbers, a verdict in words."""
    several = len(comparison.pairs) > 1
    yield images_line(comparison.images, tables)
    yield from model_lines(tables)
    yield ""
    if several:
        yield from ranking_table(comparison, tables)
        yield ""
    yield from referring_lines(comparison, tables)
    for pair in comparison.pairs:
        if not several:
            yield from pair_table(pair)
            yield ""
        yield verdict(pair, several)
        for line in (None if several else decision_line(pair), without_line(comparison, pair)):
            if line is not None:
                yield line
    yield methods_line(comparison)


def _wrapped(lines: Sequence[str]) -> Iterator[str]:
    """Sentences broken at words to fit 80 columns; tables and indented lines stay as they are."""
    for line in lines:
        if line.startswith(" ") or len(line) <= COLUMNS:
            yield line
        else:
            yield from textwrap.wrap(
                line, COLUMNS, subsequent_indent="  ", break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip


def _write(folder: Path, comparison: Comparison, content: Mapping[str, Any]) -> list[Path]:
    """Write comparison.json and a table of disputed images for each pair."""
    make_folder(folder)
    write_json(folder / "comparison.json", content)
    written = [folder / "comparison.json"]
    for pair in comparison.pairs:
        between = (
            f"_{letter(pair.first)}_{letter(pair.second)}" if len(comparison.pairs) > 1 else ""
        )
        path = folder / f"differing{between}.csv"
        write_text(path, differing_table(comparison.images, pair))
        written.append(path)
    return written
