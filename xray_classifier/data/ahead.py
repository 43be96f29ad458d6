"""Decoding that begins while PyTorch is still being imported, in a process of its own.

The import keeps one core busy for a second or more and needs no image. The process fills the image
cache and says how far it is; whoever loads the images waits for it and then opens the cache as
ever. Where it cannot start, or ends early, the run decodes what is left, or says why it cannot.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO

from xray_classifier.config import DataConfig
from xray_classifier.data.cache_build import Progress
from xray_classifier.data.isolation_process import import_paths
from xray_classifier.data.isolation_worker import end_with
from xray_classifier.data.loading import Follow, Task, run_filling, run_manifest
from xray_classifier.pseudonyms import passing_key, take_passing_key

SAID = b"say: "
START = (
    "import sys; sys.path[:] = sys.argv[1:]; from xray_classifier.data.ahead import main; main()"
)


@contextlib.contextmanager
def run_ahead(data: DataConfig, task: Task) -> Iterator[Follow | None]:
    """Within the block the images of a run are decoded; leaving it ends that at once.

    Args:
        data: Where the images are, and where the cache is.
        task: What their labels are.

    Yields:
        What waits for the process; None where there is none: on one core, where none can be
        started, and on systems where no process can be made to die with its parent.
    """
    process = _started() if sys.platform == "linux" and _cores() > 1 else None
    if process is None:
        yield None
        return
    order = {
        "parent": os.getpid(),
        "key": passing_key(),
        "data": data.model_dump(),
        "task": task,
    }
    with process:
        try:
            # not as pydantic writes JSON, which refuses names that are no UTF-8
            _tell(process.stdin, json.dumps(order, default=str).encode())
            yield partial(_pass_on, process.stdout)
        finally:
            process.kill()


def _cores() -> int:
    """Cores that this process may use; Linux only."""
    return len(os.sched_getaffinity(0))


def _started() -> "subprocess.Popen[bytes] | None":
    """The process; None where the system refuses one more, or where no interpreter can be found."""
    if not sys.executable:
        return None
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            [sys.executable, "-P", "-c", START, *import_paths()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C in a terminal reaches the parent alone
        )
    return None


def _tell(stream: IO[bytes] | None, content: bytes) -> None:
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):  # it died; the run does without it
            stream.write(content)
            stream.close()


def _pass_on(stream: IO[bytes] | None, progress: Progress, say: Callable[[str], None]) -> None:
    """Tell what the process tells until it is done, or dead; what a decoder prints is not told."""
    for line in stream or ():
        words = line.split()
        if len(words) == 2 and all(word.isdigit() for word in words):
            progress(int(words[0]), int(words[1]))
        elif line.startswith(SAID):
            say(line.removeprefix(SAID).decode().strip())


def main() -> None:
    """What the process does: read an order on standard input, and fill the cache."""
    order = json.load(sys.stdin)
    end_with(order["parent"])
    take_passing_key(order["key"])
    data = DataConfig.model_validate(order["data"])
    run_filling(data, run_manifest(data, order["task"]), _tell_progress, _tell_words)


def _tell_progress(done: int, total: int) -> None:
    sys.stdout.write(f"{done} {total}\n")
    sys.stdout.flush()


def _tell_words(words: str) -> None:
    sys.stdout.write(f"{SAID.decode()}{words}\n")
    sys.stdout.flush()
