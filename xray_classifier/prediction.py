"""`predict`: one row per file, in order, whatever is wrong with the file.

Rows are kept beside the table as they are made, and the table appears whole when the last one is
there: the same command after an interruption scores only what is missing. Started by torchrun, each
process scores a share of the files, and the first one writes the table.
"""

import json
import os
import tempfile
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from xray_classifier import __version__
from xray_classifier.answers import OK
from xray_classifier.classifier import Classifier, load_classifier
from xray_classifier.company import Company, company
from xray_classifier.data.inputs import Item, Listing, items_of
from xray_classifier.data.tree import Tree
from xray_classifier.errors import (
    DataError,
    InterruptedRun,
    OutputError,
    TerminatedRun,
    UsageError,
)
from xray_classifier.fast_decoding import least_px
from xray_classifier.files import without_nan, write_refusal
from xray_classifier.prediction_facts import (
    PredictionResult,
    Tally,
    meta_path,
    model_facts,
    now,
    say_the_end,
    write_meta,
)
from xray_classifier.prediction_options import Prediction, require_key
from xray_classifier.prediction_output import (
    gathered_places,
    opened_store,
    own_files,
    owned,
    remove_files,
    studies_path,
)
from xray_classifier.prediction_table import STDOUT, format_of, write_rows
from xray_classifier.pseudonyms import key_id
from xray_classifier.row_store import (
    NO_STAMP,
    WRITING,
    WRITTEN,
    RowStore,
    beside,
    stamp_of,
    stores_beside,
)
from xray_classifier.scoring import Decoder, Job, Row, Scorer, decoder_of
from xray_classifier.signals import signal_of
from xray_classifier.studies import Studies
from xray_classifier.terminal import Advance, Terminal

__all__ = ["Prediction", "PredictionResult", "run_prediction"]

PLAIN = Prediction()


def run_prediction(
    path: Path, inputs: Sequence[Path], out: Path, terminal: Terminal, how: Prediction = PLAIN
) -> PredictionResult:
    """Score files and folders, and write one row per file.

    Args:
        path: A checkpoint or a run folder.
        inputs: Files, folders, `@` lists of files, and CSV files with a column `path`.
        out: The table; `-` is standard output.
        terminal: What the user reads.
        how: What else was asked for.

    Raises:
        UsageError: An input does not exist, or options exclude each other.
        DataError: There is no file at all, or a list of files cannot be read.
        OutputError: `out` exists, is being written by another process, or cannot be written.
        InterruptedRun: A signal came; rows so far are kept.
    """
    kind = format_of(out, how.file_format)
    if how.hash_names or how.patient:
        require_key()
    with company() as ranks:
        if out == STDOUT:
            if ranks.size > 1 or how.only_new:
                raise UsageError(
                    f"{'--only-new keeps' if how.only_new else 'several processes keep'} rows "
                    "beside the table; name a file with -o"
                )
            return _to_stdout(path, inputs, kind, terminal, how)
        said = terminal if ranks.first else Terminal(quiet=True)
        with owned(out, how, ranks), _kept_when_interrupted():
            return _Batch(path, inputs, out, kind, said, how, ranks).run()


def _to_stdout(
    path: Path, inputs: Sequence[Path], kind: str, terminal: Terminal, how: Prediction
) -> PredictionResult:
    """Rows as they come; nothing is kept."""
    with Listing(tempfile.TemporaryFile()) as listing:
        tree = _list_inputs(listing, inputs, how, terminal)
        classifier = load_classifier(path, how.device, how.threshold, how.prevalence)
        _say_inputs(terminal, len(listing), tree)
        scorer = _scorer_of(classifier, how)
        tally, started_s = Tally(scorer.columns), time.monotonic()
        with terminal.bar("predicting", len(listing), "file") as bar:
            rows = _shown(bar, tally, tally.passing(_rows(listing, scorer, how)))
            write_rows(STDOUT, kind, scorer.columns, rows)
    result = tally.result(STDOUT, None, 0, how)
    say_the_end(terminal, classifier, result, tally, time.monotonic() - started_s)
    terminal.say(f"Next: {how.next_command(path)}")
    return result


def _scorer_of(classifier: Classifier, how: Prediction) -> Scorer:
    return Scorer(
        classifier,
        how.patient,
        how.study,
        classifier.gate_of(how.gate),
        intended_use=None if how.gate == "off" else classifier.intended_use,
        refuses=how.gate == "refuse",
    )


def _rows(listing: Listing, scorer: Scorer, how: Prediction) -> Iterator[Row]:
    jobs = (
        Job(place, item.name, how.row_name(item.name), item.reason, NO_STAMP)
        for place, item in enumerate(listing.items(slice(None)))
    )
    with decoders(scorer.classifier, how) as (decoder, in_full):
        for window in scorer.scored(decoder, jobs, in_full):
            yield from (row for _, row in window)


@contextmanager
def decoders(classifier: Classifier, how: Prediction) -> Iterator[tuple[Decoder, Decoder | None]]:
    """What decodes all files, and what decodes some of them again; see `Scorer.scored`."""
    if not how.fast:
        with decoder_of(classifier, how.workers, how.isolate) as decoder:
            yield decoder, None
        return
    with (
        decoder_of(classifier, how.workers, how.isolate, least_px(classifier)) as quick,
        decoder_of(classifier, 1, how.isolate) as in_full,
    ):
        yield quick, in_full


def _shown(bar: Advance, tally: Tally, rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        bar(tally.n, _not_ok(tally.n - tally.count("status", OK)))
        yield row


def _not_ok(count: int) -> str:
    return f"{count:,} not ok" if count else ""


def _list_inputs(
    listing: Listing,
    inputs: Sequence[Path],
    how: Prediction,
    terminal: Terminal,
    own: Sequence[Path] = (),
) -> Tree:
    """Write down every file that the arguments mean, and say what was passed over.

    What the command itself writes, `own`, is no input, also where it lies in a folder of these.

    Raises:
        UsageError: An argument does not exist.
        DataError: There is no file at all.
    """
    tree = Tree()
    follow = how.follow_symlinks
    found = items_of(inputs, tree, follow_links=follow, shown=how.shown)
    ours = {os.path.abspath(path) for path in own}  # noqa: PTH100 - keeps links as they are
    listing.extend(item for item in found if os.path.abspath(item.name) not in ours)  # noqa: PTH100
    listing.count()
    for note in tree.skipped():
        terminal.warn(note)
    if not len(listing):
        raise DataError(f"no file in {', '.join(map(how.shown, inputs))}")
    return tree


def _say_inputs(terminal: Terminal, n_files: int, tree: Tree) -> None:
    n_hidden = tree.hidden.total()
    hidden = f", {n_hidden:,} hidden ones passed over" if n_hidden else ""
    terminal.say(f"{n_files:,} files{hidden}")


@contextmanager
def _kept_when_interrupted() -> Iterator[None]:
    """Tell of an interruption that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt as error:
        name = signal_of(error)
        kind = InterruptedRun if name == "SIGINT" else TerminatedRun
        raise kind(
            f"{name}: stopped; the rows so far are kept, and the same command goes on from there"
        ) from error


class _Batch:
    """One table from its inputs; see `run_prediction` for the arguments."""

    def __init__(
        self,
        path: Path,
        inputs: Sequence[Path],
        out: Path,
        kind: str,
        terminal: Terminal,
        how: Prediction,
        ranks: Company,
    ) -> None:
        self._path, self._inputs, self._out, self._kind = path, inputs, out, kind
        self._terminal, self._how, self._ranks = terminal, how, ranks
        self._started, self._started_s = now(), time.monotonic()
        self._tree = Tree()
        self._reused = 0

    def run(self) -> PredictionResult:
        """Score what is not scored yet, then write the table and what goes with it."""
        how = self._how
        with self._shared_listing() as listing:
            classifier = load_classifier(self._path, how.device, how.threshold, how.prevalence)
            _say_inputs(self._terminal, len(listing), self._tree)
            scorer = _scorer_of(classifier, how)
            key = _question(scorer, how)
            store = opened_store(self._out, key, how, self._terminal, self._ranks)
            try:
                places = self._score(listing, scorer, store)
                result = self._write(scorer, store, places) if self._ranks.first else None
            finally:
                store.close()
        told = self._ranks.told("result", json.dumps(result and asdict(result)))
        if self._ranks.first and not how.only_new:
            remove_files(stores_beside(self._out))
        return PredictionResult(**json.loads(told))

    @contextmanager
    def _shared_listing(self) -> Iterator[Listing]:
        """The files to score, listed once, by rank 0: a folder may change while it is read."""
        if self._ranks.size == 1:
            with Listing(tempfile.TemporaryFile()) as listing:
                self._tree = _list_inputs(
                    listing, self._inputs, self._how, self._terminal, own_files(self._out)
                )
                yield listing
            return
        shared = beside(self._out, "list")
        if not self._ranks.first:
            self._ranks.told("listing", "")
        with Listing(_private_file(shared, new=self._ranks.first)) as listing:
            if self._ranks.first:
                self._tree = _list_inputs(
                    listing, self._inputs, self._how, self._terminal, own_files(self._out)
                )
                self._ranks.told("listing", "written")
            listing.count()
            self._ranks.arrive("listed")
            remove_files([shared] if self._ranks.first else [])
            yield listing

    def _score(self, listing: Listing, scorer: Scorer, store: RowStore) -> "array[int]":
        """The places of all rows, on rank 0; this process scores what is missing of its share."""
        part = self._ranks.share(len(listing))
        places = array("q", bytes(8 * (part.stop - part.start)))
        with (
            self._terminal.bar("predicting", len(places), "file") as bar,
            decoders(scorer.classifier, self._how) as (decoder, in_full),
        ):
            jobs = self._missing(listing.items(part), store, places)
            done = not_ok = 0
            for window in scorer.scored(decoder, jobs, in_full):
                rows = ((job.name, job.stamp, row[1:]) for job, row in window)
                for (job, row), place in zip(window, store.add(rows), strict=True):
                    places[job.index] = place
                    not_ok += row[1] != OK
                done += len(window)
                bar(done + self._reused, _not_ok(not_ok))
        places.append(self._reused)
        whole, self._reused = gathered_places(places, self._out, self._ranks)
        return whole

    def _missing(
        self, items: Iterable[Item], store: RowStore, places: "array[int]"
    ) -> Iterator[Job]:
        """Files without a row; the places of the others are noted."""
        for index, item in enumerate(items):
            name = self._how.row_name(item.name)
            stamp = NO_STAMP if item.reason else stamp_of(item.name)
            found = store.find(name, stamp)
            if found is None:
                yield Job(index, item.name, name, item.reason, stamp)
            else:
                places[index] = found
                self._reused += 1

    def _write(self, scorer: Scorer, store: RowStore, places: "array[int]") -> PredictionResult:
        """The table, the table per study, and the facts."""
        tally = Tally(scorer.columns)
        studies = Studies(scorer.columns) if self._how.study else None
        store.note(WRITING)
        rows = tally.passing(store.row(place) for place in places)
        write_rows(self._out, self._kind, scorer.columns, _added(studies, rows))
        if studies is not None:
            write_rows(studies_path(self._out), "csv", studies.columns, studies.rows())
        result = tally.result(self._out, meta_path(self._out), self._reused, self._how)
        write_meta(
            scorer.classifier, result, tally, self._tree,
            kind=self._kind, checkpoint=self._path, started=self._started,
            command=self._how.typed(self._inputs), how=self._how,
        )  # fmt: skip
        store.note(WRITTEN)
        if self._how.only_new:
            store.compact(places)
        elapsed_s = time.monotonic() - self._started_s
        say_the_end(self._terminal, scorer.classifier, result, tally, elapsed_s)
        self._terminal.say(f"Next: {self._how.next_command(self._path)}")
        return result


def _private_file(path: Path, new: bool) -> IO[bytes]:
    """A file that holds names, for its owner alone.

    Raises:
        OutputError: It cannot be opened.
    """
    try:
        if not new:
            return path.open("rb")
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        return os.fdopen(descriptor, "w+b")
    except OSError as error:
        raise OutputError(write_refusal(path, error)) from error


def _added(studies: Studies | None, rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        if studies is not None:
            studies.add(row)
        yield row


def _question(scorer: Scorer, how: Prediction) -> Mapping[str, Any]:
    """All that decides the answers to a file, apart from the file."""
    question = {
        "version": __version__,
        "model": model_facts(scorer.classifier),
        "columns": list(scorer.columns),
        "names": key_id() if how.hash_names or how.patient else None,
        "hash_names": how.hash_names,
        "gate": how.gate,
        "fast": how.fast,
    }
    plain: Mapping[str, Any] = without_nan(question)
    return plain
