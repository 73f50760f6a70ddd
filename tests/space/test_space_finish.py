"""The end of a memory, x + LN(y), and its derivatives by hand, against autograd."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from miras_search.space.memory.finish import Finish

KINDS = [Finish(r, n, a) for r, n, a in itertools.product((False, True), repeat=3) if n or not a]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("finish", KINDS, ids=str)
def test_value_and_two_derivatives(finish: Finish) -> None:
    y, x, g, c, e = (normal(2, 3, 5, seed=seed) for seed in range(5))
    static = {name: normal(2, 1, 5, seed=7 + i) for i, name in enumerate(("norm.weight", "norm.bias")) if finish.affine}
    value = finish(y, x, static)
    (pulled,) = torch.autograd.grad(value, y, g, create_graph=True)
    leaves = [g, y, *static.values()]
    # the value's gradient e and the pulled gradient's c come together, as in a chunk
    of_g, of_y, *of_static = torch.autograd.grad(
        [value, pulled], leaves, [e, c], allow_unused=True, materialize_grads=True
    )
    with torch.no_grad():
        place = finish.at(y, static)
        bent_g, bent_y = place.bent(place.along(g), place.pulled(g), c)
        found = [place.value(x), place.pulled(g), bent_g, bent_y + place.pulled(e), *place.parameters(e, g, c).values()]
        again = finish.again(y, *((y, y) if place.mean is None else (place.mean, place.rate)), static)
        torch.testing.assert_close(again.value(x), value, rtol=1e-12, atol=1e-12)
        several = finish.at(torch.stack([y, -y]), static).unbind()
        torch.testing.assert_close(several[0].pulled(g), pulled, rtol=1e-12, atol=1e-12)
    for one, other in zip(found, [value, pulled, of_g, of_y, *of_static], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
