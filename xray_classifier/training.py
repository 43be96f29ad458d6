"""`train`: from a config to a finished run folder. Read `run_training` from top to bottom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from xray_classifier.audit_files import write_audit_page
from xray_classifier.building import (
    Built,
    run_architecture,
    run_best_monitor,
    run_building,
    run_device,
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
from xray_classifier.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from xray_classifier.classifier import load_classifier
from xray_classifier.config import Config, TrainConfig
from xray_classifier.config_file import LoadedConfig, load_config
from xray_classifier.config_text import dump_config
from xray_classifier.data.dataset import LabelledImages, load_split
from xray_classifier.data.loading import Follow, Radiographs, run_loading
from xray_classifier.distributed import Ranks, joined, launch_id, restarted
from xray_classifier.errors import (
    CheckpointError,
    InterruptedRun,
    TerminatedRun,
    UsageError,
    XrayError,
)
from xray_classifier.files import printable, read_bytes, write_json, write_text
from xray_classifier.fingerprints import FINGERPRINTS
from xray_classifier.gated import ood_scores
from xray_classifier.history import Monitor, Run
from xray_classifier.judgement import judge
from xray_classifier.judgement_files import write_judgement
from xray_classifier.judgement_words import in_words
from xray_classifier.lesson.recording import FOLDER as LESSON_FOLDER
from xray_classifier.lesson.recording import LessonRecorder
from xray_classifier.locks import owned
from xray_classifier.model import summary
from xray_classifier.pseudonyms import key_is_kept, key_path
from xray_classifier.records import (
    audit_record,
    best_epoch,
    manifest_table,
    split_table,
    write_summary,
)
from xray_classifier.resume import (
    has_state,
    newest_state,
    require_same_data,
    restore,
    run_fingerprints,
    tidy_run,
    training_state,
)
from xray_classifier.run_curves import LossCurves, draw_curves
from xray_classifier.run_folder import command_line, new_run_folder, run_of_launch
from xray_classifier.saving import run_best
from xray_classifier.signals import leave_on_signals, signal_of, stop_on_signals
from xray_classifier.tensorboard_tracker import FOLDER, TensorBoardTracker, require_tensorboard
from xray_classifier.terminal import Terminal, command, seconds_in_words
from xray_classifier.tracking import Tracker, Tracking, first_layer_pictures
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
    trackers: Sequence[Tracker] = (),
    ahead: Follow | None = None,
) -> TrainingResult:
    """Train, and leave a complete run folder behind.

    Args:
        loaded: The config.
        terminal: What the user reads.
        out: Folder of run folders.
        resume: Run folder to go on with; None starts a new one.
        trackers: Told about the run beside those of `train.track`, and closed at its end.
        ahead: Waits for a process that decodes the images already, see `run_ahead`.

    Raises:
        DataError: The data cannot be used.
        NonFiniteError: Loss or gradient became NaN or infinite.
        InterruptedRun: Ctrl-C or SIGTERM; the state was saved, the message says how to go on.
    """
    train = loaded.config.train
    with leave_on_signals(), joined(run_device(train), train.timeout_minutes) as ranks:
        if not ranks.first:
            terminal.quiet = True
            return _follow(loaded, terminal, ranks)
        return _lead(loaded, terminal, out, resume, ranks, trackers, ahead)


def _lead(
    loaded: LoadedConfig,
    terminal: Terminal,
    out: Path,
    resume: Path | None,
    ranks: Ranks,
    trackers: Sequence[Tracker],
    ahead: Follow | None,
) -> TrainingResult:
    """Train as the only process, or as the one of several that speaks and writes."""
    config = loaded.config
    if config.train.track == "tensorboard":
        require_tensorboard()
    radiographs = run_loading(config.data, config.task, terminal, ahead)
    built = run_building(config, radiographs, ranks)
    trainer = built.trainer
    _say_what_will_happen(terminal, config, radiographs, trainer)
    if resume is None and restarted():
        resume = run_of_launch(out, launch_id())
    ranks.told(None if resume is None else str(resume))
    folder = resume or new_run_folder(out, loaded.name)
    with owned(folder):
        terminal.log_to(folder / "log.txt")
        try:
            return _in_folder(folder, resume, loaded, terminal, radiographs, built, trackers)
        except KeyboardInterrupt as error:  # a signal before the first step, or after the last
            raise _left_outside(error, folder, trainer, config.train) from error


def _in_folder(
    folder: Path,
    resume: Path | None,
    loaded: LoadedConfig,
    terminal: Terminal,
    radiographs: Radiographs,
    built: Built,
    trackers: Sequence[Tracker],
) -> TrainingResult:
    """Train in a run folder that this process owns."""
    config, trainer = loaded.config, built.trainer
    if resume is not None:
        state = _go_on(trainer, resume, radiographs, config.train, terminal)
        for left in tidy_run(resume, state):
            terminal.keep(f"removed {printable(left)}, which a killed process left behind")
    environment = built.content["environment"]
    _write_beginning(folder, loaded, radiographs, trainer.run, environment, resume is None)
    callbacks = run_callbacks(config, folder, built, radiographs, terminal)
    tracking = run_tracking(config, folder, trainer, trackers)
    trainer.callbacks = [*callbacks, *tracking]
    try:
        return _fit_and_finish(folder, terminal, radiographs, built, config, tracking)
    finally:
        for one in tracking:
            one.close()


def _fit_and_finish(
    folder: Path,
    terminal: Terminal,
    radiographs: Radiographs,
    built: Built,
    config: Config,
    tracking: Sequence[Tracking],
) -> TrainingResult:
    """The steps, and what is made of them."""
    trainer = built.trainer
    _fit(trainer, folder, terminal, run_best_monitor(config.train))
    if trainer.run.val_outputs is not None and _best_lost(folder):
        saved = run_best(config, trainer, built.content, built.memory, built.choosing)
        save_checkpoint(folder / "checkpoints" / "best.safetensors", *saved)
    result = run_finish(folder, radiographs, trainer, config, terminal)
    for one in tracking:
        one.finish(trainer.run, folder)
    return result


def run_tracking(
    config: Config, folder: Path, trainer: Trainer, trackers: Sequence[Tracker]
) -> list[Tracking]:
    """What tells trackers about the run; nothing where there is none."""
    told = list(trackers)
    if config.train.track == "tensorboard":
        told.append(TensorBoardTracker(folder / FOLDER, trainer.run.step))
    if not told:
        return []
    monitor, size_px = run_best_monitor(config.train), config.data.image.size
    live = folder / "history_test.csv" if config.train.test_curve == "live" else None
    return [
        Tracking(
            told,
            curves=lambda run: draw_curves(run.history, monitor, live, run.stop_reason),
            weights=lambda: first_layer_pictures(trainer.model, size_px),
        )
    ]


def _left_outside(
    error: KeyboardInterrupt, folder: Path, trainer: Trainer, train: TrainConfig
) -> InterruptedRun:
    """What to say of a signal that came while no step was taken; summary.json says it too."""
    name = signal_of(error)
    kind = InterruptedRun if name == "SIGINT" else TerminatedRun
    monitor = run_best_monitor(train)
    reason = f"{name} received"
    write_summary(folder, trainer.run, "interrupted", kind.exit_code, monitor, reason)
    if not has_state(folder):
        return kind(f"stopped by {name} before the first state was saved; start the run anew")
    return kind(
        f"stopped by {name}; the state of step {trainer.run.step} is saved. Finish with:\n"
        f"  {command('train', '--resume', folder)}"
    )


def _follow(loaded: LoadedConfig, terminal: Terminal, ranks: Ranks) -> TrainingResult:
    """Train beside rank 0: the same images, the same decisions, and nothing written."""
    config = loaded.config
    radiographs = run_loading(config.data, config.task, terminal)
    built = run_building(config, radiographs, ranks)
    trainer = built.trainer
    resume = ranks.told(None)
    if resume is not None:
        _go_on(trainer, Path(resume), radiographs, config.train, terminal)
    trainer.callbacks = run_stopping(config.train)
    with torch.random.fork_rng(devices=[]), stop_on_signals(terminal.say) as request:
        trainer.request = request
        trainer.fit()
    return TrainingResult("", "", "finished", trainer.run.stop_reason or "", None)


def _go_on(
    trainer: Trainer,
    run_dir: Path,
    radiographs: Radiographs,
    train: TrainConfig,
    terminal: Terminal,
) -> Checkpoint:
    """Bring the trainer to where the run was stopped, and say where that is.

    Raises:
        DataError: The images or their splits are not those that the run began with.
        CheckpointError: No state of the run is sound.
    """
    checkpoint = newest_state(run_dir, terminal.warn)
    require_same_data(run_dir, checkpoint, radiographs)
    restore(trainer, checkpoint)
    _refuse_another_future(trainer, run_dir, train, terminal)
    terminal.say(f"going on after epoch {trainer.run.epoch}, step {trainer.run.step}")
    threads = checkpoint.content.get("threads")
    if threads != torch.get_num_threads():
        terminal.warn(
            f"the run used {threads} CPU threads, this one uses {torch.get_num_threads()}: the "
            f"weights will differ in their last bits; train.threads={threads} makes them equal"
        )
    version = checkpoint.content.get("torch", torch.__version__)
    if version != torch.__version__:
        terminal.warn(
            f"the run used torch {version}, this is {torch.__version__}: the weights may differ in "
            "their last bits from those of an unbroken run"
        )
    return checkpoint


def _refuse_another_future(
    trainer: Trainer, run_dir: Path, train: TrainConfig, terminal: Terminal
) -> None:
    """A best epoch may have been saved after the state that is resumed; only a replay reaches it.

    Raises:
        UsageError: The plan was changed, so that the replay would differ.
    """
    best = run_dir / "checkpoints" / "best.safetensors"
    if not best.is_file():
        return
    try:
        reached = load_checkpoint(best).content.get("epoch", 0)
    except CheckpointError as error:
        terminal.warn(
            f"{error}; its weights are lost: the best of the epochs to come, else the last, will "
            "take their place"
        )
        return
    before = load_config(run_dir / "config.yaml").config.train
    changed = [
        key
        for key, one, other in (
            ("train.epochs", before.epochs, train.epochs),
            ("train.early_stopping", before.early_stopping, train.early_stopping),
        )
        if one != other
    ]
    if reached > trainer.run.epoch and changed:
        raise UsageError(
            f"the best epoch {reached} was saved after the state of epoch {trainer.run.epoch} that "
            f"is left; resume the run without {' and '.join(changed)} first"
        )


def _best_lost(folder: Path) -> bool:
    """Whether a run lacks a sound best.safetensors."""
    try:
        load_checkpoint(folder / "checkpoints" / "best.safetensors")
    except (CheckpointError, UsageError):
        return True
    return False


def run_dry(
    loaded: LoadedConfig, terminal: Terminal, ahead: Follow | None = None
) -> dict[str, Any]:
    """Build everything and take one step on one batch, writing nothing but the image cache."""
    config = loaded.config
    radiographs = run_loading(config.data, config.task, terminal, ahead)
    trainer = run_building(config, radiographs).trainer
    _say_what_will_happen(terminal, config, radiographs, trainer)
    positions = torch.arange(min(trainer.batch_size, len(trainer.train_images)))
    loss = trainer.step_and_wait(positions)
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
            best=lambda: run_best(config, trainer, content, built.memory, built.choosing),
            state=lambda: training_state(trainer, content["fingerprint"]),
            every_steps=train.checkpoint_every.steps,
            every_s=None
            if train.checkpoint_every.minutes is None
            else 60.0 * train.checkpoint_every.minutes,
        ),
    ]
    if train.lesson:
        callbacks.append(LessonRecorder(folder / LESSON_FOLDER, trainer))
    test_path = folder / "history_test.csv"
    test_rows = radiographs.rows("test")
    if train.test_curve != "off" and len(test_rows):
        device = trainer.train_images.device
        targets, _ = training_targets(
            radiographs.manifest.targets, trainer.train_images.rows, config.task
        )
        test_images = load_split(radiographs.images, targets, test_rows, device)
        callbacks.append(TestCurve(test_path, lambda: _judged_loss(trainer, test_images)))
    live = test_path if train.test_curve == "live" else None
    callbacks.append(
        Curves(
            folder / "curves.png",
            lambda run: draw_curves(run.history, best_monitor, live, run.stop_reason),
        )
    )
    callbacks += run_stopping(train)
    score = "val_auroc" if config.task == "classify" else "val_r2"
    callbacks.append(Progress(terminal, monitor, patience, score))
    return callbacks


def run_stopping(train: TrainConfig) -> list[Callback]:
    """What may end a run early: the same on every process, for all have the same history."""
    monitor, stopping = run_monitor(train), train.early_stopping
    if monitor is None or stopping is None or stopping.patience is None:
        return []
    return [EarlyStopping(monitor, stopping.patience)]


def _say_what_will_happen(
    terminal: Terminal, config: Config, radiographs: Radiographs, trainer: Trainer
) -> None:
    for warning in radiographs.warnings:
        terminal.say(f"note: {warning}")
    terminal.say(split_table(radiographs, config.task))
    terminal.say(summary(trainer.model, run_architecture(config)))
    if radiographs.manifest.patients_known and not key_is_kept():
        terminal.warn(
            f"no key could be kept at {printable(key_path())}: the model will not know the "
            "patients of its training data again"
        )
    device = trainer.train_images.device
    terminal.say(
        f"{config.train.optimizer.name}, lr {config.train.optimizer.lr:g}, batches of "
        f"{trainer.batch_size}, {trainer.precision} on {device}, "
        f"{torch.get_num_threads()} threads"
        + (f", {trainer.ranks.size} processes" if trainer.ranks.size > 1 else "")
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
    launch = {"command": command_line(), "launch": launch_id()}
    write_json(folder / "env.json", {**environment, **launch})
    write_text(folder / "data" / "manifest.csv", manifest_table(radiographs))
    write_text(folder / "data" / FINGERPRINTS, run_fingerprints(radiographs))
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
    kind = InterruptedRun if interrupted_by == "SIGINT" else TerminatedRun
    write_summary(folder, trainer.run, "interrupted", kind.exit_code, monitor)
    raise kind(
        f"stopped by {interrupted_by} after epoch {trainer.run.epoch}, step {trainer.run.step}; "
        f"the state is saved. Go on with:\n  {command('train', '--resume', folder)}"
    )


def _left_at_once(folder: Path) -> str:
    if not has_state(folder):
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
        strange = ood_scores(classifier, radiographs, judgement.rows)
        judgement = replace(judgement, ood_scores=strange)
        write_judgement(
            folder,
            judgement,
            classifier,
            radiographs,
            predictions_name="predictions_val.csv",
            curves=LossCurves(read_bytes(folder / "curves.png"), config.train.test_curve == "live"),
        )
        metrics = judgement.metrics_json()["metrics"]
        written = "curves.png, report.html, metrics.json"
        terminal.say("\n".join(in_words(judgement)))
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


def _judged_loss(trainer: Trainer, images: LabelledImages) -> float:
    with trainer.judged_weights():
        return split_loss(trainer.model, trainer.standardize, trainer.loss, images)[1]
