"""`init`: look at a folder of radiographs and write a commented config for it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xray_classifier.config_text import commented_yaml
from xray_classifier.data.labels import guess_roles
from xray_classifier.data.survey import Survey, survey
from xray_classifier.errors import OutputError, UsageError
from xray_classifier.files import make_folder, printable, write_text
from xray_classifier.terminal import Terminal, command


def run_init(
    target: Path,
    terminal: Terminal,
    *,
    data: Path | None,
    healthy: Sequence[str] = (),
    sick: Sequence[str] = (),
    force: bool = False,
) -> dict[str, Any]:
    """Write a YAML with every key, its meaning, and what was found in the data.

    Args:
        target: The YAML file to write.
        terminal: What the user reads.
        data: Folder, CSV or NPZ to look at; None writes a config for the embedded phantoms.
        healthy: Class names that mean healthy; empty: recognised by name.
        sick: Class names that mean sick; empty: the others.
        force: Replace an existing file.

    Raises:
        UsageError: The path does not exist, or which class is sick cannot be told.
        OutputError: The file exists, or cannot be written.
    """
    if os.path.lexists(target) and not force:
        raise OutputError(f"{printable(target)} exists; name another file or add --force")
    if data is None:
        section: dict[str, Any] = {"source": "phantoms"}
        found = "the embedded phantoms"
    else:
        seen = survey(data)
        section = data_keys(seen, data, healthy, sick)
        found = _in_words(seen)
        terminal.say(f"{printable(data)}: {found}")
        for note in seen.notes:
            terminal.say(f"note: {note}")
        roles = ((role, section["labels"].get(role, ())) for role in ("healthy", "sick", "ignore"))
        meaning = "; ".join(f"{r}: {', '.join(map(printable, n))}" for r, n in roles if n)
        how = "" if healthy or sick else " (by their names; say otherwise with --healthy, --sick)"
        terminal.say(f"{meaning}{how}")
    make_folder(target.absolute().parent)
    header = f"xray-classifier train -c {printable(target.name)}\nMade by `init` from {found}."
    write_text(target, commented_yaml({"data": section}, header))
    terminal.say(f"written to {printable(target)}; every key is explained in it")
    terminal.say(f"Next: {command('train', '-c', target, '--dry-run')}")
    return {"config": str(target), "data": section}


def data_keys(
    seen: Survey, data: Path, healthy: Sequence[str], sick: Sequence[str]
) -> dict[str, Any]:
    """The data section that fits what was seen.

    Raises:
        UsageError: Which classes are healthy cannot be told from their names.
    """
    keys: dict[str, Any] = {"source": seen.source, "path": os.path.abspath(data)}  # noqa: PTH100
    keys["labels"] = class_meaning(seen.classes, healthy, sick)
    if seen.columns:
        keys["columns"] = dict(seen.columns)
    return keys


def class_meaning(
    classes: Mapping[str, int], healthy: Sequence[str], sick: Sequence[str]
) -> dict[str, list[str]]:
    """Which class names mean healthy and which sick; never guessed from their order.

    Raises:
        UsageError: No name is a known word for healthy, and none was given.
    """
    names = list(classes)
    for name in (*healthy, *sick):
        if name not in classes:
            raise UsageError(f"no class {printable(name)!r}; found {_listed(classes)}")
    well = list(healthy) or [n for n in guess_roles(names)[0] if n not in sick]
    ill = list(sick) or [n for n in names if n not in well]
    if not well or not ill:
        raise UsageError(
            f"cannot tell which class is healthy and which is sick: found {_listed(classes)}; "
            "say so with --healthy NAME and --sick NAME"
        )
    meaning = {"healthy": well, "sick": ill}
    rest = [n for n in names if n not in well and n not in ill]
    return meaning | ({"ignore": rest} if rest else {})


def _listed(classes: Mapping[str, int]) -> str:
    return ", ".join(f"{printable(n)} ({k:,})" for n, k in classes.items()) or "no classes"


def _in_words(seen: Survey) -> str:
    parts = [f"{seen.n_images:,} images", f"classes {_listed(seen.classes)}"]
    if seen.splits:
        parts.append("splits " + ", ".join(f"{n} ({k:,})" for n, k in seen.splits.items()))
    scheme = seen.patient_scheme
    parts.append(f"patients by the {scheme} file names" if scheme else "no patient ids recognised")
    return "; ".join(parts)
