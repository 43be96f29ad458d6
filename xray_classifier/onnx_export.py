"""A model as an ONNX file, which answers without this program and without PyTorch.

The graph maps prepared images to logits; standardising and, for an ensemble, the mean over its
members are inside. All else that an answer needs stands in the properties of the file, as JSON:
how a film is prepared, calibration, threshold, refer band. What the model remembers of its training
images is never in it.
"""

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from xray_classifier import __version__
from xray_classifier.classifier import Classifier
from xray_classifier.errors import CheckpointError, OutputError, UsageError
from xray_classifier.files import printable, to_json
from xray_classifier.run_facts import model_digest

if TYPE_CHECKING:
    from onnx import ModelProto

LIBRARIES = ("onnx", "onnxruntime", "onnxscript")
INPUT, OUTPUT = "images", "outputs"
PARITY = 1e-5
"""Largest difference from PyTorch's outputs; where these go beyond 1, a fraction of the largest.

Both add up thousands of float32 products, each in its own order. Against float64, PyTorch itself is
off by up to 6e-5 where outputs reach 20 (a perceptron on 224 px)."""
LARGEST_BYTES = 2**31 - 2**24
"""One ONNX file is one protocol buffer, which ends at 2 GiB; some of it is left for the graph."""
N_TRIALS = 16
NOTICE = (
    "Not a medical device. Made for research; not for diagnosis, triage or any decision about a "
    "patient."
)


def require_onnx() -> None:
    """Find the libraries of the extra `onnx`.

    Raises:
        UsageError: One is missing; the message says how to install it.
    """
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"--onnx needs {', '.join(missing)}: pip install 'xray-classifier[onnx]'")


def onnx_file(classifier: Classifier) -> tuple[bytes, float]:
    """A model as the bytes of an ONNX file, tried against the model itself.

    The graph has one input, `images`: grey levels 0 to 255 as `Classifier.prepare` gives them,
    (B, 1, S, S) float32 for any B, and one output, `outputs`: (B,) float32, what
    `Classifier.module` gives.

    Args:
        classifier: On the CPU.

    Returns:
        The content of the file, and the largest difference of an output from that of PyTorch over a
        few test images.

    Raises:
        UsageError: The libraries of the extra `onnx` are missing, or the model is too large.
        OutputError: The ONNX graph answers otherwise than the model.
    """
    require_onnx()
    _refuse_too_large(classifier)
    model = _bare(_graph(classifier))
    _describe(model, classifier)
    content: bytes = model.SerializeToString(deterministic=True)
    return content, _difference(content, classifier)


def onnx_properties(classifier: Classifier) -> dict[str, Any]:
    """What an ONNX file says of its model, by property; each value is written as JSON.

    `calibration`, `threshold` and `refer` are null for a regression, whose number is
    `output * target.std + target.mean`; `target` is null for a classification, where
    `p_sick = sigmoid(slope * output + intercept)`, refer is `low <= p_sick < high`, and sick
    `p_sick >= threshold.value`.
    """
    content, classify = classifier.content, classifier.task == "classify"
    refer = None if classifier.refer is None else classifier.refer.to_dict()
    scale = {key: content["target"][key] for key in ("mean", "std")} if not classify else None
    return {
        "notice": NOTICE,
        "program": "xray_classifier",
        "program_version": __version__,
        "checkpoint_sha256": model_digest(classifier.path),
        "task": classifier.task,
        "classes": content.get("classes") if classify else None,
        "positive_class": content.get("positive_class") if classify else None,
        "preprocessing": {key: content["image"][key] for key in ("size", "crop", "intensity")},
        "calibration": classifier.calibration.to_dict() if classify else None,
        "threshold": _threshold(classifier) if classify else None,
        "refer": refer,
        "target": scale,
        "intended_use": content.get("intended_use"),
    }


def _threshold(classifier: Classifier) -> dict[str, Any]:
    return {"value": classifier.threshold, "policy": classifier.threshold_policy}


def _refuse_too_large(classifier: Classifier) -> None:
    weights = classifier.module.state_dict().values()
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights)
    if n_bytes > LARGEST_BYTES:
        raise UsageError(
            f"--onnx: the weights of {printable(classifier.path)} take {n_bytes / 2**30:.2f} GiB, "
            f"and one ONNX file holds {LARGEST_BYTES / 2**30:.2f}; use the checkpoint itself"
        )


def _graph(classifier: Classifier) -> "ModelProto":
    """The network as PyTorch exports it."""
    size = classifier.size_px
    with warnings.catch_warnings():
        # PyTorch warns of its own deprecated parts, differently in each version
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            classifier.module,
            (torch.zeros(2, 1, size, size),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    if program is None:
        raise CheckpointError(f"{printable(classifier.path)} cannot be written as an ONNX graph")
    return program.model_proto


def _bare(model: "ModelProto") -> "ModelProto":
    """Without the exporter's notes on each node, which name folders of this machine."""
    graph = model.graph
    noted = (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info)
    for part in noted:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def _describe(model: "ModelProto", classifier: Classifier) -> None:
    """Write the properties into a file's head."""
    model.producer_name, model.producer_version = "xray_classifier", __version__
    model.doc_string = NOTICE
    model.ClearField("metadata_props")
    for key, value in onnx_properties(classifier).items():
        model.metadata_props.add(key=key, value=to_json(value))


def _difference(content: bytes, classifier: Classifier) -> float:
    """Largest difference of an output from PyTorch's.

    Raises:
        OutputError: It is larger than `PARITY` allows.
    """
    images = _trial_images(classifier.size_px)
    with torch.inference_mode():
        expected = classifier.module(torch.from_numpy(images)).numpy()
    apart = float(np.abs(onnx_outputs(content, images) - expected).max())
    allowed = PARITY * max(1.0, float(np.abs(expected).max()))
    if not apart <= allowed:  # not `apart > allowed`, which a NaN would pass
        raise OutputError(
            f"the ONNX graph of {printable(classifier.path)} answers otherwise than the model (its "
            f"outputs differ by up to {apart:.1e}), so nothing was written; install other versions "
            "of onnxruntime and onnxscript"
        )
    return apart


def _trial_images(size_px: int) -> NDArray[np.float32]:
    """Black, white and noise of several strengths around grey, (N_TRIALS, 1, S, S), 0..255."""
    noise = np.random.default_rng(0).uniform(-1, 1, (N_TRIALS, 1, size_px, size_px))
    strength = np.linspace(0.1, 1, N_TRIALS)[:, None, None, None]
    levels = np.rint(127.5 + 127.5 * strength * noise)
    levels[0], levels[1] = 0, 255
    return np.asarray(levels, np.float32)


def onnx_outputs(content: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What ONNX Runtime computes from an ONNX file on the CPU.

    Args:
        content: Of the file.
        images: Prepared grey levels 0..255, (B, 1, S, S).

    Returns:
        (B,) outputs: logits, or numbers on the scale of `target`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; below it, it writes to the terminal
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT], {INPUT: images})[0])
