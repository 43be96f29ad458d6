"""Synthetic chest radiographs from a seed: the embedded demo data.

Not real patients and no stand-in for them: a simple body, the physics of a film, and lesions whose
place is known.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.phantom_anatomy import MU_SOFT_PER_CM, build_scene
from xray_classifier.data.phantom_body import sample_body, sample_pose
from xray_classifier.data.phantom_film import expose
from xray_classifier.data.phantom_lesions import draw_lesion, sample_disease
from xray_classifier.data.phantom_paths import film_grid

PHANTOM_RECIPE = 1
"""Rises whenever the same seed would draw other films."""

BLOCK_IMAGES = 24
"""Patients are dealt in blocks of this many films, so that any film can be drawn on its own."""
SICK_PATIENTS = 0.47
"""Share of patients with a disease."""
SICK_FILM_OF_SICK = 0.92
"""Share of a sick patient's films that show it; the others were taken before or after."""
SICK_FILM_OF_HEALTHY = 0.06
"""Share of the films of other patients that show a passing illness."""


@dataclass(frozen=True)
class Phantom:
    """One synthetic film.

    Attributes:
        pixels: Grey levels 0..4095, dense is bright (MONOCHROME2), shape (H, W).
        label: 1 is sick, 0 is healthy.
        patient: Id of the patient, such as p0007.
        lesion_mask: Where the lesion stands out, shape (H, W); all False on a healthy film.
    """

    pixels: NDArray[np.uint16]
    label: int
    patient: str
    lesion_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class PhantomTable:
    """The films of one seed, in order, before any is drawn.

    Attributes:
        ids: Unique names such as phantom-000012.
        labels: 1 is sick, 0 is healthy, shape (n_images,).
        patients: Patient of each film, such as p0007; one to three films each.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int8]
    patients: tuple[str, ...]


def phantom_table(n_images: int, seed: int) -> PhantomTable:
    """List the films of a seed without drawing them.

    Args:
        n_images: How many; a longer table begins with the shorter one.
        seed: Which films, at least 0.

    Returns:
        Ids, labels and patients.
    """
    blocks = [_deal(seed, block) for block in range(-(-n_images // BLOCK_IMAGES))]
    patients = [patient for owners, _ in blocks for patient in owners][:n_images]
    labels = [label for _, films in blocks for label in films][:n_images]
    return PhantomTable(
        ids=tuple(phantom_id(index) for index in range(n_images)),
        labels=np.array(labels, dtype=np.int8),
        patients=tuple(_patient_id(patient) for patient in patients),
    )


def phantom_id(index: int) -> str:
    """Name of the film at `index`."""
    return f"phantom-{index:06d}"


def draw_phantom(seed: int, index: int, size_px: int = 128) -> Phantom:
    """Draw one film; a pure function of its arguments.

    Args:
        seed: Which series, at least 0.
        index: Which film of the series, at least 0.
        size_px: Side of the film in pixels.

    Returns:
        The film, its truth and the place of its lesion.
    """
    owners, labels = _deal(seed, index // BLOCK_IMAGES)
    patient, label = owners[index % BLOCK_IMAGES], labels[index % BLOCK_IMAGES]
    patient_rng, film_rng = _generator(seed, 1, patient), _generator(seed, 2, index)
    body, disease = sample_body(patient_rng), sample_disease(patient_rng)
    pose = sample_pose(film_rng)
    grid = film_grid(size_px, 34.0 * float(np.exp(0.02 * film_rng.standard_normal())))
    scene = build_scene(body, pose, grid)
    depth, mask = scene.optical_depth, np.zeros((size_px, size_px), dtype=np.bool_)
    if label == 1:
        lesion = draw_lesion(disease, scene.lungs, grid)
        depth += MU_SOFT_PER_CM * (1.0 - pose.lung_density) * lesion.added_path
        mask = lesion.mask
    return Phantom(expose(depth, film_rng), label, _patient_id(patient), mask)


def write_phantoms(folder: Path, n_images: int, seed: int, size_px: int = 128) -> None:
    """Write films as 16-bit PNG files `healthy|sick/<patient>_<id>.png`.

    Args:
        folder: Where the two class folders go; made if absent.
        n_images: How many films.
        seed: Which series.
        size_px: Side of a film in pixels.
    """
    from PIL import Image

    for index in range(n_images):
        phantom = draw_phantom(seed, index, size_px)
        home = folder / ("healthy", "sick")[phantom.label]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(phantom.pixels).save(home / f"{phantom.patient}_{phantom_id(index)}.png")


def _deal(seed: int, block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Patient number and label of each film of a block.

    A block's patients are its own: numbers start at `block * BLOCK_IMAGES`.
    """
    films, sick, shows = _generator(seed, 0, block).random((3, BLOCK_IMAGES))
    n_films = np.where(films < 0.4, 1, np.where(films < 0.75, 2, 3))
    owner = np.repeat(np.arange(BLOCK_IMAGES), n_films)[:BLOCK_IMAGES]
    chance = np.where(sick[owner] < SICK_PATIENTS, SICK_FILM_OF_SICK, SICK_FILM_OF_HEALTHY)
    labels = (shows < chance).astype(int)
    return tuple((block * BLOCK_IMAGES + owner).tolist()), tuple(labels.tolist())


def _patient_id(patient: int) -> str:
    """Name of a patient."""
    return f"p{patient:04d}"


def _generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """A stream of its own for each purpose (0 dealing, 1 patient, 2 film) and number."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, purpose, number))))
