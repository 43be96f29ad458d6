"""A simple thorax in projection: flesh, lungs, heart, great vessels, diaphragm and bones.

Centimetres and axes as in `phantom_paths`. Attenuation per centimetre is that of 60 keV
photons.

Source:
    Hubbell & Seltzer, NIST Standard Reference Database 126, doi:10.18434/T4D01F.
"""

from dataclasses import dataclass

import numpy as np

from xray_classifier.data.phantom_body import (
    LUNG_APEX_CM,
    SIDES,
    Body,
    Pose,
    dome_top,
    in_body,
    splat_in_body,
)
from xray_classifier.data.phantom_bones import project_bones
from xray_classifier.data.phantom_paths import (
    FilmGrid,
    Floats,
    Solid,
    Span,
    add_chord,
    chord,
    ellipsoid,
    elliptic_stack,
    span,
    subtract_overlap,
)

MU_SOFT_PER_CM = 0.217
"""Soft tissue (ICRU 44), 1.06 g/cm3."""
MU_BONE_PER_CM = 0.604
"""Cortical bone, 1.92 g/cm3."""

DOME_HEIGHT_CM = 5.2
"""From the deepest recess of a lung to the top of the diaphragm below it."""


@dataclass(frozen=True)
class Scene:
    """What a film sees before any lesion.

    Attributes:
        optical_depth: Integral of mu dl for every ray, shape (H, W), no unit.
        lungs: Path through aerated lung at the picture's left and right, two (H, W) in cm.
    """

    optical_depth: Floats
    lungs: tuple[Floats, Floats]


def build_scene(body: Body, pose: Pose, grid: FilmGrid) -> Scene:
    """Project a patient: soft tissue, minus air, plus bone.

    Args:
        body: The patient.
        pose: How the patient stood.
        grid: The film, H rows and W columns.

    Returns:
        Optical depth and lung paths of every ray.
    """
    x, z = in_body(body, pose, grid)
    organs = [span(solid, x) for solid in _organs(body, pose, z)]
    left, right = (_aerated(body, pose, side, organs, x, z) for side in SIDES)
    soft = _flesh(body, pose, x, z)
    for solid in _air(body, pose, z):
        add_chord(soft, solid, x, -1.0)
    lungs = left + right
    vessels = _vessels(body, pose, grid)
    vessels *= np.minimum(0.25 * lungs, 1.0)
    soft += vessels
    lungs *= 1.0 - pose.lung_density
    soft -= lungs
    depth = np.maximum(soft, 0.0, out=soft)
    depth *= MU_SOFT_PER_CM * body.scale
    bones = project_bones(body, pose, grid, x, z)
    bones *= (MU_BONE_PER_CM - MU_SOFT_PER_CM) * body.scale
    depth += bones
    left *= body.scale
    right *= body.scale
    return Scene(depth, (left, right))


def _flesh(body: Body, pose: Pose, x: Floats, z: Floats) -> Floats:
    """Path through trunk, neck, arms and breasts, air spaces filled, in cm."""
    flare = _smooth_step((z + 17.5) / 6.5)
    chest = body.breadth + body.flesh
    armpit = (body.shoulder + 1.5 - chest) * _smooth_step((1.0 - z) / 9.0)
    half_x = 5.8 + (chest + armpit - 5.8) * flare
    half_y = 5.6 + (body.depth + body.flesh - 5.6) * _smooth_step((z + 18.0) / 12.0)
    turn = pose.turn_rad
    flesh = chord(elliptic_stack(0.0 * z, half_x, half_y, turn_rad=turn), x)
    for side in SIDES:
        arm = ellipsoid(
            z,
            (side * (body.shoulder + 1.2), 0.0, -2.2),
            (4.4 + 0.3 * body.flesh, 5.4, 11.0),
            turn_rad=turn,
            tilt_rad=-side * 0.3,
        )
        np.maximum(flesh, chord(arm, x), out=flesh)
        if body.breast > 0.0:
            centre = (side * 7.6, -body.depth, 3.6)
            breast = ellipsoid(z, centre, (5.6, body.breast, 5.0), turn_rad=turn)
            add_chord(flesh, breast, x, 0.5)
    return flesh


def _organs(body: Body, pose: Pose, z: Floats) -> list[Solid]:
    """Heart, right atrium, pulmonary trunk, aortic knob and mediastinum: what displaces lung."""
    size, sink, turn = body.heart, 0.6 * pose.breath, pose.turn_rad
    half = 2.2 + 0.9 * _smooth_step((z + 3.0) / 6.0) + 0.5 * _smooth_step((-z - 10.0) / 5.0)
    return [
        ellipsoid(
            z,
            (2.6, -2.0, 2.9 + sink),
            (6.6 * size, 4.8 * size, 4.9 * size),
            turn_rad=turn,
            tilt_rad=body.heart_tilt_rad,
        ),
        ellipsoid(z, (-1.0, -1.5, 2.4 + sink), (3.0 * size, 3.2, 3.8 * size), turn_rad=turn),
        ellipsoid(z, (1.9, -1.0, -2.0 + sink), (2.1, 2.4, 2.6), turn_rad=turn),
        ellipsoid(z, (1.6, 0.5, -5.4), (1.9 * body.knob, 2.6, 1.7 * body.knob), turn_rad=turn),
        elliptic_stack(0.0 * z, half, 3.0 + 0.0 * z, centre_y=0.5, turn_rad=turn),
    ]


def lung_solid(body: Body, pose: Pose, side: float, z: Floats) -> Solid:
    """One lung before heart and diaphragm push into it.

    Args:
        body: The patient.
        pose: How the patient stood.
        side: -1 for the picture's left, 1 for its right.
        z: Body coordinate of each row in cm, shape (H, 1).

    Returns:
        The solid.
    """
    base = dome_top(body, pose, side) + DOME_HEIGHT_CM
    down = (z - LUNG_APEX_CM) / (base - LUNG_APEX_CM)
    there = (down > 0.0) & (down < 1.0)
    up = 1.0 - np.clip(down, 0.0, 1.0)
    outer = 4.8 + (body.breadth - 4.8) * (1 - up**2.6) ** 0.6
    inner = 4.8 - 3.4 * (1 - up**5) ** 0.5
    half_y = np.where(there, body.depth * (1 - up**2.2) ** 0.5, 0.0)
    return elliptic_stack(
        side * (outer + inner) / 2,
        np.where(there, (outer - inner) / 2, 0.0),
        half_y,
        turn_rad=pose.turn_rad,
    )


def _aerated(
    body: Body, pose: Pose, side: float, organs: list[Span], x: Floats, z: Floats
) -> Floats:
    """Path through one lung outside organs and diaphragm, in cm, shape (H, W)."""
    dome = ellipsoid(
        z,
        (side * (body.breadth + 1.4) / 2, 0.0, dome_top(body, pose, side) + DOME_HEIGHT_CM),
        ((body.breadth - 1.4) / 2 + 0.1, body.depth + 0.6, DOME_HEIGHT_CM),
        turn_rad=pose.turn_rad,
    )
    lung = span(lung_solid(body, pose, side, z), x)
    return subtract_overlap(lung, [*organs, span(dome, x)], x.shape[0])


def _air(body: Body, pose: Pose, z: Floats) -> list[Solid]:
    """The windpipe, which ends where it forks, and the stomach's bubble where there is one."""
    half = 0.8 * _smooth_step((-2.2 - z) / 1.5)
    pipe = elliptic_stack(0.25 + 0.0 * z, half, half, centre_y=0.5, turn_rad=pose.turn_rad)
    size = body.stomach
    if size < 0.3:
        return [pipe]
    centre = (6.2, -1.0, dome_top(body, pose, 1.0) + 0.8 + 0.7 * size)
    axes = (1.4 * size, size, 0.7 * size)
    return [pipe, ellipsoid(z, centre, axes, turn_rad=pose.turn_rad)]


def _vessels(body: Body, pose: Pose, grid: FilmGrid) -> Floats:
    """Path through the lung vessels: curved branches that thin out from each hilum, in cm."""
    n_branches, n_along = 40, max(28, grid.x.size // 5)
    random = np.random.Generator(np.random.PCG64(body.vessel_seed)).random((7, 2 * n_branches, 1))
    side = np.repeat(SIDES, n_branches)[:, None]
    along = ((np.arange(n_along) + 0.5) / n_along)[None, :]
    angle = -1.5 + 3.0 * random[0] + 1.6 * (random[1] - 0.5) * along
    length = (3.0 + 4.5 * random[2]) * (0.75 + 0.4 * np.abs(np.sin(angle)))
    root = 2.2 * random[5]
    wide = 2.3 + (root + length * along) * np.cos(angle)
    z = -0.8 + 3.0 * (random[3] - 0.5) + (root + length * along) * np.sin(angle)
    y = 6.0 * (random[4] - 0.5) * along
    radius = 0.38 * (1.0 - 0.8 * along) * (0.5 + 0.7 * random[6])
    volumes = np.pi * radius**2 * length / n_along
    points = np.stack(
        [np.broadcast_to(part, volumes.shape).ravel() for part in (side * wide, y, z)]
    )
    return splat_in_body(body, pose, grid, points, volumes.ravel())


def _smooth_step(ramp: Floats) -> Floats:
    """Rise from 0 to 1 without a kink while `ramp` goes from 0 to 1."""
    ramp = np.clip(ramp, 0.0, 1.0)
    return ramp * ramp * (3.0 - 2.0 * ramp)
