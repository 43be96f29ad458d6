"""First-layer weights as pictures, and the films that excite a unit most, by brute force."""

import numpy as np
import pytest
import torch
from builders import layers, output, split, stack

from xray_classifier.data.dataset import Standardize
from xray_classifier.lesson.neurons import measure_detectors
from xray_classifier.model import Architecture, build_network
from xray_classifier.report.neuron_figure import neuron_figure

STANDARDIZE = Standardize(0.5, 0.29)


def test_the_perceptron_shows_its_one_map_and_the_films_with_the_largest_logit() -> None:
    model, images = stack(), split(30)
    with torch.no_grad():
        output(model).weight[0, 3] += 2.0
    found = measure_detectors(model, STANDARDIZE, model.architecture, images, seed=0)
    assert (found.kind, found.n_units, found.n_images) == ("perceptron", 1, 30)
    (one,) = found.chosen
    np.testing.assert_array_equal(one.weights.ravel(), output(model).weight[0].detach().numpy())
    expected = np.zeros(36)
    expected[3] = 2.0
    np.testing.assert_allclose(one.change.ravel(), expected, atol=1e-6)
    logits = model(STANDARDIZE(images.store)).detach().numpy()
    assert one.rows.tolist() == np.argsort(-logits)[:4].tolist()
    np.testing.assert_allclose(one.sums, np.sort(logits)[::-1][:4], rtol=1e-5)


@pytest.mark.parametrize("hidden", [(9,), (9, 4)])
def test_units_of_a_stack_are_ranked_by_spread_times_outgoing_weights(
    hidden: tuple[int, ...],
) -> None:
    model, images = stack(hidden, seed=2), split(30)
    with torch.no_grad():
        layers(model)[0].linear.bias[5] = -99.0  # never answers
    found = measure_detectors(model, STANDARDIZE, model.architecture, images, seed=2, most_units=9)
    first = layers(model)[0].linear
    sums = (STANDARDIZE(images.store).flatten(1) @ first.weight.T + first.bias).detach().double()
    deeper = output(model) if len(hidden) == 1 else layers(model)[1].linear
    outgoing = deeper.weight.detach().double().norm(dim=0)
    strength = (sums.clamp(min=0).std(dim=0, correction=0) * outgoing).numpy()
    assert [one.unit for one in found.chosen] == np.argsort(-strength, kind="stable").tolist()
    assert found.chosen[-1].unit == 5
    assert found.chosen[-1].strength == 0.0
    for one in found.chosen:
        assert one.strength == pytest.approx(float(strength[one.unit]), rel=1e-5)
        own = sums[:, one.unit].numpy()
        assert one.rows.tolist() == np.argsort(-own)[:4].tolist()
        np.testing.assert_allclose(one.sums, own[one.rows], rtol=1e-5)
        np.testing.assert_array_equal(one.weights.ravel(), first.weight[one.unit].detach().numpy())
    start = layers(stack(hidden, seed=2))[0].linear.weight
    assert torch.equal(start, first.weight)
    assert not any(one.change.any() for one in found.chosen)


def test_a_mixer_shows_patches_and_where_they_lie() -> None:
    keys = {"patch_px": 2, "channels": 8, "blocks": 1, "token_units": 6, "channel_units": 6}
    architecture = Architecture.from_keys(
        "mixer", 6, (), "gelu", 0.1, "none", False, "kaiming", keys
    )
    model, images = build_network(architecture, 1), split(30)
    found = measure_detectors(model, STANDARDIZE, architecture, images, seed=1, most_units=3)
    embedding = model.get_submodule("embedding")
    films = STANDARDIZE(images.store)[:, 0].double().numpy()
    norms = embedding.weight.detach().norm(dim=1).numpy()
    assert [one.unit for one in found.chosen] == np.argsort(-norms)[:3].tolist()
    for one in found.chosen:
        weights, bias = one.weights, float(embedding.bias[one.unit].detach())
        best = np.full(30, -np.inf)
        where = [(0, 0)] * 30
        for row in range(30):
            for top in (0, 2, 4):
                for left in (0, 2, 4):
                    total = (films[row, top : top + 2, left : left + 2] * weights).sum() + bias
                    if total > best[row]:
                        best[row], where[row] = total, (top, left)
        assert one.rows.tolist() == np.argsort(-best)[:4].tolist()
        assert list(one.corners) == [where[row] for row in one.rows]
        np.testing.assert_allclose(one.sums, best[one.rows], rtol=1e-5)
    pictures = {row: images.store[row].numpy() for row in range(30)}
    neuron_figure(found, pictures, dict.fromkeys(range(30), "sick"))
