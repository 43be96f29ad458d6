"""Conditions on metrics, and predictions in the form of the MedMNIST evaluator."""

import csv
import io
import math
import re

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from xray_classifier.errors import UsageError
from xray_classifier.estimates import Estimate
from xray_classifier.medmnist import check_flag, medmnist_name, medmnist_text
from xray_classifier.requirements import parse_requirements, unmet

FOUND = {
    "auroc": Estimate(0.91, 0.88, 0.94, "delong", 100),
    "brier": Estimate(0.1, 0.08, 0.12, "bootstrap", 100),
    "ppv": Estimate(math.nan, math.nan, math.nan, "wilson", 0),
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("auroc>=0.90", True),
        ("auroc >= 0.91", True),
        ("auroc>=0.92", False),
        ("auroc@lower95>=0.88", True),
        ("auroc@lower95>=0.9", False),
        ("auroc@upper95<=0.95", True),
        ("brier<=0.1", True),
        ("brier<=1e-2", False),
        ("ppv>=0", False),
        ("mse<=3", False),
    ],
)
def test_a_condition_holds_or_says_what_was_found(text: str, holds: bool) -> None:
    failures = unmet(parse_requirements([text]), FOUND)
    assert (failures == ()) == holds
    if not holds:
        assert failures[0].startswith(str(parse_requirements([text])[0]))


@pytest.mark.parametrize("text", ["auroc", "auroc>0.9", "auroc>=", "auc>=0.9", "auroc>=1.2.3",
                                  "auroc@lower90>=0.9", "0.9<=auroc"])  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--require"):
        parse_requirements([text])


def test_a_medmnist_file_reads_back_as_its_evaluator_reads_it() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    p = np.array([0.1, 0.7, 0.5, 0.6, 1e-17])
    name = medmnist_name("pneumoniamnist", "test", labels, p, "my run/1")
    # the pattern of medmnist.Evaluator.parse_and_evaluate
    pattern = r"(.+)_(.+)_\[AUC\]([\d.]+)_\[ACC\]([\d.]+)@(.+)\.csv"
    match = re.fullmatch(pattern, name)
    assert match is not None
    assert match.groups()[:2] == ("pneumoniamnist", "test")
    assert float(match[3]) == pytest.approx(roc_auc_score(labels, p), abs=5e-4)
    assert float(match[4]) == pytest.approx(accuracy_score(labels, p > 0.5), abs=5e-4)
    assert match[5] == "myrun1"
    rows = list(csv.reader(io.StringIO(medmnist_text(p))))
    assert [int(row[0]) for row in rows] == list(range(5))
    scores = np.array([[float(x) for x in row[1:]] for row in rows])
    np.testing.assert_array_equal(scores[:, -1], p)
    np.testing.assert_allclose(scores.sum(axis=1), 1)


def test_a_name_that_is_no_set_is_refused() -> None:
    assert check_flag("pneumoniamnist_224") == "pneumoniamnist_224"
    with pytest.raises(UsageError, match="two classes"):
        check_flag("pneumonia")
    with pytest.raises(UsageError, match="--medmnist"):
        check_flag("../x")
