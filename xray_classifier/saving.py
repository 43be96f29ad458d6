"""What a best checkpoint holds besides its weights: all that evaluate and predict need."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xray_classifier.calibration import Calibration, CalibrationMethod, fit_calibration
from xray_classifier.callbacks import Saved
from xray_classifier.config import Config
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.splits import CLASS_NAMES, split_summary
from xray_classifier.history import Monitor
from xray_classifier.memory import Memory
from xray_classifier.model import Architecture
from xray_classifier.operating_points import operating_curve, parse_threshold, solve
from xray_classifier.run_folder import environment
from xray_classifier.trainer import Trainer

NO_VALIDATION_THRESHOLD = 0.5


def run_content(
    config: Config,
    radiographs: Radiographs,
    architecture: Architecture,
    pixels: tuple[float, float],
    target: dict[str, float] | None,
    monitor: Monitor | None,
    device: torch.device,
    memory: Memory,
) -> dict[str, Any]:
    """What a best checkpoint says apart from what changes from epoch to epoch."""
    data = config.data.model_dump(mode="json")
    manifest = radiographs.manifest
    counts = split_summary(manifest.splits, manifest.targets, manifest.patients, config.task)
    return {
        "kind": "best",
        "task": config.task,
        "classes": list(CLASS_NAMES),
        "positive_class": "sick",
        "labels": data["labels"],
        "columns": data["columns"],
        "patient": data["patient"],
        "image": data["image"],
        "pixels": {"mean": pixels[0], "std": pixels[1]},
        "target": target,
        "architecture": architecture.to_dict(),
        "data": data,
        "fingerprint": radiographs.fingerprint(),
        "splits": {name: asdict(count) for name, count in counts.items() if name},
        "seed": config.seed,
        "monitor": None if monitor is None else asdict(monitor),
        "environment": environment(str(device), torch.get_num_threads()),
        "memory": memory.content(),
    }


def run_best(config: Config, trainer: Trainer, content: Mapping[str, Any], memory: Memory) -> Saved:
    """The weights of this moment with the calibration and threshold that belong to them."""
    operating = _unvalidated(config.evaluate.threshold)
    run = trainer.run
    logits = run.val_outputs
    if trainer.val_images is not None and logits is not None and config.task == "classify":
        labels = trainer.val_images.targets.cpu().numpy().astype(int)
        operating = operating_point(
            labels, logits, config.evaluate.calibration, config.evaluate.threshold
        )
    with trainer.judged_weights():  # copied, for afterwards the live ones return
        weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    return {**weights, **memory.tensors()}, {
        **content,
        **operating,
        "epoch": run.epoch,
        "step": run.step,
    }


def _unvalidated(threshold: float | str) -> dict[str, Any]:
    """Without validation outputs: no calibration, and a fixed threshold or the plain 0.5."""
    policy = parse_threshold(threshold)
    value = NO_VALIDATION_THRESHOLD if policy.kind != "fixed" else policy.target
    note = None
    if policy.kind != "fixed":
        note = f"no validation split to solve {policy} on: the threshold is the plain {value}"
    return {
        "calibration": Calibration("off", 1.0, 0.0).to_dict(),
        "threshold": {"value": value, "policy": "fixed", "chosen_on": None, "note": note},
    }


def operating_point(
    labels: NDArray[np.int64],
    logits: NDArray[np.float64],
    method: CalibrationMethod,
    threshold: float | str,
) -> dict[str, Any]:
    """What a checkpoint says of calibration and threshold.

    Args:
        labels: Truth per validation image, shape (n,); 1 is sick, 0 is healthy.
        logits: Raw outputs, shape (n,), of weights that did not learn from these images.
        method: How logits become probabilities.
        threshold: A policy, see `parse_threshold`.
    """
    calibration, note = fit_calibration(labels, logits, method)
    probabilities = calibration.apply(logits)
    policy = parse_threshold(threshold)
    both = 0 < int(labels.sum()) < len(labels)
    curve = operating_curve(labels, probabilities) if both else None
    stored = {"value": policy.target, "policy": "fixed", "chosen_on": None, "note": None}
    if policy.kind != "fixed" and curve is not None:
        value = solve(curve, policy)
        stored = {"value": value, "policy": str(policy), "chosen_on": "val", "note": None}
    return {
        "calibration": calibration.to_dict(),
        "calibration_note": note,
        "operating_curve": None if curve is None else curve.to_dict(),
        "threshold": stored,
    }
