"""The two chapters in which every number is written out: a perceptron, and a tiny stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xray_classifier.lesson.by_hand import first_weights, small_phantom, step_by_hand
from xray_classifier.report import formulas
from xray_classifier.report.canvas import as_png
from xray_classifier.report.mathml import inline, slope, sub
from xray_classifier.report.number_grid import NumberGrid, grids_figure
from xray_classifier.report.page import ReportFigure, ReportTable
from xray_classifier.report.tour_page import Chapter

if TYPE_CHECKING:
    from markupsafe import Markup

    from xray_classifier.lesson.by_hand import ByHand, Weights

SIZE_PX = 4
UNITS = 3
LR = 0.5
DIGITS = 9
"""Decimals of a number that is compared; both columns of a row agree in all of them."""

BACKPROP = "Rumelhart, Hinton & Williams 1986, doi:10.1038/323533a0"

draw_grids = as_png(grids_figure)


def perceptron_step(seed: int) -> ByHand:
    """One step of a lone perceptron on a sick phantom of 4 x 4 pixels."""
    return _step(seed, ())


def stack_step(seed: int) -> ByHand:
    """One step of a stack 16-3-1 on the same image."""
    return _step(seed, (UNITS,))


def _step(seed: int, hidden: tuple[int, ...]) -> ByHand:
    pixels = small_phantom(seed, SIZE_PX)
    layers = first_weights(SIZE_PX, hidden, seed)
    return step_by_hand(pixels, 1.0, layers, LR, SIZE_PX)


def perceptron_chapter(step: ByHand) -> Chapter:
    """The weighted sum, the bias, the output and the loss of one perceptron."""
    unit, weights = step.forward[0], step.before[0]
    p = float(unit.outputs[0])
    return Chapter(
        name="perceptron-by-hand",
        title="One perceptron, by hand",
        paragraphs=(
            f"A perceptron is a weighted sum. Here is a sick film shrunk to {SIZE_PX} by {SIZE_PX} "
            "pixels (0 is black, 1 is white), and a perceptron that has learnt nothing yet: one "
            "weight for each pixel, drawn at random. Multiply each pixel by its weight and add up.",
            f"The sum is {unit.sums[0]:.4f}, the bias adds {weights.biases[0]:.2f}, and the "
            f"sigmoid turns the logit {unit.logits[0]:.4f} into the answer {p:.4f}: the film would "
            f"be sick with {100 * p:.0f} % probability. The truth is 1, so the loss is "
            f"{step.loss:.4f}; pixels and weights have two decimals here, so a pocket calculator "
            "gives the same.",
        ),
        figures=(_products_figure(step),),
        formulas=(formulas.weighted_sum(), formulas.sigmoid(), formulas.cross_entropy()),
        tables=(forward_table(step),),
        keys=("model.type: perceptron", "model.init", "data.image.size"),
        sources=(
            "McCulloch & Pitts 1943, doi:10.1007/BF02478259",
            "Rosenblatt 1958, doi:10.1037/h0042519",
            "Cox 1958, logistic regression, doi:10.1111/j.2517-6161.1958.tb00292.x",
        ),
        asides=(
            "Rosenblatt's perceptron of 1958 answered with a step, sick or not, and learnt by a "
            "rule of its own. The unit here answers with a smooth sigmoid, so that its loss has a "
            "slope to follow; statisticians know exactly this as logistic regression.",
        ),
    )


def backprop_chapter(perceptron: ByHand, step: ByHand) -> Chapter:
    """The chain rule, once for a perceptron and once through a hidden layer."""
    whole = slope_table(step, "All slopes of the stack", None)
    n, agreeing = len(whole.rows), sum(by_hand == auto for _, by_hand, auto in whole.rows)
    return Chapter(
        name="backpropagation-by-hand",
        title="Backpropagation, by hand",
        paragraphs=(
            "How should each weight move? The chain rule answers by multiplying slopes, from the "
            "loss back to the weight. For the perceptron that comes to one multiplication: the "
            f"error p - y = {perceptron.deltas[0][0]:.4f} times the pixel.",
            f"In a stack of {UNITS} hidden perceptrons and one output ({SIZE_PX**2}-{UNITS}-1) the "
            "error first goes back through the output's weights, and each hidden unit, a sigmoid "
            "like the output, gets its share. Nothing else happens in networks of any depth, which "
            "is why it is called backpropagation.",
            "Beside each slope stands what PyTorch's autograd found for the same network: "
            f"{agreeing} of {n} agree to the last of {DIGITS} decimals. After one step with "
            f"learning rate {step.lr:g} the loss of the stack falls from {step.loss:.6f} to "
            f"{step.loss_after:.6f}.",
        ),
        formulas=(
            formulas.chain_rule(),
            formulas.hidden_slope(),
            formulas.hidden_weight_slope(),
            formulas.gradient_step(),
        ),
        tables=(
            slope_table(perceptron, "The perceptron: some of its slopes", 5),
            slope_table(step, "The stack: some of its slopes", 5),
            step_table(step),
        ),
        folded=(
            slope_table(perceptron, "All slopes of the perceptron", None),
            whole,
            forward_table(step, 0),
        ),
        keys=("train.optimizer.lr", "model.hidden", "model.activation"),
        sources=(BACKPROP,),
    )


def _products_figure(step: ByHand) -> ReportFigure:
    """Image, weights and products as squares of numbers."""
    side = (SIZE_PX, SIZE_PX)
    pixels = step.pixels.reshape(side)
    weights = step.before[0].weights[0].reshape(side)
    unit = step.forward[0]
    png = draw_grids(
        [
            NumberGrid("Pixels x", pixels, True, "\u00d7"),
            NumberGrid("Weights w", weights, False, "="),
            NumberGrid("Products x · w", pixels * weights, False),
        ],
        title="Pixel by pixel",
        subtitle=f"The products add up to {unit.sums[0]:.4f}. With the bias "
        f"{step.before[0].biases[0]:.2f} the logit is {unit.logits[0]:.4f}.\n"
        "Blue is negative, vermillion positive.",
    )
    return ReportFigure(
        "Every pixel times its weight",
        png,
        "Three squares of numbers: the pixels of a small film, the weights of a perceptron, and "
        f"their products, which add up to {unit.sums[0]:.4f}.",
    )


def forward_table(step: ByHand, layer: int = -1) -> ReportTable:
    """What the units of a layer do with the image, as numbers."""
    activity, weights = step.forward[layer], step.before[layer]
    rows: list[tuple[str, ...]] = []
    several = len(activity.sums) > 1
    for unit, total in enumerate(activity.sums):
        of = f" of hidden unit {unit + 1}" if several else ""
        rows += [
            (f"Weighted sum{of}", f"{total:.{DIGITS}f}"),
            (f"Bias{of}", f"{weights.biases[unit]:.{DIGITS}f}"),
            (f"Logit z{of} (sum plus bias)", f"{activity.logits[unit]:.{DIGITS}f}"),
            (f"Output{of} (sigmoid of z)", f"{activity.outputs[unit]:.{DIGITS}f}"),
        ]
    if not several:
        rows += [("Truth y", f"{step.target:g}"), ("Loss", f"{step.loss:.{DIGITS}f}")]
    title = "The hidden units on this image" if several else "From the pixels to the loss"
    return ReportTable(title, ("Quantity", "Value"), tuple(rows))


def slope_table(step: ByHand, title: str, most: int | None) -> ReportTable:
    """Slopes of the loss by the chain rule, next to those of autograd.

    Args:
        step: What to show.
        title: Heading.
        most: Rows of each layer, the largest slopes first; None shows all in order.
    """
    rows: list[tuple[str, ...]] = []
    for number in reversed(range(len(step.before))):
        of_layer = _layer_rows(step.gradients[number], step.autograd[number], step, number)
        if most is not None:
            of_layer = sorted(of_layer, key=lambda found: -abs(float(found[1])))[:most]
        rows += of_layer
    return ReportTable(title, ("Slope with", "By hand", "Autograd"), tuple(rows))


def _layer_rows(
    by_hand: Weights, autograd: Weights, step: ByHand, number: int
) -> list[tuple[str, ...]]:
    """One row for each weight and bias of a layer."""
    lone = len(step.before) == 1
    output = number == len(step.before) - 1
    rows = []
    for unit in range(len(by_hand.biases)):
        for place in range(by_hand.weights.shape[1]):
            if output and not lone:
                name = _named(sub("v", str(place + 1)), "from unit", place + 1)
            else:
                index = str(place + 1) if lone else f"{unit + 1} , {place + 1}"
                name = _named(sub("w", index), "pixel", place + 1)
            values = (by_hand.weights[unit, place], autograd.weights[unit, place])
            rows.append((name, *map(_digits, values)))
        bias = sub("b", str(unit + 1)) if not output else inline("c" if not lone else "b")
        name = _named(bias, "bias", None)
        values = (by_hand.biases[unit], autograd.biases[unit])
        rows.append((name, *map(_digits, values)))
    return rows


def _digits(value: float) -> str:
    """The decimals that are compared; a zero has no sign."""
    text = f"{value:.{DIGITS}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _named(symbol: Markup, what: str, number: int | None) -> Markup:
    """A symbol and what it is, in words."""
    from markupsafe import escape

    tail = "" if number is None else f" {number}"
    return inline(symbol) + escape(f" {what}{tail}")


def step_table(step: ByHand) -> ReportTable:
    """The loss before and after one step, and three weights on their way."""
    old, new, gradient = step.before[-1], step.after[-1], step.gradients[-1]
    rows: list[tuple[str, ...]] = [
        (
            inline(sub("v", str(place + 1))),
            f"{old.weights[0, place]:.6f}",
            f"{gradient.weights[0, place]:.6f}",
            f"{new.weights[0, place]:.6f}",
        )
        for place in range(old.weights.shape[1])
    ]
    rows.append(("Loss", f"{step.loss:.6f}", "", f"{step.loss_after:.6f}"))
    slope_name = inline(slope("L", "v"))
    return ReportTable(
        f"One step of the output weights with learning rate {step.lr:g}",
        ("Weight", "Before", slope_name, "After"),
        tuple(rows),
    )
