"""Building a cache entry so that a killed build goes on where it was.

A build works in `.KEY.partial`, which only the owner of `.KEY.lock` touches. Each window of images
is written and forced to disk, then noted in `windows.jsonl` with its checksum; the next build takes
the windows whose checksums hold and decodes the others. A complete folder is renamed to KEY, so
that an entry under its own name is always whole.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from xray_classifier.data.cache_entry import (
    Part,
    WindowRecord,
    is_current,
    new_checksum,
    parts_of,
    sealed,
    unsealed,
    verified,
    windows,
    write_index,
)
from xray_classifier.data.signature import SIGNATURE, Decoded
from xray_classifier.errors import DecodeError, OutputError
from xray_classifier.files import printable, sync_folder, write_bytes
from xray_classifier.pseudonyms import key_id

JOURNAL_NAME = "windows.jsonl"
TOLD_EVERY = 32  # images

Progress = Callable[[int, int], None]
Films = Callable[[Sequence[int]], Generator[Decoded, None, None]]


def partial_folder(entry: Path) -> Path:
    """Where an entry is built."""
    return entry.with_name(f".{entry.name}.partial")


def lock_of(entry: Path) -> Path:
    """What the builder of an entry owns."""
    return entry.with_name(f".{entry.name}.lock")


def build_entry(
    entry: Path,
    n_images: int,
    size: int,
    films: Films,
    *,
    unchanged: Callable[[], bool],
    workers: int,
    progress: Progress | None,
) -> bool:
    """Decode what no earlier build has, and give the entry its name. Own the lock meanwhile.

    Args:
        entry: The finished entry; nothing stands there.
        n_images: How many images.
        size: Their side in pixels.
        films: Gives the images of some rows, in order.
        unchanged: Asked after the last image: whether the entry still describes the data.
        workers: Threads that verify an earlier build.
        progress: Called with (done, total) now and then.

    Returns:
        False if the data changed meanwhile; then nothing is left behind.

    Raises:
        OutputError: The disk is full or cannot be written; whole windows are kept.
    """
    building = partial_folder(entry)
    parts = parts_of(n_images, size)
    records: dict[int, WindowRecord] = {}
    try:
        building.mkdir(mode=0o700, exist_ok=True)
        records |= _earlier(building, parts, workers)
        _fill(building, parts, films, records, progress)
        if not unchanged():
            records.clear()
            return False
        _publish(building, entry, records)
    except OSError as error:
        raise OutputError(_cannot_cache(entry.parent, error)) from error
    finally:
        if not records:
            shutil.rmtree(building, ignore_errors=True)
    return True


def _cannot_cache(folder: Path, error: OSError) -> str:
    return (
        f"cannot write decoded images to {printable(folder)}: {error.strerror}; "
        "free some space or name another folder with data.cache=DIR"
    )


def rows_done(entry: Path, n_images: int) -> int:
    """How many images another process has decoded for an entry that it is building."""
    every = windows(n_images)
    numbers = {record.number for record in _journal(partial_folder(entry))}
    return sum(len(every[number]) for number in numbers if number < len(every))


def _journal(building: Path) -> list[WindowRecord]:
    """Windows that an earlier build noted; a line that is torn or damaged is passed over."""
    try:
        lines = (building / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    return [WindowRecord(**content) for line in lines if (content := unsealed(line)) is not None]


def _earlier(building: Path, parts: Sequence[Part], workers: int) -> dict[int, WindowRecord]:
    """The windows of an earlier build that can be used, after the arrays have header and size."""
    noted = _journal(building)
    for part in parts:
        path = building / part.name
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(part.file_bytes)
            file.write(part.header)
    usable = {r.number: r for r in noted if is_current(r.key)}
    found = verified(building, parts, sorted(usable), workers)
    kept = {
        number: usable[number]
        for number, checksum in zip(sorted(usable), found, strict=True)
        if checksum == usable[number].checksum
    }
    if noted:  # lines to come must not be joined to a torn one
        write_bytes(building / JOURNAL_NAME, b"".join(map(_line, kept.values())))
    return kept


def _line(record: WindowRecord) -> bytes:
    return sealed(
        {
            "number": record.number,
            "checksum": record.checksum,
            "reasons": record.reasons,
            "key": record.key,
        }
    )


def _fill(
    building: Path,
    parts: Sequence[Part],
    films: Films,
    records: dict[int, WindowRecord],
    progress: Progress | None,
) -> None:
    """Decode the windows that `records` lacks, and note each there when it is safely on disk."""
    n_images = parts[0].shape[0]
    every = windows(n_images)
    missing = [number for number in range(len(every)) if number not in records]
    rows = [row for number in missing for row in every[number]]
    with contextlib.ExitStack() as stack:
        arrays = [stack.enter_context((building / part.name).open("r+b")) for part in parts]
        journal = stack.enter_context((building / JOURNAL_NAME).open("ab"))
        stream = stack.enter_context(contextlib.closing(films(rows)))
        told = _told(stream, n_images - len(rows), n_images, progress)
        for number in missing:
            record = _write_window(arrays, parts, number, every[number], told)
            for array in arrays:
                _force(array)
            journal.write(_line(record))
            _force(journal)
            records[number] = record


def _force(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _told(
    films: Iterator[Decoded], before: int, n_images: int, progress: Progress | None
) -> Iterator[Decoded]:
    """Films as they come, with progress told; `before` images were there already."""
    for done, film in enumerate(films, before + 1):
        if progress is not None and (done % TOLD_EVERY == 0 or done == n_images):
            progress(done, n_images)
        yield film


def _write_window(
    arrays: Sequence[IO[bytes]],
    parts: Sequence[Part],
    number: int,
    rows: range,
    films: Iterator[Decoded],
) -> WindowRecord:
    """Write one window by plain writes: a full disk is an error, not a crash."""
    for array, part in zip(arrays, parts, strict=True):
        array.seek(part.place(rows.start))
    reasons: dict[str, str] = {}
    signatures = np.zeros(len(rows), SIGNATURE)
    blank = bytes(parts[0].row_bytes)
    state = new_checksum()
    for row in rows:
        film = next(films)
        if isinstance(film, DecodeError):
            reasons[str(row)] = f"{film.reason}\n{film.detail}"
            content = blank
        else:
            signatures[row - rows.start] = film.signature[0]
            content = film.pixels.tobytes()
        arrays[0].write(content)
        state.update(content)
    arrays[1].write(signatures.tobytes())
    state.update(signatures.tobytes())
    key = key_id() if signatures["patient"].any() else None
    return WindowRecord(number, state.hexdigest(), reasons, key)


def _publish(building: Path, entry: Path, records: dict[int, WindowRecord]) -> None:
    write_index(building, [records[number] for number in sorted(records)])
    building.rename(entry)
    sync_folder(entry.parent)
    # Only now, for a build killed before the rename still needs it.
    with contextlib.suppress(OSError):
        (entry / JOURNAL_NAME).unlink()
