"""What is wrong with a config, in plain sentences, all at once, each with its place."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from xray_classifier.config import Config, Section
from xray_classifier.config_keys import all_keys, find_key, section_at
from xray_classifier.strict_yaml import KeyPath

MAX_SHOWN = 60
MAX_SENTENCE = 240
MAX_COMPLAINTS = 200

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "path_type": "a path",
    "tuple_type": "a list",
    "model_type": "a section of keys",
    "model_attributes_type": "a section of keys",
}
_LIMITS = {
    "greater_than": ("must be greater than", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be at most", "le"),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        path: The key it concerns; `()` is the whole config.
        text: What is wrong, without the key.
        unknown: Whether the key itself does not exist.
        in_override: Whether it lies in an override that never reached the config.
    """

    path: KeyPath
    text: str
    unknown: bool = False
    in_override: bool = False


def problems_of(error: ValidationError) -> list[Problem]:
    """Pydantic's complaints as sentences, one for each key, however many branches a union has.

    Past `MAX_COMPLAINTS` the rest is counted, not told, so that a hostile file costs no minutes.
    """
    complaints = error.errors(include_url=False)
    by_field: dict[KeyPath, list[tuple[KeyPath, ErrorDetails]]] = {}
    for details in complaints[:MAX_COMPLAINTS]:
        path = _key_path(details["loc"])
        by_field.setdefault(_without_items(path), []).append((path, details))
    problems: list[Problem] = []
    for field, found in by_field.items():
        # What is wrong with an item of a list explains what the list as a whole is accused of.
        items = [pair for pair in found if pair[0] != field] or found
        by_path: dict[KeyPath, list[ErrorDetails]] = {}
        for path, details in items:
            by_path.setdefault(path, []).append(details)
        problems.extend(_problem(path, details) for path, details in by_path.items())
    if len(complaints) > MAX_COMPLAINTS:
        problems.append(Problem((), f"and {len(complaints) - MAX_COMPLAINTS:,} more of the kind"))
    return problems


def report(name: str, problems: Iterable[Problem], line_of: Callable[[KeyPath], int | None]) -> str:
    """All problems of a config as one message.

    Args:
        name: What the file is called.
        problems: At least one.
        line_of: The line in the file that a key comes from; None for the command line.
    """

    placed = [(None if p.in_override else line_of(p.path), p) for p in problems]
    placed.sort(key=lambda pair: (not pair[1].unknown, pair[0] is None, pair[0] or 0))
    lines = [f"{name}: {len(placed)} problem{_s(len(placed))}"]
    for line, problem in placed:
        place = "command line" if line is None else f"{name}:{line}"
        key = f"{dotted(problem.path)}: " if problem.path else ""
        lines.append(f"  {place}  {key}{problem.text}")
    return "\n".join([*lines, _where_to_look([problem.path for _, problem in placed])])


def dotted(path: KeyPath) -> str:
    """A path for people: `train.optimizer.lr`, `model.hidden[1]`; odd keys in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if re.fullmatch(r"[\w-]{1,60}", part) else shown_value(part)
            text += f".{shown}" if text else shown
    return text


def shown_value(value: object) -> str:
    """A value as Python writes it, null and booleans as YAML does, at most `MAX_SHOWN` long."""
    yaml_words = {None: "null", True: "true", False: "false"}
    text = yaml_words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(wrong[:100], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _problem(path: KeyPath, found: Sequence[ErrorDetails]) -> Problem:
    """One problem for all that pydantic says of one key."""
    first = next((d for d in found if not _is_about_type(d)), found[0])
    if first["type"] == "extra_forbidden":
        return Problem(path, f"unknown key{_meant_key(path)}", unknown=True)
    if first["type"] == "missing":
        return Problem(path, "is missing")
    if first["type"] == "value_error":
        return _from_validator(path, str(first["ctx"]["error"]))
    return Problem(path, f"{_sentence(path, first, found)}, got {_got(first, found)}")


def _is_about_type(details: ErrorDetails) -> bool:
    """Whether the kind of value is refused; another branch of a union may take it, but not so."""
    return details["type"] in (*_KINDS, "literal_error")


def _sentence(path: KeyPath, first: ErrorDetails, found: Sequence[ErrorDetails]) -> str:
    """What the value must be."""
    context: Mapping[str, Any] = first.get("ctx", {})
    if first["type"] in _LIMITS:
        words, name = _LIMITS[first["type"]]
        return f"{words} {_number(context[name])}"
    if first["type"] == "too_short":
        return f"must have at least {context['min_length']} item{_s(context['min_length'])}"
    if first["type"] == "too_long":
        return f"must have at most {context['max_length']} item{_s(context['max_length'])}"
    if all(details["type"] == "literal_error" for details in found):
        return f"must be one of {', '.join(_choices(found))}"
    if _is_about_type(first):
        return f"must be {' or '.join(_allowed(path, found))}"
    return first["msg"][:1].lower() + first["msg"][1:]


def _allowed(path: KeyPath, found: Sequence[ErrorDetails]) -> list[str]:
    """The kinds of value that the branches of a key would take."""
    kinds = [_KINDS[d["type"]] for d in found if d["type"] in _KINDS]
    key = find_key(tuple(str(part) for part in path))
    null = ["null"] if key is not None and key.nullable else []
    return [*dict.fromkeys(kinds), *_choices(found), *null]


def _choices(found: Sequence[ErrorDetails]) -> list[str]:
    """The words that an enumeration takes."""
    expected = [d["ctx"]["expected"] for d in found if d["type"] == "literal_error"]
    return [word for text in expected for word in re.findall(r"'([^']*)'", text)]


def _got(first: ErrorDetails, found: Sequence[ErrorDetails]) -> str:
    """The value as given, and the word that was perhaps meant."""
    value = first["input"]
    hint = did_you_mean(value.lower(), _choices(found)) if isinstance(value, str) else ""
    return shown_value(value) + hint


def _from_validator(path: KeyPath, text: str) -> Problem:
    """A complaint of our own: `key: text` concerns that key of the section, any other all of it."""
    key, colon, rest = text.partition(": ")
    below = (*path, *key.split("."))
    if colon and find_key(tuple(str(part) for part in below)) is not None:
        return Problem(below, rest)
    return Problem(path, text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 3] + "...")


def _meant_key(path: KeyPath) -> str:
    """`; did you mean 'x'?`: a near name here, else the same name in another section."""
    wrong = str(path[-1])
    section = section_at(tuple(str(part) for part in path[:-1]))
    here = list(section.model_fields) if section is not None else []
    close = difflib.get_close_matches(wrong[:100].replace("-", "_"), here, n=1, cutoff=0.8)
    elsewhere = [key.dotted for key in all_keys() if key.path[-1] == wrong]
    # Of the places that have this name, the one that shares most of the path is the likeliest.
    elsewhere.sort(key=lambda other: -_shared(dotted(path), other))
    if close or not elsewhere:
        return f"; did you mean {close[0]!r}?" if close else did_you_mean(wrong, here)
    return f"; did you mean {elsewhere[0]!r}?"


def _shared(one: str, other: str) -> int:
    """How many leading names two dotted paths share."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), 0)


def _where_to_look(paths: Sequence[KeyPath]) -> str:
    """The command that lists the keys of the smallest section that holds all problems."""
    sections = [_section_path(path) for path in paths]
    common = sections[0]
    for other in sections[1:]:
        depth = next(
            (i for i, (a, b) in enumerate(zip(common, other, strict=False)) if a != b),
            min(len(common), len(other)),
        )
        common = common[:depth]
    if not common:
        return "Run `xray-classifier config show` to list all keys."
    name = ".".join(common)
    return f"Run `xray-classifier config show {name}` to list the keys of this section."


def _section_path(path: KeyPath) -> tuple[str, ...]:
    """The longest part of a path that names a section."""
    names = tuple(str(part) for part in path)
    while section_at(names) is None:
        names = names[:-1]
    return names


def _key_path(location: Sequence[int | str]) -> KeyPath:
    """Pydantic's location without the names of union branches."""
    path: list[str | int] = []
    section: type[Section] | None = Config
    for part in location:
        if section is not None:
            path.append(part)
            key = find_key(tuple(str(name) for name in path))
            section = None if key is None else key.section
        elif isinstance(part, int):
            path.append(part)
    return tuple(path)


def _without_items(path: KeyPath) -> KeyPath:
    """The path of the key that holds a list item."""
    return tuple(part for part in path if isinstance(part, str))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _s(count: int) -> str:
    return "" if count == 1 else "s"
