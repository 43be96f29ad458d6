"""`check`: its exit codes, its files and its words; the manifest that --fix writes."""

import csv
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import dicom, written
from PIL import Image
from test_leaks import picture
from tiny_runs import SHARED_DATA, Program, Said, program, rows_of

__all__ = ["program"]


def save(path: Path, seed: int) -> Path:
    """Write a picture; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)
    return path


def folders(root: Path, counts: dict[str, int], first_seed: int = 0) -> Path:
    """Class folders of pictures, each another one; patients are p<number>."""
    seed = first_seed
    for name, count in counts.items():
        for _ in range(count):
            save(root / name / f"p{seed:04d}_phantom-{seed:06d}.png", seed)
            seed += 1
    return root


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """Train and test with one patient, one exact copy and one near copy in both."""
    counts = {f"{s}/{c}": 8 for s in ("train", "test") for c in ("NORMAL", "SICK")}
    root = folders(tmp_path / "leaky", counts)
    save(root / "test" / "SICK" / "p0009_phantom-000900.png", 900)
    exact = root / "train" / "SICK" / "p0010_phantom-000010.png"
    Image.open(exact).save(root / "test" / "SICK" / "p0800_phantom-000800.bmp")
    near = Image.open(root / "train" / "NORMAL" / "p0003_phantom-000003.png")
    near.resize((60, 60)).save(root / "test" / "NORMAL" / "p0801_phantom-000801.jpg")
    return root


def check(program: Program, data: Path, out: Path, *words: object) -> Said:
    """Run `check`; the cache stands beside the output."""
    return program("check", data, "-o", out, f"data.cache={out.parent / 'cache'}", *words)


def test_each_kind_of_leak_is_counted_and_ends_with_3(
    leaky: Path, tmp_path: Path, program: Program
) -> None:
    said = check(program, leaky, tmp_path / "out", "--json")
    assert said.code == said.json["exit_code"] == 3
    leaks = said.json["leaks"]
    assert leaks["patients"]["shared_across_splits"] == 1
    assert leaks["exact"]["groups_across_splits"] == 1
    assert leaks["near"]["images_across_splits"] == 4
    (patient,) = leaks["patients"]["examples"]
    assert patient["patient"] == "p0009"
    (exact,) = leaks["exact"]["examples"]
    assert [image["path"] for image in exact["images"]] == [
        "test/SICK/p0800_phantom-000800.bmp",
        "train/SICK/p0010_phantom-000010.png",
    ]
    assert {"labels", "shortcuts", "quality"} <= set(said.json)
    stored = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert stored["leaks"] == leaks
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "p0800_phantom-000800.bmp" in page


def test_words_name_the_worst_groups(leaky: Path, tmp_path: Path, program: Program) -> None:
    said = check(program, leaky, tmp_path / "out")
    assert "healthy: NORMAL; sick: SICK" in said.out
    assert "LEAK: 1 patient in more than one split (1 image of a later split)" in said.out
    assert "p0009: test/SICK/p0009_phantom-000900.png (test)" in said.out
    assert "LEAK: 1 picture in more than one split, exactly" in said.out
    assert "LEAK: 2 images in 1 group of near copies in more than one split" in said.out
    verdict = "NOT FIT FOR TESTING: 1 patient, 1 picture, 1 group of near copies in more than one"
    assert verdict in said.out
    last = said.out.splitlines()[-1]
    assert last.endswith("--fix manifest.csv")
    assert "data.cache=" in last  # what was asked for is asked for again


def test_clean_data_end_with_0(tmp_path: Path, program: Program) -> None:
    root = folders(tmp_path / "clean", {f"{s}/{c}": 8 for s in ("train", "test") for c in "ab"})
    said = check(program, root, tmp_path / "out", "data.labels={healthy: [a], sick: [b]}")
    assert said.code == 0
    assert "leaks: none between splits" in said.out


def test_an_unreadable_image_ends_with_4_and_is_named(tmp_path: Path, program: Program) -> None:
    root = folders(tmp_path / "films", {"normal": 8, "sick": 8})
    (root / "sick" / "broken.png").write_bytes(b"no image")
    said = check(program, root, tmp_path / "out", "--json")
    assert said.code == 4
    assert said.json["quality"]["counts"] == {"unreadable": 1}
    assert said.json["quality"]["examples"] == [
        {
            "path": "sick/broken.png",
            "kind": "unreadable",
            "detail": "not_an_image: this is no image in a format that can be read",
        }
    ]


def test_nothing_readable_ends_with_3(tmp_path: Path, program: Program) -> None:
    for name in ("normal/a.png", "sick/b.png"):
        (tmp_path / "films" / name).parent.mkdir(parents=True)
        (tmp_path / "films" / name).write_bytes(b"no image")
    said = check(program, tmp_path / "films", tmp_path / "out")
    assert said.code == 3
    assert "none of 2 images can be read" in said.err


def test_classes_without_a_meaning_still_show_leaks(tmp_path: Path, program: Program) -> None:
    counts = {f"{s}/{c}": 4 for s in ("train", "test") for c in ("cat1", "cat2", "cat3")}
    root = folders(tmp_path / "films", counts)
    copy = sorted((root / "train" / "cat1").iterdir())[0]
    Image.open(copy).save(root / "test" / "cat2" / "copy.bmp")
    said = check(program, root, tmp_path / "out", "--json")
    assert said.code == 3
    assert said.json["leaks"]["exact"]["groups_across_splits"] == 1
    assert said.json["shortcuts"]["probes"] == []
    assert "not known" in said.json["shortcuts"]["not_made"]
    assert "which class is sick is not known: cat1, cat2, cat3" in said.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("check",), 2, "check needs DATA"),
        (("check", "nowhere"), 2, "nowhere does not exist"),
        (("check", "films", "data.labls=1"), 2, "data.labls"),
        (("check", "films", "--fixx", "a"), 2, "--fix"),
        (("check", "films", "-o", "run"), 6, "run folder"),
        (("check", "films", "--fix", "there.csv"), 6, "there.csv exists"),
        (("check", "films", "-o", "there.csv/x"), 6, "there.csv"),
    ],
)
def test_mistakes_end_in_one_message(
    words: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folders(tmp_path / "films", {"normal": 4, "sick": 4})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.csv").write_text("")
    (tmp_path / "there.csv").write_text("mine")
    said = program(*words)
    assert said.code == code
    assert message in said.err
    assert "Traceback" not in said.err
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_config_says_how_to_read_the_data(tmp_path: Path, program: Program) -> None:
    folders(tmp_path / "films", {"x": 6, "y": 6})
    (tmp_path / "my.yaml").write_text(
        "data: {path: films, labels: {healthy: [y], sick: [x]}, image: {size: 16}, cache: c}\n"
    )
    said = program("check", "-c", tmp_path / "my.yaml", "-o", tmp_path / "out", "--json")
    assert said.code == 0, said.err
    assert said.json["images"] == 12
    assert said.json["data"] == str(tmp_path / "films")


def test_odd_films_are_drawn_on_a_sheet(tmp_path: Path, program: Program) -> None:
    root = folders(tmp_path / "films", {"normal": 12, "sick": 12})
    faint = (100 + picture(50) // 64).astype(np.uint8)
    Image.fromarray(faint).save(root / "sick" / "p0099_phantom-000099.png")
    said = check(program, root, tmp_path / "out", "--json")
    assert said.code == 0
    assert said.json["quality"]["counts"] == {"almost_blank": 1}
    with Image.open(tmp_path / "out" / "odd.png") as sheet:
        assert min(sheet.size) > 200


def splits_of(manifest: Path) -> dict[str, str]:
    """Split by path."""
    return {row["path"]: row["split"] for row in rows_of(manifest)}


def test_fix_moves_whole_groups_and_nothing_else(
    leaky: Path, tmp_path: Path, program: Program
) -> None:
    fixed = tmp_path / "fixed.csv"
    said = check(program, leaky, tmp_path / "out", "--fix", fixed, "--json")
    assert said.code == 3  # DATA leaks, whatever was written
    assert (said.json["fix"]["root"], said.json["fix"]["images_moved"]) == (None, 3)
    found = splits_of(fixed)
    assert len(found) == 35
    groups = (
        ("test/SICK/p0009_phantom-000900.png", "train/SICK/p0009_phantom-000009.png"),
        ("test/SICK/p0800_phantom-000800.bmp", "train/SICK/p0010_phantom-000010.png"),
        ("test/NORMAL/p0801_phantom-000801.jpg", "train/NORMAL/p0003_phantom-000003.png"),
    )
    for one, other in groups:
        assert found.pop(f"leaky/{one}") == found.pop(f"leaky/{other}")
    assert all(path.split("/")[1] == split for path, split in found.items())
    again = check(
        program,
        fixed,
        tmp_path / "again",
        "--json",
        "data.labels={healthy: [NORMAL], sick: [SICK]}",
    )
    assert again.code == 0
    assert again.json["images"] == 35
    assert again.json["leaks"]["near"]["images_across_splits"] == 0


def test_a_fixed_manifest_elsewhere_names_its_root(
    leaky: Path, tmp_path: Path, program: Program
) -> None:
    fixed = tmp_path / "elsewhere" / "fixed.csv"
    said = check(program, leaky, tmp_path / "out", "--fix", fixed, "--json")
    assert said.json["fix"]["root"] == str(leaky)
    assert f"data.root={leaky}" in said.err
    lost = check(program, fixed, tmp_path / "lost")
    assert lost.code == 3
    again = check(program, fixed, tmp_path / "again", f"data.root={leaky}", "--json")
    assert again.code == 0, again.err
    assert again.json["images"] == 35


def test_fix_carves_splits_where_there_are_none(tmp_path: Path, program: Program) -> None:
    root = folders(tmp_path / "films", {"normal": 20, "sick": 20})
    twins = [("normal", 2), ("normal", 5), ("sick", 22), ("sick", 30)]
    for name, seed in twins:
        original = root / name / f"p{seed:04d}_phantom-{seed:06d}.png"
        Image.open(original).save(root / name / f"p{seed + 500:04d}_phantom-000001.bmp")
    fixed = tmp_path / "fixed.csv"
    said = check(program, root, tmp_path / "out", "--fix", fixed)
    assert said.code == 0
    found = splits_of(fixed)
    assert set(Counter(found.values())) == {"train", "val", "test"}
    for name, seed in twins:
        one = found[f"films/{name}/p{seed:04d}_phantom-{seed:06d}.png"]
        assert found[f"films/{name}/p{seed + 500:04d}_phantom-000001.bmp"] == one


def test_a_rejection_says_which_and_what_to_do(tmp_path: Path, program: Program) -> None:
    root = folders(tmp_path / "films", {"normal": 6, "sick": 6})
    raw = dicom(PresentationIntentType="FOR PROCESSING")
    colour = dicom(PhotometricInterpretation="RGB")
    written(root / "sick" / "raw.dcm", raw)
    written(root / "sick" / "colour.dcm", colour)
    said = check(program, root, tmp_path / "out")
    assert said.code == 4
    assert "1 unreadable (for_processing: raw detector data" in said.out
    assert "data.image.for_processing=accept" in said.out
    assert "1 unreadable (colour_dicom: a colour DICOM; save the film as grey" in said.out
    accepted = check(program, root, tmp_path / "o2", "data.image.for_processing=accept", "--json")
    assert accepted.json["unreadable"] == 1


def test_fix_of_an_npz_is_refused_in_words(tmp_path: Path, program: Program) -> None:
    images = np.stack([picture(seed, 32) for seed in range(12)])
    labels = np.arange(12) % 2
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels)
    said = check(program, tmp_path / "a.npz", tmp_path / "out", "--fix", tmp_path / "f.csv")
    assert said.code == 2
    assert "data.audit=warn" in said.err
    assert not (tmp_path / "f.csv").exists()


def test_names_that_a_spreadsheet_would_run_find_their_file_again(
    tmp_path: Path, program: Program
) -> None:
    root = folders(tmp_path / "films", {"=normal": 10, "sick": 10})
    fixed = root / "fixed.csv"
    labels = 'data.labels={healthy: ["=normal"], sick: [sick]}'
    said = check(program, root, tmp_path / "out", labels, "--fix", fixed)
    assert said.code == 0, said.err
    with fixed.open(newline="") as file:
        cells = [row["path"] for row in csv.DictReader(file)]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert all((root / cell).is_file() for cell in cells)


@pytest.mark.skipif(os.name == "nt", reason="Windows names are Unicode")
def test_names_that_are_no_utf8_cannot_be_listed(tmp_path: Path, program: Program) -> None:
    root = folders(tmp_path / "films", {"normal": 10, "sick": 10})
    Image.fromarray(picture(77)).save(root / "sick" / os.fsdecode(b"\xff.png"))
    said = check(program, root, tmp_path / "out", "--fix", tmp_path / "fixed.csv")
    assert said.code == 6
    assert "no UTF-8" in said.err
    assert not (tmp_path / "fixed.csv").exists()


def real(name: str) -> Path:
    """A real set, or a skip."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"the real set {name} is not on this machine")
    return path


def leaks_of(said: Said) -> dict[str, Any]:
    """The leak counts of a check."""
    found: dict[str, Any] = said.json["leaks"]
    return found


def test_leaky_split_has_12_exact_groups(tmp_path: Path, program: Program) -> None:
    said = check(program, real("leaky_split"), tmp_path / "out", "--json")
    assert said.code == 3
    assert leaks_of(said)["exact"]["groups_across_splits"] == 12
    fixed = tmp_path / "fixed.csv"
    assert check(program, real("leaky_split"), tmp_path / "o2", "--fix", fixed).code == 3
    words = (
        f"data.root={real('leaky_split')}",
        "data.labels={healthy: [NORMAL], sick: [PNEUMONIA]}",
    )
    again = check(program, fixed, tmp_path / "o3", "--json", *words)
    assert again.code == 0
    assert again.json["images"] == 585


def test_nih1000_shares_15_patients(tmp_path: Path, program: Program) -> None:
    said = check(program, real("nih1000"), tmp_path / "out", "--json")
    assert said.code == 3
    patients = leaks_of(said)["patients"]
    assert (patients["shared_across_splits"], patients["images_in_later_split"]) == (15, 76)
    assert len(patients["examples"]) == 15


@pytest.mark.parametrize("side_px", [224, 64])
def test_resized_copies_under_the_same_names_are_found_whole(
    side_px: int, tmp_path: Path, program: Program
) -> None:
    source = real("kermany_fullres")
    chosen = sorted(source.rglob("*.jpeg"))
    for path in chosen:
        name = path.relative_to(source)
        for split in ("train", "test"):
            (tmp_path / "films" / split / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "films" / "train" / name).write_bytes(path.read_bytes())
        small = Image.open(path).convert("L").resize((side_px, side_px))
        small.save(tmp_path / "films" / "test" / name, quality=75)
    said = check(program, tmp_path / "films", tmp_path / "out", "--json", "data.patient=null")
    assert said.code == 3
    assert leaks_of(said)["near"]["images_across_splits"] == 2 * len(chosen)
    assert leaks_of(said)["exact"]["groups_across_splits"] == 0


def test_the_shortcuts_of_kermany_fullres_are_seen(tmp_path: Path, program: Program) -> None:
    said = check(program, real("kermany_fullres"), tmp_path / "out", "--json")
    probes = {probe["name"]: probe for probe in said.json["shortcuts"]["probes"]}
    assert probes["size"]["kind"] == "acquisition"
    assert probes["size"]["ci_low"] > 0.8
    assert probes["aspect"]["ci_low"] > 0.7
    assert probes["mode"]["ci_low"] > 0.5


def test_copies_do_not_flatter_a_probe(tmp_path: Path, program: Program) -> None:
    """Noise predicts nothing; six copies of each picture must not make it look as if it did."""
    rng = np.random.default_rng(0)
    root = tmp_path / "films"
    for number in range(40):
        grey = rng.integers(0, 256, (40, 40), dtype=np.uint8)
        for copy in range(6):
            path = root / ("sick" if number % 2 else "normal") / f"{number}_{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey).save(path)
    said = check(program, root, tmp_path / "out", "--json")
    probes = {probe["name"]: probe for probe in said.json["shortcuts"]["probes"]}
    assert probes["thumbnail"]["auroc"] < 0.8


def test_a_csv_with_other_columns_is_read_as_told(tmp_path: Path, program: Program) -> None:
    root = folders(tmp_path / "films", {"a": 6, "b": 6})
    lines = ["Bild;Befund"]
    lines += [f"{p.relative_to(tmp_path)};{p.parent.name}" for p in sorted(root.rglob("*.png"))]
    table = tmp_path / "german.csv"
    table.write_text("\n".join(lines))
    said = check(program, table, tmp_path / "out")
    assert said.code == 3
    assert "The columns are: Bild, Befund" in said.err
    columns = "data.columns={path: Bild, label: Befund}"
    said = check(program, table, tmp_path / "out", columns, "--json")
    assert said.code == 0
    assert "which class is sick is not known: a, b" in said.err
    labels = "data.labels={healthy: [a], sick: [b]}"
    said = check(program, table, tmp_path / "out", columns, labels, "--json")
    assert said.json["shortcuts"]["not_made"] == ""


def test_a_manifest_that_is_no_csv_is_refused(tmp_path: Path, program: Program) -> None:
    root = folders(tmp_path / "films", {"normal": 6, "sick": 6})
    film = sorted(root.rglob("*.png"))[0]
    before = film.read_bytes()
    said = check(program, root, tmp_path / "out", "--fix", film, "--force")
    assert said.code == 2
    assert film.read_bytes() == before


def test_one_class_alone_is_said_so(tmp_path: Path, program: Program) -> None:
    said = check(program, folders(tmp_path / "films", {"normal": 3}), tmp_path / "out")
    assert said.code == 3
    assert "one class only: normal" in said.err


def test_unknown_classes_keep_their_names_and_nothing_is_guessed(
    tmp_path: Path, program: Program
) -> None:
    root = folders(tmp_path / "films", {f"{s}/{c}": 4 for s in ("train", "test") for c in "xy"})
    said = check(program, root, tmp_path / "out", "--fix", tmp_path / "f.csv")
    assert "only 4 x patients" in said.out
    assert "healthy patients" not in said.out
    assert said.out.splitlines()[-1].endswith("data.labels='{healthy: [A], sick: [B]}'")
    assert "Incomplete" in (tmp_path / "out" / "audit.html").read_text()
