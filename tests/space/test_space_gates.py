"""Gates start at their value whatever squashes them, keep's logarithm stays finite, and partial settings refine."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.space.gates import KEEP, LOG_FLOOR, MOMENTUM, STEP, Gate, fixed, keep_problem

STARTS = [
    Gate(squash="sigmoid", value=0.5),
    Gate(squash="sigmoid", value=0.999),
    Gate(squash="sigmoid", value=1e-6),
    Gate(squash="sigmoid", value=0.5, scale=2.0),
    Gate(squash="sigmoid", value=7.0, scale=8.0),
    Gate(squash="softplus", value=1e-6),
    Gate(squash="softplus", value=1.0),
    Gate(squash="softplus", value=1000.0),
    KEEP,
    STEP,
    MOMENTUM,
]


@pytest.mark.parametrize("gate", STARTS, ids=lambda g: f"{g.squash}-{g.value:g}-{g.scale:g}")
def test_start_squashes_back_to_the_value(gate: Gate) -> None:
    raw = torch.tensor(gate.start, dtype=torch.float64)
    assert gate.squashed(raw).item() == pytest.approx(gate.value, rel=1e-12)
    if gate.squash == "sigmoid":
        assert gate.log_squashed(raw).item() == pytest.approx(math.log(gate.value), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("value", [1e-300, 1e-12, 0.03, 0.97, 1 - 1e-9])
def test_mamba_starts_at_its_value(value: float) -> None:
    gate = Gate(squash="mamba", value=value)
    raw = torch.tensor(gate.start, dtype=torch.float64)
    expected = max(math.log(value), LOG_FLOOR)
    assert gate.log_squashed(raw).item() == pytest.approx(expected, rel=1e-9)
    assert gate.log_squashed(raw, torch.zeros((), dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-9)
    halved = gate.log_squashed(raw, torch.tensor(0.5, dtype=torch.float64).log())
    assert halved.item() == pytest.approx(max(math.log(value) / 2, LOG_FLOOR), rel=1e-9)


@pytest.mark.parametrize("squash", ["sigmoid", "mamba"])
def test_the_logarithm_of_keep_is_finite_and_agrees_with_the_gate(squash: str) -> None:
    gate = Gate(squash=squash, value=0.5)
    raw = torch.linspace(-200, 200, 401, dtype=torch.float64, requires_grad=True)
    log = gate.log_squashed(raw)
    direct = torch.sigmoid(raw) if squash == "sigmoid" else torch.exp(-torch.nn.functional.softplus(raw))
    assert log.min() == LOG_FLOOR
    assert log.max() <= 0
    torch.testing.assert_close(log.exp(), direct, rtol=1e-12, atol=1e-13)
    (gradient,) = torch.autograd.grad(log.sum(), raw)
    assert torch.isfinite(gradient).all()


def test_scale_moves_the_upper_end_of_a_sigmoid() -> None:
    gate = Gate(squash="sigmoid", value=0.5, scale=2.0)
    raw = torch.tensor([-50.0, 0.0, 50.0], dtype=torch.float64)
    torch.testing.assert_close(gate.squashed(raw), torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(gate.log_squashed(raw).exp(), torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))


WIDE = Gate(source="data", squash="sigmoid", value=0.5, scale=2.0)


@pytest.mark.parametrize(
    ("data", "default", "expected"),
    [
        (0.25, WIDE, Gate("fixed", value=0.25, scale=2.0)),  # as `{source: fixed, value: 0.25}` does
        (1, WIDE, Gate("fixed", value=1.0, scale=2.0)),
        ("learned", WIDE, Gate(source="learned", value=0.5, scale=2.0)),
        ({"value": 1.5}, WIDE, Gate(value=1.5, scale=2.0)),
        ({"source": "learned", "squash": "softplus"}, KEEP, Gate(source="learned", squash="softplus", value=0.97)),
        ({}, KEEP, KEEP),
        ("data", None, Gate()),
    ],
)
def test_partial_settings_refine_the_slots_default(data: object, default: object, expected: Gate) -> None:
    found = Gate.from_plain(data, ("gate",), default)
    assert found == expected
    assert Gate.from_plain(found.to_plain(), (), default).to_plain() == found.to_plain()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (True, "g: expected a number, fixed, learned, data, or a gate's settings, got True"),
        (None, "g: expected a number, fixed, learned, data, or a gate's settings, got None"),
        ([0.5], "g: expected a number, fixed, learned, data, or a gate's settings, got [0.5]"),
        (float("nan"), "g.value: nan is not finite"),
        (float("inf"), "g.value: inf is not finite"),
        ("fixd", "g.source: 'fixd' is not one of fixed, learned, data (did you mean 'fixed'?)"),
        ({"valu": 1}, "g.valu: unknown setting (did you mean 'value'?)"),
        ({"value": "much"}, "g.value: expected a number, got 'much'"),
        (
            {"scope": "channel"},
            "g.scope: 'channel' is not one of head, key, value, key_value (known: head, key, key_value, value)",
        ),
        ({"scale": 0}, "g.scale: 0.0 must be positive"),
        ({"value": 1.0}, "g.value: a data sigmoid gate starts strictly between 0 and 1"),
        ({"value": 0, "source": "learned"}, "g.value: a learned sigmoid gate starts strictly between 0 and 1"),
        ({"value": 2.5, "scale": 2}, "g.value: a data sigmoid gate starts strictly between 0 and 2"),
        ({"value": 0, "squash": "softplus"}, "g.value: a data softplus gate starts above 0, got 0"),
        ({"value": 1, "squash": "mamba"}, "g.value: a mamba decay starts strictly between 0 and 1, got 1"),
        ({"squash": "sigmid", "source": "dta"},
         "g.source: 'dta' is not one of fixed, learned, data (did you mean 'data'?)\n"
         "g.squash: 'sigmid' is not one of sigmoid, softplus, mamba, rwkv (did you mean 'sigmoid'?)"),
    ],
)  # fmt: skip
def test_bad_values_are_named(data: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Gate.from_plain(data, ("g",), STEP)
    assert str(caught.value) == message


SLOTS = ["retention.f_divergence.keep", "bias.value_shift.delta", "algorithm.omega.momentum", "algorithm.muon.share"]


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("settings", [{"scope": "value"}, {"squash": "softplus"}, {"value": 0.5, "rank": 4}])
def test_a_gate_that_is_fixed_by_default_is_not_shaped_without_a_source(slot: str, settings: dict[str, object]) -> None:
    """It would stay the number that it is, and the setting would do nothing."""
    axis, option, field = slot.split(".")
    (name,) = settings.keys() - {"value"}
    with pytest.raises(SpecError) as caught:
        DesignPoint.parse({axis: {option: {field: settings}}})
    assert str(caught.value).startswith(f"{slot}.{name}: ")
    assert str(caught.value).endswith(
        "is fixed here unless a source is named, and a fixed gate has only a value: add source: data or source: learned"
    )
    found = Gate.from_plain({"source": "data", **settings, "value": 0.5}, (), fixed(1.0))
    assert (found.source, getattr(found, name)) == ("data", settings[name])
    assert Gate.from_plain({"value": 0.3}, (), fixed(1.0)) == fixed(0.3)


def test_a_fixed_gate_of_a_point_is_not_shaped_by_a_path() -> None:
    point = DesignPoint.parse({"retention": {"l2": {"keep": 0.9}}})
    with pytest.raises(SpecError, match=r"'retention.keep.scope': retention.keep is fixed, and a fixed gate has only"):
        point.changed("retention.keep.scope", "key")
    with pytest.raises(SpecError, match=r"'step.rank': step is fixed"):
        DesignPoint.parse({"step": 0.3}).changed("step.rank", 4)
    assert point.changed("retention.keep.value", 0.8) == DesignPoint.parse({"retention": {"l2": {"keep": 0.8}}})
    assert point.changed("retention.keep.source", "data").retention.keep.source == "data"


@pytest.mark.parametrize(
    ("settings", "value"),
    [({}, 0.5), ({"scale": 2.0}, 1.0), ({"scale": 0.5}, 0.25), ({"scale": 4.0, "temper": 2.0}, 1.0),
     ({"scope": "key", "tie": "key"}, 0.5), ({"scale": 0.5, "temper": 0.5}, 0.125),
     ({"scale": 2.0, "scope": "key_value"}, 1.0)],
)  # fmt: skip
def test_a_gate_that_is_let_go_starts_in_the_range_it_was_given(settings: dict[str, object], value: float) -> None:
    """At the constant it was, where that is inside; else in the middle."""
    found = Gate.from_plain({"source": "data", **settings}, (), fixed(1.0))
    assert found.value == value
    assert Gate.from_plain({"source": "learned", "scale": 2.0}, (), fixed(0.3)).value == 0.3


def test_a_floor_is_the_least_that_a_sigmoid_keeps() -> None:
    """HGRN2's lower bound: a = floor + (1 - floor) sigmoid(raw)."""
    gate = Gate.from_plain({"floor": 0.9}, (), KEEP)
    raw = torch.linspace(-200, 200, 41, dtype=torch.float64, requires_grad=True)
    expected = 0.9 + 0.1 * torch.sigmoid(raw)
    torch.testing.assert_close(gate.squashed(raw), expected, rtol=1e-14, atol=0.0)
    torch.testing.assert_close(gate.log_squashed(raw), expected.log(), rtol=1e-12, atol=0.0)
    (slope,) = torch.autograd.grad(gate.log_squashed(raw).sum(), raw)
    assert torch.isfinite(slope).all()
    for floored in (gate, Gate(floor=0.2, scale=2.0, value=1.5), Gate(floor=0.5, value=0.3, scope="key_value")):
        start = floored.squashed(torch.tensor(floored.start, dtype=torch.float64)).item()
        assert start == pytest.approx(floored.factor, rel=1e-12)
    assert keep_problem(gate) is None
    tied = {"retention": {"l2": {"keep": {"floor": 0.5, "scope": "key", "tie": "key"}}}}
    assert DesignPoint.parse(tied).canonical().retention.keep.floor == 0.5


def test_no_floor_leaves_the_hash_and_a_floor_does_not() -> None:
    def hash_of(keep: object) -> str:
        return DesignPoint.parse({"retention": {"l2": {"keep": keep}}}).hash

    assert hash_of({"floor": 0.0}) == hash_of({}) != hash_of({"floor": 0.5})
    assert "floor" not in KEEP.to_plain()
    assert Gate.from_plain({"source": "data", "floor": 0.5}, (), fixed(1.0)).value == 0.75  # let go, in its range


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"floor": 1.0}, "g.floor: 1 is not at least 0 and below 1"),
        ({"floor": -0.1}, "g.floor: -0.1 is not at least 0 and below 1"),
        ({"floor": 0.5, "squash": "mamba"}, "g.floor: only a sigmoid that is not tempered has a floor"),
        ({"floor": 0.5, "temper": 2.0}, "g.floor: only a sigmoid that is not tempered has a floor"),
        ({"floor": 0.98}, "g.value: a data sigmoid gate starts strictly between 0.98 and 1"),
    ],
)
def test_floors_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Gate.from_plain(settings, ("g",), KEEP)
    assert str(caught.value).startswith(message)


def test_a_fixed_gate_ignores_the_ranges_of_squashing() -> None:
    for value in (-1.0, 0.0, 1.0, 5.0):
        assert Gate.from_plain(value, (), STEP).value == value
    assert [fixed(x).is_one for x in (1.0, 0.999)] == [True, False]
    assert not Gate(value=0.999).is_one


@pytest.mark.parametrize(
    ("gate", "problem"),
    [
        (fixed(0.0), None),
        (fixed(1.0), None),
        (KEEP, None),
        (Gate(squash="mamba", value=0.9), None),
        (Gate(value=0.4, scale=0.5), None),
        (fixed(1.01), "a keep gate lies in [0, 1], got 1.01"),
        (fixed(-0.1), "a keep gate lies in [0, 1], got -0.1"),
        (Gate(squash="softplus"), "softplus exceeds 1: a keep gate is a sigmoid, or mamba's or rwkv's decay"),
        (Gate(scale=2.0), "a keep gate lies in [0, 1]: scale 2 lets it reach 2"),
    ],
)
def test_keep_lies_between_0_and_1(gate: Gate, problem: str | None) -> None:
    assert keep_problem(gate) == problem


def test_a_slot_can_be_let_go_by_a_word() -> None:
    """`fixed`, `learned`, `data` are the obvious ablation of a gate: each is reached by its name."""
    for bias in ("huber", "value_shift"):
        for source in ("learned", "data"):
            gate = DesignPoint.parse({"bias": {bias: {"delta": source}}}).gates["threshold"]
            assert (gate.source, gate.squash) == (source, "softplus")
    assert DesignPoint.parse({"preset": "linear_attention", "step": "data"}).step.value == 0.5
    assert DesignPoint.parse("delta_product").changed("step", "learned").step.scale == 2.0
    assert DesignPoint.parse("titans_lmm").changed("execution", {"chunk": 8}).execution.gradient.sweeps == 0


def ladder(**settings: object) -> Gate:
    return Gate.from_plain({"ladder": "halving", **settings}, ("g",), KEEP)


def test_a_ladder_gives_every_head_a_value_of_its_own() -> None:
    assert ladder(source="fixed", value=0.96875).rungs(3) == (1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128)
    slopes = ladder(ladder="slopes", source="fixed", value=math.exp(-1)).rungs(4)
    assert slopes == pytest.approx([math.exp(-(2.0 ** (-2 * h))) for h in (1, 2, 3, 4)])
    assert KEEP.rungs(3) == (0.97, 0.97, 0.97)
    many = ladder(value=0.5).starts(200)  # no head keeps all: a sigmoid could not start there
    assert all(map(math.isfinite, many))
    assert all(one <= other for one, other in itertools.pairwise(many))


def test_no_ladder_leaves_the_hash_and_the_text() -> None:
    def point(keep: object) -> DesignPoint:
        return DesignPoint.parse({"retention": {"l2": {"keep": keep}}})

    assert point({"ladder": "none"}).hash == point({}).hash != point({"ladder": "halving"}).hash
    assert "ladder" not in KEEP.to_plain()
    assert fixed(0.9).to_plain() == {"source": "fixed", "value": 0.9}
    climbing = point({"source": "fixed", "value": 0.9, "ladder": "slopes"})
    assert climbing.retention.keep.to_plain() == {"source": "fixed", "value": 0.9, "ladder": "slopes"}
    assert climbing.hash != point(0.9).hash
    assert DesignPoint.parse(climbing.to_plain()) == climbing.canonical() == climbing
    assert str(climbing.retention.keep) == "0.9 slopes"


def test_a_fixed_gate_can_be_put_on_a_ladder_and_taken_off_it() -> None:
    flat = DesignPoint.parse({"retention": {"l2": {"keep": 0.9}}})
    climbing = flat.changed("retention.keep.ladder", "halving")
    assert climbing.retention.keep.rungs(2) == pytest.approx((0.9, 0.95))
    assert climbing.changed("retention.keep.ladder", "none").hash == flat.hash
    with pytest.raises(SpecError, match="is fixed, and a fixed gate has only a value"):
        flat.changed("retention.keep.scope", "key")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "fixed", "value": 1.0}, "g.value: a ladder begins strictly between 0 and 1, got 1"),
        ({"source": "fixed", "value": 0.0}, "g.value: a ladder begins strictly between 0 and 1, got 0"),
        ({"scale": 0.99}, "g.ladder: its heads climb towards 1, and this gate ends at 0.99"),
        ({"ladder": "stairs"}, "g.ladder: 'stairs' is not one of none, halving, slopes (known: halving, none, slopes)"),
    ],
)
def test_ladders_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        ladder(**settings)
    assert str(caught.value) == message
