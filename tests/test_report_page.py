"""The report page: whole in one file, unable to run or fetch anything, and readable by all."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from report_parts import everything, film, flow, png, tool

from xray_classifier.report.error_gallery import ErrorFilm, ErrorGroup
from xray_classifier.report.flow_diagram import FlowLevel
from xray_classifier.report.page import (
    ReportContent,
    ReportFigure,
    ReportSection,
    ReportTable,
    render_report,
)

HOSTILE = "<img src=x onerror=alert(1)>.png\"' {{ 7*7 }} </style></pre><script>alert(2)</script>"


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
        if tag not in ("meta", "img", "input", "wbr"):
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
    assert Page(render_report(everything())).open == []


def hash_of(block: str) -> str:
    """The source expression of a block, as W3C CSP Level 3 has it."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() + "'"


def scripts_of(html: str) -> list[str]:
    """What could run."""
    return re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)


def test_the_policy_allows_data_pictures_and_the_own_style_and_scripts_alone() -> None:
    html = render_report(everything())
    (style,) = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    scripts = scripts_of(html)
    assert len(scripts) == 2
    assert policy(Page(html)) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": hash_of(style),
        "script-src": " ".join(hash_of(script) for script in scripts),
        "require-trusted-types-for": "'script'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not any("style" in attributes for _, attributes in Page(html).tags)


def test_a_page_without_tool_and_gallery_can_run_nothing() -> None:
    html = render_report(replace(everything(), threshold_tool=None, gallery=()))
    assert "<script" not in html
    assert "script-src" not in policy(Page(html))


def test_the_scripts_send_and_evaluate_nothing() -> None:
    for script in scripts_of(render_report(everything())):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(|fetch|XMLHttp|"
            r"WebSocket|sendBeacon|import|https?:|localStorage|cookie",
            script.replace("doi:", ""),
        )


def test_the_policy_stands_before_all_that_it_governs() -> None:
    html = render_report(everything())
    assert html.index("Content-Security-Policy") < html.index("<title>") < html.index("<style>")


def test_nothing_is_fetched() -> None:
    html = render_report(everything())
    assert not re.search(r"https?:|url\(|@import|<link|<iframe|<object", html)
    for tag, attributes in Page(html).tags:
        assert not {"srcset", "action", "data", "poster", "xlink:href"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attributes.get("href", "#").startswith("#")
        assert tag in {"img", "a"} or not {"src", "href"} & set(attributes)


def test_links_lead_to_the_parts_in_their_order() -> None:
    page = Page(render_report(everything()))
    targets = [link["href"].removeprefix("#") for link in page.of("a")]
    assert targets == [
        "thresholds", "figures", "errors", "subgroups", "metrics", "section-1", "images",
        "summary", "limits", "details",
    ]  # fmt: skip
    assert [heading["id"] for heading in page.of("h2")] == ["warnings", *targets]


def test_pictures_travel_inside_with_size_and_alternative_text() -> None:
    shown = ReportContent(
        title="t", figures=(ReportFigure("f", png(), "wide"), ReportFigure("g", png(9, 9), "box"))
    )
    pictures = Page(render_report(shown)).of("img")
    assert [picture["alt"] for picture in pictures] == ["wide", "box"]
    assert [(p["width"], p["height"]) for p in pictures] == [("30", "20"), ("9", "9")]
    for picture, size in zip(pictures, [(30, 20), (9, 9)], strict=True):
        kind, _, data = picture["src"].partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            assert image.size == size


def test_every_picture_has_an_alternative_text() -> None:
    page = Page(render_report(everything()))
    assert all(picture["alt"].strip() for picture in page.of("img"))
    for drawing in page.of("svg"):
        assert drawing.get("aria-hidden") == "true" or drawing["aria-label"].strip()


def test_hostile_text_stays_text_everywhere() -> None:
    page = Page(render_report(everything(HOSTILE)))
    harmless = Page(render_report(everything()))
    # a path may be broken at each slash, and a box of the diagram has as many lines as it needs
    shapes = [
        [(tag, sorted(a)) for tag, a in p.tags if tag not in {"wbr", "text"}]
        for p in (page, harmless)
    ]
    assert shapes[0] == shapes[1]
    assert "49" not in "".join(page.words("h1"))
    assert page.words("h1") == [HOSTILE]
    assert page.words("pre") == [HOSTILE]
    assert page.words("li").count(HOSTILE) == 2
    assert page.of("img")[0]["alt"] == HOSTILE + " alt"
    assert page.words("h3").count(HOSTILE) == 6
    assert "".join(page.words("bdi")).count(HOSTILE) == 4
    held = json.loads("".join(page.words("script")[:1]))
    assert held["policy"] == HOSTILE


def test_the_block_of_numbers_cannot_be_ended_by_a_text_in_it() -> None:
    html = render_report(ReportContent(title="t", threshold_tool=tool("</script><script>x()")))
    assert len(re.findall(r"<script", html)) == 2
    (block,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html)
    assert not set("<>&") & set(block)
    assert json.loads(block)["policy"] == "</script><script>x()"


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


def test_metrics_are_a_table_with_name_key_value_interval_n_and_method() -> None:
    html = render_report(everything()).split('<h2 id="metrics">')[1]
    rows = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", html)
    ]
    texts = [[re.sub(r"<[^>]*>", "|", cell) for cell in row] for row in rows[:5]]
    assert texts[0] == ["Metric", "Value", "95 % interval", "n", "Method"]
    assert texts[1][0].startswith("AUROC|auroc||how often a random sick image")
    assert texts[1][1:] == ["0.945", "0.910 to 0.960", "1,312", "DeLong"]
    assert texts[2] == ["words", "not defined", "-", "0", "words"]
    assert texts[3][1:] == ["0.788", "0.688 to 0.889", "118", "bootstrap over patients"]
    assert texts[4][1:] == ["12,346", "-", "5", ""]


def test_the_leading_numbers_are_cards_in_percent() -> None:
    page = Page(render_report(everything()))
    values = [text for text in page.words("p") if text in ("0.945", "78.8 %", "12,346")]
    assert values == ["0.945", "78.8 %", "12,346"]
    assert "68.8 to 88.9 %" in page.words("p")
    labels = [drawing.get("aria-label", "") for drawing in page.of("svg")]
    assert labels[0] == "AUROC 0.945, 95 % interval 0.910 to 0.960"
    assert labels[1] == "Sensitivity 78.8 %, 95 % interval 68.8 to 88.9 %"


def test_the_page_can_be_heard() -> None:
    check_it_can_be_heard(Page(render_report(everything())))


def test_the_page_suits_phones_dark_rooms_and_paper() -> None:
    html = render_report(everything())
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
    assert render_report(everything()) == render_report(everything())


@pytest.mark.parametrize(
    ("figure", "why"),
    [
        (ReportFigure("f", b"<svg/>", "alt"), "no PNG"),
        (ReportFigure("f", png(), "  "), "alternative text"),
        (ReportFigure("f", png(), "alt", ("a", "b"), (("1",),)), "2 columns"),
    ],
)
def test_a_figure_that_not_all_can_read_is_refused(figure: ReportFigure, why: str) -> None:
    section = ReportSection("s", figures=(figure,))
    for wrong in ({"figures": (figure,)}, {"sections": (section,)}):
        with pytest.raises(ValueError, match=why):
            render_report(replace(ReportContent(title="t"), **wrong))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (film()._replace(png=b"<svg/>"), "no PNG"),
        (film()._replace(overlay=b"<svg/>"), "no PNG"),
        (film()._replace(alt=" "), "alternative text"),
    ],
)
def test_a_film_that_not_all_can_see_is_refused(wrong: ErrorFilm, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        render_report(ReportContent(title="t", gallery=(ErrorGroup("g", (wrong,)),)))


@pytest.mark.parametrize("wrong", [FlowLevel(()), flow()[0]._replace(onward=1)])
def test_a_diagram_that_cannot_be_drawn_is_refused(wrong: FlowLevel) -> None:
    with pytest.raises(ValueError, match="boxes goes on from"):
        render_report(ReportContent(title="t", flow=(wrong,)))


def test_a_row_of_another_length_is_refused() -> None:
    table = ReportTable("t", ("a",), (("1", "2"),))
    section = ReportSection("s", tables=(table,))
    for wrong in ({"tables": (table,)}, {"table_one": table}, {"sections": (section,)}):
        with pytest.raises(ValueError, match="1 columns, a row has 2"):
            render_report(replace(ReportContent(title="t"), **wrong))
