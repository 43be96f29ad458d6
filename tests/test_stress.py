"""Each change of a film against an independent truth, and what all of them must leave alone."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from tiny_runs import film

from xray_classifier.data import stress
from xray_classifier.data.film import Film
from xray_classifier.data.intensity import prepare
from xray_classifier.data.stress import (
    LEVELS,
    PERTURBATIONS,
    VARIANTS,
    Perturbation,
    film_seed,
    perturbed,
    variants,
    working_film,
)
from xray_classifier.errors import DecodeError

SEEDS = range(12)
KINDS = [pytest.param(kind, id=kind.name) for kind in PERTURBATIONS]


def picture(height: int = 40, width: int = 56, seed: int = 0) -> NDArray[np.float32]:
    """Smooth greys with some grain, 0.1 to 0.9."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((height, width)), 3.0)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    grain = 0.05 * rng.random((height, width))
    return np.asarray(0.1 + 0.75 * smooth + grain, np.float32)


def working(height: int = 40, width: int = 56, *, masked: bool = False) -> Film:
    """A working film; where masked, its upper left corner is padding."""
    pixels = picture(height, width)
    if not masked:
        return Film(pixels, 1.0)
    mask = np.ones(pixels.shape, np.bool_)
    mask[: height // 3, : width // 3] = False
    return Film(np.where(mask, pixels, np.float32(0)), 1.0, mask)


def directions(change: stress.Change, strength: float) -> list[NDArray[np.float32]]:
    """The different results over many seeds."""
    found: list[NDArray[np.float32]] = []
    for seed in SEEDS:
        made = change(working(), strength, seed).pixels
        if not any(np.array_equal(made, other) for other in found):
            found.append(made)
    return found


def assert_one_of_each(
    found: list[NDArray[np.float32]], expected: list[NDArray[np.floating]], atol: float = 1e-5
) -> None:
    """Each expected result, and no other, in any order."""
    assert len(found) == len(expected)
    for wanted in expected:
        assert any(np.allclose(one, wanted, rtol=0, atol=atol) for one in found)


def test_exposure_is_a_power_or_its_inverse() -> None:
    grey = picture().astype(np.float64)
    assert_one_of_each(directions(stress.exposure, 1.5), [grey**1.5, grey ** (1 / 1.5)])


def test_contrast_stretches_about_the_mean_and_cuts_off() -> None:
    grey = picture().astype(np.float64)
    mean = grey.mean()
    expected = [np.clip(mean + f * (grey - mean), 0, 1) for f in (2.5, 1 / 2.5)]
    assert (expected[0] == 0).any()
    assert (expected[0] == 1).any()
    assert_one_of_each(directions(stress.contrast, 2.5), expected)


def test_contrast_takes_the_mean_of_the_film_without_its_padding() -> None:
    padded = working(masked=True)
    assert padded.mask is not None
    mean = padded.pixels[padded.mask].astype(np.float64).mean()
    for seed in SEEDS:
        changed = stress.contrast(padded, 1.1, seed).pixels[padded.mask]
        assert changed.mean() == pytest.approx(mean, abs=1e-3)


def test_blur_is_that_of_scipy() -> None:
    blurred = stress.blur(working(), 0.03)
    expected = ndimage.gaussian_filter(picture().astype(np.float64), 0.03 * 40, mode="nearest")
    np.testing.assert_allclose(blurred.pixels, expected, atol=1e-5)


def test_blur_gives_padding_no_weight() -> None:
    padded = working(masked=True)
    assert padded.mask is not None
    weight = padded.mask.astype(np.float64)
    total, share = (
        ndimage.gaussian_filter(grey, 0.05 * 40, mode="nearest")
        for grey in (padded.pixels * weight, weight)
    )
    blurred = stress.blur(padded, 0.05)
    assert blurred.mask is not None
    np.testing.assert_array_equal(blurred.mask, share >= 0.5)
    expected = (total / np.maximum(share, 1e-9))[blurred.mask]
    np.testing.assert_allclose(blurred.pixels[blurred.mask], expected, atol=1e-4)


@pytest.mark.parametrize("side_px", [64, 128, 256])
def test_noise_has_its_deviation_on_128_px_and_the_same_on_an_area_of_any_film(
    side_px: int,
) -> None:
    flat = Film(np.full((side_px, side_px), 0.5, np.float32), 1.0)
    grain = stress.noise(flat, 0.05, 7).pixels.astype(np.float64) - 0.5
    assert grain.std() == pytest.approx(0.05 * side_px / 128, rel=0.03)
    block = side_px // 32
    areas = grain.reshape(32, block, 32, block).mean(axis=(1, 3))
    assert areas.std() == pytest.approx(0.05 / 4, rel=0.08)


def test_noise_is_that_of_its_seed_alone() -> None:
    first, again, other = (stress.noise(working(), 0.05, seed).pixels for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    grain = [(noisy - picture()).ravel() for noisy in (first, other)]
    assert abs(np.corrcoef(*grain)[0, 1]) < 0.1


def test_rotation_is_that_of_scipy_one_way_or_the_other() -> None:
    expected = [
        ndimage.rotate(picture().astype(np.float64), way, reshape=False, order=1, mode="nearest")
        for way in (-15, 15)
    ]
    assert_one_of_each(directions(stress.rotation, 15.0), expected, atol=1e-4)


def test_shift_goes_up_down_left_and_right_and_repeats_the_border() -> None:
    grey, step = picture(), 4  # a tenth of the shorter side
    expected: list[NDArray[np.floating]] = [
        np.concatenate([grey[step:], np.repeat(grey[-1:], step, axis=0)]),
        np.concatenate([np.repeat(grey[:1], step, axis=0), grey[:-step]]),
        np.concatenate([grey[:, step:], np.repeat(grey[:, -1:], step, axis=1)], axis=1),
        np.concatenate([np.repeat(grey[:, :1], step, axis=1), grey[:, :-step]], axis=1),
    ]
    found = [stress.shift(working(), 0.1, seed).pixels for seed in range(40)]
    for wanted in expected:
        assert any(np.allclose(one, wanted, atol=1e-5) for one in found)
    for one in found:
        assert any(np.allclose(one, wanted, atol=1e-5) for wanted in expected)


def test_a_shift_by_part_of_a_pixel_is_that_of_scipy() -> None:
    grey = picture().astype(np.float64)
    expected = [
        ndimage.shift(grey, way, order=1, mode="nearest")
        for way in ((1.2, 0), (-1.2, 0), (0, 1.2), (0, -1.2))
    ]
    changed = stress.shift(working(), 0.03, 5).pixels
    assert any(np.allclose(changed, wanted, atol=1e-5) for wanted in expected)


def test_zoom_is_that_of_scipy_larger_or_smaller() -> None:
    grey = picture().astype(np.float64)
    centre = (np.array(grey.shape) - 1) / 2
    expected = [
        ndimage.affine_transform(
            grey, np.eye(2) * back, centre - back * centre, order=1, mode="nearest"
        )
        for back in (1 / 1.2, 1.2)
    ]
    assert_one_of_each(directions(stress.zoom, 1.2), expected, atol=1e-4)


def test_jpeg_is_that_of_pillow() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.uint8(np.rint(picture() * 255))).save(buffer, "JPEG", quality=20)
    expected = np.asarray(Image.open(buffer)) / 255.0
    np.testing.assert_allclose(stress.jpeg(working(), 20.0).pixels, expected, atol=1e-6)
    assert np.abs(expected - picture()).max() > 0.01


@pytest.mark.parametrize(("side_px", "small_px"), [(64, 16), (128, 32), (256, 32)])
def test_resolution_counts_pixels_of_at_most_128_a_side(side_px: int, small_px: int) -> None:
    grey = picture(side_px, 2 * side_px)
    small = Image.fromarray(grey).resize((2 * small_px, small_px), Image.Resampling.BILINEAR)
    expected = small.resize((2 * side_px, side_px), Image.Resampling.BILINEAR)
    changed = stress.resolution(Film(grey, 1.0), 0.25)
    np.testing.assert_allclose(changed.pixels, np.asarray(expected), atol=1e-6)


def test_a_border_is_black_and_counts_as_film() -> None:
    framed = stress.border(working(), 0.05)
    expected = picture()
    expected[:2] = expected[-2:] = 0
    expected[:, :2] = expected[:, -2:] = 0
    np.testing.assert_array_equal(framed.pixels, expected)
    assert framed.mask is None


def test_a_border_lies_along_the_film_and_not_along_its_padding() -> None:
    mask = np.zeros((40, 56), np.bool_)
    mask[5:35, 10:50] = True
    framed = stress.border(Film(picture(), 1.0, mask), 0.05)
    inner = np.zeros_like(mask)
    inner[7:33, 12:48] = True
    np.testing.assert_array_equal(framed.pixels, np.where(inner, picture(), 0))
    np.testing.assert_array_equal(framed.mask, mask)


@pytest.mark.parametrize("kind", KINDS)
def test_strength_0_changes_nothing_and_each_further_one_more(kind: Perturbation) -> None:
    whole = Film(film(3, 96).astype(np.float32) / 255, 1.0)
    assert perturbed(whole, kind, 0, 1) is whole
    changes = [perturbed(whole, kind, level, 1).pixels for level in range(1, LEVELS + 1)]
    distances = [float(np.abs(changed - whole.pixels).mean()) for changed in changes]
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert len(set(distances)) == LEVELS


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_gives_a_film_and_leaves_the_given_one_alone(
    kind: Perturbation, masked: bool
) -> None:
    given = working(masked=masked)
    before = given.pixels.copy()
    changed = perturbed(given, kind, LEVELS, 3)
    np.testing.assert_array_equal(given.pixels, before)
    assert changed.pixels.dtype == np.float32
    assert changed.pixels.shape == before.shape
    assert changed.full_scale == 1.0
    assert changed.pixels.min() >= 0
    assert changed.pixels.max() <= 1
    assert (changed.mask is None) is not masked


# A JPEG holds the padding too, in blocks shared with the film; working films have it black.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.id != "jpeg"])
def test_what_padding_holds_does_not_matter(kind: Perturbation) -> None:
    blank = working(masked=True)
    assert blank.mask is not None
    noisy = np.where(blank.mask, blank.pixels, picture(seed=9))
    one, other = (
        perturbed(Film(grey, 1.0, blank.mask), kind, 3, 4) for grey in (blank.pixels, noisy)
    )
    assert one.mask is not None
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.pixels[one.mask], other.pixels[one.mask])


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((300, 400), 32, (128, 171)),
        ((300, 400), 100, (200, 267)),
        ((90, 400), 32, (90, 400)),
        ((28, 28), 64, (28, 28)),
    ],
)
def test_a_working_film_has_a_bounded_side_and_is_never_enlarged(
    shape: tuple[int, int], size: int, expected: tuple[int, int]
) -> None:
    grey = np.uint16(picture(*shape) * 4095)
    found = working_film(Film(grey, 4095.0), size)
    assert found.pixels.shape == expected
    assert found.mask is None
    assert found.pixels.mean() == pytest.approx(grey.mean() / 4095, abs=2e-3)
    if expected == shape:
        np.testing.assert_allclose(found.pixels, grey / 4095, atol=1e-6)


def test_a_working_film_keeps_its_padding_apart() -> None:
    mask = np.ones((256, 256), np.bool_)
    mask[:, :100] = False
    found = working_film(Film(np.full((256, 256), 200, np.uint8), 255.0, mask), 16)
    np.testing.assert_array_equal(found.mask, mask[::2, ::2])
    np.testing.assert_allclose(found.pixels[found.mask], 200 / 255, atol=1e-6)


@pytest.mark.parametrize(("side_px", "most"), [(24, 0.0), (100, 3.0)])
def test_equalize_does_not_see_the_exposure_and_minmax_does(side_px: int, most: float) -> None:
    deep = Film(np.uint16(picture(side_px, side_px) * 65535), 65535.0)
    exposures = [place for place, (kind, _) in enumerate(VARIANTS) if kind is PERTURBATIONS[0]]
    apart = {}
    for intensity in ("equalize", "minmax"):
        made = variants(deep, 24, "center", intensity, seed=0, image="a").astype(int)
        apart[intensity] = np.abs(made[exposures] - made[0]).mean(axis=(1, 2))
    assert apart["equalize"].max() <= most  # levels of 255; curves and averages do not commute
    assert apart["minmax"].max() > 20


@pytest.mark.parametrize("crop", ["center", "pad", "stretch"])
def test_variants_are_the_changed_films_prepared_as_any_film(crop: str) -> None:
    grey = Film(np.uint8(picture() * 255), 255.0)
    made = variants(grey, 16, crop, "equalize", seed=5, image="abc")
    assert made.shape == (1 + 10 * LEVELS, 16, 16)
    np.testing.assert_array_equal(made[0], prepare(grey, 16, crop, "equalize"))
    place = 1 + 4 * LEVELS + 2
    kind, level = VARIANTS[place]
    assert kind is not None
    assert (kind.name, kind.strengths[level - 1]) == ("rotation", 10.0)
    turned = stress.rotation(working_film(grey, 16), 10.0, film_seed(5, "abc", "rotation"))
    np.testing.assert_array_equal(made[place], prepare(turned, 16, crop, "equalize"))


def test_a_film_of_which_a_change_leaves_nothing_is_blank() -> None:
    faint = np.full((32, 32), 30000, np.uint16)
    faint[::2] += 4
    assert prepare(Film(faint, 65535.0), 16, "center", "equalize").shape == (16, 16)
    with pytest.raises(DecodeError, match="one grey level"):
        variants(Film(faint, 65535.0), 16, "center", "equalize", seed=0, image="a")


def test_a_films_seed_tells_tests_films_and_changes_apart() -> None:
    seeds = {film_seed(s, i, n) for s in (0, 1) for i in ("a", "b") for n in ("blur", "noise")}
    assert len(seeds) == 8
    assert film_seed(3, "a", "blur") == film_seed(3, "a", "blur")


def test_films_turn_both_ways_about_as_often() -> None:
    ways = [stress._heads(film_seed(0, str(image), "rotation")) for image in range(1000)]
    assert 420 < sum(ways) < 580
