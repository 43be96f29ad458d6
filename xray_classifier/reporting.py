"""`report`: the model card of a run written anew, or a reporting checklist filled in."""

from dataclasses import dataclass
from pathlib import Path

from xray_classifier.checklist_items import CHECKLISTS
from xray_classifier.checklists import checklist_counts, fill, render_checklist
from xray_classifier.errors import OutputError, UsageError
from xray_classifier.files import printable, write_text
from xray_classifier.markdown import was_edited
from xray_classifier.model_card import CARD_NAME, TO_FILL_IN, model_card
from xray_classifier.run_facts import Facts, read_facts
from xray_classifier.terminal import Terminal


@dataclass(frozen=True)
class ReportResult:
    """What `report` comes to; `--json` prints it.

    Attributes:
        file: What was written.
        kind: model_card, claim, tripod or stard.
        filled: Items of a checklist that the run answers, whole or in part; 0 for a card.
        for_author: Items left to the author alone; for a card the marks to fill in.
    """

    file: str
    kind: str
    filled: int
    for_author: int


def run_report(
    path: Path,
    terminal: Terminal,
    *,
    checklist: str | None = None,
    out: Path | None = None,
    force: bool = False,
) -> ReportResult:
    """Write the model card, or a checklist, of a run or an evaluation.

    Args:
        path: A run folder, or the folder of an evaluation.
        terminal: What the user reads.
        checklist: claim, tripod or stard; None writes the card.
        out: File to write; None: model_card.md or checklist_NAME.md in `path`. One that this
            program wrote and nobody edited is replaced.
        force: Replace any file.

    Raises:
        UsageError: No such folder or checklist.
        DataError: A record of the run cannot be read.
        CheckpointError: The checkpoint is damaged or foreign.
        OutputError: The file was edited, or cannot be written.
    """
    if checklist is not None and checklist not in CHECKLISTS:
        raise UsageError(f"--checklist {checklist}: there are {', '.join(CHECKLISTS)}")
    facts = read_facts(path)
    file = out or path / (CARD_NAME if checklist is None else f"checklist_{checklist}.md")
    if not force:
        _spare_edited(file)
    write = _write_card if checklist is None else _write_checklist
    result = write(file, facts, checklist or "model_card")
    what = "marks" if checklist is None else "items"
    done = "" if checklist is None else f"{result.filled} items filled in, "
    terminal.say(f"{done}{result.for_author} {what} for the author")
    terminal.say(f"written to {printable(file)}")
    return result


def _write_card(file: Path, facts: Facts, kind: str) -> ReportResult:
    text = model_card(facts)
    write_text(file, text)
    return ReportResult(str(file), kind, 0, text.count(TO_FILL_IN) - 1)  # one explains the mark


def _write_checklist(file: Path, facts: Facts, kind: str) -> ReportResult:
    write_text(file, render_checklist(kind, facts))
    counts = checklist_counts(fill(CHECKLISTS[kind], facts))
    return ReportResult(str(file), kind, counts["filled"] + counts["partly"], counts["author"])


def _spare_edited(file: Path) -> None:
    """Refuse to replace what somebody wrote into."""
    if was_edited(file):
        raise OutputError(
            f"{printable(file)} exists and was edited, or is not of this program; name another "
            "file with -o, or replace it with --force"
        )
