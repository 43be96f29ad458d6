"""The tour: one small run through the command line, its page read, its numbers made anew."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from tiny_runs import Program, Said, no_pictures, program, rows_of

from xray_classifier.cli import main
from xray_classifier.errors import InterruptedRun
from xray_classifier.lesson.experiment import Laboratory
from xray_classifier.lesson.stack_chapters import by_heart_words
from xray_classifier.report.mathml import formula, fraction, inline, sub, words
from xray_classifier.terminal import Terminal

__all__ = ["no_pictures", "program"]

SMALL = (
    "data.phantoms.n_images=240",
    "data.image.size=16",
    "train.epochs=4",
    "train.device=cpu",
    "train.threads=1",
    "data.workers=1",
)
CHAPTERS = [
    "images",
    "perceptron-by-hand",
    "gradient-descent",
    "bowl",
    "learning-rate",
    "mini-batches",
    "backpropagation-by-hand",
    "stack",
    "landscape",
    "neurons",
    "dropout",
    "early-stopping",
    "the-end",
]
"""In the order in which an introduction teaches them."""

_made: list[Path] = []


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small tour; tests do not change it."""
    if not _made:
        out = tmp_path_factory.mktemp("tours") / "tour"
        assert main(["tour", "-o", str(out), "--seed", "1", "-q", *SMALL]) == 0
        _made.append(out)
    return _made[0]


@pytest.fixture
def page(tour: Path) -> str:
    """The text of the page."""
    return (tour / "tour.html").read_text(encoding="utf-8")


@pytest.fixture
def numbers(tour: Path) -> dict[str, Any]:
    """The numbers behind the page, by chapter."""
    found = json.loads((tour / "tour.json").read_bytes())["chapters"]
    assert isinstance(found, dict)
    return found


class Reader(HTMLParser):
    """Text by chapter, addresses, tags and tables of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text: dict[str, str] = {}
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.alts: list[str] = []
        self.table_rows: dict[str, list[list[str]]] = {}
        self._chapter = "head"
        self._row: list[str] | None = None
        self._cell: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.addresses += [
            value or "" for key, value in attrs if key in ("src", "href", "action", "srcset")
        ]
        if tag == "img":
            self.alts.append(named.get("alt") or "")
        if tag == "h2":
            self._chapter = named.get("id") or "?"
        if tag == "tr":
            self._row = []
        if tag in ("td", "th") and self._row is not None:
            self._cell = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._row is not None and self._cell is not None:
            self._row.append(" ".join(self._cell.split()))
            self._cell = None
        if tag == "tr" and self._row is not None:
            self.table_rows.setdefault(self._chapter, []).append(self._row)
            self._row = None

    def handle_data(self, data: str) -> None:
        self.text[self._chapter] = self.text.get(self._chapter, "") + data
        if self._cell is not None:
            self._cell += data


@pytest.fixture
def read(page: str) -> Reader:
    """The page, parsed."""
    reader = Reader()
    reader.feed(page)
    return reader


def test_the_chapters_stand_in_the_order_of_an_introduction(page: str) -> None:
    assert re.findall(r'<h2 id="([a-z-]+)">\d+\.', page) == CHAPTERS
    for name in CHAPTERS:
        assert f'href="#{name}"' in page


def test_the_page_holds_all_that_it_shows_and_asks_for_nothing(page: str, read: Reader) -> None:
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in read.addresses)
    assert "script" not in read.tags
    assert "default-src 'none'" in page
    assert "http" not in re.sub(r'data:image/png;base64,[^"]+|http-equiv', "", page)
    assert all(alt.strip() for alt in read.alts)
    assert page.count("<math") >= len(CHAPTERS)


def test_each_chapter_names_its_formula_its_key_and_its_source(page: str) -> None:
    parts = page.split('<section class="chapter"')[1:]
    assert len(parts) == len(CHAPTERS)
    for part in parts:
        assert "<math" in part
        assert "In the config" in part
        assert "Read more" in part
    assert page.count("doi:10.") >= 8


def test_where_the_introduction_simplifies_is_said(read: Reader) -> None:
    said = {name: text for name, text in read.text.items() if "introduction simplifies" in text}
    assert "logistic regression" in said["perceptron-by-hand"]
    assert "Mostly it is slow" in said["learning-rate"]
    assert "watch the test set to stop" in said["early-stopping"]


def test_every_key_on_the_page_is_one_of_the_config(page: str) -> None:
    from xray_classifier.config_keys import all_keys

    known = {key.dotted for key in all_keys()}
    shown = re.findall(r"<code>([a-z_.]+)", page)
    assert len(shown) > 15
    assert set(shown) <= known


def test_the_numbers_in_the_words_are_those_of_the_runs(
    read: Reader, numbers: dict[str, Any]
) -> None:
    stack = numbers["stack"]
    for name in ("perceptron", "stack"):
        assert f"{stack[name]['history'][-1]['val_auroc']:.3f}" in read.text["stack"]
    rates = numbers["learning-rate"]
    for word in ("too small", "about right", "adaptive"):
        assert f"{rates[word]['history'][-1]['train_loss']:.3f}" in read.text["learning-rate"]
    assert f"{rates['longer']['history'][-1]['train_loss']:.3f}" in read.text["learning-rate"]
    parting = numbers["dropout"]
    for name in ("without", "dropout"):
        end = parting[name]["history"][-1]
        assert f"{end['train_loss']:.3f}" in read.text["dropout"]
        assert f"{end['val_loss']:.3f}" in read.text["dropout"]


def test_a_run_of_the_tour_is_that_of_the_program(numbers: dict[str, Any], tmp_path: Path) -> None:
    overrides = [*SMALL, "seed=1", "data.phantoms.seed=1", "train.early_stopping=null"]
    words = ["train", "-c", "tour", "-q", "-o", str(tmp_path), *overrides]
    assert main([*words, "model={type: perceptron}"]) == 0
    [run] = tmp_path.glob("*_tour")
    history = rows_of(run / "history.csv")
    ours = numbers["gradient-descent"]["history"]
    for name in ("train_loss", "val_loss", "val_auroc"):
        assert [row[name] for row in ours] == [float(row[name]) for row in history]


def test_loss_and_auroc_are_those_of_scikit_learn() -> None:
    import torch

    laboratory = Laboratory("tour", (*SMALL, "seed=2"), Terminal(quiet=True))
    found = laboratory.train("train.early_stopping=null")
    images = laboratory.radiographs(found.config)
    for split, losses in (("val", found.column("val_loss")), ("test", found.test_loss)):
        rows = images.rows(split)
        with torch.no_grad():
            films = found.trainer.standardize(torch.from_numpy(np.asarray(images.images[rows])))
            p = torch.sigmoid(found.trainer.model.eval()(films)).double().numpy()
        truth = images.manifest.targets[rows]
        assert losses[-1] == pytest.approx(log_loss(truth, p), abs=1e-6)
        if split == "val":
            assert found.rows[-1]["val_auroc"] == pytest.approx(roc_auc_score(truth, p))


def test_the_split_table_counts_what_the_run_used(read: Reader, tour: Path) -> None:
    [run] = (tour / "runs").glob("*_tour")
    rows = rows_of(run / "data" / "manifest.csv")
    table = {row[0]: row[1:3] for row in read.table_rows["images"]}
    for split in ("train", "val", "test"):
        labels = [row["label"] for row in rows if row["split"] == split]
        counted = [labels.count("healthy"), labels.count("sick")]
        assert table[split] == [str(count) for count in counted]


def test_the_last_chapter_tells_what_evaluate_found(
    read: Reader, numbers: dict[str, Any], tour: Path
) -> None:
    [found] = (tour / "runs").glob("*_tour/eval/*/metrics.json")
    auroc = json.loads(found.read_bytes())["metrics"]["auroc"]
    assert numbers["the-end"]["test"]["auroc"] == auroc
    assert f"{auroc['value']:.3f}" in read.text["the-end"]


def test_both_columns_of_the_chain_rule_are_equal(read: Reader) -> None:
    rows = [
        row
        for row in read.table_rows["backpropagation-by-hand"]
        if len(row) == 3 and re.fullmatch(r"-?\d\.\d{9}", row[1])
    ]
    assert len(rows) >= 17 + 55
    assert all(row[1] == row[2] for row in rows)


def test_early_stopping_is_the_beginning_of_the_longer_run(numbers: dict[str, Any]) -> None:
    short, long = numbers["early-stopping"], numbers["dropout"]["without"]
    for row, other in zip(short["history"], long["history"], strict=False):
        assert row["val_loss"] == other["val_loss"]
    losses = [row["val_loss"] for row in short["history"]]
    assert short["best_epoch"] == int(np.argmin(losses)) + 1
    assert short["lowest_test_loss"] == min(long["test_loss"])


def test_it_says_a_line_a_chapter_and_where_the_page_is(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch, tour: Path
) -> None:
    monkeypatch.setattr("xray_classifier.tour._lectures", lambda *args: [])
    monkeypatch.setattr("xray_classifier.tour._end_of", lambda lectures: "run")
    said = program("tour", "-o", tmp_path / "t", *SMALL)
    assert said.code == 0
    assert str(tmp_path / "t" / "tour.html") in said.out
    said = program("tour", "-o", tmp_path / "t", *SMALL)
    refused(said, "--force")
    runs = tmp_path / "t" / "runs"
    for name in ("20260101-000000_mine", "20260101-000000_tour"):
        (runs / name).mkdir(parents=True)
    assert program("tour", "-o", tmp_path / "t", "--force", "--json", *SMALL).json["page"]
    assert [run.name for run in runs.iterdir()] == ["20260101-000000_mine"]  # the user's own
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    refused(program("tour", "-o", tmp_path / "other", "--force", *SMALL), "replaces only a tour")
    assert (tmp_path / "other" / "mine.txt").read_text() == "keep"
    refused(program("tour", "-o", tmp_path / "other" / "mine.txt", *SMALL), "is a file")


def test_a_tour_that_is_stopped_in_the_last_chapter_bars_no_other(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(
        laboratory: object, terminal: object, seed: int, folder: Path, *rest: object
    ) -> Any:
        (folder / "runs" / "20260101-000000_tour").mkdir(parents=True)
        raise InterruptedRun("stopped; go on with train --resume half")

    with monkeypatch.context() as patched:
        patched.setattr("xray_classifier.tour._lectures", stopped)
        said = program("tour", "-o", tmp_path / "t", *SMALL)
    assert said.code == 130
    assert "run the same command again" in said.err
    assert "--resume" not in said.err
    monkeypatch.setattr("xray_classifier.tour._lectures", lambda *args: [])
    monkeypatch.setattr("xray_classifier.tour._end_of", lambda lectures: "run")
    assert program("tour", "-o", tmp_path / "t", *SMALL).code == 0


def test_the_page_says_how_to_make_the_same_again(page: str) -> None:
    assert f"xray-classifier tour --seed 1 {' '.join(SMALL)}" in page


def test_overfitting_is_claimed_only_where_the_losses_have_parted() -> None:
    assert "the two curves part. That is overfitting" in by_heart_words(0.010, 1.108)
    short = by_heart_words(0.781, 0.907)
    assert "too short" in short
    assert "That is overfitting" not in short


def refused(said: Said, words: str) -> None:
    """An error about the output folder."""
    assert said.code == 6
    assert words in said.err


def test_it_teaches_on_phantoms_alone(tmp_path: Path, program: Program) -> None:
    said = program("tour", "-o", tmp_path / "t", "data.source=folder", f"data.path={tmp_path}")
    assert said.code == 2
    assert "xray-classifier explain RUN" in said.err
    assert program("tour", "-o", tmp_path / "t", "data.split.test=null").code == 2
    assert program("tour", "--seed", "-1").code == 2
    assert not (tmp_path / "t").exists()


def same_again() -> Laboratory:
    """What the tour of these tests trained with."""
    return Laboratory("tour", (*SMALL, "seed=1", "data.phantoms.seed=1"), Terminal(quiet=True))


def test_the_lowest_point_of_the_bowl_is_that_of_least_squares(
    read: Reader, numbers: dict[str, Any]
) -> None:
    laboratory = Laboratory(
        "tour", (*SMALL, "seed=1", "data.phantoms.seed=1"), Terminal(quiet=True)
    )
    images = laboratory.radiographs(laboratory.configured())
    rows = images.rows("train")
    side = 16 // 4
    cells = [
        images.images[rows][:, r * side : (r + 1) * side, c * side : (c + 1) * side].mean((1, 2))
        for r, c in numbers["bowl"]["cells"]
    ]
    x = np.stack([(cell - cell.mean()) / cell.std() for cell in cells], axis=1)
    y = images.manifest.targets[rows] - images.manifest.targets[rows].mean()
    solved, squares, _, values = np.linalg.lstsq(x, y, rcond=None)
    assert numbers["bowl"]["minimum"] == pytest.approx(solved.tolist(), rel=1e-6)
    assert numbers["bowl"]["lowest"] == pytest.approx(squares[0] / len(y), rel=1e-6)
    assert numbers["bowl"]["largest_rate"] == pytest.approx(len(y) / values[0] ** 2, rel=1e-6)
    assert f"{numbers['bowl']['largest_rate']:.3f}" in read.text["bowl"]


def test_the_centre_of_the_landscape_is_the_loss_of_the_stack(
    read: Reader, numbers: dict[str, Any]
) -> None:
    end = numbers["stack"]["stack"]["history"][-1]
    for kind in ("random", "path"):
        assert numbers["landscape"][kind]["val"]["centre"] == pytest.approx(end["val_loss"])
    walked = numbers["landscape"]["path"]["val"]["path_loss"]
    history = [row["val_loss"] for row in numbers["stack"]["stack"]["history"]]
    assert walked[1:] == pytest.approx(history)
    assert f"{numbers['landscape']['random']['train']['centre']:.3f}" in read.text["landscape"]


def test_the_films_of_a_neuron_are_those_with_the_largest_sums(numbers: dict[str, Any]) -> None:
    laboratory = Laboratory(
        "tour", (*SMALL, "seed=1", "data.phantoms.seed=1"), Terminal(quiet=True)
    )
    found = laboratory.train("model={type: perceptron}", "train.early_stopping=null")
    images = laboratory.radiographs(found.config)
    rows = images.rows("val")
    weight, bias = (p.detach().double().numpy() for p in found.trainer.model.parameters())
    standardize = found.trainer.standardize
    pixels = images.images[rows].reshape(len(rows), -1) / 255.0
    sums = (pixels - standardize.mean) / standardize.std @ weight[0] + bias[0]
    [shown] = numbers["neurons"]["perceptron"]
    best = np.argsort(-sums)[: len(shown["rows"])]
    assert shown["rows"] == rows[best].tolist()
    assert shown["sums"] == pytest.approx(sums[best].tolist(), abs=1e-4)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_on_a_phone_in_both_themes_and_fetches_nothing(
    tour: Path, scheme: Literal["light", "dark"]
) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    address = (tour / "tour.html").as_uri()
    fetched: list[str] = []
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
        page.on("request", lambda request: fetched.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(address)
        wide = page.evaluate("document.documentElement.scrollWidth")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        heights = page.evaluate(
            "[...document.querySelectorAll('.formula math')]"
            ".map(m => m.getBoundingClientRect().height)"
        )
        browser.close()
    assert {url for url in fetched if not url.startswith("data:image/png")} == {address}
    assert complaints == []
    assert wide == 390
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert len(heights) >= len(CHAPTERS)
    assert min(heights) > 10  # drawn, in pixels


def test_formulas_are_markup_whose_texts_are_escaped() -> None:
    found = formula(sub("w", "i"), "<-", fraction("1", "2"), words("a < b"))
    assert str(found) == (
        '<math display="block"><mrow><msub><mrow><mi>w</mi></mrow><mrow><mi>i</mi></mrow></msub>'
        "<mo>\u2190</mo><mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>"
        "<mtext>a\u00a0&lt;\u00a0b</mtext></mrow></math>"
    )
    assert "<script>" not in inline("<script>")
