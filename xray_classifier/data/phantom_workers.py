"""Synthetic films drawn by several processes at once.

Drawing is many small NumPy calls, which threads cannot share. Each worker is this module, run as a
program: it reads what to draw as JSON and writes one prepared film after the other as raw bytes.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np

from xray_classifier.data.film import film_from_array
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.data.signature import SIGNATURE, Prepared, prepared

FEW = 64  # below this many films a second process costs more than it brings


def draw_prepared(seed: int, row: int, size: int, crop: str, intensity: str) -> Prepared:
    """One film as the model sees it, and its signature.

    Args:
        seed: Which series.
        row: Which film of the series.
        size: Side S in pixels.
        crop: See `prepare`.
        intensity: See `prepare`.
    """
    film = film_from_array(draw_phantom(seed, row).pixels)
    origin = replace(film.origin, container="PHANTOM")
    return prepared(replace(film, origin=origin), size, crop, intensity)


def drawn_in_order(
    seed: int, rows: Sequence[int], size: int, crop: str, intensity: str, workers: int
) -> Generator[Prepared, None, None]:
    """Films of the given rows, prepared, in order.

    Args:
        seed: Which series.
        rows: Which films.
        size: Side S in pixels.
        crop: See `prepare`.
        intensity: See `prepare`.
        workers: Processes; 1 draws here.
    """
    if workers == 1 or len(rows) < FEW or not sys.executable:
        for row in rows:
            yield draw_prepared(seed, row, size, crop, intensity)
        return
    film_bytes = size * size + SIGNATURE.itemsize
    with contextlib.ExitStack() as stack:
        # Worker k draws every workers-th film, so that reading in turn keeps all of them busy.
        crew = [
            stack.enter_context(_worker([seed, list(rows[k::workers]), size, crop, intensity]))
            for k in range(workers)
        ]
        for place in range(len(rows)):
            stream = crew[place % workers].stdout
            content = b"" if stream is None else stream.read(film_bytes)
            if len(content) != film_bytes:
                raise RuntimeError(f"a process that drew phantoms ended at film {place}")
            yield _unpacked(content, size)


def _unpacked(content: bytes, size: int) -> Prepared:
    pixels = np.frombuffer(content, np.uint8, size * size).reshape(size, size)
    return Prepared(pixels, np.frombuffer(content, SIGNATURE, offset=size * size))


@contextlib.contextmanager
def _worker(order: list[object]) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "xray_classifier.data.phantom_workers"]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **one_thread},  # else each process keeps all cores busy with waiting
    )
    try:
        if process.stdin is not None:
            process.stdin.write(json.dumps(order).encode())
            process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def main() -> None:
    """Draw what standard input asks for; an interrupted or abandoned worker leaves quietly."""
    try:
        seed, rows, size, crop, intensity = json.loads(sys.stdin.buffer.read())
        for row in rows:
            film = draw_prepared(seed, row, size, crop, intensity)
            sys.stdout.buffer.write(film.pixels.tobytes() + film.signature.tobytes())
            sys.stdout.buffer.flush()
    except (KeyboardInterrupt, BrokenPipeError, json.JSONDecodeError):
        # Python flushes standard output once more at the end, and would complain of the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
