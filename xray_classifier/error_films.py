"""The worst errors of a judged split as films, with what the answer rests on in colour."""

import numpy as np
from numpy.typing import NDArray

from xray_classifier.classifier import Classifier
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.splits import CLASS_NAMES
from xray_classifier.judgement import Judgement
from xray_classifier.occlusion import occlusion_maps
from xray_classifier.report.audit_page import film_png
from xray_classifier.report.error_gallery import ErrorFilm, ErrorGroup
from xray_classifier.report.overlay import overlay_png

MAPS = (
    "The maps show by how much the logit changes where a square of the film is covered (Zeiler & "
    "Fergus 2014): what the answer rests on, not where a disease is."
)


def error_groups(
    judgement: Judgement, classifier: Classifier, radiographs: Radiographs, most: int
) -> tuple[ErrorGroup, ...]:
    """Missed sick images and false alarms at the threshold, those furthest from it first.

    Args:
        judgement: Of a classifier.
        classifier: The model.
        radiographs: The images.
        most: Films of each kind; 0 shows none.
    """
    if not most:
        return ()
    p, sick = judgement.scores.p_sick, judgement.targets == 1
    called = judgement.scores.sick
    missed = np.flatnonzero(sick & ~called)
    alarms = np.flatnonzero(~sick & called)
    missed = missed[np.argsort(p[missed], kind="stable")]
    alarms = alarms[np.argsort(-p[alarms], kind="stable")]
    kinds = (("Sick, called healthy", missed), ("Healthy, called sick", alarms))
    return tuple(
        ErrorGroup(
            title,
            _films(judgement, classifier, radiographs, places[:most]),
            max(len(places) - most, 0),
            MAPS if title == kinds[0][0] else "",
        )
        for title, places in kinds
        if len(places)
    )


def _films(
    judgement: Judgement,
    classifier: Classifier,
    radiographs: Radiographs,
    places: NDArray[np.int64],
) -> tuple[ErrorFilm, ...]:
    """Films of some of the images judged, given by their places among these."""
    rows = judgement.rows[places]
    images = np.ascontiguousarray(radiographs.images[rows])
    maps = occlusion_maps(classifier, images)
    limit = float(np.abs(maps).max()) or None
    return tuple(
        ErrorFilm(
            png=film_png(image),
            overlay=overlay_png(image, heat, limit=limit),
            caption=radiographs.manifest.ids[row],
            p_sick=float(judgement.scores.p_sick[place]),
            label=CLASS_NAMES[int(judgement.targets[place])],
            alt=_alt(judgement, place),
            note=_note(judgement, place),
        )
        for place, row, image, heat in zip(
            places.tolist(), rows.tolist(), images, maps, strict=True
        )
    )


def _alt(judgement: Judgement, place: int) -> str:
    label = CLASS_NAMES[int(judgement.targets[place])]
    return f"Film labelled {label}, p_sick {judgement.scores.p_sick[place]:.3f}"


def _note(judgement: Judgement, place: int) -> str:
    """Whether the film is referred, and whether the model knows it from its training."""
    known = {"yes": "in the training data", "possible": "may be in the training data"}
    seen = judgement.familiar
    notes = ["referred to a person"] if judgement.scores.referred[place] else []
    notes.append("" if seen is None else known.get(seen.images[place], ""))
    return ", ".join(filter(None, notes))
