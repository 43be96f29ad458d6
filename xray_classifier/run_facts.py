"""What a run and its evaluation say of themselves, gathered for a card or a checklist.

Every part may be missing: a checkpoint may stand alone, and an evaluation may lie anywhere.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.confusion import Confusion
from xray_classifier.errors import CheckpointError, DataError, UsageError
from xray_classifier.files import printable, read_bytes
from xray_classifier.strict_yaml import load
from xray_classifier.table_one import Listing, read_listing, unquoted

MODEL = Path("checkpoints") / "best.safetensors"
PLAN_NAME = "plan.json"


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of a model and of one evaluation of it.

    Attributes:
        content: What the checkpoint says; empty where none is at hand.
        model_sha256: The checkpoint's own digest.
        model_name: Name of the run folder.
        config: The resolved config of the run, nested.
        summary: summary.json of the run.
        audit: data/audit.json of the run.
        listing: data/manifest.csv of the run.
        metrics: metrics.json of the evaluation.
        metrics_name: Its path below the run, or its file name.
        counts: Right and wrong decisions, counted in the predictions.
        n_referred: Answers that were neither sick nor healthy.
        own: Whether the images judged are those of the run; None where that cannot be told.
        plan: plan.json of the run.
    """

    content: Mapping[str, Any] = field(default_factory=dict)
    model_sha256: str | None = None
    model_name: str | None = None
    config: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] | None = None
    audit: Mapping[str, Any] | None = None
    listing: Listing | None = None
    metrics: Mapping[str, Any] | None = None
    metrics_name: str = "metrics.json"
    counts: Confusion | None = None
    n_referred: int = 0
    own: bool | None = None
    plan: Mapping[str, Any] | None = None

    def said(self, *path: str) -> Any:
        """One value of the checkpoint's content by its keys; None where it is not there."""
        return value_at(self.content, *path)

    def measured(self, *path: str) -> Any:
        """One value of metrics.json by its keys; None where it was not computed."""
        return value_at(self.metrics, *path)

    def chosen(self, *path: str) -> Any:
        """One value of the config by its keys; None where it is off, or no config is at hand."""
        return value_at(self.config, *path)


class Judged(NamedTuple):
    """What predictions.csv says: names, decisions at the threshold, and how many are referred."""

    ids: tuple[str, ...] = ()
    counts: Confusion | None = None
    n_referred: int = 0


def value_at(values: Any, *path: str) -> Any:
    """What stands under nested keys; None where the way ends early."""
    for key in path:
        if not isinstance(values, Mapping):
            return None
        values = values.get(key)
    return values


def read_facts(path: Path, model: Path | None = None) -> Facts:
    """Gather what a folder says.

    Args:
        path: A run folder, or a folder that holds metrics.json. Of a run, the newest evaluation of
            its test images is taken, else its newest evaluation, else its own metrics.json.
        model: The checkpoint that was judged; where `path` lies in no run, the run of the
            checkpoint is read. None: the checkpoint of the run around `path`.

    Raises:
        UsageError: It is neither.
        DataError: A file of it cannot be read.
        CheckpointError: The checkpoint is damaged or foreign.
    """
    path = path.absolute()
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise UsageError(f"{printable(path)} {what}; name a run or the folder of an evaluation")
    run = run_around(path) or (None if model is None else run_around(model.absolute()))
    folder = evaluation_of(path)
    if run is None and folder is None:
        raise UsageError(
            f"{printable(path)} is no run (it holds no {MODEL}) and no evaluation (it holds no "
            "metrics.json)"
        )
    model = model or (None if run is None else run / MODEL)
    content = {} if model is None else load_checkpoint(model).content
    listing = _listing(run, content)
    judged = Judged() if folder is None else _predictions(folder)
    return Facts(
        content=content,
        model_sha256=None if model is None else model_digest(model),
        model_name=None if run is None else run.resolve().name,
        config=_config(run),
        summary=_json(run, "summary.json"),
        audit=_json(run, "data/audit.json"),
        listing=listing,
        metrics=_json(folder, "metrics.json"),
        metrics_name=_metrics_name(folder, run),
        counts=judged.counts,
        n_referred=judged.n_referred,
        own=None if listing is None or not judged.ids else set(judged.ids) <= set(listing.ids),
        plan=_json(run, PLAN_NAME),
    )


def run_around(path: Path) -> Path | None:
    """The run folder that a path is, or that it lies in as RUN/eval/NAME."""
    candidates = [path, *path.parents[:2]]
    return next((folder for folder in candidates if (folder / MODEL).is_file()), None)


def evaluation_of(path: Path) -> Path | None:
    """The folder whose metrics.json speaks for a path, see `read_facts`; None: there is none."""
    found = [f.parent for f in (path / "eval").glob("*/metrics.json")]
    found.sort(key=lambda folder: (folder / "metrics.json").stat().st_mtime)
    tests = [f for f in found if value_at(_json(f, "metrics.json"), "split") == "test"]
    own = [path] if (path / "metrics.json").is_file() else []
    return next(iter([*tests[::-1], *found[::-1], *own]), None)


def model_digest(path: Path) -> str:
    """The digest that a checkpoint carries of itself; see `checkpoint`, which verifies it.

    Raises:
        CheckpointError: It carries none, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        return str(header["__metadata__"]["sha256"])
    except OSError as error:
        raise CheckpointError(f"cannot read {printable(path)}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{printable(path)} carries no checksum") from error


def was_judged_on(model: Path, fingerprint: str) -> bool:
    """Whether an evaluation beside a checkpoint is of the images with this fingerprint."""
    run = run_around(model.absolute())
    found = () if run is None else (run / "eval").glob("*/metrics.json")
    stored = (_json(file.parent, file.name) for file in found)
    return any(value_at(metrics, "test_set", "fingerprint") == fingerprint for metrics in stored)


def chosen_in_run(model: Path, *path: str) -> Any:
    """One value of the config of the run that a checkpoint stands in; None where there is none."""
    return value_at(_config(run_around(model.absolute())), *path)


def _metrics_name(folder: Path | None, run: Path | None) -> str:
    if folder is None or run is None or not folder.is_relative_to(run):
        return "metrics.json"
    return (folder / "metrics.json").relative_to(run).as_posix()


def _json(folder: Path | None, name: str) -> Mapping[str, Any] | None:
    """A JSON object in a folder; None where there is no such file.

    Raises:
        DataError: It is no JSON object.
        OutputError: The system could not read it.
    """
    if folder is None or not (folder / name).is_file():
        return None
    content = read_bytes(folder / name)
    try:
        found = json.loads(content)
    except ValueError as error:
        raise DataError(f"{printable(folder / name)} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{printable(folder / name)} holds no object")
    return found


def _config(run: Path | None) -> Mapping[str, Any] | None:
    if run is None or not (run / "config.yaml").is_file():
        return None
    text = _text(run / "config.yaml")
    found = load(text, printable(run / "config.yaml")).data
    return found if isinstance(found, dict) else None


def _listing(run: Path | None, content: Mapping[str, Any]) -> Listing | None:
    if run is None or not (run / "data" / "manifest.csv").is_file():
        return None
    sick = value_at(content, "labels", "sick") or ["sick"]
    task = str(content.get("task", "classify"))
    return read_listing(_text(run / "data" / "manifest.csv"), [str(s) for s in sick], task)


def _predictions(folder: Path) -> Judged:
    """What the table of an evaluation says; nothing where there is none."""
    names = ("predictions.csv", "predictions_val.csv", "predictions_out_of_fold.csv")
    files = [folder / name for name in names]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        return Judged()
    rows = list(csv.DictReader(io.StringIO(_text(found), newline="")))
    ids = tuple(unquoted(str(row.get("path", ""))) for row in rows)
    threshold = value_at(_json(folder, "metrics.json"), "threshold")
    decided = [row for row in rows if row.get("decision")]
    if not decided or threshold is None:
        return Judged(ids)
    try:
        n = Counter((row.get("label"), _called_sick(row, float(threshold))) for row in decided)
    except (ValueError, TypeError) as error:
        raise DataError(f"{printable(found)} cannot be read: {error}") from error
    counts = Confusion(
        tp=n["sick", True], fp=n["healthy", True], tn=n["healthy", False], fn=n["sick", False]
    )
    return Judged(ids, counts, sum(row["decision"] == "refer" for row in decided))


def _called_sick(row: Mapping[str, str], threshold: float) -> bool | None:
    """The decision at the threshold, also of a referred image; None where no probability tells."""
    if row.get("p_sick"):
        return float(row["p_sick"]) >= threshold
    return {"sick": True, "healthy": False}.get(row["decision"])


def _text(path: Path) -> str:
    content = read_bytes(path)
    try:
        return content.decode("utf-8")
    except UnicodeError as error:
        raise DataError(f"{printable(path)} cannot be read: {error}") from error
