"""Update rules written in NumPy from the papers, and learning rates worked out by hand."""

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from builders import stack
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from xray_classifier.building import run_learning_rate
from xray_classifier.config import TrainConfig
from xray_classifier.history import COLUMNS, History, Run
from xray_classifier.optimizers import (
    lr_factor,
    make_optimizer,
    parameter_groups,
    without_compiler,
)

Array = NDArray[np.float64]
State = dict[str, Array]
Rule = Callable[[State, Array, Array, int], Array]
ZERO, ONE = np.zeros(()), np.ones(())
STEPS = 8
LR = 0.05


def sgd(s: State, w: Array, g: Array, t: int) -> Array:
    return w - LR * g


def momentum(s: State, w: Array, g: Array, t: int) -> Array:
    """Polyak 1964, doi:10.1016/0041-5553(64)90137-5; the velocity starts as the first gradient."""
    s["v"] = 0.9 * s.get("v", ZERO) + g
    return w - LR * s["v"]


def nesterov(s: State, w: Array, g: Array, t: int) -> Array:
    """Sutskever et al. 2013, ICML 28:1139, in the form that moves the looked-ahead weights."""
    s["v"] = 0.9 * s.get("v", ZERO) + g
    return w - LR * (g + 0.9 * s["v"])


def adagrad(s: State, w: Array, g: Array, t: int) -> Array:
    """Duchi et al. 2011, JMLR 12:2121."""
    s["sum"] = s.get("sum", ZERO) + g**2
    return w - LR * g / (np.sqrt(s["sum"]) + 1e-10)


def adadelta(s: State, w: Array, g: Array, t: int) -> Array:
    """Zeiler 2012, arXiv:1212.5701, algorithm 1 with rho 0.9, times the learning rate."""
    s["g2"] = 0.9 * s.get("g2", ZERO) + 0.1 * g**2
    move = np.sqrt(s.get("d2", ZERO) + 1e-6) / np.sqrt(s["g2"] + 1e-6) * g
    s["d2"] = 0.9 * s.get("d2", ZERO) + 0.1 * move**2
    return w - LR * move


def rmsprop(s: State, w: Array, g: Array, t: int) -> Array:
    """Tieleman & Hinton 2012, lecture 6.5, with the decay 0.99."""
    s["g2"] = 0.99 * s.get("g2", ZERO) + 0.01 * g**2
    return w - LR * g / (np.sqrt(s["g2"]) + 1e-8)


def rmsprop_momentum(s: State, w: Array, g: Array, t: int) -> Array:
    """Graves 2013, arXiv:1308.0850: the scaled gradients are accumulated."""
    s["g2"] = 0.99 * s.get("g2", ZERO) + 0.01 * g**2
    s["v"] = 0.9 * s.get("v", ZERO) + g / (np.sqrt(s["g2"]) + 1e-8)
    return w - LR * s["v"]


def moments(s: State, g: Array, t: int) -> tuple[Array, Array]:
    """First and second moments of Kingma & Ba 2015, without the correction of their bias."""
    s["m"] = 0.9 * s.get("m", ZERO) + 0.1 * g
    s["v"] = 0.999 * s.get("v", ZERO) + 0.001 * g**2
    return s["m"], s["v"]


def adam(s: State, w: Array, g: Array, t: int) -> Array:
    """Kingma & Ba 2015, arXiv:1412.6980, algorithm 1."""
    m, v = moments(s, g, t)
    return w - LR * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def amsgrad(s: State, w: Array, g: Array, t: int) -> Array:
    """Reddi et al. 2018, arXiv:1904.09237, algorithm 2, with Adam's correction of the bias."""
    m, v = moments(s, g, t)
    s["top"] = np.maximum(s.get("top", ZERO), v)
    return w - LR * (m / (1 - 0.9**t)) / (np.sqrt(s["top"] / (1 - 0.999**t)) + 1e-8)


def adamax(s: State, w: Array, g: Array, t: int) -> Array:
    """Kingma & Ba 2015, algorithm 2."""
    s["m"] = 0.9 * s.get("m", ZERO) + 0.1 * g
    s["u"] = np.maximum(0.999 * s.get("u", ZERO), np.abs(g) + 1e-8)
    return w - LR / (1 - 0.9**t) * s["m"] / s["u"]


def nadam(s: State, w: Array, g: Array, t: int) -> Array:
    """Dozat 2016, ICLR workshop, with his schedule of the momentum."""
    now, after = (0.9 * (1 - 0.5 * 0.96 ** (k * 0.004)) for k in (t, t + 1))
    s["product"] = s.get("product", ONE) * now
    m, v = moments(s, g, t)
    ahead = after * m / (1 - s["product"] * after) + (1 - now) * g / (1 - s["product"])
    step: Array = LR * ahead / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w - step


def radam(s: State, w: Array, g: Array, t: int) -> Array:
    """Liu et al. 2020, arXiv:1908.03265, algorithm 2: plain momentum until rho exceeds 5."""
    m, v = moments(s, g, t)
    rho_inf: float = 2 / (1 - 0.999) - 1
    rho: float = rho_inf - 2 * t * 0.999**t / (1 - 0.999**t)
    if rho <= 5:
        return w - LR * m / (1 - 0.9**t)
    r: float = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    adapted: Array = math.sqrt(1 - 0.999**t) / (np.sqrt(v) + 1e-8)
    move: Array = r * (m / (1 - 0.9**t)) * adapted
    return w - LR * move


RULES: list[tuple[str, dict[str, Any], Rule]] = [
    ("sgd", {}, sgd),
    ("sgd", {"momentum": 0.9}, momentum),
    ("sgd", {"momentum": 0.9, "nesterov": True}, nesterov),
    ("adagrad", {}, adagrad),
    ("adadelta", {}, adadelta),
    ("rmsprop", {}, rmsprop),
    ("rmsprop", {"momentum": 0.9}, rmsprop_momentum),
    ("adam", {}, adam),
    ("adam", {"amsgrad": True}, amsgrad),
    ("adamax", {}, adamax),
    ("adamw", {}, adam),
    ("adamw", {"amsgrad": True}, amsgrad),
    ("nadam", {}, nadam),
    ("radam", {}, radam),
]
NAMES = [f"{rule.__name__} as {name}" for name, _, rule in RULES]


def gradients(model: torch.nn.Module) -> list[list[Array]]:
    """For each step the gradients of all parameters; later ones are smaller, as in training."""
    rng = np.random.default_rng(0)
    return [
        [rng.normal(size=tuple(p.shape)) * (2.0 if step < 3 else 0.1) for p in model.parameters()]
        for step in range(STEPS)
    ]


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "extra", "rule"), RULES, ids=NAMES)
def test_an_optimizer_follows_its_paper(
    name: str, extra: dict[str, Any], rule: Rule, decay: float
) -> None:
    model = stack((4, 3), norm="layer").double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3)  # biases too, so that a decay of them would show
    optimizer = make_optimizer(model, name, LR, weight_decay=decay, **extra)
    expected = [p.detach().numpy().copy() for p in model.parameters()]
    states: list[State] = [{} for _ in expected]
    for t, grads in enumerate(gradients(model), start=1):
        for index, (parameter, gradient) in enumerate(zip(model.parameters(), grads, strict=True)):
            parameter.grad = torch.from_numpy(gradient.copy())
            w, g = expected[index], gradient
            pull = decay if w.ndim > 1 else 0.0
            if name == "adamw":
                w = w * (1 - LR * pull)
            else:
                g = g + pull * w
            expected[index] = rule(states[index], w, g, t)
        optimizer.step()
    for parameter, by_hand in zip(model.parameters(), expected, strict=True):
        assert parameter.detach().numpy() == pytest.approx(by_hand, rel=1e-6, abs=1e-8)


def test_every_optimizer_of_the_config_has_a_rule_here() -> None:
    schema = TrainConfig.model_json_schema()["$defs"]["OptimizerConfig"]["properties"]["name"]
    assert {name for name, _, _ in RULES} == set(schema["enum"])


def test_radam_is_tested_on_both_sides_of_its_switch() -> None:
    # rho of step t is 1999 - 2 t 0.999^t / (1 - 0.999^t); it exceeds 5 from step 6 on
    rho = [1999 - 2 * t * 0.999**t / (1 - 0.999**t) for t in range(1, STEPS + 1)]
    assert [value > 5 for value in rho] == [False] * 5 + [True] * 3


def test_the_learning_rate_of_a_later_step_is_the_one_set_then() -> None:
    model = stack().double()
    optimizer = make_optimizer(model, "sgd", 123.0)
    before = model.output.weight.detach().clone()
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.allclose(model.output.weight, before - 0.5, rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_decay_takes_every_matrix_and_no_vector(norm: str) -> None:
    model = stack((4, 3), norm=norm)
    decayed, spared = parameter_groups(model, 0.25)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.25, 0.0)
    assert {id(p) for p in decayed["params"]} == {
        id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Linear)
    }
    together = [id(p) for p in (*decayed["params"], *spared["params"])]
    assert sorted(together) == sorted(id(p) for p in model.parameters())


def factors(name: str, steps: int, **keys: Any) -> list[float]:
    return [lr_factor(name, step, **keys) for step in range(steps)]


def test_cosine_by_hand() -> None:
    found = factors("cosine", 9, steps_per_epoch=2, epochs=4, final_fraction=0.2)
    # halfway between 1 and 0.2 is 0.6; a quarter of the way cos(pi/4) = 0.7071
    assert found[0] == 1.0
    assert found[2] == pytest.approx(0.6 + 0.4 * math.sqrt(0.5))
    assert found[4] == pytest.approx(0.6)
    assert found[6] == pytest.approx(0.6 - 0.4 * math.sqrt(0.5))
    assert found[8] == pytest.approx(0.2)
    assert lr_factor("cosine", 99, steps_per_epoch=2, epochs=4, final_fraction=0.2) == 0.2


def test_onecycle_by_hand() -> None:
    found = factors("onecycle", 21, steps_per_epoch=5, epochs=4, final_fraction=0.1)
    # rises over 30 % of 20 steps = 6, from 1/25; falls over the other 14
    assert found[0] == pytest.approx(0.04)
    assert found[3] == pytest.approx((0.04 + 1) / 2)
    assert found[6] == pytest.approx(1.0)
    assert found[13] == pytest.approx((1 + 0.1) / 2)
    assert found[20] == pytest.approx(0.1)
    assert all(a < b for a, b in itertools.pairwise(found[:7]))
    assert all(a > b for a, b in itertools.pairwise(found[6:]))


def test_exponential_falls_once_an_epoch() -> None:
    found = factors("exponential", 7, steps_per_epoch=3, epochs=9, factor=0.5)
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_plateau_and_constant() -> None:
    keys: dict[str, Any] = {"steps_per_epoch": 3, "epochs": 9}
    assert factors("constant", 4, **keys) == [1, 1, 1, 1]
    assert factors("plateau", 3, factor=0.1, drops=2, **keys) == pytest.approx([0.01] * 3)


@pytest.mark.parametrize("name", ["constant", "cosine", "onecycle", "plateau", "exponential"])
def test_warm_up_rises_in_equal_steps_and_hands_over_to_the_schedule(name: str) -> None:
    keys: dict[str, Any] = {"steps_per_epoch": 4, "factor": 0.5, "final_fraction": 0.01}
    found = factors(name, 20, epochs=5, warmup_epochs=1.0, **keys)
    assert found[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    without = factors(name, 16, epochs=4, **keys)
    assert found[4:] == pytest.approx(without)


def test_a_warm_up_may_last_a_fraction_of_an_epoch() -> None:
    found = factors("constant", 4, steps_per_epoch=4, epochs=2, warmup_epochs=0.5)
    assert found == pytest.approx([1 / 3, 2 / 3, 1, 1])


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(["constant", "cosine", "onecycle", "plateau", "exponential"]),
    step=st.integers(0, 500),
    steps_per_epoch=st.integers(1, 20),
    epochs=st.integers(1, 20),
    warmup_epochs=st.floats(0, 25),
    final_fraction=st.floats(0, 0.99),
    drops=st.integers(0, 9),
)
def test_a_learning_rate_is_never_negative_nor_above_the_one_asked_for(
    name: str, step: int, **keys: Any
) -> None:
    assert 0 <= lr_factor(name, step, **keys) <= 1


def test_the_config_reaches_the_learning_rate_of_a_run() -> None:
    train = TrainConfig.model_validate(
        {
            "epochs": 4,
            "optimizer": {"lr": 0.8},
            "schedule": {"name": "plateau", "factor": 0.5, "patience": 2, "warmup_epochs": 1.0},
        }
    )
    rate = run_learning_rate(train)
    run = Run(History(COLUMNS["classify"]), epochs=9, steps_per_epoch=3)
    assert rate(run) == pytest.approx(0.8 / 4)
    run.step = 15
    for loss in (1.0, 2.0, 2.0, 0.5, 3.0, 3.0, 3.0):  # drops after the third and the sixth
        run.history.append(dict.fromkeys(COLUMNS["classify"], 0.0) | {"val_loss": loss})
    assert rate(run) == pytest.approx(0.8 * 0.5**2)


@pytest.mark.parametrize(
    "name", ["SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "Adamax", "AdamW", "NAdam", "RAdam"]
)
def test_without_the_compiler_steps_are_those_of_pytorch(name: str) -> None:
    plain = getattr(torch.optim, name)
    models = [nn.Linear(5, 3) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    both = [plain(models[0].parameters()), without_compiler(plain)(models[1].parameters())]
    images = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        for model, optimizer in zip(models, both, strict=True):
            optimizer.zero_grad(set_to_none=True)
            model(images).square().mean().backward()
            optimizer.step()
    assert torch.equal(models[0].weight, models[1].weight)
    assert str(both[0].state_dict()) == str(both[1].state_dict())
    assert isinstance(both[1], plain)
    both[1].load_state_dict(both[0].state_dict())


def test_training_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from torch import nn\n"
        "from xray_classifier.optimizers import make_optimizer\n"
        "model = nn.Linear(4, 1)\n"
        "for name in ('sgd', 'adam', 'adamw', 'rmsprop'):\n"
        "    optimizer = make_optimizer(model, name, 0.1)\n"
        "    model(torch.ones(2, 4)).sum().backward()\n"
        "    optimizer.step()\n"
        "    optimizer.load_state_dict(optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"
