"""One owner of a folder at a time; the system lets go of the lock when the owner dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from xray_classifier.errors import OutputError
from xray_classifier.files import printable

LOCK_NAME = "run.lock"


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a folder while the block runs.

    Args:
        folder: An existing folder; a file `run.lock` is left in it.

    Raises:
        OutputError: Another process owns it, or the lock cannot be made.
    """
    try:
        file = (folder / LOCK_NAME).open("ab")
    except OSError as error:
        raise OutputError(f"cannot write to {printable(folder)}: {error.strerror}") from error
    with file:
        try:
            _lock(file)
        except OSError as error:
            raise OutputError(
                f"another process works in {printable(folder)}; wait until it is done, or stop it"
            ) from error
        yield


def _lock(file: IO[bytes]) -> None:
    """Lock an open file, or fail at once; POSIX and Windows have different calls for it."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
