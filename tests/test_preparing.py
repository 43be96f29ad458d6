"""Many files are decoded by processes, few by threads; both give the same."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cache import manifest_of
from tiny_runs import class_folders

from xray_classifier.data import preparing
from xray_classifier.data.isolation import DecodingPool
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.preparing import Settings, prepared_images
from xray_classifier.data.signature import Decoded
from xray_classifier.errors import DecodeError

SETTINGS = Settings(16, "center", "equalize")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Films in two classes, some of them damaged, blank or no film."""
    root = class_folders(tmp_path / "films", {"a": 6, "b": 6})
    (root / "b" / "text.png").write_bytes(b"no film")
    whole = (root / "b" / "film000.png").read_bytes()
    (root / "b" / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(root / "a" / "blank.png")
    return manifest_of(root)


def told(film: Decoded) -> tuple[str, ...]:
    """All there is to a result."""
    if isinstance(film, DecodeError):
        return film.reason, film.detail
    return film.pixels.tobytes().hex(), film.signature.tobytes().hex()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is told of each pool that is opened, in order."""
    opened: list[Any] = []

    class Counted(DecodingPool):
        def __init__(self, *words: Any, **more: Any) -> None:
            opened.append((words, more))
            super().__init__(*words, **more)

    monkeypatch.setattr(preparing, "DecodingPool", Counted)
    return opened


def test_processes_give_what_threads_give(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = counted(monkeypatch)
    rows = list(range(len(manifest)))[::-1]
    by_threads = [told(film) for film in prepared_images(manifest, rows, SETTINGS, 2)]
    assert not opened
    monkeypatch.setattr(preparing, "POOL_FROM", len(rows))
    by_processes = [told(film) for film in prepared_images(manifest, rows, SETTINGS, 2)]
    assert len(opened) == 1
    assert by_processes == by_threads
    refused = sorted(found[0] for found in by_threads if len(found[0]) < 2 * SETTINGS.size**2)
    assert refused == ["blank", "not_an_image", "truncated"]


def test_the_size_of_each_file_is_kept(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "POOL_FROM", 1)
    films = prepared_images(manifest, range(len(manifest)), SETTINGS, 2)
    for path, film in zip(manifest.files, films, strict=True):
        if not isinstance(film, DecodeError):
            assert film.signature["file_bytes"][0] == os.path.getsize(path)  # noqa: PTH202


def test_one_worker_needs_no_process(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = counted(monkeypatch)
    monkeypatch.setattr(preparing, "POOL_FROM", 1)
    assert len(list(prepared_images(manifest, [0, 1], SETTINGS, 1))) == 2
    assert not opened


def test_leaving_early_ends_the_processes(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "POOL_FROM", 1)
    films = prepared_images(manifest, range(len(manifest)), SETTINGS, 2)
    next(films)
    films.close()
    with pytest.raises(StopIteration):
        next(films)
