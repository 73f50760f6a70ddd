"""Products that a recorded graph has as loops: the same numbers, and only where loops are as fast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from miras_search.training.compiled import traced

EYES = torch.eye(3).expand(2, 3, 3).contiguous()
CASES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[int, ...], tuple[int, ...], bool]] = {
    "rows": (torch.bmm, (6, 16, 16), (6, 16, 16), True),
    "of all sizes": (torch.bmm, (2, 3, 5), (2, 5, 1), True),
    "left turned": (lambda a, b: a.mT @ b, (6, 4, 16), (6, 4, 7), True),
    "added to": (lambda a, b: torch.baddbmm(torch.ones(3, 2, 4), a, b), (3, 2, 5), (3, 5, 4), True),
    "added to, expanded": (lambda a, b: torch.baddbmm(torch.ones(4), a, b), (3, 2, 5), (3, 5, 4), True),
    "scaled": (lambda a, b: torch.baddbmm(torch.ones(3, 2, 4), a, b, beta=2), (3, 2, 5), (3, 5, 4), False),
    "right turned": (lambda a, b: a @ b.mT, (6, 16, 16), (6, 16, 16), False),
    "larger": (torch.bmm, (2, 16, 17), (2, 17, 16), False),
    "halves": (lambda a, b: (a.bfloat16() @ b.bfloat16()).float(), (2, 4, 4), (2, 4, 4), False),
    "a constant": (lambda a, b: torch.bmm(a, b) + torch.bmm(EYES, b), (2, 3, 3), (2, 3, 3), True),
    "changed in place": (lambda a, b: a.clone()[:, 1:].mul_(2) @ b, (2, 4, 4), (2, 4, 3), True),
    "no batch": (torch.mm, (4, 4), (4, 4), False),
}


@pytest.mark.parametrize("name", CASES)
def test_small_products_are_loops(name: str) -> None:
    product, left, right, looped = CASES[name]
    one, other = torch.randn(left), torch.randn(right)
    graph = traced(lambda a, b: (product(a, b).sin(),), one, other)
    (found,) = graph(one, other)
    torch.testing.assert_close(found, product(one, other).sin())
    kept = [str(node.target) for node in graph.graph.nodes if "mm" in str(node.target)]
    assert bool(kept) != looped


def test_what_a_loop_multiplies_is_computed_once_before_it() -> None:
    def function(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        masked, rows = a * torch.ones(4, 4).tril(), (b + 1).unbind(1)[0]
        return torch.bmm(masked, rows), torch.bmm(masked.mT, rows)

    a, b = torch.randn(5, 4, 4), torch.randn(5, 2, 4, 3)
    graph = traced(function, a, b)
    for found, expected in zip(graph(a, b), function(a, b), strict=True):
        torch.testing.assert_close(found, expected)
    kept = [node.args[0].target for node in graph.graph.nodes if node.target is torch.ops.aten.as_strided.default]
    assert sorted(map(str, kept)) == ["aten.add.Tensor", "aten.mul.Tensor"]
