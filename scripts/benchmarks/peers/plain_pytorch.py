"""The job in plain PyTorch, as its tutorials have it: python plain_pytorch.py FOLDER EPOCHS"""

import json
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Grayscale, Resize, ToTensor


def main() -> None:
    """Train, and say when the steps began and ended, in seconds since 1970."""
    folder, epochs = sys.argv[1], int(sys.argv[2])
    change = Compose([Grayscale(), Resize((64, 64)), ToTensor()])
    films = ImageFolder(folder, transform=change)
    loader = DataLoader(films, batch_size=64, shuffle=True, num_workers=2)
    model = nn.Sequential(
        *(nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 1)),
    )
    loss_of = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    first_s = time.time()
    for epoch in range(epochs):
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_of(model(images).squeeze(1), labels.float())
            loss.backward()
            optimizer.step()
            total += loss.item() * len(images)
        print(f"epoch {epoch + 1} loss {total / len(films):.4f}", file=sys.stderr)
    last_s = time.time()
    print(json.dumps({"first_step_at": first_s, "last_step_at": last_s}))


if __name__ == "__main__":
    main()
