"""The keys of `Config` as a list: path, type in words, default and docstring of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from xray_classifier.config import Config, Section

_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    NoneType: "null",
}
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


@dataclass(frozen=True)
class Key:
    """One key that a user can set.

    Args:
        path: The section names and the key, as in `("train", "optimizer", "lr")`.
        hint: Its annotation in `config.py`.
        default: Its default; for a section, the section with its defaults, None if required.
        doc: Its docstring, on one line.
        section: The class of the section that it opens; None for a value.
        nullable: Whether null is allowed.
    """

    path: tuple[str, ...]
    hint: Any
    default: Any
    doc: str
    section: type[Section] | None
    nullable: bool

    @property
    def dotted(self) -> str:
        """The path as an override spells it, `train.optimizer.lr`."""
        return ".".join(self.path)


def keys_of(section: type[Section] = Config, prefix: tuple[str, ...] = ()) -> Iterator[Key]:
    """The keys directly in a section, in the order of the file."""
    hints = get_type_hints(section, include_extras=True)
    for name, field in section.model_fields.items():
        branches = _branches(hints[name])
        nested = [b for b in branches if isinstance(b, type) and issubclass(b, Section)]
        yield Key(
            path=(*prefix, name),
            hint=hints[name],
            default=None if field.is_required() else field.default,
            doc=" ".join((field.description or "").split()),
            section=nested[0] if nested else None,
            nullable=NoneType in branches,
        )


def all_keys(section: type[Section] = Config, prefix: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key of a section and of the sections in it, each section before its keys."""
    for key in keys_of(section, prefix):
        yield key
        if key.section is not None:
            yield from all_keys(key.section, key.path)


def find_key(path: tuple[str, ...]) -> Key | None:
    """The key at a path, None if there is none."""
    return _by_path().get(path)


def section_at(path: tuple[str, ...]) -> type[Section] | None:
    """The section at a path, None if there is none; `()` is the whole config."""
    if not path:
        return Config
    key = find_key(path)
    return None if key is None else key.section


def type_in_words(hint: Any) -> str:
    """An annotation for people: `whole number above 0, or full`, `[text, ...]`, `one of a, b`."""
    branches = _branches(hint)
    if len(branches) > 1:
        return ", or ".join(type_in_words(branch) for branch in branches)
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        return type_in_words(base) + _bounds_in_words(notes)
    if get_origin(hint) is Literal:
        choices = ", ".join(get_args(hint))
        return choices if len(get_args(hint)) == 1 else f"one of {choices}"
    if get_origin(hint) is tuple:
        return f"[{type_in_words(get_args(hint)[0])}, ...]"
    if isinstance(hint, type) and issubclass(hint, Section):
        return "section"
    return _KINDS.get(hint, "path")


@cache
def _by_path() -> dict[tuple[str, ...], Key]:
    return {key.path: key for key in all_keys()}


def _branches(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _bounds_in_words(notes: list[Any]) -> str:
    """` above 0 and below 1` for the numeric limits among the notes of an annotation."""
    limits = [limit for note in notes if isinstance(note, FieldInfo) for limit in note.metadata]
    words = [
        f"{word} {getattr(limit, name):g}"
        if abs(getattr(limit, name)) < 1e6
        else f"{word} {getattr(limit, name)}"
        for limit in limits
        for name, word in _BOUNDS.items()
        if hasattr(limit, name)
    ]
    return f" {' and '.join(words)}" if words else ""
