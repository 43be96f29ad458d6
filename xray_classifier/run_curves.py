"""The loss curves of a run, from its history."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from xray_classifier.callbacks import read_test_curve
from xray_classifier.history import History, Monitor
from xray_classifier.report.figures import loss_curves


class LossCurves(NamedTuple):
    """The loss curves of a run as a picture.

    Args:
        png: The bytes of a PNG file.
        tested: Whether the curve of the test split is among them.
    """

    png: bytes
    tested: bool


def draw_curves(
    history: History,
    monitor: Monitor | None,
    test_path: Path | None,
    stop_reason: str | None = None,
) -> bytes:
    """The loss curves of a run as PNG bytes.

    Args:
        history: Finished epochs.
        monitor: Marks the best epoch; None marks none.
        test_path: history_test.csv, drawn where it exists; None leaves the test loss sealed.
        stop_reason: Why the run ended, marked at its last step; None while it goes on.
    """
    best = None if monitor is None else monitor.best(history)
    steps = history.column("step")
    validation = history.column("val_loss")
    test_loss = None
    if test_path is not None and test_path.is_file():
        known = {epoch: loss for epoch, _, loss in read_test_curve(test_path)}
        test_loss = [known.get(int(epoch), np.nan) for epoch in history.column("epoch")]
    classify = "val_auroc" in history.columns
    has_validation = bool(np.isfinite(validation).any())
    return loss_curves(
        steps,
        history.column("train_loss"),
        validation if has_validation else None,
        test_loss,
        best_step=None if best is None else int(steps[best]),
        stop_step=None if stop_reason is None else int(steps[-1]),
        stop_reason=stop_reason,
        loss_name="BCE loss" if classify else "MSE loss",
        val_auroc=history.column("val_auroc") if classify and has_validation else None,
    )
