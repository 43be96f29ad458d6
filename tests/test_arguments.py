"""Reading the command line: overrides, aliases, flags and what was perhaps meant."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier.arguments import ALIASES, build_parser, parse, split_overrides
from xray_classifier.cli import RECIPES
from xray_classifier.errors import UsageError


def read(*words: str) -> Any:
    """The arguments that these words give."""
    return parse(words, RECIPES)


def test_every_recipe_has_a_verb_and_every_alias_a_recipe() -> None:
    _, verbs = build_parser(RECIPES)
    assert set(verbs) == set(RECIPES)
    assert set(ALIASES.values()) <= set(RECIPES)
    assert not set(ALIASES) & set(RECIPES)


def test_a_verb_calls_its_recipe() -> None:
    assert read("train", "-c", "demo").run is RECIPES["train"]
    assert read("test", "run").run is RECIPES["evaluate"]


@given(st.permutations(["-c demo", "train.epochs=3", "--name x", "seed=1", "-q", "data.path=a b"]))
@settings(max_examples=40, deadline=None)
def test_the_order_of_flags_and_overrides_does_not_matter(parts: list[str]) -> None:
    words = [w for part in parts for w in (part.split(" ") if part[0] == "-" else [part])]
    found = read("train", *words)
    assert (found.config, found.name, found.quiet) == ("demo", "x", True)
    assert sorted(found.overrides) == ["data.path=a b", "seed=1", "train.epochs=3"]
    assert found.overrides == [w for w in words if "=" in w]


@pytest.mark.parametrize(
    "override",
    ["a.b=c", "a=", "model.hidden=[1, 2]", "data.labels={healthy: [A], sick: [B]}", "a.b=c=d\ne"],
)
def test_an_override_is_taken_as_it_is_typed(override: str) -> None:
    assert read("train", "-c", "demo", override).overrides == [override]


def test_the_value_of_a_flag_is_no_override() -> None:
    found = read("evaluate", "run", "--threshold", "sens=0.95", "data.patient=null")
    assert found.threshold == "sens=0.95"
    assert found.overrides == ["data.patient=null"]
    assert read("train", "-c", "a=b.yaml").config == "a=b.yaml"


def test_an_existing_file_is_no_override_where_files_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patient=1.png").write_bytes(b"x")
    assert read("predict", "run", "patient=1.png", "-o", "p").inputs == [Path("patient=1.png")]
    with pytest.raises(UsageError, match=r"patient=2\.png: predict takes no overrides"):
        read("predict", "run", "x.png", "patient=2.png", "-o", "p")
    _, verbs = build_parser(RECIPES)
    assert split_overrides(["patient=1.png"], verbs["train"]) == ([], ["patient=1.png"])


def test_defaults_are_those_that_help_states() -> None:
    found = read("train", "-c", "demo")
    assert (found.out, found.resume, found.dry_run, found.json) == (
        Path("runs"),
        None,
        False,
        False,
    )
    assert read("evaluate", "run").threshold == "auto"
    assert read("predict", "run", "x", "-o", "-").out == Path("-")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frobnicate"], "a verb is missing"),
        (["tran"], "did you mean 'train'"),
        (["train", "--lr", "3"], "train.optimizer.lr=VALUE"),
        (["train", "--dryrun"], "did you mean '--dry-run'"),
        (["predict", "r", "x", "-o", "p", "--epochs", "3"], "no flag '--epochs'"),
        (["train", "-c"], "expected one argument"),
        (["predict", "r", "x", "-o", "p", "--format", "xlsx"], "xlsx"),
        (["train", "-c", "demo", "-x"], "'-x' is not understood"),
    ],
)
def test_what_cannot_be_read_says_what_was_perhaps_meant(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert message in str(caught.value)
    assert "--help" in str(caught.value)
