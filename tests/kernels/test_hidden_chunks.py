"""Chunks of a memory with one hidden layer, whose backward is written by hand, against the recurrence in float64."""

from __future__ import annotations

import pytest
import torch
from memories import SOFT, case, evaluate, worst

from miras_search.kernels import chunkwise, dispatch, hidden, recurrence
from miras_search.kernels.hidden_chunks import SecondDerivativeError
from miras_search.space.design import DesignPoint

SWITCH = {"huber": {"form": "switch", "delta": SOFT}}
DESIGNS: dict[str, dict[str, object]] = {
    "titans": {"memory": "mlp", "retention": "l2", "algorithm": "momentum", "bias": {"l2": {"scale": "full"}}},
    "yaad": {"memory": "mlp", "retention": "l2", "bias": SWITCH},
    "nothing fades": {"memory": {"mlp": {"expansion": 3, "activation": "silu", "affine": True}}},
    "momentum alone": {"memory": {"mlp": {"activation": "tanh", "expansion": 1}}, "algorithm": "momentum"},
    "two writes": {
        "memory": {"mlp": {"residual": False, "affine": True}},
        "retention": "l2",
        "algorithm": {"multi_step": {"writes": 2}},
    },
    "no norm": {"memory": {"mlp": {"residual": False, "norm": "none"}}, "retention": "l2", "bias": "logcosh"},
    "each channel": {"memory": "mlp", "bias": {"huber": {"form": "coordinate", "delta": SOFT}}},
    "one threshold": {"memory": "mlp", "bias": {"huber": {"form": "norm", "delta": 0.5}}, "retention": "l2"},
    "channels together": {"memory": "mlp", "bias": "kl"},
    "a power": {"memory": {"mlp": {"affine": True}}, "bias": {"lp": {"p": 3.0}}},
    "nothing predicted": {"memory": {"mlp": {"residual": False, "activation": "relu"}}, "bias": "dot"},
}
CHUNK, TOKENS = 4, (1, 4, 11)


def point_of(name: str) -> DesignPoint:
    run = {"chunk": CHUNK, "gradient": "frozen", "gradient_at": "previous"}
    return DesignPoint.parse({**DESIGNS[name], "execution": run})


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("name", DESIGNS)
def test_outputs_states_and_all_gradients_are_the_recurrences(name: str, tokens: int) -> None:
    point = point_of(name)
    given = case(point, tokens, seed=17)
    assert hidden.runs(point, given.inputs)
    outputs, gradients, expected = evaluate(recurrence.run, point, given)
    found, found_gradients, state = evaluate(chunkwise.run, point, given)
    assert state.position == expected.position
    assert list(state.tensors()) == list(expected.tensors())
    assert worst(found, outputs) < 1e-12
    assert worst(found_gradients, gradients) < 1e-12


@pytest.mark.parametrize("name", ["titans", "nothing fades"])
def test_segments_are_the_whole(name: str) -> None:
    """Cut in the middle of a chunk and at its end; the gradients go through the states between."""
    point = point_of(name)
    given = case(point, 15, seed=5)

    def in_segments(*arguments):
        point, inputs, start, static = arguments
        state, outputs = None, []
        for first, last in ((0, 6), (6, 8), (8, 15)):
            y, state = dispatch.run(point, inputs.tokens(first, last), start, static, state)
            outputs.append(y)
        return torch.cat(outputs, 1), state

    found, found_gradients, _ = evaluate(in_segments, point, given)
    outputs, gradients, _ = evaluate(dispatch.run, point, given)
    assert worst(found, outputs) < 1e-12
    assert worst(found_gradients, gradients) < 1e-12


@pytest.mark.parametrize("name", ["titans", "two writes"])
def test_vmap_of_grad_is_a_loop(name: str) -> None:
    point = point_of(name)
    cases = [case(point, 6, seed=seed) for seed in (1, 2)]
    stacked = [torch.stack(pair) for pair in zip(*(one.leaves() for one in cases), strict=True)]

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        one = cases[0].with_leaves(list(leaves))
        y, state = dispatch.run(point, one.inputs, one.start, one.static, None)
        return y.square().sum() + state.dual[1].sum()

    gradient = torch.func.grad(loss, argnums=tuple(range(len(stacked))))
    together = torch.func.vmap(gradient)(*stacked)
    for n, one in enumerate(cases):
        alone = gradient(*one.leaves())
        leaves = [x.clone().requires_grad_() for x in one.leaves()]
        plain = torch.autograd.grad(loss(*leaves), leaves, allow_unused=True, materialize_grads=True)
        assert worst([x[n] for x in together], list(plain)) < 1e-12
        assert worst(list(alone), list(plain)) < 1e-12


def test_without_gradients_the_same_is_read_and_nothing_is_kept() -> None:
    point = point_of("yaad")
    given = case(point, 11, seed=2)
    y, _ = chunkwise.run(point, given.inputs, given.start, given.static)
    with torch.no_grad():
        again, _ = chunkwise.run(point, given.inputs, given.start, given.static)
    torch.testing.assert_close(again, y, rtol=0, atol=0)


def test_only_the_state_or_only_the_reads_may_have_a_gradient() -> None:
    point = point_of("titans")
    given = case(point, 8, seed=4)
    for of_state in (False, True):
        found = []
        for run in (recurrence.run, chunkwise.run):
            leaves = [x.clone().requires_grad_() for x in given.leaves()]
            one = given.with_leaves(leaves)
            y, state = run(point, one.inputs, one.start, one.static)
            loss = state.moments[0][0].square().sum() if of_state else y.square().sum()
            found.append(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))
        assert worst(list(found[1]), list(found[0])) < 1e-12


def test_signals_are_limited_as_the_recurrence_limits_them() -> None:
    point = point_of("no norm").changed("bias", {"l2": {"scale": "full"}})
    given = case(point, 6, seed=8)
    wild = given.inputs.v.clone()
    wild[:, 2] = 3e6
    given = given.with_leaves([wild if x is given.inputs.v else x for x in given.leaves()])
    outputs, gradients, _ = evaluate(recurrence.run, point, given)
    found, found_gradients, _ = evaluate(chunkwise.run, point, given)
    assert worst(found, outputs) < 1e-12
    assert worst(found_gradients, gradients) < 1e-10
    tame, _, _ = evaluate(recurrence.run, point, case(point, 6, seed=8))
    assert worst(found, tame) > 1  # it did matter


def test_second_derivatives_are_refused() -> None:
    point = point_of("yaad")
    given = case(point, 4, seed=1)
    q = given.inputs.q.clone().requires_grad_()
    y, _ = chunkwise.run(point, given.inputs._replace(q=q), given.start, given.static)
    (gradient,) = torch.autograd.grad(y.sin().sum(), q, create_graph=True)
    with pytest.raises(SecondDerivativeError, match="second derivatives are not written"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    "change",
    [
        ("memory", {"mlp": {"depth": 3}}),
        ("memory", "gated_mlp"),
        ("memory", "matrix"),
        ("retention", "kl"),
        ("algorithm", "muon"),
        ("algorithm", {"omega": {"window": 2}}),
        ("step.scope", "value"),
        ("execution.gradient", "exact"),
        ("execution.gradient", {"refined": 1}),
        ("execution.gradient_at", "decayed"),
    ],
    ids=str,
)
def test_what_it_does_not_hold_goes_the_general_way(change: tuple[str, object]) -> None:
    point = point_of("titans" if change[0] == "algorithm" else "yaad").changed(*change)
    assert not hidden.runs(point, case(point, 4, seed=1).inputs)
