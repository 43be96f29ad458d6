"""What stands behind a judged split, as one would say it."""

import math

from xray_classifier.details import LABEL_SHIFT, AtPrevalence, Details
from xray_classifier.estimate_words import percent, with_interval
from xray_classifier.files import printable
from xray_classifier.operating_estimates import estimate_of

CHOSEN_ON = {
    "val": "validation",
    "calibrate": "the calibration split",
    "out-of-fold": "images out of fold",
}
"""What to call the images that calibration and threshold were chosen on."""


def in_words(details: Details, by_contract: bool) -> list[str]:
    """Operating point, refer band, prevalence, patients and baselines, one text each.

    Args:
        details: Of a judged split.
        by_contract: Whether the threshold is the stored one; what that showed is of no other.
    """
    words = operating_words(details) if by_contract else []
    if details.refer is not None:
        words.append(refer_words(details))
    if details.at_prevalence is not None:
        words += _prevalence_words(details.at_prevalence)
    if details.patients is not None:
        found = details.patients.metrics["mean"]
        words.append(
            f"patient by patient ({details.patients.n:,}, mean of their images): AUROC "
            f"{with_interval(found['auroc'])}, {percent(found['sensitivity'])} sensitivity, "
            f"{percent(found['specificity'])} specificity"
        )
    if details.subgroups:
        words.append(_subgroup_words(details))
    if details.baselines is not None:
        words.append(details.baselines.in_words())
    return words


def _subgroup_words(details: Details) -> str:
    """Between which groups the model differs most."""
    columns = ", ".join(dict.fromkeys(group.column for group in details.subgroups))
    told = [
        group
        for group in details.subgroups
        if not group.warning.startswith(("too few", "one class"))
        and not math.isnan(group.metrics["under_diagnosis_rate"].value)
    ]
    said = f"by {printable(columns)}: {len(details.subgroups)} groups, in the report"
    if len(told) < 2:
        return f"{said}; too few patients in them to say more"
    rates = {
        f"{printable(group.column)} {printable(group.value)}": group.metrics["under_diagnosis_rate"]
        for group in told
    }
    least, most = (pick(rates, key=lambda name: rates[name].value) for pick in (min, max))
    return (
        f"{said}; of the sick, {percent(rates[least])} are missed in {least} and "
        f"{percent(rates[most])} in {most}"
    )


def operating_words(details: Details) -> list[str]:
    """How the operating point was chosen, and what it showed where it was."""
    point = details.operating_point
    if point.get("sensitivity") is None or point.get("chosen_on") is None:
        return []
    shares = [percent(estimate_of(point[name])) for name in ("sensitivity", "specificity")]
    how = "as chosen, so too good"
    if point["cross_fitted_in_folds"]:
        how = f"cross-fitted in {point['cross_fitted_in_folds']} folds of patients"
    where = {
        "val": "one validation split served stopping, calibration and threshold",
        "calibrate": "calibration and threshold had a split of their own, which stopping never saw",
        "out-of-fold": "calibration and threshold were chosen on images out of fold",
    }.get(point["chosen_on"], "calibration and threshold were chosen on held-out images")
    return [
        f"{where} ({point['n']:,} images); there the operating point showed {shares[0]} "
        f"sensitivity and {shares[1]} specificity, {how}"
    ]


def refer_words(details: Details) -> str:
    """Which probabilities are referred and how that band was chosen; empty without one."""
    band = details.refer
    if band is None:
        return ""
    point = details.operating_point
    where = CHOSEN_ON.get(point.get("calibrated_on", "val"), "held-out images")
    if not band.met:
        return (
            f"no refer band reaches {band.target_error:.1%} errors on {where}: every image is "
            "referred"
        )
    return (
        f"a p_sick from {band.low:.3g} to {band.high:.3g} is referred: chosen on {where} for at "
        f"most {band.target_error:.1%} errors, where it referred {band.share_referred:.0%}; below "
        f"it the answer is healthy, above it sick, and here {details.refer_error:.1%} of these "
        "answers are wrong"
    )


def _prevalence_words(moved: AtPrevalence) -> list[str]:
    ppv, npv = moved.metrics["ppv"], moved.metrics["npv"]
    return [
        f"at a prevalence of {moved.stated:.3g}: PPV {percent(ppv)}, NPV {percent(npv)}, net "
        f"benefit {with_interval(moved.metrics['net_benefit'])}; {LABEL_SHIFT}"
    ]
