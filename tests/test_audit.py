"""Leaks between splits are found, against brute force and on real sets that have them."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tiny_runs import SHARED_DATA, Program, class_folders, film, program

from xray_classifier.config import DataConfig
from xray_classifier.config_file import data_section
from xray_classifier.data.audit import (
    contradicting_pictures,
    find_leaks,
    joined_groups,
    picture_hashes,
)
from xray_classifier.data.loading import Radiographs, run_loading
from xray_classifier.errors import LeakError
from xray_classifier.terminal import Terminal

__all__ = ["program"]

SPLITS = st.sampled_from(["train", "val", "test", ""])
ROWS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("123456"), SPLITS), max_size=24
)
RANK = {"train": 0, "val": 1, "test": 2}


def components(patients: Sequence[str], pictures: Sequence[str]) -> list[int]:
    """Component per image of the graph that joins images of one patient or one picture."""
    n = len(patients)
    ends = [
        (i, j)
        for keys in (patients, pictures)
        for key in set(keys)
        for i, j in pairwise([row for row in range(n) if keys[row] == key])
    ]
    rows, columns = [i for i, _ in ends], [j for _, j in ends]
    graph = coo_array((np.ones(len(ends)), (rows, columns)), shape=(n, n))
    return [int(label) for label in connected_components(graph, directed=False)[1]]


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_joined_groups_are_the_connected_components(rows: list[tuple[str, str, str]]) -> None:
    patients, pictures = [r[0] for r in rows], [r[1] for r in rows]
    groups = joined_groups(patients, pictures)
    if not rows:
        assert groups == ()
        return
    truth = components(patients, pictures)
    for i in range(len(rows)):
        for j in range(len(rows)):
            assert (groups[i] == groups[j]) == (truth[i] == truth[j])
        assert groups[i] == min(patients[j] for j in range(len(rows)) if truth[j] == truth[i])


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_leaks_are_what_brute_force_finds(rows: list[tuple[str, str, str]]) -> None:
    patients, pictures, splits = ([r[k] for r in rows] for k in range(3))
    found = {leak.kind: leak for leak in find_leaks(patients, pictures, splits)}
    for kind, keys in (("patient", patients), ("picture", pictures)):
        placed = [(k, s) for k, s in zip(keys, splits, strict=True) if s]
        torn = {k for k, _ in placed if len({s for other, s in placed if other == k}) > 1}
        later = [
            i
            for i in range(len(rows))
            if splits[i]
            and any(
                keys[j] == keys[i] and splits[j] and RANK[splits[j]] < RANK[splits[i]]
                for j in range(len(rows))
            )
        ]
        assert (kind in found) == bool(torn)
        if torn:
            assert found[kind].groups == len(torn)
            assert found[kind].rows == tuple(later)


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from([0.0, 1.0])), max_size=12))
@settings(max_examples=100, deadline=None)
def test_contradicting_pictures_are_what_brute_force_finds(rows: list[tuple[str, float]]) -> None:
    targets = np.array([target for _, target in rows])
    truth = [
        i for i, (p, t) in enumerate(rows) if any(q == p and u != t for q, u in rows)
    ]  # fmt: skip
    assert contradicting_pictures([p for p, _ in rows], targets) == truth


def test_a_picture_hash_is_that_of_its_pixels() -> None:
    images = np.stack([film(0), film(1), film(0)])
    one, two, again = picture_hashes(images)
    assert one == again != two


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """Splits on disk in which one validation and one test film repeat a training film."""
    counts = {f"{s}/{c}": 6 for s in ("train", "val", "test") for c in ("healthy", "sick")}
    root = class_folders(tmp_path / "leaky", counts)
    original = root / "train" / "sick" / "film001.png"
    # another container, the same pixels
    Image.open(original).save(root / "val" / "sick" / "copied.tif")
    Image.open(original).save(root / "test" / "sick" / "copied.bmp")
    return root


def load(root: Path, tmp_path: Path, **keys: object) -> Radiographs:
    """Load a folder with the audit's settings as given."""
    return run_loading(section(root, tmp_path, **keys), "classify", Terminal(quiet=True))


def section(root: Path, tmp_path: Path, **keys: object) -> DataConfig:
    """A data section for 12 px."""
    stored = {"path": str(root), "cache": str(tmp_path / "cache"), "image": {"size": 12}, **keys}
    return data_section(stored)


def test_strict_names_the_leaked_images(leaky: Path, tmp_path: Path) -> None:
    with pytest.raises(LeakError) as caught:
        load(leaky, tmp_path, patient=None)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "1 pictures stand in more than one split" in message
    assert "val/sick/copied.tif" in message
    assert "test/sick/copied.bmp" in message
    assert "data.audit=warn" in message


def test_warn_leaves_the_later_images_out_and_keeps_training_whole(
    leaky: Path, tmp_path: Path
) -> None:
    found = load(leaky, tmp_path, patient=None, audit="warn")
    placed = dict(zip(found.manifest.ids, found.manifest.splits, strict=True))
    assert placed["val/sick/copied.tif"] == placed["test/sick/copied.bmp"] == ""
    assert placed["train/sick/film001.png"] == "train"
    assert [len(found.rows(s)) for s in ("train", "val", "test")] == [12, 12, 12]
    left = [i for i, r in zip(found.manifest.ids, found.reasons, strict=True) if r == "leak"]
    assert sorted(left) == ["test/sick/copied.bmp", "val/sick/copied.tif"]
    assert any("left out" in warning for warning in found.warnings)


def test_off_looks_for_nothing_and_says_so(leaky: Path, tmp_path: Path) -> None:
    found = load(leaky, tmp_path, patient=None, audit="off")
    assert len(found.rows("val")) == 13
    assert any("data.audit is off" in warning for warning in found.warnings)


def test_training_on_a_leaky_split_ends_with_code_3(
    leaky: Path, tmp_path: Path, program: Program
) -> None:
    config = tmp_path / "leaky.yaml"
    config.write_text("data: {path: leaky, patient: null, image: {size: 12}, cache: cache}\n")
    said = program("train", "-c", config, "-o", tmp_path / "runs")
    assert said.code == 3
    assert "copied.tif" in said.err
    assert not (tmp_path / "runs").exists()


def test_a_carved_split_never_parts_one_picture(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "flat", {"healthy": 20, "sick": 20})
    for number in range(8):
        Image.fromarray(film(number)).save(root / "healthy" / f"again{number}.bmp")
    found = load(root, tmp_path, patient=None)
    pictures = picture_hashes(found.images)
    assert find_leaks(found.manifest.ids, pictures, found.manifest.splits) == ()


def test_one_picture_under_two_labels_is_told(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "flat", {"healthy": 12, "sick": 12})
    Image.fromarray(film(3)).save(root / "sick" / "contradiction.bmp")
    found = load(root, tmp_path, patient=None)
    assert any(
        "two labels" in w and "contradiction.bmp" in w and "film003.png" in w
        for w in found.warnings
    )


def real(name: str) -> Path:
    """A real set, or a skip."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"the real set {name} is not on this machine")
    return path


def test_nih1000_shares_15_patients_and_76_of_its_validation_images(tmp_path: Path) -> None:
    labels = {"healthy": ["0_normal"], "sick": ["1_abnormal"]}
    keys = {"labels": labels, "split": {"test": None}}
    with pytest.raises(LeakError, match=r"15 patients.*76 of 200 val images"):
        load(real("nih1000"), tmp_path, **keys)
    found = load(real("nih1000"), tmp_path, **keys, audit="warn")
    assert len(found.rows("val")) == 124
    assert len(found.rows("train")) == 600


def test_pneumoniamnist_repeats_8_training_pictures_in_validation(tmp_path: Path) -> None:
    path = real("pneumoniamnist/pneumoniamnist_trainval.npz")
    keys = {
        "labels": {"healthy": ["0"], "sick": ["1"]},
        "image": {"size": 28, "intensity": "dataset"},
        "split": {"test": None},
    }
    with pytest.raises(LeakError, match="8 of 524 val images"):
        load(path, tmp_path, **keys)
    found = load(path, tmp_path, **keys, audit="warn")
    with np.load(path) as arrays:
        train = {image.tobytes() for image in arrays["train_images"]}
        repeated = [i for i, im in enumerate(arrays["val_images"]) if im.tobytes() in train]
    left = [i for i, r in zip(found.manifest.ids, found.reasons, strict=True) if r == "leak"]
    assert sorted(left) == sorted(f"val_images/{i}" for i in repeated)
    assert len(left) == 8
