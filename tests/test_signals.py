"""Ctrl-C, SIGTERM and SIGUSR1 raise a flag; a second Ctrl-C leaves at once."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_runs import TINY

from xray_classifier.signals import STOP_SIGNALS, stop_on_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows cannot send itself these signals")


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_what_users_services_and_clusters_send_is_heard() -> None:
    assert [number.name for number in STOP_SIGNALS] == ["SIGINT", "SIGTERM", "SIGUSR1"]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_raises_the_flag_and_says_so(number: signal.Signals) -> None:
    said: list[str] = []
    with stop_on_signals(said.append) as request:
        assert request.signal_name is None
        send(number)
        assert request.signal_name == number.name
    assert len(said) == 1
    assert number.name in said[0]


def test_a_second_ctrl_c_leaves_at_once() -> None:
    with stop_on_signals(lambda text: None) as request:
        send(signal.SIGINT)
        assert request.signal_name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


@pytest.mark.parametrize("number", STOP_SIGNALS[1:])
def test_ctrl_c_after_another_signal_leaves_at_once_but_a_second_of_those_waits(
    number: signal.Signals,
) -> None:
    with stop_on_signals(lambda text: None) as request:
        send(number)
        send(number)
        assert request.signal_name == number.name
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_the_handlers_of_before_come_back_also_after_an_error() -> None:
    before = [signal.getsignal(n) for n in STOP_SIGNALS]

    def fail() -> None:
        with stop_on_signals(lambda text: None):
            assert signal.getsignal(signal.SIGTERM) is not before[1]
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert [signal.getsignal(n) for n in STOP_SIGNALS] == before


def test_outside_the_main_thread_nothing_is_touched() -> None:
    before = [signal.getsignal(n) for n in STOP_SIGNALS]
    seen: list[object] = []

    def work() -> None:
        with stop_on_signals(lambda text: None) as request:
            seen.append(request.signal_name)
            seen.extend(signal.getsignal(n) for n in STOP_SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, *before]


def wait_for_line(process: "subprocess.Popen[str]", words: str) -> str:
    """Read what a process says until a line holds these words; all that was read."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"never said {words!r}: {said}")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130)])
def test_a_signal_after_the_last_step_is_told_with_the_way_on(
    name: str, code: int, tmp_path: Path
) -> None:
    """The final judgement takes seconds; a cluster may send its signal then.

    A signal that meets the very end, or a moment in which Python ignores exceptions, finds a run
    that is finished; so there are several tries.
    """
    for attempt in range(4):
        out = tmp_path / str(attempt)
        words = [
            sys.executable, "-u", "-m", "xray_classifier", "train", "-c", "demo", "-o", str(out),
            "--name", "tiny", *TINY,
        ]  # fmt: skip
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
        ) as process:
            wait_for_line(process, "stopped: all 3 epochs done")
            process.send_signal(signal.Signals[name])
            _, err = process.communicate(timeout=120)
        run = next(path for path in out.iterdir() if path.name.endswith("_tiny"))
        summary = json.loads((run / "summary.json").read_text())
        if process.returncode == 0:
            assert summary["status"] == "finished"
            continue
        assert process.returncode == code, err
        assert (summary["status"], summary["exit_code"]) == ("interrupted", code)
        assert f"--resume {run}" in err
        return
    raise AssertionError("no signal was heard")


SENT_WHILE_IMPORTING = """
import os, signal, sys
from xray_classifier.cli import main

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))

sys.meta_path.insert(0, Hook())
sys.exit(main(["train", "-c", "demo", "--dry-run", "data.cache=cache"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130)])
def test_a_signal_while_pytorch_is_imported_is_heeded(name: str, code: int, tmp_path: Path) -> None:
    words = [sys.executable, "-c", SENT_WHILE_IMPORTING, name]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == code
    assert ended.stderr.startswith("error: interrupted; nothing half-done is left")
    assert len(ended.stderr.splitlines()) == 1
