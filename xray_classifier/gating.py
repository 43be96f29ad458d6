"""The input gate of a network: its features, the moment it is fitted, and what it says of images.

The features change with every epoch, so a gate is finished whenever a best checkpoint is written.
What does not depend on the network is measured once per run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_classifier.data.loading import Radiographs
from xray_classifier.data.signature import Signatures
from xray_classifier.ensemble import Ensemble
from xray_classifier.gate import (
    FEWEST_TO_FIT,
    FEWEST_TO_LIMIT,
    Floats,
    Gate,
    Images,
    MemberGate,
    Views,
    fit_gate,
    fit_look,
    gate_of,
    is_of_gate,
    require_fit,
    scores_of,
    views,
)
from xray_classifier.inference import INFERENCE_ROWS, predict_logits
from xray_classifier.model import PerceptronStack

MOST_TO_FIT = 4000
MOST_TO_LIMIT = 2000
MOST_THROUGH_NETWORK = 2000
"""Images measured at the most, evenly over those there are: fitting is part of every best epoch."""

NO_HELD_OUT = "the run has no held-out images to set its limits on"
NEVER_FITTED = "this checkpoint was written without one"


@dataclass(frozen=True)
class Strangeness:
    """What the gate says of n images.

    Attributes:
        scores: `ood_score`, (n,): 0 and up, above 1 the image is strange; NaN without a gate.
        reasons: One of gate.REASONS; `` where the image is none, or without a gate.
    """

    scores: Floats
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class GatePlan:
    """The images that a run's gate is fitted to.

    Attributes:
        radiographs: Of the run.
        train: Rows of training images that are measured, (n,).
        held: Rows of held-out images that set the limits, (m,).
        split: Which split those are.
        why_off: Why there is no gate; `` where there is one.
    """

    radiographs: Radiographs
    train: NDArray[np.int64]
    held: NDArray[np.int64]
    split: str
    why_off: str

    @cached_property
    def look(self) -> MemberGate:
        """What does not depend on the network."""
        return fit_look(self._views(self.train))

    @cached_property
    def held_views(self) -> Views:
        """The held-out images, without features."""
        return self._views(self.held)

    def _views(self, rows: NDArray[np.int64]) -> Views:
        return views(self.radiographs.images[rows], self.radiographs.signatures[rows])

    def fitted(self, model: nn.Module, standardize: nn.Module) -> MemberGate | None:
        """The gate of a network as its weights are now; None where there is none.

        Args:
            model: Maps what `standardize` gives to outputs (B,).
            standardize: uint8 images to what the network sees.
        """
        if self.why_off:
            return None
        images = self.radiographs.images
        some = spaced(self.train, MOST_THROUGH_NETWORK)
        trained = penultimate(model, standardize, images[some])
        if trained is None:
            return fit_gate(self.look, None, self.held_views)
        held = penultimate(model, standardize, images[self.held])
        return fit_gate(self.look, trained, replace(self.held_views, network=held))

    def saved(
        self, model: nn.Module, standardize: nn.Module
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and words for a best checkpoint of a network as its weights are now."""
        gate = self.fitted(model, standardize)
        content = {
            "on": gate is not None,
            "why_off": self.why_off or None,
            "train_images": len(self.train),
            "held_out_images": len(self.held),
            "limits_from": self.split,
        }
        return {} if gate is None else gate.tensors(), content


def gate_plan(
    radiographs: Radiographs, train: NDArray[np.int64], held: NDArray[np.int64], split: str
) -> GatePlan:
    """The images for a gate.

    Args:
        radiographs: Of the run.
        train: Rows of the training images.
        held: Rows of images that no weight learns from.
        split: What to call those: val or calibrate.
    """
    why_off = ""
    if len(train) < FEWEST_TO_FIT or len(held) < FEWEST_TO_LIMIT:
        why_off = (
            f"too few images: {len(train)} for training and {len(held)} held out; "
            f"{FEWEST_TO_FIT} and {FEWEST_TO_LIMIT} are needed"
        )
    return GatePlan(
        radiographs, spaced(train, MOST_TO_FIT), spaced(held, MOST_TO_LIMIT), split, why_off
    )


def spaced(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the rows, evenly over all of them."""
    if len(rows) <= most:
        return rows
    return rows[np.arange(most) * len(rows) // most]


def penultimate(model: nn.Module, standardize: nn.Module, images: Images | Tensor) -> Floats | None:
    """What the output perceptron of one network weighs, the same in any company.

    Args:
        model: A stack or a mixer, not an ensemble.
        standardize: uint8 images to what it sees.
        images: (n, S, S) uint8.

    Returns:
        (n, d); None for a lone perceptron, which weighs the pixels themselves.
    """
    n_features = width(model)
    if n_features is None:
        return None
    caught: list[Tensor] = []
    hook = model.get_submodule("output").register_forward_pre_hook(
        lambda _, given: caught.append(given[0].detach().cpu().double())
    )
    try:
        predict_logits(model, standardize, images)
    finally:
        hook.remove()
    if not caught:
        return np.zeros((0, n_features))
    n = len(images)
    # the last batch was filled up with zeros
    whole = [part[: n - number * INFERENCE_ROWS] for number, part in enumerate(caught)]
    return torch.cat(whole).numpy()


def width(model: nn.Module) -> int | None:
    """How many features the output perceptron of one network weighs; None for a lone one."""
    if isinstance(model, PerceptronStack) and not len(model.hidden):
        return None
    output = model.get_submodule("output")
    return output.in_features if isinstance(output, nn.Linear) else None


def member_gate(tensors: Mapping[str, Tensor], model: nn.Module, size_px: int) -> MemberGate | None:
    """The gate stored beside the weights of one network; None where there is none.

    Raises:
        ValueError: It is none, or one of another network.
        KeyError: A part of it is missing.
    """
    gate = gate_of(tensors)
    if gate is not None:
        require_fit(gate, size_px, width(model))
    return gate


def joined(gates: Sequence[MemberGate | None]) -> Gate | None:
    """The gate of all networks together; None where one has none."""
    known = [gate for gate in gates if gate is not None]
    return Gate(tuple(known)) if len(known) == len(gates) else None


def features_of(
    model: nn.Module, standardize: nn.Module, images: Images
) -> tuple[Floats | None, ...]:
    """`penultimate` of each member of an ensemble, or of the one network that there is."""
    if not isinstance(model, Ensemble):
        return (penultimate(model, standardize, images),)
    return tuple(
        penultimate(member.get_submodule("model"), member.get_submodule("standardize"), images)
        for member in model.members
    )


def strangeness(
    gate: Gate | None,
    model: nn.Module,
    standardize: nn.Module,
    images: Images,
    signatures: Signatures,
    say_why: bool = True,
) -> Strangeness:
    """What the gate says of prepared images.

    Args:
        gate: None says nothing.
        model: The network or ensemble that the gate belongs to.
        standardize: uint8 images to what it sees.
        images: (n, S, S) uint8.
        signatures: (n,) records of SIGNATURE.
        say_why: Whether reasons are wanted; finding them means turning each strange image about.
    """
    if gate is None or not len(images):
        return Strangeness(np.full(len(images), np.nan), ("",) * len(images))
    shares = gate.shares(images, signatures, features_of(model, standardize, images))
    why = gate.reasons(images, signatures, shares) if say_why else ("",) * len(images)
    return Strangeness(scores_of(shares), why)


def without_gate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one network."""
    return {name: tensor for name, tensor in tensors.items() if not is_of_gate(name)}


def why_no_gate(content: Mapping[str, Any]) -> str:
    """Why a checkpoint has no gate, in words."""
    return str((content.get("gate") or {}).get("why_off") or NEVER_FITTED)
