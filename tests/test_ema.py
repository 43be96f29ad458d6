"""The moving average of weights against its closed form, and that it gives the live ones back."""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import films, labels, same_weights, stack, weights_of
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from xray_classifier.checkpoint import load_checkpoint, save_checkpoint
from xray_classifier.ema import Ema, decay_at
from xray_classifier.model import PerceptronStack

FAR = 10**9  # a step at which every decay's warm-up is long over


class Scalar(nn.Module):
    """A model of one number, a buffer of the same value and a count."""

    value: Tensor
    statistic: Tensor
    count: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=torch.float64))
        self.register_buffer("statistic", torch.tensor(value, dtype=torch.float32))
        self.register_buffer("count", torch.tensor(0))

    def set(self, value: float) -> None:
        """Move the number and its statistic; count."""
        self.value.detach().fill_(value)
        self.statistic.fill_(value)
        self.count += 1


def average(start: float, values: Sequence[float], decay: float, first_step: int) -> Ema:
    """The moving average after a sequence of values."""
    model = Scalar(start)
    ema = Ema(model, decay)
    for step, value in enumerate(values, start=first_step):
        model.set(value)
        ema.update(model, step)
    return ema


@pytest.mark.parametrize(
    ("decay", "step", "expected"),
    [
        (0.999, 0, 1 / 10),
        (0.999, 1, 2 / 11),
        (0.999, 8, 0.5),
        (0.999, 8989, 8990 / 8999),
        (0.999, 8991, 0.999),
        (0.99, 889, 890 / 899),
        (0.99, 891, 0.99),
        (0.5, 8, 0.5),
        (0.5, 9, 0.5),
        (0.05, 0, 0.05),
        (0.0, 0, 0.0),
    ],
)
def test_the_decay_warms_up_to_its_limit(decay: float, step: int, expected: float) -> None:
    assert decay_at(decay, step) == expected


@given(st.integers(1, 200))
def test_during_the_warm_up_the_start_weighs_one_in_n_plus_9_choose_9(n: int) -> None:
    # the product of (1 + i) / (10 + i) over i < n is n! 9! / (n + 9)!
    ema = average(1.0, [0.0] * n, decay=0.9999, first_step=0)
    assert float(ema.shadow["value"]) == pytest.approx(1 / math.comb(n + 9, 9), rel=1e-12)


@given(
    st.floats(-1e3, 1e3),
    st.lists(st.floats(-1e3, 1e3), max_size=30),
    st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.999]),
)
def test_after_the_warm_up_old_values_fade_by_powers_of_the_decay(
    start: float, values: list[float], decay: float
) -> None:
    n = len(values)
    recent = sum((1 - decay) * decay ** (n - 1 - i) * value for i, value in enumerate(values))
    ema = average(start, values, decay, first_step=FAR)
    expected = decay**n * start + recent
    assert float(ema.shadow["value"]) == pytest.approx(expected, rel=1e-12, abs=1e-9)
    assert float(ema.shadow["statistic"]) == pytest.approx(expected, rel=1e-5, abs=1e-3)
    assert int(ema.shadow["count"]) == n


def test_a_warm_up_that_ends_on_the_way_equals_the_sum_of_products() -> None:
    values = [int(v) for v in np.random.default_rng(0).integers(-9, 10, 60)]
    decay, start = Fraction(7, 8), 5  # the warm-up ends at step 62
    shares = [min(decay, Fraction(1 + s, 10 + s)) for s in range(40, 100)]
    assert shares[0] < decay == shares[-1]
    expected = start * math.prod(shares)
    for i, value in enumerate(values):
        expected += (1 - shares[i]) * math.prod(shares[i + 1 :]) * value
    ema = average(start, values, float(decay), first_step=40)
    assert float(ema.shadow["value"]) == pytest.approx(float(expected), rel=1e-13)


def fit(model: PerceptronStack, ema: Ema | None, steps: Sequence[int]) -> None:
    """Steps of gradient descent, each on images of its own."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in steps:
        x = torch.from_numpy(films(8, seed=step)).float()[:, None] / 255
        y = torch.from_numpy(labels(8, seed=step)).float()
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()
        optimizer.step()
        if ema is not None:
            ema.update(model, step)


def test_a_new_average_is_the_weights_themselves_but_no_part_of_them() -> None:
    model = stack((5,), norm="batch")
    ema = Ema(model, 0.99)
    before = weights_of(model)
    assert same_weights(ema.state_dict(), before)
    assert not any(tensor.requires_grad for tensor in ema.state_dict().values())
    fit(model, None, range(3))
    assert same_weights(ema.state_dict(), before)
    assert not same_weights(weights_of(model), before)


def test_weights_and_running_statistics_are_averaged_and_counts_copied() -> None:
    model = stack((5,), norm="batch")
    ema = Ema(model, 0.7)
    expected = {name: t.double().numpy() for name, t in weights_of(model).items()}
    for step in range(12):
        fit(model, ema, [step])
        d = min(0.7, (1 + step) / (10 + step))
        for name, tensor in weights_of(model).items():
            expected[name] = d * expected[name] + (1 - d) * tensor.double().numpy()
    count = "hidden.0.norm.num_batches_tracked"
    assert int(ema.shadow[count]) == 12
    assert ema.shadow[count].dtype == torch.int64
    averaged = ema.shadow.keys() - {count}
    assert {"hidden.0.norm.running_mean", "hidden.0.norm.running_var"} <= averaged
    for name in averaged:
        assert ema.shadow[name].numpy() == pytest.approx(expected[name], rel=1e-5, abs=1e-6)
        assert not torch.equal(ema.shadow[name], weights_of(model)[name])


def test_a_weight_that_never_moves_keeps_its_last_bit() -> None:
    model = stack((5,))
    ema = Ema(model, 0.999)
    for step in (*range(200), FAR):
        ema.update(model, step)
    assert same_weights(ema.state_dict(), weights_of(model))


def test_averaging_leaves_training_as_it_is() -> None:
    watched, plain = stack((5,), norm="batch"), stack((5,), norm="batch")
    fit(watched, Ema(watched, 0.9), range(6))
    fit(plain, None, range(6))
    assert same_weights(weights_of(watched), weights_of(plain))


def bits(model: nn.Module) -> dict[str, bytes]:
    """Every weight and buffer as it lies in memory."""
    return {name: tensor.numpy().tobytes() for name, tensor in weights_of(model).items()}


def test_the_model_judges_with_the_average_and_gets_its_own_weights_back() -> None:
    model = stack((5,), norm="batch")
    ema = Ema(model, 0.9)
    fit(model, ema, range(6))
    with torch.no_grad():  # equal as numbers, not as bits
        model.output.bias.copy_(torch.tensor([-0.0]))
        model.hidden[0].linear.bias[:3] = torch.tensor([math.nan, math.inf, 1e-45])
    live, average = bits(model), weights_of_average(ema)
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    with ema.averaged(model):
        assert same_weights(weights_of(model), average)
        x = torch.from_numpy(films(4)).float()[:, None]
        other = stack((5,), norm="batch", seed=1)
        other.load_state_dict(average)
        assert torch.equal(model.eval()(x), other.eval()(x))
    assert bits(model) == live
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == places
    assert same_weights(ema.state_dict(), average)


def weights_of_average(ema: Ema) -> dict[str, Tensor]:
    """A copy of the averages by name."""
    return {name: tensor.clone() for name, tensor in ema.state_dict().items()}


def test_an_exception_or_training_inside_the_block_changes_nothing() -> None:
    model = stack((5,), norm="batch")
    ema = Ema(model, 0.9)
    fit(model, ema, range(4))
    live, average = bits(model), weights_of_average(ema)

    def interrupted() -> None:
        with ema.averaged(model):
            fit(model, None, range(2))
            assert not same_weights(weights_of(model), average)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert bits(model) == live
    assert same_weights(ema.state_dict(), average)


def test_training_goes_on_after_the_block_as_if_there_had_been_none() -> None:
    looked_at, plain = stack((5,), norm="batch"), stack((5,), norm="batch")
    averages = [Ema(model, 0.9) for model in (looked_at, plain)]
    for step in range(6):
        for model, ema in zip((looked_at, plain), averages, strict=True):
            fit(model, ema, [step])
        with averages[0].averaged(looked_at):
            pass
    assert bits(looked_at) == bits(plain)
    assert same_weights(averages[0].state_dict(), averages[1].state_dict())


@pytest.mark.parametrize("stopped_at", [0, 1, 7, 11])
def test_a_run_that_was_stopped_ends_with_the_average_of_the_unbroken_one(
    stopped_at: int, tmp_path: Path
) -> None:
    unbroken = stack((5,), norm="batch")
    expected = Ema(unbroken, 0.5)
    fit(unbroken, expected, range(12))

    model = stack((5,), norm="batch")
    ema = Ema(model, 0.5)
    fit(model, ema, range(stopped_at))
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    tensors |= {f"ema.{name}": t for name, t in ema.state_dict().items()}
    save_checkpoint(tmp_path / "last.safetensors", tensors, {})
    stored = load_checkpoint(tmp_path / "last.safetensors").tensors

    def part(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in stored.items() if n.startswith(prefix)}

    again = stack((5,), norm="batch", seed=9)
    resumed = Ema(again, 0.5)
    again.load_state_dict(part("model."))
    resumed.load_state_dict(part("ema."))
    fit(again, resumed, range(stopped_at, 12))
    assert same_weights(resumed.state_dict(), expected.state_dict())
    assert same_weights(weights_of(again), weights_of(unbroken))


def test_the_stored_average_is_copied_in() -> None:
    model = stack((5,))
    ema = Ema(model, 0.9)
    stored = {name: tensor + 1 for name, tensor in weights_of(model).items()}
    kept = {name: tensor.clone() for name, tensor in stored.items()}
    ema.load_state_dict(stored)
    assert same_weights(ema.state_dict(), kept)
    ema.update(model, 0)
    assert same_weights(stored, kept)


def test_an_average_of_other_weights_is_refused_and_changes_nothing() -> None:
    model = stack((5,))
    ema = Ema(model, 0.9)
    before = weights_of_average(ema)
    own = {name: tensor + 1 for name, tensor in before.items()}
    lacking = {name: tensor for name, tensor in own.items() if name != "output.bias"}
    wrong = [
        (lacking, r"not of these weights: output\.bias$"),
        (own | {"odd": torch.zeros(1)}, "not of these weights: odd$"),
        (own | {"output.bias": torch.zeros(2)}, r"shapes or types: output\.bias$"),
        (own | {"output.bias": own["output.bias"].double()}, r"shapes or types: output\.bias$"),
    ]
    for stored, words in wrong:
        with pytest.raises(ValueError, match=words):
            ema.load_state_dict(stored)
    for other in (stack((5,), norm="batch"), stack()):
        with pytest.raises(ValueError, match="not of these weights"):
            ema.update(other, 0)
        with pytest.raises(ValueError, match="not of these weights"), ema.averaged(other):
            pass
    assert same_weights(ema.state_dict(), before)


@pytest.mark.parametrize("decay", [1.0, -0.1, 1.5, math.nan])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        Ema(Scalar(0.0), decay)
