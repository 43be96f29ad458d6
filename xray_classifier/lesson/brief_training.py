"""Short trainings of a run's network on some of its own images, for the lesson to compare."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xray_classifier.callbacks import Callback
from xray_classifier.data.dataset import LabelledImages, Standardize, steps_per_epoch
from xray_classifier.errors import NonFiniteError
from xray_classifier.history import COLUMNS, History, Run
from xray_classifier.lesson.subject import Subject, products_per_image
from xray_classifier.model import Architecture, build_network
from xray_classifier.optimizers import make_optimizer
from xray_classifier.signals import StopRequest
from xray_classifier.trainer import Trainer, split_loss

Floats = NDArray[np.float64]

CHEAP_PRODUCTS = 4e6
"""A network with more multiplications an image is trained for fewer steps."""


@dataclass(frozen=True, eq=False)
class BriefSetting:
    """What the short trainings of a lesson have in common.

    Attributes:
        architecture: Of the network; each training begins with the same weights.
        standardize: uint8 images to standardised ones.
        loss: Outputs and targets to a scalar.
        train: Images to learn from.
        held: Images to judge on; None: none.
        task: classify or regress.
        seed: Of weights, order and dropout.
        thrift: Part of the usual number of steps that this network can afford, in (0, 1].
    """

    architecture: Architecture
    standardize: Standardize
    loss: nn.Module
    train: LabelledImages
    held: LabelledImages | None
    task: str
    seed: int
    thrift: float


def brief_setting(
    subject: Subject, train: LabelledImages, held: LabelledImages | None = None
) -> BriefSetting:
    """A setting with the network and the loss of a run.

    Args:
        subject: The run.
        train: Some of its training images.
        held: Some of its validation images.
    """
    network = subject.classifier
    standardize = network.standardize
    if not isinstance(standardize, Standardize):
        raise TypeError(f"one network has one standardisation, not {type(standardize).__name__}")
    one = standardize(train.gather(torch.arange(1))[0])
    thrift = min(1.0, CHEAP_PRODUCTS / max(1, products_per_image(network.model, one)))
    return BriefSetting(
        Architecture.from_dict(network.content["architecture"]),
        standardize,
        subject.loss,
        train,
        held,
        network.task,
        int(network.content["seed"]),
        thrift,
    )


def with_dropout(setting: BriefSetting, rate: float) -> BriefSetting:
    """The same setting with one rate of dropout for all hidden layers; a perceptron has none."""
    a = setting.architecture
    return replace(setting, architecture=replace(a, dropout=(rate,) * len(a.dropout)))


def brief_trainer(
    setting: BriefSetting, optimizer: Mapping[str, Any], batch_size: int, epochs: int
) -> Trainer:
    """A trainer ready for its first step, with a constant learning rate and nothing else.

    Args:
        setting: Network, loss and images.
        optimizer: Arguments of `make_optimizer`.
        batch_size: Images per step.
        epochs: To plan.
    """
    device = setting.train.device
    model = build_network(setting.architecture, setting.seed).to(device)
    n = len(setting.train)
    size = min(batch_size, n)
    rate = float(optimizer["lr"])
    return Trainer(
        model=model,
        standardize=setting.standardize,
        loss=setting.loss,
        optimizer=make_optimizer(model, **optimizer),
        learning_rate=lambda run: rate,
        train_images=setting.train,
        val_images=None,
        task=setting.task,
        batch_size=size,
        seed=setting.seed,
        precision="fp32",
        grad_clip=None,
        callbacks=(),
        run=Run(History(COLUMNS[setting.task]), epochs, steps_per_epoch(n, size)),
        request=StopRequest(),
        scaler=torch.amp.GradScaler(device.type, enabled=False),
    )


class LossTrace(Callback):
    """Note the loss on whole sets of images, dropout off, before the first step and then.

    Args:
        trainer: Whose weights.
        sets: Images to judge on.
        every_steps: Steps from one note to the next.
    """

    def __init__(
        self, trainer: Trainer, sets: tuple[LabelledImages, ...], every_steps: int
    ) -> None:
        self.trainer = trainer
        self.sets = sets
        self.every_steps = every_steps
        self.steps: list[int] = []
        self.losses: list[list[float]] = []

    def on_train_start(self, run: Run) -> None:
        """The loss of the first weights."""
        self._note(run)

    def on_step_end(self, run: Run) -> None:
        """The loss now, when it is due."""
        if run.step % self.every_steps == 0:
            self._note(run)

    def _note(self, run: Run) -> None:
        trainer = self.trainer
        trainer.settle()  # a step that could not be taken ends the training before its note
        self.steps.append(run.step)
        self.losses.append(
            [
                split_loss(trainer.model, trainer.standardize, trainer.loss, images)[1]
                for images in self.sets
            ]
        )


@dataclass(frozen=True, eq=False)
class BriefCurve:
    """How one short training went.

    Attributes:
        steps: Steps taken at each note, (k,); 0 is before the first.
        losses: Mean loss of each set of images, dropout off, (k, sets).
        diverged: Whether it ended because loss or gradient were not finite.
    """

    steps: NDArray[np.int64]
    losses: Floats
    diverged: bool


def train_briefly(
    trainer: Trainer, sets: tuple[LabelledImages, ...], every_steps: int
) -> BriefCurve:
    """Train to the planned end, or until loss or gradient are no longer finite.

    Args:
        trainer: From `brief_trainer`.
        sets: Images to judge on.
        every_steps: Steps from one note to the next.
    """
    trace = LossTrace(trainer, sets, every_steps)
    trainer.callbacks = (trace,)
    diverged = False
    try:
        trainer.fit()
    except NonFiniteError:
        diverged = True
    return BriefCurve(np.array(trace.steps), np.array(trace.losses), diverged)
