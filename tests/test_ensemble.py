"""An ensemble answers with the mean of its members, from one file, or is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import Program, film, metadata_of, program, tiny_run

from xray_classifier.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from xray_classifier.classifier import Classifier, load_classifier
from xray_classifier.ensemble import Ensemble, member_weights, united, united_memory
from xray_classifier.errors import CheckpointError
from xray_classifier.gate import is_of_gate
from xray_classifier.memory import IMAGES, PATIENTS, Memory
from xray_classifier.metrics import log_loss_from_logits

__all__ = ["program", "tiny_run"]

HEAD = ("format", "format_version")


def best_of(run: Path) -> Path:
    """The checkpoint that predicts."""
    return run / "checkpoints" / "best.safetensors"


def variant(run: Path, path: Path, number: int, **words: Any) -> Path:
    """The tiny run's model with other weights, and other words around them."""
    loaded = load_checkpoint(best_of(run))
    generator = torch.Generator().manual_seed(number)
    tensors = {
        name: t + 0.1 * torch.randn(t.shape, generator=generator)
        if t.is_floating_point() and not is_of_gate(name)
        else t
        for name, t in loaded.tensors.items()
    }
    content = {k: v for k, v in loaded.content.items() if k not in HEAD} | words
    save_checkpoint(path, tensors, content)
    return path


@pytest.fixture
def parts(tiny_run: Path, tmp_path: Path) -> list[Path]:
    """Three models that differ in weights and in how they standardise."""
    statistics = ({"mean": 0.5, "std": 0.3}, {"mean": 0.4, "std": 0.2}, {"mean": 0.6, "std": 0.25})
    return [
        variant(
            tiny_run, tmp_path / f"part{number}.safetensors", number, pixels=pixels, seed=number
        )
        for number, pixels in enumerate(statistics)
    ]


def ensemble_file(parts: list[Path], path: Path) -> Path:
    """One file of several."""
    tensors, content = united([load_checkpoint(part) for part in parts])
    save_checkpoint(path, tensors, content)
    return path


@pytest.fixture
def ensemble(parts: list[Path], tmp_path: Path) -> Classifier:
    """The three as one, read from its file."""
    return load_classifier(ensemble_file(parts, tmp_path / "all.safetensors"), "cpu")


def films(n_images: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(n_images, 16, 16) uint8."""
    return np.stack([film(seed, 16) for seed in range(n_images)])


def test_the_answer_is_the_mean_of_the_members_logits(
    ensemble: Classifier, parts: list[Path]
) -> None:
    images = films(9)
    each = [load_classifier(part, "cpu").score(images).logits for part in parts]
    assert len({logits.tobytes() for logits in each}) == 3
    expected = (each[0] + each[1] + each[2]) / 3
    np.testing.assert_allclose(ensemble.score(images).logits, expected, rtol=1e-5, atol=1e-6)


def test_one_calibration_stands_on_the_mean(ensemble: Classifier) -> None:
    answers, c = ensemble.score(films(9)), ensemble.content["calibration"]
    expected = 1 / (1 + np.exp(-(c["slope"] * answers.logits + c["intercept"])))
    np.testing.assert_allclose(answers.p_sick, expected, rtol=1e-12)
    np.testing.assert_array_equal(answers.sick, answers.p_sick >= ensemble.threshold)


def test_the_module_takes_grey_levels_and_gives_the_mean_logit(ensemble: Classifier) -> None:
    images = films(4)
    module = ensemble.module
    assert isinstance(module, torch.nn.Module)
    assert not any(part.training for part in module.modules())
    with torch.inference_mode():
        logits = module(torch.from_numpy(images)[:, None].float())
    assert logits.shape == (4,)
    np.testing.assert_allclose(logits, ensemble.score(images).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_rows", [1, 7, 300])
def test_no_answer_depends_on_its_neighbours(n_rows: int, ensemble: Classifier) -> None:
    images = films(300)
    whole = ensemble.score(images).logits
    order = np.random.default_rng(n_rows).permutation(300)[:n_rows]
    assert ensemble.score(images[order]).logits.tobytes() == whole[order].tobytes()


def test_an_ensemble_of_one_is_that_one(tiny_run: Path, tmp_path: Path) -> None:
    alone = load_classifier(ensemble_file([best_of(tiny_run)], tmp_path / "one.safetensors"), "cpu")
    images = films(9)
    given_logits = load_classifier(tiny_run, "cpu").score(images).logits
    assert alone.score(images).logits.tobytes() == given_logits.tobytes()


def test_members_of_a_regression_are_averaged_in_their_own_unit(
    tiny_run: Path, tmp_path: Path
) -> None:
    scales = ({"mean": 50.0, "std": 10.0}, {"mean": 40.0, "std": 20.0})
    parts = [
        variant(tiny_run, tmp_path / f"r{n}.safetensors", n, task="regress", target=scale)
        for n, scale in enumerate(scales)
    ]
    images = films(6)
    each = [load_classifier(part, "cpu").score(images).logits for part in parts]
    whole = load_classifier(ensemble_file(parts, tmp_path / "r.safetensors"), "cpu")
    given_numbers = whole.score(images)
    np.testing.assert_allclose(given_numbers.logits, (each[0] + each[1]) / 2, rtol=1e-5)
    assert np.isnan(given_numbers.p_sick).all()
    with torch.inference_mode():
        numbers = whole.module(torch.from_numpy(images)[:, None].float())
    np.testing.assert_allclose(numbers, given_numbers.logits, rtol=1e-5)


@given(st.lists(st.lists(st.floats(-30, 30), min_size=8, max_size=8), min_size=1, max_size=5))
def test_the_mean_logit_never_has_more_loss_than_its_members_on_average(
    logits: list[list[float]],
) -> None:
    labels = np.array([0, 1] * 4)
    each = np.array(logits)
    mean_loss = np.mean([log_loss_from_logits(labels, one) for one in each])
    assert log_loss_from_logits(labels, each.mean(axis=0)) <= mean_loss + 1e-9


def test_the_file_says_what_its_members_are(ensemble: Classifier) -> None:
    content = metadata_of(ensemble.path)
    assert content["kind"] == "best"
    assert [m["seed"] for m in content["ensemble"]["members"]] == [0, 1, 2]
    assert [m["pixels"]["mean"] for m in content["ensemble"]["members"]] == [0.5, 0.4, 0.6]
    assert "pixels" not in content  # there is no single answer
    names = load_checkpoint(ensemble.path).tensors
    assert {name.split(".")[0] for name in names} == {"member0", "member1", "member2", "memory"}


@pytest.mark.parametrize(
    ("key", "value"), [("image", {"size": 16, "crop": "pad"}), ("task", "regress")]
)
def test_members_that_see_or_do_something_else_are_refused(
    key: str, value: Any, tiny_run: Path, parts: list[Path], tmp_path: Path
) -> None:
    odd = variant(tiny_run, tmp_path / "odd.safetensors", 5, **{key: value})
    with pytest.raises(CheckpointError, match=rf"odd\.safetensors.*part0\.safetensors.*{key}"):
        united([load_checkpoint(path) for path in (*parts, odd)])


def spoilt(ensemble: Classifier, path: Path, words: Any, drop: str = "", extra: str = "") -> Path:
    """The ensemble's file with something wrong in it."""
    loaded = load_checkpoint(ensemble.path)
    tensors = {name: t for name, t in loaded.tensors.items() if name != drop or not drop}
    if extra:
        tensors[extra] = torch.zeros(1)
    content = {k: v for k, v in loaded.content.items() if k not in HEAD}
    save_checkpoint(path, tensors, content | ({} if words is None else {"ensemble": words}))
    return path


MEMBER = {"pixels": {"mean": 0.5, "std": 0.3}, "target": {"mean": 0.0, "std": 1.0}}


@pytest.mark.parametrize(
    "words",
    [
        3,
        "text",
        [],
        {},
        {"members": []},
        {"members": [MEMBER] * 2},
        {"members": [MEMBER] * 4},
        {"members": [{"pixels": MEMBER["pixels"]}] * 3},
        {"members": [{**MEMBER, "pixels": {"mean": "x", "std": 1}}] * 3},
    ],
)
def test_an_ensemble_that_makes_no_sense_is_refused(
    words: Any, ensemble: Classifier, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="does not describe a network"):
        load_classifier(spoilt(ensemble, tmp_path / "a.safetensors", words), "cpu")


def test_a_missing_or_strange_tensor_is_refused(ensemble: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for drop, extra in (("member1.output.bias", ""), ("", "member1.more"), ("", "more")):
        with pytest.raises(CheckpointError, match="does not describe a network"):
            load_classifier(spoilt(ensemble, path, None, drop, extra), "cpu")
    assert load_classifier(spoilt(ensemble, path, None), "cpu").score(films(1)).logits.shape == (1,)


def test_every_tensor_belongs_to_one_member() -> None:
    weights = {f"member{n}.output.bias": torch.tensor([float(n)]) for n in range(11)}
    found = member_weights(weights, 11)
    assert [part["output.bias"].item() for part in found] == list(range(11))
    with pytest.raises(ValueError, match=r"member10\.output\.bias"):
        member_weights(weights, 10)
    with pytest.raises(ValueError, match="without members"):
        Ensemble([])


def remembering(numbers: list[int], patients: list[int], key: str | None = "a") -> Memory:
    """A memory of images and patients that stand for numbers."""
    pixels = np.zeros((len(numbers), 8), dtype=np.uint8)
    pixels[:, 0] = numbers
    keys = frozenset(bytes([patient]) * 16 for patient in patients)
    return Memory(pixels, np.zeros((len(numbers), 32), dtype=np.uint8), keys, key)


def test_an_ensemble_remembers_what_any_member_was_trained_on() -> None:
    whole = united_memory([remembering([3, 1], [1]), remembering([1, 2], [1, 2])])
    assert whole is not None
    assert whole.pixels[:, 0].tolist() == [1, 2, 3]
    assert whole.patients == {bytes([1]) * 16, bytes([2]) * 16}
    assert whole.key == "a"
    assert whole.content() == {"images": 3, "patients": 2, "key": "a"}


def test_what_cannot_be_compared_is_not_remembered() -> None:
    assert united_memory([remembering([1], [1]), None]) is None
    other = united_memory([remembering([1], [1]), remembering([2], [1], "b")])
    assert other is not None
    assert (len(other), other.patients, other.key) == (2, frozenset(), None)
    unknown = united_memory([remembering([1], [], None), remembering([2], [], None)])
    assert unknown is not None
    assert (len(unknown), unknown.key) == (2, None)


def test_the_memory_of_an_ensemble_can_be_taken_out(
    ensemble: Classifier, tmp_path: Path, program: Program
) -> None:
    assert ensemble.memory is not None
    bare = tmp_path / "bare.safetensors"
    assert program("export", ensemble.path, "-o", bare, "--strip-memory").code == 0
    assert not {IMAGES, PATIENTS} & load_checkpoint(bare).tensors.keys()
    again = load_classifier(bare, "cpu")
    assert again.memory is None
    assert again.score(films(5)).logits.tobytes() == ensemble.score(films(5)).logits.tobytes()


def test_a_member_without_memory_leaves_the_ensemble_without(parts: list[Path]) -> None:
    loaded = [load_checkpoint(part) for part in parts]
    tensors = {name: t for name, t in loaded[1].tensors.items() if name not in (IMAGES, PATIENTS)}
    loaded[1] = Checkpoint(tensors, loaded[1].content, loaded[1].path)
    whole, content = united(loaded)
    assert not {IMAGES, PATIENTS} & whole.keys()
    assert content["memory"] is None
