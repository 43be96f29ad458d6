"""A run in TensorBoard: event files in RUN/track, read by `tensorboard --logdir RUN/track`.

Writing them opens no connection; they are files like any other.
"""

import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xray_classifier.errors import UsageError

FOLDER = "track"
INSTALL = "pip install 'xray-classifier[track]'"


def require_tensorboard() -> None:
    """Refuse before the first step what could not be written after it.

    Raises:
        UsageError: TensorBoard is not installed, or does not load.
    """
    if find_spec("tensorboard") is None:
        raise UsageError(_without("is not installed here"))
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UsageError(_without(f"is installed but does not load ({error})")) from error


def _without(state: str) -> str:
    return (
        f"train.track is tensorboard, which {state}. Install it with\n"
        f"  {INSTALL}\n"
        "or train without it: train.track=null"
    )


class TensorBoardTracker:
    """Writes event files; a resumed run goes on in the same folder.

    Args:
        folder: Where to; made if absent.
        done_steps: Steps that the run has taken already. What an earlier process wrote of later
            steps, which are now taken again, is left out by TensorBoard.
    """

    def __init__(self, folder: Path, done_steps: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = done_steps + 1 if done_steps or _has_events(folder) else None
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Write a picture."""
        import numpy as np
        from PIL import Image

        with Image.open(io.BytesIO(png)) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _has_events(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
