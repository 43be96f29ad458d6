"""What this process asks of the libraries below PyTorch: the program's choice, not the package's.

Each setting can be made by the user instead, in the environment, and is then left alone.
"""

import os
import sys
from typing import Any

SPINS = "2000"
"""How often a thread of PyTorch's OpenMP looks for work before it sleeps; the default is millions.
On two cores shared with other programs training steps of 7 ms took 50 to 340 ms, and 19 to 60 ms
with this; on idle cores it costs nothing that could be measured. NumPy's OpenBLAS waits alike,
0.4 s for a product of 65 columns; what is left to NumPy is small enough for one thread."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
MOST = 2**31 - 1


def share_cores() -> None:
    """Before PyTorch and NumPy are imported: do not keep cores busy with waiting, unless told."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def keep_freed_memory() -> bool:
    """Let the C library keep large blocks that were freed, for the next block of their size.

    Gradients and batches are freed and taken again in each step. By default glibc hands blocks
    beyond 32 MiB back to the system, which fills each of their pages with zeros when they come
    again: a third of a step on images of 224 px.

    Returns:
        Whether the C library could be told; glibc alone can.
    """
    tuned = any(name.startswith("MALLOC_") for name in os.environ)
    if tuned or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    tell = _in_c_library("mallopt")
    return tell is not None and bool(tell(M_MMAP_MAX, 0)) and bool(tell(M_TRIM_THRESHOLD, MOST))


def release_freed_memory() -> None:
    """Give back what was freed so far, such as the memory of decoders, which steps do not need."""
    trim = _in_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def _in_c_library(name: str) -> Any:
    """A function of the C library; None where it has none of that name, as on other systems."""
    if sys.platform != "linux":
        return None
    import ctypes

    return getattr(ctypes.CDLL(None), name, None)
