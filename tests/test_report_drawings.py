"""What is drawn into the page itself: interval bars, the forest plot, the flow diagram, words."""

from __future__ import annotations

import math
import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_parts import flow, subgroups

from xray_classifier.estimates import classification_metrics, regression_metrics
from xray_classifier.report.flow_diagram import (
    FlowBox,
    FlowLevel,
    PlacedBox,
    flow_drawing,
    flow_words,
)
from xray_classifier.report.interval_bar import (
    Measured,
    Scale,
    interval_bar,
    percent_interval,
    percent_text,
    place,
)
from xray_classifier.report.key_numbers import key_numbers
from xray_classifier.report.metric_words import method_words, metric_words
from xray_classifier.report.numbers_behind import curve_rows
from xray_classifier.report.page import MetricRow
from xray_classifier.report.subgroup_plot import HEADER, drawn_subgroups, subgroup_table


def test_a_bar_runs_from_margin_to_margin_and_clips_what_lies_outside() -> None:
    assert [place(x) for x in (0.0, 0.5, 1.0)] == ["3.00%", "50.00%", "97.00%"]
    assert place(0.75, Scale(0.5, 1.0)) == "50.00%"
    assert (place(-4.0), place(9.0)) == ("3.00%", "97.00%")


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (Measured(0.5, 0.0, 1.0), ("3.00%", "97.00%", "50.00%")),
        (Measured(0.5, None, 1.0), (None, None, "50.00%")),
        (Measured(0.5, 0.4, math.nan), (None, None, "50.00%")),
        (Measured(None, 0.4, 0.6), (None, None, None)),
        (Measured(math.nan, 0.4, 0.6), (None, None, None)),
    ],
)
def test_what_is_undefined_is_not_drawn(
    measured: Measured, expected: tuple[str | None, ...]
) -> None:
    assert tuple(interval_bar(measured)) == expected


def test_fractions_are_said_in_percent() -> None:
    assert percent_text(0.7881) == "78.8 %"
    assert percent_text(None) == percent_text(math.nan) == "not defined"
    assert percent_interval(Measured(0.5, 0.4123, 0.6)) == "41.2 to 60.0 %"
    assert percent_interval(Measured(0.5, math.nan, 0.6)) == ""


def rows_of(names: list[str]) -> tuple[MetricRow, ...]:
    return tuple(MetricRow(name, 0.25, 0.2, 0.3, 7, "wilson") for name in names)


def test_the_cards_are_the_leading_metrics_in_their_order() -> None:
    cards = key_numbers(rows_of(["f1", "brier", "npv", "auroc", "ppv", "ece", "sensitivity"]))
    assert [card.label for card in cards] == ["AUROC", "Sensitivity", "PPV", "NPV", "Brier score"]
    assert [card.value for card in cards] == ["0.250", "25.0 %", "25.0 %", "25.0 %", "0.250"]
    assert cards[1].n == "7 sick"
    assert cards[4].bar is not None
    assert cards[4].bar.dot == "97.00%"  # the Brier score of a coin ends the scale


def test_a_card_without_a_value_draws_nothing() -> None:
    (card,) = key_numbers((MetricRow("npv", None, None, None, 0, ""),))
    assert (card.value, card.interval) == ("not defined", "")
    assert card.bar is not None
    assert card.bar.dot is None


def test_every_metric_and_method_that_is_computed_has_words() -> None:
    labels = np.tile([0, 1, 1, 0, 1], 8)
    logits = np.linspace(-2, 2, 40) + labels
    p = 1 / (1 + np.exp(-logits))
    repeated = np.repeat(np.arange(20), 2)
    found = {
        **classification_metrics(labels, logits, p, 0.5, n_resamples=20),
        **regression_metrics(logits, p, None, 0),
    }
    assert [name for name in found if not metric_words(name).meaning] == []
    again = classification_metrics(labels, logits, p, 0.5, repeated, n_resamples=20)
    methods = {e.method for e in [*found.values(), *again.values()]} - {""}
    assert {"delong", "wilson", "patient_bootstrap"} <= methods
    assert all("_" not in method_words(method) for method in methods)


def test_what_has_no_words_is_called_by_its_key() -> None:
    assert metric_words("my_score") == ("my_score", "")
    assert method_words("some_other_way") == "some other way"


def test_groups_of_one_column_stand_below_each_other_against_all_images() -> None:
    columns = drawn_subgroups(subgroups())
    assert [(c.title, [d.row.group for d in c.rows]) for c in columns] == [
        ("", ["all images"]),
        ("view", ["view", "lateral"]),
    ]
    (whole,) = columns[0].rows
    assert [cell.reference for cell in whole.cells] == [None] * 4
    first = columns[1].rows[0].cells
    assert [cell.title for cell in first] == [
        "AUROC", "Sensitivity", "Specificity", "Under-diagnosis",
    ]  # fmt: skip
    assert [cell.reference for cell in first] == [whole.cells[i].bar.dot for i in range(4)]
    assert first[0].bar.dot == place(0.875, Scale(0.5, 1.0))
    assert first[1].words == "Sensitivity 80.0 %, 95 % interval 70.0 to 90.0 %"


def test_a_group_without_a_number_says_so() -> None:
    lateral = drawn_subgroups(subgroups())[1].rows[1]
    assert [cell.bar.dot for cell in lateral.cells] == [None] * 4
    assert [cell.text for cell in lateral.cells] == ["not defined"] * 4


def test_the_table_of_groups_holds_every_number() -> None:
    table = subgroup_table(subgroups())
    assert [len(row) for row in table] == [len(HEADER)] * 3
    assert table[1][:5] == ("view: view", "1,060", "30", "0.875", "0.800 to 0.920")
    assert table[1][-1] == "view"
    assert table[2][3:-1] == ("not defined", "-") * 4


def apart(one: PlacedBox, other: PlacedBox) -> bool:
    """Whether two boxes share no point."""
    return (
        one.x + one.width < other.x
        or other.x + other.width < one.x
        or one.y + one.height < other.y
        or other.y + other.height < one.y
    )


LEVELS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5
)
LABELS = st.text(st.characters(codec="ascii", categories=["L", "Zs"]), min_size=1, max_size=40)


@given(LEVELS, LABELS)
def test_boxes_lie_apart_inside_the_drawing_and_arrows_end_at_them(
    shape: list[tuple[int, int, int]], label: str
) -> None:
    box = FlowBox(label, 1234, label)
    drawing = flow_drawing(
        tuple(FlowLevel((box,) * n, (box,) * left, onward % n) for n, left, onward in shape)
    )
    assert len(drawing.boxes) == sum(n + left for n, left, _ in shape)
    assert all(apart(one, other) for one, other in combinations(drawing.boxes, 2))
    for placed in drawing.boxes:
        assert placed.x >= 0
        assert placed.x + placed.width <= drawing.width
        assert placed.y + placed.height <= drawing.height
        assert all(placed.y < y < placed.y + placed.height for y, _, _ in placed.lines)
        assert [text for _, text, number in placed.lines if number] == ["1,234"]
    tips = [tuple(map(float, re.findall(r"[-\d.]+", head)[:2])) for head in drawing.heads]
    assert len(tips) == len(drawing.boxes) - shape[0][0]
    for x, y in tips:
        assert any(
            p.x - 0.1 <= x <= p.x + p.width + 0.1 and p.y - 0.1 <= y <= p.y + p.height + 0.1
            for p in drawing.boxes
        )


def test_nothing_of_a_label_is_lost_in_its_box() -> None:
    label = "left out because a near copy of it stands in another split"
    (placed,) = flow_drawing((FlowLevel((FlowBox(label, 5),)),)).boxes
    assert " ".join(text for _, text, number in placed.lines if not number) == label


def test_the_diagram_is_said_in_words() -> None:
    assert flow_words(flow("unreadable")) == (
        "found 1,000 (400 patients)",
        "Left out: unreadable 10",
        "From found: training 700, validation 100 (unreadable), test 190",
        "Left out: failed 1, referred 9",
        "From test: called sick 80, unreadable 100",
    )


def test_the_numbers_behind_a_curve_keep_both_ends() -> None:
    x = np.linspace(0, 1, 1001)
    rows = curve_rows(x, x**2)
    assert len(rows) == 25
    assert (rows[0], rows[-1]) == (("0.000", "0.000"), ("1.000", "1.000"))
    assert all(float(b) == pytest.approx(float(a) ** 2, abs=2e-3) for a, b in rows)


def test_few_numbers_are_all_there_and_undefined_ones_said() -> None:
    assert curve_rows([math.inf, 0.5], [math.nan, 1.0]) == (
        ("infinite", "not defined"),
        ("0.500", "1.000"),
    )


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        curve_rows([1.0, 2.0], [1.0])
