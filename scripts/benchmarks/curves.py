"""What training costs as images, their side and the network grow, and with which exponent."""

import time
from collections.abc import Sequence
from pathlib import Path

from scripts.benchmarks.place import BATCH, Place, Raw, Rounds
from scripts.benchmarks.rows import Row, exponent
from scripts.benchmarks.synthetic import images_of, trainer_of, write_npz
from xray_classifier.config import DataConfig
from xray_classifier.data.loading import run_loading
from xray_classifier.terminal import Terminal

TITLE = "cost against size, and its exponent"
EVERY_ROUND = False
SIDE_PX = 64
LINEAR = 1.1  # a line with some noise in it
LOADINGS = {
    "load_cold": "find, decode and check N images, cold",
    "load_warm": "find and check N images, warm",
}


def measure(place: Place) -> Raw:
    """Seconds at each size: an epoch over N, S and units; loading over N. Lists, by size."""
    numbers = place.numbers
    hidden, n = numbers.hidden, numbers.curve_fixed
    raw = Raw(
        epoch_images=[[k, epoch_s(k, SIDE_PX, hidden)] for k in numbers.curve_images],
        epoch_pixels=[[side**2, epoch_s(n, side, hidden)] for side in numbers.curve_sides_px],
        epoch_units=[
            [units, epoch_s(n, SIDE_PX, (units, *hidden[1:]))] for units in numbers.curve_units
        ],
    )
    return raw | loading_curves(place.new_folder("curves"), numbers.curve_images)


def epoch_s(n: int, side_px: int, hidden: Sequence[int]) -> float:
    """Seconds of one epoch in fp32, after a few steps that are not counted."""
    trainer = trainer_of(images_of(n, side_px), hidden, BATCH, "fp32")
    warm = trainer_of(images_of(BATCH, side_px), hidden, BATCH, "fp32")
    warm.train_epoch()
    start_s = time.perf_counter()
    trainer.train_epoch()
    return time.perf_counter() - start_s


def loading_curves(home: Path, images: Sequence[int]) -> Raw:
    """Seconds of finding, decoding and checking N images of noise: from nothing, and again."""
    curves: Raw = {name: [] for name in LOADINGS}
    for n in images:
        write_npz(home / f"{n}.npz", n, SIDE_PX)
        data = DataConfig.model_validate(
            {
                "source": "npz",
                "path": home / f"{n}.npz",
                "labels": {"healthy": ["0"], "sick": ["1"]},
                "patient": None,
                "cache": home / f"cache-{n}",
            }
        )
        for curve in curves.values():
            start_s = time.perf_counter()
            run_loading(data, "classify", Terminal(quiet=True))
            curve.append([n, time.perf_counter() - start_s])
    return curves


WORDS = {
    "epoch_images": "epoch over N images",
    "epoch_pixels": "epoch over S x S pixels",
    "epoch_units": "epoch over units of the first layer",
    **LOADINGS,
}


def rows(rounds: Rounds) -> list[Row]:
    """Each curve: seconds at every size, and the exponent, which should be about 1 at most."""
    found = []
    for key, what in WORDS.items():
        sizes = [size for size, _ in rounds[0][key]]
        slopes = tuple(exponent(*zip(*raw[key], strict=True)) for raw in rounds)
        few, many = (tuple(raw[key][end][1] for raw in rounds) for end in (0, -1))
        between = "".join(f"{size:,}: {seconds:.3g} s; " for size, seconds in rounds[0][key][:-1])
        note = f"{between}{sizes[-1]:,}:"
        smallest = f"at {sizes[0]:,}"
        found.append(Row(what, many, "s", smallest, few, slopes, "", LINEAR, "at most", note=note))
    return found
