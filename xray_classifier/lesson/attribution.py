"""Which pixels decided: integrated gradients, beside the maps of `occlusion`.

Walk in a straight line from a grey film (every pixel at the mean grey of the training films) to the
film itself, and sum up for each pixel how much the output rises with it on the way. What the pixels
get adds up to the whole change of the output: nothing is left over and nothing is counted twice.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_classifier.classifier import Classifier
from xray_classifier.model import Architecture, build_network

FEWEST_STEPS, MOST_STEPS = 32, 2048
SPLIT = 0.2
"""Pieces that are at least this part of the worst one's error off are halved at a time."""
GAP = 0.005
"""Largest gap between the sum of a map and the change of the output, as a part of the change."""
SMALLEST_CHANGE = 0.01
"""A change of the output below this counts as one of this size when the gap is judged."""
AT_ONCE = 128
"""Points of a line that go through the network together."""


@dataclass(frozen=True, eq=False)
class Attributions:
    """What each pixel of some films adds to the output.

    Attributes:
        maps: (n, S, S); above 0 where a pixel speaks for sick, below 0 where it speaks against.
        outputs: Of the films, (n,); logits, or standardised numbers of a regression.
        baseline: Output of the even grey film that every line starts from.
        steps: Gradients that each film took, (n,).
    """

    maps: NDArray[np.float64]
    outputs: NDArray[np.float64]
    baseline: float
    steps: tuple[int, ...]

    @property
    def gaps(self) -> NDArray[np.float64]:
        """How far the sum of each map is off the change of the output, as a part of it, (n,)."""
        change = self.outputs - self.baseline
        size = np.maximum(np.abs(change), SMALLEST_CHANGE)
        return np.asarray(np.abs(self.maps.sum(axis=(1, 2)) - change) / size)


def integrated_gradients(
    model: nn.Module, standardize: nn.Module, images: NDArray[np.uint8]
) -> Attributions:
    """Integrated gradients of some films, with as many points as completeness asks for.

    Args:
        model: Standardised images (B, 1, S, S) to outputs (B,); left as it is, dropout off.
        standardize: uint8 images to standardised ones; 0 is the mean grey of the training films.
        images: (n, S, S) uint8, n at least 1.

    Source:
        Sundararajan et al. 2017, "Axiomatic attribution for deep networks", arXiv:1703.01365; the
        integral by the midpoint rule on pieces that are halved until the gap is at most 0.5 %.
    """
    device = next(model.parameters()).device
    films = standardize(torch.from_numpy(np.ascontiguousarray(images)).to(device))
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            outputs = torch.cat([model(film[None]) for film in films]).double().cpu().numpy()
            baseline = float(model(torch.zeros_like(films[:1])).double())
        found = [
            _complete(model, film, float(output) - baseline)
            for film, output in zip(films, outputs, strict=True)
        ]
    finally:
        model.train(was_training)
    maps = np.stack([one for one, _ in found])
    return Attributions(maps, outputs, baseline, tuple(steps for _, steps in found))


@dataclass(frozen=True)
class _Pieces:
    """A line cut into pieces.

    Attributes:
        starts: Where each begins, as a share of the line in [0, 1), (k,) float64.
        ends: Where each ends, (k,).
        rises: How much the output changes from start to end, (k,) float64.
        maps: Length times film times gradient at the middle, (k, S, S) float64.
    """

    starts: Tensor
    ends: Tensor
    rises: Tensor
    maps: Tensor

    @property
    def errors(self) -> Tensor:
        """How far each map's sum is off the change of the output on its piece, (k,)."""
        return self.maps.sum(dim=(1, 2)) - self.rises

    def part(self, chosen: Tensor) -> "_Pieces":
        """Some of the pieces; `chosen` is (k,) of bool."""
        own = (self.starts, self.ends, self.rises, self.maps)
        return _Pieces(*(values[chosen] for values in own))

    def with_others(self, other: "_Pieces") -> "_Pieces":
        """These and others."""
        own = (self.starts, self.ends, self.rises, self.maps)
        others = (other.starts, other.ends, other.rises, other.maps)
        return _Pieces(*(torch.cat(pair) for pair in zip(own, others, strict=True)))


def _complete(model: nn.Module, film: Tensor, change: float) -> tuple[NDArray[np.float64], int]:
    """The map of one film, (S, S), and the gradients that it took.

    Where a network bends, and after a norm near the grey film, the gradient changes fast: the
    pieces that are furthest off are halved until the whole is complete.
    """
    edges = torch.linspace(0, 1, FEWEST_STEPS + 1, dtype=torch.float64)
    pieces = _measured(model, film, edges[:-1], edges[1:])
    steps = FEWEST_STEPS
    while steps < MOST_STEPS:
        errors = pieces.errors
        if abs(float(errors.sum())) <= GAP * max(abs(change), SMALLEST_CHANGE):
            break
        worst = errors.abs() >= SPLIT * errors.abs().max()
        halved = pieces.part(worst)
        middles = 0.5 * (halved.starts + halved.ends)
        new = _measured(
            model, film, torch.cat([halved.starts, middles]), torch.cat([middles, halved.ends])
        )
        pieces = pieces.part(~worst).with_others(new)
        steps += len(new.starts)
    heat: NDArray[np.float64] = pieces.maps.sum(dim=0).numpy()
    return heat, steps


def _measured(model: nn.Module, film: Tensor, starts: Tensor, ends: Tensor) -> _Pieces:
    """Pieces of the line from the grey film to `film` (1, S, S)."""
    rises, maps = [], []
    for some in torch.split(torch.arange(len(starts)), AT_ONCE):
        first, last = starts[some], ends[some]
        points = _on_line(film, 0.5 * (first + last)).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(model(points).sum(), points)
        with torch.no_grad():
            outputs = model(_on_line(film, torch.cat([first, last]))).double().cpu()
        rises.append(outputs[len(some) :] - outputs[: len(some)])
        lengths = (last - first).view(-1, 1, 1, 1)
        maps.append((lengths * film.double().cpu() * gradient.double().cpu()).sum(dim=1))
    return _Pieces(starts, ends, torch.cat(rises), torch.cat(maps))


def _on_line(film: Tensor, shares: Tensor) -> Tensor:
    """Points of the line at shares (k,), (k, 1, S, S)."""
    return shares.to(film.device, film.dtype).view(-1, 1, 1, 1) * film


def untrained(classifier: Classifier, seed: int) -> Classifier:
    """The same network with fresh random weights, which have learnt nothing.

    Args:
        classifier: Of one network.
        seed: Of the weights.

    Source:
        Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv:1810.03292: a map that looks
        the same for an untrained network explains nothing of the training.
    """
    architecture = Architecture.from_dict(classifier.content["architecture"])
    device = next(classifier.model.parameters()).device
    return replace(classifier, model=build_network(architecture, seed).to(device).eval())
