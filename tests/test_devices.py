"""Names of devices and number formats, and what this machine cannot do."""

import pytest
import torch

from xray_classifier.devices import number_format, torch_device
from xray_classifier.errors import UsageError


def machine(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool = False) -> None:
    """Pretend that a machine has `cuda` GPUs and perhaps MPS."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (1, True, "cuda")],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, expected: str
) -> None:
    machine(monkeypatch, cuda, mps)
    assert torch_device("auto") == torch.device(expected)


def test_devices_that_exist_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2, mps=True)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1", "mps"):
        assert torch_device(name) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "cuda", "words"),
    [
        ("cuda", 0, "sees 0 CUDA devices"),
        ("cuda:0", 0, "sees 0 CUDA devices"),
        ("cuda:2", 2, "sees 2 CUDA devices"),
        ("cuda:128", 2, "sees 2 CUDA devices"),
        ("cuda:256", 2, "sees 2 CUDA devices"),
        ("mps", 0, "not available"),
        ("gpu", 0, "none of auto, cpu, cuda"),
        ("", 0, "none of auto, cpu, cuda"),
        ("cuda:x", 0, "none of auto, cpu, cuda"),
        ("meta", 0, "none of auto, cpu, cuda"),
        ("xpu", 0, "none of auto, cpu, cuda"),
    ],
)
def test_a_device_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, cuda: int, words: str
) -> None:
    machine(monkeypatch, cuda)
    with pytest.raises(UsageError, match=words) as caught:
        torch_device(name)
    assert caught.value.exit_code == 2


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        number_format("fp16", torch.device("cpu"))


@pytest.mark.parametrize(
    ("precision", "device", "bf16", "expected"),
    [
        ("auto", "cpu", True, "fp32"),
        ("auto", "mps", True, "fp32"),
        ("auto", "cuda", True, "bf16"),
        ("auto", "cuda", False, "fp32"),
        ("fp32", "cuda", True, "fp32"),
        ("bf16", "cpu", False, "bf16"),
        ("fp16", "cuda", True, "fp16"),
    ],
)
def test_the_number_format(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: str, bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert number_format(precision, torch.device(device)) == expected
