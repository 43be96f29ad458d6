"""`predict`: one row per file, in order, whatever is wrong with the file."""

import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from xray_classifier.answers import OK, REFER
from xray_classifier.classifier import Classifier, load_classifier
from xray_classifier.data.tree import list_tree
from xray_classifier.details import LABEL_SHIFT
from xray_classifier.errors import DataError, OutputError, UsageError
from xray_classifier.files import atomic_file, csv_row, printable, to_json
from xray_classifier.inference import INFERENCE_ROWS
from xray_classifier.terminal import Terminal, command, encodable

FORMATS = ("csv", "jsonl", "parquet")
STDOUT = Path("-")

Row = tuple[Any, ...]


@dataclass(frozen=True)
class PredictionResult:
    """What a batch comes to; `--json` prints it. Counts are files."""

    out: str
    n: int
    ok: int
    failed: int
    rejected: int
    sick: int
    referred: int


def run_prediction(
    path: Path,
    inputs: Sequence[Path],
    out: Path,
    terminal: Terminal,
    *,
    file_format: str | None = None,
    threshold: str | float = "auto",
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
    prevalence: float | None = None,
) -> PredictionResult:
    """Score files and folders, and write one row per file.

    Args:
        path: A checkpoint or a run folder.
        inputs: Files and folders; folders are searched to the bottom.
        out: The table; `-` is standard output.
        terminal: What the user reads.
        file_format: csv, jsonl or parquet; None goes by the ending of `out`.
        threshold: `auto` or a policy, see `load_classifier`.
        device: Where to compute.
        workers: Decoding threads; None is one per core.
        force: Replace an existing `out`.
        prevalence: Share of sick where the answers are used: adds `p_at_prevalence`.

    Raises:
        UsageError: An input does not exist.
        OutputError: `out` exists, or cannot be written; nothing is left half-written.
    """
    kind = file_format or {".jsonl": "jsonl", ".parquet": "parquet"}.get(out.suffix, "csv")
    _check_output(out, kind, force)
    files, hidden = list_inputs(inputs, terminal)
    classifier = load_classifier(path, device, threshold, prevalence)
    terminal.say(f"{len(files):,} files{f', {hidden:,} hidden ones passed over' if hidden else ''}")
    counts: Counter[str] = Counter()
    with terminal.bar("predicting", len(files), "file") as bar:
        rows = _counted(scored_rows(classifier, files, workers or os.cpu_count() or 1), counts, bar)
        write_rows(out, kind, classifier.columns, rows)
    result = PredictionResult(
        out=str(out),
        n=len(files),
        ok=counts["ok"],
        failed=counts["failed"],
        rejected=counts["rejected"],
        sick=counts["sick"],
        referred=counts[REFER],
    )
    _say_the_end(terminal, classifier, result, counts)
    terminal.say(f"Next: {command('evaluate', path, '--data', 'LABELLED_FOLDER')}")
    return result


def list_inputs(inputs: Sequence[Path], terminal: Terminal) -> tuple[list[Path], int]:
    """Every file that the arguments mean, in order, and the number of hidden ones passed over.

    Links that lead out of a folder, links to folders, pipes and devices are no files; the terminal
    is told how many there were.

    Raises:
        UsageError: An argument does not exist.
        DataError: There is no file at all.
    """
    files: list[Path] = []
    hidden = 0
    for given in inputs:
        if os.path.isdir(given):  # noqa: PTH112 - pathlib raises on some hostile names
            tree = list_tree(given)
            for note in tree.skipped():
                terminal.warn(f"{printable(given)}: {note}")
            hidden += tree.hidden.total()
            files.extend(given / relative for relative in tree.files)
        elif os.path.lexists(given):
            files.append(given)
        else:
            raise UsageError(f"{printable(given)} does not exist")
    if not files:
        raise DataError(f"no file in {', '.join(map(printable, inputs))}")
    return files, hidden


def scored_rows(classifier: Classifier, files: Sequence[Path], workers: int) -> Iterator[Row]:
    """Rows of the table, in order; a window of files is decoded at a time."""
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(files), INFERENCE_ROWS):
            part = files[start : start + INFERENCE_ROWS]
            attempts = list(pool.map(classifier.attempt, part))
            yield from classifier.rows([str(file) for file in part], attempts)


def _counted(rows: Iterable[Row], counts: Counter[str], bar: Any) -> Iterator[Row]:
    for done, row in enumerate(rows, start=1):
        counts[row[1]] += 1
        counts[f"reason {row[2]}"] += row[1] != "ok"
        if row[1] == OK and row[4] in ("sick", REFER):
            counts[row[4]] += 1
        counts[f"seen {row[-1]}"] += row[1] == "ok"
        bar(done)
        yield row


def _check_output(out: Path, kind: str, force: bool) -> None:
    if kind not in FORMATS:
        raise UsageError(f"--format {kind}: must be one of {', '.join(FORMATS)}")
    if out == STDOUT:
        if kind == "parquet":
            raise UsageError("parquet cannot go to standard output; name a file with -o")
        return
    # os.path says False where pathlib raises, as for a name that is too long
    exists = os.path.lexists(out)
    if exists and not os.path.isfile(out):  # noqa: PTH113
        raise OutputError(f"{printable(out)} is a folder or device; name a file with -o")
    if exists and not force:
        raise OutputError(f"{printable(out)} exists; name another file or add --force")
    parent = out.absolute().parent
    if not os.path.isdir(parent):  # noqa: PTH112
        raise OutputError(f"the folder {printable(parent)} does not exist; make it")
    if kind == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise UsageError(
                "parquet needs pyarrow: pip install 'xray-classifier[parquet]'"
            ) from error


def write_rows(out: Path, kind: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a table whole or not at all.

    Args:
        out: Final name, or `-` for standard output.
        kind: csv, jsonl or parquet.
        columns: Names, in order.
        rows: As long as `columns` each.
    """
    if out == STDOUT:
        for line in _lines(kind, columns, rows):
            sys.stdout.write(encodable(line, sys.stdout))
        sys.stdout.flush()
        return
    with atomic_file(out) as file:
        if kind == "parquet":
            _write_parquet(file, columns, rows)
            return
        for line in _lines(kind, columns, rows):
            file.write(line.encode("utf-8", "backslashreplace"))


def _lines(kind: str, columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    if kind == "csv":
        yield csv_row(columns)
        yield from (csv_row(row) for row in rows)
        return
    for row in rows:
        values = [printable(v) if isinstance(v, str) else v for v in row]
        yield to_json(dict(zip(columns, values, strict=True))) + "\n"


def _write_parquet(file: IO[bytes], columns: Sequence[str], rows: Iterable[Row]) -> None:
    import pandas

    texts = ("path", "status", "reason", "decision", "in_training")
    lines = [tuple(printable(v) if isinstance(v, str) else v for v in row) for row in rows]
    frame = pandas.DataFrame(lines, columns=list(columns))
    frame = frame.astype({c: "string" if c in texts else "float64" for c in columns})
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    file.write(buffer.getvalue())


def _say_the_end(
    terminal: Terminal, classifier: Classifier, result: PredictionResult, counts: Counter[str]
) -> None:
    if classifier.task == "classify":
        n_healthy = result.ok - result.sick - result.referred
        parts = [f"{result.sick:,} sick", f"{n_healthy:,} healthy"]
        if classifier.refer is not None:
            parts.append(f"{result.referred:,} referred to a person")
        told = " and ".join([", ".join(parts[:-1]), parts[-1]])
        terminal.say(f"{result.ok:,} scored: {told} at threshold {classifier.threshold:.3g}")
        if classifier.prevalence is not None:
            terminal.say(
                f"note: p_at_prevalence is for {classifier.prevalence:g} sick; {LABEL_SHIFT}"
            )
    else:
        terminal.say(f"{result.ok:,} scored")
    if result.failed or result.rejected:
        reasons = ", ".join(
            f"{key.removeprefix('reason ')}: {count}"
            for key, count in sorted(counts.items())
            if key.startswith("reason ") and count
        )
        terminal.warn(f"{result.failed:,} failed and {result.rejected:,} rejected ({reasons})")
    if classifier.memory is None:
        terminal.say(
            "note: this copy of the model remembers no training images (in_training: empty)"
        )
    known, alike = counts["seen yes"], counts["seen possible"]
    if known:
        terminal.warn(f"{known:,} of {result.ok:,} images were in this model's training data")
    if alike:
        terminal.say(
            f"note: {alike:,} of {result.ok:,} images may have been in this model's training data: "
            "they look like images of it (in_training: possible)"
        )
    if str(result.out) != "-":
        terminal.say(f"written to {printable(result.out)}")
