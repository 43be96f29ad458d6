"""A checkpoint is read as it was written, or refused."""

import errno
import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from xray_classifier.building import run_building
from xray_classifier.checkpoint import (
    FORMAT_VERSION,
    STATES,
    NewerVersionError,
    encoded,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from xray_classifier.classifier import load_classifier
from xray_classifier.config_file import load_config
from xray_classifier.data.loading import run_loading
from xray_classifier.errors import CheckpointError, NonFiniteError, OutputError, UsageError
from xray_classifier.resume import restore
from xray_classifier.terminal import Terminal

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


def apart(raw: bytes) -> tuple[int, list[str], dict[str, Any], bytes]:
    """Header length, names in order, header and values of a safetensors file."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    return end, list(header), header, raw[end:]


@pytest.mark.parametrize("kind", [torch.float8_e5m2, torch.float8_e4m3fn])
def test_types_that_are_not_used_here_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    head = json.dumps({"format": "xray_classifier", "format_version": 1})
    weights = {"w": torch.zeros(4).to(kind)}
    raw = safetensors.torch.save(weights, {"xray": head, "sha256": "0" * 64})
    assert "type" in refusal(tmp_path / "a.safetensors", sealed(raw))


def test_the_bytes_are_those_that_safetensors_writes() -> None:
    tensors = {
        "w": torch.arange(6.0).view(2, 3),
        "b": torch.arange(3.0),
        "step": torch.tensor(2.5),
        "count": torch.tensor([7]),
        "memory": torch.arange(5, dtype=torch.uint8),
    }
    ours = apart(b"".join(encoded(tensors, CONTENT)))
    theirs = safetensors.torch.save(tensors, ours[2]["__metadata__"])
    assert ours == apart(theirs)  # but for the order of its metadata, which changes by the call


def test_tensors_of_every_kind_come_back() -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)
    tensors = {
        f"{name}.{kind}": (torch.arange(n) - 3).to(kind)
        for kind in (*kinds, torch.int16, torch.int8, torch.uint8, torch.bool)
        for name, n in (("b", 3), ("a", 5), ("none", 0))
    }
    tensors["turned"] = torch.arange(6.0).view(2, 3).t()
    found = safetensors.torch.load(b"".join(encoded(tensors, CONTENT)))
    assert {n: (t.dtype, t.tolist()) for n, t in found.items()} == {
        n: (t.dtype, t.tolist()) for n, t in tensors.items()
    }


def test_saving_takes_no_memory_for_a_second_copy(tmp_path: Path) -> None:
    source = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from xray_classifier.checkpoint import save_checkpoint\n"
        "few = {str(k): torch.ones(2**20) for k in range(2)}\n"
        "save_checkpoint(Path(sys.argv[1]), few, {})\n"
        "many = {str(k): torch.ones(2**20) for k in range(64)}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "save_checkpoint(Path(sys.argv[1]), many, {})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    words = [sys.executable, "-c", source, str(tmp_path / "a.safetensors")]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 64 * 1024  # KiB, of 256 MiB of weights


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    good = b"".join(encoded(TENSORS, CONTENT))
    path = tmp_path / "a.safetensors"
    for place in range(len(good)):
        for mask in (0x01, 0xFF):
            bad = bytearray(good)
            bad[place] ^= mask
            refusal(path, bytes(bad))


def test_every_truncation_and_every_appended_byte_is_refused(tmp_path: Path) -> None:
    good = b"".join(encoded(TENSORS, CONTENT))
    path = tmp_path / "a.safetensors"
    for length in range(len(good)):
        refusal(path, good[:length])
    refusal(path, good + b"\0")
    refusal(path, good + good)


RELEASED = Path(__file__).resolve().parent / "checkpoints"
VERSIONS = range(1, FORMAT_VERSION + 1)
KINDS = ("perceptron", "mlp")


def released(version: int, kind: str, name: str) -> Path:
    """A checkpoint that this version of the format was released with; see checkpoints/make.py."""
    return RELEASED / f"v{version}_{kind}_{name}.safetensors"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["best", "last"])
def test_five_hundred_flipped_bytes_and_a_hundred_truncations_are_refused(
    kind: str, name: str, tmp_path: Path
) -> None:
    rng = random.Random(20261125)
    whole = released(FORMAT_VERSION, kind, name).read_bytes()
    for trial in range(600):
        damaged, place = bytearray(whole), rng.randrange(len(whole))
        if trial < 500:
            damaged[place] ^= rng.randrange(1, 256)
        else:
            del damaged[place:]
        refusal(tmp_path / "a.safetensors", bytes(damaged))


def test_safetensors_alone_would_not_see_a_flipped_weight() -> None:
    bad = bytearray(b"".join(encoded(TENSORS, CONTENT)))
    bad[-1] ^= 0xFF
    assert not torch.equal(safetensors.torch.load(bytes(bad))["w"], TENSORS["w"])


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert "no checksum" in refusal(path, safetensors.torch.save(TENSORS))
    refusal(path, safetensors.torch.save(TENSORS, {"format": "pt"}))


def test_a_newer_version_says_so(tmp_path: Path) -> None:
    raw = b"".join(encoded(TENSORS, {**CONTENT, "format_version": FORMAT_VERSION + 1}))
    assert "Install a newer xray_classifier" in refusal(tmp_path / "a.safetensors", raw)
    with pytest.raises(NewerVersionError, match=f"version {FORMAT_VERSION + 1}"):
        load_checkpoint(tmp_path / "a.safetensors")


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
    good = b"".join(encoded(TENSORS, CONTENT))
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
    assert "NaN or infinite" in refusal(path, b"".join(encoded(tensors, CONTENT)))


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


def record_of(version: int) -> dict[str, Any]:
    """What was written down when the checkpoints of a format version were made."""
    record = json.loads((RELEASED / f"v{version}.json").read_bytes())
    assert isinstance(record, dict)
    return record


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_of_every_released_version_gives_the_logits_of_its_day(
    version: int, kind: str
) -> None:
    record = record_of(version)
    images = [np.frombuffer(bytes.fromhex(text), np.uint8) for text in record["images"]]
    model = load_classifier(released(version, kind, "best"), "cpu")
    found = model.score(np.stack(images).reshape(-1, 16, 16)).logits
    assert found == pytest.approx(record["kinds"][kind]["logits"], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_of_every_released_version_goes_on(version: int, kind: str) -> None:
    config = load_config("demo", record_of(version)["kinds"][kind]["overrides"]).config
    radiographs = run_loading(config.data, config.task, Terminal(quiet=True))
    trainer = run_building(config, radiographs).trainer
    state = load_checkpoint(released(version, kind, "last"))
    assert state.content["format_version"] == version
    assert state.content["fingerprint"] == radiographs.fingerprint()
    restore(trainer, state)
    weights = trainer.model.state_dict()
    assert all(torch.equal(weights[name], state.tensors[f"model.{name}"]) for name in weights)
    assert (trainer.run.epoch, trainer.run.batch) == (1, 2)
    assert len(trainer.run.history.rows) == 1
    trainer.fit()
    assert trainer.run.epoch == config.train.epochs
    before, after = state.tensors["model.output.bias"], trainer.model.state_dict()["output.bias"]
    assert not torch.equal(after, before)


def numbered(path: Path) -> float:
    """The number that a checkpoint of `save_numbers` was given."""
    return float(load_checkpoint(path).tensors["w"])


def save_numbers(folder: Path, *numbers: int) -> tuple[Path, Path]:
    """Save checkpoints one after the other under one name, the one before kept."""
    last, previous = (folder / name for name in STATES)
    for number in numbers:
        save_checkpoint(last, {"w": torch.tensor(float(number))}, CONTENT, previous)
    return last, previous


def no_links(*arguments: object) -> None:
    """What a file system without hard links says."""
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("links", [True, False])
def test_the_checkpoint_before_lives_on(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    last, previous = save_numbers(tmp_path, 1)
    assert not previous.exists()
    save_numbers(tmp_path, 2)
    assert (numbered(last), numbered(previous)) == (2, 1)
    save_numbers(tmp_path, 3)
    assert (numbered(last), numbered(previous)) == (3, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(STATES)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("rotten", [True, False])
def test_at_every_moment_of_a_save_a_sound_state_is_on_disk(
    links: bool, rotten: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the last one has rotted since it was written, and nobody knows."""
    last, previous = save_numbers(tmp_path, 1, 2)
    if rotten:
        last.write_bytes(last.read_bytes()[:-1])
    newest: list[float] = []

    def look(name: str) -> None:
        plain = getattr(os, name)

        def looking(*arguments: Any, **keys: Any) -> Any:
            sound = [numbered(p) for p in (last, previous) if is_sound(p)]
            newest.append(max(sound, default=0))
            return plain(*arguments, **keys)

        monkeypatch.setattr(os, name, looking)

    for name in ("fsync", "replace", "unlink"):
        look(name)
    monkeypatch.setattr(os, "link", os.link if links else no_links)
    save_numbers(tmp_path, 3)
    assert len(newest) >= 4
    assert newest == sorted(newest)
    assert newest[0] == (1 if rotten else 2)
    assert numbered(last) == 3


def is_sound(path: Path) -> bool:
    """Whether a checkpoint can be loaded."""
    try:
        load_checkpoint(path)
    except (CheckpointError, UsageError):
        return False
    return True


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_disk_that_refuses_any_step_costs_neither_state(
    call: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, previous = save_numbers(tmp_path, 1, 2)
    calls = [0]
    plain = getattr(os, call)

    def failing(*arguments: Any, **keys: Any) -> Any:
        calls[0] += 1
        if calls[0] == count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(*arguments, **keys)

    monkeypatch.setattr(os, call, failing)
    steps = {"fsync": 3, "replace": 2}[call]  # of the file and, twice, of the folder
    if count <= steps:
        with pytest.raises(OutputError, match="No space left"):
            save_numbers(tmp_path, 3)
    else:
        save_numbers(tmp_path, 3)
    assert numbered(last) in ((2, 3) if count <= steps else (3,))
    assert numbered(previous) in (1, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(STATES)
