"""Options come from anywhere by decorator, tell their facts, and cost no torch until their maths is used."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from memories import case, evaluate, worst
from torch import Tensor

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.space.bias import BIAS, Bias
from miras_search.space.design import AXES, DesignPoint
from miras_search.space.facts import option_facts
from miras_search.space.fields import SpecError, setting
from miras_search.space.gates import Gate, fixed
from miras_search.space.jit import Jit
from miras_search.space.option import short, spell


@dataclass(frozen=True, slots=True)
class LogCosh:
    """Logarithm of the hyperbolic cosine of the residual; a bias that a user might write."""

    name: ClassVar[str] = "log_cosh"
    equation: ClassVar[str] = "l = s sum log cosh(r_j / s);  u = tanh(r / s), s the threshold"
    source: ClassVar[str] = "this test"
    couples_channels: ClassVar[bool] = False
    slope: ClassVar[float | None] = None
    triton: ClassVar[Jit | None] = None
    threshold_scopes: ClassVar[tuple[str, ...]] = ("head", "value")

    delta: Gate = setting(fixed(1.0), "where the signal saturates")
    gain: float = setting(1.0, "factor of the loss")

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        assert threshold is not None
        return (self.gain * threshold * torch.log(torch.cosh((p - v) / threshold))).sum(-1)

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        assert threshold is not None
        return self.gain * torch.tanh((p - v) / threshold)

    def canonical(self) -> Bias:
        return self


@pytest.fixture
def log_cosh() -> Iterator[None]:
    BIAS.register(LogCosh)
    yield
    del BIAS.options["log_cosh"]


@pytest.mark.parametrize("memory", ["matrix", {"mlp": {"expansion": 2}}])
@pytest.mark.parametrize("gradient", ["exact", "frozen", {"refined": 2}])
@pytest.mark.parametrize("retention", ["l2", "kl"])
@pytest.mark.usefixtures("log_cosh")
def test_a_bias_from_outside_runs_everywhere(memory: object, gradient: object, retention: object) -> None:
    point = DesignPoint.parse(
        {
            "memory": memory,
            "bias": {"log_cosh": {"gain": 2.0}},
            "retention": retention,
            "execution": {"gradient": gradient, "chunk": 4},
        }
    )
    assert DesignPoint.parse(point.to_plain()) == point
    given = case(point, 9, seed=2)
    assert given.inputs.threshold is not None
    expected, expected_gradients, _ = evaluate(recurrence.run, point, given)
    for run in (chunkwise.run, dispatch.run):
        found, gradients, _ = evaluate(run, point, given)
        assert worst(found, expected) < 1e-10
        assert worst(gradients, expected_gradients) < 1e-10
    other = DesignPoint.parse({**point.to_plain(), "bias": "l2"})
    different, _, _ = evaluate(recurrence.run, other, dataclasses.replace(given))
    assert worst(different[:1], expected[:1]) > 1e-3
    assert point.hash != other.hash


@pytest.mark.usefixtures("log_cosh")
def test_a_bias_from_outside_is_named_in_errors_and_facts() -> None:
    with pytest.raises(SpecError, match=r"unknown bias 'log_cos' \(did you mean 'log_cosh'"):
        DesignPoint.parse({"bias": "log_cos"})
    with pytest.raises(SpecError, match=r"^bias\.log_cosh\.gain: expected a number, got 'x'$"):
        DesignPoint.parse({"bias": {"log_cosh": {"gain": "x"}}})
    assert option_facts("bias", LogCosh).to_plain()["settings"] == {
        "delta": {
            "type": "gate",
            "choices": [],
            "default": {"source": "fixed", "value": 1.0},
            "help": "where the signal saturates",
        },
        "gain": {"type": "number", "choices": [], "default": 1.0, "help": "factor of the loss"},
    }
    point = DesignPoint.parse({"bias": {"log_cosh": {"gain": 2}}})
    assert short(point.bias) == "log_cosh(gain=2.0)"
    assert spell(point.bias) == {"log_cosh": {"delta": {"source": "fixed", "value": 1.0}, "gain": 2.0}}
    with pytest.raises(ValueError, match="bias: an option named 'log_cosh' is already registered"):
        BIAS.register(LogCosh)


def test_options_tell_their_facts() -> None:
    for axis in AXES.values():
        assert axis.chooses
        for name, cls in axis.options.items():
            facts = option_facts(axis.name, cls)
            assert (facts.name, facts.axis, facts.plugin) == (name, axis.name, None)
            assert facts.equation
            assert facts.source or name == "none"
            assert facts.summary
            assert facts.module.startswith("miras_search.space.")
            settings = facts.to_plain()["settings"]
            assert isinstance(settings, dict)
            for about in settings.values():
                assert isinstance(about, dict)
                assert about["help"]
            expected = {key: value["default"] for key, value in settings.items()}
            assert spell(cls())[name] == expected


LAZY = """
import sys
from miras_search.space import algorithm, bias, control, design, execution, facts, memory, presets, retention, rules
from miras_search.space import combinations, plugins
combinations.count()
for name in presets.PRESETS:
    point = presets.preset(name)
    rules.check(point, 8, 8)
    point.hash, str(point), point.changed("step", 0.5), point.gates["keep"].start if name == "yaad" else None
    point.memory.layers(8, 8), point.memory.static(8, 8)
for axis in design.AXES.values():
    [facts.option_facts(axis.name, cls).to_plain() for cls in axis.options.values()]
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "triton", "numpy", "optuna", "ray", "pydantic"})
assert not heavy, heavy
bias.safe_norm
from miras_search.space.gates import STEP
try:
    STEP.squashed(0.0)
except TypeError:
    pass
assert "torch" in sys.modules
"""


def test_space_loads_neither_torch_nor_triton_until_maths_is_used() -> None:
    found = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
