"""The input gate of trained networks: when it is fitted, what it says, how it travels."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import films, stack
from numpy.typing import NDArray
from tiny_runs import SHARED_DATA, TINY, Program, program, tiny_run
from torch import nn

from xray_classifier.checkpoint import Checkpoint, load_checkpoint
from xray_classifier.classifier import Classifier, assemble, load_classifier
from xray_classifier.cli import main
from xray_classifier.data.dataset import Standardize
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.data.signature import Prepared, Signatures
from xray_classifier.ensemble import united
from xray_classifier.errors import CheckpointError
from xray_classifier.gate import LIMITS, PREFIX, REASONS
from xray_classifier.gating import (
    NEVER_FITTED,
    NO_HELD_OUT,
    features_of,
    penultimate,
    spaced,
    strangeness,
)
from xray_classifier.model import Architecture, build_network

__all__ = ["program", "tiny_run"]

MIXER = {"patch_px": 3, "channels": 5, "blocks": 1, "token_units": 4, "channel_units": 4}
NOT_CHEST = (
    "RG3_UNC.dcm", "RG3_RLE.dcm", "RG3_JPLL.dcm", "RG3_JLSL.dcm", "RG3_J2KR.dcm", "RG2_JPLY.dcm",
    "RG2_JPLL.dcm", "GH133.dcm", "NM_Kakadu44_SOTmarkerincons.dcm",
)  # fmt: skip


def best_of(run: Path) -> Path:
    """The checkpoint that predicts."""
    return run / "checkpoints" / "best.safetensors"


def seen(model: Classifier, pictures: list[Any]) -> tuple[NDArray[np.uint8], Signatures]:
    """Pictures or files as the model sees them."""
    made = [model.attempt(picture) for picture in pictures]
    whole = [one for one in made if isinstance(one, Prepared)]
    assert len(whole) == len(made)
    return np.stack([one.pixels for one in whole]), np.concatenate([w.signature for w in whole])


def phantoms(n: int) -> list[NDArray[np.uint8]]:
    """Films of the kind that the tiny run learnt from, but none of its own."""
    return [draw_phantom(977, number).pixels for number in range(n)]


def noises(n: int) -> list[NDArray[np.uint8]]:
    """White noise."""
    return list(np.random.default_rng(0).integers(0, 256, (n, 64, 64), dtype=np.uint8))


def test_a_mlps_features_are_what_its_output_perceptron_weighs() -> None:
    model, standardize, images = stack([7, 4]).eval(), Standardize(0.4, 0.2), films(300)
    found = penultimate(model, standardize, images)
    with torch.inference_mode():
        expected = model.hidden(standardize(torch.from_numpy(images)).flatten(1))
        logits = model(standardize(torch.from_numpy(images)))
    assert found is not None
    assert found == pytest.approx(expected.numpy(), abs=1e-5)
    weighed = found @ model.output.weight[0].detach().numpy() + model.output.bias.item()
    assert weighed == pytest.approx(logits.numpy(), abs=1e-5)


def test_a_mixers_features_are_those_of_its_mean_patch() -> None:
    architecture = Architecture.from_keys(
        "mixer", 6, [], "gelu", 0.0, "none", False, "kaiming", MIXER
    )
    model, images = build_network(architecture).eval(), films(20)
    found = penultimate(model, nn.Sequential(Standardize(0.5, 0.5)), images)
    assert found is not None
    assert found.shape == (20, 5)


def test_a_lone_perceptron_has_no_features() -> None:
    assert penultimate(stack(), Standardize(0.5, 0.5), films(3)) is None


def test_features_do_not_depend_on_their_neighbours() -> None:
    model, standardize, images = stack([9]), Standardize(0.5, 0.5), films(300)
    whole = penultimate(model, standardize, images)
    parts = [penultimate(model, standardize, images[i : i + 7]) for i in range(0, 300, 7)]
    assert whole is not None
    assert np.concatenate([part for part in parts if part is not None]).tobytes() == whole.tobytes()
    nothing = penultimate(model, standardize, images[:0])
    assert nothing is not None
    assert nothing.shape == (0, 9)


def test_looking_at_features_leaves_the_network_as_it_was() -> None:
    model = stack([4]).train()
    penultimate(model, Standardize(0.5, 0.5), films(3))
    assert model.training
    assert not model.output._forward_pre_hooks


def test_a_run_leaves_a_gate_that_knows_its_films(tiny_run: Path) -> None:
    model = load_classifier(tiny_run)
    assert model.gate_off == ""
    assert model.content["gate"]["on"] is True
    assert model.content["gate"]["limits_from"] == "val"
    found = model.strangeness(*seen(model, phantoms(40)))
    assert found.reasons.count("") >= 38
    strange = model.strangeness(*seen(model, noises(10)))
    assert (strange.scores > 1).all()
    assert strange.reasons == ("not_a_radiograph",) * 10
    gate_bytes = sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in load_checkpoint(best_of(tiny_run)).tensors.items()
        if name.startswith(PREFIX)
    )
    assert 0 < gate_bytes < 2**20


def test_what_it_says_does_not_depend_on_neighbours(tiny_run: Path) -> None:
    model = load_classifier(tiny_run)
    images, signatures = seen(model, [*phantoms(20), *noises(3)])
    whole = model.strangeness(images, signatures)
    for size in (1, 7):
        parts = [
            model.strangeness(images[i : i + size], signatures[i : i + size])
            for i in range(0, len(images), size)
        ]
        assert np.concatenate([part.scores for part in parts]).tobytes() == whole.scores.tobytes()
        assert tuple(r for part in parts for r in part.reasons) == whole.reasons
    nothing = model.strangeness(images[:0], signatures[:0])
    assert (len(nothing.scores), nothing.reasons) == (0, ())


def test_a_checkpoint_without_a_gate_says_so(tiny_run: Path) -> None:
    checkpoint = load_checkpoint(best_of(tiny_run))
    tensors = {n: t for n, t in checkpoint.tensors.items() if not n.startswith(PREFIX)}
    content = {key: value for key, value in checkpoint.content.items() if key != "gate"}
    model = assemble(Checkpoint(tensors, content, checkpoint.path), "cpu", "auto")
    assert model.gate is None
    assert model.gate_off == NEVER_FITTED
    found = model.strangeness(*seen(model, noises(2)))
    assert np.isnan(found.scores).all()
    assert found.reasons == ("", "")


def broken(tensors: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """Gates that are none."""
    yield {**tensors, LIMITS: tensors[LIMITS][:2]}
    yield {name: t for name, t in tensors.items() if name != "gate.grey.mean"}
    yield {**tensors, "gate.chosen": tensors["gate.chosen"] + 1}
    yield {**tensors, "gate.network.variances": -tensors["gate.network.variances"]}


def test_a_gate_that_makes_no_sense_is_refused(tiny_run: Path) -> None:
    checkpoint = load_checkpoint(best_of(tiny_run))
    for tensors in broken(checkpoint.tensors):
        with pytest.raises(CheckpointError):
            assemble(replace(checkpoint, tensors=tensors), "cpu", "auto")


def test_an_ensemble_holds_an_image_against_each_of_its_members(tiny_run: Path) -> None:
    one = load_checkpoint(best_of(tiny_run))
    other = {**one.tensors, LIMITS: one.tensors[LIMITS] * 1.0}
    other[LIMITS][5:] *= 2.0
    tensors, content = united([one, replace(one, tensors=other)])
    model = assemble(Checkpoint(tensors, content, one.path), "cpu", "auto")
    assert model.gate is not None
    images, signatures = seen(model, phantoms(5))
    features = features_of(model.model, model.standardize, images)
    assert len(features) == 2
    alone = load_classifier(tiny_run).gate
    assert alone is not None
    shares = alone.shares(images, signatures, features[:1])
    both = model.gate.shares(images, signatures, features)
    assert both[:, 5:] == pytest.approx(0.75 * shares[:, 5:])
    lacking = {n: t for n, t in tensors.items() if not n.startswith(f"member1.{PREFIX}")}
    without = assemble(Checkpoint(lacking, content, one.path), "cpu", "auto")
    assert without.gate is None
    assert without.gate_off


def test_a_copy_without_memory_keeps_its_gate(
    tiny_run: Path, program: Program, tmp_path: Path
) -> None:
    out = tmp_path / "given_away.safetensors"
    assert program("export", tiny_run, "--strip-memory", "-o", out).code == 0
    copy, model = load_classifier(out), load_classifier(tiny_run)
    assert copy.memory is None
    given = seen(model, phantoms(3))
    assert copy.strangeness(*given).scores.tobytes() == model.strangeness(*given).scores.tobytes()


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("data.phantoms.n_images=60", "too few images"),
        ("data.split.val=null", NO_HELD_OUT),
    ],
)
def test_without_enough_images_the_gate_is_off(setting: str, why: str, tmp_path: Path) -> None:
    words = [*TINY, "train.epochs=1", "train.early_stopping.monitor=train_loss", setting]
    assert main(["train", "-c", "demo", "-q", "-o", str(tmp_path), *words]) == 0
    model = load_classifier(next(tmp_path.glob("*_demo")))
    assert model.gate is None
    assert why in model.gate_off


def test_a_perceptron_has_a_gate_of_pixels_alone(tmp_path: Path) -> None:
    tiny = [word for word in TINY if not word.startswith("model.")]
    words = [*tiny, "train.epochs=1", "model.type=perceptron"]
    assert main(["train", "-c", "demo", "-q", "-o", str(tmp_path), *words]) == 0
    model = load_classifier(next(tmp_path.glob("*_demo")))
    assert model.gate is not None
    assert model.gate.members[0].network is None
    found = strangeness(model.gate, model.model, model.standardize, *seen(model, noises(3)))
    assert (found.scores > 1).all()


def test_rows_are_spread_evenly() -> None:
    rows = np.arange(10) * 3
    assert spaced(rows, 5).tolist() == [0, 6, 12, 18, 24]
    assert spaced(rows, 10) is rows
    assert len(np.unique(spaced(np.arange(4321), 2000))) == 2000


@pytest.mark.skipif(
    not (SHARED_DATA / "kermany224").is_dir(), reason="no chest films in ../shared/data"
)
def test_films_of_other_anatomy_are_strange_to_a_model_of_chests(tmp_path: Path) -> None:
    words = ["data.limit=1000", "train.epochs=2", "train.test_curve=off", "train.device=cpu"]
    chest = f"data.path={SHARED_DATA / 'kermany224'}"
    assert main(["train", "-c", "kermany", "-q", "-o", str(tmp_path), chest, *words]) == 0
    model = load_classifier(next(tmp_path.glob("*_kermany")))
    found = model.strangeness(*seen(model, [SHARED_DATA / "dicom" / name for name in NOT_CHEST]))
    assert (found.scores > 1).all()
    assert set(found.reasons) <= set(REASONS)
    rest = sorted((SHARED_DATA / "kermany224" / "NORMAL").iterdir())[::20]
    assert np.mean(model.strangeness(*seen(model, list(rest))).scores > 1) < 0.1
