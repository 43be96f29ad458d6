"""The README says what the program does now."""

import re
from pathlib import Path

from xray_classifier.arguments import ALIASES, build_parser
from xray_classifier.cli import RECIPES
from xray_classifier.config_file import shipped_configs
from xray_classifier.config_text import markdown_reference

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
