"""From the config's data section to decoded, split and checked images."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xray_classifier.config import DataConfig
from xray_classifier.data.audit import (
    contradicting_pictures,
    find_leaks,
    joined_groups,
    picture_hashes,
)
from xray_classifier.data.cache import CachedImages, cached_images, default_cache_folder
from xray_classifier.data.manifest import Manifest, build_manifest
from xray_classifier.data.splits import carve, strata_of
from xray_classifier.errors import DataError, LeakError
from xray_classifier.files import printable
from xray_classifier.terminal import Terminal

SHOWN = 10
WHAT_CHANGES = "images added, removed, edited, relabelled or moved to another split"
"""What makes `Radiographs.fingerprint` differ, in words for a message."""
Task = Literal["classify", "regress"]


@dataclass(frozen=True)
class Radiographs:
    """Images with labels, ready for training or evaluation.

    Attributes:
        manifest: One row per image; split `` marks an image that stands in none.
        images: (N, S, S) uint8, in manifest order.
        reasons: Why an image takes no part, (N,) texts; empty where it does.
        warnings: What a person should know before trusting the result.
    """

    manifest: Manifest
    images: NDArray[np.uint8]
    reasons: tuple[str, ...]
    digests: tuple[str, ...]
    warnings: tuple[str, ...]

    def members(self, split: str) -> NDArray[np.int64]:
        """Rows of one split, unreadable images included, ascending, shape (n,)."""
        return np.flatnonzero(np.array(self.manifest.splits, dtype=object) == split)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Rows of one split that can be used, ascending, shape (n,)."""
        members = self.members(split)
        return members[[not self.reasons[row] for row in members]]

    def fingerprint(self) -> str:
        """Digest of what was used for what: every image's content, label and split.

        The order, the root folder and the files' times do not matter.
        """
        m = self.manifest
        rows = zip(m.ids, m.targets.tolist(), m.splits, self.digests, strict=True)
        lines = sorted(repr((os.fsencode(i), t, s, d)) for i, t, s, d in rows)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def run_manifest(data: DataConfig, task: Task) -> Manifest:
    """Find the labelled images that the data section describes.

    Raises:
        UsageError: The path does not exist.
        DataError: Images or labels cannot be used.
    """
    manifest = build_manifest(
        source=data.source,
        path=data.path,
        task=task,
        healthy=data.labels.healthy,
        sick=data.labels.sick,
        ignore=data.labels.ignore,
        path_column=data.columns.path,
        label_column=data.columns.label,
        patient_column=data.columns.patient,
        split_column=data.columns.split,
        patient=data.patient,
        phantom_images=data.phantoms.n_images,
        phantom_seed=data.phantoms.seed,
    )
    return manifest if data.limit is None else limited(manifest, data.limit)


def run_decode(data: DataConfig, manifest: Manifest, terminal: Terminal) -> CachedImages:
    """Decode all images of a manifest, or open them from the cache.

    Raises:
        OutputError: The cache cannot be written.
    """
    with terminal.bar("decoding", len(manifest), "img") as bar:
        return cached_images(
            manifest,
            size=data.image.size,
            crop=data.image.crop,
            intensity=data.image.intensity,
            folder=data.cache or default_cache_folder(),
            workers=data.workers,
            progress=lambda done, total: bar(done),
        )


def run_loading(data: DataConfig, task: Task, terminal: Terminal) -> Radiographs:
    """Find, decode, split and check the images of a run.

    Raises:
        DataError: Unreadable images, too few patients, contradicting labels.
        LeakError: A leak between splits under `data.audit: strict`.
    """
    manifest = run_manifest(data, task)
    cached = run_decode(data, manifest, terminal)
    reasons = list(cached.reasons)
    unreadable = [row for row, reason in enumerate(reasons) if reason]
    warnings = list(manifest.notes)
    if unreadable:
        found = _listed(manifest, unreadable, reasons)
        if data.unreadable == "stop":
            raise DataError(
                f"{len(unreadable)} of {len(manifest)} images cannot be read:\n{found}\n"
                "Mend or remove them, or leave them out with data.unreadable=exclude"
            )
        warnings.append(f"{len(unreadable)} unreadable images are left out:\n{found}")
    pictures = _picture_keys(cached)
    splits = _carved(data, task, manifest, pictures, unreadable)
    splits, left_out, said = _audited(data.audit, manifest, pictures, splits)
    for row in left_out:
        reasons[row] = reasons[row] or "leak"
    placed = manifest.with_splits(tuple(splits))
    return Radiographs(
        placed, cached.images, tuple(reasons), cached.digests, tuple(warnings + said)
    )


def limited(manifest: Manifest, limit: int) -> Manifest:
    """At most `limit` images, drawn evenly over classes and splits, the same ones each time."""

    def draw(row: int) -> bytes:
        return hashlib.blake2b(os.fsencode(manifest.ids[row]), digest_size=8).digest()

    strata: dict[tuple[str, str], list[int]] = {}
    for row in sorted(range(len(manifest)), key=draw):
        key = (manifest.splits[row], manifest.classes[row])
        strata.setdefault(key, []).append(row)
    chosen: list[int] = []
    while len(chosen) < limit and any(strata.values()):
        for rows in strata.values():
            if rows and len(chosen) < limit:
                chosen.append(rows.pop(0))
    note = (
        f"data.limit: {len(chosen):,} of {len(manifest):,} images, drawn evenly over classes and "
        "splits, so the share of sick is not that of the data"
    )
    selected = manifest.select(np.array(sorted(chosen), dtype=np.int64))
    return replace(selected, notes=(*manifest.notes, note))


def _picture_keys(cached: CachedImages) -> tuple[str, ...]:
    """Digest of pixels per image; an unreadable image equals only itself."""
    hashes = picture_hashes(cached.images)
    return tuple(
        f"unreadable {row}" if reason else key
        for row, (key, reason) in enumerate(zip(hashes, cached.reasons, strict=True))
    )


def _carved(
    data: DataConfig,
    task: Task,
    manifest: Manifest,
    pictures: Sequence[str],
    unreadable: Sequence[int],
) -> list[str]:
    keep = np.setdiff1d(np.arange(len(manifest)), np.array(unreadable, dtype=np.int64))
    groups = joined_groups(manifest.patients, pictures)
    splits = list(manifest.splits)  # an unreadable image stays where the data put it
    carved = carve(
        [groups[row] for row in keep],
        strata_of(manifest.targets[keep], task),
        [manifest.splits[row] for row in keep],
        val=data.split.val,
        test=data.split.test,
        seed=data.split.seed,
        every_stratum=task == "classify",
    )
    for row, split in zip(keep, carved, strict=True):
        splits[row] = split
    return splits


def _audited(
    audit: str, manifest: Manifest, pictures: Sequence[str], splits: list[str]
) -> tuple[list[str], list[int], list[str]]:
    """Splits without leaked images, the rows left out, and what to tell a person."""
    if audit == "off":
        return splits, [], ["data.audit is off: leaks between splits were not looked for"]
    said = []
    torn = contradicting_pictures(pictures, manifest.targets)
    if torn:
        names = ", ".join(printable(manifest.ids[row]) for row in torn[:SHOWN])
        said.append(f"{len(torn)} images stand under two labels with the same pixels: {names}")
    leaks = find_leaks(manifest.patients, pictures, splits)
    if not leaks:
        return splits, [], said
    rows = sorted({row for leak in leaks for row in leak.rows})
    kinds = " and ".join(f"{leak.groups} {leak.kind}s" for leak in leaks)
    per_split = Counter(splits[row] for row in rows)
    what = ", ".join(
        f"{count} of {splits.count(name)} {name} images"
        for name, count in sorted(per_split.items())
    )
    found = f"{kinds} stand in more than one split; {what} were seen in an earlier split"
    if audit == "strict":
        raise LeakError(
            f"{found}:\n{_listed(manifest, rows, manifest.patients)}\n"
            "A model is too good on images whose patient it knows. Move whole patients into one "
            "split, or leave the leaked images out of validation and test with data.audit=warn"
        )
    leaked = set(rows)
    left = ["" if row in leaked else split for row, split in enumerate(splits)]
    return left, rows, [*said, f"{found} and are left out (data.audit: warn)"]


def _listed(manifest: Manifest, rows: Sequence[int], beside: Sequence[str]) -> str:
    lines = [
        f"  {printable(manifest.ids[row])}  ({printable(beside[row])})" for row in rows[:SHOWN]
    ]
    if len(rows) > SHOWN:
        lines.append(f"  ... and {len(rows) - SHOWN} more")
    return "\n".join(lines)
