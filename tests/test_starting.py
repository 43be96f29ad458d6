"""`init`: a config for data that were looked at, with nothing guessed that could flip an answer."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_runs import Program, class_folders, program

__all__ = ["program"]


def data_in(config: Path) -> dict[str, object]:
    """The data section of a YAML file."""
    section = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
    assert isinstance(section, dict)
    return section


@pytest.mark.parametrize(
    ("names", "healthy"),
    [
        (["NORMAL", "PNEUMONIA"], "NORMAL"),
        (["A_sick", "normal"], "normal"),
        (["0_normal", "1_abnormal"], "0_normal"),
        (["0", "1"], "0"),
        (["Healthy", "TB"], "Healthy"),
        (["No Finding", "Effusion"], "No Finding"),
    ],
)
def test_the_healthy_class_is_told_by_its_name(
    names: list[str], healthy: str, program: Program, tmp_path: Path
) -> None:
    class_folders(tmp_path / "films", dict.fromkeys(names, 2))
    said = program("init", tmp_path / "a.yaml", "--data", tmp_path / "films", "--json")
    assert said.code == 0, said.err
    [sick] = [name for name in names if name != healthy]
    expected = {"healthy": [healthy], "sick": [sick]}
    assert said.json["data"]["labels"] == expected
    labels = data_in(tmp_path / "a.yaml")["labels"]
    assert isinstance(labels, dict)
    assert {k: [str(n) for n in labels[k]] for k in ("healthy", "sick")} == expected


def test_the_config_trains_as_it_stands(program: Program, tmp_path: Path) -> None:
    class_folders(tmp_path / "films", {"NORMAL": 20, "PNEUMONIA": 20})
    config = tmp_path / "new" / "folder" / "mine.yaml"
    said = program("init", config, "--data", tmp_path / "films")
    assert said.code == 0
    assert "40 images" in said.out
    assert f"Next: xray-classifier train -c {config} --dry-run" in said.out
    assert program("config", "validate", config).code == 0
    dry = program(
        "train", "-c", config, "--dry-run", "data.image.size=8", "model.hidden=[4]",
        f"data.cache={tmp_path / 'cache'}",
    )  # fmt: skip
    assert dry.code == 0, dry.err


def test_every_key_is_in_the_config_with_its_meaning(program: Program, tmp_path: Path) -> None:
    program("init", tmp_path / "a.yaml")
    text = (tmp_path / "a.yaml").read_text(encoding="utf-8")
    assert "source: phantoms" in text
    for key in ("patience:", "threshold:", "dropout:", "hidden:", "lr:"):
        assert key in text
    assert text.count("#") > 50


def test_an_existing_config_is_kept_unless_forced(program: Program, tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("mine")
    said = program("init", config)
    assert said.code == 6
    assert "--force" in said.err
    assert config.read_text() == "mine"
    assert program("init", config, "--force").code == 0
    assert config.read_text() != "mine"


@pytest.mark.parametrize(
    "names", [["A", "B"], ["1", "2"], ["sick", "very sick"], ["abnormal", "x"]]
)
def test_which_class_is_sick_is_never_guessed_from_order(
    names: list[str], program: Program, tmp_path: Path
) -> None:
    class_folders(tmp_path / "films", dict.fromkeys(names, 2))
    said = program("init", tmp_path / "a.yaml", "--data", tmp_path / "films")
    assert said.code == 2
    assert "--healthy NAME" in said.err
    assert all(name in said.err for name in names)
    assert not (tmp_path / "a.yaml").exists()
    words = ["--healthy", names[1], "--sick", names[0]]
    said = program("init", tmp_path / "a.yaml", "--data", tmp_path / "films", *words, "--json")
    assert said.code == 0
    assert said.json["data"]["labels"] == {"healthy": [names[1]], "sick": [names[0]]}


def test_a_class_that_is_neither_is_ignored_only_when_both_are_named(
    program: Program, tmp_path: Path
) -> None:
    class_folders(tmp_path / "films", {"normal": 2, "tb": 2, "unsure": 2})
    words = ["init", tmp_path / "a.yaml", "--data", tmp_path / "films"]
    said = program(*words, "--sick", "tb", "--json")
    assert said.json["data"]["labels"] == {
        "healthy": ["normal"], "sick": ["tb"], "ignore": ["unsure"],
    }  # fmt: skip
    wrong = program(*words, "--force", "--sick", "tuberculosis")
    assert wrong.code == 2
    assert "tb (2)" in wrong.err


def test_an_npz_and_a_csv_are_looked_at(program: Program, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    labels = np.array([[0], [1], [0], [1]])
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels)
    said = program("init", tmp_path / "npz.yaml", "--data", tmp_path / "a.npz", "--json")
    assert said.json["data"]["source"] == "npz"
    class_folders(tmp_path / "films", {"x": 2})
    (tmp_path / "films.csv").write_text(
        "filename,diagnosis,subject\nfilms/x/film000.png,normal,p1\nfilms/x/film001.png,tb,p2\n"
    )
    said = program("init", tmp_path / "csv.yaml", "--data", tmp_path / "films.csv", "--json")
    assert said.json["data"]["labels"] == {"healthy": ["normal"], "sick": ["tb"]}
    assert said.json["data"]["columns"]["path"] == "filename"


@pytest.mark.parametrize("name", ["l" * 300, "taken/a.yaml"])
def test_a_config_that_cannot_be_written_is_code_6(
    name: str, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    assert program("init", tmp_path / name).code == 6
