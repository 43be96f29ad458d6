"""A checkpoint is read as it was written, or refused."""

import hashlib
import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from xray_classifier.checkpoint import (
    FORMAT_VERSION,
    encode,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from xray_classifier.errors import CheckpointError, NonFiniteError, OutputError, UsageError

TENSORS = {"w": torch.tensor([[1.0, -2.0], [0.5, 3.0]]), "step": torch.tensor(7)}
CONTENT = {"kind": "best", "classes": ["healthy", "sick"], "note": "größer \u2028 \U0001f600"}


def sealed(raw: bytes) -> bytes:
    """The bytes with their digest made right again: what a forger would write."""
    start = raw.index(b'"sha256":"') + len(b'"sha256":"')
    zeroed = raw[:start] + b"0" * 64 + raw[start + 64 :]
    return raw[:start] + hashlib.sha256(zeroed).hexdigest().encode() + raw[start + 64 :]


def forged(metadata: dict[str, str]) -> bytes:
    """A safetensors file with this metadata and a right digest."""
    return sealed(safetensors.torch.save(TENSORS, {**metadata, "sha256": "0" * 64}))


def refusal(path: Path, raw: bytes) -> str:
    """The message with which these bytes are refused."""
    path.write_bytes(raw)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert caught.value.exit_code == 5
    assert path.name in str(caught.value)
    return str(caught.value)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, TENSORS, CONTENT)
    loaded = load_checkpoint(path)
    assert loaded.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(loaded.tensors[name], TENSORS[name]) for name in TENSORS)
    assert {key: loaded.content[key] for key in CONTENT} == CONTENT


def test_any_reader_of_safetensors_finds_the_weights(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", TENSORS, CONTENT)
    found = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert torch.equal(found["w"], TENSORS["w"])


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    good = encode(TENSORS, CONTENT)
    path = tmp_path / "a.safetensors"
    for place in range(len(good)):
        for mask in (0x01, 0xFF):
            bad = bytearray(good)
            bad[place] ^= mask
            refusal(path, bytes(bad))


def test_every_truncation_and_every_appended_byte_is_refused(tmp_path: Path) -> None:
    good = encode(TENSORS, CONTENT)
    path = tmp_path / "a.safetensors"
    for length in range(len(good)):
        refusal(path, good[:length])
    refusal(path, good + b"\0")
    refusal(path, good + good)


def test_safetensors_alone_would_not_see_a_flipped_weight() -> None:
    bad = bytearray(encode(TENSORS, CONTENT))
    bad[-1] ^= 0xFF
    assert not torch.equal(safetensors.torch.load(bytes(bad))["w"], TENSORS["w"])


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert "no checksum" in refusal(path, safetensors.torch.save(TENSORS))
    refusal(path, safetensors.torch.save(TENSORS, {"format": "pt"}))


def test_a_newer_version_says_so(tmp_path: Path) -> None:
    raw = encode(TENSORS, {**CONTENT, "format_version": FORMAT_VERSION + 1})
    assert "newer" in refusal(tmp_path / "a.safetensors", raw)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"xray": ""},
        {"xray": "[]"},
        {"xray": "null"},
        {"xray": '"format"'},
        {"xray": "{}"},
        {"xray": '{"format": "xray_classifier"}'},
        {"xray": '{"format": "other", "format_version": 1}'},
        {"xray": '{"format": "xray_classifier", "format_version": "1"}'},
        {"xray": '{"format": "xray_classifier", "format_version": null}'},
        {"xray": '{"format": "xray_classifier", "format_version": 1, "a": NaN}'},
        {"xray": '{"format": "xray_classifier", "format_version": 1, "a": Infinity}'},
        {"xray": "[" * 100_000},
        {"xray": '{"format": "xray_classifier", "format_version": 1}', "other": '"sha256":"'},
    ],
)
def test_forged_metadata_is_refused(metadata: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    if "other" in metadata:  # JSON escapes the quotes, so this one is found once, and fine
        path.write_bytes(forged(metadata))
        assert load_checkpoint(path).content["format_version"] == 1
        return
    refusal(path, forged(metadata))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 64,
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (90).to_bytes(8, "little") + b'{"sha256":"' + b"0" * 64 + b'"}' + b" " * 30,
        b"PK\x03\x04" + b"\0" * 200,
        b"text, no model" * 20,
    ],
)
def test_what_is_no_checkpoint_is_refused(raw: bytes, tmp_path: Path) -> None:
    refusal(tmp_path / "a.safetensors", raw)


def test_a_header_whose_tensors_reach_beyond_the_file_is_refused(tmp_path: Path) -> None:
    good = encode(TENSORS, CONTENT)
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    header["w"]["data_offsets"] = [0, 10**9]
    text = json.dumps(header, separators=(",", ":")).encode()
    raw = len(text).to_bytes(8, "little") + text + good[8 + length :]
    assert "tensors" in refusal(tmp_path / "a.safetensors", sealed(raw))


_EVENTS: list[str] = []
_WATCHING = [False]


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what a hostile file might set off."""
    if _WATCHING[0] and event in ("pickle.find_class", "os.system", "subprocess.Popen", "exec"):
        _EVENTS.append(event)


class Bomb:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("true",))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    sys.addaudithook(watch)
    pickled = pickle.dumps(Bomb())
    torch.save({"w": Bomb()}, tmp_path / "torch.pt")
    _WATCHING[0] = True
    try:
        refusal(tmp_path / "a.safetensors", pickled)
        refusal(tmp_path / "b.safetensors", (tmp_path / "torch.pt").read_bytes())
        refusal(tmp_path / "c.safetensors", forged({"xray": pickled.hex()}))
    finally:
        _WATCHING[0] = False
    assert _EVENTS == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_on_saving_and_loading(
    bad: float, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, TENSORS, CONTENT)
    before = path.read_bytes()
    tensors = {"w": torch.tensor([1.0, bad])}
    with pytest.raises(NonFiniteError, match="w holds"):
        save_checkpoint(path, tensors, CONTENT)
    assert path.read_bytes() == before
    assert "NaN or infinite" in refusal(path, encode(tensors, CONTENT))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", TENSORS, CONTENT)
    with pytest.raises(CheckpointError, match="threshold"):
        load_checkpoint(tmp_path / "a.safetensors").require("threshold")


def test_a_missing_folder_cannot_be_saved_to(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        save_checkpoint(tmp_path / "absent" / "a.safetensors", TENSORS, CONTENT)


def checkpoint_in(run: Path, name: str = "best") -> Path:
    """A checkpoint at its usual place in a run folder."""
    path = run / "checkpoints" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, TENSORS, CONTENT)
    return path


def test_a_run_a_folder_of_checkpoints_and_a_file_all_mean_the_file(tmp_path: Path) -> None:
    path = checkpoint_in(tmp_path / "run")
    for given in (tmp_path / "run", path.parent, path):
        assert find_checkpoint(given) == path
    last = checkpoint_in(tmp_path / "run", "last")
    assert find_checkpoint(tmp_path / "run", "last") == last


def test_a_missing_path_lists_model_files_nearby_newest_first(tmp_path: Path) -> None:
    old, new = checkpoint_in(tmp_path / "runs" / "old"), checkpoint_in(tmp_path / "runs" / "new")
    os.utime(old, (time.time() - 100,) * 2)
    with pytest.raises(UsageError) as caught:
        find_checkpoint(tmp_path / "runs" / "odl")
    message = str(caught.value)
    assert message.index(str(new)) < message.index(str(old))
    with pytest.raises(UsageError, match=r"holds no checkpoints/best\.safetensors"):
        find_checkpoint(tmp_path / "runs")


def test_what_resume_looks_for_is_what_is_listed_nearby(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "run", "best")
    last = checkpoint_in(tmp_path / "run", "last")
    with pytest.raises(UsageError) as caught:
        find_checkpoint(tmp_path / "rum", "last")
    assert str(last) in str(caught.value)
    assert "best.safetensors" not in str(caught.value)


@pytest.mark.parametrize("name", ["a" * 300, "a\nb", "\udcff"])
def test_a_path_that_cannot_exist_is_a_usage_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_checkpoint(tmp_path / name)
    assert str(caught.value).isprintable()


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is no file"):
        find_checkpoint(tmp_path / "pipe")
