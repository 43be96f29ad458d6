"""Training on a CUDA device: a step against the roofline, and images a second against a DataLoader.

The images live on the device, losses are read now and then, see `xray_classifier.pending`. Without
such a device nothing is measured, and no figure is given.
"""

import os
import time

import torch

from scripts.benchmarks.counting import roofline_s, step_bytes, step_flops
from scripts.benchmarks.machine import copy_rate, gemm_rate, wait_for
from scripts.benchmarks.numbers import GpuNumbers
from scripts.benchmarks.place import Place, Raw, Rounds, column
from scripts.benchmarks.rows import Row, quotients
from scripts.benchmarks.step import plain_step, shape_name
from scripts.benchmarks.synthetic import DROPOUT, images_of, trainer_of
from xray_classifier.devices import number_format
from xray_classifier.trainer import Trainer

TITLE = "training on a GPU"
EVERY_ROUND = True
JUDGED = (224, 4096)
"""Side in pixels and batch size that have a goal."""


def measure(place: Place) -> Raw:
    """Rates of the device, seconds of a step of each shape, images a second of a pipeline."""
    if not torch.cuda.is_available():
        return {}
    return of_device(torch.device("cuda"), place)


def of_device(device: torch.device, place: Place) -> Raw:
    """The same on any device.

    Args:
        device: Where the network is.
        place: Its `numbers.gpu` say how much.
    """
    numbers, precision = place.numbers.gpu, number_format("auto", device)
    raw: Raw = {
        "precision": precision,
        "flops/s": gemm_rate(precision, numbers.gemm_sides, numbers.tried_s, device),
        "copy bytes/s": copy_rate(numbers.copy_bytes, numbers.tried_s, device),
    }
    for side in numbers.sides_px:
        widths = (side * side, *place.numbers.hidden, 1)
        for batch in numbers.batches:
            images = images_of(numbers.held * batch, side)
            trainer = trainer_of(images, place.numbers.hidden, batch, precision, device)
            name = shape_name(side, batch, precision)
            raw[name] = step_s(trainer, numbers.tried_s)
            raw[f"{name} roofline"] = roofline_s(
                step_flops(widths, batch),
                step_bytes(widths, precision),
                raw["flops/s"],
                raw["copy bytes/s"],
            )
            del trainer
    side, batch = numbers.sides_px[-1], numbers.batches[-1]
    raw["images/s"] = batch / raw[shape_name(side, batch, precision)]
    raw["pipeline images/s"] = pipeline_rate(place, side, numbers, device)
    return raw


def step_s(trainer: Trainer, seconds: float) -> float:
    """Mean seconds of a step in the best of some epochs, all that an epoch does included.

    Args:
        trainer: On its device.
        seconds: How long epochs are tried.
    """
    best, end_s = float("inf"), time.perf_counter() + seconds
    _epoch_s(trainer)  # warms up
    while time.perf_counter() < end_s or best == float("inf"):
        best = min(best, _epoch_s(trainer))
    return best / trainer.run.steps_per_epoch


def _epoch_s(trainer: Trainer) -> float:
    start_s = time.perf_counter()
    trainer.train_epoch()  # waits for the device at its end
    took_s = time.perf_counter() - start_s
    trainer.finish_epoch()
    return took_s


def pipeline_rate(place: Place, side_px: int, numbers: GpuNumbers, device: torch.device) -> float:
    """Images a second of the same network fed by ImageFolder and DataLoader, its second epoch.

    Args:
        place: Its `data` are the films.
        side_px: Side of the images.
        numbers: Batch size, and workers.
        device: Where the network is.
    """
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Grayscale, Resize, ToTensor

    change = Compose([Grayscale(), Resize((side_px, side_px)), ToTensor()])
    films = ImageFolder(str(place.data), transform=change)
    loader = DataLoader(
        films,
        batch_size=numbers.pipeline_batch,
        shuffle=True,
        num_workers=min(os.cpu_count() or 1, numbers.pipeline_workers),
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    take = plain_step(side_px, place.numbers.hidden, DROPOUT, "bf16", device)
    for _ in range(2):  # the first one starts the workers and the libraries
        start_s = time.perf_counter()
        for images, labels in loader:
            take(images.to(device, non_blocking=True), labels.to(device, non_blocking=True).float())
        wait_for(device)
    return len(films) / (time.perf_counter() - start_s)


def rows(rounds: Rounds) -> list[Row]:
    """Rates, each shape against the roofline, and images a second against the pipeline."""
    if not rounds or not rounds[0]:
        return []
    flops, copied = column(rounds, "flops/s"), column(rounds, "copy bytes/s")
    precision = rounds[0]["precision"]
    found = [
        Row(f"matrix product, {precision}", tuple(rate / 1e12 for rate in flops), "TFLOP/s"),
        Row("copy, read and write", tuple(rate / 1e9 for rate in copied), "GB/s"),
    ]
    for name in [key.removesuffix(" roofline") for key in rounds[0] if key.endswith(" roofline")]:
        ours, roof = _ms(rounds, name), _ms(rounds, f"{name} roofline")
        goal = 0.60 if name == shape_name(*JUDGED, precision) else None
        found.append(Row(name, ours, "ms", "roofline", roof, quotients(roof, ours), "%", goal))
    ours, theirs = column(rounds, "images/s"), column(rounds, "pipeline images/s")
    ratio = quotients(ours, theirs)
    found.append(Row("images a second", ours, "/s", "DataLoader", theirs, ratio, "x", 50.0))
    return found


def _ms(rounds: Rounds, key: str) -> tuple[float, ...]:
    return tuple(1000.0 * seconds for seconds in column(rounds, key))
