"""How well something that is not anatomy tells the sick from the healthy.

A model learns whatever tells the classes apart. Where one class was taken with another device, or
saved in another way, that may be the size of the file. Each probe is a logistic regression on a few
such features, judged on patients that it has not seen.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xray_classifier.bootstrap import patient_clusters
from xray_classifier.cross_validation import (
    Folds,
    Method,
    fold_auroc,
    out_of_fold_logits,
    probe_folds,
)
from xray_classifier.data import probe_features as seen
from xray_classifier.data.signature import Signatures
from xray_classifier.files import printable
from xray_classifier.metrics import FloatArray, IntArray, Labels

Kind = Literal["acquisition", "covariate", "baseline"]

SUBJECTS = {
    "size": "image size",
    "aspect": "aspect ratio",
    "compression": "file size per pixel",
    "mode": "pixel mode",
    "bits": "bit depth",
    "container": "file format",
    "scanner": "scanner",
    "border": "border of the film",
    "acquisition": "all file properties together",
    "acquisition_and_border": "file properties and border together",
    "thumbnail": "thumbnail of 8 x 8 pixels",
}
NOTES = {
    "compression": "a sharp or noisy picture takes more bytes",
    "border": "shoulders, arms and belly may reach into the border",
    "acquisition_and_border": "shoulders, arms and belly may reach into the border",
}
"""What a probe may see of the anatomy all the same."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one probe came to."""

    name: str
    """A key of `SUBJECTS`, or the name of a column."""
    kind: Kind
    """`acquisition`: how the film was taken and stored, a shortcut; `covariate`: a column of the
    CSV, a shortcut or medicine; `baseline`: anatomy, but so little of it that it says how easy the
    task is."""
    auroc: float | None
    """Of images in folds that the regression has not seen, a fraction in [0, 1]; None if there is
    nothing to judge, see `note`."""
    ci_low: float | None
    ci_high: float | None
    """Ends of the 95 % interval; None where the data support none."""
    n: int
    """Images."""
    method: Method | Literal["none"]
    """How the interval was made: DeLong's, with images summed over each patient, or exact for an
    AUROC of 0 or 1; `none` where there is nothing to judge."""
    note: str
    """What a person should know, or ``."""


def shortcut_probes(
    signatures: Signatures,
    labels: Labels,
    groups: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    seed: int = 0,
) -> tuple[ProbeResult, ...]:
    """Ask how well each thing that is not anatomy predicts the label.

    Args:
        signatures: Of images that could be decoded, shape (n_images,).
        labels: Truth per image, shape (n_images,); 1 is sick, 0 is healthy.
        groups: Patient key per image.
        columns: Further columns of a CSV, each one text per image.
        seed: Of the folds.

    Returns:
        The acquisition, the thumbnail, then the columns in their order; nothing without images.

    Raises:
        DataError: A label is not 0 or 1, or shapes differ.
        ValueError: A column has not one text per image.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if not len(signatures):
        return ()
    folds = probe_folds(groups, labels, seed=seed)
    clusters = patient_clusters(np.asarray(groups, dtype=object), len(signatures))
    judge = _Judge(np.asarray(labels), clusters, folds)
    # Many small products: on a busy machine, threads that wait for each other took 7 times as long.
    with threadpool_limits(1, user_api="blas"):
        results = [judge(name, "acquisition", table) for name, table in _acquisition(signatures)]
        results.append(judge("thumbnail", "baseline", seen.thumbnail_features(signatures)))
        for name, cells in columns.items():
            results.append(judge(name, "covariate", seen.column_features(cells)))
    return tuple(results)


def _acquisition(signatures: Signatures) -> Iterator[tuple[str, FloatArray]]:
    """Name and features of each acquisition probe."""
    tables = {
        "size": seen.size_features(signatures),
        "aspect": seen.aspect_features(signatures),
        "compression": seen.compression_features(signatures),
        "mode": seen.one_hot(signatures["mode"]),
        "bits": seen.one_hot(signatures["bits"]),
        "container": seen.one_hot(signatures["container"]),
        "scanner": seen.scanner_features(signatures),
    }
    yield from tables.items()
    together = np.hstack(list(tables.values()))
    border = seen.border_features(signatures)
    yield "border", border
    yield "acquisition", together
    if _varies(together):  # else the border alone has said it
        yield "acquisition_and_border", np.hstack([together, border])


class _Judge:
    """Probes the same images with one table of features after another."""

    def __init__(self, labels: IntArray, clusters: IntArray, folds: Folds) -> None:
        self.labels = labels
        self.clusters = clusters
        self.folds = folds

    def __call__(self, name: str, kind: Kind, features: FloatArray | None) -> ProbeResult:
        """One probe; `features` (n_images, n_features), or None for a column of names."""
        n = len(self.labels)
        if features is not None and len(features) != n:
            raise ValueError(f"{name}: {len(features)} rows for {n} images")
        note = self._obstacle(features)
        if note or features is None or self.folds.of_image is None:
            return ProbeResult(name, kind, None, None, None, n, "none", note)
        varying = features[:, np.ptp(features, axis=0) > 0]
        folds = self.folds.of_image
        logits = out_of_fold_logits(varying, self.labels, folds)
        found = fold_auroc(self.labels, logits, folds, self.clusters)
        low, high = (None if math.isnan(end) else end for end in found.interval)
        notes = (self.folds.note, NOTES.get(name, "") if kind == "acquisition" else "")
        note = "; ".join(text for text in notes if text)
        return ProbeResult(name, kind, found.value, low, high, n, found.method, note)

    def _obstacle(self, features: FloatArray | None) -> str:
        """Why there is nothing to judge, or ``."""
        if features is None:
            return "left out: every row has a value of its own"
        if not _varies(features):
            return "no variation"
        return self.folds.note if self.folds.of_image is None else ""


def _varies(features: FloatArray) -> bool:
    return bool(features.size and np.ptp(features, axis=0).any())


def worst_shortcuts(
    results: Iterable[ProbeResult],
    model_auroc: float,
    model_ci_low: float | None = None,
    margin: float = 0.05,
) -> tuple[ProbeResult, ...]:
    """The acquisition probes that come near a model, so that it may have learned no more than they.

    A probe comes near if it beats chance (its interval lies above 0.5), and its AUROC is above the
    model's less `margin` or its interval reaches that of the model.

    Args:
        results: From `shortcut_probes`.
        model_auroc: Of the model, a fraction in [0, 1].
        model_ci_low: Lower end of its interval; None if there is none.
        margin: In units of the AUROC.

    Returns:
        The highest AUROC first.
    """
    floor = model_auroc - margin
    reached = model_auroc if model_ci_low is None else model_ci_low
    near = [
        (result.auroc, result)
        for result in results
        if result.kind == "acquisition"
        and result.auroc is not None
        and result.ci_low is not None
        and result.ci_high is not None
        and result.ci_low > 0.5
        and (result.auroc >= floor or result.ci_high >= reached)
    ]
    return tuple(result for _, result in sorted(near, key=lambda pair: -pair[0]))


def in_words(result: ProbeResult) -> str:
    """One result as a sentence without a full stop.

    Returns:
        Such as `image size alone predicts the label with AUROC 0.93 (0.89 to 0.96)`.
    """
    subject = SUBJECTS[result.name] if result.kind != "covariate" else _column(result.name)
    if result.auroc is None:
        return f"{subject}: {result.note}"
    bounds = ""
    if result.ci_low is not None and result.ci_high is not None:
        bounds = f" ({result.ci_low:.2f} to {result.ci_high:.2f})"
    several = subject.endswith("together")
    verb = "predict the label with AUROC" if several else "alone predicts the label with AUROC"
    if result.ci_low is None or result.ci_low <= 0.5:
        verb = f"{'do' if several else 'alone does'} not predict the label: AUROC"
    return f"{subject} {verb} {result.auroc:.2f}{bounds}"


def _column(name: str) -> str:
    return f"column '{printable(name)}'"
