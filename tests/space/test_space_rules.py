"""Each rule fires on what it forbids, with its reason, and only there; every preset passes all of them."""

from __future__ import annotations

import pytest

from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.presets import PRESETS, preset
from miras_search.space.rules import RULES, check, violations

KL_TANGENT = {"retention": "kl", "execution": {"link_refresh": "chunk"}}
REPEATED = {"algorithm": {"multi_step": {"own_keys": False}}}

# (the rule's number, what it refuses with which head dimensions, its place, a phrase of its reason, allowed neighbours)
CASES: list[tuple[int, object, tuple[int, int], str, str, list[tuple[object, tuple[int, int]]]]] = [
    (0, {"memory": "mlp"}, (4, 8), "memory", "key and value dimensions must be equal: set residual: false",
     [({"memory": "mlp"}, (8, 8)), ({"memory": {"mlp": {"residual": False}}}, (4, 8)), ({}, (4, 8))]),
    (1, {"memory": {"mlp": {"residual": False}}}, (4, 1), "memory", "a layer norm over a single channel is always zero",
     [({"memory": {"mlp": {"residual": False, "norm": "none"}}}, (4, 1)),
      ({"memory": {"mlp": {"residual": False}}}, (4, 2)), ({}, (4, 1))]),
    (2, {"step": 0.0}, (4, 4), "step", "a fixed step is positive: the control no_write says",
     [({"step": 0.1}, (4, 4)), ({"step": "learned"}, (4, 4)), ({"control": "no_write"}, (4, 4))]),
    (3, {"step": {"squash": "mamba"}}, (4, 4), "step.squash", "use sigmoid or softplus for a step",
     [({"step": {"squash": "softplus"}}, (4, 4)), ({"retention": {"l2": {"keep": {"squash": "mamba"}}}}, (4, 4))]),
    (4, {"bias": "dot", **REPEATED}, (4, 4), "algorithm", "several steps on one pair are one step n times as long",
     [({"bias": "l2", **REPEATED}, (4, 4)), ({"bias": "dot", "algorithm": "multi_step"}, (4, 4)),
      ({"bias": "dot", "memory": "mlp", **REPEATED}, (4, 4))]),
    (5, KL_TANGENT, (4, 4), "execution.link_refresh", "use gradient: frozen or {refined: n}, or link_refresh: token",
     [({"retention": "l2", "execution": {"link_refresh": "chunk"}}, (4, 4)), ({"retention": "kl"}, (4, 4)),
      ({"retention": "kl", "execution": {"link_refresh": "chunk", "gradient": "frozen"}}, (4, 4))]),
]  # fmt: skip


def test_every_rule_is_tested() -> None:
    assert [number for number, *_ in CASES] == list(range(len(RULES)))


@pytest.mark.parametrize(("number", "spec", "dims", "place", "phrase", "allowed"), CASES)
def test_rule_fires_with_its_reason_and_only_there(
    number: int,
    spec: object,
    dims: tuple[int, int],
    place: str,
    phrase: str,
    allowed: list[tuple[object, tuple[int, int]]],
) -> None:
    point = DesignPoint.parse(spec)
    problems = violations(point, *dims)
    assert [problem.what for problem in problems] == [RULES[number].reason]
    with pytest.raises(SpecError) as caught:
        check(point, *dims, ("design",))
    assert str(caught.value).startswith(f"design.{place}: ")
    assert phrase in str(caught.value)
    for neighbour, shape in allowed:
        check(DesignPoint.parse(neighbour), *shape)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_break_no_rule(name: str) -> None:
    check(preset(name), 8, 8)
    assert preset(name).canonical().hash == preset(name).hash
    assert PRESETS[name].equation
    assert PRESETS[name].source


def test_all_broken_rules_are_told_at_once() -> None:
    point = DesignPoint.parse({"memory": "mlp", "step": 0.0, **KL_TANGENT})
    with pytest.raises(SpecError) as caught:
        check(point, 4, 1)
    assert len(caught.value.problems) == 4
