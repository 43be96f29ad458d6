"""Which films look alike: near duplicates among many, by an index over perceptual hashes.

Two films are near if their hashes differ in few bits and their thumbnails correlate, and their
finer structure too where both are large enough to have one. The 256 bits
are cut into 14 interleaved chunks; of 27 wrong bits at least one chunk has at most one. So films
are sorted by one chunk after the other, and only those whose chunks differ in at most one bit are
compared in full. A film already known to belong with another is not compared with it again, which
keeps ten thousand copies of one picture from costing fifty million comparisons.

Source: multi-index hashing, Norouzi, Punjani & Fleet 2012, doi:10.1109/CVPR.2012.6248043.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.signature import PERCEPTUAL_BYTES, THUMB_PX

CHUNKS = 14
NEAR_BITS = 2 * CHUNKS - 1
"""Most bits in which near films differ: 27 of 256, the largest number that 14 chunks guarantee.

Measured: 205 chest films of 400 to 2,900 px and their copies at 224 px differ in 16 at most; the
most alike films of two examinations in 30 (800 of 64 px, one patient), 34 (5,216 of 224 px) and 42
(5,232 of 28 px).
"""
NEAR_CORRELATION = 0.975
"""Least correlation of the thumbnails of near films.

Measured: 0.998 between those 205 and their copies, 0.975 to 0.994 between films and copies of 28 px
that are near by their bits. It adds to the bits where different films share their coarse outline.
Drawn phantoms do: of 1,500, 148 pairs of different patients are near, all correlated below 0.997.
"""

NEAR_DETAIL = 0.975
"""Least correlation of finer structure of near films. Copies of 51 real and 60 drawn films of 96 px
and more, re-encoded at quality 30, re-windowed with up to 10 % clipped at each end, or with noise,
had 0.979 or more; the most alike of 1,600 drawn films, of two people, had 0.974."""
SURE_CORRELATION = 0.997
"""Thumbnails that correlate so well need no agreement in detail: no two of 1,600 drawn films of
different people do, and a copy in poor quality may lose its detail."""
DETAILED_PX = 96
"""Films with a shorter side than this have no finer structure that survives a copy."""

COMPARED_AT_ONCE = 1 << 19
CORRELATED_AT_ONCE = 1 << 11
STORED_AT_ONCE = 1 << 13
BITS = 8 * PERCEPTUAL_BYTES

Places = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Details:
    """Structure finer than a thumbnail, to tell films apart that agree in all that it shows.

    Attributes:
        coefficients: `detail` of the signatures, (n_films, n_coefficients) int8.
        sides: Shorter side of each film in pixels, (n_films,).
    """

    coefficients: NDArray[np.int8]
    sides: NDArray[np.integer]

    def agree(self, one: Places, other: Places) -> NDArray[np.bool_]:
        """Whether each pair agrees in detail, (n_pairs,); small films have none and always do."""
        agreed = np.minimum(self.sides[one], self.sides[other]) < DETAILED_PX
        fine = np.flatnonzero(~agreed)
        left = self.coefficients[one[fine]].astype(np.int32)
        right = self.coefficients[other[fine]].astype(np.int32)
        squares = np.einsum("ij,ij->i", left, left), np.einsum("ij,ij->i", right, right)
        scale = np.sqrt(squares[0].astype(np.float64) * squares[1])
        agreed[fine] = np.einsum("ij,ij->i", left, right) >= NEAR_DETAIL * scale
        return np.asarray(agreed)


def near_pairs(
    perceptual: NDArray[np.uint8],
    thumbs: NDArray[np.uint8],
    on_compared: Callable[[int], None] | None = None,
    details: Details | None = None,
) -> Places:
    """Pairs that connect all films that are near each other.

    Every pair is near: at most `NEAR_BITS` bits apart, thumbnails correlated by at least
    `NEAR_CORRELATION`. Not every near pair is there, but enough of them: films joined by a chain of
    near pairs are joined by a chain of these. A film whose thumbnail is constant is near none.

    Memory grows with the films. Time grows with the pairs whose hashes share a chunk but for one
    bit: about 450 for each of 100,000 chest films. It grows with the square of the films only where
    many of them share chunks and yet are not near.

    Args:
        perceptual: Perceptual hash per film, (n_films, 32) uint8.
        thumbs: Thumbnail per film, (n_films, 32, 32) uint8.
        on_compared: Told, block by block, how many pairs of hashes were compared.
        details: Finer structure, in which near films must agree as well; None: not looked at.

    Returns:
        Places of two films, (n_pairs, 2), the smaller first, sorted.
    """
    search = _Search(perceptual, thumbs, on_compared, details)
    for chunk in range(CHUNKS):
        search.link_in_passing(chunk)
    for chunk in range(CHUNKS):
        search.link_all(chunk)
    return search.pairs()


def correlated(
    thumbs: NDArray[np.uint8], one: Places, other: Places, least: float
) -> NDArray[np.bool_]:
    """Whether the thumbnails of pairs correlate at least so well; a constant one never does.

    Args:
        thumbs: Thumbnail per film, (n_films, 32, 32) uint8.
        one: Places of films, (n_pairs,).
        other: Places of films, (n_pairs,).
        least: Smallest correlation.
    """
    places, ends = np.unique(np.concatenate([one, other]), return_inverse=True)
    few = _Thumbs(thumbs[places])
    left, right = ends[: len(one)], ends[len(one) :]
    varied = (few.variances[left] > 0) & (few.variances[right] > 0)
    return np.asarray(few.correlate(left, right, least) & varied)


def connected(n: int, pairs: Places) -> Places:
    """The group of each of n items, where pairs say which belong together.

    Args:
        n: Number of items.
        pairs: Places of two items, (n_pairs, 2), each in [0, n).

    Returns:
        The smallest member of each item's group, (n,); an item in no pair has its own place.
    """
    labels = np.arange(n)
    one, other = pairs[:, 0], pairs[:, 1]
    while one.size:
        low = np.minimum(one, other)
        np.minimum.at(labels, one, low)
        np.minimum.at(labels, other, low)
        labels = _shortened(labels)
        one, other = labels[one], labels[other]
        apart = one != other
        one, other = one[apart], other[apart]
    return labels


def _shortened(labels: Places) -> Places:
    """Labels of labels of labels, until nothing changes."""
    while True:
        further = labels[labels]
        if np.array_equal(further, labels):
            return labels
        labels = further


def nearest_distances(queries: NDArray[np.uint8], stored: NDArray[np.uint8]) -> Places:
    """How many bits each hash is from the nearest of a stored set.

    Args:
        queries: Perceptual hashes, (n_queries, 32) uint8.
        stored: Perceptual hashes, (n_stored, 32) uint8.

    Returns:
        0 to 256, (n_queries,); 257, further than any, if nothing is stored.
    """
    nearest = np.full(len(queries), BITS + 1, np.int64)
    asked = _words(queries)
    for start in range(0, len(stored), STORED_AT_ONCE):
        block = _words(stored[start : start + STORED_AT_ONCE])
        for place, query in enumerate(asked.T):
            distance = _distances(query[:, None], block).min()
            nearest[place] = min(nearest[place], distance)
    return nearest


def _words(perceptual: NDArray[np.uint8]) -> Words:
    """Hashes as (4, n) uint64, so that a part of many of them lies together."""
    return np.ascontiguousarray(np.ascontiguousarray(perceptual).view(np.uint64).T)


def _distances(one: Words, other: Words) -> NDArray[np.uint16]:
    """In how many bits columns of words differ; (n_words, n) and the same or (n_words, 1)."""
    return np.asarray(np.bitwise_count(one ^ other).sum(axis=0, dtype=np.uint16))


def _near_places(words: Words, one: Places, other: Places) -> tuple[Places, Places]:
    """Those of the pairs whose hashes are near; half of the bits rule out nearly all others."""
    for part in (words[:2], words):
        near = _distances(part[:, one], part[:, other]) <= NEAR_BITS
        one, other = one[near], other[near]
    return one, other


def _chunk_keys(perceptual: NDArray[np.uint8], chunk: int) -> Places:
    """One chunk of each hash, every 14th bit, as a whole number below 2^19; (n_films,)."""
    bits = np.unpackbits(perceptual, axis=1)[:, chunk::CHUNKS]
    keys = np.zeros(len(bits), np.int64)
    for place, column in enumerate(bits.T):
        keys |= column.astype(np.int64) << place
    return keys


class _Search:
    """What is known while pairs are looked for.

    Films with a constant thumbnail are left out at the start, so places here count the others.
    """

    def __init__(
        self,
        perceptual: NDArray[np.uint8],
        thumbs: NDArray[np.uint8],
        on_compared: Callable[[int], None] | None,
        details: Details | None,
    ) -> None:
        self.details = details
        self.thumbs = _Thumbs(thumbs)
        self.films = np.flatnonzero(self.thumbs.variances)
        self.perceptual = perceptual[self.films]
        self.words = _words(self.perceptual)
        self.ranks = np.empty(len(self.films), np.int64)
        self.ranks[np.lexsort(tuple(self.words))] = np.arange(len(self.films))
        self.labels = np.arange(len(self.films))
        self.found = [np.empty((0, 2), np.int64)]
        self.on_compared = on_compared

    def pairs(self) -> Places:
        """The near pairs found so far, as places among all films."""
        pairs = np.sort(self.films[np.concatenate(self.found)], axis=1)
        return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]

    def link_in_passing(self, chunk: int) -> None:
        """Compare films that come one after the other when sorted by a chunk.

        That connects large groups of copies before `link_all` looks at all that share a chunk.
        """
        order = np.argsort(_chunk_keys(self.perceptual, chunk) * len(self.ranks) + self.ranks)
        places = np.arange(len(order))
        self._compare(order, self.words[:, order], places[:-1], places[1:])

    def link_all(self, chunk: int) -> None:
        """Compare all films whose chunks differ in at most one bit, but for those linked before."""
        keys = _chunk_keys(self.perceptual, chunk)
        order = np.argsort(keys * len(keys) + self.labels)
        words = self.words[:, order]
        for one, first, last in _partners(keys[order], self.labels[order]):
            for left, right in _expanded(one, first, last):
                self._compare(order, words, left, right)

    def _compare(self, order: Places, words: Words, one: Places, other: Places) -> None:
        """Keep the near ones of some pairs, given as places in an order, with words so sorted."""
        if self.on_compared is not None:
            self.on_compared(len(one))
        one, other = _near_places(words, one, other)
        for start in range(0, len(one), CORRELATED_AT_ONCE):
            block = slice(start, start + CORRELATED_AT_ONCE)
            self._link(order[one[block]], order[other[block]])

    def _link(self, one: Places, other: Places) -> None:
        """Keep and join those of some pairs that are apart so far and whose thumbnails agree."""
        apart = self.labels[one] != self.labels[other]
        one, other = one[apart], other[apart]
        alike = self.thumbs.correlate(self.films[one], self.films[other], NEAR_CORRELATION)
        one, other = one[alike], other[alike]
        if self.details is not None:
            alike = self.thumbs.correlate(self.films[one], self.films[other], SURE_CORRELATION)
            alike |= self.details.agree(self.films[one], self.films[other])
            one, other = one[alike], other[alike]
        pairs = np.stack([one, other], axis=1)
        if len(pairs):
            self.found.append(pairs)
            self.labels = connected(len(self.labels), self.labels[pairs])[self.labels]


class _Thumbs:
    """Thumbnails and their moments, in whole numbers, so that no rounding depends on the order."""

    def __init__(self, thumbs: NDArray[np.uint8]) -> None:
        self.thumbs = thumbs
        self.sums = thumbs.sum(axis=(1, 2), dtype=np.int64)
        self.variances = self._covariances(np.arange(len(thumbs)), np.arange(len(thumbs)))

    def correlate(self, one: Places, other: Places, least: float) -> NDArray[np.bool_]:
        """Whether each pair's correlation is at least `least`; (n_pairs,).

        Args:
            one: Places of thumbnails that are not constant, (n_pairs,).
            other: The same.
        """
        scale = np.sqrt(self.variances[one].astype(np.float64) * self.variances[other])
        return np.asarray(self._covariances(one, other) >= least * scale)

    def _covariances(self, one: Places, other: Places) -> Places:
        """1024^2 times the covariance of each pair; (n_pairs,)."""
        products = np.empty(len(one), np.int64)
        for start in range(0, len(one), CORRELATED_AT_ONCE):
            block = slice(start, start + CORRELATED_AT_ONCE)
            pair = self.thumbs[one[block]].astype(np.int32), self.thumbs[other[block]]
            products[block] = np.einsum("nij,nij->n", pair[0], pair[1].astype(np.int32))
        return np.asarray(products * THUMB_PX**2 - self.sums[one] * self.sums[other])


def _partners(keys: Places, labels: Places) -> Iterator[tuple[Places, Places, Places]]:
    """Films whose keys differ in at most one bit and whose labels differ, each pair once.

    Args:
        keys: One chunk per film, sorted, (n_films,).
        labels: Group per film, sorted among equal keys, (n_films,).

    Yields:
        Places of films, and the first and the last but one place of the partners of each.
    """
    n = len(keys)
    both = keys * n + labels
    starts = np.searchsorted(keys, np.arange(_table_size(keys)))
    yield np.arange(n), np.searchsorted(both, both, "right"), starts[keys + 1]
    bit = 1
    while bit < len(starts) - 1:
        one = np.flatnonzero((keys & bit) == 0)
        one = one[starts[keys[one] + bit] < starts[keys[one] + bit + 1]]
        flipped, own = keys[one] + bit, both[one] + bit * n
        yield one, starts[flipped], np.searchsorted(both, own, "left")
        yield one, np.searchsorted(both, own, "right"), starts[flipped + 1]
        bit *= 2


def _table_size(keys: Places) -> int:
    """One more than the power of two above all keys."""
    return (1 << int(keys.max(initial=0)).bit_length()) + 1


def _expanded(one: Places, first: Places, last: Places) -> Iterator[tuple[Places, Places]]:
    """Each film with each of its partners, in blocks of bounded size.

    Args:
        one: Places of films, (n,).
        first: First partner of each, (n,).
        last: One past its last partner, (n,).

    Yields:
        Places of films and of their partners, each (n_pairs,).
    """
    sizes = last - first
    ends = np.cumsum(sizes)
    start = 0
    while start < len(one):
        done = ends[start] - sizes[start]
        stop = max(start + 1, int(np.searchsorted(ends, done + COMPARED_AT_ONCE, "right")))
        count = sizes[start:stop]
        shift = first[start:stop] - (ends[start:stop] - count)
        left = np.repeat(one[start:stop], count)
        yield left, np.arange(done, ends[stop - 1]) + np.repeat(shift, count)
        start = stop
