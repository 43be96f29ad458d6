"""Parts of the lesson page that show films: what neurons look for, and which pixels decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from xray_classifier.bootstrap import patient_clusters
from xray_classifier.classifier import Classifier
from xray_classifier.data.splits import CLASS_NAMES
from xray_classifier.errors import DataError, DecodeError, UsageError
from xray_classifier.files import printable
from xray_classifier.lesson.attribution import integrated_gradients, untrained
from xray_classifier.lesson.map_scores import MapTrial, in_words, lesion_masks, smoothed, try_maps
from xray_classifier.lesson.neurons import measure_detectors
from xray_classifier.lesson.subject import Subject, products_per_image
from xray_classifier.model import Architecture
from xray_classifier.occlusion import WINDOWS_PER_SIDE, occlusion_maps
from xray_classifier.report.figures import evidence_sheet, map_scores_chart, neuron_sheet
from xray_classifier.report.lesson_page import LessonPart
from xray_classifier.report.page import ReportFigure
from xray_classifier.report.words import number_text

COLOURS = {
    "classify": "Vermillion speaks for sick, blue against",
    "regress": "Vermillion speaks for more, blue for less",
}
"""What the colours of a map say, by task."""
SHOWN = 4
MOST_SCORED, FEWEST_SCORED = 40, 6
PASSES_PER_FILM = 4000
"""Network passes that one scored film costs, about: occlusion and gradients of both networks."""
PRODUCTS = 4e11
"""Multiplications that the scoring may cost; films are left out until it fits."""
RANDOM_SEED = 987_654_321
"""Of the network with random weights; another one than any run would take by chance."""
SUNDARARAJAN = (
    "Sundararajan, Taly & Yan 2017, Axiomatic attribution for deep networks, arXiv:1703.01365; "
    "occlusion: Zeiler & Fergus 2014, doi:10.1007/978-3-319-10590-1_53"
)


def neuron_part(subject: Subject) -> LessonPart:
    """First-layer weights as pictures, and the films that excite each unit most."""
    network, held = subject.classifier, subject.held
    architecture = Architecture.from_dict(network.content["architecture"])
    found = measure_detectors(
        network.model, network.standardize, architecture, subject.splits[held],
        seed=int(network.content["seed"]),
    )  # fmt: skip
    rows = sorted({int(row) for one in found.chosen for row in one.rows})
    films = {row: np.asarray(subject.radiographs.images[row]) for row in rows}
    labels = {row: _truth(subject, row) for row in rows}
    what = {
        "perceptron": "The perceptron has one weight for each pixel, so its weights are a picture.",
        "mlp": "Each unit of the first layer has one weight for each pixel, so its weights are a "
        "picture. Shown are the units that move the next layer most.",
        "mixer": "The mixer looks at patches; each unit of its first layer has one weight for each "
        "pixel of a patch. Shown are the units with the largest weights.",
    }[found.kind]
    return LessonPart(
        "neurons",
        "What a neuron looks for",
        (
            what,
            "Its answer is the sum of pixel times weight: a pattern is a weighted combination of "
            "pixels. The second column takes the random numbers away that the weights began "
            "with, so that only what training wrote remains.",
            f"To the right stand the films of the {held} split with the largest sum: what the "
            "unit likes to see, whether or not it is a disease.",
        ),
        (
            ReportFigure(
                "Weights, and the films that excite them",
                neuron_sheet(found, films, labels),
                f"{len(found.chosen)} weight pictures of the first layer, each with the change by "
                "training and the films with the largest sum",
                ("unit", "strength", "largest sum", "largest weight"),
                tuple(
                    (
                        f"{one.unit}",
                        f"{one.strength:.3g}",
                        f"{one.sums[0]:.3g}",
                        f"{np.abs(one.weights).max():.3g}",
                    )
                    for one in found.chosen
                ),
            ),
        ),
        "sum = w·x + b,  answer = activation(sum);  strength = spread(answer) · |weights onward|",
        "model.type, model.hidden, model.activation, model.init",
        "Rosenblatt 1958, The perceptron, doi:10.1037/h0042519; Erhan et al. 2009, Visualizing "
        "higher-layer features of a deep network, Technical report 1341, Université de Montréal",
        notes=(
            f"Films are standardised: 0 is the mean grey of the training films. {found.n_units:,} "
            f"units in the layer, {found.n_images:,} films shown to them. A single unit is a part "
            "of a sum: what the network decides is in none of them alone.",
        ),
        numbers={"units": [one.unit for one in found.chosen], "n": found.n_images},
    )


def _truth(subject: Subject, row: int) -> str:
    target = float(subject.radiographs.manifest.targets[row])
    return CLASS_NAMES[int(target)] if subject.classifier.task == "classify" else f"{target:.3g}"


@dataclass(frozen=True, eq=False)
class Chosen:
    """Films to explain one by one.

    Attributes:
        films: (n, S, S) uint8.
        captions: One for each.
        masks: Lesions, (n, S, S), where all films are phantoms; else None.
    """

    films: NDArray[np.uint8]
    captions: tuple[str, ...]
    masks: NDArray[np.bool_] | None


def films_of_files(classifier: Classifier, paths: Sequence[Path]) -> Chosen:
    """A user's own films, prepared as the model sees them.

    Args:
        classifier: Whose preprocessing is done.
        paths: Image files.

    Raises:
        UsageError: A file does not exist.
        DataError: A file cannot be read as one image.
    """
    films = []
    for path in paths:
        if not path.is_file():
            raise UsageError(f"--images {printable(path)}: there is no such file")
        try:
            films.append(classifier.prepare(path))
        except DecodeError as error:
            raise DataError(
                f"--images {printable(path)}: {error} ({error.reason}); name images that can be "
                "read"
            ) from error
    answers = _answers(classifier, np.stack(films))
    captions = [
        f"{printable(path.name)}\n{answer}" for path, answer in zip(paths, answers, strict=True)
    ]
    return Chosen(np.stack(films), tuple(captions), None)


def films_of_run(subject: Subject) -> Chosen:
    """Films of the held-out split: the surest on both sides and the worst errors; by number for a
    regression the smallest, the largest and the furthest off."""
    images = subject.splits[subject.held]
    films = np.ascontiguousarray(subject.radiographs.images[images.rows])
    outputs = subject.classifier.score(films).logits
    targets = subject.radiographs.manifest.targets[images.rows]
    if subject.classifier.task == "classify":
        signed = np.where(targets == 1, outputs, -outputs)
        sick, healthy = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
        groups = [(sick, -1.0), (healthy, -1.0), (sick, 1.0), (healthy, 1.0)]
        places = [int(g[np.argsort(sign * signed[g])[0]]) for g, sign in groups if len(g)]
    else:
        off = np.abs(outputs - targets)
        order = np.argsort(outputs)
        places = [int(order[-1]), int(order[0]), int(np.argmin(off)), int(np.argmax(off))]
    places = list(dict.fromkeys(places))[:SHOWN]
    answers = _answers(subject.classifier, films[places])
    captions = [
        f"truth: {_truth(subject, int(images.rows[place]))}\n{answer}"
        for place, answer in zip(places, answers, strict=True)
    ]
    masks = lesion_masks_or_none(subject, images.rows[places])
    return Chosen(films[places], tuple(captions), masks)


def lesion_masks_or_none(subject: Subject, rows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Lesions of phantoms, (n, S, S), empty on healthy ones; None for other images."""
    sick = subject.radiographs.manifest.targets[rows] == 1
    found = lesion_masks(subject.radiographs, rows[sick]) if sick.any() else None
    if found is None:
        return None
    masks = np.zeros((len(rows), *found.shape[1:]), dtype=np.bool_)
    masks[sick] = found
    return masks


def _answers(classifier: Classifier, films: NDArray[np.uint8]) -> list[str]:
    scores = classifier.score(films)
    if classifier.task == "regress":
        return [f"predicted {value:.3g}" for value in scores.logits]
    return [
        f"p_sick {p:.3f}\nlogit {z:+.2f}" for p, z in zip(scores.p_sick, scores.logits, strict=True)
    ]


def evidence_part(subject: Subject, chosen: Chosen) -> LessonPart:
    """Occlusion and integrated gradients of single films, beside a network that learnt nothing.

    Args:
        subject: The run.
        chosen: From `films_of_run` or `films_of_files`.
    """
    network = subject.classifier
    fresh = untrained(network, RANDOM_SEED)
    found = integrated_gradients(network.model, network.standardize, chosen.films)
    random = integrated_gradients(fresh.model, fresh.standardize, chosen.films)
    colours = COLOURS[network.task]
    maps = [
        ("occlusion", occlusion_maps(network, chosen.films)),
        ("integrated\ngradients", found.maps),
        ("the same with\nrandom weights", random.maps),
    ]
    rows = tuple(
        (
            caption.splitlines()[0],
            f"{total:+.4f}",
            f"{output - found.baseline:+.4f}",
            f"{100 * gap:.2g} %",
        )
        for caption, total, output, gap in zip(
            chosen.captions, found.maps.sum(axis=(1, 2)), found.outputs, found.gaps, strict=True
        )
    )
    return LessonPart(
        "evidence",
        "Which pixels decided",
        (
            "Occlusion covers one square after the other and notes how far the answer falls. "
            "Integrated gradients walks from an even grey film to this one and credits each pixel "
            "with what it adds on the way; the credits add up to the whole change of the answer.",
            f"Here each sum meets the change of the output within {100 * found.gaps.max():.2g} %. "
            "The last column asks the same network before it learnt anything: what looks alike in "
            "both columns comes from the film, not from the training.",
        ),
        (
            ReportFigure(
                "Single films",
                evidence_sheet(
                    chosen.films, maps, chosen.captions, chosen.masks, meaning=f"{colours}."
                ),
                f"{len(chosen.films)} films with maps of the evidence: {colours}",
                ("film", "sum of the map", "change of the output", "gap"),
                rows,
            ),
        ),
        "IGᵢ(x) = (xᵢ - gᵢ) · ∫₀¹ ∂f/∂xᵢ (g + t·(x - g)) dt,   Σᵢ IGᵢ = f(x) - f(g)",
        "none: any finished model can be asked; data.image.size sets the number of pixels",
        SUNDARARAJAN,
        notes=(
            "g is an even film at the mean grey of the training films. A pixel of just that grey "
            "gets no credit from integrated gradients whatever it means: another g, another map. "
            "The maps say what moves this model, not where a disease is.",
        ),
        numbers={
            "films": [caption.splitlines()[0] for caption in chosen.captions],
            "outputs": found.outputs.tolist(),
            "baseline": found.baseline,
            "sums": found.maps.sum(axis=(1, 2)).tolist(),
            "gaps": found.gaps.tolist(),
        },
    )


def map_score_part(subject: Subject, seed: int = 0) -> LessonPart | None:
    """Maps against the lesions of phantoms; None where the images are no phantoms.

    Args:
        subject: The run.
        seed: Of the resampled patients.
    """
    images = subject.splits[subject.held]
    network = subject.classifier
    sick = images.rows[subject.radiographs.manifest.targets[images.rows] == 1]
    if subject.radiographs.manifest.kind != "phantoms" or not len(sick):
        return None
    one = network.standardize(images.gather(torch.arange(1))[0])
    most = PRODUCTS / PASSES_PER_FILM / max(1, products_per_image(network.model, one))
    rows = sick[: int(min(MOST_SCORED, max(FEWEST_SCORED, most)))]
    masks = lesion_masks(subject.radiographs, rows)
    if masks is None:
        return None
    films = np.ascontiguousarray(subject.radiographs.images[rows])
    patients = [subject.radiographs.manifest.patients[row] for row in rows]
    clusters = patient_clusters(np.array(patients, dtype=object), len(rows))
    trials = _trials(network, films, masks, clusters, seed)
    return _score_words(trials, len(rows), len(sick), subject.held)


def _trials(
    network: Classifier,
    films: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    clusters: NDArray[np.int64],
    seed: int,
) -> dict[str, MapTrial]:
    fresh = untrained(network, RANDOM_SEED)
    maps = []
    for asked in (network, fresh):
        gradients = integrated_gradients(asked.model, asked.standardize, films).maps
        window = max(1, network.size_px // WINDOWS_PER_SIDE)
        maps.append(
            {
                "occlusion": occlusion_maps(asked, films),
                "integrated gradients": gradients,
                "the same, mean of squares": smoothed(gradients, window),
            }
        )
    trials = {
        name: try_maps(name, maps[0][name], maps[1][name], masks, clusters, seed)
        for name in maps[0]
    }
    grey = network.standardize(torch.from_numpy(films))[:, 0].double().numpy()
    name = "the film alone, no model"
    return trials | {name: try_maps(name, grey, None, masks, clusters, seed)}


def _score_words(trials: dict[str, MapTrial], n: int, n_sick: int, split: str) -> LessonPart:
    header = ("map", "AUROC", "with random weights", "in the lesion", "area", "hit", "alike")
    rows = tuple(
        (
            name,
            number_text(trial.trained.mean("auroc")),
            "-" if trial.random is None else number_text(trial.random.mean("auroc")),
            f"{100 * trial.trained.mean('inside'):.1f} %",
            f"{100 * trial.trained.mean('area'):.1f} %",
            f"{100 * trial.trained.mean('hit'):.0f} %",
            "-" if trial.random is None else number_text(trial.alike),
        )
        for name, trial in trials.items()
    )
    return LessonPart(
        "map_scores",
        "Do the maps find the lesions?",
        (
            "Phantoms know where their lesions are, so a map can be marked like an exam: are "
            "lesion pixels more coloured than others (AUROC), which share of the colour lies in "
            "the lesion against the lesion's share of the film, and is the strongest pixel a hit?",
            *in_words(trials),
        ),
        (
            ReportFigure(
                "Maps against known lesions",
                map_scores_chart(list(trials.values()), n=n),
                "AUROC of each kind of map for lesion pixels, trained and with random weights: "
                + "; ".join(f"{row[0]} {row[1]} and {row[2]}" for row in rows),
                header,
                rows,
            ),
        ),
        "AUROC = P(|map| of a lesion pixel > |map| of another pixel);  hit: argmax |map| in lesion",
        "data.source: phantoms (only they know their lesions)",
        "Adebayo et al. 2018, Sanity checks for saliency maps, arXiv:1810.03292; pointing game: "
        "Zhang et al. 2018, doi:10.1007/s11263-017-1059-x",
        notes=(
            f"{n} of {n_sick} sick films of the {split} split; the interval draws patients anew. "
            "`alike` is the rank correlation of the map with that of random weights. Sizes count, "
            "not signs. The film alone is the distance of each pixel from the mean grey: what a "
            "map has beyond it is not just the picture.",
        ),
        numbers={
            name: {
                "auroc": trial.trained.mean("auroc"),
                "auroc_ci": list(trial.auroc_ci),
                "auroc_random": None if trial.random is None else trial.random.mean("auroc"),
                "inside": trial.trained.mean("inside"),
                "area": trial.trained.mean("area"),
                "hit": trial.trained.mean("hit"),
                "n": n,
            }
            for name, trial in trials.items()
        },
    )
