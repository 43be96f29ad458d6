"""One image through a tiny stack of perceptrons and back, every number written out.

Forward: each perceptron multiplies its inputs by its weights, adds up, adds its bias, and bends the
sum with the sigmoid. Backward: the chain rule carries the loss's slope from the output back to each
weight. Both are plain sums here, with no library that knows derivatives; beside them stands what
autograd computes for the program's own network with the same weights.

Source: Rumelhart et al. 1986, doi:10.1038/323533a0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xray_classifier.data.film import film_from_array
from xray_classifier.data.phantoms import draw_phantom, phantom_table
from xray_classifier.data.signature import prepared
from xray_classifier.losses import BinaryCrossEntropy
from xray_classifier.model import Architecture, PerceptronStack

Floats = NDArray[np.float64]
WHITE = 255.0
DECIMALS = 2
"""Pixels and weights have this many decimals, so that what is shown is exactly what is used."""


@dataclass(frozen=True)
class Weights:
    """The weights of one layer.

    Attributes:
        weights: (units, inputs).
        biases: (units,).
    """

    weights: Floats
    biases: Floats


@dataclass(frozen=True)
class Activity:
    """What one layer does with one image.

    Attributes:
        inputs: (inputs,): the pixels, or the outputs of the layer before.
        sums: Weighted sums without the bias, (units,).
        logits: Sums plus biases, (units,).
        outputs: Sigmoid of the logits, (units,), in (0, 1).
    """

    inputs: Floats
    sums: Floats
    logits: Floats
    outputs: Floats


@dataclass(frozen=True)
class ByHand:
    """One step of gradient descent on one image.

    Attributes:
        size_px: Side of the square image.
        pixels: (size_px ** 2,), row by row, 0 black to 1 white.
        target: 1.0 sick, 0.0 healthy.
        lr: Learning rate of the step.
        before: Weights of each layer before the step.
        forward: What each layer does with the image before the step.
        loss: Binary cross-entropy before the step.
        deltas: Slope of the loss with each layer's logits, (units,) each.
        gradients: Slope of the loss with each layer's weights and biases, by the chain rule.
        autograd: The same, as PyTorch computes it.
        after: Weights of each layer after the step.
        forward_after: What each layer does with the image after the step.
        loss_after: Binary cross-entropy after the step.
    """

    size_px: int
    pixels: Floats
    target: float
    lr: float
    before: tuple[Weights, ...]
    forward: tuple[Activity, ...]
    loss: float
    deltas: tuple[Floats, ...]
    gradients: tuple[Weights, ...]
    autograd: tuple[Weights, ...]
    after: tuple[Weights, ...]
    forward_after: tuple[Activity, ...]
    loss_after: float


def step_by_hand(
    pixels: Floats, target: float, layers: Sequence[Weights], lr: float, size_px: int
) -> ByHand:
    """Take one step of gradient descent on one image and keep every number on the way.

    Args:
        pixels: (size_px ** 2,), row by row.
        target: 1.0 sick, 0.0 healthy.
        layers: Weights of each layer, the last with one unit; one layer is a lone perceptron.
        lr: Learning rate.
        size_px: Side of the image.
    """
    before = tuple(layers)
    forward = _forward(pixels, before)
    deltas = _deltas(before, forward, target)
    gradients = tuple(
        Weights(np.outer(delta, layer.inputs), delta)
        for delta, layer in zip(deltas, forward, strict=True)
    )
    after = tuple(
        Weights(w.weights - lr * slope.weights, w.biases - lr * slope.biases)
        for w, slope in zip(before, gradients, strict=True)
    )
    forward_after = _forward(pixels, after)
    return ByHand(
        size_px=size_px,
        pixels=pixels,
        target=target,
        lr=lr,
        before=before,
        forward=forward,
        loss=cross_entropy(float(forward[-1].outputs[0]), target),
        deltas=deltas,
        gradients=gradients,
        autograd=autograd_gradients(pixels, target, before, size_px),
        after=after,
        forward_after=forward_after,
        loss_after=cross_entropy(float(forward_after[-1].outputs[0]), target),
    )


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-z)), element by element."""
    result: Floats = 1.0 / (1.0 + np.exp(-logits))
    return result


def cross_entropy(p: float, target: float) -> float:
    """Binary cross-entropy of one answer: -ln p for a sick image, -ln(1 - p) for a healthy one.

    Args:
        p: Probability of sick, in (0, 1).
        target: 1.0 sick, 0.0 healthy.
    """
    return float(-(target * np.log(p) + (1.0 - target) * np.log(1.0 - p)))


def _forward(pixels: Floats, layers: Sequence[Weights]) -> tuple[Activity, ...]:
    found: list[Activity] = []
    inputs = pixels
    for layer in layers:
        sums = np.array(
            [sum(w * x for w, x in zip(row, inputs, strict=True)) for row in layer.weights]
        )
        logits = sums + layer.biases
        found.append(Activity(inputs, sums, logits, sigmoid(logits)))
        inputs = found[-1].outputs
    return tuple(found)


def _deltas(
    layers: Sequence[Weights], forward: Sequence[Activity], target: float
) -> tuple[Floats, ...]:
    """Slope of the loss with each logit, from the last layer back to the first.

    At the output the slopes of cross-entropy and sigmoid multiply to p - y. Before it, a unit's
    slope is the sum over what it feeds, times the slope a (1 - a) of its own sigmoid.
    """
    delta = forward[-1].outputs - target
    found = [delta]
    for number in range(len(layers) - 2, -1, -1):
        a = forward[number].outputs
        delta = (layers[number + 1].weights.T @ delta) * a * (1.0 - a)
        found.append(delta)
    return tuple(reversed(found))


def autograd_gradients(
    pixels: Floats, target: float, layers: Sequence[Weights], size_px: int
) -> tuple[Weights, ...]:
    """The gradient that PyTorch finds for the program's own network and loss, in float64.

    Args:
        pixels: (size_px ** 2,).
        target: 1.0 or 0.0.
        layers: Weights of each layer, the last with one unit.
        size_px: Side of the image.
    """
    hidden = tuple(len(layer.biases) for layer in layers[:-1])
    kind = "mlp" if hidden else "perceptron"
    rates = (0.0,) * len(hidden)
    network = PerceptronStack(Architecture(kind, size_px, 1, hidden, "sigmoid", rates)).double()
    linears = _linears(network)
    with torch.no_grad():
        for linear, layer in zip(linears, layers, strict=True):
            linear.weight.copy_(torch.from_numpy(layer.weights))
            linear.bias.copy_(torch.from_numpy(layer.biases))
    image = torch.from_numpy(pixels).view(1, 1, size_px, size_px)
    truth = torch.tensor([target], dtype=torch.float64)
    BinaryCrossEntropy()(network(image), truth).backward()
    return tuple(Weights(_gradient(one.weight), _gradient(one.bias)) for one in linears)


def _linears(network: nn.Module) -> list[nn.Linear]:
    """The layers of a stack, from the image to the logit."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def _gradient(parameter: torch.Tensor) -> Floats:
    if parameter.grad is None:
        raise ValueError("the backward pass has left no gradient here")
    return np.asarray(parameter.grad.numpy(), dtype=np.float64)


def first_weights(size_px: int, hidden: Sequence[int], seed: int) -> tuple[Weights, ...]:
    """Weights as a fresh network of the program starts with, rounded to `DECIMALS`.

    Args:
        size_px: Side of the image.
        hidden: Units of each hidden layer; none is a lone perceptron.
        seed: Of the network.
    """
    kind = "mlp" if hidden else "perceptron"
    rates = (0.0,) * len(hidden)
    architecture = Architecture(kind, size_px, 1, tuple(hidden), "sigmoid", rates, init="xavier")
    network = PerceptronStack(architecture, seed)
    linears = _linears(network)
    return tuple(
        Weights(
            linear.weight.detach().double().numpy().round(DECIMALS),
            linear.bias.detach().double().numpy().round(DECIMALS),
        )
        for linear in linears
    )


def small_phantom(seed: int, size_px: int, label: int = 1) -> Floats:
    """The first sick (or healthy) phantom of a series, as the model would see it, made tiny.

    Args:
        seed: Which series.
        size_px: Side of the picture.
        label: 1 sick, 0 healthy.

    Returns:
        (size_px ** 2,) grey levels from 0 black to 1 white, row by row, rounded to `DECIMALS`.
    """
    row = phantom_table(200, seed).labels.tolist().index(label)
    film = film_from_array(draw_phantom(seed, row).pixels)
    pixels = prepared(film, size_px, "center", "equalize").pixels
    return (pixels.reshape(-1) / WHITE).round(DECIMALS)
