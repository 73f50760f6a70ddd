"""Statements of Miras about retention as a whole: Proposition 3.2, chunks of Memora, coupled gates, plain loops.

Proposition 3.2 (Learning-Retaining = FTRL) is tried where its assumptions hold and where each of two is broken.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gates_tried import F64, anywhere, better_points, normal, onto_simplex
from memories import Case, case
from torch import Tensor

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.models.config import ModelConfig
from miras_search.models.mixer import Mixer
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.option import spell
from miras_search.space.retention import RETENTION

N = 6
Loss = Callable[[Tensor], Tensor]


def test_the_rest_of_the_gates_is_tested_here() -> None:
    """And none, l2 and kl in test_space_retention.py."""
    assert set(RETENTION.options) == {"none", "l2", "kl", "f_divergence", "elastic_net", "lq", "bregman"}
    assert all(cls.objective for cls in RETENTION.options.values())


# Proposition 3.2


def quadratic(seed: int) -> Loss:
    """A random strictly convex quadratic."""
    root, centre = normal(N, N, seed=seed), normal(N, seed=seed + 1)
    return lambda w: (root @ (w - centre)).square().sum() / 2 + 0.1 * (w - centre).square().sum()


def argmin(objective: Loss) -> Tensor:
    """Of a quadratic: one Newton step from anywhere."""
    at = torch.zeros(N, dtype=F64)
    slope, curvature = torch.func.grad(objective)(at), torch.func.jacrev(torch.func.grad(objective))(at)
    return at - torch.linalg.solve(curvature, slope)


def learning_retaining(losses: list[Loss], regulariser: Loss, start: Tensor) -> list[Tensor]:
    """w_t = argmin l_t(w) + D_h(w, w_{t-1}), h the sum of all that came before."""
    found = [start]
    for t, loss in enumerate(losses):
        old = found[-1]

        def h(w: Tensor, before: list[Loss] = losses[:t]) -> Tensor:
            return regulariser(w) + sum((one(w) for one in before), torch.zeros((), dtype=F64))

        slope = torch.func.grad(h)(old)

        def objective(w: Tensor, loss: Loss = loss, h: Loss = h, old: Tensor = old, slope: Tensor = slope) -> Tensor:
            return loss(w) + h(w) - h(old) - slope @ (w - old)

        found.append(argmin(objective))
    return found[1:]


def follow_the_leader(losses: list[Loss], regulariser: Loss) -> list[Tensor]:
    def total(w: Tensor, t: int) -> Tensor:
        return regulariser(w) + sum((one(w) for one in losses[: t + 1]), torch.zeros((), dtype=F64))

    return [argmin(lambda w, t=t: total(w, t)) for t in range(len(losses))]


def test_learning_retaining_is_ftrl_where_its_assumptions_hold() -> None:
    losses, regulariser = [quadratic(10 * i) for i in range(1, 8)], quadratic(900)
    ftrl = follow_the_leader(losses, regulariser)
    same = learning_retaining(losses, regulariser, argmin(regulariser))
    for one, other in zip(same, ftrl, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    elsewhere = learning_retaining(losses, regulariser, argmin(regulariser) + 1.0)  # not the start of FTRL
    assert (elsewhere[0] - ftrl[0]).abs().max() > 1e-2


def test_learning_retaining_is_not_ftrl_with_a_step_of_each_token_outside_of_the_sum() -> None:
    """argmin sum <w, g_i> + |w|^2 / (2 e_t) = -e_t sum g_i; descent is -sum e_i g_i, FTRL with e_i inside the sum."""
    point = DesignPoint.parse({"bias": "dot"})
    given = case(point, 6, seed=1, batch=1, heads=1)
    inputs, nothing = given.inputs, (torch.zeros_like(given.start[0]),)
    steps = inputs.step[0, :, 0]
    gradients = [-torch.outer(k, v) for k, v in zip(inputs.k[0, :, 0], inputs.v[0, :, 0], strict=True)]

    def descended(inputs: Inputs) -> Tensor:
        return recurrence.run(point, inputs, nothing, {})[1].dual[0][0, 0]

    def leader(inside: list[float], outside: float) -> Loss:
        return lambda w: (
            sum((e * (w * g).sum() for e, g in zip(inside, gradients, strict=True)), torch.zeros((), dtype=F64))
            + w.square().sum() / (2 * outside)
        )

    found = descended(inputs)
    last = steps[-1].item()
    assert better_points(leader([1.0] * 6, last), found) > 0
    outside = -last * torch.stack(gradients).sum(0)
    assert (outside - found).abs().max() > 0.05
    assert better_points(leader([1.0] * 6, last), outside) == 0
    assert better_points(leader(steps.tolist(), 1.0), found) == 0
    constant = descended(inputs._replace(step=torch.full_like(inputs.step, 0.3)))
    assert better_points(leader([1.0] * 6, 0.3), constant) == 0


# Memora in chunks


def test_memoras_linear_chunk_leaves_the_simplex() -> None:
    """link_refresh: chunk, the paper's fast form, adds to W inside a chunk; the definition stays on the simplex."""
    spec = {"bias": "l2", "retention": "kl", "step": {"scale": 2.0}}
    fast = DesignPoint.parse({**spec, "execution": {"gradient": "frozen", "chunk": 16, "link_refresh": "chunk"}})
    true = DesignPoint.parse({**spec, "execution": {"gradient": "frozen", "chunk": 16}})
    given = case(fast, 16, seed=2)
    inputs = given.inputs._replace(step=torch.full_like(given.inputs.step, 1.0), v=2 * given.inputs.v)
    for run in (recurrence.run, chunkwise.run):
        _, inside = run(fast, inputs.tokens(0, 9), given.start, {})
        weights = inside.tangent[0]
        assert weights.min() < -0.1
        assert (weights.sum(-2) - 1).abs().max() > 0.1
        _, end = run(fast, inputs, given.start, {})
        assert (end.tangent[0] >= 0).all()  # the link is applied at the chunk's end
        torch.testing.assert_close(end.tangent[0].sum(-2), torch.ones_like(end.tangent[0].sum(-2)))
        _, state = run(true, inputs.tokens(0, 9), given.start, {})
        kept = true.retention.link(state.dual[0], {})
        assert (kept >= 0).all()
        torch.testing.assert_close(kept.sum(-2), torch.ones_like(kept.sum(-2)))


# Coupled gates


def bregman(w: Tensor, old: Tensor, f: Loss) -> Tensor:
    """D_F(w, old)."""
    return f(w) - f(old) - (torch.func.grad(f)(old) * (w - old)).sum()


def half_square(w: Tensor) -> Tensor:
    return w.square().sum() / 2


def entropy(w: Tensor) -> Tensor:
    return torch.special.xlogy(w, w).sum()


def lq_norm(w: Tensor) -> Tensor:
    return w.abs().pow(4 / 3).sum().pow(1.5) / 2  # 1/2 |W|_p^2, p = 4/3


def power(w: Tensor) -> Tensor:
    return w.abs().pow(3).sum() / 3


COUPLED: dict[str, tuple[object, Loss, Loss, Callable[[Tensor], Tensor]]] = {
    # the gate, the function of the local term, what the global term adds to it, and the feasible points
    "l2": ("l2", half_square, half_square, anywhere),
    "kl": ("kl", entropy, entropy, onto_simplex(-2, 1.0)),
    "kl row": ({"kl": {"slice": "row", "scale": 2.0}}, entropy, entropy, onto_simplex(-1, 2.0)),
    "kl whole": ({"kl": {"slice": "whole"}}, entropy, entropy, onto_simplex(0, 1.0)),
    "elastic_net": ({"elastic_net": {"shrink": 0.3}}, half_square, half_square, anywhere),
    "lq": ({"lq": {"epsilon": 1e-4}}, lq_norm, lq_norm, anywhere),
    "bregman": ({"bregman": {"potential": "power", "epsilon": 1e-14}}, power, power, anywhere),
}


@pytest.mark.parametrize("name", COUPLED)
def test_a_coupled_layer_minimises_one_objective_and_a_free_one_another(name: str) -> None:
    """The layer's own gates: with e and a the step and keep it projects, b of the global term is a e / (1 - a)."""
    spec, local, global_, feasible = COUPLED[name]
    settings = spell(RETENTION.parse(spec))
    ((option, plain),) = settings.items()
    assert isinstance(plain, dict)
    shrink = 0.3 if name == "elastic_net" else 0.0
    results = {}
    for coupled in (True, False):
        design = DesignPoint.parse(
            {
                "bias": "dot",
                "retention": {option: {**plain, "coupled": coupled, "keep": {"source": "data", "value": 0.6}}},
            }
        )
        mixer = Mixer(ModelConfig(d_model=8, heads=1, key_dim=4, value_dim=3), design).double()
        mixer.initialise(torch.Generator().manual_seed(0))
        gates = mixer.gates(normal(1, 1, mixer.gates.width, seed=3))
        inputs = mixer._inputs(normal(1, 1, sum(mixer.widths), seed=4), gates)
        inputs = inputs._replace(v=3 * normal(*inputs.v.shape, seed=5))
        start = normal(1, 4, 3, seed=6)
        old = design.retention.link(start, {})[0]
        _, state = recurrence.run(design, inputs, (start,), {})
        found = design.retention.link(state.dual[0], {})[0, 0]
        e, a = gates["step"].item(), gates["keep"].exp().item()
        assert 0.1 < a < 0.95
        g = -torch.outer(inputs.k[0, 0, 0], inputs.v[0, 0, 0])

        def objective(w: Tensor, g: Tensor = g, old: Tensor = old, e: float = e, b: float = a * e / (1 - a)) -> Tensor:
            near = bregman(w.clamp(min=1e-14) if local is entropy else w, old, local)
            return ((w - old) * g).sum() + near / e + global_(w) / b + shrink * w.abs().sum()

        results[coupled] = better_points(objective, found, feasible)
    assert results[True] == 0
    assert results[False] > 0


# Every gate against a loop of its own


def soft(z: Tensor, y: Tensor) -> Tensor:
    return z.sign() * (z.abs() - y).clamp(min=0)


def reverse_kl(w: Tensor, d: Tensor) -> Tensor:
    """W' / (zeta - d) by 200 bisections a column."""
    low, high = d.amax(0) + 1e-15, d.amax(0) + 1
    for _ in range(200):
        middle = (low + high) / 2
        above = (w / (middle - d)).sum(0) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return w / (low - d)


Z = Tensor
LOOPS: dict[str, tuple[object, Callable[[Z, Tensor, Tensor, Tensor], Z], Callable[[Z], Tensor], Callable[[Z], Z]]] = {
    # the gate, what it keeps after a write (kept, a, e, g), the weights of what it keeps, what it keeps at the start
    "f_divergence": (
        "f_divergence", lambda z, a, e, g: reverse_kl(z, -e * g), lambda z: z, lambda z: z.exp() / z.exp().sum(0),
    ),
    "elastic primal": (
        {"elastic_net": {"shrink": 0.3}}, lambda z, a, e, g: soft(a * z - e * g, 0.3 * e), lambda z: z, lambda z: z,
    ),
    "elastic dual": (
        {"elastic_net": {"view": "ftrl", "shrink": 0.3}}, lambda z, a, e, g: a * z - e * g,
        lambda z: soft(z, torch.tensor(0.3, dtype=F64)), lambda z: z,
    ),
    "lq dual": (
        {"lq": {"epsilon": 1e-4}}, lambda z, a, e, g: a * z - e * g, lambda z: z**3 / (z**4).sum().sqrt(), lambda z: z,
    ),
    "lq literal": (
        {"lq": {"epsilon": 1e-4, "reading": "literal"}}, lambda z, a, e, g: a * z - e * g,
        lambda z: z / (z**4).sum().sqrt(), lambda z: z,
    ),
    "lq primal": (
        {"lq": {"epsilon": 1e-4, "reading": "primal_index", "q": 1.5}}, lambda z, a, e, g: a * z - e * g,
        lambda z: 0.5 * z * z.abs() / (z.abs() ** 3).sum() ** (1 / 3), lambda z: z,
    ),
    "logit": ("bregman", lambda z, a, e, g: a * z - e * g, lambda z: 1 / (1 + (-z).exp()), lambda z: z),
    "arcsinh": (
        {"bregman": {"potential": "arcsinh", "b": 0.2}}, lambda z, a, e, g: a * z - e * g,
        lambda z: 0.1 * (z.exp() - (-z).exp()), lambda z: z,
    ),
}  # fmt: skip


def plainly(name: str, given: Case) -> tuple[Tensor, Tensor]:
    """Reads [B,T,H,V] and weights [B,H,K,V] of a matrix memory under the half square, exact gradients."""
    _, after, weights, origin = LOOPS[name]
    x, reads, finals = given.inputs, [], []
    for b in range(x.q.shape[0]):
        for h in range(x.q.shape[2]):
            kept = origin(given.start[0][h])
            for t in range(x.q.shape[1]):
                k, v = x.k[b, t, h], x.v[b, t, h]
                g = torch.outer(k, k @ weights(kept) - v)
                kept = after(kept, x.log_keep[b, t, h].exp(), x.step[b, t, h], g)
                reads.append(x.q[b, t, h] @ weights(kept))
            finals.append(weights(kept))
    shape = (x.q.shape[0], x.q.shape[2], x.q.shape[1], -1)
    return torch.stack(reads).view(shape).transpose(1, 2), torch.stack(finals).view(*shape[:2], *finals[0].shape)


@pytest.mark.parametrize("run", [recurrence.run, chunkwise.run, dispatch.run], ids=["recurrence", "chunkwise", "best"])
@pytest.mark.parametrize("name", LOOPS)
def test_a_sequence_is_a_loop_of_the_papers_equations(name: str, run: Callable[..., tuple[Tensor, object]]) -> None:
    design = DesignPoint.parse({"retention": LOOPS[name][0]})
    given = case(design, 9, seed=7)
    expected, last = plainly(name, given)
    found, state = recurrence.run(design, given.inputs, given.start, {})
    y, _ = run(design, given.inputs, given.start, {})
    tolerance = 1e-4 if "lq" in name else 1e-9  # of epsilon
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found, y, rtol=1e-10, atol=1e-10)
    kept = state.dual[0] if design.retention.identity else design.retention.link(state.dual[0], {})
    torch.testing.assert_close(kept, last, rtol=tolerance, atol=tolerance)
