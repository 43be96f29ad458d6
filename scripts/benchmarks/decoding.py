"""Decoding films at full resolution, against Pillow alone with one process for each core."""

import os
import time
from collections.abc import Callable, Iterable
from itertools import cycle, islice

from scripts.benchmarks.pillow_alone import of_pillow
from scripts.benchmarks.place import Place, Raw, Rounds, column
from scripts.benchmarks.rows import Row, quotients
from xray_classifier.config import DataConfig
from xray_classifier.data.loading import run_manifest
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.preparing import Settings, prepared_images
from xray_classifier.errors import DecodeError

TITLE = "decoding films at full resolution"
EVERY_ROUND = True
WARM_UP = 16
JPEG = (".jpeg", ".jpg")


def measure(place: Place) -> Raw:
    """Films a second of what builds the cache, and of Pillow alone."""
    data = DataConfig.model_validate(
        {
            "source": "folder",
            "path": place.films,
            "labels": {"healthy": ["NORMAL"], "sick": ["PNEUMONIA"]},
            "patient": None,
        }
    )
    manifest = run_manifest(data, "classify")
    jpegs = [row for row, path in enumerate(manifest.files) if path.suffix.lower() in JPEG]
    rows_asked = [*jpegs[:WARM_UP], *islice(cycle(jpegs), place.numbers.decoded)]
    n_warm = len(jpegs[:WARM_UP])
    return {
        "ours": of_ours(manifest, rows_asked, n_warm),
        "Pillow": of_pillow([manifest.files[row] for row in rows_asked], n_warm),
    }


def of_ours(manifest: Manifest, rows_asked: list[int], n_warm: int) -> float:
    """Films a second, decoded, resized, equalised and remembered."""
    workers = os.cpu_count() or 1
    settings = Settings(64, "center", "equalize")
    return rate(
        lambda chosen: prepared_images(manifest, chosen, settings, workers), rows_asked, n_warm
    )


def rate(
    work: Callable[[list[int]], Iterable[object]], rows_asked: list[int], n_warm: int
) -> float:
    """Films a second, after a few that are not counted.

    Raises:
        DecodeError: One could not be decoded, so that the rate would be too good.
    """
    list(work(rows_asked[:n_warm]))
    start_s = time.perf_counter()
    found = list(work(rows_asked[n_warm:]))
    seconds = time.perf_counter() - start_s
    for film in found:
        if isinstance(film, DecodeError):
            raise film
    return len(found) / seconds


def rows(rounds: Rounds) -> list[Row]:
    """Ours as a share of the decoder alone."""
    ours, pillow = column(rounds, "ours"), column(rounds, "Pillow")
    share = quotients(ours, pillow)
    return [Row("JPEG to 64 x 64 bytes", ours, "films/s", "Pillow", pillow, share, "%", 0.90)]
