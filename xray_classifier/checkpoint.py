"""A model file that can be trusted: tensors and JSON in one safetensors file, with a checksum.

safetensors alone loads a file with a flipped byte without a word, so the header carries the SHA-256
of the whole file, taken with the digest's own 64 characters set to zero. It is verified before
anything is parsed further. Nothing in the file is code.

Source: the safetensors format: 8 bytes little-endian header length, JSON header, raw tensors.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from xray_classifier.errors import CheckpointError, NonFiniteError, OutputError, UsageError
from xray_classifier.files import (
    atomic_file,
    printable,
    sync_folder,
    to_json,
    write_bytes,
    write_refusal,
)

FORMAT = "xray_classifier"
FORMAT_VERSION = 1
STATES = ("last.safetensors", "previous.safetensors")
"""What a run can be resumed from, the newest first."""

MAX_HEADER_BYTES = 64 * 2**20
ALIGNMENT = 8
_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ZERO_DIGEST = b"0" * 64
_DIGEST_KEY = b'"sha256":"'


class NewerVersionError(CheckpointError):
    """A sound model file of a format version that this program does not know."""


@dataclass(frozen=True)
class Checkpoint:
    """What a model file holds.

    Attributes:
        tensors: Weights by name, on the CPU; `last` files also hold optimizer state.
        content: Plain JSON values: architecture, classes, preprocessing, threshold, and so on.
        path: Where it was read from.
    """

    tensors: dict[str, Tensor]
    content: dict[str, Any]
    path: Path

    def require(self, key: str) -> Any:
        """One entry of the content.

        Raises:
            CheckpointError: It is missing.
        """
        if key not in self.content:
            raise CheckpointError(
                f"{printable(self.path)} lacks its {key!r}; it is no complete model file. "
                "Use checkpoints/best.safetensors of a run"
            )
        return self.content[key]


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor],
    content: Mapping[str, Any],
    keep: Path | None = None,
) -> None:
    """Write a checkpoint durably; the old file stays until the new one is complete.

    Args:
        path: Final name; its folder exists.
        tensors: By name; moved to the CPU.
        content: JSON values.
        keep: Name in the same folder under which the replaced file lives on; None: it is gone.

    Raises:
        NonFiniteError: A weight is NaN or infinite; nothing is written.
        OutputError: The disk refused.
    """
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise NonFiniteError(
                f"{name} holds NaN or infinite values, so no checkpoint was written; "
                "train with a lower train.optimizer.lr or set train.grad_clip"
            )
    parts = encoded(tensors, content)
    if keep is None or not path.exists():
        write_bytes(path, *parts)
        return
    with _living_on(path, keep):
        write_bytes(path, *parts)


def _is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite, by the extremes, which take no memory."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


@contextmanager
def _living_on(path: Path, keep: Path) -> Iterator[None]:
    """Give the file at `path` the name `keep` once the block has replaced it.

    Until then a hidden second name holds it, and what stands at `keep` is not touched: if `path`
    has rotted since it was written, that file is the newest sound one. Without an error, both names
    are durable at the end.
    """
    second = keep.with_name(f".{keep.name}.{secrets.token_hex(4)}")
    try:
        os.link(path, second)
    except OSError:  # a file system without hard links
        with atomic_file(keep) as file:
            with path.open("rb") as old:
                shutil.copyfileobj(old, file)
            yield
        return
    try:
        yield
        os.replace(second, keep)  # noqa: PTH105
        sync_folder(keep.parent)
    except OSError as error:
        raise OutputError(write_refusal(keep, error)) from error
    finally:
        with contextlib.suppress(OSError):
            second.unlink()


def encoded(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> list[memoryview]:
    """The bytes of a checkpoint, digest included, in parts; the weights are not copied."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, **content}
    metadata = {"sha256": _ZERO_DIGEST.decode(), "xray": to_json(head)}
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    plain = {name: tensors[name].detach().to("cpu").contiguous() for name in names}
    header = _header(plain, metadata)
    before, after = _around_digest(header, _digest_position(header))
    values = [_bytes_of(tensor) for tensor in plain.values()]
    return [before, memoryview(_digest(before, after, *values)), after, *values]


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """What stands before the values of tensors that follow one another, widest type first."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU, as the format wants it: little-endian."""
    flat = tensor.reshape(-1).view(torch.uint8).numpy()
    if sys.byteorder == "big":
        flat = flat.reshape(-1, tensor.element_size())[:, ::-1].copy().reshape(-1)
    return flat.data


def _around_digest(raw: bytes, start: int) -> tuple[memoryview, memoryview]:
    """What stands before the digest at `start`, and behind it."""
    view = memoryview(raw)
    return view[:start], view[start + 64 :]


def _digest(before: memoryview, *after: memoryview) -> bytes:
    """SHA-256 in hexadecimal digits of a checkpoint whose digest is zeros."""
    state = hashlib.sha256(before)
    state.update(_ZERO_DIGEST)
    for part in after:
        state.update(part)
    return state.hexdigest().encode()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and verify every byte of it.

    Args:
        path: The file itself; see `find_checkpoint` for run folders.

    Raises:
        CheckpointError: Damaged, foreign or newer than this program knows.
        UsageError: No such file.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{printable(path)} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {printable(path)}: {error.strerror}") from error
    content = _verified_content(raw, path)
    try:
        tensors = load_tensors(raw)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{printable(path)} has no readable tensors") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES:
            raise CheckpointError(f"{printable(path)}: {name} is of a type that is not used here")
        if not _is_finite(tensor):
            raise CheckpointError(f"{printable(path)}: {name} holds NaN or infinite values")
    return Checkpoint(tensors, content, path)


def _verified_content(raw: bytes, path: Path) -> dict[str, Any]:
    name = printable(path)
    foreign = f"{name} is no model file of this program"
    header_bytes = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or not 2 <= header_bytes <= min(len(raw) - 8, MAX_HEADER_BYTES):
        raise CheckpointError(f"{foreign}, or it was cut short")
    start = _digest_position(raw)
    if start < 0:
        raise CheckpointError(f"{foreign}: it carries no checksum")
    if _digest(*_around_digest(raw, start)) != raw[start : start + 64]:
        raise CheckpointError(
            f"{name} is damaged: its checksum does not match. Copy it again from where it was "
            "made, or use the run's other checkpoint"
        )
    try:
        header = json.loads(raw[8 : 8 + header_bytes])
        content = json.loads(header["__metadata__"]["xray"], parse_constant=_refuse_constant)
        version = content["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(foreign) from error
    if content.get("format") != FORMAT or not isinstance(version, int):
        raise CheckpointError(foreign)
    if version > FORMAT_VERSION:
        raise NewerVersionError(
            f"{name} has format version {version}; this program knows versions up to "
            f"{FORMAT_VERSION}. Install a newer xray_classifier"
        )
    return dict(content)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} in metadata")


def _digest_position(raw: bytes) -> int:
    """Where the digest's 64 characters start in the header; -1 if it is not there exactly once."""
    header_end = 8 + int.from_bytes(raw[:8], "little")
    found = raw.find(_DIGEST_KEY, 8, header_end)
    if found < 0 or raw.find(_DIGEST_KEY, found + 1, header_end) >= 0:
        return -1
    start = found + len(_DIGEST_KEY)
    return start if start + 64 < header_end else -1


def find_checkpoint(path: Path, kind: str = "best") -> Path:
    """The model file that a path on the command line means.

    Args:
        path: A model file, a run folder, or a folder of checkpoints.
        kind: best (evaluate, predict) or last (resume).

    Raises:
        UsageError: Nothing there, or no file; the message lists model files nearby.
    """
    # os.path says False where pathlib raises, as for a name that is too long
    is_folder = os.path.isdir(path)  # noqa: PTH112
    candidates = [path / "checkpoints" / f"{kind}.safetensors", path / f"{kind}.safetensors"]
    for candidate in candidates if is_folder else [path]:
        if os.path.isfile(candidate):  # noqa: PTH113
            return candidate
    nearby = _checkpoints_near(path, kind)
    hint = f"; model files nearby: {', '.join(nearby)}" if nearby else ""
    what = "is no file" if os.path.lexists(path) else "does not exist"
    what = f"holds no checkpoints/{kind}.safetensors" if is_folder else what
    raise UsageError(f"{printable(path)} {what}{hint}")


def _checkpoints_near(path: Path, kind: str) -> list[str]:
    folder = path
    while not os.path.isdir(folder) and folder != folder.parent:  # noqa: PTH112
        folder = folder.parent
    patterns = (f"{'*/' * depth}{kind}.safetensors" for depth in range(4))
    found = {f for pattern in patterns for f in folder.glob(pattern)}
    newest = sorted(found, key=lambda f: f.stat().st_mtime, reverse=True)[:5]
    return [printable(f) for f in newest]
