"""The files of an audit: its numbers, a page with thumbnails, and a sheet of the odd films."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.audit import FEWEST_PATIENTS, Audit
from xray_classifier.data.audit_words import audit_lines, unseen_words
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.probes import SUBJECTS, ProbeResult, in_words
from xray_classifier.data.quality import KINDS
from xray_classifier.data.splits import CLASS_NAMES, SPLITS
from xray_classifier.files import printable, write_bytes, write_json, write_text
from xray_classifier.report.audit_page import (
    AuditContent,
    FilmGroup,
    Gallery,
    PageFilm,
    ProbeRow,
    film_png,
    render_audit,
)
from xray_classifier.report.figures import film_sheet
from xray_classifier.report.page import ReportTable

MOST_GROUPS = 20
MOST_FILMS = 6
MOST_ODD = 30
MOST_ON_SHEET = 60

PLACES = (*SPLITS, "")

Rows = Sequence[int]


def write_audit(
    folder: Path,
    audit: Audit,
    manifest: Manifest,
    images: NDArray[np.uint8],
    content: Mapping[str, Any],
) -> list[Path]:
    """Write audit.json, audit.html and, if any film is odd, odd.png into an existing folder.

    Args:
        folder: Where.
        audit: What was found.
        manifest: The images.
        images: (N, S, S) uint8, zeros where one could not be decoded.
        content: What audit.json says.

    Returns:
        The files written.
    """
    write_json(folder / "audit.json", content)
    seen = manifest.with_splits(audit.splits)
    written = [folder / "audit.json", write_audit_page(folder, audit, seen, images)]
    sheet = odd_sheet(audit, seen, images)
    if sheet is not None:
        write_bytes(folder / "odd.png", sheet)
        written.append(folder / "odd.png")
    return written


def write_audit_page(
    folder: Path, audit: Audit, manifest: Manifest, images: NDArray[np.uint8]
) -> Path:
    """Write audit.html into an existing folder; arguments as in `write_audit`."""
    seen = manifest.with_splits(audit.splits)
    write_text(folder / "audit.html", render_audit(page_content(audit, seen, images)))
    return folder / "audit.html"


def odd_sheet(audit: Audit, manifest: Manifest, images: NDArray[np.uint8]) -> bytes | None:
    """A contact sheet of the odd films that can be shown, as PNG; None if there is none."""
    odd = [o for o in audit.oddities if o.kind not in ("unreadable", "blank")][:MOST_ON_SHEET]
    if not odd:
        return None
    captions = [f"{o.kind}\n{printable(manifest.ids[o.row].rpartition('/')[2])}" for o in odd]
    return film_sheet(images[[o.row for o in odd]], captions, title="Odd films")


def page_content(audit: Audit, manifest: Manifest, images: NDArray[np.uint8]) -> AuditContent:
    """What the page shows.

    Args:
        audit: What was found.
        manifest: With the splits that were looked at.
        images: (N, S, S) uint8.
    """
    films = _Films(audit, manifest, images)
    name = "the phantoms" if manifest.root is None else printable(manifest.root.name)
    alarm = audit.leaks.across or bool(
        audit.contradictions or audit.near_contradictions or audit.loud_shortcuts
    )
    return AuditContent(
        title=f"Audit of {name}",
        verdict=_verdict(audit, manifest),
        alarm=alarm,
        unseen=tuple(unseen_words(audit, manifest)),
        leaks=_leak_galleries(audit, manifest, films),
        labels=_label_galleries(audit, manifest, films),
        probes=tuple(_probe_row(probe) for probe in audit.shortcuts),
        no_probes=audit.no_shortcuts,
        quality=_quality_galleries(audit, films),
        summary=(_split_table(manifest),),
        details=(("The findings as text", "\n".join(audit_lines(audit, manifest))),),
    )


@dataclass(frozen=True)
class _Films:
    """Makes the small pictures of a page."""

    audit: Audit
    manifest: Manifest
    images: NDArray[np.uint8]

    def film(self, row: int, badge: str, note: str = "") -> PageFilm:
        """The image of a manifest row as a small picture with its identity, class and split."""
        name = self.manifest.ids[row]
        image = self.images[row]
        png = film_png(image) if image.any() else None  # zeros stand for what cannot be decoded
        split = self.manifest.splits[row] or "no split"
        return PageFilm(
            png, name, f"film {name}, {self.manifest.classes[row]}, {split}", badge, note
        )

    def group(self, rows: Rows, caption: str, said: Sequence[str]) -> FilmGroup:
        """Some films of a group: of each split or label one, before any second one.

        Args:
            rows: The group.
            caption: What they have in common.
            said: Split or label of every image, shown as a tag.
        """
        order = {name: place for place, name in enumerate(SPLITS)}
        ordered = sorted(rows, key=lambda row: (order.get(said[row], len(order)), row))
        seen: Counter[str] = Counter()
        turn = {}
        for row in ordered:
            turn[row] = seen[said[row]]
            seen[said[row]] += 1
        chosen = set(sorted(ordered, key=lambda row: turn[row])[:MOST_FILMS])
        films = tuple(self.film(row, said[row]) for row in ordered if row in chosen)
        return FilmGroup(caption, films, len(rows) - len(films))

    def gallery(
        self,
        title: str,
        text: str,
        groups: Sequence[Rows],
        caption: Callable[[Rows], str],
        said: Sequence[str],
    ) -> Gallery:
        """The first groups under one heading."""
        shown = tuple(self.group(rows, caption(rows), said) for rows in groups[:MOST_GROUPS])
        return Gallery(title, text, shown, max(0, len(groups) - MOST_GROUPS))


def _verdict(audit: Audit, manifest: Manifest) -> tuple[str, ...]:
    """The worst first."""
    leaks = audit.leaks
    exactly = {group.rows for group in leaks.exact}
    n_near = sum(group.rows not in exactly for group in leaks.near)
    parts = (
        (len(leaks.patients), "patient stands", "patients stand", "in more than one split"),
        (len(leaks.exact), "picture stands", "pictures stand", "in more than one split, pixel by "
         "pixel"),
        (n_near, "group of near copies stands", "groups of near copies stand", "in more than one "
         "split"),
    )  # fmt: skip
    said = [f"{n:,} {one if n == 1 else many} {where}." for n, one, many, where in parts if n]
    if said:
        said.append(
            "A model trained on these splits is judged in part on what it has seen, and looks "
            "better than it is. The command xray-classifier check --fix writes splits in which "
            "patients and copies stand together."
        )
    said += [
        f"{words[0].upper()}{words[1:]}, without a look at anatomy: a model may learn this instead "
        "of the disease."
        for words in map(in_words, audit.loud_shortcuts)
    ]
    if not leaks.across and any(manifest.splits):
        said.append("Nothing was found that stands in more than one split.")
    elif not any(manifest.splits):
        said.append(
            "The data bring no splits. Training makes them so that patients and copies of a "
            "picture stand together."
        )
    unseen = unseen_words(audit, manifest)
    said += [f"Not looked at: {words}." for words in unseen]
    said.append("Cropped, mirrored and inverted copies are not searched for.")
    return tuple(said)


def _leak_galleries(audit: Audit, manifest: Manifest, films: _Films) -> tuple[Gallery, ...]:
    leaks, splits = audit.leaks, manifest.splits
    exact = [group.rows for group in leaks.exact]
    near = [group.rows for group in leaks.near if group.rows not in set(exact)]
    patients = {group.rows: group.key for group in leaks.patients}
    inside = [group.rows for group in (*leaks.exact_inside, *leaks.near_inside)]

    def where(rows: Rows) -> str:
        counts = Counter(splits[row] for row in rows)
        return ", ".join(f"{counts[name]} {name or 'no split'}" for name in PLACES if counts[name])

    galleries = (
        (exact, "Equal pixels in more than one split", "Pixel by pixel, in whatever file.", where),
        (
            near,
            "Near copies in more than one split",
            "Re-encoded, resized or re-windowed, at times beside an equal one.",
            where,
        ),
        (
            list(patients),
            "Patients in more than one split",
            "Films of one patient look alike: a model can know the patient.",
            lambda rows: f"{patients[tuple(rows)]}: {where(rows)}",
        ),
        (inside, "Copies inside one split", "No leak, but each copy counts twice.", where),
    )
    return tuple(
        films.gallery(f"{title}: {len(groups):,}", text, groups, caption, splits)
        for groups, title, text, caption in galleries
        if groups
    )


def _label_galleries(audit: Audit, manifest: Manifest, films: _Films) -> tuple[Gallery, ...]:
    torn = [*audit.contradictions, *audit.near_contradictions]
    found = []
    if torn:
        title = f"One picture under two labels: {len(torn):,}"
        text = "One of the labels is wrong, or the picture does not tell."
        found.append(films.gallery(title, text, torn, lambda rows: "", manifest.classes))
    if audit.lacking:
        text = "; ".join(f"{c.split or 'unassigned'}: no {c.name} image" for c in audit.lacking)
        found.append(Gallery("A split lacks a class", text))
    if audit.few:
        counts = "; ".join(
            f"{c.split or 'unassigned'}: {c.patients} {c.name} patients ({c.images} images)"
            for c in audit.few
        )
        text = f"Fewer than {FEWEST_PATIENTS} patients say little. {counts}"
        found.append(Gallery("Few patients", text))
    return tuple(found)


def _quality_galleries(audit: Audit, films: _Films) -> tuple[Gallery, ...]:
    found = []
    for kind, meaning in KINDS.items():
        odd = [o for o in audit.oddities if o.kind == kind]
        if odd:
            shown = tuple(
                films.film(o.row, films.manifest.splits[o.row], o.detail) for o in odd[:MOST_ODD]
            )
            title = f"{kind.replace('_', ' ').capitalize()}: {len(odd):,}"
            group = FilmGroup("", shown, max(0, len(odd) - MOST_ODD))
            found.append(Gallery(title, f"{meaning[0].upper()}{meaning[1:]}.", (group,)))
    return tuple(found)


def _probe_row(probe: ProbeResult) -> ProbeRow:
    name = probe.name if probe.kind == "covariate" else SUBJECTS.get(probe.name, probe.name)
    return ProbeRow(
        name,
        probe.kind,
        probe.auroc,
        probe.ci_low,
        probe.ci_high,
        probe.n,
        probe.note,
        probe.method,
    )


def _split_table(manifest: Manifest) -> ReportTable:
    """Images of each class in each split, and patients."""
    rows = []
    for split in PLACES:
        inside = [row for row, name in enumerate(manifest.splits) if name == split]
        if not inside:
            continue
        targets = [manifest.targets[row] for row in inside]
        patients = len({manifest.patients[row] for row in inside})
        rows.append(
            (
                split or "no split",
                f"{len(inside):,}",
                *(f"{targets.count(float(k)):,}" for k in range(len(CLASS_NAMES))),
                f"{patients:,}" if manifest.patients_known else "unknown",
            )
        )
    return ReportTable("Images", ("split", "images", *CLASS_NAMES, "patients"), tuple(rows))
