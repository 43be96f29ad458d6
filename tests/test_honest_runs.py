"""What would make a run's answer wrong without anyone noticing."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load as load_tensors
from tiny_runs import Program, class_folders, metadata_of, no_pictures, program, rows_of, save_film

from xray_classifier.checkpoint import save_checkpoint
from xray_classifier.errors import OutputError
from xray_classifier.locks import owned

__all__ = ["no_pictures", "program"]

pytestmark = pytest.mark.usefixtures("no_pictures")

SMALL = (
    "data.image.size=8",
    "model.hidden=[8]",
    "train.epochs=2",
    "train.threads=1",
    "train.batch_size=16",
    "data.labels={healthy: [healthy], sick: [sick]}",
)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Eighty films of eighty patients."""
    return class_folders(tmp_path / "films", {"healthy": 40, "sick": 40})


def trained(program: Program, films: Path, out: Path, *words: str) -> dict[str, Any]:
    """Train on a folder and give what `--json` says."""
    keys = (f"data.path={films}", f"data.cache={out / 'cache'}", *SMALL, *words)
    said = program("train", "-c", "mlp", "-o", out / "runs", "--json", *keys)
    assert said.code == 0, said.err
    result = said.json
    assert isinstance(result, dict)
    return result


def test_a_run_is_not_resumed_on_other_images(
    program: Program, films: Path, tmp_path: Path
) -> None:
    run = trained(program, films, tmp_path)["run_dir"]
    moved = tmp_path / "moved"
    films.rename(moved)
    went_on = program("train", "--resume", run, "train.epochs=3", f"data.path={moved}")
    assert went_on.code == 0, went_on.err
    before = {path.name: path.read_bytes() for path in Path(run).glob("*.*")}
    save_film(moved / "sick" / "film007.png", seed=999)
    said = program("train", "--resume", run, "train.epochs=4")
    assert said.code == 3
    assert "the data changed" in said.err
    after = {path.name: path.read_bytes() for path in Path(run).glob("*.*")}
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"log.txt"}, "a refused resume leaves the finished run as it was"


def test_a_fixed_threshold_holds_without_validation(
    program: Program, films: Path, tmp_path: Path
) -> None:
    result = trained(
        program, films, tmp_path,
        "data.split.val=null", "train.early_stopping=null", "evaluate.threshold=0.3",
    )  # fmt: skip
    stored = metadata_of(Path(result["checkpoint"]))["threshold"]
    assert (stored["value"], stored["policy"], stored["chosen_on"]) == (0.3, "fixed", None)
    said = program("evaluate", result["run_dir"], "-o", tmp_path / "judged")
    assert "at threshold 0.3, a fixed number" in said.out
    assert "plain 0.5" not in said.out


def test_a_solved_threshold_without_validation_is_said_to_be_plain(
    program: Program, films: Path, tmp_path: Path
) -> None:
    result = trained(program, films, tmp_path, "data.split.val=null", "train.early_stopping=null")
    said = program("evaluate", result["run_dir"], "-o", tmp_path / "judged")
    assert "the threshold is the plain 0.5" in said.out
    other = program("evaluate", result["run_dir"], "-o", tmp_path / "b", "--threshold", "0.2")
    assert "plain 0.5" not in other.out


def test_validation_of_one_class_is_refused_before_the_first_step(
    program: Program, tmp_path: Path
) -> None:
    counts = {"train/healthy": 20, "train/sick": 20, "val/healthy": 6, "test/healthy": 4}
    films = class_folders(tmp_path / "films", {**counts, "test/sick": 4})
    keys = (f"data.path={films}", f"data.cache={tmp_path / 'cache'}", *SMALL)
    said = program("train", "-c", "mlp", "-o", tmp_path / "runs", *keys)
    assert said.code == 3
    assert "6 healthy and 0 sick" in said.err
    assert not (tmp_path / "runs").exists()
    fixed = trained(program, films, tmp_path, "evaluate.threshold=0.5")
    assert metadata_of(Path(fixed["checkpoint"]))["operating_curve"] is None


def test_unreadable_test_images_of_the_run_stay_in_sight(program: Program, tmp_path: Path) -> None:
    counts = {f"{s}/{c}": 12 for s in ("train", "val", "test") for c in ("healthy", "sick")}
    films = class_folders(tmp_path / "films", counts)
    (films / "test" / "sick" / "film003.png").write_bytes(b"no image at all")
    result = trained(program, films, tmp_path, "data.unreadable=exclude")
    said = program("evaluate", result["run_dir"], "-o", tmp_path / "judged")
    assert said.code == 4
    assert "1 of 24 images cannot be used" in said.out
    rows = rows_of(tmp_path / "judged" / "predictions.csv")
    assert len(rows) == 24
    empty = [row["path"] for row in rows if not row["p_sick"]]
    assert empty == ["test/sick/film003.png"]


def test_a_split_that_the_run_used_is_said_to_be_too_good_and_others_are_not(
    program: Program, films: Path, tmp_path: Path
) -> None:
    run = trained(program, films, tmp_path)["run_dir"]
    said = {
        split: program("evaluate", run, "--split", split, "-o", tmp_path / split).out
        for split in ("train", "val", "test")
    }
    assert "trained on these very images" in said["train"]
    assert "too good" in said["val"]
    assert "too good" not in said["test"]
    other = class_folders(tmp_path / "o", {"val/healthy": 9, "val/sick": 9}, first_seed=500)
    elsewhere = program("evaluate", run, "--data", other, "--split", "val", "-o", tmp_path / "o2")
    assert elsewhere.code == 0
    assert "too good" not in elsewhere.out


def test_an_evaluation_does_not_overwrite_the_run(
    program: Program, films: Path, tmp_path: Path
) -> None:
    run = Path(trained(program, films, tmp_path)["run_dir"])
    before = (run / "metrics.json").read_bytes()
    assert program("evaluate", run, "-o", run).code == 6
    assert (run / "metrics.json").read_bytes() == before


def test_weights_of_the_last_epoch_are_called_the_last(
    program: Program, films: Path, tmp_path: Path
) -> None:
    result = trained(program, films, tmp_path, "train.early_stopping.restore_best=false")
    assert result["best_epoch"] == 2
    content = metadata_of(Path(result["checkpoint"]))
    assert (content["epoch"], content["monitor"]) == (2, None)


def test_resume_auto_says_what_it_does_not_take_over(
    program: Program, films: Path, tmp_path: Path
) -> None:
    run = Path(trained(program, films, tmp_path)["run_dir"])
    summary = json.loads((run / "summary.json").read_bytes())
    (run / "summary.json").write_text(json.dumps({**summary, "status": "interrupted"}))
    keys = (f"data.path={films}", f"data.cache={tmp_path / 'cache'}", *SMALL)
    said = program(
        "train", "-c", "mlp", "-o", tmp_path / "runs", "--resume", "auto", *keys,
        "train.optimizer.lr=0.5", "train.epochs=3",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "train.optimizer.lr stays as the run began" in said.out
    assert "train.epochs stays" not in said.out
    assert len(rows_of(run / "history.csv")) == 3
    assert len(rows_of(tmp_path / "runs" / "index.csv")) == 1, "a resumed run keeps one line"


def test_a_folder_has_one_owner_and_a_dead_owner_lets_go(tmp_path: Path) -> None:
    with owned(tmp_path), pytest.raises(OutputError, match="another process"), owned(tmp_path):
        pass
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_die_as_owner, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    with owned(tmp_path):
        pass


def _die_as_owner(folder: Path) -> None:
    lock = owned(folder)
    lock.__enter__()
    os._exit(9)


def test_a_patient_column_is_used_without_being_asked_for(program: Program, tmp_path: Path) -> None:
    films = class_folders(tmp_path / "films", {"a": 80})
    lines = [f"a/film{n:03d}.png,{'sick' if n % 4 < 2 else 'healthy'},P{n // 2}" for n in range(80)]
    (films / "films.csv").write_text("\n".join(["path,label,Patient_ID", *lines]) + "\n")
    result = trained(program, films / "films.csv", tmp_path)
    homes: dict[str, set[str]] = {}
    for row in rows_of(Path(result["run_dir"]) / "data" / "manifest.csv"):
        homes.setdefault(row["patient"], set()).add(row["split"])
    assert len(homes) == 40
    assert all(len(splits) == 1 for splits in homes.values())


def test_links_that_are_not_followed_are_told(
    program: Program, films: Path, tmp_path: Path
) -> None:
    run = trained(program, films, tmp_path)["run_dir"]
    inbox = class_folders(tmp_path / "inbox", {".": 1})
    try:
        (inbox / "linked").symlink_to(films, target_is_directory=True)
        (inbox / "out.png").symlink_to(films / "sick" / "film000.png")
    except OSError:
        pytest.skip("this system lets us make no links")
    said = program("predict", run, inbox, "-o", tmp_path / "p.csv")
    assert said.code == 0
    assert "links to folders not followed: 1" in said.out
    assert "links ignored that lead nowhere or out of the folder: 1" in said.out


def test_a_threshold_for_a_number_is_refused(program: Program, tmp_path: Path) -> None:
    films = class_folders(tmp_path / "films", {"a": 30})
    ages = np.random.default_rng(0).uniform(20, 90, 30)
    lines = [f"a/film{n:03d}.png,{age:.1f}" for n, age in enumerate(ages)]
    (films / "ages.csv").write_text("\n".join(["path,age", *lines]) + "\n")
    keys = ("task=regress", "data.columns.label=age", "data.patient=null")
    run = trained(program, films / "ages.csv", tmp_path, *keys)["run_dir"]
    said = program("evaluate", run, "--threshold", "sens=0.9", "-o", tmp_path / "j")
    assert said.code == 2
    assert "predicts a number" in said.err
    assert program("evaluate", run, "-o", tmp_path / "j").code == 0
    rows = rows_of(tmp_path / "j" / "predictions.csv")
    head = ["path", "label", "patient", "split", "prediction"]
    columns = [*head, "in_training", "pixel_hash", "ood_score", "reason"]
    assert list(rows[0]) == columns
    names = json.loads((tmp_path / "j" / "metrics.json").read_bytes())["metrics"]
    errors = np.array([float(row["prediction"]) - float(row["label"]) for row in rows])
    assert names["mae"]["value"] == pytest.approx(np.abs(errors).mean())
    assert list(names) == ["mse", "mae", "r2"]


def test_leaving_at_once_says_what_is_saved(
    program: Program, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C in the third epoch: the state of the first is there to go on with."""
    from xray_classifier.trainer import Trainer

    finish = Trainer.finish_epoch

    def interrupted(trainer: Trainer) -> None:
        if trainer.run.epoch == 2:
            raise KeyboardInterrupt
        finish(trainer)

    keys = (f"data.path={films}", f"data.cache={tmp_path / 'cache'}", *SMALL, "train.epochs=4")
    out = tmp_path / "runs"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "finish_epoch", interrupted)
        said = program("train", "-c", "mlp", "-o", out, *keys)
    assert said.code == 130
    assert "left at once" in said.err
    run = next(path for path in out.iterdir() if path.is_dir() and not path.is_symlink())
    assert f"--resume {run}" in said.err
    assert json.loads((run / "summary.json").read_bytes())["status"] == "interrupted"
    assert program("train", "--resume", run).code == 0
    assert len(rows_of(run / "history.csv")) == 4


def test_a_limit_is_told(program: Program, films: Path, tmp_path: Path) -> None:
    keys = (f"data.path={films}", f"data.cache={tmp_path / 'cache'}", *SMALL, "data.limit=60")
    said = program("train", "-c", "mlp", "-o", tmp_path / "runs", *keys)
    assert "data.limit: 60 of 80 images" in said.out


def test_resume_auto_says_that_it_begins_anew(
    program: Program, films: Path, tmp_path: Path
) -> None:
    keys = (f"data.path={films}", f"data.cache={tmp_path / 'cache'}", *SMALL)
    said = program("train", "-c", "mlp", "-o", tmp_path / "runs", "--resume", "auto", *keys)
    assert said.code == 0
    assert "no unfinished run of mlp" in said.out


def test_another_torch_is_told_on_resume(
    program: Program, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(program, films, tmp_path)["run_dir"]
    monkeypatch.setattr("torch.__version__", "9.9.9")
    said = program("train", "--resume", run, "train.epochs=4")
    assert said.code == 0, said.err
    assert "this is 9.9.9" in said.out


def test_a_best_epoch_beyond_the_state_is_reached_by_the_same_plan_alone(
    program: Program, films: Path, tmp_path: Path
) -> None:
    run = Path(trained(program, films, tmp_path, "train.epochs=6")["run_dir"])
    state = run / "checkpoints" / "last.safetensors"
    content = metadata_of(state)
    arrays = load_tensors(state.read_bytes())
    counters = {**content["counters"], "epoch": 1, "step": content["counters"]["step"] // 6}
    early = {k: v for k, v in content.items() if k not in ("format", "format_version")}
    early |= {"counters": counters, "history": content["history"][:1]}
    save_checkpoint(state, arrays, early)
    best = metadata_of(run / "checkpoints" / "best.safetensors")["epoch"]
    for key in ("train.epochs=9", "train.early_stopping.patience=1"):
        said = program("train", "--resume", run, key)
        if best > 1:
            assert said.code == 2
            assert "resume the run without" in said.err
    assert best > 1, "the run's best epoch should come later for this test to say anything"


@pytest.mark.parametrize("harm", ["damaged", "deleted"])
def test_a_lost_best_is_told_and_replaced(
    harm: str, program: Program, films: Path, tmp_path: Path
) -> None:
    run = Path(trained(program, films, tmp_path)["run_dir"])
    best = run / "checkpoints" / "best.safetensors"
    raw = bytearray(best.read_bytes())
    raw[-1] ^= 1
    best.write_bytes(raw)
    if harm == "deleted":
        best.unlink()
    said = program("train", "--resume", run, "train.epochs=5")
    assert said.code == 0, said.err
    if harm == "damaged":
        assert "its weights are lost" in said.out
    assert program("evaluate", run, "-o", tmp_path / "judged").code == 0


def test_only_training_runs_in_several_processes(
    program: Program, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(program, films, tmp_path)["run_dir"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for words in (("evaluate", run), ("check", films)):
        said = program(*words)
        assert said.code == 2
        assert "without torchrun" in said.err
    assert not (tmp_path / "p.csv").exists()
