"""Decoding that begins in another process while PyTorch is imported."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import GREY, dicom, written
from PIL import Image

from xray_classifier.config import DataConfig
from xray_classifier.data import ahead, preparing
from xray_classifier.data.ahead import run_ahead
from xray_classifier.data.cache_build import lock_of
from xray_classifier.data.loading import run_decode, run_manifest
from xray_classifier.locks import turn
from xray_classifier.pseudonyms import pseudonym
from xray_classifier.terminal import Terminal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only begins on Linux")
QUIET = Terminal(quiet=True)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Twelve films in two classes."""
    rng = np.random.default_rng(0)
    for row in range(12):
        folder = tmp_path / "films" / ("healthy", "sick")[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).save(folder / f"{row}.png")
    return tmp_path / "films"


def settings(films: Path, cache: Path) -> DataConfig:
    """Of a run on these films."""
    return DataConfig.model_validate(
        {"path": films, "cache": cache, "image": {"size": 16}, "workers": 1}
    )


def children() -> set[int]:
    """Processes of ours that live."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def test_the_run_finds_what_was_decoded_ahead(films: Path, tmp_path: Path) -> None:
    data, alone = settings(films, tmp_path / "one"), settings(films, tmp_path / "other")
    manifest = run_manifest(data, "classify")
    with run_ahead(data, "classify") as follow:
        found = run_decode(data, manifest, QUIET, follow)
    expected = run_decode(alone, manifest, QUIET)
    assert (found.reused, expected.reused) == (True, False)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.signatures, expected.signatures)


@pytest.mark.parametrize(
    "more",
    [
        {"labels": {"healthy": ["healthy"], "sick": ["sick"]}, "limit": 8},
        {"split": {"fold": [1, 5], "val": None}, "columns": {"path": "file"}},
    ],
)
def test_every_setting_arrives(more: dict[str, Any], films: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"no utf-8 \xff")
    data = DataConfig.model_validate(
        {"path": films.rename(films.with_name(name)), "cache": tmp_path / name, **more}
    )
    with run_ahead(data, "classify") as follow:
        assert run_decode(data, run_manifest(data, "classify"), QUIET, follow).reused


def test_what_a_decoder_prints_is_passed_over() -> None:
    told: list[tuple[int, int]] = []
    said: list[str] = []
    stream = io.BytesIO(b"3 9\nwarning 7\n\nsay: wait\n9 9\n4")
    ahead._pass_on(stream, lambda *pair: told.append(pair), said.append)
    assert (told, said) == ([(3, 9), (9, 9)], ["wait"])


def test_that_another_run_decodes_the_same_is_said(films: Path, tmp_path: Path) -> None:
    data = settings(films, tmp_path / "cache")
    run_decode(data, run_manifest(data, "classify"), QUIET)
    (entry,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    shutil.rmtree(entry)
    said: list[str] = []

    def say(words: str) -> None:
        said.append(words)
        raise InterruptedError

    with turn(lock_of(entry)), run_ahead(data, "classify") as follow:
        assert follow is not None
        with pytest.raises(InterruptedError):
            follow(lambda done, total: None, say)
    assert said == ["another process is decoding the same images; waiting for it"]


@pytest.mark.parametrize("missing", ["interpreter", "process"])
def test_a_process_that_cannot_be_started_is_done_without(
    missing: str, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **keys: object) -> None:
        raise BlockingIOError

    if missing == "process":
        monkeypatch.setattr(ahead.subprocess, "Popen", refused)
    else:
        monkeypatch.setattr(ahead.sys, "executable", "")
    with run_ahead(settings(films, tmp_path / "cache"), "classify") as follow:
        assert follow is None


def test_patients_are_the_same_where_no_key_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "films").mkdir()
    for row in range(12):
        written(
            tmp_path / "films" / f"{row}.dcm", dicom(np.roll(GREY, row), PatientID=str(row // 2))
        )
    table = tmp_path / "films.csv"
    lines = [f"films/{row}.dcm,{('healthy', 'sick')[row % 2]}" for row in range(12)]
    table.write_text("\n".join(["path,label", *lines, ""]))
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/nowhere")
    monkeypatch.setattr(preparing, "POOL_FROM", 1)
    data = DataConfig.model_validate(
        {"path": table, "cache": tmp_path / "ahead", "image": {"size": 16}, "workers": 2}
    )
    manifest = run_manifest(data, "classify")
    with run_ahead(data, "classify") as follow:
        found = run_decode(data, manifest, QUIET, follow)
    assert found.reused
    other = data.model_copy(update={"cache": tmp_path / "alone"})
    alone = run_decode(other, manifest, QUIET)  # by two disposable processes
    for cached in (found, alone):
        seen = [patient.tobytes().hex() for patient in cached.signatures["patient"]]
        assert seen == [pseudonym(str(row // 2)) for row in range(12)]


def test_progress_is_passed_on(films: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with run_ahead(settings(films, tmp_path / "cache"), "classify") as follow:
        assert follow is not None
        follow(lambda done, total: told.append((done, total)), print)
    assert told[-1] == (12, 12)


def test_an_entry_that_is_there_is_not_decoded_again(films: Path, tmp_path: Path) -> None:
    data = settings(films, tmp_path / "cache")
    run_decode(data, run_manifest(data, "classify"), QUIET)
    told: list[int] = []
    with run_ahead(data, "classify") as follow:
        assert follow is not None
        follow(lambda done, total: told.append(done), print)
    assert told == []


def test_nothing_is_left_running(films: Path, tmp_path: Path) -> None:
    before = children()
    stopping = run_ahead(settings(films, tmp_path / "cache"), "classify")
    stopping.__enter__()
    assert len(children() - before) == 1
    stopped = KeyboardInterrupt()
    assert not stopping.__exit__(KeyboardInterrupt, stopped, None)
    assert children() <= before


def test_the_run_does_what_a_killed_process_left_undone(films: Path, tmp_path: Path) -> None:
    data, before = settings(films, tmp_path / "cache"), children()
    with run_ahead(data, "classify") as follow:
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        found = run_decode(data, run_manifest(data, "classify"), QUIET, follow)
    assert not found.reused
    assert not any(found.reasons)


def test_what_is_wrong_is_left_for_the_run_to_say(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with run_ahead(settings(tmp_path / "nowhere", tmp_path / "cache"), "classify") as follow:
        assert follow is not None
        follow(lambda done, total: None, print)
    assert capfd.readouterr() == ("", "")


def test_the_process_dies_with_its_parent(films: Path, tmp_path: Path) -> None:
    source = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from xray_classifier.config import DataConfig\n"
        "from xray_classifier.data import ahead\n"
        "ahead.START = 'import sys; sys.path[:] = sys.argv[1:]; import os, time; "
        "from xray_classifier.data import ahead; "
        "ahead.run_manifest = lambda *a: print(os.getpid(), flush=True) or time.sleep(600); "
        "ahead.main()'\n"
        "data = DataConfig.model_validate({'path': Path(sys.argv[1])})\n"
        "with ahead.run_ahead(data, 'classify') as follow:\n"
        "    print(follow.args[0].readline().decode().strip(), flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", source, films], stdout=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60.0
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        while Path(f"/proc/{child}").exists() and not _is_zombie(child):
            assert time.monotonic() < until
            time.sleep(0.05)


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_one_core_decodes_in_its_turn(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead.os, "sched_getaffinity", lambda pid: {3})
    with run_ahead(settings(films, tmp_path / "cache"), "classify") as follow:
        assert follow is None


BEFORE_TORCH = """
import contextlib, sys
from xray_classifier.cli import main
from xray_classifier.data import ahead
begin = ahead.run_ahead

@contextlib.contextmanager
def shown(*order):
    print("torch" in sys.modules)
    with begin(*order) as follow:
        def waited(*tell):
            print("waited")
            follow(*tell)

        yield waited

ahead.run_ahead = shown
from xray_classifier.data import loading
opened = loading.cached_images

def told(*order, **keys):
    found = opened(*order, **keys)
    print("reused" if found.reused else "decoded")
    return found

loading.cached_images = told
sys.exit(main(["train", *sys.argv[1:], "-q"]))
"""


@pytest.mark.parametrize("more", [["--dry-run"], ["train.seeds=2", "train.epochs=1"]])
def test_train_begins_before_pytorch_is_imported(
    more: list[str], films: Path, tmp_path: Path
) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(
        f"data: {{path: {films}, labels: {{healthy: [healthy], sick: [sick]}}, "
        f"cache: {tmp_path / 'cache'}, image: {{size: 16}}, split: {{val: 0.25, test: null}}}}\n"
        "model: {type: perceptron}\n"
    )
    words = [sys.executable, "-c", BEFORE_TORCH, "-c", config, "-o", tmp_path / "runs", *more]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[:3] == ["False", "waited", "reused"]
