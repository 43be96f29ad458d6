"""The tour begins: the images, and a perceptron that learns from them."""

import numpy as np

from xray_classifier.data.loading import Radiographs
from xray_classifier.lesson.experiment import CHANCE, Laboratory
from xray_classifier.lesson.lecture import Lecture, curve_figure, epochs, last, record
from xray_classifier.report import formulas
from xray_classifier.report.figures import film_sheet
from xray_classifier.report.lines_figure import Line
from xray_classifier.report.page import ReportFigure, ReportTable
from xray_classifier.report.tour_page import Chapter

SHOWN = 5
"""Films of each class that are shown."""


def images_lecture(laboratory: Laboratory) -> Lecture:
    """What is to be told apart, and how the images are shared out."""
    config = laboratory.configured()
    radiographs = laboratory.radiographs(config)
    counts = split_counts(radiographs)
    size = config.data.image.size
    table = ReportTable(
        "How the images are shared out",
        ("Split", "Healthy", "Sick", "What it is for"),
        tuple(
            (name, f"{counts[name][0]:,}", f"{counts[name][1]:,}", purpose)
            for name, purpose in (
                ("train", "the weights learn from these"),
                ("val", "settings and the moment to stop are chosen on these"),
                ("test", "choose nothing; they tell at the end what was learnt"),
            )
        ),
    )
    chapter = Chapter(
        name="images",
        title="Sick or healthy?",
        paragraphs=(
            f"A computer sees an X-ray film as a square of numbers: here {size} by {size} pixels, "
            f"so {size * size:,} numbers from black to white. The task is to turn them into one "
            "number, the probability that the film is sick.",
            "These films are phantoms: drawn by a program that sends X-rays through a simple body "
            "and puts lesions into some of the lungs. No patient is behind them, and the truth is "
            "known for each.",
            "The films are parted before anything is learnt, and all films of one patient stay "
            "together; else the answer would be known from another film of the same chest.",
        ),
        figures=(_films_figure(radiographs),),
        formulas=(formulas.attenuation(),),
        tables=(table,),
        keys=("data.source: phantoms", "data.phantoms.n_images", "data.image.size", "data.split"),
        sources=("Bushberg et al., The Essential Physics of Medical Imaging (attenuation)",),
    )
    return Lecture(chapter, {"counts": {name: list(pair) for name, pair in counts.items()}})


def split_counts(radiographs: Radiographs) -> dict[str, tuple[int, int]]:
    """Healthy and sick images of each split that can be used."""
    targets = radiographs.manifest.targets
    found = {}
    for split in ("train", "val", "test"):
        rows = radiographs.rows(split)
        sick = int(targets[rows].sum())
        found[split] = (len(rows) - sick, sick)
    return found


def _films_figure(radiographs: Radiographs) -> ReportFigure:
    rows = radiographs.rows("train")
    labels = radiographs.manifest.targets[rows]
    healthy, sick = rows[labels == 0][:SHOWN], rows[labels == 1][:SHOWN]
    chosen = np.concatenate([healthy, sick])
    captions = ["healthy"] * len(healthy) + ["sick"] * len(sick)
    png = film_sheet(radiographs.images[chosen], captions, columns=SHOWN, title="As the model sees")
    return ReportFigure(
        "Healthy films above, sick films below",
        png,
        f"{len(healthy)} healthy and {len(sick)} sick phantom films of the training split, small "
        "and grey; the sick ones have bright spots or hazes in a lung.",
    )


def learning_lecture(laboratory: Laboratory) -> Lecture:
    """A perceptron learns by gradient descent: its loss, step after step."""
    found = laboratory.train("model={type: perceptron}", "train.early_stopping=null")
    train, val = found.column("train_loss"), found.column("val_loss")
    steps = len(found.step_loss)
    figure = curve_figure(
        "A perceptron learns",
        f"Training and validation loss of a perceptron over {len(train)} epochs; the training loss "
        f"ends at {train[-1]:.3f}, the validation loss at {val[-1]:.3f}.",
        [Line("train", epochs(train), train), Line("validation", epochs(val), val)],
        level=(CHANCE, "knowing nothing: ln 2"),
        subtitle=f"{len(train)} epochs of {found.trainer.run.steps_per_epoch} steps",
    )
    chapter = Chapter(
        name="gradient-descent",
        title="Gradient descent: learning is going downhill",
        paragraphs=(
            "The mean loss over the training images is a landscape over the weights, and learning "
            "means walking downhill on it: look at some images, compute the slope, move each "
            "weight a little against it, and again.",
            f"Here one perceptron takes {steps:,} such steps. Its training loss comes down to "
            f"{train[-1]:.3f}; answering one half to everything would cost ln 2 = {CHANCE:.3f}. It "
            f"ranks a sick film of the validation split above a healthy one in "
            f"{100 * last(found, 'val_auroc'):.0f} % of all pairs (the AUROC).",
        ),
        figures=(figure,),
        formulas=(formulas.gradient_step(),),
        keys=("train.epochs", "train.optimizer.name", "train.optimizer.lr", "model.type"),
        sources=(
            "Cauchy 1847, Comptes rendus 25:536 (steepest descent)",
            "Hanley & McNeil 1982 (AUROC), doi:10.1148/radiology.143.1.7063747",
        ),
    )
    return Lecture(chapter, record(found))
