"""What data/README.md tells people to paste: it must be a valid config, or run."""

import re
from pathlib import Path

import pandas as pd
import pytest

from xray_classifier.config_file import load_config
from xray_classifier.data.sources import Found
from xray_classifier.data.table import find_in_table

README = (Path(__file__).resolve().parents[1] / "data" / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def block_with(language: str, text: str) -> str:
    """The one block that holds a text."""
    (block,) = [block for block in blocks(language) if text in block]
    return block


def found_in(folder: Path, name: str) -> Found:
    """What the program finds when it reads a CSV with the config that stands beside it."""
    run = folder / "run.yaml"
    run.write_text(block_with("yaml", f"path: {name}"), encoding="utf-8")
    data = load_config(run).config.data
    found = find_in_table(
        folder / name,
        path_column=data.columns.path,
        label_column=data.columns.label,
        patient_column=data.columns.patient,
        split_column=data.columns.split,
    )
    assert set(found.classes) == {*data.labels.healthy, *data.labels.sick}
    return found


@pytest.mark.parametrize("block", blocks("yaml"))
def test_each_config_is_valid(block: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(block, encoding="utf-8")
    assert load_config(file).config.data.path is not None


@pytest.mark.parametrize(
    ("expression", "path", "patient"),
    [
        (r"(patient\d+)/", "train/patient00001/study1/view1_frontal.jpg", "patient00001"),
        (r"/(p\d{8})/", "files/p10/p10000032/s50414267/a.jpg", "p10000032"),
    ],
)
def test_each_expression_finds_the_patient(expression: str, path: str, patient: str) -> None:
    assert f"`data.patient: '{expression}'`" in README
    match = re.search(expression, path)
    assert match is not None
    assert match.group(1) == patient


def test_the_code_for_nih_writes_a_csv_that_fits_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["00000001_000.png", "00000001_001.png", "00000002_000.png"]
    pd.DataFrame(
        {
            "Image Index": names,
            "Finding Labels": ["Cardiomegaly|Effusion", "No Finding", "No Finding"],
            "Patient ID": [1, 1, 2],
            "View Position": ["PA", "AP", "PA"],
        }
    ).to_csv(tmp_path / "Data_Entry_2017_v2020.csv", index=False)
    (tmp_path / "test_list.txt").write_text("00000002_000.png\n")
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / name).touch()
    monkeypatch.chdir(tmp_path)
    exec(block_with("python", "nih.csv"), {})

    found = found_in(tmp_path, "nih.csv")
    assert found.ids == tuple(f"images/{name}" for name in names)
    assert found.classes == ("sick", "healthy", "healthy")
    assert found.patients == ("1", "1", "2")
    assert found.splits == ("train", "train", "test")


def test_the_code_for_rsna_writes_a_csv_that_fits_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = ["Normal", "Lung Opacity", "Lung Opacity", "No Lung Opacity / Not Normal"]
    pd.DataFrame({"patientId": ["a", "b", "b", "c"], "class": classes}).to_csv(
        tmp_path / "stage_2_detailed_class_info.csv", index=False
    )
    films = tmp_path / "stage_2_train_images"
    films.mkdir()
    for name in "abc":
        (films / f"{name}.dcm").touch()
    monkeypatch.chdir(tmp_path)
    exec(block_with("python", "rsna.csv"), {})

    found = found_in(tmp_path, "rsna.csv")
    assert found.ids == tuple(f"stage_2_train_images/{name}.dcm" for name in "abc")
