"""The mixer against a forward pass written with NumPy loops, and what it must and must not see."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from builders import CPU
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor, nn
from torch.func import functional_call

from xray_classifier.mixer import (
    MixerBlock,
    PerceptronMixer,
    PerceptronPair,
    cut_patches,
    patches_per_side,
)
from xray_classifier.model import initialise, parameter_count

FLOATS = NDArray[np.float64]
FORMULAS: dict[type[nn.Module], Callable[[FLOATS], FLOATS]] = {
    nn.GELU: lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    nn.Tanh: np.tanh,
    nn.ReLU: lambda x: np.maximum(x, 0.0),
}
SHAPE: dict[str, Any] = {
    "size_px": 6,
    "patch_px": 2,
    "channels": 5,
    "blocks": 2,
    "token_units": 4,
    "channel_units": 7,
    "activation": nn.GELU,
    "dropout": 0.0,
}


def mixer(seed: int = 0, **changes: Any) -> PerceptronMixer:
    """A small mixer with random weights, biases and norms."""
    generator = torch.Generator().manual_seed(seed)

    def draw(module: nn.Module) -> None:
        initialise(module, "kaiming", generator)
        for parameter in module.parameters():
            if parameter.dim() == 1:
                nn.init.normal_(parameter, 0.5, generator=generator)

    return PerceptronMixer(**{**SHAPE, "initialise": draw, **changes})


def images(n: int, seed: int = 0, planes: int = 1, size_px: int = 6) -> Tensor:
    """Standard normal noise (n, planes, size_px, size_px) float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, planes, size_px, size_px, generator=generator)


def blocks(model: PerceptronMixer) -> list[MixerBlock]:
    """The blocks, with their type."""
    return [block for block in model.blocks if isinstance(block, MixerBlock)]


class Silence(nn.Module):
    """A dropout whose mask, 0 or 2 per hidden unit, is drawn once for the units of its layer."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def mask(self, shape: tuple[int, ...]) -> FLOATS:
        """0 or 2 for each place of (B, rows, units)."""
        return 2.0 * np.random.default_rng(self.number).integers(0, 2, shape)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.from_numpy(self.mask(tuple(x.shape))).to(x)


class Numbered:
    """Makes one `Silence` after the other and keeps the rates it was asked for."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def __call__(self, rate: float) -> Silence:
        self.rates.append(rate)
        return Silence(len(self.rates) - 1)


def by_hand(
    model: PerceptronMixer, x: FLOATS, patch_px: int, activation: type[nn.Module], masked: bool
) -> FLOATS:
    """Logits (B,) of images (B, planes, S, S), one film and one number at a time."""
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    bend = FORMULAS[activation]
    n_blocks = len(model.blocks)

    def linear(name: str, v: FLOATS) -> FLOATS:
        return np.array(
            [
                sum(a * b for a, b in zip(row, v, strict=True)) + bias
                for row, bias in zip(w[f"{name}.weight"], w[f"{name}.bias"], strict=True)
            ]
        )

    def norm(name: str, v: FLOATS) -> FLOATS:
        spread = math.sqrt(sum((v - v.mean()) ** 2) / len(v) + 1e-5)
        normal: FLOATS = (v - v.mean()) / spread * w[f"{name}.weight"] + w[f"{name}.bias"]
        return normal

    def pair(name: str, rows: FLOATS, film: int, number: int) -> FLOATS:
        hidden = np.stack([bend(linear(f"{name}.hidden", row)) for row in rows])
        if masked:
            hidden = hidden * Silence(number).mask((len(x), *hidden.shape))[film]
        return np.stack([linear(f"{name}.output", row) for row in hidden])

    logits = []
    for film, planes in enumerate(x):
        patches = [
            planes[:, top : top + patch_px, left : left + patch_px].reshape(-1)
            for top in range(0, planes.shape[1], patch_px)
            for left in range(0, planes.shape[2], patch_px)
        ]
        table = np.stack([linear("embedding", patch) for patch in patches])
        for block in range(n_blocks):
            here = f"blocks.{block}"
            normal = np.stack([norm(f"{here}.token_norm", row) for row in table])
            table = table + pair(f"{here}.token_mixing", normal.T, film, 2 * block).T
            normal = np.stack([norm(f"{here}.channel_norm", row) for row in table])
            table = table + pair(f"{here}.channel_mixing", normal, film, 2 * block + 1)
        described = np.stack([norm("norm", row) for row in table]).mean(axis=0)
        logits.append(linear("output", described)[0])
    return np.array(logits)


@pytest.mark.parametrize("activation", list(FORMULAS))
@pytest.mark.parametrize("masked", [False, True])
def test_the_forward_pass_equals_one_written_in_loops(
    activation: type[nn.Module], masked: bool
) -> None:
    extra = {"make_dropout": Numbered()} if masked else {}
    model = mixer(activation=activation, image_channels=2, **extra)
    x = images(3, planes=2)
    expected = by_hand(model, x.double().numpy(), 2, activation, masked)
    found = model(x).detach().numpy()
    assert found.shape == (3,)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    exact = model.double()(x.double()).detach().numpy()
    assert exact == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize(
    ("size_px", "patch_px", "channels", "n_blocks", "token_units", "channel_units", "planes"),
    [
        (28, 4, 96, 4, 48, 192, 1),
        (6, 6, 3, 1, 1, 2, 1),
        (8, 2, 5, 3, 7, 11, 3),
        (4, 2, 2, 0, 1, 1, 1),
    ],
)
def test_the_parameters_are_as_many_as_a_formula_says(
    size_px: int,
    patch_px: int,
    channels: int,
    n_blocks: int,
    token_units: int,
    channel_units: int,
    planes: int,
) -> None:
    model = mixer(
        size_px=size_px,
        patch_px=patch_px,
        channels=channels,
        blocks=n_blocks,
        token_units=token_units,
        channel_units=channel_units,
        image_channels=planes,
    )
    patches = (size_px // patch_px) ** 2
    embedding = (planes * patch_px**2 + 1) * channels
    over_patches = (patches + 1) * token_units + (token_units + 1) * patches
    over_channels = (channels + 1) * channel_units + (channel_units + 1) * channels
    norms = 2 * channels * (2 * n_blocks + 1)
    output = channels + 1
    expected = embedding + n_blocks * (over_patches + over_channels) + norms + output
    assert parameter_count(model) == expected


def test_patches_are_listed_row_by_row_and_lose_no_pixel() -> None:
    film = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    assert cut_patches(film, 2).tolist() == [
        [
            [0, 1, 6, 7, 24, 25, 30, 31],
            [2, 3, 8, 9, 26, 27, 32, 33],
            [4, 5, 10, 11, 28, 29, 34, 35],
            [12, 13, 18, 19, 36, 37, 42, 43],
            [14, 15, 20, 21, 38, 39, 44, 45],
            [16, 17, 22, 23, 40, 41, 46, 47],
        ]
    ]


def shuffled(film: Tensor, order: list[int], patch_px: int = 2) -> Tensor:
    """Films (B, 1, S, S) with the patch `order[i]` at place i."""
    side = film.shape[2] // patch_px
    out = torch.empty_like(film)
    for place, source in enumerate(order):
        (y, x), (v, u) = divmod(place, side), divmod(source, side)
        out[:, :, y * patch_px : (y + 1) * patch_px, x * patch_px : (x + 1) * patch_px] = film[
            :, :, v * patch_px : (v + 1) * patch_px, u * patch_px : (u + 1) * patch_px
        ]
    return out


ORDER = [4, 0, 8, 1, 7, 2, 3, 6, 5]


def test_only_the_mixing_over_patches_knows_where_a_patch_lies() -> None:
    model, x = mixer().double(), images(4).double()
    moved = shuffled(x, ORDER)
    assert not torch.allclose(model(moved), model(x), rtol=1e-3)
    with torch.no_grad():
        for block in blocks(model):
            block.token_mixing.output.weight.zero_()
            block.token_mixing.output.bias.zero_()
    assert torch.allclose(model(moved), model(x), rtol=1e-12)
    assert not torch.allclose(model(x.flip(0)), model(x), rtol=1e-3)


def test_patches_and_the_weights_that_look_at_them_may_be_renumbered_together() -> None:
    model, x = mixer().double(), images(4).double()
    expected = model(x).detach()
    with torch.no_grad():
        for block in blocks(model):
            pair = block.token_mixing
            pair.hidden.weight.copy_(pair.hidden.weight[:, ORDER].clone())
            pair.output.weight.copy_(pair.output.weight[ORDER].clone())
            pair.output.bias.copy_(pair.output.bias[ORDER].clone())
    assert not torch.allclose(model(x), expected, rtol=1e-3)
    assert torch.allclose(model(shuffled(x, ORDER)), expected, rtol=1e-12)


def test_each_mixing_keeps_to_its_own_axis() -> None:
    block = blocks(mixer())[0].double()
    x = torch.randn(1, 9, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    other = x.clone()
    other[0, 3, 2] += 1.0

    def changed(pair: PerceptronPair, transposed: bool) -> Tensor:
        """Where (patch, channel) the output moves when patch 3, channel 2 does."""
        one, two = (pair(v.transpose(1, 2) if transposed else v) for v in (x, other))
        moved = (one != two)[0]
        return moved.T if transposed else moved

    over_patches = changed(block.token_mixing, True)
    assert over_patches[:, 2].all()
    assert int(over_patches.sum()) == 9
    over_channels = changed(block.channel_mixing, False)
    assert over_channels[3].all()
    assert int(over_channels.sum()) == 5


def test_gradients_equal_finite_differences() -> None:
    small = {"size_px": 4, "channels": 3, "blocks": 2, "token_units": 2, "channel_units": 3}
    model, x = mixer(**small).double(), images(2, size_px=4).double().requires_grad_()
    names = [name for name, _ in model.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in model.parameters())

    def logits(film: Tensor, *weights: Tensor) -> Tensor:
        found: Tensor = functional_call(model, dict(zip(names, weights, strict=True)), (film,))
        return found

    assert torch.autograd.gradcheck(logits, (x, *values), eps=1e-6, atol=1e-7)


def spots(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise (n, 1, 8, 8) with a bright spot somewhere in the upper or, label 1, the lower half."""
    rng = np.random.default_rng(seed)
    films = rng.normal(0, 0.3, (n, 1, 8, 8)).astype(np.float32)
    truth = rng.integers(0, 2, n)
    rows, columns = rng.integers(0, 4, n) + 4 * truth, rng.integers(0, 8, n)
    films[np.arange(n), 0, rows, columns] += 3.0
    return torch.from_numpy(films), torch.from_numpy(truth.astype(np.float32))


def spot_accuracy(model: PerceptronMixer) -> float:
    """Share of 1000 new films judged right after 100 steps of 128 films each."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for step in range(100):
        films, truth = spots(128, step)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(films), truth).backward()
        optimizer.step()
    films, truth = spots(1000, 1000)
    return float(((model(films) > 0) == (truth > 0.5)).float().mean())


def test_it_learns_where_a_spot_lies_and_cannot_without_mixing_over_patches() -> None:
    def fresh() -> PerceptronMixer:
        generator = torch.Generator().manual_seed(0)
        return mixer(
            size_px=8,
            channels=16,
            token_units=16,
            channel_units=16,
            initialise=lambda module: initialise(module, "kaiming", generator),
        )

    blind = fresh()
    for block in blocks(blind):
        for parameter in block.token_mixing.output.parameters():
            parameter.requires_grad_(False).zero_()
    assert spot_accuracy(fresh()) > 0.95
    assert spot_accuracy(blind) < 0.58  # a coin: 0.5 with a standard error of 0.016


def test_a_film_is_judged_alike_whatever_else_is_in_its_batch() -> None:
    model = mixer()
    x = images(8)
    together = model(x)
    for row in range(8):
        others = 1e3 * images(8, seed=row + 1)
        others[row] = x[row]
        found = model(others)
        assert torch.equal(found[row], together[row])
        assert not torch.equal(found, together)
    alone = torch.cat([model(film[None]) for film in x])
    assert torch.allclose(alone, together, rtol=1e-5, atol=1e-6)
    assert model(x[:0]).shape == (0,)


def test_dropout_is_asked_for_once_per_hidden_layer_in_the_order_of_the_forward_pass() -> None:
    made = Numbered()
    model = mixer(dropout=0.3, make_dropout=made, blocks=3)
    assert made.rates == [0.3] * 6
    seen: list[tuple[int, tuple[int, ...]]] = []
    for module in model.modules():
        if isinstance(module, Silence):
            module.register_forward_pre_hook(
                lambda silence, inputs: seen.append((silence.number, tuple(inputs[0].shape)))
            )
    model(images(2))
    over_patches, over_channels = (2, 5, 4), (2, 9, 7)
    assert seen == list(enumerate([over_patches, over_channels] * 3))


def test_units_are_silenced_in_training_only() -> None:
    model, x = mixer(dropout=0.5), images(4)
    torch.manual_seed(0)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    assert torch.equal(model(x), mixer(dropout=0.0)(x))


def test_every_linear_layer_starts_as_the_initialiser_says_and_the_global_state_stays() -> None:
    def threes(module: nn.Module) -> None:
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.constant_(layer.weight, 3.0)
                nn.init.constant_(layer.bias, 4.0)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = mixer(initialise=threes)
    assert torch.equal(torch.get_rng_state(), before)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    assert len(matrices) == 1 + 2 * 4 + 1
    assert all(bool((p == 3.0).all()) for p in matrices)
    vectors = {float(p.detach().unique()) for p in model.parameters() if p.dim() == 1}
    assert vectors == {4.0, 0.0, 1.0}  # biases; shift and scale of the norms


def test_bfloat16_stays_close_to_single_precision() -> None:
    model, x = mixer(), images(16)
    with torch.autocast(CPU.type, dtype=torch.bfloat16):
        found = model(x)
    # eight bits of mantissa, some ten layers
    assert torch.allclose(found.float(), model(x), rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    ("size_px", "patch_px", "words"),
    [
        (30, 4, "use size_px 28 or 32, or a patch_px of 1, 2, 3, 5, 6, 10, 15, 30"),
        (3, 4, "use size_px 4, or a patch_px of 1, 3"),
        (7, 2, "use size_px 6 or 8, or a patch_px of 1, 7"),
    ],
)
def test_patches_that_do_not_fill_the_film_are_refused(
    size_px: int, patch_px: int, words: str
) -> None:
    with pytest.raises(ValueError, match=f"^size_px {size_px} is no multiple of .*; {words}$"):
        mixer(size_px=size_px, patch_px=patch_px)


def test_patches_that_fill_the_film_are_counted() -> None:
    assert [patches_per_side(28, side) for side in (1, 2, 4, 7, 14, 28)] == [28, 14, 7, 4, 2, 1]


@pytest.mark.parametrize("shape", [(1, 1, 3, 12), (1, 1, 8, 8), (1, 1, 4, 9), (1, 2, 6, 6)])
def test_a_film_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError):
        mixer()(torch.zeros(shape))
