"""Patient ids under a key that stays with the user: equal ids match, and nothing leads back.

The key is 32 random bytes in the user's config directory, made when it is first needed. Two
machines recognise each other's patients only where the key was copied from one to the other.

Source: HMAC, RFC 2104, with SHA-256, cut to 16 bytes. A plain hash of a patient id would be found
by trying all ids.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path

KEY_BYTES = 32
PSEUDONYM_BYTES = 16
_passing = secrets.token_bytes(KEY_BYTES)


def key_path() -> Path:
    """Where the key lies: patient.key in $XDG_CONFIG_HOME, %APPDATA% or ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("APPDATA")
    return _below(base or os.path.expanduser("~/.config"))  # noqa: PTH111 - pathlib is slow


@lru_cache(maxsize=4)
def _below(base: str) -> Path:
    """Where the key lies below a config directory; asked once for each patient."""
    return Path(base) / "xray_classifier" / "patient.key"


def pseudonym(patient: str) -> str:
    """The keyed hash of a patient id: 32 hexadecimal characters; `` for an empty id."""
    text = patient.strip()
    if not text:
        return ""
    code = hmac.new(_key(key_path()), text.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return code.digest()[:PSEUDONYM_BYTES].hex()


def key_id() -> str:
    """A name of the key that does not give it away, to tell pseudonyms of different keys apart."""
    return hmac.new(_key(key_path()), b"\0key id", hashlib.sha256).hexdigest()[:16]


def key_is_kept() -> bool:
    """Whether the key of this process lies on disk, so that patients will be known again."""
    try:
        return key_path().read_bytes() == _key(key_path())
    except OSError:
        return False


def passing_key() -> str:
    """What this process takes where no key can be kept, in hexadecimal digits.

    Processes that work for it must take the same, or one patient would seem several: tell them by
    `take_passing_key`, on a pipe and never on a command line, where others could read it.
    """
    return _passing.hex()


def take_passing_key(key: str) -> None:
    """Take the key of the process that this one works for, where none can be kept."""
    global _passing
    _passing = bytes.fromhex(key)
    _key.cache_clear()


@lru_cache(maxsize=4)
def _key(path: Path) -> bytes:
    """The key; where none can be kept, one for this process and those that work for it."""
    for _ in range(2):  # a second look, for another process may make the key at the same moment
        with contextlib.suppress(OSError):
            key = path.read_bytes()
            if len(key) == KEY_BYTES:
                return key
        with contextlib.suppress(OSError):
            _make(path)
    return _passing


def _make(path: Path) -> None:
    """Write a new key that only its owner may read; an existing one is never replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # fails where the key exists, unlike a rename
    finally:
        os.unlink(temporary)  # noqa: PTH108
