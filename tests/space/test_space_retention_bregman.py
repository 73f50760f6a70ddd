"""Mirror descent under five potentials: minimisers with divergences by autograd, ranges, starts, overflow."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from gates_tried import F64, better_points, dual_write, normal
from memories import case
from torch import Tensor

from miras_search.kernels import recurrence
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.retention import RETENTION, L2Retention, NoRetention
from miras_search.space.retention.bregman import BregmanRetention

ROWS, COLS = 4, 3
G = normal(ROWS, COLS, seed=1)
B, R = 0.3, 3.0
# f of each potential, and the points of its domain nearest to any
F: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "logit": (lambda w: w * w.log() + (1 - w) * (1 - w).log(), lambda w: w.clamp(1e-9, 1 - 1e-9)),
    "tanh": (lambda w: w * torch.atanh(w) + torch.log(1 - w * w) / 2, lambda w: w.clamp(1e-9 - 1, 1 - 1e-9)),
    "arcsinh": (lambda w: w * torch.asinh(w / B) - (w * w + B * B).sqrt(), lambda w: w),
    "entropy": (lambda w: torch.special.xlogy(w, w) - w, lambda w: w.clamp(min=1e-12)),
    "power": (lambda w: w.abs().pow(R) / R, lambda w: w),
}  # fmt: skip


def gate(potential: str, **settings: object) -> BregmanRetention:
    settings = {"b": B, "r": R, "epsilon": 1e-14, **settings}
    option = RETENTION.parse({"bregman": {"potential": potential, **settings}})
    assert isinstance(option, BregmanRetention)
    return option


def slope(potential: str, w: Tensor) -> Tensor:
    """f'(w) by autograd."""
    leaf = w.clone().requires_grad_()
    (found,) = torch.autograd.grad(F[potential][0](leaf).sum(), leaf)
    return found


@pytest.mark.parametrize("potential", F)
@pytest.mark.parametrize(("e", "b"), [(0.3, math.inf), (0.5, 2.0), (1.5, 0.7)])
def test_a_write_minimises_its_objective(potential: str, e: float, b: float) -> None:
    """Locally, and with the global term of the same F: a = b/(b+e) and the step a e (`coupled`)."""
    option, (f, feasible) = gate(potential), F[potential]
    old = option.link(0.8 * normal(ROWS, COLS, seed=2), {})
    z = slope(potential, old)
    torch.testing.assert_close(option.link(z, {}), old, rtol=1e-6, atol=1e-7)

    def objective(w: Tensor, *, whole: bool = True) -> Tensor:
        linear = (z if whole else old) * (w - old)  # as printed: <W', W - W'> without grad F
        return ((w - old) * G).sum() + (f(w) - f(old) - linear).sum() / e + f(w).sum() / b

    a = 1.0 if b == math.inf else b / (b + e)
    found = dual_write(option, z, G, keep=a, step=a * e)
    assert better_points(objective, found, feasible) == 0
    assert better_points(lambda w: objective(w, whole=False), found, feasible) > 0
    wrong = [old, dual_write(option, z, -G, keep=a, step=a * e), dual_write(option, z, G, keep=a, step=2 * a * e)]
    if a < 1:
        wrong.append(dual_write(option, z, G, keep=a, step=e))
    for w in wrong:
        assert better_points(objective, w, feasible) > 0


def test_the_links_by_their_update_rules() -> None:
    """W from W' without an accumulator, as section 4.1 lists them."""
    e, z = 0.6, 0.7 * normal(ROWS, COLS, seed=3)

    def pair(potential: str) -> tuple[Tensor, Tensor]:
        option = gate(potential)
        return option.link(z, {}), dual_write(option, z, G, keep=1.0, step=e)

    old, new = pair("logit")
    torch.testing.assert_close(new, 1 / (1 + torch.exp(-(torch.log(old / (1 - old)) - e * G))))
    old, new = pair("tanh")
    torch.testing.assert_close(new, torch.tanh(torch.atanh(old) - e * G))
    old, new = pair("arcsinh")
    torch.testing.assert_close(new, B * torch.sinh(torch.asinh(old / B) - e * G))
    old, new = pair("entropy")
    torch.testing.assert_close(new, old * torch.exp(-e * G))
    old, new = pair("power")
    moved = torch.sign(old) * old.abs() ** (R - 1) - e * G
    torch.testing.assert_close(new, torch.sign(moved) * moved.abs() ** (1 / (R - 1)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("potential", "rest"), [("logit", 0.5), ("entropy", 1.0), ("tanh", 0.0), ("arcsinh", 0.0)])
def test_keep_draws_weights_to_where_the_potential_rests(potential: str, rest: float) -> None:
    option, z = gate(potential), normal(ROWS, COLS, seed=4)
    for _ in range(200):
        z = 0.9 * z
    w = option.link(z, {})
    torch.testing.assert_close(w, torch.full_like(w, rest), rtol=0, atol=1e-6)


RANGES = {"logit": (0.05, 0.95), "tanh": (-0.95, 0.95), "entropy": (0.05, 9.0), "arcsinh": (-9, 9), "power": (-9, 9)}


@pytest.mark.parametrize(("potential", "low", "high"), [(name, *ends) for name, ends in RANGES.items()])
def test_the_start_is_near_the_weights_where_the_range_allows(potential: str, low: float, high: float) -> None:
    option = gate(potential)
    w = torch.tensor([-3.0, -0.7, -0.1, 0.0, 0.1, 0.6, 3.0], dtype=F64)
    torch.testing.assert_close(option.link(option.start(w), {}), w.clamp(low, high), rtol=1e-6, atol=1e-6)
    begin = option.start(torch.zeros(3, dtype=F64)).requires_grad_()
    (found,) = torch.autograd.grad(option.link(begin, {}).sum(), begin)
    assert (found > 0.01).all()  # the outer loop can move an empty memory


@pytest.mark.parametrize("potential", F)
@pytest.mark.parametrize("size", [0.0, 1.0, 100.0, 1e5])
def test_float32_does_not_overflow(potential: str, size: float) -> None:
    """Nor does a square of the weights; exp(89) alone would."""
    option = RETENTION.parse({"bregman": {"potential": potential}})
    z = (size * normal(3, ROWS, COLS, seed=5)).float().requires_grad_()
    square = option.link(z, {}).square().sum()
    (found,) = torch.autograd.grad(square, z)
    assert torch.isfinite(square)
    assert torch.isfinite(found).all()
    if size == 1e5:
        assert not torch.isfinite(torch.exp(z.detach()).sum())


@pytest.mark.parametrize("potential", F)
def test_outer_gradients_and_vmap(potential: str) -> None:
    option = gate(potential, epsilon=1e-4)
    z = normal(2, 3, ROWS, COLS, seed=6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: option.link(x, {}), (z,), atol=1e-6)
    mapped = torch.func.vmap(torch.func.vmap(lambda x: option.link(x, {})))(z)
    torch.testing.assert_close(mapped, option.link(z, {}))


def test_the_sigmoid_rule_needs_the_old_weights_on_its_right() -> None:
    """Variant 5 prints W_t on both sides: W_t = sigmoid(logit(W_t) - e g) has no solution unless g = 0."""
    option, e = gate("logit"), 0.5
    w = dual_write(option, normal(ROWS, COLS, seed=7), G, keep=1.0, step=e)
    printed = torch.sigmoid(torch.logit(w) - e * G)
    assert ((printed - w).sign() == -G.sign()).all()
    assert (printed - w).abs().min() > 0


def test_spellings() -> None:
    def canonical(**settings: object) -> object:
        return RETENTION.parse({"bregman": settings}).canonical()

    l2 = L2Retention(L2Retention().keep.from_plain(0.9, ()), True)
    assert canonical(potential="power", r=2.0, keep=0.9, coupled=True) == l2
    assert canonical(potential="power", r=2.0, keep=1.0) == NoRetention()
    assert canonical(b=3.0, r=5.0, epsilon=0.1) == BregmanRetention()
    assert canonical(potential="arcsinh", b=3.0) == BregmanRetention(potential="arcsinh", b=3.0)
    assert canonical(potential="power", r=5.0) == BregmanRetention(potential="power", r=5.0)
    assert canonical(keep=1.0, coupled=True) == canonical(keep=1.0)
    plain = DesignPoint.parse({"retention": "l2"})
    power = DesignPoint.parse({"retention": {"bregman": {"potential": "power", "r": 2.0}}})
    given = case(plain, 7, seed=8)
    y, _ = recurrence.run(plain, given.inputs, given.start, {})
    z, _ = recurrence.run(power, given.inputs, given.start, {})
    torch.testing.assert_close(z, y, rtol=1e-12, atol=1e-12)


def test_settings_that_cannot_be() -> None:
    for spec, phrase in (
        ({"b": 0.0}, "must be positive"),
        ({"r": 1.0}, "1 is not above 1 and at most 16"),
        ({"epsilon": 0.0}, "must be positive"),
        ({"keep": 1.5}, "a keep gate lies in"),
    ):
        with pytest.raises(SpecError, match=phrase):
            RETENTION.parse({"bregman": spec})
