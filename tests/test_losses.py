"""The losses against scikit-learn, NumPy and numbers made by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mean_squared_error

from xray_classifier.building import run_loss
from xray_classifier.config import Config
from xray_classifier.errors import DataError
from xray_classifier.losses import BinaryCrossEntropy, SquaredError, balanced_pos_weight


def bce(
    logits: list[float], targets: list[float], weight: float = 1.0, smooth: float = 0.0
) -> float:
    loss = BinaryCrossEntropy(weight, smooth)
    return float(loss(*(torch.tensor(v, dtype=torch.float64) for v in (logits, targets))))


def test_cross_entropy_equals_scikit_learns_log_loss() -> None:
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(0, 3, 200), rng.integers(0, 2, 200)
    expected = log_loss(truth, 1 / (1 + np.exp(-logits)))
    assert bce(logits.tolist(), truth.tolist()) == pytest.approx(expected, rel=1e-10)


def test_cross_entropy_of_three_images_by_hand() -> None:
    # p = 0.5, 0.8, 0.2 for a sick, a sick and a healthy image
    logits = [0.0, math.log(4), -math.log(4)]
    expected = (math.log(2) - math.log(0.8) - math.log(0.8)) / 3
    assert bce(logits, [1, 1, 0]) == pytest.approx(expected, rel=1e-7)


def test_pos_weight_counts_sick_images_more_and_healthy_ones_once() -> None:
    logits = [math.log(4), math.log(4)]
    expected = (3 * -math.log(0.8) - math.log(0.2)) / 2
    assert bce(logits, [1, 0], weight=3.0) == pytest.approx(expected, rel=1e-7)


def test_label_smoothing_moves_targets_half_way_of_s_to_one_half() -> None:
    # s = 0.2: the sick target is 0.9, the healthy one 0.1
    logits = [math.log(4), math.log(4)]
    sick = -0.9 * math.log(0.8) - 0.1 * math.log(0.2)
    healthy = -0.1 * math.log(0.8) - 0.9 * math.log(0.2)
    assert bce(logits, [1, 0], smooth=0.2) == pytest.approx((sick + healthy) / 2, rel=1e-7)


def test_pos_weight_and_smoothing_together() -> None:
    expected = -2.0 * 0.95 * math.log(0.8) - 0.05 * math.log(0.2)
    assert bce([math.log(4)], [1], weight=2.0, smooth=0.1) == pytest.approx(expected, rel=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    logit=st.floats(-30, 30),
    target=st.sampled_from([0.0, 1.0]),
    weight=st.floats(0.1, 10),
    smooth=st.floats(0, 0.9),
)
def test_the_gradient_of_cross_entropy_is_the_textbook_one(
    logit: float, target: float, weight: float, smooth: float
) -> None:
    z = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    BinaryCrossEntropy(weight, smooth)(z, torch.tensor([target], dtype=torch.float64)).backward()
    p = 1 / (1 + math.exp(-logit))
    y = target * (1 - smooth) + smooth / 2
    assert z.grad is not None
    assert float(z.grad) == pytest.approx(p * (1 - y) - weight * y * (1 - p), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("logit", [1e4, -1e4, 3e38, -3e38])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_extreme_logits_give_a_finite_loss_and_gradient(logit: float, target: float) -> None:
    z = torch.tensor([logit], requires_grad=True)
    loss = BinaryCrossEntropy()(z, torch.tensor([target]))
    loss.backward()
    wrong = (logit > 0) != (target == 1.0)
    assert float(loss.detach()) == pytest.approx(abs(logit) if wrong else 0.0, rel=1e-6)
    assert z.grad is not None
    assert float(z.grad) == pytest.approx(math.copysign(1.0, logit) if wrong else 0.0, abs=1e-6)


def test_squared_error_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=50), rng.normal(size=50)
    found = float(SquaredError()(torch.from_numpy(outputs), torch.from_numpy(targets)))
    assert found == pytest.approx(mean_squared_error(targets, outputs), rel=1e-12)
    assert float(SquaredError()(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))) == 5.0


def test_the_balanced_weight_makes_a_blind_model_answer_one_half() -> None:
    # at logit 0 the pulls of 90 healthy and 10 sick images cancel
    z = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    truth = torch.cat([torch.zeros(90), torch.ones(10)]).double()
    weight = balanced_pos_weight(90, 10)
    assert weight == 9.0
    BinaryCrossEntropy(weight)(z.expand(100), truth).backward()
    assert z.grad is not None
    assert float(z.grad) == pytest.approx(0.0, abs=1e-15)


def loss_of(truth: list[float], **train: object) -> torch.nn.Module:
    config = Config.model_validate({"data": {"source": "phantoms"}, "train": train})
    return run_loss(config, np.array(truth))


def test_the_config_chooses_the_weight() -> None:
    truth = [0.0, 0.0, 0.0, 1.0]
    for keys, weight in (({}, 1.0), ({"pos_weight": 2.5}, 2.5), ({"pos_weight": "auto"}, 3.0)):
        loss = loss_of(truth, **keys)
        assert isinstance(loss, BinaryCrossEntropy)
        assert loss.pos_weight == weight
    smoothed = loss_of(truth, label_smoothing=0.1)
    assert isinstance(smoothed, BinaryCrossEntropy)
    assert smoothed.label_smoothing == 0.1


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_one_class_alone_cannot_be_learnt(only: float) -> None:
    with pytest.raises(DataError, match="both classes are needed"):
        loss_of([only] * 4)


def test_numbers_are_learnt_by_squared_error() -> None:
    config = Config.model_validate(
        {"task": "regress", "data": {"source": "csv", "path": "films.csv"}}
    )
    assert isinstance(run_loss(config, np.array([1.5, 2.0])), SquaredError)
