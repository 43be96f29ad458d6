"""The rule that turns gradients into steps, and the learning rate it uses at each step."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

FUSED = {  # one pass over memory instead of several
    "cpu": ("adam", "adamw", "sgd", "adagrad"),
    "cuda": ("adam", "adamw", "sgd"),
}


def make_optimizer(
    model: nn.Module,
    name: str,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float | None = None,
    nesterov: bool = False,
    amsgrad: bool = False,
) -> torch.optim.Optimizer:
    """Build an optimizer whose weight decay spares biases and norms.

    Args:
        model: Its parameters, on their final device.
        name: sgd, adagrad, adadelta, rmsprop, adam, adamax, adamw, nadam or radam.
        lr: Step size before the schedule.
        weight_decay: Decoupled in adamw, an L2 term in the gradient in the others.
        momentum: For sgd and rmsprop; None is 0.
        nesterov: For sgd.
        amsgrad: For adam and adamw.
    """
    classes: dict[str, type[torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "adagrad": torch.optim.Adagrad,
        "adadelta": torch.optim.Adadelta,
        "rmsprop": torch.optim.RMSprop,
        "adam": torch.optim.Adam,
        "adamax": torch.optim.Adamax,
        "adamw": torch.optim.AdamW,
        "nadam": torch.optim.NAdam,
        "radam": torch.optim.RAdam,
    }
    extra: dict[str, Any] = {}
    if name in ("sgd", "rmsprop"):
        extra["momentum"] = momentum or 0.0
    if name == "sgd":
        extra["nesterov"] = nesterov
    if name in ("adam", "adamw"):
        extra["amsgrad"] = amsgrad
    if name in FUSED.get(next(model.parameters()).device.type, ()):
        extra["fused"] = True
    make: Callable[..., torch.optim.Optimizer] = without_compiler(classes[name])
    return make(parameter_groups(model, weight_decay), lr=lr, **extra)


def without_compiler(optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The same optimizer, which does not import PyTorch's compiler.

    `torch.optim` wraps these methods to keep the compiler out of them, and to that end imports it:
    as slow as importing PyTorch itself. What is wrapped does without. Where a later PyTorch wraps
    otherwise, the second is lost and nothing else.

    Args:
        optimizer: A class of `torch.optim`, left as it is.
    """
    plain: dict[str, Any] = {
        name: inspect.unwrap(getattr(optimizer, name))
        for name in ("zero_grad", "add_param_group", "state_dict", "load_state_dict")
    }
    plain["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), plain)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with the decay, vectors (biases, norms) without."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def lr_factor(
    name: str,
    step: int,
    *,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: float = 0.0,
    final_fraction: float = 0.01,
    factor: float = 0.5,
    drops: int = 0,
) -> float:
    """Learning rate of one step as a fraction of `lr`: a function of the step, not of the past.

    Args:
        name: constant, cosine, onecycle, plateau or exponential.
        step: Steps already taken, from 0.
        steps_per_epoch: Batches in an epoch.
        epochs: Planned epochs; cosine and onecycle reach `final_fraction` at their end.
        warmup_epochs: Linear rise from 0 over these epochs; the schedule starts after it.
        final_fraction: Where cosine and onecycle end.
        factor: Multiplier of exponential (an epoch) and plateau (a drop).
        drops: Drops of plateau so far, see `history.plateau_drops`.

    Returns:
        A fraction in [0, 1].

    Source:
        Cosine: Loshchilov & Hutter 2017, arXiv:1608.03983. One cycle: Smith 2018, arXiv:1803.09820,
        without its cycle of the momentum.
    """
    warmup_steps = warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    after = step - warmup_steps
    span = max(1.0, epochs * steps_per_epoch - warmup_steps)
    if name == "cosine":
        return _cosine(after / span, 1.0, final_fraction)
    if name == "onecycle":
        rise = 0.3 * span
        if after < rise:
            return _cosine(after / rise, 0.04, 1.0)
        return _cosine((after - rise) / (span - rise), 1.0, final_fraction)
    if name == "exponential":
        return factor ** math.floor(after / steps_per_epoch)
    if name == "plateau":
        return factor**drops
    return 1.0


def _cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine wave from `start` to `end` as progress goes from 0 to 1."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
