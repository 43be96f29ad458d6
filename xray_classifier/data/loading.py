"""From the config's data section to decoded, split and checked images."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xray_classifier.config import DataConfig
from xray_classifier.data.audit import Audit, audit_images
from xray_classifier.data.audit_words import label_lines, leak_lines, odd_lines
from xray_classifier.data.cache import (
    CachedImages,
    cached_images,
    default_cache_folder,
    is_decoded,
)
from xray_classifier.data.cache_build import Progress
from xray_classifier.data.folds import fold_splits
from xray_classifier.data.leaks import Copies, find_copies, find_leaks, joined_groups
from xray_classifier.data.manifest import Manifest, build_manifest
from xray_classifier.data.patients import UNKNOWN, patients_of_headers
from xray_classifier.data.preparing import Settings
from xray_classifier.data.signature import Signatures
from xray_classifier.data.splits import SPLITS, carve, strata_of
from xray_classifier.errors import DataError, LeakError
from xray_classifier.files import printable
from xray_classifier.process_settings import release_freed_memory
from xray_classifier.terminal import Terminal, command

SHOWN = 10
WHAT_CHANGES = "images added, removed, edited, relabelled or moved to another split"
"""What makes `Radiographs.fingerprint` differ, in words for a message."""
Task = Literal["classify", "regress"]
Follow = Callable[[Progress, Callable[[str], None]], None]
"""Waits for another process that decodes; passes on how far it is, and what else it has to say."""


@dataclass(frozen=True)
class Radiographs:
    """Images with labels, ready for training or evaluation.

    Attributes:
        manifest: One row per image; split `` marks an image that stands in none.
        images: (N, S, S) uint8, in manifest order.
        reasons: Why an image takes no part, (N,) texts; empty where it does.
        digests: Content digest per image, (N,) texts.
        signatures: What is remembered of each image, (N,) records of SIGNATURE.
        warnings: What a person should know before trusting the result.
        audit: What was found before any image was left out; None where `data.audit` is off, or the
            images are only to be judged.
    """

    manifest: Manifest
    images: NDArray[np.uint8]
    reasons: tuple[str, ...]
    digests: tuple[str, ...]
    signatures: Signatures
    warnings: tuple[str, ...]
    audit: Audit | None

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


def run_manifest(data: DataConfig, task: Task, need_all: bool = True) -> Manifest:
    """Find the labelled images that the data section describes.

    Args:
        data: Where they are.
        task: What the labels are.
        need_all: Whether each class name must be found, see `class_targets`.

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
        phantom_leak=data.phantoms.leak,
        root=data.root,
        need_all=need_all,
    )
    return manifest if data.limit is None else limited(manifest, data.limit)


def run_decode(
    data: DataConfig, manifest: Manifest, terminal: Terminal, ahead: Follow | None = None
) -> CachedImages:
    """Decode all images of a manifest, or open them from the cache.

    Args:
        data: How they are decoded, and where the cache is.
        manifest: Which images.
        terminal: Where progress is shown.
        ahead: Waits for a process that decodes them already, see `run_ahead`.

    Raises:
        OutputError: The cache cannot be written.
    """
    with terminal.bar("decoding", len(manifest), "img") as bar:
        if ahead is not None:
            ahead(lambda done, total: bar(done), terminal.say)
        decoded = _run_cached(data, manifest, lambda done, total: bar(done), terminal.say)
    release_freed_memory()
    return decoded


def run_filling(
    data: DataConfig, manifest: Manifest, progress: Progress, waiting: Callable[[str], None]
) -> None:
    """Decode all images of a manifest into the cache, unless there is an entry for them.

    Args:
        data: How they are decoded, and where the cache is.
        manifest: Which images.
        progress: See `cached_images`.
        waiting: See `cached_images`.

    Raises:
        OutputError: The cache cannot be written.
    """
    folder = data.cache or default_cache_folder()
    if not is_decoded(manifest, _run_settings(data), folder, data.workers):
        _run_cached(data, manifest, progress, waiting)


def _run_cached(
    data: DataConfig, manifest: Manifest, progress: Progress, waiting: Callable[[str], None]
) -> CachedImages:
    return cached_images(
        manifest,
        **asdict(_run_settings(data)),
        folder=data.cache or default_cache_folder(),
        workers=data.workers,
        progress=progress,
        waiting=waiting,
    )


def _run_settings(data: DataConfig) -> Settings:
    image = data.image
    return Settings(image.size, image.crop, image.intensity, image.for_processing)


def run_loading(
    data: DataConfig, task: Task, terminal: Terminal, ahead: Follow | None = None
) -> Radiographs:
    """Find, decode, split and check the images of a run.

    Args:
        data: Where they are, and how they are prepared.
        task: What their labels are.
        terminal: What the user reads.
        ahead: See `run_decode`.

    Raises:
        DataError: Unreadable images, too few patients, contradicting labels.
        LeakError: A leak between splits under `data.audit: strict`.
    """
    manifest = run_manifest(data, task)
    cached = run_decode(data, manifest, terminal, ahead)
    reasons = list(cached.reasons)
    unreadable = [row for row, reason in enumerate(reasons) if reason]
    unread = []
    if unreadable:
        told = [
            f"{reason}: {detail}" if detail else reason
            for reason, detail in zip(cached.reasons, cached.details, strict=True)
        ]
        found = _listed(manifest, unreadable, told)
        if data.unreadable == "stop":
            raise DataError(
                f"{len(unreadable)} of {len(manifest)} images cannot be read:\n{found}\n"
                "Mend or remove them, or leave them out with data.unreadable=exclude"
            )
        unread.append(f"{len(unreadable)} unreadable images are left out:\n{found}")
    manifest = with_dicom_patients(manifest, cached.signatures, data.patient)
    usable = np.array([not reason for reason in reasons], dtype=np.bool_)
    copies = find_copies(cached.signatures, usable, manifest.ids)
    leaked, said = _leaked(data, manifest, copies)
    usable[list(leaked)] = False
    manifest = _placed_where_usable(data, task, manifest, copies, usable)
    audit = None
    if data.audit != "off":
        audit = audit_images(
            manifest, copies, cached.signatures, cached.reasons, task, details=cached.details
        )
        said += [*label_lines(audit, manifest), *odd_lines(audit)]
        manifest = manifest.with_splits(
            ["" if row in leaked else split for row, split in enumerate(manifest.splits)]
        )
        for row in leaked:
            reasons[row] = reasons[row] or "leak"
    return Radiographs(
        manifest=manifest,
        images=cached.images,
        reasons=tuple(reasons),
        digests=cached.digests,
        signatures=cached.signatures,
        warnings=(*manifest.notes, *unread, *said),
        audit=audit,
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


def with_dicom_patients(
    manifest: Manifest, signatures: Signatures, setting: str | None
) -> Manifest:
    """The manifest with patients from DICOM headers, where nothing else names them.

    Args:
        manifest: As found.
        signatures: (N,) records of SIGNATURE.
        setting: `data.patient`.

    Raises:
        DataError: `setting` is dicom, and no image has a DICOM Patient ID.
    """
    if manifest.patients_known or setting not in ("auto", "dicom"):
        return manifest
    keys = [bytes(key).hex() if key.any() else "" for key in signatures["patient"]]
    found = patients_of_headers(keys, manifest.ids, setting == "dicom")
    if found is None:
        return manifest
    others = tuple(note for note in manifest.notes if not note.startswith(UNKNOWN))
    return replace(
        manifest,
        patients=found.keys,
        patients_known=found.known,
        notes=(*others, *found.notes),
    )


def placed(data: DataConfig, task: Task, manifest: Manifest, copies: Copies) -> Manifest:
    """The manifest with a split for every image; patients and copies are never torn apart.

    Args:
        data: What to carve, and how.
        task: What the targets are.
        manifest: With the splits that the data bring.
        copies: Which images show the same picture.

    Raises:
        DataError: There are too few patients to fill the splits.
    """
    groups = joined_groups(manifest.patients, copies.near.tolist())
    strata = strata_of(manifest.targets, task)
    carved = carve(
        groups,
        strata,
        manifest.splits,
        val=data.split.val,
        test=data.split.test,
        calibrate=data.split.calibrate,
        seed=data.split.seed,
        every_stratum=task == "classify",
    )
    if data.split.fold is not None:
        fold, folds = data.split.fold
        carved = fold_splits(
            groups,
            strata,
            carved,
            fold=fold,
            folds=folds,
            seed=data.split.seed,
            every_stratum=task == "classify",
        )
    return manifest.with_splits(carved)


def _placed_where_usable(
    data: DataConfig, task: Task, manifest: Manifest, copies: Copies, usable: NDArray[np.bool_]
) -> Manifest:
    """`placed` for the usable images; any other stays where the data put it.

    A split that the data bring is never carved, even if none of its images can be used.
    """
    rows = np.flatnonzero(usable)
    brought: dict[str, None] = {name: None for name in SPLITS if name in manifest.splits}
    carving = data.model_copy(update={"split": data.split.model_copy(update=brought)})
    part = Copies(copies.exact[rows], copies.near[rows])
    chosen = placed(carving, task, manifest.select(rows), part)
    splits = list(manifest.splits)
    for row, split in zip(rows.tolist(), chosen.splits, strict=True):
        splits[row] = split
    return manifest.with_splits(splits)


def _leaked(data: DataConfig, manifest: Manifest, copies: Copies) -> tuple[set[int], list[str]]:
    """Rows of a later split whose patient or picture an earlier one holds, and what to say of them.

    Raises:
        LeakError: There are such rows, and `data.audit` is strict.
    """
    if data.audit == "off":
        return set(), ["data.audit is off: leaks between splits were not looked for"]
    leaks = find_leaks(manifest.patients, copies, manifest.splits)
    if not leaks.across:
        return set(), []
    per_split = Counter(manifest.splits[row] for row in leaks.later)
    what = ", ".join(
        f"{count} of {manifest.splits.count(name)} {name} images"
        for name, count in sorted(per_split.items())
    )
    found, seen = leak_lines(leaks, manifest), f"{what} were seen in an earlier split"
    if data.audit == "strict":
        check = command("check", data.path or "DATA", "--fix", "manifest.csv")
        raise LeakError(
            "\n".join([*found, seen]) + "\nA model is too good on images whose patient or picture "
            f"it knows. Write splits in which such images stand together:\n  {check}\n"
            "or leave them out of validation and test with data.audit=warn"
        )
    return set(leaks.later), [*found, f"{seen} and are left out (data.audit: warn)"]


def _listed(manifest: Manifest, rows: Sequence[int], beside: Sequence[str]) -> str:
    lines = [
        f"  {printable(manifest.ids[row])}  ({printable(beside[row])})" for row in rows[:SHOWN]
    ]
    if len(rows) > SHOWN:
        lines.append(f"  ... and {len(rows) - SHOWN} more")
    return "\n".join(lines)
