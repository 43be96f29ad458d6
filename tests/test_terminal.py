"""Lines for a person, a bar on a terminal only, and a log that holds everything."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from xray_classifier.terminal import Terminal, encodable, seconds_in_words


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


class Left(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        """Fail as a closed pipe does."""
        raise BrokenPipeError


def test_lines_are_said_and_kept_from_the_first_one_on(tmp_path: Path) -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.say("before there was a log")
    terminal.log_to(tmp_path / "log.txt")
    terminal.warn("careful")
    terminal.keep("for the log alone")
    assert stream.getvalue() == "before there was a log\nwarning: careful\n"
    log = (tmp_path / "log.txt").read_text()
    assert log == "before there was a log\nwarning: careful\nfor the log alone\n"


def test_quiet_is_silent_but_keeps_the_log(tmp_path: Path) -> None:
    stream = Screen()
    terminal = Terminal(stream, quiet=True)
    terminal.log_to(tmp_path / "log.txt")
    terminal.say("text")
    with terminal.bar("decoding", 3, "img") as bar:
        bar(3)
    assert stream.getvalue() == ""
    assert (tmp_path / "log.txt").read_text() == "text\n"


def test_a_log_is_appended_to(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("first life\n")
    terminal = Terminal(io.StringIO())
    terminal.log_to(tmp_path / "log.txt")
    terminal.say("second life")
    assert (tmp_path / "log.txt").read_text() == "first life\nsecond life\n"


def test_a_bar_moves_on_a_terminal_and_is_gone_afterwards() -> None:
    stream = Screen()
    with Terminal(stream).bar("decoding", 10, "img") as bar:
        bar(4)
        bar(10)
    assert "decoding" in stream.getvalue()
    assert stream.getvalue().split("\r")[-1].strip() == ""


def test_there_is_no_bar_in_a_file_but_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [0.0]
    monkeypatch.setattr("xray_classifier.terminal.time.monotonic", lambda: now_s[0])
    stream = io.StringIO()
    with Terminal(stream).bar("decoding", 1000, "img") as bar:
        for done in range(1, 1001):
            now_s[0] = done / 10  # 100 s in all
            bar(done)
    assert stream.getvalue().splitlines() == [
        # 10 a second: 700, 400 and 100 images are 70, 40 and 10 s.
        "decoding: 300 of 1,000 img, 10.0 a second, 1m10s left",
        "decoding: 600 of 1,000 img, 10.0 a second, 40s left",
        "decoding: 900 of 1,000 img, 10.0 a second, 10s left",
    ]


def test_the_work_goes_on_when_the_reader_leaves(tmp_path: Path) -> None:
    terminal = Terminal(Left())
    terminal.log_to(tmp_path / "log.txt")
    terminal.say("one")
    terminal.say("two")
    terminal.stream.close()
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_text_can_be_said_in_any_encoding(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, errors="strict", newline="\n")
    Terminal(stream).say("é \udcff \u2028")
    shown = raw.getvalue().decode(encoding)
    assert "\\udcff" in shown
    assert ("é" in shown) == (encoding != "ascii")
    assert encodable("plain", stream) == "plain"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0s"), (4.13, "4.1s"), (51.6, "52s"), (59.7, "1m00s"), (200, "3m20s"),
        (3599.4, "59m59s"), (3600, "1h00m"), (7500, "2h05m"),
    ],
)  # fmt: skip
def test_a_duration_as_one_would_say_it(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


@pytest.mark.skipif(sys.platform != "linux", reason="another system's devices")
def test_a_full_disk_behind_standard_output_ends_no_work() -> None:
    source = (
        "from xray_classifier.terminal import Terminal\n"
        "terminal = Terminal()\n"
        "terminal.say('one')\n"
        "terminal.say('two')\n"
    )
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", source], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_closed_standard_output_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # what Python has where it was started without one
    terminal = Terminal()
    with terminal.stream:
        assert not terminal.interactive
        terminal.say("nobody hears it")
