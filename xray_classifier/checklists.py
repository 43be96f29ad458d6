"""A reporting checklist filled in as far as a run can answer, the rest marked for the author."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from xray_classifier import __version__
from xray_classifier import fact_words as made
from xray_classifier import result_words as found
from xray_classifier.checklist_items import CHECKLISTS, Checklist, Item
from xray_classifier.fact_words import Said
from xray_classifier.markdown import plain, sealed, table
from xray_classifier.run_facts import Facts
from xray_classifier.table_one import flow_counts, flow_text, table_one

FOR_AUTHOR = "**FOR THE AUTHOR:**"
Answer = Callable[[Facts], Said | None]


class Filled(NamedTuple):
    """One item with what the run says, and what is left to the author; either may be missing."""

    item: Item
    said: Said | None
    author: str

    @property
    def state(self) -> str:
        """`filled`, `partly` or `author`."""
        if self.said is None:
            return "author"
        return "partly" if self.author else "filled"


def _joined(*answers: Answer) -> Answer:
    """Several answers as one, those that there are."""

    def answer(facts: Facts) -> Said | None:
        parts = [said for each in answers if (said := each(facts)) is not None]
        if not parts:
            return None
        return Said("; ".join(p.text for p in parts), "; ".join(p.source for p in parts))

    return answer


def _predictors(facts: Facts) -> Said | None:
    if not facts.content:
        return None
    return Said("all pixels of the prepared film, and nothing else", "checkpoint: architecture")


def _no_reader(facts: Facts) -> Said | None:
    if not facts.content:
        return None
    return Said("no judgement: the predictors are grey levels", "checkpoint: architecture")


def _no_updating(facts: Facts) -> Said | None:
    if not facts.content or facts.metrics is None:
        return None
    text = "the model was not updated: weights and calibration are those stored in it"
    used = facts.measured("threshold")
    if used is not None and used != facts.said("threshold", "value"):
        text += "; this evaluation tried another threshold than the stored one"
    return Said(text, "checkpoint: calibration, threshold")


def _explanations(facts: Facts) -> Said | None:
    if facts.metrics is None or facts.counts is None:
        return None
    return Said(
        "occlusion maps (Zeiler & Fergus 2014) of the worst errors; not validated",
        "report.html; predictions.csv: p_sick",
    )


def _whole_films(facts: Facts) -> Said | None:
    if not facts.content:
        return None
    return Said("whole films, no regions of them", "checkpoint: image.crop")


ANSWERS: Mapping[str, Answer] = {
    "accuracy": _joined(found.headline, found.cutoff, found.cross_table),
    "acquisition": made.acquisition,
    "acquisition_and_preprocessing": _joined(made.acquisition, made.preprocessing),
    "architecture": made.architecture,
    "availability": found.availability,
    "explanations": _explanations,
    "blinding": found.blinding,
    "building": _joined(
        made.architecture, made.training, made.selection, made.ensembling, found.partition
    ),
    "characteristics": found.characteristics,
    "cross_table": found.cross_table,
    "cutoff": found.cutoff,
    "data_source": made.data_source,
    "deidentification": made.deidentification,
    "eligibility": made.eligibility,
    "ensembling": made.ensembling,
    "estimates": found.estimates_of,
    "external": found.external,
    "failures": found.failures,
    "flow": found.flow,
    "formula": made.formula,
    "headline": found.headline,
    "imbalance": made.imbalance,
    "initialisation": made.initialisation,
    "internal": found.internal,
    "level": found.level,
    "limitations": found.limitations,
    "metric_names": found.metric_names,
    "missing": made.missing,
    "no_reader": _no_reader,
    "no_updating": _no_updating,
    "output": made.output,
    "partition": found.partition,
    "plan": found.plan,
    "population_and_users": _joined(made.population, made.users),
    "predictors": _predictors,
    "preprocessing": made.preprocessing,
    "prevalences": found.prevalences,
    "purpose": made.purpose,
    "reference_standard": made.reference_standard,
    "robustness": found.robustness,
    "selection": made.selection,
    "setting": made.setting,
    "sizes": found.sizes,
    "software": _joined(made.software, made.hardware),
    "storage": found.storage,
    "subgroups": found.subgroups,
    "technology": made.technology,
    "technology_and_headline": _joined(made.technology, found.headline),
    "subsets": _joined(_whole_films, made.eligibility),
    "tested": found.tested,
    "training": _joined(made.training, made.hardware),
    "uncertainty": found.uncertainty,
    "undecided": found.undecided,
    "unusable_input": found.unusable_input,
    "users": made.users,
    "variability": _joined(found.subgroups, found.robustness),
}
"""What a run can answer, by the name that `checklist_items` uses."""


USE_HINTS = {
    answer: f"it can be stated in intended_use.{key} of the config"
    for answer, key in {
        "acquisition": "modality, .body_part and .view",
        "population_and_users": "population and .users",
        "purpose": "purpose",
        "reference_standard": "reference_standard",
        "setting": "setting",
        "users": "users",
    }.items()
}
"""Where the author's words would have come from, by answer."""


def fill(checklist: Checklist, facts: Facts) -> tuple[Filled, ...]:
    """Every item of a checklist with the answer of the run, in order."""
    return tuple(_fill(item, facts) for item in checklist.items)


def _fill(item: Item, facts: Facts) -> Filled:
    said = ANSWERS[item.answer](facts) if item.answer else None
    if said is not None:
        return Filled(item, said, item.author)
    hints = [hint for hint in (item.author, item.otherwise, USE_HINTS.get(item.answer)) if hint]
    return Filled(item, None, "; ".join(hints) or "the run at hand holds no record of this")


def checklist_counts(filled: tuple[Filled, ...]) -> dict[str, int]:
    """Items by state: `filled`, `partly` (the author must add to them) and `author`."""
    states = [entry.state for entry in filled]
    return {state: states.count(state) for state in ("filled", "partly", "author")}


def render_checklist(name: str, facts: Facts) -> str:
    """A whole checklist as Markdown, with Table 1 and the flow of images below.

    Args:
        name: claim, tripod or stard.
        facts: What is known.
    """
    checklist = CHECKLISTS[name]
    filled = {entry.item.number: entry for entry in fill(checklist, facts)}
    lines = [f"# {checklist.title}", "", f"{checklist.source}.", "", checklist.note, ""]
    lines += [*_about(facts), ""]
    for heading, items in checklist.sections:
        rows = [(item.number, item.asks, _cell(filled[item.number])) for item in items]
        lines += [f"## {heading}", "", table(("item", "to report", "reported"), rows)]
    lines += [_counted(checklist_counts(tuple(filled.values()))), "", *attachments(facts)]
    return sealed("\n".join(lines))


def _about(facts: Facts) -> list[str]:
    model = plain(facts.model_name or "no run at hand")
    evaluation = plain(facts.metrics_name) if facts.metrics is not None else "none at hand"
    return [
        f"Filled in by xray-classifier {__version__} from the records of run {model}, evaluation "
        f"{evaluation}. In brackets: the file and key that an answer comes from. {FOR_AUTHOR} "
        "marks what no record of the run can say."
    ]


def _cell(entry: Filled) -> str:
    parts = []
    if entry.said is not None:
        parts.append(f"{plain(entry.said.text)} [{plain(entry.said.source)}]")
    if entry.author:
        parts.append(f"{FOR_AUTHOR} {entry.author}")
    return "<br>".join(parts)


def _counted(counts: Mapping[str, int]) -> str:
    filled, partly, author = counts["filled"], counts["partly"], counts["author"]
    return (
        f"**{filled + partly} of {filled + partly + author} items filled in by the run, {partly} "
        f"of them to be completed by the author; {author} for the author alone.**"
    )


def attachments(facts: Facts) -> list[str]:
    """Table 1 and the flow of images as Markdown lines; nothing where the images are not listed."""
    if facts.listing is None:
        return []
    header, rows = table_one(facts.listing)
    cells = [[plain(cell) for cell in row] for row in rows]
    flow = flow_text(flow_counts(facts.listing, *found.judged(facts)))
    return [
        "## Table 1. Images and patients by split",
        "",
        table([plain(name) for name in header], cells),
        "Covariates are counted per image. Shares are of the column.",
        "",
        "## Flow of images from folder to analysis",
        "",
        "```text",
        flow.replace("`", "'"),
        "```",
        "",
    ]
