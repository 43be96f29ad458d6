"""A leak made on purpose: what it does to the table of films, and that nothing else is touched."""

import numpy as np
import pytest

from xray_classifier.data.phantom_leak import with_leak
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.data.sources import find_phantoms


def test_the_share_asked_for_is_training_films_once_more() -> None:
    plain = find_phantoms(400, 3)
    leaky = with_leak(plain, 0.5, 3)
    splits = np.array(leaky.splits)
    again = np.array(["-again-" in name for name in leaky.ids])
    val, train, test = (splits == name for name in ("val", "train", "test"))
    assert abs(val.mean() - 0.15) < 0.03
    assert abs(test.mean() - 0.15) < 0.03
    assert again.sum() == round(0.5 * val.sum())
    assert not again[~val].any()
    rows = np.array(leaky.phantom_rows)
    assert set(rows[again]) <= set(rows[train])
    assert not set(rows[val & ~again]) & set(rows[train])
    assert not set(rows[test]) & set(rows[~test])


def test_a_copy_has_label_patient_and_pixels_of_the_first_and_a_name_of_its_own() -> None:
    leaky = with_leak(find_phantoms(200, 1), 0.3, 1)
    assert len(set(leaky.ids)) == 200
    assert leaky.patients is not None
    for place in [i for i, name in enumerate(leaky.ids) if "-again-" in name]:
        truth = draw_phantom(1, leaky.phantom_rows[place], size_px=16)
        assert leaky.ids[place].startswith(f"phantom-{leaky.phantom_rows[place]:06d}-again-")
        assert leaky.classes[place] == ("sick" if truth.label else "healthy")
        assert leaky.patients[place] == truth.patient


def test_patients_are_whole_but_for_the_copies() -> None:
    leaky = with_leak(find_phantoms(400, 0), 0.5, 0)
    assert leaky.patients is not None
    home: dict[str, set[str]] = {}
    for name, patient, split in zip(leaky.ids, leaky.patients, leaky.splits, strict=True):
        if "-again-" not in name:
            home.setdefault(patient, set()).add(split)
    assert all(len(splits) == 1 for splits in home.values())


def test_the_same_seed_leaks_the_same_films() -> None:
    plain = find_phantoms(200, 5)
    assert with_leak(plain, 0.4, 5) == with_leak(plain, 0.4, 5)
    assert with_leak(plain, 0.4, 5).ids != with_leak(plain, 0.4, 6).ids
    assert plain.splits == ("",) * 200


def test_at_least_one_film_leaks() -> None:
    leaky = with_leak(find_phantoms(100, 0), 1e-6, 0)
    assert sum("-again-" in name for name in leaky.ids) == 1


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_what_was_done_is_said(share: float) -> None:
    leaky = with_leak(find_phantoms(300, 2), share, 2)
    count = sum("-again-" in name for name in leaky.ids)
    assert any(f"{count} of {leaky.splits.count('val')}" in note for note in leaky.notes)
