"""Measure the project, its peers and the machine, and print one table. See docs/benchmark.md.

Exit codes: 0 done, 1 something could not be measured, 2 usage.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.benchmarks.numbers import FULL, QUICK
from xray_classifier.process_settings import keep_freed_memory

NAMES = (
    *("help", "predict", "dry-run", "step", "infer", "decode"),
    *("whole", "long", "memory", "curves", "gpu"),
)
NEEDS_DATA = {"predict", "dry-run", "whole", "long", "gpu"}
QUICK_FILMS, QUICK_SIDE_PX = 64, 96
BUSY = 0.5  # load per core above which other programs are running


def main() -> int:
    """Measure, print, write."""
    options = _parse()
    if options.earlier is not None:
        return told(json.loads(options.earlier.read_text(encoding="utf-8")), options)
    for folder, wanted in ((options.data, NEEDS_DATA), (options.films, {"decode"})):
        if not options.quick and wanted & set(options.only) and not folder.is_dir():
            told_of = "name another with --data or --films, or use --quick"
            print(f"error: {folder.resolve()} is no folder; {told_of}", file=sys.stderr)
            return 2
    keep_freed_memory()  # as the program does, for what is measured inside this process
    return told(measured(options), options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("../shared/data/kermany224"), help="films of the job")
    add("--films", type=Path, default=Path("../shared/data/kermany_fullres"), help="to decode")
    add("--rounds", type=int, default=3, help="how often; medians count (default 3)")
    add("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    add("--json", type=Path, metavar="FILE", help="write every round's figures there")
    add("--write", type=Path, metavar="PAGE", help="put the table into a Markdown page")
    add("--from", type=Path, dest="earlier", metavar="FILE", help="take an earlier --json FILE")
    add("--peers", action="store_true", help="Lightning, skorch, fastai too, in .venv-peers")
    add("--peers-python", type=Path, help=argparse.SUPPRESS)
    add("--quick", action="store_true", help="noise and tiny numbers, to see that it works")
    return parser.parse_args()


def sections() -> dict[str, Any]:
    """Name to what measures it: `TITLE`, `EVERY_ROUND`, `measure(place)`, `rows(rounds)`."""
    from scripts.benchmarks import (
        curves,
        decoding,
        gpu,
        inference,
        long,
        memory,
        starting,
        step,
        whole,
    )

    return {
        "help": starting.HELP,
        "predict": starting.PREDICT,
        "dry-run": starting.DRY_RUN,
        "step": step,
        "infer": inference,
        "decode": decoding,
        "whole": whole,
        "long": long,
        "memory": memory,
        "curves": curves,
        "gpu": gpu,
    }


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, as it goes into the JSON file."""
    from scripts.benchmarks.machine import described
    from scripts.benchmarks.place import Place
    from scripts.benchmarks.synthetic import write_films

    numbers = QUICK if options.quick else FULL
    content: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["scripts/benchmark", *_words()]),
        "quick": options.quick,
        "rounds_asked": options.rounds,
        "machine": described(),
        "peers": peers_found(options.peers_python),
    }
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        data, films = options.data.resolve(), options.films.resolve()
        if options.quick:
            data = films = Path(scratch) / "films"
            write_films(data, QUICK_FILMS, QUICK_SIDE_PX)
        place = Place(numbers, data, films, Path(scratch), options.peers_python)
        for rounds, failed in in_rounds(place, options.only, options.rounds):
            content |= {"rounds": rounds, "failed": failed}
            if options.json is not None:  # what is measured stays, whatever comes
                options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return content


def _words() -> list[str]:
    """The command line as it was typed, without what scripts/benchmark put in."""
    words = sys.argv[1:]
    return [
        word
        for place, word in enumerate(words)
        if word != "--peers-python" and words[place - 1] != "--peers-python"
    ]


def in_rounds(
    place: Any, only: list[str], n_rounds: int
) -> Iterator[tuple[list[dict[str, Any]], dict[str, str]]]:
    """Figures of every section in every round, and what failed: so far, after each section."""
    from scripts.benchmarks.processes import FailedProcess
    from xray_classifier.errors import XrayError

    chosen = {name: section for name, section in sections().items() if name in only}
    rounds: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number in range(n_rounds):
        raw: dict[str, Any] = {"load": os.getloadavg()[0]}
        rounds.append(raw)
        for name, section in chosen.items():
            if number and not section.EVERY_ROUND:
                continue
            print(f"round {number + 1} of {n_rounds}: {section.TITLE}", file=sys.stderr, flush=True)
            try:
                raw[name] = section.measure(place)
            except (FailedProcess, XrayError) as error:
                failed[name] = str(error)
                print(f"{name} failed: {error}", file=sys.stderr)
            yield rounds, failed


def peers_found(python: Path | None) -> dict[str, str | None]:
    """Version of each peer that has an environment of its own; None: it is not there."""
    from scripts.benchmarks.processes import FailedProcess, timed

    names = ("lightning", "skorch", "fastai")
    if python is None:
        return {}
    code = (
        "import importlib.metadata as m, json\n"
        f"there = {{d.metadata['Name'].lower(): d.version for d in m.distributions()}}\n"
        f"print(json.dumps({{name: there.get(name) for name in {names!r}}}))"
    )
    try:
        found: dict[str, str | None] = timed([python, "-c", code], Path.cwd()).last_json()
    except FailedProcess:
        return dict.fromkeys(names)
    return found


def told(content: dict[str, Any], options: argparse.Namespace) -> int:
    """Print the table, write the files; the exit code."""
    from scripts.benchmarks.table import as_markdown, as_text, written_into

    tables = {}
    for name, section in sections().items():
        if rounds := [raw[name] for raw in content["rounds"] if name in raw]:
            found = [row for row in section.rows(rounds) if row.measured]
            tables |= {section.TITLE: found} if found else {}
    if options.json is not None:
        rows = {title: [row.as_json() for row in found] for title, found in tables.items()}
        options.json.write_text(json.dumps(content | {"rows": rows}, indent=1) + "\n", "utf-8")
    print(as_text(tables))
    print(footer(content))
    missing = [name for name, version in content["peers"].items() if version is None]
    for name in missing:
        print(f"{name} could not be installed, so it was not measured")
    for name, why in content["failed"].items():
        print(f"{name} failed: {why}")
    if options.write is not None:
        try:
            written_into(options.write, as_markdown(content, tables))
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 1 if missing or content["failed"] else 0


def footer(content: dict[str, Any]) -> str:
    """The machine, and whether the figures can be trusted."""
    machine = content["machine"]
    loads = [raw["load"] for raw in content["rounds"]]
    said = [
        f"{content['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['threads']} "
        f"threads, torch {machine['versions']['torch']}; load before each round: "
        + ", ".join(f"{load:.1f}" for load in loads)
    ]
    if content["quick"]:
        said.append("--quick: these figures only show that it works")
    if max(loads[:1]) > BUSY * machine["cores"]:
        said.append(
            "other programs were running at the start: these figures are not for the record"
        )
    return "\n".join(said)


if __name__ == "__main__":
    sys.exit(main())
