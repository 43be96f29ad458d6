"""Markdown with untrusted text in it: what is text stays text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_classifier.markdown import is_untouched, plain, sealed, table

ACTIVE = re.compile(r"(?<!\\)[`*\[\]|~$<>]")
"""What would open code, emphasis, a link, a cell, a strike, a formula or a tag."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<img src=x onerror=alert(1)>.png", "&lt;img src=x onerror=alert(1)&gt;.png"),
        ("[a](javascript:b)", r"\[a\](javascript:b)"),
        ("![a](b)", r"!\[a\](b)"),
        ("a|b", r"a\|b"),
        ("**bold** _it_ snake_case", r"\*\*bold\*\* \_it\_ snake_case"),
        ("a\n# b", "a # b"),
        ("# b", r"\# b"),
        ("1. b", r"1\. b"),
        ("- b", r"\- b"),
        ("0.91 (0.88 to 0.94)", "0.91 (0.88 to 0.94)"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("\\<b>", r"\\&lt;b&gt;"),
        ("http://a.b WWW.c @d", "http&#58;//a.b WWW&#46;c &#64;d"),
        ("a\u202egnp.exe", "a\\\\u202egnp.exe"),
        ("\x1b[31m", "\\\\x1b\\[31m"),
    ],
)
def test_untrusted_text_is_shown_as_it_is(text: str, shown: str) -> None:
    # the escapes that `printable` makes begin with a backslash, which Markdown doubles
    assert plain(text) == shown


@given(st.text())
def test_no_text_opens_anything(text: str) -> None:
    shown = plain(text)
    assert "\n" not in shown
    assert not ACTIVE.search(re.sub(r"\\\\", "", shown))
    assert not re.match(r"[#+=-]|\d+[.)](\s|$)", shown)


def test_table_keeps_a_cell_a_cell() -> None:
    text = table(("a", "b"), [(plain("x|y\nz"), "1"), ("", "2")])
    assert text.splitlines() == ["| a | b |", "| --- | --- |", r"| x\|y z | 1 |", "|  | 2 |"]


def test_table_refuses_a_ragged_row() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        table(("a", "b"), [("x",)])


def test_a_sealed_text_tells_edits() -> None:
    text = sealed("# Card\n\nto be filled in\n")
    assert text.startswith("# Card\n\nto be filled in\n")
    assert is_untouched(text)
    assert not is_untouched(text.replace("to be filled in", "Dr Who"))
    assert not is_untouched(text + "more\n")
    assert not is_untouched("# Card\n")
    assert not is_untouched("")
    assert is_untouched(sealed("caf\u00e9 \udcff"))
