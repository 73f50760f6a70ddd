"""Norms against torch's own, and their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from miras_search.models.norms import rms_norm, scaled


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rms_norm_and_its_gradients_are_torchs() -> None:
    x, weight, wanted = normal(2, 5, 3, seed=1).requires_grad_(), normal(3, seed=2).requires_grad_(), normal(3, seed=3)
    found, expected = rms_norm(x, weight, 1e-2), functional.rms_norm(x, (3,), weight, 1e-2)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad((found * wanted).sum(), [x, weight]),
        torch.autograd.grad((expected * wanted).sum(), [x, weight]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_scaled_passes_gradcheck_twice_and_zero_stays_zero(share: float) -> None:
    x = normal(3, 4, seed=1)
    x[1] = 0
    assert not scaled(x, share, 1e-6)[1].any()
    torch.testing.assert_close(scaled(x, share, 0.0)[0].norm() ** 2 * share, x.new_ones(()))
    assert torch.autograd.gradcheck(lambda x: scaled(x, share, 1e-2), (x.requires_grad_(),))
    assert torch.autograd.gradgradcheck(lambda x: scaled(x, share, 1e-2), (x,))


def test_scaled_under_vmap_of_grad_is_a_loop() -> None:
    x, wanted = normal(3, 2, 4, seed=1), normal(4, seed=2)
    gradient = torch.func.grad(lambda x: (scaled(x, 0.5, 1e-3) * wanted).sum())
    torch.testing.assert_close(torch.func.vmap(gradient)(x), torch.stack([gradient(one) for one in x]))
