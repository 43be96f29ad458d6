"""What a person reads while the program works: lines, and a bar where there is a terminal."""

import contextlib
import os
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

from xray_classifier.errors import OutputError
from xray_classifier.files import printable, write_refusal

HEARTBEAT_S = 30.0


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _empty(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere, or Python would fail on it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


class Advance(Protocol):
    """Moves a bar."""

    def __call__(self, done: int, note: str = "") -> None:
        """Say how many units are done so far, and a word about them."""


class Terminal:
    """Says lines on a stream and keeps them for the run's log.

    Args:
        stream: Where lines go; None is standard output. With `--json` it is standard error. Where
            the stream is closed, as under some services, lines go nowhere.
        quiet: Say nothing on the stream; the log still gets every line.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.stream = stream or sys.stdout or _nowhere()
        self.quiet = quiet
        self._kept: list[str] = []
        self.log: Path | None = None
        self._clear_bar: Callable[[], object] | None = None

    @property
    def interactive(self) -> bool:
        """True where a bar can move: a terminal that is not told to be quiet."""
        return not self.quiet and self.stream.isatty()

    def say(self, text: str = "") -> None:
        """Write one or more lines."""
        if not self.quiet:
            shown = self._fitted(text)
            if self._clear_bar is not None:
                self._clear_bar()
            try:
                self.stream.write(encodable(shown, self.stream) + "\n")
                self.stream.flush()
            except OSError:  # the reader left, as in `| head`, or a disk is full; the work goes on
                self.quiet = True
                _empty(self.stream)
                self.stream = _nowhere()
        self.keep(text)

    def _fitted(self, text: str) -> str:
        """Sentences broken between words where the terminal would break them anywhere.

        Commands to paste stay whole, and so do tables, whose lines begin with a blank.
        """
        if not self.interactive:
            return text
        width = max(shutil.get_terminal_size().columns, 40)
        return "\n".join(_broken(line, width) for line in text.split("\n"))

    def warn(self, text: str) -> None:
        """Write a line that a person should not miss."""
        self.say(f"warning: {text}")

    def log_to(self, path: Path) -> None:
        """Append every line said, so far and from now on, to a file."""
        self.log = path
        kept, self._kept = self._kept, []
        for text in kept:
            self.keep(text)

    def keep(self, text: str) -> None:
        """Write lines to the log alone, or keep them until there is one.

        Raises:
            OutputError: The log cannot be written.
        """
        if self.log is None:
            self._kept.append(text)
            return
        try:
            with self.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text + "\n")
        except OSError as error:
            raise OutputError(write_refusal(self.log, error)) from error

    @contextmanager
    def bar(self, label: str, total: int, unit: str) -> Iterator[Advance]:
        """A bar with rate and time left, gone when the block ends; in a log, a line each 30 s.

        Yields:
            A function that takes the number of units done so far, and perhaps a note.
        """
        if not self.interactive:
            yield self._heartbeat(label, total, unit)
            return
        from tqdm import tqdm

        with tqdm(
            total=total, desc=label, unit=unit, leave=False, file=self.stream, dynamic_ncols=True
        ) as bar:

            def advance(done: int, note: str = "") -> None:
                if note:
                    bar.set_postfix_str(note, refresh=False)
                bar.update(done - bar.n)

            self._clear_bar = bar.clear
            try:
                yield advance
            finally:
                self._clear_bar = None

    def _heartbeat(self, label: str, total: int, unit: str) -> Advance:
        started_s = last_s = time.monotonic()

        def beat(done: int, note: str = "") -> None:
            nonlocal last_s
            if time.monotonic() - last_s >= HEARTBEAT_S:
                last_s = time.monotonic()
                speed = done / (last_s - started_s)
                left = f", {seconds_in_words((total - done) / speed)} left" if speed else ""
                noted = f", {note}" if note else ""
                self.say(
                    f"{label}: {done:,} of {total:,} {unit}, {speed:,.1f} a second{left}{noted}"
                )

        return beat


def _broken(line: str, width: int) -> str:
    if len(line) <= width or line.startswith((" ", "Next: ", "ep ")):
        return line
    return textwrap.fill(
        line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def command(*words: object) -> str:
    """A command to paste into a shell, each word quoted where it must be."""
    return shlex.join(["xray-classifier", *(printable(word) for word in words)])


def encodable(text: str, stream: TextIO) -> str:
    """The text with what a stream's encoding lacks shown escaped."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def seconds_in_words(seconds: float) -> str:
    """A duration as a person would say it: 4.1s, 52s, 3m20s, 2h05m."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
