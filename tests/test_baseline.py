"""The baselines in a checkpoint, against scikit-learn on the same 64 features."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from xray_classifier.baseline import Baseline, fit_baseline
from xray_classifier.baseline_comparison import baseline_comparison
from xray_classifier.data.decode import film_from_array
from xray_classifier.data.probe_features import thumbnail_features
from xray_classifier.data.signature import signature_of
from xray_classifier.errors import CheckpointError


def films(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Signatures of noisy films, the sick with a brighter corner, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    signatures = []
    for label in labels:
        picture = rng.normal(120, 40, (32, 32))
        picture[:12, :12] += 5 * label
        film = film_from_array(np.clip(picture, 0, 255).astype(np.uint8))
        signatures.append(signature_of(film, 1000))
    return np.concatenate(signatures), labels


def test_the_regression_is_scikit_learns_and_survives_json() -> None:
    signatures, labels = films(120, 0)
    others, truth = films(80, 1)
    baseline = fit_baseline(signatures, labels)
    assert baseline.prevalence == labels.mean()
    features = thumbnail_features(signatures)
    centre, spread = features.mean(0), features.std(0)
    peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
    peer.fit((features - centre) / spread, labels)
    expected = peer.decision_function((thumbnail_features(others) - centre) / spread)
    np.testing.assert_allclose(baseline.logits(others), expected, atol=1e-4)
    again = Baseline.from_dict(json.loads(json.dumps(baseline.to_dict())))
    np.testing.assert_array_equal(again.logits(others), baseline.logits(others))
    assert roc_auc_score(truth, again.logits(others)) > 0.6


def test_a_broken_baseline_is_a_checkpoint_error() -> None:
    stored = fit_baseline(*films(40, 0)).to_dict()
    for broken in (
        {},
        stored | {"centre": [1.0]},
        stored | {"spread": [0.0] * 64},
        stored | {"prevalence": 1.0},
        stored | {"weights": ["x"] * 64},
        stored | {"intercept": float("inf")},
    ):
        with pytest.raises(CheckpointError, match="baseline"):
            Baseline.from_dict(broken)


def test_a_model_is_held_against_both_baselines() -> None:
    signatures, labels = films(120, 0)
    others, truth = films(100, 2)
    baseline = fit_baseline(signatures, labels)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=100) + 5 * truth
    p = 1 / (1 + np.exp(-logits))
    found = baseline_comparison(baseline, others, truth, logits, p, np.arange(100))
    thumb = roc_auc_score(truth, baseline.logits(others))
    assert found.thumbnail.value == pytest.approx(thumb)
    assert found.gain.value == pytest.approx(roc_auc_score(truth, logits) - thumb)
    assert found.guess_brier == pytest.approx(brier_score_loss(truth, np.full(100, labels.mean())))
    assert found.model_brier == pytest.approx(brier_score_loss(truth, p))
    assert found.gain.ci_low > 0
    assert "the model adds" in found.in_words()


def test_the_words_follow_the_interval_of_the_difference() -> None:
    signatures, labels = films(200, 0)
    baseline = fit_baseline(signatures, labels)
    own = baseline.logits(signatures)
    noise = np.random.default_rng(1).normal(size=200)

    def words(logits: np.ndarray) -> str:
        p = 1 / (1 + np.exp(-logits))
        args = (baseline, signatures, labels, logits, p, np.arange(200))
        return baseline_comparison(*args).in_words()

    assert "BETTER than the model" in words(noise)
    assert "is not shown" in words(own + 0.3 * noise)
    assert (
        "one class only"
        in baseline_comparison(
            baseline, signatures, np.ones(200, int), noise, np.full(200, 0.5), np.arange(200)
        ).in_words()
    )
