"""The scripts that judge a recipe for PneumoniaMNIST: names found again, patients kept apart."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from xray_classifier.calibration import Calibration
from xray_classifier.config import ScheduleConfig
from xray_classifier.config_file import load_config
from xray_classifier.data.decode import film_from_array, prepare
from xray_classifier.data.loading import run_loading
from xray_classifier.data.stress import PERTURBATIONS, film_seed, working_film
from xray_classifier.terminal import Terminal

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
N_PATIENTS = 60
STRANGER = 90
"""Place of an image that no film stands behind."""
SERIES = ("IM", "NORMAL2", "bacteria", "virus")


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


keys = _script("medmnist_keys")
protocol = _script("robustness_protocol")


def _film_name(number: int) -> str:
    """Two films of each patient, in turn of the four series."""
    series, patient, film = SERIES[number // 2 % 4], number // 2, number % 2
    if series in ("bacteria", "virus"):
        return f"person{patient}_{series}_{1000 + number}.jpeg"
    prefix = "NORMAL2-" if series == "NORMAL2" else ""
    return f"{prefix}IM-{patient:04d}-000{film + 1}.jpeg"


def _film(number: int) -> np.ndarray[Any, Any]:
    """(56, 84) uint8: a soft random picture, brighter in the middle where it is of the sick."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(60, 160, (7, 9), dtype=np.uint8))
    grey = np.asarray(coarse.resize((84, 56), Image.Resampling.BICUBIC)).astype(float)
    if number // 2 % 4 >= 2:
        grey[18:38, 32:52] += 60
    return np.clip(grey, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films stretched to squares in `films`, and their central squares at 28 px in `mnist.npz`."""
    folder = tmp_path_factory.mktemp("films")
    images, labels = [], []
    for number in range(2 * N_PATIENTS):
        grey, sick = _film(number), number // 2 % 4 >= 2
        path = folder / "films" / ("PNEUMONIA" if sick else "NORMAL") / _film_name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).resize((56, 56)).save(path, quality=95)
        square = Image.fromarray(np.ascontiguousarray(grey[:, 14:70]))
        images.append(np.asarray(square.resize((28, 28), Image.Resampling.BICUBIC)))
        labels.append([int(sick)])
    stranger = np.random.default_rng(9).integers(0, 255, (28, 28), dtype=np.uint8)
    order = np.random.default_rng(1).permutation(2 * N_PATIENTS)
    stack, codes = np.stack(images)[order], np.array(labels)[order]
    np.savez(
        folder / "mnist.npz",
        train_images=np.concatenate([stack[:STRANGER], stranger[None]]),
        train_labels=np.concatenate([codes[:STRANGER], [[0]]]),
        val_images=stack[STRANGER:],
        val_labels=codes[STRANGER:],
    )
    np.save(folder / "order.npy", order)
    return folder


@pytest.fixture(scope="module")
def recovered(place: Path) -> list[Any]:
    return list(keys.recovered_keys(place / "mnist.npz", place / "films"))


def test_each_image_gets_the_name_of_its_film_and_a_stranger_none(
    place: Path, recovered: list[Any]
) -> None:
    order = np.load(place / "order.npy")
    expected = [_film_name(number) for number in order]
    expected.insert(STRANGER, "")
    assert [key.film for key in recovered] == expected
    assert [key.id for key in recovered[89:92]] == [
        "train_images/89",
        "train_images/90",
        "val_images/0",
    ]
    assert keys.n_patients(recovered) == N_PATIENTS


def test_the_correlation_is_that_of_numpy() -> None:
    rng = np.random.default_rng(3)
    images, looks = rng.integers(0, 256, (5, 6, 6)), rng.random((7, 2, 6, 6)).astype(np.float32)
    patients = np.array(list("aabbccd"), dtype=object)
    best, high, margin = keys.matched(images, looks, patients)
    for row in range(5):
        table = np.array(
            [
                max(np.corrcoef(images[row].ravel(), look.ravel())[0, 1] for look in film)
                for film in looks
            ]
        )
        assert best[row] == table.argmax()
        assert high[row] == pytest.approx(table.max(), abs=1e-5)
        others = table[patients != patients[best[row]]]
        assert margin[row] == pytest.approx(table.max() - others.max(), abs=1e-5)


@pytest.mark.parametrize(
    ("film", "patient", "series", "number"),
    [
        ("person1_virus_6.jpeg", "person1_virus", "virus", 1),
        ("person1_bacteria_2.jpeg", "person1_bacteria", "bacteria", 1),
        ("IM-0433-0001-0002.jpeg", "IM-0433", "IM", 433),
        ("NORMAL2-IM-0588-0001.jpeg", "NORMAL2-IM-0588", "NORMAL2", 588),
    ],
)
def test_a_name_tells_patient_series_and_number(
    film: str, patient: str, series: str, number: int
) -> None:
    key = keys.key_of("train_images/0", film, 0.97)
    assert (key.patient, key.series, key.number) == (patient, series, number)
    with pytest.raises(ValueError, match=r"x\.png is no film"):
        keys.key_of("train_images/0", "x.png", 0.97)


def test_the_table_of_keys_reads_back(tmp_path: Path, recovered: list[Any]) -> None:
    keys.write_keys(tmp_path / "keys.csv", recovered)
    assert str(keys.read_keys(tmp_path / "keys.csv")) == str(recovered)  # NaN equals no NaN


@pytest.fixture(scope="module")
def config(place: Path) -> Any:
    """A small recipe for the films."""
    path = place / "tiny.yaml"
    path.write_text(
        "data:\n  source: npz\n  path: mnist.npz\n  labels: {healthy: [0], sick: [1]}\n"
        f'  patient: null\n  audit: "off"\n  cache: {place / "cache"}\n  image: {{size: 28}}\n'
        "model: {hidden: [8]}\n"
        "train: {epochs: 6, batch_size: 16, threads: 1, device: cpu}\n",
        encoding="utf-8",
    )
    return load_config(path).config


@pytest.fixture(scope="module")
def radiographs(config: Any, recovered: list[Any]) -> Any:
    return protocol.with_keys(run_loading(config.data, "classify", Terminal(quiet=True)), recovered)


@pytest.fixture(scope="module")
def arrangements(radiographs: Any, recovered: list[Any]) -> dict[str, Any]:
    return {one.name: one for one in protocol.arranged(radiographs, recovered)}


def test_no_patient_stands_on_two_sides(arrangements: dict[str, Any], recovered: list[Any]) -> None:
    assert list(arrangements) == [
        "patients", "low", "high", "exposure-1", "exposure-2", "exposure-3",
        "position-1", "position-2", "position-3",
    ]  # fmt: skip
    patient = [key.patient for key in recovered]
    for one in arrangements.values():
        train, val, test = (
            {patient[row] for row in rows} for rows in (one.train, one.val, one.test)
        )
        assert len(train) > 4 * len(val) > 0
        assert test
        assert not train & val
        assert not test & (train | val)
        assert STRANGER not in {*one.train, *one.val, *one.test}


def test_the_blocks_are_the_ends_of_the_numbers_of_each_series(
    arrangements: dict[str, Any], recovered: list[Any]
) -> None:
    for series in SERIES:
        numbers = {row: key.number for row, key in enumerate(recovered) if key.series == series}
        ordered = sorted(set(numbers.values()))
        for name, expected in (("low", ordered[:4]), ("high", ordered[-4:])):
            found = {numbers[row] for row in arrangements[name].test if row in numbers}
            assert found == set(expected)  # of 15 patients with two films each


@pytest.mark.parametrize("kind", ["exposure", "position"])
def test_the_clusters_share_out_all_images_and_hold_both_classes(
    arrangements: dict[str, Any], radiographs: Any, kind: str
) -> None:
    parts = [arrangements[f"{kind}-{n}"].test for n in (1, 2, 3)]
    assert sorted(np.concatenate(parts)) == [n for n in range(2 * N_PATIENTS + 1) if n != STRANGER]
    assert [len(part) for part in parts] == sorted((len(part) for part in parts), reverse=True)
    for part in parts:
        assert set(radiographs.manifest.targets[part]) == {0.0, 1.0}


def test_exposure_sees_grey_levels_and_position_sees_ranks() -> None:
    rng = np.random.default_rng(5)
    images = rng.integers(0, 120, (3, 28, 28), dtype=np.uint8)
    brighter = images * 2 + 7
    assert np.allclose(protocol.place_features(brighter), protocol.place_features(images))
    expected = 2 * protocol.grey_features(images)[:, 2:] + 7
    assert np.allclose(protocol.grey_features(brighter)[:, 2:], expected)
    assert protocol.grey_features(images)[:, 0] == pytest.approx(images.mean((1, 2)))
    corners = np.zeros_like(images)
    corners[:, [0, 0, 27, 27], [0, 27, 0, 27]] = 100
    assert protocol.grey_features(corners)[:, 7] == pytest.approx(2 * 100 / 50)  # the upper ones


def test_the_mixture_makes_all_its_changes_one_after_the_other(
    config: Any, radiographs: Any
) -> None:
    rows = np.array([3, 8])
    copies = protocol.Copies(radiographs, config).of_mixture(rows)
    assert copies.shape == (4, 28, 28)
    for place, (row, copy) in enumerate([(3, 1), (3, 2), (8, 1), (8, 2)]):
        (raw,) = protocol.raw_images(radiographs, [row])
        film = working_film(film_from_array(raw), 28)
        for kind in PERTURBATIONS:
            if kind.name not in ("noise", "jpeg", "resolution", "border"):
                seed = film_seed(copy, radiographs.digests[row], kind.name)
                film = kind.change(film, kind.strengths[2], seed)
        assert np.array_equal(copies[place], prepare(film, 28, "center", "equalize"))


def test_shares_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    truth, logits = rng.integers(0, 2, 50), rng.normal(size=(50, 3))
    calls = logits >= 0.2
    own = protocol.shares(truth, calls[:, 0])
    assert own["sensitivity"] == pytest.approx(recall_score(truth, calls[:, 0]))
    assert own["specificity"] == pytest.approx(recall_score(1 - truth, ~calls[:, 0]))
    assert own["balanced"] == pytest.approx(balanced_accuracy_score(truth, calls[:, 0]))
    assert own["accuracy"] == pytest.approx(accuracy_score(truth, calls[:, 0]))
    threshold = float(1 / (1 + np.exp(-0.2)))
    found = protocol.mean_shares(truth, Calibration("off", 1.0, 0.0), threshold - 1e-12, logits)
    expected = np.mean([accuracy_score(truth, column) for column in calls.T])
    assert found["accuracy"] == pytest.approx(expected)


def test_the_mean_of_each_kind_is_over_its_five_strengths() -> None:
    values = [float(n) for n in range(50)]
    found = protocol.by_kind(values)
    assert found == {kind.name: 5 * n + 2 for n, kind in enumerate(PERTURBATIONS)}


def test_a_recipe_is_judged_and_the_score_is_the_mean_of_its_parts(
    config: Any,
    radiographs: Any,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["protocol", str(place / "tiny.yaml"), str(place / "mnist.npz"), str(place / "films")]
    words += ["--arrangements", "patients", "low", "position-2", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "-o", str(tmp_path)])
    assert protocol.main() == 0
    printed = capsys.readouterr().out
    assert f"seeds [0, 1]; {N_PATIENTS} patients" in printed
    stored = json.loads((tmp_path / "robustness.json").read_text(encoding="utf-8"))
    found = stored["arrangements"]
    one = stored["summary"]["single"]
    parts = [
        np.mean([m["auroc"] for name in ("low", "position-2") for m in found[name]["single"]]),
        np.mean(
            [
                m["policies"]["youden"]["balanced"]
                for name in ("low", "position-2")
                for m in found[name]["single"]
            ]
        ),
        np.mean([m["mixed_auroc"] for n in ("low", "position-2") for m in found[n]["single"]]),
        one["mixed_accuracy"],
        np.mean([m["stress_auroc"] for m in found["patients"]["single"]]),
        one["stress_accuracy"],
        np.mean([found[name]["agreement"] for name in ("patients", "low", "position-2")]),
    ]
    assert one["score"] == pytest.approx(np.mean(parts))
    assert [one["clusters_auroc"], one["clusters_accuracy"]] == pytest.approx(parts[:2])
    joint = found["low"]["ensemble"]
    assert joint["auroc"] >= min(m["auroc"] for m in found["low"]["single"])
    assert f"score {one['score']:.4f}" in printed


def test_one_model_is_the_one_that_train_keeps(
    config: Any, radiographs: Any, arrangements: dict[str, Any]
) -> None:
    """The best epoch by validation loss, found here by asking every epoch's weights."""
    arrangement = arrangements["low"]
    copies = protocol.Copies(radiographs, config)
    answers = protocol.trained(config, radiographs, arrangement, 4, copies)
    truth = radiographs.manifest.targets[arrangement.val]
    losses = []
    for epochs in range(1, 7):
        train = config.train.model_copy(
            update={"early_stopping": None, "schedule": ScheduleConfig(name="constant")}
        )
        shorter = config.model_copy(update={"train": train.model_copy(update={"epochs": epochs})})
        logits = protocol.trained(shorter, radiographs, arrangement, 4, copies).val
        losses.append(float(np.mean(np.logaddexp(0, np.where(truth == 1, -logits, logits)))))
    constant = config.model_copy(
        update={
            "train": config.train.model_copy(update={"schedule": ScheduleConfig(name="constant")})
        }
    )
    kept = protocol.trained(constant, radiographs, arrangement, 4, copies)
    own = float(np.mean(np.logaddexp(0, np.where(truth == 1, -kept.val, kept.val))))
    assert own == pytest.approx(min(losses), abs=1e-6)
    assert answers.test.shape == (len(arrangement.test),)
    assert answers.stress is None
