"""The public functions for notebooks and other programs; each does what its verb does."""

import os
from collections.abc import Sequence
from pathlib import Path

from xray_classifier.classifier import Classifier, GateMode, load_classifier
from xray_classifier.config_file import load_config
from xray_classifier.errors import UsageError
from xray_classifier.evaluation import NOTHING_MORE, Asked, EvaluationResult, run_evaluation
from xray_classifier.members import is_repeated
from xray_classifier.prediction import Prediction, PredictionResult, run_prediction
from xray_classifier.repeated import run_repeated
from xray_classifier.terminal import Terminal
from xray_classifier.tracking import Tracker
from xray_classifier.training import TrainingResult, run_training

__all__ = ["Classifier", "evaluate", "load_classifier", "predict", "train"]

AnyPath = str | os.PathLike[str]


def train(
    config: AnyPath,
    *overrides: str,
    out: AnyPath = "runs",
    quiet: bool = False,
    trackers: Sequence[Tracker] = (),
) -> TrainingResult:
    """Train from a config, as `xray-classifier train -c CONFIG` does.

    Args:
        config: A YAML file, a run folder, or the name of a shipped config such as "demo".
        overrides: Texts such as "train.epochs=3".
        out: Folder of run folders.
        quiet: Print nothing.
        trackers: Told about each step and epoch, and given the pictures; any object with the three
            methods of `xray_classifier.tracking.Tracker`. For a run of one model.

    Returns:
        Run folder, checkpoint, stop reason, best epoch and validation metrics.

    Raises:
        XrayError: As the verb would end with a message; `exit_code` says which kind.
    """
    loaded = load_config(str(config), overrides)
    if not is_repeated(loaded.config):
        return run_training(loaded, Terminal(quiet=quiet), Path(out), trackers=trackers)
    if trackers:
        raise UsageError(
            "trackers follow one model; leave out train.folds and train.seeds, or set "
            "train.track=tensorboard, which gives each model a folder of its own"
        )
    return run_repeated(loaded, Terminal(quiet=quiet), Path(out))


def evaluate(
    checkpoint: AnyPath,
    data: AnyPath | None = None,
    *overrides: str,
    split: str | None = None,
    out: AnyPath | None = None,
    threshold: str | float = "auto",
    prevalence: float | None = None,
    asked: Asked = NOTHING_MORE,
    quiet: bool = False,
) -> EvaluationResult:
    """Judge a checkpoint, as `xray-classifier evaluate` does.

    Args:
        checkpoint: A checkpoint or a run folder.
        data: Folder, CSV or NPZ with labels; None takes the run's own data.
        overrides: Texts such as "data.patient=null".
        split: train, val, calibrate or test; None takes test, else val.
        out: Folder to write into; None makes one under the run's `eval`.
        threshold: "auto", a probability, "sens=0.95", "spec=0.90", "cost=10" or "youden".
        prevalence: Share of sick where the answers are used, in (0, 1).
        asked: Subgroups, other thresholds, stress test, conditions; conditions that do not hold
            are in the result's `unmet`.
        quiet: Print nothing.

    Raises:
        XrayError: As the verb would end with a message.
    """
    return run_evaluation(
        Path(checkpoint),
        Terminal(quiet=quiet),
        data=None if data is None else Path(data),
        split=split,
        out=None if out is None else Path(out),
        threshold=threshold,
        overrides=overrides,
        prevalence=prevalence,
        asked=asked,
    )


def predict(
    checkpoint: AnyPath,
    inputs: AnyPath | Sequence[AnyPath],
    out: AnyPath,
    *,
    threshold: str | float = "auto",
    prevalence: float | None = None,
    force: bool = False,
    only_new: bool = False,
    follow_symlinks: bool = False,
    hash_names: bool = False,
    patient: bool = False,
    study: bool = False,
    isolate: bool = True,
    fast: bool = False,
    gate: GateMode = "warn",
    device: str = "auto",
    workers: int | None = None,
    quiet: bool = False,
) -> PredictionResult:
    """Score files and folders into a table, as `xray-classifier predict` does.

    Args:
        checkpoint: A checkpoint or a run folder.
        inputs: One or several files, folders, `@` lists of files, or CSV files with a column
            `path`.
        out: The table: .csv, .jsonl or .parquet.
        threshold: "auto", a probability, "sens=0.95", "spec=0.90", "cost=10" or "youden".
        prevalence: Share of sick where the answers are used: adds `p_at_prevalence`.
        force: Replace an existing table.
        only_new: Replace it, scoring only files that changed since it was written.
        follow_symlinks: Follow links that lead out of folders.
        hash_names: Keyed hashes for file names.
        patient: Add a keyed hash of the patient.
        study: Add DICOM study and image UIDs, and a table per study.
        isolate: Decode in processes that may die.
        fast: Decode large JPEG films at a fraction of their size: p_sick within 0.01, decisions as
            without, and what is known from training reads `possible` where it could read `yes`.
        gate: What to do with images unlike the training data: refuse, warn or off.
        device: Where to compute: auto, cpu, cuda, cuda:1 or mps.
        workers: How many files are decoded at a time; None is one per core.
        quiet: Print nothing.

    Raises:
        XrayError: As the verb would end with a message.
    """
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    how = Prediction(
        threshold=threshold,
        prevalence=prevalence,
        force=force,
        only_new=only_new,
        follow_symlinks=follow_symlinks,
        hash_names=hash_names,
        patient=patient,
        study=study,
        isolate=isolate,
        fast=fast,
        gate=gate,
        device=device,
        workers=workers,
    )
    paths = [Path(item) for item in given]
    return run_prediction(Path(checkpoint), paths, Path(out), Terminal(quiet=quiet), how)
