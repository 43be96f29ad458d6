"""Labelled images from a CSV file."""

import sys
from pathlib import Path
from typing import Any

import pytest

from xray_classifier.data.manifest import Manifest, build_manifest
from xray_classifier.data.table import read_table
from xray_classifier.errors import DataError

SHARED = (Path(__file__).resolve().parents[1] / ".." / "shared" / "data").resolve()
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs links")


def build(path: Path, **changes: Any) -> Manifest:
    settings: dict[str, Any] = {
        "source": "auto",
        "path": path,
        "task": "classify",
        "healthy": ("0",),
        "sick": ("1",),
        "ignore": (),
        "path_column": "path",
        "label_column": "label",
        "patient_column": None,
        "split_column": None,
        "patient": None,
        "phantom_images": 16,
        "phantom_seed": 0,
    }
    return build_manifest(**(settings | changes))


def table(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    """A CSV beside the images a.png, b.png and sub/c.png."""
    (folder / "sub").mkdir(exist_ok=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        (folder / name).touch()
    path = folder / "list.csv"
    path.write_bytes(text.encode(encoding))
    return path


PLAIN = "path,label,age\nsub/c.png,1,61\na.png,0,7\nb.png,1,\n"


def test_rows_keep_the_order_of_the_file_and_other_columns(tmp_path: Path) -> None:
    found = build(table(tmp_path, PLAIN))
    assert found.kind == "files"
    assert found.ids == ("sub/c.png", "a.png", "b.png")
    assert found.targets.tolist() == [1.0, 0.0, 1.0]
    assert found.columns == {"age": ("61", "7", "")}
    assert [path.name for path in found.files] == ["c.png", "a.png", "b.png"]
    assert found.select([1]).columns == {"age": ("7",)}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (PLAIN.replace(",", ";"), "utf-8"),
        (PLAIN.replace(",", "\t"), "utf-8"),
        (PLAIN, "utf-8-sig"),
        (PLAIN.replace("\n", "\r\n"), "utf-8"),
        (PLAIN.replace(",", " , "), "utf-8"),
        (PLAIN.replace("\n", "\n\n") + ",,\n", "utf-8"),
        (PLAIN.replace("a.png", '"a.png"'), "utf-8"),
    ],
)
def test_dialects_read_the_same(tmp_path: Path, text: str, encoding: str) -> None:
    found = build(table(tmp_path, text, encoding=encoding))
    assert found.ids == ("sub/c.png", "a.png", "b.png")
    assert found.columns == {"age": ("61", "7", "")}


def test_words_that_pandas_takes_for_missing_stay_text(tmp_path: Path) -> None:
    found = build(table(tmp_path, "path,label\na.png,NA\nb.png,1\n"), healthy=("NA",))
    assert found.classes == ("NA", "1")


def test_a_missing_column_lists_the_columns(tmp_path: Path) -> None:
    path = table(tmp_path, "Path,label\na.png,0\n")
    with pytest.raises(DataError, match=r"data\.columns\.path: no column 'path'.*Path, label"):
        build(path)
    with pytest.raises(DataError, match=r"columns\.label: no column 'labl'; did you mean label\?"):
        build(path, path_column="Path", label_column="labl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("path,label\n", "has a header but no rows"),
        ("path,label\na.png,0\nb.png,1,extra\n", r"list\.csv:3: 3 cells, but the header has 2"),
        ("path,label\na.png\n", r"list\.csv:2: 1 cells, but the header has 2"),
        ("path,label,label\na.png,0,1\n", "'?label'? stands twice"),
        ('path,label\n"a.png,0\n', r"list\.csv:2: unexpected end of data"),
    ],
)
def test_tables_that_are_no_tables(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_table(table(tmp_path, text))


def test_another_encoding_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no UTF-8 text; save it as"):
        build(table(tmp_path, PLAIN, encoding="utf-16"))


def test_missing_files_are_named_with_their_lines(tmp_path: Path) -> None:
    rows = "".join(f"no{n}.png,0\n" for n in range(12))
    path = table(tmp_path, "path,label,note\na.png,0,\n\n" + rows.replace("0\n", "0,\n"))
    with pytest.raises(DataError) as stopped:
        build(path)
    said = str(stopped.value)
    assert "12 of 13 files do not exist" in said
    assert "line 4 no0.png" in said
    assert "line 13 no9.png and 2 more" in said


def test_lines_count_breaks_inside_quotes(tmp_path: Path) -> None:
    text = 'path,label,note\na.png,0,"two\nlines"\ngone.png,1,\n'
    with pytest.raises(DataError, match=r"line 4 gone\.png"):
        build(table(tmp_path, text))


@pytest.mark.parametrize("cell", ["", ".", "sub", "sub/", "b\0.png", "y" * 300, "a.png/b.png"])
def test_cells_that_are_no_file(tmp_path: Path, cell: str) -> None:
    with pytest.raises(DataError, match="1 of 2 files do not exist"):
        build(table(tmp_path, f'path,label\na.png,0\n"{cell}",1\n'))


def test_backslashes_are_pointed_out(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("a backslash separates folders here")
    with pytest.raises(DataError, match="write / between folders"):
        build(table(tmp_path, "path,label\nsub\\c.png,0\n"))


@pytest.mark.parametrize("cell", ["../secret.png", "sub/../../secret.png", "..", "sub/../..", "/"])
def test_nothing_outside_the_folder_is_read(tmp_path: Path, cell: str) -> None:
    (tmp_path / "secret.png").touch()
    inside = tmp_path / "data"
    inside.mkdir()
    with pytest.raises(DataError, match=r"1 paths lead out of the folder .*: line 3 "):
        build(table(inside, f"path,label\na.png,0\n{cell},1\n"))


def test_a_folder_beside_with_a_longer_name_is_outside(tmp_path: Path) -> None:
    (tmp_path / "data2").mkdir()
    (tmp_path / "data2" / "x.png").touch()
    inside = tmp_path / "data"
    inside.mkdir()
    with pytest.raises(DataError, match="lead out of the folder"):
        build(table(inside, f"path,label\n{tmp_path / 'data2' / 'x.png'},0\n"))


@POSIX
def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "s.png").touch()
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "dir").symlink_to(tmp_path / "secret")
    (inside / "file.png").symlink_to(tmp_path / "secret" / "s.png")
    (tmp_path / "secret" / "back.png").symlink_to(inside / "a.png")
    for cell in ("dir/s.png", "file.png", "dir/back.png", "../secret/back.png"):
        with pytest.raises(DataError, match="lead out of the folder"):
            build(table(inside, f"path,label\n{cell},0\n"))


def test_absolute_paths_inside_the_folder_are_fine(tmp_path: Path) -> None:
    text = f"path,label\n{tmp_path / 'a.png'},0\nsub/../b.png,1\n"
    assert build(table(tmp_path, text)).ids == ("a.png", "b.png")


@pytest.mark.parametrize(("label", "said"), [("0", "same label"), ("1", "other label")])
def test_an_image_counts_once(tmp_path: Path, label: str, said: str) -> None:
    text = f"path,label\na.png,0\nb.png,1\nsub/../a.png,{label}\n"
    with pytest.raises(DataError, match=rf"a\.png \(lines 2 and 4, {said}\)"):
        build(table(tmp_path, text))


def test_a_split_column_is_read_by_name_or_when_called_split(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,split,fold\na.png,0,Training,x\nb.png,1,valid,test\n")
    assert build(path).splits == ("train", "val")
    assert build(path).columns == {"fold": ("x", "test")}
    with pytest.raises(DataError, match=r"1 cells name no split: line 2 'x'; write one of train"):
        build(path, split_column="fold")


def test_an_empty_split_is_not_assigned(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,split\na.png,0,\nb.png,1,test\n")
    assert build(path).splits == ("", "test")


def test_patients_from_a_column(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,pid\na.png,0,7\nb.png,1,7\nsub/c.png,1,\n")
    found = build(path, patient_column="pid", patient="auto")
    assert found.patients == ("7", "7", "sub/c.png")
    assert found.patients_known
    assert found.notes == ("1 images name no patient and count as a patient each",)


def test_a_likely_patient_column_is_pointed_out(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,Patient_ID\na.png,0,7\nb.png,1,7\n")
    assert any("data.columns.patient=Patient_ID uses it" in note for note in build(path).notes)


def test_unknown_labels_show_the_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found: \(empty\) \(n=1\), 0 \(n=1\)"):
        build(table(tmp_path, "path,label\na.png,0\nb.png,\n"))


def test_numbers_to_predict(tmp_path: Path) -> None:
    path = table(tmp_path, "path,age,label\na.png,61.5,x\nb.png,-1e2,y\n")
    found = build(path, task="regress", label_column="age")
    assert found.targets.tolist() == [61.5, -100.0]
    assert found.classes == ("", "")
    assert found.columns == {"label": ("x", "y")}


@pytest.mark.parametrize("cell", ["", "nan", "inf", "7 years", "1_000", '"3,5"'])
def test_numbers_must_be_finite(tmp_path: Path, cell: str) -> None:
    path = table(tmp_path, f"path,age\na.png,1\nb.png,{cell}\n")
    with pytest.raises(DataError, match=r"'age': 1 of 2 cells are no finite number: line 3"):
        build(path, task="regress", label_column="age")


def test_the_real_table_agrees_with_the_folders() -> None:
    path = SHARED / "kermany_fullres" / "metadata.csv"
    if not path.exists():
        pytest.skip("needs ../shared/data/kermany_fullres")
    labels = {"healthy": ("NORMAL",), "sick": ("PNEUMONIA",)}
    by_table = build(path, **labels)
    by_folder = build(path.parent, **labels)
    ours = dict(zip(by_table.ids, by_table.targets.tolist(), strict=True))
    theirs = dict(zip(by_folder.ids, by_folder.targets.tolist(), strict=True))
    assert len(ours) == 205
    assert ours == theirs
