"""Finding labelled images in folders, and what their class names mean."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_classifier.data.labels import guess_roles, labels_override
from xray_classifier.data.manifest import Manifest, build_manifest, source_of
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.data.sources import is_image_name
from xray_classifier.data.tree import list_tree
from xray_classifier.errors import DataError, UsageError
from xray_classifier.strict_yaml import parse_value

SHARED = (Path(__file__).resolve().parents[1] / ".." / "shared" / "data").resolve()
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX file names and links")


def build(path: Path | None, **changes: Any) -> Manifest:
    settings: dict[str, Any] = {
        "source": "auto",
        "path": path,
        "task": "classify",
        "healthy": ("NORMAL",),
        "sick": ("PNEUMONIA",),
        "ignore": (),
        "path_column": "path",
        "label_column": "label",
        "patient_column": None,
        "split_column": None,
        "patient": None,
        "phantom_images": 32,
        "phantom_seed": 0,
    }
    return build_manifest(**(settings | changes))


def put(root: Path, *names: str) -> Path:
    """Make empty files; their content is never looked at here."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_class_folders_become_rows_with_targets(tmp_path: Path) -> None:
    manifest = build(put(tmp_path, "PNEUMONIA/b.png", "NORMAL/sub/deep/a.JPG", "NORMAL/z.dcm"))
    assert manifest.kind == "files"
    assert manifest.ids == ("NORMAL/sub/deep/a.JPG", "NORMAL/z.dcm", "PNEUMONIA/b.png")
    assert manifest.targets.tolist() == [0.0, 0.0, 1.0]
    assert manifest.targets.dtype == np.float64
    assert manifest.classes == ("NORMAL", "NORMAL", "PNEUMONIA")
    assert manifest.splits == ("", "", "")
    assert manifest.root == Path(os.path.realpath(tmp_path))
    assert [path.is_file() and path.is_absolute() for path in manifest.files] == [True] * 3
    assert manifest.patients == manifest.ids
    assert not manifest.patients_known
    assert len(manifest) == 3


def test_healthy_and_sick_do_not_depend_on_the_alphabet(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    manifest = build(tmp_path, healthy=("b",), sick=("c", "a"))
    assert manifest.targets.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("word", ["val", "valid", "VALIDATION", "Val"])
def test_split_folders_above_the_classes(tmp_path: Path, word: str) -> None:
    put(tmp_path, "train/NORMAL/a.png", "train/PNEUMONIA/b.png", "Test/PNEUMONIA/c.png")
    put(tmp_path, f"{word}/NORMAL/d.png", f"{word}/PNEUMONIA/e.png", "Test/NORMAL/f.png")
    found = build(tmp_path)
    splits = {Path(name).stem: split for name, split in zip(found.ids, found.splits, strict=True)}
    assert splits == {"a": "train", "b": "train", "c": "test", "d": "val", "e": "val", "f": "test"}


def test_val_and_valid_are_one_split_and_a_note_says_so(tmp_path: Path) -> None:
    put(tmp_path, "val/NORMAL/a.png", "valid/PNEUMONIA/b.png")
    found = build(tmp_path)
    assert found.splits == ("val", "val")
    assert "the folders val, valid are read as one split" in found.notes


def test_rows_stand_in_bytewise_order(tmp_path: Path) -> None:
    names = ["NORMAL/é.png", "NORMAL/Z.png", "NORMAL/a-b.png", "NORMAL/a/b.png", "PNEUMONIA/1.png"]
    found = build(put(tmp_path, *names))
    assert list(found.ids) == sorted(names, key=lambda name: name.encode())


def test_hidden_files_are_counted_and_no_rows(tmp_path: Path) -> None:
    put(tmp_path, "NORMAL/a.png", "PNEUMONIA/b.png", ".DS_Store", "NORMAL/.DS_Store")
    put(tmp_path, ".ipynb_checkpoints/x.png", "__MACOSX/NORMAL/._a.png", "NORMAL/Thumbs.db")
    found = build(put(tmp_path, "NORMAL/desktop.ini", "PNEUMONIA/.ipynb_checkpoints/y.png"))
    assert found.ids == ("NORMAL/a.png", "PNEUMONIA/b.png")
    assert found.notes[0] == (
        "hidden files or folders ignored: 7 "
        "(.DS_Store: 2, .ipynb_checkpoints: 2, Thumbs.db: 1, __MACOSX: 1, desktop.ini: 1)"
    )


def test_other_files_are_counted_and_no_rows(tmp_path: Path) -> None:
    put(tmp_path, "NORMAL/a.png", "PNEUMONIA/b.png", "labels.csv", "NORMAL/x.txt", "NORMAL/y.TXT")
    found = build(put(tmp_path, "stray.png"))
    assert len(found) == 2
    assert "files ignored that are no images: 3 (.txt: 2, .csv: 1)" in found.notes
    assert "images ignored outside any class folder: 1" in found.notes


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("a.png", True),
        ("A.JPEG", True),
        ("IM0001", True),
        ("1.2.840.10008.7", True),
        ("a.dcm", True),
        ("a.txt", False),
        ("a.npz", False),
        ("a.png.md5", False),
    ],
)
def test_what_may_be_an_image(name: str, may: bool) -> None:
    assert is_image_name(name) is may


def test_unknown_classes_stop_and_the_override_is_ready_to_paste(tmp_path: Path) -> None:
    put(tmp_path, "0_normal/a.png", "0_normal/b.png", "1_abnormal/c.png")
    with pytest.raises(DataError) as stopped:
        build(tmp_path)
    said = str(stopped.value)
    assert "found: 0_normal (n=2), 1_abnormal (n=1)" in said
    assert "in data.labels but not found: NORMAL, PNEUMONIA" in said
    key, _, value = shlex.split(said.rpartition("for example: ")[2])[0].partition("=")
    assert key == "data.labels"
    labels = parse_value(value)
    assert labels == {"healthy": ["0_normal"], "sick": ["1_abnormal"]}
    assert build(tmp_path, **labels).targets.tolist() == [0.0, 0.0, 1.0]


def test_letter_case_counts_and_is_pointed_out(tmp_path: Path) -> None:
    put(tmp_path, "Normal/a.png", "PNEUMONIA/b.png")
    with pytest.raises(DataError, match=r"NORMAL: did you mean Normal\? Letter case counts"):
        build(tmp_path)


def test_each_configured_name_must_be_found(tmp_path: Path) -> None:
    put(tmp_path, "NORMAL/a.png", "PNEUMONIA/b.png", "COVID/readme.txt")
    with pytest.raises(DataError, match=r"in data\.labels but not found: COVID"):
        build(tmp_path, sick=("PNEUMONIA", "COVID"))


def test_classes_are_left_out_only_on_purpose(tmp_path: Path) -> None:
    put(tmp_path, "NORMAL/a.png", "OTHER/c.png", "PNEUMONIA/b.png")
    with pytest.raises(DataError, match=r"found but not in data\.labels: OTHER"):
        build(tmp_path)
    found = build(tmp_path, ignore=("OTHER", "ABSENT"))
    assert found.ids == ("NORMAL/a.png", "PNEUMONIA/b.png")
    assert "left out on purpose: OTHER (n=1)" in found.notes


def test_images_without_class_folders_are_explained(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "train/b.png")
    with pytest.raises(DataError, match=r"images found: 2, .*none in a class folder.*expected"):
        build(tmp_path)


def test_an_empty_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images found; expected class folders"):
        build(tmp_path)
    put(tmp_path, "NORMAL/.DS_Store", "NORMAL/a.txt")
    with pytest.raises(DataError, match=r"no images found; hidden files.*no images: 1 \(.txt: 1"):
        build(tmp_path)


def test_a_folder_too_high_is_pointed_out(tmp_path: Path) -> None:
    put(tmp_path, "chest_xray/train/NORMAL/a.png", "chest_xray/test/PNEUMONIA/b.png")
    with pytest.raises(DataError, match=r"below the folder chest_xray: is data\.path one short\?"):
        build(tmp_path)


def test_split_folders_below_classes_are_not_taken_silently(tmp_path: Path) -> None:
    put(tmp_path, "NORMAL/train/a.png", "NORMAL/test/b.png", "PNEUMONIA/c.png")
    found = build(tmp_path)
    assert found.splits == ("", "", "")
    assert any("below another folder: 2" in note for note in found.notes)


def test_a_missing_path_suggests_its_neighbours(tmp_path: Path) -> None:
    put(tmp_path, "kermany224/NORMAL/a.png")
    with pytest.raises(UsageError, match=r"kermany22 does not exist; did you mean .*kermany224\?"):
        build(tmp_path / "kermany22")
    with pytest.raises(UsageError, match="nor does the folder"):
        build(tmp_path / "nowhere" / "x")
    with pytest.raises(UsageError, match="does not exist"):
        build(tmp_path / ("x" * 300))
    with pytest.raises(UsageError, match=r"data\.path is missing"):
        build(None)


def test_the_source_is_told_by_looking(tmp_path: Path) -> None:
    put(tmp_path, "a.CSV", "b.tsv", "c.npz", "d.png", "table.txt")
    (tmp_path / "unnamed.bin").write_bytes(b"PK\x03\x04....")
    assert source_of(tmp_path) == "folder"
    assert source_of(tmp_path / "a.CSV") == source_of(tmp_path / "b.tsv") == "csv"
    assert source_of(tmp_path / "table.txt") == "csv"
    assert source_of(tmp_path / "c.npz") == source_of(tmp_path / "unnamed.bin") == "npz"
    with pytest.raises(UsageError, match=r"d\.png is one image"):
        source_of(tmp_path / "d.png")


def test_a_source_that_the_path_is_not(tmp_path: Path) -> None:
    put(tmp_path, "a.csv")
    with pytest.raises(UsageError, match=r"source is folder, but .*a\.csv is a file"):
        build(tmp_path / "a.csv", source="folder")
    with pytest.raises(UsageError, match=r"source is npz, but .* is a folder"):
        build(tmp_path, source="npz")


def test_numbers_come_from_a_csv_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes its numbers from a column"):
        build(put(tmp_path, "NORMAL/a.png"), task="regress")


@POSIX
def test_links_are_followed_only_to_files_inside(tmp_path: Path) -> None:
    root = put(tmp_path / "data", "NORMAL/a.png", "PNEUMONIA/b.png", ".store/real.png")
    put(tmp_path, "secret/s.png", "secret.png")
    (root / "NORMAL" / "kept.png").symlink_to(root / ".store" / "real.png")
    (root / "NORMAL" / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "NORMAL" / "broken.png").symlink_to(tmp_path / "gone.png")
    (root / "NORMAL" / "self.png").symlink_to(root / "NORMAL" / "self.png")
    (root / "NORMAL" / "long.png").symlink_to("x" * 300)
    (root / "PNEUMONIA" / "loop").symlink_to(root)
    (root / "STOLEN").symlink_to(tmp_path / "secret")
    found = build(root)
    assert found.ids == ("NORMAL/a.png", "NORMAL/kept.png", "PNEUMONIA/b.png")
    assert "links ignored that lead nowhere or out of the folder: 4" in found.notes
    assert "links to folders not followed: 2" in found.notes


@POSIX
def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "data", "NORMAL/a.png", "PNEUMONIA/b.png")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert build(tmp_path / "link").files == build(tmp_path / "data").files


@POSIX
def test_pipes_are_never_opened(tmp_path: Path) -> None:
    put(tmp_path, "NORMAL/a.png", "PNEUMONIA/b.png")
    os.mkfifo(tmp_path / "NORMAL" / "pipe.png")
    found = build(tmp_path)
    assert len(found) == 2
    assert "pipes, sockets or devices ignored: 1" in found.notes


@POSIX
def test_hostile_names_are_rows_like_any_other(tmp_path: Path) -> None:
    names = [b"a\nb.png", b"\x1b[31m.png", b"=HYPERLINK(.png", b"-rf.png", b"\xff\xfe.png"]
    names.append(b"x" * 251 + b".png")
    put(tmp_path, "NORMAL/ok.png", "PNEUMONIA/ok.png")
    for name in names:
        try:
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/NORMAL/" + name)).touch()
        except OSError:
            pytest.skip("this file system refuses such names")
    found = build(tmp_path)
    kept = {os.fsencode(name).removeprefix(b"NORMAL/") for name in found.ids}
    assert kept >= set(names)
    assert all(path.is_file() for path in found.files)


@POSIX
def test_hostile_class_names_are_shown_inert(tmp_path: Path) -> None:
    put(tmp_path, "NOR\x1b[31mMAL\n/ok.png")
    with pytest.raises(DataError) as stopped:
        build(tmp_path)
    assert "\x1b" not in str(stopped.value)
    assert "NOR\\x1b[31mMAL\\n (n=1)" in str(stopped.value)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot list .*gone: "):
        list_tree(tmp_path / "gone")


def test_select_and_with_splits_keep_columns_together(tmp_path: Path) -> None:
    whole = build(put(tmp_path, "NORMAL/a.png", "NORMAL/b.png", "PNEUMONIA/c.png"))
    part = whole.with_splits(["train", "val", "test"]).select([2, 0])
    assert part.ids == ("PNEUMONIA/c.png", "NORMAL/a.png")
    assert part.targets.tolist() == [1.0, 0.0]
    assert part.splits == ("test", "train")
    assert [path.name for path in part.files] == ["c.png", "a.png"]
    assert whole.splits == ("", "", "")
    assert whole.select(np.array([False, True, False])).ids == ("NORMAL/b.png",)
    assert len(whole.select([])) == 0
    with pytest.raises(ValueError, match="splits"):
        whole.with_splits(["train"])
    with pytest.raises(ValueError, match="not unique"):
        whole.select([1, 1])


def test_guessed_roles_are_sensible() -> None:
    healthy, sick = guess_roles(["1_abnormal", "0_normal", "COVID", "No Finding", "NORMAL", "0"])
    assert healthy == ("0", "0_normal", "NORMAL", "No Finding")
    assert sick == ("1_abnormal", "COVID")
    assert guess_roles(["Healthy", "unhealthy"]) == (("Healthy",), ("unhealthy",))


@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_an_override_reads_back_as_the_same_names(name: str) -> None:
    text = labels_override(["NORMAL"], [name], ["no"])
    (word,) = shlex.split(text)
    read = parse_value(word.removeprefix("data.labels="))
    assert [str(item) for item in read["sick"]] == [name]
    assert read["ignore"] == ["no"]


def test_phantoms_need_no_path() -> None:
    found = build(None, source="phantoms", healthy=("healthy",), sick=("sick",))
    assert found.kind == "phantoms"
    assert found.root is None
    assert len(found) == len(set(found.ids)) == 32
    assert set(found.targets.tolist()) == {0.0, 1.0}
    assert found.patients_known
    assert found.select([5, 3]).phantom_rows == (5, 3)
    drawn = [draw_phantom(0, row, size_px=32) for row in found.phantom_rows[:4]]
    assert [float(film.label) for film in drawn] == found.targets[:4].tolist()


def test_kermany_is_found_whole() -> None:
    root = SHARED / "kermany224"
    if not root.exists():
        pytest.skip("needs ../shared/data/kermany224")
    found = build(root, patient="auto")
    assert len(found) == 5216
    assert int(found.targets.sum()) == 3875
    assert found.patients_known
    assert "names as in Kermany" in found.notes[0]


def test_nih1000_brings_its_splits_and_its_leak() -> None:
    root = SHARED / "nih1000"
    if not root.exists():
        pytest.skip("needs ../shared/data/nih1000")
    found = build(root, healthy=("0_normal",), sick=("1_abnormal",), patient="auto")
    assert (found.splits.count("train"), found.splits.count("val")) == (600, 200)
    pairs = set(zip(found.patients, found.splits, strict=True))
    assert len(pairs) - len({patient for patient, _ in pairs}) == 15
