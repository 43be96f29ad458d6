"""The doctor's findings as text for a terminal."""

import textwrap
from typing import Any

WIDTH = 80
"""Columns of the report; lines to paste are never broken."""

CODEC_TITLES = {"libjpeg_turbo": "JPEG (libjpeg-turbo)", "webp": "WebP", "libtiff": "TIFF"}


def render(diagnosis: dict[str, Any]) -> str:
    """The report as text for a terminal, problems last.

    Args:
        diagnosis: What `doctor.diagnose` returned, with `resume` where that was verified.

    Returns:
        Lines without a final newline.
    """
    blocks = [
        [
            f"xray_classifier {diagnosis['package']}, Python {diagnosis['python']}, "
            f"{diagnosis['cpu_count']} CPUs",
            diagnosis["platform"],
        ],
        ["Libraries", *(_library_line(*item) for item in diagnosis["libraries"].items())],
        ["Devices", *_device_lines(diagnosis["torch"])],
        ["Images", *_codec_lines(diagnosis["pillow"])],
        ["Extras", *(_extra_line(*item) for item in diagnosis["extras"].items())],
        ["Cache", _cache_line(diagnosis["cache"])],
    ]
    if "resume" in diagnosis:
        blocks.append(["Resume", *_resume_lines(diagnosis["resume"])])
    if diagnosis["notes"]:
        blocks.append(["Notes", *(f"  {note}" for note in diagnosis["notes"])])
    blocks.append(_problem_lines(diagnosis["problems"]))
    return "\n\n".join("\n".join(block) for block in blocks)


def _library_line(name: str, library: dict[str, str | None]) -> str:
    state = library["version"] or "missing"
    return f"  {name:<14} {state}{'  (cannot be imported)' if library['error'] else ''}"


def _device_lines(hardware: dict[str, Any] | None) -> list[str]:
    if hardware is None:
        return ["  unknown: PyTorch cannot be imported"]
    build = f"CUDA {hardware['cuda_build']}" if hardware["cuda_build"] else "CPU only"
    return [
        *(f"  {device}" for device in hardware["devices"]),
        f"  {hardware['threads']} threads, build of PyTorch: {build}",
    ]


def _codec_lines(codecs: dict[str, bool] | None) -> list[str]:
    if codecs is None:
        return ["  unknown: Pillow cannot be imported"]
    return [
        f"  {CODEC_TITLES[codec]:<20} {'yes' if there else 'no'}" for codec, there in codecs.items()
    ]


def _extra_line(name: str, extra: dict[str, Any]) -> str:
    return f"  {name:<14} {'installed' if extra['installed'] else 'missing: ' + extra['install']}"


def _cache_line(cache: dict[str, Any]) -> str:
    if cache["folder"] is None:
        return "  unknown"
    if not cache["writable"]:
        return f"  {cache['folder']} (cannot be written)"
    return f"  {cache['folder']} ({cache['free_bytes'] / 1e9:.1f} GB free)"


def _resume_lines(proof: dict[str, Any]) -> list[str]:
    lines = [
        f"  a run of {proof['steps']} steps on {proof['device']} with {proof['threads']} threads, "
        f"in {proof['elapsed_s']:.0f} s",
        f"  {'not stopped':<26} SHA-256 of all tensors {proof['sha256'][:16]}",
    ]
    for comparison in proof["comparisons"]:
        stops, differing = comparison["stops"], comparison["differing"]
        when = (
            f"stopped after step {stops[0]}" if len(stops) == 1 else f"stopped {len(stops)} times"
        )
        said = "equal" if not differing else f"{len(differing)} tensors DIFFER: {differing[0]}"
        lines.append(f"  {when:<26} {comparison['sha256'][:16]}  {said}")
    if not proof["holds"]:
        lines += textwrap.wrap(
            "A resumed run does not end like an unbroken one on this machine. Please report this "
            "with the output of `xray-classifier doctor --verify-resume --json`.",
            width=WIDTH,
            initial_indent="  ",
            subsequent_indent="  ",
        )
    return lines


def _problem_lines(problems: list[dict[str, str]]) -> list[str]:
    if not problems:
        return ["All is well."]
    lines = ["Problems"]
    for number, problem in enumerate(problems, start=1):
        lines += textwrap.wrap(
            f"{number}. {problem['what']}",
            width=WIDTH,
            initial_indent="  ",
            subsequent_indent="     ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += [f"     {line}" for line in ("What to do:", *problem["fix"].splitlines())]
    return lines
