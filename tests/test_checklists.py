"""Checklists: complete lists, answers that are the run's own, and marks where it has none."""

import re
from dataclasses import replace

import pytest
from evaluated_runs import CONTENT, FACTS, LISTING, NASTY, poisoned, with_metrics

from xray_classifier.checklist_items import CHECKLISTS
from xray_classifier.checklists import (
    ANSWERS,
    FOR_AUTHOR,
    Filled,
    checklist_counts,
    fill,
    render_checklist,
)
from xray_classifier.run_facts import Facts

CLAIM_NUMBERS = " ".join(str(number) for number in range(1, 45))
TRIPOD_NUMBERS = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 "
    "16 17 18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)
STARD_NUMBERS = (
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15a 15b 15c 15d 16a 16b 16c 17a 17b 18 19 20 21 22 23 24 25 "
    "26a 26b 27 28 29 30 31 32 33 34 35 36 37 38 39 40a 40b"
)


def entry(name: str, number: str, facts: Facts = FACTS) -> Filled:
    """One item filled in."""
    return {filled.item.number: filled for filled in fill(CHECKLISTS[name], facts)}[number]


def text_of(name: str, number: str, facts: Facts = FACTS) -> str:
    """The run's answer to one item."""
    said = entry(name, number, facts).said
    assert said is not None
    return said.text


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("claim", CLAIM_NUMBERS), ("tripod", TRIPOD_NUMBERS), ("stard", STARD_NUMBERS)],
)
def test_every_item_of_the_published_list_is_there_once(name: str, numbers: str) -> None:
    assert " ".join(item.number for item in CHECKLISTS[name].items) == numbers


def test_every_answer_exists_and_is_used() -> None:
    used = {item.answer for checklist in CHECKLISTS.values() for item in checklist.items} - {""}
    assert used == set(ANSWERS)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_an_item_without_an_answer_says_what_the_author_must_do(name: str) -> None:
    for filled in fill(CHECKLISTS[name], Facts()):
        assert filled.said is None, filled.item.number
        assert filled.author


@pytest.mark.parametrize(
    ("name", "number", "parts"),
    [
        ("claim", "1", ["multilayer perceptron", "sick from healthy"]),
        ("claim", "2", ["AUROC 0.875 (95 % CI 0.750 to 0.950; n 5)"]),
        ("claim", "3", ["second reader", "adults with a cough", "children"]),
        ("claim", "8", ["left out on purpose: other", "1 left out: truncated"]),
        ("claim", "9", ["padded to a square", "32 x 32", "mean 0 and standard deviation 1"]),
        ("claim", "12", ["1 of 10 images of the run", "1 images of the judged split"]),
        ("claim", "14", ["two readers, a third where they differ", "PNEUMONIA"]),
        ("claim", "19", ["train: 4 images of 3 patients, 1 sick", "seed 7", "test 0.2"]),
        ("claim", "20", ["by patient", "2 patients, 1 groups", "4 images with a near copy"]),
        ("claim", "21", ["3 sick and 2 healthy", "sensitivity is 73 points wide"]),
        ("claim", "22", ["hidden layers of 16, 8 units", "gelu", "layer normalisation"]),
        ("claim", "23", ["Python 3.11.7", "torch 2.14.1", "trained on cpu"]),
        ("claim", "24", ["kaiming, seed 3", "no pretrained"]),
        ("claim", "25", ["adamw, learning rate 0.001", "mixup 0.2", "rotate_degrees 10.0"]),
        ("claim", "26", ["highest val_auroc", "epoch 12"]),
        ("claim", "27", ["no ensemble"]),
        ("claim", "29", ["DeLong", "Wilson"]),
        ("claim", "32", ["test split of the run", "Specificity undefined"]),
        ("claim", "35", ["10 images found", "5 scored"]),
        ("claim", "36", ["train, test, all", "with view"]),
        ("claim", "38", ["sick called sick 2", "healthy called sick 1", "at least 0.4"]),
        ("claim", "39", ["1 sick images missed and 1 false alarm,"]),
        ("claim", "40", ["2 healthy and 3 sick images are few", "patients were recognised"]),
        ("claim", "43", ["a" * 64, "f" * 64]),
        ("tripod", "13", ["pos_weight 3.0", "platt scaling (slope 1.5, intercept -0.25)"]),
        ("tripod", "15", ["sens=0.95, solved on the validation split"]),
        ("tripod", "16", ["25.0% of the training images, 60.0% of the images judged"]),
        ("stard", "15c", ["at least 0.4", "no analysis plan was written"]),
        ("stard", "15d", ["radiographers"]),
        ("stard", "14", ["digital radiography", "chest", "PA"]),
    ],
)
def test_an_answer_tells_the_run_s_own_numbers(name: str, number: str, parts: list[str]) -> None:
    said = text_of(name, number)
    for part in parts:
        assert part in said


def test_answers_name_where_they_come_from() -> None:
    for name in CHECKLISTS:
        for filled in fill(CHECKLISTS[name], FACTS):
            if filled.said is not None:
                source = filled.said.source
                assert re.search(r"checkpoint|\.(json|csv|yaml)|config: intended_use", source), name


@pytest.mark.parametrize(
    ("name", "number", "key", "value"),
    [
        ("claim", "30", "stress", {"score": 0.9}),
        ("tripod", "14", "subgroups", [{"column": "sex", "value": "F"}]),
        ("stard", "21", "subgroups", [{"column": "sex", "value": "F"}]),
        ("claim", "42", "plan", {"sha256": "c" * 64, "kept": True, "deviations": []}),
    ],
)
def test_what_was_not_computed_is_for_the_author(
    name: str, number: str, key: str, value: object
) -> None:
    assert entry(name, number).state == "author"
    assert entry(name, number, with_metrics(**{key: value})).said is not None


def test_a_broken_plan_is_told() -> None:
    plan = {"sha256": "c" * 64, "kept": False, "deviations": ["another threshold"]}
    assert "not kept: another threshold" in text_of("stard", "15c", with_metrics(plan=plan))


def test_a_plan_about_other_images_is_told() -> None:
    plan = {"sha256": "c" * 64, "covers": False, "kept": False, "deviations": ["another split"]}
    said = text_of("stard", "15c", with_metrics(plan=plan))
    assert "about other images" in said
    assert "not kept" not in said


def test_internal_and_external_tests_are_told_apart() -> None:
    assert entry("claim", "32").said is not None
    assert entry("claim", "33").said is None
    other = replace(FACTS, own=False)
    assert entry("claim", "32", other).said is None
    assert "test split of other data" in text_of("claim", "33", other)
    unknown = replace(FACTS, own=None)
    assert entry("claim", "32", unknown).said is None
    assert entry("claim", "33", unknown).said is None


def test_figures_on_development_images_are_called_too_good() -> None:
    facts = with_metrics(split="val")
    assert "too good" in text_of("claim", "32", facts)
    assert "too good" in text_of("claim", "40", facts)
    assert "too good" not in text_of("claim", "32")


def test_another_threshold_than_the_stored_one_is_exploratory() -> None:
    assert "exploratory" in text_of("stard", "15c", with_metrics(threshold=0.7))
    assert "another threshold" in text_of("tripod", "12f", with_metrics(threshold=0.7))
    assert "another threshold" not in text_of("tripod", "12f")
    assert "exploratory" not in text_of("stard", "15c")


def test_referred_images_are_counted() -> None:
    facts = replace(FACTS, n_referred=1, metrics={**FACTS.metrics, "refer": {}})
    assert "referred to a person: 1" in text_of("stard", "19", facts)
    assert "1 referred to a person" in text_of("stard", "24", facts)
    assert "no third result" in text_of("stard", "19")


def test_drawn_films_are_never_passed_off_as_patients() -> None:
    content = {**CONTENT, "data": {"source": "phantoms", "phantoms": {"n_images": 1600}}}
    facts = replace(FACTS, content=content)
    assert "no patients" in text_of("claim", "7", facts)
    assert "nothing here says anything about patients" in text_of("claim", "40", facts)
    assert entry("claim", "11", facts).said is None


def test_unknown_patients_are_said() -> None:
    facts = replace(FACTS, listing=replace(LISTING, patients_known=False))
    assert "split by image" in text_of("claim", "20", facts)
    assert "patients are not known" in text_of("claim", "40", facts)


def test_a_place_on_the_author_s_machine_is_not_told() -> None:
    for name in CHECKLISTS:
        assert "somebody" not in render_checklist(name, FACTS)


def test_an_ensemble_is_told() -> None:
    members = [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]
    content = {**CONTENT, "ensemble": {"members": members, "folds": 3}, "epoch": None}
    facts = replace(FACTS, content=content)
    assert "3 models, one per fold of 3" in text_of("claim", "27", facts)
    assert "each member" in text_of("claim", "26", facts)


def test_regression_has_no_threshold() -> None:
    content = {**CONTENT, "task": "regress"}
    estimates = {"mae": {"value": 1.25, "ci_low": 1.0, "ci_high": 1.5, "method": "b", "n": 5}}
    metrics = {**FACTS.metrics, "threshold": None, "metrics": estimates}
    facts = replace(FACTS, content=content, counts=None, metrics=metrics)
    assert entry("stard", "15c", facts).said is None
    assert "mean squared error" in text_of("claim", "25", facts)
    assert "1.250 (95 % CI 1.000 to 1.500; n 5)" in text_of("claim", "37", facts)
    for name in CHECKLISTS:
        assert "binary cross-entropy" not in render_checklist(name, facts)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_the_page_holds_every_item_and_counts_them(name: str) -> None:
    text = render_checklist(name, FACTS)
    numbers = re.findall(r"^\| (\d+[a-g]?) \|", text, re.MULTILINE)
    assert numbers == [item.number for item in CHECKLISTS[name].items]
    counts = checklist_counts(fill(CHECKLISTS[name], FACTS))
    assert sum(counts.values()) == len(numbers)
    answered = counts["filled"] + counts["partly"]
    assert f"**{answered} of {len(numbers)} items filled in by the run" in text
    assert f"{counts['author']} for the author alone" in text
    marked = text.count(FOR_AUTHOR) - 1  # one explains the mark
    assert marked == counts["partly"] + counts["author"]
    assert "| sick images | 1 (25.0%) | 3 (60.0%) | 4 (44.4%) |" in text
    assert "10  images found" in text
    assert "check both against the published list before submission" in text


@pytest.mark.parametrize("name", CHECKLISTS)
def test_hostile_texts_stay_text(name: str) -> None:
    listing = replace(
        LISTING,
        reasons=("",) * 9 + (NASTY,),
        columns={NASTY: (NASTY, "x") * 5},
        ids=(NASTY,) * 10,
    )
    facts = replace(
        FACTS,
        content={**poisoned(CONTENT), "task": "classify"},
        config=poisoned(FACTS.config),
        summary=poisoned(FACTS.summary),
        audit=poisoned(FACTS.audit),
        metrics=poisoned(FACTS.metrics),
        listing=listing,
        model_name=NASTY,
        metrics_name=NASTY,
    )
    text = render_checklist(name, facts)
    outside = re.sub(r"```text\n.*?```", "", text, flags=re.DOTALL)
    # our own line break in a cell, and the seal in the last line, are the only tags
    assert "<" not in re.sub(r"<br>|<!-- as written by [^>]*-->", "", outside)
    assert not re.search(r"(?<!\\)\[a(?<!\\)\]\(", outside)
    assert text.count("```") == 2
    for line in outside.splitlines():
        cells = re.findall(r"(?<!\\)\|", line)
        assert len(cells) in (0, 4, 5, 6)


def test_a_note_is_told_once_and_a_neutral_one_not_at_all() -> None:
    notes = ["patients: from the column id", "SHORTCUT: size predicts", "labels: few"]
    audit = {**(FACTS.audit or {}), "notes": notes}
    facts = replace(
        with_metrics(warnings=["SHORTCUT: size predicts, near this model's"]), audit=audit
    )
    said = text_of("claim", "40", facts)
    assert said.count("SHORTCUT") == 1
    assert "labels: few" in said
    assert "from the column" not in said


def test_groups_are_named_and_those_too_small_counted() -> None:
    groups = [
        {"column": "sex", "value": "F", "warning": None},
        {"column": "sex", "value": "M", "warning": "too few to say"},
        {"column": "view", "value": "PA", "warning": None},
    ]
    said = entry("tripod", "23b", with_metrics(subgroups=groups))
    assert said.said is not None
    assert "metrics by sex, view" in said.said.text
    assert "1 of 3 groups carry a warning" in said.said.text
    assert said.state == "partly"  # a group is no cluster by itself
