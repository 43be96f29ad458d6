"""Counter-based random numbers: uniform, independent of each other, the same in any company."""

import numpy as np
import pytest
import torch
from scipy import stats

from xray_classifier.counter import at_least, random_bits, uniform


def lowbias32(x: int) -> int:
    """The mixing function in plain Python."""
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def by_hand(seed: int, *counters: int) -> int:
    """`random_bits` for single counters, unsigned."""
    state = lowbias32((seed ^ seed >> 32) & 0xFFFFFFFF)
    for counter in counters:
        state = lowbias32(state ^ (counter * 0x9E3779B9 & 0xFFFFFFFF))
    return state


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**40 + 3, 2**63 - 1])
def test_bits_are_those_of_plain_python(seed: int) -> None:
    rows, units = torch.arange(5)[:, None] * 1000003, torch.arange(7)[None]
    found = random_bits(seed, rows, units)
    assert found.dtype == torch.int32
    for i in range(5):
        for j in range(7):
            assert int(found[i, j]) & 0xFFFFFFFF == by_hand(seed, i * 1000003, j)


def test_numbers_are_uniform_and_do_not_depend_on_their_neighbours() -> None:
    found = uniform(5, torch.arange(200_000)).numpy()
    assert found.min() >= 0.0
    assert found.max() < 1.0
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    for lag in (1, 2, 512):
        assert abs(np.corrcoef(found[:-lag], found[lag:])[0, 1]) < 0.01
    other = uniform(6, torch.arange(200_000)).numpy()
    assert abs(np.corrcoef(found, other)[0, 1]) < 0.01
    pairs = np.histogram2d(found[:-1], found[1:], bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_every_bit_is_fair_and_each_input_bit_turns_half_of_them() -> None:
    counters = torch.arange(40_000)
    bits = random_bits(1, counters)[:, None] >> torch.arange(32) & 1
    assert (bits.float().mean(0) - 0.5).abs().max() < 0.02
    for turned in range(0, 20, 3):
        other = random_bits(1, counters ^ (1 << turned))[:, None] >> torch.arange(32) & 1
        assert ((bits != other).float().mean(0) - 0.5).abs().max() < 0.02


def test_a_part_is_a_part_of_the_whole() -> None:
    rows, units = torch.arange(64)[:, None], torch.arange(33)[None]
    whole = uniform(9, rows, units)
    assert torch.equal(uniform(9, rows[10:20], units), whole[10:20])
    order = torch.randperm(64)
    assert torch.equal(uniform(9, rows[order], units), whole[order])
    assert torch.equal(uniform(9, rows.to(torch.int32), units), whole)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9])
def test_at_least_is_true_with_the_chance_that_is_left(probability: float) -> None:
    share = float(at_least(probability, 3, torch.arange(100_000)).float().mean())
    assert share == pytest.approx(1 - probability, abs=0.006)
