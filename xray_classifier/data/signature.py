"""What is remembered of each film to tell it again: a hash of its pixels, a hash of its looks.

The pixel hash is equal for the same grey values in any container. The perceptual hash survives
another encoding, size or window: the film is shrunk to 32 x 32, each pixel replaced by its rank,
and the signs of 255 low spatial frequencies kept. Measured on 5,216 chest films: copies that were
re-encoded, resized or re-windowed differ in at most 28 of 256 bits (in 18 at most from 64 px up
and without clipping), the most alike films of two examinations in 34, the median pair in 118.

Source: the perceptual hash is that of Zauner 2010, "Implementation and benchmarking of perceptual
image hash functions", with ranks for grey levels and 256 bits for 64.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.film import Film
from xray_classifier.data.intensity import Resized, View, Views, prepare_view
from xray_classifier.errors import DecodeError

PIXEL_BYTES = 8
PERCEPTUAL_BYTES = 32
THUMB_PX = 32
DETAIL_PX = 64
ROUGH_PX = 128
FREQUENCIES = 16
COARSEST, FINEST = 8.0, 28.0
FLAT = 1e-9
PATIENT_BYTES = 16
SCANNER_BYTES = 8

CONTAINERS = (
    "ARRAY", "PNG", "JPEG", "TIFF", "DICOM", "BMP", "GIF", "WEBP", "PPM", "JPEG2000", "PHANTOM"
)  # fmt: skip
MODES = (
    "other", "1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "I;16B",
    "MONOCHROME1", "MONOCHROME2", "uint8", "uint16", "float16", "float32", "float64",
)  # fmt: skip


def _detail_places() -> NDArray[np.intp]:
    """Rows and columns of the cosine transform that `detail` holds, (2, n), row by row."""
    row, column = np.indices((DETAIL_PX, DETAIL_PX))
    radius = np.hypot(row, column)
    return np.stack(np.nonzero((radius > COARSEST) & (radius <= FINEST)))


_DETAIL_PLACES = _detail_places()
DETAIL_BYTES = _DETAIL_PLACES.shape[1]

SIGNATURE = np.dtype(
    [
        ("pixels", np.uint8, (PIXEL_BYTES,)),
        ("perceptual", np.uint8, (PERCEPTUAL_BYTES,)),
        ("thumb", np.uint8, (THUMB_PX, THUMB_PX)),
        ("detail", np.int8, (DETAIL_BYTES,)),
        ("rows", np.uint32),
        ("columns", np.uint32),
        ("bits", np.uint8),
        ("container", np.uint8),
        ("mode", np.uint8),
        ("burned_in", np.bool_),
        ("colour", np.float32),
        ("spread", np.float32),
        ("file_bytes", np.uint64),
        ("scanner", np.uint8, (SCANNER_BYTES,)),
        ("patient", np.uint8, (PATIENT_BYTES,)),
    ]
)
"""One record per image; all zeros where it could not be decoded.

`thumb` holds ranks of the whole film, stretched to a square, 0 to 255; `detail` finer structure
that the thumbnail lacks, see `detail_of`; `rows` and `columns` are those of the file in pixels;
`container` and `mode` are places in CONTAINERS and MODES; `colour` is as in `Origin`; `spread` is
the range from the 1st to the 99th percentile of the shrunken film, a fraction of full scale;
`scanner` and `patient` are digests, zero where the file names none.
"""

Signatures = NDArray[np.void]


@dataclass(frozen=True, eq=False)
class Prepared:
    """One film as the model sees it, and what is remembered of it.

    Attributes:
        pixels: (S, S) uint8.
        signature: One record of SIGNATURE, shape (1,).
    """

    pixels: NDArray[np.uint8]
    signature: Signatures


def from_dicom(signatures: Signatures) -> NDArray[np.bool_]:
    """Which films came out of a DICOM file, (n,), for signatures (n,)."""
    return np.asarray(signatures["container"] == CONTAINERS.index("DICOM"))


Decoded = Prepared | DecodeError
"""An image as the model sees it, or why there is none."""


def prepared(film: Film, size: int, crop: str, intensity: str, file_bytes: int = 0) -> Prepared:
    """`prepare` a film, and take its signature.

    Raises:
        DecodeError: As `prepare`.
    """
    views = Views(film)
    pixels = prepare_view(views, size, crop, intensity)
    return Prepared(pixels, _signature(views, file_bytes))


def signature_of(film: Film, file_bytes: int = 0) -> Signatures:
    """What is remembered of one film.

    A film that was decoded at a fraction of its size has no pixel hash (zeros).

    Args:
        film: At native depth, not blank.
        file_bytes: Size of its file in bytes; 0 if it has none of its own.

    Returns:
        One record of SIGNATURE, shape (1,).
    """
    return _signature(Views(film), file_bytes)


def _signature(views: Views, file_bytes: int) -> Signatures:
    """`signature_of` a film that is looked at in other ways too."""
    film = views.film
    height, width = film.shape
    shrunken, whole = _shrunken(views), (0, 0, height, width)
    small, fine = ((whole, side, side) for side in (THUMB_PX, DETAIL_PX))
    grey, valid = shrunken.resized(small)
    thumb = _rank_thumb(shrunken, small)
    record = np.zeros(1, SIGNATURE)
    if film.reduction == 1:
        record["pixels"] = pixel_hash(film)
    record["perceptual"] = perceptual_hash(thumb)
    record["thumb"] = np.rint(thumb * 255.0)
    record["detail"] = detail_of(_rank_thumb(shrunken, fine))
    record["rows"], record["columns"] = height, width
    record["bits"] = film.origin.bits
    record["container"] = _place(CONTAINERS, film.origin.container)
    record["mode"] = _place(MODES, film.origin.mode)
    record["burned_in"] = film.origin.burned_in
    record["colour"] = film.origin.colour
    record["spread"] = _spread(grey[valid]) / film.full_scale
    record["file_bytes"] = file_bytes
    record["scanner"] = _digest_bytes(film.origin.scanner, SCANNER_BYTES)
    record["patient"] = _digest_bytes(film.origin.patient, PATIENT_BYTES)
    return record


def _shrunken(views: Views) -> Views:
    """What looks at the whole film, stretched, at the sizes of thumbnails.

    A large 8-bit film is first averaged over blocks to about 128 pixels, which is many times faster
    than one step and moves a grey value by less than a tenth of a level.
    """
    film = views.film
    height, width = (side / film.reduction for side in film.shape)
    factors = max(1, int(width) // ROUGH_PX), max(1, int(height) // ROUGH_PX)
    if film.pixels.dtype != np.uint8 or film.mask is not None or factors == (1, 1):
        return views
    return _RoughViews(film, factors)


class _RoughViews(Views):
    """The whole of a film, by way of the means of blocks.

    Args:
        film: 8 bits, without padding.
        factors: Width and height of a block in pixels.
    """

    def __init__(self, film: Film, factors: tuple[int, int]) -> None:
        super().__init__(film)
        from PIL import Image

        self._rough = Image.fromarray(film.pixels).reduce(factors).convert("F")
        height, width = (side / film.reduction for side in film.shape)
        # the last block may be a part of one
        self._box = (0.0, 0.0, width / factors[0], height / factors[1])

    def _looked_at(self, view: View) -> Resized:
        from PIL import Image

        _, rows, columns = view
        grey = self._rough.resize((columns, rows), Image.Resampling.BILINEAR, box=self._box)
        return np.asarray(grey), np.ones((rows, columns), np.bool_)


def pixel_hash(film: Film) -> NDArray[np.uint8]:
    """A digest of a film's grey values that does not depend on how they were stored.

    Values are fractions of white: 8 bits in a 16-bit container, or as floats, hash as 8 bits do.
    Padding counts as black.

    Returns:
        (8,) uint8.
    """
    pixels = film.pixels if film.mask is None else np.where(film.mask, film.pixels, 0)
    levels = _levels(pixels, film.full_scale)
    state = hashlib.sha256(f"{levels.dtype.itemsize} {levels.shape}".encode())
    state.update(np.ascontiguousarray(levels).data)
    return np.frombuffer(state.digest()[:PIXEL_BYTES], np.uint8)


def _levels(pixels: NDArray[np.generic], full_scale: float) -> NDArray[np.generic]:
    """Grey values as uint8 where that holds them exactly, else as little-endian uint16."""
    if pixels.dtype == np.uint8 and full_scale == 255.0:
        return pixels
    deep = np.rint(pixels.astype(np.float64) * (65535.0 / full_scale)).astype("<u2")
    shallow, rest = np.divmod(deep, 257)
    return deep if rest.any() else shallow.astype(np.uint8)


def perceptual_hash(thumb: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Signs of the lowest spatial frequencies of a thumbnail, against their median.

    Args:
        thumb: (32, 32), any scale.

    Returns:
        (32,) uint8: 256 bits, row by row of a 16 x 16 block of the cosine transform, the mean
        (always 0) first.
    """
    cosines = _cosines(THUMB_PX)[:FREQUENCIES]
    block = cosines @ (thumb - thumb.mean()) @ cosines.T
    coefficients = block.ravel()
    bits = coefficients > np.median(coefficients[1:])
    bits[0] = False
    return np.packbits(bits)


def detail_of(ranks_of_film: NDArray[np.floating]) -> NDArray[np.int8]:
    """Structure of 8 to 28 half-waves a side, to tell alike films apart that hash alike.

    Films of two people may agree in all that 32 x 32 pixels show; ribs and vessels do not agree.

    Args:
        ranks_of_film: (64, 64), any scale.

    Returns:
        Coefficients of the cosine transform, (DETAIL_BYTES,) int8, 30 for one standard deviation;
        zeros where the film is flat.
    """
    cosines = _cosines(DETAIL_PX)
    spectrum = cosines @ (ranks_of_film - ranks_of_film.mean()) @ cosines.T
    wanted = spectrum[_DETAIL_PLACES[0], _DETAIL_PLACES[1]]
    spread = wanted.std()
    if spread < FLAT:
        return np.zeros(DETAIL_BYTES, np.int8)
    return np.asarray(np.rint(np.clip(wanted * (30.0 / spread), -127.0, 127.0)), np.int8)


@lru_cache(maxsize=2)
def _cosines(n: int) -> NDArray[np.float64]:
    """The first rows of the type-II cosine transform of n points, (29, n), not normalised."""
    frequency, place = np.arange(int(FINEST) + 1)[:, None], np.arange(n)[None]
    return np.asarray(np.cos(np.pi * (2 * place + 1) * frequency / (2 * n)))


def _rank_thumb(views: Views, view: View) -> NDArray[np.float64]:
    """Ranks in [0, 1] of the film's pixels in a view, (rows, columns); padding is 0."""
    valid = views.resized(view)[1]
    thumb = np.zeros(valid.shape)
    if valid.sum() > 1:
        thumb[valid] = views.ranks(view)
    return thumb


def _spread(grey: NDArray[np.float32]) -> float:
    """From the 1st to the 99th percentile, in the units of the film; 0 for none."""
    if not grey.size:
        return 0.0
    last = grey.size - 1
    low, high = np.interp((0.01 * last, 0.99 * last), np.arange(grey.size), np.sort(grey))
    return float(high - low)


def _place(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else 0


def _digest_bytes(text: str, n_bytes: int) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(text).ljust(n_bytes, b"\0")[:n_bytes], np.uint8)


def bit_distances(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int64]:
    """In how many of 256 bits two perceptual hashes differ.

    Args:
        one: (..., 32) uint8.
        other: The same, or of a shape that broadcasts to it.

    Returns:
        0 to 256, shape (...).
    """
    words = np.ascontiguousarray(one).view(np.uint64) ^ np.ascontiguousarray(other).view(np.uint64)
    return np.asarray(np.bitwise_count(words).sum(axis=-1, dtype=np.int64))
