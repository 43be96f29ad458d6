"""`export`: a copy of a model to give away."""

import os
from pathlib import Path
from typing import Any

from xray_classifier.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from xray_classifier.errors import OutputError, UsageError
from xray_classifier.files import printable
from xray_classifier.memory import split_tensors
from xray_classifier.terminal import Terminal, command

WRITTEN_ANEW = ("format", "format_version")


def run_export(
    path: Path, terminal: Terminal, *, out: Path, strip_memory: bool, force: bool = False
) -> dict[str, Any]:
    """Write a copy of a checkpoint.

    Args:
        path: A checkpoint or a run folder.
        terminal: What the user reads.
        out: The copy.
        strip_memory: Leave out what the model remembers of its training images and patients.
        force: Replace an existing `out`.

    Raises:
        UsageError: No such checkpoint, or nothing to do.
        CheckpointError: It is damaged or foreign.
        OutputError: `out` exists, or cannot be written.
    """
    if not strip_memory:
        raise UsageError("export needs --strip-memory; a plain copy is made with cp")
    if os.path.lexists(out) and not force:
        raise OutputError(f"{printable(out)} exists; name another file or add --force")
    checkpoint = load_checkpoint(find_checkpoint(path))
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


def _without_places(data: dict[str, Any]) -> dict[str, Any]:
    """A data section that names no folder of the machine it comes from, apart from its last one."""
    path = data.get("path")
    name = None if path is None else Path(str(path)).name
    return {**data, "path": name, "root": None, "cache": None}
