"""`sample-size`: how many images a test set needs for an interval as narrow as one wants."""

from dataclasses import dataclass

from xray_classifier.errors import UsageError
from xray_classifier.sample_size import (
    SampleSize,
    in_words,
    sample_size_for_auroc,
    sample_size_for_sensitivity,
    sample_size_for_specificity,
)
from xray_classifier.terminal import Terminal


@dataclass(frozen=True)
class SizingResult:
    """What `sample-size` comes to; `--json` prints it. None for what was not asked."""

    sensitivity: SampleSize | None
    specificity: SampleSize | None
    auroc: SampleSize | None


def run_sizing(
    terminal: Terminal,
    *,
    prevalence: float,
    half_width: float = 0.05,
    sensitivity: float | None = None,
    specificity: float | None = None,
    auroc: float | None = None,
) -> SizingResult:
    """Say how many sick and healthy images are needed.

    Args:
        terminal: What the user reads.
        prevalence: Share of sick in the test set, in (0, 1).
        half_width: Half of the width of the 95 % interval, in (0, 0.5).
        sensitivity: Expected one, in (0, 1); None: not asked.
        specificity: The same.
        auroc: The same, in (0.5, 1).

    Raises:
        UsageError: Nothing is asked, or a number is out of its range.
    """
    asked = {"sensitivity": sensitivity, "specificity": specificity, "auroc": auroc}
    if all(value is None for value in asked.values()):
        raise UsageError("name what is expected: --sensitivity 0.9, --specificity 0.9, --auroc 0.9")
    for name, value in {**asked, "prevalence": prevalence, "within": half_width}.items():
        low, high = {"auroc": (0.5, 1.0), "within": (0.0, 0.5)}.get(name, (0.0, 1.0))
        if value is not None and not low < value < high:
            raise UsageError(f"--{name} {value}: must lie between {low:g} and {high:g}")
    solvers = {
        "sensitivity": sample_size_for_sensitivity,
        "specificity": sample_size_for_specificity,
        "auroc": sample_size_for_auroc,
    }
    found = {
        name: None if value is None else solvers[name](value, prevalence, half_width)
        for name, value in asked.items()
    }
    for size in found.values():
        if size is not None:
            terminal.say(in_words(size))
    terminal.say("one image a patient; where patients have several, count patients")
    return SizingResult(**found)
