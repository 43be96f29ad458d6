"""Config files and overrides: messages, places, paths, names, round trips, reference and schema."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from xray_classifier import config_file
from xray_classifier.config import Activation, Config, OptimizerName
from xray_classifier.config_errors import problems_of
from xray_classifier.config_file import (
    LoadedConfig,
    commented_yaml,
    describe,
    dump_config,
    find_config,
    json_schema,
    load_config,
    shipped_configs,
)
from xray_classifier.config_keys import all_keys
from xray_classifier.config_text import yaml_value
from xray_classifier.errors import ConfigError, UsageError
from xray_classifier.strict_yaml import load

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

HOUSE_RULES_FILE = "\n" * 20 + (
    "data:\n  source: phantoms\ntrain:\n  epochs: 0\n\n  optimizer:\n    lr: fast\n"
    "\n\n\n  early_stoping:\n    patience: 3\n"
)
HOUSE_RULES_MESSAGE = """\
mlp.yaml: 3 problems
  mlp.yaml:31  train.early_stoping: unknown key; did you mean 'early_stopping'?
  mlp.yaml:24  train.epochs: must be greater than 0, got 0
  mlp.yaml:27  train.optimizer.lr: must be a finite number, got 'fast'
Run `xray-classifier config show train` to list the keys of this section."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with `phantoms.yaml` in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phantoms.yaml").write_text("data:\n  source: phantoms\n", encoding="utf-8")
    return tmp_path


def message(source: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_message_of_the_house_rules_word_for_word(here: Path) -> None:
    (here / "mlp.yaml").write_text(HOUSE_RULES_FILE, encoding="utf-8")
    assert message("mlp.yaml") == HOUSE_RULES_MESSAGE


def test_lines_are_right_with_a_mark_and_windows_line_ends(here: Path) -> None:
    content = "\ufeff" + HOUSE_RULES_FILE.replace("\n", "\r\n")
    (here / "mlp.yaml").write_bytes(content.encode())
    assert message("mlp.yaml") == HOUSE_RULES_MESSAGE


# The text after `data: {source: phantoms}` on line 1, and the one line that it earns.
SENTENCES = [
    ("train: {dropout: 0.1}", "train.dropout: unknown key; did you mean 'model.dropout'?"),
    ("train: {lr: 0.1}", "train.lr: unknown key; did you mean 'train.optimizer.lr'?"),
    (
        "train: {monitor: x}",
        "train.monitor: unknown key; did you mean 'train.early_stopping.monitor'?",
    ),
    ("optimizer: {}", "optimizer: unknown key; did you mean 'train.optimizer'?"),
    ("train: {batch-size: 3}", "train.batch-size: unknown key; did you mean 'batch_size'?"),
    ("zzzz: 1", "zzzz: unknown key"),
    ('"a\\e[31m": 1', "'a\\x1b[31m': unknown key"),
    ('"": 1', "'': unknown key"),
    (
        "train: {optimizer: {name: adm}}",
        "train.optimizer.name: must be one of sgd, adagrad, adadelta, rmsprop, adam, adamax, "
        "adamw, nadam, radam, got 'adm'; did you mean 'adam'?",
    ),
    (
        "task: Regress",
        "task: must be one of classify, regress, got 'Regress'; did you mean 'regress'?",
    ),
    ("task: zzz", "task: must be one of classify, regress, got 'zzz'"),
    ("task: true", "task: must be one of classify, regress, got true"),
    ("train: {epochs: 2.5}", "train.epochs: must be a whole number, got 2.5"),
    ("train: {epochs: yes}", "train.epochs: must be a whole number, got 'yes'"),
    ("train: {epochs: true}", "train.epochs: must be a whole number, got true"),
    ("train: {epochs: }", "train.epochs: must be a whole number, got null"),
    ("train: {grad_clip: off}", "train.grad_clip: must be a finite number or null, got 'off'"),
    ("train: {grad_clip: .inf}", "train.grad_clip: must be a finite number or null, got inf"),
    (
        "train: {batch_size: ful}",
        "train.batch_size: must be a whole number or full, got 'ful'; did you mean 'full'?",
    ),
    ("train: {batch_size: 0}", "train.batch_size: must be greater than 0, got 0"),
    ("train: {pos_weight: -1}", "train.pos_weight: must be greater than 0, got -1"),
    (
        "train: {pos_weight: []}",
        "train.pos_weight: must be a finite number or auto or null, got []",
    ),
    ("model: {dropout: 1}", "model.dropout: must be less than 1, got 1"),
    ("model: {dropout: -0.5}", "model.dropout: must be at least 0, got -0.5"),
    ("model: {dropout: x}", "model.dropout: must be a finite number or a list, got 'x'"),
    ("model: {dropout: [0.1, x]}", "model.dropout[1]: must be a finite number, got 'x'"),
    ("model: {dropout: []}", "model.dropout: must have at least 1 item, got []"),
    ("model: {dropout: [0.1]}", "model: dropout lists 1 rates for 2 hidden layers"),
    ("model: {hidden: 3}", "model.hidden: must be a list, got 3"),
    ("model: {hidden: [1, 0]}", "model.hidden[1]: must be greater than 0, got 0"),
    ("model: {residual: yes}", "model.residual: must be true or false, got 'yes'"),
    (
        "evaluate: {threshold: true}",
        "evaluate.threshold: must be a finite number or text, got true",
    ),
    (
        "evaluate: {threshold: best}",
        "evaluate.threshold: must be a probability, sens=0.95, spec=0.90 (with @lower95 behind), "
        "cost=10 or youden, got 'best'",
    ),
    ("train: 3", "train: must be a section of keys, got 3"),
    ("train:", "train: must be a section of keys, got null"),
    (
        "train: {early_stopping: 3}",
        "train.early_stopping: must be a section of keys or null, got 3",
    ),
    ("seed: 2147483648", "seed: must be less than 2147483648, got 2147483648"),
    ("name: [a]", "name: must be text or null, got ['a']"),
    (
        "train: {optimizer: {name: adam, momentum: 0.5}}",
        "train.optimizer.momentum: only for sgd and rmsprop, not adam",
    ),
    ("task: regress", "task: regress takes numbers from a CSV column; set data.source: csv"),
    (
        "train: {early_stopping: {monitor: val_r2}}",
        "train.early_stopping.monitor: val_r2 does not exist for classify",
    ),
    ("seed: " + "x" * 100, "seed: must be a whole number, got '" + "x" * 56 + "..."),
    ('seed: "\\e[2J\\n"', "seed: must be a whole number, got '\\x1b[2J\\n'"),
]


@pytest.mark.parametrize(("line", "expected"), SENTENCES)
def test_one_mistake_is_one_plain_sentence_with_its_line(
    here: Path, line: str, expected: str
) -> None:
    (here / "c.yaml").write_text(f"data: {{source: phantoms}}\n\n{line}\n", encoding="utf-8")
    header, found, footer = message("c.yaml").splitlines()
    assert header == "c.yaml: 1 problem"
    assert found == f"  c.yaml:3  {expected}"
    assert footer.startswith("Run `xray-classifier config show")


def test_what_is_missing_is_said_where_it_belongs(here: Path) -> None:
    (here / "c.yaml").write_text("seed: 1\n\ndata:\n  labels: {sick: a}\n", encoding="utf-8")
    missing = "data.path: is missing; name a folder, a CSV or an NPZ file"
    assert f"  c.yaml:3  {missing}\n" in message("c.yaml")
    (here / "empty.yaml").write_text("", encoding="utf-8")
    assert "  empty.yaml:1  data: is missing\n" in message("empty.yaml")
    assert f"  command line  {missing}\n" in message("phantoms.yaml", "data={}")


@pytest.mark.parametrize("text", ["- a\n", "3\n", "just text\n"])
def test_a_file_that_is_no_mapping_is_refused(here: Path, text: str) -> None:
    (here / "c.yaml").write_text(text, encoding="utf-8")
    assert message("c.yaml").startswith("c.yaml:1  must be a mapping such as `seed: 1`, got ")


def test_a_yaml_fault_is_one_line(here: Path) -> None:
    (here / "c.yaml").write_text("seed: 1\nseed: 2\n", encoding="utf-8")
    assert message("c.yaml") == "c.yaml:2  key 'seed' stands twice, first on line 1"


def test_all_problems_of_file_and_command_line_come_at_once(here: Path) -> None:
    text = "seed: -1\ndata: {source: phantoms}\ntrain:\n  epochs: x\n  lr: 1\n"
    (here / "c.yaml").write_text(text, encoding="utf-8")
    overrides = ("nonsense", "train.epochs=0", "model.hiden=[3]", "train.threads=[1", "seed.x=1")
    assert message("c.yaml", *overrides).splitlines() == [
        "c.yaml: 7 problems",
        "  c.yaml:5  train.lr: unknown key; did you mean 'train.optimizer.lr'?",
        "  command line  model.hiden: unknown key; did you mean 'hidden'?",
        "  c.yaml:1  seed: must be at least 0, got -1",
        "  command line  'nonsense' is no KEY=VALUE such as train.epochs=3",
        "  command line  train.threads: '[1' is no value: while parsing a flow sequence that "
        "begins on line 1: expected ',' or ']', but got '<stream end>'",
        "  command line  seed.x: seed is no section",
        "  command line  train.epochs: must be greater than 0, got 0",
        "Run `xray-classifier config show` to list all keys.",
    ]


def test_the_footer_names_the_smallest_section_that_holds_all_problems(here: Path) -> None:
    assert "config show train.optimizer`" in message("phantoms.yaml", "train.optimizer.lr=x")
    both = ("train.optimizer.lr=x", "train.schedule.factor=x")
    assert "config show train`" in message("phantoms.yaml", *both)
    assert "config show`" in message("phantoms.yaml", *both, "seed=x")


def test_thousands_of_mistakes_are_cut_short(here: Path) -> None:
    lines = "".join(f"key{i}: 1\n" for i in range(5000))
    (here / "c.yaml").write_text("data: {source: phantoms}\n" + lines, encoding="utf-8")
    found = message("c.yaml").splitlines()
    assert len(found) == 203
    assert "  c.yaml:1  and 4,800 more of the kind" in found


@given(
    st.dictionaries(
        st.sampled_from([key.path[-1] for key in all_keys()] + ["typo"]),
        st.recursive(
            st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from([key.path[-1] for key in all_keys()]), inner)
            ),
            max_leaves=6,
        ),
        max_size=4,
    )
)
@settings(max_examples=150, deadline=None)
def test_each_key_is_told_once_whatever_the_data(data: dict[str, Any]) -> None:
    try:
        Config.model_validate(data)
    except ValidationError as error:
        problems = problems_of(error)
        places = [problem.path for problem in problems]
        assert problems
        assert len(set(places)) == len(places)
        assert all(p.text.isprintable() for p in problems)


# Overrides


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("train.epochs=3", lambda c: c.train.epochs, 3),
        ("train.optimizer.lr=3e-4", lambda c: c.train.optimizer.lr, 3e-4),
        ("train.optimizer.lr=1", lambda c: c.train.optimizer.lr, 1.0),
        ("model.hidden=[8, 4]", lambda c: c.model.hidden, (8, 4)),
        ("model.dropout=[0.1, 0]", lambda c: c.model.dropout, (0.1, 0.0)),
        ("train.batch_size=full", lambda c: c.train.batch_size, "full"),
        ("train.early_stopping=null", lambda c: c.train.early_stopping, None),
        ("data.split.val=null", lambda c: c.data.split.val, None),
        ("evaluate.threshold=sens=0.95", lambda c: c.evaluate.threshold, "sens=0.95"),
        ("evaluate.threshold=0.3", lambda c: c.evaluate.threshold, 0.3),
        (r"data.patient=^(\d+): #", lambda c: c.data.patient, r"^(\d+): #"),
        ("data.labels={healthy: [0], sick: 1}", lambda c: c.data.labels.healthy, ("0",)),
        ("data.labels.sick=no", lambda c: c.data.labels.sick, ("no",)),
        (" train.epochs = 7 ", lambda c: c.train.epochs, 7),
    ],
)
def test_overrides_replace_and_add(here: Path, override: str, read: Any, expected: Any) -> None:
    found = read(load_config("phantoms.yaml", [override]).config)
    assert found == expected
    assert type(found) is type(expected)


def test_overrides_win_and_the_last_one_wins(here: Path) -> None:
    text = "data: {source: phantoms}\ntrain: {epochs: 5, early_stopping: null}\n"
    (here / "c.yaml").write_text(text, encoding="utf-8")
    loaded = load_config("c.yaml", ["train.epochs=6", "train.epochs=7"])
    assert loaded.config.train.epochs == 7
    assert loaded.original_text == text
    opened = load_config("c.yaml", ["train.early_stopping.patience=3"]).config
    assert opened.train.early_stopping is not None
    assert opened.train.early_stopping.patience == 3
    assert opened.train.epochs == 5


def test_an_override_of_a_section_replaces_all_of_it(here: Path) -> None:
    text = "data: {source: phantoms}\ntrain: {epochs: wrong, threads: 2}\n"
    (here / "c.yaml").write_text(text, encoding="utf-8")
    config = load_config("c.yaml", ["train={threads: 3}"]).config
    assert (config.train.epochs, config.train.threads) == (100, 3)
    assert "command line  train.epochs: must be" in message("c.yaml", "train={epochs: 0}")


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs",
        "=3",
        "--train.epochs=3",
        "a..b=1",
        ".a=1",
        "a.=1",
        "a b=1",
        "3x=1",
        "",
        "a[0]=1",
    ],
)
def test_what_is_no_override_is_said(here: Path, override: str) -> None:
    assert f"  command line  {override!r} is no KEY=VALUE" in message("phantoms.yaml", override)


def test_an_empty_value_is_not_taken_for_null(here: Path) -> None:
    expected = "command line  train.early_stopping: has no value; write null where none is meant"
    assert expected in message("phantoms.yaml", "train.early_stopping=")


def test_part_of_a_list_cannot_be_overridden(here: Path) -> None:
    text = "data: {source: phantoms}\nmodel: {hidden: [4, 4]}\n"
    (here / "c.yaml").write_text(text, encoding="utf-8")
    expected = "command line  model.hidden.0: model.hidden is a list; give all of it"
    assert expected in message("c.yaml", "model.hidden.0=3")


# Paths


def test_paths_of_a_file_count_from_its_folder_those_of_the_command_line_from_here(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "sub").mkdir()
    text = "data:\n  path: ../films\n  cache: cache\n"
    (here / "sub" / "c.yaml").write_text(text, encoding="utf-8")
    data = load_config("sub/c.yaml").config.data
    assert (data.path, data.cache) == (here / "films", here / "sub" / "cache")
    data = load_config("sub/c.yaml", ["data.path=films/x.csv"]).config.data
    assert (data.path, data.cache) == (here / "films" / "x.csv", here / "sub" / "cache")
    data = load_config("sub/c.yaml", ["data={path: p, cache: ./q}"]).config.data
    assert (data.path, data.cache) == (here / "p", here / "q")
    monkeypatch.chdir(here / "sub")
    assert load_config("c.yaml", ["data.path=."]).config.data.path == here / "sub"
    assert load_config(here / "sub" / "c.yaml", ["data.cache=null"]).config.data.cache is None


def test_home_and_absolute_paths_are_understood(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = here / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    absolute = here / "elsewhere" / "films"
    (here / "c.yaml").write_text("data:\n  path: ~/films\n", encoding="utf-8")
    assert load_config("c.yaml").config.data.path == home / "films"
    assert load_config("c.yaml", [f"data.path={absolute}"]).config.data.path == absolute
    assert load_config("c.yaml", ["data.path=~/a b"]).config.data.path == home / "a b"


@pytest.mark.parametrize("value", ['""', '" "', '"a\\0b"'])
def test_a_path_that_is_none_is_refused(here: Path, value: str) -> None:
    assert "command line  data.path: must be a path, got" in message(
        "phantoms.yaml", f"data.path={value}"
    )


# Which file, which name


def test_a_config_is_found_as_file_run_folder_or_shipped_name(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = here / "runs" / "20250101-120000_my-mlp"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("data: {source: phantoms}\n", encoding="utf-8")
    shipped = here / "installed" / "demo.yaml"
    shipped.parent.mkdir()
    shipped.write_text("data: {source: phantoms}\nseed: 4\n", encoding="utf-8")
    monkeypatch.setattr(config_file, "shipped_configs", lambda: {"demo": shipped})

    assert load_config("phantoms.yaml").path == here / "phantoms.yaml"
    assert load_config(Path("phantoms.yaml")).name == "phantoms"
    assert load_config("runs/20250101-120000_my-mlp").path == run / "config.yaml"
    assert load_config(str(run) + os.sep).name == "my-mlp"
    assert load_config(run / "config.yaml").name == "my-mlp"
    assert load_config("demo").config.seed == 4
    assert load_config("demo").name == "demo"
    (here / "demo").mkdir()
    assert load_config("demo").config.seed == 4
    (here / "demo" / "config.yaml").write_text("data: {source: phantoms}\nseed: 5\n")
    assert load_config("demo").config.seed == 5


@pytest.mark.parametrize(
    ("file", "name"),
    [("my config.yaml", "my-config"), ("_x.yml", "x"), ("é.yaml", "run"), ("a.b.yaml", "a.b")],
)
def test_a_run_is_named_after_its_file(here: Path, file: str, name: str) -> None:
    (here / file).write_text("data: {source: phantoms}\n", encoding="utf-8")
    assert load_config(file).name == name
    assert load_config(file, ["name=mine"]).name == "mine"


def test_a_stored_name_wins_over_the_folder(here: Path) -> None:
    run = here / "20250101-120000_other-2"
    run.mkdir()
    (run / "config.yaml").write_text("name: mine\ndata: {source: phantoms}\n", encoding="utf-8")
    assert load_config(run).name == "mine"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "dmo",
            "dmo: there is no such config file, run folder or shipped config; did you mean 'demo'?",
        ),
        ("demo.yaml", "did you mean 'demo'?"),
        ("phantom.yaml", "did you mean 'phantoms.yaml'?"),
        ("phantoms.yml", "did you mean 'phantoms.yaml'?"),
        ("nowhere/x.yaml", "nowhere/x.yaml: there is no such config"),
        ("", "'': there is no such config"),
        ("a\0b", "'a\\x00b': there is no such config"),
        ("x" * 5000, "xxx...: there is no such config"),
        ("~no-such-user/x", "~no-such-user/x: there is no such config"),
        (".", ".: this folder holds no config.yaml, so it is no run"),
    ],
)
def test_a_config_that_does_not_exist(
    here: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: str
) -> None:
    names = {"demo": here / "demo.yaml", "kermany": here / "kermany.yaml"}
    monkeypatch.setattr(config_file, "shipped_configs", lambda: names)
    with pytest.raises(UsageError) as caught:
        find_config(source)
    assert caught.value.exit_code == 2
    first, second = str(caught.value).splitlines()
    assert expected in first
    assert len(first) < 400
    assert second == "Shipped configs: demo, kermany"


def test_a_loaded_config_never_changes(here: Path) -> None:
    loaded = load_config("phantoms.yaml")
    assert isinstance(loaded, LoadedConfig)
    with pytest.raises(AttributeError):
        loaded.name = "other"  # type: ignore[misc]


# Round trips

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
RATES = st.floats(0, 1, exclude_max=True)
POSITIVES = st.floats(0, 1e12, exclude_min=True)
FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True)
COUNTS = st.integers(1, 10**20)
PATHS = st.builds(lambda name: "/" + name.replace("\0", "0"), NAMES)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any config, rich in values that YAML could take for something else."""
    names = draw(
        st.lists(
            NAMES | st.sampled_from(["no", "1", "1e3", "~", "null"]),
            min_size=2,
            max_size=5,
            unique=True,
        )
    )
    hidden = draw(st.lists(COUNTS, min_size=1, max_size=3))
    data = {
        "source": draw(st.sampled_from(["auto", "folder", "csv"])),
        "path": draw(PATHS),
        "cache": draw(st.none() | PATHS),
        "labels": {"healthy": names[:1], "sick": names[1:2], "ignore": names[2:]},
        "columns": {"path": draw(NAMES), "patient": draw(st.none() | NAMES)},
        "split": {
            "val": draw(st.none() | st.floats(0.01, 0.4)),
            "seed": draw(st.integers(0, 2**62)),
        },
        "limit": draw(st.none() | COUNTS),
    }
    model = {
        "hidden": hidden,
        "activation": draw(st.sampled_from(get_args(Activation))),
        "dropout": draw(RATES | st.lists(RATES, min_size=len(hidden), max_size=len(hidden))),
        "residual": draw(st.booleans()),
    }
    names_of_rules = [n for n in get_args(OptimizerName) if n != "sgd"]
    train = {
        "batch_size": draw(COUNTS | st.just("full")),
        "optimizer": {"name": draw(st.sampled_from(names_of_rules)), "lr": draw(POSITIVES)},
        "schedule": {"factor": draw(FRACTIONS)},
        "early_stopping": draw(st.none() | st.fixed_dictionaries({"patience": st.none() | COUNTS})),
        "pos_weight": draw(st.none() | st.just("auto") | POSITIVES),
    }
    evaluate = {"threshold": draw(st.floats(0, 1) | st.sampled_from(["youden", "sens=0.95"]))}
    name = draw(st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True))
    return Config.model_validate(
        {"name": name, "data": data, "model": model, "train": train, "evaluate": evaluate}
    )


@given(configs())
@settings(max_examples=120, deadline=None)
def test_a_dumped_config_loads_to_an_equal_one(config: Config) -> None:
    text = dump_config(config)
    assert Config.model_validate(load(text, "dump").data) == config
    assert text.encode("utf-8")


@given(configs())
@settings(max_examples=30, deadline=None)
def test_a_config_as_commented_yaml_loads_to_an_equal_one(config: Config) -> None:
    text = commented_yaml(config.model_dump(), "header")
    assert Config.model_validate(load(text, "commented").data) == config


@given(configs())
@settings(max_examples=40, deadline=None)
def test_each_value_of_a_dump_works_as_an_override(config: Config) -> None:
    dumped = load(dump_config(config), "dump").data
    draft = config_file._Draft({})
    for key in all_keys():
        value: Any = dumped
        for name in key.path:
            value = value.get(name) if value is not None else None
        if not isinstance(value, dict):
            assert draft.override(f"{key.dotted}={yaml_value(value)}") == [] or value is None
    assert draft.data["model"] == dumped["model"]
    assert draft.data["data"] == dumped["data"]


def test_a_dump_survives_the_file_system(here: Path) -> None:
    config = load_config(
        "phantoms.yaml", ["data.cache=x y/#1", "data.labels.sick=[no, '1']"]
    ).config
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config("run").config == config


@pytest.mark.skipif(
    os.name != "posix", reason="only POSIX file names can be bytes that are no UTF-8"
)
def test_a_folder_whose_name_is_no_utf8_survives(here: Path) -> None:
    folder = os.fsdecode(os.fsencode(here) + b"/\xff\xfe")
    config = load_config("phantoms.yaml", [f"data.cache={folder}"]).config
    (here / "c.yaml").write_text(dump_config(config), encoding="utf-8")
    assert os.fsencode(load_config("c.yaml").config.data.cache or "") == os.fsencode(folder)


def test_a_dump_keeps_the_order_of_the_keys(here: Path) -> None:
    text = dump_config(load_config("phantoms.yaml").config)
    found = [line.strip().split(":")[0] for line in text.splitlines()]
    assert found == [key.path[-1] for key in all_keys()]


# Reference, schema, commented file


def test_the_reference_holds_every_key_with_type_default_and_docstring() -> None:
    text = describe(None)
    flat = " ".join(text.split())
    for key in all_keys():
        assert f"\n{key.dotted}: " in text
        assert key.doc in flat
    assert "train.optimizer.lr: number above 0; default 0.001\n    Learning rate: " in text
    assert "data.path: path, or null; default null\n" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_reference_of_a_section_and_of_a_key() -> None:
    text = describe("train.optimizer")
    assert text.startswith("train.optimizer: The rule that turns gradients into steps.\n\n")
    assert (
        re.findall(r"^[\w.]+(?=: )", text, re.M)[1:]
        == [key.dotted for key in all_keys() if key.path[:2] == ("train", "optimizer")][1:]
    )
    assert describe("train.optimizer.lr") == (
        "train.optimizer.lr: number above 0; default 0.001\n"
        "    Learning rate: the size of a step.\n"
    )


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("trian", "train"), ("optimizer", "train.optimizer"), ("lr", "train.optimizer.lr")],
)
def test_an_unknown_section_is_a_usage_error(asked: str, meant: str) -> None:
    with pytest.raises(
        UsageError, match=f"config show {asked}: no such section; did you mean"
    ) as e:
        describe(asked)
    assert f"{meant!r}?" in str(e.value)
    assert "Sections: data, data.labels," in str(e.value)


def test_the_schema_knows_every_key_and_its_docstring() -> None:
    schema = json_schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["title"]
    for key in all_keys():
        node: dict[str, Any] = schema
        for name in key.path:
            node = dict(schema_nodes(schema, node))[name]
        # Where the docstring of the section says the same, the reference to it is enough.
        described = node if "description" in node else definition(schema, node)
        assert " ".join(described["description"].split()) == key.doc


def definition(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """What a node refers to, else the node itself."""
    reference = node.get("$ref")
    found: dict[str, Any] = schema["$defs"][reference.rsplit("/", 1)[1]] if reference else node
    return found


def schema_nodes(schema: dict[str, Any], node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The properties of a schema node, its reference followed."""
    targets = [node, *node.get("anyOf", [])]
    for target in targets:
        yield from definition(schema, target).get("properties", {}).items()


def test_commented_yaml_puts_values_in_place_of_defaults() -> None:
    values = {
        "data": {"path": Path("a b"), "labels": {"healthy": ["NORMAL"], "sick": ("1",)}},
        "train": {"early_stopping": None},
    }
    text = commented_yaml(values, "First line\n\nThird line")
    assert text.startswith("# First line\n#\n# Third line\n\n# Name of the run folder")
    data = load(text, "c.yaml").data
    assert data["data"]["path"] == "a b"
    assert data["data"]["labels"] == {"healthy": ["NORMAL"], "sick": ["1"], "ignore": []}
    assert data["train"]["early_stopping"] is None
    assert max(len(line) for line in text.splitlines()) <= 80
    with pytest.raises(ValueError, match=r"train\.epoch is no key"):
        commented_yaml({"train": {"epoch": 1}}, "")


def keys_in(data: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in data.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from keys_in(value, f"{prefix}{name}.")


def test_mlp_yaml_holds_every_key_with_its_docstring_and_its_default() -> None:
    text = (CONFIGS / "mlp.yaml").read_text(encoding="utf-8")
    loaded = load_config(CONFIGS / "mlp.yaml")
    assert list(keys_in(load(text, "mlp.yaml").data)) == [key.dotted for key in all_keys()]
    comments = " ".join(re.sub(r"^ *# ?", "", line) for line in text.splitlines())
    stale = [key.dotted for key in all_keys() if key.doc not in " ".join(comments.split())]
    assert not stale, "write configs/mlp.yaml anew with commented_yaml"
    assert loaded.config.data.labels.healthy == ("NORMAL",)
    assert loaded.config.data.labels.sick == ("PNEUMONIA",)
    assert loaded.config.data.path == CONFIGS / "path" / "to" / "xrays"
    plain = {"path": loaded.config.data.path, "labels": loaded.config.data.labels.model_dump()}
    assert loaded.config == Config.model_validate({"data": plain})
    assert loaded.name == "mlp"


def test_every_shipped_config_loads() -> None:
    shipped = shipped_configs()
    assert "mlp" in shipped
    for name in shipped:
        assert load_config(name).name == name.rpartition("/")[2]
