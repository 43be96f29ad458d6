"""Looking at data that nobody has described yet."""

from pathlib import Path

import numpy as np
import pytest

from xray_classifier.data.survey import survey
from xray_classifier.errors import DataError, UsageError


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "train/b/00000001_000.png", "train/a/00000002_000.png", ".DS_Store")
    seen = survey(put(tmp_path, "valid/a/00000003_000.png", "valid/a/00000003_001.png"))
    assert seen.source == "folder"
    assert seen.n_images == 4
    assert seen.classes == {"a": 3, "b": 1}
    assert seen.splits == {"train": 2, "val": 2}
    assert seen.patient_scheme == "nih"
    assert seen.examples[0] == "train/a/00000002_000.png"
    assert seen.notes == ("hidden files or folders ignored: 1 (.DS_Store: 1)",)


def test_a_table_with_likely_columns(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("File,Diagnosis,Patient_ID,fold\na.png,no,7,1\nb.png,yes,8,2\nc.png,yes,8,1\n")
    seen = survey(path)
    assert seen.source == "csv"
    assert seen.columns == {"path": "File", "label": "Diagnosis", "patient": "Patient_ID"}
    assert seen.classes == {"no": 1, "yes": 2}
    assert seen.splits == {}
    assert seen.patient_scheme is None
    assert seen.examples == ("a.png", "b.png", "c.png")


def test_a_table_with_splits(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,label,set\na.png,0,Train\nb.png,1,dev\nc.png,1,\n")
    assert survey(path).columns["split"] == "set"
    assert survey(path).splits == {"train": 1, "val": 1}


def test_a_table_without_likely_columns(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("a,b\n1,2\n")
    seen = survey(path)
    assert (seen.columns, seen.classes, seen.examples) == ({}, {}, ())


def test_an_npz_file(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, val_images=np.zeros((3, 2, 2), np.uint8), val_labels=np.array([[1], [0], [1]]))
    seen = survey(path)
    assert (seen.source, seen.classes, seen.splits) == ("npz", {"0": 1, "1": 2}, {"val": 3})


def test_nothing_to_see(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images found"):
        survey(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        survey(tmp_path / "gone")
