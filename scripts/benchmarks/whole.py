"""The whole job as a user has it: from the command to the finished run, against its peers."""

import csv
import sys
from pathlib import Path

from scripts.benchmarks.place import Place, Raw, Rounds, column
from scripts.benchmarks.processes import ROOT, FailedProcess, forget, timed
from scripts.benchmarks.rows import Row, quotients

TITLE = "the job, whole process"
EVERY_ROUND = True
PLAIN = "plain PyTorch"
PEERS = {
    PLAIN: "plain_pytorch.py",
    "Lightning": "lightning_peer.py",
    "skorch": "skorch_peer.py",
    "fastai": "fastai_peer.py",
    "scikit-learn": "scikit_learn.py",
}
BARE = ("data.audit=off", "train.checkpoint_every={steps: null, minutes: null}")


def measure(place: Place) -> Raw:
    """Seconds of each peer and of ours, cold and warm; peers that failed are named."""
    epochs, raw = place.numbers.epochs, Raw(failed={})
    for peer in PEERS:
        if place.python(peer) is None:
            continue
        try:
            raw |= of_peer(place, peer, epochs, cold=True)
        except FailedProcess as error:
            raw["failed"][peer] = str(error)
            print(f"{peer} failed: {error}", file=sys.stderr)
    raw |= of_ours(place, epochs)
    raw |= {f"warm {key}": s for key, s in of_peer(place, PLAIN, epochs, cold=False).items()}
    return raw


def of_peer(place: Place, peer: str, epochs: int, cold: bool) -> Raw:
    """Seconds of a peer: whole, until the first step, from the first step to the last.

    Raises:
        FailedProcess: It cannot be imported, or failed.
    """
    python = place.python(peer)
    if python is None:
        raise FailedProcess(f"{peer} was not asked for; see --peers")
    if cold:
        forget(place.pictures())
    script = ROOT / "scripts" / "benchmarks" / "peers" / PEERS[peer]
    done = timed([python, script, place.data, str(epochs)], place.new_folder("peer"))
    told = done.last_json()
    return {
        peer: done.seconds,
        f"{peer} to first step": told["first_step_at"] - done.began_at,
        f"{peer} steps": told["last_step_at"] - told["first_step_at"],
    }


def of_ours(place: Place, epochs: int) -> Raw:
    """Seconds of ours: cold, warm, and cold with what may be switched off."""
    cache = place.new_folder("cache")
    raw: Raw = {}
    forget(place.pictures())
    for name in ("cold", "warm"):
        done, run = place.train(cache, epochs)
        raw |= {f"ours {name}": done.seconds, f"ours {name} steps": steps_s(run)}
    forget(place.pictures())
    done, _ = place.train(place.new_folder("cache"), epochs, *BARE)
    return {**raw, "ours bare": done.seconds}


def steps_s(run: Path) -> float:
    """Seconds from the first step to the last, as the run's own history has them.

    They hold whatever the run does between epochs too, such as saving its state.
    """
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        return float(list(csv.DictReader(file))[-1]["elapsed_s"])


def rows(rounds: Rounds) -> list[Row]:
    """Ours against plain PyTorch, with the goals; then the peers against plain PyTorch."""
    plain, plain_warm = column(rounds, PLAIN), column(rounds, f"warm {PLAIN}")
    found = [
        _faster("cold cache", column(rounds, "ours cold"), plain, 5.0),
        _faster("warm cache", column(rounds, "ours warm"), plain_warm, 6.0),
        _faster(
            "warm cache, first step to last",
            column(rounds, "ours warm steps"),
            column(rounds, f"warm {PLAIN} steps"),
            12.0,
        ),
        _faster("cold, audit and state saving off", column(rounds, "ours bare"), plain, None),
    ]
    for peer in PEERS:
        seconds = column(rounds, peer)
        note = "no dropout" if peer == "scikit-learn" else ""
        if seconds and plain and peer != PLAIN:
            ratio = quotients(plain, seconds)
            found.append(Row(peer, seconds, "s", PLAIN, plain, ratio, note=note))
    return [row for row in found if row.measured]


def _faster(
    what: str, ours: tuple[float, ...], plain: tuple[float, ...], goal: float | None
) -> Row:
    ratio = quotients(plain, ours) if plain and ours else ()
    return Row(what, ours, "s", PLAIN, plain, ratio, goal=goal)
