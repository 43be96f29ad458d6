"""The whole state of a training run, to disk and back, so that a stopped run goes on exactly."""

import math
from typing import Any

import torch
from torch import Tensor

from xray_classifier.callbacks import Saved
from xray_classifier.checkpoint import Checkpoint
from xray_classifier.errors import CheckpointError
from xray_classifier.files import printable
from xray_classifier.trainer import Trainer

COUNTERS = ("epoch", "batch", "step", "loss_sum", "images_seen")


def training_state(trainer: Trainer) -> Saved:
    """Tensors and plain values of a run between two steps.

    No random state is among them: order and dropout are functions of the seed and the counters.
    """
    run = trainer.run
    tensors = {f"model.{name}": t for name, t in trainer.model.state_dict().items()}
    for index, values in trainer.optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
    content: dict[str, Any] = {
        "kind": "last",
        "counters": {name: getattr(run, name) for name in COUNTERS},
        "elapsed_s": run.elapsed_s,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "columns": run.history.columns,
        "history": run.history.rows,
        "scaler": trainer.scaler.state_dict() if trainer.scaler.is_enabled() else {},
        "batch_size": trainer.batch_size,
        "threads": torch.get_num_threads(),
    }
    return tensors, content


def restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Bring a freshly built trainer to the state of a `last` checkpoint.

    Raises:
        CheckpointError: It belongs to another network or optimizer, or is no state of a run.
    """
    if checkpoint.require("kind") != "last":
        raise CheckpointError(f"{printable(checkpoint.path)} is no state that can be resumed")
    weights = {
        name.removeprefix("model."): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("model.")
    }
    try:
        trainer.model.load_state_dict(weights)
        trainer.optimizer.load_state_dict(_optimizer_state(trainer, checkpoint))
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{printable(checkpoint.path)} does not fit this config's network or optimizer; "
            "resume with the run's own config"
        ) from error
    if checkpoint.content.get("scaler"):
        trainer.scaler.load_state_dict(checkpoint.content["scaler"])
    run = trainer.run
    for name, value in checkpoint.require("counters").items():
        setattr(run, name, value)
    run.earlier_s = checkpoint.require("elapsed_s")
    for group in trainer.optimizer.param_groups:
        group["lr"] = checkpoint.require("lr")
    rows = checkpoint.require("history")
    run.history.rows = [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]


def _optimizer_state(trainer: Trainer, checkpoint: Checkpoint) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": trainer.optimizer.state_dict()["param_groups"]}
