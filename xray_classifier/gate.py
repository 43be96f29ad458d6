"""Whether an image is of the kind that a model was trained on, before it is answered.

A model gives any picture a probability, a holiday photograph as well. So each image is measured in
several ways against the training images: what it is plainly not (blank, coloured, very long, noise,
black and white swapped), then how far its coarse grey levels, its texture and its place in the
network's last hidden layer lie from theirs. Each measure is divided by its limit, and the largest
of these shares is the image's `ood_score`: above 1 it is refused. The limits of the distances are
set on images that no weight learnt from, so that together they refuse at most one in a hundred of
such images, with 95 % confidence.

What is kept are means, directions of spread and a median film; no training image is among them.

Source: Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples",
arXiv:1807.03888, for the distance on features of the network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xray_classifier.data.film_views import (
    BLOCKS,
    aspect,
    block_means,
    likeness,
    smoothness,
    texture,
    texture_length,
)
from xray_classifier.data.quality import (
    ALMOST_BLANK,
    COLOURED,
    INVERTED,
    LONGEST_ASPECT,
    typical_film,
)
from xray_classifier.data.signature import THUMB_PX, Signatures
from xray_classifier.mahalanobis import PARTS, Cloud, fit_cloud

PREFIX = "gate."
LIMITS, TYPICAL, CHOSEN = f"{PREFIX}limits", f"{PREFIX}typical", f"{PREFIX}chosen"

STRANGE = 1.0
"""An image whose score is above this is refused."""

FALSE_REJECTS = 0.01
"""Share of images of the training kind that the distances may refuse together."""

FEWEST_TO_FIT = 50
FEWEST_TO_LIMIT = 20
"""With fewer training or held-out images there is no gate: their spread cannot be told."""

CONFIDENCE = 0.95
"""How sure a limit is to refuse no more of new images than it may. A limit that refuses exactly one
in a hundred held-out images refuses more of new ones in every second run."""

DEVIATIONS = 3.0
"""With fewer than 299 held-out images even the largest distance among them gives no such surety:
then the limit is no lower than this many standard deviations above their mean."""

NETWORK_AXES = 32
MOST_FEATURES = 512
"""Of a wider last layer, only the features that vary most are measured."""

ROUGH = 0.5
"""Correlation of neighbouring pixels below which a picture shows no shapes. Chest films have 0.73
and more, films of hands, hips and breasts 0.86 and more, white noise 0.3, text 0.2 to 0.8."""

BEYOND_TRAINING = 1.25
"""What training images themselves have is no ground to refuse, nor is a quarter more of it."""

SMALLEST = 1e-9
LARGEST_SCORE = 1e6

REASONS = {
    "almost_blank": "shows next to nothing",
    "not_a_radiograph": "coloured, very long, or without shapes, as noise or a page of text",
    "inverted": "black and white are swapped, compared with the training images",
    "turned": "upside down or on its side, compared with the training images",
    "out_of_distribution": "unlike the training images: another part of the body, projection, "
    "patient group or technique, or no radiograph",
}
"""Why the gate refuses an image; `` where it does not."""

CHEAP = ("blank", "colour", "aspect", "rough", "polarity")
DISTANCES = ("grey", "texture", "network")
MEASURES = (*CHEAP, *DISTANCES)
"""What is measured, in the order of the columns of `Gate.shares`."""

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Views:
    """What the gate sees of n images.

    Attributes:
        signatures: (n,) records of SIGNATURE.
        grey: Coarse grey levels and texture, (n, 64 + t).
        texture: (n, t).
        network: Features of the last hidden layer, (n, d); None where a network has none.
    """

    signatures: Signatures
    grey: Floats
    texture: Floats
    network: Floats | None = None


def views(images: Images, signatures: Signatures, network: Floats | None = None) -> Views:
    """What the gate sees of prepared images (n, S, S) and their signatures (n,)."""
    return Views(signatures, *coarse_views(images), network)


def coarse_views(images: Images) -> tuple[Floats, Floats]:
    """Coarse grey levels with texture, (n, 64 + t), and texture alone, (n, t)."""
    rough = texture(images)
    return np.hstack([block_means(images), rough]), rough


@dataclass(frozen=True, eq=False)
class MemberGate:
    """The training images as one network saw them.

    Attributes:
        limits: What each of MEASURES may be at most, (8,); of `blank` and `rough` at least.
        typical: Median film of the training images, (32, 32) ranks 0 to 255; None where they do
            not resemble one another.
        grey: Cloud of coarse grey levels and texture.
        texture: Cloud of texture alone.
        network: Cloud of features of the last hidden layer; None where a network has none.
        chosen: Which of them it is a cloud of, (k,).
    """

    limits: Floats
    typical: Floats | None
    grey: Cloud
    texture: Cloud
    network: Cloud | None = None
    chosen: NDArray[np.int64] | None = None

    def shares(self, seen: Views) -> Floats:
        """Each of MEASURES as a share of its limit, (n, 8); above 1 is beyond it."""
        limits = dict(zip(MEASURES, self.limits, strict=True))
        spread = seen.signatures["spread"].astype(np.float64)
        columns = {
            "blank": limits["blank"] / np.maximum(spread, SMALLEST),
            "colour": seen.signatures["colour"].astype(np.float64) / limits["colour"],
            "aspect": aspect(seen.signatures) / limits["aspect"],
            "rough": (1.0 - smoothness(seen.signatures)) / (1.0 - limits["rough"]),
            "polarity": (1.0 - self.likeness(seen.signatures)) / (1.0 - limits["polarity"]),
        }
        columns |= {
            name: far / limits[name] for name, far in zip(DISTANCES, self.far(seen), strict=True)
        }
        shares = np.stack([columns[name] for name in MEASURES], axis=1)
        return np.asarray(np.clip(shares, 0.0, LARGEST_SCORE))

    def far(self, seen: Views) -> tuple[Floats, Floats, Floats]:
        """The three distances, (n,) each; 0 for what a network does not have."""
        network = np.zeros(len(seen.grey))
        if self.network is not None and self.chosen is not None and seen.network is not None:
            network = self.network.distances(seen.network[:, self.chosen])
        return self.grey.distances(seen.grey), self.texture.distances(seen.texture), network

    def likeness(self, signatures: Signatures) -> Floats:
        """Correlation with the typical film, (n,); 1 where there is none."""
        if self.typical is None:
            return np.ones(len(signatures))
        return likeness(signatures, self.typical)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        arrays: dict[str, NDArray[np.generic]] = {LIMITS: self.limits}
        if self.typical is not None:
            arrays[TYPICAL] = self.typical.astype(np.float32)
        if self.chosen is not None:
            arrays[CHOSEN] = self.chosen.astype(np.int32)
        for name, cloud in self._clouds().items():
            arrays |= {f"{PREFIX}{name}.{part}": a for part, a in cloud.arrays().items()}
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def _clouds(self) -> dict[str, Cloud]:
        clouds = {"grey": self.grey, "texture": self.texture, "network": self.network}
        return {name: cloud for name, cloud in clouds.items() if cloud is not None}


@dataclass(frozen=True, eq=False)
class Gate:
    """Whether images are of the kind that a model was trained on.

    Attributes:
        members: Of each network; of an ensemble the mean of what its members find counts.
    """

    members: tuple[MemberGate, ...]

    def shares(
        self, images: Images, signatures: Signatures, features: Sequence[Floats | None]
    ) -> Floats:
        """Each of MEASURES as a share of its limit, (n, 8).

        Args:
            images: Prepared images, (n, S, S).
            signatures: (n,) records of SIGNATURE.
            features: Of each member's last hidden layer, (n, d); None where it has none.
        """
        seen = views(images, signatures)
        found = [
            member.shares(replace(seen, network=own))
            for member, own in zip(self.members, features, strict=True)
        ]
        return np.asarray(np.mean(found, axis=0))

    def scores(
        self, images: Images, signatures: Signatures, features: Sequence[Floats | None]
    ) -> Floats:
        """How strange each image is, (n,): 0 and up, and above 1 it is refused."""
        return scores_of(self.shares(images, signatures, features))

    def reasons(self, images: Images, signatures: Signatures, shares: Floats) -> tuple[str, ...]:
        """Why each image is refused, one of REASONS; `` where it is not.

        Args:
            images: Prepared images, (n, S, S).
            signatures: (n,) records of SIGNATURE.
            shares: What `shares` gave for them.
        """
        return tuple(
            self._reason(images[row], signatures[row : row + 1], shares[row])
            if scores_of(shares[row : row + 1])[0] > STRANGE
            else ""
            for row in range(len(images))
        )

    def _reason(self, image: Images, signature: Signatures, shares: Floats) -> str:
        found = dict(zip(MEASURES, shares.tolist(), strict=True))
        if found["blank"] > STRANGE:
            return "almost_blank"
        if max(found[name] for name in ("colour", "aspect", "rough")) > STRANGE:
            return "not_a_radiograph"
        if found["polarity"] > STRANGE and self._fits(255 - image):
            return "inverted"
        turns = [np.rot90(image, quarter) for quarter in (1, 2, 3)]
        if found["grey"] > STRANGE and any(self._fits(turned) for turned in turns):
            return "turned"
        return "out_of_distribution"

    def _fits(self, image: Images) -> bool:
        """Whether the grey levels of one image (S, S) are such as the training images have."""
        grey, _ = coarse_views(image[None])
        limit = MEASURES.index("grey")
        shares = [m.grey.distances(grey)[0] / m.limits[limit] for m in self.members]
        return bool(np.mean(shares) <= STRANGE)


def scores_of(shares: Floats) -> Floats:
    """The score of each image: the largest of its shares, (n,)."""
    return np.asarray(shares.max(axis=1)) if len(shares) else np.zeros(0)


def fit_look(seen: Views) -> MemberGate:
    """All of a gate that does not depend on a network; the limits of its distances are 1.

    Args:
        seen: The training images, FEWEST_TO_FIT or more.
    """
    signatures = seen.signatures
    typical = typical_film(signatures)
    look = MemberGate(
        limits=np.ones(len(MEASURES)),
        typical=None if typical is None else typical.astype(np.float32).astype(np.float64),
        grey=fit_cloud(seen.grey),
        texture=fit_cloud(seen.texture),
    )
    limits = {
        "blank": min(ALMOST_BLANK, float(signatures["spread"].min()) / BEYOND_TRAINING),
        "colour": max(COLOURED, BEYOND_TRAINING * float(signatures["colour"].max())),
        "aspect": max(np.log(LONGEST_ASPECT), BEYOND_TRAINING * float(aspect(signatures).max())),
        "rough": _below(ROUGH, float(smoothness(signatures).min())),
        "polarity": _below(INVERTED, float(look.likeness(signatures).min())),
    }
    values = [limits.get(name, 1.0) for name in MEASURES]
    return replace(look, limits=np.array(values, dtype=np.float64))


def _below(limit: float, lowest: float) -> float:
    """A limit for a correlation that leaves the training images room."""
    return min(limit, 1.0 - BEYOND_TRAINING * (1.0 - lowest))


def fit_gate(look: MemberGate, network: Floats | None, held: Views) -> MemberGate:
    """A gate with the network's features, and limits set on held-out images.

    Args:
        look: What `fit_look` made of the training images.
        network: Features of training images, (n, d); None where the network has none.
        held: Images that no weight learnt from, with their features; FEWEST_TO_LIMIT or more.
    """
    gate = look
    if network is not None:
        varied = np.argsort(-network.std(axis=0), kind="stable")[:MOST_FEATURES]
        chosen = np.sort(varied)
        cloud = fit_cloud(network[:, chosen], NETWORK_AXES, scaled=False)
        gate = replace(look, network=cloud, chosen=chosen)
    far = gate.far(held)
    single = [upper_limit(one) for one in far]
    shares = [one / limit for one, limit in zip(far, single, strict=True)]
    # each alone refuses so many; all of them together must not refuse more
    together = upper_limit(np.max(shares, axis=0)) * (1.0 + SMALLEST)
    limits = look.limits.copy()
    limits[len(CHEAP) :] = [max(limit * together, SMALLEST) for limit in single]
    return replace(gate, limits=limits)


def upper_limit(values: Floats) -> float:
    """A limit that FALSE_REJECTS of other such values exceed at the most, with CONFIDENCE.

    It is the smallest of the values for which that holds; where there are too few to tell, the
    largest, or DEVIATIONS above the mean if that is more. 1 if all values are 0.

    Args:
        values: At least one, (n,).

    Source:
        Wilks 1941, doi:10.1214/aoms/1177731788, the tolerance limit without a distribution.
    """
    ordered = np.sort(values)
    above = values_above(len(ordered))
    if above is None:
        limit = max(float(ordered[-1]), float(ordered.mean() + DEVIATIONS * ordered.std()))
    else:
        limit = float(ordered[-1 - above])
    return limit if limit > 0 else 1.0


def values_above(n: int) -> int | None:
    """How many of n values may lie above a limit; None where even none above says too little.

    The largest k for which n draws, each above with a chance of FALSE_REJECTS, would seldom give k
    or fewer: with a chance of 1 - CONFIDENCE at the most.
    """
    chance, total, most = (1.0 - FALSE_REJECTS) ** n, 0.0, None
    for k in range(n):
        total += chance
        if total > 1.0 - CONFIDENCE:
            break
        most = k
        chance *= (n - k) / (k + 1) * FALSE_REJECTS / (1.0 - FALSE_REJECTS)
    return most


def require_fit(gate: MemberGate, size_px: int, n_features: int | None) -> None:
    """Refuse a gate of another network.

    Args:
        gate: As stored beside a network.
        size_px: Side of the images that the network sees.
        n_features: What its output perceptron weighs; None for a lone perceptron.

    Raises:
        ValueError: It measures what this network does not have.
    """
    n_texture = texture_length(size_px)
    sizes = (len(gate.grey.mean), len(gate.texture.mean))
    chosen = np.zeros(0, np.int64) if gate.chosen is None else gate.chosen
    inside = bool(((chosen >= 0) & (chosen < (n_features or 0))).all())
    if sizes != (BLOCKS**2 + n_texture, n_texture) or not inside:
        raise ValueError("a gate of another network")


def is_of_gate(name: str) -> bool:
    """Whether a tensor of a checkpoint belongs to the gate of its network."""
    return name.startswith(PREFIX)


def gate_of(tensors: Mapping[str, Tensor]) -> MemberGate | None:
    """The gate among the tensors of one network; None where there is none.

    Raises:
        ValueError: Its parts are none of a gate.
        KeyError: One is missing.
    """
    if LIMITS not in tensors:
        return None
    limits = tensors[LIMITS].numpy().astype(np.float64)
    typical = tensors[TYPICAL].numpy().astype(np.float64) if TYPICAL in tensors else None
    sound = limits.shape == (len(MEASURES),) and bool(np.isfinite(limits).all())
    if not sound or not (typical is None or typical.shape == (THUMB_PX, THUMB_PX)):
        raise ValueError("a gate with other limits or another typical film")
    if (limits[[MEASURES.index(name) for name in ("colour", "aspect", *DISTANCES)]] <= 0).any():
        raise ValueError("a gate whose limits are not above 0")
    chosen = tensors[CHOSEN].numpy().astype(np.int64) if CHOSEN in tensors else None
    clouds = {
        name: Cloud.from_arrays({part: tensors[f"{PREFIX}{name}.{part}"].numpy() for part in PARTS})
        for name in DISTANCES
        if f"{PREFIX}{name}.mean" in tensors
    }
    network = clouds.get("network")
    n_features = None if network is None else len(network.mean)
    if n_features != (None if chosen is None else len(chosen)):
        raise ValueError("a gate whose features are not those of its cloud")
    return MemberGate(limits, typical, clouds["grey"], clouds["texture"], network, chosen)
