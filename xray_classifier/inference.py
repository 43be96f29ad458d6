"""Model and images to logits: in order, and the same to the last bit in any company.

Matrix products of other shapes round otherwise, so every forward pass has one fixed shape: the last
batch is filled up with zeros and the surplus thrown away. Inference is always in fp32.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

INFERENCE_ROWS = 256


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    standardize: nn.Module,
    images: Tensor | NDArray[np.uint8],
    rows: Tensor | None = None,
) -> NDArray[np.float64]:
    """Raw outputs of a model for many images.

    Args:
        model: Maps standardised (B, C, S, S) to (B,); dropout is switched off meanwhile.
        standardize: Maps uint8 (B, S, S) to float (B, C, S, S).
        images: (N, S, S) uint8, a tensor on any device or a NumPy array.
        rows: (n,) int64 places in `images`, on any device; None takes all, in order.

    Returns:
        (n,) float64, in the order asked for; the same for any n, order and neighbours.
    """
    device = next(model.parameters()).device
    store = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    rows = torch.arange(len(store)) if rows is None else rows
    was_training = model.training
    model.eval()
    try:
        parts = [
            _fixed_shape_logits(model, standardize, store, part.to(store.device), device)
            for part in torch.split(rows, INFERENCE_ROWS)
            if len(part)
        ]
    finally:
        model.train(was_training)
    if not parts:
        return np.zeros(0)
    return torch.cat(parts).cpu().double().numpy()


def _fixed_shape_logits(
    model: nn.Module, standardize: nn.Module, store: Tensor, rows: Tensor, device: torch.device
) -> Tensor:
    n = len(rows)
    images = store.index_select(0, rows).to(device)
    if n < INFERENCE_ROWS:
        filled = images.new_zeros((INFERENCE_ROWS, *images.shape[1:]))
        filled[:n] = images
        images = filled
    logits: Tensor = model(standardize(images))
    return logits[:n].float()
