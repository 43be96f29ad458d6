"""Parts of the lesson page on the loss: the landscape of a run, and the bowl of two weights."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from xray_classifier.lesson.bowl import (
    Bowl,
    Valley,
    bce_at,
    measure_bowl,
    measure_valley,
    mse_at,
    two_features,
)
from xray_classifier.lesson.landscape import (
    GRID,
    Landscape,
    Snapshot,
    path_landscape,
    path_plane,
    random_landscape,
)
from xray_classifier.lesson.subject import Subject
from xray_classifier.report.figures import bowl_maps, landscape_maps, valley_maps
from xray_classifier.report.lesson_page import LessonPart
from xray_classifier.report.page import ReportFigure

LI = (
    "Li, Xu, Taylor, Studer & Goldstein 2018, Visualizing the loss landscape of neural nets, "
    "arXiv:1712.09913"
)
NO_PATH = (
    "This run kept no snapshots of its weights, so the path of the training cannot be drawn. Train "
    "with train.lesson=true to get it."
)

RISEN = 1.05
"""A validation loss this many times its lowest has risen; less is the unrest between epochs."""


def loss_name(task: str) -> str:
    """What the loss axis is called."""
    return "BCE loss" if task == "classify" else "MSE loss"


def landscape_part(subject: Subject, snapshots: Sequence[Snapshot], seed: int = 0) -> LessonPart:
    """The loss around the kept weights and, where snapshots are there, along the training path.

    Args:
        subject: The run.
        snapshots: From `read_snapshots`; empty draws random directions alone.
        seed: Of the random directions.
    """
    network, held = subject.classifier, subject.held
    around = random_landscape(
        network.model, network.standardize, subject.loss, subject.splits[held], split=held,
        seed=seed,
        grid=GRID,
    )  # fmt: skip
    name = loss_name(network.task)
    figures = [
        _figure([around], "Around the kept weights, in two random directions", name),
    ]
    along = _along(subject, snapshots)
    notes = [_where(around)]
    sentences = [
        "Every setting of the weights has a loss, so the loss is a landscape over the weights, and "
        "training walks downhill in it. The star marks the weights that this run kept; to the "
        "sides all weights are changed at once along two directions.",
        f"At the star the loss is {around.centre:.3f}; the lowest point of the grid is "
        f"{np.nanmin(around.loss):.3f} and the highest {np.nanmax(around.loss):.3g}. A wide, flat "
        "valley forgives small changes of the weights, a narrow one does not.",
    ]
    if along:
        figures.append(_figure(along, "Along the path of the training", name))
        sentences.append(_path_words(along))
    else:
        notes.append(NO_PATH)
    return LessonPart(
        "landscape",
        "The loss landscape",
        tuple(sentences),
        tuple(figures),
        "L(a, b) = loss(w + a·d₁ + b·d₂),  each row of d scaled:  d ← d · |w| / |d|\n"
        "path: d₁, d₂ = main directions of w₀-w, w₁-w, …",
        "train.lesson (keeps the path), train.optimizer, train.epochs",
        LI,
        notes=tuple(notes),
        numbers={
            "split": held,
            "n": around.n,
            "centre": around.centre,
            "lowest": float(np.nanmin(around.loss)),
            "highest": float(np.nanmax(around.loss)),
            "path_explained": list(along[0].explained) if along else None,
            "path_epochs": list(along[0].epochs) if along else [],
        },
    )


def _along(subject: Subject, snapshots: Sequence[Snapshot]) -> list[Landscape]:
    """The landscapes of train and validation over the plane of the path; empty without a path."""
    network = subject.classifier
    plane = path_plane(network.model, snapshots) if len(snapshots) > 2 else None
    if plane is None:
        return []
    return [
        path_landscape(
            network.model,
            network.standardize,
            subject.loss,
            images,
            plane,
            snapshots,
            split=split,
            grid=GRID,
        )
        for split, images in subject.splits.items()
    ]


def _figure(found: list[Landscape], title: str, name: str) -> ReportFigure:
    one = found[0]
    alt = (
        f"Map of the {one.split} loss over two directions of the weights: {one.centre:.3f} at the "
        f"kept weights, up to {np.nanmax(one.loss):.3g} at the border"
    )
    return ReportFigure(title, landscape_maps(found, title=title, loss_name=name), alt)


def _where(one: Landscape) -> str:
    """On which images, and what the picture leaves out."""
    counted = f"{one.n:,} of {one.n_split:,}" if one.n < one.n_split else f"all {one.n:,}"
    return (
        f"Measured on {counted} images of the {one.split} split with dropout off. A plane is a cut "
        "through a space with one axis for each weight: another cut looks different, and what "
        "seems a wall here may have a way around it."
    )


def _path_words(found: list[Landscape]) -> str:
    """What the path shows, from its numbers."""
    first = found[0]
    words = (
        f"The dots are the weights after epochs {first.epochs[0]} to {first.epochs[-1]}: the "
        f"{first.split} loss falls from {first.path_loss[0]:.3g} to {first.path_loss[-1]:.3g} on "
        "the way."
    )
    if len(found) > 1:
        words += _held_words(first, found[1])
    return words + (
        " The colours are those of the plane; a dot that lies off it has a loss of its own."
    )


def _held_words(train: Landscape, held: Landscape) -> str:
    """Where the path is lowest over validation, and whether it parts from training behind that."""
    losses, best = held.path_loss, int(np.argmin(held.path_loss))
    words = (
        f" Over validation the same path is lowest, {losses[best]:.3g}, at epoch "
        f"{train.epochs[best]}"
    )
    if held.centre < losses[best]:
        return f"{words}; the kept weights, of another epoch, have {held.centre:.3g}."
    learns = train.path_loss[-1] < train.path_loss[best]
    if learns and losses[-1] > RISEN * losses[best]:
        return (
            f"{words}; behind it training goes on downhill and validation climbs to "
            f"{losses[-1]:.3g}: overfitting."
        )
    return f"{words}."


def bowl_part(subject: Subject, most: int = 4000) -> LessonPart:
    """Gradient descent with two weights, on two features of the run's own training images.

    Args:
        subject: The run.
        most: Training images, at most; the first ones of the split.
    """
    train = subject.splits["train"]
    rows = train.rows[:most]
    images = np.ascontiguousarray(subject.radiographs.images[rows])
    plane = two_features(images, train.targets[: len(rows)].cpu().double().numpy())
    bowl = measure_bowl(plane)
    valley = measure_valley(plane) if subject.classifier.task == "classify" else None
    figures = [_bowl_figure(bowl, len(rows))]
    if valley is not None:
        figures.append(_valley_figure(valley))
    return LessonPart(
        "bowl",
        "Gradient descent with two weights",
        _bowl_sentences(bowl, valley),
        tuple(figures),
        "squared error: L(w) = mean((w·x - y)²),  w* = (XᵀX)⁻¹ Xᵀy,  step: w ← w - lr · ∇L(w)\n"
        "arrives while lr < 2 / λ,  λ = largest eigenvalue of 2XᵀX/n\n"
        "cross-entropy: L(w) = mean(log(1 + exp(-s·w·x))), s = ±1,  decay adds ½·λ_d·|w|²",
        "train.optimizer.lr, train.optimizer.weight_decay",
        "LeCun et al. 1998, Efficient backprop, doi:10.1007/3-540-49430-8_2; Soudry et al. 2018, "
        "The implicit bias of gradient descent on separable data, arXiv:1710.10345",
        notes=(
            "The two features are mean greys of cells of a 4 x 4 grid over the film, standardised: "
            f"row {plane.cells[0][0] + 1}, column {plane.cells[0][1] + 1} and row "
            f"{plane.cells[1][0] + 1}, column {plane.cells[1][1] + 1}. For the squared error "
            "y is the target less its mean, so that no bias is needed. A unit with a sigmoid and "
            "cross-entropy is logistic regression; Rosenblatt's perceptron used a step, which has "
            "no slope to descend.",
        ),
        numbers={
            "n": len(rows),
            "minimum": bowl.minimum.tolist(),
            "lowest": bowl.lowest,
            "largest_rate": bowl.largest_rate,
            "curvatures": list(bowl.curvatures),
        },
    )


def _bowl_sentences(bowl: Bowl, valley: Valley | None) -> tuple[str, ...]:
    large, small = bowl.curvatures
    words = [
        "With two weights and the squared error the whole landscape can be drawn: a bowl, whose "
        "lowest point is known by a formula. Gradient descent finds it step by step: small "
        "steps are slow, large ones jump from wall to wall, and above a limit the jumps grow "
        "without end.",
        f"This bowl is {large / small:.3g} times steeper one way than the other. The steep way "
        f"sets the limit, {bowl.largest_rate:.3g}; the flat way is what one waits for.",
    ]
    if valley is not None:
        free, held = valley.norms[:, -1]
        overlap = (
            ""
            if valley.overlapping is None
            else " On all images together, which no line parts, there is a lowest point at |w| = "
            f"{np.linalg.norm(valley.overlapping):.2f}, found by steps, for there is no formula."
        )
        words.append(
            "Cross-entropy asks for sure answers. Where a line parts the classes, longer weights "
            f"are always surer: after {valley.norms.shape[1] - 1:,} steps |w| is {free:.1f} and "
            f"still grows. Weight decay ends that at |w| = {held:.2f}.{overlap}"
        )
    return tuple(words)


def _bowl_figure(bowl: Bowl, n: int) -> ReportFigure:
    png = bowl_maps(bowl, partial(mse_at, bowl.plane), n=n)
    alt = (
        "Four maps of the squared error over two weights with the steps of gradient descent at "
        "learning rates " + ", ".join(f"{d.rate:.3g}" for d in bowl.descents)
    )
    rows = tuple(
        (f"{d.rate:.4g}", f"{len(d.weights) - 1}", f"{d.losses[0]:.4g}", f"{d.losses[-1]:.4g}")
        for d in bowl.descents
    )
    return ReportFigure(
        "Squared error: a bowl", png, alt, ("learning rate", "steps", "first loss", "last loss"),
        rows,
    )  # fmt: skip


def _valley_figure(valley: Valley) -> ReportFigure:
    png = valley_maps(
        valley,
        partial(bce_at, valley.plane),
        partial(bce_at, valley.plane, decay=valley.decay),
    )
    alt = (
        "Cross-entropy over two weights: without weight decay |w| grows to "
        f"{valley.norms[0, -1]:.1f} and on, with it the descent ends at {valley.norms[1, -1]:.2f}"
    )
    return ReportFigure("Cross-entropy on images that a line parts: no lowest point", png, alt)
