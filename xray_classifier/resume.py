"""The whole state of a training run, to disk and back, so that a stopped run goes on exactly."""

import contextlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xray_classifier.callbacks import Saved
from xray_classifier.checkpoint import STATES, Checkpoint, NewerVersionError, load_checkpoint
from xray_classifier.config import Config
from xray_classifier.config_file import LoadedConfig, load_config, sets_one_of
from xray_classifier.data.loading import WHAT_CHANGES, Radiographs
from xray_classifier.errors import (
    CheckpointError,
    DataError,
    NonFiniteError,
    OutputError,
    UsageError,
)
from xray_classifier.files import printable, write_refusal
from xray_classifier.fingerprints import changes_in_words, fingerprint_table
from xray_classifier.trainer import Trainer

MAY_CHANGE = (
    "train.epochs",
    "train.early_stopping.patience",
    "train.device",
    "train.threads",
    "train.checkpoint_every",
    "train.micro_batch",
    "train.timeout_minutes",
    "train.track",
    "data.workers",
    "data.cache",
    "data.path",
    "data.root",
)
DAMAGED_STATE = "damaged.safetensors"
LEFTOVER = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
"""Names of unfinished files, as `files.atomic_file` makes them."""

INDEX_LEFTOVER_AGE_S = 600.0
"""Other runs write the index of runs too, but none needs this long for it."""

COUNTERS = ("epoch", "batch", "step", "loss_sum", "images_seen")


def training_state(trainer: Trainer, fingerprint: str = "") -> Saved:
    """Tensors and plain values of a run between two steps.

    No random state is among them: order and dropout are functions of the seed and the counters.

    Args:
        trainer: As it stands.
        fingerprint: Of the images and their splits, to notice on resume that they changed.

    Raises:
        NonFiniteError: A step that was not looked at yet could not be taken.
    """
    trainer.settle()
    run = trainer.run
    tensors = {f"model.{name}": t for name, t in trainer.model.state_dict().items()}
    for index, values in trainer.optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
    if trainer.ema is not None:
        tensors |= {f"ema.{name}": t for name, t in trainer.ema.state_dict().items()}
    content: dict[str, Any] = {
        "kind": "last",
        "counters": {name: getattr(run, name) for name in COUNTERS},
        "elapsed_s": run.elapsed_s,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "columns": run.history.columns,
        "history": run.history.rows,
        "scaler": trainer.scaler.state_dict() if trainer.scaler.is_enabled() else {},
        "fingerprint": fingerprint,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch_size": trainer.batch_size,
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
        if trainer.ema is not None:
            trainer.ema.load_state_dict(
                {
                    name.removeprefix("ema."): tensor
                    for name, tensor in checkpoint.tensors.items()
                    if name.startswith("ema.")
                }
            )
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
    if run.epoch > 0 and run.batch == 0:
        trainer.validate()  # the threshold of a best checkpoint needs its outputs


def newest_state(run_dir: Path, warn: Callable[[str], None]) -> Checkpoint:
    """The newest sound state of a run: the last, or where that is missing or damaged the previous.

    Args:
        run_dir: The run folder.
        warn: Told in one sentence if the last state could not be used.

    Raises:
        CheckpointError: No state can be read, or one is of a newer format version.
    """
    last, previous = (run_dir / "checkpoints" / name for name in STATES)
    try:
        return load_checkpoint(last)
    except NewerVersionError:
        raise
    except (CheckpointError, UsageError) as error:
        trouble = str(error)
    try:
        found = load_checkpoint(previous)
    except NewerVersionError:
        raise
    except (CheckpointError, UsageError) as error:
        raise CheckpointError(f"{trouble}; {error}: this run cannot be resumed") from error
    step = found.require("counters")["step"]
    warn(f"{trouble}; the state before it, {printable(previous)} of step {step}, is taken instead")
    return found


def tidy_run(run_dir: Path, state: Checkpoint) -> list[Path]:
    """Put a run folder in order before training goes on in it.

    Removes unfinished files that a killed process left in it and beside it. If the last state was
    damaged, it gets the name damaged.safetensors, lest the next save keeps it as the previous one.

    Args:
        run_dir: The run folder, owned by this process.
        state: What `newest_state` gave.

    Returns:
        What was removed.

    Raises:
        OutputError: A damaged file could not be renamed.
    """
    last = run_dir / "checkpoints" / STATES[0]
    if state.path != last and last.exists():
        try:
            last.replace(last.with_name(DAMAGED_STATE))
        except OSError as error:
            raise OutputError(write_refusal(last, error)) from error
    gone = []
    for path in _leftovers(run_dir):
        with contextlib.suppress(OSError):  # they cost space, no more
            path.unlink()
            gone.append(path)
    return gone


def _leftovers(run_dir: Path) -> Iterator[Path]:
    for folder in (run_dir, run_dir / "checkpoints", run_dir / "data"):
        yield from (p for p in folder.glob(".*") if LEFTOVER.fullmatch(p.name) and p.is_file())
    for path in run_dir.parent.glob(".index.csv.*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > INDEX_LEFTOVER_AGE_S:
                yield path


def run_fingerprints(radiographs: Radiographs) -> str:
    """The table of images that `require_same_data` compares with, as CSV for the run folder."""
    manifest = radiographs.manifest
    return fingerprint_table(
        manifest.ids, manifest.targets.tolist(), manifest.splits, radiographs.digests
    )


def require_same_data(run_dir: Path, state: Checkpoint, radiographs: Radiographs) -> None:
    """See to it that a run goes on with the images that it began with.

    Args:
        run_dir: The run folder.
        state: What is resumed.
        radiographs: The images of now.

    Raises:
        DataError: Images were added, removed, edited, relabelled or moved to another split; up to
            ten are named.
    """
    if state.require("fingerprint") == radiographs.fingerprint():
        return
    raise DataError(
        f"the data changed since {printable(run_dir)} was stopped ({WHAT_CHANGES}); restore "
        f"them, or start a new run{changes_in_words(run_dir, run_fingerprints(radiographs))}"
    )


def _optimizer_state(trainer: Trainer, checkpoint: Checkpoint) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": trainer.optimizer.state_dict()["param_groups"]}


def may_change(override: str) -> bool:
    """Whether `a.b=c` sets a key that leaves the past of a run untouched."""
    return sets_one_of(override, MAY_CHANGE)


def load_for_resume(run_dir: Path, overrides: list[str]) -> LoadedConfig:
    """The config of a run to go on with; only keys that leave the past untouched may change.

    Raises:
        UsageError: Another key is overridden, or the folder is no run.
        CheckpointError: The run has no state to resume.
    """
    if not run_dir.exists():
        raise UsageError(f"{printable(run_dir)} does not exist")
    if not (run_dir / "config.yaml").is_file():
        raise UsageError(
            f"{printable(run_dir)} is no run folder; --resume takes the folder that holds "
            "config.yaml and checkpoints"
        )
    if not has_state(run_dir):
        last = run_dir / "checkpoints" / STATES[0]
        raise CheckpointError(f"{printable(last)} is missing: this run cannot be resumed")
    for override in overrides:
        key = override.split("=", 1)[0]
        if not may_change(override):
            raise UsageError(
                f"{key} cannot change when a run is resumed; these can: {', '.join(MAY_CHANGE)}. "
                "Start a new run for anything else"
            )
    return load_config(run_dir / "config.yaml", overrides)


def has_state(run_dir: Path) -> bool:
    """Whether a run has saved a state, sound or not."""
    return any((run_dir / "checkpoints" / name).is_file() for name in STATES)


def differing_keys(one: Config, other: Config) -> set[str]:
    """Dotted keys in which two configs differ, `name` aside."""
    values = [_flat(config.model_dump(mode="json", exclude={"name"})) for config in (one, other)]
    return {key for key in values[0] | values[1] if values[0].get(key) != values[1].get(key)}


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def newest_unfinished(parent: Path, name: str) -> Path | None:
    """The newest run of this name that was stopped before its end and can be resumed."""
    pattern = re.compile(rf"(\d{{8}}-\d{{6}})_{re.escape(name)}(?:-(\d+))?")
    named = ((pattern.fullmatch(p.name), p) for p in parent.glob(f"*_{name}*"))
    candidates = [(match[1], int(match[2] or 1), p) for match, p in named if match]
    for _, _, run in sorted(candidates, reverse=True):
        try:
            summary = json.loads((run / "summary.json").read_bytes())
            status, exit_code = summary["status"], summary.get("exit_code")
        except (OSError, ValueError, KeyError, AttributeError):
            continue
        hopeless = exit_code == NonFiniteError.exit_code  # it would diverge again
        resumable = has_state(run) or (run / "members").is_dir()
        if status != "finished" and not hopeless and resumable:
            return run
    return None
