"""`train`: from a config to a finished run folder. Read `run_training` from top to bottom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from xray_classifier.audit_files import write_audit_page
from xray_classifier.building import (
    Built,
    run_best_monitor,
    run_building,
    run_monitor,
    training_targets,
)
from xray_classifier.callbacks import (
    Callback,
    Checkpoints,
    Curves,
    EarlyStopping,
    HistoryWriter,
    Progress,
    TestCurve,
)
from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.classifier import load_classifier
from xray_classifier.config import Config
from xray_classifier.config_file import LoadedConfig, load_config
from xray_classifier.config_text import dump_config
from xray_classifier.data.dataset import LabelledImages, load_split
from xray_classifier.data.loading import WHAT_CHANGES, Radiographs, run_loading
from xray_classifier.errors import (
    DataError,
    InterruptedRun,
    TerminatedRun,
    UsageError,
    XrayError,
)
from xray_classifier.files import printable, write_json, write_text
from xray_classifier.history import Monitor, Run
from xray_classifier.judgement import judge
from xray_classifier.judgement_files import write_judgement
from xray_classifier.locks import owned
from xray_classifier.model import summary
from xray_classifier.records import (
    audit_record,
    best_epoch,
    manifest_table,
    split_table,
    write_summary,
)
from xray_classifier.resume import restore, training_state
from xray_classifier.run_curves import draw_curves
from xray_classifier.run_folder import command_line, new_run_folder
from xray_classifier.saving import run_best
from xray_classifier.signals import stop_on_signals
from xray_classifier.terminal import Terminal, command, seconds_in_words
from xray_classifier.trainer import Trainer, split_loss


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
    built = run_building(config, radiographs)
    trainer, content = built.trainer, built.content
    _say_what_will_happen(terminal, config, radiographs, trainer)
    folder = resume or new_run_folder(out, loaded.name)
    with owned(folder):
        terminal.log_to(folder / "log.txt")
        if resume is not None:
            _go_on(trainer, resume, content["fingerprint"], terminal)
        _write_beginning(
            folder, loaded, radiographs, trainer.run, content["environment"], resume is None
        )
        trainer.callbacks = run_callbacks(config, folder, built, radiographs, terminal)
        _fit(trainer, folder, terminal, run_best_monitor(config.train))
        return run_finish(folder, radiographs, trainer, config, terminal)


def _go_on(trainer: Trainer, run_dir: Path, fingerprint: str, terminal: Terminal) -> None:
    """Bring the trainer to where the run was stopped, and say where that is.

    Raises:
        DataError: The images or their splits are not those that the run began with.
    """
    checkpoint = load_checkpoint(run_dir / "checkpoints" / "last.safetensors")
    if checkpoint.require("fingerprint") != fingerprint:
        raise DataError(
            f"the data changed since {printable(run_dir)} was stopped ({WHAT_CHANGES}); restore "
            "them, or start a new run"
        )
    restore(trainer, checkpoint)
    _refuse_another_future(trainer, run_dir)
    terminal.say(f"going on after epoch {trainer.run.epoch}, step {trainer.run.step}")
    threads = checkpoint.content.get("threads")
    if threads != torch.get_num_threads():
        terminal.warn(
            f"the run used {threads} CPU threads, this one uses {torch.get_num_threads()}: the "
            f"weights will differ in their last bits; train.threads={threads} makes them equal"
        )


def _refuse_another_future(trainer: Trainer, run_dir: Path) -> None:
    """A killed run may have saved a best epoch after its last state; only a replay reaches it.

    Raises:
        UsageError: The plan was changed, so that the replay would differ.
    """
    best = run_dir / "checkpoints" / "best.safetensors"
    reached = load_checkpoint(best).content.get("epoch", 0) if best.is_file() else 0
    planned = load_config(run_dir / "config.yaml").config.train.epochs
    if reached > trainer.run.epoch and planned != trainer.run.epochs:
        raise UsageError(
            f"this run was killed after its best epoch {reached} was saved, but its state is of "
            f"epoch {trainer.run.epoch}; resume it without train.epochs first"
        )


def run_dry(loaded: LoadedConfig, terminal: Terminal) -> dict[str, Any]:
    """Build everything and take one step on one batch, writing nothing but the image cache."""
    config = loaded.config
    radiographs = run_loading(config.data, config.task, terminal)
    trainer = run_building(config, radiographs).trainer
    _say_what_will_happen(terminal, config, radiographs, trainer)
    positions = torch.arange(min(trainer.batch_size, len(trainer.train_images)))
    loss = trainer.step(positions)
    terminal.say(f"dry run: one batch of {len(positions)} images, loss {loss:.4f}; all is well")
    terminal.say("Next: take away --dry-run from this command")
    return {"dry_run": True, "loss": loss, "batch": len(positions)}


def run_callbacks(
    config: Config,
    folder: Path,
    built: Built,
    radiographs: Radiographs,
    terminal: Terminal,
) -> list[Callback]:
    """What watches the run, in the order in which it is told: records first, the line last."""
    train, trainer, content = config.train, built.trainer, built.content
    monitor, best_monitor = run_monitor(train), run_best_monitor(train)
    stopping = train.early_stopping
    patience = stopping.patience if stopping is not None and monitor is not None else None
    callbacks: list[Callback] = [
        HistoryWriter(folder / "history.csv"),
        Checkpoints(
            folder / "checkpoints",
            best_monitor,
            best=lambda: run_best(config, trainer, content, built.memory),
            state=lambda: training_state(trainer, content["fingerprint"]),
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
        targets, _ = training_targets(
            radiographs.manifest.targets, trainer.train_images.rows, config.task
        )
        test_images = load_split(radiographs.images, targets, test_rows, device)
        callbacks.append(TestCurve(test_path, lambda: _split_loss(trainer, test_images)))
    live = test_path if train.test_curve == "live" else None
    callbacks.append(
        Curves(
            folder / "curves.png",
            lambda run: draw_curves(run.history, best_monitor, live, run.stop_reason),
        )
    )
    if monitor is not None and patience is not None:
        callbacks.append(EarlyStopping(monitor, patience))
    score = "val_auroc" if config.task == "classify" else "val_r2"
    callbacks.append(Progress(terminal, monitor, patience, score))
    return callbacks


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


def _write_beginning(
    folder: Path,
    loaded: LoadedConfig,
    radiographs: Radiographs,
    run: Run,
    environment: Mapping[str, Any],
    is_new: bool,
) -> None:
    """All that is known before the first step."""
    config = loaded.config
    write_text(folder / "config.yaml", dump_config(config.model_copy(update={"name": loaded.name})))
    if is_new:
        write_text(folder / "config.original.yaml", loaded.original_text)
    write_json(folder / "env.json", {**environment, "command": command_line()})
    write_text(folder / "data" / "manifest.csv", manifest_table(radiographs))
    write_json(folder / "data" / "audit.json", audit_record(radiographs, config.data.audit))
    write_summary(folder, run, "running", None, None)


def _fit(trainer: Trainer, folder: Path, terminal: Terminal, monitor: Monitor | None) -> None:
    """Train; whatever ends the run, summary.json says so."""
    device = trainer.train_images.device
    devices = [device.index or 0] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), stop_on_signals(terminal.say) as request:
            trainer.request = request
            trainer.fit()
    except XrayError as error:
        write_summary(folder, trainer.run, "failed", error.exit_code, monitor, str(error))
        raise
    except KeyboardInterrupt as error:  # a second Ctrl-C: leave at once
        code = InterruptedRun.exit_code
        write_summary(folder, trainer.run, "interrupted", code, monitor, "left at once")
        raise InterruptedRun(_left_at_once(folder)) from error
    except BaseException as error:  # a bug of ours
        write_summary(folder, trainer.run, "failed", 1, monitor, type(error).__name__)
        raise
    interrupted_by = trainer.run.interrupted_by
    if interrupted_by is None:
        return
    kind = TerminatedRun if interrupted_by == "SIGTERM" else InterruptedRun
    write_summary(folder, trainer.run, "interrupted", kind.exit_code, monitor)
    raise kind(
        f"stopped by {interrupted_by} after epoch {trainer.run.epoch}, step {trainer.run.step}; "
        f"the state is saved. Go on with:\n  {command('train', '--resume', folder)}"
    )


def _left_at_once(folder: Path) -> str:
    if not (folder / "checkpoints" / "last.safetensors").is_file():
        return "left at once, before any state was saved; start the run anew"
    return (
        "left at once; what was learnt since the last save is lost. Go on from there with:\n"
        f"  {command('train', '--resume', folder)}"
    )


def run_finish(
    folder: Path, radiographs: Radiographs, trainer: Trainer, config: Config, terminal: Terminal
) -> TrainingResult:
    """Judge the best weights on validation, say the end in words, give the next command."""
    run, monitor = trainer.run, run_best_monitor(config.train)
    best = best_epoch(run, monitor)
    terminal.say(
        f"stopped: {run.stop_reason}, after {run.step:,} steps and "
        f"{seconds_in_words(run.elapsed_s)}; best epoch {best}"
    )
    checkpoint = folder / "checkpoints" / "best.safetensors"
    metrics: Mapping[str, Any] = {}
    written = "curves.png, history.csv"
    if trainer.val_images is not None:
        classifier = load_classifier(checkpoint, config.train.device)
        judgement = judge(classifier, radiographs, "val", own=True, seed=config.seed)
        write_judgement(
            folder,
            judgement,
            classifier,
            radiographs,
            predictions_name="predictions_val.csv",
            curves=(folder / "curves.png").read_bytes(),
        )
        metrics = judgement.metrics_json()["metrics"]
        written = "curves.png, report.html, metrics.json"
        terminal.say("\n".join(judgement.in_words()))
    if radiographs.audit is not None:
        write_audit_page(
            folder / "data", radiographs.audit, radiographs.manifest, radiographs.images
        )
    write_summary(folder, trainer.run, "finished", 0, monitor)
    terminal.say(f"run folder: {printable(folder)} ({written})")
    has_test = bool(len(radiographs.rows("test")))
    more = ("--split", "test") if has_test else ("--data", "NEW_IMAGES")
    terminal.say(f"Next: {command('evaluate', folder, *more)}")
    return TrainingResult(
        run_dir=str(folder),
        checkpoint=str(checkpoint),
        status="finished",
        stop_reason=run.stop_reason or "",
        best_epoch=best,
        metrics=metrics,
    )


def _split_loss(trainer: Trainer, images: LabelledImages) -> float:
    return split_loss(trainer.model, trainer.standardize, trainer.loss, images)[1]
