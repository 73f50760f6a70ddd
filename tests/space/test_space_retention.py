"""The gates none, l2 and kl minimise the objectives that they declare; forms that papers misprint do not.

One write of the recurrence is compared with a thousand random feasible points around it. The linearised bias is
<W - W', g>; a matrix memory under the dot bias gives any g = -k^T v one likes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from miras_search.kernels import recurrence
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.retention import RETENTION, KlRetention

ROWS, COLS = 4, 3
Objective = Callable[[Tensor], Tensor]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KEY, VALUE, START = normal(ROWS, seed=1), normal(COLS, seed=2), normal(ROWS, COLS, seed=3)
G = -torch.outer(KEY, VALUE)


def written(retention: object, keep: float, step: float, start: Tensor = START) -> Tensor:
    """The weights in force after one write with gradient G, by the recurrence."""
    point = DesignPoint.parse({"bias": "dot", "retention": retention})
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    inputs = Inputs(
        q=KEY.view(1, 1, 1, ROWS),
        k=KEY.view(1, 1, 1, ROWS),
        v=VALUE.view(1, 1, 1, COLS),
        log_keep=one * torch.tensor(keep, dtype=torch.float64).log(),
        step=one * step,
    )
    _, state = recurrence.run(point, inputs, (start.unsqueeze(0),), {})
    return point.retention.link(state.dual[0], {})[0, 0]


def around(w: Tensor, count: int = 1000) -> Tensor:
    """Random points [count,...] at distances from 1e-4 to 1."""
    distance = torch.logspace(-4, 0, count, dtype=w.dtype).view(-1, *[1] * w.dim())
    return w + distance * normal(count, *w.shape, seed=1000)


def is_minimum(objective: Objective, w: Tensor, feasible: Tensor) -> bool:
    """Whether none of the feasible points is better than w, and w is not merely as good as all of them."""
    at, others = objective(w), torch.func.vmap(objective)(feasible)
    return bool((others >= at - 1e-13).all() and (others > at).any())


def l2_objective(t: float, b: float) -> Objective:
    return lambda w: (
        ((w - START) * G).sum() + (w - START).square().sum() / (2 * t) + w.square().sum() / (2 * b)
    )  # fmt: skip


def test_no_retention_minimises_the_distance_to_the_old_memory() -> None:
    e = 0.7

    def objective(w: Tensor) -> Tensor:
        return ((w - START) * G).sum() + (w - START).square().sum() / (2 * e)

    w = written("none", 1.0, e)
    assert is_minimum(objective, w, around(w))
    faded = written("l2", 0.9, e)
    assert not is_minimum(objective, faded, around(faded))


@pytest.mark.parametrize(("t", "b"), [(0.5, 2.0), (0.1, 1.0), (3.0, 0.4)])
def test_l2_minimises_its_objective(t: float, b: float) -> None:
    """keep a = b/(b+t), step e = a t, the relation before the two are set free."""
    a = b / (b + t)
    objective = l2_objective(t, b)
    w = written("l2", a, a * t)
    assert is_minimum(objective, w, around(w))
    for misprinted in (
        written("l2", a, t),  # the step left undecayed: the decoupled rule is not this objective's
        written("l2", b / (b + 2 * t), b / (b + 2 * t) * t),  # Yaad's a, which belongs to (1/b)|W|^2, half missing
        a * START + a * t * G,  # S_t with the sign of Miras' Table 1
    ):
        assert not is_minimum(objective, misprinted, around(misprinted))


def test_yaads_printed_decay_belongs_to_the_whole_square() -> None:
    """With (1/b)|W|^2, as the paper prints it, a = b/(b+2t)."""
    t, b = 0.5, 2.0
    a = b / (b + 2 * t)
    half = l2_objective(t, b / 2)  # 1/(2 (b/2)) = 1/b
    w = written("l2", a, a * t)
    assert is_minimum(half, w, around(w))


def test_equation_9_needs_its_step() -> None:
    """Linearised |M k - v|^2 / 2 with |M - a M'|^2 / (2 e): the write term as printed, v k^T without e, is no minimum.

    Linearised at the decayed state, as Gated DeltaNet does.
    """
    a, e = 0.9, 0.4
    faded = a * START
    gradient = torch.outer(KEY, KEY @ faded - VALUE)

    def objective(w: Tensor) -> Tensor:
        return ((w - faded) * gradient).sum() + (w - faded).square().sum() / (2 * e)

    eye = torch.eye(ROWS, dtype=torch.float64)
    erased = (eye - e * torch.outer(KEY, KEY)) @ faded
    corrected, printed = erased + e * torch.outer(KEY, VALUE), erased + torch.outer(KEY, VALUE)
    assert is_minimum(objective, corrected, around(corrected))
    assert not is_minimum(objective, printed, around(printed))

    point = DesignPoint.parse({"retention": "l2", "execution": {"gradient_at": "decayed"}})
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    inputs = Inputs(
        q=KEY.view(1, 1, 1, ROWS),
        k=KEY.view(1, 1, 1, ROWS),
        v=VALUE.view(1, 1, 1, COLS),
        log_keep=torch.log(a * one),
        step=e * one,
    )
    _, state = recurrence.run(point, inputs, (START.unsqueeze(0),), {})
    torch.testing.assert_close(state.dual[0][0, 0], corrected, rtol=1e-12, atol=1e-12)


SLICES = {"column": (0,), "row": (1,), "whole": (0, 1)}


def on_simplex(logits: Tensor, axes: tuple[int, ...], c: float) -> Tensor:
    """c softmax over the slice, written out."""
    return c * logits.exp() / logits.exp().sum(axes, keepdim=True)


@pytest.mark.parametrize("c", [1.0, 2.5])
@pytest.mark.parametrize("where", SLICES)
@pytest.mark.parametrize(("n", "alpha"), [(0.5, 2.0), (2.0, 0.7)])
def test_kl_minimises_its_objective_on_the_simplex(n: float, alpha: float, where: str, c: float) -> None:
    """Eq. 21: keep 1 - l and step n' with l = n/(n + alpha), n' = (1 - l) n, over W >= 0 with slice sums c."""
    axes, retention = SLICES[where], {"kl": {"slice": where, "scale": c}}
    share = n / (n + alpha)
    old = on_simplex(START, axes, c)

    def objective(w: Tensor, before: Tensor | None = None) -> Tensor:
        before = old if before is None else before
        return (
            ((w - old) * G).sum() + (w * torch.log(w / before)).sum() / n + (w * torch.log(w)).sum() / alpha
        )  # fmt: skip

    def feasible(w: Tensor) -> Tensor:
        return torch.stack([on_simplex(x, axes, c) for x in around(w.log())])

    w = written(retention, 1 - share, (1 - share) * n)
    torch.testing.assert_close(w.sum(axes), torch.full_like(w.sum(axes), c))
    assert is_minimum(objective, w, feasible(w))
    for wrong in (
        written(retention, 1 - share, n),  # the step not shrunk with the keep
        written(retention, 1.0, n),  # no global term
        on_simplex((1 - share) * START + (1 - share) * n * G, axes, c),  # ascent
    ):
        assert not is_minimum(objective, wrong, feasible(wrong))
    # Eq. 19 as printed divides by W_t itself: the local term vanishes, and what is left has another minimiser
    assert not is_minimum(lambda x: objective(x, before=x), w, feasible(w))


@pytest.mark.parametrize("c", [1.0, 0.3, 7.0])
@pytest.mark.parametrize("where", SLICES)
def test_logits_are_equation_27_in_log_space(where: str, c: float) -> None:
    """c softmax(a log W' - e g), step after step, against the accumulator of logits."""
    axes, retention = SLICES[where], KlRetention(slice=where, scale=c)
    logits, weights = START, on_simplex(START, axes, c)
    for t in range(12):
        g, a, e = normal(ROWS, COLS, seed=50 + t), 0.5 + 0.04 * t, 0.3
        logits = a * logits - e * g
        weights = on_simplex(a * weights.log() - e * g, axes, c)
        assert (retention.link(logits, {}) - weights).abs().max() < 1e-12 * max(c, 1.0)


def test_without_the_scale_equation_27_leaves_its_constraint() -> None:
    """Eq. 27 drops the c of Eq. 21: with slices that sum to 3, one printed step gives slices that sum to 1."""
    retention = KlRetention(scale=3.0)
    printed = torch.softmax(0.9 * retention.link(START, {}).log() - 0.5 * G, 0)
    assert (printed.sum(0) - 1).abs().max() < 1e-12
    assert (retention.link(0.9 * START - 0.5 * G, {}).sum(0) - 3).abs().max() < 1e-12


def test_a_keep_that_varies_inside_a_slice_has_no_logit_form() -> None:
    """Why keep is one number a head: per-row keeps under a column softmax are another function."""
    a = torch.tensor([0.2, 0.5, 0.8, 1.0], dtype=torch.float64).unsqueeze(-1)
    first = 2.0 + START  # any logits: a constant per slice should not matter
    in_logits = torch.softmax(a * first, 0)
    in_logs = torch.softmax(a * torch.softmax(first, 0).log(), 0)
    assert (in_logits - in_logs).abs().max() > 1e-2


@pytest.mark.parametrize("where", SLICES)
def test_keep_below_one_draws_slices_to_uniform(where: str) -> None:
    retention = KlRetention(slice=where, scale=2.0)
    w = retention.link(1e-6 * START, {})
    assert (w - w.mean()).abs().max() < 1e-5
    assert w.sum().item() == pytest.approx(2.0 * {"column": COLS, "row": ROWS, "whole": 1}[where])


@pytest.mark.parametrize("spec", ["none", "l2", "kl", {"kl": {"slice": "whole", "scale": 3.0}}])
def test_links_act_on_each_batch_and_head_alone(spec: object) -> None:
    retention = RETENTION.parse(spec)
    z = normal(2, 3, ROWS, COLS, seed=9)
    expected = torch.stack([torch.stack([retention.link(x, {}) for x in row]) for row in z])
    torch.testing.assert_close(retention.link(z, {}), expected)
    torch.testing.assert_close(torch.func.vmap(lambda x: retention.link(x, {}))(z), expected)
    assert retention.identity == torch.equal(retention.link(z, {}), z)


def test_start_puts_the_link_near_the_start_weights() -> None:
    small = 0.01 * START
    for spec in ("none", "l2"):
        retention = RETENTION.parse(spec)
        assert torch.equal(retention.link(retention.start(small), {}), small)
    w = KlRetention(scale=2.0).link(KlRetention(scale=2.0).start(small), {})
    assert (w - 2.0 / ROWS).abs().max() < 0.05  # near uniform: the simplex has no small weights
