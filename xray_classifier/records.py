"""What a run folder says in tables: its images, its splits, its end."""

from collections import Counter
from pathlib import Path
from typing import Any

from xray_classifier.data.audit_words import audit_json
from xray_classifier.data.loading import Radiographs
from xray_classifier.data.splits import split_summary
from xray_classifier.files import csv_text, write_json
from xray_classifier.history import Monitor, Run
from xray_classifier.run_folder import add_to_index


def split_table(radiographs: Radiographs, task: str) -> str:
    """Images, classes and patients of each split, for a person."""
    m = radiographs.manifest
    counts = split_summary(m.splits, m.targets, m.patients, task)  # type: ignore[arg-type]
    lines = []
    for name, count in counts.items():
        classes = "" if count.sick is None else f"{count.healthy:>7,} healthy {count.sick:>7,} sick"
        people = f"{count.patients:>7,} patients" if m.patients_known else ""
        lines.append(f"  {name or 'left out':<9}{count.images:>7,} images {classes} {people}")
    return "\n".join(line.rstrip() for line in lines)


def manifest_table(radiographs: Radiographs) -> str:
    """Every image with its label, patient, split and, where it takes no part, the reason."""
    m = radiographs.manifest
    header = ("path", "label", "patient", "split", "reason", *m.columns)
    labels = m.classes if any(m.classes) else m.targets.tolist()
    columns = [m.ids, labels, m.patients, m.splits, radiographs.reasons, *m.columns.values()]
    return csv_text(header, zip(*columns, strict=True))


def audit_record(radiographs: Radiographs, audit: str) -> dict[str, Any]:
    """Which images take no part and why, and what a person was told about the data.

    Args:
        radiographs: After the audit.
        audit: strict, warn or off.
    """
    left_out = Counter(reason for reason in radiographs.reasons if reason)
    found = radiographs.audit
    return {
        "audit": audit,
        "images": len(radiographs.manifest),
        "left_out": dict(sorted(left_out.items())),
        "notes": list(radiographs.warnings),
        **({} if found is None else audit_json(found, radiographs.manifest)),
    }


def write_summary(
    folder: Path,
    run: Run,
    status: str,
    exit_code: int | None,
    monitor: Monitor | None,
    reason: str | None = None,
) -> None:
    """Write summary.json; a run that has ended gets its line in the index of runs."""
    content = {
        "status": status,
        "stop_reason": reason or run.stop_reason,
        "exit_code": exit_code,
        "best_epoch": best_epoch(run, monitor),
        "steps": run.step,
        "elapsed_s": round(run.elapsed_s, 3),
    }
    write_json(folder / "summary.json", content)
    if exit_code is not None:
        add_to_index(folder, content)


def best_epoch(run: Run, monitor: Monitor | None) -> int | None:
    """Number of the best epoch, from 1; the last one where nothing is monitored."""
    best = None if monitor is None else monitor.best(run.history)
    return (run.epoch or None) if best is None else best + 1
