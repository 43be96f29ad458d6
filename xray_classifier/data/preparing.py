"""The images of a manifest as the model sees them, in order, prepared on all cores.

Many files are prepared by processes that may die, as `predict` does it: two threads decode small
films no faster than one, for they wait for the interpreter. Few files and NPZ images are prepared
by threads, phantoms by processes of their own. Only a bounded number of images is in memory at a
time.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from xray_classifier.data.decode import film_from_array, read_film
from xray_classifier.data.isolation import DecodingPool
from xray_classifier.data.manifest import Manifest, NpzImages
from xray_classifier.data.phantom_workers import drawn_in_order
from xray_classifier.data.signature import SIGNATURE, Decoded, Prepared, prepared
from xray_classifier.errors import DecodeError

AHEAD_PER_WORKER = 32  # enough to keep all cores busy while a window is written to disk
AHEAD_BYTES = 2**27

POOL_FROM = 1000
"""Files from which on starting processes pays: it takes as long as 700 films of 224 px."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Settings:
    """How images are prepared.

    Attributes:
        size: Side S of the result in pixels.
        crop: See `prepare`.
        intensity: See `prepare`.
        for_processing: See `read_film`.
    """

    size: int
    crop: str
    intensity: str
    for_processing: str = "reject"


def prepared_images(
    manifest: Manifest, rows: Sequence[int], settings: Settings, workers: int
) -> Generator[Decoded, None, None]:
    """Some images of a manifest, prepared, in the order given, or why there is none.

    Args:
        manifest: Which images.
        rows: Which rows of it; fastest in ascending order.
        settings: How.
        workers: Threads or processes.

    Raises:
        DataError: The NPZ file is damaged.
    """
    s = settings
    if manifest.kind == "phantoms":
        seed, numbers = manifest.phantom_seed or 0, [manifest.phantom_rows[row] for row in rows]
        return _passed_on(drawn_in_order(seed, numbers, s.size, s.crop, s.intensity, workers))
    if manifest.kind == "npz" and manifest.root is not None:
        return _npz_images(manifest.root, [manifest.ids[row] for row in rows], s, workers)
    files = [manifest.files[row] for row in rows]
    if workers > 1 and len(files) >= POOL_FROM:
        return _isolated(files, s, workers)
    ahead = _ahead(s.size * s.size, workers)
    return decode_in_order(lambda path: _prepared_file(path, s), files, workers, ahead)


def _isolated(
    files: Sequence[Path], settings: Settings, workers: int
) -> Generator[Decoded, None, None]:
    """Films of files from disposable processes; a slow drive is waited for, as by threads."""
    with (
        DecodingPool(asdict(settings), workers, wall_s=None) as pool,
        contextlib.closing(pool.decoded(files)) as films,
    ):
        for path, film in zip(files, films, strict=True):
            if isinstance(film, Prepared):
                film.signature["file_bytes"] = _file_bytes(path)
            yield film


def _passed_on(films: Generator[Prepared, None, None]) -> Generator[Decoded, None, None]:
    with contextlib.closing(films):
        yield from films


def _prepared_file(path: Path, settings: Settings) -> Prepared:
    film = read_film(path, settings.for_processing)
    s = settings
    return prepared(film, s.size, s.crop, s.intensity, _file_bytes(path))


def _file_bytes(path: Path) -> int:
    """Size of a file in bytes; 0 where it has vanished."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _npz_images(
    path: Path, ids: Sequence[str], settings: Settings, workers: int
) -> Generator[Decoded, None, None]:
    arrays = NpzImages(path)
    arrays.verify(ids)  # before the first image is used: the checksum stands for a whole array
    ahead = _ahead(arrays.largest_bytes(ids) + settings.size**2, workers)

    def prepare_array(array: NDArray[Any]) -> Prepared:
        return prepared(film_from_array(array), settings.size, settings.crop, settings.intensity)

    yield from decode_in_order(prepare_array, arrays.rows(ids), workers, ahead)


def _ahead(item_bytes: int, workers: int) -> int:
    """How many images may be in the works at once."""
    fitting = AHEAD_BYTES // (item_bytes + SIGNATURE.itemsize)
    return max(workers + 1, min(AHEAD_PER_WORKER * workers, fitting))


def decode_in_order(
    decode: Callable[[Item], Prepared], items: Iterable[Item], workers: int, ahead: int
) -> Generator[Decoded, None, None]:
    """Decode items with threads, in order.

    Args:
        decode: Called with an item by any thread; a DecodeError it raises becomes the result.
        items: Read by the caller's thread, at most `ahead` before they are asked for.
        workers: Threads.
        ahead: Most items and results in memory at a time.
    """

    def attempt(item: Item) -> Decoded:
        try:
            return decode(item)
        except DecodeError as error:
            return error

    pool = ThreadPoolExecutor(workers)
    try:
        yield from _results(pool, attempt, items, ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _results(
    pool: ThreadPoolExecutor,
    attempt: Callable[[Item], Decoded],
    items: Iterable[Item],
    ahead: int,
) -> Iterator[Decoded]:
    pending: deque[Future[Decoded]] = deque()
    for item in items:
        pending.append(pool.submit(attempt, item))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
