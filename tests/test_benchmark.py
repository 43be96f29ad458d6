"""The benchmark counts and judges as a hand does, and the fast path stays fast: by ratio, in one
process, against the same work without the product around it."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import stack
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scripts.benchmarks import gpu
from scripts.benchmarks.__main__ import NAMES, footer, sections, told
from scripts.benchmarks.counting import (
    batch_bytes,
    forward_flops,
    in_turn_s,
    roofline_s,
    state_bytes,
    step_bytes,
    step_flops,
    weights_in,
)
from scripts.benchmarks.machine import best_rate, best_s, copy_rate, gemm_rate, onednn_rate
from scripts.benchmarks.memory import JOB
from scripts.benchmarks.numbers import QUICK
from scripts.benchmarks.place import Place
from scripts.benchmarks.processes import FailedProcess, timed
from scripts.benchmarks.rows import Row, differences, exponent, quotients, spread
from scripts.benchmarks.step import in_turns, of_shape, shape_name
from scripts.benchmarks.synthetic import images_of, trainer_of, write_films, write_npz
from scripts.benchmarks.table import END, HEADER, START, as_markdown, as_text, written_into
from scripts.benchmarks.whole import PEERS, of_peer, steps_s

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (6, 3, 2, 1)
MOST_STEPS_OF_BARE = 1.75  # measured 1.16 to 1.22 on two busy cores, one thread, torch 2.14.1
MOST_GATHERING_OF_COPY = 6.0  # measured 1.5 to 2
PIECES = {"sklearn", "torchvision", "pandas", "matplotlib", "scipy"}


def test_weights_and_operations_are_those_counted_by_hand() -> None:
    # 6*3+3 + 3*2+2 + 2*1+1 weights; products of 6*3 + 3*2 + 2*1 = 26, without the first 8.
    assert weights_in(WIDTHS) == 21 + 8 + 3
    assert forward_flops(WIDTHS, 5) == 2 * 5 * 26
    assert step_flops(WIDTHS, 5) == 2 * 5 * (26 + 26 + 8)


@pytest.mark.parametrize("hidden", [(), (7,), (9, 5), (8, 6, 4)])
def test_operations_are_those_that_pytorch_counts(hidden: tuple[int, ...]) -> None:
    model = stack(hidden, size_px=6)
    widths = (36, *hidden, 1)
    assert weights_in(widths) == sum(weight.numel() for weight in model.parameters())
    with FlopCounterMode(display=False) as counter:
        outputs = model(torch.rand(11, 1, 6, 6))
    assert counter.get_total_flops() == forward_flops(widths, 11)
    with FlopCounterMode(display=False) as backward:
        nn.functional.binary_cross_entropy_with_logits(outputs, torch.ones(11)).backward()
    assert forward_flops(widths, 11) + backward.get_total_flops() == step_flops(widths, 11)


def test_bytes_are_those_counted_by_hand() -> None:
    # 32 weights, 11 of them beyond the first layer. fp32: forward 4, gradient 4, Adam 7 * 4 = 36.
    assert step_bytes(WIDTHS, "fp32") == 32 * 36 + 11 * 4
    # bf16: forward 2, gradient 4, Adam 28, the copy written 2, and read again by later layers 2.
    assert step_bytes(WIDTHS, "bf16") == 32 * 36 + 11 * 2
    assert state_bytes(WIDTHS) == 32 * 16
    assert batch_bytes(WIDTHS, 10) == 10 * (6 + 4 * 6 + 8 * (3 + 2 + 1))


def test_in_turn_is_products_then_the_optimizers_bytes() -> None:
    # 2-1: 3 weights; batch 4: 2*4*2*1 forward and as much for the gradient = 32 operations. Bytes
    # of the optimizer 3 * 28 = 84; of the rest 3 * 4 read and 3 * 4 written = 24.
    assert in_turn_s((2, 1), 4, "fp32", flops_per_s=1.0, bytes_per_s=84.0) == 33.0
    assert in_turn_s((2, 1), 4, "fp32", flops_per_s=1e9, bytes_per_s=12.0) == 9.0


def test_the_roofline_is_the_slower_of_computing_and_moving() -> None:
    assert roofline_s(100, 10, flops_per_s=50, bytes_per_s=100) == 2.0
    assert roofline_s(100, 1000, flops_per_s=50, bytes_per_s=100) == 10.0


def test_rates_of_the_machine_are_measured() -> None:
    assert gemm_rate("fp32", (32, 64), 0.01) > 1e6
    assert copy_rate(2**16, 0.01) > 1e6
    onednn = onednn_rate((32,), 0.01)
    assert best_rate("fp32", (32, 64), 0.01) > 1e6
    assert onednn is None or onednn > 1e6
    ticks: list[int] = []
    assert best_s(lambda: ticks.append(1), 0.0) >= 0.0
    assert len(ticks) == 3


def test_ratios_are_taken_round_by_round() -> None:
    # A machine twice as slow in the second round slows both: the ratio does not move.
    assert quotients((10.0, 20.0), (2.0, 4.0)) == (5.0, 5.0)
    assert differences((3.0, 6.0), (1.0, 2.0)) == (2.0, 4.0)
    with pytest.raises(ValueError, match="zip"):
        quotients((1.0, 2.0), (1.0,))


@pytest.mark.parametrize(
    ("figure", "goal", "sense", "reached"),
    [
        ((4.0, 6.0, 5.0), 5.0, "at least", True),
        ((4.0, 9.0, 4.9), 5.0, "at least", False),
        ((0.1, 0.2, 9.0), 0.2, "at most", True),
        ((0.1, 0.3, 0.3), 0.2, "at most", False),
        ((1.0,), None, "at least", None),
        ((), 5.0, "at least", None),
        ((float("nan"),), 5.0, "at least", False),
    ],
)
def test_the_median_decides_whether_a_goal_is_reached(
    figure: tuple[float, ...], goal: float | None, sense: Any, reached: bool | None
) -> None:
    assert Row("x", (1.0,), "s", figure=figure, goal=goal, sense=sense).reached is reached


def test_median_and_spread_are_those_of_the_rounds() -> None:
    found = spread((3.0, 1.0, 2.0))
    assert found == {"median": 2.0, "min": 1.0, "max": 3.0, "rounds": [3.0, 1.0, 2.0]}
    assert spread((float("nan"),))["median"] is None
    with pytest.raises(ValueError, match="no round"):
        spread(())


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    sizes = [10.0, 40.0, 90.0, 700.0]
    assert exponent(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(power)


SOME = {
    "the job": [
        Row("cold", (4.0, 5.0), "s", "plain PyTorch", (40.0, 40.0), (10.0, 8.0), "x", 5.0),
        Row("--help", (0.3,), "s", figure=(0.3,), form="s", goal=0.2, sense="at most"),
        Row(f"a long name {'and more ' * 9}", (1234.5,), "GFLOP/s", note="extrapolated"),
    ]
}
CONTENT = {
    "date": "2026-01-01 00:00 UTC",
    "command": "scripts/benchmark",
    "quick": False,
    "rounds_asked": 2,
    "machine": {
        "cpu": "A Processor",
        "cores": 2,
        "threads": 2,
        "load": "0.1",
        "versions": {"torch": "9.9"},
    },
    "peers": {},
    "rounds": [{"load": 0.1}],
    "failed": {},
}


def test_the_table_fits_a_terminal_and_says_what_is_reached() -> None:
    lines = as_text(SOME).splitlines()
    assert max(map(len, lines)) <= 100
    (cold,) = [line for line in lines if line.startswith("cold")]
    assert "4.50 s (4.00-5.00)" in cold
    assert "9.00x (8.00-10.0)" in cold
    assert ">=5x" in cold
    assert cold.endswith("yes")
    (help_line,) = [line for line in lines if line.startswith("--help")]
    assert help_line.endswith("no")
    assert "1,234 GFLOP/s" in as_text(SOME)  # half to even, as Python writes 1234.5
    assert "(extrapolated)" in as_text(SOME)


def test_the_table_goes_between_the_comments_of_a_page_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}old\n{END}after\n", encoding="utf-8")
    table = as_markdown(CONTENT, SOME)
    written_into(page, table)
    assert page.read_text(encoding="utf-8") == f"before\n{START}{table}{END}after\n"
    assert "A Processor, 2 cores" in table
    assert f"| {' | '.join(HEADER)} |" in table
    assert "| cold | 4.50 s (4.00-5.00) | plain PyTorch 40.0 s |" in table
    page.write_text("no place\n", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the lines"):
        written_into(page, table)
    assert page.read_text(encoding="utf-8") == "no place\n"


def test_a_busy_machine_and_a_quick_run_are_told() -> None:
    assert "not for the record" not in footer(CONTENT)
    assert "not for the record" in footer(CONTENT | {"rounds": [{"load": 3.0}]})
    assert "only show that it works" in footer(CONTENT | {"quick": True})


def test_a_peer_that_is_missing_or_failed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = CONTENT | {"peers": {"fastai": None, "skorch": "1.0"}, "failed": {"whole": "a rock"}}
    options = argparse.Namespace(json=tmp_path / "out.json", write=None)
    assert told(content, options) == 1
    out = capsys.readouterr().out
    assert "fastai could not be installed, so it was not measured" in out
    assert "skorch" not in out
    assert "whole failed: a rock" in out
    assert json.loads(options.json.read_text(encoding="utf-8"))["peers"]["fastai"] is None


def test_every_name_has_a_section_and_every_peer_its_program() -> None:
    assert tuple(sections()) == NAMES
    folder = ROOT / "scripts" / "benchmarks" / "peers"
    assert {path.name for path in folder.glob("*.py")} == set(PEERS.values())


def test_the_page_has_a_place_for_the_table() -> None:
    text = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    assert text.index(START) < text.index(END)


def in_subprocess(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """An interpreter that knows this checkout."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_the_benchmark_runs_from_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "figures.json"
    page = tmp_path / "page.md"
    page.write_text(START + END, encoding="utf-8")
    words = ("--quick", "--only", "help", "infer", "decode", "--rounds", "2")
    done = in_subprocess(
        *("-m", "scripts.benchmarks", *words, "--json", str(written), "--write", str(page)),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout
    found = json.loads(written.read_text(encoding="utf-8"))
    assert [sorted(raw) for raw in found["rounds"]] == [
        ["decode", "help", "infer", "load"] for _ in range(2)
    ]
    assert found["rows"]["help"][0]["goal"] == 0.2
    assert found["machine"]["versions"]["torch"] == torch.__version__
    assert found["command"].startswith("scripts/benchmark --quick --only help")
    assert "| --help |" in page.read_text(encoding="utf-8")
    assert told(found, argparse.Namespace(json=None, write=None)) == 0
    assert capsys.readouterr().out == done.stdout


@pytest.mark.slow
def test_every_section_runs(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    words = ("--quick", "--rounds", "1", "--json", str(written))
    done = in_subprocess("-m", "scripts.benchmarks", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(written.read_text(encoding="utf-8"))
    assert set(found["rounds"][0]) == {*NAMES, "load"}
    assert found["failed"] == {}
    assert found["rounds"][0]["whole"]["failed"] == {}


def test_what_is_measured_on_a_gpu_can_be_measured_anywhere(tmp_path: Path) -> None:
    write_films(tmp_path / "films", 12, 20)
    raw = gpu.of_device(torch.device("cpu"), Place(QUICK, tmp_path / "films", tmp_path, tmp_path))
    found = {row.what: row for row in gpu.rows([raw, raw])}
    assert set(found) >= {"8 px, batch 4, fp32", "12 px, batch 8, fp32", "images a second"}
    step_ms = found["12 px, batch 8, fp32"].measured[0]
    assert found["images a second"].measured == pytest.approx((8000 / step_ms,) * 2)
    assert found["images a second"].goal == 50.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_no_figure_of_one_is_given(tmp_path: Path) -> None:
    raw = gpu.measure(Place(QUICK, tmp_path, tmp_path, tmp_path))
    assert gpu.rows([raw]) == []


def test_the_goal_on_a_gpu_is_that_of_224_px_at_batch_4096() -> None:
    name = shape_name(224, 4096, "bf16")
    other = shape_name(64, 4096, "bf16")
    raw = {"precision": "bf16", "flops/s": 1e15, "copy bytes/s": 2e12, "images/s": 6e6}
    raw |= {"pipeline images/s": 1e5, name: 0.002, f"{name} roofline": 0.0015}
    raw |= {other: 0.001, f"{other} roofline": 0.0001}
    reached = {row.what: row.reached for row in gpu.rows([raw])}
    assert (reached[name], reached[other], reached["images a second"]) == (True, None, True)


def test_the_gpu_is_named_above_the_table() -> None:
    device = {"name": "Some GPU", "memory_GiB": 79.2, "driver": "1.2", "cuda": "13.0", "cudnn": 9}
    content = CONTENT | {"machine": CONTENT["machine"] | {"gpu": device}}
    assert "GPU: Some GPU, 79.2 GiB, driver 1.2, CUDA 13.0, cuDNN 9.\n" in as_markdown(
        content, SOME
    )
    assert "GPU:" not in as_markdown(CONTENT, SOME)


def test_a_process_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(FailedProcess, match=r"ended with 3.*no good"):
        timed([sys.executable, "-c", "import sys; print('no good'); sys.exit(3)"], tmp_path)
    with pytest.raises(FailedProcess):
        timed([tmp_path / "no-program"], tmp_path)


def test_seconds_of_the_steps_are_those_of_the_last_epoch(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,elapsed_s\n1,2.5\n2,4.25\n", encoding="utf-8")
    assert steps_s(tmp_path) == 4.25


@pytest.mark.parametrize("peer", ["plain PyTorch", "scikit-learn"])
def test_a_peer_tells_when_its_steps_began_and_ended(peer: str, tmp_path: Path) -> None:
    # The other peers need packages that this project does not install.
    write_films(tmp_path / "films", 12, 20)
    place = Place(QUICK, tmp_path / "films", tmp_path / "films", tmp_path)
    raw = of_peer(place, peer, 1, cold=True)
    assert 0 < raw[f"{peer} steps"] < raw[peer]
    assert 0 < raw[f"{peer} to first step"] < raw[peer]
    with pytest.raises(FailedProcess, match="not asked for"):
        of_peer(place, "fastai", 1, cold=True)


def test_data_that_are_not_there_are_a_usage_error(tmp_path: Path) -> None:
    words = ("--only", "decode", "--films", str(tmp_path / "none"))
    done = in_subprocess("-m", "scripts.benchmarks", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "is no folder" in done.stderr


def test_a_step_costs_little_more_than_its_products_and_optimizer() -> None:
    """A guard by ratio: both are timed in turns, so that a busy machine slows both."""
    for _ in range(2):  # a busy moment may spoil one try
        ours_s, bare_s = of_shape(64, (512, 256), 64, "fp32", 1.5)
        if ours_s <= MOST_STEPS_OF_BARE * bare_s:
            return
    pytest.fail(f"a step took {1e3 * ours_s:.1f} ms, the bare one {1e3 * bare_s:.1f} ms")


def test_gathering_a_batch_costs_little_more_than_copying_it() -> None:
    """Byte by byte, as plain indexing copies, it costs twenty times as much."""
    split = trainer_of(images_of(1024, 64), (8,), 512, "fp32").train_images
    index = torch.randperm(1024)[:512]
    for _ in range(3):  # a busy moment may spoil one try
        ours_s, copy_s = in_turns(lambda: split.gather(index), split.store[:512].clone, 0.5)
        if ours_s <= MOST_GATHERING_OF_COPY * copy_s:
            return
    pytest.fail(f"gathering took {1e6 * ours_s:.0f} us, a copy {1e6 * copy_s:.0f} us")


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = """if True:
        import json, sys
        from xray_classifier.cli import main
        try:
            main(["--help"])
        except SystemExit:
            pass
        print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
    """
    done = in_subprocess("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = set(json.loads(done.stdout.splitlines()[-1]))
    assert found & (PIECES | {"torch", "numpy", "pydantic", "PIL"}) == set()


@pytest.mark.parametrize("split", ["{val: null, test: null}", "{val: 0.2, test: 0.2}"])
def test_the_first_step_needs_no_library_of_statistics_or_pictures(
    split: str, tmp_path: Path
) -> None:
    code = """if True:
        import json, os, sys
        from xray_classifier.cli import main
        from xray_classifier.trainer import Trainer
        def told(trainer, index):
            print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})), flush=True)
            os._exit(0)
        Trainer.step = told
        main(sys.argv[1:])
    """
    write_npz(tmp_path / "noise.npz", 60, 16)
    job = tmp_path / "job.yaml"
    text = JOB.format(path="noise.npz", side=16, cache=tmp_path / "cache", hidden=[4])
    job.write_text(text, encoding="utf-8")
    done = in_subprocess("-c", code, "train", "-c", str(job), f"data.split={split}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) & PIECES == set()
