"""One owner of a folder or file at a time; the system lets go of the lock when the owner dies."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from xray_classifier.errors import OutputError
from xray_classifier.files import printable

LOCK_NAME = "run.lock"
POLL_S = 0.1
BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""What the systems answer when another process holds a lock."""


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a folder while the block runs.

    Args:
        folder: An existing folder; a file `run.lock` is left in it.

    Raises:
        OutputError: Another process owns it, or the lock cannot be made.
    """
    with _opened(folder / LOCK_NAME) as file:
        if not _lock(file):
            raise OutputError(
                f"another process works in {printable(folder)}; wait until it is done, or stop it"
            )
        yield


@contextmanager
def turn(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Own a lock file while the block runs, after whoever owns it now.

    Args:
        path: The lock file; made when missing, removed at the end where the system allows it.
        waiting: Called about ten times a second while another process owns it.

    Raises:
        OutputError: The lock cannot be made.
    """
    while (file := _acquired(path)) is None:
        if waiting is not None:
            waiting()
        time.sleep(POLL_S)  # polled, because Ctrl-C does not end a blocking wait on Windows
    with _removed_at_the_end(file, path):
        yield


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Own a lock file while the block runs if no other process does; yields whether.

    Raises:
        OutputError: The lock cannot be made.
    """
    file = _acquired(path)
    if file is None:
        yield False
        return
    with _removed_at_the_end(file, path):
        yield True


def _acquired(path: Path) -> IO[bytes] | None:
    """The locked file; None while another process holds it."""
    while True:
        file = _opened(path)
        if not _lock(file):
            file.close()
            return None
        if _is_named(file, path):
            return file
        file.close()  # its last owner removed it after it was opened here


@contextmanager
def _removed_at_the_end(file: IO[bytes], path: Path) -> Iterator[None]:
    with file:
        try:
            yield
        finally:
            # Before the lock is let go: afterwards the name could be another owner's file.
            with contextlib.suppress(OSError):
                path.unlink()


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("ab")
    except OSError as error:
        raise OutputError(f"cannot write to {printable(path.parent)}: {error.strerror}") from error


def _is_named(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[bytes]) -> bool:
    """Lock an open file; False if another process has; POSIX and Windows have different calls.

    Raises:
        OutputError: The file system knows no locks.
    """
    try:
        _lock_at_once(file)
    except OSError as error:
        if error.errno in BUSY:
            return False
        file.close()
        raise OutputError(f"cannot lock {printable(file.name)}: {error.strerror}") from error
    return True


def _lock_at_once(file: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError:
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
