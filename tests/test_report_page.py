"""The report page: whole in one file, unable to run or fetch anything, and readable by all."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xray_classifier.report.page import (
    MetricRow,
    ReportContent,
    ReportFigure,
    ReportTable,
    render_report,
)

HOSTILE = "<img src=x onerror=alert(1)>.png\"' {{ 7*7 }} </style></pre><script>alert(2)</script>"


def png(width: int = 30, height: int = 20) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), 200).save(buffer, "PNG")
    return buffer.getvalue()


def content(text: str = "words") -> ReportContent:
    """A report with every section, `text` in every place that takes text."""
    return ReportContent(
        title=text,
        verdict=(text, "second paragraph"),
        metrics=(
            MetricRow("auroc", 0.9451, 0.91, 0.96, 1312, "DeLong"),
            MetricRow(text, None, None, None, 0, text),
            MetricRow("mse", 12345.6, float("nan"), 1.0, 5, ""),
        ),
        figures=(
            ReportFigure(text, png(), text + " alt", (text, "n"), ((text, "3"),)),
            ReportFigure("square", png(20, 20), "a square"),
        ),
        tables=(ReportTable(text, ("Split", text), (("test", text),)),),
        details=((text, text),),
        warnings=(text,),
    )


class Page(HTMLParser):
    """The elements, attributes and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def words(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def policy(page: Page) -> dict[str, str]:
    (meta,) = [item for item in page.of("meta") if "http-equiv" in item]
    assert meta["http-equiv"] == "Content-Security-Policy"
    parts = [part.strip().partition(" ") for part in meta["content"].split(";")]
    return {name: value for name, _, value in parts}


def check_it_can_be_heard(page: Page) -> None:
    """What a screen reader needs: language, headings in order, named tables, parts and regions."""
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("h1")) == len(page.of("main")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(cell["scope"] in ("row", "col") for cell in page.of("th"))
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    for section in page.of("section"):
        assert section["aria-labelledby"] in identities
    for attributes in [a for _, a in page.tags if a.get("role") == "region"]:
        assert attributes["aria-label"]
        assert attributes["tabindex"] == "0"


def test_elements_are_closed_in_order() -> None:
    assert Page(render_report(content())).open == []


def test_the_policy_allows_data_pictures_and_the_one_style_block_alone() -> None:
    html = render_report(content())
    (style,) = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy(Page(html)) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert "style=" not in html.replace(style, "")


def test_the_policy_stands_before_all_that_it_governs() -> None:
    html = render_report(content())
    assert html.index("Content-Security-Policy") < html.index("<title>") < html.index("<style>")


def test_nothing_is_fetched() -> None:
    html = render_report(content())
    assert not re.search(r"https?:|url\(|@import|<link|<script|<iframe", html.split("base64,")[0])
    page = Page(html)
    for _, attributes in page.tags:
        assert not {"href", "srcset", "action", "data", "poster"} & set(attributes)
        assert attributes.get("src", "data:").startswith("data:")


def test_pictures_travel_inside_with_size_and_alternative_text() -> None:
    pictures = Page(render_report(content())).of("img")
    assert [picture["alt"] for picture in pictures] == ["words alt", "a square"]
    assert [(p["width"], p["height"]) for p in pictures] == [("30", "20"), ("20", "20")]
    for picture, size in zip(pictures, [(30, 20), (20, 20)], strict=True):
        kind, _, data = picture["src"].partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            assert image.size == size


def test_hostile_text_stays_text_everywhere() -> None:
    html = render_report(content(HOSTILE))
    page = Page(html)
    harmless = Page(render_report(content()))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]
    assert [sorted(names) for _, names in page.tags] == [sorted(n) for _, n in harmless.tags]
    assert "49" not in "".join(page.words("h1"))
    assert page.words("h1") == [HOSTILE]
    assert page.words("pre") == [HOSTILE]
    assert page.words("li") == [HOSTILE]
    assert page.of("img")[0]["alt"] == HOSTILE + " alt"
    assert page.words("h3").count(HOSTILE) == 2


@given(st.text(max_size=30))
@settings(max_examples=40, deadline=None)
def test_any_text_gives_a_page_of_the_same_shape(text: str) -> None:
    html = render_report(ReportContent(title=text, verdict=(text,), details=((text, text),)))
    html.encode("utf-8")
    plain = render_report(ReportContent(title="a", verdict=("a",), details=(("a", "a"),)))
    assert [tag for tag, _ in Page(html).tags] == [tag for tag, _ in Page(plain).tags]


def test_invisible_characters_and_bytes_that_are_no_utf8_are_shown_as_escapes() -> None:
    html = render_report(ReportContent(title="a\u202eb\x00c\udcffd\x1b[31me"))
    assert Page(html).words("h1") == ["a\\u202eb\\x00c\\udcffd\\x1b[31me"]


def test_lines_of_a_detail_are_kept() -> None:
    text = "seed: 1\n\ttab\nend: ü ≥ 日本"
    html = render_report(ReportContent(title="t", details=(("Configuration", text),)))
    assert Page(html).words("pre") == [text]


def test_metrics_are_a_table_with_value_interval_n_and_method() -> None:
    html = render_report(content())
    rows = [re.findall(r">([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", html)]
    assert rows[0] == ["Metric", "Value", "95 % interval", "n", "Method"]
    assert rows[1] == ["auroc", "0.945", "0.910 to 0.960", "1,312", "DeLong"]
    assert rows[2] == ["words", "not defined", "-", "0", "words"]
    assert rows[3] == ["mse", "12,346", "-", "5", ""]


def test_the_page_can_be_heard() -> None:
    check_it_can_be_heard(Page(render_report(content())))


def test_the_page_suits_phones_dark_rooms_and_paper() -> None:
    html = render_report(content())
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "@media (prefers-color-scheme: dark)" in html
    assert "@media print" in html


def test_every_page_says_that_it_is_no_medical_device() -> None:
    assert "Not a medical device" in render_report(ReportContent(title="t"))


def test_empty_sections_leave_no_heading() -> None:
    page = Page(render_report(ReportContent(title="t")))
    assert page.of("h2") == []
    assert page.of("table") == []


def test_equal_content_gives_an_equal_page() -> None:
    assert render_report(content()) == render_report(content())


@pytest.mark.parametrize(
    ("figure", "why"),
    [
        (ReportFigure("f", b"<svg/>", "alt"), "no PNG"),
        (ReportFigure("f", png(), "  "), "alternative text"),
        (ReportFigure("f", png(), "alt", ("a", "b"), (("1",),)), "2 columns"),
    ],
)
def test_a_figure_that_not_all_can_read_is_refused(figure: ReportFigure, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        render_report(ReportContent(title="t", figures=(figure,)))


def test_a_row_of_another_length_is_refused() -> None:
    table = ReportTable("t", ("a",), (("1", "2"),))
    with pytest.raises(ValueError, match="1 columns, a row has 2"):
        render_report(ReportContent(title="t", tables=(table,)))
