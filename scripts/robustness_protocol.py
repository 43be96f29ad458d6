#!/usr/bin/env python3
"""Judge a recipe for PneumoniaMNIST by what it does on films that differ from its training films.

    scripts/robustness_protocol.py CONFIG NPZ FILMS [--set KEY=VALUE ...] [--seeds 0 1 2]
                                   [--arrangements NAME ...] [-o FOLDER] [--list]

Validation of PneumoniaMNIST cannot rank recipes: it shares patients with training, and nearly every
model reaches an AUROC of 0.99 on it, while its test films come from another time. So the images get
their patients back (`medmnist_keys.py`; FILMS is a folder of Kermany's films), and a recipe is
trained several times, each time without some of the patients and judged on these:

    patients      a random seventh of the patients: what is to be had without any shift
    low, high     the lowest and the highest quarter of the patient numbers of each series, a
                  stand-in for time
    exposure-1..3 clusters of grey levels: mean, spread, quantiles, upper corners
    position-1..3 clusters of the equalised image at 7 x 7 px: size, place and turn of the chest

Of those left for training a seventh of the patients validates: stopping, calibration and threshold
see these alone. Every left-out image is also tried after six changes at once, each at the third of
five strengths: exposure, contrast, blur, rotation, shift, zoom (`mixed`); and those of `patients`
after each of ten changes at five strengths (`evaluate --stress`). With several seeds the mean of
their logits is judged too, as `train.seeds` would answer, and how often two seeds decide alike.

The score is the mean of seven numbers in [0, 1]: AUROC and accuracy at the stored threshold, over
the clusters (all arrangements but `patients`), over their mixed copies, and over the 50 changes;
and the agreement of seeds. Accuracy is the mean of sensitivity and specificity, so that neither
class outweighs the other.

Prints a table and writes robustness.json. The test split takes no part, even where NPZ has one.
Needs this project and scikit-learn to be installed. Exit codes: 0 done, 2 usage.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))
from medmnist_keys import Key, n_patients, read_keys, recovered_keys, write_keys

from xray_classifier.bootstrap import patient_clusters
from xray_classifier.building import run_best_monitor, run_building, run_monitor
from xray_classifier.calibration import Calibration
from xray_classifier.callbacks import Callback, EarlyStopping
from xray_classifier.config import Config
from xray_classifier.config_file import load_config
from xray_classifier.data.decode import film_from_array, prepare
from xray_classifier.data.film import Film
from xray_classifier.data.intensity import ranks
from xray_classifier.data.loading import Radiographs, run_loading
from xray_classifier.data.manifest import NpzImages
from xray_classifier.data.stress import (
    PERTURBATIONS,
    VARIANTS,
    film_seed,
    perturbed,
    variants,
    working_film,
)
from xray_classifier.history import Monitor, Run
from xray_classifier.inference import predict_logits
from xray_classifier.metrics import auroc
from xray_classifier.saving import operating_point
from xray_classifier.terminal import Terminal
from xray_classifier.trainer import Trainer

SHARE = 1 / 7
"""Of the patients, that validates."""
QUARTER = 0.25
CLUSTERS = 3
THUMBNAIL_PX = 7
STRESSED = 300
"""Most images of the stress test."""
MIXTURE = ("exposure", "contrast", "blur", "rotation", "shift", "zoom")
"""Changes that are made at once."""
MIXTURE_LEVEL, MIXED_COPIES = 3, 2
POLICIES = ("youden", "spec=0.95", "spec=0.975", "cost=1.0", "cost=0.33", "sens=0.95", "0.5")
"""Looked at beside the one of the config."""
CLUSTER_SEED = 20261125
REFERENCE = "patients"

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Arrangement:
    """Who trains, who validates, who judges; rows of the manifest."""

    name: str
    train: Rows
    val: Rows
    test: Rows


@dataclass(frozen=True)
class Answers:
    """Logits of one model on the images that choose its threshold and on those that judge it.

    `mixed` has shape (n_test, 2); `stress` (n, 51), in the order of `VARIANTS`, None where it was
    not tried.
    """

    val: Floats
    test: Floats
    mixed: Floats
    stress: Floats | None


def main() -> int:
    """Train, judge, print the table, write the numbers."""
    asked = _asked()
    started = time.perf_counter()
    fixed = [f"data.path={asked.npz}", "data.patient=null", "data.audit=off", "train.folds=null"]
    config = load_config(asked.config, [*asked.set, *fixed, "train.seeds=1"]).config
    with tempfile.TemporaryDirectory() as own:
        keys = _keys(asked, Path(own))
    radiographs = with_keys(run_loading(config.data, "classify", Terminal(quiet=True)), keys)
    arrangements = [a for a in arranged(radiographs, keys) if a.name in asked.arrangements]
    print(f"seeds {asked.seeds}; {n_patients(keys):,} patients; seed of splits {CLUSTER_SEED}")
    if asked.list:
        print(list_of(arrangements, radiographs.manifest.targets))
        return 0
    copies = Copies(radiographs, config)
    found: dict[str, Any] = {}
    for arrangement in arrangements:
        answers = [trained(config, radiographs, arrangement, seed, copies) for seed in asked.seeds]
        found[arrangement.name] = judged(config, radiographs, arrangement, answers)
        print(line_of(arrangement.name, found[arrangement.name]), flush=True)
    summed = {kind: scored(found, kind) for kind in ("single", "ensemble")}
    elapsed_s = round(time.perf_counter() - started, 1)
    print(table_of(summed, str(config.evaluate.threshold)))
    print(f"{elapsed_s:.0f} s")
    write(asked, summed, found, elapsed_s)
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0],
        epilog=str(__doc__).partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("npz", type=Path, metavar="NPZ")
    parser.add_argument("films", type=Path, metavar="FILMS")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="config overrides"
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1], metavar="N")
    names = [REFERENCE, "low", "high"]
    names += [f"{kind}-{n}" for kind in ("exposure", "position") for n in range(1, CLUSTERS + 1)]
    parser.add_argument("--arrangements", nargs="*", choices=names, default=names, metavar="NAME")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="keep the table of keys here")
    parser.add_argument("-o", dest="folder", type=Path, metavar="FOLDER")
    parser.add_argument("--list", action="store_true", help="show the splits, train nothing")
    asked = parser.parse_args()
    asked.npz = asked.npz.resolve()
    if not asked.seeds:
        parser.error("--seeds needs at least one number")
    return asked


def _keys(asked: argparse.Namespace, spare: Path) -> list[Key]:
    """The keys of the images, found anew unless a table of them was kept."""
    kept: Path = asked.keys or spare / "keys.csv"
    if not kept.is_file():
        write_keys(kept, recovered_keys(asked.npz, asked.films))
    return read_keys(kept)


def with_keys(radiographs: Radiographs, keys: Sequence[Key]) -> Radiographs:
    """The images with their patients; one whose film was not found stands in no split.

    Args:
        radiographs: As loaded.
        keys: In any order.
    """
    patient = {key.id: key.patient for key in keys}
    manifest = radiographs.manifest
    patients = tuple(patient.get(name) or name for name in manifest.ids)
    return replace(radiographs, manifest=replace(manifest, patients=patients, patients_known=True))


def arranged(radiographs: Radiographs, keys: Sequence[Key]) -> list[Arrangement]:
    """All ways to leave patients out.

    A patient of whom one image is left out trains with none.
    """
    manifest = radiographs.manifest
    key = {one.id: one for one in keys if one.film}
    named = [row for row, name in enumerate(manifest.ids) if name in key]
    rows = np.array([row for row in named if not manifest.ids[row].startswith("test")])
    patients = np.array([manifest.patients[row] for row in rows], dtype=object)
    series = np.array([key[manifest.ids[row]].series for row in rows], dtype=object)
    numbers = np.array([key[manifest.ids[row]].number for row in rows], dtype=np.int64)
    left_out = {REFERENCE: _drawn(patients, SHARE, seed=CLUSTER_SEED + 1)}
    low, high = extremes(series, numbers)
    left_out |= {"low": low, "high": high}
    raw = np.stack(list(raw_images(radiographs, rows.tolist())))
    looks = {"exposure": grey_features(raw), "position": place_features(raw)}
    for kind, features in looks.items():
        cluster = clusters(features, manifest.targets[rows])
        left_out |= {f"{kind}-{n + 1}": cluster == n for n in range(CLUSTERS)}
    return [arrangement_of(name, rows, patients, out) for name, out in left_out.items()]


def arrangement_of(
    name: str, rows: Rows, patients: NDArray[Any], out: NDArray[np.bool_]
) -> Arrangement:
    """Share out the images, given those that judge.

    Args:
        name: Of the arrangement.
        rows: Of the manifest, (n,).
        patients: Of these rows, (n,).
        out: Which of them judge, (n,) bool.
    """
    free = ~np.isin(patients, patients[out])
    val = np.zeros(len(rows), np.bool_)
    val[free] = _drawn(patients[free], SHARE, seed=CLUSTER_SEED)
    return Arrangement(name, rows[free & ~val], rows[val], rows[out])


def _drawn(patients: NDArray[Any], share: float, seed: int) -> NDArray[np.bool_]:
    """Images (n,) of a random share of the patients."""
    known = np.unique(patients.astype(str))
    chosen = np.random.default_rng(seed).permutation(known)[: round(share * len(known))]
    return np.isin(patients.astype(str), chosen)


def extremes(
    series: NDArray[Any], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Images (n,) of the lowest and of the highest quarter of the numbers of each series."""
    low, high = np.zeros(len(series), np.bool_), np.zeros(len(series), np.bool_)
    for name in np.unique(series.astype(str)):
        own = series == name
        first, last = np.quantile(numbers[own], [QUARTER, 1 - QUARTER])
        low |= own & (numbers <= first)
        high |= own & (numbers >= last)
    return low, high


def grey_features(images: NDArray[np.uint8]) -> Floats:
    """Exposure of images (n, H, W): mean, spread, five quantiles, upper corners; (n, 8)."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    edge = images.shape[1] // 5
    corners = images[:, :edge][:, :, np.r_[:edge, -edge:0]].astype(np.float64)
    parts = [flat.mean(1), flat.std(1), *np.quantile(flat, [0.02, 0.25, 0.5, 0.75, 0.98], axis=1)]
    return np.stack([*parts, corners.mean((1, 2))], axis=1)


def place_features(images: NDArray[np.uint8]) -> Floats:
    """Where the chest lies in images (n, H, W): block means of pixel ranks, (n, 49)."""
    side = images.shape[1] // THUMBNAIL_PX * THUMBNAIL_PX
    flat = images.reshape(len(images), -1).astype(np.float32)
    equal = np.stack([ranks(row) for row in flat]).reshape(images.shape)
    block = side // THUMBNAIL_PX
    split = equal[:, :side, :side].reshape(-1, THUMBNAIL_PX, block, THUMBNAIL_PX, block)
    return np.asarray(split.mean((2, 4)).reshape(len(images), -1), np.float64)


def clusters(features: Floats, targets: Floats) -> NDArray[np.int64]:
    """k-means of features (n, f), standardised within each class: 0 is the largest cluster; (n,).

    Without that a cluster would be half a class: sick children lie otherwise, and are exposed
    otherwise, than healthy ones.
    """
    from sklearn.cluster import KMeans

    standard = np.zeros_like(features)
    for label in (0, 1):
        own = features[targets == label]
        spread = own.std(axis=0)
        standard[targets == label] = (own - own.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    found = KMeans(CLUSTERS, n_init=10, random_state=CLUSTER_SEED).fit_predict(standard)
    order = np.argsort(-np.bincount(found, minlength=CLUSTERS), kind="stable")
    places = np.empty(CLUSTERS, np.int64)
    places[order] = np.arange(CLUSTERS)
    return np.asarray(places[found], np.int64)


class Copies:
    """Changed copies of images, prepared as the model sees them, each made once.

    Args:
        radiographs: With the raw images in an NPZ file.
        config: How a film is prepared.
    """

    def __init__(self, radiographs: Radiographs, config: Config) -> None:
        self.radiographs, self.image = radiographs, config.data.image
        self.stressed: dict[int, NDArray[np.uint8]] = {}
        self.mixed: dict[int, NDArray[np.uint8]] = {}

    def of_stress(self, rows: Rows) -> NDArray[np.uint8]:
        """Each image (n,) unchanged and after each of the 50 changes, (51 n, S, S)."""
        return self._filled(self.stressed, rows, self._variants)

    def of_mixture(self, rows: Rows) -> NDArray[np.uint8]:
        """Each image (n,) twice, after all of `MIXTURE` at once, (2 n, S, S)."""
        return self._filled(self.mixed, rows, self._mixtures)

    def _filled(
        self,
        made: dict[int, NDArray[np.uint8]],
        rows: Rows,
        make: Callable[[Film, str], NDArray[np.uint8]],
    ) -> NDArray[np.uint8]:
        lacking = [row for row in rows.tolist() if row not in made]
        for row, raw in zip(lacking, raw_images(self.radiographs, lacking), strict=True):
            made[row] = make(film_from_array(raw), self.radiographs.digests[row])
        return np.concatenate([made[row] for row in rows.tolist()])

    def _variants(self, film: Film, digest: str) -> NDArray[np.uint8]:
        i = self.image
        return variants(film, i.size, i.crop, i.intensity, seed=0, image=digest)

    def _mixtures(self, film: Film, digest: str) -> NDArray[np.uint8]:
        i, base = self.image, working_film(film, self.image.size)
        found = []
        for copy in range(MIXED_COPIES):
            changed = base
            for kind in PERTURBATIONS:
                if kind.name in MIXTURE:
                    seed = film_seed(copy + 1, digest, kind.name)
                    changed = perturbed(changed, kind, MIXTURE_LEVEL, seed)
            found.append(prepare(changed, i.size, i.crop, i.intensity))
        return np.stack(found)


def raw_images(radiographs: Radiographs, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
    """The images as they lie in the NPZ file, (H, W) each, in order."""
    manifest = radiographs.manifest
    if manifest.root is None:
        raise ValueError("the images are not in a file")
    return NpzImages(manifest.root).rows([manifest.ids[row] for row in rows])


def trained(
    config: Config,
    radiographs: Radiographs,
    arrangement: Arrangement,
    seed: int,
    copies: Copies,
) -> Answers:
    """Train one model as `train` would, and ask it."""
    splits = np.full(len(radiographs.manifest), "", dtype=object)
    splits[arrangement.train], splits[arrangement.val] = "train", "val"
    manifest = radiographs.manifest.with_splits(splits.tolist())
    own_config = config.model_copy(update={"seed": seed})
    trainer = run_building(own_config, replace(radiographs, manifest=manifest)).trainer
    best = Best(trainer, run_best_monitor(config.train))
    trainer.callbacks = [best, *_stopping(config)]
    with torch.random.fork_rng(devices=[]):
        trainer.fit()
    best.restore()

    def ask(images: NDArray[np.uint8]) -> Floats:
        return predict_logits(trainer.model, trainer.standardize, images)

    val, test, images = arrangement.val, arrangement.test, radiographs.images
    stress = None
    if arrangement.name == REFERENCE:
        rows = stressed_rows(test)
        stress = ask(copies.of_stress(rows)).reshape(len(rows), -1)
    mixed = ask(copies.of_mixture(test)).reshape(len(test), -1)
    return Answers(ask(images[val]), ask(images[test]), mixed, stress)


def stressed_rows(rows: Rows) -> Rows:
    """The images of the stress test: at most `STRESSED`, evenly spread over the rows."""
    places = np.linspace(0, len(rows) - 1, min(STRESSED, len(rows))).astype(int)
    return np.asarray(rows[np.unique(places)], np.int64)


def _stopping(config: Config) -> list[Callback]:
    stopping, monitor = config.train.early_stopping, run_monitor(config.train)
    if monitor is None or stopping is None or stopping.patience is None:
        return []
    return [EarlyStopping(monitor, stopping.patience)]


class Best(Callback):
    """Keeps the weights of the epoch that `train` would keep, in memory."""

    def __init__(self, trainer: Trainer, monitor: Monitor | None) -> None:
        self.trainer, self.monitor = trainer, monitor
        self.weights: Mapping[str, torch.Tensor] = {}

    def on_epoch_end(self, run: Run) -> None:
        if self.monitor is not None and self.monitor.best(run.history) == run.epoch - 1:
            self._keep()

    def on_train_end(self, run: Run) -> None:
        if not self.weights:
            self._keep()

    def _keep(self) -> None:
        with self.trainer.judged_weights():
            state = self.trainer.model.state_dict()
            self.weights = {name: tensor.clone() for name, tensor in state.items()}

    def restore(self) -> None:
        """Give the model these weights."""
        self.trainer.model.load_state_dict(self.weights)


def judged(
    config: Config, radiographs: Radiographs, arrangement: Arrangement, answers: Sequence[Answers]
) -> dict[str, Any]:
    """The figures of one arrangement: of each seed, of their mean, and how far seeds agree."""
    every = [figures(config, radiographs, arrangement, one) for one in answers]
    joint = figures(config, radiographs, arrangement, joined(answers)) if len(every) > 1 else None
    calls = [np.array(one.pop("calls")) for one in every]
    pairs = [float((a == b).mean()) for a, b in itertools.combinations(calls, 2)]
    if joint is not None:
        joint.pop("calls")
    return {
        "n": len(arrangement.test),
        "n_healthy": int((radiographs.manifest.targets[arrangement.test] == 0).sum()),
        "single": every,
        "ensemble": joint,
        "agreement": float(np.mean(pairs)) if pairs else float("nan"),
    }


def joined(answers: Sequence[Answers]) -> Answers:
    """The mean of the logits of several models."""
    stress = [one.stress for one in answers if one.stress is not None]
    return Answers(
        np.mean([one.val for one in answers], axis=0),
        np.mean([one.test for one in answers], axis=0),
        np.mean([one.mixed for one in answers], axis=0),
        np.mean(stress, axis=0) if stress else None,
    )


def figures(
    config: Config, radiographs: Radiographs, arrangement: Arrangement, answers: Answers
) -> dict[str, Any]:
    """AUROC, and accuracy under each policy, on validation, on the left-out images, under stress.

    `calls` are the decisions on the left-out images under the config's own policy.
    """
    targets = radiographs.manifest.targets.astype(np.int64)
    val, test = targets[arrangement.val], targets[arrangement.test]
    own = str(config.evaluate.threshold)
    patients = [radiographs.manifest.patients[row] for row in arrangement.val]
    clusters_of = patient_clusters(np.array(patients, dtype=object), len(patients))
    found: dict[str, Any] = {
        "val_auroc": auroc(val, answers.val),
        "auroc": auroc(test, answers.test),
        "mixed_auroc": float(np.mean([auroc(test, column) for column in answers.mixed.T])),
        "policies": {},
    }
    stress_truth = targets[stressed_rows(arrangement.test)]
    if answers.stress is not None:
        areas = [auroc(stress_truth, column) for column in answers.stress.T[1:]]
        found["stress_auroc"] = float(np.mean(areas))
        found["stress_aurocs"] = by_kind(areas)
    for policy in dict.fromkeys([own, *POLICIES]):
        evaluate = config.evaluate.model_copy(update={"threshold": policy})
        point = operating_point(val, answers.val, clusters_of, evaluate, "val", 0)
        calibration = Calibration.from_dict(point["calibration"])
        threshold = float(point["threshold"]["value"])
        calls = calibration.apply(answers.test) >= threshold
        one: dict[str, Any] = {"threshold": threshold, **shares(test, calls)}
        one["mixed"] = mean_shares(test, calibration, threshold, answers.mixed)
        if answers.stress is not None:
            one["stress"] = mean_shares(stress_truth, calibration, threshold, answers.stress[:, 1:])
        found["policies"][policy] = one
        if policy == own:
            found["calls"] = calls.tolist()
    return found


def by_kind(values: Sequence[float]) -> dict[str, float]:
    """Mean over the strengths of each kind of change, from values in the order of `VARIANTS`."""
    names = [kind.name for kind, _ in VARIANTS if kind is not None]
    return {
        name: float(np.mean([v for v, own in zip(values, names, strict=True) if own == name]))
        for name in dict.fromkeys(names)
    }


def shares(truth: NDArray[np.int64], calls: NDArray[np.bool_]) -> dict[str, float]:
    """Sensitivity, specificity, their mean, and accuracy of calls (n,)."""
    sensitivity, specificity = float(calls[truth == 1].mean()), float((~calls[truth == 0]).mean())
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced": (sensitivity + specificity) / 2,
        "accuracy": float((calls == (truth == 1)).mean()),
    }


def mean_shares(
    truth: NDArray[np.int64], calibration: Calibration, threshold: float, logits: Floats
) -> dict[str, float]:
    """`shares` of each column of logits (n, m) at a threshold, averaged over the columns."""
    p_sick = calibration.apply(logits.ravel()).reshape(logits.shape)
    every = [shares(truth, column >= threshold) for column in p_sick.T]
    return {key: float(np.mean([one[key] for one in every])) for key in every[0]}


def scored(found: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The parts of the score, the score, and the same parts under other policies."""
    apart = {name: one for name, one in found.items() if name != REFERENCE}

    def models(one: Mapping[str, Any]) -> list[dict[str, Any]]:
        if kind == "single":
            return list(one["single"])
        return [one["ensemble"]] if one["ensemble"] else []

    def mean(arrangements: Mapping[str, Any], *path: str) -> float:
        values = [_at(model, path) for one in arrangements.values() for model in models(one)]
        return float(np.mean(values)) if values else float("nan")

    reference = {name: found[name] for name in found if name == REFERENCE}
    policies = {}
    for policy in next((m["policies"] for o in found.values() for m in models(o)), {}):
        cluster = ("policies", policy)
        policies[policy] = {
            "reference": mean(reference, *cluster, "balanced"),
            "clusters": mean(apart, *cluster, "balanced"),
            "sensitivity": mean(apart, *cluster, "sensitivity"),
            "specificity": mean(apart, *cluster, "specificity"),
            "accuracy": mean(apart, *cluster, "accuracy"),
            "mixed": mean(apart, *cluster, "mixed", "balanced"),
            "stress": mean(reference, *cluster, "stress", "balanced"),
        }
    nothing = dict.fromkeys(("clusters", "mixed", "stress"), float("nan"))
    own = next(iter(policies.values()), nothing)
    agreements = [one["agreement"] for one in found.values()]
    parts = {
        "clusters_auroc": mean(apart, "auroc"),
        "clusters_accuracy": own["clusters"],
        "mixed_auroc": mean(apart, "mixed_auroc"),
        "mixed_accuracy": own["mixed"],
        "stress_auroc": mean(reference, "stress_auroc"),
        "stress_accuracy": own["stress"],
        "agreement": float(np.mean(agreements)) if agreements else float("nan"),
    }
    return {
        "score": float(np.mean(list(parts.values()))),
        **parts,
        "val_auroc": mean(found, "val_auroc"),
        "reference_auroc": mean(reference, "auroc"),
        "policies": policies,
    }


def _at(content: Any, path: Sequence[str]) -> float:
    for key in path:
        content = content[key]
    return float(content)


def list_of(arrangements: Sequence[Arrangement], targets: Floats) -> str:
    """How many images of each class train, validate and judge."""
    lines = [f"{'left out':<12} {'train':>12} {'validate':>12} {'judge':>12}  (healthy + sick)"]
    for one in arrangements:
        counts = [
            f"{int((targets[rows] == 0).sum())} + {int((targets[rows] == 1).sum())}"
            for rows in (one.train, one.val, one.test)
        ]
        lines.append(f"{one.name:<12} " + " ".join(f"{count:>12}" for count in counts))
    return "\n".join(lines)


def line_of(name: str, one: Mapping[str, Any]) -> str:
    """One arrangement: AUROC and balanced accuracy of each seed and of their mean."""
    models = [*one["single"], *([one["ensemble"]] if one["ensemble"] else [])]
    shown = "  ".join(
        f"{model['auroc']:.4f}/{next(iter(model['policies'].values()))['balanced']:.3f}"
        for model in models
    )
    return f"  {name:<11} n {one['n']:>5} ({one['n_healthy']} healthy)  {shown}"


def table_of(summed: Mapping[str, Mapping[str, Any]], policy: str) -> str:
    """The score with its parts, and the policies, for a person."""
    lines = []
    for kind, one in summed.items():
        if not one["policies"]:
            continue
        parts = "  ".join(
            f"{key} {value:.4f}" for key, value in one.items() if not isinstance(value, dict)
        )
        lines.append(f"{kind}: {parts}")
        for name, found in one["policies"].items():
            shown = "  ".join(f"{key} {value:.4f}" for key, value in found.items())
            lines.append(f"    {name + ('*' if name == policy else ''):<11} {shown}")
    return "\n".join(lines)


def write(
    asked: argparse.Namespace,
    summed: Mapping[str, Any],
    found: Mapping[str, Any],
    elapsed_s: float,
) -> None:
    """robustness.json, where a folder was given."""
    if asked.folder is None:
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    content = {
        "config": asked.config,
        "set": asked.set,
        "seeds": asked.seeds,
        "cluster_seed": CLUSTER_SEED,
        "variants": len(VARIANTS),
        "elapsed_s": elapsed_s,
        "summary": summed,
        "arrangements": found,
    }
    text = json.dumps(content, indent=1, allow_nan=True).replace("NaN", "null")
    (asked.folder / "robustness.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
