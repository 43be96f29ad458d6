"""The set-up scripts, with a stand-in for pip: what is installed when, and what heals.

Each test gets a copy of the scripts in a folder with a space in its name, and a PATH on which the
only Python is a shim. The shim passes most calls to the real interpreter, but `-m venv` makes an
environment in a blink, and `-m pip`, `-m pytest` and the program itself only write down the call.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
SHELL_SCRIPTS = sorted(
    str(path.relative_to(CHECKOUT))
    for path in [CHECKOUT / ".ci" / "run", *(CHECKOUT / "scripts").iterdir()]
    if path.is_file() and not path.suffix
)
TOOLS = ["awk", "bash", "cat", "df", "dirname", "env", "find", "mkdir", "mv", "readlink", "rm"]
TOOLS += ["sed", "sort", "sleep"]

pytestmark = pytest.mark.skipif(
    os.name == "nt" or shutil.which("bash") is None, reason="the scripts need bash"
)

SHIM = """#!{bash}
# $FAKE/calls gets one line a call; $FAKE/pip, $FAKE/pytest, ... hold what such a call then does.
here=$(dirname "$0")
if [ "$1" != -m ]; then exec {python} "$@"; fi
module=$2
shift 2
case $module in
    venv | ensurepip) ;;
    pip) if [ "$1" = --version ]; then [ -e "$here/has_pip" ]; exit; fi ;;
esac
printf '%s %s\\n' "$module" "$*" >>"$FAKE/calls"
case $module in
    venv)
        folder="${{@: -1}}"
        rm -rf "$folder"
        mkdir -p "$folder/bin"
        cat "$0" >"$folder/bin/python"
        chmod +x "$folder/bin/python"
        : >"$folder/bin/has_pip"
        ;;
    ensurepip) : >"$here/has_pip" ;;
esac
if [ -e "$FAKE/$module" ]; then . "$FAKE/$module"; fi
"""


class Sandbox:
    """A copy of the scripts on a machine with nothing but the shim on its PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        self.fake = folder / "fake"
        self.bin = folder / "bin"
        for made in (self.root, self.fake, self.bin):
            made.mkdir()
        shutil.copytree(CHECKOUT / "scripts", self.root / "scripts")
        shutil.copytree(CHECKOUT / ".ci", self.root / ".ci")
        shutil.copy(CHECKOUT / "pyproject.toml", self.root)
        for tool in [*TOOLS, "chmod"]:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.add_python("python3.11")

    def add_python(self, name: str) -> None:
        """Put an interpreter of this name on the PATH."""
        self.write_shim(self.bin / name)

    def write_shim(self, path: Path) -> None:
        """Make `path` a stand-in for the interpreter that runs these tests."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SHIM.format(bash=shutil.which("bash"), python=shlex.quote(sys.executable)))
        path.chmod(0o755)

    def on_call(self, module: str, shell: str) -> None:
        """Make every later `python -m module` run these lines of shell as well."""
        (self.fake / module).write_text(shell + "\n")

    def run(
        self, script: str, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts with a bare environment and no stdin."""
        path = Path(script) if Path(script).is_absolute() else self.root / script
        return subprocess.run(
            [str(path), *arguments],
            cwd=cwd or self.root.parent,
            env={"PATH": str(self.bin), "FAKE": str(self.fake), "HOME": "/nowhere"} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def take_calls(self) -> list[str]:
        """What was called since the last time, one `module arguments` each."""
        calls = self.fake / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return lines

    def modules_called(self) -> list[str]:
        """The names of the modules called since the last time."""
        return [call.split()[0] for call in self.take_calls()]


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


@pytest.mark.parametrize("script", SHELL_SCRIPTS)
def test_each_script_is_valid_shell(script: str) -> None:
    subprocess.run(["bash", "-n", CHECKOUT / script], check=True)


@pytest.mark.parametrize("script", [name for name in SHELL_SCRIPTS if "environment" not in name])
def test_each_command_can_be_executed(script: str) -> None:
    assert os.access(CHECKOUT / script, os.X_OK)


def test_first_call_installs_and_the_second_does_not(sandbox: Sandbox) -> None:
    first = sandbox.run("scripts/test", "-q", "tests/test_x.py")
    assert first.returncode == 0, first.stderr
    venv, install, tests = sandbox.take_calls()
    assert venv == f"venv --clear {sandbox.root}/.venv"
    assert install == "pip install --disable-pip-version-check --quiet --editable .[dev]"
    assert tests == "pytest -q tests/test_x.py"
    assert "one to four minutes and about 6 GB" in first.stderr

    second = sandbox.run("scripts/test")
    assert second.returncode == 0
    assert sandbox.take_calls() == ["pytest "]
    assert "nstall" not in second.stderr


def test_the_exit_code_of_the_tests_is_passed_on(sandbox: Sandbox) -> None:
    sandbox.on_call("pytest", "exit 5")
    assert sandbox.run("scripts/test").returncode == 5


def test_any_folder_a_link_and_cdpath_work(sandbox: Sandbox, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "linked test").symlink_to(sandbox.root / "scripts" / "test")
    sandbox.on_call("pytest", 'pwd >"$FAKE/where"')
    done = sandbox.run(
        str(elsewhere / "linked test"), cwd=elsewhere, CDPATH=f"{tmp_path}:{sandbox.root}"
    )
    assert done.returncode == 0, done.stderr
    assert (sandbox.fake / "where").read_text().strip() == str(sandbox.root)
    assert not (elsewhere / ".venv").exists()


def test_what_the_tests_need_serves_the_demo_but_not_the_other_way_round(sandbox: Sandbox) -> None:
    with_demo(sandbox)
    sandbox.run("scripts/demo")
    assert "pip install --disable-pip-version-check --quiet --editable ." in sandbox.take_calls()
    sandbox.run("scripts/test")
    assert sandbox.modules_called() == ["pip", "pytest"]
    sandbox.run("scripts/demo")
    assert "pip" not in sandbox.modules_called()


def test_new_requirements_or_a_moved_checkout_are_installed(sandbox: Sandbox) -> None:
    sandbox.run("scripts/test")
    with (sandbox.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    sandbox.take_calls()
    sandbox.run("scripts/test")
    assert sandbox.modules_called() == ["pip", "pytest"]

    sandbox.root = sandbox.root.rename(sandbox.root.with_name("moved"))
    sandbox.run("scripts/test")
    assert sandbox.modules_called() == ["pip", "pytest"]


def test_an_interrupted_installation_heals(sandbox: Sandbox) -> None:
    sandbox.on_call("pip", "kill -9 $PPID")
    killed = sandbox.run("scripts/test")
    assert killed.returncode != 0
    assert sandbox.modules_called() == ["venv", "pip"]

    (sandbox.fake / "pip").unlink()
    healed = sandbox.run("scripts/test")
    assert healed.returncode == 0, healed.stderr
    assert "cut short" in healed.stderr
    assert sandbox.modules_called() == ["venv", "pip", "pytest"]
    sandbox.run("scripts/test")
    assert sandbox.modules_called() == ["pytest"]


def test_an_environment_cut_short_while_it_was_made_heals(sandbox: Sandbox) -> None:
    sandbox.on_call("venv", 'rm "$folder/bin/has_pip"; kill -9 $PPID')
    assert sandbox.run("scripts/test").returncode != 0
    (sandbox.fake / "venv").unlink()
    sandbox.take_calls()
    assert sandbox.run("scripts/test").returncode == 0
    assert sandbox.modules_called() == ["ensurepip", "pip", "pytest"]


def test_a_pip_that_cannot_be_mended_means_a_new_environment(sandbox: Sandbox) -> None:
    sandbox.run("scripts/test")
    venv = sandbox.root / ".venv"
    (venv / "xray-classifier.installed").unlink()
    (venv / "bin" / "has_pip").unlink()
    sandbox.on_call("ensurepip", 'rm "$here/has_pip"')
    sandbox.take_calls()
    assert sandbox.run("scripts/test").returncode == 0
    assert sandbox.modules_called() == ["ensurepip", "venv", "pip", "pytest"]


def test_an_environment_whose_python_is_gone_is_made_afresh(sandbox: Sandbox) -> None:
    sandbox.run("scripts/test")
    python = sandbox.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    sandbox.take_calls()
    assert sandbox.run("scripts/test").returncode == 0
    assert sandbox.modules_called() == ["venv", "pip", "pytest"]


def test_a_failed_installation_says_what_to_do_and_is_tried_again(sandbox: Sandbox) -> None:
    sandbox.on_call("pip", "exit 1")
    failed = sandbox.run("scripts/test")
    assert failed.returncode == 2
    assert "GiB are free" in failed.stderr
    assert "Network" in failed.stderr
    assert failed.stderr.count("error:") == 1
    assert "pytest" not in sandbox.modules_called()

    (sandbox.fake / "pip").unlink()
    assert sandbox.run("scripts/test").returncode == 0
    assert "pip" in sandbox.modules_called()


def test_a_failed_update_does_not_throw_a_complete_environment_away(sandbox: Sandbox) -> None:
    sandbox.run("scripts/test")
    with (sandbox.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    sandbox.on_call("pip", "exit 1")
    assert sandbox.run("scripts/test").returncode == 2
    (sandbox.fake / "pip").unlink()
    sandbox.take_calls()
    sandbox.run("scripts/test")
    assert sandbox.modules_called() == ["pip", "pytest"]


def test_two_installers_do_not_meet(sandbox: Sandbox) -> None:
    sandbox.run("scripts/test")
    marker = sandbox.root / ".venv" / "xray-classifier.installing"
    marker.write_text(f"{os.getpid()}\n")
    sandbox.take_calls()
    second = sandbox.run("scripts/test")
    assert second.returncode == 2
    assert str(os.getpid()) in second.stderr
    assert sandbox.take_calls() == []


def test_an_active_environment_is_used_and_never_cleared(sandbox: Sandbox, tmp_path: Path) -> None:
    mine = tmp_path / "my environment"
    sandbox.write_shim(mine / "bin" / "python")
    (mine / "bin" / "has_pip").touch()
    sandbox.on_call("pip", 'printf "%s" "$here" >"$FAKE/used"; kill -9 $PPID')
    sandbox.run("scripts/test", VIRTUAL_ENV=str(mine))
    (sandbox.fake / "pip").unlink()
    done = sandbox.run("scripts/test", VIRTUAL_ENV=str(mine))
    assert done.returncode == 0, done.stderr
    assert sandbox.modules_called() == ["pip", "pip", "pytest"]
    assert (sandbox.fake / "used").read_text() == str(mine / "bin")
    assert not (sandbox.root / ".venv").exists()
    sandbox.run("scripts/test", VIRTUAL_ENV=str(mine))
    assert sandbox.modules_called() == ["pytest"]


def test_an_update_cut_short_in_an_active_environment_is_not_forgotten(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    mine = tmp_path / "my environment"
    sandbox.write_shim(mine / "bin" / "python")
    (mine / "bin" / "has_pip").touch()
    sandbox.run("scripts/test", VIRTUAL_ENV=str(mine))
    requirements = sandbox.root / "pyproject.toml"
    before = requirements.read_text(encoding="utf-8")
    requirements.write_text(before + "# changed\n", encoding="utf-8")
    sandbox.on_call("pip", "kill -9 $PPID")
    sandbox.run("scripts/test", VIRTUAL_ENV=str(mine))
    (sandbox.fake / "pip").unlink()
    requirements.write_text(before, encoding="utf-8")
    sandbox.take_calls()
    sandbox.run("scripts/test", VIRTUAL_ENV=str(mine))
    assert sandbox.modules_called() == ["pip", "pytest"]


def test_an_active_environment_that_is_gone_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    done = sandbox.run("scripts/test", VIRTUAL_ENV=str(tmp_path / "gone"))
    assert done.returncode == 2
    assert str(tmp_path / "gone") in done.stderr
    assert "deactivate" in done.stderr


def test_no_python_is_one_clear_message(sandbox: Sandbox) -> None:
    (sandbox.bin / "python3.11").unlink()
    too_old = sandbox.bin / "python3"
    too_old.write_text(f"#!{shutil.which('bash')}\nexit 1\n")
    too_old.chmod(0o755)
    done = sandbox.run("scripts/demo")
    assert done.returncode == 2
    assert "Python 3.11 or newer" in done.stderr
    assert "python3-venv" in done.stderr
    assert done.stderr.count("error:") == 1
    assert not (sandbox.root / ".venv").exists()


def test_a_python_that_does_not_run_is_passed_over(sandbox: Sandbox) -> None:
    broken = sandbox.bin / "python3.13"
    broken.write_text(f"#!{shutil.which('bash')}\nexit 127\n")
    broken.chmod(0o755)
    assert "bin/python3.11" in sandbox.run("scripts/test").stderr


@pytest.mark.parametrize("failing", ["format", "check", "mypy"])
def test_check_runs_all_three_and_names_the_one_that_fails(sandbox: Sandbox, failing: str) -> None:
    shell = f'if [ "$1" = {failing} ] || [ "$module" = {failing} ]; then exit 1; fi'
    sandbox.on_call("ruff", shell)
    sandbox.on_call("mypy", shell)
    done = sandbox.run("scripts/check")
    assert done.returncode == 1
    assert failing in done.stderr.splitlines()[-1]
    assert sandbox.take_calls()[2:] == ["ruff format --check .", "ruff check .", "mypy "]


def test_check_is_silent_about_itself_when_all_is_well(sandbox: Sandbox) -> None:
    done = sandbox.run("scripts/check")
    assert done.returncode == 0
    assert "failed" not in done.stderr


@pytest.mark.parametrize(
    ("mypy_code", "pytest_code", "expected"), [(0, 0, 0), (1, 0, 1), (0, 3, 3), (1, 3, 3)]
)
def test_ci_runs_both_and_ends_on_the_line_of_pytest(
    sandbox: Sandbox, mypy_code: int, pytest_code: int, expected: int
) -> None:
    sandbox.on_call("mypy", f"exit {mypy_code}")
    sandbox.on_call("pytest", f"echo '5 passed in 1.00s' >&2; exit {pytest_code}")
    done = sandbox.run(".ci/run", CI="true")
    assert done.returncode == expected
    assert done.stderr.splitlines()[-1] == "5 passed in 1.00s"
    assert done.stdout == ""
    assert sandbox.modules_called() == ["venv", "pip", "ruff", "ruff", "mypy", "pytest"]


def with_demo(sandbox: Sandbox) -> None:
    """Let the program's stand-in answer `train --json`, and let phantoms be written."""
    run_dir = "demo/runs/20260101-000000_demo"
    sandbox.on_call(
        "xray_classifier",
        f"""if [ "$1" = train ]; then
    mkdir -p {run_dir}/checkpoints
    : >{run_dir}/curves.png
    : >{run_dir}/history.csv
    echo 'epoch 1' >&2
    echo '{{"run_dir": "{run_dir}", "status": "done"}}'
fi""",
    )
    package = sandbox.root / "xray_classifier" / "data"
    package.mkdir(parents=True)
    (package / "phantoms.py").write_text(
        "def write_phantoms(folder, n_images, seed):\n"
        "    folder.mkdir(parents=True)\n"
        "    for index in range(n_images):\n"
        "        (folder / f'{index}.png').touch()\n"
    )


def test_demo_trains_evaluates_and_predicts_new_films(sandbox: Sandbox) -> None:
    with_demo(sandbox)
    done = sandbox.run("scripts/demo")
    assert done.returncode == 0, done.stderr
    run_dir = "demo/runs/20260101-000000_demo"
    assert [call for call in sandbox.take_calls() if call.startswith("xray_classifier")] == [
        "xray_classifier train -c demo -o demo/runs --json",
        f"xray_classifier evaluate {run_dir} --split test",
        f"xray_classifier predict {run_dir} demo/films -o demo/predictions.csv --force",
    ]
    assert len(list((sandbox.root / "demo" / "films").glob("*.png"))) == 24
    assert "epoch 1" in done.stderr
    for told in (f"{run_dir}/curves.png", f"{run_dir}/history.csv", "demo/predictions.csv"):
        assert told in done.stdout
    assert "xray-classifier train -c my.yaml" in done.stdout


def test_demo_can_be_run_again(sandbox: Sandbox) -> None:
    with_demo(sandbox)
    sandbox.run("scripts/demo")
    (sandbox.root / "demo" / "films" / "stray.png").touch()
    again = sandbox.run("scripts/demo")
    assert again.returncode == 0, again.stderr
    assert not (sandbox.root / "demo" / "films" / "stray.png").exists()


def test_demo_stops_where_a_step_fails(sandbox: Sandbox) -> None:
    sandbox.on_call("xray_classifier", 'echo \'{"error": {"exit_code": 7}}\'; exit 7')
    done = sandbox.run("scripts/demo")
    assert done.returncode == 7
    assert '"exit_code": 7' in done.stderr
    assert [call.split()[1] for call in sandbox.take_calls() if "xray_" in call] == ["train"]


def test_the_benchmark_passes_its_words_on(sandbox: Sandbox) -> None:
    done = sandbox.run("scripts/benchmark", "--only", "help", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    assert sandbox.take_calls()[2:] == ["scripts.benchmarks --only help --rounds 2"]
    assert not (sandbox.root / ".venv-peers").exists()


def test_peers_get_an_environment_that_borrows_torch(sandbox: Sandbox) -> None:
    sandbox.on_call("pip", 'if [ "$1" = freeze ]; then echo torch==9.9; fi')
    done = sandbox.run("scripts/benchmark", "--peers")
    assert done.returncode == 0, done.stderr
    calls = sandbox.take_calls()
    assert "venv .venv-peers" in calls
    for peer in ("lightning", "skorch", "fastai"):
        (install,) = [call for call in calls if call.endswith(f" {peer}")]
        assert "--constraint .venv-peers/constraints.txt" in install
    assert (sandbox.root / ".venv-peers" / "constraints.txt").read_text() == "torch==9.9\n"
    (borrowed,) = (sandbox.root / ".venv-peers").rglob("borrowed.pth")
    packages = Path(sysconfig.get_path("purelib"))
    assert borrowed.read_text() == f"{packages}\n"
    assert not (packages / "borrowed.pth").exists()
    python = f"{sandbox.root}/.venv-peers/bin/python"
    assert calls[-1] == f"scripts.benchmarks --peers --peers-python {python}"


def test_a_peer_that_cannot_be_installed_is_left_out(sandbox: Sandbox) -> None:
    sandbox.on_call("pip", 'case "$*" in *skorch) exit 1 ;; esac')
    done = sandbox.run("scripts/benchmark", "--peers")
    assert done.returncode == 0, done.stderr
    assert "skorch could not be installed; it will be left out" in done.stderr
    assert "lightning could not" not in done.stderr
    assert sandbox.take_calls()[-1].startswith("scripts.benchmarks --peers --peers-python")
