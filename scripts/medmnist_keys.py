#!/usr/bin/env python3
"""Find the film behind each image of PneumoniaMNIST, and with it patient, agent and number.

    scripts/medmnist_keys.py NPZ FILMS [-o keys.csv]

NPZ is pneumoniamnist.npz, whose images carry no names; FILMS is a folder of Kermany's films, with
NORMAL and PNEUMONIA in it. Each image is held against every film of its class, made 28 px small,
and takes the name of the one that it correlates with most. FILMS may hold copies that were
stretched to a square: as their old width is not known, the central square is looked for at nine
widths.

Writes one line per image: id, film, patient, series, number, correlation. An image whose best
film correlates by less than 0.9, or as much as a film of another patient does, stays without a
name. Needs this project to be installed. Exit codes: 0 done, 2 usage.
"""

import argparse
import csv
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_classifier.data.patients import SCHEMES, patient_of
from xray_classifier.errors import DataError

SIDE_PX = 28
LEAST_CORRELATION = 0.9
LEAST_MARGIN = 0.01
"""Between the best film and the best one of any other patient."""
WIDTHS = (1.0, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55)
"""Of the central square, as a fraction of the width that the film has now."""
CLASSES = {0: "NORMAL", 1: "PNEUMONIA"}
NAME = re.compile(r"(?:person(\d+)_(bacteria|virus)_\d+|(NORMAL2-)?IM-(\d+)-)")
AT_ONCE = 512

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Key:
    """What the name of a film tells of an image; all empty where no film was found.

    Attributes:
        id: The image, as `train_images/12`.
        film: Name of the film without its folder.
        patient: As `data.patient: auto` reads it from the film's name.
        series: bacteria, virus, IM or NORMAL2: each has numbers of its own.
        number: Of the patient in that series.
        correlation: Between the image and the film, -1 to 1.
    """

    id: str
    film: str = ""
    patient: str = ""
    series: str = ""
    number: int | None = None
    correlation: float = float("nan")


def main() -> int:
    """Match, write the table, say how many were found."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("npz", type=Path, metavar="NPZ")
    parser.add_argument("films", type=Path, metavar="FILMS")
    parser.add_argument("-o", dest="out", type=Path, default=Path("keys.csv"), metavar="FILE")
    asked = parser.parse_args()
    keys = recovered_keys(asked.npz, asked.films)
    write_keys(asked.out, keys)
    found = sum(bool(key.film) for key in keys)
    print(f"{found:,} of {len(keys):,} images have a film, of {n_patients(keys):,} patients")
    return 0


def n_patients(keys: Sequence[Key]) -> int:
    """How many patients the keys name."""
    return len({key.patient for key in keys if key.patient})


def recovered_keys(npz: Path, films: Path) -> list[Key]:
    """One key per image of `train_images`, then of `val_images`; the test split is left alone.

    Args:
        npz: Arrays as MedMNIST has them, 28 px.
        films: Folder with NORMAL and PNEUMONIA.

    Raises:
        DataError: A class has no films.
    """
    ids, images, labels = _images_of(npz)
    keys = [Key(name) for name in ids]
    for code, folder in CLASSES.items():
        paths = sorted(path for path in (films / folder).glob("*") if NAME.match(path.name))
        if not paths:
            raise DataError(f"no films of Kermany's in {films / folder}")
        with ThreadPoolExecutor() as pool:
            looks = np.stack(list(pool.map(squares, paths)))
        chosen = np.flatnonzero(labels == code)
        patients = np.array([_patient(path.name) for path in paths], dtype=object)
        best, correlation, margin = matched(images[chosen], looks, patients)
        for row, film, high, apart in zip(chosen, best, correlation, margin, strict=True):
            if high >= LEAST_CORRELATION and apart >= LEAST_MARGIN:
                keys[row] = key_of(ids[row], paths[film].name, float(high))
    return keys


def _images_of(npz: Path) -> tuple[list[str], NDArray[np.uint8], NDArray[np.int64]]:
    """Ids, images (n, 28, 28) and label codes (n,) of train and val."""
    with np.load(npz, allow_pickle=False) as arrays:
        names = [name for name in ("train", "val") if f"{name}_images" in arrays]
        stacks = [arrays[f"{name}_images"] for name in names]
        codes = [arrays[f"{name}_labels"].ravel() for name in names]
    ids = [
        f"{name}_images/{row}"
        for name, stack in zip(names, stacks, strict=True)
        for row in range(len(stack))
    ]
    return ids, np.concatenate(stacks), np.concatenate(codes).astype(np.int64)


def squares(path: Path) -> Floats:
    """The central square of a film at each of `WIDTHS`, (9, 28, 28) float32."""
    with Image.open(path) as image:
        grey = image.convert("L")
    width, height = grey.size
    found = []
    for share in WIDTHS:
        left = (1.0 - share) * width / 2
        box = (left, 0, width - left, height)
        small = grey.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC, box=box)
        found.append(np.asarray(small, np.float32))
    return np.stack(found)


def matched(
    images: NDArray[Any], looks: Floats, patients: NDArray[Any]
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """The film that each image resembles most.

    Args:
        images: (n, H, W) grey levels.
        looks: (n_films, n_looks, H, W) grey levels; the best look of a film counts.
        patients: Patient of each film, (n_films,).

    Returns:
        Place of the best film, its correlation, and by how much that exceeds the best film of
        another patient, each (n,); the last is 2 where there is no other patient.
    """
    films = _standardised(looks.reshape(len(looks), looks.shape[1], -1))
    best = np.zeros(len(images), np.int64)
    correlation, margin = np.zeros(len(images), np.float32), np.zeros(len(images), np.float32)
    for start in range(0, len(images), AT_ONCE):
        part = _standardised(images[start : start + AT_ONCE].reshape(-1, films.shape[2]))
        values = np.max([part @ films[:, look].T for look in range(films.shape[1])], axis=0)
        at = slice(start, start + len(part))
        best[at] = values.argmax(axis=1)
        correlation[at] = values.max(axis=1)
        others = np.where(patients[None] == patients[best[at]][:, None], -1.0, values)
        margin[at] = correlation[at] - others.max(axis=1)
    return best, correlation, margin


def _standardised(flat: NDArray[Any]) -> Floats:
    """Rows without their mean, at length 1."""
    centred = flat.astype(np.float32) - flat.mean(axis=-1, keepdims=True, dtype=np.float32)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.asarray(centred / np.maximum(length, 1e-6), np.float32)


def key_of(image: str, film: str, correlation: float) -> Key:
    """Read the name of a film.

    Raises:
        ValueError: It is no name of Kermany's.
    """
    match = NAME.match(film)
    if match is None:
        raise ValueError(f"{film} is no film of Kermany's")
    series = match[2] or ("NORMAL2" if match[3] else "IM")
    number = int(match[1] or match[4])
    return Key(image, film, _patient(film), series, number, round(correlation, 4))


def _patient(film: str) -> str:
    found = (patient_of(film, pattern) for pattern in SCHEMES["kermany"])
    return next((key for key in found if key), film)


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    """Write the table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Key.__dataclass_fields__)
        for key in keys:
            number = "" if key.number is None else key.number
            found = key.correlation if key.film else ""
            writer.writerow([key.id, key.film, key.patient, key.series, number, found])


def read_keys(path: Path) -> list[Key]:
    """Read what `write_keys` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Key(
                row["id"],
                row["film"],
                row["patient"],
                row["series"],
                int(row["number"]) if row["number"] else None,
                float(row["correlation"] or "nan"),
            )
            for row in csv.DictReader(file)
        ]


if __name__ == "__main__":
    raise SystemExit(main())
