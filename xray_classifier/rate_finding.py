"""`lr-find`: the learning rate range test on a config, with a suggestion to paste."""

from dataclasses import dataclass
from pathlib import Path

from xray_classifier.building import run_building
from xray_classifier.config_file import LoadedConfig
from xray_classifier.data.loading import run_loading
from xray_classifier.errors import UsageError
from xray_classifier.files import csv_text, make_folder, printable, write_bytes, write_text
from xray_classifier.lesson.loss_parts import loss_name
from xray_classifier.lesson.rate_sweep import RateSweep, sweep_rates, swept_rates
from xray_classifier.members import is_repeated, member_config, members_of
from xray_classifier.report.figures import sweep_curve
from xray_classifier.run_folder import fresh_folder, time_stamp
from xray_classifier.terminal import Terminal

CSV_NAME, PICTURE = "lr_find.csv", "lr_find.png"
CSV_COLUMNS = ("step", "lr", "batch_loss", "sample_loss", "smoothed_loss")
FEWEST_STEPS = 20


@dataclass(frozen=True)
class LrFindResult:
    """What `lr-find` comes to; `--json` prints it.

    Attributes:
        suggested: The learning rate; None where the loss falls at no rate.
        override: To paste behind `train`; `` without a suggestion.
        lowest_at: Rate at which the loss was lowest; good rates lie between.
        diverged_at: Rate at which the loss began to grow without end; None where it did not.
        steps: Steps that were taken.
        out: Folder with the picture and the CSV.
    """

    suggested: float | None
    override: str
    lowest_at: float | None
    diverged_at: float | None
    steps: int
    out: str


def run_lr_find(
    loaded: LoadedConfig,
    terminal: Terminal,
    *,
    out: Path | None = None,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 150,
) -> LrFindResult:
    """Train once over rising learning rates and suggest one; the same seed gives the same answer.

    Args:
        loaded: The config; of several models the first is trained. Its learning rate and schedule
            are not used.
        terminal: What the user reads.
        out: Folder to write into; None makes lr_find/<date>_NAME.
        lowest: First rate.
        highest: Last rate, unless the loss diverges before.
        steps: At least 20.

    Raises:
        UsageError: The rates do not rise from above 0, or there are too few steps.
        DataError: The data cannot be used.
    """
    if not 0 < lowest < highest < float("inf"):
        raise UsageError(
            f"--from {lowest:g} --to {highest:g}: the rates must rise from above 0, such as "
            "--from 1e-6 --to 10"
        )
    if steps < FEWEST_STEPS:
        raise UsageError(f"--steps {steps}: give at least {FEWEST_STEPS}, for the loss is noisy")
    if is_repeated(loaded.config):
        loaded = member_config(loaded, members_of(loaded.config)[0])
    config = loaded.config
    radiographs = run_loading(config.data, config.task, terminal)
    trainer = run_building(config, radiographs).trainer
    terminal.say(
        f"{config.train.optimizer.name}, batches of {trainer.batch_size}: {steps} steps from "
        f"{lowest:g} to {highest:g}"
    )
    sweep = sweep_rates(trainer, swept_rates(lowest, highest, steps))
    folder = out or fresh_folder(Path("lr_find"), f"{time_stamp()}_{loaded.name}")
    make_folder(folder)
    _write(folder, sweep, loaded)
    return _said(folder, sweep, terminal)


def _write(folder: Path, sweep: RateSweep, loaded: LoadedConfig) -> None:
    columns = (sweep.rates, sweep.batch_losses, sweep.losses, sweep.smoothed)
    rows = zip(range(1, len(sweep.rates) + 1), *(c.tolist() for c in columns), strict=True)
    write_text(folder / CSV_NAME, csv_text(CSV_COLUMNS, rows))
    title = f"Learning rate range test: {loaded.name}, {loaded.config.train.optimizer.name}"
    picture = sweep_curve(sweep, title=title, loss_name=loss_name(loaded.config.task))
    write_bytes(folder / PICTURE, picture)


def _said(folder: Path, sweep: RateSweep, terminal: Terminal) -> LrFindResult:
    """The answer in words and as values."""
    override = "" if sweep.suggested is None else f"train.optimizer.lr={sweep.suggested:g}"
    if sweep.diverged_at is not None:
        terminal.say(f"the loss began to grow without end at {sweep.diverged_at:.2g}")
    if override:
        terminal.say(
            f"the loss is lowest at {sweep.lowest_at:g} and, in the half decade below that, falls "
            f"fastest at {sweep.suggested:g}: good rates lie between"
        )
    else:
        terminal.warn(
            "the loss falls at no rate; try --from 1e-8, more --steps, or look at the data"
        )
    terminal.say(f"written to {printable(folder)}: {CSV_NAME}, {PICTURE}")
    if override:
        terminal.say(f"Next: add {override} to your command, and try up to {sweep.lowest_at:g}")
    return LrFindResult(
        sweep.suggested, override, sweep.lowest_at, sweep.diverged_at, len(sweep.rates), str(folder)
    )
