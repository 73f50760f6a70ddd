"""Chunkwise torch against the recurrence: outputs, final state and all gradients, over the whole space."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from memories import case, evaluate, points, worst

from miras_search.kernels import chunkwise, recurrence
from miras_search.kernels.state import Layers, State
from miras_search.space.design import DesignPoint
from miras_search.space.presets import PRESETS, preset

SAMPLE = list(enumerate(points(72, seed=20261121)))


@pytest.mark.parametrize(("i", "point"), SAMPLE, ids=[f"{i}-{p.hash}" for i, p in SAMPLE])
def test_equals_the_recurrence_in_float64(i: int, point: DesignPoint) -> None:
    given = case(point, tokens=(1, 4, 7, 16, 21)[i % 5], seed=i)
    expected, expected_gradients, expected_state = evaluate(recurrence.run, point, given)
    found, gradients, state = evaluate(chunkwise.run, point, given)
    assert state.position == expected_state.position
    assert list(state.tensors()) == list(expected_state.tensors())
    assert worst(found, expected) < 1e-9
    assert worst(gradients, expected_gradients) < 1e-9


def test_a_signal_that_ignores_the_prediction_still_has_its_tower() -> None:
    point = DesignPoint.parse({"bias": "dot", "retention": "l2", "execution": {"gradient": {"refined": 2}}})
    given = case(point, tokens=21, seed=4)
    expected, expected_gradients, expected_state = evaluate(recurrence.run, point, given)
    found, gradients, state = evaluate(chunkwise.run, point, given)
    assert list(state.tensors()) == list(expected_state.tensors())
    assert worst(found, expected) < 1e-9
    assert worst(gradients, expected_gradients) < 1e-9


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        (name, tokens)
        for name in sorted(PRESETS)
        for tokens in (1, 7, 16, 63)
        if not name.endswith("_h") and (tokens < 16 or name != "atlas")  # its Newton-Schulz steps take a minute
    ],
)
def test_presets_round_no_worse_than_the_recurrence_in_float32(name: str, tokens: int) -> None:
    """Against the float64 recurrence: 1e-4, or where a long deep memory amplifies rounding, the recurrence's own
    error.
    """
    point = preset(name)
    given = case(point, tokens, seed=tokens, key_dim=8, value_dim=6)
    single = given.with_leaves([x.float() for x in given.leaves()])
    expected, expected_gradients, _ = evaluate(recurrence.run, point, given)
    slow, slow_gradients, _ = evaluate(recurrence.run, point, single)
    found, gradients, _ = evaluate(chunkwise.run, point, single)
    bound = 2e-4 if name == "moneta_primal" else 1e-4  # its link is steep where the accumulator is near 0
    assert worst(found, expected) < max(bound, 3 * worst(slow, expected))
    assert worst(gradients, expected_gradients) < max(bound, 3 * worst(slow_gradients, expected_gradients))


@pytest.mark.parametrize("i", range(0, 72, 7))
def test_a_sequence_may_be_cut_anywhere(i: int) -> None:
    point, tokens = SAMPLE[i][1], 13
    given = case(point, tokens, seed=i)
    whole, final = chunkwise.run(point, given.inputs, given.start, given.static)
    for cuts in ([5], [1, 9], [4, 8], list(range(1, tokens))):
        state, pieces = None, []
        for first, last in zip([0, *cuts], [*cuts, tokens], strict=True):
            piece = given.inputs.tokens(first, last)
            y, state = chunkwise.run(point, piece, given.start, given.static, state)
            pieces.append(y)
        assert state is not None
        assert state.position == final.position
        assert worst([torch.cat(pieces, 1), *state.tensors().values()], [whole, *final.tensors().values()]) < 1e-9


@pytest.mark.parametrize("i", range(3, 72, 7))
def test_later_tokens_do_not_matter(i: int) -> None:
    """Bit for bit, at equal length."""
    point = SAMPLE[i][1]
    given, other = case(point, 11, seed=i), case(point, 11, seed=i + 1)
    seen, n = 6, point.algorithm.writes

    def spliced(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
        if a is None or b is None:
            return None
        cut = seen if a.shape[1] == 11 else seen * n
        return torch.cat([a[:, :cut], b[:, cut:]], 1)

    changed = type(given.inputs)(*map(spliced, given.inputs, other.inputs))
    y, _ = chunkwise.run(point, given.inputs, given.start, given.static)
    z, _ = chunkwise.run(point, changed, given.start, given.static)
    assert torch.equal(y[:, :seen], z[:, :seen])
    assert not torch.equal(y[:, seen:], z[:, seen:])


@pytest.mark.parametrize("i", range(0, 72, 5))
def test_chunks_of_one_write_are_exact(i: int) -> None:
    """With one token a chunk and one write a token, frozen and refined gradients are the recurrence's."""
    point = SAMPLE[i][1]
    if point.algorithm.writes > 1:
        point = dataclasses.replace(point, algorithm=preset("delta_net").algorithm)
    run = dataclasses.replace(point.execution, chunk=1, link_refresh="token")
    exact = dataclasses.replace(
        point, execution=dataclasses.replace(run, gradient=preset("delta_net").execution.gradient)
    )
    given = case(point, 6, seed=i)
    expected, _ = recurrence.run(exact, given.inputs, given.start, given.static)
    for sweeps in (0, 2):
        gradient = dataclasses.replace(run.gradient, sweeps=sweeps)
        chunked = dataclasses.replace(point, execution=dataclasses.replace(run, gradient=gradient))
        found, _ = chunkwise.run(chunked, given.inputs, given.start, given.static)
        assert worst([found], [expected]) < 1e-10


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"bias": {"lp": {"p": 2.0}}}, {"bias": "l2"}),
        ({"bias": {"lp": {"p": 2.0, "scale": "paper"}}}, {"bias": {"l2": {"scale": "full"}}}),
        ({"bias": {"value_shift": {"delta": 0.0}}}, {"bias": "l2"}),
        ({"bias": {"huber": {"form": "coordinate", "delta": 1e6}}}, {"bias": "l2"}),
        ({"retention": {"l2": {"keep": 1.0}}}, {"retention": "none"}),
        ({"memory": {"mlp": {"depth": 1, "residual": False, "norm": "none"}}}, {"memory": "matrix"}),
        ({"algorithm": {"multi_step": {"writes": 1}}}, {"algorithm": "gd"}),
        ({"execution": {"gradient": {"refined": 15}}}, {"execution": {"gradient": "exact"}}),
        ({"bias": "dot", "execution": {"gradient": "frozen"}}, {"bias": "dot", "execution": {"gradient": "exact"}}),
    ],
)
def test_options_that_coincide_give_equal_outputs(one: dict[str, object], other: dict[str, object]) -> None:
    a, b = DesignPoint.parse(one), DesignPoint.parse(other)
    given = case(b, 19, seed=5)
    threshold = torch.full_like(given.inputs.step, 1e6 if "huber" in str(one) else 0.0)
    y, _ = chunkwise.run(a, given.inputs._replace(threshold=threshold), given.start, given.static)
    z, _ = chunkwise.run(b, given.inputs, given.start, given.static)
    assert worst([y], [z]) < 1e-9
    if "huber" not in str(one):  # a huge threshold is not the same function, only close
        assert a.hash == b.hash


def test_momentum_zero_is_gradient_descent() -> None:
    a, b = DesignPoint.parse({"algorithm": {"momentum": {"momentum": 0.0}}}), DesignPoint.parse({})
    given = case(b, 19, seed=5)
    zero = torch.zeros_like(given.inputs.step)
    y, _ = chunkwise.run(a, given.inputs._replace(momentum=zero), given.start, given.static)
    z, _ = chunkwise.run(b, given.inputs, given.start, given.static)
    assert worst([y], [z]) < 1e-9
    assert a.hash == b.hash


@pytest.mark.parametrize("extreme", [0.0, float("-inf"), -1e4])
def test_extreme_keep_gates_stay_finite(extreme: float) -> None:
    point = DesignPoint.parse({"retention": "l2", "execution": {"gradient": {"refined": 2}, "gradient_at": "decayed"}})
    given = case(point, 20, seed=1)
    log_keep = torch.full_like(given.inputs.log_keep, extreme)
    forced = dataclasses.replace(given, inputs=given.inputs._replace(log_keep=log_keep))
    found, gradients, _ = evaluate(chunkwise.run, point, forced)
    expected, expected_gradients, _ = evaluate(recurrence.run, point, forced)
    assert all(torch.isfinite(x).all() for x in [*found, *gradients])
    assert worst(found, expected) < 1e-9
    assert worst(gradients, expected_gradients) < 1e-9


@pytest.mark.parametrize("spec", [{"preset": "mesa"}, {"memory": "attention", "algorithm": "nonparametric"}])
@pytest.mark.parametrize("extreme", [float("-inf"), -1e4])
def test_memories_that_are_solved_for_forget_all_at_once(spec: dict[str, object], extreme: float) -> None:
    """At some tokens; the others' gates are what they were. Of attention what is read is compared, not the state: the
    logarithms of weights that are none differ.
    """

    def read(run: Any) -> Any:
        return lambda *given: (run(*given)[0], State())

    point = DesignPoint.parse({**spec, "retention": "l2"})
    given = case(point, 20, seed=1)
    log_keep = given.inputs.log_keep.clone()
    log_keep[:, [3, 4, 17]] = extreme
    forced = dataclasses.replace(given, inputs=given.inputs._replace(log_keep=log_keep))
    runs = (chunkwise.run, recurrence.run) if "preset" in spec else (read(chunkwise.run), read(recurrence.run))
    (found, gradients, _), (expected, expected_gradients, _) = (evaluate(run, point, forced) for run in runs)
    assert all(torch.isfinite(x).all() for x in [*found, *gradients])
    assert worst(found, expected) < 1e-9
    assert worst(gradients, expected_gradients) < 1e-9


@pytest.mark.parametrize("preset", ["transformer", "sliding_window", "delta_net", "titans_lmm", "moneta"])
@pytest.mark.parametrize("run", [chunkwise.run, recurrence.run])
def test_the_gate_of_a_retention_that_keeps_all_is_not_looked_at(preset: str, run: Any) -> None:
    point = DesignPoint.parse({"preset": preset, "retention": "none"})
    given = case(point, 20, seed=1)
    noise = given.inputs._replace(log_keep=-torch.rand_like(given.inputs.log_keep))
    plain = given.inputs._replace(log_keep=torch.zeros_like(given.inputs.log_keep))
    one, other = (run(point, inputs, given.start, given.static)[0] for inputs in (noise, plain))
    assert torch.equal(one, other)


@pytest.mark.parametrize(("batch", "tokens"), [(0, 5), (2, 0)])
@pytest.mark.parametrize(
    "spec", [{"retention": "l2"}, {"retention": "kl"}, {"preset": "mesa"}, {"preset": "titans_lmm"}]
)
def test_nothing_in_is_nothing_out(spec: dict[str, object], batch: int, tokens: int) -> None:
    point = DesignPoint.parse(spec)
    given = case(point, 8, seed=3)
    inputs = given.inputs.map(lambda x: x[:batch, : x.shape[1] // 8 * tokens])
    for run in (chunkwise.run, recurrence.run):
        y, _ = run(point, inputs, given.start, given.static, None)
        assert y.shape == inputs.v[:, :tokens].shape


def test_work_of_exact_gradients_does_not_grow_with_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    found = chunkwise.signals

    def counted(*given: Any) -> tuple[Layers, Layers]:
        calls.append(given[4].shape[2])
        return found(*given)

    monkeypatch.setattr(chunkwise, "signals", counted)
    work = []
    for chunk in (1, 16, 64, 4096):
        point = DesignPoint.parse({"memory": {"mlp": {"expansion": 1}}, "execution": {"chunk": chunk}})
        given = case(point, 40, seed=3, batch=1, heads=1)
        chunkwise.run(point, given.inputs, given.start, given.static)
        work.append(tuple(calls))
        calls.clear()
    assert len(set(work)) == 1
    assert sum(work[0]) == 16 * 16 + 16 * 16 + 8 * 8
