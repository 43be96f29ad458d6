"""The models of a repeated run: which there are, where they stand, and how far they differ."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xray_classifier.checkpoint import Checkpoint, load_checkpoint
from xray_classifier.config import Config
from xray_classifier.config_file import LoadedConfig, load_config, sets_one_of
from xray_classifier.data.loading import WHAT_CHANGES, Radiographs
from xray_classifier.errors import CheckpointError, DataError, UsageError
from xray_classifier.files import printable, read_json
from xray_classifier.resume import MAY_CHANGE

MEMBERS = "members"
"""Folder of the members' run folders."""
WOULD_DIFFER = ("train.epochs", "train.early_stopping.patience")
"""Keys that a single run may change when it goes on, but not one that has finished members."""
SEEDS_END = 2**31
STATES = ("last", "previous")
SPLIT_COLUMN = 3
"""Place of `split` in data/manifest.csv."""
TOLD = ("auroc", "brier", "sensitivity", "specificity", "mae", "r2")
"""Metrics whose spread is said on the terminal; metrics.json has them all."""


@dataclass(frozen=True)
class Member:
    """One of the models of a repeated run.

    Attributes:
        number: From 1, in the order of training.
        seed: Of its weights, sample order and dropout.
        fold: Which fold validates it, from 1; None where all share one split.
    """

    number: int
    seed: int
    fold: int | None

    @property
    def name(self) -> str:
        """As its run folder is called: 3-fold2-seed0."""
        fold = "" if self.fold is None else f"-fold{self.fold}"
        return f"{self.number}{fold}-seed{self.seed}"


def is_repeated(config: Config) -> bool:
    """Whether a config asks for more than one model."""
    return config.train.folds is not None or config.train.seeds > 1


def holds_members(run_dir: Path) -> bool:
    """Whether a run folder is that of a repeated run."""
    return (run_dir / MEMBERS).is_dir()


def members_of(config: Config) -> tuple[Member, ...]:
    """The models that a config asks for: every seed of the first fold, then of the next.

    Raises:
        UsageError: The config is itself one fold of a cross-validation, or a seed is too large.
    """
    folds = config.train.folds
    if folds is not None and config.data.split.fold is not None:
        raise UsageError("train.folds and data.split.fold exclude each other; set one to null")
    if config.seed + config.train.seeds > SEEDS_END:
        raise UsageError(f"seed {config.seed} leaves no {config.train.seeds} seeds below 2**31")
    pairs = [
        (fold, config.seed + nth)
        for fold in (range(1, folds + 1) if folds is not None else [None])
        for nth in range(config.train.seeds)
    ]
    return tuple(Member(number, seed, fold) for number, (fold, seed) in enumerate(pairs, start=1))


def member_config(loaded: LoadedConfig, member: Member) -> LoadedConfig:
    """The config of one member, as a run of its own."""
    config = loaded.config
    train = config.train.model_copy(update={"folds": None, "seeds": 1})
    data = config.data
    if member.fold is not None:
        fold = (member.fold, config.train.folds)
        data = data.model_copy(update={"split": data.split.model_copy(update={"fold": fold})})
    own = {"name": member.name, "seed": member.seed, "train": train, "data": data}
    return replace(loaded, config=config.model_copy(update=own), name=member.name)


def keeps_members_alike(override: str) -> bool:
    """Whether `a.b=c` may be set when a repeated run with finished members goes on."""
    return sets_one_of(override, _allowed())


def _allowed() -> tuple[str, ...]:
    return tuple(key for key in MAY_CHANGE if key not in WOULD_DIFFER)


def load_repeated(run_dir: Path, overrides: Sequence[str]) -> LoadedConfig:
    """The config of a repeated run to go on with.

    Raises:
        UsageError: An override would make the members to come differ from those that are done.
    """
    for override in overrides:
        if not keeps_members_alike(override):
            raise UsageError(
                f"{override.split('=', 1)[0]} cannot change when a run of several models is "
                f"resumed; these can: {', '.join(_allowed())}. Start a new run for anything else"
            )
    return load_config(run_dir / "config.yaml", overrides)


def found_run(parent: Path, name: str) -> Path | None:
    """The run folder of a member: a finished one, else the newest that can be resumed."""
    pattern = re.compile(rf"(\d{{8}}-\d{{6}})_{re.escape(name)}(?:-(\d+))?")
    named = [(pattern.fullmatch(path.name), path) for path in parent.glob(f"*_{name}*")]
    dated = [(match[1], int(match[2] or 1), path) for match, path in named if match]
    newest_first = [path for _, _, path in sorted(dated, reverse=True)]
    finished = [path for path in newest_first if is_finished(path)]
    return next(iter(finished + [path for path in newest_first if _has_state(path)]), None)


def _has_state(run: Path) -> bool:
    """Whether there is something to go on with."""
    return any((run / "checkpoints" / f"{state}.safetensors").is_file() for state in STATES)


def is_finished(run: Path) -> bool:
    """Whether a run came to its end."""
    return read_json(run / "summary.json").get("status") == "finished"


def member_checkpoint(run: Path) -> Checkpoint:
    """The best checkpoint of a finished member.

    Raises:
        CheckpointError: It is damaged or missing; the member is named.
    """
    try:
        return load_checkpoint(run / "checkpoints" / "best.safetensors")
    except (CheckpointError, UsageError) as error:
        raise CheckpointError(
            f"{error}\nRemove the folder {printable(run)} and resume to train this member anew"
        ) from error


def member_radiographs(run: Path, checkpoint: Checkpoint, radiographs: Radiographs) -> Radiographs:
    """The images with the splits that a member was trained with.

    Raises:
        DataError: These are not the images that it was trained on.
    """
    changed = DataError(
        f"the data changed since {printable(run)} was trained ({WHAT_CHANGES}); restore them, or "
        "start a new run"
    )
    try:
        text = (run / "data" / "manifest.csv").read_text(encoding="utf-8")
        rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
        manifest = radiographs.manifest.with_splits([row[SPLIT_COLUMN] for row in rows])
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise changed from error
    theirs = replace(radiographs, manifest=manifest)
    if theirs.fingerprint() != checkpoint.require("fingerprint"):
        raise changed
    return theirs


def metrics_of(run: Path) -> dict[str, float]:
    """The metrics of a member on its own validation images; undefined ones are left out."""
    found = read_json(run / "metrics.json").get("metrics", {})
    return {name: e["value"] for name, e in found.items() if e["value"] is not None}


def spread_of(metrics: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """How far members differ, per metric.

    Args:
        metrics: Of each member, by name; one that is undefined for a member is left out there.

    Returns:
        By metric: mean, sd (with n - 1; NaN for one member), min, max, n and the values in order.
        This is no confidence interval: the members share images.
    """
    names = dict.fromkeys(name for one in metrics for name in one)
    spread = {}
    for name in names:
        values = [one[name] for one in metrics if name in one]
        spread[name] = {
            "mean": float(np.mean(values)),
            "sd": float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
            "min": min(values),
            "max": max(values),
            "n": len(values),
            "values": values,
        }
    return spread


def spread_in_words(spread: Mapping[str, Mapping[str, Any]], n_members: int) -> list[str]:
    """How far members differ, for a person."""
    lines = [
        f"  {name:<12} mean {s['mean']:.3f}, standard deviation {s['sd']:.3f}, "
        f"from {s['min']:.3f} to {s['max']:.3f}"
        for name, s in spread.items()
        if name in TOLD
    ]
    if not lines:
        return []
    head = (
        f"{n_members} members, each on its own validation images (how far they differ; this is no "
        "interval, for they share training images):"
    )
    return [head, *lines]
