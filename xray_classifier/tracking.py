"""Following a run live: what is told to a tracker, and when.

A tracker is anything with the three methods of `Tracker`; TensorBoard is one (`train.track`).
Others are passed from Python: `train("demo", trackers=[MyTracker()])`. Only rank 0 has any.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from xray_classifier.callbacks import CURVES_EVERY_S, Callback
from xray_classifier.files import read_bytes
from xray_classifier.history import Run
from xray_classifier.mixer import PerceptronMixer
from xray_classifier.report.canvas import as_png
from xray_classifier.report.weight_sheet import weights_figure
from xray_classifier.step_losses import StepLosses

STEP_LOSS = "step_loss"
"""Name of the loss of one step; the other scalars are named as the columns of history.csv."""

CURVES, WEIGHTS, REPORT = "curves", "first_weights", "report"
"""Names of pictures; those of the report are `report/roc` and so on."""

draw_weights = as_png(weights_figure)


@runtime_checkable
class Tracker(Protocol):
    """Takes what a run has to tell. The methods are called in the order of the steps.

    On a GPU the losses of steps come several at a time, up to half a second late.
    """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers by name: `step_loss` after each step; after each epoch the columns of
        history.csv, those left out that are not defined."""

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Take a picture as PNG: `curves` and `first_weights` now and then, at the end those of the
        report, such as `report/roc`."""

    def close(self) -> None:
        """The run has ended, in whatever way; nothing comes after this."""


class Tracking(Callback):
    """Tell trackers about a run.

    Args:
        trackers: Whom.
        curves: Gives the loss curves as PNG.
        weights: Gives the first weights, (units, side, side); None where they are no pictures.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        curves: Callable[[Run], bytes],
        weights: Callable[[], NDArray[np.float64] | None],
    ) -> None:
        self.trackers = tuple(trackers)
        self.curves = curves
        self.weights = weights
        self._steps = StepLosses()
        self._drawn_s = -math.inf

    def on_train_start(self, run: Run) -> None:
        """Learn where the run stands."""
        self._steps.on_train_start(run)

    def on_loss_known(self, run: Run) -> None:
        """Tell the loss of the step."""
        self._steps.on_loss_known(run)
        value = self._steps.values.pop()
        for tracker in self.trackers:
            tracker.scalars(run.step, {STEP_LOSS: value})

    def on_epoch_end(self, run: Run) -> None:
        """Tell the record of the epoch; the pictures at most every 10 s."""
        record = {
            name: value
            for name, value in run.history.rows[-1].items()
            if name != "step" and math.isfinite(value)
        }
        for tracker in self.trackers:
            tracker.scalars(run.step, record)
        if time.monotonic() - self._drawn_s >= CURVES_EVERY_S:
            self._show(run)

    def on_train_end(self, run: Run) -> None:
        """Show the last pictures."""
        if run.history.rows:
            self._show(run)

    def on_train_abort(self, run: Run) -> None:
        """An error ends the run: nothing more will come."""
        self.close()

    def finish(self, run: Run, folder: Path) -> None:
        """Show the figures of the report, and close.

        Args:
            run: Finished.
            folder: Of the run, with the pictures that the report holds.
        """
        for path in sorted(folder.glob("*.png")):
            if path.stem != CURVES:
                self._tell(run, f"{REPORT}/{path.stem}", read_bytes(path))
        self.close()

    def close(self) -> None:
        """Let every tracker finish."""
        for tracker in self.trackers:
            tracker.close()
        self.trackers = ()

    def _show(self, run: Run) -> None:
        self._tell(run, CURVES, self.curves(run))
        weights = self.weights()
        if weights is not None:
            self._tell(run, WEIGHTS, draw_weights(weights, title=f"Epoch {run.epoch}"))
        self._drawn_s = time.monotonic()

    def _tell(self, run: Run, name: str, png: bytes) -> None:
        for tracker in self.trackers:
            tracker.picture(run.step, name, png)


def first_layer_pictures(model: nn.Module, size_px: int) -> NDArray[np.float64] | None:
    """The weights of the first perceptrons as pictures.

    Args:
        model: A stack or a mixer.
        size_px: Side of its images.

    Returns:
        (units, size_px, size_px), of a mixer (channels, patch, patch); None where the first layer
        does not see one channel of pixels.
    """
    layer = next((part for part in model.modules() if isinstance(part, nn.Linear)), None)
    side = model.patch_px if isinstance(model, PerceptronMixer) else size_px
    if layer is None or layer.in_features != side * side:
        return None
    weights: NDArray[np.float64] = layer.weight.detach().cpu().double().numpy()
    return weights.reshape(-1, side, side)
