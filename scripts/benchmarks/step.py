"""A training step against the roofline, and against the same products and optimizer alone."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import cycle

import torch
from torch import Tensor, nn

from scripts.benchmarks.counting import in_turn_s, roofline_s, step_bytes, step_flops
from scripts.benchmarks.machine import copy_rate, gemm_rate, has_bf16, onednn_rate
from scripts.benchmarks.place import Place, Raw, Rounds, column
from scripts.benchmarks.rows import Row, quotients
from scripts.benchmarks.synthetic import RATE, images_of, trainer_of
from xray_classifier.trainer import Trainer

TITLE = "training step, against the roofline"
EVERY_ROUND = True
BATCHES_HELD = 8
WARM_UPS = 3
FEWEST = 5


def measure(place: Place) -> Raw:
    """Rates of the machine, and seconds of a step of each shape."""
    numbers, raw = place.numbers, Raw()
    precisions = ("fp32", "bf16") if has_bf16() else ("fp32",)
    for precision in precisions:
        raw[f"{precision} flops/s"] = gemm_rate(precision, numbers.gemm_sides, numbers.tried_s / 2)
    raw["oneDNN flops/s"] = onednn_rate(numbers.gemm_sides, numbers.tried_s / 2)
    best = {name: raw[f"{name} flops/s"] for name in precisions}
    best["fp32"] = max(best["fp32"], raw["oneDNN flops/s"] or 0.0)
    raw["copy bytes/s"] = copy_rate(numbers.copy_bytes, numbers.tried_s)
    for side in numbers.sides_px:
        widths = (side * side, *numbers.hidden, 1)
        for batch in numbers.batches:
            for precision in precisions:
                ours, bare = of_shape(side, numbers.hidden, batch, precision, numbers.tried_s)
                name = shape_name(side, batch, precision)
                raw[f"{name} roofline"] = roofline_s(
                    step_flops(widths, batch),
                    step_bytes(widths, precision),
                    best[precision],
                    raw["copy bytes/s"],
                )
                raw[f"{name} in turn"] = in_turn_s(
                    widths, batch, precision, best[precision], raw["copy bytes/s"]
                )
                raw |= {name: ours, f"{name} bare": bare}
    return raw


def shape_name(side_px: int, batch: int, precision: str) -> str:
    """How a shape is called in the table."""
    return f"{side_px} px, batch {batch}, {precision}"


def of_shape(
    side_px: int, hidden: Sequence[int], batch: int, precision: str, seconds: float
) -> tuple[float, float]:
    """Median seconds of a step of the trainer and of a bare step, taken in turns.

    Args:
        side_px: Side of the images.
        hidden: Units of the hidden layers.
        batch: Images of a step.
        precision: fp32 or bf16.
        seconds: How long both are tried together.
    """
    trainer = trainer_of(images_of(BATCHES_HELD * batch, side_px), hidden, batch, precision)
    return in_turns(trainer_step(trainer), bare_step(side_px, hidden, batch, precision), seconds)


def in_turns(
    one: Callable[[], object], other: Callable[[], object], seconds: float
) -> tuple[float, float]:
    """Median seconds of two kinds of work, one after the other, so that noise meets both."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARM_UPS):
        one()
        other()
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s or len(took[0]) < FEWEST:
        for work, seen in zip((one, other), took, strict=True):
            start_s = time.perf_counter()
            work()
            seen.append(time.perf_counter() - start_s)
    return statistics.median(took[0]), statistics.median(took[1])


def trainer_step(trainer: Trainer) -> Callable[[], object]:
    """A step of the product's loop, on one batch after another."""
    every = torch.arange(len(trainer.train_images))
    batches: Iterator[Tensor] = cycle(torch.split(every, trainer.batch_size))

    def take() -> None:
        trainer.step(next(batches))
        trainer.run.step += 1

    return take


def bare_step(
    side_px: int, hidden: Sequence[int], batch: int, precision: str
) -> Callable[[], object]:
    """The same products and a fused Adam, on one batch that is standardised already.

    No dropout, no gathering, no check of the gradient: what is left is what no loop can leave out.
    """
    take = plain_step(side_px, hidden, 0.0, precision, torch.device("cpu"))
    images = torch.randn(batch, side_px * side_px)
    targets = (torch.arange(batch) % 2).float()
    return lambda: take(images, targets)


def plain_step(
    side_px: int, hidden: Sequence[int], dropout: float, precision: str, device: torch.device
) -> Callable[[Tensor, Tensor], None]:
    """A step of the same network in plain PyTorch, on images (B, ...) and targets (B,).

    Args:
        side_px: Side of the images.
        hidden: Units of the hidden layers.
        dropout: Rate behind each of them; 0 for none.
        precision: fp32 or bf16.
        device: Where images and targets are.
    """
    widths = (side_px * side_px, *hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, units in zip(widths, hidden, strict=False):
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    model = nn.Sequential(*layers, nn.Linear(widths[-1], 1)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    loss_of = nn.BCEWithLogitsLoss()

    def take(images: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        mixed = (
            torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
        )
        with mixed:
            outputs = model(images)
        loss_of(outputs.squeeze(1).float(), targets).backward()
        optimizer.step()

    return take


def rows(rounds: Rounds) -> list[Row]:
    """The machine's rates, then each shape: share of the roofline, and against the bare step."""
    found = []
    for key, what in (
        ("fp32 flops/s", "matrix product, fp32"),
        ("oneDNN flops/s", "matrix product, fp32, oneDNN"),
        ("bf16 flops/s", "matrix product, bf16"),
    ):
        if rates := column(rounds, key):
            found.append(Row(what, tuple(rate / 1e9 for rate in rates), "GFLOP/s"))
    rates = column(rounds, "copy bytes/s")
    found.append(Row("copy, read and write", tuple(rate / 1e9 for rate in rates), "GB/s"))
    for name in [key.removesuffix(" roofline") for key in rounds[0] if key.endswith(" roofline")]:
        ours, roof = _ms(rounds, name), _ms(rounds, f"{name} roofline")
        bare = _ms(rounds, f"{name} bare")
        shares = quotients(roof, ours)
        found.append(Row(name, ours, "ms", "roofline", roof, shares, "%", 0.70))
        if in_turn := _ms(rounds, f"{name} in turn"):
            share = quotients(in_turn, ours)
            found.append(Row(name, ours, "ms", "products, then bytes", in_turn, share, "%"))
        found.append(Row(name, ours, "ms", "bare step", bare, quotients(bare, ours), "%"))
    return found


def _ms(rounds: Rounds, key: str) -> tuple[float, ...]:
    return tuple(1000.0 * seconds for seconds in column(rounds, key))
