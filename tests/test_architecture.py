"""How the package hangs together: floors, forbidden calls, light imports, docstrings."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "xray_classifier"

FLOORS = {
    8: ["__init__", "__main__"],
    7: ["cli", "api"],
    6: [
        "training",
        "evaluation",
        "prediction",
        "prediction_facts",
        "prediction_options",
        "prediction_output",
        "checking",
        "comparing",
        "explaining",
        "exporting",
        "repeated",
        "doctor",
        "starting",
        "verify_resume",
        "planning",
        "rate_finding",
        "reporting",
        "sizing",
        "tour",
    ],
    5: [
        "step_losses",
        "tracking",
        "tensorboard_tracker",
        "lesson.descent_chapters",
        "lesson.experiment",
        "lesson.final_chapter",
        "lesson.first_chapters",
        "lesson.lecture",
        "lesson.picture_chapters",
        "lesson.stack_chapters",
        "answers",
        "audit_files",
        "baseline",
        "baseline_comparison",
        "coverage",
        "details",
        "details_words",
        "error_films",
        "extras",
        "gated",
        "judgement_words",
        "building",
        "callbacks",
        "classifier",
        "comparison_sources",
        "ensemble",
        "familiarity",
        "fast_decoding",
        "gating",
        "inference",
        "row_store",
        "scoring",
        "prediction_table",
        "studies",
        "judgement",
        "lesson.attribution",
        "lesson.bowl",
        "lesson.brief_training",
        "lesson.parting",
        "lesson.rate_sweep",
        "lesson.rates",
        "lesson.training_parts",
        "lesson.loss_parts",
        "lesson.map_scores",
        "lesson.picture_parts",
        "lesson.neurons",
        "lesson.flow",
        "lesson.landscape",
        "lesson.recording",
        "lesson.subject",
        "judgement_files",
        "judgement_table",
        "members",
        "occlusion",
        "onnx_export",
        "records",
        "regrouping",
        "report_content",
        "report_figures",
        "report_sections",
        "resume",
        "run_extras",
        "run_curves",
        "saving",
        "stress_test",
        "pending",
        "trainer",
        "checklists",
        "fact_words",
        "judged_data",
        "model_card",
        "result_words",
        "run_facts",
    ],
    4: ["data.dataset", "data.ahead", "data.loading", "lesson.by_hand_chapters"],
    3: [
        "data.audit",
        "data.audit_words",
        "data.cache",
        "data.cache_build",
        "data.cache_entry",
        "data.content",
        "data.dicom_identity",
        "data.inputs",
        "data.isolation",
        "data.isolation_lane",
        "data.isolation_process",
        "data.isolation_worker",
        "data.preparing",
        "gate",
        "memory",
        "robustness",
        "report.audit_page",
        "report.bowl_figure",
        "report.canvas",
        "report.colour_scale",
        "report.flow_figure",
        "report.landscape_figure",
        "report.training_figures",
        "report.lesson_page",
        "report.decision_figures",
        "report.error_gallery",
        "report.evidence_figure",
        "report.film_grid",
        "report.neuron_figure",
        "report.figures",
        "report.film_sheet",
        "report.flow_diagram",
        "report.interval_bar",
        "report.key_numbers",
        "report.loss_figure",
        "report.loss_frame",
        "report.metric_words",
        "report.numbers_behind",
        "report.outcome_figures",
        "report.page",
        "report.overlay",
        "report.probability_figures",
        "report.ranking_figures",
        "report.subgroup_plot",
        "report.templates",
        "report.threshold_tool",
        "report.stress_figure",
        "report.words",
        "report.formulas",
        "report.lines_figure",
        "report.mathml",
        "report.number_grid",
        "report.tour_page",
        "report.weight_sheet",
        "table_one",
    ],
    2: [
        "data.augment",
        "data.boundary",
        "data.decode",
        "data.dicom",
        "data.dicom_codestream",
        "data.dicom_header",
        "data.dicom_mask",
        "data.dicom_pixels",
        "data.film",
        "data.film_views",
        "data.dicom_scope",
        "data.folds",
        "data.intensity",
        "data.labels",
        "data.leaks",
        "data.manifest",
        "data.neighbours",
        "data.npz",
        "data.patients",
        "data.phantom_anatomy",
        "data.phantom_body",
        "data.phantom_bones",
        "data.phantom_lesions",
        "data.phantom_film",
        "data.phantom_leak",
        "data.phantom_paths",
        "data.phantom_workers",
        "data.phantoms",
        "data.probe_features",
        "data.probes",
        "data.quality",
        "data.signature",
        "data.sources",
        "data.splits",
        "data.stress",
        "data.survey",
        "data.table",
        "data.tree",
        "checkpoint",
        "lesson.by_hand",
    ],
    1: [
        "arguments",
        "bootstrap",
        "calibration",
        "calibration_measures",
        "clustered_auroc",
        "compared_images",
        "company",
        "comparison",
        "comparison_files",
        "comparison_words",
        "config",
        "config_errors",
        "config_file",
        "config_keys",
        "config_text",
        "confusion",
        "counter",
        "dense",
        "cross_validation",
        "curves",
        "devices",
        "discrimination",
        "distributed",
        "doctor_text",
        "ema",
        "estimate_words",
        "estimates",
        "patient_level",
        "process_settings",
        "requirements",
        "subgroups",
        "files",
        "fingerprints",
        "history",
        "intervals",
        "logistic",
        "losses",
        "mahalanobis",
        "mcnemar",
        "medmnist",
        "metrics",
        "mixer",
        "model",
        "operating_estimates",
        "net_benefit",
        "operating_points",
        "optimizers",
        "policies",
        "refer",
        "prevalence",
        "pseudonyms",
        "resampled_metrics",
        "run_folder",
        "locks",
        "sample_size",
        "signals",
        "strict_yaml",
        "terminal",
        "weighted",
        "analysis_plan",
        "checklist_items",
        "looks",
        "markdown",
    ],
    0: ["errors", "data.__init__", "lesson.__init__", "report.__init__"],
}
"""Floor of each module; one may import from floors below its own, or from its own floor."""

FLOOR_OF = {module: floor for floor, modules in FLOORS.items() for module in modules}

CONSTANTS_FOR_ALL = {"__version__"}
"""Names of the package itself that any floor may read."""

MAY_PRINT = {"arguments", "cli", "terminal", "callbacks", "doctor"}

MAY_CATCH_EVERYTHING = {"cli", "data.boundary"}
"""The command line ends in one message; any failure of a third-party decoder is a reason code."""

POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {"fork", "geteuid", "getuid", "mkfifo", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK"}
    | {"O_CLOEXEC", "killpg", "setsid", "sched_getaffinity", "uname"},
    "signal": {"SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "SIGUSR2"}
    | {"pthread_sigmask", "setitimer", "sigwait"},
    "time": {"tzset", "clock_gettime"},
}

HEAVY = {"matplotlib", "numpy", "pandas", "PIL", "pydantic", "pydicom", "sklearn", "torch"}
HEAVY |= {"scipy", "torchvision"}

BANNED_IMPORTS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "_pickle"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED_ATTRIBUTES = {
    "torch": {"load"},
    "yaml": {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"},
    "os": {"system", "popen"},
}
BANNED_METHODS = {"read_pickle", "to_pickle"}


def path_of(module: str) -> Path:
    """The file of a module named as in FLOORS."""
    return ROOT / PACKAGE / (module.replace(".", "/") + ".py")


MODULES = sorted(
    ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
    for path in (ROOT / PACKAGE).rglob("*.py")
)


@cache
def tree_of(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    """True for `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run, those for the type checker left out."""
    yield node
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and is_type_checking(node):
        children = node.orelse
    for child in children:
        yield from running_nodes(child)


def nodes_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported, unless a `try` or an `if` guards it."""
    yield node
    for name, value in ast.iter_fields(node):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and name == "body":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, (ast.If, ast.Try)):
                yield from nodes_at_import(child)


def imports_of(module: str, tree: ast.AST) -> set[str]:
    """The modules of this package that a module imports, at the top or inside a function."""
    here = [PACKAGE, *module.split(".")]
    found = set()
    for node in running_nodes(tree):
        if isinstance(node, ast.Import):
            targets: list[tuple[str, str | None]] = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*here[: -node.level], *([node.module] if node.module else [])])
            targets = [(base, alias.name) for alias in node.names]
        else:
            continue
        for base, name in targets:
            if base.split(".")[0] == PACKAGE:
                found.add(imported_module(base, name))
    return found - {""}


def imported_module(base: str, name: str | None) -> str:
    """The module meant by `from base import name` or `import base`; "" for a constant for all."""
    inside = base.removeprefix(PACKAGE).removeprefix(".")
    if name is not None:
        candidate = f"{inside}.{name}".removeprefix(".")
        if candidate in MODULES:
            return candidate
        if not inside and name in CONSTANTS_FOR_ALL:
            return ""
    return inside if inside in MODULES else f"{inside}.__init__".removeprefix(".")


def cycles_in(graph: dict[str, set[str]]) -> list[list[str]]:
    """One cycle for each edge that closes one; empty if the graph has none."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            found.append([*trail[trail.index(module) :], module])
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, [*trail, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


GRAPH = {module: imports_of(module, tree_of(module)) for module in MODULES}


def test_every_module_stands_on_a_floor() -> None:
    unlisted = [module for module in MODULES if module not in FLOOR_OF]
    assert not unlisted, f"give {', '.join(unlisted)} a floor in FLOORS of {__file__}"


@pytest.mark.parametrize("module", [name for name in MODULES if name in FLOOR_OF])
def test_no_module_imports_from_a_floor_above(module: str) -> None:
    upward = [
        f"{module} (floor {FLOOR_OF[module]}) imports {target} (floor {FLOOR_OF[target]})"
        for target in sorted(GRAPH[module] & FLOOR_OF.keys())
        if FLOOR_OF[target] > FLOOR_OF[module]
    ]
    assert not upward, "; ".join(upward)


def test_no_two_modules_need_each_other() -> None:
    assert cycles_in(GRAPH) == []


def test_every_subpackage_travels_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packaged = set(settings["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob("__init__.py")}
    assert {".".join(folder.parts) for folder in folders} | {f"{PACKAGE}.configs"} == packaged


@pytest.mark.parametrize("module", MODULES)
def test_nothing_executes_from_data(module: str) -> None:
    assert forbidden_in(tree_of(module)) == []


def forbidden_in(tree: ast.AST) -> list[str]:
    """What the package must not use, as `line: code`."""
    return [
        f"line {getattr(node, 'lineno', '?')}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if is_forbidden(node)
    ]


def is_forbidden(node: ast.AST) -> bool:
    """True for code that unpickles, or runs text as code."""
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in BANNED_IMPORTS for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        source = (node.module or "").split(".")[0]
        named = {alias.name for alias in node.names}
        return source in BANNED_IMPORTS or bool(named & BANNED_ATTRIBUTES.get(source, set()))
    if isinstance(node, ast.Attribute):
        owner = ast.unparse(node.value)
        return node.attr in BANNED_METHODS | BANNED_ATTRIBUTES.get(owner, set())
    if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
        return not (isinstance(node.value, ast.Constant) and node.value.value is False)
    return isinstance(node, ast.Name) and node.id in BANNED_CALLS


@pytest.mark.parametrize("module", [name for name in MODULES if name not in MAY_PRINT])
def test_only_a_few_modules_print(module: str) -> None:
    calls = [
        node.lineno
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert calls == [], f"{module} prints in lines {calls}"


@pytest.mark.parametrize("module", [name for name in MODULES if name not in MAY_CATCH_EVERYTHING])
def test_only_two_modules_catch_every_exception(module: str) -> None:
    handlers = [
        node.lineno
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) == "Exception")
    ]
    assert handlers == [], f"{module} catches everything in lines {handlers}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_posix_only_at_import(module: str) -> None:
    assert posix_only_in(tree_of(module)) == []


def posix_only_in(tree: ast.Module) -> list[str]:
    """What would fail on Windows when a module is imported."""
    found = []
    for node in nodes_at_import(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in POSIX_MODULES]
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            names = {alias.name for alias in node.names} & POSIX_NAMES.get(source, set())
            found += [source] * (source in POSIX_MODULES) + [f"{source}.{name}" for name in names]
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if node.attr in POSIX_NAMES.get(owner, set()):
                found.append(f"{owner}.{node.attr}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_public_things_have_a_docstring(module: str) -> None:
    assert undocumented_in(tree_of(module)) == []


def undocumented_in(tree: ast.Module) -> list[str]:
    """Public functions, classes and methods (overriding ones aside) without a docstring."""
    found = [] if ast.get_docstring(tree) else ["the module itself"]
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            found.append(node.name)
        if isinstance(node, ast.ClassDef) and not node.bases:
            found += [
                f"{node.name}.{method.name}"
                for method in node.body
                if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))
                and not method.name.startswith("_")
                and not ast.get_docstring(method)
            ]
    return found


@pytest.mark.parametrize("module", ["", ".cli", ".doctor"])
def test_importing_it_is_light(module: str, tmp_path: Path) -> None:
    code = f"import json, sys, {PACKAGE}{module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {name.split(".")[0] for name in json.loads(done.stdout)} & HEAVY == set()


@pytest.mark.parametrize(
    "module",
    [
        name
        for name in MODULES
        if re.search(r"^__all__\b", path_of(name).read_text(encoding="utf-8"), re.MULTILINE)
    ],
)
def test_every_promised_name_exists(module: str) -> None:
    imported = importlib.import_module(f"{PACKAGE}.{module}".removesuffix(".__init__"))
    missing = [name for name in imported.__all__ if not hasattr(imported, name)]
    assert missing == []


def test_the_package_offers_what_notebooks_use() -> None:
    package = importlib.import_module(PACKAGE)
    assert set(package.__all__) == {"train", "evaluate", "predict", "load_classifier"}
    assert not hasattr(package, "no_such_name")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from xray_classifier import errors", {"errors"}),
        ("import xray_classifier.errors", {"errors"}),
        ("def f():\n    from xray_classifier.data.cache import a", {"data.cache"}),
        ("from . import cache", {"data.cache"}),
        ("from .cache import a", {"data.cache"}),
        ("from ..errors import a", {"errors"}),
        ("from xray_classifier import train", {"__init__"}),
        ("from xray_classifier.data import nothing", {"data.__init__"}),
        ("from xray_classifier import __version__", set()),
        ("import xray_classifier_of_others, os", set()),
        ("if TYPE_CHECKING:\n    from xray_classifier import cache\nelse:\n    pass", set()),
        ("try:\n    import xray_classifier.files\nexcept ImportError:\n    pass", {"files"}),
    ],
)
def test_the_reader_of_imports_reads_them_all(code: str, expected: set[str]) -> None:
    assert imports_of("data.dataset", ast.parse(code)) == expected


def test_the_finder_of_cycles_finds_them() -> None:
    assert cycles_in({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert cycles_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]
    assert cycles_in({"a": {"a"}}) == [["a", "a"]]


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "from torch import load",
        "yaml.load(text, Loader=Safe)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "eval(text)",
        "exec(text)",
        "pandas.read_pickle(path)",
    ],
)
def test_the_finder_of_forbidden_code_finds_it(code: str) -> None:
    assert forbidden_in(ast.parse(code)) != []


@pytest.mark.parametrize(
    "code", ["model.eval()", "np.load(p, allow_pickle=False)", "'torch.load(x)'", "yaml.compose(t)"]
)
def test_the_finder_of_forbidden_code_spares_the_rest(code: str) -> None:
    assert forbidden_in(ast.parse(code)) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import fcntl", True),
        ("from resource import getrlimit", True),
        ("from signal import SIGKILL", True),
        ("SIGNALS = [signal.SIGHUP]", True),
        ("class A:\n    flag = os.O_NOFOLLOW", True),
        ("def f(flag=os.O_NOFOLLOW): pass", True),
        ("def f():\n    import fcntl\n    return signal.SIGKILL", False),
        ("try:\n    import fcntl\nexcept ImportError:\n    fcntl = None", False),
        ("import os, signal\nsignal.SIGINT", False),
    ],
)
def test_the_finder_of_posix_names_looks_at_import_time_only(code: str, found: bool) -> None:
    assert bool(posix_only_in(ast.parse(code))) is found


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(): pass", ["the module itself", "f"]),
        ('"""M."""\ndef _f(): pass', []),
        ('"""M."""\nclass A:\n    """A."""\n    def b(self): pass', ["A.b"]),
        ('"""M."""\nclass A(Callback):\n    """A."""\n    def on_end(self): pass', []),
    ],
)
def test_the_finder_of_missing_docstrings_finds_them(code: str, expected: list[str]) -> None:
    assert undocumented_in(ast.parse(code)) == expected
