"""What Miras' Table 1 and Eq. 8-11 print wrongly about a write (Section 4), against what defines it.

A write is the minimiser of its objective: the loss, linearised at some weights or kept whole, plus the distance to the
faded past (Miras, Learning-Retaining viewpoint). Minimisers are certified in float64 by the gradient of the objective
and by random search around them; the printed forms fail both. Ours are recurrences of `kernels.recurrence`, printed
and corrected ones plain loops. Row vectors: S [K,V], so the paper's M is S transposed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from miras_search.kernels import recurrence
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint

F64 = torch.float64
ROWS = COLS = 5  # square, or the printed forms of Eq. 9 and of DeltaProduct could not even be computed
KEEP, STEP = 0.8, 0.35
Objective = Callable[[Tensor], Tensor]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


START = normal(ROWS, COLS, seed=0)
KEY = 1.3 * normal(ROWS, seed=1) / normal(ROWS, seed=1).norm()
VALUE = normal(COLS, seed=2)
EYE = torch.eye(ROWS, dtype=F64)


def written(
    spec: dict[str, object],
    *,
    keep: float = KEEP,
    steps: Tensor | None = None,
    keys: Tensor = KEY,
    values: Tensor = VALUE,
    start: Tensor = START,
    momentum: float | None = None,
) -> Tensor:
    """The recurrence's memory [K,V] after the tokens; `keys` [N,K] and `values` [N,V] of all writes, or of one."""
    point = DesignPoint.parse({"retention": "l2", **spec})
    keys, values = keys.view(1, -1, 1, ROWS), values.view(1, -1, 1, COLS)
    n = keys.shape[1]
    tokens = n // point.algorithm.writes
    inputs = Inputs(
        q=keys[:, :tokens],
        k=keys,
        v=values,
        log_keep=torch.full((1, tokens, 1), keep, dtype=F64).log(),
        step=torch.full((1, n, 1), STEP, dtype=F64) if steps is None else steps.view(1, n, 1),
        momentum=None if momentum is None else torch.full((1, n, 1), momentum, dtype=F64),
    )
    _, state = recurrence.run(point, inputs, (start.unsqueeze(0),), {})
    return state.dual[0][0, 0]


def slope_at(objective: Objective, w: Tensor) -> float:
    """Length of the objective's gradient: 0 at the minimum of a convex one."""
    leaf = w.clone().requires_grad_()
    (found,) = torch.autograd.grad(objective(leaf), leaf)
    return found.norm().item()


def is_minimum(objective: Objective, w: Tensor) -> bool:
    """Stationary, and no better point in a random search at several distances."""
    if slope_at(objective, w) > 1e-9:
        return False
    best = objective(w)
    return all(
        bool(objective(w + scale * normal(ROWS, COLS, seed=seed)) >= best)
        for scale in (1e-3, 1e-1, 1.0)
        for seed in range(100, 140)
    )


def half_loss(w: Tensor) -> Tensor:
    return (KEY @ w - VALUE).square().sum() / 2


def linearised(at: Tensor) -> Objective:
    """The half l2 loss, linearised at some weights."""
    gradient = torch.outer(KEY, KEY @ at - VALUE)
    return lambda w: half_loss(at) + ((w - at) * gradient).sum()


def with_past(loss: Objective, *, keep: float = KEEP, step: float = STEP) -> Objective:
    """The loss and the distance to the faded past: |S - a S'|^2 / (2 e)."""
    return lambda w: loss(w) + (w - keep * START).square().sum() / (2 * step)


# Eq. 8: the Hebbian rule


def test_equation_8_with_its_step() -> None:
    """Exact for the loss -2 <M k, v> and |M - a M'|^2, where the step is 1; with -<M k, v> and a step, e v k^T."""
    found = written({"bias": "dot"})
    assert is_minimum(with_past(lambda w: -((KEY @ w) * VALUE).sum()), found)
    printed = KEEP * START + torch.outer(KEY, VALUE)
    assert is_minimum(lambda w: -2 * ((KEY @ w) * VALUE).sum() + (w - KEEP * START).square().sum(), printed)
    assert not is_minimum(with_past(lambda w: -((KEY @ w) * VALUE).sum()), printed)
    torch.testing.assert_close(written({"bias": "dot"}, steps=torch.ones(1, dtype=F64)), printed)


# Eq. 9: the delta rule with decay


def delta(at: str) -> Tensor:
    """Our write of one token; the gradient at the previous weights or at the decayed ones."""
    return written({"bias": "l2", "execution": {"gradient_at": at}})


def implicit(keep: float = KEEP, step: float = STEP) -> Tensor:
    """a S' - e/(1 + e |k|^2) k^T (k a S' - v): the objective's minimum without any linearisation."""
    return keep * START - step / (1 + step * KEY.square().sum()) * torch.outer(KEY, KEY @ (keep * START) - VALUE)


def test_each_order_of_equation_9_minimises_its_own_objective() -> None:
    """Decay-then-read, read-then-decay and implicit: three rules, since footnote and Eq. 9 mean different ones."""
    objectives = {
        "decayed": with_past(linearised(KEEP * START)),
        "previous": with_past(linearised(START)),
        "implicit": with_past(half_loss),
    }
    found = {"decayed": delta("decayed"), "previous": delta("previous"), "implicit": implicit()}
    for mine, w in found.items():
        for other, objective in objectives.items():
            assert is_minimum(objective, w) == (mine == other), (mine, other)


def test_the_orders_of_equation_9_in_closed_form() -> None:
    erase, write = EYE - STEP * torch.outer(KEY, KEY), STEP * torch.outer(KEY, VALUE)
    torch.testing.assert_close(delta("decayed"), KEEP * erase @ START + write, rtol=1e-13, atol=1e-14)
    previous = (KEEP * EYE - STEP * torch.outer(KEY, KEY)) @ START + write
    torch.testing.assert_close(delta("previous"), previous, rtol=1e-13, atol=1e-14)


def test_equation_9_as_printed_minimises_none_of_them() -> None:
    """The write term lacks its step; and for M k the erasing factor acts on the other side of M."""
    objectives = [with_past(linearised(KEEP * START)), with_past(linearised(START)), with_past(half_loss)]
    erase = EYE - STEP * torch.outer(KEY, KEY)
    without_step = KEEP * erase @ START + torch.outer(KEY, VALUE)
    other_side = KEEP * START @ erase + STEP * torch.outer(KEY, VALUE)
    as_printed = KEEP * START @ erase + torch.outer(KEY, VALUE)
    for w in (without_step, other_side, as_printed):
        for objective in objectives:
            assert slope_at(objective, w) > 0.1
            assert not is_minimum(objective, w)
    assert is_minimum(objectives[0], without_step + (STEP - 1) * torch.outer(KEY, VALUE))


def test_the_orders_meet_only_where_nothing_fades() -> None:
    def both(keep: float) -> tuple[Tensor, Tensor]:
        previous, decayed = (
            written({"bias": "l2", "execution": {"gradient_at": at}}, keep=keep) for at in ("previous", "decayed")
        )
        return previous, decayed

    torch.testing.assert_close(*both(1.0), rtol=1e-13, atol=1e-14)
    for keep in (0.5, 0.9, 0.99):
        previous, decayed = both(keep)
        apart = (1 - keep) * STEP * torch.outer(KEY, KEY @ START)  # the part of the past that is erased twice
        torch.testing.assert_close(decayed - previous, apart, rtol=1e-9, atol=1e-13)


def test_the_implicit_write_is_the_decayed_one_with_a_shorter_step() -> None:
    """e/(1 + e |k|^2), Longhorn's: it never overshoots, where an explicit step beyond 2/|k|^2 does."""
    for step in (STEP, 50.0):
        shorter = torch.tensor([step], dtype=F64) / (1 + step * KEY.square().sum())
        found = written({"bias": "l2", "execution": {"gradient_at": "decayed"}}, steps=shorter)
        torch.testing.assert_close(found, implicit(step=step), rtol=1e-12, atol=1e-13)
        assert is_minimum(with_past(half_loss, step=step), found)
        assert half_loss(found) < half_loss(KEEP * START)
    long = written({"bias": "l2", "execution": {"gradient_at": "decayed"}}, steps=torch.full((1,), 50.0, dtype=F64))
    assert half_loss(long) > 100 * half_loss(KEEP * START)


# Eq. 11 and 12: the weights at which the gradient is taken


@pytest.mark.parametrize("p", [1.5, 3.0])
def test_equation_11_reads_the_weights_before_the_write(p: float) -> None:
    """With W_t on the right, as printed, the write is an equation for itself and another function than Eq. 5's step."""
    bias: dict[str, object] = {"lp": {"p": p, "scale": "paper", "epsilon": 1e-20}}

    def gradient(at: Tensor) -> Tensor:
        r = KEY @ at - VALUE
        return torch.outer(KEY, p * torch.sign(r) * r.abs().pow(p - 1))

    found = written({"bias": bias}, keep=1.0, steps=torch.full((1,), 0.02, dtype=F64))
    step_of_eq_5 = with_past(lambda w: ((w - START) * gradient(START)).sum(), keep=1.0, step=0.02)
    assert is_minimum(step_of_eq_5, found)
    torch.testing.assert_close(found, START - 0.02 * gradient(START), rtol=1e-12, atol=1e-13)
    printed = START
    for _ in range(200):  # the equation W_t = W_{t-1} - e grad(W_t), by fixed-point iteration
        printed = START - 0.02 * gradient(printed)
    torch.testing.assert_close(printed, START - 0.02 * gradient(printed), rtol=1e-12, atol=1e-13)
    assert not is_minimum(step_of_eq_5, printed)
    assert (printed - found).abs().max() > 1e-4


def test_equation_12_with_the_weights_after_the_write_has_no_solution() -> None:
    """A step that carries a residual across zero needs a sign that is not the sign it ends with: no W_t satisfies
    W_t = W_{t-1} - e k^T sign(k W_t - v), whereas the step from W_{t-1} is always there.
    """
    step = 1.0
    before = KEY @ START - VALUE
    found = written({"bias": "l1"}, keep=1.0, steps=torch.full((1,), step, dtype=F64))
    torch.testing.assert_close(found, START - step * torch.outer(KEY, torch.sign(before)), rtol=1e-12, atol=1e-13)
    solvable = torch.zeros(COLS, dtype=torch.bool)
    for sign in (-1.0, 0.0, 1.0):  # after the write the residual is before - e |k|^2 sign, channel by channel
        solvable |= torch.sign(before - step * KEY.square().sum() * sign) == sign
    assert not solvable.all()


# Table 1: Titans


def surprise(w: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The gradient of |k S - v|^2."""
    return 2 * torch.outer(k, k @ w - v)


def titans(sign: float, tokens: int, keep: float = 0.9, momentum: float = 0.6) -> list[Tensor]:
    """The memory after each token: M = a M + sign S, S = b S - e grad; Table 1 prints sign = -1."""
    keys, values = titans_pairs(tokens)
    w, s, seen = START, torch.zeros_like(START), []
    for k, v in zip(keys, values, strict=True):
        s = momentum * s - 0.05 * surprise(w, k, v)
        w = keep * w + sign * s
        seen.append(w)
    return seen


def titans_pairs(tokens: int) -> tuple[Tensor, Tensor]:
    keys = normal(tokens, ROWS, seed=5)
    return keys / keys.norm(dim=-1, keepdim=True), normal(tokens, COLS, seed=6)


def test_titans_adds_its_surprise() -> None:
    """Table 1 subtracts a surprise that holds the minus already, so its memory climbs the loss."""
    keys, values = titans_pairs(12)
    found = written(
        {"bias": {"l2": {"scale": "full"}}, "algorithm": "momentum"},
        keep=0.9,
        steps=torch.full((12,), 0.05, dtype=F64),
        keys=keys,
        values=values,
        momentum=0.6,
    )
    torch.testing.assert_close(found, titans(1.0, 12)[-1], rtol=1e-12, atol=1e-13)
    assert (found - titans(-1.0, 12)[-1]).abs().max() > 0.1

    def loss(w: Tensor) -> float:
        return (keys[0] @ w - values[0]).square().sum().item()

    corrected, printed = (titans(sign, 12, keep=1.0)[0] for sign in (1.0, -1.0))
    assert loss(corrected) < loss(START) < loss(printed)


def test_titans_forgets_what_miras_keeps() -> None:
    """Titans' alpha is what is forgotten, M = (1 - alpha) M + S; Miras' is what is kept."""
    forget = 0.1
    keys, values = titans_pairs(1)
    found = written(
        {"bias": {"l2": {"scale": "full"}}, "algorithm": "momentum"},
        keep=1 - forget,
        steps=torch.full((1,), 0.05, dtype=F64),
        keys=keys,
        values=values,
        momentum=0.6,
    )
    expected = (1 - forget) * START - 0.05 * surprise(START, keys[0], values[0])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    swapped = forget * START - 0.05 * surprise(START, keys[0], values[0])
    assert (found - swapped).abs().max() > 0.1


# Table 1: DeltaProduct


def product(factors: list[Tensor]) -> Tensor:
    """The last factor leftmost: what happens to a memory [K,V] that meets them in order."""
    result = EYE
    for factor in factors:
        result = factor @ result
    return result


def delta_product_inputs(n: int) -> tuple[Tensor, Tensor, Tensor]:
    keys = normal(n, ROWS, seed=7)
    steps = 0.2 + 0.6 * torch.rand(n, generator=torch.Generator().manual_seed(9), dtype=F64)
    return keys / keys.norm(dim=-1, keepdim=True), normal(n, COLS, seed=8), steps


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_delta_product_expands_into_products_after_each_write(n: int) -> None:
    """S_t = (H_n .. H_1) a S_{t-1} + sum_j (H_n .. H_{j+1}) b_j k_j^T v_j,  H_j = I - b_j k_j^T k_j.

    Table 1 prints sum_j prod_{i=j..n} (I - b v_j k_i^T): no write at all, and a v where a k belongs.
    """
    keys, values, steps = delta_product_inputs(n)
    found = written(
        {"bias": "l2", "algorithm": {"multi_step": {"writes": n}}, "execution": {"gradient_at": "decayed"}},
        keys=keys,
        values=values,
        steps=steps,
    )
    w = KEEP * START  # the definition: n delta steps, one after the other
    for k, v, b in zip(keys, values, steps, strict=True):
        w = w - b * torch.outer(k, k @ w - v)
    erase = [EYE - b * torch.outer(k, k) for k, b in zip(keys, steps, strict=True)]
    writes = [b * torch.outer(k, v) for k, v, b in zip(keys, values, steps, strict=True)]
    expanded = product(erase) @ (KEEP * START) + sum(product(erase[j + 1 :]) @ writes[j] for j in range(n))
    torch.testing.assert_close(found, w, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(expanded, w, rtol=1e-12, atol=1e-13)
    garbled = product(erase) @ (KEEP * START) + sum(
        product([EYE - steps[i] * torch.outer(keys[i], values[j]) for i in range(j, n)]) for j in range(n)
    )
    one_too_many = product(erase) @ (KEEP * START) + sum(product(erase[j:]) @ writes[j] for j in range(n))
    for wrong in (garbled, one_too_many):
        assert (wrong - w).abs().max() > 0.05


def test_a_full_delta_step_stores_its_value() -> None:
    """What a delta step is for: with b = 1 and a key of length 1, the memory answers the last key with its value."""
    keys, values, _ = delta_product_inputs(2)
    found = written(
        {"bias": "l2", "algorithm": {"multi_step": {"writes": 2}}, "execution": {"gradient_at": "decayed"}},
        keys=keys,
        values=values,
        steps=torch.ones(2, dtype=F64),
    )
    torch.testing.assert_close(keys[1] @ found, values[1], rtol=1e-12, atol=1e-13)
    garbled = product([EYE - torch.outer(k, k) for k in keys]) @ (KEEP * START)
    garbled = garbled + sum(product([EYE - torch.outer(keys[i], values[j]) for i in range(j, 2)]) for j in range(2))
    assert (keys[1] @ garbled - values[1]).norm() > 0.5
