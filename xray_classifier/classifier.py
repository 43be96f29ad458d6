"""A trained model with all that its answers need: preprocessing, calibration, threshold, names.

A checkpoint holds one network or, as an ensemble, several; both answer alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_classifier.calibration import Calibration
from xray_classifier.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from xray_classifier.data.dataset import Standardize
from xray_classifier.data.decode import film_from_array, prepare, read_film
from xray_classifier.data.signature import Prepared, Signatures, prepared
from xray_classifier.data.splits import CLASS_NAMES
from xray_classifier.devices import torch_device
from xray_classifier.ensemble import Ensemble, Member, member_weights
from xray_classifier.errors import CheckpointError, DecodeError, UsageError
from xray_classifier.files import printable
from xray_classifier.inference import predict_logits
from xray_classifier.memory import Memory, recalled, split_tensors
from xray_classifier.metrics import decide, sigmoid
from xray_classifier.model import Architecture, build_network
from xray_classifier.operating_points import OperatingCurve, parse_threshold, solve

Image = str | Path | NDArray[Any]
"""A file, or an array (H, W) of uint8, uint16 or float in [0, 1]."""

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
REJECTED = (
    "multi_image",
    "unsupported_mode",
    "unsupported_syntax",
    "colour_dicom",
    "unsupported_dicom",
    "no_pixels",
    "ambiguous_range",
    "for_processing",
    "blank",
)


@dataclass(frozen=True)
class Scores:
    """Answers for n images, in the order of the images.

    Attributes:
        logits: Raw outputs, shape (n,); for regression the predicted numbers, in their own unit.
        p_raw: Plain sigmoid of the logits, in [0, 1].
        p_sick: Calibrated probability, in [0, 1]; what the threshold reads.
        sick: p_sick >= threshold.
    """

    logits: NDArray[np.float64]
    p_raw: NDArray[np.float64]
    p_sick: NDArray[np.float64]
    sick: NDArray[np.bool_]


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
        memory: What it remembers of its training images; None where that was taken out.
        content: Everything the checkpoint says.
        path: The checkpoint.
    """

    model: nn.Module
    standardize: nn.Module
    calibration: Calibration
    threshold: float
    threshold_policy: str
    memory: Memory | None
    content: Mapping[str, Any]
    path: Path

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
    def module(self) -> nn.Module:
        """A network from prepared images (B, 1, S, S), grey levels 0..255, to logits (B,).

        Standardising is inside, and so is the mean over the members of an ensemble; `prepare` makes
        such an image from a file or an array.
        """
        return nn.Sequential(self.standardize, self.model).eval()

    def prepare(self, image: Image) -> NDArray[np.uint8]:
        """One image as the model sees it.

        Args:
            image: A file, or an array (H, W) of uint8, uint16 or float in [0, 1].

        Returns:
            (S, S) uint8.

        Raises:
            DecodeError: It cannot be read; `reason` says why.
        """
        return self._prepared(image).pixels

    def _prepared(self, image: Image) -> Prepared:
        settings = self.content["image"]
        if isinstance(image, np.ndarray):
            film = film_from_array(image)
        else:
            film = read_film(Path(image), settings.get("for_processing", "reject"))
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
            undefined = np.full(len(outputs), np.nan)
            return Scores(numbers, undefined, undefined, np.zeros(len(outputs), dtype=bool))
        p_sick = self.calibration.apply(outputs)
        return Scores(outputs, sigmoid(outputs), p_sick, decide(p_sick, self.threshold))

    def predict(self, images: Sequence[Image] | Image) -> Any:
        """Answers for files or arrays, one row each, in order.

        Args:
            images: One or several files or arrays.

        Returns:
            A pandas DataFrame with the columns of `xray-classifier predict`; an image that cannot
            be read has status failed or rejected, a reason, and no answer.
        """
        import pandas

        given = [images] if isinstance(images, (str, Path, np.ndarray)) else list(images)
        names = [
            printable(image) if not isinstance(image, np.ndarray) else f"array {place}"
            for place, image in enumerate(given)
        ]
        prepared = [self.attempt(image) for image in given]
        return pandas.DataFrame(self.rows(names, prepared), columns=list(self.columns))

    def attempt(self, image: Image) -> Prepared | DecodeError:
        """One image as the model sees it with its signature, or why there is none."""
        try:
            return self._prepared(image)
        except DecodeError as error:
            return error

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table of predictions."""
        if self.task == "regress":
            return ("path", "status", "reason", "prediction", "in_training")
        return (
            "path", "status", "reason", "p_sick", "decision", "threshold", "p_raw", "logit",
            "in_training",
        )  # fmt: skip

    def rows(
        self, names: Sequence[str], attempts: Sequence[Prepared | DecodeError]
    ) -> list[tuple[Any, ...]]:
        """Rows of a table of predictions.

        Args:
            names: What the `path` column says, length n.
            attempts: What `attempt` gave, length n.
        """
        films = [film for film in attempts if not isinstance(film, DecodeError)]
        if not films:
            pairs = zip(names, attempts, strict=True)
            return [self._failure_row(n, e) for n, e in pairs if isinstance(e, DecodeError)]
        scores = self.score(np.stack([film.pixels for film in films]))
        seen = self.images_seen(np.concatenate([film.signature for film in films]))
        place = iter(range(len(films)))
        return [
            self._failure_row(name, film)
            if isinstance(film, DecodeError)
            else self._answer_row(name, scores, seen, next(place))
            for name, film in zip(names, attempts, strict=True)
        ]

    def images_seen(self, signatures: Signatures) -> tuple[str, ...]:
        """Whether each image was in the training data: yes, possible, no; `` if nothing tells.

        Args:
            signatures: (n,) records of SIGNATURE.
        """
        if self.memory is None:
            return ("",) * len(signatures)
        return self.memory.images_seen(signatures)

    def _failure_row(self, name: str, error: DecodeError) -> tuple[Any, ...]:
        status = "rejected" if error.reason in REJECTED else "failed"
        return (name, status, error.reason, *([None] * (len(self.columns) - 3)))

    def _answer_row(
        self, name: str, scores: Scores, seen: Sequence[str], place: int
    ) -> tuple[Any, ...]:
        logit = float(scores.logits[place])
        if self.task == "regress":
            return (name, "ok", "", logit, seen[place])
        return (
            name,
            "ok",
            "",
            float(scores.p_sick[place]),
            CLASS_NAMES[int(scores.sick[place])],
            self.threshold,
            float(scores.p_raw[place]),
            logit,
            seen[place],
        )


def load_classifier(
    path: str | Path, device: str = "auto", threshold: str | float = "auto"
) -> Classifier:
    """Read a trained model.

    Args:
        path: A checkpoint, or a run folder, of which the best checkpoint is taken.
        device: auto, cpu, cuda, cuda:1 or mps.
        threshold: auto takes the stored one; a probability, `sens=0.95`, `spec=0.90` or `youden`
            are solved on the validation curve that is stored in the checkpoint.

    Raises:
        CheckpointError: Damaged, foreign, or without what is asked of it.
        UsageError: No such file, or no such threshold or device.
    """
    checkpoint = load_checkpoint(find_checkpoint(Path(path)))
    if checkpoint.require("kind") != "best":
        raise CheckpointError(
            f"{printable(checkpoint.path)} holds the state of a run, for `train --resume`; "
            "evaluate and predict take best.safetensors beside it"
        )
    return assemble(checkpoint, device, threshold)


def assemble(checkpoint: Checkpoint, device: str, threshold: str | float) -> Classifier:
    """Build the classifier that a checkpoint describes; arguments as in `load_classifier`."""
    _require_parts(checkpoint)
    try:
        architecture = Architecture.from_dict(checkpoint.require("architecture"))
        standardize, model = _network(checkpoint, architecture)
        memory = recalled(checkpoint.tensors, checkpoint.content)
        calibration = Calibration.from_dict(checkpoint.require("calibration"))
        _try_image_settings(checkpoint.require("image"), architecture.size_px)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{printable(checkpoint.path)} does not describe a network that fits its weights"
        ) from error
    number, policy = _threshold(checkpoint, threshold)
    return Classifier(
        model=model.to(torch_device(device)).eval(),
        standardize=standardize,
        calibration=calibration,
        threshold=number,
        threshold_policy=policy,
        memory=memory,
        content=checkpoint.content,
        path=checkpoint.path,
    )


def _network(checkpoint: Checkpoint, architecture: Architecture) -> tuple[nn.Module, nn.Module]:
    """Standardisation and network of a checkpoint: those of one model, or of an ensemble."""
    weights, _ = split_tensors(checkpoint.tensors)
    ensemble = checkpoint.content.get("ensemble")
    if ensemble is None:
        return _model(architecture, weights, checkpoint.require("pixels"))
    parts = ensemble["members"]
    members = []
    for part, own in zip(parts, member_weights(weights, len(parts)), strict=True):
        standardize, model = _model(architecture, own, part["pixels"])
        target = part["target"]
        members.append(Member(standardize, model, float(target["mean"]), float(target["std"])))
    return nn.Identity(), Ensemble(members)


def _model(
    architecture: Architecture, weights: Mapping[str, Tensor], pixels: Mapping[str, Any]
) -> tuple[nn.Module, nn.Module]:
    """Standardisation and network of one model."""
    model = build_network(architecture)
    model.load_state_dict(weights)
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


def run_of(path: Path) -> Path | None:
    """The run folder that a checkpoint belongs to, or None where it stands alone."""
    run = path.absolute().parent.parent
    return run if (run / "history.csv").is_file() or (run / "members").is_dir() else None
