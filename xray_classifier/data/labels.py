"""What class names mean: healthy is 0, sick is 1, and a name nobody explained stops the run."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from xray_classifier.errors import DataError
from xray_classifier.files import printable

MOST_SHOWN = 20
HEALTHY_WORDS = re.compile(
    r"(^|[^a-z])(normals?|healthy|negative|no[ _-]?findings?|controls?|clear|benign)([^a-z]|$)|^0$"
)
PLAIN_YAML = re.compile(r"[A-Za-z][A-Za-z0-9_-]*|0|[1-9][0-9]*")
YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")


def class_targets(
    classes: Sequence[str],
    *,
    healthy: Sequence[str],
    sick: Sequence[str],
    ignore: Sequence[str],
    where: str,
    notes: Sequence[str] = (),
    need_all: bool = True,
) -> NDArray[np.float64]:
    """Turn class names into targets; names compare as text, letter by letter.

    Args:
        classes: Class name per image, length n_images.
        healthy: Names that mean 0.
        sick: Names that mean 1.
        ignore: Names of images to leave out; they need not be found.
        where: The data, as a person would name them in a message.
        notes: What was passed over when the images were listed; shown if the names do not fit.
        need_all: Whether each name of `healthy` and `sick` must be found, for a typing error leaves
            a class out; images that are only to be judged may be of one class.

    Returns:
        Shape (n_images,): 0.0 healthy, 1.0 sick, NaN for images to leave out.

    Raises:
        DataError: A name found is not explained, or a name explained is not found.
    """
    counts = Counter(classes)
    meaning = dict.fromkeys(ignore, np.nan) | dict.fromkeys(healthy, 0.0) | dict.fromkeys(sick, 1.0)
    unknown = sorted(set(counts) - set(meaning))
    missing = [name for name in (*healthy, *sick) if name not in counts]
    if unknown or (missing and need_all):
        lines = _mismatch(counts, unknown, missing)
        proposal = _proposal(counts, healthy, sick, ignore)
        raise DataError(
            "\n".join(
                [
                    f"{where}: the classes do not fit data.labels",
                    *lines,
                    *(f"  note: {note}" for note in notes),
                    f"Say what each class means, for example: {proposal}",
                ]
            )
        )
    return np.array([meaning[name] for name in classes], dtype=np.float64)


def guess_roles(classes: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Guess which class names mean healthy, for a person to confirm; never used to train.

    Returns:
        Names that look healthy (normal, healthy, negative, no finding, 0, ...), and the others.
    """
    names = sorted(set(classes))
    healthy = tuple(name for name in names if HEALTHY_WORDS.search(name.lower()))
    return healthy, tuple(name for name in names if name not in healthy)


def labels_override(healthy: Iterable[str], sick: Iterable[str], ignore: Iterable[str] = ()) -> str:
    """The command-line override that sets `data.labels`, quoted for a shell, ready to paste."""
    roles = {"healthy": healthy, "sick": sick, "ignore": tuple(ignore)}
    parts = (
        f"{role}: [{', '.join(map(_yaml_text, names))}]"
        for role, names in roles.items()
        if role != "ignore" or names
    )
    inside = "{" + ", ".join(parts) + "}"
    return "data.labels='" + inside.replace("'", "'\\''") + "'"


def listed(counts: Mapping[str, int]) -> str:
    """Class names with their number of images, the first twenty, for a message."""
    shown = [f"{_shown(name)} (n={counts[name]})" for name in sorted(counts)[:MOST_SHOWN]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _mismatch(
    counts: Mapping[str, int], unknown: Sequence[str], missing: Sequence[str]
) -> list[str]:
    lines = [f"  found: {listed(counts)}"]
    if unknown:
        lines.append(f"  found but not in data.labels: {_names(unknown)}")
    if missing:
        lines.append(f"  in data.labels but not found: {_names(missing)}")
    for name in missing:
        near = _nearest(name, unknown)
        if near is not None:
            case = " Letter case counts." if near.casefold() == name.casefold() else ""
            lines.append(f"  {_shown(name)}: did you mean {_shown(near)}?{case}")
    return lines


def _nearest(name: str, candidates: Sequence[str]) -> str | None:
    """The candidate that differs in letter case only, else one that is spelled alike."""
    folded = {candidate.casefold(): candidate for candidate in candidates}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.75)
    return folded[near[0]] if near else None


def _proposal(
    counts: Mapping[str, int], healthy: Sequence[str], sick: Sequence[str], ignore: Sequence[str]
) -> str:
    """An override in which each class found has a meaning: the configured one, else a guess."""
    if len(counts) > MOST_SHOWN:
        return labels_override(["A"], ["B", "C"])
    like_healthy, _ = guess_roles(counts)
    free = [name for name in sorted(counts) if name not in (*healthy, *sick, *ignore)]
    if free and not any(name in like_healthy or name in healthy for name in counts):
        return labels_override(["A"], ["B"])  # which is which, only a person can say
    return labels_override(
        [n for n in sorted(counts) if n in healthy or (n in free and n in like_healthy)] or ["A"],
        [n for n in sorted(counts) if n in sick or (n in free and n not in like_healthy)] or ["B"],
        [n for n in sorted(counts) if n in ignore],
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(map(_shown, names[:MOST_SHOWN])) + more


def _shown(name: str) -> str:
    return printable(name) or "(empty)"


def _yaml_text(name: str) -> str:
    """A name as strict YAML reads it back as the same text."""
    plain = PLAIN_YAML.fullmatch(name) and name.lower() not in YAML_WORDS
    return name if plain else '"' + "".join(map(_yaml_char, name)) + '"'


def _yaml_char(char: str) -> str:
    if char in '"\\' or not char.isprintable():
        return f"\\U{ord(char):08x}"
    return char
