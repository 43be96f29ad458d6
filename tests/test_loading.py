"""From the data section to split and checked images: what is left out, what counts as change."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import class_folders, film, save_film

from xray_classifier.config_file import data_section
from xray_classifier.data.loading import Radiographs, limited, run_loading, run_manifest
from xray_classifier.errors import DataError
from xray_classifier.terminal import Terminal


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Forty films in two class folders."""
    return class_folders(tmp_path / "films", {"healthy": 24, "sick": 16})


def load(root: Path, **keys: object) -> Radiographs:
    """Load a folder at 12 px; the cache stands beside it."""
    stored = {
        "path": str(root),
        "cache": str(root.parent / "cache"),
        "image": {"size": 12},
        "patient": None,
        "workers": 2,
        **keys,
    }
    return run_loading(data_section(stored), "classify", Terminal(quiet=True))


def test_every_image_stands_in_one_split(films: Path) -> None:
    found = load(films)
    assert Counter(found.manifest.splits) == {"train": 28, "val": 6, "test": 6}
    assert found.images.shape == (40, 12, 12)
    assert found.reasons == ("",) * 40
    parts = [set(found.rows(split).tolist()) for split in ("train", "val", "test")]
    assert set.union(*parts) == set(range(40))
    assert sum(map(len, parts)) == 40


def test_an_unreadable_image_stops_the_run_and_is_named(films: Path) -> None:
    (films / "sick" / "film003.png").write_bytes(b"not an image")
    with pytest.raises(DataError) as caught:
        load(films)
    message = str(caught.value)
    assert "1 of 40 images cannot be read" in message
    assert "sick/film003.png  (not_an_image: this is no image" in message
    assert "data.unreadable=exclude" in message


def test_many_unreadable_images_are_counted_and_ten_are_named(films: Path) -> None:
    for number in range(15):
        (films / "healthy" / f"film{number:03d}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load(films)
    message = str(caught.value)
    assert message.count("(empty_file: the file is empty)") == 10
    assert "... and 5 more" in message


def test_an_excluded_image_takes_no_part_and_keeps_its_reason(films: Path) -> None:
    (films / "sick" / "film003.png").write_bytes(b"not an image")
    found = load(films, unreadable="exclude")
    row = found.manifest.ids.index("sick/film003.png")
    assert found.manifest.splits[row] == ""
    assert found.reasons[row] == "not_an_image"
    assert sum(len(found.rows(s)) for s in ("train", "val", "test")) == 39
    assert any("sick/film003.png" in warning for warning in found.warnings)


def test_hostile_names_cannot_write_to_the_terminal(films: Path) -> None:
    (films / "sick" / "a\x1b[31m\nb.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load(films)
    assert "\x1b" not in str(caught.value)
    assert "a\\x1b[31m\\nb.png" in str(caught.value)


def test_a_limit_draws_classes_evenly_and_always_the_same(films: Path) -> None:
    data = data_section({"path": str(films), "patient": None})
    whole = run_manifest(data, "classify")
    few = limited(whole, 10)
    assert Counter(few.classes) == {"healthy": 5, "sick": 5}
    assert limited(whole, 10).ids == few.ids
    assert set(few.ids) < set(limited(whole, 20).ids)
    assert list(few.ids) == sorted(few.ids)
    assert limited(whole, 1000).ids == whole.ids
    assert Counter(limited(whole, 38).classes) == {"healthy": 22, "sick": 16}


def test_a_limit_draws_from_every_split(tmp_path: Path) -> None:
    counts = {f"{s}/{c}": 10 for s in ("train", "val") for c in ("healthy", "sick")}
    root = class_folders(tmp_path / "films", counts)
    data = data_section({"path": str(root), "patient": None, "limit": 12})
    found = run_manifest(data, "classify")
    per_part = Counter(zip(found.splits, found.classes, strict=True))
    assert set(per_part.values()) == {3}
    assert len(per_part) == 4


def test_touching_moving_and_reordering_change_no_fingerprint(films: Path) -> None:
    before = load(films).fingerprint()
    for path in films.rglob("*.png"):
        os.utime(path, (5, 5))
    assert load(films).fingerprint() == before
    moved = films.rename(films.parent / "elsewhere")
    assert load(moved).fingerprint() == before
    (moved / ".DS_Store").write_bytes(b"x")
    (moved / "notes.txt").write_text("no image")
    assert load(moved).fingerprint() == before


def edit(root: Path) -> None:
    """Another picture under the same name."""
    save_film(root / "sick" / "film000.png", 500)


def relabel(root: Path) -> None:
    """The same picture under the other label."""
    (root / "sick" / "film000.png").rename(root / "healthy" / "extra.png")


def rename(root: Path) -> None:
    """Another name for the same picture."""
    (root / "sick" / "film000.png").rename(root / "sick" / "other.png")


def add(root: Path) -> None:
    """One more picture."""
    save_film(root / "sick" / "new.png", 501)


def remove(root: Path) -> None:
    """One picture less."""
    (root / "sick" / "film000.png").unlink()


def swap(root: Path) -> None:
    """Two pictures trade labels and names."""
    one, other = root / "sick" / "film000.png", root / "healthy" / "film000.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("change", [edit, relabel, rename, add, remove, swap])
def test_a_change_of_content_changes_the_fingerprint(change: object, films: Path) -> None:
    before = load(films).fingerprint()
    assert callable(change)
    change(films)
    assert load(films).fingerprint() != before


def test_another_split_seed_changes_the_fingerprint(films: Path) -> None:
    other = load(films, split={"seed": 1})
    assert load(films).fingerprint() != other.fingerprint()


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_every_spelling_of_validation_is_one_split(name: str, tmp_path: Path) -> None:
    counts = {f"{s}/{c}": 8 for s in ("train", name, "test") for c in ("healthy", "sick")}
    found = load(class_folders(tmp_path / "films", counts))
    assert Counter(found.manifest.splits) == {"train": 16, "val": 16, "test": 16}


def test_a_renamed_class_is_an_error_and_never_a_flip(films: Path) -> None:
    (films / "sick").rename(films / "a_sick")  # now first in every sort order
    with pytest.raises(DataError) as caught:
        load(films)
    assert "a_sick" in str(caught.value)
    assert "did you mean" in str(caught.value)
    found = load(films, labels={"healthy": ["healthy"], "sick": ["a_sick"]})
    sick = [name.startswith("a_sick/") for name in found.manifest.ids]
    np.testing.assert_array_equal(found.manifest.targets, np.array(sick, dtype=float))


def test_a_hundred_odd_layouts_never_flip_a_label(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["healthy", "sick", "Healthy", "SICK", "0", "1", "normal", "a", "zz", "sick "]
    refused = 0
    for trial in range(100):
        root = tmp_path / f"layout{trial}"
        chosen = rng.choice(names, size=rng.integers(1, 5), replace=False)
        if rng.random() < 0.4:
            chosen = np.union1d(chosen, ["healthy", "sick"])
        for name in chosen:
            save_film(root / str(name) / "x.png", 0)
        save_film(root / ".ipynb_checkpoints" / "x.png", 0)
        try:
            found = run_manifest(data_section({"path": str(root), "patient": None}), "classify")
        except DataError:
            refused += 1
            assert set(chosen) != {"healthy", "sick"}
            continue
        assert dict(zip(found.ids, found.targets, strict=True)) == {
            "healthy/x.png": 0.0,
            "sick/x.png": 1.0,
        }
    assert 50 < refused < 100


def test_an_image_array_is_what_the_films_hold(films: Path) -> None:
    found = load(films, image={"size": 24, "intensity": "dataset"})
    row = found.manifest.ids.index("healthy/film002.png")
    np.testing.assert_array_equal(found.images[row], film(2))
