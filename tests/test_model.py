"""The perceptron stack against formulas written out in NumPy."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from builders import SIZE_PX, films, layers, stack
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import erf

from xray_classifier.config import ModelConfig
from xray_classifier.data.dataset import Standardize
from xray_classifier.model import (
    ACTIVATIONS,
    NORMS,
    Architecture,
    HiddenLayer,
    PerceptronStack,
    parameter_count,
    summary,
)

FLOATS = NDArray[np.float64]
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def sigmoid(x: FLOATS) -> FLOATS:
    return np.where(
        x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    )


FORMULAS: dict[str, Callable[[FLOATS], FLOATS]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "silu": lambda x: x * sigmoid(x),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0.0)) - 1),
    "selu": lambda x: (
        SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * (np.exp(np.minimum(x, 0.0)) - 1))
    ),
}


def standardised(n: int, seed: int = 0, size_px: int = SIZE_PX) -> torch.Tensor:
    images: torch.Tensor = Standardize(0.5, 0.25)(torch.from_numpy(films(n, seed, size_px)))
    return images


def arrays(layer: torch.nn.Module) -> tuple[FLOATS, FLOATS]:
    """Weight and bias of a linear or norm layer as float64."""
    weight, bias = (p.detach().double().numpy() for p in layer.parameters())
    return weight, bias


def test_every_activation_and_norm_of_the_config_exists() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)
    schema = ModelConfig.model_json_schema()["properties"]
    assert set(schema["activation"]["enum"]) == set(ACTIVATIONS)
    assert set(schema["norm"]["enum"]) == set(NORMS)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_equals_its_formula(name: str) -> None:
    x = np.concatenate([np.linspace(-30, 30, 301), [0.0, -1e-12, 1e-12]])
    found = ACTIVATIONS[name]()(torch.from_numpy(x)).numpy()
    assert found == pytest.approx(FORMULAS[name](x), rel=1e-12, abs=1e-14)


def test_a_perceptron_is_logistic_regression() -> None:
    model = stack().double()
    images = standardised(9).double()
    weight, bias = arrays(model.output)
    x = images.numpy().reshape(9, -1)
    logits = model(images).detach().numpy()
    assert logits.shape == (9,)
    assert logits == pytest.approx([float(row @ weight[0] + bias[0]) for row in x], rel=1e-12)
    assert parameter_count(model) == SIZE_PX**2 + 1


def test_a_perceptron_ignores_the_keys_of_a_stack() -> None:
    found = Architecture.from_keys(
        "perceptron", 8, (512, 256), "relu", 0.3, "none", False, "xavier"
    )
    assert found == Architecture("perceptron", 8, init="xavier")


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_stack_of_two_equals_the_product_of_its_layers(activation: str) -> None:
    model = stack((7, 4), activation).double()
    images = standardised(5).double()
    x = images.numpy().reshape(5, -1)
    for layer in layers(model):
        weight, bias = arrays(layer.linear)
        x = FORMULAS[activation](x @ weight.T + bias)
    weight, bias = arrays(model.output)
    assert model(images).detach().numpy() == pytest.approx((x @ weight.T + bias)[:, 0], rel=1e-10)


def test_layer_norm_and_residual_equal_a_computation_by_hand() -> None:
    model = stack((5, 5), "tanh", norm="layer", residual=True).double()
    for layer in layers(model):  # weights that are not 1 and 0
        for seed, parameter in enumerate(layer.norm.parameters()):
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    images = standardised(3).double()
    x = images.numpy().reshape(3, -1)
    for layer in layers(model):
        weight, bias = arrays(layer.linear)
        scale, shift = arrays(layer.norm)
        sums = x @ weight.T + bias
        centred = sums - sums.mean(axis=1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        out = np.tanh(centred / spread * scale + shift)
        x = x + out if x.shape[1] == 5 else out
    weight, bias = arrays(model.output)
    assert model(images).detach().numpy() == pytest.approx((x @ weight.T + bias)[:, 0], rel=1e-10)


def test_batch_norm_takes_the_batch_in_training_and_its_running_mean_in_evaluation() -> None:
    layer = HiddenLayer(3, 4, "relu", 0.0, "batch", False).double()
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight, bias = arrays(layer.linear)
    sums = x.numpy() @ weight.T + bias
    normal = (sums - sums.mean(0)) / np.sqrt(sums.var(0) + 1e-5)
    layer.train()
    assert layer(x).detach().numpy() == pytest.approx(np.maximum(normal, 0), rel=1e-9, abs=1e-12)
    running_mean = 0.1 * sums.mean(0)
    running_var = 0.9 + 0.1 * sums.var(0, ddof=1)
    layer.eval()
    expected = np.maximum((sums - running_mean) / np.sqrt(running_var + 1e-5), 0)
    assert layer(x).detach().numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_residual_is_added_only_between_equal_widths() -> None:
    assert [layer.residual for layer in layers(stack((36, 5, 5), residual=True))] == [
        True,
        False,
        True,
    ]
    assert [layer.residual for layer in layers(stack((5, 5)))] == [False, False]


def test_one_dropout_rate_serves_all_layers_and_a_list_one_each() -> None:
    def rates(dropout: float | tuple[float, ...]) -> list[float]:
        a = Architecture.from_keys("mlp", 4, (3, 3), "relu", dropout, "none", False, "kaiming")
        return [layer.dropout.rate for layer in layers(PerceptronStack(a))]

    assert rates(0.4) == [0.4, 0.4]
    assert rates((0.1, 0.5)) == [0.1, 0.5]


@pytest.mark.parametrize(
    ("init", "variance"),
    [("kaiming", 2 / 1024), ("xavier", 2 / (1024 + 300)), ("normal", 1e-4)],
)
def test_weights_start_with_the_variance_that_is_promised(init: str, variance: float) -> None:
    model = stack((300,), init=init, size_px=32, seed=3)
    weight = layers(model)[0].linear.weight.detach().double().numpy().reshape(-1)
    n = weight.size  # the variance of n normal draws has the relative error sqrt(2/n)
    assert weight.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / n))
    assert abs(weight.mean()) < 5 * math.sqrt(variance / n)
    kurtosis = (weight**4).mean() / weight.var() ** 2  # 3 for a normal distribution
    assert kurtosis == pytest.approx(3.0, abs=5 * math.sqrt(24 / n))
    assert not layers(model)[0].linear.bias.any()
    assert not model.output.bias.any()


def test_the_seed_decides_the_weights_and_the_global_random_state_stays() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = stack((4,), seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    again, other = stack((4,), seed=1).state_dict(), stack((4,), seed=2).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["output.weight"], other["output.weight"])


def test_an_architecture_survives_json() -> None:
    a = Architecture.from_keys("mlp", 8, (3, 2), "gelu", (0.1, 0.2), "layer", True, "normal")
    assert Architecture.from_dict(json.loads(json.dumps(a.to_dict()))) == a


def test_the_summary_counts_what_a_hand_counts() -> None:
    model = stack((512, 256), dropout=0.3, norm="layer", size_px=64)
    lines = summary(model, model.architecture).splitlines()
    first = 64 * 64 * 512 + 512 + 2 * 512
    second = 512 * 256 + 256 + 2 * 256
    last = 256 + 1
    counts = [line.split()[-1] for line in lines]
    assert counts == [
        "parameters",
        "0",
        f"{first:,}",
        f"{second:,}",
        f"{last:,}",
        f"{first + second + last:,}",
    ]
    assert "hidden 1: linear, layer norm, relu, dropout 0.3" in lines[2]
    assert "(B, 512)" in lines[2]
    assert "(B, 1, 64, 64)" in lines[1]


def test_the_summary_names_residual_layers() -> None:
    model = stack((5, 5), residual=True)
    lines = summary(model, model.architecture).splitlines()
    assert "residual" not in lines[2]
    assert "residual" in lines[3]


@settings(max_examples=60, deadline=None)
@given(
    hidden=st.lists(st.sampled_from([1, 5, 512, 2048, 16384]), min_size=1, max_size=12),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    dropout=st.sampled_from([0.0, 0.5, 1 / 3, 0.123456789]),
    norm=st.sampled_from(sorted(NORMS)),
    residual=st.booleans(),
    size_px=st.sampled_from([4, 64, 512, 1024]),
)
def test_the_summary_fits_80_columns_and_loses_no_word(
    hidden: list[int], activation: str, dropout: float, norm: str, residual: bool, size_px: int
) -> None:
    keys = ("mlp", size_px, hidden, activation, dropout, norm, residual, "kaiming")
    nothing_drawn = pytest.MonkeyPatch.context()
    with torch.device("meta"), nothing_drawn as patch:  # shapes without the memory
        patch.setattr("xray_classifier.model.initialise", lambda *args: None)
        model = PerceptronStack(Architecture.from_keys(*keys))
    text = summary(model, model.architecture)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.replace(",", "").split())
    assert words.count(f" {activation} ") == len(hidden)
    assert words.count("residual") == sum(layer.residual for layer in layers(model))
    assert f"{parameter_count(model):,}" in text.splitlines()[-1]
