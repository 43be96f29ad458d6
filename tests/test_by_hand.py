"""The numbers of the blackboard, against a pocket calculator, differences and autograd."""

import math

import numpy as np
import pytest

from xray_classifier.lesson.by_hand import (
    ByHand,
    Weights,
    cross_entropy,
    first_weights,
    small_phantom,
    step_by_hand,
)
from xray_classifier.lesson.by_hand_chapters import (
    backprop_chapter,
    forward_table,
    perceptron_chapter,
    perceptron_step,
    slope_table,
    stack_step,
    step_table,
)
from xray_classifier.model import Architecture, PerceptronStack

SEEDS = (0, 1, 2, 3, 4)


def test_a_perceptron_of_four_pixels_gives_what_a_calculator_gives() -> None:
    pixels = np.array([0.5, 0.25, 0.0, 1.0])
    layer = Weights(np.array([[0.2, -0.4, 0.9, 0.3]]), np.array([-0.1]))
    step = step_by_hand(pixels, 1.0, [layer], 2.0, 2)
    # 0.10 - 0.10 + 0.00 + 0.30 = 0.30; minus 0.10 is 0.20
    assert step.forward[0].sums[0] == pytest.approx(0.30)
    assert step.forward[0].logits[0] == pytest.approx(0.20)
    p = 1 / (1 + math.exp(-0.20))
    assert p == pytest.approx(0.549833997, abs=1e-9)
    assert step.forward[0].outputs[0] == pytest.approx(p)
    assert step.loss == pytest.approx(-math.log(p))
    assert step.gradients[0].weights[0] == pytest.approx([(p - 1) * x for x in (0.5, 0.25, 0, 1)])
    assert step.gradients[0].biases[0] == pytest.approx(p - 1)
    assert step.after[0].weights[0, 3] == pytest.approx(0.3 - 2.0 * (p - 1))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [perceptron_step, stack_step])
def test_every_slope_is_that_of_a_central_difference(make: object, seed: int) -> None:
    step: ByHand = make(seed)  # type: ignore[operator]
    for number, gradient in enumerate(step.gradients):
        for place, found in np.ndenumerate(gradient.weights):
            assert found == pytest.approx(difference(step, number, place), abs=1e-8)


def difference(step: ByHand, number: int, place: tuple[int, ...], h: float = 1e-5) -> float:
    """How the loss changes with one weight, by moving it a little up and down."""
    losses = []
    for sign in (1.0, -1.0):
        layers = [Weights(layer.weights.copy(), layer.biases) for layer in step.before]
        layers[number].weights[place] += sign * h
        losses.append(loss_of(step, layers))
    return (losses[0] - losses[1]) / (2 * h)


def loss_of(step: ByHand, layers: list[Weights]) -> float:
    """The loss of some weights, computed with the math module alone."""
    inputs = [float(x) for x in step.pixels]
    for layer in layers:
        sums = [
            sum(w * x for w, x in zip(row, inputs, strict=True)) + b
            for row, b in zip(layer.weights.tolist(), layer.biases.tolist(), strict=True)
        ]
        inputs = [1 / (1 + math.exp(-z)) for z in sums]
    return -math.log(inputs[0]) if step.target else -math.log(1 - inputs[0])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [perceptron_step, stack_step])
def test_autograd_agrees_to_the_last_bit_but_a_few(make: object, seed: int) -> None:
    step: ByHand = make(seed)  # type: ignore[operator]
    for one, other in zip(step.gradients, step.autograd, strict=True):
        np.testing.assert_allclose(one.weights, other.weights, rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(one.biases, other.biases, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_columns_of_the_page_read_the_same(seed: int) -> None:
    for step, count in ((perceptron_step(seed), 17), (stack_step(seed), 55)):
        table = slope_table(step, "all", None)
        assert len(table.rows) == count
        assert [row[1] for row in table.rows] == [row[2] for row in table.rows]
        assert len({row[1] for row in table.rows}) > count // 2  # they are not all the same number


@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_downhill_lowers_the_loss_as_far_as_is_said(seed: int) -> None:
    for step in (perceptron_step(seed), stack_step(seed)):
        assert step.loss == pytest.approx(loss_of(step, list(step.before)), abs=1e-12)
        assert step.loss_after == pytest.approx(loss_of(step, list(step.after)), abs=1e-12)
        assert step.loss_after < step.loss
        assert step_table(step).rows[-1][1:] == (f"{step.loss:.6f}", "", f"{step.loss_after:.6f}")


def test_a_healthy_image_is_pulled_the_other_way() -> None:
    layers = first_weights(4, (), 0)
    sick = step_by_hand(small_phantom(0, 4), 1.0, layers, 0.5, 4)
    healthy = step_by_hand(small_phantom(0, 4), 0.0, layers, 0.5, 4)
    assert sick.deltas[0][0] < 0 < healthy.deltas[0][0]
    assert healthy.deltas[0][0] - sick.deltas[0][0] == pytest.approx(1.0)
    assert cross_entropy(0.25, 0.0) == pytest.approx(-math.log(0.75))


def test_what_is_shown_is_exactly_what_is_used() -> None:
    step = perceptron_step(0)
    weights = step.before[0].weights[0]
    for values in (step.pixels, weights):
        assert [float(f"{value:.2f}") for value in values] == values.tolist()
    shown = dict(forward_table(step).rows)
    total = sum(
        float(f"{w:.2f}") * float(f"{x:.2f}") for w, x in zip(weights, step.pixels, strict=True)
    )
    assert float(shown["Weighted sum"]) == pytest.approx(total, abs=5e-10)


def test_the_weights_are_those_of_a_fresh_network() -> None:
    fresh = PerceptronStack(Architecture("mlp", 4, 1, (3,), "sigmoid", (0.0,), init="xavier"), 7)
    rounded = first_weights(4, (3,), 7)
    exact = fresh.hidden[0].linear.weight.detach().numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(rounded[0].weights, exact, atol=0.0051)
    assert rounded[1].weights.shape == (1, 3)


def test_the_words_carry_the_numbers_of_the_step() -> None:
    perceptron, stack = perceptron_step(1), stack_step(1)
    text = " ".join(perceptron_chapter(perceptron).paragraphs)
    assert f"{perceptron.loss:.4f}" in text
    assert f"{perceptron.forward[0].logits[0]:.4f}" in text
    text = " ".join(backprop_chapter(perceptron, stack).paragraphs)
    assert f"from {stack.loss:.6f} to {stack.loss_after:.6f}" in text
