"""Losses that are read some steps later: the same run to the last bit, and no wait in between."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import CPU, Poisoned, same_weights, stack, trainer, weights_of
from tiny_runs import TINY
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xray_classifier import pending
from xray_classifier import trainer as loop
from xray_classifier.callbacks import Callback, Checkpoints
from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.cli import main
from xray_classifier.data.augment import Augmentation
from xray_classifier.data.dataset import batch_positions, epoch_order
from xray_classifier.distributed import Ranks
from xray_classifier.ema import Ema
from xray_classifier.errors import NonFiniteError
from xray_classifier.history import Run
from xray_classifier.lesson.brief_training import train_briefly
from xray_classifier.lesson.rate_sweep import sweep_rates, swept_rates
from xray_classifier.model import Architecture, Dropout, build_network
from xray_classifier.optimizers import make_optimizer
from xray_classifier.pending import Pending, pending_steps, steps_to_let_go
from xray_classifier.resume import restore, training_state
from xray_classifier.step_losses import StepLosses
from xray_classifier.trainer import Trainer

EVERYTHING = Augmentation(
    rotate_degrees=20.0,
    scale=0.1,
    gamma=0.1,
    contrast=0.1,
    brightness=0.1,
    noise=0.05,
    blur=1.0,
    cutout=0.3,
    flip=True,
)
OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "sgd", "lr": 0.1},
    {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"name": "adam", "lr": 0.01, "amsgrad": True},
    {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
]


def read_later(made: Trainer, most: int = 1000) -> Trainer:
    """The same trainer, which looks at its losses after `most` steps, or at the latest moment."""
    made.pending = Pending(made.optimizer, CPU)
    made.pending._most = most
    return made


def made(later: bool, *, ema: float | None = None, most: int = 1000, **more: Any) -> Trainer:
    """A trainer with dropout, always the same; its losses read at once or later."""
    network = stack((9, 5), dropout=0.4)
    keys: dict[str, Any] = {"optimizer": OPTIMIZERS[3], **more}
    one = trainer(network, ema=None if ema is None else Ema(network, ema), **keys)
    return read_later(one, most) if later else one


def record_of(one: Trainer) -> list[dict[str, float]]:
    """The history without the time."""
    return [{k: v for k, v in row.items() if k != "elapsed_s"} for row in one.run.history.rows]


def same_state(one: Trainer, other: Trainer) -> bool:
    """Whether weights, optimizer, mean and counters of two trainers are equal to the last bit."""
    (tensors, content), (others, other_content) = training_state(one), training_state(other)
    return same_weights(dict(tensors), dict(others)) and all(
        content[key] == other_content[key] for key in ("counters", "lr", "scaler")
    )


@pytest.mark.parametrize("keys", OPTIMIZERS, ids=lambda keys: "-".join(map(str, keys)))
def test_a_flag_that_is_down_changes_no_bit_and_one_that_is_up_stops_the_optimizer(
    keys: dict[str, Any],
) -> None:
    models = [stack((5,)), stack((5,))]
    plain, flagged = (make_optimizer(model, **keys) for model in models)
    watched = Pending(flagged, CPU)
    generator = torch.Generator().manual_seed(1)

    def descend(poison: float) -> None:
        for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator) * poison
            other.grad = one.grad.clone()
        flagged.step()

    for _ in range(4):
        descend(1.0)
        plain.step()
    assert same_weights(weights_of(models[0]), weights_of(models[1]))
    assert str(plain.state_dict()) == str(flagged.state_dict())
    watched._wild.fill_(1.0)
    descend(math.nan)
    descend(1.0)
    assert same_weights(weights_of(models[0]), weights_of(models[1]))
    assert str(plain.state_dict()) == str(flagged.state_dict())
    watched._wild.zero_()
    descend(1.0)
    assert not same_weights(weights_of(models[0]), weights_of(models[1]))


@pytest.mark.parametrize("most", [1, 3, 1000])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"grad_clip": 0.05},
        {"ema": 0.9},
        {"micro_batch": 3},
        {"mixup": 0.4},
        {"augmentation": EVERYTHING},
        {"precision": "bf16"},
        {"optimizer": OPTIMIZERS[0]},
        {"optimizer": OPTIMIZERS[1], "grad_clip": 0.1, "ema": 0.9, "micro_batch": 5, "mixup": 0.4},
    ],
    ids=lambda more: "-".join(more) or "plain",
)
def test_a_run_that_is_read_later_is_the_same_to_the_last_bit(
    more: dict[str, Any], most: int
) -> None:
    at_once, later = made(False, **more), made(True, most=most, **more)
    losses = [StepLosses(), StepLosses()]
    for one, steps in zip((at_once, later), losses, strict=True):
        one.callbacks = [steps]
        one.fit()
    assert record_of(at_once) == record_of(later)
    assert same_state(at_once, later)
    assert len(losses[0].values) == 15
    assert losses[0].values == losses[1].values


class Looks(Callback):
    """Writes down how many steps were waiting after each step."""

    def __init__(self, of: Trainer) -> None:
        self.of = of
        self.waiting: list[int] = []

    def on_step_end(self, run: Run) -> None:
        self.waiting.append(len(self.of.pending.steps))


def test_steps_wait_until_they_are_due_and_never_beyond_the_epoch() -> None:
    # after each look up to twice as many may wait
    for most, expected in ((1, [0, 1, 0, 1, 2]), (2, [1, 0, 1, 2, 3]), (9, [1, 2, 3, 4, 5])):
        one = made(True, most=most, epochs=1)
        looks = Looks(one)
        one.callbacks = [looks]
        one.fit()
        assert looks.waiting == expected
        assert one.pending.steps == []
    at_once = made(False, epochs=1)
    looks = Looks(at_once)
    at_once.callbacks = [looks]
    at_once.fit()
    assert looks.waiting == [0] * 5


def test_half_a_second_goes_by_at_most_on_the_clock_of_either_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    one = made(True, n=80, epochs=1)
    seen: list[tuple[int, float]] = []

    class Slow(Callback):
        def on_step_end(self, run: Run) -> None:
            clock[0] += 0.2

        def on_loss_known(self, run: Run) -> None:
            seen.append((run.step, clock[0]))

    one.callbacks = [Slow()]
    one.fit()
    assert [step for step, _ in seen] == list(range(1, 11))
    assert all(now - 0.2 * step <= 0.5 for step, now in seen)

    step_s, number, numbers = 0.004, 1, []  # a device that is far behind: the count tells
    for _ in range(12):
        number = steps_to_let_go(number, step_s)
        numbers.append(number)
    assert numbers == [2, 4, 8, 16, 32, 64, 125, 125, 125, 125, 125, 125]
    assert steps_to_let_go(125, 10.0) == 1
    assert steps_to_let_go(256, 0.0) == pending.MOST_PENDING


class Waits(TorchDispatchMode):
    """Writes down what makes the CPU wait for a device: reading a number, and copies.

    A copy to the device does not if it comes from pinned memory and is told not to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.sent = 0
        self._pinned: list[Tensor] = []

    def __torch_dispatch__(
        self, call: Any, types: Any, args: Sequence[Any] = (), keys: Any = None
    ) -> Any:
        keys = keys or {}
        aten = torch.ops.aten
        if call is aten._pin_memory.default:
            self._pinned.append(args[0].clone())
            return self._pinned[-1]
        tensors = [leaf for leaf in tree_leaves((args, keys)) if isinstance(leaf, Tensor)]
        if call in (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default):
            self.found.append(str(call))
        copies = (aten._to_copy.default, aten.copy_.default)
        if call not in copies and len({one.device.type for one in tensors if one.ndim}) > 1:
            self.found.append(f"{call} brings a tensor over by itself")  # indices, for one
        out = call(*args, **keys)
        tensors += [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        crosses = len({tensor.device.type for tensor in tensors}) > 1
        if call in copies and crosses:
            freely = keys.get("non_blocking") and any(args[0] is one for one in self._pinned)
            self.sent += 1
            if not freely:
                self.found.append(f"{call} {keys}")
        return out


def moved_to_a_gpu_that_is_not_there(one: Trainer) -> None:
    """Put everything of a trainer on CUDA; in a FakeTensorMode tensors have no numbers."""
    cuda = torch.device("cuda")

    def there(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=cuda)

    weights = {name: there(tensor) for name, tensor in one.model.state_dict().items()}
    one.model.load_state_dict(weights, assign=True)
    for layer in one.model.modules():
        if isinstance(layer, Dropout):
            layer.seed = there(layer.seed)
    images = one.train_images
    one.train_images = replace(
        images,
        store=there(images.store),
        positions=there(images.positions),
        targets=there(images.targets),
        device=cuda,
    )
    one.optimizer = torch.optim.AdamW(one.model.parameters(), lr=0.1, fused=True)
    one.ema = Ema(one.model, 0.9)


def waits_of_a_step(monkeypatch: pytest.MonkeyPatch, one: Trainer, later: bool) -> Waits:
    """What a step on CUDA waits for, backward pass aside, for which fake tensors do not serve."""

    def no_backward(loss: Tensor) -> None:
        for parameter in one.model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(Tensor, "backward", no_backward)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    waits = Waits()
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved_to_a_gpu_that_is_not_there(one)
        one.pending = Pending(one.optimizer, torch.device("cuda")) if later else Pending()
        with waits:
            one.step(torch.arange(8))
    return waits


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_on_a_gpu_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch, norm: str, precision: str
) -> None:
    one = trainer(
        stack((9, 5), dropout=0.4, norm=norm),
        grad_clip=1.0,
        mixup=0.4,
        augmentation=EVERYTHING,
        micro_batch=None if norm == "batch" else 3,
        precision=precision,
    )
    waits = waits_of_a_step(monkeypatch, one, later=True)
    assert waits.found == []
    assert waits.sent > 0  # images and partners are told to the device, so crossings are seen


def test_a_step_of_a_mixer_on_a_gpu_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"patch_px": 3, "channels": 8, "blocks": 2, "token_units": 6, "channel_units": 7}
    keys = ("mixer", 6, (), "gelu", 0.2, "none", False, "xavier", sizes)
    one = trainer(build_network(Architecture.from_keys(*keys)), task="regress")
    assert waits_of_a_step(monkeypatch, one, later=True).found == []


def test_a_step_that_is_read_at_once_is_seen_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._subclasses.fake_tensor import DataDependentOutputException

    with pytest.raises(DataDependentOutputException, match="local_scalar_dense"):
        waits_of_a_step(monkeypatch, made(False), later=False)


def test_between_two_looks_no_number_is_read_and_a_look_is_one_transfer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transfers: list[int] = []
    stack_of = torch.stack

    def counted(tensors: Sequence[Tensor], *args: Any) -> Tensor:
        transfers.append(len(tensors))
        return stack_of(tensors, *args)

    one = made(True, n=48, epochs=1, grad_clip=1.0, ema=0.9)
    with Waits() as waits:
        for index in batch_positions(epoch_order(48, 0, 0), 8):
            one.pending.add(one.step(index))
            one.run.count(len(index))
    assert waits.found == []
    with Waits() as waits:
        torch.ones(()).item()
    assert len(waits.found) == 1
    monkeypatch.setattr(pending.torch, "stack", counted)
    one.settle()
    assert transfers == [12]  # six losses, six norms
    assert one.run.images_seen == 48


POISONS = [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)]


class Diary(Callback):
    """Keeps the weights after each step, by its number."""

    def __init__(self, of: Trainer) -> None:
        self.of = of
        self.weights: dict[int, dict[str, Tensor]] = {}

    def on_step_end(self, run: Run) -> None:
        self.weights[run.step] = weights_of(self.of.model)


def failed(one: Trainer, *callbacks: Callback) -> str:
    """What a run says that ends with a number that is not finite."""
    one.callbacks = callbacks
    with pytest.raises(NonFiniteError) as caught:
        one.fit()
    return str(caught.value)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda keys: str(keys["name"]))
@pytest.mark.parametrize("grad_clip", [None, 1.0])
@pytest.mark.parametrize(("loss", "gradient"), POISONS)
def test_a_number_that_is_not_finite_stops_the_run_before_its_step(
    loss: float, gradient: float, grad_clip: float | None, optimizer: dict[str, Any]
) -> None:
    keys: dict[str, Any] = {
        "grad_clip": grad_clip,
        "optimizer": optimizer,
        "learning_rate": lambda run: 0.01 / (1 + run.step),
    }
    said, runs, losses = [], [], []
    for later in (False, True):
        one = made(later, **keys)
        one.loss = Poisoned(7, loss, gradient)
        diary, steps = Diary(one), StepLosses()
        said.append(failed(one, diary, steps))
        runs.append(one)
        losses.append(steps.values)
        assert same_weights(weights_of(one.model), diary.weights[6])
        assert max(diary.weights) == (10 if later else 6)
    assert said[0] == said[1]
    assert "epoch 2, step 7" in said[1]
    assert losses[0] == losses[1]
    assert len(losses[1]) == 6
    assert same_state(*runs)


def test_images_with_outputs_that_are_not_finite_are_named_later_too() -> None:
    said = []
    for later in (False, True):
        one = made(later, micro_batch=3, ema=0.9)
        one.name_of = lambda row: f"film{row}"

        def spoil(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
            seen = len(outputs) == 2 and module.training and one.run.step == 3  # noqa: B023
            return outputs * torch.tensor([1.0, math.nan]) if seen else outputs

        one.model.register_forward_hook(spoil)
        said.append(failed(one))
    assert said[0] == said[1]
    order = epoch_order(40, 0, 0)
    assert f"(images with such outputs: film{int(order[31])})" in said[1]


def saving(one: Trainer, folder: Path, every_steps: int) -> Checkpoints:
    """Keeps the state of a trainer in a folder."""
    folder.mkdir(exist_ok=True)
    state: Callable[[], Any] = lambda: training_state(one)  # noqa: E731
    return Checkpoints(folder, None, state, state, every_steps, None)


def test_nothing_is_saved_after_a_step_that_was_not_taken(tmp_path: Path) -> None:
    said = []
    for later in (False, True):
        one = made(later)
        one.loss = Poisoned(7, math.nan, 1.0)
        said.append(failed(one, saving(one, tmp_path / str(later), 3)))
    assert said[0] == said[1]
    for name in ("last", "previous"):
        kept = [
            load_checkpoint(tmp_path / str(later) / f"{name}.safetensors")
            for later in (False, True)
        ]
        assert kept[0].content["counters"] == kept[1].content["counters"]
        assert kept[0].content["counters"]["step"] == {"last": 6, "previous": 3}[name]
        assert same_weights(kept[0].tensors, kept[1].tensors)


def test_a_run_goes_on_from_the_middle_of_an_epoch_as_if_it_had_not_been_stopped(
    tmp_path: Path,
) -> None:
    keys: dict[str, Any] = {"ema": 0.9, "mixup": 0.4, "grad_clip": 0.5, "n": 64}
    whole = made(False, **keys)
    whole.fit()

    class Leave(Callback):
        def on_step_end(self, run: Run) -> None:
            if run.step == 13:
                raise KeyboardInterrupt

    cut = made(True, **keys)
    cut.callbacks = [saving(cut, tmp_path, 3), Leave()]
    with pytest.raises(KeyboardInterrupt):
        cut.fit()
    state = load_checkpoint(tmp_path / "last.safetensors")
    assert state.content["counters"]["step"] == 12
    assert state.content["counters"]["batch"] == 4
    assert state.content["counters"]["loss_sum"] > 0
    again = made(True, **keys)
    restore(again, state)
    again.fit()
    assert record_of(again) == record_of(whole)
    assert same_state(again, whole)


def test_a_signal_ends_the_run_after_its_step_with_every_loss_counted() -> None:
    runs = []
    for later in (False, True):
        one = made(later)

        class Signal(Callback):
            def on_step_end(self, run: Run) -> None:
                if run.step == 7:
                    one.request.signal_name = "SIGTERM"  # noqa: B023

        one.callbacks = [Signal()]
        one.fit()
        assert (one.run.interrupted_by, one.run.step, one.run.images_seen) == ("SIGTERM", 7, 16)
        assert one.pending.steps == []
        runs.append(one)
    assert runs[0].run.loss_sum == runs[1].run.loss_sum > 0
    assert same_state(*runs)


def test_a_lone_step_gives_its_loss_and_may_be_followed_by_another_after_a_failure() -> None:
    index = torch.arange(8)
    at_once, later = made(False), made(True)
    assert at_once.step_and_wait(index) == later.step_and_wait(index)
    for one in (at_once, later):
        fine, one.loss = one.loss, Poisoned(1, math.nan, 1.0)
        before = weights_of(one.model)
        with pytest.raises(NonFiniteError, match="epoch 1, step 1"):
            one.step_and_wait(index)
        assert same_weights(before, weights_of(one.model))
        one.loss = fine
    assert at_once.step_and_wait(index) == later.step_and_wait(index)
    assert same_weights(weights_of(at_once.model), weights_of(later.model))


def test_running_out_of_memory_halves_the_part_in_a_run_that_is_read_later() -> None:
    tight, parts = made(True), made(False, micro_batch=2)

    def refuse(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training and len(inputs[0]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    tight.model.register_forward_pre_hook(refuse)
    for one in (tight, parts):
        one.fit()
    assert tight.micro_batch == 2
    assert record_of(tight) == record_of(parts)
    assert same_state(tight, parts)


def test_rate_sweeps_and_brief_trainings_end_where_they_would() -> None:
    rates = swept_rates(1e-3, 1e4, 30)
    sweeps = [sweep_rates(made(later, optimizer=OPTIMIZERS[0]), rates) for later in (False, True)]
    assert sweeps[0].losses.tolist() == sweeps[1].losses.tolist()
    assert sweeps[0].batch_losses.tolist() == sweeps[1].batch_losses.tolist()
    assert sweeps[0].diverged_at == sweeps[1].diverged_at is not None
    curves = []
    for later in (False, True):
        one = made(later)
        one.loss = Poisoned(7, math.nan, 1.0)
        curves.append(train_briefly(one, (one.train_images,), 4))
    for curve in curves:
        assert curve.diverged
        assert curve.steps.tolist() == [0, 4]
    assert curves[0].losses.tolist() == curves[1].losses.tolist()


def test_losses_are_read_later_on_cuda_with_an_optimizer_that_can_skip_and_alone() -> None:
    off = torch.amp.GradScaler("cpu", enabled=False)
    on = torch.amp.GradScaler("cpu", enabled=True)
    cuda = torch.device("cuda")
    weights = [nn.Parameter(torch.zeros(2))]
    fused = torch.optim.AdamW(weights, fused=True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert pending_steps(fused, cuda, off).later
        assert pending_steps(fused, cuda, off, Ranks()).later
        for optimizer, device, scaler, ranks in (
            (torch.optim.AdamW(weights, fused=True), CPU, off, None),
            (torch.optim.AdamW(weights, fused=True), torch.device("mps"), off, None),
            (torch.optim.RMSprop(weights), cuda, off, None),
            (torch.optim.AdamW(weights, fused=True), cuda, on, None),
            (torch.optim.AdamW(weights, fused=True), cuda, off, Ranks(0, 2)),
        ):
            assert not pending_steps(optimizer, device, scaler, ranks).later
            assert not hasattr(optimizer, "found_inf")


def test_a_whole_run_that_is_read_later_leaves_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*TINY, "train.lesson=true", "train.checkpoint_every.steps=2", "train.ema=0.9"]
    runs = []
    for name in ("at_once", "later"):
        if name == "later":
            monkeypatch.setattr(loop, "pending_steps", lambda o, device, *_: Pending(o, device))
        assert main(["train", "-c", "demo", "-q", "-o", str(tmp_path), "--name", name, *words]) == 0
        runs.append(next(tmp_path.glob(f"*_{name}")))
    for path in ("predictions_val.csv", "lesson/flow.csv"):
        assert (runs[0] / path).read_bytes() == (runs[1] / path).read_bytes()
    states = [load_checkpoint(run / "checkpoints" / "last.safetensors") for run in runs]
    assert same_weights(states[0].tensors, states[1].tensors)
    assert states[0].content["counters"] == states[1].content["counters"]
