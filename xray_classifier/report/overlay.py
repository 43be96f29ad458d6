"""A film with a map of evidence laid over it as transparent colour."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from xray_classifier.report import canvas

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_PX = 256
"""Larger films are shrunk to this side, so that a page of many stays small."""

_OPACITY = 0.65
"""Of the colour at `limit`; the film must shine through."""


def overlay_png(
    image: NDArray[np.uint8], heat: NDArray[np.floating], *, limit: float | None = None
) -> bytes:
    """A film in grey, reddish where the map is above 0 (for sick), blue where below (against).

    Args:
        image: Film, (S, S) uint8, black at 0.
        heat: Map, (S, S), such as one of `occlusion_maps`.
        limit: Size of the map that gets the full colour, above 0; give several films the same one
            to compare them. None is the map's own largest; a map of zeros stays grey.

    Returns:
        A PNG file, at most 256 px a side; equal arguments give equal bytes with one version of
        Pillow.

    Raises:
        ValueError: The shapes differ, the map holds NaN or infinities, or `limit` is not above 0.
    """
    from PIL import Image

    if image.ndim != 2 or image.dtype != np.uint8 or image.shape != heat.shape:
        raise ValueError(f"want one (S, S) uint8 film and map, got {image.shape}, {heat.shape}")
    if not np.isfinite(heat).all():
        raise ValueError("the map holds numbers that are not finite")
    if limit is not None and not limit > 0:
        raise ValueError(f"limit must be above 0, got {limit}")
    full = limit or float(np.abs(heat).max()) or 1.0
    picture = Image.fromarray(_blended(image, heat / full))
    picture.thumbnail((LARGEST_PX, LARGEST_PX), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _blended(image: NDArray[np.uint8], share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Film and colour mixed, (S, S, 3); `share` of the full colour, cut off at -1 and 1."""
    grey = image[..., np.newaxis].astype(np.float64)
    colour = np.where(share[..., np.newaxis] > 0, _rgb(canvas.VERMILLION), _rgb(canvas.BLUE))
    alpha = _OPACITY * np.minimum(np.abs(share), 1.0)[..., np.newaxis]
    return np.asarray(np.rint((1.0 - alpha) * grey + alpha * colour), np.uint8)


def _rgb(code: str) -> NDArray[np.float64]:
    """`#D55E00` as three levels, 0 to 255."""
    return np.array([int(code[place : place + 2], 16) for place in (1, 3, 5)], np.float64)
