"""Do maps of evidence point at the lesion? Phantoms know where theirs are, so they can be asked."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_classifier.bootstrap import cluster_bootstrap_interval
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.metrics import auroc, midranks

Floats = NDArray[np.float64]
MEASURES = ("auroc", "inside", "area", "hit")
RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class MapScores:
    """How well the maps of some films find the lesions, film by film.

    Attributes:
        auroc: Chance that a random lesion pixel has a larger size of the map than a random other
            pixel of the film, (n,); 0.5 is no better than chance.
        inside: Share of the map's size that lies in the lesion, (n,).
        area: Share of the film that is lesion, (n,): what `inside` would be by chance.
        hit: Whether the largest size of the map lies in the lesion, (n,) of 0 and 1.
    """

    auroc: Floats
    inside: Floats
    area: Floats
    hit: Floats

    def mean(self, measure: str) -> float:
        """Mean over films of one of MEASURES."""
        return float(getattr(self, measure).mean())


@dataclass(frozen=True, eq=False)
class MapTrial:
    """One kind of map, of the trained network and of one with random weights.

    Attributes:
        name: Such as integrated gradients.
        trained: Scores of the run's network.
        random: Of the same network with fresh weights; None where no network is asked.
        alike: Mean rank correlation of the sizes of both maps, in [-1, 1]; NaN without `random`.
        auroc_ci: 95 % interval of the mean AUROC of `trained`, patients resampled.
        gain_ci: The same of the mean difference in AUROC to `random`; NaN without.
    """

    name: str
    trained: MapScores
    random: MapScores | None
    alike: float
    auroc_ci: tuple[float, float]
    gain_ci: tuple[float, float]

    @property
    def gain(self) -> float:
        """Mean difference in AUROC to the random network; NaN without one."""
        if self.random is None:
            return float("nan")
        return float((self.trained.auroc - self.random.auroc).mean())


def score_maps(maps: Floats, masks: NDArray[np.bool_]) -> MapScores:
    """Hold maps against lesions.

    Args:
        maps: (n, S, S); their sizes count, not their signs.
        masks: (n, S, S); each has pixels inside and outside.

    Source:
        Pointing game: Zhang et al. 2018, doi:10.1007/s11263-017-1059-x, without a margin.
    """
    size = np.abs(maps)
    ranks = [auroc(m.ravel().astype(int), s.ravel()) for m, s in zip(masks, size, strict=True)]
    total = size.sum(axis=(1, 2))
    within = (size * masks).sum(axis=(1, 2))
    area = masks.mean(axis=(1, 2))
    inside = np.where(total > 0, within / np.where(total > 0, total, 1.0), area)
    places = size.reshape(len(size), -1).argmax(axis=1)
    hit = masks.reshape(len(masks), -1)[np.arange(len(masks)), places]
    return MapScores(np.array(ranks), inside, area, hit.astype(np.float64))


def try_maps(
    name: str,
    trained: Floats,
    random: Floats | None,
    masks: NDArray[np.bool_],
    clusters: NDArray[np.int64],
    seed: int = 0,
) -> MapTrial:
    """Score maps of a trained network beside those of one with random weights.

    Args:
        name: Of the kind of map.
        trained: (n, S, S).
        random: (n, S, S) of the random network; None where there is none.
        masks: (n, S, S).
        clusters: Patient number of each film, (n,).
        seed: Of the resamples.
    """
    scores = score_maps(trained, masks)
    other = None if random is None else score_maps(random, masks)
    nan = (float("nan"), float("nan"))
    return MapTrial(
        name,
        scores,
        other,
        float("nan") if random is None else _alike(trained, random),
        _interval(scores.auroc, clusters, seed),
        nan if other is None else _interval(scores.auroc - other.auroc, clusters, seed),
    )


def smoothed(maps: Floats, window_px: int) -> Floats:
    """The mean of each map over a square around each pixel, cut off at the border.

    Args:
        maps: (n, S, S).
        window_px: Side of the square; an even one becomes the next odd one.
    """
    import torch
    from torch.nn.functional import avg_pool2d

    half = window_px // 2
    pooled = avg_pool2d(
        torch.from_numpy(maps)[:, None], 2 * half + 1, stride=1, padding=half,
        count_include_pad=False,
    )  # fmt: skip
    found: Floats = pooled[:, 0].numpy()
    return found


def _alike(one: Floats, other: Floats) -> float:
    """Mean Spearman correlation of the sizes of two maps of each film; NaN where all are even."""
    found = []
    for a, b in zip(one, other, strict=True):
        ranks = midranks(np.abs(a).ravel()), midranks(np.abs(b).ravel())
        if all(np.ptp(rank) > 0 for rank in ranks):
            found.append(np.corrcoef(*ranks)[0, 1])
    return float(np.mean(found)) if found else float("nan")


def _interval(values: Floats, clusters: NDArray[np.int64], seed: int) -> tuple[float, float]:
    if np.ptp(values) == 0:  # all films agree, and so do all resamples
        return float(values[0]), float(values[0])
    found = cluster_bootstrap_interval(
        lambda weights: weights @ values / weights.sum(axis=1), clusters, RESAMPLES, seed
    )
    return found.low, found.high


def lesion_masks(radiographs: Radiographs, rows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Where the lesions of phantoms lie on the films as the model sees them, (n, S, S).

    A pixel belongs to a lesion where at least half of it does; a lesion that is too small for that
    keeps the pixel that it fills most.

    Args:
        radiographs: The images.
        rows: Sick ones.

    Returns:
        None where the images are no phantoms.
    """
    manifest = radiographs.manifest
    if manifest.kind != "phantoms" or manifest.phantom_seed is None:
        return None
    size = radiographs.images.shape[1]
    numbers = [manifest.phantom_rows[row] for row in rows]
    masks = [draw_phantom(manifest.phantom_seed, number).lesion_mask for number in numbers]
    return np.stack([_shrunk(mask, size) for mask in masks])


def _shrunk(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    from PIL import Image

    share = Image.fromarray(mask.astype(np.float32)).resize((size, size), Image.Resampling.BOX)
    filled = np.asarray(share)
    return filled >= min(0.5, float(filled.max()))


def in_words(trials: Mapping[str, MapTrial]) -> list[str]:
    """What the scores prove and what they do not, one sentence for each kind of map."""
    return [_verdict(trial) for trial in trials.values() if trial.random is not None]


def _verdict(trial: MapTrial) -> str:
    mean, (low, high) = trial.trained.mean("auroc"), trial.gain_ci
    against = f"{trial.gain:+.2f} (95 % interval {low:+.2f} to {high:+.2f}) against random weights"
    if low > 0 and trial.auroc_ci[0] > 0.5:
        proof = "so the map shows something that training put there"
    elif high < 0:
        proof = "so training has drawn it away from the lesions"
    else:
        proof = "so the map proves nothing about lesions, however convincing it looks"
    return f"{trial.name}: AUROC {mean:.2f} for lesion pixels, {against}: {proof}."
