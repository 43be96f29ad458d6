"""JPEG films decoded at a fraction of their size, and which answers must not hang on that.

A JPEG holds cosine transforms of 8 x 8 blocks, from which a picture of a half, a quarter or an
eighth of the size is had in less time than the picture itself. It is not the mean of the pixels,
nor does a network see quite the same. Measured on 205 films of about 1300 x 1000 px, at three times
the side that the network sees: p_sick moves by at most 0.0041 at 64 px and 0.0010 at 224 px, no
decision changes (`data.image.intensity: equalize`; levels of 0 to 255 move by 0.46 and 0.16, one
standard deviation). So a film is decoded again, in full, where several times that could change its
decision. Perceptual hashes move by 1.3 bits of 256 on the mean, by 12 at most.
"""

from typing import Any

from xray_classifier.answers import OK
from xray_classifier.classifier import Classifier

OVERSAMPLING = 3
"""Sides of a reduced film are at least this many times what the network sees."""

LEAST_PX = 128
"""Shortest side of a reduced film for small networks: what a perceptual hash is taken of."""

MARGIN = 0.02
"""Distance in p_sick from a decision's edge that is decoded in full."""

NEAR_THE_GATE = (0.9, 1.1)
"""Values of `ood_score` that are decoded in full: the gate refuses above 1."""


def least_px(classifier: Classifier) -> int:
    """Shortest side of a reduced film, in pixels."""
    return max(LEAST_PX, OVERSAMPLING * classifier.size_px)


def hangs_on_details(row: tuple[Any, ...], classifier: Classifier, refuses: bool) -> bool:
    """Whether a film decoded in full could get another status or decision.

    Args:
        row: Of a film that could be decoded; its columns are those of the classifier.
        classifier: What answered.
        refuses: Whether the gate refuses strange films rather than telling of them.
    """
    said = dict(zip(classifier.columns, row, strict=True))
    low, high = NEAR_THE_GATE
    if refuses and (said["status"] != OK or low < said["ood_score"] < high):
        return True
    if classifier.task == "regress":
        return False
    edges = [classifier.threshold]
    if classifier.refer is not None:
        edges += [classifier.refer.low, classifier.refer.high]
    return any(abs(said["p_sick"] - edge) < MARGIN for edge in edges)
