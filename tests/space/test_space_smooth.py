"""Activations with a kept derivative: the same function as torch's, and the same first and second derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from miras_search.space import smooth

FUNCTIONS = {"gelu": (smooth.gelu, functional.gelu), "silu": (smooth.silu, functional.silu)}
COUNT = smooth.WORTH


def points() -> Tensor:
    x = 3 * torch.randn(COUNT, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    x[:5] = torch.tensor([0.0, -0.0, 40.0, -40.0, 1e-300])
    return x.requires_grad_()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_and_two_derivatives(name: str) -> None:
    ours, theirs = FUNCTIONS[name]
    x = points()
    weights = torch.linspace(-1, 1, COUNT, dtype=torch.float64).requires_grad_()
    found, expected = [], []
    for function, kept in ((ours, found), (theirs, expected)):
        y = function(x)
        (slope,) = torch.autograd.grad(y, x, weights, create_graph=True)
        kept += [y, slope, *torch.autograd.grad((slope.sin() + y).sum(), (x, weights))]
    assert type(ours(x).grad_fn) is not type(theirs(x).grad_fn)  # it is another way there
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(smooth.DERIVATIVES))
def test_derivatives_by_name_are_autograds(name: str) -> None:
    x = points()
    g = torch.linspace(-1, 1, COUNT, dtype=torch.float64)
    y = getattr(functional, name)(x)
    (pulled,) = torch.autograd.grad(y, x, g, create_graph=True)
    bent = torch.autograd.grad(pulled.sum(), x)[0] if pulled.requires_grad else torch.zeros_like(x)
    f = smooth.DERIVATIVES[name]
    filled, value, slope, bend = (torch.full_like(g, torch.nan) for _ in range(4))
    f.fill(x.detach(), filled)
    f.jet(x.detach(), value, slope, bend)
    drawn = g.clone()
    f.pull(drawn, x.detach())
    found = (filled, drawn, value, g * slope, g * bend)
    for one, other in zip(found, (y, pulled, y, pulled, bent), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inside_functional_transforms(name: str) -> None:
    ours, theirs = FUNCTIONS[name]
    x = points().detach().view(2, -1)

    def inner(function, x: Tensor) -> Tensor:
        _, pullback = torch.func.vjp(function, x)
        return pullback(torch.cos(x))[0].square().sum()

    def outer(function) -> Tensor:
        return torch.func.vmap(torch.func.grad(lambda row: inner(function, row)))(x)

    wide = torch.cat([x] * 2, 1)  # a row alone is long enough for the kept derivative
    x = wide
    torch.testing.assert_close(outer(ours), outer(theirs), rtol=1e-12, atol=1e-12)
