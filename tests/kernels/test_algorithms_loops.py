"""Omega, Muon and Adam against loops of their papers' equations: autograd of the windowed loss, and numpy-like rules.

Nothing of the kernels is used: gradients come from `torch.autograd.grad` of the options' losses over the last pairs,
Newton-Schulz from the singular values, Adam's means as the weighted means that they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from memories import Case, case, evaluate, worst
from torch import Tensor

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.kernels.state import State
from miras_search.space.algorithm import ALGORITHM
from miras_search.space.design import DesignPoint

Weights = list[Tensor]
Rule = Callable[[list[Weights], list[Tensor], list[Tensor], DesignPoint], Weights]
"""(gradients of all tokens so far, steps and momenta of them, point) -> what the last of them adds."""

RUNS = [recurrence.run, chunkwise.run, dispatch.run]
NAMES = ["recurrence", "chunkwise", "dispatch"]


def loop(point: DesignPoint, given: Case, rule: Rule) -> list[Tensor]:
    """Outputs [B,T,H,V] and final weights, one sequence and head at a time; exact gradients."""
    inputs, window = given.inputs, point.algorithm.window
    batch, tokens, heads, _ = inputs.q.shape
    outputs, finals = [], []
    for b in range(batch):
        for h in range(heads):
            weights = [z[h] for z in given.start]
            static = {name: value[h] for name, value in given.static.items()}
            gradients: list[Weights] = []
            rows = []

            def forward(x: Tensor, weights: Weights, static: dict[str, Tensor] = static) -> Tensor:
                return point.memory.forward(x, lambda layer, y: y @ weights[layer], static)

            for t in range(tokens):
                keep = inputs.log_keep[b, t, h].exp()
                at = [keep * w for w in weights] if point.execution.gradient_at == "decayed" else weights
                at = [w.detach().requires_grad_() for w in at]
                total = torch.zeros((), dtype=torch.float64)
                for i in range(max(0, t - window + 1), t + 1):
                    threshold = None if inputs.threshold is None else inputs.threshold[b, i, h].view(1, 1)
                    loss = point.bias.loss(
                        forward(inputs.k[b, i, h].view(1, -1), at), inputs.v[b, i, h].view(1, -1), threshold
                    )
                    assert loss is not None
                    share = 1.0 if inputs.share is None else inputs.share[b, t, h, i - t + window - 1]
                    total = total + share * loss.sum()
                gradients.append(list(torch.autograd.grad(total, at)))
                steps = [inputs.step[b, i, h] for i in range(t + 1)]
                zero = torch.zeros((), dtype=torch.float64)
                momenta = [zero if inputs.momentum is None else inputs.momentum[b, i, h] for i in range(t + 1)]
                change = rule(gradients, steps, momenta, point)
                weights = [keep * w + d for w, d in zip(weights, change, strict=True)]
                rows.append(forward(inputs.q[b, t, h].view(1, -1), weights).view(-1))
            outputs.append(torch.stack(rows))
            finals.append(weights)
    y = torch.stack(outputs).view(batch, heads, tokens, -1).transpose(1, 2)
    layers = [torch.stack(layer).view(batch, heads, *layer[0].shape) for layer in map(list, zip(*finals, strict=True))]
    return [y, *layers]


def omega(gradients: list[Weights], steps: list[Tensor], momenta: list[Tensor], point: DesignPoint) -> Weights:
    """S_t = sum_i (prod_{j>i} b_j) (-e_i G_i)."""
    total = [torch.zeros_like(g) for g in gradients[0]]
    for i, (g, e) in enumerate(zip(gradients, steps, strict=True)):
        left = torch.stack([*momenta[i + 1 :], torch.ones((), dtype=torch.float64)]).prod()
        total = [s - left * e * x for s, x in zip(total, g, strict=True)]
    return total


def muon(gradients: list[Weights], steps: list[Tensor], momenta: list[Tensor], point: DesignPoint) -> Weights:
    """-e U p(p(..p(s / |S|_F))) V^T with S = sum_i (prod_{j>i} b_j) G_i."""
    ones = [torch.ones((), dtype=torch.float64)] * len(steps)
    found = []
    for s in omega(gradients, ones, momenta, point):
        u, sigma, v = torch.linalg.svd(-s, full_matrices=False)
        x = sigma / sigma.square().sum().sqrt()
        for _ in range(point.algorithm.iterations):
            x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
        found.append(-steps[-1] * u @ torch.diag(x) @ v)
    return found


def adam(gradients: list[Weights], steps: list[Tensor], momenta: list[Tensor], point: DesignPoint) -> Weights:
    """Means of gradients weighted by (1 - b_i) prod_{j>i} b_j, and of squares by powers of c."""
    settings: Any = point.algorithm
    first = [
        (1 - b) * torch.stack([*momenta[i + 1 :], torch.ones((), dtype=torch.float64)]).prod()
        for i, b in enumerate(momenta)
    ]
    second = [(1 - settings.second) * settings.second ** (len(steps) - 1 - i) for i in range(len(steps))]
    found = []
    for layer in map(list, zip(*gradients, strict=True)):
        mean = torch.stack([w * g for w, g in zip(first, layer, strict=True)]).sum(0)
        square = torch.stack([w * g**2 for w, g in zip(second, layer, strict=True)]).sum(0)
        if settings.correction:
            mean, square = mean / sum(first), square / sum(second)
        found.append(-steps[-1] * mean / (square + settings.epsilon**2) ** 0.5)
    return found


SPECS: list[tuple[Rule, object]] = [
    (omega, {"omega": {"window": 3}}),
    (omega, {"omega": {"window": 4, "momentum": "data"}}),
    (omega, {"omega": {"window": 1, "share": 1.0, "momentum": "data"}}),
    (muon, "muon"),
    (muon, {"muon": {"momentum": 0.0, "iterations": 2}}),
    (muon, {"muon": {"window": 3, "share": "data"}}),
    (adam, "adam"),
    (adam, {"adam": {"momentum": 0.0, "second": 0.0}}),
    (adam, {"adam": {"correction": False, "epsilon": 0.01}}),
]
SURROUNDINGS: list[dict[str, object]] = [
    {"bias": "l2"},
    {"bias": "lp", "retention": "l2", "execution": {"gradient_at": "decayed"}},
    {"memory": {"mlp": {"residual": False, "expansion": 2}}, "bias": "l2", "retention": "l2"},
    {"memory": {"gated_mlp": {"residual": False, "expansion": 2}}, "bias": {"huber": {"delta": 0.5}}},
]


@pytest.mark.parametrize("run", RUNS, ids=NAMES)
@pytest.mark.parametrize("around", SURROUNDINGS, ids=["matrix", "matrix lp decayed", "mlp", "gated_mlp"])
@pytest.mark.parametrize(("rule", "spec"), SPECS, ids=[str(spec) for _, spec in SPECS])
def test_is_its_papers_rule(rule: Rule, spec: object, around: dict[str, object], run: Callable[..., Any]) -> None:
    point = DesignPoint.parse({**around, "algorithm": spec})
    given = case(point, tokens=7, seed=4, batch=1, key_dim=4, value_dim=3)
    y, state = run(point, given.inputs, given.start, given.static)
    expected = loop(point, given, rule)
    assert worst([y, *state.dual], expected) < 1e-9
    assert max((z - s).abs().max() for z, s in zip(state.dual, given.start, strict=True)) > 1e-2


@pytest.mark.parametrize("spec", [spec for _, spec in SPECS], ids=str)
def test_the_outer_gradient_is_that_of_finite_differences(spec: object) -> None:
    point = DesignPoint.parse({"bias": "l2", "retention": "l2", "algorithm": spec})
    given = case(point, tokens=3, seed=2, batch=1, heads=1, key_dim=3, value_dim=2)
    leaves = [x.detach().clone().requires_grad_() for x in given.leaves()]

    def outputs(*leaves: Tensor) -> tuple[Tensor, ...]:
        copy = given.with_leaves(list(leaves))
        y, state = recurrence.run(point, copy.inputs, copy.start, copy.static)
        return (y, *state.tensors().values())

    assert torch.autograd.gradcheck(outputs, leaves, atol=1e-5, rtol=1e-4, fast_mode=False)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_adam_is_torchs(momentum: float) -> None:
    """Where epsilon does not matter; torch adds it to the root."""
    point = DesignPoint.parse(
        {"bias": "dot", "algorithm": {"adam": {"momentum": momentum, "second": 0.99, "epsilon": 1e-14}}}
    )
    given = case(point, tokens=6, seed=1, batch=1, heads=1)
    step = torch.full_like(given.inputs.step, 0.1)
    inputs = given.inputs._replace(step=step, momentum=torch.full_like(step, momentum))
    _, state = recurrence.run(point, inputs, given.start, given.static)
    weights = given.start[0].clone().requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=0.1, betas=(momentum, 0.99), eps=1e-14)
    for t in range(6):
        weights.grad = -torch.outer(inputs.k[0, t, 0], inputs.v[0, t, 0]).unsqueeze(0)
        optimiser.step()
    assert worst([state.dual[0][0]], [weights.detach()]) < 1e-10


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_newton_schulz_steps_bring_all_singular_values_near_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    from miras_search.space.algorithm.muon import orthogonalised

    u, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=torch.Generator().manual_seed(1), dtype=dtype))
    v, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=torch.Generator().manual_seed(2), dtype=dtype))
    sigma = torch.logspace(0, -1.5, min(shape), dtype=dtype)
    found = torch.linalg.svdvals(orthogonalised(u @ torch.diag(sigma) @ v.T, 5, 1e-7))
    assert found.min() > 0.6
    assert found.max() < 1.25
    assert sigma.min() < 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "spec", ["muon", {"muon": {"momentum": 0.0}}, "adam", {"adam": {"correction": False}}], ids=str
)
def test_a_gradient_of_zero_changes_nothing_and_has_a_finite_outer_gradient(spec: object, dtype: torch.dtype) -> None:
    point = DesignPoint.parse({"bias": "dot", "algorithm": spec})
    given = case(point, tokens=4, seed=3, dtype=dtype)
    inputs = given.inputs._replace(v=torch.zeros_like(given.inputs.v))
    found, gradients, state = evaluate(recurrence.run, point, Case(inputs, given.start, given.static))
    assert all(torch.isfinite(x).all() for x in (*found, *gradients))
    assert torch.equal(state.dual[0].detach(), given.start[0].expand_as(state.dual[0]))


def test_a_momentum_that_rounds_to_one_stays_finite_in_adam() -> None:
    point = DesignPoint.parse({"algorithm": "adam"})
    given = case(point, tokens=5, seed=3, dtype=torch.float32)
    forced = given.inputs._replace(momentum=torch.ones_like(given.inputs.step))
    found, gradients, _ = evaluate(recurrence.run, point, Case(forced, given.start, given.static))
    assert all(torch.isfinite(x).all() for x in (*found, *gradients))


def test_an_empty_window_counts_for_nothing_and_carries_over_segments() -> None:
    point = DesignPoint.parse({"algorithm": {"omega": {"window": 4}}, "execution": {"gradient": "frozen", "chunk": 2}})
    given = case(point, tokens=9, seed=6)
    whole, final = dispatch.run(point, given.inputs, given.start, given.static)
    state: State | None = None
    pieces = []
    for t in range(9):
        token = given.inputs.tokens(t, t + 1)
        y, state = dispatch.run(point, token, given.start, given.static, state)
        pieces.append(y)
    assert state is not None
    assert worst([torch.cat(pieces, 1), *state.tensors().values()], [whole, *final.tensors().values()]) < 1e-12
    assert state.window["k"].shape[1] == 3
    # without the past its tokens are other functions: the window is not idle
    alone, _ = dispatch.run(point, given.inputs.tokens(8, 9), given.start, given.static)
    assert worst([alone], [pieces[-1]]) > 1e-2


def test_canonical_forms() -> None:
    def hash_of(spec: object) -> str:
        return DesignPoint.parse({"algorithm": spec}).hash

    assert hash_of({"omega": {"window": 1, "share": 1.0}}) == hash_of("gd")
    assert hash_of({"omega": {"window": 1, "share": 1.0, "momentum": "data"}}) == hash_of(
        {"momentum": {"momentum": {"value": 0.5}}}
    )
    different = ["gd", "momentum", {"omega": {"window": 1}}, {"omega": {"window": 2, "share": 1.0}}, "omega", "muon",
                 {"muon": {"window": 2}}, "adam", {"adam": {"correction": False}}]  # fmt: skip
    assert len({hash_of(spec) for spec in different}) == len(different)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"omega": {"window": 0}}, "omega.window: 0 is not between 1 and 64"),
        ({"omega": {"share": {"scope": "key"}}}, "omega.share: a share is one number a pair and head, not by key"),
        ({"omega": {"share": {"squash": "softplus"}}}, "omega.share: the shares of a window are squashed by a sigmoid"),
        ({"omega": {"share": 0}}, "omega.share: a fixed share is positive, got 0"),
        ({"omega": {"momentum": 1.0}}, "omega.momentum: a fixed momentum lies in [0, 1)"),
        ({"muon": {"iterations": 0}}, "muon.iterations: 0 is not between 1 and 20"),
        ({"muon": {"epsilon": 0}}, "muon.epsilon: 0 must be positive: a gradient may be 0"),
        ({"adam": {"second": 1}}, "adam.second: 1 does not lie in [0, 1)"),
        ({"adam": {"momentum": {"scope": "key"}}}, "adam.momentum: adam knows its momentum by head only, not by key"),
    ],
)
def test_bad_settings_are_named(spec: object, message: str) -> None:
    from miras_search.space.fields import SpecError

    with pytest.raises(SpecError) as caught:
        ALGORITHM.parse(spec)
    assert str(caught.value) == message
