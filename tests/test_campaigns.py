"""Long campaigns: `scripts/test -m slow`. Each prints its seed, N and failures."""

import random
from pathlib import Path

import pytest
import torch

from xray_classifier.checkpoint import encoded, load_checkpoint
from xray_classifier.errors import CheckpointError

pytestmark = pytest.mark.slow

SEED = 20261122


def test_ten_thousand_flipped_bytes_and_a_thousand_truncations_are_refused(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    weights = {"output.weight": torch.randn(1, 2048), "output.bias": torch.zeros(1)}
    whole = b"".join(encoded(weights, {"kind": "best", "task": "classify"}))
    path = tmp_path / "best.safetensors"
    path.write_bytes(whole)
    assert load_checkpoint(path).content["task"] == "classify"
    accepted = 0
    for trial in range(11_000):
        damaged = bytearray(whole)
        if trial < 10_000:
            damaged[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
        else:
            del damaged[rng.randrange(len(whole)) :]
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
            accepted += 1
        except CheckpointError:
            pass
    print(f"seed {SEED}: {accepted} of 11,000 damaged checkpoints were accepted")
    assert accepted == 0
