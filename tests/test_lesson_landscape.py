"""The loss over two directions: its centre, its directions and its path are the run's own."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import split, stack, weights_of
from tiny_runs import TINY, tiny_run
from torch.nn.utils import parameters_to_vector

from xray_classifier.cli import main
from xray_classifier.data.dataset import Standardize
from xray_classifier.lesson.landscape import (
    Landscape,
    Snapshot,
    path_landscape,
    path_plane,
    random_directions,
    random_landscape,
)
from xray_classifier.lesson.loss_parts import _path_words
from xray_classifier.lesson.recording import read_snapshots
from xray_classifier.lesson.subject import products_per_image, run_subject, some_of
from xray_classifier.losses import BinaryCrossEntropy
from xray_classifier.report.landscape_figure import landscape_figure
from xray_classifier.terminal import Terminal

__all__ = ["tiny_run"]

STANDARDIZE = Standardize(0.5, 0.29)
QUIET = Terminal(quiet=True)


def best_val_loss(run: Path) -> float:
    """The smallest validation loss in history.csv."""
    with (run / "history.csv").open(encoding="utf-8") as file:
        return min(float(row["val_loss"]) for row in csv.DictReader(file))


def test_the_centre_is_the_loss_of_the_run_on_that_split(tiny_run: Path) -> None:
    subject = run_subject(tiny_run, QUIET, "cpu")
    network = subject.classifier
    found = random_landscape(
        network.model, network.standardize, subject.loss, subject.splits["val"], split="val", grid=5
    )
    assert found.centre == pytest.approx(best_val_loss(tiny_run), rel=1e-6)
    assert found.loss[2, 2] == found.centre
    assert found.n == found.n_split == len(subject.splits["val"])


def test_a_smoothed_loss_has_the_centre_of_its_run_too(tmp_path: Path) -> None:
    more = ("train.label_smoothing=0.2", "train.pos_weight=2.0", "train.ema=0.9")
    words = ["train", "-c", "demo", "-q", "-o", str(tmp_path), "--name", "odd", *TINY, *more]
    assert main(words) == 0
    run = next(tmp_path.glob("*_odd"))
    subject = run_subject(run, QUIET, "cpu")
    network = subject.classifier
    found = random_landscape(
        network.model, network.standardize, subject.loss, subject.splits["val"], split="val", grid=3
    )
    assert found.centre == pytest.approx(best_val_loss(run), rel=1e-6)


def test_a_point_is_the_loss_of_the_moved_weights_and_nothing_is_left_changed() -> None:
    model, images, loss = stack((5,), norm="layer"), split(20), BinaryCrossEntropy()
    before = weights_of(model)
    found = random_landscape(model, STANDARDIZE, loss, images, split="train", seed=3, grid=5)
    assert all(torch.equal(before[name], now) for name, now in weights_of(model).items())
    one, other = random_directions(model, 3)
    row, column = 4, 1  # y = 1, x = -0.5
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight += found.x[column] * one[name] + found.y[row] * other[name]
        pixels, targets = images.gather(torch.arange(20))
        by_hand = float(loss(model.eval()(STANDARDIZE(pixels)), targets))
    assert found.loss[row, column] == pytest.approx(by_hand, rel=1e-5)


def test_each_unit_moves_by_as_much_as_its_weights_are_long_and_biases_stay() -> None:
    model = stack((5, 4), norm="layer")
    with torch.no_grad():
        model.get_parameter("hidden.0.linear.weight")[2] *= 100.0
    one, other = random_directions(model, 0)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert not one[name].any()
        else:
            for direction in (one, other):
                torch.testing.assert_close(direction[name].norm(dim=1), weight.norm(dim=1))
    weights = "hidden.0.linear.weight"
    assert not torch.equal(one[weights], other[weights])
    assert torch.equal(one[weights], random_directions(model, 0)[0][weights])


def drifting(model: torch.nn.Module, n: int) -> list[Snapshot]:
    """Weights that wander towards those of the model."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for epoch in range(n):
        weights = {
            name: tensor
            + (n - 1 - epoch) * 0.1
            + 0.3 * (epoch < n - 1) * torch.randn(tensor.shape, generator=generator)
            for name, tensor in weights_of(model).items()
        }
        found.append(Snapshot(epoch, weights))
    return found


def test_the_plane_of_the_path_is_that_of_the_singular_vectors() -> None:
    model = stack((5,))
    snapshots = drifting(model, 6)
    plane = path_plane(model, snapshots)
    assert plane is not None
    end = parameters_to_vector(model.parameters()).detach().double().numpy()
    names = [name for name, _ in model.named_parameters()]
    ways = np.stack(
        [np.concatenate([s.weights[n].flatten().numpy() for n in names]) for s in snapshots]
    )
    _, values, rows = np.linalg.svd(ways - end, full_matrices=False)
    np.testing.assert_allclose(plane.explained, values[:2] ** 2 / (values**2).sum(), rtol=1e-4)
    for nth, direction in enumerate(plane.directions):
        flat = np.concatenate([direction[n].flatten().numpy() for n in names])
        assert abs(flat @ rows[nth]) == pytest.approx(1.0, abs=1e-4)
        np.testing.assert_allclose(plane.places[:, nth], (ways - end) @ flat, atol=1e-4)
    np.testing.assert_allclose(plane.places[-1], 0.0, atol=1e-6)  # the path ends at the model


def test_a_path_of_two_points_spans_no_plane() -> None:
    model = stack((5,))
    assert path_plane(model, drifting(model, 3)) is None


def test_a_recorded_run_ends_its_path_at_the_kept_weights(tmp_path: Path) -> None:
    more = ("train.lesson=true", "train.epochs=5")
    words = ["train", "-c", "demo", "-q", "-o", str(tmp_path), "--name", "seen", *TINY, *more]
    assert main(words) == 0
    run = next(tmp_path.glob("*_seen"))
    subject = run_subject(run, QUIET, "cpu")
    network = subject.classifier
    snapshots = read_snapshots(run, network.model)
    assert [s.epoch for s in snapshots] == [0, 1, 2, 3, 4, 5]
    plane = path_plane(network.model, snapshots)
    assert plane is not None
    found = path_landscape(
        network.model, network.standardize, subject.loss, subject.splits["val"], plane, snapshots,
        split="val", grid=3,
    )  # fmt: skip
    with (run / "history.csv").open(encoding="utf-8") as file:
        by_epoch = [float(row["val_loss"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(found.path_loss[1:], by_epoch, rtol=1e-6)
    best = int(np.argmin(by_epoch)) + 1
    assert network.content["epoch"] == best
    np.testing.assert_allclose(found.path[best], 0.0, atol=1e-5)
    assert found.centre == pytest.approx(by_epoch[best - 1], rel=1e-6)
    landscape_figure([found, found], title="The path", loss_name="BCE loss")


@pytest.mark.parametrize(
    ("train", "held", "centre", "said"),
    [
        ([0.9, 0.4, 0.3], [0.9, 0.50, 0.70], 0.50, "climbs to 0.7: overfitting"),
        ([0.9, 0.4, 0.3], [0.9, 0.50, 0.51], 0.50, "0.5, at epoch 4."),  # the unrest of epochs
        ([0.9, 0.3, 0.4], [0.9, 0.50, 0.70], 0.50, "0.5, at epoch 4."),  # training rose as well
        ([0.9, 0.4, 0.3], [0.9, 0.50, 0.70], 0.45, "the kept weights, of another epoch, have 0.45"),
        ([0.9, 0.4, 0.3], [0.9, 0.50, 0.40], 0.40, "0.4, at epoch 8."),
    ],
)
def test_a_path_is_called_overfitting_only_where_its_losses_part(
    train: list[float], held: list[float], centre: float, said: str
) -> None:
    def along(split: str, losses: list[float], middle: float) -> Landscape:
        none = np.zeros(1)
        return Landscape("path", none, none, np.zeros((1, 1)), middle, split, 1, 1,
                         np.zeros((3, 2)), np.array(losses), (0, 4, 8), (0.5, 0.5))  # fmt: skip

    words = _path_words([along("train", train, 0.3), along("val", held, centre)])
    assert said in words
    assert ("overfitting" in words) is ("overfitting" in said)


def test_products_are_those_of_the_matrices() -> None:
    model = stack((5, 4))  # 36 pixels
    assert products_per_image(model, torch.zeros(1, 1, 6, 6)) == 36 * 5 + 5 * 4 + 4


def test_some_of_a_split_keeps_images_and_targets_together() -> None:
    images = split(40)
    some = some_of(images, 7, seed=2)
    assert len(some) == 7
    pixels, targets = some.gather(torch.arange(7))
    for row, film, target in zip(some.rows.tolist(), pixels, targets, strict=True):
        torch.testing.assert_close(film, images.store[row])
        assert target == images.targets[row]
    assert some_of(images, 40) is images
