"""The audit page: films side by side in one safe file, and every number that it draws in words."""

from __future__ import annotations

import base64
import hashlib
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_report_page import HOSTILE, Page, check_it_can_be_heard, policy

from xray_classifier.report.audit_page import (
    AuditContent,
    FilmGroup,
    Gallery,
    PageFilm,
    ProbeRow,
    film_png,
    render_audit,
)
from xray_classifier.report.page import ReportTable

GREY = film_png(np.full((8, 8), 90, dtype=np.uint8))
VOID = {"meta", "img", "line", "path", "circle", "wbr"}


class AuditPage(Page):
    """A page whose drawings close their own elements, and with the text inside each element."""

    def __init__(self, html: str) -> None:
        self.inside: list[tuple[list[str], str]] = []
        super().__init__(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag and tag in VOID:
            self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        if data.strip():
            self.inside.append((list(self.open), data))

    def text(self) -> str:
        """All that is read, on one line."""
        shown = "".join(data for _, data in self.texts)
        return " ".join(shown.split())


def film(text: str = "train/a.png", badge: str = "train", note: str = "") -> PageFilm:
    return PageFilm(GREY, text, f"{text} alt", badge, note)


def probe(
    auroc: float | None,
    low: float | None = None,
    high: float | None = None,
    kind: str = "acquisition",
    name: str = "image size",
    note: str = "",
) -> ProbeRow:
    return ProbeRow(name, kind, auroc, low, high, 1234, note, "delong")  # type: ignore[arg-type]


def content(text: str = "words") -> AuditContent:
    """An audit with every section, `text` in every place that takes text."""
    gallery = Gallery(
        text,
        text,
        (FilmGroup(text, (film(text, text, text), PageFilm(None, text, "", text, text)), 3),),
        4,
    )
    return AuditContent(
        title=text,
        verdict=(text, "second paragraph"),
        alarm=True,
        leaks=(gallery,),
        labels=(gallery,),
        probes=(
            probe(0.93, 0.89, 0.96, name=text, note=text),
            probe(0.6, 0.55, 0.65, kind="covariate", name=text),
            probe(None, kind="baseline", name=text, note=text),
        ),
        quality=(gallery,),
        summary=(ReportTable(text, ("Split", text), (("test", text),)),),
        details=((text, text),),
    )


def probes_page(*probes: ProbeRow) -> AuditPage:
    return AuditPage(render_audit(AuditContent(title="t", probes=probes)))


def test_elements_are_closed_in_order() -> None:
    assert AuditPage(render_audit(content())).open == []


def test_the_policy_allows_data_pictures_and_the_one_style_block_alone() -> None:
    html = render_audit(content())
    (style,) = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy(AuditPage(html)) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not any("style" in attributes for _, attributes in AuditPage(html).tags)


def test_nothing_runs_and_nothing_is_fetched() -> None:
    html = render_audit(content())
    assert not re.search(r"https?:|url\(|@import", html)
    page = AuditPage(html)
    assert not {"script", "link", "iframe", "object", "form", "use"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not {"srcset", "action", "data", "poster", "xlink:href"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert all(a["src"].startswith("data:image/png;base64,") for a in page.of("img"))
    assert all(link["href"].startswith("#") for link in page.of("a"))
    assert {tag for tag, a in page.tags if "src" in a or "href" in a} == {"img", "a"}


def test_links_lead_to_sections_that_are_there() -> None:
    page = AuditPage(render_audit(content()))
    targets = [link["href"].removeprefix("#") for link in page.of("a")]
    assert targets == ["leaks", "labels", "shortcuts", "quality", "summary", "details"]
    assert [heading["id"] for heading in page.of("h2")] == targets
    assert AuditPage(render_audit(AuditContent(title="t"))).of("a") == []


def test_hostile_text_stays_text_everywhere() -> None:
    page = AuditPage(render_audit(content(HOSTILE)))
    harmless = AuditPage(render_audit(content()))
    without_breaks = [[item for item in p.tags if item[0] != "wbr"] for p in (page, harmless)]
    assert [tag for tag, _ in without_breaks[0]] == [tag for tag, _ in without_breaks[1]]
    assert [sorted(a) for _, a in without_breaks[0]] == [sorted(a) for _, a in without_breaks[1]]
    assert page.words("h1") == [HOSTILE]
    assert page.words("pre") == [HOSTILE]
    assert page.words("h3").count(HOSTILE) == 4
    assert {picture["alt"] for picture in page.of("img")} == {HOSTILE + " alt"}
    assert page.text().count(HOSTILE) == harmless.text().count("words")


@given(st.text(max_size=30))
@settings(max_examples=40, deadline=None)
def test_any_file_name_gives_a_page_of_the_same_shape(name: str) -> None:
    def tags(text: str) -> list[str]:
        group = FilmGroup(text or "-", (film(text),))
        html = render_audit(AuditContent(title="t", leaks=(Gallery("g", "", (group,)),)))
        html.encode("utf-8")
        return [tag for tag, _ in AuditPage(html).tags if tag != "wbr"]

    assert tags(name) == tags("a")


def test_characters_that_hide_or_turn_a_name_are_shown_as_escapes() -> None:
    name = "a\u202egpj.exe\u200f\n\t\x00\x1b\udcff\u2028é\u05d0.png"
    shown = "a\\u202egpj.exe\\u200f\\n\\t\\x00\\x1b\\udcff\\u2028é\u05d0.png"
    group = FilmGroup(name, (PageFilm(GREY, name, name, name, name),))
    page = AuditPage(render_audit(AuditContent(title="t", quality=(Gallery(name, "", (group,)),))))
    assert page.text().count(shown) == 5
    assert page.of("img")[0]["alt"] == shown
    # a name in Hebrew must not pull what stands beside it to its other side
    assert all(
        "bdi" in open_tags
        for open_tags, text in page.inside
        if text == shown and open_tags[-1] != "h3"
    )


def test_a_copy_stands_next_to_its_original_each_with_its_split() -> None:
    group = FilmGroup("equal pixels", (film("train/a.png"), film("test/b.png", "test")), 2)
    gallery = Gallery("Copies", "Equal in every pixel.", (group,), 1)
    html = render_audit(AuditContent(title="t", leaks=(gallery,)))
    page = AuditPage(html)
    assert [picture["alt"] for picture in page.of("img")] == ["train/a.png alt", "test/b.png alt"]
    order = ["Copies", "Equal in every pixel.", "equal pixels", "train train/a.png"]
    order += ["test test/b.png", "and 2 more films", "and 1 more group"]
    places = [page.text().index(text) for text in order]
    assert places == sorted(places)
    badges = [a["class"].split() for a in page.of("span") if "badge" in a.get("class", "")]
    assert [names[0] for names in badges] == ["badge", "badge"]
    assert badges[0] != badges[1]


def test_pictures_travel_inside_with_their_size_and_pixels() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    group = FilmGroup("g", (PageFilm(film_png(pixels), "a", "alt"),))
    page = AuditPage(render_audit(AuditContent(title="t", quality=(Gallery("g", "", (group,)),))))
    (picture,) = page.of("img")
    assert (picture["width"], picture["height"]) == ("8", "8")
    data = base64.b64decode(picture["src"].partition(",")[2], validate=True)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_file_that_cannot_be_decoded_is_shown_without_a_picture() -> None:
    group = FilmGroup("", (PageFilm(None, "broken.png", "", "train", "truncated"),))
    page = AuditPage(render_audit(AuditContent(title="t", quality=(Gallery("g", "", (group,)),))))
    assert page.of("img") == []
    assert "no picture train broken.png truncated" in page.text()


@pytest.mark.parametrize(("alarm", "word"), [(True, "Alarm"), (False, "No alarm")])
def test_the_verdict_comes_first_and_an_alarm_is_said_in_words(alarm: bool, word: str) -> None:
    page = AuditPage(render_audit(AuditContent(title="T", verdict=("V.", "W."), alarm=alarm)))
    body = [data for open_tags, data in page.inside if "body" in open_tags]
    assert body[:4] == ["T", word, "V.", "W."]


def test_each_kind_of_probe_says_what_it_means_and_holds_its_own_rows() -> None:
    page = probes_page(
        probe(0.9, 0.8, 0.95, "baseline", "thumbnail"),
        probe(0.7, 0.6, 0.8, "covariate", "hospital"),
        probe(0.93, 0.89, 0.96, "acquisition", "image size"),
    )
    text = page.text()
    order = ["a shortcut: a model can", "image size 0.93 above chance", "may be medicine"]
    order += ["hospital 0.70 above chance", "does show anatomy", "thumbnail 0.90 above chance"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_a_bar_stands_where_its_numbers_say() -> None:
    page = probes_page(probe(0.75, 0.5, 1.0))
    rules = [float(a["x1"].rstrip("%")) for a in page.of("line") if a["class"] == "rule"]
    (interval,) = [a for a in page.of("line") if a["class"] == "range"]
    (dot,) = page.of("circle")
    assert len(rules) == 6
    assert float(interval["x1"].rstrip("%")) == rules[0]
    assert float(interval["x2"].rstrip("%")) == rules[-1]
    assert float(dot["cx"].rstrip("%")) == pytest.approx((rules[0] + rules[-1]) / 2)
    np.testing.assert_allclose(np.diff(rules), (rules[-1] - rules[0]) / 5, atol=0.011)


def test_what_lies_below_chance_is_marked_and_never_drawn_off_the_scale() -> None:
    def drawn(*numbers: float) -> tuple[int, int, list[str]]:
        page = probes_page(probe(*numbers))
        (interval,) = [a for a in page.of("line") if a["class"] == "range"]
        first = next(a["x1"] for a in page.of("line") if a["class"] == "rule")
        return len(page.of("path")), len(page.of("circle")), [interval["x1"], first]

    arrows, dots, ends = drawn(0.52, 0.45, 0.6)
    assert (arrows, dots) == (1, 1)
    assert ends[0] == ends[1]
    arrows, dots, ends = drawn(0.4, 0.3, 0.55)
    assert (arrows, dots) == (1, 0)
    assert ends[0] == ends[1]
    arrows, dots, ends = drawn(0.7, 0.6, 0.8)
    assert (arrows, dots) == (0, 1)
    assert ends[0] != ends[1]


@pytest.mark.parametrize(
    ("numbers", "finding"),
    [
        ((0.6, 0.51, 0.7), "0.60 above chance"),
        ((0.6, 0.5, 0.7), "0.60 not above chance"),
        ((0.3, 0.2, 0.4), "0.30 not above chance"),
        ((0.9, None, None), "0.90 no interval"),
        ((0.9, 0.8, float("nan")), "0.90 no interval"),
    ],
)
def test_a_finding_is_said_in_words(
    numbers: tuple[float, float | None, float | None], finding: str
) -> None:
    assert f"image size {finding} " in probes_page(probe(*numbers)).text() + " "


def test_a_bar_can_be_heard() -> None:
    page = probes_page(probe(0.93, 0.89, 0.96))
    (drawing,) = [a for a in page.of("svg") if a.get("role") == "img"]
    assert drawing["aria-label"] == "AUROC 0.930 (95 % CI 0.890 to 0.960), above chance"


def test_the_numbers_behind_the_bars_are_a_table() -> None:
    html = render_audit(
        AuditContent(
            title="t",
            probes=(
                probe(0.9312, 0.89, 0.96, note="a note"),
                probe(None, kind="covariate", name="age", note="no variation"),
            ),
        )
    )
    rows = [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>.*?</tr>", html)
    ]
    assert rows == [
        ["Probe", "Kind", "AUROC", "95 % interval", "n", "Method", "Note"],
        ["image size", "acquisition", "0.931", "0.890 to 0.960", "1,234", "delong", "a note"],
        ["age", "covariate", "not defined", "-", "1,234", "delong", "no variation"],
    ]


@pytest.mark.parametrize("auroc", [None, float("nan")])
def test_what_was_not_judged_has_a_reason_and_no_bar(auroc: float | None) -> None:
    page = probes_page(probe(auroc, note="no variation"))
    assert page.of("svg") == []
    assert "Not judged: image size (no variation)" in page.text()


def test_that_no_probe_was_made_is_said_with_the_reason() -> None:
    page = AuditPage(render_audit(AuditContent(title="t", no_probes="there is one class")))
    assert "Not looked for: there is one class." in page.text()
    assert page.of("table") == []


def test_the_page_can_be_heard() -> None:
    page = AuditPage(render_audit(content()))
    assert all(picture["alt"].strip() for picture in page.of("img"))
    check_it_can_be_heard(page)


def test_the_page_suits_phones_dark_rooms_and_paper() -> None:
    html = render_audit(content())
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert html.count("@media (prefers-color-scheme: dark)") == 2
    assert html.count("@media print") == 2


def test_every_page_says_that_it_is_no_medical_device() -> None:
    assert "Not a medical device" in render_audit(AuditContent(title="t"))


def test_empty_sections_leave_no_heading() -> None:
    page = AuditPage(render_audit(AuditContent(title="t")))
    assert page.of("h2") == page.of("table") == page.of("nav") == []


def test_equal_content_gives_an_equal_page() -> None:
    assert render_audit(content()) == render_audit(content())


def test_forty_groups_and_sixty_odd_films_of_noise_stay_below_five_megabytes() -> None:
    rng = np.random.default_rng(0)
    films = [
        PageFilm(film_png(noise), f"train/{'x' * 200}{place}.png", "a film", "train", "turned")
        for place, noise in enumerate(rng.integers(0, 256, (300, 64, 64), dtype=np.uint8))
    ]
    groups = tuple(FilmGroup("g", tuple(films[6 * k : 6 * k + 6])) for k in range(40))
    odd = FilmGroup("odd", tuple(films[240:]))
    html = render_audit(
        AuditContent(
            title="t", leaks=(Gallery("g", "", groups),), quality=(Gallery("o", "", (odd,)),)
        )
    )
    assert html.count("<img ") == 300
    assert len(html.encode()) < 5_000_000


def test_a_film_is_a_small_png_of_its_pixels_and_nothing_else() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16), dtype=np.uint8)
    png = film_png(pixels)
    assert png == film_png(np.asfortranarray(pixels))
    chunks, place = [], 8
    while place < len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        chunks.append(png[place + 4 : place + 8])
        place += 12 + length
    assert chunks == [b"IHDR", b"IDAT", b"IEND"]
    with Image.open(io.BytesIO(png)) as image:
        assert (image.mode, image.info) == ("L", {})
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), dtype=np.uint8),
        np.zeros((4, 4), dtype=np.float32),
        np.zeros((0, 0), dtype=np.uint8),
    ],
)
def test_what_is_no_film_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 film"):
        film_png(image)


@pytest.mark.parametrize("part", ["leaks", "labels", "quality"])
@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (PageFilm(b"<svg/>", "a", "alt"), "no PNG"),
        (PageFilm(GREY, "a", " "), "alternative text"),
    ],
)
def test_a_film_that_not_all_can_see_is_refused(part: str, bad: PageFilm, why: str) -> None:
    gallery = Gallery("g", "", (FilmGroup("", (film(), bad)),))
    with pytest.raises(ValueError, match=why):
        render_audit(AuditContent(title="t", **{part: (gallery,)}))  # type: ignore[arg-type]


def test_a_probe_of_an_unknown_kind_is_refused_instead_of_left_out() -> None:
    with pytest.raises(ValueError, match="no known kind: 'magic'"):
        probes_page(probe(0.9, kind="magic"))


def test_a_row_of_another_length_is_refused() -> None:
    table = ReportTable("t", ("a",), (("1", "2"),))
    with pytest.raises(ValueError, match="1 columns, a row has 2"):
        render_audit(AuditContent(title="t", summary=(table,)))
