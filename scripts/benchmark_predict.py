#!/usr/bin/env python3
"""Measure `predict` against the usual torchvision pipeline and against the JPEG decoder alone.

    scripts/benchmark_predict.py CHECKPOINT_OR_RUN FOLDER [--rounds N] [--images N] [--json]

Four ways through the same files, one after the other in each round, so that a busy machine slows
all of them: what `predict` and `predict --fast` do between the list of files and the rows; a
torchvision dataset (`Image.open().convert('RGB')`, `Resize`, `ToTensor`, two workers) with the same
network; and Pillow decoding with one process per core, nothing else. Starting processes and
importing is left out of all four: each way goes through some files first.

Needs this project and torchvision. Exit codes: 0 done, 2 usage.

Columns: images a second of each way, and the ratios; the last line holds their medians.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

WARM_UP = 64
LOADER_WORKERS = 2
BATCH = 32
PICTURES = {".jpeg", ".jpg", ".png"}


def main() -> int:
    """Print one line per round."""
    options = _parse()
    found = sorted(path for path in options.folder.rglob("*") if path.suffix in PICTURES)
    if not found:
        print(f"no JPEG or PNG in {options.folder}", file=sys.stderr)
        return 2
    files = list(islice(cycle(found), options.images or len(found)))
    ways = {
        "predict": of_predict,
        "fast": of_fast,
        "torchvision": of_torchvision,
        "decoder": of_decoder,
    }
    rounds = []
    for number in range(options.rounds):
        speeds = {name: way(options.checkpoint, files) for name, way in ways.items()}
        rounds.append(speeds)
        print(f"round {number + 1}: {in_words(speeds)}", flush=True)
    middle = {name: statistics.median(r[name] for r in rounds) for name in ways}
    middle_ratios = {
        key: statistics.median(ratios(r)[key] for r in rounds) for key in ratios(middle)
    }
    print(f"median: {in_words(middle)}")
    if options.json:
        print(json.dumps({"rounds": rounds, "median": middle, "ratios": middle_ratios}))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, help="files a round, repeated where there are less")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def ratios(speeds: dict[str, float]) -> dict[str, float]:
    """How `predict` and `predict --fast` compare."""
    return {
        f"{ours}_to_{other}": speeds[ours] / speeds[other]
        for ours in ("predict", "fast")
        for other in ("torchvision", "decoder")
    }


def in_words(speeds: dict[str, float]) -> str:
    """One line of figures."""
    told = ", ".join(f"{name} {speed:.1f}/s" for name, speed in speeds.items())
    found = ratios(speeds)
    compared = [
        f"{ours} is {found[f'{ours}_to_torchvision']:.2f} x torchvision and "
        f"{found[f'{ours}_to_decoder']:.0%} of the decoder alone"
        for ours in ("predict", "fast")
    ]
    return f"{told}; {', '.join(compared)}"


def timed(rows: Iterator[Any], n_warm: int, n: int) -> float:
    """Rows a second, without the first `n_warm`."""
    seen, started = 0, 0.0
    for many in rows:
        before, seen = seen, seen + many
        if before < n_warm <= seen:
            started, n_started = time.perf_counter(), seen
    return (n - n_started) / (time.perf_counter() - started)


def of_predict(checkpoint: Path, files: list[Path], fast: bool = False) -> float:
    """What the verb does, from names to finished rows."""
    from xray_classifier.classifier import load_classifier
    from xray_classifier.prediction import Prediction, decoders
    from xray_classifier.row_store import NO_STAMP
    from xray_classifier.scoring import Job, Scorer

    classifier = load_classifier(checkpoint, "cpu")
    scorer = Scorer(classifier, gate_of=classifier.gate_of("warn"))
    every = [*files[:WARM_UP], *files]
    jobs = (Job(i, str(path), str(path), "", NO_STAMP) for i, path in enumerate(every))
    with decoders(scorer.classifier, Prediction(fast=fast)) as (decoder, in_full):
        counts = (len(window) for window in scorer.scored(decoder, jobs, in_full))
        return timed(counts, WARM_UP, len(every))


def of_fast(checkpoint: Path, files: list[Path]) -> float:
    """The same with `--fast`."""
    return of_predict(checkpoint, files, fast=True)


def of_torchvision(checkpoint: Path, files: list[Path]) -> float:
    """What most programs do."""
    import torch
    from torch.utils.data import DataLoader

    from xray_classifier.classifier import load_classifier

    classifier = load_classifier(checkpoint, "cpu")
    side = classifier.size_px
    every = [*files[:WARM_UP], *files]
    loader = DataLoader(Pictures(every, side), batch_size=BATCH, num_workers=LOADER_WORKERS)

    def counts() -> Iterator[int]:
        with torch.inference_mode():
            for batch in loader:
                classifier.module(batch.mean(1, keepdim=True) * 255.0)
                yield len(batch)

    return timed(counts(), WARM_UP, len(every))


class Pictures:
    """A torchvision dataset as in its documentation."""

    def __init__(self, files: list[Path], side: int) -> None:
        from torchvision.transforms import Compose, Resize, ToTensor

        self.files = files
        self.change: Callable[..., Any] = Compose([Resize((side, side)), ToTensor()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Any:
        from PIL import Image

        return self.change(Image.open(self.files[place]).convert("RGB"))


def of_decoder(checkpoint: Path, files: list[Path]) -> float:
    """Pillow alone, in one process per core."""
    every = [*files[:WARM_UP], *files]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        return timed(pool.map(decode, every, chunksize=4), WARM_UP, len(every))


def decode(path: Path) -> int:
    """One file, as it is."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()
    return 1


if __name__ == "__main__":
    sys.exit(main())
