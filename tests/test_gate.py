"""What the input gate measures and refuses, against brute force and drawn strangers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from xray_classifier.data.film import film_from_array
from xray_classifier.data.film_views import (
    aspect,
    block_means,
    likeness,
    smoothness,
    texture,
    texture_length,
)
from xray_classifier.data.signature import SIGNATURE, Signatures, prepared
from xray_classifier.gate import (
    FALSE_REJECTS,
    LIMITS,
    MEASURES,
    REASONS,
    TYPICAL,
    Gate,
    MemberGate,
    fit_gate,
    fit_look,
    gate_of,
    require_fit,
    scores_of,
    upper_limit,
    values_above,
    views,
)

SIZE_PX = 32
Images = NDArray[np.uint8]
Pair = tuple[Images, Signatures]


def chest(seed: int, side: int = 64) -> Images:
    """A bright trunk with two dark lungs of varying place, size and shade, and some grain."""
    rng = np.random.default_rng([7, seed])
    y, x = np.mgrid[:side, :side] / (side - 1.0)
    picture = 0.15 + 0.75 * np.exp(-(((x - 0.5) / rng.normal(0.42, 0.02)) ** 4))
    picture += rng.normal(0.12, 0.02) * y
    for middle in (0.3, 0.7):
        at = (x - middle - rng.normal(0, 0.01)) / rng.normal(0.13, 0.01)
        down = (y - 0.45 - rng.normal(0, 0.01)) / rng.normal(0.27, 0.02)
        picture -= rng.normal(0.5, 0.04) * np.exp(-((at**2 + down**2) ** 2))
    picture += rng.normal(0, 0.01, (side, side))
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def photograph(seed: int) -> Images:
    """Flat shapes of many greys on a gradient, as no film has them."""
    rng = np.random.default_rng([8, seed])
    slope = rng.uniform(0, 255) * np.mgrid[:96, :96][seed % 2] / 95
    picture = Image.fromarray(slope.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        left, top = rng.integers(0, 80, 2)
        wide, high = rng.integers(10, 50, 2)
        box = [int(left), int(top), int(left + wide), int(top + high)]
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=int(rng.integers(256)))
    return np.asarray(picture)


def noise(seed: int) -> Images:
    """White noise."""
    return np.random.default_rng([9, seed]).integers(0, 256, (64, 64), dtype=np.uint8)


def page(seed: int) -> Images:
    """Dark words on white."""
    picture = Image.new("L", (160, 160), 255)
    draw = ImageDraw.Draw(picture)
    words = "".join(chr(int(c)) for c in np.random.default_rng(seed).integers(97, 123, 400))
    for line in range(14):
        draw.text((4, 4 + 11 * line), words[24 * line : 24 * line + 24], fill=20)
    return np.asarray(picture)


def seen(arrays: list[Images]) -> Pair:
    """Pictures as a model sees them."""
    films = [prepared(film_from_array(a), SIZE_PX, "center", "equalize") for a in arrays]
    return np.stack([f.pixels for f in films]), np.concatenate([f.signature for f in films])


@pytest.fixture(scope="module")
def train() -> Pair:
    """Films to fit to."""
    return seen([chest(seed) for seed in range(300)])


@pytest.fixture(scope="module")
def held() -> Pair:
    """Films to set limits on."""
    return seen([chest(seed) for seed in range(300, 700)])


@pytest.fixture(scope="module")
def fresh() -> Pair:
    """Films that the gate knows nothing of."""
    return seen([chest(seed) for seed in range(700, 1000)])


@pytest.fixture(scope="module")
def gate(train: Pair, held: Pair) -> Gate:
    """A gate without a network."""
    return Gate((fit_gate(fit_look(views(*train)), None, views(*held)),))


def judged(gate: Gate, pair: Pair) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Scores and reasons."""
    shares = gate.shares(*pair, [None])
    return scores_of(shares), gate.reasons(*pair, shares)


@pytest.mark.parametrize("draw", [photograph, noise, page])
def test_strangers_score_above_films(gate: Gate, fresh: Pair, draw: object) -> None:
    assert callable(draw)
    strangers = seen([draw(seed) for seed in range(60)])
    films, others = gate.scores(*fresh, [None]), gate.scores(*strangers, [None])
    truth = np.r_[np.zeros(len(films)), np.ones(len(others))]
    assert roc_auc_score(truth, np.r_[films, others]) >= 0.99
    assert set(judged(gate, strangers)[1]) <= set(REASONS)


def test_films_of_its_kind_pass(gate: Gate, held: Pair, fresh: Pair) -> None:
    assert np.mean(gate.scores(*held, [None]) > 1) <= FALSE_REJECTS
    scores, reasons = judged(gate, fresh)
    assert np.mean(scores > 1) <= 3 * FALSE_REJECTS
    assert [bool(reason) for reason in reasons] == (scores > 1).tolist()


def inverted(picture: Images) -> Images:
    """Black for white."""
    return 255 - picture


def upside_down(picture: Images) -> Images:
    """Turned by 180 degrees."""
    return np.ascontiguousarray(picture[::-1, ::-1])


def on_its_side(picture: Images) -> Images:
    """Turned by 90 degrees."""
    return np.ascontiguousarray(np.rot90(picture))


def faint(picture: Images) -> Images:
    """Nearly one grey level."""
    return (100 + picture // 64).astype(np.uint8)


def coloured(picture: Images) -> Images:
    """Reddish."""
    return np.stack([picture, picture // 2, picture // 2], axis=-1)


def strip(picture: Images) -> Images:
    """Three times as high as wide."""
    return np.concatenate([picture] * 3)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (inverted, "inverted"),
        (upside_down, "turned"),
        (on_its_side, "turned"),
        (faint, "almost_blank"),
        (coloured, "not_a_radiograph"),
        (strip, "not_a_radiograph"),
    ],
)
def test_what_is_wrong_with_a_film_is_named(gate: Gate, changed: object, reason: str) -> None:
    assert callable(changed)
    pair = seen([changed(chest(seed)) for seed in range(700, 720)])
    _, reasons = judged(gate, pair)
    assert reasons == (reason,) * 20
    noisy = seen([noise(seed) for seed in range(5)])
    assert judged(gate, noisy)[1] == ("not_a_radiograph",) * 5


def test_no_score_depends_on_its_neighbours(gate: Gate, fresh: Pair) -> None:
    images, signatures = fresh
    whole = gate.scores(images, signatures, [None])
    for size in (1, 7, 32):
        parts = [
            gate.scores(images[i : i + size], signatures[i : i + size], [None])
            for i in range(0, len(images), size)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    turned = gate.scores(images[::-1], signatures[::-1], [None])[::-1]
    assert turned.tobytes() == whole.tobytes()
    assert gate.scores(images[:0], signatures[:0], [None]).shape == (0,)


def test_what_training_images_have_is_no_ground_to_refuse() -> None:
    red = seen([coloured(chest(seed)) for seed in range(60)])
    held = seen([coloured(chest(seed)) for seed in range(60, 90)])
    gate = Gate((fit_gate(fit_look(views(*red)), None, views(*held)),))
    assert (gate.shares(*held, [None])[:, MEASURES.index("colour")] <= 1).all()


def test_a_network_sees_what_pixels_do_not(train: Pair, held: Pair, fresh: Pair) -> None:
    rng = np.random.default_rng(0)
    usual = [rng.normal(size=(len(pair[0]), 600)) for pair in (train, held, fresh)]
    gate = fit_gate(fit_look(views(*train)), usual[0], views(*held, usual[1]))
    assert gate.chosen is not None
    assert len(gate.chosen) == 512
    near, far = (Gate((gate,)).scores(*fresh, [usual[2] + move]) for move in (0.0, 5.0))
    assert np.mean(near > 1) <= 3 * FALSE_REJECTS
    assert (far > 1).all()


def test_an_ensemble_takes_the_mean_of_its_members(train: Pair, held: Pair, fresh: Pair) -> None:
    one = fit_gate(fit_look(views(*train)), None, views(*held))
    other = replace(one, limits=one.limits * np.where(np.arange(len(MEASURES)) < 5, 1.0, 0.5))
    both = Gate((one, other)).shares(*fresh, [None, None])
    alone = [Gate((member,)).shares(*fresh, [None]) for member in (one, other)]
    assert both == pytest.approx((alone[0] + alone[1]) / 2)


def test_it_is_read_back_as_it_was(train: Pair, held: Pair, fresh: Pair) -> None:
    network = [np.random.default_rng(1).normal(size=(len(p[0]), 9)) for p in (train, held, fresh)]
    gate = fit_gate(fit_look(views(*train)), network[0], views(*held, network[1]))
    tensors = gate.tensors()
    other = gate_of({**tensors, "output.weight": torch.zeros(1)})
    assert other is not None
    given = (*fresh, [network[2]])
    assert Gate((other,)).scores(*given).tobytes() == Gate((gate,)).scores(*given).tobytes()
    assert sum(t.numel() * t.element_size() for t in tensors.values()) < 2**16
    assert gate_of({"output.weight": torch.zeros(1)}) is None
    require_fit(other, SIZE_PX, 9)
    for size_px, n_features in ((64, 9), (SIZE_PX, 3), (SIZE_PX, None)):
        with pytest.raises(ValueError, match="another network"):
            require_fit(other, size_px, n_features)


def test_what_is_no_gate_is_refused(gate: Gate) -> None:
    tensors = gate.members[0].tensors()
    for wrong in (
        {LIMITS: tensors[LIMITS][:3]},
        {LIMITS: tensors[LIMITS] * 0},
        {TYPICAL: tensors[TYPICAL][:5]},
        {"gate.chosen": torch.zeros(4, dtype=torch.int32)},
        {"gate.grey.axes": tensors["gate.grey.axes"][:, :2]},
    ):
        with pytest.raises(ValueError, match=r"a gate|a cloud"):
            gate_of({**tensors, **wrong})
    with pytest.raises(KeyError):
        gate_of({name: t for name, t in tensors.items() if not name.startswith("gate.texture")})


def test_films_that_do_not_resemble_one_another_have_no_polarity() -> None:
    strangers = seen([photograph(seed) for seed in range(80)])
    look: MemberGate = fit_look(views(*strangers))
    assert look.typical is None
    assert (look.shares(views(*strangers))[:, MEASURES.index("polarity")] == 0).all()


@pytest.mark.parametrize("n", [1, 50, 298, 299, 473, 784, 2000])
def test_as_many_values_may_lie_above_as_the_binomial_allows(n: int) -> None:
    allowed = [k for k in range(n) if binom.cdf(k, n, FALSE_REJECTS) <= 0.05]
    assert values_above(n) == (max(allowed) if allowed else None)


def test_a_limit_is_an_order_statistic_or_lies_above_all() -> None:
    many = np.random.default_rng(0).permutation(784).astype(float)
    assert (many > upper_limit(many)).sum() == 3
    few = np.array([1.0, 2.0, 3.0])
    assert upper_limit(few) == pytest.approx(2.0 + 3.0 * few.std())
    assert upper_limit(np.array([0.0] * 50 + [9.0])) == 9.0
    assert upper_limit(np.zeros(400)) == 1.0


def test_limits_hold_for_new_images_with_the_confidence_stated() -> None:
    rng = np.random.default_rng(0)
    limits = np.array([upper_limit(rng.exponential(size=400)) for _ in range(2000)])
    refused = np.exp(-limits)  # the share of new draws above
    # 2,000 draws: the standard error of a share of 5 % is 0.5 %
    assert np.mean(refused > FALSE_REJECTS) <= 0.05 + 3 * 0.005


def test_blocks_share_the_pixels_that_they_cut() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 12), dtype=np.uint8)
    fine = np.repeat(np.repeat(images, 8, axis=1), 8, axis=2).astype(float) / 255
    expected = fine.reshape(5, 8, 12, 8, 12).mean(axis=(2, 4)).reshape(5, 64)
    assert block_means(images) == pytest.approx(expected)
    assert block_means(images[:0]).shape == (0, 64)


@pytest.mark.parametrize(("size_px", "scales"), [(6, 1), (23, 1), (24, 2), (28, 2), (64, 3)])
def test_texture_is_the_mean_difference_of_neighbours(size_px: int, scales: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, size_px, size_px), dtype=np.uint8)
    found = texture(image)
    assert found.shape == (1, 3 * scales) == (1, texture_length(size_px))
    grey = image[0].astype(float) / 255
    differences = [
        abs(grey[i + 1, j] - grey[i, j]) for i in range(size_px - 1) for j in range(size_px)
    ]
    assert found[0, 0] == pytest.approx(np.log(np.mean(differences) + 1e-3))
    inner = range(1, size_px - 1)
    bends = [
        abs(4 * grey[i, j] - grey[i - 1, j] - grey[i + 1, j] - grey[i, j - 1] - grey[i, j + 1])
        for i in inner
        for j in inner
    ]
    assert found[0, 2] == pytest.approx(np.log(np.mean(bends) + 1e-3))
    assert texture(image[:0]).shape == (0, 3 * scales)


def test_smoothness_aspect_and_likeness_by_hand() -> None:
    signatures = np.zeros(3, SIGNATURE)
    signatures["rows"], signatures["columns"] = [10, 20, 5], [10, 10, 10]
    rng = np.random.default_rng(0)
    signatures["thumb"][0] = np.arange(32)[None] * 8
    signatures["thumb"][1] = rng.integers(0, 256, (32, 32))
    assert aspect(signatures) == pytest.approx([0.0, np.log(2), np.log(2)])
    found = smoothness(signatures)
    assert found[0] > 0.9
    assert abs(found[1]) < 0.1
    assert found[2] == 1.0
    typical = rng.normal(size=(32, 32))
    thumbs = signatures["thumb"][:2].reshape(2, -1).astype(float)
    expected = [np.corrcoef(thumb, typical.ravel())[0, 1] for thumb in thumbs]
    assert likeness(signatures, typical) == pytest.approx([*expected, 0.0])
