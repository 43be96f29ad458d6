"""Short training runs side by side: the same images, one changed key, every number kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xray_classifier.building import Built, run_building, run_monitor, training_targets
from xray_classifier.callbacks import Callback, EarlyStopping
from xray_classifier.config import Config
from xray_classifier.config_file import load_config
from xray_classifier.data.dataset import LabelledImages, load_split
from xray_classifier.data.loading import Radiographs, run_loading
from xray_classifier.errors import NonFiniteError
from xray_classifier.history import Run
from xray_classifier.lesson.landscape import Snapshot
from xray_classifier.step_losses import StepLosses
from xray_classifier.terminal import Terminal
from xray_classifier.trainer import Trainer, split_loss

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Experiment:
    """One finished training run in memory.

    Attributes:
        overrides: What was changed, such as train.optimizer.lr=3.
        config: The whole config.
        trainer: With the weights of the last step.
        rows: The history, one record an epoch.
        step_loss: Mean loss of each step's images, (steps,).
        test_loss: Loss of the test split after each epoch, (epochs,); nothing was chosen by it.
        failure: What stopped it before its time, such as a loss that is not finite; None: nothing.
        weights: Before the first epoch and after each, where these were to be kept.
    """

    overrides: tuple[str, ...]
    config: Config
    trainer: Trainer
    rows: tuple[Mapping[str, float], ...]
    step_loss: Floats
    test_loss: Floats
    failure: str | None
    weights: tuple[Snapshot, ...] = ()

    def column(self, name: str) -> Floats:
        """One column of the history, oldest epoch first, (epochs,)."""
        return np.array([row[name] for row in self.rows], dtype=np.float64)

    @property
    def best(self) -> int:
        """Index of the epoch with the lowest validation loss."""
        return int(np.nanargmin(self.column("val_loss")))


class _TestLosses(Callback):
    """Keep the test loss of each epoch."""

    def __init__(self, trainer: Trainer, images: LabelledImages) -> None:
        self.trainer = trainer
        self.images = images
        self.values: list[float] = []

    def on_epoch_end(self, run: Run) -> None:
        t = self.trainer
        with t.judged_weights():
            self.values.append(split_loss(t.model, t.standardize, t.loss, self.images)[1])


class _Snapshots(Callback):
    """Keep the weights before the first epoch and after each."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.kept: list[Snapshot] = []

    def on_train_start(self, run: Run) -> None:
        self._keep(0)

    def on_epoch_end(self, run: Run) -> None:
        self._keep(run.epoch)

    def _keep(self, epoch: int) -> None:
        weights = {name: p.detach().clone() for name, p in self.model.state_dict().items()}
        self.kept.append(Snapshot(epoch, weights))


@dataclass
class Laboratory:
    """Trains on one set of images again and again.

    Attributes:
        config: Name or path of the config that every experiment starts from.
        overrides: What all experiments have in common.
        terminal: What the user reads while images are drawn.
    """

    config: str
    overrides: tuple[str, ...]
    terminal: Terminal
    _loaded: dict[str, Radiographs] = field(default_factory=dict)

    def configured(self, *changes: str) -> Config:
        """The config of an experiment."""
        return load_config(self.config, [*self.overrides, *changes]).config

    def radiographs(self, config: Config) -> Radiographs:
        """The images of an experiment; those of the same data section are loaded once."""
        key = config.data.model_dump_json()
        if key not in self._loaded:
            self._loaded[key] = run_loading(config.data, config.task, self.terminal)
        return self._loaded[key]

    def train(self, *changes: str, keep_weights: bool = False) -> Experiment:
        """Train to the end with some keys changed; nothing is written.

        Args:
            changes: Overrides such as train.optimizer.lr=3.
            keep_weights: Keep those of each epoch.

        Raises:
            ConfigError: An override does not say what it should.
        """
        config = self.configured(*changes)
        radiographs = self.radiographs(config)
        with torch.random.fork_rng(devices=[]):
            built = run_building(config, radiographs)
            return _trained(built, config, radiographs, changes, keep_weights)


def _trained(
    built: Built,
    config: Config,
    radiographs: Radiographs,
    changes: Sequence[str],
    keep_weights: bool,
) -> Experiment:
    trainer = built.trainer
    rows = radiographs.rows("test")
    targets, _ = training_targets(
        radiographs.manifest.targets, trainer.train_images.rows, config.task
    )
    steps = StepLosses()
    tested = _TestLosses(
        trainer, load_split(radiographs.images, targets, rows, trainer.train_images.device)
    )
    kept = _Snapshots(trainer.model)
    trainer.callbacks = [steps, tested, *([kept] if keep_weights else []), *_stopping(config)]
    failure = None
    try:
        trainer.fit()
    except NonFiniteError as error:
        failure = str(error)
    return Experiment(
        overrides=tuple(changes),
        config=config,
        trainer=trainer,
        rows=tuple(trainer.run.history.rows),
        step_loss=np.array(steps.values, dtype=np.float64),
        test_loss=np.array(tested.values, dtype=np.float64),
        failure=failure,
        weights=tuple(kept.kept),
    )


def _stopping(config: Config) -> list[Callback]:
    monitor, stopping = run_monitor(config.train), config.train.early_stopping
    if monitor is None or stopping is None or stopping.patience is None:
        return []
    return [EarlyStopping(monitor, stopping.patience)]


CHANCE = math.log(2.0)
"""Cross-entropy of the answer one half for every image: what knowing nothing costs, ln 2."""
