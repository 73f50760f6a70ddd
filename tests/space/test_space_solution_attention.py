"""Attention against torch's own, a plain loop, and the objective whose minimiser it is; its settings."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.memory import MEMORY, Attention, attention
from miras_search.space.memory.attention import QUERIES, KernelMean

B, H, K, V = 2, 3, 4, 5


def drawn(tokens: int, seed: int = 0, *, step: float | None = None, keep: float | None = None) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    gates = (B, tokens, H)
    return Inputs(
        q=normal(B, tokens, H, K),
        k=normal(B, tokens, H, K),
        v=normal(B, tokens, H, V),
        log_keep=-0.3 * uniform(*gates) if keep is None else torch.full(gates, math.log(keep), dtype=torch.float64),
        step=0.1 + uniform(*gates) if step is None else torch.full(gates, step, dtype=torch.float64),
    )


def whole(solution: KernelMean, inputs: Inputs) -> Tensor:
    return solution.whole(solution.initial(inputs), inputs, {})[0]


def loop(inputs: Inputs, scale: float, window: int | None) -> Tensor:
    """The equation, one query and one pair at a time."""
    y = torch.zeros(*inputs.q.shape[:3], V, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for t in range(inputs.q.shape[1]):
                total = 0.0
                for s in range(0 if window is None else max(0, t - window + 1), t + 1):
                    w = inputs.step[b, s, h].item() * math.exp(scale * (inputs.q[b, t, h] @ inputs.k[b, s, h]).item())
                    for i in range(s + 1, t + 1):
                        w *= math.exp(inputs.log_keep[b, i, h].item())
                    total += w
                    y[b, t, h] += w * inputs.v[b, s, h]
                if total > 0:
                    y[b, t, h] /= total
    return y


@pytest.mark.parametrize("tokens", [1, 9, 2 * QUERIES + 3])
@pytest.mark.parametrize("step", [1.0, 0.3])
def test_plain_attention_is_torchs_own(tokens: int, step: float) -> None:
    """Whatever the constant step."""
    inputs = drawn(tokens, step=step, keep=1.0)
    q, k, v = (x.transpose(1, 2) for x in (inputs.q, inputs.k, inputs.v))
    expected = scaled_dot_product_attention(q, k, v, is_causal=True)
    y = whole(KernelMean(None, K**-0.5, False), inputs)
    torch.testing.assert_close(y, expected.transpose(1, 2), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("window", [1, 3, 6, 200, None])
@pytest.mark.parametrize("tokens", [1, 4, 13])
def test_gates_and_window_against_a_loop(tokens: int, window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "QUERIES", 4)  # 13 tokens are four parts
    inputs = drawn(tokens, seed=tokens)
    expected = loop(inputs, 0.8, window)
    torch.testing.assert_close(whole(KernelMean(window, 0.8, False), inputs), expected, rtol=1e-10, atol=1e-11)


def test_a_pair_of_step_zero_is_not_written() -> None:
    inputs = drawn(7)
    gone = inputs.step.clone()
    gone[:, [0, 1, 4]] = 0.0
    without = whole(KernelMean(None, 0.8, False), inputs._replace(step=gone))
    assert torch.equal(without[:, :2], torch.zeros(B, 2, H, V, dtype=torch.float64))  # before the first pair
    torch.testing.assert_close(without, loop(inputs._replace(step=gone), 0.8, None), rtol=1e-11, atol=1e-12)
    other = inputs.v.clone()
    other[:, [0, 1, 4]] = 1e6
    assert torch.equal(whole(KernelMean(None, 0.8, False), inputs._replace(step=gone, v=other)), without)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [[0.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 1e-44], [1e-38, 1e-44, 1.0, 1e-30]])
def test_gradients_are_finite_whatever_is_written(steps: list[float], dtype: torch.dtype) -> None:
    inputs = drawn(4)._replace(step=torch.tensor(steps, dtype=torch.float64).view(1, 4, 1).expand(B, 4, H))
    leaves = [x.to(dtype).requires_grad_() for x in inputs[:5]]
    log_scale = torch.full((H,), 2.0, dtype=dtype, requires_grad=True)
    given, solution = Inputs(*leaves), KernelMean(2, None, True)
    y, _ = solution.whole(solution.initial(given), given, {"log_scale": log_scale})
    assert torch.isfinite(y).all()
    for gradient in torch.autograd.grad(y.square().sum() + y.sum(), [*leaves, log_scale]):
        assert torch.isfinite(gradient).all()


def test_the_answer_minimises_the_weighted_squared_error() -> None:
    inputs = drawn(6, seed=5)
    y = whole(KernelMean(None, 0.8, False), inputs)
    decay = torch.exp(inputs.log_keep.flip(1).cumsum(1).flip(1) - inputs.log_keep)
    w = decay * inputs.step * torch.exp(0.8 * torch.einsum("bhk,bshk->bsh", inputs.q[:, -1], inputs.k))

    def objective(y: Tensor) -> Tensor:
        return (w * (y.unsqueeze(1) - inputs.v).square().sum(-1)).sum(1) / 2

    best, generator = objective(y[:, -1]), torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-1, 1.0):
        for _ in range(30):
            other = y[:, -1] + size * torch.randn(B, H, V, generator=generator, dtype=torch.float64)
            assert (objective(other) > best).all()


def test_keep_fades_old_pairs() -> None:
    """With equal similarities the mean is an exponential moving average of the values, normalised."""
    inputs = drawn(5, step=1.0, keep=0.5)
    inputs = inputs._replace(q=torch.zeros_like(inputs.q))
    powers = 0.5 ** torch.arange(4, -1, -1, dtype=torch.float64)
    expected = torch.einsum("s,bshv->bhv", powers / powers.sum(), inputs.v)
    torch.testing.assert_close(whole(KernelMean(None, 0.8, False), inputs)[:, -1], expected)


def test_hard_forgetting_stays_exact_in_float32() -> None:
    """Logarithms are counted from the beginning of a part of the queries, not of the sequence."""
    inputs = drawn(4 * QUERIES, keep=math.exp(-30.0))
    single = Inputs(*(x.float() for x in inputs[:5]))
    y = whole(KernelMean(None, 0.8, False), single)
    torch.testing.assert_close(y.double(), inputs.v, rtol=1e-3, atol=1e-5)  # only the newest pair is left
    assert torch.isfinite(y).all()


def test_a_window_bounds_the_state() -> None:
    inputs = drawn(9)
    for window, pairs in ((None, 9), (4, 4), (20, 9)):
        solution = KernelMean(window, 1.0, False)
        _, state = solution.whole(solution.initial(inputs), inputs, {})
        assert {x.shape[1] for x in state.values()} == {pairs}


def test_outer_gradients_by_finite_differences() -> None:
    inputs, solution = drawn(3, seed=2), KernelMean(2, None, True)
    log_scale = torch.zeros(H, dtype=torch.float64, requires_grad=True)
    leaves = [x[:1].clone().requires_grad_() for x in inputs[:5]]

    def run(*given: Tensor) -> Tensor:
        changed = Inputs(*given[:5])
        y, state = solution.whole(solution.initial(changed), changed, {"log_scale": given[5]})
        return torch.cat([y.flatten(), state["log_weight"].flatten()])

    assert torch.autograd.gradcheck(run, (*leaves, log_scale))


def test_scale() -> None:
    assert Attention(scale=3.0).static(4, 4) == {"log_scale": ((), math.log(3.0))}
    assert Attention().static(9, 4) == {"log_scale": ((), math.log(3.0))}
    assert Attention(learned=False).static(4, 4) == {}
    fixed = whole(KernelMean(None, None, False), drawn(5))
    assert torch.equal(fixed, whole(KernelMean(None, math.sqrt(K), False), drawn(5)))
    inputs, scales = drawn(5), torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    learned = KernelMean(None, None, True)
    y, _ = learned.whole(learned.initial(inputs), inputs, {"log_scale": scales.log()})
    for h, scale in enumerate(scales.tolist()):  # a head has its own
        torch.testing.assert_close(y[:, :, h], whole(KernelMean(None, scale, False), inputs)[:, :, h])
    assert (y[:, 1:, 0] - y[:, 1:, 2]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"attention": {"window": 0}}, "memory.attention.window: 0 must be at least 1, or none"),
        ({"attention": {"scale": 0.0}}, "memory.attention.scale: 0.0 must be positive and finite, or none"),
        ({"attention": {"scale": -1}}, "memory.attention.scale: -1.0 must be positive and finite, or none"),
        ({"attention": {"learned": "yes"}}, "memory.attention.learned: expected true or false, got 'yes'"),
    ],
)
def test_bad_settings_are_named(spec: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        MEMORY.parse(spec, ("memory",))
    assert str(caught.value) == message


def test_it_has_no_weights_to_apply() -> None:
    with pytest.raises(TypeError, match="attention has no weights"):
        Attention().forward(torch.zeros(1, 1, 1, 2), lambda layer, x: x, {})
    assert Attention().layers(4, 4) == ()


def test_what_does_not_matter_leaves_the_hash() -> None:
    point = DesignPoint.parse({"memory": "attention", "algorithm": "nonparametric", "step": 1.0})
    for same in ({"step": 0.3}, {"execution": {"gradient": "frozen"}}, {"retention": {"l2": {"keep": 1.0}}}):
        assert point.refined(same).hash == point.hash, same
    others = (
        {"step": "data"},
        {"retention": "l2"},
        {"memory": {"attention": {"window": 8}}},
        {"memory": {"attention": {"scale": 1.0}}},
        {"memory": {"attention": {"learned": False}}},
        {"control": "no_write"},
    )
    assert len({point.refined(other).hash for other in others} | {point.hash}) == len(others) + 1
    assert DesignPoint.parse({"step": 0.3}).hash != DesignPoint.parse({"step": 0.4}).hash
