"""`explain`: one page and its pictures from any finished run."""

import json
import re
from pathlib import Path

import pytest
from tiny_runs import TINY, Program, own_run, program, save_film, snapshot, tiny_run

from xray_classifier.report.lesson_page import LessonContent, LessonPart, render_lesson
from xray_classifier.report.page import ReportFigure

__all__ = ["own_run", "program", "tiny_run"]

ALL = [
    "bowl", "landscape", "learning_rate", "gradient_flow", "overfitting", "neurons", "evidence",
    "map_scores",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller grids and shorter trainings: the numbers are tested elsewhere."""
    monkeypatch.setattr("xray_classifier.lesson.loss_parts.GRID", 3)
    monkeypatch.setattr("xray_classifier.lesson.bowl.BCE_STEPS", 200)
    monkeypatch.setattr("xray_classifier.lesson.rates.STEPS", 40)
    monkeypatch.setattr("xray_classifier.lesson.rates.SWEEP_STEPS", 60)
    monkeypatch.setattr("xray_classifier.lesson.parting.EPOCHS", 12)
    monkeypatch.setattr("xray_classifier.lesson.picture_parts.MOST_SCORED", 6)


def parts_of(page: str) -> list[str]:
    """Names of the parts on a page, in order."""
    return re.findall(r'<section class="part" aria-labelledby="(\w+)">', page)


def test_a_finished_run_is_explained_on_one_page(program: Program, own_run: Path) -> None:
    before = snapshot(own_run)
    said = program("explain", own_run, "--device", "cpu", "--json")
    assert said.code == 0, said.err
    found = said.json
    out = own_run / "explain"
    assert found["out"] == str(out)
    page = (out / "explain.html").read_text(encoding="utf-8")
    assert parts_of(page) == ALL
    assert {path.name for path in out.iterdir()} == set(found["files"])
    pictures = [name for name in found["files"] if name.endswith(".png")]
    assert len(pictures) == page.count("data:image/png;base64,") == 10
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    for part in page.split('<section class="part"')[1:]:
        assert "<dt>Source</dt>" in part
        assert "<dt>Formula</dt>" in part
        assert "<dt>Config key</dt>" in part
    assert "train.lesson=true" in page  # why there is no path, and how to get one
    numbers = json.loads((out / "explain.json").read_bytes())
    metrics = json.loads((own_run / "metrics.json").read_bytes())
    assert numbers["landscape"]["split"] == metrics["split"] == "val"
    assert max(numbers["evidence"]["gaps"]) < 0.01
    after = snapshot(own_run)
    assert {name: after[name] for name in before} == before


def test_it_is_the_same_twice_and_replaces_itself(program: Program, own_run: Path) -> None:
    assert program("explain", own_run, "--device", "cpu").code == 0
    first = snapshot(own_run / "explain")
    assert program("explain", own_run, "--device", "cpu").code == 0
    assert snapshot(own_run / "explain") == first


def test_own_films_take_the_place_of_those_of_the_run(
    program: Program, own_run: Path, tmp_path: Path
) -> None:
    films = [save_film(tmp_path / f"film{n}.png", n) for n in range(2)]
    said = program(
        "explain", own_run, "--images", *films, "-o", tmp_path / "out", "--device", "cpu"
    )
    assert said.code == 0, said.err
    numbers = json.loads((tmp_path / "out" / "explain.json").read_bytes())
    assert numbers["evidence"]["films"] == ["film0.png", "film1.png"]
    assert not (own_run / "explain").exists()


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["absent"], 2, "does not exist"),
        (["RUN", "--images", "absent.png"], 2, "no such file"),
        (["RUN", "--images", "text.png"], 3, "text.png"),
        (["."], 2, "is no run folder"),
        (["RUN", "train.epochs=3"], 2, "train.epochs cannot be set"),
    ],
)
def test_mistakes_are_said(
    words: list[str], code: int, hint: str, program: Program, tiny_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    said = program("explain", *(tiny_run if word == "RUN" else word for word in words))
    assert said.code == code
    assert hint in said.err
    assert not (tiny_run / "explain").exists()


def test_a_run_that_was_stopped_is_explained_as_such(program: Program, own_run: Path) -> None:
    path = own_run / "summary.json"
    summary = json.loads(path.read_bytes())
    path.write_text(json.dumps({**summary, "status": "interrupted"}))
    said = program("explain", own_run, "--device", "cpu", "--json")
    assert said.code == 0, said.err
    assert "is not finished" in said.json["warnings"][0]
    page = (own_run / "explain" / "explain.html").read_text(encoding="utf-8")
    assert "This run is not finished" in page
    assert "train --resume" in page


MORE = {
    "perceptron": ["model.type=perceptron", "-c", "perceptron"],
    "mixer": ["-c", "demo", "model.type=mixer", "model.hidden=[512,256]", "model.dropout=0.1",
              "model.mixer={patch_px: 4, channels: 8, blocks: 1, token_units: 8, "
              "channel_units: 8}"],
    "batch norm, no validation split": ["-c", "demo", "model.norm=batch", "data.split.val=null",
                                        "train.early_stopping=null"],
    "recorded": ["-c", "demo", "train.lesson=true", "train.ema=0.9"],
    "folds": ["-c", "demo", "train.folds=2"],
}  # fmt: skip


@pytest.mark.parametrize("kind", MORE)
def test_every_kind_of_run_is_explained(kind: str, program: Program, tmp_path: Path) -> None:
    small = [
        word for word in TINY if not word.startswith("model.") or kind in ("recorded", "folds")
    ]
    small += ["model.hidden=[16]"] if kind.startswith("batch") else []
    out = tmp_path / "runs"
    made = program("train", "-q", "-o", out, "--name", "it", *small, *MORE[kind])
    assert made.code == 0, made.err
    run = next(out.glob("*_it"))
    said = program("explain", run, "--device", "cpu", "--json")
    assert said.code == 0, said.err
    page = (run / "explain" / "explain.html").read_text(encoding="utf-8")
    missing = {"overfitting"} if kind.startswith("batch") else set()
    assert set(ALL) - set(parts_of(page)) <= missing | {"learning_rate"}
    assert ("This run trained several" in page or "The run trained several" in page) is (
        kind == "folds"
    )
    numbers = json.loads((run / "explain" / "explain.json").read_bytes())
    assert numbers["gradient_flow"]["recorded"] is (kind == "recorded")
    assert (numbers["landscape"]["path_explained"] is not None) is (kind == "recorded")


def test_a_regression_is_explained(program: Program, tmp_path: Path) -> None:
    rows = ["path,label"]
    for number in range(60):
        save_film(tmp_path / "films" / f"film{number:02d}.png", number)
        rows.append(f"film{number:02d}.png,{number % 7 + 0.5}")
    (tmp_path / "films" / "films.csv").write_text("\n".join(rows) + "\n")
    words = ["-c", "demo", "task=regress", "data.source=csv", "data.audit=off",
             f"data.path={tmp_path / 'films' / 'films.csv'}", "data.image.size=16",
             "model.hidden=[16]", "train.epochs=3", "train.device=cpu", "train.threads=1",
             "data.workers=1"]  # fmt: skip
    made = program("train", "-q", "-o", tmp_path / "runs", "--name", "age", *words)
    assert made.code == 0, made.err
    run = next((tmp_path / "runs").glob("*_age"))
    (tmp_path / "films").rename(tmp_path / "elsewhere")
    moved = program("explain", run, "--device", "cpu")
    assert moved.code == 2
    assert "data.path=PATH" in moved.err
    (tmp_path / "elsewhere").rename(tmp_path / "films")
    said = program("explain", run, "--device", "cpu", "--json")
    assert said.code == 0, said.err
    page = (run / "explain" / "explain.html").read_text(encoding="utf-8")
    assert "map_scores" not in parts_of(page)
    assert "Vermillion speaks for more" in page
    assert "for sick" not in page
    assert "evidence" in parts_of(page)


def test_a_page_escapes_what_it_is_told_and_refuses_half_a_part() -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\0\0\1" * 2
    figure = ReportFigure("<b>", png, "a picture")
    part = LessonPart("one", "<i>One</i>", ("<script>",), (figure,), "a < b\nc", "k", "s")
    page = render_lesson(LessonContent("T", ("v",), (part,)))
    assert "<i>One" not in page
    assert "&lt;script&gt;" in page
    assert "a &lt; b\nc" in page
    with pytest.raises(ValueError, match="one name"):
        render_lesson(LessonContent("T", ("v",), (part, part)))
    blind = LessonPart("two", "Two", figures=(ReportFigure("x", png, " "),))
    with pytest.raises(ValueError, match="alternative text"):
        render_lesson(LessonContent("T", ("v",), (blind,)))
