"""What the program asks of the C library, OpenMP and OpenBLAS."""

import os
import subprocess
import sys

import pytest

from xray_classifier import cli

GNU = (
    sys.platform == "linux" and hasattr(os, "confstr") and "CS_GNU_LIBC_VERSION" in os.confstr_names
)
RETAKEN = """
import resource, sys
import numpy as np
from xray_classifier.process_settings import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
np.ones(2**24)  # 128 MiB, freed at once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(2**24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def told(source: str, *words: str, **environment: str) -> list[str]:
    """What a program says whose C library nobody else has told anything."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    ended = subprocess.run(
        [sys.executable, "-c", source, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**inherited, "NUMPY_MADVISE_HUGEPAGE": "0", **environment},
    )
    return ended.stdout.split()


def faults(how: str, **environment: str) -> tuple[str, int]:
    """What `keep_freed_memory` said, and the page faults of four blocks that were had before."""
    said, count = told(RETAKEN, how, **environment)
    return said, int(count)


@pytest.mark.skipif(not GNU, reason="another C library than GNU's")
def test_a_block_that_was_freed_is_taken_again_without_the_system() -> None:
    _, before = faults("leave")
    said, after = faults("keep")
    assert said == "True"
    assert after * 20 < before


HELD = """
from pathlib import Path
import numpy as np
from xray_classifier.process_settings import keep_freed_memory, release_freed_memory

def held_kib():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])

keep_freed_memory()
before = held_kib()
np.ones(2**24)  # 128 MiB, freed at once
kept = held_kib() - before
release_freed_memory()
print(kept, held_kib() - before)
"""


@pytest.mark.skipif(not GNU, reason="another C library than GNU's")
def test_what_is_kept_can_be_given_back() -> None:
    kept, left = map(int, told(HELD))
    assert kept > 100 * 1024
    assert left < 20 * 1024


def test_every_command_asks_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cli, "share_cores", lambda: asked.append("cores"))
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: asked.append("memory"))
    assert cli.main(["config", "list"]) == 0
    assert asked == ["cores", "memory"]


@pytest.mark.skipif(not GNU, reason="another C library than GNU's")
@pytest.mark.parametrize(
    "own", [{"MALLOC_ARENA_MAX": "4"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_what_the_user_has_set_is_left_alone(own: dict[str, str]) -> None:
    assert faults("keep", **own)[0] == "False"
