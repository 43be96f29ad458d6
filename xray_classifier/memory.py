"""What a model remembers of its training images: enough to know them again, not to show them.

A checkpoint keeps 40 bytes an image: 8 of pixel hash, 32 of perceptual hash; and 16 bytes for each
patient, under a key that stays with the user. These are pseudonymised data, not anonymous ones:
whoever has an image can tell whether it was among those that the model was trained on. `export
--strip-memory` takes them out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xray_classifier.data.neighbours import nearest_distances
from xray_classifier.data.signature import PERCEPTUAL_BYTES, PIXEL_BYTES, Signatures
from xray_classifier.pseudonyms import PSEUDONYM_BYTES, key_id, pseudonym

IMAGES, PATIENTS = "memory.images", "memory.patients"
IMAGE_BYTES = PIXEL_BYTES + PERCEPTUAL_BYTES

POSSIBLE_BITS = 16
"""Perceptual hashes that differ in at most this many of 256 bits are a possible match. Without a
thumbnail to compare this is stricter than the audit's own search."""

NO, POSSIBLE, YES = "no", "possible", "yes"


@dataclass(frozen=True, eq=False)
class Memory:
    """The training images and patients of a model.

    Attributes:
        pixels: Pixel hashes, (n, 8) uint8.
        perceptual: Perceptual hashes, (n, 32) uint8.
        patients: Keyed hashes of patients.
        key: Name of the key that they were made with; None where no patient is known.
    """

    pixels: NDArray[np.uint8]
    perceptual: NDArray[np.uint8]
    patients: frozenset[bytes]
    key: str | None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def tells_patients(self) -> bool:
        """Whether patients can be told: some are known, and this user has the key."""
        return bool(self.patients) and self.key == key_id()

    def images_seen(self, signatures: Signatures) -> tuple[str, ...]:
        """Whether each image was in the training data.

        Args:
            signatures: (n,) records of SIGNATURE of decoded images.

        Returns:
            n texts: `yes` for the same pixels in any container, `possible` where only the looks
            are the same, else `no`.
        """
        if not len(self) or not len(signatures):
            return (NO,) * len(signatures)
        ours = np.ascontiguousarray(self.pixels).view(np.uint64)[:, 0]
        theirs = np.ascontiguousarray(signatures["pixels"]).view(np.uint64)[:, 0]
        same = np.isin(theirs, ours)
        seen = np.where(same, YES, NO).astype(object)
        rest = np.flatnonzero(~same)
        bits = nearest_distances(signatures["perceptual"][rest], self.perceptual)
        seen[rest[bits <= POSSIBLE_BITS]] = POSSIBLE
        return tuple(seen.tolist())

    def patients_seen(self, patients: Sequence[str]) -> NDArray[np.bool_]:
        """Which patients were in the training data; all False where that cannot be told.

        Args:
            patients: Patient key per image, n texts.
        """
        if not self.tells_patients:
            return np.zeros(len(patients), dtype=np.bool_)
        known = {p: bytes.fromhex(pseudonym(p)) in self.patients for p in set(patients)}
        return np.array([known[patient] for patient in patients], dtype=np.bool_)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: (n, 40) uint8 for images, (p, 16) uint8 for patients, sorted.

        Sorted, so that they do not tell the order of the training images.
        """
        images = np.concatenate([self.pixels, self.perceptual], axis=1)
        images = np.unique(images, axis=0) if len(images) else images
        patients = np.frombuffer(b"".join(sorted(self.patients)), np.uint8)
        return {
            IMAGES: torch.from_numpy(images.copy()),
            PATIENTS: torch.from_numpy(patients.reshape(-1, PSEUDONYM_BYTES).copy()),
        }

    def content(self) -> dict[str, Any]:
        """What a checkpoint says about it."""
        return {"images": len(self), "patients": len(self.patients), "key": self.key}


def remembered(
    signatures: Signatures, rows: NDArray[np.int64], patients: Sequence[str] | None
) -> Memory:
    """The memory of some images.

    Args:
        signatures: (N,) records of SIGNATURE.
        rows: Which of them, shape (n,).
        patients: Patient key per image in `rows`; None where patients are unknown.
    """
    keys = frozenset(bytes.fromhex(pseudonym(p)) for p in set(patients or ()))
    return Memory(
        pixels=signatures["pixels"][rows],
        perceptual=signatures["perceptual"][rows],
        patients=keys,
        key=key_id() if keys else None,
    )


def split_tensors(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of a checkpoint, and what it remembers."""
    memory = {name: tensor for name, tensor in tensors.items() if name in (IMAGES, PATIENTS)}
    return {name: t for name, t in tensors.items() if name not in memory}, memory


def recalled(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> Memory | None:
    """The memory in a checkpoint; None where it holds none.

    Args:
        tensors: All tensors of the checkpoint.
        content: What it says.

    Raises:
        ValueError: Its memory has another shape.
    """
    if IMAGES not in tensors or PATIENTS not in tensors:
        return None
    images, patients = tensors[IMAGES].numpy(), tensors[PATIENTS].numpy()
    widths = (images.shape[1:], patients.shape[1:]) == ((IMAGE_BYTES,), (PSEUDONYM_BYTES,))
    if not (widths and images.dtype == np.uint8 and patients.dtype == np.uint8):
        raise ValueError(f"a memory of shape {images.shape} and {patients.shape}")
    key = (content.get("memory") or {}).get("key")
    return Memory(
        pixels=images[:, :PIXEL_BYTES],
        perceptual=images[:, PIXEL_BYTES:],
        patients=frozenset(bytes(row) for row in patients),
        key=key if isinstance(key, str) else None,
    )
