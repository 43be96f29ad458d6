"""Parts of the lesson page on training: learning rates, gradient flow, and overfitting."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from xray_classifier.lesson.brief_training import brief_setting
from xray_classifier.lesson.flow import (
    LARGEST_STEP,
    SMALLEST_STEP,
    LayerFlow,
    flow_warnings,
    layer_words,
    measure_flow,
)
from xray_classifier.lesson.loss_parts import loss_name
from xray_classifier.lesson.parting import (
    HELD_IMAGES,
    OPTIMIZER,
    PATIENCE,
    TRAIN_IMAGES,
    USUAL_DROPOUT,
    Parting,
    measure_parting,
)
from xray_classifier.lesson.rates import RateTraining, measure_rates
from xray_classifier.lesson.recording import FLOW_IMAGES, FOLDER, read_flow
from xray_classifier.lesson.subject import Subject, some_of
from xray_classifier.report.figures import flow_chart, parting_curves, rate_curves, sweep_curve
from xray_classifier.report.lesson_page import LessonPart
from xray_classifier.report.page import ReportFigure
from xray_classifier.report.words import quantity_text

RATE_IMAGES = 256


def rates_part(subject: Subject) -> LessonPart | None:
    """A range test, and four short trainings with learning rates that follow from it.

    Returns:
        The part; None where the loss falls at no rate.
    """
    setting = brief_setting(subject, some_of(subject.splits["train"], RATE_IMAGES))
    found = measure_rates(setting)
    if found is None:
        return None
    name = loss_name(subject.classifier.task)
    rows = tuple(
        (
            t.name, t.optimizer, f"{t.rate:g}", quantity_text(float(t.curve.losses[0, 0])),
            quantity_text(float(t.curve.losses[-1, 0])), "yes" if t.curve.diverged else "no",
        )
        for t in found.trainings
    )  # fmt: skip
    return LessonPart(
        "learning_rate",
        "The learning rate",
        (
            "The learning rate is the length of a step. The first picture raises it from tiny to "
            "huge within one short training: good rates lie below the one with the lowest loss, "
            "where it still falls fast; where it shoots up the steps are too long.",
            "The second picture trains this network anew with a rate that is too small, one "
            "from that range, one that is too large, and with Adam, which finds a step for each "
            "weight. " + " ".join(_outcome(t) for t in found.trainings),
        ),
        (
            ReportFigure(
                "The range test",
                sweep_curve(found.sweep, title="The range test with sgd", loss_name=name),
                f"Loss against learning rate; suggested {found.sweep.suggested:g}",
            ),
            ReportFigure(
                "Too small, right, too large, adaptive",
                rate_curves(found, loss_name=name),
                "Loss against steps for four learning rates: "
                + "; ".join(f"{t.name} {t.rate:g}" for t in found.trainings),
                ("training", "optimizer", "learning rate", "first loss", "last loss", "not finite"),
                rows,
            ),
        ),
        "w ← w - lr · ∇L(w);   Adam: w ← w - lr · m / (√v + ε), m and v running means of g and g²",
        "train.optimizer.lr, train.optimizer.name (see also `xray-classifier lr-find`)",
        "Smith 2017, Cyclical learning rates for training neural networks, "
        "doi:10.1109/WACV.2017.58; Kingma & Ba 2015, Adam, arXiv:1412.6980",
        notes=(
            "Right is the one of "
            + ", ".join(f"{rate:g}" for rate in found.tried)
            + " with the smallest loss at the end; too small is a hundredth of it. "
            f"{found.n} training images, batches of 32, the network and the loss of this run, "
            "without its schedule. A low rate is often called stuck; mostly it is only slow, "
            "which looks the same from close by.",
        ),
        numbers={
            "suggested": found.sweep.suggested,
            "lowest_at": found.sweep.lowest_at,
            "diverged_at": found.sweep.diverged_at,
            "trainings": {
                t.name: {"lr": t.rate, "last_loss": float(t.curve.losses[-1, 0])}
                for t in found.trainings
            },
        },
    )


def _outcome(training: RateTraining) -> str:
    """What one training came to, from its numbers."""
    first, last = training.curve.losses[0, 0], training.curve.losses[-1, 0]
    name = f"{training.name.capitalize()} ({training.optimizer}, {training.rate:g}):"
    if training.curve.diverged:
        return f"{name} no longer finite after step {training.curve.steps[-1]}."
    peak = float(training.curve.losses[:, 0].max())
    if peak > 1.5 * max(first, last):
        return (
            f"{name} {quantity_text(float(first))} up to {quantity_text(peak)}, then "
            f"{quantity_text(float(last))}."
        )
    return f"{name} {quantity_text(float(first))} to {quantity_text(float(last))}."


def parting_part(subject: Subject) -> LessonPart | None:
    """Two losses that part on few images, without and with dropout; None without validation."""
    if "val" not in subject.splits:
        return None
    setting = brief_setting(
        subject,
        some_of(subject.splits["train"], TRAIN_IMAGES),
        some_of(subject.splits["val"], HELD_IMAGES),
    )
    rates = setting.architecture.dropout
    dropout = (max(rates) or USUAL_DROPOUT) if rates else None
    found = measure_parting(setting, dropout=dropout)
    name = loss_name(subject.classifier.task)
    rows = tuple(
        (
            f"{t.dropout:g}", f"{t.train[-1]:.4f}", f"{t.held[-1]:.4f}", f"{t.gap:.4f}",
            f"{t.best_epoch}", f"{t.held[t.best_epoch]:.4f}",
            "-" if t.stop_epoch is None else f"{t.stop_epoch}",
        )
        for t in found.trainings
    )  # fmt: skip
    return LessonPart(
        "overfitting",
        "Overfitting, dropout and early stopping",
        (
            f"Here this network was trained anew on {found.n_train} images, few enough to learn by "
            "heart. Where the loss on them falls further than that on other images, the gap "
            "between the lines is what was learnt of these images alone.",
            *_parting_words(found),
        ),
        (
            ReportFigure(
                "Training and validation loss",
                parting_curves(found, loss_name=name),
                "Loss on images learnt from and on others over the epochs; gap at the end "
                + " and ".join(f"{t.gap:.3f} with dropout {t.dropout:g}" for t in found.trainings),
                ("dropout", "learnt from", "others", "gap", "kept epoch", "its loss", "stop"),
                rows,
            ),
        ),
        "stop after `patience` epochs without a new minimum of the validation loss; keep the best\n"
        "dropout p in training: answer ← answer · kept / (1 - p),  kept = 1 with chance 1 - p",
        "model.dropout, train.early_stopping.patience, train.early_stopping.monitor",
        "Srivastava et al. 2014, Dropout, JMLR 15:1929; Prechelt 1998, Early stopping - but when?, "
        "doi:10.1007/3-540-49430-8_3",
        notes=(
            f"{OPTIMIZER['name']}, learning rate {OPTIMIZER['lr']:g}, a patience of {PATIENCE} "
            "epochs; few images on purpose. The stopping point was chosen on the validation "
            "images, so their loss there is a little too good: what stops the training cannot "
            "also judge it. Stopping on the test set, as some papers do, spoils the test set.",
            *(
                ()
                if rates
                else ("A perceptron has no hidden units, so there is nothing to silence.",)
            ),
        ),
        numbers={
            f"dropout_{t.dropout:g}": {
                "gap": t.gap,
                "best_epoch": t.best_epoch,
                "stop_epoch": t.stop_epoch,
                "best_loss": float(t.held[t.best_epoch]),
                "last_loss": float(t.held[-1]),
            }
            for t in found.trainings
        },
    )


def _parting_words(found: Parting) -> list[str]:
    """What came of it, from the numbers, whatever that was."""
    plain = found.trainings[0]
    stopped = (
        "would not have stopped it"
        if plain.stop_epoch is None
        else f"would have stopped it at epoch {plain.stop_epoch}"
    )
    words = [
        f"Without dropout the losses end {abs(plain.gap):.2f} apart. Early stopping {stopped} "
        f"and kept epoch {plain.best_epoch}, with a validation loss of "
        f"{plain.held[plain.best_epoch]:.3f}; at the end it is {plain.held[-1]:.3f}"
        + (
            "."
            if plain.held[plain.best_epoch] <= plain.held[-1]
            else ", lower: here patience was too short."
        )
    ]
    if len(found.trainings) > 1:
        other = found.trainings[1]
        closer = "closer together" if abs(other.gap) < abs(plain.gap) else "no closer together"
        best = float(other.held[other.best_epoch] - plain.held[plain.best_epoch])
        words.append(
            f"With dropout {other.dropout:g} they end {abs(other.gap):.2f} apart, {closer}; its "
            f"best validation loss is {abs(best):.3f} {'lower' if best < 0 else 'higher'}."
        )
    return words


def flow_part(subject: Subject) -> LessonPart:
    """Norms of weights, gradients and steps, and dead units: as recorded, or now."""
    network = subject.classifier
    recorded = read_flow(subject.run_dir / FOLDER)
    batch = some_of(subject.splits["train"], FLOW_IMAGES)
    records = recorded or measure_flow(
        network.model, network.standardize, subject.loss, batch,
        epoch=int(network.content.get("epoch") or 0),
    )  # fmt: skip
    layers: dict[str, list[LayerFlow]] = defaultdict(list)
    for record in records:
        layers[layer_words(record.layer)].append(record)
    warnings = tuple(flow_warnings(records))
    missing = (
        "This run recorded nothing of its flow, so only its kept weights could be measured: norms "
        "and dead units, no steps. Train with train.lesson=true to see them over time."
    )
    return LessonPart(
        "gradient_flow",
        "Gradient flow",
        (
            "Backpropagation hands the gradient from the last layer back to the first. If it fades "
            "on the way, the first layers learn nothing; if it swells, the steps tear the weights "
            "apart. A unit that gives the same answer to every image is dead: no gradient passes.",
            _flow_words(records, layers),
        ),
        (
            ReportFigure(
                "Layer by layer",
                flow_chart(layers, healthy=(SMALLEST_STEP, LARGEST_STEP), n=len(batch)),
                "Norms of weights, gradients and steps and the share of dead units of "
                f"{len(layers)} layers",
                ("layer", "epoch", "weights", "gradient", "step / weights", "dead units"),
                tuple(_last_row(name, rows[-1]) for name, rows in layers.items()),
            ),
        ),
        "∂L/∂W_l = δ_l · a_(l-1)ᵀ,   δ_l = (W_(l+1)ᵀ δ_(l+1)) ⊙ activation'(z_l)\n"
        "step / weights = |W after - W before| / |W after|",
        "train.lesson (records it), train.optimizer.lr, train.grad_clip, model.activation, "
        "model.init, model.norm, model.residual",
        "Rumelhart et al. 1986, doi:10.1038/323533a0; Glorot & Bengio 2010, PMLR 9:249; Karpathy, "
        "CS231n notes (step / weights about 1e-3); dead units: Lu et al. 2020, "
        "doi:10.4208/cicp.OA-2020-0165",
        warnings=warnings,
        notes=() if recorded else (missing,),
        numbers={
            "recorded": bool(recorded),
            "layers": {
                name: {
                    "weight_norm": rows[-1].weight_norm,
                    "gradient_norm": rows[-1].gradient_norm,
                    "dead_share": rows[-1].dead_share,
                }
                for name, rows in layers.items()
            },
        },
    )


def _last_row(name: str, row: LayerFlow) -> tuple[str, ...]:
    ratio = row.update_norm / row.weight_norm if row.weight_norm else np.nan
    return (
        name,
        f"{row.epoch}",
        f"{row.weight_norm:.3g}",
        f"{row.gradient_norm:.3g}",
        "-" if np.isnan(ratio) else f"{ratio:.2g}",
        "-" if np.isnan(row.dead_share) else f"{100 * row.dead_share:.1f} %",
    )


def _flow_words(records: Sequence[LayerFlow], layers: dict[str, list[LayerFlow]]) -> str:
    """The state at the end, in one sentence or two."""
    dead = {n: r[-1].dead_share for n, r in layers.items() if not np.isnan(r[-1].dead_share)}
    words = []
    if dead:
        worst = max(dead, key=lambda name: dead[name])
        words.append(f"The layer with most dead units is {worst}: {100 * dead[worst]:.1f} %.")
    ratios = [
        r.update_norm / r.weight_norm
        for r in records
        if not np.isnan(r.update_norm) and r.weight_norm > 0
    ]
    if ratios:
        words.append(
            f"Half of the recorded steps change the weights by less than {np.median(ratios):.1e} "
            "of their length; about 1e-3 is usual, and the green band is what gives no warning."
        )
    return " ".join(words) or "There is one layer alone, and no unit that could be dead."
