"""Near duplicates: nothing near is missed, nothing else joined, and the work stays in bounds."""

import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from xray_classifier.data import neighbours
from xray_classifier.data.decode import read_film
from xray_classifier.data.film import film_from_array
from xray_classifier.data.neighbours import (
    DETAILED_PX,
    NEAR_DETAIL,
    SURE_CORRELATION,
    Details,
    connected,
    near_pairs,
    nearest_distances,
)
from xray_classifier.data.phantoms import draw_phantom, phantom_table
from xray_classifier.data.signature import Signatures, signature_of

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
BITS = 256
CHUNKS = 14
NEAR_BITS = 27
NEAR_CORRELATION = 0.975

Bytes = NDArray[np.uint8]
Groups = set[frozenset[int]]


def _flipped(perceptual: Bytes, places: Iterable[int]) -> Bytes:
    """A hash with some bits turned, (32,)."""
    bits = np.unpackbits(perceptual)
    bits[list(places)] ^= 1
    return np.packbits(bits)


def _random_hashes(n: int, rng: np.random.Generator) -> Bytes:
    return rng.integers(0, 256, (n, 32), dtype=np.uint8)


def _random_thumbs(n: int, rng: np.random.Generator) -> Bytes:
    return rng.integers(0, 256, (n, 32, 32), dtype=np.uint8)


def _noisy(thumb: Bytes, noise: float, rng: np.random.Generator) -> Bytes:
    return np.clip(np.rint(thumb + rng.normal(0.0, noise, thumb.shape)), 0, 255).astype(np.uint8)


def _bits_apart(one: Bytes, other: Bytes) -> int:
    return (int.from_bytes(one.tobytes()) ^ int.from_bytes(other.tobytes())).bit_count()


def _all_near(hashes: Bytes, thumbs: Bytes) -> set[tuple[int, int]]:
    """Each pair of films that is near, by comparing each with each."""
    return {
        (one, other)
        for one in range(len(hashes))
        for other in range(one + 1, len(hashes))
        if _bits_apart(hashes[one], hashes[other]) <= NEAR_BITS
        and np.corrcoef(thumbs[one].ravel(), thumbs[other].ravel())[0, 1] >= NEAR_CORRELATION
    }


def _walked(n: int, pairs: Iterable[Iterable[int]]) -> Groups:
    """Groups of items that pairs connect, by walking from one to the next."""
    following: dict[int, set[int]] = {item: set() for item in range(n)}
    for one, other in pairs:
        following[one].add(other)
        following[other].add(one)
    groups: Groups = set()
    placed: set[int] = set()
    for start in range(n):
        if start in placed:
            continue
        seen, waiting = {start}, [start]
        while waiting:
            new = following[waiting.pop()] - seen
            seen |= new
            waiting += new
        groups.add(frozenset(seen))
        placed |= seen
    return groups


def _grouped(hashes: Bytes, thumbs: Bytes) -> Groups:
    return _walked(len(hashes), near_pairs(hashes, thumbs).tolist())


def _families(rng: np.random.Generator, n: int = 220) -> tuple[Bytes, Bytes]:
    """Films of a few families, whose members lie on both sides of either limit."""
    bases, drawn = _random_hashes(30, rng), _random_thumbs(30, rng)
    of = rng.integers(0, 30, n)
    turned = [rng.choice(BITS, rng.integers(0, 22), replace=False) for _ in range(n)]
    hashes = np.stack([_flipped(bases[k], turn) for k, turn in zip(of, turned, strict=True)])
    thumbs = np.stack([_noisy(drawn[k], rng.uniform(0.0, 20.0), rng) for k in of])
    return hashes, thumbs


def test_a_copy_is_found_up_to_27_bits_away_and_not_beyond() -> None:
    rng = np.random.default_rng(1)
    bases, thumbs = _random_hashes(41, rng), _random_thumbs(41, rng)
    turned = [rng.choice(BITS, distance, replace=False) for distance in range(41)]
    copies = np.stack([_flipped(base, turn) for base, turn in zip(bases, turned, strict=True)])
    pairs = near_pairs(np.concatenate([bases, copies]), np.concatenate([thumbs, thumbs]))
    assert pairs.tolist() == [[place, 41 + place] for place in range(NEAR_BITS + 1)]


def test_the_index_finds_a_copy_of_which_one_chunk_alone_is_nearly_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours._Search, "link_in_passing", lambda search, chunk: None)
    rng = np.random.default_rng(2)
    bases, thumbs = _random_hashes(BITS, rng), _random_thumbs(BITS, rng)
    copies = []
    for bit in range(BITS):  # two bits turned in each chunk, but in this bit's chunk this bit alone
        others = [
            np.arange(chunk, BITS, CHUNKS) for chunk in range(CHUNKS) if chunk != bit % CHUNKS
        ]
        turned = [place for places in others for place in rng.choice(places, 2, replace=False)]
        assert len(turned) == NEAR_BITS - 1
        copies.append(_flipped(bases[bit], [bit, *turned]))
    pairs = near_pairs(np.concatenate([bases, copies]), np.concatenate([thumbs, thumbs]))
    assert pairs.tolist() == [[bit, BITS + bit] for bit in range(BITS)]


@pytest.mark.parametrize("seed", range(5))
def test_groups_and_pairs_are_those_of_comparing_each_with_each(seed: int) -> None:
    hashes, thumbs = _families(np.random.default_rng(seed))
    truth = _all_near(hashes, thumbs)
    pairs = near_pairs(hashes, thumbs)
    assert pairs.dtype == np.int64
    assert {tuple(pair) for pair in pairs.tolist()} <= truth
    assert pairs.tolist() == sorted(pairs.tolist())
    groups = _walked(len(hashes), pairs.tolist())
    assert groups == _walked(len(hashes), truth)
    assert 30 < len(groups) < len(hashes)


def test_the_order_of_films_does_not_change_the_groups() -> None:
    rng = np.random.default_rng(3)
    hashes, thumbs = _families(rng)
    order = rng.permutation(len(hashes))
    shuffled = _grouped(hashes[order], thumbs[order])
    assert {frozenset(order[list(group)].tolist()) for group in shuffled} == _grouped(
        hashes, thumbs
    )


def test_thumbnails_inside_larger_records_give_the_same_pairs() -> None:
    hashes, thumbs = _families(np.random.default_rng(4))
    fields = [("perceptual", np.uint8, (32,)), ("thumb", np.uint8, (32, 32)), ("rows", np.uint32)]
    records = np.zeros(len(hashes), fields)
    records["perceptual"], records["thumb"] = hashes, thumbs
    pairs = near_pairs(records["perceptual"], records["thumb"])
    assert np.array_equal(pairs, near_pairs(hashes, thumbs))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_films_for_a_pair(n: int) -> None:
    rng = np.random.default_rng(5)
    pairs = near_pairs(_random_hashes(n, rng), _random_thumbs(n, rng))
    assert pairs.shape == (0, 2)


def test_films_of_one_hash_whose_thumbnails_disagree_stay_apart() -> None:
    rng = np.random.default_rng(6)
    thumbs = _random_thumbs(2, rng)[[0, 1, 0, 1, 1]]
    hashes = _random_hashes(1, rng).repeat(5, axis=0)
    assert _grouped(hashes, thumbs) == {frozenset({0, 2}), frozenset({1, 3, 4})}


def test_a_negative_is_not_near_its_picture() -> None:
    rng = np.random.default_rng(7)
    thumb = _random_thumbs(1, rng)
    hashes = _random_hashes(1, rng).repeat(2, axis=0)
    assert near_pairs(hashes, np.concatenate([thumb, 255 - thumb])).size == 0


def test_films_with_a_constant_thumbnail_are_near_none_and_cost_nothing() -> None:
    rng = np.random.default_rng(8)
    levels = rng.integers(0, 256, 3000, dtype=np.uint8)
    thumbs = np.broadcast_to(levels[:, None, None], (3000, 32, 32)).copy()
    thumbs[[17, 40]] = _random_thumbs(1, rng)
    compared: list[int] = []
    pairs = near_pairs(np.zeros((3000, 32), np.uint8), thumbs, compared.append)
    assert pairs.tolist() == [[17, 40]]
    assert sum(compared) <= 2 * CHUNKS


def _equal(n: int, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    return _random_hashes(1, rng).repeat(n, axis=0), _random_thumbs(1, rng).repeat(n, axis=0)


def _reencoded(n: int, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    base, thumb = _random_hashes(1, rng)[0], _random_thumbs(1, rng)[0]
    turned = [rng.choice(BITS, rng.integers(0, 8), replace=False) for _ in range(n)]
    return np.stack([_flipped(base, turn) for turn in turned]), thumb[None].repeat(n, axis=0)


@pytest.mark.parametrize("copies", [_equal, _reencoded])
def test_many_copies_of_a_picture_are_one_group_at_a_cost_that_grows_with_their_number(
    copies: Callable[[int, np.random.Generator], tuple[Bytes, Bytes]],
) -> None:
    cost = []
    for n in (500, 4000):
        hashes, thumbs = copies(n, np.random.default_rng(9))
        compared: list[int] = []
        pairs = near_pairs(hashes, thumbs, compared.append)
        assert len(_walked(n, pairs.tolist())) == 1
        assert len(pairs) < 5 * n
        cost.append(sum(compared) / n)
    assert cost[1] < 1.5 * cost[0]


def test_hardly_any_strangers_are_compared() -> None:
    rng = np.random.default_rng(10)
    n = 3000
    compared: list[int] = []
    near_pairs(_random_hashes(n, rng), _random_thumbs(n, rng), compared.append)
    # Two random chunks of 18 or 19 bits agree up to one bit in about 1 of 17,000 draws; 14 chunks.
    expected = sum((1 + bits) / 2**bits for bits in [19] * 4 + [18] * 10) * n * (n - 1) / 2
    in_passing = CHUNKS * (n - 1)
    assert sum(compared) - in_passing == pytest.approx(expected, rel=0.15)


def test_small_blocks_give_the_same_pairs_and_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, thumbs = _families(np.random.default_rng(11))
    groups = _grouped(hashes, thumbs)
    monkeypatch.setattr(neighbours, "COMPARED_AT_ONCE", 5)
    monkeypatch.setattr(neighbours, "CORRELATED_AT_ONCE", 3)
    compared: list[int] = []
    pairs = near_pairs(hashes, thumbs, compared.append)
    assert _walked(len(hashes), pairs.tolist()) == groups
    assert max(compared) <= len(hashes)


def test_memory_grows_with_the_films_and_not_with_the_pairs_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(12)
    n = 6000
    hashes, thumbs = _random_hashes(n, rng), _random_thumbs(n, rng)
    bits = np.unpackbits(hashes, axis=1)
    bits[:, ::CHUNKS] = 0  # all share one chunk, so all are compared with all
    monkeypatch.setattr(neighbours, "COMPARED_AT_ONCE", 1024)
    monkeypatch.setattr(neighbours, "CORRELATED_AT_ONCE", 64)
    compared: list[int] = []
    tracemalloc.start()
    near_pairs(np.packbits(bits, axis=1), thumbs, compared.append)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(compared) > n * (n - 1) / 2
    assert peak < n * n / 2  # half a byte a pair


@given(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=60),
        )
    )
)
def test_connected_names_each_group_by_its_smallest_member(
    case: tuple[int, list[tuple[int, int]]],
) -> None:
    n, pairs = case
    labels = connected(n, np.array(pairs, np.int64).reshape(-1, 2))
    expected = {member: min(group) for group in _walked(n, pairs) for member in group}
    assert labels.tolist() == [expected[item] for item in range(n)]


def test_connected_follows_a_long_chain_in_any_order() -> None:
    order = np.random.default_rng(13).permutation(20_000)
    labels = connected(20_001, np.stack([order[:-1], order[1:]], axis=1))
    assert not labels[:20_000].any()
    assert labels[20_000] == 20_000


def test_connected_without_pairs_or_items() -> None:
    nothing = np.empty((0, 2), np.int64)
    assert connected(3, nothing).tolist() == [0, 1, 2]
    assert connected(0, nothing).shape == (0,)


@pytest.mark.parametrize("block", [7, 8192])
def test_nearest_distance_is_the_smallest(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "STORED_AT_ONCE", block)
    rng = np.random.default_rng(14)
    stored = _random_hashes(50, rng)
    queries = np.concatenate([_random_hashes(5, rng), stored[[3]], ~stored[[49]]])
    queries[0] = _flipped(stored[49], range(9))
    expected = [min(_bits_apart(query, other) for other in stored) for query in queries]
    assert nearest_distances(queries, stored).tolist() == expected
    assert expected[0] == 9


def test_nearest_distance_at_either_end() -> None:
    ones, zeros = np.full((1, 32), 255, np.uint8), np.zeros((1, 32), np.uint8)
    assert nearest_distances(ones, zeros).tolist() == [BITS]
    assert nearest_distances(ones, ones[:0]).tolist() == [BITS + 1]
    assert nearest_distances(ones[:0], zeros).shape == (0,)


def _signatures(paths: list[Path]) -> Signatures:
    return np.concatenate([signature_of(read_film(path)) for path in paths])


def _images(folder: str) -> list[Path]:
    suffixes = (".png", ".jpeg")
    return sorted(path for path in (SHARED / folder).rglob("*") if path.suffix in suffixes)


needs_real_films = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no real radiographs in ../shared/data"
)


@needs_real_films
def test_real_films_are_joined_with_their_shrunken_copies_and_with_nothing_else() -> None:
    large = _images("kermany_fullres")
    small = [SHARED / "kermany224" / path.parent.name / path.name for path in large]
    films = _signatures(large + small)
    groups = _grouped(films["perceptual"], films["thumb"])
    assert groups == {frozenset({place, place + len(large)}) for place in range(len(large))}
    assert len(groups) == 205


@needs_real_films
@pytest.mark.parametrize(("folder", "copied"), [("leaky_split", 12), ("nih1000", 0)])
def test_real_films_near_each_other_are_exact_copies(folder: str, copied: int) -> None:
    films = _signatures(_images(folder))
    pixels = films["pixels"].copy().view(np.uint64)[:, 0]
    groups = _grouped(films["perceptual"], films["thumb"])
    several = [group for group in groups if len(group) > 1]
    assert len(several) == copied
    assert all(len(set(pixels[list(group)].tolist())) == 1 for group in several)


def _details(sides: Sequence[int], coefficients: NDArray[np.int8]) -> Details:
    return Details(coefficients, np.array(sides, dtype=np.uint32))


def test_films_that_differ_in_detail_are_not_near_if_both_are_large() -> None:
    rng = np.random.default_rng(5)
    hashes = np.repeat(_random_hashes(1, rng), 4, axis=0)
    base = rng.integers(60, 196, (32, 32)).astype(np.uint8)
    thumbs = np.stack([_noisy(base, 4.0, rng) for _ in range(4)])
    close = np.corrcoef(thumbs.reshape(4, -1))
    assert close.min() > NEAR_CORRELATION
    assert close[0, 1:].max() < SURE_CORRELATION
    fine = rng.normal(0, 30, (2, 584)).clip(-127, 127).astype(np.int8)
    details = _details([DETAILED_PX, 500, DETAILED_PX, DETAILED_PX - 1], fine[[0, 0, 1, 1]])
    pairs = near_pairs(hashes, thumbs, details=details)
    # the last is small: it is near all of them, and so connects them
    assert set(connected(4, pairs).tolist()) == {0}
    first = Details(details.coefficients[:3], details.sides[:3])
    assert connected(3, near_pairs(hashes[:3], thumbs[:3], details=first)).tolist() == [0, 0, 2]


def test_detail_agrees_where_its_correlation_reaches_the_limit() -> None:
    rng = np.random.default_rng(6)
    one = rng.normal(0, 30, (200, 584)).clip(-127, 127).astype(np.int8)
    mixed = one + rng.normal(0, 1, (200, 584)) * np.linspace(0, 14, 200)[:, None]
    both = np.concatenate([one, mixed.clip(-127, 127).astype(np.int8)])
    places = np.arange(200)
    agreed = _details([200] * 400, both).agree(places, places + 200)
    a, b = both[:200].astype(float), both[200:].astype(float)
    truth = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    assert agreed.tolist() == (truth >= NEAR_DETAIL).tolist()
    assert 20 < agreed.sum() < 180


def test_drawn_films_of_different_people_are_not_near() -> None:
    films = [draw_phantom(0, row).pixels for row in range(160)]
    records = np.concatenate([signature_of(film_from_array(film)) for film in films])
    sides = np.minimum(records["rows"], records["columns"])
    plain = near_pairs(records["perceptual"], records["thumb"])
    people = phantom_table(160, 0).patients
    assert any(people[i] != people[j] for i, j in plain.tolist())  # else this shows nothing
    details = Details(records["detail"], sides)
    finer = near_pairs(records["perceptual"], records["thumb"], details=details)
    assert all(people[i] == people[j] for i, j in finer.tolist())
