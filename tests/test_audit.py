"""The audit before training: leaks stop it, labels and real sets that are known to leak."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import SHARED_DATA, Program, class_folders, film, program

from xray_classifier.config import DataConfig
from xray_classifier.config_file import data_section
from xray_classifier.data.audit import FEWEST_PATIENTS, Audit
from xray_classifier.data.audit_words import EXAMPLES, audit_json, audit_lines
from xray_classifier.data.loading import Radiographs, run_loading
from xray_classifier.errors import LeakError
from xray_classifier.terminal import Terminal

__all__ = ["program"]


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """Splits on disk in which one validation and one test film repeat a training film."""
    counts = {f"{s}/{c}": 6 for s in ("train", "val", "test") for c in ("healthy", "sick")}
    root = class_folders(tmp_path / "leaky", counts)
    original = root / "train" / "sick" / "film001.png"
    # another container, the same pixels
    Image.open(original).save(root / "val" / "sick" / "copied.tif")
    Image.open(original).save(root / "test" / "sick" / "copied.bmp")
    return root


def load(root: Path, tmp_path: Path, **keys: object) -> Radiographs:
    """Load a folder with the audit's settings as given."""
    return run_loading(section(root, tmp_path, **keys), "classify", Terminal(quiet=True))


def audit_of(found: Radiographs) -> Audit:
    """The audit of loaded images."""
    assert found.audit is not None
    return found.audit


def section(root: Path, tmp_path: Path, **keys: object) -> DataConfig:
    """A data section for 12 px."""
    stored = {"path": str(root), "cache": str(tmp_path / "cache"), "image": {"size": 12}, **keys}
    return data_section(stored)


def test_strict_names_the_leaked_images(leaky: Path, tmp_path: Path) -> None:
    with pytest.raises(LeakError) as caught:
        load(leaky, tmp_path, patient=None)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "1 picture in more than one split, exactly" in message
    assert "1 of 13 test images, 1 of 13 val images were seen in an earlier split" in message
    assert "val/sick/copied.tif" in message
    assert "test/sick/copied.bmp" in message
    assert "data.audit=warn" in message


def test_warn_leaves_the_later_images_out_and_keeps_training_whole(
    leaky: Path, tmp_path: Path
) -> None:
    found = load(leaky, tmp_path, patient=None, audit="warn")
    placed = dict(zip(found.manifest.ids, found.manifest.splits, strict=True))
    assert placed["val/sick/copied.tif"] == placed["test/sick/copied.bmp"] == ""
    assert placed["train/sick/film001.png"] == "train"
    assert [len(found.rows(s)) for s in ("train", "val", "test")] == [12, 12, 12]
    left = [i for i, r in zip(found.manifest.ids, found.reasons, strict=True) if r == "leak"]
    assert sorted(left) == ["test/sick/copied.bmp", "val/sick/copied.tif"]
    assert any("left out" in warning for warning in found.warnings)


def test_off_looks_for_nothing_and_says_so(leaky: Path, tmp_path: Path) -> None:
    found = load(leaky, tmp_path, patient=None, audit="off")
    assert len(found.rows("val")) == 13
    assert any("data.audit is off" in warning for warning in found.warnings)


def test_training_on_a_leaky_split_ends_with_code_3(
    leaky: Path, tmp_path: Path, program: Program
) -> None:
    config = tmp_path / "leaky.yaml"
    config.write_text("data: {path: leaky, patient: null, image: {size: 12}, cache: cache}\n")
    said = program("train", "-c", config, "-o", tmp_path / "runs")
    assert said.code == 3
    assert "copied.tif" in said.err
    assert not (tmp_path / "runs").exists()


def test_a_carved_split_never_parts_one_picture(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "flat", {"healthy": 20, "sick": 20})
    for number in range(8):
        Image.fromarray(film(number)).save(root / "healthy" / f"again{number}.bmp")
    found = load(root, tmp_path, patient=None)
    audit = audit_of(found)
    assert len(audit.leaks.exact_inside) == 8
    assert not audit.leaks.across


def test_one_picture_under_two_labels_is_told(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "flat", {"healthy": 12, "sick": 12})
    Image.fromarray(film(3)).save(root / "sick" / "contradiction.bmp")
    found = load(root, tmp_path, patient=None)
    assert any(
        "two labels" in w and "contradiction.bmp" in w and "film003.png" in w
        for w in found.warnings
    )


def real(name: str) -> Path:
    """A real set, or a skip."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"the real set {name} is not on this machine")
    return path


def test_nih1000_shares_15_patients_and_76_of_its_validation_images(tmp_path: Path) -> None:
    labels = {"healthy": ["0_normal"], "sick": ["1_abnormal"]}
    keys = {"labels": labels, "split": {"test": None}}
    with pytest.raises(LeakError, match=r"(?s)15 patients.*76 of 200 val images"):
        load(real("nih1000"), tmp_path, **keys)
    found = load(real("nih1000"), tmp_path, **keys, audit="warn")
    assert len(found.rows("val")) == 124
    assert len(found.rows("train")) == 600


def test_pneumoniamnist_repeats_8_training_pictures_in_validation(tmp_path: Path) -> None:
    path = real("pneumoniamnist/pneumoniamnist_trainval.npz")
    keys = {
        "labels": {"healthy": ["0"], "sick": ["1"]},
        "image": {"size": 28, "intensity": "dataset"},
        "split": {"test": None},
    }
    with pytest.raises(LeakError, match="8 of 524 val images"):
        load(path, tmp_path, **keys)
    found = load(path, tmp_path, **keys, audit="warn")
    with np.load(path) as arrays:
        train = {image.tobytes() for image in arrays["train_images"]}
        repeated = [i for i, im in enumerate(arrays["val_images"]) if im.tobytes() in train]
    left = [i for i, r in zip(found.manifest.ids, found.reasons, strict=True) if r == "leak"]
    assert sorted(left) == sorted(f"val_images/{i}" for i in repeated)
    assert len(left) == 8


def test_leaky_split_holds_12_exact_groups_across_its_splits(tmp_path: Path) -> None:
    labels = {"healthy": ["NORMAL"], "sick": ["PNEUMONIA"]}
    found = load(real("leaky_split"), tmp_path, labels=labels, audit="warn")
    leaks = audit_of(found).leaks
    assert len(leaks.exact) == 12
    files = [found.manifest.files[row] for group in leaks.exact for row in group.rows]
    for group in leaks.exact:
        pixels = {Image.open(found.manifest.files[row]).tobytes() for row in group.rows}
        assert len(pixels) == 1
        assert len({found.manifest.splits[row] for row in group.rows}) <= 3
    assert len(files) == 26
    assert len(leaks.patients) == 26
    left = [row for row, reason in enumerate(found.reasons) if reason == "leak"]
    assert left == list(leaks.later)


def test_the_numbers_of_the_audit_are_those_of_its_groups(leaky: Path, tmp_path: Path) -> None:
    found = load(leaky, tmp_path, patient=None, audit="warn")
    content = audit_json(audit_of(found), found.manifest)
    assert content["leaks"]["exact"]["groups_across_splits"] == 1
    assert content["leaks"]["near"]["images_across_splits"] == 3
    assert content["leaks"]["patients"]["shared_across_splits"] == 0
    (group,) = content["leaks"]["exact"]["examples"]
    assert group["images"] == [
        {"path": "test/sick/copied.bmp", "split": "test"},
        {"path": "train/sick/film001.png", "split": "train"},
        {"path": "val/sick/copied.tif", "split": "val"},
    ]


def test_at_most_twenty_examples_are_listed(tmp_path: Path) -> None:
    counts = {f"{s}/{c}": 15 for s in ("train", "test") for c in ("healthy", "sick")}
    root = class_folders(tmp_path / "many", counts)
    for path in sorted((root / "train").rglob("*.png")):
        copy = root / "test" / path.parent.name / f"copy_{path.stem}.bmp"
        Image.open(path).save(copy)
    keys = {"patient": None, "split": {"val": None}}
    with pytest.raises(LeakError, match="30 of 60 test images"):  # not: too few to carve from
        load(root, tmp_path, **{**keys, "split": {}})
    found = load(root, tmp_path, **keys, audit="warn")
    assert len(found.rows("test")) == 30
    content = audit_json(audit_of(found), found.manifest)
    assert content["leaks"]["exact"]["groups_across_splits"] == 30
    assert len(content["leaks"]["exact"]["examples"]) == EXAMPLES == 20


def test_lacking_classes_and_few_patients_are_told(tmp_path: Path) -> None:
    counts = {"train/healthy": 24, "train/sick": 22, "val/healthy": 4, "test/sick": 3}
    root = class_folders(tmp_path / "odd", counts)
    found = load(root, tmp_path, patient=None, audit="warn")
    audit = audit_of(found)
    assert [(c.split, c.name) for c in audit.lacking] == [("val", "sick"), ("test", "healthy")]
    assert [(c.split, c.name, c.patients) for c in audit.few] == [
        ("val", "healthy", 4),
        ("test", "sick", 3),
    ]
    said = "\n".join(audit_lines(audit, found.manifest))
    assert "the val images hold no sick one" in said
    assert (
        f"only 3 sick images (patients are unknown) in test, fewer than {FEWEST_PATIENTS}" in said
    )


def test_near_copies_under_two_labels_are_told(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "flat", {"healthy": 12, "sick": 12})
    Image.fromarray(film(3)).resize((60, 60)).save(root / "sick" / "larger.png")
    found = load(root, tmp_path, patient=None)
    assert audit_of(found).contradictions == ()
    (rows,) = audit_of(found).near_contradictions
    assert {found.manifest.ids[row] for row in rows} == {"healthy/film003.png", "sick/larger.png"}
    assert any("near copies under two labels" in warning for warning in found.warnings)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "flat", {"train/healthy": 12, "train/sick": 12})
    (root / "val" / "sick").mkdir(parents=True)
    Image.fromarray(film(3)).save(root / "val" / "sick" / "a\x1b[31m\nb.png")
    found = load(root, tmp_path, patient=None, audit="warn")
    said = "\n".join(audit_lines(audit_of(found), found.manifest))
    assert "\x1b" not in said
    assert "a\\x1b[31m\\nb.png" in said


def test_numbers_to_predict_get_no_probes(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "films", {"all": 30})
    names = sorted(path.name for path in (root / "all").iterdir())
    lines = [f"all/{name},{number}" for number, name in enumerate(names)]
    (root / "table.csv").write_text("\n".join(["path,label", *lines]))
    data: dict[str, Any] = {"path": str(root / "table.csv"), "patient": None}
    section_ = data_section({**data, "cache": str(tmp_path / "c"), "image": {"size": 12}})
    audit = audit_of(run_loading(section_, "regress", Terminal(quiet=True)))
    assert audit.shortcuts == ()
    assert "predict a number" in audit.no_shortcuts


def test_warn_follows_a_chain_of_copies_and_patients(tmp_path: Path) -> None:
    """Patient 7 (test) owns a copy of a training film; so all films of patient 7 are known."""
    root = tmp_path / "chain"
    for split in ("train", "test"):
        for number in range(16):
            kind = "sick" if number % 2 else "healthy"
            key = number + (100 if split == "test" else 0)
            path = root / split / kind / f"p{key:04d}_phantom-{key:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(film(key)).save(path)
    sick = root / "test" / "sick"
    copied = Image.open(root / "train" / "sick" / "p0003_phantom-000003.png")
    copied.save(sick / "p0107_phantom-000900.bmp")
    found = load(root, tmp_path, audit="warn", split={"val": None})
    left = {found.manifest.ids[row] for row in audit_of(found).leaks.later}
    assert left == {
        "test/sick/p0107_phantom-000107.png", "test/sick/p0107_phantom-000900.bmp"
    }  # fmt: skip
    placed = dict(zip(found.manifest.patients, found.manifest.splits, strict=True))
    assert placed["p0003"] == "train"
    assert placed["p0107"] == ""
