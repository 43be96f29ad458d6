"""A moving average of the weights along a training run, which is often better than the last ones.

Steps of gradient descent on small batches jump about the weights that they seek; the mean of many
steps lies closer. The exponential average forgets old steps, so that the poor weights of the start
do not weigh in for ever.

Source: averaging the path of a stochastic approximation, Polyak & Juditsky 1992,
doi:10.1137/0330046, where it is a plain mean. The exponential form and the warm-up of its decay are
those of TensorFlow's `tf.train.ExponentialMovingAverage` with `num_updates`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """The average of a model's weights and buffers, by name.

    Floating-point tensors are averaged, running statistics of norms among them; others (counts)
    are copied. The average starts as the weights that the model has now, and a weight that never
    moves keeps its value to the last bit.

    Args:
        model: The network itself, not a wrapper that renames its weights.
        decay: Share of the average that a late step keeps, in [0, 1); 0.999 averages over about
            the last 1000 steps.

    Raises:
        ValueError: `decay` is outside [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self.shadow = _copies(_tensors(model))

    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the weights as they are after an optimizer step.

        shadow = d * shadow + (1 - d) * weight, with d = `decay_at(decay, step)`.

        Args:
            model: Has the names, shapes and device of the one at the start.
            step: Optimizer steps taken before this one; 0 for the first.

        Raises:
            ValueError: The model has other weights.
        """
        live = _tensors(model)
        _require_names(self.shadow, live)
        averaged = [name for name, tensor in self.shadow.items() if tensor.is_floating_point()]
        if averaged:
            torch._foreach_lerp_(
                [self.shadow[name] for name in averaged],
                [live[name] for name in averaged],
                1.0 - decay_at(self.decay, step),
            )
        _overwrite(self.shadow, {n: live[n] for n in live.keys() - set(averaged)})

    @contextmanager
    def averaged(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights within a `with` block.

        Whatever happens to the weights in the block, the live ones return to the last bit, after
        an exception too. It takes the memory of one more copy of the weights.

        Raises:
            ValueError: The model has other weights.
        """
        live = _tensors(model)
        _require_names(self.shadow, live)
        kept = _copies(live)
        try:
            _overwrite(live, self.shadow)
            yield
        finally:
            _overwrite(live, kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors by name, not copied: the next `update` changes them."""
        return dict(self.shadow)

    def load_state_dict(self, stored: Mapping[str, Tensor]) -> None:
        """Take the averages from `state_dict`; a run that goes on is one that never stopped.

        Raises:
            ValueError: Names, shapes or types are not those of the model; nothing was changed.
        """
        _require_names(self.shadow, stored)
        odd = [name for name, tensor in self.shadow.items() if not _alike(tensor, stored[name])]
        if odd:
            raise ValueError(f"the average has other shapes or types: {', '.join(odd)}")
        _overwrite(self.shadow, stored)


def decay_at(decay: float, step: int) -> float:
    """Share of the average that one step keeps: min(decay, (1 + step) / (10 + step)).

    Early on the average reaches back over about a ninth of the steps so far, and soon forgets the
    random weights of the start. The warm-up ends after (10 * decay - 1) / (1 - decay) steps: 890
    for 0.99, 8990 for 0.999.

    Args:
        decay: In [0, 1).
        step: Optimizer steps taken before this one; 0 for the first.

    Source:
        TensorFlow, `tf.train.ExponentialMovingAverage`, argument `num_updates`.
    """
    return min(decay, (1 + step) / (10 + step))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights and lasting buffers themselves, cut off from their gradients."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _overwrite(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write values into tensors of the same names, in place, so that all who hold them see it."""
    for name, value in values.items():
        tensors[name].copy_(value)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _require_names(shadow: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    odd = sorted(shadow.keys() ^ other.keys())
    if odd:
        raise ValueError(f"the average is not of these weights: {', '.join(odd)}")
