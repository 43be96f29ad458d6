"""A trained model with all that its answers need: preprocessing, calibration, threshold, names.

A checkpoint holds one network or, as an ensemble, several; both answer alike.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_classifier.answers import OK, Scores, answer_columns, at_place, failure, refusal
from xray_classifier.calibration import Calibration
from xray_classifier.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from xray_classifier.data.dataset import Standardize
from xray_classifier.data.decode import film_from_array, prepare, read_film
from xray_classifier.data.dicom_scope import require_in_scope
from xray_classifier.data.signature import Prepared, Signatures, prepared
from xray_classifier.devices import torch_device
from xray_classifier.ensemble import Ensemble, Member, member_weights
from xray_classifier.errors import CheckpointError, DecodeError, UsageError
from xray_classifier.files import printable
from xray_classifier.gate import Gate
from xray_classifier.gating import (
    Strangeness,
    joined,
    member_gate,
    strangeness,
    why_no_gate,
    without_gate,
)
from xray_classifier.inference import predict_logits
from xray_classifier.memory import Memory, recalled, split_tensors
from xray_classifier.metrics import decide, sigmoid
from xray_classifier.model import Architecture, build_network
from xray_classifier.operating_points import OperatingCurve, solve
from xray_classifier.policies import parse_threshold
from xray_classifier.prevalence import at_prevalence
from xray_classifier.refer import ReferBand, curve_prevalence

Image = str | os.PathLike[str] | NDArray[Any]
"""A file, or an array (H, W) or RGB (H, W, 3) of uint8, uint16 or float in [0, 1]."""

GateMode = Literal["refuse", "warn", "off"]
GateOf = Callable[[NDArray[np.uint8], Signatures], tuple[Sequence[float], Sequence[str]]]
"""How strange images (n, S, S) with signatures (n,) are, and why each is refused, `` if it is not;
such as a method that looks at `Classifier.strangeness`."""

TASKS = ("classify", "regress")
PARTS = {
    "task": str,
    "architecture": dict,
    "calibration": dict,
    "threshold": dict,
    "image": dict,
    "labels": dict,
    "data": dict,
    "environment": dict,
    "seed": int,
}


@dataclass(frozen=True)
class Classifier:
    """A model read from a checkpoint.

    Attributes:
        model: What `standardize` gives to outputs (B,), on `device`.
        standardize: uint8 images to standardised ones; an ensemble takes them as they are, for each
            of its members standardises in its own way.
        calibration: Logits to probabilities.
        threshold: Smallest p_sick that is called sick.
        threshold_policy: How it was chosen, in the words of `--threshold`.
        refer: Probabilities that get no decision; None: every image is decided. It belongs to the
            stored threshold, and another one has none.
        prevalence: Share of sick to re-weight the probabilities to, as stated by the user, or None.
        memory: What it remembers of its training images; None where that was taken out.
        content: Everything the checkpoint says.
        path: The checkpoint.
        gate: What an image is held against before it is answered; None where there is none, and
            `gate_off` says why.
    """

    model: nn.Module
    standardize: nn.Module
    calibration: Calibration
    threshold: float
    threshold_policy: str
    refer: ReferBand | None
    prevalence: float | None
    memory: Memory | None
    content: Mapping[str, Any]
    path: Path
    gate: Gate | None = None

    @property
    def gate_off(self) -> str:
        """Why there is no gate, in words; `` where there is one."""
        return why_no_gate(self.content) if self.gate is None else ""

    @property
    def intended_use(self) -> Mapping[str, Any] | None:
        """What the checkpoint says that it is meant for, where a DICOM header can contradict it."""
        stated = self.content.get("intended_use") or {}
        keys = ("modality", "body_part", "view", "min_age_years", "max_age_years")
        return stated if any(stated.get(key) is not None for key in keys) else None

    @property
    def task(self) -> str:
        """classify or regress."""
        return str(self.content["task"])

    @property
    def size_px(self) -> int:
        """Side of the square image that the model sees."""
        return int(self.content["image"]["size"])

    @property
    def folds(self) -> int | None:
        """Folds of the cross-validation whose models this ensemble joins; None for any other."""
        found = (self.content.get("ensemble") or {}).get("folds")
        return None if found is None else int(found)

    @property
    def calibrated_to(self) -> float:
        """Share of sick that the probabilities are right for.

        With Platt's intercept, that of the images they were calibrated on. Without one, that of the
        training as the loss saw it: a weight on the sick counts them as often.

        Raises:
            CheckpointError: Neither is known.
        """
        curve = self.content.get("operating_curve")
        if curve is not None and self.calibration.method == "platt":
            return curve_prevalence(OperatingCurve.from_dict(curve))
        train = (self.content.get("splits") or {}).get("train") or {}
        n_sick, n_healthy = train.get("sick") or 0, train.get("healthy") or 0
        weight = self.content.get("pos_weight")
        if not n_sick or not n_healthy or weight is None:
            raise CheckpointError(
                f"{printable(self.path)} does not say for what share of sick its probabilities are "
                "right, so they cannot be re-weighted; leave --prevalence out"
            )
        return float(n_sick * weight / (n_sick * weight + n_healthy))

    def p_at_prevalence(self, p_sick: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (n,) re-weighted to the stated prevalence, under label shift."""
        if self.prevalence is None:
            raise ValueError("no prevalence was stated")
        return at_prevalence(p_sick, self.calibrated_to, self.prevalence)

    @property
    def module(self) -> nn.Module:
        """A network from prepared images (B, 1, S, S), grey levels 0..255, to logits (B,).

        Standardising is inside, and so is the mean over the members of an ensemble; `prepare` makes
        such an image from a file or an array.
        """
        return nn.Sequential(self.standardize, self.model).eval()

    def prepare(self, image: Image) -> NDArray[np.uint8]:
        """One image as the model sees it.

        Args:
            image: A file, or an array (H, W) or RGB (H, W, 3) of uint8, uint16 or float in [0, 1].

        Returns:
            (S, S) uint8.

        Raises:
            DecodeError: It cannot be read; `reason` says why.
            UsageError: It is neither a path nor an array.
        """
        return self._prepared(image).pixels

    def _prepared(self, image: Image, least_px: int | None = None) -> Prepared:
        settings = self.content["image"]
        known = _known_image(image)
        if isinstance(known, np.ndarray):
            film = film_from_array(known)
        else:
            for_processing = settings.get("for_processing", "reject")
            film = read_film(Path(known), for_processing, least_px)
        return prepared(film, settings["size"], settings["crop"], settings["intensity"])

    def score(self, images: NDArray[np.uint8] | Tensor, rows: Tensor | None = None) -> Scores:
        """Answers for prepared images.

        Args:
            images: (N, S, S) uint8.
            rows: (n,) int64 places in `images`; None takes all.
        """
        outputs = predict_logits(self.model, self.standardize, images, rows)
        return self.score_outputs(outputs)

    def score_outputs(self, outputs: NDArray[np.float64]) -> Scores:
        """Answers from raw outputs (n,)."""
        if self.task == "regress":
            target = self.content["target"]
            numbers = outputs * target["std"] + target["mean"]
            undefined, none = np.full(len(outputs), np.nan), np.zeros(len(outputs), dtype=bool)
            return Scores(numbers, undefined, undefined, none, none)
        p_sick = self.calibration.apply(outputs)
        sick = decide(p_sick, self.threshold)
        none = np.zeros(len(sick), dtype=bool)
        referred = none if self.refer is None else self.refer.inside(p_sick)
        return Scores(outputs, sigmoid(outputs), p_sick, sick, referred)

    def strangeness(
        self, images: NDArray[np.uint8], signatures: Signatures, say_why: bool = True
    ) -> Strangeness:
        """How unlike the training images each image is, and why it is no image for this model.

        Args:
            images: Prepared images, (n, S, S) uint8.
            signatures: Their records of SIGNATURE, (n,).
            say_why: Whether reasons are wanted.
        """
        return strangeness(self.gate, self.model, self.standardize, images, signatures, say_why)

    def require_gate(self, mode: GateMode) -> None:
        """Refuse to promise what nothing can keep.

        Raises:
            CheckpointError: `refuse` is asked of a model without a gate.
        """
        if mode == "refuse" and self.gate is None:
            raise CheckpointError(
                f"--gate refuse: {printable(self.path)} has no input gate ({self.gate_off}), so "
                "that it would refuse nothing; use --gate off, or a model that has one"
            )

    def gate_of(self, mode: GateMode) -> GateOf | None:
        """What `rows` asks about images; None where it need not ask.

        Args:
            mode: `refuse` gives strange images a reason and no answer, `warn` a score alone, `off`
                neither.

        Raises:
            CheckpointError: `refuse` is asked of a model without a gate.
        """
        self.require_gate(mode)
        if mode == "off" or self.gate is None:
            return None

        def asked(
            images: NDArray[np.uint8], signatures: Signatures
        ) -> tuple[list[float], tuple[str, ...]]:
            found = self.strangeness(images, signatures, say_why=mode == "refuse")
            return found.scores.tolist(), found.reasons

        return asked

    def predict(self, images: Sequence[Image] | Image, gate: GateMode = "warn") -> Any:
        """Answers for files or arrays, one row each, in order.

        Args:
            images: One or several files or arrays.
            gate: What to do with images unlike the training data, as `--gate`. Unless it is `off`,
                DICOM headers are held against what the model is meant for.

        Returns:
            A pandas DataFrame with the columns of `xray-classifier predict`; an image that cannot
            be read has status failed or rejected, a reason, and no answer. `path` is the name of
            the file, or "array" with the place among `images`, from 0.

        Raises:
            UsageError: One of them is neither a path nor an array; nothing was read.
        """
        import pandas

        given = _listed(images)
        names = [
            f"array {place}" if isinstance(image, np.ndarray) else printable(os.fspath(image))
            for place, image in enumerate(given)
        ]
        intended_use = None if gate == "off" else self.intended_use
        prepared = [self.attempt(image, intended_use) for image in given]
        return pandas.DataFrame(
            self.rows(names, prepared, self.gate_of(gate)), columns=list(self.columns)
        )

    def attempt(
        self,
        image: Image,
        intended_use: Mapping[str, Any] | None = None,
        least_px: int | None = None,
    ) -> Prepared | DecodeError:
        """One image as the model sees it with its signature, or why there is none.

        Args:
            image: A file or an array.
            intended_use: What the header of a DICOM file is held against; None: nothing.
            least_px: See `read_film`.
        """
        try:
            found = self._prepared(image, least_px)
            if intended_use is not None and not isinstance(image, np.ndarray):
                require_in_scope(Path(image), intended_use)
            return found
        except DecodeError as error:
            return error

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table of predictions."""
        return answer_columns(self.task, self.prevalence is not None)

    def rows(
        self,
        names: Sequence[str],
        attempts: Sequence[Prepared | DecodeError],
        gate_of: GateOf | None = None,
    ) -> list[tuple[Any, ...]]:
        """Rows of a table of predictions.

        Args:
            names: What the `path` column says, length n.
            attempts: What `attempt` gave, length n.
            gate_of: Gives `ood_score` and a reason to refuse, or ``, for images (m, S, S) and their
                signatures (m,); None leaves `ood_score` empty and refuses nothing.
        """
        films = [film for film in attempts if not isinstance(film, DecodeError)]
        answers = iter(self._answers(films, gate_of) if films else ())
        return [
            (name, *failure(film.reason, len(self.columns) - 1))
            if isinstance(film, DecodeError)
            else (name, *next(answers))
            for name, film in zip(names, attempts, strict=True)
        ]

    def _answers(
        self, films: Sequence[Prepared], gate_of: GateOf | None
    ) -> Iterator[tuple[Any, ...]]:
        """What follows the name in each row."""
        images = np.stack([film.pixels for film in films])
        signatures = np.concatenate([film.signature for film in films])
        scores, seen = self.score(images), self.images_seen(signatures)
        moved = None if self.prevalence is None else self.p_at_prevalence(scores.p_sick)
        strange, reasons = (None, None) if gate_of is None else gate_of(images, signatures)
        for place in range(len(films)):
            score = None if strange is None else float(strange[place])
            if reasons is not None and reasons[place]:
                yield refusal(reasons[place], float(score or 0.0), len(self.columns) - 1)
            elif self.task == "regress":
                yield (OK, "", float(scores.logits[place]), seen[place], score)
            else:
                answer = scores.answer(place, self.threshold)
                yield (OK, "", *answer, *at_place(moved, place), seen[place], score)

    def images_seen(self, signatures: Signatures) -> tuple[str, ...]:
        """Whether each image was in the training data: yes, possible, no; `` if nothing tells.

        Args:
            signatures: (n,) records of SIGNATURE.
        """
        if self.memory is None:
            return ("",) * len(signatures)
        return self.memory.images_seen(signatures)


def _listed(images: Sequence[Image] | Image) -> list[Image]:
    """One or several images as a list."""
    alone = isinstance(images, (str, bytes, os.PathLike, np.ndarray))
    if alone or not isinstance(images, Iterable):
        return [_known_image(images)]
    return [_known_image(image, f"image {place}") for place, image in enumerate(images)]


def _known_image(image: Any, called: str = "the image") -> Image:
    """The same image.

    Raises:
        UsageError: It is neither a path nor an array.
    """
    if isinstance(image, (str, os.PathLike, np.ndarray)):
        return image
    raise UsageError(
        f"{called} is of type {type(image).__name__}; expected a path, or a NumPy array (H, W) of "
        "uint8, uint16 or float in [0, 1]"
    )


def load_classifier(
    path: str | Path,
    device: str = "auto",
    threshold: str | float = "auto",
    prevalence: float | None = None,
) -> Classifier:
    """Read a trained model.

    Args:
        path: A checkpoint, or a run folder, of which the best checkpoint is taken.
        device: auto, cpu, cuda, cuda:1 or mps.
        threshold: auto takes the stored one; a probability, `sens=0.95`, `spec=0.90`, `cost=10` or
            `youden` are solved on the validation curve that is stored in the checkpoint.
        prevalence: Share of sick where the answers are used, in (0, 1): adds `p_at_prevalence`.

    Raises:
        CheckpointError: Damaged, foreign, or without what is asked of it.
        UsageError: No such file, or no such threshold, device or prevalence.
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise UsageError(f"--prevalence {prevalence}: must lie between 0 and 1, such as 0.03")
    checkpoint = load_checkpoint(find_checkpoint(Path(path)))
    if checkpoint.require("kind") != "best":
        raise CheckpointError(
            f"{printable(checkpoint.path)} holds the state of a run, for `train --resume`; "
            "evaluate and predict take best.safetensors beside it"
        )
    return assemble(checkpoint, device, threshold, prevalence)


def assemble(
    checkpoint: Checkpoint, device: str, threshold: str | float, prevalence: float | None = None
) -> Classifier:
    """Build the classifier that a checkpoint describes; arguments as in `load_classifier`."""
    _require_parts(checkpoint)
    try:
        architecture = Architecture.from_dict(checkpoint.require("architecture"))
        standardize, model, gate = _network(checkpoint, architecture)
        memory = recalled(checkpoint.tensors, checkpoint.content)
        calibration = Calibration.from_dict(checkpoint.require("calibration"))
        _try_image_settings(checkpoint.require("image"), architecture.size_px)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{printable(checkpoint.path)} does not describe a network that fits its weights"
        ) from error
    number, policy = _threshold(checkpoint, threshold)
    if prevalence is not None and checkpoint.require("task") == "regress":
        raise UsageError("--prevalence: this model predicts a number, not a probability")
    return Classifier(
        model=model.to(torch_device(device)).eval(),
        standardize=standardize,
        calibration=calibration,
        threshold=number,
        threshold_policy=policy,
        refer=_refer_band(checkpoint, number),
        prevalence=prevalence,
        memory=memory,
        content=checkpoint.content,
        path=checkpoint.path,
        gate=gate,
    )


def _network(
    checkpoint: Checkpoint, architecture: Architecture
) -> tuple[nn.Module, nn.Module, Gate | None]:
    """Standardisation, network and gate of a checkpoint: of one model, or of an ensemble."""
    weights, _ = split_tensors(checkpoint.tensors)
    ensemble = checkpoint.content.get("ensemble")
    if ensemble is None:
        standardize, model = _model(architecture, weights, checkpoint.require("pixels"))
        gate = member_gate(weights, model, architecture.size_px)
        return standardize, model, joined([gate])
    parts = ensemble["members"]
    members, gates = [], []
    for part, own in zip(parts, member_weights(weights, len(parts)), strict=True):
        standardize, model = _model(architecture, own, part["pixels"])
        gates.append(member_gate(own, model, architecture.size_px))
        target = part["target"]
        members.append(Member(standardize, model, float(target["mean"]), float(target["std"])))
    return nn.Identity(), Ensemble(members), joined(gates)


def _model(
    architecture: Architecture, weights: Mapping[str, Tensor], pixels: Mapping[str, Any]
) -> tuple[nn.Module, nn.Module]:
    """Standardisation and network of one model."""
    model = build_network(architecture)
    model.load_state_dict(without_gate(weights))
    return Standardize(float(pixels["mean"]), float(pixels["std"])), model


def _require_parts(checkpoint: Checkpoint) -> None:
    for key, kind in PARTS.items():
        part = checkpoint.require(key)
        if not isinstance(part, kind) or (key == "task" and part not in TASKS):
            raise CheckpointError(f"{printable(checkpoint.path)}: its {key!r} makes no sense")


def _try_image_settings(settings: Mapping[str, Any], size_px: int) -> None:
    """Prepare one small picture; ValueError, TypeError or KeyError where the settings are none."""
    if settings["size"] != size_px:
        raise ValueError(f"images of {settings['size']!r} px for a network of {size_px} px")
    ramp = film_from_array(np.arange(16, dtype=np.uint8).reshape(4, 4))
    prepare(ramp, size_px, settings["crop"], settings["intensity"])


def _threshold(checkpoint: Checkpoint, asked: str | float) -> tuple[float, str]:
    stored = checkpoint.require("threshold")
    if checkpoint.require("task") == "regress" and asked != "auto":
        raise UsageError("--threshold: this model predicts a number and has no threshold")
    if asked == "auto":
        try:
            return float(stored["value"]), str(stored["policy"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{printable(checkpoint.path)} stores no threshold; give --threshold a number"
            ) from error
    try:
        policy = parse_threshold(asked)
    except UsageError as error:
        raise UsageError(f"--threshold: {error}") from error
    if policy.kind == "fixed" and policy.target is not None:
        return policy.target, "fixed"
    curve = checkpoint.content.get("operating_curve")
    if curve is None:
        raise CheckpointError(
            f"{printable(checkpoint.path)} stores no validation curve to solve {asked!r} on; "
            "give --threshold a number"
        )
    return solve(OperatingCurve.from_dict(curve), policy), str(policy)


def _refer_band(checkpoint: Checkpoint, threshold: float) -> ReferBand | None:
    """The stored band, where the threshold is the stored one."""
    stored = checkpoint.content.get("refer")
    if stored is None or threshold != checkpoint.require("threshold").get("value"):
        return None
    return ReferBand.from_dict(stored)


def run_of(path: Path) -> Path | None:
    """The run folder that a checkpoint belongs to, or None where it stands alone."""
    run = path.absolute().parent.parent
    return run if (run / "history.csv").is_file() or (run / "members").is_dir() else None
