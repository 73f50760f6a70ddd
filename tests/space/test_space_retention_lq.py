"""Moneta's gate in three readings: which of them minimise Variant 4's objective, and what the printed one does."""

from __future__ import annotations

import pytest
import torch
from gates_tried import better_points, dual_write, normal
from memories import case
from torch import Tensor

from miras_search.kernels import recurrence
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.retention import RETENTION, L2Retention
from miras_search.space.retention.lq import LqRetention

ROWS, COLS = 4, 3
SMALL = 1e-4  # of epsilon: its traces are below what is tested
OVER = {"matrix": (-2, -1), "column": (-2,), "row": (-1,)}
QS = [1.25, 4 / 3, 1.5, 3.0, 4.0, 5.0]


def gate(q: float, reading: str, over: str = "matrix", epsilon: float = SMALL, **settings: object) -> LqRetention:
    option = RETENTION.parse({"lq": {"q": q, "reading": reading, "over": over, "epsilon": epsilon, **settings}})
    assert isinstance(option, LqRetention)
    return option


def norm(x: Tensor, s: float, over: str = "matrix") -> Tensor:
    return x.abs().pow(s).sum(OVER[over], keepdim=True).pow(1 / s)


def primal_exponent(q: float, reading: str) -> tuple[float, float]:
    """Exponent of the norm of W, and the factor before 1/2 |W|^2."""
    return (q / (q - 1), 1.0) if reading == "dual_index" else (q, 1 / (q - 1))


def printed(a: Tensor, s: float, over: str = "matrix") -> Tensor:
    """A / |A|_s^(s-2), the formula as printed, for the exponent of the accumulator's norm."""
    return a / norm(a, s, over) ** (s - 2)


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("q", QS)
def test_the_readings_are_their_equations(q: float, over: str) -> None:
    a, p = normal(2, ROWS, COLS, seed=1), q / (q - 1)
    literal = a / norm(a, q, over) ** (q - 2)
    dual = a * a.abs() ** (q - 2) / norm(a, q, over) ** (q - 2)
    primal = (q - 1) * a * a.abs() ** (p - 2) / norm(a, p, over) ** (p - 2)
    for reading, expected in (("literal", literal), ("dual_index", dual), ("primal_index", primal)):
        found = gate(q, reading, over).link(a, {})
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        one = torch.func.vmap(lambda x, reading=reading: gate(q, reading, over).link(x, {}))(a)
        torch.testing.assert_close(one, found)


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("reading", ["dual_index", "primal_index"])
@pytest.mark.parametrize("q", QS)
def test_the_repaired_links_minimise_variant_4(q: float, reading: str, over: str) -> None:
    """-<A, W> + 1/2 |W|^2 in the norm of the weights; the printed form is strictly worse for every q but 2."""
    s, factor = primal_exponent(q, reading)
    a = normal(ROWS, COLS, seed=2)

    def objective(w: Tensor) -> Tensor:
        return -(a * w).sum() + factor / 2 * norm(w, s, over).square().sum()

    found = gate(q, reading, over).link(a, {})
    assert better_points(objective, found) == 0
    for wrong in (printed(a, s / (s - 1), over), printed(a, q, over)):
        assert objective(wrong) > objective(found) + 1e-3
        assert better_points(objective, wrong) > 0


@pytest.mark.parametrize("reading", ["dual_index", "primal_index"])
@pytest.mark.parametrize(("e", "b"), [(0.5, 2.0), (1.5, 0.7)])
@pytest.mark.parametrize("q", [1.5, 3.0, 4.0])
def test_a_write_with_a_global_term_of_the_same_norm(q: float, e: float, b: float, reading: str) -> None:
    """<W - W', g> + 1/e D_F(W, W') + 1/b F(W): a = b/(b+e), step a e (`coupled`); grad F by autograd."""
    s, factor = primal_exponent(q, reading)
    option = gate(q, reading)
    old, g = normal(ROWS, COLS, seed=3), normal(ROWS, COLS, seed=4)

    def f(w: Tensor) -> Tensor:
        return factor / 2 * norm(w, s).square().sum()

    leaf = old.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(leaf), leaf)
    torch.testing.assert_close(option.start(old), slope, rtol=1e-3, atol=1e-3)  # the accumulator of these weights

    def objective(w: Tensor) -> Tensor:
        return ((w - old) * g).sum() + (f(w) - f(old) - (slope * (w - old)).sum()) / e + f(w) / b

    a = b / (b + e)
    assert better_points(objective, dual_write(option, slope, g, keep=a, step=a * e)) == 0
    for wrong in (
        dual_write(option, slope, g, keep=a, step=e),  # free gates are not this objective's
        dual_write(option, slope, g, keep=a, step=a * e * e),  # Eq. 25, whose gradient holds the step a second time
        printed(a * (slope - e * g), s / (s - 1)),
    ):
        assert better_points(objective, wrong) > 0


def test_equation_25_doubles_the_step() -> None:
    """A_t = a A - e grad l_p, and the printed gradient begins with p e: the write would go with the step squared."""
    point = DesignPoint.parse({"bias": {"lp": {"p": 3.0, "scale": "paper"}}, "retention": {"lq": {"epsilon": SMALL}}})
    given = case(point, 1, seed=5, batch=1, heads=1)
    inputs, a = given.inputs, given.start[0][0]
    keep, e = inputs.log_keep.exp().item(), inputs.step.item()
    w = point.retention.link(a, {}).requires_grad_()
    loss = (inputs.k[0, 0, 0] @ w - inputs.v[0, 0, 0]).square().add(1e-6).pow(1.5).sum()
    (g,) = torch.autograd.grad(loss, w)
    _, state = recurrence.run(point, inputs, given.start, {})
    found = state.dual[0][0, 0]
    torch.testing.assert_close(found, keep * a - e * g, rtol=1e-10, atol=1e-12)
    assert (found - (keep * a - e * e * g)).abs().max() > 1e-2


@pytest.mark.parametrize("q", [1.5, 3.0, 4.0, 5.0])
@pytest.mark.parametrize("factor", [0.01, 3.0, 50.0])
def test_the_literal_reading_has_degree_3_minus_q_and_the_others_1(q: float, factor: float) -> None:
    a = normal(ROWS, COLS, seed=6)
    for reading, degree in (("literal", 3 - q), ("dual_index", 1.0), ("primal_index", 1.0)):
        link = gate(q, reading).link
        torch.testing.assert_close(link(factor * a, {}), factor**degree * link(a, {}), rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(
        norm(gate(q, "literal").link(a, {}), q), norm(a, q) ** (3 - q), rtol=1e-5, atol=0.0
    )  # fmt: skip


def test_the_literal_moneta_shrinks_as_it_learns_and_oscillates_in_place() -> None:
    """q = 4: a norm of 2 becomes 1/2; W = link(W) at chunk ends with nothing written, 2, 1/2, 2, 1/2, ..."""
    a = normal(ROWS, COLS, seed=7)
    w = 2 * a / norm(a, 4.0)
    norms = []
    for _ in range(6):
        norms.append(norm(w, 4.0).item())
        w = gate(4.0, "literal").link(w, {})
    assert norms == pytest.approx([2, 0.5, 2, 0.5, 2, 0.5], rel=1e-3)
    one = gate(3.0, "literal").link(17.0 * a, {})
    assert norm(one, 3.0).item() == pytest.approx(1.0, rel=1e-6)
    repaired = gate(4.0, "dual_index")
    assert norm(repaired.link(10 * a, {}), 4.0) > norm(repaired.link(a, {}), 4.0)


@pytest.mark.parametrize("reading", ["literal", "dual_index", "primal_index"])
def test_every_reading_is_the_identity_at_2(reading: str) -> None:
    a = normal(ROWS, COLS, seed=8)
    assert torch.equal(gate(2.0, reading).link(a, {}), a)
    for q in (2 - 1e-6, 2 + 1e-6):  # and is so by continuity, not by a special case
        torch.testing.assert_close(gate(q, reading).link(a, {}), a, rtol=1e-4, atol=1e-5)
    assert gate(2.0, reading, keep=0.9).canonical() == L2Retention(L2Retention().keep.from_plain(0.9, ()))
    plain, found = DesignPoint.parse({"retention": "l2"}), {"lq": {"q": 2.0, "reading": reading, "coupled": False}}
    assert DesignPoint.parse({"retention": found}).hash == plain.hash


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("reading", ["literal", "dual_index", "primal_index"])
@pytest.mark.parametrize("q", [1.1, 1.5, 3.0, 4.0, 8.0])
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-6, 1.0, 1e4])
def test_links_are_finite_in_float32_with_their_gradients(q: float, reading: str, over: str, size: float) -> None:
    """An empty memory, one row that is empty, and what overflows or vanishes under a power of its own."""
    a = (size * normal(2, ROWS, COLS, seed=9)).float()
    a[0, 1] = 0.0
    a.requires_grad_()
    w = gate(q, reading, over, epsilon=1e-3).link(a, {})
    (found,) = torch.autograd.grad(w.square().sum() + w.sum(), a)
    assert torch.isfinite(w).all()
    assert torch.isfinite(found).all()
    if size == 0:
        assert (w == 0).all()
        (slope,) = torch.autograd.grad(gate(q, reading, over, epsilon=1e-3).link(a, {}).sum(), a)
        assert (slope > 0).all()  # the outer loop can move an empty memory


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("reading", ["literal", "dual_index", "primal_index"])
@pytest.mark.parametrize("q", [1.5, 4.0])
def test_the_start_is_what_is_read_at_first(q: float, reading: str, over: str) -> None:
    """But for entries that are small beside the others, whose power epsilon smooths."""
    option, w = gate(q, reading, over), normal(2, ROWS, COLS, seed=10)
    torch.testing.assert_close(option.link(option.start(w), {}), w, rtol=1e-3, atol=0.06)
    big = w.abs() > 0.2
    torch.testing.assert_close(option.link(option.start(w), {})[big], w[big], rtol=0.02, atol=0.0)
    nothing = torch.zeros_like(w)
    assert (option.link(option.start(nothing), {}) == 0).all()


def test_where_the_literal_norm_is_1_whatever_is_chosen() -> None:
    option, w = gate(3.0, "literal"), normal(ROWS, COLS, seed=11)
    torch.testing.assert_close(option.link(option.start(w), {}), w / norm(w, 3.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reading", ["literal", "dual_index", "primal_index"])
@pytest.mark.parametrize("q", [1.5, 3.0])
def test_outer_gradients_are_those_of_finite_differences(q: float, reading: str) -> None:
    a = normal(2, ROWS, COLS, seed=12).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gate(q, reading, "row", 1e-3).link(x, {}), (a,), atol=1e-6)


def test_settings_that_cannot_be() -> None:
    for spec, phrase in (
        ({"q": 1.0}, "1 is not above 1 and at most 8"),
        ({"q": 9.0}, "not above 1 and at most 8"),
        ({"epsilon": 0.0}, "not between 1e-4 and 1"),
        ({"reading": "literal", "coupled": True}, "the literal reading minimises nothing"),
        ({"keep": 1.5}, "a keep gate lies in"),
    ):
        with pytest.raises(SpecError, match=phrase):
            RETENTION.parse({"lq": spec})
    assert DesignPoint.parse({"retention": {"lq": {"coupled": True}}}).retention.coupled
    free = {"keep": 1.0, "coupled": True}
    assert RETENTION.parse({"lq": free}).canonical() == RETENTION.parse({"lq": {"keep": 1.0}})
