"""The command line: every mistake is one message and its exit code, and nothing is half done."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import TINY, Program, class_folders, own_run, program, rows_of, save_film, tiny_run

from xray_classifier import __version__, cli, training
from xray_classifier.trainer import Trainer

__all__ = ["own_run", "program", "tiny_run"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "verb"),
        (["trian", "-c", "demo"], "did you mean 'train'?"),
        (["xyzzy"], "predict"),
        (["train", "-c", "demo", "--naem", "x"], "did you mean '--name'?"),
        (["train", "-c", "demo", "--epochs", "3"], "train.epochs=VALUE"),
        (["train", "-c", "demo", "--batch-size=3"], "train.batch_size=VALUE"),
        (["train", "-c", "demo", "stray"], "'stray' is not understood"),
        (["train", "demo"], "'demo' is not understood"),
        (["train"], "train -c demo"),
        (["train", "-c", "dmo"], "did you mean 'demo'?"),
        (["train", "-c", "demo", "epochs=3"], "did you mean 'train.epochs'?"),
        (["train", "-c", "demo", "train.epoch=3"], "did you mean"),
        (["train", "-c", "demo", "train.epochs=0"], "train.epochs: must be greater than 0"),
        (["train", "-c", "demo", "train.epochs="], "has no value"),
        (["train", "-c", "demo", "--limit", "0"], "data.limit"),
        (["train", "-c", "demo", "--limit", "many"], "--limit"),
        (["train", "-c", "demo", "--name", "../up"], "name: must be"),
        (["train", "-c", "demo", "-j", "0"], "--workers: must be a whole number of at least 1"),
        (["train", "-c", "demo", "--device", "tpu"], "train.device"),
        (["train", "--resume", "absent"], "does not exist"),
        (["evaluate"], "CHECKPOINT_OR_RUN"),
        (["evaluate", "absent"], "does not exist"),
        (["predict", "absent", "a.png"], "-o"),
        (["predict", "absent", "absent.png", "-o", "p.csv"], "does not exist"),
        (["predict", "absent", "a.png", "-o", "p.csv", "--fromat", "csv"], "--format"),
        (["predict", "absent", "a.png", "-o", "p.csv", "data.path=x"], "takes no overrides"),
        (["config", "explain"], "validate"),
        (["config", "show", "trian"], "did you mean 'train'?"),
        (["config", "validate"], "needs a config"),
        (["cache", "burn"], "clear"),
        (["init"], "YAML"),
        (["init", "a.yaml", "--data", "absent"], "does not exist"),
    ],
)
def test_a_mistake_is_one_message_with_code_2(
    words: list[str], hint: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for json_flag in ([], ["--json"] if words else []):
        said = program(*words, *json_flag)
        assert said.code == 2
        assert hint in said.err
        assert said.err.startswith("error: ")
        assert "Traceback" not in said.err
        assert said.err.count("error: ") == 1
        if json_flag:
            error = said.json["error"]
            assert error["exit_code"] == 2
            assert hint in error["message"]
        else:
            assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_overrides_stand_anywhere_after_the_verb(program: Program) -> None:
    said = program(
        "train", "data.phantoms.n_images=20", "-c", "demo", "train.epochs=4", "--dry-run",
        "data.image.size=8", "--json", "model.hidden=[4]",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.json["dry_run"] is True


def test_a_file_named_like_an_override_changes_nothing_for_train(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.epochs=0").write_text("a trap")
    said = program("train", "-c", "demo", "train.epochs=0")
    assert said.code == 2
    assert "must be greater than 0" in said.err


def test_all_mistakes_are_told_at_once_with_their_lines(program: Program, tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(
        "data: {source: phantoms}\nmodel:\n  typ: mlp\ntrain:\n  epochs: -1\n  optimizer:\n"
        "    lr: fast\n"
    )
    said = program("config", "validate", config, "train.batch_size=none")
    assert said.code == 2
    for place in ("bad.yaml:3", "bad.yaml:5", "bad.yaml:7", "train.batch_size"):
        assert place in said.err
    assert "4 problems" in said.err


@pytest.mark.parametrize(
    ("alias", "verb"),
    [("val", "evaluate"), ("eval", "evaluate"), ("test", "evaluate"), ("infer", "predict")],
)
def test_an_alias_does_what_its_verb_does_and_says_so(
    alias: str, verb: str, program: Program
) -> None:
    said = program(alias, "absent", *(["x.png", "-o", "p.csv"] if verb == "predict" else []))
    assert said.code == 2
    assert f"{alias} means {verb}" in said.err
    assert "absent does not exist" in said.err or "x.png does not exist" in said.err


def test_config_list_show_schema_and_validate(program: Program, own_run: Path) -> None:
    names = program("config", "list").out.split()
    assert {"demo", "perceptron", "mlp", "kermany", "nih1000", "pneumoniamnist"} <= set(names)
    for name in names:
        assert program("config", "validate", name).code == 0
    assert program("config", "validate", "demo").code == 0
    shown = program("config", "show", "train.early_stopping").out
    assert "patience" in shown
    assert "Epochs without improvement" in shown
    schema = json.loads(program("config", "schema").out)
    assert "data" in schema["properties"]
    resolved = program("config", "validate", own_run, "--json", "train.epochs=7")
    assert resolved.json["train"]["epochs"] == 7
    assert resolved.json["data"]["image"]["size"] == 16


def test_a_dry_run_writes_no_run_folder(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = program("train", "-c", "demo", "--dry-run", *TINY)
    assert said.code == 0
    assert "all is well" in said.out
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_on_standard_output(program: Program, tmp_path: Path) -> None:
    said = program("train", "-c", "demo", "-o", tmp_path, "--name", "x", "--json", *TINY)
    assert said.code == 0
    result = said.json
    assert set(result) == {
        "run_dir", "checkpoint", "status", "stop_reason", "best_epoch", "metrics",
    }  # fmt: skip
    assert result["status"] == "finished"
    assert Path(result["checkpoint"]).is_file()
    assert re.fullmatch(r"\d{8}-\d{6}_x", Path(result["run_dir"]).name)
    assert "ep 3/3" in said.err
    summary = json.loads((Path(result["run_dir"]) / "summary.json").read_bytes())
    assert summary["best_epoch"] == result["best_epoch"]


def test_quiet_says_nothing_and_the_log_still_holds_it(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "write_judgement", lambda *given, **keys: [])
    said = program("train", "-c", "demo", "-o", tmp_path, "-q", *TINY)
    assert (said.code, said.out, said.err) == (0, "", "")
    [run] = tmp_path.glob("*_demo")
    log = (run / "log.txt").read_text()
    assert "ep 1/3" in log
    assert "AUROC" in log
    assert "Next: xray-classifier evaluate" in log


def test_a_bug_is_one_message_and_a_log_and_no_traceback(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*given: object, **keys: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("xray_classifier.evaluation.run_evaluation", bug)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    said = program("evaluate", "run", "--json")
    assert said.code == 1
    assert "this is a bug (ZeroDivisionError)" in said.err
    assert "Traceback" not in said.err
    assert said.json["error"]["exit_code"] == 1
    [log] = tmp_path.glob("xray-classifier-*.log")
    assert str(log) in said.err
    assert "secret detail" in log.read_text()
    verbose = program("evaluate", "run", "-v")
    assert "Traceback" in verbose.err


def test_a_bug_in_training_is_told_in_the_run_s_own_log(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(self: Trainer) -> None:
        raise ZeroDivisionError("in the loop")

    monkeypatch.setattr(Trainer, "finish_epoch", bug)
    said = program("train", "-c", "demo", "-o", tmp_path, *TINY)
    assert said.code == 1
    [run] = tmp_path.glob("*_demo")
    assert str(run / "log.txt") in said.err
    assert "in the loop" in (run / "log.txt").read_text()


def test_ctrl_c_outside_training_is_code_130(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: object, **keys: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xray_classifier.evaluation.run_evaluation", interrupt)
    said = program("evaluate", "run", "--json")
    assert said.code == 130
    assert said.json["error"]["exit_code"] == 130
    assert said.json["error"]["message"].startswith("interrupted; nothing half-done is left")


def test_a_loss_that_is_not_finite_is_code_7_and_leaves_no_bad_checkpoint(
    program: Program, tmp_path: Path
) -> None:
    said = program(
        "train", "-c", "demo", "-o", tmp_path, *TINY, "train.optimizer={name: sgd, lr: 1e30}"
    )
    assert said.code == 7
    assert "lr" in said.err
    [run] = tmp_path.glob("*_demo")
    summary = json.loads((run / "summary.json").read_bytes())
    assert (summary["status"], summary["exit_code"]) == ("failed", 7)


@pytest.mark.parametrize("flag", ["-o", "data.cache"])
def test_a_place_that_cannot_be_written_is_code_6(
    flag: str, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    where = ["-o", tmp_path / "taken"] if flag == "-o" else [f"data.cache={tmp_path / 'taken'}"]
    said = program("train", "-c", "demo", *where, *TINY)
    assert said.code == 6
    assert "taken" in said.err


def test_unusable_data_are_code_3(program: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "c.yaml").write_text("data: {path: empty}\n")
    assert program("train", "-c", tmp_path / "c.yaml").code == 3
    class_folders(tmp_path / "empty", {"healthy": 3, "ill": 3})
    said = program("train", "-c", tmp_path / "c.yaml")
    assert said.code == 3
    assert "ill (n=3)" in said.err
    assert "data.labels=" in said.err


def test_the_cache_is_listed_and_cleared(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    words = [*TINY, "data.phantoms.n_images=20", "data.image.size=8", f"data.cache={folder}"]
    assert program("train", "-c", "demo", "--dry-run", *words).code == 0
    listed = program("cache", "list", "--dir", folder, "--json")
    assert (listed.json["entries"], listed.json["folder"]) == (1, str(folder))
    assert listed.json["bytes"] >= 20 * 8 * 8
    assert program("cache", "clear", "--dir", folder).code == 0
    assert program("cache", "list", "--dir", folder, "--json").json["entries"] == 0
    assert program("cache", "list", "--dir", tmp_path / "absent").code == 0


def test_a_resumed_run_keeps_its_folder_and_what_may_not_change_is_refused(
    program: Program, own_run: Path
) -> None:
    said = program("train", "--resume", own_run, "train.optimizer.lr=1.0")
    assert said.code == 2
    assert "cannot change when a run is resumed" in said.err
    said = program("train", "--resume", own_run, "train.epochs=5", "--json")
    assert said.code == 0, said.err
    assert Path(said.json["run_dir"]) == own_run
    assert [row["epoch"] for row in rows_of(own_run / "history.csv")] == list("12345")


def test_help_and_version_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], *([verb, "--help"] for verb in cli.RECIPES)):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert "examples:" in said
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\n"
        "from xray_classifier.cli import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['train', '--help'])\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'pandas', 'matplotlib', 'yaml', 'PIL', 'sklearn'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "HEAVY []"


def test_the_package_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "xray_classifier", "config", "lst", "--json"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["exit_code"] == 2


@pytest.mark.skipif(os.name == "nt", reason="such names cannot be made on Windows")
def test_hostile_names_in_messages_cannot_act_on_the_terminal(
    program: Program, tmp_path: Path
) -> None:
    nasty = tmp_path / "a\x1b[31m\nerror: b"
    for words in (
        ["predict", nasty, nasty, "-o", tmp_path / "p.csv"],
        ["evaluate", nasty],
        ["init", tmp_path / "x.yaml", "--data", nasty],
        ["train", "-c", nasty],
        ["train", "--resume", nasty],
        [nasty],
        ["train", "-c", "demo", nasty],
        ["train", "-c", "demo", f"--{nasty.name}"],
    ):
        said = program(*words)
        assert said.code == 2, words
        assert "\x1b" not in said.err, words
    save_film(nasty / "healthy" / "a.png", 0)
    said = program("init", tmp_path / "x.yaml", "--data", nasty)
    assert "\x1b" not in said.err + said.out


@pytest.mark.skipif(sys.platform != "linux", reason="another OpenMP than GNU's")
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, "2000"),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
        ({"OMP_WAIT_POLICY": "active"}, "30000000000"),
    ],
)
def test_threads_that_wait_sleep_soon_unless_told(wanted: dict[str, str], expected: str) -> None:
    kept = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    words = [sys.executable, "-m", "xray_classifier", "doctor", "--json"]
    environment = {**kept, "OMP_DISPLAY_ENV": "verbose", **wanted}
    ended = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    found = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", ended.stderr)
    if not found:
        pytest.skip("PyTorch was built with another OpenMP")
    assert set(found) == {expected}
