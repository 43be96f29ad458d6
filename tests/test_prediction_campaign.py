"""Two thousand damaged files: a row each, no traceback, and whole ones answered as if alone.

The small tier of scripts/campaign_predict.py, which does the same with twenty thousand.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tiny_runs import Program, program, tiny_run

__all__ = ["program", "tiny_run"]

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "campaign_predict.py"
N = 2000

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the campaign is for POSIX systems")


@pytest.fixture(scope="module")
def campaign() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("campaign_predict", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["campaign_predict"] = module
    spec.loader.exec_module(module)
    return module


def test_every_damaged_file_is_a_row_and_harms_no_other(
    campaign: ModuleType, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    whole = campaign.make_files(tmp_path / "files", N, seed=1)
    assert N // 7 < len(whole) <= N // 5
    said = program("predict", tiny_run, tmp_path / "files", "-o", tmp_path / "all.csv", "-q")
    assert said.code == 4
    listed = "\n".join(f"files/{name}" for name in sorted(whole))
    (tmp_path / "whole.txt").write_text(listed)
    alone = f"@{tmp_path / 'whole.txt'}"
    words = ("predict", tiny_run, alone, "-o", tmp_path / "whole.csv", "--no-isolate", "-q")
    assert program(*words).code == 0
    assert campaign.faults_of(tmp_path, N, said.out + said.err) == []
    in_process = ("predict", tiny_run, tmp_path / "files", "-o", tmp_path / "in.csv", "-q")
    assert program(*in_process, "--no-isolate").code == 4
    assert (tmp_path / "in.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()
    assert b"CANARY" not in (tmp_path / "all.csv").read_bytes()


def test_the_campaign_sees_what_goes_wrong(
    campaign: ModuleType, tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    whole = campaign.make_files(tmp_path / "files", 40, seed=2)
    (tmp_path / "whole.txt").write_text("\n".join(f"files/{name}" for name in whole))
    for inputs, name in (("files", "all.csv"), ("@" + str(tmp_path / "whole.txt"), "whole.csv")):
        given = tmp_path / inputs if name == "all.csv" else inputs
        program("predict", tiny_run, given, "-o", tmp_path / name, "--no-isolate", "-q")
    assert campaign.faults_of(tmp_path, 40, "") == []
    assert campaign.faults_of(tmp_path, 41, "") != []
    assert campaign.faults_of(tmp_path, 40, "Traceback (most recent call last)") != []
    text = (tmp_path / "all.csv").read_text()
    (tmp_path / "all.csv").write_text(text.replace(",ok,,0.", ",ok,,0.1"))
    assert campaign.faults_of(tmp_path, 40, "") != []
    (tmp_path / "all.csv").write_text(text.replace("unreadable", "strange"))
    assert campaign.faults_of(tmp_path, 40, "") != []
    (tmp_path / "all.csv").write_text("\n".join(text.splitlines()[:-1]))
    assert campaign.faults_of(tmp_path, 40, "") != []
