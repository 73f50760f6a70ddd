"""Each rule fires on what it forbids, with its reason, and only there; every preset passes all of them."""

from __future__ import annotations

import pytest

from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.presets import PRESETS, preset
from miras_search.space.rules import RULES, check, violations

KL_TANGENT = {"retention": "kl", "execution": {"link_refresh": "chunk"}}
SOLVED = {"algorithm": "newton"}
PAIRS = {"memory": "attention", "algorithm": "nonparametric"}
REPEATED = {"algorithm": {"multi_step": {"own_keys": False}}}
IMPLICIT = {"algorithm": "implicit", "execution": {"gradient_at": "decayed"}}
OWN = {"mixer": {"module": "my_layers.MyLayer", "digest": "0"}}  # as stored: its file need not be there
KEYED = {"retention": {"l2": {"keep": {"tie": "key", "scope": "key"}}}}

# (what it refuses with which head dimensions, its place, a phrase of its reason, allowed neighbours)
CASES: list[tuple[object, tuple[int, int], str, str, list[tuple[object, tuple[int, int]]]]] = [
    ({"memory": "mlp"}, (4, 8), "memory", "key and value dimensions must be equal: set residual: false",
     [({"memory": "mlp"}, (8, 8)), ({"memory": {"mlp": {"residual": False}}}, (4, 8)), ({}, (4, 8))]),
    ({"memory": {"mlp": {"residual": False}}}, (4, 1), "memory", "a layer norm over a single channel is always zero",
     [({"memory": {"mlp": {"residual": False, "norm": "none"}}}, (4, 1)),
      ({"memory": {"mlp": {"residual": False}}}, (4, 2)), ({}, (4, 1))]),
    ({"step": 0.0}, (4, 4), "step", "a fixed step is positive: the control no_write says",
     [({"step": 0.1}, (4, 4)), ({"step": "learned"}, (4, 4)), ({"control": "no_write"}, (4, 4))]),
    ({"step": {"squash": "mamba"}}, (4, 4), "step.squash", "use sigmoid or softplus for a step",
     [({"step": {"squash": "softplus"}}, (4, 4)), ({"retention": {"l2": {"keep": {"squash": "mamba"}}}}, (4, 4))]),
    ({"bias": "dot", **REPEATED}, (4, 4), "algorithm", "several steps on one pair are one step n times as long",
     [({"bias": "l2", **REPEATED}, (4, 4)), ({"bias": "dot", "algorithm": "multi_step"}, (4, 4)),
      ({"bias": "dot", "memory": "mlp", **REPEATED}, (4, 4))]),
    (KL_TANGENT, (4, 4), "execution.link_refresh", "use gradient: frozen or {refined: n}, or link_refresh: token",
     [({"retention": "l2", "execution": {"link_refresh": "chunk"}}, (4, 4)), ({"retention": "kl"}, (4, 4)),
      ({"retention": "kl", "execution": {"link_refresh": "chunk", "gradient": "frozen"}}, (4, 4))]),
    ({"memory": "vector"}, (4, 8), "memory", "a vector memory multiplies channel by channel",
     [({"memory": "vector"}, (4, 4))]),
    ({"retention": {"kl": {"keep": {"scope": "key"}}}}, (4, 4), "retention.keep.scope",
     "kl knows keep by head, value only, not by key",
     [({"retention": {"kl": {"keep": {"scope": "key"}, "slice": "row"}}}, (4, 4)),
      ({"retention": {"l2": {"keep": {"scope": "key"}}}}, (4, 4))]),
    ({"memory": "vector", "retention": {"kl": {"keep": {"scope": "key"}, "slice": "row"}}}, (4, 4),
     "retention.keep.scope", "a row is all of this memory, and keep by channel varies inside it: set keep.scope: head",
     [({"memory": "vector", "retention": {"kl": {"slice": "row"}}}, (4, 4)),
      ({"memory": "vector", "retention": {"l2": {"keep": {"scope": "key"}}}}, (4, 4))]),
    ({"retention": {"l2": {"keep": {"squash": "mamba", "value": 0.9, "tie": "step", "scope": "key"}}}}, (4, 4),
     "retention.keep.tie", "a decay by the step has the step's scope: set keep.scope: head",
     [({"retention": {"l2": {"keep": {"squash": "mamba", "value": 0.9, "tie": "step"}}}}, (4, 4))]),
    ({"retention": {"l2": {"coupled": True, "keep": {"scope": "key"}}}, "step": {"scope": "value"}}, (4, 4),
     "retention.coupled", "values by value and by key: use one scope",
     [({"retention": {"l2": {"coupled": True, "keep": {"scope": "key"}}}}, (4, 4))]),
    ({"bias": {"huber": {"delta": {"source": "data", "squash": "softplus", "scope": "value"}}}}, (4, 4),
     "bias.delta.scope", "huber knows thresholds by head only, not by value",
     [({"bias": {"huber": {"form": "coordinate", "delta": {"source": "data", "squash": "softplus", "scope": "value"}}}},
       (4, 4))]),
    ({"step": {"tie": "key", "scope": "key"}}, (4, 4), "step.tie", "only keep can be tied, not step",
     [({"retention": {"l2": {"keep": {"tie": "key", "scope": "key"}}}}, (4, 4))]),
    ({"memory": "vector", "retention": "kl"}, (4, 4), "retention.slice", "a column of this memory is one weight",
     [({"memory": "vector", "retention": {"kl": {"slice": "row"}}}, (4, 4)),
      ({"memory": "vector", "retention": {"kl": {"slice": "whole"}}}, (4, 4)), ({"retention": "kl"}, (4, 4))]),
    ({"retention": {"kl": {"slice": "row"}}}, (4, 1), "retention.slice", "set slice: column",
     [({"retention": "kl"}, (4, 1))]),
    ({"memory": "attention"}, (4, 4), "memory", "read by the nonparametric algorithm, and only it",
     [(PAIRS, (4, 8)), ({}, (4, 4))]),
    ({"algorithm": "nonparametric"}, (4, 4), "algorithm", "it keeps the pairs themselves and no weights",
     [(PAIRS, (4, 4))]),
    ({**PAIRS, "bias": "l1"}, (4, 4), "algorithm", "a weighted mean of values minimises the squared error only",
     [({**PAIRS, "bias": {"lp": {"p": 2.0}}}, (4, 4))]),
    ({**PAIRS, "algorithm": "newton"}, (4, 4), "algorithm", "only a linear map has its minimiser in closed form",
     [(SOLVED, (4, 8)), ({**SOLVED, "memory": {"mlp": {"depth": 1, "residual": False, "norm": "none"}}}, (4, 8))]),
    ({**SOLVED, "memory": "mlp"}, (4, 4), "algorithm", "matrix without residual and norm", [(SOLVED, (4, 4))]),
    ({**SOLVED, "bias": "dot"}, (4, 4), "algorithm", "only the squared error has a linear minimiser: set bias: l2",
     [({**SOLVED, "bias": {"value_shift": {"delta": 0.0}}}, (4, 4))]),
    ({**SOLVED, "bias": {"l2": {"scale": "full"}}}, (4, 4), "algorithm", "half: a factor belongs into the step", []),
    ({**SOLVED, "retention": "kl"}, (4, 4), "retention", "keeps no weights that this gate could shape: use none or l2",
     [({**SOLVED, "retention": "l2"}, (4, 4)), ({"retention": "kl"}, (4, 4))]),
    ({**PAIRS, "retention": "kl"}, (4, 4), "retention", "use none or l2", [({**PAIRS, "retention": "l2"}, (4, 4))]),
    ({**SOLVED, "retention": {"l2": {"keep": {"scope": "key"}}}}, (4, 4), "retention.keep.scope",
     "newton knows keep by head only, not by key",
     [({"retention": {"l2": {"keep": {"scope": "key"}}}}, (4, 4)), ({**SOLVED, "retention": "l2"}, (4, 4))]),
    ({**PAIRS, "retention": {"l2": {"keep": {"scope": "value"}}}}, (4, 4), "retention.keep.scope",
     "nonparametric knows keep by head only, not by value", [({**PAIRS, "retention": "l2"}, (4, 4))]),
    ({**SOLVED, "control": "ascent"}, (4, 4), "control", "a weight has no sign to turn round: use the control no_write",
     [({**SOLVED, "control": "no_write"}, (4, 4)), ({"control": "ascent"}, (4, 4))]),
    ({**KEYED, "control": "random_keys"}, (4, 4), "control", "the keys are made from keep and not projected",
     [({"control": "random_keys"}, (4, 4)), ({**KEYED, "control": "q_is_k"}, (4, 4))]),
    ({**SOLVED, "control": "inner_steps"}, (4, 4), "control", "solved for takes no steps that could be repeated", []),
    ({"algorithm": "erase_write", "control": "inner_steps"}, (4, 4), "control", "two halves of one change", []),
    ({"algorithm": "omega", "control": "inner_steps"}, (4, 4), "control", "a write of several tokens' pairs",
     [({"algorithm": {"omega": {"window": 1}}, "control": "inner_steps"}, (4, 4))]),
    ({"bias": "dot", "control": "inner_steps"}, (4, 4), "control", "with the dot bias in a matrix every round has",
     [({"control": "inner_steps"}, (4, 4)), ({"bias": "dot", "memory": "mlp", "control": "inner_steps"}, (4, 4)),
      ({"bias": "dot", "algorithm": "momentum", "control": "inner_steps"}, (4, 4))]),
    ({"execution": {"gradient": "frozen"}, "control": "inner_steps"}, (4, 4), "control", "with gradients frozen in a",
     [({"execution": {"gradient": {"refined": 1}}, "control": "inner_steps"}, (4, 4)),
      ({"execution": {"gradient": "frozen"}, "control": "inner_steps", "retention": "elastic_net"}, (4, 4))]),
    ({**PAIRS, "control": "ascent"}, (4, 4), "control", "use the control no_write",
     [({**PAIRS, "control": "no_write"}, (4, 4))]),
    ({**PAIRS, "step": {"scope": "key"}}, (4, 4), "step.scope", "nonparametric knows steps by head only, not by key",
     [({"step": {"scope": "key"}}, (4, 4)), ({**PAIRS, "step": "learned"}, (4, 4))]),
    ({**SOLVED, "retention": {"l2": {"coupled": True}}}, (4, 4), "retention.coupled", "no step that keep could shorten",
     [({"retention": {"l2": {"coupled": True}}}, (4, 4))]),
    ({**IMPLICIT, "memory": "mlp"}, (4, 4), "algorithm", "a closed form only for a matrix without residual and norm",
     [(IMPLICIT, (4, 8)), ({**IMPLICIT, "memory": {"mlp": {"depth": 1, "residual": False, "norm": "none"}}}, (4, 8))]),
    ({**IMPLICIT, "bias": "dot"}, (4, 4), "algorithm", "needs a loss that is quadratic in the prediction: use l2",
     [({**IMPLICIT, "bias": {"l2": {"scale": "full"}}}, (4, 4))]),
    ({**IMPLICIT, "bias": "huber"}, (4, 4), "algorithm", "needs a loss that is quadratic", []),
    ({**IMPLICIT, "retention": "kl"}, (4, 4), "retention", "between the weights themselves: use none or l2",
     [({**IMPLICIT, "retention": "l2"}, (4, 4)), ({"retention": "kl"}, (4, 4))]),
    ({"algorithm": "implicit", "retention": "l2"}, (4, 4), "execution.gradient_at", "set gradient_at: decayed",
     [({**IMPLICIT, "retention": "l2"}, (4, 4)), ({"algorithm": "implicit"}, (4, 4)), ({"retention": "l2"}, (4, 4)),
      ({"algorithm": "implicit", "retention": {"l2": {"keep": 1.0}}}, (4, 4))]),
    ({**IMPLICIT, "step": {"scope": "key"}}, (4, 4), "step.scope",
     "implicit knows steps by head, value only, not by key",
     [({**IMPLICIT, "step": {"source": "fixed", "value": 2.0}}, (4, 4)),
      ({**IMPLICIT, "step": {"scope": "value"}}, (4, 4))]),
    ({"step": {"ladder": "halving"}}, (4, 4), "step.ladder", "only keep has a ladder over its heads, not step",
     [({"retention": {"l2": {"keep": {"ladder": "halving"}}}}, (4, 4))]),
    ({"algorithm": {"momentum": {"momentum": {"ladder": "slopes"}}}}, (4, 4), "step.ladder", "heads, not momentum", []),
    ({**IMPLICIT, "retention": {"l2": {"coupled": True, "keep": {"scope": "key"}}}}, (4, 4), "step.scope",
     "not by key (with a keep that it is coupled to)",
     [({**IMPLICIT, "retention": {"l2": {"coupled": True}}}, (4, 4)),
      ({**IMPLICIT, "retention": {"l2": {"keep": {"scope": "key"}}}}, (4, 4))]),
    ({"algorithm": "erase_write", "bias": "dot"}, (4, 4), "algorithm", "use l2 with scale: half",
     [({"algorithm": "erase_write"}, (4, 8)), ({"algorithm": "erase_write", "bias": {"lp": {"p": 2.0}}}, (4, 4))]),
    ({"algorithm": "erase_write", "bias": {"l2": {"scale": "full"}}}, (4, 4), "algorithm", "half the squared error",
     []),
    ({"algorithm": "erase_write", "memory": "mlp"}, (4, 4), "algorithm", "it writes along other keys than it reads",
     [({"algorithm": {"erase_write": {"own_keys": False}}, "retention": "kl"}, (4, 8))]),
    ({"algorithm": "erase_write", **KEYED}, (4, 4), "retention.keep.tie", "is the token's only one",
     [({"algorithm": {"erase_write": {"own_keys": False}}, **KEYED}, (4, 4)), ({**KEYED}, (4, 4))]),
    ({"algorithm": "multi_step", **KEYED}, (4, 4), "retention.keep.tie", "is the token's only one",
     [({"algorithm": {"multi_step": {"own_keys": False}}, **KEYED}, (4, 4))]),
    ({"algorithm": "muon", "memory": "vector"}, (4, 4), "algorithm", "muon makes matrices orthogonal",
     [({"algorithm": "muon", "memory": "mlp"}, (4, 4)), ({"algorithm": "adam", "memory": "vector"}, (4, 4)),
      ({"algorithm": "omega", "memory": "vector"}, (4, 4))]),
    ({"retention": {"f_divergence": {"keep": {"source": "data", "scope": "key"}}}}, (4, 4), "retention.keep.scope",
     "f_divergence knows keep by head, value only, not by key",
     [({"retention": {"f_divergence": {"keep": {"source": "data", "scope": "value"}}}}, (4, 4)),
      ({"retention": {"f_divergence": {"slice": "row", "keep": {"source": "data", "scope": "key"}}}}, (4, 4)),
      ({"retention": {"elastic_net": {"keep": {"scope": "key_value"}}}}, (4, 4)),
      ({"retention": {"lq": {"keep": {"scope": "key"}}}}, (4, 4)),
      ({"retention": {"bregman": {"keep": {"scope": "key"}}}}, (4, 4))]),
    ({"retention": {"elastic_net": {"view": "ftrl"}}, "execution": {"link_refresh": "chunk"}}, (4, 4),
     "execution.link_refresh", "use gradient: frozen or {refined: n}, or link_refresh: token",
     [({"retention": "elastic_net", "execution": {"link_refresh": "chunk"}}, (4, 4)),
      ({"retention": "f_divergence", "execution": {"link_refresh": "chunk"}}, (4, 4)),
      ({"retention": "lq", "execution": {"link_refresh": "chunk", "gradient": "frozen"}}, (4, 4))]),
    ({"retention": "f_divergence", "algorithm": "implicit"}, (4, 4), "retention",
     "a proximal write measures its distance between the weights themselves",
     [({"retention": "f_divergence"}, (4, 4))]),
    ({**SOLVED, "retention": "elastic_net"}, (4, 4), "retention", "keeps no weights that this gate could shape",
     [({"retention": "elastic_net"}, (4, 4))]),
    ({**SOLVED, "retention": "bregman"}, (4, 4), "retention", "keeps no weights that this gate could shape",
     [({"retention": "bregman"}, (4, 4))]),
    ({"memory": "vector", "retention": "f_divergence"}, (4, 4), "retention.slice",
     "a column of this memory is one weight", [({"memory": "vector", "retention": "lq"}, (4, 4))]),
    ({**OWN, "bias": "l1", "step": 0.5}, (4, 4), "mixer", "bias, step would change nothing: drop them",
     [({**OWN}, (4, 8)), ({**OWN, "execution": {"chunk": 4}}, (4, 4)), ({**OWN, "bias": "l2"}, (4, 4))]),
    ({**OWN, "control": "no_write"}, (4, 4), "mixer", "has no writes or keys that a control could take away", []),
]  # fmt: skip


def test_every_rule_is_tested() -> None:
    fired = {
        number
        for spec, dims, *_ in CASES
        for number, rule in enumerate(RULES)
        if rule.problem(DesignPoint.parse(spec), *dims) is not None
    }
    assert fired == set(range(len(RULES)))


@pytest.mark.parametrize(("spec", "dims", "place", "phrase", "allowed"), CASES)
def test_rule_fires_with_its_reason_and_only_there(
    spec: object,
    dims: tuple[int, int],
    place: str,
    phrase: str,
    allowed: list[tuple[object, tuple[int, int]]],
) -> None:
    point = DesignPoint.parse(spec)
    assert len(violations(point, *dims)) == 1
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
