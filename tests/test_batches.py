"""What is learnt from a batch does not depend on how it is cut up, and what is done to it is
counted by hand: micro-batches, dropout, mixup, augmentation, the mean of the weights."""

from typing import Any

import numpy as np
import pytest
import torch
from builders import films, same_weights, stack, trainer, weights_of
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_classifier.data.augment import Augmentation, augmented
from xray_classifier.data.dataset import mixed_seed
from xray_classifier.distributed import Ranks
from xray_classifier.ema import Ema
from xray_classifier.errors import MemoryRunOutError, NonFiniteError
from xray_classifier.model import Dropout, place_dropout
from xray_classifier.trainer import AUGMENT_STREAM, MIXUP_STREAM, Trainer, split_loss

TURNED = Augmentation(rotate_degrees=20.0, noise=0.05)


def made(**more: Any) -> Trainer:
    """A trainer with dropout, mixup and augmentation, always the same."""
    keys: dict[str, Any] = {"augmentation": TURNED, "mixup": 0.4, **more}
    return trainer(stack((9, 5), dropout=0.4), epochs=2, **keys)


def difference(one: Trainer, other: Trainer) -> float:
    """Largest difference between the weights of two trainers."""
    a, b = weights_of(one.model), weights_of(other.model)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_micro_batches_change_the_last_bits_alone(size: int) -> None:
    whole, parts = made(), made(micro_batch=size)
    whole.fit()
    parts.fit()
    assert difference(whole, parts) < 1e-5
    assert whole.run.history.column("train_loss") == pytest.approx(
        parts.run.history.column("train_loss"), abs=1e-6
    )


def test_dropout_of_a_part_is_that_of_the_whole() -> None:
    layer = Dropout(0.3).train()
    x = torch.ones(40, 50)
    layer.place(11, torch.arange(40))
    whole = layer(x)
    layer.place(11, torch.arange(40)[13:29])
    assert torch.equal(layer(x[13:29]), whole[13:29])
    assert whole.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert float((whole == 0).float().mean()) == pytest.approx(0.3, abs=0.04)
    layer.place(12, torch.arange(40))
    assert not torch.equal(layer(x), whole)


def test_layers_and_steps_drop_other_units() -> None:
    model = nn.Sequential(Dropout(0.5), nn.Identity(), Dropout(0.5)).train()
    place_dropout(model, 5, torch.arange(30))
    one, other = model[0](torch.ones(30, 20)), model[2](torch.ones(30, 20))
    assert not torch.equal(one, other)
    assert torch.equal(model.eval()(torch.ones(3, 2)), torch.ones(3, 2))


def out_of_memory_above(limit: int, model: nn.Module, kind: type[Exception]) -> list[int]:
    """Let a model fail on more than `limit` images; returns the sizes that it was given."""
    sizes: list[int] = []

    def refuse(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            sizes.append(len(inputs[0]))
            if len(inputs[0]) > limit:
                raise kind("CUDA out of memory. Tried to allocate 20 GiB")

    model.register_forward_pre_hook(refuse)
    return sizes


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_running_out_of_memory_halves_the_part_and_nothing_else(kind: type[Exception]) -> None:
    whole, tight = made(), made()
    sizes = out_of_memory_above(3, tight.model, kind)
    whole.fit()
    tight.fit()
    assert sizes[:4] == [8, 4, 2, 2]
    assert max(sizes[2:]) == 2  # what fitted once is kept
    assert difference(whole, tight) < 1e-5


def test_one_image_that_does_not_fit_ends_with_8() -> None:
    hopeless = made()
    out_of_memory_above(0, hopeless.model, torch.OutOfMemoryError)
    with pytest.raises(MemoryRunOutError, match="single image") as caught:
        hopeless.fit()
    assert caught.value.exit_code == 8


def test_no_memory_for_the_optimizer_ends_with_8(monkeypatch: pytest.MonkeyPatch) -> None:
    hopeless = made()

    def refuse(*args: object, **keys: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 GB")

    monkeypatch.setattr(hopeless.optimizer, "step", refuse)
    with pytest.raises(MemoryRunOutError, match="optimizer"):
        hopeless.fit()


def test_batch_norm_is_not_cut_into_parts() -> None:
    normed = trainer(stack((9,), norm="batch"))
    out_of_memory_above(3, normed.model, torch.OutOfMemoryError)
    with pytest.raises(MemoryRunOutError, match=r"model\.norm=layer"):
        normed.fit()


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    broken = made()
    out_of_memory_above(0, broken.model, ValueError)
    with pytest.raises(ValueError, match="CUDA out of memory"):
        broken.fit()


def test_mixup_is_the_blend_counted_by_hand() -> None:
    one = trainer(stack(), n=12, batch_size=12, mixup=0.7)
    index = torch.arange(12).flip(0)
    one.run.step = 4
    rng = np.random.default_rng(mixed_seed(0, MIXUP_STREAM, 4))
    partners = rng.permutation(12)
    share = rng.beta(0.7, 0.7, 12).astype(np.float32)
    pixels = films(12).astype(np.float32)[index.numpy()]
    targets = one.train_images.targets.numpy()[index.numpy()]
    lam = share[:, None, None]
    truth = lam * pixels + (1 - lam) * pixels[partners]
    images, blended = one._blended(index, index[3:7], torch.arange(12)[3:7])
    assert np.allclose(images.numpy(), truth[3:7], atol=1e-4)
    expected = share * targets + (1 - share) * targets[partners]
    assert np.allclose(blended.numpy(), expected[3:7], atol=1e-6)


def test_augmentation_is_a_function_of_seed_epoch_and_image() -> None:
    one = trainer(stack(), n=20, augmentation=TURNED, seed=3)
    index = torch.tensor([7, 2, 19])
    one.run.epoch = 5
    images, targets = one._seen(index)
    samples: NDArray[np.uint8] = films(20)[index.numpy()]
    truth = augmented(
        torch.from_numpy(samples), index, settings=TURNED, seed=mixed_seed(3, AUGMENT_STREAM),
        epoch=5,
    )  # fmt: skip
    assert torch.equal(images, truth)
    assert torch.equal(targets, one.train_images.targets[index])
    one.run.epoch = 6
    assert not torch.equal(one._seen(index)[0], images)


def test_validation_is_never_augmented_or_blended() -> None:
    plain, changed = trainer(stack()), trainer(stack(), augmentation=TURNED, mixup=0.5)
    assert plain.validate() == changed.validate()


def test_the_mean_of_the_weights_is_judged_and_the_live_ones_go_on() -> None:
    model = stack((5,))
    averaged = trainer(model, ema=Ema(model, 0.9), epochs=2)
    plain = trainer(stack((5,)), epochs=2)
    averaged.fit()
    plain.fit()
    assert same_weights(weights_of(averaged.model), weights_of(plain.model))
    assert averaged.val_images is not None
    assert averaged.ema is not None
    mean = stack((5,))
    mean.load_state_dict(averaged.ema.state_dict())
    _, loss = split_loss(mean, averaged.standardize, averaged.loss, averaged.val_images)
    assert averaged.run.history.column("val_loss")[-1] == loss
    assert plain.run.history.column("val_loss")[-1] != loss


def test_two_processes_in_turn_add_up_to_one() -> None:
    """The gradients of two ranks, added by hand, are the gradient of one process."""
    whole = made()
    index = torch.arange(9)
    whole.step(index)
    gradients = []
    for rank in range(2):
        part = made()
        part.ranks = Ranks(rank, 2)
        mine = part.ranks.share(9)
        part.model.train()
        part._gradient(index, index[mine], torch.arange(9)[mine])
        gradients.append([p.grad.clone() for p in part.model.parameters() if p.grad is not None])
    for whole_p, one, other in zip(whole.model.parameters(), *gradients, strict=True):
        assert whole_p.grad is not None
        assert torch.allclose(whole_p.grad, one + other, atol=1e-6)


def test_a_gradient_that_is_not_finite_takes_no_step_whatever_the_parts() -> None:
    wild = made(micro_batch=2)
    with torch.no_grad():
        wild.model.get_parameter("output.weight").fill_(float("inf"))
    before = weights_of(wild.model)
    with pytest.raises(NonFiniteError):
        wild.step(torch.arange(8))
    assert same_weights(before, weights_of(wild.model))


def test_images_with_outputs_that_are_not_finite_are_named() -> None:
    one = trainer(stack((5,)), n=20)
    one.name_of = lambda row: f"film{row}"
    index = torch.tensor([4, 9, 13])

    def spoil(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        return outputs * torch.tensor([1.0, float("nan"), 1.0])

    one.model.register_forward_hook(spoil)
    with pytest.raises(NonFiniteError, match="film9\\)") as caught:
        one.step(index)
    assert "film4" not in str(caught.value)
