"""From one perceptron to a stack, and from learning to learning by heart."""

from collections.abc import Mapping

from xray_classifier.lesson.experiment import CHANCE, Experiment, Laboratory
from xray_classifier.lesson.lecture import Lecture, curve_figure, epochs, last, record
from xray_classifier.model import parameter_count
from xray_classifier.report import formulas
from xray_classifier.report.lines_figure import Line
from xray_classifier.report.page import ReportFigure, ReportTable
from xray_classifier.report.tour_page import Chapter

WIDE = "model.hidden=[512, 256]"
FEW = "data.split={val: 0.44, test: 0.44}"
LONGER = 5
"""How many times the epochs of the config a stack needs to learn a few images by heart."""
DROPOUT = 0.5
PARTED = 0.5
"""A training loss below this part of the validation loss has parted from it."""
PATIENCE = 15
TOP = 1.5


def stack_lecture(laboratory: Laboratory) -> tuple[Lecture, Experiment, Experiment]:
    """A perceptron and a stack on the same images.

    Returns:
        The chapter, the perceptron, and the stack with its weights kept.
    """
    lone = laboratory.train("model={type: perceptron}", "train.early_stopping=null")
    stack = laboratory.train("train.early_stopping=null", keep_weights=True)
    hidden = ", ".join(f"{n:,}" for n in stack.config.model.hidden)
    aurocs = [last(one, "val_auroc") for one in (lone, stack)]
    chapter = Chapter(
        name="stack",
        title="Stacking perceptrons",
        paragraphs=(
            "One perceptron can only add up evidence pixel by pixel, so a lesion that may sit "
            "anywhere is hard for it. A layer of perceptrons looks for several patterns at once, "
            "and the next perceptron weighs what they found.",
            f"Between the layers stands the activation, here {stack.config.model.activation}; "
            "without a bend there, sums of sums would be one sum again. With hidden layers of "
            f"{hidden} units the validation AUROC is {aurocs[1]:.3f}; the lone perceptron has "
            f"{aurocs[0]:.3f}.",
        ),
        figures=(_stack_figure(lone, stack),),
        formulas=(formulas.stack(),),
        tables=(_stack_table({"perceptron": lone, f"stack ({hidden})": stack}),),
        keys=("model.type: mlp", "model.hidden", "model.activation"),
        sources=(
            "Minsky & Papert 1969, Perceptrons (what one layer cannot do)",
            "Cybenko 1989, doi:10.1007/BF02551274 (what one hidden layer can)",
        ),
    )
    numbers = {"perceptron": record(lone), "stack": record(stack)}
    return Lecture(chapter, numbers), lone, stack


def _stack_figure(lone: Experiment, stack: Experiment) -> ReportFigure:
    """Both losses of both networks."""
    return curve_figure(
        "One perceptron and a stack",
        "Training and validation loss of a perceptron and of a stack; the validation losses end at "
        f"{last(lone, 'val_loss'):.3f} and {last(stack, 'val_loss'):.3f}.",
        _pairs({"perceptron": lone, "stack": stack}),
        level=(CHANCE, "knowing nothing: ln 2"),
    )


def _pairs(found: Mapping[str, Experiment]) -> list[Line]:
    """Training and validation loss of each run, in one colour a run."""
    return [
        Line(f"{word}, {name}", epochs(one.column(column)), one.column(column), pair)
        for pair, (word, one) in enumerate(found.items())
        for name, column in (("train", "train_loss"), ("validation", "val_loss"))
    ]


def _stack_table(found: Mapping[str, Experiment]) -> ReportTable:
    rows = tuple(
        (
            word,
            f"{parameter_count(one.trainer.model):,}",
            *(f"{last(one, name):.3f}" for name in ("train_loss", "val_loss", "val_auroc")),
        )
        for word, one in found.items()
    )
    header = ("Network", "Weights", "Training loss", "Validation loss", "Validation AUROC")
    return ReportTable("After the last epoch", header, rows)


def by_heart(laboratory: Laboratory, *changes: str) -> Experiment:
    """A wide stack on few training images, for long."""
    n_epochs = LONGER * laboratory.configured().train.epochs
    return laboratory.train(FEW, WIDE, f"train.epochs={n_epochs}", *changes)


def dropout_lecture(laboratory: Laboratory) -> tuple[Lecture, Experiment]:
    """The two loss curves part, with and without dropout.

    Returns:
        The chapter, and the run without dropout, for the next one.
    """
    never = "train.early_stopping=null"
    without = by_heart(laboratory, never, "model.dropout=0.0")
    dropped = by_heart(laboratory, never, f"model.dropout={DROPOUT}")
    lines = _pairs({"no dropout": without, "dropout": dropped})
    ends = {line.label: float(line.y[-1]) for line in lines}
    n = len(without.trainer.train_images)
    figure = curve_figure(
        "Learning by heart, and dropout against it",
        "Training and validation loss with and without dropout. Without it they end at "
        f"{ends['no dropout, train']:.3f} and {ends['no dropout, validation']:.3f}, with it at "
        f"{ends['dropout, train']:.3f} and {ends['dropout, validation']:.3f}.",
        lines,
        y_range=(0.0, TOP),
        level=(CHANCE, "knowing nothing: ln 2"),
        subtitle=f"Solid: training, dashed: validation. {n:,} training images.",
    )
    chapter = Chapter(
        name="dropout",
        title="Overfitting, and dropout against it",
        paragraphs=(
            f"A wide stack with few images ({n:,} here) can learn each of them by heart. "
            + by_heart_words(ends["no dropout, train"], ends["no dropout, validation"]),
            f"Dropout silences each hidden unit with chance {DROPOUT:g} in every training step, so "
            "that no unit can rely on another, and switches itself off for judging. The training "
            f"loss now ends at {ends['dropout, train']:.3f}, the validation loss at "
            f"{ends['dropout, validation']:.3f}.",
        ),
        figures=(figure,),
        formulas=(formulas.dropout(),),
        keys=("model.dropout", "train.optimizer.weight_decay", "data.split"),
        sources=("Srivastava et al. 2014, Dropout, JMLR 15:1929",),
        asides=(
            "The training loss is measured while units are silenced and weights still move, the "
            "validation loss with all units and at the end of an epoch. So with dropout the "
            "training curve may well lie above the other one.",
        ),
    )
    return Lecture(chapter, {"without": record(without), "dropout": record(dropped)}), without


def by_heart_words(train: float, val: float) -> str:
    """How far the two losses have parted, from where they end.

    Args:
        train: Training loss of the last epoch.
        val: Validation loss of the last epoch.
    """
    if train < PARTED * val:
        return (
            f"Its training loss falls to {train:.3f}, while the loss on images it has not seen "
            f"ends at {val:.3f}: the two curves part. That is overfitting."
        )
    return (
        f"This tour was too short for that: its training loss ends at {train:.3f}, the loss on "
        f"images it has not seen at {val:.3f}. With more epochs the two curves part, and that is "
        "called overfitting."
    )


def stopping_lecture(laboratory: Laboratory, long: Experiment) -> Lecture:
    """When to stop, and what it would be worth to peek at the test set.

    Args:
        laboratory: Where to train.
        long: The same run without early stopping, to show what would have come.
    """
    rule = f"train.early_stopping={{monitor: val_loss, patience: {PATIENCE}}}"
    stopped = by_heart(laboratory, rule, "model.dropout=0.0")
    chosen, n = stopped.best, len(stopped.rows)
    honest, peeked = float(stopped.test_loss[chosen]), float(long.test_loss.min())
    peek_epoch = int(long.test_loss.argmin()) + 1
    val = long.column("val_loss")
    saved = len(val) - n
    chapter = Chapter(
        name="early-stopping",
        title="Early stopping: keep the best, then quit",
        paragraphs=(
            "The cheapest remedy against learning by heart is to stop in time. After each epoch "
            "the validation loss is looked at; if it has not improved for "
            f"{PATIENCE} epochs (the patience), training ends, and the weights of the best epoch "
            "are kept.",
            f"Here the best epoch is number {chosen + 1}, with a validation loss of "
            f"{val[chosen]:.3f}, and training ended after {n} of {len(val)} epochs"
            + (f"; {saved} epochs were spared." if saved else "."),
        ),
        figures=(_stopping_figure(long, chosen, n),),
        formulas=(formulas.patience(),),
        keys=("train.early_stopping.monitor", "train.early_stopping.patience", "train.epochs"),
        sources=("Prechelt 1998, Early stopping - but when?, doi:10.1007/3-540-49430-8_3",),
        asides=(
            "Introductions, and not a few papers, watch the test set to stop. Then the test set "
            "has helped to choose, and no longer tells how well new images will do. "
            f"{_peek_words(peek_epoch, peeked, chosen + 1, honest)} This program draws the test "
            "curve and lets nothing select on it.",
        ),
    )
    numbers = {
        **record(stopped),
        "best_epoch": chosen + 1,
        "test_loss_at_best": honest,
        "lowest_test_loss": peeked,
    }
    return Lecture(chapter, numbers)


def _stopping_figure(long: Experiment, chosen: int, n: int) -> ReportFigure:
    """The run that was not stopped, with the epochs at which the other one chose and ended."""
    val, test = long.column("val_loss"), long.test_loss
    marks = [(float(chosen + 1), "best epoch")]
    if n < len(val):
        marks.append((float(n), "stopped"))
    return curve_figure(
        "Where early stopping stops",
        f"Validation and test loss of the run that was not stopped. The validation loss is lowest "
        f"in epoch {chosen + 1}, and the run with early stopping ended after epoch {n}.",
        [
            Line("train", epochs(val), long.column("train_loss")),
            Line("validation", epochs(val), val),
            Line("test (drawn, never used)", epochs(test), test),
        ],
        y_range=(0.0, TOP),
        marks=marks,
    )


def _peek_words(peek_epoch: int, peeked: float, epoch: int, honest: float) -> str:
    """What a look at the test set would have promised, next to what is honest."""
    if peek_epoch == epoch:
        return (
            f"Here both would have taken epoch {epoch} (test loss {honest:.3f}), which is luck, "
            "and nobody could have known."
        )
    return (
        f"Here the lowest test loss of all epochs is {peeked:.3f} (epoch {peek_epoch}), which "
        f"sounds better than the {honest:.3f} of epoch {epoch}, which validation chose."
    )
