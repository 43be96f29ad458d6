"""What is installed, what works, and what to type where it does not: `xray-classifier doctor`.

Imports no other library at the top, so it can speak when everything else is broken.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from xray_classifier.doctor_text import render

Importer = Callable[[str], ModuleType]

BROKEN_INSTALLATION = 2
"""Exit code of `doctor` where training or prediction cannot work; 0 where they can."""

RESUME_DIFFERS = 1
"""Exit code of `doctor --verify-resume` where a resumed run is not the unbroken one: a bug."""

MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "pillow": "PIL",
    "pandas": "pandas",
    "scikit-learn": "sklearn",
    "tqdm": "tqdm",
    "pyyaml": "yaml",
    "pydantic": "pydantic",
    "matplotlib": "matplotlib",
    "safetensors": "safetensors",
    "jinja2": "jinja2",
    "pydicom": "pydicom",
    "python-gdcm": "gdcm",
    "threadpoolctl": "threadpoolctl",
}
"""The required libraries: the name to pip install, and the name to import."""

EXTRAS = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "parquet": ("pyarrow",),
    "track": ("tensorboard",),
}
"""The optional extras, each with the libraries that it adds."""

CODECS = ("libjpeg_turbo", "webp", "libtiff")
"""Pillow's names of the codecs that a reader of a bug report asks for."""

CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# What a damaged, mismatched or half-installed library raises when it is imported: pydantic's core
# SystemError, NumPy's ABI check ValueError, torchvision RuntimeError or AttributeError.
IMPORT_FAILURES = (
    ImportError,
    OSError,
    RuntimeError,
    AttributeError,
    ValueError,
    TypeError,
    SystemError,
)


def run_doctor(
    as_json: bool = False, say: Callable[[str], object] = print, verify_resume: bool = False
) -> int:
    """Look at this installation and report on it.

    Args:
        as_json: One JSON object, for a bug report, instead of text.
        say: What takes the report.
        verify_resume: Also train a tiny run straight and with stops, and compare the two; left out
            where the installation is broken.

    Returns:
        The exit code: 0 if all is well, 2 if the installation is broken, 1 if a resumed run does
        not end like an unbroken one.
    """
    diagnosis = diagnose()
    broken = bool(diagnosis["problems"])
    if verify_resume and not broken:
        from xray_classifier import verify_resume as proving

        diagnosis["resume"] = proving.as_json(proving.verify_resume())
    say(json.dumps(diagnosis, indent=2) if as_json else render(diagnosis))
    if broken:
        return BROKEN_INSTALLATION
    return 0 if diagnosis.get("resume", {"holds": True})["holds"] else RESUME_DIFFERS


def diagnose(importer: Importer = importlib.import_module) -> dict[str, Any]:
    """Everything the report says, ready for JSON.

    Args:
        importer: What imports a module by name.

    Returns:
        `package`, `python`, `platform`, `cpu_count`, `libraries` (name to `version`, `error`),
        `torch` (`threads`, `cuda_build`, `devices`), `pillow` (codec to bool), `extras` (name to
        `installed`, `install`), `cache` (`folder`, `writable`, `free_bytes`), `problems` (each
        `what`, `fix`) and `notes` (texts). What cannot be known is None. `run_doctor` may add
        `resume`, see `verify_resume.as_json`.
    """
    from xray_classifier import __version__

    libraries = {name: _library(name, module, importer) for name, module in MODULES.items()}
    hardware, notes = _hardware(libraries, importer)
    problems = _library_problems(libraries)
    cache = _cache(may_fail=bool(problems))
    return {
        "package": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "libraries": libraries,
        "torch": hardware,
        "pillow": _codecs(libraries, importer),
        "extras": {name: _extra(name, adds) for name, adds in EXTRAS.items()},
        "cache": cache,
        "problems": problems + _cache_problems(cache),
        "notes": notes,
    }


def _library(name: str, module: str, importer: Importer) -> dict[str, str | None]:
    """Version and, if it cannot be imported, why."""
    error = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importer(module)
    except IMPORT_FAILURES as failure:
        error = _one_line(failure)
    return {"version": _version(name), "error": error}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _one_line(failure: BaseException) -> str:
    return " ".join(f"{type(failure).__name__}: {failure}".split())[:300]


def _hardware(
    libraries: dict[str, dict[str, str | None]], importer: Importer
) -> tuple[dict[str, Any] | None, list[str]]:
    """Threads and devices as PyTorch sees them, and what it warned of while it looked."""
    if libraries["torch"]["error"]:
        return None, []
    torch = importer("torch")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        devices = ["cpu"]
        if torch.cuda.is_available():
            devices += [
                f"cuda:{index} ({torch.cuda.get_device_name(index)})"
                for index in range(torch.cuda.device_count())
            ]
        if torch.backends.mps.is_available():
            devices.append("mps")
    notes = [" ".join(str(warning.message).split()) for warning in caught]
    return {
        "threads": torch.get_num_threads(),
        "cuda_build": torch.version.cuda,
        "devices": devices,
    }, notes


def _codecs(
    libraries: dict[str, dict[str, str | None]], importer: Importer
) -> dict[str, bool] | None:
    if libraries["pillow"]["error"]:
        return None
    features = importer("PIL.features")
    return {codec: bool(features.check(codec)) for codec in CODECS}


def _extra(name: str, adds: tuple[str, ...]) -> dict[str, Any]:
    return {
        "installed": all(_version(library) is not None for library in adds),
        "install": f"pip install 'xray-classifier[{name}]'",
    }


def _cache(may_fail: bool) -> dict[str, Any]:
    """Where decoded images go by default, whether that can be written, and the room there.

    Args:
        may_fail: A library is broken, so our own module that knows the folder may not import.
    """
    try:
        from xray_classifier.data.cache import default_cache_folder
    except IMPORT_FAILURES:
        if not may_fail:
            raise
        return {"folder": None, "writable": None, "free_bytes": None}
    folder = default_cache_folder()
    existing = _nearest_existing(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            writable = True
        free_bytes = shutil.disk_usage(existing).free
    except OSError:
        writable, free_bytes = False, None
    return {"folder": str(folder), "writable": writable, "free_bytes": free_bytes}


def _nearest_existing(folder: Path) -> Path:
    """The folder itself, or the closest one above it that is there."""
    return next((parent for parent in (folder, *folder.parents) if parent.exists()), Path())


def _library_problems(libraries: dict[str, dict[str, str | None]]) -> list[dict[str, str]]:
    pair = _pair_problem(libraries["torch"], libraries["torchvision"])
    problems = [] if pair is None else [pair]
    for name, library in libraries.items():
        if library["error"] is None or name in ("torch", "torchvision"):
            continue
        missing = library["version"] is None
        problems.append(
            {
                "what": f"{name} is missing"
                if missing
                else f"{name} {library['version']} cannot be imported: {library['error']}",
                "fix": f"pip install {name}"
                if missing
                else f"pip install --force-reinstall {name}",
            }
        )
    return problems


def _pair_problem(
    torch: dict[str, str | None], torchvision: dict[str, str | None]
) -> dict[str, str] | None:
    """torch and torchvision are mended together: only builds of one release and one index fit.

    A CPU-only torch beside PyPI's torchvision fails with `operator torchvision::nms does not
    exist`.
    """
    error = torch["error"] or torchvision["error"]
    if error is None:
        return None
    versions = f"torch {torch['version'] or 'missing'}, torchvision {torchvision['version']}"
    if torch["error"]:
        what = f"PyTorch cannot be imported ({versions}): {error}"
    elif torchvision["version"] is None:
        what = f"torchvision is missing ({versions.partition(',')[0]})"
    else:
        what = f"torch and torchvision are builds that do not fit together ({versions}): {error}"
    return {
        "what": what,
        "fix": "pip install --force-reinstall torch torchvision\n"
        "or, for a computer without an NVIDIA GPU,\n"
        f"pip install --force-reinstall torch torchvision --index-url {CPU_INDEX}",
    }


def _cache_problems(cache: dict[str, Any]) -> list[dict[str, str]]:
    if cache["writable"] is not False:
        return []
    return [
        {
            "what": f"the cache folder {cache['folder']} cannot be written",
            "fix": "name another one in the environment variable XDG_CACHE_HOME, "
            "or in each run with data.cache=DIR",
        }
    ]
