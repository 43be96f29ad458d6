"""One decoding process, as its parent sees it: started, asked, timed, and told why it died."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from xray_classifier import errors
from xray_classifier.data.boundary import REASONS
from xray_classifier.data.isolation_worker import (
    BROKEN,
    FILE,
    FILM,
    HEADER,
    ORDER,
    READY,
    REFUSED,
    WorkOrder,
    frame,
    read_exactly,
)
from xray_classifier.data.signature import SIGNATURE, Prepared
from xray_classifier.errors import DecodeError
from xray_classifier.files import printable

START = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from xray_classifier.data.isolation_worker import main; main()"
)
START_S = 120.0
"""Longest time in seconds from the start of a process to its first word."""

GOODBYE_S = 1.0
"""Time in seconds for a process to end by itself."""

TAIL_BYTES = 4096
MOST_WORDS_BYTES = 65536
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def worker_command() -> list[str]:
    """The command of a worker, which finds its modules where this process does.

    `-P` keeps the working folder out: a `numpy.py` among the films must not be run.
    """
    return [sys.executable, "-P", "-c", START, *import_paths()]


def import_paths() -> list[str]:
    """`sys.path` without the working folder, each entry once, and with that of this package."""
    own = str(Path(__file__).resolve().parents[2])
    found = list(dict.fromkeys(os.path.abspath(entry) for entry in sys.path if entry))  # noqa: PTH100
    return found if own in found else [own, *found]


class WorkerProcess:
    """A process that decodes one file after the other.

    Args:
        command: What to run.
        order: What it is told.

    Attributes:
        stderr_bytes: How much it has written to standard error, which nobody reads.
        tired: Whether it asks to be replaced, for its libraries keep memory.
    """

    def __init__(self, command: Sequence[str], order: WorkOrder) -> None:
        self.stderr_bytes = 0
        self.tired = False
        self._order = order
        self._tail = b""
        self._limit_s: float | None = None
        self._waited_s = 0.0
        self._timed_out = self._put_down = False
        # In a group of its own, so that Ctrl-C in a terminal reaches the parent alone.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
            process_group=0,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def has_started(self) -> bool:
        """Give it the order, and wait until it can decode; False if it cannot."""
        self.send(frame(ORDER, self._order.content()))
        self._limit_s, self._waited_s = START_S, 0.0
        header = read_exactly(self._stdout, HEADER.size)
        self._limit_s = None
        return header is not None and HEADER.unpack(header)[0] == READY

    def send(self, content: bytes) -> None:
        """Tell it something, such as a `request`, which waits for its turn."""
        try:
            self._stdin.write(content)
            self._stdin.flush()
        except OSError:  # it died; `receive` will notice
            return

    def receive(self, wall_s: float | None) -> Prepared | DecodeError | None:
        """The answer to the file that was asked for first; None if the process died on it.

        Args:
            wall_s: Longest time in seconds; kept by whoever calls `pass_time`.

        Raises:
            ImportError: A decoder is not installed as it should be.
        """
        self._waited_s, self._limit_s = 0.0, wall_s
        header = read_exactly(self._stdout, HEADER.size)
        answer = None if header is None else self._answer(*HEADER.unpack(header))
        self._limit_s = None
        return answer

    def _answer(self, kind: bytes, tired: bool, n_bytes: int) -> Prepared | DecodeError | None:
        size = self._order.size
        n_wanted = size * size + SIGNATURE.itemsize
        if n_bytes != n_wanted if kind == FILM else n_bytes > MOST_WORDS_BYTES:
            return None
        content = read_exactly(self._stdout, n_bytes)
        self.tired = tired
        if content is None or kind not in (FILM, REFUSED, BROKEN):
            return None
        if kind == BROKEN:
            raise ImportError(content.tobytes().decode("utf-8", "replace"))
        if kind == REFUSED:
            return _refusal(content.tobytes())
        pixels = np.frombuffer(content, np.uint8, size * size).reshape(size, size)
        return Prepared(pixels, np.frombuffer(content, SIGNATURE, offset=size * size))

    def pass_time(self, seconds: float) -> None:
        """Count time against the limit of the file in work, and end the process beyond it."""
        self._waited_s += seconds
        if self._limit_s is not None and self._waited_s > self._limit_s:
            self._timed_out = True
            self.kill()

    def kill(self) -> None:
        """End it at once; from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End it and let go of all it held; from the thread that reads its answers."""
        with contextlib.suppress(OSError):  # what it was not told any more
            self._stdin.close()
        try:
            self._process.wait(GOODBYE_S)  # it knows best what it died of
        except subprocess.TimeoutExpired:
            self._put_down = True
            self.kill()
            self._process.wait()
        self._listener.join(GOODBYE_S)
        self._stdout.close()
        self._stderr.close()

    def used_up_its_time(self) -> bool:
        """After `close`: whether it computed until it was stopped, so that it would do so again."""
        return self._ended_by("SIGPROF", "SIGXCPU")

    def last_word(self) -> str:
        """After `close`: the last line on standard error. For a process that has read no file."""
        lines = self._tail.decode("utf-8", "replace").strip().splitlines()
        return printable(lines[-1]) if lines else f"exit status {self._process.returncode}"

    def death(self) -> DecodeError:
        """After `close`: why a process that died on a file did so."""
        if self._timed_out or self.used_up_its_time():
            return DecodeError("decoder_timeout", "decoding it takes too long")
        # A SIGKILL that is not ours comes from the system, when memory runs out.
        killed = self._ended_by("SIGKILL") and not self._put_down
        if killed or any(word in self._tail for word in (b"bad_alloc", b"MemoryError")):
            return DecodeError("decoder_memory", "decoding it takes too much memory")
        return DecodeError("decoder_crashed", f"the decoder crashed on it ({self._status()})")

    def _status(self) -> str:
        code = self._process.returncode
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"exit status {code}"

    def _ended_by(self, *names: str) -> bool:
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        return -self._process.returncode in numbers

    def _listen(self) -> None:
        """Read standard error, so that it never blocks; it may name a patient, and stays here."""
        with contextlib.suppress(OSError, ValueError):  # closed, though some child holds the pipe
            while content := os.read(self._stderr.fileno(), MOST_WORDS_BYTES):
                self.stderr_bytes += len(content)
                self._tail = (self._tail + content)[-TAIL_BYTES:]

    @property
    def _stdin(self) -> IO[bytes]:
        return _pipe(self._process.stdin)

    @property
    def _stdout(self) -> IO[bytes]:
        return _pipe(self._process.stdout)

    @property
    def _stderr(self) -> IO[bytes]:
        return _pipe(self._process.stderr)


def request(path: Path) -> bytes:
    """What asks for a file, from wherever the worker was started."""
    return frame(FILE, _absolute(path).encode("utf-8", "surrogatepass"))


def _absolute(path: Path) -> str:
    try:
        return str(path.absolute())
    except OSError:  # the working folder is gone
        return str(path)


def _refusal(content: bytes) -> DecodeError | None:
    """What the worker said of a file; None if it is nothing that our own code says."""
    try:
        reason, detail = json.loads(content)
    except ValueError:
        return None
    if reason not in REASONS or not isinstance(detail, str):
        return None
    return errors.DecodeError(reason, detail)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("a worker without a pipe")
    return stream
