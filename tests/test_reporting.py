"""`report`: the files it writes, and the author's work that it spares."""

from pathlib import Path

import pytest
from evaluated_runs import write_evaluation
from tiny_runs import own_run, rows_of, tiny_run

from xray_classifier.errors import OutputError, UsageError
from xray_classifier.model_card import TO_FILL_IN
from xray_classifier.reporting import run_report
from xray_classifier.terminal import Terminal

__all__ = ["own_run", "tiny_run"]


@pytest.fixture
def terminal() -> Terminal:
    """A terminal that says nothing."""
    return Terminal(quiet=True)


def test_the_card_of_a_run_is_written_anew(own_run: Path, terminal: Terminal) -> None:
    first = run_report(own_run, terminal)
    card = own_run / "model_card.md"
    assert first.file == str(card)
    assert first.for_author == card.read_text().count(TO_FILL_IN) - 1 > 10
    ids = [row["path"] for row in rows_of(own_run / "data" / "manifest.csv")][:10]
    write_evaluation(own_run / "eval" / "x", ids)
    run_report(own_run, terminal)
    assert "AUROC 0.875" in card.read_text()


def test_an_edited_card_is_spared(own_run: Path, terminal: Terminal) -> None:
    run_report(own_run, terminal)
    card = own_run / "model_card.md"
    edited = card.read_text().replace(TO_FILL_IN, "Dr Who, who@example.org", 1)
    card.write_text(edited)
    with pytest.raises(OutputError, match="was edited"):
        run_report(own_run, terminal)
    assert card.read_text() == edited
    run_report(own_run, terminal, force=True)
    assert "Dr Who" not in card.read_text()


def test_a_file_of_somebody_else_is_spared(
    own_run: Path, tmp_path: Path, terminal: Terminal
) -> None:
    other = tmp_path / "notes.md"
    other.write_bytes(b"\xff mine")
    with pytest.raises(OutputError, match="not of this program"):
        run_report(own_run, terminal, out=other)
    assert other.read_bytes() == b"\xff mine"


@pytest.mark.parametrize(("name", "n"), [("claim", 44), ("tripod", 52), ("stard", 48)])
def test_a_checklist_is_written(own_run: Path, terminal: Terminal, name: str, n: int) -> None:
    result = run_report(own_run, terminal, checklist=name)
    text = (own_run / f"checklist_{name}.md").read_text()
    assert result.file == str(own_run / f"checklist_{name}.md")
    assert result.filled + result.for_author == n
    assert f"**{result.filled} of {n} items filled in by the run" in text
    assert "no patients, no clinical data" in text  # the tiny run learnt from drawn films


def test_a_report_of_an_evaluation_lies_beside_it(own_run: Path, terminal: Terminal) -> None:
    ids = [row["path"] for row in rows_of(own_run / "data" / "manifest.csv")][:10]
    folder = write_evaluation(own_run / "eval" / "x", ids)
    assert run_report(folder, terminal).file == str(folder / "model_card.md")
    assert run_report(folder, terminal, out=folder / "c.md").kind == "model_card"


def test_an_unknown_checklist_is_refused(own_run: Path, terminal: Terminal) -> None:
    with pytest.raises(UsageError, match="there are claim, tripod, stard"):
        run_report(own_run, terminal, checklist="prisma")


def test_a_folder_that_cannot_be_written_is_told(own_run: Path, terminal: Terminal) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        run_report(own_run, terminal, out=own_run / "no" / "such" / "file.md")
