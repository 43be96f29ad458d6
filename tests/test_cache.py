"""Images are decoded once, and what comes from the cache is what decoding gives."""

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import class_folders, film, save_film

from xray_classifier.data import cache, content, preparing
from xray_classifier.data.cache import CachedImages, cache_entries, cached_images, clear_cache
from xray_classifier.data.decode import Film, decode_file, film_from_array, read_film
from xray_classifier.data.manifest import Manifest, build_manifest
from xray_classifier.data.signature import CONTAINERS, SIGNATURE, signature_of
from xray_classifier.errors import OutputError

SIZE = 8


def manifest_of(
    path: Path | None, source: Any = "auto", phantoms: int = 16, seed: int = 0
) -> Manifest:
    """The images at a path, healthy folder `a`, sick folder `b`."""
    return build_manifest(
        source=source,
        path=path,
        task="classify",
        healthy=("healthy",) if source == "phantoms" else ("a",) if source == "auto" else ("0",),
        sick=("sick",) if source == "phantoms" else ("b",) if source == "auto" else ("1",),
        ignore=(),
        path_column="path",
        label_column="label",
        patient_column=None,
        split_column=None,
        patient=None,
        phantom_images=phantoms,
        phantom_seed=seed,
    )


def cached(
    manifest: Manifest,
    folder: Path,
    size: int = SIZE,
    crop: str = "center",
    intensity: str = "equalize",
) -> CachedImages:
    """`cached_images` with small settings."""
    return cached_images(
        manifest, size=size, crop=crop, intensity=intensity, folder=folder, workers=2
    )


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Two class folders of films."""
    return class_folders(tmp_path / "films", {"a": 5, "b": 4})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where the cache goes."""
    return tmp_path / "cache"


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A switch after which decoding is a failure of the test."""

    def fail(*arguments: object) -> None:
        raise AssertionError("decoded again")

    return lambda: monkeypatch.setattr(preparing, "read_film", fail)


def test_the_array_holds_what_decoding_gives_row_by_row_in_order(films: Path, store: Path) -> None:
    manifest = manifest_of(films)
    found = cached(manifest, store)
    assert found.images.shape == (9, SIZE, SIZE)
    assert found.images.dtype == np.uint8
    for row, path in enumerate(manifest.files):
        alone = decode_file(path, SIZE, "center", "equalize")
        np.testing.assert_array_equal(found.images[row], alone)
    assert list(manifest.ids) == sorted(manifest.ids)


def test_signatures_are_those_of_the_films(films: Path, store: Path) -> None:
    (films / "a" / "film001.png").write_bytes(b"no image at all")
    manifest = manifest_of(films)
    for _ in range(2):  # decoded, then from the cache
        found = cached(manifest, store)
        assert found.signatures.shape == (9,)
        assert found.signatures.dtype == SIGNATURE
        assert not any(found.signatures[1].tobytes())
        for row in (0, *range(2, 9)):
            path = manifest.files[row]
            alone = signature_of(read_film(path), path.stat().st_size)
            assert found.signatures[row].tobytes() == alone.tobytes()


def test_arrays_and_phantoms_have_no_file_of_their_own(tmp_path: Path, store: Path) -> None:
    images = np.stack([film(seed) for seed in range(6)])
    path = tmp_path / "set.npz"
    np.savez(path, train_images=images, train_labels=np.arange(6) % 2)
    arrays = cached(manifest_of(path, "npz"), store).signatures
    for row in range(6):
        assert arrays[row].tobytes() == signature_of(film_from_array(images[row])).tobytes()
    phantoms = cached(manifest_of(None, "phantoms"), store).signatures
    assert not arrays["file_bytes"].any()
    assert not phantoms["file_bytes"].any()
    assert {CONTAINERS[place] for place in arrays["container"]} == {"ARRAY"}
    assert {CONTAINERS[place] for place in phantoms["container"]} == {"PHANTOM"}
    assert set(phantoms["bits"].tolist()) <= {10, 12}


def test_raw_detector_data_are_another_entry(films: Path, store: Path) -> None:
    keys = {
        for_processing: cached_images(
            manifest_of(films), size=SIZE, crop="center", intensity="equalize", folder=store,
            for_processing=for_processing,
        ).reused
        for for_processing in ("reject", "accept")
    }  # fmt: skip
    assert keys == {"reject": False, "accept": False}
    assert len(cache_entries(store)) == 2


def test_the_second_run_decodes_nothing(
    films: Path, store: Path, no_decoding: Callable[[], None]
) -> None:
    first = cached(manifest_of(films), store)
    no_decoding()
    second = cached(manifest_of(films), store)
    assert (first.reused, second.reused) == (False, True)
    assert second.digests == first.digests
    np.testing.assert_array_equal(first.images, second.images)


def test_a_touched_or_moved_folder_is_the_same_content(
    films: Path, store: Path, no_decoding: Callable[[], None]
) -> None:
    before = cached(manifest_of(films), store)
    no_decoding()
    for path in films.rglob("*.png"):
        os.utime(path, (1, 1))
    assert cached(manifest_of(films), store).digests == before.digests
    moved = films.rename(films.parent / "elsewhere")
    after = cached(manifest_of(moved), store)
    assert after.digests == before.digests
    assert after.reused


@pytest.mark.parametrize(("n", "fewest"), [(8, 3), (300, 4)])
def test_every_thread_gets_files_to_read(
    n: int, fewest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: set[int] = set()

    def slow(path: Path) -> tuple[str, int, int]:
        readers.add(threading.get_ident())
        time.sleep(0.01)
        return path.name, 1, 1

    monkeypatch.setattr(content, "_digest_file", slow)
    files = [Path(str(row)) for row in range(n)]
    assert [digest for digest, _, _ in content._digest_all(files, 4)] == [f.name for f in files]
    assert len(readers) >= fewest


def test_settings_and_content_make_another_entry(films: Path, store: Path) -> None:
    manifest = manifest_of(films)
    variants: list[dict[str, Any]] = [
        {}, {"size": 9}, {"crop": "pad"}, {"crop": "stretch"}, {"intensity": "minmax"},
    ]  # fmt: skip
    for variant in variants:
        assert not cached(manifest, store, **variant).reused
    assert len(cache_entries(store)) == len(variants)
    save_film(films / "a" / "film000.png", 99)
    changed = cached(manifest_of(films), store)
    assert not changed.reused
    np.testing.assert_array_equal(
        changed.images[0], decode_file(films / "a" / "film000.png", SIZE, "center", "equalize")
    )


def test_an_edit_of_the_same_length_is_noticed(films: Path, store: Path) -> None:
    path = films / "a" / "film000.bmp"
    Image.fromarray(film(50)).save(path)
    before = cached(manifest_of(films), store)
    length = path.stat().st_size
    Image.fromarray(film(51)).save(path)
    assert path.stat().st_size == length
    after = cached(manifest_of(films), store)
    assert after.digests != before.digests
    assert not after.reused


def test_unreadable_files_have_a_reason_and_a_blank_row(films: Path, store: Path) -> None:
    (films / "a" / "film001.png").write_bytes(b"")
    (films / "a" / "film002.png").write_bytes(b"no image at all")
    whole = (films / "b" / "film000.png").read_bytes()
    (films / "b" / "film000.png").write_bytes(whole[: len(whole) // 2])
    for _ in range(2):  # decoded, then from the cache
        found = cached(manifest_of(films), store)
        assert found.reasons[1:3] == ("empty_file", "not_an_image")
        assert found.reasons[5] in ("truncated", "unreadable")
        assert sum(map(bool, found.reasons)) == 3
        assert not found.images[[1, 2, 5]].any()
        alone = decode_file(films / "a" / "film003.png", SIZE, "center", "equalize")
        np.testing.assert_array_equal(found.images[3], alone)


def test_a_file_that_vanished_is_not_found(films: Path, store: Path) -> None:
    manifest = manifest_of(films)
    (films / "a" / "film000.png").unlink()
    assert cached(manifest, store).reasons[0] == "not_found"


def entry_of(store: Path) -> Path:
    """The only entry."""
    [(entry, _)] = cache_entries(store)
    return entry


def flip(path: Path, place: int) -> None:
    """Change one byte of a file."""
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x08
    path.write_bytes(bytes(raw))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a pixel flipped": lambda entry: flip(entry / "images.npy", -1),
    "the array empty": lambda entry: (entry / "images.npy").write_bytes(b""),
    "the array cut": lambda entry: (entry / "images.npy").write_bytes(
        (entry / "images.npy").read_bytes()[:-10]
    ),
    "another type": lambda entry: (entry / "images.npy").write_bytes(
        (entry / "images.npy").read_bytes().replace(b"|u1", b"|i1")
    ),
    "a pickle": lambda entry: np.save(
        entry / "images.npy", np.array([{}], dtype=object), allow_pickle=True
    ),
    "one number": lambda entry: np.save(entry / "images.npy", np.uint8(3)),
    "no array": lambda entry: (entry / "images.npy").unlink(),
    "no index": lambda entry: (entry / "index.json").unlink(),
    "an empty index": lambda entry: (entry / "index.json").write_bytes(b""),
    "an index that is a list": lambda entry: (entry / "index.json").write_text("[]"),
    "reasons that are a list": lambda entry: (entry / "index.json").write_text(
        json.dumps(json.loads((entry / "index.json").read_bytes()) | {"reasons": []})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_built_again(damage: str, films: Path, store: Path) -> None:
    manifest = manifest_of(films)
    before = np.array(cached(manifest, store).images)
    DAMAGES[damage](entry_of(store))
    after = cached(manifest, store)
    assert not after.reused
    np.testing.assert_array_equal(after.images, before)
    assert cached(manifest, store).reused


def test_numpy_itself_can_read_an_entry(films: Path, store: Path) -> None:
    found = cached(manifest_of(films), store)
    np.testing.assert_array_equal(np.load(entry_of(store) / "images.npy"), found.images)
    signatures = np.load(entry_of(store) / "signatures.npy")
    assert signatures.dtype == SIGNATURE
    assert signatures.tobytes() == found.signatures.tobytes()


@pytest.mark.parametrize("known", [b"", b"[]", b'{"61": [1, 2]}', b"\xff", b'{"x": 3}'])
def test_a_damaged_list_of_digests_is_made_again(known: bytes, films: Path, store: Path) -> None:
    before = cached(manifest_of(films), store).digests
    (store / "digests.json").write_bytes(known)
    assert cached(manifest_of(films), store).digests == before
    names = json.loads((store / "digests.json").read_bytes())
    (store / "digests.json").write_text(json.dumps(dict.fromkeys(names, 7)))
    assert cached(manifest_of(films), store).digests == before


def test_a_full_disk_is_an_output_error_that_leaves_nothing_behind(
    films: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(manifest_of(films), store, size=9)  # so that the digests are known
    before = sorted(store.rglob("*"))

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=r"data\.cache=DIR") as caught:
        cached(manifest_of(films), store)
    assert "No space left" in str(caught.value)
    assert sorted(store.rglob("*")) == before


def test_a_cache_that_is_a_file_is_an_output_error(films: Path, store: Path) -> None:
    store.write_text("not a folder")
    with pytest.raises(OutputError):
        cached(manifest_of(films), store)


def test_two_threads_at_once_decode_once(
    films: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_waits = threading.Event()
    names: list[str] = []

    def read_late(path: Path, for_processing: str) -> Film:
        assert other_waits.wait(60)
        names.append(path.name)
        return read_film(path, for_processing)

    monkeypatch.setattr(preparing, "read_film", read_late)
    results: list[CachedImages] = []

    def decode() -> None:
        found = cached_images(
            manifest_of(films), size=SIZE, crop="center", intensity="equalize", folder=store,
            workers=2, waiting=lambda _: other_waits.set(),
        )  # fmt: skip
        results.append(found)

    threads = [threading.Thread(target=decode) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found.reused for found in results) == [False, True]
    assert len(names) == 9
    np.testing.assert_array_equal(results[0].images, results[1].images)
    assert len(cache_entries(store)) == 1
    assert not [path for path in store.iterdir() if path.name.startswith(".")]


def test_an_interrupted_build_leaves_nothing_half_made(
    films: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "read_film", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cached(manifest_of(films), store)
    assert [path.name for path in store.iterdir()] == ["digests.json"]


def test_npz_images_are_cached_by_their_own_content(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "set.npz"

    def save(first_seed: int) -> None:
        images = np.stack([film(first_seed + i) for i in range(6)])
        labels = np.array([[0], [1], [0], [1], [0], [1]])
        np.savez(path, train_images=images, train_labels=labels)

    save(0)
    first = cached(manifest_of(path, "npz"), store)
    assert cached(manifest_of(path, "npz"), store).reused
    assert len(set(first.digests)) == 6
    save(10)
    second = cached(manifest_of(path, "npz"), store)
    assert not second.reused
    assert set(second.digests).isdisjoint(first.digests)


def test_phantoms_are_cached_by_their_recipe(store: Path) -> None:
    one = cached(manifest_of(None, "phantoms"), store)
    assert cached(manifest_of(None, "phantoms"), store).reused
    other = cached(manifest_of(None, "phantoms", seed=1), store)
    assert not other.reused
    assert not np.array_equal(one.images, other.images)


def test_progress_reaches_the_total(films: Path, store: Path) -> None:
    seen: list[tuple[int, int]] = []
    cached_images(
        manifest_of(films), size=SIZE, crop="center", intensity="equalize", folder=store,
        workers=1, progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(9, 9)]


def test_clearing_frees_what_was_listed_and_touches_nothing_else(films: Path, store: Path) -> None:
    cached(manifest_of(films), store)
    cached(manifest_of(films), store, size=9)
    abandoned = store / f".{entry_of_any(store).name}.abc"
    abandoned.mkdir()
    precious = store / "my_results"
    precious.mkdir()
    shutil.copy(entry_of_any(store) / "images.npy", precious / "images.npy")
    (store / "notes.txt").write_text("mine")
    (abandoned / "images.npy").write_bytes(b"half")
    sizes = [size for _, size in cache_entries(store)]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)
    assert clear_cache(store) == sum(sizes)
    assert sorted(path.name for path in store.iterdir()) == ["my_results", "notes.txt"]
    assert (precious / "images.npy").is_file()
    assert clear_cache(store / "absent") == 0


def entry_of_any(store: Path) -> Path:
    """The largest entry."""
    return cache_entries(store)[0][0]


def test_the_default_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_cache_folder() == tmp_path / "xray_classifier"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert cache.default_cache_folder() == Path.home() / ".cache" / "xray_classifier"
