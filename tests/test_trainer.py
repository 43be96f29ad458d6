"""The loop against gradient descent written by hand, and what must hold whatever happens."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from builders import Poisoned, films, labels, output, same_weights, stack, trainer, weights_of
from numpy.typing import NDArray
from sklearn.metrics import log_loss, r2_score, roc_auc_score

from xray_classifier.building import _require_images
from xray_classifier.callbacks import Callback
from xray_classifier.config import Config
from xray_classifier.data.dataset import epoch_order
from xray_classifier.errors import DataError, NonFiniteError
from xray_classifier.history import Run
from xray_classifier.pending import TakenStep
from xray_classifier.trainer import Trainer, split_loss


def pixels(images: NDArray[np.uint8], train: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Flat standardised pixels (n, S * S) by NumPy alone."""
    levels = images.reshape(len(images), -1) / 255
    flat: NDArray[np.float64] = (levels - train.mean() / 255) / (train.std() / 255)
    return flat


class Batches(Callback):
    """Writes down which images each step saw, by spying on the split."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def watch(self, made: Trainer) -> None:
        step = made.step

        def spy(index: torch.Tensor) -> TakenStep:
            self.seen.append(index.tolist())
            return step(index)

        made.step = spy  # type: ignore[method-assign]


def test_training_a_perceptron_equals_gradient_descent_in_numpy() -> None:
    made = trainer(stack(), n=21, batch_size=8, epochs=3)
    model = made.model
    w = output(model).weight.detach().double().numpy()[0].copy()
    b = 0.0
    made.fit()
    x, y = pixels(films(21), films(21)), labels(21)
    losses = []
    for epoch in range(3):
        order = epoch_order(21, 0, epoch).numpy()
        total = 0.0
        for index in (order[:8], order[8:16], order[16:]):
            z = x[index] @ w + b
            p = 1 / (1 + np.exp(-z))
            total += log_loss(y[index], p, normalize=False, labels=[0, 1])
            w = w - 0.1 * (p - y[index]) @ x[index] / len(index)
            b = b - 0.1 * float((p - y[index]).mean())
        losses.append(total / 21)
    found = output(model).weight.detach().numpy()[0]
    assert found == pytest.approx(w, rel=1e-4, abs=1e-5)
    assert made.run.history.column("train_loss") == pytest.approx(losses, rel=1e-5)
    assert made.run.history.column("step") == [3, 6, 9]

    z = pixels(films(20, 1), films(21)) @ w + b
    row = made.run.history.rows[-1]
    assert row["val_loss"] == pytest.approx(log_loss(labels(20, 1), 1 / (1 + np.exp(-z))), rel=1e-4)
    assert row["val_auroc"] == pytest.approx(roc_auc_score(labels(20, 1), z), abs=1e-9)
    assert made.run.val_outputs == pytest.approx(z, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_full_batch_descent_with_a_small_step_never_raises_a_convex_loss(seed: int) -> None:
    n = 30
    x = np.hstack([pixels(films(n), films(n)), np.ones((n, 1))])
    curvature = np.linalg.eigvalsh(x.T @ x / n)[-1] / 4  # p(1-p) is at most a quarter
    lr = 1.9 / curvature
    made = trainer(
        stack(seed=seed), n=n, batch_size=n, epochs=60, optimizer={"name": "sgd", "lr": lr}
    )
    made.fit()
    losses = made.run.history.column("train_loss")
    assert made.run.steps_per_epoch == 1
    assert len(losses) == 60
    assert all(after <= before + 1e-7 for before, after in itertools.pairwise(losses))
    assert losses[-1] < 0.6 * losses[0]


def test_a_step_too_large_for_the_curvature_does_raise_it() -> None:
    n = 30
    made = trainer(stack(), n=n, batch_size=n, epochs=10, optimizer={"name": "sgd", "lr": 50.0})
    made.fit()
    losses = made.run.history.column("train_loss")
    assert any(after > before for before, after in itertools.pairwise(losses))


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 9), (8, [9]), (4, [4, 5]), (9, [9])])
def test_each_epoch_sees_each_image_once_in_the_order_of_seed_and_epoch(
    batch_size: int, sizes: list[int]
) -> None:
    made, batches = trainer(n=9, batch_size=batch_size, epochs=2, seed=3), Batches()
    batches.watch(made)
    made.fit()
    assert [len(b) for b in batches.seen] == sizes * 2
    flat = list(itertools.chain(*batches.seen))
    assert flat == epoch_order(9, 3, 0).tolist() + epoch_order(9, 3, 1).tolist()
    assert made.run.step == 2 * len(sizes)


def test_two_runs_of_one_seed_are_equal_to_the_last_bit_and_other_seeds_differ() -> None:
    def final(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)  # the global state must not matter
        made = trainer(stack((6,), dropout=0.5), seed=seed)
        made.fit()
        return weights_of(made.model)

    assert same_weights(final(0, 1), final(0, 2))
    assert not same_weights(final(0, 1), final(1, 1))


def test_dropout_draws_anew_at_each_step() -> None:
    made = trainer(stack((64,), dropout=0.5), optimizer={"name": "sgd", "lr": 1e-12})
    index = torch.arange(8)
    losses = []
    for made.run.step in range(4):
        losses.append(made.step(index).loss)
    made.run.step = 0
    assert len(set(losses)) == 4
    assert made.step(index).loss == losses[0]


def test_regression_learns_numbers_by_squared_error() -> None:
    truth = np.random.default_rng(0).normal(size=40)
    made = trainer(stack(), task="regress", targets=truth, epochs=2)
    made.fit()
    outputs, loss = split_loss(made.model, made.standardize, made.loss, made.val_images)  # type: ignore[arg-type]
    row = made.run.history.rows[-1]
    assert row["val_loss"] == loss
    assert loss == pytest.approx(((outputs - truth[:20]) ** 2).mean(), rel=1e-6)
    assert row["val_r2"] == pytest.approx(r2_score(truth[:20], outputs), rel=1e-6)


def test_without_a_validation_split_its_columns_are_nan() -> None:
    made = trainer(n_val=0, epochs=1)
    made.fit()
    row = made.run.history.rows[0]
    assert math.isnan(row["val_loss"])
    assert math.isnan(row["val_auroc"])
    assert math.isfinite(row["train_loss"])


def test_validation_judges_without_dropout_and_leaves_no_trace() -> None:
    made = trainer(stack((30,), dropout=0.8, norm="batch"))
    made.model.train()
    before = weights_of(made.model)
    assert made.validate() == made.validate()
    assert same_weights(before, weights_of(made.model))


def test_each_step_uses_the_rate_of_its_step_and_the_record_the_last_one() -> None:
    asked: list[int] = []

    def rate(run: Run) -> float:
        asked.append(run.step)
        return 0.1 / (1 + run.step)

    made = trainer(n=16, batch_size=8, epochs=2, learning_rate=rate)
    made.fit()
    assert asked == [0, 1, 2, 3]
    assert made.run.history.column("lr") == [0.1 / 2, 0.1 / 4]


def test_a_rate_of_zero_moves_nothing() -> None:
    made = trainer(learning_rate=lambda run: 0.0)
    before = weights_of(made.model)
    made.fit()
    assert same_weights(before, weights_of(made.model))


@pytest.mark.parametrize("limit", [1e-3, 0.05])
def test_clipping_limits_the_length_of_the_step_not_its_direction(limit: float) -> None:
    def moved(grad_clip: float | None) -> torch.Tensor:
        made = trainer(stack((5,)), grad_clip=grad_clip, optimizer={"name": "sgd", "lr": 1.0})
        before = [p.detach().clone() for p in made.model.parameters()]
        made.step(torch.arange(8))
        pairs = zip(made.model.parameters(), before, strict=True)
        return torch.cat([(b - p.detach()).flatten() for p, b in pairs])

    free, clipped = moved(None), moved(limit)
    assert float(free.norm()) > limit
    assert float(clipped.norm()) == pytest.approx(limit, rel=1e-3)
    assert torch.allclose(clipped / clipped.norm(), free / free.norm(), atol=1e-3)
    assert torch.equal(moved(1e6), free)


@pytest.mark.parametrize("grad_clip", [None, 1.0])
@pytest.mark.parametrize(
    ("loss", "gradient", "words"),
    [
        (math.nan, 1.0, "the loss became nan"),
        (math.inf, 1.0, "the loss became inf"),
        (1.0, math.nan, "the gradient norm became nan"),
        (1.0, math.inf, "the gradient norm became"),
    ],
)
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_step(
    loss: float, gradient: float, words: str, grad_clip: float | None
) -> None:
    snapshots: list[dict[str, torch.Tensor]] = []

    class Snapshots(Callback):
        def on_step_end(self, run: Run) -> None:
            snapshots.append(weights_of(made.model))

    made = trainer(stack((4,)), grad_clip=grad_clip, callbacks=[Snapshots()])
    made.loss = Poisoned(when=7, loss=loss, gradient=gradient)
    with pytest.raises(NonFiniteError, match=words) as caught:
        made.fit()
    assert caught.value.exit_code == 7
    assert "epoch 2, step 7" in str(caught.value)  # 40 images are 5 batches an epoch
    assert len(snapshots) == 6
    assert same_weights(weights_of(made.model), snapshots[-1])


def test_weights_that_are_not_finite_stop_the_run() -> None:
    made = trainer(stack((4,)))
    with torch.no_grad():
        output(made.model).bias.fill_(math.nan)
    words = r"the loss became nan \(images .*\) in epoch 1, step 1"
    with pytest.raises(NonFiniteError, match=words):
        made.fit()
    with pytest.raises(NonFiniteError, match="validation loss"):
        made.validate()


def test_a_signal_ends_the_run_after_the_step_with_nothing_lost() -> None:
    class Signal(Callback):
        ended = False

        def on_step_end(self, run: Run) -> None:
            if run.step == 7:
                made.request.signal_name = "SIGTERM"

        def on_train_end(self, run: Run) -> None:
            self.ended = True

    signal = Signal()
    made = trainer(callbacks=[signal])
    made.fit()
    run = made.run
    assert signal.ended
    assert (run.epoch, run.batch, run.step, run.images_seen) == (1, 2, 7, 16)
    assert (run.interrupted_by, run.stop_reason) == ("SIGTERM", "SIGTERM received")
    assert len(run.history.rows) == 1


def test_callbacks_are_told_in_order_and_a_stop_ends_after_the_epoch() -> None:
    told: list[Any] = []

    class Diary(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_train_start(self, run: Run) -> None:
            told.append((self.name, "start"))

        def on_step_end(self, run: Run) -> None:
            told.append((self.name, run.step))
            run.stop("enough")

        def on_epoch_end(self, run: Run) -> None:
            told.append((self.name, "epoch", len(run.history.rows)))

        def on_train_end(self, run: Run) -> None:
            told.append((self.name, "end"))

    made = trainer(n=16, batch_size=8, callbacks=[Diary("a"), Diary("b")])
    made.fit()
    events: list[Any] = [("start",), (1,), (2,), ("epoch", 1), ("end",)]
    assert told == [(name, *event) for event in events for name in "ab"]
    assert made.run.stop_reason == "enough"


def test_a_run_to_the_end_says_so() -> None:
    made = trainer(epochs=2)
    made.fit()
    assert made.run.stop_reason == "all 2 epochs done"
    assert made.run.epoch == 2


def test_bf16_on_the_cpu_trains_close_to_fp32_and_validates_in_fp32() -> None:
    exact, rough = trainer(stack((8,))), trainer(stack((8,)), precision="bf16")
    assert exact.validate() == rough.validate()
    exact.fit()
    rough.fit()
    one, other = (made.run.history.column("train_loss") for made in (exact, rough))
    assert one != other
    assert one == pytest.approx(other, rel=0.03)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({}, "monitor is val_loss"),
        ({"early_stopping": None, "schedule": {"name": "plateau"}}, "plateau, which watches"),
        ({"early_stopping": None}, None),
        ({"early_stopping": {"monitor": "train_loss"}}, None),
    ],
)
def test_what_watches_validation_needs_a_validation_split(
    train: dict[str, Any], words: str | None
) -> None:
    config = Config.model_validate({"data": {"source": "phantoms"}, "train": train})
    some, none = np.arange(5), np.arange(0)
    truth = np.array([0.0, 1.0, 0.0, 1.0, 0.0])
    _require_images({"train": some, "val": some}, truth, config)
    if words is None:
        _require_images({"train": some, "val": none}, truth, config)
    else:
        with pytest.raises(DataError, match=words):
            _require_images({"train": some, "val": none}, truth, config)
    with pytest.raises(DataError, match="no image is left"):
        _require_images({"train": none, "val": some}, truth, config)
