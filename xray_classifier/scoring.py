"""Files to rows: decoded ahead, answered window by window, in order."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from xray_classifier.classifier import Classifier, GateOf
from xray_classifier.data.dicom_identity import Identity, identity_of
from xray_classifier.data.dicom_scope import require_in_scope
from xray_classifier.data.isolation import DecodingPool
from xray_classifier.data.patients import SCHEMES, patient_of
from xray_classifier.data.preparing import decode_in_order
from xray_classifier.data.signature import Decoded, from_dicom
from xray_classifier.errors import DecodeError
from xray_classifier.fast_decoding import hangs_on_details
from xray_classifier.inference import INFERENCE_ROWS
from xray_classifier.pseudonyms import pseudonym
from xray_classifier.row_store import Stamp

AHEAD_PER_WORKER = 64
MOST_UNREAD = 4096
"""Files in a row that need not be read, before those that are decoded meanwhile are answered."""

WINDOWS_AHEAD = 2
FIRST_WINDOW = 16
"""Files answered at first, so that the first rows come soon; windows grow to INFERENCE_ROWS."""

Row = tuple[Any, ...]


class Decoder(Protocol):
    """What turns files into films, ahead of being asked."""

    def decoded(self, paths: Iterable[Path]) -> Generator[Decoded, None, None]:
        """Films of files, or why there is none, in the order of the files."""


@dataclass(frozen=True)
class Threads:
    """A decoder that works in threads of this process, which a broken decoder takes down with it.

    Args:
        attempt: Makes a film of a file.
        workers: Threads.
    """

    attempt: Callable[[Path], Decoded]
    workers: int

    def decoded(self, paths: Iterable[Path]) -> Generator[Decoded, None, None]:
        """Films of files, or why there is none, in the order of the files."""
        return decode_in_order(self._film, paths, self.workers, AHEAD_PER_WORKER * self.workers)

    def _film(self, path: Path) -> Any:
        return self.attempt(path)


@contextmanager
def decoder_of(
    classifier: Classifier, workers: int | None, isolate: bool, least_px: int | None = None
) -> Iterator[Decoder]:
    """A decoder for what a model sees.

    Args:
        classifier: Whose preprocessing is done.
        workers: How many files at a time; None: one per core.
        isolate: In processes of their own, so that no file can take this one down.
        least_px: See `read_film`.
    """
    # of several processes on a machine each takes its part of the cores
    n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = workers or max(1, (os.cpu_count() or 1) // n_local)
    if not isolate:
        yield Threads(partial(classifier.attempt, least_px=least_px), workers)
        return
    with DecodingPool(classifier.content["image"], workers, least_px=least_px) as pool:
        yield pool


@dataclass(frozen=True)
class Job:
    """One file to score.

    Attributes:
        index: Its place in the listing.
        path: What is read.
        name: What its row says.
        reason: Why it is not read; `` where it is.
        stamp: Of the file, before it is read.
    """

    index: int
    path: str
    name: str
    reason: str
    stamp: Stamp


@dataclass(frozen=True)
class Scorer:
    """Makes rows of files.

    Attributes:
        classifier: What answers.
        patient: Add the column `patient`.
        study: Add the columns `study_uid` and `sop_uid`.
        gate_of: See `Classifier.rows`.
        intended_use: What DICOM headers are held against; None: nothing.
        refuses: Whether the gate refuses images rather than telling of them.
    """

    classifier: Classifier
    patient: bool = False
    study: bool = False
    gate_of: GateOf | None = None
    intended_use: Mapping[str, Any] | None = None
    refuses: bool = False
    _readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the rows."""
        patient = ("patient",) if self.patient else ()
        study = ("study_uid", "sop_uid") if self.study else ()
        return (*self.classifier.columns, *patient, *study)

    def scored(
        self, decoder: Decoder, jobs: Iterable[Job], in_full: Decoder | None = None
    ) -> Iterator[list[tuple[Job, Row]]]:
        """Rows of files, window by window, in order.

        Jobs are read by another thread, a bounded number ahead.

        Args:
            decoder: What decodes them.
            jobs: The files.
            in_full: What decodes those again whose row could be another one if decoded in full;
                None where `decoder` does so.
        """
        for window in _prefetched(_windows(_films(decoder, jobs))):
            found = [job for job, _ in window]
            films = self._in_scope(window)
            rows = self._rows(found, films)
            if in_full is not None:
                rows = self._made_sure(found, films, rows, in_full)
            more = self._more(found, films)
            yield [
                (job, _plain((*row, *extra)))
                for job, row, extra in zip(found, rows, more, strict=True)
            ]

    def _rows(self, jobs: Sequence[Job], films: Sequence[Decoded]) -> list[Row]:
        return self.classifier.rows([job.name for job in jobs], films, self.gate_of)

    def _made_sure(
        self, jobs: Sequence[Job], films: Sequence[Decoded], rows: list[Row], in_full: Decoder
    ) -> list[Row]:
        """The same rows, those that hang on details from films decoded in full."""
        doubtful = [
            place
            for place, (film, row) in enumerate(zip(films, rows, strict=True))
            if not isinstance(film, DecodeError)
            and hangs_on_details(row, self.classifier, self.refuses)
        ]
        again = [jobs[place] for place in doubtful]
        with closing(in_full.decoded(Path(job.path) for job in again)) as whole:
            better = self._rows(again, list(whole))
        for place, row in zip(doubtful, better, strict=True):
            rows[place] = row
        return rows

    def _in_scope(self, window: "Window") -> list[Decoded]:
        """The films, without those that a DICOM header says the model is not meant for."""
        if self.intended_use is None:
            return [film for _, film in window]
        check = partial(_scoped, self.intended_use)
        return list(self._readers.map(check, window))

    def _more(self, jobs: Sequence[Job], films: Sequence[Decoded]) -> list[Row]:
        if not self.patient and not self.study:
            return [()] * len(jobs)
        identities = list(self._readers.map(_identity, jobs))
        return [
            (*self._patient(job, identity), *((identity[1:]) if self.study else ()))
            for job, identity in zip(jobs, identities, strict=True)
        ]

    def _patient(self, job: Job, identity: Identity) -> tuple[str, ...]:
        if not self.patient:
            return ()
        return (identity.patient or pseudonym(self._named_patient(job.path) or ""),)

    def _named_patient(self, path: str) -> str | None:
        """The patient that a path names by the pattern or the scheme of the training data."""
        pattern = (self.classifier.content.get("data") or {}).get("patient")
        if not isinstance(pattern, str) or pattern == "dicom":
            return None
        posix = path.replace(os.sep, "/")
        names = SCHEMES if pattern == "auto" else {pattern: SCHEMES.get(pattern, ())}
        schemes = [one for scheme in names.values() for one in scheme]
        if not schemes:
            return patient_of(posix, pattern)
        name = posix.rpartition("/")[2]
        return next((hit for one in schemes if (hit := patient_of(name, f"^{one}"))), None)


Window = list[tuple[Job, Decoded]]


def _scoped(intended_use: Mapping[str, Any], pair: tuple[Job, Decoded]) -> Decoded:
    """A film, or why its header says that the model is not meant for it."""
    job, film = pair
    if isinstance(film, DecodeError) or not from_dicom(film.signature)[0]:
        return film
    try:
        require_in_scope(Path(job.path), intended_use)
    except DecodeError as refusal:
        return refusal
    return film


def _identity(job: Job) -> Identity:
    return Identity() if job.reason else identity_of(Path(job.path))


def _plain(row: Row) -> Row:
    """The row as every format can hold it: no NaN, no infinity."""
    return tuple(None if isinstance(v, float) and not isfinite(v) else v for v in row)


def _films(decoder: Decoder, jobs: Iterable[Job]) -> Iterator[tuple[Job, Decoded]]:
    """Jobs with their films, in order; some of them need not be read to be answered."""
    jobs = iter(jobs)
    ahead: deque[Job] = deque()
    ended = False

    def paths() -> Iterator[Path]:
        nonlocal ended
        for job in jobs:
            ahead.append(job)
            if not job.reason:
                yield Path(job.path)
            elif len(ahead) > MOST_UNREAD:
                return
        ended = True

    while not ended:
        with closing(decoder.decoded(paths())) as films:
            for film in films:
                while ahead[0].reason:
                    yield _unread(ahead.popleft())
                yield ahead.popleft(), film
        while ahead:
            yield _unread(ahead.popleft())


def _unread(job: Job) -> tuple[Job, Decoded]:
    return job, DecodeError(job.reason, "the file was not read")


def _prefetched(windows: Iterator[Window]) -> Iterator[Window]:
    """The same windows, a few of them filled by another thread while the last one is answered."""
    pool = ThreadPoolExecutor(1)
    ahead = deque(pool.submit(next, windows, None) for _ in range(WINDOWS_AHEAD))
    try:
        while (window := ahead.popleft().result()) is not None:
            ahead.append(pool.submit(next, windows, None))
            yield window
    finally:
        # Without waiting: whoever closes the decoder ends what the thread still does.
        pool.shutdown(wait=False, cancel_futures=True)


def _windows(films: Iterable[tuple[Job, Decoded]]) -> Iterator[Window]:
    """Lists of films, short ones at first; answers do not depend on their length."""
    window: Window = []
    size = min(FIRST_WINDOW, INFERENCE_ROWS)
    for film in films:
        window.append(film)
        if len(window) >= size:
            yield window
            window, size = [], min(4 * size, INFERENCE_ROWS)
    if window:
        yield window
