"""On a CUDA device: the same answers as on the CPU, in every number format."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import films, labels, stack, trainer
from tiny_runs import TINY

from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.classifier import load_classifier
from xray_classifier.cli import main
from xray_classifier.data.augment import Augmentation
from xray_classifier.data.dataset import load_split
from xray_classifier.ema import Ema
from xray_classifier.optimizers import make_optimizer
from xray_classifier.pending import pending_steps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def trained(out: Path, *words: str) -> Path:
    """The run folder of a tiny run."""
    keys = [word for word in TINY if not word.startswith("train.device")]
    assert main(["train", "-c", "demo", "-q", "-o", str(out), *keys, *words]) == 0
    return next(path for path in out.iterdir() if path.is_dir() and not path.is_symlink())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_on_the_device_is_close_to_one_on_the_cpu(tmp_path: Path, precision: str) -> None:
    keys = ("model.dropout=0.0", "train.epochs=2")
    here = trained(tmp_path / "cpu", "train.device=cpu", *keys)
    there = trained(tmp_path / "gpu", "train.device=cuda", f"train.precision={precision}", *keys)
    pictures = films(64, size_px=16)
    one = load_classifier(here, "cpu").score(pictures).p_raw
    other = load_classifier(there, "cuda").score(pictures).p_raw
    tolerance = {"fp32": 1e-3, "bf16": 0.05, "fp16": 0.02}[precision]
    np.testing.assert_allclose(other, one, atol=tolerance)


def test_the_images_of_a_split_live_on_the_device() -> None:
    pictures, truth = films(20), labels(20).astype(np.float64)
    rows = np.array([3, 5, 8, 13])
    split = load_split(pictures, truth, rows, torch.device("cuda"))
    assert split.store.device.type == "cuda"
    images, targets = split.gather(torch.tensor([2, 0]))
    np.testing.assert_array_equal(images.cpu().numpy(), pictures[[8, 3]])
    np.testing.assert_array_equal(targets.cpu().numpy(), truth[[8, 3]])


def test_a_step_waits_for_nothing() -> None:
    """PyTorch itself refuses what makes the CPU wait for the GPU."""
    cuda = torch.device("cuda")
    model = stack((9, 5), dropout=0.4).to(cuda)
    one = trainer(model, grad_clip=1.0, mixup=0.4, ema=Ema(model, 0.9), micro_batch=3)
    one.augmentation = Augmentation(rotate_degrees=20.0, noise=0.05, blur=1.0, cutout=0.3)
    one.optimizer = make_optimizer(model, "adamw", 0.01)
    one.pending = pending_steps(one.optimizer, cuda, one.scaler)
    images = load_split(films(40), labels(40), np.arange(40), cuda)
    one.train_images = replace(images, positions=images.positions.to(cuda))
    losses = [one.step_and_wait(torch.arange(8))]  # the first one sets libraries up
    torch.cuda.set_sync_debug_mode("error")
    try:
        taken = [one.step(torch.arange(8)) for _ in range(4)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    one.pending.fetch(taken)
    losses += [step.loss for step in taken]
    assert np.isfinite(losses).all()
    assert len(set(losses)) == 5  # the optimizer moved


def test_answers_do_not_depend_on_company(tmp_path: Path) -> None:
    classifier = load_classifier(trained(tmp_path, "train.device=cuda"), "cuda")
    pictures = films(40, size_px=16)
    whole = classifier.score(pictures).logits
    alone = np.array([classifier.score(picture[None]).logits[0] for picture in pictures])
    np.testing.assert_array_equal(alone, whole)


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", "train.device=cuda", "train.schedule.name=constant")
    keys = ("train.device=cuda", "train.schedule.name=constant", "train.epochs=1")
    part = trained(tmp_path / "part", *keys)
    assert main(["train", "-q", "--resume", str(part), "train.epochs=3"]) == 0
    weights = [
        load_checkpoint(run / "checkpoints" / "last.safetensors").tensors for run in (whole, part)
    ]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
