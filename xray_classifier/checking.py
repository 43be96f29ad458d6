"""`check`: look at a data set before anything is learnt from it, and write down what was seen."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xray_classifier.audit_files import write_audit
from xray_classifier.config import DataConfig, LabelsConfig
from xray_classifier.config_file import data_section, load_config, sets_one_of
from xray_classifier.data.audit import Audit, audit_images
from xray_classifier.data.audit_words import audit_json, audit_lines, audit_verdict
from xray_classifier.data.cache import CachedImages
from xray_classifier.data.labels import labels_override
from xray_classifier.data.leaks import find_copies
from xray_classifier.data.loading import Task, run_decode, run_manifest, with_dicom_patients
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.survey import survey
from xray_classifier.data.table import read_table
from xray_classifier.errors import DataError, OutputError, UsageError
from xray_classifier.files import make_folder, printable
from xray_classifier.regrouping import check_target, require_files, write_manifest
from xray_classifier.run_folder import time_stamp
from xray_classifier.starting import class_meaning
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
    if fix is not None:
        check_target(fix, force)
    folder = out or _new_folder(_name(data, config))
    if (folder / "history.csv").exists():
        raise OutputError(f"{printable(folder)} is a run folder; name another with -o")
    section, task, unknown = _what_to_check(data, config, overrides, terminal)
    manifest = run_manifest(section, task)
    if fix is not None:
        require_files(manifest)
    make_folder(folder)
    cached = run_decode(section, manifest, terminal)
    if all(cached.reasons):
        raise DataError(_nothing_readable(manifest, cached))
    manifest = with_dicom_patients(manifest, cached.signatures, section.patient)
    for note in manifest.notes:
        terminal.say(f"note: {note}")
    usable = np.array([not reason for reason in cached.reasons], dtype=np.bool_)
    copies = find_copies(cached.signatures, usable, manifest.ids)
    audit = audit_images(
        manifest, copies, cached.signatures, cached.reasons, task, unknown, cached.details
    )
    verdict = audit_verdict(audit, manifest)
    terminal.say("\n".join([*audit_lines(audit, manifest), verdict]))
    content: dict[str, Any] = {
        "data": str(section.path),
        "verdict": verdict,
        "images": len(manifest),
        "unreadable": int((~usable).sum()),
        **audit_json(audit, manifest),
    }
    written = write_audit(folder, audit, manifest, cached.images, content)
    terminal.say(f"written to {printable(folder)}: {', '.join(f.name for f in written)}")
    content |= {"out": str(folder), "fix": None}
    if fix is not None:
        content["fix"] = write_manifest(fix, section, task, manifest, copies, usable, terminal)
    asked = [*(["-c", config] if config is not None else []), *overrides]
    fixed = content["fix"]
    terminal.say(f"Next: {_next_command(section, data, asked, audit, unknown, fixed, manifest)}")
    code = LEAK_FOUND if audit.leaks.across else SOME_UNREADABLE if not usable.all() else 0
    return CheckResult(code, {**content, "exit_code": code})


def _new_folder(name: str) -> Path:
    """A dated folder of its own under `checks`, not made yet."""
    first = Path("checks") / f"{name}-{time_stamp()}"
    others = (first.with_name(f"{first.name}-{number}") for number in range(2, 1000))
    return next(folder for folder in (first, *others) if not folder.exists())


def _next_command(
    section: DataConfig,
    data: Path | None,
    asked: Sequence[str],
    audit: Audit,
    unknown: str,
    fixed: Mapping[str, Any] | None,
    manifest: Manifest,
) -> str:
    """What to type next, with everything that was asked for this time."""
    where = [] if data is None else [data]
    if fixed is not None:
        root = [] if fixed["root"] is None else [f"data.root={fixed['root']}"]
        unread = ["data.unreadable=exclude"] if fixed["unreadable"] else []
        labels = labels_override(["A"], ["B"])
        if not unknown:
            known = section.labels
            labels = labels_override(known.healthy, known.sick, known.ignore)
        train = command("train", "-c", "mlp", f"data.path={fixed['path']}", *root, *unread)
        return f"{train} {labels}"
    if audit.leaks.across and manifest.kind == "files":
        return command("check", *where, *asked, "--fix", "manifest.csv")
    if audit.leaks.across and not unknown and asked[:1] != ["-c"]:
        known = section.labels
        labels = labels_override(known.healthy, known.sick, known.ignore)
        train = command("train", "-c", "mlp", f"data.path={section.path}", "data.audit=warn")
        return f"{train} {labels}"
    if asked[:1] == ["-c"]:
        warn = ["data.audit=warn"] if audit.leaks.across else []
        return command("train", *asked, *(f"data.path={path}" for path in where), *warn)
    if unknown:
        return f"{command('check', *where, *asked)} {labels_override(['A'], ['B'])}"
    return command("init", "my.yaml", "--data", section.path or "DATA")


def _what_to_check(
    data: Path | None, config: str | None, overrides: Sequence[str], terminal: Terminal
) -> tuple[DataConfig, Task, str]:
    """How to read the data, what the targets are, and why labels mean nothing (`` if they do)."""
    if config is not None:
        given = [*overrides, *([] if data is None else [f"data.path={data}"])]
        loaded = load_config(config, given)
        return loaded.config.data, loaded.config.task, ""
    other = [text for text in overrides if not text.startswith("data.")]
    if other:
        raise UsageError(f"{other[0]}: without -c only keys of data can be set")
    named = next((text.split("=", 1)[1] for text in overrides if text.startswith("data.path=")), "")
    if data is None and not named:
        data_section({"path": "DATA"}, overrides)  # a misspelt key is told first
        raise UsageError("check needs DATA, a folder, CSV or NPZ, or -c CONFIG")
    place = data or Path(named)
    seen = survey(place)
    plain: dict[str, Any] = {"source": seen.source, "path": os.path.abspath(place)}  # noqa: PTH100
    plain |= {"columns": dict(seen.columns)} if seen.columns else {}
    section = data_section(plain, overrides)
    if any(sets_one_of(text, ("data.labels",)) for text in overrides):
        return section, "classify", ""
    classes = seen.classes
    if seen.source == "csv":
        column = read_table(place).column(section.columns.label, "data.columns.label")
        classes = dict(sorted(Counter(column).items()))
    labels, unknown = _meaning(place, classes)
    _say_meaning(terminal, labels, unknown)
    return (
        section.model_copy(update={"labels": LabelsConfig.model_validate(labels)}),
        "classify",
        unknown,
    )


def _meaning(place: Path, classes: Mapping[str, int]) -> tuple[dict[str, list[str]], str]:
    """What the classes mean by their names, and why that is not known (`` if it is)."""
    names = list(classes)
    if len(names) < 2:
        raise DataError(
            f"{printable(place)} holds one class only: {printable(names[0]) if names else 'none'}; "
            "expected healthy and sick films in a folder each, or a CSV with a column label"
        )
    try:
        return class_meaning(classes, (), ()), ""
    except UsageError:  # any roles will do for what does not depend on the meaning
        return {"healthy": names[:1], "sick": names[1:]}, "which class is sick is not known"


def _say_meaning(terminal: Terminal, labels: Mapping[str, list[str]], unknown: str) -> None:
    healthy, sick = labels["healthy"], labels["sick"]
    if unknown:
        names = ", ".join(map(printable, healthy + sick))
        terminal.say(f"{unknown}: {names}; say so with {labels_override(['A'], ['B'])}")
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
