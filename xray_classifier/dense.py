"""A linear layer that multiplies with the faster of the two libraries inside PyTorch.

On the CPU PyTorch gives 32-bit matrix products to Intel's MKL, which holds back on processors of
other makers. oneDNN, which PyTorch brings along for 16 bits and convolutions, does not: on one core
of an AMD EPYC (Zen 5) it takes 0.4 to 0.7 of MKL's time for the products of these networks, forward
and backward. Sums are added up in another order, so results differ in their last bits, as they do
between processors and between numbers of threads.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MAKERS_MKL_SERVES = ("GenuineIntel",)
LEAST_UNITS = 16
"""Layers of fewer units gain nothing."""


class Dense(nn.Linear):
    """`torch.nn.Linear` with the same weights, names and meaning; see the head of this file."""

    def forward(self, x: Tensor) -> Tensor:
        """Map features (..., inputs) to (..., units)."""
        if self.out_features < LEAST_UNITS or not _suits_onednn(x):
            return super().forward(x)
        flat = x.reshape(-1, self.in_features)
        product: Tensor = OneDnnLinear.apply(flat, self.weight, self.bias)
        return product.view(*x.shape[:-1], self.out_features)


class OneDnnLinear(torch.autograd.Function):
    """x W^T + b for (n, inputs), (units, inputs) and (units,) float32 on the CPU, by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The weighted sums, (n, units)."""
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """From the slopes at the sums (n, units) to those at x, W and b, by the chain rule."""
        x, weight = ctx.saved_tensors
        wanted_x, wanted_weight, wanted_bias = ctx.needs_input_grad
        return (
            _product(slope, weight.t()) if wanted_x else None,
            _product(slope.t(), x.t()) if wanted_weight else None,
            slope.sum(0) if wanted_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return product


def _suits_onednn(x: Tensor) -> bool:
    """Whether oneDNN is at hand, faster, and can take these numbers."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and onednn_is_faster()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


@cache
def onednn_is_faster() -> bool:
    """Whether this PyTorch would use MKL on a processor that MKL holds back on."""
    return (
        torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and has_onednn()
        and processor_maker() not in MAKERS_MKL_SERVES
    )


def has_onednn() -> bool:
    """Whether PyTorch was built with the product that is used here."""
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def processor_maker() -> str:
    """Who made the processor, such as GenuineIntel; GenuineIntel too where that is not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = [f"vendor_id: {platform.processor().rpartition(', ')[2]}"]  # as Windows says it
    known = (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
    return next((name for name in known if name), MAKERS_MKL_SERVES[0])
