"""The look at a data set before anything is learnt from it: leaks, labels, shortcuts, quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.leaks import Copies, Leaks, contradictions, find_leaks, joined_groups
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.probes import ProbeResult, shortcut_probes
from xray_classifier.data.quality import Oddity, odd_images
from xray_classifier.data.signature import Signatures
from xray_classifier.data.splits import CLASS_NAMES, SPLITS

FEWEST_PATIENTS = 20
"""Patients of a class in a split below which its figures say little."""


LOUD_SHORTCUT = 0.75
"""An acquisition probe whose interval lies above this predicts the label far too well."""
LOUD_COVARIATE = 0.95
"""A column whose interval lies above this gives the label away."""


@dataclass(frozen=True)
class ClassCount:
    """Patients and images of one class in one split."""

    split: str
    name: str
    patients: int
    images: int


@dataclass(frozen=True)
class Audit:
    """What was found; rows are those of the manifest.

    Attributes:
        splits: The splits that were looked at, per image.
        leaks: What stands in more than one split, or more than once.
        contradictions: Groups of equal pixels under more than one label.
        near_contradictions: Groups of near copies under more than one label, equal pixels apart.
        lacking: Classes that a split lacks altogether.
        few: Classes with fewer than FEWEST_PATIENTS patients in a split, lacking ones left out.
        shortcuts: How well what is no anatomy predicts the label; empty for numbers.
        no_shortcuts: Why there are none; `` where there are.
        oddities: Images that are not like films of this set.
    """

    splits: tuple[str, ...]
    leaks: Leaks
    contradictions: tuple[tuple[int, ...], ...]
    near_contradictions: tuple[tuple[int, ...], ...]
    lacking: tuple[ClassCount, ...]
    few: tuple[ClassCount, ...]
    shortcuts: tuple[ProbeResult, ...]
    no_shortcuts: str
    oddities: tuple[Oddity, ...]

    @property
    def loud_shortcuts(self) -> tuple[ProbeResult, ...]:
        """Probes that predict the label far too well without anatomy, the best first.

        Those that look at the border are left out, for anatomy reaches into it.
        """
        limits = {"acquisition": LOUD_SHORTCUT, "covariate": LOUD_COVARIATE, "baseline": 1.0}
        loud = [
            probe
            for probe in self.shortcuts
            if not (probe.kind == "acquisition" and "border" in probe.name)
            if probe.ci_low is not None and probe.ci_low > limits[probe.kind]
        ]
        return tuple(sorted(loud, key=lambda probe: -(probe.auroc or 0.0)))


def audit_images(
    manifest: Manifest,
    copies: Copies,
    signatures: Signatures,
    reasons: Sequence[str],
    task: Literal["classify", "regress"],
    no_shortcuts: str = "",
    details: Sequence[str] | None = None,
) -> Audit:
    """Look at a data set.

    Args:
        manifest: With its splits.
        copies: Which images show the same picture.
        signatures: (N,) records of SIGNATURE.
        reasons: Why an image could not be decoded, N texts; `` where it could.
        task: What the targets are.
        no_shortcuts: Why no probe can be made, such as labels without a meaning; `` makes them.
        details: The reasons in words.
    """
    exact, near = copies.exact.tolist(), copies.near.tolist()
    torn = contradictions(exact, manifest.targets)
    known = {row for rows in torn for row in rows}
    near_torn = contradictions(near, manifest.targets)
    counts = _class_counts(manifest, by_name=bool(no_shortcuts)) if task == "classify" else ()
    usable = np.array([not reason for reason in reasons], dtype=np.bool_)
    why = no_shortcuts or _no_probes(manifest, usable, task)
    return Audit(
        splits=manifest.splits,
        leaks=find_leaks(manifest.patients, copies, manifest.splits),
        contradictions=torn,
        near_contradictions=tuple(rows for rows in near_torn if not known.issuperset(rows)),
        lacking=tuple(count for count in counts if not count.images),
        few=tuple(count for count in counts if 0 < count.patients < FEWEST_PATIENTS),
        shortcuts=() if why else _shortcuts(manifest, signatures, usable, near),
        no_shortcuts=why,
        oddities=odd_images(signatures, reasons, details),
    )


def _class_counts(manifest: Manifest, by_name: bool) -> tuple[ClassCount, ...]:
    """Every class of every split that holds an image; images in no split are left out.

    Args:
        manifest: With its splits.
        by_name: Take the classes as the data name them, for which is sick is not known.
    """
    names = np.array(
        manifest.classes if by_name else [CLASS_NAMES[int(t)] for t in manifest.targets],
        dtype=object,
    )
    known = sorted(set(manifest.classes)) if by_name else CLASS_NAMES
    splits = np.array(manifest.splits, dtype=object)
    patients = np.array(manifest.patients, dtype=object)
    found = []
    for split in (*SPLITS, "") if not any(manifest.splits) else SPLITS:
        inside = splits == split
        if not inside.any():
            continue
        for name in known:
            rows = inside & (names == name)
            found.append(
                ClassCount(split, name, len(set(patients[rows].tolist())), int(rows.sum()))
            )
    return tuple(found)


def _no_probes(manifest: Manifest, usable: NDArray[np.bool_], task: str) -> str:
    if task != "classify":
        return "the task is to predict a number"
    classes = set(manifest.targets[usable].tolist())
    return "" if classes == {0.0, 1.0} else "there are not two classes"


def _shortcuts(
    manifest: Manifest,
    signatures: Signatures,
    usable: NDArray[np.bool_],
    near: Sequence[int],
) -> tuple[ProbeResult, ...]:
    """Probes in which neither a patient nor a copy of a picture stands on both sides."""
    groups = joined_groups(manifest.patients, near)
    rows = np.flatnonzero(usable)
    places = rows.tolist()
    return shortcut_probes(
        signatures if usable.all() else signatures[rows],
        manifest.targets[rows].astype(np.int64),
        [groups[row] for row in places],
        {name: [cells[row] for row in places] for name, cells in manifest.columns.items()},
    )
