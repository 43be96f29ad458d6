"""From what an evaluation is asked for besides its metrics to `Extras`."""

from collections.abc import Sequence
from pathlib import Path

from xray_classifier.analysis_plan import plan_deviations
from xray_classifier.classifier import Classifier, run_of
from xray_classifier.data.loading import Radiographs
from xray_classifier.errors import UsageError
from xray_classifier.extras import Extras, PlanCheck, TestSet, what_if
from xray_classifier.files import printable, read_json
from xray_classifier.judged_data import judged_fingerprint
from xray_classifier.judgement import Judgement
from xray_classifier.looks import add_look, first_look
from xray_classifier.requirements import Requirement, unmet
from xray_classifier.run_facts import PLAN_NAME, model_digest
from xray_classifier.stress_test import stress_test
from xray_classifier.terminal import Terminal

CHOSE = ("train", "val", "calibrate")
"""Splits that the run itself chose by: looking at them again tells nothing new."""


def run_extras(
    classifier: Classifier,
    radiographs: Radiographs,
    judgement: Judgement,
    terminal: Terminal,
    *,
    own: bool,
    policies: Sequence[str] = (),
    stress: bool = False,
    requirements: Sequence[Requirement] = (),
    workers: int | None = None,
    plan_path: Path | None = None,
) -> Extras:
    """Do what an evaluation is asked for besides its metrics.

    Args:
        classifier: The model.
        radiographs: The images.
        judgement: What was judged.
        terminal: Shows a bar.
        own: True where the images are those of the classifier's own run.
        policies: Other thresholds to try, from `checked_policies`.
        stress: Whether to run the stress test.
        requirements: Conditions to hold the metrics against; images that the model was trained on
            are left out of these.
        workers: Threads of the stress test; None is one per core.
        plan_path: A plan; None: plan.json in the run, where there is one.

    Raises:
        UsageError: There is no such plan, or every image judged trained the model, so that no
            condition can be held against them.
    """
    estimates = judgement.estimates if judgement.without is None else judgement.without
    if requirements and judgement.knows_all:
        raise UsageError(
            "--require: the model was trained on all of these images, so that no result on them "
            "meets a condition; name others with --split or --data"
        )
    p_sick, labels = judgement.scores.p_sick, judgement.targets.astype(int)
    test_set = plan = None
    if not (own and judgement.split in CHOSE):
        fingerprint = judged_fingerprint(radiographs, judgement.rows)
        plan = _plan(classifier, judgement, fingerprint, requirements, plan_path)
        test_set = _looked_at(classifier, judgement, fingerprint)
    return Extras(
        what_if=what_if(classifier, labels, p_sick, policies) if policies else (),
        stress=stress_test(classifier, radiographs, judgement.rows, terminal, workers=workers)
        if stress
        else None,
        test_set=test_set,
        plan=plan,
        requirements=tuple(map(str, requirements)),
        unmet=unmet(requirements, estimates),
    )


def _looked_at(classifier: Classifier, judgement: Judgement, fingerprint: str) -> TestSet:
    """Count this look at a set of images that the run did not choose by."""
    model = model_digest(classifier.path)
    looks = add_look(fingerprint, model, judgement.split, len(judgement.rows))
    return TestSet(fingerprint, looks)


def _plan(
    classifier: Classifier,
    judgement: Judgement,
    fingerprint: str,
    requirements: Sequence[Requirement],
    path: Path | None,
) -> PlanCheck | None:
    """What was planned for this model, held against what was done; None without a plan."""
    run = run_of(classifier.path)
    if path is None:
        if run is None or not (run / PLAN_NAME).is_file():
            return None
        path = run / PLAN_NAME
    plan = read_json(path)
    if not plan:
        return PlanCheck("", (f"{printable(path)} cannot be read",))
    if plan.get("data", {}).get("fingerprint") != fingerprint:
        return PlanCheck(str(plan.get("sha256")), (), covers=False)
    classify = judgement.task == "classify"
    deviations = plan_deviations(
        plan,
        model_sha256=model_digest(classifier.path),
        split=judgement.split,
        threshold=judgement.threshold if classify else None,
        policy=judgement.policy if classify else None,
        requirements=[str(requirement) for requirement in requirements],
        fingerprint=fingerprint,
    )
    first = first_look(fingerprint)
    created = str(plan.get("created"))
    if first is not None and first < created:
        deviations.append(f"these images were looked at on {first}, before the plan of {created}")
    return PlanCheck(str(plan.get("sha256")), tuple(deviations))
