"""What tells the classes apart without anatomy: built shortcuts must show, and nothing else."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from tiny_runs import SHARED_DATA

from xray_classifier.data.decode import read_film
from xray_classifier.data.film import Film, film_from_array
from xray_classifier.data.patients import patients_of
from xray_classifier.data.phantoms import draw_phantom
from xray_classifier.data.probe_features import (
    aspect_features,
    border_features,
    column_features,
    compression_features,
    one_hot,
    size_features,
    thumbnail_features,
)
from xray_classifier.data.probes import (
    SUBJECTS,
    ProbeResult,
    in_words,
    shortcut_probes,
    worst_shortcuts,
)
from xray_classifier.data.signature import CONTAINERS, MODES, SIGNATURE, signature_of
from xray_classifier.errors import DecodeError

FULL_SIZE = SHARED_DATA / "kermany_fullres"


def signatures(n: int, seed: int = 0) -> np.ndarray:
    """Records of images alike in all but the picture, which is noise."""
    records = np.zeros(n, SIGNATURE)
    records["rows"], records["columns"], records["bits"] = 1024, 1024, 8
    records["file_bytes"] = 300_000
    records["mode"], records["container"] = MODES.index("L"), CONTAINERS.index("PNG")
    records["thumb"] = np.random.default_rng(seed).integers(0, 256, (n, 32, 32))
    return records


def halves(n: int = 200) -> tuple[np.ndarray, list[str]]:
    """Every second image sick, each of a patient of its own."""
    return np.arange(n) % 2, [f"p{i}" for i in range(n)]


def probed(records: np.ndarray, columns: dict[str, list[str]] | None = None, **other):
    """Results by name."""
    labels, groups = halves(len(records))
    arguments = {"labels": labels, "groups": groups, "columns": columns or {}} | other
    return {result.name: result for result in shortcut_probes(records, **arguments)}


def test_images_alike_in_everything_have_no_variation():
    found = probed(signatures(60))
    for name in ("size", "aspect", "compression", "mode", "bits", "container", "scanner"):
        assert found[name].auroc is None
        assert found[name].note == "no variation"
    assert found["acquisition"].note == "no variation"
    assert "acquisition_and_border" not in found
    assert found["border"].auroc is not None
    assert found["thumbnail"].kind == "baseline"


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("mode", "mode", [MODES.index("L"), MODES.index("RGB")]),
        ("bits", "bits", [8, 12]),
        ("container", "container", [CONTAINERS.index("PNG"), CONTAINERS.index("DICOM")]),
        ("scanner", "scanner", [[1] * 8, [2] * 8]),
        ("size", "rows", [1024, 2048]),
        ("aspect", "columns", [1024, 1500]),
        ("compression", "file_bytes", [300_000, 500_000]),
    ],
)
def test_what_goes_with_the_class_predicts_it(name, field, values):
    records = signatures(200)
    labels, _ = halves(200)
    records[field] = np.array(values)[labels]
    found = probed(records)
    assert found[name].auroc == 1.0
    assert found[name].method == "extreme_auroc"
    assert found[name].ci_low == pytest.approx(0.025 ** (1 / 100))
    assert found["acquisition"].auroc == 1.0
    assert found["acquisition_and_border"].auroc > 0.95


def test_a_size_between_two_others_shows_too():
    records = signatures(300)
    labels, _ = halves(300)
    others = np.where(np.arange(300) % 4 < 2, 1024, 3072)
    records["rows"] = records["columns"] = np.where(labels == 1, 2048, others)
    assert probed(records)["size"].auroc == 1.0


def test_a_shortcut_that_does_not_always_hold_gets_its_hand_computed_auroc():
    records = signatures(400)
    labels, _ = halves(400)
    rgb = (labels == 1) & (np.arange(400) < 200)
    records["mode"] = np.where(rgb, MODES.index("RGB"), MODES.index("L"))
    result = probed(records)["mode"]
    assert result.auroc == pytest.approx(0.75, abs=0.01)  # half of the sick beat all, half tie
    assert result.ci_low > 0.7
    assert result.ci_high < 0.8


def test_noise_leaves_one_half_in_most_intervals():
    held = []
    for seed in range(40):
        records = signatures(200, seed)
        rng = np.random.default_rng(seed)
        records["rows"] = rng.integers(500, 3000, 200)
        records["mode"] = rng.integers(1, 4, 200)
        found = probed(records, {"age": [str(age) for age in rng.integers(1, 90, 200)]})
        for name in ("size", "mode", "border", "acquisition_and_border", "age", "thumbnail"):
            assert abs(found[name].auroc - 0.5) < 0.25
            held.append(found[name].ci_low <= 0.5 <= found[name].ci_high)
    assert np.mean(held) > 0.75


def test_what_goes_with_the_patient_alone_does_not_predict():
    owners = np.repeat(np.arange(60), 5)
    labels = np.random.default_rng(0).permutation(np.arange(60) % 2)[owners]
    ward = [f"ward {owner}" for owner in owners]
    by_patient = probed(
        signatures(300), {"ward": ward}, labels=labels, groups=[f"p{owner}" for owner in owners]
    )["ward"]
    by_image = probed(
        signatures(300), {"ward": ward}, labels=labels, groups=[f"p{i}" for i in range(300)]
    )["ward"]
    assert by_patient.auroc == pytest.approx(0.5, abs=0.05)
    assert by_image.auroc > 0.55
    assert by_image.ci_low > 0.5


def test_one_class_says_why_there_is_nothing_to_judge():
    records = signatures(50)
    records["bits"][::2] = 12
    result = probed(records, labels=np.ones(50, int))["bits"]
    assert result.auroc is None
    assert "0 patients with healthy images" in result.note
    assert shortcut_probes(records[:0], np.zeros(0, int), (), {}) == ()


def test_the_same_seed_gives_the_same_results():
    records = signatures(100)
    labels, groups = halves(100)
    one = shortcut_probes(records, labels, groups, {}, seed=3)
    assert one == shortcut_probes(records, labels, groups, {}, seed=3)
    assert one != shortcut_probes(records, labels, groups, {}, seed=4)


def test_a_column_of_another_length_is_refused():
    with pytest.raises(ValueError, match="sex: 3 rows for 100 images"):
        probed(signatures(100), {"sex": ["M", "F", "M"]})


# Columns of a CSV.


def test_names_and_running_numbers_are_left_out_and_said_so():
    columns = {
        "file": [f"{i}.png" for i in range(60)],
        "row": [str(i) for i in range(60)],
        "dose": [f"{i}.25" for i in range(60)],
    }
    found = probed(signatures(60), columns)
    for name in ("file", "row"):
        assert found[name].auroc is None
        assert found[name].note == "left out: every row has a value of its own"
    assert found["dose"].auroc is not None
    assert list(found)[-3:] == ["file", "row", "dose"]


def test_missing_cells_predict_where_they_go_with_the_class():
    labels, _ = halves(200)
    ages = np.random.default_rng(0).integers(20, 90, 200)
    gone = ["" if sick else str(age) for sick, age in zip(labels, ages, strict=True)]
    assert probed(signatures(200), {"age": gone})["age"].auroc == 1.0


def test_missing_cells_do_not_stand_for_a_number():
    cells = ["10", " ", "20", "NaN", "1e3", "n/a"] * 20
    features = column_features(cells)
    absent = np.array([0, 1, 0, 1, 0, 1] * 20)
    assert (features[:, 2] == absent).all()
    ranks = features[:, 0]
    assert ranks[absent == 1] == pytest.approx(ranks[absent == 0].mean())
    assert ranks[0] < ranks[2] < ranks[4]


def test_one_absurd_age_does_not_hide_the_others():
    labels, _ = halves(200)
    ages = 40 + 10 * labels + np.random.default_rng(0).integers(0, 12, 200)
    ages[0] = 10**6  # a healthy one
    area = roc_auc_score(labels, np.where(ages > 1000, 0, ages))
    found = probed(signatures(200), {"age": [str(age) for age in ages]})["age"]
    assert found.auroc == pytest.approx(area, abs=0.03)
    assert found.auroc > 0.9


def test_ages_at_either_end_show():
    labels, _ = halves(400)
    rng = np.random.default_rng(0)
    middle, ends = rng.integers(30, 60, 400), rng.choice([5, 7, 9, 80, 84, 88], 400)
    ages = np.where(labels == 1, ends, middle)
    assert probed(signatures(400), {"age": [str(age) for age in ages]})["age"].auroc > 0.99


def test_codes_of_sites_are_no_amounts():
    labels, _ = halves(300)
    site = 2 * np.random.default_rng(0).integers(1, 5, 300) + labels  # the sick at odd ones
    assert probed(signatures(300), {"site": [str(s) for s in site]})["site"].auroc == 1.0


def test_texts_become_their_most_frequent_values():
    features = column_features(["AP"] * 5 + ["PA"] * 3 + ["LL"])
    assert features.tolist() == [[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 3 + [[0.0, 0.0]]
    many = one_hot(np.repeat(np.arange(30), 3), 16)
    assert many.shape == (90, 16)
    assert many.sum() == 16 * 3


def test_empty_columns_have_no_variation():
    found = probed(signatures(40), {"comment": [""] * 40, "site": ["7"] * 40})
    assert found["comment"].note == found["site"].note == "no variation"
    assert found["comment"].auroc is None


# Features of a signature.


def test_the_border_shows_the_ring_and_not_the_centre():
    records = signatures(20)
    before = border_features(records)
    assert before.shape == (20, 112)
    records["thumb"][:, 4:-4, 4:-4] = 255
    assert (border_features(records) == before).all()
    records["thumb"][:, 0, 0] ^= 128
    assert (border_features(records) != before).any(axis=1).all()


def test_the_border_holds_midranks_of_the_ring_averaged_over_blocks():
    records = signatures(3)
    records["thumb"] //= 64  # many ties
    ring = np.ones((32, 32), bool)
    ring[4:-4, 4:-4] = False
    for thumb, row in zip(records["thumb"], border_features(records), strict=True):
        ranks = np.zeros((32, 32))
        ranks[ring] = rankdata(thumb[ring])
        means = ranks.reshape(16, 2, 16, 2).mean(axis=(1, 3))
        assert row == pytest.approx(means[ring[::2, ::2]])


def test_the_border_does_not_tell_how_bright_the_centre_is():
    """Ranks of the whole film: where the lungs turn white, a grey border falls behind them."""
    rng = np.random.default_rng(0)
    films = rng.random((2, 32, 32)) * 0.2 + np.linspace(0.2, 0.8, 32)
    films[1] = films[0]
    films[1, 8:24, 8:24] = 0.9
    records = np.concatenate([signature_of(Film(f.astype(np.float32), 1.0)) for f in films])
    ring = np.ones((32, 32), bool)
    ring[4:-4, 4:-4] = False
    naive = np.abs(np.diff(records["thumb"][:, ring].astype(int), axis=0)).max()
    assert naive > 20  # of 255: what the ring of the thumbnail itself would give away
    one, other = border_features(records)
    assert np.abs(one - other).max() < 0.02 * 448


def test_features_have_their_hand_computed_values():
    records = signatures(3)
    records["rows"], records["columns"] = [100, 100, 200], [100, 200, 100]
    records["file_bytes"] = [20_000, 0, 5_000]
    assert aspect_features(records)[:, 0] == pytest.approx([0, np.log(2), -np.log(2)])
    bytes_per_pixel = compression_features(records)
    expected = np.log([2, 2**-0.5, 0.25])  # the one without a file gets the mean of the logs
    assert bytes_per_pixel[:, 0] == pytest.approx(expected)
    assert bytes_per_pixel[:, 2].tolist() == [0, 1, 0]
    assert size_features(records)[:, :2] == pytest.approx(
        np.log([[100, 100], [100, 200], [200, 100]])
    )
    blocks = records["thumb"][0].astype(float).reshape(8, 4, 8, 4)
    assert thumbnail_features(records)[0] == pytest.approx(blocks.mean(axis=(1, 3)).ravel())


# What is said.

RESULT = ProbeResult("size", "acquisition", 0.932, 0.886, 0.961, 206, "delong", "")


def test_results_are_said_in_words():
    said = "image size alone predicts the label with AUROC 0.93 (0.89 to 0.96)"
    assert in_words(RESULT) == said
    weak = replace(RESULT, auroc=0.52, ci_low=0.45, ci_high=0.59)
    said = "image size alone does not predict the label: AUROC 0.52 (0.45 to 0.59)"
    assert in_words(weak) == said
    same = replace(RESULT, auroc=None, ci_low=None, ci_high=None, note="no variation")
    assert in_words(same) == "image size: no variation"
    column = replace(RESULT, name="size\n", kind="covariate")
    assert in_words(column).startswith(r"column 'size\n' alone predicts")


def test_every_probe_has_words():
    records = signatures(40)
    records["bits"][::2] = 12
    assert set(probed(records)) == set(SUBJECTS)


def test_a_probe_near_the_model_is_named_worst_first():
    higher = replace(RESULT, name="mode", auroc=0.95, ci_low=0.91, ci_high=0.97)
    column = replace(RESULT, name="age", kind="covariate")
    constant = replace(RESULT, auroc=None, ci_low=None, ci_high=None)
    results = [RESULT, column, constant, higher]
    assert worst_shortcuts(results, 0.97) == (higher, RESULT)  # 0.932 >= 0.97 - 0.05
    assert worst_shortcuts(results, 0.985) == (higher,)
    assert worst_shortcuts(results, 0.999, 0.99, margin=0.01) == ()
    assert worst_shortcuts(results, 0.999, 0.965, margin=0.01) == (
        higher,
    )  # its 0.97 reaches 0.965


def test_a_probe_no_better_than_chance_is_near_no_model():
    chance = replace(RESULT, auroc=0.53, ci_low=0.44, ci_high=0.62)
    assert worst_shortcuts([chance], 0.55, 0.45) == ()
    assert worst_shortcuts([replace(chance, ci_low=0.51)], 0.55, 0.45) != ()


def test_probing_imports_nothing_slow():
    code = """
import sys
import numpy as np
from xray_classifier.data.probes import shortcut_probes
from xray_classifier.data.signature import SIGNATURE
records = np.zeros(40, SIGNATURE)
records["rows"], records["columns"] = np.arange(1, 41), 7
results = shortcut_probes(records, np.arange(40) % 2, [str(i) for i in range(40)], {})
print(results[0].auroc is not None, *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ran, *modules = done.stdout.split()
    assert ran == "True"
    assert not {"sklearn", "scipy", "pandas", "torch"} & set(modules)


# Real and synthetic films.


def test_phantoms_have_no_shortcut():
    phantoms = [draw_phantom(0, index) for index in range(400)]
    records = np.concatenate([signature_of(film_from_array(p.pixels)) for p in phantoms])
    labels = np.array([p.label for p in phantoms])
    found = probed(records, labels=labels, groups=[p.patient for p in phantoms])
    acquisition = [result for result in found.values() if result.kind == "acquisition"]
    shown = {result.name for result in acquisition if result.auroc is not None}
    assert shown == {"border"}
    assert found["border"].auroc < 0.62
    assert found["thumbnail"].ci_low > 0.65  # they do have anatomy


@pytest.mark.skipif(not FULL_SIZE.is_dir(), reason="no real radiographs in ../shared/data")
def test_the_shortcuts_of_full_size_kermany_films_show():
    names, records = [], []
    for path in sorted(FULL_SIZE.glob("*/*")):
        try:
            records.append(signature_of(read_film(path), Path(path).stat().st_size))
        except DecodeError:
            continue
        names.append(path.relative_to(FULL_SIZE).as_posix())
    found_records = np.concatenate(records)
    labels = np.array([int(name.startswith("PNEUMONIA")) for name in names])
    found = probed(found_records, labels=labels, groups=patients_of(names, "auto").keys)
    assert found["size"].ci_low > 0.85
    assert found["aspect"].ci_low > 0.7
    assert found["mode"].ci_low > 0.5
    rgb = found_records["mode"] == MODES.index("RGB")
    assert not rgb[labels == 0].any()
    expected = 0.5 + 0.5 * rgb[labels == 1].mean()
    assert found["mode"].auroc == pytest.approx(expected, abs=0.005)
    near = [result.name for result in worst_shortcuts(found.values(), 0.97)]
    assert "size" in near
    assert "mode" not in near
