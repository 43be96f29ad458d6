"""The bowl against numpy's least squares, autograd, eigenvalues; the valley against sklearn."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from xray_classifier.lesson.bowl import (
    CELLS,
    Plane,
    bce_at,
    bce_gradient,
    bce_minimum,
    measure_bowl,
    measure_valley,
    mse_at,
    mse_gradient,
    parted_by_a_line,
    two_features,
)
from xray_classifier.report.bowl_figure import bowl_figure, valley_figure


@pytest.fixture
def plane() -> Plane:
    """Two features that go together, and a label that both tell of; the classes overlap."""
    rng = np.random.default_rng(3)
    shared = rng.normal(size=300)
    x = np.stack([shared + 0.5 * rng.normal(size=300), shared + 0.9 * rng.normal(size=300)], axis=1)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    targets = (x @ [1.0, -0.7] + rng.normal(size=300) > 0).astype(float)
    return Plane(x, targets, ((0, 0), (0, 1)))


def test_the_lowest_point_is_that_of_least_squares(plane: Plane) -> None:
    bowl = measure_bowl(plane)
    centred = plane.targets - plane.targets.mean()
    best, squares, _, _ = np.linalg.lstsq(plane.features, centred, rcond=None)
    np.testing.assert_allclose(bowl.minimum, best, rtol=1e-10)
    assert bowl.lowest == pytest.approx(float(squares[0]) / 300)


def test_the_largest_rate_is_two_by_the_largest_eigenvalue(plane: Plane) -> None:
    bowl = measure_bowl(plane)
    w = torch.zeros(2, dtype=torch.float64)
    x, y = torch.from_numpy(plane.features), torch.from_numpy(plane.targets - plane.targets.mean())
    hessian = torch.autograd.functional.hessian(lambda v: mse_loss(x @ v, y), w)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert bowl.largest_rate == pytest.approx(2.0 / float(eigenvalues[-1]))
    assert bowl.curvatures == pytest.approx(tuple(reversed(eigenvalues.tolist())))


def test_every_step_is_that_of_autograd_and_of_the_closed_form(plane: Plane) -> None:
    bowl = measure_bowl(plane)
    x, y = torch.from_numpy(plane.features), torch.from_numpy(plane.targets - plane.targets.mean())
    hessian = 2 * plane.features.T @ plane.features / 300
    for descent in bowl.descents:
        weight = torch.from_numpy(descent.weights[0].copy()).requires_grad_()
        for step, found in enumerate(descent.weights):
            np.testing.assert_allclose(found, weight.detach().numpy(), rtol=1e-9, atol=1e-9)
            shrunk = np.linalg.matrix_power(np.eye(2) - descent.rate * hessian, step)
            away = shrunk @ (descent.weights[0] - bowl.minimum)
            np.testing.assert_allclose(found - bowl.minimum, away, rtol=1e-6, atol=1e-9)
            loss = mse_loss(x @ weight, y)
            assert descent.losses[step] == pytest.approx(float(loss.detach()))
            (gradient,) = torch.autograd.grad(loss, weight)
            with torch.no_grad():
                weight -= descent.rate * gradient


def test_below_the_largest_rate_it_arrives_and_above_it_leaves(plane: Plane) -> None:
    bowl = measure_bowl(plane, (0.3, 0.999, 1.001, 1.5))
    ends = [np.linalg.norm(d.weights[-1] - bowl.minimum) for d in bowl.descents]
    starts = [np.linalg.norm(d.weights[0] - bowl.minimum) for d in bowl.descents]
    assert ends[0] < 0.05 * starts[0]
    assert ends[1] < starts[1]
    steep = np.linalg.eigh(plane.features.T @ plane.features)[1][:, 1]
    along = [np.abs((d.weights - bowl.minimum) @ steep) for d in bowl.descents]
    assert along[2][-1] > along[2][0]
    assert ends[3] > 100 * starts[3]


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_gradients_of_both_losses_are_those_of_autograd(plane: Plane, decay: float) -> None:
    w = np.array([0.4, -1.3])
    x, y = torch.from_numpy(plane.features), torch.from_numpy(plane.targets)
    weight = torch.from_numpy(w.copy()).requires_grad_()
    loss = binary_cross_entropy_with_logits(x @ weight, y) + decay / 2 * (weight**2).sum()
    (expected,) = torch.autograd.grad(loss, weight)
    np.testing.assert_allclose(bce_gradient(plane, w, decay), expected.numpy())
    assert float(bce_at(plane, w, decay)) == pytest.approx(float(loss.detach()))
    (expected,) = torch.autograd.grad(mse_loss(x @ weight, y - y.mean()), weight)
    np.testing.assert_allclose(mse_gradient(plane, w), expected.numpy())


@pytest.mark.parametrize("decay", [0.0, 0.02, 1.0])
def test_the_lowest_point_with_decay_is_that_of_scikit_learn(plane: Plane, decay: float) -> None:
    if decay == 0:
        fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    else:
        fitted = LogisticRegression(C=1.0 / (decay * 300), fit_intercept=False, tol=1e-10)
    fitted.fit(plane.features, plane.targets)
    np.testing.assert_allclose(bce_minimum(plane, decay), fitted.coef_[0], rtol=1e-5)


def test_without_decay_the_weights_grow_without_end_and_with_it_they_arrive(plane: Plane) -> None:
    valley = measure_valley(plane)
    assert valley is not None
    free, held = valley.norms
    assert (np.diff(free) > 0).all()
    assert (np.diff(valley.free.losses) < 0).all()
    # like the logarithm of the steps: each tenfold adds about as much, and it does not level off
    added = [free[4000] - free[400], free[400] - free[40]]
    assert added[0] > 0.5 * added[1]
    np.testing.assert_allclose(valley.held.weights[-1], valley.minimum, rtol=1e-6)
    assert held[-1] == pytest.approx(held[2000])
    assert np.abs(bce_gradient(valley.plane, valley.minimum, valley.decay)).max() < 1e-10


def test_the_parted_images_are_parted(plane: Plane) -> None:
    parted = parted_by_a_line(plane)
    assert 150 < len(parted.targets) < 300
    model = LogisticRegression(C=1e6, fit_intercept=False).fit(parted.features, parted.targets)
    assert model.score(parted.features, parted.targets) == 1.0


def test_a_line_that_is_right_on_one_class_only_gives_no_valley() -> None:
    x = np.array([[1.0, 0.2], [-1.0, -0.1], [0.5, 1.0], [-0.5, -1.1]])
    assert measure_valley(Plane(x, np.ones(4), ((0, 0), (0, 1)))) is None


def test_the_two_features_are_the_mean_greys_that_tell_most() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(100, 130, (200, 16, 16)).astype(np.uint8)
    targets = rng.integers(0, 2, 200).astype(float)
    images[:, 4:8, 12:16] += (
        60 * targets[:, None, None] + rng.integers(0, 40, (200, 1, 1))
    ).astype(np.uint8)
    images[:, 8:12, 0:4] += (25 * targets[:, None, None] + rng.integers(0, 40, (200, 1, 1))).astype(
        np.uint8
    )
    plane = two_features(images, targets)
    assert CELLS == 4
    assert plane.cells == ((1, 3), (2, 0))
    grey = images[:, 4:8, 12:16].mean(axis=(1, 2))
    np.testing.assert_allclose(plane.features[:, 0], (grey - grey.mean()) / grey.std())


def test_both_are_drawn(plane: Plane) -> None:
    valley = measure_valley(plane)
    assert valley is not None
    figure = bowl_figure(measure_bowl(plane), partial(mse_at, plane), n=300)
    assert len(figure.axes) == 4
    held = partial(bce_at, valley.plane, decay=valley.decay)
    assert len(valley_figure(valley, partial(bce_at, valley.plane), held).axes) == 3
