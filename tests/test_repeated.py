"""Several models from one config: what they come to, as one file, whatever stopped them."""

import csv
import json
import os
import shutil
import signal
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tiny_runs import TINY, Program, metadata_of, program, rows_of, save_film, snapshot

from xray_classifier.calibration import fit_calibration
from xray_classifier.callbacks import HistoryWriter
from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.classifier import load_classifier
from xray_classifier.config_file import LoadedConfig, load_config
from xray_classifier.data.loading import run_loading
from xray_classifier.data.splits import CLASS_NAMES
from xray_classifier.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    InterruptedRun,
    OutputError,
    TerminatedRun,
    UsageError,
)
from xray_classifier.files import to_json
from xray_classifier.history import Run
from xray_classifier.locks import owned
from xray_classifier.members import (
    found_run,
    holds_members,
    is_repeated,
    load_repeated,
    member_config,
    members_of,
    spread_in_words,
    spread_of,
)
from xray_classifier.repeated import run_repeated
from xray_classifier.terminal import Terminal
from xray_classifier.training import TrainingResult

__all__ = ["program"]

FASTER = ("train.optimizer.lr=0.01", "train.schedule.name=constant")


def asked(*overrides: str) -> LoadedConfig:
    """The tiny config, asking for more than one model."""
    return load_config("demo", ["name=many", *TINY, *FASTER, *overrides])


def repeated(loaded: LoadedConfig, out: Path, resume: Path | None = None) -> TrainingResult:
    """Train without a word."""
    return run_repeated(loaded, Terminal(quiet=True), out, resume)


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Leave out the figures, which take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "xray_classifier.judgement_files.judgement_figures", lambda judgement, curves: {}
        )
        patch.setattr("xray_classifier.training.draw_curves", lambda *given: b"")
        yield


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Three seeds on one split."""
    return repeated(asked("train.seeds=3"), tmp_path_factory.mktemp("seeded"))


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Two seeds of each of three folds."""
    return repeated(asked("train.folds=3", "train.seeds=2"), tmp_path_factory.mktemp("folded"))


def best_of(run: Path) -> Path:
    """The checkpoint that predicts."""
    return run / "checkpoints" / "best.safetensors"


def runs_below(run: Path) -> list[Path]:
    """The run folders of the members, in the order of training."""
    found = [path for path in (run / "members").iterdir() if path.is_dir() and "_" in path.name]
    return sorted(found, key=lambda path: int(path.name.split("_")[1].split("-")[0]))


def assert_same_model(one: Path, other: Path) -> None:
    """Two checkpoints with the same tensors, bit by bit, and the same words around them."""
    first, second = load_checkpoint(one), load_checkpoint(other)
    assert first.content == second.content
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        assert tensor.numpy().tobytes() == second.tensors[name].numpy().tobytes(), name


def logits_in(path: Path) -> dict[str, float]:
    """Logit of each image of a table of predictions."""
    return {row["path"]: float(row["logit"]) for row in rows_of(path)}


def splits_in(run: Path) -> dict[str, str]:
    """Split of each image, as the run's own manifest says."""
    return {row["path"]: row["split"] for row in rows_of(run / "data" / "manifest.csv")}


def images_of(run: Path) -> tuple[Any, list[str]]:
    """The prepared images of a run's own data and their names."""
    config = load_config(run).config
    radiographs = run_loading(config.data, config.task, Terminal(quiet=True))
    return radiographs, list(radiographs.manifest.ids)


def test_the_plan_is_every_seed_of_every_fold() -> None:
    seeds = members_of(asked("seed=7", "train.seeds=3").config)
    assert [(m.name, m.seed, m.fold) for m in seeds] == [
        ("1-seed7", 7, None),
        ("2-seed8", 8, None),
        ("3-seed9", 9, None),
    ]
    both = members_of(asked("train.folds=2", "train.seeds=2").config)
    names = ["1-fold1-seed0", "2-fold1-seed1", "3-fold2-seed0", "4-fold2-seed1"]
    assert [m.name for m in both] == names
    assert [m.number for m in both] == [1, 2, 3, 4]
    assert is_repeated(asked("train.folds=2").config)
    assert is_repeated(asked("train.seeds=2").config)
    assert not is_repeated(asked().config)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        members_of(asked("train.folds=2", "data.split.fold=[1, 2]").config)
    with pytest.raises(UsageError, match="leaves no 3 seeds"):
        members_of(asked(f"seed={2**31 - 2}", "train.seeds=3").config)
    assert members_of(asked(f"seed={2**31 - 3}", "train.seeds=3").config)


def test_a_members_config_stands_on_its_own(folded: TrainingResult) -> None:
    outer = asked("train.folds=3", "train.seeds=2")
    for member, run in zip(members_of(outer.config), runs_below(Path(folded.run_dir)), strict=True):
        own = load_config(run)
        assert own.config == member_config(outer, member).config
        assert own.name == member.name
        assert not is_repeated(own.config)
        assert own.config.seed == member.seed
        assert own.config.data.split.fold == (member.fold, 3)
        assert (run / "history.csv").is_file()
        assert json.loads((run / "summary.json").read_text())["status"] == "finished"


def test_seeds_share_one_split_and_differ_in_weights(seeded: TrainingResult) -> None:
    outer = Path(seeded.run_dir)
    runs = runs_below(outer)
    assert [run.name.split("_")[1] for run in runs] == ["1-seed0", "2-seed1", "3-seed2"]
    assert all(splits_in(run) == splits_in(outer) for run in runs)
    tables = [logits_in(run / "predictions_val.csv") for run in runs]
    assert len({tuple(table.values()) for table in tables}) == 3


@pytest.mark.parametrize("which", ["seeded", "folded"])
def test_the_ensemble_answers_with_the_mean_of_its_members(
    which: str, request: pytest.FixtureRequest
) -> None:
    outer = Path(request.getfixturevalue(which).run_dir)
    radiographs, _ = images_of(outer)
    each = [load_classifier(run, "cpu").score(radiographs.images) for run in runs_below(outer)]
    expected = sum(scores.logits for scores in each) / len(each)
    logits = load_classifier(outer, "cpu").score(radiographs.images).logits
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_with_seeds_the_mean_on_validation_is_judged_and_calibrated(
    seeded: TrainingResult,
) -> None:
    outer = Path(seeded.run_dir)
    tables = [logits_in(run / "predictions_val.csv") for run in runs_below(outer)]
    mean = {name: sum(table[name] for table in tables) / 3 for name in tables[0]}
    given = logits_in(outer / "predictions_val.csv")
    assert given.keys() == mean.keys()
    np.testing.assert_allclose(list(given.values()), list(mean.values()), rtol=1e-5, atol=1e-6)
    labels = np.array([row["label"] == "sick" for row in rows_of(outer / "predictions_val.csv")])
    expected = fit_calibration(labels.astype(int), np.array(list(given.values())), "platt")
    content = metadata_of(best_of(outer))
    assert content["calibration"] == expected.calibration.to_dict()
    assert content["threshold"]["chosen_on"] == "val"
    metrics = json.loads((outer / "metrics.json").read_text())
    assert metrics["split"] == "val"
    auroc = roc_auc_score(labels, list(given.values()))
    assert metrics["metrics"]["auroc"]["value"] == pytest.approx(auroc)
    assert json.loads(to_json(seeded.metrics)) == metrics["metrics"]  # NaN is null there


def test_each_image_outside_test_validates_exactly_one_fold(folded: TrainingResult) -> None:
    outer = Path(folded.run_dir)
    before = splits_in(outer)
    assert set(before.values()) == {"train", "val", "test"}
    each = [splits_in(run) for run in runs_below(outer)]
    for name, split in before.items():
        roles = Counter(splits[name] for splits in each)
        assert roles == ({"test": 6} if split == "test" else {"val": 2, "train": 4})
    for one, other in zip(each[::2], each[1::2], strict=True):  # two seeds of one fold
        assert one == other


def test_no_patient_and_no_copy_stands_in_two_folds(folded: TrainingResult) -> None:
    for run in runs_below(Path(folded.run_dir)):
        homes: dict[str, set[str]] = {}
        for row in rows_of(run / "data" / "manifest.csv"):
            homes.setdefault(row["patient"], set()).add(row["split"])
        assert all(len(home) == 1 for home in homes.values())
        assert len(homes) < len(splits_in(run))  # some patients do have several films
        leaks = json.loads((run / "data" / "audit.json").read_text())["leaks"]
        assert leaks["patients"]["shared_across_splits"] == 0
        assert leaks["near"]["images_across_splits"] == 0


def test_folds_are_balanced(folded: TrainingResult) -> None:
    outer = Path(folded.run_dir)
    rows = [r for r in rows_of(outer / "data" / "manifest.csv") if r["split"] != "test"]
    for run in runs_below(outer)[::2]:
        splits = splits_in(run)
        for name in CLASS_NAMES:
            whole = sum(row["label"] == name for row in rows)
            inside = sum(row["label"] == name and splits[row["path"]] == "val" for row in rows)
            assert abs(inside - whole / 3) <= 4  # a patient has at most four films


def test_pooled_predictions_are_by_members_that_did_not_train_on_the_image(
    folded: TrainingResult,
) -> None:
    outer = Path(folded.run_dir)
    by_image: dict[str, list[float]] = {}
    for run in runs_below(outer):
        for name, logit in logits_in(run / "predictions_val.csv").items():
            by_image.setdefault(name, []).append(logit)
    rows = rows_of(outer / "predictions_out_of_fold.csv")
    assert [row["path"] for row in rows] == [n for n, s in splits_in(outer).items() if s != "test"]
    for row in rows:
        assert len(by_image[row["path"]]) == 2
        assert float(row["logit"]) == pytest.approx(statistics.fmean(by_image[row["path"]]))
    labels = [row["label"] == "sick" for row in rows]
    auroc = roc_auc_score(labels, [float(row["logit"]) for row in rows])
    metrics = json.loads((outer / "metrics.json").read_text())
    assert (metrics["split"], metrics["n"]) == ("out-of-fold", len(rows))
    assert metrics["metrics"]["auroc"]["value"] == pytest.approx(auroc)
    assert folded.metrics == metrics["metrics"]
    logits = np.array([float(row["logit"]) for row in rows])
    fitted = fit_calibration(np.array(labels, dtype=int), logits, "platt")
    content = metadata_of(best_of(outer))
    assert content["calibration"] == fitted.calibration.to_dict()
    assert content["threshold"]["chosen_on"] == "out-of-fold"
    assert content["operating_curve"]["n_sick"] == sum(labels)


@pytest.mark.parametrize("which", ["seeded", "folded"])
def test_mean_and_spread_are_those_of_the_members(
    which: str, request: pytest.FixtureRequest
) -> None:
    outer = Path(request.getfixturevalue(which).run_dir)
    found = json.loads((outer / "metrics.json").read_text())["members"]
    each = [json.loads((run / "metrics.json").read_text())["metrics"] for run in runs_below(outer)]
    assert found["n"] == len(each)
    for name in ("auroc", "brier", "loss"):
        values = [metrics[name]["value"] for metrics in each]
        spread = found["metrics"][name]
        assert spread["values"] == values
        assert spread["mean"] == pytest.approx(statistics.fmean(values))
        assert spread["sd"] == pytest.approx(statistics.stdev(values))
        assert (spread["min"], spread["max"], spread["n"]) == (min(values), max(values), len(each))
        assert not any(key.startswith("ci") for key in spread)  # it is no interval


def test_the_spread_of_known_numbers() -> None:
    spread = spread_of([{"auroc": 0.5, "npv": 0.25}, {"auroc": 0.75}, {"auroc": 1.0}])
    assert spread["auroc"] == {
        "mean": 0.75,
        "sd": 0.25,
        "min": 0.5,
        "max": 1.0,
        "n": 3,
        "values": [0.5, 0.75, 1.0],
    }
    assert spread["npv"]["n"] == 1
    assert np.isnan(spread["npv"]["sd"])
    words = spread_in_words(spread, 3)
    assert "no interval" in words[0]
    said = " ".join(words[1].split())
    assert said == "auroc mean 0.750, standard deviation 0.250, from 0.500 to 1.000"
    assert spread_in_words({}, 3) == []


def test_the_ensemble_remembers_all_its_training_images(folded: TrainingResult) -> None:
    outer = Path(folded.run_dir)
    radiographs, _ = images_of(outer)
    classifier = load_classifier(outer, "cpu")
    member = load_classifier(runs_below(outer)[0], "cpu")
    val, test = radiographs.rows("val"), radiographs.rows("test")
    assert set(classifier.images_seen(radiographs.signatures[val])) == {"yes"}
    assert "yes" in set(member.images_seen(radiographs.signatures[val]))
    assert "yes" not in classifier.images_seen(radiographs.signatures[test])
    assert classifier.memory is not None
    assert len(classifier.memory) == len(val) + len(radiographs.rows("train"))


class StopIn:
    """Sends a signal at the end of an epoch of the run, counted over all members."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, at_epoch: int) -> None:
        original = HistoryWriter.on_epoch_end
        self.epochs = 0

        def on_epoch_end(writer: HistoryWriter, run: Run) -> None:
            original(writer, run)
            self.epochs += 1
            if self.epochs == at_epoch:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(HistoryWriter, "on_epoch_end", on_epoch_end)


@pytest.mark.parametrize(
    ("overrides", "which", "number", "kind", "code"),
    [
        (("train.seeds=3",), "seeded", signal.SIGTERM, TerminatedRun, 75),
        (("train.folds=3", "train.seeds=2"), "folded", signal.SIGINT, InterruptedRun, 130),
    ],
)
def test_a_run_stopped_in_its_second_member_ends_like_an_unbroken_one(
    overrides: tuple[str, ...],
    which: str,
    number: signal.Signals,
    kind: type[InterruptedRun],
    code: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        StopIn(patch, number, at_epoch=4)  # the first of the second member
        with pytest.raises(InterruptedRun) as stopped:
            repeated(asked(*overrides), tmp_path)
    assert type(stopped.value) is kind
    assert stopped.value.exit_code == code
    (outer,) = [path for path in tmp_path.glob("*_many") if not path.is_symlink()]
    assert str(stopped.value).endswith(f"train --resume {outer}")
    summary = json.loads((outer / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"]) == ("interrupted", code)
    assert [one["status"] for one in summary["members"].values()] == ["finished", "interrupted"]
    assert not best_of(outer).exists()
    first, second = runs_below(outer)
    before = snapshot(first)
    result = repeated(load_repeated(outer, []), tmp_path, outer)
    assert result.run_dir == str(outer)
    assert snapshot(first) == before  # it was not trained again
    assert runs_below(outer)[1] == second  # it went on
    whole = Path(request.getfixturevalue(which).run_dir)
    assert_same_model(best_of(outer), best_of(whole))
    assert (outer / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert json.loads((outer / "summary.json").read_text())["status"] == "finished"
    with (tmp_path / "index.csv").open(encoding="utf-8", newline="") as file:
        assert [row[:2] for row in csv.reader(file)][1:] == [[outer.name, "finished"]]


def run_like(path: Path, status: str, state: str | None) -> Path:
    """A folder that looks like a run's."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "summary.json").write_text(json.dumps({"status": status}))
    if state is not None:
        (path / "checkpoints" / f"{state}.safetensors").write_bytes(b"")
    return path


def test_the_run_of_a_member_is_a_finished_one_else_the_newest_with_a_state(tmp_path: Path) -> None:
    assert found_run(tmp_path, "1-seed0") is None
    run_like(tmp_path / "20260101-000000_1-seed0", "interrupted", None)
    run_like(tmp_path / "20260109-000000_11-seed0", "finished", "last")
    run_like(tmp_path / "20260109-000000_1-seed01", "finished", "last")
    assert found_run(tmp_path, "1-seed0") is None
    older = run_like(tmp_path / "20260102-000000_1-seed0", "interrupted", "previous")
    assert found_run(tmp_path, "1-seed0") == older
    newer = run_like(tmp_path / "20260102-000000_1-seed0-2", "interrupted", "last")
    (tmp_path / "latest").symlink_to(older.name)
    assert found_run(tmp_path, "1-seed0") == newer
    (older / "summary.json").write_text('{"status": "finished"}')
    assert found_run(tmp_path, "1-seed0") == older


def test_a_member_without_a_state_is_begun_anew(seeded: TrainingResult, tmp_path: Path) -> None:
    outer = copied(seeded, tmp_path)
    second = runs_below(outer)[1]
    shutil.rmtree(second / "checkpoints")
    (second / "summary.json").write_text('{"status": "running"}')
    best_of(outer).unlink()
    repeated(load_repeated(outer, []), tmp_path, outer)
    assert len(runs_below(outer)) == 4
    assert_same_model(best_of(outer), best_of(Path(seeded.run_dir)))


def copied(result: TrainingResult, tmp_path: Path) -> Path:
    """A copy of a finished run that a test may change."""
    run = Path(result.run_dir)
    return Path(shutil.copytree(run, tmp_path / run.name, symlinks=True))


def test_an_interruption_between_two_members_is_told_apart(
    seeded: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = copied(seeded, tmp_path)

    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xray_classifier.repeated._finish", interrupted)
    with pytest.raises(InterruptedRun, match=f"train --resume {outer}"):
        repeated(load_repeated(outer, []), tmp_path, outer)
    assert json.loads((outer / "summary.json").read_text())["exit_code"] == 130


def test_a_damaged_member_is_named(seeded: TrainingResult, tmp_path: Path) -> None:
    outer = copied(seeded, tmp_path)
    second = runs_below(outer)[1]
    raw = bytearray(best_of(second).read_bytes())
    raw[-1] ^= 1
    best_of(second).write_bytes(raw)
    with pytest.raises(CheckpointError, match=rf"{second.name}.*damaged[\s\S]*train this member"):
        repeated(load_repeated(outer, []), tmp_path, outer)
    best_of(second).unlink()
    with pytest.raises(CheckpointError, match=second.name):
        repeated(load_repeated(outer, []), tmp_path, outer)


def test_changed_data_are_noticed(folded: TrainingResult, tmp_path: Path) -> None:
    outer = copied(folded, tmp_path)
    with pytest.raises(DataError, match=r"the data changed since .*1-fold1-seed0"):
        repeated(load_config(outer, ["data.phantoms.seed=1"]), tmp_path, outer)
    manifest = runs_below(outer)[3] / "data" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",train,", ",val,", 1))
    with pytest.raises(DataError, match=r"the data changed since .*4-fold2-seed1"):
        repeated(load_repeated(outer, []), tmp_path, outer)


def test_only_keys_that_keep_members_alike_may_change(seeded: TrainingResult) -> None:
    outer = Path(seeded.run_dir)
    assert holds_members(outer)
    assert not holds_members(runs_below(outer)[0])
    assert load_repeated(outer, ["data.workers=3"]).config.data.workers == 3
    for wrong in ("train.epochs=9", "train.early_stopping.patience=3", "train.seeds=4", "seed=1"):
        with pytest.raises(UsageError, match="cannot change"):
            load_repeated(outer, [wrong])


def test_two_owners_of_one_run_are_refused(seeded: TrainingResult) -> None:
    outer = Path(seeded.run_dir)
    with owned(outer), pytest.raises(OutputError, match="another process"):
        repeated(load_repeated(outer, []), outer.parent, outer)


def test_without_validation_there_is_an_ensemble_and_nothing_to_judge(tmp_path: Path) -> None:
    loaded = asked("train.seeds=2", "data.split.val=null", "train.early_stopping=null")
    result = repeated(loaded, tmp_path)
    outer = Path(result.run_dir)
    assert not result.metrics
    assert not (outer / "metrics.json").exists()
    assert load_classifier(outer, "cpu").threshold == 0.5
    assert metadata_of(best_of(outer))["calibration"]["method"] == "off"


def test_too_many_folds_stop_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.folds is 60"):
        repeated(asked("train.folds=60"), tmp_path)
    (outer,) = [path for path in tmp_path.glob("*_many") if not path.is_symlink()]
    assert not runs_below(outer)


def test_evaluate_judges_a_member_and_the_ensemble(
    folded: TrainingResult, tmp_path: Path, program: Program
) -> None:
    outer = copied(folded, tmp_path)
    member = runs_below(outer)[2]
    said = program("evaluate", member, "--split", "val", "--json")
    assert said.code == 0
    own = json.loads((member / "metrics.json").read_text())
    assert said.json["metrics"] == own["metrics"]
    assert Path(said.json["out"]).is_relative_to(member)
    said = program("evaluate", outer, "--json")
    assert (said.code, said.json["split"]) == (0, "test")
    assert Path(said.json["out"]).is_relative_to(outer)
    assert "trained all models" not in said.err
    said = program("evaluate", outer, "--split", "val", "-o", tmp_path / "e", "--json")
    assert "trained all models of this ensemble but those of its own fold" in said.err
    judged = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert judged["in_training"]["yes"] == judged["n"]


def test_evaluate_says_of_seeds_what_it_says_of_one_model(
    seeded: TrainingResult, tmp_path: Path, program: Program
) -> None:
    said = program("evaluate", seeded.run_dir, "--split", "val", "-o", tmp_path / "e", "--json")
    assert said.code == 0
    assert said.json["metrics"] == json.loads(to_json(seeded.metrics))
    assert "this split chose the best epoch" in said.err
    assert program("evaluate", seeded.run_dir, "-o", seeded.run_dir).code == 6


def test_folds_of_a_regression_pool_numbers_in_their_own_unit(tmp_path: Path) -> None:
    numbers = {f"film{n:02d}.png": 100.0 + 3 * n for n in range(40)}
    for seed, name in enumerate(numbers):
        save_film(tmp_path / name, seed)
    lines = ["path,label", *(f"{name},{number}" for name, number in numbers.items())]
    (tmp_path / "films.csv").write_text("\n".join(lines))
    loaded = asked(
        "task=regress", "data.source=csv", f"data.path={tmp_path / 'films.csv'}", "train.folds=2"
    )
    outer = Path(repeated(loaded, tmp_path / "runs").run_dir)
    of_members = {
        row["path"]: float(row["prediction"])
        for run in runs_below(outer)
        for row in rows_of(run / "predictions_val.csv")
    }
    rows = rows_of(outer / "predictions_out_of_fold.csv")
    pooled = {row["path"]: float(row["prediction"]) for row in rows}
    assert (
        pooled.keys()
        == of_members.keys()
        == {n for n, s in splits_in(outer).items() if s != "test"}
    )
    for name, number in pooled.items():
        assert number == pytest.approx(of_members[name], rel=1e-6)
        assert 50 < number < 300  # years, not standard deviations
    error = statistics.fmean(abs(pooled[name] - numbers[name]) for name in pooled)
    found = json.loads((outer / "metrics.json").read_text())
    assert found["metrics"]["mae"]["value"] == pytest.approx(error)
    radiographs, _ = images_of(outer)
    each = [load_classifier(run, "cpu").score(radiographs.images) for run in runs_below(outer)]
    whole = load_classifier(outer, "cpu").score(radiographs.images).logits
    np.testing.assert_allclose(whole, (each[0].logits + each[1].logits) / 2, rtol=1e-5)


def test_several_processes_are_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="leave torchrun out"):
        repeated(asked("train.seeds=2"), tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("fold", ["[0, 5]", "[6, 5]", "[1, 1]", "[1]", "[1, 2, 3]", "2"])
def test_a_fold_that_does_not_exist_is_no_config(fold: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.split\.fold"):
        asked(f"data.split.fold={fold}")
    assert asked("data.split.fold=[5, 5]").config.data.split.fold == (5, 5)


def test_train_goes_on_by_itself_where_it_was_stopped(tmp_path: Path, program: Program) -> None:
    words = ("train", "-c", "demo", "-o", tmp_path, "--name", "many", *TINY, "train.seeds=2")
    assert program(*words, "--dry-run").code == 0
    with pytest.MonkeyPatch.context() as patch:
        StopIn(patch, signal.SIGTERM, at_epoch=4)
        said = program(*words)
    (outer,) = [path for path in tmp_path.glob("*_many") if not path.is_symlink()]
    assert said.code == 75
    assert f"train --resume {outer}" in said.err
    said = program(*words, "--resume", "auto", "--json")
    assert (said.code, said.json["run_dir"], said.json["status"]) == (0, str(outer), "finished")
    assert len(runs_below(outer)) == 2
    assert program("train", "--resume", outer, "train.epochs=9").code == 2
    assert program("train", "--resume", outer, "data.workers=2").code == 0
