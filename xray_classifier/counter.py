"""Random numbers that are a function of their place: of a seed and a few counters, nothing else.

A generator hands out numbers in turn, so what one image gets depends on how many came before it.
Here the number for (seed, epoch, image) is computed from these three, on any device, in any order,
by any number of processes, and is always the same.

Source: the mixing of 32 bits is `lowbias32` of Wellons' hash-prospector search (public domain); the
idea is that of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3",
doi:10.1145/2063384.2063405.
"""

import torch
from torch import Tensor


def _whole(value: int) -> Tensor:
    """A constant of the type that it meets; a Python number would be converted at each use."""
    return torch.tensor(value, dtype=torch.int32)


_GOLDEN = _whole(-1640531527)  # 2^32 divided by the golden ratio, as a signed 32-bit number
_FIRST, _SECOND = _whole(0x7FEB352D), _whole(0x846CA68B - 2**32)
_SHIFTS = {places: (_whole(places), _whole((1 << (32 - places)) - 1)) for places in (8, 15, 16)}
_LEVELS = 1 << 24


def folded(seed: int) -> int:
    """A seed as the signed 32-bit number that `random_bits` begins with."""
    return _signed(seed ^ (seed >> 32))


def random_bits(seed: int | Tensor, *counters: Tensor) -> Tensor:
    """Thirty-two random bits for each combination of counters.

    Args:
        seed: Any whole number from 0 to 2^63 - 1, or what `folded` makes of it, as int32 ().
        counters: Whole numbers of any integer type on one device, of shapes that broadcast; each
            is taken modulo 2^32.

    Returns:
        int32 in the broadcast shape; every value equally likely.
    """
    start = seed if isinstance(seed, Tensor) else torch.tensor(folded(seed), dtype=torch.int32)
    state = _mixed_in_place(start.clone())
    for counter in counters:
        step = counter.to(torch.int32) * _GOLDEN
        state = _mixed_in_place(state.to(step.device) ^ step)
    return state


def uniform(seed: int | Tensor, *counters: Tensor) -> Tensor:
    """Numbers in [0, 1), float32, in steps of 2^-24; arguments as in `random_bits`."""
    return _shifted(random_bits(seed, *counters), 8).to(torch.float32) / _LEVELS


def at_least(probability: float, seed: int | Tensor, *counters: Tensor) -> Tensor:
    """True with chance 1 - `probability`, bool; further arguments as in `random_bits`."""
    return _shifted(random_bits(seed, *counters), 8) >= round(probability * _LEVELS)


def _mixed_in_place(x: Tensor) -> Tensor:
    """A bijection of 32 bits in which each input bit turns each output bit with chance one half."""
    x ^= _shifted(x, 16)
    x *= _FIRST
    x ^= _shifted(x, 15)
    x *= _SECOND
    x ^= _shifted(x, 16)
    return x


def _shifted(x: Tensor, places: int) -> Tensor:
    """A shift to the right that fills up with zeros, whatever the sign."""
    count, lower_bits = _SHIFTS[places]
    return (x >> count).bitwise_and_(lower_bits)


def _signed(value: int) -> int:
    """The lower 32 bits as a signed number."""
    low = value & 0xFFFFFFFF
    return low - 2**32 if low >= 2**31 else low
