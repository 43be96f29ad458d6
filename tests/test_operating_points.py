"""Threshold policies, against a search over every threshold that could matter."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_classifier import operating_points as op
from xray_classifier.confusion import confusion
from xray_classifier.errors import CheckpointError, DataError, UsageError
from xray_classifier.intervals import wilson_interval
from xray_classifier.metrics import decide
from xray_classifier.policies import parse_threshold

FEW = settings(max_examples=100, deadline=None)


@st.composite
def splits(draw):
    """Both classes; probabilities that tie, touch 0 and 1, or differ in the last bit."""
    n = draw(st.integers(2, 25))
    labels = [0, 1, *draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))]
    some = draw(st.lists(st.floats(0, 1), min_size=1, max_size=10))
    levels = [0.0, 1.0, *some, *(float(np.nextafter(p, 1)) for p in some)]
    scores = draw(st.lists(st.sampled_from(levels), min_size=n, max_size=n))
    return np.array(labels), np.array(scores)


def every_outcome(labels, probabilities):
    """(threshold, sensitivity, specificity) at each score, and above the highest."""
    candidates = [*np.unique(probabilities), np.nextafter(probabilities.max(), 2)]
    found = [(t, confusion(labels, probabilities, t)) for t in candidates]
    return [(t, c.sensitivity, c.specificity) for t, c in found]


@pytest.mark.parametrize(
    ("text", "kind", "target", "spelled"),
    [
        ("0.42", "fixed", 0.42, "0.42"),
        (0.42, "fixed", 0.42, "0.42"),
        (np.float64(0.42), "fixed", 0.42, "0.42"),
        (1e-05, "fixed", 1e-05, "1e-05"),
        ("1", "fixed", 1.0, "1.0"),
        (".5", "fixed", 0.5, "0.5"),
        ("0", "fixed", 0.0, "0.0"),
        ("sens=0.95", "sens", 0.95, "sens=0.95"),
        ("spec=0.90", "spec", 0.9, "spec=0.9"),
        (" youden ", "youden", None, "youden"),
    ],
)
def test_a_policy_is_read_and_spelled_back(text, kind, target, spelled):
    policy = parse_threshold(text)
    assert (policy.kind, policy.target, str(policy)) == (kind, target, spelled)
    assert parse_threshold(str(policy)) == policy


@pytest.mark.parametrize(
    "text",
    ["", "auto", "1.01", "-0.1", "nan", "inf", "sens=", "sens=2", "sens=nan", "sens 0.9",
     "ppv=0.9", "Youden", "0.5.1", "1e3", float("nan"), float("inf"), -0.5, 1.5, True],
)  # fmt: skip
def test_anything_else_is_refused_with_the_accepted_forms(text):
    with pytest.raises(UsageError, match=r"0\.42.*sens=0\.95.*spec=0\.90.*youden"):
        parse_threshold(text)


@FEW
@given(splits())
def test_deciding_at_each_threshold_gives_the_stated_values(split):
    labels, probabilities = split
    curve = op.operating_curve(labels, probabilities)
    stated = list(zip(curve.sensitivity, curve.specificity, strict=True))
    for threshold, values in zip(curve.thresholds, stated, strict=True):
        counts = confusion(labels, probabilities, threshold)
        assert (counts.sensitivity, counts.specificity) == values
    assert sorted(set(stated)) == sorted({(s, h) for _, s, h in every_outcome(*split)})
    assert stated[0] == (1.0, 0.0)
    assert stated[-1] == (0.0, 1.0)


@FEW
@given(splits(), st.integers(0, 20))
def test_a_least_sensitivity_is_met_with_the_best_specificity(split, twentieths):
    labels, probabilities = split
    target = twentieths / 20
    policy = parse_threshold(f"sens={target}")
    threshold = op.solve(op.operating_curve(labels, probabilities), policy)
    counts = confusion(labels, probabilities, threshold)
    allowed = [(spec, sens) for _, sens, spec in every_outcome(*split) if sens >= target]
    assert counts.sensitivity >= target
    assert counts.specificity == max(allowed)[0]


@FEW
@given(splits(), st.integers(0, 20))
def test_a_least_specificity_is_met_with_the_best_sensitivity(split, twentieths):
    labels, probabilities = split
    target = twentieths / 20
    policy = parse_threshold(f"spec={target}")
    threshold = op.solve(op.operating_curve(labels, probabilities), policy)
    counts = confusion(labels, probabilities, threshold)
    allowed = [sens for _, sens, spec in every_outcome(*split) if spec >= target]
    assert counts.specificity >= target
    assert counts.sensitivity == max(allowed)


@FEW
@given(splits())
def test_youden_is_the_best_sum_and_of_ties_the_most_sensitive(split):
    labels, probabilities = split
    curve = op.operating_curve(labels, probabilities)
    threshold = op.solve(curve, parse_threshold("youden"))
    counts = confusion(labels, probabilities, threshold)
    n_sick, n_healthy = int(labels.sum()), int((1 - labels).sum())
    found = (counts.tp * n_healthy + counts.tn * n_sick, counts.sensitivity)
    whole = [confusion(labels, probabilities, t) for t, _, _ in every_outcome(*split)]
    assert found == max((c.tp * n_healthy + c.tn * n_sick, c.sensitivity) for c in whole)


def test_a_fixed_threshold_needs_no_curve_point():
    curve = op.operating_curve(np.array([0, 1]), np.array([0.2, 0.8]))
    assert op.solve(curve, parse_threshold(0.123)) == 0.123


def test_thresholds_lie_half_way_between_scores():
    # Sick at 0.4 and 0.8, healthy at 0.2 and 0.6; by hand.
    curve = op.operating_curve(np.array([0, 1, 0, 1]), np.array([0.2, 0.4, 0.6, 0.8]))
    assert curve.thresholds == pytest.approx((0.0, 0.3, 0.5, 0.7, 0.9))
    assert curve.sensitivity == (1.0, 1.0, 0.5, 0.5, 0.0)
    assert curve.specificity == (0.0, 0.5, 0.5, 1.0, 1.0)
    assert op.solve(curve, parse_threshold("sens=0.95")) == pytest.approx(0.3)
    assert op.solve(curve, parse_threshold("spec=0.90")) == pytest.approx(0.7)
    assert op.solve(curve, parse_threshold("youden")) == pytest.approx(0.3)


def test_last_bit_noise_moves_no_image_across():
    rng = np.random.default_rng(0)
    probabilities = rng.random(300)
    labels = (rng.random(300) < probabilities).astype(int)
    curve = op.operating_curve(labels, probabilities)
    shaken = np.clip(probabilities * (1 + rng.choice([-4e-16, 4e-16], 300)), 0, 1)
    for threshold in curve.thresholds[1:-1]:
        assert (decide(shaken, threshold) == decide(probabilities, threshold)).all()


@pytest.fixture(scope="module")
def long_split():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 6000)
    return labels, 1 / (1 + np.exp(-rng.normal(2 * labels - 1, 1.3)))


@pytest.fixture(scope="module")
def long_curve(long_split):
    return op.operating_curve(*long_split)


def test_a_long_curve_is_cut_short_and_stays_true(long_split, long_curve):
    assert 100 < len(long_curve.thresholds) <= op.MAX_POINTS
    for threshold, sensitivity, specificity in zip(
        long_curve.thresholds, long_curve.sensitivity, long_curve.specificity, strict=True
    ):
        counts = confusion(*long_split, threshold)
        assert (counts.sensitivity, counts.specificity) == (sensitivity, specificity)


@pytest.mark.parametrize("target", [0.0, 0.01, 0.5, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 0.999, 1.0])
def test_a_short_curve_answers_usual_targets_as_the_whole_one(long_split, long_curve, target):
    outcomes = every_outcome(*long_split)
    by_sens = confusion(*long_split, op.solve(long_curve, parse_threshold(f"sens={target}")))
    assert by_sens.specificity == max(spec for _, sens, spec in outcomes if sens >= target)
    by_spec = confusion(*long_split, op.solve(long_curve, parse_threshold(f"spec={target}")))
    assert by_spec.sensitivity == max(sens for _, sens, spec in outcomes if spec >= target)


def test_a_short_curve_keeps_the_youden_point(long_split, long_curve):
    counts = confusion(*long_split, op.solve(long_curve, parse_threshold("youden")))
    best = max(sens + spec for _, sens, spec in every_outcome(*long_split))
    assert counts.sensitivity + counts.specificity == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("target", [0.7654, 0.93217, 0.9996])
def test_a_short_curve_still_meets_an_unusual_target(long_split, long_curve, target):
    threshold = op.solve(long_curve, parse_threshold(f"sens={target}"))
    assert target <= confusion(*long_split, threshold).sensitivity <= target + 0.01
    threshold = op.solve(long_curve, parse_threshold(f"spec={target}"))
    assert target <= confusion(*long_split, threshold).specificity <= target + 0.01


def test_a_curve_survives_json_to_the_last_bit(long_curve):
    text = json.dumps(long_curve.to_dict(), allow_nan=False)
    assert op.OperatingCurve.from_dict(json.loads(text)) == long_curve


def damaged(**changes):
    curve = op.operating_curve(np.array([0, 1]), np.array([0.2, 0.8])).to_dict()
    return {**curve, **changes}


@pytest.mark.parametrize(
    "stored",
    [
        {},
        damaged(thresholds=None),
        damaged(thresholds=["x", "y", "z"]),
        damaged(thresholds=[0.0, float("nan"), 0.9]),
        damaged(thresholds=[0.0, 0.5, float("inf")]),
        damaged(thresholds=[0.0, 10**400, 0.9]),
        damaged(thresholds=[-0.5, 0.5, 0.9]),
        damaged(thresholds=[0.5, 0.0, 0.9]),
        damaged(thresholds=[0.0, 0.9]),
        damaged(sensitivity=[1.0, 0.5, 0.5]),
        damaged(specificity=[0.0, 1.5, 1.0]),
        damaged(n_sick=0),
        damaged(n_healthy=10**12),
    ],
)
def test_a_damaged_curve_is_refused(stored):
    with pytest.raises(CheckpointError, match="operating curve"):
        op.OperatingCurve.from_dict(stored)


@pytest.mark.parametrize(("label", "missing"), [(0, "no sick"), (1, "no healthy")])
def test_one_class_has_no_operating_point(label, missing):
    with pytest.raises(DataError, match=missing):
        op.operating_curve(np.full(3, label), np.array([0.1, 0.2, 0.3]))


def test_a_logit_is_not_taken_for_a_probability():
    with pytest.raises(DataError, match="probability"):
        op.operating_curve(np.array([0, 1]), np.array([-1.0, 2.0]))


# Cost, cautious policies, resamples


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("cost=10", "cost=10.0"),
        ("cost=0.5", "cost=0.5"),
        ("sens=0.95@lower95", "sens=0.95@lower95"),
        ("spec=.9@lower95", "spec=0.9@lower95"),
        ("sensitivity >= 0.95", "sens=0.95"),
        ("specificity>=0.9", "spec=0.9"),
    ],
)
def test_the_newer_policies_are_read_and_spelled_back(text, spelled):
    policy = parse_threshold(text)
    assert str(policy) == spelled
    assert parse_threshold(str(policy)) == policy


@pytest.mark.parametrize("text", ["cost=0", "cost=-1", "0.4@lower95", "youden@lower95",
                                  "cost=3@lower95", "sens=0.9@lower90"])  # fmt: skip
def test_what_has_no_lower_end_or_no_price_is_refused(text):
    with pytest.raises(UsageError, match="is no threshold"):
        parse_threshold(text)


@FEW
@given(splits(), st.floats(0.05, 50))
def test_cost_finds_the_cheapest_threshold_and_misses_fewest_among_equals(split, price):
    labels, probabilities = split
    curve = op.operating_curve(labels, probabilities)
    found = confusion(labels, probabilities, op.solve(curve, parse_threshold(f"cost={price}")))
    bills = []
    for threshold, _, _ in every_outcome(*split):
        c = confusion(labels, probabilities, threshold)
        bills.append((price * c.fn + c.fp, c.fn))
    best = min(bill for bill, _ in bills)
    assert price * found.fn + found.fp == pytest.approx(best)


@pytest.mark.parametrize("kind", ["sens", "spec"])
@pytest.mark.parametrize("target", [0.5, 0.8, 0.9])
def test_a_cautious_policy_is_the_best_whose_wilson_interval_lies_above(kind, target):
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 200)
    probabilities = np.clip(rng.normal(0.4 + 0.25 * labels, 0.2), 0, 1)
    curve = op.operating_curve(labels, probabilities)
    threshold = op.solve(curve, parse_threshold(f"{kind}={target}@lower95"))

    def lower(t):
        c = confusion(labels, probabilities, t)
        right = c.tp if kind == "sens" else c.tn
        return wilson_interval(right, 200).low

    assert lower(threshold) >= target - 1e-12
    step = 1 if kind == "sens" else -1
    neighbour = curve.thresholds[curve.thresholds.index(threshold) + step]
    assert lower(neighbour) < target


def test_the_least_share_is_where_the_lower_end_of_wilson_meets_the_target():
    for n in (30, 100, 1000):
        for target in (0.1, 0.5, 0.9):
            share = op.least_share(target, n)
            if share <= 1:
                assert wilson_interval(share * n, n).low == pytest.approx(target, abs=1e-12)


def test_too_few_images_for_a_cautious_policy_are_told_how_many_are_needed():
    labels, probabilities = np.repeat([0, 1], 60), np.linspace(0, 1, 120)
    policy = parse_threshold("sens=0.95@lower95")
    curve = op.operating_curve(labels, probabilities)
    said = op.shortfall(curve, policy)
    assert said is not None
    assert "at least 73" in said
    assert wilson_interval(73, 73).low >= 0.95 > wilson_interval(72, 72).low
    assert confusion(labels, probabilities, op.solve(curve, policy)).fn == 0
    assert op.shortfall(curve, parse_threshold("sens=0.9@lower95")) is None
    assert op.shortfall(curve, parse_threshold("sens=0.95")) is None


def test_patients_not_images_carry_a_cautious_policy():
    labels, probabilities = np.repeat([0, 1], 100), np.linspace(0, 1, 200)
    policy = parse_threshold("sens=0.95@lower95")
    few = op.operating_curve(labels, probabilities, units=op.Units(50, 50))
    assert op.shortfall(op.operating_curve(labels, probabilities), policy) is None
    assert "50 sick patients" in str(op.shortfall(few, policy))
    assert op.OperatingCurve.from_dict(json.loads(json.dumps(few.to_dict()))) == few


@FEW
@given(splits(), st.sampled_from(["youden", "sens=0.8", "spec=0.7", "cost=3"]))
def test_resampled_thresholds_are_those_of_the_repeated_images(split, text):
    labels, probabilities = split
    policy = parse_threshold(text)
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 3, size=(6, len(labels))).astype(float)
    found = op.resampled_thresholds(labels, probabilities, weights, policy)
    for row, threshold in zip(weights, found, strict=True):
        drawn = np.repeat(np.arange(len(labels)), row.astype(int))
        if len(set(labels[drawn].tolist())) < 2:
            assert np.isnan(threshold)
            continue
        own = op.solve(op.operating_curve(labels[drawn], probabilities[drawn]), policy)
        decided = confusion(labels[drawn], probabilities[drawn], threshold)
        assert decided == confusion(labels[drawn], probabilities[drawn], own)
