"""What training promises about kills, failing disks, NaN, changed data and rivals.

Small tiers of the campaigns in scripts/campaign_durability.py, which count the same failures.
"""

import importlib.util
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from builders import stack, trainer
from tiny_runs import Program, class_folders, program, save_film
from torch import Tensor, nn

from xray_classifier.callbacks import Callback, Checkpoints
from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.errors import NonFiniteError
from xray_classifier.fingerprints import data_changes, fingerprint_table
from xray_classifier.history import Run
from xray_classifier.resume import training_state
from xray_classifier.trainer import Trainer

__all__ = ["program"]

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "campaign_durability.py"
SEED = 20261125

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork and no such signals")


def campaigns() -> ModuleType:
    """The script as a module."""
    if "campaign_durability" not in sys.modules:
        spec = importlib.util.spec_from_file_location("campaign_durability", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["campaign_durability"] = module  # where dataclasses look for it
        spec.loader.exec_module(module)
    return sys.modules["campaign_durability"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The unbroken run, and a nursery to start others in."""
    with campaigns().nursery() as nest:
        yield campaigns().Truth(nest, tmp_path_factory.mktemp("durability"))


def rng() -> random.Random:
    return random.Random(SEED)


@pytest.fixture(scope="module")
def may_trace(truth: Any) -> None:
    """Skip where system calls cannot be watched."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    try:
        out = truth.new_folder()
        campaigns().traced(truth, ["config", "list"], out / "said")
    except PermissionError as error:
        pytest.skip(f"strace may not watch a process here: {error}")


@posix
def test_ten_kills_in_a_row_cost_nothing(truth: Any) -> None:
    tally = campaigns().kills(truth, rng(), 10 / 200)
    assert tally.failures == []
    assert tally.in_a_row == 10


@posix
def test_kills_inside_a_durable_write_cost_nothing(truth: Any) -> None:
    tally = campaigns().window(truth, rng(), 10 / 50)
    assert tally.failures == []
    assert tally.in_a_row == 10


@posix
def test_a_damaged_checkpoint_fails_the_campaign(truth: Any) -> None:
    """What the campaigns rest on: a flipped byte is reported, a changed weight seen."""
    copy = truth.new_folder() / truth.run.name
    shutil.copytree(truth.run, copy)
    assert campaigns().unsound(copy) == []
    assert campaigns().end_of(copy) == truth.end
    last = copy / "checkpoints" / "last.safetensors"
    raw = bytearray(last.read_bytes())
    raw[-1] ^= 1
    last.write_bytes(raw)
    assert len(campaigns().unsound(copy)) == 1
    (copy / "data" / ".manifest.csv.abcdefgh").touch()
    assert campaigns().leftovers(copy) == ["data/.manifest.csv.abcdefgh"]


@posix
@pytest.mark.usefixtures("may_trace")
def test_every_file_of_a_run_is_written_synced_renamed_and_its_folder_synced(truth: Any) -> None:
    tally = campaigns().order(truth, rng(), 1.0)
    assert tally.failures == []
    assert tally.n > 60  # each step's state, each epoch's history, and more


@posix
@pytest.mark.usefixtures("may_trace")
def test_a_failing_disk_is_told_and_costs_no_checkpoint(truth: Any) -> None:
    tally = campaigns().faults(truth, rng(), 8 / 700)
    assert tally.failures == []
    assert tally.n >= 4


TRACE = """\
7 openat(AT_FDCWD</>, "/r/.a.12345678", O_RDWR|O_CREAT|O_EXCL, 0600) = 3</r/.a.12345678>
7 write(3</r/.a.12345678>, ""..., 10) = 10
7 fsync(3</r/.a.12345678> <unfinished ...>
8 write(9</r/other>, ""..., 10) = 10
7 <... fsync resumed>) = 0
7 rename("/r/.a.12345678", "/r/a") = 0
7 openat(AT_FDCWD</>, "/r", O_RDONLY|O_CLOEXEC) = 4</r>
7 fsync(4</r>) = 0
"""


def breaches(trace: str) -> list[str]:
    """What the campaign finds in a trace of process 7."""
    calls = campaigns().parse_trace(trace, 7)
    found = campaigns().disorder(calls, Path("/r"))[1]
    assert isinstance(found, list)
    return found


@posix
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", []),
        ("7 fsync(4</r>) = 0\n", "", ["/r/a: its rename was never made durable"]),
        ("7 <... fsync resumed>) = 0", "", ["/r/a: renamed before its content was durable"]),
        ("resumed>) = 0", "resumed>) = -1 EIO (Input/output error) (INJECTED)",
         ["/r/a: renamed before its content was durable"]),
        ("7 rename", '7 write(3</r/.a.12345678>, ""..., 1) = 1\n7 rename',
         ["/r/a: renamed before its content was durable"]),
        ("7 rename", '7 openat(AT_FDCWD</>, "/r/a", O_WRONLY|O_TRUNC) = 5</r/a>\n7 rename',
         ["/r/a: truncated"]),
        ("7 rename", '7 unlink("/r/a") = 0\n7 rename', ["/r/a: unlinked"]),
    ],
)  # fmt: skip
def test_the_campaign_sees_each_breach_of_the_order(
    old: str, new: str, expected: list[str]
) -> None:
    assert breaches(TRACE.replace(old, new) if old else TRACE) == expected


@posix
def test_of_two_who_resume_one_run_one_trains_and_the_other_leaves(truth: Any) -> None:
    tally = campaigns().races(truth, rng(), 5 / 50)
    assert tally.failures == []
    assert tally.n == 5


@posix
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGUSR1", 75)])
def test_a_signal_saves_at_the_step_and_says_how_to_go_on(name: str, code: int, truth: Any) -> None:
    out = truth.new_folder()
    words = [*truth.words(out), "train.epochs=100000", "train.checkpoint_every={steps: null}"]
    pid = truth.nest.start(words, out / "said")
    while not list(out.glob("*_c/checkpoints/last.safetensors")):
        time.sleep(0.05)
    os.kill(pid, signal.Signals[name])
    assert truth.nest.wait(pid) == code
    run = campaigns().run_in(out)
    state = load_checkpoint(run / "checkpoints" / "last.safetensors").content["counters"]
    said = (out / "said").read_text()
    assert f"stopped by {name} after epoch {state['epoch']}, step {state['step']}" in said
    assert f"train --resume {run}" in said


class At(Callback):
    """Does something after a step."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step = step
        self.act = act

    def on_step_end(self, run: Run) -> None:
        if run.step == self.step:
            self.act()


class Poisoned(nn.Module):
    """Gives NaN once it is switched on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.on = False

    def forward(self, *inputs: Tensor) -> Tensor:
        found: Tensor = self.inner(*inputs)
        return found * math.nan if self.on else found


def poison(of: Trainer, where: str, value: float) -> Callable[[], None]:
    """A function that spoils one part of a trainer from then on."""
    weight = of.model.get_parameter("output.weight")

    def spoil_weight() -> None:
        with torch.no_grad():
            weight[0, 0] = value

    if where == "weight":
        return spoil_weight
    if where == "gradient":
        return lambda: weight.register_hook(lambda grad: grad * value) and None
    name = {"input": "standardize", "loss": "loss"}[where]
    module: Any = Poisoned(getattr(of, name))
    setattr(of, name, module)
    return lambda: setattr(module, "on", True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["input", "loss", "gradient", "weight"])
def test_what_is_not_finite_stops_the_run_before_it_reaches_a_checkpoint(
    where: str, value: float, tmp_path: Path
) -> None:
    of = trainer(stack((6,)), epochs=4)
    saving = Checkpoints(tmp_path, None, lambda: ({}, {}), lambda: training_state(of), 1, None)
    of.callbacks = [saving, At(7, poison(of, where, value))]
    with pytest.raises(NonFiniteError, match=r"epoch 2, step 8\b") as caught:
        of.fit()
    assert caught.value.exit_code == 7
    assert of.run.step == 7
    state = load_checkpoint(tmp_path / "last.safetensors")
    assert state.content["counters"]["step"] == 7
    assert all(bool(torch.isfinite(t).all()) for t in state.tensors.values())


def test_weights_that_became_infinite_in_a_step_are_not_saved_and_the_step_is_named(
    tmp_path: Path,
) -> None:
    of = trainer(stack((6,)), epochs=4)
    saving = Checkpoints(tmp_path, None, lambda: ({}, {}), lambda: training_state(of), 1, None)
    of.callbacks = [At(7, poison(of, "weight", math.inf)), saving]
    with pytest.raises(NonFiniteError, match=r"step 7: model\.output\.weight holds NaN"):
        of.fit()
    assert load_checkpoint(tmp_path / "last.safetensors").content["counters"]["step"] == 6


IDS = ["a.png", "b.png", "sub/c.png", "d.png"]


def table(
    ids: list[str] = IDS,
    targets: tuple[float, ...] = (0, 1, 0, 1),
    splits: tuple[str, ...] = ("train", "train", "val", ""),
    digests: tuple[str, ...] = ("11", "22", "33", "44"),
) -> str:
    return fingerprint_table(ids, targets, splits, digests)


def test_equal_tables_in_any_order_differ_in_nothing() -> None:
    turned = table(IDS[::-1], (1, 0, 1, 0), ("", "val", "train", "train"), ("44", "33", "22", "11"))
    assert turned == table()
    assert data_changes(table(), turned) == []


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (table(IDS[:3], (0, 1, 0), ("train", "train", "val"), ("11", "22", "33")),
         ["removed: d.png"]),
        (table([*IDS, "e.png"], (0, 1, 0, 1, 1), ("train", "train", "val", "", "test"),
               ("11", "22", "33", "44", "55")), ["added: e.png"]),
        (table(digests=("11", "2x", "33", "44")), ["edited: b.png"]),
        (table(targets=(0, 0, 0, 1)), ["relabelled: b.png, from 1 to 0"]),
        (table(splits=("val", "train", "val", "test")),
         ["moved: a.png, from train to val", "moved: d.png, from none to test"]),
        (table(["a.png", "z.png", "sub/c.png", "d.png"]), ["renamed: b.png, now z.png"]),
        (table(["a.png", "z.png", "sub/c.png", "d.png"], digests=("11", "99", "33", "44")),
         ["removed: b.png", "added: z.png"]),
        (table(targets=(0, 0, 0, 1), digests=("11", "2x", "33", "44")),
         ["edited: b.png", "relabelled: b.png, from 1 to 0"]),
    ],
)  # fmt: skip
def test_each_change_of_the_data_is_named(now: str, expected: list[str]) -> None:
    assert data_changes(table(), now) == expected


HOSTILE = ["=HYPERLINK(1)", "a,b\n.png", "c\r.png", '"q"', "\udcff.png", "-1", "ü\u2028.png", "'x"]


def test_hostile_names_compare_like_any_other() -> None:
    n = len(HOSTILE)
    before = fingerprint_table(HOSTILE, [0.0] * n, ["train"] * n, [str(i) for i in range(n)])
    assert data_changes(before, before) == []
    now = fingerprint_table(HOSTILE, [0.0] * n, ["train"] * n, [f"{i}x" for i in range(n)])
    lines = data_changes(before, now)
    assert len(lines) == n
    assert all(line.isprintable() for line in lines)


def test_another_table_is_not_compared() -> None:
    with pytest.raises(ValueError, match="expected the columns"):
        data_changes("path,label\na.png,0.0\n", table())


SMALL = (
    "data.image.size=16", "data.workers=1", "model.hidden=[4]", "train.batch_size=8",
    "train.device=cpu", "train.threads=1", "data.labels={healthy: [healthy], sick: [sick]}",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on two folders of films: `data` and `runs` side by side."""
    from xray_classifier.cli import main

    place = tmp_path_factory.mktemp("changed")
    class_folders(place / "data", {"healthy": 14, "sick": 14})
    (place / "runs").mkdir()
    words = ["train", "-c", "demo", "-q", "-o", str(place / "runs"), "--name", "c", *SMALL]
    keys = ["data.source=folder", f"data.path={place / 'data'}", "train.epochs=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xray_classifier.judgement_files.judgement_figures", lambda *a: {})
        assert main([*words, *keys]) == 0
    return place


@pytest.fixture
def changed(folder_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Copies of the data and the run that a test may change."""
    monkeypatch.setattr("xray_classifier.judgement_files.judgement_figures", lambda *a: {})
    shutil.copytree(folder_run / "data", tmp_path / "data")
    run = next((folder_run / "runs").glob("*_c"))
    shutil.copytree(run, tmp_path / run.name)
    return tmp_path / "data", tmp_path / run.name


def add(data: Path) -> None:
    save_film(data / "healthy" / "new.png", 999)


def remove(data: Path) -> None:
    (data / "sick" / "film003.png").unlink()


def rename(data: Path) -> None:
    (data / "sick" / "film003.png").rename(data / "sick" / "other.png")


def relabel(data: Path) -> None:
    (data / "sick" / "film003.png").rename(data / "healthy" / "was_sick.png")


def edit(data: Path) -> None:
    save_film(data / "sick" / "film003.png", 998)


def edit_many(data: Path) -> None:
    for number in range(12):
        save_film(data / "sick" / f"film{number:03d}.png", 900 + number)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (add, "added: healthy/new.png"),
        (remove, "removed: sick/film003.png"),
        (rename, "sick/other.png"),
        (relabel, "healthy/was_sick.png"),
        (edit, "edited: sick/film003.png"),
        (edit_many, "... and 2 more"),
    ],
)
def test_data_that_changed_since_are_named_on_resume(
    change: Callable[[Path], None], named: str, changed: tuple[Path, Path], program: Program
) -> None:
    data, run = changed
    change(data)
    said = program("train", "--resume", run, f"data.path={data}", "train.epochs=2")
    assert said.code == 3
    assert "the data changed since" in said.err
    assert named in said.err
    assert 2 <= len(said.err.splitlines()) <= 12


def test_a_touched_file_and_a_moved_root_are_no_change(
    changed: tuple[Path, Path], program: Program
) -> None:
    data, run = changed
    for path in data.rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    said = program("train", "--resume", run, f"data.path={data}", "train.epochs=2", "-q")
    assert (said.code, said.err) == (0, "")


def test_a_run_without_the_table_still_notices(
    changed: tuple[Path, Path], program: Program
) -> None:
    data, run = changed
    (run / "data" / "fingerprints.csv").unlink()
    remove(data)
    said = program("train", "--resume", run, f"data.path={data}", "train.epochs=2")
    assert said.code == 3
    assert "film003" not in said.err


def test_resume_goes_on_from_the_state_before_a_damaged_one(
    changed: tuple[Path, Path], program: Program
) -> None:
    data, run = changed
    keys = (f"data.path={data}", "train.checkpoint_every.steps=1")
    assert program("train", "--resume", run, "train.epochs=3", *keys).code == 0
    last = run / "checkpoints" / "last.safetensors"
    before = load_checkpoint(last)
    last.write_bytes(last.read_bytes()[:-1])
    said = program("train", "--resume", run, *keys)
    assert said.code == 0
    assert "previous.safetensors" in said.out
    assert "is damaged" in said.out
    after = load_checkpoint(last)
    assert all(torch.equal(after.tensors[n], before.tensors[n]) for n in before.tensors)
    last.write_bytes(b"")
    last.with_name("previous.safetensors").write_bytes(b"")
    assert program("train", "--resume", run, *keys).code == 5


def test_what_a_dead_owner_left_is_gone_after_the_next_start(
    changed: tuple[Path, Path], program: Program
) -> None:
    data, run = changed
    left = run / "checkpoints" / ".last.safetensors.abcd1234"
    left.write_bytes(b"half")
    assert program("train", "--resume", run, f"data.path={data}").code == 0
    assert not left.exists()
    assert left.name in (run / "log.txt").read_text()


def test_the_doctor_proves_resume(program: Program) -> None:
    from xray_classifier import verify_resume

    before = torch.random.get_rng_state()
    proof = verify_resume.verify_resume(("data.cache=null", "train.threads=1"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert proof.holds
    assert {c.sha256 for c in proof.comparisons} == {proof.sha256}
    assert proof.comparisons[-1].stops == tuple(range(1, proof.steps))
    assert (1,) in {c.stops for c in proof.comparisons}
    assert not list(Path(tempfile.gettempdir()).glob("xray-classifier-*/whole"))


@pytest.mark.parametrize("differing", [(), ("last: model.output.bias",)])
def test_the_doctor_says_what_it_found(
    differing: tuple[str, ...], program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xray_classifier import verify_resume

    compared = (
        verify_resume.Comparison((7,), "a" * 64, ()),
        verify_resume.Comparison((1, 2, 3), "b" * 64, differing),
    )
    proof = verify_resume.ResumeProof(60, "cpu", 1, "a" * 64, compared, 12.0)
    monkeypatch.setattr(verify_resume, "verify_resume", lambda: proof)
    said = program("doctor", "--verify-resume")
    assert said.code == (1 if differing else 0)
    assert "stopped after step 7" in said.out
    assert ("1 tensors DIFFER: last: model.output.bias" in said.out) == bool(differing)
    found = program("doctor", "--verify-resume", "--json")
    assert found.code == said.code
    assert found.json["resume"]["holds"] == (not differing)
    assert found.json["resume"]["comparisons"][1]["differing"] == list(differing)


def test_a_tensor_that_differs_in_one_bit_type_or_shape_is_seen() -> None:
    from xray_classifier.verify_resume import differing_tensors, digest

    one = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor(3)}
    for changed_value in (
        {**one, "a": torch.tensor([-0.0, 1.0])},
        {**one, "a": torch.tensor([[0.0, 1.0]])},
        {**one, "a": torch.tensor([0.0, 1.0], dtype=torch.float64)},
        {"b": one["b"]},
    ):
        assert differing_tensors(one, changed_value) == ("a",)
        assert digest(one) != digest(changed_value)
    assert differing_tensors(one, {k: v.clone() for k, v in one.items()}) == ()
