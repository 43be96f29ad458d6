"""The command line: one sub-command per recipe, one message per mistake.

torch and pydantic are imported only after parsing, so that `--help` answers at once.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from xray_classifier import __version__
from xray_classifier.errors import UsageError, XrayError

if TYPE_CHECKING:
    from xray_classifier.terminal import Terminal

PARTLY_DONE = 4
INTERRUPTED = 130
ALIASES = {
    "val": "evaluate", "eval": "evaluate", "test": "evaluate", "infer": "predict"
}  # fmt: skip
OVERRIDE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*=", re.DOTALL)
PLACE = {"formatter_class": argparse.RawDescriptionHelpFormatter}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise UsageError(f"{message}\nRun `{self.prog} --help` for what can be said.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after the program's name; None takes those of the process.

    Returns:
        The exit code: 0 done, 2 usage, 3 data, 4 done but some files failed, 5 checkpoint,
        6 output, 7 not finite, 75 and 130 stopped and saved, 1 a bug in this program.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    verbose = "-v" in words or "--verbose" in words
    terminal: Terminal | None = None
    try:
        arguments = parse(words)
        from xray_classifier.terminal import Terminal

        stream = sys.stderr if _stdout_is_data(arguments) else sys.stdout
        terminal = Terminal(stream, quiet=arguments.quiet)
        return int(arguments.run(arguments, terminal))
    except XrayError as error:
        if verbose:
            traceback.print_exc()
        _tell(error.exit_code, str(error), as_json, terminal)
        return error.exit_code
    except KeyboardInterrupt:
        _tell(INTERRUPTED, "interrupted", as_json, terminal)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # a bug of ours: say so, and keep what is needed to mend it
        if verbose:
            traceback.print_exc()
        where = _keep_traceback(terminal)
        _tell(1, f"this is a bug ({type(error).__name__}); details in {where}", as_json, terminal)
        return 1


def _stdout_is_data(arguments: argparse.Namespace) -> bool:
    return arguments.json or getattr(arguments, "out", None) == Path("-")


def _tell(exit_code: int, message: str, as_json: bool, terminal: "Terminal | None") -> None:
    print(f"error: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": {"exit_code": exit_code, "message": message}}))
    if terminal is not None:
        with contextlib.suppress(OSError):
            terminal.keep(f"error: {message}")


def _keep_traceback(terminal: "Terminal | None") -> str:
    text = traceback.format_exc()
    if terminal is not None and terminal.log is not None:
        with contextlib.suppress(OSError):
            terminal.keep(text)
            return str(terminal.log)
    with tempfile.NamedTemporaryFile(
        "w", prefix="xray-classifier-", suffix=".log", delete=False, errors="backslashreplace"
    ) as file:
        file.write(text)
    return file.name


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line; `a.b=c` may stand anywhere after the verb.

    Returns:
        The arguments, with `run` (what to call) and `overrides` (texts).

    Raises:
        UsageError: It cannot be read.
    """
    parser, verbs = build_parser()
    words = list(words)
    place = next((i for i, word in enumerate(words) if not word.startswith("-")), None)
    if place is not None:
        if words[place] in ALIASES:
            print(f"{words[place]} means {ALIASES[words[place]]}", file=sys.stderr)
        words[place] = ALIASES.get(words[place], words[place])
    overrides: list[str] = []
    if place is not None and words[place] in verbs:
        rest, overrides = split_overrides(words[place + 1 :], verbs[words[place]])
        words = [*words[: place + 1], *rest]
    arguments = parser.parse_args(words)
    if not hasattr(arguments, "run"):
        parser.error("a verb is missing")
    arguments.overrides = overrides
    if overrides and not arguments.takes_overrides:
        raise UsageError(f"{overrides[0]}: {arguments.verb} takes no overrides, and no such file")
    return arguments


def split_overrides(
    words: Sequence[str], parser: argparse.ArgumentParser
) -> tuple[list[str], list[str]]:
    """Part overrides from everything else; the value of an option and a file are none."""
    takes_value = {
        option for a in parser._actions for option in a.option_strings if a.nargs is None
    }  # fmt: skip
    rest: list[str] = []
    overrides: list[str] = []
    for word in words:
        is_value = bool(rest) and rest[-1] in takes_value
        if OVERRIDE.match(word) and not is_value and not os.path.lexists(word):
            overrides.append(word)
        else:
            rest.append(word)
    return rest, overrides


def build_parser() -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    """The parser and its sub-parsers by verb."""
    parser = Parser(
        prog="xray-classifier",
        description="Train, judge and use perceptron stacks that tell sick from healthy X-rays.",
        epilog=(
            "examples:\n"
            "  xray-classifier train -c demo\n"
            "  xray-classifier evaluate runs/latest --split test\n"
            "  xray-classifier predict runs/latest FOLDER -o predictions.csv\n\n"
            "No medical device: for research and teaching only."
        ),
        **PLACE,  # type: ignore[arg-type]
    )
    parser.add_argument("--version", action="version", version=f"xray-classifier {__version__}")
    found = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb")
    verbs: dict[str, argparse.ArgumentParser] = {}
    for add in (_add_train, _add_evaluate, _add_predict, _add_init, _add_config, _add_cache):
        add(found, verbs)
    _add_doctor(found, verbs)
    return parser, verbs


def _verb(
    found: Any, verbs: dict[str, argparse.ArgumentParser], name: str, words: str, examples: str,
    run: Callable[[argparse.Namespace, "Terminal"], int], takes_overrides: bool = False,
) -> argparse.ArgumentParser:  # fmt: skip
    parser: argparse.ArgumentParser = found.add_parser(
        name, help=words, description=words, epilog=f"examples:\n{examples}", **PLACE
    )
    parser.set_defaults(run=run, takes_overrides=takes_overrides)
    verbs[name] = parser
    general = parser.add_argument_group("general")
    general.add_argument("--json", action="store_true", help="one JSON object on stdout")
    general.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    general.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")
    return parser


def _hardware(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("hardware")
    group.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    group.add_argument("-j", "--workers", type=int, help="decoding threads (default: one per core)")


def _add_train(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "train", "Train a perceptron stack from a YAML config.",
        "  xray-classifier train -c demo\n"
        "  xray-classifier train -c kermany data.path=chest_xray train.epochs=30\n"
        "  xray-classifier train --resume runs/latest\n",
        _train, takes_overrides=True,
    )  # fmt: skip
    group = parser.add_argument_group("input and output")
    group.add_argument("-c", "--config", help="YAML file, run folder, or shipped name such as demo")
    group.add_argument("-o", "--out", type=Path, default=Path("runs"),
                       help="folder of run folders (default: runs)")  # fmt: skip
    group.add_argument("--name", help="name of the run (default: that of the config)")
    group.add_argument("a.b=c", nargs="?", help="override any key, such as train.epochs=3")
    control = parser.add_argument_group("run control")
    control.add_argument("--resume", metavar="RUN|auto", help="go on with a stopped run")
    control.add_argument("--dry-run", action="store_true", help="build everything, run one batch")
    control.add_argument("--limit", type=int, metavar="N", help="use N images only")
    control.add_argument("--seed", type=int, help="seed of weights, order and dropout (default: 0)")
    _hardware(parser)


def _add_evaluate(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "evaluate", "Judge a saved model: metrics with intervals, figures, report.",
        "  xray-classifier evaluate runs/latest --split test\n"
        "  xray-classifier evaluate model.safetensors --data other_hospital/ -o judged\n"
        "  xray-classifier evaluate runs/latest --threshold sens=0.95 --json\n",
        _evaluate, takes_overrides=True,
    )  # fmt: skip
    group = parser.add_argument_group("input and output")
    group.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_OR_RUN")
    group.add_argument("--data", type=Path, metavar="PATH",
                       help="labelled folder, CSV or NPZ (default: the run's own data)")  # fmt: skip
    group.add_argument("--split", help="train, val or test (default: test, else val)")
    group.add_argument("-o", "--out", type=Path, metavar="DIR",
                       help="folder to write into (default: RUN/eval/<data>-<date>)")  # fmt: skip
    _threshold(group)
    _hardware(parser)


def _add_predict(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "predict", "Score files and folders: one row per file, in order.",
        "  xray-classifier predict runs/latest FOLDER -o predictions.csv\n"
        "  xray-classifier predict model.safetensors a.png b.dcm -o - --format jsonl\n"
        "  xray-classifier predict runs/latest FOLDER -o night.csv --threshold sens=0.95\n",
        _predict,
    )  # fmt: skip
    group = parser.add_argument_group("input and output")
    group.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_OR_RUN")
    group.add_argument("inputs", type=Path, nargs="+", metavar="INPUT")
    group.add_argument("-o", "--out", type=Path, required=True, metavar="FILE",
                       help="table to write; - is stdout")  # fmt: skip
    group.add_argument("--format", choices=("csv", "jsonl", "parquet"),
                       help="(default: by the ending of FILE, else csv)")  # fmt: skip
    group.add_argument("--force", action="store_true", help="replace an existing FILE")
    _threshold(group)
    _hardware(parser)


def _threshold(group: Any) -> None:
    group.add_argument("--threshold", default="auto", metavar="T",
                       help="auto (the stored one), 0.42, sens=0.95, spec=0.90 or youden")  # fmt: skip


def _add_init(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "init", "Look at a folder of X-rays and write a commented config for it.",
        "  xray-classifier init my.yaml --data chest_xray\n"
        "  xray-classifier init my.yaml --data films.csv --healthy 0 --sick 1\n"
        "  xray-classifier init phantoms.yaml\n",
        _init,
    )  # fmt: skip
    parser.add_argument("target", type=Path, metavar="YAML", help="config to write")
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder, CSV or NPZ to look at")
    parser.add_argument("--healthy", action="append", default=[], metavar="NAME",
                        help="class that means healthy; may be repeated")  # fmt: skip
    parser.add_argument("--sick", action="append", default=[], metavar="NAME",
                        help="class that means sick; may be repeated")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing YAML")


def _add_config(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "config", "Explain, check or describe configs.",
        "  xray-classifier config show train.optimizer\n"
        "  xray-classifier config validate my.yaml train.epochs=3\n"
        "  xray-classifier config schema > xray.schema.json\n",
        _config, takes_overrides=True,
    )  # fmt: skip
    parser.add_argument("action", choices=("show", "validate", "schema", "list"))
    parser.add_argument("subject", nargs="?", help="section or key (show), config (validate)")


def _add_cache(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "cache", "List or clear the cache of decoded images.",
        "  xray-classifier cache list\n  xray-classifier cache clear\n"
        "  xray-classifier cache list --dir /scratch/cache\n",
        _cache,
    )  # fmt: skip
    parser.add_argument("action", choices=("list", "clear"))
    parser.add_argument("--dir", type=Path, help="cache folder (default: the user's)")


def _add_doctor(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    _verb(
        found, verbs, "doctor", "Look at this installation: versions, devices, codecs, extras.",
        "  xray-classifier doctor\n  xray-classifier doctor --json\n",
        _doctor,
    )  # fmt: skip


def _print_json(value: Any) -> None:
    from xray_classifier.files import to_json

    print(to_json(value))


def _flag_overrides(arguments: argparse.Namespace, keys: dict[str, str]) -> list[str]:
    """Flags that stand for a key become overrides, after those typed out."""
    given = ((key, getattr(arguments, flag)) for flag, key in keys.items())
    return [*arguments.overrides, *(f"{key}={v}" for key, v in given if v is not None)]


def _train(arguments: argparse.Namespace, terminal: "Terminal") -> int:
    from xray_classifier.config_file import load_config
    from xray_classifier.training import (
        load_for_resume,
        newest_unfinished,
        run_dry,
        run_training,
    )

    keys = {"limit": "data.limit", "seed": "seed", "device": "train.device",
            "workers": "data.workers", "name": "name"}  # fmt: skip
    overrides = _flag_overrides(arguments, keys)
    resume: Path | None = None
    if arguments.resume is None or arguments.resume == "auto":
        if arguments.config is None:
            raise UsageError("train needs -c CONFIG, or --resume RUN; try `train -c demo`")
        loaded = load_config(arguments.config, overrides)
        if arguments.resume == "auto":
            resume = newest_unfinished(arguments.out, loaded.name)
    else:
        resume = Path(arguments.resume).resolve()
    if resume is not None:
        loaded = load_for_resume(resume, overrides if arguments.resume != "auto" else [])
    if arguments.dry_run:
        result = run_dry(loaded, terminal)
    else:
        result = asdict(run_training(loaded, terminal, arguments.out, resume))
    if arguments.json:
        _print_json(result)
    return 0


def _evaluate(arguments: argparse.Namespace, terminal: "Terminal") -> int:
    from xray_classifier.evaluation import run_evaluation

    result = run_evaluation(
        arguments.checkpoint,
        terminal,
        data=arguments.data,
        split=arguments.split,
        out=arguments.out,
        threshold=arguments.threshold,
        device=arguments.device or "auto",
        overrides=_flag_overrides(arguments, {"workers": "data.workers"}),
    )
    if arguments.json:
        _print_json(asdict(result))
    return PARTLY_DONE if result.n_unreadable else 0


def _predict(arguments: argparse.Namespace, terminal: "Terminal") -> int:
    from xray_classifier.prediction import run_prediction

    if arguments.json and arguments.out == Path("-"):
        raise UsageError("--json and -o - both want standard output; name a file with -o")
    result = run_prediction(
        arguments.checkpoint,
        arguments.inputs,
        arguments.out,
        terminal,
        file_format=arguments.format,
        threshold=arguments.threshold,
        device=arguments.device or "auto",
        workers=arguments.workers,
        force=arguments.force,
    )
    if arguments.json:
        _print_json(asdict(result))
    return PARTLY_DONE if result.failed or result.rejected else 0


def _init(arguments: argparse.Namespace, terminal: "Terminal") -> int:
    from xray_classifier.starting import run_init

    result = run_init(
        arguments.target,
        terminal,
        data=arguments.data,
        healthy=arguments.healthy,
        sick=arguments.sick,
        force=arguments.force,
    )
    if arguments.json:
        _print_json(result)
    return 0


def _config(arguments: argparse.Namespace, terminal: "Terminal") -> int:
    from xray_classifier import config_file

    if arguments.action == "list":
        names = sorted(config_file.shipped_configs())
        print("\n".join(names))
    elif arguments.action == "schema":
        _print_json(config_file.json_schema())
    elif arguments.action == "show":
        print(config_file.describe(arguments.subject), end="")
    else:
        if arguments.subject is None:
            raise UsageError("config validate needs a config: a file, a run or a shipped name")
        loaded = config_file.load_config(arguments.subject, arguments.overrides)
        terminal.say(f"{arguments.subject}: no problems")
        if arguments.json:
            _print_json(loaded.config.model_dump(mode="json"))
    return 0


def _cache(arguments: argparse.Namespace, terminal: "Terminal") -> int:
    from xray_classifier.data.cache import cache_entries, clear_cache, default_cache_folder

    folder = arguments.dir or default_cache_folder()
    entries = cache_entries(folder)
    total = sum(size_bytes for _, size_bytes in entries)
    if arguments.action == "clear":
        clear_cache(folder)
        terminal.say(f"{folder}: {len(entries)} entries removed, {total / 1e6:,.1f} MB freed")
    else:
        for path, size_bytes in entries:
            terminal.say(f"{size_bytes / 1e6:>10,.1f} MB  {path.name}")
        terminal.say(f"{folder}: {len(entries)} entries, {total / 1e6:,.1f} MB")
    if arguments.json:
        _print_json({"folder": str(folder), "entries": len(entries), "bytes": total})
    return 0


def _doctor(arguments: argparse.Namespace, terminal: "Terminal") -> int:
    from xray_classifier.doctor import run_doctor

    return run_doctor(as_json=arguments.json)
