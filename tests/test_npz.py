"""Labelled images from one NPZ file."""

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from xray_classifier.data import npz
from xray_classifier.data.manifest import Manifest, build_manifest
from xray_classifier.data.npz import NpzImages
from xray_classifier.errors import DataError

SHARED = (Path(__file__).resolve().parents[1] / ".." / "shared" / "data").resolve()


def build(path: Path, **changes: Any) -> Manifest:
    settings: dict[str, Any] = {
        "source": "auto",
        "path": path,
        "task": "classify",
        "healthy": ("0",),
        "sick": ("1",),
        "ignore": (),
        "path_column": "path",
        "label_column": "label",
        "patient_column": None,
        "split_column": None,
        "patient": "auto",
        "phantom_images": 16,
        "phantom_seed": 0,
    }
    return build_manifest(**(settings | changes))


def pixels(n: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(n).integers(0, 256, (n, *(shape or (4, 5))), dtype=np.uint8)


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "set.npz"
    np.savez_compressed(path, **arrays)
    return path


def read_one(path: Path, image_id: str) -> NDArray[Any]:
    [image] = NpzImages(path).rows([image_id])
    return image


def test_medmnist_layout(tmp_path: Path) -> None:
    train, test = pixels(3), pixels(2)
    path = save(
        tmp_path,
        test_images=test,
        test_labels=np.array([[1], [0]], dtype=np.uint8),
        train_labels=np.array([[0], [1], [1]], dtype=np.uint8),
        train_images=train,
    )
    found = build(path)
    assert found.kind == "npz"
    assert found.root == path
    assert found.files == ()
    assert found.ids == (*(f"train_images/{n}" for n in range(3)), "test_images/0", "test_images/1")
    assert found.targets.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert found.splits == ("train", "train", "train", "test", "test")
    assert not found.patients_known
    assert "an NPZ file does not name them" in found.notes[0]
    reader = NpzImages(path)
    expected = [*train, *test]
    assert all(
        np.array_equal(read, image)
        for read, image in zip(reader.rows(found.ids), expected, strict=True)
    )


def test_images_and_labels_alone_have_no_split(tmp_path: Path) -> None:
    found = build(save(tmp_path, images=pixels(2), labels=np.array([0, 1])))
    assert found.ids == ("images/0", "images/1")
    assert found.splits == ("", "")


def test_a_colour_axis_of_one_is_dropped_and_of_three_kept(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        train_images=pixels(2, 4, 5, 1),
        train_labels=np.array([0, 1]),
        val_images=pixels(2, 4, 5, 3),
        val_labels=np.array([0, 1]),
    )
    build(path)
    assert read_one(path, "train_images/1").shape == (4, 5)
    assert read_one(path, "val_images/1").shape == (4, 5, 3)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0.0, 1.0]),
        np.array([False, True]),
        np.array(["0", "1"]),
        np.array([[0], [1]], dtype=np.int64),
    ],
)
def test_label_codes_compare_as_text(tmp_path: Path, labels: NDArray[Any]) -> None:
    found = build(save(tmp_path, images=pixels(2), labels=labels))
    assert found.classes == ("0", "1")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"train_images": pixels(2)}, "no train_labels; expected"),
        ({"x": pixels(2)}, "no images array; expected .* found x"),
        ({"images": pixels(2), "labels": np.array([0])}, "holds 2 images, but there are 1 labels"),
        ({"images": pixels(2, 4), "labels": np.array([0, 1])}, r"images has shape \(2, 4\)"),
        ({"images": pixels(2, 4, 4, 2), "labels": np.array([0, 1])}, "has shape"),
        ({"images": pixels(2, 0, 4), "labels": np.array([0, 1])}, "has shape"),
        ({"images": pixels(0), "labels": np.array([])}, "holds no images"),
        ({"images": pixels(2), "labels": np.eye(2)}, "several findings per image"),
        ({"images": pixels(2), "labels": np.array([0.5, 1])}, "no whole numbers"),
        ({"images": pixels(2), "labels": np.array([np.nan, 1])}, "no whole numbers"),
        ({"images": pixels(2), "labels": np.array([np.inf, 1])}, "cannot read"),
        ({"images": pixels(2) * 1j, "labels": np.array([0, 1])}, "are no grey levels"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, NDArray[Any]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        build(save(tmp_path, **arrays))


@pytest.mark.parametrize("key", ["images", "labels"])
def test_python_objects_are_never_unpickled(tmp_path: Path, key: str) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    arrays = {"images": pixels(1), "labels": np.array([0]), key: np.array([Bomb()], dtype=object)}
    path = save(tmp_path, **arrays)
    with pytest.raises(DataError, match="cannot read"):
        build(path)
    with pytest.raises(DataError):
        read_one(path, f"{key}/0")
    assert not (tmp_path / "executed").exists()


def test_every_cut_and_many_flips_are_errors_or_harmless(tmp_path: Path) -> None:
    whole = save(tmp_path, images=pixels(2), labels=np.array([0, 1])).read_bytes()
    broken = tmp_path / "broken.npz"
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        content = bytearray(whole[: int(rng.integers(len(whole)))] if trial % 2 else whole)
        if trial % 2 == 0:
            content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        broken.write_bytes(content)
        try:
            manifest = build(broken)
            list(NpzImages(broken).rows(manifest.ids))
        except DataError:
            refused += 1
    assert refused > 200


def test_a_header_that_promises_too_much_is_refused_before_any_memory_is_taken(
    tmp_path: Path,
) -> None:
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**4, 10**4)}
    np.lib.format.write_array_header_1_0(buffer, header)
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", buffer.getvalue())
        labels = io.BytesIO()
        np.save(labels, np.array([0]))
        archive.writestr("labels.npy", labels.getvalue())
    with pytest.raises(DataError, match="its header promises another size than it has"):
        build(path)


TYPES = ["|u1", "<u2", ">u2", "<f2", "<f4", ">f4", "<f8"]
ORDERS = {
    "all": range(40),
    "some": [0, 3, 4, 11, 38],
    "the last": [39],
    "backwards": [39, 20, 21, 0],
    "one twice": [5, 5],
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("fortran", [False, True])
def test_images_are_those_that_numpy_reads(
    save: Any, dtype: str, fortran: bool, tmp_path: Path
) -> None:
    values = np.random.default_rng(1).random((2, 40, 6, 7))
    one, other = (values * (200 if dtype[1] == "u" else 1)).astype(dtype)
    path = tmp_path / "set.npz"
    labels = np.zeros(40, np.uint8)
    save(
        path, train_images=np.asfortranarray(one) if fortran else one, train_labels=labels,
        val_images=other, val_labels=labels,
    )  # fmt: skip
    with np.load(path) as whole:
        arrays = {key: whole[key] for key in ("train_images", "val_images")}
    for rows in ORDERS.values():
        ids = [f"{key}/{row}" for row in rows for key in arrays]
        read = list(NpzImages(path).rows(ids))
        assert len(read) == len(ids)
        for image_id, image in zip(ids, read, strict=True):
            key, row = image_id.split("/")
            np.testing.assert_array_equal(image, arrays[key][int(row)])
            assert image.dtype == np.dtype(dtype).newbyteorder("=")
            assert image.flags.c_contiguous


def test_one_pass_serves_a_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, images=pixels(2000, 40, 40), labels=np.zeros(2000))
    inflated_bytes = 0
    read1 = zipfile.ZipExtFile._read1  # type: ignore[attr-defined]

    def counted(stream: zipfile.ZipExtFile, n_bytes: int) -> bytes:
        nonlocal inflated_bytes
        data: bytes = read1(stream, n_bytes)
        inflated_bytes += len(data)
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", counted)
    list(NpzImages(path).rows(f"images/{row}" for row in range(3, 1500, 7)))
    assert inflated_bytes < 1.1 * 1500 * 1600


def test_rows_are_read_without_the_array(tmp_path: Path) -> None:
    path = save(tmp_path, images=pixels(4000, 40, 40), labels=np.zeros(4000))
    reader = NpzImages(path)
    ids = [f"images/{row}" for row in range(4000)]
    tracemalloc.start()
    try:
        reader.verify(ids)
        assert reader.largest_bytes(ids) == 1600
        for _ in reader.rows(ids):
            pass
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4000 * 1600 / 2


def test_a_large_array_in_fortran_order_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, images=np.asfortranarray(pixels(9)), labels=np.arange(9) % 2)
    monkeypatch.setattr(npz, "MAX_FORTRAN_BYTES", 9 * 20)
    build(path)
    monkeypatch.setattr(npz, "MAX_FORTRAN_BYTES", 9 * 20 - 1)
    with pytest.raises(DataError, match="Fortran order"):
        build(path)
    with pytest.raises(DataError, match="ascontiguousarray"):
        read_one(path, "images/0")


def test_images_of_too_many_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.npz"
    wide = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1, 10**4, 10**4 + 1), (0, 0, 0))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("images.npy", "w") as stream:
            np.save(stream, wide)
        with archive.open("labels.npy", "w") as stream:
            np.save(stream, np.zeros(1))
    with pytest.raises(DataError, match="10001 x 10000 pixels are more than 100 million"):
        build(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_pixel_is_seen_before_the_first_image_is_used(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    save(path, images=pixels(300, 16, 16), labels=np.zeros(300))
    raw = bytearray(path.read_bytes())
    raw[40_000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="cannot read"):
        NpzImages(path).verify(["images/0"])


@pytest.mark.parametrize("name", ["images/2", "images/-1", "images/x", "images/", "other/0", ""])
def test_images_that_are_not_there(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, images=pixels(2), labels=np.array([0, 1]))
    with pytest.raises(DataError):
        read_one(path, name)


def test_pneumoniamnist_has_its_published_counts() -> None:
    path = SHARED / "pneumoniamnist" / "pneumoniamnist_trainval.npz"
    if not path.exists():
        pytest.skip("needs ../shared/data/pneumoniamnist")
    found = build(path)
    splits = np.array(found.splits)
    counts = {
        name: [int(np.sum(found.targets[splits == name] == target)) for target in (0, 1)]
        for name in ("train", "val")
    }
    assert counts == {"train": [1214, 3494], "val": [135, 389]}
