"""The report page in a real browser: its numbers, its keyboard, its colours, and what it keeps out.

Headless Chromium opens the file from the disk, as a reader would.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from report_parts import THRESHOLD, everything, film, png, scored, tool
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from xray_classifier.estimates import classification_metrics
from xray_classifier.report.error_gallery import ErrorGroup
from xray_classifier.report.page import ReportContent, ReportFigure, ReportTable, render_report
from xray_classifier.report.threshold_tool import threshold_tool

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
]  # fmt: skip
HOSTILE = "<img src=x onerror=\"document.title='run'\">.png"
SCRIPT = "</script><script>document.title='run'</script>"

LABELS, P = scored()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of this file."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


rendered = cache(render_report)


class Opened:
    """A page and everything that went on while it was open."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.stopped: dict[str, str | None] = {}
        page.on("request", lambda request: self.requests.append(request.url))
        page.on(
            "requestfailed", lambda request: self.stopped.update({request.url: request.failure})
        )
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def number(self, name: str) -> float:
        """The exact value behind a number on the page; NaN where it is not defined."""
        value = self.page.locator(f"#{name}").get_attribute("value")
        return float(value) if value else float("nan")

    def words(self, name: str) -> str:
        return self.page.locator(f"#{name}").inner_text()

    def tell(self, name: str, value: str) -> None:
        """Type into a field and leave it."""
        self.page.locator(f"#{name}").fill(value)
        self.page.locator(f"#{name}").press("Tab")

    @property
    def outcome(self) -> list[float]:
        return [self.number(f"t-{name}") for name in ("tn", "fp", "fn", "tp")]


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    """Open a report; afterwards it must have asked for nothing and complained of nothing."""
    seen: list[Opened] = []

    @contextmanager
    def start(content: ReportContent, **settings: Any) -> Iterator[Opened]:
        path = tmp_path / "report.html"
        path.write_text(rendered(content), encoding="utf-8")
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | settings))
        here = Opened(context.new_page(), path.as_uri())
        seen.append(here)
        here.page.goto(here.address)
        yield here
        context.close()

    yield start
    for here in seen:
        assert {url for url in here.requests if not url.startswith("data:image/png")} == {
            here.address
        }
        assert here.complaints == []


def truth(threshold: float) -> list[int]:
    """tn, fp, fn, tp by scikit-learn."""
    return [int(count) for count in confusion_matrix(LABELS, threshold <= P).ravel()]


def test_at_first_it_shows_the_stored_threshold_with_the_numbers_of_metrics_json(
    opened: Any,
) -> None:
    logits = np.log(P / (1 - P))
    metrics = classification_metrics(LABELS, logits, P, THRESHOLD, n_resamples=50)
    with opened(everything()) as here:
        for name in ("sensitivity", "specificity", "ppv", "npv"):
            assert here.number(f"t-{name}") == pytest.approx(metrics[name].value, abs=1e-12)
            assert here.words(f"t-{name}") == f"{100 * metrics[name].value:.1f} %"
        for name in ("sensitivity", "specificity"):
            assert here.number(f"t-{name}-low") == pytest.approx(metrics[name].ci_low, abs=1e-9)
            assert here.number(f"t-{name}-high") == pytest.approx(metrics[name].ci_high, abs=1e-9)
        assert here.outcome == truth(THRESHOLD)
        assert here.words("threshold-state") == "Stored threshold"


def test_the_slider_recounts_at_each_threshold(opened: Any) -> None:
    thresholds = tool().thresholds
    with opened(everything()) as here:
        for place in range(0, len(thresholds), 23):
            here.page.locator("#threshold-slider").fill(str(place))
            tn, fp, fn, tp = truth(thresholds[place])
            assert here.number("threshold-shown") == thresholds[place]
            assert here.outcome == [tn, fp, fn, tp]
            assert here.number("t-sensitivity") == pytest.approx(tp / (tp + fn), abs=1e-12)
            assert here.number("t-specificity") == pytest.approx(tn / (tn + fp), abs=1e-12)
            for name, k, n in (("sensitivity", tp, tp + fn), ("specificity", tn, tn + fp)):
                interval = binomtest(k, n).proportion_ci(method="wilson")
                assert here.number(f"t-{name}-low") == pytest.approx(interval.low, abs=1e-9)
                assert here.number(f"t-{name}-high") == pytest.approx(interval.high, abs=1e-9)
            dot = here.page.locator("#roc-now")
            assert float(dot.get_attribute("cx")) == pytest.approx(200 * fp / (fp + tn))
            assert float(dot.get_attribute("cy")) == pytest.approx(200 * fn / (tp + fn))


def test_ppv_npv_and_the_thousand_follow_the_prevalence(opened: Any) -> None:
    with opened(everything()) as here:
        here.tell("threshold-number", "0.6")
        for prevalence in (0.001, 0.03, 0.5, 0.9):
            here.tell("prevalence-number", str(100 * prevalence))
            check_thousand(here, prevalence)


def check_thousand(here: Opened, prevalence: float) -> None:
    """At a threshold of 0.6, by Bayes' rule in people."""
    tn, fp, fn, tp = truth(0.6)
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    sick, healthy = 1000 * prevalence, 1000 * (1 - prevalence)
    expected = {
        "per-missed": sick * (1 - sensitivity),
        "per-found": sick * sensitivity,
        "per-alarms": healthy * (1 - specificity),
        "per-cleared": healthy * specificity,
    }
    for name, people in expected.items():
        assert here.number(name) == pytest.approx(people, rel=1e-9)
        assert float(here.words(name)) == pytest.approx(people, abs=0.51)
    found, alarms = expected["per-found"], expected["per-alarms"]
    cleared, missed = expected["per-cleared"], expected["per-missed"]
    assert here.number("t-ppv") == pytest.approx(found / (found + alarms), rel=1e-9)
    assert here.number("t-npv") == pytest.approx(cleared / (cleared + missed), rel=1e-9)


def test_the_bar_of_a_thousand_patients_is_to_scale(opened: Any) -> None:
    with opened(everything()) as here:
        here.page.locator("#prevalence-stated").click()
        bars = [here.page.locator(f"#bar-{n}") for n in ("found", "missed", "alarms", "cleared")]
        widths = [float(bar.get_attribute("width").rstrip("%")) for bar in bars]
        starts = [float(bar.get_attribute("x").rstrip("%")) for bar in bars]
        assert sum(widths) == pytest.approx(100, abs=0.01)
        assert widths[0] + widths[1] == pytest.approx(3, abs=0.01)
        assert starts == pytest.approx([0, *np.cumsum(widths)[:3]], abs=0.01)


def test_exploring_is_marked_and_one_button_leads_back(opened: Any) -> None:
    with opened(everything()) as here:
        before = here.outcome
        for elsewhere in ("0.2", "0.9"):
            here.tell("threshold-number", elsewhere)
            assert here.words("threshold-state") == "Exploring"
        assert "The stored threshold is 0.37" in here.words("exploring")
        assert "looks better than it is" in here.words("exploring")
        assert here.outcome != before
        here.page.locator("#threshold-reset").press("Enter")
        assert here.words("threshold-state") == "Stored threshold"
        assert here.outcome == before


def test_a_typed_threshold_decides_as_it_says(opened: Any) -> None:
    with opened(everything()) as here:
        for typed in ("0.123456", "0", "1", "0.37", "0.99951"):
            here.tell("threshold-number", typed)
            assert here.outcome == truth(float(typed))
        here.tell("threshold-number", "")
        assert here.outcome == truth(0.99951)
        here.tell("threshold-number", "7")
        assert here.number("threshold-shown") == 1.0


def test_both_sliders_work_by_keyboard_and_say_where_they_are(opened: Any) -> None:
    thresholds = tool().thresholds
    place = thresholds.index(THRESHOLD)
    with opened(everything()) as here:
        slider = here.page.locator("#threshold-slider")
        slider.focus()
        for key, expected in (
            ("ArrowRight", place + 1), ("ArrowLeft", place), ("ArrowLeft", place - 1),
            ("Home", 0), ("End", len(thresholds) - 1),
        ):  # fmt: skip
            here.page.keyboard.press(key)
            assert here.number("threshold-shown") == thresholds[expected]
        assert slider.get_attribute("aria-valuetext") == "threshold 1"
        here.page.locator("#prevalence-slider").focus()
        here.page.keyboard.press("Home")
        assert here.page.locator("#prevalence-number").input_value() == "0.1"
        here.page.keyboard.press("End")
        assert here.page.locator("#prevalence-number").input_value() == "90"
        aria = here.page.locator("#prevalence-slider").get_attribute("aria-valuetext")
        assert aria == "prevalence 90.0 %"


def test_a_screen_reader_hears_the_outcome_where_the_slider_comes_to_rest(opened: Any) -> None:
    tn, fp, fn, tp = truth(0.8)
    with opened(everything()) as here:
        assert here.page.locator("#threshold-sentence").get_attribute("role") == "status"
        here.tell("prevalence-number", "20")
        here.tell("threshold-number", "0.8")
        place = "threshold of 0.8 and a prevalence of 20.0 %"
        said = f"{place}: of 1,000 patients, {200 * fn / (tp + fn):.0f} sick"
        here.page.wait_for_function(
            "said => document.getElementById('threshold-sentence').textContent.includes(said)",
            arg=said,
        )
        alarms = f"{800 * fp / (fp + tn):.0f} healthy are false alarms"
        assert alarms in here.words("threshold-sentence")


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_not_defined_rather_than_zero(opened: Any, label: int) -> None:
    alone = threshold_tool(np.full(9, label), P[:9], 0.5, policy="fixed", split="test")
    missing, there = ("sensitivity", "specificity")[:: 1 if label == 0 else -1]
    with opened(ReportContent(title="t", threshold_tool=alone)) as here:
        assert here.words(f"t-{missing}") == "not defined"
        assert here.words("t-ppv") == "not defined"
        assert "%" in here.words(f"t-{there}")
        here.page.locator("#threshold-slider").press("End")
        assert here.words("per-missed" if label == 0 else "per-alarms") == "not defined"


def test_a_large_set_is_exact_at_what_is_kept(opened: Any) -> None:
    labels, _ = scored(10_000)
    p = np.random.default_rng(1).beta(0.5, 2.0, 10_000)
    made = threshold_tool(labels, p, 0.123456789, policy="youden", split="test")
    with opened(ReportContent(title="t", threshold_tool=made)) as here:
        for typed in (None, "0.5", "0.333333"):
            if typed is not None:
                here.tell("threshold-number", typed)
            shown = here.number("threshold-shown")
            truth = confusion_matrix(labels, p >= shown).ravel()
            assert here.outcome == [int(count) for count in truth]
        assert shown >= 0.333333


def test_a_page_of_ten_thousand_images_and_many_films_is_small() -> None:
    labels, _ = scored(10_000)
    p = np.random.default_rng(1).random(10_000)
    noise = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    from xray_classifier.report.audit_page import film_png
    from xray_classifier.report.overlay import overlay_png

    case = film()._replace(png=film_png(noise), overlay=overlay_png(noise, noise - 128.0))
    content = replace(
        everything(),
        threshold_tool=threshold_tool(labels, p, 0.5, policy="", split="test"),
        gallery=(ErrorGroup("missed", (case,) * 12), ErrorGroup("alarms", (case,) * 12)),
    )
    assert len(render_report(content).encode()) < 3_500_000  # noise is the worst case for PNG


def test_without_scripts_everything_is_still_there(opened: Any) -> None:
    with opened(everything(), java_script_enabled=False) as here:
        assert here.page.locator("#threshold-table tr.stored").is_visible()
        assert here.page.locator("#threshold-table tbody tr").count() == 10
        assert not here.page.locator("#explorer").is_visible()
        pictures = here.page.locator(".case img")
        assert pictures.count() == 5
        assert all(pictures.nth(i).is_visible() for i in range(5))
        assert not here.page.locator("#film-dialog").is_visible()


def test_a_film_opens_by_keyboard_and_gives_the_focus_back(opened: Any) -> None:
    with opened(everything()) as here:
        page, dialog = here.page, here.page.locator("#film-dialog")
        first = page.locator(".enlarge").first
        assert first.get_attribute("aria-label") == "Enlarge: words alt"
        first.focus()
        page.keyboard.press("Enter")
        assert dialog.is_visible()
        assert page.evaluate(
            "document.getElementById('film-dialog').contains(document.activeElement)"
        )
        assert here.words("film-title") == "words"
        assert here.words("film-words") == "sick, p(sick) 0.031, words"
        assert here.words("film-place") == "1 of 3"
        large, small = dialog.locator("img").bounding_box(), first.bounding_box()
        assert large["width"] > 1.5 * small["width"]
        page.keyboard.press("ArrowRight")
        assert here.words("film-title") == "second.png"
        assert not page.locator("#film-map").is_visible()  # this film has no map
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert here.words("film-place") == "3 of 3"
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert page.evaluate("document.activeElement === document.querySelector('.enlarge')")


def test_the_map_is_shown_and_hidden_for_all_films_that_have_one(opened: Any) -> None:
    with opened(everything()) as here:
        page = here.page
        plain, marked = page.locator(".case .plain"), page.locator(".case .marked")

        def seen(found: Any) -> list[bool]:
            return [found.nth(i).is_visible() for i in range(found.count())]

        assert (seen(plain), seen(marked)) == ([True, True, True], [False, False])
        page.locator("#map-toggle").press("Space")
        assert (seen(plain), seen(marked)) == ([False, True, False], [True, True])
        page.locator(".enlarge").first.click()
        assert page.locator("#film-map").get_attribute("aria-pressed") == "true"
        source = page.locator("#film-holder img").get_attribute("src")
        assert source == marked.first.get_attribute("src")
        page.locator("#film-map").click()
        source = page.locator("#film-holder img").get_attribute("src")
        assert source == plain.first.get_attribute("src")
        page.locator("#film-close").click()
        assert (seen(plain), seen(marked)) == ([True, True, True], [False, False])


@pytest.mark.parametrize(
    "text", [HOSTILE, SCRIPT, "--></style><svg onload=\"document.title='run'\">"]
)
def test_hostile_names_stay_text(opened: Any, text: str) -> None:
    with opened(everything(text)) as here:
        page = here.page
        page.locator(".enlarge").first.click()
        assert here.words("film-title") == text
        assert page.title() == text
        assert page.locator(".path").first.inner_text() == text
        assert page.locator("[onerror], [onload]").count() == 0
        assert page.locator("script:not([type])").count() == 2
        assert page.evaluate("document.querySelectorAll('img:not([src^=data])').length") == 0
        assert here.page.locator("#t-sensitivity").inner_text().endswith("%")


def test_the_policy_stops_a_script_that_got_in(browser: Browser, tmp_path: Path) -> None:
    html = render_report(everything())
    harm = "<script>document.title='run'</script><img src='https://example.org/x.png'>"
    path = tmp_path / "report.html"
    path.write_text(html.replace("</main>", harm + "</main>"), encoding="utf-8")
    page = browser.new_page()
    here = Opened(page, path.as_uri())
    page.goto(here.address)
    assert page.title() == "words"
    assert sum("Content Security Policy" in said for said in here.complaints) == 2
    assert here.stopped == {"https://example.org/x.png": "csp"}
    page.close()


CONTRASTS = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const over = (top, under) => {
    const a = top[3] ?? 1;
    return [0, 1, 2].map((i) => a * top[i] + (1 - a) * under[i]);
  };
  const behind = (node) => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) {
      layers.push(parse(getComputedStyle(n).backgroundColor));
    }
    const base = matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
    return layers.reverse().reduce((under, top) => over(top, under), base);
  };
  const light = (c) => {
    const [r, g, b] = c.map((v) => v / 255).map(
      (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [hi, lo] = [light(a), light(b)].sort((x, y) => y - x);
    return (hi + 0.05) / (lo + 0.05);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || node.closest("script") || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const paper = behind(node);
    const ink = over(parse(node.closest("svg") ? style.fill : style.color), paper);
    found.push([text.slice(0, 40), ratio(ink, paper)]);
  }
  for (const field of document.querySelectorAll("input[type=number]")) {
    const paper = behind(field);
    found.push([field.id, ratio(parse(getComputedStyle(field).color), paper)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(opened: Any, scheme: str) -> None:
    # WCAG 2.2, success criterion 1.4.3: 4.5 to 1
    with opened(everything(), color_scheme=scheme) as here:
        here.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        here.tell("threshold-number", "0.9")
        at_rest = here.page.evaluate(CONTRASTS)
        here.page.locator(".enlarge").first.click()
        enlarged = here.page.evaluate(CONTRASTS)
        assert len(at_rest) > 150
        assert len(enlarged) > len(at_rest)
        assert [item for item in [*at_rest, *enlarged] if item[1] < 4.5] == []


def test_the_two_themes_are_light_and_dark(opened: Any) -> None:
    light = "getComputedStyle(document.body).backgroundColor"
    for scheme, expected in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 24, 28)")):
        with opened(everything(), color_scheme=scheme) as here:
            assert here.page.evaluate(light) == expected
            picture = "getComputedStyle(document.querySelector('figure img')).backgroundColor"
            assert here.page.evaluate(picture) == "rgb(255, 255, 255)"


LONG = "a_very_long_folder_name/" * 6 + "x" * 90 + ".png"


@pytest.mark.parametrize("text", ["words", LONG])
def test_no_page_scrolls_sideways(opened: Any, text: str) -> None:
    with opened(everything(text)) as here:
        here.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for width in (320, 360, 768, 1280):
            here.page.set_viewport_size({"width": width, "height": 740})
            assert here.page.evaluate("document.documentElement.scrollWidth") == width
            here.page.locator(".enlarge").first.press("Enter")
            box = here.page.locator("#film-dialog").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            here.page.keyboard.press("Escape")


def test_what_is_touched_on_a_phone_is_large_enough(opened: Any) -> None:
    # WCAG 2.2, success criterion 2.5.8: 24 by 24 pixels
    with opened(everything(), viewport={"width": 360, "height": 740}) as here:
        targets = here.page.locator("button, input[type=range], input[type=number], nav a")
        boxes = [targets.nth(i).bounding_box() for i in range(targets.count())]
        boxes.append(here.page.locator(".toggle label").bounding_box())
        shown = [box for box in boxes if box is not None]
        assert len(shown) > 15
        assert all(min(box["width"], box["height"]) >= 24 for box in shown)


def test_every_control_has_a_name(opened: Any) -> None:
    with opened(everything()) as here:
        tree = here.page.locator("body").aria_snapshot()
        kinds = "slider|spinbutton|checkbox|button|link|img|region"
        controls = re.findall(rf"^\s*- '?({kinds})\b(.*)$", tree, re.MULTILINE)
        assert {kind for kind, _ in controls} == set(kinds.split("|"))
        assert [kind for kind, rest in controls if not re.match(r' "[^"]', rest)] == []


def test_it_prints_on_a_few_pages_without_controls(opened: Any, tmp_path: Path) -> None:
    with opened(everything()) as here:
        printed = here.page.pdf(path=tmp_path / "report.pdf", format="A4")
        assert printed.startswith(b"%PDF")
        assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 9
        here.page.emulate_media(media="print")
        assert not here.page.locator("#threshold-slider").is_visible()
        assert not here.page.locator("nav").is_visible()
        assert here.page.locator("#t-sensitivity").is_visible()
        assert here.page.locator("pre").is_visible()  # folded on the screen, open on paper


def test_a_page_of_the_old_parts_alone_runs_nothing(opened: Any) -> None:
    content = ReportContent(
        title="t",
        verdict=("words",),
        figures=(ReportFigure("f", png(), "alt"),),
        tables=(ReportTable("t", ("a",), (("1",),)),),
    )
    with opened(content) as here:
        assert here.page.locator("script").count() == 0
        assert here.page.locator("h2").all_inner_texts() == ["Figures", "Data, model and training"]
