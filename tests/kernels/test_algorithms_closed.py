"""Implicit steps against the minimiser they are, erase-and-write against RWKV-7's recurrence and the delta rule.

Writes come from the options' own `assemble`, as a layer makes them; what they are compared with is solved or looped
here in float64 from the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from memories import worst
from torch import Tensor

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.kernels.state import State
from miras_search.models.config import ModelConfig
from miras_search.models.mixer import Mixer
from miras_search.space.algorithm import ALGORITHM, Pairs
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint

B, T, H, K, V = 2, 9, 2, 4, 3
RUNS = [recurrence.run, chunkwise.run, dispatch.run]
NAMES = ["recurrence", "chunkwise", "dispatch"]
Run = Callable[..., tuple[Tensor, State]]


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=draw(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=draw(seed), dtype=torch.float64)


def keeps(scope: str) -> Tensor:
    shape = {"one": (), "head": (), "key": (K,), "value": (V,), "key_value": (K + V,)}[scope]
    found = 0.6 + 0.4 * uniform(B, T, H, *shape, seed=4)
    return torch.ones_like(found) if scope == "one" else found


def over_weights(keep: Tensor, scope: str) -> Tensor:
    """What each weight [K,V] of a head keeps."""
    rows, cols = torch.ones(K, dtype=torch.float64), torch.ones(V, dtype=torch.float64)
    if scope == "key":
        rows = keep
    elif scope == "value":
        cols = keep
    elif scope == "key_value":
        rows, cols = keep[:K], keep[K:]
    else:
        rows = keep * rows
    return torch.outer(rows, cols)


def retained(scope: str) -> object:
    return "none" if scope == "one" else {"l2": {"keep": {"source": "data", "scope": scope}}}


def inputs_of(point: DesignPoint, pairs: Pairs, gates: Mapping[str, Tensor], keep: Tensor) -> Inputs:
    """As a layer assembles them."""
    writes = point.algorithm.assemble(pairs, gates, point.bias)
    return Inputs(
        q=normal(B, T, H, K, seed=1), k=writes.k, v=writes.v, log_keep=keep.log(), step=writes.step, w=writes.w
    )


# implicit


def proximal(inputs: Inputs, step: Tensor, scope: str, slope: float, start: Tensor) -> list[Tensor]:
    """(I / e + g k^T k) W = a W' / e + g k^T v, token by token: where the objective's gradient is 0."""
    outputs, finals = [], []
    for b in range(B):
        for h in range(H):
            w, rows = start[h], []
            for t in range(T):
                k, v, e = inputs.k[b, t, h], inputs.v[b, t, h], step[b, t, 0, h]
                faded = over_weights(inputs.log_keep[b, t, h].exp(), scope) * w
                left = torch.eye(K, dtype=torch.float64) / e + slope * torch.outer(k, k)
                w = torch.linalg.solve(left, faded / e + slope * torch.outer(k, v))
                rows.append(inputs.q[b, t, h] @ w)
            outputs.append(torch.stack(rows))
            finals.append(w)
    y = torch.stack(outputs).view(B, H, T, V).transpose(1, 2)
    return [y, torch.stack(finals).view(B, H, K, V)]


@pytest.mark.parametrize("run", RUNS, ids=NAMES)
@pytest.mark.parametrize("scope", ["one", "head", "key", "value", "key_value"])
@pytest.mark.parametrize(("bias", "slope"), [({"l2": {"scale": "half"}}, 1.0), ({"l2": {"scale": "full"}}, 2.0)])
def test_an_implicit_step_minimises_its_objective(bias: object, slope: float, scope: str, run: Run) -> None:
    point = DesignPoint.parse(
        {
            "bias": bias,
            "algorithm": "implicit",
            "retention": retained(scope),
            "execution": {"gradient_at": "decayed"},
        }
    )
    pairs = Pairs(normal(B, T, 1, H, K, seed=2), normal(B, T, 1, H, V, seed=3))
    step = 0.2 + 3 * uniform(B, T, 1, H, seed=5)  # far beyond what an explicit step bears
    inputs = inputs_of(point, pairs, {"step": step}, keeps(scope))
    start = normal(H, K, V, seed=6)

    def loss_of(run: Run) -> tuple[list[Tensor], list[Tensor]]:
        leaves = [x.detach().requires_grad_() for x in (pairs.k, pairs.v, step, start)]
        own = inputs_of(point, Pairs(*leaves[:2]), {"step": leaves[2]}, keeps(scope))
        y, state = run(point, own, (leaves[3],), {})
        found = [y, state.dual[0]]
        total = sum(((x * normal(*x.shape, seed=9)).sum() for x in found), torch.zeros(()))
        return [x.detach() for x in found], list(torch.autograd.grad(total, leaves))

    def solved(point: DesignPoint, inputs: Inputs, start: tuple[Tensor, ...], static: object) -> tuple[Tensor, State]:
        # the layer's own step is not in the inputs any more: taken from what was projected
        raw = inputs.step / (1 - slope * inputs.step * inputs.k.square().sum(-1))
        y, w = proximal(inputs, raw.unsqueeze(2), scope, slope, start[0])
        return y, State((w,))

    y, state = run(point, inputs, (start,), {})
    assert worst([y, state.dual[0]], proximal(inputs, step, scope, slope, start)) < 1e-10
    found, gradients = loss_of(run)
    expected, expected_gradients = loss_of(solved)
    assert worst(found, expected) < 1e-10
    assert worst(gradients, expected_gradients) < 1e-9
    if scope != "one":  # the rule that asks for gradient_at: decayed is no formality
        y, _ = run(point.changed("execution.gradient_at", "previous"), inputs, (start,), {})
        assert worst([y], expected[:1]) > 1e-2


def test_an_implicit_step_takes_any_loss_with_a_linear_signal() -> None:
    pairs = Pairs(normal(B, T, 1, H, K, seed=2), normal(B, T, 1, H, V, seed=3))
    gates = {"step": uniform(B, T, 1, H, seed=5)}
    implicit = ALGORITHM.parse("implicit")
    for spec, slope in (({"lp": {"p": 2.0, "scale": "paper"}}, 2.0), ("l2", 1.0)):
        bias = DesignPoint.parse({"bias": spec}).bias
        expected = gates["step"] / (1 + slope * gates["step"] * pairs.k.square().sum(-1))
        torch.testing.assert_close(implicit.assemble(pairs, gates, bias).step, expected.squeeze(2))
    with pytest.raises(ValueError, match="needs a signal linear in the prediction, which huber's is not"):
        implicit.assemble(pairs, gates, DesignPoint.parse({"bias": "huber"}).bias)


def test_a_coupled_implicit_step_minimises_the_objective_with_the_global_term() -> None:
    """1/(2e)|W - W'|^2 + 1/(2b)|W|^2 + l(W), with a = b / (b + e)."""
    design = DesignPoint.parse(
        {
            "bias": "l2",
            "retention": {"l2": {"coupled": True}},
            "algorithm": "implicit",
            "execution": {"gradient_at": "decayed"},
        }
    )
    mixer = Mixer(ModelConfig(d_model=8, heads=H, key_dim=K, value_dim=V), design).double()
    mixer.initialise(draw(0))
    gates = mixer.gates(normal(B, T, mixer.gates.width, seed=2))
    inputs = mixer._inputs(normal(B, T, sum(mixer.widths), seed=1), gates)
    start = normal(H, K, V, seed=6)
    _, state = recurrence.run(design, inputs.tokens(0, 1), (start,), {})
    for b in range(B):
        for h in range(H):
            e, a = gates["step"][b, 0, 0, h], gates["keep"][b, 0, h].exp()
            weight = a * e / (1 - a)  # b of the global term
            k, v = inputs.k[b, 0, h], inputs.v[b, 0, h]
            left = (1 / e + 1 / weight) * torch.eye(K, dtype=torch.float64) + torch.outer(k, k)
            expected = torch.linalg.solve(left, start[h] / e + torch.outer(k, v))
            torch.testing.assert_close(state.dual[0][b, h], expected, rtol=1e-10, atol=1e-12)


# erase_write


def rwkv7(inputs: Inputs, h: Tensor, c: Tensor, v: Tensor, r: Tensor, e: Tensor, start: Tensor) -> list[Tensor]:
    """S_t = S_{t-1} (diag(w) - h^T (r * h)) + e v^T c, value-major S [V,K]; y = S q."""
    outputs, finals = [], []
    for b in range(B):
        for n in range(H):
            s, rows = start[n].T, []
            for t in range(T):
                w = inputs.log_keep[b, t, n].exp()
                erased = torch.diag(w) - torch.outer(h[b, t, n], r[b, t, n] * h[b, t, n])
                s = s @ erased + e[b, t, n] * torch.outer(v[b, t, n], c[b, t, n])
                rows.append(s @ inputs.q[b, t, n])
            outputs.append(torch.stack(rows))
            finals.append(s.T)
    y = torch.stack(outputs).view(B, H, T, V).transpose(1, 2)
    return [y, torch.stack(finals).view(B, H, K, V)]


@pytest.mark.parametrize("run", RUNS, ids=NAMES)
@pytest.mark.parametrize("chunked", [False, True])
def test_erase_write_is_rwkv_7(run: Run, chunked: bool) -> None:
    keep = {"source": "data", "scope": "key", "squash": "rwkv", "value": 0.9}
    execution = {"gradient": {"refined": 17}, "chunk": 9} if chunked else {}
    point = DesignPoint.parse({"algorithm": "erase_write", "retention": {"l2": {"keep": keep}}, "execution": execution})
    assert point.scopes["erase"] == "key"
    keys, values = normal(B, T, 2, H, K, seed=2), normal(B, T, 1, H, V, seed=3)
    keys = keys / keys.norm(dim=-1, keepdim=True)
    erase, step = uniform(B, T, H, K, seed=5), 0.2 + uniform(B, T, 1, H, seed=7)
    start = normal(H, K, V, seed=6)

    def both(how: str) -> tuple[list[Tensor], list[Tensor]]:
        leaves = [x.detach().clone().requires_grad_() for x in (keys, values, erase, step, keeps("key"), start)]
        k, v, r, e, keep, s = leaves
        inputs = inputs_of(point, Pairs(k, v), {"step": e, "erase": r}, keep)
        if how == "run":
            y, state = run(point, inputs, (s,), {})
            found = [y, state.dual[0]]
        else:
            found = rwkv7(inputs, k[:, :, 0], k[:, :, 1], v.squeeze(2), r, e.squeeze(2), s)
        total = sum(((x * normal(*x.shape, seed=9)).sum() for x in found), torch.zeros(()))
        return [x.detach() for x in found], list(torch.autograd.grad(total, leaves))

    found, gradients = both("run")
    expected, expected_gradients = both("loop")
    assert worst(found, expected) < 1e-10
    assert worst(gradients, expected_gradients) < 1e-9


@pytest.mark.parametrize("run", RUNS, ids=NAMES)
@pytest.mark.parametrize("at", ["previous", "decayed"])
def test_with_one_key_it_is_the_delta_rule_with_two_strengths(at: str, run: Run) -> None:
    """S = a (I - b k^T k) S' + e k^T v for decayed, (a I - b k^T k) S' + e k^T v for previous."""
    point = DesignPoint.parse(
        {
            "algorithm": {"erase_write": {"own_keys": False, "erase": {"scope": "head"}}},
            "retention": "l2",
            "execution": {"gradient_at": at},
        }
    )
    pairs = Pairs(normal(B, T, 1, H, K, seed=2) / 2, normal(B, T, 1, H, V, seed=3))
    erase, step = uniform(B, T, H, seed=5), 0.2 + uniform(B, T, 1, H, seed=7)
    inputs, start = inputs_of(point, pairs, {"step": step, "erase": erase}, keeps("head")), normal(H, K, V, seed=6)
    s, eye, rows = start.expand(B, H, K, V), torch.eye(K, dtype=torch.float64), []
    for t in range(T):
        k, v = pairs.k[:, t, 0], pairs.v[:, t, 0]
        a, b, e = (x[..., None, None] for x in (inputs.log_keep[:, t].exp(), erase[:, t], step[:, t, 0]))
        found = k.unsqueeze(-1) * k.unsqueeze(-2)
        left = a * (eye - b * found) if at == "decayed" else a * eye - b * found
        s = left @ s + e * k.unsqueeze(-1) * v.unsqueeze(-2)
        rows.append((inputs.q[:, t].unsqueeze(-2) @ s).squeeze(-2))
    y, state = run(point, inputs, (start,), {})
    assert worst([y, state.dual[0]], [torch.stack(rows, 1), s]) < 1e-10


def test_equal_strengths_at_one_key_are_gradient_descent() -> None:
    spec = {"algorithm": {"erase_write": {"own_keys": False, "erase": {"scope": "head"}}}, "retention": "l2"}
    point, plain = DesignPoint.parse(spec), DesignPoint.parse({"retention": "l2"})
    pairs = Pairs(normal(B, T, 1, H, K, seed=2) / 2, normal(B, T, 1, H, V, seed=3))
    step, start = uniform(B, T, 1, H, seed=7), normal(H, K, V, seed=6)
    both = inputs_of(point, pairs, {"step": step, "erase": step.squeeze(2)}, keeps("head"))
    y, _ = recurrence.run(point, both, (start,), {})
    z, _ = recurrence.run(plain, inputs_of(plain, pairs, {"step": step}, keeps("head")), (start,), {})
    assert worst([y], [z]) < 1e-12


@pytest.mark.parametrize("erase", [0.7, {"source": "data", "scope": "key"}, {"source": "learned", "scope": "head"}])
@pytest.mark.parametrize("own_keys", [True, False])
@pytest.mark.parametrize("step", ["data", {"scope": "key"}, {"scope": "value"}, 1.0])
def test_a_layer_gives_the_writes_their_gates(erase: Any, own_keys: bool, step: Any) -> None:
    design = DesignPoint.parse(
        {"algorithm": {"erase_write": {"erase": erase, "own_keys": own_keys}}, "retention": "l2", "step": step}
    )
    mixer = Mixer(ModelConfig(d_model=8, heads=H, key_dim=K, value_dim=V), design).double()
    mixer.initialise(draw(0))
    assert mixer.widths == [H * K, (1 + own_keys) * H * K, H * V]
    gates = mixer.gates(normal(B, T, mixer.gates.width, seed=2))
    inputs = mixer._inputs(normal(B, T, sum(mixer.widths), seed=1), gates)
    assert inputs.w is not None
    strength = gates["erase"] if gates["erase"].dim() == 4 else gates["erase"].unsqueeze(-1)
    torch.testing.assert_close(inputs.w[:, ::2], strength * inputs.k[:, ::2])
    assert not inputs.k[:, 1::2].any()
    assert not inputs.v[:, ::2].any()
    assert torch.equal(inputs.w[:, 1::2], inputs.k[:, ::2]) == (not own_keys)
    torch.testing.assert_close(inputs.step[:, 1::2], gates["step"].squeeze(2))
    assert torch.equal(inputs.step[:, ::2], torch.ones_like(inputs.step[:, ::2]))
    y, _ = mixer(normal(B, T, 8, seed=3))
    assert torch.isfinite(y).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"erase": 2.5}, "erase_write.erase: a fixed erase gate lies in [0, 2], got 2.5"),
        ({"erase": {"squash": "softplus"}}, "erase_write.erase: an erase gate is squashed by a sigmoid"),
        ({"erase": {"scale": 3.0}}, "erase_write.erase: an erase gate lies in [0, 2]: its reach is 3"),
        ({"erase": {"scope": "value"}}, "erase_write.erase: an erase gate has values by head or key, not by value"),
    ],
)
def test_bad_settings_are_named(spec: object, message: str) -> None:
    from miras_search.space.fields import SpecError

    with pytest.raises(SpecError) as caught:
        ALGORITHM.parse({"erase_write": spec})
    assert str(caught.value) == message


def test_evaluation_is_not_vacuous() -> None:
    """Erasing matters: without it the same writes give another memory."""
    point = DesignPoint.parse("delta_net").changed("algorithm", "erase_write")
    pairs = Pairs(normal(B, T, 2, H, K, seed=2), normal(B, T, 1, H, V, seed=3))
    step, start = uniform(B, T, 1, H, seed=7), normal(H, K, V, seed=6)
    found = [
        recurrence.run(point, inputs_of(point, pairs, {"step": step, "erase": r}, keeps("one")), (start,), {})[0]
        for r in (uniform(B, T, H, K, seed=5), torch.zeros(B, T, H, K, dtype=torch.float64))
    ]
    assert worst(found[:1], found[1:]) > 1e-2
