"""Synthetic films: same seed same film, labels that mean something, no shortcut to the label."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from xray_classifier.data.phantom_anatomy import Scene, build_scene
from xray_classifier.data.phantom_body import Body, Pose, dome_top, sample_body, sample_pose
from xray_classifier.data.phantom_bones import RIB_BONE_CM2, rib_pieces
from xray_classifier.data.phantom_lesions import (
    KIND_SHARES,
    KINDS,
    Disease,
    Kind,
    draw_lesion,
    place_in_lung,
    sample_disease,
)
from xray_classifier.data.phantom_paths import film_grid
from xray_classifier.data.phantom_workers import drawn_in_order
from xray_classifier.data.phantoms import (
    BLOCK_IMAGES,
    Phantom,
    draw_phantom,
    phantom_id,
    phantom_table,
    write_phantoms,
)

GRID = film_grid(64, 34.0)
STRAIGHT = Pose(turn_rad=0.0, lean=0.0, shift_x=0.0, shift_z=0.0, breath=0.0, lung_density=0.26)
LUNG = np.maximum(4.0 - np.hypot(GRID.x - 6.0, 0.5 * GRID.z), 0.0)
N_FILMS = 500


def body(seed: int = 0) -> Body:
    return sample_body(np.random.default_rng(seed))


def scene(seed: int = 0) -> Scene:
    return build_scene(body(seed), STRAIGHT, GRID)


@pytest.fixture(scope="module")
def films() -> list[Phantom]:
    return [draw_phantom(3, index, 64) for index in range(N_FILMS)]


@pytest.fixture(scope="module")
def labels() -> NDArray[np.int8]:
    return phantom_table(N_FILMS, 3).labels


def test_the_same_arguments_give_the_same_film_whatever_was_drawn_before() -> None:
    first = [draw_phantom(5, index, 64) for index in (0, 40)]
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda index: draw_phantom(5, index, 64), (40, 0) * 4))
    digests = {hashlib.sha256(film.pixels.tobytes()).hexdigest() for film in again}
    assert len(digests) == 2
    for one, two in zip(first, (again[1], again[0]), strict=True):
        np.testing.assert_array_equal(one.pixels, two.pixels)
        np.testing.assert_array_equal(one.lesion_mask, two.lesion_mask)


def test_another_index_or_seed_gives_another_film() -> None:
    pairs = [(0, 0), (0, 1), (0, BLOCK_IMAGES), (1, 0)]
    films = {draw_phantom(seed, index, 32).pixels.tobytes() for seed, index in pairs}
    assert len(films) == len(pairs)


FROZEN = {
    0: (0, "p0000", 2622.01, 1077.92),
    5: (1, "p0004", 2494.65, 1040.24),
    13: (1, "p0007", 2186.69, 1224.46),
    400: (0, "p0395", 2516.96, 1094.34),
}
"""Label, patient, mean and standard deviation of the grey levels of four films of seed 0."""


def test_the_recipe_still_draws_the_films_it_drew() -> None:
    """Raise PHANTOM_RECIPE and freeze new numbers when the films are meant to change."""
    for index, (label, patient, mean, spread) in FROZEN.items():
        film = draw_phantom(0, index)
        assert (film.label, film.patient) == (label, patient)
        assert film.pixels.mean() == pytest.approx(mean, abs=0.05)
        assert film.pixels.std() == pytest.approx(spread, abs=0.05)


@given(n=st.integers(0, 90), seed=st.integers(0, 2**40))
@settings(max_examples=25, deadline=None)
def test_a_longer_table_begins_with_the_shorter_one(n: int, seed: int) -> None:
    short, long = phantom_table(n, seed), phantom_table(n + 31, seed)
    assert long.ids[:n] == short.ids
    assert long.patients[:n] == short.patients
    np.testing.assert_array_equal(long.labels[:n], short.labels)


def test_a_table_has_one_to_three_films_a_patient_and_nearly_even_classes() -> None:
    table = phantom_table(4800, 0)
    assert len(set(table.ids)) == 4800
    assert table.ids[12] == "phantom-000012"
    names, n_films = np.unique(table.patients, return_counts=True)
    assert set(n_films) == {1, 2, 3}
    assert names[0][0] == "p"
    assert len(names[0]) >= 5
    assert 0.43 < table.labels.mean() < 0.52
    by_patient = [set(table.labels[np.array(table.patients) == name]) for name in names[:300]]
    mixed = np.mean([len(found) == 2 for found in by_patient])
    assert 0.0 < mixed < 0.25


def test_the_table_and_the_films_agree(films: list[Phantom], labels: NDArray[np.int8]) -> None:
    table = phantom_table(N_FILMS, 3)
    assert [film.label for film in films] == labels.tolist()
    assert tuple(film.patient for film in films) == table.patients


def test_films_of_one_patient_look_more_alike_than_strangers(films: list[Phantom]) -> None:
    flat = np.array([film.pixels[::4, ::4].ravel() for film in films[:150]], dtype=float)
    alike = np.corrcoef(flat)
    same = np.array([[a.patient == b.patient for a in films[:150]] for b in films[:150]])
    np.fill_diagonal(same, False)
    assert alike[same].mean() > alike[~same].mean() + 0.005


@pytest.mark.parametrize("size_px", [16, 48, 100, 256])
def test_a_film_has_the_size_asked_for_and_twelve_bits(size_px: int) -> None:
    film = draw_phantom(0, 4, size_px)
    assert film.pixels.shape == film.lesion_mask.shape == (size_px, size_px)
    assert film.pixels.dtype == np.uint16
    assert 3000 < film.pixels.max() <= 4095


def test_the_size_of_the_film_changes_the_sampling_and_not_the_patient() -> None:
    coarse, fine = draw_phantom(0, 2, 64), draw_phantom(0, 2, 128)
    binned = fine.pixels.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.corrcoef(coarse.pixels.ravel(), binned.ravel())[0, 1] > 0.98


def test_a_mask_exists_on_sick_films_only(films: list[Phantom]) -> None:
    assert all(film.lesion_mask.any() == (film.label == 1) for film in films)


def test_the_heart_lies_to_the_right_of_the_picture(films: list[Phantom]) -> None:
    """It takes more of that lung, and the film is brighter there than at the mirrored place."""
    for seed in range(8):
        left, right = (lung[33:40] for lung in scene(seed).lungs)
        assert left.sum() > 1.15 * right.sum()
    mean = np.mean([film.pixels for film in films if film.label == 0], axis=0)
    assert mean[33:40, 37:42].mean() > mean[33:40, 22:27].mean() + 200


def test_the_dome_to_the_left_of_the_picture_stands_higher() -> None:
    one = replace(body(), dome_step=2.5)
    left, right = build_scene(one, STRAIGHT, GRID).lungs
    ends = [np.flatnonzero(lung[:, column] > 2.0)[-1] for lung, column in ((left, 18), (right, 45))]
    pixel_cm = GRID.pixel_cm
    assert (ends[1] - ends[0]) * pixel_cm == pytest.approx(2.5 * one.scale, abs=2 * pixel_cm)
    assert dome_top(one, STRAIGHT, 1.0) - dome_top(one, STRAIGHT, -1.0) == pytest.approx(2.5)


def test_lungs_are_dark_between_bright_heart_and_abdomen(films: list[Phantom]) -> None:
    mean = np.mean([film.pixels for film in films if film.label == 0], axis=0)
    lung_left, lung_right = mean[20:34, 14:22].mean(), mean[18:28, 43:49].mean()
    heart, abdomen, corner = mean[34:40, 32:38].mean(), mean[56:62, 28:36].mean(), mean[0, 0]
    assert max(lung_left, lung_right) < 0.75 * heart
    assert heart < abdomen
    assert corner < min(lung_left, lung_right)


def test_ribs_are_bone_tubes_of_the_stated_cross_section() -> None:
    points, volumes = rib_pieces(body(), 128)
    n_each = volumes.size // 20
    for rib in range(10):
        piece = slice(rib * n_each, (rib + 1) * n_each)
        middle = points[:, piece].reshape(3, -1, 5).mean(axis=2)
        length = np.linalg.norm(np.diff(middle, axis=1), axis=0).sum()
        assert volumes[piece].sum() == pytest.approx(RIB_BONE_CM2 * length, rel=0.04)
    half = volumes.size // 2
    np.testing.assert_allclose(points[0, :half], -points[0, half:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [0, 1])
def test_a_lesion_lies_in_aerated_lung_and_never_adds_more_than_its_air(
    kind: Kind, side: int
) -> None:
    for seed in range(6):
        lungs = scene(seed).lungs
        disease = Disease(kind, side, (0.5, 0.5), 0.7, 0.85, seed)
        lesion = draw_lesion(disease, lungs, GRID)
        assert (lesion.added_path <= lungs[0] + lungs[1] + 1e-9).all()
        assert (lesion.added_path >= 0.0).all()
        assert lesion.mask.any()
        assert not (lesion.mask & (lungs[0] + lungs[1] == 0.0)).any()
        own, other = (lesion.added_path[lungs[s] > 0.0].sum() for s in (side, 1 - side))
        assert own > 0.0
        assert kind == "nodules" or other == 0.0


def test_effusions_fill_the_bottom_and_climb_the_wall() -> None:
    lungs = scene().lungs
    wet = draw_lesion(Disease("effusion", 1, (0.5, 0.5), 0.6, 0.5, 0), lungs, GRID).mask
    rows, columns = np.nonzero(wet)
    lung_rows, lung_columns = np.nonzero(lungs[1] > 0.0)
    assert rows.mean() > np.quantile(lung_rows, 0.7)
    assert columns.mean() > lung_columns.mean()
    tops = [rows[columns == column].min() for column in range(columns.min(), columns.max() + 1)]
    assert tops[-3] < tops[len(tops) // 3]


def test_more_severe_disease_adds_more() -> None:
    lungs = scene().lungs
    for kind in KINDS:
        added = [
            draw_lesion(
                Disease(kind, 0, (0.5, 0.5), 0.5, severity, 1), lungs, GRID
            ).added_path.sum()
            for severity in (0.25, 0.4, 0.6)
        ]
        assert added[0] < added[1] < added[2]


@given(down=st.floats(0.0, 0.999), across=st.floats(0.0, 0.999))
@settings(max_examples=60, deadline=None)
def test_a_place_has_the_share_of_lung_above_it_that_was_asked_for(
    down: float, across: float
) -> None:
    lung = LUNG
    (x,), (z,) = place_in_lung(lung, GRID, np.array([down]), np.array([across]))
    row, column = int(np.argmin(np.abs(GRID.z - z))), int(np.argmin(np.abs(GRID.x - x)))
    assert lung[row, column] > 0.0
    assert lung[:row].sum() <= down * lung.sum() + 1e-9 <= lung[: row + 1].sum() + 2e-9
    beside = lung[row, :column].sum()
    assert beside <= across * lung[row].sum() + 1e-9 <= beside + lung[row, column] + 2e-9


def test_kinds_of_disease_come_in_their_shares_and_severities_vary() -> None:
    rng = np.random.default_rng(0)
    drawn = [sample_disease(rng) for _ in range(3000)]
    shares = [np.mean([disease.kind == kind for disease in drawn]) for kind in KINDS]
    np.testing.assert_allclose(shares, KIND_SHARES, atol=0.04)
    severity = [disease.severity for disease in drawn]
    assert min(severity) < 0.3 < 0.8 < max(severity)
    assert sum(KIND_SHARES) == pytest.approx(1.0)


def test_patients_and_poses_stay_possible() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        one, pose = sample_body(rng), sample_pose(rng)
        assert 0.85 < one.scale < 1.15
        assert one.breast >= 0.0
        assert 0.1 < pose.lung_density < 0.5
        assert abs(pose.turn_rad) < 0.15


@pytest.mark.parametrize("name", ["mean", "spread", "border", "noise"])
def test_a_summary_of_the_film_says_little_about_the_label(
    films: list[Phantom], labels: NDArray[np.int8], name: str
) -> None:
    """500 films: 1.96 standard errors of a chance AUROC are 0.05; twice that is allowed."""
    measures = {
        "mean": lambda film: film.mean(),
        "spread": lambda film: film.std(),
        "border": lambda film: np.concatenate([film[0], film[-1], film[:, 0], film[:, -1]]).mean(),
        "noise": lambda film: np.abs(np.diff(film[52:62, 24:40].astype(float), axis=1)).mean(),
    }
    scores = [measures[name](film.pixels) for film in films]
    assert abs(roc_auc_score(labels, scores) - 0.5) < 0.1


def ranked_border(film: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Ranks in [0, 1] of the outer five pixels among themselves: what is left of a cut-out film."""
    outside = np.ones(film.shape, dtype=bool)
    outside[5:-5, 5:-5] = False
    levels = film[outside]
    return np.argsort(np.argsort(levels, kind="stable")) / (levels.size - 1)


def linear_auroc(
    features: NDArray[np.float64], labels: NDArray[np.int8], patients: list[str]
) -> float:
    """AUROC of a ridge-penalised logistic regression on held-out patients."""
    model = LogisticRegression(C=1e-3, max_iter=500)
    folds = GroupKFold(4)
    logits = cross_val_predict(
        model, features, labels, groups=patients, cv=folds, method="decision_function"
    )
    return float(roc_auc_score(labels, logits))


def test_a_linear_unit_learns_from_the_chest_and_not_from_the_border(
    films: list[Phantom], labels: NDArray[np.int8]
) -> None:
    patients = [film.patient for film in films]
    border = np.array([ranked_border(film.pixels) for film in films])
    chest = np.array([film.pixels[8:52:2, 6:58:2].ravel() for film in films], dtype=float)
    chest = (np.argsort(np.argsort(chest, axis=1), axis=1) / chest.shape[1] - 0.5) / 0.29
    assert abs(linear_auroc((border - 0.5) / 0.29, labels, patients) - 0.5) < 0.1
    assert 0.65 < linear_auroc(chest, labels, patients) < 0.95


def test_written_films_are_read_back_as_they_were(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "films", 7, 11, size_px=32)
    table = phantom_table(7, 11)
    files = sorted((tmp_path / "films").rglob("*.png"))
    assert len(files) == 7
    for index in range(7):
        name = f"{table.patients[index]}_{phantom_id(index)}.png"
        home = ("healthy", "sick")[table.labels[index]]
        with Image.open(tmp_path / "films" / home / name) as image:
            assert image.mode == "I;16"
            np.testing.assert_array_equal(np.asarray(image), draw_phantom(11, index, 32).pixels)


def test_several_processes_draw_the_same_films_in_the_same_order() -> None:
    rows = [*range(70), 3]
    settings = (16, "center", "equalize")
    alone = list(drawn_in_order(5, rows, *settings, workers=1))
    together = list(drawn_in_order(5, rows, *settings, workers=3))
    assert len(together) == len(rows)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.signature.tobytes() == other.signature.tobytes()


def test_workers_end_when_nobody_reads_on() -> None:
    films = drawn_in_order(5, range(500), 16, "center", "equalize", workers=2)
    next(films)
    films.close()
    with pytest.raises(StopIteration):
        next(films)


def test_a_worker_whose_reader_is_gone_ends_without_a_word() -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "xray_classifier.data.phantom_workers"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stderr is not None
    worker.stdin.write(json.dumps([5, list(range(10_000)), 16, "center", "equalize"]).encode())
    worker.stdin.close()
    assert len(worker.stdout.read(100)) == 100
    worker.stdout.close()
    assert worker.wait(60) == 0
    assert worker.stderr.read() == b""
    worker.stderr.close()
