"""Ribs, collar bones, spine, shoulder blades and upper arms of the synthetic thorax.

Thin curved bones are cut into small volumes and laid on the film; compact ones are solids.
All return the path through cortical bone of equal attenuation, shape (H, W), in cm.
"""

import numpy as np

from xray_classifier.data.phantom_body import LUNG_APEX_CM, SIDES, Body, Pose, splat_in_body
from xray_classifier.data.phantom_paths import (
    FilmGrid,
    Floats,
    add_chord,
    ellipsoid,
    elliptic_stack,
)

N_RIBS = 10
RIB_HALF_HEIGHT_CM = 0.62
RIB_HALF_THICKNESS_CM = 0.32
RIB_BONE_CM2 = 0.75
"""Cortical bone in a rib's cross-section."""
CLAVICLE_RADIUS_CM = 0.6
CLAVICLE_BONE_CM2 = 0.8


def project_bones(body: Body, pose: Pose, grid: FilmGrid, x: Floats, z: Floats) -> Floats:
    """Path through all bones.

    Args:
        body: The patient.
        pose: How the patient stood.
        grid: The film.
        x: Body coordinate of each pixel in cm, shape (H, W).
        z: Body coordinate of each row in cm, shape (H, 1).

    Returns:
        Path in cm, shape (H, W).
    """
    rib_points, rib_volumes = rib_pieces(body, grid.x.size)
    clavicle_points, clavicle_volumes = clavicle_pieces(body, grid.x.size)
    bone = splat_in_body(
        body,
        pose,
        grid,
        np.concatenate([rib_points, clavicle_points], axis=1),
        np.concatenate([rib_volumes, clavicle_volumes]),
    )
    _add_spine(bone, body, pose, x, z)
    for side in SIDES:
        _add_shoulder(bone, body, pose, side, x, z)
    return bone


def rib_pieces(body: Body, size_px: int) -> tuple[Floats, Floats]:
    """Cut the ribs into small volumes.

    Each runs from the spine round the side to the front, falling as it goes; its bone lies in the
    shell of a flat, upright ellipse.

    Args:
        body: The patient.
        size_px: Side of the film; finer films need finer pieces.

    Returns:
        Points (3, n_pieces) in cm and volumes (n_pieces,) in cm3.
    """
    n_along, n_around = max(52, size_px * 3 // 7), max(5, size_px // 24)
    nodes = 0.12 + (0.74 * np.pi - 0.12) * np.arange(n_along + 1) / n_along
    length = np.sqrt(sum(np.diff(part, axis=1) ** 2 for part in _rib_path(body, nodes)))
    turn = (nodes[1:] + nodes[:-1]) / 2
    x, y, z = _rib_path(body, turn)
    around = 2 * np.pi * (np.arange(n_around) + 0.5) / n_around
    outward = RIB_HALF_THICKNESS_CM * np.cos(around)
    wide = (x[..., None] + np.sin(turn)[:, None] * outward).ravel()
    deep = (y[..., None] + np.cos(turn)[:, None] * outward).ravel()
    high = (z[..., None] + RIB_HALF_HEIGHT_CM * np.sin(around)).ravel()
    volumes = np.repeat((RIB_BONE_CM2 / n_around * length).ravel(), n_around)
    points = np.concatenate([np.stack([side * wide, deep, high]) for side in SIDES], axis=1)
    return points, np.concatenate([volumes, volumes])


def _rib_path(body: Body, turn: Floats) -> tuple[Floats, Floats, Floats]:
    """Middle line of the ribs of one side.

    Args:
        body: The patient.
        turn: Angle round the chest in radians, 0 at the spine and pi at the breastbone, shape (n,).

    Returns:
        x away from the middle, y and z in cm, each (N_RIBS, n).
    """
    rib = np.arange(N_RIBS)[:, None]
    start = LUNG_APEX_CM - 0.6 + body.rib_gap * rib
    drop = body.rib_drop * (0.55 + 0.06 * np.minimum(rib, 7))
    reach = np.clip((start + 0.4 * body.rib_drop - LUNG_APEX_CM + 2.2) / 15.0, 0.02, 1.0)
    radius = (body.breadth + 0.5) * np.sqrt(1 - (1 - reach) ** 2.6)
    deep = (body.depth + 0.4) * np.sqrt(1 - (1 - reach) ** 2.2)
    fall = (turn / np.pi) ** 1.25
    return radius * np.sin(turn), deep * np.cos(turn), start + drop * fall


def clavicle_pieces(body: Body, size_px: int) -> tuple[Floats, Floats]:
    """Cut both collar bones into small volumes: points (3, n_pieces) in cm, volumes in cm3."""
    n_along, n_around = max(40, size_px // 2), max(8, size_px // 16)
    along = ((np.arange(n_along) + 0.5) / n_along)[:, None]
    around = (2 * np.pi * (np.arange(n_around) + 0.5) / n_around)[None, :]
    reach = body.shoulder - 2.6
    wide = 2.0 + reach * along + 0 * around
    bow = 0.7 * np.sin(2 * np.pi * along)
    z = -9.0 - body.clavicle_rise * along**0.8 + bow + CLAVICLE_RADIUS_CM * np.sin(around)
    y = -body.depth + 4.0 * along + CLAVICLE_RADIUS_CM * np.cos(around)
    volumes = np.full(wide.size, CLAVICLE_BONE_CM2 * reach / (n_along * n_around))
    flat = wide.ravel(), y.ravel(), z.ravel()
    points = np.concatenate([np.stack([s * flat[0], flat[1], flat[2]]) for s in SIDES], axis=1)
    return points, np.concatenate([volumes, volumes])


def _add_spine(bone: Floats, body: Body, pose: Pose, x: Floats, z: Floats) -> None:
    """Vertebral bodies, denser at their end plates, growing from the neck down."""
    centre = body.spine_bend * np.sin(z / 6.0)
    half = 1.45 + 0.03 * (z + 18.0)
    solid = elliptic_stack(centre, half, half, centre_y=4.5, turn_rad=pose.turn_rad)
    add_chord(bone, solid, x, 0.20 + 0.10 * np.cos(2 * np.pi * z / 2.5) ** 4)


def _add_shoulder(bone: Floats, body: Body, pose: Pose, side: float, x: Floats, z: Floats) -> None:
    """Head and shaft of the upper arm and the blade behind the ribs, on one side."""
    turn = pose.turn_rad
    joint = side * body.shoulder
    head = ellipsoid(z, (joint + side * 0.6, 0.0, -9.9), (2.0, 2.0, 2.2), turn_rad=turn)
    shaft = ellipsoid(
        z, (joint + side * 2.8, 0.0, -2.5), (1.0, 1.0, 9.5), turn_rad=turn, tilt_rad=-side * 0.2
    )
    blade = ellipsoid(
        z, (side * 12.9, 6.0, -5.2), (2.2, 0.3, 6.2), turn_rad=turn, tilt_rad=-side * 0.12
    )
    for solid, density in ((head, 0.32), (shaft, 0.4), (blade, 0.4)):
        add_chord(bone, solid, x, density)
