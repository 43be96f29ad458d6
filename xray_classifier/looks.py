"""How often a set of images was looked at: a record of the user, over all runs.

Each look at a test set tells a little about it, and choosing by what one saw makes the next result
too good. The record holds digests and counts only: no file names, no patients, no answers.

Source: Dwork et al. 2015, "The reusable holdout", doi:10.1126/science.aaa9375.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RECORD_NAME = "looks.jsonl"
NOT_RECORDED = (
    "the looks at these images cannot be counted: their record, looks.jsonl in the user's state "
    "directory ($XDG_STATE_HOME/xray_classifier), cannot be read or written"
)
"""What a person should be told where `count_looks` or `add_look` gives None."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Looks at one set of images: how many by each model, by the digest of its checkpoint."""

    by_model: Mapping[str, int]

    @property
    def looks(self) -> int:
        """All looks, those of the same model included."""
        return sum(self.by_model.values())

    @property
    def models(self) -> int:
        """Distinct models that were judged on the set."""
        return len(self.by_model)

    def in_words(self) -> str:
        """`looked at 3 times with 2 models`."""
        if not self.looks:
            return "never looked at before"
        times = "once" if self.looks == 1 else f"{self.looks:,} times"
        return f"looked at {times} with {self.models:,} model{'s' * (self.models != 1)}"


def set_fingerprint(hashes: Sequence[bytes]) -> str:
    """Digest of a set of images, whatever their order, names and labels.

    Args:
        hashes: Pixel hash per image, as in `SIGNATURE`; an image that stands in the set twice
            counts twice.

    Returns:
        64 hexadecimal characters: SHA-256 over the sorted hashes, one a line in hexadecimal.
    """
    lines = "\n".join(sorted(bytes(code).hex() for code in hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def record_path() -> Path | None:
    """Where the record lies: looks.jsonl in $XDG_STATE_HOME, %LOCALAPPDATA% or ~/.local/state.

    Returns:
        The path, or None where the user has no home.
    """
    base = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        folder = Path(base) if base else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return folder / "xray_classifier" / RECORD_NAME


def count_looks(fingerprint: str) -> Looks | None:
    """The looks so far at a set of images.

    Args:
        fingerprint: From `set_fingerprint`.

    Returns:
        The counts, 0 where there is no record yet; None where it cannot be read: tell
        `NOT_RECORDED`.
    """
    entries = _entries(fingerprint)
    return None if entries is None else Looks(Counter(entry["model"] for entry in entries))


def first_look(fingerprint: str) -> str | None:
    """When a set of images was first looked at, in UTC as in ISO 8601; None where nothing tells."""
    times = [entry["time"] for entry in _entries(fingerprint) or () if "time" in entry]
    return min(times, default=None)


def _entries(fingerprint: str) -> list[dict[str, Any]] | None:
    """The looks at a set of images; None where the record cannot be read."""
    path = record_path()
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError:
        return None
    entries = [entry for line in text.splitlines() if (entry := _entry(line)) is not None]
    return [entry for entry in entries if entry["fingerprint"] == fingerprint]


def add_look(fingerprint: str, model_sha256: str, split: str, n: int) -> Looks | None:
    """Write down one more look at a set of images.

    One line is appended by one write, so that several processes do not mix theirs.

    Args:
        fingerprint: From `set_fingerprint`.
        model_sha256: Digest of the checkpoint that was judged.
        split: Which split it was, for the user's own eyes.
        n: Images.

    Returns:
        The looks so far with this one; None where it cannot be written down: tell `NOT_RECORDED`.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry = {"time": now, "fingerprint": fingerprint, "model": model_sha256, "split": split, "n": n}
    path = record_path()
    if path is None:
        return None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _append(path, json.dumps(entry))
    except OSError:
        return None
    return count_looks(fingerprint)


def _append(path: Path, line: str) -> None:
    """Add a line; a newline before it ends what a full disk may have left of another one."""
    record = f"\n{line}\n".encode()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        if os.write(descriptor, record) != len(record):
            raise OSError("the disk took a part of the line only")
    finally:
        os.close(descriptor)


def _entry(line: str) -> dict[str, Any] | None:
    """What a line says; None for an empty or torn one."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    known = isinstance(entry, dict) and all(
        isinstance(entry.get(key), str) for key in ("fingerprint", "model")
    )
    return entry if known else None
