"""How images were shared out and what an evaluation found, in sentences like those of fact_words.

What an evaluation did not compute is named as such by the caller: there is no sentence for it.
"""

import math
from collections.abc import Mapping
from typing import Any

from xray_classifier import __version__
from xray_classifier.fact_words import Said, data_source, is_synthetic, threshold
from xray_classifier.report.metric_words import method_words, metric_words
from xray_classifier.run_facts import Facts, value_at
from xray_classifier.table_one import flow_counts, table_one

LEADING = ("auroc", "sensitivity", "specificity", "ppv", "npv", "brier", "mae", "r2")
NEUTRAL = ("patients: from ",)
"""How notes of a run begin that limit nothing."""
TOO_GOOD = {
    "train": "the model was trained on these very images",
    "val": "the best epoch was chosen on these very images",
    "calibrate": "calibration and threshold were chosen on these very images",
}


def number_with_interval(estimate: Any, mark: str = "95 % CI ", digits: int = 3) -> str:
    """`0.940 (95 % CI 0.910 to 0.960)`; an undefined one says so.

    Args:
        estimate: An entry of metrics.json's `metrics`.
        mark: What stands before the interval.
        digits: Decimals.
    """
    value = value_at(estimate, "value")
    if not _finite(value):
        return "undefined"
    low, high = value_at(estimate, "ci_low"), value_at(estimate, "ci_high")
    if not (_finite(low) and _finite(high)):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({mark}{low:.{digits}f} to {high:.{digits}f})"


def _counted_metric(name: str, estimate: Any) -> str:
    """`AUROC 0.940 (95 % CI 0.910 to 0.960; n 241)`."""
    label, n = _label(name), value_at(estimate, "n")
    number = number_with_interval(estimate)
    return f"{label} {number[:-1]}; n {n})" if number.endswith(")") else f"{label} {number} (n {n})"


def _label(name: str) -> str:
    return metric_words(name).label


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def partition(facts: Facts) -> Said | None:
    """Which images train, choose and test, and how that was decided."""
    counts = facts.said("splits")
    split = facts.said("data", "split")
    if not isinstance(counts, Mapping) or not counts:
        return None
    parts = [_counted(name, count) for name, count in counts.items()]
    source = "checkpoint: splits"
    if isinstance(split, Mapping):
        asked = ", ".join(
            f"{name} {share}" for name, share in split.items() if _finite(share) and name != "seed"
        )
        parts.append(
            "a split that the data did not bring was carved out of the training patients, classes "
            f"in proportion, by a hash of patient and seed {split.get('seed')} ({asked or 'none'})"
        )
        source += "; data.split"
    return Said("; ".join(parts), source)


def _counted(name: str, count: Mapping[str, Any]) -> str:
    sick = "" if count.get("sick") is None else f", {count['sick']:,} sick"
    return (
        f"{name}: {count.get('images', 0):,} images of {count.get('patients', 0):,} patients{sick}"
    )


def level(facts: Facts) -> Said | None:
    """Whether patients stand in one split only, and what was looked for."""
    if facts.listing is None:
        return None
    leaks = value_at(facts.audit, "leaks")
    if facts.listing.patients_known:
        words = "split by patient: all images of a patient stand in one split"
    else:
        words = (
            "split by image: the data name no patients, so that two images of one patient may "
            "stand in two splits"
        )
    if not isinstance(leaks, Mapping):
        return Said(f"{words}; leaks between splits were not looked for", "data/audit.json")
    shared = value_at(leaks, "patients", "shared_across_splits")
    exact = value_at(leaks, "exact", "groups_across_splits")
    near = value_at(leaks, "near", "images_across_splits")
    found = (
        f"found across splits before any image was left out: {shared} patients, {exact} groups of "
        f"identical images, {near} images with a near copy"
    )
    return Said(f"{words}; {found}", "data/manifest.csv: patient, split; data/audit.json: leaks")


def flow(facts: Facts) -> Said | None:
    """Images from the folder to the analysis, as one line."""
    if facts.listing is None:
        return None
    steps = flow_counts(facts.listing, *judged(facts))
    words = "; ".join(f"{step.images:,} {step.name}" for step in steps)
    return Said(f"{words} (diagram below)", "data/manifest.csv; metrics.json: n")


def judged(facts: Facts) -> tuple[str | None, int | None, int | None]:
    """Split, images scored and images referred, as `flow_counts` takes them."""
    if not facts.own or facts.metrics is None:
        return None, None, None
    return str(facts.measured("split")), facts.measured("n"), facts.n_referred or None


def characteristics(facts: Facts) -> Said | None:
    """What Table 1 holds."""
    if facts.listing is None:
        return None
    names = ", ".join(facts.listing.columns)
    has = f"with {names}" if names else "the data bring no covariates such as age or sex"
    header, _ = table_one(facts.listing)
    return Said(f"Table 1 below, by {', '.join(header[1:])}; {has}", "data/manifest.csv")


def sizes(facts: Facts) -> Said | None:
    """Images and sick images of each analysis."""
    counts = facts.said("splits")
    parts = [_counted(name, count) for name, count in (counts or {}).items()]
    if facts.measured("n") is not None:
        parts.append(f"evaluation ({judged_words(facts)}): {facts.measured('n'):,} images")
    if not parts:
        return None
    return Said("; ".join(parts), f"checkpoint: splits; {facts.metrics_name}: n")


def judged_words(facts: Facts) -> str:
    """Which images were judged."""
    split = facts.measured("split")
    name = "all images" if split == "all" else f"{split} split"
    if facts.own is None:
        return name
    return f"{name} of {'the run' if facts.own else 'other data'}"


def tested(facts: Facts) -> Said | None:
    """How many sick and healthy images there were to test with."""
    counts, estimates = facts.counts, facts.measured("metrics")
    if counts is None or not isinstance(estimates, Mapping):
        return None
    parts = [f"{counts.tp + counts.fn:,} sick and {counts.fp + counts.tn:,} healthy images judged"]
    for name in ("sensitivity", "specificity"):
        low, high = value_at(estimates, name, "ci_low"), value_at(estimates, name, "ci_high")
        if _finite(low) and _finite(high):
            parts.append(f"the 95 % interval of {name} is {100 * (high - low):.0f} points wide")
    return Said("; ".join(parts), f"{facts.metrics_name}: metrics; predictions.csv")


def metric_names(facts: Facts) -> Said | None:
    """Which metrics and plots there are."""
    estimates = facts.measured("metrics")
    if not isinstance(estimates, Mapping) or not estimates:
        return None
    text = f"{', '.join(map(_label, estimates))}; the plots are in report.html"
    return Said(text, f"{facts.metrics_name}: metrics")


def uncertainty(facts: Facts) -> Said | None:
    """How the intervals were made."""
    estimates = facts.measured("metrics")
    if not isinstance(estimates, Mapping):
        return None
    by_method: dict[str, list[str]] = {}
    for name, estimate in estimates.items():
        by_method.setdefault(str(value_at(estimate, "method")), []).append(_label(name))
    parts = [f"{method_words(how)} for {', '.join(n)}" for how, n in by_method.items()]
    if not parts:
        return None
    return Said(f"95 % intervals: {'; '.join(parts)}", f"{facts.metrics_name}: metrics.*.method")


def estimates_of(facts: Facts) -> Said | None:
    """The leading metrics with their intervals."""
    estimates = facts.measured("metrics")
    if not isinstance(estimates, Mapping):
        return None
    names = [name for name in LEADING if name in estimates]
    if not names:
        return None
    words = ", ".join(_counted_metric(name, estimates[name]) for name in names)
    return Said(f"{judged_words(facts)}: {words}", f"{facts.metrics_name}: metrics")


def headline(facts: Facts) -> Said | None:
    """One measure of accuracy for a title or an abstract."""
    for name in ("auroc", "r2"):
        estimate = facts.measured("metrics", name)
        if estimate is not None:
            text = f"{_counted_metric(name, estimate)}, {judged_words(facts)}"
            return Said(text, f"{facts.metrics_name}: metrics.{name}")
    return None


def cross_table(facts: Facts) -> Said | None:
    """Decisions against the truth."""
    c = facts.counts
    if c is None:
        return None
    words = (
        f"at the threshold, sick called sick {c.tp:,}, sick called healthy {c.fn:,}, "
        f"healthy called healthy {c.tn:,}, healthy called sick {c.fp:,}"
    )
    if facts.n_referred:
        words += f"; {facts.n_referred:,} of these lie in the refer band and are left to a person"
    return Said(words, "predictions.csv: label, p_sick, decision")


def failures(facts: Facts) -> Said | None:
    """How many mistakes there are to look at."""
    c = facts.counts
    if c is None:
        return None
    return Said(
        f"{c.fn:,} sick images missed and {c.fp:,} false alarm{'s' * (c.fp != 1)}, each listed "
        "with its probability",
        "predictions.csv: label, decision, p_sick",
    )


def internal(facts: Facts) -> Said | None:
    """The result on images of the same source."""
    found = estimates_of(facts)
    if not facts.own or found is None:
        return None
    used = TOO_GOOD.get(str(facts.measured("split")))
    return found if used is None else Said(f"{found.text}; too good, for {used}", found.source)


def external(facts: Facts) -> Said | None:
    """The result on images of another source."""
    return estimates_of(facts) if facts.own is False else None


def prevalences(facts: Facts) -> Said | None:
    """The share of the sick in development and in evaluation."""
    train, c = facts.said("splits", "train"), facts.counts
    if not isinstance(train, Mapping) or not train.get("images") or c is None:
        return None
    n = c.tp + c.fn + c.fp + c.tn
    if not n or train.get("sick") is None:
        return None
    return Said(
        f"sick: {train['sick'] / train['images']:.1%} of the training images, "
        f"{(c.tp + c.fn) / n:.1%} of the images judged ({judged_words(facts)})",
        "checkpoint: splits.train; predictions.csv: label",
    )


def subgroups(facts: Facts) -> Said | None:
    """Whether metrics were computed by group."""
    groups = facts.measured("subgroups")
    if not isinstance(groups, (list, tuple)) or not groups:
        return None
    names = ", ".join(dict.fromkeys(str(value_at(group, "column")) for group in groups))
    few = sum(bool(value_at(group, "warning")) for group in groups)
    text = (
        f"metrics by {names}, with intervals, in the model card and in report.html; "
        f"{few} of {len(groups)} groups carry a warning such as too few images"
    )
    return Said(text, f"{facts.metrics_name}: subgroups")


def robustness(facts: Facts) -> Said | None:
    """Whether the model was tried on degraded images."""
    if not facts.measured("stress"):
        return None
    text = (
        "the model was judged under changed exposure, contrast, blur, noise, geometry, compression "
        "and resolution; the table is in report.html"
    )
    return Said(text, f"{facts.metrics_name}: stress")


def undecided(facts: Facts) -> Said | None:
    """What happens to images between sick and healthy."""
    if facts.metrics is None:
        return None
    if not facts.measured("refer") and not facts.n_referred:
        text = "the model always answers sick or healthy; there is no third result"
        return Said(text, "predictions.csv: decision")
    text = f"images inside a band are referred to a person: {facts.n_referred or 0:,} here"
    return Said(text, f"{facts.metrics_name}: refer; predictions.csv: decision")


def blinding(facts: Facts) -> Said | None:
    """What the model knows of an image when it answers."""
    if not facts.content:
        return None
    text = (
        "the model reads pixels only: neither the label nor any clinical information reaches it "
        "when it answers"
    )
    return Said(text, "checkpoint: architecture (one grey channel)")


def unusable_input(facts: Facts) -> Said | None:
    """What becomes of a file that cannot be read."""
    if not facts.content:
        return None
    text = (
        "a file that cannot be read, or is no single grey film, gets no answer but a row with a "
        "reason; none is skipped or replaced"
    )
    return Said(text, "predictions.csv: status, reason of `predict`")


def storage(facts: Facts) -> Said | None:
    """Which outputs are kept."""
    if facts.metrics is None:
        return None
    text = "every output is stored, one row per image, with the metrics made of them"
    return Said(text, f"predictions.csv; {facts.metrics_name}")


def availability(facts: Facts) -> Said | None:
    """Which program and which model this is about."""
    if facts.model_sha256 is None:
        return None
    program = facts.said("environment", "versions", "xray-classifier") or __version__
    return Said(
        f"xray-classifier {program} (Apache-2.0); checkpoint SHA-256 {facts.model_sha256}; data "
        f"fingerprint {facts.said('fingerprint')}",
        "checkpoint: sha256, fingerprint, environment.versions",
    )


def warnings_of(facts: Facts) -> list[str]:
    """What a reader must know, from the evaluation, the audit and the kind of data."""
    found = [str(text) for text in facts.measured("warnings") or []]
    used = TOO_GOOD.get(str(facts.measured("split"))) if facts.own else None
    if used is not None:
        found.append(f"the figures are too good, for {used}")
    if is_synthetic(facts):
        found.append("trained on drawn films: nothing here says anything about patients")
    in_sight = facts.chosen("train", "test_curve") == "live"
    if in_sight and facts.own and facts.measured("split") == "test":
        found.append("the test loss was in sight during training (train.test_curve: live)")
    if facts.listing is not None and not facts.listing.patients_known:
        found.append("patients are not known: intervals may be too narrow")
    if facts.metrics is None and facts.content:
        found.append("no evaluation is at hand")
    notes = [str(note) for note in value_at(facts.audit, "notes") or []]
    told = tuple(note for note in notes if note.startswith(NEUTRAL))
    return found + [n for n in notes if n not in told and not any(w.startswith(n) for w in found)]


def limitations(facts: Facts) -> Said | None:
    """The warnings as one sentence."""
    found = warnings_of(facts)
    if not found:
        return None
    return Said("; ".join(found), f"{facts.metrics_name}: warnings; data/audit.json: notes")


def looks(facts: Facts) -> Said | None:
    """How often the images judged were looked at."""
    n = facts.measured("test_set", "looks")
    if n is None:
        return None
    models = facts.measured("test_set", "models")
    times = "once" if n == 1 else f"{n} times"
    text = f"these images were looked at {times}, models: {models}, over all runs of this user"
    return Said(text, f"{facts.metrics_name}: test_set")


def plan(facts: Facts) -> Said | None:
    """Whether the analysis was planned, and whether the plan was kept."""
    kept = facts.measured("plan", "kept")
    if kept is not None:
        digest = facts.measured("plan", "sha256")
        if facts.measured("plan", "covers") is False:
            text = f"analysis plan {digest} is about other images than these"
            return Said(text, f"{facts.metrics_name}: plan")
        deviations = "; ".join(map(str, facts.measured("plan", "deviations") or []))
        words = "kept" if kept else f"not kept: {deviations or 'see report.html'}"
        return Said(f"analysis plan {digest}: {words}", f"{facts.metrics_name}: plan")
    if facts.plan is not None:
        written = f"written {facts.plan.get('created')}, SHA-256 {facts.plan.get('sha256')}"
        kept_words = "whether it was kept, this evaluation does not say"
        return Said(f"analysis plan {written}; {kept_words}", "plan.json")
    return None


def cutoff(facts: Facts) -> Said | None:
    """The threshold, and whether it was fixed before the images were seen."""
    found = threshold(facts)
    if found is None:
        return None
    kept = plan(facts) or Said("no analysis plan was written", "plan.json (not there)")
    stored = "stored in the checkpoint before any image was judged"
    return Said(f"{found.text}; {stored}; {kept.text}", f"{found.source}; {kept.source}")


def evaluation_data(facts: Facts) -> Said | None:
    """What the model was judged on."""
    if facts.metrics is None:
        return None
    words = f"{judged_words(facts)}: {facts.measured('n'):,} images"
    unread = facts.measured("n_unreadable")
    if unread:
        words += f" and {unread:,} that could not be read"
    source = data_source(facts) if facts.own else None
    if source is not None:
        words += f"; {source.text}"
    return Said(words, f"{facts.metrics_name}: split, n, n_unreadable")
