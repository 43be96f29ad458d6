"""The parts of a report page below its figures: each a heading with words and tables."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from xray_classifier.classifier import Classifier
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.probes import SUBJECTS, ProbeResult
from xray_classifier.details import LABEL_SHIFT, Details
from xray_classifier.details_words import CHOSEN_ON, operating_words, refer_words
from xray_classifier.estimate_words import percent, with_interval
from xray_classifier.estimates import Estimate
from xray_classifier.extras import Extras
from xray_classifier.files import printable
from xray_classifier.judgement import Judgement
from xray_classifier.judgement_words import coverage_words
from xray_classifier.operating_estimates import estimate_of
from xray_classifier.patient_level import AGGREGATIONS
from xray_classifier.report.metric_words import metric_words
from xray_classifier.report.page import ReportSection, ReportTable
from xray_classifier.report_figures import moved_decision_picture
from xray_classifier.stress_test import strength_table, stress_picture, stress_table

INTENDED = {
    "purpose": "purpose",
    "users": "users",
    "population": "population",
    "min_age_years": "youngest, years",
    "max_age_years": "oldest, years",
    "sex": "sex",
    "body_part": "body part",
    "view": "view",
    "modality": "modality",
    "setting": "setting",
    "reference_standard": "sick by whom, and how",
    "out_of_scope": "not meant for",
}
NOT_SAID = "not said: fill in `intended_use` in the config"


def report_sections(
    judgement: Judgement, classifier: Classifier, radiographs: Radiographs
) -> tuple[ReportSection, ...]:
    """All parts that there is something to say in, in the order of the page."""
    found: list[ReportSection] = []
    if judgement.details is not None:
        found += _of_details(judgement, judgement.details)
    found += _of_extras(judgement, judgement.extras)
    found += _audit_section(radiographs)
    if judgement.without is not None:
        found.append(_familiar_section(judgement, judgement.without))
    return (*found, _intended_section(classifier))


def _sentences(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts with a capital and a full stop."""
    return tuple(
        f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" for text in texts
    )


def _of_details(j: Judgement, details: Details) -> Iterator[ReportSection]:
    yield _operating_section(j, details)
    if j.extras.what_if:
        yield _what_if_section(j)
    yield _calibration_section(details)
    if details.baselines is not None:
        yield _baseline_section(j, details)
    if j.coverage is not None:
        yield _coverage_section(j, details)
    if details.patients is not None:
        yield _patient_section(details)
    moved = details.at_prevalence
    if moved is not None:
        rows = tuple((metric_words(n).label, with_interval(e)) for n, e in moved.metrics.items())
        picture = moved_decision_picture(j)
        yield ReportSection(
            f"At a prevalence of {moved.stated:g}",
            (
                f"The data have {details.prevalence:.1%} sick, the probabilities are right for "
                f"{moved.calibrated_to:.1%}. Read with care: {LABEL_SHIFT}.",
            ),
            (ReportTable("The same decisions there", ("metric", "value"), rows),),
            () if picture is None else (picture,),
        )


def _operating_section(j: Judgement, details: Details) -> ReportSection:
    """Where the threshold comes from, what it showed there and shows here."""
    point = details.operating_point
    e = j.estimates
    names = ("sensitivity", "specificity")
    rows = [("on this split", *(percent(e[name]) for name in names))]
    if point.get("sensitivity") is not None and j.by_contract:
        rows.insert(0, ("where it was chosen", *(percent(estimate_of(point[n])) for n in names)))
    paragraphs = operating_words(details) if j.by_contract else []
    if not j.by_contract:
        paragraphs.append(
            f"exploratory: the threshold {j.threshold:.3g} was asked for on the command line; the "
            f"stored one is {point['value']:.3g}"
        )
    low, high = point.get("threshold_interval") or (None, None)
    if low is not None and high is not None and j.by_contract:
        paragraphs.append(
            f"The threshold is {j.threshold:.3g}; with other patients to choose it on it would lie "
            f"between {low:.3g} and {high:.3g} (95 % of resamples)."
        )
    table = ReportTable("The operating point", ("images", *names), tuple(rows))
    return ReportSection("Operating point", _sentences(paragraphs), (table,))


def _what_if_section(j: Judgement) -> ReportSection:
    """Other thresholds on this split."""
    where = CHOSEN_ON.get(j.chosen_on or "val", "validation")
    rows = tuple(
        (
            one.policy,
            f"{one.threshold:.3g}",
            *(f"{getattr(one.counts, name):.1%}" for name in ("sensitivity", "specificity")),
            f"{one.counts.fn:,}",
            f"{one.counts.fp:,}",
        )
        for one in j.extras.what_if
    )
    header = ("policy", "threshold", "sensitivity", "specificity", "missed", "false alarms")
    words = (
        f"Exploratory: each threshold was solved on {where}, but a reader who picks the one that "
        "looks best here is flattered by it."
    )
    return ReportSection("What if", (words,), (ReportTable("Other thresholds", header, rows),))


def _calibration_section(details: Details) -> ReportSection:
    c = details.calibration
    how = {
        "platt": f"Platt scaling: P(sick) = sigmoid({c.slope:.3g} x logit {c.intercept:+.3g})",
        "temperature": f"one temperature: P(sick) = sigmoid({c.slope:.3g} x logit)",
        "off": "no calibration: P(sick) = sigmoid(logit)",
    }[c.method]
    rows = tuple(
        (metric_words(name).label, with_interval(details.before[name]), with_interval(after))
        for name, after in details.after.items()
    )
    table = ReportTable(
        "Before and after, on this split", ("metric", "p_raw (before)", "p_sick (after)"), rows
    )
    return ReportSection(
        "Calibration",
        (
            f"{how[0].upper()}{how[1:]}. It was fitted before this split was opened and is stored "
            "in the checkpoint. ECE takes 10 bins of equal width; a slope of 1 and an intercept of "
            "0 are right.",
        ),
        (table,),
    )


def _baseline_section(j: Judgement, details: Details) -> ReportSection:
    found = details.baselines
    if found is None:
        return ReportSection("Baselines")
    rows = (
        ("this model", with_interval(j.estimates["auroc"]), f"{found.model_brier:.3f}"),
        ("logistic regression on 8 x 8 pixels", with_interval(found.thumbnail), "-"),
        ("the share of sick in training, for all", "0.500", f"{found.guess_brier:.3f}"),
    )
    return ReportSection(
        "Baselines",
        _sentences([found.in_words()]),
        (ReportTable("The same images", ("model", "AUROC", "Brier score"), rows),),
    )


def _coverage_section(j: Judgement, details: Details) -> ReportSection:
    covered = j.coverage
    if covered is None:
        return ReportSection("Nobody vanishes")
    rows = [("called sick or healthy", f"{covered.n_answered:,}")]
    if details.refer is not None:
        rows.append(("referred to a person", f"{covered.n_referred:,}"))
    rows += [(f"unusable: {reason}", f"{n:,}") for reason, n in sorted(covered.unread.items())]
    rows.append(("all images of the split", f"{covered.n:,}"))
    shares = tuple(
        (words, *(percent(found[name]) for name in ("sensitivity", "specificity")))
        for words, found in (
            ("images called sick or healthy", covered.answered),
            ("all images, the others counted as wrong", covered.worst_case),
        )
    )
    words = [] if details.refer is None else [refer_words(details)]
    words.append("every image has an answer" if covered.complete else coverage_words(covered))
    return ReportSection(
        "Nobody vanishes",
        _sentences(words),
        (
            ReportTable("What became of the images", ("images", "n"), tuple(rows)),
            ReportTable("Worst case", ("over", "sensitivity", "specificity"), shares),
        ),
    )


def _patient_section(details: Details) -> ReportSection:
    found = details.patients
    if found is None:
        return ReportSection("Patient by patient")
    names = ("auroc", "sensitivity", "specificity", "ppv", "npv")
    rows = tuple(
        (
            AGGREGATIONS[how],
            *(_cell(name, metrics) for name in names),
        )
        for how, metrics in found.metrics.items()
    )
    mixed = ""
    if found.n_mixed:
        mixed = f" {found.n_mixed:,} have images of both classes and count as sick."
    return ReportSection(
        "Patient by patient",
        (f"{found.n:,} patients, {found.n_sick:,} of them sick.{mixed}",),
        (ReportTable("One answer a patient", ("answer", *names), rows),),
    )


def _cell(name: str, metrics: Mapping[str, Estimate]) -> str:
    if name not in metrics:
        return "-"
    return with_interval(metrics[name]) if name == "auroc" else percent(metrics[name])


def _of_extras(j: Judgement, extras: Extras) -> Iterator[ReportSection]:
    if extras.stress is not None:
        numbers = stress_table(extras.stress)
        picture = stress_picture(extras.stress, j.split)
        yield ReportSection(
            "Stress test",
            _sentences([*extras.stress.in_words(), *extras.stress.notes]),
            (strength_table(extras.stress),),
            (picture._replace(header=numbers.header, rows=numbers.rows),),
        )
    paragraphs = _sentences(extras.contract_words())
    if extras.requirements:
        unmet = {text.split(":")[0] for text in extras.unmet}
        states = ((text, "not met" if text in unmet else "met") for text in extras.requirements)
        table = (ReportTable("Requirements", ("condition", "result"), tuple(states)),)
        yield ReportSection("This set of images", paragraphs, table)
    elif paragraphs:
        yield ReportSection("This set of images", paragraphs)


def _audit_section(radiographs: Radiographs) -> Iterator[ReportSection]:
    """How well other things than anatomy predict the label; nothing where nobody looked."""
    if radiographs.audit is None:
        return
    words = tuple(printable(text) for text in radiographs.warnings) or (
        "no patient and no copy of a film stands in two splits",
    )
    rows = tuple(
        (
            printable(SUBJECTS.get(probe.name, probe.name)),
            probe.kind,
            _number(probe.auroc),
            _range(probe),
        )
        for probe in radiographs.audit.shortcuts
        if probe.auroc is not None
    )
    header = ("from", "kind", "AUROC", "95 % interval")
    title = "What else predicts the label (all splits, patients kept apart)"
    yield ReportSection(
        "Data audit", _sentences(words), (ReportTable(title, header, rows),) if rows else ()
    )


def _familiar_section(j: Judgement, without: Mapping[str, Estimate]) -> ReportSection:
    """The metrics with and without images that the model was trained on."""
    rows = tuple(
        (metric_words(name).label, with_interval(estimate), with_interval(without[name]))
        for name, estimate in j.estimates.items()
    )
    header = ("metric", "all images", "unknown ones")
    return ReportSection(
        "Images that the model knows",
        tables=(ReportTable("With and without images of its training data", header, rows),),
    )


def _intended_section(classifier: Classifier) -> ReportSection:
    stated: Mapping[str, Any] = classifier.content.get("intended_use") or {}
    rows = tuple(
        (words, printable(_listed(stated[key])))
        for key, words in INTENDED.items()
        if stated.get(key) not in (None, [], ())
    )
    if not rows:
        return ReportSection("Intended use", (NOT_SAID[0].upper() + NOT_SAID[1:] + ".",))
    return ReportSection(
        "Intended use", tables=(ReportTable("As its author states it", ("what", "said"), rows),)
    )


def _listed(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "; ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _range(probe: ProbeResult) -> str:
    if probe.ci_low is None or probe.ci_high is None:
        return "-"
    return f"{probe.ci_low:.2f} to {probe.ci_high:.2f}"
