"""How far to step, and on how many images: learning rate and mini-batches."""

import math

import numpy as np

from xray_classifier.lesson.experiment import CHANCE, Experiment, Laboratory
from xray_classifier.lesson.lecture import Lecture, curve_figure, epochs, last, record
from xray_classifier.report import formulas
from xray_classifier.report.lines_figure import Line
from xray_classifier.report.page import ReportFigure, ReportTable
from xray_classifier.report.tour_page import Chapter

RATES = (
    ("too small", "sgd", 3e-4),
    ("about right", "sgd", 0.03),
    ("too large", "sgd", 1.0),
    ("adaptive", "adamw", 1e-3),
)
"""Word, optimizer and learning rate of each run of the picture."""

LONGER = 10
"""How many times as long the smallest rate may walk to show that it is slow, not stuck."""

TOP = 1.2
"""Where the loss axis ends; what is above is said in words."""

BATCHES: tuple[int | str, ...] = ("full", 64, 8)


def rates_lecture(laboratory: Laboratory) -> Lecture:
    """The same stack from the same weights, with four learning rates."""
    found = {
        word: laboratory.train(_optimizer(name, lr), "train.early_stopping=null")
        for word, name, lr in RATES
    }
    word, name, lr = RATES[0]
    n_epochs = found[word].config.train.epochs
    longer = laboratory.train(
        _optimizer(name, lr), "train.early_stopping=null", f"train.epochs={LONGER * n_epochs}"
    )
    small, right, large, adaptive = found.values()
    chapter = Chapter(
        name="learning-rate",
        title="The learning rate: how far to step",
        paragraphs=(
            "The slope says which way is down, not how far to go; the learning rate does. Four "
            "runs of one stack start from the same weights on the same images and differ in their "
            "steps alone.",
            f"At {RATES[0][2]:g} the steps are tiny, and after {n_epochs} epochs the training loss "
            f"is {last(small, 'train_loss'):.3f}. At {RATES[1][2]:g} it is "
            f"{last(right, 'train_loss'):.3f}. At {RATES[2][2]:g} the first steps leap across "
            f"the valley: {_wild_words(large)}.",
            "AdamW gives each weight a step of its own, by the size of the slopes it has seen; "
            f"with {RATES[3][2]:g} it ends at {last(adaptive, 'train_loss'):.3f}.",
        ),
        figures=(_rates_figure(found),),
        formulas=(formulas.adam(),),
        tables=(_rates_table(found),),
        keys=("train.optimizer.lr", "train.optimizer.name", "train.schedule.name"),
        sources=(
            "Robbins & Monro 1951, doi:10.1214/aoms/1177729586",
            "Kingma & Ba 2015 (Adam), arXiv:1412.6980",
            "Loshchilov & Hutter 2019 (AdamW), arXiv:1711.05101",
        ),
        asides=(
            "One often hears that a low learning rate gets stuck. Mostly it is slow: given "
            f"{LONGER} times as many epochs, the rate {RATES[0][2]:g} walks on from "
            f"{last(small, 'train_loss'):.3f} to {last(longer, 'train_loss'):.3f}.",
        ),
    )
    numbers = {word: record(one) for word, one in found.items()}
    return Lecture(chapter, {**numbers, "longer": record(longer)})


def _optimizer(name: str, lr: float) -> str:
    return f"train.optimizer={{name: {name}, lr: {lr!r}}}"


def _wild_words(large: Experiment) -> str:
    """What the largest rate came to, as it happened in this run."""
    if large.failure is not None:
        return "the loss was soon no finite number, and the run was stopped"
    highest, end = float(large.column("train_loss").max()), last(large, "train_loss")
    said = f"the loss was {highest:.1f} on average in its worst epoch and ends at {end:.3f}"
    if abs(end - CHANCE) < 0.05 and last(large, "val_auroc") == 0.5:
        said += (
            ", what knowing nothing costs. The hidden units were thrown where their ReLU is flat, "
            "and every film gets the same answer"
        )
    return said


def _rates_figure(found: dict[str, Experiment]) -> ReportFigure:
    lines = []
    for word, name, lr in RATES:
        values = found[word].column("train_loss")
        lines.append(Line(f"{word} ({name} {lr:g})", epochs(values), values))
    highest = max(float(np.nanmax(line.y)) for line in lines if np.size(line.y))
    cut = highest > TOP
    low = min(float(np.nanmin(line.y)) for line in lines if np.size(line.y))
    ends = ", ".join(f"{word} {last(found[word], 'train_loss'):.3f}" for word, _, _ in RATES)
    return curve_figure(
        "Four learning rates, one problem",
        f"Training loss over the epochs for four learning rates; they end at: {ends}.",
        lines,
        y_range=(max(0.0, low - 0.05), min(TOP, highest + 0.05)),
        level=(CHANCE, "knowing nothing: ln 2"),
        subtitle=f"Training loss; values up to {highest:.1f} lie above this axis." if cut else "",
    )


def _rates_table(found: dict[str, Experiment]) -> ReportTable:
    rows = tuple(
        (
            word,
            f"{name}, {lr:g}",
            f"{last(found[word], 'train_loss'):.3f}",
            f"{last(found[word], 'val_auroc'):.3f}" if found[word].rows else "not finite",
        )
        for word, name, lr in RATES
    )
    header = ("Learning rate", "Optimizer", "Training loss", "Validation AUROC")
    return ReportTable("Where each run ends", header, rows)


def batches_lecture(laboratory: Laboratory) -> Lecture:
    """The same number of images seen, in few large or many small steps."""
    found = {
        str(size): laboratory.train(
            _optimizer(*RATES[1][1:]), f"train.batch_size={size}", "train.early_stopping=null"
        )
        for size in BATCHES
    }
    lines = []
    for size, one in found.items():
        values = one.column("train_loss")
        steps = one.trainer.run.steps_per_epoch
        label = (
            f"all at once ({steps} step)" if size == "full" else f"{size} images ({steps} steps)"
        )
        lines.append(Line(label, epochs(values), values))
    ends = [last(one, "train_loss") for one in found.values()]
    noise = [_jitter(one) for one in found.values()]
    highest = max(float(np.max(line.y)) for line in lines)
    above = f"Values up to {highest:.1f} lie above this axis." if highest > TOP else ""
    figure = curve_figure(
        "The same images, in larger or smaller handfuls",
        "Training loss over the epochs for three batch sizes; they end at "
        + ", ".join(f"{size}: {end:.3f}" for size, end in zip(found, ends, strict=True))
        + ".",
        lines,
        y_range=(max(0.0, min(float(np.min(line.y)) for line in lines) - 0.05), min(TOP, highest)),
        level=(CHANCE, "knowing nothing: ln 2"),
        subtitle=above,
    )
    n, n_epochs = len(found["full"].trainer.train_images), found["full"].config.train.epochs
    chapter = Chapter(
        name="mini-batches",
        title="Mini-batches: a rough slope, many times",
        paragraphs=(
            f"The slope over all {n:,} training images is exact, and allows one step for a pass "
            "over them. The slope over a handful is rough but nearly free, so that the same pass "
            "holds many steps.",
            f"With learning rate {RATES[1][2]:g} and {n_epochs} passes each, one step a pass comes "
            f"to a training loss of {ends[0]:.3f}, batches of {BATCHES[1]} to {ends[1]:.3f}, and "
            f"batches of {BATCHES[2]} to {ends[2]:.3f}. The price is unrest: from one step to the "
            f"next the loss changes by {noise[1]:.3f} for batches of {BATCHES[1]}, and by "
            f"{noise[2]:.3f} for batches of {BATCHES[2]}, in the second half of the run.",
        ),
        figures=(figure,),
        formulas=(formulas.batch_gradient(),),
        keys=("train.batch_size",),
        sources=(
            "Robbins & Monro 1951, doi:10.1214/aoms/1177729586",
            "Bottou, Curtis & Nocedal 2018, doi:10.1137/16M1080173",
        ),
    )
    return Lecture(chapter, {size: record(one) for size, one in found.items()})


def _jitter(one: Experiment) -> float:
    """Median change of the loss between neighbouring steps of the second half of a run."""
    late = one.step_loss[len(one.step_loss) // 2 :]
    return float(np.median(np.abs(np.diff(late)))) if len(late) > 1 else math.nan
