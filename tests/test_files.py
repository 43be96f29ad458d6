"""Files are written whole or not at all, and no name in them does anything."""

import csv
import errno
import io
import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier.errors import OutputError
from xray_classifier.files import (
    FORMULA_STARTS,
    atomic_file,
    csv_row,
    csv_text,
    make_folder,
    printable,
    to_json,
    write_bytes,
    write_json,
    write_text,
)


def refusing(number: int) -> Any:
    """A system call that fails with an errno."""

    def refuse(*arguments: object, **keys: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return refuse


def write_and_fail(path: Path, error: BaseException) -> None:
    """Write half of a file, then raise."""
    with atomic_file(path) as file:
        file.write(b"half of the new")
        raise error


def test_an_error_inside_the_block_leaves_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    with pytest.raises(KeyError):
        write_and_fail(path, KeyError("bug"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_inside_the_block_leaves_no_other_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(tmp_path / "table.csv", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_the_old_content_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_refusing_disk_is_an_output_error_that_names_the_path(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, refusing(number))
    with pytest.raises(OutputError, match=r"table\.csv") as caught:
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert caught.value.exit_code == 6
    assert os.strerror(number) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_disk_before_the_name_moves_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor: int) -> None:
        calls.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
        fsync(descriptor)

    def seen_replace(one: str, other: str) -> None:
        calls.append("rename")
        replace(one, other)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not show what a descriptor stands for")
    write_bytes(tmp_path / "a", b"content")
    assert calls == ["file", "rename", "folder"]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="absent"):
        write_text(tmp_path / "absent" / "a.txt", "text")


def test_a_file_where_a_folder_should_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="taken"):
        make_folder(tmp_path / "taken")


def test_a_new_file_has_the_permissions_that_any_new_file_has(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("a")
    write_text(tmp_path / "ours", "a")
    assert (tmp_path / "ours").stat().st_mode == plain.stat().st_mode


@given(st.lists(st.text(max_size=20), min_size=2, max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_csv_row_gives_its_cells_back_and_no_cell_starts_a_formula(cells: list[str]) -> None:
    cells = [cell.replace("\0", "") for cell in cells]
    [back] = csv.reader(io.StringIO(csv_row(cells), newline=""))
    assert len(back) == len(cells)
    for cell, read in zip(cells, back, strict=True):
        assert not read.startswith(FORMULA_STARTS)
        assert read in (cell, "'" + cell)
        assert (read == cell) != cell.startswith(FORMULA_STARTS)


def test_a_carriage_return_or_newline_in_a_name_does_not_start_a_row() -> None:
    rows = list(csv.reader(io.StringIO(csv_text(("a", "b"), [("x\ry", "1"), ("x\ny", "2")]))))
    assert [row[1] for row in rows] == ["b", "1", "2"]


@pytest.mark.parametrize("number", [0.1, -0.5, 1e-300, 1 / 3, float("inf")])
def test_a_csv_number_keeps_every_digit_and_is_no_formula(number: float) -> None:
    assert float(csv_row([number])) == number


def test_undefined_is_empty_in_csv_and_null_in_json() -> None:
    assert csv_row(["a", None, math.nan, "b"]) == "a,,,b\n"
    value = {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": (1.5,)}
    assert json.loads(to_json(value)) == {"a": None, "b": [None, {"c": None}], "d": [1.5]}


def test_a_name_that_is_no_utf8_can_be_written_everywhere(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff\xfe.png")
    write_text(tmp_path / "a.csv", csv_row([name]))
    write_json(tmp_path / "a.json", {"path": name})
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "a\\udcff\\udcfe.png\n"
    assert json.loads((tmp_path / "a.json").read_bytes())["path"] == name


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_a_printable_name_is_printable_and_plain_names_stay(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize("nasty", ["\x1b[31m", "a\nb", "\u202egnp.exe", "\x07", "\udcff", "\u2028"])
def test_printable_shows_what_would_act_on_a_terminal(nasty: str) -> None:
    assert nasty not in printable(f"x{nasty}y")
    assert printable(f"x{nasty}y").startswith("x")
