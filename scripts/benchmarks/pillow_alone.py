"""Pillow decoding files and nothing else; in a module of its own, so that processes are light."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path


def of_pillow(files: list[Path], n_warm: int) -> float:
    """Films a second of decoding alone, one process for each core, started before."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        list(pool.map(load, files[:n_warm]))
        start_s = time.perf_counter()
        n = sum(pool.map(load, files[n_warm:], chunksize=4))
        return n / (time.perf_counter() - start_s)


def load(path: Path) -> int:
    """Decode one file, and do nothing with it."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()
    return 1
