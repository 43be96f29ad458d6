"""Leaks between splits, against brute force: patients, equal pixels, near copies."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from xray_classifier.data.film import film_from_array
from xray_classifier.data.leaks import (
    Copies,
    contradictions,
    find_copies,
    find_leaks,
    joined_groups,
    mended_splits,
)
from xray_classifier.data.signature import SIGNATURE, signature_of

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


def first_rows(keys: Sequence[str]) -> NDArray[np.int64]:
    """Labels as `Copies` holds them: the first row with the same key."""
    return np.array([list(keys).index(key) for key in keys], dtype=np.int64)


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
    labels = first_rows(pictures)
    found = find_leaks(patients, Copies(labels, labels), splits)
    for groups, keys in ((found.patients, patients), (found.exact, pictures)):
        placed = [(k, s) for k, s in zip(keys, splits, strict=True) if s]
        torn = {k for k, _ in placed if len({s for other, s in placed if other == k}) > 1}
        assert {keys[group.rows[0]] for group in groups} == torn
        assert len(groups) == len(torn)
        sizes = [len(group.rows) for group in groups]
        assert sizes == sorted(sizes, reverse=True)
    component = components(patients, pictures) if rows else []
    everything = {
        i
        for i in range(len(rows))
        if splits[i]
        and any(
            component[j] == component[i] and splits[j] and RANK[splits[j]] < RANK[splits[i]]
            for j in range(len(rows))
        )
    }
    assert found.later == tuple(sorted(everything))
    assert found.across == bool(found.patients or found.exact)
    elsewhere = [
        i
        for i in range(len(rows))
        if splits[i]
        and any(
            pictures[j] == pictures[i] and splits[j] not in ("", splits[i])
            for j in range(len(rows))
        )
    ]
    assert found.near_rows == tuple(elsewhere)
    inside = {k for k in set(pictures) if pictures.count(k) > 1} - {
        pictures[group.rows[0]] for group in found.exact
    }
    assert {pictures[group.rows[0]] for group in found.exact_inside} == inside
    assert found.near_inside == ()  # groups of equal pixels alone are told once


def test_the_patient_of_a_group_is_named() -> None:
    apart = np.arange(3)
    found = find_leaks(["p", "q", "p"], Copies(apart, apart), ["train", "val", "test"])
    assert [(group.key, group.rows) for group in found.patients] == [("p", (0, 2))]
    assert found.exact == found.near == ()


def test_near_copies_inside_a_split_are_told_apart_from_exact_ones() -> None:
    exact = np.array([0, 0, 2, 3, 4])
    near = np.array([0, 0, 2, 2, 4])
    found = find_leaks(list("abcde"), Copies(exact, near), ["train"] * 5)
    assert [group.rows for group in found.exact_inside] == [(0, 1)]
    assert [group.rows for group in found.near_inside] == [(2, 3)]
    assert not found.across


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_mending_leaves_no_leak_and_moves_nothing_else(rows: list[tuple[str, str, str]]) -> None:
    patients, pictures, splits = ([r[k] for r in rows] for k in range(3))
    labels = first_rows(pictures)
    groups = joined_groups(patients, pictures)
    mended = mended_splits(groups, splits, pictures)
    assert not find_leaks(patients, Copies(labels, labels), mended).across
    for group in set(groups):
        members = [i for i in range(len(rows)) if groups[i] == group]
        before = {splits[i] for i in members if splits[i]}
        if len(before) < 2:
            assert [mended[i] for i in members] == [splits[i] for i in members]
            continue
        (home,) = {mended[i] for i in members}
        assert home in before


def test_a_tie_goes_to_the_earlier_split() -> None:
    assert mended_splits(["g", "g"], ["test", "val"], ["x", "x"]) == ("val", "val")
    assert mended_splits(["g"] * 3, ["test", "test", "train"], ["x"] * 3) == ("test",) * 3


def test_mending_keeps_the_sizes_of_the_splits_class_by_class() -> None:
    """Forty patients with four films each, three in train and one in test, a third of them sick."""
    groups = [f"p{k // 4}" for k in range(160)]
    splits = ["test" if k % 4 == 3 else "train" for k in range(160)]
    strata = ["sick" if k // 4 % 3 == 0 else "healthy" for k in range(160)]
    mended = mended_splits(groups, splits, strata)
    counts = Counter(zip(mended, strata, strict=True))
    before = Counter(zip(splits, strata, strict=True))
    assert all(abs(counts[key] - before[key]) <= 2 for key in before)  # half a patient at most


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from([0.0, 1.0])), max_size=12))
@settings(max_examples=100, deadline=None)
def test_contradictions_are_what_brute_force_finds(rows: list[tuple[str, float]]) -> None:
    targets = np.array([target for _, target in rows])
    truth = [
        i for i, (p, t) in enumerate(rows) if any(q == p and u != t for q, u in rows)
    ]  # fmt: skip
    found = contradictions([p for p, _ in rows], targets)
    assert sorted(row for group in found for row in group) == truth
    assert all(len({rows[row][0] for row in group}) == 1 for group in found)


def picture(seed: int, side_px: int = 96) -> NDArray[np.uint8]:
    """A picture with structure at many scales (side_px, side_px), another one for each seed."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side_px, side_px))
    for cells in (3, 6, 12, 24):
        coarse = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        total += (
            np.asarray(coarse.resize((side_px, side_px), Image.Resampling.BICUBIC)) / cells**0.5
        )
    total -= total.min()
    return np.asarray(np.rint(total / total.max() * 255), np.uint8)


def smaller(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """The picture at another size."""
    return np.asarray(Image.fromarray(image).resize((side_px, side_px)))


def test_copies_are_told_from_pixels_and_looks() -> None:
    one, other = picture(1), picture(2)
    darker = (255 * (one / 255.0) ** 1.6).astype(np.uint8)
    films = [one, other, one.copy(), smaller(one, 48), darker, one.astype(np.float32) / 255]
    signatures = np.concatenate([signature_of(film_from_array(film)) for film in films])
    usable = np.ones(len(films), dtype=bool)
    found = find_copies(signatures, usable)
    assert found.exact.tolist() == [0, 1, 0, 3, 4, 0]
    assert found.near.tolist() == [0, 1, 0, 0, 0, 0]


def test_an_unreadable_image_equals_only_itself() -> None:
    signatures = np.zeros(3, SIGNATURE)
    found = find_copies(signatures, np.zeros(3, dtype=bool))
    assert found.exact.tolist() == found.near.tolist() == [0, 1, 2]
    one = signature_of(film_from_array(picture(1)))
    mixed = np.concatenate([np.zeros(1, SIGNATURE), one, np.zeros(1, SIGNATURE), one])
    found = find_copies(mixed, np.array([False, True, False, True]))
    assert found.exact.tolist() == found.near.tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize("n", [0, 1])
def test_next_to_nothing(n: int) -> None:
    found = find_copies(np.zeros(n, SIGNATURE), np.zeros(n, dtype=bool))
    assert not find_leaks(["p"] * n, found, ["train"] * n).across


def test_files_of_one_name_are_compared_by_their_looks() -> None:
    one, other = picture(1), picture(2)
    signatures = np.concatenate([signature_of(film_from_array(film)) for film in (one, other, one)])
    signatures["perceptual"][2] ^= 255  # its hash says nothing
    signatures["pixels"][2] ^= 1
    usable = np.ones(3, dtype=bool)
    names = ["train/a.png", "train/b.png", "test/a.jpg"]
    assert find_copies(signatures, usable, names).near.tolist() == [0, 1, 0]
    assert find_copies(signatures, usable).near.tolist() == [0, 1, 2]
    names = ["train/a.png", "test/a.png", "train/c.png"]  # one name, other looks
    assert find_copies(signatures, usable, names).near.tolist() == [0, 1, 2]
