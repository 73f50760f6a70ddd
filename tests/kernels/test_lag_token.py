"""Memora's lag token (Eq. 30): a chunk's first token takes one true step, and the chunk is linear from there on."""

from __future__ import annotations

import pytest
import torch
from memories import Case, case, evaluate, worst
from torch import Tensor

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.space.design import DesignPoint

RUNS = {"recurrence": recurrence.run, "chunkwise": chunkwise.run, "best": dispatch.run}
CHUNK = 4


def design(retention: object = "kl", **settings: object) -> DesignPoint:
    execution = {"gradient": "frozen", "chunk": CHUNK, "link_refresh": "lag"}
    return DesignPoint.parse({"retention": retention, "execution": execution, **settings})


def memora(given: Case) -> tuple[Tensor, Tensor]:
    """Reads [B,T,H,V] and the logits [K,V] of the last head, by Eq. 30 to 32.

    Eq. 30 takes the logarithm of a memory that a linear chunk may have driven off the simplex; as the definition does,
    the logits of all writes stand for it. In the first chunk there is no difference.
    """
    x, reads = given.inputs, torch.zeros_like(given.inputs.v)
    for b in range(x.q.shape[0]):
        for h in range(x.q.shape[2]):
            logits = given.start[0][h]
            for t in range(x.q.shape[1]):
                a, e, k, v = x.log_keep[b, t, h].exp(), x.step[b, t, h], x.k[b, t, h], x.v[b, t, h]
                if t % CHUNK == 0:
                    old = torch.softmax(logits, 0)
                    g = torch.outer(k, k @ old - v)
                    if t == 0:
                        weights = torch.softmax(a * old.log() - e * g, 0)
                    else:
                        weights = torch.softmax(a * logits - e * g, 0)
                    anchor = weights
                else:
                    g = torch.outer(k, k @ anchor - v)
                    weights = a * weights - e * g
                logits = a * logits - e * g
                reads[b, t, h] = x.q[b, t, h] @ weights
    return reads, logits


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("tokens", [1, 4, 11])
def test_a_lagged_memora_is_the_loop_of_its_equations(run: str, tokens: int) -> None:
    point = design()
    given = case(point, tokens, seed=tokens)
    expected, logits = memora(given)
    y, state = RUNS[run](point, given.inputs, given.start, {})
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state.dual[0][-1, -1], logits, rtol=1e-10, atol=1e-10)
    assert state.position == tokens % CHUNK
    fast = DesignPoint.parse({"retention": "kl", "execution": {**point.execution.to_plain(), "link_refresh": "chunk"}})
    other, _ = RUNS[run](fast, given.inputs, given.start, {})
    assert (other - y).abs().max() > 1e-3


POINTS: dict[str, DesignPoint] = {
    "momentum": design("kl", algorithm="momentum"),
    "deep": design({"lq": {"over": "memory"}}, memory={"mlp": {"expansion": 2}}),
    "writes": design({"elastic_net": {"view": "ftrl"}}, algorithm={"multi_step": {"writes": 2}}),
    "window": design("bregman", algorithm={"omega": {"window": 3}}),
    "formed": design("kl", algorithm="adam"),
    "channels": design({"lq": {"keep": {"scope": "key_value"}}}),
    "refined": design("kl", execution={"gradient": {"refined": 1}, "chunk": 5, "link_refresh": "lag"}),
    "decayed": design("kl", execution={
        "gradient": "frozen", "chunk": 5, "link_refresh": "lag", "gradient_at": "decayed"}),
}  # fmt: skip


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("tokens", [4, 11])
def test_chunkwise_equals_the_recurrence(name: str, tokens: int) -> None:
    given = case(POINTS[name], tokens, seed=1)
    outputs, gradients, state = evaluate(recurrence.run, POINTS[name], given)
    found, slopes, after = evaluate(chunkwise.run, POINTS[name], given)
    assert worst(found, outputs) < 1e-9
    assert worst(slopes, gradients) < 1e-9
    assert list(after.tensors()) == list(state.tensors())
    assert after.position == state.position


@pytest.mark.parametrize("name", POINTS)
def test_segments_cut_anywhere_are_the_whole(name: str) -> None:
    point = POINTS[name]
    given = case(point, 11, seed=2)
    y, whole = chunkwise.run(point, given.inputs, given.start, given.static)
    state, parts = None, []
    for first, last in ((0, 1), (1, 5), (5, 11)):
        part, state = chunkwise.run(point, given.inputs.tokens(first, last), given.start, given.static, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), y, rtol=1e-9, atol=1e-9)
    assert state is not None
    for name_, tensor in whole.tensors().items():
        torch.testing.assert_close(state.tensors()[name_], tensor, rtol=1e-9, atol=1e-9)


def test_a_chunk_of_one_token_is_the_definition() -> None:
    one = design("kl", execution={"gradient": "frozen", "chunk": 1, "link_refresh": "lag"})
    exact = DesignPoint.parse({"retention": "kl"})
    assert one.hash == exact.hash
    given = case(one, 5, seed=3)
    y, _ = recurrence.run(one, given.inputs, given.start, {})
    torch.testing.assert_close(y, recurrence.run(exact, given.inputs, given.start, {})[0])
    torch.testing.assert_close(y, chunkwise.run(one, given.inputs, given.start, {})[0])


def test_without_a_link_there_is_nothing_to_lag() -> None:
    plain = {"gradient": "frozen", "chunk": CHUNK}
    assert design("l2").hash == DesignPoint.parse({"retention": "l2", "execution": plain}).hash
    given = case(design("l2"), 9, seed=4)
    expected, _ = recurrence.run(
        DesignPoint.parse({"retention": "l2", "execution": plain}), given.inputs, given.start, {}
    )
    for run in RUNS.values():
        torch.testing.assert_close(run(design("l2"), given.inputs, given.start, {})[0], expected)


def test_sweeps_that_make_no_difference_share_a_hash() -> None:
    """A chunk of 4 tokens has 3 after the lag token, for which 2 sweeps are exact."""
    hashes = [
        design("kl", execution={"gradient": {"refined": n}, "chunk": CHUNK, "link_refresh": "lag"}).hash
        for n in (1, 2, 3)
    ]
    assert hashes[1] == hashes[2] != hashes[0]
    given = case(design(), 9, seed=5)
    outputs = [
        recurrence.run(
            design("kl", execution={"gradient": {"refined": n}, "chunk": CHUNK, "link_refresh": "lag"}),
            given.inputs, given.start, {},
        )[0]
        for n in (1, 2, 3)
    ]  # fmt: skip
    torch.testing.assert_close(outputs[1], outputs[2])
    assert (outputs[0] - outputs[1]).abs().max() > 1e-6


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    "retention",
    [{"lq": {"q": 2}}, {"bregman": {"potential": "power", "r": 2}}, {"elastic_net": {"view": "ftrl", "shrink": 0}}],
    ids=lambda spec: next(iter(spec)),
)
@pytest.mark.parametrize("memory", ["matrix", {"mlp": {"residual": False}}], ids=["matrix", "mlp"])
def test_a_link_that_is_none_has_no_lag_token_in_any_spelling(run: str, retention: object, memory: object) -> None:
    """Or two functions would share a hash."""
    point, plain = design(retention, memory=memory), design("l2", memory=memory)
    assert point.hash == plain.hash
    given = case(plain, 11, seed=3)
    y, _ = RUNS[run](point, given.inputs, given.start, given.static)
    expected, _ = RUNS[run](plain, given.inputs, given.start, given.static)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
