"""What there is to say of an image without its anatomy, as numbers for a regression.

Every function takes all images and gives one row of features each; nothing here sees a label.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.signature import THUMB_PX, Signatures
from xray_classifier.metrics import FloatArray, midranks

MOST_VALUES = 16
"""Values of a column, scanners and so on with a feature of their own; rarer ones have none."""
MOST_SIZES = 8
FEW_VALUES = 12
"""A column of no more distinct numbers than this may hold codes, such as of sites."""
RING_PX = 4
"""Width of the border, in pixels of the thumbnail: an eighth of the film at each side."""
ROWS_AT_ONCE = 2048
"""Thumbnails ranked at a time: 2,048 x 448 x 8 bytes = 7 MB."""
MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-", "?"})


def size_features(signatures: Signatures) -> FloatArray:
    """Log rows, log columns and their squares, and which of the frequent sizes it is."""
    logs = np.log(_sides(signatures))
    sizes = signatures["rows"].astype(np.uint64) << np.uint64(32) | signatures["columns"]
    return np.hstack([logs, _squares(logs), one_hot(sizes, MOST_SIZES)])


def aspect_features(signatures: Signatures) -> FloatArray:
    """Log of columns per row, and its square; shape (n_images, 2)."""
    logs = np.log(_sides(signatures))
    aspect = logs[:, 1:] - logs[:, :1]
    return np.hstack([aspect, _squares(aspect)])


def compression_features(signatures: Signatures) -> FloatArray:
    """Log bytes of the file per pixel, its square, and whether there is no file; (n_images, 3)."""
    n_bytes = signatures["file_bytes"].astype(np.float64)
    absent = n_bytes == 0
    logs = np.log(np.where(absent, 1.0, n_bytes) / _sides(signatures).prod(axis=1))
    logs = _filled(logs, absent)[:, np.newaxis]
    return np.hstack([logs, _squares(logs), absent[:, np.newaxis]])


def scanner_features(signatures: Signatures) -> FloatArray:
    """Which of the frequent scanners it is; files that name none are one more."""
    digests = np.ascontiguousarray(signatures["scanner"])
    return one_hot(digests.view(np.uint64)[:, 0], MOST_VALUES)


def border_features(signatures: Signatures) -> FloatArray:
    """The outer ring of the thumbnail, averaged over 2 x 2 pixels: the film with a black centre.

    Ring pixels are ranked anew among themselves. Their ranks in the whole film tell of the centre:
    where a lung turns white, all of the border that is darker than it is now falls.

    Returns:
        Shape (n_images, 112), in [1, 448].
    """
    thumbs, cells = signatures["thumb"], _ring_cells()
    features = np.empty((len(thumbs), len(cells)))
    for first in range(0, len(thumbs), ROWS_AT_ONCE):
        rows = thumbs[first:][:ROWS_AT_ONCE].reshape(-1, THUMB_PX**2)
        ranked = _ranks_in_rows(rows[:, cells.ravel()])
        features[first:][:ROWS_AT_ONCE] = ranked.reshape(-1, *cells.shape).mean(axis=2)
    return features


def _ring_cells() -> NDArray[np.intp]:
    """Places in a flat thumbnail of the pixels of the ring, (112, 4): a row per block of 2 x 2."""
    side, width = THUMB_PX // 2, RING_PX // 2
    blocks = np.arange(THUMB_PX**2).reshape(side, 2, side, 2).transpose(0, 2, 1, 3)
    ring = np.ones((side, side), np.bool_)
    ring[width:-width, width:-width] = False
    return blocks[ring].reshape(-1, 4)


def _ranks_in_rows(values: NDArray[np.uint8]) -> FloatArray:
    """Midranks of each row of values, shape (n_rows, n_values), from 1 up."""
    n_rows = len(values)
    keys = values + 256 * np.arange(n_rows)[:, np.newaxis]
    counts = np.bincount(keys.ravel(), minlength=256 * n_rows).reshape(n_rows, 256)
    ranks = np.cumsum(counts, axis=1) - (counts - 1) / 2
    return np.asarray(ranks.ravel()[keys])


def thumbnail_features(signatures: Signatures) -> FloatArray:
    """The whole film as 8 x 8 means of ranks, shape (n_images, 64), in [0, 255]."""
    side = THUMB_PX // 4
    blocks = signatures["thumb"].reshape(-1, side, 4, side, 4)
    means: FloatArray = blocks.mean(axis=(2, 4), dtype=np.float64)
    return means.reshape(len(means), -1)


def one_hot(values: NDArray[Any], most: int = MOST_VALUES) -> FloatArray:
    """A feature for each of the most frequent values: 1.0 where an image has it.

    Args:
        values: Shape (n_images,), of any type that sorts.
        most: How many values at most; further ones share a row of zeros, and so do values of one
            image only, which say nothing of other images.

    Returns:
        Shape (n_images, n_kept), 0.0 or 1.0, the most frequent value first.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:most]
    frequent = frequent[counts[frequent] > 1]
    return np.asarray(place[:, np.newaxis] == frequent, dtype=np.float64)


def column_features(cells: Sequence[str]) -> FloatArray | None:
    """A column of a CSV as features.

    A column of numbers gives the rank of each, the square of that, and whether the cell is empty
    or says that there is no value; ranks, for one age of 411 would outweigh all others. A column of
    few distinct numbers, or of texts, gives the most frequent values.

    Args:
        cells: One text per image.

    Returns:
        Shape (n_images, n_features); None for a column of texts or whole numbers that all differ,
        as names of files and running numbers do.
    """
    texts = [cell.strip() for cell in cells]
    numbers = _numbers(texts)
    whole = numbers is None or bool(np.all(numbers == np.rint(numbers)))
    if len(set(texts)) == len(texts) > 1 and whole:
        return None
    if numbers is None:
        return one_hot(np.array(texts))
    absent = np.isnan(numbers)
    ranks = np.zeros(len(numbers))
    ranks[~absent] = midranks(numbers[~absent]) / len(numbers)
    ranks = _filled(ranks, absent)[:, np.newaxis]
    columns = [ranks, _squares(ranks), absent[:, np.newaxis].astype(np.float64)]
    if len(np.unique(numbers[~absent])) <= FEW_VALUES:
        columns.append(one_hot(numbers))
    return np.hstack(columns)


def _numbers(texts: Sequence[str]) -> FloatArray | None:
    """Each cell as a number, NaN where missing; None if one is no number or all are missing."""
    try:
        values = [math.nan if t.casefold() in MISSING else float(t) for t in texts]
    except ValueError:
        return None
    numbers = np.array(values)
    return None if np.isnan(numbers).all() or np.isinf(numbers).any() else numbers


def _sides(signatures: Signatures) -> FloatArray:
    """Rows and columns in pixels, shape (n_images, 2)."""
    return np.stack([signatures["rows"], signatures["columns"]], axis=1).astype(np.float64)


def _squares(values: FloatArray) -> FloatArray:
    """Squared distance from the mean of each column: what lies at either end may be alike."""
    return np.asarray((values - values.mean(axis=0)) ** 2)


def _filled(values: FloatArray, absent: NDArray[np.bool_]) -> FloatArray:
    """Values with the mean of those present where one is absent."""
    middle = float(values[~absent].mean()) if not absent.all() else 0.0
    return np.where(absent, middle, values)
