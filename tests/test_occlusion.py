"""Maps of what an answer rests on: for a perceptron they are known in closed form."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import films, output, stack
from numpy.typing import NDArray
from PIL import Image
from tiny_runs import tiny_run

from xray_classifier.classifier import Classifier, load_classifier
from xray_classifier.data.dataset import Standardize
from xray_classifier.occlusion import occlusion_maps
from xray_classifier.report.overlay import overlay_png

__all__ = ["tiny_run"]

SIZE = 16
STD = 0.25


@pytest.fixture
def weights() -> NDArray[np.float64]:
    """Of a perceptron, one for each pixel."""
    return np.random.default_rng(8).normal(0, 0.1, (SIZE, SIZE))


@pytest.fixture
def perceptron(tiny_run: Path, weights: NDArray[np.float64]) -> Classifier:
    """A model that is one weighted sum of the pixels."""
    model = stack(size_px=SIZE)
    with torch.no_grad():
        output(model).weight.copy_(torch.from_numpy(weights.reshape(1, -1)))
        output(model).bias.fill_(0.3)
    trained = load_classifier(tiny_run, "cpu")
    return replace(trained, model=model.eval(), standardize=Standardize(0.5, STD))


def by_hand(
    weights: NDArray[np.float64], image: NDArray[np.uint8], window: int, starts: list[int]
) -> NDArray[np.float64]:
    """The sum of w (x - mean) over each square, averaged over the squares that cover a pixel."""
    parts = weights * (image.astype(float) - np.rint(image.mean())) / (255.0 * STD)
    total, count = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    for top in starts:
        for left in starts:
            change = parts[top : top + window, left : left + window].sum()
            total[top : top + window, left : left + window] += change
            count[top : top + window, left : left + window] += 1
    assert count.min() >= 1
    return total / count


@pytest.mark.parametrize(
    ("window", "stride", "starts"),
    [
        (4, 2, [0, 2, 4, 6, 8, 10, 12]),
        (5, 3, [0, 3, 6, 9, 11]),  # the last one at the border
        (6, 6, [0, 6, 10]),
        (16, 4, [0]),
        (1, 1, list(range(16))),
        (None, None, list(range(15))),  # an eighth of the side, by one pixel
        (8, None, [0, 2, 4, 6, 8]),
    ],
)
def test_a_perceptrons_map_is_the_sum_of_weight_times_distance_from_the_mean(
    window: int | None,
    stride: int | None,
    starts: list[int],
    perceptron: Classifier,
    weights: NDArray[np.float64],
) -> None:
    images = films(3, size_px=SIZE)
    found = occlusion_maps(perceptron, images, window_px=window, stride_px=stride)
    assert found.shape == (3, SIZE, SIZE)
    assert found.dtype == np.float64
    for image, heat in zip(images, found, strict=True):
        np.testing.assert_allclose(heat, by_hand(weights, image, window or 2, starts), atol=2e-5)


def test_a_flat_image_rests_on_nothing(perceptron: Classifier) -> None:
    flat = np.full((1, SIZE, SIZE), 77, np.uint8)
    np.testing.assert_array_equal(occlusion_maps(perceptron, flat), 0.0)


def test_a_map_depends_on_no_other_image_and_changes_none(tiny_run: Path) -> None:
    trained = load_classifier(tiny_run, "cpu")
    images = films(4, size_px=SIZE)
    before = images.copy()
    together = occlusion_maps(trained, images)
    np.testing.assert_array_equal(together[2], occlusion_maps(trained, images[2:3])[0])
    np.testing.assert_array_equal(images, before)
    assert np.abs(together).max() > 0
    assert occlusion_maps(trained, images[:0]).shape == (0, SIZE, SIZE)


@pytest.mark.parametrize(("window", "stride"), [(17, 1), (0, 1), (2, 3), (4, 0)])
def test_squares_that_leave_pixels_out_are_refused(
    window: int, stride: int, perceptron: Classifier
) -> None:
    with pytest.raises(ValueError, match="stride_px <= window_px"):
        occlusion_maps(perceptron, films(1, size_px=SIZE), window_px=window, stride_px=stride)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 8, 8), np.uint8), np.zeros((1, 16, 16)), np.zeros((16, 16), np.uint8)]
)
def test_other_images_are_refused(images: NDArray[np.uint8], perceptron: Classifier) -> None:
    with pytest.raises(ValueError, match="uint8"):
        occlusion_maps(perceptron, images)


def opened(png: bytes) -> NDArray[np.int64]:
    """Levels (S, S, 3) of a PNG file."""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image).astype(np.int64)


def test_a_map_of_zeros_leaves_the_film_grey() -> None:
    image = films(1, size_px=12)[0]
    found = opened(overlay_png(image, np.zeros((12, 12))))
    np.testing.assert_array_equal(found, np.repeat(image[..., None], 3, axis=2))


def test_for_sick_is_red_against_is_blue_and_more_is_stronger() -> None:
    image = np.full((1, 4), 128, np.uint8)
    found = opened(overlay_png(image, np.array([[1.0, 0.5, -0.5, -1.0]])))[0]
    red_less_blue = found[:, 0] - found[:, 2]
    assert red_less_blue[0] > red_less_blue[1] > 20
    assert red_less_blue[3] < red_less_blue[2] < -20


def test_the_limit_makes_films_comparable_and_cuts_off() -> None:
    image = np.full((1, 3), 128, np.uint8)
    weak, strong, over = opened(overlay_png(image, np.array([[0.5, 2.0, 9.0]]), limit=2.0))[0]
    np.testing.assert_array_equal(strong, over)
    assert np.abs(weak - 128).sum() < np.abs(strong - 128).sum()
    alone = opened(overlay_png(image, np.array([[0.5, 0.0, 0.0]])))[0, 0]
    np.testing.assert_array_equal(alone, strong)


def test_a_large_film_is_shrunk_and_equal_input_gives_equal_bytes() -> None:
    image = films(1, size_px=600)[0]
    heat = np.linspace(-1, 1, 600 * 600).reshape(600, 600)
    png = overlay_png(image, heat)
    assert opened(png).shape == (256, 256, 3)
    assert png == overlay_png(image.copy(), heat.copy())


@pytest.mark.parametrize(
    ("heat", "limit"),
    [
        (np.zeros((3, 3)), None),
        (np.full((4, 4), np.nan), None),
        (np.full((4, 4), np.inf), None),
        (np.ones((4, 4)), 0.0),
        (np.ones((4, 4)), float("nan")),
    ],
)
def test_a_map_that_cannot_be_drawn_is_refused(
    heat: NDArray[np.float64], limit: float | None
) -> None:
    with pytest.raises(ValueError, match=r"want one|finite|limit"):
        overlay_png(np.zeros((4, 4), np.uint8), heat, limit=limit)
