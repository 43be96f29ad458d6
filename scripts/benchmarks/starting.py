"""How long one waits for an answer: `--help`, `predict` on one film, `train --dry-run`.

Each is timed against a process that does nothing but `import torch`, started in the same round; of
a few starts the shortest counts.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from scripts.benchmarks.place import Place, Raw, Rounds, column
from scripts.benchmarks.processes import forget, timed
from scripts.benchmarks.rows import Row, differences

Start = Callable[[Place], float]


def help_s(place: Place) -> float:
    """Seconds of `--help`."""
    return place.run("--help").seconds


def import_torch_s(place: Place) -> float:
    """Seconds of an interpreter that imports torch."""
    return timed([sys.executable, "-c", "import torch"], place.scratch).seconds


def predict_s(place: Place) -> float:
    """Seconds of `predict` on one film."""
    out = place.new_folder("predictions") / "one.csv"
    return place.run("predict", place.trained(), place.pictures()[0], "-o", out).seconds


def dry_run_cold_s(place: Place) -> float:
    """Seconds of `train --dry-run` that decodes everything."""
    forget(place.pictures())
    return _dry_run_s(place, place.new_folder("cache"))


def dry_run_warm_s(place: Place) -> float:
    """Seconds of `train --dry-run` that finds everything decoded."""
    return _dry_run_s(place, place.cache())


def _dry_run_s(place: Place, cache: Path) -> float:
    job = place.job(place.numbers.epochs)
    return place.run("train", "-c", job, "--dry-run", f"data.cache={cache}").seconds


@dataclass(frozen=True)
class Starting:
    """One subject of the benchmark: some commands that should answer soon.

    Attributes:
        TITLE: Of the section.
        commands: Name of a row to what is timed.
        goal_s: Seconds that each may take, beyond `import torch` where `beyond` is set.
        beyond: Whether the import of torch is taken off.
        prepares: Whether a trained run is needed before anything is timed.
    """

    TITLE: str
    commands: dict[str, Start]
    goal_s: float
    beyond: bool = True
    prepares: bool = False
    EVERY_ROUND: ClassVar[bool] = True

    def measure(self, place: Place) -> Raw:
        """Shortest seconds of each command and of the import."""
        if self.prepares:
            place.trained()
        every: dict[str, Start] = {**self.commands}
        if self.beyond:
            every["import torch"] = import_torch_s
        seen: dict[str, list[float]] = {name: [] for name in every}
        for _ in range(place.numbers.starts):
            for name, start in every.items():
                seen[name].append(start(place))
        return {name: min(seconds) for name, seconds in seen.items()}

    def rows(self, rounds: Rounds) -> list[Row]:
        """Seconds of each command, beyond those of the import."""
        base = column(rounds, "import torch")
        found = []
        for name in self.commands:
            ours = column(rounds, name)
            figure = differences(ours, base) if self.beyond else ours
            found.append(
                Row(
                    f"{name}, beyond import" if self.beyond else name,
                    ours,
                    "s",
                    "import torch" if self.beyond else "",
                    base,
                    figure,
                    "s",
                    self.goal_s,
                    "at most",
                )
            )
        return found


HELP = Starting("help", {"--help": help_s}, 0.2, beyond=False)
PREDICT = Starting("one film", {"predict FILM": predict_s}, 1.0, prepares=True)
DRY_RUN = Starting(
    "dry run of the job",
    {"train --dry-run, cold cache": dry_run_cold_s, "the same, warm cache": dry_run_warm_s},
    3.0,
    prepares=True,
)
