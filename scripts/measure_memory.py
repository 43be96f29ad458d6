#!/usr/bin/env python3
"""Measure memory and time of building the cache of decoded images, and of opening it again.

    scripts/measure_memory.py npz|files|phantoms [N ...] [--size PX] [--scratch FOLDER]

Makes N images (1000, 10000 and 50000 unless given) of noise, PX pixels high and wide: one
compressed NPZ file, PNG files, or phantoms, which are drawn at 128 pixels. Builds their cache, then
opens it, each in a process of its own. All files are removed at the end.

Needs this project to be installed, and Linux. Exit codes: 0 done, 2 usage.

Columns:
    kind, n, size   what was cached; size in pixels
    cache_mib       size of the entry
    step            build or open
    seconds         of the step, the list of images already made
    peak_mib        peak of this process's anonymous memory beyond that after its imports, sampled
                    every 5 ms; of phantoms without the processes that draw them
"""

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20260101
SAMPLED_EVERY_S = 0.005
BLOCK = 256
COLUMNS = ("kind", "n", "size", "cache_mib", "step", "seconds", "peak_mib")


def main() -> int:
    """Print one line per step."""
    options = _parse()
    print(*(f"{name:>10}" for name in COLUMNS))
    for n_images in options.n:
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            place = make_images(options.kind, n_images, options.size, Path(scratch) / "images")
            for step in ("build", "open"):
                store = Path(scratch) / "cache"
                seconds, peak = measured(options.kind, n_images, options.size, place, store)
                cache = sum(path.stat().st_size for path in store.glob("*/*"))
                row = (options.kind, n_images, options.size, cache >> 20, step, f"{seconds:.2f}")
                print(*(f"{cell:>10}" for cell in (*row, peak >> 20)), flush=True)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=("npz", "files", "phantoms"))
    parser.add_argument("n", nargs="*", type=int, default=[1_000, 10_000, 50_000])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--scratch", type=Path, help="where files are made; a disk, not memory")
    return parser.parse_args()


def make_images(kind: str, n_images: int, size: int, place: Path) -> Path | None:
    """Noise images in one NPZ file or two class folders; nothing for phantoms."""
    if kind == "phantoms":
        return None
    rng = np.random.default_rng(SEED)
    if kind == "npz":
        return make_npz(n_images, size, place.with_suffix(".npz"), zipfile.ZIP_DEFLATED)
    from PIL import Image

    for row in range(n_images):
        home = place / ("0", "1")[row % 2]
        home.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(noise).save(home / f"{row:06d}.png", compress_level=1)
    return place


def make_npz(n_images: int, size: int, path: Path, compression: int) -> Path:
    """Noise and labels in one NPZ file, made in blocks so that it may be large.

    Args:
        n_images: Images; every second one is sick.
        size: Their side in pixels.
        path: Of the file.
        compression: ZIP_STORED or ZIP_DEFLATED of `zipfile`.
    """
    rng = np.random.default_rng(SEED)
    header: dict[str, Any] = {"descr": "|u1", "fortran_order": False}
    header["shape"] = (n_images, size, size)
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, n_images, BLOCK):
                shape = (min(BLOCK, n_images - start), size, size)
                stream.write(rng.integers(0, 256, shape, dtype=np.uint8).tobytes())
        with archive.open("labels.npy", "w") as stream:
            np.save(stream, np.arange(n_images) % 2)
    return path


def measured(
    kind: str, n_images: int, size: int, place: Path | None, store: Path
) -> tuple[float, int]:
    """Seconds and peak bytes of one `cached_images` in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured_here, kind, n_images, size, place, store).result()


def _measured_here(
    kind: str, n_images: int, size: int, place: Path | None, store: Path
) -> tuple[float, int]:
    import torch  # noqa: F401 - the peak is counted from what it takes

    from xray_classifier.config import DataConfig
    from xray_classifier.data.cache import cached_images
    from xray_classifier.data.loading import run_manifest

    source = {"npz": "npz", "files": "folder", "phantoms": "phantoms"}[kind]
    data = DataConfig.model_validate(
        {"source": source, "path": place, "phantoms": {"n_images": n_images}, "patient": None}
        | ({} if kind == "phantoms" else {"labels": {"healthy": ["0"], "sick": ["1"]}})
    )
    with PeakMemory() as memory:
        manifest = run_manifest(data, "classify")
        start_s = time.perf_counter()
        cached_images(manifest, size=size, crop="center", intensity="equalize", folder=store)
        elapsed_s = time.perf_counter() - start_s
    return elapsed_s, memory.peak_bytes


class PeakMemory:
    """The most anonymous memory that this process takes beyond what it has at the start."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._start_bytes = anonymous_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLED_EVERY_S):
            self.peak_bytes = max(self.peak_bytes, anonymous_bytes() - self._start_bytes)


def anonymous_bytes() -> int:
    """Memory of this process that is no file's, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    sys.exit(main())
