"""What Miras prints wrongly or leaves open about its biases (Section 3), against what the definition asks for.

Each test computes the printed form in plain torch beside the form implemented here, and shows that the definition
(a gradient, a maximum over a ball, continuity, a finite outer gradient) is met by the second and missed by the first.
Corrections of whole writes are in tests/kernels/test_paper_corrections.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from miras_search.space.bias import BIAS, L1, L2, Bias, Huber, Lp, ValueShift

F64 = torch.float64


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def gradient(loss: Callable[[Tensor], Tensor], r: Tensor) -> Tensor:
    """Autograd of a loss written as a function of the residual."""
    leaf = r.detach().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    return found


def signal_of(bias: Bias, r: Tensor, threshold: Tensor | None = None) -> Tensor:
    return bias.signal(r, torch.zeros_like(r), threshold)


def loss_of(bias: Bias, r: Tensor, threshold: Tensor | None = None) -> Tensor:
    loss = bias.loss(r, torch.zeros_like(r), threshold)
    assert loss is not None
    return loss


# Eq. 11 and 12: powers and signs


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
def test_equation_11_is_the_gradient_of_equation_10_with_its_p(p: float) -> None:
    """`scale: paper` is Eq. 11 away from zero; `scale: unit` meets the half l2 of Eq. 14, 15 and 31 at p = 2."""
    r = normal(7, 5, seed=0) + 0.1
    expected = gradient(lambda x: x.abs().pow(p).sum(-1), r)
    torch.testing.assert_close(p * torch.sign(r) * r.abs().pow(p - 1), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(signal_of(Lp(p=p, scale="paper", epsilon=1e-20), r), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(signal_of(Lp(p=p, scale="unit", epsilon=1e-20), r), expected / p, rtol=1e-12, atol=0)


def test_the_paper_mixes_the_half_and_the_full_square() -> None:
    """Eq. 11 at p = 2 is the gradient of |r|^2, Eq. 31 uses that of 1/2 |r|^2: a factor 2 of the step."""
    r = normal(7, 5, seed=1)
    full = Lp(p=2.0, scale="paper").canonical()
    half = Lp(p=2.0, scale="unit").canonical()
    assert (full, half) == (L2(scale="full"), L2(scale="half"))
    torch.testing.assert_close(signal_of(full, r), gradient(lambda x: x.square().sum(-1), r))
    torch.testing.assert_close(signal_of(half, r), gradient(lambda x: x.square().sum(-1) / 2, r))


def test_equation_12_makes_the_signal_and_not_the_memory_a_sign() -> None:
    """The text says that an l1 memory holds -1 and 1 only; after a few writes it holds any value, its signals do."""
    memory, seen = torch.zeros(3, 4, dtype=F64), []
    for t in range(5):
        k, v = normal(1, 3, seed=10 + t), normal(1, 4, seed=20 + t)
        u = signal_of(L1(), k @ memory - v)
        seen += u.flatten().tolist()
        memory = memory - 0.1 * k.T @ u
    assert set(seen) == {-1.0, 1.0}
    assert len(set(memory.flatten().abs().tolist())) == memory.numel()
    assert not torch.isclose(memory.abs(), torch.ones_like(memory)).any()


# Remark 5: smoothing


def remark_5(r: Tensor, p: float, a: float, eps: float = 1e-6) -> Tensor:
    return p * torch.tanh(a * r) * (r.square() + eps).pow((p - 1) / 2)


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("a", [5.0, 10.0, 50.0])
def test_remark_5_is_the_gradient_of_none_of_the_losses(p: float, a: float) -> None:
    """Neither of |r|^p nor of its smooth form (r^2 + eps)^(p/2); the consistent smoothing is that of the second."""
    r = torch.linspace(-3, 3, 601, dtype=F64).unsqueeze(-1)
    printed, consistent = remark_5(r, p, a), signal_of(Lp(p=p, scale="paper"), r)
    sharp = gradient(lambda x: x.abs().pow(p).sum(-1), r)
    smooth = gradient(lambda x: (x.square() + 1e-6).pow(p / 2).sum(-1), r)
    torch.testing.assert_close(consistent, smooth, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(signal_of(Lp(p=p, scale="paper", smoothing="tanh", sharpness=a), r), printed)
    for loss in (sharp, smooth):
        assert (printed - loss).abs().max() > 1e-4
    assert BIAS.parse({"lp": {"p": p, "smoothing": "tanh"}}).loss(r, r, None) is None


@pytest.mark.parametrize(("p", "difference"), [(3.0, 0.0024), (1.0, 0.93)])
def test_the_two_smoothings_differ_most_at_p_1(p: float, difference: float) -> None:
    """So a study of p = 1 has to tell its sharpness: the largest difference on [-3, 3] at a = 10, scale: unit."""
    r = torch.linspace(-3, 3, 600_001, dtype=F64).unsqueeze(-1)
    consistent = signal_of(Lp(p=p), r)
    printed = signal_of(Lp(p=p, smoothing="tanh", sharpness=10.0), r)
    assert (consistent - printed).abs().max().item() == pytest.approx(difference, rel=0.03)


@pytest.mark.parametrize("p", [1.2, 1.5, 1.9])
def test_unsmoothed_powers_below_2_have_no_outer_gradient_at_zero(p: float) -> None:
    """|r|^(p-1) is infinitely steep at 0, so the printed Eq. 11 cannot be trained through; the smoothed one can."""
    r = torch.zeros(1, 5, dtype=F64, requires_grad=True)
    (printed,) = torch.autograd.grad((torch.sign(r) * r.abs().pow(p - 1)).sum(), r)
    (found,) = torch.autograd.grad(signal_of(Lp(p=p), r).sum(), r)
    assert not torch.isfinite(printed).any()
    assert torch.isfinite(found).all()
    assert (found > 0).all()


# Eq. 13-16: Huber


def test_huber_with_the_full_square_is_torn() -> None:
    """Half (Eq. 14) the branches meet in value and slope at the threshold; with Eq. 11's full square neither does."""
    d = torch.full((1, 1), 0.5, dtype=F64)
    below, above = (torch.full((1, 1), 0.5 * (1 + sign * 1e-9), dtype=F64) for sign in (-1, 1))

    def full(r: Tensor) -> Tensor:
        return torch.where(r.abs() <= d, r.square(), d * (r.abs() - d / 2)).sum(-1)

    for form in ("coordinate", "norm"):
        bias = Huber(form=form)
        assert (loss_of(bias, above, d) - loss_of(bias, below, d)).abs().item() < 1e-8
        assert (signal_of(bias, above, d) - signal_of(bias, below, d)).abs().item() < 1e-8
    assert (full(above) - full(below)).item() == pytest.approx(-(0.5**2) / 2)  # the loss falls as the error grows
    assert [gradient(full, x).item() for x in (below, above)] == pytest.approx([1.0, 0.5])


def test_equation_15_is_clipping_of_the_signal() -> None:
    """The gradient of Huber of the norm is the l2 signal, clipped to length d."""
    r, d = 3 * normal(50, 8, seed=3), 0.5 + 10 * uniform(50, 1, seed=4)
    clipped = torch.stack([x * min(1.0, (c / x.norm()).item()) for x, c in zip(r, d, strict=True)])
    torch.testing.assert_close(signal_of(Huber(form="norm"), r, d), clipped, rtol=1e-9, atol=0)
    assert 0 < (r.norm(dim=-1, keepdim=True) > d).sum() < 50


def equation_16(r: Tensor, d: Tensor, *, square: float = 1.0) -> Tensor:
    return torch.where(r.norm(dim=-1, keepdim=True) <= d, square * r, d * torch.sign(r))


def test_the_switch_is_equation_16() -> None:
    r, d = normal(50, 5, seed=5), 0.5 + 3 * uniform(50, 1, seed=6)
    assert torch.equal(signal_of(Huber(form="switch"), r, d), equation_16(r, d))
    assert Huber(form="switch").loss(r, torch.zeros_like(r), d) is None
    assert 0 < (r.norm(dim=-1, keepdim=True) > d).sum() < 50


@pytest.mark.parametrize("channels", [1, 4, 16, 64])
def test_the_switch_jumps_at_its_threshold_and_the_others_do_not(channels: int) -> None:
    """Miras calls Eq. 16 smooth. On the diagonal the write grows from d (2 d with the full square) to d sqrt(V)."""
    direction = torch.full((1, channels), 1 / math.sqrt(channels), dtype=F64)
    d = torch.full((1, 1), 0.5, dtype=F64)
    below, above = 0.5 * (1 - 1e-9) * direction, 0.5 * (1 + 1e-9) * direction
    switch = Huber(form="switch")
    jump = [signal_of(switch, x, d).norm().item() for x in (below, above)]
    assert jump == pytest.approx([0.5, 0.5 * math.sqrt(channels)], rel=1e-6)
    assert equation_16(below, d, square=2.0).norm().item() == pytest.approx(1.0, rel=1e-6)
    for form in ("coordinate", "norm", "pseudo", "pseudo_norm"):
        bias = Huber(form=form)
        change = signal_of(bias, above, d) - signal_of(bias, below, d)
        assert change.norm().item() < 1e-8, form


def circulation(bias: Bias, d: Tensor) -> float:
    """The work of the signal around a square of residuals: 0 for every gradient (Green's theorem)."""
    corners = torch.tensor([[0.2, 0.3], [1.4, 0.3], [1.4, 1.1], [0.2, 1.1], [0.2, 0.3]], dtype=F64)
    total, n = 0.0, 4000
    share = (torch.arange(n, dtype=F64) + 0.5).unsqueeze(-1) / n
    for start, end in itertools.pairwise(corners):
        path = start + share * (end - start)
        total += (signal_of(bias, path, d.expand(n, 1)) @ (end - start)).mean().item()
    return total


def test_the_switch_has_no_loss_at_all() -> None:
    """Not only none that the paper names: its signal does work around a closed path, a gradient's does not."""
    d = torch.full((1, 1), 1.0, dtype=F64)
    assert abs(circulation(Huber(form="switch"), d)) > 0.01
    for form in ("coordinate", "norm", "pseudo", "pseudo_norm"):
        assert abs(circulation(Huber(form=form), d)) < 1e-6, form


def test_a_threshold_for_each_channel_of_a_norm_is_no_gradient() -> None:
    """Section 5.4 declares d_t channel-wise and Eq. 15 compares it with a norm: that clips each channel by the norm,
    which does work around a closed path, so norms refuse it. Eq. 14 takes one for each channel.
    """
    d = torch.tensor([[0.5, 1.2]], dtype=F64)

    class Printed:
        def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
            r = p - v
            return r * (d / r.norm(dim=-1, keepdim=True)).clamp(max=1.0)

    assert abs(circulation(Printed(), torch.ones(1, 1, dtype=F64))) > 0.01
    with pytest.raises(ValueError, match="compares its threshold with a norm"):
        signal_of(Huber(form="norm"), normal(1, 2, seed=7), d)
    r = normal(40, 2, seed=8)
    found = signal_of(Huber(form="coordinate"), r, d.expand(40, 2))
    expected = torch.stack([r[:, j].clamp(-d[0, j].item(), d[0, j].item()) for j in range(2)], -1)
    assert torch.equal(found, expected)


# Norms at zero


@pytest.mark.parametrize("spec", [{"huber": {"form": "norm"}}, {"huber": {"form": "switch"}}, "value_shift"])
def test_norms_write_nothing_at_a_zero_residual(spec: object) -> None:
    """r/|r| is 0/0 in print, and the gradient of the printed norm is NaN there."""
    r = torch.zeros(1, 5, dtype=F64, requires_grad=True)
    assert torch.isnan(r / r.norm()).all()
    d = torch.full((1, 1), 0.3, dtype=F64)
    u = signal_of(BIAS.parse(spec), r, d)
    assert u.abs().max() == 0
    (found,) = torch.autograd.grad(u.sum(), r)
    assert torch.isfinite(found).all()


# Eq. 17: the worst case over a ball


def shifts(count: int, radius: Tensor) -> Iterator[Tensor]:
    """Random points of the balls of the given radii [7,1] in 5 dimensions, half of them on the surface."""
    generator = torch.Generator().manual_seed(11)
    for i in range(count):
        x = torch.randn(7, 5, generator=generator, dtype=F64)
        share = 1.0 if i % 2 else torch.rand(7, 1, generator=generator, dtype=F64)
        yield radius * share * x / x.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_equation_17_is_the_worst_case_over_the_ball(size: float) -> None:
    """The square, the cross term and D^2/2 are all of the maximum: without any of them a shift exceeds the loss."""
    r, radius = size * normal(7, 5, seed=9), size * (0.1 + 3 * uniform(7, 1, seed=10))
    loss = loss_of(ValueShift(), r, radius)
    length = r.norm(dim=-1, keepdim=True)
    worst = -radius * r / length
    attained = (r - worst).square().sum(-1) / 2
    torch.testing.assert_close(loss, attained, rtol=1e-6 if size < 1 else 1e-10, atol=1e-12)
    short = (length.square() / 2 + radius * length).squeeze(-1)  # D^2/2 is no constant: D is a gate
    assert (attained > short).all()
    closest = torch.full((7,), float("-inf"), dtype=F64)
    for shift in shifts(2000, radius):
        attacked = (r - shift).square().sum(-1) / 2
        assert (attacked <= loss * (1 + 1e-12)).all()
        closest = torch.maximum(closest, attacked / loss)
    assert (closest > 0.8).all()  # the search came near: the bound is tight, not merely large


def test_the_radius_of_equation_17_has_a_gradient_of_its_own() -> None:
    """The envelope theorem: dl/dD = |r| + D, the length of the worst residual; without D^2/2 it would be |r|."""
    r, radius = normal(7, 5, seed=12), (0.1 + uniform(7, 1, seed=13)).requires_grad_()
    (found,) = torch.autograd.grad(loss_of(ValueShift(), r, radius).sum(), radius)
    worst = -radius * r / r.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found, (r - worst).norm(dim=-1, keepdim=True).detach(), rtol=1e-9, atol=0)


# KL, which Fig. 1 only names


def test_kl_is_the_cross_entropy_up_to_what_the_memory_cannot_change() -> None:
    p, v = normal(7, 5, seed=14), normal(7, 5, seed=15)
    expected = gradient(lambda x: -(torch.softmax(v, -1) * torch.log_softmax(x, -1)).sum(-1), p)
    torch.testing.assert_close(BIAS.parse("kl").signal(p, v, None), expected, rtol=1e-12, atol=1e-15)
    loss = BIAS.parse("kl").loss(v + 3.0, v, None)
    assert loss is not None
    torch.testing.assert_close(loss, torch.zeros(7, dtype=F64), rtol=0, atol=1e-12)
