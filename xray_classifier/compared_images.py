"""The images that several models judged, matched by path: one row an image, one answer a model.

Models can only be compared on the same images. Everything that would make two tables speak of
different ones (another list, another picture under a path, another label) is refused here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

import numpy as np
from numpy.typing import NDArray

from xray_classifier.bootstrap import patient_clusters
from xray_classifier.errors import DataError
from xray_classifier.files import printable
from xray_classifier.metrics import BoolArray, FloatArray, IntArray

SICK, HEALTHY, NO_ANSWER = 1, 0, -1
ANSWERS = {"sick": SICK, "healthy": HEALTHY, "refer": NO_ANSWER, "": NO_ANSWER}
NAMED_AT_MOST = 3


@dataclass(frozen=True)
class PredictionTable:
    """What one model said of one split, as `evaluate` writes it: n rows, in file order.

    Attributes:
        name: What a person calls the model.
        where: The file.
        task: classify or regress.
        split: train, val, test or all; None where nothing tells.
        threshold: Smallest p_sick called sick; None for regression or where nothing tells.
        policy: How the threshold was chosen, or None.
        paths: Image of each row, all different.
        targets: Truth, shape (n,); 1 is sick, or the number.
        patients: Patient of each row, "" where unknown.
        hashes: Hash of each picture, "" where unknown.
        scores: Logits or predicted numbers, shape (n,); NaN where the image could not be read.
        p_sick: Calibrated probabilities, shape (n,); NaN there and for regression.
        decisions: Keys of ANSWERS, one a row; "" for an unreadable image and for regression.
        in_training: yes, possible, no or "" a row.
    """

    name: str
    where: str
    task: str
    split: str | None
    threshold: float | None
    policy: str | None
    paths: tuple[str, ...]
    targets: FloatArray
    patients: tuple[str, ...]
    hashes: tuple[str, ...]
    scores: FloatArray
    p_sick: FloatArray
    decisions: tuple[str, ...]
    in_training: tuple[str, ...]


@dataclass(frozen=True)
class SharedImages:
    """The images that all of k models could read, n of them, in the order of the first table.

    Attributes:
        task: classify or regress.
        paths: Of the images.
        targets: Truth, shape (n,).
        patients: Of the images, "" where unknown.
        clusters: Patient numbers, shape (n,), see `patient_clusters`.
        scores: Logits or predicted numbers, shape (k, n).
        p_sick: Calibrated probabilities, shape (k, n).
        decisions: SICK or HEALTHY at each model's threshold, a referred image too; NO_ANSWER
            where nothing tells, shape (k, n).
        referred: Which images a model leaves to a person, shape (k, n).
        trained_on: Whether a model certainly learnt from an image, shape (k, n).
        n_unreadable: Images of each table that its model could not read.
        n_not_shared: Images of each table that another table lacks.
        warnings: What a reader must know of the matching.
    """

    task: str
    paths: tuple[str, ...]
    targets: FloatArray
    patients: tuple[str, ...]
    clusters: IntArray
    scores: FloatArray
    p_sick: FloatArray
    decisions: IntArray
    referred: BoolArray
    trained_on: BoolArray
    n_unreadable: tuple[int, ...]
    n_not_shared: tuple[int, ...]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def n_patients(self) -> int:
        """Patients; images of unknown ones count as one each."""
        return len(np.unique(self.clusters))

    @property
    def patients_repeat(self) -> bool:
        """Whether any patient has several images."""
        return self.n_patients < len(self)

    @property
    def patients_known(self) -> bool:
        """Whether any image names its patient."""
        return any(self.patients)

    def only(self, chosen: BoolArray) -> "SharedImages":
        """The chosen images, shape (n,) of the mask; the counts of images left out stay."""
        rows = np.flatnonzero(chosen)
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows),
            targets=self.targets[rows],
            patients=tuple(self.patients[row] for row in rows),
            clusters=np.unique(self.clusters[rows], return_inverse=True)[1],
            scores=self.scores[:, rows],
            p_sick=self.p_sick[:, rows],
            decisions=self.decisions[:, rows],
            referred=self.referred[:, rows],
            trained_on=self.trained_on[:, rows],
        )


def letter(place: int) -> str:
    """What the model at a place is called: A, B, ..., Z, AA, AB, ..."""
    before, own = divmod(place, len(ascii_uppercase))
    return (letter(before - 1) if before else "") + ascii_uppercase[own]


def shared_images(tables: Sequence[PredictionTable], intersect: bool = False) -> SharedImages:
    """Match the rows of several tables.

    Args:
        tables: Two or more.
        intersect: Take the images that all tables have, instead of refusing tables that differ.

    Raises:
        DataError: The tables hold different images, another picture or another label under the
            same path, different tasks, or no image that all models could read.
    """
    _refuse_tasks(tables)
    common = set(tables[0].paths).intersection(*(table.paths for table in tables[1:]))
    if not common or (not intersect and any(len(t.paths) > len(common) for t in tables)):
        raise DataError(_differing_sets(tables, common))
    paths = [path for path in tables[0].paths if path in common]
    places = [_places(table, paths) for table in tables]
    _refuse_other_images(tables, places, paths)
    readable = np.array([~np.isnan(t.scores[p]) for t, p in zip(tables, places, strict=True)])
    kept: BoolArray = np.logical_and.reduce(readable)
    if not kept.any():
        raise DataError(f"of the {len(paths):,} images, none was read by all models")
    places = [rows[kept] for rows in places]
    patients, about_patients = _patients(tables, places)
    pairs = list(zip(tables, places, strict=True))
    return SharedImages(
        task=tables[0].task,
        paths=tuple(path for path, keep in zip(paths, kept, strict=True) if keep),
        targets=tables[0].targets[places[0]],
        patients=patients,
        clusters=patient_clusters(np.array(patients, dtype=object), len(patients)),
        scores=np.array([t.scores[rows] for t, rows in pairs]),
        p_sick=np.array([t.p_sick[rows] for t, rows in pairs]),
        decisions=np.array([_decided(table)[rows] for table, rows in pairs]),
        referred=np.array(
            [[table.decisions[row] == "refer" for row in rows] for table, rows in pairs]
        ),
        trained_on=np.array([[t.in_training[row] == "yes" for row in rows] for t, rows in pairs]),
        n_unreadable=tuple(int(np.isnan(t.scores).sum()) for t in tables),
        n_not_shared=tuple(len(t.paths) - len(common) for t in tables),
        warnings=(*_about_pictures(tables), *about_patients),
    )


def _refuse_tasks(tables: Sequence[PredictionTable]) -> None:
    tasks = {"classify": "calls images sick or healthy", "regress": "predicts a number"}
    other = next((i for i, t in enumerate(tables) if t.task != tables[0].task), None)
    if other is not None:
        raise DataError(
            f"A {tasks[tables[0].task]} and {letter(other)} {tasks[tables[other].task]}; "
            "only models of one kind can be compared"
        )


def _places(table: PredictionTable, paths: Sequence[str]) -> NDArray[np.int64]:
    place = {path: row for row, path in enumerate(table.paths)}
    return np.array([place[path] for path in paths], dtype=np.int64)


def _differing_sets(tables: Sequence[PredictionTable], common: set[str]) -> str:
    """How the lists of images differ, and what to do about it."""
    counts = ", ".join(f"{letter(i)} has {len(t.paths):,}" for i, t in enumerate(tables))
    only = []
    for i, table in enumerate(tables):
        extra = [path for path in table.paths if path not in common]
        if extra:
            named = ", ".join(printable(path) for path in extra[:NAMED_AT_MOST])
            more = ", ..." if len(extra) > NAMED_AT_MOST else ""
            only.append(
                f"\n  {letter(i)} ({table.where}): {len(extra):,} not in all: {named}{more}"
            )
    what = "these models were judged on different images"
    said = f"{what}: {counts}, {len(common):,} are in all{''.join(only)}\n"
    if common:
        return said + "Evaluate all on the same split, or compare on the shared ones: --intersect."
    if _same_pictures(tables):
        return said + "The pictures are the same under other paths; judge all on one folder: --data"
    return said + "Evaluate all on the same images, for instance with --data PATH."


def _same_pictures(tables: Sequence[PredictionTable]) -> bool:
    shared = set(tables[0].hashes).intersection(*(table.hashes for table in tables[1:])) - {""}
    return bool(shared)


def _decided(table: PredictionTable) -> IntArray:
    """The decision on each row at the model's threshold, shape (n,)."""
    if table.threshold is None:
        return np.array([ANSWERS[decision] for decision in table.decisions], dtype=np.int64)
    found = np.where(table.p_sick >= table.threshold, SICK, HEALTHY)
    return np.where(np.isnan(table.p_sick), NO_ANSWER, found).astype(np.int64)


def _refuse_other_images(
    tables: Sequence[PredictionTable], places: Sequence[NDArray[np.int64]], paths: Sequence[str]
) -> None:
    """Refuse a path that stands for another picture, or has another label, in another table."""
    found: dict[str, list[str]] = {"another picture": [], "another label": []}
    for i, path in enumerate(paths):
        rows = [(table, rows[i]) for table, rows in zip(tables, places, strict=True)]
        if len({table.hashes[row] for table, row in rows} - {""}) > 1:
            found["another picture"].append(path)
        if len({float(table.targets[row]) for table, row in rows}) > 1:
            found["another label"].append(path)
    for what, where in found.items():
        if where:
            named = ", ".join(printable(path) for path in where[:NAMED_AT_MOST])
            more = ", ..." if len(where) > NAMED_AT_MOST else ""
            raise DataError(
                f"{len(where):,} of {len(paths):,} images have {what} in another table: "
                f"{named}{more}\nThe models were not judged on the same images; evaluate all on "
                "the same ones, for instance with --data PATH."
            )


def _about_pictures(tables: Sequence[PredictionTable]) -> list[str]:
    without = [letter(i) for i, table in enumerate(tables) if not any(table.hashes)]
    if not without:
        return []
    return [
        f"images were matched by path and label alone: {listed(without)} "
        f"{'has' if len(without) == 1 else 'have'} no pixel_hash to compare the pictures by; "
        "evaluate anew to get one"
    ]


def _patients(
    tables: Sequence[PredictionTable], places: Sequence[NDArray[np.int64]]
) -> tuple[tuple[str, ...], list[str]]:
    """The patients of the first table that names any, and what to say about them."""
    named = [
        (letter(i), tuple(table.patients[row] for row in rows))
        for i, (table, rows) in enumerate(zip(tables, places, strict=True))
    ]
    known = [(name, patients) for name, patients in named if any(patients)]
    if not known:
        return named[0][1], [
            "patients are not known, so every image counts as a patient of its own; where patients "
            "have several images, intervals are too narrow and p too small"
        ]
    name, patients = known[0]
    others = [other for other, theirs in known[1:] if not _grouped_alike(patients, theirs)]
    if not others:
        return patients, []
    groups = "groups" if len(others) == 1 else "group"
    return patients, [
        f"{listed(others)} {groups} the images by patient in another way than {name}; "
        f"those of {name} are used"
    ]


def _grouped_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    n = len(one)
    first = patient_clusters(np.array(one, dtype=object), n)
    second = patient_clusters(np.array(other, dtype=object), n)
    return bool((first == second).all())


def listed(words: Sequence[str]) -> str:
    """Words as one would say them: A, A and B, or A, B and C."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
