"""`explain`: what a course on deep learning draws on the blackboard, drawn from a finished run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xray_classifier.files import make_folder, printable, write_bytes, write_json, write_text
from xray_classifier.lesson.loss_parts import bowl_part, landscape_part
from xray_classifier.lesson.picture_parts import (
    evidence_part,
    films_of_files,
    films_of_run,
    map_score_part,
    neuron_part,
)
from xray_classifier.lesson.recording import read_snapshots
from xray_classifier.lesson.subject import Subject, run_subject
from xray_classifier.lesson.training_parts import flow_part, parting_part, rates_part
from xray_classifier.members import is_finished
from xray_classifier.report.lesson_page import LessonContent, LessonPart, render_lesson
from xray_classifier.terminal import Terminal, command

PAGE, NUMBERS = "explain.html", "explain.json"


@dataclass(frozen=True)
class ExplainResult:
    """What `explain` comes to; `--json` prints it.

    Attributes:
        out: Folder with everything written.
        page: The page.
        files: Names of all files in the folder that were written, in order.
        warnings: What is unhealthy in the run, in words.
    """

    out: str
    page: str
    files: tuple[str, ...]
    warnings: tuple[str, ...]


def run_explain(
    path: Path,
    terminal: Terminal,
    *,
    out: Path | None = None,
    images: Sequence[Path] = (),
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> ExplainResult:
    """Draw the lesson of a run, as PNG files, their numbers and one page.

    Args:
        path: A run folder, or a checkpoint inside one; of several models the first is drawn.
        terminal: What the user reads.
        out: Folder to write into; None: `explain` in the run. Files of an earlier call there are
            replaced.
        images: The user's own films to explain; none: films of the held-out split.
        device: Where to compute.
        overrides: `data.path=...` where the run's own data moved.

    Raises:
        UsageError: There is no such run or file.
        DataError: The images changed since training, or a file cannot be read.
        CheckpointError: The checkpoint is damaged or foreign.
        OutputError: The folder cannot be written.
    """
    subject = run_subject(path, terminal, device, overrides)
    unfinished = _unfinished_words(subject)
    chosen = films_of_files(subject.classifier, images) if images else None
    folder = out or (path if path.is_dir() else subject.run_dir) / "explain"
    make_folder(folder)
    parts = []
    for name, draw in _lessons(subject):
        terminal.say(f"drawing {name}")
        parts += [part for part in [draw()] if part is not None]
    shown = films_of_run(subject) if chosen is None else chosen
    parts.insert(_place_of_evidence(parts), evidence_part(subject, shown))
    return _written(folder, subject, parts, unfinished, terminal)


def _lessons(subject: Subject) -> Iterator[tuple[str, Callable[[], LessonPart | None]]]:
    """What can be drawn, in the order of the page, by the words said meanwhile."""
    snapshots = read_snapshots(subject.run_dir, subject.classifier.model)
    yield "gradient descent with two weights", lambda: bowl_part(subject)
    yield "the loss landscape", lambda: landscape_part(subject, snapshots)
    yield "learning rates", lambda: rates_part(subject)
    yield "gradient flow", lambda: flow_part(subject)
    yield "overfitting", lambda: parting_part(subject)
    yield "what neurons look for", lambda: neuron_part(subject)
    yield "which pixels decided", lambda: map_score_part(subject)


def _place_of_evidence(parts: Sequence[LessonPart]) -> int:
    """Before the scores of the maps, which speak of them."""
    names = [part.name for part in parts]
    return names.index("map_scores") if "map_scores" in names else len(names)


def _written(
    folder: Path,
    subject: Subject,
    parts: Sequence[LessonPart],
    unfinished: Sequence[str],
    terminal: Terminal,
) -> ExplainResult:
    """Write the pictures, their numbers and the page."""
    files = []
    for part in parts:
        for name, png in part.files.items():
            write_bytes(folder / name, png)
            files.append(name)
    write_json(folder / NUMBERS, {part.name: part.numbers for part in parts})
    write_text(folder / PAGE, render_lesson(_content(subject, parts, unfinished)))
    warnings = (*unfinished, *(warning for part in parts for warning in part.warnings))
    for warning in warnings:
        terminal.warn(warning)
    terminal.say(f"written to {printable(folder)}: {PAGE}, {NUMBERS} and {len(files)} pictures")
    return ExplainResult(str(folder), str(folder / PAGE), (PAGE, NUMBERS, *files), warnings)


def _unfinished_words(subject: Subject) -> tuple[str, ...]:
    """That the run has not come to its end; nothing where it has."""
    if is_finished(subject.run_dir):
        return ()
    epoch, epochs = subject.classifier.content.get("epoch"), subject.config.train.epochs
    run = subject.run_dir.parent.parent if subject.member else subject.run_dir
    return (
        f"this run is not finished: these are the best weights so far, of epoch {epoch} of at most "
        f"{epochs}; go on with {command('train', '--resume', run)}",
    )


def _content(
    subject: Subject, parts: Sequence[LessonPart], unfinished: Sequence[str]
) -> LessonContent:
    config, network = subject.config, subject.classifier
    of_one = (
        f" The run trained several models; this is the first, {subject.member}."
        if subject.member
        else ""
    )
    counts = ", ".join(f"{len(images):,} {name}" for name, images in subject.splits.items())
    return LessonContent(
        f"The lesson of {subject.run_dir.name}",
        (
            "What a course on deep learning draws on the blackboard, drawn from this run: every "
            f"picture was computed from its own images and weights.{of_one}",
            f"{config.model.type}; films of {network.size_px} x {network.size_px} px; images: "
            f"{counts}. The test split was not touched.",
            *(words[0].upper() + words[1:] + "." for words in unfinished),
        ),
        tuple(parts),
    )
