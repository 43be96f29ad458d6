"""What a batch of predictions comes to: counts, facts beside the table, closing words."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xray_classifier import __version__
from xray_classifier.answers import OK, REFER
from xray_classifier.classifier import Classifier
from xray_classifier.data.tree import Tree
from xray_classifier.details import LABEL_SHIFT
from xray_classifier.errors import OutputError
from xray_classifier.files import printable, read_json, write_json
from xray_classifier.prediction_options import Prediction
from xray_classifier.run_facts import model_digest
from xray_classifier.terminal import Terminal, seconds_in_words

PROGRAM = "xray-classifier"
PARTLY_DONE = 4


@dataclass(frozen=True)
class PredictionResult:
    """What a batch comes to; `--json` prints it. Counts are rows.

    Attributes:
        out: The table; `-` for standard output.
        meta: The file of facts beside it; None for standard output.
        n: Rows in all: ok, failed and rejected.
        ok: Scored.
        failed: Could not be read.
        rejected: Sound files of a kind that gets no answer.
        sick: Decided as sick.
        referred: Left to a person.
        reused: Answers kept from an earlier run.
        exit_code: 0, or 4 where more failed or were rejected than was allowed.
    """

    out: str
    meta: str | None
    n: int
    ok: int
    failed: int
    rejected: int
    sick: int
    referred: int
    reused: int
    exit_code: int


@dataclass
class Tally:
    """Counts rows as they pass.

    Attributes:
        columns: Of the rows.
        n: Rows so far.
        strange: Rows with an `ood_score` above 1.
        values: Count of each value by column.
    """

    columns: Sequence[str]
    n: int = 0
    strange: int = 0
    values: dict[str, Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._strange = self.columns.index("ood_score") if self._has("ood_score") else None
        counted = ("status", "reason", "decision", "in_training")
        self._places = [(name, self.columns.index(name)) for name in counted if self._has(name)]
        self.values = {name: Counter() for name in counted}

    def _has(self, name: str) -> bool:
        return name in self.columns

    def passing(self, rows: Iterable[Sequence[Any]]) -> Iterator[Any]:
        """The same rows, counted."""
        for row in rows:
            self.n += 1
            if self._strange is not None and (row[self._strange] or 0.0) > 1:
                self.strange += 1
            for name, place in self._places:
                self.values[name][row[place] or ""] += 1
            yield row

    def count(self, column: str, value: str) -> int:
        """Rows with a value in a column."""
        return self.values[column][value]

    def result(
        self, out: Path, meta: Path | None, reused: int, how: Prediction
    ) -> PredictionResult:
        """The counts as the verb returns them."""
        failed, rejected = self.count("status", "failed"), self.count("status", "rejected")
        well = is_within(failed, self.n, how.max_failed)
        well = well and is_within(rejected, self.n, how.max_rejected)
        return PredictionResult(
            out=str(out),
            meta=None if meta is None else str(meta),
            n=self.n,
            ok=self.count("status", OK),
            failed=failed,
            rejected=rejected,
            sick=self.count("decision", "sick"),
            referred=self.count("decision", REFER),
            reused=reused,
            exit_code=0 if well else PARTLY_DONE,
        )

    def told(self) -> dict[str, dict[str, int]]:
        """Counts by column for the file of facts, without the rows that say nothing there."""
        return {
            column: {value: n for value, n in sorted(counts.items()) if value}
            for column, counts in self.values.items()
        }


def is_within(count: int, n: int, limit: str) -> bool:
    """Whether a count is within a limit.

    Args:
        count: Rows of a kind, of `n` in all.
        n: Rows.
        limit: A number of rows such as `5`, or a share of them such as `10%`.
    """
    if limit.endswith("%"):
        return count * 100 <= float(limit[:-1]) * n
    return count <= int(limit)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def meta_path(out: Path) -> Path:
    """Where the facts of a table stand: predictions.meta.json for predictions.csv."""
    return out.with_name(f"{out.stem}.meta.json")


def is_meta(path: Path, out: Path | None = None) -> bool:
    """Whether a file is one of ours, so that it may be replaced.

    Args:
        path: The file.
        out: The table that it must be about; None: any.
    """
    facts = read_json(path)
    return facts.get("program") == PROGRAM and (out is None or facts.get("out") == out.name)


def write_meta(
    classifier: Classifier,
    result: PredictionResult,
    tally: Tally,
    tree: Tree,
    *,
    kind: str,
    checkpoint: Path,
    started: str,
    command: Sequence[str],
    how: Prediction,
) -> None:
    """Write the file of facts beside a table. It holds nothing of any patient.

    Args:
        classifier: What answered.
        result: Counts, and where the file goes.
        tally: Further counts.
        tree: What was passed over in folders.
        kind: Format of the table.
        checkpoint: As it was named.
        started: As `now` gave it.
        command: Words as they were typed, the names of inputs hashed where that was asked.
        how: What was asked.

    Raises:
        OutputError: It cannot be written.
    """
    if result.meta is None:
        raise OutputError("standard output has no file of facts")
    content = {
        "program": PROGRAM,
        "version": __version__,
        "out": Path(result.out).name,
        "format": kind,
        "columns": list(tally.columns),
        "model": {"path": printable(checkpoint), **model_facts(classifier)},
        "n": result.n,
        "reused": result.reused,
        "exit_code": result.exit_code,
        "counts": tally.told(),
        "gate": {
            "mode": how.gate,
            "off": classifier.gate_off or None,
            "unlike_the_training_data": tally.strange,
        },
        "isolated": how.isolate,
        "fast": how.fast,
        "intended_use": classifier.content.get("intended_use"),
        "passed_over": {
            "hidden": tree.hidden.total(),
            "links_out": tree.outside,
            "folder_links": tree.folder_links,
            "special": tree.special,
        },
        "command": [printable(word) for word in command],
        "started": started,
        "finished": now(),
        "note": "No medical device: for research and teaching only.",
    }
    write_json(Path(result.meta), content)


def model_facts(classifier: Classifier) -> dict[str, Any]:
    """Which model answered, and how its outputs become decisions."""
    content = classifier.content
    return {
        "sha256": model_digest(classifier.path),
        "task": classifier.task,
        "image": dict(content["image"]),
        "calibration": classifier.calibration.to_dict(),
        "threshold": {"value": classifier.threshold, "policy": classifier.threshold_policy},
        "refer": None if classifier.refer is None else asdict(classifier.refer),
        "prevalence": classifier.prevalence,
        "environment": environment_facts(classifier),
    }


def environment_facts(classifier: Classifier) -> Mapping[str, str]:
    """What else can move the last bits of an answer: device and libraries."""
    from importlib.metadata import version

    device = next(classifier.model.parameters()).device.type
    names = ("torch", "numpy", "pillow")
    return {"device": device, "platform": sys.platform, **{name: version(name) for name in names}}


def say_the_end(
    terminal: Terminal,
    classifier: Classifier,
    result: PredictionResult,
    tally: Tally,
    elapsed_s: float,
) -> None:
    """Say what a batch came to, so that the counts add up."""
    terminal.say(f"{result.ok:,} scored{_decisions(classifier, result)}")
    if classifier.prevalence is not None:
        terminal.say(f"note: p_at_prevalence is for {classifier.prevalence:g} sick; {LABEL_SHIFT}")
    if result.failed or result.rejected:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in tally.told()["reason"].items())
        terminal.warn(f"{result.failed:,} failed and {result.rejected:,} rejected ({reasons})")
    _say_what_is_known(terminal, classifier, result, tally)
    if tally.strange:
        terminal.warn(
            f"{tally.strange:,} images are unlike the training data (ood_score above 1); with "
            "--gate refuse they get a reason and no answer"
        )
    parts = ((result.ok, "ok"), (result.failed, "failed"), (result.rejected, "rejected"))
    total = " + ".join(f"{n:,} {what}" for n, what in parts)
    new = result.n - result.reused
    speed = f"{new:,} in {seconds_in_words(elapsed_s)}, {new / max(elapsed_s, 1e-9):,.0f} a second"
    if result.reused:
        speed = f"{result.reused:,} reused from an earlier run; {speed}"
    terminal.say(f"{result.n:,} rows = {total} ({speed})")
    if result.out != "-":
        terminal.say(f"written to {printable(result.out)}, facts in {printable(result.meta)}")


def _decisions(classifier: Classifier, result: PredictionResult) -> str:
    if classifier.task != "classify":
        return ""
    n_healthy = result.ok - result.sick - result.referred
    parts = [f"{result.sick:,} sick", f"{n_healthy:,} healthy"]
    if classifier.refer is not None:
        parts.append(f"{result.referred:,} referred to a person")
    told = " and ".join([", ".join(parts[:-1]), parts[-1]])
    return f": {told} at threshold {classifier.threshold:.3g}"


def _say_what_is_known(
    terminal: Terminal, classifier: Classifier, result: PredictionResult, tally: Tally
) -> None:
    """How many images the model has seen before."""
    if classifier.memory is None:
        terminal.say(
            "note: this copy of the model remembers no training images (in_training: empty)"
        )
    known, alike = tally.count("in_training", "yes"), tally.count("in_training", "possible")
    if known:
        terminal.warn(f"{known:,} of {result.ok:,} images were in this model's training data")
    if alike:
        terminal.say(
            f"note: {alike:,} of {result.ok:,} images may have been in this model's training data: "
            "they look like images of it (in_training: possible)"
        )
