"""The training loop: forward, loss, backward, step; epoch after epoch.

Gradient descent in one breath: push a batch of images through the stack, measure how wrong the
answers are (the loss), ask how the loss would change with each weight (the gradient, by the chain
rule from the last layer back to the first), and move every weight a little downhill.

The order of the images is a function of (seed, epoch), dropout of (seed, step), the learning rate
of the step and the history, so a run that was stopped goes on as if it had not been.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_classifier.callbacks import Callback
from xray_classifier.data.dataset import (
    LabelledImages,
    Standardize,
    batch_positions,
    epoch_order,
    mixed_seed,
)
from xray_classifier.errors import NonFiniteError
from xray_classifier.history import Run
from xray_classifier.inference import predict_logits
from xray_classifier.metrics import auroc, r2
from xray_classifier.signals import StopRequest

DROPOUT_STREAM = 1


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

    def fit(self) -> None:
        """Train until the epochs are done, a callback stops the run or a signal comes.

        Raises:
            NonFiniteError: The loss or the gradient is NaN or infinite; no step was taken on it.
        """
        try:
            for callback in self.callbacks:
                callback.on_train_start(self.run)
            self._run_epochs()
            self.run.ended_s = time.monotonic()
            for callback in self.callbacks:
                callback.on_train_end(self.run)
        except BaseException:
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
            loss = self.step(index)
            run.loss_sum += loss * len(index)
            run.images_seen += len(index)
            run.batch += 1
            run.step += 1
            for callback in self.callbacks:
                callback.on_step_end(run)
            if self.request.signal_name is not None:
                run.interrupted_by = self.request.signal_name
                return

    def step(self, index: Tensor) -> float:
        """One step of gradient descent on the images at `index` (B,); returns their mean loss."""
        images, targets = self.train_images.gather(index)
        self.model.train()
        self._set_learning_rate()
        seed_dropout(images.device, mixed_seed(self.seed, DROPOUT_STREAM, self.run.step))
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast(images.device.type):
            outputs = self.model(self.standardize(images))
        loss = self.loss(outputs.float(), targets)
        value = float(loss.item())
        self._refuse_non_finite("loss", value)
        self.scaler.scale(loss).backward()
        self._limit_gradient()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value

    def _limit_gradient(self) -> None:
        """Refuse a gradient that is not finite; shorten one that is longer than `grad_clip`."""
        self.scaler.unscale_(self.optimizer)
        parameters = list(self.model.parameters())
        norm = nn.utils.get_total_norm(p.grad for p in parameters if p.grad is not None)
        if not self.scaler.is_enabled():  # fp16 skips such a step and lowers its scale
            self._refuse_non_finite("gradient norm", float(norm))
        if self.grad_clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.grad_clip, norm)

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
        outputs, loss = split_loss(self.model, self.standardize, self.loss, self.val_images)
        self._refuse_non_finite("validation loss", loss)
        self.run.val_outputs = outputs
        targets = self.val_images.targets.cpu().numpy()
        if self.task == "regress":
            return {"val_loss": loss, score_name: r2(targets, outputs)}
        return {"val_loss": loss, score_name: auroc(targets.astype(int), outputs)}

    def _set_learning_rate(self) -> None:
        rate = self.learning_rate(self.run)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _autocast(self, device_type: str) -> torch.autocast:
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(device_type, dtype=dtype, enabled=self.precision != "fp32")

    def _refuse_non_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteError(
                f"the {what} became {value} in epoch {self.run.epoch + 1}, step "
                f"{self.run.step + 1}; the step was not taken. Lower train.optimizer.lr "
                f"(now {self.optimizer.param_groups[0]['lr']:g}) or set train.grad_clip=1.0"
            )


def seed_dropout(device: torch.device, seed: int) -> None:
    """Seed the generators that dropout draws from, on the CPU and on the device.

    `torch.manual_seed` would do, but without a GPU it formats a stack trace at every call.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def split_loss(
    model: nn.Module, standardize: nn.Module, loss: nn.Module, images: LabelledImages
) -> tuple[NDArray[np.float64], float]:
    """Raw outputs (n,) of a split and their mean loss, dropout off, in fp32."""
    outputs = predict_logits(model, standardize, images.store, images.positions)
    targets = images.targets.cpu().double()
    return outputs, float(loss(torch.from_numpy(outputs), targets))
