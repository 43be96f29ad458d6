"""The command line: one sub-command per recipe, one message per mistake.

torch and pydantic are imported only after parsing, so that `--help` answers at once.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray_classifier.arguments import parse
from xray_classifier.errors import OutputError, RequirementError, UsageError, XrayError
from xray_classifier.process_settings import keep_freed_memory, share_cores
from xray_classifier.signals import leave_on_signals, signal_of
from xray_classifier.terminal import Terminal

if TYPE_CHECKING:
    from xray_classifier.config_file import LoadedConfig
    from xray_classifier.data.loading import Follow

PARTLY_DONE = 4
INTERRUPTED, TERMINATED = 130, 75
OUT_OF_MEMORY = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after the program's name; None takes those of the process.

    Returns:
        The exit code: 0 done, 2 usage, 3 data, 4 done but some files failed, 5 checkpoint,
        6 output, 7 not finite, 8 memory, 75 and 130 stopped, 1 a bug in this program.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    verbose = "-v" in words or "--verbose" in words
    terminal: Terminal | None = None
    try:
        arguments = parse(words, RECIPES)
        arguments.words = words
        share_cores()
        keep_freed_memory()
        _refuse_many_processes(arguments)
        stream = sys.stderr if _stdout_is_data(arguments) else sys.stdout
        terminal = Terminal(stream, quiet=arguments.quiet)
        return int(arguments.run(arguments, terminal))
    except XrayError as error:
        if verbose:
            traceback.print_exc()
        _tell(error.exit_code, str(error), as_json, terminal)
        return error.exit_code
    except KeyboardInterrupt as error:
        code = INTERRUPTED if signal_of(error) == "SIGINT" else TERMINATED
        _tell(
            code,
            "interrupted; nothing half-done is left, and images decoded so far are kept: run the "
            "same command again",
            as_json,
            terminal,
        )
        return code
    except BrokenPipeError:  # whoever read our output has left
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # a bug of ours: say so, and keep what is needed to mend it
        if verbose:
            traceback.print_exc()
        if _is_out_of_memory(error):
            _tell(OUT_OF_MEMORY, "memory ran out; free some, or make it less", as_json, terminal)
            return OUT_OF_MEMORY
        where = _keep_traceback(terminal)
        _tell(1, f"this is a bug ({type(error).__name__}); details in {where}", as_json, terminal)
        return 1


def _refuse_many_processes(arguments: argparse.Namespace) -> None:
    """Training and predicting are shared out; all else would be done and written several times."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or arguments.verb == "predict":
        return
    if arguments.verb != "train" or arguments.dry_run:
        what = "train --dry-run" if arguments.verb == "train" else arguments.verb
        raise UsageError(f"{what} runs in one process; start it without torchrun")


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    if "torch" not in sys.modules:
        return False
    from xray_classifier.trainer import is_out_of_memory

    return isinstance(error, RuntimeError) and is_out_of_memory(error)


def _stdout_is_data(arguments: argparse.Namespace) -> bool:
    return arguments.json or getattr(arguments, "out", None) == Path("-")


def _tell(exit_code: int, message: str, as_json: bool, terminal: Terminal | None) -> None:
    rank = os.environ.get("RANK", "0")
    print(f"error: {message}" if rank == "0" else f"rank {rank}: {message}", file=sys.stderr)
    if as_json and rank == "0":
        print(json.dumps({"error": {"exit_code": exit_code, "message": message}}))
    if terminal is not None:
        with contextlib.suppress(OutputError):
            terminal.keep(f"error: {message}")


def _keep_traceback(terminal: Terminal | None) -> str:
    text = traceback.format_exc()
    if terminal is not None and terminal.log is not None:
        with contextlib.suppress(OutputError):
            terminal.keep(text)
            return str(terminal.log)
    with tempfile.NamedTemporaryFile(
        "w", prefix="xray-classifier-", suffix=".log", delete=False, errors="backslashreplace"
    ) as file:
        file.write(text)
    return file.name


def _print_json(value: Any) -> None:
    from xray_classifier.files import to_json

    print(to_json(value))


def _flag_overrides(arguments: argparse.Namespace, keys: dict[str, str]) -> list[str]:
    """Flags that stand for a key become overrides, after those typed out."""
    given = ((key, getattr(arguments, flag)) for flag, key in keys.items())
    return [*arguments.overrides, *(f"{key}={v}" for key, v in given if v is not None)]


def _train(arguments: argparse.Namespace, terminal: Terminal) -> int:
    keys = {"limit": "data.limit", "seed": "seed", "device": "train.device",
            "workers": "data.workers", "name": "name"}  # fmt: skip
    overrides = _flag_overrides(arguments, keys)
    with leave_on_signals(), _decoding_ahead(arguments, overrides) as ahead:
        result = _trained(arguments, overrides, terminal, ahead)
    if arguments.json and result.get("run_dir") != "":  # of several processes the first answers
        _print_json(result)
    return 0


@contextlib.contextmanager
def _decoding_ahead(
    arguments: argparse.Namespace, overrides: list[str]
) -> Iterator["Follow | None"]:
    """Let a new run's images be decoded while PyTorch is imported, if that is still to be done."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) < 2
    if "torch" in sys.modules or arguments.resume or arguments.config is None or not alone:
        yield None
        return
    from xray_classifier.config_file import load_config
    from xray_classifier.data.ahead import run_ahead

    config = load_config(arguments.config, overrides).config
    with run_ahead(config.data, config.task) as ahead:
        yield ahead


def _trained(
    arguments: argparse.Namespace,
    overrides: list[str],
    terminal: Terminal,
    ahead: "Follow | None",
) -> dict[str, Any]:
    """What `train` comes to, as `--json` prints it."""
    from xray_classifier.members import is_repeated, member_config, members_of
    from xray_classifier.repeated import run_repeated
    from xray_classifier.training import run_dry, run_training

    resume, loaded = _what_to_train(arguments, overrides, terminal)
    repeated = is_repeated(loaded.config)
    if arguments.dry_run:
        one = member_config(loaded, members_of(loaded.config)[0]) if repeated else loaded
        return run_dry(one, terminal, ahead)
    recipe = run_repeated if repeated else run_training
    return asdict(recipe(loaded, terminal, arguments.out, resume, ahead=ahead))


def _what_to_train(
    arguments: argparse.Namespace, overrides: list[str], terminal: Terminal
) -> tuple[Path | None, "LoadedConfig"]:
    """The run to go on with, if any, and its config or that of a new run."""
    from xray_classifier.config_file import load_config
    from xray_classifier.members import holds_members, keeps_members_alike, load_repeated
    from xray_classifier.resume import (
        differing_keys,
        load_for_resume,
        may_change,
        newest_unfinished,
    )

    asked = arguments.resume
    if asked not in (None, "auto"):
        if arguments.config is not None:
            raise UsageError("-c and --resume RUN exclude each other: a run keeps its own config")
        run = Path(asked).resolve()
        load = load_repeated if holds_members(run) else load_for_resume
        return run, load(run, overrides)
    if arguments.config is None:
        raise UsageError("train needs -c CONFIG, or --resume RUN; try `train -c demo`")
    loaded = load_config(arguments.config, overrides)
    found = newest_unfinished(arguments.out, loaded.name) if asked == "auto" else None
    if found is None:
        if asked == "auto":
            terminal.say(f"no unfinished run of {loaded.name} in {arguments.out}: a new one begins")
        return None, loaded
    terminal.say(f"going on with {found}")
    several = holds_members(found)
    load, allowed = (
        (load_repeated, keeps_members_alike) if several else (load_for_resume, may_change)
    )
    resumed = load(found, [text for text in overrides if allowed(text)])
    for key in sorted(differing_keys(loaded.config, resumed.config)):
        terminal.warn(f"{key} stays as the run began; start a new run to change it")
    return found, resumed


def _evaluate(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.evaluation import Asked, run_evaluation

    result = run_evaluation(
        arguments.checkpoint,
        terminal,
        data=arguments.data,
        split=arguments.split,
        out=arguments.out,
        threshold=arguments.threshold,
        device=arguments.device or "auto",
        overrides=_flag_overrides(arguments, {"workers": "data.workers"}),
        prevalence=arguments.prevalence,
        asked=Asked(
            by=tuple(arguments.by) or None,
            what_if=tuple(arguments.what_if),
            stress=arguments.stress,
            require=tuple(arguments.require),
            medmnist=arguments.medmnist,
            films=arguments.films,
            plan=arguments.plan,
            force=arguments.force,
            gate=arguments.gate,
        ),
    )
    if arguments.json:
        _print_json(asdict(result))
    if result.unmet:  # no exception: with --json the one object is printed already
        terminal.keep(f"error: required, but not met: {'; '.join(result.unmet)}")
        print(f"error: required, but not met: {'; '.join(result.unmet)}", file=sys.stderr)
        return RequirementError.exit_code
    return PARTLY_DONE if result.n_unreadable else 0


def _predict(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.signals import leave_on_signals

    if arguments.json and arguments.out == Path("-"):
        raise UsageError("--json and -o - both want standard output; name a file with -o")
    with leave_on_signals():
        return _score_files(arguments, terminal)


def _score_files(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.prediction import Prediction, run_prediction

    how = Prediction(
        file_format=arguments.format,
        threshold=arguments.threshold,
        device=arguments.device or "auto",
        workers=arguments.workers,
        force=arguments.force,
        prevalence=arguments.prevalence,
        only_new=arguments.only_new,
        follow_symlinks=arguments.follow_symlinks,
        hash_names=arguments.hash_names,
        patient=arguments.patient,
        study=arguments.study,
        isolate=arguments.isolate,
        fast=arguments.fast,
        gate=arguments.gate,
        max_failed=arguments.max_failed,
        max_rejected=arguments.max_rejected,
        words=("xray-classifier", *arguments.words),
    )
    result = run_prediction(arguments.checkpoint, arguments.inputs, arguments.out, terminal, how)
    if os.environ.get("RANK", "0") != "0":  # of several processes the first answers
        return 0
    if arguments.json:
        _print_json(asdict(result))
    return result.exit_code


def _compare(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.comparing import run_compare

    result = run_compare(
        arguments.paths,
        terminal,
        split=arguments.split,
        data=arguments.data,
        intersect=arguments.intersect,
        out=arguments.out,
        device=arguments.device or "auto",
        overrides=_flag_overrides(arguments, {"workers": "data.workers"}),
    )
    if arguments.json:
        _print_json(result.content)
    return 0


def _report(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.reporting import run_report

    result = run_report(
        arguments.folder,
        terminal,
        checklist=arguments.checklist,
        out=arguments.out,
        force=arguments.force,
    )
    if arguments.json:
        _print_json(asdict(result))
    return 0


def _plan(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.planning import run_plan

    result = run_plan(
        arguments.checkpoint,
        terminal,
        out=arguments.out,
        split=arguments.split,
        data=arguments.data,
        requirements=arguments.require,
        note=arguments.note,
        overrides=arguments.overrides,
    )
    if arguments.json:
        _print_json(asdict(result))
    return 0


def _sample_size(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.sizing import run_sizing

    result = run_sizing(
        terminal,
        prevalence=arguments.prevalence,
        half_width=arguments.within,
        sensitivity=arguments.sensitivity,
        specificity=arguments.specificity,
        auroc=arguments.auroc,
    )
    if arguments.json:
        _print_json(asdict(result))
    return 0


def _check(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.checking import run_check

    result = run_check(
        arguments.data,
        terminal,
        config=arguments.config,
        out=arguments.out,
        fix=arguments.fix,
        force=arguments.force,
        overrides=_flag_overrides(arguments, {"workers": "data.workers"}),
    )
    if arguments.json:
        _print_json(result.content)
    return result.exit_code


def _export(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.exporting import run_export

    result = run_export(
        arguments.checkpoint,
        terminal,
        out=arguments.out,
        strip_memory=arguments.strip_memory,
        onnx=arguments.onnx,
        force=arguments.force,
    )
    if arguments.json:
        _print_json(result)
    return 0


def _tour(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.tour import run_tour

    result = run_tour(
        terminal,
        out=arguments.out,
        seed=arguments.seed,
        force=arguments.force,
        overrides=arguments.overrides,
    )
    if arguments.json:
        _print_json(asdict(result))
    return 0


def _explain(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.explaining import run_explain

    result = run_explain(
        arguments.run_folder,
        terminal,
        out=arguments.out,
        images=arguments.images,
        device=arguments.device or "auto",
        overrides=arguments.overrides,
    )
    if arguments.json:
        _print_json(asdict(result))
    return 0


def _lr_find(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.config_file import load_config
    from xray_classifier.rate_finding import run_lr_find

    keys = {"limit": "data.limit", "seed": "seed", "device": "train.device",
            "workers": "data.workers"}  # fmt: skip
    result = run_lr_find(
        load_config(arguments.config, _flag_overrides(arguments, keys)),
        terminal,
        out=arguments.out,
        lowest=arguments.lowest,
        highest=arguments.highest,
        steps=arguments.steps,
    )
    if arguments.json:
        _print_json(asdict(result))
    return 0


def _init(arguments: argparse.Namespace, terminal: Terminal) -> int:
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


def _config(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier import config_file

    if arguments.action == "list":
        names = sorted(config_file.shipped_configs())
        terminal.say("\n".join(names))
        if arguments.json:
            _print_json({"configs": names})
    elif arguments.action == "schema":
        _print_json(config_file.json_schema())
    elif arguments.action == "show":
        text = config_file.describe(arguments.subject)
        terminal.say(text.rstrip())
        if arguments.json:
            _print_json({"section": arguments.subject, "text": text})
    else:
        if arguments.subject is None:
            raise UsageError("config validate needs a config: a file, a run or a shipped name")
        loaded = config_file.load_config(arguments.subject, arguments.overrides)
        terminal.say(f"{arguments.subject}: no problems")
        if arguments.json:
            _print_json(loaded.config.model_dump(mode="json"))
    return 0


def _cache(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.data.cache import cache_entries, clear_cache, default_cache_folder

    folder = arguments.dir or default_cache_folder()
    entries = cache_entries(folder)
    total = sum(size_bytes for _, size_bytes in entries)
    if arguments.action == "clear":
        freed = clear_cache(folder)
        terminal.say(f"{folder}: {freed / 1e6:,.1f} of {total / 1e6:,.1f} MB freed")
    else:
        for path, size_bytes in entries:
            state = "  (unfinished)" if path.name.startswith(".") else ""
            terminal.say(f"{size_bytes / 1e6:>10,.1f} MB  {path.name}{state}")
        terminal.say(f"{folder}: {len(entries)} entries, {total / 1e6:,.1f} MB")
    if arguments.json:
        _print_json({"folder": str(folder), "entries": len(entries), "bytes": total})
    return 0


def _doctor(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from xray_classifier.doctor import run_doctor

    return run_doctor(as_json=arguments.json, verify_resume=arguments.verify_resume)


RECIPES = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "compare": _compare,
    "report": _report,
    "plan": _plan,
    "sample-size": _sample_size,
    "check": _check,
    "tour": _tour,
    "init": _init,
    "config": _config,
    "export": _export,
    "explain": _explain,
    "lr-find": _lr_find,
    "cache": _cache,
    "doctor": _doctor,
}
