"""The formulas of the lesson, each with one sentence that says the same."""

from __future__ import annotations

from xray_classifier.report.mathml import (
    formula,
    fraction,
    power,
    root,
    row,
    slope,
    sub,
    total,
    words,
)
from xray_classifier.report.tour_page import Formula


def attenuation() -> Formula:
    """How a film gets its grey."""
    return Formula(
        formula("I", "=", sub("I", "0"), power("e", row("-", "integral", "mu", words(" ds")))),
        "Of the rays I0 that leave the tube, I reach the film: each centimetre of tissue takes its "
        "share mu (Beer and Lambert).",
    )


def adam() -> Formula:
    """The step of Adam, its corrections for the first steps left out."""
    return Formula(
        formula("w", "<-", "w", "-", "eta", fraction("m", row(root("v"), "+", "epsilon"))),
        "Adam divides the running mean m of a weight's slopes by the root of the running mean v of "
        "their squares, so that steep and flat directions get steps of similar size.",
    )


def auroc() -> Formula:
    """What the area under the ROC curve means."""
    pair = row(sub("z", words("sick")), ">", sub("z", words("healthy")))
    tie = row(sub("z", words("sick")), "=", sub("z", words("healthy")))
    return Formula(
        formula(words("AUROC"), "=", "P", "(", pair, ")", "+", "half", "P", "(", tie, ")"),
        "The AUROC is the chance that a random sick film gets a larger logit than a random healthy "
        "one, a tie counting one half.",
    )


def weighted_sum() -> Formula:
    """What a perceptron adds up."""
    return Formula(
        formula("z", "=", total("i"), sub("w", "i"), sub("x", "i"), "+", "b"),
        "The logit z is the sum of every pixel x times its weight w, plus the bias b.",
    )


def sigmoid() -> Formula:
    """How a logit becomes a probability."""
    below = row("1", "+", power("e", row("-", "z")))
    return Formula(
        formula("p", "=", "sigma", row("(", "z", ")"), "=", fraction("1", below)),
        "The sigmoid bends any number z into a probability p between 0 and 1.",
    )


def cross_entropy() -> Formula:
    """The loss of one image."""
    return Formula(
        formula(
            *("L", "=", "-", "y", words("ln"), "p", "-", "(", "1", "-", "y", ")"),
            *(words("ln"), "(", "1", "-", "p", ")"),
        ),
        "The loss L is minus the logarithm of the probability that was given to the truth: y is 1 "
        "for a sick image and 0 for a healthy one.",
    )


def gradient_step() -> Formula:
    """One step downhill."""
    return Formula(
        formula("w", "<-", "w", "-", "eta", slope("L", "w")),
        "Each weight w moves against the slope of the loss; the learning rate eta says how far.",
    )


def batch_gradient() -> Formula:
    """The gradient of a mini-batch."""
    share = fraction("1", "B")
    return Formula(
        formula(
            slope("L", "w"), "~=", share, total(row("n", "in", words("batch"))),
            slope(sub("L", "n"), "w"),
        ),
        "The slope over B images stands in for the slope over all of them: cheaper, and a little "
        "noisy.",
    )  # fmt: skip


def chain_rule() -> Formula:
    """The slope with one weight of a lone perceptron."""
    return Formula(
        formula(
            slope("L", sub("w", "i")), "=", slope("L", "p"), "*", slope("p", "z"), "*",
            slope("z", sub("w", "i")), "=", "(", "p", "-", "y", ")", sub("x", "i"),
        ),
        "How the loss changes with a weight is how it changes with the output, times how the "
        "output changes with the sum, times how the sum changes with the weight: the error p - y "
        "times the pixel.",
    )  # fmt: skip


def hidden_slope() -> Formula:
    """The slope with the sum of one hidden unit."""
    return Formula(
        formula(
            slope("L", sub("z", "j")), "=", "(", "p", "-", "y", ")", "*", sub("v", "j"), "*",
            sub("a", "j"), "(", "1", "-", sub("a", "j"), ")",
        ),
        "A hidden unit j with output a gets its share of the error through the weight v by which "
        "the output unit listens to it, times the slope a (1 - a) of its own sigmoid.",
    )  # fmt: skip


def hidden_weight_slope() -> Formula:
    """The slope with one weight of a hidden unit."""
    return Formula(
        formula(
            slope("L", sub("w", row("j", "i"))), "=", slope("L", sub("z", "j")), "*", sub("x", "i")
        ),
        "The slope with weight i of unit j is the share of the error of that unit times the pixel.",
    )


def least_squares() -> Formula:
    """The lowest point of the bowl."""
    gram = row(power("X", "transposed"), "X")
    return Formula(
        formula(
            "w", "=", power(row("(", gram, ")"), row("-", "1")), power("X", "transposed"), "y"
        ),
        "The weights of the smallest squared error solve a system of linear equations (least "
        "squares); X holds the features of all images, y what they should give, both less their "
        "means, so that no bias is needed.",
    )  # fmt: skip


def largest_rate() -> Formula:
    """How far one may step in a bowl."""
    return Formula(
        formula("eta", "<", fraction("2", sub("lambda", words("max")))),
        "Gradient descent arrives only while the learning rate eta is below 2 divided by the "
        "largest curvature lambda.",
    )


def landscape_slice() -> Formula:
    """What a map of the loss shows."""
    first, second = row("a", sub("d", "1")), row("b", sub("d", "2"))
    return Formula(
        formula(words("map"), "(", "a", ",", "b", ")", "=", "L", "(", "w", "+", first, "+",
                second, ")"),
        "Each point of the map is the loss at the final weights w, moved by a along one direction "
        "and by b along another.",
    )  # fmt: skip


def unit() -> Formula:
    """What one unit of the first layer answers."""
    inside = row(total("i"), sub("w", row("j", "i")), sub("x", "i"), "+", sub("b", "j"))
    return Formula(
        formula(sub("a", "j"), "=", "f", "(", inside, ")"),
        "Unit j adds up the pixels x, each times its own weight, and answers through the "
        "activation f.",
    )


def stack() -> Formula:
    """Two layers of perceptrons."""
    inner = row("W", "x", "+", "b")
    return Formula(
        formula("z", "=", power("v", "transposed"), "f", "(", inner, ")", "+", "c"),
        "A layer of perceptrons W looks at the image x, f bends their answers, and one more "
        "perceptron v adds these up.",
    )


def dropout() -> Formula:
    """What dropout does to one unit in training."""
    return Formula(
        formula(
            sub("a", "j"), "<-", fraction(sub("m", "j"), row("1", "-", "q")), sub("a", "j"), ",",
            words("  m = 0 with chance q, else 1"),
        ),
        "In each training step a unit is silenced with chance q; the others are scaled up, so that "
        "the sum that arrives stays the same on average.",
    )  # fmt: skip


def patience() -> Formula:
    """When early stopping stops."""
    value = sub("L", words("val"))
    best = row(words("min "), value)
    return Formula(
        formula(words("stop when "), value, ">=", best, words(" for "), "k", words(" epochs")),
        "Training ends when the validation loss has not beaten its lowest value for k epochs (the "
        "patience), and the weights of the best epoch are kept.",
    )
