"""Small networks, images and trainers that several test files build."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xray_classifier.callbacks import Callback
from xray_classifier.data.dataset import (
    LabelledImages,
    Standardize,
    load_split,
    pixel_statistics,
    steps_per_epoch,
)
from xray_classifier.history import COLUMNS, History, Run
from xray_classifier.losses import BinaryCrossEntropy, SquaredError
from xray_classifier.model import Architecture, HiddenLayer, PerceptronStack
from xray_classifier.optimizers import make_optimizer
from xray_classifier.signals import StopRequest
from xray_classifier.trainer import Trainer

CPU = torch.device("cpu")
SIZE_PX = 6


def stack(
    hidden: Sequence[int] = (),
    activation: str = "relu",
    dropout: float = 0.0,
    norm: str = "none",
    residual: bool = False,
    init: str = "kaiming",
    size_px: int = SIZE_PX,
    seed: int = 0,
) -> PerceptronStack:
    """A perceptron, or a stack of them where `hidden` names widths."""
    kind = "mlp" if hidden else "perceptron"
    return PerceptronStack(
        Architecture.from_keys(kind, size_px, hidden, activation, dropout, norm, residual, init),
        seed,
    )


def layers(model: PerceptronStack) -> list[HiddenLayer]:
    """The hidden layers, with their type."""
    return [layer for layer in model.hidden if isinstance(layer, HiddenLayer)]


def output(model: nn.Module) -> nn.Linear:
    """The output perceptron."""
    found = model.get_submodule("output")
    assert isinstance(found, nn.Linear)
    return found


def films(n: int, seed: int = 0, size_px: int = SIZE_PX) -> NDArray[np.uint8]:
    """Noise of shape (n, size_px, size_px) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, size_px, size_px), dtype=np.uint8)


def labels(n: int, seed: int = 0) -> NDArray[np.float64]:
    """Random 0 and 1, shape (n,), both present."""
    found = np.random.default_rng(seed + 1000).integers(0, 2, n).astype(np.float64)
    found[:2] = (0, 1)
    return found


def split(n: int, seed: int = 0, targets: NDArray[np.float64] | None = None) -> LabelledImages:
    """A split of noise images."""
    chosen = labels(n, seed) if targets is None else targets
    return load_split(films(n, seed), chosen, np.arange(n), CPU)


def trainer(
    model: nn.Module | None = None,
    *,
    n: int = 40,
    n_val: int = 20,
    batch_size: int = 8,
    epochs: int = 3,
    optimizer: dict[str, Any] | None = None,
    learning_rate: Callable[[Run], float] | None = None,
    task: str = "classify",
    grad_clip: float | None = None,
    callbacks: Sequence[Callback] = (),
    targets: NDArray[np.float64] | None = None,
    seed: int = 0,
    precision: str = "fp32",
    **more: Any,
) -> Trainer:
    """A trainer over `n` noise images, ready for its first step; plain SGD unless told otherwise.

    `targets` are those of training; validation repeats its first `n_val`; `more` are further
    fields of the trainer.
    """
    network = stack((5,)) if model is None else model
    keys: dict[str, Any] = {"name": "sgd", "lr": 0.1} if optimizer is None else optimizer
    lr = float(keys["lr"])
    train_images = split(n, 0, targets)
    val_images = split(n_val, 1, None if targets is None else targets[:n_val]) if n_val else None
    mean, std = pixel_statistics(films(n), np.arange(n))
    return Trainer(
        model=network,
        standardize=Standardize(mean, std),
        loss=BinaryCrossEntropy() if task == "classify" else SquaredError(),
        optimizer=make_optimizer(network, **keys),
        learning_rate=learning_rate or (lambda run: lr),
        train_images=train_images,
        val_images=val_images,
        task=task,
        batch_size=batch_size,
        seed=seed,
        precision=precision,
        grad_clip=grad_clip,
        callbacks=callbacks,
        run=Run(History(COLUMNS[task]), epochs, steps_per_epoch(n, batch_size)),
        request=StopRequest(),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        **more,
    )


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights and buffers by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class Poisoned(nn.Module):
    """A loss that is fine until its `when`-th call in training and then what it is told to be."""

    def __init__(self, when: int, loss: float, gradient: float) -> None:
        super().__init__()
        self.when, self.loss, self.gradient = when, loss, gradient
        self.calls = 0

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls += outputs.requires_grad
        if self.calls == self.when and outputs.requires_grad:
            poison = self.gradient
            outputs.register_hook(lambda gradient: gradient * poison)  # type: ignore[no-untyped-call]
            return outputs.mean() * 0 + self.loss + outputs.sum() * 1e-3
        return ((outputs - targets) ** 2).mean()
