"""The table that `predict` is to write: may it be, by whom, and what is kept beside it."""

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xray_classifier.company import Company
from xray_classifier.errors import OutputError, UsageError
from xray_classifier.files import printable, write_refusal
from xray_classifier.locks import if_free
from xray_classifier.prediction_facts import is_meta, meta_path
from xray_classifier.prediction_options import Prediction
from xray_classifier.row_store import (
    WRITING,
    RowStore,
    answers_for,
    beside,
    remove_leftovers,
    state_of,
    stores_beside,
)
from xray_classifier.terminal import Terminal


def studies_path(out: Path) -> Path:
    """Where the table per study stands: predictions.studies.csv for predictions.csv."""
    return out.with_name(f"{out.stem}.studies.csv")


@contextmanager
def owned(out: Path, how: Prediction, ranks: Company) -> Iterator[None]:
    """Own a table while the block runs, once it is clear that it may be written.

    Raises:
        OutputError: It exists, cannot be written, or another process writes it.
    """
    if not ranks.first:
        ranks.told("owned", "")
        yield
        return
    _check_place(out)
    with if_free(beside(out, "lock")) as free:
        if not free:
            raise OutputError(
                f"another process writes {printable(out)}; wait until it is done, or stop it"
            )
        _check_replaced(out, how)
        remove_leftovers(out)
        ranks.told("owned", "yes")
        yield


def own_files(out: Path) -> tuple[Path, ...]:
    """The table, the table per study and the facts beside it."""
    return out, studies_path(out), meta_path(out)


def _check_place(out: Path) -> None:
    # os.path says False where pathlib raises, as for a name that is too long
    if os.path.lexists(out) and not os.path.isfile(out):  # noqa: PTH113
        raise OutputError(f"{printable(out)} is a folder or device; name a file with -o")
    parent = out.absolute().parent
    if not os.path.isdir(parent):  # noqa: PTH112
        raise OutputError(f"the folder {printable(parent)} does not exist; make it")
    try:
        out.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(write_refusal(out, error)) from error


def _check_replaced(out: Path, how: Prediction) -> None:
    """Refuse to replace what is there, unless that was asked for or it is of the same job."""
    meta, rows = meta_path(out), beside(out, "rows")
    going_on = state_of(rows) == WRITING
    ours = going_on or (how.only_new and (rows.exists() or is_meta(meta, out)))
    if how.force or ours:
        return
    if os.path.lexists(out):
        more = "; --only-new replaces its own tables only" if how.only_new else ""
        raise OutputError(f"{printable(out)} exists; name another file or add --force{more}")
    others = [studies_path(out)] if how.study else []
    if os.path.lexists(meta) and not is_meta(meta):
        others.append(meta)
    for other in others:
        if os.path.lexists(other):
            raise OutputError(f"{printable(other)} exists; name another file or add --force")


def opened_store(
    out: Path, key: Mapping[str, Any], how: Prediction, terminal: Terminal, ranks: Company
) -> RowStore:
    """The rows beside a table that answer the same question, and a file to add more.

    Args:
        out: The table.
        key: What decides the answers.
        how: What was asked for.
        terminal: Told when rows are of no use any more.
        ranks: Processes that share out the job.

    Raises:
        UsageError: Another process of the job has another model, key of hashes or library.
        OutputError: The rows cannot be read or written.
    """
    own_key = json.dumps(key, sort_keys=True)
    if ranks.told("question", own_key) != own_key:
        raise UsageError(
            "the processes of this job differ in their model, libraries or patient.key; they must "
            "be the same on every machine"
        )
    if ranks.first:
        _discard_others(out, key, how, terminal)
    first = beside(out, "rows").name
    own = [first, *(f"{first}.{rank}" for rank in range(1, ranks.size))]
    found = [path.name for path in stores_beside(out)] if ranks.first else []
    names = json.loads(ranks.told("stores", json.dumps(own + sorted(set(found) - set(own)))))
    store = RowStore([out.with_name(name) for name in names], ranks.rank, key)
    ranks.arrive("opened")
    ranks.told("all opened", "go on")  # rows added before that would look like old ones
    return store


def _discard_others(out: Path, key: Mapping[str, Any], how: Prediction, terminal: Terminal) -> None:
    """Remove rows that answer another question."""
    stores = stores_beside(out)
    others = [path for path in stores if not answers_for(path, key)]
    if not others:
        return
    if os.path.lexists(out) and not how.force and not how.only_new:
        raise OutputError(f"{printable(out)} exists; name another file or add --force")
    terminal.say(
        "note: the rows kept from an earlier run are of another model, version or set of options; "
        "every file is scored anew"
    )
    remove_files(others)


def remove_files(paths: Sequence[Path]) -> None:
    """Remove files as far as the system lets us."""
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def gathered_places(places: "array[int]", out: Path, ranks: Company) -> tuple["array[int]", int]:
    """The places of all rows, on rank 0, and how many of them are of an earlier run.

    Args:
        places: Of this rank's share, in order, and behind them how many are of an earlier run.
        out: The table.
        ranks: Processes that share out the job.

    Raises:
        OutputError: A file for them cannot be written or read.
    """
    files = [beside(out, f"order.{rank}") for rank in range(ranks.size)]
    parts = [places]
    if ranks.size > 1:
        parts = _exchanged(places, files, ranks)
    whole, n_reused = array("q"), 0
    for part in parts:
        n_reused += part.pop()
        whole.extend(part)
    return whole, n_reused


def _exchanged(places: "array[int]", files: Sequence[Path], ranks: Company) -> list["array[int]"]:
    own = files[ranks.rank]
    try:
        own.write_bytes(places.tobytes())
        ranks.arrive("scored")
        if not ranks.first:
            return [places]
        parts = [array("q", file.read_bytes()) for file in files]
    except OSError as error:
        raise OutputError(write_refusal(own, error)) from error
    remove_files(files)
    return parts
