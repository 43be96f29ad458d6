"""The refer band and the risk-coverage curve, against a search over every pair of cuts."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier.errors import CheckpointError
from xray_classifier.refer import ReferBand, error_with_band, risk_coverage, solve_band


def every_band(labels, probabilities, threshold):
    """(answered, wrong, missed) for each low <= threshold <= high that changes anything."""
    cuts = [0.0, *np.unique(probabilities), np.nextafter(probabilities.max(), 2), threshold]
    for low in [c for c in cuts if c <= threshold]:
        for high in [c for c in cuts if c >= threshold]:
            healthy, sick = probabilities < low, probabilities >= high
            missed = int((labels[healthy] == 1).sum())
            wrong = missed + int((labels[sick] == 0).sum())
            yield int(healthy.sum() + sick.sum()), wrong, missed


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.05, 0.1, 0.3]),
)
def test_the_band_refers_as_few_as_any_band_that_is_right_enough(rows, threshold, target):
    labels = np.array([row[0] for row in rows])
    probabilities = np.array([row[1] for row in rows])
    band = solve_band(labels, probabilities, threshold, target)
    good = [
        (-answered, wrong, missed)
        for answered, wrong, missed in every_band(labels, probabilities, threshold)
        if answered and wrong <= target * answered
    ]
    assert band.low <= threshold <= band.high
    assert band.met == bool(good)
    referred = band.inside(probabilities)
    if not good:
        assert referred.all()
        return
    answered = int((~referred).sum())
    wrong = (probabilities >= threshold)[~referred] != (labels == 1)[~referred]
    missed = int(((labels == 1) & (probabilities < threshold) & ~referred).sum())
    assert (-answered, int(wrong.sum()), missed) == min(good)
    assert band.share_referred == pytest.approx(referred.mean())
    assert band.error == pytest.approx(wrong.mean())
    assert error_with_band(labels, probabilities, band, threshold) == pytest.approx(wrong.mean())


def test_many_images_are_cut_at_512_places_and_still_meet_the_target():
    rng = np.random.default_rng(0)
    labels = (rng.random(5000) < 0.5).astype(int)
    probabilities = 1 / (1 + np.exp(-rng.normal(2 * labels - 1, 1.0)))
    band = solve_band(labels, probabilities, 0.5, 0.05)
    wide = solve_band(labels, probabilities, 0.5, 0.02)
    assert error_with_band(labels, probabilities, band, 0.5) <= 0.05
    assert band.share_referred < wide.share_referred < 1


def test_a_band_survives_json_and_a_broken_one_is_refused():
    band = solve_band(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.6, 0.9]), 0.5, 0.0)
    assert ReferBand.from_dict(json.loads(json.dumps(band.to_dict()))) == band
    for broken in ({}, band.to_dict() | {"low": 0.9, "high": 0.1}, band.to_dict() | {"low": "x"}):
        with pytest.raises(CheckpointError, match="refer band"):
            ReferBand.from_dict(broken)


def test_risk_and_coverage_by_hand():
    labels = np.array([1, 0, 1, 0, 1])
    # distances from one half on the logit scale: 0.9 and 0.1 alike, then 0.7 and 0.3, then 0.4
    probabilities = np.array([0.9, 0.1, 0.3, 0.7, 0.4])
    curve = risk_coverage(labels, probabilities, 0.5)
    np.testing.assert_allclose(curve.coverage, [2 / 5, 4 / 5, 1])
    np.testing.assert_allclose(curve.error, [0, 2 / 4, 3 / 5])


def test_a_probability_of_exactly_zero_or_one_is_the_surest():
    curve = risk_coverage(np.array([0, 1, 1]), np.array([0.0, 1.0, 0.6]), 0.5)
    np.testing.assert_allclose(curve.coverage, [2 / 3, 1])
    np.testing.assert_allclose(curve.error, [0, 0])
