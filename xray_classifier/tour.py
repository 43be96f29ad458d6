"""`tour`: the whole lesson in one command, on phantoms, ending in one page."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_classifier.config_file import load_config, shipped_configs
from xray_classifier.config_text import dump_config
from xray_classifier.errors import InterruptedRun, OutputError, UsageError
from xray_classifier.evaluation import EvaluationResult, run_evaluation
from xray_classifier.files import make_folder, printable, write_json, write_text
from xray_classifier.lesson.by_hand_chapters import (
    backprop_chapter,
    perceptron_chapter,
    perceptron_step,
    stack_step,
)
from xray_classifier.lesson.descent_chapters import batches_lecture, rates_lecture
from xray_classifier.lesson.experiment import Laboratory
from xray_classifier.lesson.final_chapter import final_chapter
from xray_classifier.lesson.first_chapters import images_lecture, learning_lecture
from xray_classifier.lesson.lecture import Lecture
from xray_classifier.lesson.picture_chapters import (
    bowl_lecture,
    landscape_lecture,
    neurons_lecture,
)
from xray_classifier.lesson.stack_chapters import (
    dropout_lecture,
    stack_lecture,
    stopping_lecture,
)
from xray_classifier.report.tour_page import Chapter, TourContent, render_tour
from xray_classifier.run_folder import environment, fresh_folder, time_stamp
from xray_classifier.terminal import Terminal, command, seconds_in_words
from xray_classifier.training import TrainingResult, run_training

CONFIG = "tour"
"""The shipped config that each chapter starts from."""

PAGE, NUMBERS, RUNS = "tour.html", "tour.json", "runs"
NO_RUNS = ("index.csv", "latest")
OWN_FILES = (PAGE, NUMBERS, RUNS)
"""What a tour writes into its folder; all that --force replaces."""

FINAL = ("model.hidden=[128, 64]", "model.dropout=0.1")
"""What the run of the last chapter changes."""

LONGER = 4
"""How many times the epochs of the config the last run may take."""


@dataclass(frozen=True)
class TourResult:
    """What a tour comes to; `--json` prints it."""

    page: str
    numbers: str
    run_dir: str
    chapters: tuple[str, ...]
    elapsed_s: float


def run_tour(
    terminal: Terminal,
    *,
    out: Path | None = None,
    seed: int = 0,
    force: bool = False,
    overrides: Sequence[str] = (),
) -> TourResult:
    """Train what the lesson needs, and write the page that explains it.

    Args:
        terminal: What the user reads: a line for each chapter.
        out: New or empty folder; None makes one under `tours`.
        seed: Of the films, the weights and the order of the images.
        force: Replace the files of an earlier tour in `out`.
        overrides: Laid over the config `tour`, such as data.phantoms.n_images=400.

    Raises:
        OutputError: The folder holds something already.
        UsageError: The overrides take away the phantoms, or the test split.
    """
    began_s = time.monotonic()
    common = (*overrides, f"seed={seed}", f"data.phantoms.seed={seed}")
    _refuse_other_images(common)
    folder = _folder(out, force)
    laboratory = Laboratory(CONFIG, common, Terminal(quiet=True))
    with _whole_or_not_at_all(folder):
        lectures = _lectures(laboratory, terminal, seed, folder, common)
    numbers = {lecture.chapter.name: lecture.numbers for lecture in lectures}
    elapsed_s = round(time.monotonic() - began_s, 1)
    again = command("tour", "--seed", str(seed), *overrides)
    content = _content([lecture.chapter for lecture in lectures], laboratory, again, elapsed_s)
    write_text(folder / PAGE, render_tour(content))
    write_json(folder / NUMBERS, {"seed": seed, "overrides": list(overrides), "chapters": numbers})
    run_dir = _end_of(lectures)
    terminal.say(f"the tour took {seconds_in_words(elapsed_s)}; open {printable(folder / PAGE)}")
    terminal.say(f"Next: {command('explain', Path(run_dir))}")
    return TourResult(
        page=str(folder / PAGE),
        numbers=str(folder / NUMBERS),
        run_dir=run_dir,
        chapters=tuple(numbers),
        elapsed_s=elapsed_s,
    )


@contextmanager
def _whole_or_not_at_all(folder: Path) -> Iterator[None]:
    """Take the run away where the tour does not come to its end; it would bar the next one."""
    ended = False
    try:
        yield
        ended = True
    except InterruptedRun as error:  # its words tell how to resume the run, which is no tour
        raise type(error)(
            "interrupted in the last chapter; nothing half-done is left: run the same command again"
        ) from error
    finally:
        if not ended:
            _remove_run_of_tour(folder)


def _remove_run_of_tour(folder: Path) -> None:
    """Remove what a tour trained last; runs of the user's own that stand beside it stay."""
    runs = folder / RUNS
    for run in runs.glob(f"*_{CONFIG}*"):
        shutil.rmtree(run, ignore_errors=True)
    if all(entry.name in NO_RUNS for entry in (runs.iterdir() if runs.is_dir() else ())):
        shutil.rmtree(runs, ignore_errors=True)


def _end_of(lectures: Sequence[Lecture]) -> str:
    """The folder of the run that the tour leaves behind."""
    return str(lectures[-1].numbers["run_dir"])


def _refuse_other_images(overrides: Sequence[str]) -> None:
    config = load_config(CONFIG, overrides).config
    if config.data.source != "phantoms":
        raise UsageError(
            "tour teaches on phantoms, whose truth is known; for your own images train a run and "
            "see `xray-classifier explain RUN`"
        )
    if config.data.split.val is None or config.data.split.test is None:
        raise UsageError("tour needs a validation and a test split; leave data.split as it is")


def _folder(out: Path | None, force: bool) -> Path:
    """Where the tour goes; what stands there is never mixed with it."""
    if out is None:
        return fresh_folder(Path("tours"), time_stamp())
    if out.exists() and not out.is_dir():
        raise OutputError(f"{printable(out)} is a file; name a folder with -o")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise OutputError(
                f"{printable(out)} holds something already; name another folder with -o, or add "
                "--force to replace an earlier tour there"
            )
        if not (out / PAGE).is_file():
            raise OutputError(
                f"{printable(out)} holds no {PAGE}, and --force replaces only a tour; "
                "name another folder with -o"
            )
        _remove_run_of_tour(out)
    make_folder(out)
    return out


def _lectures(
    laboratory: Laboratory, terminal: Terminal, seed: int, folder: Path, common: Sequence[str]
) -> list[Lecture]:
    """The chapters, in the order of an introduction to deep learning."""
    perceptron, stack = perceptron_step(seed), stack_step(seed)
    told = _Teller(terminal)
    told("the images", lambda: images_lecture(laboratory))
    told("a perceptron by hand", lambda: _plain(perceptron_chapter(perceptron), perceptron.loss))
    told("gradient descent", lambda: learning_lecture(laboratory))
    told("two weights and their bowl", lambda: bowl_lecture(laboratory))
    told("learning rates", lambda: rates_lecture(laboratory))
    told("mini-batches", lambda: batches_lecture(laboratory))
    told("backpropagation by hand", lambda: _plain(backprop_chapter(perceptron, stack), stack.loss))
    with told.telling("stacking"):
        chapter, lone, layers = stack_lecture(laboratory)
        told.lectures.append(chapter)
    told("the loss landscape", lambda: landscape_lecture(layers))
    told("what a neuron looks for", lambda: neurons_lecture(laboratory, lone, layers))
    with told.telling("dropout"):
        dropout, without = dropout_lecture(laboratory)
        told.lectures.append(dropout)
    told("early stopping", lambda: stopping_lecture(laboratory, without))
    told("the honest end", lambda: final_lecture(folder, common))
    return told.lectures


def _plain(chapter: Chapter, loss: float) -> Lecture:
    return Lecture(chapter, {"loss": loss})


class _Teller:
    """Says a line for each chapter, with the time it took."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.lectures: list[Lecture] = []

    def __call__(self, title: str, make: Callable[[], Lecture]) -> None:
        with self.telling(title):
            self.lectures.append(make())

    @contextmanager
    def telling(self, title: str) -> Iterator[None]:
        """Number, title and seconds of one chapter."""
        began_s = time.monotonic()
        yield
        took = seconds_in_words(time.monotonic() - began_s)
        self.terminal.say(f"  {len(self.lectures):>2}  {title:<28} {took:>6}")


def _breaking() -> str:
    """The configs that break training on purpose, each with the first line of its header."""
    lines = []
    for name, path in shipped_configs().items():
        if name.startswith("break/"):
            first = path.read_text(encoding="utf-8").splitlines()[0]
            lines += [f"{command('train', '-c', name)}", first, ""]
    return "\n".join(lines)


def final_lecture(folder: Path, common: Sequence[str]) -> Lecture:
    """A real run with all that was learnt, judged once on the test split."""
    epochs = LONGER * load_config(CONFIG, common).config.train.epochs
    loaded = load_config(CONFIG, [*common, *FINAL, f"train.epochs={epochs}"])
    quiet = Terminal(quiet=True)
    trained = run_training(loaded, quiet, folder / RUNS)
    judged = run_evaluation(Path(trained.checkpoint), quiet, split="test")
    chapter = final_chapter(
        Path(trained.run_dir),
        folder,
        trained.best_epoch,
        judged.threshold,
        trained.metrics,
        judged.metrics,
        Path(judged.out) / "roc.png",
    )
    return Lecture(chapter, _final_numbers(trained, judged))


def _final_numbers(trained: TrainingResult, judged: EvaluationResult) -> dict[str, Any]:
    return {
        "run_dir": trained.run_dir,
        "stop_reason": trained.stop_reason,
        "best_epoch": trained.best_epoch,
        "threshold": judged.threshold,
        "val": dict(trained.metrics),
        "test": dict(judged.metrics),
    }


def _content(
    chapters: Sequence[Chapter], laboratory: Laboratory, again: str, elapsed_s: float
) -> TourContent:
    config = laboratory.configured()
    where = environment("cpu", config.train.threads or 0)
    return TourContent(
        title="A tour of deep learning, on X-rays",
        verdict=(
            "From a single perceptron to a stack that tells sick films from healthy ones, in "
            f"{len(chapters)} steps. Nothing on this page is an illustration: every curve and "
            f"every number was computed when the page was made, in {elapsed_s:.0f} seconds, by the "
            "same program that trains real models.",
        ),
        chapters=tuple(chapters),
        details=(
            ("The config that every chapter starts from", dump_config(config)),
            ("Where this was computed", "\n".join(f"{k}: {v}" for k, v in where.items())),
            ("The same again", again),
            ("Now break it", _breaking()),
        ),
    )
