"""How signals and gradients pass through the layers: norms, steps, dead units, and what is ill."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from xray_classifier.data.dataset import LabelledImages

STILL = 1e-6
"""A unit whose answers to all images lie this close together is dead."""
SMALLEST_STEP, LARGEST_STEP = 1e-5, 1e-2
"""Update by weight norm of a step; about 1e-3 is usual (Karpathy, CS231n notes, "Neural networks
part 3", ratio of updates to weights)."""
DEAD_SHARE = 0.5
"""More units of a layer than this are dead: a rule of thumb of this program. What kills them is
told in Lu et al. 2020, doi:10.4208/cicp.OA-2020-0165."""
VANISHING = 1e-3
"""Gradient by weight norm of the first layer this far below that of the last layer (Glorot & Bengio
2010, PMLR 9:249; the number is a rule of thumb of this program)."""
EXPLODING = 100.0
"""Largest gradient norm of a layer by its median over the epochs (Pascanu et al. 2013, PMLR
28(3):1310; the number is a rule of thumb of this program)."""


@dataclass(frozen=True)
class LayerFlow:
    """One layer at one moment.

    Attributes:
        epoch: Finished epochs.
        layer: Name of the linear layer in the network, such as hidden.0.linear.
        weight_norm: Euclidean norm of its weights.
        gradient_norm: Of the gradient of the mean loss with respect to them, dropout off.
        update_norm: Of the change of the last step; NaN where it was not recorded.
        dead_share: Share of its units whose answer, after the activation, is the same for all
            images; NaN for a layer without activation.
    """

    epoch: int
    layer: str
    weight_norm: float
    gradient_norm: float
    update_norm: float
    dead_share: float


COLUMNS = ("epoch", "layer", "weight_norm", "gradient_norm", "update_norm", "dead_share")


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers of weights by name, from the image to the output."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def measure_flow(
    model: nn.Module,
    standardize: nn.Module,
    loss: nn.Module,
    images: LabelledImages,
    *,
    epoch: int,
    before: Mapping[str, Tensor] | None = None,
) -> list[LayerFlow]:
    """Norms of each layer and its dead units, on one batch.

    Neither weights, gradients nor random states are changed, and dropout is off meanwhile.

    Args:
        model: The network.
        standardize: uint8 images to standardised ones.
        loss: Outputs and targets to a scalar.
        images: The batch.
        epoch: Finished epochs.
        before: Weights of each layer before the last step, by layer name; None: not known.
    """
    layers = linear_layers(model)
    pixels, targets = images.gather(torch.arange(len(images)))
    was_training = model.training
    dead: dict[str, float] = {}
    handles = [_listen(model, name, dead) for name in layers]
    try:
        model.eval()
        with torch.enable_grad():
            value = loss(model(standardize(pixels)).float(), targets)
            weights = [layer.weight for layer in layers.values()]
            gradients = torch.autograd.grad(value, weights)
    finally:
        model.train(was_training)
        for handle in filter(None, handles):
            handle.remove()
    return [
        LayerFlow(
            epoch,
            name,
            float(layer.weight.detach().norm()),
            float(gradient.norm()),
            math.nan
            if before is None
            else float((layer.weight.detach() - before[name].to(layer.weight.device)).norm()),
            dead.get(name, math.nan),
        )
        for (name, layer), gradient in zip(layers.items(), gradients, strict=True)
    ]


def _listen(
    model: nn.Module, name: str, dead: dict[str, float]
) -> torch.utils.hooks.RemovableHandle | None:
    """Note the share of dead units of a layer while images pass its activation, if it has one."""
    owner, _, role = name.rpartition(".")
    activation = dict(model.get_submodule(owner).named_children()).get("activation")
    if role not in ("linear", "hidden") or activation is None:
        return None

    def note(_: nn.Module, __: object, output: Tensor) -> None:
        answers = output.detach().flatten(0, -2)
        spread = answers.amax(dim=0) - answers.amin(dim=0)
        dead[name] = float((spread <= STILL).double().mean())

    return activation.register_forward_hook(note)


def layer_words(name: str) -> str:
    """The name of a layer for a person: hidden.0.linear is `hidden layer 1`."""
    parts = name.split(".")
    if parts[0] == "hidden":
        return f"hidden layer {int(parts[1]) + 1}"
    if parts[0] == "blocks":
        what = {"token_mixing": "patches", "channel_mixing": "channels"}[parts[2]]
        return f"mixer {int(parts[1]) + 1}, {what}, {parts[3]}"
    return {"embedding": "patch embedding", "output": "output unit"}.get(parts[0], name)


def flow_warnings(records: Sequence[LayerFlow]) -> list[str]:
    """What is unhealthy, one sentence each, with what to do; empty where nothing is.

    Args:
        records: Of one or several epochs, oldest first.
    """
    by_layer: dict[str, list[LayerFlow]] = defaultdict(list)
    for record in records:
        by_layer[record.layer].append(record)
    found = []
    for name, rows in by_layer.items():
        found += _dead_words(layer_words(name), rows[-1])
        found += _step_words(layer_words(name), rows)
        found += _exploding_words(layer_words(name), rows)
    return found + _vanishing_words([rows[-1] for rows in by_layer.values()])


def _dead_words(layer: str, last: LayerFlow) -> list[str]:
    if not last.dead_share > DEAD_SHARE:
        return []
    return [
        f"{layer}: {100 * last.dead_share:.0f} % of the units give the same answer to every image, "
        "so they learn nothing; try a lower train.optimizer.lr, model.activation=leaky_relu or "
        "another model.init"
    ]


def _step_words(layer: str, rows: Sequence[LayerFlow]) -> list[str]:
    ratios = [
        row.update_norm / row.weight_norm
        for row in rows
        if math.isfinite(row.update_norm) and row.weight_norm > 0
    ]
    if not ratios:
        return []
    usual = float(np.median(ratios))
    if usual > LARGEST_STEP:
        what, advice = "large: the weights are thrown about", "a lower"
    elif usual < SMALLEST_STEP:
        what, advice = "small: the layer hardly moves", "a higher"
    else:
        return []
    return [
        f"{layer}: half of the recorded steps change the weights by "
        f"{'more' if advice == 'a lower' else 'less'} than {usual:.1e} of their norm, which is "
        f"{what}; try {advice} train.optimizer.lr (about 1e-3 of the norm is usual)"
    ]


def _exploding_words(layer: str, rows: Sequence[LayerFlow]) -> list[str]:
    norms = [row.gradient_norm for row in rows]
    usual = float(np.median(norms))
    if len(norms) < 3 or not usual > 0 or max(norms) <= EXPLODING * usual:
        return []
    return [
        f"{layer}: the gradient once was {max(norms) / usual:,.0f} times its median; try "
        "train.grad_clip=1.0 or a lower train.optimizer.lr"
    ]


def _vanishing_words(last: Sequence[LayerFlow]) -> list[str]:
    if len(last) < 2 or any(row.weight_norm <= 0 for row in last):
        return []
    first, final = (row.gradient_norm / row.weight_norm for row in (last[0], last[-1]))
    if not final > 0 or first >= VANISHING * final:
        return []
    return [
        f"the gradient of the first layer, for its weights, is {final / max(first, 1e-300):,.0f} "
        "times smaller than that of the last: it has vanished on the way back; try fewer layers, "
        "model.residual=true, model.norm=layer or model.activation=relu"
    ]
