"""What varies from patient to patient and from film to film in the synthetic radiographs.

Centimetres and axes as in `phantom_paths`, before the patient is turned.
"""

import math
from dataclasses import dataclass

import numpy as np

from xray_classifier.data.phantom_paths import FilmGrid, Floats, splat

SIDES = (-1.0, 1.0)
"""The picture's left (the patient's right) and the picture's right."""

LUNG_APEX_CM = -12.2
"""Height of the top of the lungs."""


@dataclass(frozen=True)
class Body:
    """One patient. Lengths in cm, angles in radians; `scale`, `heart` and `knob` are factors.

    Attributes:
        scale: Size of the whole patient.
        breadth: Half the inner width of the chest.
        depth: Half the inner depth of the chest.
        flesh: Thickness of the chest wall.
        heart: Size of the heart.
        heart_tilt_rad: How far the heart's apex points down.
        dome_step: How much higher the right half of the diaphragm stands.
        knob: Size of the aortic knob.
        rib_gap: Distance between ribs at the spine.
        rib_drop: How far a rib falls on its way to the front.
        shoulder: Distance of the shoulder joint from the middle.
        clavicle_rise: How far the collar bone climbs to the shoulder.
        breast: Thickness of the breast; 0 is none.
        spine_bend: Sideways swing of the spine.
        stomach: Radius of the air bubble under the left dome; 0 is none.
        vessel_seed: Which lung vessels.
    """

    scale: float
    breadth: float
    depth: float
    flesh: float
    heart: float
    heart_tilt_rad: float
    dome_step: float
    knob: float
    rib_gap: float
    rib_drop: float
    shoulder: float
    clavicle_rise: float
    breast: float
    spine_bend: float
    stomach: float
    vessel_seed: int


@dataclass(frozen=True)
class Pose:
    """How the patient stood and breathed for one film.

    Attributes:
        turn_rad: Turn about the long axis.
        lean: Sideways lean, cm of x per cm of z.
        shift_x: Offset of the body on the film in cm.
        shift_z: Offset down the film in cm.
        breath: Offset of the diaphragm in cm, positive when breathed in deeply.
        lung_density: Attenuation of aerated lung as a fraction of soft tissue.
    """

    turn_rad: float
    lean: float
    shift_x: float
    shift_z: float
    breath: float
    lung_density: float


def sample_body(rng: np.random.Generator) -> Body:
    """Draw one patient."""
    normal, uniform = np.clip(rng.standard_normal(12), -2.5, 2.5), rng.random(4)
    return Body(
        scale=float(1.0 + 0.045 * normal[0]),
        breadth=float(13.0 + 0.6 * normal[1]),
        depth=float(8.0 + 0.5 * normal[2]),
        flesh=float(2.6 + 0.5 * normal[3]),
        heart=float(1.0 + 0.08 * normal[4]),
        heart_tilt_rad=float(0.62 + 0.1 * normal[5]),
        dome_step=float(1.3 + 0.5 * normal[6]),
        knob=float(1.0 + 0.15 * normal[7]),
        rib_gap=float(2.3 + 0.1 * normal[8]),
        rib_drop=float(8.0 + 0.8 * normal[9]),
        shoulder=float(16.4 + 0.6 * normal[10]),
        clavicle_rise=float(1.6 + 0.6 * normal[11]),
        breast=float(max(0.0, 4.5 * uniform[0] - 2.0)),
        spine_bend=float(0.8 * (uniform[1] - 0.5)),
        stomach=float(max(0.0, 3.4 * uniform[2] - 1.2)),
        vessel_seed=int(uniform[3] * 2**31),
    )


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw how a patient stood and breathed for one film."""
    normal = np.clip(rng.standard_normal(6), -2.5, 2.5)
    return Pose(
        turn_rad=float(0.05 * normal[0]),
        lean=float(0.02 * normal[1]),
        shift_x=float(0.5 * normal[2]),
        shift_z=float(0.6 * normal[3]),
        breath=float(0.7 * normal[4]),
        lung_density=float(0.26 * np.exp(0.2 * normal[5])),
    )


def dome_top(body: Body, pose: Pose, side: float) -> float:
    """Height of the top of one half of the diaphragm in cm; the patient's right stands higher."""
    return 4.6 + pose.breath + 0.5 * side * body.dome_step


def on_film(body: Body, pose: Pose, x: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Film coordinates in cm of points (x, z) of the turned body in cm, any shape."""
    return (
        body.scale * (x + pose.lean * z) + pose.shift_x,
        body.scale * z + pose.shift_z,
    )


def in_body(body: Body, pose: Pose, grid: FilmGrid) -> tuple[Floats, Floats]:
    """Body coordinates of the pixels: x of shape (H, W) and z of shape (H, 1), in cm."""
    z = (grid.z - pose.shift_z) / body.scale
    return (grid.x - pose.shift_x) / body.scale - pose.lean * z, z


def splat_in_body(
    body: Body, pose: Pose, grid: FilmGrid, points: Floats, volumes_cm3: Floats
) -> Floats:
    """Path lengths of small volumes of the body.

    Args:
        body: The patient.
        pose: How the patient stood.
        grid: The film.
        points: (x, y, z) in cm before the turn, shape (3, n_pieces).
        volumes_cm3: Volume of each piece before scaling, shape (n_pieces,).

    Returns:
        Path lengths in cm of a body of scale 1, shape (H, W).
    """
    turned_x = points[0] * math.cos(pose.turn_rad) - points[1] * math.sin(pose.turn_rad)
    x, z = on_film(body, pose, turned_x, points[2])
    return splat(grid, x, z, volumes_cm3 * body.scale**2)
