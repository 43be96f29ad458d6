"""From the cached uint8 array to standardised float batches on the device.

The whole split moves to the device as uint8 when it fits; batches are gathered and scaled there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_classifier.devices import sent

WHITE = 255.0
STATISTICS_PIXELS = 2**20  # at a time; NumPy counts them in eight bytes each
DEVICE_SHARE = 0.5  # of the free device memory that images may take


class Standardize(nn.Module):
    """uint8 grey levels to numbers around 0 with spread about 1.

    Args:
        mean: Mean of the training pixels, as a fraction of white in [0, 1].
        std: Their standard deviation, as a fraction of white, above 0.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, S, S) or (B, C, S, S) uint8 or float in 0..255 to (B, C, S, S) float32."""
        if images.ndim == 3:
            images = images.unsqueeze(1)
        floats = images.to(torch.float32)
        if floats is images:  # the caller's own
            floats = images.clone()
        return floats.sub_(self.mean * WHITE).div_(self.std * WHITE)


def pixel_statistics(images: NDArray[np.uint8], rows: NDArray[np.integer]) -> tuple[float, float]:
    """Mean and standard deviation of the pixels of some images, exactly, from their histogram.

    Args:
        images: (N, S, S) uint8, may be a memory map.
        rows: Which images, shape (n,).

    Returns:
        Mean and standard deviation as fractions of white; a spread of 0 is given as 1 grey level.
    """
    counts = np.zeros(256, dtype=np.int64)
    together = max(1, STATISTICS_PIXELS // images[0].size) if len(images) else 1
    for start in range(0, len(rows), together):
        part = images[rows[start : start + together]]
        counts += np.bincount(part.reshape(-1), minlength=256)
    levels = np.arange(256) / WHITE
    mean = float(counts @ levels / counts.sum())
    variance = float(counts @ (levels - mean) ** 2 / counts.sum())
    return mean, max(variance**0.5, 1.0 / WHITE)


@dataclass(frozen=True)
class LabelledImages:
    """The images of one split with their targets.

    Attributes:
        store: (M, S, S) uint8; the split alone on the device where that fits, else the whole
            memory map, of which only the pages that a batch needs are read.
        positions: (n,) int64, where each image of the split stands in the store.
        targets: (n,) float32 on the device; 0 healthy, 1 sick, or a standardised number.
        rows: (n,) rows of the manifest.
        device: Where batches are needed.
    """

    store: Tensor
    positions: Tensor
    targets: Tensor
    rows: NDArray[np.int64]
    device: torch.device

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images (b, S, S) and targets (b,) at `index` (b,) int64, on the device.

        Args:
            index: Places within the split, on any device that `positions` can be indexed from.
        """
        # Not `store[...]`, which copies byte by byte and takes ten times as long.
        images = self.store.index_select(0, sent(self.positions[index], self.store.device))
        return sent(images, self.device), self.targets[sent(index, self.targets.device)]


def load_split(
    images: NDArray[np.uint8],
    targets: NDArray[np.floating],
    rows: NDArray[np.int64],
    device: torch.device,
) -> LabelledImages:
    """Put one split where training can reach it fastest.

    Args:
        images: (N, S, S) uint8 of the whole manifest, usually a memory map.
        targets: (N,) of the whole manifest.
        rows: The split's rows, shape (n,).
        device: Where the model is.
    """
    chosen_targets = torch.from_numpy(targets[rows].astype(np.float32)).to(device)
    if device.type != "cpu" and _fits(len(rows) * images[0].size, device):
        store = torch.from_numpy(np.ascontiguousarray(images[rows])).to(device)
        positions = torch.arange(len(rows))
    else:
        store = torch.from_numpy(images)
        positions = torch.from_numpy(rows)
    return LabelledImages(store, positions, chosen_targets, rows, device)


def _fits(n_bytes: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return n_bytes < DEVICE_SHARE * free_bytes


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch visits the images: a function of seed and epoch alone.

    Returns:
        A permutation of 0..n-1, shape (n,) int64, on the CPU.
    """
    generator = torch.Generator().manual_seed(mixed_seed(seed, epoch))
    return torch.randperm(n, generator=generator)


def mixed_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, so that (0, 1) and (1, 0) differ."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Number of batches that `batch_positions` makes."""
    full, rest = divmod(n, batch_size)
    return full + (rest > 1 or full == 0)


def batch_positions(order: Tensor, batch_size: int, first_batch: int = 0) -> Iterator[Tensor]:
    """Cut an order into batches; every image stands in exactly one.

    A lone image at the end joins the batch before it, for a batch of one has no batch statistics.

    Args:
        order: (n,) positions.
        batch_size: Images per batch.
        first_batch: Number of leading batches to leave out (resuming inside an epoch).
    """
    total = steps_per_epoch(len(order), batch_size)
    for batch in range(first_batch, total):
        stop = len(order) if batch == total - 1 else (batch + 1) * batch_size
        yield order[batch * batch_size : stop]
