"""Every bias: its signal is the gradient of its loss, also where losses like to break, and its traits are true.

What the printed equations get wrong is in test_space_corrections.py.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from memories import SOFT
from torch import Tensor

from miras_search.space import bias as package
from miras_search.space.bias import BIAS, L1, L2, Bias, LogCosh, Lp
from miras_search.space.bias.protocol import NO_THRESHOLD, PER_CHANNEL, PER_HEAD
from miras_search.space.gates import Gate
from miras_search.space.siblings import load_siblings

SPECS: dict[str, object] = {
    "dot": "dot",
    "l2": "l2",
    "l2 full": {"l2": {"scale": "full"}},
    "l1": "l1",
    "l1 epsilon": {"l1": {"smoothing": "epsilon"}},
    "l1 tanh": {"l1": {"smoothing": "tanh"}},
    "lp 1": {"lp": {"p": 1.0}},
    "lp 1.001": {"lp": {"p": 1.001}},
    "lp 1.01": {"lp": {"p": 1.01}},
    "lp 1.5": "lp",
    "lp 2": {"lp": {"p": 2.0}},
    "lp 3 paper": {"lp": {"p": 3.0, "scale": "paper"}},
    "lp 4, wide": {"lp": {"p": 4.0, "epsilon": 0.1}},
    "lp 1 tanh": {"lp": {"p": 1.0, "smoothing": "tanh", "sharpness": 50.0}},
    "lp 1.01 tanh": {"lp": {"p": 1.01, "smoothing": "tanh"}},
    "lp 2 tanh": {"lp": {"p": 2.0, "smoothing": "tanh"}},
    "lp 3 tanh paper": {"lp": {"p": 3.0, "smoothing": "tanh", "scale": "paper"}},
    "huber coordinate": {"huber": {"form": "coordinate", "delta": SOFT}},
    "huber norm": {"huber": {"form": "norm", "delta": SOFT}},
    "huber pseudo": {"huber": {"form": "pseudo", "delta": SOFT}},
    "huber pseudo_norm": {"huber": {"form": "pseudo_norm", "delta": SOFT}},
    "huber switch": {"huber": {"form": "switch", "delta": SOFT}},
    "logcosh": "logcosh",
    "value_shift": {"value_shift": {"delta": SOFT}},
    "kl": "kl",
}
RULES = ["lp 1.01 tanh", "lp 2 tanh", "lp 3 tanh paper", "huber switch"]  # rules for u, without a loss
SCOPES = [
    *((name, "head") for name in SPECS),
    *((name, "value") for name in SPECS if "value" in BIAS.parse(SPECS[name]).threshold_scopes),
]
SIZES = {"zero": 0.0, "tiny": 1e-9, "near zero": 1e-3, "usual": 1.0, "huge": 1e6}


def bias_of(name: str) -> Bias:
    return BIAS.parse(SPECS[name])


def inputs(size: float, seed: int = 0, scope: str = "head") -> tuple[Tensor, Tensor, Tensor]:
    """p, v [7,5] with residuals of about `size`, and thresholds that some residuals exceed and some do not: [7,1], or
    [7,5] where every channel has its own.
    """
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    r = size * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    stretch = torch.tensor([0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0], dtype=torch.float64)
    threshold = (size or 1.0) * stretch.unsqueeze(-1)
    if scope == "value":
        threshold = threshold * (0.5 + torch.rand(7, 5, generator=generator, dtype=torch.float64))
    return v + r, v, threshold


def test_every_registered_bias_is_tested() -> None:
    assert {bias_of(name).name for name in SPECS} == set(BIAS.options)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("name", "scope"), SCOPES)
def test_signal_is_the_gradient_of_the_loss(name: str, scope: str, size: float) -> None:
    bias = bias_of(name)
    p, v, threshold = inputs(size, scope=scope)
    p.requires_grad_()
    loss = bias.loss(p, v, threshold)
    assert (loss is None) == (name in RULES)
    if loss is None:
        return
    assert loss.shape == (7,)
    (expected,) = torch.autograd.grad(loss.sum(), p)
    torch.testing.assert_close(bias.signal(p, v, threshold), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("name", "scope"), SCOPES)
def test_signals_and_their_gradients_are_finite(name: str, scope: str, size: float) -> None:
    given = [x.requires_grad_() for x in inputs(size, scope=scope)]
    u = bias_of(name).signal(given[0], given[1], given[2])
    assert u.shape == (7, 5)
    assert torch.isfinite(u).all()
    for gradient in torch.autograd.grad((u * torch.linspace(-1, 1, 35).view(7, 5)).sum(), given, allow_unused=True):
        assert gradient is None or torch.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6], ids=["near zero", "usual", "huge"])
@pytest.mark.parametrize(("name", "scope"), SCOPES)
def test_signals_differentiate_as_finite_differences_say(name: str, scope: str, size: float) -> None:
    """Away from kinks: the residuals of this seed keep a relative distance of 1e-3 from their thresholds."""
    bias = bias_of(name)
    p, v, threshold = inputs(size, seed=3, scope=scope)

    def scaled(r: Tensor, d: Tensor) -> Tensor:
        """In units of `size`, so that one step of the differences suits all sizes."""
        return bias.signal(v + size * r, v, size * d) / size

    arguments = ((p - v) / size).requires_grad_(), (threshold / size).requires_grad_()
    assert torch.autograd.gradcheck(scaled, arguments, eps=1e-6, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "scope"), SCOPES)
def test_vmap_equals_the_batch(name: str, scope: str) -> None:
    bias = bias_of(name)
    p, v, threshold = inputs(1.0, scope=scope)
    found = torch.func.vmap(bias.signal)(p, v, threshold)
    assert torch.equal(found, bias.signal(p, v, threshold))


@pytest.mark.parametrize("name", SPECS)
def test_slope_is_true_to_the_signal(name: str) -> None:
    """With a slope g, u - g p does not depend on p; without one, u is not affine in p."""
    bias = bias_of(name)
    p, v, threshold = inputs(1.0)
    other = inputs(1.0, seed=1)[0]
    u, w, middle = (bias.signal(x, v, threshold) for x in (p, other, (p + other) / 2))
    if bias.slope is None:
        assert (middle - (u + w) / 2).abs().max() > 1e-3
    else:
        torch.testing.assert_close(u - bias.slope * p, w - bias.slope * other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_couples_channels_is_true_to_the_signal(name: str) -> None:
    bias = bias_of(name)
    p, v, threshold = inputs(1.0)
    crossing = 0.0
    for row in range(7):
        found = torch.func.jacrev(bias.signal)(p[row], v[row], threshold[row])
        crossing = max(crossing, (found - torch.diag(found.diag())).abs().max().item())
    if name == "huber switch":  # constant pieces: only which piece applies looks at the other channels
        shifted = p.clone()
        shifted[:, 1:] += 100.0
        crossing = (bias.signal(shifted, v, threshold)[:, 0] - bias.signal(p, v, threshold)[:, 0]).abs().max().item()
    assert bias.couples_channels == (crossing > 1e-3)


@pytest.mark.parametrize("scope", ["head", "value"])
@pytest.mark.parametrize("form", ["coordinate", "norm", "pseudo", "pseudo_norm"])
def test_huber_never_writes_more_than_its_threshold(form: str, scope: str) -> None:
    bias = bias_of(f"huber {form}")
    if scope not in bias.threshold_scopes:
        scope = "head"
    p, v, threshold = inputs(1e6, scope=scope)
    u = bias.signal(p, v, threshold)
    size = u.norm(dim=-1, keepdim=True) if bias.couples_channels else u.abs()
    assert (size <= threshold * (1 + 1e-12)).all()
    assert (size >= threshold * (0.9 if form.startswith("pseudo") else 1 - 1e-12)).any()


@pytest.mark.parametrize("of", ["pseudo", "pseudo_norm"])
def test_pseudo_huber_is_its_equation(of: str) -> None:
    for size in (1e-3, 1.0, 1e3):
        p, v, d = inputs(size)
        r = p - v
        square = r.square().sum(-1, keepdim=True) if of == "pseudo_norm" else r.square()
        expected = (d.square() * (torch.sqrt(1 + square / d.square()) - 1)).sum(-1)
        loss = bias_of(f"huber {of}").loss(p, v, d)
        assert loss is not None
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
        u = bias_of(f"huber {of}").signal(p, v, d)
        torch.testing.assert_close(u, r / torch.sqrt(1 + square / d.square()), rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", ["coordinate", "norm", "pseudo", "pseudo_norm", "switch"])
def test_a_threshold_that_underflows_to_0_is_no_nan(form: str) -> None:
    """softplus(-800) is 0 in float64: nothing is written then, and nothing breaks."""
    p = torch.tensor([[0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    d = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    u = bias_of(f"huber {form}").signal(p, torch.zeros(1, 2, dtype=torch.float64), d)
    assert u.abs().max() < 1e-11
    for gradient in torch.autograd.grad(u.square().sum(), (p, d)):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("form", ["coordinate", "norm", "pseudo", "pseudo_norm"])
@pytest.mark.parametrize("size", [0.0, 1e-8, 1e-2, 1.0, 1e3, 1e8])
def test_a_threshold_near_0_has_a_finite_slope(form: str, size: float) -> None:
    raw = torch.arange(-30.0, 5.0).unsqueeze(-1).requires_grad_()  # float32, as in training
    p = torch.full((35, 4), size, requires_grad=True)
    huber = BIAS.parse({"huber": {"form": form}})
    u = huber.signal(p, torch.zeros(35, 4), torch.nn.functional.softplus(raw))
    slopes = torch.autograd.grad(u.sum(), (raw, p))
    assert all(bool(found.isfinite().all()) for found in (u, *slopes))


def test_scopes_are_told_for_every_bias_with_a_threshold() -> None:
    """And for no other; one number a channel only where channels are apart."""
    for name in SPECS:
        bias = bias_of(name)
        gates = [f.name for f in dataclasses.fields(bias) if isinstance(getattr(bias, f.name), Gate)]
        if gates:
            assert bias.threshold_scopes == (PER_HEAD if bias.couples_channels else PER_CHANNEL), name
        else:
            assert bias.threshold_scopes == NO_THRESHOLD, name


WITH_THRESHOLD = [name for name in SPECS if bias_of(name).threshold_scopes]


@pytest.mark.parametrize("name", WITH_THRESHOLD)
def test_a_missing_threshold_is_said(name: str) -> None:
    p, v, _ = inputs(1.0)
    with pytest.raises(ValueError, match="this bias needs a threshold"):
        bias_of(name).signal(p, v, None)


@pytest.mark.parametrize("name", [name for name in WITH_THRESHOLD if bias_of(name).couples_channels])
def test_a_norm_refuses_a_threshold_for_each_channel(name: str) -> None:
    p, v, threshold = inputs(1.0, scope="value")
    with pytest.raises(ValueError, match="compares its threshold with a norm: one a head, got 5"):
        bias_of(name).signal(p, v, threshold)


@pytest.mark.parametrize("name", [name for name, scope in SCOPES if scope == "value"])
def test_one_threshold_is_the_same_as_that_one_for_every_channel(name: str) -> None:
    p, v, threshold = inputs(1.0)
    assert torch.equal(
        bias_of(name).signal(p, v, threshold), bias_of(name).signal(p, v, threshold.expand(7, 5).contiguous())
    )


SPELLINGS: list[tuple[Bias, Bias]] = [
    (L1(), L1(epsilon=0.1, sharpness=3.0)),
    (L1(smoothing="epsilon"), Lp(p=1.0)),
    (L1(smoothing="epsilon", epsilon=0.1, sharpness=3.0), Lp(p=1.0, epsilon=0.1, scale="paper")),
    (L1(smoothing="tanh", epsilon=0.1), Lp(p=1.0, smoothing="tanh")),
    (L1(smoothing="tanh", sharpness=1.0), LogCosh()),
    (Lp(p=1.0, smoothing="tanh", sharpness=1.0, scale="paper"), LogCosh()),
    (Lp(p=1.0, smoothing="tanh", epsilon=0.1, scale="paper"), Lp(p=1.0, smoothing="tanh")),
    (Lp(p=1.5, sharpness=3.0), Lp(p=1.5)),
    (Lp(p=2.0, epsilon=0.1), L2()),
    (Lp(p=2.0, scale="paper", sharpness=3.0), L2(scale="full")),
]


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_spellings_of_one_function_are_one_point(one: Bias, other: Bias) -> None:
    """And are one function: the same signals and losses, to the last bits."""
    assert one.canonical() == other.canonical()
    assert one.canonical().canonical() == one.canonical()
    for size in SIZES.values():
        p, v, _ = inputs(size)
        torch.testing.assert_close(one.signal(p, v, None), other.signal(p, v, None), rtol=1e-14, atol=0)
        for given in (one, other):
            loss, simplest = given.loss(p, v, None), given.canonical().loss(p, v, None)
            assert loss is not None
            assert simplest is not None
            if not isinstance(given.canonical(), L2):  # lp's loss at p = 2 is d/2 eps higher
                torch.testing.assert_close(loss, simplest, rtol=1e-12, atol=1e-15)


def test_different_functions_stay_apart() -> None:
    different: list[Bias] = [
        L1(),
        L1(smoothing="epsilon"),
        L1(smoothing="epsilon", epsilon=1e-3),
        L1(smoothing="tanh"),
        L1(smoothing="tanh", sharpness=50.0),
        LogCosh(),
        L2(),
        Lp(p=2.0, smoothing="tanh"),
        Lp(p=2.0, smoothing="tanh", scale="paper"),
        Lp(p=2.0, smoothing="tanh", epsilon=1e-3),
        Lp(p=2.0, smoothing="tanh", sharpness=50.0),
    ]
    given = [inputs(size)[:2] for size in (1e-3, 1.0)]
    for i, one in enumerate(different):
        for other in different[:i]:
            assert one.canonical() != other.canonical()
            assert max((one.signal(p, v, None) - other.signal(p, v, None)).abs().max() for p, v in given) > 1e-4


def test_l1_is_the_limit_of_its_smoothings() -> None:
    p, v, _ = inputs(1.0)
    sign = L1().signal(p, v, None)
    assert set(sign.flatten().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(L1(smoothing="epsilon", epsilon=1e-16).signal(p, v, None), sign, rtol=1e-9, atol=0)
    torch.testing.assert_close(L1(smoothing="tanh", sharpness=1e4).signal(p, v, None), sign, rtol=1e-9, atol=0)
    assert L1().signal(v, v, None).abs().max() == 0


def test_log_cosh_does_not_overflow() -> None:
    r = torch.tensor([[1e300, -1e300, 0.0, 1e-9]], dtype=torch.float64)
    loss = LogCosh().loss(r, torch.zeros_like(r), None)
    assert loss is not None
    assert loss.item() == pytest.approx(2e300)
    small = torch.tensor([[0.5, -1.25]], dtype=torch.float64)
    loss = LogCosh().loss(small, torch.zeros_like(small), None)
    assert loss is not None
    torch.testing.assert_close(loss, torch.log(torch.cosh(small)).sum(-1), rtol=1e-14, atol=0)


def test_every_file_of_the_package_is_loaded() -> None:
    """An option is found by lying there: its registration is no line of another file."""
    modules = {file.name.removesuffix(".py") for file in files(package).iterdir() if file.name.endswith(".py")}
    assert {f"{package.__name__}.{name}" for name in modules - {"__init__"}} <= set(sys.modules)
    homes = [cls.__module__ for cls in BIAS.options.values()]
    assert all(home.startswith(package.__name__) for home in homes)
    assert len(set(homes)) == len(homes)  # one option, one file


def test_a_new_file_is_a_new_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "extended").mkdir()
    (tmp_path / "extended" / "__init__.py").touch()
    source = Path(str(files(package) / "dot.py")).read_text(encoding="utf-8")
    (tmp_path / "extended" / "mine.py").write_text(source.replace('"dot"', '"mine"'), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    load_siblings("extended", importlib.import_module("extended").__path__)
    try:
        assert BIAS.parse("mine").signal(torch.zeros(2), torch.ones(2), None).tolist() == [-1.0, -1.0]
    finally:
        del BIAS.options["mine"]
        for name in ("extended", "extended.mine"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"lp": {"p": 0.9}}, "bias.lp.p: 0.9 is not convex: use p >= 1"),
        ({"lp": {"p": float("nan")}}, "bias.lp.p: nan is not convex: use p >= 1"),
        ({"lp": {"epsilon": 0}}, "bias.lp.epsilon: 0 must be positive: |r|^(p-1) has no slope at 0 otherwise"),
        ({"huber": {"delta": 0}}, "bias.huber.delta: the threshold must be positive"),
        ({"huber": {"delta": -1}}, "bias.huber.delta: the threshold must be positive"),
        ({"huber": {"delta": {"source": "data", "squash": "mamba", "value": 0.5}}},
         "bias.huber.delta: mamba's decay is a keep gate, not a threshold"),
        ({"huber": {"form": "cordinate"}},
         "bias.huber.form: 'cordinate' is not one of coordinate, norm, pseudo, pseudo_norm, switch "
         "(did you mean 'coordinate'?)"),
        ({"lp": {"smoothing": "none"}}, "bias.lp.smoothing: 'none' is not one of epsilon, tanh (known: epsilon, tanh)"),
        ({"lp": {"sharpness": 0}}, "bias.lp.sharpness: 0 must be positive: tanh(a r) stands for sign(r)"),
        ({"l1": {"sharpness": -1}}, "bias.l1.sharpness: -1 must be positive: tanh(a r) stands for sign(r)"),
        ({"l1": {"epsilon": 0}}, "bias.l1.epsilon: 0 must be positive: smoothing: none says no smoothing"),
        ({"value_shift": {"delta": -0.1}}, "bias.value_shift.delta: the radius cannot be negative"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(spec: object, message: str) -> None:
    from miras_search.space.fields import SpecError

    with pytest.raises(SpecError) as caught:
        BIAS.parse(spec, ("bias",))
    assert str(caught.value) == message
