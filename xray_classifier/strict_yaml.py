"""YAML that means one thing: plain data, the line of every key, and nothing that can surprise.

Scalars follow the core schema of YAML 1.2, read strictly: `1e-3` is a number; `no`, `yes`, `on`,
`off`, `1_000`, `0x10`, `12:30` and `2024-01-01` are text, and so is a number with a leading zero
(`010`, `007`), which other readers take for 8, 10 or 7. Anchors, aliases, tags, merge keys, several
documents, duplicate keys and keys that are no text are refused.

The builder reads PyYAML's events with a stack of its own, so nesting can exhaust nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import yaml

from xray_classifier.errors import ConfigError

Scalar: TypeAlias = str | int | float | bool | None
KeyPath: TypeAlias = tuple[str | int, ...]
Position: TypeAlias = tuple[int, int]

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_INT_DIGITS = 300

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"
)
# U+DC80 to U+DCFF are how Python spells the bytes of a file name that is no UTF-8.
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    ".inf": float("inf"),
    "+.inf": float("inf"),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}


class YamlError(ConfigError):
    """A text that is no YAML, or YAML that is refused.

    Args:
        name: What the text is called in messages, usually its file.
        position: Line and column of the fault, from 1.
        problem: What is wrong there, one line.
    """

    def __init__(self, name: str, position: Position, problem: str) -> None:
        super().__init__(f"{name}:{position[0]}  {problem}")
        self.position = position
        self.problem = problem


@dataclass(frozen=True)
class Document:
    """One YAML text as plain data.

    Args:
        data: dict, list, str, int, float, bool or None, nested.
        positions: Line and column, from 1, of every key and list item by its path; `()` is the
            whole document.
    """

    data: Any
    positions: Mapping[KeyPath, Position]


def load_file(path: Path, name: str | None = None) -> Document:
    """Read a YAML file.

    Args:
        path: The file.
        name: What messages call it; None: its path.

    Raises:
        YamlError: The file is too large, no UTF-8, or holds YAML that is refused.
        ConfigError: The file cannot be read.
    """
    shown = str(path) if name is None else name
    return load(read_text(path, shown), shown)


def read_text(path: Path, name: str) -> str:
    """The text of a UTF-8 file of at most `MAX_BYTES`, without its byte order mark.

    Raises:
        YamlError: The file is larger, or is no UTF-8.
        ConfigError: The file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 4)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise YamlError(name, (1, 1), f"is larger than {MAX_BYTES:,} bytes, too much for a config")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        problem = f"byte 0x{content[error.start]:02x} is no UTF-8; save the file as UTF-8"
        raise YamlError(name, (line, column), problem) from error


def load(text: str, name: str) -> Document:
    """Read one YAML document.

    Args:
        text: The document, at most `MAX_BYTES` characters.
        name: What messages call it, usually its file.

    Raises:
        YamlError: The text is no YAML, or says something that is refused; one line with the place.
    """
    text = text.removeprefix("\ufeff")
    _refuse_odd_text(text, name)
    loader = yaml.SafeLoader(text)
    builder = _Builder(name)
    try:
        while loader.check_event():
            event: yaml.Event = loader.get_event()  # type: ignore[no-untyped-call]
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise YamlError(name, _fault_position(error), _fault_text(error)) from error
    except (ValueError, OverflowError) as error:
        # PyYAML lets chr() fail on an escape such as "\UFFFFFFFF".
        problem = "an escape in quotes stands for no character"
        raise YamlError(name, (loader.line + 1, loader.column + 1), problem) from error
    finally:
        loader.dispose()
    return Document(data=builder.root, positions=builder.positions)


def parse_value(text: str) -> Any:
    """The value that a command line gives to a key.

    A text that begins with `[`, `{`, `"` or `'` is read as YAML; any other text is one scalar,
    taken as it stands, so that paths and patterns with `#`, `: ` or `*` need no quotes.

    Raises:
        YamlError: The text begins as YAML, but is none; or it is a number of too many digits.
    """
    stripped = text.strip()
    if stripped.startswith(("[", "{", '"', "'")):
        return load(stripped, "command line").data
    try:
        return resolve(stripped)
    except ValueError as error:
        raise YamlError("command line", (1, 1), f"{error} is refused") from error


def resolve(text: str) -> Scalar:
    """What a plain scalar means: null, a boolean, a number, or the text itself.

    Raises:
        ValueError: A whole number has more than `MAX_INT_DIGITS` digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if len(text) > MAX_INT_DIGITS:
            raise ValueError(f"a whole number of {len(text):,} digits")
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


@dataclass
class _Open:
    """A mapping or list whose end has not been read yet."""

    path: KeyPath
    container: dict[str, Any] | list[Any]
    key: str | None = None


@dataclass
class _Builder:
    """Turns the events of one document into data and positions."""

    name: str
    root: Any = None
    positions: dict[KeyPath, Position] = field(default_factory=lambda: {(): (1, 1)})
    _open: list[_Open] = field(default_factory=list)
    _documents: int = 0

    def take(self, event: yaml.Event) -> None:
        """Add what one event says."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._refuse(event, "a second document begins; a config is one document")
        elif isinstance(event, yaml.AliasEvent):
            self._refuse(event, "aliases (*name) are refused; write the value out")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._refuse_decoration(event)
            self._take_node(event)

    def _take_node(self, event: yaml.NodeEvent) -> None:
        parent = self._open[-1] if self._open else None
        if parent is not None and isinstance(parent.container, dict) and parent.key is None:
            parent.key = self._new_key(event, parent)
            return
        if isinstance(event, yaml.ScalarEvent):
            self._place(event, self._scalar(event))
            return
        if len(self._open) >= MAX_DEPTH:
            self._refuse(event, f"is nested more than {MAX_DEPTH} levels deep")
        container: dict[str, Any] | list[Any] = (
            {} if isinstance(event, yaml.MappingStartEvent) else []
        )
        self._open.append(_Open(self._place(event, container), container))

    def _new_key(self, event: yaml.NodeEvent, parent: _Open) -> str:
        """The key that a mapping is about to fill; its position is the entry's position."""
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, "a list or mapping cannot be a key; a key is text")
        if event.value == "<<" and not event.style:
            self._refuse(event, "merge keys (<<) are refused; write the keys out")
        key = self._scalar(event)
        if not isinstance(key, str):
            self._refuse(event, f"a key is text, this one is {_in_yaml(key)}; put it in quotes")
        path = (*parent.path, key)
        if path in self.positions:
            first = self.positions[path][0]
            self._refuse(event, f"key {_shortened(key)} stands twice, first on line {first}")
        self.positions[path] = _position(event)
        return key

    def _place(self, event: yaml.NodeEvent, value: Any) -> KeyPath:
        """Put a value where it belongs; returns its path."""
        if len(self.positions) > MAX_VALUES:
            self._refuse(event, f"holds more than {MAX_VALUES:,} values, too many for a config")
        if not self._open:
            self.root = value
            return ()
        parent = self._open[-1]
        if isinstance(parent.container, dict):
            key = parent.key if parent.key is not None else ""
            parent.container[key] = value
            parent.key = None
            return (*parent.path, key)
        path = (*parent.path, len(parent.container))
        parent.container.append(value)
        self.positions[path] = _position(event)
        return path

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        if _LONE_SURROGATE.search(event.value):
            self._refuse(event, "an escape in quotes stands for half a character")
        if event.style:
            return str(event.value)
        try:
            return resolve(event.value)
        except ValueError as error:
            self._refuse(event, f"{error} is refused")

    def _refuse_decoration(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            self._refuse(event, "anchors (&name) are refused; write the value out")
        if getattr(event, "tag", None) is not None:
            self._refuse(event, "tags (!name) are refused; put a text that begins with ! in quotes")

    def _refuse(self, event: yaml.Event, problem: str) -> NoReturn:
        raise YamlError(self.name, _position(event), problem)


def _refuse_odd_text(text: str, name: str) -> None:
    """Stop at a size or character that no config needs, before PyYAML counts lines by them."""
    if len(text) > MAX_BYTES:
        problem = f"is larger than {MAX_BYTES:,} characters, too much for a config"
        raise YamlError(name, (1, 1), problem)
    found = _FORBIDDEN.search(text)
    if found:
        lines = _LINE_BREAK.split(text[: found.start()])
        problem = f"character U+{ord(found.group()):04X} is refused; this is no plain text"
        raise YamlError(name, (len(lines), len(lines[-1]) + 1), problem)


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _fault_position(error: yaml.MarkedYAMLError) -> Position:
    mark = error.problem_mark
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _fault_text(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's several lines as one."""
    problem = error.problem or "is no YAML"
    if r"'\t'" in problem:
        return "a tab cannot stand here; use spaces"
    if problem.endswith("cannot start any token"):
        return f"{problem.removesuffix(' that cannot start any token')} here; put text in quotes"
    if problem == "mapping values are not allowed here":
        return "a ': ' cannot stand here; put the text in quotes, or correct the indentation"
    context = f"{error.context}" if error.context else ""
    if context and error.context_mark is not None:
        context += f" that begins on line {error.context_mark.line + 1}"
    text = f"{context}: {problem}" if context else problem
    return text if len(text) <= 200 else text[:197] + "..."


def _in_yaml(value: Scalar) -> str:
    return "null" if value is None else repr(value).lower()


def _shortened(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
