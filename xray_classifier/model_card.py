"""A model card: what a model is, what it is for, how it was judged and where it may fail.

It says what the run recorded. What only a person can know is marked, never made up.

Source: Mitchell et al. 2019, "Model Cards for Model Reporting", doi:10.1145/3287560.3287596.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from xray_classifier import __version__
from xray_classifier import fact_words as made
from xray_classifier import result_words as found
from xray_classifier.checklists import attachments
from xray_classifier.fact_words import USE_NAMES, Said, use_texts
from xray_classifier.markdown import inline, plain, sealed, table
from xray_classifier.report.metric_words import method_words, metric_words
from xray_classifier.run_facts import Facts, value_at

TO_FILL_IN = "*to be filled in by the author*"
NOT_COMPUTED = "not computed"
EXTRA = {
    "operating_point": "Operating point",
    "calibration": "Calibration",
    "coverage": "Coverage, and the worst case for images without an answer",
    "refer": "Referred images",
    "prevalence": "At a stated prevalence",
    "patients": "By patient",
    "subgroups": "Subgroups",
    "baselines": "Baselines",
    "stress": "Stress test",
}
"""Optional parts of metrics.json with their headings, in order."""
MOST_ROWS = 60
FEW = 4
"""A list of up to this many numbers is shown, a longer one is a curve."""


CARD_NAME = "model_card.md"


def model_card(facts: Facts) -> str:
    """The whole card as Markdown.

    Args:
        facts: What is known, from `read_facts`.

    Returns:
        Sections in the order of Mitchell et al.; all text from outside is escaped.
    """
    sections = (
        ("Model details", _details(facts)),
        ("Intended use", _use(facts)),
        ("Factors", _factors(facts)),
        ("Metrics", _metrics(facts)),
        ("Evaluation data", _evaluation(facts)),
        ("Training data", _training(facts)),
        ("Quantitative analyses", _analyses(facts)),
        ("Ethical considerations", _ethics(facts)),
        ("Caveats and recommendations", _caveats(facts)),
    )
    lines = [f"# Model card: {plain(facts.model_name or 'model')}", "", *_opening(facts)]
    for heading, body in sections:
        lines += ["", f"## {heading}", "", *body]
    return sealed("\n".join(lines))


def _opening(facts: Facts) -> list[str]:
    lines = [
        "**No medical device: for research and teaching only.**",
        "",
        f"Written by xray-classifier {__version__} from the records of the run; {TO_FILL_IN} marks "
        "what they cannot say.",
    ]
    headline = found.headline(facts)
    if headline is not None:
        lines += ["", f"In short: {plain(headline.text)}."]
    return lines


def _details(facts: Facts) -> list[str]:
    rows = [
        ("Model", _or_author(made.technology(facts))),
        ("Architecture", _or_author(made.architecture(facts))),
        ("Ensemble", _or_author(made.ensembling(facts))),
        ("First weights", _or_author(made.initialisation(facts))),
        ("Training", _or_author(_both(made.training(facts), made.hardware(facts)))),
        ("Selection", _or_author(made.selection(facts))),
        ("Input", _or_author(made.preprocessing(facts))),
        ("Output", _or_author(made.output(facts))),
        ("Software", _or_author(made.software(facts))),
        ("Checkpoint, SHA-256", plain(facts.model_sha256 or "no checkpoint at hand")),
        ("Developers, date, contact", TO_FILL_IN),
        ("Licence of the weights, citation", TO_FILL_IN),
    ]
    return [table(("", ""), rows)]


def _use(facts: Facts) -> list[str]:
    texts = use_texts(facts)
    rows = [(name, plain(texts.get(key, "")) or TO_FILL_IN) for key, name in USE_NAMES.items()]
    return [
        "As the author states it in `intended_use` of the config:",
        "",
        table(("", ""), rows),
        "Nothing below says anything about other patients, views or devices than those of the data "
        "that it names.",
    ]


def _factors(facts: Facts) -> list[str]:
    columns = () if facts.listing is None else tuple(facts.listing.columns)
    has = ", ".join(plain(name) for name in columns) or "none"
    groups = found.subgroups(facts)
    judged = "none was evaluated by group" if groups is None else plain(groups.text)
    return [
        f"- Covariates in the data: {has}.",
        f"- Groups: {judged}.",
        f"- Devices and acquisition: {_or_author(made.acquisition(facts))}",
        f"- Groups that matter for this use: {TO_FILL_IN}",
    ]


def _metrics(facts: Facts) -> list[str]:
    said = (
        ("Measures", found.metric_names(facts)),
        ("Uncertainty", found.uncertainty(facts)),
        ("Threshold", made.threshold(facts)),
        ("Calibration", made.calibration(facts)),
        ("Undecided images", found.undecided(facts)),
        ("Images that cannot be read", found.unusable_input(facts)),
        ("Analysis plan", found.plan(facts) or Said("none was written before the test", "")),
        ("Looks at these images", found.looks(facts) or Said("not counted", "")),
    )
    return [f"- {name}: {NOT_COMPUTED if s is None else plain(s.text)}." for name, s in said]


def _evaluation(facts: Facts) -> list[str]:
    said = found.evaluation_data(facts)
    lines = ["No evaluation is at hand." if said is None else f"{_capital(plain(said.text))}."]
    shares = found.prevalences(facts)
    if shares is not None:
        lines += ["", f"{_capital(plain(shares.text))}."]
    return [*lines, "", f"Why these data, and whom they represent: {TO_FILL_IN}"]


def _training(facts: Facts) -> list[str]:
    said = (
        ("Source", made.data_source(facts)),
        ("Splits", found.partition(facts)),
        ("Level of the split", found.level(facts)),
        ("Left out", made.eligibility(facts)),
        ("Missing", made.missing(facts)),
        ("Class imbalance", made.imbalance(facts)),
    )
    lines = [f"- {name}: {_or_author(s)}" for name, s in said]
    below = [line.replace("## ", "### ", 1) for line in attachments(facts)]
    return [*lines, f"- Consent and licence of the data: {TO_FILL_IN}", "", *below]


def _analyses(facts: Facts) -> list[str]:
    estimates = facts.measured("metrics")
    if not isinstance(estimates, Mapping):
        return ["No evaluation is at hand."]
    rows = [_metric_row(name, estimate) for name, estimate in estimates.items()]
    header = ("metric", "value", "95 % interval", "images", "interval by")
    lines = [f"### {_capital(plain(found.judged_words(facts)))}", "", table(header, rows)]
    counts = facts.counts
    if counts is not None:
        lines += [
            table(
                ("truth", "called healthy", "called sick"),
                (
                    ("healthy", f"{counts.tn:,}", f"{counts.fp:,}"),
                    ("sick", f"{counts.fn:,}", f"{counts.tp:,}"),
                ),
            )
        ]
    for key, heading in EXTRA.items():
        value = facts.measured(key)
        if not value:
            computed = key in (facts.metrics or {})
            lines += [f"{heading}: {'none' if computed else NOT_COMPUTED}.", ""]
            continue
        if isinstance(value, Mapping):  # a stress test's cells are a table of their own
            value = {name: item for name, item in value.items() if name != "cells"}
        lines += _extra(heading, value)
    return lines


def _named(metric: str) -> str:
    return metric_words(metric).label


def _metric_row(name: str, estimate: Any) -> tuple[str, ...]:
    low, high = value_at(estimate, "ci_low"), value_at(estimate, "ci_high")
    interval = "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    value = value_at(estimate, "value")
    return (
        plain(_named(name)),
        "undefined" if value is None else f"{value:.3f}",
        interval,
        plain(value_at(estimate, "n")),
        plain(method_words(str(value_at(estimate, "method")))),
    )


def _extra(heading: str, value: Any) -> list[str]:
    """An optional part of metrics.json as a table of what it holds."""
    if heading == EXTRA["subgroups"]:
        return [f"### {heading}", "", _subgroup_table(value)]
    rows = [(inline(name), inline(text)) for name, text in flat(value)]
    shown = table(("", ""), rows[:MOST_ROWS])
    more = [f"... and {len(rows) - MOST_ROWS} more in metrics.json", ""]
    return [f"### {heading}", "", shown, *(more if len(rows) > MOST_ROWS else [])]


def _subgroup_table(groups: Any) -> str:
    """One line per group; the metrics that any group has are the columns."""
    entries = [group for group in groups if isinstance(group, Mapping)]
    names = list(dict.fromkeys(name for g in entries for name in g.get("metrics") or {}))
    rows = [
        (
            plain(f"{group.get('column')}: {group.get('value')}"),
            plain(group.get("n", "")),
            plain(group.get("n_sick", "")),
            *(_short(value_at(group, "metrics", name)) for name in names),
            plain(group.get("warning") or ""),
        )
        for group in entries
    ]
    return table(("group", "images", "sick", *(plain(_named(n)) for n in names), "note"), rows)


def _short(estimate: Any) -> str:
    """`0.94 (0.91 to 0.96)`, or a hyphen where there is none."""
    return "-" if estimate is None else found.number_with_interval(estimate, "", 2)


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested plain values as (name, text) pairs; an estimate is one text, a curve its length.

    Args:
        value: What JSON can hold.
        name: What stands before every name.
    """
    if isinstance(value, Mapping):
        if "value" in value and "ci_low" in value:
            return [(name, found.number_with_interval(value))]
        start = f"{name}, " if name else ""
        return [pair for key, item in value.items() for pair in flat(item, f"{start}{key}")]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not value:
            return [(name, "none")]
        if all(isinstance(item, (int, float)) for item in value):
            if len(value) <= FEW:
                return [(name, ", ".join(f"{item:.4g}" for item in value))]
            return [(name, f"{len(value)} numbers, in metrics.json")]
        return [pair for item in value for pair in flat(item, _label(name, item))]
    if isinstance(value, float):
        return [(name, f"{value:.4g}")]
    if isinstance(value, bool):
        return [(name, "yes" if value else "no")]
    return [(name, "none" if value is None else str(value))]


def _label(name: str, item: Any) -> str:
    """What an entry of a list is called: by the texts that it begins with."""
    if not isinstance(item, Mapping):
        return name
    texts = [text for text in item.values() if isinstance(text, str)][:2]
    return ": ".join([*([name] if name else []), *texts])


def _ethics(facts: Facts) -> list[str]:
    kept = made.deidentification(facts)
    lines = [f"- Approval by an ethics committee, consent: {TO_FILL_IN}"]
    if made.is_synthetic(facts):
        lines = ["- Trained on drawn films: no patient's data were used."]
    if kept is not None:
        lines.append(f"- {_capital(plain(kept.text))}.")
    return [
        *lines,
        f"- Harm that a missed or a false finding can do here: {TO_FILL_IN}",
        f"- Known inequalities between groups: {TO_FILL_IN}",
    ]


def _caveats(facts: Facts) -> list[str]:
    notes = [f"- {_capital(plain(text))}" for text in found.warnings_of(facts)]
    return [
        *notes,
        "- The figures are about this checkpoint on these images, not about the method.",
        "- Before use elsewhere: judge it on images of that place with `evaluate --data`.",
        f"- Further limits: {TO_FILL_IN}",
    ]


def _or_author(said: Said | None) -> str:
    return TO_FILL_IN if said is None else plain(said.text)


def _both(*said: Said | None) -> Said | None:
    known = [part for part in said if part is not None]
    if not known:
        return None
    return Said("; ".join(s.text for s in known), "; ".join(s.source for s in known))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
