"""Every verb once through the command line, as a user types it."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import TINY, Program, class_folders, no_pictures, program, rows_of, tiny_run

from xray_classifier.cli import RECIPES

__all__ = ["no_pictures", "program", "tiny_run"]

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_report_writes_the_card_and_each_checklist(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    program("evaluate", tiny_run, "-o", tmp_path / "e")
    for words in (
        (),
        ("--checklist", "claim"),
        ("--checklist", "tripod"),
        ("--checklist", "stard"),
    ):
        out = tmp_path / f"{'_'.join(words) or 'card'}.md"
        said = program("report", tiny_run, *words, "-o", out, "--json")
        assert said.code == 0
        assert said.json["file"] == str(out) or Path(said.json["file"]) == out
        assert out.read_text().startswith("#")


def test_plan_then_evaluate_says_that_it_was_kept(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    program("train", "-c", "demo", "-q", "-o", tmp_path, *TINY)
    [run] = tmp_path.glob("*_demo")
    assert program("plan", run, "--require", "auroc>=0.1").code == 0
    assert program("plan", run).code == 6
    said = program("evaluate", run, "-o", tmp_path / "a", "--require", "auroc>=0.1")
    assert "the plan that was written before these images were opened was kept" in said.out
    kept = json.loads((tmp_path / "a" / "metrics.json").read_text())["plan"]
    assert kept["kept"] is True
    said = program("evaluate", run, "-o", tmp_path / "b", "--threshold", "0.3")
    assert "the plan was NOT kept: another threshold" in said.out
    assert "planned requirement auroc>=0.1 was not asked for" in said.out


def test_a_plan_that_is_younger_than_the_first_look_was_not_kept(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xray_classifier.analysis_plan import sealed_plan

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    program("train", "-c", "demo", "-q", "-o", tmp_path, *TINY)
    [run] = tmp_path.glob("*_demo")
    program("plan", run, "-o", tmp_path / "plan.json")
    assert "the plan that" not in program("evaluate", run, "-o", tmp_path / "a").out
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan = {key: value for key, value in plan.items() if key not in ("sha256", "format", "version")}
    forged = sealed_plan({**plan, "created": "2999-01-01T00:00:00Z"})
    (tmp_path / "forged.json").write_text(json.dumps(forged))
    said = program("evaluate", run, "-o", tmp_path / "b", "--plan", tmp_path / "forged.json")
    assert "these images were looked at on" in said.out
    said = program("evaluate", run, "-o", tmp_path / "c", "--plan", tmp_path / "none.json")
    assert "cannot be read" in said.out


def test_with_json_an_unmet_requirement_is_one_object_and_code_9(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    said = program("evaluate", tiny_run, "-o", tmp_path / "o", "--json", "--require", "auroc>=1.1")
    assert said.code == 9
    assert said.json["unmet"][0].startswith("auroc>=1.1: found")
    assert "required, but not met" in said.err


def test_no_requirement_is_met_by_training_images(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    words = ("evaluate", tiny_run, "--split", "train", "--require", "auroc>=0.1")
    said = program(*words, "-o", tmp_path / "o")
    assert said.code == 2
    assert "trained on all of these images" in said.err


def test_another_threshold_is_called_exploratory_everywhere(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    stored = program("evaluate", tiny_run, "-o", tmp_path / "a", "--json").json["threshold"]
    other = round(stored / 2, 3)
    said = program("evaluate", tiny_run, "-o", tmp_path / "b", "--threshold", str(other))
    assert f"Exploratory: the threshold {other:.3g} was asked for" in said.out
    assert "there the operating point showed" not in said.out
    page = (tmp_path / "b" / "report.html").read_text()
    assert f"Exploratory: the threshold {other:.3g}" in page
    assert f"The stored threshold is <strong>{stored:.3g}" in page


def test_images_of_one_class_from_elsewhere_are_judged(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    films = class_folders(tmp_path / "films", {"sick": 8})
    said = program("evaluate", tiny_run, "--data", films, "-o", tmp_path / "o")
    assert said.code == 0
    assert "only one class is here" in said.out
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())["metrics"]
    assert metrics["auroc"]["value"] is None
    assert metrics["sensitivity"]["n"] == 8


def test_what_a_number_cannot_be_asked_is_refused_before_a_look(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    films = class_folders(tmp_path / "films", {"a": 40})
    ages = np.random.default_rng(0).uniform(20, 90, 40)
    lines = [f"a/film{n:03d}.png,{age:.1f},{'xy'[n % 2]}" for n, age in enumerate(ages)]
    (films / "ages.csv").write_text("\n".join(["path,age,label", *lines]) + "\n")
    keys = ("task=regress", "data.columns.label=age", "data.patient=null", "data.source=csv",
            f"data.path={films / 'ages.csv'}", "data.image.size=16", "model.hidden=[8]",
            "train.epochs=2")  # fmt: skip
    said = program("train", "-c", "mlp", "-q", "-o", tmp_path / "runs", *keys)
    assert said.code == 0, said.err  # a column called label beside the one of the numbers
    [run] = (tmp_path / "runs").glob("*_mlp")
    for option in (("--stress",), ("--by", "label"), ("--medmnist", "pneumoniamnist"),
                   ("--prevalence", "0.1"), ("--what-if", "usual")):  # fmt: skip
        said = program("evaluate", run, "-o", tmp_path / "o", *option)
        assert said.code == 2
        assert "predicts a number" in said.err
    assert not (tmp_path / "state").exists()
    card = program("report", run)
    assert card.code == 0


def test_a_column_named_as_ours_does_not_touch_the_records(
    tmp_path: Path, program: Program
) -> None:
    films = class_folders(tmp_path / "films", {"h": 40, "s": 40})
    lines = ["path,dx,label,reason,patient,split_"]
    for k in range(80):
        dx = "healthy" if k < 40 else "sick"
        lines.append(f"{'hs'[k // 40]}/film{k % 40:03d}.png,{dx},L{k % 3},cough,P{k // 2},x")
    (films / "films.csv").write_text("\n".join(lines) + "\n")
    keys = ("data.columns.label=dx", f"data.path={films / 'films.csv'}", "data.source=csv",
            "data.labels={healthy: [healthy], sick: [sick]}", "data.image.size=16",
            "model.hidden=[8]", "train.epochs=2", "data.audit=warn")  # fmt: skip
    said = program("train", "-c", "mlp", "-q", "-o", tmp_path / "runs", *keys)
    assert said.code == 0, said.err
    [run] = (tmp_path / "runs").glob("*_mlp")
    card = (run / "model_card.md").read_text()
    assert "left out: cough" not in card
    assert rows_of(run / "predictions_val.csv")
    from xray_classifier.table_one import read_listing

    listing = read_listing((run / "data" / "manifest.csv").read_text(), ["sick"], "classify")
    assert len(listing.ids) == 80
    assert int(listing.targets.sum()) == 40
    assert set(listing.columns["reason"]) == {"cough"}


def test_an_edited_card_is_not_overwritten(
    tiny_run: Path, tmp_path: Path, program: Program
) -> None:
    program("evaluate", tiny_run, "-o", tmp_path / "o")
    card = tmp_path / "o" / "model_card.md"
    card.write_text(card.read_text() + "\nOur own words.\n")
    assert program("evaluate", tiny_run, "-o", tmp_path / "o").code == 6
    program("evaluate", tiny_run, "--force", "-o", tmp_path / "o")
    assert card.read_text().endswith("Our own words.\n")


@pytest.mark.parametrize("weight", ["auto", "4.0", "null"])
def test_the_share_that_uncalibrated_probabilities_are_right_for_counts_the_weight(
    tmp_path: Path, program: Program, weight: str
) -> None:
    from xray_classifier import load_classifier

    keys = (f"train.pos_weight={weight}", "evaluate.calibration=off", "train.epochs=1")
    program("train", "-c", "demo", "-q", "-o", tmp_path, *TINY, *keys)
    [run] = tmp_path.glob("*_demo")
    classifier = load_classifier(run, "cpu")
    train = classifier.content["splits"]["train"]
    factor = {"auto": train["healthy"] / train["sick"], "4.0": 4.0, "null": 1.0}[weight]
    odds = train["sick"] * factor / train["healthy"]
    assert classifier.calibrated_to == pytest.approx(odds / (1 + odds))


def test_no_recipe_is_shadowed_by_an_argument_of_its_verb() -> None:
    from xray_classifier.arguments import build_parser

    _, verbs = build_parser(RECIPES)
    for verb, parser in verbs.items():
        assert parser.get_default("run") is RECIPES[verb]
        assert all(action.dest != "run" for action in parser._actions)


def test_sample_size_is_where_wilsons_interval_becomes_narrow_enough(program: Program) -> None:
    from xray_classifier.intervals import wilson_interval

    said = program("sample-size", "--sensitivity", "0.9", "--prevalence", "0.1", "--json")
    n = said.json["sensitivity"]["n_sick"]
    widths = [wilson_interval(0.9 * k, k) for k in (n - 1, n)]
    assert (widths[0].high - widths[0].low) / 2 > 0.05 >= (widths[1].high - widths[1].low) / 2
    assert said.json["sensitivity"]["n_healthy"] == 9 * n
    assert said.json["auroc"] is None
    assert program("sample-size").code == 2
    assert program("sample-size", "--auroc", "0.4").code == 2
