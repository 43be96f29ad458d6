"""The finished run that a lesson is drawn from: one network, its images and its loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xray_classifier.building import run_loss, training_targets
from xray_classifier.classifier import Classifier, load_classifier, run_of
from xray_classifier.config import Config
from xray_classifier.config_file import load_config
from xray_classifier.data.dataset import LabelledImages, load_split
from xray_classifier.data.loading import Radiographs
from xray_classifier.errors import CheckpointError, UsageError
from xray_classifier.files import printable
from xray_classifier.judged_data import judged_config, own_images
from xray_classifier.members import MEMBERS, found_run, holds_members, members_of
from xray_classifier.terminal import Terminal


@dataclass(frozen=True, eq=False)
class Subject:
    """One network of a finished run with everything that a lesson measures on.

    Attributes:
        classifier: The network; of a run of several models the first.
        loss: The loss that training made small: outputs (B,) and targets (B,) to a scalar.
        splits: Images of `train` and, where the run has it, `val`; never of test.
        radiographs: All images of the run.
        config: Of the run, or of the member.
        run_dir: Folder with the history of this network.
        member: Name of the member in a run of several models; `` for a run of one.
    """

    classifier: Classifier
    loss: nn.Module
    splits: Mapping[str, LabelledImages]
    radiographs: Radiographs
    config: Config
    run_dir: Path
    member: str

    @property
    def held(self) -> str:
        """The split that training did not learn from: val, or train where there is none."""
        return "val" if "val" in self.splits else "train"


def run_subject(
    path: Path, terminal: Terminal, device: str = "auto", overrides: Sequence[str] = ()
) -> Subject:
    """Open a finished run.

    Args:
        path: A run folder, or a checkpoint inside one.
        terminal: What the user reads.
        device: Where to compute.
        overrides: `data.path=...` and others, see `judged_config`.

    Raises:
        UsageError: There is no run, or no model of it is finished.
        DataError: The images changed since training.
        CheckpointError: The checkpoint is damaged or foreign.
    """
    run_dir, member = _run_of_one(path)
    classifier = load_classifier(run_dir, device)
    radiographs = _images_of(classifier, overrides, terminal)
    config = load_config(run_dir / "config.yaml").config
    rows = {name: radiographs.rows(name) for name in ("train", "val")}
    targets, _ = training_targets(radiographs.manifest.targets, rows["train"], config.task)
    place = next(classifier.model.parameters()).device
    splits = {
        name: load_split(radiographs.images, targets, chosen, place)
        for name, chosen in rows.items()
        if len(chosen)
    }
    loss = run_loss(config, radiographs.manifest.targets[rows["train"]])
    return Subject(classifier, loss, splits, radiographs, config, run_dir, member)


def _images_of(classifier: Classifier, overrides: Sequence[str], terminal: Terminal) -> Radiographs:
    """The images of the run, wherever they are now."""
    config = judged_config(classifier, None, overrides)
    try:
        return own_images(classifier, config, terminal)
    except UsageError as error:
        if config.path is None or Path(config.path).exists():
            raise
        raise UsageError(
            f"{error}; where the images of the run have moved, say so behind RUN: data.path=PATH"
        ) from error


def _run_of_one(path: Path) -> tuple[Path, str]:
    """The folder of a run of one model, and its name where it is a member of several."""
    if not path.exists():
        raise UsageError(f"{printable(path)} does not exist; give a run folder such as runs/latest")
    run = path if path.is_dir() else run_of(path)
    if run is None or not (run / "config.yaml").is_file():
        raise UsageError(
            f"{printable(path)} is no run folder; `explain` draws from the images and the records "
            "of a run, such as runs/latest"
        )
    if not holds_members(run):
        return run, ""
    first = members_of(load_config(run / "config.yaml").config)[0]
    found = found_run(run / MEMBERS, first.name)
    if found is None:
        raise CheckpointError(
            f"{printable(run)} holds no finished model yet; finish it with `train --resume RUN`"
        )
    return found, first.name


def some_of(images: LabelledImages, most: int, seed: int = 0) -> LabelledImages:
    """At most `most` images of a split, drawn at random once for a seed, in their order.

    Args:
        images: The split.
        most: At least 1.
        seed: Of the draw.
    """
    n = len(images)
    if n <= most:
        return images
    rng = np.random.default_rng(seed)
    index = np.sort(rng.permutation(n)[:most])
    places = torch.from_numpy(index)
    return LabelledImages(
        images.store,
        images.positions[places],
        images.targets[places.to(images.targets.device)],
        images.rows[index],
        images.device,
    )


@torch.no_grad()
def products_per_image(model: nn.Module, image: Tensor) -> int:
    """Multiplications that one image costs in the linear layers of a model.

    Args:
        model: Left as it is.
        image: One standardised image, (1, C, S, S), on the device of the model.
    """
    counted = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal counted
        if isinstance(layer, nn.Linear):
            counted += output.numel() * layer.in_features

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Linear)]
    was_training = model.training
    try:
        model.eval()(image)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return counted
