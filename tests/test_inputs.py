"""What may be asked to be scored: folders, lists and tables, in order, and nothing outside them."""

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_classifier.data.inputs import Item, Listing, items_of
from xray_classifier.data.tree import Tree, list_tree, walk
from xray_classifier.errors import DataError, UsageError

POSIX = pytest.mark.skipif(os.name == "nt", reason="such names and links are POSIX")


def names(*inputs: Path, follow: bool = False) -> list[str]:
    """The names that inputs mean, all of them readable."""
    found = list(items_of(inputs, Tree(), follow_links=follow))
    assert all(not item.reason for item in found)
    return [item.name for item in found]


def put(root: Path, *paths: str) -> Path:
    """Make small files below a folder."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return root


@POSIX
@given(
    st.lists(
        st.lists(
            st.sampled_from(["a", "b", "-", "a-", "a.", "a0", "B", "é"]), min_size=1, max_size=3
        ),
        max_size=12,
    )
)
def test_a_folder_is_walked_in_the_order_of_its_sorted_paths(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]
) -> None:
    root = tmp_path_factory.mktemp("walk")
    made = set()
    for parts in paths:
        file = root.joinpath(*parts[:-1], parts[-1] + ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        made.add(file.relative_to(root).as_posix())
    assert [entry.path for entry in walk(root, Tree())] == sorted(made, key=os.fsencode)
    assert list_tree(root).files == sorted(made, key=os.fsencode)


def test_arguments_keep_their_order_and_their_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "b/2.png", "b/1.png", "a.png")
    monkeypatch.chdir(tmp_path)
    assert names(Path("b"), Path("a.png"), Path("b/1.png")) == [
        "b/1.png", "b/2.png", "a.png", "b/1.png",
    ]  # fmt: skip
    assert names(Path()) == ["a.png", "b/1.png", "b/2.png"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_a_list_names_files_relative_to_itself(tmp_path: Path, end: str) -> None:
    listed = ["a.png", "b/é.png", str(tmp_path / "absolute.png"), "../up.png", "gone.png"]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "list.txt").write_bytes((end.join(listed) + end).encode())
    folder = tmp_path / "sub"
    assert names(Path(f"@{folder / 'list.txt'}")) == [
        str(folder / "a.png"), str(folder / "b/é.png"), listed[2], f"{folder}/../up.png",
        str(folder / "gone.png"),
    ]  # fmt: skip


@POSIX
def test_a_list_between_null_bytes_may_hold_any_name(tmp_path: Path) -> None:
    listed = [b"line\nbreak.png", b" blank ", b"cr\r", b"bad\xff.png"]
    (tmp_path / "list").write_bytes(b"\0".join(listed))
    found = names(Path(f"@{tmp_path / 'list'}"))
    assert [os.fsencode(name) for name in found] == [
        os.fsencode(tmp_path) + b"/" + n for n in listed
    ]


def test_a_list_longer_than_any_chunk_loses_no_line(tmp_path: Path) -> None:
    listed = [f"{number:07d}" + "x" * (number % 97) for number in range(9000)]
    (tmp_path / "list").write_text("\n".join(listed))
    assert names(Path(f"@{tmp_path / 'list'}")) == [str(tmp_path / name) for name in listed]


@pytest.mark.parametrize(
    ("content", "kind"), [(b"x" * 200_000, DataError), (None, UsageError)], ids=["binary", "gone"]
)
def test_what_is_no_list_is_refused(
    tmp_path: Path, content: bytes | None, kind: type[Exception]
) -> None:
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    with pytest.raises(kind, match="list"):
        names(Path(f"@{tmp_path / 'list'}"))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_names_files_in_its_column_path(tmp_path: Path, separator: str) -> None:
    lines = [["id", "path"], ["1", "a.png"], ["2", '"b,c;d.png"'], [], ["3", "b/./e.png"]]
    text = "\n".join(separator.join(line) for line in lines)
    (tmp_path / "films.csv").write_text(text, encoding="utf-8-sig")
    assert names(tmp_path / "films.csv") == [
        f"{tmp_path}/{name}" for name in ("a.png", "b,c;d.png", "b/./e.png")
    ]


@pytest.mark.parametrize("text", ["", "file\na.png\n", "path,path\na,b\n", 'path\n"open\n'])
def test_a_table_without_a_column_path_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "films.csv").write_text(text)
    with pytest.raises(DataError, match=r"films\.csv"):
        names(tmp_path / "films.csv")


@POSIX
def test_a_table_reads_nothing_outside_its_folder(tmp_path: Path) -> None:
    root = put(tmp_path / "root", "in.png", "sub/in.png")
    put(tmp_path, "secret.png", "rootless/x.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path / "rootless")
    (root / "alias.png").symlink_to(root / "in.png")
    inside = ["in.png", "sub/../in.png", str(root / "in.png"), "alias.png", "gone.png"]
    links = ["link.png", "folder/x.png"]
    outside = ["../secret.png", "/etc/passwd", "sub/../../secret.png", "../rootless/x.png", ""]
    (root / "films.csv").write_text(
        "id,path\n" + "".join(f"1,{c}\n" for c in inside + links + outside)
    )
    found = [item.reason for item in items_of([root / "films.csv"], Tree())]
    assert found == [""] * len(inside) + ["outside_root"] * (len(links) + len(outside))
    found = [item.reason for item in items_of([root / "films.csv"], Tree(), follow_links=True)]
    assert found == [""] * (len(inside) + len(links)) + ["outside_root"] * len(outside)


@POSIX
def test_links_are_followed_where_asked_and_every_loop_ends(tmp_path: Path) -> None:
    root = put(tmp_path / "root", "a.png", "d/b.png")
    other = put(tmp_path / "other", "c.png", "deep/e.png")
    (root / "d" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "one").symlink_to(other)
    (root / "two").symlink_to(other)
    (other / "back").symlink_to(root)
    (other / "deep" / "above").symlink_to(other)
    (root / "file.png").symlink_to(other / "c.png")
    (root / "parent").symlink_to(tmp_path)
    tree = Tree()
    assert [entry.path for entry in walk(root, tree)] == ["a.png", "d/b.png"]
    assert (tree.outside, tree.folder_links) == (2, 4)
    tree = Tree()
    assert [entry.path for entry in walk(root, tree, follow_links=True)] == [
        "a.png", "d/b.png", "file.png", "one/c.png", "one/deep/e.png",
    ]  # fmt: skip
    assert (tree.outside, tree.folder_links) == (1, 5)


@POSIX
def test_many_links_to_one_another_do_not_multiply(tmp_path: Path) -> None:
    """Twenty folders, each with two links to the next: a million ways to the last one."""
    for number in range(20):
        (tmp_path / "out" / f"{number:02d}").mkdir(parents=True)
    for number in range(19):
        for name in ("left", "right"):
            (tmp_path / "out" / f"{number:02d}" / name).symlink_to(
                tmp_path / "out" / f"{number + 1:02d}"
            )
    put(tmp_path / "out" / "19", "film.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "start").symlink_to(tmp_path / "out" / "00")
    assert len(list(walk(tmp_path / "root", Tree(), follow_links=True))) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "no_permission"),
        (FileNotFoundError(2, "No such file"), "not_found"),
        (OSError(5, "Input/output error"), "read_error"),
    ],
)
def test_a_folder_that_cannot_be_looked_into_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str
) -> None:
    put(tmp_path, "a.png", "closed/b.png", "z/c.png")
    scandir = os.scandir

    def refused(path: str) -> Any:
        if str(path).rstrip("/").endswith("closed"):
            raise error
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert list(items_of([tmp_path], Tree())) == [
        Item(f"{tmp_path}/a.png"), Item(f"{tmp_path}/closed", reason), Item(f"{tmp_path}/z/c.png"),
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"cannot list .*closed: "):
        list_tree(tmp_path)


def a_long_list(folder: Path, n: int) -> Iterator[Item]:
    (folder / "list").write_text("".join(f"{number:08d}.png\n" for number in range(n)))
    return items_of([Path(f"@{folder / 'list'}")], Tree())


def a_long_table(folder: Path, n: int) -> Iterator[Item]:
    lines = (f"{number:08d}.png\n" for number in range(n))
    (folder / "films.csv").write_text("path\n" + "".join(lines))
    return items_of([folder / "films.csv"], Tree(), follow_links=True)


@pytest.mark.parametrize("made", [a_long_list, a_long_table])
def test_memory_does_not_grow_with_the_list(
    tmp_path: Path, made: Callable[[Path, int], Iterator[Item]]
) -> None:
    peaks = []
    for n in (10_000, 60_000):
        items = made(tmp_path, n)
        tracemalloc.start()
        with Listing(TemporaryFile()) as listing:
            listing.extend(items)
            listing.count()
            assert sum(1 for _ in listing.items(slice(None))) == len(listing) == n
            peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


def test_a_listing_is_read_from_any_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xray_classifier.data.inputs.PLACES_EVERY", 7)
    items = [Item(f"n\n{number}\udcff", "" if number % 3 else "not_found") for number in range(50)]
    with Listing(TemporaryFile()) as listing:
        listing.extend(items)
        listing.count()
        assert len(listing) == 50
        for start in range(0, 51, 5):
            for stop in range(0, 51, 10):
                assert list(listing.items(slice(start, stop))) == items[start:stop]
