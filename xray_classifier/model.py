"""Perceptrons, alone and stacked: from an image to one number, the logit of "sick".

A perceptron weighs every pixel, adds a bias and says how sick the image looks. A stack feeds the
answers of one layer of perceptrons to the next, with a bent line (the activation) between them, for
without it the whole stack would be one perceptron again.

Source: Rosenblatt 1958, doi:10.1037/h0042519, with a step where this one has the smooth sigmoid in
its loss; the stack is trained by backpropagation, Rumelhart et al. 1986, doi:10.1038/323533a0.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xray_classifier.counter import at_least, folded
from xray_classifier.dense import Dense
from xray_classifier.mixer import PerceptronMixer

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "selu": nn.SELU,
}
NORMS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "layer": nn.LayerNorm,
    "batch": nn.BatchNorm1d,
}
SUMMARY_COLUMNS = 80


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build the same network again; stored in the checkpoint.

    `size_px` and `channels` describe the input (B, channels, size_px, size_px). `hidden` is empty
    for a perceptron and a mixer. `dropout` has one rate per hidden layer; one for a mixer. What
    follows `init` is 0 but for a mixer.
    """

    type: str
    size_px: int
    channels: int = 1
    hidden: tuple[int, ...] = ()
    activation: str = "relu"
    dropout: tuple[float, ...] = ()
    norm: str = "none"
    residual: bool = False
    init: str = "kaiming"
    patch_px: int = 0
    patch_channels: int = 0
    blocks: int = 0
    token_units: int = 0
    channel_units: int = 0

    @classmethod
    def from_keys(
        cls,
        type: str,
        size_px: int,
        hidden: Sequence[int],
        activation: str,
        dropout: float | Sequence[float],
        norm: str,
        residual: bool,
        init: str,
        mixer: Mapping[str, int] | None = None,
    ) -> "Architecture":
        """Spread the config's short forms: one dropout rate for all layers, no layers at all.

        `mixer` holds patch_px, channels, blocks, token_units and channel_units, for a mixer only.
        """
        if type == "perceptron":
            return cls(type=type, size_px=size_px, init=init)
        if type == "mixer" and mixer is not None and not isinstance(dropout, Sequence):
            return cls(
                type=type,
                size_px=size_px,
                activation=activation,
                dropout=(dropout,),
                init=init,
                patch_px=mixer["patch_px"],
                patch_channels=mixer["channels"],
                blocks=mixer["blocks"],
                token_units=mixer["token_units"],
                channel_units=mixer["channel_units"],
            )
        rates = dropout if isinstance(dropout, Sequence) else (dropout,) * len(hidden)
        return cls(type, size_px, 1, tuple(hidden), activation, tuple(rates), norm, residual, init)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Architecture":
        """Read back `to_dict`."""
        lists = {key: tuple(value) for key, value in stored.items() if isinstance(value, list)}
        return cls(**{**stored, **lists})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class Dropout(nn.Module):
    """Silence units at random while training; those that stay are scaled up to make up for it.

    Which units, is a function of a seed and of the place of the image in the batch, see `place`. So
    it does not matter whether a batch goes through the network at once, in parts, or on several
    machines.

    Args:
        rate: Chance in [0, 1) that a unit is silenced.

    Source:
        Srivastava et al. 2014, JMLR 15:1929.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        # a tensor, for a compiled network would be compiled anew for each new number
        self.seed: Tensor
        self.register_buffer("seed", torch.zeros((), dtype=torch.int32), persistent=False)
        self.rows: Tensor | None = None

    def place(self, seed: int, rows: Tensor) -> None:
        """Say what the next images are.

        Args:
            seed: Of this layer and step.
            rows: Places of the images in the whole batch, (b,), on the device.
        """
        self.seed.fill_(folded(seed))
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, ...) to the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        rows = torch.arange(len(x), device=x.device) if self.rows is None else self.rows
        units = torch.arange(x[:1].numel(), device=x.device).view(1, *x.shape[1:])
        kept = at_least(self.rate, self.seed, rows.view(-1, *[1] * (x.ndim - 1)), units)
        return x * (kept * (1.0 / (1.0 - self.rate))).to(x.dtype)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"rate={self.rate:g}"


def place_dropout(model: nn.Module, seed: int, rows: Tensor) -> None:
    """Tell every dropout layer of a model what the next images are.

    Args:
        model: Any; its layers are numbered in order.
        seed: Of this step.
        rows: Places of the images in the whole batch, (b,), on the device.
    """
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    for number, layer in enumerate(layers):
        layer.place(seed + number, rows)


class HiddenLayer(nn.Module):
    """One layer of perceptrons: weighted sums, normalisation, activation, dropout.

    Args:
        inputs: Features coming in.
        units: Perceptrons in the layer.
        activation: A key of `ACTIVATIONS`.
        dropout: Chance in [0, 1) that a unit is silenced in a training step.
        norm: A key of `NORMS`.
        residual: Add the input to the output, where `inputs == units`.
    """

    def __init__(
        self, inputs: int, units: int, activation: str, dropout: float, norm: str, residual: bool
    ) -> None:
        super().__init__()
        self.linear = Dense(inputs, units)
        self.norm = nn.Identity() if norm == "none" else NORMS[norm](units)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = Dropout(dropout)
        self.residual = residual and inputs == units

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, inputs) to features (B, units)."""
        out: Tensor = self.dropout(self.activation(self.norm(self.linear(x))))
        return x + out if self.residual else out


class PerceptronStack(nn.Module):
    """Hidden layers of perceptrons and one output perceptron; none hidden is a lone perceptron.

    Args:
        architecture: Shapes and choices.
        seed: Seed of the initial weights; the global random state is neither read nor changed.
    """

    def __init__(self, architecture: Architecture, seed: int = 0) -> None:
        super().__init__()
        self.architecture = a = architecture
        widths = (a.channels * a.size_px**2, *a.hidden)
        with torch.random.fork_rng(devices=[]):
            self.hidden = nn.Sequential(
                *(
                    HiddenLayer(inputs, units, a.activation, rate, a.norm, a.residual)
                    for inputs, units, rate in zip(widths, a.hidden, a.dropout, strict=False)
                )
            )
            self.output = nn.Linear(widths[-1], 1)
        initialise(self, a.init, torch.Generator().manual_seed(seed))

    def forward(self, images: Tensor) -> Tensor:
        """Map standardised images (B, C, S, S) to logits (B,); above 0 leans towards sick."""
        logits: Tensor = self.output(self.hidden(images.flatten(1)))
        return logits.squeeze(1)


Network = PerceptronStack | PerceptronMixer


def build_network(architecture: Architecture, seed: int = 0) -> Network:
    """The network that an architecture describes, with fresh weights.

    Args:
        architecture: Shapes and choices.
        seed: Seed of the initial weights; the global random state is neither read nor changed.

    Raises:
        ValueError: The patches of a mixer do not fill its images.
    """
    a = architecture
    if a.type != "mixer":
        return PerceptronStack(a, seed)
    generator = torch.Generator().manual_seed(seed)
    return PerceptronMixer(
        size_px=a.size_px,
        patch_px=a.patch_px,
        channels=a.patch_channels,
        blocks=a.blocks,
        token_units=a.token_units,
        channel_units=a.channel_units,
        activation=ACTIVATIONS[a.activation],
        dropout=a.dropout[0],
        initialise=lambda module: initialise(module, a.init, generator),
        image_channels=a.channels,
        make_dropout=Dropout,
    )


def initialise(model: nn.Module, init: str, generator: torch.Generator) -> None:
    """Draw the weights of every linear layer anew; biases start at zero.

    Args:
        model: Changed in place.
        init: kaiming, xavier or normal: a normal distribution with variance 2/fan_in,
            2/(fan_in+fan_out) or 0.0001; zero: all weights 0, which no stack recovers from.
        generator: Source of randomness, on the CPU.

    Source:
        He et al. 2015, doi:10.1109/ICCV.2015.123; Glorot & Bengio 2010, AISTATS 9:249.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            variance = {
                "kaiming": 2.0 / layer.in_features,
                "xavier": 2.0 / (layer.in_features + layer.out_features),
                "normal": 1e-4,
                "zero": 0.0,
            }[init]
            nn.init.normal_(layer.weight, std=math.sqrt(variance), generator=generator)
            nn.init.zeros_(layer.bias)


def parameter_count(model: nn.Module) -> int:
    """Number of weights and biases that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def summary(model: nn.Module, architecture: Architecture) -> str:
    """A table of layers, output shapes and parameters, as printed before training.

    Args:
        model: The network.
        architecture: What it was built from.
    """
    a = architecture
    rows = [("image", f"(B, {a.channels}, {a.size_px}, {a.size_px})", 0)]
    if isinstance(model, PerceptronMixer):
        rows += _mixer_rows(model, a)
    elif isinstance(model, PerceptronStack):
        for number, layer in enumerate(model.hidden, start=1):
            name = f"hidden {number}: {_layer_words(a, number - 1)}"
            rows.append((name, f"(B, {a.hidden[number - 1]})", parameter_count(layer)))
        rows.append(("output: linear", "(B,)", parameter_count(model.output)))
    total = f"{parameter_count(model):,}"
    shape_width = max(15, *(len(shape) for _, shape, _ in rows))
    name_width = SUMMARY_COLUMNS - shape_width - max(11, len(total)) - 4
    lines = [_summary_line("layer", "output", "parameters", name_width, shape_width)]
    lines += [_summary_line(name, s, f"{n:,}", name_width, shape_width) for name, s, n in rows]
    lines.append(_summary_line("total", "", total, name_width, shape_width))
    return "\n".join(lines)


def _mixer_rows(model: PerceptronMixer, a: Architecture) -> list[tuple[str, str, int]]:
    shape = f"(B, {model.patches}, {a.patch_channels})"
    drop = f", dropout {a.dropout[0]:g}" if a.dropout[0] else ""
    words = f"patches: {a.token_units}, channels: {a.channel_units}, {a.activation}{drop}"
    return [
        (f"patches of {a.patch_px} px: linear", shape, parameter_count(model.embedding)),
        *(
            (f"mixer {number}: perceptrons over {words}", shape, parameter_count(block))
            for number, block in enumerate(model.blocks, start=1)
        ),
        ("output: norm, mean, linear", "(B,)", parameter_count(model.norm) + a.patch_channels + 1),
    ]


def _summary_line(name: str, shape: str, count: str, name_width: int, shape_width: int) -> str:
    """One row; a name that is too long goes on in the next line."""
    first, *rest = textwrap.wrap(name, name_width, subsequent_indent="    ")
    count_width = SUMMARY_COLUMNS - name_width - shape_width - 4
    head = f"  {first:<{name_width}} {shape:>{shape_width}} {count:>{count_width}}"
    return "\n".join([head, *(f"  {line}" for line in rest)])


def _layer_words(a: Architecture, index: int) -> str:
    words = ["linear"]
    if a.norm != "none":
        words.append(f"{a.norm} norm")
    words.append(a.activation)
    if a.dropout[index] > 0:
        words.append(f"dropout {a.dropout[index]:g}")
    widths = (a.channels * a.size_px**2, *a.hidden)
    if a.residual and widths[index] == widths[index + 1]:
        words.append("residual")
    return ", ".join(words)
