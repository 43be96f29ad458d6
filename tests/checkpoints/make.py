#!/usr/bin/env python3
"""Make the checkpoints that later versions of the program must still read.

    python tests/checkpoints/make.py

To be run once when FORMAT_VERSION was raised, with the version that is released; the files of
earlier versions stay as they are. Writes, for the network of each kind and the format version N,
vN_<kind>_best.safetensors and vN_<kind>_last.safetensors, and vN.json: the config's overrides, a
few images in hexadecimal, and the logits that the best checkpoint gave for them. The last
checkpoint is that of a run stopped by its user in the middle of its second epoch.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from xray_classifier.building import run_best_monitor, run_building
from xray_classifier.callbacks import Callback, Checkpoints
from xray_classifier.checkpoint import FORMAT_VERSION
from xray_classifier.classifier import load_classifier
from xray_classifier.config_file import load_config
from xray_classifier.data.loading import run_loading
from xray_classifier.history import Run
from xray_classifier.resume import training_state
from xray_classifier.saving import run_best
from xray_classifier.signals import StopRequest
from xray_classifier.terminal import Terminal

HERE = Path(__file__).resolve().parent
KINDS = {
    "perceptron": ["model={type: perceptron}"],
    "mlp": ["model.type=mlp", "model.hidden=[6]", "model.dropout=0.25", "model.norm=batch"],
}
SHARED = [
    "data.phantoms.n_images=48",
    "data.image.size=16",
    "data.workers=1",
    "train.epochs=3",
    "train.batch_size=8",
    "train.device=cpu",
    "train.threads=1",
]
STOPPED_IN_BATCH = 2
N_IMAGES = 3


class StopInSecondEpoch(Callback):
    """Asks to stop, as Ctrl-C does."""

    def __init__(self, request: StopRequest) -> None:
        self.request = request

    def on_step_end(self, run: Run) -> None:
        """Raise the flag."""
        if (run.epoch, run.batch) == (1, STOPPED_IN_BATCH):
            self.request.signal_name = "SIGINT"


def main() -> int:
    """Write all files of the current version."""
    images = np.random.default_rng(FORMAT_VERSION).integers(0, 256, (N_IMAGES, 16, 16), np.uint8)
    record = {"images": [image.tobytes().hex() for image in images], "kinds": {}}
    for kind, keys in KINDS.items():
        overrides = [*SHARED, *keys]
        with tempfile.TemporaryDirectory() as folder:
            train(overrides, Path(folder))
            for name in ("best", "last"):
                target = HERE / f"v{FORMAT_VERSION}_{kind}_{name}.safetensors"
                shutil.copyfile(Path(folder) / f"{name}.safetensors", target)
        best = load_classifier(HERE / f"v{FORMAT_VERSION}_{kind}_best.safetensors", "cpu")
        logits = best.score(images).logits.tolist()
        record["kinds"][kind] = {"overrides": overrides, "logits": logits}
    (HERE / f"v{FORMAT_VERSION}.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0


def train(overrides: list[str], folder: Path) -> None:
    """Leave both checkpoints of a stopped run in a folder."""
    config = load_config("demo", overrides).config
    radiographs = run_loading(config.data, config.task, Terminal(quiet=True))
    built = run_building(config, radiographs)
    trainer = built.trainer
    trainer.callbacks = [
        Checkpoints(
            folder,
            run_best_monitor(config.train),
            best=lambda: run_best(config, trainer, built.content, built.memory),
            state=lambda: training_state(trainer, radiographs.fingerprint()),
            every_steps=None,
            every_s=None,
        ),
        StopInSecondEpoch(trainer.request),
    ]
    trainer.fit()


if __name__ == "__main__":
    sys.exit(main())
