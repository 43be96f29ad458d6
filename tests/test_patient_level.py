"""One answer a patient, against pandas and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, recall_score, roc_auc_score

from xray_classifier.calibration import Calibration
from xray_classifier.patient_level import patient_level


def test_each_aggregation_is_what_pandas_and_scikit_learn_say() -> None:
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(60), rng.integers(1, 5, 60))
    sick = rng.integers(0, 2, 60)[patients]
    logits = rng.normal(size=len(patients)) + 1.2 * sick
    calibration = Calibration("platt", 0.8, -0.2)
    found = patient_level(sick, logits, patients, calibration, 0.55)
    table = pd.DataFrame({"patient": patients, "sick": sick, "logit": logits})
    grouped = table.groupby("patient")
    truth = grouped["sick"].max()
    assert (found.n, found.n_sick, found.n_mixed) == (60, truth.sum(), 0)
    for how in ("mean", "max"):
        value = grouped["logit"].agg(how)
        p = calibration.apply(value.to_numpy())
        m = found.metrics[how]
        assert m["auroc"].value == pytest.approx(roc_auc_score(truth, value))
        assert m["brier"].value == pytest.approx(brier_score_loss(truth, p))
        assert m["sensitivity"].value == pytest.approx(recall_score(truth, p >= 0.55))
        assert m["auroc"].method == "delong"
    called = table.assign(called=calibration.apply(logits) >= 0.55).groupby("patient")["called"]
    sensitivity = recall_score(truth, called.any())
    assert found.metrics["any"]["sensitivity"].value == pytest.approx(sensitivity)
    assert "auroc" not in found.metrics["any"]
    assert found.to_dict()["metrics"]["mean"]["auroc"]["n"] == 60


def test_a_patient_with_both_labels_counts_as_sick_and_is_told() -> None:
    found = patient_level(
        np.array([1, 0, 0, 0]), np.array([1.0, -3.0, 2.0, -1.0]), np.array([0, 0, 1, 1]),
        Calibration(), 0.5,
    )  # fmt: skip
    assert (found.n, found.n_sick, found.n_mixed) == (2, 1, 1)
    assert found.metrics["mean"]["sensitivity"].value == 0.0  # mean logit -1
    assert found.metrics["any"]["sensitivity"].value == 1.0
