"""The files of a judged split: metrics, predictions, pictures, the report page, the model card."""

from pathlib import Path

from xray_classifier.classifier import Classifier, run_of
from xray_classifier.data.loading import Radiographs
from xray_classifier.files import write_bytes, write_json, write_text
from xray_classifier.judgement import Judgement
from xray_classifier.judgement_table import prediction_table
from xray_classifier.markdown import was_edited
from xray_classifier.model_card import CARD_NAME, model_card
from xray_classifier.report.page import render_report
from xray_classifier.report_content import report_content
from xray_classifier.report_figures import judgement_figures
from xray_classifier.run_curves import LossCurves
from xray_classifier.run_facts import read_facts

FILMS = 8
"""Errors of each kind that a page shows as films."""


def write_judgement(
    folder: Path,
    judgement: Judgement,
    classifier: Classifier,
    radiographs: Radiographs,
    predictions_name: str = "predictions.csv",
    curves: LossCurves | None = None,
    films: int = FILMS,
) -> list[Path]:
    """Write metrics.json, the predictions, figures, report.html and model_card.md into a folder.

    Args:
        folder: Exists.
        judgement: What was judged.
        classifier: The model.
        radiographs: The images.
        predictions_name: File name of the predictions.
        curves: The run's loss curves; None where the run is not at hand.
        films: Errors of each kind to show as films on the page; 0 shows none.

    Returns:
        The files written.
    """
    write_json(folder / "metrics.json", judgement.metrics_json())
    table = prediction_table(judgement, radiographs, classifier)
    write_text(folder / predictions_name, table)
    pictures = judgement_figures(judgement, curves)
    drawn = (folder / "curves.png").exists()  # by the run itself
    names = [
        n for n, picture in pictures.items() if not (drawn and curves and picture.png is curves.png)
    ]
    for name in names:
        write_bytes(folder / name, pictures[name].png)
    found = tuple(pictures.values())
    page = render_report(report_content(judgement, classifier, radiographs, found, films))
    write_text(folder / "report.html", page)
    written = [folder / n for n in ("metrics.json", predictions_name, *names, "report.html")]
    card = folder / CARD_NAME
    if run_of(classifier.path) is not None and not was_edited(card):
        write_text(card, model_card(read_facts(folder, classifier.path)))
        written.append(card)
    return written
