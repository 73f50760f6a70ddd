"""The f-divergence gate: the minimiser on the simplex, the printed form by a root finder, and the gradients of both."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from gates_tried import F64, better_points, normal, onto_simplex, primal_write
from memories import case
from scipy.optimize import brentq
from torch import Tensor

from miras_search.kernels import chunkwise, recurrence
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.retention import RETENTION, Retention
from miras_search.space.rules import check

ROWS, COLS = 5, 4
AXES = {"column": -2, "row": -1, "whole": 0}
DIVERGENCES = ["reverse_kl", "chi_squared", "hellinger", "kl"]
# f, (f')^-1 and the end of its domain, as the paper writes them
F: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": lambda r: -r.log(),
    "chi_squared": lambda r: (r - 1).square(),
    "hellinger": lambda r: (r.sqrt() - 1).square(),
    "kl": lambda r: r * r.log(),
}
INVERSE: dict[str, Callable[[float], float]] = {
    "reverse_kl": lambda y: -1 / y,
    "chi_squared": lambda y: max(0.0, 1 + y / 2),
    "hellinger": lambda y: 1 / (1 - y) ** 2,
    "kl": lambda y: math.exp(y - 1),
}
END = {"reverse_kl": 0.0, "chi_squared": math.inf, "hellinger": 1.0, "kl": math.inf}
ONE = torch.ones((), dtype=F64)


def gate(divergence: str, slice_: str = "column", scale: float = 1.0, **settings: object) -> Retention:
    return RETENTION.parse({"f_divergence": {"divergence": divergence, "slice": slice_, "scale": scale, **settings}})


def slices(w: Tensor, slice_: str) -> Tensor:
    """[slices, entries]"""
    return {"column": w.T, "row": w, "whole": w.reshape(1, -1)}[slice_]


def printed(divergence: str, old: Tensor, change: Tensor, c: float) -> Tensor:
    """W' g_f(-zeta + change) for one slice, zeta by Brent's method on the printed sum."""
    inverse, d = INVERSE[divergence], change.tolist()

    def excess(zeta: float) -> float:
        return sum(w * inverse(x - zeta) for w, x in zip(old.tolist(), d, strict=True)) - c

    high = max(d) + 50
    low = max(d) - END[divergence] + 1e-13 if END[divergence] < math.inf else min(d) - 50
    zeta = brentq(excess, low, high, xtol=1e-15, rtol=1e-14, maxiter=1000)
    return torch.tensor([w * inverse(x - zeta) for w, x in zip(old.tolist(), d, strict=True)], dtype=F64)


@pytest.mark.parametrize("slice_", AXES)
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("step", [0.05, 0.7, 6.0])
def test_a_write_is_the_printed_form_with_zeta_by_a_root_finder(divergence: str, slice_: str, step: float) -> None:
    c = 2.5
    option = gate(divergence, slice_, c)
    old, g = option.origin(normal(ROWS, COLS, seed=1)), normal(ROWS, COLS, seed=2)
    found = primal_write(option, old, g, keep=1.0, step=step)
    pairs = zip(slices(old, slice_), slices(-step * g, slice_), strict=True)
    expected = torch.stack([printed(divergence, w, change, c) for w, change in pairs])
    torch.testing.assert_close(slices(found, slice_), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("slice_", AXES)
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize(("step", "c"), [(0.1, 1.0), (1.5, 1.0), (0.8, 3.0)])
def test_a_write_minimises_its_objective_on_the_simplex(divergence: str, slice_: str, step: float, c: float) -> None:
    option = gate(divergence, slice_, c)
    old, g = option.origin(normal(ROWS, COLS, seed=3)), normal(ROWS, COLS, seed=4)

    def objective(w: Tensor) -> Tensor:
        return ((w - old) * g).sum() + (old * F[divergence]((w / old).clamp(min=1e-12))).sum() / step

    def inner(w: Tensor) -> Tensor:
        return onto_simplex(AXES[slice_], c)(w)

    found = primal_write(option, old, g, keep=1.0, step=step)
    assert better_points(objective, found, inner) == 0
    for wrong in (
        primal_write(option, old, g, keep=1.0, step=2 * step),
        primal_write(option, old, -g, keep=1.0, step=step),
        old,
    ):
        assert better_points(objective, wrong, inner) > 0


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_each_divergence_is_another_function(divergence: str) -> None:
    old, g = gate("kl").origin(normal(ROWS, COLS, seed=3)), normal(ROWS, COLS, seed=4)
    found = primal_write(gate(divergence), old, g, keep=1.0, step=1.0)
    for other in set(DIVERGENCES) - {divergence}:
        assert (found - primal_write(gate(other), old, g, keep=1.0, step=1.0)).abs().max() > 0.01


def test_chi_squared_clips_what_it_would_make_negative() -> None:
    option = gate("chi_squared")
    old, g = option.origin(normal(ROWS, COLS, seed=5)), normal(ROWS, COLS, seed=6)
    found = primal_write(option, old, g, keep=1.0, step=6.0)
    assert (found == 0).any()
    assert (found >= 0).all()
    unclipped = old * (1 - 6.0 * (g - (old * g).sum(0)) / 2)  # 1 + y/2 with zeta in closed form
    torch.testing.assert_close(unclipped.sum(0), torch.ones(COLS, dtype=F64))
    assert (unclipped < 0).any()


@pytest.mark.parametrize("slice_", AXES)
def test_kl_is_the_kl_gate_at_keep_1(slice_: str) -> None:
    """Over a whole sequence, from the same learned start."""
    options = {"slice": slice_, "scale": 2.0}
    primal = DesignPoint.parse({"retention": {"f_divergence": {"divergence": "kl", **options}}})
    dual = DesignPoint.parse({"retention": {"kl": {"keep": 1.0, **options}}})
    given = case(dual, 24, seed=8)
    expected, state = recurrence.run(dual, given.inputs, given.start, {})
    for run in (recurrence.run, chunkwise.run):
        found, after = run(primal, given.inputs, given.start, {})
        assert (found - expected).abs().max() < 1e-10
        assert (after.dual[0] - dual.retention.link(state.dual[0], {})).abs().max() < 1e-10


@pytest.mark.parametrize("slice_", AXES)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_keep_mixes_with_uniform_before_the_write(divergence: str, slice_: str) -> None:
    a, c, step = 0.7, 2.0, 0.6
    option = gate(divergence, slice_, c, keep="data")
    old, g = option.origin(normal(ROWS, COLS, seed=9)), normal(ROWS, COLS, seed=10)
    count = {"column": ROWS, "row": COLS, "whole": ROWS * COLS}[slice_]
    mixed = torch.tensor([[a * x + (1 - a) * c / count for x in row] for row in old.tolist()], dtype=F64)
    found = primal_write(option, old, g, keep=a, step=step)
    pairs = zip(slices(mixed, slice_), slices(-step * g, slice_), strict=True)
    expected = torch.stack([printed(divergence, w, change, c) for w, change in pairs])
    torch.testing.assert_close(slices(found, slice_), expected, rtol=1e-9, atol=1e-11)
    for _ in range(200):
        old = primal_write(option, old, torch.zeros_like(g), keep=a, step=step)
    torch.testing.assert_close(old, torch.full_like(old, c / count))


@pytest.mark.parametrize("slice_", AXES)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_outer_gradients_are_those_of_finite_differences(divergence: str, slice_: str) -> None:
    """Through weights, keep and change; zeta is found without gradient, so this is the implicit function theorem."""
    option = gate(divergence, slice_, 1.5, keep="data")
    old = option.origin(normal(2, ROWS, COLS, seed=11)).requires_grad_()
    keep = torch.tensor([[[0.9]], [[1.0 - 1e-3]]], dtype=F64).requires_grad_()
    change = (0.8 * normal(2, ROWS, COLS, seed=12)).requires_grad_()

    def step(w: Tensor, a: Tensor, d: Tensor) -> Tensor:
        return option.step(w, a, d, ONE, {})

    assert torch.autograd.gradcheck(step, (old, keep, change), eps=1e-6, atol=1e-7, rtol=1e-5)
    parameter = normal(ROWS, COLS, seed=13).requires_grad_()
    assert torch.autograd.gradcheck(option.origin, (parameter,))


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 1e3])
def test_float32_stays_on_the_simplex_with_finite_gradients(divergence: str, size: float) -> None:
    """Write after write, however large; rounding is relative to the size of a change in chi_squared."""
    option = gate(divergence)
    parameter = (4 * normal(2, 3, 32, 8, seed=14)).float().requires_grad_()
    one, w = torch.ones(2, 3, 1, 1), option.origin(parameter)
    for t in range(8):
        w = option.step(w, one, (size * normal(2, 3, 32, 8, seed=20 + t)).float(), one, {})
        assert torch.isfinite(w).all()
        assert (w >= 0).all()
        assert (w.sum(-2) - 1).abs().max() < 1e-5 + 1e-6 * size
    (found,) = torch.autograd.grad(w.square().sum(), parameter)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("spread", [1.0, 15.0])
def test_the_multiplier_is_found_where_weights_span_thirty_orders_of_magnitude(divergence: str, spread: float) -> None:
    """Writes that favour the very weights that hold almost nothing."""
    option = gate(divergence)
    w = option.origin(spread * normal(50, 256, 1, seed=15))
    for change in (-w.log(), 50 * w, -50 * w, normal(50, 256, 1, seed=16)):
        found = option.step(w, ONE, change, ONE, {})
        assert (found.sum(-2) - 1).abs().max() < 1e-10


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_one_batch_and_head_alone_and_under_vmap(divergence: str) -> None:
    option = gate(divergence, "row")
    w, change = option.origin(normal(2, 3, ROWS, COLS, seed=17)), normal(2, 3, ROWS, COLS, seed=18)
    found = option.step(w, ONE, change, ONE, {})
    mapped = torch.func.vmap(torch.func.vmap(lambda x, d: option.step(x, ONE, d, ONE, {})))(w, change)
    torch.testing.assert_close(mapped, found)
    torch.testing.assert_close(option.step(w[1, 2], ONE, change[1, 2], ONE, {}), found[1, 2])


def test_the_start_is_on_the_simplex_near_uniform() -> None:
    option = gate("hellinger", scale=3.0)
    w = option.origin(option.start(0.01 * normal(ROWS, COLS, seed=19)))
    torch.testing.assert_close(w.sum(0), torch.full((COLS,), 3.0, dtype=F64))
    assert (w - 3.0 / ROWS).abs().max() < 0.05
    point = DesignPoint.parse({"retention": {"f_divergence": {"scale": 3.0}}})
    given = case(point, 3, seed=20)
    _, state = recurrence.run(point, given.inputs, given.start, {})
    torch.testing.assert_close(state.dual[0].sum(-2), torch.full((2, 2, 5), 3.0, dtype=F64))


def test_settings_that_cannot_be() -> None:
    for spec, phrase in (
        ({"scale": 0.0}, "a slice sums to a positive number"),
        ({"keep": 1.5}, "a keep gate lies in"),
        ({"divergence": "tv"}, "not one of reverse_kl, chi_squared, hellinger, kl"),
    ):
        with pytest.raises(SpecError, match=phrase):
            RETENTION.parse({"f_divergence": spec})
    with pytest.raises(SpecError, match="f_divergence knows keep by head, value only, not by key"):
        check(DesignPoint.parse({"retention": {"f_divergence": {"keep": {"source": "data", "scope": "key"}}}}), 4, 4)
