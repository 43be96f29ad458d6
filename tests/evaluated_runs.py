"""A hand-made run and evaluation whose every number is known, for cards and checklists."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from xray_classifier.confusion import Confusion
from xray_classifier.files import csv_text
from xray_classifier.run_facts import Facts
from xray_classifier.table_one import Listing

NASTY = "<img src=x onerror=alert(1)>|`x`\n# [a](b)"

USE = {
    "purpose": "second reader",
    "users": "radiographers",
    "population": "adults with a cough",
    "min_age_years": 18.0,
    "max_age_years": None,
    "sex": None,
    "body_part": "chest",
    "view": "PA",
    "modality": "digital radiography",
    "setting": None,
    "reference_standard": "two readers, a third where they differ",
    "out_of_scope": ["children"],
}

CONTENT: dict[str, Any] = {
    "task": "classify",
    "labels": {"healthy": ["NORMAL"], "sick": ["PNEUMONIA"], "ignore": ["other"]},
    "data": {
        "source": "folder",
        "path": "/home/somebody/secret/films",
        "limit": None,
        "split": {"val": 0.15, "test": 0.2, "seed": 7, "fold": None},
    },
    "image": {"size": 32, "crop": "pad", "intensity": "zscore"},
    "pixels": {"mean": 0.5, "std": 0.25},
    "architecture": {
        "type": "mlp",
        "size_px": 32,
        "hidden": [16, 8],
        "activation": "gelu",
        "dropout": [0.1, 0.1],
        "norm": "layer",
        "init": "kaiming",
        "blocks": 0,
    },
    "splits": {
        "train": {"images": 4, "patients": 3, "healthy": 3, "sick": 1},
        "test": {"images": 5, "patients": 5, "healthy": 2, "sick": 3},
    },
    "intended_use": USE,
    "seed": 3,
    "monitor": {"column": "val_auroc", "goal": "max", "min_delta": 0.0, "start_from": 0},
    "epoch": 12,
    "environment": {
        "python": "3.11.7",
        "platform": "Linux",
        "device": "cpu",
        "threads": 2,
        "versions": {"xray-classifier": "0.1.0", "torch": "2.14.1"},
    },
    "calibration": {"method": "platt", "slope": 1.5, "intercept": -0.25},
    "threshold": {"value": 0.4, "policy": "sens=0.95", "chosen_on": "val", "note": None},
    "memory": {"images": 4, "patients": 3, "key": "k"},
    "fingerprint": "f" * 64,
}

METRICS: dict[str, Any] = {
    "split": "test",
    "n": 5,
    "n_unreadable": 1,
    "threshold": 0.4,
    "threshold_policy": "sens=0.95",
    "metrics": {
        "auroc": {"value": 0.875, "ci_low": 0.75, "ci_high": 0.95, "method": "delong", "n": 5},
        "sensitivity": {
            "value": 2 / 3, "ci_low": 0.208, "ci_high": 0.939, "method": "wilson", "n": 3,
        },
        "specificity": {"value": None, "ci_low": None, "ci_high": None, "method": "wilson", "n": 0},
    },
    "in_training": None,
    "warnings": ["2 healthy and 3 sick images are few"],
}  # fmt: skip

CONFIG: dict[str, Any] = {
    "train": {
        "epochs": 30,
        "batch_size": 8,
        "optimizer": {"name": "adamw", "lr": 0.001, "weight_decay": 0.01},
        "schedule": {"name": "cosine"},
        "pos_weight": 3.0,
        "mixup": 0.2,
        "augment": {"rotate_degrees": 10.0, "flip": False},
        "test_curve": "sealed",
    }
}

AUDIT: dict[str, Any] = {
    "notes": ["patients were recognised"],
    "leaks": {
        "patients": {"shared_across_splits": 2},
        "exact": {"groups_across_splits": 1},
        "near": {"images_across_splits": 4},
    },
}

LISTING = Listing(
    targets=np.array([1.0, 0, 0, 0, 1, 1, 1, 0, 0, 1]),
    patients=("a", "a", "b", "c", "d", "e", "f", "g", "h", "i"),
    patients_known=True,
    splits=("train",) * 4 + ("test",) * 6,
    reasons=("",) * 9 + ("truncated",),
    columns={"view": ("PA", "AP") * 5},
    ids=tuple(f"{i}.png" for i in range(10)),
)

FACTS = Facts(
    content=CONTENT,
    model_sha256="a" * 64,
    model_name="20261125_run",
    config=CONFIG,
    summary={"steps": 60, "stop_reason": "val_auroc has not improved for 10 epochs"},
    audit=AUDIT,
    listing=LISTING,
    metrics=METRICS,
    metrics_name="eval/x/metrics.json",
    counts=Confusion(tp=2, fp=1, tn=1, fn=1),
    own=True,
)


def with_metrics(**more: Any) -> Facts:
    """FACTS with further keys of metrics.json."""
    return replace(FACTS, metrics={**METRICS, **more})


def poisoned(value: Any, text: str = NASTY) -> Any:
    """The same nested values with every text, and every name of a column, replaced."""
    if isinstance(value, str):
        return text
    if isinstance(value, dict):
        return {key: poisoned(item, text) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [poisoned(item, text) for item in value]
    return value


def write_evaluation(
    folder: Path, ids: list[str], change: Callable[[dict[str, Any]], Any] = lambda metrics: None
) -> Path:
    """A folder with the metrics above and predictions: the first half sick, every third wrong."""
    folder.mkdir(parents=True)
    metrics = json.loads(json.dumps(METRICS)) | {"n": len(ids)}
    change(metrics)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    rows = []
    for place, name in enumerate(ids):
        truth = place < len(ids) // 2
        said = truth != (place % 3 == 0)
        rows.append((name, ("healthy", "sick")[truth], ("healthy", "sick")[said]))
    (folder / "predictions.csv").write_text(csv_text(("path", "label", "decision"), rows))
    return folder
