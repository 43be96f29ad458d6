"""The Python functions do what their verbs do."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_runs import (
    TINY,
    Program,
    class_folders,
    film,
    metrics_apart_from_looks,
    no_pictures,
    program,
    rows_of,
    tiny_run,
)

import xray_classifier
from xray_classifier import evaluate, load_classifier, predict, train
from xray_classifier.errors import ConfigError, OutputError, UsageError

__all__ = ["no_pictures", "program", "tiny_run"]


def test_what_is_promised_is_there() -> None:
    promised = {"train", "evaluate", "predict", "load_classifier"}
    assert promised <= set(xray_classifier.__all__) <= set(dir(xray_classifier))
    assert all(callable(getattr(xray_classifier, name)) for name in promised)
    with pytest.raises(AttributeError, match="no attribute 'tain'"):
        _ = xray_classifier.tain


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, xray_classifier; print({'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


@pytest.mark.usefixtures("no_pictures")
def test_training_gives_the_same_weights_as_the_verb(tiny_run: Path, tmp_path: Path) -> None:
    result = train("demo", *TINY, out=tmp_path, quiet=True)
    assert result.status == "finished"
    again = load_classifier(result.run_dir, "cpu").model.state_dict()
    first = load_classifier(tiny_run, "cpu").model.state_dict()
    assert all(bool((again[name] == first[name]).all()) for name in first)
    assert (Path(result.run_dir) / "predictions_val.csv").read_bytes() == (
        tiny_run / "predictions_val.csv"
    ).read_bytes()


@pytest.mark.usefixtures("no_pictures")
def test_evaluating_gives_what_the_verb_gives(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    result = evaluate(str(tiny_run), out=tmp_path / "a", threshold=0.3, quiet=True)
    program("evaluate", tiny_run, "-o", tmp_path / "b", "--threshold", "0.3")
    assert metrics_apart_from_looks(tmp_path / "a") == metrics_apart_from_looks(tmp_path / "b")
    tables = [(tmp_path / name / "predictions.csv").read_bytes() for name in "ab"]
    assert tables[0] == tables[1]
    assert (result.split, result.n, result.threshold) == ("test", 25, 0.3)


def test_predicting_gives_what_the_verb_gives(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    films = class_folders(tmp_path / "films", {"x": 3})
    result = predict(
        tiny_run, [str(films), films / "x" / "film000.png"], tmp_path / "a.csv", quiet=True
    )
    program("predict", tiny_run, films, films / "x" / "film000.png", "-o", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (result.n, result.ok) == (4, 4)
    assert len(rows_of(tmp_path / "a.csv")) == 4
    with pytest.raises(OutputError):
        predict(tiny_run, films, tmp_path / "a.csv", quiet=True)


def test_a_classifier_gives_the_rows_of_the_verb(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    films = class_folders(tmp_path / "films", {"x": 3})
    for name, content in {"text.png": b"text", "empty.jpg": b""}.items():
        (films / "x" / name).write_bytes(content)
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(films / "x" / "blank.png")
    program("predict", tiny_run, films, "-o", tmp_path / "a.csv")
    rows = rows_of(tmp_path / "a.csv")
    assert sorted({row["status"] for row in rows}) == ["failed", "ok", "rejected"]
    answers = load_classifier(tiny_run, "cpu").predict([row["path"] for row in rows])
    assert list(answers.columns) == list(rows[0])
    for given, row in zip(answers.itertuples(index=False, name=None), rows, strict=True):
        told = ["" if cell is None or cell != cell else cell for cell in given]
        assert [repr(c) if isinstance(c, float) else str(c) for c in told] == list(row.values())


def test_arrays_of_any_depth_are_answered_alike(tiny_run: Path) -> None:
    classifier = load_classifier(tiny_run, "cpu")
    grey = film(5)
    given: list[str | Path | NDArray[Any]] = [
        grey,
        grey.astype(np.uint16) * 257,
        grey.astype(np.float32) / 255,
    ]
    answers = classifier.predict(given)
    assert answers["status"].tolist() == ["ok"] * 3
    assert float(answers["p_sick"].max() - answers["p_sick"].min()) <= 2e-3


def test_mistakes_are_raised_and_say_their_exit_code(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train("demo", "train.epoch=1", out=tmp_path, quiet=True)
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError):
        evaluate(tmp_path / "absent", quiet=True)
    with pytest.raises(UsageError):
        load_classifier(tmp_path / "absent")


def test_quiet_prints_nothing(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = class_folders(tmp_path / "films", {"x": 1})
    predict(tiny_run, films, tmp_path / "a.csv", quiet=True)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
