"""A classifier answers as its checkpoint says, in any company, or refuses the checkpoint."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_runs import film, metadata_of, save_film, tiny_run

from xray_classifier.checkpoint import load_checkpoint, save_checkpoint
from xray_classifier.classifier import Classifier, load_classifier, run_of
from xray_classifier.data.decode import decode_file, film_from_array
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


def test_one_or_several_of_any_kind_are_answered_in_order(
    classifier: Classifier, tmp_path: Path
) -> None:
    path, grey = save_film(tmp_path / "a.png", 3), film(3)
    with os.scandir(tmp_path) as entries:  # what os.scandir gives is a path, but no Path
        entry = next(entries)
    answers = classifier.predict(
        [str(path), path, entry, grey, grey[..., None], grey[None], np.dstack([grey] * 3)]
    )
    assert answers["path"].tolist() == [str(path)] * 3 + [f"array {k}" for k in range(3, 7)]
    assert answers["status"].tolist() == ["ok"] * 7
    assert answers["p_sick"].nunique() == 1
    for alone in (str(path), path, grey, (path,), iter([grey])):
        assert classifier.predict(alone)["p_sick"].tolist() == answers["p_sick"].tolist()[:1]


def test_nothing_in_gives_an_empty_table_with_the_same_columns(classifier: Classifier) -> None:
    for nothing in ([], (), iter([])):
        answers = classifier.predict(nothing)
        assert len(answers) == 0
        assert tuple(answers.columns) == classifier.columns


def test_a_colour_array_is_answered_like_its_file(classifier: Classifier, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    luma = np.asarray(Image.fromarray(colours).convert("L"))
    np.testing.assert_array_equal(film_from_array(colours).pixels, luma)
    answers = classifier.predict([tmp_path / "a.png", colours])
    assert answers["logit"][0] == answers["logit"][1]


def test_the_byte_order_of_an_array_does_not_matter(classifier: Classifier) -> None:
    grey = film(4).astype(np.uint16) * 16
    given: list[Any] = [grey.astype(order + "u2") for order in "<>"]
    given += [(grey / 65535).astype(order + "f4") for order in "<>"]
    answers = classifier.predict(given)
    assert answers["status"].tolist() == ["ok"] * 4
    assert answers["logit"][0] == answers["logit"][1]
    assert answers["logit"][2] == answers["logit"][3]


GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)
RGB = np.stack([GREY, GREY * 2, GREY * 3], axis=-1)


@pytest.mark.parametrize("picture", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize(
    "kind", ["complex", "bool", "int64", "uint32", "object", "U3", "S3", "M8[s]", "m8[s]", "i4,i4"]
)
def test_values_that_are_no_grey_levels_give_a_row_with_a_reason(
    kind: str, picture: NDArray[np.uint8], classifier: Classifier
) -> None:
    values = np.zeros(picture.shape, kind) if "," in kind else picture.astype(kind)
    answers = classifier.predict([GREY, values])
    assert answers["status"].tolist() == ["ok", "rejected"]
    assert answers["reason"].tolist() == ["", "ambiguous_range"]
    assert np.isnan(answers["p_sick"][1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
@pytest.mark.parametrize("picture", [GREY / 255, RGB / 255], ids=["grey", "rgb"])
def test_floats_that_are_no_fraction_of_white_give_a_row_with_a_reason(
    value: float, picture: NDArray[np.float64], classifier: Classifier
) -> None:
    values = picture.copy()
    values.flat[5:8] = value * 3
    assert classifier.predict(values)["reason"].tolist() == ["ambiguous_range"]


@pytest.mark.parametrize("shape", [(), (9,), (0, 4), (5, 9, 8), (8, 8, 4), (1, 9, 9, 1)])
def test_an_array_that_is_no_film_gives_a_row_with_a_reason(
    shape: tuple[int, ...], classifier: Classifier
) -> None:
    answers = classifier.predict(np.zeros(shape, np.uint8))
    assert answers["status"].tolist() == ["failed"]
    assert answers["reason"].tolist() == ["bad_shape"]


@pytest.mark.parametrize(
    ("images", "called"),
    [
        ([[GREY]], "image 0 is of type list"),
        ([GREY, None], "image 1 is of type NoneType"),
        ([torch.zeros(8, 8)], "image 0 is of type Tensor"),
        (["a.png", 3], "image 1 is of type int"),
        (None, "the image is of type NoneType"),
        (b"a.png", "the image is of type bytes"),
        (np.float32(0.5), "the image is of type float32"),
    ],
)
def test_what_is_neither_path_nor_array_is_refused_before_anything_is_read(
    images: Any, called: str, classifier: Classifier
) -> None:
    with pytest.raises(UsageError, match=called):
        classifier.predict(images)


def test_preparing_refuses_what_is_neither_path_nor_array(classifier: Classifier) -> None:
    unknown: Any = [GREY]
    with pytest.raises(UsageError, match="of type list"):
        classifier.prepare(unknown)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("n_images", [1, 5])
def test_the_module_takes_prepared_images_of_either_kind(
    kind: torch.dtype, n_images: int, classifier: Classifier
) -> None:
    images = np.stack([classifier.prepare(film(seed)) for seed in range(n_images)])
    with torch.inference_mode():
        logits = classifier.module(torch.from_numpy(images)[:, None].to(kind))
    assert logits.shape == (n_images,)
    expected = classifier.predict([film(seed) for seed in range(n_images)])["logit"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
