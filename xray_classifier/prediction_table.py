"""A table of predictions as CSV, JSON lines or Parquet: row by row, whole or not at all.

A name stands in JSON lines exactly as the system has it: bytes that are no UTF-8 as lone
surrogates, which `os.fsencode` turns back. CSV and Parquet show such bytes escaped, and CSV puts a
quote before text that a spreadsheet would execute.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from xray_classifier.errors import OutputError, UsageError
from xray_classifier.files import atomic_file, csv_row
from xray_classifier.terminal import encodable

FORMATS = ("csv", "jsonl", "parquet")
STDOUT = Path("-")
NUMBERS = ("p_sick", "threshold", "p_raw", "logit", "p_at_prevalence", "prediction", "ood_score")
PARQUET_ROWS = 2**14
FLUSH_S = 0.5

Row = tuple[Any, ...]


def format_of(out: Path, asked: str | None) -> str:
    """csv, jsonl or parquet: as asked, else by the ending of the name.

    Raises:
        UsageError: It is none of them, or Parquet for standard output, or pyarrow is missing.
    """
    kind = asked or {".jsonl": "jsonl", ".parquet": "parquet"}.get(out.suffix, "csv")
    if kind not in FORMATS:
        raise UsageError(f"--format {kind}: must be one of {', '.join(FORMATS)}")
    if kind == "parquet":
        if out == STDOUT:
            raise UsageError("parquet cannot go to standard output; name a file with -o")
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise UsageError(
                "parquet needs pyarrow: pip install 'xray-classifier[parquet]'"
            ) from error
    return kind


def write_rows(out: Path, kind: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a table: to a file whole or not at all, to standard output as the rows come.

    Args:
        out: Final name, or `-` for standard output.
        kind: csv, jsonl or parquet.
        columns: Names, in order.
        rows: As long as `columns` each; text, numbers and None.

    Raises:
        OutputError: The file cannot be written.
    """
    if out == STDOUT:
        _print_lines(_lines(kind, columns, rows))
        return
    with atomic_file(out) as file:
        if kind == "parquet":
            _write_parquet(file, columns, rows)
            return
        for line in _lines(kind, columns, rows):
            file.write(line.encode("utf-8", "backslashreplace"))


def _print_lines(lines: Iterable[str]) -> None:
    flushed_s = 0.0
    for line in lines:
        _print(line)
        if time.monotonic() - flushed_s > FLUSH_S:
            _print("", flush=True)
            flushed_s = time.monotonic()
    _print("", flush=True)


def _print(text: str, flush: bool = False) -> None:
    """Write to standard output; a reader that left is no error.

    Raises:
        OutputError: It cannot be written, as on a full disk.
    """
    try:
        sys.stdout.write(encodable(text, sys.stdout))
        if flush:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def _lines(kind: str, columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    if kind == "csv":
        yield csv_row(columns)
        yield from (csv_row(row) for row in rows)
        return
    for row in rows:
        yield json.dumps(dict(zip(columns, row, strict=True)), allow_nan=False) + "\n"


def _write_parquet(file: IO[bytes], columns: Sequence[str], rows: Iterable[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = {name: pyarrow.float64() if name in NUMBERS else pyarrow.string() for name in columns}
    schema = pyarrow.schema(list(kinds.items()))
    rows = iter(rows)
    with parquet.ParquetWriter(file, schema) as writer:
        while part := list(islice(rows, PARQUET_ROWS)):
            values = {
                name: [_utf8(row[place]) for row in part] for place, name in enumerate(columns)
            }
            writer.write_table(pyarrow.table(values, schema))


def _utf8(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode()
