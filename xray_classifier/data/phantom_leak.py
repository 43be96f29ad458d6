"""A leak made on purpose: phantoms of the training split once more in the validation split."""

from dataclasses import replace

import numpy as np

from xray_classifier.data.sources import Found
from xray_classifier.data.splits import carve

VAL, TEST = 0.15, 0.15
"""Shares of the splits that leaking phantoms bring; an ordinary series brings none."""


def with_leak(found: Found, leak: float, seed: int) -> Found:
    """The same series with splits, some validation films replaced by films of the training split.

    The second copy has a name of its own, and label, patient and pixels of the first. The test
    split is left as it should be, so that it can tell what the leak was worth.

    Args:
        found: Phantoms without splits.
        leak: Share in (0, 1) of the validation films to replace.
        seed: Which films.

    Raises:
        DataError: There are too few patients to fill three splits.
    """
    patients = found.patients or found.ids
    splits = carve(patients, found.classes, found.splits, val=VAL, test=TEST, seed=seed)
    rng = np.random.default_rng(seed)
    val, train = (np.flatnonzero(np.array(splits) == name) for name in ("val", "train"))
    places = rng.permutation(val)[: max(1, round(leak * len(val)))].tolist()
    origins = rng.choice(train, len(places), replace=len(places) > len(train)).tolist()
    source = list(range(len(found.ids)))
    names = list(found.ids)
    for number, (place, origin) in enumerate(zip(places, origins, strict=True)):
        source[place] = origin
        names[place] = f"{found.ids[origin]}-again-{number:04d}"
    return replace(
        found,
        ids=tuple(names),
        classes=tuple(found.classes[row] for row in source),
        patients=tuple(patients[row] for row in source),
        phantom_rows=tuple(found.phantom_rows[row] for row in source),
        splits=splits,
        notes=(
            *found.notes,
            f"data.phantoms.leak: {len(places)} of {len(val)} validation films are training films "
            "once more, on purpose",
        ),
    )
