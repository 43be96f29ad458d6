"""The README says what the program does now."""

import re
from pathlib import Path

from xray_classifier.answers import REJECTED
from xray_classifier.arguments import ALIASES, build_parser
from xray_classifier.cli import RECIPES
from xray_classifier.config_file import shipped_configs
from xray_classifier.config_text import markdown_reference
from xray_classifier.data.boundary import REASONS
from xray_classifier.gate import REASONS as GATE_REASONS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_config_reference_is_that_of_the_code() -> None:
    start, end = "<!-- config reference -->\n", "<!-- end of config reference -->\n"
    shown = README.split(start)[1].split(end)[0]
    assert shown == markdown_reference(), "run scripts/update_readme"


def test_every_verb_and_every_shipped_config_is_named() -> None:
    for verb in RECIPES:
        assert f"`{verb}" in README or f"xray-classifier {verb}" in README, verb
    for name in shipped_configs():
        assert f"{name}.yaml" in README, name


def test_every_command_shown_is_one_that_can_be_typed() -> None:
    _, verbs = build_parser(RECIPES)
    shown = re.findall(r"^\$? ?xray-classifier (\S+)", README, flags=re.MULTILINE)
    assert len(shown) >= 6
    for verb in shown:
        assert verb in verbs or verb in ALIASES or verb.startswith("-"), verb


def test_every_picture_and_linked_file_exists() -> None:
    for target in re.findall(r"\]\(((?!https?:|#)[^)\s]+)\)", README):
        assert (ROOT / target.split("#")[0]).exists(), target


def test_every_reason_is_explained_with_its_status() -> None:
    text = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| (failed|rejected) \|", text, flags=re.MULTILINE))
    rejected = {*REJECTED, *GATE_REASONS}
    assert set(told) == {*REASONS, *GATE_REASONS}
    assert {name for name, status in told.items() if status == "rejected"} == rejected
