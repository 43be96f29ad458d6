"""`scripts/download_pneumoniamnist.py` against a server on this machine."""

import hashlib
import importlib.util
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "download_pneumoniamnist.py"
CONTENT = bytes(range(256)) * 1024  # 256 KiB, several chunks
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Answers each path with one way in which a server can behave."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/missing.npz":
            self.send_error(404)
            return
        if path == "/moved.npz":
            self.send_response(302)
            self.send_header("Location", "/good.npz")
            self.end_headers()
            return
        self.send_response(200)
        if path == "/silent.npz":
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.flush()
            self.server.silence.wait(10)  # type: ignore[attr-defined]
            return
        content = {"/flipped.npz": b"\xff" + CONTENT[1:], "/cut.npz": CONTENT[:100_000]}
        if path != "/unsized.npz":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(content.get(path, CONTENT))

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output clean."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.silence = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.silence.set()  # type: ignore[attr-defined]
        running.shutdown()
        thread.join()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("download_pneumoniamnist", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["good.npz", "good.npz?download=1", "moved.npz", "unsized.npz"])
def test_a_good_file_arrives_whole(
    name: str,
    server: str,
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "new" / "folder"
    code = script.main([str(folder), "--url", f"{server}/{name}", "--md5", MD5.upper()])
    assert code == 0
    assert (folder / "pneumoniamnist.npz").read_bytes() == CONTENT
    assert files_in(folder) == ["pneumoniamnist.npz"]
    printed = capsys.readouterr()
    assert "262,144 bytes" in printed.out
    assert f"data.path={folder / 'pneumoniamnist.npz'}" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flipped.npz", "wrong checksum"),
        ("missing.npz", "404"),
        ("cut.npz", "broke off after 100,000 of 262,144 bytes"),
    ],
)
def test_nothing_is_left_when_the_server_fails(
    name: str,
    said: str,
    server: str,
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = script.main([str(tmp_path), "--url", f"{server}/{name}", "--md5", MD5])
    assert code == 3
    assert said in capsys.readouterr().err
    assert files_in(tmp_path) == []


def test_a_silent_server_ends_in_a_message(
    server: str, script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{server}/silent.npz"
    assert script.main([str(tmp_path), "--url", url, "--md5", MD5, "--timeout", "0.2"]) == 3
    assert "broke off" in capsys.readouterr().err
    assert files_in(tmp_path) == []


def test_no_server_ends_in_a_message(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert script.main([str(tmp_path), "--url", f"http://127.0.0.1:{port}/x.npz"]) == 3
    assert "no connection" in capsys.readouterr().err


def test_an_existing_file_is_kept_without_force(
    server: str, script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "pneumoniamnist.npz"
    target.write_bytes(b"mine")
    arguments = [str(tmp_path), "--url", f"{server}/good.npz", "--md5", MD5]
    assert script.main(arguments) == 6
    assert "--force" in capsys.readouterr().err
    assert target.read_bytes() == b"mine"
    assert script.main([*arguments, "--force"]) == 0
    assert target.read_bytes() == CONTENT


def test_force_keeps_the_old_file_when_the_new_one_is_damaged(
    server: str, script: ModuleType, tmp_path: Path
) -> None:
    target = tmp_path / "pneumoniamnist.npz"
    target.write_bytes(b"mine")
    url = f"{server}/flipped.npz"
    assert script.main([str(tmp_path), "--url", url, "--md5", MD5, "--force"]) == 3
    assert target.read_bytes() == b"mine"
    assert files_in(tmp_path) == ["pneumoniamnist.npz"]


def test_a_folder_that_cannot_be_made_is_an_output_error(
    server: str, script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "folder"
    assert script.main([str(folder), "--url", f"{server}/good.npz", "--md5", MD5]) == 6
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(
    os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0),
    reason="an administrator may write everywhere",
)
def test_a_folder_without_permission_is_an_output_error(
    server: str, script: ModuleType, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    try:
        assert script.main([str(tmp_path), "--url", f"{server}/good.npz", "--md5", MD5]) == 6
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_leaves_nothing_behind(
    server: str, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script.os, "fsync", no_space)
    assert script.main([str(tmp_path), "--url", f"{server}/good.npz", "--md5", MD5]) == 6
    assert files_in(tmp_path) == []


def test_ctrl_c_leaves_nothing_behind(
    server: str, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(n_bytes: int, expected_bytes: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "_show_progress", interrupt)
    assert script.main([str(tmp_path), "--url", f"{server}/good.npz", "--md5", MD5]) == 130
    assert files_in(tmp_path) == []


def test_progress_is_shown_on_a_terminal_only(
    server: str, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert script.main([str(tmp_path), "--url", f"{server}/good.npz", "--md5", MD5]) == 0
    assert terminal.getvalue().endswith("\r0.3 of 0.3 MB \n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "file:///etc/passwd"],
        ["--md5", "123"],
        ["--md5", "g" * 32],
        ["--timeout", "-1"],
        ["--timeout", "soon"],
        ["a", "b"],
    ],
)
def test_a_wrong_command_line_ends_with_code_2(arguments: list[str], script: ModuleType) -> None:
    with pytest.raises(SystemExit) as stopped:
        script.main(arguments)
    assert stopped.value.code == 2


def test_it_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-IS", str(SCRIPT), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "checksum" in done.stdout
