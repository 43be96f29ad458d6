"""What the first perceptrons look for: their weights as pictures, and the films they like most.

A perceptron of the first layer has one weight for each pixel it sees, so its weights are a picture.
Its answer is the sum of the film times that picture: large where bright pixels meet positive
weights and dark ones negative weights.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_classifier.data.dataset import LabelledImages
from xray_classifier.mixer import PerceptronMixer, cut_patches
from xray_classifier.model import Architecture, build_network

MOST_UNITS = 6
MOST_FILMS = 4
BATCH = 256

Corner = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Detector:
    """One perceptron of the first layer.

    Attributes:
        unit: Its place in the layer, from 0.
        weights: As a picture, (p, p): of the whole film, or of one patch for a mixer.
        change: The same less the random weights that it began with, (p, p).
        strength: How much it moves what comes after: the spread of its answers over the films times
            the Euclidean norm of the weights that lead on from it. Of a mixer, whose channels all
            go on, the norm of its own weights; 1 for a lone perceptron.
        rows: Rows of the manifest of the films that excite it most, strongest first, (k,).
        sums: Its weighted sum with bias, before norm and activation, on each of these, (k,).
        corners: Top and left pixel of the patch that excited it, one for each film; of a mixer.
    """

    unit: int
    weights: NDArray[np.float64]
    change: NDArray[np.float64]
    strength: float
    rows: NDArray[np.int64]
    sums: NDArray[np.float64]
    corners: tuple[Corner, ...] = ()


@dataclass(frozen=True, eq=False)
class Detectors:
    """The strongest perceptrons of the first layer.

    Attributes:
        kind: perceptron, mlp or mixer.
        chosen: Strongest first.
        n_units: Perceptrons in the layer.
        n_images: Films that were shown to them.
    """

    kind: str
    chosen: tuple[Detector, ...]
    n_units: int
    n_images: int


def measure_detectors(
    model: nn.Module,
    standardize: nn.Module,
    architecture: Architecture,
    images: LabelledImages,
    *,
    seed: int,
    most_units: int = MOST_UNITS,
    most_films: int = MOST_FILMS,
) -> Detectors:
    """The first perceptrons that count most, and the films that excite each most.

    Args:
        model: A network of this architecture.
        standardize: uint8 images to standardised ones.
        architecture: Says which layer is the first.
        images: Films to show; usually validation.
        seed: Of the weights that the network began with.
        most_units: Perceptrons, at most.
        most_films: Films for each, at most.
    """
    layer = _first_layer(model, architecture)
    strength = _strength(model, architecture, standardize, images)
    start = _first_layer(build_network(architecture, seed), architecture).weight.detach()
    units = torch.argsort(strength, descending=True, stable=True)[:most_units]
    sums, places = _sums(model, layer, standardize, images, units)
    side = architecture.patch_px or architecture.size_px
    chosen = []
    for nth, unit in enumerate(units.tolist()):
        weights = layer.weight[unit].detach().cpu().double()
        best = np.argsort(-sums[:, nth], kind="stable")[:most_films]
        chosen.append(
            Detector(
                unit,
                weights.numpy().reshape(side, side),
                (weights - start[unit].double()).numpy().reshape(side, side),
                float(strength[unit]),
                images.rows[best],
                sums[best, nth],
                tuple(_corner(architecture, int(places[row, nth])) for row in best)
                if places is not None
                else (),
            )
        )
    return Detectors(architecture.type, tuple(chosen), layer.out_features, len(images))


def _first_layer(model: nn.Module, architecture: Architecture) -> nn.Linear:
    """The layer that sees pixels."""
    names = {"mixer": "embedding", "perceptron": "output"}
    return _linear(model, names.get(architecture.type, "hidden.0.linear"))


def _strength(
    model: nn.Module, architecture: Architecture, standardize: nn.Module, images: LabelledImages
) -> Tensor:
    """How much each unit of the first layer moves what comes after, (units,) on the CPU."""
    layer = _first_layer(model, architecture)
    if architecture.type != "mlp":
        return layer.weight.detach().norm(dim=1).cpu() if layer.out_features > 1 else torch.ones(1)
    deeper = _linear(model, "hidden.1.linear" if len(architecture.hidden) > 1 else "output")
    answers: list[Tensor] = []
    activation = model.get_submodule("hidden.0.activation")
    handle = activation.register_forward_hook(lambda _, __, out: answers.append(out.cpu()))
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()
            for index in torch.split(torch.arange(len(images)), BATCH):
                model(standardize(images.gather(index)[0]))
    finally:
        model.train(was_training)
        handle.remove()
    spread = torch.cat(answers).double().std(dim=0, correction=0)
    strength: Tensor = spread * deeper.weight.detach().norm(dim=0).cpu().double()
    return strength


def _linear(model: nn.Module, name: str) -> nn.Linear:
    found = model.get_submodule(name)
    if not isinstance(found, nn.Linear):
        raise TypeError(f"{name} is a {type(found).__name__}, no linear layer")
    return found


@torch.no_grad()
def _sums(
    model: nn.Module,
    layer: nn.Linear,
    standardize: nn.Module,
    images: LabelledImages,
    units: Tensor,
) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    """Weighted sums of some units, (n, units); of a mixer the largest over patches, and which."""
    weight, bias = layer.weight[units], layer.bias[units]
    sums, places = [], []
    for index in torch.split(torch.arange(len(images)), BATCH):
        films = standardize(images.gather(index)[0])
        if isinstance(model, PerceptronMixer):
            answers = cut_patches(films, model.patch_px) @ weight.T + bias
            most, where = answers.max(dim=1)
            places.append(where.cpu().numpy())
        else:
            most = films.flatten(1) @ weight.T + bias
        sums.append(most.double().cpu().numpy())
    return np.concatenate(sums), np.concatenate(places) if places else None


def _corner(architecture: Architecture, place: int) -> Corner:
    """Top and left pixel of a patch, given its place row by row."""
    row, column = divmod(place, architecture.size_px // architecture.patch_px)
    return row * architecture.patch_px, column * architecture.patch_px
