"""Patient ids under a key: equal ids match, the key stays with the user, nothing leads back."""

import hashlib
import hmac
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from xray_classifier import pseudonyms
from xray_classifier.pseudonyms import key_id, key_is_kept, key_path, pseudonym


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    pseudonyms._key.cache_clear()
    return tmp_path / "config"


def test_a_pseudonym_is_the_hmac_of_the_id_under_the_users_key(home: Path) -> None:
    found = pseudonym("Müller^Hans ")
    key = (home / "xray_classifier" / "patient.key").read_bytes()
    assert len(key) == 32
    assert key_is_kept()
    truth = hmac.new(key, "Müller^Hans".encode(), hashlib.sha256).hexdigest()
    assert found == truth[:32]
    assert pseudonym("Müller^Hans") == found != pseudonym("Müller^Hana")
    assert pseudonym(" ") == pseudonym("") == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_only_the_owner_may_read_the_key(home: Path) -> None:
    pseudonym("a")
    assert stat.S_IMODE(key_path().stat().st_mode) == 0o600


def test_another_key_gives_another_pseudonym_and_another_name(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pseudonym("a"), key_id()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    other = pseudonym("a"), key_id()
    assert one[0] != other[0]
    assert one[1] != other[1]
    copy = tmp_path / "copied" / "xray_classifier"
    copy.mkdir(parents=True)
    (copy / "patient.key").write_bytes((home / "xray_classifier" / "patient.key").read_bytes())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "copied"))
    assert (pseudonym("a"), key_id()) == one


def test_the_name_of_a_key_does_not_hold_it(home: Path) -> None:
    name = key_id()
    assert name not in key_path().read_bytes().hex()
    assert len(name) == 16


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_without_a_place_for_the_key_ids_match_within_the_process(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert pseudonym("a") == pseudonym("a") != pseudonym("b")
    assert not key_path().exists()
    assert not key_is_kept()


def test_processes_that_start_at_once_agree_on_one_key(home: Path) -> None:
    code = "from xray_classifier.pseudonyms import pseudonym; print(pseudonym('a'))"
    crew = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    said = {process.communicate()[0].strip() for process in crew}
    assert said == {pseudonym("a")}
    assert [path.name for path in key_path().parent.iterdir()] == ["patient.key"]
