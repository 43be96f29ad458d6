"""Signatures: the pixel hash sees values, not containers; the perceptual hash survives copying."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from test_leaks import picture
from tiny_runs import SHARED_DATA

from xray_classifier.data.decode import read_film
from xray_classifier.data.film import Film, film_from_array
from xray_classifier.data.intensity import prepare
from xray_classifier.data.signature import (
    CONTAINERS,
    MODES,
    SIGNATURE,
    bit_distances,
    perceptual_hash,
    pixel_hash,
    prepared,
    signature_of,
)

Grey = NDArray[np.uint8]


def hash_of(array: NDArray[np.generic]) -> bytes:
    """Pixel hash of an array."""
    return bytes(pixel_hash(film_from_array(array)))


def test_forty_bytes_an_image_are_what_a_model_remembers() -> None:
    assert SIGNATURE["pixels"].itemsize + SIGNATURE["perceptual"].itemsize == 40


def test_the_pixel_hash_does_not_depend_on_the_container(tmp_path: Path) -> None:
    grey = picture(1)
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "b.tif")
    Image.fromarray(grey).save(tmp_path / "c.bmp")
    Image.fromarray(grey).convert("RGB").save(tmp_path / "d.png")
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "e.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "f.png")
    Image.fromarray(deep).save(tmp_path / "g.png")
    Image.fromarray(deep).save(tmp_path / "h.tif")
    Image.fromarray((grey / 255).astype(np.float32)).save(tmp_path / "i.tif")
    turned = Image.fromarray(np.rot90(grey, 1).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save(tmp_path / "j.png", exif=exif)
    found = {path.name: bytes(pixel_hash(read_film(path))) for path in sorted(tmp_path.iterdir())}
    assert set(found.values()) == {hash_of(grey)}
    assert len(found) == 10


def test_the_pixel_hash_sees_one_level_in_one_pixel_and_the_shape() -> None:
    grey = picture(1)
    other = grey.copy()
    other[3, 4] ^= 1
    assert hash_of(other) != hash_of(grey)
    assert hash_of(grey.reshape(48, 192)) != hash_of(grey)
    deep = grey.astype(np.uint16) * 257
    finer = deep.copy()
    finer[3, 4] += 1
    assert hash_of(deep) == hash_of(grey) != hash_of(finer)


def test_padding_counts_as_black() -> None:
    grey = picture(1)
    mask = np.ones(grey.shape, dtype=bool)
    mask[:9] = False
    other = grey.copy()
    other[:9] = 77
    assert bytes(pixel_hash(Film(grey, 255.0, mask))) == bytes(pixel_hash(Film(other, 255.0, mask)))


def test_the_perceptual_hash_is_that_of_scipys_cosine_transform() -> None:
    thumb = np.random.default_rng(0).random((32, 32))
    low = dctn(thumb - thumb.mean(), type=2)[:16, :16].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    assert np.array_equal(np.unpackbits(perceptual_hash(thumb)).astype(bool), bits)


def test_bit_distances_count_differing_bits() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 7, 32), dtype=np.uint8)
    truth = [[int(np.unpackbits(a ^ b).sum()) for b in other] for a in one]
    assert bit_distances(one[:, None], other[None]).tolist() == truth


def jpeg(grey: Grey, quality: int) -> Grey:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def resized(side_px: int) -> Callable[[Grey], Grey]:
    return lambda grey: np.asarray(Image.fromarray(grey).resize((side_px, side_px)))


def windowed(low: float, high: float, gamma: float) -> Callable[[Grey], Grey]:
    def change(grey: Grey) -> Grey:
        dark, bright = np.percentile(grey, (low, high))
        scaled = np.clip((grey - dark) / (bright - dark), 0, 1) ** gamma
        return np.rint(255 * scaled).astype(np.uint8)

    return change


COPIES: dict[str, tuple[Callable[[Grey], Grey], int]] = {
    "jpeg 30": (lambda grey: jpeg(grey, 30), 18),
    "224 px": (resized(224), 18),
    "64 px": (resized(64), 18),
    "window 1-99, gamma 0.7": (windowed(1, 99, 0.7), 27),
    "window 5-95, gamma 1.4": (windowed(5, 95, 1.4), 27),
    "28 px": (resized(28), 27),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_real_films_stay_close_and_strangers_apart(name: str) -> None:
    root = SHARED_DATA / "kermany_fullres"
    if not root.exists():
        pytest.skip("the real set kermany_fullres is not on this machine")
    change, most = COPIES[name]
    films = [read_film(path) for path in sorted(root.rglob("*.jpeg"))[::8]]
    originals = np.concatenate([signature_of(film) for film in films])
    copies = np.concatenate([signature_of(film_from_array(change(film.pixels))) for film in films])
    distance = bit_distances(copies["perceptual"][:, None], originals["perceptual"][None])
    own = np.eye(len(films), dtype=bool)
    assert distance[own].max() <= most
    assert distance[~own].min() > 33


def test_a_rising_map_of_the_greys_changes_no_rank() -> None:
    grey = picture(2, 32)  # nothing is resized
    curved = (grey.astype(np.uint16) ** 2).astype(np.uint16)
    one, other = (signature_of(film_from_array(array)) for array in (grey, curved))
    assert np.array_equal(one["thumb"], other["thumb"])
    assert np.array_equal(one["perceptual"], other["perceptual"])


def test_blocks_first_is_close_to_one_step() -> None:
    """A large 8-bit film is averaged over blocks first; as 16 bits it is shrunk in one step."""
    rng = np.random.default_rng(0)
    large = np.asarray(Image.fromarray(picture(3)).resize((1111, 777)))
    noisy = np.clip(large + rng.normal(0, 8, large.shape), 0, 255).astype(np.uint8)
    one = signature_of(film_from_array(noisy))
    other = signature_of(film_from_array(noisy.astype(np.uint16) * 257))
    assert np.abs(one["thumb"].astype(int) - other["thumb"]).max() <= 6
    assert bit_distances(one["perceptual"], other["perceptual"]).max() <= 4


def test_what_is_remembered_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.tile(picture(1), (1, 2))).convert("RGB").save(path)
    record = signature_of(read_film(path), path.stat().st_size)[0]
    assert (record["rows"], record["columns"], record["bits"]) == (96, 192, 8)
    assert CONTAINERS[record["container"]] == "PNG"
    assert MODES[record["mode"]] == "RGB"
    assert record["file_bytes"] == path.stat().st_size
    assert record["colour"] == 0
    assert not record["patient"].any()
    levels = np.sort(np.asarray(Image.fromarray(picture(1)).resize((16, 32))).ravel() / 255)
    assert record["spread"] == pytest.approx(np.ptp(np.quantile(levels, (0.01, 0.99))), abs=0.05)


def test_prepared_is_prepare_with_a_signature() -> None:
    film = film_from_array(picture(1))
    both = prepared(film, 16, "center", "equalize", 7)
    assert np.array_equal(both.pixels, prepare(film, 16, "center", "equalize"))
    assert both.signature == signature_of(film, 7)
