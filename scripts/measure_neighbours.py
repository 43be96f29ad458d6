#!/usr/bin/env python3
"""Measure how long near duplicates take to find among many films, and what is found.

    scripts/measure_neighbours.py FOLDER [N ...]

Reads the images in FOLDER and makes N thumbnails of them (10000, 30000 and 100000 unless given):
each is a film, shifted, turned and mixed with up to two others. One in fifty is then replaced by a
noisy copy of another one. Each N runs in a process of its own, on one thread.

Needs this project to be installed, and Linux or macOS. Exit codes: 0 done, 2 usage.

Columns:
    films       N
    seconds     of the search alone
    peak_mib    peak memory of the process, in MiB, and of that what the arrays given to it take
    compared    pairs of hashes compared, and how many that is for each film
    pairs       near pairs returned
    planted     copies that are near their original
    recalled    those of them that the search joins with it
    others      groups of two or more that hold no copy
    every_pair  seconds to compare every hash with every other; up to 100000 films
"""

import argparse
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xray_classifier.data.decode import read_film
from xray_classifier.data.intensity import ranks
from xray_classifier.data.neighbours import (
    NEAR_BITS,
    NEAR_CORRELATION,
    connected,
    near_pairs,
    nearest_distances,
)
from xray_classifier.data.signature import THUMB_PX, bit_distances, perceptual_hash, signature_of

SUFFIXES = {".png", ".jpg", ".jpeg", ".dcm", ".tif", ".tiff"}
SEED = 20260101
COPIED_SHARE = 0.02
MOST_SHIFT_PX = 1.0
MOST_TURN_DEGREES = 3.0
MOST_NOISE = 0.03
EVERY_PAIR_UP_TO = 100_000
HEADINGS = "films seconds peak_mib given_mib compared per_film pairs planted recalled others"
COLUMNS = [*HEADINGS.split(), "every_pair"]

Thumbs = NDArray[np.uint8]


def main() -> int:
    """Print one line per number of films."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path, help="radiographs to make thumbnails of")
    parser.add_argument("films", type=int, nargs="*", default=[10_000, 30_000, 100_000])
    asked = parser.parse_args()
    paths = sorted(path for path in asked.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"no images in {asked.folder}")
    real = np.concatenate([signature_of(read_film(path))["thumb"] for path in paths])
    print("  ".join(f"{name:>10}" for name in COLUMNS))
    for n in asked.films:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            row = alone.apply(measured, (real, n))
        print("  ".join(f"{value:>10}" for value in row), flush=True)
    return 0


def measured(real: Thumbs, n: int) -> list[str]:
    """One line of the table."""
    thumbs, originals = made(real, n, np.random.default_rng(SEED))
    hashes = np.stack([perceptual_hash(thumb.astype(np.float64)) for thumb in thumbs])
    compared: list[int] = []
    started = time.perf_counter()
    pairs = near_pairs(hashes, thumbs, compared.append)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if sys.platform == "darwin":
        peak /= 1024
    groups = connected(n, pairs)
    copies = np.flatnonzero(originals >= 0)
    near = copies[are_near(hashes, thumbs, copies, originals[copies])]
    joined = int((groups[near] == groups[originals[near]]).sum())
    with_copies = set(groups[copies].tolist())
    sizes = np.bincount(groups, minlength=n)
    others = [group for group in np.flatnonzero(sizes > 1).tolist() if group not in with_copies]
    given = (hashes.nbytes + thumbs.nbytes) / 2**20
    total = sum(compared)
    numbers = [len(pairs), len(near), joined, len(others)]
    return [
        *(str(n), f"{seconds:.1f}", f"{peak:.0f}", f"{given:.0f}", str(total), f"{total / n:.0f}"),
        *map(str, numbers),
        every_pair_s(hashes),
    ]


def made(real: Thumbs, n: int, rng: np.random.Generator) -> tuple[Thumbs, NDArray[np.int64]]:
    """Thumbnails, (n, 32, 32), and which other each is a copy of, (n,); -1 for none."""
    thumbs = np.stack([mixed(real, rng) for _ in range(n)])
    originals = np.full(n, -1)
    copies = rng.choice(n, int(n * COPIED_SHARE), replace=False)
    whole = np.setdiff1d(np.arange(n), copies)
    originals[copies] = rng.choice(whole, len(copies))
    for place in copies.tolist():
        noise = rng.normal(0.0, 255.0 * rng.uniform(0.0, MOST_NOISE), (THUMB_PX, THUMB_PX))
        thumbs[place] = ranked(thumbs[originals[place]] + ndimage.gaussian_filter(noise, 0.5))
    return thumbs, originals


def mixed(real: Thumbs, rng: np.random.Generator) -> Thumbs:
    """One film, moved, and mixed with up to two others, (32, 32)."""
    weights = np.concatenate([[1.0], rng.uniform(0.0, 0.7, rng.integers(1, 3))])
    chosen = rng.choice(len(real), len(weights))
    parts = [moved(real[place], rng) for place in chosen.tolist()]
    return ranked(np.tensordot(weights, np.stack(parts), axes=1))


def moved(thumb: Thumbs, rng: np.random.Generator) -> NDArray[np.float64]:
    """A thumbnail shifted and turned about its middle, (32, 32)."""
    angle = np.deg2rad(rng.uniform(-MOST_TURN_DEGREES, MOST_TURN_DEGREES))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, (THUMB_PX - 1) / 2)
    offset = middle - turn @ middle + rng.uniform(-MOST_SHIFT_PX, MOST_SHIFT_PX, 2)
    grey = thumb.astype(np.float64)
    return np.asarray(ndimage.affine_transform(grey, turn, offset, order=1, mode="nearest"))


def ranked(grey: NDArray[np.float64]) -> Thumbs:
    """Ranks of a picture, 0 to 255."""
    levels = np.rint(ranks(grey.astype(np.float32).ravel()) * 255.0)
    return levels.reshape(THUMB_PX, THUMB_PX).astype(np.uint8)


def are_near(
    hashes: NDArray[np.uint8], thumbs: Thumbs, one: NDArray[np.int64], other: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether films are near, pair by pair, computed one pair at a time."""
    few = bit_distances(hashes[one], hashes[other]) <= NEAR_BITS
    pairs = zip(thumbs[one], thumbs[other], strict=True)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] >= NEAR_CORRELATION for a, b in pairs]
    return few & np.array(alike, np.bool_)


def every_pair_s(hashes: NDArray[np.uint8]) -> str:
    """How long comparing every hash with every other takes; `-` for more than 100,000."""
    if len(hashes) > EVERY_PAIR_UP_TO:
        return "-"
    started = time.perf_counter()
    nearest_distances(hashes, hashes)
    return f"{time.perf_counter() - started:.1f}"


if __name__ == "__main__":
    sys.exit(main())
