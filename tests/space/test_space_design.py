"""Design points: text in and out, one hash a function, changes by path, and errors that name place and cure."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Iterator

import pytest
from memories import ALGORITHMS, BIASES, EXECUTIONS, MEMORIES, RETENTIONS, case, worst

from miras_search.kernels import recurrence
from miras_search.space.algorithm import Gd, Momentum
from miras_search.space.bias import L2, Huber, Lp, ValueShift
from miras_search.space.control import CONTROL
from miras_search.space.design import DesignPoint
from miras_search.space.execution import Execution, Gradient
from miras_search.space.fields import Plain, SpecError
from miras_search.space.gates import Gate, fixed
from miras_search.space.memory import Matrix, Mlp
from miras_search.space.presets import PRESETS, preset
from miras_search.space.retention import KlRetention, L2Retention
from miras_search.space.rules import violations

STEPS: list[Plain] = [
    0.5,
    "learned",
    {"source": "data", "scale": 2.0},
    {"source": "learned", "squash": "softplus", "value": 2.0},
]
KEEPS: list[Plain] = [0.9, 1.0, "learned", {"source": "data", "squash": "mamba", "value": 0.97}]


def sample(count: int, seed: int) -> Iterator[DesignPoint]:
    """Random points over all options, gates, executions and controls, whether a rule refuses them or not."""
    draw = random.Random(seed)
    for _ in range(count):
        retention = draw.choice(RETENTIONS)
        if retention != "none":
            name = retention if isinstance(retention, str) else next(iter(retention))
            settings = {} if isinstance(retention, str) else retention[name]
            retention = {name: {**settings, "keep": draw.choice(KEEPS)}}
        yield DesignPoint.parse(
            {
                "memory": draw.choice(MEMORIES),
                "bias": draw.choice(BIASES),
                "retention": retention,
                "algorithm": draw.choice([*ALGORITHMS, {"momentum": {"momentum": 0.0}}, {"multi_step": {"writes": 1}}]),
                "step": draw.choice(STEPS),
                "execution": draw.choice(EXECUTIONS),
                "control": draw.choice(["none"] * 3 + list(CONTROL.options)),
            }
        )


SAMPLE = list(sample(400, seed=5))


def test_plain_form_reads_back() -> None:
    for point in SAMPLE:
        plain = point.to_plain()
        again = DesignPoint.parse(json.loads(json.dumps(plain)))
        assert again.to_plain() == plain
        assert again == point
        assert hash(again) == hash(point)
        assert str(again) == str(point)


def test_canonical_is_idempotent_valid_where_the_point_is_and_keeps_the_hash() -> None:
    changed = 0
    for point in SAMPLE:
        canonical = point.canonical()
        changed += canonical != point
        assert canonical.canonical() == canonical
        assert canonical.hash == point.hash
        if not violations(point, 4, 4):
            assert not violations(canonical, 4, 4)
    assert changed > 100


def test_one_hash_a_canonical_form() -> None:
    forms: dict[str, DesignPoint] = {}
    for point in SAMPLE:
        assert forms.setdefault(point.hash, point.canonical()) == point.canonical()
    assert len(forms) > 300


def test_hash_is_stable() -> None:
    """Stores name trials by it: a change of this literal makes old studies strangers."""
    assert preset("delta_net").hash == "5ccb0a5fd986"
    assert preset("yaad").hash == "2f17f4ac3316"
    assert len({(preset(name).hash, str(one.model)) for name, one in PRESETS.items()}) == len(PRESETS)


SPELLINGS: list[tuple[object, object]] = [
    ({"bias": "l2"}, {}),
    ({"bias": {"l2": {"scale": "half"}}}, {}),
    ({"bias": {"lp": {"p": 2}}}, {}),
    ({"bias": {"lp": {"p": 2.0, "epsilon": 0.1, "scale": "paper"}}}, {"bias": {"l2": {"scale": "full"}}}),
    ({"bias": {"lp": {"p": 1, "scale": "paper"}}}, {"bias": {"lp": {"p": 1.0}}}),
    ({"bias": {"value_shift": {"delta": 0}}}, {}),
    ({"retention": {"l2": {"keep": 1.0}}}, {}),
    ({"retention": {"l2": {"keep": {"source": "fixed", "squash": "mamba", "value": 0.9}}}},
     {"retention": {"l2": {"keep": 0.9}}}),
    ({"step": {"source": "fixed", "value": 0.5, "scale": 2.0}}, {"step": 0.5}),
    ({"step": {"squash": "softplus", "scale": 2.0}}, {"step": {"squash": "softplus"}}),
    ({"algorithm": {"multi_step": {"writes": 1}}}, {"algorithm": "gd"}),
    ({"algorithm": {"momentum": {"momentum": 0}}}, {"algorithm": "gd"}),
    ({"memory": {"mlp": {"depth": 1, "residual": False, "norm": "none", "activation": "relu"}}}, {}),
    ({"memory": {"mlp": {"depth": 1, "expansion": 2}}}, {"memory": {"mlp": {"depth": 1, "activation": "tanh"}}}),
    ({"execution": {"chunk": 8}}, {}),
    ({"execution": {"link_refresh": "chunk"}}, {}),
    ({"execution": {"gradient_at": "decayed"}}, {}),
    ({"execution": {"gradient": "frozen", "chunk": 1}}, {}),
    ({"execution": {"gradient": {"refined": 15}}}, {}),
    ({"execution": {"gradient": {"refined": 7}, "chunk": 8}}, {}),
    ({"bias": "dot", "execution": {"gradient": {"refined": 2}, "chunk": 32}}, {"bias": "dot"}),
    ({"preset": "delta_net"}, {"preset": "delta_net", "execution": {"gradient": "exact"}}),
    ({"bias": "dot", "retention": "kl", "execution": {"gradient": {"refined": 1}, "link_refresh": "chunk"}},
     {"bias": "dot", "retention": "kl", "execution": {"gradient": "frozen", "link_refresh": "chunk"}}),
    ({"retention": "kl", "execution": {"gradient": {"refined": 9}, "chunk": 4, "link_refresh": "chunk"}},
     {"retention": "kl", "execution": {"gradient": {"refined": 3}, "chunk": 4, "link_refresh": "chunk"}}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_spellings_of_one_function_have_one_hash(one: object, other: object) -> None:
    a, b = DesignPoint.parse(one), DesignPoint.parse(other)
    assert a.canonical() == b.canonical()
    assert a.hash == b.hash


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_spellings_of_one_function_give_one_output(one: object, other: object) -> None:
    a, b = DesignPoint.parse(one), DesignPoint.parse(other)
    given = case(b, 11, seed=4, key_dim=4, value_dim=4)
    thresholds = {} if b.bias.name == a.bias.name else {"threshold": 0 * given.inputs.step}
    momentum = 0 * given.inputs.step if a.algorithm.has_momentum else None
    y, _ = recurrence.run(a, given.inputs._replace(momentum=momentum, **thresholds), given.start, given.static)
    z, _ = recurrence.run(b, given.inputs, given.start, given.static)
    assert worst([y], [z]) < 1e-12


def test_whole_numbers_hash_as_numbers() -> None:
    """Python lets an int stand for a float: equal points, so equal hashes."""
    assert DesignPoint(bias=Lp(p=3)) == DesignPoint(bias=Lp(p=3.0))
    assert DesignPoint(bias=Lp(p=3)).hash == DesignPoint(bias=Lp(p=3.0)).hash
    assert DesignPoint(step=fixed(1)).hash == DesignPoint(step=fixed(1.0)).hash


DISTINCT: list[object] = [
    {},
    {"bias": {"l2": {"scale": "full"}}},
    {"bias": "lp"},
    {"bias": {"lp": {"p": 1.0}}},
    {"bias": "huber"},
    {"bias": {"huber": {"delta": 0.5}}},
    {"bias": {"huber": {"form": "switch"}}},
    {"bias": "value_shift"},
    {"bias": "dot"},
    {"bias": "dot", "memory": "mlp", "execution": {"gradient": "frozen"}},
    {"bias": "dot", "memory": "mlp"},
    {"retention": "l2"},
    {"retention": {"l2": {"keep": "learned"}}},
    {"retention": {"l2": {"keep": {"value": 0.9}}}},
    {"retention": "kl"},
    {"retention": {"kl": {"keep": 1.0}}},
    {"retention": {"kl": {"scale": 2.0}}},
    {"retention": "l2", "execution": {"gradient_at": "decayed"}},
    {"retention": "kl", "execution": {"link_refresh": "chunk", "gradient": "frozen", "chunk": 1}},
    {"algorithm": "momentum"},
    {"algorithm": "multi_step"},
    {"algorithm": {"multi_step": {"own_keys": False}}},
    {"algorithm": "multi_step", "execution": {"gradient": "frozen", "chunk": 1}},
    {"step": "learned"},
    {"step": {"scale": 2.0}},
    {"step": {"squash": "softplus"}},
    {"step": 0.5},
    {"step": 1.0},
    {"execution": {"gradient": "frozen"}},
    {"execution": {"gradient": "frozen", "chunk": 8}},
    {"execution": {"gradient": {"refined": 1}}},
    {"execution": {"gradient": {"refined": 14}}},
    {"control": "no_write"},
    {"control": "ascent"},
    {"control": "shuffled_values"},
    {"control": "q_is_k"},
    {"control": "random_keys"},
    {"control": "inner_steps"},
    {"control": {"inner_steps": {"n": 3}}},
    {"control": "no_conv"},
]


def test_different_functions_have_different_hashes() -> None:
    points = [DesignPoint.parse(spec) for spec in DISTINCT]
    for a, b in itertools.combinations(points, 2):
        assert a.hash != b.hash, (str(a), str(b))


def test_canonical_forms_of_options() -> None:
    assert Mlp(depth=1, residual=False, norm="none").canonical() == Matrix()
    assert Lp(p=2.0).canonical() == ValueShift(delta=fixed(0.0)).canonical() == L2()
    assert Huber().canonical() == Huber()
    assert L2Retention(keep=fixed(1.0)).canonical().name == "none"
    assert KlRetention(keep=fixed(1.0)).canonical().name == "kl"
    assert Momentum(momentum=fixed(0.0)).canonical() == Gd()


def test_gates_are_found_by_slot() -> None:
    assert set(preset("titans_lmm").gates) == {"step", "keep", "momentum"}
    assert set(preset("yaad").gates) == {"step", "keep", "threshold"}
    assert preset("delta_net").gates["keep"].is_one


@pytest.mark.parametrize(
    ("start", "path", "level", "expected"),
    [
        ("delta_net", "bias", "lp", {"preset": "delta_net", "bias": "lp"}),
        ("delta_net", "bias", {"lp": {"p": 3}}, {"preset": "delta_net", "bias": {"lp": {"p": 3.0}}}),
        ("delta_net", "bias.scale", "full", {"preset": "delta_net", "bias": {"l2": {"scale": "full"}}}),
        ("delta_net", "step", 0.25, {"preset": "delta_net", "step": 0.25}),
        ("delta_net", "step.value", 0.25, {"preset": "delta_net", "step": {"value": 0.25}}),
        ("delta_net", "control", "ascent", {"preset": "delta_net", "control": "ascent"}),
        ("titans_lmm", "algorithm.momentum", 0.5,
         {"preset": "titans_lmm", "algorithm": {"momentum": {"momentum": 0.5}}}),
        ("titans_lmm", "algorithm.momentum.value", 0.5,
         {"preset": "titans_lmm", "algorithm": {"momentum": {"momentum": {"value": 0.5}}}}),
        ("titans_lmm", "execution.chunk", 64, {"preset": "titans_lmm", "execution": {"chunk": 64}}),
        ("titans_lmm", "execution.gradient", {"refined": 2},
         {"preset": "titans_lmm", "execution": {"gradient": {"refined": 2}}}),
        ("gated_delta_net", "retention.keep.squash", "sigmoid", {"preset": "gated_delta_net", "retention": "l2"}),
        ("memora", "memory.expansion", 2,
         {"preset": "memora", "memory": {"mlp": {"expansion": 2}}}),
    ],
)  # fmt: skip
def test_changed_by_path(start: str, path: str, level: object, expected: object) -> None:
    before = preset(start)
    plain = json.dumps(before.to_plain())
    after = before.changed(path, level)
    assert after == DesignPoint.parse(expected)
    assert after != before
    assert json.dumps(before.to_plain()) == plain  # nothing shared was written to


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, "d: expected a preset's name or the four choices, got None"),
        ("delta_ne", "d: unknown preset 'delta_ne' (did you mean 'delta_net'?)"),
        ({"preset": "yaad2"}, "d.preset: unknown preset 'yaad2' (did you mean 'yaad'?)"),
        ({"biass": "l2"}, "d.biass: unknown key (did you mean 'bias'?)"),
        ({3: "l2"},
         "d.3: unknown key (known: algorithm, bias, control, execution, memory, mixer, preset, retention, step)"),
        ({"bias": "hubr"}, "d.bias: unknown bias 'hubr' (did you mean 'huber'?)"),
        ({"bias": 3}, "d.bias: expected a name, or one name with its settings, got 3"),
        ({"bias": {"l2": {}, "lp": {}}},
         "d.bias: expected a name, or one name with its settings, got {'l2': {}, 'lp': {}}"),
        ({"bias": {"l2": 3}}, "d.bias.l2: expected a mapping of settings, got 3"),
        ({"bias": {"hubr": {"delta": 1}}}, "d.bias: unknown bias 'hubr' (did you mean 'huber'?)"),
        ({"retention": {"none": {"keep": 0.9}}}, "d.retention.none.keep: unknown setting (there are none)"),
        ({"retention": {"kl": {"scale": -1}}}, "d.retention.kl.scale: -1: a slice sums to a positive number"),
        ({"retention": {"l2": {"keep": 2}}}, "d.retention.l2.keep: a keep gate lies in [0, 1], got 2"),
        ({"memory": {"mlp": {"depth": 0}}}, "d.memory.mlp.depth: 0 is not between 1 and 8"),
        ({"memory": {"gated_mlp": {"expansion": 99}}}, "d.memory.gated_mlp.expansion: 99 is not between 1 and 64"),
        ({"memory": {"mlp": {"norm": "none", "affine": True}}},
         "d.memory.mlp.affine: there is no norm to scale: set norm: layer"),
        ({"memory": {"mlp": {"activation": "glu"}}},
         "d.memory.mlp.activation: 'glu' is not one of gelu, silu, relu, tanh (did you mean 'gelu'?)"),
        ({"step": {"value": 2}}, "d.step.value: a data sigmoid gate starts strictly between 0 and 1"),
        ({"execution": "frozen"}, "d.execution: expected settings of execution, got 'frozen'"),
        ({"execution": {"chunk": 0}}, "d.execution.chunk: 0 is not between 1 and 4096"),
        ({"execution": {"chunk": 16.0}}, "d.execution.chunk: expected a whole number, got 16.0"),
        ({"execution": {"gradient": "froze"}},
         "d.execution.gradient: unknown gradient mode 'froze' (did you mean 'frozen'?): "
         "write exact, frozen or {refined: n}"),
        ({"execution": {"gradient": "refined"}},
         "d.execution.gradient: unknown gradient mode 'refined': write exact, frozen or {refined: n}"),
        ({"execution": {"gradient": {"refined": 0}}},
         "d.execution.gradient.refined: 0 is not a number of sweeps between 1 and 64"),
        ({"execution": {"gradient_at": "decay"}},
         "d.execution.gradient_at: 'decay' is not one of previous, decayed (did you mean 'decayed'?)"),
        ({"control": "nowrite"}, "d.control: unknown control 'nowrite' (did you mean 'no_write'?)"),
        ({"bias": "l3", "memory": {"mlp": {"depht": 2, "affine": 2}}, "foo": 1},
         "d.bias: unknown bias 'l3' (known: dot, huber, kl, l1, l2, logcosh, lp, value_shift)\n"
         "d.memory.mlp.depht: unknown setting (did you mean 'depth'?)\n"
         "d.memory.mlp.affine: expected true or false, got 2\n"
         "d.foo: unknown key (known: algorithm, bias, control, execution, memory, mixer, preset, retention, step)"),
    ],
)  # fmt: skip
def test_errors_name_place_value_and_cure(spec: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        DesignPoint.parse(spec, ("d",))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("path", "level", "message"),
    [
        ("bais.scale", "full", "v: unknown axis 'bais.scale' (did you mean 'bias'?)"),
        ("bias", "l3", "v.bias: unknown bias 'l3' (known: dot, huber, kl, l1, l2, logcosh, lp, value_shift)"),
        ("bias.scal", "full", "v: unknown setting (did you mean 'scale'?)"),
        ("bias.scale", "fulll", "v: 'fulll' is not one of half, full (did you mean 'full'?)"),
        ("bias.scale.x", 1, "v: 'bias.scale.x': 'scale' is 'half' here and has no settings of its own"),
        ("bias.delta.value", 1, "v: 'bias.delta.value': bias has no setting 'delta' (known: scale)"),
        ("execution.gradient.refined", 2,
         "v: 'execution.gradient.refined': 'gradient' is 'exact' here and has no settings of its own"),
        ("retention.keep", 0.9, "v: unknown setting (there are none)"),
        ("step.value", 7.0, "v: a data sigmoid gate starts strictly between 0 and 1"),
    ],
)  # fmt: skip
def test_bad_changes_are_named(path: str, level: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        preset("delta_net").changed(path, level, ("v",))
    assert str(caught.value) == message


def test_what_a_change_breaks_elsewhere_is_told_there_and_without_a_place_at_its_path() -> None:
    with pytest.raises(SpecError) as caught:
        preset("linear_attention").changed("step.source", "data", ("v",))
    assert str(caught.value) == "v.step.value: a data sigmoid gate starts strictly between 0 and 1"
    with pytest.raises(SpecError) as caught:
        preset("delta_net").changed("bias.scale", "fulll")
    assert str(caught.value) == "bias.scale: 'fulll' is not one of half, full (did you mean 'full'?)"


def test_text_says_what_differs_from_the_defaults() -> None:
    assert str(DesignPoint()) == "matrix | l2 | none | gd | step data | exact, chunk 16, previous"
    point = DesignPoint(
        bias=Huber(form="switch", delta=Gate(squash="softplus", value=1.0)),
        retention=KlRetention(slice="row"),
        step=fixed(0.5),
        execution=Execution(gradient=Gradient(2), link_refresh="chunk"),
    )
    control = dataclasses.replace(point, control=DesignPoint.parse({"control": "ascent"}).control)
    assert str(control) == (
        "matrix | huber(form=switch, delta=data) | kl(slice=row) | gd | step 0.5 | "
        "refined(2), chunk 16, previous, link refreshed per chunk | ascent"
    )
