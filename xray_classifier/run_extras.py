"""From what an evaluation is asked for besides its metrics to `Extras`."""

from collections.abc import Sequence

from xray_classifier.classifier import Classifier
from xray_classifier.data.loading import Radiographs
from xray_classifier.errors import UsageError
from xray_classifier.extras import Extras, TestSet, what_if
from xray_classifier.judgement import Judgement
from xray_classifier.looks import add_look, set_fingerprint
from xray_classifier.requirements import Requirement, unmet
from xray_classifier.run_facts import model_digest
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
    test_set = None
    if not (own and judgement.split in CHOSE):
        test_set = _looked_at(classifier, radiographs, judgement)
    return Extras(
        what_if=what_if(classifier, labels, p_sick, policies) if policies else (),
        stress=stress_test(classifier, radiographs, judgement.rows, terminal) if stress else None,
        test_set=test_set,
        requirements=tuple(map(str, requirements)),
        unmet=unmet(requirements, judgement.estimates),
    )


def _looked_at(classifier: Classifier, radiographs: Radiographs, judgement: Judgement) -> TestSet:
    """Count this look at a set of images that the run did not choose by."""
    pixels = radiographs.signatures["pixels"][judgement.rows]
    fingerprint = set_fingerprint([bytes(code) for code in pixels])
    model = model_digest(classifier.path)
    looks = add_look(fingerprint, model, judgement.split, len(judgement.rows))
    return TestSet(fingerprint, looks)
