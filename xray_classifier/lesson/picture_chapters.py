"""The chapters of the tour that show the loss and the weights themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xray_classifier.building import run_architecture
from xray_classifier.data.loading import Radiographs
from xray_classifier.lesson.bowl import (
    Bowl,
    Plane,
    Valley,
    bce_at,
    measure_bowl,
    measure_valley,
    mse_at,
    two_features,
)
from xray_classifier.lesson.experiment import Experiment, Laboratory
from xray_classifier.lesson.landscape import (
    Landscape,
    path_landscape,
    path_plane,
    random_landscape,
)
from xray_classifier.lesson.lecture import Lecture
from xray_classifier.lesson.neurons import Detectors, measure_detectors
from xray_classifier.report import formulas
from xray_classifier.report.bowl_figure import bowl_figure, valley_figure
from xray_classifier.report.canvas import as_png
from xray_classifier.report.landscape_figure import landscape_figure
from xray_classifier.report.neuron_figure import neuron_figure
from xray_classifier.report.page import ReportFigure
from xray_classifier.report.tour_page import Chapter

GRID = 17
"""Points a side of a landscape; odd, so that one is the centre."""

UNITS = 4
"""Perceptrons of the first layer that are shown."""

draw_bowl, draw_valley = as_png(bowl_figure), as_png(valley_figure)
draw_landscape, draw_neurons = as_png(landscape_figure), as_png(neuron_figure)


def bowl_lecture(laboratory: Laboratory) -> Lecture:
    """A unit with two weights: a loss that can be drawn whole."""
    radiographs = laboratory.radiographs(laboratory.configured())
    rows = radiographs.rows("train")
    plane = two_features(np.asarray(radiographs.images[rows]), radiographs.manifest.targets[rows])
    bowl, valley = measure_bowl(plane), measure_valley(plane)
    figures = [_bowl_figure(plane, bowl)]
    if valley is not None:
        figures.append(_valley_figure(valley))
    chapter = Chapter(
        name="bowl",
        title="Two weights: the whole loss on one picture",
        paragraphs=(
            "With thousands of weights nobody can see the loss, with two one can. This unit looks "
            "at the mean grey of just two spots of the film. With the squared error its loss is a "
            f"bowl, and a formula gives the lowest point: weights {bowl.minimum[0]:.3f} and "
            f"{bowl.minimum[1]:.3f}, loss {bowl.lowest:.3f}.",
            "The bowl also says how far one may step. Below a learning rate of 2 divided by the "
            f"largest curvature, {bowl.largest_rate:.3f} here, the steps arrive at the lowest "
            "point; above it they swing wider and wider across the bowl.",
            *(() if valley is None else (_valley_words(valley),)),
        ),
        figures=tuple(figures),
        formulas=(formulas.least_squares(), formulas.largest_rate()),
        keys=("train.optimizer.lr", "train.optimizer.weight_decay"),
        sources=(
            "LeCun et al. 1998, Efficient backprop, doi:10.1007/3-540-49430-8_2",
            "Soudry et al. 2018 (no end on separable data), JMLR 19(70), arXiv:1710.10345",
        ),
    )
    numbers = {
        "cells": [list(cell) for cell in plane.cells],
        "minimum": bowl.minimum.tolist(),
        "lowest": bowl.lowest,
        "largest_rate": bowl.largest_rate,
        "rates": [descent.rate for descent in bowl.descents],
        "last_losses": [float(descent.losses[-1]) for descent in bowl.descents],
    }
    return Lecture(chapter, numbers)


def _bowl_figure(plane: Plane, bowl: Bowl) -> ReportFigure:
    png = draw_bowl(bowl, lambda weights: mse_at(plane, weights), n=len(plane.targets))
    ends = ", ".join(f"{d.rate:.3g}: {d.losses[-1]:.3g}" for d in bowl.descents)
    return ReportFigure(
        "Gradient descent in the bowl",
        png,
        "Four maps of the same bowl with the steps of gradient descent for four learning rates. "
        f"Learning rate and last loss: {ends}; the lowest loss is {bowl.lowest:.3g}.",
    )


def _valley_figure(valley: Valley) -> ReportFigure:
    png = draw_valley(
        valley,
        lambda weights: bce_at(valley.plane, weights),
        lambda weights: bce_at(valley.plane, weights, valley.decay),
    )
    return ReportFigure(
        "A valley without an end",
        png,
        "Two maps of the cross-entropy, without and with weight decay, and the length of the "
        f"weights over the steps: {valley.norms[0, -1]:.2f} without decay after "
        f"{valley.norms.shape[1] - 1} steps, {valley.norms[1, -1]:.2f} with it.",
    )


def _valley_words(valley: Valley) -> str:
    return (
        "Cross-entropy, which classifiers use, has no such formula. Where a line parts the classes "
        "it has not even a lowest point: larger weights always make the right answers surer. On "
        f"the {len(valley.plane.targets):,} films on which the best line is right, "
        f"after {valley.norms.shape[1] - 1:,} steps the weights have length "
        f"{valley.norms[0, -1]:.2f} and still grow. Weight decay makes length cost something, and "
        f"they come to rest at {valley.norms[1, -1]:.2f}."
    )


def landscape_lecture(stack: Experiment) -> Lecture:
    """The loss around the weights of the stack, with the way that training went.

    Args:
        stack: Trained with its weights kept.
    """
    t = stack.trainer
    splits = {"train": t.train_images, "val": t.val_images or t.train_images}
    around = [
        random_landscape(
            t.model, t.standardize, t.loss, images, split=split, seed=stack.config.seed, grid=GRID
        )
        for split, images in splits.items()
    ]
    plane = path_plane(t.model, stack.weights)
    path = [] if plane is None else [
        path_landscape(
            t.model, t.standardize, t.loss, images, plane, stack.weights, split=split, grid=GRID
        )
        for split, images in splits.items()
    ]  # fmt: skip
    maps = [found for found in (around, path) if found]
    chapter = Chapter(
        name="landscape",
        title="The loss landscape of the stack",
        paragraphs=(
            "The bowl was a toy. The loss of the stack has as many axes as it has weights, and "
            f"only a slice of it fits on paper. {_around_words(around[0])}",
            *((_path_words(path[0]),) if path else ()),
            "The number in the centre is not quite that of the chapter on stacking: there each "
            "batch was measured with the weights of its own step, here all images with the last.",
        ),
        figures=tuple(_landscape_figure(found) for found in maps),
        formulas=(formulas.landscape_slice(),),
        keys=("model.hidden", "train.optimizer.lr", "train.epochs"),
        sources=("Li et al. 2018, Visualizing the loss landscape, arXiv:1712.09913",),
        asides=(
            "A slice is not the landscape. Two directions among many thousands cannot show what "
            "the others do, and another pair would draw another picture.",
        ),
    )
    numbers: dict[str, Any] = {
        found[0].kind: {
            one.split: {
                "centre": one.centre,
                "highest": float(np.nanmax(one.loss)),
                "path_loss": one.path_loss.tolist(),
                "explained": list(one.explained),
            }
            for one in found
        }
        for found in maps
    }
    return Lecture(chapter, numbers)


def _around_words(one: Landscape) -> str:
    lower = int((one.loss < one.centre).sum())
    return (
        "The first picture goes two random ways from where training ended. In the centre the "
        f"training loss is {one.centre:.3f}, and it rises to {float(np.nanmax(one.loss)):.2f} at "
        f"the worst point of the map; of the other {one.loss.size - 1} points {lower} lie lower "
        "than the centre."
    )


def _path_words(one: Landscape) -> str:
    return (
        "The second picture lies in the plane that holds most of the path from the first to the "
        f"last epoch ({100 * sum(one.explained):.0f} % of its squared distances): on the way the "
        f"training loss goes from {one.path_loss[0]:.3f} to {one.centre:.3f}."
    )


def _landscape_figure(found: Sequence[Landscape]) -> ReportFigure:
    one = found[0]
    name = "Around the last weights" if one.kind == "random" else "Along the way of training"
    png = draw_landscape(found, title=name, loss_name="BCE loss")
    return ReportFigure(
        name,
        png,
        "Maps of the training and the validation loss over two directions; training loss "
        f"{one.centre:.3f} at the weights of the run, up to {float(np.nanmax(one.loss)):.2g}.",
    )


def neurons_lecture(laboratory: Laboratory, lone: Experiment, stack: Experiment) -> Lecture:
    """What the perceptron and the first layer of the stack look for.

    Args:
        laboratory: With the images.
        lone: A trained perceptron.
        stack: A trained stack.
    """
    found = [_detectors(one, 1 if one is lone else UNITS) for one in (lone, stack)]
    radiographs = laboratory.radiographs(stack.config)
    n_sick = sum(
        radiographs.manifest.targets[row] == 1 for one in found[1].chosen for row in one.rows
    )
    n_films = sum(len(one.rows) for one in found[1].chosen)
    chapter = Chapter(
        name="neurons",
        title="What a neuron looks for",
        paragraphs=(
            "A pattern is a weighted combination of pixels, so the weights of a unit that sees "
            "the film are themselves a picture: where it is vermillion the unit wants the film "
            "bright, where it is blue, dark. The lone perceptron has one such picture.",
            f"The stack has {found[1].n_units}; here are the {len(found[1].chosen)} that move the "
            "answer most, each beside what training changed in it and the films that excite it "
            f"most. Of these {n_films} films {n_sick} are sick. Much of the speckle is the chance "
            "that the weights began with, which nothing has washed out.",
        ),
        figures=tuple(_neuron_figure(one, radiographs) for one in found),
        formulas=(formulas.unit(),),
        keys=("model.hidden", "model.init", "train.optimizer.weight_decay"),
        sources=("Erhan et al. 2009, Visualizing higher-layer features, Technical report 1341, "
                 "Universite de Montreal",),
        asides=(
            "A unit seldom stands for one thing that has a name. What a picture of weights shows "
            "is what the unit adds up, not what it means.",
        ),
    )  # fmt: skip
    numbers = {
        one.kind: [
            {"unit": d.unit, "strength": d.strength, "rows": d.rows.tolist(),
             "sums": d.sums.tolist()}
            for d in one.chosen
        ]
        for one in found
    }  # fmt: skip
    return Lecture(chapter, numbers)


def _detectors(one: Experiment, most: int) -> Detectors:
    t = one.trainer
    images = t.val_images or t.train_images
    return measure_detectors(
        t.model, t.standardize, run_architecture(one.config), images,
        seed=one.config.seed, most_units=most,
    )  # fmt: skip


def _neuron_figure(found: Detectors, radiographs: Radiographs) -> ReportFigure:
    rows = sorted({row for one in found.chosen for row in one.rows.tolist()})
    films = {row: np.asarray(radiographs.images[row]) for row in rows}
    labels = {row: radiographs.manifest.classes[row] for row in rows}
    who = "the perceptron" if found.kind == "perceptron" else "the first layer of the stack"
    return ReportFigure(
        f"The weights of {who}",
        draw_neurons(found, films, labels),
        f"The weights of {len(found.chosen)} unit(s) of {who} as pictures, beside the validation "
        "films with the largest weighted sums.",
    )
