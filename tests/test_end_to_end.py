"""From a folder of films to a table of answers, and runs that are stopped on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny_runs import TINY, Program, class_folders, film, no_pictures, program, rows_of

from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.pending import TakenStep
from xray_classifier.trainer import Trainer

__all__ = ["no_pictures", "program"]

QUICK = ("data.image.size=12", "model.hidden=[8]", "train.epochs=4", "train.device=cpu")


def bright_films(root: Path) -> Path:
    """Films whose sick ones have a bright left half: easy to learn."""
    class_folders(root, {"NORMAL": 40, "PNEUMONIA": 40})
    for number, path in enumerate(sorted((root / "PNEUMONIA").iterdir())):
        picture = film(5000 + number).copy() // 2
        picture[:, :12] += 120
        Image.fromarray(picture).save(path)
    return root


def test_a_newcomer_gets_from_a_folder_to_answers(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bright_films(tmp_path / "films")
    assert program("init", "mine.yaml", "--data", "films").code == 0
    assert program("train", "-c", "mine.yaml", "--dry-run", *QUICK).code == 0
    said = program("train", "-c", "mine.yaml", *QUICK, "train.epochs=15", "train.batch_size=8")
    assert said.code == 0, said.err
    next_line = said.out.strip().splitlines()[-1]
    assert next_line.startswith("Next: xray-classifier evaluate runs/")
    judged = program(*next_line.removeprefix("Next: xray-classifier ").split(), "--json")
    assert judged.code == 0, judged.err
    assert judged.json["metrics"]["auroc"]["value"] > 0.95
    scored = program("predict", "runs/latest", "films", "-o", "answers.csv")
    assert scored.code == 0
    rows = rows_of(tmp_path / "answers.csv")
    assert len(rows) == 80
    right = sum((row["decision"] == "sick") == ("PNEUMONIA" in row["path"]) for row in rows)
    assert right > 70
    answers = {"answers.csv", "answers.meta.json"}
    assert {p.name for p in tmp_path.iterdir()} == {"films", "mine.yaml", "runs", *answers}


def test_a_classifier_of_renamed_classes_still_calls_the_same_films_sick(
    tmp_path: Path, program: Program
) -> None:
    films = bright_films(tmp_path / "films")
    (films / "PNEUMONIA").rename(films / "A")  # now the sick class sorts first
    (films / "NORMAL").rename(films / "Z")
    config = tmp_path / "c.yaml"
    config.write_text(
        "data: {path: films, patient: null, labels: {healthy: Z, sick: A}}\n"
        "model: {type: mlp, dropout: 0.0}\n"
    )
    said = program(
        "train", "-c", config, "-o", tmp_path / "runs", *QUICK, "train.epochs=15",
        "train.batch_size=8", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    program("predict", said.json["run_dir"], films, "-o", tmp_path / "p.csv")
    rows = rows_of(tmp_path / "p.csv")
    truth = ["/A/" in row["path"] for row in rows]
    assert sum(truth) == 40
    assert roc_auc_score(truth, [float(row["p_sick"]) for row in rows]) > 0.8  # a flip: below 0.2


def weights(run: Path) -> dict[str, bytes]:
    """All that a run's last state holds, as bytes."""
    loaded = load_checkpoint(run / "checkpoints" / "last.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in loaded.tensors.items()}


def signal_at_step(number: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process receive a signal after a number of steps."""
    plain: Callable[..., TakenStep] = Trainer.step

    def stepping(self: Trainer, index: object) -> TakenStep:
        if self.run.step == step:
            os.kill(os.getpid(), number)
        return plain(self, index)

    monkeypatch.setattr(Trainer, "step", stepping)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send")
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_stopped_run_goes_on_to_the_same_weights(
    number: int, code: int, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "-c", "demo", *TINY, "train.batch_size=16", "-o"]
    whole = Path(program(*words, tmp_path / "whole", "--json").json["run_dir"])
    signal_at_step(number, 9, monkeypatch)
    stopped = program(*words, tmp_path / "stopped", "--json")
    monkeypatch.undo()
    assert stopped.code == code
    assert stopped.json["error"]["exit_code"] == code
    [run] = (tmp_path / "stopped").glob("*_demo")
    assert f"--resume {run}" in stopped.err
    summary = json.loads((run / "summary.json").read_bytes())
    assert (summary["status"], summary["exit_code"], summary["steps"]) == ("interrupted", code, 10)
    resumed = program("train", "--resume", run, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["run_dir"] == str(run)
    assert weights(run) == weights(whole)
    plain = [
        [(row["epoch"], row["train_loss"], row["val_loss"]) for row in rows_of(r / "history.csv")]
        for r in (run, whole)
    ]
    assert plain[0] == plain[1]
    for name in ("metrics.json", "predictions_val.csv", "history_test.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send")
def test_ctrl_c_on_the_running_program_is_code_130_and_it_can_go_on(
    tmp_path: Path, program: Program
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [
        sys.executable, "-m", "xray_classifier", "train", "-c", "demo", "-o", str(tmp_path), *TINY,
        "train.epochs=100000", "train.early_stopping=null",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        deadline_s = time.monotonic() + 120
        while not list(tmp_path.glob("*_demo/history.csv")):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "train --resume" in err
    assert "SIGINT: finishing this step" in out
    [run] = tmp_path.glob("*_demo")
    done = json.loads((run / "summary.json").read_bytes())["steps"]
    steps_per_epoch = 2
    more = f"train.epochs={done // steps_per_epoch + 2}"
    resumed = program("train", "--resume", run, more, "--json")
    assert resumed.code == 0, resumed.err
    assert len(rows_of(run / "history.csv")) == done // steps_per_epoch + 2
    assert list(tmp_path.glob("*_demo")) == [run]
