"""What makes a synthetic patient sick: consolidations, haze, effusions, nodules.

A lesion replaces air in the lung by fluid or tissue, so it adds attenuation only where the ray
crosses aerated lung. How much is the patient's `severity`, from hardly visible to obvious.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xray_classifier.data.phantom_paths import FilmGrid, Floats, add_chord, ellipsoid

Kind = Literal["consolidation", "haze", "effusion", "nodules"]

KINDS: tuple[Kind, ...] = ("consolidation", "haze", "effusion", "nodules")
KIND_SHARES = (0.36, 0.30, 0.20, 0.14)
"""Share of each kind among sick patients."""
MASK_LEVEL = 0.3
"""A pixel belongs to a lesion where it adds this share of the lesion's peak."""


@dataclass(frozen=True)
class Disease:
    """One patient's lesion, the same on each of the patient's sick films.

    Attributes:
        kind: What it is.
        side: 0 for the picture's left lung, 1 for its right.
        place: Where in the lung: share of lung volume above, and to the left in that row.
        size: From small (0) to large (1).
        severity: Share of the air that is replaced, in (0, 1).
        grain_seed: Which arrangement of patches or nodules.
    """

    kind: Kind
    side: int
    place: tuple[float, float]
    size: float
    severity: float
    grain_seed: int


@dataclass(frozen=True)
class Lesion:
    """A disease on one film.

    Attributes:
        added_path: Soft tissue in place of air on every ray, in cm, shape (H, W).
        mask: Pixels where it stands out, shape (H, W).
    """

    added_path: Floats
    mask: NDArray[np.bool_]


def sample_disease(rng: np.random.Generator) -> Disease:
    """Draw what a patient has, or would have: every patient owns one, seen on sick films only."""
    uniform = rng.random(7)
    kind = KINDS[int(np.searchsorted(np.cumsum(KIND_SHARES)[:-1], uniform[0], side="right"))]
    return Disease(
        kind=kind,
        side=int(uniform[1] < 0.5),
        place=(float(0.12 + 0.76 * uniform[2]), float(0.2 + 0.6 * uniform[3])),
        size=float(uniform[4]),
        severity=float(0.25 + 0.65 * uniform[5]),
        grain_seed=int(uniform[6] * 2**31),
    )


def draw_lesion(disease: Disease, lungs: tuple[Floats, Floats], grid: FilmGrid) -> Lesion:
    """Project a disease.

    Args:
        disease: What the patient has.
        lungs: Path through each aerated lung in cm, two (H, W).
        grid: The film.

    Returns:
        Path added by the lesion, and its mask; the mask lies in the lungs' shadow.
    """
    rng = np.random.Generator(np.random.PCG64(disease.grain_seed))
    draw = {
        "consolidation": _consolidation,
        "haze": _haze,
        "effusion": _effusion,
        "nodules": _nodules,
    }[disease.kind]
    added = draw(disease, lungs, grid, rng)
    return Lesion(added, added > MASK_LEVEL * added.max())


def _consolidation(
    disease: Disease, lungs: tuple[Floats, Floats], grid: FilmGrid, rng: np.random.Generator
) -> Floats:
    """One patch of filled air spaces, ragged at its edge."""
    lung = lungs[disease.side]
    x, z = place_in_lung(lung, grid, *np.array(disease.place)[:, None])
    radius = 1.8 + 3.2 * disease.size
    normal, uniform = rng.standard_normal((2, 30)), rng.random(30)
    spread = np.where(np.arange(30) < 6, 0.55, 0.9) * radius
    width = np.where(np.arange(30) < 6, 0.75 * radius, 0.4 + 0.5 * uniform)
    height = np.where(np.arange(30) < 6, 0.35, 0.3)
    fill = _bells(grid, x + spread * normal[0], z + spread * normal[1], width, height)
    return disease.severity * lung * (1.0 - np.exp(-fill))


def _haze(
    disease: Disease, lungs: tuple[Floats, Floats], grid: FilmGrid, rng: np.random.Generator
) -> Floats:
    """Many small patches spread over one lung."""
    lung = lungs[disease.side]
    down, across, width = rng.random((3, 28))
    x, z = place_in_lung(lung, grid, down, across)
    fill = _bells(grid, x, z, 0.7 + 1.4 * width, np.full(28, 0.5 + 0.3 * disease.size))
    return 0.8 * disease.severity * lung * (1.0 - np.exp(-fill))


def _effusion(
    disease: Disease, lungs: tuple[Floats, Floats], grid: FilmGrid, rng: np.random.Generator
) -> Floats:
    """Fluid at the bottom of one lung, higher at the wall: the blunted angle."""
    lung = lungs[disease.side]
    columns = np.flatnonzero(lung.max(axis=0) > 0.0)
    rows = np.flatnonzero(lung.max(axis=1) > 0.0)
    left, right = grid.x[0, columns[0]], grid.x[0, columns[-1]]
    across = np.clip((grid.x - left) / (right - left), 0.0, 1.0)
    outward = across if disease.side == 1 else 1.0 - across
    height = 4.2 + 7.0 * disease.size * (0.4 + disease.severity)
    level = grid.z[rows[-1], 0] - height * (0.35 + 0.75 * outward**2)
    wet: Floats = 1.0 / (1.0 + np.exp(np.clip((level - grid.z) / 0.45, -30.0, 30.0)))
    return np.asarray(min(0.9, 0.45 + disease.severity) * lung * wet)


def _nodules(
    disease: Disease, lungs: tuple[Floats, Floats], grid: FilmGrid, rng: np.random.Generator
) -> Floats:
    """One round nodule, or a few in both lungs."""
    n_nodules = 1 + int(4 * rng.random() ** 1.5)
    down, across, size, other_side = rng.random((4, n_nodules))
    down[0], across[0] = disease.place
    other = other_side > 0.6
    other[0] = False
    added = np.zeros_like(lungs[0])
    columns = np.broadcast_to(grid.x, added.shape)
    for number in range(n_nodules):
        lung = lungs[1 - disease.side if other[number] else disease.side]
        one = slice(number, number + 1)
        (x,), (z,) = place_in_lung(lung, grid, down[one], across[one])
        radius = (0.8 + 1.6 * disease.size) * (0.7 + 0.3 * size[number])
        ball = ellipsoid(grid.z, (x, 0.0, z), (radius, radius, radius))
        add_chord(added, ball, columns, 0.5 + disease.severity)
    return np.minimum(added, 0.9 * (lungs[0] + lungs[1]))


def place_in_lung(
    lung: Floats, grid: FilmGrid, down: Floats, across: Floats
) -> tuple[Floats, Floats]:
    """Points of a lung's shadow that have given shares of the lung above and beside them.

    Args:
        lung: Path through the lung in cm, shape (H, W), not all 0.
        grid: The film.
        down: Share of the lung's volume above each point, in [0, 1), shape (n,).
        across: Share of the point's row to the left of it, in [0, 1), shape (n,).

    Returns:
        x and z on the film in cm, each (n,).
    """
    by_row = np.cumsum(lung.sum(axis=1))
    rows = np.searchsorted(by_row, down * by_row[-1], side="right")
    by_column = np.cumsum(lung[rows], axis=1)
    columns = (by_column <= across[:, None] * by_column[:, -1:]).sum(axis=1)
    return grid.x[0, columns], grid.z[rows, 0]


def _bells(grid: FilmGrid, x: Floats, z: Floats, width_cm: Floats, height: Floats) -> Floats:
    """Sum of round Gaussian bells at (x, z), each (n,), on the film; shape (H, W)."""
    across = np.exp(-0.5 * ((grid.x - x[:, None]) / width_cm[:, None]) ** 2)
    down = np.exp(-0.5 * ((grid.z.T - z[:, None]) / width_cm[:, None]) ** 2)
    return np.asarray((down * height[:, None]).T @ across, dtype=np.float64)
