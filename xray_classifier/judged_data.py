"""The images that a model is judged on: those of its own run, or others decoded in its own way."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xray_classifier.classifier import Classifier
from xray_classifier.config import DataConfig
from xray_classifier.config_file import data_section, sets_one_of
from xray_classifier.data.loading import (
    WHAT_CHANGES,
    Radiographs,
    run_decode,
    run_loading,
    run_manifest,
    with_dicom_patients,
)
from xray_classifier.data.splits import SPLITS, split_name
from xray_classifier.errors import CheckpointError, ConfigError, DataError, UsageError
from xray_classifier.files import printable
from xray_classifier.looks import set_fingerprint
from xray_classifier.terminal import Terminal

MAY_OVERRIDE = (
    "data.path",
    "data.root",
    "data.labels",
    "data.columns",
    "data.patient",
    "data.cache",
    "data.workers",
)
"""What may be said anew of the images to judge; the rest travels with the checkpoint."""


def judged_config(
    classifier: Classifier, data: Path | None, overrides: Sequence[str] = ()
) -> DataConfig:
    """The data section of the checkpoint, pointed at other images where asked.

    Args:
        classifier: The model.
        data: Folder, CSV or NPZ; None takes the run's own data.
        overrides: `data.labels=...` and others of `MAY_OVERRIDE`.

    Raises:
        UsageError: An override of something else, or two names for the images.
        CheckpointError: The checkpoint does not say how its images were prepared.
    """
    for override in overrides:
        key = override.split("=", 1)[0]
        if not sets_one_of(override, MAY_OVERRIDE):
            raise UsageError(
                f"{key} cannot be set for images to judge: it travels with the checkpoint; "
                f"these can: {', '.join(MAY_OVERRIDE)}"
            )
        if key == "data.path" and data is not None:
            raise UsageError("data.path and --data both name the images; give one of them")
    stored = dict(classifier.content["data"])
    try:
        data_section(stored)
    except ConfigError as error:
        raise CheckpointError(
            f"{printable(classifier.path)} does not say how its images were prepared"
        ) from error
    if data is not None:
        # relative paths on the command line count from the working directory
        stored |= {"source": "auto", "path": str(data.absolute()), "root": None, "limit": None}
    stored |= {"unreadable": "exclude"}
    if stored.get("cache") is not None and not Path(stored["cache"]).is_dir():
        stored["cache"] = None  # another machine
    return data_section(stored, overrides)


def own_images(classifier: Classifier, config: DataConfig, terminal: Terminal) -> Radiographs:
    """The images of the classifier's own run, split as they were then.

    Raises:
        DataError: They changed since training.
    """
    radiographs = run_loading(config, classifier.task, terminal)  # type: ignore[arg-type]
    for warning in radiographs.warnings:
        if not warning.startswith("SHORTCUT"):  # the judgement tells where it comes near
            terminal.say(f"note: {warning}")
    if radiographs.fingerprint() != classifier.content.get("fingerprint"):
        raise DataError(
            f"the data at {printable(config.path or 'the run')} changed since this model was "
            f"trained ({WHAT_CHANGES}), so its held-out images cannot be told from its training "
            "images; restore the data, or name images the model has not seen with --data"
        )
    return radiographs


def other_images(classifier: Classifier, config: DataConfig, terminal: Terminal) -> Radiographs:
    """Images from elsewhere, with the splits that they bring."""
    manifest = run_manifest(config, classifier.task, need_all=False)  # type: ignore[arg-type]
    cached = run_decode(config, manifest, terminal)
    manifest = with_dicom_patients(manifest, cached.signatures, config.patient)
    for note in manifest.notes:
        terminal.say(f"note: {note}")
    return Radiographs(
        manifest=manifest,
        images=cached.images,
        reasons=cached.reasons,
        digests=cached.digests,
        signatures=cached.signatures,
        warnings=(),
        audit=None,
    )


def chosen_split(radiographs: Radiographs, asked: str | None, whole: bool) -> str:
    """The split to judge: the one asked for, else test, else val, else `all`.

    Args:
        radiographs: With the splits that the data bring or the run carved.
        asked: `--split`, or None.
        whole: True where images without any split are taken as one.

    Raises:
        UsageError: There is no such split.
        DataError: Nothing was asked for, and the run held nothing back.
    """
    found = [name for name in SPLITS if name in set(radiographs.manifest.splits)]
    if asked is not None:
        name = split_name(asked) or asked
        if name not in found and not (name == "all" and whole):
            listed = ", ".join(found) or "no splits; leave --split out to take all images"
            raise UsageError(f"--split {asked}: these data have {listed}")
        return name
    for name in ("test", "val"):
        if name in found:
            return name
    if whole:
        return "all"
    raise DataError("this run kept no validation or test images; name others with --data")


def judged_rows(radiographs: Radiographs, split: str) -> NDArray[np.int64]:
    """Rows of a split that can be scored, ascending, shape (n,); `all` takes every image."""
    if split != "all":
        return radiographs.rows(split)
    return np.flatnonzero([not reason for reason in radiographs.reasons])


def judged_fingerprint(radiographs: Radiographs, rows: NDArray[np.int64]) -> str:
    """`set_fingerprint` of some of the images; blind to labels, names and splits.

    Args:
        radiographs: The images.
        rows: Which of them, shape (n,).
    """
    return set_fingerprint([bytes(code) for code in radiographs.signatures["pixels"][rows]])
