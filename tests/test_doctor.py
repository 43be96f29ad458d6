"""The doctor, shown healthy and broken installations by an importer of the test's own."""

import json
import re
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from xray_classifier import __version__, doctor
from xray_classifier.doctor_text import CODEC_TITLES, render

NMS = RuntimeError("operator torchvision::nms does not exist")
PYPROJECT = tomllib.loads(
    (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
)


def fake_torch(gpus: tuple[str, ...] = (), mps: bool = False, warning: str | None = None) -> Any:
    """As much of PyTorch as the doctor looks at."""

    def is_available() -> bool:
        if warning is not None:
            import warnings

            warnings.warn(warning, UserWarning, stacklevel=1)
        return bool(gpus)

    return SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=is_available,
            device_count=lambda: len(gpus),
            get_device_name=lambda index: gpus[index],
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        get_num_threads=lambda: 2,
        version=SimpleNamespace(cuda="13.2"),
    )


def importer_of(torch_stub: Any = None, **failures: Exception) -> doctor.Importer:
    """An importer to which every library is a stub, but for those that fail."""

    def importer(name: str) -> ModuleType:
        if name in failures:
            raise failures[name]
        if name == "torch":
            return torch_stub or fake_torch()  # type: ignore[no-any-return]
        if name == "PIL.features":
            return SimpleNamespace(check=lambda codec: codec != "webp")  # type: ignore[return-value]
        return ModuleType(name)

    return importer


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions as pip would report them; a test may take one out or change it."""
    extras = [library for adds in doctor.EXTRAS.values() for library in adds]
    known = dict.fromkeys([*doctor.MODULES, *extras], "1.0")

    def version(name: str) -> str:
        if name not in known:
            raise PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr("importlib.metadata.version", version)
    return known


def report(diagnosis: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code and text of a run that finds this diagnosis."""
    said: list[str] = []
    monkeypatch.setattr(doctor, "diagnose", lambda: diagnosis)
    return doctor.run_doctor(say=said.append), "\n".join(said)


def test_the_libraries_are_those_that_the_package_requires() -> None:
    requirements = PYPROJECT["project"]["dependencies"]
    assert [re.split(r"[<>=]", line)[0] for line in requirements] == list(doctor.MODULES)


def test_the_extras_are_those_that_the_package_offers() -> None:
    offered = PYPROJECT["project"]["optional-dependencies"]
    adds = {name: [re.split(r"[<>=]", line)[0] for line in offered[name]] for name in offered}
    del adds["dev"]
    assert adds == {name: list(libraries) for name, libraries in doctor.EXTRAS.items()}


def test_every_codec_has_a_title() -> None:
    assert set(CODEC_TITLES) == set(doctor.CODECS)


def test_this_installation_is_well() -> None:
    diagnosis = doctor.diagnose()
    assert diagnosis["problems"] == []
    assert diagnosis["package"] == __version__
    assert all(library["version"] for library in diagnosis["libraries"].values())
    assert diagnosis["torch"]["devices"][0] == "cpu"
    assert diagnosis["cache"]["writable"] is True
    assert diagnosis["cache"]["free_bytes"] > 0


def test_looking_makes_no_cache_folder(tmp_path: Path) -> None:
    diagnosis = doctor.diagnose(importer_of())
    assert diagnosis["cache"]["folder"] == str(tmp_path / "cache" / "xray_classifier")
    assert list(tmp_path.iterdir()) == []


def test_builds_that_do_not_fit_together_are_named_and_mended_together(
    versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions |= {"torch": "2.15.0+cpu", "torchvision": "0.29.2"}
    diagnosis = doctor.diagnose(importer_of(torchvision=NMS))
    assert len(diagnosis["problems"]) == 1
    exit_code, text = report(diagnosis, monkeypatch)
    assert exit_code == 2
    assert "do not fit together (torch 2.15.0+cpu, torchvision 0.29.2)" in " ".join(text.split())
    assert "operator torchvision::nms does not exist" in " ".join(text.split())
    both = "pip install --force-reinstall torch torchvision"
    commands = [line.strip() for line in text.splitlines() if line.strip().startswith("pip")]
    assert commands[-2:] == [both, f"{both} --index-url https://download.pytorch.org/whl/cpu"]
    problems = text[text.index("Problems") :].splitlines()
    others = [line for line in problems if line.strip() not in commands]
    assert max(map(len, others)) <= 80


@pytest.mark.parametrize(
    "failure",
    [
        NMS,
        ImportError("libtorch.so: undefined symbol"),
        OSError("[WinError 126] The specified module could not be found"),
        AttributeError("partially initialized module 'torchvision' has no attribute 'extension'"),
    ],
)
def test_each_way_in_which_torchvision_fails_is_one_problem(
    failure: Exception, versions: dict[str, str]
) -> None:
    problems = doctor.diagnose(importer_of(torchvision=failure))["problems"]
    assert len(problems) == 1
    assert str(failure) in problems[0]["what"]
    assert "torch torchvision" in problems[0]["fix"]


def test_a_broken_torch_is_one_problem_and_hides_the_devices(
    versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ImportError("libcudart.so.13: cannot open shared object file")
    diagnosis = doctor.diagnose(importer_of(torch=broken, torchvision=broken))
    assert diagnosis["torch"] is None
    assert len(diagnosis["problems"]) == 1
    exit_code, text = report(diagnosis, monkeypatch)
    assert exit_code == 2
    assert "libcudart.so.13" in text
    assert "unknown: PyTorch" in text


@pytest.mark.parametrize("name", [name for name in doctor.MODULES if "torch" not in name])
def test_a_missing_library_is_named_with_the_line_that_installs_it(
    name: str, versions: dict[str, str]
) -> None:
    del versions[name]
    module = doctor.MODULES[name]
    diagnosis = doctor.diagnose(importer_of(**{module: ModuleNotFoundError(module)}))
    assert diagnosis["problems"] == [{"what": f"{name} is missing", "fix": f"pip install {name}"}]
    assert diagnosis["libraries"][name]["version"] is None


def test_a_library_that_is_there_but_broken_is_reinstalled(versions: dict[str, str]) -> None:
    failure = ValueError("numpy.dtype size changed,\nmay indicate binary incompatibility")
    (problem,) = doctor.diagnose(importer_of(pandas=failure))["problems"]
    assert "numpy.dtype size changed, may indicate" in problem["what"]
    assert problem["fix"] == "pip install --force-reinstall pandas"


def test_several_problems_are_all_reported(
    versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    diagnosis = doctor.diagnose(
        importer_of(torchvision=NMS, gdcm=ImportError("x"), PIL=ImportError("y"))
    )
    assert diagnosis["pillow"] is None
    _, text = report(diagnosis, monkeypatch)
    assert [line[:4] for line in text.splitlines() if re.match(r"  \d\. ", line)] == [
        "  1.",
        "  2.",
        "  3.",
    ]


def test_a_bug_in_an_import_is_not_swallowed() -> None:
    with pytest.raises(KeyError):
        doctor.diagnose(importer_of(pandas=KeyError("ours")))


def test_devices_are_listed(versions: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    torch = fake_torch(gpus=("NVIDIA H100", "NVIDIA T4"), mps=True)
    diagnosis = doctor.diagnose(importer_of(torch))
    assert diagnosis["torch"] == {
        "threads": 2,
        "cuda_build": "13.2",
        "devices": ["cpu", "cuda:0 (NVIDIA H100)", "cuda:1 (NVIDIA T4)", "mps"],
    }
    assert "cuda:1 (NVIDIA T4)" in report(diagnosis, monkeypatch)[1]


def test_an_old_driver_is_a_note_and_no_problem(
    versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = fake_torch(warning="CUDA initialization: The NVIDIA driver\nis too old")
    exit_code, text = report(doctor.diagnose(importer_of(torch)), monkeypatch)
    assert exit_code == 0
    assert "CUDA initialization: The NVIDIA driver is too old" in text


def test_codecs_and_extras_are_listed(
    versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_pyarrow = doctor.diagnose(importer_of())
    assert re.search(r"parquet +installed", render(with_pyarrow))
    del versions["pyarrow"]
    exit_code, text = report(doctor.diagnose(importer_of()), monkeypatch)
    assert exit_code == 0
    assert re.search(r"WebP +no", text)
    assert re.search(r"TIFF +yes", text)
    assert re.search(r"parquet +missing: pip install 'xray-classifier\[parquet\]'", text)


HEALTHY: dict[str, Any] = {
    "package": "0.1.0",
    "python": "3.13.0",
    "platform": "Linux",
    "cpu_count": 2,
    "libraries": {"torch": {"version": "2.15.0", "error": None}},
    "torch": {"threads": 2, "cuda_build": None, "devices": ["cpu"]},
    "pillow": {"webp": True},
    "extras": {},
    "cache": {"folder": "/c", "writable": True, "free_bytes": 5e9},
    "problems": [],
    "notes": [],
}


def test_a_cache_that_cannot_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    diagnosis = doctor.diagnose(importer_of())
    exit_code, text = report(diagnosis, monkeypatch)
    assert exit_code == 2
    assert "XDG_CACHE_HOME" in text
    assert "data.cache=DIR" in text


def test_the_text_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    exit_code, text = report(HEALTHY, monkeypatch)
    assert exit_code == 0
    assert text.endswith("All is well.")
    assert "CPU only" in text
    assert max(map(len, text.splitlines())) <= 80


def test_json_is_the_whole_diagnosis(
    versions: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    diagnosis = doctor.diagnose(importer_of(torchvision=NMS))
    monkeypatch.setattr(doctor, "diagnose", lambda: diagnosis)
    said: list[str] = []
    assert doctor.run_doctor(as_json=True, say=said.append) == 2
    assert json.loads("".join(said)) == diagnosis
