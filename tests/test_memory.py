"""What a model remembers of its training images, from training to the tables of other verbs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load as load_arrays
from test_leaks import picture
from tiny_runs import (
    Program,
    class_folders,
    metadata_of,
    no_pictures,
    own_run,
    program,
    rows_of,
    tiny_run,
)

from xray_classifier.data.film import film_from_array
from xray_classifier.data.signature import SIGNATURE, Signatures, signature_of
from xray_classifier.memory import (
    IMAGES,
    PATIENTS,
    POSSIBLE_BITS,
    Memory,
    recalled,
    remembered,
    split_tensors,
)
from xray_classifier.pseudonyms import key_id, pseudonym

__all__ = ["no_pictures", "own_run", "program", "tiny_run"]

SMALL = (
    "data.image.size=16", "model.hidden=[8]", "train.epochs=2", "train.device=cpu",
    "train.threads=1", "data.workers=1",
)  # fmt: skip


def memory_of(signatures: Signatures, patients: list[str] | None) -> Memory:
    """What a model trained on all of these remembers."""
    return remembered(signatures, np.arange(len(signatures)), patients)


def signed(*seeds: int) -> Signatures:
    """Signatures of pictures."""
    return np.concatenate([signature_of(film_from_array(picture(seed))) for seed in seeds])


def test_same_pixels_are_yes_same_looks_possible_and_others_no() -> None:
    memory = memory_of(signed(1, 2), None)
    smaller = np.asarray(Image.fromarray(picture(1)).resize((64, 64)))
    asked = np.concatenate([signed(2), signature_of(film_from_array(smaller)), signed(3)])
    assert memory.images_seen(asked) == ("yes", "possible", "no")
    assert memory.images_seen(asked[:0]) == ()
    assert memory_of(signed(1)[:0], None).images_seen(asked) == ("no",) * 3


def test_possible_reaches_as_far_as_stated() -> None:
    known = signed(1)
    asked = np.repeat(known, 2)
    asked["pixels"] ^= 1
    bits = np.unpackbits(asked["perceptual"], axis=1)
    bits[0, :POSSIBLE_BITS] ^= 1
    bits[1, : POSSIBLE_BITS + 1] ^= 1
    asked["perceptual"] = np.packbits(bits, axis=1)
    assert memory_of(known, None).images_seen(asked) == ("possible", "no")


def test_tensors_hold_forty_bytes_an_image_and_lead_back_to_the_same_memory() -> None:
    signatures = signed(4, 1, 2, 1)
    memory = memory_of(signatures, ["p", "q", "p", "q"])
    tensors = memory.tensors()
    assert tuple(tensors[IMAGES].shape) == (3, 40)
    assert tuple(tensors[PATIENTS].shape) == (2, 16)
    other = recalled(tensors, {"memory": memory.content()})
    assert other is not None
    assert other.images_seen(signatures) == ("yes",) * 4
    assert other.patients_seen(["p", "r", "q"]).tolist() == [True, False, True]
    weights, rest = split_tensors({"w": tensors[IMAGES], **tensors})
    assert set(weights) == {"w"}
    assert set(rest) == {IMAGES, PATIENTS}


def test_the_order_of_training_images_is_not_kept() -> None:
    one, other = memory_of(signed(1, 2, 3), list("abc")), memory_of(signed(3, 1, 2), list("cab"))
    for name, tensor in one.tensors().items():
        assert tensor.equal(other.tensors()[name])


def test_patients_match_only_where_the_key_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = memory_of(signed(1), ["p"])
    assert memory.patients == {bytes.fromhex(pseudonym("p"))}
    assert memory.tells_patients
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert not memory.tells_patients
    assert memory.patients_seen(["p"]).tolist() == [False]
    assert memory.images_seen(signed(1)) == ("yes",)


def test_a_memory_of_another_shape_is_refused() -> None:
    tensors = memory_of(signed(1), ["p"]).tensors()
    with pytest.raises(ValueError, match="memory"):
        recalled({**tensors, IMAGES: tensors[IMAGES][:, :39]}, {"memory": {}})
    assert recalled({}, {"memory": None}) is None


def test_unknown_patients_are_not_kept() -> None:
    memory = memory_of(np.zeros(2, SIGNATURE), None)
    assert memory.content() == {"images": 2, "patients": 0, "key": None}
    assert not memory.tells_patients


def test_a_checkpoint_holds_hashes_of_its_training_images_and_patients(tiny_run: Path) -> None:
    path = tiny_run / "checkpoints" / "best.safetensors"
    arrays = load_arrays(path.read_bytes())
    train = [row for row in rows_of(tiny_run / "data" / "manifest.csv") if row["split"] == "train"]
    assert arrays[IMAGES].shape == (len(train), 40)
    patients = {bytes.fromhex(pseudonym(row["patient"])) for row in train}
    assert {bytes(row) for row in arrays[PATIENTS]} == patients
    content = metadata_of(path)["memory"]
    assert content == {"images": len(train), "patients": len(patients), "key": key_id()}
    raw = path.read_bytes()
    assert not any(row["patient"].encode() in raw for row in train)


@pytest.fixture
def trained(tmp_path: Path, program: Program, no_pictures: None) -> tuple[Path, Path]:
    """A run on forty films, and the folder of its films."""
    films = class_folders(tmp_path / "films", {"healthy": 24, "sick": 16})
    keys = (f"data.path={films}", "data.patient=null", *SMALL)
    labels = "data.labels={healthy: [healthy], sick: [sick]}"
    said = program("train", "-c", "mlp", "-o", tmp_path / "runs", "--json", labels, *keys)
    assert said.code == 0, said.err
    return Path(said.json["run_dir"]), films


def test_predict_tells_training_images(
    trained: tuple[Path, Path], tmp_path: Path, program: Program
) -> None:
    run, films = trained
    used = {row["path"]: row["split"] == "train" for row in rows_of(run / "data" / "manifest.csv")}
    new = class_folders(tmp_path / "new", {"a": 3}, first_seed=900)
    said = program("predict", run, films, new, "-o", tmp_path / "p.csv")
    assert said.code == 0
    rows = rows_of(tmp_path / "p.csv")
    for row in rows[:40]:
        expected = "yes" if used[str(Path(row["path"]).relative_to(films))] else "no"
        assert row["in_training"] == expected
    assert [row["in_training"] for row in rows[40:]] == ["no"] * 3
    n_train = sum(used.values())
    assert f"{n_train} of 43 images were in this model's training data" in said.out


def test_evaluate_gives_metrics_with_and_without_them(
    trained: tuple[Path, Path], tmp_path: Path, program: Program
) -> None:
    run, films = trained
    used = {row["path"]: row["split"] == "train" for row in rows_of(run / "data" / "manifest.csv")}
    said = program("evaluate", run, "--data", films, "-o", tmp_path / "e", "--json")
    assert said.code == 0, said.err
    content = json.loads((tmp_path / "e" / "metrics.json").read_text())
    seen = content["in_training"]
    n_train = sum(used.values())
    assert (seen["yes"], seen["possible"], seen["same_patient"]) == (n_train, 0, 0)
    assert seen["n_without"] == 40 - n_train
    rows = rows_of(tmp_path / "e" / "predictions.csv")
    left = [row for row in rows if row["in_training"] == "no"]
    assert len(left) == 40 - n_train
    right = [row["decision"] == row["label"] for row in left]
    assert seen["metrics_without"]["accuracy"]["value"] == pytest.approx(sum(right) / len(right))
    everyone = [row["decision"] == row["label"] for row in rows]
    assert content["metrics"]["accuracy"]["value"] == pytest.approx(sum(everyone) / 40)
    assert f"this model's training data: {n_train} of 40 images were in it" in said.err


def test_patients_of_the_training_data_are_told(
    tmp_path: Path, program: Program, no_pictures: None
) -> None:
    films = class_folders(tmp_path / "films", {"healthy": 24, "sick": 16})
    named = [
        [path.relative_to(tmp_path).as_posix(), path.parent.name, f"patient{number}"]
        for number, path in enumerate(sorted(films.rglob("*.png")))
    ]
    with (tmp_path / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient"], *named])
    said = program(
        "train", "-c", "mlp", "-o", tmp_path / "runs", "--json",
        f"data.path={tmp_path / 'films.csv'}", *SMALL,
        "data.labels={healthy: [healthy], sick: [sick]}",
    )  # fmt: skip
    assert said.code == 0, said.err
    run = Path(said.json["run_dir"])
    rows = rows_of(run / "data" / "manifest.csv")
    trained = {row["patient"] for row in rows if row["split"] == "train"}
    other = class_folders(tmp_path / "other", {"healthy": 6, "sick": 6}, first_seed=700)
    known = sorted(trained)[:4]
    names = [*known, *(f"stranger{k}" for k in range(8))]
    paths = sorted(other.rglob("*.png"))
    table = [
        [path.relative_to(tmp_path).as_posix(), path.parent.name, name]
        for path, name in zip(paths, names, strict=True)
    ]
    with (tmp_path / "other.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient"], *table])
    said = program("evaluate", run, "--data", tmp_path / "other.csv", "-o", tmp_path / "e")
    assert said.code == 0, said.err
    assert "this model's training data: 4 of 12 show its patients" in said.out


def test_a_stripped_copy_answers_the_same_and_remembers_nothing(
    trained: tuple[Path, Path], tmp_path: Path, program: Program
) -> None:
    run, films = trained
    shared = tmp_path / "shared.safetensors"
    said = program("export", run, "-o", shared, "--strip-memory", "--json")
    assert said.code == 0, said.err
    manifest = rows_of(run / "data" / "manifest.csv")
    n_train = sum(row["split"] == "train" for row in manifest)
    assert said.json["images_removed"] == n_train
    arrays = load_arrays(shared.read_bytes())
    assert not set(arrays) & {IMAGES, PATIENTS}
    assert metadata_of(shared)["memory"] is None
    program("predict", run, films, "-o", tmp_path / "a.csv")
    said = program("predict", shared, films, "-o", tmp_path / "b.csv")
    assert said.code == 0
    assert "training data" not in said.out
    one, other = rows_of(tmp_path / "a.csv"), rows_of(tmp_path / "b.csv")
    assert {row.pop("in_training") for row in other} == {""}
    for row in one:
        row.pop("in_training")
    assert one == other


def test_export_refuses_to_replace_and_to_do_nothing(
    own_run: Path, tmp_path: Path, program: Program
) -> None:
    target = tmp_path / "kept.safetensors"
    target.write_bytes(b"mine")
    said = program("export", own_run, "-o", target, "--strip-memory")
    assert said.code == 6
    assert target.read_bytes() == b"mine"
    assert program("export", own_run, "-o", target, "--strip-memory", "--force").code == 0
    said = program("export", own_run, "-o", tmp_path / "other.safetensors")
    assert said.code == 2
    assert "--strip-memory" in said.err
