"""How much work a training step is at least: operations, bytes, and the seconds they take.

Counted for a stack of linear layers of widths (in, hidden..., 1), batch B, P weights and biases:

Operations, a multiplication and an addition each counting one, of the matrix products alone:
    forward             2 * B * in * out of each layer
    gradient of weights 2 * B * in * out of each layer
    gradient of inputs  2 * B * in * out of each layer but the first, whose inputs are the images

Bytes, of weights, gradients and the moments of Adam alone, each read or written once where it is
needed, as if nothing stayed in a cache from one use to the next and nothing was moved twice:
    forward             every weight read, 4 bytes (fp32) or 2 (a bf16 copy)
    backward            weights of all layers but the first read again, 4 or 2; every gradient
                        written, 4
    Adam                weight, gradient and two moments read, weight and two moments written: 7 * 4
    bf16 alone          the copy of each weight written once a step, 2

Images and activations are left out: at batch 64 they are a hundredth of the rest, and leaving them
out can only make the roofline harder to reach. A step cannot be faster than the slower of both.
"""

from collections.abc import Sequence
from itertools import pairwise

FP32_BYTES = 4
BYTES_OF = {"fp32": 4, "bf16": 2}
ADAM_PASSES = 7  # weight, gradient, two moments in; weight, two moments out


def weights_in(widths: Sequence[int]) -> int:
    """Weights and biases of a stack of linear layers."""
    return sum(inputs * units + units for inputs, units in pairwise(widths))


def forward_flops(widths: Sequence[int], images: int) -> int:
    """Operations of the matrix products of a forward pass.

    Args:
        widths: Inputs, hidden units and outputs, such as (4096, 512, 256, 1).
        images: How many go through.
    """
    return sum(2 * images * inputs * units for inputs, units in pairwise(widths))


def step_flops(widths: Sequence[int], batch: int) -> int:
    """Operations of the matrix products of a training step, see the head of this file."""
    first = 2 * batch * widths[0] * widths[1]
    return 3 * forward_flops(widths, batch) - first


def step_bytes(widths: Sequence[int], precision: str) -> int:
    """Bytes that a training step must move, see the head of this file.

    Args:
        widths: Inputs, hidden units and outputs.
        precision: Of the matrix products: fp32 or bf16. Weights, gradients and moments are fp32.
    """
    every = weights_in(widths)
    later = every - (widths[0] * widths[1] + widths[1])
    number = BYTES_OF[precision]
    copied = number if precision == "bf16" else 0
    return every * (number + FP32_BYTES + ADAM_PASSES * FP32_BYTES + copied) + later * number


def roofline_s(flops: float, n_bytes: float, flops_per_s: float, bytes_per_s: float) -> float:
    """Least seconds for some work: the slower of computing and moving.

    Args:
        flops: Operations.
        n_bytes: Bytes read and written.
        flops_per_s: What this machine was measured to do.
        bytes_per_s: The same of moving, reading and writing both counted.

    Source:
        Williams, Waterman & Patterson 2009, doi:10.1145/1498765.1498785.
    """
    return max(flops / flops_per_s, n_bytes / bytes_per_s)


def in_turn_s(
    widths: Sequence[int], batch: int, precision: str, flops_per_s: float, bytes_per_s: float
) -> float:
    """Least seconds of a step that multiplies first and lets the optimizer move bytes after that.

    The roofline has both at once, which takes one program for the products and the optimizer.

    Args:
        widths: Inputs, hidden units and outputs.
        batch: Images of a step.
        precision: fp32 or bf16.
        flops_per_s: What this machine was measured to do.
        bytes_per_s: The same of moving, reading and writing both counted.
    """
    optimizer_bytes = weights_in(widths) * ADAM_PASSES * FP32_BYTES
    others = step_bytes(widths, precision) - optimizer_bytes
    products_s = roofline_s(step_flops(widths, batch), others, flops_per_s, bytes_per_s)
    return products_s + optimizer_bytes / bytes_per_s


def state_bytes(widths: Sequence[int]) -> int:
    """What training must hold of a stack: weight, gradient and two moments, fp32."""
    return 4 * FP32_BYTES * weights_in(widths)


def batch_bytes(widths: Sequence[int], batch: int) -> int:
    """A batch on its way through: images as bytes and as fp32, and each activation twice."""
    return batch * (widths[0] + FP32_BYTES * (widths[0] + 2 * sum(widths[1:])))
