"""Films decoded in disposable processes: a file that crashes, hangs or eats memory costs one row.

Decoders are third-party C code fed with files of unknown origin. Each worker is a process of its
own with limits on memory and time, in which one file after the other is decoded. A worker that dies
is replaced. The file that it died on is tried once more, in a worker that has seen no other file,
and then given up; the files behind it are none the worse. A file that computes for longer than is
allowed is given up at once.

One thread per worker hands out files and reads answers; another counts the time. A process stuck in
the kernel, as on a dead network drive, cannot be ended: its file is waited for.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xray_classifier.data.isolation_lane import CLOSED, Crew, Lane, Task
from xray_classifier.data.isolation_process import worker_command
from xray_classifier.data.isolation_worker import WorkOrder
from xray_classifier.data.signature import SIGNATURE, Decoded
from xray_classifier.pseudonyms import passing_key

AHEAD_PER_WORKER = 32
AHEAD_BYTES = 2**27
TICK_S = 0.2
GOODBYE_S = 5.0


class DecodingPool:
    """Worker processes that make films of files, as `read_film` and `prepared` do.

    Use it in a `with` statement: leaving that ends the workers at once, whatever they do. They are
    started when there are files for them. On Linux they die with their parent, however it ends. On
    macOS memory is not limited, on Windows neither memory nor computing time.

    Args:
        settings: size, crop, intensity and for_processing, as a checkpoint keeps them under
            `image`; other keys are passed over.
        workers: Processes; None is one per core.
        least_px: See `read_film`.
        memory_bytes: Address space that one film may take. The default is twice what a float or
            RGBA film of MAX_PIXELS takes. None: no limit.
        cpu_s: Seconds of computing that one film may take. None: no limit.
        wall_s: Seconds that one film may take, waiting for disks included. None: no limit.
        program: What to run as a worker; None is the one that decodes. For tests of this class.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        workers: int | None = None,
        *,
        least_px: int | None = None,
        memory_bytes: int | None = 4 * 2**30,
        cpu_s: float | None = 60.0,
        wall_s: float | None = 180.0,
        program: Sequence[str] | None = None,
    ) -> None:
        order = WorkOrder(
            size=settings["size"],
            crop=settings["crop"],
            intensity=settings["intensity"],
            for_processing=settings.get("for_processing", "reject"),
            memory_bytes=memory_bytes,
            cpu_s=cpu_s,
            parent=os.getpid(),
            key=passing_key(),
            least_px=least_px,
        )
        self._n_workers = workers or os.cpu_count() or 1
        self._wall_s = wall_s
        self._crew = Crew(program or worker_command(), order, self._n_workers)
        self._lanes: list[threading.Thread] = []
        self._clock: threading.Thread | None = None
        fitting = AHEAD_BYTES // (order.size**2 + SIGNATURE.itemsize)
        most = min(AHEAD_PER_WORKER * self._n_workers, fitting)
        self._ahead = max(2 * self._n_workers + 1, most)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def stderr_bytes(self) -> int:
        """How much decoders wrote to standard error, in bytes, as far as their workers have ended.

        What they wrote is kept from everybody, for it may name a patient.
        """
        return self._crew.stderr_bytes

    def decoded(self, paths: Iterable[Path]) -> Generator[Decoded, None, None]:
        """Films of files, or why there is none, in the order of the files.

        Args:
            paths: Read by the caller's thread, a bounded number ahead; may be endless.

        Raises:
            ImportError: A decoder is not installed as it should be.
            RuntimeError: Workers cannot be started, or the pool is closed.
        """
        pending: deque[Task] = deque()
        try:
            for path in paths:
                pending.append(self._submitted(path))
                if len(pending) >= self._ahead:
                    yield pending.popleft().result.result()
            while pending:
                yield pending.popleft().result.result()
        finally:
            for task in pending:
                task.result.cancel()

    def close(self) -> None:
        """End all workers at once. Nothing can be decoded any more."""
        self._crew.end()
        for _ in self._lanes:
            self._crew.tasks.put(None)
        for thread in (*self._lanes, *filter(None, [self._clock])):
            thread.join(GOODBYE_S)

    def _submitted(self, path: Path) -> Task:
        if self._crew.closing.is_set():
            raise RuntimeError(CLOSED)
        task = Task(path)
        self._crew.tasks.put(task)
        if self._clock is None:
            self._clock = _thread(self._count_time)
        if len(self._lanes) < self._n_workers:
            self._lanes.append(_thread(Lane(self._crew, self._wall_s).run))
        return task

    def _count_time(self) -> None:
        """Tick by tick rather than by the clock, which runs on while this process is suspended."""
        tick_s = TICK_S if self._wall_s is None else min(TICK_S, self._wall_s / 4)
        while not self._crew.closing.wait(tick_s):
            self._crew.pass_time(tick_s)


def _thread(body: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=body, name="decoding", daemon=True)
    thread.start()
    return thread
