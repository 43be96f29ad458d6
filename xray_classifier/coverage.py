"""Nobody vanishes: every image of a split is counted, with an answer or without.

An image that could not be read, or that was referred to a person, is in no sensitivity; were all of
these answered wrongly, what would be left?
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_classifier.answers import REJECTED
from xray_classifier.bootstrap import patient_clusters
from xray_classifier.estimates import Estimate, share_estimate
from xray_classifier.gate import REASONS
from xray_classifier.metrics import BoolArray, ratio
from xray_classifier.operating_estimates import estimate_json


@dataclass(frozen=True)
class Coverage:
    """What became of all images of a split, and what the rest is worth at worst.

    Attributes:
        n: Images of the split.
        unread: Images without an answer because they cannot be used, by reason code.
        n_referred: Images whose answer is "refer".
        answered: Sensitivity and specificity among images called sick or healthy.
        worst_case: The same over all images, every one without such an answer counted as wrong.
    """

    n: int
    unread: Mapping[str, int]
    n_referred: int
    answered: Mapping[str, Estimate]
    worst_case: Mapping[str, Estimate]

    @property
    def n_unread(self) -> int:
        """Images that could not be used."""
        return sum(self.unread.values())

    @property
    def n_answered(self) -> int:
        """Images called sick or healthy."""
        return self.n - self.n_unread - self.n_referred

    @property
    def complete(self) -> bool:
        """Whether every image was called sick or healthy."""
        return self.n_answered == self.n

    def to_dict(self) -> dict[str, Any]:
        """The content of `coverage` in metrics.json."""
        no_failure = {*REJECTED, *REASONS}
        rejected = sum(count for reason, count in self.unread.items() if reason in no_failure)
        return {
            "n": self.n,
            "answered": self.n_answered,
            "referred": self.n_referred,
            "rejected": rejected,
            "failed": self.n_unread - rejected,
            "reasons": dict(sorted(self.unread.items())),
            "share_answered": ratio(self.n_answered, self.n),
            "among_answered": {name: estimate_json(e) for name, e in self.answered.items()},
            "worst_case": {name: estimate_json(e) for name, e in self.worst_case.items()},
        }


def coverage(
    targets: NDArray[np.float64],
    called_sick: BoolArray,
    answered: BoolArray,
    reasons: Sequence[str],
    groups: NDArray[Any] | None,
) -> Coverage:
    """Count every image of a split.

    Args:
        targets: Truth per image, shape (n,); 1 is sick, 0 is healthy; those without an answer too.
        called_sick: The decision, shape (n,); read only where `answered`.
        answered: Called sick or healthy, shape (n,).
        reasons: Why an image cannot be used, length n; `` for one that can.
        groups: Patient of each image, shape (n,), as in `patient_clusters`, or None.

    Source:
        Bossuyt et al. 2015 (STARD), doi:10.1136/bmj.h5527, items 15 and 16; the worst case as in
        Schuetz et al. 2012, doi:10.1136/bmj.e6717.
    """
    clusters = patient_clusters(groups, len(targets))
    sick = targets == 1
    right = answered & (called_sick == sick)
    unread = Counter(reason for reason in reasons if reason)
    classes = {"sensitivity": sick, "specificity": ~sick}
    return Coverage(
        n=len(targets),
        unread=unread,
        n_referred=len(targets) - int(answered.sum()) - unread.total(),
        answered={k: share_estimate(right, of & answered, clusters) for k, of in classes.items()},
        worst_case={k: share_estimate(right, of, clusters) for k, of in classes.items()},
    )
