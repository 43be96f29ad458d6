"""The job in fastai, as its documentation has it: python fastai_peer.py FOLDER EPOCHS"""

import json
import sys
import time

from fastai.vision.all import (
    Adam,
    BCEWithLogitsLossFlat,
    Callback,
    CategoryBlock,
    DataBlock,
    ImageBlock,
    Learner,
    PILImageBW,
    Resize,
    ResizeMethod,
    get_image_files,
    parent_label,
)
from torch import nn


class Clock(Callback):
    """When training began and the last epoch ended."""

    first_s = last_s = 0.0

    def before_fit(self) -> None:
        """Note the time."""
        self.first_s = time.time()

    def after_train(self) -> None:
        """Note the time."""
        self.last_s = time.time()


def all_train(items: list[object]) -> tuple[list[int], list[int]]:
    """Every image is for training."""
    return list(range(len(items))), []


def main() -> None:
    """Train, and say when the steps began and ended, in seconds since 1970."""
    folder, epochs = sys.argv[1], int(sys.argv[2])
    block = DataBlock(
        blocks=(ImageBlock(cls=PILImageBW), CategoryBlock),
        get_items=get_image_files,
        splitter=all_train,
        get_y=parent_label,
        item_tfms=Resize(64, method=ResizeMethod.Squish),
    )
    loaders = block.dataloaders(folder, bs=64, num_workers=2)
    model = nn.Sequential(
        *(nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 1)),
    )
    clock = Clock()
    learner = Learner(loaders, model, BCEWithLogitsLossFlat(), opt_func=Adam, cbs=[clock])
    with learner.no_bar(), learner.no_logging():
        learner.fit(epochs, lr=1e-3)
    print(json.dumps({"first_step_at": clock.first_s, "last_step_at": clock.last_s}))


if __name__ == "__main__":
    main()
