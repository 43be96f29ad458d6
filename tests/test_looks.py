"""The record of looks at a set of images: counts, concurrency, and a home that cannot be used."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from xray_classifier import looks
from xray_classifier.looks import Looks, add_look, count_looks, record_path, set_fingerprint

SET, OTHER = "f" * 64, "e" * 64


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "xray_classifier" / "looks.jsonl"


def test_fingerprint_is_the_digest_of_the_sorted_hashes() -> None:
    hashes = [bytes([byte]) * 8 for byte in (9, 1, 5)]
    lines = "0101010101010101\n0505050505050505\n0909090909090909"
    assert set_fingerprint(hashes) == hashlib.sha256(lines.encode()).hexdigest()


def test_fingerprint_ignores_order_and_nothing_else() -> None:
    hashes = [os.urandom(8) for _ in range(50)]
    shuffled = random.Random(0).sample(hashes, len(hashes))
    assert set_fingerprint(shuffled) == set_fingerprint(hashes)
    assert set_fingerprint(hashes[1:]) != set_fingerprint(hashes)
    assert set_fingerprint([*hashes, hashes[0]]) != set_fingerprint(hashes)
    # 8 bytes twice must not read as other 8 bytes that are joined alike
    assert set_fingerprint([b"ab", b"c"]) != set_fingerprint([b"a", b"bc"])


def test_looks_and_models_are_counted_apart() -> None:
    assert count_looks(SET) == Looks({})
    add_look(SET, "a", "test", 10)
    add_look(SET, "a", "test", 10)
    add_look(OTHER, "c", "test", 10)
    found = add_look(SET, "b", "test", 10)
    assert found is not None
    assert (found.looks, found.models) == (3, 2)
    assert found == count_looks(SET)
    assert found.in_words() == "looked at 3 times with 2 models"
    assert Looks({"a": 1}).in_words() == "looked at once with 1 model"
    assert Looks({}).in_words() == "never looked at before"


def test_record_holds_digests_and_counts_alone(state: Path) -> None:
    add_look(SET, "a" * 64, "test", 10)
    (entry,) = [json.loads(line) for line in state.read_text().splitlines() if line]
    assert set(entry) == {"time", "fingerprint", "model", "split", "n"}
    assert (entry["fingerprint"], entry["model"], entry["n"]) == (SET, "a" * 64, 10)
    assert record_path() == state


def test_a_torn_line_costs_no_other_one(state: Path) -> None:
    add_look(SET, "a", "test", 10)
    with state.open("ab") as file:
        file.write(b'{"time": "2026", "fingerpr\xff')
    add_look(SET, "b", "test", 10)
    with state.open("a") as file:
        file.write('[1]\n"x"\n{"fingerprint": 3, "model": "a"}\nnull\n')
    found = count_looks(SET)
    assert found is not None
    assert dict(found.by_model) == {"a": 1, "b": 1}


def test_processes_that_write_at_once_lose_nothing(state: Path) -> None:
    code = (
        "import sys\nfrom xray_classifier.looks import add_look\n"
        f"for _ in range(50): add_look({SET!r}, sys.argv[1] * 64, 'test', 10)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abcd"]
    assert [process.wait() for process in running] == [0] * 4
    found = count_looks(SET)
    assert found is not None
    assert dict(found.by_model) == {name * 64: 50 for name in "abcd"}


def test_a_home_that_cannot_be_written_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))  # no folder can be made in it
    assert add_look(SET, "a", "test", 10) is None
    assert count_looks(SET) is None


def test_a_record_that_cannot_be_read_is_no_crash(state: Path) -> None:
    state.mkdir(parents=True)
    assert count_looks(SET) is None
    assert add_look(SET, "a", "test", 10) is None


def test_a_user_without_a_home_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(looks.Path, "home", homeless)
    assert record_path() is None
    assert count_looks(SET) is None
    assert add_look(SET, "a", "test", 10) is None


def test_a_full_disk_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    add_look(SET, "a", "test", 10)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(looks.os, "write", lambda file, data: write(file, data[:20]))
        assert add_look(SET, "b", "test", 10) is None
    found = add_look(SET, "c", "test", 10)
    assert found is not None
    assert dict(found.by_model) == {"a": 1, "c": 1}


def test_the_state_directory_defaults_to_that_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(looks.Path, "home", lambda: tmp_path)
    assert record_path() == tmp_path / ".local" / "state" / "xray_classifier" / "looks.jsonl"
