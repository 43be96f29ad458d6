"""The job in skorch, as its documentation has it: python skorch_peer.py FOLDER EPOCHS"""

import json
import sys
import time

import numpy as np
import torch
from skorch import NeuralNetBinaryClassifier
from skorch.callbacks import Callback
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Grayscale, Resize, ToTensor


class Clock(Callback):
    """When training began and the last epoch ended."""

    first_s = last_s = 0.0

    def on_train_begin(self, net: object, **more: object) -> None:
        """Note the time."""
        self.first_s = time.time()

    def on_epoch_end(self, net: object, **more: object) -> None:
        """Note the time."""
        self.last_s = time.time()


def main() -> None:
    """Train, and say when the steps began and ended, in seconds since 1970."""
    folder, epochs = sys.argv[1], int(sys.argv[2])
    change = Compose([Grayscale(), Resize((64, 64)), ToTensor()])
    films = ImageFolder(folder, transform=change, target_transform=np.float32)
    clock = Clock()
    net = NeuralNetBinaryClassifier(
        nn.Sequential(
            *(nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Dropout(0.3)),
            *(nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 1)),
        ),
        criterion=nn.BCEWithLogitsLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=64,
        max_epochs=epochs,
        train_split=None,
        iterator_train__shuffle=True,
        iterator_train__num_workers=2,
        callbacks=[clock],
    )
    net.fit(films, y=None)
    print(json.dumps({"first_step_at": clock.first_s, "last_step_at": clock.last_s}))


if __name__ == "__main__":
    main()
