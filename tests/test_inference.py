"""Logits that depend on the image alone: not on order, company or number."""

import numpy as np
import pytest
import torch
from builders import films, stack
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xray_classifier.data.dataset import Standardize
from xray_classifier.inference import INFERENCE_ROWS, predict_logits

STANDARDIZE = Standardize(0.5, 0.29)
N = INFERENCE_ROWS + 45
IMAGES = films(N, size_px=16)
MODEL = stack((64, 32), "gelu", dropout=0.5, norm="batch", size_px=16)


@pytest.fixture(scope="module")
def whole() -> NDArray[np.float64]:
    return predict_logits(MODEL, STANDARDIZE, IMAGES)


def test_logits_equal_a_plain_forward_pass(whole: NDArray[np.float64]) -> None:
    MODEL.eval()
    with torch.no_grad():
        expected = MODEL(STANDARDIZE(torch.from_numpy(IMAGES))).numpy()
    assert whole.dtype == np.float64
    assert whole == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 32, INFERENCE_ROWS])
def test_logits_are_the_same_to_the_last_bit_in_batches_of_any_size(
    whole: NDArray[np.float64], batch: int
) -> None:
    some = range(0, 70 if batch < 32 else N, batch)
    parts = [predict_logits(MODEL, STANDARDIZE, IMAGES[i : i + batch]) for i in some]
    found = np.concatenate(parts)
    assert np.array_equal(found, whole[: len(found)])


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, N - 1), max_size=N + 20))
def test_logits_are_the_same_for_any_subset_order_and_repeat(
    whole: NDArray[np.float64], rows: list[int]
) -> None:
    found = predict_logits(MODEL, STANDARDIZE, IMAGES, torch.tensor(rows, dtype=torch.int64))
    assert np.array_equal(found, whole[rows])


def test_logits_are_the_same_in_any_order(whole: NDArray[np.float64]) -> None:
    order = np.random.default_rng(0).permutation(N)
    assert np.array_equal(predict_logits(MODEL, STANDARDIZE, IMAGES[order]), whole[order])
    tensor = torch.from_numpy(IMAGES)
    assert np.array_equal(
        predict_logits(MODEL, STANDARDIZE, tensor, torch.from_numpy(order)), whole[order]
    )


def test_no_image_gives_no_logit() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for found in (
        predict_logits(MODEL, STANDARDIZE, IMAGES[:0]),
        predict_logits(MODEL, STANDARDIZE, IMAGES, none),
    ):
        assert found.shape == (0,)


def test_dropout_is_off_in_evaluation() -> None:
    noisy, plain = (stack((50,), dropout=rate, seed=3) for rate in (0.9, 0.0))
    images = films(20)
    noisy.train()
    first = predict_logits(noisy, STANDARDIZE, images)
    assert np.array_equal(predict_logits(noisy, STANDARDIZE, images), first)
    assert np.array_equal(predict_logits(plain, STANDARDIZE, images), first)


def test_dropout_is_on_in_training_at_its_rate_and_keeps_the_mean() -> None:
    rate = 0.3
    layer = stack((200,), "sigmoid", dropout=rate).hidden[0]  # a sigmoid is never 0 by itself
    x = STANDARDIZE(torch.from_numpy(films(100))).flatten(1)
    layer.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = layer(x).detach()
    layer.eval()
    clean = layer(x).detach()
    silent = dropped == 0
    spread = (rate * (1 - rate) / silent.numel()) ** 0.5
    assert float(silent.double().mean()) == pytest.approx(rate, abs=5 * spread)
    assert torch.allclose(dropped[~silent], clean[~silent] / (1 - rate))


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_and_statistics_come_back(training: bool) -> None:
    model = stack((4,), norm="batch").train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predict_logits(model, STANDARDIZE, films(3))
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_mode_comes_back_after_a_failure() -> None:
    model = stack((4,)).train()
    with pytest.raises(RuntimeError):
        predict_logits(model, STANDARDIZE, films(3, size_px=5))
    assert model.training
