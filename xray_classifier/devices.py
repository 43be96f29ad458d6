"""Which device and which number format a run uses."""

import re

import torch
from torch import Tensor

from xray_classifier.errors import UsageError


def torch_device(name: str) -> torch.device:
    """The device that a name means.

    Args:
        name: cpu, cuda, cuda:1, mps, or auto: CUDA where there is one, else MPS, else the CPU.

    Raises:
        UsageError: This machine has no such device.
    """
    has_cuda = torch.cuda.is_available()
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if has_cuda else "mps" if has_mps else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", name):
        raise UsageError(f"device {name!r} is none of auto, cpu, cuda, cuda:N, mps")
    number = int(name.partition(":")[2] or 0)
    if name.startswith("cuda") and number >= torch.cuda.device_count():
        raise UsageError(
            f"device {name}: PyTorch sees {torch.cuda.device_count()} CUDA devices here; use "
            "--device auto, or run `xray-classifier doctor`"
        )
    if name == "mps" and not has_mps:
        raise UsageError("device mps: not available here; use --device auto")
    return torch.device(name)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """The same numbers on another device, on their way while the CPU goes on.

    `Tensor.to` makes the CPU wait until a CUDA device has done all that it was told before.

    Args:
        values: On any device.
        device: Where they are needed.
    """
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def number_format(precision: str, device: torch.device) -> str:
    """fp32, bf16 or fp16.

    Args:
        precision: One of these, or auto: bf16 on a CUDA device that computes in it, else fp32.
        device: Where the model is.

    Raises:
        UsageError: fp16 on a CPU, where it is slow and badly scaled.
    """
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if fast else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("train.precision fp16 needs a GPU; use fp32 or bf16 on the CPU")
    return precision
