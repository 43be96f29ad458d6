#!/usr/bin/env python3
"""Score thousands of damaged files, and kill `predict` again and again; count what went wrong.

    scripts/campaign_predict.py CHECKPOINT_OR_RUN [mutants|kills ...] [--n N] [--seed N]

    mutants  20,000 files (PNG, JPEG, TIFF, DICOM, NPZ, and some under a wrong ending), one in five
             whole, the others with bytes flipped, cut out, doubled or cut off, and headers
             exchanged: a row for each, no traceback, every reason from the list, and the rows of
             whole files to the last bit those of a run in which there is nothing else
    kills    2,000 whole files; the process is killed 20 times while it works, at random moments,
             and started again: no row that was kept is lost, and in the end the table is byte for
             byte that of an unbroken run

Decoding is isolated, as `predict` does it. --n changes the number of files. Prints the seed, N, the
reasons, the failures and, where there were none, the bound on their rate: 3 / N at a confidence of
95 %.

Needs this project to be installed, and Linux. Exit codes: 0 no failure, 1 failures, 2 usage.

Source: 3 / N is the rule of three, Hanley & Lippman-Hand 1983, doi:10.1001/jama.249.13.1743.
"""

import argparse
import csv
import io
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("png", "jpg", "tif", "dcm", "npz", "png16", "rgb")
ENDINGS = ("png", "jpg", "tif", "dcm", "npz")
WHOLE_EVERY = 5
WRONG_ENDING_EVERY = 7
SIDE_PX = 48
KILLS = 20


def main() -> int:
    """Run the campaigns asked for."""
    options = _parse()
    print(f"seed {options.seed}")
    failures = 0
    for name in options.campaigns or list(CAMPAIGNS):
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            n, found = CAMPAIGNS[name](options.checkpoint, Path(folder), options.n, options.seed)
            print(f"{name}: N = {n}, {len(found)} failures, {time.monotonic() - started:.0f} s")
            print("\n".join(f"  {failure}" for failure in found[:20]))
            if not found:
                print(f"  rate of failures below {3 / n:.2g} (95 %)")
            failures += len(found)
    return 1 if failures else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("campaigns", nargs="*", choices=(*CAMPAIGNS, []))
    parser.add_argument("--n", type=int, help="files (default: 20000 and 2000)")
    parser.add_argument("--seed", type=int, default=20260101)
    return parser.parse_args()


def mutants(checkpoint: Path, folder: Path, n: int | None, seed: int) -> tuple[int, list[str]]:
    """Damaged files among whole ones."""
    n = n or 20_000
    whole = make_files(folder / "files", n, seed)
    code, said = predicted(checkpoint, folder / "files", folder / "all.csv")
    failures = [] if code in (0, 4) else [f"exit code {code}: {said[-500:]}"]
    listed = "\n".join(f"files/{name}" for name in sorted(whole))
    (folder / "whole.txt").write_text(listed)
    predicted(checkpoint, Path(f"@{folder / 'whole.txt'}"), folder / "whole.csv")
    return n, failures + faults_of(folder, n, said)


def faults_of(folder: Path, n: int, said: str) -> list[str]:
    """What is wrong with `all.csv`, held against `whole.csv` and the files."""
    from xray_classifier.data.boundary import REASONS

    rows, clean = rows_of(folder / "all.csv"), rows_of(folder / "whole.csv")
    names = sorted(path.name for path in (folder / "files").iterdir())
    failures = []
    if [Path(row["path"]).name for row in rows] != names or len(rows) != n:
        failures.append(f"{len(rows)} rows for {n} files, or another order")
    if "Traceback" in said or "this is a bug" in said:
        failures.append(f"a traceback: {said[-500:]}")
    unknown = {row["reason"] for row in rows if row["status"] != "ok"} - set(REASONS)
    failures += [f"unknown reason {reason!r}" for reason in unknown]
    told = {row["path"]: row for row in rows}
    failures += [
        f"the row of {row['path']} changed" for row in clean if told.get(row["path"]) != row
    ]
    failures += [f"a whole file is {row}" for row in clean if row["status"] != "ok"]
    counts = Counter(row["reason"] or row["status"] for row in rows)
    print("  " + ", ".join(f"{reason}: {count}" for reason, count in counts.most_common()))
    return failures


def kills(checkpoint: Path, folder: Path, n: int | None, seed: int) -> tuple[int, list[str]]:
    """A process that is killed again and again."""
    n = n or 2_000
    rng = np.random.default_rng(seed)
    (folder / "files").mkdir()
    for number in range(n):
        (folder / "files" / f"{number:05d}.png").write_bytes(encoded("png", film(rng), rng))
    predicted(checkpoint, folder / "files", folder / "whole.csv")
    out = folder / "p.csv"
    failures, kept = [], [0]
    chance = random.Random(seed)
    for number in range(KILLS):
        killed(checkpoint, folder / "files", out, kept[-1] + n // (2 * KILLS), chance)
        kept.append(rows_kept(out))
        if out.exists() or kept[-1] < kept[-2]:
            failures.append(f"kill {number} came too late, or cost rows that were kept")
    print(f"  rows kept after each kill: {kept[1:]}")
    code, said = predicted(checkpoint, folder / "files", out)
    if code or out.read_bytes() != (folder / "whole.csv").read_bytes():
        failures.append(f"exit code {code}, or another table: {said[-500:]}")
    left = [path.name for path in folder.iterdir() if path.name.startswith(".p.csv")]
    failures += [f"left behind: {name}" for name in left]
    return KILLS, failures


def command(checkpoint: Path, inputs: Path, out: Path, *more: str) -> list[str]:
    """`predict` as a person would type it."""
    words = ["predict", str(checkpoint), str(inputs), "-o", str(out), *more]
    return [sys.executable, "-m", "xray_classifier", *words]


def predicted(checkpoint: Path, inputs: Path, out: Path, *more: str) -> tuple[int, str]:
    """Exit code, and all that was said."""
    done = subprocess.run(command(checkpoint, inputs, out, *more), capture_output=True)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def killed(checkpoint: Path, inputs: Path, out: Path, n_rows: int, chance: random.Random) -> None:
    """Start `predict`, and kill it at a random moment after so many rows are kept."""
    words = command(checkpoint, inputs, out, "-j", "1")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and rows_kept(out) < n_rows:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)


def rows_kept(out: Path) -> int:
    """Whole rows beside a table."""
    rows = out.with_name(f".{out.name}.rows")
    return max(0, rows.read_bytes().count(b"\n") - 1) if rows.exists() else 0


def rows_of(path: Path) -> list[dict[str, str]]:
    """A table as dictionaries."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def make_files(folder: Path, n: int, seed: int) -> list[str]:
    """Write n files, one in WHOLE_EVERY whole; the names of the whole ones that can be scored."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    chance = random.Random(seed)
    originals = {kind: [encoded(kind, film(rng), rng) for _ in range(12)] for kind in KINDS}
    whole = []
    for number in range(n):
        kind = KINDS[number % len(KINDS)]
        content = chance.choice(originals[kind])
        ending = {"png16": "png", "rgb": "jpg"}.get(kind, kind)
        if number % WRONG_ENDING_EVERY == 3:
            ending = chance.choice(ENDINGS)
        name = f"{number:06d}.{ending}"
        if number % WHOLE_EVERY:
            content = mutated(content, originals, chance)
        elif kind != "npz":
            whole.append(name)
        (folder / name).write_bytes(content)
    return whole


def film(rng: np.random.Generator) -> NDArray[np.uint16]:
    """A smooth grey picture of 12 bits, (SIDE_PX, SIDE_PX)."""
    ramp = np.linspace(0, 1, SIDE_PX)
    waves = [
        np.outer(np.sin(a * ramp + b), np.cos(c * ramp + d))
        for a, b, c, d in rng.uniform(0, 7, (6, 4))
    ]
    grey = sum(waves) + rng.normal(0, 0.05, (SIDE_PX, SIDE_PX))
    low, high = grey.min(), grey.max()
    return np.asarray((grey - low) / (high - low) * 4095, np.uint16)


def encoded(kind: str, grey: NDArray[np.uint16], rng: np.random.Generator) -> bytes:
    """A film as the bytes of a file."""
    from PIL import Image

    stream = io.BytesIO()
    small = np.asarray(grey >> 4, np.uint8)
    if kind == "npz":
        np.savez_compressed(stream, train_images=small[None])
    elif kind == "dcm":
        stream.write(dicom(grey))
    elif kind == "png16":
        Image.fromarray(grey).save(stream, "PNG")
    elif kind == "rgb":
        Image.fromarray(np.stack([small] * 3, -1)).save(stream, "JPEG", quality=90)
    elif kind == "jpg":
        Image.fromarray(small).save(stream, "JPEG", progressive=bool(rng.integers(2)))
    elif kind == "tif":
        how = (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")[rng.integers(5)]
        Image.fromarray(small).save(stream, "TIFF", compression=how)
    else:
        Image.fromarray(small).save(stream, "PNG")
    return stream.getvalue()


def dicom(grey: NDArray[np.uint16]) -> bytes:
    """A digital radiograph with the elements it must have."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.Modality = "CANARY", "DX"
    dataset.Rows, dataset.Columns = grey.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = grey.astype("<u2").tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def mutated(content: bytes, originals: dict[str, list[bytes]], chance: random.Random) -> bytes:
    """The bytes of a file, damaged in one of several ways."""
    raw = bytearray(content)
    at, length = chance.randrange(len(raw)), chance.randrange(1, 64)
    way = chance.randrange(7)
    if way == 0:
        for _ in range(chance.randrange(1, 16)):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    elif way == 1:  # where headers are
        for _ in range(chance.randrange(1, 5)):
            raw[chance.randrange(min(300, len(raw)))] = chance.randrange(256)
    elif way == 2:
        del raw[at:]
    elif way == 3:
        del raw[at : at + length]
    elif way == 4:
        raw[at:at] = raw[at : at + length]
    elif way == 5:
        raw[at : at + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
    else:  # the head of one file, the rest of another
        other = chance.choice(originals[chance.choice(KINDS)])
        raw[:length] = other[:length]
    return bytes(raw)


CAMPAIGNS: dict[str, Any] = {"mutants": mutants, "kills": kills}

if __name__ == "__main__":
    sys.exit(main())
