"""`train`: from a config to a finished run folder. Read `run_training` from top to bottom."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xray_classifier.calibration import Calibration, CalibrationMethod, fit_calibration
from xray_classifier.callbacks import (
    Callback,
    Checkpoints,
    Curves,
    EarlyStopping,
    HistoryWriter,
    Progress,
    Saved,
    TestCurve,
    read_test_curve,
)
from xray_classifier.checkpoint import find_checkpoint, load_checkpoint
from xray_classifier.classifier import CLASS_NAMES, load_classifier
from xray_classifier.config import Config, TrainConfig
from xray_classifier.config_file import LoadedConfig, load_config
from xray_classifier.config_text import dump_config
from xray_classifier.data.dataset import (
    LabelledImages,
    Standardize,
    load_split,
    pixel_statistics,
    steps_per_epoch,
)
from xray_classifier.data.loading import Radiographs, run_loading
from xray_classifier.data.splits import split_summary
from xray_classifier.devices import number_format, torch_device
from xray_classifier.errors import DataError, InterruptedRun, TerminatedRun, UsageError, XrayError
from xray_classifier.files import csv_text, printable, write_json, write_text
from xray_classifier.history import COLUMNS, History, Monitor, Run, direction, plateau_drops
from xray_classifier.judgement import judge, write_judgement
from xray_classifier.losses import BinaryCrossEntropy, SquaredError, balanced_pos_weight
from xray_classifier.model import Architecture, PerceptronStack, summary
from xray_classifier.operating_points import operating_curve, parse_threshold, solve
from xray_classifier.optimizers import lr_factor, make_optimizer
from xray_classifier.report.figures import loss_curves
from xray_classifier.resume import restore, training_state
from xray_classifier.run_folder import add_to_index, environment, new_run_folder
from xray_classifier.signals import StopRequest, stop_on_signals
from xray_classifier.terminal import Terminal, seconds_in_words
from xray_classifier.trainer import Trainer, split_loss

NO_VALIDATION_THRESHOLD = 0.5
MAY_CHANGE = ("train.epochs", "train.early_stopping", "train.device", "train.threads",
              "train.checkpoint_every", "data.workers", "data.cache", "data.path")  # fmt: skip


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run comes to; `--json` prints it.

    `metrics` holds the validation metrics as in metrics.json; empty without a validation split.
    """

    run_dir: str
    checkpoint: str
    status: str
    stop_reason: str
    best_epoch: int | None
    metrics: Mapping[str, Any] = field(default_factory=dict)


def run_training(
    loaded: LoadedConfig,
    terminal: Terminal,
    out: Path = Path("runs"),
    resume: Path | None = None,
) -> TrainingResult:
    """Train, and leave a complete run folder behind.

    Args:
        loaded: The config.
        terminal: What the user reads.
        out: Folder of run folders.
        resume: Run folder to go on with; None starts a new one.

    Raises:
        DataError: The data cannot be used.
        NonFiniteError: Loss or gradient became NaN or infinite.
        InterruptedRun: Ctrl-C or SIGTERM; the state was saved, the message says how to go on.
    """
    config = loaded.config
    radiographs = run_loading(config.data, config.task, terminal)
    trainer, content = run_building(config, radiographs)
    _say_what_will_happen(terminal, config, radiographs, trainer)
    folder = resume or new_run_folder(out, loaded.name)
    terminal.log_to(folder / "log.txt")
    _write_beginning(folder, loaded, config, radiographs, trainer, keep_original=resume is not None)
    trainer.callbacks = run_callbacks(config, folder, trainer, radiographs, content, terminal)
    if resume is not None:
        restore(trainer, load_checkpoint(find_checkpoint(resume, "last")))
        terminal.say(f"going on after epoch {trainer.run.epoch}, step {trainer.run.step}")
    _fit(trainer, folder, terminal, _monitor(config.train))
    return _finish(folder, radiographs, trainer, config, terminal)


def run_dry(loaded: LoadedConfig, terminal: Terminal) -> dict[str, Any]:
    """Build everything and take one step on one batch, writing nothing but the image cache."""
    config = loaded.config
    radiographs = run_loading(config.data, config.task, terminal)
    trainer, _ = run_building(config, radiographs)
    _say_what_will_happen(terminal, config, radiographs, trainer)
    positions = torch.arange(min(trainer.batch_size, len(trainer.train_images)))
    loss = trainer.step(positions)
    terminal.say(f"dry run: one batch of {len(positions)} images, loss {loss:.4f}; all is well")
    terminal.say("Next: the same command without --dry-run")
    return {"dry_run": True, "loss": loss, "batch": len(positions)}


def run_building(config: Config, radiographs: Radiographs) -> tuple[Trainer, dict[str, Any]]:
    """Network, optimizer and data on the device, and what the checkpoint will say about them."""
    train = config.train
    if train.threads is not None:
        torch.set_num_threads(train.threads)
    device = torch_device(train.device)
    rows = {name: radiographs.rows(name) for name in ("train", "val")}
    _require_images(rows, config)
    mean, std = pixel_statistics(radiographs.images, rows["train"])
    targets, scale = _training_targets(radiographs.manifest.targets, rows["train"], config.task)
    splits = {
        name: load_split(radiographs.images, targets, chosen, device)
        for name, chosen in rows.items()
        if len(chosen)
    }
    stack = config.model
    architecture = Architecture.from_keys(
        type=stack.type,
        size_px=config.data.image.size,
        hidden=stack.hidden,
        activation=stack.activation,
        dropout=stack.dropout,
        norm=stack.norm,
        residual=stack.residual,
        init=stack.init,
    )
    model = PerceptronStack(architecture, config.seed).to(device)
    n = len(rows["train"])
    batch_size = n if train.batch_size == "full" else min(train.batch_size, n)
    if stack.norm == "batch" and batch_size == 1:
        raise UsageError("model.norm: batch needs train.batch_size of 2 or more")
    precision = number_format(train.precision, device)
    trainer = Trainer(
        model=model,
        standardize=Standardize(mean, std),
        loss=_loss(config, radiographs.manifest.targets[rows["train"]]),
        optimizer=make_optimizer(model, **train.optimizer.model_dump()),
        learning_rate=_learning_rate(train),
        train_images=splits["train"],
        val_images=splits.get("val"),
        task=config.task,
        batch_size=batch_size,
        seed=config.seed,
        precision=precision,
        grad_clip=train.grad_clip,
        callbacks=(),
        run=Run(History(COLUMNS[config.task]), train.epochs, steps_per_epoch(n, batch_size)),
        request=StopRequest(),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
    )
    content = _content(config, radiographs, architecture, (mean, std), scale)
    return trainer, content


def run_callbacks(
    config: Config,
    folder: Path,
    trainer: Trainer,
    radiographs: Radiographs,
    content: Mapping[str, Any],
    terminal: Terminal,
) -> list[Callback]:
    """What watches the run, in the order in which it is told: records first, the line last."""
    train = config.train
    monitor = _monitor(train)
    best_monitor = monitor
    stopping = train.early_stopping
    if stopping is not None and not stopping.restore_best:
        best_monitor = None
    patience = stopping.patience if stopping is not None and monitor is not None else None
    callbacks: list[Callback] = [
        HistoryWriter(folder / "history.csv"),
        Checkpoints(
            folder / "checkpoints",
            best_monitor,
            best=lambda: _best(config, trainer, content),
            state=lambda: training_state(trainer),
            every_steps=train.checkpoint_every.steps,
            every_s=None
            if train.checkpoint_every.minutes is None
            else 60.0 * train.checkpoint_every.minutes,
        ),
    ]
    test_path = folder / "history_test.csv"
    test_rows = radiographs.rows("test")
    if train.test_curve != "off" and len(test_rows):
        device = trainer.train_images.device
        targets, _ = _training_targets(
            radiographs.manifest.targets, trainer.train_images.rows, config.task
        )
        test_images = load_split(radiographs.images, targets, test_rows, device)
        callbacks.append(TestCurve(test_path, lambda: _split_loss(trainer, test_images)))
    live = test_path if train.test_curve == "live" else None
    callbacks.append(
        Curves(folder / "curves.png", lambda run: draw_curves(run.history, monitor, live, run))
    )
    if monitor is not None and patience is not None:
        callbacks.append(EarlyStopping(monitor, patience))
    score = "val_auroc" if config.task == "classify" else "val_r2"
    callbacks.append(Progress(terminal, monitor, patience, score))
    return callbacks


def draw_curves(
    history: History, monitor: Monitor | None, test_path: Path | None, run: Run | None = None
) -> bytes:
    """The loss curves as PNG bytes; with the test loss where its file is given and exists."""
    best = None if monitor is None else monitor.best(history)
    steps = history.column("step")
    validation = history.column("val_loss")
    test_loss = None
    if test_path is not None and test_path.is_file():
        known = {epoch: loss for epoch, _, loss in read_test_curve(test_path)}
        test_loss = [known.get(int(epoch), np.nan) for epoch in history.column("epoch")]
    classify = "val_auroc" in history.columns
    has_validation = bool(np.isfinite(validation).any())
    return loss_curves(
        steps,
        history.column("train_loss"),
        validation if has_validation else None,
        test_loss,
        best_step=None if best is None else int(steps[best]),
        stop_step=None if run is None or run.stop_reason is None else int(steps[-1]),
        stop_reason=None if run is None else run.stop_reason,
        loss_name="BCE loss" if classify else "MSE loss",
        val_auroc=history.column("val_auroc") if classify and has_validation else None,
    )


def _require_images(rows: Mapping[str, Any], config: Config) -> None:
    if not len(rows["train"]):
        raise DataError("no image is left to train on; see data.split, data.audit and data.limit")
    monitor = _monitor(config.train)
    if monitor is not None and monitor.column.startswith("val") and not len(rows["val"]):
        raise DataError(
            f"train.early_stopping.monitor is {monitor.column}, but there is no validation split; "
            "set data.split.val=0.15, or train.early_stopping.monitor=train_loss or null"
        )


def _training_targets(
    targets: np.ndarray[Any, np.dtype[np.float64]], rows: Any, task: str
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], dict[str, float] | None]:
    """Targets as training sees them: numbers are standardised by the training split's spread."""
    if task == "classify":
        return targets, None
    mean, std = float(targets[rows].mean()), float(targets[rows].std()) or 1.0
    return (targets - mean) / std, {"mean": mean, "std": std}


def _loss(config: Config, targets: np.ndarray[Any, np.dtype[np.float64]]) -> torch.nn.Module:
    if config.task == "regress":
        return SquaredError()
    weight = config.train.pos_weight
    n_sick = int(targets.sum())
    if n_sick in (0, len(targets)):
        raise DataError(
            f"the training split holds {len(targets) - n_sick} healthy and {n_sick} sick images; "
            "both classes are needed"
        )
    if weight == "auto":
        weight = balanced_pos_weight(len(targets) - n_sick, n_sick)
    return BinaryCrossEntropy(weight or 1.0, config.train.label_smoothing)


def _learning_rate(train: TrainConfig) -> Any:
    schedule = train.schedule

    def rate(run: Run) -> float:
        validation = run.history.column("val_loss") if schedule.name == "plateau" else ()
        return train.optimizer.lr * lr_factor(
            schedule.name,
            run.step,
            steps_per_epoch=run.steps_per_epoch,
            epochs=run.epochs,
            warmup_epochs=schedule.warmup_epochs,
            final_fraction=schedule.final_fraction,
            factor=schedule.factor,
            drops=plateau_drops(validation, schedule.patience),
        )

    return rate


def _monitor(train: TrainConfig) -> Monitor | None:
    stopping = train.early_stopping
    if stopping is None or stopping.monitor is None:
        return None
    goal = direction(stopping.monitor, stopping.mode)
    return Monitor(stopping.monitor, goal, stopping.min_delta, stopping.start_from_epoch)


def _content(
    config: Config,
    radiographs: Radiographs,
    architecture: Architecture,
    pixels: tuple[float, float],
    target: dict[str, float] | None,
) -> dict[str, Any]:
    """What a best checkpoint says apart from what changes from epoch to epoch."""
    data = config.data.model_dump(mode="json")
    manifest = radiographs.manifest
    monitor = _monitor(config.train)
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
    }


def _best(config: Config, trainer: Trainer, content: Mapping[str, Any]) -> Saved:
    """The weights of this moment with the calibration and threshold that belong to them."""
    operating: dict[str, Any] = {
        "calibration": Calibration("off", 1.0, 0.0).to_dict(),
        "threshold": {"value": NO_VALIDATION_THRESHOLD, "policy": "fixed", "chosen_on": None},
    }
    run = trainer.run
    if trainer.val_images is not None and config.task == "classify":
        labels = trainer.val_images.targets.cpu().numpy().astype(int)
        logits = run.val_outputs if run.val_outputs is not None else np.zeros(len(labels))
        operating = _operating_point(
            labels, logits, config.evaluate.calibration, config.evaluate.threshold
        )
    environment_now = environment(str(trainer.train_images.device), torch.get_num_threads())
    environment_now.pop("command")
    return trainer.model.state_dict(), {
        **content,
        **operating,
        "epoch": run.epoch,
        "step": run.step,
        "environment": environment_now,
    }


def _operating_point(
    labels: np.ndarray[Any, np.dtype[np.int64]],
    logits: np.ndarray[Any, np.dtype[np.float64]],
    method: CalibrationMethod,
    threshold: float | str,
) -> dict[str, Any]:
    calibration, note = fit_calibration(labels, logits, method)
    probabilities = calibration.apply(logits)
    policy = parse_threshold(threshold)
    curve = operating_curve(labels, probabilities)
    value = policy.target if policy.kind == "fixed" else solve(curve, policy)
    return {
        "calibration": calibration.to_dict(),
        "calibration_note": note,
        "operating_curve": curve.to_dict(),
        "threshold": {"value": value, "policy": str(policy), "chosen_on": "val"},
    }


def _split_loss(trainer: Trainer, images: LabelledImages) -> float:
    return split_loss(trainer.model, trainer.standardize, trainer.loss, images)[1]


def _say_what_will_happen(
    terminal: Terminal, config: Config, radiographs: Radiographs, trainer: Trainer
) -> None:
    for warning in radiographs.warnings:
        terminal.say(f"note: {warning}")
    terminal.say(split_table(radiographs, config.task))
    terminal.say(summary(trainer.model))  # type: ignore[arg-type]
    device = trainer.train_images.device
    terminal.say(
        f"{config.train.optimizer.name}, lr {config.train.optimizer.lr:g}, batches of "
        f"{trainer.batch_size}, {trainer.precision} on {device}, "
        f"{torch.get_num_threads()} threads"
    )


def split_table(radiographs: Radiographs, task: str) -> str:
    """Images, classes and patients of each split, for a person."""
    m = radiographs.manifest
    counts = split_summary(m.splits, m.targets, m.patients, task)  # type: ignore[arg-type]
    lines = []
    for name, count in counts.items():
        classes = "" if count.sick is None else f"{count.healthy:>7,} healthy {count.sick:>7,} sick"
        people = f"{count.patients:>7,} patients" if m.patients_known else ""
        lines.append(f"  {name or 'left out':<9}{count.images:>7,} images {classes} {people}")
    return "\n".join(line.rstrip() for line in lines)


def _write_beginning(
    folder: Path,
    loaded: LoadedConfig,
    config: Config,
    radiographs: Radiographs,
    trainer: Trainer,
    keep_original: bool,
) -> None:
    """All that is known before the first step."""
    write_text(folder / "config.yaml", dump_config(config.model_copy(update={"name": loaded.name})))
    if not keep_original:
        write_text(folder / "config.original.yaml", loaded.original_text)
    device = str(trainer.train_images.device)
    write_json(folder / "env.json", environment(device, torch.get_num_threads()))
    write_text(folder / "data" / "manifest.csv", manifest_table(radiographs))
    _write_summary(folder, trainer, "running", None, None)


def manifest_table(radiographs: Radiographs) -> str:
    """Every image with its label, patient, split and, where it takes no part, the reason."""
    m = radiographs.manifest
    header = ("path", "label", "patient", "split", "reason", *m.columns)
    labels = m.classes if any(m.classes) else m.targets.tolist()
    columns = [m.ids, labels, m.patients, m.splits, radiographs.reasons, *m.columns.values()]
    return csv_text(header, zip(*columns, strict=True))


def _fit(trainer: Trainer, folder: Path, terminal: Terminal, monitor: Monitor | None) -> None:
    """Train; whatever ends the run, summary.json says so."""
    devices = [0] if trainer.train_images.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), stop_on_signals(terminal.say) as request:
            trainer.request = request
            trainer.fit()
    except XrayError as error:
        _write_summary(folder, trainer, "failed", error.exit_code, monitor, str(error))
        raise
    interrupted_by = trainer.run.interrupted_by
    if interrupted_by is None:
        return
    kind = TerminatedRun if interrupted_by == "SIGTERM" else InterruptedRun
    _write_summary(folder, trainer, "interrupted", kind.exit_code, monitor)
    raise kind(
        f"stopped by {interrupted_by} after epoch {trainer.run.epoch}, step {trainer.run.step}; "
        f"the state is saved. Go on with:\n  xray-classifier train --resume {printable(folder)}"
    )


def _write_summary(
    folder: Path,
    trainer: Trainer,
    status: str,
    exit_code: int | None,
    monitor: Monitor | None,
    reason: str | None = None,
) -> None:
    run = trainer.run
    content = {
        "status": status,
        "stop_reason": reason or run.stop_reason,
        "exit_code": exit_code,
        "best_epoch": _best_epoch(run, monitor),
        "steps": run.step,
        "elapsed_s": round(run.elapsed_s, 3),
    }
    write_json(folder / "summary.json", content)
    if exit_code is not None:
        add_to_index(folder, content)


def _best_epoch(run: Run, monitor: Monitor | None) -> int | None:
    best = None if monitor is None else monitor.best(run.history)
    return (run.epoch or None) if best is None else best + 1


def _finish(
    folder: Path, radiographs: Radiographs, trainer: Trainer, config: Config, terminal: Terminal
) -> TrainingResult:
    """Judge the best weights on validation, say the end in words, give the next command."""
    run, monitor = trainer.run, _monitor(config.train)
    if config.train.early_stopping is not None and not config.train.early_stopping.restore_best:
        monitor = None
    best_epoch = _best_epoch(run, monitor)
    terminal.say(
        f"stopped: {run.stop_reason}, after {run.step:,} steps and "
        f"{seconds_in_words(run.elapsed_s)}; best epoch {best_epoch}"
    )
    checkpoint = folder / "checkpoints" / "best.safetensors"
    metrics: Mapping[str, Any] = {}
    if trainer.val_images is not None:
        classifier = load_classifier(checkpoint, config.train.device)
        judgement = judge(classifier, radiographs, "val", seed=config.seed)
        write_judgement(
            folder,
            judgement,
            classifier,
            radiographs,
            predictions_name="predictions_val.csv",
            curves=(folder / "curves.png").read_bytes(),
        )
        metrics = judgement.metrics_json()["metrics"]
        terminal.say("\n".join(judgement.in_words()))
    _write_summary(folder, trainer, "finished", 0, monitor)
    terminal.say(f"run folder: {printable(folder)} (curves.png, report.html, metrics.json)")
    has_test = bool(len(radiographs.rows("test")))
    more = " --split test" if has_test else " --data NEW_IMAGES"
    terminal.say(f"Next: xray-classifier evaluate {printable(folder)}{more}")
    return TrainingResult(
        run_dir=str(folder),
        checkpoint=str(checkpoint),
        status="finished",
        stop_reason=run.stop_reason or "",
        best_epoch=best_epoch,
        metrics=metrics,
    )


def load_for_resume(run_dir: Path, overrides: list[str]) -> LoadedConfig:
    """The config of a run to go on with; only keys that leave the past untouched may change.

    Raises:
        UsageError: Another key is overridden, or there is no state to resume.
    """
    find_checkpoint(run_dir, "last")
    for override in overrides:
        key = override.split("=", 1)[0]
        if not any(key == allowed or key.startswith(allowed + ".") for allowed in MAY_CHANGE):
            raise UsageError(
                f"{key} cannot change when a run is resumed; these can: {', '.join(MAY_CHANGE)}. "
                "Start a new run for anything else"
            )
    return load_config(run_dir / "config.yaml", overrides)


def newest_unfinished(parent: Path, name: str) -> Path | None:
    """The newest run of this name that was stopped before its end and can be resumed."""
    pattern = re.compile(rf"\d{{8}}-\d{{6}}_{re.escape(name)}(-\d+)?")
    candidates = [p for p in parent.glob(f"*_{name}*") if pattern.fullmatch(p.name)]
    for run in sorted(candidates, reverse=True):
        try:
            status = json.loads((run / "summary.json").read_bytes())["status"]
        except (OSError, ValueError, KeyError):
            continue
        if status != "finished" and (run / "checkpoints" / "last.safetensors").is_file():
            return run
    return None
