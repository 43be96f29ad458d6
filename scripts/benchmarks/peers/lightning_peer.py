"""The job in Lightning, as its documentation has it: python lightning_peer.py FOLDER EPOCHS"""

import json
import sys
import time

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Grayscale, Resize, ToTensor


class Stack(lightning.LightningModule):
    """Perceptrons and their loss."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Dropout(0.3)),
            *(nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 1)),
        )
        self.loss_of = nn.BCEWithLogitsLoss()
        self.first_s = self.last_s = 0.0

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Loss of one batch."""
        images, labels = batch
        loss = self.loss_of(self.model(images).squeeze(1), labels.float())
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def on_train_start(self) -> None:
        """Note the time."""
        self.first_s = time.time()

    def on_train_epoch_end(self) -> None:
        """Note the time."""
        self.last_s = time.time()


def main() -> None:
    """Train, and say when the steps began and ended, in seconds since 1970."""
    folder, epochs = sys.argv[1], int(sys.argv[2])
    change = Compose([Grayscale(), Resize((64, 64)), ToTensor()])
    films = ImageFolder(folder, transform=change)
    loader = DataLoader(films, batch_size=64, shuffle=True, num_workers=2)
    model = Stack()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, log_every_n_steps=50
    )
    trainer.fit(model, loader)
    print(json.dumps({"first_step_at": model.first_s, "last_step_at": model.last_s}))


if __name__ == "__main__":
    main()
