"""A comparison as files: comparison.json for programs, a table of the images in dispute."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from xray_classifier.compared_images import ANSWERS, SICK, PredictionTable, SharedImages, letter
from xray_classifier.comparison import Comparison, Difference, Pair
from xray_classifier.comparison_words import verdict
from xray_classifier.files import csv_text

IMAGE_COLUMNS = ("path", "label", "patient")


def comparison_json(
    comparison: Comparison, tables: Sequence[PredictionTable], warnings: Sequence[str]
) -> dict[str, Any]:
    """The content of comparison.json; NaN stands for undefined."""
    images = comparison.images
    classify = images.task == "classify"
    n_sick = int((images.targets == SICK).sum()) if classify else None
    splits = {table.split for table in tables}
    return {
        "task": images.task,
        "split": tables[0].split if len(splits) == 1 else None,
        "n": len(images),
        "n_sick": n_sick,
        "n_healthy": None if n_sick is None else len(images) - n_sick,
        "n_patients": images.n_patients if images.patients_known else None,
        "models": [_model_json(comparison, tables, place) for place in range(len(tables))],
        "ranking": [letter(standing.place) for standing in comparison.standings],
        "pairs": [_pair_json(comparison, pair) for pair in comparison.pairs],
        "warnings": list(warnings),
    }


def _model_json(
    comparison: Comparison, tables: Sequence[PredictionTable], place: int
) -> dict[str, Any]:
    standing = next(s for s in comparison.standings if s.place == place)
    table, images = tables[place], comparison.images
    return {
        "letter": letter(place),
        "name": table.name,
        "predictions": table.where,
        "split": table.split,
        "threshold": table.threshold,
        "threshold_policy": table.policy,
        "rank": 1 + comparison.standings.index(standing),
        "auroc" if images.task == "classify" else "mae": asdict(standing.leading),
        **standing.shares,
        "n_referred": standing.n_referred,
        "n_unreadable": images.n_unreadable[place],
        "n_not_shared": images.n_not_shared[place],
    }


def _pair_json(comparison: Comparison, pair: Pair) -> dict[str, Any]:
    return {
        "a": letter(pair.first),
        "b": letter(pair.second),
        "words": verdict(pair, len(comparison.pairs) > 1),
        "n_differing": pair.n_differing,
        "n_referred": pair.n_referred,
        "n_in_training": pair.n_trained_on,
        "differences": _differences_json(pair.differences),
        "without_training_images": None
        if pair.without is None
        else _differences_json(pair.without),
    }


def _differences_json(differences: Mapping[str, Difference]) -> dict[str, Any]:
    return {name: _difference_json(found) for name, found in differences.items()}


def _difference_json(found: Difference) -> dict[str, Any]:
    content: dict[str, Any] = {
        "a": found.first,
        "b": found.second,
        "difference": found.value,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "ci_method": found.ci_method,
        "p": found.p_value,
        "p_holm": found.p_holm,
        "method": found.method,
        "n": found.n,
        "n_patients": found.n_patients,
    }
    if found.mcnemar is not None:
        content |= {
            "only_a_right": found.mcnemar.only_first,
            "only_b_right": found.mcnemar.only_second,
            "mid_p": found.mcnemar.mid_p,
        }
    return content


def differing_table(images: SharedImages, pair: Pair) -> str:
    """differing.csv: images that two models answer differently, the widest apart first."""
    i, j = pair.first, pair.second
    regress = images.task == "regress"
    answers = images.scores if regress else images.p_sick
    apart = abs(answers[i] - answers[j])
    differ = apart > 0 if regress else images.decisions[i] != images.decisions[j]
    order = sorted(differ.nonzero()[0], key=lambda row: (-apart[row], images.paths[row]))
    names = {number: word for word, number in ANSWERS.items() if word}
    rows: list[tuple[Any, ...]] = []
    for row in order:
        target = float(images.targets[row])
        head = (images.paths[row], target if regress else names[int(target)], images.patients[row])
        both = tuple(float(answers[k, row]) for k in (i, j))
        words = () if regress else tuple(names[int(images.decisions[k, row])] for k in (i, j))
        rows.append((*head, *words, *both))
    columns = ("prediction",) if regress else ("decision", "p_sick")
    header = [f"{column}_{side}" for column in columns for side in ("a", "b")]
    return csv_text((*IMAGE_COLUMNS, *header), rows)
