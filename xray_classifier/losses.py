"""What training makes small: binary cross-entropy for classes, squared error for numbers."""

import torch.nn.functional as functional
from torch import Tensor, nn


class BinaryCrossEntropy(nn.Module):
    """Mean binary cross-entropy between logits and labels, in nats.

    For one image: -w*y*log(p) - (1-y)*log(1-p) with p = sigmoid(logit), the negative logarithm of
    the probability that the model gave to the truth.

    Args:
        pos_weight: Weight w of a sick image; 1 counts both classes alike.
        label_smoothing: Targets move from 0 and 1 to s/2 and 1 - s/2 for smoothing s in [0, 1).
    """

    def __init__(self, pos_weight: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.pos_weight = pos_weight
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss (scalar) of logits (B,) against targets (B,) of 0 and 1."""
        smoothed = targets * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        weight = logits.new_full((), self.pos_weight)  # `new_tensor` would wait for a GPU
        return functional.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=weight)


class SquaredError(nn.Module):
    """Mean squared error, in squared units of the target."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss (scalar) of outputs (B,) against targets (B,)."""
        return functional.mse_loss(outputs, targets)


def balanced_pos_weight(n_healthy: int, n_sick: int) -> float:
    """The weight at which both classes pull equally: healthy count / sick count."""
    return n_healthy / n_sick
