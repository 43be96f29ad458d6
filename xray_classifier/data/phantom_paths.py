"""Path lengths of parallel X-rays through simple solids and through thin curved tubes.

Lengths are centimetres. `x` runs to the right of the picture (the patient's left), `y` along the
rays from front to back, `z` down the picture. All of it is float64, so that the films of one seed
are the same on every machine.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Window = tuple[slice, slice]
"""Rows and columns of a film."""


@dataclass(frozen=True)
class FilmGrid:
    """Where the pixels of a square film lie.

    Attributes:
        x: Centre of each column in cm, shape (1, W).
        z: Centre of each row in cm, shape (H, 1).
        pixel_cm: Side of a pixel in cm.
    """

    x: Floats
    z: Floats
    pixel_cm: float


def film_grid(size_px: int, width_cm: float) -> FilmGrid:
    """Lay a film of `size_px` x `size_px` pixels and `width_cm` cm, centred on x = z = 0."""
    pixel_cm = width_cm / size_px
    centres = (np.arange(size_px, dtype=np.float64) + 0.5) * pixel_cm - width_cm / 2
    return FilmGrid(centres[None, :], centres[:, None], pixel_cm)


@dataclass(frozen=True)
class Solid:
    """A body whose every horizontal cross-section is an ellipse, one per row of the film.

    Attributes:
        centre_x: Centre of the ellipse's shadow in cm, shape (H, 1).
        half_width: Half the shadow's width in cm, shape (H, 1); 0 where the solid has ended.
        half_depth: Half the longest path through the row in cm, shape (H, 1).
        middle: Middle of the path at `centre_x` in cm along y, shape (H, 1).
        slope: How fast that middle moves with x, in cm per cm; one number or one a row, (H, 1).
    """

    centre_x: Floats
    half_width: Floats
    half_depth: Floats
    middle: Floats
    slope: float | Floats


def turn_about_z(angle_rad: float) -> Floats:
    """Rotation matrix, shape (3, 3), that turns the patient about the body's long axis."""
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def ellipsoid(
    z: Floats,
    centre: tuple[float, float, float],
    axes: tuple[float, float, float],
    *,
    turn_rad: float = 0.0,
    tilt_rad: float = 0.0,
) -> Solid:
    """An ellipsoid, tilted in the plane of the film and then turned with the patient.

    A ray r(t) = (x, t, z) meets p^T A p = 1 where a quadratic in t is zero; its discriminant is
    again a quadratic in x, so each row is an ellipse.

    Args:
        z: Row centres in cm, shape (H, 1).
        centre: (x, y, z) in cm before the turn.
        axes: Semi-axes (x, y, z) in cm before tilt and turn, all above 0.
        turn_rad: Turn about the patient's z axis.
        tilt_rad: Tilt in the x-z plane; positive lowers the end that lies at positive x.

    Returns:
        The solid; rows that miss it have no width.
    """
    cos, sin = math.cos(tilt_rad), math.sin(tilt_rad)
    turn = turn_about_z(turn_rad)
    frame = turn @ np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
    (xx, xy, xz), (_, yy, yz), (_, _, zz) = ((frame / np.square(axes)) @ frame.T).tolist()
    x0, y0, z0 = (turn @ centre).tolist()
    dz = z - z0
    p, q, r = xx * yy - xy * xy, yy * zz - yz * yz, yy * xz - xy * yz
    root = np.sqrt(np.maximum(yy - (q - r * r / p) * dz * dz, 0.0))
    slope = -xy / yy
    return Solid(
        centre_x=x0 - (r / p) * dz,
        half_width=root * (1.0 / math.sqrt(p)),
        half_depth=root * (1.0 / yy),
        middle=y0 - (slope * r / p + yz / yy) * dz,
        slope=slope,
    )


def elliptic_stack(
    centre_x: Floats,
    half_x: Floats,
    half_y: Floats,
    *,
    centre_y: float = 0.0,
    turn_rad: float = 0.0,
) -> Solid:
    """A pile of horizontal ellipses, one a row, turned with the patient.

    Args:
        centre_x: Centres before the turn in cm, shape (H, 1).
        half_x: Semi-axes across the film in cm, shape (H, 1); 0 where the solid has ended.
        half_y: Semi-axes along the rays in cm, shape (H, 1).
        centre_y: Common centre along the rays in cm, before the turn.
        turn_rad: Turn about the patient's z axis.

    Returns:
        The solid.
    """
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    there = (half_x > 0.0) & (half_y > 0.0)
    wide, deep = np.where(there, half_x, 1.0), np.where(there, half_y, 1.0)
    half_width = np.hypot(wide * cos, deep * sin)
    return Solid(
        centre_x=cos * centre_x - sin * centre_y,
        half_width=np.where(there, half_width, 0.0),
        half_depth=np.where(there, wide * deep / half_width, 0.0),
        middle=sin * centre_x + cos * centre_y,
        slope=sin * cos * (wide**2 - deep**2) / half_width**2,
    )


@dataclass(frozen=True)
class Span:
    """Where the rays enter and leave a solid, inside the smallest window that holds it.

    Attributes:
        window: Rows and columns of the film.
        enter: Where a ray enters in cm along y, the window's shape.
        leave: Where it leaves, the window's shape; equal to `enter` on a miss.
    """

    window: Window
    enter: Floats
    leave: Floats


def shadow_window(solid: Solid, x: Floats) -> Window:
    """Smallest rows and columns of the film that hold a solid's shadow.

    Args:
        solid: The solid, H rows.
        x: Position of each pixel in cm, shape (H, W), in even steps along a row and down a column.

    Returns:
        Slices of rows and columns; empty where the solid lies off the film.
    """
    rows = np.flatnonzero(solid.half_width)
    if rows.size == 0:
        return slice(0, 0), slice(0, 0)
    first, last = int(rows[0]), int(rows[-1])
    inside = slice(first, last + 1)
    centre, half = solid.centre_x[inside], solid.half_width[inside]
    low, high = float((centre - half).min()), float((centre + half).max())
    starts, pixel_cm = (float(x[first, 0]), float(x[last, 0])), float(x[0, 1] - x[0, 0])
    left = math.ceil((low - max(starts)) / pixel_cm - 1e-6)
    right = math.floor((high - min(starts)) / pixel_cm + 1e-6) + 1
    n_columns = x.shape[1]
    left = min(max(left, 0), n_columns)
    return inside, slice(left, min(max(right, left), n_columns))


def add_chord(total: Floats, solid: Solid, x: Floats, weight: float | Floats = 1.0) -> None:
    """Add the length of every ray inside a solid to `total`, in place.

    Args:
        total: Path lengths in cm, shape (H, W).
        solid: The solid, H rows.
        x: Position of each pixel in cm, shape (H, W).
        weight: Density, one number or one a row, shape (H, 1).
    """
    window = shadow_window(solid, x)
    half = _half_chord(solid, x, window)
    half *= 2.0 * (weight[window[0]] if isinstance(weight, np.ndarray) else weight)
    total[window] += half


def chord(solid: Solid, x: Floats) -> Floats:
    """Length of every ray inside a solid in cm, shape (H, W); 0 where the ray misses."""
    total = np.zeros(x.shape)
    add_chord(total, solid, x)
    return total


def span(solid: Solid, x: Floats) -> Span:
    """Where every ray of x, shape (H, W) in cm, enters and leaves a solid."""
    window = shadow_window(solid, x)
    half = _half_chord(solid, x, window)
    rows = window[0]
    slope = solid.slope[rows] if isinstance(solid.slope, np.ndarray) else solid.slope
    middle = x[window] * slope
    middle += solid.middle[rows] - slope * solid.centre_x[rows]
    enter = middle - half
    middle += half
    return Span(window, enter, middle)


def subtract_overlap(one: Span, others: list[Span], size_px: int) -> Floats:
    """Length of every ray inside one solid and outside others.

    Of several others on one ray the one that takes most counts: exact where at most one of them
    overlaps the solid, or where they nest.

    Args:
        one: The solid that is kept.
        others: Solids that displace it.
        size_px: Side of the film.

    Returns:
        Path lengths in cm, shape (size_px, size_px).
    """
    taken = np.zeros_like(one.enter)
    for other in others:
        mine, theirs = _common(one.window, other.window)
        shared = np.minimum(one.leave[mine], other.leave[theirs])
        shared -= np.maximum(one.enter[mine], other.enter[theirs])
        np.maximum(taken[mine], shared, out=taken[mine])
    path = np.zeros((size_px, size_px))
    kept = path[one.window]
    np.subtract(one.leave, one.enter, out=kept)
    kept -= taken
    np.maximum(kept, 0.0, out=kept)
    return path


def _half_chord(solid: Solid, x: Floats, window: Window) -> Floats:
    """Half the path through a solid in cm, for the pixels of a window."""
    rows = window[0]
    across = x[window] - solid.centre_x[rows]
    across *= 1.0 / np.maximum(solid.half_width[rows], 1e-9)
    np.multiply(across, across, out=across)
    np.subtract(1.0, across, out=across)
    np.maximum(across, 0.0, out=across)
    np.sqrt(across, out=across)
    across *= solid.half_depth[rows]
    return across


def _common(one: Window, other: Window) -> tuple[Window, Window]:
    """What two windows share, as a window of the first and as a window of the second."""
    starts = [max(a.start, b.start) for a, b in zip(one, other, strict=True)]
    stops = [min(a.stop, b.stop) for a, b in zip(one, other, strict=True)]
    mine, theirs = (
        [
            slice(start - axis.start, max(start, stop) - axis.start)
            for start, stop, axis in zip(starts, stops, window, strict=True)
        ]
        for window in (one, other)
    )
    return (mine[0], mine[1]), (theirs[0], theirs[1])


def splat(grid: FilmGrid, x: Floats, z: Floats, volumes_cm3: Floats) -> Floats:
    """Mean path length per pixel of many small volumes: thin curved tubes cut into pieces.

    Each piece is shared bilinearly by the four nearest pixels; what falls off the film is lost.

    Args:
        grid: The film.
        x: Positions in cm, shape (n_pieces,).
        z: Positions in cm, shape (n_pieces,).
        volumes_cm3: Volume of each piece, shape (n_pieces,).

    Returns:
        Path lengths in cm, shape (H, W); their sum times the pixel area is the volume on the film.
    """
    side = grid.x.size + 3  # a margin of one pixel, two at the far edges, takes what lies off
    columns = np.clip((x - grid.x[0, 0]) * (1.0 / grid.pixel_cm) + 1.0, 0.0, side - 2.0)
    rows = np.clip((z - grid.z[0, 0]) * (1.0 / grid.pixel_cm) + 1.0, 0.0, side - 2.0)
    left, top = columns.astype(np.intp), rows.astype(np.intp)
    columns -= left
    rows -= top
    lengths = volumes_cm3 * (1.0 / grid.pixel_cm**2)
    low = lengths * rows
    high = lengths - low
    low_right, high_right = low * columns, high * columns
    corner = top * side + left
    flat = np.bincount(
        np.concatenate([corner, corner + 1, corner + side, corner + side + 1]),
        np.concatenate([high - high_right, high_right, low - low_right, low_right]),
        minlength=side * side,
    )
    return np.asarray(flat.reshape(side, side)[1:-2, 1:-2], dtype=np.float64)
