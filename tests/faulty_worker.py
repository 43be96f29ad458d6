"""A decoding worker that does, for certain file names, what a broken decoder would do.

Run as a program by `program` in test_isolation; the arguments are where its modules lie. The part
of a name before the first `-` says what happens; any other file is decoded as always. `once-` files
crash while FOLDER/seen does not exist, which they make.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__":
    sys.path[:] = sys.argv[1:]

from xray_classifier.data.isolation_worker import WorkOrder, decode_film, serve
from xray_classifier.data.signature import Prepared

CANARY = b"DOE^JANE"
kept: list[bytearray] = []


def segfault(path: Path) -> None:
    """Read where nothing is."""
    ctypes.string_at(0)


def abort(path: Path) -> None:
    """End as a C assertion does."""
    os.abort()


def leave(path: Path) -> NoReturn:
    """End with an exit status that looks like success."""
    os._exit(0)


def terminate(path: Path) -> None:
    """End as a C++ program does that runs out of memory."""
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def killed(path: Path) -> None:
    """End as one does that the system picks when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def loop(path: Path) -> None:
    """Compute for ever."""
    while True:
        pass


def hang(path: Path) -> None:
    """Wait for ever."""
    while True:
        time.sleep(1000)


def hog(path: Path) -> None:
    """Take 64 GiB."""
    kept.append(bytearray(2**36))


def leak(path: Path) -> None:
    """Keep 40 MiB."""
    kept.append(bytearray(40 * 2**20))


def noise(path: Path) -> None:
    """Say a name on all that a decoder can write to, more than a pipe holds."""
    for stream in (1, 2):
        os.write(stream, CANARY * 20_000)


def mutter(path: Path) -> None:
    """Send nonsense where answers go, and stay alive."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\xff" * 64)
        except OSError:
            continue
    hang(path)


def babble(path: Path) -> None:
    """Fail with the words of a header."""
    raise ValueError(CANARY.decode())


def missing(path: Path) -> None:
    """Lack a library."""
    raise ImportError("no module named 'codec'")


def once(path: Path) -> None:
    """Crash the first time."""
    seen = path.parent / "seen"
    if not seen.exists():
        seen.touch()
        os.abort()


def signals(path: Path) -> None:
    """Get all that a job may be sent."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        os.kill(os.getpid(), number)


FAULTS = {
    fault.__name__: fault
    for fault in (segfault, abort, leave, terminate, killed, loop, hang, hog, leak, noise, mutter)
} | {fault.__name__: fault for fault in (babble, missing, once, signals)}


def decode(path: Path, order: WorkOrder) -> Prepared:
    """What the name asks for, then the film."""
    fault = FAULTS.get(path.name.split("-")[0])
    if fault is not None:
        fault(path)
    return decode_film(path, order)


if __name__ == "__main__":
    serve(decode)
    os._exit(0)
