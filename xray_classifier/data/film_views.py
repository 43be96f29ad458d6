"""What the input gate looks at in an image: coarse grey levels, texture, and smoothness.

All sums are of whole numbers and so exact: no number depends on the other images of a batch.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.signature import THUMB_PX, Signatures

BLOCKS = 8
"""Grey levels are means of 8 x 8 blocks. On children's and adults' chest films 16 x 16 told
strangers apart less well: there are more directions than images that could show their spread."""

SMALLEST_TEXTURE_PX = 12
"""Texture is measured at full size and at each half of it, down to this side."""

FAINT = 1e-3
"""Added to a contrast before its logarithm: a quarter of one grey level."""

IMAGES_AT_ONCE = 256

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]


def block_means(images: Images) -> Floats:
    """Mean grey of 8 x 8 blocks, shape (n, 64), in [0, 1].

    Args:
        images: (n, S, S); where S is no multiple of 8, blocks share the pixels that they cut.
    """
    size = images.shape[-1]
    weights = _shares(size)
    parts = [
        np.einsum("bi,nij,cj->nbc", weights, part.astype(np.int64), weights, optimize=True)
        for part in _batches(images)
    ]
    whole = np.concatenate(parts) if parts else np.zeros((0, BLOCKS, BLOCKS), np.int64)
    return np.asarray(whole.reshape(len(images), BLOCKS**2) / (255.0 * size**2))


def _shares(size: int) -> NDArray[np.int64]:
    """Eighths of each of S pixels that lie in each of 8 blocks, (8, S); a row adds up to S."""
    start = np.arange(size) * BLOCKS
    begin = np.arange(BLOCKS)[:, None] * size
    overlap = np.minimum(start + BLOCKS, begin + size) - np.maximum(start, begin)
    return np.asarray(np.maximum(overlap, 0))


def texture(images: Images) -> Floats:
    """How strongly neighbours differ, at several scales: three logarithms of each.

    They are the mean absolute difference along columns, along rows, and from the mean of the four
    neighbours; at full size and at each half of it down to SMALLEST_TEXTURE_PX.

    Args:
        images: (n, S, S).

    Returns:
        Shape (n, 3 * scales).
    """
    n_numbers = texture_length(images.shape[-1])
    parts = [_texture(part.astype(np.int64), n_numbers // 3) for part in _batches(images)]
    return np.concatenate(parts) if parts else np.zeros((0, n_numbers))


def texture_length(size_px: int) -> int:
    """How many numbers `texture` gives for an image of this side."""
    scales = 1
    while size_px >> scales >= SMALLEST_TEXTURE_PX:
        scales += 1
    return 3 * scales


def _texture(levels: NDArray[np.int64], scales: int) -> Floats:
    found: list[Floats] = []
    for scale in range(scales):
        found += [np.log(c / (255.0 * 4**scale) + FAINT) for c in _contrasts(levels)]
        levels = _quarters(levels)
    return np.stack(found, axis=1)


def _contrasts(levels: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    middle = levels[:, 1:-1, 1:-1]
    around = levels[:, :-2, 1:-1] + levels[:, 2:, 1:-1] + levels[:, 1:-1, :-2] + levels[:, 1:-1, 2:]
    return (
        _mean(np.abs(np.diff(levels, axis=1))),
        _mean(np.abs(np.diff(levels, axis=2))),
        _mean(np.abs(4 * middle - around)),
    )


def _mean(levels: NDArray[np.int64]) -> Floats:
    """Mean of each image; 0 for one without pixels."""
    return np.asarray(levels.sum(axis=(1, 2)) / max(levels[0].size, 1))


def _quarters(levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of 2 x 2 pixels; an odd last row or column is left out."""
    even = levels.shape[1] // 2 * 2
    rows = levels[:, 0:even:2] + levels[:, 1:even:2]
    return rows[:, :, 0:even:2] + rows[:, :, 1:even:2]


def _batches(images: Images) -> Iterator[Images]:
    for first in range(0, len(images), IMAGES_AT_ONCE):
        yield images[first : first + IMAGES_AT_ONCE]


def smoothness(signatures: Signatures) -> Floats:
    """Correlation of neighbouring pixels of the whole film's thumbnail, shape (n,).

    Near 1 where the picture is of large shapes, near 0 for noise, low for a page of text; 1 for a
    flat one. The lowest of 6,000 chest films was 0.73.
    """
    thumbs = signatures["thumb"].astype(np.int64)
    # about the mean to the nearest whole level, so that every sum is of whole numbers
    small = thumbs - np.rint(thumbs.mean(axis=(1, 2), keepdims=True)).astype(np.int64)
    variance = (small * small).mean(axis=(1, 2))
    down, right = small[:, 1:] * small[:, :-1], small[:, :, 1:] * small[:, :, :-1]
    pairs = max(down[0].size, 1) if len(down) else 1
    together = (down.sum(axis=(1, 2)) + right.sum(axis=(1, 2))) / (2.0 * pairs)
    whole = np.ones(len(thumbs))
    return np.asarray(np.divide(together, variance, out=whole, where=variance > 0))


def aspect(signatures: Signatures) -> Floats:
    """How much longer the longer side of the film is: the logarithm of the ratio, shape (n,)."""
    rows, columns = (signatures[side].astype(np.float64) for side in ("rows", "columns"))
    return np.asarray(np.abs(np.log(np.maximum(columns, 1.0) / np.maximum(rows, 1.0))))


def likeness(signatures: Signatures, typical: Floats) -> Floats:
    """Correlation of each film's thumbnail with a typical film, (n,); 0 for a flat one.

    Args:
        signatures: (n,) records of SIGNATURE.
        typical: (32, 32), not flat.
    """
    flat = signatures["thumb"].reshape(len(signatures), THUMB_PX**2).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    pattern = (typical - typical.mean()).ravel()
    norms = np.sqrt((flat * flat).sum(axis=1) * (pattern * pattern).sum())
    together, none = (flat * pattern).sum(axis=1), np.zeros(len(flat))
    return np.asarray(np.divide(together, norms, out=none, where=norms > 0))
