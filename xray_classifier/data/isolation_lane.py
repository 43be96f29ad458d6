"""A thread with a decoding process: files go in, films come out, and a dead process is replaced."""

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from xray_classifier.data.isolation_process import WorkerProcess, request
from xray_classifier.data.isolation_worker import WorkOrder
from xray_classifier.data.signature import Decoded

START_TRIES = 3

ONE_PAGE_BYTES = 4096
"""Longest request that is sent ahead: any pipe holds it, so that neither side waits for ever."""

CLOSED = "this pool of decoders is closed"


@dataclass(frozen=True)
class Task:
    """A file to be decoded, and where its film goes."""

    path: Path
    result: Future[Decoded] = field(default_factory=Future)


class Crew:
    """The workers of a pool and the files that wait for them; safe to use from many threads.

    Args:
        program: What to run as a worker.
        order: What each is told.
        n_workers: How many at most.

    Attributes:
        tasks: What waits; None sends a lane home.
        closing: Set when no more work is done.
        stderr_bytes: What workers that have ended wrote to standard error.
    """

    def __init__(self, program: Sequence[str], order: WorkOrder, n_workers: int) -> None:
        self.tasks: SimpleQueue[Task | None] = SimpleQueue()
        self.closing = threading.Event()
        self.stderr_bytes = 0
        self._program, self._order, self._n_workers = program, order, n_workers
        self._alive: set[WorkerProcess] = set()
        self._lock = threading.Lock()

    def started(self) -> WorkerProcess:
        """A new worker, ready to decode.

        Raises:
            RuntimeError: None can be started, or the pool is closed.
        """
        last_word = ""
        for _ in range(START_TRIES):
            worker = self._new()
            if worker.has_started():
                return worker
            self.dismiss(worker)
            last_word = worker.last_word()
        raise RuntimeError(f"a process that decodes images cannot be started: {last_word}")

    def _new(self) -> WorkerProcess:
        with self._lock:  # so that none is started behind the back of `end`
            if self.closing.is_set():
                raise RuntimeError(CLOSED)
            try:
                worker = WorkerProcess(self._program, self._order)
            except OSError as error:
                raise RuntimeError("a process that decodes images cannot be started") from error
            self._alive.add(worker)
        return worker

    def dismiss(self, worker: WorkerProcess) -> None:
        """End a worker and forget it."""
        worker.close()
        with self._lock:
            self._alive.discard(worker)
            self.stderr_bytes += worker.stderr_bytes

    def pass_time(self, seconds: float) -> None:
        """Count time against the files in work."""
        with self._lock:
            workers = list(self._alive)
        for worker in workers:
            worker.pass_time(seconds)

    def end(self) -> None:
        """Kill all workers, and leave undone what waits."""
        with self._lock:
            self.closing.set()
            for worker in self._alive:
                worker.kill()
        with contextlib.suppress(Empty):
            while True:
                task = self.tasks.get_nowait()
                if task is not None:
                    task.result.cancel()

    def is_behind(self) -> bool:
        """Whether files wait for every worker, so that one of them may take two."""
        return self.tasks.qsize() >= self._n_workers


class Lane:
    """One worker, kept alive; it is given a second file while it decodes the first.

    Args:
        crew: Where files and workers come from.
        wall_s: Seconds that a file may take; None: any.
    """

    def __init__(self, crew: Crew, wall_s: float | None) -> None:
        self._crew, self._wall_s = crew, wall_s
        self._worker: WorkerProcess | None = None
        self._in_hand: deque[Task] = deque()
        self._n_sent = 0
        self._done = False

    def run(self) -> None:
        """Decode until the pool is closed; the body of a thread."""
        try:
            while self._has_work():
                self._finish_one()
        finally:
            self._let_go()
            for task in self._in_hand:
                task.result.set_exception(RuntimeError(CLOSED))

    def _has_work(self) -> bool:
        """Take a file if none is in hand, and another if many wait."""
        tired = self._worker is not None and self._worker.tired
        if not self._in_hand:
            if tired:
                self._let_go()
            self._take(wait=True)
        if len(self._in_hand) == 1 and not tired and self._crew.is_behind():
            self._take(wait=False)
        return bool(self._in_hand) and not self._crew.closing.is_set()

    def _take(self, wait: bool) -> None:
        with contextlib.suppress(Empty):
            while not self._done:
                task = self._crew.tasks.get(block=wait)
                if task is None:
                    self._done = True
                elif task.result.set_running_or_notify_cancel():
                    self._in_hand.append(task)
                    return

    def _finish_one(self) -> None:
        """The answer to the first file in hand, whatever comes of it."""
        task = self._in_hand[0]
        try:
            answer = self._answer(task.path)
        except (ImportError, RuntimeError) as error:  # for whoever waits, in another thread
            self._let_go()
            self._in_hand.popleft()
            task.result.set_exception(error)
            return
        self._in_hand.popleft()
        self._n_sent = max(0, self._n_sent - 1)
        task.result.set_result(answer)

    def _answer(self, path: Path) -> Decoded:
        if self._worker is None:
            self._worker = self._crew.started()
        self._send(self._worker)
        answer = self._worker.receive(self._wall_s)
        return self._second_try(path, self._worker) if answer is None else answer

    def _send(self, worker: WorkerProcess) -> None:
        """All that is in hand, as far as the pipe is sure to hold it."""
        while self._n_sent < len(self._in_hand):
            content = request(self._in_hand[self._n_sent].path)
            if self._n_sent and len(content) > ONE_PAGE_BYTES:
                return
            worker.send(content)
            self._n_sent += 1

    def _second_try(self, path: Path, dead: WorkerProcess) -> Decoded:
        """A file whose worker died, in one that has seen no other; or why it is given up."""
        self._let_go()
        if dead.used_up_its_time():
            return dead.death()
        worker = self._worker = self._crew.started()
        worker.send(request(path))
        self._n_sent = 1
        answer = worker.receive(self._wall_s)
        if answer is None:
            self._let_go()
            return worker.death()
        return answer

    def _let_go(self) -> None:
        if self._worker is not None:
            self._crew.dismiss(self._worker)
            self._worker = None
        self._n_sent = 0
