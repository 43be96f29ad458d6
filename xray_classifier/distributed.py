"""Several processes that train as one: who has which part, and what all of them know.

Started by torchrun, each process has a rank. A batch is cut into contiguous shards, without padding
and without repeats; sums and gathered values are the same on every rank. Alone, all of this does
nothing.
"""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from xray_classifier.errors import PeerLostError


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: 0 for the first, which alone writes files.
        size: How many there are.
        device: Where values are for an exchange.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's part of n items; shards follow one another and differ by one item at most."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all ranks, the same on all of them."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self._number_device)
        with _peers():
            dist.all_reduce(total)
        return total.tolist()

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over all ranks; a missing one counts as zero.

        All gradients travel as one message, since many small ones cost more than one large one.
        """
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with _peers():
            dist.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """The shards of all ranks, put together.

        Args:
            values: This rank's part of n numbers, as `share` cuts them.
            n: Numbers in all.

        Returns:
            Shape (n,), the same on every rank.
        """
        if self.size == 1:
            return values
        whole = torch.zeros(n, dtype=torch.float64, device=self._number_device)
        whole[self.share(n)] = torch.from_numpy(values).to(whole.device)
        with _peers():
            dist.all_reduce(whole)  # each number comes from one rank, the others add zero
        return whole.cpu().numpy()

    def told(self, value: Any) -> Any:
        """What rank 0 says, a JSON value, on every rank; what the others give is not looked at."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.first else b""
        length = torch.tensor([len(text)], dtype=torch.int64, device=self.device)
        with _peers():
            dist.broadcast(length, src=0)
            letters = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
            if self.first:
                letters.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
            dist.broadcast(letters, src=0)
        return json.loads(bytes(letters.cpu().numpy()))

    @property
    def _number_device(self) -> torch.device:
        """Where float64 numbers can be added up."""
        return torch.device("cpu") if self.device.type == "mps" else self.device


def started_by_torchrun() -> bool:
    """Whether a launcher started several processes of which this is one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first_process() -> bool:
    """Whether this process may write and speak, told before the others are met."""
    return not started_by_torchrun() or os.environ.get("RANK", "0") == "0"


def local_device(device: torch.device) -> torch.device:
    """The device of this process: of several CUDA devices of a machine, each takes its own."""
    if started_by_torchrun() and device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


@contextmanager
def joined(device: torch.device, timeout_minutes: float) -> Iterator[Ranks]:
    """Meet the other processes, if there are any; NCCL where they are on GPUs, gloo elsewhere.

    Args:
        device: Where the model of this process is.
        timeout_minutes: How long one waits for the others before the job ends.
    """
    if not started_by_torchrun():
        yield Ranks()
        return
    nccl = device.type == "cuda" and dist.is_nccl_available()
    if nccl:
        torch.cuda.set_device(device)
    with _peers():
        dist.init_process_group(
            "nccl" if nccl else "gloo", timeout=timedelta(minutes=timeout_minutes)
        )
    try:
        here = device if nccl else torch.device("cpu")
        yield Ranks(dist.get_rank(), dist.get_world_size(), here)
        with suppress(RuntimeError):  # one who leaves early may cut off another's last message
            dist.barrier()
    finally:
        # no exchange here: others may be gone
        dist.destroy_process_group()


def launch_id() -> str | None:
    """What stays the same when torchrun starts its processes again; None without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return f"{os.environ['TORCHELASTIC_RUN_ID']}@{socket.gethostname()}:{os.getppid()}"


def restarted() -> bool:
    """Whether torchrun has started its processes again after one of them was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def _peers() -> Iterator[None]:
    """Say in words that another process is gone or does not answer."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(
            "another process of this job ended or did not answer in time; go on with "
            "`train --resume RUN`, or let torchrun do so with --max-restarts"
        ) from error


def shard_of(index: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """This rank's part of a batch, and the place of each image in the whole batch.

    Args:
        index: Places in the training split, (B,) int64.
        ranks: Who is who.

    Returns:
        Two tensors of shape (b,) int64.
    """
    part = ranks.share(len(index))
    return index[part], torch.arange(len(index))[part]
