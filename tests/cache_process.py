"""A process of its own that decodes into a cache, for tests that kill it or let two of them meet.

    python cache_process.py FILMS STORE LOG WINDOW [--kill-at-fsync K] [--stop-at NAME GO]

Each film decoded is a line in LOG. `--kill-at-fsync` kills the process before its K-th fsync;
`--stop-at` waits before the film NAME until the file GO exists. When another process builds, the
line `waiting` goes to LOG; at the end `done`, and whether the entry was reused.
"""

import argparse
import os
import signal
import time
from pathlib import Path

from xray_classifier.data import cache_entry, preparing
from xray_classifier.data.cache import cached_images
from xray_classifier.data.decode import Film, read_film
from xray_classifier.data.manifest import Manifest, build_manifest

SIZE = 8


def manifest_of(films: Path) -> Manifest:
    """The films of folder `a` or class 0, healthy, and of `b` or 1, sick."""
    labels = (("0",), ("1",)) if films.suffix == ".npz" else (("a",), ("b",))
    return build_manifest(
        source="auto", path=films, task="classify", healthy=labels[0], sick=labels[1], ignore=(),
        path_column="path", label_column="label", patient_column=None, split_column=None,
        patient=None, phantom_images=0, phantom_seed=0,
    )  # fmt: skip


def main() -> None:
    """Decode as told."""
    options = _parse()
    cache_entry.WINDOW = options.window

    def note(text: str) -> None:
        with options.log.open("a") as file:
            file.write(text + "\n")

    def read_and_note(path: Path, for_processing: str) -> Film:
        if options.stop_at and path.name == options.stop_at[0]:
            while not Path(options.stop_at[1]).exists():
                time.sleep(0.01)
        note(path.name)
        return read_film(path, for_processing)

    preparing.read_film = read_and_note
    if options.kill_at_fsync:
        _kill_at_fsync(options.kill_at_fsync)
    found = cached_images(
        manifest_of(options.films), size=SIZE, crop="center", intensity="equalize",
        folder=options.store, workers=1, waiting=lambda _: note("waiting"),
    )  # fmt: skip
    note(f"done {found.reused}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("films", "store", "log"):
        parser.add_argument(name, type=Path)
    parser.add_argument("window", type=int)
    parser.add_argument("--kill-at-fsync", type=int)
    parser.add_argument("--stop-at", nargs=2)
    return parser.parse_args()


def _kill_at_fsync(count: int) -> None:
    left = count
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = counted


if __name__ == "__main__":
    main()
