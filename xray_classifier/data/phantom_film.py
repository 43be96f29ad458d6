"""From attenuation to a stored film: Beer-Lambert law, scatter, noise, window, tone, 12 bits."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.phantom_paths import Floats

FILM_LEVELS = 4096
"""Grey levels of a film: 12 bits, 0..4095."""


def expose(optical_depth: Floats, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Take the film: exposure, scatter, noise, window and tone, each its own for every film.

    Args:
        optical_depth: Integral of mu dl, shape (H, H).
        rng: Where exposure and noise come from.

    Returns:
        Grey levels 0..4095, shape (H, H).
    """
    size_px = optical_depth.shape[0]
    exposure, black, white, target = rng.standard_normal(4)
    image = add_scatter(transmission(optical_depth), 0.2 + 0.3 * rng.random(), 0.12 * size_px)
    stride = max(1, size_px // 64)
    dark, middle, bright = -np.log(np.quantile(image[::stride, ::stride], (0.96, 0.5, 0.01)))
    reach = bright - dark
    low, high = dark + 0.07 * reach * black, bright + 0.07 * reach * white
    tone = np.clip((middle - low) / (high - low), 0.2, 0.8)
    bend = np.clip(0.15 + (0.29 + 0.06 * target - 0.5 * tone) / (tone - tone * tone), -0.8, 0.8)
    gain = 900.0 * np.exp(middle + 0.35 * exposure)
    counts = detect(image * gain, rng, electronic_sd=4.0)
    return develop(counts, low - np.log(gain), high - np.log(gain), bend)


@lru_cache(maxsize=16)
def gaussian_kernel(size_px: int, sigma_px: float, stride: int) -> Floats:
    """Matrix (size_px, n), read-only, that blurs every `stride`-th pixel; rows sum to one."""
    steps = np.arange(size_px, dtype=np.float64)
    distance = steps[:, None] - steps[None, (stride - 1) // 2 :: stride]
    kernel = np.exp(-0.5 * (distance / sigma_px) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    kernel.flags.writeable = False
    return kernel


def blur(image: Floats, sigma_px: float) -> Floats:
    """Blur a square image (H, H) by a Gaussian; near an edge only what is there counts.

    A wide blur reads every few pixels only: four samples a standard deviation hold a smooth image.
    """
    stride = max(1, int(sigma_px / 4.0))
    kernel = gaussian_kernel(image.shape[0], sigma_px, stride)
    start = (stride - 1) // 2
    return np.asarray(kernel @ image[start::stride, start::stride] @ kernel.T, dtype=np.float64)


def transmission(optical_depth: Floats) -> Floats:
    """Fraction of quanta that pass, exp(-integral of mu dl); the Beer-Lambert law, any shape."""
    return np.asarray(np.exp(-optical_depth))


def add_scatter(primary: Floats, fraction: float, sigma_px: float) -> Floats:
    """Lay the haze of scattered quanta over the primary image.

    Args:
        primary: Transmitted fraction, shape (H, H).
        fraction: Scattered quanta per primary one; about 0.3 behind an anti-scatter grid.
        sigma_px: Spread of the scatter in pixels.

    Returns:
        Primary plus scatter, shape (H, H).
    """
    return primary + fraction * blur(primary, sigma_px)


def detect(quanta: Floats, rng: np.random.Generator, electronic_sd: float = 0.0) -> Floats:
    """Count quanta: Poisson noise for large means, plus the detector's own noise.

    The Cornish-Fisher form, mean + sqrt(mean) g + (g^2 - 1) / 6 with g standard normal, has the
    mean, variance and skewness of the Poisson law. Unlike rejection sampling it takes exactly one
    number a pixel, so that a last-bit difference between machines cannot change a whole film.

    Args:
        quanta: Expected counts, shape (H, W), above about 20.
        rng: Where the noise comes from.
        electronic_sd: Standard deviation of the electronic noise, in quanta.

    Returns:
        Counts, shape (H, W), at least 0.
    """
    spread = np.sqrt(quanta + electronic_sd**2)
    normal = rng.standard_normal(quanta.shape)
    spread *= normal
    normal *= normal
    normal -= 1.0
    normal /= 6.0
    counts = quanta + spread
    counts += normal
    return np.maximum(counts, 0.0, out=counts)


def develop(counts: Floats, low: float, high: float, bend: float) -> NDArray[np.uint16]:
    """Turn counts into the stored film: logarithm, window, tone curve, 12 bits, dense is bright.

    Args:
        counts: Detected quanta, shape (H, W), at least 0.
        low: -log(counts) that becomes black.
        high: -log(counts) that becomes white, above `low`.
        bend: Curvature of the tone curve in (-1, 1); 0 is straight, above 0 lifts the middle.

    Returns:
        Grey levels 0..4095, shape (H, W).
    """
    tone = np.log(np.maximum(counts, 1.0))
    tone += low
    tone /= low - high
    np.clip(tone, 0.0, 1.0, out=tone)
    tone *= 1.0 + bend - bend * tone
    film: NDArray[np.uint16] = np.rint(tone * (FILM_LEVELS - 1)).astype(np.uint16)
    return film
