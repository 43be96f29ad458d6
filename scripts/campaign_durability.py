#!/usr/bin/env python3
"""Kill, starve and damage real training runs, and count what was lost.

    scripts/campaign_durability.py [flips|kills|window|order|faults|races ...] [--seed N] [--part F]

Each campaign trains tiny runs on phantoms in a temporary folder:

    flips    10,000 flipped bytes and 1,000 truncations of each kind of checkpoint: all refused
    kills    200 SIGKILLs at random moments, ten in a row: every checkpoint loads, nothing temporary
             stays, each run ends with the tensors and the history of the one that was not killed
    window   50 SIGKILLs about the system calls of a durable write: the same
    order    one whole run under strace: write, fsync, rename, fsync of the folder, in this order
    faults   each write, fsync, rename, link and openat in the run folder fails once with ENOSPC,
             EIO and EACCES: done, or exit 6 (5 where a checkpoint could not be read) that names a
             path and the reason; checkpoints load
    races    50 pairs of `--resume` of one run: one trains, the other leaves with exit 6

--part 0.05 does a twentieth of each. Prints the seed, and per campaign N, the failures and, where
there were none, the bound on their rate: 3 / N at a confidence of 95 %.

Needs this project to be installed, Linux, and strace for `order` and `faults`.
Exit codes: 0 no failure, 1 failures, 2 usage.

Sources: 3 / N is the rule of three, Hanley & Lippman-Hand 1983, doi:10.1001/jama.249.13.1743. To
fail each system call in turn is what SQLite's I/O error tests do, https://sqlite.org/testing.html.
"""

import argparse
import contextlib
import ctypes
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN = (
    "data.phantoms.n_images=160",
    "data.image.size=16",
    "data.workers=1",
    "model.hidden=[16]",
    "model.dropout=0.4",
    "train.batch_size=16",
    "train.epochs=6",
    "train.early_stopping.patience=1000",
    "train.checkpoint_every.steps=1",
    "train.device=cpu",
    "train.threads=1",
)
LONG_RUN = ("train.epochs=40",)
SHORT_RUN = ("train.epochs=2",)
KILLS_IN_A_ROW = 10
LIFE_SHARE = 0.15
"""The longest life before a kill, as a share of the unbroken run's; ten of them leave it undone."""

KILL_CALLS = ("fsync", "replace", "link", "chmod")
FAULT_CALLS = ("write", "fsync", "rename", "link", "openat")
ERRORS = ("ENOSPC", "EIO", "EACCES")
TRACED = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,"
TRACED += "unlinkat,truncate,ftruncate"
APPENDED = ("log.txt", "run.lock")
"""Files of a run that are not replaced as a whole."""

ALLOW_ANY_TRACER = (0x59616D61, -1)
"""prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY), for systems where only parents may trace."""


@dataclass
class Tally:
    """What a campaign came to.

    Attributes:
        name: Of the campaign.
        n: What was tried.
        failures: One sentence each.
        in_a_row: The most kills that one run went through.
    """

    name: str
    n: int = 0
    failures: list[str] = field(default_factory=list)
    in_a_row: int = 0

    def line(self) -> str:
        """One line for the report."""
        bound = "" if self.failures or not self.n else f", rate below {3 / self.n:.2g} (95 %)"
        row = f", up to {self.in_a_row} kills in a row" if self.in_a_row else ""
        return f"{self.name:<8} N {self.n:>6}  failures {len(self.failures):>4}{bound}{row}"


def main() -> int:
    """Run the campaigns that were asked for."""
    options = _parse()
    print(f"seed {options.seed}", flush=True)
    tallies = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch, nursery() as nest:
        truth = Truth(nest, Path(scratch).resolve())
        for name in options.campaigns or CAMPAIGNS:
            start_s = time.monotonic()
            tally = CAMPAIGNS[name](truth, random.Random(options.seed), options.part)
            tallies.append(tally)
            print(f"{tally.line()}  in {time.monotonic() - start_s:.0f} s", flush=True)
            for failure in tally.failures:
                print(f"    {failure}", flush=True)
    return int(any(tally.failures for tally in tallies))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=", ".join(CAMPAIGNS))
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--part", type=float, default=1.0, help="share of each campaign")
    parser.add_argument("--scratch", type=Path, help="where runs are made; a disk, not memory")
    options = parser.parse_args()
    unknown = set(options.campaigns) - set(CAMPAIGNS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(CAMPAIGNS)}")
    return options


# A nursery is a process that has imported the program and forks a child for each command, so that a
# run starts in milliseconds, and strace sees the system calls of the run alone.


class Nursery:
    """Starts commands of the program in processes of their own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def _ask(self, **order: Any) -> int:
        assert self.process.stdin is not None  # noqa: S101 - for the type checker
        assert self.process.stdout is not None  # noqa: S101
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(
        self,
        words: Sequence[object],
        log: Path,
        kill: tuple[str, int] | None = None,
        hold: Path | None = None,
    ) -> int:
        """Begin `xray-classifier WORDS`; the number of its process.

        Args:
            words: The command line.
            log: Gets its output.
            kill: Name and count of the call in `os` before which it kills itself.
            hold: It waits until this file is gone.
        """
        return self._ask(
            do="start",
            words=[str(word) for word in words],
            log=str(log),
            kill=kill,
            hold=None if hold is None else str(hold),
        )

    def wait(self, pid: int) -> int:
        """The exit code of a command, negative for a signal, when it has ended."""
        return self._ask(do="wait", pid=pid)

    def run(self, words: Sequence[object], log: Path, kill: tuple[str, int] | None = None) -> int:
        """Begin a command and wait for its end."""
        return self.wait(self.start(words, log, kill))


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery that is gone at the end of the block."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__, "--nursery"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None  # noqa: S101
        process.stdout.readline()  # it is ready
        yield Nursery(process)
    finally:
        process.communicate()  # the end of its input ends it


def nurse() -> None:
    """The nursery's own loop: orders come in, numbers go out, a line each."""
    # Imported ahead of the forks, most of it for its slowness alone.
    import jinja2  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import torch._dynamo  # noqa: F401

    from xray_classifier import cli, judgement_files, training  # noqa: F401

    # Figures take most of a tiny run's time and say nothing about durability.
    judgement_files.judgement_figures = lambda judgement, curves: {}
    print(0, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "wait":
            print(os.waitstatus_to_exitcode(os.waitpid(order["pid"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _grow_up(order, cli.main)
        print(pid, flush=True)


def _grow_up(order: dict[str, Any], command: Callable[[list[str]], int]) -> None:
    """Run a command in a fresh child of the nursery; never returns."""
    code = 99
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if order["kill"] is not None:
            _kill_at(*order["kill"])
        if order["hold"] is not None:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(*ALLOW_ANY_TRACER, 0, 0, 0)
            while Path(order["hold"]).exists():
                time.sleep(0.01)
        code = command(order["words"])
        sys.stdout.flush()
    finally:
        os._exit(code)


def _kill_at(name: str, count: int) -> None:
    """Let this process die by SIGKILL instead of its `count`-th call of `os.NAME`."""
    left = [count]
    plain = getattr(os, name)

    def deadly(*arguments: Any, **keys: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments, **keys)

    setattr(os, name, deadly)


class Truth:
    """The unbroken run that all others are compared with.

    Args:
        nest: Where runs are started.
        scratch: An empty folder.
        overrides: Keys on top of RUN.
    """

    def __init__(self, nest: Nursery, scratch: Path, overrides: Sequence[str] = ()) -> None:
        self.nest = nest
        self.scratch = scratch
        self.keys = [*RUN, *overrides]
        self._number = 0
        out = self.new_folder()
        start_s = time.monotonic()
        code = nest.run(self.words(out), out / "said")
        self.elapsed_s = time.monotonic() - start_s
        if code != 0:
            raise RuntimeError(f"the unbroken run ended with {code}: {(out / 'said').read_text()}")
        self.run = run_in(out)
        self.end = end_of(self.run)

    def new_folder(self) -> Path:
        """An empty folder for one attempt."""
        self._number += 1
        folder = self.scratch / f"attempt{self._number}"
        folder.mkdir()
        return folder

    def words(self, out: Path) -> list[object]:
        """The command that trains this run below `out`, or goes on with the run there."""
        from xray_classifier.resume import has_state

        with contextlib.suppress(StopIteration):
            run = run_in(out)
            if has_state(run):
                return ["train", "--resume", run, "-q"]
            shutil.rmtree(run)
        return ["train", "-c", "demo", "-q", "-o", out, "--name", "c", *self.keys]


def run_in(out: Path) -> Path:
    """The one run folder below `out`."""
    return next(out.glob("*_c"))


def end_of(run: Path) -> tuple[str, list[list[str]]]:
    """Digest of all tensors of a finished run, and its history without the seconds."""
    from xray_classifier.verify_resume import digest, end_tensors

    rows = [line.split(",")[:-1] for line in (run / "history.csv").read_text().splitlines()]
    return digest(end_tensors(run)), rows


def unsound(run: Path) -> list[str]:
    """Checkpoints of a run that cannot be loaded, and why."""
    from xray_classifier.checkpoint import load_checkpoint
    from xray_classifier.errors import XrayError

    found = []
    for path in (run / "checkpoints").glob("[!.]*.safetensors"):
        try:
            load_checkpoint(path)
        except XrayError as error:
            found.append(str(error))
    return found


def leftovers(run: Path) -> list[str]:
    """Hidden files in a run folder; a finished run has none."""
    return [str(path.relative_to(run)) for path in run.rglob(".*")]


def flips(truth: Truth, rng: random.Random, part: float) -> Tally:
    """Damage each kind of checkpoint; every damaged file must be refused."""
    from xray_classifier.checkpoint import load_checkpoint
    from xray_classifier.errors import CheckpointError

    tally = Tally("flips")
    for kind in ("best", "last"):
        whole = (truth.run / "checkpoints" / f"{kind}.safetensors").read_bytes()
        path = truth.new_folder() / f"{kind}.safetensors"
        for trial in range(round(11_000 * part)):
            damaged = bytearray(whole)
            place = rng.randrange(len(whole))
            if trial % 11:
                damaged[place] ^= rng.randrange(1, 256)
            else:
                del damaged[place:]
            path.write_bytes(damaged)
            tally.n += 1
            with contextlib.suppress(CheckpointError):
                load_checkpoint(path)
                tally.failures.append(f"{kind}: damage at byte {place} was accepted")
    return tally


Death = Callable[[Path, float], int]
"""Starts or resumes the run in a folder and ends it; takes that folder and a measure of how long it
may live, from 1 down; gives the exit code."""


def _chains(truth: Truth, tally: Tally, n: int, death: Death) -> Tally:
    """Let runs die ten times in a row and then end, until `n` deaths are counted."""
    life = 1.0
    while tally.n < n or (tally.in_a_row < min(n, KILLS_IN_A_ROW) and not tally.failures):
        out, died = truth.new_folder(), 0
        while died < min(KILLS_IN_A_ROW, n):
            code = death(out, life)
            if code == 0:
                life /= 2  # it was done before it could be killed
                break
            if code != -signal.SIGKILL:
                tally.failures.append(f"exit {code}: {(out / 'said').read_text()[-300:]}")
                break
            died += 1
            tally.failures += [bad for run in out.glob("*_c") for bad in unsound(run)]
        tally.n += died
        tally.in_a_row = max(tally.in_a_row, died)
        code = truth.nest.run(truth.words(out), out / "said")
        if code != 0:
            tally.failures.append(f"the end: exit {code}: {(out / 'said').read_text()[-300:]}")
            continue
        run = run_in(out)
        tally.failures += [f"left behind: {name}" for name in leftovers(run)]
        if end_of(run) != truth.end:
            tally.failures.append(f"a run killed {died} times ended otherwise")
        shutil.rmtree(out)
    return tally


def kills(truth: Truth, rng: random.Random, part: float) -> Tally:
    """SIGKILL at random moments."""
    longer = Truth(truth.nest, truth.new_folder(), LONG_RUN)

    def death(out: Path, life: float) -> int:
        pid = truth.nest.start(longer.words(out), out / "said")
        time.sleep(rng.uniform(0.0, LIFE_SHARE * life * longer.elapsed_s))
        os.kill(pid, signal.SIGKILL)  # not yet waited for, so the number is still its own
        return truth.nest.wait(pid)

    return _chains(longer, Tally("kills"), round(200 * part), death)


def window(truth: Truth, rng: random.Random, part: float) -> Tally:
    """SIGKILL before one of the calls that make a write durable."""
    longer = Truth(truth.nest, truth.new_folder(), LONG_RUN)

    def death(out: Path, life: float) -> int:
        kill = (rng.choice(KILL_CALLS), rng.randint(1, max(1, round(40 * life))))
        return truth.nest.run(longer.words(out), out / "said", kill)

    return _chains(longer, Tally("window"), round(50 * part), death)


def races(truth: Truth, rng: random.Random, part: float) -> Tally:
    """Two processes resume one run at once."""
    tally, out = Tally("races"), truth.new_folder()
    run = out / truth.run.name
    shutil.copytree(truth.run, run)
    last = run / "checkpoints" / "last.safetensors"
    words = ["train", "--resume", run, "-q", "train.epochs=100000"]
    for _ in range(round(50 * part)):
        tally.n += 1
        pids = [truth.nest.start(words, out / f"said{number}") for number in range(2)]
        first, second = rng.sample(pids, 2)
        codes = _both_ends(truth.nest, first, second, last)
        if sorted(codes) != [6, 75]:
            tally.failures.append(f"the two ended with {codes}")
        tally.failures += unsound(run)
    return tally


def _both_ends(nest: Nursery, one: int, other: int, last: Path) -> tuple[int, int]:
    """Exit codes of two rivals: the winner is asked to stop only when the loser has left."""
    before = last.stat().st_ino
    _await(lambda: _is_zombie(one) or _is_zombie(other))
    _await(lambda: last.stat().st_ino != before)  # the winner trains, and hears signals
    for pid in (one, other):
        if not _is_zombie(pid):
            os.kill(pid, signal.SIGTERM)
    return nest.wait(one), nest.wait(other)


def _await(happened: Callable[[], bool]) -> None:
    """Wait until something has happened, at most a minute."""
    for _ in range(1200):
        if happened():
            return
        time.sleep(0.05)


def _is_zombie(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "Z"


@dataclass(frozen=True)
class Call:
    """One system call that strace saw.

    Attributes:
        name: Such as fsync.
        arguments: As strace prints them, descriptors with their path.
        result: What it returned; -1 for an error.
        count: How many calls of this name the process had made, this one included.
        injected: Whether strace made it fail.
    """

    name: str
    arguments: str
    result: int
    count: int
    injected: bool

    def paths(self) -> list[str]:
        """Every path among the arguments."""
        return re.findall(r'[<"](/[^>"]*)[>"]', self.arguments)

    @property
    def works(self) -> bool:
        """Whether it did what it was asked."""
        return self.result >= 0


def traced(
    truth: Truth, words: Sequence[object], log: Path, *more: str, calls: str = TRACED
) -> tuple[int, list[Call]]:
    """Run a command under strace; its exit code and its system calls in order.

    Args:
        truth: Has the nursery.
        words: The command line.
        log: Gets its output.
        more: Further options of strace.
        calls: Names of system calls, comma-separated.
    """
    folder = truth.new_folder()
    hold, report = folder / "hold", folder / "trace"
    hold.touch()
    pid = truth.nest.start(words, log, hold=hold)
    options = ["-f", "-y", "-s", "0", "-e", f"trace={calls}", *more, "-o", str(report)]
    strace = subprocess.Popen(
        ["strace", *options, "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    assert strace.stderr is not None  # noqa: S101
    said = strace.stderr.readline()
    if "attached" not in said:
        os.kill(pid, signal.SIGKILL)
    hold.unlink()
    code = truth.nest.wait(pid)
    strace.communicate()
    if "attached" not in said:
        raise PermissionError(errno.EPERM, said)
    return code, parse_trace(report.read_text(errors="replace"), pid)


def parse_trace(text: str, pid: int) -> list[Call]:
    """The calls of one process in the report of `strace -f -y -o`."""
    found: list[Call] = []
    counts: dict[str, int] = {}
    pattern = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?)(.*)")
    begun = ""
    for line in text.splitlines():
        number, _, rest = line.partition(" ")
        if number != str(pid):
            continue
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun = rest.removesuffix("<unfinished ...>")
            continue
        if rest.startswith("<... "):
            rest = begun + rest.partition(" resumed>")[2]
        match = pattern.match(rest)
        if match is None:
            continue
        name, arguments, result, tail = match.groups()
        counts[name] = counts.get(name, 0) + 1
        value = -1 if result == "?" else int(result)
        found.append(Call(name, arguments, value, counts[name], "(INJECTED)" in tail))
    return found


def order(truth: Truth, rng: random.Random, part: float) -> Tally:
    """Every name in the run folder became durable in the right order."""
    tally, out = Tally("order"), truth.new_folder()
    code, calls = traced(truth, truth.words(out), out / "said")
    if code != 0:
        tally.failures.append(f"exit {code}: {(out / 'said').read_text()[-300:]}")
        return tally
    renamed, tally.failures = disorder(calls, run_in(out))
    tally.n = len(renamed)
    for path in sorted(run_in(out).rglob("*")):
        if path.is_file() and path.name not in APPENDED and str(path) not in renamed:
            tally.failures.append(f"{path.name} was not written under another name first")
    return tally


def disorder(calls: Sequence[Call], run: Path) -> tuple[list[str], list[str]]:
    """Names that renames made in a run folder, and each breach of the order of a durable write."""
    written: dict[str, int] = {}
    synced: dict[str, int] = {}
    unsynced_folders: dict[str, str] = {}
    renamed: list[str] = []
    breaches: list[str] = []
    for place, call in enumerate(calls):
        paths = [p for p in call.paths() if p.startswith(str(run))]
        if not paths or not call.works:
            continue
        path, last = paths[0], paths[-1]
        if call.name in ("write", "pwrite64"):
            written[path] = place
        elif call.name in ("fsync", "fdatasync"):
            synced[path] = place
            unsynced_folders.pop(path, None)
        elif call.name.startswith("link"):
            written[last], synced[last] = written.get(path, 0), synced.get(path, -1)
        elif call.name.startswith("rename"):
            folder = str(Path(last).parent)
            if synced.get(path, -1) < written.get(path, 0):
                breaches.append(f"{last}: renamed before its content was durable")
            if folder in unsynced_folders:
                breaches.append(f"{last}: renamed before {unsynced_folders[folder]} was durable")
            unsynced_folders[folder] = last
            written[last], synced[last] = written.get(path, 0), synced.get(path, -1)
            renamed.append(last)
        elif call.name.startswith("unlink") and not Path(path).name.startswith("."):
            breaches.append(f"{path}: unlinked")
        elif "trunc" in call.name.lower() or "O_TRUNC" in call.arguments:
            breaches.append(f"{path}: truncated")
    breaches += [f"{last}: its rename was never made durable" for last in unsynced_folders.values()]
    return renamed, breaches


def faults(truth: Truth, rng: random.Random, part: float) -> Tally:
    """Each call that touches the folder of a short run fails once."""
    tally, truth = Tally("faults"), Truth(truth.nest, truth.new_folder(), SHORT_RUN)
    out = truth.new_folder()
    _, calls = traced(truth, truth.words(out), out / "said")
    run = run_in(out)
    inside = [c for c in calls if c.name in FAULT_CALLS and touches(c, run)]
    plan = [(call.name, call.count, error) for call in inside for error in ERRORS]
    shutil.rmtree(out)
    for name, count, error in rng.sample(plan, max(1, round(len(plan) * part))):
        trouble = fault(truth, name, count, error)
        tally.n += trouble is not None
        if trouble:
            tally.failures.append(f"{name} number {count} with {error}: {trouble}")
    return tally


def touches(call: Call, run: Path) -> bool:
    """Whether a call names something in the run folder, or the folder."""
    return any(path.startswith(str(run)) for path in call.paths())


def fault(truth: Truth, name: str, count: int, error: str) -> str | None:
    """Let one system call of a run fail.

    Returns:
        What was wrong with the outcome, empty if nothing; None if the call with this number was
        another one this time, outside the run folder.
    """
    out = truth.new_folder()
    inject = f"inject={name}:error={error}:when={count}"
    code, calls = traced(truth, truth.words(out), out / "said", "-e", inject, calls=name)
    said = (out / "said").read_text()
    hit = [call for call in calls if call.injected]
    run = next(out.glob("*_c"), None)
    if not hit or not touches(hit[0], out):
        return None
    bad = [] if run is None else unsound(run)
    if bad:
        return bad[0]
    if code == 0 and (run is None or end_of(run) != truth.end):
        return "it claims to be done, but is not"
    reason = os.strerror(getattr(errno, error))
    refused = code == 6 or (code == 5 and "O_RDONLY" in hit[0].arguments)
    if code != 0 and not (refused and reason in said and str(out) in said):
        return f"exit {code} after {hit[0].arguments}: {said[-300:]}"
    shutil.rmtree(out)
    return ""


Campaign = Callable[[Truth, random.Random, float], Tally]
CAMPAIGNS: dict[str, Campaign] = {
    "flips": flips,
    "kills": kills,
    "window": window,
    "order": order,
    "faults": faults,
    "races": races,
}


if __name__ == "__main__":
    if sys.argv[1:] == ["--nursery"]:
        nurse()
    else:
        sys.exit(main())
