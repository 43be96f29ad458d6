"""What is gathered of a run: the right evaluation and counts, and no crash where it lacks."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from evaluated_runs import write_evaluation
from tiny_runs import TINY, own_run, rows_of, tiny_run

from xray_classifier.checkpoint import load_checkpoint
from xray_classifier.cli import main
from xray_classifier.confusion import Confusion
from xray_classifier.errors import CheckpointError, DataError, OutputError, UsageError
from xray_classifier.run_facts import (
    evaluation_of,
    model_digest,
    read_facts,
    was_judged_on,
)

__all__ = ["own_run", "tiny_run"]


def ids_of(run: Path, split: str) -> list[str]:
    """Names of the images of a split."""
    return [row["path"] for row in rows_of(run / "data" / "manifest.csv") if row["split"] == split]


def test_a_run_tells_all_it_has(tiny_run: Path) -> None:
    facts = read_facts(tiny_run)
    assert facts.content == load_checkpoint(tiny_run / "checkpoints" / "best.safetensors").content
    assert facts.model_name == tiny_run.name
    assert facts.chosen("train", "test_curve") == "sealed"
    assert facts.summary == json.loads((tiny_run / "summary.json").read_text())
    assert facts.listing is not None
    assert len(facts.listing.ids) == 160
    assert facts.measured("split") == "val"
    assert facts.own
    rows = [row for row in rows_of(tiny_run / "predictions_val.csv") if row["decision"]]
    assert facts.counts is not None
    right = sum(row["label"] == row["decision"] for row in rows)
    assert facts.counts.tp + facts.counts.tn == right
    assert facts.counts.fp + facts.counts.fn == len(rows) - right


def test_the_digest_is_that_of_the_file_without_it(tiny_run: Path) -> None:
    path = tiny_run / "checkpoints" / "best.safetensors"
    digest = model_digest(path)
    raw = path.read_bytes()
    assert raw.count(digest.encode()) == 1
    assert hashlib.sha256(raw.replace(digest.encode(), b"0" * 64)).hexdigest() == digest


def test_a_file_without_a_digest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x05\0\0\0\0\0\0\0{}   ")
    with pytest.raises(CheckpointError, match="no checksum"):
        model_digest(tmp_path / "x")


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors: Is a directory"):
        model_digest(tmp_path / "model.safetensors")


def test_the_newest_test_evaluation_speaks_for_a_run(own_run: Path) -> None:
    ids = ids_of(own_run, "test")
    places = [
        write_evaluation(own_run / "eval" / name, ids, lambda m, s=split: m.update(split=s))
        for name, split in (("a", "test"), ("b", "test"), ("c", "val"))
    ]
    for age, place in enumerate(places):
        os.utime(place / "metrics.json", (1e9 + age, 1e9 + age))
    assert evaluation_of(own_run) == places[1]
    shutil.rmtree(places[0])
    shutil.rmtree(places[1])
    assert evaluation_of(own_run) == places[2]
    shutil.rmtree(places[2])
    assert evaluation_of(own_run) == own_run


def test_an_evaluation_in_a_run_knows_its_model(own_run: Path) -> None:
    ids = ids_of(own_run, "test")
    facts = read_facts(write_evaluation(own_run / "eval" / "x", ids))
    assert facts.model_sha256 == model_digest(own_run / "checkpoints" / "best.safetensors")
    assert facts.metrics_name == "eval/x/metrics.json"
    assert facts.own
    sick = len(ids) // 2
    wrong_sick = sum(place % 3 == 0 for place in range(sick))
    wrong_healthy = sum(place % 3 == 0 for place in range(sick, len(ids)))
    assert facts.counts == Confusion(
        tp=sick - wrong_sick,
        fn=wrong_sick,
        fp=wrong_healthy,
        tn=len(ids) - sick - wrong_healthy,
    )


def test_images_from_elsewhere_are_not_the_run_s_own(own_run: Path) -> None:
    ids = [*ids_of(own_run, "test")[1:], "elsewhere.png"]
    assert read_facts(write_evaluation(own_run / "eval" / "x", ids)).own is False


def test_an_evaluation_may_lie_anywhere(tmp_path: Path, tiny_run: Path) -> None:
    folder = write_evaluation(tmp_path / "somewhere", ["a.png", "b.png"])
    alone = read_facts(folder)
    assert alone.content == {}
    assert alone.own is None
    assert alone.measured("n") == 2
    model = tiny_run / "checkpoints" / "best.safetensors"
    with_model = read_facts(folder, model)
    assert with_model.said("task") == "classify"
    assert with_model.model_name == tiny_run.name
    assert with_model.own is False
    own = write_evaluation(tmp_path / "own", ids_of(tiny_run, "test"))
    assert read_facts(own, model).own


def test_referred_answers_are_counted_apart(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "x", ["a", "b"])
    (folder / "predictions.csv").write_text(
        "path,label,decision\na,sick,refer\nb,healthy,refer\nc,sick,sick\nd,sick,\n"
    )
    facts = read_facts(folder)
    assert facts.n_referred == 2
    assert facts.counts == Confusion(tp=1, fp=0, tn=0, fn=0)


def test_a_folder_of_neither_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run"):
        read_facts(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        read_facts(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        read_facts(tmp_path / "file")


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_metrics_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    folder = write_evaluation(tmp_path / "x", ["a", "b"])
    (folder / "metrics.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"metrics\.json"):
        read_facts(folder)


@pytest.mark.parametrize("name", ["metrics.json", "config.yaml", "manifest.csv"])
def test_a_failing_disk_is_told_as_one(
    name: str, own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == name:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(OutputError, match=rf"cannot read .*{name}: Input/output error$"):
        read_facts(own_run)


def test_an_evaluation_of_the_same_images_is_found(own_run: Path) -> None:
    model = own_run / "checkpoints" / "best.safetensors"
    ids = ids_of(own_run, "test")
    write_evaluation(own_run / "eval" / "old", ids)
    assert not was_judged_on(model, "f" * 64)
    write_evaluation(
        own_run / "eval" / "new", ids, lambda m: m.update(test_set={"fingerprint": "f" * 64})
    )
    assert was_judged_on(model, "f" * 64)
    assert not was_judged_on(model, "e" * 64)


def test_the_intended_use_travels_with_the_checkpoint(tmp_path: Path) -> None:
    use = ("intended_use.purpose=second reader", "intended_use.out_of_scope=[children, CT]")
    words = ["train", "-c", "demo", "-q", "-o", str(tmp_path), *TINY, "train.epochs=1", *use]
    assert main(words) == 0
    run = next(path for path in tmp_path.iterdir() if path.name != "latest" and path.is_dir())
    stored = load_checkpoint(run / "checkpoints" / "best.safetensors").content["intended_use"]
    assert stored["purpose"] == "second reader"
    assert stored["out_of_scope"] == ["children", "CT"]
    assert stored["population"] is None
    assert read_facts(run).said("intended_use", "purpose") == "second reader"
