"""Order, batches, pixel statistics and the way from uint8 to the network."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import CPU, films
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier.data import dataset
from xray_classifier.data.dataset import (
    Standardize,
    batch_positions,
    epoch_order,
    load_split,
    mixed_seed,
    pixel_statistics,
    steps_per_epoch,
)

FEW = settings(max_examples=100, deadline=None)


@FEW
@given(n=st.integers(1, 200), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 1000))
def test_an_order_is_a_permutation_and_a_function_of_seed_and_epoch(
    n: int, seed: int, epoch: int
) -> None:
    torch.manual_seed(0)
    order = epoch_order(n, seed, epoch)
    torch.manual_seed(1)
    assert torch.equal(epoch_order(n, seed, epoch), order)
    assert sorted(order.tolist()) == list(range(n))


def test_other_seeds_and_epochs_give_other_orders() -> None:
    orders = {tuple(epoch_order(50, s, e).tolist()) for s in range(5) for e in range(5)}
    assert len(orders) == 25


def test_every_place_of_an_order_is_equally_likely() -> None:
    # 2000 epochs of 4 images: each image stands first about 500 times, sd 19.4
    first = np.bincount([int(epoch_order(4, 0, e)[0]) for e in range(2000)], minlength=4)
    assert np.abs(first - 500).max() < 5 * 19.4


def test_the_order_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    epoch_order(10, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_mixed_seeds_differ_by_place_and_fit_63_bits() -> None:
    pairs = list(itertools.product(range(40), repeat=2))
    seeds = [mixed_seed(*pair) for pair in pairs]
    assert len(set(seeds)) == len(pairs)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**60


@FEW
@given(n=st.integers(1, 300), batch_size=st.integers(1, 80), data=st.data())
def test_batches_cover_the_order_once_and_none_is_alone(
    n: int, batch_size: int, data: st.DataObject
) -> None:
    order = epoch_order(n, 0, 0)
    batches = list(batch_positions(order, batch_size))
    assert torch.equal(torch.cat(batches), order)
    assert len(batches) == steps_per_epoch(n, batch_size)
    assert all(len(b) == batch_size for b in batches[:-1])
    if batch_size > 1 and n > 1:
        assert 2 <= len(batches[-1]) <= batch_size + 1
    first = data.draw(st.integers(0, len(batches)))
    rest = list(batch_positions(order, batch_size, first_batch=first))
    assert [b.tolist() for b in rest] == [b.tolist() for b in batches[first:]]


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (128, 64, [64, 64]),
        (130, 64, [64, 64, 2]),
        (129, 64, [64, 65]),
        (65, 64, [65]),
        (5, 5, [5]),
        (3, 1, [1, 1, 1]),
        (1, 64, [1]),
        (7, 64, [7]),
    ],
)
def test_a_lone_last_image_joins_the_batch_before_it(
    n: int, batch_size: int, sizes: list[int]
) -> None:
    assert [len(b) for b in batch_positions(torch.arange(n), batch_size)] == sizes


@pytest.mark.parametrize("n", [1, 600])
def test_pixel_statistics_equal_numpys(n: int) -> None:
    images = films(1000, seed=3)
    rows = np.random.default_rng(0).permutation(1000)[:n]
    mean, std = pixel_statistics(images, rows)
    chosen = images[rows].astype(np.float64) / 255
    assert (mean, std) == pytest.approx((chosen.mean(), chosen.std()), rel=1e-12)


def test_blank_films_have_a_spread_that_can_be_divided_by() -> None:
    mean, std = pixel_statistics(np.full((3, 4, 4), 51, np.uint8), np.arange(3))
    assert mean == pytest.approx(0.2)
    assert std == 1 / 255


def test_standardising_gives_mean_0_and_spread_1_in_four_dimensions() -> None:
    images = films(200)
    standardize = Standardize(*pixel_statistics(images, np.arange(200)))
    found = standardize(torch.from_numpy(images))
    assert found.shape == (200, 1, 6, 6)
    assert found.dtype == torch.float32
    assert float(found.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(found.std(correction=0)) == pytest.approx(1.0, rel=1e-5)
    four = standardize(torch.from_numpy(images).unsqueeze(1))
    assert torch.equal(four, found)


def test_standardising_by_hand() -> None:
    levels = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)
    found = Standardize(0.2, 0.4)(levels).reshape(-1).tolist()
    assert found == pytest.approx([-0.5, 0.0, 0.5, 2.0], abs=1e-6)


def test_standardising_leaves_the_callers_numbers_alone() -> None:
    floats = torch.tensor([[[51.0, 255.0]]])
    Standardize(mean=0.2, std=0.4)(floats)
    assert floats.tolist() == [[[51.0, 255.0]]]


def test_a_split_gives_its_own_images_and_targets_from_a_memory_map(tmp_path: Path) -> None:
    images = films(30)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    targets = np.arange(30, dtype=np.float64)
    rows = np.array([7, 3, 29, 11])
    part = load_split(mapped, targets, rows, CPU)
    assert len(part) == 4
    chosen, truth = part.gather(torch.tensor([2, 0]))
    assert np.array_equal(chosen.numpy(), images[[29, 7]])
    assert truth.tolist() == [29.0, 7.0]
    assert truth.dtype == torch.float32
    assert chosen.dtype == torch.uint8


def test_a_split_on_another_device_holds_its_images_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, rows = films(30), np.array([7, 3, 29, 11])
    part = load_split(images, np.zeros(30), rows, torch.device("meta"))
    assert part.store.shape == (4, 6, 6)
    assert part.positions.tolist() == [0, 1, 2, 3]
    monkeypatch.setattr(dataset, "_fits", lambda n_bytes, device: False)
    part = load_split(images, np.zeros(30), rows, torch.device("meta"))
    assert part.store.device.type == "cpu"
    assert part.positions.tolist() == rows.tolist()


@pytest.mark.parametrize(("free", "fits"), [(1000, False), (1001 * 2, True)])
def test_images_take_half_of_the_free_device_memory_at_most(
    monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**6))
    assert dataset._fits(1000, torch.device("cuda")) is fits
