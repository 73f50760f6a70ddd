"""Gates: where keep, step, momentum and thresholds come from.

A gate is fixed (a number), learned (one parameter a head) or data-dependent (a projection of the layer's input), then
squashed into its range. `value` is the number of a fixed gate and the starting value of the others, so that a learned
and a fixed gate begin as the same model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, final

from miras_search.space.fields import Path, Plain, SpecError, build, require, setting
from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

LOG_FLOOR = -30.0  # exp(-30) = 1e-13: nothing is kept, and cumulative sums over a chunk stay finite in float32


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """A scalar per head and token: where it comes from and how it is squashed."""

    source: Literal["fixed", "learned", "data"] = setting("data", "a number, a parameter per head, or a projection")
    scope: Literal["head"] = setting("head", "what shares one value")
    squash: Literal["sigmoid", "softplus", "mamba"] = setting("sigmoid", "how a raw number becomes the gate")
    value: float = setting(0.5, "the fixed value; the starting value of a learned or data gate")
    scale: float = setting(1.0, "upper end of a sigmoid (2: negative eigenvalues in a delta rule)")

    def __post_init__(self) -> None:
        require(math.isfinite(self.value), "value", f"{self.value} is not finite")
        require(self.scale > 0, "scale", f"{self.scale} must be positive")
        if self.source == "fixed":
            return
        if self.squash == "sigmoid":
            ok = 0 < self.value < self.scale
            require(ok, "value", f"a {self.source} sigmoid gate starts strictly between 0 and {self.scale:g}")
        if self.squash == "softplus":
            require(self.value > 0, "value", f"a {self.source} softplus gate starts above 0, got {self.value:g}")
        if self.squash == "mamba":
            require(0 < self.value < 1, "value", f"a mamba decay starts strictly between 0 and 1, got {self.value:g}")

    @classmethod
    def from_plain(cls, data: object, where: Path, default: object = None) -> Gate:
        """A gate from a number (fixed), a source's name, or settings that refine the slot's default."""
        base = default if isinstance(default, Gate) else cls()
        if isinstance(data, int | float) and not isinstance(data, bool):
            return build(cls, {**_all(base), "source": "fixed", "value": data}, where)
        if isinstance(data, str):
            data = {"source": data}
        if not isinstance(data, Mapping):
            raise SpecError.at(where, f"expected a number, fixed, learned, data, or a gate's settings, got {data!r}")
        refined = {**_all(base), **data}
        let_go = base.source == "fixed" and refined["source"] != "fixed" and "value" not in data
        if let_go and refined["squash"] == "sigmoid" and base.value >= base.scale:
            refined["value"] = base.scale / 2  # no sigmoid starts at a constant 1
        return build(cls, refined, where)

    def to_plain(self) -> dict[str, Plain]:
        """Settings that matter: a fixed gate is its value alone."""
        if self.source == "fixed":
            return {"source": "fixed", "value": self.value}
        return {name: value for name, value in _all(self).items() if name != "scale" or self.squash == "sigmoid"}

    @property
    def is_one(self) -> bool:
        """Whether the gate is the constant 1."""
        return self.source == "fixed" and self.value == 1.0

    @property
    def reach(self) -> float:
        """The upper end of the range: the value of a fixed gate, infinity for softplus."""
        if self.source == "fixed":
            return self.value
        return {"sigmoid": self.scale, "softplus": math.inf, "mamba": 1.0}[self.squash]

    def __str__(self) -> str:
        return f"{self.value:g}" if self.source == "fixed" else self.source

    @property
    def start(self) -> float:
        """The raw number that squashes to `value`: the bias of a data gate, the parameter of a learned one."""
        if self.squash == "sigmoid":
            share = self.value / self.scale
            return math.log(share / (1 - share))
        if self.squash == "softplus":
            return _inverse_softplus(self.value)
        return _inverse_softplus(-math.log(self.value))  # mamba at rate 1: exp(-softplus(raw)) = value

    def squashed(self, raw: Tensor) -> Tensor:
        """The gate's value from a raw number (sigmoid and softplus)."""
        return self.scale * torch.sigmoid(raw) if self.squash == "sigmoid" else torch.nn.functional.softplus(raw)

    def log_squashed(self, raw: Tensor, log_rate: Tensor | None = None) -> Tensor:
        """The logarithm of a keep gate, floored at `LOG_FLOOR`; mamba's is -exp(log_rate) softplus(raw)."""
        if self.squash == "mamba":
            rate = 1.0 if log_rate is None else torch.exp(log_rate)
            return (-rate * torch.nn.functional.softplus(raw)).clamp(min=LOG_FLOOR)
        return (torch.nn.functional.logsigmoid(raw) + math.log(self.scale)).clamp(min=LOG_FLOOR)


def _all(gate: Gate) -> dict[str, Plain]:
    return {field.name: getattr(gate, field.name) for field in dataclasses.fields(gate)}


def _inverse_softplus(value: float) -> float:
    """log(exp(value) - 1), without the exponential's overflow."""
    return value + math.log(-math.expm1(-value))


def fixed(value: float) -> Gate:
    """A constant gate."""
    return Gate(source="fixed", value=value)


KEEP = Gate(source="data", squash="sigmoid", value=0.97)  # retains half a memory over about 23 tokens at the start
STEP = Gate(source="data", squash="sigmoid", value=0.5)
MOMENTUM = Gate(source="data", squash="sigmoid", value=0.8)


def keep_problem(gate: Gate) -> str | None:
    """Why a gate cannot be a keep gate, or None."""
    if gate.source == "fixed" and not 0 <= gate.value <= 1:
        return f"a keep gate lies in [0, 1], got {gate.value:g}"
    if gate.squash == "softplus" and gate.source != "fixed":
        return "softplus exceeds 1: a keep gate is a sigmoid or mamba's decay"
    if gate.reach > 1:
        return f"a keep gate lies in [0, 1]: scale {gate.scale:g} lets it reach {gate.reach:g}"
    return None
