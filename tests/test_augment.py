"""Augmentation: as SciPy and formulas by hand have it, by the laws of chance, in any batch."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform, correlate1d
from scipy.stats import kstest, kurtosis, norm, skew
from tiny_runs import SHARED_DATA

from xray_classifier.data.augment import (
    Augmentation,
    Draws,
    augmented,
    draw,
    inverse_matrices,
    warped,
)

GEOMETRY = Augmentation(rotate_degrees=40, scale=0.3, aspect=0.4, shear_degrees=20, translate=0.2)
EVERYTHING = dataclasses.replace(
    GEOMETRY,
    gamma=0.5,
    contrast=0.4,
    brightness=0.2,
    noise=0.1,
    blur=1.2,
    cutout=0.3,
    flip=True,
)
NUMBERS = [field.name for field in dataclasses.fields(Augmentation) if field.name != "flip"]
MANY = torch.arange(20_000)


def textures(n: int, size_px: int, seed: int = 0) -> torch.Tensor:
    """Films of noise, (n, S, S) uint8: any shift, blur or swap of pixels shows in them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, size_px, size_px), generator=generator, dtype=torch.uint8)


def changed(images: torch.Tensor, chosen: Augmentation, epoch: int = 0) -> NDArray[np.float32]:
    """The images at samples 0, 1, 2, ... with seed 7."""
    samples = torch.arange(len(images))
    return augmented(images, samples, settings=chosen, seed=7, epoch=epoch).numpy()


def drawn(n: int, chosen: Augmentation, epoch: int = 0) -> Draws:
    """What `changed` draws for n images."""
    return draw(torch.arange(n), settings=chosen, seed=7, epoch=epoch)


def floats(images: torch.Tensor) -> NDArray[np.float64]:
    """Grey levels as NumPy floats."""
    return images.numpy().astype(np.float64)


def each(numbers: torch.Tensor) -> NDArray[np.float64]:
    """One number per image, to go with (B, S, S)."""
    return numbers.numpy().astype(np.float64)[:, None, None]


def forward_matrix(draws: Draws, image: int) -> NDArray[np.float64]:
    """What becomes of a film's (x, y, 1), in sides from the centre: zoom, shear, rotate, shift."""
    angle, zoom, aspect, shear, shift_x, shift_y = (
        float(getattr(draws, name)[image])
        for name in ("angle", "zoom", "aspect", "shear", "shift_x", "shift_y")
    )
    stretch = np.diag([zoom * aspect**0.5, zoom / aspect**0.5, 1.0])
    lean = np.array([[1.0, math.tan(shear), 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    turn = np.array(
        [
            [math.cos(angle), -math.sin(angle), 0.0],
            [math.sin(angle), math.cos(angle), 0.0],
            [0.0, 0.0, 1.0],
        ]
    )
    shift = np.array([[1.0, 0.0, shift_x], [0.0, 1.0, shift_y], [0.0, 0.0, 1.0]])
    return np.asarray(shift @ turn @ lean @ stretch)


def resampled(image: NDArray[np.float64], forward: NDArray[np.float64]) -> NDArray[np.float64]:
    """A film under a forward matrix, by SciPy; its border goes on for ever."""
    side = len(image)
    centre = (side - 1) / 2
    back = np.linalg.inv(forward)
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])  # SciPy counts (row, column)
    linear = swap @ back[:2, :2] @ swap
    offset = swap @ back[:2, 2] * side + centre - linear @ [centre, centre]
    return np.asarray(affine_transform(image, linear, offset, order=1, mode="nearest"))


def blurred(image: NDArray[np.float64], sigma_px: float, reach_px: int) -> NDArray[np.float64]:
    """A Gaussian blur by SciPy's correlation."""
    taps = norm.pdf(np.arange(-reach_px, reach_px + 1), scale=sigma_px)
    for axis in (0, 1):
        image = correlate1d(image, taps / taps.sum(), axis=axis, mode="nearest")
    return image


@pytest.fixture
def threads() -> Iterator[None]:
    """Gives the number of threads back as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# Off


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_with_everything_off_the_images_stay(dtype: torch.dtype) -> None:
    images = textures(5, 9).to(dtype)
    result = augmented(images, torch.arange(5), settings=Augmentation(), seed=1, epoch=2)
    assert result.dtype == torch.float32
    assert torch.equal(result, images.to(torch.float32))


@pytest.mark.parametrize("name", [*NUMBERS, "flip"])
def test_each_step_alone_changes_something_and_leaves_the_input(name: str) -> None:
    images = textures(8, 12).to(torch.float32)
    before = images.clone()
    result = changed(images, Augmentation(**{name: getattr(EVERYTHING, name)}))
    assert result.shape == (8, 12, 12)
    assert result.dtype == np.float32
    assert not np.array_equal(result, before.numpy())
    assert torch.equal(images, before)


def test_the_result_of_nothing_is_nothing() -> None:
    empty = torch.zeros((0, 8, 8), dtype=torch.uint8)
    assert changed(empty, EVERYTHING).shape == (0, 8, 8)


def test_no_gradient_is_kept() -> None:
    images = textures(2, 8).to(torch.float32).requires_grad_()
    result = augmented(images, torch.arange(2), settings=EVERYTHING, seed=1, epoch=0)
    assert not result.requires_grad


# The same in any company


@pytest.mark.parametrize("size_px", [5, 16, 27, 28, 64])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.usefixtures("threads")
def test_an_image_comes_out_the_same_to_the_bit_in_any_batch(size_px: int, n_threads: int) -> None:
    torch.set_num_threads(n_threads)
    images, samples = textures(64, size_px), torch.arange(64) * 37 + 5
    whole = augmented(images, samples, settings=EVERYTHING, seed=3, epoch=4)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(size_px))
    for part in [*torch.arange(64).split(1), *order.split(7), order]:
        alone = augmented(images[part], samples[part], settings=EVERYTHING, seed=3, epoch=4)
        assert torch.equal(alone, whole[part])


@pytest.mark.usefixtures("threads")
def test_large_images_come_out_the_same_alone_and_with_any_number_of_threads() -> None:
    images, samples = textures(8, 201), torch.arange(8)
    torch.set_num_threads(1)
    whole = augmented(images, samples, settings=EVERYTHING, seed=3, epoch=4)
    for n_threads in (2, 3):
        torch.set_num_threads(n_threads)
        for part in (samples, *samples.split(1)):
            again = augmented(images[part], part, settings=EVERYTHING, seed=3, epoch=4)
            assert torch.equal(again, whole[part])


@settings(max_examples=40, deadline=None)
@given(
    strengths=st.fixed_dictionaries(
        {name: st.sampled_from([0.0, 0.1, 0.4, 0.9]) for name in NUMBERS}
    ),
    flip=st.booleans(),
    size_px=st.integers(1, 12),
    n=st.integers(1, 9),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10_000),
)
def test_any_settings_give_levels_from_black_to_white_in_any_batch(
    strengths: dict[str, float], flip: bool, size_px: int, n: int, seed: int, epoch: int
) -> None:
    chosen = Augmentation(**strengths, flip=flip)
    images, samples = textures(n, size_px, seed % 1000), torch.arange(n) + 2**40
    whole = augmented(images, samples, settings=chosen, seed=seed, epoch=epoch)
    assert whole.shape == images.shape
    assert float(whole.min()) >= 0.0
    assert float(whole.max()) <= 255.0
    last = augmented(images[-1:], samples[-1:], settings=chosen, seed=seed, epoch=epoch)
    assert torch.equal(last[0], whole[-1])


def test_the_layout_in_memory_does_not_matter() -> None:
    images = textures(6, 15)
    turned = images.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not turned.is_contiguous()
    np.testing.assert_array_equal(changed(turned, EVERYTHING), changed(images, EVERYTHING))
    floating = images.to(torch.float32)
    np.testing.assert_array_equal(changed(floating, EVERYTHING), changed(images, EVERYTHING))


def test_epoch_sample_and_seed_each_give_other_numbers() -> None:
    image = textures(1, 16)

    def once(sample: int = 4, seed: int = 3, epoch: int = 2) -> torch.Tensor:
        place = torch.tensor([sample])
        return augmented(image, place, settings=EVERYTHING, seed=seed, epoch=epoch)

    assert torch.equal(once(), once())
    for other in (once(sample=5), once(seed=4), once(epoch=3), once(sample=2, epoch=4)):
        assert float((other - once()).abs().mean()) > 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", [*NUMBERS, "flip"])
def test_a_cuda_device_changes_images_as_the_cpu_does(name: str) -> None:
    chosen = Augmentation(**{name: getattr(EVERYTHING, name)})
    images, samples = textures(16, 27), torch.arange(16)
    there = augmented(images.cuda(), samples.cuda(), settings=chosen, seed=7, epoch=0)
    np.testing.assert_allclose(there.cpu().numpy(), changed(images, chosen), atol=0.01)
    alone = augmented(images[3:4].cuda(), samples[3:4].cuda(), settings=chosen, seed=7, epoch=0)
    assert torch.equal(alone[0], there[3])


# Chance


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("angle", math.radians(40)),
        ("zoom", 0.3),
        ("aspect", 0.4),
        ("shear", math.radians(20)),
        ("shift_x", 0.2),
        ("shift_y", 0.2),
        ("gamma", 0.5),
        ("contrast", 0.4),
        ("brightness", 0.2),
    ],
)
def test_draws_are_uniform_either_way(name: str, most: float) -> None:
    numbers = getattr(drawn(len(MANY), EVERYTHING), name).double()
    if name in ("zoom", "aspect", "gamma", "contrast"):
        numbers = numbers.log()
    assert float(numbers.abs().max()) <= most * (1 + 1e-6)
    assert abs(float(numbers.mean())) < 4 * most / math.sqrt(3 * len(MANY))
    assert kstest(numbers.numpy(), "uniform", args=(-most, 2 * most)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("name", "most"), [("noise", 0.1), ("blur", 1.2), ("hole_x", 1.0), ("hole_y", 1.0)]
)
def test_draws_are_uniform_from_zero(name: str, most: float) -> None:
    numbers = getattr(drawn(len(MANY), EVERYTHING), name).double()
    assert 0.0 <= float(numbers.min()) <= float(numbers.max()) <= most
    assert kstest(numbers.numpy(), "uniform", args=(0.0, most)).pvalue > 1e-3


def test_draws_do_not_know_of_each_other() -> None:
    epochs = [dataclasses.astuple(drawn(len(MANY), EVERYTHING, epoch)) for epoch in (0, 1)]
    table = torch.stack([column.double() for columns in epochs for column in columns]).numpy()
    assert len(table) == 28
    correlation = np.corrcoef(table)
    assert np.abs(correlation - np.eye(28)).max() < 5 / math.sqrt(len(MANY))
    for row in table:
        assert abs(np.corrcoef(row[1:], row[:-1])[0, 1]) < 5 / math.sqrt(len(MANY))


def test_one_setting_does_not_change_what_another_draws() -> None:
    alone = drawn(50, Augmentation(gamma=0.5, translate=0.2))
    together = drawn(50, EVERYTHING)
    for name in ("gamma", "shift_x", "shift_y", "hole_x", "hole_y"):
        assert torch.equal(getattr(alone, name), getattr(together, name))


def test_films_are_mirrored_half_of_the_time_and_only_if_asked_for() -> None:
    assert not drawn(len(MANY), dataclasses.replace(EVERYTHING, flip=False)).mirrored.any()
    share = float(drawn(len(MANY), Augmentation(flip=True)).mirrored.double().mean())
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(len(MANY))


# Geometry


def test_mirrored_films_are_exactly_that() -> None:
    images = textures(40, 11)
    result = changed(images, Augmentation(flip=True))
    mirrored = drawn(40, Augmentation(flip=True)).mirrored.numpy()
    assert 5 < mirrored.sum() < 35
    expected = np.where(mirrored[:, None, None], images.numpy()[:, :, ::-1], images.numpy())
    np.testing.assert_array_equal(result, expected)


def test_matrices_undo_zoom_shear_rotation_and_shift() -> None:
    draws = drawn(100, GEOMETRY)
    matrices = inverse_matrices(draws).double().numpy()
    for image, matrix in enumerate(matrices):
        back = np.vstack([matrix, [0.0, 0.0, 1.0]])
        np.testing.assert_allclose(back @ forward_matrix(draws, image), np.eye(3), atol=2e-6)


@pytest.mark.parametrize("size_px", [1, 2, 13, 32])
@pytest.mark.parametrize(
    "name", ["rotate_degrees", "scale", "aspect", "shear_degrees", "translate", "all"]
)
def test_films_are_warped_as_by_scipy(size_px: int, name: str) -> None:
    chosen = GEOMETRY if name == "all" else Augmentation(**{name: getattr(GEOMETRY, name)})
    images = textures(30, size_px)
    result, draws = changed(images, chosen), drawn(30, chosen)
    for image, film in enumerate(floats(images)):
        expected = resampled(film, forward_matrix(draws, image))
        np.testing.assert_allclose(result[image], expected, atol=0.01)


def still(n: int = 1, **others: float) -> Draws:
    """Draws that move nothing, but for the named ones."""
    values: dict[str, Any] = {field.name: torch.zeros(n) for field in dataclasses.fields(Draws)}
    values |= {name: torch.ones(n) for name in ("zoom", "aspect", "gamma", "contrast")}
    values |= {name: torch.full((n,), value) for name, value in others.items()}
    return Draws(**values)


def test_directions_are_as_documented() -> None:
    film = textures(1, 9).to(torch.float32)
    pixels = film[0].numpy()

    def moved(**others: float) -> NDArray[np.float32]:
        return warped(film, inverse_matrices(still(**others)))[0].numpy()

    np.testing.assert_allclose(moved(), pixels, atol=0.01)
    np.testing.assert_allclose(moved(angle=math.pi / 2), np.rot90(pixels, -1), atol=0.01)
    np.testing.assert_allclose(moved(shift_x=2 / 9)[:, 2:], pixels[:, :-2], atol=0.01)
    np.testing.assert_allclose(moved(shift_y=2 / 9)[2:], pixels[:-2], atol=0.01)
    np.testing.assert_allclose(moved(shear=math.pi / 4)[8, 4:], pixels[8, :5], atol=0.01)
    np.testing.assert_allclose(moved(zoom=2.0)[::2, ::2], pixels[2:7, 2:7], atol=0.01)
    tall = moved(zoom=2.0, aspect=0.25)  # width as it was, height four times
    np.testing.assert_allclose(tall[::4], pixels[3:6], atol=0.01)


def test_beyond_the_border_the_border_goes_on() -> None:
    film = textures(1, 8).to(torch.float32)
    result = warped(film, inverse_matrices(still(shift_x=0.5)))[0].numpy()
    expected = np.repeat(film[0, :, :1].numpy(), 4, axis=1)
    np.testing.assert_allclose(result[:, :4], expected, atol=0.01)
    white = torch.full((20, 16, 16), 255, dtype=torch.uint8)
    np.testing.assert_allclose(changed(white, GEOMETRY), 255.0, atol=0.01)


# Grey levels


def test_gamma_is_a_power_of_the_fraction_of_white() -> None:
    images = textures(20, 16)
    images[:, 0, 0], images[:, 0, 1] = 0, 255
    result = changed(images, Augmentation(gamma=0.5))
    expected = 255 * (floats(images) / 255) ** each(drawn(20, Augmentation(gamma=0.5)).gamma)
    np.testing.assert_allclose(result, expected, atol=0.002)
    assert (result[:, 0, 0] == 0.0).all()


def test_contrast_stretches_about_the_mean_of_each_film() -> None:
    images = textures(20, 15) // 4 + 90
    result = changed(images, Augmentation(contrast=0.4))
    means = floats(images).mean(axis=(1, 2), keepdims=True)
    factors = each(drawn(20, Augmentation(contrast=0.4)).contrast)
    np.testing.assert_allclose(result, means + (floats(images) - means) * factors, atol=0.002)
    np.testing.assert_allclose(result.mean(axis=(1, 2)), means[:, 0, 0], atol=0.002)


def test_brightness_adds_a_fraction_of_white_and_clips() -> None:
    images = textures(20, 16)
    result = changed(images, Augmentation(brightness=0.2))
    shifts = 255 * each(drawn(20, Augmentation(brightness=0.2)).brightness)
    expected = np.clip(floats(images) + shifts, 0, 255)
    np.testing.assert_allclose(result, expected, atol=0.002)
    assert (result == 0.0).any()
    assert (result == 255.0).any()


def test_noise_has_the_drawn_spread_and_the_shape_of_a_bell() -> None:
    grey = torch.full((200, 64, 64), 128, dtype=torch.uint8)
    chosen = Augmentation(noise=0.1)
    noise = changed(grey, chosen).astype(np.float64) - 128
    spread = 255 * drawn(200, chosen).noise.numpy().astype(np.float64)
    np.testing.assert_allclose(noise.std(axis=(1, 2)), spread, rtol=0.06)
    unit = noise / spread[:, None, None]
    n = unit.size
    assert abs(unit.mean()) < 5 / math.sqrt(n)
    assert unit.std() == pytest.approx(1.0, abs=0.005)
    assert abs(skew(unit, axis=None)) < 0.02
    assert abs(kurtosis(unit, axis=None)) < 0.35
    assert np.abs(unit).max() < 3.5
    for level in (-2.0, -1.0, 0.5, 1.5):
        assert (unit < level).mean() == pytest.approx(norm.cdf(level), abs=0.03)


def test_noise_is_new_in_each_pixel_film_and_epoch() -> None:
    grey = torch.full((100, 33, 33), 128, dtype=torch.uint8)
    first, second = (changed(grey, Augmentation(noise=0.1), epoch) - 128 for epoch in (0, 1))
    limit = 5 / math.sqrt(first.size)

    def related(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        return abs(float(np.corrcoef(one.ravel(), other.ravel())[0, 1]))

    assert related(first[:, :, 1:], first[:, :, :-1]) < limit
    assert related(first[:, 1:], first[:, :-1]) < limit
    assert related(first[1:], first[:-1]) < limit
    assert related(first, second) < limit


@pytest.mark.parametrize("size_px", [3, 20])
@pytest.mark.parametrize("sigma_px", [0.3, 1.2, 2.0])
def test_blur_is_a_gaussian_of_the_drawn_width(size_px: int, sigma_px: float) -> None:
    images, chosen = textures(20, size_px), Augmentation(blur=sigma_px)
    result, widths = changed(images, chosen), drawn(20, chosen).blur
    for image, film in enumerate(floats(images)):
        expected = blurred(film, float(widths[image]), math.ceil(3 * sigma_px))
        np.testing.assert_allclose(result[image], expected, atol=0.002)


def test_blur_of_no_width_leaves_the_film() -> None:
    images = textures(20_000, 2)
    widths = drawn(20_000, Augmentation(blur=0.05)).blur
    sharp = widths < 1e-4
    assert sharp.any()
    result = changed(images, Augmentation(blur=0.05))
    np.testing.assert_array_equal(result[sharp], images[sharp].to(torch.float32))


def test_the_hole_is_one_whole_square_of_the_films_mean_anywhere() -> None:
    images = textures(2000, 12)
    result = changed(images, Augmentation(cutout=0.3))
    means = floats(images).mean(axis=(1, 2), keepdims=True)
    hole = np.abs(result - means) < 1e-3
    kept = result == images.numpy()
    assert (hole | kept).all()
    places = set()
    for image in range(len(images)):
        rows, columns = np.nonzero(~kept[image])
        top, left = rows.min(), columns.min()
        assert hole[image, top : top + 4, left : left + 4].all()
        assert rows.max() < top + 4
        assert columns.max() < left + 4
        if len(rows) == 16:
            places.add((int(top), int(left)))
    assert places == {(row, column) for row in range(9) for column in range(9)}


# Everything at once


def test_the_steps_come_in_the_documented_order() -> None:
    images = textures(30, 24)
    chosen = dataclasses.replace(EVERYTHING, cutout=0.25)
    draws = drawn(30, chosen)
    grey = torch.full((30, 24, 24), 128, dtype=torch.uint8)
    noise = changed(grey, Augmentation(noise=chosen.noise)).astype(np.float64) - 128
    result = changed(images, chosen)
    for image, film in enumerate(floats(images)):
        film = film[:, ::-1] if draws.mirrored[image] else film
        film = resampled(film, forward_matrix(draws, image))
        film = blurred(film, float(draws.blur[image]), 4)
        film = 255 * (film / 255) ** float(draws.gamma[image])
        film = film.mean() + (film - film.mean()) * float(draws.contrast[image])
        film = film + 255 * float(draws.brightness[image])
        film = np.clip(film + noise[image], 0, 255)
        left, top = (int(19 * float(at[image])) for at in (draws.hole_x, draws.hole_y))
        film[top : top + 6, left : left + 6] = film.mean()
        np.testing.assert_allclose(result[image], film, atol=0.03)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real radiographs in ../shared/data")
def test_a_real_film_stays_itself_under_moderate_changes() -> None:
    folder = SHARED_DATA / "kermany224" / "NORMAL"
    paths = sorted(folder.iterdir())[:400:25]
    films = np.stack([np.asarray(Image.open(path).convert("L").resize((64, 64))) for path in paths])
    chosen = Augmentation(rotate_degrees=5, scale=0.05, translate=0.02, gamma=0.2, noise=0.02)
    result = changed(torch.from_numpy(films), chosen)
    likeness = np.corrcoef(result.reshape(16, -1), films.reshape(16, -1).astype(np.float64))
    own = likeness[:16, 16:]
    assert (own.argmax(axis=1) == np.arange(16)).all()
    assert own.diagonal().min() > 0.8


# Refused


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, 181.0])
def test_strengths_outside_their_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Augmentation(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("scale", 1.01), ("gamma", 1.01), ("blur", 10.5), ("shear_degrees", 45), ("cutout", 1.0)],
)
def test_the_ends_of_the_ranges_are_kept(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Augmentation(**{name: value})
    assert getattr(Augmentation(**{name: value * 0.95}), name) == value * 0.95


@pytest.mark.parametrize("shape", [(4, 8), (4, 8, 9), (4, 1, 8, 8), (5, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    images = torch.zeros(shape, dtype=torch.uint8)
    with pytest.raises(ValueError, match="want images"):
        augmented(images, torch.arange(4), settings=EVERYTHING, seed=0, epoch=0)
