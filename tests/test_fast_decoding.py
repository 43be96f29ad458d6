"""`predict --fast`: JPEG films decoded at a fraction of their size."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_runs import Program, no_pictures, program, rows_of, tiny_run

from xray_classifier import load_classifier
from xray_classifier.data.decode import prepare, read_film
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.data.signature import bit_distances, signature_of
from xray_classifier.fast_decoding import LEAST_PX, MARGIN, least_px

__all__ = ["no_pictures", "program", "tiny_run"]

pytestmark = pytest.mark.usefixtures("no_pictures")

ROWS, COLUMNS = 600, 837  # neither is a multiple of eight


def film_of(index: int) -> NDArray[np.uint8]:
    """A large smooth film with a little grain, (ROWS, COLUMNS)."""
    small = draw_phantom(7, index).pixels.astype(np.float32)
    drawn = Image.fromarray(small * (240 / small.max())).resize((COLUMNS, ROWS), 3)
    grain = np.random.default_rng(index).normal(0, 2, (ROWS, COLUMNS))
    return np.clip(np.asarray(drawn) + grain, 0, 255).astype(np.uint8)


def jpeg(path: Path, pixels: NDArray[np.uint8], **options: object) -> Path:
    """The path of a JPEG of these pixels."""
    Image.fromarray(pixels).save(path, quality=92, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder of twelve large JPEG films and a PNG."""
    folder = tmp_path / "films"
    folder.mkdir()
    for index in range(12):
        jpeg(folder / f"film{index:02d}.jpg", film_of(index))
    Image.fromarray(film_of(12)).save(folder / "film.png")
    return folder


@pytest.mark.parametrize(
    ("least", "reduction"), [(None, 1), (75, 8), (76, 4), (150, 4), (151, 2), (300, 2), (301, 1)]
)
def test_no_side_falls_below_what_is_asked(
    least: int | None, reduction: int, tmp_path: Path
) -> None:
    film = read_film(jpeg(tmp_path / "a.jpg", film_of(0)), least_px=least)
    assert (film.reduction, film.shape) == (reduction, (ROWS, COLUMNS))
    assert film.pixels.shape == (-(-ROWS // reduction), -(-COLUMNS // reduction))


def test_an_eighth_is_the_mean_of_blocks(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", film_of(0))
    whole = read_film(path).pixels[:, : COLUMNS // 8 * 8].astype(float)
    means = whole.reshape(ROWS // 8, 8, COLUMNS // 8, 8).mean(axis=(1, 3))
    eighth = read_film(path, least_px=75).pixels[:, : COLUMNS // 8]
    assert np.abs(eighth - means).max() <= 1


@pytest.mark.parametrize("kind", ["png", "turned", "small"])
def test_what_is_not_reduced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    match kind:
        case "png":
            Image.fromarray(film_of(0)).save(path, "PNG")
        case "turned":
            jpeg(path, film_of(0), exif=exif)
        case _:
            jpeg(path, film_of(0)[:140])
    whole, asked = read_film(path), read_film(path, least_px=75)
    assert asked.reduction == 1
    assert np.array_equal(whole.pixels, asked.pixels)


def test_colour_is_reduced_to_its_luma(tmp_path: Path) -> None:
    grey = film_of(0)
    path = jpeg(tmp_path / "a.jpg", np.stack([grey] * 3, axis=-1))
    film = read_film(path, least_px=75)
    assert film.reduction == 8
    assert film.origin.colour < 0.01
    plain = read_film(jpeg(tmp_path / "b.jpg", grey), least_px=75)
    assert np.abs(film.pixels.astype(int) - plain.pixels).max() <= 2


@pytest.mark.parametrize("crop", ["center", "pad", "stretch"])
@pytest.mark.parametrize("size", [16, 25, 50])
def test_a_reduced_film_is_prepared_as_the_whole_one(crop: str, size: int, tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", film_of(3))
    images = [
        prepare(read_film(path, least_px=least), size, crop, "dataset").astype(int)
        for least in (None, 3 * size)
    ]
    difference = np.abs(images[0] - images[1])
    assert difference.max() <= 6
    assert difference.mean() < 0.5  # a shift by a tenth of a pixel is more


def test_its_looks_are_remembered_and_not_its_pixels(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", film_of(3))
    whole, reduced = (signature_of(read_film(path, least_px=least)) for least in (None, LEAST_PX))
    assert (reduced["rows"], reduced["columns"]) == (ROWS, COLUMNS)
    assert not reduced["pixels"].any()
    assert whole["pixels"].any()
    assert bit_distances(whole["perceptual"], reduced["perceptual"]) <= 12


def test_rows_are_nearly_those_of_full_decoding(
    tiny_run: Path, films: Path, tmp_path: Path, program: Program
) -> None:
    assert program("predict", tiny_run, films, "-o", tmp_path / "a.csv").code == 0
    assert program("predict", tiny_run, films, "-o", tmp_path / "b.csv", "--fast").code == 0
    whole, fast = rows_of(tmp_path / "a.csv"), rows_of(tmp_path / "b.csv")
    assert len(whole) == 13
    gaps = [abs(float(a["p_sick"]) - float(b["p_sick"])) for a, b in zip(whole, fast, strict=True)]
    assert 0 < max(gaps) < 0.01
    same = ("path", "status", "reason", "decision", "threshold")
    assert [[r[key] for key in same] for r in whole] == [[r[key] for key in same] for r in fast]
    assert whole[0] == fast[0]  # the PNG
    facts = [json.loads((tmp_path / f"{name}.meta.json").read_text()) for name in ("a", "b")]
    assert [found["fast"] for found in facts] == [False, True]


def test_a_row_near_a_threshold_is_that_of_full_decoding(
    tiny_run: Path, films: Path, tmp_path: Path, program: Program
) -> None:
    program("predict", tiny_run, films, "-o", tmp_path / "a.csv", "--no-isolate")
    middle = sorted(float(row["p_sick"]) for row in rows_of(tmp_path / "a.csv"))[6]
    words = ("predict", tiny_run, films, "--no-isolate", "--threshold", repr(middle))
    program(*words, "-o", tmp_path / "b.csv")
    program(*words, "-o", tmp_path / "c.csv", "--fast")
    n_near = 0
    for whole, fast in zip(rows_of(tmp_path / "b.csv"), rows_of(tmp_path / "c.csv"), strict=True):
        if abs(float(whole["p_sick"]) - middle) < MARGIN / 2:
            n_near += 1
            assert whole == fast
    assert n_near >= 1


def test_rows_of_full_decoding_are_not_taken_for_fast_ones(
    tiny_run: Path, films: Path, tmp_path: Path, program: Program
) -> None:
    words = ("predict", tiny_run, films, "-o", tmp_path / "a.csv", "--only-new", "--json")
    assert program(*words).json["reused"] == 0
    assert program(*words).json["reused"] == 13
    assert program(*words, "--fast").json["reused"] == 0
    assert program(*words, "--fast").json["reused"] == 13


@pytest.mark.parametrize(("size_px", "expected"), [(16, 128), (42, 128), (43, 129), (224, 672)])
def test_three_times_what_the_network_sees(size_px: int, expected: int, tiny_run: Path) -> None:
    classifier = load_classifier(tiny_run, "cpu")
    content = {**classifier.content, "image": {**classifier.content["image"], "size": size_px}}
    assert least_px(replace(classifier, content=content)) == expected
