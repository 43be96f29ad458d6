"""Gradients against finite differences and against the chain rule written by hand."""

import numpy as np
import pytest
import torch
from builders import SIZE_PX, films, labels, layers, stack
from torch.func import functional_call

from xray_classifier.data.dataset import Standardize
from xray_classifier.losses import BinaryCrossEntropy, SquaredError


def batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised images (n, 1, S, S) and labels (n,), float64."""
    images = Standardize(0.5, 0.29)(torch.from_numpy(films(n)))
    return images.double(), torch.from_numpy(labels(n))


@pytest.mark.parametrize(
    ("activation", "norm", "residual"),
    [
        ("tanh", "none", False),
        ("gelu", "none", True),
        ("silu", "layer", False),
        ("sigmoid", "none", False),
        ("elu", "layer", True),
        ("tanh", "batch", False),
    ],
)
def test_gradients_of_all_weights_equal_finite_differences(
    activation: str, norm: str, residual: bool
) -> None:
    model = stack((3, 3), activation, norm=norm, residual=residual, size_px=3).double()
    images = Standardize(0.5, 0.29)(torch.from_numpy(films(4, size_px=3))).double()
    truth = torch.from_numpy(labels(4))
    names = [name for name, _ in model.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    buffers = dict(model.named_buffers())

    def loss(*weights: torch.Tensor) -> torch.Tensor:
        kept = {name: buffer.clone() for name, buffer in buffers.items()}
        logits = functional_call(model, dict(zip(names, weights, strict=True)) | kept, (images,))
        found: torch.Tensor = BinaryCrossEntropy(2.0, 0.1)(logits, truth)
        return found

    assert torch.autograd.gradcheck(loss, values, eps=1e-6, atol=1e-7)


def test_the_gradient_with_respect_to_the_image_equals_finite_differences() -> None:
    model = stack((4,), "tanh").double()
    images, _ = batch(2)
    assert torch.autograd.gradcheck(model, (images.requires_grad_(),), eps=1e-6, atol=1e-7)


def test_one_hidden_layer_by_the_chain_rule() -> None:
    n, units, weight = 7, 5, 1.7
    model = stack((units,), "tanh", seed=4).double()
    images, truth = batch(n)
    BinaryCrossEntropy(weight)(model(images), truth).backward()

    x, y = images.numpy().reshape(n, SIZE_PX**2), truth.numpy()
    w1, b1, w2, b2 = (p.detach().numpy() for p in model.parameters())
    hidden = np.tanh(x @ w1.T + b1)  # (n, units)
    p = 1 / (1 + np.exp(-(hidden @ w2[0] + b2[0])))  # (n,)
    d_logit = (p * (1 - y) - weight * y * (1 - p)) / n
    d_sum = d_logit[:, None] * w2[0] * (1 - hidden**2)  # through the output weight and tanh
    by_hand = (d_sum.T @ x, d_sum.sum(0), (d_logit @ hidden)[None], np.array([d_logit.sum()]))

    for parameter, expected in zip(model.parameters(), by_hand, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.numpy() == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_a_perceptron_with_squared_error_by_the_chain_rule() -> None:
    model = stack().double()
    images, truth = batch(6)
    SquaredError()(model(images), truth).backward()
    x = images.numpy().reshape(6, -1)
    residual = model(images).detach().numpy() - truth.numpy()
    assert model.output.weight.grad is not None
    found = model.output.weight.grad.numpy()[0]
    assert found == pytest.approx(2 * residual @ x / 6, rel=1e-10)


def test_relu_lets_nothing_back_through_a_silent_unit() -> None:
    model = stack((2,)).double()
    with torch.no_grad():
        layers(model)[0].linear.bias.copy_(torch.tensor([-1e3, 1e3]))
    images, truth = batch(3)
    BinaryCrossEntropy()(model(images), truth).backward()
    gradient = layers(model)[0].linear.weight.grad
    assert gradient is not None
    assert not gradient[0].any()
    assert gradient[1].abs().sum() > 0
