"""Whole processes: how long they take, and files that the page cache has forgotten."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIME_LIMIT_S = 3600.0


class FailedProcess(Exception):
    """A process that should be timed did not end well."""


@dataclass(frozen=True)
class Done:
    """A process that ended well.

    Attributes:
        began_at: When it was started, in seconds since 1970.
        seconds: From its start to its end.
        out: Its standard output.
    """

    began_at: float
    seconds: float
    out: str

    def last_json(self) -> dict[str, Any]:
        """The object in its last line."""
        found: dict[str, Any] = json.loads(self.out.strip().splitlines()[-1])
        return found


def timed(
    command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str] | None = None
) -> Done:
    """Run a command to its end.

    Raises:
        FailedProcess: It ended with a code other than 0, or took an hour.
    """
    words = [str(word) for word in command]
    began_at, start_s = time.time(), time.perf_counter()
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedProcess(f"{' '.join(words)}: {error}") from error
    seconds = time.perf_counter() - start_s
    if done.returncode != 0:
        told = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise FailedProcess(f"{' '.join(words[:4])} ended with {done.returncode}: {told}")
    return Done(began_at, seconds, done.stdout)


def program(*words: str | Path) -> list[str | Path]:
    """A command of this checkout's program."""
    return [sys.executable, "-m", "xray_classifier", *words]


def own_environment(scratch: Path) -> dict[str, str]:
    """Variables under which the program of this checkout runs and leaves the user's files alone.

    matplotlib keeps the user's list of fonts, which takes seconds to make, once for all programs.
    """
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    homes = {
        f"XDG_{name}_HOME": str(scratch / name.lower()) for name in ("CACHE", "CONFIG", "STATE")
    }
    fonts = os.environ.get("MPLCONFIGDIR") or str(usual / "matplotlib")
    return {"PYTHONPATH": str(ROOT), "MPLCONFIGDIR": fonts, **homes}


def forget(paths: Iterable[Path]) -> bool:
    """Ask the system to drop files from its page cache; whether it could be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
    return True
