"""What a run keeps for the lesson while it trains: snapshots of the weights, and the flow.

Both are written once an epoch into RUN/lesson and change nothing of the training: no random number
is drawn, no gradient and no weight is touched. They are kept where `train.lesson` asks for them.
"""

import contextlib
import csv
import io
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

from torch import Tensor, nn

from xray_classifier.callbacks import Callback
from xray_classifier.checkpoint import load_checkpoint, save_checkpoint
from xray_classifier.data.dataset import LabelledImages
from xray_classifier.errors import CheckpointError, DataError, UsageError
from xray_classifier.files import csv_text, make_folder, printable, read_bytes, write_text
from xray_classifier.history import Run
from xray_classifier.lesson.flow import COLUMNS, LayerFlow, linear_layers, measure_flow
from xray_classifier.lesson.landscape import Snapshot
from xray_classifier.lesson.subject import some_of
from xray_classifier.trainer import Trainer

FOLDER, FLOW_NAME = "lesson", "flow.csv"
SNAPSHOT_BYTES = 2**27
"""All snapshots of a run together stay below this (128 MiB); then every second one is dropped."""
FEWEST_KEPT = 4
FLOW_IMAGES = 256
"""Images of the batch that the flow is measured on."""


class LessonRecorder(Callback):
    """Keep weights and flow of each epoch.

    Args:
        folder: RUN/lesson.
        trainer: Whose weights.
        most_bytes: Of all snapshots together; four are kept in any case.
    """

    def __init__(self, folder: Path, trainer: Trainer, most_bytes: int = SNAPSHOT_BYTES) -> None:
        self.folder = folder
        self.trainer = trainer
        own = sum(t.numel() * t.element_size() for t in trainer.model.state_dict().values())
        self.most = max(FEWEST_KEPT, most_bytes // max(1, own))
        self.flow: list[LayerFlow] = []
        self.epochs: list[int] = []
        self._before: Mapping[str, Tensor] | None = None
        self._batch: LabelledImages = some_of(trainer.train_images, FLOW_IMAGES)

    def on_train_start(self, run: Run) -> None:
        """Take up what an interrupted run had recorded, or begin with the first weights."""
        make_folder(self.folder)
        for path in snapshot_paths(self.folder):
            if _epoch_of(path) > run.epoch or not run.step:
                path.unlink()
        self.epochs = [_epoch_of(path) for path in snapshot_paths(self.folder)]
        if run.step:
            self.flow = [row for row in read_flow(self.folder) if row.epoch <= run.epoch]
        else:
            self._keep_weights(0)
        self._watch(run)

    def on_step_end(self, run: Run) -> None:
        """Remember the weights from which the last step of the epoch is taken."""
        if run.batch < run.steps_per_epoch:
            self._watch(run)

    def on_epoch_end(self, run: Run) -> None:
        """Write the flow, and a snapshot unless enough of this time are kept."""
        self.flow += measure_flow(
            self.trainer.model,
            self.trainer.standardize,
            self.trainer.loss,
            self._batch,
            epoch=run.epoch,
            before=self._before,
        )
        write_text(self.folder / FLOW_NAME, csv_text(COLUMNS, map(astuple, self.flow)))
        if run.epoch % self._every() == 0:
            self._keep_weights(run.epoch)
        self._before = None
        self._watch(run)

    def _watch(self, run: Run) -> None:
        if run.batch == run.steps_per_epoch - 1:
            layers = linear_layers(self.trainer.model)
            self._before = {name: m.weight.detach().clone() for name, m in layers.items()}

    def _every(self) -> int:
        """Epochs from one kept snapshot to the next: 1, 2, 4 ..., a function of the epochs kept."""
        return self.epochs[1] - self.epochs[0] if len(self.epochs) > 1 else 1

    def _keep_weights(self, epoch: int) -> None:
        with self.trainer.judged_weights():
            weights = {n: t.detach().clone() for n, t in self.trainer.model.state_dict().items()}
        save_checkpoint(_path_of(self.folder, epoch), weights, {"kind": "snapshot", "epoch": epoch})
        self.epochs.append(epoch)
        if len(self.epochs) > self.most:
            for late in self.epochs[1::2]:
                with contextlib.suppress(OSError):  # it costs space, no more
                    _path_of(self.folder, late).unlink()
            self.epochs = self.epochs[::2]


def _path_of(folder: Path, epoch: int) -> Path:
    return folder / f"weights-{epoch:06d}.safetensors"


def _epoch_of(path: Path) -> int:
    return int(path.stem.removeprefix("weights-"))


def snapshot_paths(folder: Path) -> list[Path]:
    """The snapshots in RUN/lesson, oldest first."""
    found = folder.glob("weights-*.safetensors")
    return sorted(path for path in found if path.stem.removeprefix("weights-").isdigit())


def read_snapshots(run_dir: Path, model: nn.Module) -> tuple[Snapshot, ...]:
    """The snapshots that a run kept, oldest first; none where it kept none.

    Args:
        run_dir: The run folder.
        model: With the names and shapes that they must have.

    Raises:
        DataError: One is damaged, or of another network.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = []
    for path in snapshot_paths(run_dir / FOLDER):
        try:
            kept = load_checkpoint(path)
        except (CheckpointError, UsageError) as error:
            raise DataError(f"{error}; remove the folder {printable(path.parent)}") from error
        if {name: tensor.shape for name, tensor in kept.tensors.items()} != shapes:
            raise DataError(
                f"{printable(path)} is of another network; remove the folder "
                f"{printable(path.parent)}"
            )
        found.append(Snapshot(_epoch_of(path), kept.tensors))
    return tuple(found)


def read_flow(folder: Path) -> list[LayerFlow]:
    """The flow that a run recorded, oldest first; empty where it recorded none.

    Args:
        folder: RUN/lesson.

    Raises:
        DataError: flow.csv cannot be read.
    """
    path = folder / FLOW_NAME
    if not path.is_file():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(read_bytes(path).decode())))
        return [
            LayerFlow(
                int(row["epoch"]), row["layer"], *(float(row[c] or "nan") for c in COLUMNS[2:])
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{printable(path)} cannot be read; remove it") from error
