"""`train` with `train.folds` or `train.seeds`: several models, how they differ, their ensemble.

Each member is an ordinary run below `members/`, with a config that stands on its own. The folder
above holds what they come to together, and their ensemble as its one checkpoint.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xray_classifier.baseline import fit_baseline
from xray_classifier.bootstrap import patient_clusters
from xray_classifier.checkpoint import Checkpoint, save_checkpoint
from xray_classifier.classifier import Classifier, assemble, load_classifier
from xray_classifier.config import Config
from xray_classifier.config_file import LoadedConfig, load_config
from xray_classifier.config_text import dump_config
from xray_classifier.data.folds import POOL
from xray_classifier.data.loading import Follow, Radiographs, run_loading
from xray_classifier.data.splits import split_summary
from xray_classifier.details import run_details
from xray_classifier.devices import torch_device
from xray_classifier.distributed import started_by_torchrun
from xray_classifier.ensemble import united
from xray_classifier.errors import (
    DataError,
    InterruptedRun,
    TerminatedRun,
    UsageError,
    XrayError,
)
from xray_classifier.estimates import classification_metrics, regression_metrics
from xray_classifier.familiarity import own_familiarity
from xray_classifier.files import make_folder, printable, read_json, write_json, write_text
from xray_classifier.gated import ood_scores
from xray_classifier.judgement import Judgement, judge, split_coverage
from xray_classifier.judgement_files import write_judgement
from xray_classifier.judgement_words import in_words
from xray_classifier.locks import owned
from xray_classifier.members import (
    MEMBERS,
    Member,
    found_run,
    is_finished,
    member_checkpoint,
    member_config,
    member_radiographs,
    members_of,
    metrics_of,
    spread_in_words,
    spread_of,
)
from xray_classifier.records import audit_record, manifest_table
from xray_classifier.resume import differing_keys
from xray_classifier.run_folder import add_to_index, command_line, environment, new_run_folder
from xray_classifier.saving import operating_point
from xray_classifier.signals import leave_on_signals, signal_of
from xray_classifier.terminal import Terminal, command, seconds_in_words
from xray_classifier.training import TrainingResult, run_training

OUT_OF_FOLD = "out-of-fold"
HARMLESS = (
    "train.device",
    "train.threads",
    "train.checkpoint_every",
    "train.micro_batch",
    "train.timeout_minutes",
    "train.track",
)
"""Keys that may differ between members: they change the last bits at most."""
FOLDS_TELL = (
    "each image was judged by the models of its own fold, which did not learn from it; what the "
    "mean of all models is worth, only a test split can tell"
)


def run_repeated(
    loaded: LoadedConfig,
    terminal: Terminal,
    out: Path = Path("runs"),
    resume: Path | None = None,
    ahead: Follow | None = None,
) -> TrainingResult:
    """Train every member, say how they differ, and save their ensemble as one checkpoint.

    Args:
        loaded: A config with `train.folds` or `train.seeds`.
        terminal: What the user reads.
        out: Folder of run folders.
        resume: Folder of a repeated run to go on with; members that are done stay as they are.
        ahead: Waits for a process that decodes the images already, see `run_ahead`.

    Raises:
        UsageError: Several processes were started.
        DataError: The data cannot be used, or changed since a member was trained.
        CheckpointError: The checkpoint of a member is damaged.
        NonFiniteError: Loss or gradient of a member became NaN or infinite.
        InterruptedRun: Ctrl-C or SIGTERM; the message says how to go on.
    """
    if started_by_torchrun():
        raise UsageError(
            "train.folds and train.seeds train one model after the other and take one process; "
            "leave torchrun out, or train each model as a run of its own (seed=1, "
            "data.split.fold=[1, 5])"
        )
    config = loaded.config
    members = members_of(config)
    radiographs = run_loading(config.data, config.task, terminal, ahead)
    folder = resume or new_run_folder(out, loaded.name)
    with owned(folder):
        terminal.log_to(folder / "log.txt")
        _refuse_changed_data(folder, members, radiographs)
        _write_beginning(folder, loaded, members, radiographs, resume is None)
        terminal.say(f"{printable(folder)}: {_plan_in_words(config)}")
        with leave_on_signals(), _end_recorded(folder, members, terminal):
            runs = [_trained(loaded, member, len(members), folder, terminal) for member in members]
            return _finish(loaded, folder, runs, radiographs, terminal)


@contextmanager
def _end_recorded(folder: Path, members: Sequence[Member], terminal: Terminal) -> Iterator[None]:
    """Whatever ends the run, summary.json says so; its message names the folder of the whole."""
    try:
        yield
    except InterruptedRun as error:
        said, _, _ = str(error).partition(";")  # the rest names the member's folder
        _write_summary(folder, members, "interrupted", error.exit_code, said)
        raise type(error)(_how_to_go_on(folder, said)) from error
    except KeyboardInterrupt as error:  # between two members, or while one is read in
        kind = InterruptedRun if signal_of(error) == "SIGINT" else TerminatedRun
        said = "left between two members"
        _write_summary(folder, members, "interrupted", kind.exit_code, said)
        raise kind(_how_to_go_on(folder, said)) from error
    except XrayError as error:
        _write_summary(folder, members, "failed", error.exit_code, str(error))
        raise
    except BaseException as error:  # a bug of ours
        _write_summary(folder, members, "failed", 1, type(error).__name__)
        raise
    finally:
        terminal.log_to(folder / "log.txt")


def _plan_in_words(config: Config) -> str:
    folds, seeds = config.train.folds, config.train.seeds
    parts = [] if folds is None else [f"{folds} folds"]
    parts += [f"{seeds} seeds"] if seeds > 1 else []
    return f"{len(members_of(config))} models, one for each of {' times '.join(parts)}"


def _how_to_go_on(folder: Path, said: str) -> str:
    """The message of an interruption, with the folder above the member's in its command."""
    return (
        f"{said}; members that are done are kept. Go on with:\n"
        f"  {command('train', '--resume', folder)}"
    )


def _write_beginning(
    folder: Path,
    loaded: LoadedConfig,
    members: Sequence[Member],
    radiographs: Radiographs,
    is_new: bool,
) -> None:
    """All that is known before the first member."""
    config = loaded.config
    make_folder(folder / MEMBERS)
    write_text(folder / "config.yaml", dump_config(config.model_copy(update={"name": loaded.name})))
    if is_new:
        write_text(folder / "config.original.yaml", loaded.original_text)
    device = str(torch_device(config.train.device))
    threads = config.train.threads or torch.get_num_threads()
    write_json(folder / "env.json", {**environment(device, threads), "command": command_line()})
    write_text(folder / "data" / "manifest.csv", manifest_table(radiographs))
    write_json(folder / "data" / "audit.json", audit_record(radiographs, config.data.audit))
    _write_summary(folder, members, "running", None, None)


def _refuse_changed_data(folder: Path, members: Sequence[Member], radiographs: Radiographs) -> None:
    """Look at the members that are done, before anything is written.

    Raises:
        DataError: One was trained on other images.
        CheckpointError: The checkpoint of one is damaged.
    """
    for member in members:
        found = found_run(folder / MEMBERS, member.name)
        if found is not None and is_finished(found):
            member_radiographs(found, member_checkpoint(found), radiographs)


def _trained(
    loaded: LoadedConfig,
    member: Member,
    n_members: int,
    folder: Path,
    terminal: Terminal,
) -> Path:
    """The finished run of a member, trained now where it is not."""
    place = f"member {member.number} of {n_members}, {member.name}"
    found = found_run(folder / MEMBERS, member.name)
    if found is not None:
        _refuse_another_plan(found, member_config(loaded, member))
    if found is not None and is_finished(found):
        terminal.say(f"{place}: done already")
        return found
    terminal.say(f"{place}{'' if found is None else ': going on'}")
    try:
        result = run_training(member_config(loaded, member), terminal, folder / MEMBERS, found)
    finally:
        terminal.log_to(folder / "log.txt")
    return Path(result.run_dir)


def _refuse_another_plan(run: Path, planned: LoadedConfig) -> None:
    """Members that were trained by different plans make no ensemble.

    Raises:
        DataError: The run of a member was gone on with on its own, by another plan.
    """
    trained = load_config(run / "config.yaml").config
    differing = differing_keys(trained, planned.config)
    changed = sorted(key for key in differing if key.startswith(("model.", "train."))
                     and not key.startswith(HARMLESS))  # fmt: skip
    if changed:
        raise DataError(
            f"{printable(run)} was trained with another {', '.join(changed)} than its fellows; "
            "delete that folder to have the member trained anew"
        )


def _finish(
    loaded: LoadedConfig,
    folder: Path,
    runs: Sequence[Path],
    radiographs: Radiographs,
    terminal: Terminal,
) -> TrainingResult:
    """Save the ensemble, judge it where that is honest, and say what all came to."""
    config = loaded.config
    path = folder / "checkpoints" / "best.safetensors"
    checkpoints = [member_checkpoint(run) for run in runs]
    rows, outputs = _save_ensemble(config, path, runs, checkpoints, radiographs)
    spread = spread_of([metrics_of(run) for run in runs])
    metrics: Mapping[str, Any] = {}
    written = "checkpoints/best.safetensors"
    if len(rows):
        classifier = load_classifier(path, config.train.device)
        judgement = _judgement(config, classifier, radiographs, rows, outputs)
        metrics = _write_judgement(folder, config, judgement, classifier, radiographs, spread)
        written = "report.html, metrics.json"
        terminal.say("\n".join(["the ensemble of all members:", *in_words(judgement)]))
    if spread:
        terminal.say("\n".join(spread_in_words(spread, len(runs))))
    done = f"all {len(runs)} members trained"
    total_s = _write_summary(folder, members_of(config), "finished", 0, done)
    terminal.say(f"{done}, in {seconds_in_words(total_s)}")
    terminal.say(f"run folder: {printable(folder)} ({written})")
    has_test = bool(len(radiographs.rows("test")))
    more = ("--split", "test") if has_test else ("--data", "NEW_IMAGES")
    terminal.say(f"Next: {command('evaluate', folder, *more)}")
    return TrainingResult(str(folder), str(path), "finished", done, None, metrics)


def _write_judgement(
    folder: Path,
    config: Config,
    judgement: Judgement,
    classifier: Classifier,
    radiographs: Radiographs,
    spread: Mapping[str, Any],
) -> Mapping[str, Any]:
    """The files of a judgement, and beside its metrics those of the members; returns the former."""
    name = f"predictions_{judgement.split.replace('-', '_')}.csv"
    write_judgement(folder, judgement, classifier, radiographs, predictions_name=name)
    content = judgement.metrics_json()
    write_json(folder / "metrics.json", content | {"members": _members_json(config, spread)})
    metrics: Mapping[str, Any] = content["metrics"]
    return metrics


def _save_ensemble(
    config: Config,
    path: Path,
    runs: Sequence[Path],
    checkpoints: Sequence[Checkpoint],
    radiographs: Radiographs,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Write the ensemble with a calibration and a threshold of its own.

    These are fitted to outputs for images that no weight behind the output learnt from. With seeds
    alone that is the mean output on the validation split, exactly what the ensemble will answer.
    With folds it is the output of the members of the image's own fold: every other member was
    trained on it. A mean over more members is less noisy than that, so that the probabilities of
    the ensemble lean towards the middle a little more than they need to; no better honest fit
    exists without more images.

    Returns:
        Rows of the manifest and those outputs, each shape (n,); n is 0 without a validation split.
    """
    tensors, content = united(checkpoints)
    content |= _of_the_whole(config, radiographs, content["ensemble"])
    device, folds = config.train.device, config.train.folds
    if folds is None:
        rows = radiographs.rows("val")
        draft = assemble(Checkpoint(tensors, content, path), device, "auto")
        outputs = _outputs(draft, radiographs, rows)
    else:
        rows, outputs = out_of_fold(runs, checkpoints, radiographs, device)
    if len(rows) and config.task == "classify":
        chosen_on, chosen, fitted_to = "val" if folds is None else OUT_OF_FOLD, rows, outputs
        apart = radiographs.rows("calibrate")
        if len(apart):  # no member learnt from these, and none stopped on them
            draft = assemble(Checkpoint(tensors, content, path), device, "auto")
            chosen_on, chosen, fitted_to = "calibrate", apart, _outputs(draft, radiographs, apart)
        labels = radiographs.manifest.targets[chosen].astype(int)
        patients = [radiographs.manifest.patients[row] for row in chosen]
        clusters = patient_clusters(np.array(patients, dtype=object), len(chosen))
        content |= operating_point(
            labels, fitted_to, clusters, config.evaluate, chosen_on, config.seed
        )
    save_checkpoint(path, tensors, content)
    return rows, outputs


def _of_the_whole(
    config: Config, radiographs: Radiographs, ensemble: Mapping[str, Any]
) -> dict[str, Any]:
    """What the checkpoint says of the data and the plan, in place of what one member says."""
    m, train = radiographs.manifest, config.train
    counts = split_summary(m.splits, m.targets, m.patients, config.task)
    rows = np.concatenate(
        [radiographs.rows(name) for name in (POOL if train.folds else ("train",))]
    )
    baseline = None
    if config.task == "classify":
        labels = m.targets[rows].astype(int)
        baseline = fit_baseline(radiographs.signatures[rows], labels).to_dict()
    return {
        "baseline": baseline,
        "seed": config.seed,
        "data": config.data.model_dump(mode="json"),
        "fingerprint": radiographs.fingerprint(),
        "splits": {name: asdict(count) for name, count in counts.items() if name},
        "ensemble": {**ensemble, "folds": train.folds, "seeds": train.seeds},
    }


def out_of_fold(
    runs: Sequence[Path],
    checkpoints: Sequence[Checkpoint],
    radiographs: Radiographs,
    device: str,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The outputs of cross-validation: each image by the members that did not train on it.

    Args:
        runs: Run folder of each member.
        checkpoints: Best checkpoint of each member.
        radiographs: The images that all of them share out.
        device: Where to compute.

    Returns:
        Rows of the manifest, ascending, and the mean output of the members of each image's fold,
        one per seed; each shape (n,).

    Raises:
        DataError: A member was trained on other images.
    """
    n_images = len(radiographs.manifest)
    sums, counts = np.zeros(n_images), np.zeros(n_images, dtype=np.int64)
    for run, checkpoint in zip(runs, checkpoints, strict=True):
        rows = member_radiographs(run, checkpoint, radiographs).rows("val")
        sums[rows] += _outputs(assemble(checkpoint, device, "auto"), radiographs, rows)
        counts[rows] += 1
    judged = np.flatnonzero(counts)
    return judged, sums[judged] / counts[judged]


def _outputs(
    classifier: Classifier, radiographs: Radiographs, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Logits, or predicted numbers, of some images, shape (n,)."""
    return classifier.score(torch.from_numpy(radiographs.images), torch.from_numpy(rows)).logits


def _judgement(
    config: Config,
    classifier: Classifier,
    radiographs: Radiographs,
    rows: NDArray[np.int64],
    outputs: NDArray[np.float64],
) -> Judgement:
    """The ensemble on the validation split, or its members on what each left out."""
    if config.train.folds is None:
        judged = judge(classifier, radiographs, "val", own=True, seed=config.seed)
        strange = ood_scores(classifier, radiographs, judged.rows)
        return replace(judged, ood_scores=strange)
    manifest = radiographs.manifest
    targets = manifest.targets[rows]
    scores = classifier.score_outputs(outputs)
    groups = np.array([manifest.patients[row] for row in rows], dtype=object)
    if config.task == "regress":
        estimates = regression_metrics(targets, outputs, groups, config.seed)
    else:
        estimates = classification_metrics(
            targets.astype(int), outputs, scores.p_sick, classifier.threshold, groups, config.seed
        )
    note = classifier.content.get("calibration_note")
    pooled = np.sort(np.concatenate([radiographs.members(name) for name in POOL]))
    covered = details = None
    if config.task == "classify":
        covered = split_coverage(radiographs, pooled, rows, scores)
        details = run_details(classifier, radiographs, rows, scores, config.seed, None)
        details = replace(details, baselines=None)  # they learnt from these very images
    return Judgement(
        split=OUT_OF_FOLD,
        task=config.task,
        rows=rows,
        unscored=tuple(sorted(set(pooled.tolist()) - set(rows.tolist()))),
        targets=targets,
        scores=scores,
        threshold=classifier.threshold,
        policy=classifier.threshold_policy,
        used_for="choosing",
        estimates=estimates,
        familiar=own_familiarity("val", len(rows), manifest.patients_known),
        without=None,
        warnings=(FOLDS_TELL, *((str(note),) if note else ())),
        groups=groups,
        coverage=covered,
        details=details,
    )


def _members_json(config: Config, spread: Mapping[str, Any]) -> dict[str, Any]:
    members = members_of(config)
    return {
        "n": len(members),
        "folds": config.train.folds,
        "seeds": config.train.seeds,
        "names": [member.name for member in members],
        "metrics": spread,
    }


def _write_summary(
    folder: Path,
    members: Sequence[Member],
    status: str,
    exit_code: int | None,
    reason: str | None,
) -> float:
    """Write summary.json of the whole; one that has ended gets its line in the index of runs.

    Returns:
        Seconds spent on all members.
    """
    runs = {member.name: found_run(folder / MEMBERS, member.name) for member in members}
    found = {
        name: {"run": run.name, **read_json(run / "summary.json")}
        for name, run in runs.items()
        if run is not None
    }
    elapsed_s = float(sum(one.get("elapsed_s") or 0.0 for one in found.values()))
    content = {
        "status": status,
        "stop_reason": reason,
        "exit_code": exit_code,
        "best_epoch": None,
        "steps": sum(one.get("steps") or 0 for one in found.values()),
        "elapsed_s": round(elapsed_s, 3),
        "members": found,
    }
    write_json(folder / "summary.json", content)
    if exit_code is not None:
        add_to_index(folder, content)
    return elapsed_s
