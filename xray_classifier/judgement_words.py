"""A judged split as one would say it: ranking, calibration, operating point, and what to mind."""

from xray_classifier.coverage import Coverage
from xray_classifier.details_words import CHOSEN_ON
from xray_classifier.details_words import in_words as details_in_words
from xray_classifier.estimate_words import percent, with_interval
from xray_classifier.familiarity import familiarity_words
from xray_classifier.judgement import Judgement
from xray_classifier.policies import policy_in_words

OTHER_KEY = (
    "patients could not be compared with those of the training data: their hashes were made with "
    "another key (patient.key in the config directory)"
)
TOO_GOOD = {
    "training": "the model was trained on these very images, so these figures say nothing about "
    "others; a test split does",
    "choosing": "this split chose the best epoch, the calibration and the threshold, so these "
    "figures are too good; a test split tells more",
    "choosing a number": "this split chose the best epoch, so these figures are too good; a test "
    "split tells more",
    "stopping": "this split chose the best epoch, so these figures are too good; a test split "
    "tells more",
    "calibrating": "this split chose the calibration and the threshold, so what depends on them is "
    "too good; a test split tells more",
    "folds": "each of these images trained all models of this ensemble but those of its own fold, "
    "so these figures say nothing about others; a test split does",
}


def in_words(j: Judgement) -> list[str]:
    """The result as one would say it: ranking, calibration, operating point, warnings."""
    words = _regression_words(j) if j.task == "regress" else _classification_words(j)
    if j.used_for is not None:
        words.append(TOO_GOOD[j.used_for])
    words += _familiar_words(j)
    words += j.extras.in_words()
    return words + [f"warning: {warning}" for warning in j.warnings]


def verdict_words(j: Judgement) -> list[str]:
    """What leads a report page: the answer in one sentence, then what it stands on."""
    words = _regression_words(j) if j.task == "regress" else _verdict(j)
    if j.used_for is not None:
        words.append(f"Mind: {TOO_GOOD[j.used_for]}.")
    return [*words, *(f"{text[0].upper()}{text[1:]}." for text in _familiar_words(j))]


def _verdict(j: Judgement) -> list[str]:
    e, c = j.estimates, j.counts
    n_healthy, n_sick = c.tn + c.fp, c.tp + c.fn
    chosen = policy_in_words(j.policy, CHOSEN_ON.get(j.chosen_on or "val", "validation"))
    where = images_judged(j)
    words = [
        f"On {where} the model finds {percent(e['sensitivity'])} of the sick and clears "
        f"{percent(e['specificity'])} of the healthy, at threshold {j.threshold:.3g}, {chosen}.",
        f"{len(j.rows):,} images, {n_healthy:,} healthy and {n_sick:,} sick: {c.fn:,} sick images "
        f"missed, {c.fp:,} false alarm{'s' * (c.fp != 1)}. AUROC {with_interval(e['auroc'])}: the "
        "chance that a random sick image scores above a random healthy one.",
    ]
    words += _not_by_contract(j)
    if j.coverage is not None and j.coverage.n_referred:
        n, found = j.coverage.n_referred, j.coverage.answered
        words.append(
            f"{n:,} of these images ({n / j.coverage.n:.0%}) lie in the refer band and are left to "
            "a person. The figures on this page decide them too, at the threshold, unless they say "
            f"otherwise; among the others sensitivity is {percent(found['sensitivity'])} and "
            f"specificity {percent(found['specificity'])}."
        )
    if j.details is not None and j.details.baselines is not None:
        said = j.details.baselines.in_words()
        words.append(f"{said[0].upper()}{said[1:]}.")
    return words


def _not_by_contract(j: Judgement) -> list[str]:
    """What must be known of a threshold that is not the stored one."""
    if j.details is None or j.by_contract:
        return []
    stored = j.details.operating_point["value"]
    band = " Its refer band is not used." if j.details.stored_refer else ""
    return [
        f"Exploratory: the threshold {j.threshold:.3g} was asked for; the one that the model "
        f"stores is {stored:.3g}.{band}"
    ]


def _classification_words(j: Judgement) -> list[str]:
    e, c = j.estimates, j.counts
    chosen = policy_in_words(j.policy, CHOSEN_ON.get(j.chosen_on or "val", "validation"))
    n_healthy, n_sick = c.tn + c.fp, c.tp + c.fn
    words = [
        f"{images_judged(j)}: {len(j.rows):,} images, {n_healthy:,} healthy and {n_sick:,} sick",
        f"AUROC {with_interval(e['auroc'])}: the chance that a random sick image scores above a "
        "random healthy one",
        f"calibration: Brier score {with_interval(e['brier'])}, "
        f"expected calibration error {with_interval(e['ece'])}",
        f"at threshold {j.threshold:.3g}, {chosen}: {percent(e['sensitivity'])} sensitivity and "
        f"{percent(e['specificity'])} specificity: {c.fn:,} sick images missed of {n_sick:,}, "
        f"{c.fp:,} false alarm{'s' * (c.fp != 1)} among {n_healthy:,} healthy",
        *_not_by_contract(j),
    ]
    if j.coverage is not None and not j.coverage.complete:
        words.append(coverage_words(j.coverage))
    return words + ([] if j.details is None else details_in_words(j.details, j.by_contract))


def coverage_words(covered: Coverage) -> str:
    """What became of those without an answer, and what is left were all of them wrong."""
    parts = []
    if covered.n_referred:
        found = covered.answered
        parts.append(
            f"{covered.n_referred:,} of {covered.n:,} images are referred to a person; among the "
            f"others sensitivity is {percent(found['sensitivity'])} and specificity "
            f"{percent(found['specificity'])}"
        )
    if covered.n_unread:
        parts.append(f"{covered.n_unread:,} of {covered.n:,} images could not be used")
    worst = covered.worst_case
    parts.append(
        f"were all of these answered wrongly, {percent(worst['sensitivity'])} sensitivity and "
        f"{percent(worst['specificity'])} specificity would be left"
    )
    return "; ".join(parts)


def _familiar_words(j: Judgement) -> list[str]:
    """What the model knows already, and its main figure without that."""
    if j.familiar is None:
        return ["this copy of the model remembers no training images, so none can be recognised"]
    words = [OTHER_KEY] if j.familiar.other_key else []
    said = familiarity_words(j.familiar)
    if said is None or j.used_for in ("training", "folds"):
        return words
    left = int((~j.familiar.known).sum())
    if j.without is None:
        return [f"{said}: these figures say nothing about others", *words]
    name, label = ("r2", "R2") if j.task == "regress" else ("auroc", "AUROC")
    others = f"on the {left:,} others {label} is {with_interval(j.without[name])}"
    return [f"{said}; {others}", *words]


def _regression_words(j: Judgement) -> list[str]:
    e = j.estimates
    return [
        f"{images_judged(j)}: {len(j.rows):,} images",
        f"mean absolute error {with_interval(e['mae'])}, R2 {with_interval(e['r2'])}",
    ]


def images_judged(judgement: Judgement) -> str:
    """Which images were judged, as one would say it."""
    where = "all images" if judgement.split == "all" else f"the {judgement.split} split"
    return f"{where} of {judgement.source}" if judgement.source else where
