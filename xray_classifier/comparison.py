"""Several models on the same images: how far they differ, and whether that may be chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xray_classifier.bootstrap import bootstrap_values, percentile_interval
from xray_classifier.clustered_auroc import auroc_difference, clustered_interval
from xray_classifier.compared_images import HEALTHY, NO_ANSWER, SICK, SharedImages
from xray_classifier.estimates import Estimate
from xray_classifier.intervals import Interval
from xray_classifier.mcnemar import McNemarTest, mcnemar_test, paired_difference_interval
from xray_classifier.metrics import BoolArray, FloatArray, auroc, mae, ratio
from xray_classifier.weighted import weighted_mae

DECIDED = ("accuracy", "sensitivity", "specificity")


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two models on the same images; NaN where undefined.

    Attributes:
        first: The metric of the first model.
        second: That of the second.
        value: second - first.
        ci_low: Lower end of the interval of `value`.
        ci_high: Upper end.
        ci_method: delong, obuchowski, newcombe, bootstrap or patient_bootstrap.
        p_value: Two-sided.
        p_holm: The same, corrected for all pairs of this comparison.
        method: The test: delong, obuchowski, a method of `McNemarTest`, or as `ci_method`.
        n: Images it rests on.
        n_patients: Patients they show.
        mcnemar: What is behind a difference in decisions; None for other metrics.
    """

    first: float
    second: float
    value: float
    ci_low: float
    ci_high: float
    ci_method: str
    p_value: float
    p_holm: float
    method: str
    n: int
    n_patients: int
    mcnemar: McNemarTest | None = None


@dataclass(frozen=True)
class Pair:
    """Two models compared.

    Attributes:
        first: Place of the first among the models.
        second: Place of the second.
        differences: By metric: auroc and DECIDED, or mae.
        n_differing: Images on which they decide differently, each at its own threshold.
        n_referred: Images that either leaves to a person; they are decided here all the same.
        n_trained_on: Images that certainly trained either.
        without: `differences` without those; None where there are none, or no others.
    """

    first: int
    second: int
    differences: Mapping[str, Difference]
    n_differing: int
    n_referred: int
    n_trained_on: int
    without: Mapping[str, Difference] | None

    @property
    def leading(self) -> str:
        """The metric that the pair is judged by: auroc, or accuracy with one class, or mae."""
        if "mae" in self.differences:
            return "mae"
        return "accuracy" if math.isnan(self.differences["auroc"].value) else "auroc"


@dataclass(frozen=True)
class Standing:
    """One model on the shared images.

    Attributes:
        place: Among the models.
        leading: auroc, or mae, with its interval.
        shares: DECIDED, over the images that it decides itself; empty for regression.
        n_referred: Images that it refers.
    """

    place: int
    leading: Estimate
    shares: Mapping[str, float]
    n_referred: int


@dataclass(frozen=True)
class Comparison:
    """Several models on the same images.

    Attributes:
        images: What they were compared on.
        standings: All models, best first.
        pairs: With two models these two as given, else the best with each other model.
    """

    images: SharedImages
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]


def compare(
    images: SharedImages, seed: int = 0, n_resamples: int = 2000, level: float = 0.95
) -> Comparison:
    """Compare models on the images they share.

    AUROC: DeLong, or Obuchowski's form where patients repeat. Decisions, each model at its own
    threshold: McNemar with Newcombe's interval, or clustered McNemar with a bootstrap over
    patients. Regression: a bootstrap over patients of the difference in mean absolute error.

    Args:
        images: Of two or more models.
        seed: Of the bootstrap.
        n_resamples: Bootstrap resamples.
        level: Confidence, in (0, 1).
    """
    found = [_standing(images, k, seed, n_resamples, level) for k in range(len(images.scores))]
    standings = tuple(sorted(found, key=_worth))
    order = [standing.place for standing in standings]
    couples = [(0, 1)] if len(order) == 2 else [(order[0], other) for other in order[1:]]
    pairs = [_pair(images, *couple, seed, n_resamples, level) for couple in couples]
    n_models = len(order)
    return Comparison(images, standings, _corrected(pairs, n_models * (n_models - 1) // 2))


def _standing(images: SharedImages, k: int, seed: int, n_resamples: int, level: float) -> Standing:
    n = len(images)
    if images.task == "regress":
        target, values = images.targets, images.scores[k]
        draws = bootstrap_values(
            lambda weights: weighted_mae(target, values, weights),
            images.clusters, n_resamples, seed,
        )  # fmt: skip
        interval = percentile_interval(draws, level)
        error = Estimate(mae(target, values), *interval, _resampling(images), n)
        return Standing(k, error, {}, 0)
    labels = images.targets.astype(np.int64)
    interval = clustered_interval(labels, images.scores[k], images.clusters, level)
    method = "obuchowski" if images.patients_repeat else "delong"
    area = auroc(labels, images.scores[k])
    method = "extreme_auroc" if area in (0.0, 1.0) else method
    decided = images.decisions[k] != NO_ANSWER
    right = images.decisions[k] == labels
    shares = {
        name: ratio(int(right[decided & among].sum()), int((decided & among).sum()))
        for name, among in _among(images).items()
    }
    return Standing(k, Estimate(area, *interval, method, n), shares, int(images.referred[k].sum()))


def _worth(standing: Standing) -> tuple[float, float, int]:
    """Sorts the best to the front, undefined values to the back."""
    value = standing.leading.value if not standing.shares else -standing.leading.value
    accuracy = standing.shares.get("accuracy", 0.0)
    return (
        math.inf if math.isnan(value) else value,
        math.inf if math.isnan(accuracy) else -accuracy,
        standing.place,
    )


def _among(images: SharedImages) -> dict[str, BoolArray]:
    """Which images each of DECIDED is a share of, each shape (n,)."""
    sick = images.targets == SICK
    return {
        "accuracy": np.ones(len(images), dtype=np.bool_),
        "sensitivity": sick,
        "specificity": images.targets == HEALTHY,
    }


def _resampling(images: SharedImages) -> str:
    return "patient_bootstrap" if images.patients_repeat else "bootstrap"


def _pair(images: SharedImages, i: int, j: int, seed: int, n_resamples: int, level: float) -> Pair:
    known = images.trained_on[i] | images.trained_on[j]
    without = None
    if known.any() and not known.all():
        without = _differences(images.only(~known), i, j, seed, n_resamples, level)
    classify = images.task == "classify"
    one, other = images.decisions[i], images.decisions[j]
    return Pair(
        first=i,
        second=j,
        differences=_differences(images, i, j, seed, n_resamples, level),
        n_differing=int((one != other).sum()),
        n_referred=int((images.referred[i] | images.referred[j]).sum()) if classify else 0,
        n_trained_on=int(known.sum()),
        without=without,
    )


def _differences(
    images: SharedImages, i: int, j: int, seed: int, n_resamples: int, level: float
) -> dict[str, Difference]:
    if images.task == "regress":
        return {"mae": _error_difference(images, i, j, seed, n_resamples, level)}
    labels = images.targets.astype(np.int64)
    found = auroc_difference(labels, images.scores[i], images.scores[j], images.clusters, level)
    leading = Difference(
        first=auroc(labels, images.scores[i]),
        second=auroc(labels, images.scores[j]),
        value=found.value,
        ci_low=found.low,
        ci_high=found.high,
        ci_method=found.method,
        p_value=found.p_value,
        p_holm=found.p_value,
        method=found.method,
        n=len(images),
        n_patients=images.n_patients,
    )
    decided = (images.decisions[i] != NO_ANSWER) & (images.decisions[j] != NO_ANSWER)
    among = {name: mask & decided for name, mask in _among(images).items()}
    drawn = _drawn_decisions(images, i, j, among, seed, n_resamples)
    return {"auroc": leading} | {
        name: _decision_difference(images.only(mask), i, j, drawn.get(name), level)
        for name, mask in among.items()
    }


def _drawn_decisions(
    images: SharedImages,
    i: int,
    j: int,
    among: Mapping[str, BoolArray],
    seed: int,
    n_resamples: int,
) -> dict[str, FloatArray]:
    """Differences of DECIDED over resampled patients; empty where no patient repeats."""
    if not images.patients_repeat:
        return {}
    right = images.decisions == images.targets
    lead = right[j].astype(np.float64) - right[i]
    masks = np.array([mask.astype(np.float64) for mask in among.values()]).T

    def statistic(weights: FloatArray) -> FloatArray:
        counts = weights @ masks
        shares = np.full(counts.shape, np.nan)
        np.divide(weights @ (masks * lead[:, np.newaxis]), counts, out=shares, where=counts > 0)
        return shares

    drawn = bootstrap_values(statistic, images.clusters, n_resamples, seed)
    return dict(zip(among, drawn.T, strict=True))


def _decision_difference(
    images: SharedImages, i: int, j: int, drawn: FloatArray | None, level: float
) -> Difference:
    """Shares of right decisions; `images` are those that the share is of, all decided."""
    first, second = (images.decisions[k] == images.targets for k in (i, j))
    test = mcnemar_test(first, second, images.clusters)
    n, both = len(images), int((first & second).sum())
    if drawn is None or not images.patients_repeat:
        neither = n - both - test.only_first - test.only_second
        cells = both, test.only_first, test.only_second, neither
        interval, ci_method = paired_difference_interval(*cells, level), "newcombe"
    else:
        interval, ci_method = percentile_interval(drawn, level), "patient_bootstrap"
    p_value = test.p_value if n else math.nan
    return Difference(
        first=ratio(int(first.sum()), n),
        second=ratio(int(second.sum()), n),
        value=ratio(test.only_second - test.only_first, n),
        ci_low=interval.low,
        ci_high=interval.high,
        ci_method=ci_method,
        p_value=p_value,
        p_holm=p_value,
        method=test.method,
        n=n,
        n_patients=images.n_patients,
        mcnemar=test,
    )


def _error_difference(
    images: SharedImages, i: int, j: int, seed: int, n_resamples: int, level: float
) -> Difference:
    errors = np.abs(images.scores[[i, j]] - images.targets)
    lead = errors[1] - errors[0]
    drawn = bootstrap_values(
        lambda weights: weights @ lead / weights.sum(axis=1), images.clusters, n_resamples, seed
    )
    value, method = float(lead.mean()), _resampling(images)
    interval: Interval = percentile_interval(drawn, level)
    p_value = _two_sided(drawn) if lead.any() else 1.0
    return Difference(
        first=float(errors[0].mean()),
        second=float(errors[1].mean()),
        value=value,
        ci_low=interval.low,
        ci_high=interval.high,
        ci_method=method,
        p_value=p_value,
        p_holm=p_value,
        method=method,
        n=len(images),
        n_patients=images.n_patients,
    )


def _two_sided(drawn: FloatArray) -> float:
    """Twice the share of resampled differences on the rarer side of zero, never quite zero.

    Source:
        Davison & Hinkley 1997, Bootstrap Methods and their Application, section 4.4.
    """
    rarer = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(drawn) + 1))


def _corrected(pairs: Sequence[Pair], n_tests: int) -> tuple[Pair, ...]:
    """The pairs with the p of each metric corrected for how many pairs the models can form.

    The best model is known from the same images, so that any of its pairs might have been tested.
    """
    differences = _holm_each([pair.differences for pair in pairs], n_tests)
    known = [pair.without is not None for pair in pairs]
    without = _holm_each([pair.without or pair.differences for pair in pairs], n_tests)
    return tuple(
        replace(pair, differences=found, without=others if knows else None)
        for pair, found, others, knows in zip(pairs, differences, without, known, strict=True)
    )


def _holm_each(
    found: Sequence[Mapping[str, Difference]], n_tests: int
) -> list[dict[str, Difference]]:
    corrected = {name: holm([pair[name].p_value for pair in found], n_tests) for name in found[0]}
    return [
        {name: replace(d, p_holm=corrected[name][place]) for name, d in pair.items()}
        for place, pair in enumerate(found)
    ]


def holm(p_values: Sequence[float], n_tests: int = 0) -> list[float]:
    """Correct several p for their number, so that one false alarm among all stays rare.

    Args:
        p_values: In [0, 1]; a NaN is no test, stays NaN and does not count.
        n_tests: How many tests these are the ones of interest of, if more than there are here.

    Returns:
        Corrected p in the same order, at least as large as before.

    Source:
        Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal
        of Statistics 6, 65-70.
    """
    tests = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected, largest = [math.nan] * len(p_values), 0.0
    n_tests = max(n_tests, len(tests))
    for done, (p, place) in enumerate(tests):
        largest = max(largest, min(1.0, (n_tests - done) * p))
        corrected[place] = largest
    return corrected
