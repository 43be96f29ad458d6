"""The loss around the weights that a run ended with, over two directions in weight space.

A network has one loss for every setting of its weights, a surface over as many axes as there are
weights. Two directions cut a plane out of it that can be drawn. Which plane is a choice: random
directions show how sharp the valley is, the main directions of the path show the way that was gone.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_classifier.data.dataset import LabelledImages
from xray_classifier.inference import INFERENCE_ROWS
from xray_classifier.lesson.subject import products_per_image, some_of
from xray_classifier.trainer import split_loss

Floats = NDArray[np.float64]
Weights = Mapping[str, Tensor]

GRID = 21
"""Points a side; odd, so that one of them is the centre."""
PRODUCTS = 4e11
"""Multiplications that one landscape may cost; images are left out until it fits."""
PATH_MARGIN = 0.25
"""The picture of a path goes beyond it by this part of its extent."""
FEWEST_SNAPSHOTS = 3


@dataclass(frozen=True, eq=False)
class Landscape:
    """The loss on a grid of weights: those of the run plus x and y times two directions.

    Attributes:
        kind: `random` (filter-normalised) or `path` (main directions of the training path).
        x: Steps along the first direction, (g,); in units of the weights' own norm for `random`,
            plain distance for `path`.
        y: Along the second, (h,).
        loss: Mean loss of the images, (h, g): row by y, column by x.
        centre: Loss at the weights of the run, x = y = 0.
        split: train or val.
        n: Images that it was measured on.
        n_split: Images in the split.
        path: Snapshots of the training in the plane, (k, 2), oldest first; (0, 2) for `random`.
        path_loss: Their own loss, off the plane where they lie off it, (k,).
        epochs: Epoch of each snapshot, (k,); 0 is the start.
        explained: Share of the path's squared length in each direction; (0, 0) for `random`.
    """

    kind: Literal["random", "path"]
    x: Floats
    y: Floats
    loss: Floats
    centre: float
    split: str
    n: int
    n_split: int
    path: Floats
    path_loss: Floats
    epochs: tuple[int, ...] = ()
    explained: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The weights after an epoch.

    Attributes:
        epoch: Finished epochs; 0 is the start.
        weights: By the names of the network's `state_dict`.
    """

    epoch: int
    weights: Weights


def random_directions(model: nn.Module, seed: int) -> tuple[Weights, Weights]:
    """Two random directions, each row as long as the row of weights that it changes.

    Rows of a matrix are the units of a layer, the "filters" of the source. Biases and norms are
    left alone. Without this scaling a layer with large weights would seem flat and one with small
    weights sharp, though both may compute the same.

    Args:
        model: The network.
        seed: Of the directions.

    Source:
        Li et al. 2018, "Visualizing the loss landscape of neural nets", arXiv:1712.09913.
    """
    generator = torch.Generator().manual_seed(seed)

    def direction() -> Weights:
        """One of them."""
        found = {}
        for name, weight in model.named_parameters():
            values = weight.detach().cpu()
            if values.ndim < 2:
                found[name] = torch.zeros_like(weight)
                continue
            drawn = torch.randn(values.shape, generator=generator)
            scale = values.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
            found[name] = (drawn * scale).to(weight.device)
        return found

    return direction(), direction()


@dataclass(frozen=True, eq=False)
class PathPlane:
    """The plane that holds most of a training path.

    Attributes:
        directions: Two, each of length 1 over all weights, at right angles.
        places: Each snapshot in the plane, (k, 2); the weights of the run are (0, 0).
        explained: Share of the squared distances from the run's weights along each direction.
    """

    directions: tuple[Weights, Weights]
    places: Floats
    explained: tuple[float, float]


def path_plane(model: nn.Module, snapshots: Sequence[Snapshot]) -> PathPlane | None:
    """The two main directions of what lies between the snapshots and the weights of a model.

    Args:
        model: With the weights of the run.
        snapshots: Oldest first.

    Returns:
        The plane; None where fewer than three snapshots differ from the run's weights.

    Source:
        Li et al. 2018, arXiv:1712.09913, section 7: principal components of the matrix of
        differences from the final weights, not centred.
    """
    parameters = {name: p.detach().cpu() for name, p in model.named_parameters()}
    ways = torch.stack(
        [
            torch.cat([(s.weights[n].cpu() - p).flatten() for n, p in parameters.items()])
            for s in snapshots
        ]
    )
    gram = (ways.double() @ ways.double().T).numpy()
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    if int((np.diag(gram) > 0).sum()) < FEWEST_SNAPSHOTS or values[1] <= 1e-9 * values[0]:
        return None
    weighed = [torch.from_numpy(vectors[:, nth] / np.sqrt(values[nth])) for nth in range(2)]
    axes = [ways.T.double() @ weight for weight in weighed]
    places = np.stack([(ways.double() @ axis).numpy() for axis in axes], axis=1)
    shares = values[:2] / values.sum()
    first, second = (_named(axis.float(), parameters, model) for axis in axes)
    return PathPlane((first, second), places, (float(shares[0]), float(shares[1])))


def _named(flat: Tensor, parameters: Weights, model: nn.Module) -> Weights:
    """A vector over all weights as tensors by name, on the device of the model."""
    device = next(model.parameters()).device
    parts = torch.split(flat, [p.numel() for p in parameters.values()])
    return {
        name: part.view(p.shape).to(device)
        for part, (name, p) in zip(parts, parameters.items(), strict=True)
    }


def affordable(
    model: nn.Module, standardize: nn.Module, images: LabelledImages, passes: int
) -> LabelledImages:
    """The images of a split, or a random part of them that keeps so many passes affordable."""
    one = standardize(images.gather(torch.arange(1))[0])
    most = PRODUCTS / passes / max(1, products_per_image(model, one))
    blocks = max(1, int(most // INFERENCE_ROWS))
    return some_of(images, blocks * INFERENCE_ROWS)


def random_landscape(
    model: nn.Module,
    standardize: nn.Module,
    loss: nn.Module,
    images: LabelledImages,
    *,
    split: str,
    seed: int = 0,
    grid: int = GRID,
) -> Landscape:
    """The loss over two filter-normalised random directions, one weight norm to each side.

    Args:
        model: With the weights of the run; left as it is.
        standardize: uint8 images to standardised ones.
        loss: Outputs and targets to a scalar.
        images: The split.
        split: Its name.
        seed: Of the directions.
        grid: Points a side; odd.
    """
    some = affordable(model, standardize, images, grid * grid)
    steps = np.linspace(-1.0, 1.0, grid)
    steps[grid // 2] = 0.0
    values = _on_grid(
        model, standardize, loss, some, random_directions(model, seed), (steps, steps)
    )
    centre = split_loss(model, standardize, loss, some)[1]
    return Landscape(
        "random", steps, steps, values, centre, split, len(some), len(images),
        np.zeros((0, 2)), np.zeros(0),
    )  # fmt: skip


def path_landscape(
    model: nn.Module,
    standardize: nn.Module,
    loss: nn.Module,
    images: LabelledImages,
    plane: PathPlane,
    snapshots: Sequence[Snapshot],
    *,
    split: str,
    grid: int = GRID,
) -> Landscape:
    """The loss over the two main directions of the training path, with the path.

    Args:
        model: With the weights of the run; left as it is.
        standardize: uint8 images to standardised ones.
        loss: Outputs and targets to a scalar.
        images: The split.
        plane: Of these snapshots.
        snapshots: Oldest first.
        split: Its name.
        grid: Points a side.
    """
    some = affordable(model, standardize, images, grid * grid)
    across, up = (_spanned(plane.places[:, nth], grid) for nth in range(2))
    values = _on_grid(model, standardize, loss, some, plane.directions, (across, up))
    moved = copy.deepcopy(model)
    own = []
    for snapshot in snapshots:
        moved.load_state_dict({**moved.state_dict(), **snapshot.weights})
        own.append(split_loss(moved, standardize, loss, some)[1])
    centre = split_loss(model, standardize, loss, some)[1]
    return Landscape(
        "path", across, up, values, centre, split, len(some), len(images),
        plane.places, np.array(own), tuple(s.epoch for s in snapshots), plane.explained,
    )  # fmt: skip


def _spanned(places: Floats, grid: int) -> Floats:
    """Steps that hold the path and the centre with a margin."""
    low, high = min(0.0, float(places.min())), max(0.0, float(places.max()))
    margin = PATH_MARGIN * (high - low)
    return np.linspace(low - margin, high + margin, grid)


@torch.no_grad()
def _on_grid(
    model: nn.Module,
    standardize: nn.Module,
    loss: nn.Module,
    images: LabelledImages,
    directions: tuple[Weights, Weights],
    steps: tuple[Floats, Floats],
) -> Floats:
    """The loss at each point, (h, g)."""
    moved = copy.deepcopy(model)
    values = np.empty((len(steps[1]), len(steps[0])))
    start = {name: p.detach() for name, p in model.named_parameters()}
    for row, up in enumerate(steps[1].tolist()):
        for column, across in enumerate(steps[0].tolist()):
            for name, weight in moved.named_parameters():
                weight.copy_(start[name] + across * directions[0][name] + up * directions[1][name])
            values[row, column] = split_loss(moved, standardize, loss, images)[1]
    return values
