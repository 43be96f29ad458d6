"""What each process of a small job does; started by torchrun from test_distributed.py.

Prints one JSON object from rank 0.
"""

import json
import sys

import numpy as np
import torch

from xray_classifier.data.dataset import Standardize, load_split
from xray_classifier.distributed import joined
from xray_classifier.losses import BinaryCrossEntropy
from xray_classifier.model import Architecture, PerceptronStack
from xray_classifier.trainer import split_loss

COUNTS = (1, 2, 3, 5, 7, 255, 256, 257, 600)


def main() -> None:
    """Judge splits of several sizes together, and say what came out."""
    architecture = Architecture.from_keys("mlp", 6, (5,), "relu", 0.5, "none", False, "kaiming")
    model = PerceptronStack(architecture, 0)
    with joined(torch.device("cpu"), 1.0) as ranks:
        found = {}
        for n in COUNTS:
            rng = np.random.default_rng(n)
            images = rng.integers(0, 256, (n, 6, 6), dtype=np.uint8)
            targets = rng.integers(0, 2, n).astype(np.float64)
            split = load_split(images, targets, np.arange(n), torch.device("cpu"))
            standardize = Standardize(0.5, 0.25)
            outputs, loss = split_loss(model, standardize, BinaryCrossEntropy(), split, ranks)
            found[str(n)] = {"outputs": outputs.tolist(), "loss": loss}
        shares = [list(range(10))[ranks.share(10)], [1.0]]
        total = ranks.sum([float(ranks.rank + 1), 1.0])
        told = ranks.told({"from": "rank 0", "text": "ü"} if ranks.first else {"from": "another"})
        parameter = torch.nn.Parameter(torch.zeros(3))
        if not ranks.first:
            parameter.grad = torch.full((3,), float(ranks.rank))
        ranks.sum_gradients([parameter])
        gradient = None if parameter.grad is None else parameter.grad.tolist()
        if ranks.first:
            answer = {"found": found, "total": total, "told": told, "gradient": gradient}
            json.dump({**answer, "size": ranks.size, "shares": shares}, sys.stdout)


if __name__ == "__main__":
    main()
