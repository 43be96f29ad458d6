"""Splits: whole patients, classes in proportion, the same on every machine."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier.data.patients import patients_of
from xray_classifier.data.splits import (
    SplitCount,
    carve,
    split_name,
    split_summary,
    strata_of,
)
from xray_classifier.errors import DataError

SHARED = (Path(__file__).resolve().parents[1] / ".." / "shared" / "data").resolve()
Rows = list[tuple[str, str]]
"""(patient, stratum) per image."""


def carved(
    rows: Rows, *, val: float | None = 0.15, test: float | None = 0.15, seed: int = 0
) -> tuple[str, ...]:
    patients, strata = zip(*rows, strict=True)
    return carve(patients, strata, [""] * len(rows), val=val, test=test, seed=seed)


def single_films(n_healthy: int, n_sick: int) -> Rows:
    return [(f"h{n}", "healthy") for n in range(n_healthy)] + [
        (f"s{n}", "sick") for n in range(n_sick)
    ]


@st.composite
def one_class_patients(draw: st.DrawFn) -> Rows:
    """At least 8 patients of each class with 1 to 6 films."""
    rows = []
    for stratum in ("healthy", "sick"):
        sizes = draw(st.lists(st.integers(1, 6), min_size=8, max_size=40))
        rows += [(f"{stratum}{n}", stratum) for n, size in enumerate(sizes) for _ in range(size)]
    return rows


@st.composite
def any_patients(draw: st.DrawFn) -> Rows:
    """Patients with films of both classes, at least 3 patients who have each class."""
    sizes = st.tuples(st.integers(0, 5), st.integers(0, 5))
    patients = draw(st.lists(sizes, min_size=3, max_size=25))
    patients += draw(st.sampled_from([[(1, 1)] * 3, [(2, 0), (0, 1)] * 3, [(1, 0), (4, 3)] * 3]))
    return [
        (f"p{n}", stratum)
        for n, counts in enumerate(patients)
        for stratum, count in zip(("healthy", "sick"), counts, strict=True)
        for _ in range(count)
    ]


fractions = st.floats(0.05, 0.3)
wide_fractions = st.tuples(st.floats(0.02, 0.95), st.floats(0.02, 0.95)).filter(
    lambda pair: sum(pair) < 0.98
)
seeds = st.integers(0, 2**40)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("train", "train"),
        ("TRAINING", "train"),
        ("valid", "val"),
        ("Validation", "val"),
        (" dev ", "val"),
        ("Test", "test"),
        ("testing", "test"),
        ("NORMAL", None),
        ("tests", None),
        ("", None),
    ],
)
def test_names_of_splits(text: str, name: str | None) -> None:
    assert split_name(text) == name


@settings(max_examples=60, deadline=None)
@given(any_patients(), wide_fractions, seeds)
def test_patients_stay_whole_and_no_split_lacks_a_class(
    rows: Rows, parts: tuple[float, float], seed: int
) -> None:
    splits = carved(rows, val=parts[0], test=parts[1], seed=seed)
    homes: dict[str, set[str]] = {}
    for (patient, _), split in zip(rows, splits, strict=True):
        homes.setdefault(patient, set()).add(split)
    assert all(len(home) == 1 for home in homes.values())
    held = {(split, stratum) for (_, stratum), split in zip(rows, splits, strict=True)}
    assert held == {(s, c) for s in ("train", "val", "test") for c in ("healthy", "sick")}


@settings(max_examples=60, deadline=None)
@given(any_patients(), seeds, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: Rows, seed: int, random: object) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    straight = carved(rows, seed=seed)
    shuffled = carved([rows[row] for row in order], seed=seed)
    assert [straight[row] for row in order] == list(shuffled)


@settings(max_examples=60, deadline=None)
@given(one_class_patients(), fractions, fractions, seeds)
def test_class_counts_are_within_the_largest_patient_of_the_goal(
    rows: Rows, val: float, test: float, seed: int
) -> None:
    splits = carved(rows, val=val, test=test, seed=seed)
    largest = Counter(rows)
    for stratum in ("healthy", "sick"):
        total = sum(s == stratum for _, s in rows)
        most = max(n for (_, s), n in largest.items() if s == stratum)
        for name, fraction in (("val", val), ("test", test)):
            here = sum(
                split == name and s == stratum for (_, s), split in zip(rows, splits, strict=True)
            )
            assert abs(here - fraction * total) <= most


@settings(max_examples=30, deadline=None)
@given(st.integers(30, 200), st.integers(30, 200), fractions, fractions, seeds)
def test_single_films_come_within_half_an_image(
    n_healthy: int, n_sick: int, val: float, test: float, seed: int
) -> None:
    rows = single_films(n_healthy, n_sick)
    splits = carved(rows, val=val, test=test, seed=seed)
    counts = Counter((split, s) for (_, s), split in zip(rows, splits, strict=True))
    for name, fraction in (("val", val), ("test", test)):
        assert abs(counts[name, "healthy"] - fraction * n_healthy) <= 0.5 + 1e-9
        assert abs(counts[name, "sick"] - fraction * n_sick) <= 0.5 + 1e-9


def test_patients_of_both_classes_do_not_upset_the_balance() -> None:
    rng = np.random.default_rng(0)
    rows: Rows = []
    for n in range(200):
        films, share = int(rng.integers(1, 20)), rng.choice([0.0, 0.3, 0.6, 1.0])
        rows += [(f"p{n}", "sick" if rng.random() < share else "healthy") for _ in range(films)]
    for seed in range(10):
        splits = carved(rows, seed=seed)
        for stratum in ("healthy", "sick"):
            total = sum(s == stratum for _, s in rows)
            for name in ("val", "test"):
                pairs = zip(rows, splits, strict=True)
                here = sum(split == name and s == stratum for (_, s), split in pairs)
                assert abs(here - 0.15 * total) <= 10  # half of the largest patient


def test_a_rare_class_that_only_mixed_patients_have_is_shared_out_too() -> None:
    off = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        rows: Rows = []
        for n in range(150):
            share = rng.choice([0.0, 0.0, 0.1, 0.3])
            films = int(rng.integers(1, 15))
            rows += [(f"p{n}", "sick" if rng.random() < share else "healthy") for _ in range(films)]
        splits = carved(rows, seed=seed)
        goal = 0.15 * sum(s == "sick" for _, s in rows)
        for name in ("val", "test"):
            pairs = zip(rows, splits, strict=True)
            here = sum(split == name and s == "sick" for (_, s), split in pairs)
            off.append(abs(here - goal) / goal)
    assert np.mean(off) < 0.1


def test_the_queue_is_a_hash_of_seed_split_and_patient() -> None:
    rows = single_films(40, 20)
    splits = carved(rows, val=None, test=0.2, seed=7)

    def rank(patient: str) -> bytes:
        return hashlib.blake2b(f"7\ntest\n{patient}".encode(), digest_size=16).digest()

    healthy = sorted((p for p, s in rows if s == "healthy"), key=rank)[:8]
    sick = sorted((p for p, s in rows if s == "sick"), key=rank)[:4]
    taken = {p for (p, _), split in zip(rows, splits, strict=True) if split == "test"}
    assert taken == {*healthy, *sick}


def test_seeds_carve_differently_and_one_seed_always_the_same() -> None:
    rows = single_films(100, 100)
    assert carved(rows, seed=1) == carved(rows, seed=1)
    assert len({carved(rows, seed=seed) for seed in range(10)}) == 10


def test_one_more_patient_moves_few_others() -> None:
    rows = single_films(150, 150)
    before = carved(rows)
    for n in range(20):
        after = carved([(f"new{n}", "sick"), *rows])[1:]
        assert sum(a != b for a, b in zip(before, after, strict=True)) <= 6


def test_what_is_assigned_stays_and_only_the_missing_split_is_carved() -> None:
    rows = single_films(40, 40)
    given_splits = ["val" if n % 4 == 0 else "train" for n in range(80)]
    patients, strata = zip(*rows, strict=True)
    splits = carve(patients, strata, given_splits, val=0.5, test=0.2, seed=0)
    assert [s == "val" for s in splits] == [s == "val" for s in given_splits]
    assert Counter(splits) == {"train": 48, "val": 20, "test": 12}


def test_nothing_is_carved_where_both_splits_exist_or_none_is_asked_for() -> None:
    full = ("train", "train", "val", "test")
    assert carve("abcd", "hshs", full, val=0.5, test=0.5, seed=0) == full
    assert carve("abcd", "hshs", [""] * 4, val=None, test=None, seed=0) == ("train",) * 4
    assert carve([], [], [], val=None, test=None, seed=0) == ()


def test_a_patient_of_a_split_on_disk_is_not_carved_into_another() -> None:
    rows = [*single_films(12, 12), ("leaky", "sick"), ("leaky", "sick")]
    patients, strata = zip(*rows, strict=True)
    given_splits = [*["train"] * 24, "train", "val"]
    for seed in range(20):
        splits = carve(patients, strata, given_splits, val=0.2, test=0.3, seed=seed)
        assert splits[24:] == ("train", "val")
        assert splits.count("test") == 8


def test_images_without_a_split_stand_with_their_patient() -> None:
    patients = ["a", "a", "b", "b", "c", "c", "c", "d"]
    given_splits = ["val", "", "test", "", "train", "val", "", ""]
    splits = carve(patients, ["x"] * 8, given_splits, val=0.1, test=0.1, seed=0)
    assert splits == ("val", "val", "test", "test", "train", "val", "train", "train")


def test_three_patients_of_each_class_are_just_enough() -> None:
    for seed in range(20):
        for val, test in ((0.15, 0.15), (0.05, 0.9), (0.9, 0.05), (0.48, 0.48)):
            splits = carved(single_films(3, 3), val=val, test=test, seed=seed)
            assert sorted(splits[:3]) == sorted(splits[3:]) == ["test", "train", "val"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (single_films(9, 2), r"sick has 2 patients there \(2 images\), and each of 3 splits"),
        ([("a", "sick")] * 50 + single_films(5, 0), r"sick has 1 patients there \(50 images\)"),
    ],
)
def test_too_few_patients_are_refused_with_the_counts(rows: Rows, said: str) -> None:
    with pytest.raises(DataError, match=said):
        carved(rows)


def test_nothing_in_train_is_refused() -> None:
    with pytest.raises(DataError, match="healthy has 0 patients"):
        carve("ab", ["healthy", "sick"], ["test", "test"], val=0.2, test=0.2, seed=0)


def test_numbers_are_balanced_by_quantile_bins_as_far_as_it_goes() -> None:
    targets = np.random.default_rng(0).normal(size=500)
    strata = strata_of(targets, "regress")
    assert Counter(strata) == {f"bin {n}": 100 for n in range(1, 6)}
    assert max(targets[np.array(strata) == "bin 1"]) < min(targets[np.array(strata) == "bin 2"])
    patients = [f"p{n}" for n in range(500)]
    splits = carve(patients, strata, [""] * 500, val=0.1, test=0.2, seed=0, every_stratum=False)
    counts = Counter(zip(splits, strata, strict=True))
    assert all(counts["val", f"bin {n}"] == 10 for n in range(1, 6))
    assert all(counts["test", f"bin {n}"] == 20 for n in range(1, 6))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30), seeds)
def test_any_three_numbers_can_be_carved(numbers: list[float], seed: int) -> None:
    strata = strata_of(np.array(numbers), "regress")
    patients = [f"p{n}" for n in range(len(numbers))]
    blank = [""] * len(numbers)
    splits = carve(patients, strata, blank, val=0.15, test=0.15, seed=seed, every_stratum=False)
    assert set(splits) == {"train", "val", "test"}


def test_strata_of_classes_are_their_names() -> None:
    assert strata_of(np.array([0.0, 1.0, 1.0]), "classify") == ("healthy", "sick", "sick")
    assert strata_of(np.array([]), "regress") == ()


def test_keys_that_are_no_utf8_can_be_carved() -> None:
    rows = [(f"\udcff{p}\ud800\n", s) for p, s in single_films(5, 5)]
    assert set(carved(rows)) == {"train", "val", "test"}


def test_the_summary_counts_images_classes_and_patients() -> None:
    splits = ["val", "train", "train", "", "train"]
    targets = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    summary = split_summary(splits, targets, ["a", "b", "b", "c", "d"], "classify")
    assert list(summary) == ["train", "val", ""]
    assert summary["train"] == SplitCount(images=3, patients=2, healthy=2, sick=1)
    assert summary[""] == SplitCount(images=1, patients=1, healthy=0, sick=1)
    by_number = split_summary(splits, targets, ["a", "b", "b", "c", "d"], "regress")
    assert by_number["val"] == SplitCount(images=1, patients=1, healthy=None, sick=None)


def test_the_leak_that_ships_with_nih1000_is_seen_whole() -> None:
    root = SHARED / "nih1000"
    if not root.exists():
        pytest.skip("needs ../shared/data/nih1000")
    paths = [path.relative_to(root).as_posix() for path in root.glob("*/*/*.png")]
    patients = patients_of(paths, "auto").keys
    splits = [split_name(path.split("/")[0]) or "" for path in paths]
    homes = {p: {s for q, s in zip(patients, splits, strict=True) if q == p} for p in patients}
    shared = {patient for patient, home in homes.items() if len(home) > 1}
    assert len(shared) == 15
    assert splits.count("val") == 200
    pairs = zip(patients, splits, strict=True)
    assert sum(split == "val" and patient in shared for patient, split in pairs) == 76
    targets = np.array([float("1_abnormal" in path) for path in paths])
    result = carve(patients, strata_of(targets, "classify"), splits, val=0.15, test=0.15, seed=0)
    assert [s == "val" for s in result] == [s == "val" for s in splits]
    in_test = {p for p, split in zip(patients, result, strict=True) if split == "test"}
    elsewhere = {p for p, split in zip(patients, result, strict=True) if split != "test"}
    assert in_test
    assert not in_test & elsewhere
