"""`check`: look at a data set before anything is learnt from it, and write down what was seen."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xray_classifier.audit_files import write_audit
from xray_classifier.config import DataConfig
from xray_classifier.config_file import data_section, load_config, sets_one_of
from xray_classifier.data.audit import audit_images
from xray_classifier.data.audit_words import audit_json, audit_lines
from xray_classifier.data.cache import CachedImages
from xray_classifier.data.labels import labels_override
from xray_classifier.data.leaks import find_copies
from xray_classifier.data.loading import Task, run_decode, run_manifest, with_dicom_patients
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.survey import Survey, survey
from xray_classifier.errors import DataError, OutputError, UsageError
from xray_classifier.files import make_folder, printable
from xray_classifier.regrouping import write_manifest
from xray_classifier.run_folder import time_stamp
from xray_classifier.starting import data_keys
from xray_classifier.terminal import Terminal, command

LEAK_FOUND = 3
SOME_UNREADABLE = 4


@dataclass(frozen=True)
class CheckResult:
    """What a check comes to; `--json` prints `content`."""

    exit_code: int
    content: Mapping[str, Any]


def run_check(
    data: Path | None,
    terminal: Terminal,
    *,
    config: str | None = None,
    out: Path | None = None,
    fix: Path | None = None,
    force: bool = False,
    overrides: Sequence[str] = (),
) -> CheckResult:
    """Look for leaks, contradicting labels, shortcuts and odd images.

    Args:
        data: Folder, CSV or NPZ; None: that of `config`.
        terminal: What the user reads.
        config: A config whose data section says how to read the data; None: what is at `data` is
            recognised.
        out: Folder to write audit.json, audit.html and odd.png into; None makes a dated one.
        fix: CSV to write in which patients and copies stand in one split.
        force: Replace an existing `fix`.
        overrides: Texts such as `data.labels=...`.

    Raises:
        UsageError: A path does not exist, or neither data nor config are given.
        DataError: There are no images that can be read.
        OutputError: A result cannot or must not be written.
    """
    if fix is not None and os.path.lexists(fix) and not force:
        raise OutputError(f"{printable(fix)} exists; name another file or add --force")
    folder = out or Path("checks") / f"{_name(data, config)}-{time_stamp()}"
    if (folder / "history.csv").exists():
        raise OutputError(f"{printable(folder)} is a run folder; name another with -o")
    section, task, unknown = _what_to_check(data, config, overrides, terminal)
    manifest = run_manifest(section, task)
    cached = run_decode(section, manifest, terminal)
    if all(cached.reasons):
        raise DataError(_nothing_readable(manifest, cached))
    manifest = with_dicom_patients(manifest, cached.signatures, section.patient)
    for note in manifest.notes:
        terminal.say(f"note: {note}")
    usable = np.array([not reason for reason in cached.reasons], dtype=np.bool_)
    copies = find_copies(cached.signatures, usable)
    audit = audit_images(manifest, copies, cached.signatures, cached.reasons, task, unknown)
    terminal.say("\n".join(audit_lines(audit, manifest)))
    content: dict[str, Any] = {
        "data": str(section.path),
        "images": len(manifest),
        "unreadable": int((~usable).sum()),
        **audit_json(audit, manifest),
    }
    make_folder(folder)
    written = write_audit(folder, audit, manifest, cached.images, content)
    terminal.say(f"written to {printable(folder)}: {', '.join(f.name for f in written)}")
    content |= {"out": str(folder), "fix": None}
    if fix is not None:
        content["fix"] = write_manifest(fix, section, task, manifest, copies, usable, terminal)
    _say_next(terminal, section, fix, audit.leaks.across)
    code = LEAK_FOUND if audit.leaks.across else SOME_UNREADABLE if not usable.all() else 0
    return CheckResult(code, {**content, "exit_code": code})


def _what_to_check(
    data: Path | None, config: str | None, overrides: Sequence[str], terminal: Terminal
) -> tuple[DataConfig, Task, str]:
    """How to read the data, what the targets are, and why labels mean nothing (`` if they do)."""
    if config is not None:
        given = [*overrides, *([] if data is None else [f"data.path={data}"])]
        loaded = load_config(config, given)
        return loaded.config.data, loaded.config.task, ""
    if data is None:
        raise UsageError("check needs DATA, a folder, CSV or NPZ, or -c CONFIG")
    keys, unknown = _recognised(survey(data), data)
    if any(sets_one_of(text, ("data.labels",)) for text in overrides):
        unknown = ""
    else:
        _say_meaning(terminal, keys, unknown)
    return data_section(keys, overrides), "classify", unknown


def _recognised(seen: Survey, data: Path) -> tuple[dict[str, Any], str]:
    """The data section that fits what was seen, and why labels mean nothing (`` if they do)."""
    try:
        return data_keys(seen, data, (), ()), ""
    except UsageError:
        if len(seen.classes) < 2:
            raise
    return data_keys(seen, data, *_all_of(seen)), "which class is sick is not known"


def _all_of(seen: Survey) -> tuple[list[str], list[str]]:
    """Every class with a role, whatever it means: for what does not depend on the meaning."""
    names = list(seen.classes)
    return names[:1], names[1:]


def _say_meaning(terminal: Terminal, keys: Mapping[str, Any], unknown: str) -> None:
    healthy, sick = keys["labels"]["healthy"], keys["labels"]["sick"]
    if unknown:
        example = labels_override(["A"], ["B"])
        terminal.say(f"{unknown}: {', '.join(map(printable, healthy + sick))}; say {example}")
        return
    terminal.say(
        f"healthy: {', '.join(map(printable, healthy))}; sick: {', '.join(map(printable, sick))} "
        "(by their names; say otherwise with data.labels)"
    )


def _name(data: Path | None, config: str | None) -> str:
    return Path(data or config or "data").resolve().stem


def _nothing_readable(manifest: Manifest, cached: CachedImages) -> str:
    shown = [
        f"  {printable(name)} ({reason})"
        for name, reason in list(zip(manifest.ids, cached.reasons, strict=True))[:10]
    ]
    return f"none of {len(manifest)} images can be read:\n" + "\n".join(shown)


def _say_next(terminal: Terminal, section: DataConfig, fix: Path | None, leak: bool) -> None:
    path = section.path or Path("DATA")
    if fix is not None:
        return  # said where the manifest is written
    if leak:
        terminal.say(f"Next: {command('check', path, '--fix', 'manifest.csv')}")
    else:
        terminal.say(f"Next: {command('init', 'my.yaml', '--data', path)}")
