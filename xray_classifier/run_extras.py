"""From what an evaluation is asked for besides its metrics to `Extras`."""

from collections.abc import Sequence

from xray_classifier.analysis_plan import plan_deviations
from xray_classifier.classifier import Classifier, run_of
from xray_classifier.data.loading import Radiographs
from xray_classifier.errors import UsageError
from xray_classifier.extras import Extras, PlanCheck, TestSet, what_if
from xray_classifier.files import read_json
from xray_classifier.judged_data import judged_fingerprint
from xray_classifier.judgement import Judgement
from xray_classifier.looks import add_look
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
        requirements: Conditions to hold the metrics against.

    Raises:
        UsageError: Thresholds or stress are asked of a model that predicts a number.
    """
    if policies and judgement.task != "classify":
        raise UsageError("--what-if: this model predicts a number and has no threshold")
    p_sick, labels = judgement.scores.p_sick, judgement.targets.astype(int)
    test_set = plan = None
    if not (own and judgement.split in CHOSE):
        fingerprint = judged_fingerprint(radiographs, judgement.rows)
        plan = _plan(classifier, judgement, fingerprint, requirements)
        test_set = _looked_at(classifier, judgement, fingerprint)
    return Extras(
        what_if=what_if(classifier, labels, p_sick, policies) if policies else (),
        stress=stress_test(classifier, radiographs, judgement.rows, terminal) if stress else None,
        test_set=test_set,
        plan=plan,
        requirements=tuple(map(str, requirements)),
        unmet=unmet(requirements, judgement.estimates),
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
) -> PlanCheck | None:
    """What was planned for this model, held against what was done; None without a plan."""
    run = run_of(classifier.path)
    if run is None or not (run / PLAN_NAME).is_file():
        return None
    plan = read_json(run / PLAN_NAME)
    if not plan:
        return PlanCheck("", (f"{PLAN_NAME} cannot be read",))
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
    return PlanCheck(str(plan.get("sha256")), tuple(deviations))
