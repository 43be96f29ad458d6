"""Several models as one: the mean of their answers, and one checkpoint that holds them all.

The mean is taken over logits, not over probabilities. Both are sound pools of opinions, and for
both the log loss of the pool is at most the mean log loss of its members, since that loss is convex
in either. The mean logit remains a logit: calibration, threshold and curve treat it as that of one
model, and it is not flattened by members whose sigmoid has saturated. Members of a regression are
averaged as numbers.

Source: Genest & Zidek 1986, doi:10.1214/ss/1177013825, the logarithmic opinion pool; Hansen &
Salamon 1990, doi:10.1109/34.58871, ensembles of networks that differ by their start.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xray_classifier.checkpoint import Checkpoint
from xray_classifier.errors import CheckpointError
from xray_classifier.files import printable
from xray_classifier.memory import Memory, recalled, split_tensors

SHARED = ("kind", "task", "classes", "labels", "image", "architecture")
"""What all members of an ensemble must agree on."""
OF_ONE = ("format", "format_version", "pixels", "epoch", "step")
"""What a checkpoint says of one model only."""
AS_IT_IS = {"mean": 0.0, "std": 1.0}
"""Scale of an output that is a logit, or already in the unit of the number predicted."""


class Member(nn.Module):
    """One model with its own standardisation, and its own scale where it predicts a number.

    Args:
        standardize: Grey levels 0..255, (B, S, S) or (B, 1, S, S), to what the model sees.
        model: Standardised images to outputs (B,).
        mean: Added to the scaled output; 0 for a logit.
        std: Factor of the output; 1 for a logit.
    """

    def __init__(self, standardize: nn.Module, model: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.standardize = standardize
        self.model = model
        self.mean = mean
        self.std = std

    def forward(self, images: Tensor) -> Tensor:
        """Map grey levels 0..255 to logits, or to numbers in their own unit, (B,) float32."""
        outputs: Tensor = self.model(self.standardize(images)).float()
        return outputs * self.std + self.mean


class Ensemble(nn.Module):
    """The mean of several models.

    Args:
        members: At least one.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble without members")
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Map grey levels 0..255, (B, S, S) or (B, 1, S, S), to the mean output (B,)."""
        return torch.stack([member(images) for member in self.members]).mean(dim=0)


def member_weights(weights: Mapping[str, Tensor], n_members: int) -> list[dict[str, Tensor]]:
    """The weights of each member of an ensemble, by the names that its network has for them.

    Args:
        weights: As `united` names them: `member0.output.bias` and so on.
        n_members: How many there must be.

    Raises:
        ValueError: A tensor belongs to none of them.
    """
    found: list[dict[str, Tensor]] = [{} for _ in range(n_members)]
    places = {f"member{number}": number for number in range(n_members)}
    for name, tensor in weights.items():
        owner, _, own_name = name.partition(".")
        if owner not in places:
            raise ValueError(f"{name} belongs to no member")
        found[places[owner]][own_name] = tensor
    return found


def united(members: Sequence[Checkpoint]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and content of one checkpoint that holds several models.

    What is said of the data, the calibration and the threshold is that of the first member, for the
    caller to replace.

    Args:
        members: Best checkpoints; at least one.

    Raises:
        CheckpointError: A member does another task, or sees images that were prepared otherwise.
    """
    first = members[0]
    for other in members[1:]:
        for key in SHARED:
            if other.require(key) != first.require(key):
                raise CheckpointError(
                    f"{printable(other.path)} and {printable(first.path)} differ in {key!r} and "
                    "make no ensemble; train them with one config"
                )
    tensors: dict[str, Tensor] = {}
    for number, member in enumerate(members):
        weights, _ = split_tensors(member.tensors)
        tensors |= {f"member{number}.{name}": tensor for name, tensor in weights.items()}
    memory = united_memory([recalled(m.tensors, m.content) for m in members])
    if memory is not None:
        tensors |= memory.tensors()
    content = {key: value for key, value in first.content.items() if key not in OF_ONE}
    return tensors, {
        **content,
        "target": None if first.content.get("target") is None else AS_IT_IS,
        "memory": None if memory is None else memory.content(),
        "ensemble": {"members": [_of_member(member) for member in members]},
    }


def _of_member(member: Checkpoint) -> dict[str, Any]:
    """What an ensemble says of one of its members."""
    content = member.content
    return {
        "pixels": member.require("pixels"),
        "target": content.get("target") or AS_IT_IS,
        "seed": member.require("seed"),
        "fold": member.require("data").get("split", {}).get("fold"),
        "epoch": content.get("epoch"),
        "step": content.get("step"),
    }


def united_memory(memories: Sequence[Memory | None]) -> Memory | None:
    """All training images and patients of several models; None where one remembers nothing.

    Patients are forgotten where they were kept under different keys: they cannot be compared.
    """
    known = [memory for memory in memories if memory is not None]
    if not known or len(known) < len(memories):
        return None
    width = known[0].pixels.shape[1]
    images = np.concatenate([np.hstack([m.pixels, m.perceptual]) for m in known])
    images = np.unique(images, axis=0) if len(images) else images
    keys = {memory.key for memory in known if memory.patients}
    one_key = len(keys) == 1
    return Memory(
        pixels=images[:, :width],
        perceptual=images[:, width:],
        patients=frozenset().union(*(m.patients for m in known)) if one_key else frozenset(),
        key=keys.pop() if one_key else None,
    )
