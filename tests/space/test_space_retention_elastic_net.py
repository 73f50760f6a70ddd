"""The elastic net in both views: minimisers of Eq. 22 and 23, the printed couplings, and the three thresholds."""

from __future__ import annotations

import math

import pytest
import torch
from gates_tried import F64, better_points, dual_write, normal, primal_write
from memories import case
from torch import Tensor

from miras_search.kernels import recurrence
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.retention import RETENTION, L2Retention, NoRetention
from miras_search.space.retention.elastic_net import ElasticNet

ROWS, COLS = 4, 3
OLD, G = normal(ROWS, COLS, seed=1), normal(ROWS, COLS, seed=2)


def soft(z: float, y: float) -> float:
    return math.copysign(max(0.0, abs(z) - y), z)


@pytest.mark.parametrize(("n", "b", "alpha"), [(0.5, 2.0, 3.0), (0.1, 1.0, 0.3), (2.0, 0.7, 4.0)])
def test_equation_22_is_minimised_with_its_printed_couplings(n: float, b: float, alpha: float) -> None:
    """l = b/(b+n), zeta = n l, gamma = n b/(a (n+b)) = zeta/a: the threshold follows the step that the write takes."""

    def objective(w: Tensor) -> Tensor:
        near = (w - OLD).square().sum() / (2 * n)
        return ((w - OLD) * G).sum() + near + w.square().sum() / (2 * b) + w.abs().sum() / alpha

    keep = b / (b + n)
    found = primal_write(ElasticNet(shrink=1 / alpha), OLD, G, keep=keep, step=n * keep)
    gamma = n * b / (alpha * (n + b))
    expected = [
        soft(keep * w - n * keep * g, gamma) for w, g in zip(OLD.ravel().tolist(), G.ravel().tolist(), strict=True)
    ]
    torch.testing.assert_close(found.ravel(), torch.tensor(expected, dtype=F64), rtol=1e-12, atol=1e-14)
    assert (found == 0).any()
    assert (found != 0).any()
    assert better_points(objective, found) == 0
    for wrong in (
        primal_write(ElasticNet(shrink=1 / alpha), OLD, G, keep=keep, step=n),  # the step not shrunk with keep
        primal_write(ElasticNet(shrink=2 / alpha), OLD, G, keep=keep, step=n * keep),
        primal_write(ElasticNet(shrink=1 / alpha, threshold="arctan"), OLD, G, keep=keep, step=n * keep),
    ):
        assert objective(wrong) > objective(found) + 1e-4


@pytest.mark.parametrize(("n", "alpha"), [(0.5, 2.0), (1.5, 1.0)])
def test_equation_23_needs_the_half_before_the_square(n: float, alpha: float) -> None:
    """sum of linearised losses + 1/(2n) |W|^2 + 1/alpha |W|_1: S_{n/alpha}; as printed, 1/n |W|^2, half of that."""
    gradients = [normal(ROWS, COLS, seed=10 + i) for i in range(5)]

    def objective(w: Tensor, half: float = 0.5) -> Tensor:
        return sum((w * g).sum() for g in gradients) + half * w.square().sum() / n + w.abs().sum() / alpha

    option = ElasticNet(view="ftrl", shrink=n / alpha)
    z = torch.zeros(ROWS, COLS, dtype=F64)
    for g in gradients[:-1]:
        z = z - n * g
    found = dual_write(option, z, gradients[-1], keep=1.0, step=n)
    assert (found == 0).any()
    assert (found != 0).any()
    assert better_points(objective, found) == 0
    assert better_points(lambda w: objective(w, half=1.0), found) > 0  # the printed objective has another minimiser,
    assert better_points(lambda w: objective(w, half=1.0), found / 2) == 0  # half of it
    assert better_points(objective, found / 2) > 0


@pytest.mark.parametrize(("e", "b"), [(0.5, 2.0), (2.0, 0.8)])
def test_the_dual_view_with_a_global_term_of_the_same_function(e: float, b: float) -> None:
    """1/e D_F(W, W') + 1/b F(W), F = 1/2 |W|^2 + s |W|_1: a = b/(b+e) and the step a e, with Z' in grad F(W')."""
    s = 0.3
    option = ElasticNet(view="ftrl", shrink=s)
    z = 2 * OLD
    old = option.link(z, {})

    def f(w: Tensor) -> Tensor:
        return w.square().sum() / 2 + s * w.abs().sum()

    def objective(w: Tensor) -> Tensor:
        near = f(w) - f(old) - (z * (w - old)).sum()
        return ((w - old) * G).sum() + near / e + f(w) / b

    a = b / (b + e)
    assert better_points(objective, dual_write(option, z, G, keep=a, step=a * e)) == 0
    assert better_points(objective, dual_write(option, z, G, keep=a, step=e)) > 0


def test_the_two_views_are_two_functions() -> None:
    """Forgetting in place adds up over writes, forgetting when reading does not."""
    primal, dual = ElasticNet(shrink=0.5), ElasticNet(view="ftrl", shrink=0.5)
    w = z = torch.zeros(ROWS, COLS, dtype=F64)
    for i in range(5):
        g = normal(ROWS, COLS, seed=30 + i)
        w = primal_write(primal, w, g, keep=1.0, step=1.0)
        z = z - g
    assert (w - dual.link(z, {})).abs().max() > 0.3
    # what has been forgotten: a weight written in small pieces arrives in the dual view only
    small = -0.3 * torch.ones(1, 1, dtype=F64)
    w = z = torch.zeros(1, 1, dtype=F64)
    for _ in range(10):
        w, z = primal_write(primal, w, small, keep=1.0, step=1.0), z - small
    assert w.item() == 0.0
    assert dual.link(z, {}).item() == pytest.approx(2.5)


@pytest.mark.parametrize("sharpness", [5.0, 50.0, 500.0])
@pytest.mark.parametrize("y", [0.0, 0.1, 1.0])
def test_the_smooth_threshold_is_within_ln_2_over_its_sharpness(sharpness: float, y: float) -> None:
    z = torch.linspace(-3, 3, 6001, dtype=F64)
    option = ElasticNet(threshold="smooth", sharpness=sharpness)
    found = option._thresholded(z, torch.tensor(y, dtype=F64))
    error = (found - torch.tensor([soft(x, y) for x in z.tolist()], dtype=F64)).abs().max().item()
    assert error <= math.log(2) / sharpness + 1e-12
    if y == 1.0:
        assert error > 0.9 * math.log(2) / sharpness
    if y == 0.0:
        torch.testing.assert_close(found, z, rtol=1e-12, atol=1e-13)


def test_the_printed_arctan_thresholds_too_little_and_never_to_zero() -> None:
    y = torch.tensor(0.4, dtype=F64)

    def arctan(*z: float) -> list[float]:
        found: list[float] = ElasticNet(threshold="arctan")._thresholded(torch.tensor(z, dtype=F64), y).tolist()
        return found

    assert arctan(1000.0, -1000.0) == pytest.approx([1000 - 2 * 0.4 / math.pi, -1000 + 2 * 0.4 / math.pi], abs=1e-6)
    assert arctan(0.4, -0.4) == pytest.approx([0.2, -0.2])  # where the hard one gives 0: the largest error
    assert arctan(0.01)[0] == pytest.approx(2 / math.pi * 0.01 * 0.01 / 0.4, rel=1e-3)  # z |z|
    assert arctan(0.01)[0] > 0
    literal = [abs(z) * math.atan(z / 0.4) / (math.pi / 2) for z in (0.3, -2.0)]
    assert arctan(0.3, -2.0) == pytest.approx(literal)


@pytest.mark.parametrize("threshold", ["hard", "smooth", "arctan"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_without_a_threshold_and_at_zero(threshold: str, dtype: torch.dtype) -> None:
    """The control no_write has step 0: then S is the identity, and it passes gradients on."""
    option = ElasticNet(threshold=threshold)
    z = torch.tensor([-2.0, -0.5, 0.0, 0.3, 1.0], dtype=dtype, requires_grad=True)
    for y in (0.0, 1e-6, 0.3):
        limit = torch.tensor(y, dtype=dtype, requires_grad=True)
        found = option._thresholded(z, limit)
        gradients = torch.autograd.grad(found.sum(), (z, limit))
        assert all(torch.isfinite(x).all() for x in (found, *gradients))
        if y == 0:
            torch.testing.assert_close(found, z.detach())
            expected = torch.ones_like(z)
            expected[2] = 0.0 if threshold == "arctan" else 1.0  # z |z| is flat at 0 however low the threshold
            torch.testing.assert_close(gradients[0], expected)


@pytest.mark.parametrize("threshold", ["hard", "smooth", "arctan"])
@pytest.mark.parametrize("view", ["learning_retaining", "ftrl"])
def test_a_learned_shrink_is_one_a_head_and_has_its_gradient(view: str, threshold: str) -> None:
    spec = {"view": view, "threshold": threshold, "shrink": 0.2, "learned_shrink": True}
    option = RETENTION.parse({"elastic_net": spec})
    assert option.static() == {"link.log_shrink": ((1, 1), math.log(0.2))}
    logs = torch.log(torch.tensor([0.2, 0.5], dtype=F64)).view(2, 1, 1).requires_grad_()
    z, steps = normal(2, ROWS, COLS, seed=5), torch.tensor([0.3, 0.8], dtype=F64).view(2, 1, 1)

    def weights(log: Tensor) -> Tensor:
        static = {"link.log_shrink": log}
        if view == "ftrl":
            return option.link(z, static)
        return option.step(z, torch.ones_like(steps), torch.zeros_like(z), steps, static)

    for h, s in enumerate((0.2, 0.5)):
        alone = RETENTION.parse({"elastic_net": {"view": view, "threshold": threshold, "shrink": s}})
        if view == "ftrl":
            expected = alone.link(z[h], {})
        else:
            expected = alone.step(z[h], torch.ones((), dtype=F64), torch.zeros_like(z[h]), steps[h], {})
        torch.testing.assert_close(weights(logs)[h], expected, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(weights, (logs,))


def test_a_step_that_is_turned_round_thresholds_as_before() -> None:
    point = DesignPoint.parse({"bias": "dot", "retention": {"elastic_net": {"shrink": 0.2}}})
    given = case(point, 6, seed=6)
    ahead, back = given.inputs, given.inputs._replace(step=-given.inputs.step, v=-given.inputs.v)
    y, _ = recurrence.run(point, ahead, given.start, {})
    z, _ = recurrence.run(point, back, given.start, {})
    torch.testing.assert_close(y, z)


def test_it_is_weight_decay_without_a_threshold() -> None:
    def canonical(**settings: object) -> object:
        return RETENTION.parse({"elastic_net": settings}).canonical()

    assert canonical(shrink=0, keep=0.9, coupled=True) == L2Retention(L2Retention().keep.from_plain(0.9, ()), True)
    assert canonical(shrink=0, keep=1.0, view="ftrl") == NoRetention()
    assert canonical(sharpness=3.0) == ElasticNet()
    assert canonical(sharpness=3.0, threshold="smooth") == ElasticNet(threshold="smooth", sharpness=3.0)
    for view in ("learning_retaining", "ftrl"):
        for threshold in ("hard", "smooth", "arctan"):
            point = DesignPoint.parse(
                {"retention": {"elastic_net": {"shrink": 0, "view": view, "threshold": threshold}}}
            )
            plain = DesignPoint.parse({"retention": "l2"})
            assert point.hash == plain.hash
            given = case(plain, 7, seed=7)
            found, _ = recurrence.run(point, given.inputs, given.start, {})
            expected, _ = recurrence.run(plain, given.inputs, given.start, {})
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("view", ["learning_retaining", "ftrl"])
def test_the_start_is_what_is_read_at_first(view: str) -> None:
    option = ElasticNet(view=view, shrink=0.3)
    for w in (normal(ROWS, COLS, seed=8), torch.zeros(ROWS, COLS, dtype=F64)):
        torch.testing.assert_close(option.link(option.origin(option.start(w)), {}), w)


def test_settings_that_cannot_be() -> None:
    for spec, phrase in (
        ({"shrink": -0.1}, "must be a number of at least 0"),
        ({"shrink": 0, "learned_shrink": True}, "a learned one starts above 0"),
        ({"sharpness": 0}, "must be positive"),
        ({"keep": 1.5}, "a keep gate lies in"),
    ):
        with pytest.raises(SpecError, match=phrase):
            RETENTION.parse({"elastic_net": spec})
