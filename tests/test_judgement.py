"""What is said about a judged split, and the files and pictures that it leaves."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import TINY, film, rows_in, tiny_run

from xray_classifier.classifier import Classifier, load_classifier
from xray_classifier.config_file import load_config
from xray_classifier.data.loading import Radiographs, run_loading
from xray_classifier.errors import DataError
from xray_classifier.estimate_words import with_interval
from xray_classifier.judgement import Judgement, judge
from xray_classifier.judgement_files import judgement_figures, write_judgement
from xray_classifier.judgement_table import prediction_table
from xray_classifier.judgement_words import in_words
from xray_classifier.run_curves import LossCurves
from xray_classifier.terminal import Terminal

__all__ = ["tiny_run"]


@pytest.fixture
def classifier(tiny_run: Path) -> Classifier:
    """The tiny run's model."""
    return load_classifier(tiny_run, "cpu")


@pytest.fixture
def radiographs(tiny_run: Path) -> Radiographs:
    """The tiny run's images."""
    return run_loading(load_config(tiny_run).config.data, "classify", Terminal(quiet=True))


def test_the_words_are_the_numbers(classifier: Classifier, radiographs: Radiographs) -> None:
    j = judge(classifier, radiographs, "test", own=True)
    words = "\n".join(in_words(j))
    called = j.scores.p_sick >= j.threshold
    sick = j.targets == 1
    missed, alarms = int((sick & ~called).sum()), int((~sick & called).sum())
    assert (
        f"the test split: 25 images, {int((~sick).sum())} healthy and {int(sick.sum())} sick"
        in words
    )
    assert f"{missed} sick images missed of {int(sick.sum())}" in words
    assert f"{alarms} false alarms among {int((~sick).sum())} healthy" in words
    assert f"AUROC {j.estimates['auroc'].value:.3f}" in words
    assert "too good" not in words
    assert "are few" in words


def test_the_split_that_chose_the_threshold_says_so(
    classifier: Classifier, radiographs: Radiographs
) -> None:
    assert "too good" in "\n".join(in_words(judge(classifier, radiographs, "val", own=True)))


def test_auroc_and_calibration_lead_and_f1_and_mcc_come_last(
    classifier: Classifier, radiographs: Radiographs
) -> None:
    names = list(judge(classifier, radiographs, "test", own=True).estimates)
    assert names[0] == "auroc"
    assert {"brier", "ece"} <= set(names[:4])
    assert names[-2:] == ["f1", "mcc"]


def test_an_image_that_cannot_be_read_is_in_no_metric_but_in_the_table(
    classifier: Classifier, radiographs: Radiographs
) -> None:
    rows = radiographs.rows("test")
    reasons = list(radiographs.reasons)
    reasons[rows[3]] = "truncated"
    damaged = replace(radiographs, reasons=tuple(reasons))
    j = judge(classifier, damaged, "test", own=True)
    assert len(j.rows) == 24
    assert j.unscored == (int(rows[3]),)
    table = rows_in(prediction_table(j, damaged, classifier))
    assert [row["path"] for row in table] == [radiographs.manifest.ids[row] for row in rows]
    assert table[3]["p_sick"] == table[3]["decision"] == ""
    undamaged = judge(classifier, radiographs, "test", own=True)
    whole = rows_in(prediction_table(undamaged, radiographs, classifier))
    assert [r for k, r in enumerate(table) if k != 3] == [r for k, r in enumerate(whole) if k != 3]


def test_a_split_without_readable_images_is_a_data_error(
    classifier: Classifier, radiographs: Radiographs
) -> None:
    blind = replace(radiographs, reasons=("truncated",) * len(radiographs.reasons))
    with pytest.raises(DataError, match="no readable image"):
        judge(classifier, blind, "test", own=True)


def test_the_same_seed_gives_the_same_intervals(
    classifier: Classifier, radiographs: Radiographs
) -> None:
    one, two = (
        judge(classifier, radiographs, "test", own=True, seed=3).metrics_json() for _ in range(2)
    )
    assert one == two


def judged(classifier: Classifier, radiographs: Radiographs) -> Judgement:
    """The test split."""
    return judge(classifier, radiographs, "test", own=True)


def test_every_file_is_written_and_every_picture_is_one(
    classifier: Classifier, radiographs: Radiographs, tmp_path: Path
) -> None:
    written = write_judgement(tmp_path, judged(classifier, radiographs), classifier, radiographs)
    assert sorted(tmp_path.iterdir()) == sorted(written)
    pictures = [path for path in written if path.suffix == ".png"]
    assert sorted(path.stem for path in pictures) == [
        "confusion", "decision", "precision_recall", "reliability", "risk_coverage", "roc",
        "scores",
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for path in pictures:
        assert base64.b64encode(path.read_bytes()).decode() in page
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"']*", "", page), re.IGNORECASE)


def test_loss_curves_are_shown_where_the_run_is_at_hand(
    classifier: Classifier, radiographs: Radiographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_roc_figure", "_precision_recall_figure", "_reliability_figure",
                 "_confusion_figure", "_score_figure", "_decision_figure",
                 "_coverage_figure"):  # fmt: skip
        monkeypatch.setattr(f"xray_classifier.report_figures.{name}", lambda j: "drawn")
    j = judged(classifier, radiographs)
    assert "loss_curves.png" not in judgement_figures(j, None)
    for tested in (False, True):
        picture = judgement_figures(j, LossCurves(b"\x89PNG", tested))["loss_curves.png"]
        assert picture.png == b"\x89PNG"
        assert ("not used for any choice" in picture.alt) == tested


def test_an_undefined_value_is_called_undefined(
    classifier: Classifier, radiographs: Radiographs
) -> None:
    everyone_sick = replace(
        radiographs, manifest=replace(radiographs.manifest, targets=np.ones(160))
    )
    j = judge(classifier, everyone_sick, "test", own=True)
    assert with_interval(j.estimates["auroc"]) == "undefined"
    assert "nan" not in "\n".join(in_words(j)).lower()
    assert any("only one class" in warning for warning in j.warnings)


def test_hostile_paths_are_inert_in_table_and_report(
    classifier: Classifier, radiographs: Radiographs, tmp_path: Path
) -> None:
    nasty = ("=1+1", "<script>alert(1)</script>", "a\nb")
    ids = (*nasty, *radiographs.manifest.ids[3:])
    splits = ("test",) * 160
    hostile = replace(
        radiographs, manifest=replace(radiographs.manifest, ids=ids, splits=splits, patients=ids)
    )
    j = judge(classifier, hostile, "test", own=True)
    table = rows_in(prediction_table(j, hostile, classifier))
    assert [row["path"] for row in table[:3]] == ["'=1+1", *nasty[1:]]
    write_judgement(tmp_path, j, classifier, hostile)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page


def test_the_judged_pixels_are_those_of_the_run(radiographs: Radiographs) -> None:
    assert "data.image.size=16" in TINY
    assert radiographs.images.shape == (160, 16, 16)
    assert film(0).dtype == radiographs.images.dtype
