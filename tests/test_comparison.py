"""Models on the same images: matched, compared, ranked, and put into words."""

import csv
import dataclasses
import io
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from sklearn.metrics import mean_absolute_error, recall_score, roc_auc_score

from xray_classifier.clustered_auroc import auroc_difference
from xray_classifier.compared_images import PredictionTable, letter, listed, shared_images
from xray_classifier.comparison import Comparison, compare, holm
from xray_classifier.comparison_files import comparison_json, differing_table
from xray_classifier.comparison_words import (
    decision_line,
    images_line,
    methods_line,
    model_lines,
    p_cell,
    p_text,
    pair_table,
    ranking_table,
    referring_lines,
    verdict,
    warning_lines,
    without_line,
)
from xray_classifier.errors import DataError
from xray_classifier.intervals import delong_test

N = 200


def labels_of(n: int = N) -> np.ndarray[Any, Any]:
    """Every other image is sick."""
    return np.arange(n) % 2


def table(name: str = "one", skill: float = 1.0, seed: int = 0, n: int = N, **other: Any):
    """What a model of some skill says of n images of a patient each."""
    logits = skill * (2 * labels_of(n) - 1) + np.random.default_rng(seed).normal(size=n)
    p_sick = 1 / (1 + np.exp(-logits))
    given: dict[str, Any] = {
        "name": name,
        "where": f"{name}/predictions.csv",
        "task": "classify",
        "split": "test",
        "threshold": 0.5,
        "policy": "youden",
        "paths": tuple(f"film{i:04d}.png" for i in range(n)),
        "targets": labels_of(n).astype(float),
        "patients": tuple(f"p{i}" for i in range(n)),
        "hashes": tuple(f"{i:08x}" for i in range(n)),
        "scores": logits,
        "p_sick": p_sick,
        "decisions": tuple("sick" if p >= 0.5 else "healthy" for p in p_sick),
        "in_training": ("no",) * n,
    }
    return PredictionTable(**(given | other))


def numbers(name: str, error: float, seed: int) -> PredictionTable:
    """A model that predicts ages with some error in years."""
    ages = np.linspace(20, 80, N)
    noise = np.random.default_rng(seed).normal(0, error, N)
    return table(
        name, task="regress", targets=ages, scores=ages + noise, threshold=None, policy=None,
        p_sick=np.full(N, np.nan), decisions=("",) * N,
    )  # fmt: skip


def compared(*tables: PredictionTable, intersect: bool = False) -> Comparison:
    return compare(shared_images(tables, intersect), n_resamples=300)


def test_models_are_called_by_letters_as_columns_of_a_sheet():
    assert [letter(i) for i in (0, 1, 25, 26, 27, 51, 52, 701, 702)] == [
        "A", "B", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA",
    ]  # fmt: skip
    assert [listed(words) for words in (["A"], ["A", "B"], ["A", "B", "C"])] == [
        "A", "A and B", "A, B and C",
    ]  # fmt: skip


def test_rows_are_matched_by_path_whatever_their_order():
    one, two = table(seed=1), table("two", seed=2)
    turned = np.arange(N)[::-1]
    back = {
        field: tuple(np.array(getattr(two, field))[turned].tolist())
        for field in ("paths", "patients", "hashes", "decisions", "in_training")
    }
    arrays = {field: getattr(two, field)[turned] for field in ("targets", "scores", "p_sick")}
    images = shared_images([one, table("two", **(back | arrays))])
    np.testing.assert_array_equal(images.scores, [one.scores, two.scores])
    np.testing.assert_array_equal(images.targets, labels_of())
    assert images.paths == one.paths


def test_other_images_are_refused_unless_the_shared_ones_are_asked_for():
    one, two = table(), table("two", seed=1, n=150)
    with pytest.raises(DataError, match="--intersect") as error:
        shared_images([one, two])
    said = str(error.value)
    assert "A has 200, B has 150, 150 are in all" in said
    assert "50 not in all: film0150.png, film0151.png, film0152.png, ..." in said
    images = shared_images([one, two], intersect=True)
    assert (len(images), images.n_not_shared) == (150, (50, 0))
    np.testing.assert_array_equal(images.scores[0], one.scores[:150])
    said = warning_lines(compare(images, n_resamples=50), [one, two])
    assert "A: 50 images are not shared by all, and are in no test" in said


def test_nothing_in_common_is_refused_even_when_asked_for():
    renamed = table("two", paths=tuple(f"other{i}" for i in range(N)))
    with pytest.raises(DataError, match="same under other paths"):
        shared_images([table(), renamed], intersect=True)
    strange = table("two", paths=renamed.paths, hashes=("",) * N)
    with pytest.raises(DataError, match="--data"):
        shared_images([table(), strange], intersect=True)


def test_another_picture_or_label_under_the_same_path_is_refused():
    hashes = ("ff",) * 5 + table().hashes[5:]
    with pytest.raises(DataError, match=r"5 of 200 images have another picture.*film0002.png, \."):
        shared_images([table(), table("two", hashes=hashes)])
    targets = np.concatenate([[1.0], table().targets[1:]])
    with pytest.raises(DataError, match=r"1 of 200 images have another label.*: film0000.png\n"):
        shared_images([table(), table("two", targets=targets)], intersect=True)


def test_the_middle_table_may_lack_hashes_without_hiding_another_picture():
    hashes = ("ff", *table().hashes[1:])
    without = table("two", hashes=("",) * N)
    with pytest.raises(DataError, match="another picture"):
        shared_images([table(), without, table("three", hashes=hashes)])
    said = shared_images([table(), without, table("three")]).warnings
    assert said == (
        "images were matched by path and label alone: B has no pixel_hash to compare the pictures "
        "by; evaluate anew to get one",
    )


def test_classes_and_numbers_do_not_mix():
    with pytest.raises(DataError, match="A calls images sick or healthy and B predicts a number"):
        shared_images([table(), numbers("two", 1.0, 0)])


def test_an_image_that_one_model_cannot_read_is_in_no_test():
    scores = table(seed=1).scores.copy()
    scores[:3] = np.nan
    decisions = ("", "", "", *table(seed=1).decisions[3:])
    two = table("two", scores=scores, decisions=decisions, seed=1)
    found = compared(table(), two)
    assert (len(found.images), found.images.n_unreadable) == (197, (0, 3))
    assert found.pairs[0].differences["auroc"].n == 197
    said = warning_lines(found, [table(), two])
    assert "B: 3 of 200 images could not be read, and are in no test" in said
    with pytest.raises(DataError, match="none was read by all"):
        shared_images([table(), table("two", scores=np.full(N, np.nan), decisions=("",) * N)])


def test_single_images_get_delong_newcombe_and_mcnemar():
    one, two = table(skill=0.5), table("two", skill=1.0, seed=1)
    found = compared(one, two)
    d = found.pairs[0].differences
    test = delong_test(labels_of(), two.scores, one.scores)
    assert d["auroc"].first == pytest.approx(roc_auc_score(labels_of(), one.scores))
    assert d["auroc"].second == pytest.approx(roc_auc_score(labels_of(), two.scores))
    assert d["auroc"].value == pytest.approx(test.difference)
    assert d["auroc"].p_value == pytest.approx(test.p_value)
    methods = {(x.method, x.ci_method) for x in d.values()}
    assert methods <= {("delong", "delong"), ("mcnemar", "newcombe"), ("mcnemar_exact", "newcombe")}
    called = [np.array([word == "sick" for word in t.decisions]) for t in (one, two)]
    for name, positive in (("sensitivity", 1), ("specificity", 0)):
        shares = [recall_score(labels_of(), c.astype(int), pos_label=positive) for c in called]
        assert (d[name].first, d[name].second) == pytest.approx(tuple(shares))
        assert d[name].value == pytest.approx(shares[1] - shares[0])
        assert d[name].n == N // 2
    right = [c == labels_of() for c in called]
    assert d["accuracy"].mcnemar.only_first == (right[0] & ~right[1]).sum()
    assert d["accuracy"].mcnemar.only_second == (right[1] & ~right[0]).sum()


def test_patients_with_several_images_get_clustered_methods():
    patients = tuple(f"p{i // 4}" for i in range(N))
    one, two = table(patients=patients), table("two", seed=1, patients=patients)
    found = compared(one, two)
    d = found.pairs[0].differences
    expected = auroc_difference(labels_of(), one.scores, two.scores, np.arange(N) // 4)
    assert d["auroc"].p_value == pytest.approx(expected.p_value)
    assert (d["auroc"].ci_low, d["auroc"].ci_high) == pytest.approx((expected.low, expected.high))
    assert d["auroc"].method == "obuchowski"
    for name in ("accuracy", "sensitivity", "specificity"):
        assert d[name].method in ("mcnemar_patients", "mcnemar_exact_patients")
        assert d[name].ci_method == "patient_bootstrap"
        assert d[name].ci_low <= d[name].value <= d[name].ci_high
        assert d[name].n_patients == 50
    assert "50 patients" in verdict(found.pairs[0], several=False)
    assert "patients as clusters" in methods_line(found)


def test_the_bootstrap_of_decisions_is_as_wide_as_resampling_by_hand():
    patients = tuple(f"p{i // 4}" for i in range(N))
    one, two = table(patients=patients), table("two", seed=1, patients=patients)
    d = compare(shared_images([one, two]), n_resamples=2000).pairs[0].differences["sensitivity"]
    sick = labels_of() == 1
    lead = np.array([b == "sick" for b in two.decisions]) * 1.0
    lead -= np.array([a == "sick" for a in one.decisions])
    rng, drawn = np.random.default_rng(7), []
    for _ in range(2000):
        rows = (4 * rng.integers(0, 50, 50)[:, None] + np.arange(4)).ravel()
        drawn.append(lead[rows][sick[rows]].mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (d.ci_low, d.ci_high) == pytest.approx((low, high), abs=0.015)


def test_a_referred_image_is_decided_at_the_threshold_and_counted():
    one, two = table(), table("two", seed=1)
    decisions = ("refer",) * 10 + two.decisions[10:]
    found = compared(one, table("two", seed=1, decisions=decisions))
    pair = found.pairs[0]
    assert pair.n_referred == 10
    assert pair.differences == compared(one, two).pairs[0].differences
    assert "10 that either leaves to a person are decided here too" in str(decision_line(pair))
    assert next(s for s in found.standings if s.place == 1).n_referred == 10
    lines = referring_lines(found, [one, table("two", seed=1, decisions=decisions)])
    assert lines[0].startswith("B leaves 10 of")


def test_images_that_trained_a_model_are_counted_and_left_out_once_more():
    seen = ("yes",) * 40 + ("possible",) * 10 + ("no",) * 150
    one, two = table(in_training=seen), table("two", seed=1)
    found = compared(one, two)
    pair = found.pairs[0]
    assert pair.n_trained_on == 40
    test = delong_test(labels_of()[40:], two.scores[40:], one.scores[40:])
    assert pair.without is not None
    assert pair.without["auroc"].value == pytest.approx(test.difference)
    assert pair.without["auroc"].p_value == pytest.approx(test.p_value)
    said = str(without_line(found, pair))
    assert said.startswith("40 of 200 images trained A or B; without them ")
    assert "on 160 images" in said


def test_a_comparison_on_training_images_alone_says_so():
    found = compared(table(), table("two", seed=1, in_training=("yes",) * N))
    assert found.pairs[0].without is None
    assert "says nothing about others" in str(without_line(found, found.pairs[0]))
    clean = compared(table(), table("two", seed=1))
    assert without_line(clean, clean.pairs[0]) is None


def test_without_training_images_patients_are_drawn_from_those_left():
    # Were the absent patients drawn too, intervals would be those of far fewer images.
    patients = tuple(f"p{i // 2}" for i in range(N))
    seen = ("yes",) * 100 + ("no",) * 100
    tables = [table(seed=s, patients=patients, in_training=seen) for s in (0, 1)]
    rest = [
        table(seed=s, paths=t.paths[100:], targets=t.targets[100:], scores=t.scores[100:],
              p_sick=t.p_sick[100:], decisions=t.decisions[100:], patients=patients[100:],
              hashes=t.hashes[100:], in_training=seen[100:])
        for s, t in enumerate(tables)
    ]  # fmt: skip
    assert compared(*tables).pairs[0].without == compared(*rest).pairs[0].differences


def test_many_models_are_ranked_and_held_against_the_best():
    skills = (0.4, 1.2, 0.8, 1.1)
    tables = [table(f"m{i}", skill, seed=i) for i, skill in enumerate(skills)]
    found = compared(*tables)
    areas = [roc_auc_score(labels_of(), t.scores) for t in tables]
    order = np.argsort(areas)[::-1].tolist()
    assert [s.place for s in found.standings] == order
    assert [(p.first, p.second) for p in found.pairs] == [(order[0], k) for k in order[1:]]
    for pair in found.pairs:
        test = delong_test(labels_of(), tables[pair.second].scores, tables[order[0]].scores)
        assert pair.differences["auroc"].p_value == pytest.approx(test.p_value)
    p = [pair.differences["auroc"].p_value for pair in found.pairs]
    assert [pair.differences["auroc"].p_holm for pair in found.pairs] == holm(p, n_tests=6)
    lines = ranking_table(found, tables)
    assert [line.split()[1] for line in lines[1:]] == [letter(k) for k in order]
    assert "the best" in lines[1]
    assert all(len(line) <= 80 for line in lines)
    warned = " ".join(warning_lines(found, tables))
    assert "the best of 4 is flattered by the choice: on new images expect less of " in warned
    worst = verdict(found.pairs[-1], several=True)
    assert worst.startswith(f"{letter(order[0])} is better than {letter(order[-1])} by 0.")
    assert "after Holm" in worst


def test_holm_equals_the_step_down_procedure_by_hand():
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which may not fall below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7]) == [0.7]
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    undefined = holm([math.nan, 0.02, 0.03])
    assert math.isnan(undefined[0])
    assert undefined[1:] == pytest.approx([0.04, 0.04])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_hochberg_adjusted_for_discoveries_and_bonferroni(p_values):
    corrected = np.array(holm(p_values))
    bonferroni = np.minimum(1, len(p_values) * np.array(p_values))
    assert (corrected <= bonferroni + 1e-12).all()
    assert (corrected >= false_discovery_control(p_values) - 1e-12).all()


def test_the_verdict_names_the_better_model_with_the_interval_its_own_way_round():
    one, two = table(skill=1.5), table("two", skill=0.4, seed=1)
    there, back = compared(one, two), compared(two, one)
    d = there.pairs[0].differences["auroc"]
    expected = (
        f"A is better by {-d.value:.3f} ({-d.ci_high:.3f} to {-d.ci_low:.3f}) in AUROC: enough "
        "evidence on 200 images (p < 0.001)"
    )
    assert verdict(there.pairs[0], several=False) == expected
    assert verdict(back.pairs[0], several=False) == expected.replace("A is", "B is")


def test_little_difference_is_not_enough_evidence():
    found = compared(table(), table("two", seed=1))
    said = verdict(found.pairs[0], several=False)
    assert re.fullmatch(
        r"[AB] is better by 0\.\d{3} \(-0\.\d{3} to 0\.\d{3}\) in AUROC: not enough evidence on "
        r"200 images \(p = 0\.\d\d\)", said,
    )  # fmt: skip


def test_models_that_answer_alike_are_said_to_be_the_same():
    found = compared(table(), table("two"))
    assert verdict(found.pairs[0], several=False) == (
        "A and B have the same AUROC: not enough evidence on 200 images (p = 1.00)"
    )
    assert decision_line(found.pairs[0]) == "A and B decide alike on all images"
    assert differing_table(found.images, found.pairs[0]).count("\n") == 1


def test_with_one_class_the_models_are_judged_by_accuracy():
    healthy = np.zeros(N)
    tables = [table(targets=healthy), table("two", seed=1, targets=healthy)]
    found = compared(*tables)
    said = verdict(found.pairs[0], several=False)
    assert " in accuracy: " in said
    assert "only one class is here, so AUROC is undefined" in warning_lines(found, tables)
    assert any(re.match(r"  AUROC +- +- +-", line) for line in pair_table(found.pairs[0]))
    content = comparison_json(found, tables, [])
    assert math.isnan(content["pairs"][0]["differences"]["auroc"]["difference"])


def test_numbers_are_compared_by_their_absolute_error():
    worse, better = numbers("one", 8.0, 0), numbers("two", 4.0, 1)
    found = compared(worse, better)
    d = found.pairs[0].differences["mae"]
    errors = [mean_absolute_error(t.targets, t.scores) for t in (worse, better)]
    assert (d.first, d.second) == pytest.approx(tuple(errors))
    assert d.ci_low < d.value < d.ci_high < 0
    lead = np.abs(better.scores - better.targets) - np.abs(worse.scores - worse.targets)
    reach = 1.96 * lead.std() / math.sqrt(N)
    assert d.ci_high - d.ci_low == pytest.approx(2 * reach, rel=0.2)
    assert d.p_value == pytest.approx(2 / 301)
    said = verdict(found.pairs[0], several=False)
    assert said.startswith(f"B is better by {-d.value:.3f} ({-d.ci_high:.3f} to {-d.ci_low:.3f})")
    assert "in mean absolute error: enough evidence on 200 images" in said
    assert [s.place for s in found.standings] == [1, 0]
    assert decision_line(found.pairs[0]) is None


def test_errors_of_equal_size_on_average_are_no_evidence():
    found = compared(numbers("one", 4.0, 0), numbers("two", 4.0, 1), numbers("three", 4.0, 2))
    assert all(pair.differences["mae"].p_value > 0.05 for pair in found.pairs)
    assert all("not enough evidence" in verdict(pair, several=True) for pair in found.pairs)


def test_disputed_images_stand_with_the_widest_apart_first():
    one, two = table(), table("two", seed=1)
    found = compared(one, two)
    rows = list(csv.DictReader(io.StringIO(differing_table(found.images, found.pairs[0]))))
    expected = {p for p, a, b in zip(one.paths, one.decisions, two.decisions, strict=True)
                if a != b}  # fmt: skip
    assert {row["path"] for row in rows} == expected
    assert found.pairs[0].n_differing == len(expected) > 10
    apart = [abs(float(row["p_sick_a"]) - float(row["p_sick_b"])) for row in rows]
    assert apart == sorted(apart, reverse=True)
    place = one.paths.index(rows[0]["path"])
    assert rows[0] == {
        "path": one.paths[place],
        "label": "sick" if place % 2 else "healthy",
        "patient": f"p{place}",
        "decision_a": one.decisions[place],
        "decision_b": two.decisions[place],
        "p_sick_a": repr(float(one.p_sick[place])),
        "p_sick_b": repr(float(two.p_sick[place])),
    }


def test_disputed_numbers_are_told_without_decisions():
    found = compared(numbers("one", 4.0, 0), numbers("two", 4.0, 1))
    text = differing_table(found.images, found.pairs[0])
    assert text.startswith("path,label,patient,prediction_a,prediction_b\n")
    assert text.count("\n") == N + 1


def test_unknown_patients_and_other_groupings_are_told():
    unknown = ("",) * N
    tables = [table(patients=unknown), table("two", seed=1, patients=unknown)]
    found = compared(*tables)
    assert not found.images.patients_known
    assert any("patients are not known" in line for line in warning_lines(found, tables))
    assert "patients" not in images_line(found.images, tables)

    grouped = tuple(f"g{i // 4}" for i in range(N))
    renamed = tuple(f"another name {i // 4}" for i in range(N))
    images = shared_images([tables[0], table("two", patients=grouped)])
    assert (images.n_patients, images.warnings) == (50, ())
    images = shared_images([table(patients=renamed), table("two", patients=grouped)])
    assert (images.n_patients, images.warnings) == (50, ())
    images = shared_images([table(patients=grouped), table("two")])
    assert images.n_patients == 50
    assert "B groups the images by patient in another way than A" in images.warnings[0]


def test_few_patients_a_validation_split_and_unlike_thresholds_are_warned_of():
    patients = tuple(f"p{i % 8}" for i in range(N))
    tables = [table(split="val", patients=patients), table("two", split="val", patients=patients)]
    tables[1] = dataclasses.replace(tables[1], policy="sens=0.95")
    warned = " ".join(warning_lines(compared(*tables), tables))
    assert "thresholds were chosen in different ways (sens=0.95, youden)" in warned
    assert "fewer than 10 patients" in warned
    assert "a validation split chose each run's epoch and threshold" in warned


def test_what_is_said_fits_a_terminal_and_names_everything():
    tables = [table(threshold=0.4321), table("two", seed=1, threshold=None, policy=None)]
    found = compared(*tables)
    assert images_line(found.images, tables) == (
        "2 models on the test split: 200 images, 100 healthy and 100 sick, 200 patients"
    )
    assert model_lines(tables) == ["  A  one  threshold 0.432 (youden)", "  B  two"]
    lines = pair_table(found.pairs[0])
    assert [line.split()[0] for line in lines] == [
        "A", "AUROC", "accuracy", "sensitivity", "specificity",
    ]  # fmt: skip
    assert all(len(line) <= 80 for line in lines)
    assert methods_line(found).startswith("methods: DeLong's paired test; McNemar's")


def test_a_long_or_hostile_name_keeps_the_table_in_shape():
    tables = [table("runs/" + "x" * 60 + "_end"), table("a\x1b[31mb", seed=1), table("c", seed=2)]
    lines = ranking_table(compared(*tables), tables)
    assert all(len(line) <= 80 and "\x1b" not in line for line in lines)
    assert any("x_end" in line for line in lines)


def test_p_is_told_with_the_digits_a_person_reads():
    told = [p_text(p) for p in (0.137, 0.0216, 0.0004, 1.0, math.nan)]
    assert told == ["p = 0.14", "p = 0.022", "p < 0.001", "p = 1.00", "no test"]
    assert [p_cell(p) for p in (0.137, 0.0004, math.nan)] == ["0.14", "<0.001", "-"]


def test_the_json_holds_every_number_of_a_pair():
    tables = [table(), table("two", seed=1)]
    found = compared(*tables)
    content = comparison_json(found, tables, ["mind"])
    assert {key: content[key] for key in ("task", "split", "n", "n_sick", "n_patients")} == {
        "task": "classify", "split": "test", "n": N, "n_sick": 100, "n_patients": N,
    }  # fmt: skip
    assert [model["letter"] for model in content["models"]] == ["A", "B"]
    assert content["ranking"] == [letter(s.place) for s in found.standings]
    pair, d = content["pairs"][0], found.pairs[0].differences["accuracy"]
    assert pair["words"] == verdict(found.pairs[0], several=False)
    told = pair["differences"]["accuracy"]
    assert (told["difference"], told["p"], told["method"]) == (d.value, d.p_value, d.method)
    assert told["only_a_right"] == d.mcnemar.only_first
    assert "only_a_right" not in pair["differences"]["auroc"]
    assert (pair["without_training_images"], content["warnings"]) == (None, ["mind"])


def test_holm_over_more_tests_than_are_shown_is_stricter() -> None:
    assert holm([0.01, 0.04]) == [0.02, 0.04]
    assert holm([0.01, 0.04], n_tests=6) == [0.06, 0.2]


def test_the_best_of_many_equal_models_is_seldom_called_better() -> None:
    """Eight models of one worth: whatever looks best was chosen by these very images."""
    rng = np.random.default_rng(8)
    alarms = 0
    for _ in range(120):
        targets = np.repeat([0.0, 1.0], 60)
        scores = rng.normal(size=(8, 120)) + 1.2 * targets
        areas = [roc_auc_score(targets, row) for row in scores]
        best = int(np.argmax(areas))
        found = [
            auroc_difference(targets.astype(int), scores[best], row, np.arange(120)).p_value
            for k, row in enumerate(scores)
            if k != best
        ]
        alarms += min(holm(found, n_tests=28)) < 0.05
    assert alarms <= 14  # 5 % of 120 is 6; more than 14 has a chance below 1e-3
