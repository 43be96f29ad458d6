"""`plan`: written before the test, never replaced, and honest about what was seen already."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from evaluated_runs import write_evaluation
from tiny_runs import class_folders, own_run, tiny_run

from xray_classifier.analysis_plan import plan_deviations, plan_digest
from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.data.decode import read_film
from xray_classifier.data.signature import signature_of
from xray_classifier.errors import OutputError, UsageError
from xray_classifier.intervals import wilson_interval
from xray_classifier.looks import add_look, set_fingerprint
from xray_classifier.planning import precision_words, run_plan
from xray_classifier.run_facts import model_digest
from xray_classifier.terminal import Terminal

__all__ = ["own_run", "tiny_run"]


@pytest.fixture(autouse=True)
def own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of looks of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def said() -> io.StringIO:
    """What the user reads."""
    return io.StringIO()


@pytest.fixture
def terminal(said: io.StringIO) -> Terminal:
    """A terminal that writes into `said`."""
    return Terminal(said)


def test_a_plan_names_model_images_rule_and_bars(
    own_run: Path, terminal: Terminal, said: io.StringIO
) -> None:
    result = run_plan(
        own_run, terminal, requirements=["auroc>=0.90", "brier<=0.2"], note="second reader study"
    )
    plan = json.loads((own_run / "plan.json").read_text())
    content = load_checkpoint(own_run / "checkpoints" / "best.safetensors").content
    assert plan["sha256"] == result.sha256 == plan_digest(plan)
    assert plan["model"]["sha256"] == model_digest(own_run / "checkpoints" / "best.safetensors")
    assert plan["data"]["split"] == "test"
    assert plan["data"]["n"] == content["splits"]["test"]["images"]
    assert plan["threshold"]["value"] == content["threshold"]["value"]
    assert plan["threshold"]["policy"] == content["threshold"]["policy"]
    assert plan["calibration"] == content["calibration"]
    assert plan["primary_metric"] == "auroc"
    assert "sensitivity" in plan["other_metrics"]
    assert plan["requirements"] == ["auroc>=0.9", "brier<=0.2"]
    assert plan["note"] == "second reader study"
    assert plan["looked_at_before"] == {
        "looks": 0,
        "models": 0,
        "test_loss_seen": False,
        "chosen_by": False,
    }
    assert "warning" not in said.getvalue()
    assert "Next: xray-classifier evaluate" in said.getvalue()
    kept = plan_deviations(
        plan,
        model_sha256=plan["model"]["sha256"],
        split="test",
        threshold=content["threshold"]["value"],
        policy=content["threshold"]["policy"],
        requirements=["auroc>=0.90", "brier<=0.20"],
        fingerprint=plan["data"]["fingerprint"],
    )
    assert kept == []


def test_a_plan_is_never_replaced(own_run: Path, terminal: Terminal, tmp_path: Path) -> None:
    run_plan(own_run, terminal)
    before = (own_run / "plan.json").read_bytes()
    with pytest.raises(OutputError, match="never replaced"):
        run_plan(own_run, terminal)
    assert (own_run / "plan.json").read_bytes() == before
    run_plan(own_run, terminal, out=tmp_path / "other.json")
    assert (tmp_path / "other.json").exists()


def test_other_images_are_known_by_their_pixels(
    own_run: Path, terminal: Terminal, tmp_path: Path
) -> None:
    folder = class_folders(tmp_path / "films", {"healthy": 3, "sick": 2})
    result = run_plan(own_run, terminal, data=folder)
    plan = json.loads(Path(result.plan).read_text())
    hashes = [
        bytes(signature_of(read_film(file), 0)["pixels"][0])
        for file in sorted(folder.glob("*/*.png"))
    ]
    assert plan["data"]["fingerprint"] == set_fingerprint(hashes)
    assert (plan["data"]["split"], plan["data"]["n"]) == ("all", 5)
    assert plan["data"]["name"] == "films"  # and nothing of the folders above
    assert not plan["data"]["own"]


def test_a_plan_after_the_result_is_refused(own_run: Path, terminal: Terminal) -> None:
    plan = json.loads(Path(run_plan(own_run, terminal).plan).read_text())
    (own_run / "plan.json").unlink()
    add_look(plan["data"]["fingerprint"], plan["model"]["sha256"], "test", plan["data"]["n"])
    with pytest.raises(UsageError, match="comes too late"):
        run_plan(own_run, terminal)
    assert not (own_run / "plan.json").exists()


def test_an_evaluation_in_the_run_counts_as_a_look(
    own_run: Path, terminal: Terminal, tmp_path: Path
) -> None:
    plan = json.loads(Path(run_plan(own_run, terminal, out=tmp_path / "p.json").plan).read_text())
    seen = {"fingerprint": plan["data"]["fingerprint"]}
    write_evaluation(own_run / "eval" / "x", ["a", "b"], lambda m: m.update(test_set=seen))
    with pytest.raises(UsageError, match="comes too late"):
        run_plan(own_run, terminal)


def test_looks_of_other_models_are_told(
    own_run: Path, terminal: Terminal, said: io.StringIO, tmp_path: Path
) -> None:
    first = json.loads(Path(run_plan(own_run, terminal, out=tmp_path / "p.json").plan).read_text())
    for model in ("b", "b", "c"):
        add_look(first["data"]["fingerprint"], model, "test", 10)
    result = run_plan(own_run, terminal)
    assert result.looked_at_before["looks"] == 3
    assert result.looked_at_before["models"] == 2
    assert "looked at 3 times with 2 models; the plan says so" in said.getvalue()


def test_a_record_that_cannot_be_kept_is_told(
    own_run: Path,
    terminal: Terminal,
    said: io.StringIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    result = run_plan(own_run, terminal)
    assert result.looked_at_before["looks"] is None
    assert "cannot be counted" in said.getvalue()


def test_a_test_loss_in_sight_is_told(own_run: Path, terminal: Terminal, said: io.StringIO) -> None:
    config = own_run / "config.yaml"
    config.write_text(config.read_text().replace("test_curve: sealed", "test_curve: live"))
    assert run_plan(own_run, terminal).looked_at_before["test_loss_seen"]
    assert "test loss was in sight" in said.getvalue()


def test_a_plan_on_development_images_is_told(
    own_run: Path, terminal: Terminal, said: io.StringIO
) -> None:
    assert run_plan(own_run, terminal, split="val").looked_at_before["chosen_by"]
    assert "they test nothing" in said.getvalue()


@pytest.mark.parametrize("requirement", ["auroc", "auroc=0.9", "beauty>=0.9", "auroc>=high"])
def test_what_is_no_requirement_is_refused(
    own_run: Path, terminal: Terminal, requirement: str
) -> None:
    with pytest.raises(UsageError):
        run_plan(own_run, terminal, requirements=[requirement])
    assert not (own_run / "plan.json").exists()


def test_an_unknown_split_is_refused(own_run: Path, terminal: Terminal) -> None:
    with pytest.raises(UsageError, match="these data have train, val, test"):
        run_plan(own_run, terminal, split="holdout")


def test_a_checkpoint_alone_needs_a_place(
    tiny_run: Path, terminal: Terminal, tmp_path: Path
) -> None:
    model = tmp_path / "a" / "b" / "model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes((tiny_run / "checkpoints" / "best.safetensors").read_bytes())
    with pytest.raises(UsageError, match="with -o FILE"):
        run_plan(model, terminal)
    assert run_plan(model, terminal, out=tmp_path / "p.json").split == "test"


def test_precision_is_that_of_the_intervals() -> None:
    (words,) = precision_words(100, 400)
    low, high = wilson_interval(90.0, 100.0)
    assert f"sensitivity of 90 % would be known as {100 * low:.0f} to {100 * high:.0f} %" in words
    assert "specificity of 90 % as 87 to 93 %" in words
    # Hanley & McNeil 1982: Q1 = A/(2-A), Q2 = 2A^2/(1+A)
    a, n_sick, n_healthy = 0.9, 100, 400
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = a * (1 - a) + (n_sick - 1) * (q1 - a * a) + (n_healthy - 1) * (q2 - a * a)
    half = 1.959964 * np.sqrt(variance / (n_sick * n_healthy))
    assert f"to within {half:.3f}" in words
    assert precision_words(0, 10) == []
