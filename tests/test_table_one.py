"""Table 1 and the flow of images: counts against hand calculation and pandas."""

from dataclasses import replace

import numpy as np
import pandas
import pytest

from xray_classifier.data.manifest import Manifest
from xray_classifier.errors import DataError
from xray_classifier.files import csv_text
from xray_classifier.table_one import (
    FEWEST_NUMBERS,
    MOST_LEVELS,
    Listing,
    flow_counts,
    flow_text,
    listing_of,
    read_listing,
    table_one,
)

SMALL = Listing(
    targets=np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0]),
    patients=("a", "a", "b", "c", "d", "e"),
    patients_known=True,
    splits=("train", "train", "train", "test", "test", ""),
    reasons=("", "", "truncated", "", "", "leak"),
    columns={"view": ("PA", "AP", "PA", "PA", "", "AP")},
)


def rows_of(listing: Listing) -> dict[str, tuple[str, ...]]:
    """Rows by their name."""
    _, rows = table_one(listing)
    return {row[0]: row[1:] for row in rows}


def test_counts_by_hand() -> None:
    header, rows = table_one(SMALL)
    assert header == ("", "train", "test", "all")
    assert rows == (
        ("images", "2", "2", "4"),
        ("patients", "1", "2", "3"),
        ("sick images", "1 (50.0%)", "1 (50.0%)", "2 (50.0%)"),
        ("patients with a sick image", "1 (100.0%)", "1 (50.0%)", "2 (66.7%)"),
        ("view: AP", "1 (50.0%)", "0 (0.0%)", "1 (25.0%)"),
        ("view: PA", "1 (50.0%)", "1 (50.0%)", "2 (50.0%)"),
        ("view: not stated", "0 (0.0%)", "1 (50.0%)", "1 (25.0%)"),
    )


def test_unknown_patients_are_said_to_be_unknown() -> None:
    rows = rows_of(replace(SMALL, patients_known=False))
    assert rows["patients"] == ("not known",) * 3
    assert "patients with a sick image" not in rows


def test_numbers_are_summed_up_as_pandas_does() -> None:
    rng = np.random.default_rng(0)
    ages = [f"{age:.1f}" for age in rng.uniform(20, 90, 60)]
    splits = ("train",) * 40 + ("test",) * 20
    ages[3] = "n/a"
    listing = Listing(
        targets=np.zeros(60),
        patients=tuple(str(i) for i in range(60)),
        patients_known=True,
        splits=splits,
        reasons=("",) * 60,
        columns={"age": tuple(ages)},
    )
    frame = pandas.DataFrame({"age": pandas.to_numeric(ages, errors="coerce"), "split": splits})
    rows = rows_of(listing)
    for place, chosen in enumerate((frame.split == "train", frame.split == "test", frame.age > 0)):
        low, middle, high = frame.age[chosen].quantile([0.25, 0.5, 0.75])
        expected = f"{middle:.4g} ({low:.4g} to {high:.4g})"
        assert rows["age: median (quartiles)"][place] == expected
    assert rows["age: not stated"] == ("1 (2.5%)", "0 (0.0%)", "1 (1.7%)")


def with_column(texts: list[str]) -> dict[str, tuple[str, ...]]:
    """The rows of a table with one covariate `x`."""
    n = len(texts)
    listing = Listing(np.zeros(n), ("p",) * n, True, ("train",) * n, ("",) * n, {"x": tuple(texts)})
    return {name: row for name, row in rows_of(listing).items() if name.startswith("x")}


def test_few_numbers_are_codes() -> None:
    codes = with_column([str(i % (FEWEST_NUMBERS - 1)) for i in range(60)])
    assert codes["x: 0"] == ("10 (16.7%)", "10 (16.7%)")
    assert list(codes) == [f"x: {i}" for i in range(FEWEST_NUMBERS - 1)]
    assert list(with_column([str(i) for i in range(FEWEST_NUMBERS)])) == ["x: median (quartiles)"]


def test_a_column_of_names_is_not_spread_out() -> None:
    names = [f"study {i}" for i in range(MOST_LEVELS + 1)]
    assert with_column(names) == {"x: distinct values": ("21", "21")}
    assert len(with_column(names[:-1])) == MOST_LEVELS


def test_an_empty_column_is_not_stated() -> None:
    assert with_column(["", "NA"]) == {"x: not stated": ("2 (100.0%)", "2 (100.0%)")}


def test_regression_tells_the_target() -> None:
    listing = replace(SMALL, task="regress", targets=np.array([1.0, 2, 0, 4, 6, 0]), columns={})
    assert rows_of(listing) == {
        "images": ("2", "2", "4"),
        "patients": ("1", "2", "3"),
        "target: median (quartiles)": (
            "1.5 (1.25 to 1.75)",
            "5 (4.5 to 5.5)",
            "3 (1.75 to 4.5)",
        ),
    }


def test_flow_accounts_for_every_image() -> None:
    steps = flow_counts(SMALL, "test", 2, 1)
    assert [(step.name, step.images, step.depth) for step in steps] == [
        ("images found", 6, 0),
        ("left out: unreadable", 1, 1),
        ("truncated", 1, 2),
        ("left out: patient or copy in an earlier split", 1, 1),
        ("train split", 2, 1),
        ("test split", 2, 1),
        ("scored", 2, 2),
        ("answered sick or healthy", 1, 3),
        ("referred to a person", 1, 3),
    ]
    assert sum(step.images for step in steps if step.depth == 1) == steps[0].images


def test_images_in_no_split_are_told() -> None:
    listing = replace(SMALL, reasons=("",) * 6)
    steps = flow_counts(listing)
    assert ("in no split", 1, 1) in [tuple(step) for step in steps]
    assert sum(step.images for step in steps if step.depth == 1) == 6


def test_flow_is_drawn_as_a_tree() -> None:
    assert flow_text(flow_counts(replace(SMALL, reasons=("",) * 6), "test", 2)) == (
        "6  images found\n3  └─ train split\n2  └─ test split\n2     └─ scored\n1  └─ in no split"
    )


def test_a_reason_cannot_break_the_tree() -> None:
    listing = replace(SMALL, reasons=("", "", "a\n9  b", "", "", "leak"))
    assert "a\\n9  b" in flow_text(flow_counts(listing))


def test_listing_reads_what_a_run_writes() -> None:
    header = ("path", "label", "patient", "split", "reason", "sex", "=age")
    lines = [
        ("a.png", "PNEUMONIA", "=p1", "train", "", "F", "-3"),
        ('b,"x\n.png', "NORMAL", "p2", "", "leak", "", "4"),
    ]
    listing = read_listing(csv_text(header, lines), ["PNEUMONIA"], "classify")
    assert listing.targets.tolist() == [1.0, 0.0]
    assert listing.patients == ("=p1", "p2")  # without the quote against spreadsheets
    assert listing.patients_known
    assert listing.ids == ("a.png", 'b,"x\n.png')
    assert dict(listing.columns) == {"sex": ("F", ""), "=age": ("-3", "4")}
    assert listing.members(None).tolist() == [0]


def test_listing_knows_when_patients_are_unknown() -> None:
    text = "path,label,patient,split,reason\na.png,1.5,a.png,train,\n"
    listing = read_listing(text, [], "regress")
    assert not listing.patients_known
    assert listing.targets.tolist() == [1.5]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "path,label\na,b\n",
        "path,label,patient,split,reason\na,b\n",
        'path,label,patient,split,reason\n"a',
    ],
)
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"manifest\.csv"):
        read_listing(text, ["sick"], "classify")


def test_listing_of_a_manifest_is_the_same() -> None:
    manifest = Manifest(
        kind="phantoms",
        root=None,
        ids=tuple("abcdef"),
        files=(),
        targets=SMALL.targets,
        classes=("",) * 6,
        patients=SMALL.patients,
        patients_known=True,
        splits=SMALL.splits,
        columns=dict(SMALL.columns),
    )
    assert table_one(listing_of(manifest, SMALL.reasons, "classify")) == table_one(SMALL)
