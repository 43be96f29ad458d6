"""Integrated gradients add up to the logit; maps are held against lesions of known place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import films, output, stack, weights_of
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from tiny_runs import tiny_run
from torch import nn

from xray_classifier.classifier import load_classifier
from xray_classifier.data.dataset import Standardize
from xray_classifier.data.loading import run_loading
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.judged_data import judged_config
from xray_classifier.lesson.attribution import integrated_gradients, untrained
from xray_classifier.lesson.map_scores import (
    in_words,
    lesion_masks,
    score_maps,
    smoothed,
    try_maps,
)
from xray_classifier.model import Architecture, build_network
from xray_classifier.report.evidence_figure import evidence_figure, map_scores_figure
from xray_classifier.terminal import Terminal

__all__ = ["tiny_run"]

STANDARDIZE = Standardize(0.5, 0.29)


def mixer() -> nn.Module:
    """A small mixer on 6 x 6 px."""
    keys = {"patch_px": 3, "channels": 8, "blocks": 2, "token_units": 6, "channel_units": 6}
    return build_network(
        Architecture.from_keys("mixer", 6, (), "gelu", 0.1, "none", False, "kaiming", keys), 3
    )


NETWORKS = {
    "perceptron": lambda: stack(),
    "relu": lambda: stack((32, 16), dropout=0.5),
    "layer norm": lambda: stack((32, 16), "gelu", norm="layer"),
    "residual tanh": lambda: stack((16, 16), "tanh", residual=True),
    "mixer": mixer,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_map_adds_up_to_the_logit_difference_within_one_per_cent(name: str) -> None:
    model = NETWORKS[name]()
    before = weights_of(model)
    images = films(6)
    found = integrated_gradients(model, STANDARDIZE, images)
    model.eval()
    with torch.no_grad():
        logits = model(STANDARDIZE(torch.from_numpy(images)))
        grey = model(torch.zeros(1, 1, 6, 6))
    change = (logits - grey).double().numpy()
    np.testing.assert_allclose(found.outputs, logits.numpy(), rtol=1e-4, atol=1e-5)
    off = np.abs(found.maps.sum(axis=(1, 2)) - change)
    assert (off <= 0.01 * np.maximum(np.abs(change), 0.01)).all()
    np.testing.assert_allclose(found.gaps, off / np.maximum(np.abs(change), 0.01), atol=1e-3)
    assert all(torch.equal(before[key], now) for key, now in weights_of(model).items())


def test_a_trained_run_is_complete_on_its_own_films(tiny_run: Path) -> None:
    network = load_classifier(tiny_run, "cpu")
    config = judged_config(network, None)
    images = run_loading(config, "classify", Terminal(quiet=True)).images[:12]
    found = integrated_gradients(network.model, network.standardize, np.ascontiguousarray(images))
    np.testing.assert_allclose(found.outputs, network.score(images).logits, atol=1e-4)
    assert (found.gaps < 0.01).all()
    assert np.abs(found.maps).max() > 0


def test_the_map_of_a_perceptron_is_weight_times_standardised_pixel() -> None:
    model = stack()
    images = films(3)
    weights = output(model).weight.detach().double().numpy().reshape(6, 6)
    by_hand = weights * STANDARDIZE(torch.from_numpy(images))[:, 0].double().numpy()
    found = integrated_gradients(model, STANDARDIZE, images)
    np.testing.assert_allclose(found.maps, by_hand, atol=1e-6)


def test_a_pixel_without_weight_gets_nothing() -> None:
    model = stack((16,))
    with torch.no_grad():
        model.get_parameter("hidden.0.linear.weight")[:, 7] = 0.0
    found = integrated_gradients(model, STANDARDIZE, films(2))
    np.testing.assert_array_equal(found.maps.reshape(2, -1)[:, 7], 0.0)


def test_the_untrained_network_is_another_one_of_the_same_shape(tiny_run: Path) -> None:
    trained = load_classifier(tiny_run, "cpu")
    fresh = untrained(trained, 5)
    one, other = weights_of(trained.model), weights_of(fresh.model)
    assert {name: t.shape for name, t in one.items()} == {n: t.shape for n, t in other.items()}
    assert not torch.equal(one["hidden.0.linear.weight"], other["hidden.0.linear.weight"])


@pytest.fixture
def masks() -> np.ndarray:
    """Lesions of 9 of 64 pixels."""
    found = np.zeros((5, 8, 8), bool)
    for nth in range(5):
        found[nth, nth : nth + 3, 2:5] = True
    return found


def test_scores_are_those_of_scikit_learn_and_of_counting(masks: np.ndarray) -> None:
    maps = np.random.default_rng(1).normal(size=(5, 8, 8))
    maps[2, 3, 3] = -9.0  # the largest size, in the lesion of the third film
    found = score_maps(maps, masks)
    for nth in range(5):
        size = np.abs(maps[nth])
        assert found.auroc[nth] == pytest.approx(roc_auc_score(masks[nth].ravel(), size.ravel()))
        assert found.inside[nth] == pytest.approx(size[masks[nth]].sum() / size.sum())
        assert found.hit[nth] == masks[nth].ravel()[size.argmax()]
    np.testing.assert_allclose(found.area, 9 / 64)
    assert found.hit[2] == 1.0
    assert found.mean("auroc") == pytest.approx(found.auroc.mean())


def test_a_perfect_map_proves_something_and_a_random_one_does_not(masks: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    noise = [rng.normal(size=(40, 8, 8)) for _ in range(3)]
    many = np.tile(masks, (8, 1, 1))
    clusters = np.arange(40)
    good = try_maps("good", many + 0.1 * noise[0], noise[1], many, clusters)
    poor = try_maps("poor", noise[2], noise[1], many, clusters)
    assert good.gain_ci[0] > 0.3
    assert good.auroc_ci[0] > 0.9
    assert poor.gain_ci[0] < 0 < poor.gain_ci[1]
    said = in_words({"good": good, "poor": poor})
    assert "training put there" in said[0]
    assert "proves nothing" in said[1]
    expected = [
        spearmanr(np.abs(a).ravel(), np.abs(b).ravel())[0] for a, b in zip(*noise[1:], strict=True)
    ]
    assert poor.alike == pytest.approx(np.mean(expected))
    assert good.gain == pytest.approx((good.trained.auroc - good.random.auroc).mean())  # type: ignore[union-attr]
    worse = try_maps("worse", -1.0 * ~many + 0.1 * noise[0], noise[1], many, clusters)
    assert "away from the lesions" in in_words({"worse": worse})[0]


def test_patients_are_drawn_whole(masks: np.ndarray) -> None:
    maps = np.random.default_rng(3).normal(size=(40, 8, 8))
    many = np.tile(masks, (8, 1, 1))
    own = try_maps("own", maps, None, many, np.arange(40))
    copies = try_maps("copies", np.repeat(maps[::4], 4, axis=0), None,
                      np.repeat(many[::4], 4, axis=0), np.repeat(np.arange(10), 4))  # fmt: skip
    assert np.diff(copies.auroc_ci) > 1.4 * np.diff(own.auroc_ci)


def test_masks_are_the_lesions_of_those_phantoms(tiny_run: Path) -> None:
    network = load_classifier(tiny_run, "cpu")
    radiographs = run_loading(judged_config(network, None), "classify", Terminal(quiet=True))
    rows = np.flatnonzero(radiographs.manifest.targets == 1)[:6]
    found = lesion_masks(radiographs, rows)
    assert found is not None
    assert found.shape == (6, 16, 16)
    for mask, row in zip(found, rows.tolist(), strict=True):
        name = radiographs.manifest.ids[row]
        drawn = draw_phantom(0, int(name.removeprefix("phantom-"))).lesion_mask
        share = drawn.reshape(16, 8, 16, 8).mean(axis=(1, 3))
        np.testing.assert_array_equal(mask, share >= min(0.5, share.max()))
        assert mask.any()


def test_smoothing_is_the_mean_over_the_square_inside_the_film() -> None:
    maps = np.random.default_rng(4).normal(size=(2, 7, 7))
    found = smoothed(maps, 3)
    assert found[1, 3, 3] == pytest.approx(maps[1, 2:5, 2:5].mean())
    assert found[0, 0, 6] == pytest.approx(maps[0, :2, 5:].mean())


def test_both_figures_are_drawn(masks: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    maps = rng.normal(size=(5, 8, 8))
    images = rng.integers(0, 256, (5, 8, 8)).astype(np.uint8)
    evidence_figure(images, [("occlusion", maps), ("even", 0 * maps)], ["a\nb"] * 5, masks)
    trial = try_maps("one", maps, maps[::-1], masks, np.arange(5))
    figure = map_scores_figure([trial], n=5)
    assert figure.axes[0].get_yticklabels()[0].get_text() == "one"
