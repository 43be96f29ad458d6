"""The training loop: forward, loss, backward, step; epoch after epoch.

Gradient descent in one breath: push a batch of images through the stack, measure how wrong the
answers are (the loss), ask how the loss would change with each weight (the gradient, by the chain
rule from the last layer back to the first), and move every weight a little downhill.

The order of the images is a function of (seed, epoch), what augmentation does to one of (seed,
epoch, image), dropout of (seed, step, place in the batch), the learning rate of the step and the
history. So a run that was stopped goes on as if it had not been, and a batch may be cut into parts
and shared out among processes without changing what is learnt.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_classifier.callbacks import Callback
from xray_classifier.data.augment import Augmentation, augmented
from xray_classifier.data.dataset import (
    LabelledImages,
    Standardize,
    batch_positions,
    epoch_order,
    mixed_seed,
)
from xray_classifier.devices import sent
from xray_classifier.distributed import Ranks, shard_of
from xray_classifier.ema import Ema
from xray_classifier.errors import MemoryRunOutError, NonFiniteError
from xray_classifier.history import Run
from xray_classifier.inference import predict_logits
from xray_classifier.metrics import auroc, r2
from xray_classifier.model import place_dropout
from xray_classifier.pending import Part, Pending, TakenStep, pending_steps, read_back
from xray_classifier.signals import STOP_SIGNALS, StopRequest

DROPOUT_STREAM, AUGMENT_STREAM, MIXUP_STREAM = 1, 2, 3
NAMED = 10
REMEDY = (
    "take a smaller data.image.size or model.hidden, or free memory and go on with "
    "`train --resume RUN`"
)
NO_MEMORY = f"memory ran out beside the passes through the network, as for the optimizer; {REMEDY}"
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass
class Trainer:
    """Everything that one training run moves.

    Attributes:
        model: Standardised images (B, C, S, S) to outputs (B,), on its device.
        standardize: uint8 images to standardised ones.
        loss: Outputs (B,) and targets (B,) to a scalar.
        optimizer: Of the model's parameters.
        learning_rate: Rate at a step, given the number of steps taken.
        train_images: What the weights learn from.
        val_images: What early stopping watches; None without a validation split.
        task: classify or regress.
        batch_size: Images per step.
        seed: Of order and dropout.
        precision: fp32, bf16 or fp16.
        grad_clip: Largest Euclidean norm of the gradient; None is no limit.
        callbacks: Told about each step and epoch, in order.
        run: Where the run stands.
        request: Rises when a signal asks to stop.
        scaler: Loss scaling of fp16; does nothing otherwise.
        ranks: The processes that share each batch.
        augmentation: Random changes of the training images; None is none.
        mixup: Parameter of the Beta distribution that blends images of a batch; None is none.
        ema: Running mean of the weights, which is what is judged and kept; None is none.
        micro_batch: Images that go through the network at once; None is all of a batch.
        forward: The network, compiled; None is `model` itself.
        name_of: Row of the manifest to the name of the image, for messages.
        pending: Steps whose losses are not counted yet; on a GPU they are read now and then.
    """

    model: nn.Module
    standardize: Standardize
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate: Callable[[Run], float]
    train_images: LabelledImages
    val_images: LabelledImages | None
    task: str
    batch_size: int
    seed: int
    precision: str
    grad_clip: float | None
    callbacks: Sequence[Callback]
    run: Run
    request: StopRequest
    scaler: torch.amp.GradScaler
    ranks: Ranks = field(default_factory=Ranks)
    augmentation: Augmentation | None = None
    mixup: float | None = None
    ema: Ema | None = None
    micro_batch: int | None = None
    forward: Callable[[Tensor], Tensor] | None = None
    name_of: Callable[[int], str] = str
    pending: Pending = field(init=False)

    def __post_init__(self) -> None:
        """Have the images' places where the images are: a GPU need not ask the CPU for them."""
        split = self.train_images
        self.pending = pending_steps(self.optimizer, split.device, self.scaler, self.ranks)
        positions = split.positions.to(split.store.device)
        self.train_images = replace(split, positions=positions)

    def fit(self) -> None:
        """Train until the epochs are done, a callback stops the run or a signal comes.

        Raises:
            NonFiniteError: The loss or the gradient is NaN or infinite; no step was taken on it.
        """
        try:
            for callback in self.callbacks:
                callback.on_train_start(self.run)
            try:
                self._run_epochs()
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error):
                    raise MemoryRunOutError(NO_MEMORY) from error
                raise
            self.run.ended_s = time.monotonic()
            self.optimizer.zero_grad(set_to_none=True)  # its memory is of use to what follows
            for callback in self.callbacks:
                callback.on_train_end(self.run)
        except BaseException:
            for step in self.pending.dropped():  # nobody knows whether they could be taken
                self.run.count(-step.n_images, -1)
            for callback in self.callbacks:
                callback.on_train_abort(self.run)
            raise

    def _run_epochs(self) -> None:
        run = self.run
        while run.epoch < run.epochs and run.stop_reason is None:
            self.train_epoch()
            if run.interrupted_by is not None:
                run.stop(f"{run.interrupted_by} received")
                return
            self.finish_epoch()
        run.stop(f"all {run.epochs} epochs done")

    def train_epoch(self) -> None:
        """Take the steps of one epoch, or those that are left of it."""
        run = self.run
        order = epoch_order(len(self.train_images), self.seed, run.epoch)
        for index in batch_positions(order, self.batch_size, first_batch=run.batch):
            self.pending.add(self.step(index))
            run.count(len(index))
            if self.pending.due:
                self.settle()
            for callback in self.callbacks:
                callback.on_step_end(run)
            if self._asked_to_stop():
                break
        self.settle()

    def settle(self) -> None:
        """Count the losses of all steps since the last time; a GPU has to have done them first.

        Raises:
            NonFiniteError: A loss or gradient is NaN or infinite. The run stands before that step;
                neither it nor any after it was taken.
        """
        run = self.run
        steps = self.pending.take_all()
        for step in steps:  # back to where the first was taken, and forward one by one
            run.count(-step.n_images, -1)
        for step in steps:
            self._require_finite(step)
            run.count(step.n_images)
            run.loss_sum += step.loss * step.n_images
            for callback in self.callbacks:
                callback.on_loss_known(run)

    def step_and_wait(self, index: Tensor) -> float:
        """One step of gradient descent on the images at `index` (B,); returns their mean loss."""
        self.settle()  # what waits has a flag of its own
        step = self.step(index)
        if self.pending.later:
            self.pending.fetch([step])
            self._require_finite(step)
        return step.loss

    def step(self, index: Tensor) -> TakenStep:
        """One step of gradient descent on the images at `index` (B,).

        Raises:
            NonFiniteError: Loss or gradient is NaN or infinite, and that was looked at before the
                step. Where it is looked at later, the device leaves out such a step by itself.
        """
        self.model.train()
        self._set_learning_rate()
        mine, places = shard_of(index, self.ranks)
        parts = self._gradient(index, mine, places)
        self.ranks.sum_gradients(list(self.model.parameters()))
        step = TakenStep(len(index), parts, self._gradient_norm())
        if self.pending.later:
            self.pending.watch(step)
        else:
            read_back([step])
            (step.loss,) = self.ranks.sum([step.loss])
            self._require_finite(step)
        self._descend(step)
        return step

    def _descend(self, step: TakenStep) -> None:
        """Move the weights against the gradient, and their mean after them.

        Where the device leaves a step out, the mean goes on towards weights that stand still; such
        a run ends without keeping it.
        """
        if self.grad_clip is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.grad_clip, step.norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, self.run.step)

    def _gradient(self, index: Tensor, mine: Tensor, places: Tensor) -> list[Part]:
        """Leave this rank's part of the gradient in the weights.

        Where memory runs out, the images go through in parts half as large; the gradient of a sum
        is the sum of the gradients, so that nothing else changes.
        """
        while True:
            size = max(1, min(self.micro_batch or len(mine), len(mine)))
            try:
                self.optimizer.zero_grad(set_to_none=True)
                if not len(mine):  # more processes than images in the last batch
                    return []
                parts = zip(torch.split(mine, size), torch.split(places, size), strict=True)
                return [self._backward(index, *part) for part in parts]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if any(isinstance(layer, nn.BatchNorm1d) for layer in self.model.modules()):
                    raise MemoryRunOutError(
                        "memory ran out, and batch norm cannot look at a batch in parts; take a "
                        "smaller train.batch_size, or model.norm=layer"
                    ) from error
                if size == 1:
                    raise MemoryRunOutError(
                        f"memory ran out on a single image; {REMEDY}"
                    ) from error
            self.micro_batch = size // 2  # outside the except block, which holds on to the memory
            release_memory(self.train_images.device)

    def _backward(self, index: Tensor, mine: Tensor, places: Tensor) -> Part:
        """Forward and backward pass of some images of a batch.

        Args:
            index: The whole batch, (B,).
            mine: The images, places in the training split, (b,).
            places: Their places in the batch, (b,).
        """
        images, targets = self._blended(index, mine, places)
        place_dropout(
            self.model,
            mixed_seed(self.seed, DROPOUT_STREAM, self.run.step),
            sent(places, images.device),
        )
        with self._autocast(images.device.type):
            network = self.model if self.forward is None else self.forward
            outputs = network(self.standardize(images))
        loss = self.loss(outputs.float(), targets) * (len(mine) / len(index))
        self.scaler.scale(loss).backward()
        return Part(loss.detach(), outputs.detach(), mine)

    def _seen(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images as this epoch shows them, (b, S, S), and their targets (b,)."""
        index = sent(index, self.train_images.store.device)
        images, targets = self.train_images.gather(index)
        if self.augmentation is not None:
            seed = mixed_seed(self.seed, AUGMENT_STREAM)
            samples = sent(index, images.device)
            images = augmented(
                images, samples, settings=self.augmentation, seed=seed, epoch=self.run.epoch
            )
        return images, targets

    def _blended(self, index: Tensor, mine: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Images and targets, each blended with those of another image of the batch if asked for.

        Source:
            Zhang et al. 2018, "mixup: beyond empirical risk minimization", arXiv:1710.09412, with a
            share of its own for each image.
        """
        images, targets = self._seen(mine)
        if self.mixup is None:
            return images, targets
        rng = np.random.default_rng(mixed_seed(self.seed, MIXUP_STREAM, self.run.step))
        partners = torch.from_numpy(rng.permutation(len(index)))[places]
        drawn = rng.beta(self.mixup, self.mixup, len(index)).astype(np.float32)
        share = sent(torch.from_numpy(drawn)[places], targets.device)
        others, other_targets = self._seen(index[partners])
        pixels = share.view(-1, 1, 1)
        blended = pixels * images.float() + (1 - pixels) * others.float()
        return blended, share * targets + (1 - share) * other_targets

    def _asked_to_stop(self) -> bool:
        """Whether a signal asked any of the processes to stop; all of them hear of it."""
        names = [number.name for number in STOP_SIGNALS]
        votes = self.ranks.sum([float(self.request.signal_name == name) for name in names])
        heard = [name for name, vote in zip(names, votes, strict=True) if vote]
        if heard:
            self.run.interrupted_by = heard[0]
        return bool(heard)

    def _gradient_norm(self) -> Tensor:
        """Euclidean norm of the whole gradient, scalar on the device; fp16's scale is undone."""
        self.scaler.unscale_(self.optimizer)
        return nn.utils.get_total_norm(
            p.grad for p in self.model.parameters() if p.grad is not None
        )

    def _require_finite(self, step: TakenStep) -> None:
        """Refuse a step whose loss or gradient is not finite; the run stands before it."""
        # in fp16 the scaler skips a step with such a gradient, and lowers its scale
        norm = 0.0 if self.scaler.is_enabled() else step.gradient_norm
        if math.isfinite(step.loss) and math.isfinite(norm):
            return
        self._set_learning_rate()  # the message names that of this step, not of a later one
        rows = self.train_images.rows[step.wild_places()].tolist()
        self._refuse_non_finite("loss", step.loss, rows)
        self._refuse_non_finite("gradient norm", norm)

    def finish_epoch(self) -> None:
        """Judge the weights on validation, write the record, tell the callbacks."""
        run = self.run
        record = {
            "epoch": run.epoch + 1,
            "step": run.step,
            "train_loss": run.loss_sum / run.images_seen,
            "lr": self.optimizer.param_groups[0]["lr"],
            **self.validate(),
            "elapsed_s": round(run.elapsed_s, 3),
        }
        run.history.append(record)
        run.epoch += 1
        run.batch, run.loss_sum, run.images_seen = 0, 0.0, 0
        for callback in self.callbacks:
            callback.on_epoch_end(run)

    def validate(self) -> dict[str, float]:
        """Loss and score on the validation split; NaN without one."""
        score_name = "val_auroc" if self.task == "classify" else "val_r2"
        if self.val_images is None:
            return {"val_loss": math.nan, score_name: math.nan}
        with self.judged_weights():
            outputs, loss = split_loss(
                self.model, self.standardize, self.loss, self.val_images, self.ranks
            )
        self._refuse_non_finite("validation loss", loss)
        self.run.val_outputs = outputs
        targets = self.val_images.targets.cpu().numpy()
        if self.task == "regress":
            return {"val_loss": loss, score_name: r2(targets, outputs)}
        return {"val_loss": loss, score_name: auroc(targets.astype(int), outputs)}

    @contextmanager
    def judged_weights(self) -> Iterator[None]:
        """Within the block the model has the weights that are judged and kept: the mean, if any."""
        if self.ema is None:
            yield
            return
        with self.ema.averaged(self.model):
            yield

    def _set_learning_rate(self) -> None:
        rate = self.learning_rate(self.run)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _autocast(self, device_type: str) -> torch.autocast:
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(device_type, dtype=dtype, enabled=self.precision != "fp32")

    def _refuse_non_finite(self, what: str, value: float, rows: Sequence[int] = ()) -> None:
        if not math.isfinite(value):
            names = ", ".join(map(self.name_of, rows[:NAMED]))
            images = f" (images with such outputs: {names})" if names else ""
            raise NonFiniteError(
                f"the {what} became {value}{images} in epoch {self.run.epoch + 1}, step "
                f"{self.run.step + 1}; the step was not taken. Lower train.optimizer.lr "
                f"(now {self.optimizer.param_groups[0]['lr']:g}) or set train.grad_clip=1.0"
            )


def release_memory(device: torch.device) -> None:
    """Give memory that PyTorch keeps for later back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on the CPU or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)


def split_loss(
    model: nn.Module,
    standardize: nn.Module,
    loss: nn.Module,
    images: LabelledImages,
    ranks: Ranks | None = None,
) -> tuple[NDArray[np.float64], float]:
    """Raw outputs (n,) of a split and their mean loss, dropout off, in fp32.

    Args:
        model: Images to outputs.
        standardize: uint8 images to standardised ones.
        loss: Outputs and targets to a scalar.
        images: The split.
        ranks: Processes that share the split, each image once; None: this one has all of it.
    """
    ranks = ranks or Ranks()
    n = len(images.positions)
    mine = predict_logits(model, standardize, images.store, images.positions[ranks.share(n)])
    outputs = ranks.gather(mine, n)
    targets = images.targets.cpu().double()
    return outputs, float(loss(torch.from_numpy(outputs), targets))
