"""Which parts of an image a model's answer rests on: cover a square, ask again, note the change."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from xray_classifier.classifier import Classifier
from xray_classifier.inference import INFERENCE_ROWS

WINDOWS_PER_SIDE = 8
"""The default window is this part of the side."""
STEPS_PER_WINDOW = 4
"""The default step is this part of the window."""

Corner = tuple[int, int]


def occlusion_maps(
    classifier: Classifier,
    images: NDArray[np.uint8],
    *,
    window_px: int | None = None,
    stride_px: int | None = None,
) -> NDArray[np.float64]:
    """How much each place of an image adds to the logit of sick.

    A square is replaced by the image's mean grey, rounded to a whole level, and the logit with the
    square covered is taken from the logit without. A pixel gets the mean over all squares that
    cover it. The map says what moves this model, not where a disease is.

    Args:
        classifier: The model; for regression the change is one of the predicted number.
        images: Prepared images, (n, S, S) uint8.
        window_px: Side of the square; None is an eighth of S.
        stride_px: Step from one square to the next, at most `window_px`; None is a quarter of it.
            A last square lies at the far border where the steps do not end there.

    Returns:
        (n, S, S) float64; above 0 where a place speaks for sick, below 0 where it speaks against.

    Raises:
        ValueError: The images have another shape or type, or the square or its step does not fit.

    Source:
        Zeiler & Fergus 2014, doi:10.1007/978-3-319-10590-1_53.
    """
    size = classifier.size_px
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (size, size):
        raise ValueError(f"want (n, {size}, {size}) uint8, got {images.shape} {images.dtype}")
    window = max(1, size // WINDOWS_PER_SIDE) if window_px is None else window_px
    stride = max(1, window // STEPS_PER_WINDOW) if stride_px is None else stride_px
    if not 1 <= stride <= window <= size:
        raise ValueError(
            f"want 1 <= stride_px <= window_px <= {size}, got stride {stride} and window {window}"
        )
    corners = _corners(size, window, stride)
    logits = classifier.score(images).logits
    maps = [
        _map(classifier, image, float(logit), corners, window)
        for image, logit in zip(images, logits, strict=True)
    ]
    return np.stack(maps) if maps else np.zeros(images.shape)


def _corners(size: int, window: int, stride: int) -> list[Corner]:
    """Top and left of each square, row by row."""
    starts = [*range(0, size - window, stride), size - window]
    return [(top, left) for top in starts for left in starts]


def _map(
    classifier: Classifier,
    image: NDArray[np.uint8],
    logit: float,
    corners: Sequence[Corner],
    window: int,
) -> NDArray[np.float64]:
    """The map of one image, (S, S)."""
    covered = [classifier.score(block).logits for block in _covered(image, corners, window)]
    total, count = np.zeros(image.shape), np.zeros(image.shape)
    for (top, left), answer in zip(corners, np.concatenate(covered), strict=True):
        part = np.s_[top : top + window, left : left + window]
        total[part] += logit - answer
        count[part] += 1
    return total / count


def _covered(
    image: NDArray[np.uint8], corners: Sequence[Corner], window: int
) -> Iterator[NDArray[np.uint8]]:
    """The image with one square covered after the other, in blocks (b, S, S)."""
    mean = np.uint8(np.rint(image.mean(dtype=np.float64)))
    for start in range(0, len(corners), INFERENCE_ROWS):
        part = corners[start : start + INFERENCE_ROWS]
        block = np.repeat(image[np.newaxis], len(part), axis=0)
        for copy, (top, left) in zip(block, part, strict=True):
            copy[top : top + window, left : left + window] = mean
        yield block
