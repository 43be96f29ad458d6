"""A comparison as a person reads it: a verdict in one sentence, tables, and what to beware of."""

import math
from collections.abc import Sequence
from dataclasses import replace

from xray_classifier.compared_images import SICK, PredictionTable, SharedImages, letter, listed
from xray_classifier.comparison import Comparison, Difference, Pair, Standing
from xray_classifier.files import printable

NAME_COLUMNS = 24
FEW_PATIENTS = 10
TITLES = {"auroc": "AUROC", "mae": "mean absolute error"}
METHODS = {
    "delong": "DeLong's paired test",
    "obuchowski": "Obuchowski's paired AUROC test with patients as clusters",
    "newcombe": "Newcombe's paired interval",
    "mcnemar": "McNemar's test",
    "mcnemar_exact": "McNemar's exact test",
    "mcnemar_patients": "clustered McNemar test (Obuchowski)",
    "mcnemar_exact_patients": "exact clustered McNemar test",
    "bootstrap": "paired bootstrap over images",
    "patient_bootstrap": "paired bootstrap over patients",
}
RANKED_SHARES = {"sensitivity": "sens.", "specificity": "spec."}


def verdict(pair: Pair, several: bool, alpha: float = 0.05) -> str:
    """One sentence: which of two models is better, by how much, and whether that is evidence.

    Args:
        pair: Two models.
        several: The pair is one of several: its p is the corrected one.
        alpha: Below which p there is enough evidence.
    """
    found, title = pair.differences[pair.leading], TITLES.get(pair.leading, pair.leading)
    first, second = letter(pair.first), letter(pair.second)
    p = found.p_holm if several else found.p_value
    if math.isnan(found.value):
        return f"{first} and {second} cannot be compared: no image tells their {title}"
    told = f"{_evidence(p, alpha)} on {_counted(found.n, found.n_patients)}"
    if not math.isnan(p):
        told += f" ({p_text(p)}{' after Holm' if several else ''})"
    if found.value == 0:
        return f"{first} and {second} have the same {title}{_interval(found)}: {told}"
    smaller_is_better = pair.leading == "mae"
    ahead = (found.value < 0) if smaller_is_better else (found.value > 0)
    better, worse = (second, first) if ahead else (first, second)
    side = 1 if found.value > 0 else -1
    amount = f"{_number(abs(found.value))}{_interval(found, side)} in {title}"
    return f"{better} is better{f' than {worse}' if several else ''} by {amount}: {told}"


def _evidence(p: float, alpha: float) -> str:
    if math.isnan(p):
        return "too few data for a test"
    return "enough evidence" if p < alpha else "not enough evidence"


def _counted(n_images: int, n_patients: int) -> str:
    """`241 images of 141 patients`, or `624 images` where each is a patient of its own."""
    of = f" of {n_patients:,} patients" if n_patients < n_images else ""
    return f"{n_images:,} images{of}"


def _interval(found: Difference, side: int = 1) -> str:
    """` (-0.004 to 0.028)` of the difference or, with side -1, of its opposite."""
    if math.isnan(found.ci_low):
        return ""
    low, high = sorted((side * found.ci_low, side * found.ci_high))
    return f" ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    """Three decimals; more where a number is that small, fewer where it is large."""
    if math.isnan(value):
        return "-"
    if value and (abs(value) >= 100 or abs(value) < 0.0005):
        return f"{value:.3g}"
    return f"{value:.3f}"


def p_text(p: float) -> str:
    """`p = 0.14`, `p < 0.001`, or that there is none."""
    if math.isnan(p):
        return "no test"
    return "p < 0.001" if p < 0.001 else f"p = {p_cell(p)}"


def p_cell(p: float) -> str:
    """The same for a column headed p: `0.14`, `0.022`, `<0.001` or `-`."""
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.2f}" if p >= 0.1 else f"{p:.3f}"


def model_lines(tables: Sequence[PredictionTable]) -> list[str]:
    """The models by letter, with their threshold where they have one."""
    lines = []
    for place, table in enumerate(tables):
        chosen = f" ({table.policy})" if table.policy else ""
        at = "" if table.threshold is None else f"  threshold {table.threshold:.3g}{chosen}"
        lines.append(f"  {letter(place):<3}{printable(table.name)}{at}")
    return lines


def images_line(images: SharedImages, tables: Sequence[PredictionTable]) -> str:
    """What the models were compared on."""
    splits = {table.split for table in tables}
    split = tables[0].split if len(splits) == 1 else None
    where = f" on the {split} split" if split not in (None, "all") else ""
    classes = ""
    if images.task == "classify":
        n_sick = int((images.targets == SICK).sum())
        classes = f", {len(images) - n_sick:,} healthy and {n_sick:,} sick"
    people = f", {images.n_patients:,} patients" if images.patients_known else ""
    return f"{len(tables)} models{where}: {len(images):,} images{classes}{people}"


def pair_table(pair: Pair) -> list[str]:
    """Both models and their difference, a line for each metric, within 80 columns."""
    a, b = letter(pair.first), letter(pair.second)
    lines = [f"  {'':<20}{a:>8}{b:>8}   {f'{b} - {a}, 95 % interval':<28}p"]
    for name, d in pair.differences.items():
        signed = f"{'+' if d.value > 0 else ''}{_number(d.value)}"
        lines.append(
            f"  {TITLES.get(name, name):<20}{_number(d.first):>8}{_number(d.second):>8}   "
            f"{signed + _interval(d):<28}{p_cell(d.p_value)}"
        )
    return [line.rstrip() for line in lines]


def decision_line(pair: Pair) -> str | None:
    """On how many images two models decide differently; None for regression."""
    if "accuracy" not in pair.differences:
        return None
    found = pair.differences["accuracy"]
    test, a, b = found.mcnemar, letter(pair.first), letter(pair.second)
    if test is None or pair.n_differing == 0:
        return f"{a} and {b} decide alike on all images"
    left_out = ""
    if pair.n_referred:
        left_out = f"; {pair.n_referred:,} that either leaves to a person are decided here too"
    mid = "" if math.isnan(test.mid_p) else f", mid-p {p_cell(test.mid_p)}"
    return (
        f"each at its own threshold, {a} and {b} decide differently on {pair.n_differing:,} "
        f"images: only {a} is right on {test.only_first:,}, only {b} on {test.only_second:,} "
        f"({p_text(test.p_value)}{mid}){left_out}"
    )


def without_line(comparison: Comparison, pair: Pair) -> str | None:
    """The verdict without images that trained one of the two; None where there are none."""
    if not pair.n_trained_on:
        return None
    a, b, n = letter(pair.first), letter(pair.second), len(comparison.images)
    if pair.without is None:
        return f"all {n:,} images trained {a} or {b}: this comparison says nothing about others"
    said = verdict(replace(pair, differences=pair.without), len(comparison.pairs) > 1)
    return f"{pair.n_trained_on:,} of {n:,} images trained {a} or {b}; without them {said}"


def referring_lines(comparison: Comparison, tables: Sequence[PredictionTable]) -> list[str]:
    """Which models leave images to a person, which are decided here all the same."""
    found = []
    for place, table in enumerate(tables):
        n = sum(decision == "refer" for decision in table.decisions)
        if n:
            found.append(
                f"{letter(place)} leaves {n:,} of {len(table.paths):,} images to a person; here "
                "they are decided at its threshold, so that all models decide on the same images"
            )
    return found


def ranking_table(comparison: Comparison, tables: Sequence[PredictionTable]) -> list[str]:
    """All models, best first, within 80 columns."""
    title = "AUROC" if comparison.images.task == "classify" else "MAE"
    shares = RANKED_SHARES if comparison.images.task == "classify" else {}
    heads = "".join(f"{head:>7}" for head in shares.values())
    interval = f"{title}, 95 % interval"
    lines = [f"       {'model':<{NAME_COLUMNS}}  {interval:<23}{heads}  p (Holm)"]
    against = {pair.second: pair for pair in comparison.pairs}
    for rank, standing in enumerate(comparison.standings, start=1):
        name = _end(printable(tables[standing.place].name), NAME_COLUMNS)
        shown = "".join(f"{_number(standing.shares[share]):>7}" for share in shares)
        pair = against.get(standing.place)
        p = "the best" if pair is None else p_cell(pair.differences[pair.leading].p_holm)
        lines.append(
            f"{rank:>3} {letter(standing.place):<3}{name:<{NAME_COLUMNS}}  "
            f"{_with_interval(standing):<23}{shown}  {p}"
        )
    return lines


def _end(text: str, columns: int) -> str:
    """The text, or its end where it is too long: run folders differ there."""
    return text if len(text) <= columns else "…" + text[1 - columns :]


def _with_interval(standing: Standing) -> str:
    e = standing.leading
    if math.isnan(e.value):
        return "undefined"
    between = "" if math.isnan(e.ci_low) else f" ({_number(e.ci_low)} to {_number(e.ci_high)})"
    return _number(e.value) + between


def methods_line(comparison: Comparison) -> str:
    """How intervals and p were made."""
    used = [d for pair in comparison.pairs for d in pair.differences.values()]
    names = dict.fromkeys(m for d in used for m in (d.method, d.ci_method))
    return f"methods: {'; '.join(METHODS[name] for name in names)}"


def warning_lines(comparison: Comparison, tables: Sequence[PredictionTable]) -> list[str]:
    """What a reader must know before believing the comparison."""
    images = comparison.images
    found = list(images.warnings)
    for place, table in enumerate(tables):
        left = [
            (images.n_unreadable[place], f"of {len(table.paths):,} images could not be read"),
            (images.n_not_shared[place], "images are not shared by all"),
        ]
        told = [f"{n:,} {what}" for n, what in left if n]
        if told:
            found.append(f"{letter(place)}: {listed(told)}, and are in no test")
    if images.task == "classify" and len(set(images.targets.tolist())) < 2:
        found.append("only one class is here, so AUROC is undefined")
    if images.n_patients < FEW_PATIENTS:
        found.append(f"fewer than {FEW_PATIENTS} patients: intervals and p mean little")
    policies = {table.policy for table in tables if table.policy is not None}
    if len(policies) > 1:
        found.append(
            f"thresholds were chosen in different ways ({', '.join(sorted(policies))}), so the "
            "sensitivities and specificities are not of like with like"
        )
    if any(table.split == "val" for table in tables):
        found.append(
            "a validation split chose each run's epoch and threshold, so all of these figures are "
            "too good, and those of one run may be more so than another's; a test split tells more"
        )
    if len(tables) > 2:
        found.append(
            f"the best of {len(tables)} is flattered by the choice: on new images expect less of "
            f"{letter(comparison.standings[0].place)} than shown; judge it on images that took no "
            "part in choosing"
        )
    return found
