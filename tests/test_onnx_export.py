"""An ONNX file answers as the model it was made from, says how, and holds nothing else."""

import ast
import hashlib
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_runs import SHARED_DATA, Program, film, metadata_of, program, rows_in, rows_of, tiny_run

from xray_classifier.checkpoint import load_checkpoint, save_checkpoint
from xray_classifier.classifier import Classifier, load_classifier
from xray_classifier.data.decode import decode_file
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.ensemble import united
from xray_classifier.errors import UsageError
from xray_classifier.model import Architecture, build_network
from xray_classifier.onnx_export import onnx_file, onnx_outputs

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

__all__ = ["program", "tiny_run"]

EXAMPLE = Path(__file__).resolve().parents[1] / "scripts" / "predict_onnx.py"
MIXER = {"patch_px": 8, "channels": 12, "blocks": 2, "token_units": 8, "channel_units": 16}
REAL_FILMS = SHARED_DATA / "kermany224"
real = pytest.mark.skipif(not REAL_FILMS.is_dir(), reason="no real radiographs in ../shared/data")

Example = Callable[..., str]


def best_of(run: Path) -> Path:
    """The checkpoint that predicts."""
    return run / "checkpoints" / "best.safetensors"


def variant(run: Path, path: Path, tensors: dict[str, Any] | None = None, **words: Any) -> Path:
    """The tiny run's model with other weights, or other words around them."""
    loaded = load_checkpoint(best_of(run))
    content = {k: v for k, v in loaded.content.items() if k not in ("format", "format_version")}
    save_checkpoint(path, loaded.tensors if tensors is None else tensors, content | words)
    return path


def of_architecture(run: Path, path: Path, architecture: Architecture, seed: int = 0) -> Path:
    """A model file with fresh weights; a batch norm has seen something, and no bias is zero."""
    generator = torch.Generator().manual_seed(seed)
    tensors = build_network(architecture, seed).state_dict()
    for name, tensor in tensors.items():
        if name.endswith(("bias", "running_mean", "running_var")):
            tensor.add_(torch.rand(tensor.shape, generator=generator))
    size = architecture.size_px
    image = metadata_of(best_of(run))["image"] | {"size": size}
    words = {"architecture": architecture.to_dict(), "image": image, "memory": None}
    return variant(run, path, tensors, **words)


def properties_of(content: bytes) -> dict[str, Any]:
    """The properties as ONNX Runtime reads them."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}


def trial_images(size_px: int) -> NDArray[np.float32]:
    """Noise, smooth pictures and phantoms, (34, 1, S, S), 0..255."""
    noise = np.random.default_rng(1).integers(0, 256, (16, size_px, size_px))
    smooth = [film(seed, size_px) for seed in range(16)]
    drawn = [draw_phantom(3, k, size_px).pixels // 16 for k in range(2)]
    return np.stack([*noise, *smooth, *drawn])[:, None].astype(np.float32)


def largest_difference(classifier: Classifier, images: NDArray[np.float32]) -> float:
    """Between an ONNX file's outputs and the network's own, asked in batches of 1, 7 and all."""
    content, _ = onnx_file(classifier)
    with torch.inference_mode():
        expected = classifier.model(classifier.standardize(torch.from_numpy(images))).numpy()
    assert float(np.ptp(expected)) > 0.01, "outputs that are all alike compare nothing"
    batches = [images[:1], images[1:8], images[8:]]
    given = np.concatenate([onnx_outputs(content, batch) for batch in batches])
    assert given.shape == expected.shape
    return float(np.abs(given - expected).max())


ARCHITECTURES = {
    "perceptron": Architecture("perceptron", 16),
    "mixer": Architecture.from_keys("mixer", 16, [], "gelu", 0.1, "none", False, "kaiming", MIXER),
}
for place, kind in enumerate(
    ["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid", "elu", "selu"]
):
    norm = ("none", "layer", "batch")[place % 3]
    ARCHITECTURES[f"{kind}-{norm}"] = Architecture.from_keys(
        "mlp", 16, [8, 8], kind, 0.2, norm, place % 2 == 0, "xavier"
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_kind_of_network_answers_alike(name: str, tiny_run: Path, tmp_path: Path) -> None:
    path = of_architecture(tiny_run, tmp_path / "a.safetensors", ARCHITECTURES[name])
    assert largest_difference(load_classifier(path, "cpu"), trial_images(16)) <= 1e-5


def test_large_outputs_differ_by_their_last_digits_alone(tiny_run: Path, tmp_path: Path) -> None:
    path = of_architecture(tiny_run, tmp_path / "a.safetensors", Architecture("perceptron", 64))
    images = trial_images(64)
    classifier = load_classifier(path, "cpu")
    with torch.inference_mode():
        for parameter in classifier.model.parameters():
            parameter *= 20 / classifier.module(torch.from_numpy(images)).abs().max()
        largest = float(classifier.module(torch.from_numpy(images)).abs().max())
    assert largest > 10
    assert largest_difference(classifier, images) <= 1e-5 * largest


def test_an_ensemble_answers_with_its_mean(tiny_run: Path, tmp_path: Path) -> None:
    small = Architecture.from_keys("mlp", 16, [6], "relu", 0, "none", False, "kaiming")
    parts = [of_architecture(tiny_run, tmp_path / f"{k}.safetensors", small, k) for k in range(3)]
    tensors, content = united([load_checkpoint(part) for part in parts])
    for member, mean in zip(content["ensemble"]["members"], (0.3, 0.5, 0.7), strict=True):
        member["pixels"] = {"mean": mean, "std": 0.25}
    save_checkpoint(tmp_path / "all.safetensors", tensors, content)
    classifier = load_classifier(tmp_path / "all.safetensors", "cpu")
    assert largest_difference(classifier, trial_images(16)) <= 1e-5


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run as an ONNX file."""
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    path.write_bytes(onnx_file(load_classifier(tiny_run, "cpu"))[0])
    return path


def test_the_file_is_sound_and_takes_any_number_of_images(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    (given,), (back,) = model.graph.input, model.graph.output
    shape = [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim]
    assert (given.name, back.name) == ("images", "outputs")
    assert isinstance(shape[0], str)
    assert shape[1:] == [1, 16, 16]
    images = trial_images(16)
    for n_images in (1, 2, 33):
        assert onnx_outputs(exported.read_bytes(), images[:n_images]).shape == (n_images,)


def test_the_properties_say_all_that_an_answer_needs(exported: Path, tiny_run: Path) -> None:
    stored = metadata_of(best_of(tiny_run))
    found = properties_of(exported.read_bytes())
    assert found["task"] == "classify"
    assert found["classes"] == ["healthy", "sick"]
    assert found["positive_class"] == "sick"
    assert found["preprocessing"] == {
        "size": 16, "crop": stored["image"]["crop"], "intensity": stored["image"]["intensity"]
    }  # fmt: skip
    assert found["calibration"] == stored["calibration"]
    assert found["threshold"]["value"] == stored["threshold"]["value"]
    assert found["threshold"]["policy"] == stored["threshold"]["policy"]
    assert found["refer"] == stored["refer"]
    assert found["target"] is None
    assert found["intended_use"] == stored["intended_use"]
    assert found["program_version"] == stored["environment"]["versions"]["xray-classifier"]
    assert found["notice"].startswith("Not a medical device")
    raw = best_of(tiny_run).read_bytes()
    digest = found["checkpoint_sha256"].encode()
    assert raw.count(digest) == 1
    assert hashlib.sha256(raw.replace(digest, b"0" * 64)).hexdigest().encode() == digest


def test_nothing_else_is_in_the_file(exported: Path, tiny_run: Path) -> None:
    content = exported.read_bytes()
    loaded = load_checkpoint(best_of(tiny_run))
    for private in (str(EXAMPLE.parents[1]), ".py", str(tiny_run), loaded.content["memory"]["key"]):
        assert private.encode() not in content
    weights = load_classifier(tiny_run, "cpu").model.state_dict()
    assert len(weights) < len(loaded.tensors)
    n_bytes = sum(tensor.numel() * 4 for tensor in weights.values())
    assert n_bytes < len(content) < n_bytes + 8000


def test_the_same_model_gives_the_same_file(exported: Path, tiny_run: Path) -> None:
    assert onnx_file(load_classifier(tiny_run, "cpu"))[0] == exported.read_bytes()


def test_the_verb_writes_the_file_once(
    exported: Path, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    out = tmp_path / "m.onnx"
    out.write_bytes(b"mine")
    said = program("export", tiny_run, "-o", out, "--onnx")
    assert said.code == 6
    assert "--force" in said.err
    assert out.read_bytes() == b"mine"
    said = program("export", tiny_run, "-o", out, "--onnx", "--strip-memory", "--force", "--json")
    assert said.code == 0, said.err
    assert out.read_bytes() == exported.read_bytes()
    assert said.json["bytes"] == out.stat().st_size
    assert said.json["max_difference"] <= 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_file_that_answers_otherwise_is_not_written(
    tiny_run: Path, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "xray_classifier.onnx_export.onnx_outputs",
        lambda content, images: onnx_outputs(content, images) + np.float32(3e-4),
    )
    out = tmp_path / "m.onnx"
    said = program("export", tiny_run, "-o", out, "--onnx")
    assert said.code == 6
    assert "answers otherwise" in said.err
    assert not out.exists()


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_library_is_named_with_its_remedy(
    library: str,
    tiny_run: Path,
    tmp_path: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    said = program("export", tiny_run, "-o", tmp_path / "m.onnx", "--onnx")
    assert said.code == 2
    assert f"--onnx needs {library}: pip install 'xray-classifier[onnx]'" in said.err


def test_an_ending_that_misleads_is_refused(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    said = program("export", tiny_run, "-o", tmp_path / "m.safetensors", "--onnx")
    assert (said.code, "name the file *.onnx" in said.err) == (2, True)
    said = program("export", tiny_run, "-o", tmp_path / "m.onnx", "--strip-memory")
    assert (said.code, "add --onnx" in said.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_model_beyond_the_format_is_refused(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xray_classifier.onnx_export.LARGEST_BYTES", 1000)
    with pytest.raises(UsageError, match="one ONNX file holds"):
        onnx_file(load_classifier(tiny_run, "cpu"))


# The example, which has the ONNX file alone.


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    """Run the example in this process; what it prints."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, words)])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLE))
        return capsys.readouterr().out

    return run


def eight_bit_films(folder: Path) -> list[Path]:
    """Phantoms in each kind of file that the example reads, wide, high and square."""
    folder.mkdir()
    grey = [
        np.asarray(draw_phantom(5, k, 64).pixels // 16, np.uint8)[: 64 - 7 * (k % 3), : 50 + 7 * k]
        for k in range(4)
    ]
    tint = np.stack([grey[1], 255 - grey[1] // 2, grey[1] // 3], axis=-1)
    turned = Image.Exif()
    turned[0x0112] = 6
    saved = {
        "grey.png": (Image.fromarray(grey[0]), {}),
        "grey.jpg": (Image.fromarray(grey[1]), {"quality": 90}),
        "rgb.jpg": (Image.fromarray(grey[2]).convert("RGB"), {}),
        "tint.jpg": (Image.fromarray(tint), {}),
        "tint.png": (Image.fromarray(tint), {}),
        "palette.png": (Image.fromarray(tint).quantize(64), {}),
        "turned.jpg": (Image.fromarray(grey[3]), {"exif": turned}),
        "turned.png": (Image.fromarray(grey[3]), {"exif": turned}),
        "small.png": (Image.fromarray(grey[0][30:43, 20:29]), {}),
    }
    for name, (picture, options) in saved.items():
        picture.save(folder / name, **options)
    return [folder / name for name in saved]


@pytest.mark.parametrize("crop", ["center", "pad", "stretch"])
@pytest.mark.parametrize("intensity", ["equalize", "minmax", "zscore", "dataset"])
def test_the_example_prepares_to_the_last_bit(
    crop: str, intensity: str, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(exported)])
    prepare = runpy.run_path(str(EXAMPLE))["prepare"]
    for path in eight_bit_films(tmp_path / "films"):
        expected = decode_file(path, 16, crop, intensity)
        given = prepare(str(path), 16, crop, intensity)
        assert (given.shape, given.dtype) == ((1, 1, 16, 16), np.float32)
        np.testing.assert_array_equal(given[0, 0], expected, err_msg=path.name)


def compare(
    example: Example, program: Program, model: Path, run: Path, films: list[Path]
) -> set[str]:
    """Hold the example against `predict`; the decisions that occurred."""
    table = model.parent / "table.csv"
    assert program("predict", run, *films, "-o", table, "--force").code == 0
    expected = rows_of(table)
    given = rows_in("path,p_sick,decision\n" + example(model, *films))
    assert [row["path"] for row in given] == [row["path"] for row in expected]
    for one, other in zip(given, expected, strict=True):
        assert abs(float(one["p_sick"]) - float(other["p_sick"])) <= 1e-5
        assert one["decision"] == other["decision"]
    return {row["decision"] for row in given}


def test_the_example_says_what_predict_says(
    tiny_run: Path, tmp_path: Path, program: Program, example: Example
) -> None:
    films = eight_bit_films(tmp_path / "films")
    classifier = load_classifier(tiny_run, "cpu")
    p_sick = np.sort(classifier.predict(films)["p_sick"])
    low, value, high = p_sick[2] - 1e-3, (p_sick[4] + p_sick[5]) / 2, p_sick[-3] - 1e-3
    band = {"target_error": 0.1, "share_referred": 0.4, "error": None, "met": True}
    path = variant(
        tiny_run,
        tmp_path / "banded.safetensors",
        threshold=classifier.content["threshold"] | {"value": value},
        refer={"low": low, "high": high, **band},
    )
    out = tmp_path / "banded.onnx"
    assert program("export", path, "-o", out, "--onnx").code == 0
    assert compare(example, program, out, path, films) == {"sick", "healthy", "refer"}


@real
def test_the_example_says_what_predict_says_of_real_films(
    exported: Path, tiny_run: Path, program: Program, example: Example
) -> None:
    films = [
        path
        for name in ("NORMAL", "PNEUMONIA")
        for path in sorted((REAL_FILMS / name).iterdir())[:150:10]
    ]
    assert compare(example, program, exported, tiny_run, films)


@real
def test_real_films_give_the_same_logits_at_full_size(tiny_run: Path, tmp_path: Path) -> None:
    paths = [
        p for name in ("NORMAL", "PNEUMONIA") for p in sorted((REAL_FILMS / name).iterdir())[:8]
    ]
    images = np.stack([decode_file(path, 224, "center", "equalize") for path in paths])
    wide = Architecture.from_keys("mlp", 224, [32, 16], "relu", 0.3, "none", False, "kaiming")
    path = of_architecture(tiny_run, tmp_path / "a.safetensors", wide)
    given = images[:, None].astype(np.float32)
    assert largest_difference(load_classifier(path, "cpu"), given) <= 1e-5


def test_a_regression_gives_numbers_in_their_unit(
    tiny_run: Path, tmp_path: Path, program: Program, example: Example
) -> None:
    target = {"mean": 57.5, "std": 12.25}
    path = variant(
        tiny_run, tmp_path / "age.safetensors", task="regress", target=target, refer=None
    )
    out, films = tmp_path / "age.onnx", eight_bit_films(tmp_path / "films")
    assert program("export", path, "-o", out, "--onnx").code == 0
    found = properties_of(out.read_bytes())
    assert found["target"] == target
    assert [found[key] for key in ("threshold", "calibration", "refer", "classes")] == [None] * 4
    expected = load_classifier(path, "cpu").predict(films)["prediction"].to_numpy()
    given = rows_in("path,number\n" + example(out, *films))
    numbers = np.array([float(row["number"]) for row in given])
    assert float(np.ptp(expected)) > 0.1
    np.testing.assert_allclose(numbers, expected, rtol=0, atol=12.25 * 1e-5)


def test_the_example_refuses_what_it_would_read_otherwise(
    exported: Path, tmp_path: Path, example: Example
) -> None:
    grey = Image.fromarray(film(1))
    clear = grey.convert("RGBA")
    clear.putalpha(grey)
    clear.save(tmp_path / "clear.png")
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200).save(
        tmp_path / "deep.png"
    )
    grey.save(tmp_path / "key.png", transparency=3)
    Image.new("L", (20, 20), 7).save(tmp_path / "blank.png")
    reasons = {"clear": "8-bit", "deep": "8-bit", "key": "transparent", "blank": "blank"}
    for name, reason in reasons.items():
        with pytest.raises(SystemExit, match=reason):
            example(exported, tmp_path / f"{name}.png")


def test_the_example_needs_three_libraries_alone() -> None:
    tree = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                     [alias.name for alias in node.names])
    }  # fmt: skip
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}
