"""Path lengths of rays through solids, against formulas from the sphere and against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xray_classifier.data.phantom_paths import (
    FilmGrid,
    add_chord,
    chord,
    ellipsoid,
    elliptic_stack,
    film_grid,
    shadow_window,
    span,
    splat,
    subtract_overlap,
    turn_about_z,
)

GRID = film_grid(24, 12.0)
STEP_CM = 0.01
DEPTHS = np.arange(-9.0, 9.0, STEP_CM) + STEP_CM / 2


def columns(grid: FilmGrid) -> NDArray[np.float64]:
    """Position of every pixel, as a full array (H, W)."""
    return np.broadcast_to(grid.x, (grid.z.size, grid.x.size)).copy()


def inside_ellipsoid(
    centre: tuple[float, float, float],
    axes: tuple[float, float, float],
    turn_rad: float,
    tilt_rad: float,
) -> NDArray[np.bool_]:
    """Which points (H, W, depth) of the film's volume lie in an ellipsoid, by undoing its moves."""
    z, x, y = np.meshgrid(GRID.z[:, 0], GRID.x[0], DEPTHS, indexing="ij")
    points = np.stack([x, y, z], axis=-1) @ turn_about_z(
        turn_rad
    )  # the inverse turn, from the right
    x, y, z = np.moveaxis(points - np.array(centre), -1, 0)
    cos, sin = math.cos(tilt_rad), math.sin(tilt_rad)
    along, across = cos * x + sin * z, -sin * x + cos * z
    inside: NDArray[np.bool_] = (along / axes[0]) ** 2 + (y / axes[1]) ** 2 + (
        across / axes[2]
    ) ** 2 <= 1.0
    return inside


@given(radius=st.floats(0.3, 5.0), x0=st.floats(-3, 3), z0=st.floats(-3, 3), turn=st.floats(-1, 1))
@settings(max_examples=40, deadline=None)
def test_a_sphere_has_the_chord_that_pythagoras_gives(
    radius: float, x0: float, z0: float, turn: float
) -> None:
    ball = ellipsoid(GRID.z, (x0, 0.0, z0), (radius, radius, radius), turn_rad=turn)
    distance2 = (GRID.x - x0 * math.cos(turn)) ** 2 + (GRID.z - z0) ** 2
    expected = 2.0 * np.sqrt(np.maximum(radius**2 - distance2, 0.0))
    np.testing.assert_allclose(chord(ball, columns(GRID)), expected, atol=1e-6)


@given(
    axes=st.tuples(st.floats(0.5, 4), st.floats(0.5, 4), st.floats(0.5, 4)),
    centre=st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2)),
    turn=st.floats(-0.8, 0.8),
    tilt=st.floats(-1.2, 1.2),
)
@settings(max_examples=10, deadline=None)
def test_an_ellipsoid_at_any_angle_matches_counting_points_along_the_rays(
    axes: tuple[float, float, float],
    centre: tuple[float, float, float],
    turn: float,
    tilt: float,
) -> None:
    solid = ellipsoid(GRID.z, centre, axes, turn_rad=turn, tilt_rad=tilt)
    counted = STEP_CM * inside_ellipsoid(centre, axes, turn, tilt).sum(axis=-1)
    np.testing.assert_allclose(chord(solid, columns(GRID)), counted, atol=2.1 * STEP_CM)


@pytest.mark.parametrize("turn", [0.0, 0.3, -0.7])
def test_a_stack_of_equal_ellipses_matches_counting_points_along_the_rays(turn: float) -> None:
    wide, deep, x0, y0 = 3.0, 1.2, 1.0, -0.8
    here = np.ones_like(GRID.z)
    stack = elliptic_stack(x0 * here, wide * here, deep * here, centre_y=y0, turn_rad=turn)
    x, y = np.meshgrid(GRID.x[0], DEPTHS, indexing="ij")
    cos, sin = math.cos(turn), math.sin(turn)
    inside = ((cos * x + sin * y - x0) / wide) ** 2 + ((cos * y - sin * x - y0) / deep) ** 2 <= 1.0
    reach = span(stack, columns(GRID))
    assert np.abs(chord(stack, columns(GRID)) - STEP_CM * inside.sum(axis=1)).max() < 2.1 * STEP_CM
    middle = np.where(inside, y, 0.0).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)
    found = ((reach.enter + reach.leave) / 2)[0]
    hit = inside[slice(None), :].sum(axis=1) > 20
    np.testing.assert_allclose(found[hit[reach.window[1]]], middle[hit], atol=STEP_CM)


def test_a_row_without_the_solid_has_no_path() -> None:
    half = np.where(GRID.z > 0.0, 2.0, 0.0)
    path = chord(elliptic_stack(0.0 * GRID.z, half, half), columns(GRID))
    assert path[:12].max() == 0.0
    assert path[12:].max() > 3.9


def test_a_solid_off_the_film_leaves_no_shadow() -> None:
    for centre in ((20.0, 0.0, 0.0), (-20.0, 0.0, 0.0), (0.0, 0.0, 20.0)):
        solid = ellipsoid(GRID.z, centre, (1.0, 1.0, 1.0))
        rows, across = shadow_window(solid, columns(GRID))
        assert (rows.stop - rows.start) * (across.stop - across.start) == 0
        assert chord(solid, columns(GRID)).max() == 0.0


@given(x0=st.floats(-7, 7), z0=st.floats(-7, 7), lean=st.floats(-0.2, 0.2), tilt=st.floats(-1, 1))
@settings(max_examples=40, deadline=None)
def test_the_shadow_window_cuts_nothing_off(x0: float, z0: float, lean: float, tilt: float) -> None:
    solid = ellipsoid(GRID.z, (x0, 0.0, z0), (3.0, 1.0, 0.8), tilt_rad=tilt)
    x = columns(GRID) - lean * GRID.z
    across = (x - solid.centre_x) / np.maximum(solid.half_width, 1e-9)
    whole = 2.0 * solid.half_depth * np.sqrt(np.maximum(1.0 - across**2, 0.0))
    np.testing.assert_allclose(chord(solid, x), whole, atol=1e-9)


def test_a_density_per_row_weighs_each_row() -> None:
    ball = ellipsoid(GRID.z, (0.0, 0.0, 0.0), (3.0, 3.0, 3.0))
    density = np.linspace(0.0, 1.0, GRID.z.size)[:, None]
    total = np.ones((GRID.z.size, GRID.x.size))
    add_chord(total, ball, columns(GRID), density)
    np.testing.assert_allclose(total, 1.0 + density * chord(ball, columns(GRID)))


@pytest.mark.parametrize("shift", [0.0, 1.5, 4.0, 9.0])
def test_a_solid_minus_another_matches_counting_points(shift: float) -> None:
    kept, gone = ((0.0, 0.0, 0.0), (4.0, 3.0, 4.5)), ((shift, 1.0, 0.5), (2.0, 1.5, 2.5))
    turn = 0.25
    first, second = (
        span(ellipsoid(GRID.z, centre, axes, turn_rad=turn), columns(GRID))
        for centre, axes in (kept, gone)
    )
    path = subtract_overlap(first, [second], GRID.x.size)
    left = inside_ellipsoid(*kept, turn, 0.0) & ~inside_ellipsoid(*gone, turn, 0.0)
    np.testing.assert_allclose(path, STEP_CM * left.sum(axis=-1), atol=4.1 * STEP_CM)


def test_pieces_keep_their_volume_and_their_place() -> None:
    rng = np.random.default_rng(1)
    x, z, volumes = rng.uniform(-5, 5, 200), rng.uniform(-5, 5, 200), rng.uniform(0, 1, 200)
    path = splat(GRID, x, z, volumes)
    area = GRID.pixel_cm**2
    assert path.sum() * area == pytest.approx(volumes.sum())
    assert (path * GRID.x).sum() * area == pytest.approx((volumes * x).sum())
    assert (path * GRID.z).sum() * area == pytest.approx((volumes * z).sum())


def test_pieces_off_the_film_are_lost() -> None:
    far = np.array([-50.0, 50.0, 0.0, 0.0, -50.0, 50.0])
    path = splat(GRID, far, far[::-1].copy(), np.ones(6))
    assert path.sum() * GRID.pixel_cm**2 == pytest.approx(2.0)


def test_a_straight_tube_of_pieces_matches_the_analytic_cylinder() -> None:
    """Pieces on a filled disc, swept along x, against the chord of a cylinder averaged per row."""
    radius, length = 2.0, 8.0
    at = (np.arange(400) + 0.5) / 400
    rings, along = np.sqrt(at)[:, None], np.linspace(-4.0, 4.0, 161)[None, :]
    golden = math.pi * (3.0 - math.sqrt(5.0)) * np.arange(400)[:, None]
    z = np.broadcast_to(radius * rings * np.sin(golden), (400, 161)).ravel()
    x = np.broadcast_to(along, (400, 161)).ravel()
    path = splat(GRID, x, z, np.full(x.size, math.pi * radius**2 * length / x.size))
    fine = np.linspace(-6.0, 6.0, 24001)
    shadow = 2.0 * np.sqrt(np.maximum(radius**2 - fine**2, 0.0))
    weight = np.maximum(1.0 - np.abs(fine[:, None] - GRID.z[:, 0]) / GRID.pixel_cm, 0.0)
    expected = (shadow[:, None] * weight).sum(axis=0) / weight.sum(axis=0)
    np.testing.assert_allclose(path[:, 12], expected, atol=0.1)
