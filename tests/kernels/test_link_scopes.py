"""Two things that Miras leaves open of Moneta: a norm over all layers together, and chunks that restart in place.

Each against a loop of its own, with autograd for the gradients, one head and sequence at a time.
"""

from __future__ import annotations

import pytest
import torch
from memories import Case, case
from torch import Tensor

from miras_search.kernels import chunkwise, recurrence
from miras_search.space.design import DesignPoint

EPSILON = 1e-4
RUNS = {"recurrence": recurrence.run, "chunkwise": chunkwise.run}
DEEP = {"mlp": {"expansion": 2, "residual": False, "norm": "none", "activation": "tanh"}}


def lq(q: float, over: str, **settings: object) -> dict[str, object]:
    return {"lq": {"q": q, "over": over, "reading": "literal", "epsilon": EPSILON, **settings}}


def linked(layers: list[Tensor], q: float, over: str) -> list[Tensor]:
    """A / |A|_q^(q-2), with one norm for all layers or one for each."""
    sums = [x.abs().pow(q).sum() for x in layers]
    norms = [torch.stack(sums).sum() if over == "memory" else one for one in sums]
    return [x / norm.pow(1 / q) ** (q - 2) for x, norm in zip(layers, norms, strict=True)]


def looped(given: Case, q: float, over: str, chunk: int | None, restart: bool) -> tuple[Tensor, list[Tensor]]:
    """Reads [B,T,H,V] of a two-layer memory under the half square, and the last head's last accumulators.

    chunk: frozen gradients, and the link applied at a chunk's end only; None: exact ones, the link at every token.
    """
    x, reads = given.inputs, torch.zeros_like(given.inputs.v)

    def predicted(w: list[Tensor], k: Tensor) -> Tensor:
        return torch.tanh(k @ w[0]) @ w[1]

    for b in range(x.q.shape[0]):
        for h in range(x.q.shape[2]):
            kept = [z[h] for z in given.start]
            for t in range(x.q.shape[1]):
                if chunk is not None and t % chunk == 0:
                    frozen = linked(kept, q, over)
                    kept = frozen if restart else kept
                    inside = frozen
                at = [w.detach().requires_grad_() for w in (linked(kept, q, over) if chunk is None else frozen)]
                loss = (predicted(at, x.k[b, t, h]) - x.v[b, t, h]).square().sum() / 2
                gradients = torch.autograd.grad(loss, at)
                a, e = x.log_keep[b, t, h].exp(), x.step[b, t, h]
                kept = [a * z - e * g for z, g in zip(kept, gradients, strict=True)]
                if chunk is None:
                    inside = linked(kept, q, over)
                else:
                    inside = [a * w - e * g for w, g in zip(inside, gradients, strict=True)]
                reads[b, t, h] = predicted(inside, x.q[b, t, h])
    if chunk is not None and restart and x.q.shape[1] % chunk == 0:
        kept = linked(kept, q, over)
    return reads, kept


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("over", ["memory", "matrix"])
@pytest.mark.parametrize(("chunk", "restart"), [(None, False), (4, False), (4, True)])
def test_a_two_layer_moneta_is_its_loop(run: str, over: str, chunk: int | None, restart: bool) -> None:
    execution = {"gradient": "frozen", "chunk": chunk, "link_refresh": "chunk"} if chunk else {"gradient": "exact"}
    spec = {"memory": DEEP, "retention": lq(1.5, over, restart=restart), "execution": execution}
    point = DesignPoint.parse(spec)
    for tokens in (11, 8):
        given = case(point, tokens, seed=tokens, batch=1)
        expected, kept = looped(given, 1.5, over, chunk, restart)
        y, state = RUNS[run](point, given.inputs, given.start, {})
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)  # of epsilon
        for z, one in zip(state.dual, kept, strict=True):
            torch.testing.assert_close(z[0, -1], one, rtol=1e-5, atol=1e-6)
        other, _ = looped(given, 1.5, "matrix" if over == "memory" else "memory", chunk, restart)
        assert (other - y).abs().max() > 1e-3
        if chunk:
            other, _ = looped(given, 1.5, over, chunk, not restart)
            assert (other - y).abs().max() > 1e-3


@pytest.mark.parametrize("run", RUNS)
def test_the_literal_moneta_oscillates_where_chunks_restart_in_place(run: str) -> None:
    """q = 4 and nothing written: norms 2, 1/2, 2, 1/2, ...; the accumulator that persists stays what it is."""
    norms: dict[bool, list[float]] = {}
    for restart in (True, False):
        execution = {"gradient": "frozen", "chunk": 2, "link_refresh": "chunk"}
        spec = {"retention": lq(4.0, "matrix", keep=1.0, restart=restart), "execution": execution}
        point = DesignPoint.parse(spec)
        given = case(point, 8, seed=1, batch=1, heads=1)
        nothing = given.inputs._replace(step=torch.zeros_like(given.inputs.step))
        start = (given.start[0] / given.start[0].abs().pow(4).sum().pow(0.25) / 2,)
        found, state = [], None
        for t in range(0, 8, 2):
            _, state = RUNS[run](point, nothing.tokens(t, t + 2), start, {}, state)
            weights = state.tangent[0] if state.tangent else state.dual[0]
            found.append(weights.abs().pow(4).sum().pow(0.25).item())
        norms[restart] = found
    assert norms[True] == pytest.approx([0.5, 2, 0.5, 2], rel=1e-3)
    assert norms[False] == pytest.approx([2, 2, 2, 2], rel=1e-3)


def test_a_start_over_all_layers_is_what_is_read_at_first() -> None:
    point = DesignPoint.parse({"memory": DEEP, "retention": {"lq": {"over": "memory", "epsilon": EPSILON}}})
    given = case(point, 1, seed=3)
    gate = point.retention
    found = gate.links(gate.starts(given.start), {})
    for w, one in zip(given.start, found, strict=True):
        torch.testing.assert_close(one, w, rtol=2e-2, atol=2e-2)
    alone = gate.links(tuple(gate.start(w) for w in given.start), {})
    assert max((one - w).abs().max() for one, w in zip(alone, given.start, strict=True)) > 0.1


def test_what_changes_nothing_leaves_the_hash() -> None:
    """One layer has one norm, and without a link at chunk ends nothing restarts."""
    chunks = {"gradient": "frozen", "link_refresh": "chunk"}

    def hash_of(memory: object, execution: object, **settings: object) -> str:
        return DesignPoint.parse({"memory": memory, "retention": {"lq": settings}, "execution": execution}).hash

    assert hash_of("matrix", {}, over="memory") == hash_of("matrix", {})
    assert hash_of("mlp", {}, over="memory") != hash_of("mlp", {})
    assert hash_of("matrix", {}, restart=True) == hash_of("matrix", {})
    assert hash_of("matrix", chunks, restart=True) != hash_of("matrix", chunks)
    assert hash_of("matrix", chunks, q=2.0, restart=True) == hash_of("matrix", {"gradient": "frozen"}, q=2.0)
