"""What a best checkpoint holds besides its weights: all that evaluate and predict need."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xray_classifier.baseline import fit_baseline
from xray_classifier.bootstrap import patient_clusters
from xray_classifier.calibration import Calibration, fit_calibration
from xray_classifier.callbacks import Saved
from xray_classifier.config import Config, EvaluateConfig
from xray_classifier.data.dataset import LabelledImages
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.splits import CLASS_NAMES, split_summary
from xray_classifier.gating import NO_HELD_OUT, GatePlan, gate_plan
from xray_classifier.history import Monitor
from xray_classifier.losses import balanced_pos_weight
from xray_classifier.memory import Memory
from xray_classifier.model import Architecture
from xray_classifier.operating_estimates import operating_estimate, units_of
from xray_classifier.operating_points import operating_curve, shortfall, solve
from xray_classifier.policies import parse_threshold
from xray_classifier.refer import solve_band
from xray_classifier.run_folder import environment
from xray_classifier.trainer import Trainer, split_loss

NO_VALIDATION_THRESHOLD = 0.5


def run_pos_weight(asked: float | str | None, labels: NDArray[np.int64]) -> float:
    """How much a sick training image counts in the loss.

    Args:
        asked: `train.pos_weight`.
        labels: Of the training images, shape (n,); both classes are there.
    """
    if asked == "auto":
        return balanced_pos_weight(int((labels == 0).sum()), int((labels == 1).sum()))
    return 1.0 if asked is None else float(asked)


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
    train = radiographs.rows("train")
    baseline = pos_weight = None
    if config.task == "classify":
        labels = manifest.targets[train].astype(int)
        pos_weight = run_pos_weight(config.train.pos_weight, labels)
        baseline = fit_baseline(radiographs.signatures[train], labels).to_dict()
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
        "intended_use": config.intended_use.model_dump(mode="json"),
        "seed": config.seed,
        "monitor": None if monitor is None else asdict(monitor),
        "environment": environment(str(device), torch.get_num_threads()),
        "memory": memory.content(),
        "baseline": baseline,
        "subgroups": config.evaluate.subgroups,
        "pos_weight": pos_weight,
    }


@dataclass(frozen=True, eq=False)
class Choosing:
    """The images on which calibration, threshold and refer band are chosen.

    Attributes:
        split: val, or calibrate where the run keeps a split of its own for it.
        images: That split.
        clusters: Patient number of each image, shape (n,), from `patient_clusters`.
        gate: What the input gate is fitted to; these images set its limits.
    """

    split: str
    images: LabelledImages
    clusters: NDArray[np.int64]
    gate: GatePlan


def run_choosing(radiographs: Radiographs, splits: Mapping[str, LabelledImages]) -> Choosing | None:
    """Where a run chooses its operating point and sets the limits of its input gate.

    That is the calibration split, else validation.

    Args:
        radiographs: With all splits.
        splits: The images of `val` and `calibrate`, as far as there are any.
    """
    for name in ("calibrate", "val"):
        if name in splits:
            patients = [radiographs.manifest.patients[row] for row in splits[name].rows]
            clusters = patient_clusters(np.array(patients, dtype=object), len(patients))
            held = np.asarray(splits[name].rows)
            gate = gate_plan(radiographs, radiographs.rows("train"), held, name)
            return Choosing(name, splits[name], clusters, gate)
    return None


def run_best(
    config: Config,
    trainer: Trainer,
    content: Mapping[str, Any],
    memory: Memory,
    choosing: Choosing | None,
) -> Saved:
    """The weights of this moment with the calibration, threshold and gate that belong to them."""
    operating = _unvalidated(config.evaluate.threshold)
    run = trainer.run
    with trainer.judged_weights():  # copied, for afterwards the live ones return
        weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        logits = None if choosing is None else _logits(trainer, choosing)
        gate, gate_content = _gate(trainer, choosing)
    if choosing is not None and logits is not None and config.task == "classify":
        labels = choosing.images.targets.cpu().numpy().astype(int)
        operating = operating_point(
            labels, logits, choosing.clusters, config.evaluate, choosing.split, config.seed
        )
    return {**weights, **memory.tensors(), **gate}, {
        **content,
        **operating,
        "gate": gate_content,
        "epoch": run.epoch,
        "step": run.step,
    }


def _logits(trainer: Trainer, choosing: Choosing) -> NDArray[np.float64] | None:
    """Raw outputs on the images that choose; those of validation are at hand after each epoch."""
    if choosing.split == "val":
        return trainer.run.val_outputs
    return split_loss(trainer.model, trainer.standardize, trainer.loss, choosing.images)[0]


def _gate(trainer: Trainer, choosing: Choosing | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and words of the input gate; it is off without held-out images."""
    if choosing is None:
        return {}, {"on": False, "why_off": NO_HELD_OUT}
    return choosing.gate.saved(trainer.model, trainer.standardize)


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
        "refer": None,
    }


def operating_point(
    labels: NDArray[np.int64],
    logits: NDArray[np.float64],
    clusters: NDArray[np.int64],
    evaluate: EvaluateConfig,
    chosen_on: str,
    seed: int,
) -> dict[str, Any]:
    """What a checkpoint says of calibration, threshold and refer band.

    Args:
        labels: Truth per image, shape (n,); 1 is sick, 0 is healthy.
        logits: Raw outputs, shape (n,), of weights that did not learn from these images.
        clusters: Patient number of each image, shape (n,).
        evaluate: How logits become probabilities, and which policies choose.
        chosen_on: What to call these images: val, calibrate or out-of-fold.
        seed: Of folds and resamples.
    """
    calibration, note = fit_calibration(labels, logits, evaluate.calibration)
    probabilities = calibration.apply(logits)
    policy = parse_threshold(evaluate.threshold)
    found: dict[str, Any] = {
        "calibration": calibration.to_dict(),
        "calibration_note": note,
        "operating_curve": None,
        "threshold": {"value": policy.target, "policy": "fixed", "chosen_on": None, "note": None},
        "refer": None,
    }
    if not 0 < int(labels.sum()) < len(labels):
        return found
    curve = operating_curve(labels, probabilities, policy, units_of(labels, clusters))
    value = solve(curve, policy)
    estimate = operating_estimate(labels, logits, clusters, evaluate.calibration, policy, seed)
    found["operating_curve"] = curve.to_dict()
    found["threshold"] = {
        "value": value,
        "policy": "fixed" if policy.kind == "fixed" else str(policy),
        "chosen_on": None if policy.kind == "fixed" else chosen_on,
        "calibrated_on": chosen_on,
        "note": shortfall(curve, policy),
        "n": len(labels),
        **estimate.to_dict(),
    }
    if evaluate.refer is not None:
        found["refer"] = solve_band(labels, probabilities, value, evaluate.refer).to_dict()
    return found
