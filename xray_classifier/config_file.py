"""From a YAML file and `a.b=c` overrides to a `Config`, with every problem told at once."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xray_classifier.config import RUN_NAME, Config, DataConfig
from xray_classifier.config_errors import (
    Problem,
    did_you_mean,
    problems_of,
    report,
    shown_value,
)
from xray_classifier.config_text import commented_yaml, describe, dump_config, json_schema
from xray_classifier.errors import ConfigError, UsageError
from xray_classifier.strict_yaml import KeyPath, YamlError, load, parse_value, read_text

__all__ = [
    "LoadedConfig",
    "commented_yaml",
    "data_section",
    "describe",
    "dump_config",
    "find_config",
    "json_schema",
    "load_config",
    "sets_one_of",
    "shipped_configs",
]

_PATH_KEYS: tuple[KeyPath, ...] = (
    ("data", "path"),
    ("data", "root"),
    ("data", "cache"),
)
_OVERRIDE_KEY = re.compile(r"[^\W\d][\w-]*(\.[\w-]+)*")
_RUN_FOLDER = re.compile(r"\d{8}-\d{6}_(.+)")
_STORED = "config.yaml"


@dataclass(frozen=True)
class LoadedConfig:
    """A config and where it came from.

    Args:
        config: The validated config, overrides applied, its paths absolute.
        original_text: The YAML file as it stands, without overrides.
        path: The YAML file, absolute.
        name: Name of the run: `name` of the config, else after the file or the run folder.
    """

    config: Config
    original_text: str
    path: Path
    name: str


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read a config file, apply overrides and validate the result.

    Relative paths of the data section count from the file's folder; those of an override from the
    working directory. An override replaces what the file says of its key, a whole section too.

    Args:
        source: A YAML file, a run folder, or the bare name of a shipped config.
        overrides: Texts such as `train.epochs=3`; of two for one key the last one counts.

    Raises:
        UsageError: There is no such config.
        ConfigError: The file or an override does not say what it should; all problems at once.
    """
    found = find_config(source)
    path = Path(os.path.abspath(found))  # noqa: PTH100 - resolve() would follow links
    name = _shown_name(found)
    text = read_text(path, name)
    draft = _draft(text, name)
    problems = [problem for text in overrides for problem in draft.override(text)]
    draft.make_paths_absolute(path.parent)
    try:
        config = Config.model_validate(draft.data)
    except ValidationError as error:
        everything = [*problems, *problems_of(error)]
        raise ConfigError(report(name, everything, draft.line_of)) from error
    if problems:
        raise ConfigError(report(name, problems, draft.line_of))
    return LoadedConfig(config, text, path, config.name or _run_name(path))


def data_section(stored: Mapping[str, Any], overrides: Sequence[str] = ()) -> DataConfig:
    """The data section that a checkpoint stores, with overrides from the command line.

    Args:
        stored: Plain values, as `DataConfig.model_dump(mode="json")` gives them.
        overrides: Texts such as `data.patient=null`.

    Raises:
        ConfigError: An override does not say what it should; all problems at once.
    """
    draft = _Draft({"data": dict(stored)})
    problems = [problem for text in overrides for problem in draft.override(text)]
    draft.make_paths_absolute(Path.cwd())
    try:
        config = Config.model_validate(draft.data)
    except ValidationError as error:
        problems.extend(problems_of(error))
    if problems:
        raise ConfigError(report("command line", problems, lambda path: None))
    return config.data


def sets_one_of(override: str, keys: Sequence[str]) -> bool:
    """Whether `a.b=c` sets one of these keys, or a key inside one of these sections."""
    key = override.split("=", 1)[0]
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in keys)


def find_config(source: str | Path) -> Path:
    """The YAML file that a user means, relative where `source` is.

    Args:
        source: A YAML file, a run folder, or the bare name of a shipped config.

    Raises:
        UsageError: There is none; the message lists the shipped ones and a near miss.
    """
    shipped = shipped_configs()
    given = _expanded(str(source))
    for candidate in (given, given / _STORED, shipped.get(str(source))):
        # Path.is_file raises where a name is too long; this answers False.
        if str(source) and candidate is not None and os.path.isfile(candidate):  # noqa: PTH113
            return candidate
    raise UsageError(_no_such_config(str(source), given, shipped))


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the program, by bare name: of the wheel, else of the checkout.

    Those in a folder are named with it, such as `break/leak`.
    """
    here = Path(__file__).parent
    for folder in (here / "configs", here.parent / "configs"):
        found = {
            path.relative_to(folder).with_suffix("").as_posix(): path
            for path in [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*/*.yaml"))]
        }
        if found:
            return found
    return {}


@dataclass
class _Draft:
    """The data of a config file while overrides are laid over them.

    Args:
        data: What the file says; changed in place.
        lines: Where each key comes from: its line in the file, None for the command line.
    """

    data: dict[str, Any]
    lines: dict[KeyPath, int | None] = field(default_factory=dict)

    def line_of(self, path: KeyPath) -> int | None:
        """The line that a key comes from, or its section where the key is absent."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def override(self, text: str) -> list[Problem]:
        """Lay one `a.b=c` over the data; returns what is wrong with it."""
        dotted, equals, value = text.partition("=")
        dotted = dotted.strip()
        if not equals or not _OVERRIDE_KEY.fullmatch(dotted):
            problem = f"{shown_value(text)} is no KEY=VALUE such as train.epochs=3"
            return [Problem((), problem, in_override=True)]
        path = tuple(dotted.split("."))
        if not value.strip():
            problem = "has no value; write null where none is meant"
            return [Problem(path, problem, in_override=True)]
        try:
            return self._put(path, parse_value(value))
        except YamlError as error:
            problem = f"{shown_value(value)} is no value: {error.problem}"
            return [Problem(path, problem, in_override=True)]

    def _put(self, path: tuple[str, ...], value: Any) -> list[Problem]:
        """Set a key; sections on the way that are absent or null are opened."""
        section = self.data
        for depth in range(1, len(path)):
            nested = section.get(path[depth - 1])
            if nested is None:
                nested = section[path[depth - 1]] = {}
                self.lines[path[:depth]] = None
            if not isinstance(nested, dict):
                kind = "a list; give all of it" if isinstance(nested, list) else "no section"
                problem = f"{'.'.join(path[:depth])} is {kind}"
                return [Problem(path, problem, in_override=True)]
            section = nested
        for known in [known for known in self.lines if known[: len(path)] == path]:
            del self.lines[known]
        section[path[-1]] = value
        self.lines[path] = None
        return []

    def make_paths_absolute(self, folder: Path) -> None:
        """Resolve the paths of the data section against the file's folder or the working one."""
        section = self.data.get("data")
        if not isinstance(section, dict):
            return
        for path in _PATH_KEYS:
            value = section.get(str(path[-1]))
            if isinstance(value, str) and value.strip() and "\0" not in value:
                base = Path.cwd() if self.line_of(path) is None else folder
                joined = base / _expanded(value)
                section[str(path[-1])] = os.path.abspath(joined)  # noqa: PTH100


def _draft(text: str, name: str) -> _Draft:
    """The data of a config file before overrides.

    Raises:
        ConfigError: The text is refused, or is no mapping of keys.
    """
    document = load(text, name)
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        problem = f"must be a mapping such as `seed: 1`, got {shown_value(data)}"
        raise YamlError(name, (1, 1), problem)
    return _Draft(data, {path: position[0] for path, position in document.positions.items()})


def _shown_name(found: Path) -> str:
    """What messages call the file: as it was typed, or the file name of a shipped config."""
    text = found.name if found in shipped_configs().values() else str(found)
    return text if text.isprintable() else repr(text)


def _expanded(text: str) -> Path:
    """A path with `~` expanded; Path.expanduser raises where there is no such user."""
    return Path(os.path.expanduser(text))  # noqa: PTH111


def _run_name(path: Path) -> str:
    """A run's name after its file, or after the run folder that holds the file."""
    stamped = _RUN_FOLDER.fullmatch(path.parent.name) if path.name == _STORED else None
    text = stamped.group(1) if stamped else path.stem
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:64]
    return clean if re.fullmatch(RUN_NAME, clean) else "run"


def _no_such_config(source: str, given: Path, shipped: dict[str, Path]) -> str:
    """Says what was looked for, what exists, and what was perhaps meant."""
    shown = source if source.isprintable() and source else repr(source)
    shown = shown if len(shown) <= 200 else shown[:197] + "..."
    if source and os.path.isdir(given):  # noqa: PTH112
        what = f"{shown}: this folder holds no {_STORED}, so it is no run"
    else:
        what = f"{shown}: there is no such config file, run folder or shipped config"
    near = did_you_mean(given.name, shipped) or did_you_mean(given.stem, shipped)
    beside = _yaml_files(given.parent)
    near = did_you_mean(given.name, beside) or near
    return f"{what}{near}\nShipped configs: {', '.join(shipped) or 'none'}"


def _yaml_files(folder: Path) -> list[str]:
    """The names of the YAML files in a folder; none where it cannot be read."""
    try:
        return [path.name for path in folder.iterdir() if path.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        return []
