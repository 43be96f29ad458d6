"""Folds: whole patients, every image once, classes in proportion, test untouched."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier.data.folds import fold_numbers, fold_splits
from xray_classifier.errors import DataError

Rows = list[tuple[str, str]]
"""(group, stratum) per image."""

seeds = st.integers(0, 2**40)


@st.composite
def one_class_groups(draw: st.DrawFn) -> Rows:
    """At least 6 groups of each class with 1 to 9 images."""
    rows = []
    for stratum in ("healthy", "sick"):
        sizes = draw(st.lists(st.integers(1, 9), min_size=6, max_size=30))
        rows += [(f"{stratum}{n}", stratum) for n, size in enumerate(sizes) for _ in range(size)]
    return rows


@st.composite
def any_groups(draw: st.DrawFn) -> Rows:
    """Groups with images of either class or both, at least 6 with each class."""
    sizes = st.tuples(st.integers(0, 5), st.integers(0, 5))
    groups = draw(st.lists(sizes, min_size=3, max_size=25))
    groups += draw(st.sampled_from([[(1, 1)] * 6, [(2, 0), (0, 1)] * 6, [(1, 0), (4, 3)] * 6]))
    return [
        (f"p{n}", stratum)
        for n, counts in enumerate(groups)
        for stratum, count in zip(("healthy", "sick"), counts, strict=True)
        for _ in range(count)
    ]


def numbers(rows: Rows, folds: int, seed: int = 0, every_stratum: bool = True) -> tuple[int, ...]:
    groups, strata = zip(*rows, strict=True)
    return fold_numbers(groups, strata, folds=folds, seed=seed, every_stratum=every_stratum)


@settings(max_examples=80, deadline=None)
@given(any_groups(), st.integers(2, 5), seeds)
def test_groups_stay_whole_and_no_fold_lacks_a_class(rows: Rows, folds: int, seed: int) -> None:
    given_numbers = numbers(rows, folds, seed)
    homes: dict[str, set[int]] = {}
    for (group, _), number in zip(rows, given_numbers, strict=True):
        homes.setdefault(group, set()).add(number)
    assert all(len(home) == 1 for home in homes.values())
    held = {(n, stratum) for (_, stratum), n in zip(rows, given_numbers, strict=True)}
    assert held == {(n, c) for n in range(1, folds + 1) for c in ("healthy", "sick")}


@settings(max_examples=80, deadline=None)
@given(one_class_groups(), st.integers(2, 6), seeds)
def test_folds_differ_in_each_class_by_at_most_its_largest_group(
    rows: Rows, folds: int, seed: int
) -> None:
    largest: dict[str, int] = {}
    for (_, stratum), size in Counter(rows).items():
        largest[stratum] = max(largest.get(stratum, 0), size)
    held = Counter(
        (number, stratum)
        for (_, stratum), number in zip(rows, numbers(rows, folds, seed), strict=True)
    )
    for stratum, most in largest.items():
        counts = [held[(n, stratum)] for n in range(1, folds + 1)]
        assert max(counts) - min(counts) <= most


@settings(max_examples=40, deadline=None)
@given(any_groups(), seeds, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: Rows, seed: int, random: object) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    straight = numbers(rows, 4, seed)
    shuffled = numbers([rows[place] for place in order], 4, seed)
    assert shuffled == tuple(straight[place] for place in order)


def test_single_films_are_shared_out_evenly() -> None:
    rows = [(f"h{n}", "healthy") for n in range(103)] + [(f"s{n}", "sick") for n in range(42)]
    given_numbers = numbers(rows, 5)
    for stratum, expected in (("healthy", {20, 21}), ("sick", {8, 9})):
        held = Counter(n for (_, s), n in zip(rows, given_numbers, strict=True) if s == stratum)
        assert set(held.values()) == expected
    assert set(Counter(given_numbers).values()) == {29}  # what is left over evens the folds out


def test_the_balance_is_near_the_best_that_any_sharing_reaches() -> None:
    """Brute force over all ways to share eight groups out into two folds."""
    sizes = [(3, 0), (2, 2), (1, 0), (0, 4), (0, 1), (2, 0), (1, 1), (0, 2)]
    rows = [
        (f"g{n}", s)
        for n, counts in enumerate(sizes)
        for s, count in zip(("healthy", "sick"), counts, strict=True)
        for _ in range(count)
    ]

    def imbalance(first: set[int]) -> int:
        inside = [sum(sizes[n][s] for n in first) for s in (0, 1)]
        whole = [sum(size[s] for size in sizes) for s in (0, 1)]
        return max(abs(2 * i - w) for i, w in zip(inside, whole, strict=True))

    best = min(
        imbalance(set(chosen))
        for count in range(1, 8)
        for chosen in itertools.combinations(range(8), count)
    )
    for seed in range(30):
        found = {
            int(g[1:]) for (g, _), n in zip(rows, numbers(rows, 2, seed), strict=True) if n == 1
        }
        assert imbalance(found) <= best + 2  # one image on the other side


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 30]), st.sampled_from([0, 1, 2, 20])),
        min_size=2,
        max_size=6,
    ),
    st.integers(2, 3),
    seeds,
)
def test_folds_that_can_all_hold_both_classes_do(
    sizes: list[tuple[int, int]], folds: int, seed: int
) -> None:
    """Brute force over every way to share the groups out."""
    rows = [
        (f"g{n}", s)
        for n, counts in enumerate(sizes)
        for s, count in zip(("healthy", "sick"), counts, strict=True)
        for _ in range(count)
    ]
    both = {"healthy", "sick"} == {stratum for _, stratum in rows}
    possible = both and any(
        all(
            any(size[s] and home == fold for size, home in zip(sizes, homes, strict=True))
            for fold in range(folds)
            for s in (0, 1)
        )
        for homes in itertools.product(range(folds), repeat=len(sizes))
    )
    if possible:
        held = {(n, s) for (_, s), n in zip(rows, numbers(rows, folds, seed), strict=True)}
        assert len(held) == 2 * folds
    elif both:
        with pytest.raises(DataError):
            numbers(rows, folds, seed)


def test_the_seed_decides_and_nothing_else_does() -> None:
    rows = [(f"h{n}", "healthy") for n in range(40)] + [(f"s{n}", "sick") for n in range(40)]
    assert numbers(rows, 5, 3) == numbers(rows, 5, 3)
    assert numbers(rows, 5, 3) != numbers(rows, 5, 4)


@settings(max_examples=40, deadline=None)
@given(any_groups(), st.integers(2, 5), seeds)
def test_each_image_validates_once_and_the_test_split_is_untouched(
    rows: Rows, folds: int, seed: int
) -> None:
    rows = [*rows, ("elsewhere", "sick"), ("elsewhere", "healthy"), ("nowhere", "sick")]
    groups, strata = zip(*rows, strict=True)
    pool = ["train", "val"]
    splits = [pool[int(g[1:]) % 2] if g[0] == "p" else "" for g in groups]
    splits[-3:] = ["test", "test", ""]
    rounds = [
        fold_splits(groups, strata, splits, fold=fold, folds=folds, seed=seed)
        for fold in range(1, folds + 1)
    ]
    for place, before in enumerate(splits):
        after = [given_splits[place] for given_splits in rounds]
        if before in pool:
            assert sorted(after) == ["train"] * (folds - 1) + ["val"]
        else:
            assert after == [before] * folds
    for given_splits in rounds:
        val = {g for g, s in zip(groups, given_splits, strict=True) if s == "val"}
        train = {g for g, s in zip(groups, given_splits, strict=True) if s == "train"}
        assert not val & train


def test_a_group_with_an_image_in_test_keeps_the_others_together() -> None:
    groups = [*(f"p{n}" for n in range(8)), "both", "both", "both"]
    strata = ["healthy", "sick"] * 5 + ["sick"]
    splits = ["train"] * 8 + ["train", "val", "test"]
    for fold in (1, 2):
        placed = fold_splits(groups, strata, splits, fold=fold, folds=2, seed=0)
        assert placed[8] == placed[9] != "test"
        assert placed[10] == "test"


def test_too_few_patients_of_a_class_are_refused_in_words() -> None:
    rows = [(f"h{n}", "healthy") for n in range(20)] + [(f"s{n}", "sick") for n in range(4)]
    with pytest.raises(DataError, match=r"train\.folds is 5, but sick has only 4 patients"):
        numbers(rows, 5)
    assert set(numbers(rows, 4)) == {1, 2, 3, 4}
    assert set(numbers(rows, 5, every_stratum=False)) == {1, 2, 3, 4, 5}
    with pytest.raises(DataError, match="has only 1 patients"):
        numbers([("one", "bin 1"), ("one", "bin 2")], 2, every_stratum=False)
    with pytest.raises(DataError, match="has only 0 patients"):
        fold_splits(["a"], ["sick"], ["test"], fold=1, folds=2, seed=0)


def test_a_rare_class_in_patients_of_both_classes_reaches_every_fold() -> None:
    rows = [("m1", "sick"), ("m1", "healthy"), ("m2", "sick"), ("m2", "healthy"), ("s", "sick")]
    rows += [(f"h{n}", "healthy") for n in range(9)]
    for seed in range(20):
        sick = [n for (_, s), n in zip(rows, numbers(rows, 3, seed), strict=True) if s == "sick"]
        assert sorted(sick) == [1, 2, 3]


def test_no_such_fold_is_a_mistake_of_ours() -> None:
    for fold in (0, 3):
        with pytest.raises(ValueError, match="of 2"):
            fold_splits(["a", "b"], ["sick"] * 2, ["train"] * 2, fold=fold, folds=2, seed=0)
