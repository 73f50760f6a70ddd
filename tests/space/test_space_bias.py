"""Every bias: its signal is the gradient of its loss, also where losses like to break, and its traits are true."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from memories import SOFT
from torch import Tensor

from miras_search.space.bias import BIAS, Bias

SPECS: dict[str, object] = {
    "dot": "dot",
    "l2": "l2",
    "l2 full": {"l2": {"scale": "full"}},
    "lp 1": {"lp": {"p": 1.0}},
    "lp 1.001": {"lp": {"p": 1.001}},
    "lp 1.5": "lp",
    "lp 2": {"lp": {"p": 2.0}},
    "lp 3 paper": {"lp": {"p": 3.0, "scale": "paper"}},
    "lp 4, wide": {"lp": {"p": 4.0, "epsilon": 0.1}},
    "huber coordinate": {"huber": {"form": "coordinate", "delta": SOFT}},
    "huber norm": {"huber": {"form": "norm", "delta": SOFT}},
    "huber switch": {"huber": {"form": "switch", "delta": SOFT}},
    "value_shift": {"value_shift": {"delta": SOFT}},
    "kl": "kl",
}
SIZES = {"zero": 0.0, "tiny": 1e-9, "near zero": 1e-3, "usual": 1.0, "huge": 1e6}


def bias_of(name: str) -> Bias:
    return BIAS.parse(SPECS[name])


def inputs(size: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """p, v [7,5] with residuals of about `size`, and thresholds [7,1] that some residuals exceed and some do not."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    r = size * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    stretch = torch.tensor([0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0], dtype=torch.float64)
    threshold = (size or 1.0) * stretch.unsqueeze(-1)
    return v + r, v, threshold


def test_every_registered_bias_is_tested() -> None:
    assert {bias_of(name).name for name in SPECS} == set(BIAS.options)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", [name for name in SPECS if name != "huber switch"])
def test_signal_is_the_gradient_of_the_loss(name: str, size: float) -> None:
    bias = bias_of(name)
    p, v, threshold = inputs(size)
    p.requires_grad_()
    loss = bias.loss(p, v, threshold)
    assert loss is not None
    assert loss.shape == (7,)
    (expected,) = torch.autograd.grad(loss.sum(), p)
    torch.testing.assert_close(bias.signal(p, v, threshold), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", SPECS)
def test_signals_and_their_gradients_are_finite(name: str, size: float) -> None:
    given = [x.requires_grad_() for x in inputs(size)]
    u = bias_of(name).signal(given[0], given[1], given[2])
    assert u.shape == (7, 5)
    assert torch.isfinite(u).all()
    for gradient in torch.autograd.grad((u * torch.linspace(-1, 1, 35).view(7, 5)).sum(), given, allow_unused=True):
        assert gradient is None or torch.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6], ids=["near zero", "usual", "huge"])
@pytest.mark.parametrize("name", SPECS)
def test_signals_differentiate_as_finite_differences_say(name: str, size: float) -> None:
    """Away from kinks: the residuals of this seed keep a relative distance of 1e-3 from their thresholds."""
    bias = bias_of(name)
    p, v, threshold = inputs(size, seed=3)

    def scaled(r: Tensor, d: Tensor) -> Tensor:
        """In units of `size`, so that one step of the differences suits all sizes."""
        return bias.signal(v + size * r, v, size * d) / size

    arguments = ((p - v) / size).requires_grad_(), (threshold / size).requires_grad_()
    assert torch.autograd.gradcheck(scaled, arguments, eps=1e-6, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_vmap_equals_the_batch(name: str) -> None:
    bias = bias_of(name)
    p, v, threshold = inputs(1.0)
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


def test_the_switch_is_equation_16_and_no_gradient() -> None:
    bias = bias_of("huber switch")
    p, v, threshold = inputs(1.0)
    assert bias.loss(p, v, threshold) is None
    u = bias.signal(p, v, threshold)
    seen = set()
    for row in range(7):
        r, d = (p - v)[row], threshold[row].item()
        below = r.norm().item() <= d
        seen.add(below)
        assert torch.equal(u[row], r if below else d * torch.sign(r))
    assert seen == {True, False}


def test_the_switch_jumps_at_its_threshold_and_the_norm_form_does_not() -> None:
    """Miras calls Eq. 16 smooth; in V channels the step grows from d to d sqrt(V) there."""
    direction = torch.ones(1, 16, dtype=torch.float64) / 4
    v, d = torch.zeros(1, 16, dtype=torch.float64), torch.full((1, 1), 0.5, dtype=torch.float64)
    below, above = 0.4999999 * direction, 0.5000001 * direction
    sizes = {
        name: [bias_of(name).signal(p, v, d).norm().item() for p in (below, above)]
        for name in ("huber switch", "huber norm")
    }
    assert sizes["huber switch"] == pytest.approx([0.5, 0.5 * 4], rel=1e-6)
    assert sizes["huber norm"] == pytest.approx([0.5, 0.5], rel=1e-6)


@pytest.mark.parametrize("name", ["huber coordinate", "huber norm"])
def test_huber_never_writes_more_than_its_threshold(name: str) -> None:
    p, v, threshold = inputs(1e6)
    u = bias_of(name).signal(p, v, threshold)
    size = u.abs() if name == "huber coordinate" else u.norm(dim=-1, keepdim=True)
    assert (size <= threshold * (1 + 1e-12)).all()
    assert (size >= threshold * (1 - 1e-12)).any()


def shifts(count: int, radius: Tensor) -> Iterator[Tensor]:
    """Random points of the balls of the given radii, half of them on the surface."""
    generator = torch.Generator().manual_seed(11)
    for i in range(count):
        x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
        share = 1.0 if i % 2 else torch.rand(7, 1, generator=generator, dtype=torch.float64)
        yield radius * share * x / x.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_value_shift_is_the_worst_case_over_the_ball(size: float) -> None:
    p, v, radius = inputs(size)
    loss = bias_of("value_shift").loss(p, v, radius)
    assert loss is not None
    r = p - v
    worst = -radius * r / r.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(loss, (r - worst).square().sum(-1) / 2, rtol=1e-6 if size < 1 else 1e-10, atol=1e-12)
    closest = torch.full((7,), float("-inf"), dtype=torch.float64)
    for shift in shifts(2000, radius):
        attacked = (r - shift).square().sum(-1) / 2
        assert (attacked <= loss * (1 + 1e-12)).all()
        closest = torch.maximum(closest, attacked / loss)
    assert (closest > 0.8).all()  # the search came near: the bound is tight, not merely large


@pytest.mark.parametrize("name", ["huber coordinate", "huber norm", "huber switch", "value_shift"])
def test_a_missing_threshold_is_said(name: str) -> None:
    p, v, _ = inputs(1.0)
    with pytest.raises(ValueError, match="this bias needs a threshold"):
        bias_of(name).signal(p, v, None)


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
         "bias.huber.form: 'cordinate' is not one of coordinate, norm, switch (did you mean 'coordinate'?)"),
        ({"value_shift": {"delta": -0.1}}, "bias.value_shift.delta: the radius cannot be negative"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(spec: object, message: str) -> None:
    from miras_search.space.fields import SpecError

    with pytest.raises(SpecError) as caught:
        BIAS.parse(spec, ("bias",))
    assert str(caught.value) == message
