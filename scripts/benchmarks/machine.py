"""What this machine is, and how fast it multiplies matrices and moves bytes."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

WARM_UPS = 2
NAMED = ("torchvision", "numpy", "pillow", "scikit-learn")
MIXED_PRECISION = {"avx512_bf16", "amx_bf16", "bf16"}  # x86 and ARM names in /proc/cpuinfo


def described() -> dict[str, Any]:
    """Processor, cores, load and versions."""
    import torch

    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "system": platform.platform(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16": has_bf16(),
        "gpu": gpu(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,  # with the build, which the distribution does not tell
            **versions(NAMED),
        },
    }


def gpu() -> dict[str, Any] | None:
    """The CUDA device and what drives it; None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    device = torch.cuda.get_device_properties(0)
    return {
        "name": device.name,
        "memory_GiB": round(device.total_memory / 2**30, 1),
        "driver": driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def driver() -> str | None:
    """Version of the NVIDIA driver; None where nothing tells."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    return said[0] if said else None


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Of those distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """The processor's name."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 numbers itself; emulated, it is slower than fp32."""
    return any(
        MIXED_PRECISION & set(line.partition(":")[2].split())
        for line in _cpuinfo()
        if line.lower().startswith(("flags", "features"))
    )


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def best_s(work: Callable[[], object], seconds: float) -> float:
    """The least seconds that some work took, tried again and again for that long."""
    for _ in range(WARM_UPS):
        work()
    best, end_s = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end_s or best == float("inf"):
        start_s = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start_s)
    return best


def gemm_rate(precision: str, sides: tuple[int, ...], seconds: float, device: Any = None) -> float:
    """Operations a second of the best of some square matrix products.

    Args:
        precision: fp32 or bf16.
        sides: Of the matrices.
        seconds: How long each side is tried.
        device: Where; None is the CPU.
    """
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    best = 0.0
    for side in sides:
        one, other = (torch.randn(side, side).to(device, dtype) for _ in range(2))
        out = torch.empty(side, side, dtype=dtype, device=device)

        def multiply(a: Any = one, b: Any = other, c: Any = out) -> None:
            torch.mm(a, b, out=c)
            wait_for(c.device)

        best = max(best, 2.0 * side**3 / best_s(multiply, seconds))
    return best


def onednn_rate(sides: tuple[int, ...], seconds: float) -> float | None:
    """Operations a second of fp32 products in oneDNN, where this PyTorch offers it.

    On a processor that MKL, which `torch.mm` calls, does not know well, oneDNN may be twice as
    fast; the table shows both, and rooflines are those of the faster one.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return None
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if linear is None:
        return None
    best = 0.0
    for side in sides:
        one, other = (torch.randn(side, side) for _ in range(2))

        def multiply(a: Any = one, b: Any = other) -> None:
            linear(a, b, None, "none", [], "")

        best = max(best, 2.0 * side**3 / best_s(multiply, seconds))
    return best


def best_rate(precision: str, sides: tuple[int, ...], seconds: float) -> float:
    """Operations a second of the faster library; arguments as in `gemm_rate`."""
    plain = gemm_rate(precision, sides, seconds)
    other = onednn_rate(sides, seconds) if precision == "fp32" else None
    return max(plain, other or 0.0)


def copy_rate(n_bytes: int, seconds: float, device: Any = None) -> float:
    """Bytes a second of a large copy, those read and those written both counted.

    Args:
        n_bytes: Of the copy.
        seconds: How long it is tried.
        device: Where; None is the CPU.
    """
    import torch

    source = torch.ones(n_bytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)

    def copy() -> None:
        target.copy_(source)
        wait_for(target.device)

    return 2.0 * n_bytes / best_s(copy, seconds)


def wait_for(device: Any) -> None:
    """Until a CUDA device has done all that it was told; others have when they answer."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
