"""Odd images among films: planted ones are found, ordinary ones are not."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tiny_runs import SHARED_DATA

from xray_classifier.data.decode import read_film
from xray_classifier.data.film import Origin, film_from_array
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.data.quality import KINDS, Oddity, odd_images, typical_film
from xray_classifier.data.signature import SIGNATURE, Signatures, signature_of

N = 24


@pytest.fixture(scope="module")
def films() -> list[NDArray[np.uint16]]:
    """Upright chest films of 24 phantoms, 12 bits."""
    return [draw_phantom(3, row).pixels for row in range(N)]


def signed(films: list[NDArray[np.uint16]]) -> Signatures:
    """Signatures of films."""
    return np.concatenate([signature_of(film_from_array(film)) for film in films])


def kinds(found: tuple[Oddity, ...]) -> set[tuple[int, str]]:
    """Rows with what is odd about them."""
    return {(odd.row, odd.kind) for odd in found}


def test_ordinary_films_are_not_odd(films: list[NDArray[np.uint16]]) -> None:
    assert odd_images(signed(films), [""] * N) == ()


@pytest.mark.parametrize(("turns", "degrees"), [(-1, 90), (1, 270)])
def test_a_turned_film_is_found(films: list[NDArray[np.uint16]], turns: int, degrees: int) -> None:
    """np.rot90 turns anticlockwise."""
    changed = [np.rot90(film, turns).copy() if k == 5 else film for k, film in enumerate(films)]
    (odd,) = odd_images(signed(changed), [""] * N)
    assert (odd.row, odd.kind) == (5, "turned")
    assert f"by {degrees} degrees clockwise" in odd.detail


def test_an_inverted_film_is_found(films: list[NDArray[np.uint16]]) -> None:
    changed = [4095 - film if k in (2, 9) else film for k, film in enumerate(films)]
    assert kinds(odd_images(signed(changed), [""] * N)) == {(2, "inverted"), (9, "inverted")}


def test_a_stretched_film_is_found(films: list[NDArray[np.uint16]]) -> None:
    changed = [film[: film.shape[0] // 2] if k == 7 else film for k, film in enumerate(films)]
    assert (7, "unusual_aspect") in kinds(odd_images(signed(changed), [""] * N))


def test_a_film_that_shows_next_to_nothing_is_found(films: list[NDArray[np.uint16]]) -> None:
    faint = [
        (2000 + film // 64).astype(np.uint16) if k == 1 else film for k, film in enumerate(films)
    ]
    (odd,) = odd_images(signed(faint), [""] * N)
    assert (odd.row, odd.kind) == (1, "almost_blank")


def test_a_coloured_picture_is_found_and_grey_in_three_channels_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = np.asarray(
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).resize((96, 96))
    )
    tinted = ImageOps.colorize(Image.fromarray(grey), "black", "white", mid="red")
    paths = []
    for kind in ("png", "jpg", "tif", "bmp"):
        Image.fromarray(grey).convert("RGB").save(tmp_path / f"grey.{kind}")
        tinted.save(tmp_path / f"tinted.{kind}")
        paths += [tmp_path / f"grey.{kind}", tmp_path / f"tinted.{kind}"]
    signatures = np.concatenate([signature_of(read_film(path)) for path in paths])
    found = odd_images(signatures, [""] * len(paths))
    assert {paths[odd.row].name for odd in found if odd.kind == "colour"} == {
        "tinted.png", "tinted.jpg", "tinted.tif", "tinted.bmp"
    }  # fmt: skip


def test_burned_in_text_and_what_cannot_be_read_are_told() -> None:
    film = film_from_array(np.arange(64, dtype=np.uint8).reshape(8, 8))
    written = type(film)(film.pixels, film.full_scale, origin=Origin("DICOM", burned_in=True))
    signatures = np.concatenate([signature_of(written), np.zeros(2, SIGNATURE)])
    found = odd_images(signatures, ["", "truncated", "blank"])
    assert kinds(found) == {(0, "burned_in"), (1, "unreadable"), (2, "blank")}
    assert found[1].detail == "truncated"
    assert all(odd.kind in KINDS for odd in found)


def test_unlike_pictures_have_no_typical_film() -> None:
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 4096, (64, 64)).astype(np.uint16) for _ in range(30)]
    assert typical_film(signed(noise)) is None
    assert odd_images(signed(noise), [""] * 30) == ()


def test_too_few_films_are_not_judged(films: list[NDArray[np.uint16]]) -> None:
    few = [4095 - films[0], *films[1:10]]
    assert odd_images(signed(few), [""] * 10) == ()
    assert odd_images(np.zeros(0, SIGNATURE), []) == ()


@pytest.mark.parametrize(("name", "expected"), [("kermany_fullres", 1), ("leaky_split", 0)])
def test_real_films_are_rarely_odd(name: str, expected: int) -> None:
    root = SHARED_DATA / name
    if not root.exists():
        pytest.skip(f"the real set {name} is not on this machine")
    paths = sorted(root.rglob("*.jp*g"))
    signatures = np.concatenate([signature_of(read_film(path)) for path in paths])
    found = odd_images(signatures, [""] * len(paths))
    assert Counter(odd.kind for odd in found) == Counter({"unusual_aspect": expected})
    turned = signatures[:150].copy()
    turned["thumb"][::10] = np.rot90(turned["thumb"][::10], -1, (1, 2))
    turned["thumb"][1::10] = 255 - turned["thumb"][1::10]
    found = odd_images(turned, [""] * 150)
    assert [odd.row for odd in found if odd.kind == "turned"] == list(range(0, 150, 10))
    assert [odd.row for odd in found if odd.kind == "inverted"] == list(range(1, 150, 10))
