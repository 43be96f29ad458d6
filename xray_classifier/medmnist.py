"""Predictions as the MedMNIST evaluator and its leaderboard take them.

Its file has no header; each line is a running number and the probability of each class, in the
order of the labels, and the name of the file carries the two metrics.

Source: Yang et al. 2023, MedMNIST v2, doi:10.1038/s41597-022-01721-8, and its `Evaluator`.
"""

import re

from xray_classifier.errors import UsageError
from xray_classifier.metrics import FloatArray, Labels, auroc

SETS = ("pneumoniamnist", "breastmnist", "nodulemnist3d", "adrenalmnist3d", "vesselmnist3d",
        "synapsemnist3d")  # fmt: skip
"""Sets of two classes."""
FLAG = re.compile(rf"({'|'.join(SETS)})(_[0-9]+)?")


def check_flag(flag: str) -> str:
    """The name of a MedMNIST set, such as pneumoniamnist.

    Raises:
        UsageError: It cannot be one.
    """
    if not FLAG.fullmatch(flag):
        raise UsageError(
            f"--medmnist {flag!r}: expected a MedMNIST set of two classes ({', '.join(SETS)}), "
            "with a size such as _224 behind it where it is not 28"
        )
    return flag


def medmnist_name(flag: str, split: str, labels: Labels, p_sick: FloatArray, run: str) -> str:
    """Name of the file: `pneumoniamnist_test_[AUC]0.987_[ACC]0.942@run.csv`.

    The accuracy is that of the MedMNIST evaluator, which calls sick what is above one half.

    Args:
        flag: Name of the set.
        split: train, val or test; `all`, for data without splits, is called test.
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        p_sick: P(sick), shape (n_images,), in [0, 1].
        run: What to call the run; what no file name should hold is left out.
    """
    accuracy = float(((p_sick > 0.5) == (labels == 1)).mean())
    plain = re.sub(r"[^A-Za-z0-9._-]", "", run) or "run"
    split = "test" if split == "all" else split
    return f"{flag}_{split}_[AUC]{auroc(labels, p_sick):.3f}_[ACC]{accuracy:.3f}@{plain}.csv"


def medmnist_text(p_sick: FloatArray) -> str:
    """The file: one line per image in the order of the set, `number,P(healthy),P(sick)`.

    Args:
        p_sick: P(sick), shape (n_images,), in [0, 1].
    """
    pairs = enumerate(p_sick.tolist())
    return "".join(f"{number},{1 - p!r},{p!r}\n" for number, p in pairs)
