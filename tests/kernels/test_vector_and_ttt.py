"""The vector memory and TTT-Linear against plain loops from their equations, and memories that start from zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from memories import case, evaluate, worst
from torch import Tensor

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.kernels.state import State
from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.rules import violations

Signal = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # dl/dp from p, v [B,H,D] and a threshold [B,H,1 or D]


def needed(x: Tensor | None) -> Tensor:
    assert x is not None
    return x


SOFT = {"source": "data", "squash": "softplus", "value": 1.0}
BY_VALUE = {**SOFT, "scope": "value"}
BIASES: dict[str, tuple[object, Signal]] = {
    "dot": ("dot", lambda p, v, d: -v),
    "l2": ("l2", lambda p, v, d: p - v),
    "l2 full": ({"l2": {"scale": "full"}}, lambda p, v, d: 2 * (p - v)),
    "logcosh": ("logcosh", lambda p, v, d: torch.tanh(p - v)),
    "kl": ("kl", lambda p, v, d: p.softmax(-1) - v.softmax(-1)),
    "huber": (
        {"huber": {"form": "coordinate", "delta": BY_VALUE}},
        lambda p, v, d: torch.minimum(torch.maximum(p - v, -needed(d)), needed(d)),
    ),
    "huber norm": (
        {"huber": {"form": "norm", "delta": SOFT}},
        lambda p, v, d: (p - v) * (needed(d) / (p - v).norm(dim=-1, keepdim=True)).clamp(max=1.0),
    ),
}
ALGORITHMS: dict[str, object] = {
    "gd": "gd",
    "momentum": "momentum",
    "momentum by value": {"momentum": {"momentum": {"scope": "value"}}},
    "two steps": {"multi_step": {"writes": 2}},
}
GATES = ("head", "key", "value", "key_value")


def vector_loop(signal: Signal, writes: int, at: str, frozen: int | None) -> Callable[..., tuple[Tensor, State]]:
    """w_t = a_t w_{t-1} - e_t k_t u(k_t w, v_t), channel by channel, gradients at w_{t-1}, faded or a chunk's."""

    def run(
        point: DesignPoint, inputs: Inputs, start: tuple[Tensor, ...], static: dict[str, Tensor]
    ) -> tuple[Tensor, State]:
        width = inputs.q.shape[-1]

        def wide(gate: Tensor) -> Tensor:  # [B,H] or [B,H,C] -> over channels; a product for keys and values
            if gate.dim() == 2:
                return gate.unsqueeze(-1)
            return gate if gate.shape[-1] == width else gate[..., :width] * gate[..., width:]

        w = start[0].squeeze(-2).expand(inputs.q.shape[0], *start[0].squeeze(-2).shape)
        s, anchor, outputs = torch.zeros_like(w), w, []
        for t in range(inputs.q.shape[1]):
            if frozen and t % frozen == 0:
                anchor = w
            for j in range(writes):
                n = t * writes + j
                keep = wide(inputs.log_keep[:, t].exp()) if j == 0 else torch.ones(1, dtype=w.dtype)
                base = anchor if frozen else w
                base = keep * base if at == "decayed" else base
                threshold = None if inputs.threshold is None else wide(inputs.threshold[:, n])
                change = (
                    -wide(inputs.step[:, n]) * inputs.k[:, n] * signal(inputs.k[:, n] * base, inputs.v[:, n], threshold)
                )
                if inputs.momentum is not None:
                    s = change = wide(inputs.momentum[:, n]) * s + change
                w = keep * w + change
            outputs.append(inputs.q[:, t] * w)
        moments = ((s.unsqueeze(-2),),) if inputs.momentum is not None else ()
        return torch.stack(outputs, 1), State((w.unsqueeze(-2),), moments)

    return run


def without_tower(run: Callable[..., tuple[Tensor, State]]) -> Callable[..., tuple[Tensor, State]]:
    """A plain loop has no notion of the chunk's start and the position in it."""

    def found(*arguments: object) -> tuple[Tensor, State]:
        y, state = run(*arguments)
        return y, state._replace(start=(), tower=(), tangent=())

    return found


VECTORS = [  # every bias with every algorithm, gates of every kind with each of them
    (bias, algorithm, GATES[(i + j) % 4], GATES[(i + 2 * j + 1) % 4], ("previous", "decayed")[(i + j) % 2])
    for i, bias in enumerate(BIASES)
    for j, algorithm in enumerate(ALGORITHMS)
]


@pytest.mark.parametrize("frozen", [None, 4])
@pytest.mark.parametrize(("bias", "algorithm", "keep", "step", "at"), VECTORS)
def test_a_vector_memory_is_its_loop(
    bias: str, algorithm: str, keep: str, step: str, at: str, frozen: int | None
) -> None:
    spec, signal = BIASES[bias]
    point = DesignPoint.parse(
        {
            "memory": "vector",
            "bias": spec,
            "retention": {"l2": {"keep": {"scope": keep}}},
            "algorithm": ALGORITHMS[algorithm],
            "step": {"scope": step},
            "execution": {"gradient": "frozen" if frozen else "exact", "gradient_at": at, "chunk": frozen or 16},
        }
    )
    assert violations(point, 4, 4) == []
    given = case(point, 10, seed=len(bias) + len(algorithm), value_dim=4)
    expected, expected_gradients, _ = evaluate(vector_loop(signal, point.algorithm.writes, at, frozen), point, given)
    assert expected[0].shape == (2, 10, 2, 4)
    for run in (recurrence.run, chunkwise.run, dispatch.run):
        found, gradients, _ = evaluate(without_tower(run), point, given)
        assert worst(found, expected) < 1e-10
        assert worst(gradients, expected_gradients) < 1e-9


def test_channels_of_a_vector_do_not_answer_for_each_other() -> None:
    point = DesignPoint.parse({"memory": "vector", "retention": "l2"})
    given = case(point, 8, seed=1, value_dim=4)
    v = given.inputs.v.clone()
    v[..., 2] += 1.0
    y, _ = chunkwise.run(point, given.inputs, given.start, given.static)
    z, _ = chunkwise.run(point, given.inputs._replace(v=v), given.start, given.static)
    assert torch.equal(y[..., [0, 1, 3]], z[..., [0, 1, 3]])
    assert (y != z)[..., 2].all()


def test_a_vector_of_one_channel_is_the_matrix_of_one_entry() -> None:
    for algorithm in ("gd", "momentum"):
        points = [DesignPoint.parse({"memory": name, "algorithm": algorithm}) for name in ("vector", "matrix")]
        given = case(points[0], 9, seed=2, value_dim=1)
        (a, _), (b, _) = (chunkwise.run(point, given.inputs, given.start, given.static) for point in points)
        assert worst([a], [b]) < 1e-12


def ttt_linear(
    point: DesignPoint, inputs: Inputs, start: tuple[Tensor, ...], static: dict[str, Tensor]
) -> tuple[Tensor, State]:
    """S_t = S_{t-1} - e_t k_t^T dl/d(k_t S), l = 1/2 |k + g LN(k S) + b - v|^2, at the S of each chunk's start.

    The gradient of the layer norm is written out; y = q + g LN(q S) + b.
    """
    g, b = static["norm.weight"].squeeze(1), static["norm.bias"].squeeze(1)
    s = start[0].expand(inputs.q.shape[0], *start[0].shape)
    anchor, outputs = s, []
    for t in range(inputs.q.shape[1]):
        if t % point.execution.chunk == 0:
            anchor = s
        k, v, q = inputs.k[:, t], inputs.v[:, t], inputs.q[:, t]
        z = torch.einsum("bhk,bhkv->bhv", k, anchor)
        deviation = torch.sqrt((z - z.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + 1e-5)
        n = (z - z.mean(-1, keepdim=True)) / deviation
        h = (k + g * n + b - v) * g
        back = (h - h.mean(-1, keepdim=True) - n * (h * n).mean(-1, keepdim=True)) / deviation
        s = s - inputs.step[:, t, :, None, None] * torch.einsum("bhk,bhv->bhkv", k, back)
        z = torch.einsum("bhk,bhkv->bhv", q, s)
        centred = z - z.mean(-1, keepdim=True)
        outputs.append(q + g * centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5) + b)
    return torch.stack(outputs, 1), State((s,))


@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_a_matrix_with_residual_and_norm_is_ttt_linear(chunk: int) -> None:
    point = DesignPoint.parse(
        {
            "memory": {"matrix": {"residual": True, "norm": "layer", "affine": True}},
            "execution": {"gradient": "frozen", "chunk": chunk},
        }
    )
    given = case(point, 19, seed=chunk, value_dim=5)
    assert set(given.static) == {"norm.weight", "norm.bias"}
    expected, expected_gradients, _ = evaluate(ttt_linear, point, given)
    for run in (recurrence.run, chunkwise.run, dispatch.run):
        found, gradients, _ = evaluate(without_tower(run), point, given)
        assert worst(found, expected) < 1e-10
        assert worst(gradients, expected_gradients) < 1e-9
    assert len(expected_gradients) == len(given.leaves()) - 1  # no retention, so keep is no input
    assert all(x.abs().max() > 0 for x in expected_gradients)


VOCAB, CONFIG = 7, ModelConfig(layers=1, d_model=8, heads=2)


def model_of(memory: object, **others: object) -> LanguageModel:
    model = LanguageModel(CONFIG, DesignPoint.parse({"memory": memory, **others}), VOCAB)
    model.initialise(torch.Generator().manual_seed(3))
    return model.double()


@pytest.mark.parametrize("name", ["matrix", "vector"])
@pytest.mark.parametrize("retention", ["none", {"kl": {"slice": "whole"}}])
def test_a_memory_may_start_at_zero_for_good(name: str, retention: object) -> None:
    """What is learned starts at zero too, and may leave it; under a link zero is what the link starts from."""
    learned, zero = (model_of({name: {"start": start}}, retention=retention) for start in ("learned", "zero"))
    missing = zero.load_state_dict(learned.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert missing.unexpected_keys == ["blocks.0.mixer.start.0"]
    tokens = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(9).expand(2, 9)
    assert torch.equal(learned(tokens, positions), zero(tokens, positions))
    assert learned.design.hash != zero.design.hash
    with torch.no_grad():
        dict(learned.named_parameters())["blocks.0.mixer.start.0"].add_(torch.arange(4) * 0.3)
    assert not torch.allclose(learned(tokens, positions), zero(tokens, positions))


def test_a_residual_matrix_starts_as_its_settings_say() -> None:
    """At zero its layer norm has nothing to divide, and gradients stay finite."""
    settings = {"residual": True, "norm": "layer", "affine": True}
    random, zero = (model_of({"matrix": {**settings, "start": start}}) for start in ("learned", "zero"))
    assert dict(random.named_parameters())["blocks.0.mixer.start.0"].abs().max() > 0
    assert "blocks.0.mixer.start.0" not in dict(zero.named_parameters())
    tokens = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    loss = zero(tokens, torch.arange(9).expand(2, 9)).square().mean()
    for gradient in torch.autograd.grad(loss, list(zero.parameters())):
        assert torch.isfinite(gradient).all()
