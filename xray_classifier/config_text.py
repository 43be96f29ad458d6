"""A `Config` as text: YAML that loads back, YAML with comments, the reference, the JSON Schema."""

import difflib
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from xray_classifier.config import Config, Section
from xray_classifier.config_keys import Key, all_keys, find_key, keys_of, section_at, type_in_words
from xray_classifier.errors import UsageError
from xray_classifier.strict_yaml import resolve

WIDTH = 80

_PLAIN = re.compile(r"[A-Za-z_./~][A-Za-z0-9_./=-]*")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def dump_config(config: Config) -> str:
    """A config as YAML, every key in the order of its section; loads back to an equal config."""
    return "".join(f"{line}\n" for line in _yaml_lines(config.model_dump()))


def commented_yaml(values: Mapping[str, Any], header: str) -> str:
    """A config file with every key and its docstring, for a person to edit.

    Args:
        values: Nested values that take the place of defaults; null closes a section.
        header: Text for the top of the file, without `#`.

    Raises:
        ValueError: `values` holds a key that does not exist.
    """
    lines = [*(f"# {line}".rstrip() for line in header.splitlines()), ""]
    lines.extend(_commented_lines(Config, values, ()))
    return "\n".join(lines) + "\n"


def describe(section: str | None) -> str:
    """The reference of a section, or of one key: type, default and docstring, 80 columns wide.

    Args:
        section: Its dotted path, such as `train.optimizer`; None for the whole config.

    Raises:
        UsageError: There is no such section or key.
    """
    path = tuple(section.split(".")) if section else ()
    opened = section_at(path)
    key = find_key(path)
    if opened is None:
        if key is None:
            raise UsageError(_no_such_section(section or ""))
        return "\n".join(_reference_lines(key)) + "\n"
    title = "" if key is None else f"{key.dotted}: "
    blocks = [textwrap.fill(title + " ".join((opened.__doc__ or "").split()), WIDTH)]
    blocks.extend("\n".join(_reference_lines(nested)) for nested in all_keys(opened, path))
    return "\n\n".join(blocks) + "\n"


def markdown_reference() -> str:
    """Every key with its default and docstring as a Markdown table, for the README."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key in all_keys():
        name = f"**`{key.dotted}`**" if key.section is not None else f"`{key.dotted}`"
        default = "" if key.section is not None else f"`{yaml_value(key.default)}`"
        meaning = key.doc.replace("|", "\\|")
        lines.append(f"| {name} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a config file, for editors that complete and check YAML."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "xray-classifier config",
    }


def yaml_value(value: Any) -> str:
    """A scalar or list on one line of YAML that `strict_yaml` reads back to the same value."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(yaml_value(item) for item in value)}]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return _yaml_number(value)
    return _yaml_text(str(value))


def _yaml_number(value: int | float) -> str:
    """A number; the words for infinity and NaN are YAML's."""
    return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))


def _yaml_text(text: str) -> str:
    """A text, in quotes wherever it could be read as anything else."""
    if _PLAIN.fullmatch(text) and isinstance(resolve(text), str):
        return text
    return _UNPRINTABLE.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"


def _yaml_lines(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _yaml_lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {yaml_value(value)}"


def _commented_lines(
    section: type[Section], values: Mapping[str, Any], prefix: tuple[str, ...]
) -> Iterator[str]:
    """The keys of one section, each under its comment; top-level keys stand apart."""
    unknown = [name for name in values if name not in section.model_fields]
    if unknown:
        raise ValueError(f"{'.'.join((*prefix, unknown[0]))} is no key of the config")
    indent = "  " * len(prefix)
    for key in keys_of(section, prefix):
        name = key.path[-1]
        value = values.get(name, key.default)
        if not prefix and key.section is not None:
            yield ""
        yield from _comment(key, indent)
        if key.section is None or (name in values and value is None):
            yield f"{indent}{name}: {yaml_value(value)}"
        else:
            yield f"{indent}{name}:"
            nested = values.get(name, {})
            yield from _commented_lines(key.section, nested, key.path)


def _comment(key: Key, indent: str) -> list[str]:
    """The docstring of a key as comment lines, ending with the type where it says more."""
    text = key.doc if key.section is not None else f"{key.doc} ({type_in_words(key.hint)})"
    return _wrapped(text, f"{indent}# ", f"{indent}# ")


def _reference_lines(key: Key) -> list[str]:
    """One entry of the reference: path, type and default, then the docstring below."""
    head = f"{key.dotted}: {type_in_words(key.hint)}"
    if key.section is None:
        head += f"; default {yaml_value(key.default)}"
    return [*_wrapped(head, "", "  "), *_wrapped(key.doc, "    ", "    ")]


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _no_such_section(asked: str) -> str:
    known = [key.dotted for key in all_keys()]
    sections = [key.dotted for key in all_keys() if key.section is not None]
    leaves = [dotted for dotted in known if dotted.split(".")[-1] == asked]
    near = leaves[:1] or difflib.get_close_matches(asked, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    shown = asked if asked.isprintable() and len(asked) <= 60 else repr(asked[:57] + "...")
    return f"config show {shown}: no such section{hint}\nSections: {', '.join(sections)}"
