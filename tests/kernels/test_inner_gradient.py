"""The recurrence against autograd of the inner loss, in a loop that shares nothing with it but the options' losses.

The weights of each write are differentiated by `torch.autograd.grad` of the bias's own loss; only then are momentum,
keep and link applied as the paper's equations say. Biases that are a rule for u and no loss (Yaad's switch, Remark 5)
are tested with their preset and their equation.
"""

from __future__ import annotations

import pytest
import torch
from memories import case, evaluate, points, worst
from torch import Tensor

from miras_search.kernels import recurrence
from miras_search.kernels.state import State
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Plain


def plain_loop(
    point: DesignPoint, inputs: Inputs, start: tuple[Tensor, ...], static: dict[str, Tensor]
) -> tuple[Tensor, State]:
    """Exact gradients, one sequence and head at a time, differentiable."""
    batch, tokens, heads, _ = inputs.q.shape
    writes, outputs = point.algorithm.writes, []
    finals: list[list[tuple[Tensor, ...]]] = [[], []]
    for b in range(batch):
        for h in range(heads):
            dual = [point.retention.origin(z[h]) for z in start]
            surprise = [torch.zeros_like(z) for z in dual]
            fixed = {name: value[h : h + 1] for name, value in static.items()}
            own = {name: value[h] for name, value in static.items()}  # of one head's weights, which have no axis for it

            def forward(x: Tensor, weights: list[Tensor], fixed: dict[str, Tensor] = fixed) -> Tensor:
                lifted = x.view(1, 1, 1, -1)
                return point.memory.forward(lifted, lambda layer, y: y @ weights[layer], fixed).view(-1)

            def weights_of(z: list[Tensor], own: dict[str, Tensor] = own) -> list[Tensor]:
                return list(point.retention.links(tuple(z), own))

            rows = []
            for t in range(tokens):
                for j in range(writes):
                    n = t * writes + j
                    keep = inputs.log_keep[b, t, h].exp() if j == 0 else torch.ones((), dtype=inputs.q.dtype)
                    at = faded(point, dual, keep, own) if point.execution.gradient_at == "decayed" else dual
                    weights = weights_of(at)
                    if not any(w.requires_grad for w in weights):
                        weights = [w.requires_grad_() for w in weights]
                    threshold = None if inputs.threshold is None else inputs.threshold[b, n, h].view(1)
                    loss = point.bias.loss(forward(inputs.k[b, n, h], weights), inputs.v[b, n, h], threshold)
                    assert loss is not None
                    found = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
                    g = [torch.zeros_like(w) if x is None else x for w, x in zip(weights, found, strict=True)]
                    change = [-inputs.step[b, n, h] * x for x in g]
                    if inputs.momentum is not None:
                        beta = inputs.momentum[b, n, h]
                        surprise = change = [beta * s + c for s, c in zip(surprise, change, strict=True)]
                    if point.retention.form == "dual":
                        dual = [keep * z + c for z, c in zip(dual, change, strict=True)]
                    else:  # gates in place have loops of their own in tests/space
                        step, pairs = inputs.step[b, n, h], zip(dual, change, strict=True)
                        dual = [point.retention.step(z, keep, c, step, own) for z, c in pairs]
                rows.append(forward(inputs.q[b, t, h], weights_of(dual)))
            outputs.append(torch.stack(rows))
            finals[0].append(tuple(dual))
            finals[1].append(tuple(surprise))
    y = torch.stack(outputs).view(batch, heads, tokens, -1).transpose(1, 2)

    def gathered(columns: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        return tuple(
            torch.stack(layer).view(batch, heads, *layer[0].shape) for layer in map(list, zip(*columns, strict=True))
        )

    momentum = (gathered(finals[1]),) if point.algorithm.has_momentum else ()
    return y, State(gathered(finals[0]), momentum)


def faded(point: DesignPoint, dual: list[Tensor], keep: Tensor, static: dict[str, Tensor]) -> list[Tensor]:
    """What is kept, after keep and before the write."""
    if point.retention.form == "dual":
        return [keep * z for z in dual]
    nothing = torch.zeros_like(keep)
    return [point.retention.step(z, keep, torch.zeros_like(z), nothing, static) for z in dual]


def has_loss(point: DesignPoint) -> bool:
    zeros = torch.zeros(1, 2)
    return point.bias.loss(zeros, zeros, torch.ones(1, 1)) is not None


PLAIN: list[Plain] = ["gd", "momentum", {"multi_step": {"writes": 2}}]  # other algorithms have loops of their own
EXACT = [
    (i, p)
    for i, p in enumerate(points(900, seed=7, algorithms=PLAIN))
    if not p.chunked and has_loss(p) and not (p.bias.slope == 0 and p.memory.bare)
][:50]


@pytest.mark.parametrize(("i", "point"), EXACT, ids=[f"{i}-{p.hash}" for i, p in EXACT])
def test_recurrence_descends_the_inner_loss(i: int, point: DesignPoint) -> None:
    given = case(point, tokens=4, seed=i, batch=1)
    expected, expected_gradients, _ = evaluate(plain_loop, point, given)
    found, gradients, _ = evaluate(recurrence.run, point, given)
    assert worst(found, expected) < 1e-10
    assert worst(gradients, expected_gradients) < 1e-9


def test_the_sample_covers_every_option() -> None:
    seen = " ".join(str(point) for _, point in EXACT)
    for word in (
        "mlp",
        "gated_mlp",
        "matrix",
        "l2",
        "l1",
        "lp",
        "logcosh",
        "huber",
        "form=pseudo,",
        "form=pseudo_norm",
        "value_shift",
        "kl",
        "momentum",
        "multi_step",
        "dot",
        "f_divergence",
        "elastic_net",
        "lq",
        "bregman",
    ):
        assert word in seen
