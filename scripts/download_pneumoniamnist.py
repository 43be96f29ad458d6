#!/usr/bin/env python3
"""Download PneumoniaMNIST (4 MB, CC BY 4.0) and verify its checksum.

    scripts/download_pneumoniamnist.py [FOLDER]

Needs Python and internet access, nothing else. The file appears under its name only when it is
whole and its MD5 is the published one. MD5 finds damage, not a forger; the address is https.

Exit codes: 0 done, 2 usage, 3 the server gave no file or a damaged one, 6 the file exists or cannot
be written, 130 Ctrl-C.

Source: MedMNIST v2, Yang et al. 2023, doi:10.1038/s41597-022-01721-8; the record is
doi:10.5281/zenodo.10519652, the MD5 stands in the `medmnist` package (`INFO["pneumoniamnist"]`).
"""

import argparse
import contextlib
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

URL = "https://zenodo.org/records/10519652/files/pneumoniamnist.npz?download=1"
MD5 = "28209eda62fecd6e6a2d98b1501bb15f"
FILE_NAME = "pneumoniamnist.npz"
CHUNK_BYTES = 1 << 16


class DownloadError(Exception):
    """The download cannot end well.

    Args:
        message: What happened and what to do.
        exit_code: 3 for what the server sent, 6 for what cannot be written.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = _parse(arguments)
    target = Path(options.folder) / FILE_NAME
    try:
        n_bytes = download(
            options.url, target, md5=options.md5, force=options.force, timeout_s=options.timeout
        )
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped; nothing was written", file=sys.stderr)
        return 130
    print(f"{target}: {n_bytes:,} bytes, MD5 as published")
    print(f"Next: xray-classifier train -c pneumoniamnist data.path={target}")
    return 0


def download(url: str, target: Path, md5: str, force: bool, timeout_s: float) -> int:
    """Fetch `url` into `target`, whole and verified or not at all.

    Args:
        url: An http or https address.
        target: The file to write; its folder is made if missing.
        md5: Expected MD5 of the content, 32 hexadecimal digits.
        force: Replace an existing file; it stays as it is if the download fails.
        timeout_s: Longest silence of the server, in seconds.

    Returns:
        The number of bytes written.

    Raises:
        DownloadError: The server gave no file or a damaged one, or the target exists or cannot be
            written. No partial file is left.
    """
    if target.exists() and not force:
        raise DownloadError(f"{target} exists; pass --force to replace it", exit_code=6)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            n_bytes = _fetch(url, file, md5, timeout_s)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise DownloadError(f"{target}: cannot be written: {reason}", exit_code=6) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return n_bytes


def _fetch(url: str, file: BinaryIO, md5: str, timeout_s: float) -> int:
    """Write the content of `url` to an open file; raise DownloadError unless its MD5 is right."""
    digest = hashlib.md5(usedforsecurity=False)
    n_bytes = 0
    for chunk in _chunks(url, timeout_s):
        file.write(chunk)
        digest.update(chunk)
        n_bytes += len(chunk)
    if digest.hexdigest() != md5.lower():
        raise DownloadError(
            f"{url}: wrong checksum: MD5 {digest.hexdigest()}, expected {md5.lower()} "
            f"({n_bytes:,} bytes). The file is damaged or another one; nothing was kept. "
            "Try again, or name a mirror with --url",
            exit_code=3,
        )
    return n_bytes


def _chunks(url: str, timeout_s: float) -> Iterator[bytes]:
    """Yield the content of `url`; every way in which a server can fail becomes a DownloadError."""
    request = urllib.request.Request(url, headers={"User-Agent": "xray-classifier"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            expected = int(response.headers.get("Content-Length") or 0)
            n_bytes = 0
            while chunk := response.read(CHUNK_BYTES):
                n_bytes += len(chunk)
                yield chunk
                _show_progress(n_bytes, expected)
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url}: the server answered {error.code} {error.reason}", 3) from error
    except urllib.error.URLError as error:
        raise DownloadError(f"{url}: no connection: {error.reason}", 3) from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise DownloadError(f"{url}: the download broke off: {error!r}", 3) from error
    if n_bytes < expected:
        raise DownloadError(
            f"{url}: the download broke off after {n_bytes:,} of {expected:,} bytes; try again", 3
        )


def _show_progress(n_bytes: int, expected_bytes: int) -> None:
    """Overwrite one line of the terminal; say nothing to a log."""
    if sys.stderr.isatty():
        whole = f" of {expected_bytes / 1e6:.1f}" if expected_bytes else ""
        print(f"\r{n_bytes / 1e6:.1f}{whole} MB ", end="", file=sys.stderr, flush=True)
        if n_bytes == expected_bytes:
            print(file=sys.stderr)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Download PneumoniaMNIST (4 MB, CC BY 4.0) and verify its checksum."
    )
    default = Path(__file__).resolve().parents[1] / "data"
    parser.add_argument(
        "folder", nargs="?", default=default, help="where to (default: %(default)s)"
    )
    parser.add_argument("--url", type=_web_address, default=URL, help="mirror (default: Zenodo)")
    parser.add_argument("--md5", type=_md5_digits, default=MD5, help="checksum of the file there")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="longest silence (default: 60 s)",
    )
    return parser.parse_args(arguments)


def _web_address(text: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise argparse.ArgumentTypeError(f"{text!r} does not start with https:// or http://")
    return text


def _md5_digits(text: str) -> str:
    if len(text) != 32 or not all(digit in "0123456789abcdef" for digit in text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} is not 32 hexadecimal digits")
    return text


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400 seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
