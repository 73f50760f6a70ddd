"""The Mesa layer against least squares solved by another method, and its settings."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from miras_search.space.algorithm import ALGORITHM
from miras_search.space.algorithm.newton import CHUNK, Newton, RidgeRegression, conjugate_gradients
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.memory import Matrix

B, H, K, V = 2, 2, 4, 3
STATIC = {"ridge": torch.tensor([[0.3, -1.0, 0.8, 2.0], [1.0, 0.0, -0.5, 0.1]], dtype=torch.float64)}


def drawn(tokens: int, seed: int = 0, *, keys: int = K) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return Inputs(
        q=normal(B, tokens, H, keys),
        k=normal(B, tokens, H, keys),
        v=normal(B, tokens, H, V),
        log_keep=-0.3 * uniform(B, tokens, H),
        step=uniform(B, tokens, H),
    )


def least_squares(inputs: Inputs, ridge: Tensor) -> Tensor:
    """y_t = q_t argmin_W sum_s (keep after s) e_s |k_s W - v_s|^2 + sum_k l_k |W_k|^2, by lstsq on root weights."""
    y = torch.zeros(*inputs.q.shape[:3], V, dtype=torch.float64)
    for b in range(B):
        for t in range(inputs.q.shape[1]):
            for h in range(H):
                rows, targets = [], []
                for s in range(t + 1):
                    keep = math.prod(math.exp(inputs.log_keep[b, i, h].item()) for i in range(s + 1, t + 1))
                    root = math.sqrt(keep * inputs.step[b, s, h].item())
                    rows.append(root * inputs.k[b, s, h])
                    targets.append(root * inputs.v[b, s, h])
                for i in range(K):
                    rows.append(torch.eye(K, dtype=torch.float64)[i] * ridge[h, i].sqrt())
                    targets.append(torch.zeros(V, dtype=torch.float64))
                w = torch.linalg.lstsq(torch.stack(rows), torch.stack(targets), driver="gelsd").solution
                y[b, t, h] = inputs.q[b, t, h] @ w
    return y


@pytest.mark.parametrize("tokens", [1, 3, 40])
@pytest.mark.parametrize("iterations", [None, 2 * K])
def test_reads_with_the_weights_that_fit_all_pairs_best(tokens: int, iterations: int | None) -> None:
    inputs = drawn(tokens)
    assert tokens != 40 or tokens > CHUNK
    solution = RidgeRegression(0.25, iterations)
    y, _ = solution.whole(solution.initial(inputs), inputs, STATIC)
    expected = least_squares(inputs, 0.25 + torch.log1p(STATIC["ridge"].exp()))
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-10)


def test_no_other_weights_have_a_smaller_objective() -> None:
    """The objective as the docstring has it, at the memory's own weights (read by unit queries) and perturbed ones."""
    inputs, solution = drawn(6, seed=3), RidgeRegression(0.25, None)
    state = solution.initial(inputs)
    for s in range(6):
        state = solution.absorb(state, inputs.tokens(s, s + 1), STATIC)
    rows = [solution.read(state, torch.eye(K, dtype=torch.float64)[i].expand(B, 1, H, K), STATIC) for i in range(K)]
    weights = torch.cat(rows, 1).transpose(1, 2)  # [B,H,K,V]
    ridge = 0.25 + torch.log1p(STATIC["ridge"].exp())
    decay = torch.exp(inputs.log_keep.flip(1).cumsum(1).flip(1) - inputs.log_keep)  # keep after s

    def objective(w: Tensor) -> Tensor:
        r = torch.einsum("bthk,bhkv->bthv", inputs.k, w) - inputs.v
        fit = (decay * inputs.step * r.square().sum(-1)).sum(1)
        return 0.5 * fit + 0.5 * (ridge * w.square().sum(-1)).sum(-1)

    best, generator = objective(weights), torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-1, 1.0):
        for _ in range(30):
            other = weights + size * torch.randn(weights.shape, generator=generator, dtype=torch.float64)
            assert (objective(other) > best).all()


def test_few_conjugate_gradients_are_another_function() -> None:
    inputs = drawn(9)
    exact, rough = (RidgeRegression(0.25, iterations) for iterations in (None, 1))
    a, _ = exact.whole(exact.initial(inputs), inputs, STATIC)
    b, _ = rough.whole(rough.initial(inputs), inputs, STATIC)
    assert (a - b).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conjugate_gradients_stand_still_when_they_are_done(dtype: torch.dtype) -> None:
    """Many more steps than dimensions, a query of zeros among them: values and gradients stay finite and right."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, K, K, generator=generator, dtype=torch.float64).to(dtype)
    a = (root @ root.mT + torch.eye(K, dtype=dtype)).requires_grad_()
    q = torch.randn(6, 1, K, generator=generator, dtype=torch.float64).to(dtype)
    q[2] = 0.0
    q.requires_grad_()
    x = conjugate_gradients(lambda p: p @ a, q, 60)
    expected = torch.linalg.solve(a, q.mT).mT
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(x, expected, rtol=tolerance, atol=tolerance)
    weights = torch.randn(6, 1, K, generator=generator, dtype=torch.float64).to(dtype)
    (by_q,) = torch.autograd.grad((x * weights).sum(), q)
    assert torch.isfinite(by_q).all()
    wanted = torch.linalg.solve(a, weights.mT).mT  # a is symmetric
    torch.testing.assert_close(
        by_q[[0, 1, 3, 4, 5]], wanted[[0, 1, 3, 4, 5]], rtol=1e4 * tolerance, atol=1e2 * tolerance
    )


@pytest.mark.parametrize("iterations", [None, 5])
def test_a_broken_key_gives_nan_and_no_exception(iterations: int | None) -> None:
    """A training that diverges is a result, which the trainer notices by its loss."""
    inputs = drawn(4)
    k = inputs.k.clone()
    k[0, 1] = float("nan")
    solution = RidgeRegression(0.25, iterations)
    y, _ = solution.whole(solution.initial(inputs), inputs._replace(k=k), STATIC)
    assert torch.isnan(y[0, 1:]).any()
    assert torch.isfinite(y[1]).all()


@pytest.mark.parametrize("iterations", [None, 3])
def test_outer_gradients_by_finite_differences(iterations: int | None) -> None:
    inputs = drawn(3, seed=2, keys=2)
    solution = RidgeRegression(0.25, iterations)
    ridge = STATIC["ridge"][:, :2].clone().requires_grad_()
    leaves = [x.clone().requires_grad_() for x in inputs[:5]]

    def run(*given: Tensor) -> Tensor:
        changed = Inputs(*given[:5])
        y, state = solution.whole(solution.initial(changed), changed, {"ridge": given[5]})
        return torch.cat([y.flatten(), state["H"].flatten(), state["G"].flatten()])

    assert torch.autograd.gradcheck(run, (*leaves, ridge))


def test_the_ridge_starts_as_set_and_never_falls_below_the_least() -> None:
    algorithm = Newton(ridge=0.7, least=0.1)
    ((shape, start),) = algorithm.static(5, 3).values()
    assert shape == (5,)
    found = algorithm.solution(Matrix())
    assert isinstance(found, RidgeRegression)
    torch.testing.assert_close(found._ridge({"ridge": torch.full((1, 5), start)}), torch.full((1, 1, 5), 0.7))
    assert found._ridge({"ridge": torch.tensor([[-200.0]])}).item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"newton": {"ridge": 0.2}}, "algorithm.newton.ridge: 0.2 must lie above least = 0.25"),
        ({"newton": {"ridge": 1e999}}, "algorithm.newton.ridge: inf must lie above least = 0.25"),
        ({"newton": {"least": -1.0}}, "algorithm.newton.least: -1 must not be negative"),
        ({"newton": {"iterations": 0}}, "algorithm.newton.iterations: 0 is not between 1 and 256, or none"),
        ({"newton": {"iterations": 2.5}}, "algorithm.newton.iterations: expected a whole number, got 2.5"),
    ],
)
def test_bad_settings_are_named(spec: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        ALGORITHM.parse(spec, ("algorithm",))
    assert str(caught.value) == message


def test_what_does_not_matter_leaves_the_hash() -> None:
    point = DesignPoint.parse({"algorithm": "newton"})
    for same in (
        {"memory": {"matrix": {"start": "zero"}}},
        {"memory": {"mlp": {"depth": 1, "residual": False, "norm": "none"}}},
        {"execution": {"gradient": "frozen", "chunk": 4, "gradient_at": "decayed"}},
        {"bias": {"lp": {"p": 2.0}}},
        {"retention": {"l2": {"keep": 1.0}}},
    ):
        assert point.refined(same).hash == point.hash, same
    others = (
        {"algorithm": {"newton": {"iterations": 30}}},
        {"algorithm": {"newton": {"least": 0.0}}},
        {"step": 1.0},
        {"step": 0.5},
        {"retention": "l2"},
        {"control": "no_write"},
        {"algorithm": "gd"},
    )
    hashes = {point.refined(other).hash for other in others}
    assert len(hashes | {point.hash}) == len(others) + 1
    assert DesignPoint.parse({"memory": {"matrix": {"start": "zero"}}}).hash != DesignPoint().hash
