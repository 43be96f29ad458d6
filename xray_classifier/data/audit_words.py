"""An audit in words for a terminal, and as JSON; file names are untrusted text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from xray_classifier.data.audit import FEWEST_PATIENTS, Audit
from xray_classifier.data.leaks import Group, Leaks
from xray_classifier.data.manifest import Manifest
from xray_classifier.data.probes import in_words
from xray_classifier.data.quality import KINDS, Oddity
from xray_classifier.files import printable

CHANCE = 0.5
EXAMPLES = 20
SHOWN = 5
MEMBERS_SHOWN = 4


def audit_json(audit: Audit, manifest: Manifest) -> dict[str, Any]:
    """The audit as plain JSON values; counts are whole, examples are the first twenty."""
    leaks, manifest = audit.leaks, manifest.with_splits(audit.splits)
    return {
        "leaks": {
            "patients": {
                "known": manifest.patients_known,
                "shared_across_splits": len(leaks.patients),
                "images_in_later_split": len(_later(leaks.patients, leaks.later)),
                "examples": [
                    {"patient": group.key, "images": _members(group.rows, manifest)}
                    for group in leaks.patients[:EXAMPLES]
                ],
            },
            "exact": {
                "groups_across_splits": len(leaks.exact),
                "groups_inside_a_split": len(leaks.exact_inside),
                "examples": _examples(leaks.exact, manifest),
                "examples_inside": _examples(leaks.exact_inside, manifest),
            },
            "near": {
                "images_across_splits": len(leaks.near_rows),
                "groups_across_splits": len(leaks.near),
                "groups_inside_a_split": len(leaks.near_inside),
                "examples": _examples(leaks.near, manifest),
                "examples_inside": _examples(leaks.near_inside, manifest),
            },
        },
        "labels": {
            "contradictions": {
                "groups": len(audit.contradictions),
                "near_groups": len(audit.near_contradictions),
                "examples": [
                    {"images": _members(rows, manifest, labels=True)}
                    for rows in (*audit.contradictions, *audit.near_contradictions)[:EXAMPLES]
                ],
            },
            "missing_classes": [asdict(count) for count in audit.lacking],
            "few_patients": {
                "fewer_than": FEWEST_PATIENTS,
                "examples": [asdict(count) for count in audit.few],
            },
        },
        "shortcuts": {
            "probes": [asdict(probe) for probe in audit.shortcuts],
            "not_made": audit.no_shortcuts,
        },
        "quality": {
            "counts": dict(sorted(Counter(odd.kind for odd in audit.oddities).items())),
            "examples": [
                {"path": manifest.ids[odd.row], "kind": odd.kind, "detail": odd.detail}
                for odd in audit.oddities[:EXAMPLES]
            ],
        },
    }


def audit_lines(audit: Audit, manifest: Manifest) -> list[str]:
    """The audit for a person, one finding each, of a line or more; what is wrong first."""
    return [
        *leak_lines(audit.leaks, manifest.with_splits(audit.splits)),
        *label_lines(audit, manifest),
        *_shortcut_lines(audit),
        *_quality_lines(audit, manifest),
    ]


def audit_verdict(audit: Audit, manifest: Manifest) -> str:
    """What the audit comes to, in one line."""
    leaks = audit.leaks
    exactly = {group.rows for group in leaks.exact}
    counts = (
        (len(leaks.patients), "patient"),
        (len(leaks.exact), "picture"),
        (sum(group.rows not in exactly for group in leaks.near), "group of near copies"),
    )
    torn = [_many(count, what) for count, what in counts if count > 0]
    if torn:
        return f"NOT FIT FOR TESTING: {', '.join(torn)} in more than one split"
    unseen = unseen_words(audit, manifest)
    if unseen:
        return f"no leak found, but {'; '.join(unseen)}"
    return "no leak found; cropped, mirrored or inverted copies are not searched for"


def unseen_words(audit: Audit, manifest: Manifest) -> list[str]:
    """What could not be looked at."""
    unseen = []
    if not manifest.patients_known:
        unseen.append("patients are unknown")
    if audit.no_shortcuts:
        unseen.append(f"shortcuts were not looked for ({audit.no_shortcuts})")
    return unseen


def leak_lines(leaks: Leaks, manifest: Manifest) -> list[str]:
    """What stands in more than one split with the worst groups, then what repeats inside one.

    Args:
        leaks: What was found.
        manifest: With the splits that were looked at.
    """
    found = []
    if leaks.patients:
        n_later = len(_later(leaks.patients, leaks.later))
        found.append(
            f"LEAK: {_many(len(leaks.patients), 'patient')} in more than one split "
            f"({_many(n_later, 'image')} of a later split)" + _worst(leaks.patients, manifest)
        )
    if leaks.exact:
        found.append(
            f"LEAK: {_many(len(leaks.exact), 'picture')} in more than one split, exactly"
            + _worst(leaks.exact, manifest)
        )
    exactly = {group.rows for group in leaks.exact}
    nearly = [group for group in leaks.near if group.rows not in exactly]
    if nearly:
        n_images = sum(len(group.rows) for group in nearly)
        found.append(
            f"LEAK: {_many(n_images, 'image')} in {_many(len(nearly), 'group')} of near copies in "
            "more than one split: re-encoded, resized or re-windowed" + _worst(nearly, manifest)
        )
    if not leaks.across:
        found.append(_no_leak(manifest))
    inside = ((len(leaks.exact_inside), "exact"), (len(leaks.near_inside), "near"))
    said = [_many(count, f"group of {kind} copies") for count, kind in inside if count]
    if said:
        found.append(f"inside one split: {' and '.join(said)}")
    return found


def _no_leak(manifest: Manifest) -> str:
    if not any(manifest.splits):
        return "leaks: the data bring no splits; training keeps patients and copies together"
    if not manifest.patients_known:
        return "leaks: none among pictures; patients are unknown, so theirs cannot be seen"
    return "leaks: none between splits"


def label_lines(audit: Audit, manifest: Manifest) -> list[str]:
    """Contradicting labels, lacking classes and few patients, one finding each."""
    found = [
        f"LABELS: {_many(len(groups), 'group')} of {what} under two labels"
        + _worst([Group("", rows) for rows in groups], manifest, labels=True)
        for groups, what in (
            (audit.contradictions, "the same pixels"),
            (audit.near_contradictions, "near copies"),
        )
        if groups
    ]
    for count in audit.lacking:
        name = printable(count.name)
        found.append(f"LABELS: the {_split(count.split)} images hold no {name} one")
    for count in audit.few:
        who = "patient" if manifest.patients_known else "image"
        said = "" if manifest.patients_known else " (patients are unknown)"
        found.append(
            f"labels: only {_many(count.patients, f'{printable(count.name)} {who}')}{said} in "
            f"{_split(count.split)}, fewer than {FEWEST_PATIENTS}: figures on them say little"
        )
    return found


def _shortcut_lines(audit: Audit) -> list[str]:
    if audit.no_shortcuts:
        return [f"shortcuts: not looked for, {audit.no_shortcuts}"]
    loud = audit.loud_shortcuts
    shown = [p for p in audit.shortcuts if p.ci_low is not None and p.ci_low > CHANCE]
    lines = [f"{'SHORTCUT' if p in loud else p.kind}: {in_words(p)}" for p in shown]
    rest = [p.name for p in audit.shortcuts if p.auroc is not None and p not in shown]
    if rest:
        lines.append(f"no better than chance: {', '.join(map(printable, rest))}")
    if loud:
        lines.append(
            "  a model may learn this instead of the disease: judge it on films of another source"
        )
    return lines


def odd_lines(audit: Audit) -> list[str]:
    """What else a person should know before training: loud shortcuts, and how many odd images."""
    lines = [f"SHORTCUT: {in_words(probe)}" for probe in audit.loud_shortcuts]
    counts = Counter(odd.kind for odd in audit.oddities)
    if counts:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        lines.append(f"odd images: {kinds}; see data/audit.html in the run folder")
    return lines


def _quality_lines(audit: Audit, manifest: Manifest) -> list[str]:
    if not audit.oddities:
        return ["quality: no odd image"]
    lines = []
    for kind, meaning in KINDS.items():
        odd = [o for o in audit.oddities if o.kind == kind]
        if kind == "unreadable":
            lines += _unreadable_lines(odd, manifest)
        elif odd:
            names = ", ".join(printable(manifest.ids[o.row]) for o in odd[:3])
            more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
            lines.append(f"quality: {len(odd)} {kind} ({meaning}): {names}{more}")
    return lines


def _unreadable_lines(odd: Sequence[Oddity], manifest: Manifest) -> list[str]:
    """A line for each reason, with what to do, the most frequent first."""
    by_reason: dict[str, list[int]] = {}
    for one in odd:
        by_reason.setdefault(one.detail, []).append(one.row)
    ordered = sorted(by_reason.items(), key=lambda pair: -len(pair[1]))
    return [
        f"quality: {len(rows)} unreadable ({detail}): "
        + ", ".join(printable(manifest.ids[row]) for row in rows[:3])
        + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
        for detail, rows in ordered
    ]


def _worst(groups: Sequence[Group], manifest: Manifest, labels: bool = False) -> str:
    """The first groups, each on a line of its own below what is said of them."""
    lines = [f"\n  {_group_text(group, manifest, labels)}" for group in groups[:SHOWN]]
    more = f"\n  ... and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
    return "".join(lines) + more


def _group_text(group: Group, manifest: Manifest, labels: bool) -> str:
    """A group by its members, one of each split or label before any second one."""
    said = manifest.classes if labels else manifest.splits
    seen: Counter[str] = Counter()
    turn = {}
    for row in group.rows:
        turn[row] = seen[said[row]]
        seen[said[row]] += 1
    first = sorted(group.rows, key=lambda row: (turn[row], row))[:MEMBERS_SHOWN]
    names = ", ".join(
        f"{printable(manifest.ids[row])} ({printable(said[row]) or 'no split'})"
        for row in sorted(first)
    )
    more = f" and {len(group.rows) - len(first)} more" if len(group.rows) > len(first) else ""
    return f"{printable(group.key)}: {names}{more}" if group.key else f"{names}{more}"


def _examples(groups: Sequence[Group], manifest: Manifest) -> list[dict[str, Any]]:
    return [{"images": _members(group.rows, manifest)} for group in groups[:EXAMPLES]]


def _members(rows: Sequence[int], manifest: Manifest, labels: bool = False) -> list[dict[str, Any]]:
    return [
        {"path": manifest.ids[row], "split": manifest.splits[row]}
        | ({"label": manifest.classes[row]} if labels else {})
        for row in rows[:EXAMPLES]
    ]


def _later(groups: Sequence[Group], later: Sequence[int]) -> list[int]:
    inside = {row for group in groups for row in group.rows}
    return [row for row in later if row in inside]


def _many(count: int, what: str) -> str:
    if count != 1:
        what = what.replace("group of", "groups of") if "group of" in what else f"{what}s"
    return f"{count:,} {what}"


def _split(name: str) -> str:
    return name or "unassigned"
