"""Coefficients of a chunk against an explicit loop over its writes, with gates at the ends of their ranges."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from miras_search.space.algorithm import ALGORITHM, Coefficients, Gd, Momentum, MultiStep
from miras_search.space.gates import LOG_FLOOR, fixed

N = 12


def unrolled(keep: Tensor, step: Tensor, momentum: Tensor | None) -> Coefficients:
    """The same coefficients, by following Z and S as vectors over (Z_0, S_0, g_1 .. g_N) write by write."""
    z, s = torch.zeros(N + 2, dtype=keep.dtype), torch.zeros(N + 2, dtype=keep.dtype)
    z[0] = s[1] = 1.0
    rows = []
    for t in range(N):
        g = torch.zeros_like(z)
        g[2 + t] = 1.0
        change = -step[t] * g
        if momentum is not None:
            s = change = momentum[t] * s + change
        z = keep[t] * z + change
        rows.append(z)
    table = torch.stack(rows)
    if momentum is None:
        return Coefficients(table[:, 0], None, -table[:, 2:], None, None)
    return Coefficients(table[:, 0], table[:, 1], -table[:, 2:], s[1], -s[2:])


def drawn(kind: str, seed: int, dtype: torch.dtype) -> Tensor:
    x = torch.rand(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    if kind in ("0", "1", "0.9999"):
        return torch.full_like(x, float(kind))
    if kind == "some 0":
        return torch.where(torch.arange(N) % 5 == 3, torch.zeros_like(x), x)
    return 0.5 + 0.5 * x


KINDS = ("0", "1", "some 0", "random")


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("momentum", [None, "0", "0.9999", "some 0", "random"])
@pytest.mark.parametrize("keep", ["none", *KINDS])
def test_coefficients_equal_the_unrolled_loop(
    keep: str, momentum: str | None, dtype: torch.dtype, error: float
) -> None:
    step, a = drawn("random", 1, dtype), drawn("1" if keep == "none" else keep, 2, dtype)
    b = None if momentum is None else drawn(momentum, 3, dtype)
    log_keep = None if keep == "none" else a.log().clamp(min=LOG_FLOOR)
    algorithm = Gd() if momentum is None else Momentum()
    found, expected = algorithm.coefficients(log_keep, step, b), unrolled(a, step, b)
    expected = expected._replace(keep=None) if log_keep is None else expected  # nothing is said where all is kept
    for name, x, y in zip(Coefficients._fields, found, expected, strict=True):
        assert (x is None) == (y is None), name
        if x is not None and y is not None:
            assert x.shape == y.shape, name
            assert (x - y).abs().max() < error, name


def test_writes_of_several_steps_are_those_of_descent() -> None:
    step, log_keep = drawn("random", 1, torch.float64), drawn("random", 2, torch.float64).log()
    for found, expected in zip(
        MultiStep(writes=3).coefficients(log_keep, step, None), Gd().coefficients(log_keep, step, None), strict=True
    ):
        assert (found is None and expected is None) or torch.equal(found, expected)


@pytest.mark.parametrize("name", ["gd", "momentum", "multi_step", "implicit", "erase_write", "omega"])
def test_leading_axes_are_independent(name: str) -> None:
    algorithm = ALGORITHM.parse(name)
    gates = [torch.stack([drawn("random", 10 * i + j, torch.float64) for j in range(6)]).view(2, 3, N) for i in (1, 2)]
    log_keep, step = gates[0].log(), gates[1]
    momentum = 0.9 * gates[0] if algorithm.has_momentum else None
    together = algorithm.coefficients(log_keep, step, momentum)
    for i, j in itertools.product(range(2), range(3)):
        alone = algorithm.coefficients(log_keep[i, j], step[i, j], None if momentum is None else momentum[i, j])
        for x, y in zip(together, alone, strict=True):
            assert (x is None) == (y is None)
            if x is not None and y is not None:
                torch.testing.assert_close(x[i, j], y, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("keep", KINDS)
@pytest.mark.parametrize("momentum", [None, "0.9999", "some 0", "random"])
def test_coefficients_have_finite_gradients(keep: str, momentum: str | None) -> None:
    step = drawn("random", 1, torch.float64).requires_grad_()
    log_keep = drawn(keep, 2, torch.float64).log().clamp(min=LOG_FLOOR).requires_grad_()
    b = None if momentum is None else drawn(momentum, 3, torch.float64).requires_grad_()
    algorithm = Gd() if momentum is None else Momentum()
    found = [x for x in algorithm.coefficients(log_keep, step, b) if x is not None]
    leaves = [x for x in (step, log_keep, b) if x is not None]
    for gradient in torch.autograd.grad(sum(x.sum() for x in found), leaves):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("kind", ["0", "some 0", "random", "1"])
def test_the_gradient_of_a_momentum_is_the_loops_even_at_zero(kind: str) -> None:
    step, log_keep = drawn("random", 1, torch.float64), drawn("random", 2, torch.float64).log()
    found = []
    for coefficients in (
        lambda b: Momentum().coefficients(log_keep, step, b),
        lambda b: unrolled(log_keep.exp(), step, b),
        lambda b: ALGORITHM.parse({"omega": {"momentum": "data"}}).coefficients(log_keep, step, b),
    ):
        b = drawn(kind, 3, torch.float64).requires_grad_()
        parts = [x for x in coefficients(b) if x is not None]
        weights = [drawn("random", 10 + i, torch.float64).sum() * torch.ones_like(x) for i, x in enumerate(parts)]
        total = torch.stack([(w * x).sum() for w, x in zip(weights, parts, strict=True)]).sum()
        found.append(torch.autograd.grad(total, b)[0])
    for gradient in (found[0], found[2]):
        torch.testing.assert_close(gradient, found[1], rtol=1e-12, atol=1e-12)
    assert (found[0] != 0).all()


def test_momentum_needs_its_gates() -> None:
    with pytest.raises(ValueError, match="needs momentum gates"):
        Momentum().coefficients(None, torch.ones(3), None)


def test_canonical_forms() -> None:
    assert MultiStep(writes=1).canonical() == MultiStep(writes=1, own_keys=False).canonical() == Gd()
    assert Momentum(momentum=fixed(0.0)).canonical() == Gd()
    assert Momentum(momentum=fixed(0.5)).canonical() == Momentum(momentum=fixed(0.5))
    assert MultiStep(writes=2).canonical() == MultiStep(writes=2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"multi_step": {"writes": 0}}, "algorithm.multi_step.writes: 0 is not between 1 and 8"),
        ({"multi_step": {"writes": 9}}, "algorithm.multi_step.writes: 9 is not between 1 and 8"),
        ({"multi_step": {"writes": 2.5}}, "algorithm.multi_step.writes: expected a whole number, got 2.5"),
        ({"multi_step": {"own_keys": 1}}, "algorithm.multi_step.own_keys: expected true or false, got 1"),
        ({"momentum": {"momentum": 1.0}}, "algorithm.momentum.momentum: a fixed momentum lies in [0, 1)"),
        ({"momentum": {"momentum": {"squash": "softplus"}}},
         "algorithm.momentum.momentum: momentum is squashed by a sigmoid"),
        ({"momentum": {"momentum": {"scale": 2.0}}},
         "algorithm.momentum.momentum: momentum lies in [0, 1): scale 2 lets it reach 2"),
        ("momentun", "algorithm: unknown algorithm 'momentun' (did you mean 'momentum'?)"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(spec: object, message: str) -> None:
    from miras_search.space.fields import SpecError

    with pytest.raises(SpecError) as caught:
        ALGORITHM.parse(spec, ("algorithm",))
    assert str(caught.value) == message
