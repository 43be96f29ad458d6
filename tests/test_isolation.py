"""Decoding in disposable processes: same films, one row per fault, nobody left behind."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import REAL, dicom, written
from faulty_worker import CANARY
from PIL import Image

from xray_classifier.data.boundary import REASONS
from xray_classifier.data.decode import read_film
from xray_classifier.data.isolation import DecodingPool
from xray_classifier.data.isolation_process import import_paths, worker_command
from xray_classifier.data.signature import Decoded, prepared
from xray_classifier.errors import DecodeError

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc of Linux")

SETTINGS = {"size": 16, "crop": "pad", "intensity": "equalize", "for_processing": "reject"}
MIB = 2**20
FAULTY = [sys.executable, "-P", str(Path(__file__).with_name("faulty_worker.py")), *import_paths()]


def film(path: Path, seed: int = 0) -> Path:
    """A small PNG of noise, of its own for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (24, 20), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    return path


def films(folder: Path, *names: str) -> list[Path]:
    """Decodable films of these names; faulty_worker knows some of them."""
    return [film(folder / name, seed) for seed, name in enumerate(names)]


def in_process(path: Path, settings: dict[str, Any] = SETTINGS) -> Decoded:
    """What `Classifier.attempt` makes of a file."""
    try:
        shown = read_film(path, settings["for_processing"])
        return prepared(shown, settings["size"], settings["crop"], settings["intensity"])
    except DecodeError as error:
        return error


def told(result: Decoded) -> tuple[str, bytes, bytes]:
    """Everything about a result, to be compared: reason and detail, or pixels and signature."""
    if isinstance(result, DecodeError):
        return result.reason, result.detail.encode(), b""
    return str(result.pixels.shape), result.pixels.tobytes(), result.signature.tobytes()


def reasons(results: list[Decoded]) -> list[str]:
    """The reason of each result; `` for a film."""
    return [result.reason if isinstance(result, DecodeError) else "" for result in results]


def faulty(workers: int = 1, **limits: Any) -> DecodingPool:
    """A pool whose workers break on the names that faulty_worker knows."""
    return DecodingPool(SETTINGS, workers, program=FAULTY, **limits)


def alive(pids: list[int]) -> list[int]:
    """Which processes of these run; zombies do not."""

    def runs(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return False
        return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")

    return [pid for pid in pids if runs(pid)]


def children(pid: int) -> list[int]:
    """Processes that a process has started, by any of its threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def wait_until(met: Any, seconds: float = 20.0) -> bool:
    """Whether a condition becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if met():
            return True
        time.sleep(0.02)
    return bool(met())


# ---- the same answers ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Paths of every kind: films, damaged films, and what is no film or no file."""
    folder = tmp_path_factory.mktemp("zoo")
    grey = np.random.default_rng(5).integers(0, 4096, (40, 30)).astype(np.uint16)
    kinds = [film(folder / f"film{seed}.png", seed) for seed in range(6)]
    kinds.append(folder / "deep.tif")
    Image.fromarray(grey).save(kinds[-1])
    kinds.append(folder / "colour.jpg")
    Image.fromarray(np.stack([grey >> 4] * 3, -1).astype(np.uint8)).save(kinds[-1])
    kinds.append(written(folder / "film.dcm", dicom(PatientID="12345")))
    raw = dicom(PresentationIntentType="FOR PROCESSING")
    kinds.append(written(folder / "raw.dcm", raw))
    for name, content in {
        "cut.png": kinds[0].read_bytes()[:200],
        "cut.jpg": kinds[7].read_bytes()[:150],
        "cut.dcm": kinds[8].read_bytes()[:600],
        "head.png": b"\x89PNG\r\n\x1a\n",
        "text.png": b"not a film",
        "empty.png": b"",
        "blank.pgm": b"P5 4 4 255\n" + bytes(16),
        "bomb.pgm": b"P5 99999 99999 255\n" + bytes(16),
        "line\nbreak = 1,'\".png": kinds[0].read_bytes(),
    }.items():
        kinds.append(folder / name)
        kinds[-1].write_bytes(content)
    (folder / "folder").mkdir()
    kinds += [folder / "folder", folder / "gone.png", folder / "film0.png" / "below"]
    kinds += [Path("gone.png"), Path("null\0byte"), Path("lone\ud800surrogate"), Path("x" * 5000)]
    kinds += [Path(os.devnull), Path("y" * 100_000), kinds[0]]
    if os.name == "posix":
        os.mkfifo(folder / "pipe.png")
        (folder / "loop.png").symlink_to("loop.png")
        closed = film(folder / "closed.png")
        closed.chmod(0)
        odd = Path(os.fsdecode(bytes(folder) + b"/\xff\xfe.png"))
        kinds += [folder / "pipe.png", folder / "loop.png", closed, film(odd), Path("/dev/zero")]
    yield kinds
    (folder / "closed.png").chmod(0o600) if os.name == "posix" else None


def test_every_kind_of_input_gives_what_it_gives_without_processes(zoo: list[Path]) -> None:
    expected = [told(in_process(path)) for path in zoo]
    with DecodingPool(SETTINGS, 2) as pool:
        assert [told(result) for result in pool.decoded(zoo)] == expected
    assert len({reason for reason, _, _ in expected}) > 9  # the zoo is no monoculture


@pytest.mark.skipif(not REAL.is_dir(), reason="the real DICOM films are not here")
def test_real_dicom_films_come_out_bit_by_bit_and_without_a_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    files = sorted(REAL.glob("*.dcm"), key=lambda path: path.stat().st_size)[:5]
    with DecodingPool(SETTINGS, 2) as pool:
        found = [told(result) for result in pool.decoded(files)]
    heard = capfd.readouterr()
    assert heard.out + heard.err == ""
    assert found == [told(in_process(path)) for path in files]


@pytest.mark.parametrize("crop", ["center", "stretch"])
def test_settings_reach_the_workers(tmp_path: Path, crop: str) -> None:
    raw = written(tmp_path / "raw.dcm", dicom(PresentationIntentType="FOR PROCESSING"))
    settings = {"size": 9, "crop": crop, "intensity": "minmax", "for_processing": "accept"}
    with DecodingPool(settings | {"other": None}, 1) as pool:
        (found,) = pool.decoded([raw])
    assert told(found) == told(in_process(raw, settings))
    assert reasons([found]) == [""]


def test_raw_data_are_refused_where_the_settings_do_not_speak_of_them(tmp_path: Path) -> None:
    raw = written(tmp_path / "raw.dcm", dicom(PresentationIntentType="FOR PROCESSING"))
    settings = {key: SETTINGS[key] for key in ("size", "crop", "intensity")}
    with DecodingPool(settings, 1) as pool:
        assert reasons(list(pool.decoded([raw]))) == ["for_processing"]


def test_pixels_may_be_changed_by_their_owner(tmp_path: Path) -> None:
    with DecodingPool(SETTINGS, 1) as pool:
        (found,) = pool.decoded([film(tmp_path / "a.png")])
    assert not isinstance(found, DecodeError)
    found.pixels[:] = 0
    assert not found.pixels.any()
    assert found.signature["rows"] == 24


def test_an_endless_list_is_read_a_bounded_number_ahead(tmp_path: Path) -> None:
    files = films(tmp_path, "a.png", "b.png", "c.png")
    taken = itertools.count()

    def endless() -> Iterator[Path]:
        for path in itertools.cycle(files):
            next(taken)
            yield path

    with DecodingPool(SETTINGS, 2) as pool, closing(pool.decoded(endless())) as results:
        found = [told(next(results)) for _ in range(200)]
    assert found == [told(in_process(files[place % 3])) for place in range(200)]
    assert next(taken) <= 200 + 2 * 32


def test_a_list_that_was_left_does_not_hold_up_the_next(tmp_path: Path) -> None:
    files = films(tmp_path, "a.png", "b.png")
    with DecodingPool(SETTINGS, 1) as pool:
        with closing(pool.decoded(itertools.repeat(files[0]))) as results:
            next(results)
        assert [told(r) for r in pool.decoded(files)] == [told(in_process(p)) for p in files]


def test_a_relative_path_means_what_it_means_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(tmp_path / "a.png")
    with DecodingPool(SETTINGS, 1) as pool:
        assert reasons(list(pool.decoded([Path("a.png")]))) == ["not_found"]
        monkeypatch.chdir(tmp_path)
        assert reasons(list(pool.decoded([Path("a.png")]))) == [""]


def test_no_worker_is_started_for_nothing() -> None:
    before = children(os.getpid()) if sys.platform == "linux" else []  # of other tests
    with DecodingPool(SETTINGS, 4) as pool:
        assert list(pool.decoded([])) == []
        if sys.platform == "linux":
            assert children(os.getpid()) == before


@linux
def test_one_file_takes_one_worker(tmp_path: Path) -> None:
    before = set(children(os.getpid()))  # of other tests
    with DecodingPool(SETTINGS, 4) as pool:
        list(pool.decoded([film(tmp_path / "a.png")]))
        assert len(set(children(os.getpid())) - before) == 1


def test_a_closed_pool_says_so(tmp_path: Path) -> None:
    pool = DecodingPool(SETTINGS, 1)
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        list(pool.decoded([tmp_path]))


def test_a_worker_needs_no_heavy_library(tmp_path: Path) -> None:
    code = "import sys, xray_classifier.data.isolation_worker; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded & {"torch", "pandas", "matplotlib", "sklearn", "scipy", "pydantic"} == set()


def test_modules_beside_the_films_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "PIL", "struct", "xray_classifier"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('run from the data')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with DecodingPool(SETTINGS, 1) as pool:
        assert reasons(list(pool.decoded([film(tmp_path / "a.png")]))) == [""]


# ---- faults ----------------------------------------------------------------------------------

FAULTS = [
    ("segfault", "decoder_crashed"),
    ("abort", "decoder_crashed"),
    ("leave", "decoder_crashed"),
    ("mutter", "decoder_crashed"),
    ("babble", "decoder_crashed"),
    ("terminate", "decoder_memory"),
    ("killed", "decoder_memory"),
    ("loop", "decoder_timeout"),
    ("hang", "decoder_timeout"),
    ("hog", "decoder_memory"),
]


@linux
def test_each_fault_costs_its_own_row_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [f"{fault}-{place}.png" for place, (fault, _) in enumerate(FAULTS)]
    good = [f"good{place}.png" for place in range(len(FAULTS) + 1)]
    files = films(tmp_path, *itertools.chain(*zip(good, names, strict=False)), good[-1])
    with faulty(2, cpu_s=0.3, wall_s=1.0) as pool:
        results = list(pool.decoded(files))
    heard = capfd.readouterr()
    expected = itertools.chain(*zip([""] * len(FAULTS), [r for _, r in FAULTS], strict=True), [""])
    assert reasons(results) == list(expected)
    assert set(reasons(results)) <= {"", *REASONS}
    whole = [told(in_process(path)) for path in files[::2]]
    assert [told(result) for result in results[::2]] == whole
    details = "".join(r.detail for r in results if isinstance(r, DecodeError))
    assert CANARY.decode() not in heard.out + heard.err + details
    assert heard.out + heard.err == ""


@posix
def test_the_pool_heals_from_twenty_crashes_in_a_row(tmp_path: Path) -> None:
    names = [f"abort-{place}.png" for place in range(20)]
    files = films(tmp_path, "first.png", *names, "last.png")
    with faulty(2) as pool:
        results = list(pool.decoded(files))
        again = list(pool.decoded([files[0]]))
    assert reasons(results) == ["", *["decoder_crashed"] * 20, ""]
    assert told(results[-1]) == told(in_process(files[-1]))
    assert told(again[0]) == told(in_process(files[0]))


@posix
def test_a_file_that_crashes_once_is_tried_again(tmp_path: Path) -> None:
    files = films(tmp_path, "a.png", "once-b.png", "c.png")
    with faulty() as pool:
        results = [told(result) for result in pool.decoded(files)]
    assert results == [told(in_process(path)) for path in files]
    assert (tmp_path / "seen").exists()


@posix
def test_what_decoders_write_is_counted_and_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with faulty() as pool:
        results = list(pool.decoded(films(tmp_path, "noise-a.png", "b.png", "noise-c.png")))
    heard = capfd.readouterr()
    assert reasons(results) == ["", "", ""]
    assert heard.out + heard.err == ""
    assert pool.stderr_bytes == 2 * 2 * 20_000 * len(CANARY)


@posix
def test_signals_to_the_whole_job_are_no_crash(tmp_path: Path) -> None:
    with faulty() as pool:
        assert reasons(list(pool.decoded(films(tmp_path, "signals-a.png", "b.png")))) == ["", ""]


@linux
def test_what_a_library_keeps_is_not_charged_to_the_next_film(tmp_path: Path) -> None:
    leaks = films(tmp_path, *(f"leak-{place}.png" for place in range(8)))
    with faulty(memory_bytes=160 * MIB) as pool:  # eight leaks of 40 MiB are twice as much
        results = list(pool.decoded(leaks))
        assert [told(r) for r in results] == [told(in_process(path)) for path in leaks]
    with faulty(memory_bytes=30 * MIB) as pool:
        assert reasons(list(pool.decoded([*leaks[:2], film(tmp_path / "a.png")]))) == [
            "decoder_memory",
            "decoder_memory",
            "",
        ]


@linux
def test_a_film_beyond_the_limit_on_memory_is_no_damaged_file(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.fromarray(np.arange(5000 * 5000, dtype=np.uint8).reshape(5000, 5000)).save(large, "PNG")
    with DecodingPool(SETTINGS, 1, memory_bytes=20 * MIB) as pool:
        assert reasons(list(pool.decoded([large, film(tmp_path / "a.png")]))) == [
            "decoder_memory",
            "",
        ]


@posix
def test_no_limits_are_no_limits(tmp_path: Path) -> None:
    with faulty(memory_bytes=None, cpu_s=None, wall_s=None) as pool:
        assert reasons(list(pool.decoded(films(tmp_path, "leak-a.png", "b.png")))) == ["", ""]


@posix
def test_a_broken_installation_is_told_as_such(tmp_path: Path) -> None:
    with faulty() as pool, pytest.raises(ImportError, match="codec"):
        list(pool.decoded(films(tmp_path, "a.png", "missing-b.png", "c.png")))


@pytest.mark.parametrize(
    "program",
    [
        [sys.executable, "-c", "import sys; sys.exit('no library')"],
        [sys.executable, "-c", "print('not a frame')"],
        ["/no/such/python"],
    ],
)
def test_workers_that_cannot_be_started_end_the_work(tmp_path: Path, program: list[str]) -> None:
    with (
        DecodingPool(SETTINGS, 1, program=program) as pool,
        pytest.raises(RuntimeError, match="cannot be started"),
    ):
        list(pool.decoded([film(tmp_path / "a.png")]))


# ---- nobody left behind ----------------------------------------------------------------------


@linux
@pytest.mark.parametrize("fault", ["hang", "loop", "a"])
def test_leaving_ends_the_workers_whatever_they_do(tmp_path: Path, fault: str) -> None:
    files = films(tmp_path, f"{fault}-a.png", f"{fault}-b.png")
    before = set(children(os.getpid()))  # of other tests
    with faulty(2) as pool:
        results = pool.decoded(itertools.cycle(files))
        outcome: list[object] = []

        def wait() -> None:
            try:
                outcome.extend(results)
            except (CancelledError, RuntimeError) as error:
                outcome.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert wait_until(lambda: len(set(children(os.getpid())) - before) == 2)
    waiting.join(20)
    assert set(children(os.getpid())) <= before
    assert isinstance(outcome[-1], (CancelledError, RuntimeError))


JOB = """
import sys
from pathlib import Path
import test_isolation as tests
from xray_classifier.signals import leave_on_signals

with leave_on_signals(), tests.faulty(2) as pool:
    for result in pool.decoded(sorted(Path(sys.argv[1]).glob("*.png"))):
        print("one", flush=True)
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("fault", ["hang", "loop"])
def test_no_worker_outlives_its_parent(tmp_path: Path, number: int, fault: str) -> None:
    films(tmp_path, "a.png", *(f"b{place}.png" for place in range(3)))
    films(tmp_path, f"{fault}-c.png", f"{fault}-d.png")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent)])}
    job = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(JOB), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=Path(__file__).parents[1],
    )
    with job:
        assert job.stdout is not None
        assert [job.stdout.readline() for _ in range(4)] == [b"one\n"] * 4
        workers = children(job.pid)
        job.send_signal(number)
        assert job.wait(20) != 0
        assert len(workers) == 2
        assert wait_until(lambda: not alive(workers))
        assert job.stderr is not None
        heard = job.stderr.read()
    assert heard.count(b"Traceback") == (0 if number == signal.SIGKILL else 1)  # its own
    assert b"faulty_worker" not in heard


@linux
def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.chdir(place)
    with faulty() as pool:
        results = list(pool.decoded(films(tmp_path, "segfault-a.png", "b.png")))
        assert list(place.iterdir()) == []
    assert reasons(results) == ["decoder_crashed", ""]
    assert list(place.iterdir()) == []


def test_it_works_from_a_program_without_a_file(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys, threading
        from pathlib import Path
        from xray_classifier.data.isolation import DecodingPool
        def work():
            with DecodingPool({"size": 4, "crop": "pad", "intensity": "minmax"}, 2) as pool:
                print([type(r).__name__ for r in pool.decoded([Path(sys.argv[1])] * 3)])
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """
    )
    path = film(tmp_path / "a.png")
    command = [sys.executable, "-c", code, str(path)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60)
    assert (done.stdout, done.stderr) == ("['Prepared', 'Prepared', 'Prepared']\n", "")


def test_the_command_names_this_package_once_and_no_folder_of_the_user() -> None:
    paths = worker_command()[4:]
    assert paths.count(str(Path(__file__).resolve().parents[1])) == 1
    assert "" not in paths
