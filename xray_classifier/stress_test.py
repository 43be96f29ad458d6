"""`evaluate --stress`: the same films after what goes wrong in daily work, through the same model.

Films are read again, for the cache holds them after the intensity step. One film with all its
changed copies is prepared at a time per thread, so that memory does not grow with their number.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from xray_classifier.classifier import Classifier
from xray_classifier.data.decode import film_from_array, read_film
from xray_classifier.data.film import Film
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.manifest import Manifest, NpzImages
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.data.stress import LEVELS, PERTURBATIONS, VARIANTS, variants
from xray_classifier.errors import DataError, DecodeError, UsageError
from xray_classifier.report import figures as draw
from xray_classifier.report.page import ReportFigure, ReportTable
from xray_classifier.report.stress_figure import StressPanel
from xray_classifier.report.words import number_text
from xray_classifier.robustness import StressCell, StressTest, robustness
from xray_classifier.terminal import Terminal

__all__ = ["StressTest", "stress_picture", "stress_table", "stress_test"]

AT_ONCE_BYTES = 2**25
"""Prepared copies in memory at a time, unless those of one film per thread are more."""
AT_ONCE_FILMS = 10  # with 51 copies each: two batches of inference, nearly full

Reader = Callable[[], Film]
Copies = NDArray[np.uint8]


def stress_test(
    classifier: Classifier,
    radiographs: Radiographs,
    rows: NDArray[np.int64],
    terminal: Terminal,
    *,
    max_images: int = 400,
    seed: int = 0,
    workers: int | None = None,
) -> StressTest:
    """Try a model on films that were changed in ten ways at five strengths each.

    Args:
        classifier: The model.
        radiographs: Decoded with the classifier's own settings.
        rows: Rows of the manifest to take films from, shape (n,), in any order.
        terminal: Shows a bar.
        max_images: Most films; where there are more, each class is cut in proportion, the same
            films for the same seed.
        seed: Of the draws, of each film's changes and of the bootstrap.
        workers: Threads; None is one per core. The result does not depend on it.

    Raises:
        UsageError: The model predicts a number.
        DataError: No film can be used, or the NPZ file cannot be read.
        ValueError: `max_images` is below 2.
    """
    if classifier.task != "classify":
        raise UsageError("--stress is for classify only, and this model predicts a number")
    if max_images < 2:
        raise ValueError(f"max_images must be at least 2, got {max_images}")
    readable = np.array([row for row in rows if not radiographs.reasons[row]], dtype=np.int64)
    drawn = _drawn(radiographs, np.sort(readable), max_images, seed)
    answers = _answers(classifier, radiographs, drawn, terminal, seed, workers or os.cpu_count())
    used = np.array([row for row in drawn if row in answers], dtype=np.int64)
    if not len(used):
        raise DataError("the stress test found no film that can be read and changed")
    logits = np.stack([answers[row] for row in used])
    n_left_out = len(drawn) - len(used)
    manifest = radiographs.manifest
    return robustness(
        manifest.targets[used].astype(np.int64),
        logits,
        classifier.score_outputs(logits.ravel()).p_sick.reshape(logits.shape),
        threshold=classifier.threshold,
        groups=np.array([manifest.patients[row] for row in used], dtype=object),
        usual_logits=_usual_logits(classifier, radiographs, used),
        n_given=len(readable),
        n_left_out=n_left_out,
        notes=_notes(len(readable), len(drawn), n_left_out),
        seed=seed,
    )


def _drawn(
    radiographs: Radiographs, rows: NDArray[np.int64], max_images: int, seed: int
) -> NDArray[np.int64]:
    """At most `max_images` of ascending rows, each class in proportion, ascending."""
    if len(rows) <= max_images:
        return rows
    sick = radiographs.manifest.targets[rows] == 1
    n_sick = round(max_images * float(sick.mean()))
    if 0 < sick.sum() < len(rows):  # neither class vanishes
        n_sick = min(max(n_sick, 1), max_images - 1)

    def place(row: int) -> tuple[bytes, int]:
        content = f"{seed} {radiographs.digests[row]}".encode()
        return hashlib.blake2b(content, digest_size=8).digest(), row

    chosen = sorted(rows[sick].tolist(), key=place)[:n_sick]
    chosen += sorted(rows[~sick].tolist(), key=place)[: max_images - n_sick]
    return np.array(sorted(chosen), dtype=np.int64)


def _answers(
    classifier: Classifier,
    radiographs: Radiographs,
    rows: NDArray[np.int64],
    terminal: Terminal,
    seed: int,
    workers: int | None,
) -> dict[int, NDArray[np.float64]]:
    """Logits (51,) of each film and its changed copies by row; rows without are left out."""
    found: dict[int, NDArray[np.float64]] = {}
    done = 0
    with terminal.bar("stress test", len(rows), "img") as bar:
        for batch in _copies(classifier, radiographs, rows, seed, workers or 1):
            made = {row: copies for row, copies in batch if copies is not None}
            if made:
                images = np.concatenate(list(made.values()))
                logits = classifier.score(images).logits.reshape(len(made), len(VARIANTS))
                found.update(zip(made, logits, strict=True))
            done += len(batch)
            bar(done)
    return found


def _copies(
    classifier: Classifier,
    radiographs: Radiographs,
    rows: NDArray[np.int64],
    seed: int,
    workers: int,
) -> Iterator[list[tuple[int, Copies | None]]]:
    """Each row with its film and the changed copies (51, S, S) as the model sees them, in batches.

    None stands for a film that cannot be read, or of which a change leaves nothing.
    """
    settings = classifier.content["image"]
    size, crop, intensity = settings["size"], settings["crop"], settings["intensity"]
    n_at_once = min(AT_ONCE_FILMS, AT_ONCE_BYTES // (len(VARIANTS) * size * size))

    def prepare_copies(item: tuple[int, Reader]) -> tuple[int, Copies | None]:
        row, read = item
        try:
            image = radiographs.digests[row]
            return row, variants(read(), size, crop, intensity, seed=seed, image=image)
        except DecodeError:
            return row, None

    readers = _readers(radiographs.manifest, rows, settings.get("for_processing", "reject"))
    with ThreadPoolExecutor(workers) as pool:
        for batch in _batches(zip(rows.tolist(), readers, strict=True), max(workers, n_at_once)):
            yield list(pool.map(prepare_copies, batch))


def _batches(
    items: Iterable[tuple[int, Reader]], n_at_once: int
) -> Iterator[list[tuple[int, Reader]]]:
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, n_at_once)):
        yield batch


def _readers(manifest: Manifest, rows: NDArray[np.int64], for_processing: str) -> Iterator[Reader]:
    """What reads each film at its native depth, in the order of ascending rows."""
    if manifest.kind == "files":
        for row in rows:
            yield partial(read_film, manifest.files[row], for_processing)
    elif manifest.kind == "npz" and manifest.root is not None:
        arrays = NpzImages(manifest.root)
        ids = [manifest.ids[row] for row in rows]
        arrays.verify(ids)
        for array in arrays.rows(ids):
            yield partial(film_from_array, array)
    else:
        for row in rows:
            yield partial(_phantom, manifest.phantom_seed or 0, manifest.phantom_rows[row])


def _phantom(seed: int, number: int) -> Film:
    return film_from_array(draw_phantom(seed, number).pixels)


def _usual_logits(
    classifier: Classifier, radiographs: Radiographs, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    images = torch.from_numpy(radiographs.images)
    return classifier.score(images, torch.from_numpy(rows)).logits


def _notes(n_readable: int, n_drawn: int, n_left_out: int) -> tuple[str, ...]:
    notes = []
    if n_drawn < n_readable:
        notes.append(
            f"the stress test took {n_drawn:,} of {n_readable:,} images, each class in proportion"
        )
    if n_left_out:
        notes.append(
            f"{n_left_out} of {n_drawn} images could not be read, or showed one grey level after "
            "a change, and are in no number of the stress test"
        )
    return tuple(notes)


def stress_table(result: StressTest) -> ReportTable:
    """The numbers of a stress test: one line without a change, then one per change and strength."""
    rows = tuple(_line(cell) for cell in (result.unchanged, *result.cells))
    header = (
        "change", "AUROC", "95 % interval", "fall", "Brier", "ECE", "sensitivity", "specificity",
    )  # fmt: skip
    return ReportTable(f"Stress test on {result.n:,} images", header, rows)


def strength_table(result: StressTest) -> ReportTable:
    """AUROC by kind of change, from the weakest to the strongest, the worst kind first."""
    found = {(cell.perturbation, cell.level): cell for cell in result.cells}
    levels = range(1, LEVELS + 1)
    kinds = sorted(
        PERTURBATIONS, key=lambda kind: min(found[kind.name, n].auroc.value for n in levels)
    )
    rows = tuple(
        (
            kind.name.replace("jpeg", "JPEG"),
            *(number_text(found[kind.name, level].auroc.value) for level in levels),
            kind.in_words(LEVELS),
        )
        for kind in kinds
    )
    header = ("change", "weakest", *("stronger",) * (LEVELS - 2), "strongest", "which is")
    title = (
        f"AUROC as films get worse; {number_text(result.unchanged.auroc.value)} without a change"
    )
    return ReportTable(title, header, rows)


def _line(cell: StressCell) -> tuple[str, ...]:
    area = cell.auroc
    numbers = (cell.brier, cell.ece, cell.sensitivity, cell.specificity)
    between = "-" if np.isnan(area.ci_low) else f"{area.ci_low:.3f} to {area.ci_high:.3f}"
    fall = "-" if cell.level == 0 else number_text(round(cell.drop.value, 3) + 0.0)
    return (cell.words, number_text(area.value), between, fall, *map(number_text, numbers))


def stress_picture(result: StressTest, split: str | None = None) -> ReportFigure:
    """AUROC against strength, one small chart per kind of change.

    Args:
        result: What to draw.
        split: Name of the split, or None.
    """
    cells = {(cell.perturbation, cell.level): cell for cell in result.cells}
    panels = []
    for kind in PERTURBATIONS:
        found: Sequence[StressCell] = [cells[kind.name, level] for level in range(1, LEVELS + 1)]
        panels.append(
            StressPanel(
                name=kind.name.replace("jpeg", "JPEG"),
                unit=kind.unit,
                ticks=tuple(kind.tick(level) for level in range(1, LEVELS + 1)),
                aurocs=tuple(cell.auroc.value for cell in found),
                lows=tuple(cell.auroc.ci_low for cell in found),
                highs=tuple(cell.auroc.ci_high for cell in found),
            )
        )
    png = draw.stress_curves(
        panels,
        unchanged=result.unchanged.auroc.value,
        robustness=result.robustness.value,
        ci=(result.robustness.ci_low, result.robustness.ci_high),
        n_sick=result.n_sick,
        n_healthy=result.n_healthy,
        split=split,
    )
    alt = f"AUROC against the strength of ten kinds of change. {'. '.join(result.in_words())}."
    return ReportFigure("Stress test", png, alt)
