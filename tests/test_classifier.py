"""A classifier answers as its checkpoint says, in any company, or refuses the checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from tiny_runs import film, metadata_of, save_film, tiny_run

from xray_classifier.checkpoint import load_checkpoint, save_checkpoint
from xray_classifier.classifier import Classifier, load_classifier, run_of
from xray_classifier.data.decode import decode_file
from xray_classifier.errors import CheckpointError, UsageError

__all__ = ["tiny_run"]


@pytest.fixture
def classifier(tiny_run: Path) -> Classifier:
    """The tiny run's model."""
    return load_classifier(tiny_run, "cpu")


def best_of(run: Path) -> Path:
    """The checkpoint that predicts."""
    return run / "checkpoints" / "best.safetensors"


def test_probabilities_follow_from_the_stored_calibration(tiny_run: Path) -> None:
    content = metadata_of(best_of(tiny_run))
    c = content["calibration"]
    given = load_classifier(tiny_run, "cpu").score(np.stack([film(i, 16) for i in range(9)]))
    np.testing.assert_allclose(given.p_raw, 1 / (1 + np.exp(-given.logits)), rtol=1e-12)
    expected = 1 / (1 + np.exp(-(c["slope"] * given.logits + c["intercept"])))
    np.testing.assert_allclose(given.p_sick, expected, rtol=1e-12)
    np.testing.assert_array_equal(given.sick, given.p_sick >= content["threshold"]["value"])


def test_logits_follow_from_the_stored_weights_by_hand(tiny_run: Path) -> None:
    loaded = load_checkpoint(best_of(tiny_run))
    pixels = loaded.content["pixels"]
    images = np.stack([film(i, 16) for i in range(5)])
    grey = (images.reshape(5, -1) / 255.0 - pixels["mean"]) / pixels["std"]
    weights = [t.double().numpy() for n, t in loaded.tensors.items() if n.endswith("weight")]
    biases = [t.double().numpy() for n, t in loaded.tensors.items() if n.endswith("bias")]
    weights.sort(key=len, reverse=True)
    biases.sort(key=len, reverse=True)
    hidden = np.maximum(grey @ weights[0].T + biases[0], 0)
    logits = (hidden @ weights[1].T + biases[1]).ravel()
    given = load_classifier(tiny_run, "cpu").score(images).logits
    np.testing.assert_allclose(given, logits, rtol=1e-4, atol=1e-5)


def test_the_module_is_the_same_network(classifier: Classifier) -> None:
    images = np.stack([film(i, 16) for i in range(4)])
    module = classifier.module
    assert isinstance(module, torch.nn.Module)
    assert not module.training
    with torch.inference_mode():
        logits = module(torch.from_numpy(images)[:, None].float())
    assert logits.shape == (4,)
    np.testing.assert_allclose(logits, classifier.score(images).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_rows", [1, 7, 300])
def test_no_answer_depends_on_its_neighbours(n_rows: int, classifier: Classifier) -> None:
    images = np.stack([film(i, 16) for i in range(300)])
    whole = classifier.score(images).logits
    order = np.random.default_rng(n_rows).permutation(300)[:n_rows]
    alone = classifier.score(images[order]).logits
    assert alone.tobytes() == whole[order].tobytes()


def test_files_and_arrays_are_answered_alike(classifier: Classifier, tmp_path: Path) -> None:
    path = save_film(tmp_path / "a.png", 3)
    (tmp_path / "bad.png").write_bytes(b"text")
    (tmp_path / "set.npz").write_bytes(b"PK\x03\x04 and more")
    answers = classifier.predict([path, film(3), tmp_path / "bad.png", str(path)])
    assert isinstance(answers, pandas.DataFrame)
    assert answers["status"].tolist() == ["ok", "ok", "failed", "ok"]
    assert answers["p_sick"][0] == answers["p_sick"][1] == answers["p_sick"][3]
    assert np.isnan(answers["p_sick"][2])
    assert len(classifier.predict(path)) == 1
    assert len(classifier.predict(film(3))) == 1
    assert classifier.predict([]).empty


def test_preparing_is_the_decode_path_with_the_stored_settings(
    classifier: Classifier, tmp_path: Path
) -> None:
    path = save_film(tmp_path / "a.png", 3)
    settings = classifier.content["image"]
    expected = decode_file(path, 16, settings["crop"], settings["intensity"])
    np.testing.assert_array_equal(classifier.prepare(path), expected)


def test_a_threshold_is_solved_on_the_stored_curve(tiny_run: Path) -> None:
    curve = metadata_of(best_of(tiny_run))["operating_curve"]
    points = list(zip(curve["thresholds"], curve["sensitivity"], curve["specificity"], strict=True))

    def threshold(policy: str | float) -> float:
        return load_classifier(tiny_run, "cpu", policy).threshold

    assert threshold("sens=0.9") == max(t for t, sens, _ in points if sens >= 0.9)
    assert threshold("spec=0.9") == min(t for t, _, spec in points if spec >= 0.9)
    best = max(sens + spec for _, sens, spec in points)
    assert threshold("youden") in [t for t, a, b in points if a + b == pytest.approx(best)]
    assert threshold("0.42") == threshold(0.42) == 0.42
    assert threshold("auto") == metadata_of(best_of(tiny_run))["threshold"]["value"]


@pytest.mark.parametrize("policy", ["", "sens", "sens=", "sens=1.5", "nan", "-1", "2", "F1"])
def test_a_threshold_that_means_nothing_is_refused(policy: str, tiny_run: Path) -> None:
    with pytest.raises(UsageError, match="--threshold"):
        load_classifier(tiny_run, "cpu", policy)


def test_the_state_of_a_run_is_no_model(tiny_run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"best\.safetensors beside it"):
        load_classifier(tiny_run / "checkpoints" / "last.safetensors")


def changed(tiny_run: Path, path: Path, content: dict[str, Any]) -> Path:
    """The tiny run's model with other words around its weights."""
    loaded = load_checkpoint(best_of(tiny_run))
    words = {k: v for k, v in content.items() if k not in ("format", "format_version")}
    save_checkpoint(path, loaded.tensors, words)
    return path


NEEDED = ("kind", "task", "architecture", "pixels", "calibration", "threshold", "image", "data")


@pytest.mark.parametrize("key", NEEDED)
def test_a_checkpoint_without_a_part_names_it(key: str, tiny_run: Path, tmp_path: Path) -> None:
    content = metadata_of(best_of(tiny_run))
    del content[key]
    with pytest.raises(CheckpointError, match=key):
        load_classifier(changed(tiny_run, tmp_path / "a.safetensors", content), "cpu")


NONSENSE: list[Any] = [None, 3, "text", [], {"value": "x"}, {"size": "x", "mean": None}]


@pytest.mark.parametrize("key", NEEDED)
def test_a_part_that_makes_no_sense_is_refused(key: str, tiny_run: Path, tmp_path: Path) -> None:
    for nonsense in NONSENSE[:4] if key == "data" else NONSENSE:
        content = {**metadata_of(best_of(tiny_run)), key: nonsense}
        path = changed(tiny_run, tmp_path / "a.safetensors", content)
        with pytest.raises(CheckpointError):
            load_classifier(path, "cpu")


def test_without_a_stored_curve_only_numbers_are_thresholds(tiny_run: Path, tmp_path: Path) -> None:
    content = metadata_of(best_of(tiny_run))
    del content["operating_curve"]
    path = changed(tiny_run, tmp_path / "a.safetensors", content)
    with pytest.raises(CheckpointError, match="give --threshold a number"):
        load_classifier(path, "cpu", "sens=0.9")
    assert load_classifier(path, "cpu", "0.3").threshold == 0.3


def test_weights_of_another_network_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(best_of(tiny_run))
    content = {k: v for k, v in loaded.content.items() if not k.startswith("format")}
    for tensors in (
        {},
        {**loaded.tensors, "extra": torch.zeros(1)},
        {name: tensor.flatten() for name, tensor in loaded.tensors.items()},
    ):
        save_checkpoint(tmp_path / "a.safetensors", tensors, content)
        with pytest.raises(CheckpointError, match="does not describe a network"):
            load_classifier(tmp_path / "a.safetensors", "cpu")


def test_a_checkpoint_knows_its_run(tiny_run: Path, tmp_path: Path) -> None:
    assert run_of(best_of(tiny_run)) == tiny_run
    assert run_of(tmp_path / "a.safetensors") is None


def test_the_positive_class_is_named_in_the_checkpoint(tiny_run: Path) -> None:
    content = metadata_of(best_of(tiny_run))
    assert content["classes"] == ["healthy", "sick"]
    assert content["positive_class"] == "sick"
