"""The dense layer against PyTorch's own, with either library underneath."""

import io

import pytest
import torch
from torch import nn

from xray_classifier import dense
from xray_classifier.dense import LEAST_UNITS, Dense, OneDnnLinear, has_onednn
from xray_classifier.model import Architecture, build_network

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="PyTorch without oneDNN")


@pytest.fixture(params=[False, True], ids=["mkl", "onednn"])
def layers(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Dense, nn.Linear]:
    """A dense layer and PyTorch's own with the same weights."""
    if request.param and not has_onednn():
        pytest.skip("PyTorch without oneDNN")
    monkeypatch.setattr(dense, "onednn_is_faster", lambda: request.param)
    torch.manual_seed(3)
    ours, plain = Dense(70, 33), nn.Linear(70, 33)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


@pytest.mark.parametrize("shape", [(9, 70), (1, 70), (4, 5, 70), (0, 70)])
def test_sums_and_slopes_are_those_of_pytorch(
    layers: tuple[Dense, nn.Linear], shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(1)
    found = []
    x = torch.randn(shape, generator=generator)
    pull = torch.randn((*shape[:-1], 33), generator=generator)
    for layer in layers:
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        (out * pull).sum().backward()
        found.append((out, leaf.grad, layer.weight.grad, layer.bias.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_slopes_are_differences() -> None:
    """Against central differences of the sums themselves, which are linear in each argument."""
    generator = torch.Generator().manual_seed(2)
    x, w, b = (torch.randn(s, generator=generator) for s in ((3, 6), (5, 6), (5,)))
    pull = torch.randn(3, 5, generator=generator)
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    (OneDnnLinear.apply(*leaves) * pull).sum().backward()
    for place, leaf in enumerate(leaves):
        for index in range(leaf.numel()):
            values = []
            for sign in (1.0, -1.0):
                moved = [t.double().clone() for t in (x, w, b)]
                moved[place].view(-1)[index] += sign
                values.append(((moved[0] @ moved[1].T + moved[2]) * pull.double()).sum())
            assert float(leaf.grad.view(-1)[index]) == pytest.approx(  # type: ignore[union-attr]
                float(values[0] - values[1]) / 2, abs=1e-4
            )


@needs_onednn
def test_the_same_twice_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "onednn_is_faster", lambda: True)
    layer, x = Dense(784, 256), torch.randn(64, 784)
    once, twice = layer(x), layer(x)
    assert torch.equal(once, twice)
    grads = [torch.autograd.grad(layer(x).square().sum(), layer.weight)[0] for _ in range(2)]
    assert torch.equal(*grads)


@needs_onednn
@pytest.mark.parametrize(
    "change", [lambda x: x.double(), lambda x: x.bfloat16()], ids=["float64", "bfloat16"]
)
def test_other_numbers_go_the_usual_way(change: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(dense.OneDnnLinear, "apply", lambda *_: pytest.fail("was asked"))
    x = change(torch.randn(4, 70))  # type: ignore[operator]
    assert Dense(70, 33).to(x.dtype)(x).dtype == x.dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Dense(70, 33)(torch.randn(4, 70)).dtype == torch.bfloat16
    Dense(70, LEAST_UNITS - 1)(torch.randn(4, 70))


def test_a_network_keeps_its_names_and_reads_old_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_network(Architecture(type="mlp", size_px=8, hidden=(32,), dropout=(0.0,)))
    assert list(model.state_dict()) == [
        "hidden.0.linear.weight", "hidden.0.linear.bias", "output.weight", "output.bias",
    ]  # fmt: skip
    images = torch.randn(16, 1, 8, 8)
    answers = []
    for faster in (False, has_onednn()):
        monkeypatch.setattr(dense, "onednn_is_faster", lambda faster=faster: faster)
        answers.append(model(images))
    torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_export_knows_no_other_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "onednn_is_faster", lambda: True)
    program = torch.export.export(Dense(70, 33).eval(), (torch.randn(4, 70),))
    stream = io.StringIO()
    print(program.graph, file=stream)
    assert "mkldnn" not in stream.getvalue()
    assert "linear" in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "maker"),
    [
        ("processor : 0\nvendor_id\t: AuthenticAMD\n", "AuthenticAMD"),
        ("vendor_id : GenuineIntel\n", "GenuineIntel"),
        ("CPU implementer : 0x41\n", "GenuineIntel"),
    ],
)
def test_who_made_the_processor(text: str, maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense.Path, "read_text", lambda *_: text)
    assert dense.processor_maker() == maker
