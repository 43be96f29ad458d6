"""What goes wrong with a film in daily work, from barely visible to bad, for `evaluate --stress`.

Each change is made on the film, before the intensity step, as it happens in life: the same change
of a prepared image would test something else, for `equalize` undoes every rise of exposure. Films
are first brought to a working size that does not depend on the crop, and up to 64 px not on the
size of the model either, so that models are tried on the same films.

What happens to a film is a function of the film, the strength and a seed of its own: never of other
films, of their order or of threads.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.film import Film
from xray_classifier.data.intensity import prepare, resized

FINEST_PX = 128
"""Sides up to this are what noise and resolution are stated for."""
BLUR_REACH = 4.0
"""Standard deviations after which a Gaussian is cut off."""

Change = Callable[[Film, float, int], Film]
"""A working film, the strength in its unit, and a seed, to the changed film."""


def working_film(film: Film, size: int) -> Film:
    """The film as floats, shrunk so far that working on it is cheap.

    Args:
        film: At native depth.
        size: Side S that the model sees, in pixels.

    Returns:
        (H, W) float32, white at 1.0, the shorter side at most max(2 S, 128) px, the ratio of the
        sides kept; never enlarged. Padding keeps its mask.
    """
    height, width = film.pixels.shape
    share = min(1.0, max(2 * size, FINEST_PX) / min(height, width))
    rows, columns = _sides(film, share)
    grey, valid = resized(film, (0, 0, height, width), rows, columns)
    return _film(grey / np.float32(film.full_scale), None if valid.all() else valid, film)


def exposure(film: Film, gamma: float, seed: int) -> Film:
    """Too dark or too bright: grey values to the power `gamma`, or 1 / gamma, as the seed has it.

    Args:
        film: Values 0 to 1.
        gamma: At least 1; 1 changes nothing.
        seed: Chooses the direction.
    """
    return _film(film.pixels ** np.float32(_either(gamma, seed)), film.mask, film)


def contrast(film: Film, factor: float, seed: int) -> Film:
    """A wrong window: distances from the film's mean times `factor`, or 1 / factor; then cut off.

    Args:
        film: Values 0 to 1; what leaves that range becomes black or white.
        factor: At least 1; 1 changes nothing.
        seed: Chooses the direction.
    """
    inside = film.pixels if film.mask is None else film.pixels[film.mask]
    mean = np.float32(inside.mean(dtype=np.float64))
    return _film(mean + np.float32(_either(factor, seed)) * (film.pixels - mean), film.mask, film)


def blur(film: Film, sigma: float, seed: int = 0) -> Film:
    """The patient moved, or the scanner is out of focus: a Gaussian.

    Args:
        film: Beyond its border it goes on as the border does; padding has no weight.
        sigma: Standard deviation, a fraction of the film's shorter side.
        seed: Not used; the same for all films.
    """
    sigma_px = sigma * min(film.pixels.shape)
    return _weighted(film, lambda grey: _smoothed(grey, sigma_px))


def noise(film: Film, deviation: float, seed: int) -> Film:
    """Too few X-rays: independent normal noise on each pixel, then cut off at black and white.

    Args:
        film: Values 0 to 1.
        deviation: Standard deviation, a fraction of white, on a film of 128 px a side; in
            proportion to the side elsewhere, so that an area gets the same noise on any film.
        seed: Of the noise.
    """
    drawn = _generator(seed).standard_normal(film.pixels.shape, dtype=np.float32)
    scale = np.float32(deviation * min(film.pixels.shape) / FINEST_PX)
    return _film(film.pixels + scale * drawn, film.mask, film)


def rotation(film: Film, degrees: float, seed: int) -> Film:
    """The patient or the cassette lies askew: a turn about the film's centre.

    Args:
        film: Beyond its border it goes on as the border does, here and for `shift` and `zoom`.
        degrees: How far.
        seed: Chooses the direction.
    """
    angle = np.deg2rad(degrees) * (1.0 if _heads(seed) else -1.0)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    return _weighted(film, lambda grey: _warped(grey, (cosine, -sine, sine, cosine), (0.0, 0.0)))


def shift(film: Film, fraction: float, seed: int) -> Film:
    """The patient is off centre: a shift up, down, left or right.

    Args:
        film: See `rotation`.
        fraction: How far, a fraction of the shorter side.
        seed: Chooses the direction.
    """
    step_px = fraction * min(film.pixels.shape)
    down, right = ((1, 0), (-1, 0), (0, 1), (0, -1))[int(_generator(seed).integers(4))]
    offset = (-down * step_px, -right * step_px)
    return _weighted(film, lambda grey: _warped(grey, (1.0, 0.0, 0.0, 1.0), offset))


def zoom(film: Film, factor: float, seed: int) -> Film:
    """Another distance or a smaller patient: larger by `factor` about the centre, or smaller.

    Args:
        film: See `rotation`.
        factor: At least 1; 1 changes nothing.
        seed: Chooses between larger and smaller.
    """
    back = 1.0 / _either(factor, seed)
    return _weighted(film, lambda grey: _warped(grey, (back, 0.0, 0.0, back), (0.0, 0.0)))


def jpeg(film: Film, quality: float, seed: int = 0) -> Film:
    """Sent on as a small file: rounded to 8 bits, JPEG and back.

    Args:
        film: Values 0 to 1; blocks are 8 px of the working film.
        quality: Pillow's number, 1 to 95.
        seed: Not used; the same for all films.
    """
    from PIL import Image

    buffer = io.BytesIO()
    levels = np.rint(film.pixels * 255.0).astype(np.uint8)
    Image.fromarray(levels).save(buffer, format="JPEG", quality=int(quality))
    with Image.open(buffer) as image:
        grey = np.asarray(image, np.float32)
    return _film(grey / np.float32(255.0), film.mask, film)


def resolution(film: Film, fraction: float, seed: int = 0) -> Film:
    """A thumbnail was sent: fewer pixels, then as many as before.

    Args:
        film: Padding has no weight.
        fraction: Of the pixels along a side of the film, or of 128 px where it has more.
        seed: Not used; the same for all films.
    """
    height, width = film.pixels.shape
    side_px = min(height, width)
    rows, columns = _sides(film, fraction * min(side_px, FINEST_PX) / side_px)
    grey, valid = resized(film, (0, 0, height, width), rows, columns)
    small = Film(grey, 1.0, valid)
    grown, inside = resized(small, (0, 0, rows, columns), height, width)
    return _film(grown, None if film.mask is None else inside, film)


def border(film: Film, fraction: float, seed: int = 0) -> Film:
    """A collimator or a scanned frame: black along the four edges, which no file declares.

    Args:
        film: Its edges are those of what is not padding. The frame counts as film.
        fraction: Width of the frame, a fraction of the shorter side.
        seed: Not used; the same for all films.
    """
    inside = np.ones(film.pixels.shape, np.bool_) if film.mask is None else film.mask
    width_px = round(fraction * min(film.pixels.shape))
    kept = np.zeros_like(inside)
    (top, bottom), (left, right) = (_extent(inside, axis) for axis in (1, 0))
    kept[top + width_px : max(0, bottom - width_px), left + width_px : max(0, right - width_px)] = 1
    return _film(np.where(kept, film.pixels, np.float32(0.0)), film.mask, film)


@dataclass(frozen=True)
class Perturbation:
    """One kind of change at five strengths.

    Attributes:
        name: As in `metrics.json`.
        strengths: Five numbers in the unit of `change`, from barely visible to bad.
        phrase: One strength in words; `{0:g}` is the number, `{1:g}` the number in percent.
        short: The same for the axis of a picture.
        unit: What the axis counts.
        change: What happens.
    """

    name: str
    strengths: tuple[float, float, float, float, float]
    phrase: str
    short: str
    unit: str
    change: Change

    def in_words(self, level: int) -> str:
        """Strength number `level`, from 1, as one would say it."""
        value = self.strengths[level - 1]
        return self.phrase.format(value, 100 * value)

    def tick(self, level: int) -> str:
        """Strength number `level`, from 1, for the axis of a picture."""
        value = self.strengths[level - 1]
        return self.short.format(value, 100 * value)


PERTURBATIONS = (
    Perturbation(
        "exposure", (1.1, 1.25, 1.5, 2.0, 3.0),
        "exposure by gamma {0:g} or 1/{0:g}", "{0:g}", "gamma, or 1 / gamma", exposure,
    ),
    Perturbation(
        "contrast", (1.1, 1.25, 1.5, 2.0, 2.5),
        "contrast times {0:g} or 1/{0:g}", "{0:g}", "times, or 1 / times", contrast,
    ),
    Perturbation(
        "blur", (0.004, 0.008, 0.012, 0.02, 0.03),
        "blur of {1:g} % of the side", "{1:g}", "sigma, % of the side", blur,
    ),
    Perturbation(
        "noise", (0.01, 0.03, 0.06, 0.1, 0.15),
        "noise of {1:g} % of white", "{1:g}", "deviation, % of white", noise,
    ),
    Perturbation(
        "rotation", (2.0, 5.0, 10.0, 15.0, 20.0),
        "rotation by {0:g} degrees", "{0:g}", "degrees, either way", rotation,
    ),
    Perturbation(
        "shift", (0.02, 0.04, 0.06, 0.1, 0.15),
        "shift by {1:g} % of the side", "{1:g}", "% of the side, any way", shift,
    ),
    Perturbation(
        "zoom", (1.03, 1.07, 1.12, 1.2, 1.3),
        "zoom by {0:g} or 1/{0:g}", "{0:g}", "factor, or 1 / factor", zoom,
    ),
    Perturbation(
        "jpeg", (80.0, 50.0, 30.0, 20.0, 10.0),
        "JPEG quality {0:g}", "{0:g}", "quality", jpeg,
    ),
    Perturbation(
        "resolution", (0.75, 0.5, 0.35, 0.25, 0.15),
        "resolution cut to {1:g} %", "{1:g}", "% of 128 px a side", resolution,
    ),
    Perturbation(
        "border", (0.02, 0.04, 0.08, 0.12, 0.16),
        "a black border of {1:g} % of the side", "{1:g}", "width, % of the side", border,
    ),
)  # fmt: skip
"""In the order of the table."""

LEVELS = 5
VARIANTS = ((None, 0), *((kind, level) for kind in PERTURBATIONS for level in range(1, LEVELS + 1)))
"""What `variants` gives: the unchanged film, then each perturbation from weak to strong."""


def perturbed(film: Film, kind: Perturbation, level: int, seed: int) -> Film:
    """A working film changed at one of five strengths.

    Args:
        film: From `working_film`.
        kind: One of `PERTURBATIONS`.
        level: 1 to 5; 0 is the film itself.
        seed: From `film_seed`; the same for all strengths, so that a film turns one way only.
    """
    return film if level == 0 else kind.change(film, kind.strengths[level - 1], seed)


def film_seed(seed: int, image: str, name: str) -> int:
    """The seed of one film's changes of one kind.

    Args:
        seed: Of the whole test.
        image: What tells the image from others, such as its content digest.
        name: Of the perturbation.
    """
    content = repr((seed, image, name)).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def variants(
    film: Film, size: int, crop: str, intensity: str, *, seed: int, image: str
) -> NDArray[np.uint8]:
    """One film as the model would see it, unchanged and after each change.

    Args:
        film: At native depth.
        size: Side S in pixels.
        crop: See `prepare`.
        intensity: See `prepare`.
        seed: Of the whole test.
        image: See `film_seed`.

    Returns:
        (51, S, S) uint8 in the order of `VARIANTS`.

    Raises:
        DecodeError: blank, if the film or what is left of it shows one grey level.
    """
    base = working_film(film, size)
    seeds = {kind.name: film_seed(seed, image, kind.name) for kind in PERTURBATIONS}
    films = (
        base if kind is None else perturbed(base, kind, level, seeds[kind.name])
        for kind, level in VARIANTS
    )
    return np.stack([prepare(changed, size, crop, intensity) for changed in films])


def _film(grey: NDArray[Any], mask: NDArray[np.bool_] | None, film: Film) -> Film:
    """A film of values cut off at black and white, from where `film` came."""
    return Film(np.clip(grey, 0.0, 1.0).astype(np.float32, copy=False), 1.0, mask, film.origin)


def _sides(film: Film, share: float) -> tuple[int, int]:
    """Rows and columns of a film made smaller; none below 1."""
    rows, columns = (max(1, round(side * share)) for side in film.pixels.shape)
    return rows, columns


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _heads(seed: int) -> bool:
    return bool(_generator(seed).random() < 0.5)


def _either(factor: float, seed: int) -> float:
    """A factor or its inverse, at even chances."""
    return factor if _heads(seed) else 1.0 / factor


def _extent(inside: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Where the lines along `axis` that hold a True begin, and where they have ended."""
    places = np.flatnonzero(np.asarray(inside.any(axis=axis)))
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def _weighted(film: Film, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Film:
    """A film after a linear change of its pixels; padding moves along and has no weight."""
    if film.mask is None:
        return _film(change(film.pixels), None, film)
    weight = film.mask.astype(np.float32)
    share, total = change(weight), change(film.pixels * weight)
    valid = share >= 0.5
    return _film(np.divide(total, share, out=np.zeros_like(total), where=valid), valid, film)


def _smoothed(grey: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """A Gaussian along both axes, the border repeated beyond itself."""
    reach_px = int(BLUR_REACH * sigma_px + 0.5)
    if reach_px == 0:
        return grey
    weights = np.exp(-0.5 * (np.arange(-reach_px, reach_px + 1) / sigma_px) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for _ in range(2):
        padded = np.pad(grey, ((reach_px, reach_px), (0, 0)), mode="edge")
        smooth = np.zeros_like(grey)
        for place, weight in enumerate(weights):
            smooth += weight * padded[place : place + len(grey)]
        grey = np.ascontiguousarray(smooth.T)
    return grey


def _warped(
    grey: NDArray[np.float32],
    matrix: tuple[float, float, float, float],
    offset_px: tuple[float, float],
) -> NDArray[np.float32]:
    """Bilinear values at `matrix` times each place, about the centre, plus `offset_px`.

    Both are in the order row, column; beyond the border the border goes on.
    """
    height, width = grey.shape
    rows = np.arange(height)[:, None] - (height - 1) / 2
    columns = np.arange(width)[None] - (width - 1) / 2
    down = matrix[0] * rows + matrix[1] * columns + (height - 1) / 2 + offset_px[0]
    right = matrix[2] * rows + matrix[3] * columns + (width - 1) / 2 + offset_px[1]
    top, below, low = _between(down, height)
    left, beside, near = _between(right, width)
    upper = grey[top, left] * (1 - near) + grey[top, beside] * near
    lower = grey[below, left] * (1 - near) + grey[below, beside] * near
    return np.asarray(upper * (1 - low) + lower * low, np.float32)


def _between(
    places: NDArray[np.float64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The pixels on both sides of each place along an axis of n, and how far it is on its way."""
    inside = np.clip(places, 0.0, n - 1.0)
    before = inside.astype(np.int64)
    return before, np.minimum(before + 1, n - 1), (inside - before).astype(np.float32)
