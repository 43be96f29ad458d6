"""Finished rows outlast any end of the process, and answer only the question they were made for."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xray_classifier.errors import OutputError
from xray_classifier.row_store import (
    NO_STAMP,
    WRITING,
    WRITTEN,
    RowStore,
    Stamp,
    answers_for,
    beside,
    remove_leftovers,
    stamp_of,
    state_of,
    stores_beside,
)

KEY = {"model": "abc", "threshold": 0.1}
CELLS = ["ok", "", 0.1 + 0.2, None, "sick"]


_opened: list[RowStore] = []


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    """Let go of all stores that a test opened."""
    yield
    while _opened:
        _opened.pop().close()


def opened(*paths: Path, own: int = 0) -> RowStore:
    """The store in some files."""
    _opened.append(RowStore(paths, own, KEY))
    return _opened[-1]


def filled(path: Path, n: int) -> list[int]:
    """A file of n rows, and their places."""
    store = opened(path)
    places = store.add((f"{i}.png", Stamp(i, 10 * i), [*CELLS[:2], float(i)]) for i in range(n))
    store.close()
    return places


def test_rows_come_back_as_they_went(tmp_path: Path) -> None:
    names = ["a.png", "line\nbreak", "bad\udcff", "=1+1", "é", "\x1b[31m"]
    store = opened(tmp_path / "rows")
    places = store.add((name, Stamp(1, 2), CELLS) for name in names)
    assert [store.row(place) for place in places] == [(name, *CELLS) for name in names]
    store.close()
    again = opened(tmp_path / "rows")
    found = [again.find(name, Stamp(1, 2)) for name in names]
    assert found == places
    assert len(again) == len(names)


@pytest.mark.parametrize(
    ("stamp", "known"), [(Stamp(1, 2), True), (Stamp(1, 3), False), (Stamp(2, 2), False)]
)
def test_a_row_holds_for_the_same_file_alone(tmp_path: Path, stamp: Stamp, known: bool) -> None:
    store = opened(tmp_path / "rows")
    store.add([("a.png", Stamp(1, 2), CELLS), ("b.png", NO_STAMP, CELLS)])
    store.close()
    again = opened(tmp_path / "rows")
    assert (again.find("a.png", stamp) is not None) == known
    assert again.find("b.png", NO_STAMP) is None
    assert again.find("c.png", stamp) is None


@pytest.mark.parametrize("reason", ["not_found", "no_permission", "read_error", "decoder_timeout"])
def test_what_may_be_mended_without_a_change_is_tried_again(tmp_path: Path, reason: str) -> None:
    store = opened(tmp_path / "rows")
    store.add([("a.png", Stamp(1, 2), ["failed", reason]), ("b", Stamp(1, 2), ["failed", "blank"])])
    store.close()
    again = opened(tmp_path / "rows")
    assert again.find("a.png", Stamp(1, 2)) is None
    assert again.find("b", Stamp(1, 2)) is not None


def test_the_last_row_of_a_file_counts(tmp_path: Path) -> None:
    store = opened(tmp_path / "rows")
    places = store.add(("a.png", Stamp(number, 0), ["ok", "", number]) for number in range(3))
    store.close()
    again = opened(tmp_path / "rows")
    assert again.find("a.png", Stamp(2, 0)) == places[2]
    assert again.find("a.png", Stamp(0, 0)) is None


def test_names_with_one_hash_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xray_classifier.row_store.hash", lambda name: 7, raising=False)
    places = filled(tmp_path / "rows", 20)
    again = opened(tmp_path / "rows")
    assert [again.find(f"{i}.png", Stamp(i, 10 * i)) for i in range(20)] == places


def test_a_file_cut_anywhere_keeps_its_whole_lines(tmp_path: Path) -> None:
    filled(tmp_path / "rows", 6)
    whole = (tmp_path / "rows").read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        path = tmp_path / "cut"
        path.write_bytes(whole[:cut])
        if not answers_for(path, KEY):
            assert cut <= ends[0]
            continue
        store = opened(path)
        kept = sum(store.find(f"{i}.png", Stamp(i, 10 * i)) is not None for i in range(6))
        assert kept == max(0, sum(end < cut for end in ends) - 1)
        [place] = store.add([("new.png", Stamp(1, 1), CELLS)])
        assert store.row(place) == ("new.png", *CELLS)
        store.close()
        assert all(line.endswith(b"\n") for line in path.read_bytes().splitlines(keepends=True))


@pytest.mark.parametrize(
    "line", [b"[1]\n", b"[[],1,2,[]]\n", b'["a",1,2,3]\n', b"{\n", b"[\xff]\n", b"\n", b'"w\n']
)
def test_a_line_that_makes_no_sense_is_passed_over(tmp_path: Path, line: bytes) -> None:
    places = filled(tmp_path / "rows", 2)
    with (tmp_path / "rows").open("ab") as file:
        file.write(line)
    store = opened(tmp_path / "rows")
    assert [store.find(f"{i}.png", Stamp(i, 10 * i)) for i in range(2)] == places


@pytest.mark.parametrize(
    "first", [b"", b"{}", b"[]\n", b"\xff\n", b'{"rows": 1, "key": {"model": "x"}}\n']
)
def test_another_question_is_not_answered(tmp_path: Path, first: bytes) -> None:
    (tmp_path / "rows").write_bytes(first)
    assert not answers_for(tmp_path / "rows", KEY)
    assert not answers_for(tmp_path / "gone", KEY)
    filled(tmp_path / "ours", 1)
    assert answers_for(tmp_path / "ours", KEY)
    assert not answers_for(tmp_path / "ours", {**KEY, "threshold": 0.2})


def test_the_rows_of_several_processes_are_one_store(tmp_path: Path) -> None:
    paths = [tmp_path / "rows", tmp_path / "rows.1", tmp_path / "rows.2"]
    stores = [opened(*paths, own=own) for own in range(3)]
    places = [
        store.add([(f"{own}.png", Stamp(own, 1), ["ok", "", own])])[0]
        for own, store in enumerate(stores)
    ]
    assert len(set(places)) == 3
    assert [stores[0].row(place) for place in places] == [
        (f"{i}.png", "ok", "", i) for i in range(3)
    ]
    again = opened(*paths, own=1)
    assert [again.find(f"{own}.png", Stamp(own, 1)) for own in range(3)] == places


def test_the_state_of_the_table_is_the_last_one_noted(tmp_path: Path) -> None:
    store = opened(tmp_path / "rows")
    assert state_of(tmp_path / "rows") == state_of(tmp_path / "gone") == ""
    for state in (WRITING, WRITTEN, WRITING):
        store.note(state)
        store.add([('"writing', Stamp(1, 1), CELLS)])
        assert state_of(tmp_path / "rows") == state


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_is_an_error_that_loses_no_earlier_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = opened(tmp_path / "rows")
    store.add([("a.png", Stamp(1, 1), CELLS)])

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def close(self) -> None:
            self.file.close()

        def write(self, content: Any) -> int:
            if len(content) > 10:
                return int(self.file.write(bytes(content)[:10]))
            raise OSError(number, "no more")

    monkeypatch.setattr(store, "_file", Full(store._file))
    with pytest.raises(OutputError, match="no more"):
        store.add([("b.png", Stamp(1, 1), CELLS)])
    again = opened(tmp_path / "rows")
    assert again.find("a.png", Stamp(1, 1)) is not None
    assert again.find("b.png", Stamp(1, 1)) is None
    assert json.loads((tmp_path / "rows").read_bytes().splitlines()[-1])[0] == "a.png"


def test_rows_that_no_table_needs_any_more_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xray_classifier.row_store.MOST_OLD_ROWS", 1)
    paths = [tmp_path / "rows", tmp_path / "rows.1"]
    for own in (0, 1):
        store = opened(*paths, own=own)
        store.add((f"{i}.png", Stamp(own, 1), ["ok", "", own]) for i in range(5))
        store.close()
    store = opened(*paths)
    places = [store.find(f"{i}.png", Stamp(1, 1)) or 0 for i in range(4)]
    store.compact(places)
    assert not (tmp_path / "rows.1").exists()
    assert answers_for(tmp_path / "rows", KEY)
    assert state_of(tmp_path / "rows") == WRITTEN
    again = opened(tmp_path / "rows")
    assert len(again) == 4
    assert [again.row(again.find(f"{i}.png", Stamp(1, 1)) or 0)[0] for i in range(4)] == [
        f"{i}.png" for i in range(4)
    ]
    before = (tmp_path / "rows").read_bytes()
    again.compact([0, 0])
    assert (tmp_path / "rows").read_bytes() == before, "few old rows are left alone"


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "rows").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="is a link"):
        opened(tmp_path / "rows")
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("name", ["p.csv", "l" * 251 + ".csv", "é" * 120, "p[1].csv"])
def test_files_beside_a_table_have_names_of_their_own(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    beside(out, "rows").touch()
    beside(out, "rows.12").touch()
    assert stores_beside(out) == [beside(out, "rows"), beside(out, "rows.12")]
    assert beside(out, "rows") != beside(tmp_path / (name[:-1] + "x"), "rows")
    assert stores_beside(tmp_path / (name[:-1] + "x")) == []


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [".p.csv.rows", ".p.csv.lock", ".p.csv.1", ".q.csv.abcd1234", "p.csv", ".p.csv.ABCD1234"]
    for name in [*kept, ".p.csv.abc_1234"]:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "p.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_stamp_tells_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    assert stamp_of(str(tmp_path / "a")) == (3, (tmp_path / "a").stat().st_mtime_ns)
    assert stamp_of(str(tmp_path / "gone")) == stamp_of("null\0byte") == NO_STAMP
