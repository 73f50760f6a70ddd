"""Presets with deep memories, and those that are solved for, against their papers' recurrences, in float64.

Plain loops from the equations: gradients are autograd's, of the inner loss as the paper writes it, taken at the weights
of the chunk's start (Miras, Eq. 28; TTT's mini-batches), of 4 tokens here and of 16 in the presets.
x [B,H,K], weights [B,H,rows,cols].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from memories import Case, case, evaluate, worst
from torch import Tensor
from torch.nn import functional

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.kernels.state import State
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.presets import PRESETS, preset

Weights = tuple[Tensor, ...]
Static = dict[str, Tensor]
Loop = Callable[[Inputs, Weights, Static], tuple[Tensor, State]]
Memory = Callable[[Tensor, Weights, Static], Tensor]
Gradient = Callable[[Weights, Inputs, Static, int], Weights]
CHUNK = 4


# What the memories and their losses are


def normalised(y: Tensor) -> Tensor:
    centred = y - y.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)


def perceptron(x: Tensor, w: Weights, static: Static) -> Tensor:
    """x + LN(GELU(x W_0) W_1)."""
    hidden = functional.gelu(torch.einsum("bhk,bhke->bhe", x, w[0]))
    return x + normalised(torch.einsum("bhe,bhev->bhv", hidden, w[1]))


def scaled(y: Tensor, static: Static) -> Tensor:
    return y * static["norm.weight"][:, 0] + static["norm.bias"][:, 0]


def ttt_linear(x: Tensor, w: Weights, static: Static) -> Tensor:
    return x + scaled(normalised(torch.einsum("bhk,bhkv->bhv", x, w[0])), static)


def ttt_mlp(x: Tensor, w: Weights, static: Static) -> Tensor:
    hidden = functional.gelu(torch.einsum("bhk,bhke->bhe", x, w[0]))
    return x + scaled(normalised(torch.einsum("bhe,bhev->bhv", hidden, w[1])), static)


def slope(loss: Tensor, w: Weights) -> Weights:
    """Of a loss [B,H], whose parts know only their own weights."""
    return torch.autograd.grad(loss.sum(), w, create_graph=True)


def of_loss(memory: Memory, loss: Callable[[Tensor], Tensor]) -> Gradient:
    """The gradient of loss(M(k_t) - v_t)."""

    def gradient(w: Weights, i: Inputs, static: Static, t: int) -> Weights:
        return slope(loss(memory(i.k[:, t], w, static) - i.v[:, t]), w)

    return gradient


def half(r: Tensor) -> Tensor:
    return r.square().sum(-1) / 2


def full(r: Tensor) -> Tensor:
    return r.square().sum(-1)


def cubed(r: Tensor) -> Tensor:
    """|r|_3^3, smooth at 0."""
    return (r.square() + 1e-6).pow(1.5).sum(-1)


def yaad(w: Weights, i: Inputs, static: Static, t: int) -> Weights:
    """Eq. 26: two gradients and a switch between them."""
    assert i.threshold is not None
    r, d = perceptron(i.k[:, t], w, static) - i.v[:, t], i.threshold[:, t]
    near = (r.norm(dim=-1) <= d)[..., None, None]
    l2, l1 = slope(half(r), w), slope(r.abs().sum(-1), w)
    return tuple(torch.where(near, a, d[..., None, None] * b) for a, b in zip(l2, l1, strict=True))


def omega(w: Weights, i: Inputs, static: Static, t: int) -> Weights:
    """The losses of the last four pairs together, each weighed by the token."""
    assert i.share is not None
    window = i.share.shape[-1]
    assert window == 4
    total = torch.zeros((), dtype=i.q.dtype)
    for place in range(window):
        s = t - window + 1 + place
        if s >= 0:
            total = total + i.share[:, t, :, place] * full(perceptron(i.k[:, s], w, static) - i.v[:, s])
    return slope(total, w)


# What becomes of a gradient


def same(z: Weights) -> Weights:
    return z


def over(gate: Tensor) -> Tensor:
    return gate[..., None, None]


def descent(
    memory: Memory,
    gradient: Gradient,
    *,
    link: Callable[[Weights], Weights] = same,
    momentum: bool = False,
    orthogonal: bool = False,
) -> Loop:
    """Z_t = a_t Z_{t-1} - e_t g_t; with momentum, Z_t = a_t Z_{t-1} + S_t; orthogonal, - e_t NS(S_t)."""

    def loop(i: Inputs, start: Weights, static: Static) -> tuple[Tensor, State]:
        z = tuple(x.expand(i.q.shape[0], *x.shape) for x in start)
        s = tuple(torch.zeros_like(x) for x in z)
        outputs, anchor = [], z
        for t in range(i.q.shape[1]):
            anchor = z if t % CHUNK == 0 else anchor
            g = gradient(link(anchor), i, static, t)
            a, e = over(i.log_keep[:, t].exp()), over(i.step[:, t])
            if orthogonal:
                assert i.momentum is not None
                s = tuple(over(i.momentum[:, t]) * x + y for x, y in zip(s, g, strict=True))
                z = tuple(a * x - e * newton_schulz(y) for x, y in zip(z, s, strict=True))
            elif momentum:
                assert i.momentum is not None
                s = tuple(over(i.momentum[:, t]) * x - e * y for x, y in zip(s, g, strict=True))
                z = tuple(a * x + y for x, y in zip(z, s, strict=True))
            else:
                z = tuple(a * x - e * y for x, y in zip(z, g, strict=True))
            outputs.append(memory(i.q[:, t], link(z), static))
        return torch.stack(outputs, 1), State(z, (s,) if momentum or orthogonal else ())

    return loop


def newton_schulz(g: Tensor) -> Tensor:
    """Five of Muon's steps on G / |G|_F: X <- 3.4445 X - 4.775 (X X^T) X + 2.0315 (X X^T)^2 X."""
    x = g / torch.sqrt(g.square().sum((-2, -1), keepdim=True) + 1e-14)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x - 4.7750 * (gram @ x) + 2.0315 * (gram @ (gram @ x))
    return x


def softmaxes(z: Weights) -> Weights:
    """Every output's weights sum to 1."""
    return tuple(torch.exp(x) / torch.exp(x).sum(-2, keepdim=True) for x in z)


def q_norm(a: Tensor, q: float) -> Tensor:
    """|A|_q of a layer, with the floor of 1e-3 that the package has."""
    return torch.sqrt(a.abs().pow(q).sum((-2, -1), keepdim=True).pow(2 / q) + 1e-6)


def literal(z: Weights) -> Weights:
    """A / |A|_4^2."""
    return tuple(a / q_norm(a, 4) ** 2 for a in z)


def dual_index(z: Weights) -> Weights:
    """A |A|^2 / |A|_4^2; |x|^2 is smooth in units of the norm."""
    return tuple(a * ((a / q_norm(a, 4)).square() + 1e-6) for a in z)


def primal_index(z: Weights) -> Weights:
    """3 A |A|^(p-2) / |A|_p^(p-2) with p = 4/3."""
    p = 4 / 3
    return tuple(3 * a * ((a / q_norm(a, p)).square() + 1e-6) ** ((p - 2) / 2) for a in z)


def moneta(link: Callable[[Weights], Weights]) -> Loop:
    return descent(perceptron, of_loss(perceptron, cubed), link=link)


# What is solved for


def mesa(i: Inputs, start: Weights, static: Static) -> tuple[Tensor, State]:
    batch, tokens, heads, keys = i.q.shape
    ridge = torch.diag_embed(0.25 + functional.softplus(static["ridge"]))
    h = torch.zeros(batch, heads, keys, keys, dtype=i.q.dtype)
    g = torch.zeros(batch, heads, keys, i.v.shape[-1], dtype=i.q.dtype)
    outputs = []
    for t in range(tokens):
        k, v, a, b = i.k[:, t], i.v[:, t], over(i.log_keep[:, t].exp()), over(i.step[:, t])
        h = a * h + b * torch.einsum("bhk,bhl->bhkl", k, k)
        g = a * g + b * torch.einsum("bhk,bhv->bhkv", k, v)
        outputs.append(torch.einsum("bhk,bhkv->bhv", i.q[:, t], torch.linalg.inv(h + ridge) @ g))
    return torch.stack(outputs, 1), State(solved={"H": h, "G": g})


def attention(window: float) -> Loop:
    """A softmax a token over its last pairs; the presets' step, 1, is the weight of a pair, here any."""

    def loop(i: Inputs, start: Weights, static: Static) -> tuple[Tensor, State]:
        outputs, tokens = [], i.q.shape[1]
        for t in range(tokens):
            first = max(0, t - window + 1)
            held = slice(int(first), t + 1)
            score = torch.einsum("bhk,bshk->bsh", i.q[:, t], i.k[:, held]) / math.sqrt(i.q.shape[-1])
            weight = i.step[:, held] * score.exp()
            outputs.append(torch.einsum("bsh,bshv->bhv", weight / weight.sum(1, keepdim=True), i.v[:, held]))
        last = slice(int(max(0, tokens - window)), tokens)
        pairs = {"k": i.k[:, last], "v": i.v[:, last], "log_weight": i.step[:, last].log()}
        return torch.stack(outputs, 1), State(solved=pairs)

    return loop


LOOPS: dict[str, Loop] = {
    "transformer": attention(math.inf),
    "sliding_window": attention(32),
    "mesa": mesa,
    "ttt_linear": descent(ttt_linear, of_loss(ttt_linear, half)),
    "ttt_mlp": descent(ttt_mlp, of_loss(ttt_mlp, half)),
    "titans_lmm": descent(perceptron, of_loss(perceptron, full), momentum=True),
    "moneta": moneta(dual_index),
    "moneta_literal": moneta(literal),
    "moneta_primal": moneta(primal_index),
    "yaad": descent(perceptron, yaad),
    "memora": descent(perceptron, of_loss(perceptron, half), link=softmaxes),
    "omega_net": descent(perceptron, omega, momentum=True),
    "atlas": descent(perceptron, omega, orthogonal=True),
}
DEEP = sorted(set(LOOPS) - {"transformer", "sliding_window", "mesa"})


def shortened(name: str) -> DesignPoint:
    """The preset in shorter chunks, where chunks are part of its function."""
    return preset(name).changed("execution.chunk", CHUNK) if name in DEEP else preset(name)


def given_of(name: str) -> Case:
    """Three chunks of a deep memory, the last one short; more pairs than a window where there are no gradients."""
    return case(shortened(name), tokens=10 if name in DEEP else 37, seed=3, key_dim=4, value_dim=6)


@pytest.fixture(scope="module")
def expected() -> Callable[[str], tuple[list[Tensor], list[Tensor]]]:
    """Outputs, final state and gradients of a paper's loop, once for all implementations."""
    known: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def find(name: str) -> tuple[list[Tensor], list[Tensor]]:
        def run(point: object, inputs: Inputs, start: Weights, static: Static) -> tuple[Tensor, State]:
            return LOOPS[name](inputs, start, static)

        if name not in known:
            known[name] = evaluate(run, shortened(name), given_of(name))[:2]
        return known[name]

    return find


@pytest.mark.parametrize(
    "implementation", [recurrence.run, chunkwise.run, dispatch.run], ids=["recurrence", "chunkwise", "dispatch"]
)
@pytest.mark.parametrize("name", sorted(LOOPS))
def test_preset_is_its_papers_recurrence(
    name: str,
    implementation: Callable[..., tuple[Tensor, State]],
    expected: Callable[[str], tuple[list[Tensor], list[Tensor]]],
) -> None:
    def only_running(*arguments: object) -> tuple[Tensor, State]:
        y, state = implementation(*arguments)  # the paper's loop has no notion of tower, window and position
        return y, state._replace(start=(), tower=(), tangent=(), window={})

    outputs, gradients = expected(name)
    found, found_gradients, _ = evaluate(only_running, shortened(name), given_of(name))
    assert worst(found, outputs) < 1e-10
    assert worst(found_gradients, gradients) < 1e-10


@pytest.mark.parametrize("name", DEEP)
def test_a_deep_preset_trains_on_chunks_of_16_with_gradients_of_their_start(name: str) -> None:
    assert str(preset(name).execution) == "frozen, chunk 16, previous"


@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("_h")])
def test_a_hybrids_memory_is_its_presets(name: str) -> None:
    memory = PRESETS[name.removesuffix("_h")]
    assert preset(name) == preset(memory.name)
    assert PRESETS[name].equation == f"{memory.equation};  by turns with sliding_window"


def test_the_readings_of_moneta_differ_and_agree_where_q_is_2() -> None:
    points = [preset(name) for name in ("moneta", "moneta_literal", "moneta_primal")]
    assert len({point.hash for point in points}) == 3
    assert len({point.changed("retention.q", 2.0).hash for point in points}) == 1


@pytest.mark.parametrize("name", ["transformer", "sliding_window"])
def test_all_pairs_of_an_attention_weigh_the_same(name: str) -> None:
    assert preset(name).step.is_one
    assert preset(name).static(4, 6) == {}  # nothing is learned but projections
