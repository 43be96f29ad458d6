"""From config and images to a trainer that is ready for its first step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xray_classifier.config import AugmentConfig, Config, TrainConfig
from xray_classifier.data.augment import Augmentation
from xray_classifier.data.dataset import (
    Standardize,
    load_split,
    pixel_statistics,
    steps_per_epoch,
)
from xray_classifier.data.loading import Radiographs
from xray_classifier.devices import number_format, torch_device
from xray_classifier.distributed import Ranks, local_device
from xray_classifier.ema import Ema
from xray_classifier.errors import DataError, UsageError
from xray_classifier.files import printable
from xray_classifier.history import COLUMNS, History, Monitor, Run, direction, plateau_drops
from xray_classifier.losses import BinaryCrossEntropy, SquaredError
from xray_classifier.memory import Memory, remembered
from xray_classifier.model import Architecture, Network, build_network
from xray_classifier.optimizers import lr_factor, make_optimizer
from xray_classifier.policies import parse_threshold
from xray_classifier.saving import Choosing, run_choosing, run_content, run_pos_weight
from xray_classifier.signals import StopRequest
from xray_classifier.trainer import Trainer

SPLIT_WORDS = {"val": "validation", "calibrate": "calibration"}
Numbers = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Built:
    """All that a run needs before its first step.

    Attributes:
        trainer: Network, optimizer and data on the device.
        content: What every checkpoint of the run says.
        memory: What the model will remember of its training images.
        choosing: Where calibration and threshold are chosen; None without held-out images.
    """

    trainer: Trainer
    content: dict[str, Any]
    memory: Memory
    choosing: Choosing | None


def run_device(train: TrainConfig) -> torch.device:
    """The device of this process."""
    return local_device(torch_device(train.device))


def run_building(config: Config, radiographs: Radiographs, ranks: Ranks | None = None) -> Built:
    """Network, optimizer and data on the device, and what the checkpoint will say about them.

    Args:
        config: Of the run.
        radiographs: Its images.
        ranks: The processes that share each batch; None: this one is alone.
    """
    train = config.train
    ranks = ranks or Ranks()
    if train.threads is not None:
        torch.set_num_threads(train.threads)
    device = run_device(train)
    torch.backends.cuda.matmul.allow_tf32 = train.tf32
    _refuse_batch_statistics(config, ranks)
    rows = {name: radiographs.rows(name) for name in ("train", "val", "calibrate")}
    _require_images(rows, radiographs.manifest.targets, config)
    mean, std = pixel_statistics(radiographs.images, rows["train"])
    targets, scale = training_targets(radiographs.manifest.targets, rows["train"], config.task)
    splits = {
        name: load_split(radiographs.images, targets, chosen, device)
        for name, chosen in rows.items()
        if len(chosen)
    }
    architecture = run_architecture(config)
    model = _network(architecture, config.seed).to(device)
    n = len(rows["train"])
    batch_size = n if train.batch_size == "full" else min(train.batch_size, n)
    if config.model.norm == "batch" and batch_size == 1:
        raise UsageError("model.norm: batch needs train.batch_size of 2 or more")
    precision = number_format(train.precision, device)
    trainer = Trainer(
        model=model,
        standardize=Standardize(mean, std),
        loss=run_loss(config, radiographs.manifest.targets[rows["train"]]),
        optimizer=make_optimizer(model, **train.optimizer.model_dump()),
        learning_rate=run_learning_rate(train),
        train_images=splits["train"],
        val_images=splits.get("val"),
        task=config.task,
        batch_size=batch_size,
        seed=config.seed,
        precision=precision,
        grad_clip=train.grad_clip,
        callbacks=(),
        run=Run(History(COLUMNS[config.task]), train.epochs, steps_per_epoch(n, batch_size)),
        request=StopRequest(),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        ranks=ranks,
        augmentation=run_augmentation(train),
        mixup=train.mixup,
        ema=None if train.ema is None else Ema(model, train.ema),
        micro_batch=train.micro_batch,
        forward=torch.compile(model) if train.torch_compile else None,
        name_of=lambda row: printable(radiographs.manifest.ids[row]),
    )
    memory = training_memory(radiographs, rows["train"])
    content = run_content(
        config,
        radiographs,
        architecture,
        (mean, std),
        scale,
        run_best_monitor(train),
        device,
        memory,
    )
    return Built(trainer, content, memory, run_choosing(radiographs, splits))


def _network(architecture: Architecture, seed: int) -> Network:
    try:
        return build_network(architecture, seed)
    except ValueError as error:
        raise UsageError(f"model.mixer: {error}") from error


def _refuse_batch_statistics(config: Config, ranks: Ranks) -> None:
    """Batch norm looks at a whole batch, which parts of it or other processes do not have."""
    if config.model.norm != "batch":
        return
    if ranks.size > 1:
        raise UsageError(
            f"model.norm: batch would take its statistics from each of the {ranks.size} processes "
            "alone; use model.norm=layer, or one process"
        )
    if config.train.micro_batch is not None:
        raise UsageError(
            "model.norm: batch would take its statistics from parts of a batch; use "
            "model.norm=layer, or leave train.micro_batch out"
        )


def run_augmentation(train: TrainConfig) -> Augmentation | None:
    """Random changes of the training images; None where all are off."""
    if train.augment == AugmentConfig():
        return None
    return Augmentation(**train.augment.model_dump())


def training_memory(radiographs: Radiographs, rows: Rows) -> Memory:
    """What the model remembers: the training images, and their patients where those are known."""
    manifest = radiographs.manifest
    patients = [manifest.patients[row] for row in rows] if manifest.patients_known else None
    return remembered(radiographs.signatures, rows, patients)


def run_architecture(config: Config) -> Architecture:
    """The network that the config describes."""
    stack = config.model
    return Architecture.from_keys(
        type=stack.type,
        size_px=config.data.image.size,
        hidden=stack.hidden,
        activation=stack.activation,
        dropout=stack.dropout,
        norm=stack.norm,
        residual=stack.residual,
        init=stack.init,
        mixer=stack.mixer.model_dump(),
    )


def _require_both_classes(split: str, rows: Rows, targets: Numbers, config: Config) -> None:
    """Refuse before the first step what could not be solved after the last."""
    policy = parse_threshold(config.evaluate.threshold)
    if config.task == "classify" and len(rows) and policy.kind != "fixed":
        n_sick = int(targets[rows].sum())
        if n_sick in (0, len(rows)):
            raise DataError(
                f"the {SPLIT_WORDS[split]} split holds {len(rows) - n_sick} healthy and {n_sick} "
                f"sick images, so evaluate.threshold={policy} cannot be solved on it; add images "
                "of the other class, or give a probability, such as evaluate.threshold=0.5"
            )


def _require_images(rows: Mapping[str, Rows], targets: Numbers, config: Config) -> None:
    if not len(rows["train"]):
        raise DataError("no image is left to train on; see data.split, data.audit and data.limit")
    monitor = run_monitor(config.train)
    if monitor is not None and monitor.column.startswith("val") and not len(rows["val"]):
        raise DataError(
            f"train.early_stopping.monitor is {monitor.column}, but there is no validation split; "
            "set data.split.val=0.15, or train.early_stopping.monitor=train_loss or null"
        )
    for name in ("calibrate", "val"):
        if len(rows.get(name, ())):
            _require_both_classes(name, rows[name], targets, config)
            break
    if config.train.schedule.name == "plateau" and not len(rows["val"]):
        raise DataError(
            "train.schedule.name is plateau, which watches val_loss, but there is no validation "
            "split; set data.split.val=0.15 or another schedule"
        )


def training_targets(
    targets: Numbers, rows: Rows, task: str
) -> tuple[Numbers, dict[str, float] | None]:
    """Targets as training sees them: numbers are standardised by the training split's spread."""
    if task == "classify":
        return targets, None
    mean, std = float(targets[rows].mean()), float(targets[rows].std()) or 1.0
    return (targets - mean) / std, {"mean": mean, "std": std}


def run_loss(config: Config, targets: Numbers) -> nn.Module:
    """The loss of a run, given the training targets (n_train,)."""
    if config.task == "regress":
        return SquaredError()
    n_sick = int(targets.sum())
    if n_sick in (0, len(targets)):
        raise DataError(
            f"the training split holds {len(targets) - n_sick} healthy and {n_sick} sick images; "
            "both classes are needed"
        )
    weight = run_pos_weight(config.train.pos_weight, targets.astype(int))
    return BinaryCrossEntropy(weight, config.train.label_smoothing)


def run_learning_rate(train: TrainConfig) -> Callable[[Run], float]:
    """The learning rate as a function of where a run stands."""
    schedule = train.schedule

    def rate(run: Run) -> float:
        validation = run.history.column("val_loss") if schedule.name == "plateau" else ()
        return train.optimizer.lr * lr_factor(
            schedule.name,
            run.step,
            steps_per_epoch=run.steps_per_epoch,
            epochs=run.epochs,
            warmup_epochs=schedule.warmup_epochs,
            final_fraction=schedule.final_fraction,
            factor=schedule.factor,
            drops=plateau_drops(validation, schedule.patience),
        )

    return rate


def run_monitor(train: TrainConfig) -> Monitor | None:
    """What early stopping watches; None: nothing."""
    stopping = train.early_stopping
    if stopping is None or stopping.monitor is None:
        return None
    goal = direction(stopping.monitor, stopping.mode)
    return Monitor(stopping.monitor, goal, stopping.min_delta, stopping.start_from_epoch)


def run_best_monitor(train: TrainConfig) -> Monitor | None:
    """What decides which epoch's weights are kept; None: the last ones are."""
    stopping = train.early_stopping
    return run_monitor(train) if stopping is not None and stopping.restore_best else None
