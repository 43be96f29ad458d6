"""The page of a real evaluation in a real browser, held against its metrics.json and its table."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix
from test_report_browser import Opened, browser
from tiny_runs import Program, program, rows_of, tiny_run

__all__ = ["browser", "program", "tiny_run"]


def test_the_slider_tells_what_metrics_json_and_the_predictions_tell(
    tiny_run: Path, tmp_path: Path, program: Program, browser: object
) -> None:
    out = tmp_path / "judged"
    program("evaluate", tiny_run, "-o", out, "--what-if", "usual", "--prevalence", "0.05")
    metrics = json.loads((out / "metrics.json").read_text())
    context = browser.new_context()  # type: ignore[attr-defined]
    page = context.new_page()
    here = Opened(page, (out / "report.html").as_uri())
    page.goto(here.address)
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        assert here.number(f"t-{name}") == pytest.approx(metrics["metrics"][name]["value"])
    rows = rows_of(out / "predictions.csv")
    truth = np.array([row["label"] == "sick" for row in rows])
    p = np.array([float(row["p_sick"]) for row in rows])
    places = int(page.locator("#threshold-slider").get_attribute("max"))
    for place in (0, places // 3, places // 2, places):
        page.locator("#threshold-slider").fill(str(place))
        cut = here.number("threshold-shown")
        expected = confusion_matrix(truth, p >= cut, labels=[False, True]).ravel()
        assert here.outcome == expected.tolist()
    assert here.complaints == []
    assert {url for url in here.requests if not url.startswith("data:")} == {here.address}
    context.close()


@pytest.mark.parametrize("threshold", ["auto", "0.3"])
def test_tiles_and_slider_round_alike(
    tiny_run: Path, tmp_path: Path, program: Program, browser: object, threshold: str
) -> None:
    out = tmp_path / "judged"
    program("evaluate", tiny_run, "-o", out, "--threshold", threshold)
    context = browser.new_context()  # type: ignore[attr-defined]
    page = context.new_page()
    page.goto((out / "report.html").as_uri())
    if threshold == "auto":
        tiles = page.locator(".keys .value").all_inner_texts()
        live = [page.locator(f"#t-{name}").inner_text() for name in ("sensitivity", "specificity")]
        assert all(text.strip() in [tile.strip() for tile in tiles] for text in live)
    else:
        assert "Exploratory: the threshold 0.3" in page.inner_text("body")
    context.close()
