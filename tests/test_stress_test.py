"""A stress test of whole films falls where it must, and depends on films and seed alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import output, stack
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny_runs import tiny_run

from xray_classifier import stress_test as module
from xray_classifier.calibration import Calibration
from xray_classifier.classifier import Classifier, load_classifier
from xray_classifier.config_file import load_config
from xray_classifier.data.dataset import Standardize
from xray_classifier.data.film import film_from_array
from xray_classifier.data.intensity import prepare
from xray_classifier.data.loading import Radiographs, run_loading
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.data.signature import SIGNATURE
from xray_classifier.data.stress import VARIANTS, variants
from xray_classifier.errors import DataError, UsageError
from xray_classifier.report.stress_figure import StressPanel, stress_figure
from xray_classifier.stress_test import StressTest, stress_picture, stress_table, stress_test
from xray_classifier.terminal import Terminal

__all__ = ["tiny_run"]

SIZE = 16
SIDE = 32
N = 24
QUIET = Terminal(quiet=True)


@pytest.fixture
def trained(tiny_run: Path) -> Classifier:
    """The tiny run's model."""
    return load_classifier(tiny_run, "cpu")


def corner_model(trained: Classifier, intensity: str = "equalize") -> Classifier:
    """A perceptron that looks at the four pixels of the upper left corner alone."""
    model = stack(size_px=SIZE)
    weights = torch.zeros(SIZE, SIZE)
    weights[:2, :2] = 0.25
    with torch.no_grad():
        output(model).weight.copy_(weights.reshape(1, -1))
        output(model).bias.zero_()
    content = {
        **trained.content,
        "image": {"size": SIZE, "crop": "center", "intensity": intensity},
    }
    return replace(
        trained,
        model=model.eval(),
        standardize=Standardize(0.5, 0.25),
        calibration=Calibration(),
        threshold=0.5,
        content=content,
    )


def corner_films(n: int = N) -> list[NDArray[np.uint8]]:
    """Films (32, 32) of grain; the upper left corner is bright on every third, the sick ones."""
    rng = np.random.default_rng(1)
    films = rng.integers(60, 160, (n, SIDE, SIDE), dtype=np.uint8)
    for number, picture in enumerate(films):
        picture[:8, :8] = 135 if number % 3 == 0 else 85
    return list(films)


def in_files(folder: Path, films: Sequence[NDArray[np.uint8]]) -> Manifest:
    """Films as PNG files, every third one sick."""
    folder.mkdir()
    paths = [folder / f"film{number:02d}.png" for number in range(len(films))]
    for path, picture in zip(paths, films, strict=True):
        Image.fromarray(picture).save(path)
    return listed([path.name for path in paths], kind="files", root=folder, files=tuple(paths))


def listed(ids: Sequence[str], **more: Any) -> Manifest:
    """A manifest of films of which every third is sick; each is a patient of its own."""
    sick = (np.arange(len(ids)) % 3 == 0).astype(np.float64)
    return Manifest(
        ids=tuple(ids),
        targets=sick,
        classes=tuple("sick" if truth else "healthy" for truth in sick),
        patients=tuple(ids),
        patients_known=False,
        splits=("test",) * len(ids),
        **{"files": (), **more},
    )


def as_loaded(manifest: Manifest, films: Sequence[NDArray[np.uint8]]) -> Radiographs:
    """What loading gives for these films."""
    prepared = [prepare(film_from_array(p), SIZE, "center", "equalize") for p in films]
    return Radiographs(
        manifest=manifest,
        images=np.stack(prepared),
        reasons=("",) * len(films),
        digests=tuple(f"digest {number}" for number in range(len(films))),
        signatures=np.zeros(len(films), SIGNATURE),
        warnings=(),
        audit=None,
    )


@pytest.fixture
def radiographs(tmp_path: Path) -> Radiographs:
    """24 films in files."""
    films = corner_films()
    return as_loaded(in_files(tmp_path / "films", films), films)


def areas(result: StressTest) -> Mapping[str, list[float]]:
    """The five AUROCs of each change."""
    names = dict.fromkeys(cell.perturbation for cell in result.cells)
    return {n: [c.auroc.value for c in result.cells if c.perturbation == n] for n in names}


def test_a_model_of_one_corner_falls_where_the_corner_is_hidden_or_moved(
    trained: Classifier, radiographs: Radiographs
) -> None:
    result = stress_test(corner_model(trained), radiographs, np.arange(N), QUIET)
    found = areas(result)
    assert result.unchanged.auroc.value == 1.0
    assert result.unchanged.auroc.method == "extreme_auroc"
    assert found["border"][-1] == 0.5  # black on all films, so all are tied
    for harmless in ("exposure", "contrast", "blur", "noise", "rotation", "jpeg", "resolution"):
        assert min(found[harmless]) > 0.99, harmless
    assert result.worst is not None
    assert result.worst.perturbation == "border"
    assert result.shift_max == 0.0  # these films are below the working size


def test_equalize_bears_exposure_that_moves_the_answers_of_minmax(
    trained: Classifier, radiographs: Radiographs
) -> None:
    change = {}
    for intensity in ("equalize", "minmax"):
        result = stress_test(corner_model(trained, intensity), radiographs, np.arange(N), QUIET)
        exposed = [cell.brier for cell in result.cells if cell.perturbation == "exposure"]
        change[intensity] = max(abs(brier - result.unchanged.brier) for brier in exposed)
    assert change["minmax"] > 0.003
    assert change["equalize"] < change["minmax"] / 20


@pytest.mark.parametrize("workers", [1, 3])
def test_the_result_depends_on_no_order_batch_or_thread(
    workers: int,
    trained: Classifier,
    radiographs: Radiographs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = corner_model(trained)
    rows = np.arange(N)
    expected = stress_test(model, radiographs, rows, QUIET, seed=4).to_dict()
    monkeypatch.setattr(module, "AT_ONCE_FILMS", workers)
    shuffled = np.random.default_rng(0).permutation(rows)
    found = stress_test(model, radiographs, shuffled, QUIET, seed=4, workers=workers).to_dict()
    assert repr(found) == repr(expected)
    other = stress_test(model, radiographs, rows, QUIET, seed=5).to_dict()
    assert repr(other) != repr(expected)


def test_no_film_depends_on_which_others_are_tried(
    trained: Classifier, radiographs: Radiographs
) -> None:
    one, two = np.arange(12), np.arange(12, N)
    whole, first, second = (
        stress_test(corner_model(trained), radiographs, rows, QUIET)
        for rows in (np.arange(N), one, two)
    )
    for a, b, both in zip(first.cells, second.cells, whole.cells, strict=True):
        assert both.brier == pytest.approx((a.brier + b.brier) / 2)


def test_phantoms_are_drawn_changed_and_scored_as_by_hand(
    trained: Classifier, tiny_run: Path
) -> None:
    loaded = run_loading(load_config(tiny_run).config.data, "classify", QUIET)
    rows = loaded.rows("test")
    result = stress_test(trained, loaded, rows, QUIET, seed=2)
    manifest, image = loaded.manifest, trained.content["image"]
    place = next(
        k for k, (kind, n) in enumerate(VARIANTS) if kind and (kind.name, n) == ("zoom", 5)
    )
    made = []
    for row in rows:
        phantom = draw_phantom(manifest.phantom_seed or 0, manifest.phantom_rows[row])
        made.append(
            variants(
                film_from_array(phantom.pixels),
                image["size"],
                image["crop"],
                image["intensity"],
                seed=2,
                image=loaded.digests[row],
            )
        )
    truth = manifest.targets[rows]
    zoomed, whole = (trained.score(np.stack(made)[:, k]).logits for k in (place, 0))
    assert result.cells[place - 1].auroc.value == pytest.approx(roc_auc_score(truth, zoomed))
    assert result.unchanged.auroc.value == pytest.approx(roc_auc_score(truth, whole))
    usual = trained.score(loaded.images[rows]).logits
    assert result.shift_max == pytest.approx(np.abs(whole - usual).max())


def test_films_in_an_npz_file_are_those_in_files(
    trained: Classifier, radiographs: Radiographs, tmp_path: Path
) -> None:
    films = corner_films()
    path = tmp_path / "films.npz"
    np.savez_compressed(path, images=np.stack(films), labels=np.arange(N))
    manifest = listed([f"images/{number}" for number in range(N)], kind="npz", root=path)
    in_one = stress_test(corner_model(trained), as_loaded(manifest, films), np.arange(N), QUIET)
    apart = stress_test(corner_model(trained), radiographs, np.arange(N), QUIET)
    assert repr(in_one.to_dict()) == repr(apart.to_dict())


def test_many_images_are_cut_with_each_class_in_proportion(
    trained: Classifier, radiographs: Radiographs
) -> None:
    result = stress_test(corner_model(trained), radiographs, np.arange(N), QUIET, max_images=12)
    assert (result.n_sick, result.n_healthy, result.n_given) == (4, 8, 24)
    assert any("12 of 24 images" in note for note in result.notes)
    few = stress_test(corner_model(trained), radiographs, np.arange(N), QUIET, max_images=2)
    assert (few.n_sick, few.n_healthy) == (1, 1)
    assert stress_test(corner_model(trained), radiographs, np.arange(N), QUIET).notes == ()


def test_a_film_that_cannot_be_read_is_left_out_and_counted(
    trained: Classifier, radiographs: Radiographs
) -> None:
    radiographs.manifest.files[3].unlink()
    radiographs.manifest.files[5].write_bytes(b"text")
    reasons = list(radiographs.reasons)
    reasons[7] = "truncated"
    damaged = replace(radiographs, reasons=tuple(reasons))
    result = stress_test(corner_model(trained), damaged, np.arange(N), QUIET)
    assert (result.n, result.n_given, result.n_left_out) == (21, 23, 2)
    assert any(note.startswith("2 of 23 images could not be read") for note in result.notes)
    for path in radiographs.manifest.files:
        path.unlink(missing_ok=True)
    with pytest.raises(DataError, match="no film"):
        stress_test(corner_model(trained), damaged, np.arange(N), QUIET)


def test_a_model_of_numbers_is_refused(trained: Classifier, radiographs: Radiographs) -> None:
    numbers = replace(trained, content={**trained.content, "task": "regress"})
    with pytest.raises(UsageError, match="for classify only"):
        stress_test(numbers, radiographs, np.arange(N), QUIET)


def test_the_table_holds_each_change_and_the_picture_shows_them(
    trained: Classifier, radiographs: Radiographs
) -> None:
    result = stress_test(corner_model(trained), radiographs, np.arange(N), QUIET)
    table = stress_table(result)
    assert len(table.rows) == 51
    assert table.rows[0][:2] == ("unchanged", "1.000")
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert table.rows[-1][0] == "a black border of 16 % of the side"
    assert (table.rows[-1][1], table.rows[-1][3]) == ("0.500", "0.500")
    shown = stress_picture(result, "test")
    assert shown.png.startswith(b"\x89PNG")
    assert "falls most under" in shown.alt
    assert shown.png == stress_picture(result, "test").png


def panel(name: str, *values: float) -> StressPanel:
    """A panel with intervals of 0.02 either way."""
    lows, highs = (tuple(v + step for v in values) for step in (-0.02, 0.02))
    ticks = tuple(str(k) for k in range(len(values)))
    return StressPanel(name, "unit", ticks, values, lows, highs)


def drawn(*panels: StressPanel) -> Figure:
    return stress_figure(panels, unchanged=0.9, robustness=0.8, n_sick=3, n_healthy=4)


def test_the_most_harmful_change_is_drawn_first_with_its_numbers() -> None:
    figure = drawn(panel("mild", 0.9, 0.85), panel("bad", 0.8, 0.55), panel("none", np.nan, np.nan))
    names = [axes.texts[0].get_text() for axes in figure.axes]
    assert names == ["bad", "mild", "none"]
    curve = max(figure.axes[0].get_lines(), key=lambda line: line.get_marker() == "o")
    assert np.asarray(curve.get_xydata())[:, 1].tolist() == [0.8, 0.55]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert figure.axes[0].get_ylim()[0] <= 0.53
    assert [axes.texts[1].get_text() for axes in figure.axes] == [
        "0.55 at 1", "0.85 at 1", "undefined",
    ]  # fmt: skip


def test_a_figure_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        drawn()
    with pytest.raises(ValueError, match="differ in length"):
        drawn(panel("odd", 0.9)._replace(ticks=("1", "2")))
