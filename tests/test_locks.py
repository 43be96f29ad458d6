"""Locks: one owner at a time, and a dead owner's lock is free."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from xray_classifier.errors import OutputError
from xray_classifier.locks import if_free, owned, turn

HOLDER = """
import pathlib, sys, time
from xray_classifier.locks import turn
with turn(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(path: Path) -> "subprocess.Popen[bytes]":
    """A process that holds a lock until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.communicate()


def test_a_lock_that_is_held_is_not_free(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with if_free(path) as free:
        assert free
        with if_free(path) as again:
            assert not again
    with if_free(path) as free:
        assert free
    assert os.name == "nt" or not path.exists()


def test_a_dead_owner_leaves_its_lock_to_who_waits(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    process = holder(path)
    waited = []

    def kill_then() -> None:
        waited.append(process.poll())
        end(process)

    with turn(path, kill_then):
        assert waited[0] is None
    assert os.name == "nt" or not path.exists()


def test_the_lock_file_of_a_dead_owner_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    end(holder(path))
    assert path.exists()
    with if_free(path) as free:
        assert free


def test_turns_never_overlap_though_each_owner_removes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    inside = 0
    overlaps = 0
    turns = 0

    def take_turns() -> None:
        nonlocal inside, overlaps, turns
        for _ in range(25):
            while True:
                with if_free(path) as free:
                    if free:
                        inside += 1
                        overlaps += inside > 1
                        time.sleep(0.0005)
                        turns += 1
                        inside -= 1
                        break

    threads = [threading.Thread(target=take_turns) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (turns, overlaps) == (100, 0)


def test_an_error_inside_lets_go_of_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with pytest.raises(KeyError), turn(path):
        raise KeyError
    with if_free(path) as free:
        assert free


def test_a_lock_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="absent"), turn(tmp_path / "absent" / "x.lock"):
        pass
    with pytest.raises(OutputError), owned(tmp_path / "absent"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="flock is POSIX")
def test_a_file_system_without_locks_is_told_from_another_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for lock in (turn(tmp_path / "x.lock"), if_free(tmp_path / "x.lock"), owned(tmp_path)):
        with pytest.raises(OutputError, match="cannot lock"), lock:
            pass
