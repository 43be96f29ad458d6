"""Steps whose losses have not been counted yet, so that the CPU need not wait for a GPU.

A GPU works through a queue. Each look at a number on it, such as a loss, makes the CPU wait until
the queue is empty, and then the GPU waits for the CPU to fill it again. So the losses stay where
they are for up to half a second, and then come over all at once.

Meanwhile a step may turn out to be one that must not be taken, its loss being NaN. A flag on the
device says so; the optimizer looks at it there, and takes neither that step nor any after it. The
same flag keeps steps of 16-bit training from overflowing, see `torch.amp.GradScaler`.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xray_classifier.distributed import Ranks

LOOK_EVERY_S = 0.5
MOST_PENDING = 256


@dataclass(frozen=True)
class Part:
    """Images that went through the network at once.

    Attributes:
        loss: Their part of the batch's mean loss, scalar on the device.
        outputs: What the network said, (b,) on the device.
        index: Their places in the training split, (b,) int64 on the CPU.
    """

    loss: Tensor
    outputs: Tensor
    index: Tensor


@dataclass
class TakenStep:
    """One step of the optimizer, or one that the device has left out.

    Attributes:
        n_images: In its batch, over all processes.
        parts: What this process did of it.
        norm: Euclidean norm of the gradient, scalar on the device.
        loss: Mean loss of its images; NaN until it is read.
        gradient_norm: `norm` as a number; NaN until it is read.
    """

    n_images: int
    parts: Sequence[Part]
    norm: Tensor
    loss: float = math.nan
    gradient_norm: float = math.nan

    @property
    def scalars(self) -> list[Tensor]:
        """All that is to be read."""
        return [*(part.loss for part in self.parts), self.norm]

    def wild_places(self) -> list[int]:
        """Places in the training split of the images that made the loss infinite or NaN."""
        wild = [part for part in self.parts if not math.isfinite(float(part.loss))]
        return [
            place
            for part in wild
            for place in part.index[~torch.isfinite(part.outputs.cpu())].tolist()
        ]


def read_back(steps: Sequence[TakenStep]) -> None:
    """Fetch losses and norms of steps from the device, all in one transfer.

    Args:
        steps: Get their `loss`, this process's part of it, and their `gradient_norm`.
    """
    numbers = iter(torch.stack([scalar for step in steps for scalar in step.scalars]).tolist())
    for step in steps:
        step.loss = float(sum(next(numbers) for _ in step.parts))
        step.gradient_norm = next(numbers)


class Pending:
    """The steps that were taken since the last look at their losses.

    Args:
        optimizer: Leaves out steps on the device from now on; it must be able to, see
            `pending_steps`. None: every loss is read before its step is taken.
        device: Where the weights are.

    Attributes:
        later: Whether losses are read after their steps.
        steps: Taken and not counted, oldest first.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer | None = None, device: torch.device | None = None
    ) -> None:
        self.later = optimizer is not None
        self.steps: list[TakenStep] = []
        self._since_s = 0.0
        self._most = 1
        self._wild = torch.zeros((), device=device)
        self._unscaled = torch.ones((), device=device)
        if optimizer is not None:
            optimizer.found_inf = self._wild  # type: ignore[attr-defined]

    def watch(self, step: TakenStep) -> None:
        """Raise the flag on the device if the loss or the norm of a step is not finite.

        To be called before the optimizer is. The flag stays up, for a later step would set out
        from where the run must not go on.
        """
        torch._amp_foreach_non_finite_check_and_unscale_(step.scalars, self._wild, self._unscaled)

    def add(self, step: TakenStep) -> None:
        """Keep a step that was taken."""
        if not self.steps:
            self._since_s = time.monotonic()
        self.steps.append(step)

    @property
    def due(self) -> bool:
        """Whether it is time to look.

        The CPU runs ahead of the GPU, so its clock alone does not tell how much there is to wait
        for: steps are counted too, see `fetch`.
        """
        late = time.monotonic() - self._since_s >= LOOK_EVERY_S
        return not self.later or late or len(self.steps) >= self._most

    def take_all(self) -> list[TakenStep]:
        """Take out all steps, with their numbers."""
        steps = self.dropped()
        if self.later and steps:
            self.fetch(steps)
            step_s = (time.monotonic() - self._since_s) / len(steps)
            self._most = steps_to_let_go(self._most, step_s)
        return steps

    def dropped(self) -> list[TakenStep]:
        """Take out all steps without a look at their numbers."""
        steps, self.steps = self.steps, []
        return steps

    def fetch(self, steps: Sequence[TakenStep]) -> None:
        """Wait for the numbers of steps, and lower the flag."""
        read_back(steps)
        self._wild.zero_()


def steps_to_let_go(before: int, step_s: float) -> int:
    """How many steps to take before the next look, so that it is due in LOOK_EVERY_S.

    Args:
        before: How many it were the last time, from 1; at most twice as many follow.
        step_s: Seconds that a step took, the wait for the device included.
    """
    return max(1, min(2 * before, MOST_PENDING, int(LOOK_EVERY_S / max(step_s, 1e-6))))


def pending_steps(
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    scaler: torch.amp.GradScaler,
    ranks: Ranks | None = None,
) -> Pending:
    """Losses are read later where that saves time and the optimizer can leave out steps by itself.

    On CUDA, that is, with a fused optimizer. Not in 16 bits with a scaler, which leaves out steps
    for reasons of its own, nor with several processes, which have to agree on each step.
    """
    alone = ranks is None or ranks.size == 1
    can_skip = getattr(optimizer, "_step_supports_amp_scaling", False)
    if device.type == "cuda" and alone and can_skip and not scaler.is_enabled():
        return Pending(optimizer, device)
    return Pending()
