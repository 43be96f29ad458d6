"""A build of the cache that is killed, starved or met by another one."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cache_process import SIZE, manifest_of
from numpy.typing import NDArray
from tiny_runs import class_folders, save_film

from xray_classifier.data import cache_build, cache_entry, preparing
from xray_classifier.data.cache import CachedImages, cache_entries, cached_images, clear_cache
from xray_classifier.data.cache_entry import open_entry
from xray_classifier.data.decode import Film, decode_file, film_from_array, read_film
from xray_classifier.data.preparing import decode_in_order
from xray_classifier.data.signature import Prepared, prepared
from xray_classifier.errors import DataError, DecodeError, OutputError
from xray_classifier.locks import turn

N_FILMS = 18
WINDOW = 4
N_WINDOWS = 5
FORCED_PER_WINDOW = 3  # images, signatures, journal
PROCESS = [sys.executable, str(Path(__file__).with_name("cache_process.py"))]
PATIENCE_S = 60

posix_only = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of four films, so that few films make many of them."""
    monkeypatch.setattr(cache_entry, "WINDOW", WINDOW)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Eighteen films, one of them unreadable."""
    folder = class_folders(tmp_path / "films", {"a": 10, "b": 8})
    (folder / "a" / "film006.png").write_bytes(b"no image at all")
    return folder


@pytest.fixture
def store(films: Path, tmp_path: Path) -> Path:
    """A cache folder in which the films' digests are known, and nothing else."""
    folder = tmp_path / "cache"
    cached(films, folder)
    [(entry, _)] = cache_entries(folder)
    shutil.rmtree(entry)
    return folder


@pytest.fixture
def unbroken(films: Path, tmp_path: Path) -> CachedImages:
    """What a build gives that nothing disturbs."""
    return cached(films, tmp_path / "another cache")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Relative names of the films decoded in this process, as they are."""
    names: list[str] = []

    def noted(path: Path, for_processing: str) -> Film:
        names.append(f"{path.parent.name}/{path.name}")
        return read_film(path, for_processing)

    monkeypatch.setattr(preparing, "read_film", noted)
    return names


def cached(films: Path, folder: Path) -> CachedImages:
    """`cached_images` of a folder, small."""
    return cached_images(
        manifest_of(films), size=SIZE, crop="center", intensity="equalize", folder=folder,
        workers=1,
    )  # fmt: skip


def assert_same(one: CachedImages, other: CachedImages) -> None:
    """Equal to the last byte."""
    assert one.images.tobytes() == other.images.tobytes()
    assert one.signatures.tobytes() == other.signatures.tobytes()
    assert one.reasons == other.reasons


def started(films: Path, store: Path, log: Path, *words: object) -> "subprocess.Popen[bytes]":
    """A process that decodes; see cache_process.py."""
    arguments = [films, store, log, WINDOW, *words]
    return subprocess.Popen([*PROCESS, *map(str, arguments)])


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    for _ in range(PATIENCE_S * 100):  # in steps of 10 ms
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited in vain")


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def fail_at_fsync(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Let the `count`-th fsync from now on, and all that follow, fail."""
    calls = iter(range(1, 10**9))
    fsync = os.fsync

    def forced(descriptor: int) -> None:
        if next(calls) >= count:
            raise error
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", forced)


@posix_only
@pytest.mark.parametrize("fsync", [1, 2, 3, 4, 6, 11, 14, 15, 16, 17, 18])
def test_a_killed_build_goes_on_after_its_last_whole_window(
    fsync: int, films: Path, store: Path, tmp_path: Path, unbroken: CachedImages, decoded: list[str]
) -> None:
    process = started(films, store, tmp_path / "log", "--kill-at-fsync", fsync)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    renamed = fsync > N_WINDOWS * FORCED_PER_WINDOW + 2  # index.json and its folder
    assert bool([path for path, _ in cache_entries(store) if path.name[0] != "."]) == renamed
    decoded.clear()
    found = cached(films, store)
    assert len(decoded) == max(0, N_FILMS - WINDOW * (fsync // FORCED_PER_WINDOW))
    assert_same(found, unbroken)
    assert found.reused == renamed
    [(entry, _)] = cache_entries(store)
    assert not entry.name.startswith(".")


@posix_only
@pytest.mark.slow
def test_kills_at_random_moments_never_cost_an_entry(tmp_path: Path) -> None:
    seed, kills, chains, failures = 20260101, 0, 0, 0
    rng = np.random.default_rng(seed)
    films = class_folders(tmp_path / "films", {"a": 300, "b": 300})
    whole = cached(films, tmp_path / "unbroken")
    while kills < 200:
        store = tmp_path / f"cache{chains}"
        done, longest_s = False, 1.0
        while not done:
            process = started(films, store, tmp_path / "log")
            try:
                done = process.wait(float(rng.uniform(0.2, longest_s))) == 0
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE_S)
                kills += 1
                longest_s *= 1.05  # a slow machine ends too
        found = cached(films, store)
        chains += 1
        failures += not found.reused or found.images.tobytes() != whole.images.tobytes()
        failures += found.signatures.tobytes() != whole.signatures.tobytes()
    print(f"seed {seed}: {kills} kills in {chains} builds, {failures} failures")
    assert failures == 0


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]
)
def test_ctrl_c_and_a_full_disk_keep_whole_windows(
    error: BaseException,
    films: Path,
    store: Path,
    unbroken: CachedImages,
    decoded: list[str],
) -> None:
    decoded.clear()
    with pytest.MonkeyPatch.context() as patch:
        fail_at_fsync(patch, 2 * FORCED_PER_WINDOW + 1, error)
        with pytest.raises((KeyboardInterrupt, OutputError)):
            cached(films, store)
    [(partial, size_bytes)] = cache_entries(store)
    assert partial.name.startswith(".")
    assert size_bytes > 0
    decoded.clear()
    assert_same(cached(films, store), unbroken)
    assert len(decoded) == N_FILMS - 2 * WINDOW


def flip(path: Path, place: int) -> None:
    """Change one byte of a file."""
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x08
    path.write_bytes(bytes(raw))


def cut(path: Path, n_bytes: int) -> None:
    """Drop the last bytes of a file."""
    path.write_bytes(path.read_bytes()[:-n_bytes])


def append(path: Path, content: bytes) -> None:
    """Add bytes to the end of a file."""
    path.write_bytes(path.read_bytes() + content)


IMAGE_BYTES = SIZE * SIZE
DAMAGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "nothing": (lambda p: None, 0),
    "a pixel of window 1": (lambda p: flip(p / "images.npy", 128 + 5 * IMAGE_BYTES), 1),
    "the header": (lambda p: flip(p / "images.npy", 20), 0),
    "no images": (lambda p: (p / "images.npy").unlink(), 2),
    "images cut in window 1": (lambda p: cut(p / "images.npy", 11 * IMAGE_BYTES), 1),
    "images cut in window 2": (lambda p: cut(p / "images.npy", 9 * IMAGE_BYTES), 0),
    "images too long": (lambda p: append(p / "images.npy", b"x" * 99), 0),
    "a signature of window 0": (lambda p: flip(p / "signatures.npy", 2000), 1),
    "no signatures": (lambda p: (p / "signatures.npy").unlink(), 2),
    "a torn line": (lambda p: cut(p / "windows.jsonl", 5), 1),
    "a lost newline": (lambda p: cut(p / "windows.jsonl", 1), 1),
    "half a line more": (lambda p: append(p / "windows.jsonl", b'{"checksum": "0'), 0),
    "a changed line": (lambda p: flip(p / "windows.jsonl", 20), 1),
    "garbage": (lambda p: (p / "windows.jsonl").write_bytes(b"\xff[{}]\n\n7\n"), 2),
    "no journal": (lambda p: (p / "windows.jsonl").unlink(), 2),
}
"""What happens to a build of which two windows are whole, and how many of them that costs."""


def interrupt_a_build(films: Path, store: Path) -> None:
    """Leave a build that was stopped in its third window."""
    with pytest.MonkeyPatch.context() as patch:
        fail_at_fsync(patch, 2 * FORCED_PER_WINDOW + 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            cached(films, store)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_torn_in_an_unfinished_build_is_decoded_again(
    damage: str, films: Path, store: Path, unbroken: CachedImages, decoded: list[str]
) -> None:
    interrupt_a_build(films, store)
    [(partial, _)] = cache_entries(store)
    harm, lost = DAMAGES[damage]
    harm(partial)
    decoded.clear()
    assert_same(cached(films, store), unbroken)
    assert len(decoded) == N_FILMS - (2 - lost) * WINDOW
    decoded.clear()
    assert cached(films, store).reused
    assert decoded == []


@pytest.mark.parametrize("name", ["images.npy", "signatures.npy", "index.json"])
def test_a_flipped_byte_in_any_file_of_an_entry_is_seen(
    name: str, films: Path, store: Path
) -> None:
    cached(films, store)
    [(entry, _)] = cache_entries(store)
    good = (entry / name).read_bytes()
    assert open_entry(entry, N_FILMS, SIZE, 2) is not None
    places = range(len(good)) if name == "index.json" else (*range(64), *range(64, len(good), 97))
    for place in places:
        flip(entry / name, place)
        assert open_entry(entry, N_FILMS, SIZE, 2) is None, place
        (entry / name).write_bytes(good)
    (entry / name).write_bytes(good + b"\0")
    assert open_entry(entry, N_FILMS, SIZE, 2) is None
    (entry / name).write_bytes(good)
    flip(entry / name, len(good) // 2)
    assert not cached(films, store).reused
    assert cached(films, store).reused


def test_a_window_swapped_with_another_is_seen(films: Path, store: Path) -> None:
    cached(films, store)
    [(entry, _)] = cache_entries(store)
    for part in cache_entry.parts_of(N_FILMS, SIZE):
        raw = (entry / part.name).read_bytes()
        a, b, c = (part.place(row) for row in (0, WINDOW, 2 * WINDOW))
        (entry / part.name).write_bytes(raw[:a] + raw[b:c] + raw[a:b] + raw[c:])
    assert open_entry(entry, N_FILMS, SIZE, 1) is None


@posix_only
def test_of_two_processes_one_decodes_and_the_other_waits(
    films: Path, store: Path, tmp_path: Path, unbroken: CachedImages
) -> None:
    go = tmp_path / "go"
    first = started(films, store, tmp_path / "log1", "--stop-at", "film005.png", go)
    until(lambda: len(lines_of(tmp_path / "log1")) >= 5)
    second = started(films, store, tmp_path / "log2")
    until(lambda: "waiting" in lines_of(tmp_path / "log2"))
    go.touch()
    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (0, 0)
    assert len(lines_of(tmp_path / "log1")) == N_FILMS + 1
    assert lines_of(tmp_path / "log1")[-1] == "done False"
    assert lines_of(tmp_path / "log2") == ["waiting", "done True"]
    assert_same(cached(films, store), unbroken)
    assert not list(store.glob(".*"))


@posix_only
def test_who_waits_goes_on_when_the_builder_is_killed(
    films: Path, store: Path, tmp_path: Path, unbroken: CachedImages
) -> None:
    stop = ("--stop-at", "film009.png", tmp_path / "never")
    first = started(films, store, tmp_path / "log1", *stop)
    until(lambda: sum(map(len, map(lines_of, store.glob(".*/windows.jsonl")))) > 0)
    until(lambda: len(lines_of(next(store.glob(".*/windows.jsonl")))) == 2)
    second = started(films, store, tmp_path / "log2")
    until(lambda: "waiting" in lines_of(tmp_path / "log2"))
    first.kill()
    first.wait(PATIENCE_S)
    assert second.wait(PATIENCE_S) == 0
    assert len(lines_of(tmp_path / "log2")) == 1 + N_FILMS - 2 * WINDOW + 1
    found = cached(films, store)
    assert found.reused
    assert_same(found, unbroken)


def test_who_waits_hears_of_progress_and_why(films: Path, store: Path) -> None:
    interrupt_a_build(films, store)
    [(partial, _)] = cache_entries(store)
    entry = partial.with_name(partial.name[1:25])
    said: list[object] = []

    def tell(*words: object) -> None:
        said.extend(words)
        if len(said) >= 5:
            raise TimeoutError

    with turn(cache_build.lock_of(entry)), pytest.raises(TimeoutError):
        cached_images(
            manifest_of(films), size=SIZE, crop="center", intensity="equalize", folder=store,
            workers=1, progress=tell, waiting=tell,
        )  # fmt: skip
    assert "another process" in str(said[0])
    assert said[1:5] == [8, N_FILMS, 8, N_FILMS]


def test_clearing_spares_what_is_being_built_and_removes_what_was_abandoned(
    films: Path, store: Path
) -> None:
    interrupt_a_build(films, store)
    [(partial, size_bytes)] = cache_entries(store)
    entry = partial.with_name(partial.name[1:25])
    with turn(cache_build.lock_of(entry)):
        assert clear_cache(store) == 0
        assert partial.is_dir()
    cache_build.lock_of(entry).touch()  # as a killed process leaves it
    assert clear_cache(store) == size_bytes
    assert list(store.iterdir()) == []


def test_films_that_change_while_they_are_decoded_are_decoded_again(
    films: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = films / "a" / "film002.png"
    seeds = iter([77])

    def edit_and_read(path: Path, for_processing: str) -> Film:
        if path == films / "b" / "film000.png":
            for seed in seeds:
                save_film(changed, seed)
        return read_film(path, for_processing)

    monkeypatch.setattr(preparing, "read_film", edit_and_read)
    found = cached(films, store)
    alone = decode_file(changed, SIZE, "center", "equalize")
    np.testing.assert_array_equal(found.images[2], alone)
    [(entry, _)] = cache_entries(store)
    assert not entry.name.startswith(".")
    assert cached(films, store).reused
    seeds = iter(range(100, 200))
    save_film(changed, 99)

    def edit_always(path: Path, for_processing: str) -> Film:
        save_film(changed, next(seeds))
        return read_film(path, for_processing)

    monkeypatch.setattr(preparing, "read_film", edit_always)
    with pytest.raises(DataError, match="changed while they were decoded"):
        cached(films, store)


@pytest.fixture
def named_patients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """A switch that gives films a patient and chooses the folder of the key."""

    def named(path: Path, for_processing: str) -> Film:
        film = read_film(path, for_processing)
        return replace(film, origin=replace(film.origin, patient="ab" * 16))

    def switch(name: str) -> Path:
        monkeypatch.setattr(preparing, "read_film", named)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / name))
        return tmp_path / name

    return switch


def test_pseudonyms_of_another_key_are_made_anew(
    films: Path, store: Path, named_patients: Callable[[str], Path]
) -> None:
    named_patients("one")
    found = cached(films, store)
    patients = np.delete(found.signatures["patient"], 6, axis=0)
    assert (patients == 0xAB).all()
    assert cached(films, store).reused
    named_patients("two")
    assert not cached(films, store).reused
    assert cached(films, store).reused


def test_windows_decoded_under_another_key_are_not_used(
    films: Path, store: Path, named_patients: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    named_patients("one")
    with pytest.MonkeyPatch.context() as patch:
        fail_at_fsync(patch, 10**6, KeyboardInterrupt())
        cached(films, store)  # makes the key, whose writing would be counted
        clear_cache(store)
        cached(class_folders(films.parent / "others", {"a": 1, "b": 1}), store)
    with pytest.MonkeyPatch.context() as patch:
        fail_at_fsync(patch, 2 + 2 * FORCED_PER_WINDOW + 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            cached(films, store)
    named_patients("two")
    read = preparing.read_film
    names: list[str] = []
    monkeypatch.setattr(
        preparing, "read_film", lambda path, how: (names.append(path.name), read(path, how))[1]
    )
    cached(films, store)
    assert len(names) == N_FILMS


def test_no_key_is_made_for_films_without_patients(
    films: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for _ in range(2):
        cached(films, store)
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_few_are_held(workers: int) -> None:
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        for taken in range(1, 201):
            yield taken - 1

    def decode(number: int) -> Prepared:
        if number % 7 == 3:
            raise DecodeError("blank", str(number))
        return Prepared(np.full((1, 1), number, np.uint8), np.zeros(1, cache_entry.SIGNATURE))

    for given, result in enumerate(decode_in_order(decode, numbers(), workers, ahead=9)):
        assert taken - given <= 9
        if given % 7 == 3:
            assert isinstance(result, DecodeError)
            assert result.detail == str(given)
        else:
            assert isinstance(result, Prepared)
            assert result.pixels[0, 0] == given
    assert taken == 200


def test_a_build_that_is_given_up_decodes_no_further() -> None:
    decoded: list[int] = []

    def decode(number: int) -> Prepared:
        decoded.append(number)
        return Prepared(np.zeros((1, 1), np.uint8), np.zeros(1, cache_entry.SIGNATURE))

    stream = decode_in_order(decode, range(10**6), 2, ahead=4)
    next(stream)
    stream.close()
    assert len(decoded) <= 5


def npz_of(path: Path, images: NDArray[np.uint8]) -> Path:
    labels = np.arange(len(images)) % 2
    np.savez_compressed(path, train_images=images, train_labels=labels)
    return path


def test_an_npz_is_never_in_memory_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_entry, "WINDOW", 64)
    monkeypatch.setattr(preparing, "AHEAD_BYTES", 2**19)
    n_images, side = 1024, 128
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n_images, side, side), dtype=np.uint8)
    manifest = manifest_of(npz_of(tmp_path / "set.npz", images))
    tracemalloc.start()
    try:
        found = cached_images(
            manifest, size=side, crop="center", intensity="minmax", folder=tmp_path / "cache",
            workers=2,
        )  # fmt: skip
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < images.nbytes / 2
    for row in (0, n_images - 1):
        alone = prepared(film_from_array(images[row]), side, "center", "minmax")
        np.testing.assert_array_equal(found.images[row], alone.pixels)
        assert found.signatures[row].tobytes() == alone.signature.tobytes()
