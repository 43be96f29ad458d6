"""One tiny trained run and small image folders that the tests of the verbs share."""

import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from xray_classifier.cli import main

SHARED_DATA = (Path(__file__).resolve().parents[1] / ".." / "shared" / "data").resolve()
TINY = (
    "data.phantoms.n_images=160",
    "data.image.size=16",
    "model.hidden=[16]",
    "train.epochs=3",
    "train.test_curve=sealed",
    "train.device=cpu",
    "train.threads=1",
    "data.workers=1",
)


_made: list[Path] = []


@dataclass(frozen=True)
class Said:
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on standard output."""
        return json.loads(self.out)


class Program:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: object) -> Said:
        """Run `xray-classifier WORDS`."""
        self.capsys.readouterr()
        code = main([str(word) for word in words])
        said = self.capsys.readouterr()
        return Said(code, said.out, said.err)


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Program:
    """The command line, in this process."""
    return Program(capsys)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on phantoms; tests do not change it, see `own_run`."""
    if not _made:  # each test file that imports this fixture has its own
        out = tmp_path_factory.mktemp("tiny")
        assert main(["train", "-c", "demo", "-q", "-o", str(out), "--name", "tiny", *TINY]) == 0
        _made.append(next(out.glob("*_tiny")))
    return _made[0]


@pytest.fixture
def own_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run that a test may change."""
    copy = tmp_path / "runs" / tiny_run.name
    shutil.copytree(tiny_run, copy)
    return copy


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figures of a judgement, which take most of its time."""
    monkeypatch.setattr(
        "xray_classifier.judgement_files.judgement_figures", lambda judgement, curves: {}
    )


def film(seed: int, side_px: int = 24) -> NDArray[np.uint8]:
    """A smooth grey picture (side_px, side_px), another one for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def save_film(path: Path, seed: int) -> Path:
    """Write a film as PNG; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film(seed)).save(path, format="PNG")
    return path


def class_folders(root: Path, counts: dict[str, int], first_seed: int = 0) -> Path:
    """Folders of films by relative name, every film another one."""
    seed = first_seed
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            save_film(root / name / f"film{number:03d}.png", seed)
            seed += 1
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    """A CSV file as dictionaries."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows_in(text: str) -> list[dict[str, str]]:
    """CSV text as dictionaries."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def metadata_of(checkpoint: Path) -> dict[str, Any]:
    """The JSON content of a checkpoint, read without the program: length, header, metadata."""
    raw = checkpoint.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    content = json.loads(header["__metadata__"]["xray"])
    assert isinstance(content, dict)
    return content


def metrics_apart_from_looks(folder: Path) -> dict[str, Any]:
    """metrics.json without the count of looks, which grows with every evaluation."""
    content = json.loads((folder / "metrics.json").read_bytes())
    content.pop("test_set", None)
    assert isinstance(content, dict)
    return content


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
