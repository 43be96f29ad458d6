"""Several processes that share out one job: they tell each other a few words through torchrun.

Unlike those of training they exchange no tensors and wait for nobody but at the end, so the store
of the launcher is enough.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from xray_classifier.errors import PeerLostError, UsageError

POLL_S = 0.1
ANSWER_S = 120.0
"""How long the launcher may take to answer, in seconds."""


@dataclass(frozen=True)
class Company:
    """This process among those that share out a job.

    Attributes:
        rank: 0 for the first, which alone writes the result.
        size: How many there are.
        store: Words by key, as torch.distributed keeps them; None alone.
    """

    rank: int = 0
    size: int = 1
    store: Any = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's part of n items; shares follow one another and differ by one at most."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def told(self, key: str, text: str) -> str:
        """What rank 0 says under a key that is used once; what the others give is not looked at."""
        if self.size == 1:
            return text
        with _answered():
            if self.first:
                self.store.set(key, text)
                return text
            self._wait(key)
            return str(self.store.get(key).decode())

    def arrive(self, key: str, waiting: Callable[[], None] | None = None) -> None:
        """Say that this rank has come so far; rank 0 waits until all have said it.

        Args:
            key: Used once.
            waiting: Called some ten times a second meanwhile.
        """
        if self.size == 1:
            return
        with _answered():
            self.store.set(f"{key}/{self.rank}", "here")
            for rank in range(self.size if self.first else 0):
                self._wait(f"{key}/{rank}", waiting)

    def _wait(self, key: str, waiting: Callable[[], None] | None = None) -> None:
        # polled, because a signal does not end a blocking wait for the store
        while not self.store.check([key]):
            if waiting is not None:
                waiting()
            time.sleep(POLL_S)


@contextmanager
def company() -> Iterator[Company]:
    """Meet the other processes that torchrun has started, if there are any.

    Raises:
        UsageError: WORLD_SIZE is set, but nobody has started several processes.
        PeerLostError: The launcher does not answer.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2:
        yield Company()
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set: start with torchrun, or "
            "unset WORLD_SIZE"
        )
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    rank = int(os.environ["RANK"])
    launchers = os.environ.get("TORCHELASTIC_USE_AGENT_STORE", "") == "True"
    with _answered():
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            size,
            is_master=rank == 0 and not launchers,
            timeout=timedelta(seconds=ANSWER_S),
            wait_for_workers=False,
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        found = Company(rank, size, PrefixStore(f"xray_classifier/{attempt}", store))
        yield found
        found.arrive("left")  # the store may be rank 0's own: it stays until all have read it


@contextmanager
def _answered() -> Iterator[None]:
    """Say in words that the launcher is gone or does not answer."""
    from torch.distributed import DistError

    try:
        yield
    except DistError as error:
        raise PeerLostError(
            "another process of this job ended or does not answer; what is done so far is kept, "
            "and the same command goes on from there"
        ) from error
