"""What runs inside a decoding process: files named on a pipe become films, under limits.

Each way a frame is a kind, whether the worker is tired, a length, and the content. The parent sends
one ORDER, then a FILE each; the worker says READY once, then answers each FILE in turn. Whatever a
decoder writes goes to standard error, which the parent keeps to itself.
"""

import contextlib
import io
import json
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from xray_classifier.data.boundary import warm_up
from xray_classifier.data.decode import film_from_array, read_film
from xray_classifier.data.signature import Prepared, prepared
from xray_classifier.errors import DecodeError
from xray_classifier.pseudonyms import take_passing_key

HEADER = struct.Struct("<c?I")
ORDER, FILE, READY, FILM, REFUSED, BROKEN = b"O", b"P", b"R", b"F", b"E", b"B"

PR_SET_PDEATHSIG = 1
IGNORED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGBREAK")
"""What may be sent to the whole job: the parent decides, and no film must look as if it crashed."""

EXPENDABLE = 500  # of 1000: when the machine runs out of memory, a worker goes before its parent


@dataclass(frozen=True)
class WorkOrder:
    """What a worker is told once.

    Attributes:
        size: Side S of the films in pixels.
        crop: See `prepare`.
        intensity: See `prepare`.
        for_processing: See `read_film`.
        memory_bytes: Address space that a film may take beyond what the worker has; None: any.
        cpu_s: Seconds of computing that a film may take; None: any.
        parent: Process id of who gives the order.
        key: See `passing_key`.
        least_px: See `read_film`.
    """

    size: int
    crop: str
    intensity: str
    for_processing: str
    memory_bytes: int | None
    cpu_s: float | None
    parent: int
    key: str = field(repr=False)
    least_px: int | None = None

    def content(self) -> bytes:
        """The order as it is sent."""
        return json.dumps(asdict(self)).encode()


Decode = Callable[[Path, WorkOrder], Prepared]


def decode_film(path: Path, order: WorkOrder) -> Prepared:
    """One file as the model sees it, and its signature.

    Raises:
        DecodeError: It cannot be used; `reason` says why.
    """
    film = read_film(path, order.for_processing, order.least_px)
    return prepared(film, order.size, order.crop, order.intensity)


def frame(kind: bytes, *content: bytes | memoryview, tired: bool = False) -> bytes:
    """A message as it goes through the pipe."""
    n_bytes = sum(map(len, content))
    return b"".join([HEADER.pack(kind, tired, n_bytes), *content])


def read_exactly(stream: IO[bytes], n_bytes: int) -> memoryview | None:
    """The next bytes of a pipe, for the caller to keep; None where it ends first."""
    content = np.empty(n_bytes, np.uint8).data  # unlike a bytearray, not zeroed before it is filled
    done = 0
    while done < n_bytes:
        got = stream.readinto(content[done:])  # type: ignore[attr-defined]
        if not got:
            return None
        done += got
    return content


def serve(decode: Decode = decode_film) -> None:
    """Answer on standard output what standard input asks for, until it ends.

    Args:
        decode: What makes a film of a file.
    """
    _leave_signals_to_the_parent()
    requests, answers = _private_streams()
    content = _request(requests)
    if content is None:
        return
    order = WorkOrder(**json.loads(content))
    end_with(order.parent)
    take_passing_key(order.key)
    _practise(order)
    allowance = _Allowance(order.memory_bytes, order.cpu_s)
    with contextlib.suppress(BrokenPipeError):
        _write(answers, frame(READY))
        while (content := _request(requests)) is not None:
            allowance.renew()
            kind, parts = _answer(content.decode("utf-8", "surrogatepass"), order, decode)
            _write(answers, frame(kind, *parts, tired=allowance.is_tired()))


def _practise(order: WorkOrder) -> None:
    """Prepare one small film, so that what libraries take for good is not charged to a file.

    OpenBLAS, for one, takes its memory at the first product, and ends the process if it gets none.
    """
    warm_up(False)
    ramp = film_from_array(np.arange(16384, dtype=np.uint8).reshape(128, 128))
    prepared(ramp, order.size, order.crop, order.intensity)


Parts = tuple[bytes | memoryview, ...]


def _answer(name: str, order: WorkOrder, decode: Decode) -> tuple[bytes, Parts]:
    """Kind and content of the answer to one file."""
    try:
        film = decode(Path(name), order)
    except DecodeError as error:
        return REFUSED, (_refusal(error),)
    except MemoryError:
        refusal = DecodeError("decoder_memory", "decoding it takes too much memory")
        return REFUSED, (_refusal(refusal),)
    except ImportError as error:  # a broken installation, not a damaged file
        return BROKEN, (str(error).encode("utf-8", "backslashreplace"),)
    pixels = np.ascontiguousarray(film.pixels)
    return FILM, (pixels.ravel().data, film.signature.view(np.uint8).data)


def _refusal(error: DecodeError) -> bytes:
    return json.dumps([error.reason, error.detail]).encode()


def _request(stream: IO[bytes]) -> bytes | None:
    header = read_exactly(stream, HEADER.size)
    content = None if header is None else read_exactly(stream, HEADER.unpack(header)[2])
    return None if content is None else content.tobytes()


def _write(stream: IO[bytes], content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[stream.write(view) :]


def _private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes from and to the parent, out of reach of decoders that print or read."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return io.BufferedReader(io.FileIO(requests, "rb")), io.FileIO(answers, "wb")


def _leave_signals_to_the_parent() -> None:
    for name in IGNORED:
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])


def end_with(parent: int) -> None:
    """See to it that this process is not left alone: it is killed when its parent ends.

    Linux only; elsewhere a worker goes on to the end of its film at most, where its pipe ends.

    Args:
        parent: Process id of who started it.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(EXPENDABLE))


class _Allowance:
    """Memory and computing time of one film, whatever the films before it have left behind."""

    def __init__(self, memory_bytes: int | None, cpu_s: float | None) -> None:
        self._memory_bytes, self._cpu_s = memory_bytes, cpu_s
        self._statm = _opened("/proc/self/statm")
        self._before = self._used = self._used_bytes()
        if sys.platform != "win32":
            import resource

            # A core file would hold the film, and its patient's name.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def renew(self) -> None:
        """Call before each film."""
        if sys.platform == "win32":
            return
        if self._cpu_s is not None:
            signal.setitimer(signal.ITIMER_PROF, self._cpu_s)
        if self._memory_bytes is not None and self._used is not None:
            import resource

            ceiling = resource.getrlimit(resource.RLIMIT_AS)[1]
            wanted = self._used + self._memory_bytes
            if ceiling != resource.RLIM_INFINITY:
                wanted = min(wanted, ceiling)
            resource.setrlimit(resource.RLIMIT_AS, (wanted, ceiling))

    def is_tired(self) -> bool:
        """Ask after each film: whether a library has kept so much that a new worker is better."""
        self._used = self._used_bytes()
        if self._memory_bytes is None or self._used is None or self._before is None:
            return False
        return self._used - self._before > self._memory_bytes // 4

    def _used_bytes(self) -> int | None:
        """Address space of this process; None where the system does not tell."""
        if self._statm is None:
            return None
        self._statm.seek(0)
        return int(self._statm.read(64).split()[0]) * mmap.PAGESIZE


def _opened(name: str) -> io.FileIO | None:
    try:
        return io.FileIO(name)
    except OSError:
        return None


def main() -> None:
    """Serve, and leave without the clean-up that a broken pipe would make noisy."""
    serve()
    os._exit(0)
