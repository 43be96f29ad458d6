"""`export`: a copy of a model to give away, as a model file of this program or as ONNX."""

import os
from pathlib import Path
from typing import Any

from xray_classifier.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from xray_classifier.errors import OutputError, UsageError
from xray_classifier.files import printable, write_bytes
from xray_classifier.memory import split_tensors
from xray_classifier.terminal import Terminal, command

WRITTEN_ANEW = ("format", "format_version")
ONNX_ENDING = ".onnx"
OWN_ENDING = ".safetensors"


def run_export(
    path: Path,
    terminal: Terminal,
    *,
    out: Path,
    strip_memory: bool = False,
    onnx: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Write a copy of a checkpoint.

    Args:
        path: A checkpoint or a run folder.
        terminal: What the user reads.
        out: The copy.
        strip_memory: Leave out what the model remembers of its training images and patients; an
            ONNX file never has it.
        onnx: Write an ONNX file, see `onnx_export`.
        force: Replace an existing `out`.

    Raises:
        UsageError: No such checkpoint, nothing to do, an ending of `out` that belongs to another
            kind of file, or the extra `onnx` is missing.
        CheckpointError: It is damaged or foreign.
        OutputError: `out` exists, or cannot be written.
    """
    _check_ending(out, onnx)
    if not strip_memory and not onnx:
        raise UsageError("export needs --strip-memory or --onnx; a plain copy is made with cp")
    if os.path.lexists(out) and not os.path.isfile(out):  # noqa: PTH113 - a device, a folder
        raise OutputError(f"{printable(out)} is a folder or device; name a file with -o")
    if os.path.lexists(out) and not force:
        raise OutputError(f"{printable(out)} exists; name another file or add --force")
    return (_onnx_copy if onnx else _bare_copy)(find_checkpoint(path), terminal, out)


def _check_ending(out: Path, onnx: bool) -> None:
    """Refuse a name under which another program, or a person, would take it for something else."""
    ending = out.suffix.lower()
    if onnx and ending == OWN_ENDING:
        raise UsageError(f"--onnx writes no {OWN_ENDING} file; name the file *{ONNX_ENDING}")
    if ending == ONNX_ENDING and not onnx:
        raise UsageError(f"{printable(out)} is the name of an ONNX file; add --onnx")


def _bare_copy(path: Path, terminal: Terminal, out: Path) -> dict[str, Any]:
    """A model file without what it remembers."""
    checkpoint = load_checkpoint(path)
    weights, memory = split_tensors(checkpoint.tensors)
    if not memory:
        terminal.say("note: this model remembers no training images already")
    content = {k: v for k, v in checkpoint.content.items() if k not in WRITTEN_ANEW}
    content["data"] = _without_places(content["data"])
    removed = {name: len(tensor) for name, tensor in memory.items()}
    save_checkpoint(out, weights, content | {"memory": None})
    n_images = removed.get("memory.images", 0)
    n_patients = removed.get("memory.patients", 0)
    terminal.say(
        f"written to {printable(out)} without the hashes of {n_images:,} training images and "
        f"{n_patients:,} patients; it can no longer say what it was trained on"
    )
    terminal.say(f"Next: {command('predict', out, 'FOLDER', '-o', 'predictions.csv')}")
    return {"checkpoint": str(out), "images_removed": n_images, "patients_removed": n_patients}


def _onnx_copy(path: Path, terminal: Terminal, out: Path) -> dict[str, Any]:
    """An ONNX file; the heavy part is imported only here."""
    from xray_classifier.classifier import load_classifier
    from xray_classifier.onnx_export import onnx_file, require_onnx

    require_onnx()
    classifier = load_classifier(path, "cpu")
    content, difference = onnx_file(classifier)
    write_bytes(out, content)
    size = classifier.size_px
    terminal.say(
        f"written to {printable(out)}: images (B, 1, {size}, {size}) of grey levels 0 to 255 to "
        f"outputs (B,); outputs differ from PyTorch's by {difference:.1e} at most"
    )
    terminal.say(
        "Its properties say how to prepare a film and what an output means; "
        "scripts/predict_onnx.py in the source is an example to copy"
    )
    return {"onnx": str(out), "bytes": len(content), "max_difference": difference}


def _without_places(data: dict[str, Any]) -> dict[str, Any]:
    """A data section that names no folder of the machine it comes from, apart from its last one."""
    path = data.get("path")
    name = None if path is None else Path(str(path)).name
    return {**data, "path": name, "root": None, "cache": None}
