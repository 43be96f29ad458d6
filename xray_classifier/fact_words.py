"""How a model was made, in sentences for a card or a checklist, each with where it is written.

A sentence holds what the run recorded and nothing else; where it recorded nothing there is none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from xray_classifier.run_facts import Facts, value_at
from xray_classifier.table_one import LEAK

CROPS = {
    "center": "the longer side is cut to the central square",
    "pad": "the shorter side is padded to a square",
    "stretch": "the film is stretched to a square",
}
INTENSITIES = {
    "equalize": "each pixel is replaced by its rank in its own image",
    "zscore": "each image is brought to mean 0 and standard deviation 1",
    "minmax": "each image is scaled from its darkest to its brightest level",
    "dataset": "the film's own grey levels are kept",
}


class Said(NamedTuple):
    """A sentence, plain text, and the file and key that it comes from."""

    text: str
    source: str


USE_NAMES = {
    "purpose": "purpose",
    "users": "users",
    "population": "population",
    "min_age_years": "youngest patients (years)",
    "max_age_years": "oldest patients (years)",
    "sex": "sex",
    "body_part": "body part",
    "view": "view",
    "modality": "modality",
    "setting": "setting",
    "reference_standard": "reference standard",
    "out_of_scope": "not meant for",
}
"""The keys of `intended_use` as a reader calls them, in order."""


def use_texts(facts: Facts, keys: Sequence[str] = tuple(USE_NAMES)) -> dict[str, str]:
    """What the author said of the intended use, by key; keys that say nothing are left out.

    The checkpoint speaks first; what it leaves open, config.yaml of the run may say later.
    """
    found = {}
    for key in keys:
        value = facts.said("intended_use", key)
        if value is None or value == []:
            value = facts.chosen("intended_use", key)
        if isinstance(value, (list, tuple)):
            value = "; ".join(str(text) for text in value) or None
        elif isinstance(value, float):
            value = f"{value:g}"
        if value is not None:
            found[key] = str(value)
    return found


def use_of(facts: Facts, *keys: str) -> Said | None:
    """Some of the intended use as one sentence."""
    texts = use_texts(facts, keys)
    if not texts:
        return None
    words = "; ".join(f"{USE_NAMES[key]}: {text}" for key, text in texts.items())
    return Said(words, "config: " + ", ".join(f"intended_use.{key}" for key in texts))


def purpose(facts: Facts) -> Said | None:
    """What the model is for, and where."""
    return use_of(facts, "purpose", "setting", "population", "out_of_scope")


def users(facts: Facts) -> Said | None:
    """Who reads its answers."""
    return use_of(facts, "users")


def population(facts: Facts) -> Said | None:
    """For which patients."""
    return use_of(facts, "population", "min_age_years", "max_age_years", "sex")


def setting(facts: Facts) -> Said | None:
    """Where it is to be used."""
    return use_of(facts, "setting")


def acquisition(facts: Facts) -> Said | None:
    """What the films are."""
    return use_of(facts, "modality", "body_part", "view")


def reference_standard(facts: Facts) -> Said | None:
    """Who called an image sick, and which names in the data mean it."""
    said = use_of(facts, "reference_standard")
    names = facts.said("labels", "sick")
    if said is None or not names:
        return said
    labels = f"labels that mean sick: {', '.join(map(str, names))}"
    return Said(f"{said.text}; {labels}", f"{said.source}; checkpoint: labels")


def technology(facts: Facts) -> Said | None:
    """The kind of model in a few words."""
    kind = facts.said("architecture", "type")
    if kind is None:
        return None
    words = {
        "perceptron": "a single perceptron (logistic regression on pixels)",
        "mlp": "deep learning: a multilayer perceptron",
        "mixer": "deep learning: an MLP-mixer",
    }.get(str(kind), str(kind))
    task = {"regress": "that predicts a number"}.get(
        str(facts.said("task")), "that tells sick from healthy radiographs"
    )
    return Said(f"{words} {task}", "checkpoint: architecture.type, task")


def architecture(facts: Facts) -> Said | None:
    """Layers, input and output."""
    a = facts.said("architecture")
    if not isinstance(a, Mapping):
        return None
    side = a.get("size_px")
    parts = [f"type {a.get('type')}", f"input {side} x {side} pixels, one grey channel"]
    if a.get("hidden"):
        parts.append(f"hidden layers of {_listed(a['hidden'])} units")
        parts.append(f"activation {a.get('activation')}")
    if a.get("blocks"):
        parts.append(f"{a['blocks']} blocks over patches of {a.get('patch_px')} pixels")
        parts.append(f"{a.get('patch_channels')} channels")
    if a.get("dropout"):
        parts.append(f"dropout {_listed(a['dropout'])}")
    if a.get("norm") not in (None, "none"):
        parts.append(f"{a['norm']} normalisation")
    parts.append("output one number" if facts.said("task") == "regress" else "output one logit")
    return Said("; ".join(parts), "checkpoint: architecture")


def initialisation(facts: Facts) -> Said | None:
    """How the weights began."""
    kind = facts.said("architecture", "init")
    if kind is None:
        return None
    seed = facts.said("seed")
    text = f"random weights ({kind}, seed {seed}); no pretrained weights are used"
    return Said(text, "checkpoint: architecture.init, seed")


def software(facts: Facts) -> Said | None:
    """Program, libraries and their versions."""
    versions = facts.said("environment", "versions")
    if not isinstance(versions, Mapping):
        return None
    names = [f"Python {facts.said('environment', 'python')}"]
    names += [f"{name} {version}" for name, version in versions.items()]
    return Said(", ".join(names), "checkpoint: environment.versions")


def hardware(facts: Facts) -> Said | None:
    """Where the model was trained."""
    found = facts.said("environment")
    if not isinstance(found, Mapping):
        return None
    words = f"trained on {found.get('device')} with {found.get('threads')} CPU threads"
    return Said(f"{words} ({found.get('platform')})", "checkpoint: environment")


def preprocessing(facts: Facts) -> Said | None:
    """What happens to an image before the model sees it."""
    image = facts.said("image")
    if not isinstance(image, Mapping):
        return None
    side = image.get("size")
    mean, std = facts.said("pixels", "mean"), facts.said("pixels", "std")
    parts = [
        CROPS.get(str(image.get("crop")), f"crop {image.get('crop')}"),
        f"resized to {side} x {side} pixels of 8 bits",
        INTENSITIES.get(str(image.get("intensity")), f"intensity {image.get('intensity')}"),
    ]
    if mean is not None and std is not None:
        parts.append(f"standardised with mean {mean:.3g} and standard deviation {std:.3g} of white")
    return Said("; ".join(parts), "checkpoint: image, pixels")


def training(facts: Facts) -> Said | None:
    """Loss, optimizer, schedule, regularisation and how the run ended."""
    train = facts.chosen("train")
    if not isinstance(train, Mapping):
        return None
    regress = facts.said("task") == "regress"
    o = train.get("optimizer") or {}
    steps = value_at(facts.summary, "steps")
    parts = [
        f"loss: {'mean squared error' if regress else 'binary cross-entropy'}",
        f"optimizer {o.get('name')}, learning rate {o.get('lr')}, "
        f"weight decay {o.get('weight_decay')}",
        f"schedule {value_at(train, 'schedule', 'name')}",
        f"batches of {train.get('batch_size')}",
        f"at most {train.get('epochs')} epochs",
        *_regularisers(train),
    ]
    if facts.summary is not None:
        parts.append(f"ended after {steps} steps: {facts.summary.get('stop_reason')}")
    return Said("; ".join(parts), "config.yaml: train; summary.json: steps, stop_reason")


def _regularisers(train: Mapping[str, Any]) -> list[str]:
    """What is switched on of all that holds a model back."""
    names = ("pos_weight", "label_smoothing", "mixup", "ema", "grad_clip")
    parts = [f"{name} {train[name]}" for name in names if train.get(name)]
    augment = train.get("augment") or {}
    changes = ", ".join(f"{name} {value}" for name, value in augment.items() if value)
    return [*parts, f"augmentation: {changes or 'none'}"]


def selection(facts: Facts) -> Said | None:
    """Which epoch's weights are the model."""
    if not facts.content:
        return None
    monitor, epoch = facts.said("monitor"), facts.said("epoch")
    source = "checkpoint: monitor, epoch"
    if ensemble(facts) is not None and epoch is None:
        return Said("each member is the best epoch of its own run", "checkpoint: ensemble")
    if not isinstance(monitor, Mapping):
        return Said(f"the weights of the last epoch ({epoch}); nothing was selected", source)
    goal = {"min": "lowest", "max": "highest"}.get(str(monitor.get("goal")), "best")
    return Said(f"the epoch with the {goal} {monitor.get('column')}: epoch {epoch}", source)


def ensemble(facts: Facts) -> Said | None:
    """The members of an ensemble; None for a single model."""
    found = facts.said("ensemble")
    if not isinstance(found, Mapping):
        return None
    members, folds = found.get("members") or (), found.get("folds")
    how = f"one per fold of {folds}" if folds else "one per seed"
    return Said(f"{len(members)} models, {how}; their outputs are averaged", "checkpoint: ensemble")


def ensembling(facts: Facts) -> Said | None:
    """Whether models are joined."""
    if not facts.content:
        return None
    single = Said("one model; no ensemble", "checkpoint: ensemble (not there)")
    return ensemble(facts) or single


def imbalance(facts: Facts) -> Said | None:
    """What was done about unequal classes."""
    train = facts.chosen("train")
    if not isinstance(train, Mapping) or facts.said("task") == "regress":
        return None
    weight = train.get("pos_weight")
    words = "no weighting or resampling of classes" if weight is None else f"pos_weight {weight}"
    made = calibration(facts)
    if made is None:
        return Said(words, "config.yaml: train.pos_weight")
    return Said(f"{words}; {made.text}", f"config.yaml: train.pos_weight; {made.source}")


def calibration(facts: Facts) -> Said | None:
    """How logits become probabilities."""
    found = facts.said("calibration")
    if not isinstance(found, Mapping) or facts.said("task") == "regress":
        return None
    if found.get("method") == "off":
        return Said("probabilities are plain sigmoids, not recalibrated", "checkpoint: calibration")
    on = _place(facts.said("threshold", "calibrated_on")) or "the development images"
    slope, intercept = found.get("slope"), found.get("intercept")
    numbers = f" (slope {slope:.3g}, intercept {intercept:.3g})" if slope is not None else ""
    return Said(
        f"probabilities are recalibrated by {found.get('method')} scaling{numbers}, fitted on {on} "
        "and never on test images",
        "checkpoint: calibration",
    )


def threshold(facts: Facts) -> Said | None:
    """The operating point and how it was chosen."""
    stored = facts.said("threshold")
    if not isinstance(stored, Mapping) or facts.said("task") == "regress":
        return None
    value, used = stored.get("value"), facts.measured("threshold")
    on = _place(stored.get("chosen_on"))
    how = f"policy {stored.get('policy')}" + (f", solved on {on}" if on else ", a fixed number")
    words = f"sick where the probability is at least {_number(value)} ({how})"
    if used is not None and used != value:
        policy = facts.measured("threshold_policy")
        words += (
            f"; this evaluation used {_number(used)} instead (policy {policy}), which is "
            "exploratory unless it was planned"
        )
    return Said(words, "checkpoint: threshold; metrics.json: threshold, threshold_policy")


def output(facts: Facts) -> Said | None:
    """What the model answers."""
    if facts.said("task") == "regress":
        return Said("a number in the unit of the target column", "checkpoint: task")
    parts = [part for part in (calibration(facts), threshold(facts)) if part is not None]
    if not parts:
        return None
    words = "; ".join(part.text for part in parts)
    return Said(f"a probability of sick from 0 to 1; {words}", "checkpoint: calibration, threshold")


def formula(facts: Facts) -> Said | None:
    """How a prediction is computed and can be had again."""
    if facts.model_sha256 is None:
        return None
    return Said(
        "the checkpoint holds weights, preprocessing, calibration and threshold; "
        "xray-classifier predict CHECKPOINT FILES, or load_classifier(CHECKPOINT).predict(files), "
        f"gives the predictions; SHA-256 of the checkpoint {facts.model_sha256}",
        "checkpoints/best.safetensors",
    )


def data_source(facts: Facts) -> Said | None:
    """Where the images come from."""
    data = facts.said("data")
    if not isinstance(data, Mapping):
        return None
    if data.get("source") == "phantoms":
        drawn = value_at(data, "phantoms", "n_images")
        return Said(
            f"{drawn:,} synthetic radiographs drawn by this program; no patients, no clinical data",
            "checkpoint: data.source, data.phantoms",
        )
    name = PurePath(str(data.get("path"))).name
    count = "" if facts.listing is None else f", {len(facts.listing.splits):,} images"
    text = f"{name!r}{count}"
    return Said(text, "checkpoint: data.path; data/manifest.csv")


def is_synthetic(facts: Facts) -> bool:
    """Whether the model learnt from drawn films instead of patients."""
    return str(facts.said("data", "source")) == "phantoms"


def eligibility(facts: Facts) -> Said | None:
    """What was left out of the images found."""
    if facts.listing is None:
        return None
    parts = []
    ignored = facts.said("labels", "ignore") or []
    if ignored:
        parts.append(f"classes left out on purpose: {', '.join(map(str, ignored))}")
    limit = facts.said("data", "limit")
    if limit:
        parts.append(f"limited to {limit:,} images, drawn evenly over classes and splits")
    counts = Counter(reason for reason in facts.listing.reasons if reason)
    parts += [
        f"{n:,} left out: {'patient or copy in an earlier split' if reason == LEAK else reason}"
        for reason, n in sorted(counts.items())
    ]
    parts = parts or ["every image found was taken"]
    return Said("; ".join(parts), "data/manifest.csv: reason; checkpoint: labels.ignore")


def missing(facts: Facts) -> Said | None:
    """What happened to images without an answer."""
    listing, n = facts.listing, facts.measured("n_unreadable")
    if listing is None and n is None:
        return None
    parts = []
    if listing is not None:
        unread = sum(bool(reason) and reason != LEAK for reason in listing.reasons)
        parts.append(f"{unread:,} of {len(listing.reasons):,} images of the run could not be read")
    if n is not None:
        parts.append(f"{n:,} images of the judged split could not be read and are in no metric")
    parts.append("nothing was imputed, and no image was replaced by another")
    return Said("; ".join(parts), "data/manifest.csv: reason; metrics.json: n_unreadable")


def deidentification(facts: Facts) -> Said | None:
    """What the run keeps of patients."""
    if not facts.content or is_synthetic(facts):
        return None
    kept = (
        "none"
        if facts.said("memory") is None
        else "hashes of the training images, keyed hashes of their patients"
    )
    return Said(
        f"the checkpoint keeps of its training data: {kept}; DICOM Patient IDs are kept as keyed "
        "hashes only",
        "checkpoint: memory",
    )


def _place(name: Any) -> str | None:
    """What a checkpoint calls the images that it chose by, in words."""
    if name is None:
        return None
    return {
        "val": "the validation split",
        "calibrate": "a calibration split of its own",
        "out-of-fold": "development images that the model had not learnt from (out of fold)",
    }.get(str(name), str(name))


def _listed(values: Any) -> str:
    items = values if isinstance(values, (list, tuple)) else [values]
    return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in items)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "an unknown number"
