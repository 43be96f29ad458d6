"""What may be said on the command line, and reading it. Imports nothing heavy: `--help` is fast."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from xray_classifier import __version__
from xray_classifier.errors import UsageError

ALIASES = {
    "val": "evaluate",
    "eval": "evaluate",
    "test": "evaluate",
    "infer": "predict",
}
OVERRIDE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*=", re.DOTALL)
PLACE = {"formatter_class": argparse.RawDescriptionHelpFormatter}

Recipe = Callable[[argparse.Namespace, Any], int]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise UsageError(f"{message}\nRun `{self.prog} --help` for what can be said.")


def parse(words: Sequence[str], recipes: Mapping[str, Recipe]) -> argparse.Namespace:
    """Read the command line; `a.b=c` may stand anywhere after the verb.

    Args:
        words: Words after the program's name.
        recipes: What to call for each verb.

    Returns:
        The arguments, with `run` (what to call) and `overrides` (texts).

    Raises:
        UsageError: It cannot be read.
    """
    parser, verbs = build_parser(recipes)
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
    elif place is not None:
        parser.error(f"no verb {words[place]!r}{_meant(words[place], verbs)}")
    arguments, unknown = parser.parse_known_args(words)
    if not hasattr(arguments, "run"):
        parser.error("a verb is missing")
    unknown = unknown or [word for word in (getattr(arguments, "a.b=c", None),) if word]
    if unknown:
        verbs[arguments.verb].error(_unknown(unknown[0], verbs[arguments.verb]))
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
    takes_files = any(a.type is Path and not a.option_strings for a in parser._actions)
    rest: list[str] = []
    overrides: list[str] = []
    for word in words:
        is_value = bool(rest) and rest[-1] in takes_value
        is_file = takes_files and os.path.lexists(word)
        if OVERRIDE.match(word) and not is_value and not is_file:
            overrides.append(word)
        else:
            rest.append(word)
    return rest, overrides


def _unknown(word: str, parser: argparse.ArgumentParser) -> str:
    """What is wrong with a word that no flag or place takes, and what was perhaps meant."""
    if not word.startswith("--"):
        return f"{word!r} is not understood; an override looks like train.epochs=3"
    flag = word.split("=")[0]
    from xray_classifier.config_keys import all_keys

    keys = [key.dotted for key in all_keys() if key.path[-1] == flag[2:].replace("-", "_")]
    if keys and parser.get_default("takes_overrides"):
        return f"no flag {flag!r}; a key is set without dashes, as {keys[0]}=VALUE"
    return f"no flag {flag!r}{_meant(flag, [o for a in parser._actions for o in a.option_strings])}"


def _meant(wrong: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong[:100], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def build_parser(
    recipes: Mapping[str, Recipe],
) -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
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
    for add in (
        _add_train, _add_evaluate, _add_predict, _add_compare, _add_report, _add_plan,
        _add_sample_size, _add_check, _add_init, _add_config, _add_explain, _add_lr_find,
        _add_tour, _add_export, _add_cache, _add_doctor,
    ):  # fmt: skip
        add(found, verbs)
    for verb, recipe in recipes.items():
        verbs[verb].set_defaults(run=recipe)
    return parser, verbs


def _verb(
    found: Any, verbs: dict[str, argparse.ArgumentParser], name: str, words: str, examples: str,
    takes_overrides: bool = False,
) -> argparse.ArgumentParser:  # fmt: skip
    parser: argparse.ArgumentParser = found.add_parser(
        name, help=words, description=words, epilog=f"examples:\n{examples}", **PLACE
    )
    parser.set_defaults(takes_overrides=takes_overrides)
    verbs[name] = parser
    general = parser.add_argument_group("general")
    general.add_argument("--json", action="store_true", help="one JSON object on stdout")
    general.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    general.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")
    return parser


def _count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    """A whole number from 0 up to what a generator takes."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return int(text)


def _limit(text: str) -> str:
    """A whole number such as 5, or a share such as 10% or 0.5%."""
    if text.isascii() and text.isdigit():
        return text
    share = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", text, re.ASCII)
    if share is None or float(share[1]) > 100:
        raise argparse.ArgumentTypeError(
            f"must be a number of files such as 5, or a share such as 10%, got {text!r}"
        )
    return text


def _number_of_films(text: str) -> int:
    """A whole number from 0 to 50."""
    if not text.isascii() or not text.isdigit() or int(text) > 50:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 50, got {text!r}")
    return int(text)


def _hardware(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("hardware")
    group.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    group.add_argument(
        "-j", "--workers", type=_count, help="decoding threads (default: one per core)"
    )


def _add_train(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "train", "Train a perceptron stack from a YAML config.",
        "  xray-classifier train -c demo\n"
        "  xray-classifier train -c kermany data.path=chest_xray/train train.epochs=30\n"
        "  xray-classifier train --resume runs/latest\n",
        takes_overrides=True,
    )  # fmt: skip
    group = parser.add_argument_group("input and output")
    group.add_argument("-c", "--config", help="YAML file, run folder, or shipped name such as demo")
    group.add_argument("-o", "--out", type=Path, default=Path("runs"),
                       help="folder of run folders (default: runs)")  # fmt: skip
    group.add_argument("--name", help="name of the run (default: that of the config)")
    group.add_argument("a.b=c", nargs="?", help="override any key, such as train.epochs=3")
    control = parser.add_argument_group("run control")
    control.add_argument(
        "--resume",
        metavar="RUN|auto",
        help="go on with a stopped run; auto, with -c: the newest of its name",
    )
    control.add_argument("--dry-run", action="store_true", help="build everything, run one batch")
    control.add_argument("--limit", type=int, metavar="N", help="use N images only")
    control.add_argument("--seed", type=int, help="seed of weights, order and dropout (default: 0)")
    _hardware(parser)


def _add_evaluate(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "evaluate", "Judge a saved model: metrics with intervals, figures, report.",
        "  xray-classifier evaluate runs/latest --split test\n"
        "  xray-classifier evaluate model.safetensors --data other_hospital/ -o judged\n"
        "  xray-classifier evaluate runs/latest --require 'auroc>=0.90' --json\n",
        takes_overrides=True,
    )  # fmt: skip
    group = parser.add_argument_group("input and output")
    group.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_OR_RUN")
    group.add_argument("--data", type=Path, metavar="PATH",
                       help="labelled folder, CSV or NPZ (default: those of the run)")  # fmt: skip
    group.add_argument("--split", help="train, val, calibrate or test (default: test, else val)")
    group.add_argument("-o", "--out", type=Path, metavar="DIR",
                       help="folder to write into (default: RUN/eval/<data>-<date>)")  # fmt: skip
    _threshold(group)
    more = parser.add_argument_group("more to look at")
    more.add_argument("--by", action="append", default=[], metavar="COLUMN",
                      help="subgroups by a column of the CSV; may be repeated (default: those "
                      "with a few values)")  # fmt: skip
    more.add_argument("--what-if", action="append", default=[], metavar="T",
                      help="try another threshold too; 'usual' tries seven")  # fmt: skip
    group.add_argument("--force", action="store_true",
                       help="write into a DIR that holds an evaluation")  # fmt: skip
    more.add_argument("--plan", type=Path, metavar="FILE",
                      help="plan to hold this against (default: plan.json in the run)")  # fmt: skip
    more.add_argument(
        "--stress",
        action="store_true",
        help="judge changed copies too: exposure, blur, noise, rotation, ...",
    )
    more.add_argument("--require", action="append", default=[], metavar="CONDITION",
                      help="end with code 9 unless it holds, such as 'auroc>=0.90'")  # fmt: skip
    _gate(more)
    more.add_argument("--films", type=_number_of_films, default=8, metavar="N",
                      help="worst errors of each kind in the report (default: 8)")  # fmt: skip
    more.add_argument("--medmnist", metavar="NAME",
                      help="also write predictions for the MedMNIST evaluator")  # fmt: skip
    _hardware(parser)


def _add_predict(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "predict",
        "Score files, folders, lists and tables of files: one row per file, in order. After an "
        "interruption the same command goes on. Ends with 4 if a file failed or was rejected.",
        "  xray-classifier predict runs/latest FOLDER -o predictions.csv\n"
        "  xray-classifier predict model.safetensors @films.txt -o night.csv --only-new\n"
        "  xray-classifier predict runs/latest films.csv -o - --format jsonl\n",
    )  # fmt: skip
    group = parser.add_argument_group("input")
    group.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_OR_RUN")
    group.add_argument("inputs", type=Path, nargs="+", metavar="INPUT",
                       help="file, folder, @LIST of files, or CSV with a column path")  # fmt: skip
    group.add_argument("--follow-symlinks", action="store_true",
                       help="follow links that lead out of folders")  # fmt: skip
    group.add_argument("--isolate", action=argparse.BooleanOptionalAction, default=True,
                       help="decode in processes that may die")  # fmt: skip
    group.add_argument("--fast", action="store_true",
                       help="decode large JPEGs at a fraction of their size: p_sick within 0.01, "
                       "decisions as without (default: in full)")  # fmt: skip
    _gate(group)
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--out", type=Path, required=True, metavar="FILE",
                       help="table to write; - is stdout")  # fmt: skip
    group.add_argument("--format", choices=("csv", "jsonl", "parquet"),
                       help="(default: by the ending of FILE, else csv)")  # fmt: skip
    group.add_argument("--force", action="store_true", help="replace an existing FILE")
    group.add_argument("--only-new", action="store_true",
                       help="replace FILE, scoring only what changed since then")  # fmt: skip
    for kind in ("failed", "rejected"):
        group.add_argument(f"--max-{kind}", type=_limit, default="0", metavar="N|P%",
                           help=f"end with 0 with so many files {kind} (default: 0)")  # fmt: skip
    group.add_argument("--hash-names", action="store_true", help="keyed hashes for file names")
    group.add_argument("--patient", action="store_true", help="add a keyed hash of the patient")
    group.add_argument("--study", action="store_true",
                       help="add DICOM study and image UIDs, and a table per study")  # fmt: skip
    _threshold(group)
    _hardware(parser)


def _gate(group: Any) -> None:
    group.add_argument("--gate", choices=("refuse", "warn", "off"), default="warn",
                       help="images unlike the training data (default: warn)")  # fmt: skip


def _threshold(group: Any) -> None:
    group.add_argument(
        "--threshold", default="auto", metavar="T",
        help="auto (stored), 0.42, sens=0.95, spec=0.90, cost=10 or youden",
    )  # fmt: skip
    group.add_argument("--prevalence", type=float, metavar="P",
                       help="share of sick where it is used: adds p_at_prevalence")  # fmt: skip


def _add_compare(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "compare",
        "Compare two or more models on the same images: paired tests, and the images in dispute. "
        "With --data, keys such as data.labels=... may be given. Ends with 3 if the models were "
        "judged on different images.",
        "  xray-classifier compare runs/20260101-101500_mlp runs/20260101-113000_mixer\n"
        "  xray-classifier compare runs/*_mlp --split val -o compared\n"
        "  xray-classifier compare runs/one runs/two --data other_hospital/ --json\n",
        takes_overrides=True,
    )  # fmt: skip
    group = parser.add_argument_group("input and output")
    group.add_argument("paths", type=Path, nargs="+", metavar="RUN",
                       help="run, its checkpoint, or folder or table of `evaluate`")  # fmt: skip
    group.add_argument("--split", help="which evaluation of a run (default: test)")
    group.add_argument("--data", type=Path, metavar="PATH",
                       help="evaluate all of them on these images first")  # fmt: skip
    group.add_argument(
        "--intersect", action="store_true",
        help="where they were judged on different images, take the shared ones",
    )  # fmt: skip
    group.add_argument("-o", "--out", type=Path, metavar="DIR",
                       help="new folder to write into (default: comparisons/<date>)")  # fmt: skip
    _hardware(parser)


def _add_report(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "report",
        "Write the model card of a run anew, or fill in a reporting checklist as far as the run "
        "can answer it; the rest is marked for the author.",
        "  xray-classifier report runs/latest\n"
        "  xray-classifier report runs/latest --checklist claim\n"
        "  xray-classifier report runs/latest/eval/films-20261125-101500 --checklist stard\n",
    )  # fmt: skip
    parser.add_argument("folder", type=Path, metavar="RUN_OR_EVALUATION",
                        help="run folder, or the folder of an evaluation")  # fmt: skip
    parser.add_argument("--checklist", choices=("claim", "tripod", "stard"),
                        help="CLAIM 2024, TRIPOD+AI or STARD-AI (default: the card)")  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE",
        help="file to write (default: model_card.md or checklist_NAME.md there)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace a FILE that was edited")


def _add_plan(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "plan",
        "Write down what will be judged, and by which rule, before the test set is opened; "
        "evaluate says whether the plan was kept. Images are hashed, no answer is computed.",
        "  xray-classifier plan runs/latest\n"
        "  xray-classifier plan runs/latest --require 'auroc>=0.90' --note 'primary: AUROC'\n"
        "  xray-classifier plan runs/latest --data other_hospital -o other_plan.json\n",
        takes_overrides=True,
    )  # fmt: skip
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_OR_RUN")
    parser.add_argument("--data", type=Path, metavar="PATH",
                        help="images to judge (default: the run's own)")  # fmt: skip
    parser.add_argument("--split", metavar="NAME", help="train, val or test (default: test)")
    parser.add_argument("--require", action="append", default=[], metavar="CONDITION",
                        help="what the result must meet, such as 'auroc>=0.90'")  # fmt: skip
    parser.add_argument("--note", metavar="TEXT", help="what else was decided beforehand")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE",
                        help="plan to write (default: plan.json in the run)")  # fmt: skip


def _add_sample_size(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "sample-size",
        "How many sick and healthy images a test set needs for intervals as narrow as wanted.",
        "  xray-classifier sample-size --sensitivity 0.9 --prevalence 0.1\n"
        "  xray-classifier sample-size --auroc 0.9 --within 0.03 --prevalence 0.5\n",
    )  # fmt: skip
    for name in ("sensitivity", "specificity", "auroc"):
        parser.add_argument(f"--{name}", type=float, metavar="P", help=f"expected {name}")
    parser.add_argument("--prevalence", type=float, default=0.5, metavar="P",
                        help="share of sick in the test set (default: 0.5)")  # fmt: skip
    parser.add_argument("--within", type=float, default=0.05, metavar="W",
                        help="half of the interval's width (default: 0.05)")  # fmt: skip


def _add_init(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "init", "Look at a folder of X-rays and write a commented config for it.",
        "  xray-classifier init my.yaml --data chest_xray\n"
        "  xray-classifier init my.yaml --data films.csv --healthy 0 --sick 1\n"
        "  xray-classifier init phantoms.yaml\n",
    )  # fmt: skip
    parser.add_argument("target", type=Path, metavar="YAML", help="config to write")
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder, CSV or NPZ to look at")
    parser.add_argument("--healthy", action="append", default=[], metavar="NAME",
                        help="class that means healthy; may be repeated")  # fmt: skip
    parser.add_argument("--sick", action="append", default=[], metavar="NAME",
                        help="class that means sick; may be repeated")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing YAML")


def _add_check(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "check",
        "Look for leaks between splits, wrong labels, shortcuts and odd images. Keys such as "
        "data.labels=... may follow DATA. Ends with 3 if there is a leak, with 4 if an image "
        "cannot be read.",
        "  xray-classifier check chest_xray\n"
        "  xray-classifier check chest_xray --fix manifest.csv\n"
        "  xray-classifier check films.csv data.labels='{healthy: [0], sick: [1]}' --json\n",
        takes_overrides=True,
    )  # fmt: skip
    group = parser.add_argument_group("input and output")
    group.add_argument("data", type=Path, nargs="?", metavar="DATA",
                       help="folder, CSV or NPZ with labels")  # fmt: skip
    group.add_argument("-c", "--config", help="config that says how to read the data")
    group.add_argument("-o", "--out", type=Path, metavar="DIR",
                       help="folder to write into (default: checks/<data>-<date>)")  # fmt: skip
    group.add_argument("--fix", type=Path, metavar="MANIFEST",
                       help="write a CSV in which no patient or copy is in two splits")  # fmt: skip
    group.add_argument("--force", action="store_true", help="replace an existing MANIFEST")
    group.add_argument("-j", "--workers", type=_count,
                       help="decoding threads (default: one per core)")  # fmt: skip


def _add_tour(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "tour",
        "The whole lesson on phantoms, from one perceptron to an honest test, in one page: "
        "tour.html. Takes a minute or two; keys of the config `tour` may be changed.",
        "  xray-classifier tour\n"
        "  xray-classifier tour -o lesson --seed 3\n"
        "  xray-classifier tour -o quick data.phantoms.n_images=400 train.epochs=10\n",
        takes_overrides=True,
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, metavar="DIR",
                        help="new folder to write into (default: tours/<date>)")  # fmt: skip
    parser.add_argument("--seed", type=_seed, default=0, metavar="N",
                        help="of films, weights and order (default: 0)")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an earlier tour in DIR")


def _add_export(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "export", "Write a copy of a model to give away.",
        "  xray-classifier export runs/latest -o shared.safetensors --strip-memory\n"
        "  xray-classifier export runs/latest -o model.onnx --onnx\n",
    )  # fmt: skip
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_OR_RUN")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE",
                        help="model file to write")  # fmt: skip
    parser.add_argument("--strip-memory", action="store_true",
                        help="leave out the hashes of training images and patients")  # fmt: skip
    parser.add_argument("--onnx", action="store_true",
                        help="an ONNX file, which answers without this program")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")


def _add_explain(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "explain",
        "Draw what a course on deep learning draws, from a finished run: the loss landscape, "
        "gradient descent, learning rates, what neurons look for, gradient flow, overfitting, and "
        "which pixels decided.",
        "  xray-classifier explain runs/latest\n"
        "  xray-classifier explain runs/latest --images film1.png film2.dcm -o explained\n"
        "  xray-classifier explain runs/latest data.path=/where/the/films/are/now\n",
        takes_overrides=True,
    )  # fmt: skip
    group = parser.add_argument_group("input and output")
    group.add_argument("run_folder", type=Path, metavar="RUN",
                       help="folder of a finished run, or a checkpoint in it")  # fmt: skip
    group.add_argument("--images", type=Path, nargs="+", default=[], metavar="FILE",
                       help="your own films to explain (default: films of the run)")  # fmt: skip
    group.add_argument("-o", "--out", type=Path, metavar="DIR",
                       help="folder to write into (default: RUN/explain)")  # fmt: skip
    group.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps (default: auto)")


def _add_lr_find(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "lr-find",
        "Find a learning rate: raise it from tiny to huge over one short training, and suggest "
        "where the loss falls fastest, in the half decade below its lowest point. The model is "
        "thrown away.",
        "  xray-classifier lr-find -c demo\n"
        "  xray-classifier lr-find -c mlp data.path=chest_xray train.optimizer.name=sgd\n"
        "  xray-classifier lr-find -c my.yaml --from 1e-6 --to 1 --steps 200 --json\n",
        takes_overrides=True,
    )  # fmt: skip
    group = parser.add_argument_group("input and output")
    group.add_argument("-c", "--config", required=True,
                       help="YAML file, run folder, or shipped name such as demo")  # fmt: skip
    group.add_argument("-o", "--out", type=Path, metavar="DIR",
                       help="folder to write into (default: lr_find/<date>_NAME)")  # fmt: skip
    control = parser.add_argument_group("the sweep")
    control.add_argument("--from", dest="lowest", type=float, default=1e-6, metavar="LR",
                         help="smallest learning rate (default: 1e-6)")  # fmt: skip
    control.add_argument("--to", dest="highest", type=float, default=10.0, metavar="LR",
                         help="largest, unless the loss diverges first (default: 10)")  # fmt: skip
    control.add_argument("--steps", type=_count, default=150, metavar="N",
                         help="steps of the sweep (default: 150)")  # fmt: skip
    control.add_argument("--limit", type=int, metavar="N", help="use N images only")
    control.add_argument("--seed", type=int, help="seed of weights, order and dropout (default: 0)")
    _hardware(parser)


def _add_config(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "config", "Explain, check or describe configs.",
        "  xray-classifier config show train.optimizer\n"
        "  xray-classifier config validate my.yaml train.epochs=3\n"
        "  xray-classifier config schema > xray.schema.json\n",
        takes_overrides=True,
    )  # fmt: skip
    parser.add_argument("action", choices=("show", "validate", "schema", "list"))
    parser.add_argument("subject", nargs="?", help="section or key (show), config (validate)")


def _add_cache(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "cache", "List or clear the cache of decoded images.",
        "  xray-classifier cache list\n  xray-classifier cache clear\n"
        "  xray-classifier cache list --dir /scratch/cache\n",
    )  # fmt: skip
    parser.add_argument("action", choices=("list", "clear"))
    parser.add_argument("--dir", type=Path, help="cache folder (default: the user's)")


def _add_doctor(found: Any, verbs: dict[str, argparse.ArgumentParser]) -> None:
    parser = _verb(
        found, verbs, "doctor", "Look at this installation: versions, devices, codecs, extras.",
        "  xray-classifier doctor\n  xray-classifier doctor --json\n"
        "  xray-classifier doctor --verify-resume\n",
    )  # fmt: skip
    parser.add_argument(
        "--verify-resume", action="store_true",
        help="prove on this machine that a stopped run goes on exactly (about a minute)",
    )  # fmt: skip
