"""The config sections: what they accept, refuse and leave unchanged."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from xray_classifier.config import (
    Config,
    DataConfig,
    EarlyStoppingConfig,
    EvaluateConfig,
    IntendedUseConfig,
    LabelsConfig,
    ModelConfig,
    OptimizerConfig,
    Section,
    SplitConfig,
    TrainConfig,
)
from xray_classifier.config_keys import all_keys, find_key, section_at, type_in_words


def sections() -> list[type[Section]]:
    return [Config, *(key.section for key in all_keys() if key.section is not None)]


def test_a_path_or_phantoms_is_all_that_a_config_needs() -> None:
    assert Config(data=DataConfig(path=Path("films"))).data.source == "auto"
    assert Config(data=DataConfig(source="phantoms")).data.path is None
    with pytest.raises(ValidationError, match="path: is missing"):
        DataConfig()


@pytest.mark.parametrize("section", sections(), ids=lambda s: s.__name__)
def test_every_key_has_a_docstring_and_every_section_is_strict(section: type[Section]) -> None:
    assert section.__doc__
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["strict"]
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name}"


def test_sections_never_change() -> None:
    config = Config(data=DataConfig(source="phantoms"))
    for section in (config, config.data, config.data.image, config.train.optimizer):
        name = next(iter(type(section).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, getattr(section, name))


def test_the_list_of_keys_is_what_the_sections_hold() -> None:
    def names(values: dict[str, Any], prefix: str = "") -> list[str]:
        found = []
        for name, value in values.items():
            found.append(prefix + name)
            found.extend(names(value, f"{prefix}{name}.") if isinstance(value, dict) else [])
        return found

    config = Config(data=DataConfig(source="phantoms"))
    assert [key.dotted for key in all_keys()] == names(config.model_dump())


def test_keys_and_sections_are_found_by_their_path() -> None:
    lr = find_key(("train", "optimizer", "lr"))
    assert lr is not None
    assert lr.default == OptimizerConfig().lr
    assert not lr.nullable
    assert lr.section is None
    stopping = find_key(("train", "early_stopping"))
    assert stopping is not None
    assert stopping.nullable
    assert stopping.section is EarlyStoppingConfig
    assert find_key(("train", "lr")) is None
    assert section_at(()) is Config
    assert section_at(("train",)) is TrainConfig
    assert section_at(("train", "epochs")) is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("train.epochs", "whole number above 0"),
        ("train.batch_size", "whole number above 0, or full"),
        ("train.pos_weight", "number above 0, or auto, or null"),
        ("model.hidden", "[whole number above 0, ...]"),
        ("model.residual", "true or false"),
        ("model.type", "one of perceptron, mlp, mixer"),
        ("data.image.size", "whole number at least 4 and at most 1024"),
        ("data.path", "path, or null"),
        ("data.labels.sick", "[text, ...]"),
        ("data.columns.path", "text"),
        ("train.early_stopping", "section, or null"),
        ("seed", "whole number at least 0 and below 2147483648"),
    ],
)
def test_types_in_words(path: str, words: str) -> None:
    key = find_key(tuple(path.split(".")))
    assert key is not None
    assert type_in_words(key.hint) == words


@pytest.mark.parametrize(
    ("given", "expected"),
    [(["A", "B"], ("A", "B")), ("A", ("A",)), (0, ("0",)), ([0, 10, "x"], ("0", "10", "x"))],
)
def test_labels_compare_as_text(given: Any, expected: tuple[str, ...]) -> None:
    assert LabelsConfig.model_validate({"healthy": given, "sick": "zz"}).healthy == expected


@pytest.mark.parametrize("given", [[], None, [1.5], [True], {"a": 1}, [["a"]]])
def test_labels_that_are_no_names_are_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        LabelsConfig.model_validate({"healthy": given})


@pytest.mark.parametrize(
    "given",
    [{"healthy": ["A"], "sick": ["A"]}, {"sick": ["B", "B"]}, {"sick": ["B"], "ignore": ["B"]}],
)
def test_a_class_has_one_meaning(given: Any) -> None:
    with pytest.raises(ValidationError, match="stands more than once"):
        LabelsConfig.model_validate(given)


@pytest.mark.parametrize(
    "given", [0, 1, 0.42, 1e-5, "0.5", "youden", "sens=0.95", "spec=.9", "sens=1"]
)
def test_thresholds_that_mean_something(given: Any) -> None:
    assert EvaluateConfig.model_validate({"threshold": given}).threshold == given


@pytest.mark.parametrize(
    "given", [-0.1, 1.1, "best", "sens", "sens=95", "sens= 0.9", "spec=-1", True, None, "1.5"]
)
def test_thresholds_that_mean_nothing(given: Any) -> None:
    with pytest.raises(ValidationError):
        EvaluateConfig.model_validate({"threshold": given})


@pytest.mark.parametrize("given", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12"])
def test_devices(given: str) -> None:
    assert TrainConfig(device=given).device == given


@pytest.mark.parametrize("given", ["gpu", "cuda:", "cuda:x", "CPU", "cpu\n", "cuda:٣", ""])
def test_devices_that_do_not_exist(given: str) -> None:
    with pytest.raises(ValidationError, match="must be auto, cpu, mps, cuda or cuda:N"):
        TrainConfig(device=given)


@pytest.mark.parametrize("given", ["a", "mlp-2", "A.b_c", "0", "x" * 64])
def test_run_names(given: str) -> None:
    assert Config(name=given, data=DataConfig(source="phantoms")).name == given


@pytest.mark.parametrize("given", ["", ".", "..", "a/b", "a b", "-a", "x" * 65, "é", "a\n"])
def test_run_names_that_are_no_folder(given: str) -> None:
    with pytest.raises(ValidationError, match="1 to 64 letters"):
        Config(name=given, data=DataConfig(source="phantoms"))


@pytest.mark.parametrize("given", ["", "  ", "a\0b", 3, ["a"]])
def test_paths_that_are_none(given: Any) -> None:
    for key in ("path", "cache"):
        with pytest.raises(ValidationError):
            DataConfig.model_validate({"source": "phantoms", key: given})


@pytest.mark.parametrize("given", [None, "auto", r"^(\d+)_", "(?P<id>x)"])
def test_patient_patterns(given: str | None) -> None:
    assert DataConfig(source="phantoms", patient=given).patient == given


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("(", "no regular expression"),
        ("x{99999999999999999999}()", "no regular expression"),
        (r"\d+", "needs a group"),
        ("(?:x)", "needs a group"),
    ],
)
def test_patient_patterns_that_find_nothing(given: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        DataConfig(source="phantoms", patient=given)


REFUSED: list[tuple[type[Section], dict[str, Any], str]] = [
    (ModelConfig, {"hidden": (8, 4), "dropout": (0.1,)}, "lists 1 rates for 2"),
    (ModelConfig, {"hidden": ()}, "at least 1"),
    (ModelConfig, {"hidden": (1,) * 33}, "at most 32"),
    (ModelConfig, {"hidden": (1.0,)}, "integer"),
    (ModelConfig, {"dropout": 1.0}, "less than 1"),
    (ModelConfig, {"dropout": (0.1, float("nan"))}, "finite"),
    (ModelConfig, {"type": "perceptron", "norm": "layer"}, "not for type perceptron"),
    (OptimizerConfig, {"name": "adam", "momentum": 0.9}, "only for sgd and rmsprop"),
    (OptimizerConfig, {"name": "sgd", "nesterov": True}, "momentum above 0"),
    (OptimizerConfig, {"name": "sgd", "momentum": 0.0, "nesterov": True}, "momentum above 0"),
    (OptimizerConfig, {"name": "rmsprop", "momentum": 0.9, "nesterov": True}, "only for sgd"),
    (OptimizerConfig, {"name": "sgd", "amsgrad": True}, "only for adam"),
    (OptimizerConfig, {"lr": 0.0}, "greater than 0"),
    (OptimizerConfig, {"lr": float("inf")}, "finite"),
    (OptimizerConfig, {"lr": "1e-3"}, "number"),
    (SplitConfig, {"val": 0.5, "test": 0.5}, "nothing to train on"),
    (SplitConfig, {"val": 0.0}, "greater than 0"),
    (SplitConfig, {"val": 1}, "less than 1"),
    (EarlyStoppingConfig, {"monitor": "test_loss"}, "cannot be monitored"),
    (EarlyStoppingConfig, {"monitor": "test_auroc"}, "cannot be monitored"),
    (EarlyStoppingConfig, {"monitor": "val_los"}, "must be one of"),
    (EarlyStoppingConfig, {"patience": 0}, "greater than 0"),
    (TrainConfig, {"batch_size": 0}, "greater than 0"),
    (TrainConfig, {"batch_size": "ful"}, "full"),
    (TrainConfig, {"batch_size": True}, "integer"),
    (TrainConfig, {"epochs": 2.0}, "integer"),
    (TrainConfig, {"pos_weight": 0}, "greater than 0"),
    (TrainConfig, {"grad_clip": -1}, "greater than 0"),
    (TrainConfig, {"label_smoothing": 1}, "less than 1"),
    (TrainConfig, {"optimizer": None}, "OptimizerConfig"),
]


@pytest.mark.parametrize(("section", "given", "reason"), REFUSED)
def test_values_and_combinations_that_are_refused(
    section: type[Section], given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        section.model_validate(given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"task": "regress", "data": {"source": "npz", "path": "x"}}, "CSV column"),
        ({"task": "regress", "train": {"early_stopping": {"monitor": "val_auroc"}}}, "val_auroc"),
        ({"train": {"early_stopping": {"monitor": "val_r2"}}}, "val_r2 does not exist"),
        ({"task": "regress", "train": {"pos_weight": 2.0}}, "are for task: classify"),
        ({"task": "regress", "train": {"label_smoothing": 0.1}}, "are for task: classify"),
        ({"seed": 2**31}, "less than"),
        ({"seed": True}, "integer"),
    ],
)
def test_a_whole_config_fits_together(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Config.model_validate({"data": {"source": "csv", "path": "x.csv"}, **given})


def test_off_is_null() -> None:
    config = Config.model_validate(
        {
            "data": {"path": "x", "patient": None, "split": {"val": None, "test": None}},
            "train": {"early_stopping": None, "grad_clip": None, "pos_weight": None},
        }
    )
    assert config.train.early_stopping is None
    assert config.data.split.val is None
    assert config.data.patient is None


def test_intended_use_takes_the_author_s_words() -> None:
    use = IntendedUseConfig.model_validate(
        {"purpose": "second reader", "min_age_years": 18, "out_of_scope": ["children", "CT"]}
    )
    assert (use.purpose, use.min_age_years) == ("second reader", 18.0)
    assert use.out_of_scope == ("children", "CT")
    assert IntendedUseConfig.model_validate({"out_of_scope": "CT"}).out_of_scope == ("CT",)
    assert IntendedUseConfig(min_age_years=18, max_age_years=18).max_age_years == 18
    assert set(IntendedUseConfig().model_dump().values()) == {None, ()}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"purpose": ""}, "must say something"),
        ({"population": "  "}, "must say something"),
        ({"out_of_scope": ["CT", ""]}, "must say something"),
        ({"min_age_years": -1}, "greater than or equal to 0"),
        ({"max_age_years": float("nan")}, "finite"),
        ({"min_age_years": 19, "max_age_years": 18}, "19 is above max_age_years 18"),
        ({"purpose": 3}, "string"),
        ({"purposes": "x"}, "not permitted"),
    ],
)
def test_intended_use_refuses_what_says_nothing(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        IntendedUseConfig.model_validate(given)
