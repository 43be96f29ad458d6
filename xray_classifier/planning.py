"""`plan`: what will be judged, and by which rule, written down before the test set is opened."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from xray_classifier import __version__
from xray_classifier.analysis_plan import sealed_plan
from xray_classifier.classifier import Classifier, load_classifier, run_of
from xray_classifier.data.loading import Radiographs
from xray_classifier.errors import OutputError, UsageError
from xray_classifier.estimates import CLASSIFICATION_METRICS, REGRESSION_METRICS
from xray_classifier.files import printable, write_json
from xray_classifier.intervals import wilson_interval
from xray_classifier.judged_data import (
    chosen_split,
    judged_config,
    judged_fingerprint,
    judged_rows,
    other_images,
    own_images,
)
from xray_classifier.looks import NOT_RECORDED, Looks, count_looks
from xray_classifier.requirements import parse_requirements
from xray_classifier.run_facts import PLAN_NAME, chosen_in_run, model_digest, was_judged_on
from xray_classifier.sample_size import auroc_variance
from xray_classifier.terminal import Terminal, command

EXPECTED = 0.9
"""The sensitivity, specificity and AUROC that the precision of a test is told for."""
NORMAL_95 = 1.959963984540054
"""The 0.975 quantile of the standard normal distribution."""
TESTS = (
    "95 % intervals without adjustment for several metrics",
    "AUROC: DeLong, or a bootstrap over patients where any patient has several images",
    "proportions: Wilson, or a bootstrap over patients where any patient has several images",
    "other metrics: a bootstrap over images, or over patients",
)


@dataclass(frozen=True)
class PlanResult:
    """What `plan` comes to; `--json` prints it."""

    plan: str
    sha256: str
    split: str
    n: int
    looked_at_before: Mapping[str, Any]


def run_plan(
    path: Path,
    terminal: Terminal,
    *,
    out: Path | None = None,
    split: str | None = None,
    data: Path | None = None,
    requirements: Sequence[str] = (),
    note: str | None = None,
    overrides: Sequence[str] = (),
) -> PlanResult:
    """Write the plan of an evaluation. The images are decoded and hashed, no answer is computed.

    Args:
        path: A run folder or a checkpoint.
        terminal: What the user reads.
        out: File to write; None: plan.json in the run folder.
        split: As in `evaluate`.
        data: Images to judge; None: the run's own.
        requirements: As in `evaluate --require`.
        note: Anything else that was decided beforehand.
        overrides: `data.labels=...` and others, as in `evaluate`.

    Raises:
        OutputError: The file exists.
        UsageError: This model has been judged on these images already, or a condition is none.
        DataError: The images cannot be used.
        CheckpointError: The checkpoint cannot be used.
    """
    asked = parse_requirements(requirements)
    classifier = load_classifier(path, "cpu")
    file = _free_place(out, classifier)
    config = judged_config(classifier, data, overrides)
    gather = own_images if data is None else other_images
    radiographs = gather(classifier, config, terminal)
    chosen = chosen_split(radiographs, split, whole=data is not None)
    rows = judged_rows(radiographs, chosen)
    digest = model_digest(classifier.path)
    fingerprint = judged_fingerprint(radiographs, rows)
    looks = count_looks(fingerprint)
    _refuse_if_judged(looks, digest, was_judged_on(classifier.path, fingerprint))
    before = _before(looks, classifier, chosen if data is None else None)
    name = None if config.path is None else printable(config.path.name)
    content = {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "program": __version__,
        "model": {"sha256": digest},
        "data": {
            "own": data is None,
            "name": name,
            "split": chosen,
            "n": len(rows),
            "fingerprint": fingerprint,
        },
        **_analysis(classifier),
        "requirements": [str(requirement) for requirement in asked],
        "looked_at_before": before,
        "note": note,
    }
    plan = sealed_plan(content)
    write_json(file, plan)
    for line in _in_words(plan, radiographs, rows, looks):
        terminal.say(line)
    terminal.say(f"written to {printable(file)}")
    terminal.say(f"Next: {_evaluating(path, data, chosen, requirements, out)}")
    return PlanResult(str(file), plan["sha256"], chosen, len(rows), before)


def _evaluating(
    path: Path,
    data: Path | None,
    split: str,
    requirements: Sequence[str],
    out: Path | None,
) -> str:
    """The command that carries the plan out."""
    where: list[object] = [] if data is None else ["--data", data]
    where += [] if out is None else ["--plan", out]
    asking = [word for text in requirements for word in ("--require", text)]
    return command("evaluate", path, *where, "--split", split, *asking)


def _free_place(out: Path | None, classifier: Classifier) -> Path:
    run = run_of(classifier.path)
    if out is None and run is None:
        raise UsageError(
            f"{printable(classifier.path)} stands in no run folder; name the plan with -o FILE"
        )
    file = out if out is not None else (run or Path()) / PLAN_NAME
    if file.exists() or file.is_symlink():
        raise OutputError(
            f"{printable(file)} exists, and a plan is never replaced; keep it, or name another "
            "file with -o"
        )
    return file


def _refuse_if_judged(looks: Looks | None, digest: str, in_run: bool) -> None:
    """A plan that comes after the result is none."""
    if in_run or (looks is not None and digest in looks.by_model):
        raise UsageError(
            "this model was judged on these very images already, so a plan comes too late; plan "
            "for images that it has not been judged on, with --data"
        )


def _before(looks: Looks | None, classifier: Classifier, own_split: str | None) -> dict[str, Any]:
    """How much is known of the images already: by other models, by curves, by choices."""
    in_sight = chosen_in_run(classifier.path, "train", "test_curve") == "live"
    return {
        "looks": None if looks is None else looks.looks,
        "models": None if looks is None else looks.models,
        "test_loss_seen": own_split == "test" and in_sight,
        "chosen_by": own_split in ("train", "val", "calibrate"),
    }


def _analysis(classifier: Classifier) -> dict[str, Any]:
    """What is computed, and at which operating point."""
    classify = classifier.task == "classify"
    names = CLASSIFICATION_METRICS if classify else REGRESSION_METRICS
    stored = classifier.content["threshold"]
    point = {
        "value": classifier.threshold,
        "policy": classifier.threshold_policy,
        "chosen_on": stored.get("chosen_on"),
    }
    primary = "auroc" if classify else "r2"
    return {
        "task": classifier.task,
        "threshold": point if classify else {"value": None, "policy": None, "chosen_on": None},
        "calibration": classifier.calibration.to_dict(),
        "primary_metric": primary,
        "other_metrics": [name for name in names if name != primary],
        "tests": list(TESTS),
    }


def _in_words(
    plan: Mapping[str, Any], radiographs: Radiographs, rows: Any, looks: Looks | None
) -> list[str]:
    """The plan, its precision and what spoils it, for a person."""
    data, before = plan["data"], plan["looked_at_before"]
    what = "all images" if data["split"] == "all" else f"the {data['split']} split"
    lines = [
        f"plan {plan['sha256'][:12]}: {what}, {data['n']:,} images; primary metric "
        f"{plan['primary_metric']}; requirements: {', '.join(plan['requirements']) or 'none'}"
    ]
    if plan["task"] == "classify":
        sick = int(np.sum(radiographs.manifest.targets[rows] == 1))
        lines += precision_words(sick, len(rows) - sick)
    if looks is None:
        lines.append(f"warning: {NOT_RECORDED}")
    elif looks.looks:
        lines.append(f"warning: these images were {looks.in_words()}; the plan says so")
    if before["test_loss_seen"]:
        lines.append(
            "warning: the test loss was in sight during training (train.test_curve: live); the "
            "plan says so"
        )
    if before["chosen_by"]:
        lines.append("warning: the run learnt from or chose by these images; they test nothing")
    return lines


def precision_words(n_sick: int, n_healthy: int) -> list[str]:
    """How precise a test of this size will be, at a sensitivity, specificity and AUROC of 0.9.

    Args:
        n_sick: Sick images, each of a patient of its own.
        n_healthy: The same for the healthy.

    Returns:
        One sentence; none where a class is missing.
    """
    if not n_sick or not n_healthy:
        return []
    ends = [wilson_interval(EXPECTED * n, float(n)) for n in (n_sick, n_healthy)]
    sensitivity, specificity = (f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in ends)
    half = NORMAL_95 * math.sqrt(auroc_variance(EXPECTED, n_sick, n_healthy))
    return [
        f"{n_sick:,} sick and {n_healthy:,} healthy images: a sensitivity of 90 % would be known "
        f"as {sensitivity}, a specificity of 90 % as {specificity}, an AUROC of 0.90 to within "
        f"{half:.3f}, if no patient has several images"
    ]
