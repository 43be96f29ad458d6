"""`evaluate`: a saved model judged on the run's own held-out images or on others."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xray_classifier.classifier import Classifier, GateMode, load_classifier, run_of
from xray_classifier.config import DataConfig
from xray_classifier.data.loading import Radiographs
from xray_classifier.errors import DataError, OutputError, UsageError
from xray_classifier.extras import checked_policies
from xray_classifier.files import make_folder, printable, write_text
from xray_classifier.gated import Gated, gated
from xray_classifier.history import History, Monitor
from xray_classifier.judged_data import (
    chosen_split,
    judged_config,
    judged_rows,
    other_images,
    own_images,
)
from xray_classifier.judgement import Judgement, judge
from xray_classifier.judgement_files import FILMS, write_judgement
from xray_classifier.judgement_words import in_words
from xray_classifier.medmnist import check_flag, medmnist_name, medmnist_text
from xray_classifier.requirements import Requirement, parse_requirements
from xray_classifier.run_curves import LossCurves, draw_curves
from xray_classifier.run_extras import run_extras
from xray_classifier.run_folder import fresh_folder, time_stamp
from xray_classifier.terminal import Terminal, command


@dataclass(frozen=True)
class Asked:
    """What an evaluation is asked for besides its metrics.

    Attributes:
        by: Columns to form subgroups by; None: those of the run's config, else those that fit.
        what_if: Other policies to try, exploratory; `usual` stands for the usual ones.
        stress: Whether to run the stress test.
        require: Conditions such as `auroc>=0.90`.
        medmnist: Name of a MedMNIST set to write predictions for, or None.
        plan: A plan to hold this evaluation against; None: plan.json in the run, if there is one.
        films: Worst errors of each kind to show as films in the report; 0 shows none.
        force: Write into a folder that holds an evaluation already.
        gate: What to do with images unlike the training data: refuse, warn or off.
    """

    by: tuple[str, ...] | None = None
    what_if: tuple[str, ...] = ()
    stress: bool = False
    require: tuple[str, ...] = ()
    medmnist: str | None = None
    plan: Path | None = None
    films: int = FILMS
    force: bool = False
    gate: GateMode = "warn"


NOTHING_MORE = Asked()


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation comes to; `--json` prints it.

    `metrics` and `in_training` are as in metrics.json, `out` the folder with everything written,
    `n_unreadable` the images of the split that could not be scored, `unmet` the conditions of
    `--require` that do not hold.
    """

    out: str
    split: str
    n: int
    n_unreadable: int
    threshold: float | None
    metrics: Mapping[str, Any]
    in_training: Mapping[str, Any] | None
    unmet: tuple[str, ...] = ()


def run_evaluation(
    path: Path,
    terminal: Terminal,
    *,
    data: Path | None = None,
    split: str | None = None,
    out: Path | None = None,
    threshold: str | float = "auto",
    device: str = "auto",
    overrides: Sequence[str] = (),
    prevalence: float | None = None,
    asked: Asked = NOTHING_MORE,
) -> EvaluationResult:
    """Judge a checkpoint and write metrics, predictions, figures and a report.

    Args:
        path: A checkpoint or a run folder.
        terminal: What the user reads.
        data: Folder, CSV or NPZ with labels; None takes the run's own data.
        split: One of SPLITS; None takes test, else val, else everything.
        out: Folder to write into; None makes one under the run's `eval`.
        threshold: `auto` or a policy, see `load_classifier`.
        device: Where to compute.
        overrides: `data.labels=...`, `data.columns...=`, `data.patient=...`; `data.path=...` where
            the run's own data moved.
        prevalence: Share of sick where the answers are used, see `load_classifier`.
        asked: What to do besides.

    Raises:
        DataError: The images cannot be used, or the run's own data changed since training.
        CheckpointError: The checkpoint cannot be used.
        UsageError: A path or a split that does not exist.
    """
    requirements = parse_requirements(asked.require)
    policies = checked_policies(asked.what_if)
    flag = None if asked.medmnist is None else check_flag(asked.medmnist)
    classifier = load_classifier(path, device, threshold, prevalence)
    _refuse_for_numbers(classifier, asked, prevalence)
    config = judged_config(classifier, data, overrides)
    gather = own_images if data is None else other_images
    radiographs = gather(classifier, config, terminal)
    chosen = chosen_split(radiographs, split, whole=data is not None)
    if split is None:
        terminal.say(f"evaluating {'all images' if chosen == 'all' else f'the {chosen} split'}")
    looked_at = gated(classifier, radiographs, judged_rows(radiographs, chosen), asked.gate)
    radiographs = looked_at.radiographs
    if flag is not None and len(judged_rows(radiographs, chosen)) < _n_members(radiographs, chosen):
        raise UsageError("--medmnist needs an answer for every image, and some cannot be read")
    if out is not None:
        _refuse_to_mix(out, asked.force)
    folder = out or _default_folder(classifier, config)
    is_new = out is None or not out.exists()
    make_folder(folder)
    with _gone_if_empty(folder, is_new):
        return _judged_into(
            folder, classifier, radiographs, chosen, config, terminal,
            own=data is None, asked=asked, requirements=requirements, policies=policies, flag=flag,
            looked_at=looked_at,
        )  # fmt: skip


@contextmanager
def _gone_if_empty(folder: Path, is_new: bool) -> Iterator[None]:
    """Leave no empty folder behind where the work ends early."""
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it holds something
                folder.rmdir()


def _judged_into(
    folder: Path,
    classifier: Classifier,
    radiographs: Radiographs,
    chosen: str,
    config: DataConfig,
    terminal: Terminal,
    *,
    own: bool,
    asked: Asked,
    requirements: Sequence[Requirement],
    policies: Sequence[str],
    flag: str | None,
    looked_at: Gated,
) -> EvaluationResult:
    """Judge a split and write all files; arguments as in `run_evaluation`, made ready."""
    seed = int(classifier.content["seed"])
    judgement = judge(classifier, radiographs, chosen, own=own, seed=seed, by=asked.by)
    extras = run_extras(
        classifier, radiographs, judgement, terminal,
        own=own, policies=policies, stress=asked.stress, requirements=requirements,
        workers=config.workers, plan_path=asked.plan,
    )  # fmt: skip
    source = "" if own or config.path is None else printable(config.path.name)
    judgement = replace(
        judgement,
        extras=extras,
        source=source,
        ood_scores=looked_at.scores[judgement.rows],
        warnings=(*looked_at.in_words(), *judgement.warnings),
    )
    curves = _run_curves(classifier, with_test=chosen == "test" and own)
    written = write_judgement(
        folder, judgement, classifier, radiographs, curves=curves, films=asked.films
    )
    if flag is not None:
        written.append(_write_medmnist(folder, flag, judgement, classifier))
    terminal.say("\n".join(in_words(judgement)))
    terminal.say(f"written to {printable(folder)}: {', '.join(f.name for f in written)}")
    model = run_of(classifier.path) or classifier.path
    terminal.say(f"Next: {command('predict', model, 'FOLDER', '-o', 'predictions.csv')}")
    content = judgement.metrics_json()
    return EvaluationResult(
        out=str(folder),
        split=chosen,
        n=content["n"],
        n_unreadable=content["n_unreadable"],
        threshold=content["threshold"],
        metrics=content["metrics"],
        in_training=content["in_training"],
        unmet=extras.unmet,
    )


def _refuse_to_mix(folder: Path, force: bool) -> None:
    """Refuse a folder that holds a run, or another evaluation.

    Raises:
        OutputError: It does.
    """
    if (folder / "history.csv").exists() or (folder / "members").exists():
        raise OutputError(f"{printable(folder)} is a run folder; name another with -o")
    if (folder / "metrics.json").exists() and not force:
        raise OutputError(
            f"{printable(folder)} holds an evaluation; name another folder with -o, or add --force"
        )


def _refuse_for_numbers(classifier: Classifier, asked: Asked, prevalence: float | None) -> None:
    """Refuse what only a classifier can be asked for, before anything is looked at."""
    if classifier.task == "classify":
        return
    options = {
        "--by": asked.by,
        "--what-if": asked.what_if,
        "--stress": asked.stress,
        "--medmnist": asked.medmnist,
        "--prevalence": prevalence,
    }
    given = [option for option, value in options.items() if value]
    if given:
        raise UsageError(f"{', '.join(given)}: this model predicts a number, not sick or healthy")


def _n_members(radiographs: Radiographs, split: str) -> int:
    return len(radiographs.manifest) if split == "all" else len(radiographs.members(split))


def _write_medmnist(folder: Path, flag: str, judgement: Judgement, classifier: Classifier) -> Path:
    """The predictions in the form of the MedMNIST evaluator."""
    labels, p_sick = judgement.targets.astype(int), judgement.scores.p_sick
    run = run_of(classifier.path)
    name = "run" if run is None else run.name
    path = folder / medmnist_name(flag, judgement.split, labels, p_sick, name)
    write_text(path, medmnist_text(p_sick))
    return path


def _default_folder(classifier: Classifier, config: DataConfig) -> Path:
    name = config.path.stem if config.path is not None else "phantoms"
    run = run_of(classifier.path)
    parent = Path() if run is None else run
    return fresh_folder(parent / "eval", f"{name}-{time_stamp()}")


def _run_curves(classifier: Classifier, with_test: bool) -> LossCurves | None:
    """The loss curves of the run that a checkpoint stands in; the test curve is unsealed here."""
    run = run_of(classifier.path)
    if run is None or not (run / "history.csv").is_file():  # an ensemble has no curve of its own
        return None
    try:
        history = History.from_csv((run / "history.csv").read_text(encoding="utf-8"))
        reason = json.loads((run / "summary.json").read_bytes())["stop_reason"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"the records of {printable(run)} cannot be read") from error
    if not history.rows:
        return None
    stored = classifier.content.get("monitor")
    monitor = None if stored is None else Monitor(**stored)
    tested = with_test and (run / "history_test.csv").is_file()
    test_path = run / "history_test.csv" if tested else None
    return LossCurves(draw_curves(history, monitor, test_path, reason), tested)
