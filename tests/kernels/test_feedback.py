"""Operators with a backward of their own, against the same written plainly under autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from miras_search.kernels import feedback
from miras_search.kernels.triangular import solved

MEMORIES, CHUNKS, WRITES, ROWS, VALUES = 2, 3, 5, 4, 2
KEEPS: dict[str, tuple[int, ...] | None] = {"all": None, "one part": (1, 1), "two parts": (2, 2)}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(keep: str, *, back: bool) -> list[Tensor | None]:
    total, shape = MEMORIES * CHUNKS, KEEPS[keep]
    found: list[Tensor | None] = [
        None if shape is None else normal(total, *shape, seed=1),
        normal(total, WRITES, ROWS, seed=2) if back else None,
        normal(total, WRITES, VALUES, seed=3),
        normal(total, ROWS, WRITES, seed=4),
        normal(MEMORIES, ROWS, VALUES, seed=5),
    ]
    return [None if x is None else x.requires_grad_() for x in found]


def plainly(
    keep: Tensor | None, back: Tensor | None, offset: Tensor, ends: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Chunk i of memory g is row g * CHUNKS + i."""
    x, signals, starts = start, [], []
    for i in range(CHUNKS):
        u = offset[i::CHUNKS] if back is None else offset[i::CHUNKS] + back[i::CHUNKS] @ x
        starts.append(x)
        signals.append(u)
        if keep is not None:
            parts = x.split(ROWS // keep.shape[-1], 1)
            rows = [sum(a[:, None, None] * part for a, part in zip(row, parts, strict=True)) for row in _cells(keep, i)]
            x = torch.cat(rows, 1)
        x = x + ends[i::CHUNKS] @ u
    return torch.stack(signals, 1).flatten(0, 1), torch.stack(starts, 1).flatten(0, 1), x


def _cells(keep: Tensor, i: int) -> list[tuple[Tensor, ...]]:
    return [row.unbind(1) for row in keep[i::CHUNKS].unbind(1)]


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("keep", KEEPS)
def test_feedback_and_its_gradients_are_those_of_the_plain_loop(keep: str, back: bool) -> None:
    inputs = given(keep, back=back)
    found, expected = feedback.run(*inputs), plainly(*inputs)
    weights = [normal(*x.shape, seed=6 + i) for i, x in enumerate(expected)]
    leaves = [x for x in inputs if x is not None]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(
        torch.autograd.grad([*found], leaves, weights), torch.autograd.grad([*expected], leaves, weights), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_feedback_under_vmap_of_grad_is_a_loop() -> None:
    inputs = [x for x in given("two parts", back=True) if x is not None]
    stacked = [torch.stack([x.detach(), 2 * x.detach()]) for x in inputs]

    def loss(*inputs: Tensor) -> Tensor:
        u, starts, last = feedback.run(*inputs)
        return u.square().sum() + starts.square().sum() + last.sum()

    together = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2, 3, 4)))(*stacked)
    for n in range(2):
        alone = torch.func.grad(loss, argnums=(0, 1, 2, 3, 4))(*(x[n] for x in stacked))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[n], b)


def test_solutions_fulfil_their_equation() -> None:
    lower, rights = normal(3, 5, 5, seed=1).tril(-1), (normal(3, 5, 2, seed=2), normal(3, 5, 4, seed=3))
    for right, x in zip(rights, solved(lower, *rights), strict=True):
        torch.testing.assert_close(x, right + lower @ x)


def test_solutions_pass_gradcheck_twice() -> None:
    lower, one, other = normal(2, 4, 4, seed=1), normal(2, 4, 2, seed=2), normal(2, 4, 3, seed=3)
    inputs = tuple(x.requires_grad_() for x in (lower, one, other))
    assert torch.autograd.gradcheck(lambda lower, *rights: solved(lower.tril(-1), *rights), inputs)
    assert torch.autograd.gradgradcheck(lambda lower, *rights: solved(lower.tril(-1), *rights), inputs)


def test_a_solution_that_nobody_asks_for_has_no_part_in_the_gradient() -> None:
    lower, one, other = normal(2, 4, 4, seed=1), normal(2, 4, 2, seed=2), normal(2, 4, 3, seed=3)
    gradients = []
    for rights in ((one,), (one, other)):
        leaf = lower.tril(-1).requires_grad_()
        gradients += torch.autograd.grad(solved(leaf, *rights)[0].square().sum(), leaf)
    torch.testing.assert_close(gradients[0], gradients[1])
