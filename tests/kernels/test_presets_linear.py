"""Each preset with a matrix memory against its paper's recurrence: plain loops from the equations, in float64.

A loop starts from what a layer projects, before anything is squashed, and shares no code with the package, whose side
squashes with the preset's own gates and lets its algorithm assemble the writes, as a layer does. S [B,H,K,V].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from memories import worst
from torch import Tensor
from torch.nn import functional

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.kernels.state import State
from miras_search.models import features
from miras_search.models.rotary import rotate
from miras_search.space.algorithm import Pairs
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.gates import effective
from miras_search.space.presets import PRESETS, preset

BATCH, TOKENS, HEADS, KEYS, VALUES = 2, 37, 3, 4, 3  # two chunks of 16 and five tokens
Raw = dict[str, Tensor]
Found = tuple[Tensor, Tensor]  # reads [B,T,H,V], last state


# What a layer projects


def projected(point: DesignPoint, seed: int) -> Raw:
    """q [B,T,H,K], k [B,T,n,H,K], v [B,T,n,H,V], gates before they are squashed, log rates [H(,K)], a start [H,K,V]."""
    generator = torch.Generator().manual_seed(seed)
    channels = {"head": (), "key": (KEYS,), "value": (VALUES,), "key_value": (KEYS + VALUES,)}

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    found = {
        "q": normal(BATCH, TOKENS, HEADS, KEYS),
        "k": normal(BATCH, TOKENS, point.algorithm.keys, HEADS, KEYS) / KEYS**0.5,
        "v": normal(BATCH, TOKENS, point.algorithm.values, HEADS, VALUES),
        "start": normal(HEADS, KEYS, VALUES),
    }
    for slot, gate in point.gates.items():
        repeats = (point.algorithm.repeats(slot),) if slot == "step" else ()
        if gate.source != "fixed" and gate.tie != "step":
            found[slot] = normal(BATCH, TOKENS, *repeats, HEADS, *channels[effective(gate)])
        if gate.squash == "mamba" and gate.source != "fixed":
            found["rate"] = 0.5 * normal(HEADS, *channels[effective(gate)]) - 1
    return found


# The papers' recurrences


def looped(raw: Raw, start: Tensor, write: Callable[[Tensor, int], Tensor], q: Tensor | None = None) -> Found:
    """Reads q_t S_t and the last S, for S_t = write(S_{t-1}, t)."""
    s, reads = start.expand(BATCH, *start.shape), []
    q = raw["q"] if q is None else q
    for t in range(TOKENS):
        s = write(s, t)
        reads.append(torch.einsum("bhk,bhkv->bhv", q[:, t], s))
    return torch.stack(reads, 1), s


def outer(k: Tensor, v: Tensor) -> Tensor:
    return k.unsqueeze(-1) * v.unsqueeze(-2)


def over(gate: Tensor) -> Tensor:
    """[B,H] over [B,H,K,V]."""
    return gate[..., None, None]


def additive(raw: Raw, keep: Callable[[int], Tensor], k: Tensor | None = None, q: Tensor | None = None) -> Found:
    """S_t = keep_t * S_{t-1} + k_t^T v_t."""
    k = raw["k"][:, :, 0] if k is None else k
    v = raw["v"][:, :, 0]
    return looped(raw, raw["start"], lambda s, t: keep(t) * s + outer(k[:, t], v[:, t]), q)


def linear_attention(raw: Raw) -> Found:
    """Numerator and denominator apart, over elu + 1."""

    def phi(x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, torch.exp(x))

    q, k, v = phi(raw["q"]), phi(raw["k"][:, :, 0]), raw["v"][:, :, 0]
    s, z, reads = torch.zeros(BATCH, HEADS, KEYS, VALUES, dtype=q.dtype), torch.zeros_like(k[:, 0]), []
    for t in range(TOKENS):
        s, z = s + outer(k[:, t], v[:, t]), z + k[:, t]
        reads.append((q[:, t].unsqueeze(-1) * s).sum(-2) / ((q[:, t] * z).sum(-1, keepdim=True) + 1e-6))
    return torch.stack(reads, 1), torch.cat([s, z.unsqueeze(-1)], -1)


def turned(x: Tensor) -> Tensor:
    """x_n e^{i n theta}, the first half of the channels real and the second imaginary."""
    theta = 10_000.0 ** (-2 * torch.arange(KEYS // 2, dtype=torch.float64) / KEYS)
    n = torch.arange(TOKENS, dtype=torch.float64).view(-1, 1, 1)
    z = torch.complex(x[..., : KEYS // 2], x[..., KEYS // 2 :]) * torch.polar(torch.ones_like(n * theta), n * theta)
    return torch.cat([z.real, z.imag], -1)


def retnet(raw: Raw) -> Found:
    g = torch.tensor([1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128], dtype=torch.float64)
    return additive(raw, lambda t: over(g), turned(raw["k"][:, :, 0]), turned(raw["q"]))


def lightning(raw: Raw) -> Found:
    slopes = torch.tensor([2 ** (-8 / 3), 2 ** (-16 / 3), 2**-8], dtype=torch.float64)
    return additive(raw, lambda t: over(torch.exp(-slopes)))


def gla(raw: Raw) -> Found:
    return additive(raw, lambda t: (torch.sigmoid(raw["keep"][:, t]) ** (1 / 16)).unsqueeze(-1))


def mamba2(raw: Raw) -> Found:
    d = torch.log(1 + torch.exp(raw["step"][:, :, 0]))
    a = torch.exp(-d * torch.exp(raw["rate"]))
    return additive(raw, lambda t: over(a[:, t]), d.unsqueeze(-1) * raw["k"][:, :, 0])


def hgrn2(raw: Raw) -> Found:
    f = 0.5 + 0.5 / (1 + torch.exp(-raw["keep"]))
    return additive(raw, lambda t: f[:, t].unsqueeze(-1), 1 - f)


def dfw(raw: Raw) -> Found:
    gate = torch.sigmoid(raw["keep"])
    return additive(raw, lambda t: outer(gate[:, t, :, :KEYS], gate[:, t, :, KEYS:]))


def delta(s: Tensor, k: Tensor, v: Tensor, b: Tensor) -> Tensor:
    """(I - b k^T k) S + b k^T v."""
    eye = torch.eye(KEYS, dtype=s.dtype)
    return (eye - over(b) * outer(k, k)) @ s + over(b) * outer(k, v)


def mamba_decay(raw: Raw) -> Tensor:
    return torch.exp(-torch.exp(raw["rate"]) * torch.log(1 + torch.exp(raw["keep"])))


def delta_net(raw: Raw) -> Found:
    k, v, b = raw["k"][:, :, 0], raw["v"][:, :, 0], torch.sigmoid(raw["step"][:, :, 0])
    return looped(raw, raw["start"], lambda s, t: delta(s, k[:, t], v[:, t], b[:, t]))


def gated_delta_net(raw: Raw) -> Found:
    k, v, b, a = raw["k"][:, :, 0], raw["v"][:, :, 0], torch.sigmoid(raw["step"][:, :, 0]), mamba_decay(raw)
    return looped(raw, raw["start"], lambda s, t: delta(over(a[:, t]) * s, k[:, t], v[:, t], b[:, t]))


def kda(raw: Raw) -> Found:
    k, v, b, a = raw["k"][:, :, 0], raw["v"][:, :, 0], torch.sigmoid(raw["step"][:, :, 0]), mamba_decay(raw)
    return looped(raw, raw["start"], lambda s, t: delta(torch.diag_embed(a[:, t]) @ s, k[:, t], v[:, t], b[:, t]))


def delta_product(raw: Raw) -> Found:
    a, b = mamba_decay(raw), 2 * torch.sigmoid(raw["step"])

    def write(s: Tensor, t: int) -> Tensor:
        s = over(a[:, t]) * s
        for j in range(2):
            s = delta(s, raw["k"][:, t, j], raw["v"][:, t, j], b[:, t, j])
        return s

    return looped(raw, raw["start"], write)


def longhorn(raw: Raw) -> Found:
    """Every value channel is a column with its own b."""
    k, v, b = raw["k"][:, :, 0], raw["v"][:, :, 0], torch.sigmoid(raw["step"][:, :, 0])

    def write(s: Tensor, t: int) -> Tensor:
        columns = []
        for j in range(VALUES):
            d = b[:, t, :, j] / (1 + b[:, t, :, j] * (k[:, t] ** 2).sum(-1))
            columns.append(delta(s[..., j : j + 1], k[:, t], v[:, t, :, j : j + 1], d))
        return torch.cat(columns, -1)

    return looped(raw, raw["start"], write)


def rwkv7(raw: Raw) -> Found:
    """As the paper has it, with the state value-major: S [V,K], S_t = S_{t-1} (diag(w) - h^T (a * h)) + v^T c."""
    h, c, v = raw["k"][:, :, 0], raw["k"][:, :, 1], raw["v"][:, :, 0]
    h = h / torch.sqrt((h**2).sum(-1, keepdim=True) + 1e-6)
    w, a = torch.exp(-math.exp(-0.5) * torch.sigmoid(raw["keep"])), torch.sigmoid(raw["erase"])

    def write(s: Tensor, t: int) -> Tensor:
        move = torch.diag_embed(w[:, t]) - outer(h[:, t], a[:, t] * h[:, t])
        return (s.transpose(-1, -2) @ move + outer(v[:, t], c[:, t])).transpose(-1, -2)

    return looped(raw, raw["start"], write)


LOOPS: dict[str, Callable[[Raw], Found]] = {
    "linear_attention": linear_attention,
    "retnet": retnet,
    "lightning": lightning,
    "gla": gla,
    "mamba2": mamba2,
    "hgrn2": hgrn2,
    "dfw": dfw,
    "delta_net": delta_net,
    "gated_delta_net": gated_delta_net,
    "delta_product": delta_product,
    "longhorn": longhorn,
    "rwkv7": rwkv7,
    "kda": kda,
}


# The package's side


def assembled(name: str, point: DesignPoint, raw: Raw) -> Inputs:
    """What the kernels are given, by the preset's gates, the settings of its layer and its algorithm."""
    keep, model = point.retention.keep, PRESETS[name].model
    gates = {
        slot: raw["v"].new_full((BATCH, TOKENS, 1, HEADS), gate.value)
        if gate.source == "fixed"
        else gate.squashed(raw[slot])
        for slot, gate in point.gates.items()
        if slot != "keep"
    }
    if keep.tie == "step":
        log_keep = -torch.exp(raw["rate"]) * gates["step"].squeeze(2)
    elif keep.source == "fixed":
        log_keep = torch.tensor(keep.rungs(HEADS), dtype=torch.float64).log().expand(BATCH, TOKENS, HEADS)
    else:
        log_keep = keep.log_squashed(raw["keep"], raw.get("rate"))
    q, k, v = raw["q"], raw["k"], raw["v"]
    if model.get("feature_map") == "elu1":
        q, k = features.mapped("elu1", q), features.mapped("elu1", k)
    if model.get("rope"):
        q, k = rotate(q, 0), rotate(k.squeeze(2), 0).unsqueeze(2)
    if keep.tie == "key":
        k = (1 - log_keep.exp()).unsqueeze(2)
    if model.get("normaliser") == "sum":
        v = features.counted(v)
    writes = point.algorithm.assemble(Pairs(k, v), gates, point.bias)
    return Inputs(q=q, k=writes.k, v=writes.v, log_keep=log_keep, step=writes.step, w=writes.w)


def run(name: str, implementation: Callable[..., tuple[Tensor, State]], point: DesignPoint, raw: Raw) -> Found:
    summed = PRESETS[name].model.get("normaliser") == "sum"
    start = torch.zeros(HEADS, KEYS, VALUES + 1, dtype=torch.float64) if summed else raw["start"]
    y, state = implementation(point, assembled(name, point, raw), (start,), {})
    return features.divided(y) if summed else y, state.dual[0]


def with_gradients(found: Callable[[Raw], Found], raw: Raw) -> tuple[list[Tensor], list[Tensor]]:
    """Reads and last state, and the gradients of a random functional of both."""
    leaves = {slot: x.clone().requires_grad_() for slot, x in raw.items()}
    outputs = list(found(leaves))
    generator = torch.Generator().manual_seed(99)
    weights = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in outputs]
    loss = torch.stack([(x * w).sum() for x, w in zip(outputs, weights, strict=True)]).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    zero = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves.values(), gradients, strict=True)]
    return [x.detach() for x in outputs], zero


@pytest.mark.parametrize("name", LOOPS)
def test_preset_is_its_papers_recurrence(name: str) -> None:
    """Token by token, in chunks, and by whatever is fastest: reads, last state and every gradient."""
    point = preset(name)
    raw = projected(point, seed=5)
    expected, slopes = with_gradients(LOOPS[name], raw)
    used = {slot for slot, g in zip(raw, slopes, strict=True) if g.abs().max() > 1e-6}
    ignored = {"start"} if name == "linear_attention" else {"k"} if name == "hgrn2" else set()
    assert used == set(raw) - ignored  # or nothing would be compared
    for implementation in (recurrence.run, chunkwise.run, dispatch.run):
        found, gradients = with_gradients(lambda given, by=implementation: run(name, by, point, given), raw)
        assert worst(found, expected) < 1e-10, implementation
        assert worst(gradients, slopes) < 1e-10, implementation


@pytest.mark.parametrize("name", ["gla", "kda", "rwkv7", "longhorn"])
def test_gates_by_channel_in_small_chunks(name: str) -> None:
    """Exact gradients do not depend on the chunk: of 37 tokens, chunks of 5 leave two over."""
    point = preset(name)
    raw = projected(point, seed=6)
    expected, slopes = with_gradients(LOOPS[name], raw)
    small = dataclasses.replace(point, execution=dataclasses.replace(point.execution, chunk=5))
    found, gradients = with_gradients(lambda given: run(name, chunkwise.run, small, given), raw)
    assert worst(found, expected) < 1e-10
    assert worst(gradients, slopes) < 1e-10


def test_longhorns_write_minimises_its_loss_by_value_channel() -> None:
    """The gradient of sum_j |W_j - W'_j|^2 / (2 b_j) + |k W - v|^2 / 2 is 0 where the first token leaves the memory."""
    raw = projected(preset("longhorn"), seed=7)
    _, state = recurrence.run(
        preset("longhorn"),
        assembled("longhorn", preset("longhorn"), {**raw, "k": 3 * raw["k"]}).tokens(0, 1),
        (raw["start"],),
        {},
    )
    w = state.dual[0].clone().requires_grad_()
    b, k, v = torch.sigmoid(raw["step"][:, 0, 0]), 3 * raw["k"][:, 0, 0], raw["v"][:, 0, 0]
    residual = torch.einsum("bhk,bhkv->bhv", k, w) - v
    distance = ((w - raw["start"]) ** 2).sum(-2)
    objective = (distance / (2 * b) + residual**2 / 2).sum()
    (slope,) = torch.autograd.grad(objective, w)
    assert slope.abs().max() < 1e-12


def test_retnet_turns_what_its_distance_counts() -> None:
    """The rotations of the loop and of the layer are one function (RetNet's e^{i n theta})."""
    x = projected(preset("retnet"), seed=8)["q"]
    torch.testing.assert_close(rotate(x, 0), turned(x), rtol=0, atol=1e-13)
    assert functional.cosine_similarity(turned(x)[:, 1:], x[:, 1:], dim=-1).min() < 0.9
